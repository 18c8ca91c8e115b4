//! Comparing more rows than fit in memory, in one pass and to the last digit.

mod side;

use burn::tensor::Tensor;
use faer::{Accum, Mat, Par};

use super::axes::Basis;
use super::cka::Moments;
use super::host::sum_range;
use super::kernel::needs_rows;
use super::prepared::{check_pair, check_shape};
use super::{Error, Kernel, Metric, Shape, subspace};
use crate::device::block_on;
use side::{Batch, Lengths, Side, add_outer, dot, squared};

/// Two representations seen batch by batch: sums of products that stand in for the rows.
///
/// Every batch is `[b, dx]` and `[b, dy]`, of any number of rows; order and division do not matter beyond
/// rounding. The mean of the first batch is taken off every row, so that an offset costs no digits, and all
/// sums are in f64. [`Streamed::value`] gives what [`Metric::compare`] would give of all rows together,
/// without an approximation, for the metrics that products of columns decide: linear CKA, biased and unbiased,
/// its angle, linear HSIC, `rv2`, `ensd`, the overlaps of subspaces, canonical correlations, Procrustes, NBS
/// and the linear shape metrics. Directions below 1e-6 of the largest, whose squares f64 cannot tell from 0
/// beside it, count for none, as elsewhere.
///
/// # Cost
/// `dx² / 2 + dx dy + dy² / 2` multiply-adds a row on the host, in f64. Memory: `8 (dx² + dx dy + dy²)` bytes
/// and one batch in f64, whatever the number of rows.
///
/// # Source
/// The unbiased HSIC of Song et al. 2012 for linear kernels needs the squared lengths of the centred rows,
/// which are not known before the last row; they are had from `Σ |x|² |y|²`, `Σ |x|² y`, `Σ x |y|²` and the
/// second moments, corrected for the means at the end.
///
/// ```
/// use inscape::{Device, similarity::{Metric, Streamed}};
/// use burn::tensor::{Distribution, Tensor};
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::random([90, 5], Distribution::Normal(0.0, 1.0), cpu.tensor());
/// let y = x.clone().powf_scalar(2.0);
/// let mut streamed = Streamed::new(5, 5);
/// for start in [0, 30, 60] {
///     let batch = |t: &Tensor<2>| t.clone().narrow(0, start, 30);
///     streamed.push(&batch(&x), &batch(&y))?;
/// }
/// let metric: Metric = "linear_cka[unbiased]".parse()?;
/// assert!((streamed.value(metric)? - metric.compare(&x, &y)?).abs() < 1e-5);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Streamed {
    n: usize,
    sides: [Side; 2],
    /// `Σ u vᵀ`, `[dx, dy]`.
    cross: Mat<f64>,
    /// `Σ |u|² |v|²`.
    squares: f64,
}

impl Streamed {
    /// Nothing seen yet of two sides with `dx` and `dy` columns.
    pub fn new(dx: usize, dy: usize) -> Self {
        Self {
            n: 0,
            sides: [Side::new(dx), Side::new(dy)],
            cross: Mat::zeros(dx, dy),
            squares: 0.0,
        }
    }

    /// Rows seen so far.
    pub fn rows(&self) -> usize {
        self.n
    }

    /// Adds a batch of rows, `[b, dx]` and `[b, dy]`.
    ///
    /// # Errors
    /// Different row counts; a NaN or infinity, its row counted from the first batch on; the device failing.
    /// Nothing of the batch is added then.
    ///
    /// # Panics
    /// If the columns are not those of [`Streamed::new`].
    pub fn push(&mut self, x: &Tensor<2>, y: &Tensor<2>) -> Result<(), Error> {
        block_on(self.push_async(x, y))
    }

    /// [`Streamed::push`] without blocking.
    ///
    /// # Errors
    /// As [`Streamed::push`].
    ///
    /// # Panics
    /// As [`Streamed::push`].
    pub async fn push_async(&mut self, x: &Tensor<2>, y: &Tensor<2>) -> Result<(), Error> {
        let (left, right) = (x.dims(), y.dims());
        let widths = self.cross.shape();
        assert!(
            (left[1], right[1]) == widths,
            "Streamed::push: batches {left:?} and {right:?} for widths {widths:?}"
        );
        if left[0] != right[0] {
            return Err(Error::RowsDiffer { left, right });
        }
        if left[0] == 0 || left[1] * right[1] == 0 {
            return Ok(());
        }
        let mut x = Batch::read(x, self.n, "left").await?;
        let mut y = Batch::read(y, self.n, "right").await?;
        let [a, b] = &mut self.sides;
        a.shift(&mut x);
        b.shift(&mut y);
        a.add(&x, &y);
        b.add(&y, &x);
        self.squares += dot(&x.lengths, &y.lengths);
        faer::linalg::matmul::matmul(
            self.cross.as_mut(),
            Accum::Add,
            x.matrix().transpose(),
            y.matrix(),
            1.0,
            Par::rayon(0),
        );
        self.n += left[0];
        Ok(())
    }

    /// The metric of all rows seen so far.
    ///
    /// # Errors
    /// Too few rows for the metric; [`Error::Undefined`] where it needs the rows themselves, or has no value;
    /// widths that differ where it needs equal ones; options out of range.
    ///
    /// # Cost
    /// `dx dy` for kernels; an eigendecomposition of each side and a singular value decomposition,
    /// `O(dx³ + dy³)`, for the others.
    pub fn value(&self, metric: impl Into<Metric>) -> Result<f64, Error> {
        let metric = metric.into();
        self.check(metric)?;
        let value = match metric {
            Metric::Kernel(Kernel::SubspaceOverlap { top }) => {
                let ([a, b], cross) = self.axes(true)?;
                subspace::overlap(&a, &b, cross.as_ref(), top)?
            }
            Metric::Kernel(Kernel::EigenspaceOverlap) => {
                let ([a, b], cross) = self.axes(false)?;
                subspace::eigenspace_overlap(&a, &b, cross.as_ref())
            }
            Metric::Kernel(kernel) => self.kernel(kernel)?,
            Metric::Cca(cca) => {
                let ([a, b], cross) = self.axes(true)?;
                cca.value(&a, &b, cross.as_ref())?
            }
            Metric::Shape(shape) => {
                let centre = !matches!(shape, Shape::Procrustes { centre: false, .. });
                let ([a, b], cross) = self.axes(centre)?;
                shape.value(&a, &b, cross.as_ref())?
            }
            _ => return Err(needs_rows()),
        };
        match value.is_finite() {
            true => Ok(value),
            false => Err(Error::Undefined {
                why: "its values are too large or too small to be squared",
            }),
        }
    }

    fn check(&self, metric: Metric) -> Result<(), Error> {
        for side in &self.sides {
            check_shape([self.n, side.d()], metric)?;
        }
        let [left, right] = [0, 1].map(|k| [self.n, self.sides[k].d()]);
        check_pair(left, right, metric)
    }

    fn kernel(&self, kernel: Kernel) -> Result<f64, Error> {
        let moments = self.moments();
        if let Some(estimator) = kernel.divides_by() {
            // The centred sums are differences of f64 sums about the first batch's mean.
            let floor = 1e-13;
            for (side, place) in [(0, "left"), (1, "right")] {
                let own = moments.own(side).check(estimator, floor);
                own.map_err(|e| e.at(place))?;
            }
        }
        kernel.of_moments(&moments)
    }

    /// The two sides' axes, and the products of their scores.
    fn axes(&self, centre: bool) -> Result<([Basis; 2], Mat<f64>), Error> {
        let [a, b] = &self.sides;
        let left = a.basis(self.n, centre).map_err(|e| e.at("left"))?;
        let right = b.basis(self.n, centre).map_err(|e| e.at("right"))?;
        let mut products = self.centred_cross();
        if !centre {
            add_outer(&mut products, &a.mean(self.n), &b.mean(self.n), self.n);
        }
        let cross = left.v.transpose() * products * &right.v;
        Ok(([left, right], cross))
    }

    /// `XᵀY` of the centred rows.
    fn centred_cross(&self) -> Mat<f64> {
        let [a, b] = [0, 1].map(|k| self.sides[k].drift(self.n));
        Mat::from_fn(a.len(), b.len(), |i, j| {
            self.cross[(i, j)] - self.n as f64 * a[i] * b[j]
        })
    }

    fn moments(&self) -> Moments {
        let n = self.n as f64;
        let [a, b] = &self.sides;
        let [da, db] = [a, b].map(|side| side.drift(self.n));
        let trace = |side: &Side, drift: &[f64]| side.trace() - n * squared(drift);
        let own = |side: &Side, drift: &[f64]| {
            let whole = |j: usize| -> f64 {
                let at = |i: usize| side.products[(i.max(j), i.min(j))] * drift[i];
                sum_range(0..side.d(), at) * drift[j]
            };
            Lengths {
                squares: side.fourth,
                weighted: [&side.own_weighted; 2],
                traces: [side.trace(); 2],
                cross: (0..side.d()).map(whole).sum(),
                drifts: [drift; 2],
            }
            .product(n)
        };
        let column = |j: usize| sum_range(0..a.d(), |i| self.cross[(i, j)] * da[i]) * db[j];
        let both = Lengths {
            squares: self.squares,
            weighted: [&a.weighted, &b.weighted],
            traces: [a.trace(), b.trace()],
            cross: (0..b.d()).map(column).sum(),
            drifts: [&da, &db],
        };
        Moments {
            n: self.n,
            products: [
                self.centred_cross().squared_norm_l2(),
                a.covariance(self.n).squared_norm_l2(),
                b.covariance(self.n).squared_norm_l2(),
            ],
            diagonals: [both.product(n), own(a, &da), own(b, &db)],
            traces: [trace(a, &da), trace(b, &db)],
        }
    }
}
