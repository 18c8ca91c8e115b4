use std::path::Path;

use safetensors::SafeTensors;

use super::pt::Checkpoint;
use super::{Error, Format, WEIGHTS, language_model_saes, malformed, pickle, read_file};

/// Files that tell a format by their names, under a directory.
const SIGNS: [(&str, Format); 9] = [
    (WEIGHTS, Format::SaeLens),
    ("sae.safetensors", Format::Sparsify),
    ("params.safetensors", Format::GemmaScope2),
    ("params.npz", Format::GemmaScope),
    ("hyperparams.json", Format::LlamaScope),
    ("ae.pt", Format::DictionaryLearning),
    ("cc_weights.pt", Format::Crosscoder),
    ("autoencoder.pt", Format::OpenAi),
    ("layer_0.safetensors", Format::CircuitTracer),
];

/// Tells which tool's autoencoder lies at `path`, a directory or a weight file: by the names of the
/// files, and where these say nothing by the names of the tensors.
///
/// # Errors
/// Nothing is there, or nothing that any format knows: names the path and what it holds.
pub fn detect(path: &Path) -> Result<Format, Error> {
    if language_model_saes::is_there(path) {
        return Ok(Format::LanguageModelSaes);
    }
    match path.is_dir() {
        true => of_dir(path),
        false => of_file(path),
    }
}

fn of_dir(dir: &Path) -> Result<Format, Error> {
    if let Some((_, format)) = SIGNS.iter().find(|(name, _)| dir.join(name).exists()) {
        return Ok(*format);
    }
    let names = names(dir)?;
    let ends = |end: &str| names.iter().any(|n| n.ends_with(end));
    match names.iter().find(|n| is_layer(n)) {
        Some(_) => Ok(Format::CircuitTracer),
        None if ends(".npz") => Ok(Format::GemmaScope),
        None if ends(".pt") && dir.join("cfg.json").exists() => Ok(Format::Crosscoder),
        None => {
            let holds = names.join(", ");
            Err(malformed(
                dir,
                format!("no known autoencoder; it holds: {holds}"),
            ))
        }
    }
}

/// File names, sorted.
pub(super) fn names(dir: &Path) -> Result<Vec<String>, Error> {
    let io = |source| Error::Io {
        path: dir.into(),
        source,
    };
    let entries = std::fs::read_dir(dir).map_err(io)?;
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.map(|e| e.file_name().to_string_lossy().into_owned())
    };
    let mut names: Vec<String> = entries.map(name).collect::<Result<_, _>>().map_err(io)?;
    names.sort();
    Ok(names)
}

/// `layer_12.safetensors`.
pub(super) fn is_layer(name: &str) -> bool {
    let number = name.strip_prefix("layer_");
    let number = number.and_then(|n| n.strip_suffix(".safetensors"));
    number.is_some_and(|n| n.parse::<usize>().is_ok())
}

fn of_file(path: &Path) -> Result<Format, Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if let Some((_, format)) = SIGNS.iter().find(|(sign, _)| *sign == name) {
        return Ok(*format);
    }
    match path.extension().and_then(|e| e.to_str()) {
        Some("safetensors") => of_tensors(path),
        Some("npz") => Ok(Format::GemmaScope),
        Some("pt" | "pth") => of_state(path),
        _ => {
            read_file(path)?;
            Err(malformed(
                path,
                "no known autoencoder: neither .safetensors, .npz nor .pt",
            ))
        }
    }
}

/// By the names in a state dict.
fn of_state(path: &Path) -> Result<Format, Error> {
    let bytes = read_file(path)?;
    let file = Checkpoint::parse(path, &bytes)?;
    let get = |name| file.pickle.get(file.root(), name);
    Ok(match (get("pre_bias"), get("W_enc")) {
        (Some(_), _) => Format::OpenAi,
        (_, Some(pickle::Value::Tensor(w))) if w.size.len() == 3 => Format::Crosscoder,
        _ => Format::DictionaryLearning,
    })
}

fn of_tensors(path: &Path) -> Result<Format, Error> {
    let bytes = read_file(path)?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| malformed(path, e))?;
    let has = |name: &str| file.tensor(name).is_ok();
    if has("w_enc") {
        return Ok(Format::GemmaScope2);
    }
    if has("W_E") {
        return Ok(Format::LanguageModelSaes);
    }
    if has("encoder.weight") {
        return Ok(match has("decoder.weight") {
            true => Format::LlamaScope,
            false => Format::Sparsify,
        });
    }
    // Wide and `[d_sae, d_in]`, or `[d_in, d_sae]`.
    let rows = |name: &str| {
        file.tensor(name)
            .ok()
            .and_then(|t| t.shape().first().copied())
    };
    match (rows("W_enc"), rows("W_dec")) {
        (Some(enc), Some(dec)) if enc == dec => Ok(Format::CircuitTracer),
        (Some(_), Some(_)) => Ok(Format::SaeLens),
        _ => {
            let names = file.names().join(", ");
            Err(malformed(
                path,
                format!("no known autoencoder; its tensors are: {names}"),
            ))
        }
    }
}
