//! Numbers that say something of one representation alone.

use burn::tensor::Tensor;

use super::Error;
use super::axes::{unscaled_rows, wide_rows};
use super::host::{Rows, sum, sum_range};
use super::pairs::{Form, Pairs};
use super::rbf::Sigma;
use crate::device::block_on;

/// Length of the mean row of `x`, `[n, d]`, in the units of the features.
///
/// The difference of two sides is the magnitude difference of Wang et al. 2020, "Towards Understanding the
/// Instability of Network Embedding".
///
/// # Errors
/// [`Error::Undefined`] without rows; a NaN or infinity; the device failing.
///
/// # Cost
/// One pass over `x` on the host, in f64.
///
/// ```
/// use inscape::{Device, similarity::magnitude};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let x = Tensor::<2>::from_data([[2.0, 4.0], [4.0, 4.0]], Device::cpu().tensor());
/// assert_eq!(magnitude(&x)?, 5.0);
/// # Ok(())
/// # }
/// ```
pub fn magnitude(x: &Tensor<2>) -> Result<f64, Error> {
    block_on(magnitude_async(x))
}

/// [`magnitude`] without blocking.
///
/// # Errors
/// As [`magnitude`].
pub async fn magnitude_async(x: &Tensor<2>) -> Result<f64, Error> {
    some_rows(x)?;
    Ok(length(&unscaled_rows(x).await?.column_means()))
}

/// Mean cosine of the rows of `x`, `[n, d]`, and their mean: 1 if all point one way. A row of zeros counts
/// as 0.
///
/// The difference of two sides is the concentricity difference of Wang et al. 2020, "Towards Understanding
/// the Instability of Network Embedding".
///
/// # Errors
/// [`Error::Undefined`] without rows, or if the mean row is 0; a NaN or infinity; the device failing.
///
/// # Cost
/// Two passes over `x` on the host, in f64.
///
/// ```
/// use inscape::{Device, similarity::concentricity};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let x = Tensor::<2>::from_data([[2.0, 1.0], [4.0, 2.0]], Device::cpu().tensor());
/// assert!((concentricity(&x)? - 1.0).abs() < 1e-12);
/// # Ok(())
/// # }
/// ```
pub fn concentricity(x: &Tensor<2>) -> Result<f64, Error> {
    block_on(concentricity_async(x))
}

/// [`concentricity`] without blocking.
///
/// # Errors
/// As [`concentricity`].
pub async fn concentricity_async(x: &Tensor<2>) -> Result<f64, Error> {
    some_rows(x)?;
    let rows = wide_rows(x).await?;
    let mean = rows.column_means();
    let size = length(&mean);
    if size == 0.0 {
        return Err(Error::Undefined {
            why: "its mean row is 0",
        });
    }
    Ok(mean_cosine(&rows, &mean, size))
}

fn mean_cosine(rows: &Rows<f64>, mean: &[f64], size: f64) -> f64 {
    let cosine = |row: &[f64]| match length(row) {
        0.0 => 0.0,
        own => sum_range(0..row.len(), |j| row[j] * mean[j]) / own / size,
    };
    let cosines = rows.map(cosine);
    sum(rows.n, |i| cosines[i]) / rows.n as f64
}

/// Log of the mean of `exp(-t |u - v|²)` over all `n²` pairs of rows made to length 1, each row with itself
/// among them: 0 if all point one way, lower the more evenly they cover the sphere.
///
/// `x` is `[n, d]`; 2 is the usual `t`. A row of zeros stays at the centre.
///
/// # Errors
/// [`Error::Undefined`] with fewer than 2 rows, or a `t` that is not above 0; a NaN or infinity; the device
/// failing.
///
/// # Cost
/// `n² d / 2` multiply-adds and `n² / 2` exponentials, 4 bytes a pair up to 16,384 rows (f64: 8), above
/// that 16 MiB.
///
/// # Source
/// Wang & Isola 2020, "Understanding Contrastive Representation Learning through Alignment and Uniformity on
/// the Hypersphere", who leave out the pairs of a row with itself. Rows are made to length 1: on rows as they
/// come the exponentials vanish at usual scales, and the value is `ln(1 / n)` of any data.
///
/// ```
/// use inscape::{Device, similarity::uniformity};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let x = Tensor::<2>::from_data([[2.0, 0.0], [0.0, 3.0]], Device::cpu().tensor());
/// assert!((uniformity(&x, 2.0)? - ((1.0 + (-4.0f64).exp()) / 2.0).ln()).abs() < 1e-6);
/// # Ok(())
/// # }
/// ```
pub fn uniformity(x: &Tensor<2>, t: f64) -> Result<f64, Error> {
    block_on(uniformity_async(x, t))
}

/// [`uniformity`] without blocking.
///
/// # Errors
/// As [`uniformity`].
pub async fn uniformity_async(x: &Tensor<2>, t: f64) -> Result<f64, Error> {
    let n = x.dims()[0];
    let sigma = Sigma::Fixed((0.5 / t).sqrt());
    if n < 2 || !sigma.is_valid() {
        return Err(Error::Undefined {
            why: "uniformity needs two rows and a t above 0",
        });
    }
    let pairs = Pairs::prepare(x, Form::Rbf { sigma, unit: true }).await?;
    Ok(((n as f64 + pairs.sums.total) / (n * n) as f64).ln())
}

fn some_rows(x: &Tensor<2>) -> Result<(), Error> {
    match x.dims()[0] > 0 {
        true => Ok(()),
        false => Err(Error::Undefined {
            why: "it has no rows",
        }),
    }
}

fn length(row: &[f64]) -> f64 {
    sum_range(0..row.len(), |j| row[j] * row[j]).sqrt()
}
