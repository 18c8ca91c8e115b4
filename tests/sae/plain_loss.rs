//! The loss of every architecture in plain tensor operations, for autodiff to differentiate: matrices
//! only, and what the papers hold constant detached.

use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use inscape::sae::{
    Activation, Architecture, AuxNormaliser, Gated, JumpPenalty, JumpRelu, Matryoshka, Now, Sae,
    Standard, TrainConfig,
};

use super::gradients::{kept, largest};
use super::read64;

/// A batch and what is to be made of it.
pub struct Plain<'a> {
    pub sae: &'a Sae,
    pub config: &'a TrainConfig,
    pub now: &'a Now,
    /// `[n, d_in]`.
    pub x: Tensor<2>,
    /// `[n, d_out]`.
    pub y: Tensor<2>,
}

impl Plain<'_> {
    pub fn loss(&self) -> Tensor<1> {
        match (&self.config.architecture, &self.sae.activation) {
            (Architecture::Standard(settings), _) => self.standard(settings),
            (Architecture::TopK { k }, _) => self.topk(*k),
            (Architecture::BatchTopK { k }, _) => {
                let error = self.error(&self.largest_of_batch(*k));
                self.squared(error.clone()) + self.auxiliary(error)
            }
            (Architecture::Matryoshka(settings), _) => self.matryoshka(settings),
            (Architecture::Gated(settings), Activation::Gated { r_mag, b_mag }) => {
                self.gated(settings, [r_mag, b_mag])
            }
            (Architecture::JumpRelu(settings), Activation::JumpRelu { threshold }) => {
                self.jump_relu(settings, threshold)
            }
            _ => unreachable!(),
        }
    }

    /// With p below 1 the penalty is `Σ f^p`, times `Σ f / Σ f^p` held constant.
    fn standard(&self, settings: &Standard) -> Tensor<1> {
        let f = relu(self.z());
        let weighed = |f: Tensor<2>| self.mean(f * self.lengths().unsqueeze());
        let l1 = weighed(f.clone());
        let penalty = match self.now.p {
            1.0 => l1,
            p => {
                let on = f.clone().greater_elem(0.0).float();
                let lp = weighed(f.clone().clamp_min(1e-6).powf_scalar(p) * on);
                let factor = (l1 / lp.clone()).detach();
                lp * factor
            }
        };
        self.squared(self.error(&f)) + penalty * (settings.l1 * self.now.sparsity)
    }

    fn topk(&self, k: usize) -> Tensor<1> {
        let error = |k| self.error(&largest(self.z(), k));
        let multi = self.squared(error(4 * k)) * self.config.conventions.multi_topk;
        self.squared(error(k)) + multi + self.auxiliary(error(k))
    }

    fn matryoshka(&self, settings: &Matryoshka) -> Tensor<1> {
        let f = self.largest_of_batch(settings.k);
        let all = settings.widths.len() + 1;
        let share = if settings.mean { 1.0 / all as f64 } else { 1.0 };
        let inner = |end: usize| {
            let w_dec = self.sae.w_dec.clone().narrow(0, 0, end);
            let y = f.clone().narrow(1, 0, end).matmul(w_dec) + self.beside();
            self.squared(self.y.clone() - y)
        };
        let outer = self.error(&f);
        let inner = settings.widths.iter().copied().map(inner);
        let sum = inner.fold(self.squared(outer.clone()), |a, b| a + b);
        sum * share + self.auxiliary(outer)
    }

    /// Where the auxiliary loss holds the decoder constant, all that writes is.
    fn gated(&self, settings: &Gated, [r_mag, b_mag]: [&Tensor<1>; 2]) -> Tensor<1> {
        let gate = relu(self.z());
        let on = gate.clone().greater_elem(0.0).float();
        let magnitude =
            self.product() * r_mag.clone().exp().unsqueeze() + b_mag.clone().unsqueeze();
        let f = relu(magnitude) * on;
        let auxiliary = match settings.aux_to_decoder {
            true => self.error(&gate),
            false => {
                let held = self.sae.w_dec.clone().detach();
                self.y.clone() - gate.clone().matmul(held) - self.beside().detach()
            }
        };
        let penalty = self.mean(gate * self.lengths().unsqueeze());
        let penalty = penalty * (settings.l1 * self.now.sparsity);
        self.squared(self.error(&f)) + self.squared(auxiliary) + penalty
    }

    /// Steps have the gradient of [`step`].
    fn jump_relu(&self, settings: &JumpRelu, threshold: &Tensor<1>) -> Tensor<1> {
        let z = self.z();
        let theta = threshold.clone().unsqueeze::<2>().expand(z.dims());
        let step = step(z.clone().detach() - theta.clone(), settings.bandwidth);
        // f's gradient by θ is θ times that of the step.
        let on = step.clone().detach();
        let f = z * on + theta.detach() * (step.clone() - step.clone().detach());
        let l0 = self.mean(step);
        let penalty = match settings.penalty {
            JumpPenalty::Step { l0: lambda } => l0 * lambda,
            JumpPenalty::TargetL0 { weight, target } => (l0 / target - 1.0).square() * weight,
            JumpPenalty::Tanh { l0: lambda, scale } => {
                self.mean((f.clone() * self.lengths().unsqueeze() * scale).tanh()) * lambda
            }
        };
        let error = self.error(&f);
        self.squared(error) + penalty * self.now.sparsity + self.pre_act(settings, threshold)
    }

    /// `c/n · Σ ReLU(θ − z) ‖W_dec[j]‖` over the dead latents.
    fn pre_act(&self, settings: &JumpRelu, threshold: &Tensor<1>) -> Tensor<1> {
        let Some(dead) = self.now.dead.clone() else {
            return Tensor::zeros([1], &self.x.device());
        };
        let of = |v: Tensor<1>| v.select(0, dead.clone()).unsqueeze::<2>();
        let short = relu(of(threshold.clone()) - self.z().select(1, dead.clone()));
        self.mean(short * of(self.lengths())) * settings.pre_act
    }

    /// `α · ‖e − ê‖²`: `e` is held constant, `ê` decodes the largest dead latents.
    fn auxiliary(&self, error: Tensor<2>) -> Tensor<1> {
        let Some(dead) = self.now.dead.clone() else {
            return Tensor::zeros([1], &self.x.device());
        };
        let (error, [m], conventions) = (error.detach(), dead.dims(), &self.config.conventions);
        let z = self.z().select(1, dead.clone());
        let kept = kept(&z, self.config.k_aux.min(m));
        let f = if conventions.aux_relu { relu(z) } else { z } * kept;
        let miss = f.matmul(self.sae.w_dec.clone().select(0, dead)) - error.clone();
        let by = match conventions.aux_normaliser {
            AuxNormaliser::Residual => deviation(error),
            AuxNormaliser::Total => deviation(self.y.clone()),
            AuxNormaliser::Rows => deviation(error).ones_like() * self.rows(),
        };
        let share = match conventions.aux_by_share {
            true => (m as f64 / self.config.k_aux as f64).min(1.0),
            false => 1.0,
        };
        miss.square().sum() / by * (self.config.aux_alpha * share)
    }

    fn rows(&self) -> f64 {
        self.x.dims()[0] as f64
    }

    /// `input · W_enc`.
    fn product(&self) -> Tensor<2> {
        let input = match self.sae.subtract_b_dec {
            true => self.x.clone() - self.sae.b_dec.clone().unsqueeze(),
            false => self.x.clone(),
        };
        input.matmul(self.sae.w_enc.clone().transpose())
    }

    fn z(&self) -> Tensor<2> {
        self.product() + self.sae.b_enc.clone().unsqueeze()
    }

    /// What is added to what the latents decode to.
    fn beside(&self) -> Tensor<2> {
        let b_dec = self.sae.b_dec.clone().unsqueeze();
        match self.sae.w_skip.clone() {
            Some(w_skip) => self.x.clone().matmul(w_skip.transpose()) + b_dec,
            None => b_dec,
        }
    }

    fn error(&self, f: &Tensor<2>) -> Tensor<2> {
        self.y.clone() - f.clone().matmul(self.sae.w_dec.clone()) - self.beside()
    }

    /// Of every decoder row, summed over the sites; 1 where they are held at 1.
    fn lengths(&self) -> Tensor<1> {
        if self.config.conventions.unit_decoder {
            return self.sae.b_enc.ones_like().detach();
        }
        let width = self.sae.d_out() / self.sae.sites;
        let length = |site: usize| {
            let w_dec = self.sae.w_dec.clone().narrow(1, site * width, width);
            w_dec.square().sum_dim(1).sqrt().squeeze_dim(1)
        };
        (0..self.sae.sites)
            .map(length)
            .reduce(|a, b| a + b)
            .unwrap()
    }

    /// By rows, as every case counts squared errors.
    fn squared(&self, error: Tensor<2>) -> Tensor<1> {
        self.mean(error.square())
    }

    fn mean(&self, x: Tensor<2>) -> Tensor<1> {
        x.sum() / self.rows()
    }

    /// All latents but the `k · n` largest made 0, ties or not.
    fn largest_of_batch(&self, k: usize) -> Tensor<2> {
        let f = relu(self.z());
        let mut values = read64(f.clone());
        values.sort_by(|a, b| b.total_cmp(a));
        let last = values[k * self.x.dims()[0] - 1];
        let keep = f.clone().greater_equal_elem(last).float();
        f * keep.detach()
    }
}

/// `1[u > 0]` with the gradient `1/ε` within ε/2 of 0.
fn step(u: Tensor<2>, bandwidth: f64) -> Tensor<2> {
    let hard = u.clone().detach().greater_elem(0.0).float();
    let window = u.clone().detach().abs().lower_elem(bandwidth / 2.0).float();
    let soft = u * window / bandwidth;
    hard + soft.clone() - soft.detach()
}

/// `Σ‖x − x̄‖²`.
fn deviation(x: Tensor<2>) -> Tensor<1> {
    let mean = x.clone().mean_dim(0);
    (x - mean).square().sum()
}
