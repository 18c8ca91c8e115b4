//! Matryoshka BatchTopK (Bussmann, Nabeshima, Karvonen & Nanda 2025): latents in groups, and a
//! reconstruction from the first group, the first two, and so on, each with its own loss.

use burn::tensor::Tensor;

use super::batch_topk::largest_of_batch;
use super::topk::add_auxiliary;
use crate::device::Error;
use crate::ops::BatchTopk;
use crate::sae::config::Matryoshka;
use crate::sae::loss::{Judged, Outcome, Pass, Term};
use crate::sae::places::Places;

/// One group of latents, with the reconstruction from it and all before it.
struct Group {
    at: Places,
    values: Tensor<2>,
    loss: Tensor<1>,
    signal: Tensor<2>,
}

pub(in crate::sae) async fn forward(
    pass: &Pass<'_>,
    settings: &Matryoshka,
) -> Result<Outcome, Error> {
    let (chosen, smallest) = largest_of_batch(pass);
    let widths = settings.widths.iter().copied().chain([pass.sae.d_sae()]);
    let share = match settings.mean {
        true => 1.0 / (settings.widths.len() + 1) as f64,
        false => 1.0,
    };
    let (mut groups, mut error, mut first) = (Vec::new(), pass.wanted.clone(), 0);
    for end in widths {
        let (at, values) = group_of(&chosen, [pass.rows(), first, end]).await?;
        let w_dec = pass.sae.w_dec.clone().narrow(0, first, end - first);
        error = error - at.decode(values.clone(), w_dec);
        let judged = pass.judged(error.clone());
        let (at, values) = widened(at, values, first, pass.sae.d_sae());
        groups.push(Group {
            at,
            values,
            loss: judged.loss * share,
            signal: judged.signal * share,
        });
        first = end;
    }
    let mut outcome = joined(pass, groups, error);
    outcome.smallest = Some(smallest);
    add_auxiliary(pass, &mut outcome);
    Ok(outcome)
}

/// Where the chosen latents of a group are, counted from its first, and their values.
async fn group_of(
    chosen: &BatchTopk,
    [n, first, end]: [usize; 3],
) -> Result<(Places, Tensor<2>), Error> {
    let columns = chosen.columns.clone().sub_scalar(first as i64);
    let width = (end - first) as i64;
    let outside = columns
        .clone()
        .lower_elem(0)
        .bool_or(columns.clone().greater_equal_elem(width));
    let group = BatchTopk {
        values: chosen.values.clone().mask_fill(outside, 0.0),
        columns: columns.clamp(0, width - 1),
        ..chosen.clone()
    };
    Places::chosen(group, [n, end - first]).await
}

/// A group's latents as latents of the whole: a group is at every reconstruction from it on.
fn widened(at: Places, values: Tensor<2>, first: usize, d_sae: usize) -> (Places, Tensor<2>) {
    if at.list().is_some() {
        return (at.shifted(first), values);
    }
    let [n, width] = values.dims();
    let zeros = |columns| Tensor::<2>::zeros([n, columns], (&values.device(), values.dtype()));
    let parts = vec![zeros(first), values.clone(), zeros(d_sae - first - width)];
    let parts = parts.into_iter().filter(|p| p.dims()[1] > 0).collect();
    (at, Tensor::cat(parts, 1))
}

/// The terms: what a group decodes to is in the losses of this group and all that follow.
fn joined(pass: &Pass, groups: Vec<Group>, error: Tensor<2>) -> Outcome {
    let mut following = pass.wanted.zeros_like();
    let mut loss = pass.variance.zeros_like();
    let mut terms = Vec::new();
    for group in groups.into_iter().rev() {
        following = following + group.signal;
        loss = loss + group.loss;
        terms.push(Term::new(
            pass.sae,
            group.at,
            group.values,
            following.clone(),
        ));
    }
    terms.reverse();
    let judged = Judged {
        error,
        loss,
        signal: following,
    };
    Outcome::of(judged, terms)
}
