//! Gemma Scope 1 (Lieberum et al. 2024): `params.npz`.

use std::path::Path;

use burn::tensor::Device;
use serde_json::{Value, json};

use super::npz;
use super::plain::{across, filled, matrix, no_place, rows, single, theta, vector, weights_of};
use super::{
    Error, Format, Loaded, cannot, least, make_parent, malformed, read_file, subtracting, threshold,
};
use crate::capture::store::write_whole;
use crate::sae::{Activation, Sae};

const FORMAT: Format = Format::GemmaScope;
const WEIGHTS: &str = "params.npz";

/// Reads an `.npz` file, or `params.npz` of a directory. The autoencoders leave `b_dec` in their
/// input. Those of the embedding act on rows that are `√d` times as long as the embedding's, as the
/// model makes them.
///
/// # Errors
/// Names the file, and what in it does not fit.
pub(super) fn read(path: &Path, device: &Device) -> Result<Loaded, Error> {
    let path = weights_of(path, WEIGHTS);
    parse(&path, &read_file(&path)?, device)
}

/// The same for the bytes of a file.
pub(super) fn parse(path: &Path, bytes: &[u8], device: &Device) -> Result<Loaded, Error> {
    let tensors = npz::parse(path, bytes)?;
    let [_, d_sae] = filled(&tensors, "W_enc")?;
    let threshold = theta(&tensors, d_sae, device)?;
    Ok(Loaded {
        sae: Sae {
            subtract_b_dec: false,
            ..rows(&tensors, Activation::JumpRelu { threshold }, device)?
        },
        metadata: json!({}),
        format: FORMAT,
    })
}

/// Writes an `.npz` file, or `params.npz` into a directory. A BatchTopK autoencoder is written with
/// its threshold once a latent and a ReLU one with 0, which is the same function. Metadata have no
/// place in it.
///
/// # Errors
/// [`Error::Config`] for what the format cannot hold; a file could not be written.
pub(super) async fn write(sae: &Sae, _: &Value, path: &Path) -> Result<(), Error> {
    single(sae, FORMAT)?;
    let sae = subtracting(sae.clone(), false);
    let (d, f) = (sae.d_in(), sae.d_sae());
    let threshold = threshold(&sae).ok_or_else(|| no_place(&sae, FORMAT))?;
    if least(&sae).await? < 0.0 {
        return Err(cannot(
            FORMAT,
            "a threshold below 0, which it applies behind a ReLU",
        ));
    }
    let arrays = vec![
        ("W_enc", vec![d, f], across(&sae.w_enc).await?),
        ("W_dec", vec![f, d], matrix(&sae.w_dec).await?),
        ("b_enc", vec![f], vector(&sae.b_enc).await?),
        ("b_dec", vec![d], vector(&sae.b_dec).await?),
        ("threshold", vec![f], vector(&threshold).await?),
    ];
    let path = weights_of(path, WEIGHTS);
    make_parent(&path)?;
    let bytes = npz::write(arrays).map_err(|e| malformed(&path, e))?;
    write_whole(&path, &bytes)?;
    Ok(())
}
