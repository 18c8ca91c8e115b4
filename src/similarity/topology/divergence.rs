//! How far apart the topology of two sets of distances between the same points is.

use super::super::host::map_chunks;
use super::distances::Distances;
use super::persistence::{Rips, total};

/// `half(a, b)` and `half(b, a)` averaged, and that over the pairs.
pub(super) fn symmetric(
    a: &[Distances],
    b: &[Distances],
    half: impl Fn(&Distances, &Distances) -> f64 + Sync + Send,
) -> f64 {
    let halves = map_chunks(2 * a.len(), 1, |r| match r.start % 2 {
        0 => half(&a[r.start / 2], &b[r.start / 2]),
        _ => half(&b[r.start / 2], &a[r.start / 2]),
    });
    halves.iter().sum::<f64>() / halves.len() as f64
}

/// Summed H1 bars of the R-cross-barcode of `a` to `b`: of `[[0, a], [a, min(a, b)]]`.
pub(super) fn rtd(a: &Distances, b: &Distances) -> f64 {
    let (n, least) = (a.n, 1e-6 * a.mean());
    let distance = |i: usize, j: usize| match (i.checked_sub(n), j.checked_sub(n)) {
        (None, None) => 0.0,
        (Some(i), Some(j)) => a.between(i, j).min(b.between(i, j)),
        (Some(i), None) => a.between(i, j),
        (None, Some(j)) => a.between(i, j),
    };
    let cut = |d: f64| if d < least { 0.0 } else { d };
    total(&Rips::new(2 * n, |i, j| cut(distance(i, j))).h1())
}

/// Length of the minimum spanning tree of `a` beyond that of `min(a, b)`: the summed H0 bars.
pub(super) fn mst(a: &Distances, b: &Distances) -> f64 {
    let own = tree_length(a.n, |i, j| a.between(i, j));
    own - tree_length(a.n, |i, j| a.between(i, j).min(b.between(i, j)))
}

/// Prim's algorithm on a full matrix.
fn tree_length(n: usize, distance: impl Fn(usize, usize) -> f64) -> f64 {
    let mut outside: Vec<usize> = (1..n).collect();
    let mut nearest = vec![f64::INFINITY; n];
    let (mut last, mut length) = (0, 0.0);
    while !outside.is_empty() {
        let mut best = 0;
        for (at, &i) in outside.iter().enumerate() {
            nearest[i] = nearest[i].min(distance(i, last));
            if nearest[i] < nearest[outside[best]] {
                best = at;
            }
        }
        last = outside.swap_remove(best);
        length += nearest[last];
    }
    length
}
