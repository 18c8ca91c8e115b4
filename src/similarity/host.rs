//! The host side of the metrics: reading rows back, checking them, and long sums in f64.

use std::ops::{Add, Mul, Range, Sub};

use burn::tensor::{DType, Element, FloatDType, Tensor, TensorData};
use faer::traits::RealField;

use super::Error;
use crate::device::{Device, View, view};
use crate::ops::wide;

/// Rows of a host pass that are summed together before the partial sums are added in order.
const CHUNK: usize = 256;

/// The element a metric is computed in: f64 tensors stay f64, everything else is f32.
pub(super) trait Real:
    Element + bytemuck::Pod + RealField + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self>
{
    /// Spacing of the numbers just above 1.
    const EPSILON: f64;
    /// Exponent of the largest finite value.
    const MOST: f64;
    /// Smaller than every finite value.
    const LOWEST: Self;
    fn wide(self) -> f64;
    fn rounded(value: f64) -> Self;
    /// The largest absolute value, in one pass over the bits; not finite if any value is not.
    fn largest(values: &[Self]) -> f64;
    /// Moves values behind the type, for a cache that holds either precision.
    fn store(values: Vec<Self>) -> Values;
}

impl Real for f32 {
    const EPSILON: f64 = f32::EPSILON as f64;
    const MOST: f64 = 127.0;
    const LOWEST: Self = f32::NEG_INFINITY;
    #[inline(always)]
    fn wide(self) -> f64 {
        f64::from(self)
    }
    fn rounded(value: f64) -> Self {
        value as f32
    }
    fn largest(values: &[Self]) -> f64 {
        let magnitude = |v: &f32| v.to_bits() & (u32::MAX >> 1);
        let bits = values.iter().map(magnitude).fold(0, u32::max);
        f64::from(f32::from_bits(bits))
    }
    fn store(values: Vec<Self>) -> Values {
        Values::F32(values)
    }
}

impl Real for f64 {
    const EPSILON: f64 = f64::EPSILON;
    const MOST: f64 = 1023.0;
    const LOWEST: Self = f64::NEG_INFINITY;
    #[inline(always)]
    fn wide(self) -> f64 {
        self
    }
    fn rounded(value: f64) -> Self {
        value
    }
    fn largest(values: &[Self]) -> f64 {
        let magnitude = |v: &f64| v.to_bits() & (u64::MAX >> 1);
        f64::from_bits(values.iter().map(magnitude).fold(0, u64::max))
    }
    fn store(values: Vec<Self>) -> Values {
        Values::F64(values)
    }
}

/// Cached numbers in the precision they were computed in.
#[derive(Clone, Debug)]
pub(super) enum Values {
    F32(Vec<f32>),
    F64(Vec<f64>),
}

impl Values {
    /// Dot product in f64, whichever precisions meet.
    pub(super) fn dot(&self, other: &Self) -> f64 {
        match (self, other) {
            (Self::F32(a), Self::F32(b)) => dot(a, b),
            (Self::F32(a), Self::F64(b)) => dot(a, b),
            (Self::F64(a), Self::F32(b)) => dot(a, b),
            (Self::F64(a), Self::F64(b)) => dot(a, b),
        }
    }
}

/// One representation read back: `n` rows of `d` finite values, row-major.
#[derive(Clone, Debug)]
pub(super) struct Rows<T> {
    pub(super) values: View<T>,
    pub(super) n: usize,
    pub(super) d: usize,
}

impl<T: Real> Rows<T> {
    /// Reads `x` back and checks it. If its largest value lies where squares could overflow or
    /// vanish, both the rows and the tensor are scaled by a power of two, which few metrics see.
    pub(super) async fn read(x: Tensor<2>) -> Result<(Tensor<2>, Self), Error> {
        let (x, rows, _) = Self::scaled(x).await?;
        Ok((x, rows))
    }

    /// [`Rows::read`] with what the values were multiplied by.
    pub(super) async fn scaled(x: Tensor<2>) -> Result<(Tensor<2>, Self, f64), Error> {
        let (mut rows, largest) = Self::measured(&x).await?;
        let [n, d] = x.dims();
        if largest == 0.0 || (1e-10..=1e10).contains(&largest) {
            return Ok((x, rows, 1.0));
        }
        let factor = (-largest.log2().floor()).min(T::MOST).exp2();
        let scale = T::rounded(factor);
        let values = rows.values.to_mut();
        values.iter_mut().for_each(|v| *v *= scale);
        let data = TensorData::new(values.clone(), [n, d]);
        let x = Tensor::from_data(data, (&x.device(), T::dtype()));
        Ok((x, rows, factor))
    }

    /// Reads `x` back and checks it, for metrics that see its scale.
    pub(super) async fn unscaled(x: &Tensor<2>) -> Result<Self, Error> {
        Ok(Self::measured(x).await?.0)
    }

    /// The rows and their largest absolute value.
    async fn measured(x: &Tensor<2>) -> Result<(Self, f64), Error> {
        let rows = Self::unchecked(x).await?;
        let largest = rows.largest()?;
        Ok((rows, largest))
    }

    /// The rows, finite or not.
    pub(super) async fn unchecked(x: &Tensor<2>) -> Result<Self, Error> {
        let [n, d] = x.dims();
        let values = view(x).await?;
        Ok(Self { values, n, d })
    }

    /// The largest absolute value; an error naming the first value that is not finite.
    pub(super) fn largest(&self) -> Result<f64, Error> {
        let part = |r: Range<usize>| T::largest(&self.values[r.start * self.d..r.end * self.d]);
        let parts = map_chunks(self.n, CHUNK, part);
        match parts.iter().position(|largest| !largest.is_finite()) {
            None => Ok(parts.into_iter().fold(0.0, f64::max)),
            Some(chunk) => Err(self.first_not_finite(chunk * CHUNK * self.d)),
        }
    }

    fn first_not_finite(&self, from: usize) -> Error {
        let not_finite = |v: &T| !v.wide().is_finite();
        let at = from
            + self.values[from..]
                .iter()
                .position(not_finite)
                .expect("one was seen");
        Error::NotFinite {
            row: at / self.d,
            column: at % self.d,
            value: self.values[at].wide(),
        }
    }

    pub(super) fn row(&self, i: usize) -> &[T] {
        &self.values[i * self.d..(i + 1) * self.d]
    }

    /// Mean of each column, rounded to `T`. Differences from the first row are averaged, so that a
    /// constant column gives its value exactly and an offset costs nothing.
    pub(super) fn column_means(&self) -> Vec<T> {
        let first = self.row(0);
        let part = |r: Range<usize>| {
            let mut sum = vec![0.0; self.d];
            wide(|| {
                // Four rows at a time, so that the sums are read and written once for all of them.
                let rows =
                    self.values[r.start * self.d..r.end * self.d].chunks((4 * self.d).max(1));
                for four in rows {
                    let mut rows = four.chunks(self.d);
                    if let (Some(a), Some(b), Some(c), Some(d)) =
                        (rows.next(), rows.next(), rows.next(), rows.next())
                    {
                        let four = a.iter().zip(b).zip(c.iter().zip(d));
                        for ((sum, ((a, b), (c, d))), f) in sum.iter_mut().zip(four).zip(first) {
                            let f = f.wide();
                            *sum +=
                                (a.wide() - f) + (b.wide() - f) + ((c.wide() - f) + (d.wide() - f));
                        }
                        continue;
                    }
                    for row in four.chunks(self.d) {
                        for ((sum, v), f) in sum.iter_mut().zip(row).zip(first) {
                            *sum += v.wide() - f.wide();
                        }
                    }
                }
            });
            sum
        };
        let mut mean = vec![0.0; self.d];
        for sum in map_chunks(self.n, CHUNK, part) {
            mean.iter_mut().zip(sum).for_each(|(m, s)| *m += s);
        }
        let shifted = |(m, f): (f64, &T)| T::rounded(f.wide() + m / self.n as f64);
        mean.into_iter().zip(first).map(shifted).collect()
    }

    /// The rows of these numbers.
    pub(super) fn reordered(&self, order: &[usize]) -> Self {
        let part = |r: Range<usize>| {
            let rows = order[r].iter().map(|&i| self.row(i));
            rows.collect::<Vec<_>>().concat()
        };
        Self {
            values: map_chunks(order.len(), CHUNK, part).concat().into(),
            n: order.len(),
            d: self.d,
        }
    }

    /// `f(row)` for each row.
    pub(super) fn map<R: Send>(&self, f: impl Fn(&[T]) -> R + Sync) -> Vec<R> {
        let part = |r: Range<usize>| r.map(|i| f(self.row(i))).collect::<Vec<_>>();
        map_chunks(self.n, CHUNK, part)
            .into_iter()
            .flatten()
            .collect()
    }
}

/// Whether the values lie in this memory, and products are taken on the host.
pub(super) fn is_here(x: &Tensor<2>) -> bool {
    Device::from_burn(x.device()).is_cpu()
}

/// The tensor in the precision the metrics use: f64 as it is, all else as f32.
pub(super) fn working(x: &Tensor<2>) -> Tensor<2> {
    match x.dtype() {
        DType::F64 | DType::F32 => x.clone(),
        _ => x.clone().cast(FloatDType::F32),
    }
}

/// Host values as a tensor of `shape` beside `like`, in its dtype.
pub(super) fn beside<T: Real>(values: Vec<T>, shape: [usize; 2], like: &Tensor<2>) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values, shape), (&like.device(), T::dtype()))
}

/// `f` on the consecutive ranges of at most `size` in `0..n`, results in order.
pub(super) fn map_chunks<R: Send>(
    n: usize,
    size: usize,
    f: impl Fn(Range<usize>) -> R + Sync + Send,
) -> Vec<R> {
    let range = |c: usize| c * size..((c + 1) * size).min(n);
    #[cfg(not(target_family = "wasm"))]
    {
        use rayon::prelude::*;
        (0..n.div_ceil(size))
            .into_par_iter()
            .map(|c| f(range(c)))
            .collect()
    }
    #[cfg(target_family = "wasm")]
    (0..n.div_ceil(size)).map(|c| f(range(c))).collect()
}

/// `f` on each of these, results in order. Whoever is free takes the next: put the largest first.
pub(super) fn queue<V: Send, R: Send>(all: Vec<V>, f: impl Fn(V) -> R + Sync + Send) -> Vec<R> {
    #[cfg(not(target_family = "wasm"))]
    {
        use rayon::prelude::*;
        let each = all.into_iter().enumerate().par_bridge();
        let mut results: Vec<(usize, R)> = each.map(|(i, v)| (i, f(v))).collect();
        results.sort_by_key(|r| r.0);
        results.into_iter().map(|r| r.1).collect()
    }
    #[cfg(target_family = "wasm")]
    all.into_iter().map(f).collect()
}

/// `f(chunk number, chunk)` on the consecutive chunks of at most `size` values.
pub(super) fn chunks_mut<V: Send>(
    values: &mut [V],
    size: usize,
    f: impl Fn(usize, &mut [V]) + Sync + Send,
) {
    #[cfg(not(target_family = "wasm"))]
    {
        use rayon::prelude::*;
        values
            .par_chunks_mut(size)
            .enumerate()
            .for_each(|(c, chunk)| f(c, chunk));
    }
    #[cfg(target_family = "wasm")]
    values
        .chunks_mut(size)
        .enumerate()
        .for_each(|(c, chunk)| f(c, chunk));
}

/// Sum of `f(i)` over `0..n` in f64, eight lanes and fixed chunks: the same on any number of threads.
pub(super) fn sum(n: usize, f: impl Fn(usize) -> f64 + Sync + Send) -> f64 {
    map_chunks(n, 1 << 15, |r| sum_range(r, &f))
        .into_iter()
        .sum()
}

/// Dot product in f64, for long vectors; the same on any number of threads.
pub(super) fn dot<A: Real, B: Real>(a: &[A], b: &[B]) -> f64 {
    debug_assert_eq!(a.len(), b.len());
    let part = |r: Range<usize>| wide(|| short_dot(&a[r.clone()], &b[r]));
    map_chunks(a.len(), 1 << 15, part).into_iter().sum()
}

/// Squared length of a row in f64, on this thread.
#[inline(always)]
pub(super) fn square<T: Real>(row: &[T]) -> f64 {
    short_dot(row, row)
}

/// Sum of a row in f64, on this thread.
#[inline(always)]
pub(super) fn total<T: Real>(row: &[T]) -> f64 {
    let (whole, rest) = row.as_chunks::<16>();
    let mut lanes = [0.0; 16];
    for values in whole {
        lanes
            .iter_mut()
            .zip(values)
            .for_each(|(l, v)| *l += v.wide());
    }
    lanes.iter().sum::<f64>() + rest.iter().map(|v| v.wide()).sum::<f64>()
}

/// Dot product in f64, for short vectors: on this thread, without a check of any index.
#[inline(always)]
fn short_dot<A: Real, B: Real>(a: &[A], b: &[B]) -> f64 {
    const LANES: usize = 16;
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut lanes = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a.wide() * b.wide();
        }
    }
    let rest = a_rest.iter().zip(b_rest);
    lanes.iter().sum::<f64>() + rest.map(|(a, b)| a.wide() * b.wide()).sum::<f64>()
}

/// Sum of `f` over a short range in f64, on this thread.
pub(super) fn sum_range(r: Range<usize>, f: impl Fn(usize) -> f64) -> f64 {
    let mut lanes = [0.0f64; 8];
    let whole = r.start + r.len() / 8 * 8;
    for i in (r.start..whole).step_by(8) {
        for (l, lane) in lanes.iter_mut().enumerate() {
            *lane += f(i + l);
        }
    }
    lanes.iter().sum::<f64>() + (whole..r.end).map(f).sum::<f64>()
}

/// The quantile of sorted values, linear between them.
pub(super) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = share * (sorted.len() - 1) as f64;
    let (low, part) = (at.floor() as usize, at.fract());
    let high = (low + 1).min(sorted.len() - 1);
    sorted[low] + part * (sorted[high] - sorted[low])
}
