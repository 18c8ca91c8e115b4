//! Which neurons of one model have a partner in another that was trained from another seed?
//!
//! ```text
//! cargo run --release --example universal_neurons -- --tokens 1000000
//! ```
//!
//! Runs two embedded models over the same text and correlates every MLP neuron of one with every one of the
//! other, batch by batch: no token is kept. A neuron counts as universal where its best correlation exceeds by
//! 0.3 the best one with the other model's neurons turned by a random rotation (Gurnee et al. 2024, "Universal
//! Neurons in GPT2 Language Models", who take 0.5 in a larger model). The text is read again and again until
//! there are as many tokens as asked for.

use std::error::Error;
use std::time::Instant;

use burn::tensor::Tensor;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use inscape::Device;
use inscape::capture::batches;
use inscape::hook::Hooks;
use inscape::model::{self, Network, Tokens};
use inscape::similarity::{Correlations, excess_correlation};

#[derive(Parser)]
struct Options {
    /// The two models.
    #[arg(long, num_args = 2, default_values = ["tiny-lm-1", "tiny-lm-2"])]
    models: Vec<String>,
    /// Tokens to read.
    #[arg(long, default_value_t = 1_000_000)]
    tokens: usize,
    /// Excess correlation from which a neuron counts as universal.
    #[arg(long, default_value_t = 0.3)]
    above: f64,
}

/// All MLP neurons of a model side by side, `[tokens, layers · d_mlp]`.
fn neurons(network: &Network, tokens: &Tokens) -> Result<Tensor<2>, Box<dyn Error>> {
    let run = network.run(tokens, &Hooks::new().capture("blocks.*.mlp.hook_post"))?;
    let rows = run.captured.iter().map(|(_, x)| {
        let x = x.clone().r3();
        let [b, p, d] = x.dims();
        x.reshape([b * p, d])
    });
    Ok(Tensor::cat(rows.collect(), 1))
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let device = Device::cpu();
    let load = |name: &String| model::load(name, &device);
    let networks: Vec<Network> = options.models.iter().map(load).collect::<Result<_, _>>()?;
    let text = model::load::SAMPLE.as_bytes();
    let text = batches(&networks[0], text, "sample", 128, 16, None)?;

    let style = "{bar:28} {pos}/{len} tokens  {per_sec}  {eta} left";
    let bar =
        ProgressBar::new(options.tokens as u64).with_style(ProgressStyle::with_template(style)?);
    let started = Instant::now();
    let mut sums: Option<Correlations> = None;
    for tokens in text.iter().cycle() {
        let [x, y] = [&networks[0], &networks[1]].map(|n| neurons(n, tokens));
        let (x, y) = (x?, y?);
        let sums = sums.get_or_insert_with(|| {
            Correlations::new(x.dims()[1], y.dims()[1], &device).with_rotations()
        });
        sums.push(&x, &y)?;
        bar.set_position(sums.rows() as u64);
        if sums.rows() >= options.tokens {
            break;
        }
    }
    bar.finish_and_clear();
    let sums = sums.ok_or("the text has no tokens")?;
    let seconds = started.elapsed().as_secs_f64();

    let found = sums.read()?;
    let excess = excess_correlation(std::slice::from_ref(&found), &[sums.rotated(0)?]);
    let universal: Vec<usize> = (0..excess.len())
        .filter(|&i| excess[i] > options.above)
        .collect();
    let best = found.best_match();
    println!(
        "{} tokens in {seconds:.0} s, {:.0} tokens/s; {} neurons against {}",
        sums.rows(),
        sums.rows() as f64 / seconds,
        found.rows,
        found.columns
    );
    println!(
        "{} ({:.1} %) exceed a rotation by more than {}",
        universal.len(),
        100.0 * universal.len() as f64 / excess.len() as f64,
        options.above
    );
    for &i in universal.iter().take(20) {
        let pair = &best[i];
        println!(
            "neuron {i:5} and {:5}: r {:.3}, excess {:.3}",
            pair.right, pair.r, excess[i]
        );
    }
    Ok(())
}
