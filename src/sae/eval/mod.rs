//! What an autoencoder keeps of its activations, and of its model's predictions.

mod reconstruction;
mod spliced;

pub use reconstruction::{Accumulator, Reconstruction};
pub use spliced::{Spliced, SplicedAccumulator, splice};
