//! Metrics that match units: golden values, plain loops, identities, invariances, bad input.

use burn::tensor::Tensor;
use inscape::similarity::{
    Change, Direction, Error, Metric, PermutationScore, Soft, UnitCorrelations, Units, co_clusters,
    matching, permutation_shape, rosetta, semi_matching, soft_matching, sparse_prediction,
    unit_correlations,
};
use proptest::prelude::*;

use crate::common::{Matrix, close, compare, goldens, hold, hold_on_wgpu, input, metric};

const GOLDENS: [(&str, &str); 7] = [
    ("matching_hard_correlation", "matching"),
    (
        "matching_semi_correlation[direction=average]",
        "semi_matching[both]",
    ),
    (
        "matching_semi_correlation[direction=x_to_y]",
        "semi_matching[left]",
    ),
    (
        "soft_matching_correlation[center=True]",
        "soft_matching[correlation]",
    ),
    (
        "soft_matching_distance[center=True]",
        "soft_matching[distance]",
    ),
    (
        "shape_permutation[score=angular]",
        "permutation_shape[angular]",
    ),
    (
        "shape_permutation[score=euclidean]",
        "permutation_shape[euclidean]",
    ),
];

const ALL: [&str; 10] = [
    "matching",
    "semi_matching[both]",
    "semi_matching[left]",
    "semi_matching[right]",
    "soft_matching[correlation]",
    "soft_matching[distance]",
    "soft_matching[correlation,sinkhorn=0.1]",
    "soft_matching[distance,sinkhorn=0.1]",
    "permutation_shape[angular]",
    "permutation_shape[euclidean]",
];

#[test]
fn goldens_hold() {
    let goldens = goldens(&GOLDENS);
    assert_eq!(goldens.len(), 47);
    hold(&goldens, |g| 1e-8 * g.value.abs());
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn goldens_in_f32_on_wgpu() {
    hold_on_wgpu(&goldens(&GOLDENS));
}

/// The units on the right look on the left: the other way round.
#[test]
fn the_directions_are_each_others_mirror() {
    let (x, y) = (input("main", "X").f64(), input("main", "Y").f64());
    let right = compare("semi_matching[right]", &x, &y);
    close(right, compare("semi_matching[left]", &y, &x), 1e-12);
    let both = compare("semi_matching[both]", &x, &y);
    close(
        both * 2.0 - compare("semi_matching[left]", &x, &y),
        right,
        1e-12,
    );
}

// ---- plain loops in f64

fn columns(x: &Matrix) -> Vec<Vec<f64>> {
    let column = |j: usize| {
        let values: Vec<f64> = (0..x.n).map(|i| x.at(i, j)).collect();
        let mean = values.iter().sum::<f64>() / x.n as f64;
        values.iter().map(|v| v - mean).collect()
    };
    (0..x.d).map(column).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let length = (dot(a, a) * dot(b, b)).sqrt();
    if length > 0.0 {
        dot(a, b) / length
    } else {
        0.0
    }
}

/// The largest sum over all ways to give each left unit a right one of its own.
fn best_sum(score: &dyn Fn(usize, usize) -> f64, left: usize, dx: usize, free: &[usize]) -> f64 {
    if left == dx {
        return 0.0;
    }
    let with = |&right: &usize| {
        let rest: Vec<usize> = free.iter().copied().filter(|f| *f != right).collect();
        score(left, right) + best_sum(score, left + 1, dx, &rest)
    };
    free.iter().map(with).fold(f64::NEG_INFINITY, f64::max)
}

/// `dx <= dy`, few.
fn plain(name: &str, x: &Matrix, y: &Matrix) -> f64 {
    let (a, b) = (columns(x), columns(y));
    let all: Vec<usize> = (0..y.d).collect();
    let r = |i: usize, j: usize| correlation(&a[i], &b[j]);
    let square = |c: &[Vec<f64>]| c.iter().map(|c| dot(c, c)).sum::<f64>();
    let left = || {
        let best = |i: usize| (0..y.d).map(|j| r(i, j)).fold(f64::MIN, f64::max);
        (0..x.d).map(best).sum::<f64>() / x.d as f64
    };
    let right = || {
        let best = |j: usize| (0..x.d).map(|i| r(i, j)).fold(f64::MIN, f64::max);
        (0..y.d).map(best).sum::<f64>() / y.d as f64
    };
    let products = || best_sum(&|i, j| dot(&a[i], &b[j]), 0, x.d, &all);
    match name {
        "matching" => best_sum(&r, 0, x.d, &all) / x.d as f64,
        "semi_matching[both]" => (left() + right()) / 2.0,
        "semi_matching[left]" => left(),
        "semi_matching[right]" => right(),
        "permutation_shape[angular]" => (products() / (square(&a) * square(&b)).sqrt())
            .min(1.0)
            .acos(),
        "permutation_shape[euclidean]" => (square(&a) + square(&b) - 2.0 * products()).sqrt(),
        _ => soft(name, &a, &b),
    }
}

/// Every unit copied until both sides have equally many of the same weight, matched one to one.
fn soft(name: &str, a: &[Vec<f64>], b: &[Vec<f64>]) -> f64 {
    let by_distance = name.contains("distance");
    let cost = |i: usize, j: usize| match by_distance {
        true => {
            let difference: Vec<f64> = a[i].iter().zip(&b[j]).map(|(a, b)| a - b).collect();
            dot(&difference, &difference)
        }
        false => 1.0 - correlation(&a[i], &b[j]),
    };
    let (dx, dy) = (a.len(), b.len());
    let mass: f64 = match name.contains("sinkhorn") {
        true => sinkhorn(&cost, dx, dy, by_distance),
        false => {
            let n = dx * dy;
            let copies: Vec<f64> = (0..n * n)
                .map(|at| -cost(at / n / dy, at % n / dx))
                .collect();
            let all = UnitCorrelations {
                rows: n,
                columns: n,
                values: copies,
            };
            all.one_to_one().iter().map(|p| -p.r).sum::<f64>() / n as f64
        }
    };
    if by_distance {
        mass.max(0.0).sqrt()
    } else {
        1.0 - mass
    }
}

/// Sinkhorn's scaling as it stands in the paper, no logarithms.
fn sinkhorn(cost: &dyn Fn(usize, usize) -> f64, dx: usize, dy: usize, relative: bool) -> f64 {
    let all: Vec<f64> = (0..dx * dy).map(|at| cost(at / dy, at % dy)).collect();
    let mean = all.iter().sum::<f64>() / all.len() as f64;
    let epsilon = 0.1 * if relative { mean } else { 1.0 };
    let k: Vec<f64> = all.iter().map(|c| (-c / epsilon).exp()).collect();
    let (mut u, mut v) = (vec![1.0; dx], vec![1.0; dy]);
    for _ in 0..20_000 {
        for i in 0..dx {
            u[i] = 1.0 / dx as f64 / (0..dy).map(|j| k[i * dy + j] * v[j]).sum::<f64>();
        }
        for j in 0..dy {
            v[j] = 1.0 / dy as f64 / (0..dx).map(|i| k[i * dy + j] * u[i]).sum::<f64>();
        }
    }
    (0..dx * dy)
        .map(|at| u[at / dy] * k[at] * v[at % dy] * all[at])
        .sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn agrees_with_plain_loops(n in 4usize..20, dx in 1usize..6, more in 0usize..3, seed: u64) {
        let (x, y) = (Matrix::random(n, dx, seed), Matrix::random(n, dx + more, seed ^ 1));
        for name in ALL {
            let expected = plain(name, &x, &y);
            let sinkhorn = if name.contains("sinkhorn") { 1e-5 } else { 1e-9 };
            close(compare(name, &x.f64(), &y.f64()), expected, sinkhorn * (1.0 + expected));
            close(compare(name, &x.f32(), &y.f32()), expected, 1e-5 * (1.0 + expected));
        }
    }

    /// Soft matching is a metric, and the two permutation shapes are among sides of one width.
    #[test]
    fn distances_obey_the_triangle_inequality(n in 3usize..12, d in prop::array::uniform3(1usize..7), seed: u64) {
        let sides = |d: [usize; 3]| [0, 1, 2].map(|i| Matrix::random(n, d[i], seed ^ i as u64).f64());
        let holds = |name: &str, [x, y, z]: &[_; 3]| {
            compare(name, x, z) <= (compare(name, x, y) + compare(name, y, z)) * (1.0 + 1e-9)
        };
        prop_assert!(holds("soft_matching[distance]", &sides(d)));
        for name in ["permutation_shape[angular]", "permutation_shape[euclidean]"] {
            prop_assert!(holds(name, &sides([d[0]; 3])), "{}", name);
        }
    }
}

/// Opposed single units are half a turn apart, and each an eighth of one from the two side by side.
#[test]
fn an_angle_over_several_widths_is_no_metric() {
    let x = Matrix::random(30, 1, 5);
    let opposed = Matrix::from_fn(30, 1, |i, _| -x.at(i, 0));
    let both = Matrix::from_fn(30, 2, |i, j| if j == 0 { x.at(i, 0) } else { -x.at(i, 0) });
    let angle = |a: &Matrix, b: &Matrix| compare("permutation_shape[angular]", &a.f64(), &b.f64());
    close(angle(&x, &opposed), std::f64::consts::PI, 1e-9);
    for side in [&x, &opposed] {
        close(angle(side, &both), std::f64::consts::FRAC_PI_4, 1e-9);
    }
}

// ---- identities and invariances

#[test]
fn equal_widths_make_soft_matching_one_to_one() {
    let (x, y) = (Matrix::random(80, 30, 1), Matrix::random(80, 30, 2));
    let value = |name: &str| compare(name, &x.f64(), &y.f64());
    close(
        value("soft_matching[correlation]"),
        value("matching"),
        1e-12,
    );
    let shape = value("permutation_shape[euclidean]");
    close(
        value("soft_matching[distance]"),
        shape / 30f64.sqrt(),
        1e-10,
    );
}

/// Widths of a layer, with every pair of units in play.
#[test]
fn a_wide_plan_equals_the_plan_of_copies() {
    let (x, y) = (Matrix::random(60, 96, 3), Matrix::random(60, 72, 4));
    let copies =
        |m: &Matrix, times: usize| Matrix::from_fn(m.n, m.d * times, |i, j| m.at(i, j / times));
    let equal = [copies(&x, 3).f64(), copies(&y, 4).f64()];
    for name in ["soft_matching[correlation]", "soft_matching[distance]"] {
        let direct = compare(name, &x.f64(), &y.f64());
        close(direct, compare(name, &equal[0], &equal[1]), 1e-10);
    }
}

/// What each metric is told to be blind to it is, and to nothing else of these.
#[test]
fn invariances_are_those_that_are_claimed() {
    let (x, y) = (Matrix::random(60, 9, 5), Matrix::random(60, 12, 6));
    let x = Matrix::from_fn(60, 9, |i, j| x.at(i, j) + y.at(i, j) + 0.3);
    let with = |f: &dyn Fn(usize, usize) -> f64| Matrix::from_fn(60, 9, f);
    let changes = [
        (Change::Permutation, with(&|i, j| x.at(i, (j * 2 + 3) % 9))),
        (Change::Rotation, x.rotated(0.7)),
        (Change::Scale, with(&|i, j| 3.0 * x.at(i, j))),
        (
            Change::ColumnScale,
            with(&|i, j| (1.0 + j as f64) * x.at(i, j)),
        ),
        (
            Change::RowScale,
            with(&|i, j| (1.0 + i as f64) * x.at(i, j)),
        ),
        (Change::Shift, with(&|i, j| x.at(i, j) - 5.0 * j as f64)),
        (Change::RowShift, with(&|i, j| x.at(i, j) + i as f64)),
    ];
    for name in ALL {
        let here = compare(name, &x.f64(), &y.f64());
        for (change, changed) in &changes {
            let there = compare(name, &changed.f64(), &y.f64());
            let off = (here - there).abs() / here.abs();
            match metric(name).facts().blind_to.contains(change) {
                true => assert!(off < 1e-6, "{name} sees {change:?}: {here} {there}"),
                false => assert!(off > 1e-4, "{name} does not see {change:?}: {here} {there}"),
            }
        }
        let turned = compare(name, &y.f64(), &x.f64());
        let symmetric = (here - turned).abs() < 1e-6;
        assert_eq!(symmetric, metric(name).facts().symmetric, "{name}");
    }
}

#[test]
fn equal_sides_are_one_or_zero_apart() {
    let x = Matrix::random(70, 20, 7);
    for make in [Matrix::f32, Matrix::f64] {
        let x = make(&x);
        for name in ALL.iter().filter(|name| !name.contains("sinkhorn")) {
            let wanted = metric(name).facts().same.unwrap_or(1.0);
            close(compare(name, &x, &x), wanted, 1e-6);
        }
        // The plan of least cost less entropy also joins unequal units.
        let spread = compare("soft_matching[correlation,sinkhorn=0.1]", &x, &x);
        assert!(spread < 1.0 && spread > 0.9, "{spread}");
    }
}

#[test]
fn an_offset_does_not_matter() {
    let exact = |m: Matrix| m.map(|v| (v * 512.0).round() / 512.0);
    let (x, y) = (
        exact(Matrix::random(300, 24, 8)),
        exact(Matrix::random(300, 18, 9)),
    );
    for name in ALL {
        let here = compare(name, &x.f32(), &y.f32());
        let far = |m: &Matrix| m.map(|v| v + 10_000.0).f32();
        close(compare(name, &far(&x), &far(&y)), here, 1e-6 * (1.0 + here));
    }
}

#[test]
fn a_scale_far_from_one_counts_only_where_it_should() {
    let (x, y) = (Matrix::random(50, 9, 10), Matrix::random(50, 7, 11));
    for name in ALL {
        let here = compare(name, &x.f32(), &y.f32());
        for power in [-60, 60] {
            let factor = 2f64.powi(power);
            let far = |m: &Matrix| m.map(|v| v * factor).f32();
            let unit = match metric(name).facts().blind_to.contains(&Change::Scale) {
                true => 1.0,
                false => factor,
            };
            close(
                compare(name, &far(&x), &far(&y)) / unit,
                here,
                1e-5 * (1.0 + here),
            );
        }
    }
}

// ---- degenerate input

/// A unit that never changes correlates with none, itself included.
#[test]
fn constant_units_have_correlation_zero() {
    let x = Matrix::from_fn(30, 4, |i, j| {
        if j == 2 {
            0.1
        } else {
            ((i * (j + 2)) as f64).sin()
        }
    });
    for make in [Matrix::f32, Matrix::f64] {
        let x = make(&x);
        close(matching(&x, &x).unwrap(), 0.75, 1e-6);
        close(
            soft_matching(&x, &x, Soft::Correlation, None).unwrap(),
            0.75,
            1e-6,
        );
        let r = unit_correlations(&x, &x).unwrap();
        assert!((0..4).all(|j| r.at(2, j) == 0.0 && r.at(j, 2) == 0.0));
        for distance in [
            soft_matching(&x, &x, Soft::Distance, None),
            permutation_shape(&x, &x, PermutationScore::Angular),
        ] {
            close(distance.unwrap(), 0.0, 1e-12);
        }
    }
}

#[test]
fn zero_over_zero_is_an_error_and_distances_are_not() {
    let (x, same) = (
        Matrix::random(10, 4, 1),
        Matrix::from_fn(10, 3, |_, j| 0.1 + j as f64),
    );
    for make in [Matrix::f32, Matrix::f64] {
        for name in ALL {
            let found = metric(name).compare(&make(&same), &make(&x));
            if name.contains("distance") || name.contains("euclidean") {
                assert!(found.unwrap() > 0.0, "{name}");
                continue;
            }
            let error = found.unwrap_err().to_string();
            assert!(
                error.contains("left") && error.contains("equal"),
                "{name}: {error}"
            );
        }
        let nothing = compare(
            "soft_matching[distance,sinkhorn=0.1]",
            &make(&same),
            &make(&same),
        );
        assert_eq!(nothing, 0.0);
    }
}

#[test]
fn bad_values_few_rows_and_many_columns() {
    let x = Matrix::random(5, 40, 2); // fewer rows than columns
    let mut bad = x.clone();
    bad.v[3 * 40 + 7] = f64::NAN;
    for name in ALL {
        assert!(compare(name, &x.f32(), &Matrix::random(5, 30, 3).f32()).is_finite());
        let error = metric(name).compare(&x.f32(), &bad.f32()).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("right representation: row 3, column 7"),
            "{error}"
        );
        let one = Matrix::random(1, 4, 2).f32();
        let error = metric(name).compare(&one, &one).unwrap_err();
        assert!(
            matches!(error, Error::TooFewRows { needed: 2, .. }),
            "{error}"
        );
    }
    let huge = Matrix::random(5, 4, 3).map(|v| v * 1e200).f64();
    let error = permutation_shape(&huge, &huge, PermutationScore::Euclidean).unwrap_err();
    assert!(error.to_string().contains("too large"), "{error}");
}

#[test]
fn names_turn_into_metrics_and_back() {
    for name in ALL {
        assert_eq!(metric(name).to_string(), name);
    }
    for (short, long) in [
        ("semi_matching", "semi_matching[both]"),
        ("soft_matching", "soft_matching[correlation]"),
        (
            "soft_matching[sinkhorn=0.5]",
            "soft_matching[correlation,sinkhorn=0.5]",
        ),
        ("permutation_shape", "permutation_shape[angular]"),
    ] {
        assert_eq!(metric(short).to_string(), long);
    }
    for wrong in [
        "matching[both]",
        "semi_matching[up]",
        "semi_matching[left,right]",
        "soft_matching[sinkhorn=0]",
        "soft_matching[sinkhorn=-1]",
        "soft_matching[sinkhorn=NaN]",
        "soft_matching[correlation,distance]",
        "permutation_shape[scale=1]",
    ] {
        assert!(wrong.parse::<Metric>().is_err(), "{wrong}");
    }
    let x = Matrix::random(10, 3, 1).f32();
    for epsilon in [0.0, f64::NAN, f64::INFINITY] {
        let found = soft_matching(&x, &x, Soft::Correlation, Some(epsilon));
        assert!(
            matches!(found, Err(Error::UnknownMetric { .. })),
            "{found:?}"
        );
    }
    let valid = Metric::from(Units::SemiMatching(Direction::Left));
    assert_eq!(valid, metric("semi_matching[left]"));
}

#[test]
fn the_functions_are_the_metrics() {
    let (x, y) = (
        Matrix::random(40, 6, 1).f32(),
        Matrix::random(40, 8, 2).f32(),
    );
    let same =
        |value: Result<f64, Error>, name: &str| assert_eq!(value.unwrap(), compare(name, &x, &y));
    same(matching(&x, &y), "matching");
    same(
        semi_matching(&x, &y, Direction::Right),
        "semi_matching[right]",
    );
    same(
        soft_matching(&x, &y, Soft::Distance, None),
        "soft_matching[distance]",
    );
    same(
        permutation_shape(&x, &y, PermutationScore::Euclidean),
        "permutation_shape[euclidean]",
    );
}

// ---- one to many, many to many, and several models

/// The conditions under which weights are the lasso's (Karush, Kuhn & Tucker): where a weight is not 0
/// what is left correlates by exactly lambda with its sign, elsewhere by less.
#[test]
fn sparse_weights_are_optimal() {
    let (x, y) = (Matrix::random(80, 25, 1), Matrix::random(80, 6, 2));
    let y = Matrix::from_fn(80, 6, |i, j| y.at(i, j) + x.at(i, j) - 0.5 * x.at(i, j + 7));
    let (a, b) = (columns(&x), columns(&y));
    let unit = |c: &[f64]| -> Vec<f64> {
        let length = dot(c, c).sqrt();
        c.iter().map(|v| v / length).collect()
    };
    for lambda in [0.02, 0.1, 0.4] {
        let found = sparse_prediction(&x.f64(), &y.f64(), lambda).unwrap();
        for (j, found) in found.iter().enumerate() {
            let mut left = unit(&b[j]);
            for (k, w) in &found.from {
                left.iter_mut()
                    .zip(unit(&a[*k]))
                    .for_each(|(l, v)| *l -= w * v);
            }
            close(1.0 - dot(&left, &left), found.explained, 1e-8);
            for (k, column) in a.iter().enumerate() {
                let pull = dot(&unit(column), &left);
                match found.from.iter().find(|f| f.0 == k) {
                    Some((_, w)) => close(pull, lambda * w.signum(), 1e-8),
                    None => assert!(pull.abs() <= lambda + 1e-8, "{pull}"),
                }
            }
        }
    }
    let none = sparse_prediction(&x.f32(), &y.f32(), 1.0).unwrap();
    assert!(none.iter().all(|f| f.from.is_empty() && f.explained == 0.0));
    for lambda in [0.0, -1.0, f64::NAN] {
        assert!(sparse_prediction(&x.f32(), &y.f32(), lambda).is_err());
    }
}

#[test]
fn constant_units_predict_nothing_and_are_in_no_group() {
    let x = Matrix::from_fn(40, 4, |i, j| {
        if j == 1 {
            2.5
        } else {
            ((i * (j + 3)) as f64).sin()
        }
    });
    let found = sparse_prediction(&x.f32(), &x.f32(), 0.1).unwrap();
    assert!(found[1].from.is_empty() && found[1].explained == 0.0);
    assert!(found.iter().all(|f| f.from.iter().all(|f| f.0 != 1)));
    let groups = co_clusters(&x.f32(), &x.f32(), 3).unwrap();
    assert_eq!(groups.left, groups.right);
    assert_eq!(groups.left[1], None);
    let mut numbers: Vec<usize> = groups.left.iter().flatten().copied().collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 2]);
    for k in [0, 7] {
        assert!(co_clusters(&x.f32(), &x.f32(), k).is_err(), "{k}");
    }
}

/// Against the definition, by loops over all tuples.
#[test]
fn rosetta_units_are_mutually_near() {
    let models: Vec<Matrix> = (0..3)
        .map(|s| Matrix::random(12, 7 + s, 20 + s as u64))
        .collect();
    let tensors: Vec<Tensor<2>> = models.iter().map(Matrix::f64).collect();
    for k in [1, 3] {
        let near = |a: usize, i: usize, b: usize, j: usize| {
            let of = columns(&models[b]);
            let own = &columns(&models[a])[i];
            let r = correlation(own, &of[j]);
            r > 0.0 && of.iter().filter(|c| correlation(own, c) > r).count() < k
        };
        let mutual = |a: usize, i: usize, b: usize, j: usize| near(a, i, b, j) && near(b, j, a, i);
        let mut wanted = Vec::new();
        for at in 0..7 * 8 * 9 {
            let u = [at / 72, at / 9 % 8, at % 9];
            if mutual(0, u[0], 1, u[1]) && mutual(0, u[0], 2, u[2]) && mutual(1, u[1], 2, u[2]) {
                wanted.push(u.to_vec());
            }
        }
        let mut found: Vec<Vec<usize>> = Vec::new();
        for tuple in rosetta(&tensors, k).unwrap() {
            let c: Vec<Vec<f64>> = (0..3)
                .map(|m| columns(&models[m])[tuple.units[m]].clone())
                .collect();
            let all = [
                correlation(&c[0], &c[1]),
                correlation(&c[0], &c[2]),
                correlation(&c[1], &c[2]),
            ];
            close(tuple.r, all.into_iter().fold(1.0, f64::min), 1e-12);
            found.push(tuple.units);
        }
        found.sort();
        assert_eq!(found, wanted);
        assert!(k == 1 || !wanted.is_empty());
    }
    assert!(rosetta(&tensors[..1], 1).is_err());
    assert_eq!(rosetta(&tensors[..2], 1).unwrap().len(), {
        let r = unit_correlations(&tensors[0], &tensors[1]).unwrap();
        r.best_buddies(1).len()
    });
}
