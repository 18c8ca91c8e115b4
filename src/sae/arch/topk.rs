use burn::tensor::{Int, Tensor};

use crate::ops;

/// The active latents of a batch: `values [n, k]` at `indices [n, k]` of `d_sae`, values
/// falling along a row and zero where fewer than k are active.
#[derive(Clone, Debug)]
pub struct Latents {
    /// Activations, at least 0.
    pub values: Tensor<2>,
    /// Which latents.
    pub indices: Tensor<2, Int>,
}

/// The k-sparse autoencoder of Gao et al. 2024 (eq. 2):
/// `z = TopK((x − b_dec) W_enc + b_enc)`, `x̂ = ReLU(z) W_dec + b_dec`.
///
/// Decoder rows have unit length. Both weights are held as `[d_sae, d_in]`, one row a latent.
#[derive(Clone, Debug)]
pub struct TopK {
    /// `W_encᵀ` `[d_sae, d_in]`.
    pub w_enc: Tensor<2>,
    /// `[d_sae]`.
    pub b_enc: Tensor<1>,
    /// `[d_sae, d_in]`.
    pub w_dec: Tensor<2>,
    /// `[d_in]`.
    pub b_dec: Tensor<1>,
    /// Latents kept a row.
    pub k: usize,
}

impl TopK {
    /// Width of the activations.
    pub fn d_in(&self) -> usize {
        self.w_dec.dims()[1]
    }

    /// Number of latents.
    pub fn d_sae(&self) -> usize {
        self.w_dec.dims()[0]
    }

    /// The k largest pre-activations of each row of `x` `[n, d_in]`, ReLU'd.
    ///
    /// Cost: that of [`ops::encode_topk`]; the pre-activations are never held whole.
    pub fn encode(&self, x: Tensor<2>) -> Latents {
        let encode = ops::Encode {
            b_dec: Some(self.b_dec.clone()),
            ..ops::Encode::new(self.k)
        };
        let (values, indices) =
            ops::encode_topk(x, self.w_enc.clone(), self.b_enc.clone(), &encode);
        Latents { values, indices }
    }

    /// `Σ values · W_dec[index] + b_dec`: `[n, d_in]`.
    pub fn decode(&self, latents: &Latents) -> Tensor<2> {
        ops::sparse_decode(
            latents.values.clone(),
            latents.indices.clone(),
            self.w_dec.clone(),
            Some(self.b_dec.clone()),
        )
    }

    /// The reconstruction of `x` `[n, d_in]`.
    pub fn reconstruct(&self, x: Tensor<2>) -> Tensor<2> {
        self.decode(&self.encode(x))
    }

    /// This autoencoder for inputs that are `scale` times as large: the same latents, times
    /// `scale`. Exact, since ReLU and top-k commute with a positive factor.
    pub fn rescale(mut self, scale: f64) -> Self {
        assert!(scale > 0.0, "rescale: factor {scale}");
        self.b_enc = self.b_enc * scale;
        self.b_dec = self.b_dec * scale;
        self
    }
}

/// Rows of unit length.
pub(crate) fn unit_rows(w: Tensor<2>) -> Tensor<2> {
    let norm = w.clone().square().sum_dim(1).sqrt().clamp_min(1e-12);
    w / norm
}
