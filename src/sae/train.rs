use burn::tensor::{Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::arch::unit_rows;
use super::{Error, Latents, TopK, init};
use crate::device;
use crate::ops::{self, Adam, Moments, clip_scale};

/// How a TopK autoencoder is trained. Saved with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainConfig {
    /// Number of latents.
    pub d_sae: usize,
    /// Latents kept a row.
    pub k: usize,
    /// Activations to train on; the last step's batch may be cut short of it.
    pub tokens: u64,
    /// Activations a step.
    pub batch: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// Share of the steps over which the rate rises from 0.
    pub warmup: f64,
    /// Share of the steps, at the end, over which the rate falls linearly to 0.
    pub decay: f64,
    /// Joint norm that gradients are clipped to.
    pub clip: f64,
    /// Weight of the auxiliary loss (Gao et al. 2024, A.2).
    pub aux_alpha: f64,
    /// Dead latents the auxiliary loss uses a row.
    pub k_aux: usize,
    /// A latent is dead when it has not fired for this many activations.
    pub dead_after: u64,
    /// Seed of the weights and of the order of the activations.
    pub seed: u64,
    /// Adam's settings.
    pub adam: Adam,
}

impl TrainConfig {
    /// The defaults for activations of width `d_in`: learning rate 2e-3 at 3072 latents,
    /// falling with the root of the width (the scaling of Gao et al. 2024), Adam (0.9, 0.999), 5 % warm-up, decay
    /// over the last half, clipping at 1, α = 1/32, `k_aux = d_in / 2`, dead after an eighth of
    /// the run or 10 M activations.
    pub fn new(d_in: usize, d_sae: usize, k: usize, tokens: u64) -> Self {
        Self {
            d_sae,
            k,
            tokens,
            batch: 2048,
            lr: default_lr(d_sae),
            warmup: 0.05,
            decay: 0.5,
            clip: 1.0,
            aux_alpha: 1.0 / 32.0,
            k_aux: (d_in / 2).clamp(1, d_sae.clamp(1, 1024)),
            dead_after: (tokens / 8).clamp(1, 10_000_000),
            seed: 0,
            adam: Adam::default(),
        }
    }

    /// Steps of the whole run.
    pub fn steps(&self) -> u64 {
        (self.tokens / self.batch.max(1) as u64).max(1)
    }

    /// Refuses what cannot be trained.
    ///
    /// # Errors
    /// [`Error::Config`] names the setting.
    pub fn check(&self) -> Result<(), Error> {
        let bad = |text: String| Err(Error::Config(text));
        match self {
            Self { k: 0, .. } => bad("k = 0: at least one latent must be kept".into()),
            Self { d_sae: 0, .. } => bad("width = 0: there must be a latent".into()),
            Self { k, d_sae, .. } if k > d_sae => {
                bad(format!("k = {k} exceeds the width of {d_sae} latents"))
            }
            Self { k, .. } if *k > 1024 => bad(format!("k = {k}: at most 1024 are supported")),
            Self { d_sae, .. } if *d_sae > 1 << 20 => bad(format!(
                "width = {d_sae}: at most {} are supported",
                1 << 20
            )),
            Self { batch, .. } if *batch < 2 => {
                bad(format!("batch = {batch}: at least 2 are needed"))
            }
            Self { lr, .. } if !(*lr > 0.0 && lr.is_finite()) => {
                bad(format!("lr = {lr}: a positive number is needed"))
            }
            Self { tokens, batch, .. } if *tokens < *batch as u64 => bad(format!(
                "tokens = {tokens} is less than one batch of {batch}"
            )),
            _ => Ok(()),
        }
    }

    /// The learning rate of step `t`, the first being 1.
    pub fn lr_at(&self, t: u64) -> f64 {
        let (t, steps) = (t as f64, self.steps() as f64);
        let rise = t / (self.warmup * steps).max(1.0);
        let fall = (steps - t + 1.0) / (self.decay * steps).max(1.0);
        self.lr * rise.min(fall).min(1.0)
    }
}

fn default_lr(d_sae: usize) -> f64 {
    (2e-3 * (3072.0 / d_sae.max(1) as f64).sqrt()).min(4e-3)
}

/// What one step did. Reading it back from a GPU waits for the step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepStats {
    /// Steps done, this one included.
    pub step: u64,
    /// Reconstruction error over variance, of this batch, plus the weighted auxiliary loss.
    pub loss: f64,
    /// `Σ‖x − x̂‖² / Σ‖x − x̄‖²` of this batch.
    pub fvu: f64,
    /// Mean active latents a row.
    pub l0: f64,
    /// Share of latents that have not fired for `dead_after` activations.
    pub dead_share: f64,
}

/// The state of a training run: weights, moments, dead counters. No files, no clocks.
#[derive(Clone, Debug)]
pub struct Trainer {
    /// The autoencoder as trained, acting on scaled inputs.
    pub(super) sae: TopK,
    pub(super) config: TrainConfig,
    /// What inputs are multiplied by.
    pub(super) scale: f64,
    pub(super) step: u64,
    pub(super) moments: AllMoments,
    /// Activations since each latent last fired `[d_sae]`.
    pub(super) silent: Tensor<1>,
    pub(super) any_dead: bool,
    /// Loss, FVU and L0 of the last step, still on the device.
    pub(super) last: Option<(Tensor<1>, Tensor<1>, Tensor<1>)>,
}

/// One set of moments a parameter.
#[derive(Clone, Debug)]
pub(super) struct AllMoments {
    pub(super) w_enc: Moments<2>,
    pub(super) b_enc: Moments<1>,
    pub(super) w_dec: Moments<2>,
    pub(super) b_dec: Moments<1>,
}

impl AllMoments {
    pub(super) fn zeros(sae: &TopK) -> Self {
        Self {
            w_enc: Moments::zeros(&sae.w_enc),
            b_enc: Moments::zeros(&sae.b_enc),
            w_dec: Moments::zeros(&sae.w_dec),
            b_dec: Moments::zeros(&sae.b_dec),
        }
    }
}

/// The gradient of the loss by every parameter.
#[derive(Clone, Debug)]
pub struct Gradients {
    /// `[d_sae, d_in]`.
    pub w_enc: Tensor<2>,
    /// `[d_sae]`.
    pub b_enc: Tensor<1>,
    /// `[d_sae, d_in]`.
    pub w_dec: Tensor<2>,
    /// `[d_in]`.
    pub b_dec: Tensor<1>,
}

/// How often the dead are counted to decide whether the auxiliary loss runs.
const DEAD_EVERY: u64 = 16;

impl Trainer {
    /// A fresh run. `sample` (row-major, a few thousand rows of width `d_in`) sets `b_dec` to
    /// its geometric median and the input scale to unit variance a dimension.
    ///
    /// # Errors
    /// [`Error::Config`] names a setting that cannot work.
    pub fn new(
        config: TrainConfig,
        sample: &[f32],
        d_in: usize,
        device: &Device,
    ) -> Result<Self, Error> {
        config.check()?;
        if sample.len() < d_in || d_in == 0 {
            return Err(Error::Config(
                "there are no activations to start from".into(),
            ));
        }
        let median = init::geometric_median(sample, d_in);
        let scale = init::input_scale(sample, &median);
        let b_dec = median
            .iter()
            .map(|m| (f64::from(*m) * scale) as f32)
            .collect();
        let sae = init::tied(config.d_sae, config.k, b_dec, config.seed, device);
        Ok(Self::at(sae, config, scale, 0))
    }

    pub(super) fn at(sae: TopK, config: TrainConfig, scale: f64, step: u64) -> Self {
        let silent = Tensor::zeros([sae.d_sae()], &sae.b_enc.device());
        let moments = AllMoments::zeros(&sae);
        Self {
            sae,
            config,
            scale,
            step,
            moments,
            silent,
            any_dead: false,
            last: None,
        }
    }

    /// The autoencoder, acting on inputs as they were given.
    pub fn sae(&self) -> TopK {
        self.sae.clone().rescale(1.0 / self.scale)
    }

    /// Steps done.
    pub fn steps_done(&self) -> u64 {
        self.step
    }

    /// The settings.
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// One step on `x` `[batch, d_in]`: forward, backward, projection, clipping, Adam,
    /// renormalisation, dead-latent bookkeeping. Nothing is read back except, every 16 steps,
    /// whether there are dead latents.
    ///
    /// Cost: one dense product (two while there are dead latents), sparse products over the k
    /// active latents, and about a dozen passes over the parameters. Holds `[batch, d_sae]`
    /// once (twice while there are dead latents).
    ///
    /// # Errors
    /// The device failed.
    pub async fn step(&mut self, x: Tensor<2>) -> Result<(), Error> {
        let [batch, d_in] = x.dims();
        assert!(
            d_in == self.sae.d_in(),
            "sae step: x [{batch}, {d_in}] for d_in = {}",
            self.sae.d_in()
        );
        self.step += 1;
        let dead = self.any_dead.then(|| self.dead());
        let (grads, latents, losses) = backward(&self.sae, x * self.scale, dead, &self.config);
        self.update(grads);
        self.silent = silent_after(self.silent.clone(), &latents, batch);
        let active = latents.values.greater_elem(0.0).float().sum() / batch as f64;
        self.last = Some((losses.0, losses.1, active));
        if self.step.is_multiple_of(DEAD_EVERY) {
            self.any_dead = self.dead_share().await? > 0.0;
        }
        Ok(())
    }

    /// What the last step did.
    ///
    /// # Errors
    /// The device failed, or [`Error::Diverged`].
    pub async fn stats(&self) -> Result<StepStats, Error> {
        let Some((loss, fvu, l0)) = self.last.clone() else {
            return Err(Error::Config("no step has been made yet".into()));
        };
        let values: Vec<f64> = device::read(Tensor::cat(vec![loss, fvu, l0], 0)).await?;
        let dead_share = self.dead_share().await?;
        if !values[0].is_finite() {
            return Err(Error::Diverged {
                step: self.step,
                loss: values[0],
            });
        }
        Ok(StepStats {
            step: self.step,
            loss: values[0],
            fvu: values[1],
            l0: values[2],
            dead_share,
        })
    }

    /// 1 where a latent is dead, `[d_sae]`.
    fn dead(&self) -> Tensor<1> {
        self.silent
            .clone()
            .greater_equal_elem(self.config.dead_after as f64)
            .float()
    }

    async fn dead_share(&self) -> Result<f64, Error> {
        let share: Vec<f64> = device::read(self.dead().mean()).await?;
        Ok(share[0])
    }

    fn update(&mut self, mut grads: Gradients) {
        grads.w_dec = project(grads.w_dec, &self.sae.w_dec);
        let squares = vec![
            grads.w_enc.clone().square().sum(),
            grads.b_enc.clone().square().sum(),
            grads.w_dec.clone().square().sum(),
            grads.b_dec.clone().square().sum(),
        ];
        let scale = clip_scale(squares, self.config.clip);
        let (adam, t, lr) = (self.config.adam, self.step, self.config.lr_at(self.step));
        let (sae, moments) = (&mut self.sae, &mut self.moments);
        let wide = scale.clone().unsqueeze::<2>();
        sae.w_enc = adam.step(
            t,
            lr,
            sae.w_enc.clone(),
            grads.w_enc * wide.clone(),
            &mut moments.w_enc,
        );
        sae.b_enc = adam.step(
            t,
            lr,
            sae.b_enc.clone(),
            grads.b_enc * scale.clone(),
            &mut moments.b_enc,
        );
        sae.w_dec = unit_rows(adam.step(
            t,
            lr,
            sae.w_dec.clone(),
            grads.w_dec * wide,
            &mut moments.w_dec,
        ));
        sae.b_dec = adam.step(
            t,
            lr,
            sae.b_dec.clone(),
            grads.b_dec * scale,
            &mut moments.b_dec,
        );
    }
}

/// The part of each row of `grad` that is orthogonal to that (unit) row of `w`: what keeps
/// Adam from spending its step on a length that is normalised away (Bricken et al. 2023).
fn project(grad: Tensor<2>, w: &Tensor<2>) -> Tensor<2> {
    let along = (grad.clone() * w.clone()).sum_dim(1);
    grad - w.clone() * along
}

fn silent_after(silent: Tensor<1>, latents: &Latents, batch: usize) -> Tensor<1> {
    let [n, k] = latents.values.dims();
    let active = latents
        .values
        .clone()
        .greater_elem(0.0)
        .float()
        .reshape([n * k]);
    let indices: Tensor<1, Int> = latents.indices.clone().reshape([n * k]);
    let fired =
        silent
            .zeros_like()
            .scatter(0, indices, active, burn::tensor::IndexingUpdateOp::Add);
    let quiet = fired.equal_elem(0.0).float();
    (silent + batch as f64) * quiet
}

/// Loss and gradients of one batch, written out (Gao et al. 2024, section 2 and A.2):
/// `‖x − x̂‖² / Var + α · ‖e − ê‖² / Var(e)`, where `e = x − x̂` is held constant in the
/// auxiliary term and `ê` decodes the `k_aux` largest *dead* latents, without `b_dec`.
///
/// Both terms reach the encoder. `dead` is 1 at dead latents. Returns gradients, latents and
/// (loss, FVU).
pub fn backward(
    sae: &TopK,
    x: Tensor<2>,
    dead: Option<Tensor<1>>,
    config: &TrainConfig,
) -> (Gradients, Latents, (Tensor<1>, Tensor<1>)) {
    let centred = x.clone() - sae.b_dec.clone().unsqueeze();
    let z = centred.clone().matmul(sae.w_enc.clone().transpose()) + sae.b_enc.clone().unsqueeze();
    let aux_z = dead.map(|d| {
        z.clone().mask_fill(
            d.equal_elem(0.0).unsqueeze::<2>().expand(z.dims()),
            f64::NEG_INFINITY,
        )
    });
    let latents = select(z, sae.k);
    let error = x.clone() - sae.decode(&latents);
    let total = squared_deviation(x);
    let fvu = error.clone().square().sum() / total.clone();
    let signal = error.clone() * (total.recip() * -2.0).unsqueeze::<2>();
    let mut grads = through(sae, &latents, &signal, &centred);
    grads.b_dec = grads.b_dec + signal.sum_dim(0).squeeze_dim(0);
    let mut loss = fvu.clone();
    if let Some(z) = aux_z {
        let (aux_loss, aux) = auxiliary(sae, z, error, &centred, config);
        loss = loss + aux_loss;
        grads.w_enc = grads.w_enc + aux.w_enc;
        grads.b_enc = grads.b_enc + aux.b_enc;
        grads.w_dec = grads.w_dec + aux.w_dec;
        grads.b_dec = grads.b_dec + aux.b_dec;
    }
    (grads, latents, (loss, fvu))
}

fn select(z: Tensor<2>, k: usize) -> Latents {
    let (values, indices) = ops::topk(z, k);
    Latents {
        values: values.clamp_min(0.0),
        indices,
    }
}

/// `Σ‖x − x̄‖²`, at least a tiny positive number.
fn squared_deviation(x: Tensor<2>) -> Tensor<1> {
    let mean = x.clone().mean_dim(0);
    (x - mean).square().sum().clamp_min(1e-30)
}

/// Gradients of what a signal `g = ∂loss/∂(Σ values · W_dec)` `[n, d_in]` reaches through the
/// active latents. The part of `b_dec` that comes through the encoder is included.
fn through(sae: &TopK, latents: &Latents, g: &Tensor<2>, centred: &Tensor<2>) -> Gradients {
    let (values, indices) = (latents.values.clone(), latents.indices.clone());
    let d_sae = sae.d_sae();
    let w_dec = ops::sparse_matmul_t(values.clone(), indices.clone(), g.clone(), d_sae);
    let on = values.greater_elem(0.0).float();
    let dz = ops::sparse_dot(g.clone(), sae.w_dec.clone(), indices.clone()) * on;
    let w_enc = ops::sparse_matmul_t(dz.clone(), indices.clone(), centred.clone(), d_sae);
    let [n, k] = dz.dims();
    let zeros = sae.b_enc.zeros_like();
    let b_enc = zeros.scatter(
        0,
        indices.reshape([n * k]),
        dz.reshape([n * k]),
        burn::tensor::IndexingUpdateOp::Add,
    );
    let b_dec = b_enc
        .clone()
        .unsqueeze::<2>()
        .matmul(sae.w_enc.clone())
        .squeeze_dim(0)
        .neg();
    Gradients {
        w_enc,
        b_enc,
        w_dec,
        b_dec,
    }
}

fn auxiliary(
    sae: &TopK,
    z: Tensor<2>,
    error: Tensor<2>,
    centred: &Tensor<2>,
    config: &TrainConfig,
) -> (Tensor<1>, Gradients) {
    let latents = select(z, config.k_aux);
    let guess = ops::sparse_decode(
        latents.values.clone(),
        latents.indices.clone(),
        sae.w_dec.clone(),
    );
    let total = squared_deviation(error.clone());
    let miss = guess - error;
    let loss = miss.clone().square().sum() / total.clone() * config.aux_alpha;
    let signal = miss * (total.recip() * (2.0 * config.aux_alpha)).unsqueeze::<2>();
    (loss, through(sae, &latents, &signal, centred))
}

/// `rows` (row-major) as a tensor `[n, d_in]`.
pub(super) fn batch_tensor(rows: Vec<f32>, d_in: usize, device: &Device) -> Tensor<2> {
    let n = rows.len() / d_in;
    Tensor::from_data(TensorData::new(rows, [n, d_in]), device)
}
