use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{measure, unmeasured};
use crate::device::{self, Error};
use crate::sae::arch::unit_rows;
use crate::sae::format::layer_norm;
use crate::sae::{Latents, Sae};

/// How well an autoencoder reconstructs a set of activations. Where it is to write something else
/// than it reads (a transcoder), x stands for what it is to write.
///
/// Measures that are no number are NaN, `null` in JSON; so are those that an older file lacks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reconstruction {
    /// Rows measured.
    pub rows: u64,
    /// Mean active latents a row.
    #[serde(deserialize_with = "measure")]
    pub l0: f64,
    /// Mean sum of a row's latents.
    #[serde(default = "unmeasured", deserialize_with = "measure")]
    pub l1: f64,
    /// `Σ‖x − x̂‖² / Σ‖x − x̄‖²`, with x̄ the mean of all rows measured. The error is not
    /// centred, so a constant offset in x̂ worsens it.
    #[serde(deserialize_with = "measure")]
    pub fvu: f64,
    /// `1 − Σ_d Var(e_d) / Σ_d Var(x_d)` with `e = x − x̂`: the error is centred, so a constant offset
    /// in x̂ does not count (what dictionary_learning calls the fraction of variance explained). At
    /// least `1 − fvu`.
    #[serde(default = "unmeasured", deserialize_with = "measure")]
    pub explained_variance: f64,
    /// Mean cosine of x and x̂.
    #[serde(deserialize_with = "measure")]
    pub cosine: f64,
    /// `E‖x̂‖² / E[x · x̂]`: below 1 where reconstructions are too short (Rajamanoharan et al. 2024,
    /// "Gated sparse autoencoders", section 5; SAELens's `relative_reconstruction_bias`).
    #[serde(default = "unmeasured", deserialize_with = "measure")]
    pub shrinkage: f64,
    /// Mean of `‖x̂‖ / ‖x‖` over the rows that are not 0.
    #[serde(default = "unmeasured", deserialize_with = "measure")]
    pub norm_ratio: f64,
    /// Mean of `‖x − x̂‖² / d_out`.
    #[serde(deserialize_with = "measure")]
    pub mse: f64,
    /// Mean over the latents of the cosine of encoder and decoder ([`encoder_decoder_cosine`]); NaN
    /// where they have no common space.
    #[serde(default = "unmeasured", deserialize_with = "measure")]
    pub encoder_decoder_cosine: f64,
    /// Share of latents that fired on no row.
    #[serde(deserialize_with = "measure")]
    pub dead_share: f64,
    /// Rows on which each latent fired `[d_sae]`.
    pub fired: Vec<u64>,
}

impl Reconstruction {
    /// Share of rows on which each latent fires `[d_sae]`.
    pub fn density(&self) -> Vec<f64> {
        let share = |n: &u64| *n as f64 / self.rows as f64;
        self.fired.iter().map(share).collect()
    }

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

/// The cosine of each latent's encoder row with its decoder row: `[d_sae]`, a row of zeros having 0
/// with any. `None` for a transcoder, whose decoder writes where its encoder does not read.
///
/// Holds two matrices `[d_sae, d_in]`.
///
/// # Errors
/// The device failed.
pub async fn encoder_decoder_cosine(sae: &Sae) -> Result<Option<Vec<f64>>, Error> {
    if sae.is_transcoder() {
        return Ok(None);
    }
    let (enc, dec) = (unit_rows(sae.w_enc.clone()), unit_rows(sae.w_dec.clone()));
    Ok(Some(device::read((enc * dec).sum_dim(1)).await?))
}

/// What an autoencoder of normalised rows makes of raw ones `[n, d]`: each is normalised as OpenAI's
/// tool does ([`layer_norm`]), and the output multiplied by its deviation and moved by its mean.
/// [`Format::OpenAi`](crate::sae::format::Format::OpenAi) has such autoencoders.
///
/// # Panics
/// If the autoencoder reads or writes rows of another width.
pub fn reconstruct_normalised(sae: &Sae, x: Tensor<2>) -> Tensor<2> {
    let (x, mean, deviation) = layer_norm(x);
    sae.reconstruct(x) * deviation + mean
}

/// Gathers a [`Reconstruction`] batch by batch.
///
/// Sums over rows are f64 on the host; sums along a row are f32. Variances are taken about the
/// first batch's means and shifted at the end, so a large common offset costs no accuracy.
/// Memory: one batch and its latents, and a counter a latent.
#[derive(Clone, Debug)]
pub struct Accumulator {
    rows: u64,
    active: u64,
    l1: f64,
    sums: [f64; MEASURES],
    /// Rows that are not 0.
    long: u64,
    target: Spread,
    error: Spread,
    encoder_decoder: Option<f64>,
    fired: Vec<u64>,
    normalised: bool,
}

impl Accumulator {
    /// For an autoencoder with `d_sae` latents.
    pub fn new(d_sae: usize) -> Self {
        Self {
            rows: 0,
            active: 0,
            l1: 0.0,
            sums: [0.0; MEASURES],
            long: 0,
            target: Spread::default(),
            error: Spread::default(),
            encoder_decoder: None,
            fired: vec![0; d_sae],
            normalised: false,
        }
    }

    /// The same for an autoencoder of rows that are normalised first, which is undone at its output:
    /// [`reconstruct_normalised`]. Everything but the latents is measured on raw rows.
    pub fn normalised(mut self) -> Self {
        self.normalised = true;
        self
    }

    /// Adds the rows `x` `[n, d_in]`, which are to come back as they are.
    ///
    /// # Errors
    /// The device failed.
    ///
    /// # Panics
    /// If the autoencoder writes rows of another width: [`Accumulator::add_pair`] measures those.
    pub async fn add(&mut self, sae: &Sae, x: Tensor<2>) -> Result<(), Error> {
        self.add_pair(sae, x.clone(), x).await
    }

    /// Adds the rows `x` `[n, d_in]`, of which `y` `[n, d_out]` is to be made.
    ///
    /// # Errors
    /// The device failed.
    ///
    /// # Panics
    /// If the shapes do not fit the autoencoder and each other.
    pub async fn add_pair(&mut self, sae: &Sae, x: Tensor<2>, y: Tensor<2>) -> Result<(), Error> {
        let n = x.dims()[0];
        assert!(
            y.dims() == [n, sae.d_out()],
            "evaluate: targets {:?} for {n} rows of an autoencoder that writes {}",
            y.dims(),
            sae.d_out()
        );
        let (x, undo) = match self.normalised {
            true => {
                let (x, mean, deviation) = layer_norm(x);
                (x, Some((mean, deviation)))
            }
            false => (x, None),
        };
        let latents = sae.encode(x.clone()).compact().await?;
        let made = match sae.skip(&x) {
            Some(skipped) => sae.decode(&latents) + skipped,
            None => sae.decode(&latents),
        };
        let made = match undo {
            Some((mean, deviation)) => made * deviation + mean,
            None => made,
        };
        self.add_made(sae, latents, y, made).await
    }

    /// Adds rows of which `made` was made, and the latents of `sae` that are counted for it.
    pub(in crate::sae) async fn add_made(
        &mut self,
        sae: &Sae,
        latents: Latents,
        y: Tensor<2>,
        made: Tensor<2>,
    ) -> Result<(), Error> {
        let n = y.dims()[0];
        if self.encoder_decoder.is_none() {
            let all = encoder_decoder_cosine(sae).await?;
            self.encoder_decoder = Some(all.map_or(f64::NAN, |all| mean(&all)));
        }
        self.target.add(y.clone()).await?;
        self.error.add(y.clone() - made.clone()).await?;
        let measures: Vec<f64> = device::read(row_measures(y, made)).await?;
        for row in measures.chunks_exact(MEASURES) {
            self.sums.iter_mut().zip(row).for_each(|(s, m)| *s += m);
            self.long += u64::from(row[SQUARE] > 0.0);
        }
        self.count(latents).await?;
        self.rows += n as u64;
        Ok(())
    }

    async fn count(&mut self, latents: Latents) -> Result<(), Error> {
        let values: Vec<f32> = device::read(latents.values).await?;
        let indices = device::read_int(latents.indices).await?;
        for (v, i) in values.iter().zip(indices).filter(|(v, _)| **v > 0.0) {
            self.fired[i as usize] += 1;
            self.active += 1;
            self.l1 += f64::from(*v);
        }
        Ok(())
    }

    /// The measures over all rows added. With no row, or rows without variance, the ratios
    /// are NaN.
    pub fn finish(self) -> Reconstruction {
        let n = self.rows as f64;
        let variance = self.target.about_mean(n);
        let silent = self.fired.iter().filter(|f| **f == 0).count();
        Reconstruction {
            rows: self.rows,
            l0: self.active as f64 / n,
            l1: self.l1 / n,
            fvu: self.sums[ERROR] / variance,
            explained_variance: 1.0 - self.error.about_mean(n) / variance,
            cosine: self.sums[COSINE] / n,
            shrinkage: self.sums[MADE] / self.sums[DOT],
            norm_ratio: self.sums[RATIO] / self.long as f64,
            mse: self.sums[ERROR] / n / self.target.sum.len() as f64,
            encoder_decoder_cosine: self.encoder_decoder.unwrap_or(f64::NAN),
            dead_share: silent as f64 / self.fired.len() as f64,
            fired: self.fired,
        }
    }
}

/// What is taken of every row, by column of [`row_measures`].
const MEASURES: usize = 6;
const ERROR: usize = 0;
const MADE: usize = 1;
const SQUARE: usize = 2;
const DOT: usize = 3;
const COSINE: usize = 4;
const RATIO: usize = 5;

/// `‖y − ŷ‖²`, `‖ŷ‖²`, `‖y‖²`, `y · ŷ`, cosine, `‖ŷ‖ / ‖y‖` (0 where y is 0) of every row: `[n, 6]`.
fn row_measures(y: Tensor<2>, made: Tensor<2>) -> Tensor<2> {
    let error = squared_rows(y.clone() - made.clone());
    let (square, made_square) = (squared_rows(y.clone()), squared_rows(made.clone()));
    let dot = (y * made).sum_dim(1);
    let norms = (square.clone() * made_square.clone()).sqrt();
    let cosine = dot.clone() / norms.clamp_min(1e-30);
    let ratio = (made_square.clone() / square.clone().clamp_min(1e-30)).sqrt();
    let ratio = ratio.mask_fill(square.clone().equal_elem(0.0), 0.0);
    Tensor::cat(vec![error, made_square, square, dot, cosine, ratio], 1)
}

fn squared_rows(x: Tensor<2>) -> Tensor<2> {
    x.square().sum_dim(1)
}

fn mean(all: &[f64]) -> f64 {
    all.iter().sum::<f64>() / all.len() as f64
}

/// Summed squares of rows about their mean, taken about the mean of the first batch.
#[derive(Clone, Debug, Default)]
struct Spread {
    shift: Option<Tensor<2>>,
    sum: Vec<f64>,
    about_shift: f64,
}

impl Spread {
    async fn add(&mut self, x: Tensor<2>) -> Result<(), Error> {
        let shift = self.shift.get_or_insert_with(|| x.clone().mean_dim(0));
        let x = x - shift.clone();
        let (columns, d) = (x.clone().sum_dim(0), x.dims()[1]);
        let sums = vec![columns.flatten::<1>(0, 1), squared_rows(x).flatten(0, 1)];
        let sums: Vec<f64> = device::read(Tensor::cat(sums, 0)).await?;
        let (columns, squares) = sums.split_at(d);
        self.sum.resize(d, 0.0);
        self.sum.iter_mut().zip(columns).for_each(|(s, c)| *s += c);
        self.about_shift += squares.iter().sum::<f64>();
        Ok(())
    }

    /// Over all `n` rows and columns.
    fn about_mean(&self, n: f64) -> f64 {
        let off_centre: f64 = self.sum.iter().map(|s| (s / n).powi(2)).sum();
        self.about_shift - n * off_centre
    }
}
