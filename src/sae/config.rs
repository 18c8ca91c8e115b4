use serde::{Deserialize, Serialize};

use super::format::WeightDtype;
use super::{EndToEnd, Error};
use crate::ops::Adam;

/// What is trained. Its own file under `arch` has the loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum Architecture {
    /// ReLU with an L1 penalty, or one that is annealed from L1 to Lp.
    Standard(Standard),
    /// Gated.
    Gated(Gated),
    /// The k largest latents of a row (Gao et al. 2024).
    ///
    /// The k-sparse autoencoder of Makhzani & Frey (2013) is this without what came later:
    ///
    /// ```
    /// use inscape::sae::{BiasStart, Conventions, InputScale, Reduction, TrainConfig};
    ///
    /// let k_sparse = TrainConfig {
    ///     k_start: Some(100), // all latents, falling to k over half the run
    ///     k_anneal: 0.5,
    ///     aux_alpha: 0.0,
    ///     conventions: Conventions {
    ///         subtract_b_dec: false,
    ///         unit_decoder: false,
    ///         decoder_norm: 0.1,
    ///         reduction: Reduction::Rows,
    ///         input_scale: InputScale::None,
    ///         b_dec: BiasStart::Zero,
    ///         ..Conventions::default()
    ///     },
    ///     ..TrainConfig::new(64, 100, 10, 100_000)
    /// };
    /// k_sparse.check()?;
    /// assert_eq!((k_sparse.k_at(1), k_sparse.k_at(k_sparse.steps())), (96, 10));
    /// # Ok::<(), inscape::sae::Error>(())
    /// ```
    ///
    /// The paper ties the decoder to the encoder, which here only start as one, and keeps activations
    /// below 0 where fewer than k are above.
    #[serde(rename = "topk")]
    TopK {
        /// Latents kept a row.
        k: usize,
    },
    /// The k · n largest latents of a batch.
    #[serde(rename = "batch_topk")]
    BatchTopK {
        /// Latents kept a row, on average.
        k: usize,
    },
    /// BatchTopK with nested reconstructions.
    Matryoshka(Matryoshka),
    /// A threshold a latent.
    #[serde(rename = "jump_relu")]
    JumpRelu(JumpRelu),
}

/// Settings of [`Architecture::Standard`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Standard {
    /// λ: weight of the penalty.
    pub l1: f64,
    /// The exponent at the end: 1 is plain L1.
    pub p_end: f64,
    /// Share of the steps after which the exponent begins to fall from 1.
    pub p_start: f64,
}

impl Standard {
    /// Plain L1, weighed for inputs of width `d` and variance 1 a dimension and an error counted as the
    /// FVU: 0.24 / √d, since activations grow with √d.
    pub fn for_width(d: usize) -> Self {
        Self {
            l1: 0.24 / (d.max(1) as f64).sqrt(),
            p_end: 1.0,
            p_start: 0.2,
        }
    }
}

/// Settings of [`Architecture::Gated`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gated {
    /// λ: weight of the penalty on the gate.
    pub l1: f64,
    /// The auxiliary reconstruction moves the decoder too, as in SAELens; the paper holds it constant.
    pub aux_to_decoder: bool,
}

impl Gated {
    /// The paper's loss, weighed as in [`Standard::for_width`]: 0.56 / √d.
    pub fn for_width(d: usize) -> Self {
        Self {
            l1: 0.56 / (d.max(1) as f64).sqrt(),
            aux_to_decoder: false,
        }
    }
}

/// Settings of [`Architecture::Matryoshka`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Matryoshka {
    /// Latents kept a row, on average.
    pub k: usize,
    /// Latents of the inner reconstructions, rising; the outermost has all.
    pub widths: Vec<usize>,
    /// The loss is the mean over the reconstructions (dictionary_learning), or their sum (SAELens).
    pub mean: bool,
}

impl Matryoshka {
    /// Inner reconstructions of a sixteenth, an eighth, a quarter and half of the latents, where that
    /// is at least one.
    pub fn halving(k: usize, d_sae: usize) -> Self {
        let widths = [16, 8, 4, 2].map(|part| d_sae / part);
        let mut widths: Vec<usize> = widths.into_iter().filter(|w| *w > 0).collect();
        widths.dedup();
        Self {
            k,
            widths,
            mean: true,
        }
    }
}

/// Settings of [`Architecture::JumpRelu`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JumpRelu {
    /// What keeps it sparse.
    pub penalty: JumpPenalty,
    /// ε: width of the straight-through window.
    pub bandwidth: f64,
    /// θ at the start.
    pub threshold: f64,
    /// Weight of the loss that pulls dead latents up; 0 is none.
    pub pre_act: f64,
}

impl JumpRelu {
    /// For an L0 of `target`, on inputs of variance 1 a dimension. Pre-activations of a random direction
    /// have a deviation of 1 there, where the thresholds start: they have less far to go.
    pub fn aiming_at(target: f64) -> Self {
        Self {
            penalty: JumpPenalty::TargetL0 {
                weight: 0.3,
                target,
            },
            bandwidth: 0.2,
            threshold: 1.0,
            pre_act: 0.0,
        }
    }
}

/// The sparsity penalty of JumpReLU.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum JumpPenalty {
    /// `λ · L0`, through the step's estimator (Rajamanoharan et al. 2024).
    Step {
        /// λ.
        l0: f64,
    },
    /// `λ · Σ tanh(c · f · ‖W_dec[j]‖)` (Conerly et al. 2025).
    Tanh {
        /// λ.
        l0: f64,
        /// c.
        scale: f64,
    },
    /// `weight · (L0 / target − 1)²` (Rajamanoharan et al. 2024, appendix).
    TargetL0 {
        /// Weight.
        weight: f64,
        /// The L0 aimed at.
        target: f64,
    },
}

/// What the squared error is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reduction {
    /// `Σ‖y − ȳ‖²` of the batch: the loss is the FVU (sparsify).
    Variance,
    /// Rows: a mean of summed squares (SAELens, dictionary_learning).
    Rows,
    /// Elements: a mean over all (overcomplete).
    Elements,
}

/// What the auxiliary squared error is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuxNormaliser {
    /// `Σ‖e − ē‖²` of the error (Gao et al. 2024, dictionary_learning).
    Residual,
    /// `Σ‖y − ȳ‖²` (sparsify).
    Total,
    /// Rows (SAELens).
    Rows,
}

/// What inputs are multiplied by while training. It is folded into the weights that are saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputScale {
    /// 1.
    None,
    /// `√d / √mean ‖x − b_dec‖²`: variance 1 a dimension, about where `b_dec` starts.
    Deviation,
    /// `√d / mean ‖x‖` (SAELens's `expected_average_only_in`).
    MeanNorm,
    /// `1 / √mean ‖x‖²` (dictionary_learning).
    MeanSquare,
}

/// Where `b_dec` starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BiasStart {
    /// 0 (SAELens).
    Zero,
    /// The mean of a sample (sparsify).
    Mean,
    /// The geometric median of a sample (OpenAI, dictionary_learning).
    GeometricMedian,
}

/// What the public tools do differently. Saved with the autoencoder.
///
/// Not among them is whether the ReLU comes before or after the top-k: values and gradients are the
/// same here, since a latent whose value is 0 gets none. (sparsify's fused encoder passes gradients
/// on at zeros, and none from auxiliary losses to the encoder.)
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conventions {
    /// The encoder takes `b_dec` off its input.
    pub subtract_b_dec: bool,
    /// Decoder rows are kept at length 1, and of their gradients only what is orthogonal to them
    /// counts. Otherwise penalties weigh each latent by its row's length.
    pub unit_decoder: bool,
    /// Length of the decoder rows at the start.
    pub decoder_norm: f64,
    /// What the squared error is divided by.
    pub reduction: Reduction,
    /// What the auxiliary one is divided by.
    pub aux_normaliser: AuxNormaliser,
    /// The auxiliary loss takes dead latents after the ReLU; SAELens takes them before it.
    pub aux_relu: bool,
    /// The auxiliary loss is multiplied by `min(dead / k_aux, 1)` (SAELens).
    pub aux_by_share: bool,
    /// Weight of the loss of 4 k latents (sparsify's Multi-TopK: 1/8); 0 is none.
    pub multi_topk: f64,
    /// The threshold that BatchTopK is used with moves by this much of the way to each batch's
    /// smallest activation (SAELens 0.01, dictionary_learning 0.001).
    pub threshold_rate: f64,
    /// The step from which on it does; it starts at what it finds there (SAELens: at 0, from the
    /// first step).
    pub threshold_start: u64,
    /// What inputs are multiplied by.
    pub input_scale: InputScale,
    /// Where `b_dec` starts.
    pub b_dec: BiasStart,
}

impl Default for Conventions {
    /// Gao et al. 2024, with `b_dec` taken off and inputs scaled.
    fn default() -> Self {
        Self {
            subtract_b_dec: true,
            unit_decoder: true,
            decoder_norm: 1.0,
            reduction: Reduction::Variance,
            aux_normaliser: AuxNormaliser::Residual,
            aux_relu: true,
            aux_by_share: false,
            multi_topk: 0.0,
            threshold_rate: 0.01,
            threshold_start: 1,
            input_scale: InputScale::Deviation,
            b_dec: BiasStart::GeometricMedian,
        }
    }
}

/// How an autoencoder is trained. Saved with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainConfig {
    /// What is trained.
    pub architecture: Architecture,
    /// Number of latents.
    pub d_sae: usize,
    /// Activations to train on, rounded down to whole batches.
    pub tokens: u64,
    /// Activations a step.
    pub batch: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// Share of the steps over which the rate rises from 0.
    pub warmup: f64,
    /// Share of the steps, at the end, over which the rate falls linearly to 0.
    pub decay: f64,
    /// Share of the steps over which a sparsity penalty rises from 0.
    pub sparsity_warmup: f64,
    /// Latents kept a row at the start, falling to k over `k_anneal`.
    pub k_start: Option<usize>,
    /// Share of the steps over which k falls to its end.
    pub k_anneal: f64,
    /// Joint norm that gradients are clipped to.
    pub clip: f64,
    /// Weight of the auxiliary loss of the TopK family (Gao et al. 2024, A.2).
    pub aux_alpha: f64,
    /// Dead latents the auxiliary loss uses a row.
    pub k_aux: usize,
    /// A latent is dead when it has not fired for this many activations.
    pub dead_after: u64,
    /// Every so many steps dead latents start anew at inputs that are reconstructed badly (Bricken et
    /// al. 2023).
    pub resample_every: Option<u64>,
    /// What is saved is a running mean of the weights, which keeps this much of itself a step.
    pub ema: Option<f64>,
    /// Seed of the weights and of the order of the activations.
    pub seed: u64,
    /// Adam's settings.
    pub adam: Adam,
    /// Latents that no row of a batch chose stay as they are in that step, bias and moments included
    /// ([`AdamRows::lazy`](crate::ops::AdamRows::lazy)): another optimiser, cheaper where few fire.
    #[serde(default)]
    pub lazy_adam: bool,
    /// What the trained weights are rounded to when they are saved. It changes nothing before.
    #[serde(default)]
    pub dtype: WeightDtype,
    /// A transcoder adds `x W_skipᵀ`.
    pub skip: bool,
    /// Activations that a row holds side by side: more than 1 makes a crosscoder.
    pub sites: usize,
    /// A cross-layer transcoder: `sites` is its number of layers, `d_sae` the latents of each.
    #[serde(default)]
    pub cross_layer: bool,
    /// Train on what the model predicts with the reconstruction, not on the squared error: needs a
    /// model that runs while training.
    #[serde(default)]
    pub end_to_end: Option<EndToEnd>,
    /// What the public tools do differently.
    pub conventions: Conventions,
}

impl TrainConfig {
    /// TopK with the defaults for activations of width `d_in`: learning rate 2e-3 at 3072 latents,
    /// falling with the root of the width (the scaling of Gao et al. 2024), Adam (0.9, 0.999), 5 % warm-up, decay
    /// over the last half, clipping at 1, α = 1/32, `k_aux = d_in / 2` (at most 1,024 and `d_sae`), dead after an eighth of
    /// the run or 10 M activations.
    pub fn new(d_in: usize, d_sae: usize, k: usize, tokens: u64) -> Self {
        Self {
            architecture: Architecture::TopK { k },
            d_sae,
            tokens,
            batch: 2048,
            lr: default_lr(d_sae),
            warmup: 0.05,
            decay: 0.5,
            sparsity_warmup: 0.05,
            k_start: None,
            k_anneal: 0.0,
            clip: 1.0,
            aux_alpha: 1.0 / 32.0,
            k_aux: (d_in / 2).clamp(1, d_sae.clamp(1, 1024)),
            dead_after: (tokens / 8).clamp(1, 10_000_000),
            resample_every: None,
            ema: None,
            seed: 0,
            adam: Adam::default(),
            lazy_adam: false,
            dtype: WeightDtype::F32,
            skip: false,
            sites: 1,
            cross_layer: false,
            end_to_end: None,
            conventions: Conventions::default(),
        }
    }

    /// Latents kept a row, where the architecture keeps a number of them.
    pub fn k(&self) -> Option<usize> {
        match &self.architecture {
            Architecture::TopK { k } | Architecture::BatchTopK { k } => Some(*k),
            Architecture::Matryoshka(Matryoshka { k, .. }) => Some(*k),
            _ => None,
        }
    }

    /// Autoencoders that are trained as one: the layers of a cross-layer transcoder.
    pub(super) fn layers(&self) -> usize {
        match self.cross_layer {
            true => self.sites,
            false => 1,
        }
    }

    /// Steps of the whole run.
    pub fn steps(&self) -> u64 {
        (self.tokens / self.batch.max(1) as u64).max(1)
    }

    /// Refuses what cannot be trained.
    ///
    /// # Errors
    /// [`Error::Config`] names the setting.
    pub fn check(&self) -> Result<(), Error> {
        let positive = |name: &str, x: f64| match x > 0.0 && x.is_finite() {
            true => Ok(()),
            false => bad(format!("{name} = {x}: a positive number is needed")),
        };
        let share = |name: &str, x: f64| match (0.0..=1.0).contains(&x) {
            true => Ok(()),
            false => bad(format!(
                "{name} = {x}: a share of the steps, 0 to 1, is needed"
            )),
        };
        self.check_sizes()?;
        self.architecture.check(self.d_sae)?;
        positive("lr", self.lr)?;
        positive("clip", self.clip)?;
        let weights = [
            ("aux_alpha", self.aux_alpha),
            ("multi_topk", self.conventions.multi_topk),
            ("mse", self.end_to_end.map_or(0.0, |e| e.mse)),
            ("downstream", self.end_to_end.map_or(0.0, |e| e.downstream)),
        ];
        for (name, x) in weights {
            if !(x >= 0.0 && x.is_finite()) {
                return bad(format!("{name} = {x}: a number of at least 0 is needed"));
            }
        }
        self.check_together()?;
        positive("decoder_norm", self.conventions.decoder_norm)?;
        share("warmup", self.warmup)?;
        share("decay", self.decay)?;
        share("sparsity_warmup", self.sparsity_warmup)?;
        share("k_anneal", self.k_anneal)?;
        match self.ema {
            Some(ema) if !(0.0..1.0).contains(&ema) => {
                bad(format!("ema = {ema}: 0 to below 1 is needed"))
            }
            _ => Ok(()),
        }
    }

    /// Refuses settings that do not go together.
    fn check_together(&self) -> Result<(), Error> {
        let of_batch = matches!(
            self.architecture,
            Architecture::BatchTopK { .. } | Architecture::Matryoshka(_)
        );
        let start = self.conventions.threshold_start;
        if of_batch && start > self.steps() {
            let steps = self.steps();
            return bad(format!(
                "threshold_start = {start}: a run of {steps} steps never sets the threshold"
            ));
        }
        if of_batch && self.batch as u64 * self.d_sae as u64 >= 1 << 31 {
            let (batch, d_sae) = (self.batch, self.d_sae);
            return bad(format!(
                "batch = {batch} with width = {d_sae}: their product must stay below 2^31 where latents are chosen over a whole batch"
            ));
        }
        if self.k_start.is_some() && self.k().is_none() {
            return bad("k_start: this architecture keeps no number of latents".into());
        }
        if self.sites > 1 && self.conventions.unit_decoder && self.k().is_none() {
            return bad("a crosscoder's penalty weighs latents by their decoders' lengths: it needs unit_decoder = false".into());
        }
        Ok(())
    }

    fn check_sizes(&self) -> Result<(), Error> {
        let most = self.d_sae.min(1024);
        match self {
            Self { d_sae: 0, .. } => bad("width = 0: there must be a latent".into()),
            Self { d_sae, .. } if *d_sae > 1 << 20 => bad(format!(
                "width = {d_sae}: at most {} are supported",
                1 << 20
            )),
            Self { k_aux, d_sae, .. } if *k_aux == 0 || *k_aux > most => {
                bad(format!("k_aux = {k_aux}: 1 to {most} fit {d_sae} latents"))
            }
            Self {
                k_start: Some(k), ..
            } if *k == 0 || *k > most => bad(format!(
                "k_start = {k}: 1 to {most} fit {} latents",
                self.d_sae
            )),
            Self { batch, .. } if *batch < 2 => {
                bad(format!("batch = {batch}: at least 2 are needed"))
            }
            Self { tokens, batch, .. } if *tokens < *batch as u64 => bad(format!(
                "tokens = {tokens} is less than one batch of {batch}"
            )),
            Self { dead_after: 0, .. } => {
                bad("dead_after = 0: every latent would always be dead".into())
            }
            Self {
                resample_every: Some(0),
                ..
            } => bad("resample_every = 0: at least 1 is needed".into()),
            Self { sites: 0, .. } => bad("sites = 0: a row holds at least one activation".into()),
            Self {
                lazy_adam: true,
                architecture,
                ..
            } if !architecture.is_topk() => bad(
                "lazy_adam works with TopK only: others need the gradients of all latents".into(),
            ),
            _ => Ok(()),
        }
    }
}

fn bad(text: String) -> Result<(), Error> {
    Err(Error::Config(text))
}

impl Architecture {
    /// The name that people know it by.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Standard(s) if s.p_end < 1.0 => "p-annealed",
            Self::Standard(_) => "Standard",
            Self::Gated(_) => "Gated",
            Self::TopK { .. } => "TopK",
            Self::BatchTopK { .. } => "BatchTopK",
            Self::Matryoshka(_) => "Matryoshka BatchTopK",
            Self::JumpRelu(_) => "JumpReLU",
        }
    }

    fn is_topk(&self) -> bool {
        matches!(self, Self::TopK { .. })
    }

    fn check(&self, d_sae: usize) -> Result<(), Error> {
        let weight = |name: &str, x: f64| match x >= 0.0 && x.is_finite() {
            true => Ok(()),
            false => bad(format!("{name} = {x}: a number of at least 0 is needed")),
        };
        match self {
            Self::TopK { k } | Self::BatchTopK { k } => check_k(*k, d_sae),
            Self::Matryoshka(m) => {
                let all = m.widths.iter().copied().chain([d_sae]);
                if m.widths.first() == Some(&0) || !all.is_sorted_by(|a, b| a < b) {
                    return bad(format!(
                        "widths = {:?}: numbers of latents that rise and stay below {d_sae} are needed",
                        m.widths
                    ));
                }
                check_k(m.k, d_sae)
            }
            Self::Standard(s) => {
                if !(s.p_end > 0.0 && s.p_end <= 1.0) {
                    return bad(format!(
                        "p_end = {}: above 0 and at most 1 is needed",
                        s.p_end
                    ));
                }
                weight("p_start", s.p_start)?;
                weight("l1", s.l1)
            }
            Self::Gated(g) => weight("l1", g.l1),
            Self::JumpRelu(j) => {
                let range = 1e-30..=1e30;
                if !range.contains(&j.bandwidth) {
                    return bad(format!(
                        "bandwidth = {}: a positive number is needed",
                        j.bandwidth
                    ));
                }
                weight("threshold", j.threshold)?;
                weight("pre_act", j.pre_act)?;
                match j.penalty {
                    JumpPenalty::Step { l0 } => weight("l0", l0),
                    JumpPenalty::Tanh { l0, scale } => weight("l0", l0).and(weight("scale", scale)),
                    JumpPenalty::TargetL0 { weight: w, target }
                        if target > 0.0 && target.is_finite() =>
                    {
                        weight("weight", w)
                    }
                    JumpPenalty::TargetL0 { target, .. } => {
                        bad(format!("target = {target}: a positive L0 is needed"))
                    }
                }
            }
        }
    }
}

fn check_k(k: usize, d_sae: usize) -> Result<(), Error> {
    match k {
        0 => bad("k = 0: at least one latent must be kept".into()),
        _ if k > d_sae => bad(format!("k = {k} exceeds the width of {d_sae} latents")),
        _ if k > 1024 => bad(format!("k = {k}: at most 1024 are supported")),
        _ => Ok(()),
    }
}

fn default_lr(d_sae: usize) -> f64 {
    let lr = (2e-3 * (3072.0 / d_sae.max(1) as f64).sqrt()).min(4e-3);
    (lr * 1e5).round() / 1e5
}
