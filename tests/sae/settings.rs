//! What cannot be trained, and training that goes wrong.

use inscape::capture;
use inscape::sae::Architecture::TopK;
use inscape::sae::session::{self, SessionOptions};
use inscape::sae::{Architecture, Error, Gated, Matryoshka, Standard, TrainConfig, Trainer};

use super::*;

fn train(source: Source, config: &TrainConfig, out: &Path, resume: bool) -> Result<Sae, Error> {
    let options = SessionOptions {
        resume,
        checkpoint_every: 1,
        log_every: 1,
        ..SessionOptions::new(out)
    };
    session::train(source, 0, config, &options, &Device::cpu(), |_| {})
}

fn base() -> TrainConfig {
    TrainConfig {
        batch: 16,
        ..TrainConfig::new(8, 24, 3, 16 * 10)
    }
}

#[test]
fn impossible_settings_are_named() {
    type Change = fn(&mut TrainConfig);
    let cases: [(&str, &str, Change); 23] = [
        ("k", "k = 0", |c| c.architecture = TopK { k: 0 }),
        ("k and the width", "k = 25 exceeds the width of 24", |c| {
            c.architecture = TopK { k: 25 }
        }),
        ("k at most", "1024", |c| {
            (c.architecture, c.d_sae) = (TopK { k: 1025 }, 4096)
        }),
        ("width", "width = 0", |c| c.d_sae = 0),
        ("width at most", "width = 1048577", |c| {
            c.d_sae = (1 << 20) + 1
        }),
        ("k_aux", "k_aux = 0", |c| c.k_aux = 0),
        ("k_aux and the width", "k_aux = 25", |c| c.k_aux = 25),
        ("batch", "batch = 1", |c| c.batch = 1),
        ("no batch", "batch = 0", |c| c.batch = 0),
        ("lr", "lr = 0", |c| c.lr = 0.0),
        ("lr NaN", "lr = NaN", |c| c.lr = f64::NAN),
        ("tokens", "tokens = 15 is less than one batch of 16", |c| {
            c.tokens = 15
        }),
        ("clip", "clip = 0", |c| c.clip = 0.0),
        ("clip inf", "clip = inf", |c| c.clip = f64::INFINITY),
        ("aux", "aux_alpha = -1", |c| c.aux_alpha = -1.0),
        ("dead", "dead_after = 0", |c| c.dead_after = 0),
        ("resample", "resample_every = 0", |c| {
            c.resample_every = Some(0)
        }),
        ("skip", "for transcoders", |c| c.skip = true),
        ("k_start", "keeps no number of latents", |c| {
            c.architecture = Architecture::Gated(Gated::for_width(64));
            c.k_start = Some(8);
        }),
        ("crosscoder", "unit_decoder = false", |c| {
            c.architecture = Architecture::Standard(Standard::for_width(64));
            c.sites = 2;
        }),
        (
            "threshold",
            "threshold_start = 11: a run of 10 steps",
            |c| {
                c.architecture = Architecture::BatchTopK { k: 3 };
                c.conventions.threshold_start = 11;
            },
        ),
        ("2^31", "batch = 2048 with width = 1048576", |c| {
            c.architecture = Architecture::BatchTopK { k: 3 };
            (c.d_sae, c.batch, c.tokens) = (1 << 20, 2048, 1 << 20);
        }),
        ("widths", "widths = [4, 4]", |c| {
            c.architecture = Architecture::Matryoshka(Matryoshka {
                k: 3,
                widths: vec![4, 4],
                mean: true,
            });
        }),
    ];
    let dir = tempfile::tempdir().unwrap();
    let data = Planted::new(1, 64, 8, 16, 2);
    for (name, words, change) in cases {
        let mut config = base();
        change(&mut config);
        let out = dir.path().join(name);
        let error = train(data.source(), &config, &out, false).unwrap_err();
        assert!(matches!(error, Error::Config(_)), "{name}: {error}");
        says(error, &[words]);
        assert!(!out.exists(), "{name}: left a directory behind");
    }
}

#[test]
fn defaults_of_any_width_can_be_asked_for() {
    for width in [0, 1, 2, 1 << 20, usize::MAX] {
        let config = TrainConfig::new(1, width, 1, 4096);
        assert_eq!(
            config.check().is_ok(),
            (1..=1 << 20).contains(&width),
            "{width}"
        );
    }
}

#[test]
fn a_batch_may_exceed_the_rows() {
    let dir = tempfile::tempdir().unwrap();
    let data = Planted::new(2, 5, 8, 16, 2);
    let sae = train(data.source(), &base(), &dir.path().join("sae"), false).unwrap();
    assert_eq!((sae.d_in(), sae.d_sae(), sae.k()), (8, 24, Some(3)));
}

#[test]
fn no_rows_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let empty = Source::memory("nothing", Vec::new(), 8);
    let error = train(empty, &base(), &dir.path().join("sae"), false).unwrap_err();
    says(error, &["no "]);
    let error = Trainer::new(base(), &[], 8, Device::cpu().tensor()).unwrap_err();
    says(error, &["no activations"]);
}

#[test]
fn activations_that_are_no_numbers_are_named() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let dir = tempfile::tempdir().unwrap();
        let mut data = Planted::new(3, 64, 8, 16, 2);
        data.rows[37 * 8 + 5] = bad;
        let error = train(data.source(), &base(), &dir.path().join("sae"), false).unwrap_err();
        let store = matches!(
            &error,
            Error::Store(capture::store::Error::NotFinite {
                row: 37,
                column: 5,
                ..
            })
        );
        assert!(store, "{error}");
        says(error, &["planted", "37"]);
    }
}

#[test]
fn a_wrong_width_of_rows_panics_with_the_shapes() {
    let cpu = Device::cpu();
    let data = Planted::new(4, 64, 8, 16, 2);
    let mut trainer = Trainer::new(base(), &data.rows, 8, cpu.tensor()).unwrap();
    let x = t2(&[0.0; 14], 7, &cpu);
    let step = std::panic::AssertUnwindSafe(|| block_on(trainer.step(x)));
    let panic = std::panic::catch_unwind(step).map(|_| ()).unwrap_err();
    says(
        panic.downcast_ref::<String>().unwrap(),
        &["[2, 7]", "d_in = 8"],
    );
}

/// Another row far away at each end, so that the loss overflows once the weights are huge.
#[test]
fn a_loss_that_diverges_keeps_the_last_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("sae");
    let data = Planted::new(5, 64, 8, 16, 2);
    let config = TrainConfig {
        lr: 1e30,
        warmup: 0.0,
        ..base()
    };
    let error = train(data.source(), &config, &out, false).unwrap_err();
    let Error::Diverged { step, loss } = error else {
        panic!("{error}")
    };
    assert!(step > 1 && !loss.is_finite(), "step {step}, loss {loss}");
    let checkpoint = out.join("checkpoint.safetensors");
    let kept = std::fs::read(&checkpoint).unwrap();
    assert!(!out.join("sae_weights.safetensors").exists() && !out.join("cfg.json").exists());
    let again = train(data.source(), &config, &out, true).unwrap_err();
    assert!(
        matches!(again, Error::Diverged { step: s, .. } if s == step),
        "{again}"
    );
    assert_eq!(std::fs::read(&checkpoint).unwrap(), kept);
    assert_eq!(session::read_log(&out).unwrap().len() as u64, step - 1);
}

#[test]
fn evaluating_another_width_is_an_error() {
    let sae = random_sae(1, 8, 24, 3, &Device::cpu());
    let rows = Source::memory("narrow", vec![0.0; 14], 7);
    let error = session::evaluate(&sae, &rows, &Device::cpu(), |_| {}).unwrap_err();
    says(error, &["narrow", "width 7", "takes 8"]);
}
