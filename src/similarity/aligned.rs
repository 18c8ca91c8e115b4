//! Two more readings of the best rotation: the rows it brings together, and the Gaussians it leaves apart.

use burn::tensor::Tensor;
use faer::Mat;

use super::axes::{Axes, no_convergence, scaled_rows};
use super::procrustes::{Side, matrix, unscaled};
use super::shape::Shape;
use super::{Error, Prepared};
use crate::device::block_on;

/// Mean cosine of the rows of one side, turned onto the other, with those of the other.
pub(super) fn mean_cosine(a: &Side, b: &Side) -> Result<f64, Error> {
    let cross = a.cross(b);
    let found = cross.thin_svd().map_err(|_| no_convergence())?;
    let (turned, other) = (&a.z * found.U(), &b.z * found.V());
    let cosine = |i: usize| {
        let product: f64 = (0..turned.ncols())
            .map(|j| turned[(i, j)] * other[(i, j)])
            .sum();
        product / a.z.row(i).norm_l2() / b.z.row(i).norm_l2()
    };
    let mean = (0..a.z.nrows()).map(cosine).sum::<f64>() / a.z.nrows() as f64;
    match mean.is_finite() {
        true => Ok(mean.clamp(-1.0, 1.0)),
        false => Err(Error::Undefined {
            why: "one of its rows is 0 and has no direction",
        }),
    }
}

/// The mean of the rows and a root of their covariance.
#[derive(Clone, Debug)]
pub(super) struct Moments {
    /// In the units of the representation.
    mean: Vec<f64>,
    /// `[d, r]`, times its transpose the covariance.
    root: Side,
}

impl Moments {
    pub(super) async fn prepare(x: &Tensor<2>) -> Result<Self, Error> {
        let (rows, unit) = scaled_rows(x).await?;
        let mean = rows.column_means().iter().map(|m| m * unit).collect();
        let basis = Axes::of(matrix(&rows, true))?.basis;
        let least = ((rows.n - 1) as f64).sqrt();
        let root = Mat::from_fn(basis.d, basis.s.len(), |i, j| {
            basis.v[(i, j)] * basis.s[j] / least
        });
        Ok(Self {
            mean,
            root: Side::new(root, unit),
        })
    }

    /// Squared distance of the two Gaussians.
    pub(super) fn apart(&self, other: &Self) -> Result<f64, Error> {
        let means = self.mean.iter().zip(&other.mean);
        let means: f64 = means.map(|(a, b)| (a - b).powi(2)).sum();
        let lengths = [self.root.length(), other.root.length()];
        Ok(means + unscaled(self.root.gap(&other.root)?, lengths))
    }
}

/// Mean cosine of the rows of `x`, turned as a whole onto `y`, with the rows of `y`.
///
/// `x` is `[n, dx]`, `y` is `[n, dy]`, neither centred; the result lies in -1 to 1. The rotation is the
/// one that brings the two closest in squared distance, so rows of great length lead it, and then each
/// row counts alike. Unchanged by rotation and one scale of either side.
///
/// # Errors
/// Different row counts; fewer than 3 rows; a NaN or infinity; a row of zeros ([`Error::Undefined`]);
/// the device failing.
///
/// # Cost
/// As [`procrustes`](super::procrustes()), with the singular vectors as well.
///
/// # Source
/// Hamilton, Leskovec & Jurafsky 2016, "Diachronic Word Embeddings Reveal Statistical Laws of Semantic
/// Change", averaged over the rows as in the ReSi benchmark (Klabunde et al. 2025).
///
/// ```
/// use inscape::{Device, similarity::aligned_cosine};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::from_data([[0., 1.], [1., 0.], [2., 3.], [4., 1.]], cpu.tensor());
/// let turned = x.clone().matmul(Tensor::from_data([[0.6, -0.8], [0.8, 0.6]], cpu.tensor()));
/// assert!((aligned_cosine(&x, &turned)? - 1.0).abs() < 1e-6);
/// # Ok(())
/// # }
/// ```
pub fn aligned_cosine(x: &Tensor<2>, y: &Tensor<2>) -> Result<f64, Error> {
    block_on(aligned_cosine_async(x, y))
}

/// [`aligned_cosine`] without blocking.
///
/// # Errors
/// As [`aligned_cosine`].
pub async fn aligned_cosine_async(x: &Tensor<2>, y: &Tensor<2>) -> Result<f64, Error> {
    Prepared::pair(x, y, Shape::AlignedCosine).await
}

/// Squared Fréchet distance of two clouds of rows, each taken for a Gaussian:
/// `|μx - μy|² + tr(Cx + Cy - 2 (Cx^½ Cy Cx^½)^½)`.
///
/// `x` and `y` are `[n, d]` of the same columns; covariances are over `n - 1`. It compares two
/// distributions in one space, and not which row is which: rows in another order change nothing, and
/// any change of one side does. (As a metric here both sides have equally many rows.)
///
/// # Errors
/// Different row or column counts; fewer than 2 rows; a NaN or infinity; a representation whose rows
/// are all equal ([`Error::Undefined`]); the device failing.
///
/// # Cost
/// A decomposition of each side, `O(n d min(n, d))`, and the singular values of a `[d, d]` product, on
/// the host in f64. Memory: `8 n d` bytes a side while it is prepared, `8 d²` kept.
///
/// # Source
/// Dowson & Landau 1982; Heusel et al. 2017 for features of networks. The trace of the root is the sum
/// of the singular values of `Lxᵀ Ly`, with `L Lᵀ` the covariance, so no root of a product is taken,
/// and near 0 the difference of the two `L` is measured. Directions below 1e-6 of the largest singular
/// value count as none.
///
/// ```
/// use inscape::{Device, similarity::frechet_distance};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::from_data([[0., 1.], [1., 0.], [2., 3.], [4., 1.]], cpu.tensor());
/// let shifted = x.clone() + 3.0;
/// assert!((frechet_distance(&x, &shifted)? - 18.0).abs() < 1e-5);
/// # Ok(())
/// # }
/// ```
pub fn frechet_distance(x: &Tensor<2>, y: &Tensor<2>) -> Result<f64, Error> {
    block_on(frechet_distance_async(x, y))
}

/// [`frechet_distance`] without blocking.
///
/// # Errors
/// As [`frechet_distance`].
pub async fn frechet_distance_async(x: &Tensor<2>, y: &Tensor<2>) -> Result<f64, Error> {
    Prepared::pair(x, y, Shape::Frechet).await
}
