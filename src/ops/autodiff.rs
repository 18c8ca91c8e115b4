//! What the gradient side of every op with a hand-written backward pass needs.
//!
//! A node of the graph has one output, so an op with two outputs that carry gradients runs its
//! forward pass once and records one node for each.

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend};

/// `output` as a node of the graph; `state` is what the backward pass of `op` will see.
pub(super) fn record<B, C, O, const N: usize>(
    op: O,
    parents: [NodeGuard; N],
    state: O::State,
    output: FloatTensor<B>,
) -> FloatTensor<Autodiff<B, C>>
where
    B: Backend,
    C: CheckpointStrategy,
    O: Backward<B, N>,
{
    match op.prepare::<C>(parents).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(state, output),
        OpsKind::UnTracked(prep) => prep.finish(output),
    }
}

/// Hands every parent that asked for one its gradient.
pub(super) fn register<B: Backend, S, const N: usize>(
    ops: Ops<S, N>,
    grads: &mut Gradients,
    of_parents: [FloatTensor<B>; N],
) {
    for (parent, grad) in ops.parents.into_iter().zip(of_parents) {
        if let Some(parent) = parent {
            grads.register::<B>(parent.id, grad);
        }
    }
}
