//! Shape that survives stretching: loops and components, how heat spreads, and how the graph of
//! nearest neighbours curves.

mod curvature;
mod distances;
mod divergence;
mod graph;
mod heat;
mod persistence;
mod transport;

use std::fmt;

use burn::tensor::Tensor;

use super::axes::wide_rows;
use super::host::{dot, sum};
use super::metric::{Change, Facts, Family, Options};
use super::{Error, Prepared};
use crate::device::block_on;
use distances::{Distances, draws};

pub use graph::{EdgeLength, KnnGraph};
pub use persistence::{Bar, Persistence, persistence, persistence_async};

/// Metrics of the topology of the rows and of the graph of their nearest neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Topology {
    /// [`rtd`]: `rtd[points=500,trials=10]`.
    Rtd {
        /// Rows of a draw, 3 to 32,768.
        points: usize,
        /// Draws, at least 1; one of all rows if there are no more than `points`.
        trials: usize,
    },
    /// [`mst_divergence`]: `mst_divergence[points=500,trials=10]`.
    MstDivergence {
        /// Rows of a draw, 3 to 32,768.
        points: usize,
        /// Draws, at least 1; one of all rows if there are no more than `points`.
        trials: usize,
    },
    /// [`imd`]: `imd[k=5]`.
    Imd {
        /// Neighbours each row is joined to, at least 1.
        k: usize,
    },
    /// [`ricci`]: `ricci[kind=ollivier,k=10]`, also `kind=forman`.
    Ricci {
        /// Which curvature.
        kind: Curvature,
        /// Neighbours each row is joined to, at least 1.
        k: usize,
    },
}

/// A curvature of the edges of a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Curvature {
    /// [`KnnGraph::ollivier_ricci`] with half of the mass staying.
    Ollivier,
    /// [`KnnGraph::augmented_forman_ricci`].
    Forman,
}

/// Share of the mass that stays on a row.
const STAY: f64 = 0.5;

impl Family for Topology {
    const NAMES: &'static [&'static str] = &[
        "rtd[points=500,trials=10]",
        "mst_divergence[points=500,trials=10]",
        "imd[k=5]",
        "ricci[kind=ollivier,k=10]",
    ];

    type Kept = Kept;

    fn parse(name: &str, options: &mut Options<'_>) -> Option<Self> {
        let metric = match name {
            "rtd" | "mst_divergence" => {
                let points = options.number("points", 500, |_| true)?;
                let trials = options.number("trials", 10, |_| true)?;
                match name {
                    "rtd" => Self::Rtd { points, trials },
                    _ => Self::MstDivergence { points, trials },
                }
            }
            "imd" => Self::Imd {
                k: options.number("k", 5, |_| true)?,
            },
            "ricci" => Self::Ricci {
                kind: options.choose(
                    "kind",
                    &[
                        ("ollivier", Curvature::Ollivier),
                        ("forman", Curvature::Forman),
                    ],
                )?,
                k: options.number("k", 10, |_| true)?,
            },
            _ => return None,
        };
        metric.is_valid().then_some(metric)
    }

    fn facts(self) -> Facts {
        const BLIND: &[Change] = &[
            Change::Permutation,
            Change::Rotation,
            Change::Scale,
            Change::Shift,
        ];
        match self {
            Self::Rtd { .. } | Self::MstDivergence { .. } => Facts::distance(BLIND, 3),
            Self::Imd { k } => Facts {
                most_rows: Some(u32::MAX as usize),
                pairs_rows: false,
                ..Facts::distance(BLIND, k.saturating_add(2))
            },
            Self::Ricci { k, .. } => Facts {
                most_rows: Some(u32::MAX as usize),
                ..Facts::similarity(BLIND, k.saturating_add(2))
            },
        }
    }

    fn is_valid(self) -> bool {
        match self {
            Self::Rtd { points, trials } | Self::MstDivergence { points, trials } => {
                (3..=persistence::MOST_POINTS / 2).contains(&points) && trials > 0
            }
            Self::Imd { k } | Self::Ricci { k, .. } => k > 0,
        }
    }

    async fn prepare(self, x: &Tensor<2>) -> Result<Kept, Error> {
        match self {
            Self::Rtd { points, trials } | Self::MstDivergence { points, trials } => {
                let rows = wide_rows(x).await?;
                let draws = draws(rows.n, points, trials).into_iter();
                let normalised = draws.map(|draw| Distances::new(&rows, &draw).normalised());
                Ok(Kept::Distances(normalised.collect::<Result<_, _>>()?))
            }
            Self::Imd { k } => {
                let graph = KnnGraph::new_async(x, k, EdgeLength::Hop).await?;
                Ok(Kept::Heat(heat::trace(&graph)))
            }
            Self::Ricci { kind, k } => {
                let graph = KnnGraph::new_async(x, k, EdgeLength::Hop).await?;
                let of_edges = match kind {
                    Curvature::Ollivier => graph.ollivier_ricci(STAY)?,
                    Curvature::Forman => graph.augmented_forman_ricci(),
                };
                Ok(Kept::Curvature(standardised(
                    graph.mean_at_rows(&of_edges),
                )?))
            }
        }
    }

    async fn compare(self, a: &Kept, b: &Kept) -> Result<f64, Error> {
        Ok(match (self, a, b) {
            (Self::Rtd { .. }, Kept::Distances(a), Kept::Distances(b)) => {
                divergence::symmetric(a, b, divergence::rtd)
            }
            (Self::MstDivergence { .. }, Kept::Distances(a), Kept::Distances(b)) => {
                divergence::symmetric(a, b, divergence::mst)
            }
            (_, Kept::Heat(a), Kept::Heat(b)) => heat::distance(a, b),
            (_, Kept::Curvature(a), Kept::Curvature(b)) => dot(a, b),
            _ => unreachable!("the kind kept follows from the metric"),
        })
    }

    /// The heat trace does not depend on the order; draws of some of the rows are other draws.
    fn reordered(kept: &Kept, order: &[usize]) -> Option<Kept> {
        match kept {
            Kept::Distances(draws) => match &draws[..] {
                [all] if all.n == order.len() => Some(Kept::Distances(vec![all.reordered(order)])),
                _ => None,
            },
            Kept::Heat(trace) => Some(Kept::Heat(trace.clone())),
            Kept::Curvature(at_rows) => {
                Some(Kept::Curvature(order.iter().map(|&i| at_rows[i]).collect()))
            }
        }
    }
}

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rtd { points, trials } => write!(f, "rtd[points={points},trials={trials}]"),
            Self::MstDivergence { points, trials } => {
                write!(f, "mst_divergence[points={points},trials={trials}]")
            }
            Self::Imd { k } => write!(f, "imd[k={k}]"),
            Self::Ricci { kind, k } => {
                let kind = match kind {
                    Curvature::Ollivier => "ollivier",
                    Curvature::Forman => "forman",
                };
                write!(f, "ricci[kind={kind},k={k}]")
            }
        }
    }
}

/// What a metric of this family keeps of one representation.
#[derive(Clone, Debug)]
pub(super) enum Kept {
    /// Distances of the rows of each draw.
    Distances(Vec<Distances>),
    /// A heat trace.
    Heat(Vec<f64>),
    /// The curvature at each row about its mean, with length 1.
    Curvature(Vec<f64>),
}

/// Curvature about its mean, with length 1.
fn standardised(mut at_rows: Vec<f64>) -> Result<Vec<f64>, Error> {
    let n = at_rows.len();
    let mean = sum(n, |i| at_rows[i]) / n as f64;
    let spread = sum(n, |i| (at_rows[i] - mean).powi(2)).sqrt();
    // Curvatures are sums of a few numbers of size 1: what is below this is their rounding.
    if spread <= 1e-10 * (n as f64).sqrt() {
        return Err(Error::Undefined {
            why: "its graph of nearest neighbours curves the same at every row",
        });
    }
    at_rows.iter_mut().for_each(|c| *c = (*c - mean) / spread);
    Ok(at_rows)
}

/// Representation topology divergence: how much longer loops and gaps last in one cloud of rows than in
/// what the two have in common.
///
/// `x` is `[n, dx]`, `y` is `[n, dy]`; 0 if all distances agree up to one scale, and larger the less
/// they do, without a bound. It grows with the number of rows: compare values of the same `points`.
/// Distances are divided by their 0.9 quantile. The R-cross-barcode of `x` to `y` is that of the
/// Vietoris-Rips filtration of the `2 n` points with distances `[[0, X], [X, min(X, Y)]]`; the value is
/// the sum of its bars in dimension 1, averaged over both directions and over `trials` draws of
/// `points` rows, always the same ones (all rows, once, if there are no more). Unchanged by rotation,
/// scale and shift of either side.
///
/// # Errors
/// Different row counts; fewer than 3 rows; `points` outside 3 to 32,768 or no `trials`
/// ([`Error::UnknownMetric`]); a NaN or infinity; nine in ten distances of 0
/// ([`Error::Undefined`]); the device failing.
///
/// # Cost
/// All on the host, in f64. Per draw of `p` points and side, `p² d / 2` multiply-adds; per draw and
/// direction [`persistence`] of `2 p` points, the draws in parallel. Memory: `4 p²` bytes a draw and side
/// kept, `64 p²` for each draw at work.
///
/// # Source
/// Barannikov, Trofimov, Balabin & Burnaev 2022, "Representation Topology Divergence", algorithm 1
/// and 2, with the smaller matrix of their code. Ours draws by a fixed seed. As in their code,
/// distances below 1e-6 of the mean are 0.
///
/// # Example
/// ```
/// use inscape::{Device, similarity::rtd};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let square = Tensor::<2>::from_data([[0., 0.], [1., 0.], [1., 1.], [0., 1.]], cpu.tensor());
/// let line = Tensor::<2>::from_data([[0.], [1.], [2.], [3.]], cpu.tensor());
/// assert!(rtd(&square, &(square.clone() * 3.0), 500, 10)? < 1e-12);
/// assert!(rtd(&square, &line, 500, 10)? > 0.1);
/// # Ok(())
/// # }
/// ```
pub fn rtd(x: &Tensor<2>, y: &Tensor<2>, points: usize, trials: usize) -> Result<f64, Error> {
    block_on(rtd_async(x, y, points, trials))
}

/// [`rtd`] without blocking.
///
/// # Errors
/// As [`rtd`].
pub async fn rtd_async(
    x: &Tensor<2>,
    y: &Tensor<2>,
    points: usize,
    trials: usize,
) -> Result<f64, Error> {
    Prepared::pair(x, y, Topology::Rtd { points, trials }).await
}

/// The part of [`rtd`] that sees components only: by how much the minimum spanning tree of one side is
/// longer than that of the smaller of the two distances.
///
/// `x` is `[n, dx]`, `y` is `[n, dy]`; 0 if all distances agree up to one scale, without a bound.
/// Distances, directions and draws are those of [`rtd`].
///
/// # Errors
/// As [`rtd`].
///
/// # Cost
/// All on the host, in f64: per draw of `p` points, `p² d / 2` multiply-adds a side and `O(p²)` for
/// each of four trees. Memory: `4 p²` bytes a draw and side.
///
/// # Source
/// The sum of the bars in dimension 0 of the R-cross-barcode of Barannikov et al. 2022; RTD-Lite of
/// Tulchinskii et al. 2025 is built on the same trees.
///
/// # Example
/// ```
/// use inscape::{Device, similarity::mst_divergence};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::from_data([[0.], [1.], [2.]], cpu.tensor());
/// let y = Tensor::<2>::from_data([[0.], [2.], [1.]], cpu.tensor());
/// // Both trees have two edges of 1 and so have the smaller distances, before normalisation.
/// assert!(mst_divergence(&x, &y, 500, 10)?.abs() < 1e-12);
/// # Ok(())
/// # }
/// ```
pub fn mst_divergence(
    x: &Tensor<2>,
    y: &Tensor<2>,
    points: usize,
    trials: usize,
) -> Result<f64, Error> {
    block_on(mst_divergence_async(x, y, points, trials))
}

/// [`mst_divergence`] without blocking.
///
/// # Errors
/// As [`mst_divergence`].
pub async fn mst_divergence_async(
    x: &Tensor<2>,
    y: &Tensor<2>,
    points: usize,
    trials: usize,
) -> Result<f64, Error> {
    Prepared::pair(x, y, Topology::MstDivergence { points, trials }).await
}

/// Intrinsic multi-scale distance (IMD): how differently heat spreads over the two graphs of nearest
/// neighbours.
///
/// `x` is `[n, dx]`, `y` is `[n, dy]`; the result is `10⁶ max_t exp(-2 (t + 1 / t)) |hx(t) - hy(t)|`, at
/// least 0, where `h(t)` is the mean of `exp(-t λ)` over the eigenvalues `λ` of the normalised
/// Laplacian of the graph that joins each row to its `k` nearest ([`KnnGraph`]), at 256 times from 0.1 to
/// 10. Unchanged by rotation, scale and shift of either side, and, unlike other metrics here, by
/// another order of the rows of one side: only the shape of the clouds is compared.
///
/// # Errors
/// Different row counts; `k` of 0 ([`Error::UnknownMetric`]) or fewer than `k + 2` rows; a NaN or
/// infinity; the device failing.
///
/// # Cost
/// The neighbour lists of [`mutual_knn`](super::mutual_knn()), then on the host in f64 16 products with
/// the graph: of every row up to 8,192 rows, `O(n² k)`; beyond that of 256 vectors of random signs,
/// always the same, `O(n k)` each. Memory: a few hundred `n` bytes a thread.
///
/// # Source
/// Tsitsulin et al. 2020, "The Shape of Data: Intrinsic Distance for Data Distributions", equation 5. Their
/// code estimates the trace by stochastic Lanczos quadrature of 10 steps at any size, which is 4 % off for
/// 40 rows. Ours expands `exp(-t λ)` in 32 Chebyshev polynomials, which leaves out less than rounding: up to
/// 8,192 rows it is exact, beyond that its only error is that of the signs, which both sides share.
///
/// # Example
/// ```
/// use inscape::{Device, similarity::imd};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let line = Tensor::<2>::from_data([[0.], [1.], [2.1], [3.3], [4.6]], cpu.tensor());
/// let star = Tensor::<2>::from_data([[0., 0.], [1., 0.], [-1.1, 0.], [0., 1.2], [0., -1.3]], cpu.tensor());
/// assert_eq!(imd(&line, &(line.clone() * 2.0), 1)?, 0.0);
/// assert!(imd(&line, &star, 1)? > 100.0);
/// # Ok(())
/// # }
/// ```
pub fn imd(x: &Tensor<2>, y: &Tensor<2>, k: usize) -> Result<f64, Error> {
    block_on(imd_async(x, y, k))
}

/// [`imd`] without blocking.
///
/// # Errors
/// As [`imd`].
pub async fn imd_async(x: &Tensor<2>, y: &Tensor<2>, k: usize) -> Result<f64, Error> {
    Prepared::pair(x, y, Topology::Imd { k }).await
}

/// Alignment by curvature: Pearson's correlation, over the rows, of the curvature of the two graphs of
/// nearest neighbours.
///
/// `x` is `[n, dx]`, `y` is `[n, dy]`; the result lies in [-1, 1]. Each side has its own graph
/// ([`KnnGraph`], edges of one hop); the curvature at a row is the mean over the edges that meet there.
/// High where rows that lie inside a cluster on one side do so on the other. Unchanged by rotation,
/// scale and shift of either side.
///
/// # Errors
/// Different row counts; `k` of 0 ([`Error::UnknownMetric`]) or fewer than `k + 2` rows; a NaN or
/// infinity; a side that curves the same at every row ([`Error::Undefined`]); the device failing.
///
/// # Cost
/// The neighbour lists of [`mutual_knn`](super::mutual_knn()), then the edges' curvature:
/// [`KnnGraph::ollivier_ricci`], or a small part of that for [`KnnGraph::augmented_forman_ricci`].
///
/// # Source
/// Torbati, Gaebler, Hofmann & Scherf 2025, "Exploring Geometric Representational Alignment through
/// Ollivier-Ricci Curvature and Ricci Flow", compare the distributions of the curvature of nodes and
/// edges. Ours is one number that also asks whether the curved rows are the same, and needs no edge to
/// be in both graphs. The curvature of a node is that of Ni et al. 2019.
///
/// # Example
/// ```
/// use inscape::{Device, similarity::{Curvature, ricci}};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// // A tight group of three with a tail.
/// let x = Tensor::<2>::from_data([[0.], [1.], [2.], [4.], [8.], [16.], [32.]], cpu.tensor());
/// let y = x.clone().log1p();
/// assert!(ricci(&x, &(x.clone() * 2.0), Curvature::Ollivier, 2)? > 0.999);
/// assert!(ricci(&x, &y, Curvature::Ollivier, 2)? < 0.999);
/// # Ok(())
/// # }
/// ```
pub fn ricci(x: &Tensor<2>, y: &Tensor<2>, kind: Curvature, k: usize) -> Result<f64, Error> {
    block_on(ricci_async(x, y, kind, k))
}

/// [`ricci`] without blocking.
///
/// # Errors
/// As [`ricci`].
pub async fn ricci_async(
    x: &Tensor<2>,
    y: &Tensor<2>,
    kind: Curvature,
    k: usize,
) -> Result<f64, Error> {
    Prepared::pair(x, y, Topology::Ricci { kind, k }).await
}
