//! The end-to-end loss (Braun, Taylor, Goldowsky-Dill & Sharkey 2024, "Identifying functionally
//! important features with end-to-end sparse dictionary learning"): what the model predicts with the
//! reconstruction in the place of its activations, against what it predicts without.

use burn::tensor::{Tensor, activation::log_softmax};
use serde::{Deserialize, Serialize};

use super::Error;
use super::loss::{squared_deviation, total};
use crate::hook::{Activation, BlockSite, HookPoint, Hooks, Site};
use crate::model::{Model, Tokens};

/// What is trained on in the place of the squared error:
/// `KL(p ‖ p̂) + mse · ‖y − ŷ‖² / ‖y − ȳ‖² + downstream · Σ_l ‖a_l − â_l‖² / ‖a_l − ā_l‖² / L`, in nats a
/// token, p being the model's next-token predictions and a_l the L residual streams behind the last
/// hook that is written to.
///
/// Braun et al.'s SAE_e2e has both weights 0, their SAE_e2e+ds a downstream weight (there a mean over
/// squared distances that are not divided by the variance).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EndToEnd {
    /// Weight of the share of variance that the reconstruction misses.
    pub mse: f64,
    /// Weight of the same for the residual streams that follow, on average.
    pub downstream: f64,
}

/// A batch of contexts that a model ran on as it is, ready for reconstructions to be judged.
pub struct EndToEndPass<'a> {
    model: &'a dyn Model,
    tokens: &'a Tokens,
    settings: EndToEnd,
    /// The positions whose activations are replaced: the first, and how many.
    positions: [usize; 2],
    write: Vec<Place>,
    downstream: Vec<HookPoint>,
    x: Tensor<2>,
    y: Option<Tensor<2>>,
    /// Log-probabilities `[batch · positions, vocab]`.
    original: Tensor<2>,
    streams: Vec<Tensor<2>>,
}

/// A point that is written to.
struct Place {
    hook: String,
    width: usize,
}

impl<'a> EndToEndPass<'a> {
    /// Runs the model, which must be on an autodiff device, and keeps what is read and what is to be
    /// written; several hooks stand side by side. `write` is empty where the same is to be written.
    ///
    /// Holds the log-probabilities of the batch, `[batch · positions, vocab]`; a judgement holds about
    /// four times as much and the activations behind the first hook that is written to.
    ///
    /// # Errors
    /// The model has no such hook or predicts no next token; a hook without a row a position.
    pub fn new(
        model: &'a dyn Model,
        tokens: &'a Tokens,
        [read, write]: [&[String]; 2],
        positions: [usize; 2],
        settings: EndToEnd,
    ) -> Result<Self, Error> {
        let points = model.hook_points();
        let written = if write.is_empty() { read } else { write };
        places(&points, read)?;
        let write_places = places(&points, written)?;
        let downstream = match settings.downstream > 0.0 {
            true => behind(&points, written),
            false => Vec::new(),
        };
        if settings.downstream > 0.0 && downstream.is_empty() {
            let last = written.join(", ");
            return Err(Error::Config(format!(
                "downstream: no residual stream follows {last}"
            )));
        }
        let mut hooks = Hooks::new();
        let streams = downstream.iter().map(|p| p.site.to_string());
        for hook in read.iter().chain(write).cloned().chain(streams) {
            hooks = hooks.capture(hook);
        }
        let run = model.run(tokens, &hooks)?;
        let rows = |hooks: &[String]| {
            let rows = hooks
                .iter()
                .map(|hook| rows(run[hook.as_str()].clone(), positions));
            Tensor::cat(rows.collect(), 1)
        };
        let stream = |p: &HookPoint| rows(&[p.site.to_string()]);
        let Some(logits) = run.output.logits.clone() else {
            let text = "this model predicts no next token: there is no end-to-end loss";
            return Err(Error::Config(text.into()));
        };
        if !logits.device().is_autodiff() {
            let text =
                "end-to-end training goes back through the model: load it on `device.autodiff()`";
            return Err(Error::Config(text.into()));
        }
        Ok(Self {
            x: rows(read),
            y: (!write.is_empty()).then(|| rows(write)),
            streams: downstream.iter().map(stream).collect(),
            original: log_probs(logits, positions).inner(),
            model,
            tokens,
            settings,
            positions,
            write: write_places,
            downstream,
        })
    }

    /// What is read: `[batch · positions, d_in]`.
    pub fn x(&self) -> &Tensor<2> {
        &self.x
    }

    /// What is to be written, where that is something else: `[batch · positions, d_out]`.
    pub fn y(&self) -> Option<&Tensor<2>> {
        self.y.as_ref()
    }

    /// The loss `[1]` with `made` `[batch · positions, d_out]` in the place of the activations, and its
    /// gradient by `made`. One pass through the model and back.
    pub fn judge(&self, made: Tensor<2>) -> (Tensor<1>, Tensor<2>) {
        let made = Tensor::from_inner(made).require_grad();
        let mut hooks = Hooks::new();
        let mut at = 0;
        for place in &self.write {
            let (part, positions) = (made.clone().narrow(1, at, place.width), self.positions);
            hooks = hooks.edit(place.hook.as_str(), move |_, act| {
                replaced(act, part.clone(), positions)
            });
            at += place.width;
        }
        for point in &self.downstream {
            hooks = hooks.capture(point.site.to_string());
        }
        let run = self.model.run(self.tokens, &hooks);
        let run = run.expect("the same hooks were there when the model ran as it is");
        let logits = run.output.logits.clone().expect("it predicted before");
        let n = self.original.dims()[0] as f64;
        let original = Tensor::<2>::from_inner(self.original.clone());
        let spliced = log_probs(logits, self.positions);
        let mut loss = total(original.clone().exp() * (original - spliced)) / n;
        if self.settings.mse > 0.0 {
            let wanted = self.y.as_ref().unwrap_or(&self.x);
            loss = loss + missed(wanted, made.clone()) * self.settings.mse;
        }
        let share = self.settings.downstream / self.downstream.len().max(1) as f64;
        for (point, wanted) in self.downstream.iter().zip(&self.streams) {
            let name = point.site.to_string();
            let stream = rows_tracked(run.captured[name.as_str()].clone(), self.positions);
            loss = loss + missed(wanted, stream) * share;
        }
        let grads = loss.backward();
        let signal = made.grad(&grads).expect("the loss depends on it");
        (loss.inner(), signal)
    }
}

/// `‖wanted − made‖² / ‖wanted − mean‖²`.
fn missed(wanted: &Tensor<2>, made: Tensor<2>) -> Tensor<1> {
    let variance = Tensor::from_inner(squared_deviation(wanted.clone()));
    total((made - Tensor::from_inner(wanted.clone())).square()) / variance
}

fn places(points: &[HookPoint], hooks: &[String]) -> Result<Vec<Place>, Error> {
    let place = |hook: &String| {
        let wanted = Hooks::new().capture(hook.as_str());
        let found = wanted.captured_points(points)?;
        match (&found[..], found.first().and_then(HookPoint::row_shape)) {
            ([only], Some(shape)) if only.site.to_string() == *hook => Ok(Place {
                hook: hook.clone(),
                width: shape.iter().product(),
            }),
            _ => Err(Error::Config(format!(
                "`{hook}`: the name of one point with a row a position is needed"
            ))),
        }
    };
    hooks.iter().map(place).collect()
}

/// The residual streams after blocks behind all of these hooks.
fn behind(points: &[HookPoint], hooks: &[String]) -> Vec<HookPoint> {
    let named = |p: &&HookPoint| hooks.contains(&p.site.to_string());
    let last = points.iter().rposition(|p| named(&p)).map_or(0, |i| i + 1);
    let stream = |p: &&HookPoint| matches!(p.site, Site::Block(_, BlockSite::ResidPost));
    points[last..].iter().filter(stream).cloned().collect()
}

/// `[batch · positions, d]` of an activation, without what made it.
fn rows(act: Activation, positions: [usize; 2]) -> Tensor<2> {
    rows_tracked(act, positions).inner()
}

fn rows_tracked(act: Activation, [first, count]: [usize; 2]) -> Tensor<2> {
    let rows = act.rows();
    let [batch, _, d] = rows.dims();
    rows.narrow(1, first, count).reshape([batch * count, d])
}

/// The activation with other rows at the positions.
fn replaced(act: Activation, rows: Tensor<2>, [first, count]: [usize; 2]) -> Activation {
    let shape = act.shape();
    let all = act.clone().rows();
    let [batch, pos, d] = all.dims();
    let rows = rows.reshape([batch, count, d]);
    let parts = [(0, first), (first + count, pos - first - count)];
    let [before, after] = parts.map(|(at, len)| (len > 0).then(|| all.clone().narrow(1, at, len)));
    let parts = [before, Some(rows), after].into_iter().flatten().collect();
    let rows = Tensor::cat(parts, 1);
    match act {
        Activation::R3(_) => Activation::R3(rows),
        Activation::R4(_) => Activation::R4(rows.reshape([batch, pos, shape[2], shape[3]])),
    }
}

/// What is predicted at the positions: `[batch · positions, vocab]`.
fn log_probs(logits: Tensor<3>, [first, count]: [usize; 2]) -> Tensor<2> {
    let [batch, _, vocab] = logits.dims();
    let logits = logits.narrow(1, first, count);
    log_softmax(logits.reshape([batch * count, vocab]), 1)
}
