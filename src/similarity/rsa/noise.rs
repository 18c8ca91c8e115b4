//! Distances in the metric of the noise: Mahalanobis, and crossnobis over independent runs.

use burn::tensor::Tensor;
use faer::prelude::Solve;
use faer::{Mat, Side};

use super::super::Error;
use super::rdms::{Channels, Rdms};
use super::whitened::upper;
use crate::device::{self, block_on};

/// Squared Mahalanobis distances of the rows: `(x_i - x_j)ᵀ P (x_i - x_j)`.
///
/// `x` is `[n, d]`; `precision`, the inverse covariance `P` of the noise, `[d, d]` row-major.
///
/// # Errors
/// A NaN or infinity; a precision that is not positive definite ([`Error::Undefined`]); the device failing.
///
/// # Panics
/// If the precision is not `d²` values, or there are fewer than 3 rows.
///
/// # Cost
/// `n d² + n² d` multiply-adds and `8 (n d + d²)` bytes, in f64 on the host.
///
/// # Source
/// Walther et al. 2016, "Reliability of dissimilarity measures for multi-voxel pattern analysis". With
/// [`Channels::Mean`] as rsatoolbox's `mahalanobis`.
///
/// # Example
/// ```
/// use inscape::{Device, similarity::{Channels, mahalanobis}};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::from_data([[0., 0.], [1., 0.], [0., 1.]], cpu.tensor());
/// let rdms = mahalanobis(&x, &[4.0, 0.0, 0.0, 1.0], Channels::Sum)?;
/// let expected = [4.0, 1.0, 5.0].iter();
/// assert!(rdms.triangle(0).iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12));
/// # Ok(())
/// # }
/// ```
pub fn mahalanobis(x: &Tensor<2>, precision: &[f64], channels: Channels) -> Result<Rdms, Error> {
    block_on(mahalanobis_async(x, precision, channels))
}

/// [`mahalanobis`] without blocking.
///
/// # Errors
/// As [`mahalanobis`].
///
/// # Panics
/// As [`mahalanobis`].
pub async fn mahalanobis_async(
    x: &Tensor<2>,
    precision: &[f64],
    channels: Channels,
) -> Result<Rdms, Error> {
    let [n, d] = x.dims();
    let x = Runs::read(x.clone().reshape([1, n, d])).await?;
    let run = x.whitened(Some(precision))?.remove(0);
    let product = &run * run.transpose();
    let share = channels.share(d);
    let distance = |(i, j)| {
        let squared: f64 = product[(i, i)] + product[(j, j)] - 2.0 * product[(i, j)];
        share * squared.max(0.0)
    };
    Rdms::new(n, upper(n).map(distance).collect())
}

/// Squared Mahalanobis distances that noise does not raise: the difference of two conditions in one run
/// times their difference in the mean of the other runs, averaged over runs.
///
/// `runs` is `[runs, n, d]`; `precision` as for [`mahalanobis`], none for Euclidean distances. Noise that
/// is independent between runs leaves them unbiased, so they may be negative.
///
/// # Errors
/// As [`mahalanobis`].
///
/// # Panics
/// As [`mahalanobis`]; fewer than 2 runs.
///
/// # Cost
/// `runs (n d² + n² d)` multiply-adds and `8 runs n d` bytes, in f64 on the host.
///
/// # Source
/// Walther et al. 2016. With [`Channels::Mean`] as rsatoolbox's `crossnobis`.
///
/// # Example
/// ```
/// use inscape::{Device, similarity::{Channels, crossnobis}};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let run = [[0., 0.], [1., 0.], [0., 2.]];
/// let runs = Tensor::<3>::from_data([run, run], cpu.tensor());
/// let rdms = crossnobis(&runs, None, Channels::Sum)?;
/// assert!((rdms.triangle(0)[2] - 5.0).abs() < 1e-12);
/// # Ok(())
/// # }
/// ```
pub fn crossnobis(
    runs: &Tensor<3>,
    precision: Option<&[f64]>,
    channels: Channels,
) -> Result<Rdms, Error> {
    block_on(crossnobis_async(runs, precision, channels))
}

/// [`crossnobis`] without blocking.
///
/// # Errors
/// As [`crossnobis`].
///
/// # Panics
/// As [`crossnobis`].
pub async fn crossnobis_async(
    runs: &Tensor<3>,
    precision: Option<&[f64]>,
    channels: Channels,
) -> Result<Rdms, Error> {
    let [count, n, d] = runs.dims();
    assert!(count >= 2, "crossnobis: {count} run");
    let runs = Runs::read(runs.clone()).await?.whitened(precision)?;
    let total = runs.iter().fold(Mat::zeros(n, d), |sum, run| sum + run);
    let mut product = Mat::<f64>::zeros(n, n);
    for run in &runs {
        product += (&total - run) * run.transpose();
    }
    let share = channels.share(d) / (count * (count - 1)) as f64;
    let distance =
        |(i, j)| share * (product[(i, i)] + product[(j, j)] - product[(i, j)] - product[(j, i)]);
    Rdms::new(n, upper(n).map(distance).collect())
}

/// Inverse of the covariance of the rows of `residuals`, shrunk towards a multiple of the identity as much
/// as is best on average: for [`mahalanobis`] and [`crossnobis`].
///
/// `residuals` is `[n, d]`, for example what is left of single trials after their condition's mean; the
/// result is `[d, d]` row-major. `n` may be below `d`.
///
/// # Errors
/// A NaN or infinity; residuals that are all equal ([`Error::Undefined`]); the device failing.
///
/// # Cost
/// `n d² + d³` multiply-adds and `8 (n d + 3 d²)` bytes, in f64 on the host.
///
/// # Source
/// Ledoit & Wolf 2004, "A well-conditioned estimator for large-dimensional covariance matrices", equation 14;
/// the covariance is over `n`, as there.
///
/// # Example
/// ```
/// use inscape::{Device, similarity::shrunk_precision};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let r = Tensor::<2>::from_data([[1., 0.], [-1., 0.], [0., 2.], [0., -2.]], cpu.tensor());
/// let precision = shrunk_precision(&r)?;
/// assert!(precision[0] > precision[3] && precision[1].abs() < 1e-12);
/// # Ok(())
/// # }
/// ```
pub fn shrunk_precision(residuals: &Tensor<2>) -> Result<Vec<f64>, Error> {
    block_on(shrunk_precision_async(residuals))
}

/// [`shrunk_precision`] without blocking.
///
/// # Errors
/// As [`shrunk_precision`].
pub async fn shrunk_precision_async(residuals: &Tensor<2>) -> Result<Vec<f64>, Error> {
    let [n, d] = residuals.dims();
    let x = Runs::read(residuals.clone().reshape([1, n, d]))
        .await?
        .0
        .remove(0);
    let mut s = x.transpose() * &x;
    s *= faer::Scale(1.0 / n as f64);
    let mean = (0..d).map(|j| s[(j, j)]).sum::<f64>() / d as f64;
    let square: f64 = s.col_iter().map(|c| c.squared_norm_l2()).sum();
    let length4: f64 = x.row_iter().map(|row| row.squared_norm_l2().powi(2)).sum();
    // Squared distances, over d: of S from the multiple of the identity, and of S from the covariance.
    let far = square / d as f64 - mean * mean;
    let noise = (length4 / n as f64 - square) / (n * d) as f64;
    let shrinkage = if far > 0.0 {
        (noise / far).clamp(0.0, 1.0)
    } else {
        1.0
    };
    let shrunk = Mat::from_fn(d, d, |i, j| {
        let identity = if i == j { mean } else { 0.0 };
        (1.0 - shrinkage) * s[(i, j)] + shrinkage * identity
    });
    let inverse = shrunk.llt(Side::Lower).map_err(|_| singular())?;
    let inverse = inverse.solve(Mat::<f64>::identity(d, d));
    Ok((0..d * d).map(|k| inverse[(k / d, k % d)]).collect())
}

fn singular() -> Error {
    Error::Undefined {
        why: "the covariance of its noise cannot be inverted",
    }
}

/// Conditions in several runs, each centred over its conditions.
struct Runs(Vec<Mat<f64>>);

impl Runs {
    async fn read(x: Tensor<3>) -> Result<Self, Error> {
        let [count, n, d] = x.dims();
        let values = device::read::<f64, 3>(x).await?;
        if let Some(at) = values.iter().position(|v| !v.is_finite()) {
            return Err(Error::NotFinite {
                row: at / d,
                column: at % d,
                value: values[at],
            });
        }
        let run = |r: usize| {
            let at = |i: usize, j: usize| values[(r * n + i) * d + j];
            let mean: Vec<f64> = (0..d)
                .map(|j| at(0, j) + (0..n).map(|i| at(i, j) - at(0, j)).sum::<f64>() / n as f64)
                .collect();
            Mat::from_fn(n, d, |i, j| at(i, j) - mean[j])
        };
        Ok(Self((0..count).map(run).collect()))
    }

    /// `x L` with `P = L Lᵀ`: products of its rows are those of `x` through `P`.
    fn whitened(self, precision: Option<&[f64]>) -> Result<Vec<Mat<f64>>, Error> {
        let Some(precision) = precision else {
            return Ok(self.0);
        };
        let d = self.0[0].ncols();
        assert_eq!(precision.len(), d * d, "the precision of {d} channels");
        let p = Mat::from_fn(d, d, |i, j| precision[i * d + j]);
        let root = p.llt(Side::Lower).map_err(|_| Error::Undefined {
            why: "its precision is not positive definite",
        })?;
        Ok(self.0.iter().map(|run| run * root.L()).collect())
    }
}
