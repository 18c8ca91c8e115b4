//! Autoencoders of the small models that come with the crate, on the text that comes with them.

use std::path::Path;
use std::sync::Arc;

use inscape::capture::{self, CaptureConfig};
use inscape::model::load::SAMPLE;
use inscape::model::{self, Network};
use inscape::sae::TrainConfig;
use inscape::sae::session::{self, SessionOptions};

use crate::*;

/// A model and its activations at `hook`, of the first `tokens` of the sample.
pub fn captured(
    name: &str,
    hook: &str,
    tokens: u64,
    dir: &Path,
    cpu: &Device,
) -> (Network, Source) {
    let network = model::load(name, cpu).unwrap();
    let config = CaptureConfig {
        max_tokens: Some(tokens),
        ..CaptureConfig::new([hook])
    };
    let (text, out) = (SAMPLE.as_bytes(), dir.join(name));
    let store = capture::capture(
        &network,
        text,
        "sample",
        &out,
        &config,
        false,
        "cpu",
        |_| (),
    );
    let source = Source::hook(&Arc::new(store.unwrap()), hook).unwrap();
    (network, source)
}

/// TopK with `k` of `d_sae` latents, trained on `passes` over the rows.
pub fn trained(
    source: &Source,
    [d_sae, k]: [usize; 2],
    passes: usize,
    dir: &Path,
    cpu: &Device,
) -> Sae {
    let tokens = (passes * source.rows()) as u64;
    let config = TrainConfig {
        batch: 1024,
        ..TrainConfig::new(source.width(), d_sae, k, tokens)
    };
    let options = SessionOptions {
        checkpoint_every: u64::MAX,
        ..SessionOptions::new(dir)
    };
    session::train(source.clone(), 0, &config, &options, cpu, |_| ()).unwrap()
}
