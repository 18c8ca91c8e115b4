//! Formats of other tools: what they wrote gives their outputs, what is written comes back, damage is
//! named. `tests/data/sae/make_fixtures.py` and `make_llamascopium_fixtures.py` wrote the
//! files, and open ours.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use inscape::sae::format::{self, Format, Loaded};
use inscape::sae::{Activation, Error};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::Value;

use super::*;

/// Largest difference from a tool's own outputs.
pub const CLOSE: f64 = 1e-5;

/// The formats whose files are safetensors.
pub const FORMATS: [Format; 6] = [
    Format::SaeLens,
    Format::Sparsify,
    Format::GemmaScope2,
    Format::CircuitTracer,
    Format::LlamaScope,
    Format::LanguageModelSaes,
];

pub fn fixture(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/sae")
        .join(case)
}

/// `TOOL/CASE` of every fixture.
fn fixtures() -> Vec<String> {
    let mut found = Vec::new();
    for format in FORMATS {
        for entry in fs::read_dir(fixture(format.name())).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            found.push(format!("{format}/{name}"));
        }
    }
    found.sort();
    found
}

pub fn read_from(path: &Path) -> Result<Loaded, Error> {
    format::read(path, None, Device::cpu().tensor())
}

/// Tensors of a file as f32 values with their shapes.
pub type Values = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

pub fn values(path: &Path) -> Values {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let value = |(name, view): (&str, TensorView<'_>)| {
        assert_eq!(view.dtype(), Dtype::F32, "{name}");
        let values = view
            .data()
            .as_chunks()
            .0
            .iter()
            .map(|b| f32::from_le_bytes(*b));
        (name.to_string(), (view.shape().to_vec(), values.collect()))
    };
    file.iter().map(value).collect()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let off = a.iter().zip(b).map(|(a, b)| f64::from((a - b).abs()));
    off.fold(0.0, f64::max)
}

/// Largest differences of the latents and of the outputs from a tool's.
fn differences(sae: &Sae, expected: &Values) -> [f64; 2] {
    let x = t2(&expected["x"].1, 8, &Device::cpu());
    let latents = read32(sae.encode_dense(x.clone()));
    let out = read32(sae.reconstruct(x.clone()));
    let sparse = sae.decode(&sae.encode(x.clone()));
    let sparse = sae.skip(&x).map_or(sparse.clone(), |skip| sparse + skip);
    let of_out = |got: &[f32]| largest_difference(got, &expected["out"].1);
    [
        largest_difference(&latents, &expected["latents"].1),
        of_out(&out).max(of_out(&read32(sparse))),
    ]
}

#[test]
fn what_the_tools_wrote_gives_their_outputs() {
    let cases = fixtures();
    assert_eq!(cases.len(), 36, "{cases:?}");
    for case in cases {
        let loaded = read_from(&fixture(&case)).unwrap();
        assert_eq!(loaded.format.name(), case.split('/').next().unwrap());
        let expected = values(&fixture(&case).join("expected.safetensors"));
        let active = expected["latents"].1.iter().filter(|f| **f != 0.0).count();
        assert!(active > 16, "{case}: {active} active latents");
        let [latents, out] = differences(&loaded.sae, &expected);
        println!("{case}: latents {latents:.1e}, out {out:.1e}");
        assert!(
            latents <= CLOSE && out <= CLOSE,
            "{case}: {latents:e} {out:e}"
        );
    }
}

/// Every convention that could be mistaken shows in the outputs.
#[test]
fn a_mistaken_convention_shows() {
    for case in fixtures() {
        let expected = values(&fixture(&case).join("expected.safetensors"));
        let sae = read_from(&fixture(&case)).unwrap().sae;
        let mut wrong = vec![];
        if sae.d_in() == sae.d_out() {
            wrong.push(Sae {
                subtract_b_dec: !sae.subtract_b_dec,
                ..sae.clone()
            });
        }
        if let Some(w_skip) = &sae.w_skip {
            let across = w_skip.clone().transpose().reshape(w_skip.dims());
            wrong.push(Sae {
                w_skip: Some(across),
                ..sae.clone()
            });
        }
        wrong.push(Sae {
            activation: match &sae.activation {
                Activation::TopK { k } => Activation::TopK { k: k + 1 },
                Activation::Relu => Activation::TopK { k: 3 },
                _ => Activation::Relu,
            },
            ..sae.clone()
        });
        wrong.push(Sae {
            w_enc: sae.w_enc.clone() * 1.01,
            ..sae.clone()
        });
        for sae in wrong {
            let [latents, out] = differences(&sae, &expected);
            assert!(
                latents.max(out) > 100.0 * CLOSE,
                "{case}: {latents:e} {out:e}"
            );
        }
    }
}

#[test]
fn what_they_are_is_recognised() {
    let is = |case: &str, wanted: &str| {
        let Loaded { sae, .. } = read_from(&fixture(case)).unwrap();
        let skip = if sae.w_skip.is_some() { " skip" } else { "" };
        let minus = if sae.subtract_b_dec { " -b_dec" } else { "" };
        let found = format!(
            "{} {:?}{skip}{minus} {}",
            sae.activation.name(),
            sae.k(),
            sae.d_out()
        );
        assert_eq!(found, wanted, "{case}");
    };
    is("saelens/standard", "standard None -b_dec 8");
    is("saelens/standard_raw_input", "standard None 8");
    is("saelens/topk_rescaled", "topk Some(3) -b_dec 8");
    is("saelens/jumprelu_bf16", "jumprelu None -b_dec 8");
    is("saelens/gated_f16", "gated None -b_dec 8");
    is("saelens/transcoder", "standard None 6");
    is("saelens/skip_transcoder", "standard None skip 6");
    is("saelens/jumprelu_transcoder", "jumprelu None 6");
    is("saelens/jumprelu_skip_transcoder", "jumprelu None skip 6");
    is("saelens/trained_topk_checkpoint", "topk Some(3) -b_dec 8");
    is("saelens/batchtopk", "batchtopk Some(3) -b_dec 8");
    is(
        "saelens/batchtopk_scaled_checkpoint",
        "batchtopk Some(3) -b_dec 8",
    );
    is(
        "saelens/matryoshka_checkpoint",
        "batchtopk Some(3) -b_dec 8",
    );
    is("saelens/legacy", "standard None -b_dec 8");
    is("saelens/legacy_topk", "topk Some(3) 8");
    is("sparsify/layers.5", "topk Some(3) -b_dec 8");
    is("sparsify/skip", "topk Some(3) skip -b_dec 8");
    is("sparsify/skip_transcoder", "topk Some(3) skip 8");
    is("gemma_scope_2/transcoder", "jumprelu None skip 6");
    is("llama_scope/L7R", "jumprelu None 8");
    is("language_model_saes/jumprelu", "jumprelu None 8");
    is("language_model_saes/topk_transcoder", "topk Some(3) 8");
    is("language_model_saes/relu_folded", "standard None 8");
    is("circuit_tracer/jump_relu_skip", "jumprelu None skip 8");
    is("circuit_tracer/relu", "standard None 8");
}

#[test]
fn where_they_belong_is_read() {
    let metadata = |case: &str| read_from(&fixture(case)).unwrap().metadata;
    for (case, key, value) in [
        ("saelens/jumprelu", "hook_name", "blocks.3.hook_resid_pre"),
        ("saelens/jumprelu", "model_name", "gpt2"),
        ("saelens/legacy", "hook_name", "blocks.3.hook_resid_pre"),
        ("saelens/legacy", "dataset_path", "Skylion007/openwebtext"),
        ("sparsify/layers.5", "hf_hook_name", "layers.5"),
        (
            "gemma_scope_2/resid",
            "hook_name",
            "blocks.7.hook_resid_post",
        ),
        (
            "gemma_scope_2/resid",
            "hf_hook_name",
            "model.layers.7.output",
        ),
        ("gemma_scope_2/resid", "model_name", "gemma-v3-270m"),
        (
            "gemma_scope_2/transcoder",
            "hook_name",
            "blocks.7.hook_mlp_in",
        ),
        (
            "gemma_scope_2/transcoder",
            "hook_name_out",
            "blocks.7.hook_mlp_out",
        ),
        ("llama_scope/L7R", "hook_name", "blocks.7.hook_resid_post"),
        (
            "language_model_saes/jumprelu",
            "hook_name",
            "blocks.7.hook_resid_post",
        ),
        (
            "language_model_saes/topk_transcoder",
            "hook_name_out",
            "blocks.7.hook_mlp_out",
        ),
        ("circuit_tracer/relu", "hook_name", "blocks.4.mlp.hook_in"),
        (
            "circuit_tracer/relu",
            "hook_name_out",
            "blocks.4.hook_mlp_out",
        ),
        ("circuit_tracer/relu", "model_name", "Qwen/Qwen3-0.6B"),
    ] {
        assert_eq!(metadata(case)[key], value, "{case} {key}");
    }
    assert_eq!(metadata("saelens/legacy")["architecture"], Value::Null);
}

#[test]
fn files_are_told_apart() {
    for (file, format) in [
        ("saelens/topk/sae_weights.safetensors", Format::SaeLens),
        ("sparsify/layers.5/sae.safetensors", Format::Sparsify),
        (
            "gemma_scope_2/resid/params.safetensors",
            Format::GemmaScope2,
        ),
        (
            "circuit_tracer/relu/layer_4.safetensors",
            Format::CircuitTracer,
        ),
        (
            "llama_scope/L7R/checkpoints/final.safetensors",
            Format::LlamaScope,
        ),
        (
            "language_model_saes/jumprelu/sae_weights.safetensors",
            Format::LanguageModelSaes,
        ),
    ] {
        assert_eq!(format::detect(&fixture(file)).unwrap(), format);
        assert_eq!(read_from(&fixture(file)).unwrap().format, format);
        let dir = tempfile::tempdir().unwrap();
        let renamed = dir.path().join("x.safetensors");
        fs::copy(fixture(file), &renamed).unwrap();
        assert_eq!(format::detect(&renamed).unwrap(), format, "{file}, renamed");
    }
    let dir = tempfile::tempdir().unwrap();
    for (file, format) in [
        ("ae.pt", Format::DictionaryLearning),
        ("params.npz", Format::GemmaScope),
        ("cc_weights.pt", Format::Crosscoder),
    ] {
        let path = dir.path().join(file);
        fs::write(&path, "").unwrap();
        assert_eq!(format::detect(dir.path()).unwrap(), format);
        assert_eq!(format::detect(&path).unwrap(), format);
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn what_is_no_autoencoder_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let detect = |name: &str| format::detect(&dir.path().join(name)).unwrap_err();
    says(detect(""), &["no known autoencoder"]);
    says(detect("gone"), &["gone"]);
    fs::write(dir.path().join("notes.txt"), "x").unwrap();
    says(detect(""), &["no known autoencoder", "notes.txt"]);
    says(detect("notes.txt"), &["notes.txt", "no known autoencoder"]);
    matrix_file(&dir.path().join("m.safetensors"), &[1.0, 2.0], 2);
    says(detect("m.safetensors"), &["m.safetensors", "x"]);
    fs::write(dir.path().join("bad.safetensors"), "x").unwrap();
    says(detect("bad.safetensors"), &["bad.safetensors"]);
    for layer in 0..2 {
        let name = format!("layer_{layer}.safetensors");
        fs::copy(
            fixture("circuit_tracer/relu/layer_4.safetensors"),
            dir.path().join(name),
        )
        .unwrap();
    }
    let error = read_from(dir.path()).unwrap_err();
    says(error, &["2 layers", "layer_0.safetensors"]);
    read_from(&dir.path().join("layer_1.safetensors")).unwrap();
}

#[test]
fn formats_have_names() {
    for format in Format::ALL {
        assert_eq!(format.to_string().parse::<Format>().unwrap(), format);
        assert_eq!(serde_json::to_value(format).unwrap(), format.name());
    }
    let error = "torch".parse::<Format>().unwrap_err();
    says(error, &["torch", "saelens", "gemma_scope_2", "crosscoder"]);
}

#[test]
fn a_summary_says_what_it_is() {
    let loaded = read_from(&fixture("saelens/batchtopk")).unwrap();
    let found = block_on(format::summary(&loaded)).unwrap();
    assert_eq!((found.activation, found.k), ("batchtopk", Some(3)));
    assert_eq!((found.d_in, found.d_sae, found.d_out), (8, 24, 8));
    let threshold = found.threshold.unwrap();
    assert!(
        threshold.min == threshold.max && threshold.min > 0.4,
        "{threshold:?}"
    );
    // Its decoder was folded when SAELens saved it.
    let norm = found.decoder_norm;
    assert!((norm.min - 1.0).abs() < 1e-6 && (norm.max - 1.0).abs() < 1e-6);
    let rows = read64(loaded.sae.w_enc.clone());
    let norms: Vec<f64> = rows
        .chunks(8)
        .map(|r| r.iter().map(|x| x * x).sum::<f64>().sqrt())
        .collect();
    let mean = norms.iter().sum::<f64>() / 24.0;
    assert!((found.encoder_norm.mean - mean).abs() < 1e-6);
    assert!(found.encoder_norm.max > found.encoder_norm.mean);
    let json = serde_json::to_value(&found).unwrap();
    assert_eq!(json["format"], "saelens");
    assert_eq!(json["metadata"]["hook_name"], "blocks.3.hook_resid_pre");
}
