//! The shape of feature spaces: which directions belong together, which of them are one feature of
//! more dimensions, how analogies and spectra look.
//!
//! Everything takes plain matrices: decoder rows of an autoencoder, or any points.
//!
//! | question | answer |
//! |---|---|
//! | which directions belong together? | [`graph_clusters`], [`spectral_clusters`] |
//! | is a cluster one feature that no rotation takes apart? | [`cluster_reconstructions`], [`irreducibility`] |
//! | do `a − b` and `c − d` agree, but for distractors? | [`parallelogram_quality`], [`Lda`] |
//! | do features that fire together lie together? | [`Cooccurrence`], [`agreement`], [`lobes`] |
//! | how fast do the eigenvalues fall, and how clumpy is the cloud? | [`power_law`], [`clustering_entropy`] |
//!
//! # Numbers
//! All in f64 on the host. Draws come from a seeded generator that is the same everywhere, so that
//! one seed gives one answer.
//!
//! # What is an error
//! A NaN or infinity anywhere; too few rows; a measure that is 0 / 0 ([`Error::Undefined`]). None of
//! these ever comes back as a number.

mod clusters;
mod cooccurrence;
mod firing;
mod information;
mod irreducible;
mod kmeans;
mod lobes;
mod matrix;
mod parallelogram;
mod principal;
mod silhouette;
mod spectrum;

pub use clusters::{angular_affinity, graph_clusters, spectral_clusters};
pub use cooccurrence::{Agreement, Cooccurrence, Measure, agreement};
pub use firing::Firing;
pub use information::{adjusted_mutual_information, label_entropy, mutual_information};
pub use irreducible::{
    Mixture, PlaneScores, Separability, irreducibility, mixture_index, separability_index,
};
pub use kmeans::{KMeans, kmeans};
pub use lobes::{LobeSettings, Lobes, lobes};
pub use matrix::Matrix;
pub use parallelogram::{Lda, Parallelograms, parallelogram_quality};
pub use principal::{Principal, cluster_reconstructions, cluster_reconstructions_async};
pub use silhouette::silhouette;
pub use spectrum::{
    ClusteringEntropy, Covariance, PowerLaw, clustering_entropy, covariance_spectrum,
    numerical_rank, power_law,
};

use crate::device;

/// Why a shape could not be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A value that is NaN or infinite; the first in row order.
    #[error("row {row}, column {column} is {value}")]
    NotFinite {
        /// Row of the value, from 0.
        row: usize,
        /// Column of the value, from 0.
        column: usize,
        /// The value.
        value: f64,
    },
    /// The measure means nothing on so few.
    #[error("{measure} needs at least {needed} {what}, got {got}")]
    TooFew {
        /// The measure.
        measure: &'static str,
        /// What there is too little of.
        what: &'static str,
        /// How many are needed.
        needed: usize,
        /// How many there are.
        got: usize,
    },
    /// A setting that cannot work.
    #[error("{name} = {value}: {reason}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: f64,
        /// What it should be.
        reason: &'static str,
    },
    /// The measure has no value here.
    #[error("{measure} is undefined: {why}")]
    Undefined {
        /// The measure.
        measure: &'static str,
        /// The reason.
        why: &'static str,
    },
    /// The device failed.
    #[error(transparent)]
    Device(#[from] device::Error),
}

fn at_least(
    measure: &'static str,
    what: &'static str,
    needed: usize,
    got: usize,
) -> Result<(), Error> {
    if got >= needed {
        return Ok(());
    }
    Err(Error::TooFew {
        measure,
        what,
        needed,
        got,
    })
}

/// Refuses points that are all the same.
fn differ(measure: &'static str, points: &Matrix) -> Result<(), Error> {
    if points.each_row().any(|row| row != points.row(0)) {
        return Ok(());
    }
    let why = "the points are all the same";
    Err(Error::Undefined { measure, why })
}
