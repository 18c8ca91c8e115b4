//! Activations made of known features.

use std::sync::Arc;

use inscape::sae::selftest::selftest;
use inscape::sae::synthetic::*;
use inscape::sae::{Activation, Error, TrainConfig};

use super::*;

fn make(config: Synthetic) -> Features {
    Features::new(config).unwrap()
}

fn rows(features: &Features, range: std::ops::Range<usize>) -> Vec<f32> {
    let mut out = vec![f32::NAN; range.len() * features.config().d];
    features.fill(range, &mut out);
    out
}

/// Everything at once.
fn rich() -> Synthetic {
    Synthetic {
        active: Active::OnAverage(4.0),
        noise: 0.1,
        power: 0.7,
        groups: Some(Groups {
            size: 5,
            share: 0.4,
        }),
        seed: 3,
        ..Synthetic::new(12, 32, 4)
    }
}

#[test]
fn a_row_depends_on_its_number_alone() {
    let features = Arc::new(make(rich()));
    let whole = rows(&features, 0..700);
    for step in [1, 7, 256, 699] {
        let parts: Vec<f32> = (0..700)
            .step_by(step)
            .flat_map(|start| rows(&features, start..(start + step).min(700)))
            .collect();
        assert_eq!(parts, whole, "in steps of {step}");
    }
    let mut read = Vec::new();
    let source = features.source(700).sub(100..650).unwrap();
    source.read_rows(13..400, &mut read).unwrap();
    assert_eq!(read, whole[113 * 12..500 * 12]);
    assert_eq!(rows(&make(rich()), 0..700), whole);
    let other = make(Synthetic { seed: 4, ..rich() });
    assert_ne!(rows(&other, 0..1), whole[..12]);
    assert_ne!(other.directions(), features.directions());
    let far = u32::MAX as usize + 5;
    assert_ne!(rows(&features, far..far + 1), whole[5 * 12..6 * 12]);
}

#[test]
fn rows_are_sums_of_their_features() {
    let features = make(Synthetic {
        magnitude: [2.0, 3.0],
        seed: 8,
        ..Synthetic::new(24, 60, 5)
    });
    let wide = |x: &[f32]| -> Vec<f64> { x.iter().map(|x| f64::from(*x)).collect() };
    let directions = wide(features.directions());
    for g in directions.chunks(24) {
        let norm: f64 = g.iter().map(|x| x * x).sum();
        assert!((norm - 1.0).abs() < 1e-6, "{norm}");
    }
    let x = wide(&rows(&features, 50..250));
    for (row, x) in (50..250).zip(x.chunks(24)) {
        let active = features.active(row);
        let mut distinct: Vec<usize> = active.iter().map(|a| a.0).collect();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!((active.len(), distinct.len()), (5, 5));
        assert!(active.iter().all(|a| (2.0..=3.0).contains(&a.1)));
        let mut want = [0.0; 24];
        for (f, a) in active {
            let g = &directions[f * 24..][..24];
            want.iter_mut()
                .zip(g)
                .for_each(|(w, g)| *w += f64::from(a) * g);
        }
        let off = x
            .iter()
            .zip(want)
            .map(|(x, w)| (x - w).abs())
            .fold(0.0, f64::max);
        assert!(off < 1e-5, "row {row}: {off}");
    }
}

/// How often each of the features is active, and how many rows have how many.
fn counts(features: &Features, n: usize) -> (Vec<f64>, Vec<f64>) {
    let mut each = vec![0.0; features.config().features];
    let mut many = Vec::new();
    for row in 0..n {
        let active = features.active(row);
        many.push(active.len() as f64);
        active.iter().for_each(|(f, _)| each[*f] += 1.0 / n as f64);
    }
    (each, many)
}

fn moments(x: &[f64]) -> (f64, f64) {
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    let squares = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
    (mean, squares / x.len() as f64)
}

#[test]
fn a_number_on_average_is_binomial() {
    let features = make(Synthetic {
        active: Active::OnAverage(3.0),
        ..Synthetic::new(4, 10, 1)
    });
    let (each, many) = counts(&features, 20_000);
    let (mean, variance) = moments(&many);
    assert!((mean - 3.0).abs() < 0.05, "{mean}");
    assert!((variance - 10.0 * 0.3 * 0.7).abs() < 0.1, "{variance}");
    assert!(each.iter().all(|p| (p - 0.3).abs() < 0.02), "{each:?}");
    // Independent: both active as often as chance has it.
    let both = (0..20_000).filter(|row| {
        let active = features.active(*row);
        [2, 7].iter().all(|f| active.iter().any(|a| a.0 == *f))
    });
    let share = both.count() as f64 / 20_000.0;
    assert!((share - 0.09).abs() < 0.01, "{share}");
    let all = make(Synthetic {
        active: Active::OnAverage(10.0),
        ..Synthetic::new(4, 10, 1)
    });
    assert_eq!(all.active(3).len(), 10);
}

#[test]
fn frequencies_follow_a_power_law() {
    let features = make(Synthetic {
        power: 1.0,
        ..Synthetic::new(4, 200, 1)
    });
    let (each, many) = counts(&features, 40_000);
    assert_eq!(moments(&many), (1.0, 0.0));
    let total: f64 = (1..=200).map(|i| 1.0 / f64::from(i)).sum();
    for i in [0, 1, 3, 9] {
        let want = 1.0 / (i as f64 + 1.0) / total;
        assert!(
            (each[i] - want).abs() < 0.07 * want + 0.002,
            "{i}: {} {want}",
            each[i]
        );
    }
}

#[test]
fn groups_come_together() {
    let paired = |share: f64| {
        let features = make(Synthetic {
            groups: Some(Groups { size: 4, share }),
            ..Synthetic::new(4, 40, 2)
        });
        let together = (0..4000).filter(|row| {
            let active = features.active(*row);
            active[0].0 / 4 == active[1].0 / 4
        });
        together.count() as f64 / 4000.0
    };
    let chance = 3.0 / 39.0;
    assert!((paired(0.0) - chance).abs() < 0.02);
    assert!((paired(0.5) - (0.5 + 0.5 * chance)).abs() < 0.03);
    assert_eq!(paired(1.0), 1.0);
    // A group that is used up gives way to the others.
    let many = make(Synthetic {
        groups: Some(Groups {
            size: 4,
            share: 1.0,
        }),
        ..Synthetic::new(4, 10, 9)
    });
    assert_eq!(many.active(0).len(), 9);
}

#[test]
fn noise_has_the_spread_it_is_given() {
    let clean = Synthetic::new(16, 30, 3);
    let noisy = Synthetic {
        noise: 0.25,
        ..clean.clone()
    };
    let (clean, noisy) = (rows(&make(clean), 0..2000), rows(&make(noisy), 0..2000));
    let noise: Vec<f64> = noisy
        .iter()
        .zip(&clean)
        .map(|(a, b)| f64::from(a - b))
        .collect();
    let (mean, variance) = moments(&noise);
    assert!(
        mean.abs() < 0.01 && (variance.sqrt() - 0.25).abs() < 0.005,
        "{mean} {variance}"
    );
}

#[test]
fn settings_that_cannot_be_made_are_refused() {
    let plain = || Synthetic::new(8, 10, 2);
    let groups = |size, share| Some(Groups { size, share });
    for (config, word) in [
        (Synthetic { d: 0, ..plain() }, "d = 0"),
        (
            Synthetic {
                features: 0,
                ..plain()
            },
            "features = 0",
        ),
        (Synthetic::new(8, 10, 11), "active = 11"),
        (Synthetic::new(8, 10, 0), "active = 0"),
        (
            Synthetic {
                active: Active::OnAverage(f64::NAN),
                ..plain()
            },
            "active = NaN",
        ),
        (
            Synthetic {
                magnitude: [2.0, 1.0],
                ..plain()
            },
            "magnitude = 2..1",
        ),
        (
            Synthetic {
                magnitude: [0.0, 1.0],
                ..plain()
            },
            "magnitude = 0..1",
        ),
        (
            Synthetic {
                noise: -1.0,
                ..plain()
            },
            "noise = -1",
        ),
        (
            Synthetic {
                power: f64::INFINITY,
                ..plain()
            },
            "power = inf",
        ),
        (
            Synthetic {
                groups: groups(0, 0.5),
                ..plain()
            },
            "groups of 0",
        ),
        (
            Synthetic {
                groups: groups(2, 1.5),
                ..plain()
            },
            "share 1.5",
        ),
    ] {
        says(Features::new(config).unwrap_err(), &[word]);
    }
    let text = serde_json::to_string(&rich()).unwrap();
    assert_eq!(serde_json::from_str::<Synthetic>(&text).unwrap(), rich());
}

#[test]
fn what_a_dictionary_lacks_is_missed() {
    let cpu = Device::cpu();
    let (d, n) = (32, 20);
    let features = make(Synthetic::new(d, n, 2));
    let kept: Vec<usize> = (0..n).filter(|f| f % 4 != 1).rev().collect();
    let row = |f: &usize| {
        let g = &features.directions()[f * d..][..d];
        g.iter().map(|g| g * 3.0).collect::<Vec<f32>>()
    };
    let w: Vec<f32> = kept.iter().flat_map(row).collect();
    let found = block_on(features.recovery(t2(&w, d, &cpu))).unwrap();
    assert_eq!(found.missed, [1, 5, 9, 13, 17]);
    for f in 0..n {
        if f % 4 != 1 {
            assert!((found.max_cosine[f] - 1.0).abs() < 1e-6);
            assert_eq!(kept[found.latents[f]], f);
        }
    }
    let mean = found.max_cosine.iter().sum::<f64>() / n as f64;
    assert!((found.mean_max_cosine - mean).abs() < 1e-12 && mean < 0.95);
    let error = block_on(features.recovery(t2(&[1.0; 60], 30, &cpu))).unwrap_err();
    says(error, &["[20, 32]", "[2, 30]"]);
}

/// Against a plain loop over the latents' matrix; two features share a latent.
#[test]
fn support_is_counted_feature_by_feature() {
    let cpu = Device::cpu();
    let features = make(Synthetic::new(10, 12, 3));
    let sae = random_sae(4, 10, 9, 4, &cpu);
    let recovery = block_on(features.recovery(sae.w_dec.clone())).unwrap();
    let found = block_on(features.support(&sae, &recovery, 100..3100, &cpu)).unwrap();
    let f = read32(sae.encode_dense(t2(&rows(&features, 100..3100), 10, &cpu)));
    let (mut said, mut both) = (0.0, 0.0);
    for (row, latents) in (100..3100).zip(f.chunks(9)) {
        let active = features.active(row);
        for feature in 0..12 {
            if latents[recovery.latents[feature]] > 0.0 {
                said += 1.0;
                both += f64::from(active.iter().any(|a| a.0 == feature));
            }
        }
    }
    let (precision, recall) = (both / said, both / 9000.0);
    assert!((found.precision - precision).abs() < 1e-12, "{found:?}");
    assert!((found.recall - recall).abs() < 1e-12, "{found:?}");
    let f1 = 2.0 * precision * recall / (precision + recall);
    assert!((found.f1 - f1).abs() < 1e-12 && f1 < 0.7, "{found:?}");
    let other = random_sae(4, 10, 5, 4, &cpu);
    let error = block_on(features.support(&other, &recovery, 0..10, &cpu)).unwrap_err();
    says(error, &["[5, 10]", "12 features"]);
}

#[test]
fn the_true_dictionary_supports_what_is_there() {
    let cpu = Device::cpu();
    let features = make(Synthetic::new(64, 24, 2));
    let w = features.tensor(cpu.tensor());
    let biases = [24, 64].map(|n| t1(&vec![0.0; n], &cpu));
    let mut sae = Sae::topk([w.clone(), w], biases, 2);
    let recovery = block_on(features.recovery(sae.w_dec.clone())).unwrap();
    let support = |sae: &Sae| block_on(features.support(sae, &recovery, 0..2000, &cpu)).unwrap();
    let found = support(&sae);
    assert!(found.precision > 0.95 && found.recall > 0.95, "{found:?}");
    sae.activation = Activation::TopK { k: 1 };
    let half = support(&sae);
    assert!(
        half.precision > 0.98 && (half.recall - 0.5).abs() < 0.01,
        "{half:?}"
    );
}

#[test]
fn a_selftest_finds_most_features() {
    let features = Arc::new(make(Synthetic::new(24, 40, 3)));
    let config = TrainConfig {
        batch: 256,
        ..TrainConfig::new(24, 40, 3, 120_000)
    };
    let idle = TrainConfig {
        lr: 1e-9,
        ..config.clone()
    };
    let mut seen = Vec::new();
    let cpu = Device::cpu();
    let found = selftest(&features, &[config.clone(), idle], &cpu, |n| seen.push(n)).unwrap();
    println!("{found:?}");
    assert_eq!(seen.last(), Some(&(config.steps() * 256)));
    assert_eq!(found[0].architecture, "TopK");
    assert!(found[0].mean_max_cosine > 0.9 && found[1].mean_max_cosine < 0.8);
    // The seed of the task is that of the weights: they must not start where they are to go.
    assert!(found[0].missed < 10 && found[1].missed > 30);
    assert!(found[0].support.f1 > 0.7 && found[0].support.f1 > found[1].support.f1 + 0.2);
    assert!(found[0].fvu < 0.2 && found[0].l0 <= 3.0 && found[0].seconds > 0.0);
    let shorter = TrainConfig {
        tokens: 60_000,
        ..config.clone()
    };
    let error = selftest(&features, &[config, shorter], &cpu, |_| ()).unwrap_err();
    assert!(matches!(error, Error::Config(_)));
    assert!(selftest(&features, &[], &cpu, |_| ()).is_err());
}
