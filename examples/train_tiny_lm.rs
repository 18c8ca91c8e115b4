//! Trains a small Llama on a text file and writes a model directory that `inscape` can open.
//!
//! ```text
//! cargo run --release --example train_tiny_lm -- --text moby-dick.txt --seed 1 --out examples/data/tiny-lm-1
//! ```
//!
//! The first 85 % of the text (cut at a line) trains the tokenizer and the model; the rest is
//! held out. The tokenizer depends on the text only, so models of different seeds share it.

use std::error::Error;
use std::path::PathBuf;

use burn::tensor::Tensor;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use inscape::Device;
use inscape::capture::store::write_whole;
use inscape::device::{block_on, read};
use inscape::hook::Tap;
use inscape::model::family::llama::{Config, Llama};
use inscape::model::load::{RandomInit, Tokenizer, to_safetensors};
use inscape::model::{Model, Param, Tokens, next_token_loss};
use inscape::ops::{Adam, Moments, clip_scale};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokenizers::TokenizerBuilder;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

#[derive(Parser)]
struct Args {
    /// Training text, UTF-8.
    #[arg(long)]
    text: PathBuf,
    /// Seed of the initial weights and of the batches.
    #[arg(long)]
    seed: u64,
    /// Directory to write.
    #[arg(long)]
    out: PathBuf,
    #[arg(long, default_value_t = 1500)]
    steps: usize,
    #[arg(long, default_value_t = 16)]
    batch: usize,
    #[arg(long, default_value_t = 3e-3)]
    lr: f64,
    #[arg(long, default_value = "auto", env = "INSCAPE_DEVICE")]
    device: String,
}

const CONTEXT: usize = 128;
const VOCAB: usize = 1024;

fn config() -> Config {
    let json = serde_json::json!({
        "model_type": "llama", "hidden_size": 128, "intermediate_size": 344, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": VOCAB,
        "max_position_embeddings": CONTEXT, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
        "tie_word_embeddings": true, "hidden_act": "silu",
    });
    serde_json::from_value(json).expect("the literal fits the type")
}

/// Byte-level BPE, trained on `text` alone.
fn train_tokenizer(text: &str) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
    let mut alphabet: Vec<char> = ByteLevel::alphabet().into_iter().collect();
    alphabet.sort_unstable();
    let mut trainer = BpeTrainerBuilder::new()
        .show_progress(false)
        .vocab_size(VOCAB)
        .initial_alphabet(alphabet.into_iter().collect())
        .build();
    let byte_level = ByteLevel::default().add_prefix_space(false);
    let mut tokenizer = TokenizerBuilder::new()
        .with_model(BPE::default())
        .with_normalizer(None::<tokenizers::NormalizerWrapper>)
        .with_pre_tokenizer(Some(byte_level))
        .with_post_processor(None::<tokenizers::PostProcessorWrapper>)
        .with_decoder(Some(byte_level))
        .build()?;
    let lines = text.split_inclusive('\n').map(str::to_owned);
    tokenizer.train(&mut trainer, lines)?;
    Ok(tokenizer.to_string(true)?.into_bytes())
}

fn lr_at(step: usize, args: &Args) -> f64 {
    let warm = 100.0f64.min(args.steps as f64 / 10.0);
    let t = step as f64 / args.steps as f64;
    let cosine = 0.5 * (1.0 + (std::f64::consts::PI * t).cos());
    args.lr * (0.05 + 0.95 * cosine) * ((step + 1) as f64 / warm).min(1.0)
}

enum State {
    R1(Moments<1>),
    R2(Moments<2>),
}

fn loss_of(model: &Llama, rows: Vec<Vec<u32>>) -> Tensor<1> {
    let tokens = Tokens::new(rows);
    let logits = model
        .forward(&tokens, &mut Tap::none())
        .logits
        .expect("nothing stops the pass");
    let ids = tokens.ids(&logits.device());
    next_token_loss(logits, ids)
}

fn held_out_loss(model: &Llama, ids: &[u32]) -> Result<f64, Box<dyn Error>> {
    let windows: Vec<Vec<u32>> = ids.chunks_exact(CONTEXT).map(<[u32]>::to_vec).collect();
    let mut sum = 0.0;
    for rows in windows.chunks(16) {
        let loss: Vec<f32> = block_on(read(loss_of(model, rows.to_vec())))?;
        sum += f64::from(loss[0]) * rows.len() as f64;
    }
    Ok(sum / windows.len() as f64)
}

fn step(
    model: &mut Llama,
    moments: &mut Vec<State>,
    adam: &Adam,
    t: usize,
    lr: f64,
    rows: Vec<Vec<u32>>,
) -> Tensor<1> {
    let loss = loss_of(model, rows);
    let grads = loss.backward();
    let square = |p: &Param<'_>| match p {
        Param::R1(x) => x
            .grad(&grads)
            .expect("every parameter is used")
            .square()
            .sum(),
        Param::R2(x) => x
            .grad(&grads)
            .expect("every parameter is used")
            .square()
            .sum(),
    };
    let mut params = model.params();
    let scale = clip_scale(params.iter().map(|(_, p)| square(p)).collect(), 1.0);
    for (i, (_, param)) in params.iter_mut().enumerate() {
        match param {
            Param::R1(x) => {
                if moments.len() == i {
                    moments.push(State::R1(Moments::zeros(&x.clone().inner())));
                }
                let State::R1(m) = &mut moments[i] else {
                    unreachable!("same order every step")
                };
                let grad = x.grad(&grads).expect("every parameter is used") * scale.clone();
                **x = Tensor::from_inner(adam.step(t as u64, lr, x.clone().inner(), grad, m))
                    .require_grad();
            }
            Param::R2(x) => {
                if moments.len() == i {
                    moments.push(State::R2(Moments::zeros(&x.clone().inner())));
                }
                let State::R2(m) = &mut moments[i] else {
                    unreachable!("same order every step")
                };
                let grad =
                    x.grad(&grads).expect("every parameter is used") * scale.clone().unsqueeze();
                **x = Tensor::from_inner(adam.step(t as u64, lr, x.clone().inner(), grad, m))
                    .require_grad();
            }
        }
    }
    loss.inner()
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    run(&Args::parse()).map_err(|e| e.to_string().into())
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let text = std::fs::read_to_string(&args.text)?;
    let cut = text[..text.len() * 85 / 100]
        .rfind('\n')
        .map_or(0, |i| i + 1);
    let (train, held_out) = text.split_at(cut);
    let tokenizer_json = train_tokenizer(train).map_err(|e| e.to_string())?;
    let tokenizer = Tokenizer::from_bytes(&tokenizer_json)?;
    let encode = |t: &str| -> Result<Vec<u32>, inscape::model::Error> {
        Ok(tokenizer.encode(t)?.iter().map(|p| p.id).collect())
    };
    let (train_ids, held_ids) = (encode(train)?, encode(held_out)?);
    eprintln!(
        "{} training tokens, {} held out",
        train_ids.len(),
        held_ids.len()
    );

    let device = Device::cpu();
    let autodiff = Device::from_burn(device.tensor().clone().autodiff());
    let mut model = Llama::new(
        config(),
        &mut RandomInit::new(args.seed, 0.02, &autodiff),
        autodiff.tensor(),
    )?;
    for (_, param) in model.params() {
        match param {
            Param::R1(x) => *x = x.clone().require_grad(),
            Param::R2(x) => *x = x.clone().require_grad(),
        }
    }
    let mut rng = ChaCha8Rng::seed_from_u64(args.seed ^ 0x7117);
    let mut moments = Vec::new();
    let adam = Adam {
        beta2: 0.99,
        weight_decay: 0.1,
        ..Adam::default()
    };
    let bar = ProgressBar::new(args.steps as u64).with_style(ProgressStyle::with_template(
        "{bar:30} {pos}/{len} steps  {per_sec}  eta {eta}  loss {msg}",
    )?);
    for t in 1..=args.steps {
        let window = |start: usize| train_ids[start..start + CONTEXT].to_vec();
        let rows = (0..args.batch)
            .map(|_| window(rng.random_range(0..=train_ids.len() - CONTEXT)))
            .collect();
        let loss = step(&mut model, &mut moments, &adam, t, lr_at(t, args), rows);
        if t % 25 == 0 || t == args.steps {
            let loss: Vec<f32> = block_on(read(loss))?;
            bar.set_message(format!("{:.3}", loss[0]));
            if bar.is_hidden() && t % 100 == 0 {
                eprintln!("step {t} loss {:.3} {:.1} steps/s", loss[0], bar.per_sec());
            }
        }
        bar.inc(1);
    }
    bar.finish();
    let loss = held_out_loss(&model, &held_ids)?;
    std::fs::create_dir_all(&args.out)?;
    write_whole(
        &args.out.join("model.safetensors"),
        &to_safetensors(&mut model)?,
    )?;
    std::fs::write(
        args.out.join("config.json"),
        serde_json::to_string_pretty(&config())?,
    )?;
    std::fs::write(args.out.join("tokenizer.json"), &tokenizer_json)?;
    let card = serde_json::json!({
        "seed": args.seed, "steps": args.steps, "tokens_seen": args.steps * args.batch * CONTEXT,
        "training_tokens": train_ids.len(), "held_out_tokens": held_ids.len(),
        "held_out_loss_nats": loss, "uniform_baseline_nats": (VOCAB as f64).ln(), "learning_rate": args.lr,
    });
    std::fs::write(
        args.out.join("card.json"),
        serde_json::to_string_pretty(&card)?,
    )?;
    println!("{card}");
    Ok(())
}
