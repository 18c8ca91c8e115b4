//! What can go wrong with a store.

use std::io;
use std::path::{Path, PathBuf};

/// What can go wrong with a store, a shard, or a matrix read from a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum Error {
    /// The operating system refused a file operation.
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    /// The disk, the quota or the file-size limit is used up.
    #[error(
        "no room left to write {path} ({source}); the shards finished before it are whole: \
         make room and resume"
    )]
    Full { path: PathBuf, source: io::Error },
    /// The directory has no manifest.
    #[error("{dir} is not a store: it has no manifest.json")]
    NotAStore { dir: PathBuf },
    /// A new store was asked for where other files are.
    #[error("{dir} is not empty (it holds {found}); a store is begun in a new or empty directory")]
    NotEmpty { dir: PathBuf, found: String },
    /// A new store was asked for where one is.
    #[error("{dir} already holds a store; resume it or choose another directory")]
    Exists { dir: PathBuf },
    /// Another process is writing this store.
    #[error("{dir} is being written by another run")]
    InUse { dir: PathBuf },
    /// The manifest cannot be read or contradicts itself.
    #[error("{path}: {why}")]
    Manifest { path: PathBuf, why: String },
    /// The store was begun with other settings.
    #[error("{dir} was begun with {field} = {stored}, this run has {field} = {asked}")]
    Mismatch {
        dir: PathBuf,
        field: String,
        stored: String,
        asked: String,
    },
    /// A setting that no store can have.
    #[error("{field}: {why}")]
    Setting { field: &'static str, why: String },
    /// A shard or tensor file is missing, cut short, foreign or damaged.
    #[error("{path}: {why}")]
    File { path: PathBuf, why: String },
    /// A tensor of a file is missing or is not what it should be.
    #[error("{path}, tensor {tensor:?}: {why}")]
    Tensor {
        path: PathBuf,
        tensor: String,
        why: String,
    },
    /// A shard's bytes are not those that were written.
    #[error("{path} is damaged: its sha256 is {found}, the manifest says {expected}")]
    Checksum {
        path: PathBuf,
        expected: String,
        found: String,
    },
    /// A finite activation is too large for f16.
    #[error("hook {hook}, row {row}: {value} does not fit in f16; store it as f32")]
    Overflow {
        hook: String,
        row: usize,
        value: f32,
    },
    /// A row holds NaN or an infinity.
    #[error("{name}: row {row} holds {value} in column {column} ({place})")]
    NotFinite {
        name: String,
        row: usize,
        column: usize,
        value: f32,
        place: String,
    },
    /// The store has no such hook.
    #[error("{dir} holds no hook {hook:?}; it holds {}", hooks.join(", "))]
    NoHook {
        dir: PathBuf,
        hook: String,
        hooks: Vec<String>,
    },
    /// No hook or tensor was named, and there is not exactly one to take.
    #[error(
        "{path}: name one of its matrices, as in {path}:NAME; it holds {}",
        listed(found)
    )]
    Which { path: PathBuf, found: Vec<String> },
    /// The file has no such tensor.
    #[error("{path} holds no tensor {tensor:?}; it holds {}", listed(found))]
    NoTensor {
        path: PathBuf,
        tensor: String,
        found: Vec<String>,
    },
    /// Neither a store nor a safetensors file is there.
    #[error("{spec}: {path} does not exist; expected STORE_DIR:HOOK or FILE.safetensors:TENSOR")]
    NoSource { spec: String, path: PathBuf },
    /// Rows past the end were asked for.
    #[error("{name} has {rows} rows; rows {start}..{end} were asked for")]
    Rows {
        name: String,
        rows: usize,
        start: usize,
        end: usize,
    },
    /// The model that makes the rows when they are read.
    #[error(transparent)]
    Live(#[from] Box<crate::capture::Error>),
    /// There are no rows to serve.
    #[error("{name} holds no rows")]
    Empty { name: String },
}

impl Error {
    /// Wraps an error of the operating system, telling a full disk from the rest.
    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        let path = path.to_owned();
        match source.kind() {
            StorageFull | QuotaExceeded | FileTooLarge => Self::Full { path, source },
            _ => Self::Io { path, source },
        }
    }

    pub(super) fn file(path: &Path, why: impl Into<String>) -> Self {
        Self::File {
            path: path.to_owned(),
            why: why.into(),
        }
    }

    pub(super) fn tensor(path: &Path, tensor: &str, why: impl Into<String>) -> Self {
        Self::Tensor {
            path: path.to_owned(),
            tensor: tensor.to_owned(),
            why: why.into(),
        }
    }
}

fn listed(names: &[String]) -> String {
    match names {
        [] => "none".to_owned(),
        _ => names.join(", "),
    }
}
