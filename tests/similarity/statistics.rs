//! Numbers of one representation: golden differences and values, and what has none.

use burn::tensor::Tensor;
use inscape::Device;
use inscape::similarity::{Error, concentricity, magnitude, uniformity};

use crate::common::{Matrix, close, goldens, input};

/// Golden differences of the two sides. `hold` is of metrics; these are differences of one number a side.
fn differences(id: &str, value: impl Fn(&Tensor<2>) -> Result<f64, Error>) {
    // The metric named beside the id is not looked at.
    let goldens = goldens(&[(id, "rv2")]);
    assert_eq!(goldens.len(), 7);
    for g in goldens {
        let (x, y) = (input(&g.case, "X"), input(&g.case, "Y"));
        let apart = |make: fn(&Matrix) -> Tensor<2>| {
            (value(&make(&x)).unwrap() - value(&make(&y)).unwrap()).abs()
        };
        close(apart(Matrix::f64), g.value, 1e-8 * g.value + 1e-12);
        close(apart(Matrix::f32), g.value, g.atol_f32);
    }
}

#[test]
fn golden_differences_hold() {
    differences("magnitude_difference", magnitude);
    differences("concentricity_difference", concentricity);
    differences(
        "uniformity_difference[t=2,pairs=all n*n incl. diagonal,rows=l2-normalised]",
        |x| uniformity(x, 2.0),
    );
}

#[test]
fn units_and_invariances() {
    let x = Matrix::random(80, 6, 1).map(|v| v + 1.0);
    let far = x.map(|v| v * 2f64.powi(60));
    let here = magnitude(&x.f64()).unwrap();
    close(magnitude(&far.f32()).unwrap() / 2f64.powi(60), here, 1e-6);
    let rows = Matrix::from_fn(80, 6, |i, j| x.at(i, j) * (1.0 + i as f64));
    let even = |x: &Matrix| uniformity(&x.f64(), 2.0).unwrap();
    close(even(&rows), even(&x), 1e-12);
    close(even(&x.rotated(0.4)), even(&x), 1e-12);
    let centre = |x: &Matrix| concentricity(&x.f64()).unwrap();
    close(centre(&x.map(|v| 9.0 * v)), centre(&x), 1e-12);
    assert!((centre(&rows) - centre(&x)).abs() > 1e-6);
}

#[test]
fn what_has_no_value_says_why() {
    let none = Tensor::<2>::zeros([0, 3], Device::cpu().tensor());
    let mirrored = Matrix::from_fn(2, 3, |i, j| (1.0 - 2.0 * i as f64) * (j as f64 + 1.0));
    for said in [
        magnitude(&none),
        concentricity(&none),
        concentricity(&mirrored.f64()),
        uniformity(&none, 2.0),
        uniformity(&mirrored.f64(), 0.0),
        uniformity(&mirrored.f64(), f64::NAN),
    ] {
        assert!(matches!(said, Err(Error::Undefined { .. })), "{said:?}");
    }
}
