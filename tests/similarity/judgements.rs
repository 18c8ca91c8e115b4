//! Human judgements: what a representation foretells of them, and a planted map that is found again.

use inscape::similarity::{
    Error, Glocal, HumanAlignment, Nearness, OddOneOut, mutual_knn, odd_one_out_accuracy,
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::common::{Matrix, close};

const D: usize = 12;
const SEEN: usize = 3;

/// What a person sees: a turn of the features, of which only the first three count, by turns more.
fn seen(x: &Matrix) -> Matrix {
    let turned = x.rotated(0.8);
    Matrix::from_fn(x.n, SEEN, |i, j| turned.at(i, j) * (2.0 + j as f64))
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Judgements by the inner products of `z`.
fn judgements(z: &Matrix, count: usize, seed: u64) -> Vec<OddOneOut> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut draw = || {
        let rows = rand::seq::index::sample(&mut rng, z.n, 3).into_vec();
        let near = |at: usize| dot(z.row(rows[(at + 1) % 3]), z.row(rows[(at + 2) % 3]));
        let odd = (0..3)
            .max_by(|&a, &b| near(a).total_cmp(&near(b)))
            .expect("three");
        OddOneOut {
            pair: [rows[(odd + 1) % 3], rows[(odd + 2) % 3]],
            odd: rows[odd],
        }
    };
    (0..count).map(|_| draw()).collect()
}

#[test]
fn accuracy_counts_the_judgements_that_agree() {
    let (x, z) = (Matrix::random(60, D, 1), Matrix::random(60, 4, 2));
    let own = judgements(&z, 500, 3);
    let accuracy = |m: &Matrix, by| odd_one_out_accuracy(&m.f64(), &own, by).unwrap();
    assert_eq!(accuracy(&z, Nearness::Inner), 1.0);
    close(accuracy(&x, Nearness::Inner), 1.0 / 3.0, 0.08);
    // By hand: 3, 4 and 5 on a line; 4 and 5 are as near as 3 and 4, which is no answer.
    let line = Matrix::from_fn(3, 1, |i, _| 3.0 + i as f64).f32();
    let judged = |pair: [usize; 2], odd: usize, by| {
        odd_one_out_accuracy(&line, &[OddOneOut { pair, odd }], by).unwrap()
    };
    assert_eq!(judged([1, 2], 0, Nearness::Inner), 1.0);
    assert_eq!(judged([0, 1], 2, Nearness::Inner), 0.0);
    assert_eq!(judged([0, 1], 2, Nearness::Euclidean), 0.0);
    assert_eq!(judged([1, 2], 0, Nearness::Euclidean), 0.0);
    assert_eq!(judged([1, 2], 0, Nearness::Cosine), 0.0);
}

/// A map is learned on some judgements and holds for others, on other inputs; the local term keeps the
/// neighbours that the judgements alone would give up.
#[test]
fn planted_judgements_are_foretold_and_neighbours_are_kept() {
    let (x, others) = (Matrix::random(300, D, 4), Matrix::random(300, D, 5));
    let given = judgements(&seen(&x), 4000, 6);
    let held_out = judgements(&seen(&others), 1000, 7);
    let measured =
        |x: &burn::tensor::Tensor<2>| odd_one_out_accuracy(x, &held_out, Nearness::Inner).unwrap();
    let before = measured(&others.f32());
    let mut found = vec![];
    for alpha in [0.0, 0.02, 0.1, 0.5, 1.0] {
        let options = Glocal {
            alpha,
            lambda: 1e-3,
            steps: 400,
            rate: 1e-2,
            ..Glocal::default()
        };
        let map = HumanAlignment::fit(&x.f32(), &given, &x.f32(), &options).unwrap();
        let moved = map.apply(&others.f32());
        let kept = mutual_knn(&others.f32(), &moved, 10, Nearness::Cosine).unwrap();
        let judged = measured(&moved);
        println!("alpha {alpha}: {before:.3} to {judged:.3}, neighbours kept {kept:.3}");
        found.push((judged, kept));
    }
    // The more the local term weighs, the less of the judgements and the more of the neighbours.
    for pair in found.windows(2) {
        let [(judged, kept), (less, more)] = [pair[0], pair[1]];
        assert!(less < judged + 0.02 && more > kept, "{found:?}");
    }
    assert!(before < 0.6 && found[0].0 > 0.95, "{before} {found:?}");
    assert!(
        found[2].0 > before + 0.3 && found[2].1 > found[0].1 + 0.1,
        "{found:?}"
    );
    assert!(found[4].0 < before + 0.02 && found[4].1 > 0.99, "{found:?}");
}

/// Scaling the features changes nothing but the scale of `W`, and the same seed gives the same map.
#[test]
fn the_unit_of_the_features_does_not_matter() {
    let x = Matrix::random(80, 5, 8);
    let given = judgements(&Matrix::random(80, 3, 9), 600, 10);
    let options = Glocal {
        steps: 30,
        batch: 100,
        local_batch: 40,
        ..Glocal::default()
    };
    let mapped = |x: &Matrix, seed: u64| {
        let options = Glocal { seed, ..options };
        let map = HumanAlignment::fit(&x.f64(), &given, &x.f64(), &options).unwrap();
        map.apply(&x.f64()).into_data().try_to_vec::<f64>().unwrap()
    };
    let (here, far) = (mapped(&x, 1), mapped(&x.map(|v| 1024.0 * v), 1));
    here.iter().zip(&far).for_each(|(a, b)| close(*a, *b, 1e-9));
    assert_eq!(here, mapped(&x, 1));
    assert_ne!(here, mapped(&x, 2));
}

#[test]
fn what_is_wrong_is_named() {
    let x = Matrix::random(6, 3, 11).f32();
    let good = [OddOneOut {
        pair: [0, 1],
        odd: 2,
    }];
    let fit = |judged: &[OddOneOut], options: Glocal| {
        HumanAlignment::fit(&x, judged, &x, &options)
            .unwrap_err()
            .to_string()
    };
    let default = Glocal::default();
    assert!(fit(&[], default).contains("no judgements"));
    for wrong in [
        OddOneOut {
            pair: [0, 6],
            odd: 1,
        },
        OddOneOut {
            pair: [0, 0],
            odd: 1,
        },
        OddOneOut {
            pair: [2, 3],
            odd: 2,
        },
    ] {
        assert!(fit(&[good[0], wrong], default).contains("names a row"));
        assert!(odd_one_out_accuracy(&x, &[wrong], Nearness::Inner).is_err());
    }
    for options in [
        Glocal {
            alpha: 1.1,
            ..default
        },
        Glocal {
            lambda: f64::NAN,
            ..default
        },
        Glocal {
            tau: 0.0,
            ..default
        },
        Glocal {
            local_batch: 2,
            ..default
        },
    ] {
        assert!(fit(&good, options).contains("out of range"), "{options:?}");
    }
    let runaway = Glocal {
        rate: 1e30,
        steps: 5,
        ..default
    };
    assert!(fit(&good, runaway).contains("without bound"));
    let zero = Matrix::from_fn(6, 3, |_, _| 0.0).f32();
    let error = HumanAlignment::fit(&zero, &good, &x, &default).unwrap_err();
    assert!(error.to_string().contains("all its rows are 0"), "{error}");
    let wide = Matrix::random(6, 4, 1).f32();
    let error = HumanAlignment::fit(&x, &good, &wide, &default).unwrap_err();
    assert!(matches!(error, Error::ColumnsDiffer { .. }), "{error}");
    let mut bad = Matrix::random(6, 3, 1);
    bad.v[4] = f64::NAN;
    let error = HumanAlignment::fit(&bad.f32(), &good, &x, &default).unwrap_err();
    assert!(error.to_string().contains("row 1, column 1"), "{error}");
}
