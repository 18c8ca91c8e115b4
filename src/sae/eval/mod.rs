//! What an autoencoder keeps of its activations, of its model's predictions, and of concepts.
//!
//! [`probe_concepts`] measures sparse probing, absorption and targeted probe perturbation on stored
//! activations; its parts ([`Probe`], [`ClassMeans`], [`Absorption`], [`Ablation`]) take plain rows,
//! latents and labels.

mod ablation;
mod absorption;
mod concepts;
mod probe;
mod probing;
mod reconstruction;
mod spliced;

pub use ablation::{Ablated, Ablation, Effect, Tpp, most_effective, scr, tpp};
pub use absorption::{Absorbed, Absorption, AbsorptionLimits, split_latents};
pub use concepts::{
    LabelledConcept, Probed, ProbedConcept, ProbingOptions, SparseProbe, probe_concepts,
};
pub use probe::{Fit, Labelled, Probe, ProbeError, Scores};
pub use probing::{ClassMeans, columns, strongest};
pub use reconstruction::{Accumulator, Reconstruction};
pub use spliced::{Spliced, SplicedAccumulator, splice};
