use burn::tensor::Tensor;

use super::{Latents, TopK, TrainConfig};
use crate::ops;

/// The gradient of the loss by every parameter.
#[derive(Clone, Debug)]
pub struct Gradients {
    /// `[d_sae, d_in]`.
    pub w_enc: Tensor<2>,
    /// `[d_sae]`.
    pub b_enc: Tensor<1>,
    /// `[d_sae, d_in]`.
    pub w_dec: Tensor<2>,
    /// `[d_in]`.
    pub b_dec: Tensor<1>,
}
/// Loss and gradients of one batch, written out (Gao et al. 2024, section 2 and A.2):
/// `‖x − x̂‖² / Var + α · ‖e − ê‖² / Var(e)`, where `e = x − x̂` is held constant in the
/// auxiliary term and `ê` decodes the `k_aux` largest *dead* latents, without `b_dec`.
///
/// Both terms reach the encoder. `dead` is 1 at dead latents. Returns gradients, latents and
/// (loss, FVU).
pub fn backward(
    sae: &TopK,
    x: Tensor<2>,
    dead: Option<Tensor<1>>,
    config: &TrainConfig,
) -> (Gradients, Latents, (Tensor<1>, Tensor<1>)) {
    let centred = x.clone() - sae.b_dec.clone().unsqueeze();
    let z = centred.clone().matmul(sae.w_enc.clone().transpose()) + sae.b_enc.clone().unsqueeze();
    let aux_z = dead.map(|d| {
        z.clone().mask_fill(
            d.equal_elem(0.0).unsqueeze::<2>().expand(z.dims()),
            f64::NEG_INFINITY,
        )
    });
    let latents = select(z, sae.k);
    let error = x.clone() - sae.decode(&latents);
    let variance = squared_deviation(x);
    let fvu = total(error.clone().square()) / variance.clone();
    let signal = error.clone() * (variance.recip() * -2.0).unsqueeze::<2>();
    let mut grads = through(sae, &latents, &signal, &centred);
    grads.b_dec = grads.b_dec + signal.sum_dim(0).squeeze_dim(0);
    let mut loss = fvu.clone();
    if let Some(z) = aux_z {
        let (aux_loss, aux) = auxiliary(sae, z, error, &centred, config);
        loss = loss + aux_loss;
        grads.w_enc = grads.w_enc + aux.w_enc;
        grads.b_enc = grads.b_enc + aux.b_enc;
        grads.w_dec = grads.w_dec + aux.w_dec;
        grads.b_dec = grads.b_dec + aux.b_dec;
    }
    (grads, latents, (loss, fvu))
}

fn select(z: Tensor<2>, k: usize) -> Latents {
    let (values, indices) = ops::topk(z, k);
    Latents {
        values: values.clamp_min(0.0),
        indices,
    }
}

/// `Σ‖x − x̄‖²`, at least a tiny positive number.
fn squared_deviation(x: Tensor<2>) -> Tensor<1> {
    let mean = x.clone().mean_dim(0);
    total((x - mean).square()).clamp_min(1e-30)
}

/// The sum of all elements, row by row. The CPU backend splits a plain `sum` of over four
/// million elements among threads as they come, so that its last bits differ from run to run.
pub(super) fn total(x: Tensor<2>) -> Tensor<1> {
    x.sum_dim(1).sum()
}

/// Gradients of what a signal `g = ∂loss/∂(Σ values · W_dec)` `[n, d_in]` reaches through the
/// active latents. The part of `b_dec` that comes through the encoder is included.
fn through(sae: &TopK, latents: &Latents, g: &Tensor<2>, centred: &Tensor<2>) -> Gradients {
    let (values, indices) = (latents.values.clone(), latents.indices.clone());
    let d_sae = sae.d_sae();
    let w_dec = ops::sparse_matmul_t(values.clone(), indices.clone(), g.clone(), d_sae);
    let on = values.sign(); // 1 where active: values are at least 0
    let dz = ops::sparse_dot(g.clone(), sae.w_dec.clone(), indices.clone()) * on;
    let w_enc = ops::sparse_matmul_t(dz.clone(), indices.clone(), centred.clone(), d_sae);
    let [n, k] = dz.dims();
    let zeros = sae.b_enc.zeros_like();
    let b_enc = zeros.scatter(
        0,
        indices.reshape([n * k]),
        dz.reshape([n * k]),
        burn::tensor::IndexingUpdateOp::Add,
    );
    let b_dec = b_enc
        .clone()
        .unsqueeze::<2>()
        .matmul(sae.w_enc.clone())
        .squeeze_dim(0)
        .neg();
    Gradients {
        w_enc,
        b_enc,
        w_dec,
        b_dec,
    }
}

fn auxiliary(
    sae: &TopK,
    z: Tensor<2>,
    error: Tensor<2>,
    centred: &Tensor<2>,
    config: &TrainConfig,
) -> (Tensor<1>, Gradients) {
    let latents = select(z, config.k_aux);
    let guess = ops::sparse_decode(
        latents.values.clone(),
        latents.indices.clone(),
        sae.w_dec.clone(),
    );
    let variance = squared_deviation(error.clone());
    let miss = guess - error;
    let loss = total(miss.clone().square()) / variance.clone() * config.aux_alpha;
    let signal = miss * (variance.recip() * (2.0 * config.aux_alpha)).unsqueeze::<2>();
    (loss, through(sae, &latents, &signal, centred))
}
