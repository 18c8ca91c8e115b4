//! Regressions and what they predict of rows held out, against golden values, scikit-learn and plain loops.

use burn::tensor::{DType, Tensor, TensorData};
use inscape::Device;
use inscape::similarity::{
    Error, Goodness, Mapping, Metric, Penalty, linear_r2, median_of_ceiling, predictivity,
    ridge_r2, split_half,
};

use crate::common::{Golden, Matrix, array, close, compare, data, goldens, hold, input, metric};
use crate::{centred, dot, pearson};

const GOLDENS: [(&str, &str); 5] = [
    ("linreg_r2[target=y]", "linear_r2[target=y]"),
    ("linreg_r2[target=x]", "linear_r2[target=x]"),
    (
        "ridge_r2[lambda=1.0,target=y,aggregate=variance-weighted]",
        "ridge_r2[lambda=1,target=y]",
    ),
    (
        "ridge_cv_r2[lambda=1.0,folds=i%5,aggregate=mean over targets, then folds]",
        "ridge_cv[lambda=1,folds=5,score=r2,over=mean,target=y]",
    ),
    (
        "ridge_cv_pearson[lambda=1.0,folds=i%5,aggregate=mean over targets, then folds]",
        "ridge_cv[lambda=1,folds=5,score=pearson,over=mean,target=y]",
    ),
];

#[test]
fn goldens_hold() {
    let goldens = goldens(&GOLDENS);
    assert_eq!(goldens.len(), 3 * 7 + 2 * 3);
    hold(&goldens, |g: &Golden| 1e-9 * g.value.abs());
    let off = |g: &Golden| {
        let (x, y) = (input(&g.case, "X").f64(), input(&g.case, "Y").f64());
        (compare(&g.metric, &x, &y) - g.value).abs() / g.value.abs()
    };
    println!(
        "worst, relative: {:.1e}",
        goldens.iter().map(off).fold(0.0, f64::max)
    );
}

#[derive(serde::Deserialize)]
struct Record {
    case: String,
    /// Of partial least squares; none for a chosen ridge.
    components: Option<usize>,
    r2: Vec<Option<f64>>,
    pearson: Vec<Option<f64>>,
}

/// Unit by unit. scikit-learn's weights come from a power iteration, ours from a decomposition.
#[test]
fn scikit_learn_predicts_the_same() {
    let records: Vec<Record> = serde_json::from_slice(&data("predictivity.json")).unwrap();
    assert_eq!(records.len(), 13);
    let mut worst = 0.0f64;
    for record in &records {
        let (x, y) = (input(&record.case, "X"), input(&record.case, "Y"));
        let by = match record.components {
            Some(components) => Mapping::Pls { components },
            None => Mapping::Ridge(Penalty::Auto),
        };
        for (score, expected) in [
            (Goodness::R2, &record.r2),
            (Goodness::Pearson, &record.pearson),
        ] {
            let found = predictivity(&x.f64(), &y.f64(), by, 5, score).unwrap();
            assert_eq!(found.len(), expected.len());
            for (unit, (a, b)) in found.iter().zip(expected).enumerate() {
                let name = format!("{} {by:?} {score:?} {unit}", record.case);
                match (a, b) {
                    (None, None) => (),
                    (Some(a), Some(b)) => {
                        let off = (a - b).abs() / b.abs().max(1.0);
                        assert!(off < 1e-7, "{name}: {a} and {b}");
                        worst = worst.max(off);
                    }
                    other => panic!("{name}: {other:?}"),
                }
            }
        }
    }
    println!("worst: {worst:.1e}");
}

/// Solves `a x = b` for each column of `b`, by elimination.
fn solve(a: &Matrix, b: &Matrix) -> Matrix {
    let mut m = Matrix::from_fn(a.n, a.n + b.d, |i, j| match j < a.n {
        true => a.at(i, j),
        false => b.at(i, j - a.n),
    });
    for k in 0..a.n {
        let pivot = (k..a.n).max_by(|&i, &j| m.at(i, k).abs().total_cmp(&m.at(j, k).abs()));
        let pivot = pivot.expect("a row");
        for j in 0..m.d {
            m.v.swap(k * m.d + j, pivot * m.d + j);
        }
        for i in (0..a.n).filter(|&i| i != k) {
            let factor = m.at(i, k) / m.at(k, k);
            for j in k..m.d {
                m.v[i * m.d + j] -= factor * m.at(k, j);
            }
        }
    }
    Matrix::from_fn(a.n, b.d, |i, j| m.at(i, a.n + j) / m.at(i, i))
}

/// Normal equations of the training rows, applied to rows held out.
fn plain_ridge(x: &Matrix, y: &Matrix, lambda: f64, folds: usize, score: Goodness) -> Vec<f64> {
    let mut scores = vec![0.0; y.d];
    for fold in 0..folds {
        let rows = |m: &Matrix, tested: bool| {
            let which: Vec<usize> = (0..m.n).filter(|i| (i % folds == fold) == tested).collect();
            Matrix::from_fn(which.len(), m.d, |i, j| m.at(which[i], j))
        };
        let mean = |m: &Matrix, j: usize| (0..m.n).map(|i| m.at(i, j)).sum::<f64>() / m.n as f64;
        let (xt, yt) = (rows(x, false), rows(y, false));
        let (xc, yc) = (centred(&xt), centred(&yt));
        let column = |m: &Matrix, j: usize| (0..m.n).map(|i| m.at(i, j)).collect::<Vec<_>>();
        let normal = Matrix::from_fn(x.d, x.d, |i, j| {
            dot(&column(&xc, i), &column(&xc, j)) + if i == j { lambda } else { 0.0 }
        });
        let right = Matrix::from_fn(x.d, y.d, |i, j| dot(&column(&xc, i), &column(&yc, j)));
        let weights = solve(&normal, &right);
        let (xs, ys) = (rows(x, true), rows(y, true));
        for (unit, total) in scores.iter_mut().enumerate() {
            let predict = |i: usize| {
                let parts = (0..x.d).map(|k| (xs.at(i, k) - mean(&xt, k)) * weights.at(k, unit));
                mean(&yt, unit) + parts.sum::<f64>()
            };
            let predicted: Vec<f64> = (0..xs.n).map(predict).collect();
            let truth = column(&ys, unit);
            *total += match score {
                Goodness::Pearson => pearson(&truth, &predicted),
                Goodness::R2 => {
                    let middle = mean(&ys, unit);
                    let off = |v: f64, w: f64| (v - w) * (v - w);
                    let miss = truth.iter().zip(&predicted).map(|(t, p)| off(*t, *p));
                    let spread = truth.iter().map(|t| off(*t, middle));
                    1.0 - miss.sum::<f64>() / spread.sum::<f64>()
                }
            } / folds as f64;
        }
    }
    scores
}

#[test]
fn ridge_is_the_normal_equations() {
    // Tall, and with fewer rows than columns.
    for (n, dx, lambda, folds) in [
        (40, 6, 0.7, 5),
        (41, 6, 0.0, 3),
        (30, 40, 2.0, 4),
        (12, 3, 1e3, 2),
    ] {
        let (x, noise) = (Matrix::random(n, dx, 1), Matrix::random(n, 4, 2));
        let y = Matrix::from_fn(n, 4, |i, j| noise.at(i, j) + 2.0 * x.at(i, j % dx) + 5.0);
        for score in [Goodness::R2, Goodness::Pearson] {
            let by = Mapping::Ridge(Penalty::Fixed(lambda));
            let found = predictivity(&x.f64(), &y.f64(), by, folds, score).unwrap();
            let expected = plain_ridge(&x, &y, lambda, folds, score);
            for (a, b) in found.iter().zip(&expected) {
                close(a.unwrap(), *b, 1e-9);
            }
        }
    }
}

/// A penalty in the units of the data, however small or large those are.
#[test]
fn a_fixed_penalty_sees_the_scale_and_a_chosen_one_does_not() {
    let (x, noise) = (Matrix::random(60, 5, 1), Matrix::random(60, 3, 2));
    let y = Matrix::from_fn(60, 3, |i, j| noise.at(i, j) + x.at(i, j));
    for scale in [1e-14, 1e-3, 1e3, 1e14] {
        let scaled = x.map(|v| v * scale);
        let by = |lambda: f64, x: &Matrix| {
            let cv = format!("ridge_cv[lambda={lambda}]");
            [
                ridge_r2(&x.f64(), &y.f64(), lambda).unwrap(),
                compare(&cv, &x.f64(), &y.f64()),
            ]
        };
        let (there, here) = (by(40.0 * scale * scale, &scaled), by(40.0, &x));
        close(there[0], here[0], 1e-9);
        close(there[1], here[1], 1e-9);
        assert!((by(40.0, &scaled)[0] - here[0]).abs() > 0.01);
        for name in ["ridge_cv[lambda=auto]", "pls[components=2]", "linear_r2"] {
            let here = compare(name, &x.f64(), &y.f64());
            close(compare(name, &scaled.f64(), &y.f64()), here, 1e-9);
        }
    }
}

#[test]
fn a_chosen_penalty_is_small_for_clean_targets_and_large_for_noise() {
    let (x, noise) = (Matrix::random(80, 20, 1), Matrix::random(80, 20, 2));
    let by = |y: &Matrix, lambda: &str| {
        compare(&format!("ridge_cv[lambda={lambda}]"), &x.f64(), &y.f64())
    };
    assert!(by(&x.rotated(0.3), "auto") > 0.999_999);
    // Of noise nothing is predicted, and little is lost by trying: least squares loses more.
    let [chosen, plain] = ["auto", "0"].map(|lambda| by(&noise, lambda));
    println!("of noise: {chosen:.3}, least squares {plain:.3}");
    assert!(chosen > -0.2 && plain < chosen - 0.15);
}

#[test]
fn in_sample_r2_counts_units_by_their_variance() {
    let (x, y) = (Matrix::random(50, 4, 3), Matrix::random(50, 2, 4));
    let y = Matrix::from_fn(50, 2, |i, j| [1.0, 30.0][j] * (y.at(i, j) + x.at(i, j)));
    let (xc, yc) = (centred(&x), centred(&y));
    let column = |m: &Matrix, j: usize| (0..m.n).map(|i| m.at(i, j)).collect::<Vec<_>>();
    for lambda in [0.0, 3.0, 50.0] {
        let normal = Matrix::from_fn(4, 4, |i, j| {
            dot(&column(&xc, i), &column(&xc, j)) + if i == j { lambda } else { 0.0 }
        });
        let right = Matrix::from_fn(4, 2, |i, j| dot(&column(&xc, i), &column(&yc, j)));
        let weights = solve(&normal, &right);
        let miss = |i: usize, j: usize| {
            let fitted = (0..4).map(|k| xc.at(i, k) * weights.at(k, j)).sum::<f64>();
            (yc.at(i, j) - fitted).powi(2)
        };
        let pairs = (0..50).flat_map(|i| [(i, 0), (i, 1)]);
        let missed: f64 = pairs.map(|(i, j)| miss(i, j)).sum();
        let expected = 1.0 - missed / dot(&yc.v, &yc.v);
        close(
            ridge_r2(&x.f64(), &y.f64(), lambda).unwrap(),
            expected,
            1e-12,
        );
        close(
            ridge_r2(&x.f32(), &y.f32(), lambda).unwrap(),
            expected,
            1e-6,
        );
    }
    let zero = ridge_r2(&x.f64(), &y.f64(), 0.0).unwrap();
    close(linear_r2(&x.f64(), &y.f64()).unwrap(), zero, 1e-13);
}

/// All components of partial least squares are least squares, which sees no invertible map.
#[test]
fn partial_least_squares_ends_in_least_squares() {
    let (x, noise) = (Matrix::random(60, 5, 1), Matrix::random(60, 8, 2));
    let y = Matrix::from_fn(60, 8, |i, j| noise.at(i, j) + x.at(i, j % 5));
    let units = |by| predictivity(&x.f64(), &y.f64(), by, 5, Goodness::R2).unwrap();
    let plain = units(Mapping::Ridge(Penalty::Fixed(0.0)));
    for components in [5, 25] {
        for (a, b) in units(Mapping::Pls { components }).iter().zip(&plain) {
            close(a.unwrap(), b.unwrap(), 1e-9);
        }
    }
    let total = |c| {
        units(Mapping::Pls { components: c })
            .into_iter()
            .flatten()
            .sum::<f64>()
    };
    assert!(total(1) < total(2) && total(2) < total(3));
}

/// For each mapping: rank-deficient, wide, constant and zero columns, duplicates, an offset.
#[test]
fn hard_input_has_the_values_of_what_is_left_of_it() {
    let (x, y) = (Matrix::random(90, 7, 1), Matrix::random(90, 5, 2));
    let y = Matrix::from_fn(90, 5, |i, j| y.at(i, j) + x.at(i, j));
    let padded = |m: &Matrix| {
        Matrix::from_fn(90, m.d + 2, |i, j| match j {
            _ if j == m.d => 3.1,
            _ if j > m.d => 0.0,
            _ => m.at(i, j),
        })
    };
    let far = |m: &Matrix| m.map(|v| f64::from(v as f32 + 1e4));
    for name in [
        "ridge_r2",
        "ridge_r2[lambda=0]",
        "ridge_cv",
        "ridge_cv[lambda=auto]",
        "ridge_cv[lambda=0,score=pearson]",
        "pls",
        "pls[components=3,score=r2]",
    ] {
        let plain = compare(name, &x.f64(), &y.f64());
        close(compare(name, &padded(&x).f64(), &y.f64()), plain, 1e-9);
        // Units of the target that never vary are left out.
        close(compare(name, &x.f64(), &padded(&y).f64()), plain, 1e-9);
        let rounded = |m: &Matrix| far(m).map(|v| v - 1e4);
        let near = compare(name, &rounded(&x).f64(), &rounded(&y).f64());
        close(compare(name, &far(&x).f32(), &far(&y).f32()), near, 1e-8);
        // Each predictor twice is one predictor with twice the square.
        let twice = Matrix::from_fn(90, 14, |i, j| x.at(i, j / 2));
        let longer = x.map(|v| v * 2f64.sqrt());
        let expected = compare(name, &longer.f64(), &y.f64());
        close(compare(name, &twice.f64(), &y.f64()), expected, 1e-9);
    }
    let wide = Matrix::random(30, 200, 5);
    let target = Matrix::from_fn(30, 2, |i, j| wide.at(i, j) + wide.at(i, j + 2));
    for name in ["ridge_cv", "ridge_cv[lambda=auto]", "pls"] {
        let value = compare(name, &wide.f32(), &target.f32());
        assert!(value.is_finite() && value < 1.0, "{name}: {value}");
    }
}

#[test]
fn units_that_do_not_vary_have_no_score() {
    let x = Matrix::random(30, 3, 1);
    // The second varies in the rows of one fold only, the third in none.
    let y = Matrix::from_fn(30, 3, |i, j| match j {
        0 => x.at(i, 0),
        1 if i == 10 => 4.0,
        1 => 0.1,
        _ => 0.1,
    });
    let by = Mapping::Ridge(Penalty::Fixed(1.0));
    let units = predictivity(&x.f64(), &y.f64(), by, 5, Goodness::R2).unwrap();
    assert!(units[0] > Some(0.9) && units[1] < Some(0.0) && units[2].is_none());
    let still = Matrix::from_fn(30, 2, |_, j| 0.1 + j as f64);
    let said = metric("ridge_cv")
        .compare(&x.f64(), &still.f64())
        .unwrap_err();
    assert!(said.to_string().contains("no unit"), "{said}");
    let said = metric("ridge_cv")
        .compare(&still.f64(), &x.f64())
        .unwrap_err();
    assert!(said.to_string().contains("equal"), "{said}");
    // Predictors with nothing in common with the target: a constant prediction correlates 0.
    let said = metric("pls[components=1]")
        .compare(&still.f64(), &x.f64())
        .unwrap();
    assert_eq!(said, 0.0);
}

#[test]
fn what_is_not_a_metric() {
    for wrong in [
        "linear_r2[target=z]",
        "ridge_r2[lambda=auto]",
        "ridge_r2[lambda=-1]",
        "ridge_cv[lambda=some]",
        "ridge_cv[lambda=inf]",
        "ridge_cv[folds=1]",
        "ridge_cv[score=mse]",
        "pls[components=0]",
        "pls[lambda=1]",
        "pls[over=most]",
    ] {
        assert!(wrong.parse::<Metric>().is_err(), "{wrong}");
    }
    for (short, long) in [
        ("linear_r2[target=x]", "linear_r2[target=x]"),
        ("ridge_r2", "ridge_r2[lambda=1,target=y]"),
        (
            "ridge_cv[lambda=auto,over=median,score=pearson,target=x]",
            "ridge_cv[lambda=auto,folds=5,score=pearson,over=median,target=x]",
        ),
        (
            "pls[components=7,score=r2,over=mean,folds=3]",
            "pls[components=7,folds=3,score=r2,over=mean,target=y]",
        ),
    ] {
        assert_eq!(metric(short).to_string(), long);
        assert_eq!(metric(long), metric(short));
    }
    let x = Matrix::random(10, 3, 1).f32();
    let ridge = |lambda| Mapping::Ridge(Penalty::Fixed(lambda));
    for (by, folds) in [
        (ridge(-1.0), 2),
        (ridge(f64::NAN), 2),
        (ridge(1.0), 1),
        (Mapping::Pls { components: 0 }, 2),
    ] {
        let said = predictivity(&x, &x, by, folds, Goodness::R2).unwrap_err();
        assert!(matches!(said, Error::UnknownMetric { .. }), "{said}");
    }
    let said = predictivity(&x, &x, ridge(1.0), 5, Goodness::Pearson).unwrap_err();
    assert!(
        matches!(
            said,
            Error::TooFewRows {
                needed: 15,
                rows: 10,
                ..
            }
        ),
        "{said}"
    );
}

// ---- noise ceiling

fn repeats(shape: [usize; 3], v: Vec<f64>) -> Tensor<3> {
    Tensor::from_data(
        TensorData::new(v, shape),
        (Device::cpu().tensor(), DType::F64),
    )
}

#[test]
fn two_repeats_are_each_others_half() {
    let (a, b) = (Matrix::random(20, 3, 1), Matrix::random(20, 3, 2));
    let b = Matrix::from_fn(20, 3, |i, j| b.at(i, j) + [3.0, 0.5, -3.0][j] * a.at(i, j));
    let both = repeats([2, 20, 3], [a.v.clone(), b.v.clone()].concat());
    let column = |m: &Matrix, j: usize| (0..20).map(|i| m.at(i, j)).collect::<Vec<_>>();
    for splits in [1, 7] {
        let found = split_half(&both, splits, 3).unwrap();
        for (unit, found) in found.iter().enumerate() {
            let rho = pearson(&column(&a, unit), &column(&b, unit)).max(0.0);
            close(found.unwrap(), 2.0 * rho / (1.0 + rho), 1e-12);
        }
        assert_eq!(found[2], Some(0.0));
    }
}

/// Of responses that are signal and noise of known variances, it is the reliability of their mean; with an
/// odd number of repeats too.
#[test]
fn the_corrected_half_is_the_reliability_of_the_mean() {
    let (n, noise) = (4000, 2.0);
    let signal = Matrix::random(n, 1, 1);
    for r in [4, 5, 9] {
        let draws = Matrix::random(r * n, 1, 2);
        let v = (0..r * n)
            .map(|i| signal.v[i % n] + noise * draws.v[i])
            .collect();
        let found = split_half(&repeats([r, n, 1], v), 40, 0).unwrap()[0].unwrap();
        let expected = 1.0 / (1.0 + noise * noise / r as f64);
        println!("{r} repeats: {found:.3}, {expected:.3}");
        close(found, expected, 0.03);
    }
}

/// The recorded responses: a ceiling for every unit, the same for the same seed.
#[test]
fn recorded_responses_have_a_ceiling() {
    let (shape, v) = array("stochastic", "samples_x"); // inputs, repeats, units
    let [n, r, d] = [shape[0], shape[1], shape[2]];
    let at = |k: usize| v[((k / d % n) * r + k / (n * d)) * d + k % d];
    let turned = repeats([r, n, d], (0..r * n * d).map(at).collect());
    let found = split_half(&turned, 10, 1).unwrap();
    assert!(
        found.iter().all(|u| *u > Some(0.9) && *u < Some(1.0)),
        "{found:?}"
    );
    assert_eq!(found, split_half(&turned, 10, 1).unwrap());
    assert_ne!(found, split_half(&turned, 10, 2).unwrap());
}

#[test]
fn what_has_no_ceiling() {
    let still = repeats(
        [2, 4, 2],
        (0..16)
            .map(|i| if i % 2 == 0 { 0.1 } else { (i * i % 7) as f64 })
            .collect(),
    );
    let found = split_half(&still, 2, 0).unwrap();
    assert!(found[0].is_none() && found[1].is_some());
    for shape in [[1, 4, 2], [2, 2, 2], [2, 4, 0]] {
        let v = vec![1.0; shape.iter().product()];
        assert!(matches!(
            split_half(&repeats(shape, v), 1, 0),
            Err(Error::Undefined { .. })
        ));
    }
    let said = split_half(
        &repeats([2, 3, 1], vec![0., 1., 2., 3., f64::NAN, 5.]),
        1,
        0,
    );
    assert_eq!(said.unwrap_err().to_string(), "row 4, column 0 is NaN");
    assert!(matches!(
        median_of_ceiling(&[None], &[Some(1.0)]),
        Err(Error::Undefined { .. })
    ));
    close(
        median_of_ceiling(&[Some(0.2), Some(0.5)], &[Some(0.4), Some(0.5)]).unwrap(),
        0.75,
        1e-15,
    );
}
