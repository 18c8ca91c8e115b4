//! Shape metrics: clouds of rows whitened in part before one is turned onto the other.

use burn::tensor::Tensor;
use faer::Mat;

use super::axes::Axes;
use super::axes::scaled_rows;
use super::procrustes::{Side, matrix};
use super::shape::Shape;
use super::{Error, Prepared};
use crate::device::block_on;

/// What a shape metric reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Score {
    /// The angle between the two sides, 0 to `π / 2`: blind to scale once it is whitened by `Power`.
    Angular,
    /// The length of their difference.
    Euclidean,
}

/// How a cloud is whitened in part. A direction of singular value `s` is multiplied by the factor
/// given, and then all by one number so that the total variance stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Whitening {
    /// `α + (1 - α) / s`, as in the netrep library: a sum of a number and one over a length, so that
    /// between 0 and 1 it depends on the unit of the features.
    Mixed,
    /// `s^(α - 1)`: the same in every unit.
    Power,
}

/// netrep takes no squared singular value for smaller than this, whatever the unit.
const CLIP: f64 = 1e-7;

impl Whitening {
    fn factor(self, alpha: f64, s: f64) -> f64 {
        match self {
            Self::Mixed => alpha + (1.0 - alpha) / s.max(CLIP.sqrt()),
            Self::Power => s.powf(alpha - 1.0),
        }
    }
}

/// A spectrum whitened in part: what multiplies each direction, and the variance before and after.
#[derive(Clone, Debug)]
pub(super) struct White {
    pub(super) factors: Vec<f64>,
    before: f64,
    after: f64,
    /// Columns of the representation.
    pub(super) d: usize,
}

impl White {
    /// Of singular values `s`, in the representation's unit, among `d` columns.
    pub(super) fn new(s: &[f64], d: usize, alpha: f64, by: Whitening) -> Self {
        let factors: Vec<f64> = s.iter().map(|&s| by.factor(alpha, s)).collect();
        let clipped = |s: f64| match by {
            Whitening::Mixed => s.max(CLIP.sqrt()),
            Whitening::Power => s,
        };
        let each = s.iter().zip(&factors);
        let after = |(s, f): (&f64, &f64)| (clipped(*s) * f).powi(2);
        Self {
            before: s.iter().map(|&s| clipped(s).powi(2)).sum(),
            after: each.map(after).sum(),
            d,
            factors,
        }
    }

    /// What restores the variance when the side is padded to `width` columns; netrep counts each column
    /// that holds nothing as if it held the least variance it knows.
    pub(super) fn restore(&self, width: usize, alpha: f64, by: Whitening) -> f64 {
        let empty = match by {
            Whitening::Mixed => (width.max(self.d) - self.factors.len()) as f64,
            Whitening::Power => 0.0,
        };
        let least = by.factor(alpha, CLIP.sqrt()).powi(2) * CLIP;
        ((self.before + empty * CLIP) / (self.after + empty * least)).sqrt()
    }
}

/// `x` centred, in its principal axes, each of them multiplied by its factor.
pub(super) async fn whitened(
    x: &Tensor<2>,
    alpha: f64,
    by: Whitening,
) -> Result<(Side, White), Error> {
    let (rows, unit) = scaled_rows(x).await?;
    let axes = Axes::of(matrix(&rows, true))?;
    let s: Vec<f64> = axes.basis.s.iter().map(|s| s * unit).collect();
    let white = White::new(&s, rows.d, alpha, by);
    let scores = axes.z();
    let z = Mat::from_fn(rows.n, s.len(), |i, j| scores[(i, j)] * white.factors[j]);
    Ok((Side::new(z, unit), white))
}

/// Shape distance of two representations of the same rows: whiten each in part, turn one onto the
/// other, and measure what is left.
///
/// `x` is `[n, dx]`, `y` is `[n, dy]`, both centred; the narrower side counts as if it had columns of
/// zeros. `alpha`, in 0 to 1, says how much of the shape of each cloud stays: with 1 nothing is whitened
/// and the angle is that of [`Procrustes`](super::Procrustes::Angular); with 0 every direction counts
/// alike, so that only the subspace matters, as in canonical correlation analysis: the angle is then
/// `arccos(Σ ρ / √(rx ry))` with `ρ` the canonical correlations and `r` the ranks. A metric for each
/// `alpha`: symmetric, 0 for equal sides, with the triangle inequality.
///
/// Blind to rotation and shift; the angle to one scale with `alpha` 0 or 1, or [`Whitening::Power`].
/// With [`Whitening::Mixed`] and `alpha` between 0 and 1 the unit of the features matters: a number is
/// added to one over a length. The Euclidean distance is in the unit of the features for every `alpha`.
///
/// # Errors
/// Different row counts; fewer than 3 rows; a NaN or infinity; a representation whose rows are all
/// equal ([`Error::Undefined`]); an `alpha` outside 0 to 1 ([`Error::UnknownMetric`]); the device
/// failing.
///
/// # Cost
/// As [`procrustes`](super::procrustes()) and, if `alpha < 1`, a decomposition of each side,
/// `O(n d min(n, d))`.
///
/// # Source
/// Williams, Kunz, Kornblith & Linderman 2021, "Generalized Shape Metrics on Neural Representations",
/// as their netrep library has it: eigenvalues of the covariance below 1e-7 count as 1e-7 in any unit,
/// and columns of zeros take part in restoring the variance, which moves only the Euclidean distance.
/// Here, moreover, directions below 1e-6 of the largest singular value are none: they are rounding,
/// which netrep with `alpha = 0` blows up where rows are fewer than columns. `Power` is the paper's
/// alternative, without a clip and without a unit.
///
/// ```
/// use inscape::{Device, similarity::{Score, Whitening, shape_distance}};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::from_data([[0., 1.], [1., 0.], [2., 3.], [4., 1.], [0., 5.]], cpu.tensor());
/// let sheared = x.clone().matmul(Tensor::from_data([[1., 2.], [0., 1.]], cpu.tensor()));
/// let angle = |alpha| shape_distance(&x, &sheared, alpha, Score::Angular, Whitening::Mixed);
/// assert!(angle(0.0)? < 1e-6 && angle(1.0)? > 0.1);
/// # Ok(())
/// # }
/// ```
pub fn shape_distance(
    x: &Tensor<2>,
    y: &Tensor<2>,
    alpha: f64,
    score: Score,
    whiten: Whitening,
) -> Result<f64, Error> {
    block_on(shape_distance_async(x, y, alpha, score, whiten))
}

/// [`shape_distance`] without blocking.
///
/// # Errors
/// As [`shape_distance`].
pub async fn shape_distance_async(
    x: &Tensor<2>,
    y: &Tensor<2>,
    alpha: f64,
    score: Score,
    whiten: Whitening,
) -> Result<f64, Error> {
    let metric = Shape::Linear {
        alpha,
        score,
        whiten,
    };
    Prepared::pair(x, y, metric).await
}
