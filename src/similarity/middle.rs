//! Exact places in the order of all pairs, by counting: no copy of the values, and few passes over them.

use std::ops::Range;

use super::Error;
use super::host::chunks_mut;
use super::lanes::{Lane, wide};
use super::pairs::{Source, blocks, segment};

/// How many equal steps of the order are told apart in one pass: few over values that are there, many where
/// a pass works them out anew.
const FEW: usize = 1 << 16;
const MANY: usize = 1 << 20;

/// Parts that are counted apart, on as many threads as there are.
const PARTS: usize = 8;

/// Rows whose pairs foretell where a place lies, and how far off, as a share of all, they may be. A
/// wrong foretelling costs another pass and nothing else.
const SAMPLE: usize = 1024;
const OFF: f64 = 0.05;

/// Values that are at least 0, one for each pair of rows.
pub(super) enum Table<'a, T> {
    Packed(&'a [T]),
    Tiled(&'a Source<T>),
}

/// So many steps of `2^shift` keys from `from` on.
#[derive(Clone, Copy)]
struct Window {
    bins: usize,
    from: u64,
    shift: u32,
}

impl Window {
    /// Room for the keys `from..to`, in the finest steps that do.
    fn over(bins: usize, from: u64, to: u64) -> Self {
        let mut shift = 0;
        while (to - from).div_ceil(1 << shift) > bins as u64 {
            shift += 1;
        }
        Self { bins, from, shift }
    }

    /// 0 below the window, `bins + 1` above it.
    fn bin(self, key: u64) -> usize {
        match key.checked_sub(self.from) {
            None => 0,
            Some(above) => ((above >> self.shift) as usize).min(self.bins) + 1,
        }
    }

    /// Adds the values of these rows to the counts of their bins.
    fn count<'a, T: Lane>(self, rows: impl Iterator<Item = &'a [T]>, counts: &mut [u64]) {
        let end = self.from.saturating_add((self.bins as u64) << self.shift);
        let (low, high) = (T::of_key(self.from), T::of_key(end.min(T::MOST_KEY + 1)));
        for row in rows {
            // Most lie outside, and are counted without a look at where.
            let [below, above] = wide(|| {
                let outside = row.iter().map(|&v| [v < low, v >= high].map(u32::from));
                outside.fold([0; 2], |[a, b], [below, above]| [a + below, b + above])
            });
            counts[0] += u64::from(below);
            counts[self.bins + 1] += u64::from(above);
            let inside = row.iter().filter(|&&v| v >= low && v < high);
            inside.for_each(|v| counts[self.bin(v.key())] += 1);
        }
    }

    /// The first key of a bin inside.
    fn key(self, bin: usize) -> u64 {
        self.from + ((bin as u64 - 1) << self.shift)
    }
}

impl<T: Lane> Table<'_, T> {
    /// The values at two neighbouring places of the rising order, counted from 0, or at one twice.
    pub(super) async fn at(&self, places: [usize; 2]) -> Result<[T; 2], Error> {
        let (p, next) = self.find(places).await?;
        let q = match next {
            Some(q) => q,
            None => self.find([places[1]; 2]).await?.0,
        };
        Ok([p, q])
    }

    /// The value at the first place, and that at the second if it came to light as well.
    async fn find(&self, places: [usize; 2]) -> Result<(T, Option<T>), Error> {
        let bins = match self {
            Self::Packed(_) => FEW,
            Self::Tiled(_) => MANY,
        };
        let all = Window::over(bins, 0, T::MOST_KEY + 1);
        let mut window = match self {
            Self::Packed(_) => all,
            Self::Tiled(source) => foretold(source, places[0]).await?,
        };
        loop {
            let counts = self.count(window).await?;
            let [p, q] = places.map(|place| bin_of(&counts, place as u64));
            window = match p {
                0 => all,
                p if p > bins => all,
                p if window.shift > 0 => Window::over(bins, window.key(p), window.key(p + 1)),
                p => {
                    let value = |bin: usize| T::of_key(window.key(bin));
                    return Ok((value(p), (q <= bins).then(|| value(q))));
                }
            };
        }
    }

    /// How many values lie in each bin.
    async fn count(&self, window: Window) -> Result<Vec<u64>, Error> {
        let mut parts = vec![vec![0u64; window.bins + 2]; PARTS];
        match self {
            Self::Packed(values) => {
                let row = |r: Range<usize>| std::iter::once(&values[r]);
                in_parts(&mut parts, values.len(), |r, part| {
                    window.count(row(r), part)
                });
            }
            Self::Tiled(source) => {
                for (r, c) in blocks(source.n()) {
                    let values = source.tile(&r, &c).await?;
                    let row = |i: usize| segment(&values, &r, &c, r.start + i).1;
                    in_parts(&mut parts, r.len(), |p, part| {
                        window.count(p.map(row), part)
                    });
                }
            }
        }
        let bin = |b: usize| parts.iter().map(|part| part[b]).sum();
        Ok((0..window.bins + 2).map(bin).collect())
    }
}

/// `f` on an equal share of `0..n` for each part.
fn in_parts(parts: &mut [Vec<u64>], n: usize, f: impl Fn(Range<usize>, &mut [u64]) + Sync + Send) {
    let size = n.div_ceil(PARTS);
    let place = |k: usize| (k * size).min(n);
    chunks_mut(parts, 1, |k, part| f(place(k)..place(k + 1), &mut part[0]));
}

/// The bin that holds the value at a place.
fn bin_of(counts: &[u64], place: u64) -> usize {
    let mut up_to = 0;
    counts
        .iter()
        .position(|count| {
            up_to += count;
            up_to > place
        })
        .expect("a place among the values")
}

/// Where a sample of the rows says that a place lies.
async fn foretold<T: Lane>(source: &Source<T>, place: usize) -> Result<Window, Error> {
    let n = source.n();
    let mut sample = source.sample(SAMPLE.min(n)).await?;
    sample.sort_unstable_by_key(|v| v.key());
    let share = place as f64 / (n * (n - 1) / 2) as f64;
    let at = |share: f64| sample[(share.clamp(0.0, 1.0) * (sample.len() - 1) as f64) as usize];
    Ok(Window::over(
        MANY,
        at(share - OFF).key(),
        at(share + OFF).key() + 1,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::block_on;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn places_are_those_of_a_sorted_list(values in prop::collection::vec(0u32..400, 1..300), step in 1e-30f32..1e30, at in 0.0f64..1.0) {
            let values: Vec<f32> = values.into_iter().map(|v| v as f32 * step).collect();
            let wide: Vec<f64> = values.iter().map(|&v| f64::from(v).powi(3)).collect();
            let p = (at * (values.len() - 1) as f64) as usize;
            let q = (p + 1).min(values.len() - 1);
            let mut sorted = values.clone();
            sorted.sort_unstable_by(f32::total_cmp);
            let found = block_on(Table::Packed(&values).at([p, q])).unwrap();
            prop_assert_eq!(found, [sorted[p], sorted[q]]);
            let mut sorted = wide.clone();
            sorted.sort_unstable_by(f64::total_cmp);
            let found = block_on(Table::Packed(&wide).at([p, q])).unwrap();
            prop_assert_eq!(found, [sorted[p], sorted[q]]);
        }
    }
}
