//! Engels, Michaud, Liao, Gurnee & Tegmark 2024, "Not all language model features are linear": features
//! of more dimensions than one are clusters of latents, and networks compute with them.

use std::f64::consts::TAU;

use burn::tensor::activation::{log_softmax, relu};
use burn::tensor::{Int, Tensor, TensorData};
use inscape::Device;
use inscape::device::block_on;
use inscape::geometry::{
    Matrix, PlaneScores, Principal, cluster_reconstructions, graph_clusters, irreducibility,
};
use inscape::ops::Adam;
use inscape::sae::{Architecture, Sae, Standard, TrainConfig, Trainer};

use super::descent::{autodiff, descend};
use crate::*;

const D: usize = 128;
const FEATURES: usize = 40;

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Two orthonormal axes.
fn random_plane(draws: &mut Draws, d: usize) -> [Vec<f64>; 2] {
    let [u, v] = [0, 1].map(|_| draws.unit_rows(1, d));
    let along = dot(&u, &v);
    let v: Vec<f64> = u.iter().zip(&v).map(|(u, v)| v - along * u).collect();
    let norm = dot(&v, &v).sqrt();
    [u, v.into_iter().map(|v| v / norm).collect()]
}

/// 7 points of a circle about the origin and 40 features of one dimension: unit rows.
struct Planted {
    plane: [Vec<f64>; 2],
    points: Vec<Vec<f64>>,
    features: Vec<Vec<f64>>,
}

impl Planted {
    fn new(draws: &mut Draws) -> Self {
        let [u, v] = random_plane(draws, D);
        let point = |i: usize| {
            let (sin, cos) = (TAU * i as f64 / 7.0).sin_cos();
            u.iter().zip(&v).map(|(u, v)| cos * u + sin * v).collect()
        };
        Self {
            points: (0..7).map(point).collect(),
            features: (0..FEATURES).map(|_| draws.unit_rows(1, D)).collect(),
            plane: [u, v],
        }
    }

    /// Sums of three: on half of the rows one of them is a point of the circle.
    fn rows(&self, draws: &mut Draws, n: usize) -> Vec<f32> {
        let mut rows = vec![0.0; n * D];
        for row in rows.chunks_mut(D) {
            let mut add = |direction: &[f64], weight: f64| {
                let parts = row.iter_mut().zip(direction);
                parts.for_each(|(r, v)| *r += (weight * v) as f32);
            };
            let ring = draws.below(2);
            if ring == 1 {
                add(&self.points[draws.below(7)], draws.uniform(0.9, 1.1));
            }
            for _ in ring..3 {
                let i = draws.below(FEATURES);
                add(&self.features[i], draws.uniform(0.5, 1.5));
            }
        }
        rows
    }

    /// Share of a direction's squared length that lies in the circle's plane.
    fn in_plane(&self, direction: &[f64]) -> f64 {
        let parts = self
            .plane
            .each_ref()
            .map(|axis| dot(axis, direction).powi(2));
        (parts[0] + parts[1]) / dot(direction, direction)
    }
}

/// An L1 autoencoder with the settings of the library, trained on rows that are never seen twice.
fn trained(planted: &Planted, draws: &mut Draws, seed: u64) -> Sae {
    let cpu = Device::cpu();
    let config = TrainConfig {
        architecture: Architecture::Standard(Standard::for_width(D)),
        batch: 256,
        seed,
        ..TrainConfig::new(D, 128, 3, 3000 * 256)
    };
    let sample = planted.rows(draws, 8192);
    let mut trainer = Trainer::new(config, &sample, D, cpu.tensor()).unwrap();
    for _ in 0..3000 {
        let x = t2(&planted.rows(draws, 256), D, &cpu);
        block_on(trainer.step(x)).unwrap();
    }
    trainer.sae()
}

/// Of what a cluster of latents makes of rows, the first 400, the principal components and the indices
/// of the first two.
fn plane(sae: &Sae, x: &Tensor<2>, cluster: &[usize]) -> (Principal, PlaneScores) {
    let latents = sae.encode(x.clone());
    let w_dec = Matrix::read(sae.w_dec.clone()).unwrap();
    let rows = cluster_reconstructions(latents.values, latents.indices, &w_dec, cluster).unwrap();
    // The indices depend on how many points there are.
    let rows = rows.select(&(0..400).collect::<Vec<_>>());
    (
        Principal::of(&rows).unwrap(),
        irreducibility(&rows).unwrap()[0],
    )
}

/// The latents of a trained dictionary that stand for a circle are one cluster, and nothing else is in
/// it; their plane is the circle's. It is irreducible by both indices (a small mixture index, a large
/// separability index), where each of 20 pairs of features of one dimension is not; and as many
/// latents of other features lie in no plane.
///
/// A TopK autoencoder does not do: it covers the circle with four latents, each for two points, which
/// no cosine joins.
#[test]
fn engels_2024_a_trained_dictionary_has_the_circle_as_one_cluster() {
    let cpu = Device::cpu();
    for seed in [1, 2] {
        let mut draws = Draws::new(seed);
        let planted = Planted::new(&mut draws);
        let sae = trained(&planted, &mut draws, seed);
        let x = t2(&planted.rows(&mut draws, 4000), D, &cpu);
        let w_dec = Matrix::read(sae.w_dec.clone()).unwrap();
        let fired = sae.encode_dense(x.clone()).greater_elem(0.0).float();
        let fired = read64(fired.sum_dim(0));
        // Those that fire on a row in a hundred.
        let live: Vec<usize> = (0..sae.d_sae()).filter(|&j| fired[j] >= 40.0).collect();
        let clusters = graph_clusters(&w_dec.select(&live), 2, 0.5).unwrap();
        let first: Vec<usize> = clusters[0].iter().map(|&i| live[i]).collect();
        let of_circle = |j: &usize| planted.in_plane(w_dec.row(*j)) > 0.5;
        let ring: Vec<usize> = live.iter().copied().filter(of_circle).collect();
        assert_eq!(first, ring, "{clusters:?}");

        let (axes, circle) = plane(&sae, &x, &first);
        let overlap = [0, 1].map(|i| planted.in_plane(axes.axes.row(i)));
        let nearest = |v: &Vec<f64>| {
            let cosine = |j: &usize| dot(w_dec.row(*j), v);
            let best = live.iter().max_by(|a, b| cosine(a).total_cmp(&cosine(b)));
            *best.unwrap()
        };
        let singles: Vec<usize> = planted.features.iter().map(nearest).collect();
        let pairs = singles.chunks(2).map(|pair| plane(&sae, &x, pair).1);
        let pairs: Vec<PlaneScores> = pairs.collect();
        let mixture = pairs.iter().map(|p| p.mixture).fold(1.0, f64::min);
        let separability = pairs.iter().map(|p| p.separability).fold(0.0, f64::max);
        let (_, others) = plane(&sae, &x, &singles[..first.len()]);
        println!(
            "seed {seed}: {} of {} live latents in the cluster; R2 {:.4}, of other latents {:.4}; \
             mixture {:.3}, of pairs at least {mixture:.3}; \
             separability {:.3}, of pairs at most {separability:.3}; overlap {overlap:.4?}",
            first.len(),
            live.len(),
            circle.r2,
            others.r2,
            circle.mixture,
            circle.separability
        );
        assert!(circle.r2 >= 0.9 && overlap.iter().all(|o| *o >= 0.9));
        assert!(others.r2 < 0.5, "{others:?}");
        assert!(circle.mixture < 0.75 * mixture, "{circle:?}");
        assert!(circle.separability > 1.25 * separability, "{circle:?}");
    }
}

/// `a + b mod 7` of embedded `a` and `b`, after one hidden layer. Strong weight decay leaves the
/// embedding one circle, of the three that the numbers mod 7 have.
struct Adder {
    params: Vec<Tensor<2>>,
}

const WIDTH: usize = 16;

impl Adder {
    fn new(seed: u64) -> Self {
        let mut draws = Draws::new(seed);
        let mut matrix = |n: usize, m: usize, scale: f64| {
            let values: Vec<f64> = draws.normals(n * m).iter().map(|x| x * scale).collect();
            t2(&f32s(&values), m, &Device::cpu())
        };
        let shapes = [
            (7, WIDTH, 0.3),
            (WIDTH, 64, 0.25),
            (WIDTH, 64, 0.25),
            (1, 64, 0.0),
            (64, 7, 0.12),
        ];
        let start = shapes.map(|(n, m, scale)| matrix(n, m, scale)).to_vec();
        let adam = Adam {
            weight_decay: 5.0,
            ..Adam::default()
        };
        let device = autodiff();
        let [a, b, sum] = [|i| i / 7, |i| i % 7, |i| (i / 7 + i % 7) % 7]
            .map(|of: fn(i64) -> i64| ids((0..49).map(of).collect(), &device));
        let params = descend(start, &adam, (4000, 1e-2), |params, _| {
            let [a, b] = [&a, &b].map(|n| params[0].clone().select(0, n.clone()));
            let logits = log_softmax(Self::forward(params, a, b), 1);
            logits.gather(1, sum.clone().unsqueeze_dim(1)).mean().neg()
        });
        Self { params }
    }

    fn forward(params: &[Tensor<2>], a: Tensor<2>, b: Tensor<2>) -> Tensor<2> {
        let [a, b] = [(a, 1), (b, 2)].map(|(x, w)| x.matmul(params[w].clone()));
        relu(a + b + params[3].clone()).matmul(params[4].clone())
    }

    /// Its answers for embeddings of `a` and numbers `b`.
    fn answers(&self, a: &[f64], b: &[usize]) -> Vec<usize> {
        let cpu = Device::cpu();
        let b = ids(b.iter().map(|b| *b as i64).collect(), &cpu);
        let b = self.params[0].clone().select(0, b);
        let logits = Self::forward(&self.params, t2(&f32s(a), WIDTH, &cpu), b);
        let logits = read64(logits);
        let best = |row: &[f64]| (0..7).max_by(|&i, &j| row[i].total_cmp(&row[j])).unwrap();
        logits.chunks(7).map(best).collect()
    }
}

fn ids(of: Vec<i64>, device: &Device) -> Tensor<1, Int> {
    let n = of.len();
    Tensor::from_data(TensorData::new(of, [n]), device.tensor())
}

/// `x` with its coordinates along two orthonormal axes turned about those of `centre`.
fn turned(x: &[f64], centre: &[f64], axes: [&[f64]; 2], angle: f64) -> Vec<f64> {
    let from: Vec<f64> = x.iter().zip(centre).map(|(x, c)| x - c).collect();
    let [p, q] = axes.map(|axis| dot(axis, &from));
    let (sin, cos) = angle.sin_cos();
    let (dp, dq) = (cos * p - sin * q - p, sin * p + cos * q - q);
    let along = x.iter().zip(axes[0]).zip(axes[1]);
    along.map(|((x, u), v)| x + dp * u + dq * v).collect()
}

/// A network that adds mod 7 does so on a circle: turning an embedding in its plane by `s` of seven
/// steps, and nothing else, makes the answer `a + s + b`. Turned in a random plane the answer stays.
#[test]
fn engels_2024_turning_the_circle_of_an_adder_adds() {
    for seed in [1, 2, 3] {
        let adder = Adder::new(seed);
        let embedding = Matrix::read(adder.params[0].clone()).unwrap();
        let clean: Vec<usize> = (0..49).map(|i| (i / 7 + i % 7) % 7).collect();
        let [a, b] = [|i| i / 7, |i| i % 7].map(|of: fn(usize) -> usize| (0..49).map(of));
        let (a, b): (Vec<usize>, Vec<usize>) = (a.collect(), b.collect());
        let rows: Vec<f64> = a.iter().flat_map(|&a| embedding.row(a).to_vec()).collect();
        assert_eq!(adder.answers(&rows, &b), clean, "seed {seed}");

        let principal = Principal::of(&embedding).unwrap();
        let at = principal.project(&embedding, 0, 2);
        let angle = |n: usize| at.row(n)[1].atan2(at.row(n)[0]);
        // The circle has its points in some order: so many seventh turns from 0 to 1.
        let step = ((angle(1) - angle(0)) / TAU * 7.0).round();
        let axes = [0, 1].map(|i| principal.axes.row(i));
        let random = random_plane(&mut Draws::new(seed + 10), WIDTH);
        let random = random.each_ref().map(Vec::as_slice);
        let follows = |axes: [&[f64]; 2]| {
            let (mut added, mut stayed) = (0, 0);
            for s in 1..7 {
                let by = TAU * step * s as f64 / 7.0;
                let turn = |&a: &usize| turned(embedding.row(a), &principal.mean, axes, by);
                let rows: Vec<f64> = a.iter().flat_map(turn).collect();
                for (answer, sum) in adder.answers(&rows, &b).into_iter().zip(&clean) {
                    added += usize::from(answer == (sum + s) % 7);
                    stayed += usize::from(answer == *sum);
                }
            }
            [added, stayed].map(|n| n as f64 / 294.0)
        };
        let ([in_plane, _], [elsewhere, stayed]) = (follows(axes), follows(random));
        println!(
            "seed {seed}: plane R2 {:.4}, {step} seventh turns a step; follows the circle \
             {in_plane:.3}, in a random plane {elsewhere:.3} (answer kept {stayed:.3})",
            principal.r2(0, 2)
        );
        assert!(in_plane >= 0.9, "{in_plane}");
        assert!(elsewhere < 0.2, "{elsewhere}");
    }
}
