use burn::tensor::{Int, Tensor, activation::log_softmax};
use serde::{Deserialize, Serialize};

use crate::device;
use crate::hook::{self, Activation, Hooks};
use crate::model::{Model, Tokens};
use crate::sae::{Error, Sae};

/// What a language model loses when an autoencoder's reconstruction takes the place of the
/// activations at its hook. Nats a token.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spliced {
    /// Next-token predictions measured.
    pub tokens: u64,
    /// Cross-entropy of the model as it is.
    pub ce_original: f64,
    /// With the reconstruction.
    pub ce_spliced: f64,
    /// With zeros.
    pub ce_zero: f64,
    /// `(ce_zero − ce_spliced) / (ce_zero − ce_original)`: 1 is nothing lost.
    pub ce_recovered: f64,
    /// Mean KL divergence of the spliced predictions from the original ones.
    pub kl_spliced: f64,
}

/// The edit that replaces activations by their reconstruction: for [`Hooks::edit`]. A rank-4
/// activation is taken as rows of `heads · d_head`.
pub fn splice(sae: Sae) -> impl Fn(hook::Site, Activation) -> Activation + Send + Sync + 'static {
    move |_, act| {
        let shape = act.shape();
        let rows = act.clone().rows();
        let [batch, pos, d] = rows.dims();
        let y = sae.reconstruct(rows.reshape([batch * pos, d]));
        match act {
            Activation::R3(_) => Activation::R3(y.reshape([batch, pos, d])),
            Activation::R4(_) => Activation::R4(y.reshape([batch, pos, shape[2], shape[3]])),
        }
    }
}

fn zeros(_: hook::Site, act: Activation) -> Activation {
    match act {
        Activation::R3(x) => Activation::R3(x.zeros_like()),
        Activation::R4(x) => Activation::R4(x.zeros_like()),
    }
}

/// Gathers a [`Spliced`] batch by batch. Three forward passes a batch.
#[derive(Debug)]
pub struct SplicedAccumulator {
    original: Hooks,
    spliced: Hooks,
    zero: Hooks,
    tokens: u64,
    sums: [f64; 4],
}

impl SplicedAccumulator {
    /// Splices `sae` in at `hook`.
    pub fn new(sae: Sae, hook: &str) -> Self {
        let spliced = Hooks::new().edit(hook, splice(sae));
        let zero = Hooks::new().edit(hook, zeros);
        Self {
            original: Hooks::new(),
            spliced,
            zero,
            tokens: 0,
            sums: [0.0; 4],
        }
    }

    /// Adds a batch of rows of equal length, at least two tokens long.
    ///
    /// # Errors
    /// Rows of one token; the model has no such hook or no logits; the device failed.
    pub async fn add(&mut self, model: &dyn Model, tokens: &Tokens) -> Result<(), Error> {
        if tokens.dims()[1] < 2 {
            let text = "a context of one token has no next token to predict";
            return Err(Error::Config(text.into()));
        }
        let original = log_probs(model, tokens, &self.original)?;
        let spliced = log_probs(model, tokens, &self.spliced)?;
        let zero = log_probs(model, tokens, &self.zero)?;
        let targets = targets(tokens, &original);
        let n = targets.dims()[0] as u64;
        let pick = |x: &Tensor<2>| x.clone().gather(1, targets.clone()).sum().neg();
        let kl = (original.clone().exp() * (original.clone() - spliced.clone())).sum();
        let sums = Tensor::cat(vec![pick(&original), pick(&spliced), pick(&zero), kl], 0);
        let sums: Vec<f64> = device::read(sums).await?;
        self.sums.iter_mut().zip(sums).for_each(|(a, b)| *a += b);
        self.tokens += n;
        Ok(())
    }

    /// Means over everything added.
    pub fn finish(self) -> Spliced {
        let [ce_original, ce_spliced, ce_zero, kl_spliced] =
            self.sums.map(|s| s / self.tokens as f64);
        let ce_recovered = (ce_zero - ce_spliced) / (ce_zero - ce_original);
        Spliced {
            tokens: self.tokens,
            ce_original,
            ce_spliced,
            ce_zero,
            ce_recovered,
            kl_spliced,
        }
    }
}

/// `[batch * (pos - 1), vocab]`: what is predicted for every token but the first.
fn log_probs(model: &dyn Model, tokens: &Tokens, hooks: &Hooks) -> Result<Tensor<2>, Error> {
    let Some(logits) = model.run(tokens, hooks)?.output.logits else {
        return Err(Error::Config(
            "this model predicts no next token, so there is no cross-entropy to recover".into(),
        ));
    };
    let [batch, pos, vocab] = logits.dims();
    let logits = logits
        .slice([0..batch, 0..pos - 1])
        .reshape([batch * (pos - 1), vocab]);
    Ok(log_softmax(logits, 1))
}

fn targets(tokens: &Tokens, like: &Tensor<2>) -> Tensor<2, Int> {
    let [batch, pos] = tokens.dims();
    tokens
        .ids(&like.device())
        .slice([0..batch, 1..pos])
        .reshape([batch * (pos - 1), 1])
}
