//! Mutual nearest neighbours: do the two representations agree on who is near whom?

use std::fmt;

use burn::tensor::{DType, Tensor};

use super::best::{Best, offer_columns, offer_rows};
use super::groups::Groups;
use super::host::{Real, Rows, beside, chunks_mut, sum, sum_range, working};
use super::metric::{Change, Facts, Family, Options};
use super::tiles::{tile, tiles};
use super::{Error, Prepared};
use crate::device::{self, block_on};

/// Candidates kept beyond `k`, from which near ties are settled in f64.
const SPARE: usize = 8;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
}

impl Family for Neighbours {
    const NAMES: &'static [&'static str] = &["mutual_knn[k=10,by=cosine]"];
    type Kept = Lists;

    fn parse(name: &str, options: &mut Options<'_>) -> Option<Self> {
        match name {
            "mutual_knn" => Some(Self::MutualKnn {
                k: options.number("k", 10, |&k| k > 0)?,
                by: options.choose("by", &Nearness::ALL)?,
            }),
            _ => None,
        }
    }

    fn facts(self) -> Facts {
        use Change::{Rotation, RowScale, Scale, Shift};
        let Self::MutualKnn { k, by } = self;
        let blind_to: &[Change] = match by {
            Nearness::Cosine => &[Rotation, Scale, RowScale],
            Nearness::Inner => &[Rotation, Scale],
            Nearness::Euclidean => &[Rotation, Scale, Shift],
        };
        Facts {
            most_rows: Some(u32::MAX as usize),
            ..Facts::similarity(blind_to, k.saturating_add(2))
        }
    }

    fn is_valid(self) -> bool {
        let Self::MutualKnn { k, .. } = self;
        k > 0
    }

    async fn prepare(self, x: &Tensor<2>) -> Result<Lists, Error> {
        let Self::MutualKnn { k, by } = self;
        Lists::prepare(x, k, by).await
    }

    async fn compare(self, a: &Lists, b: &Lists) -> Result<f64, Error> {
        Ok(a.compare(b))
    }
}

impl fmt::Display for Neighbours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MutualKnn { k, by } => write!(f, "mutual_knn[k={k},by={}]", by.name()),
        }
    }
}

/// Mean share of the `k` nearest neighbours of each row that two representations have in common.
///
/// `x` is `[n, dx]`, `y` is `[n, dy]`; the result lies in [0, 1], and is about `k / (n - 1)` for
/// unrelated data. A row is not its own neighbour. Of rows equally near, the one with the lower
/// index comes first, so duplicated rows are handled the same on every device. Unchanged by
/// rotation and scale; by a shift only with [`Nearness::Euclidean`].
///
/// # Errors
/// Different row counts; `k` of 0 or fewer than `k + 2` rows; a NaN or infinity; no columns
/// ([`Error::Undefined`]); the device failing.
///
/// # Cost
/// `n² (dx + dy) / 2` multiply-adds: each tile of products serves its rows and its columns. Memory
/// per side: a normalised copy on the device, a copy on the host while the lists are made, one
/// 16 MiB tile, 16 bytes for each of the `k + 8` candidates of a row; afterwards `4 n k` bytes.
///
/// # Source
/// Huh et al. 2024, "The Platonic Representation Hypothesis", appendix A. Deviations: nothing is
/// clamped beforehand; candidates whose order f32 rounding could have changed (by the bound
/// `2 d ε |xᵢ| |xⱼ|`) are ordered again in f64, for Euclidean distances from the differences. Equal
/// rows are compared once and share the result, however many they are. More than 8 *unequal* rows
/// that near to the k-th are settled by the device's rounding.
///
/// # Example
/// ```
/// use inscape::{Device, similarity::{Nearness, mutual_knn}};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::from_data([[0., 1.], [0., 2.], [9., 0.], [7., 0.]], cpu.tensor());
/// let y = Tensor::<2>::from_data([[1., 0.], [3., 0.], [0., 4.], [0., 5.]], cpu.tensor());
/// assert_eq!(mutual_knn(&x, &y, 1, Nearness::Euclidean)?, 1.0);
/// # Ok(())
/// # }
/// ```
pub fn mutual_knn(x: &Tensor<2>, y: &Tensor<2>, k: usize, by: Nearness) -> Result<f64, Error> {
    block_on(mutual_knn_async(x, y, k, by))
}

/// [`mutual_knn`] without blocking.
///
/// # Errors
/// As [`mutual_knn`].
pub async fn mutual_knn_async(
    x: &Tensor<2>,
    y: &Tensor<2>,
    k: usize,
    by: Nearness,
) -> Result<f64, Error> {
    Prepared::pair(x, y, Neighbours::MutualKnn { k, by }).await
}

/// What mutual kNN keeps of one representation.
#[derive(Clone, Debug)]
pub(super) struct Lists {
    k: usize,
    /// The `k` neighbours of each row, `[n, k]`, each list in ascending order.
    neighbours: Vec<u32>,
}

impl Lists {
    pub(super) async fn prepare(x: &Tensor<2>, k: usize, by: Nearness) -> Result<Self, Error> {
        let neighbours = match x.dtype() {
            DType::F64 => neighbours::<f64>(x, k, by).await?,
            _ => neighbours::<f32>(&working(x), k, by).await?,
        };
        Ok(Self { k, neighbours })
    }

    /// The lists one after another, `[n, k]`, each ascending.
    pub(super) fn neighbours(&self) -> &[u32] {
        &self.neighbours
    }

    pub(super) fn compare(&self, other: &Self) -> f64 {
        let k = self.k;
        let rows = self.neighbours.len() / k;
        let row = |i: usize| i * k..(i + 1) * k;
        let common = |i: usize| common(&self.neighbours[row(i)], &other.neighbours[row(i)]) as f64;
        sum(rows, common) / (rows * k) as f64
    }
}

/// How many values two ascending lists share.
pub(super) fn common(a: &[u32], b: &[u32]) -> usize {
    let (mut i, mut j, mut found) = (0, 0, 0);
    while i < a.len() && j < b.len() {
        found += usize::from(a[i] == b[j]);
        let (left, right) = (a[i], b[j]);
        i += usize::from(left <= right);
        j += usize::from(right <= left);
    }
    found
}

async fn neighbours<T: Real>(x: &Tensor<2>, k: usize, by: Nearness) -> Result<Vec<u32>, Error> {
    let (x, rows) = Rows::<T>::read(x.clone()).await?;
    let groups = Groups::new(&rows);
    let space = Space::new(groups.distinct(x), groups.distinct_rows(rows), by);
    let best = space.candidates(k + SPARE).await?;
    let mut lists = vec![0; groups.of.len() * k];
    chunks_mut(&mut lists, k, |i, list| {
        space.settle(i, &groups, &best, list)
    });
    Ok(lists)
}

/// A representation of distinct rows made ready for one kind of nearness.
struct Space<T> {
    by: Nearness,
    /// Rows whose products are taken, on the device: normalised (cosine) or centred (Euclidean).
    z: Tensor<2>,
    /// The rows as they came, for settling near ties.
    rows: Rows<T>,
    /// Cosine: one over the length of each row. Euclidean: squared length of the centred rows.
    weight: Vec<f64>,
    /// Length of the longest row of `z`.
    longest: f64,
}

impl<T: Real> Space<T> {
    fn new(x: Tensor<2>, rows: Rows<T>, by: Nearness) -> Self {
        let (n, d) = (rows.n, rows.d);
        let mean = match by {
            Nearness::Euclidean => rows.column_means(),
            _ => vec![T::default(); d],
        };
        let squares = rows.map(|row| {
            let centred = |j: usize| (row[j] - mean[j]).wide();
            sum_range(0..d, |j| centred(j) * centred(j))
        });
        let longest = squares.iter().fold(0.0f64, |m, &s| m.max(s)).sqrt();
        let inverse = |&s: &f64| if s > 0.0 { s.sqrt().recip() } else { 0.0 };
        let (z, weight, longest) = match by {
            Nearness::Inner => (x, squares, longest),
            Nearness::Euclidean => (x.clone() - beside(mean, [1, d], &x), squares, longest),
            Nearness::Cosine => {
                let weight: Vec<f64> = squares.iter().map(inverse).collect();
                let column = weight.iter().map(|&w| T::rounded(w)).collect();
                (x.clone() * beside::<T>(column, [n, 1], &x), weight, 1.0)
            }
        };
        Self {
            by,
            z,
            rows,
            weight,
            longest,
        }
    }

    /// The `keep` nearest of each row by the device's products, tile by tile. A tile reaches from
    /// the diagonal to the last column; its columns right of the square on the diagonal serve the
    /// rows they stand for. Every row meets its candidates in ascending order.
    async fn candidates(&self, keep: usize) -> Result<Vec<Best<T>>, device::Error> {
        let n = self.rows.n;
        let mut best: Vec<Best<T>> = (0..n).map(|_| Best::new(keep)).collect();
        let squares: Vec<T> = self.weight.iter().map(|&w| T::rounded(w)).collect();
        for r in tiles(n) {
            let mut values = device::read::<T, 2>(tile(&self.z, &r)).await?;
            if self.by == Nearness::Euclidean {
                to_distances(&mut values, &squares[r.start..]);
            }
            let (above, below) = best[r.start..].split_at_mut(r.len());
            offer_rows(above, &values, r.start);
            offer_columns(below, &values, r);
        }
        Ok(best)
    }

    /// The `list.len()` nearest of row `i`, in ascending order. The device's order is taken where
    /// rounding cannot have changed which are nearest and no row concerned has an equal.
    fn settle(&self, i: usize, groups: &Groups, best: &[Best<T>], list: &mut [u32]) {
        let (k, own) = (list.len(), groups.of[i]);
        let found = best[own as usize].entries();
        let clear = groups.is_single(own)
            && found.len() > k
            && found[k - 1].0.wide() - found[k].0.wide() > self.rounding()
            && found[..k].iter().all(|f| groups.is_single(f.1));
        if clear {
            list.iter_mut()
                .zip(found)
                .for_each(|(l, f)| *l = groups.members[f.1 as usize][0]);
        } else {
            let near = found.iter().map(|f| f.1).chain([own]);
            let mut exact: Vec<(f64, u32)> = near
                .map(|g| (self.exact(own as usize, g as usize), g))
                .flat_map(|(score, g)| groups.members[g as usize].iter().map(move |&j| (score, j)))
                .filter(|&(_, j)| j as usize != i)
                .collect();
            exact.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            list.iter_mut().zip(exact).for_each(|(l, f)| *l = f.1);
        }
        list.sort_unstable();
    }

    /// A bound on how far two of the device's values can be moved against each other by rounding.
    fn rounding(&self) -> f64 {
        let terms = match self.by {
            Nearness::Euclidean => 2 * self.rows.d + 6,
            _ => self.rows.d + 4,
        };
        2.0 * terms as f64 * T::EPSILON * self.longest * self.longest
    }

    /// Nearness of rows `i` and `j` in f64, up to a factor that depends on `i` alone.
    fn exact(&self, i: usize, j: usize) -> f64 {
        let (a, b) = (self.rows.row(i), self.rows.row(j));
        let product = |c: usize| a[c].wide() * b[c].wide();
        let square = |c: usize| (a[c].wide() - b[c].wide()).powi(2);
        match self.by {
            Nearness::Cosine => sum_range(0..a.len(), product) * self.weight[j],
            Nearness::Inner => sum_range(0..a.len(), product),
            Nearness::Euclidean => -sum_range(0..a.len(), square),
        }
    }
}

/// A tile of products turned into negative squared distances, given the squared lengths from the
/// tile's first row on.
fn to_distances<T: Real>(tile: &mut [T], squares: &[T]) {
    chunks_mut(tile, squares.len(), |i, row| {
        for (v, &square) in row.iter_mut().zip(squares) {
            *v = *v + *v - square - squares[i];
        }
    });
}
