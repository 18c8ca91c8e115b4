//! Products of rows that lie on the host, in blocks that are used up as they are made.

use std::ops::Range;

use burn::tensor::Tensor;
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

use super::host::{Real, Rows, is_here, map_chunks, queue, square};
use super::lanes::wide;
use super::pairs::packed_row;
use crate::device::{self, View, view};

/// Rows of a block of a product `[dx, dy]`, half of its columns: large blocks are the faster, small ones
/// leave one for every thread.
fn size([dx, dy]: [usize; 2]) -> usize {
    #[cfg(not(target_family = "wasm"))]
    let threads = rayon::current_num_threads();
    #[cfg(target_family = "wasm")]
    let threads = 1;
    let enough = |size: &usize| dx.div_ceil(*size) * dy.div_ceil(2 * size) >= threads;
    [512, 256, 128].into_iter().find(enough).unwrap_or(64)
}

/// Rows of a strip, and of a block of `x xᵀ`: a product takes so many at a time anyway.
const STRIP: usize = 512;

/// Rows `[n, d]` in strips of [`STRIP`], each in memory of its own: to fill one costs no pass that zeroes it.
#[derive(Clone, Debug)]
pub(super) struct Strips<T> {
    strips: Vec<Vec<T>>,
    n: usize,
    d: usize,
    /// Values from one row to the next.
    stride: usize,
}

/// Rows that lie a power of two apart would meet in few places of the cache.
fn stride<T>(d: usize) -> usize {
    match (d * size_of::<T>()).is_multiple_of(1024) {
        true => d + 64 / size_of::<T>(),
        false => d,
    }
}

impl<T: Real> Strips<T> {
    /// The rows without `mean`, and the squared length of each then.
    pub(super) fn centred(rows: &Rows<T>, mean: &[T]) -> (Self, Vec<f64>) {
        let (n, d, stride) = (rows.n, rows.d, stride::<T>(rows.d));
        let strips = map_chunks(n, STRIP, |strip| {
            let mut values = Vec::with_capacity(strip.len() * stride);
            let row = |i: usize| {
                let row = rows.row(i).iter().zip(mean);
                let start = values.len();
                values.extend(row.map(|(&v, &m)| v - m));
                values.resize(start + stride, T::default());
                square(&values[start..])
            };
            let squares: Vec<f64> = wide(|| strip.map(row).collect());
            (values, squares)
        });
        let (strips, squares): (_, Vec<_>) = strips.into_iter().unzip();
        let strips = Self {
            strips,
            n,
            d,
            stride,
        };
        (strips, squares.concat())
    }

    /// The same rows in another order.
    pub(super) fn reordered(&self, order: &[usize]) -> Self {
        let strip = |some: Range<usize>| {
            let rows = order[some].iter();
            let rows = rows.map(|&i| &self.strips[i / STRIP][i % STRIP * self.stride..]);
            rows.flat_map(|row| &row[..self.stride]).copied().collect()
        };
        Self {
            strips: map_chunks(self.n, STRIP, strip),
            ..*self
        }
    }

    pub(super) fn widened(&self) -> Strips<f64> {
        let wide = |strip: &Vec<T>| strip.iter().map(|v| v.wide()).collect();
        Strips {
            strips: self.strips.iter().map(wide).collect(),
            n: self.n,
            d: self.d,
            stride: self.stride,
        }
    }

    fn matrices<'a>(&'a self) -> impl Iterator<Item = MatRef<'a, T>> {
        let matrix = |strip: &'a Vec<T>| {
            let rows = strip.len() / self.stride;
            MatRef::from_row_major_slice_with_stride(strip, rows, self.d, self.stride)
        };
        self.strips.iter().map(matrix)
    }

    /// `‖xᵀ y‖²` of `[n, dx]` and `[n, dy]`.
    pub(super) fn square_of_pair(&self, y: &Self) -> f64 {
        self.pair(y, size([self.d, y.d]))
    }

    fn pair(&self, y: &Self, size: usize) -> f64 {
        let beside = |i: Range<usize>| parts(0..y.d, 2 * size).map(move |j| [i.clone(), j]);
        let blocks = parts(0..self.d, size).flat_map(beside).collect();
        self.over_blocks(y, blocks, |block, _| square(block))
    }

    /// `‖xᵀ x‖²` of `[n, d]`.
    pub(super) fn square_of_self(&self) -> f64 {
        self.own(size([self.d; 2]))
    }

    fn own(&self, size: usize) -> f64 {
        // A block on the diagonal comes in strips of rows, each from its own columns on.
        let mut blocks = Vec::new();
        for i in parts(0..self.d, size) {
            let beside = parts(i.end..self.d, size).map(|j| [i.clone(), j]);
            blocks.extend(beside);
            let strips =
                parts(i.clone(), size / 4).map(|strip| [strip.clone(), strip.start..i.end]);
            blocks.extend(strips);
        }
        // What lies right of a block's own columns counts for its mirror image as well.
        self.over_blocks(self, blocks, |block, [i, j]| {
            let own = i.end.saturating_sub(j.start).min(j.len());
            let row = |row: &[T]| square(&row[..own]) + 2.0 * square(&row[own..]);
            block.chunks(j.len()).map(row).sum()
        })
    }

    /// Sum of `f` over blocks of `xᵀ y`, each of some columns of `x` and some of `y`.
    fn over_blocks(
        &self,
        y: &Self,
        mut blocks: Vec<[Range<usize>; 2]>,
        f: impl Fn(&[T], [Range<usize>; 2]) -> f64 + Sync + Send,
    ) -> f64 {
        blocks.sort_by_key(|[i, j]| std::cmp::Reverse(i.len() * j.len()));
        let sums = queue(blocks, |[i, j]| {
            let mut block = vec![T::default(); i.len() * j.len()];
            for (x, y) in self.matrices().zip(y.matrices()) {
                let columns = x.subcols(i.start, i.len()).transpose();
                add(&mut block, columns, y.subcols(j.start, j.len()));
            }
            wide(|| f(&block, [i, j]))
        });
        sums.into_iter().sum()
    }

    /// The strict upper triangle of `x xᵀ`, row-major: `n (n - 1) / 2` values. One block a thread is held
    /// besides.
    pub(super) fn upper_triangle(&self) -> Vec<T> {
        let n = self.n;
        let mut upper = vec![T::default(); n * (n - 1) / 2];
        let mut places = Vec::new();
        let mut rest = &mut upper[..];
        for rows in parts(0..n, STRIP) {
            let size = packed_row(n, rows.end - 1).end - packed_row(n, rows.start).start;
            let (place, behind) = rest.split_at_mut(size);
            places.push((rows, place));
            rest = behind;
        }
        queue(places, |(rows, values)| {
            let first = packed_row(n, rows.start).start;
            let strip = rows.start / STRIP;
            let mut matrices = self.matrices().skip(strip).peekable();
            let Some(&own) = matrices.peek() else { return };
            for (columns, other) in parts(rows.start..n, STRIP).zip(matrices) {
                let mut block = vec![T::default(); rows.len() * columns.len()];
                add(&mut block, own, other.transpose());
                for (i, row) in rows.clone().zip(block.chunks(columns.len())) {
                    let from = (i + 1).max(columns.start);
                    let row = row.get(from - columns.start..).unwrap_or_default();
                    let place = packed_row(n, i).start - first + from - (i + 1);
                    values[place..place + row.len()].copy_from_slice(row);
                }
            }
        });
        upper
    }
}

/// Products of rows `r` of `z` with rows `c`, on its device.
pub(super) fn there(z: &Tensor<2>, r: &Range<usize>, c: &Range<usize>) -> Tensor<2> {
    let rows = |of: &Range<usize>| z.clone().narrow(0, of.start, of.len());
    rows(r).matmul(rows(c).transpose())
}

/// Products of rows `r` of `z` with rows `c`, row-major; on the CPU from where the rows lie.
pub(super) async fn between<T: Real>(
    z: &Tensor<2>,
    r: &Range<usize>,
    c: &Range<usize>,
) -> Result<Vec<T>, device::Error> {
    if !is_here(z) {
        return device::read(there(z, r, c)).await;
    }
    let d = z.dims()[1];
    let values: View<T> = view(z).await?;
    let rows = |start: usize, n: usize| {
        MatRef::from_row_major_slice(&values[start * d..(start + n) * d], n, d)
    };
    let mut products = vec![T::default(); r.len() * c.len()];
    let mut rest = MatMut::from_row_major_slice_mut(&mut products, r.len(), c.len());
    let mut blocks = Vec::new();
    for columns in parts(c.clone(), STRIP) {
        let (block, behind) = rest.split_at_col_mut(columns.len());
        blocks.push((columns, block));
        rest = behind;
    }
    queue(blocks, |(columns, block)| {
        let columns = rows(columns.start, columns.len()).transpose();
        let own = rows(r.start, r.len());
        matmul(
            block,
            Accum::Replace,
            own,
            columns,
            T::rounded(1.0),
            Par::Seq,
        );
    });
    Ok(products)
}

/// A range in parts of at most `size`.
pub(super) fn parts(of: Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> {
    let end = of.end;
    of.step_by(size)
        .map(move |start| start..(start + size).min(end))
}

/// Adds `a b` to a row-major product, on this thread.
fn add<T: Real>(product: &mut [T], a: MatRef<'_, T>, b: MatRef<'_, T>) {
    let place = MatMut::from_row_major_slice_mut(product, a.nrows(), b.ncols());
    matmul(place, Accum::Add, a, b, T::rounded(1.0), Par::Seq);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(n: usize, d: usize, f: f64) -> Rows<f64> {
        let values: Vec<f64> = (0..n * d).map(|i| (i as f64 * f).sin()).collect();
        let values = values.into();
        Rows { values, n, d }
    }

    /// Against plain loops, at sizes that fill no block, one, and some and a part.
    #[test]
    fn blocks_cover_every_product_once() {
        for (n, dx, dy) in [
            (3, 5, 2),
            (7, 256, 512),
            (9, 300, 1030),
            (9, 1030, 300),
            (520, 2, 3),
            (1100, 3, 1),
        ] {
            let (a, b) = (rows(n, dx, 0.37), rows(n, dy, 0.73));
            let mean: Vec<f64> = (0..dx.max(dy))
                .map(|j| 0.1 * j as f64 / dx as f64)
                .collect();
            let at = |a: &Rows<f64>, k: usize, i: usize| a.row(k)[i] - mean[i];
            let squares = |a: &Rows<f64>, b: &Rows<f64>| -> f64 {
                let all = (0..a.d).flat_map(|i| (0..b.d).map(move |j| (i, j)));
                let product = |(i, j)| (0..n).map(|k| at(a, k, i) * at(b, k, j)).sum::<f64>();
                all.map(|pair| product(pair).powi(2)).sum()
            };
            let near = |found: f64, expected: f64| (found / expected - 1.0).abs() < 1e-12;
            let (x, lengths) = Strips::centred(&a, &mean[..dx]);
            let (y, _) = Strips::centred(&b, &mean[..dy]);
            for size in [64, 256, 512] {
                assert!(near(x.pair(&y, size), squares(&a, &b)), "{n} {dx} {dy}");
                assert!(near(x.own(size), squares(&a, &a)), "{n} {dx}");
            }
            let product = |i: usize, j: usize| (0..dx).map(|c| at(&a, i, c) * at(&a, j, c)).sum();
            let close = |found: f64, expected: f64| (found - expected).abs() < 1e-12 * dx as f64;
            let mut upper = x.upper_triangle().into_iter();
            for (i, &length) in lengths.iter().enumerate() {
                assert!(close(length, product(i, i)));
                for j in i + 1..n {
                    assert!(
                        close(upper.next().unwrap(), product(i, j)),
                        "{i} {j} of {n}"
                    );
                }
            }
            assert_eq!(upper.next(), None);
            let back: Vec<usize> = (0..n).rev().collect();
            let mut upper = x.reordered(&back).upper_triangle().into_iter();
            for i in 0..n {
                for j in i + 1..n {
                    let expected = product(n - 1 - i, n - 1 - j);
                    assert!(close(upper.next().unwrap(), expected), "{i} {j} of {n}");
                }
            }
        }
    }
}
