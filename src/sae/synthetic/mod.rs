//! Activations made of known sparse features, and how many of them a dictionary finds.
//!
//! Ground truth that real activations do not have (Sharkey, Braun & Millidge 2022; Cunningham et
//! al. 2023, section 2): rows `x = Σ a_j g_j (+ noise)` with unit directions `g_j` and few `a_j`
//! that are not 0. Rows are made when they are read, so that millions of them take no memory.

mod recovery;

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub use recovery::{FOUND, Recovery, Support};

use super::Error;
use crate::capture::store::Source;

/// How many features a row is made of.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Active {
    /// So many in every row.
    Exactly(usize),
    /// A binomial number with this mean: with equal frequencies and no groups every feature is then
    /// active independently of the others. A row may have none.
    OnAverage(f64),
}

/// Features that tend to come together: each is with `size` neighbours in a group, and with
/// probability `share` a row's next feature is from the group of the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Groups {
    /// Features in a group; the last may have fewer.
    pub size: usize,
    /// 0 for none of it, 1 for always, as long as the group lasts.
    pub share: f64,
}

/// What synthetic activations are made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Synthetic {
    /// Width of a row.
    pub d: usize,
    /// True features.
    pub features: usize,
    /// How many of them a row has.
    pub active: Active,
    /// Magnitudes are uniform between these.
    pub magnitude: [f64; 2],
    /// Standard deviation of Gaussian noise on every dimension.
    pub noise: f64,
    /// Feature i is drawn with a weight of `(i + 1)^-power`: 0 for equal frequencies. A row's
    /// features are drawn one after another without replacement, so the frequencies of the commonest
    /// stay a little below that.
    pub power: f64,
    /// Features that come together, if there are any.
    pub groups: Option<Groups>,
    /// Seed of the directions and of all rows.
    pub seed: u64,
}

impl Synthetic {
    /// Rows of width `d` with exactly `active` of `features` equally frequent features each,
    /// magnitudes in 0.5..1.5, no noise, no groups, seed 0.
    pub fn new(d: usize, features: usize, active: usize) -> Self {
        Self {
            d,
            features,
            active: Active::Exactly(active),
            magnitude: [0.5, 1.5],
            noise: 0.0,
            power: 0.0,
            groups: None,
            seed: 0,
        }
    }

    /// Refuses what cannot be made.
    ///
    /// # Errors
    /// [`Error::Config`] names the setting.
    pub fn check(&self) -> Result<(), Error> {
        let bad = |text: String| Err(Error::Config(text));
        let [low, high] = self.magnitude;
        let mean = match self.active {
            Active::Exactly(n) => n as f64,
            Active::OnAverage(mean) => mean,
        };
        match self {
            Self { d: 0, .. } => bad("d = 0: a row must have a width".into()),
            Self { features, .. } if *features == 0 || *features > 1 << 20 => bad(format!(
                "features = {features}: 1 to {} are supported",
                1 << 20
            )),
            Self { features, .. } if !(mean > 0.0 && mean <= *features as f64) => bad(format!(
                "active = {mean}: more than 0 and at most all {features} features"
            )),
            _ if !(low > 0.0 && low <= high && high.is_finite()) => bad(format!(
                "magnitude = {low}..{high}: needs two positive numbers, the smaller first"
            )),
            Self { noise, .. } if !(*noise >= 0.0 && noise.is_finite()) => {
                bad(format!("noise = {noise}: needs a number from 0 on"))
            }
            Self { power, .. } if !(0.0..=8.0).contains(power) => {
                bad(format!("power = {power}: needs a number from 0 to 8"))
            }
            Self {
                groups: Some(Groups { size, share }),
                ..
            } if *size == 0 || !(0.0..=1.0).contains(share) => bad(format!(
                "groups of {size} with share {share}: needs a size from 1 and a share from 0 to 1"
            )),
            _ => Ok(()),
        }
    }
}

/// Known features and the rows made of them. A row depends on the settings and its number alone:
/// every row has a stream of its own of a ChaCha8 generator.
///
/// Cost: holds the directions, and two numbers a feature. A row takes `active · d` additions and
/// some hundred nanoseconds of drawing.
///
/// ```
/// use inscape::sae::synthetic::{Features, Synthetic};
/// let features = Features::new(Synthetic::new(16, 40, 3))?;
/// let mut x = vec![0.0; 16];
/// features.fill(7..8, &mut x);
/// let mut sum = vec![0.0; 16];
/// for (feature, magnitude) in features.active(7) {
///     let direction = &features.directions()[feature * 16..][..16];
///     sum.iter_mut().zip(direction).for_each(|(s, g)| *s += magnitude * g);
/// }
/// assert_eq!(x, sum);
/// # Ok::<(), inscape::sae::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Features {
    config: Synthetic,
    /// `[features, d]`.
    directions: Vec<f32>,
    /// Sums of the weights of the features before each, and of all: `[features + 1]`.
    sums: Vec<f64>,
    /// Chances of at most 0, 1, … active features, where their number is random.
    counts: Vec<f64>,
}

impl Features {
    /// Random directions for these settings.
    ///
    /// # Errors
    /// As [`Synthetic::check`].
    pub fn new(config: Synthetic) -> Result<Self, Error> {
        config.check()?;
        let mut rng = stream(config.seed, 0);
        let mut directions = vec![0f32; config.features * config.d];
        for row in directions.chunks_exact_mut(config.d) {
            let g: Vec<f64> = row.iter().map(|_| normal(&mut rng)).collect();
            let norm = g.iter().map(|x| x * x).sum::<f64>().sqrt();
            row.iter_mut()
                .zip(g)
                .for_each(|(r, g)| *r = (g / norm) as f32);
        }
        let weight = |i: usize| (i as f64 + 1.0).powf(-config.power);
        let mut sums = vec![0.0];
        (0..config.features).for_each(|i| sums.push(sums[i] + weight(i)));
        let counts = match config.active {
            Active::Exactly(_) => Vec::new(),
            Active::OnAverage(mean) => binomial(config.features, mean / config.features as f64),
        };
        Ok(Self {
            config,
            directions,
            sums,
            counts,
        })
    }

    /// The settings.
    pub fn config(&self) -> &Synthetic {
        &self.config
    }

    /// Unit rows `[features, d]`, row-major.
    pub fn directions(&self) -> &[f32] {
        &self.directions
    }

    /// The directions as a tensor `[features, d]`.
    pub fn tensor(&self, device: &burn::tensor::Device) -> Tensor<2> {
        let shape = [self.config.features, self.config.d];
        Tensor::from_data(TensorData::new(self.directions.clone(), shape), device)
    }

    /// What row `row` is made of: features, each once, with their magnitudes.
    pub fn active(&self, row: usize) -> Vec<(usize, f32)> {
        self.draw(&mut stream(self.config.seed, 1 + row as u64))
    }

    /// Writes the rows `rows` over `out`, `[rows, d]` in row-major order.
    ///
    /// # Panics
    /// If `out` does not hold as many.
    pub fn fill(&self, rows: Range<usize>, out: &mut [f32]) {
        let d = self.config.d;
        assert!(
            out.len() == rows.len() * d,
            "Features::fill: {} values for {} rows of width {d}",
            out.len(),
            rows.len()
        );
        let row = |(i, x): (usize, &mut [f32])| self.write(rows.start + i, x);
        let each = out.par_chunks_exact_mut(d).enumerate();
        each.with_min_len(64).for_each(row);
    }

    /// The first `rows` rows, made when they are read.
    pub fn source(self: &Arc<Self>, rows: usize) -> Source {
        let features = self.clone();
        Source::generated("synthetic", rows, self.config.d, move |range, out| {
            features.fill(range, out)
        })
    }

    fn write(&self, row: usize, x: &mut [f32]) {
        let mut rng = stream(self.config.seed, 1 + row as u64);
        x.fill(0.0);
        for (feature, magnitude) in self.draw(&mut rng) {
            let direction = &self.directions[feature * x.len()..][..x.len()];
            x.iter_mut()
                .zip(direction)
                .for_each(|(x, g)| *x += magnitude * g);
        }
        if self.config.noise > 0.0 {
            x.iter_mut()
                .for_each(|x| *x += (self.config.noise * normal(&mut rng)) as f32);
        }
    }

    fn draw(&self, rng: &mut ChaCha8Rng) -> Vec<(usize, f32)> {
        let [low, high] = self.config.magnitude;
        let chosen = self.choose(rng);
        let magnitude = |f| (f, (low + (high - low) * rng.random::<f64>()) as f32);
        chosen.into_iter().map(magnitude).collect()
    }

    fn choose(&self, rng: &mut ChaCha8Rng) -> Vec<usize> {
        let all = 0..self.config.features;
        let n = match self.config.active {
            Active::Exactly(n) => n,
            Active::OnAverage(_) => {
                let u: f64 = rng.random();
                self.counts.partition_point(|c| *c <= u).min(all.end)
            }
        };
        let mut chosen = Vec::with_capacity(n);
        for _ in 0..n {
            let group = chosen.last().and_then(|f| self.group(*f, rng));
            let near = group.and_then(|group| self.pick(group, &chosen, rng));
            let next = near.or_else(|| self.pick(all.clone(), &chosen, rng));
            chosen.extend(next);
        }
        chosen
    }

    /// The group of a feature, where the next one is to come from it.
    fn group(&self, feature: usize, rng: &mut ChaCha8Rng) -> Option<Range<usize>> {
        let Groups { size, share } = self.config.groups?;
        let start = feature - feature % size;
        let end = start.saturating_add(size).min(self.config.features);
        (rng.random::<f64>() < share).then_some(start..end)
    }

    /// One of the features `range` that is not chosen yet, by weight; none if all are.
    fn pick(&self, range: Range<usize>, chosen: &[usize], rng: &mut ChaCha8Rng) -> Option<usize> {
        let weight = |f: usize| self.sums[f + 1] - self.sums[f];
        let (before, total) = (
            self.sums[range.start],
            self.sums[range.end] - self.sums[range.start],
        );
        let taken = chosen.iter().filter(|f| range.contains(f));
        let left = total - taken.map(|f| weight(*f)).sum::<f64>();
        if left > total / 8.0 {
            // Most draws are new: drawn again where one is not.
            loop {
                let at = before + total * rng.random::<f64>();
                let f = self.sums.partition_point(|s| *s <= at) - 1;
                let f = f.clamp(range.start, range.end - 1);
                if !chosen.contains(&f) {
                    return Some(f);
                }
            }
        }
        let mut at = left * rng.random::<f64>();
        let free: Vec<usize> = range.filter(|f| !chosen.contains(f)).collect();
        let hit = free.iter().find(|f| {
            at -= weight(**f);
            at < 0.0
        });
        hit.or(free.last()).copied()
    }
}

/// A generator with a key of its own: one that an autoencoder's weights of the same seed are also
/// drawn from would start it at the answer.
fn stream(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut key = *b"synthetic sparse features       ";
    key[24..].copy_from_slice(&seed.to_le_bytes());
    let mut rng = ChaCha8Rng::from_seed(key);
    rng.set_stream(stream);
    rng
}

/// Box & Muller (1958).
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let (u, v): (f64, f64) = (rng.random(), rng.random());
    (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

/// Chances of at most 0, 1, …, n successes of chance `p` each, by logarithms of the terms.
fn binomial(n: usize, p: f64) -> Vec<f64> {
    let p = p.min(1.0 - 1e-12);
    let odds = (p / (1.0 - p)).ln();
    let (mut log, mut sum) = (n as f64 * (1.0 - p).ln(), 0.0);
    let chance = |k: usize| {
        sum += log.exp();
        log += ((n - k) as f64 / (k + 1) as f64).ln() + odds;
        sum
    };
    (0..=n).map(chance).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binomial_table_is_that_of_its_coefficients() {
        for (n, p) in [(5, 0.3), (12, 0.9), (1, 0.5)] {
            let coefficient =
                |k: usize| -> f64 { (0..k).map(|i| (n - i) as f64 / (i + 1) as f64).product() };
            let mut want = 0.0;
            for (k, got) in binomial(n, p).into_iter().enumerate() {
                want += coefficient(k) * p.powi(k as i32) * (1.0 - p).powi((n - k) as i32);
                assert!((got - want).abs() < 1e-12, "{n} {p} {k}: {got}, not {want}");
            }
        }
    }

    /// Drawn one by one from weights 1, 1/2, 1/3, 1/4, both ways of `pick` against the chances.
    #[test]
    fn a_pick_goes_by_weight_and_never_twice() {
        let config = Synthetic {
            power: 1.0,
            ..Synthetic::new(3, 4, 1)
        };
        let features = Features::new(config).unwrap();
        let weights = [1.0, 1.0 / 2.0, 1.0 / 3.0, 1.0 / 4.0];
        let mut rng = stream(9, 9);
        for chosen in [vec![], vec![1], vec![0, 1], vec![0, 1, 2]] {
            let mut counts = [0.0; 4];
            for _ in 0..40_000 {
                let f = features.pick(0..4, &chosen, &mut rng).unwrap();
                counts[f] += 1.0 / 40_000.0;
            }
            let free = |f: &usize| !chosen.contains(f);
            let left: f64 = (0..4).filter(free).map(|f| weights[f]).sum();
            for f in 0..4 {
                let want = if free(&f) { weights[f] / left } else { 0.0 };
                assert!((counts[f] - want).abs() < 0.015, "{chosen:?}: {counts:?}");
            }
        }
        assert_eq!(features.pick(0..4, &[0, 1, 2, 3], &mut rng), None);
        assert_eq!(features.pick(2..4, &[2, 0], &mut rng), Some(3));
    }
}
