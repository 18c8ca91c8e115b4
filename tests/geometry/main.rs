//! Shapes of feature spaces: golden values of scikit-learn, plain loops, planted structure.

mod clusters;
mod concepts;
mod irreducible;

use std::fmt::Display;

use inscape::geometry::Matrix;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Reproducible draws.
pub struct Draws(ChaCha8Rng);

impl Draws {
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        self.0.random_range(low..high)
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.0.random_range(0..n)
    }

    pub fn normal(&mut self) -> f64 {
        let (u, v) = (self.uniform(0.0, 1.0), self.uniform(0.0, 1.0));
        (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }

    pub fn normals(&mut self, n: usize) -> Vec<f64> {
        (0..n).map(|_| self.normal()).collect()
    }

    pub fn unit(&mut self, d: usize) -> Vec<f64> {
        let row = self.normals(d);
        let norm = row.iter().map(|v| v * v).sum::<f64>().sqrt();
        row.iter().map(|v| v / norm).collect()
    }
}

pub fn matrix(rows: &[Vec<f64>]) -> Matrix {
    Matrix::new(rows.concat(), rows[0].len()).unwrap()
}

#[track_caller]
pub fn close(got: f64, want: f64, tolerance: f64) {
    assert!((got - want).abs() <= tolerance, "{got}, not {want}");
}

/// Requires a message to hold each of these words.
#[track_caller]
pub fn says(error: impl Display, words: &[&str]) {
    let message = error.to_string();
    for word in words {
        assert!(message.contains(word), "{message:?} does not say {word:?}");
    }
}

pub fn goldens() -> serde_json::Value {
    serde_json::from_str(include_str!("../data/geometry/goldens.json")).unwrap()
}

pub fn numbers(value: &serde_json::Value) -> Vec<f64> {
    let all = value.as_array().unwrap();
    all.iter().map(|v| v.as_f64().unwrap()).collect()
}

pub fn labels(value: &serde_json::Value) -> Vec<usize> {
    numbers(value).into_iter().map(|v| v as usize).collect()
}
