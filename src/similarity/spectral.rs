//! Groups of units that two representations share, however many a group has on either side.

use burn::tensor::Tensor;
use faer::{Mat, Side};

use super::Error;
use super::correlations::{Standard, same_rows};
use crate::device::block_on;

/// Which group each unit of two representations is in. A constant unit is in none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoClusters {
    /// Group of each unit of the left side, from 0.
    pub left: Vec<Option<usize>>,
    /// Group of each unit of the right side.
    pub right: Vec<Option<usize>>,
}

/// Puts the units of both sides into `k` groups of units that correlate, within and across the sides.
///
/// `x` is `[n, dx]`, `y` is `[n, dy]`. Spectral clustering of all `dx + dy` units, two of which are as
/// near as the share of variance they have in common, `r²`; so a unit and its negative go together. A
/// group may have units of one side alone: those that the other side has nothing like.
///
/// # Errors
/// Different row counts; fewer than 2 rows; a NaN or infinity; a side whose columns are all constant,
/// `k` of 0 or more groups than units, eigenvectors that do not converge ([`Error::Undefined`]); the
/// device failing.
///
/// # Cost
/// `n (dx + dy)²` multiply-adds and an eigendecomposition, `O((dx + dy)³)`, in f64 on the host.
/// Memory: a standardised copy of each side and some matrices `[dx + dy, dx + dy]` in f64.
///
/// # Source
/// Li, Yosinski, Clune, Lipson & Hopcroft 2015, "Convergent Learning: Do different neural networks
/// learn the same representations?", section 5 (many-to-many mappings). The paper splits groups again
/// and again; here `k` is given. The eigenvectors are those of `D^-½ W D^-½` (Ng, Jordan & Weiss 2001),
/// and units get their group from a pivoted QR and a rotation (Damle, Minden & Ying 2019, "Simple,
/// direct and efficient multi-way spectral clustering") instead of k-means, so that nothing is drawn.
///
/// # Example
/// ```
/// use inscape::{Device, similarity::co_clusters};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::from_data([[1., 1.], [1., -1.], [-1., 1.], [-1., -1.]], cpu.tensor());
/// let y = Tensor::<2>::from_data([[2., 3.], [-2., 3.], [2., -3.], [-2., -3.]], cpu.tensor());
/// let found = co_clusters(&x, &y, 2)?;
/// assert_eq!([found.left[0], found.left[1]], [found.right[1], found.right[0]]);
/// # Ok(())
/// # }
/// ```
pub fn co_clusters(x: &Tensor<2>, y: &Tensor<2>, k: usize) -> Result<CoClusters, Error> {
    block_on(co_clusters_async(x, y, k))
}

/// [`co_clusters`] without blocking.
///
/// # Errors
/// As [`co_clusters`].
pub async fn co_clusters_async(
    x: &Tensor<2>,
    y: &Tensor<2>,
    k: usize,
) -> Result<CoClusters, Error> {
    same_rows(x, y)?;
    let x = Standard::prepare(x).await.map_err(|e| e.at("left"))?;
    let y = Standard::prepare(y).await.map_err(|e| e.at("right"))?;
    let own = (x.correlations(&x).await?, y.correlations(&y).await?);
    let across = x.correlations(&y).await?;
    let dx = across.rows;
    let affinity = |i: usize, j: usize| {
        let r = match (i < dx, j < dx) {
            _ if i == j => 0.0,
            (true, true) => own.0.at(i, j),
            (true, false) => across.at(i, j - dx),
            (false, true) => across.at(j, i - dx),
            (false, false) => own.1.at(i - dx, j - dx),
        };
        r * r
    };
    let mut groups = clusters(dx + across.columns, affinity, k)?;
    let right = groups.split_off(dx);
    Ok(CoClusters {
        left: groups,
        right,
    })
}

/// `k` groups of `n` things; those without any affinity are in none.
fn clusters(
    n: usize,
    affinity: impl Fn(usize, usize) -> f64,
    k: usize,
) -> Result<Vec<Option<usize>>, Error> {
    let degree: Vec<f64> = (0..n)
        .map(|i| (0..n).map(|j| affinity(i, j)).sum())
        .collect();
    let linked: Vec<usize> = (0..n).filter(|&i| degree[i] > 0.0).collect();
    if k == 0 || k > linked.len() {
        let why = "there cannot be so many groups of units";
        return Err(Error::Undefined { why });
    }
    let weight = |i: usize, j: usize| {
        let (i, j) = (linked[i], linked[j]);
        affinity(i, j) / (degree[i] * degree[j]).sqrt()
    };
    let laplacian = Mat::from_fn(linked.len(), linked.len(), weight);
    let no_convergence = || Error::Undefined {
        why: "the eigenvectors of its correlations did not converge",
    };
    let found = laplacian
        .self_adjoint_eigen(Side::Lower)
        .map_err(|_| no_convergence())?;
    let leading = found.U().subcols(linked.len() - k, k).to_owned();
    let mut groups = vec![None; n];
    let turned = turned(&leading).ok_or_else(no_convergence)?;
    for (place, &i) in linked.iter().enumerate() {
        let larger = |best: usize, c: usize| {
            let value = |c: usize| turned[(place, c)].abs();
            if value(c) > value(best) { c } else { best }
        };
        groups[i] = Some((1..k).fold(0, larger));
    }
    Ok(groups)
}

/// The vectors turned so that `k` rows that point far apart lie near the axes.
fn turned(vectors: &Mat<f64>) -> Option<Mat<f64>> {
    let k = vectors.ncols();
    let pivots = pivots(vectors);
    let chosen = Mat::from_fn(k, k, |i, j| vectors[(pivots[j], i)]);
    let svd = chosen.svd().ok()?;
    let polar = svd.U() * svd.V().transpose();
    Some(vectors * polar)
}

/// The rows a QR decomposition with column pivoting of the transpose takes first: each time the one
/// with the most left beside those taken.
fn pivots(vectors: &Mat<f64>) -> Vec<usize> {
    let (n, k) = (vectors.nrows(), vectors.ncols());
    let mut left: Vec<Vec<f64>> = (0..n)
        .map(|i| (0..k).map(|j| vectors[(i, j)]).collect())
        .collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let mut taken = Vec::with_capacity(k);
    for _ in 0..k {
        let longer = |best: usize, i: usize| {
            let length = |i: usize| dot(&left[i], &left[i]);
            if length(i) > length(best) { i } else { best }
        };
        let pivot = (1..n).fold(0, longer);
        let length = dot(&left[pivot], &left[pivot]).sqrt();
        let unit: Vec<f64> = left[pivot].iter().map(|v| v / length).collect();
        for row in &mut left {
            let along = dot(row, &unit);
            row.iter_mut().zip(&unit).for_each(|(v, u)| *v -= along * u);
        }
        taken.push(pivot);
    }
    taken
}
