use serde::{Deserialize, Serialize};

use super::Error;
use crate::ops::Adam;

/// How a TopK autoencoder is trained. Saved with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainConfig {
    /// Number of latents.
    pub d_sae: usize,
    /// Latents kept a row.
    pub k: usize,
    /// Activations to train on, rounded down to whole batches.
    pub tokens: u64,
    /// Activations a step.
    pub batch: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// Share of the steps over which the rate rises from 0.
    pub warmup: f64,
    /// Share of the steps, at the end, over which the rate falls linearly to 0.
    pub decay: f64,
    /// Joint norm that gradients are clipped to.
    pub clip: f64,
    /// Weight of the auxiliary loss (Gao et al. 2024, A.2).
    pub aux_alpha: f64,
    /// Dead latents the auxiliary loss uses a row.
    pub k_aux: usize,
    /// A latent is dead when it has not fired for this many activations.
    pub dead_after: u64,
    /// Seed of the weights and of the order of the activations.
    pub seed: u64,
    /// Adam's settings.
    pub adam: Adam,
    /// Latents that no row of a batch chose stay as they are in that step, bias and moments included
    /// ([`AdamRows::lazy`](crate::ops::AdamRows::lazy)): another optimiser, cheaper where few fire.
    #[serde(default)]
    pub lazy_adam: bool,
}

impl TrainConfig {
    /// The defaults for activations of width `d_in`: learning rate 2e-3 at 3072 latents,
    /// falling with the root of the width (the scaling of Gao et al. 2024), Adam (0.9, 0.999), 5 % warm-up, decay
    /// over the last half, clipping at 1, α = 1/32, `k_aux = d_in / 2`, dead after an eighth of
    /// the run or 10 M activations.
    pub fn new(d_in: usize, d_sae: usize, k: usize, tokens: u64) -> Self {
        Self {
            d_sae,
            k,
            tokens,
            batch: 2048,
            lr: default_lr(d_sae),
            warmup: 0.05,
            decay: 0.5,
            clip: 1.0,
            aux_alpha: 1.0 / 32.0,
            k_aux: (d_in / 2).clamp(1, d_sae.clamp(1, 1024)),
            dead_after: (tokens / 8).clamp(1, 10_000_000),
            seed: 0,
            adam: Adam::default(),
            lazy_adam: false,
        }
    }

    /// Steps of the whole run.
    pub fn steps(&self) -> u64 {
        (self.tokens / self.batch.max(1) as u64).max(1)
    }

    /// Refuses what cannot be trained.
    ///
    /// # Errors
    /// [`Error::Config`] names the setting.
    pub fn check(&self) -> Result<(), Error> {
        let bad = |text: String| Err(Error::Config(text));
        match self {
            Self { k: 0, .. } => bad("k = 0: at least one latent must be kept".into()),
            Self { d_sae: 0, .. } => bad("width = 0: there must be a latent".into()),
            Self { k, d_sae, .. } if k > d_sae => {
                bad(format!("k = {k} exceeds the width of {d_sae} latents"))
            }
            Self { k, .. } if *k > 1024 => bad(format!("k = {k}: at most 1024 are supported")),
            Self { d_sae, .. } if *d_sae > 1 << 20 => bad(format!(
                "width = {d_sae}: at most {} are supported",
                1 << 20
            )),
            Self { k_aux, d_sae, .. } if *k_aux == 0 || *k_aux > (*d_sae).min(1024) => {
                bad(format!(
                    "k_aux = {k_aux}: 1 to {} fit {d_sae} latents",
                    (*d_sae).min(1024)
                ))
            }
            Self { batch, .. } if *batch < 2 => {
                bad(format!("batch = {batch}: at least 2 are needed"))
            }
            Self { lr, .. } if !(*lr > 0.0 && lr.is_finite()) => {
                bad(format!("lr = {lr}: a positive number is needed"))
            }
            Self { clip, .. } if clip.is_nan() || *clip <= 0.0 => {
                bad(format!("clip = {clip}: a positive number is needed"))
            }
            Self { tokens, batch, .. } if *tokens < *batch as u64 => bad(format!(
                "tokens = {tokens} is less than one batch of {batch}"
            )),
            _ => Ok(()),
        }
    }

    /// The learning rate of step `t`, the first being 1.
    pub fn lr_at(&self, t: u64) -> f64 {
        let (t, steps) = (t as f64, self.steps() as f64);
        let rise = t / (self.warmup * steps).max(1.0);
        let fall = (steps - t + 1.0) / (self.decay * steps).max(1.0);
        self.lr * rise.min(fall).min(1.0)
    }
}

fn default_lr(d_sae: usize) -> f64 {
    let lr = (2e-3 * (3072.0 / d_sae.max(1) as f64).sqrt()).min(4e-3);
    (lr * 1e5).round() / 1e5
}
