//! What several subjects' dissimilarities say of models: noise ceilings and bootstraps.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::Error;
use super::super::host::{map_chunks, quantile};
use super::compare::Comparator;
use super::rdms::Rdms;

/// How well a perfect model could do, given how much subjects differ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ceiling {
    /// Mean agreement of each subject with what the others agree on: what a perfect model reaches at least.
    pub lower: f64,
    /// Mean agreement with what all agree on: no model does better on these subjects.
    pub upper: f64,
}

/// The noise ceiling of several subjects' dissimilarities.
///
/// What subjects agree on is [`Rdms::pooled`]. For Kendall's tau and whitened or Bures comparators pooling is
/// a heuristic, as in rsatoolbox, so the upper bound may be passed by a little.
///
/// # Errors
/// [`Error::Undefined`] if a matrix, or a mean of some, cannot be compared.
///
/// # Panics
/// If there are fewer than 2 subjects.
///
/// # Cost
/// `subjects²` passes over the pairs and `3 subjects` comparisons; 8 bytes a pair and subject.
///
/// # Source
/// Nili et al. 2014, "A toolbox for representational similarity analysis"; pooling as rsatoolbox 0.3.2.
///
/// # Example
/// ```
/// use inscape::similarity::{Comparator, Rdms, noise_ceiling};
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let subjects = Rdms::new(3, vec![1.0, 2.0, 3.0, 1.0, 2.5, 3.0, 1.5, 2.0, 2.5])?;
/// let ceiling = noise_ceiling(&subjects, Comparator::Pearson)?;
/// assert!(ceiling.lower < ceiling.upper && ceiling.upper <= 1.0);
/// # Ok(())
/// # }
/// ```
pub fn noise_ceiling(subjects: &Rdms, by: Comparator) -> Result<Ceiling, Error> {
    let count = subjects.count();
    assert!(count >= 2, "noise_ceiling: {count} subject");
    let upper = mean(&subjects.pooled(by)?.compare(subjects, by)?[0]);
    let lower = (0..count).map(|k| {
        let others: Vec<usize> = (0..count).filter(|&o| o != k).collect();
        let pooled = subjects.select(&others).pooled(by)?;
        Ok(pooled.compare(&subjects.select(&[k]), by)?[0][0])
    });
    Ok(Ceiling {
        lower: mean(&lower.collect::<Result<Vec<f64>, Error>>()?),
        upper,
    })
}

/// What a bootstrap draws anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resampled {
    /// The conditions: would the result hold for other stimuli?
    Conditions,
    /// The subjects: would it hold for other subjects?
    Subjects,
    /// Both at once.
    Both,
}

/// Evaluations of models on samples of conditions and subjects.
#[derive(Clone, Debug, PartialEq)]
pub struct Bootstrap {
    /// `[sample][model]`: mean over the sample's subjects.
    pub values: Vec<Vec<f64>>,
}

impl Bootstrap {
    /// Mean over the samples.
    pub fn mean(&self, model: usize) -> f64 {
        mean(&self.column(|row| row[model]))
    }

    /// Variance over the samples (over their number less 1).
    pub fn variance(&self, model: usize) -> f64 {
        variance(&self.column(|row| row[model]))
    }

    /// Variance of the difference of two models.
    pub fn variance_of_difference(&self, one: usize, other: usize) -> f64 {
        variance(&self.column(|row| row[one] - row[other]))
    }

    /// The middle `share` of a model's values, for example 0.95.
    ///
    /// # Panics
    /// Unless `0 < share <= 1`.
    pub fn interval(&self, model: usize, share: f64) -> [f64; 2] {
        assert!(share > 0.0 && share <= 1.0, "Bootstrap::interval: {share}");
        let mut values = self.column(|row| row[model]);
        values.sort_by(f64::total_cmp);
        [1.0 - share, 1.0 + share].map(|end| quantile(&values, end / 2.0))
    }

    fn column(&self, of: impl Fn(&[f64]) -> f64) -> Vec<f64> {
        self.values.iter().map(|row| of(row)).collect()
    }
}

/// Evaluates models on `times` samples with replacement of the conditions, the subjects, or both.
///
/// A condition drawn twice gives no pair with itself: such pairs are dropped. A sample of fewer than 3
/// different conditions is drawn again. The same seed gives the same samples, on any number of threads.
///
/// # Errors
/// [`Error::Undefined`] if a sample cannot be compared, say because its dissimilarities are all equal.
///
/// # Panics
/// If the conditions of models and subjects differ, or `times` is below 2.
///
/// # Cost
/// `times (models + subjects)` preparations and `times models subjects` comparisons of the pairs (over
/// subjects alone: one of each); `8 times models` bytes.
///
/// # Source
/// Nili et al. 2014; pairs are dropped as in rsatoolbox.
///
/// # Example
/// ```
/// use inscape::similarity::{Comparator, Resampled, Rdms, bootstrap_models};
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let far = |shift: f64| (0..28).map(move |k| (k as f64 * 0.7 + shift).sin() + 2.0);
/// let model = Rdms::new(8, far(0.0).collect())?;
/// let subjects = Rdms::new(8, far(0.1).chain(far(0.3)).collect())?;
/// let drawn = bootstrap_models(&model, &subjects, Comparator::Pearson, Resampled::Conditions, 50, 1)?;
/// let [low, high] = drawn.interval(0, 0.95);
/// assert!(0.5 < low && low < high && high < 1.0);
/// # Ok(())
/// # }
/// ```
pub fn bootstrap_models(
    models: &Rdms,
    subjects: &Rdms,
    by: Comparator,
    over: Resampled,
    times: usize,
    seed: u64,
) -> Result<Bootstrap, Error> {
    assert!(times >= 2, "bootstrap_models: {times} samples");
    let (n, count) = (subjects.conditions(), subjects.count());
    let whole = match over {
        Resampled::Subjects => Some(models.compare(subjects, by)?),
        Resampled::Conditions | Resampled::Both => None,
    };
    let sample = |t: usize| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(t as u64);
        let table = match &whole {
            Some(table) => table.clone(),
            None => models.compare_on(subjects, by, &conditions(&mut rng, n))?,
        };
        let drawn = match over {
            Resampled::Conditions => (0..count).collect(),
            Resampled::Subjects | Resampled::Both => draw(&mut rng, count),
        };
        let over_subjects = |row: &Vec<f64>| {
            let values: Vec<f64> = drawn.iter().map(|&k| row[k]).collect();
            mean(&values)
        };
        Ok(table.iter().map(over_subjects).collect())
    };
    let values = map_chunks(times, 1, |r| sample(r.start));
    Ok(Bootstrap {
        values: values.into_iter().collect::<Result<_, Error>>()?,
    })
}

/// Bootstraps over conditions, over subjects and over both, which together give the variance for new
/// conditions and new subjects.
#[derive(Clone, Debug, PartialEq)]
pub struct DualBootstrap {
    /// Resampled conditions.
    pub conditions: Bootstrap,
    /// Resampled subjects.
    pub subjects: Bootstrap,
    /// Resampled both at once.
    pub both: Bootstrap,
}

impl DualBootstrap {
    /// Variance of a model's evaluation: `2 (conditions + subjects) - both`, because drawing both at once
    /// counts the noise of single measurements three times; not below that of either alone and not
    /// above that of both.
    pub fn variance(&self, model: usize) -> f64 {
        self.of(|b| b.variance(model))
    }

    /// The same of the difference of two models.
    pub fn variance_of_difference(&self, one: usize, other: usize) -> f64 {
        self.of(|b| b.variance_of_difference(one, other))
    }

    fn of(&self, variance: impl Fn(&Bootstrap) -> f64) -> f64 {
        let (c, s) = (variance(&self.conditions), variance(&self.subjects));
        let both = variance(&self.both);
        (2.0 * (c + s) - both).max(c).max(s).min(both)
    }
}

/// The three bootstraps that [`DualBootstrap`] is made of, `times` samples each.
///
/// # Errors
/// As [`bootstrap_models`].
///
/// # Panics
/// As [`bootstrap_models`].
///
/// # Cost
/// As two of [`bootstrap_models`].
///
/// # Source
/// Schütt et al. 2023, "Statistical inference on representational geometries": the 2-factor bootstrap, with the
/// bounds of rsatoolbox 0.3.2.
pub fn dual_bootstrap(
    models: &Rdms,
    subjects: &Rdms,
    by: Comparator,
    times: usize,
    seed: u64,
) -> Result<DualBootstrap, Error> {
    let of = |over| bootstrap_models(models, subjects, by, over, times, seed);
    Ok(DualBootstrap {
        conditions: of(Resampled::Conditions)?,
        subjects: of(Resampled::Subjects)?,
        both: of(Resampled::Both)?,
    })
}

/// `n` of `n`, with replacement.
fn draw(rng: &mut ChaCha8Rng, n: usize) -> Vec<usize> {
    (0..n).map(|_| rng.random_range(0..n)).collect()
}

/// A draw of at least three different conditions.
fn conditions(rng: &mut ChaCha8Rng, n: usize) -> Vec<usize> {
    loop {
        let mut drawn = draw(rng, n);
        drawn.sort_unstable();
        if drawn.chunk_by(|a, b| a == b).count() >= 3 {
            return drawn;
        }
    }
}

pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn variance(values: &[f64]) -> f64 {
    let mean = mean(values);
    let square: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    square / (values.len() - 1) as f64
}
