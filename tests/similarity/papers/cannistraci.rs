//! Cannistraci, Moschella, Fumero, Maiorca & Rodolà 2024, "From Bricks to Bridges: Product of
//! Invariances to Enhance Latent Space Communication": no one invariance holds between all networks, and
//! a space made of several reads nearly as well as the best of them, without knowing which that is.

use burn::tensor::Tensor;
use inscape::similarity::{Join, Nearby, relative, relative_product, stitched};

use super::nets::Part::{Dense, Relu, Tanh};
use super::nets::{
    Net, Part, Plan, Set, accuracy, autoencoder, classifier, cross_entropy, digits, lift, select,
    values,
};
use crate::common::{Matrix, close};

const ANCHORS: usize = 48;
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

/// Encoders of which the heads know nothing but the anchors.
struct Encoder {
    net: Net,
    parts: usize,
}

impl Encoder {
    fn space(&self, x: &Tensor<2>, anchors: &Tensor<2>, by: &[Nearby]) -> Tensor<2> {
        let encode = |x| self.net.run(0..self.parts, x);
        relative_product(&encode(x), &encode(anchors), by, Join::Concatenate)
    }
}

fn encoders(train: &Set) -> Vec<(&'static str, Vec<Encoder>)> {
    let code: &[Part] = &[Dense(64), Tanh, Dense(16), Dense(64), Tanh, Dense(64)];
    let class: &[Part] = &[Dense(64), Relu, Dense(32), Relu, Dense(10)];
    let three = |make: &dyn Fn(u64) -> Net, parts: usize| {
        (1..4)
            .map(|seed| Encoder {
                net: make(seed),
                parts,
            })
            .collect()
    };
    vec![
        (
            "autoencoders",
            three(&|seed| autoencoder(code, train, 40, seed), 3),
        ),
        (
            "classifiers",
            three(&|seed| classifier(class, train, 30, seed), 4),
        ),
    ]
}

/// A head of one hidden layer, trained on the relative space of one encoder.
fn head(space: &Tensor<2>, labels: &[usize], seed: u64) -> Net {
    let parts = [Dense(64), Relu, Dense(10)];
    let net = Net::of_vectors(space.dims()[1], &parts, seed);
    net.fit(labels.len(), Plan::new(30, seed), |net, rows| {
        let batch: Vec<usize> = rows.iter().map(|&r| labels[r]).collect();
        cross_entropy(net.outputs(&lift(&select(space, rows))), &batch)
    })
}

#[test]
fn the_product_reads_nearly_as_well_as_the_best_of_its_parts() {
    let [train, held] = digits();
    let anchors = select(&train.x, &(0..ANCHORS).map(|i| i * 28).collect::<Vec<_>>());
    let mut best_in = [0; 4];
    let mut pairs = 0;
    for (kind, encoders) in encoders(&train) {
        let table = |by: &[Nearby]| {
            let spaces = |set: &Set| -> Vec<Tensor<2>> {
                encoders
                    .iter()
                    .map(|e| e.space(&set.x, &anchors, by))
                    .collect()
            };
            let nets: Vec<Net> = (7..)
                .zip(spaces(&train))
                .map(|(seed, space)| head(&space, &train.labels, seed))
                .collect();
            let heads: Vec<_> = nets
                .iter()
                .map(|net| move |z: Tensor<2>| net.outputs(&z))
                .collect();
            stitched(&spaces(&held), &heads, |y| accuracy(y, &held.labels))
        };
        let single = BY.map(|by| table(&[by]));
        let product = table(&BY);
        for (i, j) in (0..3)
            .flat_map(|i| (0..3).map(move |j| (i, j)))
            .filter(|(i, j)| i != j)
        {
            let each = [0, 1, 2, 3].map(|m| single[m][i][j]);
            let best = each.into_iter().fold(0.0, f64::max);
            println!(
                "{kind} {i} to {j}: {each:.3?}, product {:.3}",
                product[i][j]
            );
            assert!(product[i][j] >= best - 0.02);
            pairs += 1;
            (0..4).for_each(|m| best_in[m] += usize::from(each[m] == best));
        }
    }
    println!("of {pairs} pairs best in {best_in:?}");
    assert!(best_in.iter().all(|&best| best < pairs));
}
