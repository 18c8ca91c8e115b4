use burn::tensor::Tensor;

use crate::hook::{Site, Tap};

/// Layer normalisation (Ba et al. 2016). `hook_scale` is the standard deviation
/// `[batch, pos, 1]`; `hook_normalized` is the output, gain and bias applied.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    /// `[d]`.
    pub weight: Tensor<1>,
    /// `[d]`.
    pub bias: Tensor<1>,
    /// Added to the variance.
    pub eps: f64,
}

impl LayerNorm {
    /// Without hooks.
    pub fn plain(&self, x: Tensor<3>) -> Tensor<3> {
        let (x, scale) = self.centre(x);
        self.gain(x / scale)
    }

    /// With its two hook points.
    pub fn forward(
        &self,
        x: Tensor<3>,
        tap: &mut Tap<'_>,
        scale: Site,
        normalized: Site,
    ) -> Tensor<3> {
        let (x, s) = self.centre(x);
        let s = tap.at(scale, s);
        tap.at(normalized, self.gain(x / s))
    }

    fn centre(&self, x: Tensor<3>) -> (Tensor<3>, Tensor<3>) {
        let x = x.clone() - x.mean_dim(2);
        let scale = (x.clone() * x.clone())
            .mean_dim(2)
            .add_scalar(self.eps)
            .sqrt();
        (x, scale)
    }

    fn gain(&self, x: Tensor<3>) -> Tensor<3> {
        x * self.weight.clone().unsqueeze() + self.bias.clone().unsqueeze()
    }
}

/// Root-mean-square normalisation (Zhang & Sennrich 2019). As in TransformerLens,
/// `hook_normalized` is taken before the gain.
#[derive(Clone, Debug)]
pub struct RmsNorm {
    /// `[d]`.
    pub weight: Tensor<1>,
    /// Added to the mean square.
    pub eps: f64,
}

impl RmsNorm {
    /// With its two hook points.
    pub fn forward(
        &self,
        x: Tensor<3>,
        tap: &mut Tap<'_>,
        scale: Site,
        normalized: Site,
    ) -> Tensor<3> {
        let s = (x.clone() * x.clone())
            .mean_dim(2)
            .add_scalar(self.eps)
            .sqrt();
        let s = tap.at(scale, s);
        let x = tap.at(normalized, x / s);
        x * self.weight.clone().unsqueeze()
    }
}
