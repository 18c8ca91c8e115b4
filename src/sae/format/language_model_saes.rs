//! Language-Model-SAEs, the tool of Llama Scope, in the files that it writes now (it is `llamascopium`
//! on PyPI, `lm-saes` before): thresholds of their own for all latents, kept as logarithms.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor};
use serde_json::{Value, json};

use super::llama_scope::{Config, norms, root};
use super::{
    CONFIG as SAELENS, Error, Format, Loaded, Tensors, WEIGHTS, cannot, make_dir, malformed, named,
    object, serialize, threshold, top_k, unit_decoder, without_subtraction, write_json,
    writes_elsewhere,
};
use crate::capture::store::write_whole;
use crate::device;
use crate::sae::{Activation, Sae};

const FORMAT: Format = Format::LanguageModelSaes;
const CONFIG: &str = "config.json";
/// Where the weights are, in the order in which the tool looks for them.
const NAMES: [&str; 3] = [
    WEIGHTS,
    "checkpoints/pruned.safetensors",
    "checkpoints/final.safetensors",
];
const THRESHOLD: &str = "activation_function.log_jumprelu_threshold";

/// Whether this tool's files lie at `path`, its directory or one of them. SAELens's weights have the
/// same name, and another configuration.
pub(super) fn is_there(path: &Path) -> bool {
    let dir = root(path);
    let weights = dir.join(CONFIG).exists() && !dir.join(SAELENS).exists();
    let mut all = NAMES.iter().map(|name| dir.join(name));
    weights && all.any(|file| file == path || (path.is_dir() && file.exists()))
}

/// Where `norm_activation` is `dataset-wise`, the weights and the thresholds act on rows that were
/// multiplied by √d over their mean norm, and so is this folded. The tool folds all but the
/// thresholds when it is asked to: what it then calls the same has other latents.
///
/// A TopK that compares latents times their decoder norms gives these products, and its decoder unit
/// norm: the same outputs.
pub(super) fn read(path: &Path, device: &Device) -> Result<Loaded, Error> {
    let dir = root(path);
    let config = Config::open(&dir.join(CONFIG))?;
    let kind = &config.json["sae_type"];
    if !(kind.is_null() || kind == "sae") {
        return Err(config.bad(format!("`sae_type` is {kind}: there is sae")));
    }
    let tensors = Tensors::open(&weights(path, &dir))?;
    let [d, d_sae] = tensors.shape2("W_E")?;
    let [scale_in, scale_out] = scales(&config, &tensors, d)?;
    let b_dec = match config.flag_or("use_decoder_bias", true)? {
        true => tensors.r1("b_D", d, device)?,
        false => Tensor::zeros([d], device),
    };
    let w_dec = tensors.r2("W_D", [d_sae, d], device)?;
    let normed = config.flag_or("sparsity_include_decoder_norm", true)?;
    let sae = Sae {
        w_enc: tensors.r2_across("W_E", [d, d_sae], device)?,
        b_enc: tensors.r1("b_E", d_sae, device)? / scale_in,
        activation: match activation(&config, &tensors, d_sae, device)? {
            // `z · n > θ`, with n the decoder's norm and z as in training.
            Activation::JumpRelu { threshold } if normed => Activation::JumpRelu {
                threshold: threshold / norms(&w_dec) / scale_in,
            },
            Activation::JumpRelu { threshold } => Activation::JumpRelu {
                threshold: threshold / scale_in,
            },
            other => other,
        },
        w_dec: w_dec * (scale_in / scale_out),
        b_dec: b_dec / scale_out,
        w_skip: None,
        subtract_b_dec: false,
        transcoder: writes_elsewhere(&config.metadata()),
        sites: 1,
    };
    let topk = matches!(sae.activation, Activation::TopK { .. });
    Ok(Loaded {
        sae: if topk && normed {
            unit_decoder(sae)
        } else {
            sae
        },
        metadata: config.metadata(),
        format: FORMAT,
    })
}

/// The file of weights: `path` itself, or the first that the tool would take.
fn weights(path: &Path, dir: &Path) -> PathBuf {
    if path.extension().is_some_and(|e| e == "safetensors") {
        return path.into();
    }
    let mut all = NAMES.iter().map(|name| dir.join(name));
    all.find(|file| file.exists())
        .unwrap_or_else(|| dir.join(WEIGHTS))
}

/// By what inputs and outputs were multiplied.
fn scales(config: &Config, tensors: &Tensors, d: usize) -> Result<[f64; 2], Error> {
    if !config.is_scaled()? {
        return Ok([1.0, 1.0]);
    }
    let scale = |side: &str| {
        let hook = &config.json[side];
        let hook = hook
            .as_str()
            .ok_or_else(|| config.bad(format!("`{side}` is {hook}")))?;
        let name = format!("dataset_average_activation_norm.{hook}");
        let norm = f64::from(tensors.scalar(&name)?);
        match norm > 0.0 && norm.is_finite() {
            true => Ok((d as f64).sqrt() / norm),
            false => Err(malformed(&tensors.path, format!("`{name}` is {norm}"))),
        }
    };
    Ok([scale("hook_point_in")?, scale("hook_point_out")?])
}

/// The activation, a threshold being that of training.
fn activation(
    config: &Config,
    tensors: &Tensors,
    d_sae: usize,
    device: &Device,
) -> Result<Activation, Error> {
    let function = &config.json["act_fn"];
    let name = function.as_str().map(str::to_lowercase);
    match name.as_deref() {
        Some("relu") => Ok(Activation::Relu),
        Some("topk") => Ok(Activation::TopK {
            k: top_k(&config.path, &config.json["top_k"], d_sae)?,
        }),
        Some("jumprelu") => Ok(Activation::JumpRelu {
            threshold: tensors.r1(THRESHOLD, d_sae, device)?.exp(),
        }),
        _ => Err(config.bad(format!(
            "`act_fn` is {function}; there are relu, topk and jumprelu"
        ))),
    }
}

pub(super) async fn write(sae: &Sae, metadata: &Value, dir: &Path) -> Result<(), Error> {
    if sae.is_transcoder() {
        return Err(cannot(FORMAT, "a transcoder"));
    }
    let (function, thresholds) = settings(sae).await?;
    let sae = without_subtraction(sae.clone());
    let mut tensors = vec![
        named("W_E", sae.w_enc.clone().transpose()).await?,
        named("b_E", sae.b_enc.clone()).await?,
        named("W_D", sae.w_dec.clone()).await?,
        named("b_D", sae.b_dec.clone()).await?,
    ];
    tensors.extend(thresholds.map(|all| (THRESHOLD, vec![all.len()], all)));
    let hook = metadata["hook_name"].as_str().unwrap_or_default();
    let config = json!({
        "sae_type": "sae", "d_model": sae.d_in(), "expansion_factor": expansion(&sae),
        "use_decoder_bias": true, "act_fn": function, "top_k": sae.k().unwrap_or(50),
        "norm_activation": "inference", "sparsity_include_decoder_norm": false,
        "use_triton_kernel": false, "sparsity_threshold_for_triton_spmm_kernel": 0.996,
        "jumprelu_threshold_window": 2.0, "use_glu_encoder": false, "hook_point_in": hook,
        "hook_point_out": metadata["hook_name_out"].as_str().unwrap_or(hook),
        "metadata": object(metadata)?,
    });
    make_dir(dir)?;
    write_whole(&dir.join(WEIGHTS), &serialize(&tensors, None))?;
    write_json(&dir.join(CONFIG), &config)
}

/// `d_sae / d_in`, so that the tool, which rounds the product down, comes back to `d_sae`.
fn expansion(sae: &Sae) -> f64 {
    let (d, d_sae) = (sae.d_in() as f64, sae.d_sae() as f64);
    let factor = d_sae / d;
    match factor * d < d_sae {
        true => factor.next_up(),
        false => factor,
    }
}

/// What the latents are, and the logarithms of the thresholds where there are such.
async fn settings(sae: &Sae) -> Result<(&'static str, Option<Vec<f32>>), Error> {
    match &sae.activation {
        Activation::Relu => Ok(("relu", None)),
        Activation::TopK { .. } => Ok(("topk", None)),
        Activation::Gated { .. } => Err(cannot(FORMAT, "gated latents")),
        Activation::JumpRelu { .. } | Activation::BatchTopK { .. } => {
            let threshold = threshold(sae).expect("these have one");
            let values: Vec<f64> = device::read(threshold).await?;
            if values.iter().any(|v| *v < 0.0) {
                let what = "a threshold below 0: it keeps their logarithms";
                return Err(cannot(FORMAT, what));
            }
            let logarithms = values.iter().map(|v| v.ln() as f32).collect();
            Ok(("jumprelu", Some(logarithms)))
        }
    }
}
