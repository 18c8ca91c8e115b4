//! JumpReLU (Rajamanoharan et al. 2024, "Jumping ahead"): a threshold a latent, learnt through
//! straight-through estimators with a rectangle kernel of width ε.

use burn::tensor::{Tensor, activation::relu};

use crate::device::Error;
use crate::sae::Activation;
use crate::sae::config::{JumpPenalty, JumpRelu};
use crate::sae::loss::{Found, Judged, More, Outcome, Pass, Term, total};
use crate::sae::places::Places;

/// Pre-activations at the places that may matter: those above a threshold or within ε/2 of it.
pub(in crate::sae) struct Near {
    at: Places,
    z: Tensor<2>,
    /// θ there.
    threshold: Tensor<2>,
    /// 1 where `z > θ`.
    on: Tensor<2>,
    /// 1 where `|z − θ| < ε/2`.
    window: Tensor<2>,
}

impl Near {
    async fn new(z: Tensor<2>, threshold: &Tensor<1>, bandwidth: f64) -> Result<Self, Error> {
        let edge = (threshold.clone() - bandwidth / 2.0).unsqueeze::<2>();
        let (at, _) = Places::above_zero(relu(z.clone() - edge)).await?;
        let (z, threshold) = (at.of(z), at.pick(threshold));
        let over = z.clone() - threshold.clone();
        Ok(Self {
            at,
            z,
            on: over.clone().greater_elem(0.0).float(),
            window: over.abs().lower_elem(bandwidth / 2.0).float(),
            threshold,
        })
    }
}

/// What the sparsity penalty adds.
struct Penalty {
    loss: Tensor<1>,
    /// By the latents `[n, k]`, if at all.
    by_value: Option<Tensor<2>>,
    /// By every step `1[z > θ]` `[1, 1]`, if at all.
    by_step: Option<Tensor<2>>,
    /// By the decoder lengths `[d_sae]`, if at all.
    lengths: Option<Tensor<1>>,
}

fn threshold<'a>(pass: &Pass<'a>) -> &'a Tensor<1> {
    match &pass.sae.activation {
        Activation::JumpRelu { threshold } => threshold,
        _ => unreachable!("a JumpReLU autoencoder has thresholds"),
    }
}

pub(in crate::sae) async fn encode(pass: &Pass<'_>, settings: &JumpRelu) -> Result<Found, Error> {
    let z = pass.pre_activations();
    let near = Near::new(z, threshold(pass), settings.bandwidth).await?;
    Ok(Found {
        at: near.at.clone(),
        values: near.z.clone() * near.on.clone(),
        more: More::JumpRelu(near),
    })
}

/// Of the step the pre-activations get no gradient, of `f` only where it is on.
pub(in crate::sae) fn finish(
    pass: &Pass,
    settings: &JumpRelu,
    (values, near): (Tensor<2>, Near),
    judged: Judged,
) -> Outcome {
    let penalty = penalty(pass, &settings.penalty, &near, &values);

    let mut by_value = near.at.dot(judged.signal.clone(), pass.sae.w_dec.clone());
    if let Some(more) = penalty.by_value {
        by_value = by_value + more;
    }
    let mut by_jump = near.threshold * by_value.clone();
    if let Some(more) = penalty.by_step {
        by_jump = by_jump + more;
    }
    let by_threshold = by_jump * near.window * (-1.0 / settings.bandwidth);
    let d_sae = pass.sae.d_sae();
    let by_threshold = near.at.totals(by_threshold, d_sae);
    let term = Term {
        at: near.at,
        values,
        dz: by_value * near.on,
        db: None,
        signal: judged.signal.clone(),
        counted: true,
    };
    let mut outcome = Outcome::of(judged, vec![term]);
    outcome.loss = outcome.loss + penalty.loss;
    outcome.activation = vec![by_threshold];
    outcome.lengths = penalty.lengths;
    add_pre_act(pass, settings, threshold(pass), &mut outcome);
    outcome
}

fn penalty(pass: &Pass, penalty: &JumpPenalty, near: &Near, values: &Tensor<2>) -> Penalty {
    let n = pass.rows() as f64;
    let l0 = || total(near.on.clone()) / n;
    match *penalty {
        JumpPenalty::Step { l0: lambda } => {
            let lambda = lambda * pass.now.sparsity;
            Penalty {
                loss: l0() * lambda,
                by_value: None,
                by_step: Some(Tensor::ones([1, 1], &near.z.device()) * (lambda / n)),
                lengths: None,
            }
        }
        JumpPenalty::TargetL0 { weight, target } => {
            let weight = weight * pass.now.sparsity;
            let off = l0() / target - 1.0;
            Penalty {
                by_step: Some((off.clone() * (2.0 * weight / (target * n))).unsqueeze()),
                loss: off.square() * weight,
                by_value: None,
                lengths: None,
            }
        }
        JumpPenalty::Tanh { l0: lambda, scale } => {
            let lambda = lambda * pass.now.sparsity / n;
            let weights = near.at.pick(&pass.weights());
            let tanh = (values.clone() * weights.clone() * scale).tanh();
            let slope = (tanh.clone().square() - 1.0) * (-lambda * scale);
            Penalty {
                loss: total(tanh) * lambda,
                lengths: pass.by_lengths(&near.at, slope.clone() * values.clone()),
                by_value: Some(slope * weights),
                by_step: None,
            }
        }
    }
}

/// Pulls the pre-activations of dead latents up to their thresholds (Conerly et al. 2025): adds
/// `c/n · Σ ReLU(θ − z) · ‖W_dec[j]‖` over the dead ones. Holds `[n, dead]`.
fn add_pre_act(pass: &Pass, settings: &JumpRelu, threshold: &Tensor<1>, outcome: &mut Outcome) {
    let Some(dead) = pass.now.dead.clone().filter(|_| settings.pre_act > 0.0) else {
        return;
    };
    let (n, m, d_sae) = (pass.rows(), dead.dims()[0], pass.sae.d_sae());
    let of = |v: &Tensor<1>| v.clone().select(0, dead.clone()).unsqueeze::<2>();
    let w = pass.sae.w_enc.clone().select(0, dead.clone());
    let z = pass.input.clone().matmul(w.transpose()) + of(&pass.sae.b_enc);
    let short = relu(of(threshold) - z);
    let below = short.clone().greater_elem(0.0).float();
    let (coefficient, weights) = (settings.pre_act / n as f64, of(&pass.weights()));
    let at = Places::listed(dead.clone().unsqueeze::<2>().expand([n, m]));
    let pull = below * weights.clone() * coefficient;

    outcome.loss = outcome.loss.clone() + total(short.clone() * weights) * coefficient;
    let up = at.totals(pull.clone(), d_sae);
    outcome.activation[0] = outcome.activation[0].clone() + up;
    if let Some(more) = pass.by_lengths(&at, short * coefficient) {
        let lengths = outcome.lengths.take();
        outcome.lengths = Some(lengths.map_or(more.clone(), |l| l + more));
    }
    outcome.terms.push(Term {
        values: pull.zeros_like(),
        dz: pull.neg(),
        db: None,
        signal: pass.wanted.zeros_like(),
        counted: false,
        at,
    });
}
