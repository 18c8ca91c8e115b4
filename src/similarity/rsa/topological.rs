//! Transforms of dissimilarities between geometry and topology (Lin & Kriegeskorte 2024).

use super::super::Error;
use super::super::host::{Real, chunks_mut};

/// Rows of a block of the shortest paths, and columns that are passed over together.
const BLOCK: usize = 64;
const COLUMNS: usize = 1024;

/// The quantiles at `low` and `up`, between two values in proportion (numpy's default).
fn thresholds<T: Real>(values: &[T], low: f64, up: f64) -> [f64; 2] {
    let mut sorted = values.to_vec();
    [low, up].map(|share| quantile(&mut sorted, share))
}

fn quantile<T: Real>(values: &mut [T], share: f64) -> f64 {
    let place = share * (values.len() - 1) as f64;
    let order = |a: &T, b: &T| a.wide().total_cmp(&b.wide());
    let (_, at, above) = values.select_nth_unstable_by(place as usize, order);
    let at = at.wide();
    match above.iter().map(|v| v.wide()).reduce(f64::min) {
        Some(next) => at + place.fract() * (next - at),
        None => at,
    }
}

/// `(d - l) / (u - l)` cut off at 0 and 1, with `l` and `u` the quantiles at `low` and `up` of all values.
/// Where they are equal, 0 up to them and 1 above.
pub(super) fn geotopological<T: Real>(values: &mut [T], low: f64, up: f64) {
    let [l, u] = thresholds(values, low, up);
    let between = |d: f64| match u > l {
        true => ((d - l) / (u - l)).clamp(0.0, 1.0),
        false => f64::from(d > u),
    };
    chunks_mut(values, 1 << 15, |_, part| {
        part.iter_mut()
            .for_each(|v| *v = T::rounded(between(v.wide())));
    });
}

/// Lengths of the shortest paths over the edges below 1, in place of the upper triangle.
pub(super) fn geodesic<T: Real>(values: &mut [T], n: usize) -> Result<(), Error> {
    let mut whole = square(values, n);
    shortest_paths(&mut whole, n);
    let mut rest = values;
    for i in 0..n {
        let (row, below) = rest.split_at_mut(n - i - 1);
        row.copy_from_slice(&whole[i * n + i + 1..(i + 1) * n]);
        rest = below;
    }
    match whole.iter().all(|v| v.wide().is_finite()) {
        true => Ok(()),
        false => Err(Error::Undefined {
            why: "its graph of near rows falls apart",
        }),
    }
}

/// The symmetric matrix of an upper triangle, with values of 1 and above infinite.
fn square<T: Real>(upper: &[T], n: usize) -> Vec<T> {
    let edge = |v: T| {
        T::rounded(if v.wide() < 1.0 {
            v.wide()
        } else {
            f64::INFINITY
        })
    };
    let mut whole = vec![T::default(); n * n];
    let mut values = upper.iter();
    for i in 0..n {
        for (j, &v) in (i + 1..n).zip(values.by_ref()) {
            whole[i * n + j] = edge(v);
            whole[j * n + i] = edge(v);
        }
    }
    whole
}

/// All shortest paths (Floyd 1962, Warshall 1962) in blocks of intermediate rows: those rows first, with
/// one another, then all rows over them.
fn shortest_paths<T: Real>(d: &mut [T], n: usize) {
    for start in (0..n).step_by(BLOCK) {
        let width = BLOCK.min(n - start);
        let pivot = &mut d[start * n..(start + width) * n];
        for k in 0..width {
            let over = pivot[k * n..(k + 1) * n].to_vec();
            chunks_mut(pivot, n, |_, row| relax(row, row[start + k], &over));
        }
        let pivot = pivot.to_vec();
        chunks_mut(d, BLOCK * n, |_, rows| over_block(rows, &pivot, start, n));
    }
}

/// Every row over every row of `pivot`, which are the rows from `start` on.
fn over_block<T: Real>(rows: &mut [T], pivot: &[T], start: usize, n: usize) {
    let width = pivot.len() / n;
    let firsts: Vec<T> = rows
        .chunks(n)
        .flat_map(|row| row[start..start + width].to_vec())
        .collect();
    for from in (0..n).step_by(COLUMNS) {
        let columns = from..(from + COLUMNS).min(n);
        for (row, firsts) in rows.chunks_mut(n).zip(firsts.chunks(width)) {
            for (first, over) in firsts.iter().zip(pivot.chunks(n)) {
                relax(&mut row[columns.clone()], *first, &over[columns.clone()]);
            }
        }
    }
}

/// `row = min(row, first + over)`.
fn relax<T: Real>(row: &mut [T], first: T, over: &[T]) {
    for (d, &o) in row.iter_mut().zip(over) {
        let through = first + o;
        *d = if through < *d { through } else { *d };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks, their ends and a single row against the three plain loops.
    #[test]
    fn shortest_paths_are_those_of_plain_loops() {
        for n in [1, 2, 63, 64, 65, 150] {
            let mut d = vec![f64::INFINITY; n * n];
            for i in 0..n {
                d[i * n + i] = 0.0;
                for j in 0..i {
                    let near = ((i * 31 + j * 17) % 101) as f64 / 25.0;
                    let edge = if near < 1.0 || i == j + 1 {
                        near
                    } else {
                        f64::INFINITY
                    };
                    d[i * n + j] = edge;
                    d[j * n + i] = edge;
                }
            }
            let mut plain = d.clone();
            for k in 0..n {
                for i in 0..n {
                    for j in 0..n {
                        plain[i * n + j] =
                            plain[i * n + j].min(plain[i * n + k] + plain[k * n + j]);
                    }
                }
            }
            shortest_paths(&mut d, n);
            let off = d.iter().zip(&plain).map(|(a, b)| (a - b).abs());
            assert!(off.fold(0.0, f64::max) < 1e-12, "{n}");
        }
    }

    #[test]
    fn quantiles_lie_between_values() {
        let values = [4.0f32, 1.0, 3.0, 2.0];
        assert_eq!(thresholds(&values, 0.0, 1.0), [1.0, 4.0]);
        let [l, u] = thresholds(&values, 0.2, 0.5);
        assert!((l - 1.6).abs() < 1e-12 && (u - 2.5).abs() < 1e-12);
    }
}
