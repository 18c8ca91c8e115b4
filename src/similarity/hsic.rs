//! The Hilbert-Schmidt independence criterion: how far two kernels are from independent.

use burn::tensor::Tensor;

use super::cka::Estimator;
use super::rbf::Sigma;
use super::{Error, Kernel, Prepared};
use crate::device::block_on;

/// HSIC of two representations of the same rows, of linear kernels or, with a `sigma`, of RBF kernels.
///
/// `x` is `[n, dx]`, `y` is `[n, dy]`; the result has the units of both kernels, and 0 in expectation if
/// the two sides are independent and the estimator is unbiased. Unchanged by rotation and shift of either
/// side, and by one scale only if sigma is taken from a median.
///
/// A value alone says little: hold it against shuffles of the rows with [`null`](super::null), as in the
/// example; its `p` is that of the permutation test for independence.
///
/// # Errors
/// Different row counts; fewer than 2 rows (biased) or 4 (unbiased); a NaN or infinity; a sigma that is
/// not above 0 ([`Error::UnknownMetric`]); an RBF kernel whose median distance is 0
/// ([`Error::Undefined`]); the device failing.
///
/// # Cost
/// That of [`linear_cka`](super::linear_cka) or [`rbf_cka`](super::rbf_cka).
///
/// # Source
/// Gretton, Bousquet, Smola & Schölkopf 2005, "Measuring Statistical Dependence with Hilbert-Schmidt
/// Norms", with their `1 / (n - 1)²` (biased); Song et al. 2012, "Feature Selection via Dependence
/// Maximization", equation 5 (unbiased). The test: Gretton et al. 2008, "A Kernel Statistical Test of
/// Independence", by permutations in place of their gamma approximation.
///
/// # Example
/// ```
/// use inscape::{Device, similarity::{Baseline, Estimator, Kernel, Sigma, hsic, null}};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let steps: Vec<f32> = (-10..=10).map(|i| i as f32 / 10.0).collect();
/// let x: Tensor<2> = Tensor::<1>::from_data(steps.as_slice(), cpu.tensor()).unsqueeze_dim(1);
/// let y = x.clone() * x.clone();
/// // A parabola: no correlation, and yet one side follows from the other.
/// assert!(hsic(&x, &y, Estimator::Biased, None)? < 1e-6);
/// let metric = Kernel::Hsic { estimator: Estimator::Biased, sigma: Some(Sigma::Median(0.5)) };
/// let found = null(&x, &y, metric.into(), Baseline::Rows, 200, 0, |_, _| ())?;
/// assert!(found.p < 0.05, "{found:?}");
/// # Ok(())
/// # }
/// ```
pub fn hsic(
    x: &Tensor<2>,
    y: &Tensor<2>,
    estimator: Estimator,
    sigma: Option<Sigma>,
) -> Result<f64, Error> {
    block_on(hsic_async(x, y, estimator, sigma))
}

/// [`hsic`] without blocking.
///
/// # Errors
/// As [`hsic`].
pub async fn hsic_async(
    x: &Tensor<2>,
    y: &Tensor<2>,
    estimator: Estimator,
    sigma: Option<Sigma>,
) -> Result<f64, Error> {
    Prepared::pair(x, y, Kernel::Hsic { estimator, sigma }).await
}

/// What a sum over centred kernels of `n` rows is divided by.
pub(super) fn hsic_scale(n: usize, estimator: Estimator) -> f64 {
    let n = n as f64;
    match estimator {
        Estimator::Biased => (n - 1.0).powi(2),
        Estimator::Unbiased => n * (n - 3.0),
    }
}
