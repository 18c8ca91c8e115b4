use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::loss::{Gradients, backward};
use super::{Error, Sae, TrainConfig, init};
use crate::device;
use crate::ops::{AdamRows, Moments, adam_rows, clip_scale, grad_squares, take};

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
    pub(super) sae: Sae,
    pub(super) config: TrainConfig,
    /// What inputs are multiplied by.
    pub(super) scale: f64,
    pub(super) step: u64,
    pub(super) moments: AllMoments,
    /// Activations since each latent last fired `[d_sae]`.
    pub(super) silent: Tensor<1>,
    /// The latents that were dead when last looked at, if any.
    pub(super) dead: Option<Tensor<1, Int>>,
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
    pub(super) fn zeros(sae: &Sae) -> Self {
        Self {
            w_enc: Moments::zeros(&sae.w_enc),
            b_enc: Moments::zeros(&sae.b_enc),
            w_dec: Moments::zeros(&sae.w_dec),
            b_dec: Moments::zeros(&sae.b_dec),
        }
    }
}

/// Every so many steps the dead latents are read back; the auxiliary loss acts on them until then.
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

    pub(super) fn at(sae: Sae, config: TrainConfig, scale: f64, step: u64) -> Self {
        let silent = Tensor::zeros([sae.d_sae()], &sae.b_enc.device());
        let moments = AllMoments::zeros(&sae);
        Self {
            sae,
            config,
            scale,
            step,
            moments,
            silent,
            dead: None,
            last: None,
        }
    }

    /// The autoencoder, acting on inputs as they were given.
    pub fn sae(&self) -> Sae {
        self.sae.clone().rescale(1.0 / self.scale)
    }

    /// What inputs are multiplied by before training on them.
    pub fn scale(&self) -> f64 {
        self.scale
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
    /// which latents are dead.
    ///
    /// Cost: one dense product (and one over the dead latents), sparse products over the active
    /// latents, and two passes over the weights, one of them over the moments too. Holds what
    /// [`backward`] holds; weights and moments change in place.
    ///
    /// # Errors
    /// The device failed.
    ///
    /// # Panics
    /// If `x` does not have `d_in` columns.
    pub async fn step(&mut self, x: Tensor<2>) -> Result<(), Error> {
        let [batch, d_in] = x.dims();
        assert!(
            d_in == self.sae.d_in(),
            "sae step: x [{batch}, {d_in}] for d_in = {}",
            self.sae.d_in()
        );
        self.step += 1;
        let dead = self.dead.clone();
        let (grads, latents, losses) = backward(&self.sae, x * self.scale, dead, &self.config);
        self.silent = silent_after(self.silent.clone(), &grads.fired, batch);
        self.update(grads);
        let active = latents.values.greater_elem(0.0).float().sum() / batch as f64;
        self.last = Some((losses.0, losses.1, active));
        if self.step.is_multiple_of(DEAD_EVERY) {
            self.look_for_dead().await?;
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

    fn update(&mut self, grads: Gradients) {
        let (sae, moments) = (&mut self.sae, &mut self.moments);
        let squares = vec![
            grad_squares(&grads.w_enc, None).sum(),
            grads.b_enc.clone().square().sum(),
            grad_squares(&grads.w_dec, Some(&sae.w_dec)).sum(),
            grads.b_dec.clone().square().sum(),
        ];
        let scale = clip_scale(squares, self.config.clip);
        let (adam, t, lr) = (self.config.adam, self.step, self.config.lr_at(self.step));
        let enc = AdamRows {
            adam,
            t,
            lr,
            unit: false,
            lazy: self.config.lazy_adam,
        };
        let dec = AdamRows { unit: true, ..enc };
        let (w_enc, w_dec) = (take(&mut sae.w_enc), take(&mut sae.w_dec));
        sae.w_enc = adam_rows(w_enc, &mut moments.w_enc, &grads.w_enc, scale.clone(), &enc);
        sae.w_dec = adam_rows(w_dec, &mut moments.w_dec, &grads.w_dec, scale.clone(), &dec);
        let (b_enc, b_dec) = (grads.b_enc * scale.clone(), grads.b_dec * scale);
        let before = (sae.b_enc.clone(), moments.b_enc.clone());
        sae.b_enc = adam.step(t, lr, sae.b_enc.clone(), b_enc, &mut moments.b_enc);
        if self.config.lazy_adam {
            let idle = grads.w_enc.idle();
            let keep = |new: &Tensor<1>, old| new.clone().mask_where(idle.clone(), old);
            sae.b_enc = keep(&sae.b_enc, before.0);
            moments.b_enc.m = keep(&moments.b_enc.m, before.1.m);
            moments.b_enc.v = keep(&moments.b_enc.v, before.1.v);
        }
        sae.b_dec = adam.step(t, lr, sae.b_dec.clone(), b_dec, &mut moments.b_dec);
    }
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
