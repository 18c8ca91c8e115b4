//! What an autoencoder is, whatever trained it; and one file per architecture with its loss.

pub(super) mod batch_topk;
pub(super) mod gated;
pub(super) mod jump_relu;
mod latents;
pub(super) mod matryoshka;
pub(super) mod standard;
pub(super) mod topk;

use burn::tensor::{Tensor, activation::relu};

pub use latents::Latents;

use crate::ops::{self, Ste};

/// A sparse autoencoder or transcoder: `f = activation((x − b_dec) W_enc + b_enc)`,
/// `x̂ = f W_dec + b_dec (+ x W_skipᵀ)`.
///
/// Both weights are held with one row a latent. `d_out` is `d_in`, unless it reads at one place and
/// writes at another.
#[derive(Clone, Debug)]
pub struct Sae {
    /// `W_encᵀ` `[d_sae, d_in]`.
    pub w_enc: Tensor<2>,
    /// `[d_sae]`. With [`Activation::Gated`] the bias of the gate.
    pub b_enc: Tensor<1>,
    /// `[d_sae, d_out]`.
    pub w_dec: Tensor<2>,
    /// `[d_out]`.
    pub b_dec: Tensor<1>,
    /// `[d_out, d_in]`: a skip transcoder adds `x W_skipᵀ` (Paulo, Shabalin & Belrose 2025).
    pub w_skip: Option<Tensor<2>>,
    /// Whether it is a transcoder, which writes something else than what it reads. Widths that differ
    /// and a skip tell as well ([`Sae::is_transcoder`]).
    pub transcoder: bool,
    /// What makes latents of pre-activations.
    pub activation: Activation,
    /// Whether the encoder takes `b_dec` from `x` first. Needs `d_out = d_in`.
    pub subtract_b_dec: bool,
    /// Activations that a row holds side by side, of equal width: 1, or the layers or models of a
    /// crosscoder (Lindsey et al. 2024), which have one latent space and a decoder each.
    pub sites: usize,
}

/// What makes latents of pre-activations `z` `[n, d_sae]`.
#[derive(Clone, Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "one an autoencoder, and its weights are a thousand times as large"
)]
pub enum Activation {
    /// `max(z, 0)` (Bricken et al. 2023).
    Relu,
    /// The `k` largest of a row, those below 0 made 0 (Gao et al. 2024).
    TopK {
        /// Latents kept a row.
        k: usize,
    },
    /// `z · 1[z > θ]` with one θ for all latents: a batch's `k · n` largest when it was trained, the
    /// running mean of their smallest when it is used (Bussmann, Leask & Nanda 2024).
    BatchTopK {
        /// Latents kept a row, on average.
        k: usize,
        /// θ `[1]`.
        threshold: Tensor<1>,
    },
    /// `z · 1[z > θ]` (Rajamanoharan et al. 2024, "Jumping ahead").
    JumpRelu {
        /// θ itself, not its logarithm: `[d_sae]`.
        threshold: Tensor<1>,
    },
    /// `1[z + b_enc > 0] · ReLU(exp(r_mag) · z + b_mag)`, `z` without a bias (Rajamanoharan et al.
    /// 2024, "Gated sparse autoencoders").
    Gated {
        /// `[d_sae]`.
        r_mag: Tensor<1>,
        /// `[d_sae]`.
        b_mag: Tensor<1>,
    },
}

impl Activation {
    /// The architecture's name, as SAELens writes it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Relu => "standard",
            Self::TopK { .. } => "topk",
            Self::BatchTopK { .. } => "batchtopk",
            Self::JumpRelu { .. } => "jumprelu",
            Self::Gated { .. } => "gated",
        }
    }

    /// The same for pre-activations `scale` times as large.
    fn rescale(self, scale: f64) -> Self {
        match self {
            Self::BatchTopK { k, threshold } => Self::BatchTopK {
                k,
                threshold: threshold * scale,
            },
            Self::JumpRelu { threshold } => Self::JumpRelu {
                threshold: threshold * scale,
            },
            Self::Gated { r_mag, b_mag } => Self::Gated {
                r_mag,
                b_mag: b_mag * scale,
            },
            Self::Relu | Self::TopK { .. } => self,
        }
    }
}

impl Sae {
    /// A TopK autoencoder that takes `b_dec` from its input: the plainest.
    pub fn topk([w_enc, w_dec]: [Tensor<2>; 2], [b_enc, b_dec]: [Tensor<1>; 2], k: usize) -> Self {
        Self {
            w_enc,
            b_enc,
            w_dec,
            b_dec,
            w_skip: None,
            transcoder: false,
            activation: Activation::TopK { k },
            subtract_b_dec: true,
            sites: 1,
        }
    }

    /// Width of what it reads.
    pub fn d_in(&self) -> usize {
        self.w_enc.dims()[1]
    }

    /// Width of what it writes.
    pub fn d_out(&self) -> usize {
        self.w_dec.dims()[1]
    }

    /// Number of latents.
    pub fn d_sae(&self) -> usize {
        self.w_dec.dims()[0]
    }

    /// Whether what it writes is something else than what it reads.
    pub fn is_transcoder(&self) -> bool {
        self.transcoder || self.w_skip.is_some() || self.d_in() != self.d_out()
    }

    /// Latents kept a row, where the activation keeps a number of them.
    pub fn k(&self) -> Option<usize> {
        match self.activation {
            Activation::TopK { k } | Activation::BatchTopK { k, .. } => Some(k),
            _ => None,
        }
    }

    /// The latents of `x` `[n, d_in]`.
    ///
    /// Cost: that of [`ops::encode_topk`] for TopK; otherwise a dense product, with `[n, d_sae]`
    /// pre-activations and latents held, and every latent of a row in the result:
    /// [`Latents::compact`] cuts it to those that fire.
    ///
    /// # Panics
    /// If `x` does not have `d_in` columns.
    pub fn encode(&self, x: Tensor<2>) -> Latents {
        let Activation::TopK { k } = self.activation else {
            return Latents::of_dense(self.encode_dense(x));
        };
        let encode = ops::Encode {
            b_dec: self.subtract_b_dec.then(|| self.b_dec.clone()),
            ..ops::Encode::new(k)
        };
        let (values, indices) =
            ops::encode_topk(x, self.w_enc.clone(), self.b_enc.clone(), &encode);
        Latents { values, indices }
    }

    /// The latents of `x` `[n, d_in]` as a matrix `[n, d_sae]`.
    pub fn encode_dense(&self, x: Tensor<2>) -> Tensor<2> {
        if let Activation::TopK { .. } = self.activation {
            return self.encode(x).dense(self.d_sae());
        }
        let x = match self.subtract_b_dec {
            true => x - self.b_dec.clone().unsqueeze(),
            false => x,
        };
        let product = x.matmul(self.w_enc.clone().transpose());
        let z = |product: Tensor<2>| product + self.b_enc.clone().unsqueeze();
        match &self.activation {
            Activation::Relu | Activation::TopK { .. } => relu(z(product)),
            Activation::BatchTopK { threshold, .. } => {
                let threshold = threshold.clone().expand([self.d_sae()]);
                ops::jump_relu(z(product), threshold, Ste::default()).0
            }
            Activation::JumpRelu { threshold } => {
                ops::jump_relu(z(product), threshold.clone(), Ste::default()).0
            }
            Activation::Gated { r_mag, b_mag } => {
                let b_gate = self.b_enc.clone();
                ops::gated(product, r_mag.clone(), b_gate, b_mag.clone()).0
            }
        }
    }

    /// `Σ values · W_dec[index] + b_dec`: `[n, d_out]`. What a skip adds is not in it.
    pub fn decode(&self, latents: &Latents) -> Tensor<2> {
        ops::sparse_decode(
            latents.values.clone(),
            latents.indices.clone(),
            self.w_dec.clone(),
            Some(self.b_dec.clone()),
        )
    }

    /// What it makes of `x` `[n, d_in]`: `[n, d_out]`.
    pub fn reconstruct(&self, x: Tensor<2>) -> Tensor<2> {
        let skipped = self.skip(&x);
        let y = match self.activation {
            Activation::TopK { .. } => self.decode(&self.encode(x)),
            _ => {
                let f = self.encode_dense(x);
                f.matmul(self.w_dec.clone()) + self.b_dec.clone().unsqueeze()
            }
        };
        match skipped {
            Some(skipped) => y + skipped,
            None => y,
        }
    }

    /// `x W_skipᵀ`, if there is a skip.
    pub fn skip(&self, x: &Tensor<2>) -> Option<Tensor<2>> {
        let w_skip = self.w_skip.clone()?;
        Some(x.clone().matmul(w_skip.transpose()))
    }

    /// This autoencoder for inputs and outputs that are `scale` times as large: the same latents,
    /// times `scale`. Exact, since every activation commutes with a positive factor.
    ///
    /// # Panics
    /// Unless `scale` is above 0.
    pub fn rescale(self, scale: f64) -> Self {
        self.rescale_both([scale, scale])
    }

    /// The same for inputs and outputs with a factor each, which must be equal where `b_dec` is taken
    /// from the input.
    ///
    /// # Panics
    /// Unless the factors are above 0, and equal where they must be.
    pub fn rescale_both(mut self, [input, output]: [f64; 2]) -> Self {
        let fits = !self.subtract_b_dec || input == output;
        assert!(
            input > 0.0 && output > 0.0 && fits,
            "rescale: factors {input}, {output}"
        );
        self.b_enc = self.b_enc * input;
        self.b_dec = self.b_dec * output;
        self.activation = self.activation.rescale(input);
        if input != output {
            self.w_dec = self.w_dec * (output / input);
            self.w_skip = self.w_skip.map(|w| w * (output / input));
        }
        self
    }

    /// The parameters by name: matrices (the skip last), and vectors (those of the activation last).
    pub(super) fn parts(&mut self) -> (Parts<'_, 2>, Parts<'_, 1>) {
        let mut matrices = vec![("w_enc", &mut self.w_enc), ("w_dec", &mut self.w_dec)];
        matrices.extend(self.w_skip.as_mut().map(|w| ("w_skip", w)));
        let mut vectors = vec![("b_enc", &mut self.b_enc), ("b_dec", &mut self.b_dec)];
        match &mut self.activation {
            Activation::Relu | Activation::TopK { .. } => {}
            Activation::BatchTopK { threshold, .. } | Activation::JumpRelu { threshold } => {
                vectors.push(("threshold", threshold));
            }
            Activation::Gated { r_mag, b_mag } => {
                vectors.extend([("r_mag", r_mag), ("b_mag", b_mag)]);
            }
        }
        (matrices, vectors)
    }
}

/// Parameters by name.
type Parts<'a, const D: usize> = Vec<(&'static str, &'a mut Tensor<D>)>;

/// Rows of unit length.
pub(crate) fn unit_rows(w: Tensor<2>) -> Tensor<2> {
    let norm = w.clone().square().sum_dim(1).sqrt().clamp_min(1e-12);
    w / norm
}
