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

    fn offer(&mut self, value: T, column: usize) {
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

/// Offers the tile `[best.len(), width]`, whose first row and column are both `start` of the whole,
/// to its rows, each but its own column.
pub(super) fn offer_rows<T: Real>(best: &mut [Best<T>], tile: &[T], start: usize) {
    let width = tile.len() / best.len();
    chunks_mut(best, 1, |i, best| {
        let row = &tile[i * width..(i + 1) * width];
        for (b, block) in row.chunks(BLOCK).enumerate() {
            let floor = best[0].floor;
            if !block.iter().fold(false, |any, &v| any | (v > floor)) {
                continue;
            }
            for (c, &value) in block.iter().enumerate() {
                let column = b * BLOCK + c;
                if column != i {
                    best[0].offer(value, start + column);
                }
            }
        }
    });
}

/// Offers the columns of a tile of rows `r` that lie right of its square on the diagonal to the
/// rows they stand for.
pub(super) fn offer_columns<T: Real>(best: &mut [Best<T>], tile: &[T], r: Range<usize>) {
    let width = r.len() + best.len();
    chunks_mut(best, BLOCK, |b, best| {
        let mut floors: Vec<T> = best.iter().map(|b| b.floor).collect();
        for i in 0..r.len() {
            let from = i * width + r.len() + b * BLOCK;
            let segment = &tile[from..from + best.len()];
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

    /// Both directions of a symmetric matrix, in tiles of two rows, against sorting each row.
    #[test]
    fn tiles_agree_with_sorting() {
        let (n, keep) = (5, 3);
        let value = |i: usize, j: usize| ((i * j + i + j) % 4) as f64;
        let mut best: Vec<Best<f64>> = (0..n).map(|_| Best::new(keep)).collect();
        for start in (0..n).step_by(2) {
            let r = start..(start + 2).min(n);
            let tile: Vec<f64> = r
                .clone()
                .flat_map(|i| (start..n).map(move |j| value(i, j)))
                .collect();
            let (above, below) = best[start..].split_at_mut(r.len());
            offer_rows(above, &tile, start);
            offer_columns(below, &tile, r);
        }
        for (i, best) in best.iter().enumerate() {
            let mut all: Vec<usize> = (0..n).filter(|&j| j != i).collect();
            all.sort_by(|&a, &b| value(i, b).total_cmp(&value(i, a)));
            let found: Vec<usize> = best.entries().iter().map(|e| e.1 as usize).collect();
            assert_eq!(found, all[..keep]);
        }
    }
}
