//! What an autoencoder keeps of its activations, and of its model's predictions; which features of
//! two dictionaries are the same.

mod assignment;
pub mod matching;
mod reconstruction;
mod spliced;

pub use reconstruction::{Accumulator, Reconstruction, encoder_decoder_cosine};
pub use spliced::{Ablated, Spliced, SplicedAccumulator, splice, splice_across};

use serde::{Deserialize, Deserializer};

/// A measure that an older file does not hold.
fn unmeasured() -> f64 {
    f64::NAN
}

/// A measure as JSON has it: NaN is `null` there.
fn measure<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
}
