use burn::tensor::{Int, Tensor};

use super::{Latents, Sae, TrainConfig};
use crate::ops::{self, Encode, LatentSums};

/// The gradient of the loss by every parameter. Those of the weights are the sums they are made of
/// ([`ops::sparse_matmul_t`] works them out).
#[derive(Clone, Debug)]
pub struct Gradients {
    /// `[d_sae, d_in]`.
    pub w_enc: LatentSums,
    /// `[d_sae]`.
    pub b_enc: Tensor<1>,
    /// `[d_sae, d_in]`.
    pub w_dec: LatentSums,
    /// `[d_in]`.
    pub b_dec: Tensor<1>,
    /// On how many rows each latent was active, those of the auxiliary loss left out: `[d_sae]`. No
    /// gradient, but counted over the same groups.
    pub fired: Tensor<1>,
}

/// Loss and gradients of one batch, written out (Gao et al. 2024, section 2 and A.2):
/// `‖x − x̂‖² / Var + α · ‖e − ê‖² / Var(e)`, where `e = x − x̂` is held constant in the
/// auxiliary term and `ê` decodes the `k_aux` largest *dead* latents, without `b_dec`.
///
/// Both terms reach the encoder. `dead` `[m]` are the dead latents, if there are any. Returns
/// gradients, latents and (loss, FVU).
///
/// Cost: one dense product `[n, d_in] · [d_in, d_sae]` (and one over the dead latents), and sparse
/// products over the active ones. Holds four matrices `[n, d_in]`, `n k` entries and what
/// [`ops::encode_topk`] holds; no `[n, d_sae]` and no `[d_sae, d_in]`, unless a quarter of the
/// latents or more are active, where that is the faster way ([`LatentSums::condensed`]; never with
/// `lazy_adam`). With m dead latents another four `[n, d_in]`, `n k_aux` entries and `[m, d_in]`.
pub fn backward(
    sae: &Sae,
    x: Tensor<2>,
    dead: Option<Tensor<1, Int>>,
    config: &TrainConfig,
) -> (Gradients, Latents, (Tensor<1>, Tensor<1>)) {
    let variance = squared_deviation(x.clone());
    let centred = x - sae.b_dec.clone().unsqueeze();
    let latents = encode(sae, &centred);
    let error = centred.clone() - decode(sae, &latents);
    let fvu = total(error.clone().square()) / variance.clone();
    let signal = error.clone() * (variance.recip() * -2.0).unsqueeze::<2>();
    let b_dec = signal.clone().sum_dim(0).squeeze_dim(0);
    let mut terms = vec![Term::new(sae, latents.clone(), signal)];
    let mut loss = fvu.clone();
    if let Some(dead) = dead {
        let (aux_loss, term) = auxiliary(sae, dead, error, &centred, config);
        loss = loss + aux_loss;
        terms.push(term);
    }
    let mut grads = gradients(sae, terms, centred, b_dec);
    if !config.lazy_adam {
        (grads.w_enc, grads.w_dec) = (grads.w_enc.condensed(), grads.w_dec.condensed());
    }
    (grads, latents, (loss, fvu))
}

fn encode(sae: &Sae, centred: &Tensor<2>) -> Latents {
    let (w_enc, b_enc) = (sae.w_enc.clone(), sae.b_enc.clone());
    let k = sae
        .k()
        .unwrap_or_else(|| unreachable!("checked when training began"));
    let (values, indices) = ops::encode_topk(centred.clone(), w_enc, b_enc, &Encode::new(k));
    Latents { values, indices }
}

/// `Σ values · W_dec[index]`, without `b_dec`.
fn decode(sae: &Sae, latents: &Latents) -> Tensor<2> {
    let (values, indices) = (latents.values.clone(), latents.indices.clone());
    ops::sparse_decode(values, indices, sae.w_dec.clone(), None)
}

/// `Σ‖x − x̄‖²`, at least a tiny positive number.
fn squared_deviation(x: Tensor<2>) -> Tensor<1> {
    let mean = x.clone().mean_dim(0);
    total((x - mean).square()).clamp_min(1e-30)
}

/// The sum of all elements, row by row. The CPU backend splits a plain `sum` of over four
/// million elements among threads as they come, so that its last bits differ from run to run.
fn total(x: Tensor<2>) -> Tensor<1> {
    x.sum_dim(1).sum()
}

/// One term of the loss, by the latents that it reaches.
struct Term {
    latents: Latents,
    /// By the pre-activations of the latents, `[n, k]`: 0 where a latent is not active.
    dz: Tensor<2>,
    /// By `Σ values · W_dec`, `[n, d_in]`.
    signal: Tensor<2>,
}

impl Term {
    fn new(sae: &Sae, latents: Latents, signal: Tensor<2>) -> Self {
        let dz = ops::sparse_dot(signal.clone(), sae.w_dec.clone(), latents.indices.clone());
        let on = latents.values.clone().sign(); // 1 where active: values are at least 0
        Self {
            dz: dz * on,
            latents,
            signal,
        }
    }
}

/// Puts the terms together: the entries of all of them, grouped by latent. The rows of the second
/// term are counted on from those of the first. `b_dec` is its gradient without the encoder's part.
fn gradients(sae: &Sae, terms: Vec<Term>, centred: Tensor<2>, b_dec: Tensor<1>) -> Gradients {
    let (n, d_sae, device) = (centred.dims()[0], sae.d_sae(), centred.device());
    let flat = |x: &Tensor<2>| x.clone().flatten::<1>(0, 1);
    let all = |part: fn(&Term) -> &Tensor<2>| {
        Tensor::cat(terms.iter().map(|t| flat(part(t))).collect(), 0)
    };
    let (values, dz) = (all(|t| &t.latents.values), all(|t| &t.dz));
    let indices = terms
        .iter()
        .map(|t| t.latents.indices.clone().flatten::<1>(0, 1))
        .collect();
    let rows = (0..)
        .zip(&terms)
        .map(|(i, t)| ops::rows_of_entries(i * n, t.dz.dims(), &device));
    let groups = ops::by_latent(
        Tensor::cat(indices, 0),
        Tensor::cat(rows.collect(), 0),
        d_sae,
    );

    let ones = Tensor::ones([terms.len() * n, 1], (&device, centred.dtype()));
    let count = |entries| {
        let sums = LatentSums::new(entries, &groups, ones.clone());
        ops::sparse_matmul_t(&sums).squeeze_dim::<1>(1)
    };
    let active = |(i, t): (usize, &Term)| match i {
        0 => flat(&t.latents.values).sign(), // 1 where active, as above
        _ => flat(&t.latents.values.zeros_like()),
    };
    let active = terms.iter().enumerate().map(active).collect();
    let (b_enc, fired) = (count(dz.clone()), count(Tensor::cat(active, 0)));
    let through_encoder = (b_enc.clone().unsqueeze::<2>()).matmul(sae.w_enc.clone());
    let signals = Tensor::cat(terms.into_iter().map(|t| t.signal).collect(), 0);
    let w_dec = LatentSums::new(values, &groups, signals);
    let mut w_enc = LatentSums::new(dz, &groups, centred);
    w_enc.rows = w_enc.rows.remainder_scalar(n as i64);
    Gradients {
        w_enc,
        b_enc,
        w_dec,
        b_dec: b_dec - through_encoder.squeeze_dim(0),
        fired,
    }
}

/// The auxiliary loss and what it reaches. The dead latents are encoded on their own.
fn auxiliary(
    sae: &Sae,
    dead: Tensor<1, Int>,
    error: Tensor<2>,
    centred: &Tensor<2>,
    config: &TrainConfig,
) -> (Tensor<1>, Term) {
    let (w, b) = (
        sae.w_enc.clone().select(0, dead.clone()),
        sae.b_enc.clone().select(0, dead.clone()),
    );
    let encode = Encode::new(config.k_aux.min(dead.dims()[0]));
    let (values, among_dead) = ops::encode_topk(centred.clone(), w, b, &encode);
    let indices = dead
        .gather(0, among_dead.clone().flatten(0, 1))
        .reshape(among_dead.dims());
    let latents = Latents { values, indices };
    let variance = squared_deviation(error.clone());
    let miss = decode(sae, &latents) - error;
    let loss = total(miss.clone().square()) / variance.clone() * config.aux_alpha;
    let signal = miss * (variance.recip() * (2.0 * config.aux_alpha)).unsqueeze::<2>();
    (loss, Term::new(sae, latents, signal))
}
