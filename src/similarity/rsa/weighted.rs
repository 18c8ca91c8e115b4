//! Models that are a weighted sum of dissimilarity matrices, fitted and tested on different data.

use faer::prelude::Solve;
use faer::{Mat, Side};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::super::Error;
use super::super::host::dot;
use super::compare::Comparator;
use super::inference::mean;
use super::rdms::Rdms;
use super::whitened::square;

/// Gradients below this share of the largest product count as 0.
const FLAT: f64 = 1e-12;

/// The weights, none below 0, with which the components come nearest to what the subjects agree on.
///
/// Nearest in squares of what `by` compares: the dissimilarities themselves (cosine), less their means
/// (Pearson), whitened; for ranks, Kendall's tau and Bures as Pearson does, against [`Rdms::pooled`] of
/// `by`. Only their ratios count, for no comparator sees a scale.
///
/// # Errors
/// [`Error::Undefined`] if a subject's matrix cannot be pooled, or no positive weight is better than none.
///
/// # Panics
/// If the conditions differ.
///
/// # Cost
/// `components²` passes over the pairs and `8 (components + subjects)` bytes a pair (whitened: `16 n²`).
///
/// # Source
/// Khaligh-Razavi & Kriegeskorte 2014; the active set of Lawson & Hanson 1974.
///
/// # Example
/// ```
/// use inscape::similarity::{Comparator, Rdms, model_weights};
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let components = Rdms::new(3, vec![1.0, 0.0, 1.0, 0.0, 1.0, 1.0])?;
/// let subject = Rdms::new(3, vec![3.0, 1.0, 4.0])?;
/// let weights = model_weights(&components, &subject, Comparator::Cosine)?;
/// assert!((weights[0] / weights[1] - 3.0).abs() < 1e-12);
/// # Ok(())
/// # }
/// ```
pub fn model_weights(
    components: &Rdms,
    subjects: &Rdms,
    by: Comparator,
) -> Result<Vec<f64>, Error> {
    assert_eq!(
        components.conditions(),
        subjects.conditions(),
        "model_weights: conditions"
    );
    let n = components.conditions();
    let features: Vec<Vec<f64>> = components.triangles().map(|t| feature(t, n, by)).collect();
    let target = feature(subjects.pooled(by)?.triangle(0), n, by);
    let gram = Mat::from_fn(features.len(), features.len(), |i, j| {
        dot(&features[i], &features[j])
    });
    let right: Vec<f64> = features.iter().map(|f| dot(f, &target)).collect();
    let weights = nonnegative(&gram, &right);
    match weights.iter().any(|w| *w > 0.0) {
        true => Ok(weights),
        false => Err(Error::Undefined {
            why: "no weight above 0 brings the components nearer",
        }),
    }
}

/// What products are taken of: the values as `by` compares them.
fn feature(triangle: &[f64], n: usize, by: Comparator) -> Vec<f64> {
    let shift = match by {
        Comparator::Cosine | Comparator::WhitenedCosine => 0.0,
        _ => mean(triangle),
    };
    let values: Vec<f64> = triangle.iter().map(|v| v - shift).collect();
    match by {
        Comparator::WhitenedCosine | Comparator::WhitenedPearson => doubly_centred(&values, n),
        _ => values,
    }
}

/// The cells of `H D H`.
fn doubly_centred(triangle: &[f64], n: usize) -> Vec<f64> {
    let whole = square(triangle, n);
    let means: Vec<f64> = whole.col_iter().map(|c| c.sum() / n as f64).collect();
    let all = mean(&means);
    let cell = |k: usize| whole[(k % n, k / n)] - means[k % n] - means[k / n] + all;
    (0..n * n).map(cell).collect()
}

/// The `w >= 0` that minimise `wᵀ G w / 2 - h·w`.
fn nonnegative(gram: &Mat<f64>, right: &[f64]) -> Vec<f64> {
    let k = right.len();
    let mut weights = vec![0.0; k];
    let mut free: Vec<usize> = Vec::new();
    let flat = FLAT * right.iter().fold(0.0, |m: f64, h| m.max(h.abs()));
    for _ in 0..10 * k {
        let slope = |i: usize| right[i] - (0..k).map(|j| gram[(i, j)] * weights[j]).sum::<f64>();
        let held = (0..k).filter(|i| !free.contains(i)).map(|i| (i, slope(i)));
        let Some((steepest, _)) = held
            .filter(|s| s.1 > flat)
            .max_by(|a, b| a.1.total_cmp(&b.1))
        else {
            break;
        };
        free.push(steepest);
        if !descend(gram, right, &mut free, &mut weights) {
            free.retain(|&i| i != steepest);
            break;
        }
    }
    weights
}

/// Goes to the minimum over the free weights, letting go of those that reach 0 on the way; false if
/// they depend on each other.
fn descend(gram: &Mat<f64>, right: &[f64], free: &mut Vec<usize>, weights: &mut [f64]) -> bool {
    loop {
        let part = Mat::from_fn(free.len(), free.len(), |i, j| gram[(free[i], free[j])]);
        let Ok(part) = part.llt(Side::Lower) else {
            return false;
        };
        let best = part.solve(Mat::from_fn(free.len(), 1, |i, _| right[free[i]]));
        let steps = free
            .iter()
            .enumerate()
            .filter(|(i, _)| best[(*i, 0)] <= 0.0);
        let step = steps.map(|(i, &at)| weights[at] / (weights[at] - best[(i, 0)]));
        let step = step.fold(1.0, f64::min);
        for (i, &at) in free.iter().enumerate() {
            weights[at] += step * (best[(i, 0)] - weights[at]);
        }
        if step >= 1.0 {
            return true;
        }
        let gone: Vec<usize> = free
            .iter()
            .copied()
            .filter(|&at| weights[at] <= 1e-15)
            .collect();
        gone.iter().for_each(|&at| weights[at] = 0.0);
        free.retain(|at| !gone.contains(at));
        if gone.is_empty() || free.is_empty() {
            return true;
        }
    }
}

/// Into how many parts conditions and subjects are split; 1 leaves them whole, for fit and test alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Folds {
    /// Parts of the conditions, each of 3 or more.
    pub conditions: usize,
    /// Parts of the subjects.
    pub subjects: usize,
}

/// A weighted model tested on conditions and subjects it was not fitted to.
#[derive(Clone, Debug, PartialEq)]
pub struct Crossvalidated {
    /// Mean over the folds.
    pub score: f64,
    /// Of each pair of a part of the conditions and one of the subjects: the mean over its subjects.
    pub folds: Vec<f64>,
    /// Weights fitted in each fold.
    pub weights: Vec<Vec<f64>>,
}

/// Fits the weights of a sum of dissimilarity matrices to all conditions and subjects but a part of each,
/// and evaluates the sum on that part, for every part.
///
/// The parts are drawn at random from the seed and differ in size by at most one. Pairs of a condition
/// that was fitted and one that was not are used in neither.
///
/// # Errors
/// As [`model_weights`] and [`Rdms::compare`].
///
/// # Panics
/// If the conditions differ, a part would have fewer than 3 conditions or no subject, or fewer than 3
/// conditions would be left to fit.
///
/// # Cost
/// `conditions × subjects` folds, each one [`model_weights`].
///
/// # Source
/// Schütt et al. 2023, "Statistical inference on representational geometries"; the fit as [`model_weights`].
pub fn crossvalidate(
    components: &Rdms,
    subjects: &Rdms,
    by: Comparator,
    folds: Folds,
    seed: u64,
) -> Result<Crossvalidated, Error> {
    let (n, count) = (components.conditions(), subjects.count());
    assert!(
        (1..=n / 3).contains(&folds.conditions) && (1..=count).contains(&folds.subjects),
        "crossvalidate: {folds:?} of {n} conditions and {count} subjects"
    );
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let conditions = parts(n, folds.conditions, &mut rng);
    let persons = parts(count, folds.subjects, &mut rng);
    let (mut scores, mut weights) = (Vec::new(), Vec::new());
    for [fit_c, test_c] in &conditions {
        for [fit_s, test_s] in &persons {
            let seen = subjects.select(fit_s).among(fit_c);
            let fitted = model_weights(&components.among(fit_c), &seen, by)?;
            let model = weighted_sum(&components.among(test_c), &fitted)?;
            let unseen = subjects.select(test_s).among(test_c);
            scores.push(mean(&model.compare(&unseen, by)?[0]));
            weights.push(fitted);
        }
    }
    Ok(Crossvalidated {
        score: mean(&scores),
        folds: scores,
        weights,
    })
}

/// Of each of `count` parts of `0..n`: all others and the part itself; for one part, all and all.
fn parts(n: usize, count: usize, rng: &mut ChaCha8Rng) -> Vec<[Vec<usize>; 2]> {
    let mut order: Vec<usize> = (0..n).collect();
    order.shuffle(rng);
    let sorted = |mut v: Vec<usize>| {
        v.sort_unstable();
        v
    };
    let part = |p: usize| {
        let of = |inside: bool| {
            let chosen = order
                .iter()
                .enumerate()
                .filter(|(at, _)| (at % count == p) == inside);
            sorted(chosen.map(|(_, &i)| i).collect())
        };
        match count {
            1 => [of(true), of(true)],
            _ => [of(false), of(true)],
        }
    };
    (0..count).map(part).collect()
}

fn weighted_sum(components: &Rdms, weights: &[f64]) -> Result<Rdms, Error> {
    let mut sum = vec![0.0; components.triangle(0).len()];
    for (triangle, w) in components.triangles().zip(weights) {
        sum.iter_mut().zip(triangle).for_each(|(s, v)| *s += w * v);
    }
    Rdms::new(components.conditions(), sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every choice of weights above 0 that solves its own equations, by trying all.
    #[test]
    fn the_weights_are_the_best_of_all_choices() {
        for seed in 0..40 {
            let k = 4;
            let cell =
                |i: usize, j: usize| ((seed * 31 + i * i * 7 + i * j * 5 + j * 13) as f64).sin();
            let root = Mat::from_fn(k, 6, cell);
            let gram = &root * root.transpose();
            let right: Vec<f64> = (0..k).map(|i| cell(i, 9)).collect();
            let cost = |w: &[f64]| {
                let at = |i: usize, j: usize| 0.5 * w[i] * gram[(i, j)] * w[j];
                let square: f64 = (0..k * k).map(|c| at(c / k, c % k)).sum();
                square - dot(&right, w)
            };
            let mut best = 0.0f64;
            for choice in 1..1usize << k {
                let free: Vec<usize> = (0..k).filter(|i| choice >> i & 1 == 1).collect();
                let part = Mat::from_fn(free.len(), free.len(), |i, j| gram[(free[i], free[j])]);
                let solved =
                    part.llt(Side::Lower)
                        .unwrap()
                        .solve(Mat::from_fn(free.len(), 1, |i, _| right[free[i]]));
                let mut w = vec![0.0; k];
                free.iter()
                    .enumerate()
                    .for_each(|(i, &at)| w[at] = solved[(i, 0)]);
                if w.iter().all(|w| *w >= 0.0) {
                    best = best.min(cost(&w));
                }
            }
            let found = nonnegative(&gram, &right);
            assert!(found.iter().all(|w| *w >= 0.0));
            assert!((cost(&found) - best).abs() < 1e-10, "{seed}: {found:?}");
        }
    }
}
