//! Same seed, same bytes: twice, on any number of threads, and however often it was stopped.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use inscape::sae::session::{self, LogLine, SessionOptions};
use inscape::sae::{Error, TrainConfig};

use super::*;

const WEIGHTS: &str = "sae_weights.safetensors";
const CHECKPOINT: &str = "checkpoint.safetensors";
const STEPS: u64 = 60;
const EVERY: u64 = 7;

/// Latents die early here, so that the auxiliary loss is part of the run.
fn config() -> TrainConfig {
    TrainConfig {
        batch: 24,
        dead_after: 24 * 6,
        seed: 5,
        ..TrainConfig::new(12, 64, 3, 24 * STEPS)
    }
}

fn data() -> Planted {
    Planted::new(1, 333, 12, 20, 2)
}

fn options(out: &Path, resume: bool) -> SessionOptions {
    SessionOptions {
        resume,
        checkpoint_every: EVERY,
        log_every: 1,
        buffer_rows: 128,
        ..SessionOptions::new(out)
    }
}

fn run(out: &Path, resume: bool, seen: impl FnMut(&LogLine)) -> Result<Sae, Error> {
    let options = options(out, resume);
    session::train(
        data().source(),
        0,
        &config(),
        &options,
        &Device::cpu(),
        seen,
    )
}

/// Runs until step `stop` has been logged.
fn run_until(out: &Path, stop: u64) {
    let stopped = catch_unwind(AssertUnwindSafe(|| {
        run(out, true, |line| {
            assert!(line.stats.step != stop, "stopped")
        })
    }));
    assert!(stopped.is_err(), "step {stop} never came");
}

fn weights(out: &Path) -> Vec<u8> {
    fs::read(out.join(WEIGHTS)).unwrap()
}

/// Everything of a log but its times.
fn steps(out: &Path) -> Vec<(u64, String)> {
    let log = session::read_log(out).unwrap();
    log.iter()
        .map(|l| (l.tokens, format!("{:?} {}", l.stats, l.lr)))
        .collect()
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|n| dir.path().join(n));
    run(&a, false, |_| {}).unwrap();
    run(&b, false, |_| {}).unwrap();
    assert!(weights(&a) == weights(&b));
    assert_eq!(steps(&a), steps(&b));
    let other = TrainConfig {
        seed: 6,
        ..config()
    };
    session::train(
        data().source(),
        0,
        &other,
        &options(&c, false),
        &Device::cpu(),
        |_| {},
    )
    .unwrap();
    assert!(weights(&a) != weights(&c), "the seed changes nothing");
}

#[test]
fn a_stopped_run_ends_in_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    let mut dead = false;
    run(&whole, false, |line| dead |= line.stats.dead_share > 0.0).unwrap();
    assert!(dead, "no latent died: the auxiliary loss was not tried");
    for stops in [
        &[1][..],
        &[EVERY - 1],
        &[EVERY],
        &[EVERY + 1],
        &[16, 17],
        &[3, 8, 20, 21, 22, 49],
        &[STEPS],
    ] {
        let out = dir.path().join(format!("{stops:?}"));
        stops.iter().for_each(|&stop| run_until(&out, stop));
        run(&out, true, |_| {}).unwrap();
        assert!(weights(&out) == weights(&whole), "stopped at {stops:?}");
        assert_eq!(steps(&out), steps(&whole), "stopped at {stops:?}");
        assert!(!out.join(CHECKPOINT).exists());
    }
}

#[test]
fn the_state_of_any_moment_can_be_continued() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    let mut copies = Vec::new();
    run(&whole, false, |line| {
        let step = line.stats.step;
        if [2, 7, 8, 15, 33, STEPS].contains(&step) {
            let copy = dir.path().join(format!("copy-{step}"));
            fs::create_dir(&copy).unwrap();
            for file in fs::read_dir(&whole).unwrap() {
                let file = file.unwrap();
                fs::copy(file.path(), copy.join(file.file_name())).unwrap();
            }
            copies.push(copy);
        }
    })
    .unwrap();
    for copy in copies {
        // The last line may be half written.
        let log = copy.join(session::LOG);
        let text = fs::read(&log).unwrap();
        fs::write(&log, &text[..text.len() - 9]).unwrap();
        run(&copy, true, |_| {}).unwrap();
        assert!(weights(&copy) == weights(&whole), "{}", copy.display());
        assert_eq!(steps(&copy), steps(&whole), "{}", copy.display());
    }
}

#[test]
fn a_run_killed_at_its_start_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let [whole, out] = ["whole", "out"].map(|n| dir.path().join(n));
    run(&whole, false, |_| {}).unwrap();
    fs::create_dir(&out).unwrap();
    fs::write(out.join("run.json.tmp"), "{\"insc").unwrap();
    run(&out, true, |_| {}).unwrap();
    assert!(weights(&out) == weights(&whole));
}

#[test]
fn a_complete_run_returns_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("sae");
    let first = run(&out, false, |_| {}).unwrap();
    let log = fs::read(out.join(session::LOG)).unwrap();
    // As a kill right after the weights were written would leave it.
    let left = out.join("checkpoint.safetensors");
    fs::write(&left, b"old").unwrap();
    let again = run(&out, true, |line| panic!("trained again: {line:?}")).unwrap();
    assert!(!left.exists());
    assert_eq!(bits(first.w_enc), bits(again.w_enc));
    assert_eq!(bits(first.b_dec), bits(again.b_dec));
    assert!(fs::read(out.join(session::LOG)).unwrap() == log);
}

#[test]
fn another_setting_is_named_with_both_values() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("sae");
    run_until(&out, 9);
    let other = |config: TrainConfig, first_row: usize, options: SessionOptions, source: Source| {
        session::train(source, first_row, &config, &options, &Device::cpu(), |_| {}).unwrap_err()
    };
    let same = || options(&out, true);
    let lr = TrainConfig {
        lr: 0.125,
        ..config()
    };
    says(
        other(lr, 0, same(), data().source()),
        &["config.lr", "0.125", "now"],
    );
    let seed = TrainConfig {
        seed: 77,
        ..config()
    };
    says(
        other(seed, 0, same(), data().source()),
        &["config.seed is 5 there and 77 now"],
    );
    let mut adam = config();
    adam.adam.beta1 = 0.5;
    says(
        other(adam, 0, same(), data().source()),
        &["config.adam.beta1 is 0.9 there and 0.5 now"],
    );
    let buffer = SessionOptions {
        buffer_rows: 64,
        ..same()
    };
    says(
        other(config(), 0, buffer, data().source()),
        &["buffer_rows is 128 there and 64 now"],
    );
    says(
        other(config(), 3, same(), data().source()),
        &["first_row is 0 there and 3 now"],
    );
    let fewer = data().source().sub(0..300).unwrap();
    says(
        other(config(), 0, same(), fewer),
        &["rows is 333 there and 300 now"],
    );
    let named = Source::memory("another", data().rows, 12);
    says(
        other(config(), 0, same(), named),
        &["source", "planted", "another"],
    );
    run(&out, true, |_| {}).unwrap();
}

/// Floats of every kind must be known again as the same ones.
#[test]
fn settings_with_long_fractions_are_the_same_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut draws = Draws::new(9);
    for i in 0..40 {
        let (lr, clip) = (draws.uniform(1e-5, 1e-2), draws.uniform(0.5, 2.0));
        let config = TrainConfig {
            lr,
            clip,
            batch: 8,
            ..TrainConfig::new(12, 16, 2, 16)
        };
        let out = dir.path().join(i.to_string());
        let train = || {
            session::train(
                data().source(),
                0,
                &config,
                &options(&out, true),
                &Device::cpu(),
                |_| {},
            )
        };
        train().unwrap();
        train().unwrap_or_else(|e| panic!("lr {lr:?}, clip {clip:?}: {e}"));
    }
}

#[test]
fn what_is_there_is_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("sae");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("thesis.tex"), "years").unwrap();
    for resume in [false, true] {
        let error = run(&out, resume, |_| {}).unwrap_err();
        assert!(matches!(error, Error::Resume { .. }), "{error}");
        says(error, &["sae", "not empty"]);
    }
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
    fs::remove_file(out.join("thesis.tex")).unwrap();
    run_until(&out, 9);
    says(
        run(&out, false, |_| {}).unwrap_err(),
        &["holds a training run already"],
    );
    assert!(out.join(CHECKPOINT).exists());
}

#[test]
fn a_damaged_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("sae");
    run_until(&out, 9);
    let path = out.join(CHECKPOINT);
    let bytes = fs::read(&path).unwrap();
    for keep in [0, 7, 100, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&path, &bytes[..keep]).unwrap();
        let error = run(&out, true, |_| {}).unwrap_err();
        assert!(matches!(error, Error::Malformed { .. }), "{error}");
        says(error, &[CHECKPOINT]);
    }
    let renamed = String::from_utf8_lossy(&bytes[..2000]).replace("\"silent\"", "\"silenz\"");
    let header = 2000 - (String::from_utf8_lossy(&bytes[..2000]).len() - renamed.len());
    assert_eq!(header, 2000);
    let at = bytes.windows(8).position(|w| w == b"\"silent\"").unwrap();
    let mut other = bytes.clone();
    other[at + 6] = b'z';
    fs::write(&path, other).unwrap();
    says(
        run(&out, true, |_| {}).unwrap_err(),
        &[CHECKPOINT, "silent", "missing"],
    );
    fs::write(&path, &bytes).unwrap();
    let settings = out.join("run.json");
    let text = fs::read(&settings).unwrap();
    fs::write(&settings, &text[..text.len() / 2]).unwrap();
    says(run(&out, true, |_| {}).unwrap_err(), &["run.json"]);
    fs::write(&settings, &text).unwrap();
    run(&out, true, |_| {}).unwrap();
}

/// The command line, on `threads` threads.
fn command(source: &Path, out: &Path, threads: usize, more: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("inscape"));
    command.args(["sae", "train"]).arg(source);
    command.arg("--out").arg(out).args(["--device", "cpu"]);
    command
        .args(more)
        .env("RAYON_NUM_THREADS", threads.to_string());
    command.env_remove("INSCAPE_DEVICE");
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn finish(mut command: Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Large enough for every parallel path: products, and sums over more than four million values.
#[test]
fn threads_do_not_change_the_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("x.safetensors");
    matrix_file(&source, &Planted::new(1, 2048, 64, 200, 5).rows, 64);
    let cases = [
        [
            "--width", "512", "--k", "8", "--batch", "512", "--tokens", "20480",
        ],
        [
            "--width", "70000", "--k", "8", "--batch", "32", "--tokens", "96",
        ],
        [
            "--width", "128", "--k", "4", "--batch", "66000", "--tokens", "132000",
        ],
    ];
    for (i, case) in cases.iter().enumerate() {
        let trained = |threads: usize| {
            let out = dir.path().join(format!("{i}-{threads}"));
            finish(command(
                &source,
                &out,
                threads,
                &[&case[..], &["--dead-after", "64"]].concat(),
            ));
            weights(&out)
        };
        let one = trained(1);
        for threads in [2, 3, 8] {
            assert!(one == trained(threads), "{case:?} on {threads} threads");
        }
    }
}

fn wait_for(what: &str, mut happened: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !happened() {
        assert!(
            begun.elapsed() < Duration::from_secs(120),
            "{what} never came"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Killed without warning, at moments that fall as they may.
#[test]
fn a_killed_process_can_be_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("x.safetensors");
    matrix_file(&source, &Planted::new(1, 4096, 32, 100, 4).rows, 32);
    let case = [
        "--width", "256", "--k", "6", "--batch", "256", "--tokens", "102400",
    ];
    let case = [
        &case[..],
        &[
            "--checkpoint-every",
            "10",
            "--dead-after",
            "2048",
            "--resume",
        ],
    ]
    .concat();
    let [whole, out]: [PathBuf; 2] = ["whole", "out"].map(|n| dir.path().join(n));
    finish(command(&source, &whole, 2, &case));
    let mut kills = 0;
    for round in 0..4u64 {
        let mut child = command(&source, &out, 2, &case)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let written = || {
            fs::metadata(out.join(CHECKPOINT))
                .and_then(|m| m.modified())
                .ok()
        };
        let before = written();
        let mut ended = false;
        wait_for("a checkpoint", || {
            ended = child.try_wait().unwrap().is_some();
            ended || written() != before
        });
        std::thread::sleep(Duration::from_millis(13 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        kills += u32::from(!ended && !out.join("cfg.json").exists());
    }
    assert!(kills > 0, "the run was over before it could be killed");
    finish(command(&source, &out, 2, &case));
    assert!(weights(&out) == weights(&whole), "after {kills} kills");
    assert_eq!(steps(&out), steps(&whole));
}
