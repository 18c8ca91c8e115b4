//! Stochastic shape distances: golden values, closed forms, and what is no Gaussian.

use burn::tensor::{DType, Tensor, TensorData};
use inscape::Device;
use inscape::similarity::{
    Error, Fit, Gaussians, Group, Procrustes, Weights, energy_shape_distance, procrustes,
    stochastic_shape_distance,
};

use crate::common::{Matrix, array, close, golden};

pub fn cube(values: &[f64], shape: [usize; 3]) -> Tensor<3> {
    let data = TensorData::new(values.to_vec(), shape);
    Tensor::from_data(data, (Device::cpu().tensor(), DType::F64))
}

fn stored(name: &str) -> (Vec<usize>, Vec<f64>) {
    array("stochastic", name)
}

fn stored_cube(name: &str) -> Tensor<3> {
    let (shape, values) = stored(name);
    cube(&values, shape.try_into().expect("three axes"))
}

fn stored_gaussians(side: &str) -> Gaussians {
    let (shape, v) = stored(&format!("mean_{side}"));
    let means = Matrix {
        n: shape[0],
        d: shape[1],
        v,
    };
    Gaussians::new(&means.f64(), &stored_cube(&format!("cov_{side}"))).unwrap()
}

const GROUPS: [(&str, Group); 3] = [
    ("orth", Group::Orthogonal),
    ("perm", Group::Permutation),
    ("identity", Group::Identity),
];

/// The reference as it is: its weights, and one start.
fn theirs(group: Group) -> Fit {
    Fit {
        group,
        weights: Weights::Netrep,
        starts: 0,
        seed: 0,
    }
}

#[test]
fn goldens_of_gaussians_hold() {
    let (x, y) = (stored_gaussians("x"), stored_gaussians("y"));
    for (name, group) in GROUPS {
        for alpha in ["0.0", "0.5", "1.0", "2.0"] {
            let id = format!(
                "stochastic/shape_stochastic_gaussian[alpha={alpha},group={name},init=means]"
            );
            let expected = golden(&id);
            let apart =
                |fit| stochastic_shape_distance(&x, &y, alpha.parse().unwrap(), fit).unwrap();
            let found = apart(theirs(group));
            let ours = apart(Fit {
                group,
                ..Fit::default()
            });
            println!(
                "{name} {alpha}: {found} off by {:.1e}, ours {ours}",
                found - expected
            );
            close(found, expected, 1e-6 * expected);
            assert!(ours <= found * (1.0 + 1e-9), "{ours} > {found}");
        }
    }
}

#[test]
fn goldens_of_energy_hold() {
    let (x, y) = (stored_cube("samples_x"), stored_cube("samples_y"));
    for (name, group) in GROUPS {
        let expected = golden(&format!("stochastic/shape_stochastic_energy[group={name}]"));
        let found = energy_shape_distance(&x, &y, theirs(group)).unwrap();
        let ours = energy_shape_distance(
            &x,
            &y,
            Fit {
                group,
                ..Fit::default()
            },
        )
        .unwrap();
        println!(
            "{name}: {found} off by {:.1e}, ours {ours}",
            found - expected
        );
        // The reference stops when a step gains less than 1e-6.
        close(found, expected, 2e-4 * expected);
        assert!(found <= expected + 1e-6 && ours <= found + 1e-9);
    }
}

/// Where only the means count, it is the Procrustes distance of the means.
#[test]
fn alpha_2_is_procrustes_of_the_means() {
    let side = |name: &str| {
        let (shape, v) = stored(name);
        Matrix {
            n: shape[0],
            d: shape[1],
            v,
        }
        .f64()
    };
    let raw = procrustes_uncentred(&side("mean_x"), &side("mean_y"));
    let (x, y) = (stored_gaussians("x"), stored_gaussians("y"));
    let found = stochastic_shape_distance(&x, &y, 2.0, Fit::default()).unwrap();
    close(found.powi(2), 2.0 * raw / 20.0, 1e-10);
    assert!(
        (procrustes(&side("mean_x"), &side("mean_y"), Procrustes::Raw).unwrap() - raw).abs() > 1e-3
    );
}

fn procrustes_uncentred(x: &Tensor<2>, y: &Tensor<2>) -> f64 {
    crate::common::compare("procrustes[raw,uncentred]", x, y)
}

#[test]
fn samples_give_their_means_and_covariances() {
    let samples = stored_cube("samples_x");
    let [m, repeats, d] = samples.dims();
    let (_, v) = stored("samples_x");
    let at = |i: usize, r: usize, j: usize| v[(i * repeats + r) * d + j];
    let mean = |i: usize, j: usize| (0..repeats).map(|r| at(i, r, j)).sum::<f64>() / repeats as f64;
    let covariance = |i: usize, j: usize, k: usize| {
        let term = |r: usize| (at(i, r, j) - mean(i, j)) * (at(i, r, k) - mean(i, k));
        (0..repeats).map(term).sum::<f64>() / (repeats - 1) as f64
    };
    let flat = (0..m * d * d).map(|at| covariance(at / d / d, at / d % d, at % d));
    let means = Matrix::from_fn(m, d, mean).f64();
    let plain = Gaussians::new(&means, &cube(&flat.collect::<Vec<_>>(), [m, d, d])).unwrap();
    let found = Gaussians::of_samples(&samples).unwrap();
    let apart = stochastic_shape_distance(
        &found,
        &plain,
        1.0,
        Fit {
            group: Group::Identity,
            ..Fit::default()
        },
    );
    // Two roots of one covariance of few samples differ by the root of rounding.
    assert!(apart.unwrap() < 1e-6);
}

#[test]
fn what_is_no_gaussian_or_does_not_pair_is_refused() {
    let means = Matrix::random(2, 2, 1).f64();
    let refused = |values: [f64; 4]| {
        let twice = [values, values].concat();
        Gaussians::new(&means, &cube(&twice, [2, 2, 2]))
            .unwrap_err()
            .to_string()
    };
    assert!(refused([1.0, 0.5, 0.0, 1.0]).contains("symmetric"));
    assert!(refused([1.0, 2.0, 2.0, 1.0]).contains("eigenvalue below 0"));
    assert!(refused([1.0, f64::NAN, 0.0, 1.0]).contains("row 0, column 1 is NaN"));
    let one = |m: usize| {
        let unit: Vec<f64> = (0..m).flat_map(|_| [1.0, 0.0, 0.0, 1.0]).collect();
        Gaussians::new(&Matrix::random(m, 2, 1).f64(), &cube(&unit, [m, 2, 2])).unwrap()
    };
    let error = stochastic_shape_distance(&one(2), &one(3), 1.0, Fit::default()).unwrap_err();
    assert!(matches!(error, Error::RowsDiffer { .. }), "{error}");
    let error = stochastic_shape_distance(&one(2), &one(2), 2.1, Fit::default()).unwrap_err();
    assert!(error.to_string().contains("alpha"), "{error}");
    let single = cube(&[1.0, 2.0], [1, 1, 2]);
    let error = energy_shape_distance(&single, &single, Fit::default()).unwrap_err();
    assert!(
        error.to_string().contains("fewer than 2 responses"),
        "{error}"
    );
}
