//! Metrics of predictions and InPCA: golden values, values by hand, invariances, and bad input.

use burn::tensor::{DType, Tensor, TensorData};
use inscape::Device;
use inscape::similarity::{Error, InPca, Metric, disagreement, inpca, jsd, norm_difference};

use crate::common::{Matrix, close, compare, golden, input, metric};

const ALL: [&str; 3] = ["jsd", "disagreement", "norm_difference"];

fn logits() -> (Matrix, Matrix) {
    (input("misc", "logits_a"), input("misc", "logits_b"))
}

#[test]
fn goldens_hold() {
    let (a, b) = logits();
    let want = golden("misc/jensen_shannon_divergence[base=2]");
    for (a, b) in [(a.f64(), b.f64()), (a.f32(), b.f32())] {
        close(jsd(&a, &b).unwrap(), want, 1e-8 * want);
        close(
            disagreement(&a, &b).unwrap(),
            golden("misc/disagreement"),
            1e-12,
        );
    }
}

fn softmax(row: &[f64]) -> Vec<f64> {
    let total: f64 = row.iter().map(|v| v.exp()).sum();
    row.iter().map(|v| v.exp() / total).collect()
}

#[test]
fn values_are_those_of_plain_loops() {
    let (a, b) = logits();
    let rows: Vec<(Vec<f64>, Vec<f64>)> = (0..a.n)
        .map(|i| (softmax(a.row(i)), softmax(b.row(i))))
        .collect();
    let norm = |(p, q): &(Vec<f64>, Vec<f64>)| {
        p.iter()
            .zip(q)
            .map(|(p, q)| (p - q).powi(2))
            .sum::<f64>()
            .sqrt()
    };
    let want = rows.iter().map(norm).sum::<f64>() / a.n as f64;
    close(norm_difference(&a.f64(), &b.f64()).unwrap(), want, 1e-12);
    let entropy = |p: &[f64]| -p.iter().map(|p| p * p.log2()).sum::<f64>();
    let divergence = |(p, q): &(Vec<f64>, Vec<f64>)| {
        let mean: Vec<f64> = p.iter().zip(q).map(|(p, q)| (p + q) / 2.0).collect();
        entropy(&mean) - (entropy(p) + entropy(q)) / 2.0
    };
    let want = rows.iter().map(divergence).sum::<f64>() / a.n as f64;
    close(jsd(&a.f64(), &b.f64()).unwrap(), want, 1e-12);
}

#[test]
fn extremes_are_reached_and_not_passed() {
    let sure = |class: usize| {
        Matrix::from_fn(3, 4, |_, j| if j == class { 2000.0 } else { -2000.0 }).f64()
    };
    close(jsd(&sure(0), &sure(1)).unwrap(), 1.0, 1e-15);
    close(
        norm_difference(&sure(0), &sure(1)).unwrap(),
        2f64.sqrt(),
        1e-15,
    );
    close(disagreement(&sure(0), &sure(1)).unwrap(), 1.0, 0.0);
    // Nearly equal: half the Fisher information, not the rounding of a difference of logarithms.
    let (flat, near) = (
        Matrix::from_fn(1, 2, |_, _| 0.0),
        Matrix::from_fn(1, 2, |_, j| 4e-8 * j as f64),
    );
    let want = 1e-16 / 2.0 / std::f64::consts::LN_2;
    close(jsd(&flat.f64(), &near.f64()).unwrap(), want, 1e-6 * want);
    // Of equal logits the first class.
    let tie = Matrix::from_fn(1, 3, |_, j| if j == 0 { 0.0 } else { 1.0 });
    let second = Matrix::from_fn(1, 3, |_, j| if j == 1 { 1.0 } else { 0.0 });
    close(disagreement(&tie.f64(), &second.f64()).unwrap(), 0.0, 0.0);
}

#[test]
fn what_is_seen_and_what_is_not() {
    let (a, b) = logits();
    let by_row = |f: &dyn Fn(usize, f64) -> f64| Matrix::from_fn(b.n, b.d, |i, j| f(i, b.at(i, j)));
    let row_shift = by_row(&|i, v| v + 50.0 * i as f64);
    let row_scale = by_row(&|i, v| v * (1.0 + i as f64));
    let column_shift = Matrix::from_fn(b.n, b.d, |i, j| b.at(i, j) + j as f64);
    for name in ALL {
        let value = compare(name, &a.f64(), &b.f64());
        close(compare(name, &b.f64(), &a.f64()), value, 1e-15);
        close(compare(name, &a.f64(), &a.f64()), 0.0, 0.0);
        close(compare(name, &a.f64(), &row_shift.f64()), value, 1e-9);
        let off = |m: &Matrix| (compare(name, &a.f64(), &m.f64()) - value).abs();
        assert!(off(&column_shift) > 1e-3, "{name}");
        match name {
            "disagreement" => assert_eq!(off(&row_scale), 0.0),
            _ => assert!(off(&row_scale) > 1e-3),
        }
        // Logits are never rescaled, however small or large.
        for scale in [1e-12, 1e12] {
            let scaled = compare(
                name,
                &a.map(|v| v * scale).f64(),
                &b.map(|v| v * scale).f64(),
            );
            match (name, scale < 1.0) {
                ("disagreement", _) => close(scaled, value, 0.0),
                (_, true) => assert!(scaled < 1e-11, "{name}: {scaled}"),
                (_, false) => assert!(scaled >= 0.5, "{name}: {scaled}"),
            }
        }
    }
}

#[test]
fn bad_input_is_named() {
    let (a, b) = logits();
    let narrow = Matrix::random(a.n, 9, 1);
    let mut bad = b.clone();
    bad.v[23] = f64::NEG_INFINITY;
    for name in ALL {
        assert_eq!(metric(name).to_string(), name);
        assert!(format!("{name}[k=1]").parse::<Metric>().is_err());
        let error = metric(name).compare(&a.f64(), &narrow.f64()).unwrap_err();
        assert!(matches!(
            error,
            Error::ColumnsDiffer {
                left: [100, 10],
                right: [100, 9]
            }
        ));
        let error = metric(name)
            .compare(&a.f64(), &bad.f64())
            .unwrap_err()
            .to_string();
        assert_eq!(error, "right representation: row 2, column 3 is -inf");
    }
}

// ---- InPCA

/// `[networks, n, classes]`
fn stack(networks: &[Vec<Vec<f64>>]) -> Tensor<3> {
    let shape = [networks.len(), networks[0].len(), networks[0][0].len()];
    let values: Vec<f64> = networks.iter().flatten().flatten().copied().collect();
    Tensor::from_data(
        TensorData::new(values, shape),
        (Device::cpu().tensor(), DType::F64),
    )
}

fn distance(a: &[Vec<f64>], b: &[Vec<f64>]) -> f64 {
    let one = |(p, q): (&Vec<f64>, &Vec<f64>)| {
        -p.iter()
            .zip(q)
            .map(|(p, q)| (p * q).sqrt())
            .sum::<f64>()
            .ln()
    };
    a.iter().zip(b).map(one).sum::<f64>() / a.len() as f64
}

/// All axes together, with their signs, give every distance back.
fn rebuilds(found: &InPca, networks: &[Vec<Vec<f64>>]) {
    let m = networks.len();
    assert_eq!((found.eigenvalues.len(), found.coordinates.len()), (m, m));
    assert!(found.eigenvalues.is_sorted_by(|a, b| a.abs() >= b.abs()));
    for i in 0..m {
        for j in 0..m {
            close(
                found.squared_distance(i, j, m),
                distance(&networks[i], &networks[j]),
                1e-10,
            );
        }
    }
}

#[test]
fn two_networks_lie_half_their_distance_from_the_middle() {
    let networks = [
        vec![vec![0.5, 0.5], vec![0.2, 0.8]],
        vec![vec![0.9, 0.1], vec![0.3, 0.7]],
    ];
    let found = inpca(&stack(&networks)).unwrap();
    let d = distance(&networks[0], &networks[1]);
    close(found.eigenvalues[0], d / 2.0, 1e-14); // two coordinates of ±√d / 2
    close(found.eigenvalues[1], 0.0, 1e-14);
    close(found.coordinates[0][0].abs(), d.sqrt() / 2.0, 1e-12);
    close(found.coordinates[0][0], -found.coordinates[1][0], 1e-12);
    close(found.explained(1), 1.0, 1e-12);
    rebuilds(&found, &networks);
}

/// The coin toss of Quinn et al. 2019: with `√p = cos φ` the distance is `-log cos(φ - φ')`. The first
/// axis follows the coin; the second is imaginary, since the distance grows faster than any that is
/// Euclidean towards coins that cannot be told apart less.
#[test]
fn coins_lie_on_a_curve_that_bends_into_an_imaginary_axis() {
    let m = 41;
    let angle = |i: usize| 0.02 + (std::f64::consts::FRAC_PI_2 - 0.04) * i as f64 / (m - 1) as f64;
    let coin = |i: usize| vec![vec![angle(i).cos().powi(2), angle(i).sin().powi(2)]];
    let coins: Vec<Vec<Vec<f64>>> = (0..m).map(coin).collect();
    let found = inpca(&stack(&coins)).unwrap();
    rebuilds(&found, &coins);
    for i in 0..m {
        close(
            found.squared_distance(0, i, m),
            -(angle(i) - angle(0)).cos().ln(),
            1e-10,
        );
    }
    assert!(found.eigenvalues[0] > 0.0 && found.eigenvalues[1] < 0.0);
    let along: Vec<f64> = found.coordinates.iter().map(|c| c[0]).collect();
    assert!(along.is_sorted() || along.is_sorted_by(|a, b| a >= b));
    // The imaginary axis is even about the fair coin.
    for i in 0..m {
        close(
            found.coordinates[i][1],
            found.coordinates[m - 1 - i][1],
            1e-8,
        );
    }
    println!(
        "coins: {:?}, explained {:?}",
        &found.eigenvalues[..4],
        [1, 2, 3].map(|a| found.explained(a))
    );
    assert!(found.explained(2) > 0.9);
}

#[test]
fn inpca_says_what_it_cannot_take() {
    let undefined = |networks: &[Vec<Vec<f64>>], why: &str| {
        let error = inpca(&stack(networks)).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    };
    let fair = vec![vec![0.5, 0.5]];
    undefined(std::slice::from_ref(&fair), "two networks");
    undefined(&[fair.clone(), vec![vec![0.5, 0.6]]], "not of sum 1");
    undefined(&[fair.clone(), vec![vec![-0.5, 1.5]]], "below 0");
    undefined(&[vec![vec![0.0, 1.0]], vec![vec![1.0, 0.0]]], "infinite");
    let error = inpca(&stack(&[fair.clone(), vec![vec![0.5, f64::NAN]]])).unwrap_err();
    assert!(matches!(
        error,
        Error::NotFinite {
            row: 1,
            column: 1,
            ..
        }
    ));
    // Equal networks: no distance at all.
    let same = inpca(&stack(&[fair.clone(), fair.clone(), fair])).unwrap();
    assert!(same.eigenvalues.iter().all(|v| v.abs() < 1e-14));
    assert!(same.coordinates.iter().flatten().all(|c| c.is_finite()));
}

/// Logits so far apart that the lesser probability vanishes beside the larger.
#[test]
fn certain_and_opposed_predictions_are_one_bit_apart() {
    let logits = |a: f64, b: f64| Matrix::from_fn(3, 2, |_, j| if j == 0 { a } else { b }).f64();
    for far in [40.0, 100.0, 700.0, 1e4] {
        close(
            jsd(&logits(far, 0.0), &logits(0.0, far)).unwrap(),
            1.0,
            1e-12,
        );
    }
}
