//! Autoencoders on disk: our own directories, and those of the field's other tools.
//!
//! Ours are SAELens's ([`Format::SaeLens`]): `sae_weights.safetensors` and `cfg.json` with SAELens 6's
//! names and shapes, acting on raw activations, so that what is written here opens there; our own
//! settings lie under `metadata.inscape`. [`save`] and [`load`] know only these. [`read`] and
//! [`write()`] know every [`Format`], and [`detect`] tells which one lies at a path.
//!
//! Reading folds into the weights what another tool does around them (scaled inputs, latents scaled
//! by decoder norms), so that a [`Sae`] gives that tool's latents for raw activations. What cannot be
//! folded, and what a format cannot hold, is refused by name.

mod archive;
mod bytes;
mod circuit_tracer;
mod cross_layer;
mod crosscoder;
mod detect;
mod dictionary_learning;
mod dtype;
mod gemma_scope;
mod gemma_scope_2;
mod language_model_saes;
mod llama_scope;
pub mod neuronpedia;
mod npz;
mod openai;
mod pickle;
mod plain;
mod pt;
mod saelens;
mod sparsify;
mod summary;
mod tensors;

use std::fmt::{self, Display};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use burn::tensor::{Device, Tensor};
use safetensors::tensor::TensorView;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Activation, Error, Sae};
use crate::capture::store::write_whole;
use crate::device;

pub use cross_layer::{is_cross_layer, load_cross_layer, save_cross_layer, write_cross_layer};
pub use detect::detect;
pub use dtype::WeightDtype;
pub use openai::layer_norm;
pub use summary::{Range, Summary, summary};
pub(super) use tensors::Tensors;

/// Name of the weight file.
pub const WEIGHTS: &str = "sae_weights.safetensors";
/// Name of the configuration file.
pub const CONFIG: &str = "cfg.json";

/// Whose files they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Format {
    /// SAELens 6 and, for reading, those before; ours. A directory with `sae_weights.safetensors` and
    /// `cfg.json`.
    #[serde(rename = "saelens")]
    SaeLens,
    /// EleutherAI's sparsify: a directory with `sae.safetensors` and `cfg.json`.
    Sparsify,
    /// dictionary_learning: a directory with `ae.pt` and `config.json`, or a `.pt` file. The state of
    /// a run that is not over is read too. As in the tool's own loader, an `AutoEncoder`'s decoder is
    /// made unit length. Its settings are under `metadata.dictionary_learning`.
    DictionaryLearning,
    /// Gemma Scope: `params.npz`. Those of the embedding act on what the model makes of it, `√d`
    /// times as long.
    GemmaScope,
    /// Gemma Scope 2: `params.safetensors` and `config.json`.
    #[serde(rename = "gemma_scope_2")]
    GemmaScope2,
    /// One layer's transcoder of circuit-tracer: `layer_{i}.safetensors`.
    CircuitTracer,
    /// Llama Scope: `hyperparams.json` and `checkpoints/final.safetensors`.
    LlamaScope,
    /// Language-Model-SAEs, Llama Scope's tool, as it writes now: `sae_weights.safetensors` and
    /// `config.json`.
    LanguageModelSaes,
    /// OpenAI's sparse_autoencoder: one `.pt` file. Its TopK autoencoders act on rows that
    /// [`layer_norm`] made, not on raw ones; `metadata.normalize_activations` is then `layer_norm`,
    /// and no other format takes them.
    #[serde(rename = "openai")]
    OpenAi,
    /// The crosscoders of model diffing: `cc_weights.pt` and `cfg.json`, which is under
    /// `metadata.crosscoder`.
    Crosscoder,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::SaeLens,
        Self::Sparsify,
        Self::DictionaryLearning,
        Self::GemmaScope,
        Self::GemmaScope2,
        Self::CircuitTracer,
        Self::LlamaScope,
        Self::LanguageModelSaes,
        Self::OpenAi,
        Self::Crosscoder,
    ];

    /// Its name, as the command line takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::SaeLens => "saelens",
            Self::Sparsify => "sparsify",
            Self::DictionaryLearning => "dictionary_learning",
            Self::GemmaScope => "gemma_scope",
            Self::GemmaScope2 => "gemma_scope_2",
            Self::CircuitTracer => "circuit_tracer",
            Self::LlamaScope => "llama_scope",
            Self::LanguageModelSaes => "language_model_saes",
            Self::OpenAi => "openai",
            Self::Crosscoder => "crosscoder",
        }
    }
}

impl Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let known = || Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|f| f.name() == text);
        found.ok_or_else(|| Error::Config(format!("no format `{text}`; there are {}", known())))
    }
}

/// An autoencoder that was read.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The autoencoder, for raw activations (but see [`Format::OpenAi`]).
    pub sae: Sae,
    /// What the files say about where it belongs, by SAELens's names: `model_name`, `hook_name`, and
    /// whatever else they hold.
    pub metadata: Value,
    /// Whose files they were.
    pub format: Format,
}

/// Reads an autoencoder of this format, or of the one that [`detect`] finds.
///
/// # Errors
/// Names the file, and the tensor with its shape or the setting that does not fit.
///
/// # Cost
/// The file beside its values in f32, and then these beside the autoencoder.
///
/// ```
/// use inscape::sae::{Activation, Sae, format::{self, Format}};
/// # use inscape::{Device, device::block_on};
/// # use burn::tensor::Tensor;
/// let on = Device::cpu();
/// let w = Tensor::<2>::eye(4, on.tensor());
/// let b = Tensor::<1>::zeros([4], on.tensor());
/// let sae = Sae::topk([w.clone(), w], [b.clone(), b], 2);
/// let dir = tempfile::tempdir()?;
/// let path = dir.path().join("sae");
/// let about = serde_json::json!({"hook_name": "blocks.3.hook_resid_post"});
/// block_on(format::write(&sae, &about, &path, Format::Sparsify))?;
///
/// let back = format::read(&path, None, on.tensor())?;
/// assert_eq!(back.format, Format::Sparsify);
/// assert!(matches!(back.sae.activation, Activation::TopK { k: 2 }));
/// assert_eq!(back.metadata["hook_name"], "blocks.3.hook_resid_post");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn read(path: &Path, format: Option<Format>, device: &Device) -> Result<Loaded, Error> {
    let format = format.map_or_else(|| detect(path), Ok)?;
    match format {
        Format::SaeLens => saelens::read(path, device),
        Format::Sparsify => sparsify::read(path, device),
        Format::GemmaScope2 => gemma_scope_2::read(path, device),
        Format::CircuitTracer => circuit_tracer::read(path, device),
        Format::LlamaScope => llama_scope::read(path, device),
        Format::LanguageModelSaes => language_model_saes::read(path, device),
        Format::DictionaryLearning => dictionary_learning::read(path, device),
        Format::GemmaScope => gemma_scope::read(path, device),
        Format::OpenAi => openai::read(path, device),
        Format::Crosscoder => crosscoder::read(path, device),
    }
}

/// Writes an autoencoder in this format: a directory or a file, as [`Format`] says.
///
/// A [`BatchTopK`](Activation::BatchTopK) autoencoder is written as the JumpReLU autoencoder that it
/// is when used; only the directories of SAELens and dictionary_learning say what it was. Where a format never takes `b_dec` from
/// the input, or always does, the difference goes into `b_enc`.
///
/// # Errors
/// Says what the format cannot hold. A file could not be written; the device failed.
///
/// # Cost
/// The weights once more on the host.
pub async fn write(sae: &Sae, metadata: &Value, path: &Path, format: Format) -> Result<(), Error> {
    if sae.sites > 1 && !matches!(format, Format::SaeLens | Format::Crosscoder) {
        return Err(cannot(format, "a crosscoder of several sites"));
    }
    if is_normalized(metadata) && format != Format::OpenAi {
        return Err(cannot(format, "an autoencoder of normalised rows"));
    }
    match format {
        Format::SaeLens => saelens::write(sae, metadata, path).await,
        Format::Sparsify => sparsify::write(sae, metadata, path).await,
        Format::GemmaScope2 => gemma_scope_2::write(sae, metadata, path).await,
        Format::CircuitTracer => circuit_tracer::write(sae, metadata, path).await,
        Format::LlamaScope => llama_scope::write(sae, metadata, path).await,
        Format::LanguageModelSaes => language_model_saes::write(sae, metadata, path).await,
        Format::DictionaryLearning => dictionary_learning::write(sae, metadata, path).await,
        Format::GemmaScope => gemma_scope::write(sae, metadata, path).await,
        Format::OpenAi => openai::write(sae, metadata, path).await,
        Format::Crosscoder => crosscoder::write(sae, metadata, path).await,
    }
}

/// Reads an autoencoder from the bytes of a format's one file of weights, as fuzzing does: what
/// would lie beside it is not there.
///
/// # Errors
/// Those of [`read`]; a format whose weights are no `.pt` or `.npz` file.
#[doc(hidden)]
pub fn read_bytes(bytes: &[u8], format: Format, device: &Device) -> Result<Loaded, Error> {
    let path = Path::new("bytes");
    match format {
        Format::DictionaryLearning => dictionary_learning::parse(path, bytes, Value::Null, device),
        Format::GemmaScope => gemma_scope::parse(path, bytes, device),
        Format::OpenAi => openai::parse(path, bytes, device),
        Format::Crosscoder => crosscoder::parse(path, bytes, device),
        other => Err(Error::Config(format!("{other} is a folder"))),
    }
}

/// Reads a pickle of tensors and plain values, as fuzzing does.
///
/// # Errors
/// Says what is refused.
#[doc(hidden)]
pub fn read_pickle(bytes: &[u8]) -> Result<(), Error> {
    let pickle = pickle::Pickle::parse(bytes);
    pickle
        .map(drop)
        .map_err(|e| malformed(Path::new("bytes"), e))
}

/// Writes our own directory: the weights, then the configuration, each to a temporary file that is
/// renamed. `metadata` goes into `cfg.json`'s `metadata`.
///
/// It holds every [`Sae`]. SAELens opens those whose architecture it has; what it lacks (a TopK
/// transcoder) has an architecture there that it does not know.
///
/// # Errors
/// A file could not be written; the device failed; `metadata` is neither null nor an object.
pub async fn save(sae: &Sae, dir: &Path, metadata: Value) -> Result<(), Error> {
    save_as(sae, dir, metadata, WeightDtype::F32).await
}

/// The same with every tensor in this number format, biases and thresholds too; `cfg.json` names it.
/// [`load`] and [`read`] give the rounded values.
///
/// # Errors
/// As [`save`]; [`Error::Overflow`] names a tensor that holds a number too large for the format, and
/// nothing is written then.
pub async fn save_as(
    sae: &Sae,
    dir: &Path,
    metadata: Value,
    dtype: WeightDtype,
) -> Result<(), Error> {
    saelens::save(sae, dir, metadata, dtype).await
}

/// Reads a directory of SAELens's or ours, and its `metadata`.
///
/// # Errors
/// Names the file, and the tensor or setting that does not fit.
pub fn load(dir: &Path, device: &Device) -> Result<(Sae, Value), Error> {
    saelens::read(dir, device).map(|loaded| (loaded.sae, loaded.metadata))
}

/// Named f32 tensors with their shapes.
pub(super) type Named = Vec<(&'static str, Vec<usize>, Vec<f32>)>;

pub(super) fn serialize<S: AsRef<str>>(
    tensors: &[(S, Vec<usize>, Vec<f32>)],
    metadata: Option<String>,
) -> Vec<u8> {
    serialize_as(tensors, metadata, WeightDtype::F32).expect("every f32 is one")
}

fn serialize_as<S: AsRef<str>>(
    tensors: &[(S, Vec<usize>, Vec<f32>)],
    metadata: Option<String>,
    dtype: WeightDtype,
) -> Result<Vec<u8>, Error> {
    let bytes = tensors
        .iter()
        .map(|(name, _, v)| dtype.encode(name.as_ref(), v));
    let bytes = bytes.collect::<Result<Vec<_>, _>>()?;
    let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
        (
            name.as_ref(),
            TensorView::new(dtype.of_file(), shape.clone(), bytes).expect("length fits the shape"),
        )
    });
    let metadata = metadata.map(|m| std::collections::HashMap::from([("inscape".to_string(), m)]));
    Ok(safetensors::serialize(views, metadata).expect("plain tensors serialise"))
}

/// A tensor as it will be written.
async fn named<const D: usize>(
    name: &'static str,
    tensor: Tensor<D>,
) -> Result<(&'static str, Vec<usize>, Vec<f32>), Error> {
    let shape = tensor.dims().to_vec();
    Ok((name, shape, device::read(tensor).await?))
}

/// θ of every latent `[d_sae]`, where a threshold is all that makes latents of pre-activations.
fn threshold(sae: &Sae) -> Option<Tensor<1>> {
    match &sae.activation {
        Activation::JumpRelu { threshold } => Some(threshold.clone()),
        Activation::BatchTopK { threshold, .. } => Some(threshold.clone().expand([sae.d_sae()])),
        Activation::Relu => Some(sae.b_enc.zeros_like()),
        Activation::TopK { .. } | Activation::Gated { .. } => None,
    }
}

/// The smallest θ; 0 where there is none.
async fn least(sae: &Sae) -> Result<f32, Error> {
    let Some(threshold) = threshold(sae) else {
        return Ok(0.0);
    };
    let values: Vec<f32> = device::read(threshold).await?;
    Ok(values.into_iter().fold(f32::INFINITY, f32::min))
}

/// The same autoencoder, `b_dec` taken from its input (`on`) or not: what `W_enc` makes of `b_dec`
/// moves into the encoder's bias. With [`Activation::Gated`] into that of the magnitudes as well.
fn subtracting(mut sae: Sae, on: bool) -> Sae {
    if sae.subtract_b_dec == on {
        return sae;
    }
    let moved = (sae.w_enc.clone() * sae.b_dec.clone().unsqueeze()).sum_dim(1);
    let moved = moved.squeeze_dim::<1>(1) * if on { 1.0 } else { -1.0 };
    if let Activation::Gated { r_mag, b_mag } = &mut sae.activation {
        *b_mag = b_mag.clone() + r_mag.clone().exp() * moved.clone();
    }
    sae.b_enc = sae.b_enc + moved;
    sae.subtract_b_dec = on;
    sae
}

/// The same autoencoder, `b_dec` left in its input.
fn without_subtraction(sae: Sae) -> Sae {
    subtracting(sae, false)
}

/// Latents in units of their decoder rows, and these of length 1.
fn unit_decoder(sae: Sae) -> Sae {
    let norm = sae.w_dec.clone().square().sum_dim(1).sqrt().clamp_min(1e-8);
    Sae {
        w_enc: sae.w_enc * norm.clone(),
        w_dec: sae.w_dec / norm.clone(),
        b_enc: sae.b_enc * norm.squeeze_dim(1),
        ..sae
    }
}

/// Whether, by its metadata, an autoencoder acts on rows that [`layer_norm`] made, not on raw ones.
pub fn is_normalized(metadata: &Value) -> bool {
    metadata["normalize_activations"] == "layer_norm"
}

/// Whether the metadata name another hook to write to than the one to read from.
fn writes_elsewhere(metadata: &Value) -> bool {
    let other =
        |out: &str, read: &str| metadata[out].is_string() && metadata[out] != metadata[read];
    other("hook_name_out", "hook_name") || other("hf_hook_name_out", "hf_hook_name")
}

/// `metadata` as an object; null is an empty one.
fn object(metadata: &Value) -> Result<Map<String, Value>, Error> {
    match metadata {
        Value::Null => Ok(Map::new()),
        Value::Object(map) => Ok(map.clone()),
        other => Err(Error::Config(format!(
            "metadata must be an object, not {other}"
        ))),
    }
}

/// A whole number above 0.
fn whole(value: &Value) -> Option<usize> {
    let number = value.as_f64()?;
    (number >= 1.0 && number.fract() == 0.0 && number < 1e15).then_some(number as usize)
}

/// `k` of a TopK autoencoder, from a file's setting.
fn top_k(path: &Path, value: &Value, d_sae: usize) -> Result<usize, Error> {
    match whole(value) {
        Some(k) if k <= d_sae => Ok(k),
        _ => Err(malformed(path, format!("k = {value} for {d_sae} latents"))),
    }
}

/// The directory that holds `path`, or is it.
fn dir_of(path: &Path) -> PathBuf {
    match path.is_file() {
        true => path.parent().unwrap_or(Path::new("")).into(),
        false => path.into(),
    }
}

fn read_json(path: &Path) -> Result<Value, Error> {
    let value: Value = serde_json::from_slice(&read_file(path)?).map_err(|e| malformed(path, e))?;
    match value.is_object() {
        true => Ok(value),
        false => Err(malformed(path, "a JSON object is wanted")),
    }
}

fn write_json(path: &Path, value: &Value) -> Result<(), Error> {
    let text = serde_json::to_vec_pretty(value).expect("a JSON value serialises");
    Ok(write_whole(path, &text)?)
}

fn make_dir(dir: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(dir).map_err(|source| Error::Io {
        path: dir.into(),
        source,
    })
}

/// Makes the directory that a file will lie in.
fn make_parent(file: &Path) -> Result<(), Error> {
    match file.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => make_dir(dir),
        _ => Ok(()),
    }
}

fn cannot(format: Format, what: impl Display) -> Error {
    Error::Config(format!("{format} cannot hold {what}"))
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
