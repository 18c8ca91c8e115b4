//! What holds after every step, what training finds, and which latents it calls dead.

use burn::tensor::TensorData;
use inscape::sae::eval::Accumulator;
use inscape::sae::session::{self, SessionOptions};
use inscape::sae::{TrainConfig, Trainer};

use super::*;

fn config(d: usize, width: usize, k: usize, steps: u64, batch: usize) -> TrainConfig {
    TrainConfig {
        batch,
        ..TrainConfig::new(d, width, k, steps * batch as u64)
    }
}

fn trainer(config: &TrainConfig, data: &Planted) -> Trainer {
    let cpu = Device::cpu();
    Trainer::new(config.clone(), &data.rows, data.d, cpu.tensor()).unwrap()
}

/// Batch `i` of the rows, round and round.
fn batch(data: &Planted, i: usize, n: usize) -> Tensor<2> {
    let rows = data.rows.len() / data.d;
    let values: Vec<f32> = (0..n)
        .flat_map(|r| data.rows[(i * n + r) % rows * data.d..][..data.d].to_vec())
        .collect();
    Tensor::from_data(TensorData::new(values, [n, data.d]), Device::cpu().tensor())
}

#[test]
fn decoder_rows_stay_unit_and_l0_within_k() {
    let data = Planted::new(1, 1024, 16, 32, 3);
    let config = config(16, 48, 4, 60, 64);
    let mut trainer = trainer(&config, &data);
    for i in 0..60 {
        block_on(trainer.step(batch(&data, i, 64))).unwrap();
        let norms = read64(trainer.sae().w_dec.square().sum_dim(1).sqrt());
        let off = norms.iter().map(|n| (n - 1.0).abs()).fold(0.0, f64::max);
        assert!(off <= 16.0 * f64::from(f32::EPSILON), "step {i}: {off:e}");
        let stats = block_on(trainer.stats()).unwrap();
        assert!(stats.l0 > 0.0 && stats.l0 <= 4.0, "step {i}: {stats:?}");
        assert!(stats.loss >= stats.fvu && stats.step == i as u64 + 1);
    }
}

/// At every density: with many latents active the gradient is worked out densely, but not then.
#[test]
fn lazy_adam_leaves_alone_what_no_row_chose() {
    for (width, k) in [(64, 3), (40, 12)] {
        let data = Planted::new(12, 256, 16, 32, 3);
        let config = TrainConfig {
            lazy_adam: true,
            dead_after: 1 << 40, // the auxiliary loss chooses too
            ..config(16, width, k, 30, 4)
        };
        let mut trainer = trainer(&config, &data);
        let rows = |t: Tensor<2>| -> Vec<Vec<u32>> {
            bits(t.clone())
                .chunks(t.dims()[1])
                .map(<[u32]>::to_vec)
                .collect()
        };
        let (mut idle, mut moved) = (0, 0);
        for i in 0..30 {
            let (x, before) = (batch(&data, i, 4), trainer.sae());
            let chosen = before.encode(x.clone()).indices;
            let chosen = block_on(inscape::device::read_int(chosen)).unwrap();
            block_on(trainer.step(x)).unwrap();
            let after = trainer.sae();
            for (old, new) in [
                (before.w_enc, after.w_enc),
                (before.b_enc.unsqueeze_dim(1), after.b_enc.unsqueeze_dim(1)),
                (before.w_dec, after.w_dec),
            ] {
                let changed = rows(old).into_iter().zip(rows(new)).map(|(a, b)| a != b);
                for (f, changed) in changed.enumerate() {
                    let free = chosen.contains(&(f as i64));
                    assert!(free || !changed, "step {i}, latent {f}");
                    idle += usize::from(!free);
                    moved += usize::from(changed);
                }
            }
        }
        assert!(
            idle > 100 && moved > 100,
            "{idle} {moved}: the case says nothing"
        );
    }
}

#[test]
fn planted_features_are_found() {
    let (d, features) = (32, 64);
    let data = Planted::new(2, 20_000, d, features, 3);
    for (k, floor) in [(3, 0.9), (8, 0.9)] {
        let config = TrainConfig {
            batch: 512,
            ..TrainConfig::new(d, features, k, 400_000)
        };
        let dir = tempfile::tempdir().unwrap();
        let mut log = Vec::new();
        let options = SessionOptions::new(dir.path().join("sae"));
        let cpu = Device::cpu();
        let sae = session::train(data.source(), 0, &config, &options, &cpu, |line| {
            log.push(*line)
        })
        .unwrap();
        let recovery = data.recovery(&read64(sae.w_dec.clone()));
        let (first, last) = (log[0].stats, log[log.len() - 1].stats);
        println!(
            "k = {k}: recovery {recovery:.4}, FVU {:.4} to {:.4}, {:.1} s",
            first.fvu,
            last.fvu,
            log[log.len() - 1].seconds
        );
        assert!(recovery >= floor, "k = {k}: mean max cosine {recovery}");
        assert!(
            last.loss < 0.25 * first.loss,
            "k = {k}: {first:?} to {last:?}"
        );
        let untrained = Trainer::new(config, &data.rows, d, cpu.tensor()).unwrap();
        let before = data.recovery(&read64(untrained.sae().w_dec));
        assert!(before < 0.7, "the start has {before} already");
    }
}

#[test]
fn the_log_measures_what_the_evaluation_does() {
    let data = Planted::new(3, 256, 16, 32, 3);
    let config = TrainConfig {
        lr: 1e-12,
        ..config(16, 48, 4, 4, 256)
    };
    let mut trainer = trainer(&config, &data);
    let x = batch(&data, 0, 256);
    block_on(trainer.step(x.clone())).unwrap();
    let stats = block_on(trainer.stats()).unwrap();
    let mut all = Accumulator::new(48);
    block_on(all.add(&trainer.sae(), x)).unwrap();
    let measured = all.finish();
    assert!(
        (stats.fvu - measured.fvu).abs() < 1e-5 * measured.fvu,
        "{stats:?} {measured:?}"
    );
    assert_eq!(stats.l0, measured.l0);
}

/// Counts on the host, from the latents of the autoencoder before each step.
#[test]
fn the_dead_share_is_what_did_not_fire() {
    let data = Planted::new(4, 512, 16, 6, 2);
    let config = TrainConfig {
        dead_after: 5 * 32,
        aux_alpha: 0.0,
        ..config(16, 96, 2, 40, 32)
    };
    let mut trainer = trainer(&config, &data);
    let mut silent = vec![0u64; 96];
    let (mut some_dead, mut some_alive) = (false, false);
    for i in 0..40 {
        let x = batch(&data, i, 32);
        let latents = trainer.sae().encode(x.clone());
        let values = read32(latents.values);
        let indices = block_on(inscape::device::read_int(latents.indices)).unwrap();
        silent.iter_mut().for_each(|s| *s += 32);
        for (_, f) in values.iter().zip(indices).filter(|(v, _)| **v > 0.0) {
            silent[f as usize] = 0;
        }
        block_on(trainer.step(x)).unwrap();
        let dead = silent.iter().filter(|s| **s >= 5 * 32).count();
        let share = block_on(trainer.stats()).unwrap().dead_share;
        assert_eq!((share * 96.0).round() as usize, dead, "step {}", i + 1);
        some_dead |= dead > 0;
        some_alive |= dead < 90;
    }
    assert!(some_dead && some_alive, "the case says nothing");
}

#[test]
fn rescaling_is_exact() {
    let cpu = Device::cpu();
    let x = t2(&f32s(&Draws::new(6).normals(50 * 24)), 24, &cpu);
    let sae = random_sae(7, 24, 96, 5, &cpu);
    let plain = sae.reconstruct(x.clone());
    for scale in [0.25, 8.0] {
        let scaled = sae.clone().rescale(scale).reconstruct(x.clone() * scale);
        assert_eq!(
            bits(scaled),
            bits(plain.clone() * scale),
            "a power of two: {scale}"
        );
    }
    for scale in [1e-3, 0.3, 17.0] {
        let scaled = read64(sae.clone().rescale(scale).reconstruct(x.clone() * scale));
        let want = read64(plain.clone() * scale);
        let off = scaled
            .iter()
            .zip(&want)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f64::max);
        let largest = want.iter().fold(0.0f64, |m, x| m.max(x.abs()));
        let tolerance = 4.0 * f64::from(f32::EPSILON) * (24 + 5) as f64 * largest;
        assert!(off <= tolerance, "{scale}: {off:e} over {tolerance:e}");
    }
}
