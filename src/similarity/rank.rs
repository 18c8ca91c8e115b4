//! Ranks of long vectors, ties averaged.
//!
//! Ranks are kept doubled, so that the average of a run of ties stays an integer: the values at
//! sorted positions `lo..=hi` all get `lo + hi + 2`, twice their mean rank counted from 1. They fit a
//! `u32` for up to 2³¹ - 1 values.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use super::host::{Real, map_chunks, workers};

const DIGIT_BITS: u32 = 11;
const DIGITS: usize = 1 << DIGIT_BITS;

/// An element whose vectors can be ranked.
pub(super) trait Ranked: Real {
    /// Doubled average rank of each value. Values are finite; -0 equals 0.
    fn ranks(values: Vec<Self>) -> Vec<u32>;
}

impl Ranked for f32 {
    fn ranks(values: Vec<Self>) -> Vec<u32> {
        let item = |(i, v): (usize, f32)| AtomicU64::new(u64::from(key(v)) << 32 | i as u64);
        let sorted = radix_sort(values.into_iter().enumerate().map(item).collect());
        let at = |i: usize| sorted[i].load(Relaxed);
        assign(sorted.len(), |i| at(i) >> 32, |i| at(i) as u32)
    }
}

impl Ranked for f64 {
    fn ranks(values: Vec<Self>) -> Vec<u32> {
        let item = |(i, v): (usize, f64)| (v + 0.0, i as u32);
        let mut items: Vec<_> = values.into_iter().enumerate().map(item).collect();
        items.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        assign(items.len(), |i| items[i].0.to_bits(), |i| items[i].1)
    }
}

/// Bits that sort as the value does: flip the sign bit of positives and every bit of negatives.
fn key(value: f32) -> u32 {
    let bits = (value + 0.0).to_bits();
    if bits >> 31 == 1 {
        !bits
    } else {
        bits | 1 << 31
    }
}

/// Sorts by the upper half of each item, least significant digit first. Passes in which every key
/// has the same digit are skipped. Atomics let threads write to one buffer; no two share a place.
fn radix_sort(mut from: Vec<AtomicU64>) -> Vec<AtomicU64> {
    let mut to: Vec<AtomicU64> = (0..from.len()).map(|_| AtomicU64::new(0)).collect();
    for shift in (32..64).step_by(DIGIT_BITS as usize) {
        if scatter(&from, &to, shift) {
            std::mem::swap(&mut from, &mut to);
        }
    }
    from
}

/// One stable pass on the digit at `shift`; false if there was nothing to move.
fn scatter(from: &[AtomicU64], to: &[AtomicU64], shift: u32) -> bool {
    let digit = |item: u64| (item >> shift) as usize & (DIGITS - 1);
    let part = from.len().div_ceil(workers()).max(1);
    let mut counts = map_chunks(from.len(), part, |r| {
        let mut count = vec![0u32; DIGITS];
        from[r]
            .iter()
            .for_each(|item| count[digit(item.load(Relaxed))] += 1);
        count
    });
    let total = |d: usize| counts.iter().map(|c| c[d] as usize).sum::<usize>();
    if (0..DIGITS).any(|d| total(d) == from.len()) {
        return false;
    }
    let mut place = 0;
    for d in 0..DIGITS {
        for count in &mut counts {
            place += std::mem::replace(&mut count[d], place);
        }
    }
    map_chunks(from.len(), part, |r| {
        let mut place = counts[r.start / part].clone();
        for item in &from[r] {
            let item = item.load(Relaxed);
            let slot = &mut place[digit(item)];
            to[*slot as usize].store(item, Relaxed);
            *slot += 1;
        }
    });
    true
}

/// Doubled average ranks of `n` sorted items with these keys and original indices.
fn assign(
    n: usize,
    key: impl Fn(usize) -> u64 + Sync + Send,
    index: impl Fn(usize) -> u32 + Sync + Send,
) -> Vec<u32> {
    let ranks: Vec<AtomicU32> = (0..n).map(|_| AtomicU32::new(0)).collect();
    map_chunks(n, n.div_ceil(workers()).max(1), |r| {
        let mut lo = r.start;
        // A run of ties belongs to the part in which it starts.
        while lo < r.end && lo > 0 && key(lo) == key(lo - 1) {
            lo += 1;
        }
        while lo < r.end {
            let mut hi = lo;
            while hi + 1 < n && key(hi + 1) == key(lo) {
                hi += 1;
            }
            (lo..=hi).for_each(|i| ranks[index(i) as usize].store((lo + hi + 2) as u32, Relaxed));
            lo = hi + 1;
        }
    });
    ranks.into_iter().map(AtomicU32::into_inner).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// By definition: twice the mean of the places a value could take.
    fn plain(values: &[f64]) -> Vec<u32> {
        let below = |v: &f64| values.iter().filter(|w| *w < v).count();
        let equal = |v: &f64| values.iter().filter(|w| *w == v).count();
        values
            .iter()
            .map(|v| (2 * below(v) + equal(v) + 1) as u32)
            .collect()
    }

    #[test]
    fn signs_zeros_and_ties() {
        let values = [0.5f32, -0.0, 0.0, -3.0, 0.5, 0.5, f32::MIN_POSITIVE, -1e-40];
        let wide: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
        assert_eq!(f32::ranks(values.to_vec()), plain(&wide));
        assert_eq!(f64::ranks(wide.clone()), plain(&wide));
        assert_eq!(plain(&[1.0, 1.0]), [3, 3]);
        assert!(f32::ranks(vec![]).is_empty());
        assert_eq!(f32::ranks(vec![2.0; 9]), [10; 9]);
    }

    proptest! {
        #[test]
        fn radix_agrees_with_counting(values in prop::collection::vec(-20i32..20, 0..300), step in 1e-9f32..1e3) {
            let values: Vec<f32> = values.into_iter().map(|v| v as f32 * step).collect();
            let wide: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
            prop_assert_eq!(f32::ranks(values), plain(&wide));
            prop_assert_eq!(f64::ranks(wide.clone()), plain(&wide));
        }
    }
}
