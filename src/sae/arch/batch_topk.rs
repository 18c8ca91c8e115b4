//! BatchTopK (Bussmann, Leask & Nanda 2024): the `k · n` largest pre-activations of a batch of n rows.

use burn::tensor::Tensor;
use burn::tensor::activation::relu;

use super::topk::add_auxiliary;
use crate::device::Error;
use crate::ops::{self, BatchTopk};
use crate::sae::loss::{Found, Judged, More, Outcome, Pass, Term};
use crate::sae::places::Places;

/// The smallest activation of the batch `[1]`.
pub(in crate::sae) struct Smallest(Tensor<1>);

pub(in crate::sae) async fn encode(pass: &Pass<'_>) -> Result<Found, Error> {
    let (chosen, smallest) = largest_of_batch(pass);
    let (at, values) = Places::chosen(chosen, [pass.rows(), pass.sae.d_sae()]).await?;
    Ok(Found {
        at,
        values,
        more: More::BatchTopK(Smallest(smallest)),
    })
}

pub(in crate::sae) fn finish(
    pass: &Pass,
    (at, values, smallest): (Places, Tensor<2>, Smallest),
    judged: Judged,
) -> Outcome {
    let term = Term::new(pass.sae, at, values, judged.signal.clone());
    let mut outcome = Outcome::of(judged, vec![term]);
    outcome.smallest = Some(smallest.0);
    add_auxiliary(pass, &mut outcome);
    outcome
}

/// The largest latents of the batch, and the smallest of those above 0 `[1]`: ∞ if there is none.
pub(super) fn largest_of_batch(pass: &Pass) -> (BatchTopk, Tensor<1>) {
    let z = relu(pass.pre_activations());
    let chosen = ops::batch_topk(z, pass.now.k * pass.rows());
    let none = chosen.values.clone().lower_equal_elem(0.0);
    let smallest = chosen.values.clone().mask_fill(none, f64::INFINITY).min();
    (chosen, smallest)
}
