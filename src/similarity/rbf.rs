//! Kernels made of the distances of the rows.

use std::fmt;

use burn::tensor::Tensor;

use super::cka::Estimator;
use super::lanes::Lane;
use super::middle::Table;
use super::{DistanceCorrelation, Error, Kernel, Prepared};
use crate::device::block_on;

/// How wide an RBF kernel `exp(-|u - v|² / (2 sigma²))` is. In text a number, or a number times one of
/// two medians: `1`, `0.5*median`, `1*offdiag_median`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sigma {
    /// This number, in the units of the features.
    Fixed(f64),
    /// So many times the root of the median of all `n²` squared distances, each row's to itself among
    /// them, as the authors of CKA take it.
    Median(f64),
    /// So many times the root of the median squared distance of two different rows.
    OffDiagonalMedian(f64),
}

impl Sigma {
    /// Half of the median.
    pub(super) const DEFAULT: Self = Self::Median(0.5);

    pub(super) fn parse(text: &str) -> Option<Self> {
        let (factor, of) = text.split_once('*').unwrap_or((text, ""));
        let factor: f64 = factor.parse().ok()?;
        let sigma = match of {
            "" if !text.contains('*') => Self::Fixed(factor),
            "median" => Self::Median(factor),
            "offdiag_median" => Self::OffDiagonalMedian(factor),
            _ => return None,
        };
        sigma.is_valid().then_some(sigma)
    }

    fn factor(self) -> f64 {
        let (Self::Fixed(factor) | Self::Median(factor) | Self::OffDiagonalMedian(factor)) = self;
        factor
    }

    pub(super) fn is_valid(self) -> bool {
        self.factor().is_finite() && self.factor() > 0.0
    }

    /// As a number, from the squared distances of the pairs of `n` rows. A median of evenly many is the
    /// mean of the middle two; both are found exactly.
    pub(super) async fn settle<T: Lane>(
        self,
        squares: &Table<'_, T>,
        n: usize,
    ) -> Result<f64, Error> {
        let pairs = n * (n - 1) / 2;
        let middle = |count: usize| [(count - 1) / 2, count / 2];
        let median = match self {
            Self::Fixed(sigma) => return Ok(sigma),
            Self::OffDiagonalMedian(_) => squares.at(middle(pairs)).await?.map(T::wide),
            Self::Median(_) => {
                // The n zeros of the diagonal come first, then every pair twice.
                let places = middle(n * n).map(|place| place.checked_sub(n).map(|p| p / 2));
                let found = squares.at(places.map(|p| p.unwrap_or(0))).await?;
                let or_zero = |k: usize| places[k].map_or(0.0, |_| found[k].wide());
                [or_zero(0), or_zero(1)]
            }
        };
        let sigma = self.factor() * ((median[0] + median[1]) / 2.0).sqrt();
        match sigma > 0.0 {
            true => Ok(sigma),
            false => Err(Error::Undefined {
                why: "its median distance is 0: most of its rows are equal",
            }),
        }
    }
}

impl fmt::Display for Sigma {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(sigma) => write!(f, "{sigma}"),
            Self::Median(factor) => write!(f, "{factor}*median"),
            Self::OffDiagonalMedian(factor) => write!(f, "{factor}*offdiag_median"),
        }
    }
}

/// CKA with RBF kernels of two representations of the same rows.
///
/// `x` is `[n, dx]`, `y` is `[n, dy]`; the result has no unit, 1 for equal representations. Unchanged by
/// rotation and shift of either side, and by one scale unless sigma is fixed. The narrower the kernel, the
/// more the value is of near neighbours alone. The result is not clamped.
///
/// # Errors
/// Different row counts; fewer than 2 rows (biased) or 4 (unbiased); a NaN or infinity; a sigma that is not
/// above 0 ([`Error::UnknownMetric`]); a median distance of 0, or a kernel whose self-HSIC is not above
/// rounding ([`Error::Undefined`]); the device failing.
///
/// # Cost
/// `n² (dx + dy) / 2` multiply-adds and `n²` exponentials. Up to 16,384 rows 4 bytes a pair are held for
/// each side (f64: 8), 50 MB at n = 5,000; above, only tiles of 16 MiB, and products are worked out once
/// more for each comparison, and once or twice for the median.
///
/// # Source
/// Kornblith, Norouzi, Lee & Hinton 2019, "Similarity of Neural Network Representations Revisited",
/// section 3 and their code for the median over all `n²` distances, zeros of the diagonal included. Medians
/// are exact at every size.
///
/// # Example
/// ```
/// use inscape::{Device, similarity::{Estimator, Sigma, rbf_cka}};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::from_data([[0., 1.], [1., 0.], [2., 3.], [4., 1.], [0., 5.]], cpu.tensor());
/// let y = x.clone() * 3.0 + 100.0;
/// assert!((rbf_cka(&x, &y, Estimator::Unbiased, Sigma::Median(1.0))? - 1.0).abs() < 1e-5);
/// # Ok(())
/// # }
/// ```
pub fn rbf_cka(
    x: &Tensor<2>,
    y: &Tensor<2>,
    estimator: Estimator,
    sigma: Sigma,
) -> Result<f64, Error> {
    block_on(rbf_cka_async(x, y, estimator, sigma))
}

/// [`rbf_cka`] without blocking.
///
/// # Errors
/// As [`rbf_cka`].
pub async fn rbf_cka_async(
    x: &Tensor<2>,
    y: &Tensor<2>,
    estimator: Estimator,
    sigma: Sigma,
) -> Result<f64, Error> {
    let metric = Kernel::RbfCka {
        estimator,
        sigma,
        unit_rows: false,
    };
    Prepared::pair(x, y, metric).await
}

/// Distance correlation of two representations of the same rows.
///
/// `x` is `[n, dx]`, `y` is `[n, dy]`; the result has no unit, 1 for equal representations, and in
/// expectation 0 only for independent ones (unbiased). Unchanged by rotation, one scale and a shift of
/// either side. It sees dependence of every form, not linear alone.
///
/// # Errors
/// Different row counts; fewer than 2 rows (biased) or 4 (unbiased); a NaN or infinity; a representation
/// whose rows are all equal, or whose distances are ([`Error::Undefined`]); the device failing.
///
/// # Cost
/// That of [`rbf_cka`] without its median, with roots in place of the exponentials.
///
/// # Source
/// Székely, Rizzo & Bakirov 2007, "Measuring and Testing Dependence by Correlation of Distances" (biased);
/// Székely & Rizzo 2014, "Partial Distance Correlation with Methods for Dissimilarities" (unbiased). It is
/// CKA with the distance as kernel (Sejdinovic et al. 2013).
///
/// # Example
/// ```
/// use inscape::{Device, similarity::{DistanceCorrelation, distance_correlation}};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::from_data([[0., 1.], [1., 0.], [2., 3.], [4., 1.], [0., 5.]], cpu.tensor());
/// let y = x.clone() * 3.0 + 100.0;
/// assert!((distance_correlation(&x, &y, DistanceCorrelation::Biased)? - 1.0).abs() < 1e-5);
/// # Ok(())
/// # }
/// ```
pub fn distance_correlation(
    x: &Tensor<2>,
    y: &Tensor<2>,
    form: DistanceCorrelation,
) -> Result<f64, Error> {
    block_on(distance_correlation_async(x, y, form))
}

/// [`distance_correlation`] without blocking.
///
/// # Errors
/// As [`distance_correlation`].
pub async fn distance_correlation_async(
    x: &Tensor<2>,
    y: &Tensor<2>,
    form: DistanceCorrelation,
) -> Result<f64, Error> {
    Prepared::pair(x, y, Kernel::DistanceCorrelation(form)).await
}
