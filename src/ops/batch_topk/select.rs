//! The CPU form of batch top-k, on slices.

use rayon::prelude::*;

use crate::ops::topk::{key_of, value_of};

/// Elements of one unit of work.
const CHUNK: usize = 1 << 16;
/// Elements compared at once before any is looked at alone.
const BLOCK: usize = 16;
/// Elements looked at to guess the bound.
const SAMPLE: usize = 1 << 16;

/// A flat place and the value there.
pub(super) type Entry = (u32, f32);

/// What a chunk has at and above a bar.
struct Level {
    /// The elements above, places rising.
    above: Vec<Entry>,
    /// How many are equal to the bar.
    equal: usize,
}

/// The `total` largest elements, places rising, and the smallest of their values.
///
/// A bar guessed from a sample lets one pass drop nearly everything. Then either the bound is among
/// what is above the bar, or it is the bar; a bar that proves too high gives way to the bound of all.
pub(super) fn select(x: &[f32], total: usize) -> (Vec<Entry>, f32) {
    let bar = guess(x, total);
    let levels = scan(x, bar);
    let (above, equal) = sums(&levels);
    if above >= total {
        let bar = bound_above(&levels, total);
        (merge(x, raise(levels, bar), bar, total), bar)
    } else if above + equal >= total {
        (merge(x, levels, bar, total), bar)
    } else {
        let bar = nth(keys(x), total);
        (merge(x, scan(x, bar), bar, total), bar)
    }
}

fn keys(x: &[f32]) -> Vec<u32> {
    x.par_iter().map(|&v| key_of(v)).collect()
}

/// A bar that `total` elements reach, and some more: six standard deviations of a sample's count,
/// and then a few.
fn guess(x: &[f32], total: usize) -> f32 {
    if x.len() <= SAMPLE {
        return nth(keys(x), total);
    }
    let sample = (0..SAMPLE).map(|i| key_of(x[sampled(i, x.len())]));
    let expected = total as f64 * SAMPLE as f64 / x.len() as f64;
    let allowed = expected + 6.0 * expected.sqrt() + 16.0;
    nth(sample.collect(), (allowed as usize).min(SAMPLE))
}

/// A place in the i-th of [`SAMPLE`] equal stretches of `len` elements, scattered so that no column
/// is favoured.
fn sampled(i: usize, len: usize) -> usize {
    let start = |i: usize| (i as u64 * len as u64 / SAMPLE as u64) as usize;
    let mut hash = (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93) >> 32;
    start(i) + hash as usize % (start(i + 1) - start(i))
}

/// The value of the n-th largest key.
fn nth(mut keys: Vec<u32>, n: usize) -> f32 {
    let (_, &mut key, _) = keys.select_nth_unstable_by(n - 1, |a, b| b.cmp(a));
    value_of(key)
}

fn scan(x: &[f32], bar: f32) -> Vec<Level> {
    let chunks = x.par_chunks(CHUNK).enumerate();
    let level = |(c, chunk)| scan_chunk(chunk, c * CHUNK, bar);
    chunks.map(level).collect()
}

fn scan_chunk(chunk: &[f32], start: usize, bar: f32) -> Level {
    let mut above = Vec::new();
    let mut equal = [0u32; BLOCK];
    let (blocks, rest) = chunk.as_chunks::<BLOCK>();
    for (b, block) in blocks.iter().enumerate() {
        // Written without a branch, so that it compiles to vector instructions.
        let mut any = false;
        for (&v, equal) in block.iter().zip(&mut equal) {
            any |= is_above(v, bar);
            *equal += u32::from(is_equal(v, bar));
        }
        if any {
            collect(block, start + b * BLOCK, bar, &mut above);
        }
    }
    collect(rest, start + chunk.len() - rest.len(), bar, &mut above);
    let in_rest = rest.iter().filter(|&&v| is_equal(v, bar)).count();
    Level {
        above,
        equal: equal.iter().sum::<u32>() as usize + in_rest,
    }
}

fn collect(elements: &[f32], start: usize, bar: f32, above: &mut Vec<Entry>) {
    let entries = (start as u32..).zip(elements.iter().copied());
    above.extend(entries.filter(|&(_, v)| is_above(v, bar)));
}

/// NaN is above all but NaN.
fn is_above(v: f32, bar: f32) -> bool {
    let at_most = v <= bar; // false for NaN
    !at_most & !bar.is_nan()
}

fn is_equal(v: f32, bar: f32) -> bool {
    (v == bar) | (v.is_nan() & bar.is_nan())
}

fn sums(levels: &[Level]) -> (usize, usize) {
    let above = levels.iter().map(|level| level.above.len()).sum();
    (above, levels.iter().map(|level| level.equal).sum())
}

/// The bound, where it is among the elements above the bar.
fn bound_above(levels: &[Level], total: usize) -> f32 {
    let entries = levels.iter().flat_map(|level| &level.above);
    nth(entries.map(|&(_, v)| key_of(v)).collect(), total)
}

/// The levels at a higher bar.
fn raise(levels: Vec<Level>, bar: f32) -> Vec<Level> {
    let raise = |Level { mut above, .. }| {
        let equal = above.iter().filter(|&&(_, v)| is_equal(v, bar)).count();
        above.retain(|&(_, v)| is_above(v, bar));
        Level { above, equal }
    };
    levels.into_par_iter().map(raise).collect()
}

/// All elements above the bar, which is the bound, and the first of those equal to it.
fn merge(x: &[f32], levels: Vec<Level>, bar: f32, total: usize) -> Vec<Entry> {
    let mut need = total - sums(&levels).0;
    let levels = levels.into_iter().enumerate().map(|(c, level)| {
        let equal = level.equal.min(need);
        need -= equal;
        (c * CHUNK, level.above, equal)
    });
    let levels: Vec<_> = levels.collect();
    let merged = levels.into_par_iter().map(|(start, above, equal)| {
        let end = x.len().min(start + CHUNK);
        match equal {
            0 => above,
            _ => with_equal(&x[start..end], start, bar, equal, above.len()),
        }
    });
    merged.collect::<Vec<_>>().concat()
}

/// The elements of a chunk above the bar, `above` of them, and the first `equal` at it.
fn with_equal(chunk: &[f32], start: usize, bar: f32, equal: usize, above: usize) -> Vec<Entry> {
    let mut entries = Vec::with_capacity(above + equal);
    let mut left = equal;
    for (place, &v) in (start as u32..).zip(chunk) {
        let equal = left > 0 && is_equal(v, bar);
        left -= usize::from(equal);
        if equal || is_above(v, bar) {
            entries.push((place, v));
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    const FALLING: [f32; 8] = [
        f32::NAN,
        f32::INFINITY,
        1.0,
        f32::MIN_POSITIVE,
        0.0,
        -1e-45,
        -1.0,
        f32::NEG_INFINITY,
    ];

    #[test]
    fn a_value_comes_back_from_its_key() {
        let bits = FALLING.map(f32::to_bits);
        assert_eq!(FALLING.map(|v| value_of(key_of(v)).to_bits()), bits);
        assert_eq!(value_of(key_of(-0.0)).to_bits(), 0);
    }

    #[test]
    fn levels_follow_the_order() {
        for (i, &v) in FALLING.iter().enumerate() {
            for (j, &bar) in FALLING.iter().enumerate() {
                assert_eq!((is_above(v, bar), is_equal(v, bar)), (i < j, i == j));
            }
        }
        assert!(is_equal(0.0, -0.0) && !is_above(0.0, -0.0));
    }

    /// Where a sample sees only the largest ones, the bar is too high and gives way.
    #[test]
    fn a_sample_that_misleads_is_found_out() {
        let len = 5 * SAMPLE + 3;
        let mut x: Vec<f32> = (0..len).map(|i| (i % 1009) as f32).collect();
        (0..SAMPLE).for_each(|i| x[sampled(i, len)] = 5000.0);
        let total = len / 3;
        let (above, equal) = sums(&scan(&x, guess(&x, total)));
        assert!(above + equal < total);
        let mut order: Vec<u32> = (0..len as u32).collect();
        order.sort_by(|&a, &b| x[b as usize].total_cmp(&x[a as usize]));
        let last = x[order[total - 1] as usize];
        order.truncate(total);
        order.sort_unstable();
        let want = order.into_iter().map(|p| (p, x[p as usize])).collect();
        assert_eq!(select(&x, total), (want, last));
    }
}
