//! Metrics of nearest neighbours: golden values, plain loops, ties, blocks.

use burn::tensor::Tensor;
use inscape::similarity::{
    Baseline, Error, Estimator, Metric, Nearness, Neighbours, cknna, cycle_knn, knn_jaccard,
    knn_rank, lcs_knn, mutual_knn, null, second_order_cosine,
};
use proptest::prelude::*;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::common::{Golden, Matrix, close, compare, goldens, gpu, hold, metric, misses};

const GOLDENS: [(&str, &str); 8] = [
    ("knn_jaccard[k=10,metric=cosine]", "knn_jaccard[k=10]"),
    ("knn_rank_similarity[k=10,metric=cosine]", "knn_rank[k=10]"),
    ("cycle_knn[k=10,metric=cosine]", "cycle_knn[k=10]"),
    ("lcs_knn[k=10,metric=cosine]", "lcs_knn[k=10]"),
    ("second_order_cosine[k=10]", "second_order_cosine[k=10]"),
    (
        "cknna[k=10,unbiased=True,eps=0.0,rows=l2-normalised]",
        "cknna[unbiased,k=10]",
    ),
    (
        "cknna[k=10,unbiased=True,eps=1e-06,rows=l2-normalised]",
        "cknna[unbiased,k=10,eps=1e-6]",
    ),
    (
        "cknna[k=10,unbiased=False,eps=0.0,rows=l2-normalised]",
        "cknna[biased,k=10]",
    ),
];

const NAMES: [&str; 9] = [
    "mutual_knn[k=3,by=cosine]",
    "knn_jaccard[k=3,by=cosine]",
    "knn_jaccard[k=3,by=euclidean]",
    "knn_rank[k=3]",
    "cycle_knn[k=3]",
    "lcs_knn[k=3]",
    "second_order_cosine[k=3]",
    "cknna[unbiased,k=3,eps=0]",
    "cknna[biased,k=3,eps=0]",
];

#[test]
fn goldens_hold() {
    let goldens = goldens(&GOLDENS);
    assert_eq!(goldens.len(), 56);
    hold(&goldens, |g: &Golden| g.value.abs() * 1e-12);
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn goldens_in_f32_on_wgpu() {
    let gpu = gpu();
    let make = |m: &Matrix| m.f32_on(&gpu);
    let misses = misses(&goldens(&GOLDENS), make, |g| g.atol_f32, |g| g.value);
    assert!(misses.is_empty(), "{misses:#?}");
}

// ---- plain loops

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn cosine(m: &Matrix, i: usize, j: usize) -> f64 {
    let (a, b) = (m.row(i), m.row(j));
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    match lengths > 0.0 {
        true if a == b => 1.0,
        true => dot(a, b) / lengths,
        false => 0.0,
    }
}

fn near(m: &Matrix, by: Nearness, i: usize, j: usize) -> f64 {
    let (a, b) = (m.row(i), m.row(j));
    match by {
        Nearness::Cosine => cosine(m, i, j),
        Nearness::Inner => dot(a, b),
        Nearness::Euclidean => -a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>(),
    }
}

/// A sort that keeps the lower index first, of all rows but `i`.
fn list(m: &Matrix, by: Nearness, k: usize, i: usize) -> Vec<usize> {
    let mut others: Vec<usize> = (0..m.n).filter(|&j| j != i).collect();
    others.sort_by(|&a, &b| near(m, by, i, b).total_cmp(&near(m, by, i, a)));
    others.truncate(k);
    others
}

fn lcs(a: &[usize], b: &[usize]) -> usize {
    match (a.split_first(), b.split_first()) {
        (Some((x, a)), Some((y, b))) if x == y => 1 + lcs(a, b),
        (Some((_, rest)), Some((_, other))) => lcs(rest, b).max(lcs(a, other)),
        _ => 0,
    }
}

fn rank_similarity(a: &[usize], b: &[usize]) -> f64 {
    let place = |list: &[usize], v| list.iter().position(|w| *w == v).unwrap() as f64 + 1.0;
    let both: Vec<usize> = a.iter().copied().filter(|v| b.contains(v)).collect();
    let weight = |&v: &usize| {
        let (p, q) = (place(a, v), place(b, v));
        2.0 / ((1.0 + (p - q).abs()) * (p + q))
    };
    let most: f64 = (1..=both.len()).map(|q| 1.0 / q as f64).sum();
    match both.is_empty() {
        true => 0.0,
        false => both.iter().map(weight).sum::<f64>() / most,
    }
}

fn plain_second_order(x: &Matrix, y: &Matrix, k: usize) -> f64 {
    let of_row = |i: usize| {
        let mut union = list(x, Nearness::Cosine, k, i);
        union.extend(list(y, Nearness::Cosine, k, i));
        union.sort_unstable();
        union.dedup();
        let to = |m: &Matrix| {
            let distance = |&j: &usize| 1.0 - cosine(m, i, j);
            union.iter().map(distance).collect::<Vec<_>>()
        };
        let (p, q) = (to(x), to(y));
        match (dot(&p, &p) > 0.0, dot(&q, &q) > 0.0) {
            (true, true) => dot(&p, &q) / (dot(&p, &p) * dot(&q, &q)).sqrt(),
            (p, q) => f64::from(u8::from(p == q)),
        }
    };
    (0..x.n).map(of_row).sum::<f64>() / x.n as f64
}

/// `n × n` matrices and three products of them for each HSIC.
fn plain_cknna(x: &Matrix, y: &Matrix, k: usize, estimator: Estimator) -> f64 {
    let n = x.n;
    let mask = |m: &Matrix| {
        let mut mask = Matrix::from_fn(n, n, |_, _| 0.0);
        for i in 0..n {
            let others = match estimator {
                Estimator::Unbiased => k,
                Estimator::Biased => k - 1,
            };
            for j in list(m, Nearness::Cosine, others, i) {
                mask.v[i * n + j] = 1.0;
            }
            mask.v[i * n + i] = (k - others) as f64;
        }
        mask
    };
    let kernel = |m: &Matrix| Matrix::from_fn(n, n, |i, j| cosine(m, i, j));
    let times = |a: &Matrix, b: &Matrix| Matrix::from_fn(n, n, |i, j| a.at(i, j) * b.at(i, j));
    let product = |a: &Matrix, b: &Matrix| {
        Matrix::from_fn(n, n, |i, j| (0..n).map(|c| a.at(i, c) * b.at(c, j)).sum())
    };
    let trace = |a: &Matrix| (0..n).map(|i| a.at(i, i)).sum::<f64>();
    let total = |a: &Matrix| a.v.iter().sum::<f64>();
    let centring = Matrix::from_fn(n, n, |i, j| f64::from(u8::from(i == j)) - 1.0 / n as f64);
    let hsic = |a: &Matrix, b: &Matrix| match estimator {
        Estimator::Unbiased => {
            let (m, ab) = (n as f64, product(a, b));
            let value = trace(&ab) + total(a) * total(b) / ((m - 1.0) * (m - 2.0))
                - 2.0 * total(&ab) / (m - 2.0);
            value / (m * (m - 3.0))
        }
        Estimator::Biased => trace(&product(&product(a, &centring), &product(b, &centring))),
    };
    let (mx, my, kx, ky) = (mask(x), mask(y), kernel(x), kernel(y));
    let (a, b) = (times(&mx, &kx), times(&my, &ky));
    let both = times(&mx, &my);
    hsic(&times(&both, &kx), &times(&both, &ky)) / (hsic(&a, &a) * hsic(&b, &b)).sqrt()
}

fn plain(name: &str, x: &Matrix, y: &Matrix) -> f64 {
    let Metric::Neighbours(metric) = metric(name) else {
        panic!("{name}")
    };
    let of_rows = |k: usize, by: Nearness, f: &dyn Fn(&[usize], &[usize]) -> f64| {
        let value = |i: usize| f(&list(x, by, k, i), &list(y, by, k, i));
        (0..x.n).map(value).sum::<f64>() / x.n as f64
    };
    let both = |a: &[usize], b: &[usize]| a.iter().filter(|v| b.contains(v)).count() as f64;
    let cosine = Nearness::Cosine;
    match metric {
        Neighbours::MutualKnn { k, by } => of_rows(k, by, &|a, b| both(a, b) / k as f64),
        Neighbours::KnnJaccard { k, by } => {
            of_rows(k, by, &|a, b| both(a, b) / (2.0 * k as f64 - both(a, b)))
        }
        Neighbours::KnnRank { k } => of_rows(k, cosine, &rank_similarity),
        Neighbours::LcsKnn { k } => of_rows(k, cosine, &|a, b| lcs(a, b) as f64),
        Neighbours::CycleKnn { k } => {
            let back = |i: &usize| {
                let there = list(y, cosine, k, *i);
                there.iter().any(|&j| list(x, cosine, k, j).contains(i))
            };
            (0..x.n).filter(back).count() as f64 / x.n as f64
        }
        Neighbours::SecondOrderCosine { k } => plain_second_order(x, y, k),
        Neighbours::Cknna { k, estimator, .. } => plain_cknna(x, y, k, estimator),
        other => panic!("no plain form of {other:?}"),
    }
}

/// A value, or none where it is undefined.
fn value(name: &str, x: &Tensor<2>, y: &Tensor<2>) -> Option<f64> {
    match metric(name).compare(x, y) {
        Ok(value) => Some(value),
        Err(Error::At { source, .. }) if matches!(*source, Error::Undefined { .. }) => None,
        Err(other) => panic!("{name}: {other}"),
    }
}

fn agree(name: &str, x: &Matrix, y: &Matrix) {
    let expected = plain(name, x, y);
    for (found, tolerance) in [
        (value(name, &x.f64(), &y.f64()), 1e-9),
        (value(name, &x.f32(), &y.f32()), 1e-5),
    ] {
        match found {
            Some(found) => close(found, expected, tolerance * expected.abs().max(1.0)),
            None => assert!(!expected.is_finite() || name.starts_with("cknna"), "{name}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn agrees_with_plain_loops(n in 8usize..40, dx in 2usize..50, dy in 2usize..50, seed: u64) {
        let (x, y) = (Matrix::random(n, dx, seed), Matrix::random(n, dy, seed ^ 1));
        for name in NAMES {
            agree(name, &x, &y);
        }
    }

    /// Rows that come many times over, one of them of zeros.
    #[test]
    fn equal_rows_keep_the_lower_index_first(groups in 3usize..8, n in 12usize..40, seed: u64) {
        let base = Matrix::random(groups, 5, seed);
        let base = Matrix::from_fn(groups, 5, |i, j| if i == 1 { 0.0 } else { base.at(i, j) });
        let x = Matrix::from_fn(n, 5, |i, j| base.at(i * i % groups, j));
        let y = Matrix::random(n, 4, seed ^ 2);
        for name in NAMES {
            agree(name, &x, &y);
            agree(name, &y, &x);
        }
    }
}

/// Half of the rows are one row, so that most lists are all ties.
#[test]
fn a_row_that_comes_very_often_stays_cheap_and_right() {
    let (x, y) = (Matrix::random(3000, 4, 1), Matrix::random(3000, 4, 2));
    let x = Matrix::from_fn(3000, 4, |i, j| x.at(if i % 2 == 0 { 0 } else { i }, j));
    for by in [Nearness::Cosine, Nearness::Euclidean] {
        let lists = |m: &Matrix| selected(m, by, 5);
        let (a, b) = (lists(&x), lists(&y));
        let both = |(a, b): (&Vec<usize>, &Vec<usize>)| a.iter().filter(|v| b.contains(v)).count();
        let expected = a.iter().zip(&b).map(both).sum::<usize>() as f64 / (5.0 * 3000.0);
        close(
            mutual_knn(&x.f32(), &y.f32(), 5, by).unwrap(),
            expected,
            1e-12,
        );
    }
}

/// The lists by keeping the best of a pass over all rows.
fn selected(m: &Matrix, by: Nearness, k: usize) -> Vec<Vec<usize>> {
    let row = |i: usize| {
        let mut best: Vec<(f64, usize)> = vec![];
        for j in (0..m.n).filter(|&j| j != i) {
            let value = near(m, by, i, j);
            if best.len() < k || value > best[k - 1].0 {
                let at = best.partition_point(|b| b.0 >= value);
                best.insert(at, (value, j));
                best.truncate(k);
            }
        }
        best.into_iter().map(|b| b.1).collect()
    };
    (0..m.n).map(row).collect()
}

/// More rows than a block of products has columns (8,192).
#[test]
fn many_rows_go_through_more_than_one_block() {
    let (n, k) = (8500, 4);
    let (x, y) = (Matrix::random(n, 3, 3), Matrix::random(n, 3, 4));
    let y = Matrix::from_fn(n, 3, |i, j| x.at(i, j) + 0.05 * y.at(i, j));
    let (a, b) = (
        selected(&x, Nearness::Euclidean, k),
        selected(&y, Nearness::Euclidean, k),
    );
    let both = |(a, b): (&Vec<usize>, &Vec<usize>)| {
        let s = a.iter().filter(|v| b.contains(v)).count() as f64;
        s / (2.0 * k as f64 - s)
    };
    let expected = a.iter().zip(&b).map(both).sum::<f64>() / n as f64;
    assert!(expected > 0.05 && expected < 0.9, "{expected}");
    let found = knn_jaccard(&x.f32(), &y.f32(), k, Nearness::Euclidean).unwrap();
    close(found, expected, 1e-9);
}

/// Candidates chosen on the device, against those chosen on the host, over more than one block.
#[test]
#[ignore = "needs a wgpu adapter"]
fn candidates_chosen_there_are_those_chosen_here() {
    let gpu = gpu();
    let names = [
        "lcs_knn[k=6]",
        "knn_jaccard[by=euclidean]",
        "mutual_knn[by=inner]",
    ];
    for (n, names) in [(20, &names[..]), (2500, &names), (8400, &names[..1])] {
        let (x, y) = (Matrix::random(n, 6, 5), Matrix::random(n, 5, 6));
        let x = Matrix::from_fn(n, 6, |i, j| x.at(i - i % 3, j));
        for name in names {
            let there = compare(name, &x.f32_on(&gpu), &y.f32_on(&gpu));
            assert_eq!(there, compare(name, &x.f32(), &y.f32()), "{name} {n}");
        }
    }
}

// ---- facts

#[test]
fn equal_sides_give_what_the_facts_say() {
    let x = Matrix::random(60, 7, 1);
    for name in NAMES {
        for make in [Matrix::f32, Matrix::f64] {
            let value = compare(name, &make(&x), &make(&x));
            match metric(name).facts().same {
                Some(same) => close(value, same, 1e-12),
                None => assert!(value > 0.9 && value <= 1.0, "{name}: {value}"),
            }
        }
    }
    let damped = metric("cknna[eps=1e-6]");
    assert!(damped.facts().same.is_none());
    assert!(damped.compare(&x.f64(), &x.f64()).unwrap() < 1.0 - 1e-7);
}

#[test]
fn only_what_is_symmetric_says_so() {
    let (x, y) = (Matrix::random(60, 7, 1), Matrix::random(60, 5, 2));
    let y = Matrix::from_fn(60, 5, |i, j| x.at(i, j) + 0.5 * y.at(i, j));
    for name in NAMES {
        let (there, back) = (
            compare(name, &x.f64(), &y.f64()),
            compare(name, &y.f64(), &x.f64()),
        );
        match metric(name).facts().symmetric {
            true => close(there, back, 1e-12),
            false => assert!((there - back).abs() > 1e-6, "{name}: {there} {back}"),
        }
    }
}

/// A draw by chance shuffles what is kept, which is to say what shuffled rows say.
#[test]
fn a_shuffle_of_what_is_kept_is_a_shuffle_of_the_rows() {
    let (x, y) = (Matrix::random(60, 7, 1), Matrix::random(60, 5, 2));
    let mut order: Vec<usize> = (0..60).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(3));
    for name in NAMES {
        for make in [Matrix::f32, Matrix::f64] {
            let draw = null(
                &make(&x),
                &make(&y),
                metric(name),
                Baseline::Rows,
                1,
                3,
                |_, _| (),
            );
            let shuffled = compare(name, &make(&x), &make(&y.permuted(&order)));
            close(draw.unwrap().mean, shuffled, 1e-12);
        }
    }
}

/// Unrelated representations agree as much as chance has it.
#[test]
fn unrelated_rows_agree_by_chance() {
    let (n, k) = (600, 10);
    let (x, y) = (
        Matrix::random(n, 20, 1).f32(),
        Matrix::random(n, 30, 2).f32(),
    );
    let chance = k as f64 / (n - 1) as f64;
    let mutual = mutual_knn(&x, &y, k, Nearness::Cosine).unwrap();
    close(mutual, chance, 0.005);
    let jaccard = knn_jaccard(&x, &y, k, Nearness::Cosine).unwrap();
    close(jaccard, chance / 2.0, 0.003);
    let lcs = lcs_knn(&x, &y, k).unwrap();
    close(lcs, mutual * k as f64, 0.02);
    close(cknna(&x, &y, k, Estimator::Unbiased).unwrap(), 0.0, 0.02);
    assert!(knn_rank(&x, &y, k).unwrap() < 0.1);
    assert!(cycle_knn(&x, &y, k).unwrap() < 0.3);
    // Never near 0: distances are positive.
    assert!(second_order_cosine(&x, &y, k).unwrap() > 0.6);
}

#[test]
fn distances_of_zero_agree_only_with_each_other() {
    let same = Matrix::from_fn(12, 3, |_, j| 1.0 + j as f64);
    let other = Matrix::random(12, 3, 1);
    let name = "second_order_cosine[k=3]";
    for make in [Matrix::f32, Matrix::f64] {
        assert_eq!(compare(name, &make(&same), &make(&same)), 1.0);
        assert_eq!(compare(name, &make(&same), &make(&other)), 0.0);
    }
}

#[test]
fn cknna_of_nothing_is_undefined() {
    let (zero, y) = (Matrix::from_fn(12, 3, |_, _| 0.0), Matrix::random(12, 3, 1));
    for name in ["cknna[k=3]", "cknna[biased,k=3]"] {
        let error = metric(name).compare(&y.f32(), &zero.f32()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("right") && text.contains("HSIC"), "{text}");
    }
    let three = Matrix::random(3, 3, 1).f32();
    let error = metric("cknna[k=1]").compare(&three, &three).unwrap_err();
    assert!(
        matches!(error, Error::TooFewRows { needed: 4, .. }),
        "{error}"
    );
}

#[test]
fn names_turn_into_metrics_and_back() {
    for name in NAMES {
        assert_eq!(metric(name).to_string(), name);
    }
    for (short, long) in [
        ("knn_jaccard[by=inner]", "knn_jaccard[k=10,by=inner]"),
        ("cknna", "cknna[unbiased,k=10,eps=0]"),
        (
            "cknna[eps=1e-6,debiased]",
            "cknna[unbiased,k=10,eps=0.000001]",
        ),
    ] {
        assert_eq!(metric(short).to_string(), long);
        assert_eq!(metric(long), metric(short));
    }
    for wrong in [
        "knn_rank[by=cosine]",
        "lcs_knn[k=0]",
        "cknna[eps=-1]",
        "cknna[eps=NaN]",
        "cknna[eps=inf]",
        "cycle_knn[k]",
    ] {
        assert!(wrong.parse::<Metric>().is_err(), "{wrong}");
    }
    let x = Matrix::random(10, 3, 1).f32();
    for made in [
        Neighbours::KnnRank { k: 0 },
        Neighbours::Cknna {
            k: 2,
            estimator: Estimator::Biased,
            eps: f64::NAN,
        },
    ] {
        let error = Metric::from(made).compare(&x, &x).unwrap_err();
        assert!(matches!(error, Error::UnknownMetric { .. }), "{error}");
    }
}
