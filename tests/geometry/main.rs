//! Shapes of feature spaces: golden values of scikit-learn, plain loops, planted structure.

mod clusters;
mod concepts;
#[path = "../shared/draws.rs"]
mod draws;
mod firing;
mod irreducible;

pub use draws::{Draws, says};
use inscape::geometry::Matrix;

pub fn matrix(rows: &[Vec<f64>]) -> Matrix {
    Matrix::new(rows.concat(), rows[0].len()).unwrap()
}

#[track_caller]
pub fn close(got: f64, want: f64, tolerance: f64) {
    assert!((got - want).abs() <= tolerance, "{got}, not {want}");
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
