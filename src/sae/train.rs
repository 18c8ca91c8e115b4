use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::config::Architecture;
use super::end_to_end::EndToEndPass;
use super::loss::{Gradients, Judge, Losses, Now, backward_of};
use super::{Activation, Error, Sae, TrainConfig, init, resample};
use crate::device;
use crate::ops::{AdamRows, Moments, adam_rows, clip_scale, grad_squares, take};

/// What one step did. Reading it back from a GPU waits for the step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepStats {
    /// Steps done, this one included.
    pub step: u64,
    /// All terms of the loss, of this batch.
    pub loss: f64,
    /// `Σ‖y − ŷ‖² / Σ‖y − ȳ‖²` of this batch.
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
    pub(super) sae: Sae,
    pub(super) config: TrainConfig,
    /// What inputs and what outputs are multiplied by.
    pub(super) scale: [f64; 2],
    pub(super) step: u64,
    pub(super) moments: AllMoments,
    /// The running mean of the weights, if there is to be one.
    pub(super) ema: Option<Sae>,
    /// Activations since each latent last fired `[d_sae]`.
    pub(super) silent: Tensor<1>,
    /// The latents that were dead when last looked at, if any.
    pub(super) dead: Option<Tensor<1, Int>>,
    /// The first step whose loss was no finite number, 0 if there was none: `[1]`.
    pub(super) diverged: Tensor<1>,
    /// Loss, FVU and L0 of the last step, still on the device.
    pub(super) last: Option<[Tensor<1>; 3]>,
}

/// One set of moments a parameter that has gradients.
#[derive(Clone, Debug)]
pub(super) struct AllMoments {
    pub(super) matrices: Vec<Moments<2>>,
    pub(super) vectors: Vec<Moments<1>>,
}

impl AllMoments {
    pub(super) fn zeros(sae: &Sae) -> Self {
        let (mut sae, trained) = (sae.clone(), trained_vectors(&sae.activation));
        let (matrices, vectors) = sae.parts();
        let matrices = matrices.into_iter().map(|(_, w)| Moments::zeros(w));
        let vectors = vectors.into_iter().take(trained);
        Self {
            matrices: matrices.collect(),
            vectors: vectors.map(|(_, b)| Moments::zeros(b)).collect(),
        }
    }
}

/// How many of the vectors of [`Sae::parts`] have gradients: all but BatchTopK's threshold.
fn trained_vectors(activation: &Activation) -> usize {
    match activation {
        Activation::Relu | Activation::TopK { .. } | Activation::BatchTopK { .. } => 2,
        Activation::JumpRelu { .. } => 3,
        Activation::Gated { .. } => 4,
    }
}

/// What is wrong with a skip in an autoencoder.
pub(super) const NO_SKIP: &str =
    "a skip from the input to itself leaves nothing to learn: it is for transcoders";

/// What is wrong with a transcoder that takes `b_dec` from its input.
pub(super) const TRANSCODER_BIAS: &str =
    "a transcoder's b_dec lies where it writes; it cannot be taken from where it reads";

/// Every so many steps the dead latents are read back; the auxiliary loss acts on them until then.
const DEAD_EVERY: u64 = 16;

impl Trainer {
    /// A fresh run. `sample` (row-major, a few thousand rows of width `d_in`) sets where `b_dec`
    /// starts and the input's scale, which is one for all sites of a crosscoder: give it rows whose sites
    /// are of one size, or the larger ones will count for more.
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
        check_sample(sample, d_in, &config)?;
        if config.skip {
            return Err(Error::Config(NO_SKIP.into()));
        }
        let centre = init::bias(sample, d_in, config.conventions.b_dec);
        let scale = init::input_scale(sample, &centre, config.conventions.input_scale);
        let sae = init::start(&config, (d_in, false), scaled(&centre, scale), device);
        Ok(Self::at(sae, config, [scale, scale], 0))
    }

    /// A fresh run of a transcoder, which makes rows of width `d_out` of rows of width `d_in`; `target`
    /// are the wanted rows of a sample.
    ///
    /// # Errors
    /// [`Error::Config`] names a setting that cannot work.
    pub fn transcoder(
        config: TrainConfig,
        (sample, d_in): (&[f32], usize),
        (target, d_out): (&[f32], usize),
        device: &Device,
    ) -> Result<Self, Error> {
        config.check()?;
        check_sample(sample, d_in, &config)?;
        check_sample(target, d_out, &config)?;
        let conventions = &config.conventions;
        if conventions.subtract_b_dec {
            return Err(Error::Config(TRANSCODER_BIAS.into()));
        }
        let scale =
            |rows: &[f32], centre: &[f32]| init::input_scale(rows, centre, conventions.input_scale);
        let centre = init::bias(target, d_out, conventions.b_dec);
        let about = init::bias(sample, d_in, conventions.b_dec);
        let scales = [scale(sample, &about), scale(target, &centre)];
        let sae = init::start(&config, (d_in, true), scaled(&centre, scales[1]), device);
        Ok(Self::at(sae, config, scales, 0))
    }

    pub(super) fn at(sae: Sae, config: TrainConfig, scale: [f64; 2], step: u64) -> Self {
        let device = sae.b_enc.device();
        Self {
            silent: Tensor::zeros([sae.d_sae()], &device),
            diverged: Tensor::zeros([1], &device),
            moments: AllMoments::zeros(&sae),
            ema: config.ema.map(|_| sae.clone()),
            sae,
            config,
            scale,
            step,
            dead: None,
            last: None,
        }
    }

    /// The autoencoder, acting on inputs as they were given: the running mean of the weights, if there
    /// is one.
    pub fn sae(&self) -> Sae {
        let sae = self.ema.as_ref().unwrap_or(&self.sae).clone();
        sae.rescale_both(self.scale.map(|s| 1.0 / s))
    }

    /// What inputs are multiplied by before training on them.
    pub fn scale(&self) -> f64 {
        self.scale[0]
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
    /// renormalisation, dead-latent bookkeeping. With TopK nothing is read back except, every 16
    /// steps, which latents are dead; the others read how many latents are active.
    ///
    /// Cost, TopK: one dense product (and one over the dead latents), sparse products over the active
    /// latents, and two passes over the weights, one of them over the moments too. Holds what
    /// [`backward`](super::backward) holds; weights and moments change in place.
    ///
    /// # Errors
    /// The device failed.
    ///
    /// # Panics
    /// If `x` does not have `d_in` columns.
    pub async fn step(&mut self, x: Tensor<2>) -> Result<(), Error> {
        self.step_to(x, None).await
    }

    /// One step of a transcoder: `y` `[batch, d_out]` is to be made of `x`. As [`step`](Self::step).
    ///
    /// # Errors
    /// The device failed.
    ///
    /// # Panics
    /// If `x` does not have `d_in` or `y` not `d_out` columns.
    pub async fn step_to(&mut self, x: Tensor<2>, y: Option<Tensor<2>>) -> Result<(), Error> {
        self.step_judged(x, y, None).await
    }

    /// One step on what the model makes of the reconstruction, in the place of the squared error
    /// ([`EndToEnd`](super::EndToEnd)). As [`step`](Self::step), and a pass through the model and back
    /// for every reconstruction the architecture's loss has.
    ///
    /// # Errors
    /// The device failed.
    ///
    /// # Panics
    /// If what was read or written there does not fit.
    pub async fn step_end_to_end(&mut self, pass: &EndToEndPass<'_>) -> Result<(), Error> {
        let scale = self.scale[1];
        let judge = |made: Tensor<2>| {
            let (loss, signal) = pass.judge(made / scale);
            (loss, signal / scale)
        };
        let (x, y) = (pass.x().clone(), pass.y().cloned());
        self.step_judged(x, y, Some(&judge)).await
    }

    async fn step_judged(
        &mut self,
        x: Tensor<2>,
        y: Option<Tensor<2>>,
        judge: Option<&Judge<'_>>,
    ) -> Result<(), Error> {
        let ([batch, d_in], d_out) = (x.dims(), y.as_ref().map_or(x.dims()[1], |y| y.dims()[1]));
        assert!(
            d_in == self.sae.d_in() && d_out == self.sae.d_out(),
            "sae step: x [{batch}, {d_in}], y [{batch}, {d_out}] for d_in = {}, d_out = {}",
            self.sae.d_in(),
            self.sae.d_out()
        );
        self.step += 1;
        let (x, y) = (x * self.scale[0], y.map(|y| y * self.scale[1]));
        let again = self.resamples().then(|| (x.clone(), y.clone()));
        let (now, config) = (self.now(), &self.config);
        let (grads, losses) = backward_of(&self.sae, x, y, &now, config, judge).await?;
        let clip = clip_scale(self.squares(&grads), self.config.clip);
        self.learn(grads, &losses, batch, clip).await?;
        if let Some((x, y)) = again {
            self.look_for_dead().await?;
            resample::resample(self, x, y).await?;
        }
        Ok(())
    }

    /// What follows the gradients of a batch, `clip` being what they are multiplied by.
    pub(super) async fn learn(
        &mut self,
        grads: Gradients,
        losses: &Losses,
        batch: usize,
        clip: Tensor<1>,
    ) -> Result<(), Error> {
        self.silent = silent_after(self.silent.clone(), &grads.fired, batch);
        self.diverged = first_diverged(self.diverged.clone(), &losses.loss, self.step);
        let l0 = grads.fired.clone().sum() / batch as f64;
        self.last = Some([losses.loss.clone(), losses.fvu.clone(), l0]);
        self.update(grads, clip);
        self.after(losses);
        if self.step.is_multiple_of(DEAD_EVERY) {
            self.look_for_dead().await?;
        }
        Ok(())
    }

    fn resamples(&self) -> bool {
        let every = self.config.resample_every;
        every.is_some_and(|every| self.step.is_multiple_of(every.max(1)))
    }

    pub(super) fn now(&self) -> Now {
        Now {
            dead: self.dead.clone(),
            sparsity: self.config.sparsity_at(self.step),
            p: self.config.p_at(self.step),
            k: self.config.k_at(self.step),
        }
    }

    /// What the last step did.
    ///
    /// # Errors
    /// The device failed, or [`Error::Diverged`].
    pub async fn stats(&self) -> Result<StepStats, Error> {
        let Some([loss, fvu, l0]) = self.last.clone() else {
            return Err(Error::Config("no step has been made yet".into()));
        };
        let all = vec![loss, fvu, l0, self.diverged.clone()];
        let values: Vec<f64> = device::read(Tensor::cat(all, 0)).await?;
        let dead_share = self.dead_share().await?;
        if values[3] > 0.0 {
            return Err(Error::Diverged {
                step: values[3] as u64,
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

    async fn look_for_dead(&mut self) -> Result<(), Error> {
        let silent: Vec<f32> = device::read(self.silent.clone()).await?;
        let dead_after = self.config.dead_after as f32;
        let dead = (0..)
            .zip(&silent)
            .filter(|(_, s)| **s >= dead_after)
            .map(|(f, _)| f);
        self.dead = dead_latents(dead.collect(), &self.silent.device());
        Ok(())
    }

    async fn dead_share(&self) -> Result<f64, Error> {
        let dead = self
            .silent
            .clone()
            .greater_equal_elem(self.config.dead_after as f64);
        let share: Vec<f64> = device::read(dead.float().mean()).await?;
        Ok(share[0])
    }

    /// The squares of the gradients, to be summed for their joint norm.
    pub(super) fn squares(&self, grads: &Gradients) -> Vec<Tensor<1>> {
        let unit = self.config.conventions.unit_decoder;
        let mut squares = vec![
            grad_squares(&grads.w_enc, None).sum(),
            grad_squares(&grads.w_dec, unit.then_some(&self.sae.w_dec)).sum(),
        ];
        let vectors = [&grads.b_enc, &grads.b_dec].into_iter();
        let vectors = vectors.chain(&grads.activation);
        squares.extend(vectors.map(|g| g.clone().square().sum()));
        squares.extend(grads.w_skip.iter().map(|g| g.clone().square().sum()));
        squares
    }

    fn update(&mut self, grads: Gradients, scale: Tensor<1>) {
        let unit = self.config.conventions.unit_decoder;
        let idle = self.config.lazy_adam.then(|| grads.w_enc.idle());
        let vectors = [grads.b_enc, grads.b_dec]
            .into_iter()
            .chain(grads.activation);
        let vectors: Vec<Tensor<1>> = vectors.collect();
        let (adam, t, lr) = (self.config.adam, self.step, self.config.lr_at(self.step));
        let lazy = self.config.lazy_adam;
        let enc = AdamRows {
            adam,
            t,
            lr,
            unit: false,
            lazy,
        };
        let dec = AdamRows { unit, ..enc };
        let (sae, moments) = (&mut self.sae, &mut self.moments);
        let before = (sae.b_enc.clone(), moments.vectors[0].clone());
        let (params, biases) = sae.parts();
        let rows = [(&grads.w_enc, &enc), (&grads.w_dec, &dec)];
        let mut params = params.into_iter().zip(&mut moments.matrices);
        for (((_, w), m), (grad, step)) in params.by_ref().zip(rows) {
            *w = adam_rows(take(w), m, grad, scale.clone(), step);
        }
        for (((_, w), m), grad) in params.zip(grads.w_skip) {
            let grad = grad * scale.clone().unsqueeze();
            *w = adam.step(t, lr, w.clone(), grad, m);
        }
        for (((_, b), m), grad) in biases.into_iter().zip(&mut moments.vectors).zip(vectors) {
            *b = adam.step(t, lr, b.clone(), grad * scale.clone(), m);
        }
        if let Some(idle) = idle {
            let keep = |new: &Tensor<1>, old| new.clone().mask_where(idle.clone(), old);
            let m = &mut moments.vectors[0];
            sae.b_enc = keep(&sae.b_enc, before.0);
            (m.m, m.v) = (keep(&m.m, before.1.m), keep(&m.v, before.1.v));
        }
    }

    /// What follows the optimiser: thresholds, and the running mean of the weights.
    fn after(&mut self, losses: &Losses) {
        let (t, conventions) = (self.step, &self.config.conventions);
        match (&mut self.sae.activation, &losses.smallest) {
            (Activation::JumpRelu { threshold }, _) => {
                *threshold = threshold.clone().clamp_min(0.0)
            }
            (Activation::BatchTopK { threshold, .. }, Some(smallest))
                if t >= conventions.threshold_start =>
            {
                let rate = match t == conventions.threshold_start {
                    true => 1.0,
                    false => conventions.threshold_rate,
                };
                let none = smallest.clone().is_inf();
                let smallest = smallest.clone().mask_where(none, threshold.clone());
                *threshold = threshold.clone() * (1.0 - rate) + smallest * rate;
            }
            _ => {}
        }
        let (Some(mean), Some(keep)) = (&mut self.ema, self.config.ema) else {
            return;
        };
        // Less at first, so that the start does not linger.
        let keep = keep.min((1.0 + t as f64) / (10.0 + t as f64));
        let (mean, now) = (mean.parts(), self.sae.parts());
        for ((_, mean), (_, w)) in mean.0.into_iter().zip(now.0) {
            *mean = take(mean) * keep + w.clone() * (1.0 - keep);
        }
        for ((_, mean), (_, b)) in mean.1.into_iter().zip(now.1) {
            *mean = mean.clone() * keep + b.clone() * (1.0 - keep);
        }
    }
}

pub(super) fn check_sample(sample: &[f32], d: usize, config: &TrainConfig) -> Result<(), Error> {
    if sample.len() < d || d == 0 {
        return Err(Error::Config(
            "there are no activations to start from".into(),
        ));
    }
    check_width(d, config)
}

/// Refuses rows of a width that the settings cannot take.
pub(super) fn check_width(d: usize, config: &TrainConfig) -> Result<(), Error> {
    if d == 0 || !d.is_multiple_of(config.sites) {
        let text = format!(
            "rows of width {d} do not hold {} activations of equal width",
            config.sites
        );
        return Err(Error::Config(text));
    }
    match &config.architecture {
        Architecture::Matryoshka(_) if config.sites > 1 => Err(Error::Config(
            "a crosscoder cannot be nested: Matryoshka takes one site".into(),
        )),
        _ => Ok(()),
    }
}

fn scaled(centre: &[f32], scale: f64) -> Vec<f32> {
    let times = |m: &f32| (f64::from(*m) * scale) as f32;
    centre.iter().map(times).collect()
}

fn first_diverged(so_far: Tensor<1>, loss: &Tensor<1>, step: u64) -> Tensor<1> {
    let fine = loss
        .clone()
        .is_finite()
        .bool_or(so_far.clone().greater_elem(0.0));
    (so_far.zeros_like() + step as f64).mask_where(fine, so_far)
}

/// A list of dead latents, unless it is empty.
pub(super) fn dead_latents(dead: Vec<i32>, device: &Device) -> Option<Tensor<1, Int>> {
    let m = dead.len();
    (m > 0).then(|| Tensor::from_data(TensorData::new(dead, [m]), (device, DType::I32)))
}

fn silent_after(silent: Tensor<1>, fired: &Tensor<1>, batch: usize) -> Tensor<1> {
    let quiet = fired.clone().equal_elem(0.0).float();
    (silent + batch as f64) * quiet
}

/// `rows` (row-major) as a tensor `[n, d_in]`.
pub(super) fn batch_tensor(rows: Vec<f32>, d_in: usize, device: &Device) -> Tensor<2> {
    let n = rows.len() / d_in;
    Tensor::from_data(TensorData::new(rows, [n, d_in]), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(rows: usize, columns: usize, seed: u32) -> Tensor<2> {
        let value = |i: usize| ((i as f32 + 1.0) * (seed as f32 + 0.7)).sin();
        let values = (0..rows * columns).map(value).collect();
        batch_tensor(values, columns, &Device::flex())
    }

    fn numbers<const D: usize>(x: Tensor<D>) -> Vec<f32> {
        device::block_on(device::read(x)).unwrap()
    }

    /// Eight latents pushed below all others, but not below 0 on every row: only the auxiliary
    /// loss moves them.
    #[test]
    fn a_latent_forced_dead_learns_again() {
        let d = 16;
        let x = random(256, d, 3);
        let learnt = |aux_alpha: f64| {
            let config = TrainConfig {
                batch: 256,
                aux_alpha,
                ..TrainConfig::new(d, 64, 4, 256 * 400)
            };
            let mut trainer =
                Trainer::new(config, &numbers(x.clone()), d, &Device::flex()).unwrap();
            let pushed: Vec<f32> = (0..64).map(|f| if f < 8 { -1.5 } else { 0.0 }).collect();
            trainer.sae.b_enc = Tensor::from_data(TensorData::new(pushed, [64]), &Device::flex());
            trainer.silent = trainer.sae.b_enc.clone() * -1e9;
            device::block_on(trainer.look_for_dead()).unwrap();
            assert_eq!(trainer.dead.as_ref().unwrap().dims(), [8]);
            let before = trainer.sae.clone();
            device::block_on(trainer.step(x.clone())).unwrap();
            let silent = numbers(trainer.silent.clone());
            let still_dead = |f: usize| silent[f] >= trainer.config.dead_after as f32;
            let moved = |a: Tensor<2>, b: Tensor<2>| numbers((a - b).abs().sum_dim(1));
            let encoder = moved(before.w_enc, trainer.sae.w_enc.clone());
            let bias = moved(
                before.b_enc.unsqueeze_dim(1),
                trainer.sae.b_enc.clone().unsqueeze_dim(1),
            );
            (0..8)
                .filter(|&f| still_dead(f))
                .map(|f| (encoder[f] > 0.0, bias[f] > 0.0))
                .collect::<Vec<_>>()
        };
        let (with, without) = (learnt(1.0 / 32.0), learnt(0.0));
        assert!(
            with.len() >= 4 && with.iter().filter(|m| **m == (true, true)).count() >= 4,
            "{with:?}"
        );
        assert!(
            without.len() == with.len() && without.iter().all(|m| *m == (false, false)),
            "{without:?}"
        );
    }
}
