//! Huh et al. 2024, "The Platonic Representation Hypothesis": representations of the same things come to
//! agree as the networks get better, even where the networks see different views.

use burn::tensor::Tensor;
use inscape::similarity::{Metric, Nearness, mutual_knn};

use super::digits::PIXELS;
use super::draws::Draws;
use super::nets::{Part, Set, classifier, digits, select, tensor};
use crate::common::{Matrix, close};

const K: usize = 10;

// ---- exact

#[test]
fn alignment_is_one_under_rotation_and_chance_for_unrelated_rows() {
    let (n, x) = (400, Matrix::random(400, 30, 1));
    let mutual = |a: &Matrix, b: &Matrix| mutual_knn(&a.f32(), &b.f32(), K, Nearness::Cosine);
    assert_eq!(mutual(&x, &x.rotated(1.1).map(|v| 4.0 * v)).unwrap(), 1.0);
    let chance = K as f64 / (n - 1) as f64;
    let unrelated: Vec<f64> = (2..12)
        .map(|seed| mutual(&x, &Matrix::random(n, 20, seed)).unwrap())
        .collect();
    let mean = unrelated.iter().sum::<f64>() / 10.0;
    // A row's count has a variance near k (k/n); rows and draws are many.
    let noise = (chance / (K * n) as f64).sqrt();
    println!("unrelated: {mean:.4}, chance {chance:.4}, noise of one {noise:.4}");
    close(mean, chance, 4.0 * noise / 10f64.sqrt());
    assert!(unrelated.iter().all(|v| (v - chance).abs() < 5.0 * noise));
}

// ---- trained

/// The images by their two-dimensional cosine transform, each coefficient brought to one spread: another
/// view, in which no feature is a pixel and other images are near.
fn transformed([train, held]: &[Set; 2]) -> [Set; 2] {
    let angle = |u: usize, x: usize| std::f64::consts::PI * u as f64 * (x as f64 + 0.5) / 8.0;
    let wave = |u: usize, x: usize| match u {
        0 => 0.125f64.sqrt(),
        _ => 0.5 * angle(u, x).cos(),
    };
    let entry = |at: usize| {
        let (pixel, part) = (at / PIXELS, at % PIXELS);
        (wave(part / 8, pixel / 8) * wave(part % 8, pixel % 8)) as f32
    };
    let basis = tensor(
        &(0..PIXELS * PIXELS).map(entry).collect::<Vec<f32>>(),
        PIXELS,
    );
    let parts = train.x.clone().matmul(basis.clone());
    let mean = parts.clone().mean_dim(0);
    let spread = (parts - mean.clone()).powf_scalar(2.0).mean_dim(0).sqrt() * 4.0 + 0.05;
    [train, held].map(|set| Set {
        x: (set.x.clone().matmul(basis.clone()) - mean.clone()) / spread.clone(),
        labels: set.labels.clone(),
    })
}

struct Trained {
    width: usize,
    view: usize,
    accuracy: f64,
    hidden: Tensor<2>,
}

/// Two hidden layers of this width on one of the views; what the second makes of the held-out images.
fn trained(width: usize, view: usize, train: &Set, held: &Set) -> Trained {
    use Part::{Dense, Relu};
    let parts = [Dense(width), Relu, Dense(width), Relu, Dense(10)];
    let net = classifier(&parts, train, 12, 10 * width as u64 + view as u64);
    Trained {
        width,
        view,
        accuracy: net.accuracy(held),
        hidden: net.run(0..4, &held.x),
    }
}

/// The claim on six widths: the better two networks are, the more they align, and networks on different
/// views align far above chance.
#[test]
fn better_networks_are_more_alike_across_views() {
    let pixels = digits();
    let views = [transformed(&pixels), pixels];
    let widths = [4, 8, 16, 32, 64, 256];
    let nets: Vec<Trained> = widths
        .iter()
        .enumerate()
        .map(|(i, &width)| {
            let [train, held] = &views[i % 2];
            trained(width, i % 2, train, held)
        })
        .collect();
    for net in &nets {
        println!(
            "width {:3}, view {}: {:.3}",
            net.width, net.view, net.accuracy
        );
    }
    let metric: Metric = "mutual_knn".parse().expect("a metric");
    let align = |a: &Tensor<2>, b: &Tensor<2>| metric.compare(a, b).expect("a value");
    let (mut alignments, mut skills, mut across) = (vec![], vec![], vec![]);
    for (i, a) in nets.iter().enumerate() {
        for b in &nets[..i] {
            let value = align(&a.hidden, &b.hidden);
            println!("{:3} and {:3}: {value:.3}", a.width, b.width);
            alignments.push(value);
            skills.push(a.accuracy.min(b.accuracy));
            if a.view != b.view {
                across.push((value, shuffled(a, b, &align)));
            }
        }
    }
    let order = spearman(&alignments, &skills);
    println!("rank correlation of alignment and the lesser accuracy: {order:.3}");
    assert!(order > 0.5, "{order}");
    for (value, null) in across {
        assert!(value > 2.0 * null, "{value} {null}");
    }
    // What the views share before any learning, beside what the best two networks share.
    let inputs = align(&views[0][1].x, &views[1][1].x);
    println!("the views themselves: {inputs:.3}");
}

/// The largest of 20 alignments with the rows of one side shuffled.
fn shuffled(a: &Trained, b: &Trained, align: &impl Fn(&Tensor<2>, &Tensor<2>) -> f64) -> f64 {
    let n = b.hidden.dims()[0];
    let mut draws = Draws::new(9);
    let one = |_| {
        let mut order: Vec<usize> = (0..n).collect();
        (1..n).rev().for_each(|i| order.swap(i, draws.below(i + 1)));
        align(&a.hidden, &select(&b.hidden, &order))
    };
    (0..20).map(one).fold(0.0, f64::max)
}

fn spearman(a: &[f64], b: &[f64]) -> f64 {
    let ranks = |v: &[f64]| {
        let rank = |x: &f64| {
            let below = v.iter().filter(|y| *y < x).count() as f64;
            let equal = v.iter().filter(|y| *y == x).count() as f64;
            below + (equal - 1.0) / 2.0
        };
        v.iter().map(rank).collect::<Vec<f64>>()
    };
    pearson(&ranks(a), &ranks(b))
}

fn pearson(a: &[f64], b: &[f64]) -> f64 {
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    let about = |v: &[f64]| v.iter().map(|x| x - mean(v)).collect::<Vec<f64>>();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let (a, b) = (about(a), about(b));
    dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt()
}
