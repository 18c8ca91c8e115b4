//! Llama Scope: autoencoders with one threshold for all latents, trained on activations that were
//! multiplied by a scale, which is folded into the weights when they are read. The tool writes other
//! files now, see `language_model_saes`.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor};
use serde_json::{Value, json};

use super::{
    Error, Format, Loaded, Tensors, cannot, dir_of, make_dir, malformed, named, object, read_json,
    serialize, threshold, top_k, unit_decoder, without_subtraction, write_json, writes_elsewhere,
};
use crate::capture::store::write_whole;
use crate::device;
use crate::sae::{Activation, Sae};

const CONFIG: &str = "hyperparams.json";
const WEIGHTS: &str = "final.safetensors";
const CHECKPOINTS: &str = "checkpoints";

pub(super) fn read(path: &Path, device: &Device) -> Result<Loaded, Error> {
    let dir = root(path);
    let config = Config::open(&dir.join(CONFIG))?;
    let tensors = Tensors::open(&dir.join(CHECKPOINTS).join(WEIGHTS))?;
    let [d_sae, d] = tensors.shape2("encoder.weight")?;
    let [scale_in, scale_out] = config.scales(d)?;
    let b_dec = match tensors.has("decoder.bias") {
        true => tensors.r1("decoder.bias", d, device)?,
        false => Tensor::zeros([d], device),
    };
    let w_dec = tensors.r2_across("decoder.weight", [d, d_sae], device)?;
    let w_dec = w_dec * (scale_in / scale_out);
    let sae = Sae {
        w_enc: tensors.r2("encoder.weight", [d_sae, d], device)?,
        b_enc: tensors.r1("encoder.bias", d_sae, device)? / scale_in,
        activation: config.activation(&w_dec)?,
        w_dec,
        b_dec: b_dec / scale_out,
        w_skip: None,
        transcoder: writes_elsewhere(&config.metadata()),
        subtract_b_dec: config.subtracts(scale_in == scale_out)?,
        sites: 1,
    };
    let topk = matches!(sae.activation, Activation::TopK { .. });
    Ok(Loaded {
        sae: match topk && config.flag("sparsity_include_decoder_norm")? {
            true => unit_decoder(sae),
            false => sae,
        },
        metadata: config.metadata(),
        format: Format::LlamaScope,
    })
}

/// The directory of `hyperparams.json`, for it and for what lies in it.
pub(super) fn root(path: &Path) -> PathBuf {
    let dir = dir_of(path);
    match dir.ends_with(CHECKPOINTS) {
        true => dir.parent().unwrap_or(Path::new("")).into(),
        false => dir,
    }
}

pub(super) struct Config {
    pub(super) path: PathBuf,
    pub(super) json: Value,
}

impl Config {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let json = read_json(path)?;
        let path = path.into();
        let config = Self { path, json };
        match config.flag("use_glu_encoder")? {
            true => Err(config.bad("`use_glu_encoder` is true: not supported".into())),
            false => Ok(config),
        }
    }

    pub(super) fn bad(&self, reason: String) -> Error {
        malformed(&self.path, reason)
    }

    fn flag(&self, name: &str) -> Result<bool, Error> {
        self.flag_or(name, false)
    }

    pub(super) fn flag_or(&self, name: &str, missing: bool) -> Result<bool, Error> {
        let value = &self.json[name];
        match value.as_bool() {
            Some(value) => Ok(value),
            None if value.is_null() => Ok(missing),
            None => Err(self.bad(format!("`{name}` is {value}"))),
        }
    }

    /// Whether inputs and outputs were multiplied by factors of the data set.
    pub(super) fn is_scaled(&self) -> Result<bool, Error> {
        let mode = &self.json["norm_activation"];
        match mode.as_str() {
            Some("inference") => Ok(false),
            Some("dataset-wise") => Ok(true),
            None if mode.is_null() => Ok(true),
            _ => {
                let reason = "not supported, as it depends on each input";
                Err(self.bad(format!("`norm_activation` is {mode}: {reason}")))
            }
        }
    }

    /// By what inputs and outputs were multiplied: √d over their mean norm in the data.
    fn scales(&self, d: usize) -> Result<[f64; 2], Error> {
        if !self.is_scaled()? {
            return Ok([1.0, 1.0]);
        }
        let scale = |side: &str| {
            let norm = &self.json["dataset_average_activation_norm"][side];
            match norm.as_f64() {
                Some(norm) if norm > 0.0 && norm.is_finite() => Ok((d as f64).sqrt() / norm),
                _ => Err(self.bad(format!(
                    "`dataset_average_activation_norm.{side}` is {norm}"
                ))),
            }
        };
        Ok([scale("in")?, scale("out")?])
    }

    fn subtracts(&self, same_scale: bool) -> Result<bool, Error> {
        let name = "apply_decoder_bias_to_pre_encoder";
        match self.flag(name)? {
            true if !same_scale => Err(self.bad(format!(
                "`{name}` is true, and the output has another scale"
            ))),
            value => Ok(value),
        }
    }

    /// The threshold is one for raw activations, unlike the weights: over a release it grows with
    /// their norm. Where the sparsity includes the decoder's norm n, `z · n` is what must exceed it.
    fn activation(&self, w_dec: &Tensor<2>) -> Result<Activation, Error> {
        let [d_sae, _] = w_dec.dims();
        let function = &self.json["act_fn"];
        match function.as_str() {
            Some("relu") => Ok(Activation::Relu),
            Some("topk") => Ok(Activation::TopK {
                k: top_k(&self.path, &self.json["top_k"], d_sae)?,
            }),
            Some("jumprelu") => {
                let threshold = &self.json["jump_relu_threshold"];
                let wrong = || self.bad(format!("`jump_relu_threshold` is {threshold}"));
                let threshold = threshold.as_f64().ok_or_else(wrong)?;
                let all = Tensor::full([d_sae], threshold, &w_dec.device());
                let threshold = match self.flag("sparsity_include_decoder_norm")? {
                    true => all / norms(w_dec),
                    false => all,
                };
                Ok(Activation::JumpRelu { threshold })
            }
            _ => Err(self.bad(format!(
                "`act_fn` is {function}; there are relu, topk and jumprelu"
            ))),
        }
    }

    pub(super) fn metadata(&self) -> Value {
        if self.json["metadata"].is_object() {
            return self.json["metadata"].clone();
        }
        let hook = &self.json["hook_point_in"];
        let mut found = json!({ "hook_name": hook });
        if self.json["hook_point_out"] != *hook {
            found["hook_name_out"] = self.json["hook_point_out"].clone();
        }
        found
    }
}

pub(super) fn norms(w_dec: &Tensor<2>) -> Tensor<1> {
    let squares = w_dec.clone().square().sum_dim(1);
    squares.sqrt().clamp_min(1e-8).squeeze_dim(1)
}

pub(super) async fn write(sae: &Sae, metadata: &Value, dir: &Path) -> Result<(), Error> {
    if sae.is_transcoder() {
        return Err(cannot(Format::LlamaScope, "a transcoder"));
    }
    let activation = settings(sae).await?;
    let sae = without_subtraction(sae.clone());
    let tensors = vec![
        named("encoder.weight", sae.w_enc.clone()).await?,
        named("encoder.bias", sae.b_enc.clone()).await?,
        named("decoder.weight", sae.w_dec.clone().transpose()).await?,
        named("decoder.bias", sae.b_dec.clone()).await?,
    ];
    let mut config = json!({
        "d_model": sae.d_in(), "d_sae": sae.d_sae(),
        "expansion_factor": sae.d_sae() as f64 / sae.d_in() as f64,
        "hook_point_in": metadata["hook_name"], "hook_point_out": metadata["hook_name"],
        "use_decoder_bias": true, "apply_decoder_bias_to_pre_encoder": false,
        "use_glu_encoder": false, "sparsity_include_decoder_norm": false,
        // A norm of √d is a scale of 1 for readers who do not know this mode.
        "norm_activation": "inference",
        "dataset_average_activation_norm": {
            "in": (sae.d_in() as f64).sqrt(), "out": (sae.d_in() as f64).sqrt(),
        },
        "dtype": "torch.float32", "metadata": object(metadata)?,
    });
    for (name, value) in activation {
        config[name] = value;
    }
    make_dir(&dir.join(CHECKPOINTS))?;
    let weights = dir.join(CHECKPOINTS).join(WEIGHTS);
    write_whole(&weights, &serialize(&tensors, None))?;
    write_json(&dir.join(CONFIG), &config)
}

/// The settings that say what the latents are.
async fn settings(sae: &Sae) -> Result<Vec<(&'static str, Value)>, Error> {
    Ok(match &sae.activation {
        Activation::Relu => vec![("act_fn", json!("relu"))],
        Activation::TopK { k } => vec![("act_fn", json!("topk")), ("top_k", json!(k))],
        Activation::Gated { .. } => return Err(cannot(Format::LlamaScope, "gated latents")),
        Activation::JumpRelu { .. } | Activation::BatchTopK { .. } => {
            let threshold = threshold(sae).expect("these have one");
            let values: Vec<f32> = device::read(threshold).await?;
            if values.windows(2).any(|w| w[0] != w[1]) {
                let what = "thresholds that differ: it has one for all latents";
                return Err(cannot(Format::LlamaScope, what));
            }
            let threshold = f64::from(values[0]);
            vec![
                ("act_fn", json!("jumprelu")),
                ("jump_relu_threshold", json!(threshold)),
            ]
        }
    })
}
