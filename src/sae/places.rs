use burn::tensor::{Int, Tensor};

use crate::device::{self, Error};
use crate::ops;

/// Which latents of each row a tensor `[n, k]` speaks of: those listed, or all of them in their order
/// (then k is `d_sae`). Listed is the faster where few are active, and the two mean the same.
#[derive(Clone, Debug)]
pub(super) struct Places(pub(super) Option<Tensor<2, Int>>);

/// Latents a row from which all of them are taken: a dense product over an eighth of them costs about
/// what sparse ones do.
const LISTED_UP_TO: usize = 8;

impl Places {
    /// The places where `x` `[n, d_sae]` is above 0, and `x` there; in a row with fewer of them than
    /// another, some where it is not.
    ///
    /// Reads one number from the device.
    pub(super) async fn above_zero(x: Tensor<2>) -> Result<(Self, Tensor<2>), Error> {
        let [n, d_sae] = x.dims();
        let counts = x.clone().greater_elem(0.0).float().sum_dim(1);
        let most: Vec<f32> = device::read(counts.reshape([n]).max()).await?;
        let k = (most[0] as usize).max(1);
        if k > 1024 || k * LISTED_UP_TO > d_sae {
            return Ok((Self(None), x));
        }
        let (values, places) = ops::topk(x, k);
        Ok((Self(Some(places)), values))
    }

    /// The same places `first` latents further on.
    pub(super) fn shifted(self, first: usize) -> Self {
        Self(self.0.map(|places| places.add_scalar(first as i64)))
    }

    /// A number a latent, at the places: `[n, k]`, or `[1, d_sae]` where that is the same.
    pub(super) fn pick(&self, v: &Tensor<1>) -> Tensor<2> {
        match &self.0 {
            Some(places) => {
                let all = places.clone().flatten::<1>(0, 1);
                v.clone().select(0, all).reshape(places.dims())
            }
            None => v.clone().unsqueeze(),
        }
    }

    /// `x` `[n, d_sae]` at the places.
    pub(super) fn of(&self, x: Tensor<2>) -> Tensor<2> {
        match &self.0 {
            Some(places) => x.gather(1, places.clone()),
            None => x,
        }
    }

    /// `Σ values · w[place]`: `[n, d]`.
    pub(super) fn decode(&self, values: Tensor<2>, w: Tensor<2>) -> Tensor<2> {
        match &self.0 {
            Some(places) => ops::sparse_decode(values, places.clone(), w, None),
            None => values.matmul(w),
        }
    }

    /// `signal · w[place]`: `[n, k]`.
    pub(super) fn dot(&self, signal: Tensor<2>, w: Tensor<2>) -> Tensor<2> {
        match &self.0 {
            Some(places) => ops::sparse_dot(signal, w, places.clone()),
            None => signal.matmul(w.transpose()),
        }
    }

    /// The sum of `values` `[n, k]` by latent: `[d_sae]`.
    pub(super) fn totals(&self, values: Tensor<2>, d_sae: usize) -> Tensor<1> {
        match &self.0 {
            Some(places) => {
                let groups = ops::ByLatent::of(places, d_sae);
                let ones = Tensor::ones([values.dims()[0], 1], (&values.device(), values.dtype()));
                let sums = ops::LatentSums::new(values.flatten(0, 1), &groups, ones);
                ops::sparse_matmul_t(&sums).squeeze_dim(1)
            }
            None => values.sum_dim(0).squeeze_dim(0),
        }
    }
}
