//! What an autoencoder keeps of its activations, of its model's predictions, and of concepts; which
//! features of two dictionaries are the same.
//!
//! [`probe_concepts`] measures sparse probing, absorption and targeted probe perturbation on stored
//! activations, [`remove_concepts`] what ablating latents takes away; their parts ([`Probe`],
//! [`ClassMeans`], [`Absorption`], [`Ablation`]) take plain rows, latents and labels.

mod ablation;
mod absorption;
mod assignment;
mod concepts;
pub mod matching;
mod pairs;
mod probe;
mod probing;
mod reconstruction;
mod removal;
mod rows;
mod spliced;

pub use ablation::{Ablation, Effect, Perturbed, Tpp, most_effective, scr, tpp, tpp_each};
pub use absorption::{Absorbed, Absorption, AbsorptionLimits, split_latents};
pub use concepts::{Probed, ProbedConcept, ProbingOptions, SparseProbe, probe_concepts};
pub use pairs::LeftOut;
pub use probe::{Fit, Labelled, Probe, ProbeError, Scores};
pub use probing::{ClassMeans, columns, strongest};
pub use reconstruction::{
    Accumulator, Reconstruction, encoder_decoder_cosine, reconstruct_normalised,
};
pub use removal::{
    RemovalOptions, Removed, ScrAt, SpuriousConcept, TargetedConcept, TppAt, remove_concepts,
};
pub use rows::LabelledConcept;
pub use spliced::{Ablated, Spliced, SplicedAccumulator, splice, splice_across, splice_normalised};

use serde::{Deserialize, Deserializer};

/// A measure that an older file does not hold.
fn unmeasured() -> f64 {
    f64::NAN
}

/// A measure as JSON has it: NaN is `null` there.
fn measure<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
}
