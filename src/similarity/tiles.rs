//! Products of a representation with itself, tile by tile.

use std::ops::Range;

use burn::tensor::Tensor;

use super::host::Real;
use crate::device;

/// Most values of one tile: 16 MiB in f32.
const TILE: usize = 1 << 22;

/// Most rows of one tile.
const ROWS: usize = 512;

/// Row ranges of the tiles of an `n`-column product, in order.
pub(super) fn tiles(n: usize) -> impl Iterator<Item = Range<usize>> {
    let rows = (TILE / n.max(1)).clamp(16, ROWS);
    ranges(0..n, rows)
}

/// The range in pieces of at most `size`, in order.
pub(super) fn ranges(all: Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> {
    let end = all.end;
    all.step_by(size)
        .map(move |start| start..(start + size).min(end))
}

/// Rows and columns of the blocks that cover an `n × n` product from the diagonal on: strip by strip,
/// the columns of a strip in order, the first block with the square on the diagonal. Strips are high
/// enough for a product at full speed however large `n` is.
pub(super) fn blocks(n: usize) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
    let columns = move |r: &Range<usize>| ranges(r.start..n, TILE / ROWS);
    ranges(0..n, ROWS).flat_map(move |r| columns(&r).map(move |c| (r.clone(), c)))
}

/// Rows `r` by columns `c` of `z zᵀ`.
pub(super) fn block(z: &Tensor<2>, r: &Range<usize>, c: &Range<usize>) -> Tensor<2> {
    let rows = |r: &Range<usize>| z.clone().narrow(0, r.start, r.len());
    rows(r).matmul(rows(c).transpose())
}

/// Rows `r` of `z zᵀ`, from column `r.start` on: `[r.len(), n - r.start]`.
pub(super) fn tile(z: &Tensor<2>, r: &Range<usize>) -> Tensor<2> {
    block(z, r, &(r.start..z.dims()[0]))
}

/// The strict upper triangle of `z zᵀ`, row-major: `n (n - 1) / 2` values. One tile is held besides.
pub(super) async fn upper_triangle<T: Real>(z: &Tensor<2>) -> Result<Vec<T>, device::Error> {
    let n = z.dims()[0];
    let mut upper = Vec::with_capacity(n * (n - 1) / 2);
    for r in tiles(n) {
        let width = n - r.start;
        let values = device::read::<T, 2>(tile(z, &r)).await?;
        for i in 0..r.len() {
            upper.extend_from_slice(&values[i * width + i + 1..(i + 1) * width]);
        }
    }
    Ok(upper)
}
