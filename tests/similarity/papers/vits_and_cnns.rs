//! Raghu et al. 2021, "Do Vision Transformers See Like Convolutional Neural Networks?": CKA between all
//! layers, how far heads look, what skips carry, and whether tokens stay where they are.

use burn::tensor::activation::{relu, softmax};
use burn::tensor::{Device, Tensor};
use inscape::ops::{Adam, Moments};
use inscape::similarity::{Estimator, Flatten, linear_cka, matrix};

use super::draws::Draws;
use super::nets::{Part, Set, accuracy, classifier, cross_entropy, digits, lift, tensor};
use crate::common::{Matrix, close};

// ---- exact

#[test]
fn cka_sees_neither_rotation_nor_scale() {
    let x = Matrix::random(300, 24, 1);
    let moved = x.rotated(0.9).map(|v| 3.0 * v);
    for estimator in [Estimator::Biased, Estimator::Unbiased] {
        close(
            linear_cka(&x.f64(), &moved.f64(), estimator).unwrap(),
            1.0,
            1e-12,
        );
    }
}

/// The unbiased HSIC of the rows with these numbers, linear kernels, pair by pair.
fn hsic(x: &Matrix, y: &Matrix, rows: &[usize]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let n = rows.len() as f64;
    let (mut products, mut of_rows, mut totals) = (0.0, 0.0, [0.0; 2]);
    for &i in rows {
        let mut sums = [0.0; 2];
        for &j in rows.iter().filter(|&&j| j != i) {
            let pair = [x, y].map(|m| dot(m.row(i), m.row(j)));
            products += pair[0] * pair[1];
            sums = [0, 1].map(|side| sums[side] + pair[side]);
        }
        of_rows += sums[0] * sums[1];
        totals = [0, 1].map(|side| totals[side] + sums[side]);
    }
    let centred = products + totals[0] * totals[1] / ((n - 1.0) * (n - 2.0));
    (centred - 2.0 * of_rows / (n - 2.0)) / (n * (n - 3.0))
}

/// The paper's estimate by minibatches has the value of all rows as its mean, whatever their size.
#[test]
fn cka_by_minibatches_is_that_of_all_rows_on_average() {
    let (n, draws) = (512, 40);
    let (x, noise) = (Matrix::random(n, 20, 2), Matrix::random(n, 16, 3));
    let y = Matrix::from_fn(n, 16, |i, j| x.at(i, j) + 0.7 * noise.at(i, j));
    let whole = linear_cka(&x.f64(), &y.f64(), Estimator::Unbiased).unwrap();
    for batch in [16, 64] {
        let mut order: Vec<usize> = (0..n).collect();
        let mut random = Draws::new(4);
        let one = |_| {
            (1..n)
                .rev()
                .for_each(|i| order.swap(i, random.below(i + 1)));
            let sum = |x: &Matrix, y: &Matrix| -> f64 {
                order.chunks(batch).map(|rows| hsic(x, y, rows)).sum()
            };
            sum(&x, &y) / (sum(&x, &x) * sum(&y, &y)).sqrt()
        };
        let mean = (0..draws).map(one).sum::<f64>() / f64::from(draws);
        println!("batches of {batch}: {mean:.4}, all rows {whole:.4}");
        close(mean, whole, 0.01);
    }
}

// ---- a small vision transformer

const SIDE: usize = 4;
const PATCHES: usize = SIDE * SIDE;
/// The class token, then the patches row by row.
const TOKENS: usize = PATCHES + 1;
const WIDTH: usize = 32;
const HEADS: usize = 2;
const BLOCKS: usize = 3;
/// Tensors of a block: two norms, the three of attention and its output, and the MLP.
const OF_BLOCK: usize = 12;

/// Patches of 2 × 2 pixels, a class token, blocks that normalise first, a linear head on the class token.
struct Vit {
    /// Patch map and bias, positions, the blocks, and last norm, head and bias.
    weights: Vec<Tensor<2>>,
    /// The block that goes without its skips.
    cut: Option<usize>,
}

/// What is seen of one run.
struct Seen {
    outputs: Tensor<2>,
    /// The tokens after the patches are read, and after each attention and each MLP.
    stream: Vec<Tensor<3>>,
    /// `[n, heads, tokens, tokens]`, a block each.
    attention: Vec<Tensor<4>>,
}

impl Vit {
    fn new(cut: Option<usize>, seed: u64) -> Self {
        let mut draws = Draws::new(seed);
        let mut drawn = |rows: usize, columns: usize, scale: f64| {
            let v = draws.normals(rows * columns);
            let v: Vec<f32> = v.into_iter().map(|v| (scale * v) as f32).collect();
            tensor(&v, columns)
        };
        let ones = || tensor(&[1.0; WIDTH], WIDTH);
        let zeros = |columns: usize| tensor(&vec![0.0; columns], columns);
        let by = |inputs: usize| (inputs as f64).recip().sqrt();
        let mut weights = vec![drawn(4, WIDTH, by(4)), zeros(WIDTH)];
        weights.push(drawn(TOKENS, WIDTH, 0.3));
        for _ in 0..BLOCKS {
            weights.extend([ones(), zeros(WIDTH)]);
            weights.extend([drawn(WIDTH, 3 * WIDTH, by(WIDTH)), zeros(3 * WIDTH)]);
            weights.extend([drawn(WIDTH, WIDTH, by(WIDTH)), zeros(WIDTH)]);
            weights.extend([ones(), zeros(WIDTH)]);
            weights.extend([drawn(WIDTH, 2 * WIDTH, by(WIDTH)), zeros(2 * WIDTH)]);
            weights.extend([drawn(2 * WIDTH, WIDTH, by(2 * WIDTH)), zeros(WIDTH)]);
        }
        weights.extend([ones(), zeros(WIDTH), drawn(WIDTH, 10, by(WIDTH)), zeros(10)]);
        Self { weights, cut }
    }

    fn run(&self, pixels: &Tensor<2>) -> Seen {
        let n = pixels.dims()[0];
        let w = &self.weights;
        let read = patches(pixels).matmul(w[0].clone().unsqueeze()) + w[1].clone().unsqueeze();
        let class = read.clone().narrow(1, 0, 1) * 0.0;
        let mut x = Tensor::cat(vec![class, read], 1) + w[2].clone().unsqueeze();
        let (mut stream, mut attention) = (vec![x.clone()], vec![]);
        for block in 0..BLOCKS {
            let w = &w[3 + block * OF_BLOCK..][..OF_BLOCK];
            let skip = |x: Tensor<3>, made: Tensor<3>| match self.cut == Some(block) {
                true => made,
                false => x + made,
            };
            let (made, looked) = attended(normal(&x, &w[0], &w[1]), &w[2..6]);
            x = skip(x, made);
            stream.push(x.clone());
            let hidden = relu(linear(normal(&x, &w[6], &w[7]), &w[8], &w[9]));
            x = skip(x, linear(hidden, &w[10], &w[11]));
            stream.push(x.clone());
            attention.push(looked);
        }
        let last = &w[3 + BLOCKS * OF_BLOCK..];
        let class = normal(&x, &last[0], &last[1]).narrow(1, 0, 1);
        let outputs = linear(class, &last[2], &last[3]).reshape([n, 10]);
        Seen {
            outputs,
            stream,
            attention,
        }
    }

    fn trained(mut self, set: &Set, epochs: usize, seed: u64) -> Self {
        let mut order: Vec<usize> = (0..set.len()).collect();
        let (mut draws, mut t) = (Draws::new(seed), 0);
        let mut moments: Vec<Moments<2>> = self.weights.iter().map(Moments::zeros).collect();
        for _ in 0..epochs {
            (1..order.len())
                .rev()
                .for_each(|i| order.swap(i, draws.below(i + 1)));
            for rows in order.chunks(64) {
                t += 1;
                let batch = set.select(rows);
                let tracked = self.weights.iter().map(|w| lift(w).require_grad());
                let learning = Self {
                    weights: tracked.collect(),
                    ..self
                };
                let outputs = learning.run(&lift(&batch.x)).outputs;
                let grads = cross_entropy(outputs, &batch.labels).backward();
                for (at, w) in learning.weights.iter().enumerate() {
                    let grad = w.grad(&grads).expect("a gradient");
                    let own = self.weights[at].clone();
                    self.weights[at] = Adam::default().step(t, 2e-3, own, grad, &mut moments[at]);
                }
            }
        }
        self
    }
}

/// `[n, 64]` as `[n, 16, 4]`: patches of 2 × 2.
fn patches(pixels: &Tensor<2>) -> Tensor<3> {
    let n = pixels.dims()[0];
    let split = pixels.clone().reshape([n, SIDE, 2, SIDE, 2]);
    split.permute([0, 1, 3, 2, 4]).reshape([n, PATCHES, 4])
}

fn linear(x: Tensor<3>, w: &Tensor<2>, b: &Tensor<2>) -> Tensor<3> {
    x.matmul(w.clone().unsqueeze()) + b.clone().unsqueeze()
}

/// Layer norm over the features.
fn normal(x: &Tensor<3>, gain: &Tensor<2>, bias: &Tensor<2>) -> Tensor<3> {
    let about = x.clone() - x.clone().mean_dim(2);
    let spread = (about.clone().powf_scalar(2.0).mean_dim(2) + 1e-5).sqrt();
    about / spread * gain.clone().unsqueeze() + bias.clone().unsqueeze()
}

/// Attention and how much each token looks at each.
fn attended(x: Tensor<3>, w: &[Tensor<2>]) -> (Tensor<3>, Tensor<4>) {
    let [n, t, _] = x.dims();
    let size = WIDTH / HEADS;
    let three = linear(x, &w[0], &w[1]);
    let part = |at: usize| {
        let one = three.clone().narrow(2, at * WIDTH, WIDTH);
        one.reshape([n, t, HEADS, size]).permute([0, 2, 1, 3])
    };
    let (q, k, v) = (part(0), part(1), part(2));
    let looked = softmax(q.matmul(k.transpose()) * (size as f64).recip().sqrt(), 3);
    let made = looked.clone().matmul(v).permute([0, 2, 1, 3]);
    (linear(made.reshape([n, t, WIDTH]), &w[2], &w[3]), looked)
}

/// Pixels from one patch to another.
fn distance(a: usize, b: usize) -> f64 {
    let [dy, dx] = [a / SIDE, a % SIDE]
        .iter()
        .zip([b / SIDE, b % SIDE])
        .map(|(&a, b)| 2.0 * (a as f64 - b as f64))
        .collect::<Vec<f64>>()[..]
    else {
        panic!("two")
    };
    dy.hypot(dx)
}

/// How far each head looks on average, from patches to patches: `[heads]`.
fn reach(attention: &Tensor<4>) -> Vec<f64> {
    let n = attention.dims()[0];
    let looked: Vec<f32> = attention.to_data().try_to_vec().expect("f32");
    let mut reach = vec![0.0; HEADS];
    for (at, &share) in looked.iter().enumerate() {
        let (from, to) = (at / TOKENS % TOKENS, at % TOKENS);
        if from > 0 && to > 0 {
            let far = f64::from(share) * distance(from - 1, to - 1);
            reach[at / (TOKENS * TOKENS) % HEADS] += far / (n * PATCHES) as f64;
        }
    }
    reach
}

// ---- trained

fn table(layers: &[Tensor<2>]) -> Vec<Vec<f64>> {
    let metric = "linear_cka".parse().expect("a metric");
    matrix(layers, layers, metric, |_, _| ()).expect("a table")
}

fn off_diagonal(table: &[Vec<f64>]) -> f64 {
    let k = table.len();
    let of_row = |i: usize| (0..k).filter(|&j| j != i).map(|j| table[i][j]).sum::<f64>();
    (0..k).map(of_row).sum::<f64>() / (k * (k - 1)) as f64
}

fn shown(name: &str, table: &[Vec<f64>]) {
    println!("{name}");
    for row in table {
        let row: Vec<String> = row.iter().map(|v| format!("{v:.2}")).collect();
        println!("  {}", row.join(" "));
    }
}

/// For each place, CKA of its features with each patch of the image: the mean for its own patch, and for
/// the others.
fn localisation(places: &[Tensor<2>], pixels: &Tensor<2>) -> [f64; 2] {
    let image = patches(pixels);
    let n = pixels.dims()[0];
    let of_image: Vec<Tensor<2>> = (0..PATCHES)
        .map(|p| image.clone().narrow(1, p, 1).reshape([n, 4]))
        .collect();
    let (mut own, mut others, mut count) = (0.0, 0.0, [0.0; 2]);
    for (p, place) in places.iter().enumerate() {
        for (q, patch) in of_image.iter().enumerate() {
            // Two corners of the images are always empty.
            let Ok(value) = linear_cka(place, patch, Estimator::Unbiased) else {
                continue;
            };
            match p == q {
                true => (own, count[0]) = (own + value, count[0] + 1.0),
                false => (others, count[1]) = (others + value, count[1] + 1.0),
            }
        }
    }
    [own / count[0], others / count[1]]
}

fn flat(stream: &[Tensor<3>]) -> Vec<Tensor<2>> {
    let flat = |x: &Tensor<3>| Flatten::Features.tokens(x.clone());
    stream.iter().map(flat).collect()
}

/// Mean CKA of the layers before block 1 and those after it.
fn across(table: &[Vec<f64>]) -> f64 {
    let pairs = (0..3).flat_map(|i| (4..7).map(move |j| (i, j)));
    pairs.map(|(i, j)| table[i][j]).sum::<f64>() / 9.0
}

/// What holds: without its skips, what comes out of a block is less like what came in, and tokens still
/// stand for their own patch at the end. What does not, at this size: the layers of a ViT are no more alike
/// than six layers of convolutions on 8 × 8 pixels, its tokens stay no more than theirs, and the heads of
/// its first block look as far as those of its last.
#[test]
fn skips_carry_what_layers_share() {
    let [train, held] = digits();
    let (mut kept, mut lost, mut vits) = (vec![], vec![], vec![]);
    for seed in [2, 3] {
        let [whole, cut] = [None, Some(1)].map(|cut| {
            let vit = Vit::new(cut, seed).trained(&train, 12, seed);
            let seen = vit.run(&held.x);
            let score = accuracy(&seen.outputs, &held.labels);
            let table = table(&flat(&seen.stream));
            shown(
                &format!("ViT without the skips of {cut:?}: {score:.3} right"),
                &table,
            );
            assert!(score > 0.88, "{score}");
            (seen, table)
        });
        kept.push(across(&whole.1));
        lost.push(across(&cut.1));
        vits.push(whole);
    }
    println!("CKA across block 1: {kept:.3?} with its skips, {lost:.3?} without");
    assert!(kept.iter().zip(&lost).all(|(kept, lost)| lost < kept));

    use Part::{Conv, Dense, Pool, Relu};
    let parts = [
        &[Conv(8), Relu, Conv(8), Relu, Pool][..],
        &[Conv(16), Relu, Conv(16), Relu, Pool],
        &[Conv(32), Relu, Conv(32), Relu, Dense(10)],
    ];
    let cnn = classifier(&parts.concat(), &train, 8, 1);
    let all = cnn.layers(&held.x);
    let of_cnn = table(&[1, 3, 6, 8, 11, 13].map(|at| all[at].clone()));
    shown(&format!("CNN: {:.3} right", cnn.accuracy(&held)), &of_cnn);
    let (seen, of_vit) = &vits[0];
    let six: Vec<Vec<f64>> = of_vit[1..].iter().map(|row| row[1..].to_vec()).collect();
    let (cnn_mean, vit_mean) = (off_diagonal(&of_cnn), off_diagonal(&six));
    println!("mean CKA of different layers: CNN {cnn_mean:.3}, ViT {vit_mean:.3}");
    let n = held.len();

    // Evenly spread attention reaches as far as patches are apart on average.
    let even = Tensor::<4>::ones([1, HEADS, TOKENS, TOKENS], &Device::flex()) / PATCHES as f64;
    let apart = (0..PATCHES * PATCHES)
        .map(|at| distance(at / PATCHES, at % PATCHES))
        .sum::<f64>()
        / (PATCHES * PATCHES) as f64;
    close(reach(&even)[0], apart, 1e-5);
    for (block, attention) in seen.attention.iter().enumerate() {
        println!(
            "block {block} looks {:.2?} pixels far (evenly: {apart:.2})",
            reach(attention)
        );
    }

    // Whether tokens still stand for their own patch at the end.
    let last = seen.stream.last().expect("layers");
    let tokens: Vec<Tensor<2>> = (1..TOKENS)
        .map(|t| last.clone().narrow(1, t, 1).reshape([n, WIDTH]))
        .collect();
    let maps = all[8].clone().reshape([n, 16, PATCHES]);
    let places: Vec<Tensor<2>> = (0..PATCHES)
        .map(|p| maps.clone().narrow(2, p, 1).reshape([n, 16]))
        .collect();
    let [vit, conv] = [tokens, places].map(|places| localisation(&places, &held.x));
    println!("CKA with the own patch and others: ViT {vit:.3?}, CNN {conv:.3?}");
    assert!(
        [vit, conv]
            .iter()
            .all(|[own, others]| own > &(1.5 * others))
    );
}
