//! Many networks as points in one plane: intensive principal component analysis of what they predict.

use burn::tensor::Tensor;
use faer::{Mat, Side};

use super::super::Error;
use super::super::host::{Rows, map_chunks};
use crate::device::block_on;

/// Probabilities of a row must sum to 1 up to this: that of many f16 summed.
const SUM: f64 = 1e-2;

/// Coordinates of networks by [`inpca`].
#[derive(Clone, Debug, PartialEq)]
pub struct InPca {
    /// One an axis, by falling size. Along an axis with a negative one differences count against the
    /// squared distance (the axis is imaginary, or time-like).
    pub eigenvalues: Vec<f64>,
    /// Of each network along each axis: an eigenvector times the root of its eigenvalue's size, the
    /// largest entry positive.
    pub coordinates: Vec<Vec<f64>>,
}

impl InPca {
    /// Squared distance of two networks along the first `axes`, each with the sign of its eigenvalue. With
    /// all of them it is the mean Bhattacharyya distance.
    pub fn squared_distance(&self, a: usize, b: usize, axes: usize) -> f64 {
        let along = self.coordinates[a].iter().zip(&self.coordinates[b]);
        let squares = along.map(|(a, b)| (a - b).powi(2)).zip(&self.eigenvalues);
        squares
            .take(axes)
            .map(|(square, value)| square * value.signum())
            .sum()
    }

    /// How much of the centred distances the first `axes` explain, 0 to 1: one less the share of their
    /// Frobenius norm that is left over. 1 if all networks predict the same.
    pub fn explained(&self, axes: usize) -> f64 {
        let squares = |values: &[f64]| values.iter().map(|v| v * v).sum::<f64>();
        let total = squares(&self.eigenvalues);
        let left = squares(&self.eigenvalues[axes.min(self.eigenvalues.len())..]);
        if total > 0.0 {
            1.0 - (left / total).sqrt()
        } else {
            1.0
        }
    }
}

/// Intensive principal component analysis (InPCA) of what many networks, or one network at many
/// times, predict for the same inputs.
///
/// `probabilities` is `[networks, n, classes]`. The distance `D` of two networks is the mean over the
/// inputs of the Bhattacharyya distance `-log Σ √(p q)`; the axes are the eigenvectors of `-½ P D P`
/// with `P` taking out the mean. The distance is not Euclidean: some eigenvalues are negative, and their
/// axes are kept like any other.
///
/// # Errors
/// Fewer than 2 networks, no inputs or no classes, a row that is below 0 somewhere or does not sum to
/// 1, two networks without a class in common for an input, whose distance is infinite
/// ([`Error::Undefined`]); a NaN or infinity (its row is that of `[networks · n, classes]`); the device
/// failing.
///
/// # Cost
/// All on the host, in f64: `networks² n classes / 2` multiply-adds, as many logarithms as there are
/// pairs and inputs, an eigendecomposition. Memory: the probabilities and four `networks²` matrices.
///
/// # Source
/// Quinn, Clement, De Bernardis, Niemack & Sethna 2019, "Visualizing probabilistic models and data with
/// intensive principal component analysis" (their distance is 8 times this one); Mao et al. 2024, "The
/// training process of many deep networks explores the same low-dimensional manifold", whose distance
/// and scale this is.
///
/// # Example
/// ```
/// use inscape::{Device, similarity::inpca};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// // Three coins, thrown once.
/// let coins = Tensor::<3>::from_data([[[0.5, 0.5]], [[0.9, 0.1]], [[0.1, 0.9]]], Device::cpu().tensor());
/// let found = inpca(&coins)?;
/// let overlap = 2.0 * (0.9f64 * 0.1).sqrt();
/// assert!((found.squared_distance(1, 2, 3) + overlap.ln()).abs() < 1e-6);
/// assert!(found.eigenvalues[0] > 0.0 && found.eigenvalues[1] < 0.0);
/// # Ok(())
/// # }
/// ```
pub fn inpca(probabilities: &Tensor<3>) -> Result<InPca, Error> {
    block_on(inpca_async(probabilities))
}

/// [`inpca`] without blocking.
///
/// # Errors
/// As [`inpca`].
pub async fn inpca_async(probabilities: &Tensor<3>) -> Result<InPca, Error> {
    let [m, n, classes] = probabilities.dims();
    if m < 2 || n == 0 || classes == 0 {
        return Err(Error::Undefined {
            why: "InPCA needs two networks or more, an input and a class",
        });
    }
    let mut rows = Rows::<f64>::unscaled(&probabilities.clone().reshape([m * n, classes])).await?;
    check(&rows)?;
    rows.values = rows.map(roots).concat().into();
    let distances = distances(&rows, m, n)?;
    axes(centred(&distances))
}

fn check(rows: &Rows<f64>) -> Result<(), Error> {
    let is_distribution =
        |row: &[f64]| row.iter().all(|p| *p >= 0.0) && (row.iter().sum::<f64>() - 1.0).abs() <= SUM;
    match rows.map(is_distribution).contains(&false) {
        true => Err(Error::Undefined {
            why: "its rows are not probabilities: below 0, or not of sum 1",
        }),
        false => Ok(()),
    }
}

/// Roots of the probabilities, of length 1 whatever the rounding of their sum.
fn roots(row: &[f64]) -> Vec<f64> {
    let length = row.iter().sum::<f64>().sqrt();
    row.iter().map(|p| p.sqrt() / length).collect()
}

/// Mean Bhattacharyya distances `[m, m]` from the roots of the probabilities, `[m · n, classes]`.
fn distances(roots: &Rows<f64>, m: usize, n: usize) -> Result<Mat<f64>, Error> {
    let overlap = |a: usize, b: usize| -> f64 {
        let (a, b) = (roots.row(a), roots.row(b));
        a.iter().zip(b).map(|(p, q)| p * q).sum()
    };
    let distance = |i: usize, j: usize| {
        let at = |k: usize| -overlap(i * n + k, j * n + k).min(1.0).ln();
        (0..n).map(at).sum::<f64>() / n as f64
    };
    let rows = map_chunks(m, 1, |r| {
        (0..r.start)
            .map(|j| distance(r.start, j))
            .collect::<Vec<_>>()
    });
    if rows.iter().flatten().any(|d| !d.is_finite()) {
        return Err(Error::Undefined {
            why: "two networks have no class in common for an input: their distance is infinite",
        });
    }
    Ok(Mat::from_fn(m, m, |i, j| match i == j {
        true => 0.0,
        false => rows[i.max(j)][i.min(j)],
    }))
}

/// `-½ P D P`.
fn centred(d: &Mat<f64>) -> Mat<f64> {
    let m = d.nrows();
    let means: Vec<f64> = (0..m)
        .map(|i| (0..m).map(|j| d[(i, j)]).sum::<f64>() / m as f64)
        .collect();
    let mean = means.iter().sum::<f64>() / m as f64;
    Mat::from_fn(m, m, |i, j| (means[i] + means[j] - mean - d[(i, j)]) / 2.0)
}

fn axes(w: Mat<f64>) -> Result<InPca, Error> {
    let m = w.nrows();
    let found = w
        .self_adjoint_eigen(Side::Lower)
        .map_err(|_| Error::Undefined {
            why: "the eigenvalues of its distances did not converge",
        })?;
    let (values, vectors) = (found.S().column_vector(), found.U());
    let mut order: Vec<usize> = (0..m).collect();
    order.sort_by(|&a, &b| values[b].abs().total_cmp(&values[a].abs()));
    let factor = |&k: &usize| {
        let largest = vectors
            .col(k)
            .iter()
            .fold(0.0f64, |m, v| if v.abs() > m.abs() { *v } else { m });
        values[k].abs().sqrt() * largest.signum()
    };
    let factors: Vec<f64> = order.iter().map(factor).collect();
    let row = |i: usize| {
        order
            .iter()
            .zip(&factors)
            .map(|(&k, f)| f * vectors[(i, k)])
            .collect()
    };
    Ok(InPca {
        eigenvalues: order.iter().map(|&k| values[k]).collect(),
        coordinates: (0..m).map(row).collect(),
    })
}
