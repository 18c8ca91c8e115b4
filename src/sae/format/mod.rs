//! Autoencoders on disk: `sae_weights.safetensors` and `cfg.json` with SAELens 6's names and
//! shapes (`topk`, acting on raw activations, `x − b_dec` before the encoder), so that what is
//! written here opens there. Our own settings lie under `metadata.inscape`.

mod archive;
mod bytes;
mod crosscoder;
mod dictionary_learning;
mod gemma_scope;
pub mod neuronpedia;
mod npz;
mod openai;
mod pickle;
mod plain;
mod pt;
mod tensors;

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};

use super::{Error, Sae};
use crate::capture::store::write_whole;
use crate::device;

pub use openai::layer_norm;

/// A tool's way to keep an autoencoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// `ae.pt` and `config.json` of dictionary_learning.
    DictionaryLearning,
    /// A `.pt` file of OpenAI's `sparse_autoencoder`.
    OpenAi,
    /// `cc_weights.pt` and `cfg.json` of a crosscoder.
    Crosscoder,
    /// `params.npz` of Gemma Scope 1.
    GemmaScope,
}

/// An autoencoder that was read.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The autoencoder.
    pub sae: Sae,
    /// What the file says beside it.
    pub metadata: Value,
    /// What it was read as.
    pub format: Format,
}

/// Reads an autoencoder of this format.
///
/// # Errors
/// Names the file, and the tensor or setting that does not fit.
pub fn read(path: &Path, format: Option<Format>, device: &Device) -> Result<Loaded, Error> {
    let format = format.ok_or_else(|| malformed(path, "which format?"))?;
    match format {
        Format::DictionaryLearning => dictionary_learning::read(path, device),
        Format::OpenAi => openai::read(path, device),
        Format::Crosscoder => crosscoder::read(path, device),
        Format::GemmaScope => gemma_scope::read(path, device),
    }
}

/// Reads an autoencoder of this format from the bytes of its one file: for fuzzing, which no folder
/// should slow down.
#[doc(hidden)]
pub fn read_bytes(bytes: &[u8], format: Format, device: &Device) -> Result<Loaded, Error> {
    let path = Path::new("bytes");
    match format {
        Format::DictionaryLearning => dictionary_learning::parse(path, bytes, Value::Null, device),
        Format::OpenAi => openai::parse(path, bytes, device),
        Format::Crosscoder => crosscoder::parse(path, bytes, device),
        Format::GemmaScope => gemma_scope::parse(path, bytes, device),
    }
}

/// Reads a pickle of tensors and plain values, for fuzzing.
#[doc(hidden)]
pub fn read_pickle(bytes: &[u8]) -> Result<(), Error> {
    let pickle = pickle::Pickle::parse(bytes);
    pickle
        .map(drop)
        .map_err(|e| malformed(Path::new("bytes"), e))
}

/// Writes an autoencoder in this format.
///
/// # Errors
/// [`Error::Config`] for what the format cannot hold; a file could not be written; the device failed.
pub async fn write(sae: &Sae, metadata: &Value, path: &Path, format: Format) -> Result<(), Error> {
    match format {
        Format::DictionaryLearning => dictionary_learning::write(sae, metadata, path).await,
        Format::OpenAi => openai::write(sae, metadata, path).await,
        Format::Crosscoder => crosscoder::write(sae, metadata, path).await,
        Format::GemmaScope => gemma_scope::write(sae, metadata, path).await,
    }
}

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
    let bytes = read_file(path)?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| malformed(path, e))?;
    let reader = TensorReader {
        path,
        file: &file,
        device,
    };
    let d = reader.shape("W_dec")?;
    let [d_sae, d_in] = d[..] else {
        return Err(malformed(path, format!("W_dec has shape {d:?}")));
    };
    let w_enc = reader.r2_across("W_enc", [d_in, d_sae])?;
    let b_enc = reader.r1("b_enc", d_sae)?;
    let w_dec = reader.r2("W_dec", [d_sae, d_in])?;
    let b_dec = reader.r1("b_dec", d_in)?;
    Ok(Sae::topk([w_enc, w_dec], [b_enc, b_dec], k))
}

/// f32 tensors of one file, by name and shape.
pub(super) struct TensorReader<'a> {
    pub(super) path: &'a Path,
    pub(super) file: &'a SafeTensors<'a>,
    pub(super) device: &'a Device,
}

impl TensorReader<'_> {
    fn shape(&self, name: &str) -> Result<Vec<usize>, Error> {
        let tensor = self
            .file
            .tensor(name)
            .map_err(|_| malformed(self.path, format!("tensor `{name}` is missing")))?;
        Ok(tensor.shape().to_vec())
    }

    fn data(&self, name: &str, shape: &[usize]) -> Result<TensorData, Error> {
        let found = self.shape(name)?;
        let tensor = self
            .file
            .tensor(name)
            .map_err(|e| malformed(self.path, e))?;
        if found != shape || tensor.dtype() != Dtype::F32 {
            let is = format!(
                "tensor `{name}` is {:?} {found:?}; F32 {shape:?} wanted",
                tensor.dtype()
            );
            return Err(malformed(self.path, is));
        }
        let values: Vec<f32> = tensor
            .data()
            .as_chunks()
            .0
            .iter()
            .map(|b| f32::from_le_bytes(*b))
            .collect();
        Ok(TensorData::new(values, shape.to_vec()))
    }

    pub(super) fn r2(&self, name: &str, shape: [usize; 2]) -> Result<Tensor<2>, Error> {
        Ok(Tensor::from_data(self.data(name, &shape)?, self.device))
    }

    /// The transpose of a tensor of this shape, laid out anew: a view would be multiplied in
    /// another order, and the latents would differ in their last bits from those before saving.
    fn r2_across(&self, name: &str, [rows, columns]: [usize; 2]) -> Result<Tensor<2>, Error> {
        let data = self.data(name, &[rows, columns])?;
        let values = data.as_slice::<f32>().expect("it was read as f32");
        let across: Vec<f32> = (0..rows * columns)
            .map(|i| values[i % rows * columns + i / rows])
            .collect();
        let data = TensorData::new(across, [columns, rows]);
        Ok(Tensor::from_data(data, self.device))
    }

    pub(super) fn r1(&self, name: &str, len: usize) -> Result<Tensor<1>, Error> {
        Ok(Tensor::from_data(self.data(name, &[len])?, self.device))
    }
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
