//! Cross-layer transcoders: what they can explain, their bytes after a kill, their files.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use inscape::capture::beside;
use inscape::sae::format::{self, Format, WeightDtype};
use inscape::sae::session::{self, Job, LogLine, SessionOptions, Trained};
use inscape::sae::{
    Architecture, CrossLayer, Error, JumpPenalty, JumpRelu, Matryoshka, TrainConfig,
};

use super::*;

const D: usize = 16;
const ROWS: usize = 4000;

/// Two layers: what the second writes is made of features that it reads and of features that only the
/// first does.
fn layers() -> [[Source; 2]; 2] {
    let mut draws = Draws::new(4);
    let [read_0, read_1, own_0, own_1, across] = [(); 5].map(|()| draws.unit_rows(24, D));
    let mut rows = [(); 4].map(|()| vec![0f32; ROWS * D]);
    for i in 0..ROWS {
        for _ in 0..2 {
            let (f, g) = (draws.below(24), draws.below(24));
            let (a, b) = (draws.uniform(0.5, 1.5), draws.uniform(0.5, 1.5));
            for j in 0..D {
                let at = |w: &[f64], f: usize| w[f * D + j];
                rows[0][i * D + j] += (a * at(&read_0, f)) as f32;
                rows[1][i * D + j] += (b * at(&read_1, g)) as f32;
                rows[2][i * D + j] += (a * at(&own_0, f)) as f32;
                rows[3][i * D + j] += (a * at(&across, f) + b * at(&own_1, g)) as f32;
            }
        }
    }
    let [x0, x1, y0, y1] = rows;
    let source = |name: &str, rows| Source::memory(name, rows, D);
    [
        [source("x0", x0), source("x1", x1)],
        [source("y0", y0), source("y1", y1)],
    ]
}

fn config(architecture: Architecture, steps: u64) -> TrainConfig {
    let mut config = TrainConfig {
        architecture,
        batch: 128,
        sites: 2,
        cross_layer: true,
        dead_after: 2000,
        ..TrainConfig::new(D, 64, 2, 128 * steps)
    };
    config.conventions.subtract_b_dec = false;
    config.conventions.unit_decoder = config.k().is_some();
    config
}

fn job(config: TrainConfig, out: PathBuf) -> Job {
    let [read, write] = layers();
    Job {
        source: beside(&read).unwrap(),
        target: Some(beside(&write).unwrap()),
        config,
        out,
    }
}

fn train(job: &Job, resume: bool, seen: impl FnMut(usize, &LogLine)) -> Result<CrossLayer, Error> {
    let options = SessionOptions {
        resume,
        checkpoint_every: 4,
        log_every: 1,
        buffer_rows: 1024,
        ..SessionOptions::new("")
    };
    let all = session::train_all(std::slice::from_ref(job), 0, &options, &Device::cpu(), seen)?;
    match all.into_iter().next() {
        Some(Trained::CrossLayer(transcoder)) => Ok(transcoder),
        other => panic!("{other:?}"),
    }
}

/// The second layer's output needs the first layer's latents; a transcoder of that layer alone misses
/// what they write.
#[test]
fn latents_write_to_later_layers() {
    let dir = tempfile::tempdir().unwrap();
    let job = job(
        config(Architecture::TopK { k: 2 }, 1500),
        dir.path().join("cross"),
    );
    let transcoder = train(&job, false, |_, _| ()).unwrap();
    let target = job.target.as_ref().unwrap();
    let found =
        session::evaluate_cross_layer(&transcoder, &job.source, target, &Device::cpu(), |_| ())
            .unwrap();
    let [read, write] = layers();
    let mut alone = config(Architecture::TopK { k: 4 }, 1500);
    (alone.sites, alone.cross_layer) = (1, false);
    let alone = Job {
        source: read[1].clone(),
        target: Some(write[1].clone()),
        config: alone,
        out: dir.path().join("alone"),
    };
    let options = SessionOptions::new("");
    let all = session::train_all(
        std::slice::from_ref(&alone),
        0,
        &options,
        &Device::cpu(),
        |_, _| (),
    );
    let sae = all.unwrap().remove(0).sae().unwrap();
    let single = session::evaluate_pair(&sae, &read[1], &write[1], &Device::cpu(), |_| ()).unwrap();
    let fvu: Vec<f64> = found.iter().map(|r| r.fvu).collect();
    println!(
        "FVU by layer {fvu:.4?}; the second layer alone {:.4}",
        single.fvu
    );
    assert!(fvu.iter().all(|f| *f < 0.15), "{fvu:?}");
    assert!(single.fvu > 0.35, "{}", single.fvu);
    assert_eq!(found[0].l0, 2.0);
}

fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for l in 0..2 {
        for name in ["sae_weights.safetensors", "cfg.json"] {
            let path = Path::new("layers").join(l.to_string()).join(name);
            all.push((path.clone(), fs::read(dir.join(path)).unwrap()));
        }
    }
    all
}

#[test]
fn stopped_and_resumed_ends_in_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let tanh = Architecture::JumpRelu(JumpRelu {
        penalty: JumpPenalty::Tanh {
            l0: 0.01,
            scale: 4.0,
        },
        ..JumpRelu::aiming_at(2.0)
    });
    for (name, architecture) in [
        ("topk", Architecture::TopK { k: 2 }),
        ("batch_topk", Architecture::BatchTopK { k: 2 }),
        ("tanh", tanh),
    ] {
        let config = TrainConfig {
            ema: (name == "topk").then_some(0.9),
            dead_after: 300,
            ..config(architecture, 30)
        };
        let whole = job(config.clone(), dir.path().join(format!("{name}-whole")));
        let cut = job(config, dir.path().join(format!("{name}-cut")));
        train(&whole, false, |_, _| ()).unwrap();
        for stop in [7, 8, 22] {
            let stopped = catch_unwind(AssertUnwindSafe(|| {
                train(&cut, stop != 7, |_, line| {
                    assert!(line.stats.step != stop, "stopped")
                })
            }));
            assert!(stopped.is_err(), "{name}: step {stop}");
        }
        let resumed = train(&cut, true, |_, _| ()).unwrap();
        assert!(files(&whole.out) == files(&cut.out), "{name}");
        // Again, as it lies there.
        let again = train(&cut, true, |_, _| panic!("it is done")).unwrap();
        for (a, b) in resumed.layers().iter().zip(again.layers()) {
            assert_eq!(bits(a.w_dec.clone()), bits(b.w_dec.clone()), "{name}");
        }
    }
}

/// A transcoder of random weights, thresholds among them.
fn random() -> CrossLayer {
    let cpu = Device::cpu();
    let mut draws = Draws::new(8);
    let layer = |l: usize| {
        let sites = 3 - l;
        let mut matrix =
            |rows: usize, columns: usize| t2(&f32s(&draws.normals(rows * columns)), columns, &cpu);
        let (w_enc, w_dec) = (matrix(10, 4), matrix(10, sites * 5));
        let mut b_dec = f32s(&draws.normals(5));
        b_dec.resize(sites * 5, 0.0);
        let b_enc = t1(&f32s(&draws.normals(10)), &cpu);
        let threshold = t1(
            &draws
                .normals(10)
                .iter()
                .map(|x| x.abs() as f32)
                .collect::<Vec<_>>(),
            &cpu,
        );
        Sae {
            activation: inscape::sae::Activation::JumpRelu { threshold },
            transcoder: true,
            subtract_b_dec: false,
            sites,
            ..Sae::topk([w_enc, w_dec], [b_enc, t1(&b_dec, &cpu)], 1)
        }
    };
    CrossLayer::new((0..3).map(layer).collect()).unwrap()
}

/// What it makes of a row, in plain loops.
fn by_loops(transcoder: &CrossLayer, x: &[f64]) -> Vec<f64> {
    let mut y = vec![0.0; 15];
    for (l, sae) in transcoder.layers().iter().enumerate() {
        let [w_enc, w_dec] = [&sae.w_enc, &sae.w_dec].map(|w| read64(w.clone()));
        let (b_enc, b_dec) = (read64(sae.b_enc.clone()), read64(sae.b_dec.clone()));
        let inscape::sae::Activation::JumpRelu { threshold } = &sae.activation else {
            panic!()
        };
        let threshold = read64(threshold.clone());
        let width = (3 - l) * 5;
        for (j, y) in y[l * 5..].iter_mut().enumerate() {
            *y += b_dec[j];
        }
        for f in 0..10 {
            let z = b_enc[f] + (0..4).map(|j| x[l * 4 + j] * w_enc[f * 4 + j]).sum::<f64>();
            if z > threshold[f] {
                for j in 0..width {
                    y[l * 5 + j] += z * w_dec[f * width + j];
                }
            }
        }
    }
    y
}

#[test]
fn files_give_back_what_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let cpu = Device::cpu();
    let transcoder = random();
    let x = f32s(&Draws::new(2).normals(7 * 12));
    let wanted: Vec<f64> = x
        .chunks(12)
        .flat_map(|row| {
            by_loops(
                &transcoder,
                &row.iter().map(|x| f64::from(*x)).collect::<Vec<_>>(),
            )
        })
        .collect();
    let about = serde_json::json!({"hook_name": "blocks.0.hook_mlp_in,blocks.1.hook_mlp_in"});
    let (own, theirs) = (dir.path().join("own"), dir.path().join("theirs"));
    block_on(format::save_cross_layer(
        &transcoder,
        &own,
        about.clone(),
        WeightDtype::F32,
    ))
    .unwrap();
    block_on(format::write_cross_layer(&transcoder, &about, &theirs)).unwrap();
    assert_eq!(
        format::load_cross_layer(&own, cpu.tensor()).unwrap().1,
        about
    );
    for dir in [&own, &theirs] {
        assert!(format::is_cross_layer(dir));
        let (back, _) = format::load_cross_layer(dir, cpu.tensor()).unwrap();
        let made = read64(back.reconstruct(t2(&x, 12, &cpu)));
        let off = made.iter().zip(&wanted).map(|(a, b)| (a - b).abs());
        let off = off.fold(0.0, f64::max);
        assert!(off < 1e-5, "{}: {off:e}", dir.display());
    }
    // As circuit-tracer's reader takes the decoder: [d_sae, layers that are left, d].
    let bytes = fs::read(theirs.join("W_dec_1.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.tensor("W_dec_1").unwrap().shape(), [10, 2, 5]);
}

#[test]
fn damaged_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let cpu = Device::cpu();
    let theirs = dir.path().join("theirs");
    block_on(format::write_cross_layer(
        &random(),
        &serde_json::Value::Null,
        &theirs,
    ))
    .unwrap();
    fs::copy(
        theirs.join("W_dec_2.safetensors"),
        theirs.join("W_dec_1.safetensors"),
    )
    .unwrap();
    let error = format::load_cross_layer(&theirs, cpu.tensor()).unwrap_err();
    says(error, &["W_dec_1"]);
    fs::remove_file(theirs.join("W_dec_0.safetensors")).unwrap();
    let error = format::load_cross_layer(&theirs, cpu.tensor()).unwrap_err();
    says(error, &["W_dec_0.safetensors"]);
    let mut layers = random().layers().to_vec();
    layers.remove(1);
    says(
        CrossLayer::new(layers).unwrap_err(),
        &["layer 0 of 2", "writes 15"],
    );
    let topk = Sae {
        activation: inscape::sae::Activation::TopK { k: 2 },
        ..random().layers()[2].clone()
    };
    let topk = CrossLayer::new(vec![topk]).unwrap();
    let error = block_on(format::write_cross_layer(
        &topk,
        &serde_json::Value::Null,
        &dir.path().join("no"),
    ));
    says(error.unwrap_err(), &[Format::CircuitTracer.name(), "topk"]);
}

#[test]
fn what_cannot_be_trained_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |change: &dyn Fn(&mut Job), words: &[&str]| {
        let mut job = job(
            config(Architecture::TopK { k: 2 }, 4),
            dir.path().join("no"),
        );
        change(&mut job);
        says(train(&job, false, |_, _| ()).unwrap_err(), words);
        assert!(!job.out.exists(), "{words:?}: nothing is written");
    };
    refused(&|job| job.target = None, &["target"]);
    refused(&|job| job.config.sites = 5, &["sites = 5", "x0 + x1", "2"]);
    refused(
        &|job| {
            let [[x0, _], _] = layers();
            let narrow = Source::memory("narrow", vec![0.5; ROWS * 4], 4);
            job.source = beside(&[x0, narrow]).unwrap();
        },
        &["x0 has width 16", "narrow has width 4"],
    );
    refused(
        &|job| job.config.architecture = Architecture::Matryoshka(Matryoshka::halving(2, 64)),
        &["nested"],
    );
    refused(&|job| job.config.skip = true, &["skip"]);
    refused(
        &|job| job.config.resample_every = Some(3),
        &["resample_every"],
    );
    refused(
        &|job| job.config.conventions.subtract_b_dec = true,
        &["b_dec"],
    );
}
