//! A wgpu adapter against the CPU backend: the model at every hook point, its gradient, one training
//! step, one capture.
//!
//! Ignored unless asked for (`--run-ignored all`), and then fails without an adapter.
//! `INSCAPE_TEST_DEVICE` names it (default: `wgpu:software`, else the best GPU).
//!
//! Bounds are `c · ε · √n · scale`: ε is f32's, n the longest sum on the way to a value, scale the
//! largest value of the tensor; c allows for the roundings that pile up from layer to layer.

use std::path::{Path, PathBuf};

use burn::tensor::{Int, Tensor, TensorData};
use inscape::capture::{CaptureConfig, capture};
use inscape::device::{Device, block_on, read};
use inscape::hook::{Hooks, Tap};
use inscape::model::family::llama::{Config, Llama};
use inscape::model::load::RandomInit;
use inscape::model::{self, Model, Network, Param, Tokens, next_token_loss};
use inscape::sae::{TrainConfig, Trainer};

#[path = "shared/gpu.rs"]
mod shared;

use shared::gpu;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples/data")
        .join(name)
}

fn tiny(device: &Device) -> Network {
    model::load(data("tiny-lm-1"), device).unwrap()
}

/// `c · ε · √n · scale`.
fn bound(c: f32, n: usize, scale: f32) -> f32 {
    c * f32::EPSILON * (n as f32).sqrt() * scale
}

/// The largest difference; infinities must be equal. Scores of masked keys are infinite.
fn compare(name: &str, got: &[f32], want: &[f32], c: f32, n: usize) -> Result<f32, String> {
    if got.len() != want.len() {
        return Err(format!("{name}: {} values for {}", got.len(), want.len()));
    }
    let finite = want.iter().filter(|v| v.is_finite());
    let scale = finite.fold(0f32, |m, v| m.max(v.abs()));
    let limit = bound(c, n, scale);
    let mut worst = 0f32;
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let off = if g == w { 0.0 } else { (g - w).abs() };
        if off.is_nan() || off > limit {
            return Err(format!("{name}[{i}]: {g} for {w}, over {limit:e}"));
        }
        worst = worst.max(off);
    }
    Ok(worst / bound(1.0, n, scale.max(f32::MIN_POSITIVE)))
}

#[track_caller]
fn close(name: &str, got: &[f32], want: &[f32], c: f32, n: usize) -> f32 {
    compare(name, got, want, c, n).unwrap_or_else(|e| panic!("{e}"))
}

fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    block_on(read(x)).unwrap()
}

#[test]
fn the_comparison_sees_planted_faults() {
    let want = [1.0, -2.0, 0.5, f32::NEG_INFINITY];
    let with = |i: usize, v: f32| {
        let mut got = want;
        got[i] = v;
        compare("x", &got, &want, 4.0, 16)
    };
    assert_eq!(with(0, 1.0), Ok(0.0));
    assert!(with(0, 1.0 + 30.0 * f32::EPSILON).is_ok());
    assert!(with(0, 1.0 + 40.0 * f32::EPSILON).is_err());
    assert!(with(2, f32::NAN).is_err());
    assert!(with(3, -1e30).is_err());
    assert!(with(1, f32::NEG_INFINITY).is_err());
    assert!(compare("x", &want[..3], &want, 4.0, 16).is_err());
}

/// Allowance for the tiny LM's four layers; the longest sum is over its 344 hidden units.
const FORWARD: (f32, usize) = (4.0, 344);

#[test]
#[ignore = "needs a wgpu adapter"]
fn the_model_agrees_at_every_hook_point() {
    let (gpu, cpu) = (tiny(&gpu()), tiny(&Device::cpu()));
    let mut ids = cpu.tokens(&["Call me Ishmael."]).unwrap().rows()[0].clone();
    ids.truncate(6);
    let run = |network: &Network| {
        let tokens = Tokens::new(vec![ids.clone()]);
        network.run(&tokens, &Hooks::new().capture("*")).unwrap()
    };
    let (got, want) = (run(&gpu), run(&cpu));
    let mut worst = (0f32, String::new());
    let points = cpu.model.hook_points();
    for point in &points {
        let name = point.site.to_string();
        let at = |run: &model::Run| values(run[name.as_str()].clone().rows());
        let off = close(&name, &at(&got), &at(&want), FORWARD.0, FORWARD.1);
        if off > worst.0 {
            worst = (off, name);
        }
    }
    let logits = |run: model::Run| values(run.output.logits.unwrap());
    let off = close("logits", &logits(got), &logits(want), FORWARD.0, FORWARD.1);
    println!(
        "{} points; worst c = {:.2} at {}; logits c = {off:.2}",
        points.len(),
        worst.0,
        worst.1
    );
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn a_capture_agrees() {
    let text = std::fs::read_to_string(data("sample.txt")).unwrap();
    let hook = "blocks.3.hook_resid_post";
    let rows = |device: &Device, positions: &str| {
        let dir = tempfile::tempdir().unwrap();
        let config = CaptureConfig {
            batch: 2,
            context: 8,
            max_tokens: Some(8),
            positions: positions.parse().unwrap(),
            ..CaptureConfig::new([hook])
        };
        let network = tiny(device);
        let (text, name) = (text.as_bytes(), device.name());
        let store = capture(
            &network,
            text,
            "t",
            dir.path(),
            &config,
            false,
            name,
            |_| {},
        )
        .unwrap();
        let all = 0..store.rows();
        (
            store.read_meta(all.clone()).unwrap(),
            store.read_rows(hook, all).unwrap(),
        )
    };
    let (gpu, cpu) = (gpu(), Device::cpu());
    for positions in ["all", "mean"] {
        let (got, want) = (rows(&gpu, positions), rows(&cpu, positions));
        assert_eq!(got.0, want.0);
        let off = close(positions, &got.1, &want.1, FORWARD.0, FORWARD.1);
        println!("{positions}: c = {off:.2}");
    }
}

/// Scattered values in -1..1.
fn scattered(i: usize) -> f32 {
    let mut h = (i as u32).wrapping_add(0x9e37_79b9);
    for factor in [0x85eb_ca6b, 0xc2b2_ae35] {
        h = (h ^ (h >> 15)).wrapping_mul(factor);
    }
    (h ^ (h >> 16)) as f32 / 2f32.powi(31) - 1.0
}

/// Three steps of a tiny autoencoder (Adam's first knows only signs): parameters after them, and
/// what the last says of itself.
fn steps(device: &Device) -> Vec<(&'static str, Vec<f32>)> {
    let (rows, d_in) = (32, 16);
    let config = TrainConfig {
        batch: rows,
        lr: 1e-3,
        ..TrainConfig::new(d_in, 48, 4, 3 * rows as u64)
    };
    let batch =
        |b: usize| -> Vec<f32> { (0..rows * d_in).map(|i| scattered(b << 16 | i)).collect() };
    let mut trainer = Trainer::new(config, &batch(0), d_in, device.tensor()).unwrap();
    for b in 0..3 {
        let x = Tensor::from_data(TensorData::new(batch(b), [rows, d_in]), device.tensor());
        block_on(trainer.step(x)).unwrap();
    }
    let (sae, stats) = (trainer.sae(), block_on(trainer.stats()).unwrap());
    vec![
        ("W_enc", values(sae.w_enc)),
        ("b_enc", values(sae.b_enc)),
        ("W_dec", values(sae.w_dec)),
        ("b_dec", values(sae.b_dec)),
        ("loss and FVU", vec![stats.loss as f32, stats.fvu as f32]),
        ("L0", vec![stats.l0 as f32, stats.dead_share as f32]),
    ]
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn training_steps_agree() {
    for ((name, got), (_, want)) in steps(&gpu()).iter().zip(steps(&Device::cpu())) {
        let off = close(name, got, &want, 8.0, 48);
        println!("{name}: c = {off:.2}");
    }
}

fn small() -> Config {
    serde_json::from_value(serde_json::json!({
        "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 20,
        "max_position_embeddings": 8, "rms_norm_eps": 1e-6,
    }))
    .unwrap()
}

/// Loss and gradient of every parameter of a random one-layer model over two rows.
fn gradient(device: &Device) -> Vec<(String, Vec<f32>)> {
    let device = Device::from_burn(device.tensor().clone().autodiff());
    let mut source = RandomInit::new(7, 0.3, &device);
    let mut model = Llama::new(small(), &mut source, device.tensor()).unwrap();
    for (_, param) in model.params() {
        match param {
            Param::R1(x) => *x = x.clone().require_grad(),
            Param::R2(x) => *x = x.clone().require_grad(),
        }
    }
    let tokens = Tokens::new(vec![vec![1, 7, 7, 19, 0, 4], vec![5, 2, 11, 3, 8, 13]]);
    let logits = model.forward(&tokens, &mut Tap::none()).logits.unwrap();
    let ids: Tensor<2, Int> = tokens.ids(&logits.device());
    let loss = next_token_loss(logits, ids);
    let grads = loss.backward();
    let mut all = vec![("loss".to_string(), values(loss.inner()))];
    for (name, param) in model.params() {
        let grad = match param {
            Param::R1(x) => values(x.grad(&grads).expect("every parameter is used")),
            Param::R2(x) => values(x.grad(&grads).expect("every parameter is used")),
        };
        all.push((name, grad));
    }
    all
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn the_gradient_agrees() {
    let (got, want) = (gradient(&gpu()), gradient(&Device::cpu()));
    assert_eq!(got.len(), 13);
    for ((name, got), (_, want)) in got.iter().zip(&want) {
        assert!(want.iter().any(|g| *g != 0.0), "{name}: no gradient");
        let off = close(name, got, want, 16.0, 24);
        println!("{name}: c = {off:.2}");
    }
}
