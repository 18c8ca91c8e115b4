//! The settings of the public tools, by name.

use std::str::FromStr;

use super::config::{
    Architecture, AuxNormaliser, BiasStart, InputScale, JumpPenalty, JumpRelu, Reduction,
};
use super::{Error, TrainConfig};

/// A public tool's way of training: conventions, and the optimiser's defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// SAELens 6.
    SaeLens,
    /// dictionary_learning.
    DictionaryLearning,
    /// sparsify, with Adam.
    Sparsify,
    /// OpenAI's sparse_autoencoder (Gao et al. 2024).
    OpenAi,
    /// Anthropic's JumpReLU recipe (Conerly et al. 2025) as SAELens documents it.
    AnthropicJumpRelu,
}

/// A norm that no gradient reaches. (JSON has no infinity.)
const UNCLIPPED: f64 = 1e30;

/// Every preset with its name.
const NAMES: [(&str, Preset); 5] = [
    ("saelens", Preset::SaeLens),
    ("dictionary_learning", Preset::DictionaryLearning),
    ("sparsify", Preset::Sparsify),
    ("openai", Preset::OpenAi),
    ("anthropic-jumprelu", Preset::AnthropicJumpRelu),
];

impl FromStr for Preset {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let found = NAMES.iter().find(|(name, _)| *name == text);
        found.map(|(_, preset)| *preset).ok_or_else(|| {
            let names = NAMES.map(|(name, _)| name).join(", ");
            Error::Config(format!("preset `{text}`: one of {names} is needed"))
        })
    }
}

impl Preset {
    /// Sets everything that the tool sets, the settings of the architecture included, for activations
    /// of width `d_in`; which architecture, width, k, tokens, batch and seed stay (but
    /// `anthropic-jumprelu` is an architecture).
    pub fn apply(self, config: &mut TrainConfig, d_in: usize) {
        let steps = config.steps() as f64;
        let half_way = (config.steps() / 2).max(1);
        let root = (config.d_sae as f64 / f64::from(1 << 14)).sqrt();
        let half = (d_in / 2).clamp(1, config.d_sae.clamp(1, 1024));
        match self {
            Self::SaeLens => {
                free_decoder(config, 0.1);
                (config.lr, config.warmup, config.decay) = (3e-4, 0.0, 0.0);
                (config.aux_alpha, config.k_aux) = (1.0, half);
                config.dead_after = 1000 * config.batch as u64;
                let c = &mut config.conventions;
                (c.reduction, c.aux_normaliser) = (Reduction::Rows, AuxNormaliser::Rows);
                (c.aux_relu, c.aux_by_share) = (false, true);
                (c.threshold_rate, c.threshold_start) = (0.01, 0);
                (c.input_scale, c.b_dec) = (InputScale::None, BiasStart::Zero);
                config.sparsity_warmup = 0.0;
                saelens_architecture(&mut config.architecture);
            }
            Self::DictionaryLearning => {
                unit_decoder(config);
                (config.lr, config.warmup, config.decay) = (2e-4 / root, 1000.0 / steps, 0.2);
                (config.aux_alpha, config.k_aux) = (1.0 / 32.0, half);
                config.dead_after = 10_000_000;
                let c = &mut config.conventions;
                (c.reduction, c.aux_normaliser) = (Reduction::Rows, AuxNormaliser::Residual);
                // After 1,000 steps, where there are as many.
                (c.threshold_rate, c.threshold_start) = (0.001, 1000.min(half_way));
                (c.input_scale, c.b_dec) = (InputScale::MeanSquare, BiasStart::GeometricMedian);
                config.sparsity_warmup = (2000.0 / steps).min(1.0);
                dictionary_learning_architecture(config);
            }
            Self::Sparsify => {
                unit_decoder(config);
                (config.lr, config.warmup, config.decay) = (2e-4 / root, 1000.0 / steps, 1.0);
                (config.aux_alpha, config.k_aux, config.clip) = (0.0, half, UNCLIPPED);
                config.dead_after = 10_000_000;
                let c = &mut config.conventions;
                (c.reduction, c.aux_normaliser) = (Reduction::Variance, AuxNormaliser::Total);
                (c.input_scale, c.b_dec) = (InputScale::None, BiasStart::Mean);
            }
            Self::OpenAi => {
                unit_decoder(config);
                (config.lr, config.warmup, config.decay) = (1e-4, 0.0, 0.0);
                config.adam.eps = 6.25e-10;
                (config.aux_alpha, config.clip) = (1.0 / 32.0, UNCLIPPED);
                config.k_aux = 256.min(config.d_sae);
                config.dead_after = 10_000_000;
                let c = &mut config.conventions;
                (c.reduction, c.aux_normaliser) = (Reduction::Variance, AuxNormaliser::Residual);
                (c.input_scale, c.b_dec) = (InputScale::None, BiasStart::GeometricMedian);
            }
            Self::AnthropicJumpRelu => {
                free_decoder(config, 0.1);
                config.architecture = Architecture::JumpRelu(JumpRelu {
                    penalty: JumpPenalty::Tanh {
                        l0: 1.0,
                        scale: 4.0,
                    },
                    bandwidth: 2.0,
                    threshold: 0.1,
                    pre_act: 3e-6,
                });
                (config.lr, config.warmup, config.decay) = (3e-4, 1000.0 / steps, 0.2);
                config.sparsity_warmup = 1.0;
                config.dead_after = 1000 * config.batch as u64;
                let c = &mut config.conventions;
                c.reduction = Reduction::Rows;
                (c.input_scale, c.b_dec) = (InputScale::MeanNorm, BiasStart::Zero);
            }
        }
        config.warmup = config.warmup.min(1.0);
        // Among them SAEs take b_dec off, transcoders do not.
        config.conventions.subtract_b_dec &= !config.skip;
    }
}

/// The tool's weights, and the forms of the loss that it has.
fn saelens_architecture(architecture: &mut Architecture) {
    match architecture {
        Architecture::Standard(s) => s.l1 = 1.0,
        Architecture::Gated(g) => (g.l1, g.aux_to_decoder) = (1.0, true),
        Architecture::Matryoshka(m) => m.mean = false,
        Architecture::JumpRelu(j) => {
            *j = JumpRelu {
                penalty: JumpPenalty::Step { l0: 1.0 },
                bandwidth: 0.05,
                threshold: 0.01,
                pre_act: 0.0,
            }
        }
        Architecture::TopK { .. } | Architecture::BatchTopK { .. } => {}
    }
}

/// The tool's weights and rates, which differ from trainer to trainer.
fn dictionary_learning_architecture(config: &mut TrainConfig) {
    match &mut config.architecture {
        Architecture::Standard(s) => {
            s.l1 = 0.1;
            (config.lr, config.clip) = (1e-3, UNCLIPPED);
            config.conventions.b_dec = BiasStart::Zero;
        }
        Architecture::Gated(g) => {
            (g.l1, g.aux_to_decoder) = (0.1, false);
            (config.lr, config.clip, config.adam.beta1) = (5e-5, UNCLIPPED, 0.0);
            config.conventions.b_dec = BiasStart::Zero;
        }
        Architecture::JumpRelu(j) => {
            let target = match j.penalty {
                JumpPenalty::TargetL0 { target, .. } => target,
                _ => 20.0,
            };
            let weight = 1.0;
            j.penalty = JumpPenalty::TargetL0 { weight, target };
            (j.bandwidth, j.threshold, j.pre_act) = (1e-3, 1e-3, 0.0);
            (config.lr, config.adam.beta1) = (7e-5, 0.0);
            config.conventions.subtract_b_dec = false;
            config.conventions.b_dec = BiasStart::Zero;
        }
        Architecture::Matryoshka(m) => m.mean = true,
        Architecture::TopK { .. } | Architecture::BatchTopK { .. } => {}
    }
}

/// Decoder rows of any length; penalties weigh by it.
fn free_decoder(config: &mut TrainConfig, norm: f64) {
    config.conventions.unit_decoder = false;
    config.conventions.decoder_norm = norm;
}

fn unit_decoder(config: &mut TrainConfig) {
    config.conventions.unit_decoder = true;
    config.conventions.decoder_norm = 1.0;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sae::{Gated, Matryoshka, Standard};

    fn architectures() -> [Architecture; 6] {
        [
            Architecture::TopK { k: 32 },
            Architecture::BatchTopK { k: 32 },
            Architecture::Matryoshka(Matryoshka::halving(32, 4096)),
            Architecture::JumpRelu(JumpRelu::aiming_at(32.0)),
            Architecture::Gated(Gated::for_width(64)),
            Architecture::Standard(Standard::for_width(64)),
        ]
    }

    #[test]
    fn every_preset_gives_a_run_that_can_be_made() {
        for (name, preset) in NAMES {
            assert_eq!(name.parse::<Preset>().unwrap(), preset);
            for architecture in architectures() {
                let mut config = TrainConfig {
                    architecture,
                    ..TrainConfig::new(768, 4096, 32, 1 << 20)
                };
                preset.apply(&mut config, 768);
                let what = config.architecture.name();
                config
                    .check()
                    .unwrap_or_else(|e| panic!("{name}, {what}: {e}"));
            }
            // What cannot be trained is for `check` to say.
            preset.apply(&mut TrainConfig::new(0, 0, 1, 1), 0);
        }
        let wrong = "saelense".parse::<Preset>().unwrap_err().to_string();
        assert!(
            wrong.contains("saelense") && wrong.contains("openai"),
            "{wrong}"
        );
    }
}
