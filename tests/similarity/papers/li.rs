//! Li, Kementchedjhieva, Fierro & Søgaard 2024, "Do Vision and Language Models Share Concepts? A Vector
//! Space Alignment Study": an orthogonal map learnt from some words and their pictures finds the words
//! of other pictures, less often for words of several meanings. The paper's models and ImageNet concepts
//! are not part of these tests; here both worlds are made, and small.

use burn::tensor::Tensor;
use burn::tensor::activation::log_softmax;
use inscape::similarity::{align, precision_at_k};

use super::draws::Draws;
use super::nets::Part::{Conv, Dense, Pool, Relu};
use super::nets::{Net, Plan, Set, cross_entropy, digits, lift, select, tensor, values};
use crate::common::{Matrix, close};

// ---- planted

/// How often the noisy copy of a point has the largest cosine with it among `n` random ones: the others'
/// cosines have density `(1 - c²)^((d - 3) / 2)`, its own lies about `ρ = 1 / √(1 + σ²)` as Fisher's z.
fn expected(sigma: f64, n: i32, d: f64) -> f64 {
    const STEPS: usize = 4000;
    let middle = |i: usize| (i as f64 + 0.5) * 2.0 / STEPS as f64 - 1.0;
    let mut below = vec![0.0];
    (0..STEPS).for_each(|i| below.push(below[i] + (1.0 - middle(i).powi(2)).powf((d - 3.0) / 2.0)));
    let ahead = |z: f64| {
        let own = (((1.0 + sigma * sigma).sqrt().recip()).atanh() + z / (d - 1.0).sqrt()).tanh();
        let at = ((own + 1.0) / 2.0 * STEPS as f64) as usize;
        (below[at] / below[STEPS]).powi(n - 1)
    };
    let density = |z: f64| (-z * z / 2.0).exp() / std::f64::consts::TAU.sqrt();
    let grid = (-50..=50).map(|i| f64::from(i) / 10.0);
    grid.map(|z| 0.1 * density(z) * ahead(z)).sum()
}

#[test]
fn precision_falls_with_noise_along_the_known_curve() {
    let (pairs, n, d) = (2000, 400, 20);
    let mut draws = Draws::new(3);
    let x = Matrix::from_fn(pairs + n, d, |_, _| draws.normal());
    let rows = |m: &Matrix, from: usize, to: usize| {
        Matrix::from_fn(to - from, d, |i, j| m.at(from + i, j)).f32()
    };
    let own: Vec<usize> = (0..n).collect();
    for sigma in [0.2, 0.7, 1.0, 1.5, 2.0, 4.0] {
        let noisy = Matrix::from_fn(pairs + n, d, |i, j| x.at(i, j) + sigma * draws.normal());
        let y = noisy.rotated(0.8);
        let map = align(&rows(&y, 0, pairs), &rows(&x, 0, pairs)).unwrap();
        let held = map.apply(&rows(&y, pairs, pairs + n));
        let found = precision_at_k(&held, &rows(&x, pairs, pairs + n), &own, 1).unwrap();
        let curve = expected(sigma, n as i32, d as f64);
        println!("noise {sigma}: precision@1 {found:.3}, expected {curve:.3}");
        // Two deviations of 400 draws.
        close(found, curve, 0.05);
    }
    let strange = Matrix::from_fn(pairs + n, d, |_, _| draws.normal());
    let map = align(&rows(&strange, 0, pairs), &rows(&x, 0, pairs)).unwrap();
    let held = map.apply(&rows(&strange, pairs, pairs + n));
    let found = precision_at_k(&held, &rows(&x, pairs, pairs + n), &own, 1).unwrap();
    println!(
        "nothing in common: {found:.4}, chance {:.4}",
        1.0 / n as f64
    );
    assert!(found < 5.0 / n as f64);
}

// ---- two-digit numbers, seen and spoken of

/// Concepts 00 to 99. The first twenty-four share a word with another, two by two.
const CONCEPTS: usize = 100;
const SHARED: usize = 24;

/// Numbers in an order that puts unlike ones side by side.
fn number(concept: usize) -> [usize; 2] {
    let at = (concept * 37 + 11) % CONCEPTS;
    [at / 10, at % 10]
}

fn word(concept: usize) -> usize {
    match concept < SHARED {
        true => concept - concept % 2,
        false => concept,
    }
}

/// Two images of digits side by side, as two channels, and what they show.
fn pictures(set: &Set, n: usize, draws: &mut Draws) -> (Tensor<2>, Vec<[usize; 2]>) {
    let rows: Vec<[usize; 2]> = (0..n)
        .map(|_| [draws.below(set.len()), draws.below(set.len())])
        .collect();
    let side = |s: usize| select(&set.x, &rows.iter().map(|r| r[s]).collect::<Vec<_>>());
    let shown = rows.iter().map(|r| [set.labels[r[0]], set.labels[r[1]]]);
    (Tensor::cat(vec![side(0), side(1)], 1), shown.collect())
}

/// A small convolutional network that names both digits; its last hidden layer is where it sees.
const SEES: usize = 7;

fn seeing(train: &Set) -> Net {
    let parts = [
        Conv(8),
        Relu,
        Pool,
        Conv(16),
        Relu,
        Dense(48),
        Relu,
        Dense(20),
    ];
    let (x, shown) = pictures(train, 4000, &mut Draws::new(1));
    Net::of_channels(2, &parts, 1).fit(4000, Plan::new(8, 1), |net, rows| {
        let out = net.outputs(&lift(&select(&x, rows)));
        let of = |s: usize| {
            let labels: Vec<usize> = rows.iter().map(|&r| shown[r][s]).collect();
            cross_entropy(out.clone().narrow(1, 10 * s, 10), &labels)
        };
        of(0) + of(1)
    })
}

/// Mean of what the network makes of pictures of each number, `[100, 48]`.
fn seen(net: &Net, held: &Set) -> Tensor<2> {
    let (x, shown) = pictures(held, 6000, &mut Draws::new(2));
    let z = values(&net.run(0..SEES, &x));
    let width = z.len() / 6000;
    let mut means = vec![0.0f32; CONCEPTS * width];
    for concept in 0..CONCEPTS {
        let rows: Vec<usize> = (0..6000).filter(|&r| shown[r] == number(concept)).collect();
        for &r in &rows {
            for j in 0..width {
                means[concept * width + j] += z[r * width + j] / rows.len() as f32;
            }
        }
    }
    tensor(&means, width)
}

/// Skip-gram with negative samples (Mikolov et al. 2013) on captions: the word of a number beside two of
/// six words said of numbers with such a first digit and two of six said of such a last one, or beside a
/// word said of anything. `[100, width]`, a row for each concept's word.
fn spoken(width: usize, captions: usize) -> Tensor<2> {
    const EACH: usize = 6;
    let contexts = 20 * EACH + 30;
    let mut draws = Draws::new(5);
    let mut random = |rows: usize| -> Vec<f32> {
        (0..rows * width)
            .map(|_| (draws.normal() * 0.1) as f32)
            .collect()
    };
    let (mut words, mut beside) = (random(CONCEPTS), random(contexts));
    let mut draws = Draws::new(6);
    for caption in 0..captions {
        let rate = 0.05 * (1.0 - caption as f32 / captions as f32);
        let concept = draws.below(CONCEPTS);
        let [tens, ones] = number(concept);
        let context = match draws.below(10) {
            0 | 1 => 20 * EACH + draws.below(30),
            k if k % 2 == 0 => tens * EACH + draws.below(EACH),
            _ => (10 + ones) * EACH + draws.below(EACH),
        };
        let w = word(concept) * width;
        let mut pull = vec![0.0f32; width];
        for k in 0..6 {
            let (c, target) = match k {
                0 => (context * width, 1.0),
                _ => (draws.below(contexts) * width, 0.0),
            };
            let z: f32 = (0..width).map(|j| words[w + j] * beside[c + j]).sum();
            let step = rate * (target - 1.0 / (1.0 + (-z).exp()));
            for j in 0..width {
                pull[j] += step * beside[c + j];
                beside[c + j] += step * words[w + j];
            }
        }
        (0..width).for_each(|j| words[w + j] += pull[j]);
    }
    let rows: Vec<usize> = (0..CONCEPTS).map(word).collect();
    select(&tensor(&words, width), &rows)
}

/// Unit rows, as the paper has them.
fn unit(x: &Tensor<2>) -> Tensor<2> {
    let about = x.clone() - x.clone().mean_dim(0);
    about.clone() / about.powf_scalar(2.0).sum_dim(1).sqrt()
}

/// Whether each concept's word is among the five nearest to its picture, by a map learnt without it.
fn found(seen: &Tensor<2>, words: &Tensor<2>) -> Vec<f64> {
    let mut found = vec![0.0; CONCEPTS];
    for fold in 0..10 {
        // Both numbers of a shared word are held out together.
        let (held, train): (Vec<usize>, Vec<usize>) =
            (0..CONCEPTS).partition(|c| c / 2 % 10 == fold);
        let map = align(&select(seen, &train), &select(words, &train)).unwrap();
        for c in held {
            let query = map.apply(&select(seen, &[c]));
            // One row for each word: the second meaning is found where the first is.
            let rows: Vec<usize> = (0..CONCEPTS).filter(|&r| word(r) == r).collect();
            let partner = rows.iter().position(|&r| r == word(c)).unwrap();
            found[c] = precision_at_k(&query, &select(words, &rows), &[partner], 5).unwrap();
        }
    }
    found
}

#[test]
fn pictures_find_their_words_and_less_often_words_of_two_meanings() {
    let [train, held] = digits();
    let net = seeing(&train);
    let (x, shown) = pictures(&held, 500, &mut Draws::new(9));
    let named = log_softmax(net.outputs(&x).narrow(1, 0, 10), 1);
    let first: Vec<usize> = shown.iter().map(|s| s[0]).collect();
    println!(
        "first digit named: {:.3}",
        super::nets::accuracy(&named, &first)
    );
    let (seen, words) = (unit(&seen(&net, &held)), unit(&spoken(24, 400_000)));
    let found = found(&seen, &words);
    let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len() as f64;
    let (shared, own) = (mean(&found[..SHARED]), mean(&found[SHARED..]));
    let chance = 5.0 / (CONCEPTS - SHARED / 2) as f64;
    println!("precision@5: {own:.3} of one meaning, {shared:.3} of two, chance {chance:.3}");
    assert!(mean(&found) > 5.0 * chance);
    assert!(shared < own - 0.1);
    // Without the partners nothing is found.
    let order: Vec<usize> = (0..CONCEPTS).map(|c| (c * 61 + 7) % CONCEPTS).collect();
    let strangers = mean(&self::found(&select(&seen, &order), &words));
    println!("pictures of other numbers: {strangers:.3}");
    assert!(strangers < 3.0 * chance);
}
