//! Running a model over a data set and streaming chosen points to disk.
//!
//! [`capture`] is the driver; [`text`] cuts a text into blocks, [`store`] keeps the rows:
//! safetensors shards with a manifest, a reader, and a seeded shuffle buffer over them. [`Live`] gives
//! the same rows without a store, from the model as they are read. [`concepts`] labels the tokens of a
//! text.

pub mod concepts;
mod contexts;
mod live;
mod paired;
mod run;
pub mod store;
pub mod text;

use crate::{device, hook, model};

pub use contexts::batches;
pub use live::{Live, LiveInfo};
pub use paired::{beside, paired_rows};
pub use run::{CaptureConfig, Progress, capture};

/// Why activations could not be captured or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The text.
    #[error(transparent)]
    Text(#[from] text::Error),
    /// The hooks.
    #[error(transparent)]
    Hook(#[from] hook::Error),
    /// The model or its tokenizer.
    #[error(transparent)]
    Model(#[from] model::Error),
    /// The device.
    #[error(transparent)]
    Device(#[from] device::Error),
    /// Two sets of rows that do not belong together.
    #[error("{a} and {b} do not pair up: {reason}")]
    Unpaired {
        /// One source.
        a: String,
        /// The other.
        b: String,
        /// Where they part.
        reason: String,
    },
    /// A text without a token.
    #[error("{name}: the text is empty")]
    EmptyText {
        /// The text's name.
        name: String,
    },
    /// A point whose activations are not one row a position.
    #[error("`{hook}` has shape {shape}: it has no row a position and cannot be stored")]
    NoRows {
        /// The point.
        hook: String,
        /// Its shape.
        shape: String,
    },
    /// A context that is too short for the special tokens or too long for the model.
    #[error(
        "a context of {context} tokens does not fit: the model takes up to {longest}, {special} of them special"
    )]
    Context {
        /// Tokens asked for.
        context: usize,
        /// Special tokens in each context.
        special: usize,
        /// The longest the model takes.
        longest: usize,
    },
    /// A range of positions without a token of the text.
    #[error(
        "positions {start}..{end} keep no row: the text's tokens are at positions {first} to {last} of a context"
    )]
    NoPositions {
        /// First position asked for.
        start: usize,
        /// One past the last.
        end: usize,
        /// Where the text's first token is.
        first: usize,
        /// Where its last token is in a full context.
        last: usize,
    },
    /// An activation is NaN or infinite.
    #[error("`{hook}` is not finite in context {context}, position {position}")]
    NotFinite {
        /// The point.
        hook: String,
        /// The context's index in the run.
        context: u64,
        /// The position in it.
        position: u32,
    },
}
