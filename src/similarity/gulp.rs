//! GULP: how differently two representations predict, whatever the target.

use burn::tensor::Tensor;
use faer::Mat;

use super::axes::Basis;
use super::{Cca, Error, Prepared};
use crate::device::block_on;

/// The squared distance, from the spectra and the products of the unit scores.
pub(super) fn distance(a: &Basis, b: &Basis, mut white: Mat<f64>, lambda: f64) -> f64 {
    let (f, g) = (shrunk(a, lambda), shrunk(b, lambda));
    for (column, g) in white.col_iter_mut().zip(&g) {
        for (v, f) in column.iter_mut().zip(&f) {
            *v *= (f * g).sqrt();
        }
    }
    let own = |f: &[f64]| f.iter().map(|f| f * f).sum::<f64>();
    (own(&f) + own(&g) - 2.0 * white.squared_norm_l2()).max(0.0)
}

/// What a ridge regression leaves of each direction, when rows have a mean squared length of 1.
fn shrunk(side: &Basis, lambda: f64) -> Vec<f64> {
    let total = side.squared;
    let share = side.s.iter().map(|s| s * s / total);
    share.map(|l| l / (l + lambda)).collect()
}

/// The squared GULP distance of two representations of the same rows.
///
/// `x` is `[n, dx]`, `y` is `[n, dy]`; both are centred and scaled so that a row's mean squared length
/// is 1. The result is `‖Px - Py‖²` for the two matrices `[n, n]` that take a target to what ridge
/// regression with penalty `lambda` makes of it from either side: 0 for sides that predict alike. It
/// bounds the mean squared difference of the two predictions of any target of mean square 1. With
/// `lambda = 0` it is `rx + ry - 2 Σ rho²` in the ranks and the canonical correlations, blind to every
/// invertible map; larger penalties look only at directions of more variance, and shrink the distance:
/// compare values of one `lambda`.
///
/// # Errors
/// Different row counts; fewer than 3 rows; a NaN or infinity; a representation whose rows are all
/// equal ([`Error::Undefined`]); a `lambda` that is negative or not finite ([`Error::UnknownMetric`]);
/// the device failing.
///
/// # Cost
/// As [`cca`](super::cca()), without its last decomposition.
///
/// # Source
/// Boix-Adsera, Lawrence, Stepaniants & Rigollet 2022, "GULP: a prediction-based metric between
/// representations", with the covariances of the rows at hand for those of their distribution. Directions below 1e-6 of the largest singular
/// value are none; the authors' code counts them as 1 at `lambda = 0` and demands `d <= n`.
///
/// # Example
/// ```
/// use inscape::{Device, similarity::gulp};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::from_data([[0., 1.], [1., 0.], [2., 3.], [4., 1.], [0., 5.]], cpu.tensor());
/// let stretched = x.clone() * Tensor::from_data([[1., 9.]], cpu.tensor());
/// assert!(gulp(&x, &stretched, 0.0)? < 1e-9);
/// assert!(gulp(&x, &stretched, 0.1)? > 0.1);
/// # Ok(())
/// # }
/// ```
pub fn gulp(x: &Tensor<2>, y: &Tensor<2>, lambda: f64) -> Result<f64, Error> {
    block_on(gulp_async(x, y, lambda))
}

/// [`gulp`] without blocking.
///
/// # Errors
/// As [`gulp`].
pub async fn gulp_async(x: &Tensor<2>, y: &Tensor<2>, lambda: f64) -> Result<f64, Error> {
    Prepared::pair(x, y, Cca::Gulp { lambda }).await
}
