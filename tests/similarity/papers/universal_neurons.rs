//! Gurnee, Horsley, Guo, Kheirkhah, Sun, Hathaway, Nanda & Bertsimas 2024, "Universal neurons in GPT2
//! language models": few neurons have a partner in every seed of a model. Planted here; on trained
//! language models in `tests/universal_neurons.rs`.

use inscape::Device;
use inscape::similarity::{Correlations, excess_correlation, universal_families};

use super::draws::Draws;
use super::nets::shuffled;
use crate::common::Matrix;

const SOURCES: usize = 40;
const NEURONS: usize = 150;
const PLANTED: usize = 6;
const SEEDS: usize = 3;

/// Neurons of one seed: the first few of `places` read one source each, all others mix all sources.
fn neurons(sources: &Matrix, weights: &Matrix, places: &[usize], noise: &mut Draws) -> Matrix {
    let place: Vec<usize> = (0..NEURONS)
        .map(|j| places.iter().position(|p| *p == j).unwrap())
        .collect();
    Matrix::from_fn(sources.n, NEURONS, |i, j| {
        let row = sources.row(i);
        let drive = match place[j] < PLANTED {
            true => row[place[j]],
            false => {
                row.iter()
                    .zip(weights.row(j))
                    .map(|(s, w)| s * w)
                    .sum::<f64>()
                    / 6.0
            }
        };
        (drive + 0.3 * noise.normal()).max(0.0)
    })
}

/// All seeds span the same sources, so every neuron has some correlation with every seed; only the
/// planted ones exceed what rotated neurons reach.
#[test]
fn gurnee_2024_planted_universal_neurons_alone_exceed_the_rotated_baseline() {
    let cpu = Device::cpu();
    let mut draws = Draws::new(1);
    let places: Vec<Vec<usize>> = (0..SEEDS).map(|_| shuffled(NEURONS, &mut draws)).collect();
    let weights: Vec<Matrix> = (0..SEEDS)
        .map(|_| Matrix {
            n: NEURONS,
            d: SOURCES,
            v: draws.normals(NEURONS * SOURCES),
        })
        .collect();
    let order: Vec<(usize, usize)> = (0..SEEDS * SEEDS)
        .map(|at| (at / SEEDS, at % SEEDS))
        .filter(|(a, b)| a != b)
        .collect();
    let fresh = |_: &(usize, usize)| Correlations::new(NEURONS, NEURONS, &cpu).with_rotations();
    let mut all: Vec<Correlations> = order.iter().map(fresh).collect();
    for _ in 0..12 {
        let sources = Matrix {
            n: 500,
            d: SOURCES,
            v: draws.normals(500 * SOURCES),
        };
        let sides: Vec<Matrix> = (0..SEEDS)
            .map(|s| neurons(&sources, &weights[s], &places[s], &mut draws))
            .collect();
        for ((a, b), correlations) in order.iter().zip(&mut all) {
            correlations
                .push(&sides[*a].f32(), &sides[*b].f32())
                .unwrap();
        }
    }
    let of = |seed: usize| {
        order
            .iter()
            .zip(&all)
            .filter(move |(pair, _)| pair.0 == seed)
    };
    let excess: Vec<Vec<f64>> = (0..SEEDS)
        .map(|seed| {
            let found: Vec<_> = of(seed).map(|(_, c)| c.read().unwrap()).collect();
            let rotated: Vec<_> = of(seed).map(|(_, c)| c.rotated(5).unwrap()).collect();
            excess_correlation(&found, &rotated)
        })
        .collect();
    for (excess, places) in excess.iter().zip(&places) {
        let (planted, rest) = places.split_at(PLANTED);
        let least = planted
            .iter()
            .map(|j| excess[*j])
            .fold(f64::INFINITY, f64::min);
        let most = rest
            .iter()
            .map(|j| excess[*j])
            .fold(f64::NEG_INFINITY, f64::max);
        println!("excess of planted neurons at least {least:.3}, of all others at most {most:.3}");
        assert!(least > 0.4 && most < 0.25, "{least} {most}");
    }
    let pairs: Vec<_> = [(0, 1), (0, 2), (1, 2)]
        .iter()
        .map(|pair| {
            let at = order.iter().position(|o| o == pair).unwrap();
            all[at].read().unwrap()
        })
        .collect();
    let families = universal_families(&pairs, &excess, 0.3);
    let planted = |f: &[usize]| (0..PLANTED).any(|p| (0..SEEDS).all(|s| places[s][p] == f[s]));
    assert_eq!(families.len(), PLANTED);
    assert!(families.iter().all(|f| planted(&f.units)));
}
