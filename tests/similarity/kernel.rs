//! The kernel metrics: golden values, plain loops, identities, and what is special about each.

use inscape::similarity::{
    Baseline, DistanceCorrelation, Error, Estimator, Kernel, Metric, Sigma, distance_correlation,
    hsic, linear_cka, minibatch_cka, null, rbf_cka,
};
use proptest::prelude::*;

use crate::common::{
    Golden, Matrix, close, compare, golden, goldens, hold, hold_on_wgpu, input, metric,
};

const GOLDENS: [(&str, &str); 23] = [
    ("cka_linear_angular", "cka_angular[biased]"),
    ("rv", "rv"),
    ("hsic_linear[estimator=biased]", "hsic[biased]"),
    ("hsic_linear[estimator=unbiased]", "hsic[unbiased]"),
    (
        "cka_rbf[estimator=biased,sigma=0.2*sqrt(median_all)]",
        "rbf_cka[biased,sigma=0.2*median]",
    ),
    (
        "cka_rbf[estimator=biased,sigma=0.5*sqrt(median_all)]",
        "rbf_cka[biased,sigma=0.5*median]",
    ),
    (
        "cka_rbf[estimator=biased,sigma=1.0*sqrt(median_all)]",
        "rbf_cka[biased,sigma=1*median]",
    ),
    (
        "cka_rbf[estimator=debiased,sigma=0.5*sqrt(median_all)]",
        "rbf_cka[unbiased,sigma=0.5*median]",
    ),
    (
        "cka_rbf[estimator=biased,sigma=1.0*sqrt(median_offdiag)]",
        "rbf_cka[biased,sigma=1*offdiag_median]",
    ),
    (
        "cka_rbf[estimator=biased,sigma=1.0_fixed,rows=l2-normalised]",
        "rbf_cka[biased,sigma=1,unit_rows]",
    ),
    (
        "cka_linear_minibatch[batch=50,drop_last=True]",
        "minibatch_cka[batch=50,drop_last]",
    ),
    (
        "cka_linear_minibatch[batch=64,drop_last=True]",
        "minibatch_cka[batch=64,drop_last]",
    ),
    (
        "cka_linear_minibatch[batch=64,drop_last=False]",
        "minibatch_cka[batch=64]",
    ),
    (
        "distance_correlation[estimator=biased]",
        "distance_correlation[biased]",
    ),
    (
        "distance_correlation_sq[estimator=biased]",
        "distance_correlation[biased_squared]",
    ),
    (
        "distance_correlation_sq[estimator=unbiased]",
        "distance_correlation[unbiased]",
    ),
    ("rv2", "rv2"),
    ("ensd[form=tr(K)tr(L)/tr(KL)]", "ensd[ratio]"),
    (
        "ensd[form=PR(x)PR(y)tr(KL)/(tr(K)tr(L)) (camillerb/ENSD code)]",
        "ensd[shared]",
    ),
    (
        "eigenspace_overlap[center=False,rtol=1e-06]",
        "eigenspace_overlap",
    ),
    (
        "subspace_overlap[top=10,space=sample]",
        "subspace_overlap[top=10]",
    ),
    (
        "grassmann_distance[top=10,space=sample]",
        "grassmann[top=10]",
    ),
    ("cka_linear[estimator=biased]", "linear_cka[biased]"),
];

/// 1e-8; angles that are 0 in exact arithmetic are about 1e-7 in the reference.
fn tolerance(g: &Golden) -> f64 {
    let zero = g.case == "rot" && (g.metric.starts_with("grass") || g.metric.starts_with("cka_a"));
    if zero { 1e-6 } else { g.value.abs() * 1e-8 }
}

#[test]
fn goldens_hold() {
    let goldens = goldens(&GOLDENS);
    assert_eq!(goldens.len(), 156);
    hold(&goldens, tolerance);
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn goldens_in_f32_on_wgpu() {
    hold_on_wgpu(&goldens(&GOLDENS));
}

// ---- plain loops

fn squares(x: &Matrix) -> Matrix {
    let square = |i: usize, j: usize| (0..x.d).map(|c| (x.at(i, c) - x.at(j, c)).powi(2)).sum();
    Matrix::from_fn(x.n, x.n, square)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    (values[(n - 1) / 2] + values[n / 2]) / 2.0
}

fn rbf(x: &Matrix, sigma: Sigma) -> Matrix {
    let squares = squares(x);
    let off = |(k, _): &(usize, &f64)| k / x.n != k % x.n;
    let sigma = match sigma {
        Sigma::Fixed(sigma) => sigma,
        Sigma::Median(factor) => factor * median(squares.v.clone()).sqrt(),
        Sigma::OffDiagonalMedian(factor) => {
            let off = squares.v.iter().enumerate().filter(off);
            factor * median(off.map(|(_, &v)| v).collect()).sqrt()
        }
    };
    squares.map(|square| (-square / (2.0 * sigma * sigma)).exp())
}

/// Centred as the estimator's definition has it.
fn centred(k: &Matrix, estimator: Estimator) -> Matrix {
    let unbiased = estimator == Estimator::Unbiased;
    let k = Matrix::from_fn(
        k.n,
        k.n,
        |i, j| if unbiased && i == j { 0.0 } else { k.at(i, j) },
    );
    let sums: Vec<f64> = (0..k.n).map(|i| k.row(i).iter().sum()).collect();
    let (total, n) = (sums.iter().sum::<f64>(), k.n as f64);
    let (few, all) = match unbiased {
        true => (n - 2.0, (n - 1.0) * (n - 2.0)),
        false => (n, n * n),
    };
    Matrix::from_fn(k.n, k.n, |i, j| match unbiased && i == j {
        true => 0.0,
        false => k.at(i, j) - (sums[i] + sums[j]) / few + total / all,
    })
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn aligned(k: &Matrix, l: &Matrix, estimator: Estimator) -> f64 {
    let (k, l) = (centred(k, estimator), centred(l, estimator));
    dot(&k.v, &l.v) / (dot(&k.v, &k.v) * dot(&l.v, &l.v)).sqrt()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn rbf_and_distances_agree_with_plain_loops(n in 12usize..50, dx in 1usize..12, dy in 1usize..12, seed: u64, factor in 0.4f64..2.0) {
        let (x, y) = (Matrix::random(n, dx, seed), Matrix::random(n, dy, seed ^ 1));
        // Some rows come twice, and more than once the same.
        let x = x.permuted(&(0..n).map(|i| i % (n - n / 4)).collect::<Vec<_>>());
        for estimator in [Estimator::Biased, Estimator::Unbiased] {
            for sigma in [Sigma::Fixed(3.0 * factor), Sigma::Median(factor), Sigma::OffDiagonalMedian(factor)] {
                let expected = aligned(&rbf(&x, sigma), &rbf(&y, sigma), estimator);
                close(rbf_cka(&x.f64(), &y.f64(), estimator, sigma).unwrap(), expected, 1e-9);
                close(rbf_cka(&x.f32(), &y.f32(), estimator, sigma).unwrap(), expected, 3e-5);
            }
        }
        let (a, b) = (squares(&x).map(f64::sqrt), squares(&y).map(f64::sqrt));
        let dcor = |form| distance_correlation(&x.f64(), &y.f64(), form).unwrap();
        let biased = aligned(&a, &b, Estimator::Biased);
        close(dcor(DistanceCorrelation::Unbiased), aligned(&a, &b, Estimator::Unbiased), 1e-9);
        close(dcor(DistanceCorrelation::BiasedSquared), biased, 1e-9);
        close(dcor(DistanceCorrelation::Biased), biased.sqrt(), 1e-9);
    }
}

// ---- identities

/// Biased linear CKA is the cosine of the doubly centred squared distances, and the RV coefficient; the
/// ratio form of ENSD is what CKA leaves of the participation ratios.
#[test]
fn names_of_one_number() {
    for case in ["main", "indep", "rank", "wide", "const", "dup"] {
        let (x, y) = (input(case, "X"), input(case, "Y"));
        let value = |name: &str| compare(name, &x.f64(), &y.f64());
        let own = |name: &str, m: &Matrix| compare(name, &m.f64(), &m.f64());
        let cka = value("linear_cka[biased]");
        close(value("rv"), cka, 0.0);
        close(
            aligned(&squares(&x), &squares(&y), Estimator::Biased),
            cka,
            1e-10,
        );
        let ratios = own("ensd[ratio]", &x) * own("ensd[ratio]", &y);
        let ratio = value("ensd[ratio]");
        close(ratio, ratios.sqrt() / cka, 1e-10 * ratio);
        close(value("ensd[shared]"), ratios / ratio, 1e-10 * ratio);
        close(value("cka_angular").cos(), cka, 1e-10);
    }
}

#[test]
fn a_rotated_copy_is_the_same() {
    let (x, y) = (input("rot", "X"), input("rot", "Y"));
    for name in [
        "rbf_cka",
        "rbf_cka[biased,sigma=0.2*offdiag_median]",
        "minibatch_cka",
        "rv2",
    ] {
        close(compare(name, &x.f64(), &y.f64()), 1.0, 1e-10);
    }
    for form in ["unbiased", "biased", "biased_squared"] {
        let name = format!("distance_correlation[{form}]");
        close(compare(&name, &x.f64(), &y.f64()), 1.0, 1e-10);
    }
    close(compare("subspace_overlap", &x.f64(), &y.f64()), 1.0, 1e-10);
    // Each angle to its own accuracy, not to the root of it.
    close(compare("grassmann", &x.f64(), &y.f64()), 0.0, 1e-6);
}

/// Wide kernels see only the leading term of the exponential, which is linear CKA.
#[test]
fn a_wide_kernel_is_a_linear_one() {
    let (x, y) = (input("main", "X"), input("main", "Y"));
    let wide = rbf_cka(&x.f64(), &y.f64(), Estimator::Biased, Sigma::Median(30.0)).unwrap();
    close(
        wide,
        linear_cka(&x.f64(), &y.f64(), Estimator::Biased).unwrap(),
        1e-3,
    );
}

#[test]
fn one_batch_is_the_whole() {
    let (x, y) = (Matrix::random(70, 9, 1), Matrix::random(70, 80, 2));
    for batch in [70, 68, 67] {
        // 2 and 3 rows that are left over are too few to count.
        let first = |m: &Matrix| Matrix::from_fn(batch, m.d, |i, j| m.at(i, j)).f64();
        let part = linear_cka(&first(&x), &first(&y), Estimator::Unbiased).unwrap();
        close(
            minibatch_cka(&x.f64(), &y.f64(), batch).unwrap(),
            part,
            1e-12,
        );
    }
}

/// The mean over shuffles is the value of the whole, as the paper says of its estimate.
#[test]
fn batches_estimate_the_whole() {
    let (x, y) = (input("main", "X"), input("main", "Y"));
    let whole = compare("linear_cka", &x.f64(), &y.f64());
    let draw = |seed: usize| {
        let mut order: Vec<usize> = (0..200).collect();
        order.sort_by_key(|i| ((i + 1) * (2 * seed + 7919) * 2_654_435_761) % 1_000_003);
        minibatch_cka(&x.permuted(&order).f64(), &y.permuted(&order).f64(), 50).unwrap()
    };
    let mean = (0..40).map(draw).sum::<f64>() / 40.0;
    close(mean, whole, 0.01);
}

// ---- what is special

#[test]
fn a_scale_far_from_one_is_seen_by_what_has_units() {
    let (x, y) = (Matrix::random(40, 5, 8), Matrix::random(40, 4, 9));
    for power in [-60, 60] {
        let factor = 2f64.powi(power);
        let far = x.map(|v| v * factor);
        let (near, there) = (
            hsic(&x.f64(), &y.f64(), Estimator::Biased, None).unwrap(),
            hsic(&far.f32(), &y.f32(), Estimator::Biased, None).unwrap(),
        );
        close(there / factor / factor, near, 1e-6 * near);
        let expected = aligned(
            &rbf(&x, Sigma::Fixed(1.0)),
            &rbf(&y, Sigma::Fixed(1.0)),
            Estimator::Biased,
        );
        let (x, y) = (far.f64(), y.map(|v| v * factor).f64());
        let fixed = rbf_cka(&x, &y, Estimator::Biased, Sigma::Fixed(factor));
        close(fixed.unwrap(), expected, 1e-9);
    }
}

/// A fixed width sees the scale, and rows at length 1 do not see their own.
#[test]
fn options_change_what_a_kernel_is_blind_to() {
    let (x, y) = (Matrix::random(60, 6, 3), Matrix::random(60, 5, 4));
    let rows = |m: &Matrix| Matrix::from_fn(m.n, m.d, |i, j| m.at(i, j) * (1.0 + (i % 5) as f64));
    for (name, scale, row_scale, shift) in [
        ("rbf_cka[biased,sigma=1]", false, false, true),
        ("rbf_cka[biased,sigma=1*median]", true, false, true),
        ("rbf_cka[biased,sigma=1,unit_rows]", true, true, false),
        ("hsic[biased,sigma=1]", false, false, true),
        ("hsic[biased,sigma=1*median]", true, false, true),
    ] {
        let here = compare(name, &x.f64(), &y.f64());
        let blind = |x: Matrix| (compare(name, &x.f64(), &y.f64()) - here).abs() < 1e-9;
        assert_eq!(blind(x.map(|v| 2.5 * v)), scale, "{name}");
        assert_eq!(blind(rows(&x)), row_scale, "{name}");
        assert_eq!(blind(x.map(|v| v + 0.7)), shift, "{name}");
        assert!(blind(x.rotated(0.9)), "{name}");
    }
}

#[test]
fn what_has_no_value_says_why() {
    let y = Matrix::random(20, 4, 1);
    let mostly_equal = Matrix::from_fn(20, 3, |i, j| if i < 15 { 1.0 } else { (i * 3 + j) as f64 });
    let identity = Matrix::from_fn(20, 20, |i, j| f64::from(u8::from(i == j)));
    let flat = Matrix::from_fn(20, 3, |_, j| j as f64);
    let line = Matrix::from_fn(20, 3, |i, j| i as f64 * j as f64);
    for (x, name, words) in [
        (&mostly_equal, "rbf_cka", "median distance is 0"),
        (
            &mostly_equal,
            "hsic[biased,sigma=1*median]",
            "median distance is 0",
        ),
        (&flat, "rbf_cka[biased,sigma=1]", "equal"),
        (&flat, "distance_correlation", "equal"),
        (&identity, "distance_correlation[unbiased]", "equally far"),
        (&identity, "minibatch_cka", "not positive"),
        (&flat, "ensd", "equal"),
        (
            &line,
            "subspace_overlap[top=2]",
            "fewer principal components",
        ),
        (&line, "grassmann[top=2]", "fewer principal components"),
    ] {
        for (a, b) in [(x.f64(), y.f64()), (x.f32(), y.f32())] {
            let said = metric(name).compare(&a, &b).unwrap_err().to_string();
            assert!(
                said.contains("left") && said.contains(words),
                "{name}: {said}"
            );
        }
    }
    // Independence of a constant is no 0 / 0.
    close(
        hsic(&flat.f64(), &y.f64(), Estimator::Biased, None).unwrap(),
        0.0,
        0.0,
    );
    let apart = |k: usize| {
        Matrix::from_fn(4, 1, move |i, _| {
            [[1., 1., -1., -1.], [1., -1., 1., -1.]][k][i]
        })
    };
    let said = metric("ensd[ratio]").compare(&apart(0).f64(), &apart(1).f64());
    assert!(matches!(said, Err(Error::Undefined { .. })), "{said:?}");
}

/// In f32 half a distance of 1e-4 beside an offset would be rounding; pairs so near are taken from the
/// differences.
#[test]
fn nearly_equal_rows_do_not_become_noise() {
    let near = |m: Matrix| {
        let near = Matrix::from_fn(60, m.d, |i, j| m.at(i / 2, j) + 1e-4 * m.at(59 - i, j));
        near.map(|v| f64::from(v as f32))
    };
    let (x, y) = (
        near(Matrix::random(60, 40, 3)),
        near(Matrix::random(60, 5, 4)),
    );
    for name in [
        "distance_correlation[unbiased]",
        "rbf_cka[unbiased,sigma=0.001*offdiag_median]",
    ] {
        let (single, double) = (
            compare(name, &x.f32(), &y.f32()),
            compare(name, &x.f64(), &y.f64()),
        );
        close(single, double, 2e-6);
    }
}

#[test]
fn names_turn_into_metrics_and_back() {
    for (short, long) in [
        ("rv", "linear_cka[biased]"),
        ("rbf_cka", "rbf_cka[unbiased,sigma=0.5*median]"),
        (
            "rbf_cka[sigma=2*offdiag_median,biased]",
            "rbf_cka[biased,sigma=2*offdiag_median]",
        ),
        (
            "rbf_cka[unit_rows,sigma=1.0]",
            "rbf_cka[unbiased,sigma=1,unit_rows]",
        ),
        (
            "minibatch_cka[drop_last]",
            "minibatch_cka[batch=64,drop_last]",
        ),
        ("cka_angular[unbiased]", "cka_angular[unbiased]"),
        ("hsic[sigma=1]", "hsic[unbiased,sigma=1]"),
        (
            "distance_correlation[biased_squared]",
            "distance_correlation[biased_squared]",
        ),
        ("ensd[ratio]", "ensd[ratio]"),
        ("grassmann[top=3]", "grassmann[top=3]"),
    ] {
        assert_eq!(metric(short).to_string(), long);
        assert_eq!(metric(long), metric(short));
    }
    for wrong in [
        "rv[biased]",
        "rbf_cka[sigma=]",
        "rbf_cka[sigma=0]",
        "rbf_cka[sigma=-1*median]",
        "rbf_cka[sigma=1*]",
        "rbf_cka[sigma=inf]",
        "rbf_cka[sigma=1*mean]",
        "hsic[sigma=x]",
        "minibatch_cka[batch=3]",
        "subspace_overlap[top=0]",
    ] {
        assert!(wrong.parse::<Metric>().is_err(), "{wrong}");
    }
    let x = Matrix::random(10, 3, 1).f32();
    for wrong in [
        rbf_cka(&x, &x, Estimator::Biased, Sigma::Fixed(0.0)),
        rbf_cka(&x, &x, Estimator::Biased, Sigma::Median(f64::NAN)),
        hsic(&x, &x, Estimator::Biased, Some(Sigma::Fixed(-1.0))),
        minibatch_cka(&x, &x, 3),
    ] {
        assert!(
            matches!(wrong, Err(Error::UnknownMetric { .. })),
            "{wrong:?}"
        );
    }
}

/// The permutation test: dependence without correlation is found by an RBF kernel and not by a linear
/// one; independent sides are not.
#[test]
fn hsic_with_shuffles_tests_independence() {
    let noise = Matrix::random(80, 2, 6);
    let mirrored = |i: usize| noise.at(i / 2, 0) * if i.is_multiple_of(2) { 1.0 } else { -1.0 };
    let x = Matrix::from_fn(80, 1, |i, _| mirrored(i));
    let square = Matrix::from_fn(80, 1, |i, _| x.at(i, 0).powi(2) + 0.3 * noise.at(i / 2, 1));
    let other = Matrix::random(80, 1, 7);
    let p = |y: &Matrix, sigma: Option<Sigma>| {
        let metric = Kernel::Hsic {
            estimator: Estimator::Biased,
            sigma,
        };
        null(
            &x.f64(),
            &y.f64(),
            metric.into(),
            Baseline::Rows,
            199,
            3,
            |_, _| (),
        )
        .unwrap()
        .p
    };
    let median = Some(Sigma::OffDiagonalMedian(1.0));
    assert!(p(&square, median) < 0.01);
    assert!(p(&other, median) > 0.05);
    assert!(p(&square, None) > 0.05);
    println!(
        "p: square {} and linear {}, independent {}",
        p(&square, median),
        p(&square, None),
        p(&other, median)
    );
}

/// Shuffles of what is kept are what is kept of shuffles.
#[test]
fn reordered_rows_are_prepared_rows() {
    let (x, y) = (Matrix::random(50, 60, 3), Matrix::random(50, 5, 4));
    for name in [
        "linear_cka",
        "rbf_cka",
        "distance_correlation",
        "hsic[sigma=1]",
        "grassmann[top=3]",
    ] {
        let with = |x: &Matrix, seed: u64| {
            null(
                &x.f64(),
                &y.f64(),
                metric(name),
                Baseline::Rows,
                20,
                seed,
                |_, _| (),
            )
            .unwrap()
        };
        let found = with(&x, 1);
        assert!(
            found.sd > 0.0 && (found.mean - found.value).abs() < 6.0 * found.sd.max(0.01),
            "{name}: {found:?}"
        );
    }
}

#[test]
fn the_golden_of_the_whole_is_near_that_of_batches() {
    let whole = golden("main/cka_linear[estimator=debiased]");
    close(
        golden("main/cka_linear_minibatch[batch=50,drop_last=True]"),
        whole,
        0.02,
    );
}

/// Values whose squares vanish or overflow, and a side that is one of them only in part.
#[test]
fn values_far_from_one_have_the_alignment_of_those_near_it() {
    let (x, y) = (Matrix::random(40, 6, 1), Matrix::random(40, 5, 2));
    let expected = compare("linear_cka[unbiased]", &x.f64(), &y.f64());
    for scale in [1e-200, 1e200, 1e-9, 1e12] {
        let far = Matrix::from_fn(40, 6, |i, j| x.at(i, j) * scale);
        let found = compare("linear_cka[unbiased]", &far.f64(), &y.f64());
        close(found, expected, 1e-12);
    }
}
