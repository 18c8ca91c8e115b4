//! Li, Yosinski, Clune, Lipson & Hopcroft 2015, "Convergent Learning: Do different neural networks learn
//! the same representations?": single units of separately trained networks correspond one to one, some
//! to several, some to none.

use inscape::similarity::{UnitPair, co_clusters, matching, sparse_prediction, unit_correlations};

use super::draws::Draws;
use super::nets::Part::{Conv, Dense, Pool, Relu};
use super::nets::{channels, classifier, digits, shuffled};
use crate::common::Matrix;

fn normal(n: usize, d: usize, draws: &mut Draws) -> Matrix {
    let v = draws.normals(n * d);
    Matrix { n, d, v }
}

/// Units in another order, with noise of half their size, are all found again.
#[test]
fn li_2015_matching_finds_a_planted_permutation() {
    let mut draws = Draws::new(1);
    let [x, noise] = [0, 1].map(|_| normal(1000, 120, &mut draws));
    let order = shuffled(120, &mut draws);
    let y = Matrix::from_fn(1000, 120, |i, j| x.at(i, order[j]) + 0.5 * noise.at(i, j));
    let pairs = unit_correlations(&x.f32(), &y.f32()).unwrap().one_to_one();
    let right = pairs.iter().filter(|p| order[p.right] == p.left).count();
    let mean = matching(&x.f32(), &y.f32()).unwrap();
    let planted = 1.25f64.sqrt().recip();
    println!("{right} of 120 found, mean correlation {mean:.3} (planted: {planted:.3})");
    assert_eq!(right, 120);
}

/// Every unit of one side is made of three of the other: the sparse prediction names just those.
#[test]
fn li_2015_sparse_prediction_finds_planted_maps() {
    let mut draws = Draws::new(2);
    let (x, noise) = (normal(1000, 60, &mut draws), normal(1000, 40, &mut draws));
    let from: Vec<Vec<usize>> = (0..40)
        .map(|_| shuffled(60, &mut draws)[..3].to_vec())
        .collect();
    let y = Matrix::from_fn(1000, 40, |i, j| {
        let part = |k: usize, w: f64| w * x.at(i, from[j][k]);
        part(0, 1.0) + part(1, -0.8) + part(2, 0.6) + 0.5 * noise.at(i, j)
    });
    let found = sparse_prediction(&x.f32(), &y.f32(), 0.12).unwrap();
    let (mut hits, mut all, mut explained) = (0, 0, 0.0);
    for (found, from) in found.iter().zip(&from) {
        all += found.from.len();
        hits += found.from.iter().filter(|f| from.contains(&f.0)).count();
        explained += found.explained / 40.0;
    }
    println!(
        "{hits} of 120 planted edges among {all} found; {explained:.3} of the variance explained"
    );
    assert!(hits == 120 && all <= 122, "{hits} {all}");
}

/// How alike two groupings are, 0 by chance (Hubert & Arabie 1985).
fn adjusted_rand(a: &[usize], b: &[usize]) -> f64 {
    let pairs = |n: usize| (n * n.saturating_sub(1) / 2) as f64;
    let count = |f: &dyn Fn(usize) -> bool| pairs((0..a.len()).filter(|&i| f(i)).count());
    let groups = |g: &[usize]| g.iter().max().map_or(0, |m| m + 1);
    let (ka, kb) = (groups(a), groups(b));
    let of_a: f64 = (0..ka).map(|k| count(&|i| a[i] == k)).sum();
    let of_b: f64 = (0..kb).map(|k| count(&|i| b[i] == k)).sum();
    let both = |k: usize| count(&|i| a[i] == k / kb && b[i] == k % kb);
    let of_both: f64 = (0..ka * kb).map(both).sum();
    let chance = of_a * of_b / pairs(a.len());
    (of_both - chance) / ((of_a + of_b) / 2.0 - chance)
}

/// Groups of units of both sides that share a source, as many on either side as chance has it.
#[test]
fn li_2015_co_clusters_find_planted_groups() {
    let mut draws = Draws::new(3);
    let sources = normal(600, 8, &mut draws);
    let of: Vec<usize> = (0..150).map(|_| draws.below(8)).collect();
    let noise = normal(600, 150, &mut draws);
    let unit = |i: usize, j: usize| {
        let sign = if j.is_multiple_of(3) { -1.0 } else { 1.0 };
        sign * sources.at(i, of[j]) + 0.9 * noise.at(i, j)
    };
    let x = Matrix::from_fn(600, 90, unit);
    let y = Matrix::from_fn(600, 60, |i, j| unit(i, 90 + j));
    let found = co_clusters(&x.f32(), &y.f32(), 8).unwrap();
    let groups = found.left.iter().chain(&found.right).flatten().copied();
    let ari = adjusted_rand(&groups.collect::<Vec<_>>(), &of);
    println!("adjusted Rand index {ari:.3}");
    assert!(ari >= 0.95, "{ari}");
}

/// Two seeds of a convolutional network, a unit being a channel: matched units correlate far above those
/// on shuffled images, and yet some have no partner. (That units looking freely find at least as much
/// as one-to-one pairs do is a theorem; the numbers say how much more.)
#[test]
fn li_2015_two_seeds_share_most_units_and_not_all() {
    let [train, held] = digits();
    let parts = [Conv(16), Relu, Pool, Conv(32), Relu, Dense(10)];
    let nets = [1, 2].map(|seed| classifier(&parts, &train, 12, seed));
    let units = |net: usize, set: &super::nets::Set| channels(&nets[net].run(0..5, &set.x), 32);
    let r = unit_correlations(&units(0, &held), &units(1, &held)).unwrap();
    let mixed = held.select(&shuffled(held.len(), &mut Draws::new(4)));
    let null = matching(&units(0, &held), &units(1, &mixed)).unwrap();
    let (one, free) = (r.one_to_one(), r.best_match());
    let mean = |pairs: &[UnitPair]| pairs.iter().map(|p| p.r).sum::<f64>() / pairs.len() as f64;
    let alone = one.iter().filter(|p| p.r < 0.4).count();
    let right = nets.each_ref().map(|net| net.accuracy(&held));
    println!(
        "{right:.3?} right; 32 units: one to one {:.3}, freely {:.3}, shuffled {null:.3}; {alone} with a partner below 0.4, best {:.3}",
        mean(&one),
        mean(&free),
        one.iter().fold(0.0f64, |m, p| m.max(p.r)),
    );
    assert!(right.iter().all(|right| *right > 0.94));
    assert!(mean(&one) > null + 0.2);
    assert!(mean(&free) >= mean(&one));
    assert!(alone > 0 && alone < 16, "{alone}");
}
