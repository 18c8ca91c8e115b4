//! From files to a model: a directory of `config.json`, `tokenizer.json` and safetensors, or
//! the same three as bytes.

mod embedded;
mod save;
mod tokenizer;
mod weights;

use std::path::{Path, PathBuf};

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::family::{attn_only, bert, llama};
use super::{Model, Run, Tokens};
use crate::Device;
use crate::hook::{self, Hooks};

pub use embedded::{EMBEDDED, Embedded, SAMPLE};
pub use save::to_safetensors;
pub use tokenizer::{Piece, Tokenizer};
pub use weights::{RandomInit, Weights};

/// Why a model could not be loaded or saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// There is no such model.
    #[error("`{name}` is neither a model directory nor one of the embedded models ({embedded})")]
    NoSuchModel {
        /// What was asked for.
        name: String,
        /// What is embedded.
        embedded: String,
    },
    /// A file is not what it should be.
    #[error("{file}: {reason}")]
    Malformed {
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A tensor is missing, or has another shape or dtype than the configuration says.
    #[error("{file}: tensor `{tensor}`: {reason}")]
    Tensor {
        /// The weight file.
        file: String,
        /// The tensor's name.
        tensor: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A text without a token.
    #[error("text {index} of the batch is empty")]
    EmptyText {
        /// Its place in the batch.
        index: usize,
    },
    /// The configuration asks for something this crate does not compute.
    #[error("config.json: `{field}` = {value} is not supported")]
    Unsupported {
        /// The field.
        field: String,
        /// Its value.
        value: String,
    },
}

pub(crate) fn unsupported(field: &str, value: &str) -> Error {
    Error::Unsupported {
        field: field.into(),
        value: value.into(),
    }
}

fn malformed(file: impl Into<String>, reason: impl ToString) -> Error {
    Error::Malformed {
        file: file.into(),
        reason: reason.to_string(),
    }
}

/// Where a model's tensors come from, by name.
pub trait TensorSource {
    /// Whether there is a tensor of this name.
    fn has(&self, name: &str) -> bool;

    /// A matrix.
    ///
    /// # Errors
    /// It is missing or has another shape.
    fn r2(&mut self, name: &str, shape: [usize; 2]) -> Result<Tensor<2>, Error>;

    /// A vector.
    ///
    /// # Errors
    /// It is missing or has another length.
    fn r1(&mut self, name: &str, len: usize) -> Result<Tensor<1>, Error>;
}

/// Which model this is, so that what was made with it can be traced back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// Directory name, or the name of an embedded model.
    pub id: String,
    /// `attn_only`, `bert` or `llama`.
    pub family: String,
    /// Number of parameters.
    pub parameters: usize,
    /// Hash of the weight file (of all of them in name order, where there are several).
    pub sha256: String,
    /// Hash of `tokenizer.json`.
    pub tokenizer_sha256: String,
}

/// A model with its tokenizer and identity.
#[derive(Debug)]
pub struct Network {
    /// The forward pass.
    pub model: Box<dyn Model>,
    /// Text to token ids.
    pub tokenizer: Tokenizer,
    /// Which model this is.
    pub info: Info,
}

impl Network {
    /// Builds a model from the bytes of its three files.
    ///
    /// Memory: the parameters in f32 on the device, and one tensor on the way.
    ///
    /// # Errors
    /// See [`load`].
    pub fn from_parts(
        id: &str,
        config: &[u8],
        tokenizer: &[u8],
        mut weights: Weights,
        device: &Device,
    ) -> Result<Self, Error> {
        let tokenizer_sha256 = weights::sha256(tokenizer);
        let tokenizer = Tokenizer::from_bytes(tokenizer)?;
        let (family, mut model) = build(config, &mut weights.on(device))?;
        let params = model.params();
        let parameters = params.iter().map(|(_, p)| p.len()).sum();
        drop(params);
        let info = Info {
            id: id.into(),
            family,
            parameters,
            sha256: weights.sha256()?,
            tokenizer_sha256,
        };
        Ok(Self {
            model,
            tokenizer,
            info,
        })
    }

    /// One forward pass with hooks; see [`Model::run`].
    ///
    /// # Errors
    /// See [`Model::run`].
    pub fn run(&self, tokens: &Tokens, hooks: &Hooks) -> Result<Run, hook::Error> {
        self.model.run(tokens, hooks)
    }

    /// Texts as one batch, with the special tokens the model expects.
    ///
    /// # Errors
    /// The tokenizer refuses a text, or a text has no token at all.
    pub fn tokens(&self, texts: &[&str]) -> Result<Tokens, Error> {
        let encode = |t: &&str| self.tokenizer.encode_with_special(t);
        let rows = texts.iter().map(encode).collect::<Result<Vec<_>, _>>()?;
        match rows
            .iter()
            .position(Vec::is_empty)
            .or(rows.is_empty().then_some(0))
        {
            Some(index) => Err(Error::EmptyText { index }),
            None => Ok(Tokens::new(rows)),
        }
    }
}

fn build(
    config: &[u8],
    source: &mut weights::OnDevice<'_>,
) -> Result<(String, Box<dyn Model>), Error> {
    #[derive(Deserialize)]
    struct Kind {
        model_type: String,
    }
    let bad = |e: serde_json::Error| malformed("config.json", e);
    let kind: Kind = serde_json::from_slice(config).map_err(bad)?;
    let device = source.device().clone();
    let model: Box<dyn Model> = match kind.model_type.as_str() {
        "attn_only" => Box::new(attn_only::AttnOnly::new(
            serde_json::from_slice(config).map_err(bad)?,
            source,
        )?),
        "bert" => Box::new(bert::Bert::new(
            serde_json::from_slice(config).map_err(bad)?,
            source,
        )?),
        "llama" => Box::new(llama::Llama::new(
            serde_json::from_slice(config).map_err(bad)?,
            source,
            device.tensor(),
        )?),
        other => {
            return Err(unsupported(
                "model_type",
                &format!("{other:?} (known: attn_only, bert, llama)"),
            ));
        }
    };
    Ok((kind.model_type, model))
}

/// Loads a model: a directory in Hugging Face's layout (`config.json`, `tokenizer.json`,
/// `model.safetensors` or a sharded index), or one of the embedded models by name.
///
/// Weights in F32, F16 or BF16 become f32 on the device. Memory: the parameters once, and
/// one tensor on the way.
///
/// ```
/// use inscape::{Device, hook::Hooks, model};
/// let network = model::load("tiny-lm-1", &Device::cpu())?;
/// let tokens = network.tokens(&["Call me Ishmael."])?;
/// let run = network.run(&tokens, &Hooks::new().capture("blocks.*.hook_resid_post"))?;
/// let x = run["blocks.3.hook_resid_post"].clone().r3(); // [batch, pos, d_model]
/// assert_eq!(x.dims()[2], 128);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Names the file, the tensor with its shape, or the setting that is not supported.
pub fn load(path: impl AsRef<Path>, device: &Device) -> Result<Network, Error> {
    let path = path.as_ref();
    let name = path.to_string_lossy();
    if path.is_dir() {
        return load_dir(path, device);
    }
    match EMBEDDED.iter().find(|m| m.name == name) {
        Some(m) if !path.exists() => {
            let weights = Weights::from_bytes(m.name, m.weights.to_vec())?;
            Network::from_parts(m.name, m.config, m.tokenizer, weights, device)
        }
        _ => {
            let embedded: Vec<&str> = EMBEDDED.iter().map(|m| m.name).collect();
            Err(Error::NoSuchModel {
                name: name.into(),
                embedded: embedded.join(", "),
            })
        }
    }
}

fn load_dir(dir: &Path, device: &Device) -> Result<Network, Error> {
    let read = |name: &str| {
        let path = dir.join(name);
        std::fs::read(&path).map_err(|source| Error::Io { path, source })
    };
    let id = dir
        .canonicalize()
        .ok()
        .and_then(|d| d.file_name().map(|n| n.to_string_lossy().into_owned()));
    let (config, tokenizer) = (read("config.json")?, read("tokenizer.json")?);
    Network::from_parts(
        &id.unwrap_or_default(),
        &config,
        &tokenizer,
        Weights::from_dir(dir)?,
        device,
    )
}
