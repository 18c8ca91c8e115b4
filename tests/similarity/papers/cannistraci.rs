//! Cannistraci, Moschella, Fumero, Maiorca & Rodolà 2024, "From Bricks to Bridges: Product of
//! Invariances to Enhance Latent Space Communication": no one invariance holds between all networks, and
//! a space made of several reads nearly as well as the best of them, without knowing which that is.

use burn::tensor::Tensor;
use inscape::similarity::{Join, Nearby, relative, relative_product};

use super::moschella::{anchors, pairs, table};
use super::nets::Part::{Dense, Relu, Tanh};
use super::nets::{Net, Part, classifier, digits, values};
use crate::common::{Matrix, close};

const BY: [Nearby; 4] = [Nearby::Cosine, Nearby::Euclidean, Nearby::L1, Nearby::LInf];

/// Each is unchanged by its own group, and by no more.
#[test]
fn each_component_is_blind_to_its_group() {
    let x = Matrix::random(60, 12, 1);
    let mixed = |f: &dyn Fn(usize, usize) -> f64| Matrix::from_fn(60, 12, f);
    let rotated = x.rotated(0.7);
    let shifted = mixed(&|i, j| x.at(i, j) + j as f64);
    let scaled = x.map(|v| 3.0 * v);
    let reordered = mixed(&|i, j| x.at(i, (j + 5) % 12) * if j % 2 == 0 { 1.0 } else { -1.0 });
    let of = |x: &Matrix, by| {
        let x = x.f32();
        values(&relative(&x, &x.clone().narrow(0, 0, 16), by))
    };
    for (by, blind) in [
        (Nearby::Cosine, [true, false, true, true]),
        (Nearby::Euclidean, [true, true, false, true]),
        (Nearby::L1, [false, true, false, true]),
        (Nearby::LInf, [false, true, false, true]),
    ] {
        for (moved, blind) in [&rotated, &shifted, &scaled, &reordered]
            .into_iter()
            .zip(blind)
        {
            let pairs = of(&x, by).into_iter().zip(of(moved, by));
            let most = pairs
                .map(|(a, b)| (a - b).abs() / a.abs().max(1.0))
                .fold(0.0, f32::max);
            assert_eq!(most < 1e-5, blind, "{by:?}: {most}");
        }
    }
    let x = x.f32();
    let one = relative_product(&x, &x.clone().narrow(0, 0, 16), &[Nearby::L1], Join::Sum);
    close(f64::from(values(&one)[..16].iter().sum::<f32>()), 0.0, 1e-4);
}

/// Over encoders that end in a linear layer and in a tanh; six seeds of each were looked at, and one of
/// their sixty pairs misses by 2.0 points. Between autoencoders of 16 numbers the claim does not hold:
/// 0.70 for the product where the Euclidean distance alone gives 0.85. Nor does it if the spaces are
/// added and not put side by side: a head that can weigh them is needed.
#[test]
fn the_product_reads_nearly_as_well_as_the_best_of_its_parts() {
    let [train, held] = digits();
    let anchors = anchors(&train);
    let kinds: [(&[Part], usize); 2] = [
        (&[Dense(64), Relu, Dense(32), Dense(10)], 3),
        (&[Dense(64), Relu, Dense(32), Tanh, Dense(10)], 4),
    ];
    let (mut best_in, mut worst, mut worst_product) = ([0; 4], [1.0f64; 4], 1.0f64);
    for (parts, cut) in kinds {
        let encoders: Vec<Net> = (1..4)
            .map(|seed| classifier(parts, &train, 30, seed))
            .collect();
        let table = |by: &[Nearby]| {
            let space = |net: &Net, x: &Tensor<2>| {
                let (z, anchors) = (net.run(0..cut, x), net.run(0..cut, &anchors));
                relative_product(&z, &anchors, by, Join::Concatenate)
            };
            table(&train, &held, &encoders, space).0
        };
        let (single, product) = (BY.map(|by| table(&[by])), table(&BY));
        for (i, j) in pairs() {
            let each = [0, 1, 2, 3].map(|m| single[m][i][j]);
            let best = each.into_iter().fold(0.0, f64::max);
            println!(
                "{cut}: {i} to {j}: {each:.3?}, product {:.3}",
                product[i][j]
            );
            assert!(product[i][j] >= best - 0.02);
            (0..4).for_each(|m| best_in[m] += usize::from(each[m] == best));
            (0..4).for_each(|m| worst[m] = worst[m].min(each[m]));
            worst_product = worst_product.min(product[i][j]);
        }
    }
    println!("of 12 pairs best in {best_in:?}; worst {worst:.3?}, product {worst_product:.3}");
    assert!(best_in.iter().all(|&best| best < 12));
    assert!(worst.iter().all(|&worst| worst_product > worst - 0.01));
}
