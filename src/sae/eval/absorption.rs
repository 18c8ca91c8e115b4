use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Probe, ProbeError};

/// When a row counts as absorbed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AbsorptionLimits {
    /// Least cosine of an absorbing latent's decoder row with the probe, for full absorption.
    pub full_cosine: f64,
    /// The same for the absorbed fraction.
    pub fraction_cosine: f64,
    /// Least share of a row's projection that the absorbing latents carry.
    pub share: f64,
    /// The most latents that absorb together, for the absorbed fraction.
    pub most: usize,
}

impl Default for AbsorptionLimits {
    /// SAEBench's.
    fn default() -> Self {
        Self {
            full_cosine: 0.025,
            fraction_cosine: 0.1,
            share: 0.4,
            most: 3,
        }
    }
}

/// How much of a concept is carried by latents that are not its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Absorbed {
    /// Rows measured.
    pub rows: u64,
    /// Share of them on which no main latent fires and another carries the concept.
    pub full_rate: f64,
    /// Mean share of the concept that other latents carry.
    pub mean_fraction: f64,
    /// Latents by the rows they absorb in full, most first.
    pub absorbers: Vec<(usize, u64)>,
}

/// Feature absorption: a latent that stands for a concept does not fire where the concept is there,
/// because another latent, of something narrower, has taken the concept's direction into its own
/// decoder row (Chanin et al. 2024, "A is for absorption").
///
/// Gathers rows that **have** the concept and on which the probe is right. With `p` the probe's
/// direction, `d_j` decoder rows, `f_j` the row's latents, `M` the main latents of the concept,
/// `a` the row's activation and `P_j = f_j (d_j · p)` what a latent carries of `a · p`:
///
/// - **full**, yes or no: no main latent fires; the latent outside `M` with the largest `P_j` has
///   `cos(d_j, p) ≥ 0.025` and `P_j ≥ 0.4 (a · p)`. The rate is the mean over rows.
/// - **fraction**: `A` is the sum of the at most 3 largest positive `P_j` outside `M` with
///   `cos(d_j, p) ≥ 0.1`, and `S = Σ_M P_j`. It is 0 where `S ≥ a · p` or `A < 0.4 (a · p)`, 1 where
///   `S ≤ 0`, and else `A' / (A' + S)` with `A' = min(A, a · p − S)`.
///
/// Both are those of SAEBench 0.6 (Karvonen et al. 2025), which puts `P_j` in the place of the
/// paper's integrated-gradient effect on the model's output. As there, a row with `a · p ≤ 0` is
/// not absorbed. Here the main latents come from [`split_latents`] of a ranking by mean difference,
/// not by the weights of an L1 probe.
///
/// # Cost
/// Holds a product and a cosine a latent.
#[derive(Clone, Debug)]
pub struct Absorption {
    dots: Vec<f64>,
    cosines: Vec<f64>,
    main: Vec<usize>,
    limits: AbsorptionLimits,
    rows: u64,
    full: u64,
    fraction: f64,
    absorbers: BTreeMap<usize, u64>,
}

impl Absorption {
    /// For decoder rows `w_dec` `[d_sae, d]` in row-major order, a probe of width `d` and the main
    /// latents of its concept.
    ///
    /// # Errors
    /// [`ProbeError::Latents`] if a main latent is not there.
    ///
    /// # Panics
    /// If `w_dec` is no whole number of rows of the probe's width.
    pub fn new(
        w_dec: &[f32],
        probe: &Probe,
        main: &[usize],
        limits: AbsorptionLimits,
    ) -> Result<Self, ProbeError> {
        let d = probe.weights.len();
        assert!(
            d > 0 && w_dec.len().is_multiple_of(d),
            "Absorption::new: {} values are no rows of width {d}",
            w_dec.len()
        );
        let d_sae = w_dec.len() / d;
        if let Some(&k) = main.iter().find(|j| **j >= d_sae) {
            return Err(ProbeError::Latents { k: k + 1, d_sae });
        }
        let dots: Vec<f64> = w_dec.chunks(d).map(|row| probe.project(row)).collect();
        let norm = probe.weights.iter().map(|w| w * w).sum::<f64>().sqrt();
        let cosine = |(row, dot): (&[f32], &f64)| {
            let own: f64 = row.iter().map(|w| f64::from(*w).powi(2)).sum();
            dot / (own.sqrt() * norm).max(f64::MIN_POSITIVE)
        };
        Ok(Self {
            cosines: w_dec.chunks(d).zip(&dots).map(cosine).collect(),
            dots,
            main: main.to_vec(),
            limits,
            rows: 0,
            full: 0,
            fraction: 0.0,
            absorbers: BTreeMap::new(),
        })
    }

    /// Adds a row: its projection `a · p` ([`Probe::project`]) and its latents above 0.
    pub fn add(&mut self, projection: f64, active: &[(usize, f32)]) {
        self.rows += 1;
        if projection <= 0.0 {
            return;
        }
        let (main, other): (Vec<_>, Vec<_>) = active
            .iter()
            .map(|&(j, f)| (j, f64::from(f) * self.dots[j]))
            .partition(|(j, _)| self.main.contains(j));
        if main.is_empty() {
            self.count_full(projection, &other);
        }
        let own = main.iter().map(|(_, part)| part).sum();
        self.fraction += self.fraction(projection, own, other);
    }

    fn count_full(&mut self, projection: f64, other: &[(usize, f64)]) {
        let Some(&(j, part)) = other.iter().max_by(|a, b| a.1.total_cmp(&b.1)) else {
            return;
        };
        if self.cosines[j] >= self.limits.full_cosine && part >= self.limits.share * projection {
            self.full += 1;
            *self.absorbers.entry(j).or_insert(0) += 1;
        }
    }

    fn fraction(&self, projection: f64, own: f64, other: Vec<(usize, f64)>) -> f64 {
        let mut parts: Vec<f64> = other
            .into_iter()
            .filter(|(j, part)| self.cosines[*j] >= self.limits.fraction_cosine && *part > 0.0)
            .map(|(_, part)| part)
            .collect();
        parts.sort_by(|a, b| b.total_cmp(a));
        let absorbed: f64 = parts.iter().take(self.limits.most).sum();
        if own >= projection || absorbed < self.limits.share * projection {
            0.0
        } else if own <= 0.0 {
            1.0
        } else {
            let absorbed = absorbed.min(projection - own);
            absorbed / (absorbed + own)
        }
    }

    /// The measures over all rows added; NaN if there was none.
    pub fn finish(self) -> Absorbed {
        let n = self.rows as f64;
        let mut absorbers: Vec<_> = self.absorbers.into_iter().collect();
        absorbers.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        Absorbed {
            rows: self.rows,
            full_rate: self.full as f64 / n,
            mean_fraction: self.fraction / n,
            absorbers,
        }
    }
}

/// How many latents a concept has been split into: the `k` up to which each further latent raises
/// the F1 of a k-sparse probe by more than `jump`. `f1` is that of probes on 1, 2, … latents.
///
/// Chanin et al. 2024, section 4, with their `jump` of 0.03: a concept that its best latent alone
/// classifies as well as two do has one main latent.
///
/// ```
/// use inscape::sae::eval::split_latents;
///
/// assert_eq!(split_latents(&[0.90, 0.91, 0.99], 0.03), 1);
/// assert_eq!(split_latents(&[0.60, 0.80, 0.90, 0.91], 0.03), 3);
/// ```
pub fn split_latents(f1: &[f64], jump: f64) -> usize {
    let rises = f1.windows(2).take_while(|pair| pair[1] - pair[0] > jump);
    (1 + rises.count()).min(f1.len())
}
