//! Crosscoders of Kissane's `crosscoder-model-diff-replication` (2024): `cc_weights.pt` and
//! `cfg.json`.

use std::path::Path;

use burn::tensor::Device;
use serde_json::{Value, json};

use super::plain::{across, matrix, no_place, rows, vector, weights_of};
use super::pt::{self, Checkpoint, Entry};
use super::{
    Error, Format, Loaded, cannot, make_parent, malformed, read_file, read_json, subtracting,
    write_json,
};
use crate::capture::store::write_whole;
use crate::sae::{Activation, Sae};

const FORMAT: Format = Format::Crosscoder;
/// Where its settings are in our metadata.
const NAME: &str = "crosscoder";
const WEIGHTS: &str = "cc_weights.pt";
const CONFIG: &str = "cfg.json";

/// Reads a directory, or the weights alone. The sites lie side by side in a row, in the file's
/// order. What `cfg.json` holds, if there is one, is in `metadata.crosscoder`.
///
/// # Errors
/// Names the file, and what in it does not fit.
pub(super) fn read(path: &Path, device: &Device) -> Result<Loaded, Error> {
    let weights = weights_of(path, WEIGHTS);
    let mut loaded = parse(&weights, &read_file(&weights)?, device)?;
    let config = weights.with_file_name(CONFIG);
    if config.is_file() {
        let config = read_json(&config)?;
        loaded.metadata = match config["model_name"].clone() {
            Value::String(model) => json!({"model_name": model, NAME: config}),
            _ => json!({NAME: config}),
        };
    }
    Ok(loaded)
}

/// The same for the bytes of the weights: `W_enc` `[sites, d, d_sae]`, `W_dec` `[d_sae, sites, d]`,
/// `b_enc` `[d_sae]`, `b_dec` `[sites, d]`.
pub(super) fn parse(path: &Path, bytes: &[u8], device: &Device) -> Result<Loaded, Error> {
    let file = Checkpoint::parse(path, bytes)?;
    let mut tensors = file.tensors(file.root())?;
    let &[sites, d, d_sae] = tensors.shape("W_enc")? else {
        let reason = format!("tensor `W_enc` is {:?}", tensors.shape("W_enc")?);
        return Err(malformed(path, reason + "; three dimensions wanted"));
    };
    let width = sites.saturating_mul(d);
    for (name, shape, flat) in [
        ("W_enc", vec![sites, d, d_sae], vec![width, d_sae]),
        ("W_dec", vec![d_sae, sites, d], vec![d_sae, width]),
        ("b_dec", vec![sites, d], vec![width]),
    ] {
        tensors.values(name, &shape)?;
        let tensor = tensors.map.get_mut(name).expect("it has this shape");
        tensor.shape = flat;
    }
    Ok(Loaded {
        sae: Sae {
            subtract_b_dec: false,
            sites,
            ..rows(&tensors, Activation::Relu, device)?
        },
        metadata: json!({}),
        format: FORMAT,
    })
}

/// Writes `cc_weights.pt` and `cfg.json` into a directory.
///
/// # Errors
/// [`Error::Config`] for an activation other than ReLU or a skip connection; a file could not be
/// written.
pub(super) async fn write(sae: &Sae, metadata: &Value, path: &Path) -> Result<(), Error> {
    if !matches!(sae.activation, Activation::Relu) {
        return Err(no_place(sae, FORMAT));
    }
    if sae.is_transcoder() || !sae.d_in().is_multiple_of(sae.sites) {
        let what = "a transcoder, nor sites of several widths";
        return Err(cannot(FORMAT, what));
    }
    let sae = subtracting(sae.clone(), false);
    let (n, d, f) = (sae.sites, sae.d_in() / sae.sites, sae.d_sae());
    let dict = vec![
        (
            "W_enc",
            Entry::F32(vec![n, d, f], across(&sae.w_enc).await?),
        ),
        (
            "W_dec",
            Entry::F32(vec![f, n, d], matrix(&sae.w_dec).await?),
        ),
        ("b_enc", Entry::F32(vec![f], vector(&sae.b_enc).await?)),
        ("b_dec", Entry::F32(vec![n, d], vector(&sae.b_dec).await?)),
    ];
    let weights = weights_of(path, WEIGHTS);
    make_parent(&weights)?;
    let bytes = pt::write(dict).map_err(|e| malformed(&weights, e))?;
    write_whole(&weights, &bytes)?;
    let mut config = match &metadata[NAME] {
        Value::Object(config) => Value::Object(config.clone()),
        _ => json!({"model_name": metadata["model_name"]}),
    };
    config["d_in"] = d.into();
    config["dict_size"] = f.into();
    config["enc_dtype"] = "fp32".into();
    write_json(&weights.with_file_name(CONFIG), &config)
}
