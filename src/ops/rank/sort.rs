//! The CPU form of ranks, on slices.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use rayon::prelude::*;

use crate::ops::topk::key_of;

const DIGIT_BITS: u32 = 11;
const DIGITS: usize = 1 << DIGIT_BITS;

/// See [`rank`](super::rank).
pub(crate) fn ranks_f32(values: &[f32]) -> Vec<u32> {
    let item = |(i, &v): (usize, &f32)| AtomicU64::new(u64::from(key_of(v)) << 32 | i as u64);
    let sorted = radix_sort(values.par_iter().enumerate().map(item).collect());
    let at = |i: usize| sorted[i].load(Relaxed);
    assign(sorted.len(), |i| at(i) >> 32, |i| at(i) as u32)
}

/// See [`rank`](super::rank).
pub(crate) fn ranks_f64(values: &[f64]) -> Vec<u32> {
    let item = |(i, &v): (usize, &f64)| match v.is_nan() {
        true => (f64::NAN, i as u32),
        false => (v + 0.0, i as u32), // −0 + 0 = +0
    };
    let mut items: Vec<_> = values.iter().enumerate().map(item).collect();
    items.par_sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    assign(items.len(), |i| items[i].0.to_bits(), |i| items[i].1)
}

/// `f` on every part of `0..n`, one a thread, in order. Results never depend on how many there are.
fn each_part<R: Send>(n: usize, f: impl Fn(usize, Range<usize>) -> R + Sync + Send) -> Vec<R> {
    let size = n.div_ceil(rayon::current_num_threads()).max(1);
    let range = |part: usize| part * size..n.min((part + 1) * size);
    (0..n.div_ceil(size))
        .into_par_iter()
        .map(|part| f(part, range(part)))
        .collect()
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
    let mut counts = each_part(from.len(), |_, r| {
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
    each_part(from.len(), |part, r| {
        let mut place = counts[part].clone();
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
    each_part(n, |_, r| {
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
        assert_eq!(ranks_f32(&values), plain(&wide));
        assert_eq!(ranks_f64(&wide), plain(&wide));
        assert_eq!(plain(&[1.0, 1.0]), [3, 3]);
        assert!(ranks_f32(&[]).is_empty());
        assert_eq!(ranks_f32(&[2.0; 9]), [10; 9]);
        assert_eq!(ranks_f32(&[f32::NAN, f32::INFINITY, -f32::NAN]), [5, 2, 5]);
        assert_eq!(ranks_f64(&[f64::NAN, f64::INFINITY, -f64::NAN]), [5, 2, 5]);
    }

    proptest! {
        #[test]
        fn radix_agrees_with_counting(values in prop::collection::vec(-20i32..20, 0..300), step in 1e-9f32..1e3) {
            let values: Vec<f32> = values.into_iter().map(|v| v as f32 * step).collect();
            let wide: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
            prop_assert_eq!(ranks_f32(&values), plain(&wide));
            prop_assert_eq!(ranks_f64(&wide), plain(&wide));
        }
    }
}
