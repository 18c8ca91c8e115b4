//! What papers report: here on planted data, one file each on real data or models.

mod cunningham;
mod lan;
mod makhzani;
mod tiny;

mod attributes;
mod descent;
mod engels;
mod ferrando;

use faer::{Mat, Side};
use inscape::sae::eval::matching::{Correlations, one_to_one};
use inscape::sae::selftest::selftest;
use inscape::sae::synthetic::{Features, Synthetic};
use inscape::sae::{Architecture, Standard, TrainConfig};
use inscape::similarity::{Comparator, Rdm, rsa, svcca};

use super::*;

/// The principal components of the rows, as rows.
fn principal_components(rows: &[f32], d: usize) -> Vec<f32> {
    let n = rows.len() / d;
    let mean = |j: usize| {
        rows.iter()
            .skip(j)
            .step_by(d)
            .map(|x| f64::from(*x))
            .sum::<f64>()
            / n as f64
    };
    let means: Vec<f64> = (0..d).map(mean).collect();
    let mut covariance = Mat::<f64>::zeros(d, d);
    for row in rows.chunks(d) {
        for i in 0..d {
            for j in 0..d {
                covariance[(i, j)] +=
                    (f64::from(row[i]) - means[i]) * (f64::from(row[j]) - means[j]);
            }
        }
    }
    let vectors = covariance.self_adjoint_eigen(Side::Lower).unwrap();
    let vectors = vectors.U();
    (0..d)
        .flat_map(|c| (0..d).map(move |j| vectors[(j, c)] as f32))
        .collect()
}

/// Cunningham, Ewart, Riggs, Huben & Sharkey 2023, "Sparse autoencoders find highly interpretable
/// features in language models": a sparse autoencoder with an L1 penalty, as theirs, finds the features
/// that activations are made of, where their principal components and random directions do not. It
/// leaves many small activations beside the three that are there; one that keeps three does not.
#[test]
fn cunningham_2023_sparse_autoencoders_find_features() {
    let (cpu, d) = (Device::cpu(), 32);
    let seed = 1;
    let features = std::sync::Arc::new(
        Features::new(Synthetic {
            seed,
            ..Synthetic::new(d, 64, 3)
        })
        .unwrap(),
    );
    let topk = TrainConfig {
        batch: 256,
        seed,
        ..TrainConfig::new(d, 128, 3, 4000 * 256)
    };
    let l1 = TrainConfig {
        architecture: Architecture::Standard(Standard::for_width(d)),
        ..topk.clone()
    };
    let found = selftest(&features, &[l1, topk], &cpu, |_| ()).unwrap();
    let score = |w: &[f32]| {
        let w = t2(w, d, &cpu);
        // A direction counts either way round: a component's sign is nobody's.
        let both = Tensor::cat(vec![w.clone(), w.neg()], 0);
        block_on(features.recovery(both)).unwrap().mean_max_cosine
    };
    let mut rows = vec![0.0; 10_000 * d];
    features.fill(0..10_000, &mut rows);
    let components = score(&principal_components(&rows, d));
    let random = score(&f32s(&Draws::new(seed).unit_rows(128, d)));
    for f in &found {
        println!(
            "seed {seed}, {}: {:.4} (L0 {:.2}, FVU {:.4}, missed {})",
            f.architecture, f.mean_max_cosine, f.l0, f.fvu, f.missed
        );
    }
    println!("components {components:.4}, random {random:.4}");
    assert!(found.iter().all(|f| f.mean_max_cosine >= 0.9), "{found:?}");
    assert!(found[0].l0 > found[1].l0, "{found:?}");
    assert!(components <= 0.6 && random <= 0.6, "{components} {random}");
}

/// A random rotation: rows of normals, made orthonormal one after another (Gram & Schmidt).
fn rotation(draws: &mut Draws, d: usize) -> Vec<f64> {
    let mut rows: Vec<Vec<f64>> = Vec::new();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    while rows.len() < d {
        let mut row = draws.normals(d);
        for _ in 0..2 {
            for other in &rows {
                let along = dot(&row, other);
                row.iter_mut().zip(other).for_each(|(x, o)| *x -= along * o);
            }
        }
        let norm = dot(&row, &row).sqrt();
        rows.push(row.into_iter().map(|x| x / norm).collect());
    }
    rows.concat()
}

/// Lan, Torr, Meek, Khakzar, Krueger & Barez 2024, "Sparse autoencoders reveal universal feature
/// spaces across large language models": two models that know the same features in other coordinates
/// and another order, each with some of its own. Their features pair up by what they respond to, and
/// the paired decoder rows have one geometry.
#[test]
fn lan_2024_features_of_two_models_pair_up() {
    let (cpu, d, n, own) = (Device::cpu(), 48, 96, 8);
    let features = Features::new(Synthetic {
        noise: 0.05,
        seed: 5,
        ..Synthetic::new(d, n, 4)
    })
    .unwrap();
    let mut draws = Draws::new(6);
    // Latent `i` of model b is that of feature `order(i)`; the last of both are of nothing.
    let order = |i: usize| (i * 29 + 11) % n;
    let turns = [0, 1].map(|_| t2(&f32s(&rotation(&mut draws, d)), d, &cpu));
    let known = features.tensor(cpu.tensor());
    let places: Vec<i32> = (0..n).map(|i| order(i) as i32).collect();
    let places = Tensor::from_data(TensorData::new(places, [n]), cpu.tensor());
    let sae = |directions: Tensor<2>, turn: &Tensor<2>, draws: &mut Draws| {
        let noise = t2(&f32s(&draws.normals(n * d)), d, &cpu) * 0.03;
        let more = t2(&f32s(&draws.unit_rows(own, d)), d, &cpu);
        let w = Tensor::cat(vec![directions.matmul(turn.clone()) + noise, more], 0);
        let b_enc: Vec<f32> = (0..n + own)
            .map(|i| if i < n { 0.0 } else { -9.0 })
            .collect();
        Sae::topk(
            [w.clone(), w],
            [t1(&b_enc, &cpu), t1(&vec![0.0; d], &cpu)],
            4,
        )
    };
    let a = sae(known.clone(), &turns[0], &mut draws);
    let b = sae(known.select(0, places), &turns[1], &mut draws);
    let mut all = Correlations::new(n + own, n + own);
    for start in (0..10_000).step_by(1000) {
        let mut rows = vec![0.0; 1000 * d];
        features.fill(start..start + 1000, &mut rows);
        let x = t2(&rows, d, &cpu);
        let latents = |sae: &Sae, turn: &Tensor<2>| sae.encode(x.clone().matmul(turn.clone()));
        let (fa, fb) = (latents(&a, &turns[0]), latents(&b, &turns[1]));
        block_on(all.add_latents(&fa, &fb)).unwrap();
    }
    let scores = all.finish();
    let pairs = one_to_one(&scores.best());
    assert!(
        pairs.iter().all(|p| p.a < n && p.b < n),
        "dead ones are out"
    );
    let right = |pairs: &[inscape::sae::eval::matching::Pair]| {
        pairs.iter().filter(|p| order(p.b) == p.a).count()
    };
    let assigned = scores.assigned().unwrap();
    let correct = [right(&pairs), right(&assigned)];

    let rows = |w: &Tensor<2>, of: Vec<usize>| {
        let of: Vec<i32> = of.into_iter().map(|i| i as i32).collect();
        let m = of.len();
        w.clone()
            .select(0, Tensor::from_data(TensorData::new(of, [m]), cpu.tensor()))
    };
    let geometry = |to: Vec<usize>| {
        let left = rows(&a.w_dec, pairs.iter().map(|p| p.a).collect());
        let right = rows(&b.w_dec, to);
        let rsa = rsa(&left, &right, Rdm::Correlation, Comparator::Spearman);
        [rsa.unwrap(), svcca(&left, &right, 0.99).unwrap()]
    };
    let paired = geometry(pairs.iter().map(|p| p.b).collect());
    let random = (0..100).map(|_| {
        let mut to: Vec<usize> = pairs.iter().map(|p| p.b).collect();
        for i in (1..to.len()).rev() {
            to.swap(i, draws.below(i + 1));
        }
        geometry(to)
    });
    let random = random.fold([f64::MIN; 2], |[a, b], [x, y]| [a.max(x), b.max(y)]);
    println!(
        "{correct:?} of {n} right; RSA and SVCCA {paired:.4?}, at most {random:.4?} at random"
    );
    assert!(correct.iter().all(|c| *c * 100 >= 95 * n), "{correct:?}");
    assert!(paired[0] > 0.8 && paired[1] > 0.95, "{paired:?}");
    assert!(
        (0..2).all(|i| paired[i] > random[i] + 0.2),
        "{paired:?} {random:?}"
    );
}
