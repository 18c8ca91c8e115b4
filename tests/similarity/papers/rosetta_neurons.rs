//! Dravid, Gandelsman, Efros & Shocher 2023, "Rosetta neurons: mining the common units in a model zoo":
//! networks of different tasks have units in common.

use burn::tensor::Tensor;
use burn::tensor::activation::{log_softmax, sigmoid};
use inscape::Device;
use inscape::similarity::{rosetta, unit_correlations};

use super::digits::{Digits, PIXELS};
use super::draws::{Draws, shuffled};
use super::nets::{Batches, CHANNELS, Net, PLACES, classifier, tensor};
use crate::common::Matrix;

/// Sources that three networks share, each in a unit of its own, among units that are theirs alone.
#[test]
fn dravid_2023_shared_sources_are_found() {
    const SHARED: usize = 30;
    let mut draws = Draws::new(1);
    let mut normal = |n: usize, d: usize| Matrix {
        n,
        d,
        v: draws.normals(n * d),
    };
    let sources = normal(1500, SHARED);
    let own = [70, 80, 90].map(|d| normal(1500, d));
    let places = [70, 80, 90].map(|d| shuffled(d, &mut Draws::new(d as u64)));
    let nets: Vec<Tensor<2>> = (0..3)
        .map(|m| {
            let unit = |i: usize, j: usize| match places[m].iter().position(|p| *p == j) {
                Some(s) if s < SHARED => sources.at(i, s) + 0.7 * own[m].at(i, j),
                _ => own[m].at(i, j),
            };
            Matrix::from_fn(1500, own[m].d, unit).f32()
        })
        .collect();
    let found = rosetta(&nets, 1).unwrap();
    let planted = |s: usize| vec![places[0][s], places[1][s], places[2][s]];
    let hits = (0..SHARED).filter(|s| found.iter().any(|f| f.units == planted(*s))).count();
    println!("{hits} of {SHARED} sources among {} tuples", found.len());
    assert!(hits as f64 >= 0.95 * SHARED as f64);
    assert!(hits as f64 >= 0.95 * found.len() as f64);
}

/// Gives the images back.
fn autoencoder(digits: &Digits, seed: u64, steps: usize) -> Net {
    let on = Device::cpu().autodiff();
    let mut batches = Batches::new(digits, seed);
    let net = Net::new(PIXELS, &mut batches.draws, &Device::cpu());
    net.trained(steps, |net| {
        let which = batches.next();
        let x = tensor(batches.images(&which), PIXELS, &on);
        (sigmoid(net.outputs(x.clone())) - x).square().mean() * PIXELS as f64
    })
}

/// An image moved by up to a pixel, with noise.
fn seen_otherwise(image: &[f32], draws: &mut Draws) -> Vec<f32> {
    let (down, right) = (draws.below(3), draws.below(3));
    let grey = |at: usize| {
        let (row, column) = (at / 8 + down, at % 8 + right);
        match (1..9).contains(&row) && (1..9).contains(&column) {
            true => image[(row - 1) * 8 + column - 1],
            false => 0.0,
        }
    };
    let noise = draws.normals(PIXELS);
    (0..PIXELS).map(|at| grey(at) + 0.1 * noise[at] as f32).collect()
}

/// Tells which two views are of one image (SimCLR, Chen et al. 2020).
fn contrastive(digits: &Digits, seed: u64, steps: usize) -> Net {
    let on = Device::cpu().autodiff();
    let mut batches = Batches::new(digits, seed);
    let net = Net::new(32, &mut batches.draws, &Device::cpu());
    net.trained(steps, |net| {
        let which = batches.next();
        let images = batches.images(&which);
        let mut view = || {
            let views = images.chunks(PIXELS).map(|image| seen_otherwise(image, &mut batches.draws));
            let z = net.outputs(tensor(views.collect::<Vec<_>>().concat(), PIXELS, &on));
            z.clone() / (z.square().sum_dim(1) + 1e-8).sqrt()
        };
        let (a, b) = (view(), view());
        let n = which.len();
        let own = Tensor::<2>::eye(n, on.tensor());
        (log_softmax(a.matmul(b.transpose()) * 5.0, 1) * own).sum() / -(n as f64)
    })
}

/// A classifier, an autoencoder and a contrastive network of the digits have units in common, far more
/// than when they look at different images.
#[test]
fn dravid_2023_networks_of_three_tasks_have_units_in_common() {
    let (digits, cpu) = (Digits::read(), Device::cpu());
    let nets = [
        classifier(&digits, 1, 300).0,
        autoencoder(&digits, 2, 300),
        contrastive(&digits, 3, 300),
    ];
    let units = |net: usize, seed: Option<u64>| {
        let n = digits.labels.len();
        let order = seed.map_or((0..n).collect(), |s| shuffled(n, &mut Draws::new(s)));
        let image = |i: &usize| &digits.pixels[i * PIXELS..(i + 1) * PIXELS];
        let images: Vec<f32> = order.iter().flat_map(image).copied().collect();
        nets[net].units(&images, &cpu)
    };
    let near = |a: &Tensor<2>, b: &Tensor<2>| {
        let buddies = unit_correlations(a, b).unwrap().best_buddies(1);
        buddies.iter().filter(|p| p.r >= 0.6).count()
    };
    let straight = [0, 1, 2].map(|m| units(m, None));
    let (mut found, mut mixed) = (0, 0);
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        found += near(&straight[a], &straight[b]);
        mixed += near(&straight[a], &units(b, Some(7)));
    }
    let tuples = rosetta(&straight, 1).unwrap();
    let strong = tuples.iter().filter(|t| t.r >= 0.5).count();
    println!(
        "{} units at {PLACES} places: {found} pairs of best buddies above 0.6, {mixed} on shuffled images; {} in all three networks, {strong} of them above 0.5",
        CHANNELS[1],
        tuples.len()
    );
    for tuple in tuples.iter().filter(|t| t.r >= 0.5).take(5) {
        let of = straight[0].clone().narrow(1, tuple.units[0], 1);
        let maps = of.reshape([digits.labels.len(), PLACES]);
        let tops: Vec<f32> = maps.sum_dim(1).into_data().try_to_vec().unwrap();
        let mut order: Vec<usize> = (0..tops.len()).collect();
        order.sort_by(|a, b| tops[*b].total_cmp(&tops[*a]));
        let labels: Vec<u8> = order[..10].iter().map(|i| digits.labels[*i]).collect();
        println!("units {:?}, {:.2}: images of {labels:?}", tuple.units, tuple.r);
    }
    assert!(found >= 10 * mixed.max(1), "{found} {mixed}");
    assert!(strong > 0);
}
