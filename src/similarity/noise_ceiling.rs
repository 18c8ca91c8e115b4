//! How well responses that are measured again and again can be predicted at all.

use burn::tensor::Tensor;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::Error;
use super::axes::wide_rows;
use super::host::{Rows, map_chunks};
use super::predictivity::{Goodness, Over};
use crate::device::block_on;

/// The split-half reliability of each unit: how well half of its repeats agrees with the other half,
/// corrected for the number of repeats.
///
/// `repeats` is `[r, n, d]`: the responses of `d` units to `n` inputs, `r` times. `splits` times the
/// repeats are divided at random into two halves (one is left out of an odd number), whose means over
/// repeats are correlated over inputs, unit by unit. The mean correlation `ρ` over the splits becomes
/// `k ρ / (1 + (k - 1) ρ)` with `k` the repeats over those of a half: the reliability of the mean of all
/// repeats, from 0 (halves do not agree, or against each other) to 1. None for a unit that does not vary
/// in some half.
///
/// The correlation of a perfect model with the mean of all repeats is the root of it.
///
/// # Errors
/// Fewer than 2 repeats or 3 inputs, no units ([`Error::Undefined`]); a NaN or infinity, its row counted
/// over all repeats; the device failing.
///
/// # Panics
/// If `splits` is 0.
///
/// # Cost
/// `O(splits r n d)` on the host in f64; `8 (r + 2) n d` bytes.
///
/// # Source
/// Spearman 1910 and Brown 1910. Brain-Goodness (Schrimpf et al. 2018) corrects the correlation of each split
/// and averages then; of one split that is the same, and the mean first has no pole at `ρ = -1`.
///
/// # Example
/// ```
/// use inscape::{Device, similarity::split_half};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let twice = [[[1., 1.], [2., 4.], [3., 2.]], [[1., 3.], [2., 1.], [3., 2.]]];
/// let units = split_half(&Tensor::<3>::from_data(twice, cpu.tensor()), 1, 0)?;
/// assert!(units[0] > Some(0.999) && units[1] == Some(0.0));
/// # Ok(())
/// # }
/// ```
pub fn split_half(
    repeats: &Tensor<3>,
    splits: usize,
    seed: u64,
) -> Result<Vec<Option<f64>>, Error> {
    block_on(split_half_async(repeats, splits, seed))
}

/// [`split_half`] without blocking.
///
/// # Errors
/// As [`split_half`].
///
/// # Panics
/// As [`split_half`].
pub async fn split_half_async(
    repeats: &Tensor<3>,
    splits: usize,
    seed: u64,
) -> Result<Vec<Option<f64>>, Error> {
    assert!(splits > 0, "split_half: no splits");
    let [r, n, d] = repeats.dims();
    if r < 2 || n < 3 || d == 0 {
        let why = "a split half needs two repeats, three inputs and a unit";
        return Err(Error::Undefined { why });
    }
    let rows = wide_rows(&repeats.clone().reshape([r * n, d])).await?;
    let mut draws = ChaCha8Rng::seed_from_u64(seed);
    let mut order: Vec<usize> = (0..r).collect();
    let mut sums = vec![Some(0.0); d];
    for _ in 0..splits {
        order.shuffle(&mut draws);
        let (one, rest) = order.split_at(r / 2);
        let halves = [one, &rest[..r / 2]].map(|half| summed(&rows, half, n));
        for (unit, sum) in sums.iter_mut().enumerate() {
            *sum = sum.zip(agreement(&halves, unit, d)).map(|(a, b)| a + b);
        }
    }
    let factor = r as f64 / (r / 2) as f64;
    let corrected = |sum: f64| {
        let rho = (sum / splits as f64).max(0.0);
        factor * rho / (1.0 + (factor - 1.0) * rho)
    };
    Ok(sums.into_iter().map(|sum| sum.map(corrected)).collect())
}

/// The responses `[n, d]` summed over some of the repeats.
fn summed(rows: &Rows<f64>, which: &[usize], n: usize) -> Vec<f64> {
    let of = |i: usize| {
        let mut sum = vec![0.0; rows.d];
        for &repeat in which {
            let row = rows.row(repeat * n + i);
            sum.iter_mut().zip(row).for_each(|(s, v)| *s += v);
        }
        sum
    };
    map_chunks(n, 256, |r| r.flat_map(of).collect::<Vec<_>>()).concat()
}

/// The correlation of the halves over inputs; none if one of them does not vary.
fn agreement(halves: &[Vec<f64>; 2], unit: usize, d: usize) -> Option<f64> {
    let [a, b] = [0, 1].map(|h| {
        halves[h]
            .iter()
            .skip(unit)
            .step_by(d)
            .copied()
            .collect::<Vec<_>>()
    });
    Goodness::Pearson.of(&b, &a)?;
    Goodness::Pearson.of(&a, &b)
}

/// Brain-Goodness's number: the median over units of score over ceiling.
///
/// `scores` and `ceiling` have one entry a unit ([`predictivity`](super::predictivity()), [`split_half`]);
/// units without a score, or whose ceiling is absent or not above 0, are left out.
///
/// # Errors
/// [`Error::Undefined`] if no unit is left.
///
/// # Panics
/// If there are more of one than of the other.
///
/// # Source
/// Schrimpf et al. 2018, "Brain-Goodness: Which Artificial Neural Network for Object Recognition is most
/// Brain-Like?": the correlation is divided by the corrected reliability itself and not by its root, so
/// that a perfect model of noisy units scores above 1.
///
/// # Example
/// ```
/// use inscape::similarity::median_of_ceiling;
///
/// let scores = [Some(0.4), Some(0.2), None, Some(0.3)];
/// let ceiling = [Some(0.8), Some(0.8), Some(0.9), Some(0.0)];
/// assert!((median_of_ceiling(&scores, &ceiling).unwrap() - 0.375).abs() < 1e-12);
/// ```
pub fn median_of_ceiling(scores: &[Option<f64>], ceiling: &[Option<f64>]) -> Result<f64, Error> {
    assert_eq!(
        scores.len(),
        ceiling.len(),
        "median_of_ceiling: units differ"
    );
    let share = |(score, ceiling): (&Option<f64>, &Option<f64>)| {
        Some((*score)? / ceiling.filter(|c| *c > 0.0)?)
    };
    let shares = scores.iter().zip(ceiling).map(share);
    Over::Median.of(shares).map_err(|_| Error::Undefined {
        why: "no unit has a score and a ceiling above 0",
    })
}
