//! Cross-layer transcoders on disk: ours, a directory of a directory a layer; and circuit-tracer's
//! (`W_enc_{i}.safetensors`, `W_dec_{i}.safetensors`), which knows ReLU and JumpReLU.

use std::path::Path;

use burn::tensor::{Device, Tensor};
use serde_json::{Value, json};

use super::{
    CONFIG, Error, Format, Tensors, WeightDtype, cannot, circuit_tracer, make_dir, malformed,
    object, read_json, saelens, serialize, threshold, write_json,
};
use crate::capture::store::write_whole;
use crate::device;
use crate::sae::{Activation, CrossLayer, Sae};

const ARCHITECTURE: &str = "cross_layer_transcoder";

/// Whether a directory holds a cross-layer transcoder, ours or circuit-tracer's.
pub fn is_cross_layer(dir: &Path) -> bool {
    is_ours(dir) || dir.join("W_enc_0.safetensors").exists()
}

fn is_ours(dir: &Path) -> bool {
    let config = dir.join(CONFIG);
    config.exists() && read_json(&config).is_ok_and(|c| c["architecture"] == ARCHITECTURE)
}

/// Writes a cross-layer transcoder: `layers/0`, `layers/1`, … as [`save`](super::save) writes
/// autoencoders, and `cfg.json` last.
///
/// # Errors
/// As [`save_as`](super::save_as), a tensor that overflows being named with its layer; layers before it
/// are there then, and no `cfg.json`.
pub async fn save_cross_layer(
    transcoder: &CrossLayer,
    dir: &Path,
    metadata: Value,
    dtype: WeightDtype,
) -> Result<(), Error> {
    let metadata = object(&metadata)?;
    for (l, sae) in transcoder.layers().iter().enumerate() {
        let saved = saelens::save(sae, &layer_dir(dir, l), Value::Null, dtype).await;
        saved.map_err(|e| of_layer(e, l))?;
    }
    let config = json!({
        "architecture": ARCHITECTURE, "layers": transcoder.layers().len(),
        "d_in": transcoder.d_in(), "d_out": transcoder.d_out(), "metadata": metadata,
    });
    write_json(&dir.join(CONFIG), &config)
}

fn of_layer(error: Error, l: usize) -> Error {
    match error {
        Error::Overflow {
            tensor,
            value,
            dtype,
        } => Error::Overflow {
            tensor: format!("layers.{l}.{tensor}"),
            value,
            dtype,
        },
        other => other,
    }
}

fn layer_dir(dir: &Path, l: usize) -> std::path::PathBuf {
    dir.join("layers").join(l.to_string())
}

/// Reads a cross-layer transcoder, ours or circuit-tracer's, and its `metadata`.
///
/// # Errors
/// Names the file, and the tensor or setting that does not fit.
pub fn load_cross_layer(dir: &Path, device: &Device) -> Result<(CrossLayer, Value), Error> {
    let (layers, metadata) = match is_ours(dir) {
        true => ours(dir, device)?,
        false => of_circuit_tracer(dir, device)?,
    };
    let transcoder = CrossLayer::new(layers).map_err(|e| malformed(dir, e))?;
    Ok((transcoder, metadata))
}

fn ours(dir: &Path, device: &Device) -> Result<(Vec<Sae>, Value), Error> {
    let path = dir.join(CONFIG);
    let config = read_json(&path)?;
    let count = super::whole(&config["layers"]).filter(|n| *n <= 1024);
    let count = count.ok_or_else(|| malformed(&path, format!("layers = {}", config["layers"])))?;
    let layer = |l| saelens::read(&layer_dir(dir, l), device).map(|loaded| loaded.sae);
    let layers = (0..count).map(layer).collect::<Result<_, _>>()?;
    Ok((layers, config["metadata"].clone()))
}

fn of_circuit_tracer(dir: &Path, device: &Device) -> Result<(Vec<Sae>, Value), Error> {
    let file = |side: &str, l: usize| dir.join(format!("W_{side}_{l}.safetensors"));
    let count = (0..).take_while(|l| file("enc", *l).exists()).count();
    let layer = |l: usize| {
        let (enc, dec) = (
            Tensors::open(&file("enc", l))?,
            Tensors::open(&file("dec", l))?,
        );
        let [d_sae, d_in] = enc.shape2(&format!("W_enc_{l}"))?;
        let name = format!("W_dec_{l}");
        let &[rows, sites, d_out] = dec.shape(&name)? else {
            let shape = dec.shape(&name)?;
            let reason = format!("tensor `{name}` is {shape:?}; [d_sae, layers, d] is wanted");
            return Err(malformed(&dec.path, reason));
        };
        if [d_sae, d_in, d_out].contains(&0) {
            return Err(malformed(&dec.path, format!("tensor `{name}` is empty")));
        }
        if (rows, sites) != (d_sae, count - l) {
            let reason = format!(
                "tensor `{name}` writes from {rows} latents to {sites} layers; {d_sae} and {} are wanted",
                count - l
            );
            return Err(malformed(&dec.path, reason));
        }
        let own = enc.values(&format!("b_dec_{l}"), &[d_out])?;
        let mut b_dec = own.to_vec();
        b_dec.resize(sites * d_out, 0.0);
        let name_of_threshold = format!("threshold_{l}");
        Ok(Sae {
            w_enc: enc.r2(&format!("W_enc_{l}"), [d_sae, d_in], device)?,
            b_enc: enc.r1(&format!("b_enc_{l}"), d_sae, device)?,
            w_dec: Tensor::<1>::from_data(dec.values(&name, &[rows, sites, d_out])?, device)
                .reshape([rows, sites * d_out]),
            b_dec: Tensor::from_data(&b_dec[..], device),
            w_skip: None,
            transcoder: true,
            activation: match enc.has(&name_of_threshold) {
                true => Activation::JumpRelu {
                    threshold: enc.r1(&name_of_threshold, d_sae, device)?,
                },
                false => Activation::Relu,
            },
            subtract_b_dec: false,
            sites,
        })
    };
    let layers = (0..count).map(layer).collect::<Result<_, _>>()?;
    Ok((layers, circuit_tracer::metadata(dir, count)?))
}

/// Writes a cross-layer transcoder for circuit-tracer. A [`BatchTopK`](Activation::BatchTopK) layer is
/// written as the JumpReLU layer that it is when used.
///
/// # Errors
/// Says what the format cannot hold; a file could not be written; the device failed.
pub async fn write_cross_layer(
    transcoder: &CrossLayer,
    metadata: &Value,
    dir: &Path,
) -> Result<(), Error> {
    let layers = transcoder.layers();
    for sae in layers {
        if threshold(sae).is_none() {
            let what = format!("{} latents, only ReLU and JumpReLU", sae.activation.name());
            return Err(cannot(Format::CircuitTracer, what));
        }
    }
    make_dir(dir)?;
    for (l, sae) in layers.iter().enumerate() {
        let mut enc = vec![
            matrix(format!("W_enc_{l}"), &sae.w_enc).await?,
            vector(format!("b_enc_{l}"), sae.b_enc.clone()).await?,
            vector(
                format!("b_dec_{l}"),
                sae.b_dec.clone().narrow(0, 0, transcoder.d_out()),
            )
            .await?,
        ];
        if !matches!(sae.activation, Activation::Relu) {
            let threshold = threshold(sae).expect("it was looked for above");
            enc.push(vector(format!("threshold_{l}"), threshold).await?);
        }
        let (name, shape, values) = matrix(format!("W_dec_{l}"), &sae.w_dec).await?;
        let dec = (name, vec![shape[0], sae.sites, transcoder.d_out()], values);
        let file = |side: &str| dir.join(format!("W_{side}_{l}.safetensors"));
        write_whole(&file("dec"), &serialize(&[dec], None))?;
        write_whole(&file("enc"), &serialize(&enc, None))?;
    }
    write_whole(&dir.join("config.yaml"), config(metadata).as_bytes())?;
    Ok(())
}

/// `config.yaml`: the hooks of the first layer stand for all.
fn config(metadata: &Value) -> String {
    let mut text = String::from("model_kind: cross_layer_transcoder\n");
    let hook = |name: &str| {
        let first = metadata[name].as_str()?.split(',').next()?;
        first.splitn(3, '.').nth(2)
    };
    let lines = [
        ("model_name", metadata["model_name"].as_str()),
        ("feature_input_hook", hook("hook_name")),
        ("feature_output_hook", hook("hook_name_out")),
    ];
    for (key, value) in lines {
        if let Some(value) = value {
            text += &format!("{key}: {}\n", json!(value));
        }
    }
    text
}

type Named = (String, Vec<usize>, Vec<f32>);

async fn matrix(name: String, w: &Tensor<2>) -> Result<Named, Error> {
    Ok((name, w.dims().to_vec(), device::read(w.clone()).await?))
}

async fn vector(name: String, v: Tensor<1>) -> Result<Named, Error> {
    Ok((name, v.dims().to_vec(), device::read(v).await?))
}
