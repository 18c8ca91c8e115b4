//! Comparing more rows than fit in memory, in one pass and to the last digit.

mod pair;
mod side;

use burn::tensor::Tensor;

use super::axes::Basis;
use super::kernel::needs_rows;
use super::prepared::{check_pair, check_shape, place};
use super::{Error, Kernel, Metric, Shape};
use crate::device::block_on;
use pair::{Pair, Seen};
use side::{Batch, Side};

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
pub struct Streamed(StreamedMatrix);

impl Streamed {
    /// Nothing seen yet of two sides with `dx` and `dy` columns.
    pub fn new(dx: usize, dy: usize) -> Self {
        Self(StreamedMatrix::new(&[dx], &[dy]))
    }

    /// Rows seen so far.
    pub fn rows(&self) -> usize {
        self.0.rows()
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
        self.0.push_async(&[x.clone(), y.clone()]).await
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
        Ok(self.0.values(metric)?[0][0])
    }
}

/// Many representations seen batch by batch: [`Streamed`] of every one against every one, with the sums and
/// the decomposition of each made once.
///
/// # Cost
/// `Σ d² / 2` multiply-adds a row for the sides and `dx dy` for each pair of two of them, on the host, in
/// f64. Memory: `8 d²` bytes a side, `8 dx dy` a pair, and one batch of all sides in f64.
///
/// ```
/// use inscape::{Device, similarity::{Metric, StreamedMatrix, matrix}};
/// use burn::tensor::{Distribution, Tensor};
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::random([90, 5], Distribution::Normal(0.0, 1.0), cpu.tensor());
/// let layers = [x.clone(), x.clone().powf_scalar(2.0), x.abs()];
/// let mut streamed = StreamedMatrix::new(&[5, 5, 5], &[]);
/// for start in [0, 30, 60] {
///     streamed.push(&layers.each_ref().map(|x| x.clone().narrow(0, start, 30)))?;
/// }
/// let metric: Metric = "linear_cka[unbiased]".parse()?;
/// let expected = matrix(&layers, &layers, metric, |_, _| ())?;
/// assert!((streamed.values(metric)?[0][2] - expected[0][2]).abs() < 1e-5);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct StreamedMatrix {
    n: usize,
    /// Those of the left, then those of the right.
    sides: Vec<Side>,
    left: usize,
    pairs: Vec<Pair>,
}

impl StreamedMatrix {
    /// Nothing seen yet of sides with so many columns each; no `right` is the left with itself.
    pub fn new(left: &[usize], right: &[usize]) -> Self {
        let widths = [left, right].concat();
        let pair = |i: usize, j: usize| Pair::new([i, j], [widths[i], widths[j]]);
        let k = left.len();
        let pairs = match right.is_empty() {
            true => (0..k)
                .flat_map(|i| (i + 1..k).map(move |j| (i, j)))
                .collect::<Vec<_>>(),
            false => (0..k)
                .flat_map(|i| (k..widths.len()).map(move |j| (i, j)))
                .collect(),
        };
        Self {
            n: 0,
            pairs: pairs.into_iter().map(|(i, j)| pair(i, j)).collect(),
            sides: widths.iter().map(|&d| Side::new(d)).collect(),
            left: k,
        }
    }

    /// Rows seen so far.
    pub fn rows(&self) -> usize {
        self.n
    }

    /// Adds a batch of the rows of every side, `[b, d]` each, those of the left first.
    ///
    /// # Errors
    /// As [`Streamed::push`].
    ///
    /// # Panics
    /// If there are not as many sides, or their columns are not those of [`StreamedMatrix::new`].
    pub fn push(&mut self, sides: &[Tensor<2>]) -> Result<(), Error> {
        block_on(self.push_async(sides))
    }

    /// [`StreamedMatrix::push`] without blocking.
    ///
    /// # Errors
    /// As [`StreamedMatrix::push`].
    ///
    /// # Panics
    /// As [`StreamedMatrix::push`].
    pub async fn push_async(&mut self, sides: &[Tensor<2>]) -> Result<(), Error> {
        let shapes: Vec<[usize; 2]> = sides.iter().map(Tensor::dims).collect();
        let widths: Vec<usize> = self.sides.iter().map(Side::d).collect();
        assert!(
            shapes.iter().map(|s| s[1]).eq(widths.iter().copied()),
            "StreamedMatrix::push: batches {shapes:?} for widths {widths:?}"
        );
        let Some(&first) = shapes.first() else {
            return Ok(());
        };
        if let Some(&other) = shapes.iter().find(|s| s[0] != first[0]) {
            return Err(Error::RowsDiffer {
                left: first,
                right: other,
            });
        }
        if first[0] == 0 || widths.contains(&0) {
            return Ok(());
        }
        let mut batches = Vec::with_capacity(sides.len());
        for (k, x) in sides.iter().enumerate() {
            batches.push(Batch::read(x, self.n, &self.place(k)).await?);
        }
        for (side, batch) in self.sides.iter_mut().zip(&mut batches) {
            side.shift(batch);
            side.add(batch);
        }
        for pair in &mut self.pairs {
            pair.add(&batches);
        }
        self.n += first[0];
        Ok(())
    }

    /// Which side that is, in words.
    fn place(&self, k: usize) -> String {
        match k.checked_sub(self.left) {
            None => place("left", k, self.left),
            Some(k) => place("right", k, self.sides.len() - self.left),
        }
    }

    /// The metric of all rows seen so far: `values[i][j]` compares side `i` of the left with side `j` of the
    /// right, or of the left if there is no other.
    ///
    /// # Errors
    /// As [`Streamed::value`].
    ///
    /// # Cost
    /// As [`Streamed::value`], each side decomposed once.
    pub fn values(&self, metric: impl Into<Metric>) -> Result<Vec<Vec<f64>>, Error> {
        let metric = metric.into();
        let bases = self.prepare(metric)?;
        let value = |seen: Seen<'_>| {
            let [i, j] = seen.places;
            let widths = [i, j].map(|k| [self.n, self.sides[k].d()]);
            check_pair(widths[0], widths[1], metric)?;
            let value = match metric {
                Metric::Kernel(kernel) if bases.is_empty() => kernel.of_moments(&seen.moments())?,
                _ => seen.value(metric, &bases[i], &bases[j], is_centred(metric))?,
            };
            match value.is_finite() {
                true => Ok(value),
                false => Err(Error::Undefined {
                    why: "its values are too large or too small to be squared",
                }),
            }
        };
        let own = self.left == self.sides.len();
        let columns = if own {
            self.left
        } else {
            self.sides.len() - self.left
        };
        let mut values = vec![vec![0.0; columns]; self.left];
        for pair in &self.pairs {
            let [i, j] = pair.places;
            let found = value(pair.seen(&self.sides, self.n))?;
            if !own {
                values[i][j - self.left] = found;
                continue;
            }
            values[i][j] = found;
            values[j][i] = match metric.facts().symmetric {
                true => found,
                false => value(pair.turned(&self.sides, self.n))?,
            };
        }
        if own {
            for (i, side) in self.sides.iter().enumerate() {
                values[i][i] = value(Seen::alone(side, i, self.n))?;
            }
        }
        Ok(values)
    }

    /// Checks every side for a metric; the axes of each if the metric takes them.
    fn prepare(&self, metric: Metric) -> Result<Vec<Basis>, Error> {
        let sides = self.sides.iter().enumerate();
        for side in &self.sides {
            check_shape([self.n, side.d()], metric)?;
        }
        match metric {
            Metric::Kernel(Kernel::SubspaceOverlap { .. } | Kernel::EigenspaceOverlap)
            | Metric::Cca(_)
            | Metric::Shape(_) => {
                let basis = |(k, side): (usize, &Side)| {
                    let basis = side.basis(self.n, is_centred(metric));
                    basis.map_err(|e| e.at(&self.place(k)))
                };
                sides.map(basis).collect()
            }
            Metric::Kernel(kernel) => {
                if let Some(estimator) = kernel.divides_by() {
                    // The centred sums are differences of f64 sums about the first batch's mean.
                    let floor = 1e-13;
                    for (k, side) in sides {
                        let own = Seen::alone(side, k, self.n).moments();
                        let checked = own.check(estimator, floor);
                        checked.map_err(|e| e.at(&self.place(k)))?;
                    }
                }
                Ok(vec![])
            }
            _ => Err(needs_rows()),
        }
    }
}

/// Whether a metric of axes takes those of the centred rows.
fn is_centred(metric: Metric) -> bool {
    !matches!(
        metric,
        Metric::Kernel(Kernel::EigenspaceOverlap)
            | Metric::Shape(Shape::Procrustes { centre: false, .. })
    )
}
