//! Dravid, Gandelsman, Efros & Shocher 2023, "Rosetta neurons: mining the common units in a model zoo":
//! networks of different tasks have units in common.

use burn::tensor::Tensor;
use burn::tensor::activation::log_softmax;
use inscape::similarity::{Rosetta, rosetta, unit_correlations};

use super::digits::PIXELS;
use super::draws::Draws;
use super::nets::Part::{Conv, Dense, Pool, Relu};
use super::nets::{
    Net, Part, Plan, Set, autoencoder, channels, classifier, digits, lift, shuffled, tensor, values,
};
use crate::common::Matrix;

/// Sources that three networks share, each in a unit of its own, among units that are theirs alone.
#[test]
fn dravid_2023_shared_sources_are_found() {
    const SHARED: usize = 30;
    const WIDTHS: [usize; 3] = [70, 80, 90];
    let mut draws = Draws::new(1);
    let places = WIDTHS.map(|d| shuffled(d, &mut draws));
    let mut normal = |d: usize| Matrix {
        n: 1500,
        d,
        v: draws.normals(1500 * d),
    };
    let (sources, own) = (normal(SHARED), WIDTHS.map(&mut normal));
    let net = |m: usize| {
        let source = |j: usize| places[m][..SHARED].iter().position(|p| *p == j);
        let source: Vec<Option<usize>> = (0..WIDTHS[m]).map(source).collect();
        let unit = |i: usize, j: usize| match source[j] {
            Some(s) => sources.at(i, s) + 0.7 * own[m].at(i, j),
            None => own[m].at(i, j),
        };
        Matrix::from_fn(1500, WIDTHS[m], unit).f32()
    };
    let found = rosetta(&[0, 1, 2].map(net), 1).unwrap();
    let planted = |s: &usize| {
        let units = [0, 1, 2].map(|m: usize| places[m][*s]);
        found.iter().any(|f| f.units == units)
    };
    let hits = (0..SHARED).filter(planted).count();
    println!("{hits} of {SHARED} sources among {} tuples", found.len());
    assert!(hits as f64 >= 0.95 * SHARED as f64);
    assert!(hits as f64 >= 0.95 * found.len() as f64);
}

/// An image moved by up to a pixel, with noise.
fn seen_otherwise(image: &[f32], draws: &mut Draws) -> Vec<f32> {
    let (down, right) = (draws.below(3), draws.below(3));
    let noise = draws.normals(PIXELS);
    let grey = |at: usize| {
        let (row, column) = (at / 8 + down, at % 8 + right);
        match (1..9).contains(&row) && (1..9).contains(&column) {
            true => image[(row - 1) * 8 + column - 1],
            false => 0.0,
        }
    };
    (0..PIXELS)
        .map(|at| grey(at) + 0.1 * noise[at] as f32)
        .collect()
}

/// Tells which two views are of one image (SimCLR, Chen et al. 2020).
fn contrastive(parts: &[Part], set: &Set, epochs: usize, seed: u64) -> Net {
    let pixels = values(&set.x);
    let draws = std::cell::RefCell::new(Draws::new(seed));
    Net::of_images(parts, seed).fit(set.len(), Plan::new(epochs, seed), |net, rows| {
        let view = || {
            let mut draws = draws.borrow_mut();
            let image = |i: &usize| &pixels[i * PIXELS..(i + 1) * PIXELS];
            let views = rows
                .iter()
                .flat_map(|i| seen_otherwise(image(i), &mut draws));
            let z = net.outputs(&lift(&tensor(&views.collect::<Vec<_>>(), PIXELS)));
            z.clone() / (z.powf_scalar(2.0).sum_dim(1) + 1e-8).sqrt()
        };
        let (a, b) = (view(), view());
        let own = Tensor::<2>::eye(rows.len(), &a.device());
        (log_softmax(a.matmul(b.transpose()) * 5.0, 1) * own).sum() * (-1.0 / rows.len() as f64)
    })
}

/// A classifier, an autoencoder and a contrastive network of the digits have units in common, in pairs of
/// networks far more than when they look at different images. In all three there are few, and the best
/// is not far above that of different images, which have ink in the same places.
#[test]
fn dravid_2023_networks_of_three_tasks_have_units_in_common() {
    const UNITS: usize = 48;
    let [train, held] = digits();
    let parts = |out| [Conv(16), Relu, Pool, Conv(UNITS), Relu, Dense(out)];
    let nets = [
        classifier(&parts(10), &train, 12, 1),
        autoencoder(&parts(PIXELS), &train, 12, 2),
        contrastive(&parts(32), &train, 12, 3),
    ];
    let units = |net: &Net, set: &Set| channels(&net.run(0..5, &set.x), UNITS);
    let near = |a: &Tensor<2>, b: &Tensor<2>| {
        let buddies = unit_correlations(a, b).unwrap().best_buddies(1);
        buddies.iter().filter(|p| p.r >= 0.6).count()
    };
    let straight = nets.each_ref().map(|net| units(net, &held));
    let mixed = held.select(&shuffled(held.len(), &mut Draws::new(7)));
    let (mut found, mut null) = (0, 0);
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        found += near(&straight[a], &straight[b]);
        null += near(&straight[a], &units(&nets[b], &mixed));
    }
    let tuples = rosetta(&straight, 1).unwrap();
    let others = held.select(&shuffled(held.len(), &mut Draws::new(8)));
    let apart = [
        straight[0].clone(),
        units(&nets[1], &mixed),
        units(&nets[2], &others),
    ];
    let best = |tuples: &[Rosetta]| tuples.iter().fold(0.0f64, |m, t| m.max(t.r));
    let by_chance = best(&rosetta(&apart, 1).unwrap());
    println!(
        "{UNITS} units: {found} pairs of best buddies above 0.6, {null} on shuffled images; {} in all three networks (shuffled images: at most {by_chance:.2})",
        tuples.len(),
    );
    for tuple in &tuples {
        let of = straight[0].clone().narrow(1, tuple.units[0], 1);
        let sums = values(&of.reshape([held.len() as i32, -1]).sum_dim(1));
        let mut order: Vec<usize> = (0..held.len()).collect();
        order.sort_by(|a, b| sums[*b].total_cmp(&sums[*a]));
        let labels: Vec<usize> = order[..12].iter().map(|i| held.labels[*i]).collect();
        println!(
            "units {:?}, at least {:.2}: images of {labels:?}",
            tuple.units, tuple.r
        );
    }
    assert!(found >= 10 * null.max(1), "{found} {null}");
    assert!(best(&tuples) > by_chance, "{by_chance}");
}
