//! Moschella, Maiorca, Fumero, Norelli, Locatello & Rodolà 2023, "Relative representations enable
//! zero-shot latent space communication": what one network encodes, the head of another reads, if both
//! speak of each input by its likeness to the same anchors.

use burn::tensor::Tensor;
use inscape::similarity::{Nearby, relative, stitched};

use super::nets::Part::{Dense, Relu};
use super::nets::{Net, Plan, Set, accuracy, cross_entropy, digits, lift, select, values};
use crate::common::{Matrix, close};

/// Anchors, and the width of the encodings, so that one chain of layers takes either.
const WIDTH: usize = 48;
const ENCODER: usize = 3;
const PARTS: [super::nets::Part; 6] = [Dense(64), Relu, Dense(WIDTH), Dense(64), Relu, Dense(10)];

/// Every 28th image.
fn anchors(train: &Set) -> Tensor<2> {
    select(&train.x, &(0..WIDTH).map(|i| i * 28).collect::<Vec<_>>())
}

/// A classifier whose head sees the encoding, or only its cosines with those of the anchors.
fn trained(train: &Set, by_anchors: bool, seed: u64) -> Net {
    let anchors = lift(&anchors(train));
    Net::of_images(&PARTS, seed).fit(train.len(), Plan::new(30, seed), |net, rows| {
        let batch = train.select(rows);
        let mut z = net.run(0..ENCODER, &lift(&batch.x));
        if by_anchors {
            z = relative(&z, &net.run(0..ENCODER, &anchors), Nearby::Cosine);
        }
        cross_entropy(net.run(ENCODER..PARTS.len(), &z), &batch.labels)
    })
}

/// Mean cosine of the rows of two spaces.
fn agreement(a: &Tensor<2>, b: &Tensor<2>) -> f64 {
    let (width, rows) = (a.dims()[1], a.dims()[0]);
    let (a, b) = (values(a), values(b));
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
    let cosine = |(a, b): (&[f32], &[f32])| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
    let pairs = a.chunks(width).zip(b.chunks(width));
    pairs.map(cosine).sum::<f64>() / rows as f64
}

#[test]
fn relative_rows_do_not_see_rotation_and_scale() {
    let x = Matrix::random(60, 12, 1);
    let moved = x.rotated(0.7).map(|v| 5.0 * v);
    let of = |x: &Matrix| {
        let x = x.f32();
        values(&relative(&x, &x.clone().narrow(0, 0, 16), Nearby::Cosine))
    };
    for (a, b) in of(&x).iter().zip(of(&moved)) {
        close(f64::from(*a), f64::from(b), 1e-5);
    }
}

#[test]
fn heads_read_the_encoders_of_other_seeds() {
    let [train, held] = digits();
    let mut spaces = vec![];
    for by_anchors in [true, false] {
        let nets: Vec<Net> = (1..4)
            .map(|seed| trained(&train, by_anchors, seed))
            .collect();
        let encode = |net: &Net| {
            let z = net.run(0..ENCODER, &held.x);
            match by_anchors {
                true => relative(&z, &net.run(0..ENCODER, &anchors(&train)), Nearby::Cosine),
                false => z,
            }
        };
        let encoded: Vec<Tensor<2>> = nets.iter().map(encode).collect();
        let heads: Vec<_> = nets
            .iter()
            .map(|net| move |z: Tensor<2>| net.run(ENCODER..PARTS.len(), &z))
            .collect();
        let table = stitched(&encoded, &heads, |y| accuracy(y, &held.labels));
        let off = |f: &dyn Fn(usize, usize) -> f64| {
            let pairs = (0..3).flat_map(|i| (0..3).map(move |j| (i, j)));
            pairs
                .filter(|(i, j)| i != j)
                .map(|(i, j)| f(i, j))
                .collect::<Vec<f64>>()
        };
        let alike = off(&|i, j| agreement(&encoded[i], &encoded[j]));
        println!("by anchors {by_anchors}: {table:.3?}, cosines {alike:.3?}");
        spaces.push((table, alike));
    }
    let (relative, absolute) = (&spaces[0], &spaces[1]);
    for i in 0..3 {
        assert!(relative.0[i][i] > 0.92 && absolute.0[i][i] > 0.92);
        for j in (0..3).filter(|&j| j != i) {
            assert!(relative.0[i][j] >= 0.9 * relative.0[j][j]);
            assert!(absolute.0[i][j] < 0.35);
        }
    }
    assert!(relative.1.iter().all(|c| *c > 0.9));
    assert!(absolute.1.iter().all(|c| c.abs() < 0.35));
}
