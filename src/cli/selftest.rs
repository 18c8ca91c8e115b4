use std::sync::Arc;

use clap::Args;

use super::{DeviceOption, Failure, bar, print_json};
use crate::sae::selftest::{Found, selftest};
use crate::sae::synthetic::{Features, Synthetic};
use crate::sae::{Architecture, Gated, JumpPenalty, JumpRelu, Matryoshka, Standard, TrainConfig};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Width of an activation.
    #[arg(long, default_value_t = 64)]
    d: usize,
    /// True features.
    #[arg(long, default_value_t = 256)]
    features: usize,
    /// Features that an activation is made of.
    #[arg(long, default_value_t = 5)]
    active: usize,
    /// Activations to train on.
    #[arg(long, default_value_t = 2_000_000)]
    samples: u64,
    /// Latents. Default: as many as there are features.
    #[arg(long)]
    width: Option<usize>,
    /// Seed of the features, the activations and the weights.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceOption,
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let task = Synthetic {
        seed: options.seed,
        ..Synthetic::new(options.d, options.features, options.active)
    };
    let features = Arc::new(Features::new(task)?);
    let configs = configs(options);
    let device = options.device.open()?;
    let progress = bar("selftest", "activations", options.samples);
    let found = selftest(&features, &configs, &device, |n| progress.set_position(n))?;
    progress.finish_and_clear();
    if options.json {
        return print_json(&serde_json::json!({
            "task": features.config(), "samples": options.samples, "found": found,
        }));
    }
    say!(
        "{} features of width {}, {} in every activation, {} activations",
        options.features,
        options.d,
        options.active,
        options.samples
    );
    print(&found)
}

/// The settings of every autoencoder that is trained, all in one pass.
fn configs(options: &Options) -> Vec<TrainConfig> {
    let (k, width) = (options.active, options.width.unwrap_or(options.features));
    let architectures = [
        Architecture::TopK { k },
        Architecture::BatchTopK { k },
        Architecture::Matryoshka(Matryoshka::halving(k, width)),
        Architecture::JumpRelu(JumpRelu {
            penalty: JumpPenalty::Tanh {
                l0: 0.02,
                scale: 1.0,
            },
            threshold: 0.1,
            ..JumpRelu::aiming_at(k as f64)
        }),
        Architecture::Gated(Gated::for_width(options.d)),
        Architecture::Standard(Standard::for_width(options.d)),
    ];
    let config = |architecture| TrainConfig {
        architecture,
        batch: 1024,
        lr: 0.015, // few latents, and only two thousand steps
        seed: options.seed,
        ..TrainConfig::new(options.d, width, k, options.samples)
    };
    architectures.map(config).to_vec()
}

fn print(found: &[Found]) -> Result<(), Failure> {
    say!(
        "architecture          latents     L0     FVU  mean max cosine  missed  support F1  seconds"
    );
    for f in found {
        say!(
            "{:<20} {:>8} {:>6.2} {:>7.4} {:>16.4} {:>7} {:>11.4} {:>8.1}",
            f.architecture,
            f.d_sae,
            f.l0,
            f.fvu,
            f.mean_max_cosine,
            f.missed,
            f.support.f1,
            f.seconds
        );
    }
    Ok(())
}
