//! The state of a run between two steps, as one safetensors file.

use std::path::Path;

use burn::tensor::Tensor;
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};

use super::format::{self, Named, Tensors, malformed};
use super::session::RunInfo;
use super::train::{AllMoments, dead_latents};
use super::{Error, Sae, Trainer};
use crate::Device;
use crate::capture::store::write_whole;
use crate::device;

pub(super) const CHECKPOINT: &str = "checkpoint.safetensors";

#[derive(Serialize, Deserialize)]
struct CheckpointInfo {
    step: u64,
    /// The bits of an f64: as a JSON number it might come back one unit in the last place off.
    scale_bits: u64,
    /// The dead latents that the auxiliary loss acts on.
    dead: Vec<i64>,
}

/// Writes the state aside and renames it.
pub(super) async fn checkpoint(trainer: &Trainer, info: &RunInfo, dir: &Path) -> Result<(), Error> {
    let (sae, m) = (&trainer.sae, &trainer.moments);
    let wide = vec![info.config.d_sae, info.d_in];
    let (latents, inputs) = (vec![info.config.d_sae], vec![info.d_in]);
    let tensors: Named = vec![
        (
            "w_enc",
            wide.clone(),
            device::read(sae.w_enc.clone()).await?,
        ),
        (
            "b_enc",
            latents.clone(),
            device::read(sae.b_enc.clone()).await?,
        ),
        (
            "w_dec",
            wide.clone(),
            device::read(sae.w_dec.clone()).await?,
        ),
        (
            "b_dec",
            inputs.clone(),
            device::read(sae.b_dec.clone()).await?,
        ),
        (
            "m.w_enc",
            wide.clone(),
            device::read(m.w_enc.m.clone()).await?,
        ),
        (
            "v.w_enc",
            wide.clone(),
            device::read(m.w_enc.v.clone()).await?,
        ),
        (
            "m.b_enc",
            latents.clone(),
            device::read(m.b_enc.m.clone()).await?,
        ),
        (
            "v.b_enc",
            latents.clone(),
            device::read(m.b_enc.v.clone()).await?,
        ),
        (
            "m.w_dec",
            wide.clone(),
            device::read(m.w_dec.m.clone()).await?,
        ),
        ("v.w_dec", wide, device::read(m.w_dec.v.clone()).await?),
        (
            "m.b_dec",
            inputs.clone(),
            device::read(m.b_dec.m.clone()).await?,
        ),
        ("v.b_dec", inputs, device::read(m.b_dec.v.clone()).await?),
        (
            "silent",
            latents,
            device::read(trainer.silent.clone()).await?,
        ),
    ];
    let dead = match trainer.dead.clone() {
        Some(dead) => device::read_int(dead).await?,
        None => Vec::new(),
    };
    let state = CheckpointInfo {
        step: trainer.step,
        scale_bits: trainer.scale.to_bits(),
        dead,
    };
    let state = serde_json::to_string(&state).expect("plain data serialises");
    write_whole(
        &dir.join(CHECKPOINT),
        &format::serialize(&tensors, Some(state)),
    )?;
    Ok(())
}

/// The state that [`checkpoint`] wrote.
pub(super) fn restore(path: &Path, info: &RunInfo, device: &Device) -> Result<Trainer, Error> {
    let bytes = format::read_file(path)?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| malformed(path, e))?;
    let state = header
        .metadata()
        .as_ref()
        .and_then(|m| m.get("inscape"))
        .cloned()
        .unwrap_or_default();
    let state: CheckpointInfo = serde_json::from_str(&state).map_err(|e| malformed(path, e))?;
    let tensors = Tensors::parse(path, &bytes)?;
    let (d_sae, d_in) = (info.config.d_sae, info.d_in);
    let on = device.tensor();
    let wide = |name: &str| tensors.r2(name, [d_sae, d_in], on);
    let sae = Sae::topk(
        [wide("w_enc")?, wide("w_dec")?],
        [
            tensors.r1("b_enc", d_sae, on)?,
            tensors.r1("b_dec", d_in, on)?,
        ],
        info.config.k,
    );
    let mut moments = AllMoments::zeros(&sae);
    (moments.w_enc.m, moments.w_enc.v) = (wide("m.w_enc")?, wide("v.w_enc")?);
    (moments.w_dec.m, moments.w_dec.v) = (wide("m.w_dec")?, wide("v.w_dec")?);
    (moments.b_enc.m, moments.b_enc.v) = (
        tensors.r1("m.b_enc", d_sae, on)?,
        tensors.r1("v.b_enc", d_sae, on)?,
    );
    (moments.b_dec.m, moments.b_dec.v) = (
        tensors.r1("m.b_dec", d_in, on)?,
        tensors.r1("v.b_dec", d_in, on)?,
    );
    let silent: Tensor<1> = tensors.r1("silent", d_sae, on)?;
    if let Some(f) = state.dead.iter().find(|f| !(0..d_sae as i64).contains(*f)) {
        return Err(malformed(path, format!("dead latent {f} of {d_sae}")));
    }
    let scale = f64::from_bits(state.scale_bits);
    let trainer = Trainer::at(sae, info.config.clone(), scale, state.step);
    Ok(Trainer {
        moments,
        silent,
        dead: dead_latents(state.dead.iter().map(|f| *f as i32).collect(), on),
        ..trainer
    })
}
