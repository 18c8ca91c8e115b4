//! Blocks that families share. Weights keep Hugging Face's layout, `[d_out, d_in]`.

mod attention;
mod norm;
mod position;

pub use attention::{Attention, attention_mask};
pub use norm::{LayerNorm, RmsNorm};
pub use position::{Rope, RopePairs};

use burn::tensor::{Int, Tensor};

/// `y = x Wᵀ + b`.
#[derive(Clone, Debug)]
pub struct Linear {
    /// `[d_out, d_in]`.
    pub weight: Tensor<2>,
    /// `[d_out]`.
    pub bias: Option<Tensor<1>>,
}

impl Linear {
    /// `x` `[batch, pos, d_in]` to `[batch, pos, d_out]`.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, pos, d_in] = x.dims();
        let y = x
            .reshape([batch * pos, d_in])
            .matmul(self.weight.clone().transpose());
        let y = match &self.bias {
            Some(bias) => y + bias.clone().unsqueeze(),
            None => y,
        };
        let d_out = self.weight.dims()[0];
        y.reshape([batch, pos, d_out])
    }
}

/// Rows of a table `[rows, d]` picked by ids `[batch, pos]`, giving `[batch, pos, d]`.
pub fn embed(table: &Tensor<2>, ids: Tensor<2, Int>) -> Tensor<3> {
    let [batch, pos] = ids.dims();
    let d = table.dims()[1];
    table
        .clone()
        .select(0, ids.reshape([batch * pos]))
        .reshape([batch, pos, d])
}
