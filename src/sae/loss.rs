use std::sync::OnceLock;

use burn::tensor::{Int, Tensor};

use super::arch;
use super::config::{Architecture, Reduction};
use super::places::{Listed, Places};
use super::{Sae, TrainConfig};
use crate::device::Error;
use crate::ops::{self, LatentSums};

/// The gradient of the loss by every parameter. Those of the weights are the sums they are made of
/// ([`ops::sparse_matmul_t`] works them out).
#[derive(Clone, Debug)]
pub struct Gradients {
    /// `[d_sae, d_in]`.
    pub w_enc: LatentSums,
    /// `[d_sae]`.
    pub b_enc: Tensor<1>,
    /// `[d_sae, d_out]`.
    pub w_dec: LatentSums,
    /// `[d_out]`.
    pub b_dec: Tensor<1>,
    /// `[d_out, d_in]`, where there is a skip.
    pub w_skip: Option<Tensor<2>>,
    /// Of the activation's own parameters, in their order: θ of JumpReLU; r_mag and b_mag of Gated.
    /// `[d_sae]` each.
    pub activation: Vec<Tensor<1>>,
    /// On how many rows each latent was active, those of the auxiliary loss left out: `[d_sae]`. No
    /// gradient, but counted over the same groups.
    pub fired: Tensor<1>,
}

/// What a batch lost. Each `[1]`, on the device.
#[derive(Clone, Debug)]
pub struct Losses {
    /// All terms together.
    pub loss: Tensor<1>,
    /// `Σ‖y − ŷ‖² / Σ‖y − ȳ‖²` of the batch.
    pub fvu: Tensor<1>,
    /// The smallest activation of the batch, where the architecture keeps a running mean of it.
    pub smallest: Option<Tensor<1>>,
}

/// What changes from step to step beside the weights.
#[derive(Clone, Debug)]
pub struct Now {
    /// The dead latents `[m]`, if there are any.
    pub dead: Option<Tensor<1, Int>>,
    /// What the sparsity penalty is multiplied by.
    pub sparsity: f64,
    /// The exponent of an annealed penalty.
    pub p: f64,
    /// Latents kept a row.
    pub k: usize,
}

/// A batch on its way through the loss.
pub(super) struct Pass<'a> {
    pub(super) sae: &'a Sae,
    pub(super) config: &'a TrainConfig,
    pub(super) now: &'a Now,
    /// What the encoder multiplies: `[n, d_in]`.
    pub(super) input: Tensor<2>,
    /// What the latents are to decode to, `b_dec` and a skip taken off: `[n, d_out]`.
    pub(super) wanted: Tensor<2>,
    /// `Σ‖y − ȳ‖²` `[1]`.
    pub(super) variance: Tensor<1>,
    /// What squared errors are multiplied by `[1]`.
    pub(super) scale: Tensor<1>,
    /// What judges a reconstruction in the place of the squared error.
    pub(super) judge: Option<&'a Judge<'a>>,
    /// What is added to what the latents decode to, `[n, d_out]`; only where there is a judge.
    added: Option<Tensor<2>>,
    /// The lengths of the decoder rows, from when they are first asked for.
    lengths: OnceLock<Tensor<2>>,
}

/// The loss `[1]` of a reconstruction `ŷ` `[n, d_out]`, and its gradient by `ŷ`.
pub(super) type Judge<'a> = dyn Fn(Tensor<2>) -> (Tensor<1>, Tensor<2>) + 'a;

/// The latents that are active on a batch: `[n, k]` at their places.
pub(super) struct Found {
    pub(super) at: Places,
    pub(super) values: Tensor<2>,
    /// What the architecture's loss needs beside them.
    pub(super) more: More,
}

/// What is found on the way to the active latents.
#[allow(
    clippy::large_enum_variant,
    reason = "one a batch, and it is moved once"
)]
pub(super) enum More {
    Nothing,
    TopK(arch::topk::Largest),
    BatchTopK(arch::batch_topk::Smallest),
    Gated(arch::gated::Gates),
    JumpRelu(arch::jump_relu::Near),
}

/// A reconstruction, judged.
#[derive(Clone)]
pub(super) struct Judged {
    /// `y − ŷ` `[n, d_out]`.
    pub(super) error: Tensor<2>,
    pub(super) loss: Tensor<1>,
    /// By `ŷ`, `[n, d_out]`.
    pub(super) signal: Tensor<2>,
}

/// What an architecture makes of a batch.
pub(super) struct Outcome {
    pub(super) terms: Vec<Term>,
    /// `y − ŷ` `[n, d_out]`.
    pub(super) error: Tensor<2>,
    /// By everything that is added to what the latents decode to, `[n, d_out]`.
    pub(super) signal: Tensor<2>,
    pub(super) loss: Tensor<1>,
    /// By the activation's own parameters.
    pub(super) activation: Vec<Tensor<1>>,
    /// By the length of every decoder row `[d_sae]`, where a penalty weighs by it.
    pub(super) lengths: Option<Tensor<1>>,
    pub(super) smallest: Option<Tensor<1>>,
}

impl Outcome {
    /// Of a reconstruction and the terms of its loss, before anything is added.
    pub(super) fn of(judged: Judged, terms: Vec<Term>) -> Self {
        Self {
            terms,
            error: judged.error,
            signal: judged.signal,
            loss: judged.loss,
            activation: Vec::new(),
            lengths: None,
            smallest: None,
        }
    }
}

/// One term of the loss, by the latents that it reaches.
pub(super) struct Term {
    pub(super) at: Places,
    /// What multiplies their decoder rows: `[n, k]`.
    pub(super) values: Tensor<2>,
    /// By their product with the encoder, `[n, k]`.
    pub(super) dz: Tensor<2>,
    /// By `b_enc`, where that is not the same.
    pub(super) db: Option<Tensor<2>>,
    /// By `Σ values · W_dec`, `[n, d_out]`.
    pub(super) signal: Tensor<2>,
    /// Whether values above 0 count as latents that fired.
    pub(super) counted: bool,
}

/// Loss and gradients of one batch, written out: `x` `[n, d_in]`, and `y` `[n, d_out]` where
/// something else than `x` is to be made.
///
/// Every architecture's loss is in its own file; the auxiliary loss of the TopK family (Gao et al.
/// 2024, A.2) is `α · ‖e − ê‖²`, where `e = y − ŷ` is held constant and `ê` decodes the `k_aux`
/// largest *dead* latents, without `b_dec`. All terms reach the encoder.
///
/// Cost, TopK: one dense product `[n, d_in] · [d_in, d_sae]` (and one over the dead latents), and
/// sparse products over the active ones. Holds four matrices `[n, d_in]`, `n k` entries and what
/// [`ops::encode_topk`] holds; no `[n, d_sae]` and no `[d_sae, d_in]`, unless a quarter of the
/// latents or more are active, where that is the faster way ([`LatentSums::condensed`]; never with
/// `lazy_adam`). With m dead latents another four `[n, d_in]`, `n k_aux` entries and `[m, d_in]`.
/// The others hold the pre-activations `[n, d_sae]` about three times; while over an eighth of the
/// latents (or 1,024) are active on some row they take dense products, five in all.
///
/// # Errors
/// The device failed.
pub async fn backward(
    sae: &Sae,
    x: Tensor<2>,
    y: Option<Tensor<2>>,
    now: &Now,
    config: &TrainConfig,
) -> Result<(Gradients, Losses), Error> {
    backward_of(sae, x, y, now, config, None).await
}

/// The same with another loss of the reconstruction, if there is a judge.
pub(super) async fn backward_of(
    sae: &Sae,
    x: Tensor<2>,
    y: Option<Tensor<2>>,
    now: &Now,
    config: &TrainConfig,
    judge: Option<&Judge<'_>>,
) -> Result<(Gradients, Losses), Error> {
    let skipped = sae.w_skip.is_some().then(|| x.clone());
    let pass = Pass::new(sae, x, y, now, config, judge);
    let outcome = match &config.architecture {
        Architecture::Matryoshka(a) => arch::matryoshka::forward(&pass, a).await?,
        _ => {
            let found = pass.encode().await?;
            let judged = pass.judged(pass.error(&found.at, found.values.clone()));
            pass.finish(found, judged)
        }
    };
    let fvu = total(outcome.error.clone().square()) * pass.variance.clone().recip();
    let losses = Losses {
        loss: outcome.loss.clone(),
        fvu,
        smallest: outcome.smallest.clone(),
    };
    let w_skip = skipped.map(|x| outcome.signal.clone().transpose().matmul(x));
    let mut grads = gradients(&pass, outcome);
    grads.w_skip = w_skip;
    Ok((grads.condensed(config.lazy_adam), losses))
}

impl Gradients {
    /// Those of the weights as matrices where that is the faster way, unless latents are to be left
    /// alone.
    pub(super) fn condensed(mut self, lazy: bool) -> Self {
        if !lazy {
            (self.w_enc, self.w_dec) = (self.w_enc.condensed(), self.w_dec.condensed());
        }
        self
    }
}

impl<'a> Pass<'a> {
    fn new(
        sae: &'a Sae,
        x: Tensor<2>,
        y: Option<Tensor<2>>,
        now: &'a Now,
        config: &'a TrainConfig,
        judge: Option<&'a Judge<'a>>,
    ) -> Self {
        let y_is_x = y.is_none();
        let y = y.unwrap_or_else(|| x.clone());
        let variance = squared_deviation(y.clone());
        let scale = squares_scale(config.conventions.reduction, &variance, y.dims());
        let b_dec = || sae.b_dec.clone().unsqueeze();
        let y_before = judge.map(|_| y.clone());
        let wanted = y - b_dec();
        let wanted = match sae.skip(&x) {
            Some(skipped) => wanted - skipped,
            None => wanted,
        };
        let added = y_before.map(|y| y - wanted.clone());
        let input = match sae.subtract_b_dec {
            true if y_is_x && sae.w_skip.is_none() => wanted.clone(),
            true => x - b_dec(),
            false => x,
        };
        Self {
            sae,
            config,
            now,
            input,
            wanted,
            variance,
            scale,
            judge,
            added,
            lengths: OnceLock::new(),
        }
    }

    /// Of a layer that writes together with others: what is wanted of it is known when all of them
    /// have encoded.
    pub(super) fn of_layer(
        sae: &'a Sae,
        input: Tensor<2>,
        now: &'a Now,
        config: &'a TrainConfig,
        variance: &Tensor<1>,
        scale: &Tensor<1>,
    ) -> Self {
        Self {
            sae,
            config,
            now,
            wanted: input.clone(),
            input,
            variance: variance.clone(),
            scale: scale.clone(),
            judge: None,
            added: None,
            lengths: OnceLock::new(),
        }
    }

    /// The active latents.
    ///
    /// # Panics
    /// For Matryoshka, whose groups are found one after another.
    pub(super) async fn encode(&self) -> Result<Found, Error> {
        match &self.config.architecture {
            Architecture::Standard(_) => arch::standard::encode(self).await,
            Architecture::Gated(_) => arch::gated::encode(self).await,
            Architecture::TopK { .. } => Ok(arch::topk::encode(self)),
            Architecture::BatchTopK { .. } => arch::batch_topk::encode(self).await,
            Architecture::JumpRelu(a) => arch::jump_relu::encode(self, a).await,
            Architecture::Matryoshka(_) => unreachable!("Matryoshka encodes group by group"),
        }
    }

    /// The whole loss, the reconstruction from the active latents having been judged.
    pub(super) fn finish(&self, found: Found, judged: Judged) -> Outcome {
        let Found { at, values, more } = found;
        match (&self.config.architecture, more) {
            (Architecture::Standard(a), _) => arch::standard::finish(self, a, at, values, judged),
            (Architecture::Gated(a), More::Gated(gates)) => {
                arch::gated::finish(self, a, (at, values, gates), judged)
            }
            (Architecture::TopK { .. }, More::TopK(largest)) => {
                arch::topk::finish(self, (at, values, largest), judged)
            }
            (Architecture::BatchTopK { .. }, More::BatchTopK(smallest)) => {
                arch::batch_topk::finish(self, (at, values, smallest), judged)
            }
            (Architecture::JumpRelu(a), More::JumpRelu(near)) => {
                arch::jump_relu::finish(self, a, (values, near), judged)
            }
            _ => unreachable!("latents come from the architecture's own encoder"),
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.input.dims()[0]
    }

    /// `input · W_enc` `[n, d_sae]`, without a bias.
    pub(super) fn product(&self) -> Tensor<2> {
        self.input
            .clone()
            .matmul(self.sae.w_enc.clone().transpose())
    }

    /// The pre-activations `[n, d_sae]`.
    pub(super) fn pre_activations(&self) -> Tensor<2> {
        self.product() + self.sae.b_enc.clone().unsqueeze()
    }

    /// `y − ŷ` for latents with these values.
    pub(super) fn error(&self, at: &Places, values: Tensor<2>) -> Tensor<2> {
        self.wanted.clone() - at.decode(values, self.sae.w_dec.clone())
    }

    /// The loss of a reconstruction that misses by `error`, and its gradient by what the latents
    /// decode to: the squared error as the loss counts it, unless there is a judge.
    pub(super) fn judged(&self, error: Tensor<2>) -> Judged {
        let (loss, signal) = match (self.judge, &self.added) {
            (Some(judge), Some(added)) => {
                judge(self.wanted.clone() - error.clone() + added.clone())
            }
            _ => squared(&error, &self.scale),
        };
        Judged {
            error,
            loss,
            signal,
        }
    }

    /// What a penalty weighs each latent by: the length of its decoder row, summed over the sites, or
    /// 1 where that is held at 1. `[d_sae]`.
    pub(super) fn weights(&self) -> Tensor<1> {
        match self.config.conventions.unit_decoder {
            true => self.sae.b_enc.ones_like(),
            false => self.lengths().sum_dim(1).squeeze_dim(1),
        }
    }

    /// The lengths of the decoder rows, `[d_sae, sites]`.
    fn lengths(&self) -> Tensor<2> {
        let of = |w_dec: &Tensor<2>| {
            let ([d_sae, d_out], sites) = (w_dec.dims(), self.sae.sites);
            let by_site = w_dec.clone().reshape([d_sae, sites, d_out / sites]);
            by_site.square().sum_dim(2).sqrt().squeeze_dim(2)
        };
        let lengths = self.lengths.get_or_init(|| of(&self.sae.w_dec));
        lengths.clone()
    }

    /// By the lengths of the decoder rows, where the penalty weighs by them: `weighed` `[n, k]` is the
    /// penalty with lengths of 1.
    pub(super) fn by_lengths(&self, at: &Places, weighed: Tensor<2>) -> Option<Tensor<1>> {
        let free = !self.config.conventions.unit_decoder;
        free.then(|| at.totals(weighed, self.sae.d_sae()))
    }

    /// Of every decoder row the direction in which its length grows: `[d_sae, d_out]`.
    fn directions(&self) -> Tensor<2> {
        let [d_sae, d_out] = self.sae.w_dec.dims();
        let lengths = self.lengths().clamp_min(1e-12);
        let [_, sites] = lengths.dims();
        let spread = lengths
            .unsqueeze_dim::<3>(2)
            .expand([d_sae, sites, d_out / sites])
            .reshape([d_sae, d_out]);
        self.sae.w_dec.clone() / spread
    }
}

/// What squared errors of rows of this shape are multiplied by `[1]`.
pub(super) fn squares_scale(
    reduction: Reduction,
    variance: &Tensor<1>,
    [n, d]: [usize; 2],
) -> Tensor<1> {
    match reduction {
        Reduction::Variance => variance.clone().recip(),
        Reduction::Rows => variance.ones_like() / n as f64,
        Reduction::Elements => variance.ones_like() / (n * d) as f64,
    }
}

/// `scale · ‖error‖²` and its gradient by what is taken from the error.
pub(super) fn squared(error: &Tensor<2>, scale: &Tensor<1>) -> (Tensor<1>, Tensor<2>) {
    let loss = total(error.clone().square()) * scale.clone();
    let signal = error.clone() * (scale.clone() * -2.0).unsqueeze::<2>();
    (loss, signal)
}

/// 1 where `x` is above 0, in its float type.
fn above_zero(x: &Tensor<2>) -> Tensor<2> {
    x.clone().sign().clamp_min(0.0)
}

/// `Σ‖x − x̄‖²`, at least a tiny positive number.
pub(super) fn squared_deviation(x: Tensor<2>) -> Tensor<1> {
    let mean = x.clone().mean_dim(0);
    total((x - mean).square()).clamp_min(1e-30)
}

/// The sum of all elements, row by row. The CPU backend splits a plain `sum` of over four
/// million elements among threads as they come, so that its last bits differ from run to run.
pub(super) fn total(x: Tensor<2>) -> Tensor<1> {
    x.sum_dim(1).sum()
}

impl Term {
    /// Latents that are active where `values` are not 0.
    pub(super) fn new(sae: &Sae, at: Places, values: Tensor<2>, signal: Tensor<2>) -> Self {
        let dz = at.dot(signal.clone(), sae.w_dec.clone());
        Self {
            dz: dz * values.clone().sign().abs(),
            at,
            values,
            db: None,
            signal,
            counted: true,
        }
    }
}

pub(super) fn gradients(pass: &Pass, outcome: Outcome) -> Gradients {
    let lists: Option<Vec<&Listed>> = outcome.terms.iter().map(|t| t.at.list()).collect();
    let mut grads = match lists {
        Some(lists) => of_lists(pass, &outcome, &lists),
        None => of_matrices(pass, &outcome),
    };
    // So far the sum of dz, which is what reaches the input.
    if pass.sae.subtract_b_dec {
        let through = (grads.b_enc.clone().unsqueeze::<2>()).matmul(pass.sae.w_enc.clone());
        grads.b_dec = grads.b_dec - through.squeeze_dim(0);
    }
    let d_sae = pass.sae.d_sae();
    let own = |t: &Term| {
        t.at.totals(t.db.clone().unwrap_or_else(|| t.dz.clone()), d_sae)
    };
    if outcome.terms.iter().any(|t| t.db.is_some()) {
        let all = outcome.terms.iter().map(own);
        grads.b_enc = all.reduce(|a, b| a + b).unwrap_or(grads.b_enc);
    }
    grads.activation = outcome.activation;
    grads
}

/// Puts the terms together: the entries of all of them, grouped by latent. The rows of the second
/// term are counted on from those of the first.
fn of_lists(pass: &Pass, outcome: &Outcome, lists: &[&Listed]) -> Gradients {
    let (terms, n, d_sae) = (&outcome.terms, pass.rows(), pass.sae.d_sae());
    let device = pass.input.device();
    let flat = |x: &Tensor<2>| x.clone().flatten::<1>(0, 1);
    let all = |part: &dyn Fn(&Term) -> Tensor<2>| {
        Tensor::cat(terms.iter().map(|t| flat(&part(t))).collect(), 0)
    };
    let (values, dz) = (all(&|t| t.values.clone()), all(&|t| t.dz.clone()));
    let active = all(&|t| match t.counted {
        true => above_zero(&t.values),
        false => t.values.zeros_like(),
    });
    let latents = |list: &&Listed| list.latents.clone().flatten::<1>(0, 1);
    let mut indices: Vec<_> = lists.iter().map(latents).collect();
    let rows = (0..).zip(terms);
    let mut rows: Vec<_> = rows
        .map(|(i, t)| ops::rows_of_entries(i * n, t.dz.dims(), &device))
        .collect();
    let groups = |indices: &[_], rows: &[_]| {
        ops::by_latent(
            Tensor::cat(indices.to_vec(), 0),
            Tensor::cat(rows.to_vec(), 0),
            d_sae,
        )
    };
    let shared = match lists {
        [list] => list.by_latent(d_sae).clone(),
        _ => groups(&indices, &rows),
    };
    let ones = Tensor::ones([terms.len() * n, 1], (&device, pass.input.dtype()));
    let count = |entries| {
        let sums = LatentSums::new(entries, &shared, ones.clone());
        ops::sparse_matmul_t(&sums).squeeze_dim::<1>(1)
    };
    let (b_enc, fired) = (count(dz.clone()), count(active));

    let mut signals: Vec<_> = terms.iter().map(|t| t.signal.clone()).collect();
    let w_dec = match outcome.lengths.clone() {
        None => LatentSums::new(values, &shared, Tensor::cat(signals, 0)),
        Some(lengths) => {
            // An entry more a latent: its length's gradient times its direction.
            let latents = Tensor::<1, Int>::arange(0..d_sae as i64, &device);
            let latents = latents.cast(indices[0].dtype());
            indices.push(latents.clone());
            rows.push(latents.add_scalar((terms.len() * n) as i64));
            signals.push(pass.directions());
            let values = Tensor::cat(vec![values, lengths], 0);
            LatentSums::new(values, &groups(&indices, &rows), Tensor::cat(signals, 0))
        }
    };
    let mut w_enc = LatentSums::new(dz, &shared, pass.input.clone());
    if terms.len() > 1 {
        w_enc.rows = w_enc.rows.remainder_scalar(n as i64);
    }
    Gradients {
        w_enc,
        b_enc,
        w_dec,
        b_dec: outcome.signal.clone().sum_dim(0).squeeze_dim(0),
        w_skip: None,
        activation: Vec::new(),
        fired,
    }
}

/// The same with dense products, where a term has too many active latents to list.
fn of_matrices(pass: &Pass, outcome: &Outcome) -> Gradients {
    let d_sae = pass.sae.d_sae();
    let sums = |at: &Places, values: &Tensor<2>, g: &Tensor<2>| match at.list() {
        None => values.clone().transpose().matmul(g.clone()),
        Some(list) => ops::sparse_matmul_t(&list.sums(values.clone(), g.clone(), d_sae)),
    };
    let add = |of: &dyn Fn(&Term) -> Tensor<2>| {
        let all = outcome.terms.iter().map(of);
        all.reduce(|a, b| a + b).expect("a loss has terms")
    };
    let mut w_dec = add(&|t| sums(&t.at, &t.values, &t.signal));
    if let Some(lengths) = outcome.lengths.clone() {
        w_dec = w_dec + pass.directions() * lengths.unsqueeze_dim(1);
    }
    let counted = outcome.terms.iter().filter(|t| t.counted);
    let fired = counted.map(|t| t.at.totals(above_zero(&t.values), d_sae));
    let dz = outcome
        .terms
        .iter()
        .map(|t| t.at.totals(t.dz.clone(), d_sae));
    Gradients {
        w_enc: LatentSums::of_matrix(add(&|t| sums(&t.at, &t.dz, &pass.input))),
        b_enc: dz.reduce(|a, b| a + b).expect("a loss has terms"),
        w_dec: LatentSums::of_matrix(w_dec),
        b_dec: outcome.signal.clone().sum_dim(0).squeeze_dim(0),
        w_skip: None,
        activation: Vec::new(),
        fired: fired
            .reduce(|a, b| a + b)
            .unwrap_or_else(|| pass.sae.b_enc.zeros_like()),
    }
}
