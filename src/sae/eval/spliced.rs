use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::tensor::{Int, Tensor, TensorData, activation::log_softmax};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{measure, reconstruct_normalised};
use crate::device;
use crate::hook::{Activation, Hooks, Site};
use crate::model::{Model, Tokens};
use crate::sae::{Error, Sae};

/// What a language model loses when an autoencoder's reconstruction takes the place of the
/// activations at its hook. Nats a token.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spliced {
    /// Next-token predictions measured.
    pub tokens: u64,
    /// Cross-entropy of the model as it is.
    #[serde(deserialize_with = "measure")]
    pub ce_original: f64,
    /// With the reconstruction.
    #[serde(deserialize_with = "measure")]
    pub ce_spliced: f64,
    /// With zeros.
    #[serde(deserialize_with = "measure")]
    pub ce_zero: f64,
    /// `(ce_zero − ce_spliced) / (ce_zero − ce_original)`: 1 is nothing lost.
    #[serde(deserialize_with = "measure")]
    pub ce_recovered: f64,
    /// Mean KL divergence of the spliced predictions from the original ones.
    #[serde(deserialize_with = "measure")]
    pub kl_spliced: f64,
    /// Against zeros in place of the activations. These three are missing from older files.
    #[serde(default)]
    pub zero: Option<Ablated>,
    /// Against their mean over the rows of [`SplicedAccumulator::learn_mean`], if there were any.
    #[serde(default)]
    pub mean: Option<Ablated>,
    /// Against those of another row of the batch at the same positions, if there was another.
    #[serde(default)]
    pub resample: Option<Ablated>,
}

/// What a model loses without the activations at a hook, and how much of that a reconstruction saves.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ablated {
    /// Predictions it was measured on.
    pub tokens: u64,
    /// Cross-entropy without the activations.
    #[serde(deserialize_with = "measure")]
    pub ce: f64,
    /// KL divergence from the original predictions without them.
    #[serde(deserialize_with = "measure")]
    pub kl: f64,
    /// `(ce − ce_spliced) / (ce − ce_original)`, all on the same predictions: 1 is nothing lost.
    #[serde(deserialize_with = "measure")]
    pub ce_recovered: f64,
    /// `kl_spliced / kl`: 0 is nothing lost. What is recovered is 1 less this.
    #[serde(deserialize_with = "measure")]
    pub kl_ratio: f64,
}

/// The edit that replaces activations by their reconstruction: for [`Hooks::edit`]. A rank-4
/// activation is taken as rows of `heads · d_head`.
pub fn splice(sae: Sae) -> impl Fn(Site, Activation) -> Activation + Send + Sync + 'static {
    move |_, act| written(|x| sae.reconstruct(x), act.clone(), act)
}

/// The same for an autoencoder of normalised rows ([`reconstruct_normalised`]).
pub fn splice_normalised(
    sae: Sae,
) -> impl Fn(Site, Activation) -> Activation + Send + Sync + 'static {
    move |_, act| written(|x| reconstruct_normalised(&sae, x), act.clone(), act)
}

/// Hooks that put what `sae` makes of the activations at `read` in the place of those at `write`: a
/// transcoder in the place of the layer between them. One point each, and one forward call at a time.
///
/// ```
/// use inscape::sae::{Sae, eval::splice_across};
/// # use burn::tensor::Tensor;
/// # let cpu = inscape::Device::cpu();
/// # let w = || Tensor::<2>::zeros([8, 128], cpu.tensor());
/// # let biases = [8, 128].map(|n| Tensor::<1>::zeros([n], cpu.tensor()));
/// # let transcoder = Sae { subtract_b_dec: false, ..Sae::topk([w(), w()], biases, 2) };
/// let model = inscape::model::load("tiny-lm-1", &cpu)?;
/// let hooks = splice_across(transcoder, "blocks.1.ln2.hook_normalized", "blocks.1.hook_mlp_out");
/// let run = model.run(&model.tokens(&["The whale"])?, &hooks)?;
/// # assert!(run.output.logits.is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Panics
/// In the forward call, if it comes to `write` before `read`, or if the widths do not fit.
pub fn splice_across(sae: Sae, read: &str, write: &str) -> Hooks {
    let seen = Arc::new(Mutex::new(None));
    let keep = seen.clone();
    Hooks::new()
        .edit(read, move |_, act| {
            *locked(&keep) = Some(act.clone());
            act
        })
        .edit(write, move |site, act| match locked(&seen).take() {
            Some(x) => written(|x| sae.reconstruct(x), x, act),
            None => panic!("splice: {site} comes before what is to be read"),
        })
}

fn locked(seen: &Mutex<Option<Activation>>) -> MutexGuard<'_, Option<Activation>> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What an autoencoder makes of `read`, in the shape of `like`.
fn written(
    reconstruct: impl Fn(Tensor<2>) -> Tensor<2>,
    read: Activation,
    like: Activation,
) -> Activation {
    let shape = like.shape();
    let rows = read.rows();
    let [batch, pos, d] = rows.dims();
    let y = reconstruct(rows.reshape([batch * pos, d]));
    match like {
        Activation::R3(_) => Activation::R3(y.reshape([batch, pos, shape[2]])),
        Activation::R4(_) => Activation::R4(y.reshape([batch, pos, shape[2], shape[3]])),
    }
}

fn zeros(_: Site, act: Activation) -> Activation {
    match act {
        Activation::R3(x) => Activation::R3(x.zeros_like()),
        Activation::R4(x) => Activation::R4(x.zeros_like()),
    }
}

/// Rows of the batch in another order.
fn reordered(act: Activation, order: &[i64]) -> Activation {
    let data = || TensorData::new(order.to_vec(), [order.len()]);
    match act {
        Activation::R3(x) => {
            let order = Tensor::from_data(data(), &x.device());
            Activation::R3(x.select(0, order))
        }
        Activation::R4(x) => {
            let order = Tensor::from_data(data(), &x.device());
            Activation::R4(x.select(0, order))
        }
    }
}

/// The same row `[width]` everywhere.
fn constant(act: Activation, row: &[f32]) -> Activation {
    let shape = act.shape();
    let row = |device| Tensor::<1>::from_data(TensorData::new(row.to_vec(), [row.len()]), device);
    match act {
        Activation::R3(x) => {
            let row = row(&x.device()).reshape([1, 1, shape[2]]);
            Activation::R3(row.expand(shape))
        }
        Activation::R4(x) => {
            let row = row(&x.device()).reshape([1, 1, shape[2], shape[3]]);
            Activation::R4(row.expand(shape))
        }
    }
}

/// A permutation of `0..n` that leaves nothing in its place, for n from 2 on: one cycle (Sattolo
/// 1986).
fn cycle(n: usize, rng: &mut ChaCha8Rng) -> Vec<i64> {
    let mut order: Vec<i64> = (0..n as i64).collect();
    for i in (1..n).rev() {
        order.swap(i, rng.random_range(0..i));
    }
    order
}

/// Gathers a [`Spliced`] batch by batch: four forward passes a batch, and one more with a mean.
#[derive(Debug)]
pub struct SplicedAccumulator {
    /// Where activations are read, where that is another place than `hook`.
    read: Option<String>,
    /// Where they are replaced.
    hook: String,
    original: Hooks,
    spliced: Hooks,
    seed: u64,
    batches: u64,
    /// Summed rows at the hook's points, and their number.
    means: BTreeMap<Site, (Vec<f64>, u64)>,
    tokens: u64,
    sums: Sums,
    ablations: [Against; 3],
}

/// Summed cross-entropies and divergences.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    ce_original: f64,
    ce_spliced: f64,
    kl_spliced: f64,
}

/// Those of an ablation, beside what they are to be compared with.
#[derive(Clone, Copy, Debug, Default)]
struct Against {
    tokens: u64,
    ce: f64,
    kl: f64,
    sums: Sums,
}

impl SplicedAccumulator {
    /// Splices `sae` in at `hook`.
    pub fn new(sae: Sae, hook: &str) -> Self {
        let spliced = Hooks::new().edit(hook, splice(sae));
        Self::with(spliced, None, hook)
    }

    /// Splices an autoencoder of normalised rows in at `hook`, as [`splice_normalised`] does.
    pub fn normalised(sae: Sae, hook: &str) -> Self {
        let spliced = Hooks::new().edit(hook, splice_normalised(sae));
        Self::with(spliced, None, hook)
    }

    /// Splices `sae` in between `read` and `write`, as [`splice_across`] does. What is ablated is
    /// `write`.
    pub fn across(sae: Sae, read: &str, write: &str) -> Self {
        Self::with(splice_across(sae, read, write), Some(read.into()), write)
    }

    fn with(spliced: Hooks, read: Option<String>, hook: &str) -> Self {
        Self {
            read,
            hook: hook.into(),
            original: Hooks::new(),
            spliced,
            seed: 0,
            batches: 0,
            means: BTreeMap::new(),
            tokens: 0,
            sums: Sums::default(),
            ablations: [Against::default(); 3],
        }
    }

    /// Seed of the permutations that choose other rows; 0 unless it is set.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Takes a batch into the mean activation at the hook, for [`Spliced::mean`]: call it for all
    /// batches, those to be measured or others, before the first [`SplicedAccumulator::add`]. A
    /// forward pass as far as the hook.
    ///
    /// # Errors
    /// The model has no such hook; the device failed.
    pub async fn learn_mean(&mut self, model: &dyn Model, tokens: &Tokens) -> Result<(), Error> {
        let hooks = Hooks::new().capture(self.hook.as_str()).stop_after_last();
        let run = model.run(tokens, &hooks)?;
        for (site, act) in run.captured.iter() {
            let rows = act.clone().rows();
            let [batch, pos, d] = rows.dims();
            let sums = rows.sum_dim(1).sum_dim(0);
            let sums: Vec<f64> = device::read(sums).await?;
            let empty = || (vec![0.0; d], 0);
            let (all, n) = self.means.entry(site).or_insert_with(empty);
            all.iter_mut().zip(sums).for_each(|(a, s)| *a += s);
            *n += (batch * pos) as u64;
        }
        Ok(())
    }

    /// Adds a batch of rows of equal length, at least two tokens long.
    ///
    /// # Errors
    /// Rows of one token; the model has no such hook, comes to the hook that is written before the
    /// one that is read, or has no logits; the device failed.
    pub async fn add(&mut self, model: &dyn Model, tokens: &Tokens) -> Result<(), Error> {
        if tokens.dims()[1] < 2 {
            let text = "a context of one token has no next token to predict";
            return Err(Error::Config(text.into()));
        }
        self.check_order(model)?;
        let original = log_probs(model, tokens, &self.original)?;
        let targets = targets(tokens, &original);
        let n = targets.dims()[0] as u64;
        let ce = |x: &Tensor<2>| x.clone().gather(1, targets.clone()).sum().neg();
        let kl = |x: &Tensor<2>| (original.clone().exp() * (original.clone() - x.clone())).sum();
        let spliced = log_probs(model, tokens, &self.spliced)?;
        let mut sums = vec![ce(&original), ce(&spliced), kl(&spliced)];
        drop(spliced);
        let ablations = [
            Some(Hooks::new().edit(self.hook.as_str(), zeros)),
            self.mean_hooks(),
            self.resample_hooks(tokens.dims()[0]),
        ];
        let mut measured = Vec::new();
        for (i, hooks) in ablations.iter().enumerate() {
            if let Some(hooks) = hooks {
                let ablated = log_probs(model, tokens, hooks)?;
                sums.extend([ce(&ablated), kl(&ablated)]);
                measured.push(i);
            }
        }
        let sums: Vec<f64> = device::read(Tensor::cat(sums, 0)).await?;
        self.take(n, &sums, &measured);
        Ok(())
    }

    /// Adds the sums of a batch: three of all predictions, and two an ablation measured.
    fn take(&mut self, n: u64, sums: &[f64], measured: &[usize]) {
        let (all, ablated) = sums.split_at(3);
        self.tokens += n;
        self.batches += 1;
        self.sums.add(all);
        for (i, sums) in measured.iter().zip(ablated.chunks_exact(2)) {
            let against = &mut self.ablations[*i];
            against.tokens += n;
            against.ce += sums[0];
            against.kl += sums[1];
            against.sums.add(all);
        }
    }

    fn check_order(&self, model: &dyn Model) -> Result<(), Error> {
        let Some(read) = &self.read else {
            return Ok(());
        };
        let points = model.hook_points();
        let place = |name: &str| points.iter().position(|p| p.site.to_string() == name);
        match (place(read), place(&self.hook)) {
            (Some(read_at), Some(write_at)) if write_at < read_at => Err(Error::Config(format!(
                "the model comes to {} before {read}",
                self.hook
            ))),
            _ => Ok(()),
        }
    }

    fn mean_hooks(&self) -> Option<Hooks> {
        if self.means.is_empty() {
            return None;
        }
        let mean = |(sum, n): &(Vec<f64>, u64)| -> Vec<f32> {
            sum.iter().map(|s| (s / *n as f64) as f32).collect()
        };
        let means: BTreeMap<Site, Vec<f32>> =
            self.means.iter().map(|(s, m)| (*s, mean(m))).collect();
        Some(Hooks::new().edit(self.hook.as_str(), move |site, act| {
            constant(act, &means[&site])
        }))
    }

    /// None where there is no other row.
    fn resample_hooks(&self, rows: usize) -> Option<Hooks> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(self.batches);
        let order = cycle(rows, &mut rng);
        let edit = move |_: Site, act| reordered(act, &order);
        (rows > 1).then(|| Hooks::new().edit(self.hook.as_str(), edit))
    }

    /// Means over everything added.
    pub fn finish(self) -> Spliced {
        let n = self.tokens as f64;
        let [zero, mean, resample] = self.ablations.map(Against::finish);
        let none = f64::NAN;
        Spliced {
            tokens: self.tokens,
            ce_original: self.sums.ce_original / n,
            ce_spliced: self.sums.ce_spliced / n,
            ce_zero: zero.map_or(none, |a| a.ce),
            ce_recovered: zero.map_or(none, |a| a.ce_recovered),
            kl_spliced: self.sums.kl_spliced / n,
            zero,
            mean,
            resample,
        }
    }
}

impl Sums {
    fn add(&mut self, batch: &[f64]) {
        self.ce_original += batch[0];
        self.ce_spliced += batch[1];
        self.kl_spliced += batch[2];
    }
}

impl Against {
    fn finish(self) -> Option<Ablated> {
        let n = self.tokens as f64;
        let (ce, kl) = (self.ce / n, self.kl / n);
        let [original, spliced, kl_spliced] = [
            self.sums.ce_original,
            self.sums.ce_spliced,
            self.sums.kl_spliced,
        ]
        .map(|s| s / n);
        (self.tokens > 0).then_some(Ablated {
            tokens: self.tokens,
            ce,
            kl,
            ce_recovered: (ce - spliced) / (ce - original),
            kl_ratio: kl_spliced / kl,
        })
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
