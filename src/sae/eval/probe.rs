use faer::linalg::matmul::triangular::{BlockStructure, matmul};
use faer::prelude::Solve;
use faer::{Accum, Mat, Par, Side};
use serde::{Deserialize, Serialize};

use crate::device;

/// Why concepts could not be probed for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// Rows of one class only.
    #[error("{what}: {positives} of {rows} rows are positive; a probe needs both classes")]
    OneClass {
        /// Which rows.
        what: String,
        /// Rows with the concept.
        positives: usize,
        /// All rows.
        rows: usize,
    },
    /// A value that is NaN or infinite; the first in row order.
    #[error("{what}: row {row}, column {column} is {value}")]
    NotFinite {
        /// Which rows.
        what: String,
        /// Row of the value, from 0.
        row: usize,
        /// Column of the value, from 0.
        column: usize,
        /// The value.
        value: f32,
    },
    /// More latents than there are, or none.
    #[error("k = {k} latents of {d_sae}: k must be from 1 to {d_sae}")]
    Latents {
        /// Latents asked for.
        k: usize,
        /// Latents there are.
        d_sae: usize,
    },
    /// A setting that cannot work.
    #[error("{name} = {value}: {reason}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: f64,
        /// What it should be.
        reason: &'static str,
    },
    /// Newton's method ended without an answer.
    #[error("{what}: logistic regression has not converged in {iterations} steps")]
    NotConverged {
        /// Which rows.
        what: String,
        /// Steps taken.
        iterations: usize,
    },
    /// The device failed.
    #[error(transparent)]
    Device(#[from] device::Error),
}

/// Rows of two classes.
#[derive(Clone, Debug)]
pub struct Labelled {
    what: String,
    x: Vec<f32>,
    d: usize,
    labels: Vec<bool>,
}

impl Labelled {
    /// Rows `x` `[n, d]` in row-major order with a label each. `what` names them in errors.
    ///
    /// # Errors
    /// [`ProbeError::NotFinite`], [`ProbeError::OneClass`].
    ///
    /// # Panics
    /// If `d` is 0 or there is not one label a row.
    pub fn new(
        what: impl Into<String>,
        x: Vec<f32>,
        d: usize,
        labels: Vec<bool>,
    ) -> Result<Self, ProbeError> {
        assert!(
            d > 0 && x.len() == d * labels.len(),
            "Labelled::new: {} values of width {d} for {} labels",
            x.len(),
            labels.len()
        );
        let what = what.into();
        if let Some(at) = x.iter().position(|v| !v.is_finite()) {
            let (row, column, value) = (at / d, at % d, x[at]);
            return Err(ProbeError::NotFinite {
                what,
                row,
                column,
                value,
            });
        }
        let positives = labels.iter().filter(|l| **l).count();
        if positives == 0 || positives == labels.len() {
            let rows = labels.len();
            return Err(ProbeError::OneClass {
                what,
                positives,
                rows,
            });
        }
        Ok(Self { what, x, d, labels })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.labels.len()
    }

    /// Rows with the concept.
    pub fn positives(&self) -> usize {
        self.labels.iter().filter(|l| **l).count()
    }

    /// The first `k` columns of these rows.
    pub(super) fn first_columns(&self, k: usize) -> Self {
        let x = self.x.chunks(self.d).flat_map(|row| &row[..k]);
        Self {
            what: self.what.clone(),
            x: x.copied().collect(),
            d: k,
            labels: self.labels.clone(),
        }
    }

    fn each(&self) -> impl Iterator<Item = (&[f32], bool)> {
        self.x.chunks(self.d).zip(self.labels.iter().copied())
    }

    /// Mean and standard deviation of each column.
    fn moments(&self) -> Vec<(f64, f64)> {
        let n = self.rows() as f64;
        let mut mean = vec![0.0; self.d];
        for (row, _) in self.each() {
            mean.iter_mut()
                .zip(row)
                .for_each(|(m, v)| *m += f64::from(*v) / n);
        }
        let mut square = vec![0.0; self.d];
        for (row, _) in self.each() {
            for ((s, m), v) in square.iter_mut().zip(&mean).zip(row) {
                *s += (f64::from(*v) - m).powi(2) / n;
            }
        }
        mean.into_iter()
            .zip(square)
            .map(|(m, s)| (m, s.sqrt()))
            .collect()
    }

    /// The columns shifted and scaled to mean 0 and variance 1, and a column of ones:
    /// `[n, d + 1]`. A constant column becomes 0.
    fn standardised(&self, moments: &[(f64, f64)]) -> Mat<f64> {
        Mat::from_fn(self.rows(), self.d + 1, |i, j| match moments.get(j) {
            None => 1.0,
            Some(&(m, s)) if s > 1e-12 * m.abs() => (f64::from(self.x[i * self.d + j]) - m) / s,
            Some(_) => 0.0,
        })
    }
}

/// How a [`Probe`] is fitted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fit {
    /// λ, on standardised columns. 1 is scikit-learn's default (its `C` is 1 / λ).
    pub l2: f64,
    /// Weigh rows so that both classes count the same.
    pub balanced: bool,
}

impl Default for Fit {
    fn default() -> Self {
        Self {
            l2: 1.0,
            balanced: false,
        }
    }
}

/// A linear probe: positive where `w · x + b > 0`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// `w` `[d]`, for columns as they come.
    pub weights: Vec<f64>,
    /// `b`.
    pub bias: f64,
}

/// Most steps of Newton's method; ten or so are usual.
const STEPS: usize = 100;

impl Probe {
    /// Logistic regression: the `w`, `b` that minimise `Σ sᵢ log(1 + exp(−yᵢ zᵢ)) + λ/2 ‖w‖²` with
    /// `z = w · x + b`, y of ±1, columns of `x` shifted and scaled to mean 0 and variance 1, and
    /// weights s of 1 (or, balanced, n / (2 rows of the class)). `b` is not penalised.
    ///
    /// Newton's method with step halving, in f64, so that the answer is unique and needs no seed.
    ///
    /// # Errors
    /// [`ProbeError::Setting`] unless λ is above 0; [`ProbeError::NotConverged`].
    ///
    /// # Cost
    /// `O(n d² + d³)` a step; holds two `[n, d + 1]` matrices of f64.
    ///
    /// ```
    /// use inscape::sae::eval::{Fit, Labelled, Probe};
    ///
    /// let x = vec![0.1, 0.9, 1.2, 3.0, 3.5, 2.8];
    /// let labels = vec![false, false, false, true, true, true];
    /// let rows = Labelled::new("rows", x, 1, labels)?;
    /// let scores = Probe::fit(&rows, &Fit::default())?.scores(&rows);
    /// assert_eq!((scores.accuracy, scores.auroc), (1.0, 1.0));
    /// # Ok::<(), inscape::sae::eval::ProbeError>(())
    /// ```
    pub fn fit(rows: &Labelled, fit: &Fit) -> Result<Self, ProbeError> {
        let nothing = Self {
            weights: vec![0.0; rows.d],
            bias: 0.0,
        };
        Self::fit_from(rows, fit, &nothing)
    }

    /// The same from a probe that is near: fewer steps to the same answer.
    pub(super) fn fit_from(rows: &Labelled, fit: &Fit, start: &Self) -> Result<Self, ProbeError> {
        if !(fit.l2 > 0.0 && fit.l2.is_finite()) {
            let reason = "the penalty must be above 0, or separable classes have no answer";
            let (name, value) = ("l2", fit.l2);
            return Err(ProbeError::Setting {
                name,
                value,
                reason,
            });
        }
        let moments = rows.moments();
        let problem = Problem::new(rows, &moments, fit);
        let theta =
            problem
                .solve(start.scaled(&moments))
                .ok_or_else(|| ProbeError::NotConverged {
                    what: rows.what.clone(),
                    iterations: STEPS,
                })?;
        Ok(Self::unscaled(&theta, &moments))
    }

    /// θ for standardised columns.
    fn scaled(&self, moments: &[(f64, f64)]) -> Vec<f64> {
        let pairs = || self.weights.iter().zip(moments);
        let bias = self.bias + pairs().map(|(w, (m, _))| w * m).sum::<f64>();
        pairs().map(|(w, (_, s))| w * s).chain([bias]).collect()
    }

    /// Back to columns as they come.
    fn unscaled(theta: &[f64], moments: &[(f64, f64)]) -> Self {
        let scaled = theta.iter().zip(moments);
        let weights: Vec<f64> = scaled
            .map(|(t, &(m, s))| if s > 1e-12 * m.abs() { t / s } else { 0.0 })
            .collect();
        let shift: f64 = weights.iter().zip(moments).map(|(w, (m, _))| w * m).sum();
        Self {
            weights,
            bias: theta[moments.len()] - shift,
        }
    }

    /// `w · x + b`.
    pub fn logit(&self, x: &[f32]) -> f64 {
        self.project(x) + self.bias
    }

    /// `w · x`.
    pub fn project(&self, x: &[f32]) -> f64 {
        let products = self.weights.iter().zip(x);
        products.map(|(w, x)| w * f64::from(*x)).sum()
    }

    /// How well it tells the classes of `rows` apart.
    ///
    /// # Panics
    /// If the rows have another width than the probe.
    pub fn scores(&self, rows: &Labelled) -> Scores {
        assert_eq!(self.weights.len(), rows.d, "Probe::scores: widths");
        let logits: Vec<f64> = rows.each().map(|(x, _)| self.logit(x)).collect();
        Scores::of(&logits, &rows.labels)
    }
}

/// The penalised regression on standardised columns.
struct Problem {
    /// `[n, d + 1]`.
    z: Mat<f64>,
    labels: Vec<bool>,
    /// What a row of each class counts.
    weight: [f64; 2],
    l2: f64,
}

impl Problem {
    fn new(rows: &Labelled, moments: &[(f64, f64)], fit: &Fit) -> Self {
        let (n, positives) = (rows.rows() as f64, rows.positives() as f64);
        let weight = match fit.balanced {
            true => [n / (2.0 * (n - positives)), n / (2.0 * positives)],
            false => [1.0, 1.0],
        };
        Self {
            z: rows.standardised(moments),
            labels: rows.labels.clone(),
            weight,
            l2: fit.l2,
        }
    }

    /// `θ` `[d + 1]`, the bias last, as it is given.
    fn solve(&self, mut theta: Vec<f64>) -> Option<Vec<f64>> {
        let mut logits = self.logits(&theta);
        for _ in 0..STEPS {
            let (gradient, hessian) = self.derivatives(&theta, &logits);
            let largest = gradient.iter().fold(0.0, |m: f64, g| m.max(g.abs()));
            if largest <= 1e-9 * self.labels.len() as f64 {
                return Some(theta);
            }
            let right = Mat::from_fn(gradient.len(), 1, |i, _| gradient[i]);
            let step = hessian.llt(Side::Lower).ok()?.solve(&right);
            (theta, logits) = self.descend(&theta, &logits, &step)?;
        }
        None
    }

    /// `θ − step`, or as much of it as makes the objective fall.
    fn descend(
        &self,
        theta: &[f64],
        logits: &[f64],
        step: &Mat<f64>,
    ) -> Option<(Vec<f64>, Vec<f64>)> {
        let before = self.objective(theta, logits);
        let mut share = 1.0;
        for _ in 0..40 {
            let moved: Vec<f64> = (0..theta.len())
                .map(|j| theta[j] - share * step[(j, 0)])
                .collect();
            let logits = self.logits(&moved);
            if self.objective(&moved, &logits) <= before + 1e-12 * before.abs() {
                return Some((moved, logits));
            }
            share /= 2.0;
        }
        None
    }

    fn logits(&self, theta: &[f64]) -> Vec<f64> {
        let mut out = vec![0.0; self.z.nrows()];
        for (j, t) in theta.iter().enumerate() {
            let column = self.z.col(j).iter();
            out.iter_mut().zip(column).for_each(|(o, z)| *o += t * z);
        }
        out
    }

    fn objective(&self, theta: &[f64], logits: &[f64]) -> f64 {
        let (_, weights) = theta.split_last().expect("there is a bias");
        let penalty: f64 = weights.iter().map(|w| w * w).sum();
        let rows = logits.iter().zip(&self.labels);
        let loss = |(z, &l): (&f64, &bool)| {
            let against = if l { -z } else { *z };
            self.weight[usize::from(l)] * (against.max(0.0) + (-against.abs()).exp().ln_1p())
        };
        rows.map(loss).sum::<f64>() + 0.5 * self.l2 * penalty
    }

    fn derivatives(&self, theta: &[f64], logits: &[f64]) -> (Vec<f64>, Mat<f64>) {
        let d = theta.len() - 1;
        let (mut residual, mut curvature) = (Vec::new(), Vec::new());
        for (z, &l) in logits.iter().zip(&self.labels) {
            let p = 1.0 / (1.0 + (-z).exp());
            let weight = self.weight[usize::from(l)];
            residual.push(weight * (p - f64::from(u8::from(l))));
            curvature.push((weight * p * (1.0 - p)).sqrt());
        }
        let mut gradient: Vec<f64> = (0..=d)
            .map(|j| {
                self.z
                    .col(j)
                    .iter()
                    .zip(&residual)
                    .map(|(z, r)| z * r)
                    .sum()
            })
            .collect();
        let scaled = Mat::from_fn(self.z.nrows(), d + 1, |i, j| self.z[(i, j)] * curvature[i]);
        let mut hessian = Mat::zeros(d + 1, d + 1);
        // Its lower half, which is all that is read.
        matmul(
            hessian.as_mut(),
            BlockStructure::TriangularLower,
            Accum::Replace,
            scaled.transpose(),
            BlockStructure::Rectangular,
            scaled.as_ref(),
            BlockStructure::Rectangular,
            1.0,
            Par::rayon(0),
        );
        for j in 0..d {
            gradient[j] += self.l2 * theta[j];
            hessian[(j, j)] += self.l2;
        }
        // Keeps the bias solvable where every row is classified beyond doubt.
        hessian[(d, d)] += 1e-12 * self.labels.len() as f64;
        (gradient, hessian)
    }
}

/// How well a probe classifies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Share of rows classified rightly.
    pub accuracy: f64,
    /// Mean of the share of positives and the share of negatives that are: accuracy on as many
    /// rows of each class.
    pub balanced_accuracy: f64,
    /// `2 TP / (2 TP + FP + FN)`.
    pub f1: f64,
    /// Chance that a positive scores higher than a negative; a tie counts half.
    pub auroc: f64,
}

impl Scores {
    /// Of logits, positive above 0, and the truth. NaN where a class is missing.
    ///
    /// # Panics
    /// If there is not one logit a label.
    pub fn of(logits: &[f64], labels: &[bool]) -> Self {
        assert_eq!(logits.len(), labels.len(), "Scores::of: logits and labels");
        let mut all = Confusion::default();
        logits.iter().zip(labels).for_each(|(z, l)| all.add(*z, *l));
        let [[tn, fp], [fneg, tp]] = all.counts.map(|c| c.map(|c| c as f64));
        Self {
            accuracy: (tp + tn) / (tp + tn + fp + fneg),
            balanced_accuracy: all.balanced_accuracy(),
            f1: 2.0 * tp / (2.0 * tp + fp + fneg),
            auroc: auroc(logits, labels),
        }
    }
}

/// Rows by their class and the class a probe gave them: `[label][prediction]`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Confusion {
    counts: [[u64; 2]; 2],
}

impl Confusion {
    pub(super) fn add(&mut self, logit: f64, label: bool) {
        self.counts[usize::from(label)][usize::from(logit > 0.0)] += 1;
    }

    pub(super) fn balanced_accuracy(&self) -> f64 {
        let share = |class: usize| {
            let row = self.counts[class];
            row[class] as f64 / (row[0] + row[1]) as f64
        };
        (share(0) + share(1)) / 2.0
    }
}

/// From the rank sum of the positives (Mann & Whitney 1947), tied logits sharing their mean rank.
fn auroc(logits: &[f64], labels: &[bool]) -> f64 {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[a].total_cmp(&logits[b]));
    let (mut done, mut sum) = (0, 0.0);
    for tied in order.chunk_by(|&a, &b| logits[a] == logits[b]) {
        let rank = done as f64 + (tied.len() as f64 + 1.0) / 2.0;
        sum += rank * tied.iter().filter(|&&i| labels[i]).count() as f64;
        done += tied.len();
    }
    let positives = labels.iter().filter(|l| **l).count() as f64;
    let negatives = labels.len() as f64 - positives;
    (sum - positives * (positives + 1.0) / 2.0) / (positives * negatives)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// There is one answer, wherever the steps begin.
    #[test]
    fn a_start_that_is_near_ends_where_none_does() {
        let value = |i: usize, j: usize| ((i * 37 + j * 101 + i * i * j) % 29) as f32 / 7.0 - 2.0;
        let x: Vec<f32> = (0..600).map(|at| value(at / 3, at % 3)).collect();
        let label = |row: &[f32]| row[0] - 0.5 * row[2] + 0.3 * (row[1] * 3.0).sin() > 0.9;
        let labels = x.chunks(3).map(label).collect();
        let rows = Labelled::new("rows", x, 3, labels).unwrap();
        let balanced = Fit {
            balanced: true,
            ..Fit::default()
        };
        let near = Probe::fit(&rows, &Fit::default()).unwrap();
        let cold = Probe::fit(&rows, &balanced).unwrap();
        let warm = Probe::fit_from(&rows, &balanced, &near).unwrap();
        let off = |a: &Probe, b: &Probe| {
            let pairs = a.weights.iter().zip(&b.weights);
            pairs.fold((a.bias - b.bias).abs(), |m, (a, b)| m.max((a - b).abs()))
        };
        assert!(off(&cold, &near) > 1e-3, "the fits do not differ");
        assert!(off(&cold, &warm) < 1e-5, "{cold:?} {warm:?}");
    }
}
