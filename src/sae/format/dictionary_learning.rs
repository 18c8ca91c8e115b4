//! Files of `dictionary_learning` (Marks, Karvonen & Mueller 2024): `ae.pt`, a state dict, with
//! `config.json` beside it, whose `trainer.dict_class` says what the state dict is of.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde_json::{Map, Value, json};

use super::pickle::{self, Pickle};
use super::plain::{across, filled, kept, linear, matrix, rows, single, theta, vector};
use super::pt::{self, Checkpoint, Entry};
use super::tensors::Tensors;
use super::{
    Error, Format, Loaded, cannot, least, make_parent, malformed, read_file, read_json,
    subtracting, write_json,
};
use crate::capture::store::write_whole;
use crate::sae::{Activation, Sae};

const FORMAT: Format = Format::DictionaryLearning;
/// Where its settings are in our metadata.
const NAME: &str = "dictionary_learning";
const WEIGHTS: &str = "ae.pt";
const CONFIG: &str = "config.json";

/// Reads the directory of a trainer, its `ae.pt`, or one of its `checkpoints/ae_{step}.pt`.
///
/// The state of a run that is not over (`step`, `ae`, `optimizer`, `config`, `norm_factor`), which
/// the tool writes to the same place, is read too, and scaled back to raw activations. Without a
/// `config.json` the names of the tensors say what it is; those of `AutoEncoderTopK` and
/// `BatchTopKSAE` do not differ, so that those two need it. The decoder of an `AutoEncoder` is made
/// unit length, latents taking the difference, as the tool's own loader does.
///
/// Left out: the threshold that `AutoEncoderTopK` keeps beside its `k`. What `config.json` holds is
/// in `metadata.dictionary_learning`, with the group sizes of a Matryoshka autoencoder.
///
/// # Errors
/// Names the file, and what in it does not fit.
pub(super) fn read(path: &Path, device: &Device) -> Result<Loaded, Error> {
    let weights = match path.is_dir() {
        true => path.join(WEIGHTS),
        false => path.to_path_buf(),
    };
    let config = match config_of(&weights) {
        Some(path) => read_json(&path)?,
        None => Value::Null,
    };
    parse(&weights, &read_file(&weights)?, config, device)
}

/// The configuration beside a file, or beside the folder `checkpoints` that it is in.
fn config_of(weights: &Path) -> Option<PathBuf> {
    let dir = weights.parent()?;
    let dir = match dir.ends_with("checkpoints") {
        true => dir.parent()?,
        false => dir,
    };
    Some(dir.join(CONFIG)).filter(|path| path.is_file())
}

/// The same for the bytes of a file, whose `config.json` this is, or null.
pub(super) fn parse(
    path: &Path,
    bytes: &[u8],
    mut config: Value,
    device: &Device,
) -> Result<Loaded, Error> {
    let file = Checkpoint::parse(path, bytes)?;
    let running = file.pickle.get(file.root(), "ae");
    let tensors = file.tensors(running.unwrap_or(file.root()))?;
    if !config["trainer"].is_object() {
        config = json!({"trainer": saved_config(&file.pickle)});
    }
    let (class, mut sae) = autoencoder(tensors, &mut config, device)?;
    if running.is_some() {
        sae = sae.rescale(norm_factor(path, &file.pickle)?);
    }
    let mut metadata = json!({NAME: config});
    let trainer = &metadata[NAME]["trainer"];
    if let Some(model) = trainer["lm_name"].as_str().map(str::to_string) {
        metadata["model_name"] = model.into();
    }
    metadata[NAME]["trainer"]["dict_class"] = class.into();
    Ok(Loaded {
        sae,
        metadata,
        format: FORMAT,
    })
}

/// The plain settings of a running state's `config`.
fn saved_config(pickle: &Pickle) -> Map<String, Value> {
    use pickle::Value as Saved;
    let config = pickle.get(pickle.root(), "config");
    let items = config.and_then(|config| pickle.items(config));
    let plain = items.unwrap_or_default().iter().filter_map(|item| {
        let (Saved::Str(key), value) = item else {
            return None;
        };
        let value = match value {
            Saved::Bool(x) => json!(x),
            Saved::Int(x) => json!(x),
            Saved::Float(x) => json!(x),
            Saved::Str(x) => json!(**x),
            _ => return None,
        };
        Some((key.to_string(), value))
    });
    plain.collect()
}

/// What activations were divided by when a running state was trained.
fn norm_factor(path: &Path, pickle: &Pickle) -> Result<f64, Error> {
    use pickle::Value as Saved;
    let factor = match pickle.get(pickle.root(), "norm_factor") {
        None | Some(Saved::None) => 1.0,
        Some(Saved::Int(n)) => *n as f64,
        Some(Saved::Float(x)) => *x,
        Some(_) => f64::NAN,
    };
    match factor > 0.0 && factor.is_finite() {
        true => Ok(factor),
        false => Err(malformed(path, "`norm_factor` is no positive number")),
    }
}

/// Which class it is, and what it makes of the tensors.
fn autoencoder(
    mut tensors: Tensors,
    config: &mut Value,
    device: &Device,
) -> Result<(&'static str, Sae), Error> {
    let class = class(&tensors, config)?;
    let t = &tensors;
    let sae = match class {
        "AutoEncoder" => {
            unit_decoder(&mut tensors)?;
            linear(&tensors, ["encoder.bias", "bias"], Activation::Relu, device)?
        }
        "AutoEncoderNew" => Sae {
            subtract_b_dec: false,
            ..linear(
                t,
                ["encoder.bias", "decoder.bias"],
                Activation::Relu,
                device,
            )?
        },
        "GatedAutoEncoder" => {
            let [d_sae, _] = filled(t, "encoder.weight")?;
            let activation = Activation::Gated {
                r_mag: t.r1("r_mag", d_sae, device)?,
                b_mag: t.r1("mag_bias", d_sae, device)?,
            };
            linear(t, ["gate_bias", "decoder_bias"], activation, device)?
        }
        "JumpReluAutoEncoder" => {
            let [_, d_sae] = filled(t, "W_enc")?;
            let threshold = theta(t, d_sae, device)?;
            Sae {
                subtract_b_dec: false,
                ..rows(t, Activation::JumpRelu { threshold }, device)?
            }
        }
        "AutoEncoderTopK" => {
            let [d_sae, _] = filled(t, "encoder.weight")?;
            let k = k(t, config, d_sae)?;
            linear(t, ["encoder.bias", "b_dec"], Activation::TopK { k }, device)?
        }
        "BatchTopKSAE" => {
            let [d_sae, _] = filled(t, "encoder.weight")?;
            let activation = batch_topk(t, config, d_sae, device)?;
            linear(t, ["encoder.bias", "b_dec"], activation, device)?
        }
        _ => {
            let [_, d_sae] = filled(t, "W_enc")?;
            let activation = batch_topk(t, config, d_sae, device)?;
            config["trainer"]["group_sizes"] = json!(groups(t, d_sae)?);
            rows(t, activation, device)?
        }
    };
    Ok((class, sae))
}

const CLASSES: [&str; 7] = [
    "AutoEncoder",
    "AutoEncoderNew",
    "GatedAutoEncoder",
    "JumpReluAutoEncoder",
    "AutoEncoderTopK",
    "BatchTopKSAE",
    "MatryoshkaBatchTopKSAE",
];

/// The class that the configuration names, or that these tensors can only be of.
fn class(tensors: &Tensors, config: &Value) -> Result<&'static str, Error> {
    let reason = match config["trainer"]["dict_class"].as_str() {
        Some(named) => match CLASSES.into_iter().find(|class| *class == named) {
            Some(class) => return Ok(class),
            None => format!("dict_class `{named}` is not known"),
        },
        None if tensors.has("bias") => return Ok("AutoEncoder"),
        None if tensors.has("decoder.bias") => return Ok("AutoEncoderNew"),
        None if tensors.has("decoder_bias") => return Ok("GatedAutoEncoder"),
        None if tensors.has("group_sizes") => return Ok("MatryoshkaBatchTopKSAE"),
        None if tensors.has("W_enc") => return Ok("JumpReluAutoEncoder"),
        None if tensors.has("k") => {
            "AutoEncoderTopK or BatchTopKSAE: without config.json beside it there is no telling"
                .into()
        }
        None => "no autoencoder of dictionary_learning".into(),
    };
    Err(malformed(&tensors.path, reason))
}

/// Latents kept a row: the tensor `k`, which older files lack, or the setting.
fn k(tensors: &Tensors, config: &Value, d_sae: usize) -> Result<usize, Error> {
    let set = config["trainer"]["k"].as_f64();
    let k = match tensors.has("k") {
        true => tensors.scalar("k")?.into(),
        false => set.unwrap_or(0.0),
    };
    if set.is_some_and(|set| set != k) {
        let reason = format!("k = {k}, yet config.json says {}", config["trainer"]["k"]);
        return Err(malformed(&tensors.path, reason));
    }
    kept(tensors, k, d_sae)
}

fn batch_topk(
    tensors: &Tensors,
    config: &Value,
    d_sae: usize,
    device: &Device,
) -> Result<Activation, Error> {
    let threshold = tensors.scalar("threshold")?.max(0.0); // behind a ReLU, where it is the same
    Ok(Activation::BatchTopK {
        k: k(tensors, config, d_sae)?,
        threshold: burn::tensor::Tensor::from_floats([threshold], device),
    })
}

/// Sizes of a Matryoshka autoencoder's groups.
fn groups(tensors: &Tensors, d_sae: usize) -> Result<Vec<usize>, Error> {
    let &[n] = tensors.shape("group_sizes")? else {
        let reason = "tensor `group_sizes` is no vector";
        return Err(malformed(&tensors.path, reason));
    };
    let sizes = tensors.values("group_sizes", &[n])?;
    let sizes: Vec<usize> = sizes.iter().map(|&n| n as usize).collect();
    let sum = sizes.iter().try_fold(0usize, |sum, &n| sum.checked_add(n));
    match sum == Some(d_sae) {
        true => Ok(sizes),
        false => Err(malformed(
            &tensors.path,
            format!("tensor `group_sizes` does not add up to {d_sae} latents"),
        )),
    }
}

/// Divides every decoder direction by its length and multiplies its encoder weights and bias by it,
/// unless all are 1 to within 1e-5.
fn unit_decoder(tensors: &mut Tensors) -> Result<(), Error> {
    let [d_sae, d_in] = filled(tensors, "encoder.weight")?;
    let decoder = tensors.values("decoder.weight", &[d_in, d_sae])?;
    tensors.values("encoder.bias", &[d_sae])?;
    let mut lengths = vec![0f64; d_sae];
    for row in decoder.chunks(d_sae) {
        let squares = lengths.iter_mut().zip(row);
        squares.for_each(|(sum, &x)| *sum += f64::from(x).powi(2));
    }
    let length = |sum: &f64| if *sum > 0.0 { sum.sqrt() as f32 } else { 1.0 };
    let lengths: Vec<f32> = lengths.iter().map(length).collect();
    if lengths.iter().all(|l| (l - 1.0).abs() <= 1e-5) {
        return Ok(());
    }
    for (name, across) in [
        ("decoder.weight", 1),
        ("encoder.weight", d_in),
        ("encoder.bias", 1),
    ] {
        let tensor = tensors.map.get_mut(name).expect("it has this shape");
        for (i, x) in tensor.values.iter_mut().enumerate() {
            let length = lengths[i / across % d_sae];
            match name {
                "decoder.weight" => *x /= length,
                _ => *x *= length,
            }
        }
    }
    Ok(())
}

/// Writes `ae.pt` and `config.json` into the directory `path`, or the state dict alone if `path`
/// ends in `.pt`.
///
/// A Matryoshka autoencoder keeps its class if `metadata.dictionary_learning.trainer` names it and
/// has its `group_sizes`. Where the class takes `b_dec` from its input and this one does not, or the
/// other way round, the encoder's bias makes up for it.
///
/// # Errors
/// [`Error::Config`] for what the tool has no class for; a file could not be written.
pub(super) async fn write(sae: &Sae, metadata: &Value, path: &Path) -> Result<(), Error> {
    single(sae, FORMAT)?;
    if least(sae).await? < 0.0 {
        return Err(cannot(
            FORMAT,
            "a threshold below 0, which it applies behind a ReLU",
        ));
    }
    let mut config = match &metadata[NAME] {
        Value::Object(config) => Value::Object(config.clone()),
        _ => json!({}),
    };
    if !config["trainer"].is_object() {
        config["trainer"] = json!({});
    }
    let (class, dict) = state_dict(sae, &config).await?;
    let alone = path.extension().is_some_and(|e| e == "pt");
    let weights = match alone {
        true => path.into(),
        false => path.join(WEIGHTS),
    };
    make_parent(&weights)?;
    let bytes = pt::write(dict).map_err(|e| malformed(&weights, e))?;
    write_whole(&weights, &bytes)?;
    if alone {
        return Ok(());
    }
    let trainer = &mut config["trainer"];
    trainer["dict_class"] = class.into();
    trainer["activation_dim"] = sae.d_in().into();
    trainer["dict_size"] = sae.d_sae().into();
    if let Some(k) = sae.k() {
        trainer["k"] = k.into();
    }
    if trainer["lm_name"].is_null() && metadata["model_name"].is_string() {
        trainer["lm_name"] = metadata["model_name"].clone();
    }
    write_json(&path.join(CONFIG), &config)
}

type StateDict = Vec<(&'static str, Entry)>;

async fn state_dict(sae: &Sae, config: &Value) -> Result<(&'static str, StateDict), Error> {
    let sae = &as_stored(sae.clone());
    Ok(match &sae.activation {
        Activation::Relu if sae.subtract_b_dec => {
            let dict = linear_dict(sae, ["encoder.bias", "bias"]).await?;
            ("AutoEncoder", dict)
        }
        Activation::Relu => {
            let dict = linear_dict(sae, ["encoder.bias", "decoder.bias"]).await?;
            ("AutoEncoderNew", dict)
        }
        Activation::Gated { r_mag, b_mag } => {
            let mut dict = linear_dict(sae, ["gate_bias", "decoder_bias"]).await?;
            let len = vec![sae.d_sae()];
            dict.push(("r_mag", Entry::F32(len.clone(), vector(r_mag).await?)));
            dict.push(("mag_bias", Entry::F32(len, vector(b_mag).await?)));
            ("GatedAutoEncoder", dict)
        }
        Activation::JumpRelu { threshold } => {
            let mut dict = rows_dict(sae).await?;
            let threshold = Entry::F32(vec![sae.d_sae()], vector(threshold).await?);
            dict.push(("threshold", threshold));
            ("JumpReluAutoEncoder", dict)
        }
        Activation::TopK { k } => {
            let mut dict = linear_dict(sae, ["encoder.bias", "b_dec"]).await?;
            dict.push(("k", integer(*k)?));
            dict.push(("threshold", Entry::F32(vec![], vec![-1.0])));
            ("AutoEncoderTopK", dict)
        }
        Activation::BatchTopK { k, threshold } => {
            let groups = group_sizes(config, sae.d_sae());
            let (class, mut dict) = match groups {
                None => {
                    let dict = linear_dict(sae, ["encoder.bias", "b_dec"]).await?;
                    ("BatchTopKSAE", dict)
                }
                Some(sizes) => {
                    let mut dict = rows_dict(sae).await?;
                    dict.push(("group_sizes", Entry::I64(vec![sizes.len()], sizes)));
                    ("MatryoshkaBatchTopKSAE", dict)
                }
            };
            dict.push(("k", integer(*k)?));
            dict.push(("threshold", Entry::F32(vec![], vector(threshold).await?)));
            (class, dict)
        }
    })
}

/// With `b_dec` taken from the input or not, as the class of this activation does.
fn as_stored(sae: Sae) -> Sae {
    match sae.activation {
        Activation::Relu => sae, // there is a class for either
        Activation::JumpRelu { .. } => subtracting(sae, false),
        _ => subtracting(sae, true),
    }
}

/// The group sizes of a Matryoshka autoencoder, if these settings are of one of this width.
fn group_sizes(config: &Value, d_sae: usize) -> Option<Vec<i64>> {
    let trainer = &config["trainer"];
    if trainer["dict_class"] != "MatryoshkaBatchTopKSAE" {
        return None;
    }
    let sizes = trainer["group_sizes"].as_array()?;
    let sizes: Option<Vec<i64>> = sizes.iter().map(Value::as_i64).collect();
    sizes.filter(|s| s.iter().all(|&n| n > 0) && s.iter().sum::<i64>() == d_sae as i64)
}

fn integer(k: usize) -> Result<Entry, Error> {
    let k = i32::try_from(k).map_err(|_| Error::Config(format!("k = {k} is too large")))?;
    Ok(Entry::I32(vec![], vec![k]))
}

async fn linear_dict(sae: &Sae, [b_enc, b_dec]: [&'static str; 2]) -> Result<StateDict, Error> {
    let (d, f) = (sae.d_in(), sae.d_sae());
    Ok(vec![
        (
            "encoder.weight",
            Entry::F32(vec![f, d], matrix(&sae.w_enc).await?),
        ),
        (b_enc, Entry::F32(vec![f], vector(&sae.b_enc).await?)),
        (
            "decoder.weight",
            Entry::F32(vec![d, f], across(&sae.w_dec).await?),
        ),
        (b_dec, Entry::F32(vec![d], vector(&sae.b_dec).await?)),
    ])
}

async fn rows_dict(sae: &Sae) -> Result<StateDict, Error> {
    let (d, f) = (sae.d_in(), sae.d_sae());
    Ok(vec![
        ("W_enc", Entry::F32(vec![d, f], across(&sae.w_enc).await?)),
        ("b_enc", Entry::F32(vec![f], vector(&sae.b_enc).await?)),
        ("W_dec", Entry::F32(vec![f, d], matrix(&sae.w_dec).await?)),
        ("b_dec", Entry::F32(vec![d], vector(&sae.b_dec).await?)),
    ])
}
