//! What is written in another tool's format comes back, or is refused with the reason.

use std::fs;
use std::path::PathBuf;

use inscape::sae::Activation;
use inscape::sae::format::{self, Format};
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Value, json};

use super::foreign::{CLOSE, FORMATS, read_from};
use super::*;

/// Any autoencoder of width 8, every parameter away from 0.
pub fn any(activation: &str, d_out: usize, skip: bool, subtract_b_dec: bool) -> Sae {
    let device = Device::cpu();
    let mut draws = Draws::new(5);
    let mut vector = |n: usize| t1(&f32s(&draws.normals(n)), &device) * 0.3;
    let (b_enc, b_dec) = (vector(24), vector(d_out));
    let threshold = vector(24).abs() + 0.1;
    let activation = match activation {
        "standard" => Activation::Relu,
        "topk" => Activation::TopK { k: 3 },
        "batchtopk" => Activation::BatchTopK {
            k: 4,
            threshold: threshold.slice(0..1),
        },
        "constant" => Activation::JumpRelu {
            threshold: t1(&[0.3; 24], &device),
        },
        "jumprelu" => Activation::JumpRelu { threshold },
        _ => Activation::Gated {
            r_mag: vector(24),
            b_mag: vector(24),
        },
    };
    let mut matrix = |rows: usize, columns: usize| {
        t2(&f32s(&draws.normals(rows * columns)), columns, &device) * 0.4
    };
    Sae {
        w_enc: matrix(24, 8),
        b_enc,
        w_dec: matrix(24, d_out),
        b_dec,
        w_skip: skip.then(|| matrix(d_out, 8)),
        transcoder: false,
        activation,
        subtract_b_dec,
        sites: 1,
    }
}

const ACTIVATIONS: [&str; 6] = [
    "standard",
    "topk",
    "batchtopk",
    "constant",
    "jumprelu",
    "gated",
];

/// Every combination, with a name.
fn all() -> Vec<(String, Sae)> {
    let mut found = Vec::new();
    for activation in ACTIVATIONS {
        for (what, d_out, skip, subtract) in [
            ("", 8, false, false),
            ("-b_dec", 8, false, true),
            ("skip", 8, true, false),
            ("skip-b_dec", 8, true, true),
            ("d_out", 6, false, false),
            ("d_out-skip", 6, true, false),
        ] {
            let sae = any(activation, d_out, skip, subtract);
            found.push((format!("{activation}_{what}"), sae));
        }
    }
    found
}

/// Latents and outputs by plain loops in f64.
fn forward(sae: &Sae, x: &[f32]) -> (Vec<f64>, Vec<f64>) {
    let (w_enc, w_dec) = (read64(sae.w_enc.clone()), read64(sae.w_dec.clone()));
    let (b_enc, b_dec) = (read64(sae.b_enc.clone()), read64(sae.b_dec.clone()));
    let w_skip = sae.w_skip.clone().map(read64);
    let (d_out, mut all, mut out) = (sae.d_out(), vec![], vec![]);
    for x in x.chunks(8) {
        let x: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
        let minus = |i: usize| if sae.subtract_b_dec { b_dec[i] } else { 0.0 };
        let dot = |row: &[f64]| (0..8).map(|i| (x[i] - minus(i)) * row[i]).sum::<f64>();
        let z: Vec<f64> = w_enc.chunks(8).map(dot).collect();
        let f = activate(sae, &z, &b_enc);
        for o in 0..d_out {
            let decoded: f64 = (0..24).map(|j| f[j] * w_dec[j * d_out + o]).sum();
            let skipped = |w: &Vec<f64>| (0..8).map(|i| w[o * 8 + i] * x[i]).sum::<f64>();
            out.push(decoded + b_dec[o] + w_skip.as_ref().map_or(0.0, skipped));
        }
        all.extend(f);
    }
    (all, out)
}

/// Latents of a row of products `x W_encᵀ`.
fn activate(sae: &Sae, product: &[f64], b_enc: &[f64]) -> Vec<f64> {
    let z: Vec<f64> = product.iter().zip(b_enc).map(|(z, b)| z + b).collect();
    match &sae.activation {
        Activation::Relu => z.iter().map(|z| z.max(0.0)).collect(),
        Activation::TopK { k } => {
            let mut sorted = z.clone();
            sorted.sort_by(|a, b| b.total_cmp(a));
            let keep = |z: &f64| if *z >= sorted[k - 1] { z.max(0.0) } else { 0.0 };
            z.iter().map(keep).collect()
        }
        Activation::BatchTopK { threshold, .. } | Activation::JumpRelu { threshold } => {
            let theta = read64(threshold.clone());
            let theta = |j: usize| theta[j % theta.len()];
            let jump = |(j, z): (usize, &f64)| if *z > theta(j) { *z } else { 0.0 };
            z.iter().enumerate().map(jump).collect()
        }
        Activation::Gated { r_mag, b_mag } => {
            let (r, b) = (read64(r_mag.clone()), read64(b_mag.clone()));
            let magnitude = |j: usize| (product[j] * r[j].exp() + b[j]).max(0.0);
            let gate = |j: usize| if z[j] > 0.0 { magnitude(j) } else { 0.0 };
            (0..z.len()).map(gate).collect()
        }
    }
}

fn some_inputs() -> Vec<f32> {
    f32s(&Draws::new(9).normals(16 * 8))
}

/// Largest difference of the latents and outputs of `sae` from those that loops give for `of`.
fn off(sae: &Sae, of: &Sae) -> f64 {
    let x = some_inputs();
    let (latents, out) = forward(of, &x);
    let x = t2(&x, 8, &Device::cpu());
    let got = read64(sae.encode_dense(x.clone()));
    let pairs = got.into_iter().zip(latents);
    let pairs = pairs.chain(read64(sae.reconstruct(x)).into_iter().zip(out));
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

/// The bits of every tensor, and the settings.
fn all_bits(sae: &Sae) -> Vec<Vec<u32>> {
    let mut found = vec![
        bits(sae.w_enc.clone()),
        bits(sae.b_enc.clone()),
        bits(sae.w_dec.clone()),
        bits(sae.b_dec.clone()),
    ];
    found.extend(sae.w_skip.clone().map(bits));
    match &sae.activation {
        Activation::BatchTopK { threshold, .. } | Activation::JumpRelu { threshold } => {
            found.push(bits(threshold.clone()));
        }
        Activation::Gated { r_mag, b_mag } => {
            found.extend([bits(r_mag.clone()), bits(b_mag.clone())]);
        }
        _ => {}
    }
    let settings = [sae.subtract_b_dec as usize, sae.k().unwrap_or(0), sae.sites];
    found.push(settings.map(|n| n as u32).into());
    found
}

/// Why a format cannot hold an autoencoder, if it cannot.
fn refusal(format: Format, sae: &Sae) -> Option<&'static str> {
    let (other_width, skip) = (sae.d_out() != 8, sae.w_skip.is_some());
    let transcoder = other_width || skip;
    match (format, &sae.activation) {
        (Format::SaeLens, Activation::TopK { .. }) if transcoder => Some("topk transcoder"),
        (Format::SaeLens, Activation::Gated { .. }) if transcoder => Some("gated transcoder"),
        (Format::SaeLens, _) => None,
        (Format::Sparsify, Activation::TopK { .. }) => other_width.then_some("width 6"),
        (Format::Sparsify, other) => Some(other.name()),
        (Format::LlamaScope | Format::LanguageModelSaes, _) if transcoder => Some("a transcoder"),
        (Format::CircuitTracer, _) if other_width => Some("width 6"),
        (_, Activation::Gated { .. }) => Some("gated"),
        (Format::GemmaScope2, Activation::TopK { .. }) => Some("topk"),
        (Format::LlamaScope, Activation::JumpRelu { threshold }) => {
            let theta = read32(threshold.clone());
            (theta[0] != theta[1]).then_some("thresholds that differ")
        }
        _ => None,
    }
}

#[test]
fn every_format_gives_back_what_it_can_hold() {
    let dir = tempfile::tempdir().unwrap();
    let about =
        json!({"hook_name": "blocks.7.hook_mlp_in", "model_name": "gpt2", "more": [1, {"a": "b"}]});
    let (mut kept, mut exact, mut refused) = (0, 0, 0);
    for format in FORMATS {
        for (name, sae) in all() {
            let what = format!("{format} {name}");
            let path = dir.path().join(format!("{format}-{name}"));
            let written = block_on(format::write(&sae, &about, &path, format));
            if let Some(reason) = refusal(format, &sae) {
                says(
                    written.unwrap_err(),
                    &[format.name(), "cannot hold", reason],
                );
                assert!(!path.exists(), "{what}");
                refused += 1;
                continue;
            }
            written.unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(format::detect(&path).unwrap(), format, "{what}");
            let back = read_from(&path).unwrap_or_else(|e| panic!("{what}: {e}"));
            let off = off(&back.sae, &sae);
            assert!(off <= CLOSE, "{what}: {off:e}");
            if format == Format::CircuitTracer {
                assert_eq!(back.metadata["hook_name"], about["hook_name"], "{what}");
                assert_eq!(back.metadata["model_name"], about["model_name"], "{what}");
            } else {
                assert_eq!(back.metadata, about, "{what}");
            }
            let same = back.sae.activation.name() == sae.activation.name();
            // A threshold that was kept as its logarithm comes back but for the last bit.
            let logarithm =
                format == Format::LanguageModelSaes && sae.activation.name() == "jumprelu";
            if same && !logarithm && back.sae.subtract_b_dec == sae.subtract_b_dec {
                assert_eq!(all_bits(&back.sae), all_bits(&sae), "{what}");
                exact += 1;
            }
            kept += 1;
        }
    }
    println!("{kept} kept, {exact} of them to the bit; {refused} refused");
    assert_eq!((kept, exact, refused), (94, 47, 122));
}

/// Where both widths are the same and there is no skip, nothing but the file's word tells.
#[test]
fn a_transcoder_stays_one_and_an_autoencoder_too() {
    let dir = tempfile::tempdir().unwrap();
    for (format, activation) in [
        (Format::SaeLens, "standard"),
        (Format::Sparsify, "topk"),
        (Format::GemmaScope2, "jumprelu"),
        (Format::CircuitTracer, "jumprelu"),
    ] {
        for transcoder in [true, false] {
            let sae = Sae {
                transcoder,
                ..any(activation, 8, false, false)
            };
            let mut about = json!({"hook_name": "blocks.7.ln2.hook_normalized"});
            if transcoder {
                about["hook_name_out"] = json!("blocks.7.hook_mlp_out");
            }
            let path = dir.path().join(format!("{format}-{transcoder}"));
            block_on(format::write(&sae, &about, &path, format)).unwrap();
            let back = read_from(&path).unwrap().sae;
            // circuit-tracer's files are transcoders'.
            let wanted = transcoder || format == Format::CircuitTracer;
            assert_eq!(back.is_transcoder(), wanted, "{format} {transcoder}");
            assert!(off(&back, &sae) <= CLOSE, "{format}");
        }
    }
}

/// Our own directories hold all there is, whatever SAELens has.
#[test]
fn ours_keeps_every_autoencoder() {
    let dir = tempfile::tempdir().unwrap();
    let mut cases = all();
    let crosscoder = Sae {
        sites: 2,
        ..any("jumprelu", 8, false, false)
    };
    let signed = Activation::JumpRelu {
        threshold: any("standard", 8, false, false).b_enc,
    };
    cases.push(("crosscoder".into(), crosscoder));
    cases.push((
        "signed".into(),
        Sae {
            activation: signed,
            ..any("standard", 8, false, true)
        },
    ));
    for (name, sae) in cases {
        let path = dir.path().join(&name);
        for about in [
            json!({}),
            json!({"inscape": {"seed": 7}, "hook_name": "blocks.0.attn.hook_z"}),
        ] {
            block_on(format::save(&sae, &path, about.clone())).unwrap();
            let (back, metadata) = format::load(&path, Device::cpu().tensor()).unwrap();
            assert_eq!(back.activation.name(), sae.activation.name(), "{name}");
            assert_eq!(all_bits(&back), all_bits(&sae), "{name}");
            assert_eq!(metadata, about, "{name}");
        }
    }
    let config = |name: &str| -> Value {
        serde_json::from_slice(&fs::read(dir.path().join(name).join("cfg.json")).unwrap()).unwrap()
    };
    assert_eq!(config("batchtopk_")["architecture"], "jumprelu");
    assert_eq!(config("batchtopk_")["reshape_activations"], "hook_z");
    assert_eq!(
        config("topk_d_out-skip")["architecture"],
        "topk_skip_transcoder"
    );
    assert_eq!(config("standard_d_out")["architecture"], "transcoder");
    let metadata = block_on(format::save(
        &any("topk", 8, false, true),
        dir.path(),
        json!([1]),
    ));
    says(metadata.unwrap_err(), &["metadata", "[1]"]);
    let path = dir.path().join("no");
    let sae = read_from(&dir.path().join("signed")).unwrap().sae;
    for format in [Format::SaeLens, Format::GemmaScope2] {
        let error = block_on(format::write(&sae, &json!({}), &path, format)).unwrap_err();
        says(error, &[format.name(), "below 0"]);
    }
    let sae = read_from(&dir.path().join("crosscoder")).unwrap().sae;
    let error = block_on(format::write(&sae, &json!({}), &path, Format::GemmaScope2)).unwrap_err();
    says(error, &["gemma_scope_2", "sites"]);
    assert!(!path.exists());
}

/// Every autoencoder that SAELens, sparsify and the readers that SAELens has for the other formats can
/// open, with what ours gives: into `INSCAPE_FOREIGN_OUT` for `make_fixtures.py check DIR` and
/// `make_llamascopium_fixtures.py check DIR`, if it is set.
#[test]
fn writes_for_the_tools() {
    let dir = tempfile::tempdir().unwrap();
    let out = std::env::var("INSCAPE_FOREIGN_OUT");
    let root = out.map_or_else(|_| dir.path().to_path_buf(), PathBuf::from);
    let about = json!({"hook_name": "blocks.7.hook_resid_post", "model_name": "gpt2"});
    let x = some_inputs();
    for format in FORMATS {
        for (name, sae) in all() {
            // SAELens's reader of this format knows transcoders by the name, and others by it too.
            let transcoder = sae.d_out() != 8 || sae.w_skip.is_some();
            let suffix = if transcoder { "_transcoder" } else { "" };
            let path = root.join(format.name()).join(format!("{name}{suffix}"));
            // Neither does SAELens's reader of Llama Scope know any other activation.
            let only_threshold = matches!(
                sae.activation,
                Activation::JumpRelu { .. } | Activation::BatchTopK { .. }
            );
            if refusal(format, &sae).is_some() || (format == Format::LlamaScope && !only_threshold)
            {
                continue;
            }
            block_on(format::write(&sae, &about, &path, format)).unwrap();
            let back = format::read(&path, Some(format), Device::cpu().tensor()).unwrap();
            assert_eq!(back.sae.d_out(), sae.d_out(), "{}", path.display());
            let inputs = t2(&x, 8, &Device::cpu());
            let latents = read32(sae.encode_dense(inputs.clone()));
            let out = read32(sae.reconstruct(inputs));
            let shapes = [vec![16, 8], vec![16, 24], vec![16, sae.d_out()]];
            let all = [x.clone(), latents, out]
                .map(|v| v.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>());
            let views = ["x", "latents", "out"]
                .into_iter()
                .zip(shapes)
                .zip(&all)
                .map(|((name, shape), bytes)| {
                    (name, TensorView::new(Dtype::F32, shape, bytes).unwrap())
                });
            fs::write(
                path.join("expected.safetensors"),
                safetensors::serialize(views, None).unwrap(),
            )
            .unwrap();
        }
    }
}
