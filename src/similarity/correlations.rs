//! The correlation of every unit of one representation with every unit of another.

use burn::tensor::{DType, FloatDType, Tensor};

use super::Error;
use super::assignment::{assignment, transposed};
use super::axes::wide_rows;
use super::host::{Real, Rows, beside, chunks_mut, map_chunks};
use crate::device::{self, block_on};

/// Most values of one block of a product: 16 MiB in f32.
const PRODUCT: usize = 1 << 22;

/// Rows of a host pass that are summed together.
const CHUNK: usize = 256;

/// Unit `left` of one representation with unit `right` of another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UnitPair {
    /// Column of the left representation.
    pub left: usize,
    /// Column of the right representation.
    pub right: usize,
    /// Their correlation.
    pub r: f64,
}

/// Pearson's correlation of every unit (column) of one representation with every unit of another,
/// `[rows, columns]`; 0 with a constant unit.
#[derive(Clone, Debug, PartialEq)]
pub struct UnitCorrelations {
    /// Units of the left side.
    pub rows: usize,
    /// Units of the right side.
    pub columns: usize,
    /// Row-major, each in -1 to 1.
    pub values: Vec<f64>,
}

impl UnitCorrelations {
    /// The correlation of unit `left` with unit `right`.
    ///
    /// # Panics
    /// If there is no such unit.
    pub fn at(&self, left: usize, right: usize) -> f64 {
        self.row(left)[right]
    }

    /// The correlations of unit `left` with all units of the right side.
    ///
    /// # Panics
    /// If there is no such unit.
    pub fn row(&self, left: usize) -> &[f64] {
        &self.values[left * self.columns..(left + 1) * self.columns]
    }

    /// The same with the sides exchanged.
    pub fn transposed(&self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            values: transposed(&self.values, self.rows, self.columns),
        }
    }

    /// The most correlated right unit of every left unit (semi-matching); of equals the first.
    pub fn best_match(&self) -> Vec<UnitPair> {
        let best = |left: usize| self.nearest(left, 1).next();
        (0..self.rows).filter_map(best).collect()
    }

    /// The one-to-one pairing with the largest sum of correlations: as many pairs as the smaller side
    /// has units, in the order of the left ones.
    ///
    /// # Cost
    /// `O(m² M)` for m ≤ M units.
    ///
    /// ```
    /// use inscape::similarity::UnitCorrelations;
    /// // Taking the largest first would give 0.9 + 0.1.
    /// let values = vec![0.9, 0.8, 0.7, 0.1];
    /// let pairs = UnitCorrelations { rows: 2, columns: 2, values }.one_to_one();
    /// assert_eq!([pairs[0].right, pairs[1].right], [1, 0]);
    /// ```
    pub fn one_to_one(&self) -> Vec<UnitPair> {
        let pairs = assignment(&self.values, self.rows, self.columns).into_iter();
        pairs.map(|(left, right)| self.pair(left, right)).collect()
    }

    /// Pairs of units each of which is among the `k` most correlated of the other (with `k = 1`, best
    /// buddies): in the order of the left units, the more correlated first. Pairs that do not correlate
    /// above 0 are none.
    ///
    /// # Cost
    /// Memory `8 k` bytes a unit of either side.
    ///
    /// # Source
    /// Dravid, Gandelsman, Efros & Shocher 2023, "Rosetta neurons: mining the common units in a model
    /// zoo", section 3.
    pub fn best_buddies(&self, k: usize) -> Vec<UnitPair> {
        let across = self.transposed();
        let mut of_right = map_chunks(self.columns, 1, |r| {
            let nearest = across.nearest(r.start, k);
            nearest.map(|p| p.right).collect::<Vec<_>>()
        });
        of_right.iter_mut().for_each(|list| list.sort_unstable());
        let both = |p: &UnitPair| p.r > 0.0 && of_right[p.right].binary_search(&p.left).is_ok();
        let lists = map_chunks(self.rows, 1, |r| {
            self.nearest(r.start, k).filter(both).collect::<Vec<_>>()
        });
        lists.into_iter().flatten().collect()
    }

    fn pair(&self, left: usize, right: usize) -> UnitPair {
        let r = self.at(left, right);
        UnitPair { left, right, r }
    }

    /// The `k` most correlated of a left unit, falling; of equals the first is ahead.
    fn nearest(&self, left: usize, k: usize) -> impl Iterator<Item = UnitPair> + use<> {
        let row = self.row(left);
        let mut best: Vec<UnitPair> = Vec::with_capacity(k.min(row.len()) + 1);
        for (right, &r) in row.iter().enumerate() {
            if best.len() < k || best.last().is_some_and(|last| r > last.r) {
                let at = best.partition_point(|p| p.r >= r);
                best.insert(at, UnitPair { left, right, r });
                best.truncate(k);
            }
        }
        best.into_iter()
    }
}

/// The correlation of every unit of `x` with every unit of `y`, on the same rows.
///
/// `x` is `[n, dx]`, `y` is `[n, dy]`. For more rows than fit into memory there is
/// [`Correlations`](super::Correlations).
///
/// # Errors
/// Different row counts; a NaN or infinity; a representation whose columns are all constant
/// ([`Error::Undefined`]); the device failing.
///
/// # Cost
/// `n dx dy` multiply-adds on the device, in f32 unless a side is f64. Memory: a standardised copy of
/// each side, and `8 dx dy` bytes.
///
/// # Example
/// ```
/// use inscape::{Device, similarity::unit_correlations};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::from_data([[0., 1.], [1., 0.], [2., 3.], [4., 1.]], cpu.tensor());
/// let y = x.clone().flip([1]) * -2.0;
/// let r = unit_correlations(&x, &y)?;
/// assert!((r.at(0, 1) + 1.0).abs() < 1e-6 && (r.at(1, 0) + 1.0).abs() < 1e-6);
/// # Ok(())
/// # }
/// ```
pub fn unit_correlations(x: &Tensor<2>, y: &Tensor<2>) -> Result<UnitCorrelations, Error> {
    block_on(unit_correlations_async(x, y))
}

/// [`unit_correlations`] without blocking.
///
/// # Errors
/// As [`unit_correlations`].
pub async fn unit_correlations_async(
    x: &Tensor<2>,
    y: &Tensor<2>,
) -> Result<UnitCorrelations, Error> {
    same_rows(x, y)?;
    let x = Standard::prepare(x).await.map_err(|e| e.at("left"))?;
    let y = Standard::prepare(y).await.map_err(|e| e.at("right"))?;
    x.correlations(&y).await
}

pub(super) fn same_rows(x: &Tensor<2>, y: &Tensor<2>) -> Result<(), Error> {
    let (left, right) = (x.dims(), y.dims());
    match left[0] == right[0] {
        true => Ok(()),
        false => Err(Error::RowsDiffer { left, right }),
    }
}

/// Takes its mean off every column; the sum of squares of each that is left. A constant column becomes
/// exactly 0.
pub(super) fn centre(rows: &mut Rows<f64>) -> Vec<f64> {
    let (n, d, mean) = (rows.n, rows.d, rows.column_means());
    chunks_mut(rows.values.to_mut(), d, |_, row| {
        row.iter_mut().zip(&mean).for_each(|(v, m)| *v -= m);
    });
    let part = |r: std::ops::Range<usize>| {
        let mut sums = vec![0.0; d];
        for i in r {
            sums.iter_mut()
                .zip(rows.row(i))
                .for_each(|(s, v)| *s += v * v);
        }
        sums
    };
    let mut squares = vec![0.0; d];
    for sums in map_chunks(n, CHUNK, part) {
        squares.iter_mut().zip(sums).for_each(|(q, s)| *q += s);
    }
    squares
}

/// A representation whose columns have mean 0 and length 1, so that their products are correlations;
/// constant columns are 0.
#[derive(Clone, Debug)]
pub(super) struct Standard {
    /// `[n, d]`, on the device.
    z: Tensor<2>,
}

impl Standard {
    /// Means and lengths are taken in f64, before anything is rounded to the precision of the products.
    pub(super) async fn prepare(x: &Tensor<2>) -> Result<Self, Error> {
        let [n, d] = x.dims();
        if n == 0 || d == 0 {
            let why = "it has no rows or no columns";
            return Err(Error::Undefined { why });
        }
        let mut rows = wide_rows(x).await?;
        let squares = centre(&mut rows);
        if squares.iter().all(|q| *q == 0.0) {
            let why = "all its rows are equal";
            return Err(Error::Undefined { why });
        }
        let inverse = |q: f64| if q > 0.0 { q.sqrt().recip() } else { 0.0 };
        let inverse: Vec<f64> = squares.into_iter().map(inverse).collect();
        chunks_mut(rows.values.to_mut(), d, |_, row| {
            row.iter_mut().zip(&inverse).for_each(|(v, l)| *v *= l);
        });
        let z = match x.dtype() {
            DType::F64 => beside(rows.values.into_vec(), [n, d], x),
            _ => beside(rounded(&rows.values), [n, d], x),
        };
        Ok(Self { z })
    }

    /// The correlations of its units with those of another on the same rows.
    pub(super) async fn correlations(&self, other: &Self) -> Result<UnitCorrelations, Error> {
        let wide = self.z.dtype() == DType::F64 || other.z.dtype() == DType::F64;
        let dtype = if wide {
            FloatDType::F64
        } else {
            FloatDType::F32
        };
        let (x, y) = (self.z.clone().cast(dtype), other.z.clone().cast(dtype));
        let (rows, columns) = (x.dims()[1], y.dims()[1]);
        let block = (PRODUCT / columns).max(16);
        let mut values = Vec::with_capacity(rows * columns);
        for start in (0..rows).step_by(block) {
            let part = x.clone().narrow(1, start, block.min(rows - start));
            let product: Vec<f64> = device::read(part.transpose().matmul(y.clone())).await?;
            values.extend(product.into_iter().map(|r| r.clamp(-1.0, 1.0)));
        }
        Ok(UnitCorrelations {
            rows,
            columns,
            values,
        })
    }
}

fn rounded(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&v| f32::rounded(v)).collect()
}
