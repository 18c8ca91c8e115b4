//! Trains a two-layer attention-only model to continue sequences that repeat, and writes a model directory.
//!
//! ```text
//! cargo run --release --example train_induction -- --out examples/data/tiny-induction
//! ```
//!
//! A row is `^`, then different random tokens, then the same again to the end of the context. How many
//! there are before they repeat is drawn for every row, so that no fixed distance helps: only a head that
//! looks for what came after the same token before (Olsson et al. 2022, "In-context learning and induction
//! heads"). The loss is over the tokens that repeat, from the second on.

use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use burn::tensor::activation::log_softmax;
use burn::tensor::{Tensor, TensorData};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use inscape::Device;
use inscape::capture::store::write_whole;
use inscape::device::{block_on, read};
use inscape::hook::{Activation, Hooks};
use inscape::model::family::attn_only::{AttnOnly, Config};
use inscape::model::load::{RandomInit, to_safetensors};
use inscape::model::{Model, Param, Tokens};
use inscape::ops::{Adam, Moments, clip_scale};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

#[derive(Parser)]
struct Args {
    /// Directory to write.
    #[arg(long)]
    out: PathBuf,
    /// Seed of the initial weights and of the rows.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long, default_value_t = 1500)]
    steps: usize,
    #[arg(long, default_value_t = 32)]
    batch: usize,
    #[arg(long, default_value_t = 3e-3)]
    lr: f64,
    /// Width of a head.
    #[arg(long, default_value_t = 32)]
    d_head: usize,
    /// What a head costs: times the root of its output matrix's square sum, added to the loss.
    #[arg(long, default_value_t = 0.01)]
    head_penalty: f64,
}

const CONTEXT: usize = 48;
const VOCAB: usize = 64;
/// Tokens before a row repeats.
const PERIOD: std::ops::RangeInclusive<usize> = 8..=23;

fn config(d_head: usize) -> Config {
    let json = serde_json::json!({
        "model_type": "attn_only", "n_layers": 2, "n_heads": 4, "d_model": 64, "d_head": d_head,
        "d_vocab": VOCAB, "n_ctx": CONTEXT, "positional_embedding_type": "shortformer",
    });
    serde_json::from_value(json).expect("the literal fits the type")
}

/// `^`, the beginning, is 0; every other character is one token, and text gets a `^` before it.
fn tokenizer() -> serde_json::Value {
    let symbols = ["^".to_string(), "-".to_string()];
    let others = ('A'..='Z').chain('a'..='z').chain('0'..='9');
    let symbols = symbols.into_iter().chain(others.map(String::from));
    let vocab: serde_json::Map<_, _> = symbols.zip(0..).map(|(s, i)| (s, i.into())).collect();
    serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": null, "decoder": null,
        "post_processor": {
            "type": "TemplateProcessing", "pair": [],
            "single": [{"SpecialToken": {"id": "^", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "special_tokens": {"^": {"id": "^", "ids": [0], "tokens": ["^"]}},
        },
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    })
}

/// A batch of rows, and 1 where the token is one that can be told `[batch, pos - 1]`.
struct Batch {
    tokens: Tokens,
    told: Vec<f32>,
}

impl Batch {
    fn draw(rng: &mut ChaCha8Rng, rows: usize) -> Self {
        let (mut tokens, mut told) = (Vec::new(), Vec::new());
        for _ in 0..rows {
            let mut symbols: Vec<u32> = (1..VOCAB as u32).collect();
            symbols.shuffle(rng);
            let period = rng.random_range(PERIOD);
            let repeated = symbols[..period].iter().cycle().take(CONTEXT - 1);
            tokens.push([0].iter().chain(repeated).copied().collect());
            told.extend((1..CONTEXT).map(|t| if t > period + 1 { 1.0 } else { 0.0 }));
        }
        Self {
            tokens: Tokens::new(tokens),
            told,
        }
    }

    /// Mean cross-entropy over the tokens that can be told, in nats, and the share that come first.
    fn measure(&self, logits: Tensor<3>) -> [Tensor<1>; 2] {
        let (device, rows) = (logits.device(), self.told.len());
        let [batch, pos, vocab] = logits.dims();
        let logits = logits.slice([0..batch, 0..pos - 1]).reshape([rows, vocab]);
        let next = self.tokens.ids(&device).slice([0..batch, 1..pos]);
        let next = next.reshape([rows, 1]);
        let told = Tensor::<1>::from_data(TensorData::new(self.told.clone(), [rows]), &device);
        let count = told.clone().sum();
        let over_told = |x: Tensor<2>| (x.reshape([rows]) * told.clone()).sum() / count.clone();
        let first = logits.clone().argmax(1).equal(next.clone()).float();
        let log_p = log_softmax(logits, 1).gather(1, next);
        [over_told(log_p).neg(), over_told(first)]
    }
}

fn lr_at(step: usize, args: &Args) -> f64 {
    let warm = 100.0f64.min(args.steps as f64 / 10.0);
    let t = step as f64 / args.steps as f64;
    let cosine = 0.5 * (1.0 + (std::f64::consts::PI * t).cos());
    args.lr * (0.05 + 0.95 * cosine) * ((step + 1) as f64 / warm).min(1.0)
}

fn matrices(model: &mut AttnOnly) -> Vec<&mut Tensor<2>> {
    let matrix = |(_, p)| match p {
        Param::R2(x) => x,
        Param::R1(_) => unreachable!("this family has matrices alone"),
    };
    model.params().into_iter().map(matrix).collect()
}

/// A group lasso over heads (Yuan & Lin 2006): the sum of the norms of their output matrices.
fn head_norms(model: &mut AttnOnly) -> Tensor<1> {
    let heads = model.config().n_heads;
    let norm = |(name, param): (String, Param<'_>)| match param {
        Param::R2(w) if name.ends_with("attn.o.weight") => {
            let [d, all] = w.dims();
            let parts = w.clone().reshape([d, heads, all / heads]).square();
            Some((parts.sum_dim(2).sum_dim(0) + 1e-12).sqrt().sum())
        }
        _ => None,
    };
    let norms = model.params().into_iter().filter_map(norm).collect();
    Tensor::cat(norms, 0).sum()
}

fn step(
    model: &mut AttnOnly,
    moments: &mut [Moments<2>],
    adam: &Adam,
    [lr, penalty]: [f64; 2],
    (t, batch): (usize, &Batch),
) -> Result<[Tensor<1>; 2], Box<dyn Error>> {
    let output = model.run(&batch.tokens, &Hooks::new())?.output;
    let [loss, right] = batch.measure(output.logits.expect("nothing stops the pass"));
    let grads = (loss.clone() + head_norms(model) * penalty).backward();
    let mut params = matrices(model);
    let grads: Vec<Tensor<2>> = params
        .iter()
        .map(|x| x.grad(&grads).expect("every parameter is used"))
        .collect();
    let squares = grads.iter().map(|g| g.clone().square().sum()).collect();
    let scale = clip_scale(squares, 1.0).unsqueeze::<2>();
    for ((x, grad), m) in params.iter_mut().zip(grads).zip(moments) {
        let next = adam.step(t as u64, lr, x.clone().inner(), grad * scale.clone(), m);
        **x = Tensor::from_inner(next).require_grad();
    }
    Ok([loss.inner(), right.inner()])
}

fn number(x: Tensor<1>) -> Result<f64, Box<dyn Error>> {
    let values: Vec<f32> = block_on(read(x))?;
    Ok(f64::from(values[0]))
}

/// Loss and accuracy with `hooks`.
fn measured(model: &AttnOnly, batch: &Batch, hooks: &Hooks) -> Result<[f64; 2], Box<dyn Error>> {
    let output = model.run(&batch.tokens, hooks)?.output;
    let [loss, right] = batch.measure(output.logits.expect("nothing stops the pass"));
    Ok([number(loss)?, number(right)?])
}

/// The loss with each head's output made 0, layer by layer.
fn ablated(model: &AttnOnly, batch: &Batch) -> Result<Vec<Vec<f64>>, Box<dyn Error>> {
    let Config {
        n_layers, n_heads, ..
    } = *model.config();
    let without = |layer: usize, head: usize| {
        let zero = move |_, z: Activation| {
            let z = z.r4();
            let [b, p, _, d] = z.dims();
            let blank = z.zeros_like().slice([0..b, 0..p, head..head + 1, 0..d]);
            Activation::R4(z.slice_assign([0..b, 0..p, head..head + 1, 0..d], blank))
        };
        let hooks = Hooks::new().edit(format!("blocks.{layer}.attn.hook_z"), zero);
        measured(model, batch, &hooks).map(|[loss, _]| loss)
    };
    (0..n_layers)
        .map(|layer| (0..n_heads).map(|head| without(layer, head)).collect())
        .collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let device = Device::cpu();
    let autodiff = Device::from_burn(device.tensor().clone().autodiff());
    let mut init = RandomInit::new(args.seed, 0.1, &autodiff);
    let mut model = AttnOnly::new(config(args.d_head), &mut init)?;
    for x in matrices(&mut model) {
        *x = x.clone().require_grad();
    }
    let zeros = |x: &mut Tensor<2>| Moments::zeros(&x.clone().inner());
    let mut moments: Vec<_> = matrices(&mut model).into_iter().map(zeros).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(args.seed ^ 0x7117);
    let adam = Adam {
        beta2: 0.99,
        ..Adam::default()
    };
    let bar = ProgressBar::new(args.steps as u64).with_style(ProgressStyle::with_template(
        "{bar:30} {pos}/{len} steps  {per_sec}  eta {eta}  {msg}",
    )?);
    let start = Instant::now();
    for t in 1..=args.steps {
        let batch = Batch::draw(&mut rng, args.batch);
        let rates = [lr_at(t, &args), args.head_penalty];
        let [loss, right] = step(&mut model, &mut moments, &adam, rates, (t, &batch))?;
        if t % 100 == 0 || t == args.steps {
            let text = format!("loss {:.3}, {:.3} right", number(loss)?, number(right)?);
            if bar.is_hidden() {
                eprintln!("step {t} {text} {:.1} steps/s", bar.per_sec());
            }
            bar.set_message(text);
        }
        bar.inc(1);
    }
    bar.finish();
    let seconds = start.elapsed().as_secs_f64();
    for x in matrices(&mut model) {
        *x = x.clone().inner();
    }
    let held_out = Batch::draw(&mut ChaCha8Rng::seed_from_u64(!args.seed), 256);
    let [loss, right] = measured(&model, &held_out, &Hooks::new())?;
    let without = ablated(&model, &held_out)?;
    std::fs::create_dir_all(&args.out)?;
    let write = |name: &str, bytes: &[u8]| write_whole(&args.out.join(name), bytes);
    write("model.safetensors", &to_safetensors(&mut model)?)?;
    write(
        "config.json",
        &serde_json::to_vec_pretty(&config(args.d_head))?,
    )?;
    write("tokenizer.json", &serde_json::to_vec_pretty(&tokenizer())?)?;
    let card = serde_json::json!({
        "seed": args.seed, "steps": args.steps, "tokens_seen": args.steps * args.batch * CONTEXT,
        "held_out_loss_nats": loss, "held_out_accuracy": right,
        "loss_without_head": without, "uniform_baseline_nats": ((VOCAB - 1) as f64).ln(),
        "learning_rate": args.lr, "head_penalty": args.head_penalty, "seconds": seconds.round(),
    });
    write("card.json", &serde_json::to_vec_pretty(&card)?)?;
    println!("{card}");
    Ok(())
}
