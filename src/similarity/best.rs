//! A running top-k for each row of a matrix that arrives in tiles.

use std::ops::Range;

use super::host::{Real, chunks_mut};

/// Values looked at together before any is compared alone.
const BLOCK: usize = 64;

/// The largest values one row has seen, with their columns. Of equal values the one offered first
/// stays ahead, so offering columns in ascending order puts the lower index first.
pub(super) struct Best<T> {
    keep: usize,
    /// Below or at this, a value is not taken: the last entry once there are `keep`.
    floor: T,
    /// Descending.
    entries: Vec<(T, u32)>,
}

impl<T: Real> Best<T> {
    pub(super) fn new(keep: usize) -> Self {
        Self {
            keep,
            floor: T::LOWEST,
            entries: Vec::with_capacity(keep + 1),
        }
    }

    pub(super) fn entries(&self) -> &[(T, u32)] {
        &self.entries
    }

    pub(super) fn offer(&mut self, value: T, column: usize) {
        if value <= self.floor {
            return;
        }
        let at = self.entries.partition_point(|e| e.0 >= value);
        self.entries.insert(at, (value, column as u32));
        self.entries.truncate(self.keep);
        if self.entries.len() == self.keep {
            self.floor = self.entries[self.keep - 1].0;
        }
    }
}

/// Offers rows `r` by columns `c` of a symmetric matrix to the rows, and what lies right of them to the
/// columns. `c` starts with `r` or behind it. Blocks that come strip by strip, from the diagonal on,
/// bring every row its columns in ascending order.
pub(super) fn offer_block<T: Real>(
    best: &mut [Best<T>],
    block: &[T],
    r: Range<usize>,
    c: Range<usize>,
) {
    let (above, below) = best.split_at_mut(r.end);
    offer_rows(&mut above[r.clone()], block, r.start, c.start);
    let right = c.start.max(r.end)..c.end.max(r.end);
    let right = right.start - r.end..right.end - r.end;
    offer_columns(&mut below[right], block, r);
}

/// Offers a block of the whole, whose first row and column are `row` and `column`, to its rows, each
/// but its own column.
fn offer_rows<T: Real>(best: &mut [Best<T>], block: &[T], row: usize, column: usize) {
    let width = block.len() / best.len();
    chunks_mut(best, 1, |i, best| {
        let values = &block[i * width..(i + 1) * width];
        for (b, part) in values.chunks(BLOCK).enumerate() {
            let floor = best[0].floor;
            if !part.iter().fold(false, |any, &v| any | (v > floor)) {
                continue;
            }
            for (c, &value) in part.iter().enumerate() {
                let column = column + b * BLOCK + c;
                if column != row + i {
                    best[0].offer(value, column);
                }
            }
        }
    });
}

/// Offers the last `best.len()` columns of a block of rows `r` to the rows they stand for.
fn offer_columns<T: Real>(best: &mut [Best<T>], block: &[T], r: Range<usize>) {
    let width = block.len() / r.len();
    let first = width - best.len();
    chunks_mut(best, BLOCK, |b, best| {
        let mut floors: Vec<T> = best.iter().map(|b| b.floor).collect();
        for i in 0..r.len() {
            let from = i * width + first + b * BLOCK;
            let segment = &block[from..from + best.len()];
            let above = |(v, f): (&T, &T)| v > f;
            if !segment
                .iter()
                .zip(&floors)
                .fold(false, |any, pair| any | above(pair))
            {
                continue;
            }
            for (c, &value) in segment.iter().enumerate() {
                best[c].offer(value, r.start + i);
                floors[c] = best[c].floor;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_keep_the_lower_column_first() {
        let mut best = Best::<f32>::new(2);
        for (column, value) in [1.0, 3.0, 3.0, 3.0, 2.0].into_iter().enumerate() {
            best.offer(value, column);
        }
        assert_eq!(best.entries(), [(3.0, 1), (3.0, 2)]);
    }

    /// Both directions of a symmetric matrix, in blocks of two rows by three columns, against sorting
    /// each row.
    #[test]
    fn blocks_agree_with_sorting() {
        let (n, keep) = (11, 3);
        let value = |i: usize, j: usize| ((i * j + i + j) % 4) as f64;
        let mut best: Vec<Best<f64>> = (0..n).map(|_| Best::new(keep)).collect();
        for start in (0..n).step_by(2) {
            let r = start..(start + 2).min(n);
            for from in (start..n).step_by(3) {
                let c = from..(from + 3).min(n);
                let values = r.clone().flat_map(|i| c.clone().map(move |j| value(i, j)));
                let values: Vec<f64> = values.collect();
                offer_block(&mut best, &values, r.clone(), c);
            }
        }
        for (i, best) in best.iter().enumerate() {
            let mut all: Vec<usize> = (0..n).filter(|&j| j != i).collect();
            all.sort_by(|&a, &b| value(i, b).total_cmp(&value(i, a)));
            let found: Vec<usize> = best.entries().iter().map(|e| e.1 as usize).collect();
            assert_eq!(found, all[..keep]);
        }
    }
}
