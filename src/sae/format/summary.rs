use burn::tensor::Tensor;
use serde::Serialize;
use serde_json::Value;

use super::{Error, Format, Loaded};
use crate::device;
use crate::sae::Activation;

/// What an autoencoder is, in numbers that are quickly read.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Whose files they were.
    pub format: Format,
    /// What makes latents of pre-activations, by SAELens's names: standard, topk, batchtopk,
    /// jumprelu, gated.
    pub activation: &'static str,
    /// Width of what it reads.
    pub d_in: usize,
    /// Number of latents.
    pub d_sae: usize,
    /// Width of what it writes.
    pub d_out: usize,
    /// Activations that a row holds side by side.
    pub sites: usize,
    /// Latents kept a row, where a number of them is.
    pub k: Option<usize>,
    /// θ, where there is one.
    pub threshold: Option<Range>,
    /// Whether the encoder takes `b_dec` from its input.
    pub subtract_b_dec: bool,
    /// Whether it adds `x W_skipᵀ`.
    pub skip: bool,
    /// Lengths of the encoder's rows.
    pub encoder_norm: Range,
    /// Lengths of the decoder's rows.
    pub decoder_norm: Range,
    /// Length of `b_dec`.
    pub b_dec_norm: f64,
    /// What the files say about where it belongs.
    pub metadata: Value,
}

/// A range of numbers, and their mean.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Range {
    /// The smallest.
    pub min: f64,
    /// The mean.
    pub mean: f64,
    /// The largest.
    pub max: f64,
}

impl Range {
    fn of(values: &[f64]) -> Self {
        Self {
            min: values.iter().copied().fold(f64::INFINITY, f64::min),
            mean: values.iter().sum::<f64>() / values.len() as f64,
            max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        }
    }
}

/// Describes an autoencoder: one pass over its weights.
///
/// # Errors
/// The device failed.
pub async fn summary(loaded: &Loaded) -> Result<Summary, Error> {
    let sae = &loaded.sae;
    let threshold = match &sae.activation {
        Activation::JumpRelu { threshold } | Activation::BatchTopK { threshold, .. } => {
            let values: Vec<f64> = device::read(threshold.clone()).await?;
            Some(Range::of(&values))
        }
        _ => None,
    };
    Ok(Summary {
        format: loaded.format,
        activation: sae.activation.name(),
        d_in: sae.d_in(),
        d_sae: sae.d_sae(),
        d_out: sae.d_out(),
        sites: sae.sites,
        k: sae.k(),
        threshold,
        subtract_b_dec: sae.subtract_b_dec,
        skip: sae.w_skip.is_some(),
        encoder_norm: Range::of(&norms(&sae.w_enc).await?),
        decoder_norm: Range::of(&norms(&sae.w_dec).await?),
        b_dec_norm: norms(&sae.b_dec.clone().unsqueeze()).await?[0],
        metadata: loaded.metadata.clone(),
    })
}

/// Lengths of the rows.
async fn norms(w: &Tensor<2>) -> Result<Vec<f64>, Error> {
    Ok(device::read(w.clone().square().sum_dim(1).sqrt()).await?)
}
