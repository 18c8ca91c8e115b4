use burn::tensor::{Int, Tensor};

use super::{Error, Firing, Matrix, at_least, differ};
use crate::device::block_on;

/// What some latents alone make of each row on which one of them fires: `Σ_{j in cluster} f_j d_j`,
/// `[rows that fire, d]`. `values` and `indices` `[n, k]` are the latents of `n` rows, `w_dec`
/// `[d_sae, d]` the decoder.
///
/// # Errors
/// [`Error::NotFinite`]; [`Error::TooFew`] if the cluster fires on no row; the device failed.
///
/// # Panics
/// If an index or the cluster names a latent that `w_dec` does not have.
///
/// # Cost
/// Holds the latents and the rows that fire.
pub fn cluster_reconstructions(
    values: Tensor<2>,
    indices: Tensor<2, Int>,
    w_dec: &Matrix,
    cluster: &[usize],
) -> Result<Matrix, Error> {
    block_on(cluster_reconstructions_async(
        values, indices, w_dec, cluster,
    ))
}

/// [`cluster_reconstructions`] without blocking.
///
/// # Errors
/// As [`cluster_reconstructions`].
pub async fn cluster_reconstructions_async(
    values: Tensor<2>,
    indices: Tensor<2, Int>,
    w_dec: &Matrix,
    cluster: &[usize],
) -> Result<Matrix, Error> {
    let mut firing = Firing::new();
    firing.add_async(values, indices).await?;
    firing.reconstructions(w_dec, cluster, usize::MAX)
}

/// The directions of largest variance.
#[derive(Clone, Debug, PartialEq)]
pub struct Principal {
    /// Mean row.
    pub mean: Vec<f64>,
    /// Orthonormal directions, one a row, by falling variance: `[d, d]`.
    pub axes: Matrix,
    /// Variance along each.
    pub variances: Vec<f64>,
}

impl Principal {
    /// Principal components of points `[n, d]`.
    ///
    /// # Errors
    /// [`Error::TooFew`] for fewer than two points; [`Error::Undefined`] for points that are all
    /// the same.
    ///
    /// # Cost
    /// `O(n d² + d³)`; holds a few `[d, d]`.
    pub fn of(points: &Matrix) -> Result<Self, Error> {
        let measure = "principal components";
        at_least(measure, "points", 2, points.rows())?;
        differ(measure, points)?;
        let (mut variances, axes) = points.covariance().eigen(measure)?;
        // What rounding leaves below 0.
        variances.iter_mut().for_each(|v| *v = v.max(0.0));
        Ok(Self {
            mean: points.mean(),
            axes,
            variances,
        })
    }

    /// Coordinates of points along the axes from `first`, `count` of them: `[n, count]`.
    pub fn project(&self, points: &Matrix, first: usize, count: usize) -> Matrix {
        let axes: Vec<usize> = (first..first + count).collect();
        let axes = self.axes.select(&axes);
        points.less(&self.mean).times_transposed(&axes)
    }

    /// Share of the variance that lies in `count` axes from `first`: R² of that subspace.
    pub fn r2(&self, first: usize, count: usize) -> f64 {
        let some: f64 = self.variances[first..first + count].iter().sum();
        some / self.variances.iter().sum::<f64>()
    }
}
