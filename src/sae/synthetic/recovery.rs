use std::ops::Range;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::Features;
use crate::Device;
use crate::device;
use crate::sae::eval::matching::max_cosine;
use crate::sae::train::batch_tensor;
use crate::sae::{Error, Sae};

/// A feature counts as found when a decoder row has this cosine with it.
pub const FOUND: f64 = 0.9;

/// How well a dictionary knows the true features.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recovery {
    /// Mean over the features of their largest cosine with a decoder row (Sharkey et al. 2022,
    /// "mean max cosine similarity").
    pub mean_max_cosine: f64,
    /// That cosine, for each feature.
    pub max_cosine: Vec<f64>,
    /// The decoder row that has it.
    pub latents: Vec<usize>,
    /// The features whose largest cosine is below [`FOUND`].
    pub missed: Vec<usize>,
}

/// How well latents tell which features a row is made of: each feature is read off the latent
/// closest to it, and is said to be active where that fires. Over all rows and features together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Support {
    /// Share of what is said to be active that is.
    pub precision: f64,
    /// Share of what is active that is said to be.
    pub recall: f64,
    /// Their harmonic mean.
    pub f1: f64,
}

impl Features {
    /// How well the decoder rows `w_dec` `[d_sae, d]`, of any length, know the features.
    ///
    /// Cost: one product `[features, d] · [d, d_sae]`, in tiles.
    ///
    /// # Errors
    /// Another width; the device failed.
    pub async fn recovery(&self, w_dec: Tensor<2>) -> Result<Recovery, Error> {
        let best = max_cosine(self.tensor(&w_dec.device()), w_dec).await?;
        let max_cosine: Vec<f64> = best.iter().map(|p| p.score).collect();
        let missed = (0..best.len()).filter(|f| max_cosine[*f] < FOUND);
        Ok(Recovery {
            mean_max_cosine: max_cosine.iter().sum::<f64>() / best.len() as f64,
            missed: missed.collect(),
            latents: best.iter().map(|p| p.b).collect(),
            max_cosine,
        })
    }

    /// How well the latents of `sae` tell what the rows `rows` are made of.
    ///
    /// Memory: 2,048 rows and their latents.
    ///
    /// # Errors
    /// An autoencoder of another width, or another one than `recovery` is of; the device failed.
    pub async fn support(
        &self,
        sae: &Sae,
        recovery: &Recovery,
        rows: Range<usize>,
        device: &Device,
    ) -> Result<Support, Error> {
        let readers = self.readers(sae, recovery)?;
        let (mut said, mut active, mut both) = (0u64, 0u64, 0u64);
        for start in rows.clone().step_by(2048) {
            let part = start..(start + 2048).min(rows.end);
            let mut x = vec![0.0; part.len() * self.config.d];
            self.fill(part.clone(), &mut x);
            let latents = sae.encode(batch_tensor(x, self.config.d, device.tensor()));
            let latents = latents.compact().await?;
            let k = latents.values.dims()[1];
            let values: Vec<f32> = device::read(latents.values).await?;
            let indices = device::read_int(latents.indices).await?;
            for ((row, values), indices) in part.zip(values.chunks(k)).zip(indices.chunks(k)) {
                let truth: Vec<usize> = self.active(row).into_iter().map(|(f, _)| f).collect();
                let firing = values.iter().zip(indices).filter(|(v, _)| **v > 0.0);
                let found = firing.flat_map(|(_, i)| &readers[*i as usize]);
                active += truth.len() as u64;
                for feature in found {
                    said += 1;
                    both += u64::from(truth.contains(feature));
                }
            }
        }
        let (precision, recall) = (both as f64 / said as f64, both as f64 / active as f64);
        let f1 = 2.0 * both as f64 / (said + active) as f64;
        Ok(Support {
            precision,
            recall,
            f1,
        })
    }

    /// The features that each latent stands for.
    fn readers(&self, sae: &Sae, recovery: &Recovery) -> Result<Vec<Vec<usize>>, Error> {
        let (d, d_sae) = (self.config.d, sae.d_sae());
        let fits = recovery.latents.len() == self.config.features
            && recovery.latents.iter().all(|l| *l < d_sae);
        if sae.d_in() != d || !fits {
            return Err(Error::Config(format!(
                "an autoencoder [{d_sae}, {}] and a recovery of {} features do not fit {} features of width {d}",
                sae.d_in(),
                recovery.latents.len(),
                self.config.features
            )));
        }
        let mut readers = vec![Vec::new(); d_sae];
        for (feature, latent) in recovery.latents.iter().enumerate() {
            readers[*latent].push(feature);
        }
        Ok(readers)
    }
}
