//! Covariances and correlations of the columns of two streams.

use burn::tensor::{DType, FloatDType, Tensor};

use super::cross_sums;
use crate::device::{self, block_on, read};

/// The second moments of two streams of rows that pair up: of every column of one with every column of
/// the other, and of each by itself.
///
/// Rows come in batches and are not kept. The sums live on the device of the first batch, in f64 if it
/// is f64 and else as pairs of f32 (see [`cross_sums`](super::cross_sums())), so that the number of
/// batches costs no digits. Column means of the first batch are subtracted from all rows, so that an
/// offset costs none either.
///
/// # Cost
/// `b dx dy` multiply-adds a batch of `b` rows; `2 dx dy` numbers on the device.
///
/// ```
/// use burn::tensor::Tensor;
/// use inscape::{Device, ops::CrossSums};
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::from_data([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]], cpu.tensor());
/// let y = Tensor::<2>::from_data([[4.0], [2.0], [0.0]], cpu.tensor());
/// let mut sums = CrossSums::new(2, 1);
/// sums.push(&x, &y);
/// sums.push(&x, &y);
/// let moments = sums.read()?;
/// assert_eq!(moments.products, [-8.0, 0.0]);
/// assert_eq!(moments.correlations(), [-1.0, 0.0]);
/// # Ok::<(), inscape::device::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct CrossSums {
    dims: [usize; 2],
    rows: usize,
    sums: Option<Sums>,
}

/// What is on the device from the first batch on.
#[derive(Clone, Debug)]
struct Sums {
    /// Subtracted from every row: `[1, dx]`, `[1, dy]`.
    shifts: [Tensor<2>; 2],
    /// `Σ x y`: `[dx, dy]`.
    products: [Tensor<2>; 2],
    /// `Σ x` and then `Σ x²`: `[2 dx, 1]`; the same of y.
    own: [[Tensor<2>; 2]; 2],
}

/// Moments about the means; see [`CrossSums`].
#[derive(Clone, Debug, PartialEq)]
pub struct CrossMoments {
    /// Number of rows.
    pub rows: usize,
    /// Means of the columns of x, `[dx]`, and of y, `[dy]`.
    pub means: [Vec<f64>; 2],
    /// Sums of squares about them, `[dx]` and `[dy]`: exactly 0 for a constant column.
    pub squares: [Vec<f64>; 2],
    /// Sums of products about them, row-major: `[dx, dy]`.
    pub products: Vec<f64>,
}

impl CrossSums {
    /// No rows yet, of `dx` and `dy` columns.
    pub fn new(dx: usize, dy: usize) -> Self {
        Self {
            dims: [dx, dy],
            rows: 0,
            sums: None,
        }
    }

    /// Adds a batch: `x` `[b, dx]`, `y` `[b, dy]`.
    ///
    /// # Panics
    /// If the shapes do not fit, or the batch is on another device than the first.
    pub fn push(&mut self, x: &Tensor<2>, y: &Tensor<2>) {
        let ([b, dx], [rows, dy]) = (x.dims(), y.dims());
        assert!(
            b == rows && [dx, dy] == self.dims,
            "CrossSums: x [{b}, {dx}], y [{rows}, {dy}] for [_, {}] and [_, {}]",
            self.dims[0],
            self.dims[1]
        );
        if b == 0 {
            return;
        }
        let sums = self.sums.take().unwrap_or_else(|| Sums::new([x, y]));
        self.sums = Some(sums.add([x, y]));
        self.rows += b;
    }

    /// How many rows have been added.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The moments of all rows so far.
    ///
    /// # Errors
    /// The device failing.
    pub fn read(&self) -> Result<CrossMoments, device::Error> {
        block_on(self.read_async())
    }

    /// [`read`](Self::read) without blocking.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn read_async(&self) -> Result<CrossMoments, device::Error> {
        let [dx, dy] = self.dims;
        let Some(sums) = &self.sums else {
            let zeros = || [vec![0.0; dx], vec![0.0; dy]];
            return Ok(CrossMoments {
                rows: 0,
                means: zeros(),
                squares: zeros(),
                products: vec![0.0; dx * dy],
            });
        };
        let n = self.rows as f64;
        let (mut means, mut squares) = ([vec![], vec![]], [vec![], vec![]]);
        for side in 0..2 {
            let (sum, square) = split(read_pair(&sums.own[side]).await?);
            let about = square
                .iter()
                .zip(&sum)
                .map(|(square, sum)| square - sum * sum / n);
            squares[side] = about.map(at_least_zero).collect();
            means[side] = sum.into_iter().map(|sum| sum / n).collect();
        }
        let mut products = read_pair(&sums.products).await?;
        for (row, mean) in products.chunks_mut(dy.max(1)).zip(&means[0]) {
            let about = row.iter_mut().zip(&means[1]);
            about.for_each(|(product, other)| *product -= n * mean * other);
        }
        for (means, shift) in means.iter_mut().zip(&sums.shifts) {
            let shift: Vec<f64> = read(shift.clone()).await?;
            means
                .iter_mut()
                .zip(shift)
                .for_each(|(mean, shift)| *mean += shift);
        }
        Ok(CrossMoments {
            rows: self.rows,
            means,
            squares,
            products,
        })
    }
}

impl CrossMoments {
    /// Pearson's correlation of every column of x with every column of y, row-major: `[dx, dy]`. A
    /// constant column has none; 0 stands there. NaN stays NaN.
    pub fn correlations(&self) -> Vec<f64> {
        let [x, y] = &self.squares;
        let mut correlations = self.products.clone();
        for (row, x) in correlations.chunks_mut(y.len().max(1)).zip(x) {
            for (value, y) in row.iter_mut().zip(y) {
                let length = x.sqrt() * y.sqrt();
                *value = if length == 0.0 { 0.0 } else { *value / length };
            }
        }
        correlations
    }
}

impl Sums {
    fn new(batch: [&Tensor<2>; 2]) -> Self {
        let wide = batch.iter().any(|x| x.dtype() == DType::F64);
        let dtype = if wide {
            FloatDType::F64
        } else {
            FloatDType::F32
        };
        let shifts = batch.map(|x| mean(x.clone().cast(dtype)));
        let zeros = |shape: [usize; 2]| Tensor::zeros(shape, (&batch[0].device(), dtype.into()));
        let pair = |shape| [zeros(shape), zeros(shape)];
        let [dx, dy] = batch.map(|x| x.dims()[1]);
        Self {
            shifts,
            products: pair([dx, dy]),
            own: [pair([2 * dx, 1]), pair([2 * dy, 1])],
        }
    }

    fn add(self, batch: [&Tensor<2>; 2]) -> Self {
        let rows = batch[0].dims()[0];
        let shifted = |side: usize| {
            let shift = self.shifts[side].clone();
            batch[side].clone().cast(shift.dtype()) - shift
        };
        let [x, y] = [shifted(0), shifted(1)];
        let ones = Tensor::ones([rows, 1], (&x.device(), x.dtype()));
        let own = |sum, x: &Tensor<2>| {
            let both = Tensor::cat(vec![x.clone(), x.clone() * x.clone()], 1);
            cross_sums(sum, both, ones.clone())
        };
        let [of_x, of_y] = self.own;
        Self {
            own: [own(of_x, &x), own(of_y, &y)],
            products: cross_sums(self.products, x, y),
            shifts: self.shifts,
        }
    }
}

/// Means of the columns, `[1, d]`, of the differences from the first row: of a constant column, its value.
fn mean(x: Tensor<2>) -> Tensor<2> {
    let first = x.clone().narrow(0, 0, 1);
    (x - first.clone()).mean_dim(0) + first
}

async fn read_pair([hi, lo]: &[Tensor<2>; 2]) -> Result<Vec<f64>, device::Error> {
    let (mut sum, lo): (Vec<f64>, Vec<f64>) = (read(hi.clone()).await?, read(lo.clone()).await?);
    sum.iter_mut().zip(lo).for_each(|(sum, lo)| *sum += lo);
    Ok(sum)
}

/// `max` would lose a NaN.
fn at_least_zero(v: f64) -> f64 {
    if v < 0.0 { 0.0 } else { v }
}

/// Either half.
fn split(mut sums: Vec<f64>) -> (Vec<f64>, Vec<f64>) {
    let second = sums.split_off(sums.len() / 2);
    (sums, second)
}
