use burn::tensor::{Int, Tensor};

use crate::device::{self, Error};
use crate::ops;

/// The latents of a batch: `values [n, k]` at `indices [n, k]` of `d_sae`, 0 where fewer than k are
/// active.
#[derive(Clone, Debug)]
pub struct Latents {
    /// Activations.
    pub values: Tensor<2>,
    /// Which latents.
    pub indices: Tensor<2, Int>,
}

impl Latents {
    /// All latents of every row, from their matrix `[n, d_sae]`.
    pub fn of_dense(values: Tensor<2>) -> Self {
        let [n, d_sae] = values.dims();
        let all = Tensor::<1, Int>::arange(0..d_sae as i64, &values.device());
        Self {
            values,
            indices: all.unsqueeze::<2>().expand([n, d_sae]),
        }
    }

    /// The latents as a matrix `[n, d_sae]`, which it holds.
    pub fn dense(&self, d_sae: usize) -> Tensor<2> {
        let [n, _] = self.values.dims();
        let zeros = Tensor::zeros([n, d_sae], &self.values.device());
        let (values, indices) = (self.values.clone(), self.indices.clone());
        zeros.scatter(1, indices, values, burn::tensor::IndexingUpdateOp::Add)
    }

    /// The largest latents of each row, as many as the fullest row has above 0 (at least one, and at
    /// most 1,024): values falling along a row.
    ///
    /// # Errors
    /// The device failed.
    pub async fn compact(self) -> Result<Self, Error> {
        let [_, k] = self.values.dims();
        let counts = self.values.clone().greater_elem(0.0).float().sum_dim(1);
        let counts: Vec<f32> = device::read(counts).await?;
        let most = counts.into_iter().fold(1.0, f32::max) as usize;
        if most >= k || most > 1024 {
            return Ok(self);
        }
        let (values, places) = ops::topk(self.values, most);
        Ok(Self {
            values,
            indices: self.indices.gather(1, places),
        })
    }
}
