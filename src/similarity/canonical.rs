//! The functions of canonical correlation analysis.

use burn::tensor::Tensor;

use super::axes::Axes;
use super::cca::{Cca, Mean, Side, Summary, correlations, white};
use super::metric::Kept;
use super::{Error, Prepared};
use crate::device::block_on;

/// The canonical correlations of two representations of the same rows, falling.
///
/// `x` is `[n, dx]`, `y` is `[n, dy]`; there are as many as the side of lower rank has directions, each
/// in 0 to 1. Directions of a singular value below 1e-6 of the largest are none. Unchanged by a shift and
/// every invertible map of either side. With ranks that reach `n - 1` together, as with `n ≤ d` on both
/// sides, correlations are 1 whatever the data: keep fewer directions ([`svcca`](svcca())), or compare
/// with a shuffle of the rows ([`null`](super::null())).
///
/// # Errors
/// Different row counts; fewer than 3 rows; a NaN or infinity; a representation whose rows are all
/// equal ([`Error::Undefined`]); the device failing.
///
/// # Cost
/// For each side a product and an eigendecomposition, `O(n d min(n, d) + min(n, d)³)`; one product and
/// one decomposition of what is kept of both. All of it on the host, in f64 whatever the tensors are. A
/// side with kept singular values below 1e-4 of the largest is decomposed itself, at about three times
/// the time. Nothing is approximated: beyond a few thousand columns and rows the cube is what counts.
/// Memory: a few copies of one side in f64, then at most `16 (n + d)` bytes a direction.
///
/// # Source
/// Hotelling 1936, "Relations between two sets of variates", by orthonormal bases (Björck & Golub 1973).
/// google/svcca adds a constant to the covariances and inverts them.
///
/// # Example
/// ```
/// use inscape::{Device, similarity::cca_correlations};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::from_data([[0., 1.], [1., 0.], [2., 3.], [4., 1.], [0., 5.]], cpu.tensor());
/// let y = x.clone().slice([0..5, 0..1]) * 3.0 - 1.0;
/// let rho = cca_correlations(&x, &y)?;
/// assert!(rho.len() == 1 && (rho[0] - 1.0).abs() < 1e-9);
/// # Ok(())
/// # }
/// ```
pub fn cca_correlations(x: &Tensor<2>, y: &Tensor<2>) -> Result<Vec<f64>, Error> {
    block_on(cca_correlations_async(x, y))
}

/// [`cca_correlations`] without blocking.
///
/// # Errors
/// As [`cca_correlations`].
pub async fn cca_correlations_async(x: &Tensor<2>, y: &Tensor<2>) -> Result<Vec<f64>, Error> {
    let sides = Prepared::sides(x, y, Cca::Plain(Summary::Mean)).await?;
    let [a, b] = sides.each_ref().map(axes);
    correlations(white(&a.basis, &b.basis, a.cross(b).as_ref()).as_ref())
}

fn axes(side: &Prepared) -> &Axes {
    match side.kept() {
        Kept::Cca(axes) => axes,
        _ => unreachable!("prepared for canonical correlations"),
    }
}

/// The canonical correlations of two representations of the same rows, as one number.
///
/// `x` is `[n, dx]`, `y` is `[n, dy]`; the result lies in 0 to 1. Large by chance where rows are few:
/// independent data gives a mean of 0.52 for 200 rows of 64 and 48 columns, and 1 for no more rows than
/// columns (see [`cca_correlations`]). [`Summary`] says what is divided by what: libraries differ.
///
/// # Errors
/// As [`cca_correlations`].
///
/// # Cost
/// As [`cca_correlations`]; [`Summary::R2`] without its last decomposition.
///
/// # Source
/// Kornblith, Norouzi, Lee & Hinton 2019, "Similarity of Neural Network Representations Revisited",
/// section 3.4: R² and the mean. With all singular values trusted, however small, rank-deficient data
/// gives sums above its rank; here the smallest are none.
///
/// # Example
/// ```
/// use inscape::{Device, similarity::{Summary, cca}};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::from_data([[0., 1.], [1., 0.], [2., 3.], [4., 1.], [0., 5.]], cpu.tensor());
/// let mixed = x.clone().matmul(Tensor::from_data([[1., 5.], [2., -1.]], cpu.tensor()));
/// assert!((cca(&x, &mixed, Summary::R2)? - 1.0).abs() < 1e-9);
/// # Ok(())
/// # }
/// ```
pub fn cca(x: &Tensor<2>, y: &Tensor<2>, summary: Summary) -> Result<f64, Error> {
    block_on(cca_async(x, y, summary))
}

/// [`cca`] without blocking.
///
/// # Errors
/// As [`cca`].
pub async fn cca_async(x: &Tensor<2>, y: &Tensor<2>, summary: Summary) -> Result<f64, Error> {
    Prepared::pair(x, y, Cca::Plain(summary)).await
}

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
/// As [`cca_correlations`]; what is multiplied and kept after the decompositions are the directions that
/// hold the variance. Beyond 4,096 columns and rows these are found by products with random vectors, some
/// `10 n d` multiply-adds a direction, unless half of all are needed (Halko, Martinsson & Tropp 2011; a
/// seed of its own, so the same every time).
///
/// # Source
/// Raghu, Gilmer, Yosinski & Sohl-Dickstein 2017, "SVCCA: Singular Vector Canonical Correlation
/// Analysis for Deep Learning Dynamics and Interpretability". The mean is over all correlations; the
/// `mean` of google/svcca is over the leading ones that hold 98 % of their sum, which the metric
/// `svcca[mean=leading]` gives ([`Mean::Leading`]).
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
    let mean = Mean::All;
    Prepared::pair(x, y, Cca::Svcca { variance, mean }).await
}

/// PWCCA: the mean canonical correlation of two representations of the same rows, weighted by how much
/// of one of them each canonical variate accounts for.
///
/// `x` is `[n, dx]`, `y` is `[n, dy]`; the result lies in 0 to 1. The weight of a variate of the side
/// `from` is the sum over that side's centred columns of the absolute value of their product with it. Not
/// symmetric; blind to every invertible map of the other side, but only to order, scale and shift of the
/// columns of `from`.
///
/// Ill-defined where some but not all correlations are equal, as several of 1 where sides share a
/// subspace exactly: any rotation of their variates is as good and gives them another weight together. One
/// rank-deficient pair gave 0.562 to 0.571, by rounding alone.
///
/// # Errors
/// As [`cca_correlations`].
///
/// # Cost
/// As [`cca_correlations`], with singular vectors.
///
/// # Source
/// Morcos, Raghu & Bengio 2018, "Insights on representational similarity in neural networks with
/// canonical correlation", section 3. Weights come from the side that is asked for, over as many variates
/// as there are correlations. google/svcca's code leaves a factor out of the variates and gives other
/// values.
///
/// # Example
/// ```
/// use inscape::{Device, similarity::{Side, pwcca}};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::from_data([[0., 1.], [1., 0.], [2., 3.], [4., 1.], [0., 5.]], cpu.tensor());
/// let y = x.clone().powf_scalar(2.0);
/// assert!((pwcca(&x, &x, Side::X)? - 1.0).abs() < 1e-9);
/// assert!(pwcca(&x, &y, Side::X)? < 1.0);
/// # Ok(())
/// # }
/// ```
pub fn pwcca(x: &Tensor<2>, y: &Tensor<2>, from: Side) -> Result<f64, Error> {
    block_on(pwcca_async(x, y, from))
}

/// [`pwcca`] without blocking.
///
/// # Errors
/// As [`pwcca`].
pub async fn pwcca_async(x: &Tensor<2>, y: &Tensor<2>, from: Side) -> Result<f64, Error> {
    Prepared::pair(x, y, Cca::Pwcca { from }).await
}
