//! Sums of functions of two sides' values over all pairs.

use std::ops::Range;

use super::super::Error;
use super::super::host::map_chunks;
use super::super::lanes::{Lane, wide};
use super::PART;
use super::source::{Source, blocks, segment};

/// Partial sums of a row.
const LANES: usize = 8;

/// Sums of `M` functions of the values of two row segments.
fn fold_rows<A: Lane, B: Lane, const M: usize>(
    a: &[A],
    b: &[B],
    f: &impl Fn(f64, f64) -> [f64; M],
) -> [f64; M] {
    let mut lanes = [[0.0; LANES]; M];
    let (a_whole, a_rest) = a.as_chunks::<LANES>();
    let (b_whole, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_whole.iter().zip(b_whole) {
        for l in 0..LANES {
            let values = f(a[l].wide(), b[l].wide());
            (0..M).for_each(|m| lanes[m][l] += values[m]);
        }
    }
    for (l, (a, b)) in a_rest.iter().zip(b_rest).enumerate() {
        let values = f(a.wide(), b.wide());
        (0..M).for_each(|m| lanes[m][l] += values[m]);
    }
    lanes.map(|lanes| lanes.iter().sum())
}

fn add<const M: usize>(a: [f64; M], b: [f64; M]) -> [f64; M] {
    std::array::from_fn(|m| a[m] + b[m])
}

pub(super) fn packed_fold<A: Lane, B: Lane, const M: usize>(
    a: &[A],
    b: &[B],
    f: &(impl Fn(f64, f64) -> [f64; M] + Sync),
) -> [f64; M] {
    let part = |r: Range<usize>| wide(|| fold_rows(&a[r.clone()], &b[r], f));
    map_chunks(a.len(), 1 << 15, part)
        .into_iter()
        .fold([0.0; M], add)
}

pub(super) async fn tiled_fold<A: Lane, B: Lane, const M: usize>(
    a: &Source<A>,
    b: &Source<B>,
    f: &(impl Fn(f64, f64) -> [f64; M] + Sync),
) -> Result<[f64; M], Error> {
    let mut sums = [0.0; M];
    for (r, c) in blocks(a.n()) {
        let (left, right) = (a.tile(&r, &c).await?, b.tile(&r, &c).await?);
        let row = |i: usize| {
            let (_, left) = segment(&left, &r, &c, i);
            let (_, right) = segment(&right, &r, &c, i);
            fold_rows(left, right, f)
        };
        let part = |p: Range<usize>| wide(|| p.map(|i| row(r.start + i)).fold([0.0; M], add));
        sums = map_chunks(r.len(), PART, part).into_iter().fold(sums, add);
    }
    Ok(sums)
}
