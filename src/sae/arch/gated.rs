//! Gated (Rajamanoharan et al. 2024, "Improving dictionary learning with gated sparse autoencoders"):
//! one path says which latents are on, another how large they are, over one product.

use burn::tensor::activation::relu;

use crate::device::Error;
use crate::sae::Activation;
use crate::sae::config::Gated;
use crate::sae::loss::{Outcome, Pass, Term, total};
use crate::sae::places::Places;

/// `‖y − ŷ‖² + λ · Σ ReLU(π) ‖W_dec[j]‖ + ‖y − ReLU(π) W_dec − b_dec‖²`, π being the gate's
/// pre-activation. In the last term the decoder is held constant, as the paper has it, unless
/// `aux_to_decoder` (SAELens).
pub(in crate::sae) async fn forward(pass: &Pass<'_>, settings: &Gated) -> Result<Outcome, Error> {
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
    let values = relu(magnitude) * on.clone();

    let error = pass.error(&at, values.clone());
    let (loss, mut signal) = pass.squared(&error);
    let (aux_loss, aux_signal) = pass.squared(&pass.error(&at, gate.clone()));
    let weights = at.pick(&pass.weights());
    let lambda = settings.l1 * pass.now.sparsity / pass.rows() as f64;
    let loss = loss + aux_loss + total(gate.clone() * weights.clone()) * lambda;
    let lengths = pass.by_lengths(&at, gate.clone() * lambda);

    let w_dec = &pass.sae.w_dec;
    let by_value = at.dot(signal.clone(), w_dec.clone()) * values.clone().sign();
    let by_gate = (at.dot(aux_signal.clone(), w_dec.clone()) + weights * lambda) * on;
    let by_stretched = by_value.clone() * stretch;
    let d_sae = pass.sae.d_sae();
    let by_r_mag = at.totals(by_stretched.clone() * product, d_sae);
    let by_b_mag = at.totals(by_value, d_sae);
    let mut terms = vec![Term {
        at: at.clone(),
        values,
        dz: by_stretched + by_gate.clone(),
        db: Some(by_gate.clone()),
        signal: signal.clone(),
        counted: true,
    }];
    if settings.aux_to_decoder {
        signal = signal + aux_signal.clone();
        terms.push(Term {
            at,
            values: gate,
            dz: by_gate.zeros_like(),
            db: Some(by_gate.zeros_like()),
            signal: aux_signal,
            counted: false,
        });
    }
    Ok(Outcome {
        terms,
        error,
        signal,
        loss,
        activation: vec![by_r_mag, by_b_mag],
        lengths,
        smallest: None,
    })
}
