//! Products of a representation with itself, tile by tile.

use std::ops::Range;

use burn::tensor::Tensor;

use super::host::Real;
use super::products::there;
use crate::device;

/// Most values of one tile: 16 MiB in f32.
const TILE: usize = 1 << 22;

/// Most rows of one tile.
const ROWS: usize = 512;

/// Row ranges of the tiles of an `n`-column product, in order.
pub(super) fn tiles(n: usize) -> impl Iterator<Item = Range<usize>> {
    let rows = (TILE / n.max(1)).clamp(16, ROWS);
    (0..n)
        .step_by(rows)
        .map(move |start| start..(start + rows).min(n))
}

/// Rows `r` of `z zᵀ`, from column `r.start` on: `[r.len(), n - r.start]`.
pub(super) fn tile(z: &Tensor<2>, r: &Range<usize>) -> Tensor<2> {
    let n = z.dims()[0];
    there(z, r, &(r.start..n))
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
