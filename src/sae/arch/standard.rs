//! ReLU with an L1 penalty (Bricken et al. 2023; weighed by decoder length, Conerly et al. 2024), or
//! one on `f^p` with p falling from 1 (Karvonen et al. 2024, "Measuring progress in dictionary
//! learning").

use burn::tensor::{Tensor, activation::relu};

use crate::device::Error;
use crate::sae::config::Standard;
use crate::sae::loss::{Found, Judged, More, Outcome, Pass, Term, total};
use crate::sae::places::Places;

pub(in crate::sae) async fn encode(pass: &Pass<'_>) -> Result<Found, Error> {
    let (at, values) = Places::above_zero(relu(pass.pre_activations())).await?;
    Ok(Found {
        at,
        values,
        more: More::Nothing,
    })
}

/// The penalty is `λ/n · Σ f^p · ‖W_dec[j]‖`; with p below 1 times `Σ f / Σ f^p` of the batch, held
/// constant, so that it neither jumps nor fades as p falls. (dictionary_learning sets this factor when
/// p changes, in ten steps; here p falls steadily.)
pub(in crate::sae) fn finish(
    pass: &Pass,
    settings: &Standard,
    at: Places,
    values: Tensor<2>,
    judged: Judged,
) -> Outcome {
    let mut term = Term::new(pass.sae, at, values.clone(), judged.signal.clone());

    let (p, lambda) = (
        pass.now.p,
        settings.l1 * pass.now.sparsity / pass.rows() as f64,
    );
    let on = values.clone().greater_elem(0.0).float();
    let power = |exponent: f64| values.clone().clamp_min(1e-6).powf_scalar(exponent) * on.clone();
    let (powers, slope) = match p == 1.0 {
        true => (values.clone(), on.clone()),
        false => (power(p), power(p - 1.0) * p),
    };
    let weights = term.at.pick(&pass.weights());
    let sum = total(powers.clone() * weights.clone());
    let factor = match p == 1.0 {
        true => sum.ones_like() * lambda,
        false => total(values * weights.clone()) / sum.clone().clamp_min(1e-30) * lambda,
    };
    let each = factor.clone().unsqueeze::<2>();
    term.dz = term.dz + slope * weights * each.clone();
    let lengths = pass.by_lengths(&term.at, powers * each);
    let mut outcome = Outcome::of(judged, vec![term]);
    outcome.loss = outcome.loss + sum * factor;
    outcome.lengths = lengths;
    outcome
}
