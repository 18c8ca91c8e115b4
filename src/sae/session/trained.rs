//! One autoencoder or the layers of a cross-layer transcoder, while it trains and after.

use std::path::Path;

use burn::tensor::Tensor;
use serde_json::Value;

use crate::Device;
use crate::device::block_on;
use crate::sae::checkpoint::checkpoint;
use crate::sae::format::{self, WeightDtype};
use crate::sae::{
    CrossLayer, CrossLayerTrainer, EndToEndPass, Error, Sae, StepStats, TrainConfig, Trainer,
};

/// What a session trained.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "one a training run")]
pub enum Trained {
    /// An autoencoder, transcoder or crosscoder.
    Sae(Sae),
    /// A cross-layer transcoder.
    CrossLayer(CrossLayer),
}

impl Trained {
    /// The autoencoder, unless it is a cross-layer transcoder.
    pub fn sae(self) -> Option<Sae> {
        match self {
            Self::Sae(sae) => Some(sae),
            Self::CrossLayer(_) => None,
        }
    }

    pub(super) async fn save(
        &self,
        dir: &Path,
        metadata: Value,
        dtype: WeightDtype,
    ) -> Result<(), Error> {
        match self {
            Self::Sae(sae) => format::save_as(sae, dir, metadata, dtype).await,
            Self::CrossLayer(layers) => {
                format::save_cross_layer(layers, dir, metadata, dtype).await
            }
        }
    }

    pub(super) fn load(dir: &Path, device: &Device) -> Result<Self, Error> {
        match format::is_cross_layer(dir) {
            true => {
                let (layers, _) = format::load_cross_layer(dir, device.tensor())?;
                Ok(Self::CrossLayer(layers))
            }
            false => format::load(dir, device.tensor()).map(|(sae, _)| Self::Sae(sae)),
        }
    }
}

/// A training run.
#[allow(clippy::large_enum_variant, reason = "one a training run")]
pub(super) enum AnyTrainer {
    One(Trainer),
    CrossLayer(CrossLayerTrainer),
}

impl AnyTrainer {
    /// Of the trainers of a checkpoint.
    pub(super) fn of(mut layers: Vec<Trainer>, config: &TrainConfig) -> Self {
        match config.cross_layer {
            true => Self::CrossLayer(CrossLayerTrainer {
                layers,
                config: config.clone(),
            }),
            false => Self::One(layers.remove(0)),
        }
    }

    pub(super) fn config(&self) -> &TrainConfig {
        match self {
            Self::One(trainer) => trainer.config(),
            Self::CrossLayer(trainer) => &trainer.config,
        }
    }

    pub(super) fn steps_done(&self) -> u64 {
        match self {
            Self::One(trainer) => trainer.steps_done(),
            Self::CrossLayer(trainer) => trainer.steps_done(),
        }
    }

    pub(super) async fn step_to(
        &mut self,
        x: Tensor<2>,
        y: Option<Tensor<2>>,
    ) -> Result<(), Error> {
        match self {
            Self::One(trainer) => trainer.step_to(x, y).await,
            Self::CrossLayer(trainer) => {
                let y = y.expect("a session checks that there is a target");
                trainer.step(x, y).await
            }
        }
    }

    pub(super) async fn step_end_to_end(&mut self, pass: &EndToEndPass<'_>) -> Result<(), Error> {
        match self {
            Self::One(trainer) => trainer.step_end_to_end(pass).await,
            Self::CrossLayer(trainer) => trainer.step_end_to_end(pass).await,
        }
    }

    pub(super) async fn stats(&self) -> Result<StepStats, Error> {
        match self {
            Self::One(trainer) => trainer.stats().await,
            Self::CrossLayer(trainer) => trainer.stats().await,
        }
    }

    pub(super) fn checkpoint(&self, dir: &Path) -> Result<(), Error> {
        let layers = match self {
            Self::One(trainer) => std::slice::from_ref(trainer),
            Self::CrossLayer(trainer) => &trainer.layers,
        };
        block_on(checkpoint(layers, dir))
    }

    pub(super) fn trained(&self) -> Trained {
        match self {
            Self::One(trainer) => Trained::Sae(trainer.sae()),
            Self::CrossLayer(trainer) => Trained::CrossLayer(trainer.transcoder()),
        }
    }
}
