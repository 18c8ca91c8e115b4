//! Singular vector canonical correlation analysis (SVCCA): how much of two subspaces is one.

use burn::tensor::{DType, Tensor};
use faer::{Mat, MatRef};

use super::host::{Real, Rows, working};
use super::{Error, Metric, Prepared};
use crate::device::block_on;

/// Directions below this share of the largest singular value are none: rounding, in either precision.
const NONE: f64 = 1e-6;

/// SVCCA of two representations of the same rows.
///
/// `x` is `[n, dx]`, `y` is `[n, dy]`; the result lies in 0 to 1. Of each side the fewest principal
/// directions are kept that hold at least `variance` of its variance (0.99 in the paper); the result
/// is the mean of the canonical correlations of the two sets of scores, of which there are as many as
/// the smaller set has. With `variance = 1` it is plain CCA: every direction of a singular value above
/// 1e-6 of the largest is kept. Unchanged by rotation, one scale and a shift of either side, and with
/// `variance = 1` by every invertible map.
///
/// Large by chance where rows are few: independent data gives 0.42 for 200 rows of 64 and 48 columns,
/// and 1 when both sides keep as many directions as there are rows less one. Compare it with a shuffle of
/// the rows of one side.
///
/// # Errors
/// Different row counts; fewer than 3 rows; a NaN or infinity; a representation whose rows are all
/// equal ([`Error::Undefined`]); a `variance` that is not above 0 and at most 1
/// ([`Error::UnknownMetric`]); the device failing.
///
/// # Cost
/// Two singular value decompositions, `O(n d min(n, d))`, and one of the product of what is kept; all
/// of it on the host, in f64 whatever the tensors are. Memory: a few copies of one side in f64, then
/// `8 n` bytes a direction kept.
///
/// # Source
/// Raghu, Gilmer, Yosinski & Sohl-Dickstein 2017, "SVCCA: Singular Vector Canonical Correlation
/// Analysis for Deep Learning Dynamics and Interpretability". The mean is over all correlations; the
/// `mean` of google/svcca is over the leading ones that hold 98 % of their sum.
///
/// # Example
/// ```
/// use inscape::{Device, similarity::svcca};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::from_data([[0., 1.], [1., 0.], [2., 3.], [4., 1.], [0., 5.]], cpu.tensor());
/// let turned = x.clone().matmul(Tensor::from_data([[0.6, -0.8], [0.8, 0.6]], cpu.tensor()));
/// assert!((svcca(&x, &turned, 0.99)? - 1.0).abs() < 1e-5);
/// # Ok(())
/// # }
/// ```
pub fn svcca(x: &Tensor<2>, y: &Tensor<2>, variance: f64) -> Result<f64, Error> {
    block_on(svcca_async(x, y, variance))
}

/// [`svcca`] without blocking.
///
/// # Errors
/// As [`svcca`].
pub async fn svcca_async(x: &Tensor<2>, y: &Tensor<2>, variance: f64) -> Result<f64, Error> {
    Prepared::pair(x, y, Metric::Svcca { variance }).await
}

/// What SVCCA keeps of one representation: orthonormal scores along its largest directions,
/// `[n, kept]`.
#[derive(Clone, Debug)]
pub(super) struct Directions(Mat<f64>);

impl Directions {
    pub(super) async fn prepare(x: &Tensor<2>, variance: f64) -> Result<Self, Error> {
        let rows = match x.dtype() {
            DType::F64 => Rows::<f64>::read(x.clone()).await?.1,
            _ => wide(Rows::<f32>::read(working(x)).await?.1),
        };
        let mean = rows.column_means();
        let centred = Mat::from_fn(rows.n, rows.d, |i, j| rows.row(i)[j] - mean[j]);
        drop(rows);
        let found = centred.thin_svd().map_err(|_| no_convergence())?;
        let singular: Vec<f64> = found.S().column_vector().iter().copied().collect();
        match kept(&singular, variance) {
            0 => Err(Error::Undefined {
                why: "all its rows are equal",
            }),
            kept => Ok(Self(found.U().subcols(0, kept).to_owned())),
        }
    }

    pub(super) fn compare(&self, other: &Self) -> Result<f64, Error> {
        let (a, b): (MatRef<'_, f64>, MatRef<'_, f64>) = (self.0.as_ref(), other.0.as_ref());
        let product = a.transpose() * b;
        let correlations = product.singular_values().map_err(|_| no_convergence())?;
        let sum: f64 = correlations.iter().map(|rho| rho.min(1.0)).sum();
        Ok(sum / correlations.len() as f64)
    }
}

fn no_convergence() -> Error {
    Error::Undefined {
        why: "its singular values did not converge",
    }
}

/// The same rows in f64, so that their means are exact too.
fn wide(rows: Rows<f32>) -> Rows<f64> {
    Rows {
        values: rows.values.iter().map(|v| v.wide()).collect(),
        n: rows.n,
        d: rows.d,
    }
}

/// How many of the falling singular values hold `variance` of the summed squares; 0 if all are 0.
fn kept(singular: &[f64], variance: f64) -> usize {
    let largest = singular.first().copied().unwrap_or(0.0);
    let rank = singular.iter().take_while(|s| **s > NONE * largest).count();
    let total: f64 = singular.iter().map(|s| s * s).sum();
    let mut sum = 0.0;
    let below = |s: &&f64| {
        sum += **s * **s;
        sum < variance * total
    };
    let enough = singular.iter().take_while(below).count() + 1;
    enough.min(rank)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fewest_directions_that_hold_enough() {
        let singular = [3.0, 2.0, 1.0, 1e-9, 0.0]; // squares 9, 4, 1
        for (variance, fewest) in [(0.6, 1), (0.65, 2), (0.92, 2), (0.93, 3), (1.0, 3)] {
            assert_eq!(kept(&singular, variance), fewest, "{variance}");
        }
        assert_eq!((kept(&[0.0, 0.0], 0.9), kept(&[], 0.9)), (0, 0));
    }
}
