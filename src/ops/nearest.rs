//! The nearest others of every row, over products that come in tiles.

use burn::tensor::{DType, Int, Tensor};

use super::{PairTile, topk};

/// What makes one row near another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NearestBy {
    /// A large product.
    Product,
    /// A small distance: nearness is `2 p - s - t`, the squared distance negated.
    Distance,
}

/// The nearest others of some rows, nearest first.
#[derive(Clone, Debug)]
pub struct Nearest {
    /// How near: `[r, k]`.
    pub values: Tensor<2>,
    /// Which rows: `[r, k]`, i32.
    pub indices: Tensor<2, Int>,
}

/// The `k` nearest others of every row of a tile, of those in it and of those found so far.
///
/// `tile` is `[r, c]` at `place` `[row0, col0]` of the whole; a row is no neighbour of its own. Of equally
/// near ones the lower index comes first if tiles come with rising `col0`. While fewer than `k` have been
/// seen there are as many; where a tile holds fewer than `k` others than the row itself, that row stands
/// last at -∞ until others take its place. NaN is nearer than all else, so that it is never hidden.
///
/// # Panics
/// If squared lengths are missing, `running` has other rows, or as [`topk`](super::topk()): `k` from 1
/// to 1,024, `c` up to 2²⁰.
///
/// Cost: three passes over the tile and those of [`topk`](super::topk()), of the tile and then of `2 k`
/// values a row; another tile is held, two while distances are made.
///
/// Source: exact search in blocks, as Johnson, Douze & Jégou 2017, "Billion-scale similarity search with
/// GPUs", without an index. There is no kernel of its own: it is [`topk`](super::topk()) twice.
///
/// ```
/// use burn::tensor::Tensor;
/// use inscape::{Device, ops::{NearestBy, PairTile, nearest}};
/// let cpu = Device::cpu();
/// let z = Tensor::<2>::from_data([[1.0], [2.0], [4.0], [3.0]], cpu.tensor());
/// let squares = (z.clone() * z.clone()).reshape([4]);
/// let columns = |from: usize| PairTile {
///     products: z.clone().matmul(z.clone().narrow(0, from, 2).transpose()),
///     row_squares: squares.clone(),
///     column_squares: squares.clone().narrow(0, from, 2),
/// };
/// let first = nearest(None, &columns(0), [0, 0], NearestBy::Distance, 2);
/// let all = nearest(Some(first), &columns(2), [0, 2], NearestBy::Distance, 2);
/// let indices = all.indices.into_data().try_to_vec::<i32>().unwrap();
/// assert_eq!(indices, [1, 3, 0, 3, 3, 1, 1, 2]);
/// ```
pub fn nearest(
    running: Option<Nearest>,
    tile: &PairTile,
    place: [usize; 2],
    by: NearestBy,
    k: usize,
) -> Nearest {
    let ([r, c], rows, columns) = tile.dims();
    let found = running.as_ref().map_or(r, |found| found.values.dims()[0]);
    assert!(
        rows == r && columns == c && found == r && place[1] + c < 1 << 31,
        "nearest: {rows} rows and {columns} columns of [{r}, {c}], {found} rows so far"
    );
    let near = without_own(nearness(tile, by), place);
    let (values, columns) = topk(near, k.min(c));
    let indices = columns.add_scalar(place[1] as i64);
    match running {
        Some(found) => merge(found, Nearest { values, indices }, k),
        None => Nearest { values, indices },
    }
}

fn nearness(tile: &PairTile, by: NearestBy) -> Tensor<2> {
    let products = tile.products.clone();
    match by {
        NearestBy::Product => products,
        NearestBy::Distance => {
            let of_columns = tile.column_squares.clone().unsqueeze_dim(0);
            let of_rows = tile.row_squares.clone().unsqueeze_dim(1);
            products * 2.0 - of_columns - of_rows
        }
    }
}

/// Puts the diagonal of the whole at -∞, if the tile meets it.
fn without_own(near: Tensor<2>, [row0, col0]: [usize; 2]) -> Tensor<2> {
    let ([r, c], device) = (near.dims(), near.device());
    if row0 >= col0 + c || col0 >= row0 + r {
        return near;
    }
    let from = |first: usize, n: usize| {
        let range = first as i64..(first + n) as i64;
        Tensor::<1, Int>::arange(range, (&device, DType::I32))
    };
    let rows = from(row0, r).unsqueeze_dim::<2>(1).expand([r, c]);
    let columns = from(col0, c).unsqueeze_dim::<2>(0).expand([r, c]);
    near.mask_fill(rows.equal(columns), f32::NEG_INFINITY)
}

/// The k nearest of two lists, the first before the second where they are equal.
fn merge(a: Nearest, b: Nearest, k: usize) -> Nearest {
    let values = Tensor::cat(vec![a.values, b.values], 1);
    let indices = Tensor::cat(vec![a.indices, b.indices], 1);
    let k = k.min(values.dims()[1]);
    let (values, places) = topk(values, k);
    let indices = indices.gather(1, places);
    Nearest { values, indices }
}
