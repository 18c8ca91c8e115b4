//! Linear centred kernel alignment (CKA).
//!
//! With `K = Xc Xcᵀ` and `L = Yc Ycᵀ` of the column-centred features, CKA is
//! `HSIC(K, L) / √(HSIC(K, K) · HSIC(L, L))`. Everything an HSIC of linear kernels needs is the
//! scalar `⟨K, L⟩` and the diagonals of `K` and `L`:
//!
//! - `⟨K, L⟩ = ‖Xcᵀ Yc‖²` (feature form, `n·d²`), taken unless both sides have more columns than
//!   rows; then the sum over the Gram matrices themselves (`n²·d`). The two agree to rounding.
//! - the biased estimator is `⟨K, L⟩` itself (its scale cancels);
//! - the unbiased one is `⟨K, L⟩ - n/(n-2) Σ kᵢᵢ lᵢᵢ + Σ kᵢᵢ Σ lᵢᵢ / ((n-1)(n-2))`, which is
//!   Song et al.'s for centred features.
//!
//! Features are centred before any product, so a constant added to a column changes nothing.
//! Products run on the device, those of the CPU in blocks of this crate's own; their squares are summed in
//! f64 on the host. A table of many layers goes through the Gram matrices where that is less work.

use std::borrow::Cow;

use burn::tensor::{DType, Int, Tensor, TensorData};

use super::host::{Real, Rows, Values, beside, is_here, sum, sum_range, working};
use super::metric::Grid;
use super::pairs::PACKED;
use super::products::Strips;
use super::{Error, Kernel, Prepared, tiles};
use crate::device::{self, block_on};

/// Most columns of one block of a `Xᵀ X`; blocks below the diagonal are not computed.
const BLOCK: usize = 256;

/// Most values of one block of a `Xᵀ Y`: 16 MiB in f32.
const PRODUCT: usize = 1 << 22;

/// Which estimator of HSIC a CKA is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Estimator {
    /// Gretton et al. 2005, as in Kornblith et al. 2019. Grows with `d / n` even for independent data.
    Biased,
    /// Song et al. 2012, equation 5 (also called debiased). Near 0 for independent data; may be negative.
    Unbiased,
}

/// Linear CKA of two representations of the same rows.
///
/// `x` is `[n, dx]`, `y` is `[n, dy]`; the result has no unit, 1 for equal representations.
/// Unchanged by rotation, permutation, one scale and a shift of either side; not by scaling single
/// columns. Constant columns count for nothing. The result is not clamped.
///
/// # Errors
/// Different row counts; fewer than 2 rows (biased) or 4 (unbiased); a NaN or infinity; a
/// representation whose rows are all equal, or whose unbiased self-HSIC is not above rounding
/// ([`Error::Undefined`]); the device failing.
///
/// # Cost
/// `n (dx² / 2 + dx dy + dy² / 2)` multiply-adds, or `n² (dx + dy) / 2` when `n` is below both
/// widths. Memory: a centred copy of each side, blocks of at most 16 MiB, and with `n < d` half an
/// `n × n` matrix; never `n × n` otherwise.
///
/// # Source
/// Kornblith et al. 2019, "Similarity of Neural Network Representations Revisited", equation 4;
/// Song et al. 2012, "Feature Selection via Dependence Maximization", equation 5. The unbiased form
/// is used in all three places, as Nguyen et al. 2021 do.
///
/// # Example
/// ```
/// use inscape::{Device, similarity::{Estimator, linear_cka}};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::from_data([[0., 1.], [1., 0.], [2., 3.], [4., 1.], [0., 5.]], cpu.tensor());
/// let y = x.clone() * 3.0 + 100.0;
/// assert!((linear_cka(&x, &y, Estimator::Unbiased)? - 1.0).abs() < 1e-5);
/// # Ok(())
/// # }
/// ```
pub fn linear_cka(x: &Tensor<2>, y: &Tensor<2>, estimator: Estimator) -> Result<f64, Error> {
    block_on(linear_cka_async(x, y, estimator))
}

/// [`linear_cka`] without blocking.
///
/// # Errors
/// As [`linear_cka`].
pub async fn linear_cka_async(
    x: &Tensor<2>,
    y: &Tensor<2>,
    estimator: Estimator,
) -> Result<f64, Error> {
    Prepared::pair(x, y, Kernel::LinearCka(estimator)).await
}

/// What linear kernels need of one representation.
#[derive(Clone, Debug)]
pub(super) struct Features {
    centred: Centred,
    /// Squared length of each centred row: the diagonal of the Gram matrix.
    diagonal: Vec<f64>,
    /// Strict upper triangle of the Gram matrix, kept when `n < d` and for large grids.
    gram: Option<Values>,
    /// `⟨K, K⟩`.
    own: f64,
    /// What the features were multiplied by.
    scale: f64,
    /// Spacing of the numbers just above 1 in which the products were taken.
    epsilon: f64,
}

/// Column-centred rows, `[n, d]`, where their products are taken.
#[derive(Clone, Debug)]
enum Centred {
    Narrow(Strips<f32>),
    Wide(Strips<f64>),
    /// On a GPU.
    There(Box<Tensor<2>>),
}

/// An element that rows are held in.
trait Held: Real {
    fn hold(rows: Strips<Self>) -> Centred;
}

impl Held for f32 {
    fn hold(rows: Strips<Self>) -> Centred {
        Centred::Narrow(rows)
    }
}

impl Held for f64 {
    fn hold(rows: Strips<Self>) -> Centred {
        Centred::Wide(rows)
    }
}

impl Features {
    pub(super) async fn prepare(x: &Tensor<2>, grid: Option<Grid>) -> Result<Self, Error> {
        let [n, d] = x.dims();
        let through_gram = n < d || grid.is_some_and(|t| prefers_gram(n, t) && is_here(x));
        match x.dtype() {
            DType::F64 => Self::prepare_as::<f64>(x, through_gram).await,
            _ => Self::prepare_as::<f32>(&working(x), through_gram).await,
        }
    }

    async fn prepare_as<T: Held>(x: &Tensor<2>, through_gram: bool) -> Result<Self, Error> {
        if is_here(x) {
            // Squares that lie near 1 are those of finite values that need no scale: a pass is saved.
            let rows = Rows::<T>::unchecked(x).await?;
            let (rows, diagonal) = Strips::centred(&rows, &rows.column_means());
            let near = |s: &f64| (1e-20..=1e20).contains(s);
            if diagonal.iter().any(near) && diagonal.iter().all(|s| *s == 0.0 || near(s)) {
                return Self::new::<T>(T::hold(rows), diagonal, 1.0, through_gram).await;
            }
        }
        let (x, rows, scale) = Rows::<T>::scaled(x.clone()).await?;
        Self::of(&x, rows, scale, through_gram).await
    }

    /// Of each `batch` rows in order; the last may be shorter.
    pub(super) async fn batches(x: &Tensor<2>, batch: usize) -> Result<Vec<Self>, Error> {
        match x.dtype() {
            DType::F64 => Self::batches_as::<f64>(x, batch).await,
            _ => Self::batches_as::<f32>(&working(x), batch).await,
        }
    }

    async fn batches_as<T: Held>(x: &Tensor<2>, batch: usize) -> Result<Vec<Self>, Error> {
        let (x, rows, scale) = Rows::<T>::scaled(x.clone()).await?;
        let mut parts = Vec::with_capacity(rows.n.div_ceil(batch));
        for start in (0..rows.n).step_by(batch) {
            let n = batch.min(rows.n - start);
            let part = Rows {
                values: rows.values[start * rows.d..][..n * rows.d].to_vec().into(),
                n,
                d: rows.d,
            };
            let x = x.clone().narrow(0, start, n);
            parts.push(Self::of(&x, part, scale, n < rows.d).await?);
        }
        Ok(parts)
    }

    async fn of<T: Held>(
        x: &Tensor<2>,
        rows: Rows<T>,
        scale: f64,
        through_gram: bool,
    ) -> Result<Self, Error> {
        let mean = rows.column_means();
        let (centred, diagonal) = match is_here(x) {
            true => {
                let (rows, diagonal) = Strips::centred(&rows, &mean);
                (T::hold(rows), diagonal)
            }
            false => {
                let diagonal = rows.map(|row| {
                    let centred = |j: usize| (row[j] - mean[j]).wide();
                    sum_range(0..row.len(), |j| centred(j) * centred(j))
                });
                let centred = x.clone() - beside(mean, [1, rows.d], x);
                (Centred::There(Box::new(centred)), diagonal)
            }
        };
        Self::new::<T>(centred, diagonal, scale, through_gram).await
    }

    async fn new<T: Real>(
        centred: Centred,
        diagonal: Vec<f64>,
        scale: f64,
        through_gram: bool,
    ) -> Result<Self, Error> {
        let gram = match through_gram {
            true => Some(centred.upper_triangle::<T>().await?),
            false => None,
        };
        let own = match &gram {
            Some(gram) => 2.0 * gram.dot(gram) + diagonal_product(&diagonal, &diagonal),
            None => centred.square_of_self::<T>().await?,
        };
        Ok(Self {
            centred,
            diagonal,
            gram,
            own,
            scale,
            epsilon: T::EPSILON,
        })
    }

    /// `⟨K, L⟩`.
    async fn product(&self, other: &Self) -> Result<f64, Error> {
        match (&self.gram, &other.gram) {
            (Some(k), Some(l)) => {
                Ok(2.0 * k.dot(l) + diagonal_product(&self.diagonal, &other.diagonal))
            }
            _ => self.centred.square_of_pair(&other.centred).await,
        }
    }

    /// What is left of two sides when their rows are gone.
    pub(super) async fn moments(&self, other: &Self) -> Result<Moments, Error> {
        let trace = |side: &Self| sum(side.n(), |i| side.diagonal[i]);
        Ok(Moments {
            n: self.n(),
            products: [self.product(other).await?, self.own, other.own],
            diagonals: [(self, other), (self, self), (other, other)]
                .map(|(a, b)| diagonal_product(&a.diagonal, &b.diagonal)),
            traces: [trace(self), trace(other)],
        })
    }

    /// Those of one side and itself.
    pub(super) fn own_moments(&self) -> Moments {
        let trace = sum(self.n(), |i| self.diagonal[i]);
        Moments {
            n: self.n(),
            products: [self.own; 3],
            diagonals: [diagonal_product(&self.diagonal, &self.diagonal); 3],
            traces: [trace; 2],
        }
    }

    /// An error if a metric cannot divide by the HSIC with itself.
    pub(super) fn check(&self, estimator: Estimator) -> Result<(), Error> {
        self.own_moments().check(estimator, self.floor())
    }

    /// The share of a sum that may be rounding.
    pub(super) fn floor(&self) -> f64 {
        64.0 * self.epsilon
    }

    pub(super) fn n(&self) -> usize {
        self.diagonal.len()
    }

    /// What every product of the two sides was multiplied by.
    pub(super) fn factor(&self, other: &Self) -> f64 {
        (self.scale * other.scale).powi(2)
    }

    /// The same rows in another order; none if the Gram matrix is held, which would be made anew.
    pub(super) fn reordered(&self, order: &[usize]) -> Option<Self> {
        if self.gram.is_some() {
            return None;
        }
        Some(Self {
            centred: self.centred.reordered(order),
            diagonal: order.iter().map(|&i| self.diagonal[i]).collect(),
            ..self.clone()
        })
    }
}

/// Sums over two Gram matrices `K` and `L` of centred features: all that linear kernels are compared by.
/// Threes are for the two sides, the left with itself, and the right with itself.
#[derive(Clone, Debug)]
pub(super) struct Moments {
    /// Number of rows.
    pub(super) n: usize,
    /// `⟨K, L⟩`.
    pub(super) products: [f64; 3],
    /// `Σ kᵢᵢ lᵢᵢ`.
    pub(super) diagonals: [f64; 3],
    /// `tr K` and `tr L`.
    pub(super) traces: [f64; 2],
}

impl Moments {
    /// HSIC, up to the scale that cancels in CKA.
    pub(super) fn hsic(&self, estimator: Estimator) -> [f64; 3] {
        if estimator == Estimator::Biased {
            return self.products;
        }
        let n = self.n as f64;
        let [k, l] = self.traces;
        let traces = [k * l, k * k, l * l];
        std::array::from_fn(|i| {
            let total = traces[i] / ((n - 1.0) * (n - 2.0));
            self.products[i] - n / (n - 2.0) * self.diagonals[i] + total
        })
    }

    pub(super) fn cka(&self, estimator: Estimator) -> f64 {
        let [both, left, right] = self.hsic(estimator);
        both / left.sqrt() / right.sqrt()
    }

    /// The cosine of the Gram matrices without their diagonals.
    pub(super) fn rv2(&self) -> Result<f64, Error> {
        let [both, left, right] = std::array::from_fn(|i| self.products[i] - self.diagonals[i]);
        let orthogonal = left <= 1e-12 * self.products[1] || right <= 1e-12 * self.products[2];
        match orthogonal {
            false => Ok(both / f64::sqrt(left) / f64::sqrt(right)),
            true => Err(Error::Undefined {
                why: "its rows are orthogonal: nothing is left without the diagonal",
            }),
        }
    }

    /// An error if the left side's HSIC with itself is not above this share of its parts.
    pub(super) fn check(&self, estimator: Estimator, floor: f64) -> Result<(), Error> {
        let (own, whole) = (self.hsic(estimator)[1], self.products[1]);
        match own > floor * whole {
            true => Ok(()),
            false if whole == 0.0 => Err(Error::Undefined {
                why: "all its rows are equal",
            }),
            false => Err(Error::Undefined {
                why: "its unbiased HSIC with itself is not positive",
            }),
        }
    }
}

fn diagonal_product(k: &[f64], l: &[f64]) -> f64 {
    sum(k.len(), |i| k[i] * l[i])
}

/// Whether a grid is less work through the Gram matrices, `n² d / 2` each and a pass over half of one for
/// each comparison, than through products of features, `n d²` for each comparison. Half of one is at most
/// four times the size of the narrowest side.
fn prefers_gram(n: usize, grid: Grid) -> bool {
    /// Multiply-adds of a product in the time of one in a pass over memory, as measured.
    const PASS: f64 = 50.0;
    let [rows, d] = [n, grid.narrowest].map(|v| v as f64);
    let gram = rows * (d + PASS * grid.comparisons);
    let fits = n <= PACKED.min(8 * grid.narrowest);
    fits && gram < d * d * (1.0 + 2.0 * grid.comparisons)
}

impl Centred {
    /// The strict upper triangle of the Gram matrix.
    async fn upper_triangle<T: Real>(&self) -> Result<Values, device::Error> {
        Ok(match self {
            Self::Narrow(x) => Values::F32(x.upper_triangle()),
            Self::Wide(x) => Values::F64(x.upper_triangle()),
            Self::There(x) => T::store(tiles::upper_triangle::<T>(x).await?),
        })
    }

    /// `‖xᵀ x‖²`.
    async fn square_of_self<T: Real>(&self) -> Result<f64, device::Error> {
        match self {
            Self::Narrow(x) => Ok(x.square_of_self()),
            Self::Wide(x) => Ok(x.square_of_self()),
            Self::There(x) => square_of_self::<T>(x).await,
        }
    }

    /// `‖xᵀ y‖²`.
    async fn square_of_pair(&self, other: &Self) -> Result<f64, Error> {
        match (self, other) {
            (Self::Narrow(x), Self::Narrow(y)) => Ok(x.square_of_pair(y)),
            (Self::Wide(x), Self::Wide(y)) => Ok(x.square_of_pair(y)),
            (Self::There(x), Self::There(y)) if x.dtype() == y.dtype() => match x.dtype() {
                DType::F64 => Ok(square_of_pair::<f64>(x, y).await?),
                _ => Ok(square_of_pair::<f32>(x, y).await?),
            },
            _ => {
                let (x, y) = (self.wide().await?, other.wide().await?);
                Ok(x.square_of_pair(&y))
            }
        }
    }

    fn reordered(&self, order: &[usize]) -> Self {
        match self {
            Self::Narrow(x) => Self::Narrow(x.reordered(order)),
            Self::Wide(x) => Self::Wide(x.reordered(order)),
            Self::There(x) => {
                let index: Vec<i32> = order.iter().map(|&i| i as i32).collect();
                let index = TensorData::new(index, [order.len()]);
                let index = Tensor::<1, Int>::from_data(index, &x.device());
                Self::There(Box::new(x.as_ref().clone().select(0, index)))
            }
        }
    }

    /// The rows in f64 on the host.
    async fn wide(&self) -> Result<Cow<'_, Strips<f64>>, Error> {
        Ok(match self {
            Self::Narrow(x) => Cow::Owned(x.widened()),
            Self::Wide(x) => Cow::Borrowed(x),
            Self::There(x) => {
                let rows = Rows::unchecked(x).await?;
                Cow::Owned(Strips::centred(&rows, &vec![0.0; rows.d]).0)
            }
        })
    }
}

/// `‖xᵀ y‖²` on the device, in blocks of columns of `x`.
async fn square_of_pair<T: Real>(x: &Tensor<2>, y: &Tensor<2>) -> Result<f64, device::Error> {
    let (dx, dy) = (x.dims()[1], y.dims()[1]);
    let block = (PRODUCT / dy).clamp(16, dx.max(16));
    let mut total = 0.0;
    for start in (0..dx).step_by(block) {
        let columns = x.clone().narrow(1, start, block.min(dx - start));
        let product = device::read::<T, 2>(columns.transpose().matmul(y.clone())).await?;
        total += sum(product.len(), |i| product[i].wide() * product[i].wide());
    }
    Ok(total)
}

/// `‖xᵀ x‖²` on the device, in blocks of columns; only blocks on and right of the diagonal are computed.
async fn square_of_self<T: Real>(x: &Tensor<2>) -> Result<f64, device::Error> {
    let d = x.dims()[1];
    let mut total = 0.0;
    let block = (PRODUCT / d).clamp(16, BLOCK);
    for start in (0..d).step_by(block) {
        let width = d - start;
        let rows = block.min(width);
        let right = x.clone().narrow(1, start, width);
        let columns = x.clone().narrow(1, start, rows);
        let product = device::read::<T, 2>(columns.transpose().matmul(right)).await?;
        let square = |i: usize| product[i].wide() * product[i].wide();
        let own: f64 = (0..rows)
            .map(|r| sum_range(r * width..r * width + rows, square))
            .sum();
        total += 2.0 * sum(product.len(), square) - own;
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;

    /// What is kept for a grid gives the values of pairs compared alone.
    #[test]
    fn a_grid_through_gram_matrices_has_the_values_of_pairs() {
        let layer = |seed: usize, dtype: DType| {
            let value = |i: usize| ((i * i + 7 * seed * i) as f64 * 0.37).sin() + seed as f64;
            let data = TensorData::new((0..300 * 128).map(value).collect::<Vec<_>>(), [300, 128]);
            Tensor::<2>::from_data(data, (Device::cpu().tensor(), dtype))
        };
        let twelve = Grid {
            comparisons: 6.5,
            narrowest: 128,
        };
        for (dtype, tolerance) in [(DType::F32, 1e-6), (DType::F64, 1e-12)] {
            let layers: Vec<_> = (1..4).map(|seed| layer(seed, dtype)).collect();
            let prepare = |x, grid| block_on(Features::prepare(x, grid)).unwrap();
            let kept: Vec<_> = layers.iter().map(|x| prepare(x, Some(twelve))).collect();
            let alone: Vec<_> = layers.iter().map(|x| prepare(x, None)).collect();
            assert!(kept.iter().all(|k| k.gram.is_some()) && alone[0].gram.is_none());
            for estimator in [Estimator::Biased, Estimator::Unbiased] {
                for (i, j) in [(0, 0), (0, 1), (1, 2)] {
                    let cka = |of: &[Features]| {
                        let moments = block_on(of[i].moments(&of[j])).unwrap();
                        moments.cka(estimator)
                    };
                    assert!((cka(&kept) - cka(&alone)).abs() < tolerance);
                }
            }
        }
    }

    /// Only where it is less work: many layers, not too many rows.
    #[test]
    fn gram_matrices_are_for_large_grids() {
        let grid = |comparisons, narrowest| Grid {
            comparisons,
            narrowest,
        };
        assert!(prefers_gram(5_000, grid(6.5, 1_024)));
        assert!(!prefers_gram(5_000, grid(1.0, 1_024)));
        assert!(!prefers_gram(5_000, grid(6.5, 64)));
        assert!(!prefers_gram(20_000, grid(100.0, 4_096)));
        assert!(!prefers_gram(9_000, grid(100.0, 1_024)));
    }
}
