use burn::tensor::{Device, Tensor, TensorData, activation::softmax};

use super::{Linear, Rope};
use crate::hook::{BlockSite, Site, Tap};

/// Multi-head attention, grouped-query where `kv_heads < heads` (Ainslie et al. 2023).
#[derive(Clone, Debug)]
pub struct Attention {
    /// `[heads * d_head, d_model]`.
    pub q: Linear,
    /// `[kv_heads * d_head, d_model]`.
    pub k: Linear,
    /// `[kv_heads * d_head, d_model]`.
    pub v: Linear,
    /// `[d_model, heads * d_head]`.
    pub o: Linear,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head.
    pub d_head: usize,
}

impl Attention {
    /// `x` `[batch, pos, d_model]` to `[batch, pos, d_model]`, before `hook_attn_out`.
    ///
    /// `mask` `[batch or 1, 1, pos or 1, pos]` is added to the scores. Hooks: q, k, v
    /// `[batch, pos, heads, d_head]` (k and v with `kv_heads`), rot_q, rot_k with `rope`,
    /// masked scores and pattern `[batch, heads, pos, pos]`, z `[batch, pos, heads, d_head]`.
    pub fn forward(
        &self,
        x: Tensor<3>,
        rope: Option<&Rope>,
        mask: Option<Tensor<4>>,
        layer: usize,
        tap: &mut Tap<'_>,
    ) -> Tensor<3> {
        self.forward_from([x.clone(), x], rope, mask, layer, tap)
    }

    /// The same where queries and keys read `qk` and values read `x`. Where a model lists
    /// `hook_result`, what each head adds `[batch, pos, heads, d_model]` is made when asked for; the
    /// output is their sum when they are edited, and else what it is without hooks.
    pub fn forward_from(
        &self,
        [qk, x]: [Tensor<3>; 2],
        rope: Option<&Rope>,
        mask: Option<Tensor<4>>,
        layer: usize,
        tap: &mut Tap<'_>,
    ) -> Tensor<3> {
        let at = |s| Site::Block(layer, s);
        let q = tap.at(
            at(BlockSite::Q),
            self.split(&self.q, qk.clone(), self.heads),
        );
        let k = tap.at(at(BlockSite::K), self.split(&self.k, qk, self.kv_heads));
        let v = tap.at(at(BlockSite::V), self.split(&self.v, x, self.kv_heads));
        let (q, k) = match rope {
            Some(rope) => (
                tap.at(at(BlockSite::RotQ), rope.forward(q)),
                tap.at(at(BlockSite::RotK), rope.forward(k)),
            ),
            None => (q, k),
        };
        let scale = 1.0 / (self.d_head as f64).sqrt();
        let keys = self.share(k).swap_dims(1, 2).swap_dims(2, 3);
        let scores = q.mul_scalar(scale).swap_dims(1, 2).matmul(keys);
        let scores = match mask {
            Some(mask) => scores + mask,
            None => scores,
        };
        let scores = tap.at(at(BlockSite::AttnScores), scores);
        let pattern = tap.at(at(BlockSite::Pattern), softmax(scores, 3));
        let z = pattern
            .matmul(self.share(v).swap_dims(1, 2))
            .swap_dims(1, 2);
        let z = tap.at(at(BlockSite::Z), z);
        let [batch, pos, _, _] = z.dims();
        let joined = z.clone().reshape([batch, pos, self.heads * self.d_head]);
        let Some(edited) = tap.wants(at(BlockSite::Result)) else {
            return self.o.forward(joined);
        };
        let result = tap.at(at(BlockSite::Result), self.results(z));
        match edited {
            true => self.sum(result),
            false => self.o.forward(joined),
        }
    }

    /// What each head adds: `z` `[batch, pos, heads, d_head]` times its part of the output matrix.
    fn results(&self, z: Tensor<4>) -> Tensor<4> {
        let d = self.o.weight.dims()[0];
        let w_o = self.o.weight.clone().transpose();
        let w_o = w_o.reshape([1, self.heads, self.d_head, d]);
        z.swap_dims(1, 2).matmul(w_o).swap_dims(1, 2)
    }

    fn sum(&self, results: Tensor<4>) -> Tensor<3> {
        let sum = results.sum_dim(2).squeeze_dim::<3>(2);
        match &self.o.bias {
            Some(bias) => sum + bias.clone().unsqueeze(),
            None => sum,
        }
    }

    fn split(&self, linear: &Linear, x: Tensor<3>, heads: usize) -> Tensor<4> {
        let [batch, pos, _] = x.dims();
        linear.forward(x).reshape([batch, pos, heads, self.d_head])
    }

    /// Repeats each key or value head for its group of query heads.
    fn share(&self, x: Tensor<4>) -> Tensor<4> {
        let group = self.heads / self.kv_heads;
        if group == 1 {
            return x;
        }
        let [batch, pos, kv, d] = x.dims();
        x.unsqueeze_dim::<5>(3)
            .expand([batch, pos, kv, group, d])
            .reshape([batch, pos, kv * group, d])
    }
}

/// What is added to attention scores: `-inf` at keys in the future (if `causal`) and at
/// padded keys (if there is a padding mask `[batch, pos]` of ones and zeros).
///
/// A row whose keys are all masked cannot occur: a row of tokens is never empty, and the
/// padding is on the right.
pub fn attention_mask(
    pos: usize,
    causal: bool,
    padding: Option<Tensor<2>>,
    device: &Device,
) -> Option<Tensor<4>> {
    let future = causal.then(|| {
        let value = |n: usize| {
            if n % pos > n / pos {
                f32::NEG_INFINITY
            } else {
                0.0
            }
        };
        let values: Vec<f32> = (0..pos * pos).map(value).collect();
        Tensor::<4>::from_data(TensorData::new(values, [1, 1, pos, pos]), device)
    });
    let padded = padding.map(|mask| {
        let [batch, pos] = mask.dims();
        let blank = mask.clone().equal_elem(0.0);
        mask.zeros_like()
            .mask_fill(blank, f32::NEG_INFINITY)
            .reshape([batch, 1, 1, pos])
    });
    match (future, padded) {
        (Some(a), Some(b)) => Some(a + b),
        (a, b) => a.or(b),
    }
}
