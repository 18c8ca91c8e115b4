//! Named places inside a forward pass, and what one call observes and edits there.
//!
//! A [`Site`] is a closed enum; its text form is TransformerLens's name
//! (`blocks.3.attn.hook_pattern`), with the same meaning and layout. [`Hooks`] is a plain
//! value handed to one forward call: it captures or edits activations by name or glob, and
//! leaves nothing behind. Reading and editing are one mechanism: at every site the model
//! hands its tensor to the [`Tap`] and goes on with what it gets back.

mod activation;
mod hooks;
mod site;

pub use activation::Activation;
pub use hooks::{Captured, Hooks, Tap, matches};
pub use site::{BlockSite, Dim, HookPoint, Site};

/// Why hooks could not do what was asked.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The pattern names no hook point of this model.
    #[error(
        "no hook point matches `{pattern}`{hint}; this model has {count} points, for example: {examples}"
    )]
    Unknown {
        /// The name or glob asked for.
        pattern: String,
        /// A close name, if there is one: ` (did you mean ...)`.
        hint: String,
        /// How many points the model has.
        count: usize,
        /// A few of them.
        examples: String,
    },
    /// The pattern is no valid glob.
    #[error("`{pattern}` is not a valid hook name or glob: {reason}")]
    BadPattern {
        /// The pattern asked for.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A point was asked for and the forward pass never reached it.
    #[error("hook points were asked for and never fired: {0}")]
    Unfired(String),
    /// A row of tokens is longer than the model's context.
    #[error("a row of {pos} tokens exceeds the model's context of {max}")]
    Context {
        /// Tokens in the row.
        pos: usize,
        /// The longest row the model takes.
        max: usize,
    },
    /// A token id that the model's embedding does not have.
    #[error("token id {id} is outside the model's vocabulary of {vocab}")]
    TokenId {
        /// The id.
        id: u32,
        /// Rows of the embedding.
        vocab: usize,
    },
    /// A captured name that was not asked for.
    #[error("`{0}` was not captured by this run")]
    NotCaptured(String),
}
