//! The nearest neighbours of every row of one representation.

use std::ops::Range;

use burn::tensor::Tensor;

use super::Nearness;
use crate::device;
use crate::ops::{NearestBy, PairTile, nearest};
use crate::similarity::Error;
use crate::similarity::best::{Best, offer_block};
use crate::similarity::groups::Groups;
use crate::similarity::host::{Real, Rows, beside, chunks_mut, is_here, sum_range};
use crate::similarity::lanes::wide;
use crate::similarity::pairs::blocks;
use crate::similarity::products;

/// Candidates kept beyond `k`, which are put in order in f64.
const SPARE: usize = 8;

/// Most candidates that are chosen on the device.
const MOST_THERE: usize = 1024;

/// Rows and columns of a block from which candidates are chosen on the device: 64 MiB.
const BLOCK_THERE: [usize; 2] = [2048, 8192];

/// A neighbour of a row, and how near it is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Near {
    pub(super) row: u32,
    /// In f64, up to a factor that depends on the row it is a neighbour of.
    pub(super) score: f64,
}

/// The `k` nearest of each row, `[n, k]`, nearest first, of equally near ones the lower index.
pub(super) async fn nearest_rows<T: Real>(
    x: Tensor<2>,
    rows: Rows<T>,
    k: usize,
    by: Nearness,
) -> Result<Vec<Near>, Error> {
    let groups = Groups::new(&rows);
    let space = Space::new(groups.distinct(x), groups.distinct_rows(rows), by);
    let best = space.candidates(k + SPARE).await?;
    let mut lists = vec![Near::default(); groups.of.len() * k];
    chunks_mut(&mut lists, k, |i, list| {
        space.settle(i, &groups, &best, list)
    });
    Ok(lists)
}

/// One over the length of each row; 0 for a row of zeros.
pub(super) fn inverse_lengths<T: Real>(rows: &Rows<T>) -> Vec<f64> {
    rows.map(|row| {
        let square = sum_range(0..row.len(), |j| row[j].wide() * row[j].wide());
        if square > 0.0 {
            square.sqrt().recip()
        } else {
            0.0
        }
    })
}

/// A representation of distinct rows made ready for one kind of nearness.
struct Space<T> {
    by: Nearness,
    /// Rows whose products are taken, on the device: normalised (cosine) or centred (Euclidean).
    z: Tensor<2>,
    /// The rows as they came.
    rows: Rows<T>,
    /// Cosine: one over the length of each row. Euclidean: squared length of the centred rows.
    weight: Vec<f64>,
}

impl<T: Real> Space<T> {
    fn new(x: Tensor<2>, rows: Rows<T>, by: Nearness) -> Self {
        let (n, d) = (rows.n, rows.d);
        let (z, weight) = match by {
            Nearness::Inner => (x, vec![]),
            Nearness::Euclidean => {
                let mean = rows.column_means();
                let square = |row: &[T]| {
                    let centred = |j: usize| (row[j] - mean[j]).wide();
                    sum_range(0..d, |j| centred(j) * centred(j))
                };
                let squares = rows.map(square);
                (x.clone() - beside(mean, [1, d], &x), squares)
            }
            Nearness::Cosine => {
                let weight = inverse_lengths(&rows);
                let column = weight.iter().map(|&w| T::rounded(w)).collect();
                (x.clone() * beside::<T>(column, [n, 1], &x), weight)
            }
        };
        Self {
            by,
            z,
            rows,
            weight,
        }
    }

    /// The `keep` nearest of each row by the device's products. Every row meets its candidates in
    /// ascending order.
    async fn candidates(&self, keep: usize) -> Result<Vec<Best<T>>, device::Error> {
        let mut best: Vec<Best<T>> = (0..self.rows.n).map(|_| Best::new(keep)).collect();
        let squares: Vec<T> = self.weight.iter().map(|&w| T::rounded(w)).collect();
        match is_here(&self.z) || keep > MOST_THERE {
            true => self.choose_here(&mut best, &squares).await?,
            false => self.choose_there(&mut best, squares, keep).await?,
        }
        Ok(best)
    }

    /// On the CPU, where a block of products can be looked at as it lies: it serves its rows and its
    /// columns.
    async fn choose_here(&self, best: &mut [Best<T>], squares: &[T]) -> Result<(), device::Error> {
        for (r, c) in blocks(self.rows.n) {
            let mut values = products::between::<T>(&self.z, &r, &c).await?;
            if self.by == Nearness::Euclidean {
                to_distances(&mut values, &squares[r.clone()], &squares[c.clone()]);
            }
            offer_block(best, &values, r, c);
        }
        Ok(())
    }

    /// Where reading back costs more than multiplying: all blocks are made, and of each row only the
    /// best come back.
    async fn choose_there(
        &self,
        best: &mut [Best<T>],
        squares: Vec<T>,
        keep: usize,
    ) -> Result<(), device::Error> {
        let n = self.rows.n;
        let (by, squares) = match self.by {
            Nearness::Euclidean => (NearestBy::Distance, squares),
            _ => (NearestBy::Product, vec![T::default(); n]),
        };
        let squares = beside(squares, [1, n], &self.z).reshape([n]);
        let part = |r: &Range<usize>| squares.clone().narrow(0, r.start, r.len());
        for r in products::parts(0..n, BLOCK_THERE[0]) {
            let mut found = None;
            for c in products::parts(0..n, BLOCK_THERE[1]) {
                let tile = PairTile {
                    products: products::there(&self.z, &r, &c),
                    row_squares: part(&r),
                    column_squares: part(&c),
                };
                found = Some(nearest(found, &tile, [r.start, c.start], by, keep));
            }
            let found = found.expect("there are columns");
            let values = device::read::<T, 2>(found.values).await?;
            let rows = device::read_int(found.indices).await?;
            let width = values.len() / r.len();
            chunks_mut(&mut best[r], 1, |i, best| {
                for at in i * width..(i + 1) * width {
                    best[0].offer(values[at], rows[at] as usize);
                }
            });
        }
        Ok(())
    }

    /// The `list.len()` nearest of row `i`: the candidates, and the rows equal to them and to it, by
    /// nearness in f64. More than `k + 1` of equal rows never matter.
    fn settle(&self, i: usize, groups: &Groups, best: &[Best<T>], list: &mut [Near]) {
        let own = groups.of[i];
        let near = best[own as usize].entries().iter().map(|f| f.1);
        let enough = list.len() + 1;
        let mut all: Vec<Near> = Vec::with_capacity(list.len() + SPARE + 1);
        for group in near.chain([own]) {
            let members = &groups.members[group as usize];
            if group == own && members.len() == 1 {
                continue;
            }
            let score = self.exact(own as usize, group as usize);
            let others = members.iter().take(enough).filter(|&&j| j as usize != i);
            all.extend(others.map(|&row| Near { row, score }));
        }
        all.sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then(a.row.cmp(&b.row)));
        list.copy_from_slice(&all[..list.len()]);
    }

    /// Nearness of rows `i` and `j` in f64, up to a factor that depends on `i` alone.
    fn exact(&self, i: usize, j: usize) -> f64 {
        let (a, b) = (self.rows.row(i), self.rows.row(j));
        match self.by {
            Nearness::Cosine => product(a, b) * self.weight[j],
            Nearness::Inner => product(a, b),
            Nearness::Euclidean => -squared_distance([a, b], [1.0, 1.0]),
        }
    }
}

fn product<T: Real>(a: &[T], b: &[T]) -> f64 {
    let b = &b[..a.len()];
    wide(|| sum_range(0..a.len(), |c| a[c].wide() * b[c].wide()))
}

/// `|s a - t b|²` with the factors `[s, t]`.
pub(super) fn squared_distance<T: Real>([a, b]: [&[T]; 2], [s, t]: [f64; 2]) -> f64 {
    let b = &b[..a.len()];
    let square = |c: usize| (a[c].wide() * s - b[c].wide() * t).powi(2);
    wide(|| sum_range(0..a.len(), square))
}

/// A block of products turned into negative squared distances, given the squared lengths of its rows
/// and columns.
fn to_distances<T: Real>(block: &mut [T], rows: &[T], columns: &[T]) {
    chunks_mut(block, columns.len(), |i, values| {
        for (v, &square) in values.iter_mut().zip(columns) {
            *v = *v + *v - square - rows[i];
        }
    });
}
