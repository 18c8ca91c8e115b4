//! Many autoencoders in one pass: the same bytes as each alone, and however often they were stopped.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use inscape::sae::session::{self, Job, LogLine, SessionOptions};
use inscape::sae::{
    Architecture, Error, Gated, JumpPenalty, JumpRelu, Matryoshka, Standard, TrainConfig,
};

use super::*;

const STEPS: u64 = 40;
const BATCH: usize = 24;
const D: usize = 12;

fn base() -> TrainConfig {
    TrainConfig {
        batch: BATCH,
        dead_after: 6 * BATCH as u64,
        seed: 5,
        ..TrainConfig::new(D, 64, 3, BATCH as u64 * STEPS)
    }
}

fn of(architecture: Architecture) -> TrainConfig {
    TrainConfig {
        architecture,
        ..base()
    }
}

/// Every architecture and every piece of state that a checkpoint must hold.
fn configs() -> Vec<(&'static str, TrainConfig)> {
    let jump = |penalty, pre_act| {
        of(Architecture::JumpRelu(JumpRelu {
            penalty,
            pre_act,
            ..JumpRelu::aiming_at(3.0)
        }))
    };
    let annealed = Standard {
        p_end: 0.5,
        ..Standard::for_width(64)
    };
    let mut crosscoder = of(Architecture::BatchTopK { k: 3 });
    crosscoder.sites = 2;
    crosscoder.conventions.subtract_b_dec = false;
    vec![
        (
            "topk",
            TrainConfig {
                k_start: Some(12),
                k_anneal: 0.5,
                ..base()
            },
        ),
        (
            "mean",
            TrainConfig {
                ema: Some(0.9),
                ..base()
            },
        ),
        ("batch-topk", of(Architecture::BatchTopK { k: 3 })),
        (
            "matryoshka",
            of(Architecture::Matryoshka(Matryoshka::halving(3, 64))),
        ),
        (
            "standard",
            TrainConfig {
                resample_every: Some(9),
                ..of(Architecture::Standard(Standard {
                    l1: 0.2,
                    ..Standard::for_width(64)
                }))
            },
        ),
        ("p-annealed", of(Architecture::Standard(annealed))),
        ("gated", of(Architecture::Gated(Gated::for_width(64)))),
        (
            "jump",
            jump(
                JumpPenalty::TargetL0 {
                    weight: 0.1,
                    target: 3.0,
                },
                0.0,
            ),
        ),
        (
            "tanh",
            jump(
                JumpPenalty::Tanh {
                    l0: 0.01,
                    scale: 4.0,
                },
                1e-3,
            ),
        ),
        ("crosscoder", crosscoder),
    ]
}

fn data() -> Planted {
    Planted::new(1, 333, D, 20, 2)
}

/// All of them, and a skip transcoder to other rows.
fn jobs(dir: &Path) -> Vec<Job> {
    let job = |(name, config): (&str, TrainConfig)| Job {
        source: data().source(),
        target: None,
        config,
        out: dir.join(name),
    };
    let mut all: Vec<Job> = configs().into_iter().map(job).collect();
    let mut config = TrainConfig {
        skip: true,
        ..base()
    };
    config.conventions.subtract_b_dec = false;
    let target = Source::memory("target", Planted::new(2, 333, 7, 20, 2).rows, 7);
    all.push(Job {
        source: data().source(),
        target: Some(target),
        config,
        out: dir.join("transcoder"),
    });
    all
}

fn run(jobs: &[Job], resume: bool, seen: impl FnMut(usize, &LogLine)) -> Result<Vec<Sae>, Error> {
    let options = SessionOptions {
        resume,
        checkpoint_every: 5,
        log_every: 1,
        buffer_rows: 128,
        ..SessionOptions::new("")
    };
    session::train_all(jobs, 0, &options, &Device::cpu(), seen)
        .map(|all| all.into_iter().filter_map(session::Trained::sae).collect())
}

fn weights(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let all = jobs(dir)
        .into_iter()
        .map(|j| j.out.join("sae_weights.safetensors"));
    all.map(|path| {
        let bytes = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        (path.strip_prefix(dir).unwrap().to_path_buf(), bytes)
    })
    .collect()
}

#[test]
fn together_or_alone_the_bytes_are_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (together, alone) = (dir.path().join("together"), dir.path().join("alone"));
    let saes = run(&jobs(&together), false, |_, _| {}).unwrap();
    assert_eq!(saes.len(), configs().len() + 1);
    for job in jobs(&alone) {
        run(&[job], false, |_, _| {}).unwrap();
    }
    for ((name, a), (_, b)) in weights(&together).iter().zip(weights(&alone)) {
        assert!(*a == b, "{}: differs when trained alone", name.display());
    }
}

#[test]
fn stopped_anywhere_they_end_in_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, stopped) = (dir.path().join("whole"), dir.path().join("stopped"));
    let mut last = vec![None; configs().len() + 1];
    run(&jobs(&whole), false, |i, line| last[i] = Some(*line)).unwrap();
    assert!(last.iter().all(|l| l.unwrap().stats.step == STEPS));
    // In the middle of a step, when some have taken it and some have not; at a checkpoint that some
    // have written and some have not; and right after one.
    for (step, job) in [(3, 4), (5, 6), (16, 0), (25, 10), (31, 2)] {
        let attempt = catch_unwind(AssertUnwindSafe(|| {
            run(&jobs(&stopped), true, |i, line| {
                assert!((line.stats.step, i) != (step, job), "stopped")
            })
        }));
        assert!(attempt.is_err(), "step {step} never came");
    }
    run(&jobs(&stopped), true, |_, _| {}).unwrap();
    for ((name, a), (_, b)) in weights(&whole).iter().zip(weights(&stopped)) {
        assert!(*a == b, "{}: differs after stops", name.display());
    }
}

#[test]
fn what_cannot_be_trained_together_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let change = |edit: fn(&mut Job)| {
        let mut two = jobs(dir.path());
        two.truncate(2);
        edit(&mut two[1]);
        run(&two, false, |_, _| {}).unwrap_err()
    };
    says(change(|j| j.config.batch = 12), &["same batch"]);
    says(
        change(|j| j.source = Source::memory("short", vec![0.0; 60], D)),
        &["short has 5", "same tokens"],
    );
    says(change(|j| j.out.set_file_name("topk")), &["topk", "share"]);
    says(change(|j| j.config.d_sae = 1 << 20 | 1), &["width"]);
    says(
        run(&[], false, |_, _| {}).unwrap_err(),
        &["nothing to train"],
    );
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        0,
        "something was written"
    );
}

#[test]
fn a_run_that_cannot_fit_says_what_it_needs() {
    let dir = tempfile::tempdir().unwrap();
    let wide = Source::memory("wide", vec![0.5; 2 * (1 << 20)], 1 << 20);
    let mut config = TrainConfig::new(1 << 20, 1 << 20, 4, 2);
    config.batch = 2;
    let job = Job {
        source: wide,
        target: None,
        config,
        out: dir.path().join("out"),
    };
    let error = run(&[job], false, |_, _| {}).unwrap_err();
    says(error, &["of memory", "free", "fewer latents"]);
}
