//! One layer's transcoder of circuit-tracer: `layer_{i}.safetensors`, beside it `config.yaml` about
//! all layers. The encoder has one row a latent, the transpose of SAELens's; `b_dec` is never taken
//! from the input.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde_json::{Value, json};

use super::{
    Error, Format, Loaded, Tensors, cannot, detect, dir_of, make_dir, malformed, named, object,
    read_file, serialize, top_k, without_subtraction,
};
use crate::capture::store::write_whole;
use crate::sae::{Activation, Sae};

const CONFIG: &str = "config.yaml";
/// Its names of the hooks, and SAELens's.
const HOOKS: [(&str, &str); 2] = [
    ("feature_input_hook", "hook_name"),
    ("feature_output_hook", "hook_name_out"),
];
const THRESHOLD: &str = "activation_function.threshold";

pub(super) fn read(path: &Path, device: &Device) -> Result<Loaded, Error> {
    let path = match path.is_dir() {
        true => only_layer(path)?,
        false => path.into(),
    };
    let config = Config::open(&dir_of(&path).join(CONFIG))?;
    let tensors = Tensors::open(&path)?;
    let [d_sae, d_in] = tensors.shape2("W_enc")?;
    let sae = Sae {
        w_enc: tensors.r2("W_enc", [d_sae, d_in], device)?,
        b_enc: tensors.r1("b_enc", d_sae, device)?,
        w_dec: tensors.r2("W_dec", [d_sae, d_in], device)?,
        b_dec: tensors.r1("b_dec", d_in, device)?,
        w_skip: match tensors.has("W_skip") {
            true => Some(tensors.r2("W_skip", [d_in, d_in], device)?),
            false => None,
        },
        activation: activation(&tensors, &config, d_sae, device)?,
        transcoder: true,
        subtract_b_dec: false,
        sites: 1,
    };
    Ok(Loaded {
        sae,
        metadata: config.metadata(&path),
        format: Format::CircuitTracer,
    })
}

/// The one `layer_{i}.safetensors` of a directory.
fn only_layer(dir: &Path) -> Result<PathBuf, Error> {
    match &layers(dir)?[..] {
        [name] => Ok(dir.join(name)),
        [] => Err(malformed(dir, "no layer_{i}.safetensors")),
        many => {
            let reason = format!("{} layers; name one file, like {}", many.len(), many[0]);
            Err(malformed(dir, reason))
        }
    }
}

fn activation(
    tensors: &Tensors,
    config: &Config,
    d_sae: usize,
    device: &Device,
) -> Result<Activation, Error> {
    if tensors.has(THRESHOLD) {
        let threshold = tensors.r1(THRESHOLD, d_sae, device)?;
        return Ok(Activation::JumpRelu { threshold });
    }
    if tensors.has("k") {
        let k = json!(tensors.scalar("k")?);
        let k = top_k(&tensors.path, &k, d_sae)?;
        return Ok(Activation::TopK { k });
    }
    match config.get("activation") {
        Some("topk") => {
            let k = config.get("k").and_then(|k| k.parse::<u64>().ok());
            let k = top_k(&config.path, &json!(k), d_sae)?;
            Ok(Activation::TopK { k })
        }
        None | Some("relu") => Ok(Activation::Relu),
        Some("jump_relu" | "jumprelu") => {
            let reason = format!("tensor `{THRESHOLD}` is missing");
            Err(malformed(&tensors.path, reason))
        }
        Some(other) => {
            let reason = format!("`activation` is {other}; there are relu, topk and jump_relu");
            Err(malformed(&config.path, reason))
        }
    }
}

/// The plain `key: value` lines of a YAML file; nothing if there is no file.
struct Config {
    path: PathBuf,
    lines: Vec<(String, String)>,
}

impl Config {
    fn open(path: &Path) -> Result<Self, Error> {
        let text = match path.exists() {
            true => read_file(path)?,
            false => Vec::new(),
        };
        let text = String::from_utf8(text).map_err(|e| malformed(path, e))?;
        let line = |line: &str| {
            let (key, value) = line.split_once(": ")?;
            let value = value.trim().trim_matches(['"', '\'']);
            (!key.starts_with([' ', '#', '-'])).then(|| (key.to_string(), value.to_string()))
        };
        Ok(Self {
            path: path.into(),
            lines: text.lines().filter_map(line).collect(),
        })
    }

    fn get(&self, key: &str) -> Option<&str> {
        let found = self.lines.iter().find(|(name, _)| name == key);
        found.map(|(_, value)| value.as_str())
    }

    /// SAELens's names for what the file says about this layer.
    fn metadata(&self, weights: &Path) -> Value {
        let mut found = json!({});
        if let Some(model) = self.get("model_name") {
            found["model_name"] = json!(model);
        }
        let name = weights.file_stem().unwrap_or_default().to_string_lossy();
        let Some(layer) = name.strip_prefix("layer_") else {
            return found;
        };
        for (from, to) in HOOKS {
            if let Some(hook) = self.get(from) {
                found[to] = json!(format!("blocks.{layer}.{hook}"));
            }
        }
        found
    }
}

/// SAELens's names for what `config.yaml` says about the layers of a cross-layer transcoder; hooks are
/// joined by commas.
pub(super) fn metadata(dir: &Path, layers: usize) -> Result<Value, Error> {
    let config = Config::open(&dir.join(CONFIG))?;
    let mut found = json!({});
    if let Some(model) = config.get("model_name") {
        found["model_name"] = json!(model);
    }
    for (from, to) in HOOKS {
        if let Some(hook) = config.get(from) {
            let hooks = (0..layers).map(|l| format!("blocks.{l}.{hook}"));
            found[to] = json!(hooks.collect::<Vec<_>>().join(","));
        }
    }
    Ok(found)
}

pub(super) async fn write(sae: &Sae, metadata: &Value, path: &Path) -> Result<(), Error> {
    if sae.d_in() != sae.d_out() {
        let what = format!(
            "an output of width {} for an input of {}",
            sae.d_out(),
            sae.d_in()
        );
        return Err(cannot(Format::CircuitTracer, what));
    }
    let sae = without_subtraction(sae.clone());
    let mut tensors = vec![
        named("W_enc", sae.w_enc.clone()).await?,
        named("b_enc", sae.b_enc.clone()).await?,
        named("W_dec", sae.w_dec.clone()).await?,
        named("b_dec", sae.b_dec.clone()).await?,
    ];
    match &sae.activation {
        Activation::Relu | Activation::TopK { .. } => {}
        Activation::JumpRelu { .. } | Activation::BatchTopK { .. } => {
            let threshold = super::threshold(&sae).expect("these have one");
            tensors.push(named(THRESHOLD, threshold).await?);
        }
        Activation::Gated { .. } => return Err(cannot(Format::CircuitTracer, "gated latents")),
    }
    if let Some(w_skip) = &sae.w_skip {
        tensors.push(named("W_skip", w_skip.clone()).await?);
    }
    let metadata = Value::from(object(metadata)?);
    let (dir, weights) = places(path, &metadata);
    make_dir(&dir)?;
    write_whole(&weights, &serialize(&tensors, None))?;
    let text = config(&sae, &metadata, &layers(&dir)?);
    Ok(write_whole(&dir.join(CONFIG), text.as_bytes())?)
}

fn layers(dir: &Path) -> Result<Vec<String>, Error> {
    let mut names = detect::names(dir)?;
    names.retain(|name| detect::is_layer(name));
    Ok(names)
}

/// The directory and the weight file: `path` is either.
fn places(path: &Path, metadata: &Value) -> (PathBuf, PathBuf) {
    if path.extension().is_some_and(|e| e == "safetensors") {
        return (path.parent().unwrap_or(Path::new("")).into(), path.into());
    }
    let (layer, _) = layer_of(&metadata["hook_name"]).unwrap_or(("0", ""));
    let name = format!("layer_{layer}.safetensors");
    (path.into(), path.join(name))
}

/// `blocks.3.hook_mlp_in` is `("3", "hook_mlp_in")`.
fn layer_of(hook: &Value) -> Option<(&str, &str)> {
    hook.as_str()?.strip_prefix("blocks.")?.split_once('.')
}

/// About all layers of the directory, by what is known of this one.
fn config(sae: &Sae, metadata: &Value, layers: &[String]) -> String {
    let mut text = String::from("model_kind: transcoder_set\n");
    let mut line = |key: &str, value: &dyn std::fmt::Display| {
        writeln!(text, "{key}: {value}").expect("a string takes any text");
    };
    if let Some(model) = metadata["model_name"].as_str() {
        line("model_name", &format!("\"{}\"", model.replace('"', "")));
    }
    for (from, to) in [
        ("hook_name", "feature_input_hook"),
        ("hook_name_out", "feature_output_hook"),
    ] {
        if let Some((_, hook)) = layer_of(&metadata[from]) {
            line(to, &format!("\"{}\"", hook.replace('"', "")));
        }
    }
    match sae.activation {
        Activation::TopK { k } => {
            line("activation", &"topk");
            line("k", &k);
        }
        Activation::Relu => line("activation", &"relu"),
        _ => line("activation", &"jump_relu"),
    }
    text.push_str("transcoders:\n");
    layers
        .iter()
        .for_each(|name| text.push_str(&format!("- {name}\n")));
    text
}
