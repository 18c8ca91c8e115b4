//! Features of more dimensions than one (Engels et al. 2024).

use std::f64::consts::{FRAC_PI_2, LN_2, PI, TAU};

use burn::tensor::{Tensor, TensorData};
use inscape::Device;
use inscape::geometry::*;
use inscape::sae::Sae;

use super::*;

/// 7 points on a circle and 40 features of one dimension. A row of activations is a sum of three: on
/// half of the rows one of them is a point of the circle.
struct Ring {
    d: usize,
    points: Vec<Vec<f64>>,
    features: Vec<Vec<f64>>,
}

impl Ring {
    fn new(draws: &mut Draws, d: usize) -> Self {
        let u = draws.unit_rows(1, d);
        let v = draws.unit_rows(1, d);
        let along: f64 = u.iter().zip(&v).map(|(u, v)| u * v).sum();
        let v: Vec<f64> = u.iter().zip(&v).map(|(u, v)| v - along * u).collect();
        let norm = v.iter().map(|v| v * v).sum::<f64>().sqrt();
        let point = |i: usize| {
            let (sin, cos) = (TAU * i as f64 / 7.0).sin_cos();
            u.iter()
                .zip(&v)
                .map(|(u, v)| cos * u + sin * v / norm)
                .collect()
        };
        Self {
            d,
            points: (0..7).map(point).collect(),
            features: (0..40).map(|_| draws.unit_rows(1, d)).collect(),
        }
    }

    fn row(&self, draws: &mut Draws) -> Vec<f32> {
        let mut row = vec![0.0; self.d];
        let mut add = |direction: &[f64], weight: f64| {
            row.iter_mut()
                .zip(direction)
                .for_each(|(r, v)| *r += weight * v);
        };
        let ring = draws.below(2);
        if ring == 1 {
            add(&self.points[draws.below(7)], draws.uniform(0.9, 1.1));
        }
        for _ in ring..3 {
            add(&self.features[draws.below(40)], draws.uniform(0.8, 1.2));
        }
        row.iter().map(|v| *v as f32).collect()
    }

    fn rows(&self, draws: &mut Draws, n: usize) -> Tensor<2> {
        let values: Vec<f32> = (0..n).flat_map(|_| self.row(draws)).collect();
        Tensor::from_data(TensorData::new(values, [n, self.d]), Device::cpu().tensor())
    }
}

/// The dictionary itself as a TopK autoencoder, each decoder row tilted a little.
fn by_hand(ring: &Ring, draws: &mut Draws) -> Sae {
    let cpu = Device::cpu();
    let rows: Vec<&Vec<f64>> = ring.points.iter().chain(&ring.features).collect();
    let tilted = rows.iter().map(|row| {
        let tilt = draws.unit_rows(1, ring.d);
        row.iter()
            .zip(tilt)
            .map(|(r, t)| r + 0.15 * t)
            .collect::<Vec<f64>>()
    });
    let tilted: Vec<Vec<f64>> = tilted.collect();
    let tensor = |values: Vec<f64>| {
        let values: Vec<f32> = values.iter().map(|v| *v as f32).collect();
        Tensor::<2>::from_data(TensorData::new(values, [rows.len(), ring.d]), cpu.tensor())
    };
    let w_enc = tensor(rows.iter().flat_map(|r| r.iter().copied()).collect());
    let zeros = |n: usize| Tensor::<1>::zeros([n], cpu.tensor());
    Sae::topk(
        [w_enc, tensor(tilted.concat())],
        [zeros(rows.len()), zeros(ring.d)],
        3,
    )
}

/// The planes of a cluster's reconstructions.
fn planes(sae: &Sae, x: &Tensor<2>, cluster: &[usize]) -> Vec<PlaneScores> {
    let latents = sae.encode(x.clone());
    let w_dec = Matrix::read(sae.w_dec.clone()).unwrap();
    let rows = cluster_reconstructions(latents.values, latents.indices, &w_dec, cluster).unwrap();
    irreducibility(&rows).unwrap()
}

/// Two features of one dimension that fire independently of each other, on rows of their own.
fn independent(draws: &mut Draws, n: usize) -> Matrix {
    let rows: Vec<Vec<f64>> = (0..n)
        .map(|_| {
            (0..2)
                .map(|_| match draws.below(2) {
                    0 => 0.0,
                    _ => draws.uniform(0.5, 1.5),
                })
                .collect()
        })
        .collect();
    matrix(&rows)
}

/// Engels et al. 2024: the latents of a circle are one cluster, and their plane is irreducible where
/// that of two independent features is not.
#[test]
fn engels_2024_a_ring_of_latents_is_one_irreducible_feature() {
    let mut draws = Draws::new(1);
    let ring = Ring::new(&mut draws, 64);
    let sae = by_hand(&ring, &mut draws);
    let clusters = graph_clusters(&Matrix::read(sae.w_dec.clone()).unwrap(), 2, 0.5).unwrap();
    assert_eq!(clusters[0], [0, 1, 2, 3, 4, 5, 6], "{clusters:?}");
    let x = ring.rows(&mut draws, 4000);
    let circle = planes(&sae, &x, &clusters[0])[0];
    let two = irreducibility(&independent(&mut draws, 2000)).unwrap()[0];
    assert!(circle.r2 >= 0.9, "{circle:?}");
    // Irreducible: a small mixture index and a large separability index.
    assert!(circle.mixture < 0.75 * two.mixture, "{circle:?}, {two:?}");
    assert!(
        circle.separability > 3.0 * two.separability,
        "{circle:?}, {two:?}"
    );
}

fn rotated(points: &Matrix, angle: f64) -> Matrix {
    let (sin, cos) = angle.sin_cos();
    let turn = |p: &[f64]| vec![cos * p[0] + sin * p[1], cos * p[1] - sin * p[0]];
    matrix(&points.each_row().map(turn).collect::<Vec<_>>())
}

/// The mutual information of bins, by another function.
#[test]
fn the_separability_index_is_the_least_information_of_binned_turns() {
    let mut draws = Draws::new(3);
    let rows: Vec<Vec<f64>> = (0..400)
        .map(|_| {
            let (a, b) = (draws.normal(), draws.uniform(-1.0, 1.0));
            vec![a + 0.5 * b, b * b - 0.2 * a]
        })
        .collect();
    let points = matrix(&rows);
    let found = separability_index(&points).unwrap();
    let of_angle = |angle: f64| {
        let turned = rotated(&points, angle);
        let bins = |axis: usize| -> Vec<usize> {
            let values: Vec<f64> = turned.each_row().map(|p| p[axis]).collect();
            let low = values.iter().copied().fold(f64::MAX, f64::min);
            let high = values.iter().copied().fold(f64::MIN, f64::max);
            let bin = |v: &f64| (((v - low) / (high - low) * 10.0).floor() as usize).min(9);
            values.iter().map(bin).collect()
        };
        mutual_information(&bins(0), &bins(1)) / LN_2
    };
    let least = (0..100)
        .map(|s| of_angle(FRAC_PI_2 * s as f64 / 100.0))
        .fold(f64::MAX, f64::min);
    close(found.index, least, 1e-9);
    close(of_angle(found.angle), least, 1e-9);
}

#[test]
fn known_planes_have_known_indices() {
    let mut draws = Draws::new(4);
    // A square is two independent uniforms, whichever way it is turned.
    let square: Vec<Vec<f64>> = (0..20_000)
        .map(|_| vec![draws.uniform(-1.0, 1.0), draws.uniform(-1.0, 1.0)])
        .collect();
    let square = rotated(&matrix(&square), 0.4);
    let bias = 81.0 / (2.0 * 20_000.0 * LN_2);
    let found = separability_index(&square).unwrap();
    assert!(found.index < 5.0 * bias, "{found:?}");
    // Two features of which only one fires at a time: half of the points lie on either axis.
    let cross: Vec<Vec<f64>> = (0..1000)
        .map(|i| match i % 2 {
            0 => vec![draws.uniform(0.5, 1.5), 0.0],
            _ => vec![0.0, draws.uniform(0.5, 1.5)],
        })
        .collect();
    let found = mixture_index(&rotated(&matrix(&cross), 1.0), 0.1).unwrap();
    assert!(found.index >= 0.5 && found.index < 0.65, "{found:?}");
    // A circle: the strip of ± ε / √2 about a tangent or a diameter; the densest is at the rim.
    let circle: Vec<Vec<f64>> = (0..20_000)
        .map(|i| {
            let (sin, cos) = (TAU * i as f64 / 20_000.0).sin_cos();
            vec![cos, sin]
        })
        .collect();
    let circle = matrix(&circle);
    let found = mixture_index(&circle, 0.1).unwrap();
    // Strip m ± 0.1 √(½ + m²) with its far edge at the rim: m (1) solves m + 0.1 √(½ + m²) = 1.
    let edge = (0..200_000)
        .map(|i| i as f64 / 200_000.0)
        .find(|m| m + 0.1 * (0.5 + m * m).sqrt() >= 1.0)
        .unwrap();
    let from = edge - 0.1 * (0.5 + edge * edge).sqrt();
    close(found.index, from.acos() / PI, 2e-3);
    assert!(separability_index(&circle).unwrap().index > 0.5);
}

/// Every centre on a fine grid, for each direction.
#[test]
fn the_mixture_index_finds_the_best_strip() {
    let mut draws = Draws::new(5);
    for round in 0..4 {
        let rows: Vec<Vec<f64>> = (0..60)
            .map(|i| match i % 3 {
                0 => vec![0.05 * draws.normal() + 1.0, draws.normal()],
                _ => vec![draws.normal(), draws.normal() * (1.0 + f64::from(round))],
            })
            .collect();
        let points = matrix(&rows);
        let epsilon = [0.1, 0.1, 0.3, 0.02][round as usize];
        let found = mixture_index(&points, epsilon).unwrap();
        let (mut most, mut reported) = (0, 0);
        for step in 0..360 {
            let angle = PI * f64::from(step) / 360.0;
            let (sin, cos) = angle.sin_cos();
            let z: Vec<f64> = rows.iter().map(|p| cos * p[0] + sin * p[1]).collect();
            let inside = |m: f64, slack: f64| {
                let root = (z.iter().map(|z| (z - m).powi(2)).sum::<f64>() / 60.0).sqrt();
                let near = |z: &&f64| (**z - m).abs() <= epsilon * root * (1.0 + slack);
                z.iter().filter(near).count()
            };
            for at in -400..400 {
                most = most.max(inside(f64::from(at) * 0.02, 0.0));
            }
            if angle == found.angle {
                reported = inside(found.offset, 1e-9);
            }
        }
        assert!(
            found.index * 60.0 >= most as f64 - 1e-9,
            "{found:?}, {most}"
        );
        close(found.index * 60.0, reported as f64, 1e-9);
    }
}

#[test]
fn reconstructions_are_those_of_the_cluster_alone() {
    let mut draws = Draws::new(6);
    let ring = Ring::new(&mut draws, 20);
    let sae = by_hand(&ring, &mut draws);
    let x = ring.rows(&mut draws, 50);
    let w_dec = Matrix::read(sae.w_dec.clone()).unwrap();
    let dense = Matrix::read(sae.encode_dense(x.clone())).unwrap();
    let cluster = [2, 3, 11];
    let mut want = Vec::new();
    for f in dense.each_row() {
        if cluster.iter().all(|&j| f[j] == 0.0) {
            continue;
        }
        let of = |c: usize| cluster.iter().map(|&j| f[j] * w_dec.row(j)[c]).sum();
        want.push((0..20).map(of).collect::<Vec<f64>>());
    }
    let latents = sae.encode(x);
    let run = |cluster: &[usize]| {
        let (values, indices) = (latents.values.clone(), latents.indices.clone());
        cluster_reconstructions(values, indices, &w_dec, cluster)
    };
    let found = run(&cluster).unwrap();
    assert_eq!(found.rows(), want.len());
    for (found, want) in found.each_row().zip(&want) {
        found
            .iter()
            .zip(want)
            .for_each(|(a, b)| close(*a, *b, 1e-12));
    }
    says(run(&[]).unwrap_err(), &["rows that fire", "got 0"]);
}

#[test]
fn what_has_no_index_is_named() {
    let same = matrix(&vec![vec![1.0, 2.0]; 9]);
    for error in [
        separability_index(&same).unwrap_err(),
        mixture_index(&same, 0.1).unwrap_err(),
        irreducibility(&same).unwrap_err(),
    ] {
        assert!(matches!(error, Error::Undefined { .. }));
        says(error, &["undefined", "all the same"]);
    }
    let one = matrix(&[vec![1.0, 2.0]]);
    says(
        separability_index(&one).unwrap_err(),
        &["2 points", "got 1"],
    );
    let line: Vec<Vec<f64>> = (0..9)
        .map(|i| vec![f64::from(i), 2.0 * f64::from(i)])
        .collect();
    says(
        irreducibility(&matrix(&line)).unwrap_err(),
        &["2 dimensions", "got 1"],
    );
    let other = matrix(&[vec![1.0, 2.0], vec![0.0, 1.0]]);
    for epsilon in [0.0, 1.0, f64::NAN] {
        says(mixture_index(&other, epsilon).unwrap_err(), &["epsilon = "]);
    }
}
