//! Canonical correlations and GULP against golden values, plain bases and their identities.

use inscape::similarity::{
    Error, Metric, Side, Summary, cca, cca_correlations, gulp, linear_r2, matrix, null, pwcca,
    svcca,
};

use crate::common::{Golden, Matrix, array, close, compare, golden, goldens, hold, input, metric};
use crate::{centred, dot, singular};

const CASES: [&str; 7] = ["main", "rot", "indep", "rank", "wide", "const", "dup"];

const GOLDENS: [(&str, &str); 12] = [
    ("cca_mean[over=min(rank),rtol=1e-06]", "cca[mean]"),
    ("cca_mean[over=min(D),rtol=1e-06]", "cca[min_width]"),
    ("cca_r2[over=min(D),rtol=1e-06]", "cca[r2]"),
    ("svcca[variance=0.99,mean=plain]", "svcca[variance=0.99]"),
    (
        "svcca[variance=0.99,mean=first 98% of summed rho (google/svcca)]",
        "svcca[variance=0.99,mean=leading]",
    ),
    ("pwcca[weights_from=x]", "pwcca[from=x]"),
    ("pwcca[weights_from=y]", "pwcca[from=y]"),
    ("gulp_sq[lambda=0.0]", "gulp[lambda=0]"),
    ("gulp_sq[lambda=0.01]", "gulp[lambda=0.01]"),
    ("gulp_sq[lambda=0.1]", "gulp[lambda=0.1]"),
    ("gulp_sq[lambda=1.0]", "gulp[lambda=1]"),
    ("gulp_sq[lambda=10.0]", "gulp[lambda=10]"),
];

/// A relative 1e-9; where the distance is 0, that of the numbers it is a difference of (at most 2 × 64).
fn tolerance(g: &Golden) -> f64 {
    let zero = g.metric.starts_with("gulp") && g.value.abs() < 1e-9;
    if zero { 1e-11 } else { 1e-9 * g.value.abs() }
}

#[test]
fn goldens_hold() {
    let goldens = goldens(&GOLDENS);
    assert_eq!(goldens.len(), 5 * 7 + 2 * 6 + 5 * 7);
    hold(&goldens, tolerance);
    let off = |g: &Golden| {
        let (x, y) = (input(&g.case, "X").f64(), input(&g.case, "Y").f64());
        (compare(&g.metric, &x, &y) - g.value).abs() / g.value.abs().max(1e-2)
    };
    println!(
        "worst, relative: {:.1e}",
        goldens.iter().map(off).fold(0.0, f64::max)
    );
}

#[test]
fn correlations_are_the_golden_ones() {
    for case in CASES {
        let (x, y) = (input(case, "X"), input(case, "Y"));
        let (shape, expected) = array("expected", &format!("{case}/cca_correlations"));
        for (found, tolerance) in [
            (cca_correlations(&x.f64(), &y.f64()), 1e-9),
            (cca_correlations(&x.f32(), &y.f32()), 1e-5),
        ] {
            let found = found.unwrap();
            assert_eq!(found.len(), shape[0], "{case}");
            for (a, b) in found.iter().zip(&expected) {
                close(*a, *b, tolerance);
            }
        }
    }
}

/// Another road to the same numbers: bases by plane rotations, singular values of their product.
fn plain_correlations(x: &Matrix, y: &Matrix) -> Vec<f64> {
    let basis = |m: &Matrix| {
        let all = singular(&centred(m));
        let largest = all[0].0;
        let kept = all.into_iter().filter(|(s, _)| *s > 1e-6 * largest);
        kept.map(|(_, u)| u).collect::<Vec<_>>()
    };
    let (a, b) = (basis(x), basis(y));
    let product = Matrix::from_fn(a.len(), b.len(), |i, j| dot(&a[i], &b[j]));
    let rho = singular(&product).into_iter().map(|(rho, _)| rho);
    rho.take(a.len().min(b.len())).collect()
}

#[test]
fn every_road_through_the_decompositions_gives_the_same_correlations() {
    // Wider than 128 on both sides, one side, neither; more rows than columns and fewer.
    for (n, dx, dy, tolerance) in [
        (400, 140, 131, 1e-10),
        (400, 140, 9, 1e-10),
        (60, 20, 30, 1e-12),
        (150, 200, 7, 1e-10),
        (20, 30, 40, 1e-12),
    ] {
        let x = Matrix::random(n, dx, 1);
        let noise = Matrix::random(n, dy, 2);
        let y = Matrix::from_fn(n, dy, |i, j| noise.at(i, j) + x.at(i, j % dx));
        let found = cca_correlations(&x.f64(), &y.f64()).unwrap();
        let expected = plain_correlations(&x, &y);
        assert_eq!(found.len(), expected.len());
        for (a, b) in found.iter().zip(&expected) {
            close(*a, *b, tolerance);
        }
    }
}

/// Fewer distinct directions than columns, of 150 columns: most correlations do not exist, some are 0.
#[test]
fn rank_deficient_and_wide_enough_to_be_squared() {
    let (low, other) = (Matrix::random(300, 6, 3), Matrix::random(300, 160, 4));
    let map = Matrix::random(6, 150, 5);
    let x = Matrix::from_fn(300, 150, |i, j| {
        (0..6).map(|k| low.at(i, k) * map.at(k, j)).sum()
    });
    let found = cca_correlations(&x.f64(), &other.f64()).unwrap();
    let expected = plain_correlations(&low, &other);
    assert_eq!(found.len(), 6);
    for (a, b) in found.iter().zip(&expected) {
        close(*a, *b, 1e-9);
    }
}

#[test]
fn identities() {
    for case in CASES {
        let (x, y) = (input(case, "X"), input(case, "Y"));
        let rho = cca_correlations(&x.f64(), &y.f64()).unwrap();
        let squares: f64 = rho.iter().map(|r| r * r).sum();
        let narrower = x.d.min(y.d) as f64;
        close(
            cca(&x.f64(), &y.f64(), Summary::R2).unwrap(),
            squares / narrower,
            1e-12,
        );
        let ranks = [&x, &y].map(|m| cca_correlations(&m.f64(), &m.f64()).unwrap().len() as f64);
        let zero = gulp(&x.f64(), &y.f64(), 0.0).unwrap();
        close(zero, (ranks[0] + ranks[1] - 2.0 * squares).max(0.0), 1e-10);
    }
}

#[test]
fn weights_that_are_all_equal_give_the_mean() {
    // Columns that are orthogonal and equally long: each variate has the same square in common with them,
    // and one column alone has one weight.
    let (x, y) = (Matrix::random(50, 1, 7), Matrix::random(50, 4, 8));
    let one = compare("cca[mean]", &x.f64(), &y.f64());
    for from in [Side::X, Side::Y] {
        close(pwcca(&x.f64(), &y.f64(), from).unwrap(), one, 1e-12);
    }
    // The two sides exchange their parts.
    let x = Matrix::random(50, 6, 9);
    let there = pwcca(&x.f64(), &y.f64(), Side::Y).unwrap();
    close(pwcca(&y.f64(), &x.f64(), Side::X).unwrap(), there, 1e-12);
    assert!((pwcca(&x.f64(), &y.f64(), Side::X).unwrap() - there).abs() > 1e-4);
}

/// Where all correlations but some tie, the weights are a matter of rounding, but stay in their bounds.
#[test]
fn pwcca_of_shared_subspaces_lies_between_its_correlations() {
    let (x, y) = (input("rank", "X"), input("rank", "Y"));
    let rho = cca_correlations(&x.f64(), &y.f64()).unwrap();
    assert!(
        rho[2] > 1.0 - 1e-9 && rho[3] < 0.9,
        "three that tie: {rho:?}"
    );
    for from in [Side::X, Side::Y] {
        let value = pwcca(&x.f64(), &y.f64(), from).unwrap();
        println!("{from}: {value}");
        assert!(value > rho[5] && value < 1.0);
    }
}

/// A direction is kept whole or not at all, and `leading` counts correlations, not directions.
#[test]
fn svcca_of_all_variance_is_cca() {
    let (x, y) = (input("main", "X"), input("main", "Y"));
    let by = |name: &str| compare(name, &x.f64(), &y.f64());
    close(by("svcca[variance=1]"), by("cca[mean]"), 1e-14);
    let rho = cca_correlations(&x.f64(), &y.f64()).unwrap();
    let (mut held, sum) = (0.0, rho.iter().sum::<f64>());
    let count = rho
        .iter()
        .take_while(|r| (held < 0.98 * sum, held += **r).0)
        .count();
    let leading = rho[..count].iter().sum::<f64>() / count as f64;
    close(by("svcca[variance=1,mean=leading]"), leading, 1e-14);
}

#[test]
fn more_columns_than_rows_say_nothing() {
    let (x, y) = (Matrix::random(40, 50, 1), Matrix::random(40, 45, 2));
    for name in [
        "cca[mean]",
        "pwcca[from=x]",
        "linear_r2",
        "svcca[variance=1]",
    ] {
        close(compare(name, &x.f32(), &y.f32()), 1.0, 1e-9);
    }
    let rho = cca_correlations(&x.f32(), &y.f32()).unwrap();
    assert_eq!(rho.len(), 39);
    // A shuffle of the rows says so.
    let shuffled = null(
        &x.f32(),
        &y.f32(),
        metric("cca"),
        inscape::similarity::Baseline::Rows,
        9,
        0,
        |_, _| (),
    );
    close(shuffled.unwrap().mean, 1.0, 1e-9);
}

/// Claims of the facts that the defaults do not show.
#[test]
fn all_directions_are_blind_to_every_invertible_map() {
    let (x, y) = (Matrix::random(120, 6, 1), Matrix::random(120, 5, 2));
    let y = Matrix::from_fn(120, 5, |i, j| y.at(i, j) + x.at(i, j));
    let map = Matrix::random(6, 6, 3);
    let mapped = Matrix::from_fn(120, 6, |i, j| {
        (0..6).map(|k| x.at(i, k) * map.at(k, j)).sum::<f64>() + j as f64
    });
    for name in [
        "cca[min_width]",
        "cca[r2]",
        "svcca[variance=1]",
        "gulp[lambda=0]",
        "pwcca[from=y]",
    ] {
        let before = compare(name, &x.f64(), &y.f64());
        close(compare(name, &mapped.f64(), &y.f64()), before, 1e-9);
    }
    for name in ["svcca[variance=0.9]", "gulp[lambda=0.1]", "pwcca[from=x]"] {
        let before = compare(name, &x.f64(), &y.f64());
        assert!(
            (compare(name, &mapped.f64(), &y.f64()) - before).abs() > 1e-4,
            "{name}"
        );
    }
}

/// For each metric: rank-deficient, wide, constant and zero columns, duplicates, an offset.
#[test]
fn hard_input_has_the_values_of_what_is_left_of_it() {
    let (x, y) = (Matrix::random(90, 7, 1), Matrix::random(90, 5, 2));
    let y = Matrix::from_fn(90, 5, |i, j| y.at(i, j) + x.at(i, j));
    let padded = Matrix::from_fn(90, 9, |i, j| match j {
        7 => 3.1,
        8 => 0.0,
        _ => x.at(i, j),
    });
    let far = |m: &Matrix| m.map(|v| f64::from(v as f32 + 1e4));
    let twice = |m: &Matrix| Matrix::from_fn(180, m.d, |i, j| m.at(i / 2, j));
    for name in [
        "cca[mean]",
        "cca[min_width]",
        "cca[r2]",
        "svcca",
        "svcca[mean=leading]",
        "pwcca[from=x]",
        "pwcca[from=y]",
        "gulp",
        "gulp[lambda=0]",
        "linear_r2",
    ] {
        let plain = compare(name, &x.f64(), &y.f64());
        close(
            compare(name, &padded.f64(), &y.f64()),
            plain,
            1e-9 * plain.max(1.0),
        );
        close(
            compare(name, &twice(&x).f64(), &twice(&y).f64()),
            plain,
            1e-9 * plain.max(1.0),
        );
        let rounded = |m: &Matrix| far(m).map(|v| v - 1e4);
        let near = compare(name, &rounded(&x).f64(), &rounded(&y).f64());
        close(
            compare(name, &far(&x).f32(), &far(&y).f32()),
            near,
            1e-8 * plain.max(1.0),
        );
    }
}

#[test]
fn what_is_not_a_metric() {
    for wrong in [
        "cca[median]",
        "cca[mean,r2]",
        "svcca[mean=most]",
        "pwcca[from=z]",
        "gulp[lambda=-1]",
        "gulp[lambda=inf]",
        "gulp[lambda=NaN]",
    ] {
        assert!(wrong.parse::<Metric>().is_err(), "{wrong}");
    }
    for (short, long) in [
        ("cca[r2]", "cca[r2]"),
        ("cca[min_width]", "cca[min_width]"),
        ("svcca[mean=leading]", "svcca[variance=0.99,mean=leading]"),
        ("pwcca[from=y]", "pwcca[from=y]"),
        ("gulp[lambda=0]", "gulp[lambda=0]"),
    ] {
        assert_eq!(metric(short).to_string(), long);
        assert_eq!(metric(long), metric(short));
    }
    let x = Matrix::random(10, 3, 1).f32();
    assert!(matches!(
        gulp(&x, &x, -0.1),
        Err(Error::UnknownMetric { .. })
    ));
    assert!(matches!(
        gulp(&x, &x, f64::NAN),
        Err(Error::UnknownMetric { .. })
    ));
    let short = Matrix::random(9, 3, 1).f32();
    assert!(matches!(
        cca_correlations(&x, &short),
        Err(Error::RowsDiffer { .. })
    ));
    let said = cca_correlations(&x, &(x.clone() * f32::NAN)).unwrap_err();
    assert_eq!(
        said.to_string(),
        "right representation: row 0, column 0 is NaN"
    );
    let same = Matrix::from_fn(10, 3, |_, j| j as f64).f32();
    assert!(matches!(pwcca(&same, &x, Side::X), Err(Error::At { .. })));
    assert!(svcca(&x, &x, 2.0).is_err() && linear_r2(&same, &x).is_err());
}

/// One preparation serves both places.
#[test]
fn a_matrix_of_a_metric_that_is_not_symmetric() {
    let layers = [1, 2, 3].map(|s| Matrix::random(30, 3 + s, s as u64).f64());
    for name in [
        "pwcca[from=x]",
        "linear_r2[target=x]",
        "ridge_cv",
        "pls[components=2]",
    ] {
        let table = matrix(&layers, &layers, metric(name), |_, _| ()).unwrap();
        for i in 0..3 {
            for j in 0..3 {
                close(table[i][j], compare(name, &layers[i], &layers[j]), 1e-12);
            }
        }
    }
    assert!(golden("main/pwcca[weights_from=x]") > golden("main/pwcca[weights_from=y]"));
}

/// Equal singular values: the share of the variance falls on the edge between two directions, and must
/// fall on the same side wherever it is asked.
#[test]
fn a_share_on_the_edge_of_a_direction() {
    for seed in 0..20 {
        let n = 60;
        let phase = 0.1 * f64::from(seed);
        let wave = |i: usize, j: usize| {
            let turns = (j / 2 + 1) as f64 * i as f64 / n as f64;
            let quarter = if j.is_multiple_of(2) { 0.0 } else { 0.25 };
            (std::f64::consts::TAU * (turns + quarter) + phase).cos()
        };
        for d in [4, 20] {
            let x = Matrix::from_fn(n, d, wave).f64();
            for share in ["0.5", "0.75", "0.9", "0.95"] {
                let name = format!("svcca[variance={share}]");
                close(compare(&name, &x, &x), 1.0, 1e-9);
            }
        }
    }
}
