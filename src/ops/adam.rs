//! Adam in tensor operations, on any tensor.

use burn::tensor::Tensor;

/// Adam with decoupled weight decay (Kingma & Ba 2015, algorithm 1; Loshchilov & Hutter 2019).
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Adam {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled decay, times the learning rate.
    pub weight_decay: f64,
}

impl Default for Adam {
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
        }
    }
}

/// The running moments of one parameter.
#[derive(Clone, Debug)]
pub struct Moments<const D: usize> {
    /// Mean of the gradient.
    pub m: Tensor<D>,
    /// Mean of its square.
    pub v: Tensor<D>,
}

impl<const D: usize> Moments<D> {
    /// Zeros in the shape of `param`.
    pub fn zeros(param: &Tensor<D>) -> Self {
        Self {
            m: param.zeros_like(),
            v: param.zeros_like(),
        }
    }
}

impl Adam {
    /// The parameter after step `t` (the first is 1) at learning rate `lr`.
    ///
    /// Elementwise over tensors of one shape; about a dozen passes over the parameter. For the
    /// weights of an autoencoder see [`adam_rows`](super::adam_rows).
    pub fn step<const D: usize>(
        &self,
        t: u64,
        lr: f64,
        param: Tensor<D>,
        grad: Tensor<D>,
        moments: &mut Moments<D>,
    ) -> Tensor<D> {
        let (b1, b2) = (self.beta1, self.beta2);
        moments.m = moments.m.clone() * b1 + grad.clone() * (1.0 - b1);
        moments.v = moments.v.clone() * b2 + grad.clone() * grad * (1.0 - b2);
        let (c1, c2) = self.corrections(t);
        let denominator = (moments.v.clone() / c2).sqrt() + self.eps;
        param * (1.0 - lr * self.weight_decay) - moments.m.clone() * (lr / c1) / denominator
    }

    /// What the moments are divided by after `t` steps: `1 - β₁ᵗ` and `1 - β₂ᵗ`.
    pub(super) fn corrections(&self, t: u64) -> (f64, f64) {
        let power = t.min(i32::MAX as u64) as i32;
        (1.0 - self.beta1.powi(power), 1.0 - self.beta2.powi(power))
    }
}

/// `min(1, max_norm / ‖g‖)` over the gradients whose squared norms are `squares` (each `[1]`):
/// what to multiply every gradient by so that their joint norm is at most `max_norm`. Stays on
/// the device.
pub fn clip_scale(squares: Vec<Tensor<1>>, max_norm: f64) -> Tensor<1> {
    let norm = Tensor::cat(squares, 0).sum().sqrt();
    (norm + 1e-6).recip().mul_scalar(max_norm).clamp_max(1.0)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    /// The algorithm as the paper prints it, in f64.
    fn oracle(adam: &Adam, lr: f64, grads: &[f64], mut x: f64) -> f64 {
        let (mut m, mut v) = (0.0, 0.0);
        for (i, g) in grads.iter().enumerate() {
            m = adam.beta1 * m + (1.0 - adam.beta1) * g;
            v = adam.beta2 * v + (1.0 - adam.beta2) * g * g;
            let t = i as i32 + 1;
            let (mh, vh) = (
                m / (1.0 - adam.beta1.powi(t)),
                v / (1.0 - adam.beta2.powi(t)),
            );
            x = x - lr * adam.weight_decay * x - lr * mh / (vh.sqrt() + adam.eps);
        }
        x
    }

    #[test]
    fn follows_the_paper() {
        let adam = Adam {
            weight_decay: 0.1,
            ..Adam::default()
        };
        let grads = [0.3, -1.5, 0.02, 7.0];
        let mut x = Tensor::<1>::from_floats([0.5], &Device::flex());
        let mut moments = Moments::zeros(&x);
        for (i, g) in grads.iter().enumerate() {
            let g = Tensor::from_floats([*g as f32], &Device::flex());
            x = adam.step(i as u64 + 1, 0.01, x, g, &mut moments);
        }
        let got = f64::from(x.into_data().try_to_vec::<f32>().unwrap()[0]);
        let want = oracle(&adam, 0.01, &grads, 0.5);
        assert!(
            (got - want).abs() < 4.0 * f64::from(f32::EPSILON),
            "{got} {want}"
        );
    }

    #[test]
    fn clips_to_the_norm_and_leaves_small_gradients() {
        let scale = |squares: &[f32], max| {
            let squares = squares
                .iter()
                .map(|s| Tensor::from_floats([*s], &Device::flex()))
                .collect();
            clip_scale(squares, max)
                .into_data()
                .try_to_vec::<f32>()
                .unwrap()[0]
        };
        assert!((scale(&[9.0, 16.0], 1.0) - 0.2).abs() < 1e-6);
        assert_eq!(scale(&[0.09, 0.16], 1.0), 1.0);
    }
}
