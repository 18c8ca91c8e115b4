//! Configurations from before SAELens 6.

use serde_json::{Map, Value, json};

/// What is not metadata.
const SETTINGS: [&str; 14] = [
    "architecture",
    "d_in",
    "d_out",
    "d_sae",
    "k",
    "dtype",
    "device",
    "activation_fn",
    "activation_fn_kwargs",
    "apply_b_dec_to_input",
    "normalize_activations",
    "reshape_activations",
    "finetuning_scaling_factor",
    "rescale_acts_by_decoder_norm",
];

/// Neither version 6 nor one that has its `metadata`.
pub(super) fn is_legacy(config: &Value) -> bool {
    let own = &config["metadata"]["sae_lens_version"];
    let version = config["sae_lens_version"].as_str().or(own.as_str());
    match version {
        Some(version) => {
            let major = version.split('.').next().unwrap_or_default();
            major.parse::<u64>().is_ok_and(|major| major < 6)
        }
        None => !config["metadata"].is_object(),
    }
}

/// A flat configuration in the form of version 6: what is no setting is metadata.
pub(super) fn modern(config: Value) -> Value {
    let Value::Object(flat) = config else {
        return config;
    };
    let (mut settings, mut metadata) = (Map::new(), Map::new());
    for (key, value) in flat {
        let key = match key.as_str() {
            "hook_point" => "hook_name",
            "hook_point_head_index" => "hook_head_index",
            "activation_fn_str" => "activation_fn",
            other => other,
        };
        match SETTINGS.contains(&key) {
            true => settings.insert(key.into(), value),
            false => metadata.insert(key.into(), value),
        };
    }
    let k = settings.get("activation_fn_kwargs").map(|k| k["k"].clone());
    if settings.get("activation_fn") == Some(&json!("topk")) {
        settings.insert("architecture".into(), json!("topk"));
        settings.extend(k.map(|k| ("k".to_string(), k)));
    }
    let architecture = settings.entry("architecture");
    architecture.or_insert_with(|| json!("standard"));
    settings.insert("metadata".into(), metadata.into());
    settings.into()
}
