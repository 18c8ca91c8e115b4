//! Files of dictionary_learning, OpenAI, crosscoders and Gemma Scope: made by the tools themselves
//! (`tests/data/sae/make_pt_fixtures.py`), read to the same outputs, and written back.

use std::path::PathBuf;

use inscape::hook;
use inscape::sae::eval::{reconstruct_normalised, splice_normalised};
use inscape::sae::format::{self, Format, Loaded};
use inscape::sae::{Activation, Error, session};
use safetensors::{SafeTensors, tensor::TensorView};
use serde_json::{Value, json};

use super::*;

/// Every fixture, and what it is.
const FIXTURES: [(&str, Format, &str); 14] = [
    (
        "dictionary_learning/standard",
        Format::DictionaryLearning,
        "standard",
    ),
    (
        "dictionary_learning/standard_long",
        Format::DictionaryLearning,
        "standard",
    ),
    (
        "dictionary_learning/april",
        Format::DictionaryLearning,
        "standard",
    ),
    (
        "dictionary_learning/gated",
        Format::DictionaryLearning,
        "gated",
    ),
    (
        "dictionary_learning/jumprelu",
        Format::DictionaryLearning,
        "jumprelu",
    ),
    (
        "dictionary_learning/topk",
        Format::DictionaryLearning,
        "topk",
    ),
    (
        "dictionary_learning/batchtopk",
        Format::DictionaryLearning,
        "batchtopk",
    ),
    (
        "dictionary_learning/batchtopk_young",
        Format::DictionaryLearning,
        "batchtopk",
    ),
    (
        "dictionary_learning/matryoshka",
        Format::DictionaryLearning,
        "batchtopk",
    ),
    (
        "dictionary_learning/backup",
        Format::DictionaryLearning,
        "topk",
    ),
    ("openai/relu", Format::OpenAi, "standard"),
    ("openai/topk", Format::OpenAi, "topk"),
    ("crosscoder/two_models", Format::Crosscoder, "standard"),
    ("gemma_scope/stored", Format::GemmaScope, "jumprelu"),
];

pub fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/sae")
        .join(name)
}

fn read(path: &Path, format: Format) -> Result<Loaded, Error> {
    format::read(path, Some(format), Device::cpu().tensor())
}

fn write(sae: &Sae, metadata: &Value, path: &Path, format: Format) -> Result<(), Error> {
    block_on(format::write(sae, metadata, path, format))
}

/// A tensor of a safetensors file with its number of columns.
fn tensor(path: &Path, name: &str) -> (Vec<f32>, usize) {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor(name).unwrap();
    let values = view.data().as_chunks().0.iter();
    let values = values.map(|b| f32::from_le_bytes(*b)).collect();
    (values, *view.shape().last().unwrap_or(&1))
}

/// Latents and reconstruction of rows, normalised first where the file wants it.
fn outputs(loaded: &Loaded, x: Tensor<2>) -> [Vec<f32>; 2] {
    let normal = loaded.metadata["normalize_activations"] == "layer_norm";
    let (x, undo) = match normal {
        true => {
            let (x, mean, scale) = format::layer_norm(x);
            (x, Some((mean, scale)))
        }
        false => (x, None),
    };
    let latents = loaded.sae.encode_dense(x.clone());
    let out = loaded.sae.reconstruct(x);
    let out = match undo {
        Some((mean, scale)) => out * scale + mean,
        None => out,
    };
    [read32(latents), read32(out)]
}

fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let pairs = a.iter().zip(b);
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, |most, d| {
        assert!(!d.is_nan());
        d.max(most)
    })
}

/// Largest difference from the tool's own outputs.
fn from_the_tool(folder: &Path, loaded: &Loaded) -> f32 {
    let file = folder.join("expected.safetensors");
    let (x, columns) = tensor(&file, "x");
    let [latents, out] = outputs(loaded, t2(&x, columns, &Device::cpu()));
    let latents = difference(&latents, &tensor(&file, "latents").0);
    latents.max(difference(&out, &tensor(&file, "reconstruction").0))
}

#[test]
fn what_the_tools_wrote_gives_their_outputs() {
    for (name, format, activation) in FIXTURES {
        let loaded = read(&data(name), format).unwrap();
        assert_eq!(loaded.sae.activation.name(), activation, "{name}");
        assert_eq!(loaded.format, format);
        let d = from_the_tool(&data(name), &loaded);
        println!("{name}: {d:.1e}");
        assert!(d <= 1e-5, "{name}: {d}");
    }
    let packed = read(&data("gemma_scope/deflated"), Format::GemmaScope).unwrap();
    let d = from_the_tool(&data("gemma_scope/deflated"), &packed);
    assert!(d <= 1e-5, "{d}");
}

/// The planted fault: outputs that one changed weight must move.
#[test]
fn the_comparison_sees_one_weight() {
    let mut loaded = read(
        &data("dictionary_learning/gated"),
        Format::DictionaryLearning,
    )
    .unwrap();
    let folder = data("dictionary_learning/gated");
    assert!(from_the_tool(&folder, &loaded) <= 1e-5);
    loaded.sae.b_dec = loaded.sae.b_dec.slice_fill(2..3, 0.001);
    assert!(from_the_tool(&folder, &loaded) > 1e-3);
}

/// Read, written, read: the same bits in every tensor. With INSCAPE_TOOL_FILES set to a directory,
/// the files stay there, with our outputs, for `make_pt_fixtures.py check`.
#[test]
fn files_for_the_tools() {
    let scratch = tempfile::tempdir().unwrap();
    let root = match std::env::var_os("INSCAPE_TOOL_FILES") {
        Some(root) => PathBuf::from(root),
        None => scratch.path().into(),
    };
    for (name, format, _) in FIXTURES {
        let loaded = read(&data(name), format).unwrap();
        let folder = root.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        write(&loaded.sae, &loaded.metadata, &folder, format).unwrap();
        let back = read(&folder, format).unwrap();
        assert_eq!(parts(&back.sae), parts(&loaded.sae), "{name}");
        assert_eq!(back.sae.activation.name(), loaded.sae.activation.name());
        assert_eq!(back.metadata, with_width(&loaded), "{name}");
        ours(&folder, &back);
    }
}

/// What our file of it says beside it: the tools' settings, with what describes the weights set.
fn with_width(loaded: &Loaded) -> Value {
    let (mut metadata, sae) = (loaded.metadata.clone(), &loaded.sae);
    if let Some(trainer) = metadata.pointer_mut("/dictionary_learning/trainer") {
        trainer["activation_dim"] = sae.d_in().into();
        trainer["dict_size"] = sae.d_sae().into();
        if let Some(k) = sae.k() {
            trainer["k"] = k.into();
        }
    }
    if let Some(config) = metadata.get_mut("crosscoder") {
        config["enc_dtype"] = "fp32".into();
    }
    metadata
}

/// The bits of everything that an autoencoder has.
fn parts(sae: &Sae) -> Vec<Vec<u32>> {
    let mut all = vec![
        bits(sae.w_enc.clone()),
        bits(sae.b_enc.clone()),
        bits(sae.w_dec.clone()),
        bits(sae.b_dec.clone()),
        vec![sae.subtract_b_dec.into(), sae.sites as u32],
    ];
    match &sae.activation {
        Activation::Relu => {}
        Activation::TopK { k } => all.push(vec![*k as u32]),
        Activation::BatchTopK { k, threshold } => {
            all.push(vec![*k as u32]);
            all.push(bits(threshold.clone()));
        }
        Activation::JumpRelu { threshold } => all.push(bits(threshold.clone())),
        Activation::Gated { r_mag, b_mag } => {
            all.push(bits(r_mag.clone()));
            all.push(bits(b_mag.clone()));
        }
    }
    all
}

/// Our own outputs beside a file of ours.
fn ours(folder: &Path, loaded: &Loaded) {
    let d = loaded.sae.d_in();
    let x = f32s(&Draws::new(12).normals(10 * d));
    let [latents, out] = outputs(loaded, t2(&x, d, &Device::cpu()));
    let bytes = |v: &[f32]| -> Vec<u8> { v.iter().flat_map(|x| x.to_le_bytes()).collect() };
    let all = [("x", &x), ("latents", &latents), ("reconstruction", &out)];
    let all = all.map(|(name, v)| (name, bytes(v), vec![10, v.len() / 10]));
    let views = all.iter().map(|(name, bytes, shape)| {
        let view = TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes).unwrap();
        (*name, view)
    });
    let bytes = safetensors::serialize(views, None).unwrap();
    std::fs::write(folder.join("ours.safetensors"), bytes).unwrap();
}

#[test]
fn settings_are_kept() {
    let loaded = read(
        &data("dictionary_learning/matryoshka"),
        Format::DictionaryLearning,
    )
    .unwrap();
    let trainer = &loaded.metadata["dictionary_learning"]["trainer"];
    assert_eq!(trainer["dict_class"], "MatryoshkaBatchTopKSAE");
    assert_eq!(trainer["group_sizes"], json!([6, 6, 12]));
    assert_eq!(trainer["submodule_name"], "resid_post_layer_3");
    assert_eq!(
        loaded.metadata["model_name"],
        "EleutherAI/pythia-70m-deduped"
    );
    assert_eq!(loaded.sae.k(), Some(3));

    let loaded = read(
        &data("dictionary_learning/backup"),
        Format::DictionaryLearning,
    )
    .unwrap();
    let trainer = &loaded.metadata["dictionary_learning"]["trainer"];
    assert_eq!(trainer["layer"], 3);

    let loaded = read(&data("crosscoder/two_models"), Format::Crosscoder).unwrap();
    assert_eq!((loaded.sae.sites, loaded.sae.d_in()), (2, 16));
    assert_eq!(loaded.metadata["model_name"], "gemma-2-2b");
}

/// A bare file: what its tensors say, a file's neighbour, and a checkpoint's grandparent.
#[test]
fn a_bare_file_is_read_by_its_tensors_or_its_settings() {
    let dir = tempfile::tempdir().unwrap();
    for (name, activation) in [
        ("dictionary_learning/standard", "standard"),
        ("dictionary_learning/april", "standard"),
        ("dictionary_learning/gated", "gated"),
        ("dictionary_learning/jumprelu", "jumprelu"),
        ("dictionary_learning/matryoshka", "batchtopk"),
    ] {
        let path = dir.path().join("some.pt");
        std::fs::copy(data(name).join("ae.pt"), &path).unwrap();
        let loaded = read(&path, Format::DictionaryLearning).unwrap();
        assert_eq!(loaded.sae.activation.name(), activation, "{name}");
        assert!(from_the_tool(&data(name), &loaded) <= 1e-5, "{name}");
    }
    let checkpoints = dir.path().join("checkpoints");
    std::fs::create_dir(&checkpoints).unwrap();
    for name in ["dictionary_learning/topk", "dictionary_learning/batchtopk"] {
        let path = checkpoints.join("ae_100.pt");
        std::fs::copy(data(name).join("ae.pt"), &path).unwrap();
        std::fs::remove_file(dir.path().join("config.json")).ok();
        let error = read(&path, Format::DictionaryLearning).unwrap_err();
        says(
            error,
            &[
                "ae_100.pt",
                "AutoEncoderTopK",
                "BatchTopKSAE",
                "config.json",
            ],
        );
        std::fs::copy(
            data(name).join("config.json"),
            dir.path().join("config.json"),
        )
        .unwrap();
        let loaded = read(&path, Format::DictionaryLearning).unwrap();
        assert!(from_the_tool(&data(name), &loaded) <= 1e-5, "{name}");
    }
}

#[test]
fn settings_that_do_not_fit_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let with = |trainer: Value| {
        std::fs::copy(
            data("dictionary_learning/topk").join("ae.pt"),
            dir.path().join("ae.pt"),
        )
        .unwrap();
        let config = json!({"trainer": trainer}).to_string();
        std::fs::write(dir.path().join("config.json"), config).unwrap();
        read(dir.path(), Format::DictionaryLearning)
    };
    let unknown = with(json!({"dict_class": "IdentityDict"})).unwrap_err();
    says(unknown, &["ae.pt", "dict_class", "IdentityDict"]);
    let other_k = with(json!({"dict_class": "AutoEncoderTopK", "k": 4})).unwrap_err();
    says(other_k, &["ae.pt", "k = 3", "config.json", "4"]);
    let other_class = with(json!({"dict_class": "GatedAutoEncoder"})).unwrap_err();
    says(other_class, &["ae.pt", "r_mag", "missing"]);
    let plain = with(json!({"dict_class": "AutoEncoderTopK"})).unwrap();
    assert_eq!(plain.sae.k(), Some(3));
    with(json!(["not", "settings"])).unwrap_err();

    let error = read(&data("gemma_scope/stored"), Format::OpenAi).unwrap_err();
    assert!(matches!(error, Error::Io { .. }));
    says(error, &["autoencoder.pt"]);
    let error = read(
        &data("dictionary_learning/gated").join("ae.pt"),
        Format::Crosscoder,
    )
    .unwrap_err();
    says(error, &["ae.pt", "W_enc", "missing"]);
    let error = read(
        &data("dictionary_learning/jumprelu").join("ae.pt"),
        Format::Crosscoder,
    )
    .unwrap_err();
    says(error, &["ae.pt", "W_enc", "three dimensions"]);
    let error = read(&data("pt").join("types.pt"), Format::DictionaryLearning).unwrap_err();
    says(error, &["types.pt", "no autoencoder"]);
}

/// What a format has no place for is an error, and no file.
#[test]
fn what_a_format_cannot_hold_is_refused() {
    let device = Device::cpu();
    let sae = random_sae(3, 6, 14, 3, &device);
    let dir = tempfile::tempdir().unwrap();
    let refused = |sae: &Sae, format, words: &[&str]| {
        let error = write(sae, &Value::Null, dir.path(), format).unwrap_err();
        assert!(matches!(error, Error::Config(_)));
        says(error, words);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    };
    refused(&sae, Format::OpenAi, &["openai", "normalises", "TopK"]);
    refused(&sae, Format::Crosscoder, &["crosscoder", "topk"]);
    refused(&sae, Format::GemmaScope, &["gemma_scope", "topk"]);
    let skip = Sae {
        w_skip: Some(t2(&[0.5; 36], 6, &device)),
        ..sae.clone()
    };
    refused(
        &skip,
        Format::DictionaryLearning,
        &["dictionary_learning", "transcoder"],
    );
    let sites = Sae {
        sites: 2,
        ..sae.clone()
    };
    refused(&sites, Format::DictionaryLearning, &["sites"]);
    let narrow = Sae {
        w_dec: t2(&[0.5; 14 * 4], 4, &device),
        b_dec: t1(&[0.5; 4], &device),
        subtract_b_dec: false,
        ..sae
    };
    refused(&narrow, Format::DictionaryLearning, &["transcoder"]);
}

/// An autoencoder that takes `b_dec` from its input, in a format whose autoencoders do not, and the
/// other way round: the same function after the bias made up for it.
#[test]
fn subtracting_b_dec_or_not_is_the_same_function_on_disk() {
    let device = Device::cpu();
    let mut draws = Draws::new(5);
    let plain = random_sae(4, 6, 14, 3, &device);
    let mut vector = |scale: f64| {
        let values: Vec<f64> = draws.normals(14).iter().map(|x| scale * x).collect();
        t1(&f32s(&values), &device)
    };
    let jump = Activation::JumpRelu {
        threshold: vector(0.3).abs(),
    };
    let batch = Activation::BatchTopK {
        k: 3,
        threshold: t1(&[0.2], &device),
    };
    let gated = Activation::Gated {
        r_mag: vector(0.5),
        b_mag: vector(0.4),
    };
    let topk = Activation::TopK { k: 3 };
    let x = t2(&f32s(&Draws::new(6).normals(30)), 6, &device);
    let dl = Format::DictionaryLearning;
    for (activation, format, stored) in [
        (jump.clone(), dl, false),
        (jump, Format::GemmaScope, false),
        (batch.clone(), Format::GemmaScope, false),
        (batch, dl, true),
        (gated, dl, true),
        (topk, dl, true),
        (Activation::Relu, Format::OpenAi, true),
        (Activation::Relu, Format::Crosscoder, false),
    ] {
        let sae = Sae {
            activation,
            subtract_b_dec: !stored,
            ..plain.clone()
        };
        let dir = tempfile::tempdir().unwrap();
        write(&sae, &Value::Null, dir.path(), format).unwrap();
        let back = read(dir.path(), format).unwrap().sae;
        assert_eq!(back.subtract_b_dec, stored);
        let [a, b] = [&sae, &back].map(|sae| read32(sae.encode_dense(x.clone())));
        assert!(difference(&a, &b) < 1e-5, "{format:?}: latents");
        let [a, b] = [&sae, &back].map(|sae| read32(sae.reconstruct(x.clone())));
        assert!(difference(&a, &b) < 1e-5, "{format:?}");
        let undone = Sae {
            subtract_b_dec: stored,
            ..sae
        };
        let c = read32(undone.reconstruct(x.clone()));
        assert!(
            difference(&a, &c) > 1e-2,
            "the flag alone is another function"
        );
    }
}

/// A folder by its file's name, a file of any name by its tensors.
#[test]
fn the_format_is_told_by_the_files() {
    let dir = tempfile::tempdir().unwrap();
    for (name, format, _) in FIXTURES {
        let folder = data(name);
        assert_eq!(format::detect(&folder).unwrap(), format, "{name}");
        let files = std::fs::read_dir(&folder).unwrap();
        let files = files.map(|file| file.unwrap().path());
        let weights = |file: &PathBuf| file.extension().is_some_and(|e| e == "pt" || e == "npz");
        for file in files.filter(weights) {
            let extension = file.extension().unwrap();
            let copy = dir.path().join("some").with_extension(extension);
            std::fs::copy(&file, &copy).unwrap();
            assert_eq!(format::detect(&copy).unwrap(), format, "{name}");
        }
    }
}

/// A format whose rows are not normalised does not take weights that need it.
#[test]
fn normalised_rows_stay_with_their_format() {
    let loaded = read(&data("openai/topk"), Format::OpenAi).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for format in [
        Format::SaeLens,
        Format::DictionaryLearning,
        Format::Sparsify,
    ] {
        let path = dir.path().join("sae");
        let error = write(&loaded.sae, &loaded.metadata, &path, format).unwrap_err();
        says(error, &[format.name(), "normalised rows"]);
        assert!(!path.exists());
    }
    let raw = read(&data("openai/relu"), Format::OpenAi).unwrap();
    let metadata = json!({"normalize_activations": "layer_norm"});
    let error = write(&raw.sae, &metadata, dir.path(), Format::OpenAi).unwrap_err();
    says(error, &["openai", "ReLU", "normalised rows"]);
}

/// Where a threshold is below 0 our activation lets negative latents through, and the tools' do not.
#[test]
fn a_threshold_below_0_is_refused() {
    let device = Device::cpu();
    let threshold = t1(&[-0.1], &device);
    let sae = Sae {
        activation: Activation::BatchTopK { k: 3, threshold },
        ..random_sae(3, 6, 14, 3, &device)
    };
    let dir = tempfile::tempdir().unwrap();
    for format in [Format::DictionaryLearning, Format::GemmaScope] {
        let error = write(&sae, &Value::Null, dir.path(), format).unwrap_err();
        says(error, &[format.name(), "threshold"]);
    }
}

/// By the tool's own outputs. Rows taken as they are give another error.
#[test]
fn normalised_rows_are_measured_as_the_tool_makes_them() {
    let folder = data("openai/topk");
    let loaded = read(&folder, Format::OpenAi).unwrap();
    assert!(format::is_normalized(&loaded.metadata));
    let (cpu, sae) = (Device::cpu(), loaded.sae);
    let file = folder.join("expected.safetensors");
    let (x, d) = tensor(&file, "x");
    let (out, n) = (tensor(&file, "reconstruction").0, x.len() / d);
    let made = read32(reconstruct_normalised(&sae, t2(&x, d, &cpu)));
    assert!(difference(&made, &out) <= 1e-5);

    let source = Source::memory("x", x.clone(), d);
    let found = session::evaluate_normalised(&sae, &source, &cpu, |_| ()).unwrap();
    let mean = |c: usize| {
        x.iter()
            .skip(c)
            .step_by(d)
            .map(|v| f64::from(*v))
            .sum::<f64>()
            / n as f64
    };
    let (mut error, mut variance) = (0.0, 0.0);
    for (i, (x, made)) in x.iter().zip(&out).enumerate() {
        error += (f64::from(*x) - f64::from(*made)).powi(2);
        variance += (f64::from(*x) - mean(i % d)).powi(2);
    }
    let fvu = error / variance;
    assert!((found.fvu - fvu).abs() <= 1e-4 * fvu, "{} {fvu}", found.fvu);
    let latents = tensor(&file, "latents").0;
    let active = latents.iter().filter(|f| **f > 0.0).count();
    assert_eq!(found.l0, active as f64 / n as f64);
    let raw = session::evaluate(&sae, &source, &cpu, |_| ()).unwrap().fvu;
    assert!((raw - fvu).abs() > 0.02 * fvu, "{raw} {fvu}");

    let site = "blocks.1.hook_resid_post".parse().unwrap();
    let act = hook::Activation::R3(t2(&x, d, &cpu).reshape([2, n / 2, d]));
    let spliced = splice_normalised(sae)(site, act).r3();
    assert_eq!(spliced.dims(), [2, n / 2, d]);
    assert!(difference(&read32(spliced), &out) <= 1e-5);
}
