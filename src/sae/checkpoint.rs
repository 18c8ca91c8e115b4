//! The state of a run between two steps, as one safetensors file.

use std::path::Path;

use burn::tensor::{Device, Tensor};
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};

use super::cross_layer::of_layer;
use super::format::{self, Tensors, malformed};
use super::session::RunInfo;
use super::train::dead_latents;
use super::{Error, TrainConfig, Trainer, init};
use crate::capture::store::write_whole;
use crate::device;

pub(super) const CHECKPOINT: &str = "checkpoint.safetensors";

/// What of a checkpoint is no tensor: one entry, or one a layer of a cross-layer transcoder.
type CheckpointInfo = Vec<TrainerInfo>;

#[derive(Serialize, Deserialize)]
struct TrainerInfo {
    step: u64,
    /// The bits of f64s: as a JSON number one might come back one unit in the last place off.
    scale_bits: [u64; 2],
    /// The dead latents that the auxiliary loss acts on.
    dead: Vec<i64>,
}

/// Writes the state of one trainer, or of the layers of a cross-layer transcoder's, aside and renames it.
pub(super) async fn checkpoint(trainers: &[Trainer], dir: &Path) -> Result<(), Error> {
    let (mut tensors, mut info) = (Vec::new(), CheckpointInfo::new());
    for (l, trainer) in trainers.iter().enumerate() {
        let (mut trainer, prefix) = (trainer.clone(), prefix(l, trainers.len()));
        for (name, shape, values) in state(&mut trainer) {
            let values = match values {
                Slot::Vector(v) => device::read(v.clone()).await?,
                Slot::Matrix(w) => device::read(w.clone()).await?,
            };
            tensors.push((format!("{prefix}{name}"), shape, values));
        }
        info.push(TrainerInfo {
            step: trainer.step,
            scale_bits: trainer.scale.map(f64::to_bits),
            dead: match trainer.dead.clone() {
                Some(dead) => device::read_int(dead).await?,
                None => Vec::new(),
            },
        });
    }
    let info = serde_json::to_string(&info).expect("plain data serialises");
    write_whole(
        &dir.join(CHECKPOINT),
        &format::serialize(&tensors, Some(info)),
    )?;
    Ok(())
}

/// What is before the tensor names of a layer.
fn prefix(l: usize, layers: usize) -> String {
    match layers {
        1 => String::new(),
        _ => format!("layers.{l}."),
    }
}

/// A tensor of the state, to be read or set.
enum Slot<'a> {
    Vector(&'a mut Tensor<1>),
    Matrix(&'a mut Tensor<2>),
}

type Part<'a> = (String, Vec<usize>, Slot<'a>);

fn vector(name: String, v: &mut Tensor<1>) -> Part<'_> {
    (name, v.dims().to_vec(), Slot::Vector(v))
}

fn matrix(name: String, w: &mut Tensor<2>) -> Part<'_> {
    (name, w.dims().to_vec(), Slot::Matrix(w))
}

/// Everything that changes from step to step, by name.
fn state(trainer: &mut Trainer) -> Vec<Part<'_>> {
    let mut all = Vec::new();
    let moments = &mut trainer.moments;
    let (matrices, vectors) = trainer.sae.parts();
    let mut matrix_moments = moments.matrices.iter_mut();
    for (name, w) in matrices {
        all.push(matrix(name.into(), w));
        if let Some(m) = matrix_moments.next() {
            all.push(matrix(format!("m.{name}"), &mut m.m));
            all.push(matrix(format!("v.{name}"), &mut m.v));
        }
    }
    let mut vector_moments = moments.vectors.iter_mut();
    for (name, b) in vectors {
        all.push(vector(name.into(), b));
        if let Some(m) = vector_moments.next() {
            all.push(vector(format!("m.{name}"), &mut m.m));
            all.push(vector(format!("v.{name}"), &mut m.v));
        }
    }
    if let Some(mean) = &mut trainer.ema {
        let (matrices, vectors) = mean.parts();
        let matrices = matrices.into_iter();
        all.extend(matrices.map(|(name, w)| matrix(format!("ema.{name}"), w)));
        let vectors = vectors.into_iter();
        all.extend(vectors.map(|(name, b)| vector(format!("ema.{name}"), b)));
    }
    all.push(vector("silent".into(), &mut trainer.silent));
    all.push(vector("diverged".into(), &mut trainer.diverged));
    all
}

/// The state that [`checkpoint`] wrote.
pub(super) fn restore(path: &Path, info: &RunInfo, device: &Device) -> Result<Vec<Trainer>, Error> {
    let bytes = format::read_file(path)?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| malformed(path, e))?;
    let metadata = header.metadata().as_ref();
    let text = metadata.and_then(|m| m.get("inscape")).cloned();
    let saved: CheckpointInfo =
        serde_json::from_str(&text.unwrap_or_default()).map_err(|e| malformed(path, e))?;
    let layers = info.config.layers();
    if saved.len() != layers {
        let found = saved.len();
        return Err(malformed(
            path,
            format!("{found} states, {layers} are needed"),
        ));
    }
    let tensors = Tensors::parse(path, &bytes)?;
    let mut trainers = Vec::new();
    for (l, saved) in saved.into_iter().enumerate() {
        let mut trainer = empty(path, info, (l, layers), &saved, device)?;
        for (name, shape, slot) in state(&mut trainer) {
            let name = prefix(l, layers) + &name;
            match slot {
                Slot::Vector(v) => *v = tensors.r1(&name, shape[0], device)?,
                Slot::Matrix(w) => *w = tensors.r2(&name, [shape[0], shape[1]], device)?,
            }
        }
        let dead = saved.dead.iter().map(|f| *f as i32).collect();
        trainer.dead = dead_latents(dead, device);
        trainers.push(trainer);
    }
    Ok(trainers)
}

/// A trainer of the right shapes, at the right step.
fn empty(
    path: &Path,
    info: &RunInfo,
    (l, layers): (usize, usize),
    saved: &TrainerInfo,
    device: &Device,
) -> Result<Trainer, Error> {
    let d_sae = info.config.d_sae as i64;
    if let Some(f) = saved.dead.iter().find(|f| !(0..d_sae).contains(*f)) {
        return Err(malformed(path, format!("dead latent {f} of {d_sae}")));
    }
    let scale = saved.scale_bits.map(f64::from_bits);
    if !scale.iter().all(|s| s.is_finite() && *s > 0.0) {
        return Err(malformed(path, format!("scales {scale:?}")));
    }
    let config: TrainConfig = match info.config.cross_layer {
        true => of_layer(&info.config, l),
        false => info.config.clone(),
    };
    let (d_in, d_out) = (info.d_in / layers, info.d_out / layers * (layers - l));
    let widths = (d_in, info.target.is_some());
    let sae = init::start(&config, widths, vec![0.0; d_out], device);
    Ok(Trainer::at(sae, config, scale, saved.step))
}
