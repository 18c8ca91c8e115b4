//! Correlations gathered batch by batch.

use inscape::Device;
use inscape::similarity::{
    Correlations, Error, UnitCorrelations, excess_correlation, unit_correlations,
    universal_families,
};

use crate::common::{Matrix, close};

fn part(m: &Matrix, from: usize, to: usize) -> Matrix {
    Matrix::from_fn(to - from, m.d, |i, j| m.at(from + i, j))
}

/// Pushes the rows in batches of these sizes, over and over.
fn streamed(x: &Matrix, y: &Matrix, sizes: &[usize], wide: bool) -> Correlations {
    let mut all = Correlations::new(x.d, y.d, &Device::cpu()).with_rotations();
    let (mut at, mut batch) = (0, 0);
    while at < x.n {
        let to = (at + sizes[batch % sizes.len()]).min(x.n);
        let [x, y] = [part(x, at, to), part(y, at, to)];
        match wide {
            true => all.push(&x.f64(), &y.f64()).unwrap(),
            false => all.push(&x.f32(), &y.f32()).unwrap(),
        }
        (at, batch) = (to, batch + 1);
    }
    all
}

fn worst(a: &UnitCorrelations, b: &UnitCorrelations) -> f64 {
    assert_eq!((a.rows, a.columns), (b.rows, b.columns));
    let apart = a.values.iter().zip(&b.values).map(|(a, b)| (a - b).abs());
    apart.fold(0.0, f64::max)
}

/// Two sides with something in common, ReLU-like units and a constant one among them.
fn sides(n: usize, dx: usize, dy: usize) -> [Matrix; 2] {
    let (x, y) = (Matrix::random(n, dx, 1), Matrix::random(n, dy, 2));
    let y = Matrix::from_fn(n, dy, |i, j| match j {
        0 => 3.7,
        1 => (x.at(i, 1) - 1.0).max(0.0),
        _ => y.at(i, j) + 0.5 * x.at(i, j % dx),
    });
    [x, y]
}

#[test]
fn batches_give_the_correlations_of_the_whole() {
    let [x, y] = sides(9000, 31, 23);
    let whole = unit_correlations(&x.f64(), &y.f64()).unwrap();
    for sizes in [&[1, 500][..], &[9000], &[64, 1, 4096, 333]] {
        let single = worst(&streamed(&x, &y, sizes, false).read().unwrap(), &whole);
        let double = worst(&streamed(&x, &y, sizes, true).read().unwrap(), &whole);
        println!("batches {sizes:?}: off by {single:.1e} in f32, {double:.1e} in f64");
        assert!(single < 5e-6 && double < 1e-12, "{single} {double}");
    }
    assert!((0..31).all(|i| whole.at(i, 0) == 0.0));
}

/// Ten thousand on every unit, and batches whose means wander.
#[test]
fn offsets_and_drift_do_not_matter() {
    let exact = |m: &Matrix| m.map(|v| (v * 512.0).round() / 512.0);
    let [x, y] = sides(4000, 12, 10).map(|m| exact(&m));
    let here = unit_correlations(&x.f64(), &y.f64()).unwrap();
    let far = [x.map(|v| v + 10_000.0), y.map(|v| v - 10_000.0)];
    let moved = streamed(&far[0], &far[1], &[100], false).read().unwrap();
    assert!(worst(&moved, &here) < 2e-6, "{}", worst(&moved, &here));
    let drift = |m: &Matrix| Matrix::from_fn(m.n, m.d, |i, j| m.at(i, j) + (i / 100) as f64);
    let whole = unit_correlations(&drift(&x).f64(), &drift(&y).f64()).unwrap();
    let moved = streamed(&drift(&x), &drift(&y), &[100], false)
        .read()
        .unwrap();
    assert!(worst(&moved, &whole) < 1e-5, "{}", worst(&moved, &whole));
}

/// A rotation from the sums alone: with two right units it is one angle, and the correlations are those
/// of the rotated columns; a rotation keeps the multiple correlation of each left unit.
#[test]
fn rotated_correlations_are_those_of_rotated_units() {
    let [x, y] = sides(500, 6, 5);
    let y = Matrix::from_fn(500, 2, |i, j| y.at(i, j + 1) * (1.0 + 3.0 * j as f64) + 2.0);
    let all = streamed(&x, &y, &[77], true);
    let found = all.rotated(9).unwrap();
    assert_eq!(found, all.rotated(9).unwrap());
    assert_ne!(found, all.rotated(10).unwrap());
    // The angle from the first left unit, then all others with it.
    let turned = |angle: f64, mirror: f64| {
        let (c, s) = (angle.cos(), angle.sin());
        Matrix::from_fn(500, 2, |i, j| match j {
            0 => c * y.at(i, 0) + s * y.at(i, 1),
            _ => mirror * (c * y.at(i, 1) - s * y.at(i, 0)),
        })
    };
    let off = |angle: f64, mirror: f64| {
        let there = unit_correlations(&x.f64(), &turned(angle, mirror).f64()).unwrap();
        worst(&found, &there)
    };
    let mut best = (f64::INFINITY, 0.0, 1.0);
    for step in 0..720 {
        for mirror in [1.0, -1.0] {
            let angle = step as f64 * std::f64::consts::PI / 360.0;
            best = if off(angle, mirror) < best.0 {
                (off(angle, mirror), angle, mirror)
            } else {
                best
            };
        }
    }
    let mut width = 0.01;
    while width > 1e-12 {
        for angle in [best.1 - width, best.1 + width] {
            if off(angle, best.2) < best.0 {
                best = (off(angle, best.2), angle, best.2);
            }
        }
        width *= 0.8;
    }
    assert!(best.0 < 1e-9, "{best:?}");
}

#[test]
fn bad_batches_are_named() {
    let cpu = Device::cpu();
    let [x, y] = sides(20, 4, 3);
    let mut all = Correlations::new(4, 3, &cpu);
    assert!(all.read().unwrap_err().to_string().contains("equal"));
    all.push(&x.f32(), &y.f32()).unwrap();
    let mut bad = y.clone();
    bad.v[11 * 3 + 2] = f64::INFINITY;
    let error = all
        .clone()
        .push(&x.f32(), &bad.f32())
        .unwrap_err()
        .to_string();
    assert_eq!(error, "right representation: row 11, column 2 is inf");
    let error = all.push(&part(&x, 0, 19).f32(), &y.f32()).unwrap_err();
    assert!(matches!(error, Error::RowsDiffer { .. }), "{error}");
    let mut huge = all.clone();
    huge.push(&x.map(|v| v * 1e30).f32(), &y.f32()).unwrap();
    let error = huge.read().unwrap_err().to_string();
    assert!(
        error.contains("left") && error.contains("too large"),
        "{error}"
    );
    assert_eq!(all.rows(), 20);
}

#[test]
#[should_panic(expected = "are no [b, 4] and [b, 3]")]
fn another_width_is_a_mistake() {
    let [x, y] = sides(20, 4, 4);
    let _ = Correlations::new(4, 3, &Device::cpu()).push(&x.f32(), &y.f32());
}

#[test]
fn excess_is_the_mean_difference_of_best_matches() {
    let c = |values: &[f64]| UnitCorrelations {
        rows: 2,
        columns: 2,
        values: values.to_vec(),
    };
    let found = [c(&[0.9, 0.1, 0.2, 0.4]), c(&[0.7, 0.3, -0.5, -0.6])];
    let rotated = [c(&[0.5, 0.1, 0.3, 0.4]), c(&[0.1, 0.0, 0.1, 0.2])];
    let excess = excess_correlation(&found, &rotated);
    close(excess[0], (0.4 + 0.6) / 2.0, 1e-12);
    close(excess[1], (0.0 - 0.7) / 2.0, 1e-12);
    let pairs = [
        c(&[0.9, 0.1, 0.2, 0.4]),
        c(&[0.1, 0.8, 0.7, 0.2]),
        c(&[0.0, 0.6, 0.5, 0.0]),
    ];
    let all = [vec![0.6, 0.6], vec![0.6, 0.6], vec![0.6, 0.4]];
    let found = universal_families(&pairs, &all, 0.5);
    assert_eq!(found.len(), 1); // 0, 0, 1; the unit of the other is not universal in the third
    assert_eq!(found[0].units, [1, 1, 0]);
    close(found[0].r, 0.4, 1e-12);
    assert_eq!(universal_families(&pairs, &all, 0.3).len(), 2);
}

/// Sums on the device give what they give here.
#[test]
#[ignore = "needs a wgpu adapter"]
fn wgpu_gathers_the_same() {
    let [x, y] = sides(3000, 70, 65);
    let gpu = Device::from_burn(crate::common::gpu());
    let mut all = Correlations::new(70, 65, &gpu).with_rotations();
    for start in (0..3000).step_by(700) {
        let [x, y] = [&x, &y].map(|m| part(m, start, (start + 700).min(3000)));
        all.push(&x.f32_on(gpu.tensor()), &y.f32()).unwrap();
    }
    let whole = streamed(&x, &y, &[3000], true);
    let found = worst(&all.read().unwrap(), &whole.read().unwrap());
    let rotated = worst(&all.rotated(3).unwrap(), &whole.rotated(3).unwrap());
    println!("off by {found:.1e}, rotated {rotated:.1e}");
    assert!(found < 2e-6 && rotated < 2e-6);
}
