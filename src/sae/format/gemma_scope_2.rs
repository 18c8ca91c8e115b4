//! Gemma Scope 2: JumpReLU autoencoders and transcoders of Gemma 3, which never take `b_dec` from
//! their input. The skip is held the other way round: `x @ affine_skip_connection`.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde_json::{Map, Value, json};

use super::{
    Error, Format, Loaded, Tensors, cannot, dir_of, least, make_dir, malformed, named, object,
    read_json, serialize, threshold, without_subtraction, write_json, writes_elsewhere,
};
use crate::capture::store::write_whole;
use crate::sae::{Activation, Sae};

const WEIGHTS: &str = "params.safetensors";
const CONFIG: &str = "config.json";
const SKIP: &str = "affine_skip_connection";

pub(super) fn read(path: &Path, device: &Device) -> Result<Loaded, Error> {
    let weights = match path.is_dir() {
        true => path.join(WEIGHTS),
        false => path.into(),
    };
    let mut tensors = Tensors::open(&weights)?;
    lower(&mut tensors);
    if let shape @ [_, _, _] = tensors.shape("w_dec")? {
        let reason = "cross-layer transcoders are not supported";
        return Err(malformed(
            &weights,
            format!("tensor `w_dec` is {shape:?}: {reason}"),
        ));
    }
    let [d_sae, d_out] = tensors.shape2("w_dec")?;
    let [d_in, _] = tensors.shape2("w_enc")?;
    let metadata = metadata(&dir_of(path).join(CONFIG))?;
    let sae = Sae {
        w_enc: tensors.r2_across("w_enc", [d_in, d_sae], device)?,
        b_enc: tensors.r1("b_enc", d_sae, device)?,
        w_dec: tensors.r2("w_dec", [d_sae, d_out], device)?,
        b_dec: tensors.r1("b_dec", d_out, device)?,
        w_skip: match tensors.has(SKIP) {
            true => Some(tensors.r2_across(SKIP, [d_in, d_out], device)?),
            false => None,
        },
        transcoder: writes_elsewhere(&metadata),
        activation: Activation::JumpRelu {
            // The format's own code takes ReLU first: a θ below 0 acts as 0.
            threshold: tensors.r1("threshold", d_sae, device)?.clamp_min(0.0),
        },
        subtract_b_dec: false,
        sites: 1,
    };
    Ok(Loaded {
        sae,
        metadata,
        format: Format::GemmaScope2,
    })
}

/// Names with a small first letter; some files have `W_enc`.
fn lower(tensors: &mut Tensors) {
    let all = std::mem::take(&mut tensors.map);
    let small = |name: String| match name.strip_prefix('W') {
        Some(rest) => format!("w{rest}"),
        None => name,
    };
    tensors.map = all.into_iter().map(|(name, t)| (small(name), t)).collect();
}

/// SAELens's names for what the configuration says, if there is one.
fn metadata(path: &Path) -> Result<Value, Error> {
    if !path.exists() {
        return Ok(json!({}));
    }
    let config = read_json(path)?;
    if config["architecture"] != "jump_relu" {
        let reason = format!(
            "`architecture` is {}; jump_relu is wanted",
            config["architecture"]
        );
        return Err(malformed(path, reason));
    }
    if config["metadata"].is_object() {
        return Ok(config["metadata"].clone());
    }
    let mut found = Map::new();
    for (from, to) in [
        ("hf_hook_point_in", "hook_name"),
        ("hf_hook_point_out", "hook_name_out"),
    ] {
        if let Some(hook) = config[from].as_str() {
            found.insert(format!("hf_{to}"), json!(hook));
            found.extend(hook_of(hook).map(|hook| (to.to_string(), json!(hook))));
        }
    }
    if let Value::Object(rest) = config {
        found.extend(
            rest.into_iter()
                .filter(|(key, _)| !key.starts_with("hf_hook_point")),
        );
    }
    found.remove("architecture");
    Ok(found.into())
}

/// `model.layers.7.output` is `blocks.7.hook_resid_post`.
fn hook_of(module: &str) -> Option<String> {
    let (layer, place) = module.strip_prefix("model.layers.")?.split_once('.')?;
    let hook = match place {
        "output" => "hook_resid_post",
        "self_attn.o_proj.input" => "attn.hook_z",
        "pre_feedforward_layernorm.output" => "hook_mlp_in",
        "post_feedforward_layernorm.output" => "hook_mlp_out",
        _ => return None,
    };
    Some(format!("blocks.{layer}.{hook}"))
}

pub(super) async fn write(sae: &Sae, metadata: &Value, path: &Path) -> Result<(), Error> {
    let Some(threshold) = threshold(sae) else {
        let name = sae.activation.name();
        return Err(cannot(
            Format::GemmaScope2,
            format!("{name} latents, only those of thresholds"),
        ));
    };
    if least(sae).await? < 0.0 {
        return Err(cannot(
            Format::GemmaScope2,
            "thresholds below 0: it takes ReLU first",
        ));
    }
    let sae = without_subtraction(sae.clone());
    let mut tensors = vec![
        named("w_enc", sae.w_enc.transpose()).await?,
        named("b_enc", sae.b_enc).await?,
        named("w_dec", sae.w_dec).await?,
        named("b_dec", sae.b_dec).await?,
        named("threshold", threshold).await?,
    ];
    if let Some(w_skip) = sae.w_skip {
        tensors.push(named(SKIP, w_skip.transpose()).await?);
    }
    let config = json!({
        "architecture": "jump_relu", "model_name": metadata["model_name"],
        "hf_hook_point_in": metadata["hf_hook_name"],
        "hf_hook_point_out": metadata["hf_hook_name_out"],
        "affine_connection": tensors.iter().any(|t| t.0 == SKIP), "metadata": object(metadata)?,
    });
    let (dir, weights) = places(path);
    make_dir(&dir)?;
    write_whole(&weights, &serialize(&tensors, None))?;
    write_json(&dir.join(CONFIG), &config)
}

/// The directory and the weight file: `path` is either.
fn places(path: &Path) -> (PathBuf, PathBuf) {
    match path.extension().is_some_and(|e| e == "safetensors") {
        true => (path.parent().unwrap_or(Path::new("")).into(), path.into()),
        false => (path.into(), path.join(WEIGHTS)),
    }
}
