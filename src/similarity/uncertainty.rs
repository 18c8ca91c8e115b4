//! How far a value is from chance, and how far it would move with other rows.

use burn::tensor::{Int, Tensor, TensorData};
use faer::Mat;
use rand::seq::{SliceRandom, index};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::host::{beside, quantile};
use super::{Change, Error, Kind, Metric, Prepared};
use crate::device::block_on;

/// What a value is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Baseline {
    /// The rows of the right side in random order: the same two clouds, but nothing pairs them.
    Rows,
    /// The columns of the right side turned by a random rotation: the same geometry, but no unit of its
    /// own. For metrics that match single units.
    Rotation,
}

impl Baseline {
    /// Whether this kind of chance can change a metric at all.
    pub fn tells(self, metric: impl Into<Metric>) -> bool {
        self.check(metric.into()).is_ok()
    }

    fn check(self, metric: Metric) -> Result<(), Error> {
        let facts = metric.facts();
        let why = match self {
            Self::Rotation if facts.blind_to.contains(&Change::Rotation) => {
                "a rotation does not change this metric, so rotations say nothing of chance"
            }
            Self::Rows if !facts.pairs_rows => {
                "this metric does not see which rows are paired, so shuffled rows say nothing of chance"
            }
            _ => return Ok(()),
        };
        Err(Error::Undefined { why })
    }
}

/// A value beside those that chance gives.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Null {
    /// The value itself.
    pub value: f64,
    /// Mean of the draws.
    pub mean: f64,
    /// Standard deviation of the draws.
    pub sd: f64,
    /// Share of draws at least as alike as the value, the value itself counted among them:
    /// `(1 + draws that are) / (1 + draws)`.
    pub p: f64,
    /// How many draws.
    pub draws: usize,
}

/// A value with the interval in which it would lie with other rows of the same kind.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The value itself.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Share of such intervals that hold the true value, about.
    pub level: f64,
    /// How many draws.
    pub draws: usize,
}

/// A metric of `x`, `[n, dx]`, and `y`, `[n, dy]`, against `draws` values by chance.
///
/// `progress(done, total)` is called after each draw. The same seed gives the same draws.
///
/// # Errors
/// As the metric; [`Error::Undefined`] for [`Baseline::Rotation`] with a metric that no rotation
/// changes, for [`Baseline::Rows`] with one that does not pair rows, and where a draw has no value.
///
/// # Panics
/// If `draws` is 0.
///
/// # Cost
/// Two preparations and for each draw one comparison, and one preparation unless the metric can
/// reorder what it keeps (canonical correlations, linear kernels); a rotation costs `O(dy³)` more.
///
/// # Source
/// A permutation test; the p-value counts the value itself (Phipson & Smyth 2010, "Permutation
/// P-values Should Never Be Zero"), so it is at least `1 / (1 + draws)`. Rotations are uniform:
/// the QR decomposition of normal numbers with the signs of R's diagonal taken out (Mezzadri 2007).
///
/// ```
/// use inscape::{Device, similarity::{Baseline, null}};
/// use burn::tensor::{Distribution, Tensor};
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::random([60, 4], Distribution::Default, cpu.tensor());
/// let found = null(&x, &(x.clone() * 2.0), "linear_cka".parse()?, Baseline::Rows, 99, 0, |_, _| ())?;
/// assert_eq!(found.p, 0.01);
/// assert!(found.value > 0.99 && found.mean.abs() < 0.1);
/// # Ok(())
/// # }
/// ```
pub fn null(
    x: &Tensor<2>,
    y: &Tensor<2>,
    metric: Metric,
    baseline: Baseline,
    draws: usize,
    seed: u64,
    progress: impl FnMut(usize, usize),
) -> Result<Null, Error> {
    block_on(null_async(x, y, metric, baseline, draws, seed, progress))
}

/// [`null`] without blocking.
///
/// # Errors
/// As [`null`].
///
/// # Panics
/// As [`null`].
pub async fn null_async(
    x: &Tensor<2>,
    y: &Tensor<2>,
    metric: Metric,
    baseline: Baseline,
    draws: usize,
    seed: u64,
    mut progress: impl FnMut(usize, usize),
) -> Result<Null, Error> {
    assert!(draws > 0, "null: no draws");
    baseline.check(metric)?;
    let (a, b) = sides(x, y, metric).await?;
    let value = a.compare_async(&b).await?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut found = Vec::with_capacity(draws);
    for done in 1..=draws {
        let other = match baseline {
            Baseline::Rows => shuffled(y, &b, &mut rng).await?,
            Baseline::Rotation => Prepared::new_async(&rotated(y, &mut rng), metric).await?,
        };
        found.push(a.compare_async(&other).await?);
        progress(done, draws);
    }
    let as_alike = |v: &&f64| match metric.facts().kind {
        Kind::Similarity => **v >= value,
        Kind::Distance => **v <= value,
    };
    let (mean, sd) = mean_and_sd(&found);
    Ok(Null {
        value,
        mean,
        sd,
        p: (1 + found.iter().filter(as_alike).count()) as f64 / (1 + draws) as f64,
        draws,
    })
}

/// A metric of `x`, `[n, dx]`, and `y`, `[n, dy]`, with an interval of this `level` (0.95, say).
///
/// Each draw takes half of the rows, without replacement, from both sides. Rows drawn twice, as the
/// common bootstrap has them, would be pairs at distance 0 and neighbours of themselves; halves have
/// none, and their values vary about as much as those of fresh sets of `n` rows do. The interval is the
/// value plus the quantiles of the draws about their own mean. What a metric is off by for want of rows
/// (biased CKA, canonical correlations) is not in it.
///
/// # Errors
/// As the metric, which must take half the rows; [`Error::Undefined`] where a draw has no value.
///
/// # Panics
/// If `draws` is below 2 or `level` is not between 0 and 1.
///
/// # Cost
/// `draws` times the metric on half the rows.
///
/// # Source
/// Half-sampling: Efron 1982, "The Jackknife, the Bootstrap and Other Resampling Plans", chapter 8;
/// Politis, Romano & Wolf 1999, "Subsampling", for `n / 2` of `n` rows, where the correction for the
/// finite set cancels that for the smaller one.
///
/// ```
/// use inscape::{Device, similarity::bootstrap};
/// use burn::tensor::{Distribution, Tensor};
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::random([60, 4], Distribution::Default, cpu.tensor());
/// let y = x.clone() + x.random_like(Distribution::Default);
/// let found = bootstrap(&x, &y, "linear_cka".parse()?, 50, 0.95, 0, |_, _| ())?;
/// assert!(found.low < found.value && found.value < found.high);
/// # Ok(())
/// # }
/// ```
pub fn bootstrap(
    x: &Tensor<2>,
    y: &Tensor<2>,
    metric: Metric,
    draws: usize,
    level: f64,
    seed: u64,
    progress: impl FnMut(usize, usize),
) -> Result<Interval, Error> {
    block_on(bootstrap_async(x, y, metric, draws, level, seed, progress))
}

/// [`bootstrap`] without blocking.
///
/// # Errors
/// As [`bootstrap`].
///
/// # Panics
/// As [`bootstrap`].
pub async fn bootstrap_async(
    x: &Tensor<2>,
    y: &Tensor<2>,
    metric: Metric,
    draws: usize,
    level: f64,
    seed: u64,
    mut progress: impl FnMut(usize, usize),
) -> Result<Interval, Error> {
    assert!(draws > 1, "bootstrap: {draws} draws");
    assert!(level > 0.0 && level < 1.0, "bootstrap: level {level}");
    let value = Prepared::pair(x, y, metric).await?;
    let n = x.dims()[0];
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut found = Vec::with_capacity(draws);
    for done in 1..=draws {
        let mut half = index::sample(&mut rng, n, n / 2).into_vec();
        half.sort_unstable();
        let (x, y) = (rows(x, &half), rows(y, &half));
        found.push(Prepared::pair(&x, &y, metric).await?);
        progress(done, draws);
    }
    let (mean, _) = mean_and_sd(&found);
    found.sort_by(f64::total_cmp);
    let end = |share: f64| value + quantile(&found, share) - mean;
    Ok(Interval {
        value,
        low: end((1.0 - level) / 2.0),
        high: end((1.0 + level) / 2.0),
        level,
        draws,
    })
}

async fn sides(
    x: &Tensor<2>,
    y: &Tensor<2>,
    metric: Metric,
) -> Result<(Prepared, Prepared), Error> {
    let a = Prepared::new_async(x, metric).await;
    let b = Prepared::new_async(y, metric).await;
    Ok((a.map_err(|e| e.at("left"))?, b.map_err(|e| e.at("right"))?))
}

async fn shuffled(y: &Tensor<2>, b: &Prepared, rng: &mut ChaCha8Rng) -> Result<Prepared, Error> {
    let mut order: Vec<usize> = (0..y.dims()[0]).collect();
    order.shuffle(rng);
    match b.reordered(&order) {
        Some(other) => Ok(other),
        None => Prepared::new_async(&rows(y, &order), b.metric()).await,
    }
}

/// The rows of these numbers, in this order.
pub(super) fn rows(x: &Tensor<2>, order: &[usize]) -> Tensor<2> {
    let index: Vec<i32> = order.iter().map(|&i| i as i32).collect();
    let index = TensorData::new(index, [order.len()]);
    let index = Tensor::<1, Int>::from_data(index, &x.device());
    x.clone().select(0, index)
}

/// `x` times a rotation drawn uniformly from all.
fn rotated(x: &Tensor<2>, rng: &mut ChaCha8Rng) -> Tensor<2> {
    let d = x.dims()[1];
    let turn = rotation(d, rng);
    let values: Vec<f64> = (0..d * d).map(|i| turn[(i / d, i % d)]).collect();
    let turn = beside::<f64>(values, [d, d], x).cast(x.dtype());
    x.clone().matmul(turn)
}

/// A rotation or reflection of `d` columns, uniform over all.
pub(super) fn rotation(d: usize, rng: &mut ChaCha8Rng) -> Mat<f64> {
    let mut normal = || {
        let (u, v): (f64, f64) = (rng.random(), rng.random());
        (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    };
    let found = Mat::from_fn(d, d, |_, _| normal()).qr();
    let (mut q, r) = (found.compute_Q(), found.thin_R());
    for j in (0..d).filter(|&j| r[(j, j)] < 0.0) {
        q.col_mut(j).iter_mut().for_each(|v| *v = -*v);
    }
    q
}

fn mean_and_sd(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    (mean, (squares / (n - 1.0).max(1.0)).sqrt())
}
