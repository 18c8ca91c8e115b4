//! Kendall's tau of two long vectors of ranks in `O(m log m)` (Knight 1966).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::super::host::{chunks_mut, map_chunks};

/// Pairs that tie, of one side.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ties(u64);

impl Ties {
    /// Doubled ranks are at most twice as many as there are values: ties are counted by rank.
    pub(super) fn of(doubled: &[u32]) -> Self {
        let mut counts = vec![0u32; 2 * doubled.len() + 1];
        doubled.iter().for_each(|&r| counts[r as usize] += 1);
        Self(counts.into_iter().map(|c| pairs(u64::from(c))).sum())
    }
}

/// A vector of ranks with its ties.
type Ranked<'a> = (&'a [u32], &'a Ties);

fn pairs(n: u64) -> u64 {
    n * n.saturating_sub(1) / 2
}

pub(super) fn tau_a(a: Ranked<'_>, b: Ranked<'_>) -> f64 {
    concordance(a, b) as f64 / pairs(a.0.len() as u64) as f64
}

pub(super) fn tau_b(a: Ranked<'_>, b: Ranked<'_>) -> f64 {
    let all = pairs(a.0.len() as u64);
    let untied = |ties: &Ties| ((all - ties.0) as f64).sqrt();
    concordance(a, b) as f64 / untied(a.1) / untied(b.1)
}

/// Concordant less discordant pairs.
fn concordance((a, ties_a): Ranked<'_>, (b, ties_b): Ranked<'_>) -> i64 {
    let mut both: Vec<u64> = a
        .iter()
        .zip(b)
        .map(|(a, b)| u64::from(*a) << 32 | u64::from(*b))
        .collect();
    sort(&mut both);
    let ties_both: u64 = both
        .chunk_by(|x, y| x == y)
        .map(|run| pairs(run.len() as u64))
        .sum();
    let second = both.iter().map(|&v| v as u32).collect();
    let discordant = inversions(second);
    let untied = pairs(a.len() as u64) + ties_both - ties_a.0 - ties_b.0;
    untied as i64 - 2 * discordant as i64
}

/// Length of the runs that are sorted on their own.
const RUN: usize = 1 << 16;

/// Sorts in parallel: runs, then merges of two.
fn sort(values: &mut Vec<u64>) {
    chunks_mut(values, RUN, |_, run| run.sort_unstable());
    merge_up(values, RUN, |_| ());
}

/// Pairs `i < j` with `v[i] > v[j]`.
fn inversions(mut values: Vec<u32>) -> u64 {
    let short = map_chunks(values.len(), RUN, |r| {
        let mut run = values[r].to_vec();
        let count = AtomicU64::new(0);
        merge_up(&mut run, 1, |c| add(&count, c));
        (run, count.into_inner())
    });
    let mut total: u64 = short.iter().map(|(_, count)| count).sum();
    values = short.into_iter().flat_map(|(run, _)| run).collect();
    let count = AtomicU64::new(0);
    merge_up(&mut values, RUN, |c| add(&count, c));
    total += count.into_inner();
    total
}

fn add(count: &AtomicU64, more: u64) {
    count.fetch_add(more, Relaxed);
}

/// Merges sorted runs of `width` until one is left, telling each merge's inversions.
fn merge_up<V: Copy + Ord + Default + Send + Sync>(
    values: &mut Vec<V>,
    mut width: usize,
    count: impl Fn(u64) + Sync + Send,
) {
    let mut from = std::mem::take(values);
    let mut to = vec![V::default(); from.len()];
    while width < from.len() {
        chunks_mut(&mut to, 2 * width, |c, out| {
            let start = c * 2 * width;
            let run = &from[start..start + out.len()];
            let (a, b) = run.split_at(width.min(run.len()));
            count(merge(a, b, out));
        });
        std::mem::swap(&mut from, &mut to);
        width *= 2;
    }
    *values = from;
}

/// Merges two sorted runs; how often a value of `b` passes one of `a`.
fn merge<V: Copy + Ord>(a: &[V], b: &[V], out: &mut [V]) -> u64 {
    let (mut i, mut j, mut passed) = (0, 0, 0);
    for slot in out {
        if j == b.len() || i < a.len() && a[i] <= b[j] {
            *slot = a[i];
            i += 1;
        } else {
            *slot = b[j];
            j += 1;
            passed += (a.len() - i) as u64;
        }
    }
    passed
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plain(a: &[u32], b: &[u32]) -> i64 {
        let sign = |x: u32, y: u32| (i64::from(x) - i64::from(y)).signum();
        let pair = |i: usize, j: usize| sign(a[i], a[j]) * sign(b[i], b[j]);
        (0..a.len())
            .map(|i| (0..i).map(|j| pair(i, j)).sum::<i64>())
            .sum()
    }

    proptest! {
        #[test]
        fn agrees_with_counting(both in prop::collection::vec((1u32..12, 1u32..40), 1..200)) {
            let (a, b): (Vec<u32>, Vec<u32>) = both.into_iter().unzip();
            let side = |v: &[u32]| {
                let mut counts = std::collections::HashMap::new();
                v.iter().for_each(|r| *counts.entry(*r).or_insert(0u64) += 1);
                Ties(counts.into_values().map(pairs).sum())
            };
            prop_assert_eq!(concordance((&a, &side(&a)), (&b, &side(&b))), plain(&a, &b));
        }
    }

    /// Longer than a run: a reversed vector has every pair inverted.
    #[test]
    fn runs_are_merged() {
        let n = 3 * RUN as u32 + 7;
        assert_eq!(inversions((0..n).rev().collect()), pairs(u64::from(n)));
        assert_eq!(inversions((0..n).collect()), 0);
        let mut values: Vec<u64> = (0..u64::from(n)).map(|i| i * 7919 % 10_007).collect();
        let mut expected = values.clone();
        expected.sort_unstable();
        sort(&mut values);
        assert_eq!(values, expected);
    }
}
