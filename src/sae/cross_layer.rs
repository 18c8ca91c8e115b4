//! Cross-layer transcoders (Ameisen et al. 2025, "Circuit tracing: revealing computational graphs in
//! language models", section 2; Lindsey et al. 2024): the latents of a layer read what its MLP reads,
//! and write to what that MLP and those of all later layers write.

use burn::tensor::{Device, Tensor};

use super::config::Architecture;
use super::end_to_end::EndToEndPass;
use super::loss::{
    Found, Judge, Judged, Losses, Pass, gradients, squared, squared_deviation, squares_scale, total,
};
use super::train::{TRANSCODER_BIAS, check_sample, check_width};
use super::{Error, Gradients, Sae, StepStats, TrainConfig, Trainer, init};
use crate::ops::clip_scale;

/// A cross-layer transcoder of L layers: `f_l = activation(x_l W_encˡ + b_encˡ)`,
/// `ŷ_m = b_decᵐ + Σ_{l ≤ m} f_l W_dec^{l→m}`.
///
/// Layer l is a transcoder whose rows of `W_dec` `[d_sae, (L − l) · d_out]` hold side by side what it
/// writes to the layers l, l + 1, …, and whose `b_dec` is 0 but for its own layer.
#[derive(Clone, Debug)]
pub struct CrossLayer {
    layers: Vec<Sae>,
}

impl CrossLayer {
    /// Of its layers, first to last.
    ///
    /// # Errors
    /// [`Error::Config`] names a layer whose widths do not fit the others, or that has a skip or takes
    /// `b_dec` from its input.
    pub fn new(layers: Vec<Sae>) -> Result<Self, Error> {
        let Some(last) = layers.last() else {
            return bad("a cross-layer transcoder has a layer".into());
        };
        let (d_in, d_out, count) = (last.d_in(), last.d_out(), layers.len());
        for (l, sae) in layers.iter().enumerate() {
            let sites = count - l;
            if sae.w_skip.is_some() || sae.subtract_b_dec {
                return bad(format!(
                    "layer {l}: a cross-layer transcoder has no skip and takes no b_dec from its input"
                ));
            }
            if sae.d_in() != d_in || sae.d_out() != sites * d_out || sae.sites != sites {
                return bad(format!(
                    "layer {l} of {count} reads {} and writes {} to {} layers: {d_in} and {} are needed",
                    sae.d_in(),
                    sae.d_out(),
                    sae.sites,
                    sites * d_out
                ));
            }
        }
        Ok(Self { layers })
    }

    /// Its layers, first to last.
    pub fn layers(&self) -> &[Sae] {
        &self.layers
    }

    /// Width of what a layer reads.
    pub fn d_in(&self) -> usize {
        self.layers[0].d_in()
    }

    /// Width of what is written to a layer.
    pub fn d_out(&self) -> usize {
        self.layers[0].d_out() / self.layers.len()
    }

    /// What it makes of `x` `[n, L · d_in]`, which all layers read side by side: `[n, L · d_out]`.
    ///
    /// Cost: the encoder and the decoder of every layer; holds the latents of one layer.
    ///
    /// # Panics
    /// If `x` has another width.
    pub fn reconstruct(&self, x: Tensor<2>) -> Tensor<2> {
        self.check_width(&x);
        let layers = self.layers.iter().enumerate();
        self.sum(layers.map(|(l, sae)| sae.reconstruct(column_block(&x, l, self.d_in()))))
    }

    /// What is written to each layer, side by side, of what every layer writes.
    pub(super) fn sum(&self, written: impl Iterator<Item = Tensor<2>>) -> Tensor<2> {
        let d_out = self.d_out();
        let mut made: Vec<Option<Tensor<2>>> = vec![None; self.layers.len()];
        for (l, written) in written.enumerate() {
            for (site, sum) in made[l..].iter_mut().enumerate() {
                let part = column_block(&written, site, d_out);
                *sum = Some(sum.take().map_or(part.clone(), |sum| sum + part));
            }
        }
        Tensor::cat(made.into_iter().flatten().collect(), 1)
    }

    fn check_width(&self, x: &Tensor<2>) {
        let wanted = self.layers.len() * self.d_in();
        assert!(
            x.dims()[1] == wanted,
            "cross-layer transcoder: x {:?} for {} layers of width {}",
            x.dims(),
            self.layers.len(),
            self.d_in()
        );
    }
}

/// Columns `width · i` to `width · (i + 1)`.
pub(super) fn column_block(x: &Tensor<2>, i: usize, width: usize) -> Tensor<2> {
    x.clone().narrow(1, i * width, width)
}

/// The state of a cross-layer transcoder's training: one [`Trainer`] a layer, with losses and clipping
/// in common.
///
/// The loss is that of the layers' architecture: the squared error over all that is written, and each
/// layer's own penalty, which weighs a latent by the summed lengths of what it writes to each layer.
/// (Ameisen et al. weigh by the length of all of it side by side.) Every gradient is exact, the errors
/// being those of all layers together; in the second reconstructions of Gated and Multi-TopK the other
/// layers are held constant. The auxiliary loss of a layer explains what is left where it writes.
#[derive(Clone, Debug)]
pub struct CrossLayerTrainer {
    pub(super) layers: Vec<Trainer>,
    pub(super) config: TrainConfig,
}

impl CrossLayerTrainer {
    /// A fresh run. `config.sites` is the number of layers and `config.d_sae` the latents of each;
    /// `sample` and `target` (row-major) hold what the layers read and are to write side by side.
    /// Every layer has a scale of its own for each.
    ///
    /// # Errors
    /// [`Error::Config`] names a setting that cannot work.
    pub fn new(
        config: TrainConfig,
        (sample, width_in): (&[f32], usize),
        (target, width_out): (&[f32], usize),
        device: &Device,
    ) -> Result<Self, Error> {
        check(&config, [width_in, width_out])?;
        check_sample(sample, width_in, &config)?;
        check_sample(target, width_out, &config)?;
        let layer = |l: usize| {
            let (x, d_in) = columns(sample, width_in, l, config.sites);
            let (y, d_out) = columns(target, width_out, l, config.sites);
            let scale = |rows: &[f32], d: usize| {
                let centre = init::bias(rows, d, config.conventions.b_dec);
                let scale = init::input_scale(rows, &centre, config.conventions.input_scale);
                (centre, scale)
            };
            let (centre, out) = scale(&y, d_out);
            let mut b_dec: Vec<f32> = centre
                .iter()
                .map(|m| (f64::from(*m) * out) as f32)
                .collect();
            b_dec.resize((config.sites - l) * d_out, 0.0);
            let config = of_layer(&config, l);
            let sae = init::start(&config, (d_in, true), b_dec, device);
            Trainer::at(sae, config, [scale(&x, d_in).1, out], 0)
        };
        let layers = (0..config.sites).map(layer).collect();
        Ok(Self { layers, config })
    }

    /// The transcoder, acting on inputs as they were given.
    pub fn transcoder(&self) -> CrossLayer {
        let columns = self.output_columns(|scale| 1.0 / scale);
        let [width] = columns.dims();
        let layer = |trainer: &Trainer| {
            let sae = trainer.ema.as_ref().unwrap_or(&trainer.sae).clone();
            let sae = sae.rescale_both([1.0 / trainer.scale[0], 1.0]);
            let columns = columns.clone().narrow(0, width - sae.d_out(), sae.d_out());
            Sae {
                w_dec: sae.w_dec * columns.clone().unsqueeze(),
                b_dec: sae.b_dec * columns,
                ..sae
            }
        };
        CrossLayer {
            layers: self.layers.iter().map(layer).collect(),
        }
    }

    /// Steps done.
    pub fn steps_done(&self) -> u64 {
        self.layers[0].steps_done()
    }

    /// What the last step did: the losses of all layers together, L0 and dead share of a layer on
    /// average.
    ///
    /// # Errors
    /// The device failed, or [`Error::Diverged`].
    pub async fn stats(&self) -> Result<StepStats, Error> {
        let mut all = Vec::new();
        for layer in &self.layers {
            all.push(layer.stats().await?);
        }
        let sum = |of: &dyn Fn(&StepStats) -> f64| all.iter().map(of).sum::<f64>();
        let n = all.len() as f64;
        Ok(StepStats {
            step: all[0].step,
            loss: sum(&|s| s.loss),
            fvu: all[0].fvu,
            l0: sum(&|s| s.l0) / n,
            dead_share: sum(&|s| s.dead_share) / n,
        })
    }

    /// One step on `x` `[batch, L · d_in]` and `y` `[batch, L · d_out]`.
    ///
    /// Cost: as [`Trainer::step_to`] for every layer; the gradients of all layers are held at once,
    /// as sums of entries or as matrices ([`LatentSums::condensed`](crate::ops::LatentSums::condensed)), and for each
    /// layer the errors where it writes: `L (L + 1) / 2` matrices `[batch, d_out]`.
    ///
    /// # Errors
    /// The device failed.
    ///
    /// # Panics
    /// If the widths do not fit.
    pub async fn step(&mut self, x: Tensor<2>, y: Tensor<2>) -> Result<(), Error> {
        self.step_judged(x, y, None).await
    }

    /// One step on what the model makes of all that is written, in the place of the squared error
    /// ([`EndToEnd`](super::EndToEnd)).
    ///
    /// # Errors
    /// The device failed.
    ///
    /// # Panics
    /// If the widths do not fit, or the same is to be written as was read.
    pub async fn step_end_to_end(&mut self, pass: &EndToEndPass<'_>) -> Result<(), Error> {
        let scales = self.output_columns(|scale| scale);
        let judge = |made: Tensor<2>| {
            let (loss, signal) = pass.judge(made / scales.clone().unsqueeze());
            (loss, signal / scales.clone().unsqueeze())
        };
        let y = pass.y().expect("a transcoder writes something else");
        self.step_judged(pass.x().clone(), y.clone(), Some(&judge))
            .await
    }

    /// A number for each column of what is written, made of what it is multiplied by while training.
    fn output_columns(&self, of: impl Fn(f64) -> f64) -> Tensor<1> {
        let last = &self.layers[self.layers.len() - 1].sae;
        let layers = self.layers.iter();
        let columns = layers.flat_map(|t| std::iter::repeat_n(of(t.scale[1]) as f32, last.d_out()));
        let columns: Vec<f32> = columns.collect();
        Tensor::from_data(&columns[..], &last.b_enc.device())
    }

    async fn step_judged(
        &mut self,
        x: Tensor<2>,
        y: Tensor<2>,
        judge: Option<&Judge<'_>>,
    ) -> Result<(), Error> {
        let batch = x.dims()[0];
        let (x, y) = (self.blocks(&x, 0), self.blocks(&y, 1));
        self.layers.iter_mut().for_each(|t| t.step += 1);
        let steps = self.backward(x, y, judge).await?;
        let squares = self.layers.iter().zip(&steps);
        let squares = squares.flat_map(|(t, (g, _))| t.squares(g)).collect();
        let clip = clip_scale(squares, self.config.clip);
        for (trainer, (grads, losses)) in self.layers.iter_mut().zip(steps) {
            trainer.learn(grads, &losses, batch, clip.clone()).await?;
        }
        Ok(())
    }

    /// What each layer reads (`side` 0) or is to write (1), scaled.
    fn blocks(&self, all: &Tensor<2>, side: usize) -> Vec<Tensor<2>> {
        let ([n, width], count) = (all.dims(), self.layers.len());
        let last = &self.layers[count - 1].sae;
        let d = [last.d_in(), last.d_out()][side];
        assert!(
            width == count * d,
            "cross-layer step: [{n}, {width}] for {count} layers of width {d}"
        );
        let layers = self.layers.iter().enumerate();
        let block = |(l, t): (usize, &Trainer)| column_block(all, l, d) * t.scale[side];
        layers.map(block).collect()
    }

    async fn backward(
        &self,
        x: Vec<Tensor<2>>,
        y: Vec<Tensor<2>>,
        judge: Option<&Judge<'_>>,
    ) -> Result<Vec<(Gradients, Losses)>, Error> {
        let [n, d_out] = y[0].dims();
        let nows: Vec<_> = self.layers.iter().map(Trainer::now).collect();
        let variance = sum(y.iter().map(|y| squared_deviation(y.clone())));
        let reduction = self.config.conventions.reduction;
        let scale = squares_scale(reduction, &variance, [n, d_out * y.len()]);
        let layers = self.layers.iter().zip(x).zip(&nows);
        let mut passes: Vec<Pass> = layers
            .map(|((t, x), now)| Pass::of_layer(&t.sae, x, now, &t.config, &variance, &scale))
            .collect();

        let wanted = judge.map(|_| Tensor::cat(y.clone(), 1));
        let (mut found, mut errors) = (Vec::new(), y);
        for (l, pass) in passes.iter().enumerate() {
            let latents: Found = pass.encode().await?;
            let written = latents
                .at
                .decode(latents.values.clone(), pass.sae.w_dec.clone())
                + pass.sae.b_dec.clone().unsqueeze();
            for (site, error) in errors[l..].iter_mut().enumerate() {
                *error = error.clone() - column_block(&written, site, d_out);
            }
            found.push(latents);
        }
        let squares = sum(errors.iter().map(|e| total(e.clone().square())));
        let fvu = squares / variance.clone();
        let all = Tensor::cat(errors, 1);
        let (mut loss, signal) = match (judge, wanted) {
            (Some(judge), Some(wanted)) => judge(wanted - all.clone()),
            _ => squared(&all, &scale),
        };
        let again = reconstructs_again(&self.config);
        let mut steps = Vec::new();
        for (l, (pass, found)) in passes.iter_mut().zip(found).enumerate() {
            let own = |x: &Tensor<2>| x.clone().narrow(1, l * d_out, x.dims()[1] - l * d_out);
            let judged = Judged {
                error: own(&all),
                loss: loss.clone(),
                signal: own(&signal),
            };
            loss = loss.zeros_like(); // counted once
            pass.wanted = judged.error.clone(); // of the others only its shape is needed
            if again {
                let written = found
                    .at
                    .decode(found.values.clone(), pass.sae.w_dec.clone());
                pass.wanted = pass.wanted.clone() + written;
            }
            let outcome = pass.finish(found, judged);
            let losses = Losses {
                loss: outcome.loss.clone(),
                fvu: fvu.clone(),
                smallest: outcome.smallest.clone(),
            };
            let mut grads = gradients(pass, outcome).condensed(pass.config.lazy_adam);
            grads.b_dec = of_own_layer(grads.b_dec, d_out);
            steps.push((grads, losses));
        }
        Ok(steps)
    }
}

fn sum(all: impl Iterator<Item = Tensor<1>>) -> Tensor<1> {
    all.reduce(|a, b| a + b).expect("there is a layer")
}

/// The gradient of a bias that is held at 0 but for its own layer.
fn of_own_layer(grad: Tensor<1>, d_out: usize) -> Tensor<1> {
    let width = grad.dims()[0];
    if width == d_out {
        return grad;
    }
    let rest = grad.clone().narrow(0, d_out, width - d_out).zeros_like();
    Tensor::cat(vec![grad.narrow(0, 0, d_out), rest], 0)
}

/// The settings of a layer: it writes to those that are left, and has draws of its own.
pub(super) fn of_layer(config: &TrainConfig, l: usize) -> TrainConfig {
    TrainConfig {
        sites: config.sites - l,
        cross_layer: false,
        seed: config.seed ^ (l as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15),
        ..config.clone()
    }
}

/// Column block `i` of `count` of the rows, and its width.
fn columns(rows: &[f32], width: usize, i: usize, count: usize) -> (Vec<f32>, usize) {
    let d = width / count;
    let rows = rows.chunks_exact(width);
    (
        rows.flat_map(|row| &row[i * d..(i + 1) * d])
            .copied()
            .collect(),
        d,
    )
}

/// Whether the loss has a second reconstruction: then the other layers are held constant in it.
fn reconstructs_again(config: &TrainConfig) -> bool {
    let multi = config.conventions.multi_topk > 0.0;
    matches!(config.architecture, Architecture::Gated(_)) || multi
}

/// Refuses what no cross-layer transcoder can be trained with.
pub(super) fn check(config: &TrainConfig, widths: [usize; 2]) -> Result<(), Error> {
    config.check()?;
    for width in widths {
        check_width(width, config)?;
    }
    match config {
        TrainConfig {
            end_to_end: Some(_),
            ..
        } if reconstructs_again(config) => bad(
            "end to end a cross-layer transcoder has one reconstruction: no Gated, no multi_topk"
                .into(),
        ),
        TrainConfig {
            architecture: Architecture::Matryoshka(_),
            ..
        } => bad("a cross-layer transcoder cannot be nested: Matryoshka reads at one place".into()),
        TrainConfig { skip: true, .. } => bad("a cross-layer transcoder has no skip".into()),
        TrainConfig {
            resample_every: Some(_),
            ..
        } => bad("resample_every: a cross-layer transcoder's latents are not started anew".into()),
        config if config.conventions.subtract_b_dec => bad(TRANSCODER_BIAS.into()),
        _ => Ok(()),
    }
}

fn bad<T>(text: String) -> Result<T, Error> {
    Err(Error::Config(text))
}

#[cfg(test)]
mod tests;
