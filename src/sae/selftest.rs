//! Does training find what is there? Autoencoders trained on synthetic activations of known features.

use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::synthetic::{Features, Support};
use super::train::batch_tensor;
use super::{Error, TrainConfig, Trainer, session};
use crate::Device;
use crate::device::block_on;

/// Rows that a run starts from, and, after those trained on, rows it is measured on.
const ROWS: usize = 8192;

/// How one autoencoder did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// Which architecture.
    pub architecture: String,
    /// Its latents.
    pub d_sae: usize,
    /// Mean active latents a row, of rows not trained on.
    pub l0: f64,
    /// Of the same rows.
    pub fvu: f64,
    /// Mean over the features of their largest cosine with a decoder row.
    pub mean_max_cosine: f64,
    /// Features without a decoder row of cosine 0.9.
    pub missed: usize,
    /// How well its latents tell which features a row has.
    pub support: Support,
    /// Seconds its training steps took.
    pub seconds: f64,
}

/// Trains an autoencoder for each of `configs` on the first rows of `features`, all in one pass, and
/// measures it on rows that follow. `seen` gets the activations done.
///
/// The rows are independent, so that they need no shuffling. Memory: what the trainers hold, and one
/// batch.
///
/// # Errors
/// No settings, or some that cannot work or differ in batch or tokens; a loss that diverges; the
/// device failed.
pub fn selftest(
    features: &Arc<Features>,
    configs: &[TrainConfig],
    device: &Device,
    mut seen: impl FnMut(u64),
) -> Result<Vec<Found>, Error> {
    let (steps, batch) = one_pass(configs)?;
    let d = features.config().d;
    let rows = |range: std::ops::Range<usize>| {
        let mut out = vec![0.0; range.len() * d];
        features.fill(range, &mut out);
        out
    };
    let sample = rows(0..ROWS);
    let start = |c: &TrainConfig| Trainer::new(c.clone(), &sample, d, device.tensor());
    let mut trainers = configs.iter().map(start).collect::<Result<Vec<_>, _>>()?;
    let mut seconds = vec![0.0; trainers.len()];
    for step in 0..steps {
        let x = batch_tensor(rows(step * batch..(step + 1) * batch), d, device.tensor());
        for (trainer, seconds) in trainers.iter_mut().zip(&mut seconds) {
            let begun = Instant::now();
            block_on(trainer.step(x.clone()))?;
            device.sync()?;
            *seconds += begun.elapsed().as_secs_f64();
        }
        seen(((step + 1) * batch) as u64);
    }
    let measured = |(trainer, seconds): (&Trainer, f64)| {
        block_on(trainer.stats())?;
        measure(features, trainer, steps * batch, seconds, device)
    };
    trainers.iter().zip(seconds).map(measured).collect()
}

/// Steps and batch that all settings share.
fn one_pass(configs: &[TrainConfig]) -> Result<(usize, usize), Error> {
    let shared = |c: &TrainConfig| (c.steps() as usize, c.batch);
    let first = configs.first().map(shared);
    match first {
        Some(first) if configs.iter().all(|c| shared(c) == first) => Ok(first),
        _ => Err(Error::Config(
            "one pass needs settings with the same tokens and batch".into(),
        )),
    }
}

/// Measured on rows after the first `trained`.
fn measure(
    features: &Arc<Features>,
    trainer: &Trainer,
    trained: usize,
    seconds: f64,
    device: &Device,
) -> Result<Found, Error> {
    let sae = &trainer.sae();
    let fresh = trained.max(ROWS)..trained.max(ROWS) + ROWS;
    let source = features.source(fresh.end).sub(fresh.clone())?;
    let kept = session::evaluate(sae, &source, device, |_| ())?;
    let recovery = block_on(features.recovery(sae.w_dec.clone()))?;
    Ok(Found {
        architecture: trainer.config().architecture.name().into(),
        d_sae: sae.d_sae(),
        l0: kept.l0,
        fvu: kept.fvu,
        mean_max_cosine: recovery.mean_max_cosine,
        missed: recovery.missed.len(),
        support: block_on(features.support(sae, &recovery, fresh, device))?,
        seconds,
    })
}
