//! Euclidean distances of some rows, on the host.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::Error;
use super::super::host::{Rows, map_chunks, sum_range};

/// The distances of `n` rows, `i > j`, row after row.
#[derive(Clone, Debug)]
pub(in crate::similarity) struct Distances {
    pub(super) n: usize,
    lower: Vec<f64>,
}

impl Distances {
    pub(super) fn new(rows: &Rows<f64>, of: &[usize]) -> Self {
        let distance = |i: usize, j: usize| {
            let (a, b) = (rows.row(of[i]), rows.row(of[j]));
            sum_range(0..a.len(), |c| (a[c] - b[c]).powi(2)).sqrt()
        };
        Self::from_fn(of.len(), distance)
    }

    fn from_fn(n: usize, distance: impl Fn(usize, usize) -> f64 + Sync + Send) -> Self {
        let row = |i: usize| (0..i).map(|j| distance(i, j)).collect::<Vec<_>>();
        let lower = map_chunks(n, 1, |r| row(r.start)).concat();
        Self { n, lower }
    }

    /// Row `i` of the new is row `order[i]` of the old.
    pub(super) fn reordered(&self, order: &[usize]) -> Self {
        Self::from_fn(self.n, |i, j| self.between(order[i], order[j]))
    }

    pub(super) fn between(&self, i: usize, j: usize) -> f64 {
        match i.cmp(&j) {
            std::cmp::Ordering::Equal => 0.0,
            std::cmp::Ordering::Less => self.lower[j * (j - 1) / 2 + i],
            std::cmp::Ordering::Greater => self.lower[i * (i - 1) / 2 + j],
        }
    }

    /// Divided by their 0.9 quantile, which is that of the full `n × n` matrix with its diagonal of
    /// zeros, interpolated as numpy does; an error if it is 0.
    pub(super) fn normalised(mut self) -> Result<Self, Error> {
        let scale = self.quantile(0.9);
        if scale <= 0.0 {
            return Err(Error::Undefined {
                why: "nine in ten of its distances are 0",
            });
        }
        self.lower.iter_mut().for_each(|d| *d /= scale);
        Ok(self)
    }

    fn quantile(&self, q: f64) -> f64 {
        let place = q * ((self.n * self.n) as f64 - 1.0);
        let mut sorted = self.lower.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let at = |k: usize| match k.checked_sub(self.n) {
            Some(k) => sorted[k / 2],
            None => 0.0,
        };
        let (low, part) = (place.floor() as usize, place.fract());
        let high = (low + 1).min(self.n * self.n - 1);
        at(low) + (at(high) - at(low)) * part
    }

    /// Mean over the full matrix.
    pub(super) fn mean(&self) -> f64 {
        2.0 * self.lower.iter().sum::<f64>() / (self.n * self.n) as f64
    }
}

/// `trials` draws of `points` of `n` rows without replacement, each ascending and always the same;
/// one draw of all rows if there are no more than `points`.
pub(super) fn draws(n: usize, points: usize, trials: usize) -> Vec<Vec<usize>> {
    if n <= points {
        return vec![(0..n).collect()];
    }
    let draw = |trial: usize| {
        let mut rng = ChaCha8Rng::seed_from_u64(trial as u64);
        let mut rows: Vec<usize> = (0..n).collect();
        for i in 0..points {
            rows.swap(i, rng.random_range(i..n));
        }
        rows.truncate(points);
        rows.sort_unstable();
        rows
    };
    (0..trials).map(draw).collect()
}
