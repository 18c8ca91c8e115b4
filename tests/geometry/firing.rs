//! What fires where, batch by batch, and the spectrum of points that come so.

use burn::tensor::{Int, Tensor, TensorData};
use inscape::Device;
use inscape::geometry::*;

use super::clusters::blocks;
use super::*;

fn latents(values: &[f32], indices: &[i32], k: usize) -> (Tensor<2>, Tensor<2, Int>) {
    let (n, cpu) = (values.len() / k, Device::cpu());
    (
        Tensor::from_data(TensorData::new(values.to_vec(), [n, k]), cpu.tensor()),
        Tensor::from_data(TensorData::new(indices.to_vec(), [n, k]), cpu.tensor()),
    )
}

#[test]
fn batches_of_latents_are_one_list_of_rows() {
    let mut firing = Firing::new();
    assert_eq!(firing.rows(), 0);
    let (values, indices) = latents(&[1.0, 0.5, 2.0, 0.0, -1.0, 0.0], &[3, 0, 1, 2, 4, 3], 2);
    firing.add(values, indices).unwrap();
    let (values, indices) = latents(&[4.0, 5.0, 6.0], &[0, 3, 1], 3);
    firing.add(values, indices).unwrap();
    let rows: Vec<&[(usize, f64)]> = firing.each_row().collect();
    let want: [&[(usize, f64)]; 4] = [
        &[(3, 1.0), (0, 0.5)],
        &[(1, 2.0)],
        &[],
        &[(0, 4.0), (3, 5.0), (1, 6.0)],
    ];
    assert_eq!(rows, want);
    assert_eq!(firing.blocks(2), [vec![0, 1, 3], vec![0, 1, 3]]);
    assert_eq!(firing.blocks(3), [vec![0, 1, 3]], "one row is left over");
    assert!(firing.blocks(5).is_empty());
    assert_eq!(firing.fires(&[1]), [1, 3]);
    assert_eq!(firing.fires(&[3, 0]), [0, 3]);
    assert!(firing.fires(&[]).is_empty() && firing.fires(&[2, 4]).is_empty());
    let (values, indices) = latents(&[f32::NAN], &[0], 1);
    says(
        firing.add(values, indices).unwrap_err(),
        &["column 0 is NaN"],
    );
}

/// Of 7 rows that fire, 3 spread over all.
#[test]
fn a_large_cluster_keeps_rows_from_everywhere() {
    let values: Vec<f32> = (1..=8).map(|i| i as f32).collect();
    let (values, indices) = latents(&values, &[1, 1, 1, 0, 1, 1, 1, 1], 1);
    let mut firing = Firing::new();
    firing.add(values, indices).unwrap();
    let w_dec = matrix(&[vec![9.0, 9.0], vec![1.0, -1.0]]);
    let of = |most: usize| firing.reconstructions(&w_dec, &[1], most).unwrap();
    let first = |m: Matrix| m.each_row().map(|row| row[0]).collect::<Vec<_>>();
    assert_eq!(first(of(100)), [1.0, 2.0, 3.0, 5.0, 6.0, 7.0, 8.0]);
    assert_eq!(first(of(3)), [1.0, 3.0, 6.0]);
    says(
        firing.reconstructions(&w_dec, &[1], 0).unwrap_err(),
        &["rows that fire", "got 0"],
    );
}

/// However they are cut, and far from 0.
#[test]
fn a_spectrum_of_batches_is_that_of_all_points() {
    let mut draws = Draws::new(41);
    let (n, d) = (500, 9);
    let rows: Vec<Vec<f64>> = (0..n)
        .map(|i| {
            let far = 1000.0 + i as f64 / 50.0;
            let row = draws.normals(d).into_iter().enumerate();
            row.map(|(j, v)| far + v * (1.0 + j as f64)).collect()
        })
        .collect();
    let points = matrix(&rows);
    let want = covariance_spectrum(&points).unwrap();
    for size in [1, 7, 128, n] {
        let mut seen = Covariance::new(d);
        for start in (0..n).step_by(size) {
            let part: Vec<usize> = (start..n.min(start + size)).collect();
            seen.add(&points.select(&part));
        }
        for (found, want) in seen.spectrum().unwrap().iter().zip(&want) {
            close(*found, *want, 1e-8 * want);
        }
    }
    let mut same = Covariance::new(2);
    says(same.spectrum().unwrap_err(), &["2 points", "got 0"]);
    for _ in 0..3 {
        same.add(&matrix(&vec![vec![0.1, 0.7]; 5]));
    }
    says(same.spectrum().unwrap_err(), &["undefined", "all the same"]);
}

#[test]
fn the_rank_ends_where_rounding_begins() {
    let mut draws = Draws::new(42);
    let basis: Vec<Vec<f64>> = (0..3).map(|_| draws.normals(8)).collect();
    let rows: Vec<Vec<f64>> = (0..50)
        .map(|_| {
            let mix = draws.normals(3);
            let of = |j: usize| (0..3).map(|b| mix[b] * basis[b][j]).sum();
            (0..8).map(of).collect()
        })
        .collect();
    let spectrum = covariance_spectrum(&matrix(&rows)).unwrap();
    assert_eq!(numerical_rank(&spectrum), 3, "{spectrum:?}");
    assert_eq!(numerical_rank(&[]), 0);
    assert_eq!(numerical_rank(&[2.0, 1e-9, 1e-12]), 2);
}

/// Four topics of fifteen features that lie near each other, one feature that always fires and one
/// that never does.
#[test]
fn lobes_of_firing_are_lobes_of_direction() {
    let (directions, of) = blocks(43, 4, 15, 40);
    let mut draws = Draws::new(44);
    let mut extra = directions
        .each_row()
        .map(<[f64]>::to_vec)
        .collect::<Vec<_>>();
    extra.extend([draws.unit_rows(1, 40), draws.unit_rows(1, 40)]);
    let seen: Vec<Vec<usize>> = (0..600)
        .map(|_| {
            let topic = draws.below(4);
            let fires = |&i: &usize| {
                let chance = if of[i] == topic { 0.5 } else { 0.08 };
                draws.uniform(0.0, 1.0) < chance
            };
            (0..60).filter(fires).chain([60]).collect()
        })
        .collect();
    let settings = LobeSettings {
        features: 1000,
        least: 5,
        clusters: 4,
        shuffles: 200,
        seed: 5,
    };
    let found = lobes(&seen, &matrix(&extra), &settings).unwrap();
    println!("{found:?}");
    assert_eq!((found.blocks, found.features, found.clusters), (600, 60, 4));
    assert!(found.agreement.ami > 0.9 && found.agreement.sigmas >= 5.0);
    // Some of them, and directions that have nothing to do with it.
    let few = LobeSettings {
        features: 40,
        ..settings
    };
    assert_eq!(lobes(&seen, &matrix(&extra), &few).unwrap().features, 40);
    let random: Vec<Vec<f64>> = (0..62).map(|_| draws.unit_rows(1, 40)).collect();
    let none = lobes(&seen, &matrix(&random), &settings).unwrap();
    assert!(none.agreement.sigmas.abs() < 4.0, "{none:?}");
    let rare = LobeSettings {
        least: 301,
        ..settings
    };
    let error = lobes(&seen, &matrix(&extra), &rare).unwrap_err();
    says(error, &["4 features that come and go", "got 0"]);
}
