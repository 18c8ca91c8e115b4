//! Duong, Zhou, Nassar, Berman, Olieslagers & Williams 2023, "Representational Dissimilarity Metric
//! Spaces for Stochastic Neural Networks": networks that answer the same on average and differ in how
//! their answers vary.

use burn::tensor::{DType, Tensor, TensorData};
use inscape::Device;
use inscape::similarity::{
    Fit, Gaussians, Group, energy_shape_distance, stochastic_shape_distance,
};

use super::draws::Draws;
use crate::common::{Matrix, close, compare};

fn cube(values: Vec<f64>, shape: [usize; 3]) -> Tensor<3> {
    let data = TensorData::new(values, shape);
    Tensor::from_data(data, (Device::cpu().tensor(), DType::F64))
}

/// Means and covariances of the responses to `m` stimuli.
#[derive(Clone)]
struct Planted {
    means: Matrix,
    /// `[d, d]` each.
    noise: Vec<Matrix>,
}

impl Planted {
    fn random(m: usize, d: usize, seed: u64) -> Self {
        let noise = |i: usize| {
            let a = Matrix::random(d, d, seed * 1000 + i as u64 + 1);
            product(&a, &transposed(&a))
        };
        Self {
            means: Matrix::random(m, d, seed),
            noise: (0..m).map(noise).collect(),
        }
    }

    fn turned(&self, by: &Matrix) -> Self {
        let noise = |c: &Matrix| product(&transposed(by), &product(c, by));
        Self {
            means: product(&self.means, by),
            noise: self.noise.iter().map(noise).collect(),
        }
    }

    fn gaussians(&self) -> Gaussians {
        let (m, d) = (self.means.n, self.means.d);
        let noise = self.noise.iter().flat_map(|c| c.v.clone()).collect();
        Gaussians::new(&self.means.f64(), &cube(noise, [m, d, d])).unwrap()
    }
}

fn product(a: &Matrix, b: &Matrix) -> Matrix {
    Matrix::from_fn(a.n, b.d, |i, j| {
        (0..a.d).map(|k| a.at(i, k) * b.at(k, j)).sum()
    })
}

fn transposed(a: &Matrix) -> Matrix {
    Matrix::from_fn(a.d, a.n, |i, j| a.at(j, i))
}

fn rotation(d: usize, angle: f64) -> Matrix {
    Matrix::from_fn(d, d, |i, j| f64::from(u8::from(i == j))).rotated(angle)
}

fn apart(x: &Planted, y: &Planted, alpha: f64, starts: usize) -> f64 {
    let fit = Fit {
        starts,
        ..Fit::default()
    };
    stochastic_shape_distance(&x.gaussians(), &y.gaussians(), alpha, fit).unwrap()
}

#[test]
fn a_rotated_copy_is_at_distance_0() {
    let x = Planted::random(12, 4, 3);
    let y = x.turned(&rotation(4, 0.8));
    for alpha in [0.0, 0.5, 1.0, 2.0] {
        // Without the means to start from, the search has to find the rotation by itself.
        let d = apart(&x, &y, alpha, 4);
        println!("alpha {alpha}: a rotated copy at {d:.1e}");
        assert!(d < 1e-4, "{alpha}: {d}");
    }
    let mut draws = Draws::new(1);
    let samples = Matrix::from_fn(12 * 30, 4, |_, _| draws.normal());
    let cube = |m: &Matrix| cube(m.v.clone(), [12, 30, 4]);
    let d = energy_shape_distance(
        &cube(&samples),
        &cube(&samples.rotated(0.8)),
        Fit::default(),
    );
    // Each response stands beside its own copy, which the pairs within a side leave out.
    assert!(d.unwrap() < 0.1);
}

#[test]
fn it_is_a_metric_on_random_triples() {
    let mut tightest = f64::INFINITY;
    for seed in 0..100 {
        let x = Planted::random(4, 3, seed);
        // Half are on a path, where the inequality is tighter.
        let near = |a: &Planted, s: u64| {
            let b = Planted::random(4, 3, s);
            let mix = |a: &Matrix, b: &Matrix| {
                Matrix::from_fn(a.n, a.d, |i, j| a.at(i, j) + 0.3 * b.at(i, j))
            };
            match seed % 2 {
                0 => b,
                _ => Planted {
                    means: mix(&a.means, &b.means),
                    noise: a
                        .noise
                        .iter()
                        .zip(&b.noise)
                        .map(|(a, b)| mix(a, b))
                        .collect(),
                },
            }
        };
        let y = near(&x, seed + 1000);
        let z = near(&y, seed + 2000);
        for alpha in [0.5, 1.0] {
            let of = |a: &Planted, b: &Planted| apart(a, b, alpha, 12);
            let (xy, yz, xz) = (of(&x, &y), of(&y, &z), of(&x, &z));
            assert!(xz <= xy + yz + 1e-6, "{seed}, {alpha}: {xz} > {xy} + {yz}");
            tightest = tightest.min((xy + yz - xz) / xz);
            close(of(&y, &x), xy, 1e-4 * xy);
        }
    }
    println!("tightest of 200 triangles: {tightest:.3}");
}

/// Covariances that share their axes: the Bures distance is that of the standard deviations.
#[test]
fn commuting_covariances_have_the_closed_form() {
    let axes = rotation(3, 1.1);
    let of = |squares: [f64; 3]| {
        let scaled = Matrix::from_fn(3, 3, |i, j| axes.at(i, j) * squares[j]);
        Planted {
            means: Matrix::random(1, 3, 5),
            noise: vec![product(&scaled, &transposed(&axes))],
        }
    };
    let (x, y) = (of([4.0, 1.0, 0.25]), of([1.0, 9.0, 0.0]));
    let fit = Fit {
        group: Group::Identity,
        ..Fit::default()
    };
    for alpha in [0.0, 1.0] {
        let d = stochastic_shape_distance(&x.gaussians(), &y.gaussians(), alpha, fit).unwrap();
        close(d.powi(2), (2.0 - alpha) * (1.0 + 4.0 + 0.25), 1e-9);
    }
}

/// The paper's figure 1: with the covariances out of the sum it is the deterministic shape distance,
/// which sees nothing of noise that points elsewhere.
#[test]
fn noise_that_points_elsewhere_is_seen_by_its_angle() {
    let (m, d) = (10, 2);
    let means = Matrix::from_fn(m, d, |i, j| 3.0 * Matrix::random(m, d, 8).at(i, j));
    let along = |angle: f64| {
        let v = [angle.cos(), angle.sin()];
        let noise = Matrix::from_fn(d, d, |i, j| {
            1.5 * v[i] * v[j] + if i == j { 0.01 } else { 0.0 }
        });
        Planted {
            means: means.clone(),
            noise: vec![noise; m],
        }
    };
    let still = along(0.0);
    let mut last = -1.0;
    for degrees in [0, 15, 30, 45, 60, 75, 90] {
        let turned = along(f64::from(degrees).to_radians());
        let (fixed, stochastic) = (
            apart(&still, &turned, 2.0, 4),
            apart(&still, &turned, 1.0, 4),
        );
        println!("noise turned by {degrees}: means {fixed:.1e}, Gaussians {stochastic:.4}");
        assert!(fixed < 1e-6 && stochastic > last, "{degrees}");
        last = stochastic;
    }
    let other = Matrix::random(m, d, 9);
    let raw = compare("procrustes[raw,uncentred]", &means.f64(), &other.f64());
    let other = Planted {
        means: other,
        ..still.clone()
    };
    close(
        apart(&still, &other, 2.0, 4).powi(2),
        2.0 * raw / m as f64,
        1e-9,
    );
}
