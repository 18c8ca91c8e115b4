//! Dissimilarity matrices of several subjects, or of several models, of the same conditions.

use burn::tensor::{DType, Tensor};
use faer::Mat;

use super::super::Error;
use super::super::host::{Values, map_chunks, sum_range, working};
use super::super::rank::Ranked;
use super::compare::{Chosen, Comparator, Side};
use super::rdm::{Distinct, Rdm, scale};
use super::topological;
use super::whitened::Whitening;
use crate::device::block_on;

/// Whether what columns add up to is their sum or their mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Channels {
    /// The sum, so that more channels are farther apart.
    Sum,
    /// The mean, as rsatoolbox has it.
    Mean,
}

impl Channels {
    /// What a sum over `d` channels is multiplied with.
    pub(super) fn share(self, d: usize) -> f64 {
        match self {
            Self::Sum => 1.0,
            Self::Mean => 1.0 / d as f64,
        }
    }
}

/// Dissimilarity matrices of the same conditions in f64, of each the upper triangle: the pairs
/// `(0, 1), (0, 2), …, (1, 2), …` of `n` conditions, `n (n - 1) / 2` values.
///
/// ```
/// use inscape::similarity::{Comparator, Rdms};
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let models = Rdms::new(3, vec![1.0, 2.0, 3.0])?;
/// let subjects = Rdms::new(3, vec![2.0, 4.0, 6.0, 3.0, 2.0, 1.0])?;
/// let table = models.compare(&subjects, Comparator::Spearman)?;
/// assert!((table[0][0] - 1.0).abs() < 1e-12 && (table[0][1] + 1.0).abs() < 1e-12);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Rdms {
    conditions: usize,
    values: Vec<f64>,
}

impl Rdms {
    /// Upper triangles, one after the other.
    ///
    /// # Errors
    /// [`Error::NotFinite`], whose row is the matrix and whose column the pair.
    ///
    /// # Panics
    /// If there are fewer than 3 conditions, or the values are no whole number of triangles.
    pub fn new(conditions: usize, values: Vec<f64>) -> Result<Self, Error> {
        assert!(conditions >= 3, "Rdms::new: {conditions} conditions");
        let pairs = conditions * (conditions - 1) / 2;
        assert!(
            values.len().is_multiple_of(pairs) && !values.is_empty(),
            "Rdms::new: {} values are no triangles of {pairs}",
            values.len()
        );
        match values.iter().position(|v| !v.is_finite()) {
            None => Ok(Self { conditions, values }),
            Some(at) => Err(Error::NotFinite {
                row: at / pairs,
                column: at % pairs,
                value: values[at],
            }),
        }
    }

    /// One matrix of each representation; all are `[n, d]` with the same `n`.
    ///
    /// `channels` does nothing to correlations and cosines; a Euclidean distance becomes the root of the
    /// mean square.
    ///
    /// # Errors
    /// Different row counts; a NaN or infinity, or negative rates for [`Rdm::Poisson`]; the device
    /// failing.
    ///
    /// # Panics
    /// If there is no representation, or they have fewer than 3 rows.
    ///
    /// # Cost
    /// `n² d / 2` multiply-adds and 8 bytes a pair for each, computed in the precision of the tensor.
    pub fn of(xs: &[Tensor<2>], rdm: Rdm, channels: Channels) -> Result<Self, Error> {
        block_on(Self::of_async(xs, rdm, channels))
    }

    /// [`Rdms::of`] without blocking.
    ///
    /// # Errors
    /// As [`Rdms::of`].
    ///
    /// # Panics
    /// As [`Rdms::of`].
    pub async fn of_async(xs: &[Tensor<2>], rdm: Rdm, channels: Channels) -> Result<Self, Error> {
        let first = xs.first().expect("Rdms::of: no representation").dims();
        let mut values = Vec::new();
        for (k, x) in xs.iter().enumerate() {
            if x.dims()[0] != first[0] {
                let (left, right) = (first, x.dims());
                return Err(Error::RowsDiffer { left, right });
            }
            let of = match x.dtype() {
                DType::F64 => one::<f64>(x, rdm, channels).await,
                _ => one::<f32>(&working(x), rdm, channels).await,
            };
            values.extend(of.map_err(|e| e.at(&format!("subject {k}")))?);
        }
        Self::new(first[0], values)
    }

    /// Number of conditions `n`.
    pub fn conditions(&self) -> usize {
        self.conditions
    }

    /// Number of matrices.
    pub fn count(&self) -> usize {
        self.values.len() / self.pairs()
    }

    fn pairs(&self) -> usize {
        self.conditions * (self.conditions - 1) / 2
    }

    /// The upper triangle of one matrix.
    pub fn triangle(&self, k: usize) -> &[f64] {
        &self.values[k * self.pairs()..][..self.pairs()]
    }

    /// The upper triangles, in order.
    pub fn triangles(&self) -> impl ExactSizeIterator<Item = &[f64]> {
        self.values.chunks_exact(self.pairs())
    }

    /// Some of the matrices, in this order.
    pub fn select(&self, which: &[usize]) -> Self {
        let values = which.iter().flat_map(|&k| self.triangle(k));
        Self {
            conditions: self.conditions,
            values: values.copied().collect(),
        }
    }

    /// The matrices of some of the conditions, in this order.
    ///
    /// # Panics
    /// If there are fewer than 3, or one comes twice: its pair with itself has no dissimilarity.
    pub fn among(&self, conditions: &[usize]) -> Self {
        let picks = Picks::new(conditions, self.conditions);
        assert!(
            conditions.len() >= 3 && picks.kept.is_none(),
            "Rdms::among: {conditions:?} are not three or more conditions"
        );
        Self {
            conditions: conditions.len(),
            values: self.triangles().flat_map(|t| picks.of(t)).collect(),
        }
    }

    /// `table[i][j]` compares matrix `i` of `self` with matrix `j` of `other`.
    ///
    /// # Errors
    /// [`Error::Undefined`] where a matrix cannot be compared, say because all its dissimilarities are
    /// equal.
    ///
    /// # Panics
    /// If the numbers of conditions differ.
    pub fn compare(&self, other: &Self, by: Comparator) -> Result<Vec<Vec<f64>>, Error> {
        self.compare_by(other, by, |t| {
            let pairs = Chosen {
                n: self.conditions,
                kept: None,
            };
            Side::new(Values::F64(t.to_vec()), pairs, by)
        })
    }

    /// The same on a sample of the conditions, of which some may come several times. Pairs of a condition
    /// with itself are left out.
    ///
    /// # Errors
    /// As [`Rdms::compare`].
    ///
    /// # Panics
    /// As [`Rdms::compare`].
    pub fn compare_on(
        &self,
        other: &Self,
        by: Comparator,
        conditions: &[usize],
    ) -> Result<Vec<Vec<f64>>, Error> {
        let picks = Picks::new(conditions, self.conditions);
        self.compare_by(other, by, |t| {
            Side::new(Values::F64(picks.of(t)), picks.pairs(), by)
        })
    }

    /// [`Comparator::WhitenedCosine`] or [`Comparator::WhitenedPearson`] where the noise of the conditions
    /// has the covariance `sigma_k`, `[n, n]` row-major.
    ///
    /// # Errors
    /// As [`Rdms::compare`]; a covariance of the dissimilarities that cannot be inverted.
    ///
    /// # Panics
    /// If `by` is no whitened comparator, or a shape does not fit.
    ///
    /// # Cost
    /// For each matrix the products of `n × n` matrices that conjugate gradients take, at most `10 m` for
    /// `m` pairs and few if the conditions are alike.
    ///
    /// # Source
    /// Diedrichsen et al. 2021, "Comparing representational geometries using whitened unbiased-distance-matrix
    /// similarity": the part of the covariance that noise has without signal.
    pub fn compare_whitened(
        &self,
        other: &Self,
        sigma_k: &[f64],
        by: Comparator,
    ) -> Result<Vec<Vec<f64>>, Error> {
        let n = self.conditions;
        assert!(
            matches!(by, Comparator::WhitenedCosine | Comparator::WhitenedPearson),
            "Rdms::compare_whitened: {by:?}"
        );
        assert_eq!(sigma_k.len(), n * n, "Rdms::compare_whitened: sigma_k");
        let pairs = Chosen { n, kept: None };
        let whitening = Whitening::new(pairs, Mat::from_fn(n, n, |i, j| sigma_k[i * n + j]));
        self.compare_by(other, by, |t| Side::solved(t, &whitening, by))
    }

    fn compare_by(
        &self,
        other: &Self,
        by: Comparator,
        side: impl Fn(&[f64]) -> Result<Side, Error> + Sync + Send,
    ) -> Result<Vec<Vec<f64>>, Error> {
        assert_eq!(
            self.conditions, other.conditions,
            "Rdms::compare: conditions differ"
        );
        let sides = |all: &Self, place: &str| {
            let made = map_chunks(all.count(), 1, |r| side(all.triangle(r.start)));
            let named = made.into_iter().enumerate();
            let named = named.map(|(k, s)| s.map_err(|e| e.at(&format!("{place} {k}"))));
            named.collect::<Result<Vec<_>, _>>()
        };
        let (a, b) = (sides(self, "left")?, sides(other, "right")?);
        let row = |a: &Side| b.iter().map(|b| a.compare(b, by)).collect();
        a.iter().map(row).collect()
    }

    /// The matrix that the others agree on as `by` sees it: the mean after each has been brought to root
    /// mean square 1, for Pearson to mean 0 and standard deviation 1 (then shifted to a least value of
    /// 0), for ranks and Kendall's tau to its ranks. As rsatoolbox pools.
    ///
    /// # Errors
    /// [`Error::Undefined`] for a matrix of which all values are 0 (Pearson: equal).
    pub fn pooled(&self, by: Comparator) -> Result<Self, Error> {
        let mut mean = vec![0.0; self.pairs()];
        for triangle in self.triangles() {
            let level = level(triangle, by)?;
            mean.iter_mut().zip(level).for_each(|(m, v)| *m += v);
        }
        let least = match by.centres() {
            true => mean.iter().copied().fold(f64::INFINITY, f64::min),
            false => 0.0,
        };
        let count = self.count() as f64;
        mean.iter_mut().for_each(|m| *m = (*m - least) / count);
        Self::new(self.conditions, mean)
    }

    /// `(d - l) / (u - l)` cut off at 0 and 1, with `l` and `u` the quantiles of all values of all matrices
    /// at `low` and `up`; 0 and 1 only if they are equal. See [`Rsa::Topological`](super::Rsa).
    ///
    /// # Panics
    /// Unless `0 <= low <= up <= 1`.
    pub fn geotopological(&self, low: f64, up: f64) -> Self {
        assert!(
            0.0 <= low && low <= up && up <= 1.0,
            "Rdms::geotopological: {low} to {up}"
        );
        let mut new = self.clone();
        topological::geotopological(&mut new.values, low, up);
        new
    }

    /// Lengths of the shortest paths over the pairs below 1: use it after [`Rdms::geotopological`]. See
    /// [`Rsa::Geodesic`](super::Rsa).
    ///
    /// A pair at 0 is an edge of length 0; rsatoolbox 0.3.2 takes it for no edge, and takes the smallest of
    /// every matrix to 0 first.
    ///
    /// # Errors
    /// [`Error::Undefined`] if a graph falls apart.
    ///
    /// # Cost
    /// `n³` additions for each, and 8 bytes for each of `n²` cells.
    pub fn geodesic(&self) -> Result<Self, Error> {
        let mut new = self.clone();
        let pairs = self.pairs();
        for (k, triangle) in new.values.chunks_exact_mut(pairs).enumerate() {
            topological::geodesic(triangle, self.conditions)
                .map_err(|e| e.at(&format!("subject {k}")))?;
        }
        Ok(new)
    }
}

/// The triangle of one representation.
async fn one<T: Ranked>(x: &Tensor<2>, rdm: Rdm, channels: Channels) -> Result<Vec<f64>, Error> {
    let values = Distinct::new::<T>(rdm, x).await?.values::<T>().await?;
    let scale = scale::<T>(x).await?.powi(-rdm.degree());
    let share = channels.share(x.dims()[1]);
    let by = match rdm {
        Rdm::Correlation | Rdm::Cosine => 1.0,
        Rdm::Euclidean => share.sqrt() * scale,
        Rdm::SquaredEuclidean | Rdm::Poisson => share * scale,
    };
    Ok(values.iter().map(|v| v.wide() * by).collect())
}

/// One matrix on the level at which it is averaged with others.
fn level(triangle: &[f64], by: Comparator) -> Result<Vec<f64>, Error> {
    if by.is_of_ranks() {
        let doubled = f64::ranks(triangle.to_vec());
        return Ok(doubled.iter().map(|&r| f64::from(r) / 2.0).collect());
    }
    let m = triangle.len();
    let mean = match by.centres() {
        true => sum_range(0..m, |i| triangle[i]) / m as f64,
        false => 0.0,
    };
    let square = sum_range(0..m, |i| (triangle[i] - mean).powi(2));
    let all = sum_range(0..m, |i| triangle[i].powi(2));
    if square <= (4.0 * f64::EPSILON).powi(2) * all {
        return Err(super::compare::equal());
    }
    let deviation = (square / m as f64).sqrt();
    Ok(triangle.iter().map(|v| (v - mean) / deviation).collect())
}

/// A sample of the conditions: where the pairs of two different ones stand in the triangle of all.
pub(super) struct Picks {
    n: usize,
    from: Vec<usize>,
    /// Their places in the triangle of the sample; none if no condition comes twice.
    kept: Option<Vec<usize>>,
}

impl Picks {
    pub(super) fn new(conditions: &[usize], n: usize) -> Self {
        let place = |a: usize, b: usize| a * (2 * n - a - 1) / 2 + b - a - 1;
        let mut new = Self {
            n: conditions.len(),
            from: Vec::new(),
            kept: None,
        };
        let mut kept = Vec::new();
        for (at, (i, j)) in super::whitened::upper(conditions.len()).enumerate() {
            let (a, b) = (conditions[i], conditions[j]);
            if a != b {
                new.from.push(place(a.min(b), a.max(b)));
                kept.push(at);
            }
        }
        let all = new.n * new.n.saturating_sub(1) / 2;
        new.kept = (kept.len() < all).then_some(kept);
        new
    }

    pub(super) fn of(&self, triangle: &[f64]) -> Vec<f64> {
        self.from.iter().map(|&at| triangle[at]).collect()
    }

    pub(super) fn pairs(&self) -> Chosen<'_> {
        Chosen {
            n: self.n,
            kept: self.kept.as_deref(),
        }
    }
}
