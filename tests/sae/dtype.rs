//! Weights on disk in half precision: those of the f32 run, rounded once.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};

use half::{bf16, f16};
use inscape::sae::format::{self, Format, WeightDtype};
use inscape::sae::session::{self, Job, SessionOptions};
use inscape::sae::{Architecture, Error, Gated, JumpRelu, Matryoshka, Standard, TrainConfig};
use safetensors::{Dtype, SafeTensors};

use super::*;

const HALVES: [WeightDtype; 2] = [WeightDtype::F16, WeightDtype::Bf16];

fn config(architecture: Architecture, dtype: WeightDtype) -> TrainConfig {
    TrainConfig {
        architecture,
        dtype,
        batch: 64,
        dead_after: 640,
        seed: 3,
        ..TrainConfig::new(16, 48, 3, 64 * 60)
    }
}

fn architectures() -> Vec<Architecture> {
    vec![
        Architecture::TopK { k: 3 },
        Architecture::BatchTopK { k: 3 },
        Architecture::Matryoshka(Matryoshka::halving(3, 48)),
        Architecture::JumpRelu(JumpRelu::aiming_at(3.0)),
        Architecture::Gated(Gated::for_width(16)),
        Architecture::Standard(Standard::for_width(16)),
    ]
}

fn data() -> Planted {
    Planted::new(4, 900, 16, 24, 3)
}

fn train(source: Source, config: &TrainConfig, out: &Path, stop: u64) -> Result<Sae, Error> {
    let options = SessionOptions {
        resume: true,
        checkpoint_every: 9,
        log_every: 1,
        ..SessionOptions::new(out)
    };
    session::train(source, 0, config, &options, &Device::cpu(), |line| {
        assert!(line.stats.step != stop, "stopped");
    })
}

fn rounded(dtype: WeightDtype, x: f32) -> f32 {
    match dtype {
        WeightDtype::F32 => x,
        WeightDtype::F16 => f16::from_f32(x).to_f32(),
        WeightDtype::Bf16 => bf16::from_f32(x).to_f32(),
    }
}

fn values(sae: &Sae) -> Vec<f32> {
    let matrices = [Some(&sae.w_enc), Some(&sae.w_dec), sae.w_skip.as_ref()];
    let mut all: Vec<f32> = matrices
        .into_iter()
        .flatten()
        .flat_map(|w| read32(w.clone()))
        .collect();
    all.extend(read32(sae.b_enc.clone()));
    all.extend(read32(sae.b_dec.clone()));
    use inscape::sae::Activation::{BatchTopK, Gated, JumpRelu, Relu, TopK};
    match &sae.activation {
        Relu | TopK { .. } => {}
        BatchTopK { threshold, .. } | JumpRelu { threshold } => {
            all.extend(read32(threshold.clone()))
        }
        Gated { r_mag, b_mag } => {
            all.extend(read32(r_mag.clone()));
            all.extend(read32(b_mag.clone()));
        }
    }
    all
}

fn bits_of(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

fn fvu(sae: &Sae) -> f64 {
    let source = data().source();
    session::evaluate(sae, &source, &Device::cpu(), |_| {})
        .unwrap()
        .fvu
}

#[test]
fn what_is_written_and_returned_is_the_f32_run_rounded() {
    for architecture in architectures() {
        let dir = tempfile::tempdir().unwrap();
        let run = |dtype: WeightDtype| {
            let out = dir.path().join(dtype.to_string());
            let config = config(architecture.clone(), dtype);
            let sae = train(data().source(), &config, &out, u64::MAX).unwrap();
            let bytes = fs::read(out.join(format::WEIGHTS)).unwrap();
            (out, sae, bytes)
        };
        let (_, master, whole) = run(WeightDtype::F32);
        let whole_file = SafeTensors::deserialize(&whole).unwrap();
        let size = |file: &SafeTensors| file.iter().map(|(_, t)| t.data().len()).sum::<usize>();
        for dtype in HALVES {
            let (out, sae, bytes) = run(dtype);
            let file = SafeTensors::deserialize(&bytes).unwrap();
            assert_eq!(2 * size(&file), size(&whole_file), "{architecture:?}");
            for (name, tensor) in file.iter() {
                let wanted = whole_file.tensor(name).unwrap();
                let wanted = wanted
                    .data()
                    .as_chunks()
                    .0
                    .iter()
                    .map(|b| f32::from_le_bytes(*b));
                let got = tensor
                    .data()
                    .as_chunks()
                    .0
                    .iter()
                    .map(|b| u16::from_le_bytes(*b));
                let (kind, wanted): (_, Vec<u16>) = match dtype {
                    WeightDtype::F16 => (
                        Dtype::F16,
                        wanted.map(|x| f16::from_f32(x).to_bits()).collect(),
                    ),
                    _ => (
                        Dtype::BF16,
                        wanted.map(|x| bf16::from_f32(x).to_bits()).collect(),
                    ),
                };
                assert_eq!(tensor.dtype(), kind);
                assert!(got.eq(wanted), "{name} in {dtype}, {architecture:?}");
            }
            let want: Vec<f32> = values(&master).iter().map(|x| rounded(dtype, *x)).collect();
            assert!(want != values(&master), "nothing was rounded");
            assert_eq!(
                bits_of(&values(&sae)),
                bits_of(&want),
                "{dtype}, {architecture:?}"
            );
            let back = format::read(&out, None, Device::cpu().tensor()).unwrap();
            assert_eq!(bits_of(&values(&back.sae)), bits_of(&want));
            let config = fs::read_to_string(out.join(format::CONFIG)).unwrap();
            let config: serde_json::Value = serde_json::from_str(&config).unwrap();
            assert_eq!(config["dtype"], dtype.torch_name());
            let (before, after) = (fvu(&master), fvu(&sae));
            println!(
                "{} {dtype}: FVU {before:.5}, {after:.5}",
                architecture.name()
            );
            // An error of 2^-9 or 2^-12 a weight against the signal, and what flips at a threshold.
            let step = if dtype == WeightDtype::F16 {
                2e-3
            } else {
                2e-2
            };
            assert!((after - before).abs() < step, "{before} {after}");
        }
    }
}

/// A skip is rounded as well, and another tool's file takes the values.
#[test]
fn a_transcoder_is_rounded_and_another_format_holds_it() {
    let dir = tempfile::tempdir().unwrap();
    let data = data();
    let (rows, d) = (&data.rows, data.d);
    let target: Vec<f32> = rows
        .chunks(d)
        .flat_map(|r| r.iter().rev().map(|x| x * 2.0))
        .collect();
    let run = |dtype: WeightDtype| {
        let mut config = config(Architecture::TopK { k: 3 }, dtype);
        config.skip = true;
        config.conventions.subtract_b_dec = false;
        let out = dir.path().join(dtype.to_string());
        let job = Job {
            source: data.source(),
            target: Some(Source::memory("target", target.clone(), d)),
            config,
            out: out.clone(),
        };
        let options = SessionOptions::new("unused");
        let saes = session::train_all(&[job], 0, &options, &Device::cpu(), |_, _| {});
        saes.unwrap().remove(0).sae().unwrap()
    };
    let (master, half) = (run(WeightDtype::F32), run(WeightDtype::Bf16));
    assert!(half.w_skip.is_some());
    let want: Vec<f32> = values(&master)
        .iter()
        .map(|x| rounded(WeightDtype::Bf16, *x))
        .collect();
    assert_eq!(bits_of(&values(&half)), bits_of(&want));
    let there = dir.path().join("sparsify");
    block_on(format::write(
        &half,
        &serde_json::Value::Null,
        &there,
        Format::Sparsify,
    ))
    .unwrap();
    let back = format::read(&there, None, Device::cpu().tensor())
        .unwrap()
        .sae;
    assert_eq!(bits_of(&values(&back)), bits_of(&want));
}

#[test]
fn a_stopped_run_goes_on_from_f32() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(Architecture::TopK { k: 3 }, WeightDtype::Bf16);
    let [whole, part] = ["whole", "part"].map(|n| dir.path().join(n));
    train(data().source(), &config, &whole, u64::MAX).unwrap();
    for stop in [4, 10, 40] {
        let stopped = || train(data().source(), &config, &part, stop);
        assert!(
            catch_unwind(AssertUnwindSafe(stopped)).is_err(),
            "step {stop} never came"
        );
    }
    let checkpoint = fs::read(part.join("checkpoint.safetensors")).unwrap();
    let state = SafeTensors::deserialize(&checkpoint).unwrap();
    assert!(state.iter().all(|(_, t)| t.dtype() == Dtype::F32));
    train(data().source(), &config, &part, u64::MAX).unwrap();
    for file in [format::WEIGHTS, format::CONFIG] {
        assert!(
            fs::read(part.join(file)).unwrap() == fs::read(whole.join(file)).unwrap(),
            "{file}"
        );
    }
    // What is finished stays what it is.
    let other = TrainConfig {
        dtype: WeightDtype::F16,
        ..config.clone()
    };
    let error = train(data().source(), &other, &whole, u64::MAX).unwrap_err();
    says(error, &["config.dtype is bf16 there and f16 now"]);
    // Settings from before there was a choice.
    let mut old = serde_json::to_value(&config).unwrap();
    old.as_object_mut().unwrap().remove("dtype").unwrap();
    let old: TrainConfig = serde_json::from_value(old).unwrap();
    assert_eq!(old.dtype, WeightDtype::F32);
}

#[test]
fn a_weight_too_large_is_named_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut data = data();
    data.rows.iter_mut().for_each(|x| *x += 7e4);
    let configs = [WeightDtype::F32, WeightDtype::F16, WeightDtype::Bf16]
        .map(|dtype| config(Architecture::TopK { k: 3 }, dtype));
    let [whole, part] = ["whole", "part"].map(|n| dir.path().join(n));
    let master = train(data.source(), &configs[0], &whole, u64::MAX).unwrap();
    let largest = read32(master.b_dec.clone()).into_iter().fold(0.0, f32::max);
    assert!(largest > 65520.0, "{largest}");
    let error = train(data.source(), &configs[1], &part, u64::MAX).unwrap_err();
    assert!(matches!(error, Error::Overflow { .. }));
    says(error, &["b_dec", "does not fit in f16"]);
    assert!(!part.join(format::CONFIG).exists() && !part.join(format::WEIGHTS).exists());
    // Not a step is done again.
    let mut steps = 0;
    let options = SessionOptions {
        resume: true,
        ..SessionOptions::new(&part)
    };
    let resume = |config: &TrainConfig, steps: &mut u64| {
        session::train(data.source(), 0, config, &options, &Device::cpu(), |_| {
            *steps += 1
        })
    };
    says(
        resume(&configs[1], &mut steps).unwrap_err(),
        &["b_dec", "f16"],
    );
    let sae = resume(&configs[2], &mut steps).unwrap();
    assert_eq!(steps, 0);
    let want: Vec<f32> = values(&master)
        .iter()
        .map(|x| rounded(WeightDtype::Bf16, *x))
        .collect();
    assert_eq!(bits_of(&values(&sae)), bits_of(&want));
    assert_eq!(session::run_info(&part).unwrap().config, configs[2]);
    // Saving by hand: an error, and no directory.
    let path = dir.path().join("by-hand");
    let null = serde_json::Value::Null;
    let error = block_on(format::save_as(&master, &path, null, WeightDtype::F16)).unwrap_err();
    says(error, &["b_dec", "f16"]);
    assert!(!path.exists());
}

/// Half-way cases go to the even neighbour, and what is below the smallest number to 0.
#[test]
fn rounding_is_to_nearest_even() {
    let dir = tempfile::tempdir().unwrap();
    let mut sae = random_sae(1, 2, 2, 1, &Device::cpu());
    let halfway = 1.0 + 2f32.powi(-11);
    let cases = [halfway, 1.0 + 3.0 * 2f32.powi(-11), 65519.0, 2f32.powi(-26)];
    sae.w_dec = t2(&cases, 2, &Device::cpu());
    let save = |sae: &Sae| {
        let null = serde_json::Value::Null;
        block_on(format::save_as(sae, dir.path(), null, WeightDtype::F16))?;
        format::load(dir.path(), Device::cpu().tensor())
    };
    let back = read32(save(&sae).unwrap().0.w_dec);
    assert_eq!(back, [1.0, 1.0 + 2f32.powi(-9), 65504.0, 0.0]);
    sae.w_dec = t2(&[0.0, 0.0, -65520.0, 0.0], 2, &Device::cpu());
    says(save(&sae).unwrap_err(), &["W_dec", "-65520", "f16"]);
}
