//! Barannikov et al. 2022, "Representation Topology Divergence", section 3.1: a cloud pulled apart into
//! more and more clusters. RTD to the cloud it came from rises with every further cluster; so does its
//! part of dimension 0. CKA, in the paper, does not follow.

use inscape::similarity::{Estimator, linear_cka, mst_divergence, rtd};

use super::draws::Draws;
use crate::common::Matrix;

const POINTS: usize = 240;

/// One normal cloud in the plane, cut into `clusters` that are moved out to a circle of radius 10.
fn pulled_apart(clusters: usize) -> Matrix {
    let mut draws = Draws::new(5);
    let values = draws.normals(2 * POINTS);
    let centre = |c: usize| match clusters {
        1 => (0.0, 0.0),
        _ => {
            let angle = std::f64::consts::TAU * c as f64 / clusters as f64;
            (10.0 * angle.cos(), 10.0 * angle.sin())
        }
    };
    Matrix::from_fn(POINTS, 2, |i, j| {
        let (x, y) = centre(i * clusters / POINTS);
        values[2 * i + j] + if j == 0 { x } else { y }
    })
}

#[test]
fn divergence_rises_with_every_cluster() {
    let one = pulled_apart(1).f64();
    let clusters = [1, 2, 3, 4, 6, 8, 12];
    let all = clusters.map(|c| {
        let other = pulled_apart(c).f64();
        let loops = rtd(&one, &other, 500, 1).expect("two clouds");
        let gaps = mst_divergence(&one, &other, 500, 1).expect("two clouds");
        let cka = linear_cka(&one, &other, Estimator::Biased).expect("two clouds");
        println!(
            "{c} clusters: RTD {loops:.2}, of dimension 0 {gaps:.2}, 1 - CKA {:.3}",
            1.0 - cka
        );
        (loops, gaps, 1.0 - cka)
    });
    assert!(all[0].0.abs() < 1e-9 && all[0].1.abs() < 1e-9);
    assert!(all.is_sorted_by(|a, b| a.0 < b.0), "{all:?}");
    assert!(
        !all.is_sorted_by(|a, b| a.2 < b.2),
        "CKA follows too: {all:?}"
    );
}
