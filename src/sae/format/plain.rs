//! What the formats of single autoencoders have in common.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor};

use super::tensors::{Tensors, transpose};
use super::{Error, Format, cannot, malformed};
use crate::device;
use crate::sae::{Activation, Sae};

/// Most latents that TopK can keep a row.
const MOST_KEPT: usize = 1024;

/// The weight file that a path means: itself, if it ends as `name` does, or the file of that name in it.
pub(super) fn weights_of(path: &Path, name: &str) -> PathBuf {
    match path.extension() == Path::new(name).extension() {
        true => path.into(),
        false => path.join(name),
    }
}

/// An autoencoder stored as `torch.nn.Linear` layers: `encoder.weight` `[d_sae, d_in]` and
/// `decoder.weight` `[d_in, d_sae]`, with biases of these names.
pub(super) fn linear(
    tensors: &Tensors,
    [b_enc, b_dec]: [&str; 2],
    activation: Activation,
    device: &Device,
) -> Result<Sae, Error> {
    let [d_sae, d_in] = filled(tensors, "encoder.weight")?;
    let w_enc = tensors.r2("encoder.weight", [d_sae, d_in], device)?;
    let w_dec = tensors.r2_across("decoder.weight", [d_in, d_sae], device)?;
    let biases = [
        tensors.r1(b_enc, d_sae, device)?,
        tensors.r1(b_dec, d_in, device)?,
    ];
    Ok(of([w_enc, w_dec], biases, activation))
}

/// An autoencoder stored as it multiplies rows: `W_enc` `[d_in, d_sae]`, `W_dec` `[d_sae, d_in]`,
/// `b_enc`, `b_dec`.
pub(super) fn rows(
    tensors: &Tensors,
    activation: Activation,
    device: &Device,
) -> Result<Sae, Error> {
    let [d_in, d_sae] = filled(tensors, "W_enc")?;
    let w_enc = tensors.r2_across("W_enc", [d_in, d_sae], device)?;
    let w_dec = tensors.r2("W_dec", [d_sae, d_in], device)?;
    let biases = [
        tensors.r1("b_enc", d_sae, device)?,
        tensors.r1("b_dec", d_in, device)?,
    ];
    Ok(of([w_enc, w_dec], biases, activation))
}

fn of(
    [w_enc, w_dec]: [Tensor<2>; 2],
    [b_enc, b_dec]: [Tensor<1>; 2],
    activation: Activation,
) -> Sae {
    Sae {
        activation,
        ..Sae::topk([w_enc, w_dec], [b_enc, b_dec], 0)
    }
}

/// The shape of a matrix that has rows and columns.
pub(super) fn filled(tensors: &Tensors, name: &str) -> Result<[usize; 2], Error> {
    let shape = tensors.shape2(name)?;
    match shape.contains(&0) {
        false => Ok(shape),
        true => Err(malformed(
            &tensors.path,
            format!("tensor `{name}` is {shape:?}: empty"),
        )),
    }
}

/// θ `[len]`, those below 0 made 0: the tools apply them behind a ReLU, where it is the
/// same.
pub(super) fn theta(tensors: &Tensors, len: usize, device: &Device) -> Result<Tensor<1>, Error> {
    Ok(tensors.r1("threshold", len, device)?.clamp_min(0.0))
}

/// Refuses a number of kept latents that cannot be.
pub(super) fn kept(tensors: &Tensors, k: f64, d_sae: usize) -> Result<usize, Error> {
    let most = d_sae.min(MOST_KEPT);
    match k.fract() == 0.0 && (1.0..=most as f64).contains(&k) {
        true => Ok(k as usize),
        false => Err(malformed(
            &tensors.path,
            format!("k = {k}: 1 to {most} fit {d_sae} latents"),
        )),
    }
}

/// Refuses what a format of autoencoders of one site cannot hold.
pub(super) fn single(sae: &Sae, format: Format) -> Result<(), Error> {
    match sae {
        Sae { sites: 2.., .. } => Err(cannot(format, "the sites of a crosscoder")),
        sae if sae.is_transcoder() => Err(cannot(format, "a transcoder")),
        _ => Ok(()),
    }
}

/// An error for an activation that a format has no place for.
pub(super) fn no_place(sae: &Sae, format: Format) -> Error {
    let name = sae.activation.name();
    cannot(format, format!("the activation `{name}`"))
}

/// The values of a vector.
pub(super) async fn vector(x: &Tensor<1>) -> Result<Vec<f32>, Error> {
    Ok(device::read(x.clone()).await?)
}

/// The values of a matrix.
pub(super) async fn matrix(x: &Tensor<2>) -> Result<Vec<f32>, Error> {
    Ok(device::read(x.clone()).await?)
}

/// The values of its transpose.
pub(super) async fn across(x: &Tensor<2>) -> Result<Vec<f32>, Error> {
    Ok(transpose(&matrix(x).await?, x.dims()))
}
