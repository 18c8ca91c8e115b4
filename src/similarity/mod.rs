//! How alike are two representations of the same inputs?
//!
//! A representation is a matrix `[n, d]`: `n` inputs (rows), the same and in the same order on both
//! sides, by `d` features. The widths may differ. Activations of more axes become rows by a rule that
//! is named: [`Flatten`].
//!
//! | family | asks | among them |
//! |---|---|---|
//! | [`Kernel`] | are the same inputs alike on both sides? | [`linear_cka`], [`rbf_cka`], [`distance_correlation`], [`hsic`](hsic()) |
//! | [`Cca`] | what do the two subspaces share? | [`cca`](cca()), [`svcca`](svcca()), [`pwcca`](pwcca()), GULP |
//! | [`Predictivity`] | what does one side say of the other? | linear, ridge and PLS regression, held out |
//! | [`Shape`] | what is left when one side is turned onto the other? | Procrustes, shape metrics, NBS, [`relative`] |
//! | [`Rsa`] | are the same pairs far apart? | [`rsa`](rsa()), topological RSA |
//! | [`Neighbours`] | who is nearest to whom? | [`mutual_knn`], CKNNA, cycles, lists |
//! | [`Units`] | which units match? | one-to-one, semi- and soft matching |
//! | [`Topology`] | have they the same holes, heat and curvature? | RTD, IMD, Ricci |
//! | [`Predictions`] | do they predict the same? | JSD, disagreement |
//!
//! [`Metric`] names them all in text, with their options; [`Facts`] say what a value means and what
//! it is blind to. [`matrix`] compares many layers, [`Prepared`] keeps what one representation needs so
//! that `K` layers cost `K` preparations and not `K²`; [`Streamed`], or [`StreamedMatrix`] for many, takes
//! rows batch by batch, however many. [`null`] holds a value against chance, [`bootstrap`] gives it an
//! interval.
//!
//! # Numbers
//! Products run on the tensor's device in its precision: f64 tensors in f64, all others in f32. Rows
//! are read back once per representation to check them and to take means and lengths in f64; sums
//! over products, pairs and ranks are f64 on the host, in fixed chunks, so that the result does not
//! depend on the number of threads (but for the last bits of linear CKA, whose blocks follow it).
//! What is bound by decompositions ([`Cca`], [`Shape`], …) is all f64
//! on the host. Features are centred before any product. Where squares of the values could overflow or
//! vanish (the largest outside 1e-10 to 1e10), rows are scaled by a power of two, which is undone for the
//! metrics that see it; predictions take their logits as they are.
//!
//! # What is an error
//! A NaN or infinity anywhere; rows that do not pair up; too few rows; a representation for which
//! the metric is 0 / 0 ([`Error::Undefined`]). None of these ever comes back as a number.

mod aligned;
mod assignment;
mod axes;
mod best;
mod canonical;
mod cca;
mod centred;
mod cka;
mod correlations;
mod dynamics;
mod energy;
mod flatten;
mod groups;
mod gulp;
mod host;
mod hsic;
mod judgements;
mod kernel;
mod lanes;
mod lasso;
mod map;
mod metric;
mod middle;
mod minibatch;
mod neighbours;
mod noise_ceiling;
mod pairs;
mod pls;
mod predict;
mod predictions;
mod predictivity;
mod prepared;
mod procrustes;
mod products;
mod rank;
mod rbf;
mod regression;
mod relative;
mod rosetta;
mod rsa;
mod sampled;
mod shape;
mod sinkhorn;
mod spectral;
mod statistics;
mod stochastic;
mod stream;
mod subspace;
mod tiles;
mod topology;
mod translate;
mod transport;
mod uncertainty;
mod units;
mod universal;
mod whiten;

pub(crate) use assignment::assignment;

pub use aligned::{aligned_cosine, aligned_cosine_async, frechet_distance, frechet_distance_async};
pub use canonical::{
    cca, cca_async, cca_correlations, cca_correlations_async, pwcca, pwcca_async, svcca,
    svcca_async,
};
pub use cca::{Cca, Mean, Side, Summary};
pub use cka::{Estimator, linear_cka, linear_cka_async};
pub use correlations::{UnitCorrelations, UnitPair, unit_correlations, unit_correlations_async};
pub use dynamics::{Dmd, dsa_angle, dsa_wasserstein};
pub use energy::{energy_shape_distance, energy_shape_distance_async};
pub use flatten::{Flatten, UnknownFlatten};
pub use gulp::{gulp, gulp_async};
pub use hsic::{hsic, hsic_async};
pub use judgements::{
    Glocal, HumanAlignment, OddOneOut, odd_one_out_accuracy, odd_one_out_accuracy_async,
};
pub use kernel::{DistanceCorrelation, Ensd, Kernel};
pub use lasso::{SparsePrediction, sparse_prediction, sparse_prediction_async};
pub use map::{Map, mds};
pub use metric::{Change, Facts, Kind, Metric};
pub use minibatch::{minibatch_cka, minibatch_cka_async};
pub use neighbours::{
    Nearness, Neighbours, cknna, cknna_async, cycle_knn, cycle_knn_async, knn_jaccard,
    knn_jaccard_async, knn_rank, knn_rank_async, lcs_knn, lcs_knn_async, mutual_knn,
    mutual_knn_async, second_order_cosine, second_order_cosine_async,
};
pub use noise_ceiling::{median_of_ceiling, split_half, split_half_async};
pub use predict::{
    linear_r2, linear_r2_async, predictivity, predictivity_async, ridge_r2, ridge_r2_async,
};
pub use predictions::{
    InPca, Predictions, disagreement, disagreement_async, inpca, inpca_async, jsd, jsd_async,
    norm_difference, norm_difference_async,
};
pub use predictivity::{Goodness, Over, Predictivity};
pub use prepared::{Prepared, matrix, matrix_async};
pub use procrustes::{Procrustes, nbs, nbs_async, procrustes, procrustes_async};
pub use rbf::{Sigma, distance_correlation, distance_correlation_async, rbf_cka, rbf_cka_async};
pub use regression::{Mapping, Penalty};
pub use relative::{Join, Nearby, relative, relative_product, stitched};
pub use rosetta::{Rosetta, rosetta, rosetta_async, rosetta_of};
pub use rsa::{
    Bootstrap, Ceiling, Channels, Comparator, Crossvalidated, DualBootstrap, Folds, Norm, Rdm,
    Rdms, Resampled, Rsa, bootstrap_models, crossnobis, crossnobis_async, crossvalidate,
    dual_bootstrap, mahalanobis, mahalanobis_async, model_weights, noise_ceiling, rsa, rsa_async,
    rsm_norm_difference, rsm_norm_difference_async, shrunk_precision, shrunk_precision_async,
};
pub use shape::{NbsKernel, Shape};
pub use spectral::{CoClusters, co_clusters, co_clusters_async};
pub use statistics::{
    concentricity, concentricity_async, magnitude, magnitude_async, uniformity, uniformity_async,
};
pub use stochastic::{Fit, Gaussians, Group, Weights, stochastic_shape_distance};
pub use stream::{Streamed, StreamedMatrix};
pub use topology::{
    Bar, Curvature, EdgeLength, KnnGraph, Persistence, Topology, imd, imd_async, mst_divergence,
    mst_divergence_async, persistence, persistence_async, ricci, ricci_async, rtd, rtd_async,
};
pub use translate::{Alignment, align, align_async, precision_at_k, precision_at_k_async};
pub use uncertainty::{Baseline, Interval, Null, bootstrap, bootstrap_async, null, null_async};
pub use units::{
    Direction, PermutationScore, Soft, Units, matching, matching_async, permutation_shape,
    permutation_shape_async, semi_matching, semi_matching_async, soft_matching,
    soft_matching_async,
};
pub use universal::{Correlations, excess_correlation, universal_families};
pub use whiten::{Score, Whitening, shape_distance, shape_distance_async};

use crate::device;

/// Why two representations could not be compared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The two sides have different numbers of rows.
    #[error("rows must pair up: left is {left:?}, right is {right:?} ([rows, columns])")]
    RowsDiffer {
        /// Shape of one side.
        left: [usize; 2],
        /// Shape of the other.
        right: [usize; 2],
    },
    /// The metric compares column with column, and the two sides have different numbers of them.
    #[error("columns must pair up: left is {left:?}, right is {right:?} ([rows, columns])")]
    ColumnsDiffer {
        /// Shape of one side.
        left: [usize; 2],
        /// Shape of the other.
        right: [usize; 2],
    },
    /// The metric means nothing on so few rows.
    #[error("{metric} needs at least {needed} rows, got {rows}")]
    TooFewRows {
        /// The metric.
        metric: Metric,
        /// Rows given.
        rows: usize,
        /// Rows needed.
        needed: usize,
    },
    /// More rows than the metric can count.
    #[error("{metric} takes at most {most} rows, got {rows}")]
    TooManyRows {
        /// The metric.
        metric: Metric,
        /// Rows given.
        rows: usize,
        /// The limit.
        most: usize,
    },
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
    /// The metric has no value for this representation.
    #[error("the metric is undefined for this representation: {why}")]
    Undefined {
        /// The reason.
        why: &'static str,
    },
    /// One of several representations failed.
    #[error("{place} representation: {source}")]
    At {
        /// Which one: "left", "right", or with its place in a table, "left 3".
        place: String,
        /// What happened to it.
        source: Box<Error>,
    },
    /// A name or option that no metric has.
    #[error("unknown metric `{given}`; known: {}", Metric::names().collect::<Vec<_>>().join(", "))]
    UnknownMetric {
        /// The text as given.
        given: String,
    },
    /// The device failed.
    #[error(transparent)]
    Device(#[from] device::Error),
}

impl Error {
    /// Says which representation a failure belongs to.
    fn at(self, place: &str) -> Self {
        match self {
            Self::NotFinite { .. } | Self::Undefined { .. } => Self::At {
                place: place.to_owned(),
                source: Box::new(self),
            },
            other => other,
        }
    }
}
