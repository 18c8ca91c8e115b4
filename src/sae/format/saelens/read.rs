use std::path::Path;

use burn::tensor::{Device, Tensor};
use serde_json::{Value, json};

use super::super::{
    CONFIG, Error, Format, Loaded, Tensors, WEIGHTS, dir_of, malformed, read_json, top_k,
    unit_decoder, whole,
};
use super::legacy::{is_legacy, modern};
use super::{Architecture, KNOWN};
use crate::sae::{Activation, Sae};

pub(in crate::sae::format) fn read(path: &Path, device: &Device) -> Result<Loaded, Error> {
    let dir = dir_of(path);
    let path = dir.join(CONFIG);
    let mut config = read_json(&path)?;
    if is_legacy(&config) {
        config = modern(config);
    }
    let tensors = Tensors::open(&dir.join(WEIGHTS))?;
    let file = File {
        path: &path,
        config: &config,
        tensors: &tensors,
        device,
    };
    Ok(Loaded {
        sae: file.folded()?,
        metadata: without_mark(config["metadata"].take()),
        format: Format::SaeLens,
    })
}

struct File<'a> {
    path: &'a Path,
    config: &'a Value,
    tensors: &'a Tensors,
    device: &'a Device,
}

impl File<'_> {
    fn bad(&self, reason: String) -> Error {
        malformed(self.path, reason)
    }

    /// The autoencoder for raw activations, as SAELens folds it at the end of training.
    fn folded(&self) -> Result<Sae, Error> {
        let name = &self.config["architecture"];
        let unknown = || self.bad(format!("`architecture` is {name}; there are {KNOWN}"));
        let architecture = Architecture::of(name.as_str().ok_or_else(unknown)?);
        let mut sae = self.sae(&architecture)?;
        let rescales = self.rescales(architecture.activation)?;
        if let Some(scale) = self.scale()? {
            sae = scaled(sae, scale, rescales);
        }
        if rescales {
            sae = unit_decoder(sae);
        }
        self.finetuned(sae)
    }

    /// The autoencoder as it lies there.
    fn sae(&self, architecture: &Architecture<'_>) -> Result<Sae, Error> {
        let [d_sae, d_out] = self.tensors.shape2("W_dec")?;
        let d_in = whole(&self.config["d_in"]).unwrap_or(d_out);
        let d_out = if architecture.transcoder { d_out } else { d_in };
        let activation = self.activation(architecture.activation, d_sae)?;
        let b_enc = match activation {
            Activation::Gated { .. } => "b_gate",
            _ => "b_enc",
        };
        let (t, on) = (self.tensors, self.device);
        Ok(Sae {
            w_enc: t.r2_across("W_enc", [d_in, d_sae], on)?,
            b_enc: t.r1(b_enc, d_sae, on)?,
            w_dec: t.r2("W_dec", [d_sae, d_out], on)?,
            b_dec: t.r1("b_dec", d_out, on)?,
            w_skip: match architecture.skip {
                true => Some(t.r2("W_skip", [d_out, d_in], on)?),
                false => None,
            },
            transcoder: architecture.transcoder,
            activation,
            subtract_b_dec: self.subtracts(architecture.transcoder, d_in == d_out)?,
            sites: self.sites(d_in, d_out)?,
        })
    }

    fn activation(&self, name: &str, d_sae: usize) -> Result<Activation, Error> {
        let function = &self.config["activation_fn"];
        if !(function.is_null() || function == "relu" || (function == "topk" && name == "topk")) {
            return Err(self.bad(format!("`activation_fn` is {function}: not supported")));
        }
        let (t, on) = (self.tensors, self.device);
        Ok(match name {
            "standard" => Activation::Relu,
            "topk" => Activation::TopK {
                k: top_k(self.path, &self.config["k"], d_sae)?,
            },
            "jumprelu" => self.jump_relu(d_sae)?,
            "batchtopk" | "matryoshka_batchtopk" => self.batch_topk(d_sae)?,
            "gated" => Activation::Gated {
                r_mag: t.r1("r_mag", d_sae, on)?,
                b_mag: t.r1("b_mag", d_sae, on)?,
            },
            _ => {
                let name = &self.config["architecture"];
                return Err(self.bad(format!("`architecture` is {name}; there are {KNOWN}")));
            }
        })
    }

    /// `ReLU(z) · 1[z > θ]`: a θ below 0 acts as 0, except where it says that it is ours and has
    /// latents below 0. One θ for all may be what is left of a BatchTopK autoencoder.
    fn jump_relu(&self, d_sae: usize) -> Result<Activation, Error> {
        let (t, on) = (self.tensors, self.device);
        let threshold = match t.has("log_threshold") && !t.has("threshold") {
            true => t.r1("log_threshold", d_sae, on)?.exp(),
            false => t.r1("threshold", d_sae, on)?,
        };
        Ok(match self.batch_k() {
            Some(k) if k <= d_sae && self.is_constant() => Activation::BatchTopK {
                k,
                threshold: threshold.slice(0..1),
            },
            _ if self.mark()["activation"] == "jumprelu" => Activation::JumpRelu { threshold },
            _ => Activation::JumpRelu {
                threshold: threshold.clamp_min(0.0),
            },
        })
    }

    /// What a BatchTopK autoencoder kept in training, by our word or SAELens's.
    fn batch_k(&self) -> Option<usize> {
        let metadata = &self.config["metadata"];
        let trained = metadata["training_architecture"].as_str();
        match trained.is_some_and(|name| name.ends_with("batchtopk")) {
            true => whole(&metadata["training_architecture_details"]["k"]),
            false => whole(&self.mark()["k"]),
        }
    }

    /// Of a checkpoint of training. A `k` that is no whole number is only of use there.
    fn batch_topk(&self, d_sae: usize) -> Result<Activation, Error> {
        if !self.tensors.has("topk_threshold") {
            return self.jump_relu(d_sae);
        }
        let threshold = self.tensors.scalar("topk_threshold")?.max(0.0);
        let threshold = Tensor::from_floats([threshold], self.device);
        Ok(match whole(&self.config["k"]) {
            Some(k) => Activation::BatchTopK { k, threshold },
            None => Activation::JumpRelu {
                threshold: threshold.expand([d_sae]),
            },
        })
    }

    fn is_constant(&self) -> bool {
        let threshold = self.tensors.map.get("threshold");
        threshold.is_some_and(|t| t.values.windows(2).all(|w| w[0] == w[1]))
    }

    fn subtracts(&self, transcoder: bool, can: bool) -> Result<bool, Error> {
        let value = &self.config["apply_b_dec_to_input"];
        match value.as_bool() {
            Some(true) if !can => Err(self.bad(
                "`apply_b_dec_to_input` is true, and `b_dec` has another width than the input"
                    .into(),
            )),
            Some(value) => Ok(value),
            None if value.is_null() => Ok(!transcoder),
            None => Err(self.bad(format!("`apply_b_dec_to_input` is {value}"))),
        }
    }

    fn sites(&self, d_in: usize, d_out: usize) -> Result<usize, Error> {
        let sites = &self.mark()["sites"];
        match whole(sites) {
            Some(n) if d_out.is_multiple_of(n) => Ok(n),
            None if sites.is_null() => Ok(1),
            _ => Err(self.bad(format!("{sites} sites in rows of {d_in}"))),
        }
    }

    /// What is ours of it.
    fn mark(&self) -> &Value {
        &self.config["metadata"]["inscape"]["architecture"]
    }

    /// Whether latents are scaled by decoder norms; only TopK's are.
    fn rescales(&self, activation: &str) -> Result<bool, Error> {
        let value = &self.config["rescale_acts_by_decoder_norm"];
        match value.as_bool() {
            Some(value) => Ok(value && activation.ends_with("topk")),
            None if value.is_null() => Ok(false),
            None => Err(self.bad(format!("`rescale_acts_by_decoder_norm` is {value}"))),
        }
    }

    /// The factors `[d_sae]` by which latents were scaled before the decoder, before version 6.
    fn finetuned(&self, sae: Sae) -> Result<Sae, Error> {
        let names = ["finetuning_scaling_factor", "scaling_factor"];
        let Some(name) = names.into_iter().find(|n| self.tensors.has(n)) else {
            return Ok(sae);
        };
        let factors = self.tensors.r1(name, sae.d_sae(), self.device)?;
        let ones = self.tensors.values(name, &[sae.d_sae()])?;
        if ones.iter().all(|f| (f - 1.0).abs() <= 1e-5) {
            return Ok(sae);
        }
        if self.config["finetuning_scaling_factor"] != json!(true) {
            let reason = "`finetuning_scaling_factor` is not true, and there are such factors";
            return Err(self.bad(format!("{reason} in the tensor `{name}`")));
        }
        let w_dec = sae.w_dec * factors.unsqueeze_dim(1);
        Ok(Sae { w_dec, ..sae })
    }

    /// By what inputs are multiplied, if they are.
    fn scale(&self) -> Result<Option<f64>, Error> {
        let value = &self.config["normalize_activations"];
        match value.as_str() {
            Some("none") => Ok(None),
            Some("expected_average_only_in") => expected_average(self.path).map(Some),
            None if value.is_null() || *value == json!(false) => Ok(None),
            None if *value == json!(true) => expected_average(self.path).map(Some),
            _ => Err(self.bad(format!(
                "`normalize_activations` is {value}: not supported, as it depends on each input"
            ))),
        }
    }
}

/// The scale that lies beside a checkpoint.
fn expected_average(config: &Path) -> Result<f64, Error> {
    const NAME: &str = "activation_scaler.json";
    let path = config.with_file_name(NAME);
    if !path.exists() {
        let reason =
            "`normalize_activations` is expected_average_only_in, and its scale is missing";
        return Err(malformed(config, format!("{reason}: no {NAME} beside it")));
    }
    let value = &read_json(&path)?["scaling_factor"];
    match value.as_f64() {
        Some(scale) if scale > 0.0 && scale.is_finite() => Ok(scale),
        _ => Err(malformed(&path, format!("`scaling_factor` is {value}"))),
    }
}

/// The same for inputs that are not multiplied by `scale` before, nor outputs divided after. A θ of
/// latents in units of decoder rows is divided with these.
fn scaled(sae: Sae, scale: f64, rescales: bool) -> Sae {
    Sae {
        w_enc: sae.w_enc * scale,
        w_dec: sae.w_dec / scale,
        b_dec: sae.b_dec / scale,
        activation: match sae.activation {
            Activation::BatchTopK { k, threshold } if rescales => Activation::BatchTopK {
                k,
                threshold: threshold / scale,
            },
            Activation::JumpRelu { threshold } if rescales => Activation::JumpRelu {
                threshold: threshold / scale,
            },
            other => other,
        },
        ..sae
    }
}

/// Metadata as it was given to [`save`].
fn without_mark(mut metadata: Value) -> Value {
    let Some(own) = metadata.get_mut("inscape").and_then(Value::as_object_mut) else {
        return metadata;
    };
    let marked = own.remove("architecture").is_some();
    if marked && own.is_empty() {
        let all = metadata.as_object_mut();
        all.and_then(|all| all.remove("inscape"));
    }
    metadata
}
