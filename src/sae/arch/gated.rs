//! Gated (Rajamanoharan et al. 2024, "Improving dictionary learning with gated sparse autoencoders"):
//! one path says which latents are on, another how large they are, over one product.

use burn::tensor::{Tensor, activation::relu};

use crate::device::Error;
use crate::sae::Activation;
use crate::sae::config::Gated;
use crate::sae::loss::{Found, Judged, More, Outcome, Pass, Term, total};
use crate::sae::places::Places;

/// Both paths at the places where the gate is open, `[n, k]` each.
pub(in crate::sae) struct Gates {
    product: Tensor<2>,
    /// `ReLU(π)`.
    gate: Tensor<2>,
    /// 1 where that is above 0.
    on: Tensor<2>,
    /// `exp(r_mag)`.
    stretch: Tensor<2>,
}

pub(in crate::sae) async fn encode(pass: &Pass<'_>) -> Result<Found, Error> {
    let Activation::Gated { r_mag, b_mag } = &pass.sae.activation else {
        unreachable!("a gated autoencoder has magnitudes")
    };
    let product = pass.product();
    let gates = relu(product.clone() + pass.sae.b_enc.clone().unsqueeze());
    let (at, gate) = Places::above_zero(gates).await?;
    let product = at.of(product);
    let on = gate.clone().greater_elem(0.0).float();
    let stretch = at.pick(r_mag).exp();
    let magnitude = product.clone() * stretch.clone() + at.pick(b_mag);
    Ok(Found {
        values: relu(magnitude) * on.clone(),
        at,
        more: More::Gated(Gates {
            product,
            gate,
            on,
            stretch,
        }),
    })
}

/// `‖y − ŷ‖² + λ · Σ ReLU(π) ‖W_dec[j]‖ + ‖y − ReLU(π) W_dec − b_dec‖²`, π being the gate's
/// pre-activation. In the last term the decoder is held constant, as the paper has it, unless
/// `aux_to_decoder` (SAELens).
pub(in crate::sae) fn finish(
    pass: &Pass,
    settings: &Gated,
    (at, values, gates): (Places, Tensor<2>, Gates),
    judged: Judged,
) -> Outcome {
    let Gates {
        product,
        gate,
        on,
        stretch,
    } = gates;
    let auxiliary = pass.judged(pass.error(&at, gate.clone()));
    let (aux_loss, aux_signal) = (auxiliary.loss, auxiliary.signal);
    let weights = at.pick(&pass.weights());
    let lambda = settings.l1 * pass.now.sparsity / pass.rows() as f64;
    let more = (aux_loss, total(gate.clone() * weights.clone()) * lambda);
    let lengths = pass.by_lengths(&at, gate.clone() * lambda);

    let w_dec = &pass.sae.w_dec;
    let by_value = at.dot(judged.signal.clone(), w_dec.clone()) * values.clone().sign();
    let by_gate = (at.dot(aux_signal.clone(), w_dec.clone()) + weights * lambda) * on;
    let by_stretched = by_value.clone() * stretch;
    let d_sae = pass.sae.d_sae();
    let by_r_mag = at.totals(by_stretched.clone() * product, d_sae);
    let by_b_mag = at.totals(by_value, d_sae);
    let term = Term {
        at: at.clone(),
        values,
        dz: by_stretched + by_gate.clone(),
        db: Some(by_gate.clone()),
        signal: judged.signal.clone(),
        counted: true,
    };
    let mut outcome = Outcome::of(judged, vec![term]);
    outcome.loss = outcome.loss + more.0 + more.1;
    outcome.activation = vec![by_r_mag, by_b_mag];
    outcome.lengths = lengths;
    if settings.aux_to_decoder {
        outcome.signal = outcome.signal + aux_signal.clone();
        outcome.terms.push(Term {
            at,
            values: gate,
            dz: by_gate.zeros_like(),
            db: Some(by_gate.zeros_like()),
            signal: aux_signal,
            counted: false,
        });
    }
    outcome
}
