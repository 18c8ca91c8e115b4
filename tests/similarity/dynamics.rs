//! Dynamical similarity: golden values, systems of known eigenvalues, and rotations.

use burn::tensor::{DType, Tensor, TensorData};
use inscape::Device;
use inscape::similarity::{Dmd, Error, dsa_angle, dsa_wasserstein};

use crate::common::{Matrix, array, close, golden, input};

/// One trial.
fn trial(x: &Matrix) -> Tensor<3> {
    trials(std::slice::from_ref(x))
}

fn trials(all: &[Matrix]) -> Tensor<3> {
    let values: Vec<f64> = all.iter().flat_map(|x| x.v.clone()).collect();
    let shape = [all.len(), all[0].n, all[0].d];
    Tensor::from_data(
        TensorData::new(values, shape),
        (Device::cpu().tensor(), DType::F64),
    )
}

fn systems() -> [Matrix; 2] {
    [input("misc", "sys_a"), input("misc", "sys_b")]
}

fn fit(x: &Matrix, delays: usize, rank: usize) -> Dmd {
    Dmd::new(&trial(x), delays, rank, 0.0).expect("a fit")
}

#[test]
fn goldens_hold() {
    let mut worst = 0.0f64;
    for (x, name) in systems().iter().zip(["sys_a", "sys_b"]) {
        let found = fit(x, 4, 6).eigenvalues().unwrap();
        let (shape, want) = array("expected", &format!("misc/dmd_eigs_{name}"));
        assert_eq!(shape, [6, 2]);
        for (got, want) in found.iter().zip(want.chunks(2)) {
            worst = worst
                .max((got[0] - want[0]).abs())
                .max((got[1] - want[1]).abs());
        }
    }
    let [a, b] = systems().map(|x| fit(&x, 4, 6));
    let want = golden("misc/dsa_wasserstein[n_delays=4,rank=6,lamb=0.0]");
    let got = dsa_wasserstein(&a, &b).unwrap();
    println!(
        "eigenvalues off by {worst:e}, distance by {:e}",
        (got - want).abs()
    );
    assert!(worst < 1e-8, "{worst:e}");
    close(got, want, 1e-8 * want);
}

/// States of `z' = M z`, without noise.
fn linear(m: &Matrix, start: &[f64], time: usize) -> Matrix {
    let mut states = vec![start.to_vec()];
    for t in 1..time {
        let last = &states[t - 1];
        states.push(
            (0..m.n)
                .map(|i| m.row(i).iter().zip(last).map(|(a, b)| a * b).sum())
                .collect(),
        );
    }
    Matrix::from_fn(time, m.n, |i, j| states[i][j])
}

fn spiral(radius: f64, angle: f64, decay: f64) -> Matrix {
    let (c, s) = (radius * angle.cos(), radius * angle.sin());
    Matrix {
        n: 3,
        d: 3,
        v: vec![c, -s, 0.0, s, c, 0.0, 0.0, 0.0, decay],
    }
}

#[test]
fn linear_systems_give_their_eigenvalues() {
    let m = spiral(0.98, 0.4, 0.9);
    let x = linear(&m, &[1.0, 0.0, 1.0], 60);
    let mixed = x.rotated(1.1);
    for (x, delays) in [(&x, 1), (&mixed, 1), (&mixed, 3)] {
        let found = fit(x, delays, 3).eigenvalues().unwrap();
        let want = [
            [0.9, 0.0],
            [0.98 * 0.4f64.cos(), -0.98 * 0.4f64.sin()],
            [0.98 * 0.4f64.cos(), 0.98 * 0.4f64.sin()],
        ];
        let mut found = found;
        found.sort_by(|a, b| {
            a[1].abs()
                .total_cmp(&b[1].abs())
                .then(a[1].total_cmp(&b[1]))
        });
        for (got, want) in found.iter().zip(&want) {
            close(got[0], want[0], 1e-9);
            close(got[1], want[1], 1e-9);
        }
    }
    // Two trials from other places: the same dynamics, and no step from one to the next.
    let both = [x.clone(), linear(&m, &[-3.0, 2.0, 5.0], 60)];
    let two = Dmd::new(&trials(&both), 2, 3, 0.0).unwrap();
    let one = Dmd::new(&trial(&x), 2, 3, 0.0).unwrap();
    close(dsa_wasserstein(&one, &two).unwrap(), 0.0, 1e-16);
    let ridge = Dmd::new(&trials(&both), 2, 3, 0.5).unwrap();
    assert!(dsa_wasserstein(&one, &ridge).unwrap() > 1e-3);
}

/// Paired by trying every permutation.
fn plain_wasserstein(a: &[[f64; 2]], b: &[[f64; 2]]) -> f64 {
    fn best(a: &[[f64; 2]], b: &mut Vec<[f64; 2]>) -> f64 {
        let Some((first, rest)) = a.split_first() else {
            return 0.0;
        };
        let mut least = f64::INFINITY;
        for k in 0..b.len() {
            let taken = b.remove(k);
            let cost = (first[0] - taken[0]).powi(2) + (first[1] - taken[1]).powi(2);
            least = least.min(cost + best(rest, b));
            b.insert(k, taken);
        }
        least
    }
    best(a, &mut b.to_vec()) / a.len() as f64
}

#[test]
fn the_distance_of_eigenvalues_is_that_of_the_best_pairing() {
    let systems: Vec<Dmd> = (0..4)
        .map(|s| fit(&Matrix::random(40, 6, s), 1, 5))
        .collect();
    for a in &systems {
        for b in &systems {
            let want = plain_wasserstein(&a.eigenvalues().unwrap(), &b.eigenvalues().unwrap());
            close(dsa_wasserstein(a, b).unwrap(), want, 1e-12);
        }
    }
}

/// For two planes the best rotation can be found by trying all.
#[test]
fn the_angle_in_a_plane_is_that_of_the_best_of_all_turns() {
    for seed in 0..4 {
        let fits = [0, 1].map(|s| fit(&Matrix::random(30, 4, 10 * seed + s), 1, 2));
        let entry = |k: usize, i: usize, j: usize| fits[k].entry(i, j);
        let norm = |k: usize| {
            [0, 1, 2, 3]
                .map(|e| entry(k, e / 2, e % 2).powi(2))
                .iter()
                .sum::<f64>()
                .sqrt()
        };
        let mut best = f64::NEG_INFINITY;
        for step in 0..40_000 {
            let t = std::f64::consts::TAU * f64::from(step) / 40_000.0;
            for flip in [1.0, -1.0] {
                let c = [[t.cos(), -t.sin() * flip], [t.sin(), t.cos() * flip]];
                let mut inner = 0.0;
                for i in 0..2 {
                    for j in 0..2 {
                        for k in 0..2 {
                            for l in 0..2 {
                                inner += entry(0, i, j) * c[i][k] * entry(1, k, l) * c[j][l];
                            }
                        }
                    }
                }
                best = best.max(inner);
            }
        }
        let want = (best / norm(0) / norm(1)).acos();
        let got = dsa_angle(&fits[0], &fits[1], 6).unwrap();
        assert!(got <= want + 1e-9 && got > want - 1e-6, "{got} {want}");
    }
}

/// `Q M Qᵀ` with `Q` a turn or, with `flip`, a reflection.
fn turned(m: &Matrix, angle: f64, flip: f64) -> Matrix {
    let q = Matrix::from_fn(m.n, m.n, |i, j| match i == j {
        true if i == 0 => flip,
        true => 1.0,
        false => 0.0,
    });
    let q = q.rotated(angle).rotated(1.7 * angle);
    Matrix::from_fn(m.n, m.n, |i, j| {
        let row = |k: usize| (0..m.n).map(|l| m.at(k, l) * q.at(j, l)).sum::<f64>();
        (0..m.n).map(|k| q.at(i, k) * row(k)).sum()
    })
}

#[test]
fn turned_systems_have_no_angle() {
    let mut off = Vec::new();
    for n in [3, 6, 10, 20] {
        for flip in [1.0, -1.0] {
            let m = Matrix::random(n, n, 3);
            let [a, b] = [&m, &turned(&m, 2.0, flip)].map(|m| Dmd::from_operator(&m.v, n).unwrap());
            close(dsa_wasserstein(&a, &b).unwrap(), 0.0, 1e-12);
            let angle = |starts| dsa_angle(&a, &b, starts).unwrap();
            println!("{n} {flip}: {:?}", [2, 10, 20, 40].map(angle));
            off.push(angle(20));
        }
    }
    assert!(off.iter().all(|a| *a < 1e-7), "{off:?}");
}

/// On the golden systems every start past the first few finds the same angle, from either side.
#[test]
fn more_starts_never_do_worse() {
    let [a, b] = systems().map(|x| fit(&x, 4, 6));
    let of = |starts| dsa_angle(&a, &b, starts).unwrap();
    let found: Vec<f64> = [1, 2, 5, 20, 40].map(of).to_vec();
    println!("angle by starts {found:?}");
    assert!(found.is_sorted_by(|a, b| a >= b));
    close(found[4], found[3], 1e-9);
    close(dsa_angle(&b, &a, 20).unwrap(), found[3], 1e-9);
    close(dsa_angle(&a, &a, 2).unwrap(), 0.0, 1e-7);
    close(of(20), of(20), 0.0);
    assert!(of(0) >= found[0]); // none is one
}

/// Ostrow et al. 2023: what is compared is the motion, not the shape it is seen in. The same noisy
/// spiral through two maps is one system; at another speed it is another.
#[test]
fn systems_are_told_apart_by_their_motion() {
    let run = |angle: f64, seed: u64| {
        let noise = Matrix::random(400, 3, seed);
        let m = spiral(0.97, angle, 0.8);
        let mut z = [1.0, 0.0, 1.0];
        let step = |t: usize| {
            let next = |i: usize| m.row(i).iter().zip(&z).map(|(a, b)| a * b).sum::<f64>();
            z = [0, 1, 2].map(|i| next(i) + 0.2 * noise.at(t, i));
            z
        };
        let states: Vec<[f64; 3]> = (0..400).map(step).collect();
        let map = Matrix::random(3, 6, seed ^ 77);
        Matrix::from_fn(400, 6, |t, j| {
            (0..3).map(|i| states[t][i] * map.at(i, j)).sum()
        })
    };
    let fits = [run(0.3, 1), run(0.3, 2), run(0.8, 3)].map(|x| fit(&x, 3, 5));
    let angle = |i: usize, j: usize| dsa_angle(&fits[i], &fits[j], 10).unwrap();
    let spectrum = |i: usize, j: usize| dsa_wasserstein(&fits[i], &fits[j]).unwrap();
    println!(
        "same motion: angle {:.3}, spectrum {:.4}; other: {:.3}, {:.4}",
        angle(0, 1),
        spectrum(0, 1),
        angle(0, 2),
        spectrum(0, 2)
    );
    assert!(2.0 * angle(0, 1) < angle(0, 2) && 2.0 * spectrum(0, 1) < spectrum(0, 2));
}

#[test]
fn maps_that_are_known_can_be_compared() {
    let of = |values: &[f64], rank| Dmd::from_operator(values, rank).unwrap();
    let (one, two) = (of(&[1.0], 1), of(&[1.0, 0.0, 0.0, 0.0], 2));
    close(dsa_wasserstein(&one, &two).unwrap(), 0.5, 1e-15); // half of the mass goes from 1 to 0
    assert_eq!(
        (two.rank(), two.entry(0, 0), two.entry(1, 0)),
        (2, 1.0, 0.0)
    );
    let zero = of(&[0.0; 4], 2);
    assert!(matches!(
        dsa_angle(&two, &zero, 1),
        Err(Error::Undefined { .. })
    ));
    let error = Dmd::from_operator(&[0.0, 1.0, f64::NAN, 1.0], 2).unwrap_err();
    assert!(matches!(
        error,
        Error::NotFinite {
            row: 1,
            column: 0,
            ..
        }
    ));
}

#[test]
fn what_cannot_be_fitted_is_named() {
    let x = Matrix::random(20, 3, 1);
    let why = |x: &Matrix, delays, rank, ridge, what: &str| {
        let error = Dmd::new(&trial(x), delays, rank, ridge)
            .unwrap_err()
            .to_string();
        assert!(error.contains(what), "{error}");
    };
    why(&x, 0, 2, 0.0, "needs a delay");
    why(&x, 1, 0, 0.0, "needs a delay");
    why(&x, 1, 2, -1.0, "needs a delay");
    why(&x, 1, 2, f64::NAN, "needs a delay");
    why(&x, 20, 2, 0.0, "no trial has two states");
    why(&x, 1, 4, 0.0, "fewer directions");
    why(&Matrix::from_fn(20, 3, |_, _| 0.0), 1, 2, 0.0, "undefined");
    let mut bad = x.clone();
    bad.v[31] = f64::NAN;
    let error = Dmd::new(&trial(&bad), 1, 2, 0.0).unwrap_err();
    assert!(matches!(
        error,
        Error::NotFinite {
            row: 10,
            column: 1,
            ..
        }
    ));
}

#[test]
#[should_panic(expected = "maps of rank 2 and 3")]
fn angles_of_different_ranks_are_a_mistake() {
    let x = Matrix::random(20, 3, 1);
    let _ = dsa_angle(&fit(&x, 1, 2), &fit(&x, 1, 3), 1);
}
