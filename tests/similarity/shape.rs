//! Procrustes and shape metrics, and what else follows the best rotation: golden values, identities,
//! plain loops, and the cases where digits are lost.

use inscape::similarity::{
    Error, Join, Nearby, Procrustes, Score, Whitening, align, aligned_cosine, frechet_distance,
    mds, nbs, precision_at_k, procrustes, relative, relative_product, shape_distance, stitched,
};

use crate::common::{Golden, Matrix, close, compare, goldens, hold, input, metric};

const GOLDENS: [(&str, &str); 19] = [
    (
        "procrustes[center=True,normalise=frobenius]",
        "procrustes[distance,centred]",
    ),
    (
        "procrustes_sq[center=True,normalise=frobenius]",
        "procrustes[squared,centred]",
    ),
    (
        "procrustes_angular[center=True]",
        "procrustes[angular,centred]",
    ),
    ("procrustes_disparity", "procrustes[disparity,centred]"),
    (
        "procrustes_sq[center=True,normalise=False]",
        "procrustes[raw,centred]",
    ),
    (
        "procrustes_sq[center=False,normalise=False]",
        "procrustes[raw,uncentred]",
    ),
    ("bures_nbs[center=True,kernel=linear]", "nbs[linear]"),
    (
        "bures_nbs[center=True,kernel=rbf 0.5*sqrt(median_all)]",
        "nbs[rbf,sigma=0.5*median]",
    ),
    ("aligned_cosine[center=False]", "aligned_cosine"),
    ("frechet_distance_sq[cov=n-1]", "frechet"),
    (
        "relative_representation_cosine[anchors=rows 0..16,center=False]",
        "relative[anchors=16,by=cosine]",
    ),
    ("shape_linear[alpha=0.0,score=angular]", "shape[alpha=0]"),
    (
        "shape_linear[alpha=0.0,score=euclidean]",
        "shape[alpha=0,score=euclidean]",
    ),
    (
        "shape_linear[alpha=0.25,score=angular]",
        "shape[alpha=0.25]",
    ),
    (
        "shape_linear[alpha=0.25,score=euclidean]",
        "shape[alpha=0.25,score=euclidean]",
    ),
    ("shape_linear[alpha=0.5,score=angular]", "shape[alpha=0.5]"),
    (
        "shape_linear[alpha=0.5,score=euclidean]",
        "shape[alpha=0.5,score=euclidean]",
    ),
    ("shape_linear[alpha=1.0,score=angular]", "shape[alpha=1]"),
    (
        "shape_linear[alpha=1.0,score=euclidean]",
        "shape[alpha=1,score=euclidean]",
    ),
];

/// 1e-8, but where the value is 0 in exact arithmetic: there the reference keeps half its digits.
fn relative_tolerance(g: &Golden) -> f64 {
    (1e-8 * g.value.abs()).max(if g.value.abs() < 1e-6 { 3e-7 } else { 0.0 })
}

#[test]
fn goldens_hold() {
    let goldens = goldens(&GOLDENS);
    println!("{} golden values", goldens.len());
    hold(&goldens, relative_tolerance);
}

// ---- identities

const CASES: [&str; 6] = ["main", "indep", "rank", "wide", "const", "dup"];

#[test]
fn every_form_is_a_reading_of_one_number() {
    for case in CASES {
        let (x, y) = (input(case, "X").f64(), input(case, "Y").f64());
        let of = |name: &str| compare(name, &x, &y);
        let c = nbs(&x, &y).unwrap();
        close(of("procrustes[angular]").cos(), c, 1e-10);
        close(of("procrustes[squared]"), 2.0 - 2.0 * c, 1e-10);
        close(of("procrustes").powi(2), 2.0 - 2.0 * c, 1e-10);
        close(of("procrustes[disparity]"), 1.0 - c * c, 1e-10);
        close(of("shape[alpha=1]"), of("procrustes[angular]"), 1e-10);
        let raw = of("procrustes[raw]");
        close(of("shape[score=euclidean]").powi(2) / raw, 1.0, 1e-10);
    }
}

/// Whitened to the end, the angle is that of the canonical correlations.
#[test]
fn alpha_0_is_made_of_canonical_correlations() {
    for (case, ranks) in [
        ("main", [64.0, 48.0]),
        ("indep", [64.0, 48.0]),
        ("rank", [10.0, 6.0]),
    ] {
        let (x, y) = (input(case, "X").f64(), input(case, "Y").f64());
        let [rx, ry]: [f64; 2] = ranks;
        let cosine = compare("svcca[variance=1]", &x, &y) * rx.min(ry) / (rx * ry).sqrt();
        for whiten in ["mixed", "power"] {
            let angle = compare(&format!("shape[alpha=0,whiten={whiten}]"), &x, &y);
            close(angle.cos(), cosine, 1e-10);
        }
    }
}

/// Of two columns a side, the sum of the singular values has a closed form.
#[test]
fn two_columns_agree_with_the_closed_form() {
    for seed in 0..5 {
        let (x, y) = (
            Matrix::random(30, 2, seed),
            Matrix::random(30, 2, seed + 50),
        );
        let (x, y) = (centred(&x), centred(&y));
        let m = |i, j| (0..30).map(|r| x.at(r, i) * y.at(r, j)).sum::<f64>();
        let squares = m(0, 0).powi(2) + m(0, 1).powi(2) + m(1, 0).powi(2) + m(1, 1).powi(2);
        let det = m(0, 0) * m(1, 1) - m(0, 1) * m(1, 0);
        let nuclear = (squares + 2.0 * det.abs()).sqrt();
        let c = nuclear / (squared(&x) * squared(&y)).sqrt();
        close(nbs(&x.f64(), &y.f64()).unwrap(), c, 1e-13);
        let raw = squared(&x) + squared(&y) - 2.0 * nuclear;
        close(
            procrustes(&x.f64(), &y.f64(), Procrustes::Raw).unwrap(),
            raw,
            1e-11 * raw,
        );
    }
}

fn squared(x: &Matrix) -> f64 {
    x.v.iter().map(|v| v * v).sum()
}

fn centred(x: &Matrix) -> Matrix {
    let mean = |j: usize| (0..x.n).map(|i| x.at(i, j)).sum::<f64>() / x.n as f64;
    let means: Vec<f64> = (0..x.d).map(mean).collect();
    Matrix::from_fn(x.n, x.d, |i, j| x.at(i, j) - means[j])
}

/// Columns that are orthogonal, of mean 0, and of these lengths.
fn waves(n: usize, lengths: &[f64], first: usize) -> Matrix {
    let wave = |i: usize, k: usize| {
        (2.0 / n as f64).sqrt()
            * (std::f64::consts::PI * (i as f64 + 0.5) * k as f64 / n as f64).cos()
    };
    Matrix::from_fn(n, lengths.len(), |i, j| lengths[j] * wave(i, first + j))
}

/// Where the columns are the principal axes, whitening in part is a factor for each.
#[test]
fn whitening_in_part_agrees_with_the_factors_of_orthogonal_columns() {
    let noise = Matrix::random(40, 3, 4);
    let (x, y) = (
        waves(40, &[5.0, 2.0, 0.3], 1),
        waves(40, &[4.0, 1.0, 0.7], 2),
    );
    let turned = |m: &Matrix| m.rotated(0.9);
    for (whiten, alpha) in [
        (Whitening::Power, 0.3),
        (Whitening::Mixed, 0.3),
        (Whitening::Power, 0.8),
        (Whitening::Mixed, 0.0),
    ] {
        let factor = |s: f64| match whiten {
            Whitening::Power => s.powf(alpha - 1.0),
            Whitening::Mixed => alpha + (1.0 - alpha) / s,
        };
        let white = |m: &Matrix, lengths: [f64; 3]| {
            let by = Matrix::from_fn(m.n, 3, |i, j| m.at(i, j) * factor(lengths[j]));
            let restore = (squared(m) / squared(&by)).sqrt();
            by.map(|v| v * restore)
        };
        let [a, b] = [white(&x, [5.0, 2.0, 0.3]), white(&y, [4.0, 1.0, 0.7])];
        let (x, y) = (turned(&x).f64(), turned(&y).f64());
        let angle = procrustes(&a.f64(), &b.f64(), Procrustes::Angular).unwrap();
        close(
            shape_distance(&x, &y, alpha, Score::Angular, whiten).unwrap(),
            angle,
            1e-10,
        );
        let apart = procrustes(&a.f64(), &b.f64(), Procrustes::Raw)
            .unwrap()
            .sqrt();
        close(
            shape_distance(&x, &y, alpha, Score::Euclidean, whiten).unwrap(),
            apart,
            1e-10,
        );
    }
    let rough = |alpha| {
        shape_distance(
            &x.f64(),
            &noise.f64(),
            alpha,
            Score::Angular,
            Whitening::Mixed,
        )
        .unwrap()
    };
    assert!((rough(0.0) - rough(1.0)).abs() > 0.01);
}

#[test]
fn distances_obey_the_triangle_inequality() {
    let names = [
        "procrustes",
        "procrustes[angular]",
        "shape[alpha=0]",
        "shape[alpha=0.25]",
        "shape[alpha=0.5,whiten=power]",
        "shape[alpha=0.5,score=euclidean]",
    ];
    let mut tightest = f64::INFINITY;
    for seed in 0..40 {
        let a = Matrix::random(25, 4, seed);
        // Near neighbours on a path, where the inequality is nearly tight, and strangers.
        let step = |m: &Matrix, s: u64| {
            let other = Matrix::random(25, 4, s);
            let by = if seed % 2 == 0 { 0.2 } else { 2.0 };
            Matrix::from_fn(25, 4, |i, j| m.at(i, j) + by * other.at(i, j))
        };
        let b = step(&a, seed + 100);
        let c = step(&b, seed + 200);
        let [a, b, c] = [a, b, c].map(|m| m.f64());
        for name in names {
            let (ab, bc, ac) = (
                compare(name, &a, &b),
                compare(name, &b, &c),
                compare(name, &a, &c),
            );
            assert!(ac <= ab + bc + 1e-12, "{name}: {ac} > {ab} + {bc}");
            tightest = tightest.min((ab + bc - ac) / ac);
        }
    }
    println!("tightest of 240 triangles: {tightest:.3}");
    // The square of a metric is none.
    let line = |k: f64| Matrix::from_fn(9, 1, |i, _| (i as f64) + k * f64::from(i == 4)).f64();
    let of = |a, b| compare("procrustes[squared]", &line(a), &line(b));
    assert!(of(0.0, 2.0) > of(0.0, 1.0) + of(1.0, 2.0));
}

// ---- digits

/// A column of length `t` beside the rest: the squared gap is `2 - 2 / √(1 + t²)`, about `t²`.
#[test]
fn sides_that_nearly_agree_keep_their_digits() {
    let x = waves(50, &[0.8, 0.6], 1);
    for t in [1e-3, 1e-6, 1e-9, 1e-12] {
        let wide = waves(50, &[0.8, 0.6, t], 1).rotated(0.4);
        for (x, y) in [(&x, &wide), (&wide, &x)] {
            let of = |form| procrustes(&x.f64(), &y.f64(), form).unwrap();
            close(of(Procrustes::Distance) / t, 1.0, 1e-3 + t);
            close(of(Procrustes::Squared) / (t * t), 1.0, 2e-3);
            close(of(Procrustes::Angular) / t, 1.0, 1e-3);
            close(of(Procrustes::Raw) / (t * t), 1.0, 2e-3);
        }
    }
}

/// The seam scales values this large; what is measured in their unit has it back.
#[test]
fn what_is_in_units_grows_with_them() {
    let (x, y) = (Matrix::random(30, 4, 1), Matrix::random(30, 4, 2));
    for (name, power) in [
        ("procrustes[raw]", 2),
        ("procrustes[raw,uncentred]", 2),
        ("frechet", 2),
        ("shape[score=euclidean]", 1),
        ("shape[alpha=0,score=euclidean,whiten=power]", 1),
    ] {
        for factor in [2f64.powi(40), 2f64.powi(-45)] {
            let far = |m: &Matrix| m.map(|v| v * factor);
            let here = compare(name, &x.f64(), &y.f64());
            for there in [
                compare(name, &far(&x).f64(), &far(&y).f64()),
                compare(name, &far(&x).f32(), &far(&y).f32()),
            ] {
                close(there / factor.powi(power) / here, 1.0, 1e-6);
            }
        }
    }
}

/// Each form, not only the default, is blind to what its facts say and sees the rest.
#[test]
fn the_facts_of_every_form_hold() {
    use inscape::similarity::Change::{Rotation, Scale, Shift};
    let (x, y) = (Matrix::random(60, 5, 1), Matrix::random(60, 5, 2));
    let y = Matrix::from_fn(60, 5, |i, j| y.at(i, j) + x.at(i, j));
    let changes = [
        (Rotation, x.rotated(0.7)),
        (Scale, x.map(|v| 3.7 * v)),
        (Shift, Matrix::from_fn(60, 5, |i, j| x.at(i, j) + j as f64)),
    ];
    for name in [
        "procrustes[squared]",
        "procrustes[angular]",
        "procrustes[disparity]",
        "procrustes[raw]",
        "procrustes[raw,uncentred]",
        "procrustes[distance,uncentred]",
        "shape[alpha=0]",
        "shape[alpha=0,score=euclidean]",
        "shape[alpha=0.5]",
        "shape[alpha=0.5,whiten=power]",
        "shape[alpha=0.5,score=euclidean,whiten=power]",
        "nbs[rbf,sigma=2*median]",
        "relative[anchors=8,by=euclidean]",
        "relative[anchors=8,by=l1]",
        "relative[anchors=8,by=linf]",
    ] {
        let before = compare(name, &x.f64(), &y.f64());
        let claimed = metric(name).facts().blind_to;
        for (change, moved) in &changes {
            let moves = (compare(name, &moved.f64(), &y.f64()) - before).abs();
            let says = claimed.contains(change)
                || claimed.contains(&inscape::similarity::Change::Invertible) && *change != Shift;
            assert_eq!(
                moves < 1e-9 * before.abs().max(1.0),
                says,
                "{name} {change:?}: {moves:e}"
            );
        }
    }
}

#[test]
fn names_turn_into_metrics_and_back() {
    for (short, long) in [
        ("procrustes", "procrustes[distance,centred]"),
        ("procrustes[uncentred,raw]", "procrustes[raw,uncentred]"),
        ("shape", "shape[alpha=1,score=angular,whiten=mixed]"),
        (
            "shape[score=euclidean,alpha=0.25]",
            "shape[alpha=0.25,score=euclidean,whiten=mixed]",
        ),
        ("nbs", "nbs[linear]"),
        ("nbs[rbf]", "nbs[rbf,sigma=0.5*median]"),
        ("nbs[rbf,sigma=median]", "nbs[rbf,sigma=1*median]"),
        ("relative[by=l1]", "relative[anchors=16,by=l1]"),
    ] {
        assert_eq!(metric(short).to_string(), long);
        assert_eq!(metric(long).to_string(), long);
    }
    for wrong in [
        "procrustes[distance,raw]",
        "shape[alpha=1.5]",
        "shape[alpha=-0.1]",
        "shape[alpha=NaN]",
        "nbs[rbf,sigma=0*median]",
        "nbs[rbf,sigma=2]",
        "nbs[linear,sigma=2*median]",
        "relative[anchors=0]",
        "relative[by=l2]",
        "frechet[x]",
    ] {
        let found = wrong.parse::<inscape::similarity::Metric>();
        assert!(matches!(found, Err(Error::UnknownMetric { .. })), "{wrong}");
    }
    let x = Matrix::random(10, 3, 1).f64();
    let outside = shape_distance(&x, &x, 1.5, Score::Angular, Whitening::Mixed);
    assert!(matches!(outside, Err(Error::UnknownMetric { .. })));
}

// ---- what else follows the rotation

#[test]
fn the_frechet_distance_of_axis_aligned_clouds_is_a_sum() {
    let (x, y) = (
        waves(40, &[5.0, 2.0, 0.3], 1),
        waves(40, &[4.0, 1.0, 0.7], 7),
    );
    let shifted = Matrix::from_fn(40, 3, |i, j| y.at(i, j) + j as f64);
    let spread: f64 = [1.0f64, 1.0, -0.4].iter().map(|d| d * d / 39.0).sum();
    let found = frechet_distance(&x.f64(), &shifted.f64()).unwrap();
    close(found, 1.0 + 4.0 + spread, 1e-12);
    // Which row is which does not count.
    let order: Vec<usize> = (0..40).rev().collect();
    close(
        frechet_distance(&x.f64(), &shifted.permuted(&order).f64()).unwrap(),
        found,
        1e-12,
    );
    let narrow = Matrix::random(40, 2, 1).f64();
    let error = frechet_distance(&x.f64(), &narrow).unwrap_err();
    assert!(matches!(error, Error::ColumnsDiffer { .. }), "{error}");
}

#[test]
fn the_aligned_cosine_agrees_with_the_rotation_applied() {
    let (x, y) = (Matrix::random(30, 4, 1), Matrix::random(30, 4, 2));
    let y = Matrix::from_fn(30, 4, |i, j| y.at(i, j) + x.rotated(1.0).at(i, j));
    // About means of 0 the map of `align` is the same rotation with a scale.
    let doubled = |m: &Matrix| {
        Matrix::from_fn(60, 4, |i, j| {
            m.at(i % 30, j) * if i < 30 { 1.0 } else { -1.0 }
        })
    };
    let (x, y) = (doubled(&x), doubled(&y));
    let turned = align(&x.f64(), &y.f64()).unwrap().apply(&x.f64());
    let turned = Matrix {
        v: turned.to_data().try_to_vec::<f64>().unwrap(),
        ..x
    };
    let cosine = |i: usize| {
        let [aa, bb, ab] = [(&turned, &turned), (&y, &y), (&turned, &y)].map(|(a, b)| {
            a.row(i)
                .iter()
                .zip(b.row(i))
                .map(|(a, b)| a * b)
                .sum::<f64>()
        });
        ab / (aa * bb).sqrt()
    };
    let mean = (0..60).map(cosine).sum::<f64>() / 60.0;
    close(aligned_cosine(&x.f64(), &y.f64()).unwrap(), mean, 1e-12);
    let blank = Matrix::from_fn(60, 4, |i, j| if i == 3 { 0.0 } else { x.at(i, j) });
    let error = aligned_cosine(&blank.f64(), &y.f64()).unwrap_err();
    assert!(error.to_string().contains("no direction"), "{error}");
}

#[test]
fn relative_rows_agree_with_plain_loops() {
    let (x, anchors) = (Matrix::random(20, 5, 1), Matrix::random(4, 5, 2));
    let pairs = |i: usize, j: usize| x.row(i).iter().zip(anchors.row(j));
    for (by, plain) in [
        (
            Nearby::Cosine,
            &(|i, j| {
                let [aa, bb] = [x.row(i), anchors.row(j)]
                    .map(|r: &[f64]| r.iter().map(|v| v * v).sum::<f64>());
                pairs(i, j).map(|(a, b)| a * b).sum::<f64>() / (aa * bb).sqrt()
            }) as &dyn Fn(usize, usize) -> f64,
        ),
        (Nearby::Euclidean, &|i, j| {
            pairs(i, j)
                .map(|(a, b)| (a - b).powi(2))
                .sum::<f64>()
                .sqrt()
        }),
        (Nearby::L1, &|i, j| {
            pairs(i, j).map(|(a, b)| (a - b).abs()).sum()
        }),
        (Nearby::LInf, &|i, j| {
            pairs(i, j).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
        }),
    ] {
        let found = relative(&x.f64(), &anchors.f64(), by);
        let found = found.to_data().try_to_vec::<f64>().unwrap();
        (0..80).for_each(|at| close(found[at], plain(at / 4, at % 4), 1e-12));
    }
}

#[test]
fn joined_spaces_are_standardised_and_have_the_widths_they_say() {
    let (x, anchors) = (Matrix::random(20, 5, 1), Matrix::random(6, 5, 2));
    let by = [Nearby::Cosine, Nearby::L1, Nearby::LInf];
    let joined = |join| {
        let joined = relative_product(&x.f64(), &anchors.f64(), &by, join);
        (joined.dims(), joined.to_data().try_to_vec::<f64>().unwrap())
    };
    let (dims, side_by_side) = joined(Join::Concatenate);
    assert_eq!(dims, [20, 18]);
    let part = |i: usize, space: usize| &side_by_side[i * 18 + space * 6..][..6];
    for (i, space) in (0..20).flat_map(|i| (0..3).map(move |s| (i, s))) {
        close(part(i, space).iter().sum(), 0.0, 1e-12);
        close(
            part(i, space).iter().map(|v| v * v).sum::<f64>() / 6.0,
            1.0,
            1e-12,
        );
    }
    let ((_, sum), (dims, most)) = (joined(Join::Sum), joined(Join::Max));
    assert_eq!(dims, [20, 6]);
    for (at, (sum, most)) in sum.iter().zip(&most).enumerate() {
        let three = [0, 1, 2].map(|s| part(at / 6, s)[at % 6]);
        close(*sum, three.iter().sum(), 1e-12);
        close(*most, three.into_iter().fold(f64::MIN, f64::max), 0.0);
    }
}

#[test]
fn stitching_pairs_every_encoder_with_every_head() {
    let encoded = [1.0, 2.0].map(|v| Matrix::from_fn(3, 2, |_, _| v).f64());
    let heads = [10.0, 100.0, 1000.0].map(|by| move |x: burn::tensor::Tensor<2>| x * by);
    let table = stitched(&encoded, &heads, |y| y.clone().max().into_scalar::<f64>());
    assert_eq!(table, [[10.0, 100.0, 1000.0], [20.0, 200.0, 2000.0]]);
}

#[test]
fn a_planted_map_is_found_and_finds_the_partners() {
    let x = Matrix::random(60, 5, 1);
    let wide = Matrix::from_fn(60, 8, |i, j| if j < 5 { 3.0 * x.at(i, j) } else { 0.0 });
    let wide = wide.rotated(0.8).map(|v| v + 2.0);
    for (from, to) in [(&x, &wide), (&wide, &x)] {
        let map = align(&from.f64(), &to.f64()).unwrap();
        let miss = (map.apply(&from.f64()) - to.f64()).abs().max();
        assert!(miss.into_scalar::<f64>() < 1e-12);
        let single = (map.apply(&from.f32()) - to.f32()).abs().max();
        assert!(single.into_scalar::<f32>() < 1e-5);
        let order: Vec<usize> = (0..60).rev().collect();
        let turned = to.permuted(&order);
        let found = |k| precision_at_k(&map.apply(&from.f64()), &turned.f64(), &order, k);
        close(found(1).unwrap(), 1.0, 0.0);
    }
    let short = Matrix::random(59, 5, 2).f64();
    let error = align(&x.f64(), &short).unwrap_err();
    assert!(matches!(error, Error::RowsDiffer { .. }), "{error}");
    let flat = Matrix::from_fn(60, 2, |_, _| 1.0).f64();
    let error = align(&x.f64(), &flat).unwrap_err();
    assert!(error.to_string().contains("right"), "{error}");
}

/// Against sorting, ties included.
#[test]
fn precision_at_k_agrees_with_sorting() {
    let (q, c) = (Matrix::random(30, 3, 1), Matrix::random(12, 3, 2));
    let c = Matrix::from_fn(12, 3, |i, j| c.at(i - i % 2, j) * (1.0 + (i % 2) as f64));
    let partners: Vec<usize> = (0..30).map(|i| i % 12).collect();
    let cosine = |i: usize, j: usize| {
        let (a, b) = (q.row(i), c.row(j - j % 2));
        let ab: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
        ab / b.iter().map(|v| v * v).sum::<f64>().sqrt()
    };
    for k in [1, 2, 3, 12] {
        let is_found = |i: &usize| {
            let mut order: Vec<usize> = (0..12).collect();
            order.sort_by(|&a, &b| cosine(*i, b).total_cmp(&cosine(*i, a)));
            order[..k].contains(&partners[*i])
        };
        let share = (0..30).filter(is_found).count() as f64 / 30.0;
        close(
            precision_at_k(&q.f64(), &c.f64(), &partners, k).unwrap(),
            share,
            0.0,
        );
    }
    let mut bad = q.clone();
    bad.v[4] = f64::NAN;
    let error = precision_at_k(&bad.f64(), &c.f64(), &partners, 1).unwrap_err();
    assert!(error.to_string().contains("left"), "{error}");
}

// ---- the map

fn table(points: &Matrix) -> Vec<Vec<f64>> {
    let apart = |i: usize, j: usize| {
        let pairs = points.row(i).iter().zip(points.row(j));
        pairs.map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
    };
    let n = points.n;
    (0..n)
        .map(|i| (0..n).map(|j| apart(i, j)).collect())
        .collect()
}

#[test]
fn a_map_of_flat_points_has_their_distances() {
    let flat = Matrix::random(9, 2, 1);
    let wide = Matrix::from_fn(9, 4, |i, j| if j < 2 { flat.at(i, j) } else { 0.0 });
    let map = mds(&table(&wide.rotated(0.6)), 2).unwrap();
    close(map.shown, 1.0, 1e-12);
    close(map.negative, 0.0, 1e-12);
    let drawn = Matrix::from_fn(9, 2, |i, j| map.coordinates[i][j]);
    for (found, planted) in table(&drawn).concat().iter().zip(table(&flat).concat()) {
        close(*found, planted, 1e-7);
    }
    for axis in 0..2 {
        close((0..9).map(|i| drawn.at(i, axis)).sum(), 0.0, 1e-12);
        let largest = (0..9)
            .map(|i| drawn.at(i, axis))
            .fold(0.0, |m: f64, v| if v.abs() > m.abs() { v } else { m });
        assert!(largest > 0.0);
    }
}

/// Of orthogonal columns the axes are the columns, and the share shown is theirs of the squares.
#[test]
fn a_map_is_the_principal_axes_of_the_points() {
    let points = waves(12, &[3.0, 2.0, 1.0], 1);
    let map = mds(&table(&points), 2).unwrap();
    close(map.shown, 13.0 / 14.0, 1e-12);
    for (i, place) in map.coordinates.iter().enumerate() {
        close(place[0].abs(), points.at(i, 0).abs(), 1e-12);
        close(place[1].abs(), points.at(i, 1).abs(), 1e-12);
    }
    let spare = mds(&table(&points), 5).unwrap();
    assert!(spare.coordinates.iter().all(|c| c[3..] == [0.0, 0.0]));
}

#[test]
fn a_table_that_no_flat_space_holds_says_so() {
    // 0 to 2 is longer than the way over 1.
    let table = [[0.0, 1.0, 3.0], [1.0, 0.0, 1.0], [3.0, 1.0, 0.0]].map(Vec::from);
    let map = mds(&table, 2).unwrap();
    assert!(
        map.negative > 0.05 && map.shown + map.negative <= 1.0 + 1e-12,
        "{map:?}"
    );
    let refused = |table: [[f64; 2]; 2]| mds(&table.map(Vec::from), 2).unwrap_err().to_string();
    for (table, why) in [
        ([[0.0, 1.0], [2.0, 0.0]], "symmetric"),
        ([[0.0, -1.0], [-1.0, 0.0]], "below 0"),
        ([[0.0, 0.0], [0.0, 0.0]], "all distances are 0"),
        ([[1.0, 1.0], [1.0, 1.0]], "from itself"),
        ([[0.0, f64::NAN], [1.0, 0.0]], "row 0, column 1"),
    ] {
        let said = refused(table);
        assert!(said.contains(why), "{said}");
    }
}
