//! Bures similarity of the kernels that dissimilarities stand for.

use faer::{Mat, Side};

use super::super::Error;
use super::super::axes::no_convergence;
use super::compare::equal;
use super::whitened::square;

/// Eigenvalues below this share of the largest are rounding.
const NONE: f64 = 1e-12;

/// `F` with `F Fᵀ` the positive part of `-H D H / 2`, `[n, rank]`.
#[derive(Clone, Debug)]
pub(super) struct Root {
    factor: Mat<f64>,
    trace: f64,
}

impl Root {
    /// `upper` is the upper triangle of `D`.
    pub(super) fn new(upper: &[f64], n: usize) -> Result<Self, Error> {
        let eigen = centred(upper, n)
            .self_adjoint_eigen(Side::Lower)
            .map_err(|_| no_convergence())?;
        let values: Vec<f64> = eigen.S().column_vector().iter().copied().collect();
        let largest = values.last().copied().unwrap_or(0.0);
        let first = values.partition_point(|v| *v <= NONE * largest);
        let rank = n - first;
        if largest <= 0.0 || rank == 0 {
            return Err(equal());
        }
        let factor = |i: usize, j: usize| eigen.U()[(i, first + j)] * values[first + j].sqrt();
        Ok(Self {
            factor: Mat::from_fn(n, rank, factor),
            trace: values[first..].iter().sum(),
        })
    }

    pub(super) fn reordered(&self, order: &[usize]) -> Self {
        let (n, rank) = (self.factor.nrows(), self.factor.ncols());
        Self {
            factor: Mat::from_fn(n, rank, |i, j| self.factor[(order[i], j)]),
            trace: self.trace,
        }
    }

    pub(super) fn compare(&self, other: &Self) -> Result<f64, Error> {
        let product = self.factor.transpose() * &other.factor;
        let singular = product.singular_values().map_err(|_| no_convergence())?;
        Ok(singular.iter().sum::<f64>() / self.trace.sqrt() / other.trace.sqrt())
    }
}

/// `-H D H / 2`.
fn centred(upper: &[f64], n: usize) -> Mat<f64> {
    let whole = square(upper, n);
    let means: Vec<f64> = (0..n)
        .map(|i| whole.col(i).iter().sum::<f64>() / n as f64)
        .collect();
    let mean = means.iter().sum::<f64>() / n as f64;
    Mat::from_fn(n, n, |i, j| {
        -0.5 * (whole[(i, j)] - means[i] - means[j] + mean)
    })
}
