//! What decides the bytes of a store.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use safetensors::tensor::Dtype as FileDtype;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Error;
use super::header::Field;

/// Which rows of a context are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Positions {
    /// One row per position.
    All,
    /// The last position only.
    Last,
    /// The mean over the positions, as one row.
    Mean,
    /// The positions `start..end`.
    Range {
        /// First position.
        start: usize,
        /// One past the last position.
        end: usize,
    },
}

impl Positions {
    /// The most rows a context of `context` positions gives.
    pub fn rows(&self, context: usize) -> usize {
        match *self {
            Self::All => context,
            Self::Last | Self::Mean => context.min(1),
            Self::Range { start, end } => end.min(context).saturating_sub(start),
        }
    }
}

impl fmt::Display for Positions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Last => f.write_str("last"),
            Self::Mean => f.write_str("mean"),
            Self::Range { start, end } => write!(f, "{start}..{end}"),
        }
    }
}

impl FromStr for Positions {
    type Err = Error;

    /// Reads `all`, `last`, `mean` or `I..J` with I < J.
    fn from_str(s: &str) -> Result<Self, Error> {
        match s {
            "all" => return Ok(Self::All),
            "last" => return Ok(Self::Last),
            "mean" => return Ok(Self::Mean),
            _ => {}
        }
        let bounds = s.split_once("..");
        let parsed = bounds.and_then(|(i, j)| Some((i.parse().ok()?, j.parse().ok()?)));
        match parsed {
            Some((start, end)) if start < end => Ok(Self::Range { start, end }),
            _ => Err(Error::Setting {
                field: "positions",
                why: format!("expected all, last, mean or I..J with I < J, not {s:?}"),
            }),
        }
    }
}

impl TryFrom<String> for Positions {
    type Error = Error;

    fn try_from(s: String) -> Result<Self, Error> {
        s.parse()
    }
}

impl From<Positions> for String {
    fn from(positions: Positions) -> Self {
        positions.to_string()
    }
}

/// The number format of the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// Four bytes, exact.
    F32,
    /// Two bytes, rounded to nearest even; values above 65,504 are refused.
    F16,
}

impl Dtype {
    /// Bytes of one value.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
        })
    }
}

impl FromStr for Dtype {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self, Error> {
        match s {
            "f32" => Ok(Self::F32),
            "f16" => Ok(Self::F16),
            _ => Err(Error::Setting {
                field: "dtype",
                why: format!("expected f32 or f16, not {s:?}"),
            }),
        }
    }
}

/// One captured point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookSpec {
    /// The hook's name, which is also its tensor's name in the shards.
    pub name: String,
    /// The shape of one row: `[d_model]`, or `[n_heads, d_head]` for a point with heads.
    pub shape: Vec<usize>,
    /// The product of `shape`: the length of one row as stored.
    pub width: usize,
}

impl HookSpec {
    /// A point whose rows have this shape.
    pub fn new(name: impl Into<String>, shape: impl Into<Vec<usize>>) -> Self {
        let shape = shape.into();
        Self {
            name: name.into(),
            width: shape.iter().product(),
            shape,
        }
    }
}

/// The model the rows come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelId {
    /// Its name or path.
    pub id: String,
    /// Its family, such as `llama`.
    pub family: String,
    /// SHA-256 of its weights.
    pub sha256: String,
}

/// What decides the bytes of a store. All of it must be the same when a run is resumed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The model.
    pub model: ModelId,
    /// SHA-256 of the tokenizer.
    pub tokenizer_sha256: String,
    /// The text's name.
    pub text: String,
    /// Which rows of a context are kept.
    pub positions: Positions,
    /// Positions in a context.
    pub context: usize,
    /// Contexts in a forward pass.
    pub batch: usize,
    /// Contexts in a shard: a multiple of `batch`. A shard is held in memory until it is full.
    pub contexts_per_shard: usize,
    /// Where the run stops, in tokens.
    pub max_tokens: Option<u64>,
    /// The device, which decides the rounding.
    pub device: String,
    /// The number format of the rows.
    pub dtype: Dtype,
    /// The captured points, in the order of [`RowBlock::hooks`](super::RowBlock::hooks).
    pub hooks: Vec<HookSpec>,
}

impl Settings {
    /// Sets `contexts_per_shard` to the multiple of `batch` that brings a shard near `bytes`.
    pub fn with_shard_bytes(mut self, bytes: usize) -> Self {
        let width: usize = self.hooks.iter().map(|h| h.width).sum();
        let row = width * self.dtype.bytes() + super::writer::META_BYTES;
        let batch = (self.positions.rows(self.context) * row * self.batch).max(1);
        self.contexts_per_shard = (bytes / batch).max(1) * self.batch;
        self
    }

    /// The tensors of a shard, in the order of their bytes.
    pub(super) fn fields(&self) -> Vec<Field> {
        let dtype = match self.dtype {
            Dtype::F32 => FileDtype::F32,
            Dtype::F16 => FileDtype::F16,
        };
        let meta = super::writer::META
            .iter()
            .map(|&(name, dtype)| Field::meta(name, dtype));
        let hooks = self
            .hooks
            .iter()
            .map(|h| Field::hook(&h.name, dtype, h.width));
        meta.chain(hooks).collect()
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        let bad = |field, why: String| Err(Error::Setting { field, why });
        for (field, value) in [("context", self.context), ("batch", self.batch)] {
            if value == 0 {
                return bad(field, "must not be 0".into());
            }
        }
        if self.contexts_per_shard == 0 || !self.contexts_per_shard.is_multiple_of(self.batch) {
            let why = format!(
                "{} is no multiple of batch = {}",
                self.contexts_per_shard, self.batch
            );
            return bad("contexts_per_shard", why);
        }
        if self.hooks.is_empty() {
            return bad("hooks", "none given".into());
        }
        self.check_hooks()
    }

    fn check_hooks(&self) -> Result<(), Error> {
        for (i, hook) in self.hooks.iter().enumerate() {
            let reserved = super::writer::META.iter().any(|m| m.0 == hook.name);
            let twice = self.hooks[..i].iter().any(|h| h.name == hook.name);
            let product = hook.shape.iter().try_fold(1usize, |p, &n| p.checked_mul(n));
            let why = if reserved || hook.name == "__metadata__" {
                "is a name the store keeps for itself"
            } else if twice {
                "is given twice"
            } else if hook.width == 0 || product != Some(hook.width) {
                "has a width that is 0 or is not the product of its shape"
            } else {
                continue;
            };
            let why = format!("{:?} {why}", hook.name);
            return Err(Error::Setting {
                field: "hooks",
                why,
            });
        }
        Ok(())
    }

    /// Requires `asked` to be these settings; the error names the first field that differs.
    pub(super) fn check_same(&self, asked: &Self, dir: &Path) -> Result<(), Error> {
        let json = |s| serde_json::to_value(s).expect("settings are plain data");
        match difference("", &json(self), &json(asked)) {
            None => Ok(()),
            Some((field, stored, asked)) => Err(Error::Mismatch {
                dir: dir.to_owned(),
                field,
                stored,
                asked,
            }),
        }
    }
}

/// The first place where two JSON values differ: its path and both values.
fn difference(path: &str, a: &Value, b: &Value) -> Option<(String, String, String)> {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => x.iter().find_map(|(key, value)| {
            let dot = if path.is_empty() { "" } else { "." };
            difference(&format!("{path}{dot}{key}"), value, &y[key])
        }),
        (Value::Array(x), Value::Array(y)) if x.len() == y.len() => {
            (0..x.len()).find_map(|i| difference(&format!("{path}[{i}]"), &x[i], &y[i]))
        }
        _ if a == b => None,
        _ => Some((path.to_owned(), a.to_string(), b.to_string())),
    }
}
