//! The one-to-one assignment with the largest sum.

/// Pairs (row, column) of the one-to-one assignment of the `rows` of `scores` `[rows, columns]`
/// (row-major, finite) to its columns with the largest sum: as many as the smaller side has, in the
/// order of rows.
///
/// Shortest augmenting paths with dual potentials (Jonker & Volgenant 1987; rectangular as in Crouse
/// 2016, "On implementing 2D rectangular assignment algorithms"), from a start that gives each row
/// its best column where that is still free. Of several best assignments it gives one, always the
/// same. Time `O(m² M)` for m ≤ M; memory a copy of the scores where there are more rows than columns.
pub(crate) fn assignment(scores: &[f64], rows: usize, columns: usize) -> Vec<(usize, usize)> {
    debug_assert_eq!(scores.len(), rows * columns);
    if rows <= columns {
        return Duals::new(scores, rows, columns).assigned();
    }
    let turned = transposed(scores, rows, columns);
    let pairs = Duals::new(&turned, columns, rows).assigned();
    let mut pairs: Vec<_> = pairs.into_iter().map(|(c, r)| (r, c)).collect();
    pairs.sort_unstable();
    pairs
}

/// `values` `[rows, columns]` as `[columns, rows]`.
pub(super) fn transposed(values: &[f64], rows: usize, columns: usize) -> Vec<f64> {
    let column = |c: usize| (0..rows).map(move |r| values[r * columns + c]);
    (0..columns).flat_map(column).collect()
}

/// Potentials with `cost - of_row - of_column >= 0` everywhere and 0 at assigned pairs; costs are
/// negative scores. Columns that are not assigned keep a potential of 0.
struct Duals<'a> {
    scores: &'a [f64],
    of_row: Vec<f64>,
    of_column: Vec<f64>,
    column_of: Vec<Option<usize>>,
    row_of: Vec<Option<usize>>,
}

impl<'a> Duals<'a> {
    /// Every row at the potential of its best column, which it gets if no row before it did.
    fn new(scores: &'a [f64], rows: usize, columns: usize) -> Self {
        let mut new = Self {
            scores,
            of_row: vec![0.0; rows],
            of_column: vec![0.0; columns],
            column_of: vec![None; rows],
            row_of: vec![None; columns],
        };
        for r in 0..rows {
            let row = new.row(r);
            let better = |best: usize, c: usize| if row[c] > row[best] { c } else { best };
            let best = (1..columns).fold(0, better);
            new.of_row[r] = -row[best];
            if new.row_of[best].is_none() {
                (new.row_of[best], new.column_of[r]) = (Some(r), Some(best));
            }
        }
        new
    }

    fn row(&self, r: usize) -> &'a [f64] {
        let columns = self.of_column.len();
        &self.scores[r * columns..(r + 1) * columns]
    }

    fn assigned(mut self) -> Vec<(usize, usize)> {
        for r in 0..self.of_row.len() {
            if self.column_of[r].is_none() {
                self.augment(r);
            }
        }
        let pairs = self.column_of.iter().enumerate();
        pairs.filter_map(|(r, c)| c.map(|c| (r, c))).collect()
    }

    /// Assigns `start`, moving other rows along the path that costs least (Dijkstra 1959).
    fn augment(&mut self, start: usize) {
        let columns = self.of_column.len();
        let mut distance = vec![f64::INFINITY; columns];
        let mut from = vec![start; columns];
        let mut open: Vec<usize> = (0..columns).collect();
        let mut done: Vec<usize> = Vec::new();
        let (mut row, mut reached) = (start, 0.0);
        let end = loop {
            let (scores, base) = (self.row(row), reached - self.of_row[row]);
            let mut nearest = 0;
            for (place, &c) in open.iter().enumerate() {
                let through = base - scores[c] - self.of_column[c];
                if through < distance[c] {
                    (distance[c], from[c]) = (through, row);
                }
                if distance[c] < distance[open[nearest]] {
                    nearest = place;
                }
            }
            let column = open.swap_remove(nearest);
            reached = distance[column];
            match self.row_of[column] {
                None => break column,
                Some(next) => row = next,
            }
            done.push(column);
        };
        self.of_row[start] += reached;
        for c in done {
            let gained = reached - distance[c];
            self.of_column[c] -= gained;
            if let Some(row) = self.row_of[c] {
                self.of_row[row] += gained;
            }
        }
        self.turn(end, &from);
    }

    /// Gives every column on the path back from `end` to the row it was reached from.
    fn turn(&mut self, end: usize, from: &[usize]) {
        let mut column = Some(end);
        while let Some(c) = column {
            self.row_of[c] = Some(from[c]);
            column = self.column_of[from[c]].replace(c);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The largest sum over all ways to give each row a column of its own.
    fn exhaustive(scores: &[f64], columns: usize, row: usize, rows: usize, used: u32) -> f64 {
        if row == rows {
            return 0.0;
        }
        let free = (0..columns).filter(|c| used & (1 << c) == 0);
        let with = |c: usize| {
            scores[row * columns + c] + exhaustive(scores, columns, row + 1, rows, used | 1 << c)
        };
        free.map(with).fold(f64::NEG_INFINITY, f64::max)
    }

    proptest! {
        #[test]
        fn the_sum_is_the_largest_there_is(
            (rows, columns) in (1usize..7, 1usize..7),
            values in prop::collection::vec(-10.0f64..10.0, 36),
            whole in any::<bool>(),
        ) {
            // Rounded values tie.
            let value = |v: &f64| if whole { (v / 4.0).round() } else { *v };
            let scores: Vec<f64> = values[..rows * columns].iter().map(value).collect();
            let pairs = assignment(&scores, rows, columns);
            prop_assert_eq!(pairs.len(), rows.min(columns));
            let distinct = |mut side: Vec<usize>| {
                side.sort_unstable();
                side.windows(2).all(|w| w[0] < w[1])
            };
            prop_assert!(distinct(pairs.iter().map(|p| p.0).collect()));
            prop_assert!(distinct(pairs.iter().map(|p| p.1).collect()));
            let sum: f64 = pairs.iter().map(|(r, c)| scores[r * columns + c]).sum();
            let want = match rows <= columns {
                true => exhaustive(&scores, columns, 0, rows, 0),
                false => exhaustive(&transposed(&scores, rows, columns), rows, 0, columns, 0),
            };
            prop_assert!((sum - want).abs() < 1e-9, "{}, not {}: {:?}", sum, want, pairs);
        }
    }

    #[test]
    fn nothing_is_assigned_to_nothing() {
        for (rows, columns) in [(0, 0), (0, 3), (3, 0)] {
            assert_eq!(assignment(&[], rows, columns), []);
        }
    }
}
