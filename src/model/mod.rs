//! Model definitions: the shared layers, one file per family, and the way from files to a model.
//!
//! A [`Model`] is a forward pass that hands every named activation to a
//! [`Tap`]. A [`Network`] is a model with its tokenizer and identity, as
//! [`load()`] returns it.

pub mod family;
pub mod layers;
pub mod load;
mod tokens;

use std::ops::Index;

use burn::tensor::{Int, Tensor};

use crate::hook::{self, Activation, Captured, HookPoint, Hooks, Tap};

pub use load::{Error, Info, Network, load};
pub use tokens::Tokens;

/// A trainable tensor of a model, by rank.
#[derive(Debug)]
pub enum Param<'a> {
    /// A gain, a bias.
    R1(&'a mut Tensor<1>),
    /// A weight.
    R2(&'a mut Tensor<2>),
}

/// What a forward pass ends in. A pass that was stopped early has none of it.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// Next-token logits `[batch, pos, vocab]` of a language model.
    pub logits: Option<Tensor<3>>,
    /// Last hidden states `[batch, pos, d_model]` of an encoder.
    pub hidden: Option<Tensor<3>>,
    /// Sentence embedding `[batch, d_model]` of an encoder: mean over real tokens, unit length.
    pub embedding: Option<Tensor<2>>,
}

/// The result of [`Model::run`].
#[derive(Debug)]
pub struct Run {
    /// Logits or hidden states.
    pub output: Output,
    /// What the hooks kept.
    pub captured: Captured,
}

impl Index<&str> for Run {
    type Output = Activation;

    /// # Panics
    /// If the name was not captured.
    fn index(&self, name: &str) -> &Activation {
        &self.captured[name]
    }
}

/// A forward pass with named places.
pub trait Model: std::fmt::Debug + Send + Sync {
    /// Every point this model passes through, in order, with its shape.
    fn hook_points(&self) -> Vec<HookPoint>;

    /// The pass itself. `tap` sees every point of [`Model::hook_points`].
    fn forward(&self, tokens: &Tokens, tap: &mut Tap<'_>) -> Output;

    /// Longest context in tokens.
    fn max_context(&self) -> usize;

    /// Number of token ids the model knows.
    fn vocab_size(&self) -> usize;

    /// Trainable tensors with their names in the weight file.
    fn params(&mut self) -> Vec<(String, Param<'_>)>;

    /// The matrix `[vocab, d_model]` that turns the final residual into logits, where there is one.
    fn unembedding(&self) -> Option<Tensor<2>> {
        None
    }

    /// One forward pass with `hooks`.
    ///
    /// With no hook asked for the output is bit-identical to that of any capturing run, and
    /// nothing is copied. Memory: what is captured, plus one layer's activations.
    ///
    /// # Errors
    /// A name that the model does not have or that never fired; a row longer than the
    /// context; a token id outside the vocabulary.
    fn run(&self, tokens: &Tokens, hooks: &Hooks) -> Result<Run, hook::Error> {
        tokens.check(self.max_context(), self.vocab_size())?;
        let mut tap = hooks.bind(&self.hook_points())?;
        let output = self.forward(tokens, &mut tap);
        Ok(Run {
            output,
            captured: tap.finish()?,
        })
    }
}

/// Mean next-token cross-entropy in nats over all positions but the last.
///
/// `logits` `[batch, pos, vocab]`, `ids` `[batch, pos]`. Differentiable. Padding is not
/// masked: give rows of equal length. Cost: one softmax over the logits.
pub fn next_token_loss(logits: Tensor<3>, ids: Tensor<2, Int>) -> Tensor<1> {
    let [batch, pos, vocab] = logits.dims();
    let rows = batch * (pos - 1);
    let logits = logits.slice([0..batch, 0..pos - 1]).reshape([rows, vocab]);
    let targets = ids.slice([0..batch, 1..pos]).reshape([rows, 1]);
    burn::tensor::activation::log_softmax(logits, 1)
        .gather(1, targets)
        .mean()
        .neg()
}
