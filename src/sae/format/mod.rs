//! Autoencoders on disk: `sae_weights.safetensors` and `cfg.json` with SAELens 6's names and
//! shapes (`topk`, acting on raw activations, `x − b_dec` before the encoder), so that what is
//! written here opens there. Our own settings lie under `metadata.inscape`.

mod tensors;

use std::path::Path;

use burn::tensor::Device;
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Value, json};

use super::{Error, Sae};
use crate::capture::store::write_whole;
use crate::device;

pub(super) use tensors::Tensors;

/// Name of the weight file.
pub const WEIGHTS: &str = "sae_weights.safetensors";
/// Name of the configuration file.
pub const CONFIG: &str = "cfg.json";

/// Named f32 tensors with their shapes.
pub(super) type Named = Vec<(&'static str, Vec<usize>, Vec<f32>)>;

/// Writes the weights, then the configuration, each to a temporary file that is renamed.
/// `metadata` goes into `cfg.json`'s `metadata`.
///
/// # Errors
/// A file could not be written; the device failed.
pub async fn save(sae: &Sae, dir: &Path, metadata: Value) -> Result<(), Error> {
    let tensors = vec![
        (
            "W_enc",
            vec![sae.d_in(), sae.d_sae()],
            device::read(sae.w_enc.clone().transpose()).await?,
        ),
        (
            "b_enc",
            vec![sae.d_sae()],
            device::read(sae.b_enc.clone()).await?,
        ),
        (
            "W_dec",
            vec![sae.d_sae(), sae.d_in()],
            device::read(sae.w_dec.clone()).await?,
        ),
        (
            "b_dec",
            vec![sae.d_in()],
            device::read(sae.b_dec.clone()).await?,
        ),
    ];
    write_whole(&dir.join(WEIGHTS), &serialize(&tensors, None))?;
    let metadata = if metadata.is_null() {
        json!({})
    } else {
        metadata
    };
    let config = json!({
        // Version of the format. Without it SAELens takes the file for one from before 6.0 and
        // drops its metadata.
        "sae_lens_version": "6.0.0",
        "architecture": "topk", "d_in": sae.d_in(), "d_sae": sae.d_sae(), "k": sae.k(),
        "dtype": "float32", "device": "cpu", "apply_b_dec_to_input": true,
        "normalize_activations": "none", "reshape_activations": "none",
        "rescale_acts_by_decoder_norm": false, "metadata": metadata,
    });
    let text = serde_json::to_vec_pretty(&config).expect("a JSON value serialises");
    write_whole(&dir.join(CONFIG), &text)?;
    Ok(())
}

pub(super) fn serialize(tensors: &Named, metadata: Option<String>) -> Vec<u8> {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, _, v)| v.iter().flat_map(|x| x.to_le_bytes()).collect())
        .collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
        (
            *name,
            TensorView::new(Dtype::F32, shape.clone(), bytes).expect("length fits the shape"),
        )
    });
    let metadata = metadata.map(|m| std::collections::HashMap::from([("inscape".to_string(), m)]));
    safetensors::serialize(views, metadata).expect("plain tensors serialise")
}

/// Reads a TopK autoencoder and its `metadata`.
///
/// # Errors
/// Names the file, and the tensor or setting that does not fit.
pub fn load(dir: &Path, device: &Device) -> Result<(Sae, Value), Error> {
    let config_path = dir.join(CONFIG);
    let text = read_file(&config_path)?;
    let config: Value = serde_json::from_slice(&text).map_err(|e| malformed(&config_path, e))?;
    let k = config["k"].as_u64().unwrap_or(0) as usize;
    for (field, wanted) in [
        ("architecture", json!("topk")),
        ("apply_b_dec_to_input", json!(true)),
        ("normalize_activations", json!("none")),
    ] {
        if config[field] != wanted {
            return Err(malformed(
                &config_path,
                format!("`{field}` is {}; only {wanted} is supported", config[field]),
            ));
        }
    }
    if config["rescale_acts_by_decoder_norm"] == json!(true) {
        return Err(malformed(
            &config_path,
            "`rescale_acts_by_decoder_norm` is true: not supported",
        ));
    }
    let sae = load_weights(&dir.join(WEIGHTS), k, device)?;
    if k == 0 || k > sae.d_sae() {
        return Err(malformed(
            &config_path,
            format!("k = {k} for {} latents", sae.d_sae()),
        ));
    }
    Ok((sae, config["metadata"].clone()))
}

fn load_weights(path: &Path, k: usize, device: &Device) -> Result<Sae, Error> {
    let tensors = Tensors::open(path)?;
    let [d_sae, d_in] = tensors.shape2("W_dec")?;
    let w_enc = tensors.r2_across("W_enc", [d_in, d_sae], device)?;
    let b_enc = tensors.r1("b_enc", d_sae, device)?;
    let w_dec = tensors.r2("W_dec", [d_sae, d_in], device)?;
    let b_dec = tensors.r1("b_dec", d_in, device)?;
    Ok(Sae::topk([w_enc, w_dec], [b_enc, b_dec], k))
}

pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::Io {
        path: path.into(),
        source,
    })
}

pub(super) fn malformed(path: &Path, reason: impl ToString) -> Error {
    Error::Malformed {
        file: path.display().to_string(),
        reason: reason.to_string(),
    }
}
