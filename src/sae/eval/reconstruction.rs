use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::device::{self, Error};
use crate::sae::Sae;

/// How well an autoencoder reconstructs a set of activations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reconstruction {
    /// Rows measured.
    pub rows: u64,
    /// Mean active latents a row.
    pub l0: f64,
    /// `Σ‖x − x̂‖² / Σ‖x − x̄‖²`, with x̄ the mean of all rows measured. The error is not
    /// centred, so a constant offset in x̂ worsens it.
    pub fvu: f64,
    /// Mean cosine of x and x̂.
    pub cosine: f64,
    /// Mean of `‖x − x̂‖² / d_in`.
    pub mse: f64,
    /// Share of latents that fired on no row.
    pub dead_share: f64,
    /// Rows on which each latent fired `[d_sae]`.
    pub fired: Vec<u64>,
}

impl Reconstruction {
    /// Latents by `log10(share of rows on which they fire)`: for each bin its lower edge and
    /// its count, in steps of `1 / per_decade`. Latents that never fired are not in it.
    pub fn density_histogram(&self, per_decade: u32) -> Vec<(f64, u64)> {
        let step = f64::from(per_decade);
        let bin = |n: &u64| ((*n as f64 / self.rows as f64).log10() * step).floor() as i64;
        let mut bins = std::collections::BTreeMap::new();
        self.fired
            .iter()
            .filter(|n| **n > 0)
            .for_each(|n| *bins.entry(bin(n)).or_insert(0) += 1);
        let (Some(&low), Some(&high)) = (bins.keys().next(), bins.keys().last()) else {
            return Vec::new();
        };
        (low..=high)
            .map(|b| (b as f64 / step, bins.get(&b).copied().unwrap_or(0)))
            .collect()
    }
}

/// Gathers a [`Reconstruction`] batch by batch.
///
/// Sums over rows are f64 on the host; sums along a row are f32. Variance is taken about the
/// first batch's mean and shifted at the end, so a large common offset costs no accuracy.
/// Memory: one batch and its latents, and a counter a latent.
#[derive(Clone, Debug)]
pub struct Accumulator {
    rows: u64,
    active: u64,
    error: f64,
    cosine: f64,
    shift: Option<Tensor<2>>,
    about_shift: f64,
    sum: Vec<f64>,
    fired: Vec<u64>,
}

impl Accumulator {
    /// For an autoencoder with `d_sae` latents.
    pub fn new(d_sae: usize) -> Self {
        Self {
            rows: 0,
            active: 0,
            error: 0.0,
            cosine: 0.0,
            shift: None,
            about_shift: 0.0,
            sum: Vec::new(),
            fired: vec![0; d_sae],
        }
    }

    /// Adds the rows `x` `[n, d_in]`.
    ///
    /// # Errors
    /// The device failed.
    pub async fn add(&mut self, sae: &Sae, x: Tensor<2>) -> Result<(), Error> {
        let latents = sae.encode(x.clone()).compact().await?;
        let y = sae.decode(&latents);
        let n = x.dims()[0] as u64;
        let shift = self
            .shift
            .get_or_insert_with(|| x.clone().mean_dim(0))
            .clone();
        let shifted = x.clone() - shift;
        let column_sums: Vec<f64> = device::read(shifted.clone().sum_dim(0)).await?;
        self.sum.resize(column_sums.len(), 0.0);
        self.sum
            .iter_mut()
            .zip(column_sums)
            .for_each(|(s, c)| *s += c);
        self.about_shift += total(squared_rows(shifted)).await?;
        self.error += total(squared_rows(x.clone() - y.clone())).await?;
        let norms = (squared_rows(x.clone()) * squared_rows(y.clone()))
            .sqrt()
            .clamp_min(1e-30);
        self.cosine += total((x * y).sum_dim(1) / norms).await?;
        let values: Vec<f32> = device::read(latents.values).await?;
        let indices = device::read_int(latents.indices).await?;
        for (_, i) in values.iter().zip(indices).filter(|(v, _)| **v > 0.0) {
            self.fired[i as usize] += 1;
            self.active += 1;
        }
        self.rows += n;
        Ok(())
    }

    /// The measures over all rows added. With no row, or rows without variance, the ratios
    /// are NaN.
    pub fn finish(self) -> Reconstruction {
        let n = self.rows as f64;
        let off_centre: f64 = self.sum.iter().map(|s| (s / n).powi(2)).sum();
        let variance = self.about_shift - n * off_centre;
        let silent = self.fired.iter().filter(|f| **f == 0).count();
        Reconstruction {
            rows: self.rows,
            l0: self.active as f64 / n,
            fvu: self.error / variance,
            cosine: self.cosine / n,
            mse: self.error / n / self.sum.len() as f64,
            dead_share: silent as f64 / self.fired.len() as f64,
            fired: self.fired,
        }
    }
}

fn squared_rows(x: Tensor<2>) -> Tensor<2> {
    x.square().sum_dim(1)
}

async fn total(rows: Tensor<2>) -> Result<f64, Error> {
    Ok(device::read::<f64, 2>(rows).await?.iter().sum())
}
