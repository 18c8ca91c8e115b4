use std::f64::consts::{PI, TAU};
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::matrix::{dot, squared_distance};
use super::{Error, Matrix, Principal, at_least};

/// Eigenvalues of the covariance of points `[n, d]`, falling; those that rounding leaves below 0
/// are 0.
///
/// # Errors
/// As for [`Principal::of`].
///
/// # Cost
/// `O(n d² + d³)`.
pub fn covariance_spectrum(points: &Matrix) -> Result<Vec<f64>, Error> {
    Ok(Principal::of(points)?.variances)
}

/// Covariance of points that come batch by batch.
///
/// Batches are joined as by Chan, Golub & LeVeque 1983, so that points far from 0 lose nothing.
///
/// # Cost
/// Holds two `[d, d]`.
///
/// ```
/// use inscape::geometry::{Covariance, Matrix, covariance_spectrum};
///
/// let points = Matrix::new(vec![1.0, 2.0, 4.0, 0.5, 3.0, 7.0, 0.0, 1.0], 2)?;
/// let mut seen = Covariance::new(2);
/// seen.add(&points.select(&[0, 1, 2]));
/// seen.add(&points.select(&[3]));
/// let want = covariance_spectrum(&points)?;
/// assert!((seen.spectrum()?[0] - want[0]).abs() < 1e-12);
/// # Ok::<(), inscape::geometry::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Covariance {
    rows: usize,
    mean: Vec<f64>,
    covariance: Matrix,
}

impl Covariance {
    /// Of no point of width `d`.
    pub fn new(d: usize) -> Self {
        Self {
            rows: 0,
            mean: vec![0.0; d],
            covariance: Matrix::from_fn(d, d, |_, _| 0.0),
        }
    }

    /// Adds points `[n, d]`.
    ///
    /// # Panics
    /// If they have another width.
    pub fn add(&mut self, points: &Matrix) {
        let d = self.mean.len();
        assert_eq!(d, points.columns(), "Covariance::add: widths");
        if points.rows() == 0 {
            return;
        }
        let rows = self.rows + points.rows();
        let share = points.rows() as f64 / rows as f64;
        let (mean, own) = (points.mean(), points.covariance());
        let off: Vec<f64> = mean.iter().zip(&self.mean).map(|(b, a)| b - a).collect();
        self.covariance = Matrix::from_fn(d, d, |i, j| {
            let within = (1.0 - share) * self.covariance.row(i)[j] + share * own.row(i)[j];
            within + share * (1.0 - share) * off[i] * off[j]
        });
        self.mean
            .iter_mut()
            .zip(off)
            .for_each(|(m, off)| *m += share * off);
        self.rows = rows;
    }

    /// Its eigenvalues, as [`covariance_spectrum`] has them.
    ///
    /// # Errors
    /// [`Error::TooFew`] for fewer than two points; [`Error::Undefined`] for points that are all
    /// the same.
    pub fn spectrum(&self) -> Result<Vec<f64>, Error> {
        let measure = "the covariance spectrum";
        at_least(measure, "points", 2, self.rows)?;
        let (mut values, _) = self.covariance.eigen(measure)?;
        values.iter_mut().for_each(|v| *v = v.max(0.0));
        // What the rounding of the means leaves.
        match values[0] > 1e-24 * dot(&self.mean, &self.mean) {
            true => Ok(values),
            false => Err(Error::Undefined {
                measure,
                why: "the points are all the same",
            }),
        }
    }
}

/// How many eigenvalues of a falling spectrum are more than rounding leaves: above 1e-10 of the
/// largest.
pub fn numerical_rank(eigenvalues: &[f64]) -> usize {
    let floor = 1e-10 * eigenvalues.first().copied().unwrap_or(0.0);
    eigenvalues.iter().take_while(|v| **v > floor).count()
}

/// A straight line through a spectrum, both axes logarithmic.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PowerLaw {
    /// `α` of `λ_k ∝ k^α`, below 0 for a falling spectrum.
    pub slope: f64,
    /// `ln λ_1` of the line.
    pub intercept: f64,
    /// Share of the variance of `ln λ_k` that the line explains.
    pub r2: f64,
}

/// The power law `λ_k ∝ k^α` of a falling spectrum: least squares of `ln λ_k` on `ln k` for the
/// places `range`, from 0, of `eigenvalues`. Li et al. 2024 ("The geometry of concepts"), section 5,
/// who compare its slope across layers; leave out the first few and the tail that noise makes.
///
/// # Errors
/// [`Error::TooFew`] for fewer than three places; [`Error::Undefined`] for an eigenvalue that is not
/// above 0.
///
/// # Panics
/// If the range ends behind the eigenvalues.
///
/// ```
/// use inscape::geometry::power_law;
///
/// let spectrum: Vec<f64> = (1..=50).map(|k| 8.0 * f64::from(k).powf(-1.5)).collect();
/// let law = power_law(&spectrum, 0..50)?;
/// assert!((law.slope + 1.5).abs() < 1e-9 && (law.r2 - 1.0).abs() < 1e-9);
/// # Ok::<(), inscape::geometry::Error>(())
/// ```
pub fn power_law(eigenvalues: &[f64], range: Range<usize>) -> Result<PowerLaw, Error> {
    at_least("a power law", "eigenvalues", 3, range.len())?;
    let some = &eigenvalues[range.clone()];
    if some.iter().any(|v| v.is_nan() || *v <= 0.0) {
        return Err(Error::Undefined {
            measure: "a power law",
            why: "an eigenvalue is not above 0",
        });
    }
    let points: Vec<(f64, f64)> = range
        .zip(some)
        .map(|(at, v)| ((at as f64 + 1.0).ln(), v.ln()))
        .collect();
    let n = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / n;
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let sum =
        |of: &dyn Fn(f64, f64) -> f64| -> f64 { points.iter().map(|p| of(p.0 - x, p.1 - y)).sum() };
    let slope = sum(&|x, y| x * y) / sum(&|x, _| x * x);
    let left = sum(&|x, y| (y - slope * x).powi(2));
    Ok(PowerLaw {
        slope,
        intercept: y - slope * x,
        r2: 1.0 - left / sum(&|_, y| y * y).max(f64::MIN_POSITIVE),
    })
}

/// How much more ordered a cloud of points is than its covariance says. Nats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClusteringEntropy {
    /// Entropy of a Gaussian with the same covariance: the most that there can be.
    pub gaussian: f64,
    /// Entropy estimated from nearest neighbours.
    pub neighbours: f64,
    /// Their difference: 0 for a Gaussian cloud, larger for a clumpy one.
    pub clustering: f64,
}

/// The clustering entropy `H_gauss − H` of points `[n, d]` (Li et al. 2024, section 5.2), with
/// `H_gauss = ½ Σ ln(2πe λ_i)` over the eigenvalues of the covariance, and
/// `H = ψ(n) − ψ(k) + ln V_d + d/n Σ ln r_i` from the distance `r_i` of each point to its `k`-th
/// nearest neighbour, `V_d` the volume of the unit ball (Kozachenko & Leonenko 1987).
///
/// The estimate is poor where there are few points a dimension: project onto leading principal
/// components first, and compare clouds of equal size.
///
/// # Errors
/// [`Error::TooFew`] for `k` of 0 or no more than `k` points; [`Error::Undefined`] where a direction
/// has no variance or points coincide with their `k`-th neighbours.
///
/// # Cost
/// `O(n² d)`; holds the distances of one point.
pub fn clustering_entropy(points: &Matrix, k: usize) -> Result<ClusteringEntropy, Error> {
    let measure = "clustering entropy";
    at_least(measure, "neighbours", 1, k)?;
    at_least(measure, "points", k + 1, points.rows())?;
    let spectrum = covariance_spectrum(points)?;
    if spectrum.iter().any(|v| *v <= 1e-14 * spectrum[0]) {
        let why = "the points have no variance in some direction";
        return Err(Error::Undefined { measure, why });
    }
    let gaussian = spectrum.iter().map(|v| (TAU * v).ln() + 1.0).sum::<f64>() / 2.0;
    let (n, d) = (points.rows(), points.columns());
    let radii: f64 = (0..n).map(|i| neighbour(points, i, k).ln() / 2.0).sum();
    if !radii.is_finite() {
        let why = "points coincide with their neighbours";
        return Err(Error::Undefined { measure, why });
    }
    let neighbours = digamma(n) - digamma(k) + log_ball_volume(d) + d as f64 / n as f64 * radii;
    Ok(ClusteringEntropy {
        gaussian,
        neighbours,
        clustering: gaussian - neighbours,
    })
}

/// Squared distance of a point to its `k`-th nearest other.
fn neighbour(points: &Matrix, i: usize, k: usize) -> f64 {
    let others = (0..points.rows()).filter(|&j| j != i);
    let distance = |j: usize| squared_distance(points.row(i), points.row(j));
    let mut distances: Vec<f64> = others.map(distance).collect();
    *distances.select_nth_unstable_by(k - 1, f64::total_cmp).1
}

/// `ψ(n)` of a whole number.
fn digamma(n: usize) -> f64 {
    const EULER: f64 = 0.577_215_664_901_532_9;
    (1..n).map(|i| 1.0 / i as f64).sum::<f64>() - EULER
}

/// Volume of the unit ball in `d` dimensions, as a logarithm: `V_d = V_{d−2} · 2π / d`.
fn log_ball_volume(d: usize) -> f64 {
    let start = if d.is_multiple_of(2) { 0.0 } else { 2f64.ln() };
    let steps = (1..=d).filter(|i| i % 2 == d % 2 && *i > 1);
    start + steps.map(|i| (2.0 * PI / i as f64).ln()).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn balls_and_digamma() {
        for (d, volume) in [(1, 2.0), (2, PI), (3, 4.0 / 3.0 * PI), (4, PI * PI / 2.0)] {
            assert!((log_ball_volume(d) - f64::ln(volume)).abs() < 1e-12, "{d}");
        }
        // ψ(n) = ln n − 1/(2n) − 1/(12n²) + …
        let n = 1e4;
        let series = f64::ln(n) - 1.0 / (2.0 * n) - 1.0 / (12.0 * n * n);
        assert!((digamma(10_000) - series).abs() < 1e-10);
    }
}
