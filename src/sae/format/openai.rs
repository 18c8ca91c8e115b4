//! Files of OpenAI's `sparse_autoencoder` (Gao et al. 2024): one `.pt` with a state dict.

use std::path::Path;

use burn::tensor::{Device, Tensor};
use serde_json::{Value, json};

use super::pickle;
use super::plain::{across, filled, kept, linear, matrix, no_place, single, vector, weights_of};
use super::pt::{self, Checkpoint, Entry};
use super::{
    Error, Format, Loaded, cannot, is_normalized, make_parent, malformed, read_file, subtracting,
};
use crate::capture::store::write_whole;
use crate::sae::{Activation, Sae};

const FORMAT: Format = Format::OpenAi;
const WEIGHTS: &str = "autoencoder.pt";

/// Reads a `.pt` file, or `autoencoder.pt` of a directory.
///
/// The tool normalises the input of its TopK autoencoders, row by row, and undoes that at the
/// output. The weights act on normalised rows: `metadata.normalize_activations` is then
/// `layer_norm`, and [`layer_norm`] normalises.
///
/// # Errors
/// Names the file, and what in it does not fit. An activation other than ReLU and TopK with ReLU is
/// refused.
pub(super) fn read(path: &Path, device: &Device) -> Result<Loaded, Error> {
    let path = weights_of(path, WEIGHTS);
    parse(&path, &read_file(&path)?, device)
}

/// The same for the bytes of a file.
pub(super) fn parse(path: &Path, bytes: &[u8], device: &Device) -> Result<Loaded, Error> {
    let file = Checkpoint::parse(path, bytes)?;
    let tensors = file.tensors(file.root())?;
    let [d_sae, _] = filled(&tensors, "encoder.weight")?;
    let (activation, normalized) = match activation(&file)? {
        None => (Activation::Relu, "none"),
        Some(k) => {
            let k = kept(&tensors, k, d_sae)?;
            (Activation::TopK { k }, "layer_norm")
        }
    };
    Ok(Loaded {
        sae: linear(&tensors, ["latent_bias", "pre_bias"], activation, device)?,
        metadata: json!({"normalize_activations": normalized}),
        format: FORMAT,
    })
}

/// k of a TopK, none for ReLU.
fn activation(file: &Checkpoint<'_>) -> Result<Option<f64>, Error> {
    use pickle::Value as Saved;
    let text = |value: Option<&Saved>| match value {
        Some(Saved::Str(text)) => text.to_string(),
        _ => "ReLU".into(),
    };
    let get = |key| file.pickle.get(file.root(), key);
    let state = get("activation_state_dict");
    let in_state = |key| state.and_then(|state| file.pickle.get(state, key));
    let names = [text(get("activation")), text(in_state("postact_fn"))];
    match (&names.each_ref().map(String::as_str), in_state("k")) {
        (["ReLU", _], _) => Ok(None),
        (["TopK", "ReLU"], Some(Saved::Int(k))) => Ok(Some(*k as f64)),
        ([name, behind], _) => Err(malformed(
            file.path,
            format!("activation `{name}` with `{behind}` behind it: not supported"),
        )),
    }
}

/// Rows of mean 0 and standard deviation 1, with what undoes it: `(x − mean) / (std + 1e-5)`, the
/// mean and `std`, these two `[n, 1]`. The deviation has `d − 1` below it, as PyTorch's; what was made
/// of such rows is multiplied by `std` alone, as the tool has it.
///
/// ```
/// use burn::tensor::Tensor;
/// use inscape::{Device, sae::format::layer_norm};
///
/// let x = Tensor::<2>::from_floats([[1.0, 2.0, 3.0]], Device::cpu().tensor());
/// let (normal, mean, deviation) = layer_norm(x);
/// assert_eq!(mean.into_data().try_to_vec::<f32>().unwrap(), [2.0]);
/// assert_eq!(deviation.into_data().try_to_vec::<f32>().unwrap(), [1.0]);
/// assert_eq!(normal.into_data().try_to_vec::<f32>().unwrap()[1], 0.0);
/// ```
pub fn layer_norm(x: Tensor<2>) -> (Tensor<2>, Tensor<2>, Tensor<2>) {
    let [_, d] = x.dims();
    let mean = x.clone().mean_dim(1);
    let x = x - mean.clone();
    let variance = x.clone().square().sum_dim(1) / (d as f64 - 1.0);
    let deviation = variance.sqrt();
    (x / (deviation.clone() + 1e-5), mean, deviation)
}

/// Writes a `.pt` file, or `autoencoder.pt` into a directory.
///
/// The tool normalises the rows of every TopK autoencoder. So one of ours is only written if
/// `metadata.normalize_activations` says that it acts on such rows, and a ReLU one only if it does
/// not.
///
/// # Errors
/// [`Error::Config`] for what the format cannot hold; a file could not be written.
pub(super) async fn write(sae: &Sae, metadata: &Value, path: &Path) -> Result<(), Error> {
    single(sae, FORMAT)?;
    let mut dict = match (&sae.activation, is_normalized(metadata)) {
        (Activation::Relu, false) => vec![("activation", Entry::Str("ReLU"))],
        (Activation::TopK { k }, true) => {
            let k = i32::try_from(*k).map_err(|_| no_place(sae, FORMAT))?;
            let state = vec![("k", Entry::Int(k)), ("postact_fn", Entry::Str("ReLU"))];
            vec![
                ("activation", Entry::Str("TopK")),
                ("activation_state_dict", Entry::Dict(state)),
            ]
        }
        (Activation::TopK { .. }, false) => {
            let what = "a TopK autoencoder of raw rows: it normalises those of every TopK";
            return Err(cannot(FORMAT, what));
        }
        (Activation::Relu, true) => {
            let what = "a ReLU autoencoder of normalised rows: it normalises those of TopK alone";
            return Err(cannot(FORMAT, what));
        }
        _ => return Err(no_place(sae, FORMAT)),
    };
    let sae = subtracting(sae.clone(), true);
    let (d, f) = (sae.d_in(), sae.d_sae());
    let path = weights_of(path, WEIGHTS);
    make_parent(&path)?;
    dict.extend([
        ("pre_bias", Entry::F32(vec![d], vector(&sae.b_dec).await?)),
        (
            "latent_bias",
            Entry::F32(vec![f], vector(&sae.b_enc).await?),
        ),
        (
            "encoder.weight",
            Entry::F32(vec![f, d], matrix(&sae.w_enc).await?),
        ),
        (
            "decoder.weight",
            Entry::F32(vec![d, f], across(&sae.w_dec).await?),
        ),
        ("stats_last_nonzero", Entry::I64(vec![f], vec![0; f])),
        (
            "latents_activation_frequency",
            Entry::I64(vec![f], vec![0; f]),
        ),
        ("latents_mean_square", Entry::F32(vec![f], vec![0.0; f])),
    ]);
    let bytes = pt::write(dict).map_err(|e| malformed(&path, e))?;
    write_whole(&path, &bytes)?;
    Ok(())
}
