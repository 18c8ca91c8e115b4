//! Rows of activations on disk: a directory with `manifest.json` and `shard-000000.safetensors`, …
//!
//! Each shard holds one tensor `[rows, width]` per hook (F32 or F16, little endian) and five that
//! say where each row comes from, one number a row: `token_ids` (U32), `position` in its context
//! (U32), `context` in the run (U64), and `offset_start`, `offset_end` in the text, in bytes (U64).
//! The shards are plain safetensors files; any reader opens them.
//!
//! A file is written aside, flushed to the disk, then renamed, and the manifest follows each shard.
//! So a run that is killed at any moment leaves a store that [`Store::resume`] continues to the
//! bytes an uninterrupted run would have written.
//!
//! ```
//! use inscape::capture::store::*;
//! # let dir = tempfile::tempdir()?;
//! # let dir = dir.path().join("acts");
//! let settings = Settings {
//!     model: ModelId { id: "toy".into(), family: "llama".into(), sha256: "00".into() },
//!     tokenizer_sha256: "00".into(),
//!     text: "toy.txt".into(),
//!     positions: Positions::All,
//!     context: 2,
//!     batch: 1,
//!     contexts_per_shard: 8,
//!     max_tokens: None,
//!     device: "cpu".into(),
//!     dtype: Dtype::F32,
//!     hooks: vec![HookSpec::new("blocks.0.hook_resid_post", [3])],
//! };
//! let mut writer = Store::create(&dir, settings)?;
//! let row = |position| RowMeta { token_id: 7, position, context: 0, offset_start: 0, offset_end: 1 };
//! writer.push(&RowBlock {
//!     contexts: 1,
//!     meta: vec![row(0), row(1)],
//!     hooks: vec![vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]],
//! })?;
//! let store = writer.finish()?;
//! assert_eq!(store.read_rows("blocks.0.hook_resid_post", 1..2)?, [4.0, 5.0, 6.0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod disk;
mod error;
mod header;
mod manifest;
mod reader;
mod settings;
mod shuffle;
mod source;
mod spec;
#[cfg(test)]
mod tests;
mod writer;

pub use disk::{sha256_file, write_whole};
pub use error::Error;
pub(super) use manifest::MANIFEST;
pub use manifest::{Manifest, ShardEntry, Totals};
pub use reader::Store;
pub use settings::{Dtype, HookSpec, ModelId, Positions, Settings};
pub(crate) use shuffle::permutation;
pub use shuffle::{BUFFER_ROWS, ShuffledBatches};
pub use source::Source;
pub use writer::{RowBlock, RowMeta, Writer};
