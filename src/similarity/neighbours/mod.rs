//! Nearest neighbours: do the two representations agree on who is near whom?

mod cknna;
mod lists;
mod overlap;
mod second_order;
mod space;

pub use cknna::{cknna, cknna_async};
pub use overlap::{
    cycle_knn, cycle_knn_async, knn_jaccard, knn_jaccard_async, knn_rank, knn_rank_async, lcs_knn,
    lcs_knn_async, mutual_knn, mutual_knn_async,
};
pub use second_order::{second_order_cosine, second_order_cosine_async};

use std::fmt;

use burn::tensor::Tensor;

use super::metric::{Change, Facts, Family, Options};
use super::{Error, Estimator};
use cknna::Masked;
pub(super) use lists::Lists;
use second_order::Surroundings;

/// What makes a row near another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Nearness {
    /// Largest cosine. A row of zeros has cosine 0 with every row.
    Cosine,
    /// Largest inner product, as the function of Huh et al.'s code has it (its callers normalise first).
    Inner,
    /// Smallest Euclidean distance.
    Euclidean,
}

impl Nearness {
    const ALL: [(&'static str, Self); 3] = [
        ("cosine", Self::Cosine),
        ("inner", Self::Inner),
        ("euclidean", Self::Euclidean),
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::Inner => "inner",
            Self::Euclidean => "euclidean",
        }
    }
}

/// Metrics that compare the nearest neighbours of each row.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Neighbours {
    /// [`mutual_knn`](super::mutual_knn): `mutual_knn[k=10,by=cosine]`, also `by=inner`,
    /// `by=euclidean`.
    MutualKnn {
        /// Neighbours of each row, at least 1.
        k: usize,
        /// What makes a row near.
        by: Nearness,
    },
    /// [`knn_jaccard`](super::knn_jaccard): `knn_jaccard[k=10,by=cosine]`, also `by=inner`,
    /// `by=euclidean`.
    KnnJaccard {
        /// Neighbours of each row, at least 1.
        k: usize,
        /// What makes a row near.
        by: Nearness,
    },
    /// [`knn_rank`](super::knn_rank): `knn_rank[k=10]`.
    KnnRank {
        /// Neighbours of each row, at least 1.
        k: usize,
    },
    /// [`cycle_knn`](super::cycle_knn): `cycle_knn[k=10]`.
    CycleKnn {
        /// Neighbours of each row, at least 1.
        k: usize,
    },
    /// [`lcs_knn`](super::lcs_knn): `lcs_knn[k=10]`.
    LcsKnn {
        /// Neighbours of each row, at least 1.
        k: usize,
    },
    /// [`second_order_cosine`](super::second_order_cosine): `second_order_cosine[k=10]`.
    SecondOrderCosine {
        /// Neighbours of each row, at least 1.
        k: usize,
    },
    /// [`cknna`](super::cknna): `cknna[unbiased,k=10,eps=0]`, also `biased`.
    Cknna {
        /// Neighbours of each row, at least 1.
        k: usize,
        /// The estimator of HSIC.
        estimator: Estimator,
        /// Added to the denominator, outside the root; 1e-6 in Huh et al.'s code.
        eps: f64,
    },
}

/// What a metric of neighbours keeps of one representation.
#[derive(Clone, Debug)]
pub(super) enum Kept {
    Lists(Lists),
    Surroundings(Box<Surroundings>),
    Masked(Box<Masked>),
}

const ESTIMATORS: [(&str, Estimator); 3] = [
    ("unbiased", Estimator::Unbiased),
    ("debiased", Estimator::Unbiased),
    ("biased", Estimator::Biased),
];

impl Neighbours {
    fn k(self) -> usize {
        match self {
            Self::MutualKnn { k, .. }
            | Self::KnnJaccard { k, .. }
            | Self::KnnRank { k }
            | Self::CycleKnn { k }
            | Self::LcsKnn { k }
            | Self::SecondOrderCosine { k }
            | Self::Cknna { k, .. } => k,
        }
    }

    fn by(self) -> Nearness {
        match self {
            Self::MutualKnn { by, .. } | Self::KnnJaccard { by, .. } => by,
            _ => Nearness::Cosine,
        }
    }

    /// The value of a representation and itself.
    fn same(self) -> Option<f64> {
        match self {
            Self::LcsKnn { k } => Some(k as f64),
            Self::CycleKnn { .. } => None,
            Self::Cknna { eps, .. } if eps > 0.0 => None,
            _ => Some(1.0),
        }
    }
}

impl Family for Neighbours {
    const NAMES: &'static [&'static str] = &[
        "mutual_knn[k=10,by=cosine]",
        "knn_jaccard[k=10,by=cosine]",
        "knn_rank[k=10]",
        "cycle_knn[k=10]",
        "lcs_knn[k=10]",
        "second_order_cosine[k=10]",
        "cknna[unbiased,k=10,eps=0]",
    ];
    type Kept = Kept;

    fn parse(name: &str, options: &mut Options<'_>) -> Option<Self> {
        let k = options.number("k", 10, |&k| k > 0)?;
        Some(match name {
            "mutual_knn" => Self::MutualKnn {
                k,
                by: options.choose("by", &Nearness::ALL)?,
            },
            "knn_jaccard" => Self::KnnJaccard {
                k,
                by: options.choose("by", &Nearness::ALL)?,
            },
            "knn_rank" => Self::KnnRank { k },
            "cycle_knn" => Self::CycleKnn { k },
            "lcs_knn" => Self::LcsKnn { k },
            "second_order_cosine" => Self::SecondOrderCosine { k },
            "cknna" => Self::Cknna {
                k,
                estimator: options.word(&ESTIMATORS),
                eps: options.number("eps", 0.0, |&eps| is_addend(eps))?,
            },
            _ => return None,
        })
    }

    fn facts(self) -> Facts {
        use Change::{Rotation, RowScale, Scale, Shift};
        let blind_to: &[Change] = match self.by() {
            Nearness::Cosine => &[Rotation, Scale, RowScale],
            Nearness::Inner => &[Rotation, Scale],
            Nearness::Euclidean => &[Rotation, Scale, Shift],
        };
        let fewest = match self {
            Self::Cknna { k, .. } => k.saturating_add(2).max(4),
            other => other.k().saturating_add(2),
        };
        let unbiased = Estimator::Unbiased;
        let one_way = matches!(self, Self::Cknna { estimator, .. } if estimator == unbiased);
        Facts {
            symmetric: !one_way && !matches!(self, Self::CycleKnn { .. }),
            same: self.same(),
            most_rows: Some(u32::MAX as usize),
            ..Facts::similarity(blind_to, fewest)
        }
    }

    fn is_valid(self) -> bool {
        let eps = match self {
            Self::Cknna { eps, .. } => eps,
            _ => 0.0,
        };
        self.k() > 0 && is_addend(eps)
    }

    async fn prepare(self, x: &Tensor<2>) -> Result<Kept, Error> {
        Ok(match self {
            Self::SecondOrderCosine { k } => {
                Kept::Surroundings(Box::new(Surroundings::prepare(x, k).await?))
            }
            Self::Cknna { k, estimator, .. } => {
                Kept::Masked(Box::new(Masked::prepare(x, k, estimator).await?))
            }
            _ => Kept::Lists(Lists::prepare(x, self.k(), self.by()).await?),
        })
    }

    async fn compare(self, a: &Kept, b: &Kept) -> Result<f64, Error> {
        Ok(match (self, a, b) {
            (Self::Cknna { estimator, eps, .. }, Kept::Masked(a), Kept::Masked(b)) => {
                a.compare(b, estimator, eps)
            }
            (_, Kept::Surroundings(a), Kept::Surroundings(b)) => a.compare(b),
            (_, Kept::Lists(a), Kept::Lists(b)) => match self {
                Self::KnnJaccard { .. } => a.jaccard(b),
                Self::KnnRank { .. } => a.ranks(b),
                Self::CycleKnn { .. } => a.cycles(b),
                Self::LcsKnn { .. } => a.subsequence(b),
                _ => a.overlap(b),
            },
            _ => unreachable!("the kind kept follows from the metric"),
        })
    }

    fn reordered(kept: &Kept, order: &[usize]) -> Option<Kept> {
        Some(match kept {
            Kept::Lists(lists) => Kept::Lists(lists.reordered(order)),
            Kept::Surroundings(kept) => Kept::Surroundings(Box::new(kept.reordered(order))),
            Kept::Masked(kept) => Kept::Masked(Box::new(kept.reordered(order))),
        })
    }
}

/// Whether this can be added to a denominator.
fn is_addend(eps: f64) -> bool {
    eps >= 0.0 && eps.is_finite()
}

impl fmt::Display for Neighbours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = self.by().name();
        match self {
            Self::MutualKnn { k, .. } => write!(f, "mutual_knn[k={k},by={by}]"),
            Self::KnnJaccard { k, .. } => write!(f, "knn_jaccard[k={k},by={by}]"),
            Self::KnnRank { k } => write!(f, "knn_rank[k={k}]"),
            Self::CycleKnn { k } => write!(f, "cycle_knn[k={k}]"),
            Self::LcsKnn { k } => write!(f, "lcs_knn[k={k}]"),
            Self::SecondOrderCosine { k } => write!(f, "second_order_cosine[k={k}]"),
            Self::Cknna { k, estimator, eps } => {
                let estimator = match estimator {
                    Estimator::Unbiased => "unbiased",
                    Estimator::Biased => "biased",
                };
                write!(f, "cknna[{estimator},k={k},eps={eps}]")
            }
        }
    }
}
