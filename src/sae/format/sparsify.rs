//! EleutherAI's sparsify: TopK autoencoders, which take `b_dec` from their input, and transcoders,
//! which do not.

use std::path::Path;

use burn::tensor::{Device, Tensor};
use serde_json::{Value, json};

use super::{
    CONFIG, Error, Format, Loaded, Tensors, cannot, dir_of, make_dir, malformed, named, object,
    read_json, serialize, subtracting, top_k, whole, write_json,
};
use crate::capture::store::write_whole;
use crate::device;
use crate::sae::{Activation, Sae};

const WEIGHTS: &str = "sae.safetensors";

pub(super) fn read(path: &Path, device: &Device) -> Result<Loaded, Error> {
    let dir = dir_of(path);
    let path = dir.join(CONFIG);
    let config = read_json(&path)?;
    refuse(&path, &config)?;
    let tensors = Tensors::open(&dir.join(WEIGHTS))?;
    let w_enc = w_enc(&tensors, device)?;
    let [d_sae, d_in] = w_enc.dims();
    check_width(&path, &config, [d_sae, d_in])?;
    let sae = Sae {
        w_enc,
        b_enc: bias(&tensors, ["encoder.bias", "b_enc"], d_sae, device)?,
        w_dec: w_dec(&tensors, [d_sae, d_in], device)?,
        b_dec: bias(&tensors, ["b_dec", "decoder.bias"], d_in, device)?,
        w_skip: match flag(&path, &config, "skip_connection")? {
            true => Some(tensors.r2("W_skip", [d_in, d_in], device)?),
            false => None,
        },
        transcoder: flag(&path, &config, "transcode")?,
        activation: Activation::TopK {
            k: top_k(&path, &config["k"], d_sae)?,
        },
        subtract_b_dec: !flag(&path, &config, "transcode")?,
        sites: 1,
    };
    Ok(Loaded {
        sae,
        metadata: metadata(&dir, &config)?,
        format: Format::Sparsify,
    })
}

/// A setting that is true, false or absent.
fn flag(path: &Path, config: &Value, name: &str) -> Result<bool, Error> {
    let value = &config[name];
    match value.as_bool() {
        Some(value) => Ok(value),
        None if value.is_null() => Ok(false),
        None => Err(malformed(path, format!("`{name}` is {value}"))),
    }
}

fn refuse(path: &Path, config: &Value) -> Result<(), Error> {
    let activation = &config["activation"];
    if !activation.is_null() && activation != "topk" {
        let reason = format!("`activation` is {activation}: only topk is supported");
        return Err(malformed(path, reason));
    }
    match flag(path, config, "signed")? {
        true => Err(malformed(path, "`signed` is true: not supported")),
        false => Ok(()),
    }
}

/// `[d_sae, d_in]`; older files have it across.
fn w_enc(tensors: &Tensors, device: &Device) -> Result<Tensor<2>, Error> {
    match tensors.has("W_enc") && !tensors.has("encoder.weight") {
        true => tensors.r2_across("W_enc", tensors.shape2("W_enc")?, device),
        false => {
            let shape = tensors.shape2("encoder.weight")?;
            tensors.r2("encoder.weight", shape, device)
        }
    }
}

/// `[d_sae, d_in]`; older files have it across.
fn w_dec(tensors: &Tensors, shape: [usize; 2], device: &Device) -> Result<Tensor<2>, Error> {
    let [d_sae, d_in] = shape;
    match tensors.has("decoder.weight") && !tensors.has("W_dec") {
        true => tensors.r2_across("decoder.weight", [d_in, d_sae], device),
        false => tensors.r2("W_dec", shape, device),
    }
}

/// Under either name; older files may have none.
fn bias(
    tensors: &Tensors,
    names: [&str; 2],
    len: usize,
    device: &Device,
) -> Result<Tensor<1>, Error> {
    match names.into_iter().find(|name| tensors.has(name)) {
        Some(name) => tensors.r1(name, len, device),
        None => Ok(Tensor::zeros([len], device)),
    }
}

/// `d_in`, and `num_latents`, or where that is 0 `d_in · expansion_factor`, must be the tensors'.
fn check_width(path: &Path, config: &Value, [d_sae, d_in]: [usize; 2]) -> Result<(), Error> {
    let says = |name: &str, value: usize, is: usize| match value == is {
        true => Ok(()),
        false => Err(malformed(
            path,
            format!("`{name}` gives {value}, and the tensors have {is}"),
        )),
    };
    if let Some(width) = whole(&config["d_in"]) {
        says("d_in", width, d_in)?;
    }
    match (
        whole(&config["num_latents"]),
        whole(&config["expansion_factor"]),
    ) {
        (Some(n), _) => says("num_latents", n, d_sae),
        (None, Some(times)) => says("expansion_factor", d_in.saturating_mul(times), d_sae),
        (None, None) => Ok(()),
    }
}

/// What we wrote, or what the directory's name and the run's `config.json` say.
fn metadata(dir: &Path, config: &Value) -> Result<Value, Error> {
    if config["metadata"].is_object() {
        return Ok(config["metadata"].clone());
    }
    let mut found = json!({});
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    if name.starts_with("layers.") || name.contains(".layers.") || name == "embed_tokens" {
        found["hf_hook_name"] = json!(name);
    }
    let run = dir.parent().unwrap_or(Path::new("")).join("config.json");
    if run.exists() {
        let run = read_json(&run)?;
        for (from, to) in [
            ("model", "model_name"),
            ("dataset", "dataset_path"),
            ("ctx_len", "context_size"),
        ] {
            if !run[from].is_null() {
                found[to] = run[from].clone();
            }
        }
    }
    Ok(found)
}

pub(super) async fn write(sae: &Sae, metadata: &Value, dir: &Path) -> Result<(), Error> {
    let Activation::TopK { k } = sae.activation else {
        let name = sae.activation.name();
        return Err(cannot(
            Format::Sparsify,
            format!("{name} latents, only topk"),
        ));
    };
    if sae.d_in() != sae.d_out() {
        let what = format!(
            "an output of width {} for an input of {}",
            sae.d_out(),
            sae.d_in()
        );
        return Err(cannot(Format::Sparsify, what));
    }
    // It takes `b_dec` from the input unless it is a transcoder.
    let sae = subtracting(sae.clone(), !sae.is_transcoder());
    let mut tensors = vec![
        named("encoder.weight", sae.w_enc.clone()).await?,
        named("encoder.bias", sae.b_enc.clone()).await?,
        named("W_dec", sae.w_dec.clone()).await?,
        named("b_dec", sae.b_dec.clone()).await?,
    ];
    if let Some(w_skip) = &sae.w_skip {
        tensors.push(named("W_skip", w_skip.clone()).await?);
    }
    let config = json!({
        "activation": "topk", "k": k, "num_latents": sae.d_sae(),
        "expansion_factor": (sae.d_sae() / sae.d_in()).max(1),
        "normalize_decoder": has_unit_rows(&sae.w_dec).await?, "multi_topk": false,
        "skip_connection": sae.w_skip.is_some(), "transcode": sae.is_transcoder(),
        "d_in": sae.d_in(), "metadata": object(metadata)?,
    });
    make_dir(dir)?;
    write_whole(&dir.join(WEIGHTS), &serialize(&tensors, None))?;
    write_json(&dir.join(CONFIG), &config)
}

/// Whether every row has length 1, to rounding.
async fn has_unit_rows(w: &Tensor<2>) -> Result<bool, Error> {
    let norms: Vec<f32> = device::read(w.clone().square().sum_dim(1).sqrt()).await?;
    Ok(norms.iter().all(|n| (n - 1.0).abs() < 1e-4))
}
