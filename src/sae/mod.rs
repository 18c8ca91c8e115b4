//! Sparse autoencoders: architectures, the training step, checkpoints, formats, evaluation.
//!
//! [`Sae`] and [`Trainer`] are mathematics on tensors and touch no file; [`session`] trains
//! from a store and writes a directory; [`eval`] measures; [`mod@format`] reads and writes;
//! [`codes`] finds the attention heads of a task; [`synthetic`] makes activations whose features are known, [`selftest`](mod@selftest) trains on them.
//! Notation and names are the field's: `W_enc`, `b_enc`, `W_dec`, `b_dec`, `d_in`, `d_sae`.

mod arch;
mod checkpoint;
pub mod codes;
mod config;
mod cross_layer;
mod end_to_end;
pub mod eval;
pub mod features;
pub mod format;
mod init;
mod loss;
mod needs;
mod places;
mod preset;
mod resample;
mod schedule;
pub mod selftest;
pub mod session;
pub mod synthetic;
mod train;

use std::path::PathBuf;

use crate::{capture, device, hook, model};

pub use arch::{Activation, Latents, Sae};
pub use config::{
    Architecture, AuxNormaliser, BiasStart, Conventions, Gated, InputScale, JumpPenalty, JumpRelu,
    Matryoshka, Reduction, Standard, TrainConfig,
};
pub use cross_layer::{CrossLayer, CrossLayerTrainer};
pub use end_to_end::{EndToEnd, EndToEndPass};
pub use init::geometric_median;
pub use loss::{Gradients, Losses, Now, backward};
pub use needs::Needs;
pub use preset::Preset;
pub use train::{StepStats, Trainer};

/// Why an autoencoder could not be trained, read or evaluated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting that cannot work.
    #[error("{0}")]
    Config(String),
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{file}: {reason}")]
    Malformed {
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The loss is no number any more.
    #[error(
        "the loss stopped being a number in step {step} (it is {loss} now); the last checkpoint is kept. A smaller learning rate may help"
    )]
    Diverged {
        /// The first such step.
        step: u64,
        /// The loss when that was noticed.
        loss: f64,
    },
    /// A weight is too large for the number format that it is to be saved in.
    #[error(
        "tensor `{tensor}`: {value} does not fit in {dtype}; f32 holds it, and a run is resumed with another dtype"
    )]
    Overflow {
        /// The tensor.
        tensor: String,
        /// The first such weight.
        value: f32,
        /// The number format.
        dtype: format::WeightDtype,
    },
    /// The directory holds another run.
    #[error("{path}: {reason}")]
    Resume {
        /// The directory.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// The activations.
    #[error(transparent)]
    Capture(#[from] capture::Error),
    /// The store they come from.
    #[error(transparent)]
    Store(#[from] capture::store::Error),
    /// The device.
    #[error(transparent)]
    Device(#[from] device::Error),
    /// The hooks.
    #[error(transparent)]
    Hook(#[from] hook::Error),
    /// The model.
    #[error(transparent)]
    Model(#[from] model::Error),
    /// Concepts that cannot be probed for.
    #[error(transparent)]
    Probe(#[from] eval::ProbeError),
}
