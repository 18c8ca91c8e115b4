//! The end-to-end loss: its gradient, what it is good for, and the same bytes after a kill.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use inscape::capture::Live;
use inscape::model::{self, Network};
use inscape::sae::session::{self, Job, LogLine, SessionOptions, Trained};
use inscape::sae::{
    Architecture, EndToEnd, EndToEndPass, Gated, JumpRelu, Matryoshka, Standard, TrainConfig,
};

use super::*;

const CONTEXT: usize = 24;
const HOOK: &str = "blocks.1.hook_resid_post";
const MLP: [&str; 2] = ["blocks.1.ln2.hook_normalized", "blocks.1.hook_mlp_out"];

fn network(device: &Device) -> Arc<Network> {
    Arc::new(model::load("tiny-lm-1", device).unwrap())
}

fn live(device: &Device, hooks: &[&str], bytes: usize) -> Live {
    let text = model::load::SAMPLE;
    let text = &text[..text.floor_char_boundary(bytes)];
    let hooks: Vec<String> = hooks.iter().map(|h| h.to_string()).collect();
    Live::new(
        network(device),
        text.as_bytes(),
        "sample",
        &hooks,
        CONTEXT,
        8,
        None,
    )
    .unwrap()
}

fn names(hooks: &[&str]) -> Vec<String> {
    hooks.iter().map(|h| h.to_string()).collect()
}

/// Along random directions, by differences of the loss: the divergence, its weights for the error and
/// for the streams behind, a hook that writes elsewhere, and rows of several hooks side by side.
#[test]
fn the_gradient_is_that_of_the_spliced_model() {
    let device = Device::cpu().autodiff();
    let live = live(&device, &[HOOK], 4000);
    let tokens = live.tokens(0..3);
    let model = live.network().model.as_ref();
    let both = EndToEnd {
        mse: 0.3,
        downstream: 0.7,
    };
    for (read, write, settings) in [
        (names(&[HOOK]), vec![], EndToEnd::default()),
        (names(&[HOOK]), vec![], both),
        (names(&MLP[..1]), names(&MLP[1..]), both),
        (
            names(&["blocks.0.hook_resid_mid", "blocks.2.hook_resid_mid"]),
            names(&["blocks.0.hook_mlp_out", "blocks.2.hook_mlp_out"]),
            both,
        ),
    ] {
        let what = format!("{read:?} to {write:?}, {settings:?}");
        let pass =
            EndToEndPass::new(model, &tokens, [&read, &write], [0, CONTEXT], settings).unwrap();
        let wanted = pass.y().unwrap_or(pass.x()).clone();
        let [n, d] = wanted.dims();
        let same = read64(pass.judge(wanted.clone()).0)[0];
        assert!(
            same.abs() < 1e-5,
            "{what}: {same} for the activations themselves"
        );

        let mut draws = Draws::new(6);
        let noise = |draws: &mut Draws, size: f64| {
            let values: Vec<f32> = draws
                .normals(n * d)
                .iter()
                .map(|v| (v * size) as f32)
                .collect();
            t2(&values, d, &Device::cpu())
        };
        let size = read64(wanted.clone().square().mean())[0].sqrt();
        let made = wanted + noise(&mut draws, 0.7 * size);
        let (_, gradient) = pass.judge(made.clone());
        for _ in 0..3 {
            let (step, h) = (noise(&mut draws, size), 0.01);
            let along = read64((gradient.clone() * step.clone()).sum())[0];
            let at = |h: f64| read64(pass.judge(made.clone() + step.clone() * h).0)[0];
            let by_differences = (at(h) - at(-h)) / (2.0 * h);
            let length = read64(gradient.clone().square().sum())[0].sqrt()
                * read64(step.square().sum())[0].sqrt();
            assert!(
                (along - by_differences).abs() < 2e-2 * along.abs() + 2e-4 * length,
                "{what}: {along} against {by_differences}"
            );
        }
    }
}

fn config(architecture: Architecture, steps: u64, end_to_end: Option<EndToEnd>) -> TrainConfig {
    TrainConfig {
        architecture,
        batch: 8 * CONTEXT,
        end_to_end,
        dead_after: 2000,
        ..TrainConfig::new(128, 256, 8, 8 * CONTEXT as u64 * steps)
    }
}

fn job(live: &Live, config: TrainConfig, out: &Path) -> Job {
    Job {
        source: live.source(HOOK).unwrap(),
        target: None,
        config,
        out: out.into(),
    }
}

fn options(resume: bool) -> SessionOptions {
    SessionOptions {
        resume,
        checkpoint_every: 3,
        log_every: 1,
        buffer_rows: 2048,
        ..SessionOptions::new("")
    }
}

fn divergence(sae: Sae) -> f64 {
    let cpu = Device::cpu();
    let live = live(&cpu, &[HOOK], usize::MAX);
    let mut all = inscape::sae::eval::SplicedAccumulator::new(sae, HOOK);
    for i in 0..12 {
        let tokens = live.tokens(live.contexts() - 96 + 8 * i..live.contexts() - 88 + 8 * i);
        block_on(all.add(live.network().model.as_ref(), &tokens)).unwrap();
    }
    all.finish().kl_spliced
}

/// From the same start on the same text: what is trained on the predictions keeps more of them.
#[test]
fn predictions_are_kept_better_than_with_the_squared_error() {
    let dir = tempfile::tempdir().unwrap();
    let device = Device::cpu().autodiff();
    let live = live(&device, &[HOOK], 140_000); // not the end, which is measured
    let topk = Architecture::TopK { k: 8 };
    let jobs = [
        job(
            &live,
            config(topk.clone(), 500, Some(EndToEnd::default())),
            &dir.path().join("kl"),
        ),
        job(&live, config(topk, 500, None), &dir.path().join("mse")),
    ];
    let all = session::train_all(&jobs, 0, &options(false), &Device::cpu(), |_, _| ()).unwrap();
    let mut all = all.into_iter().filter_map(Trained::sae).map(divergence);
    let (kl, mse) = (all.next().unwrap(), all.next().unwrap());
    println!("KL {kl:.4} end to end, {mse:.4} by the squared error");
    assert!(kl < 0.95 * mse, "{kl}, {mse}");
}

/// Every architecture learns by it, and stopped runs end in the same bytes.
#[test]
fn every_architecture_learns_end_to_end() {
    let dir = tempfile::tempdir().unwrap();
    let device = Device::cpu().autodiff();
    let live = live(&device, &[HOOK], 20_000);
    let both = EndToEnd {
        mse: 0.5,
        downstream: 0.0,
    };
    let all = [
        ("standard", Architecture::Standard(Standard::for_width(4))),
        ("gated", Architecture::Gated(Gated::for_width(4))),
        ("topk", Architecture::TopK { k: 8 }),
        ("batch_topk", Architecture::BatchTopK { k: 8 }),
        (
            "matryoshka",
            Architecture::Matryoshka(Matryoshka::halving(8, 256)),
        ),
        (
            "jump_relu",
            Architecture::JumpRelu(JumpRelu::aiming_at(8.0)),
        ),
    ];
    for (name, architecture) in all {
        let run = |at: &str, resume, seen: &mut dyn FnMut(&LogLine)| {
            let job = job(
                &live,
                config(architecture.clone(), 16, Some(both)),
                &dir.path().join(format!("{name}-{at}")),
            );
            session::train_all(&[job], 0, &options(resume), &Device::cpu(), |_, line| {
                seen(line)
            })
        };
        let mut losses = Vec::new();
        run("whole", false, &mut |line| losses.push(line.stats.loss)).unwrap();
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
        let (first, last) = (mean(&losses[..3]), mean(&losses[13..]));
        println!("{name}: loss {first:.3} to {last:.3}");
        assert!(last < first, "{name}: {losses:?}");
        let stopped = catch_unwind(AssertUnwindSafe(|| {
            run("cut", false, &mut |line| {
                assert!(line.stats.step != 8, "stopped")
            })
        }));
        assert!(stopped.is_err(), "{name}");
        run("cut", true, &mut |_| ()).unwrap();
        let weights = |at: &str| {
            fs::read(
                dir.path()
                    .join(format!("{name}-{at}/sae_weights.safetensors")),
            )
            .unwrap()
        };
        assert!(weights("whole") == weights("cut"), "{name}");
    }
}

#[test]
fn what_cannot_be_trained_so_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let end_to_end = Some(EndToEnd::default());
    let topk = || config(Architecture::TopK { k: 8 }, 4, end_to_end);
    let refused = |job: Job, words: &[&str]| {
        let found = session::train_all(&[job], 0, &options(true), &Device::cpu(), |_, _| ());
        says(found.map(drop).unwrap_err(), words);
    };
    let stored = Source::memory("stored", vec![0.5; 128 * 1000], 128);
    let on_store = Job {
        source: stored,
        target: None,
        config: topk(),
        out: dir.path().join("a"),
    };
    refused(on_store, &["stored", "no model"]);
    let live_here = live(&Device::cpu().autodiff(), &[HOOK], 4000);
    let mut odd = job(&live_here, topk(), &dir.path().join("b"));
    odd.config.batch = 100;
    refused(odd, &["batch = 100", "96 fits"]);
    let plain = live(&Device::cpu(), &[HOOK], 4000);
    refused(job(&plain, topk(), &dir.path().join("c")), &["autodiff"]);
    let mut wrong = job(&live_here, topk(), &dir.path().join("d"));
    wrong.config.end_to_end = Some(EndToEnd {
        mse: f64::NAN,
        downstream: 0.0,
    });
    refused(wrong, &["mse"]);
    let mut last = job(&live_here, topk(), &dir.path().join("e"));
    let on_last = live(
        &Device::cpu().autodiff(),
        &["blocks.3.hook_resid_post"],
        4000,
    );
    last.source = on_last.source("blocks.3.hook_resid_post").unwrap();
    last.config.end_to_end = Some(EndToEnd {
        mse: 0.0,
        downstream: 1.0,
    });
    refused(last, &["downstream", "blocks.3.hook_resid_post"]);
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        0,
        "nothing is written"
    );
    let tokens = live_here.tokens(0..2);
    let model = live_here.network().model.as_ref();
    let patterns = names(&["blocks.0.attn.hook_pattern"]);
    let found = EndToEndPass::new(
        model,
        &tokens,
        [&patterns, &[]],
        [0, CONTEXT],
        EndToEnd::default(),
    );
    says(found.err().unwrap(), &["hook_pattern"]);
}
