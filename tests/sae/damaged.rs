//! Damage to other tools' files, and settings that cannot be had, are named.

use std::fs;
use std::path::PathBuf;

use inscape::sae::Error;
use inscape::sae::format::{self, Format, Loaded};
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Value, json};

use super::foreign::{FORMATS, fixture, read_from, values};
use super::round_trip::any;
use super::*;

/// An autoencoder that uses all that a format has, and its weight file.
fn fullest(format: Format, dir: &Path) -> PathBuf {
    let sae = match format {
        Format::SaeLens => any("gated", 8, false, true),
        Format::Sparsify => any("topk", 8, true, false),
        Format::GemmaScope2 | Format::CircuitTracer => any("jumprelu", 8, true, false),
        Format::LanguageModelSaes => any("jumprelu", 8, false, false),
        _ => any("constant", 8, false, false),
    };
    block_on(format::write(&sae, &json!({}), dir, format)).unwrap();
    dir.join(match format {
        Format::SaeLens | Format::LanguageModelSaes => "sae_weights.safetensors",
        Format::Sparsify => "sae.safetensors",
        Format::GemmaScope2 => "params.safetensors",
        Format::CircuitTracer => "layer_0.safetensors",
        _ => "checkpoints/final.safetensors",
    })
}

/// Writes a tensor in place of another of the file, or takes it out.
fn replace(path: &Path, name: &str, with: Option<(Dtype, Vec<usize>)>) {
    let old = values(path);
    let mut all: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = old
        .into_iter()
        .map(|(name, (shape, v))| {
            let bytes = v.iter().flat_map(|x| x.to_le_bytes()).collect();
            (name, Dtype::F32, shape, bytes)
        })
        .collect();
    all.retain(|t| t.0 != name);
    if let Some((dtype, shape)) = with {
        let bytes = vec![0u8; 4 * shape.iter().product::<usize>()];
        all.push((name.into(), dtype, shape, bytes));
    }
    let views = all.iter().map(|(name, dtype, shape, bytes)| {
        (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

#[test]
fn every_damaged_tensor_is_named() {
    // Without these the file is of another kind, or they count as 0.
    const OPTIONAL: [&str; 6] = [
        "encoder.bias",
        "b_dec",
        "decoder.bias",
        "affine_skip_connection",
        "W_skip",
        "activation_function.threshold",
    ];
    for format in FORMATS {
        let dir = tempfile::tempdir().unwrap();
        let path = fullest(format, dir.path());
        let file = path.file_name().unwrap().to_str().unwrap();
        let whole = fs::read(&path).unwrap();
        let load = || format::read(dir.path(), Some(format), Device::cpu().tensor());
        load().unwrap();
        for (name, (shape, _)) in values(&path) {
            replace(&path, &name, None);
            match load() {
                Err(e) => says(e, &[file, &name, "missing"]),
                Ok(_) => assert!(OPTIONAL.contains(&&*name), "{format} {name}"),
            }
            fs::write(&path, &whole).unwrap();
            for wrong in [vec![3], vec![5, 5], vec![2; shape.len() + 1]] {
                replace(&path, &name, Some((Dtype::F32, wrong.clone())));
                let error = load().unwrap_err().to_string();
                // A matrix that gives the widths is believed, and the next one found wrong.
                assert!(
                    error.contains(file) || wrong == [5, 5],
                    "{format} {name}: {error}"
                );
                let named =
                    error.contains(&format!("`{name}`")) && error.contains(&format!("{wrong:?}"));
                let believed = wrong == [5, 5] && error.contains('5');
                assert!(named || believed, "{format} {name} {wrong:?}: {error}");
                fs::write(&path, &whole).unwrap();
            }
            replace(&path, &name, Some((Dtype::I32, shape)));
            says(load().unwrap_err(), &[file, &name, "I32"]);
            fs::write(&path, &whole).unwrap();
        }
        for keep in [0, 7, whole.len() / 2, whole.len() - 1] {
            fs::write(&path, &whole[..keep]).unwrap();
            says(load().unwrap_err(), &[file]);
        }
        // A header said to be longer than the file.
        let mut long = whole.clone();
        long[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        fs::write(&path, &long).unwrap();
        says(load().unwrap_err(), &[file]);
        fs::remove_file(&path).unwrap();
        let stem = file.split(['0', '.']).next().unwrap();
        says(load().unwrap_err(), &[stem]);
    }
}

/// What a fixture's reader says after a change of its JSON file.
fn with_setting(case: &str, file: &str, key: &str, value: Value) -> Result<Loaded, Error> {
    let dir = tempfile::tempdir().unwrap();
    copy(&fixture(case), dir.path());
    let path = dir.path().join(file);
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config[key] = value;
    fs::write(&path, config.to_string()).unwrap();
    read_from(dir.path())
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy(&path, &target),
            false => drop(fs::copy(&path, &target).unwrap()),
        }
    }
}

#[test]
fn settings_that_cannot_be_had_are_named() {
    let file = |case: &str| match case.split('/').next().unwrap() {
        "gemma_scope_2" | "language_model_saes" => "config.json",
        "llama_scope" => "hyperparams.json",
        _ => "cfg.json",
    };
    let bad = |case: &str, key: &str, value: Value, words: &[&str]| {
        let error = with_setting(case, file(case), key, value).unwrap_err();
        says(error, &[&[file(case)][..], words].concat());
    };
    let topk = "saelens/topk";
    bad(
        topk,
        "architecture",
        json!("temporal"),
        &["temporal", "matryoshka"],
    );
    bad(topk, "architecture", Value::Null, &["architecture", "null"]);
    bad(topk, "k", json!(25), &["k = 25", "24"]);
    bad(
        topk,
        "apply_b_dec_to_input",
        json!("yes"),
        &["apply_b_dec", "yes"],
    );
    bad(
        topk,
        "rescale_acts_by_decoder_norm",
        json!(2),
        &["rescale_acts"],
    );
    let key = "normalize_activations";
    for value in [
        "layer_norm",
        "constant_norm_rescale",
        "covariance_whitening",
    ] {
        bad(topk, key, json!(value), &[key, value]);
    }
    let scale = "activation_scaler.json";
    bad(
        topk,
        key,
        json!("expected_average_only_in"),
        &[key, "missing", scale],
    );
    bad("saelens/legacy", key, json!(true), &[key, "missing", scale]);
    bad(
        "saelens/legacy",
        "activation_fn_str",
        json!("tanh-relu"),
        &["tanh-relu"],
    );
    bad(
        "saelens/transcoder",
        "apply_b_dec_to_input",
        json!(true),
        &["apply_b_dec"],
    );
    let sparsify = "sparsify/topk";
    bad(sparsify, "activation", json!("groupmax"), &["groupmax"]);
    bad(sparsify, "signed", json!(true), &["signed"]);
    bad(sparsify, "k", json!(0), &["k = 0"]);
    bad(sparsify, "transcode", json!("no"), &["transcode", "no"]);
    bad(
        sparsify,
        "num_latents",
        json!(23),
        &["num_latents", "23", "24"],
    );
    bad(
        "sparsify/layers.5",
        "expansion_factor",
        json!(4),
        &["expansion_factor", "32", "24"],
    );
    bad(
        "gemma_scope_2/resid",
        "architecture",
        json!("relu"),
        &["architecture", "relu"],
    );
    let llama = "llama_scope/L7R";
    bad(
        llama,
        "norm_activation",
        json!("token-wise"),
        &["token-wise"],
    );
    bad(
        llama,
        "dataset_average_activation_norm",
        Value::Null,
        &["activation_norm.in"],
    );
    bad(llama, "use_glu_encoder", json!(true), &["use_glu_encoder"]);
    bad(llama, "act_fn", json!("gelu"), &["act_fn", "gelu"]);
    bad(
        llama,
        "jump_relu_threshold",
        Value::Null,
        &["jump_relu_threshold"],
    );
    let new = "language_model_saes/jumprelu";
    bad(new, "norm_activation", json!("batch-wise"), &["batch-wise"]);
    bad(new, "sae_type", json!("lorsa"), &["sae_type", "lorsa"]);
    bad(new, "act_fn", json!("batchtopk"), &["act_fn", "batchtopk"]);
    bad(new, "use_glu_encoder", json!(true), &["use_glu_encoder"]);
    bad(new, "hook_point_in", json!(7), &["hook_point_in", "7"]);
    let elsewhere = with_setting(new, "config.json", "hook_point_out", json!("blocks.8"));
    let words = ["sae_weights.safetensors", "norm.blocks.8", "missing"];
    says(elsewhere.unwrap_err(), &words);
    let skip = with_setting(sparsify, "cfg.json", "skip_connection", json!(true));
    says(skip.unwrap_err(), &["sae.safetensors", "W_skip", "missing"]);
    let case = "saelens/trained_topk_checkpoint";
    let zero = with_setting(case, scale, "scaling_factor", json!(0));
    says(zero.unwrap_err(), &[scale, "scaling_factor", "0"]);
    // What is not said is as usual.
    with_setting(sparsify, "cfg.json", "activation", Value::Null).unwrap();
    with_setting(topk, "cfg.json", key, Value::Null).unwrap();
}

/// Factors that were applied to latents before the decoder, in a file of before version 6.
#[test]
fn finetuned_factors_are_folded() {
    let dir = tempfile::tempdir().unwrap();
    copy(&fixture("saelens/legacy"), dir.path());
    let path = dir.path().join("sae_weights.safetensors");
    replace(&path, "scaling_factor", Some((Dtype::F32, vec![24])));
    let error = read_from(dir.path()).map(|_| ()).unwrap_err();
    says(
        error,
        &["cfg.json", "finetuning_scaling_factor", "`scaling_factor`"],
    );
    let config = dir.path().join("cfg.json");
    let mut json: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    json["finetuning_scaling_factor"] = json!(true);
    fs::write(&config, json.to_string()).unwrap();
    let sae = read_from(dir.path()).unwrap().sae;
    assert!(read32(sae.w_dec).iter().all(|w| *w == 0.0));
}
