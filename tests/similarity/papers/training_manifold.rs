//! Mao et al. 2024, "The training process of many deep networks explores the same low-dimensional
//! manifold": in the InPCA of what networks of different widths and steps predict along training, a
//! few axes explain nearly all, and the networks leave ignorance for the truth by a shared road.

use burn::tensor::{DType, Tensor, TensorData};
use inscape::Device;
use inscape::similarity::{InPca, inpca};

use super::digits::{Digits, PIXELS};
use super::draws::Draws;

const CLASSES: usize = 10;
const IMAGES: usize = 300;
const CHECKPOINTS: [usize; 8] = [0, 2, 5, 10, 20, 40, 80, 160];

/// One hidden layer of `width` units (ReLU), full-batch gradient descent by hand: the probabilities of
/// every image at each checkpoint.
fn train(digits: &Digits, width: usize, rate: f64, seed: u64) -> Vec<Vec<f64>> {
    let mut draws = Draws::new(seed);
    let scaled = |v: Vec<f64>, by: f64| v.into_iter().map(|v| v * by).collect::<Vec<f64>>();
    let mut first = scaled(draws.normals(PIXELS * width), (2.0 / PIXELS as f64).sqrt());
    let mut second = scaled(draws.normals(width * CLASSES), (0.1 / width as f64).sqrt());
    let mut seen = Vec::new();
    for step in 0..=CHECKPOINTS[CHECKPOINTS.len() - 1] {
        let (mut of_first, mut of_second) = (vec![0.0; first.len()], vec![0.0; second.len()]);
        let mut said = Vec::with_capacity(IMAGES * CLASSES);
        for i in 0..IMAGES {
            let pixels = &digits.pixels[i * PIXELS..(i + 1) * PIXELS];
            let mut hidden = vec![0.0; width];
            for (p, weights) in pixels.iter().zip(first.chunks(width)) {
                hidden
                    .iter_mut()
                    .zip(weights)
                    .for_each(|(h, w)| *h += f64::from(*p) * w);
            }
            hidden.iter_mut().for_each(|h| *h = h.max(0.0));
            let mut logits = [0.0f64; CLASSES];
            for (h, weights) in hidden.iter().zip(second.chunks(CLASSES)) {
                logits
                    .iter_mut()
                    .zip(weights)
                    .for_each(|(l, w)| *l += h * w);
            }
            let largest = logits.iter().fold(f64::MIN, |m, l| m.max(*l));
            let total: f64 = logits.iter().map(|l| (l - largest).exp()).sum();
            let mut off = logits.map(|l| (l - largest).exp() / total);
            said.extend(off);
            off[usize::from(digits.labels[i])] -= 1.0;
            for (k, h) in hidden.iter().enumerate().filter(|(_, h)| **h > 0.0) {
                let out = &second[k * CLASSES..][..CLASSES];
                let back: f64 = out.iter().zip(&off).map(|(w, o)| w * o).sum();
                for (c, o) in off.iter().enumerate() {
                    of_second[k * CLASSES + c] += h * o;
                }
                for (p, pixel) in pixels.iter().enumerate() {
                    of_first[p * width + k] += f64::from(*pixel) * back;
                }
            }
        }
        if CHECKPOINTS.contains(&step) {
            seen.push(said);
        }
        let by = rate / IMAGES as f64;
        first
            .iter_mut()
            .zip(of_first)
            .for_each(|(w, g)| *w -= by * g);
        second
            .iter_mut()
            .zip(of_second)
            .for_each(|(w, g)| *w -= by * g);
    }
    seen
}

fn embedded(networks: &[Vec<f64>]) -> InPca {
    let shape = [networks.len(), IMAGES, CLASSES];
    let data = TensorData::new(networks.concat(), shape);
    let device = Device::cpu();
    inpca(&Tensor::from_data(data, (device.tensor(), DType::F64))).expect("probabilities")
}

#[test]
fn training_explores_few_dimensions_between_ignorance_and_truth() {
    let digits = Digits::read();
    let settings = [(8, 0.5, 1), (32, 0.5, 2), (32, 1.0, 3), (64, 0.25, 4)];
    let runs: Vec<Vec<Vec<f64>>> = settings
        .iter()
        .map(|&(w, r, s)| train(&digits, w, r, s))
        .collect();
    let mut networks: Vec<Vec<f64>> = runs.concat();
    networks.push(vec![1.0 / CLASSES as f64; IMAGES * CLASSES]);
    // The truth, with a thousandth left over so that no distance is infinite.
    let truth = |at: usize| match usize::from(digits.labels[at / CLASSES]) == at % CLASSES {
        true => 1.0 - 9e-4,
        false => 1e-4,
    };
    networks.push((0..IMAGES * CLASSES).map(truth).collect());
    let found = embedded(&networks);
    let explained = [1, 2, 3].map(|axes| found.explained(axes));
    println!(
        "explained by 1, 2, 3 axes: {explained:.3?}; eigenvalues {:.3?}",
        &found.eigenvalues[..6]
    );
    assert!(explained[2] > 0.8);

    // The networks draw near the truth all along, and start nearer ignorance than they end.
    let (ignorance, truth, all) = (networks.len() - 2, networks.len() - 1, networks.len());
    let to = |network: usize, end: usize| found.squared_distance(network, end, all);
    for run in 0..runs.len() {
        let at = |checkpoint: usize| run * CHECKPOINTS.len() + checkpoint;
        let road: Vec<f64> = (0..CHECKPOINTS.len()).map(|c| to(at(c), truth)).collect();
        println!("to the truth {road:.3?}");
        assert!(road.is_sorted_by(|a, b| a > b));
        assert!(to(at(0), ignorance) < to(at(7), ignorance));
    }

    // One road: halfway, the nearest network of another run is nearer than either end.
    let middle = |run: usize| run * CHECKPOINTS.len() + 5;
    for run in 0..runs.len() {
        let others = (0..runs.len() * CHECKPOINTS.len()).filter(|n| n / CHECKPOINTS.len() != run);
        let nearest = others
            .map(|n| to(middle(run), n))
            .fold(f64::INFINITY, f64::min);
        let end = to(middle(run), truth).min(to(middle(run), ignorance));
        println!("halfway: {nearest:.3} to another run, {end:.3} to an end");
        assert!(nearest < end);
    }
}
