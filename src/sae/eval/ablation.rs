use serde::{Deserialize, Serialize};

use super::probe::Confusion;
use super::{Probe, ProbeError, strongest};

/// Which latents count as a probe's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Those that speak for the concept: `max(Δ_j, 0) · (d_j · w)`. For [`tpp`].
    Towards,
    /// Those that speak for or against it: `|Δ_j · (d_j · w)|`. For [`scr`].
    EitherWay,
}

/// The `n` latents with the largest effect on a probe, those without any left out: `Δ_j` is the
/// difference of a latent's mean between the classes ([`ClassMeans`](super::ClassMeans)), `d_j` its
/// decoder row and `w` the probe's weights. For `w_dec` `[d_sae, d]` in row-major order.
///
/// Marks et al. 2024 approximate the effect of ablating a latent this way; the forms are SAEBench's.
///
/// # Errors
/// [`ProbeError::Latents`] if `n` is 0 or above `d_sae`.
///
/// # Panics
/// If the widths differ.
pub fn most_effective(
    differences: &[f64],
    w_dec: &[f32],
    probe: &Probe,
    by: Effect,
    n: usize,
) -> Result<Vec<usize>, ProbeError> {
    let dots = dots(w_dec, probe);
    assert_eq!(dots.len(), differences.len(), "most_effective: latents");
    let effect = |(delta, dot): (&f64, &f64)| match by {
        Effect::Towards => (delta.max(0.0) * dot).max(0.0),
        Effect::EitherWay => (delta * dot).abs(),
    };
    let effects: Vec<f64> = differences.iter().zip(&dots).map(effect).collect();
    let mut chosen = strongest(&effects, n)?;
    chosen.retain(|&j| effects[j] > 0.0);
    Ok(chosen)
}

/// `d_j · w` of every latent.
fn dots(w_dec: &[f32], probe: &Probe) -> Vec<f64> {
    let d = probe.weights.len();
    assert!(
        d > 0 && w_dec.len().is_multiple_of(d),
        "ablation: {} values are no decoder rows of width {d}",
        w_dec.len()
    );
    w_dec.chunks(d).map(|row| probe.project(row)).collect()
}

/// What probes on activations make of rows with some latents' parts taken out.
///
/// Ablating latents `L` replaces an activation `a` by `a − Σ_{j∈L} f_j d_j`: the autoencoder's error
/// stays in it. A probe's logit then falls by `Σ_{j∈L} f_j (d_j · w)`, which is all that is
/// computed.
///
/// # Cost
/// Holds a product a probe and latent; time `O(active · sets · probes)` a row.
#[derive(Clone, Debug)]
pub struct Ablation {
    probes: Vec<Probe>,
    /// `[probe][latent]`.
    dots: Vec<Vec<f64>>,
    /// `[set][latent]`.
    ablated: Vec<Vec<bool>>,
    clean: Vec<Confusion>,
    /// `[set][probe]`.
    after: Vec<Vec<Confusion>>,
}

impl Ablation {
    /// For decoder rows `w_dec` `[d_sae, d]` in row-major order, probes of width `d`, and the sets
    /// of latents to ablate, each by itself.
    ///
    /// # Errors
    /// [`ProbeError::Latents`] if a set names a latent that is not there.
    ///
    /// # Panics
    /// If the widths differ.
    pub fn new(w_dec: &[f32], probes: &[Probe], sets: &[Vec<usize>]) -> Result<Self, ProbeError> {
        let dots: Vec<Vec<f64>> = probes.iter().map(|p| dots(w_dec, p)).collect();
        let d_sae = dots.first().map_or(0, Vec::len);
        if let Some(&j) = sets.iter().flatten().find(|j| **j >= d_sae) {
            return Err(ProbeError::Latents { k: j + 1, d_sae });
        }
        let mask = |set: &Vec<usize>| {
            let mut mask = vec![false; d_sae];
            set.iter().for_each(|&j| mask[j] = true);
            mask
        };
        Ok(Self {
            probes: probes.to_vec(),
            dots,
            ablated: sets.iter().map(mask).collect(),
            clean: vec![Confusion::default(); probes.len()],
            after: vec![vec![Confusion::default(); probes.len()]; sets.len()],
        })
    }

    /// Adds a row `x` `[d]` with its latents above 0, and for each probe the truth, where the row
    /// counts for it.
    pub fn add(&mut self, x: &[f32], active: &[(usize, f32)], labels: &[Option<bool>]) {
        assert_eq!(labels.len(), self.probes.len(), "Ablation::add: labels");
        for (p, label) in labels.iter().enumerate() {
            let &Some(label) = label else { continue };
            let logit = self.probes[p].logit(x);
            self.clean[p].add(logit, label);
            for (set, after) in self.ablated.iter().zip(&mut self.after) {
                let lost = active.iter().filter(|(j, _)| set[*j]);
                let lost: f64 = lost.map(|&(j, f)| f64::from(f) * self.dots[p][j]).sum();
                after[p].add(logit - lost, label);
            }
        }
    }

    /// Balanced accuracies over all rows added; NaN where a class had no row.
    pub fn finish(self) -> Perturbed {
        let accuracies = |all: &Vec<Confusion>| -> Vec<f64> {
            all.iter().map(Confusion::balanced_accuracy).collect()
        };
        Perturbed {
            clean: accuracies(&self.clean),
            after: self.after.iter().map(accuracies).collect(),
        }
    }
}

/// Balanced accuracies of probes before and after ablations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Perturbed {
    /// Of each probe on rows as they are.
    pub clean: Vec<f64>,
    /// `[set][probe]`.
    pub after: Vec<Vec<f64>>,
}

/// What a targeted ablation costs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tpp {
    /// Mean accuracy that a probe loses when its own latents are ablated.
    pub intended: f64,
    /// Mean accuracy that it loses when another's are.
    pub unintended: f64,
    /// Their difference.
    pub tpp: f64,
}

/// Targeted probe perturbation (Karvonen et al. 2024, "Evaluating sparse autoencoders on targeted
/// concept removal tasks"; SAEBench 2025): with `A_j` the accuracy of concept j's probe and `A_ij`
/// that after ablating the latents of concept i ([`Effect::Towards`]),
/// `mean_{i=j}(A_j − A_ij) − mean_{i≠j}(A_j − A_ij)`. High where concepts lie in latents of their
/// own.
///
/// Set i of `found` must be the latents of probe i. Accuracies are balanced, where SAEBench draws
/// as many rows of each class; NaN for a single concept. Chanin 2026 ("Are sparse autoencoder
/// benchmarks reliable?") finds TPP and [`scr`] noisy on large models: do not rank autoencoders by
/// small differences.
///
/// # Panics
/// Unless there are as many sets as probes.
pub fn tpp(found: &Perturbed) -> Tpp {
    let each = tpp_each(found);
    let mean = |of: fn(&Tpp) -> f64| each.iter().map(of).sum::<f64>() / each.len() as f64;
    let (intended, unintended) = (mean(|t| t.intended), mean(|t| t.unintended));
    Tpp {
        intended,
        unintended,
        tpp: intended - unintended,
    }
}

/// [`tpp`] of each concept by itself: `(A_i − A_ii) − mean_{j≠i}(A_j − A_ij)`.
///
/// # Panics
/// Unless there are as many sets as probes.
pub fn tpp_each(found: &Perturbed) -> Vec<Tpp> {
    let n = found.clean.len();
    assert_eq!(found.after.len(), n, "tpp: a set of latents a probe");
    let of = |i: usize| {
        let loss = |j: usize| found.clean[j] - found.after[i][j];
        let others: f64 = (0..n).filter(|j| *j != i).map(loss).sum();
        let (intended, unintended) = (loss(i), others / (n - 1) as f64);
        Tpp {
            intended,
            unintended,
            tpp: intended - unintended,
        }
    };
    (0..n).map(of).collect()
}

/// Spurious correlation removal (the same papers, after Marks et al. 2024, "SHIFT"):
/// `(A_abl − A_base) / (A_oracle − A_base)`, the share of what a biased probe loses to its bias that
/// ablating the spurious concept's latents ([`Effect::EitherWay`]) brings back.
///
/// All three are accuracies for the intended concept on rows where both concepts are independent:
/// `base` of a probe trained where they always agree, `ablated` of that probe after the ablation,
/// `oracle` of a probe trained where they are independent. NaN or infinite where the bias costs
/// nothing.
pub fn scr(base: f64, ablated: f64, oracle: f64) -> f64 {
    (ablated - base) / (oracle - base)
}
