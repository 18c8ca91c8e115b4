//! The functions of predictivity.

use burn::tensor::Tensor;

use super::cca::Side;
use super::metric::Kept as Any;
use super::predictivity::{Goodness, Kept, Over, Predictivity, unit_scores};
use super::regression::Mapping;
use super::{Error, Prepared};
use crate::device::block_on;

/// The share of the variance of `y` that a linear map of `x` explains, on the rows it is fitted on.
///
/// `x` is `[n, dx]`, `y` is `[n, dy]`; the result lies in 0 to 1: `‖Uxᵀ Y‖² / ‖Y‖²` with an orthonormal
/// basis `Ux` of the centred columns of `x`. Each unit of `y` counts by its variance. Not symmetric; blind
/// to every invertible map of `x`, and to rotation, one scale and shift of `y`. The fit is not tested on
/// other rows: independent data gives `dx / (n - 1)` on average, and 1 with no more rows than columns of
/// `x`. [`predictivity`] holds rows out.
///
/// # Errors
/// Different row counts; fewer than 3 rows; a NaN or infinity; a representation whose rows are all
/// equal ([`Error::Undefined`]); the device failing.
///
/// # Cost
/// As [`cca`](super::cca()), without its last decomposition.
///
/// # Source
/// Kornblith, Norouzi, Lee & Hinton 2019, "Similarity of Neural Network Representations Revisited",
/// table 1, linear regression.
///
/// # Example
/// ```
/// use inscape::{Device, similarity::linear_r2};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::from_data([[0., 1.], [1., 0.], [2., 3.], [4., 1.], [0., 5.]], cpu.tensor());
/// let y = x.clone().slice([0..5, 0..1]) * 3.0 - 1.0;
/// assert!((linear_r2(&x, &y)? - 1.0).abs() < 1e-9);
/// assert!(linear_r2(&y, &x)? < 0.9);
/// # Ok(())
/// # }
/// ```
pub fn linear_r2(x: &Tensor<2>, y: &Tensor<2>) -> Result<f64, Error> {
    block_on(linear_r2_async(x, y))
}

/// [`linear_r2`] without blocking.
///
/// # Errors
/// As [`linear_r2`].
pub async fn linear_r2_async(x: &Tensor<2>, y: &Tensor<2>) -> Result<f64, Error> {
    Prepared::pair(x, y, Predictivity::LinearR2 { target: Side::Y }).await
}

/// The share of the variance of `y` that a ridge regression on `x` explains, on the rows it is fitted on.
///
/// As [`linear_r2`], with the penalty `lambda` on the squared weights, in units of `x`: it sees the scale
/// of `x`.
///
/// # Errors
/// As [`linear_r2`]; a `lambda` that is negative or not finite ([`Error::UnknownMetric`]).
///
/// # Cost
/// As [`linear_r2`].
///
/// # Source
/// Hoerl & Kennard 1970, "Ridge regression"; the intercept is free. R² weights units by their variance.
///
/// # Example
/// ```
/// use inscape::{Device, similarity::ridge_r2};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::from_data([[-1.], [0.], [1.]], cpu.tensor());
/// // Half of the slope is left: a quarter of the squares is missed.
/// assert!((ridge_r2(&x, &(x.clone() * 5.0), 2.0)? - 0.75).abs() < 1e-9);
/// # Ok(())
/// # }
/// ```
pub fn ridge_r2(x: &Tensor<2>, y: &Tensor<2>, lambda: f64) -> Result<f64, Error> {
    block_on(ridge_r2_async(x, y, lambda))
}

/// [`ridge_r2`] without blocking.
///
/// # Errors
/// As [`ridge_r2`].
pub async fn ridge_r2_async(x: &Tensor<2>, y: &Tensor<2>, lambda: f64) -> Result<f64, Error> {
    let target = Side::Y;
    Prepared::pair(x, y, Predictivity::RidgeR2 { lambda, target }).await
}

/// How well a linear map of `x` predicts each unit of `y` on rows that it was not fitted on.
///
/// `x` is `[n, dx]`, `y` is `[n, dy]`; the result has a score for each of the `dy` columns, none for one
/// that varies in no fold. Row `i` is tested in fold `i % folds` by a map fitted on all rows of the other
/// folds, centred by their means; a unit's score is the mean over the folds whose test rows it varies in.
/// Rows that belong together (frames of one film) should be put into one fold by their order.
///
/// As one number it is the metric `ridge_cv` or `pls`; with [`Penalty::Auto`](super::Penalty::Auto) the penalty of each fold
/// is chosen on its training rows.
///
/// # Errors
/// Different row counts; fewer than 2 rows a fold for R², 3 for Pearson; a NaN or infinity; predictors
/// whose training rows are all equal ([`Error::Undefined`]); fewer than 2 folds, no components, a penalty
/// that is negative or not finite ([`Error::UnknownMetric`]); the device failing.
///
/// # Cost
/// A fold of ridge regression decomposes its training rows, `O(n dx min(n, dx))`, and multiplies,
/// `O(n r dy)` with the rank `r` (for each of 13 penalties if that is chosen): weights `[dx, dy]` are never
/// formed. A component of partial least squares costs some ten products of an `[dx, dy]` matrix with a
/// vector, and two of the rows. All on the host in f64. Memory: `8 n (dx + dy)` bytes, and for ridge
/// regression up to `16 folds r (n + dx)`.
///
/// # Source
/// The maps of Brain-Goodness (Schrimpf et al. 2018): partial least squares with 25 components, the columns
/// centred but not scaled, or ridge regression; there, folds are random. Partial least squares is
/// that of scikit-learn's `PLSRegression(scale=False)`, its weights to rounding and not to a tolerance. The
/// choice of a penalty is that of its `RidgeCV`: each row left out in turn, in closed form.
///
/// # Example
/// ```
/// use inscape::{Device, similarity::{Mapping, Penalty, Goodness, predictivity}};
/// use burn::tensor::{Distribution, Tensor};
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::random([40, 3], Distribution::Default, cpu.tensor());
/// let noise = Tensor::<2>::random([40, 1], Distribution::Default, cpu.tensor());
/// let y = Tensor::cat(vec![x.clone().sum_dim(1), noise.clone(), noise * 0.0], 1);
/// let units = predictivity(&x, &y, Mapping::Ridge(Penalty::Auto), 5, Goodness::R2)?;
/// assert!(units[0] > Some(0.99) && units[1] < Some(0.7) && units[2].is_none());
/// # Ok(())
/// # }
/// ```
pub fn predictivity(
    x: &Tensor<2>,
    y: &Tensor<2>,
    by: Mapping,
    folds: usize,
    score: Goodness,
) -> Result<Vec<Option<f64>>, Error> {
    block_on(predictivity_async(x, y, by, folds, score))
}

/// [`predictivity`] without blocking.
///
/// # Errors
/// As [`predictivity`].
pub async fn predictivity_async(
    x: &Tensor<2>,
    y: &Tensor<2>,
    by: Mapping,
    folds: usize,
    score: Goodness,
) -> Result<Vec<Option<f64>>, Error> {
    let metric = Predictivity::CrossValidated {
        by,
        folds,
        score,
        over: Over::Mean,
        target: Side::Y,
    };
    let sides = Prepared::sides(x, y, metric).await?;
    match sides.each_ref().map(Prepared::kept) {
        [
            Any::Predictivity(Kept::Folds(from)),
            Any::Predictivity(Kept::Folds(to)),
        ] => unit_scores(from, to, by, score),
        _ => unreachable!("prepared for folds"),
    }
}
