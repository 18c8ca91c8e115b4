//! TopK (Gao et al. 2024): the k largest pre-activations of a row; with k fixed and no auxiliary loss
//! the k-sparse autoencoder of Makhzani & Frey (2013).

use burn::tensor::{Int, Tensor};

use crate::ops::{self, Encode};
use crate::sae::config::AuxNormaliser;
use crate::sae::loss::{Found, Judged, More, Outcome, Pass, Term, squared_deviation, total};
use crate::sae::places::Places;

/// Four times as many latents as are kept, where Multi-TopK is to be.
pub(in crate::sae) struct Largest(Option<(Places, Tensor<2>)>);

pub(in crate::sae) fn encode(pass: &Pass) -> Found {
    let (k, multi) = (pass.now.k, pass.config.conventions.multi_topk > 0.0);
    let four = (4 * k).min(pass.sae.d_sae()).min(1024);
    let (all, values) = largest(pass, if multi { four } else { k });
    // Values fall along a row: the k largest come first.
    Found {
        at: Places::listed(all.clone().narrow(1, 0, k)),
        values: values.clone().narrow(1, 0, k),
        more: More::TopK(Largest(multi.then(|| (Places::listed(all), values)))),
    }
}

pub(in crate::sae) fn finish(
    pass: &Pass,
    (at, values, largest): (Places, Tensor<2>, Largest),
    judged: Judged,
) -> Outcome {
    let term = Term::new(pass.sae, at, values, judged.signal.clone());
    let mut outcome = Outcome::of(judged, vec![term]);
    if let Some((all, all_values)) = largest.0 {
        let (more, by_more, term) = multi(pass, all, all_values);
        outcome.loss = outcome.loss + more;
        outcome.signal = outcome.signal + by_more;
        outcome.terms.push(term);
    }
    add_auxiliary(pass, &mut outcome);
    outcome
}

/// The k largest pre-activations of each row, those below 0 made 0.
fn largest(pass: &Pass, k: usize) -> (Tensor<2, Int>, Tensor<2>) {
    let (w, b) = (pass.sae.w_enc.clone(), pass.sae.b_enc.clone());
    let (values, places) = ops::encode_topk(pass.input.clone(), w, b, &Encode::new(k));
    (places, values)
}

/// The loss of four times as many latents, weighed (Gao et al. 2024, 4.3): loss, signal, term.
fn multi(pass: &Pass, at: Places, values: Tensor<2>) -> (Tensor<1>, Tensor<2>, Term) {
    let weight = pass.config.conventions.multi_topk;
    let judged = pass.judged(pass.error(&at, values.clone()));
    let (loss, signal) = (judged.loss * weight, judged.signal * weight);
    let mut term = Term::new(pass.sae, at, values, signal.clone());
    term.counted = false;
    (loss, signal, term)
}

/// Adds the auxiliary loss (Gao et al. 2024, A.2), if there are dead latents: `α · ‖e − ê‖²`, where the
/// error `e` is held constant and `ê` decodes the `k_aux` largest dead latents, without `b_dec`.
pub(in crate::sae) fn add_auxiliary(pass: &Pass, outcome: &mut Outcome) {
    let Some(dead) = pass
        .now
        .dead
        .clone()
        .filter(|_| pass.config.aux_alpha > 0.0)
    else {
        return;
    };
    let (loss, term) = auxiliary(pass, dead, outcome.error.clone());
    outcome.loss = outcome.loss.clone() + loss;
    outcome.terms.push(term);
}

/// The dead latents are encoded on their own.
fn auxiliary(pass: &Pass, dead: Tensor<1, Int>, error: Tensor<2>) -> (Tensor<1>, Term) {
    let (sae, conventions) = (pass.sae, &pass.config.conventions);
    let (w, b) = (
        sae.w_enc.clone().select(0, dead.clone()),
        sae.b_enc.clone().select(0, dead.clone()),
    );
    let m = dead.dims()[0];
    let encode = Encode {
        relu: conventions.aux_relu,
        ..Encode::new(pass.config.k_aux.min(m))
    };
    let (values, among_dead) = ops::encode_topk(pass.input.clone(), w, b, &encode);
    let indices = dead
        .gather(0, among_dead.clone().flatten(0, 1))
        .reshape(among_dead.dims());
    let at = Places::listed(indices);
    let scale = match conventions.aux_normaliser {
        AuxNormaliser::Residual => squared_deviation(error.clone()).recip(),
        AuxNormaliser::Total => pass.variance.clone().recip(),
        AuxNormaliser::Rows => pass.variance.ones_like() / pass.rows() as f64,
    };
    let share = match conventions.aux_by_share {
        true => (m as f64 / pass.config.k_aux as f64).min(1.0),
        false => 1.0,
    };
    let alpha = pass.config.aux_alpha * share;
    let miss = at.decode(values.clone(), sae.w_dec.clone()) - error;
    let loss = total(miss.clone().square()) * scale.clone() * alpha;
    let signal = miss * (scale * (2.0 * alpha)).unsqueeze::<2>();
    let mut term = Term::new(sae, at, values, signal);
    term.counted = false;
    (loss, term)
}
