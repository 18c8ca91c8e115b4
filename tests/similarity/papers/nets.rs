//! Small networks trained on the 8 × 8 digits, by hand with Burn's autodiff: seeded, about a second each.

use std::ops::Range;

use burn::tensor::activation::{log_softmax, relu};
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Int, Tensor, TensorData};
use inscape::Device;

use super::digits::{Digits, PIXELS};
use super::draws::Draws;

/// Images `[n, 64]` and what they show.
#[derive(Clone)]
pub struct Set {
    pub x: Tensor<2>,
    pub labels: Vec<usize>,
}

impl Set {
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    pub fn select(&self, rows: &[usize]) -> Self {
        Self {
            x: select(&self.x, rows),
            labels: rows.iter().map(|&r| self.labels[r]).collect(),
        }
    }

    /// The rows that show one of these.
    pub fn showing(&self, digits: &[usize]) -> Self {
        let rows = (0..self.len()).filter(|&r| digits.contains(&self.labels[r]));
        self.select(&rows.collect::<Vec<_>>())
    }
}

/// The digits to train on, and every fourth, which is held out.
pub fn digits() -> [Set; 2] {
    let read = Digits::read();
    let all = Set {
        x: tensor(&read.pixels, PIXELS),
        labels: read.labels.iter().map(|&l| usize::from(l)).collect(),
    };
    let (held, train): (Vec<usize>, Vec<usize>) = (0..all.len()).partition(|r| r % 4 == 3);
    [all.select(&train), all.select(&held)]
}

pub fn tensor(values: &[f32], columns: usize) -> Tensor<2> {
    let data = TensorData::new(values.to_vec(), [values.len() / columns, columns]);
    Tensor::from_data(data, Device::cpu().tensor())
}

pub fn select(x: &Tensor<2>, rows: &[usize]) -> Tensor<2> {
    let rows: Vec<i32> = rows.iter().map(|&r| r as i32).collect();
    let data = TensorData::new(rows.clone(), [rows.len()]);
    x.clone()
        .select(0, Tensor::<1, Int>::from_data(data, &x.device()))
}

pub fn values(x: &Tensor<2>) -> Vec<f32> {
    x.to_data().try_to_vec::<f32>().expect("f32 values")
}

/// The numbers below `n` in random order.
pub fn shuffled(n: usize, draws: &mut Draws) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    (1..n).rev().for_each(|i| order.swap(i, draws.below(i + 1)));
    order
}

/// What a convolution gives, `[n, channels * places]`, with a row for each place of each image:
/// `[n * places, channels]`.
pub fn channels(x: &Tensor<2>, channels: usize) -> Tensor<2> {
    let [n, features] = x.dims();
    let places = features / channels;
    x.clone()
        .reshape([n, channels, places])
        .swap_dims(1, 2)
        .reshape([n * places, channels])
}

/// One step of a network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Part {
    /// To so many features.
    Dense(usize),
    /// 3 × 3 with a margin of zeros, to so many channels.
    Conv(usize),
    /// Means of 2 × 2.
    Pool,
    Relu,
    Tanh,
}

/// A chain of parts, with weights where they have some.
#[derive(Clone)]
pub struct Net {
    parts: Vec<Part>,
    /// Channels and side of the image each part takes; a plain vector has side 1.
    shapes: Vec<[usize; 2]>,
    /// `[inputs, outputs]` and a row of biases, for dense; `[outputs, inputs * 9]` for a convolution.
    pub weights: Vec<Option<[Tensor<2>; 2]>>,
}

impl Net {
    /// Of images of one channel.
    pub fn of_images(parts: &[Part], seed: u64) -> Self {
        Self::new([1, 8], parts, seed)
    }

    /// Of images of several channels.
    pub fn of_channels(channels: usize, parts: &[Part], seed: u64) -> Self {
        Self::new([channels, 8], parts, seed)
    }

    /// Of vectors.
    pub fn of_vectors(width: usize, parts: &[Part], seed: u64) -> Self {
        Self::new([width, 1], parts, seed)
    }

    fn new(mut shape: [usize; 2], parts: &[Part], seed: u64) -> Self {
        let (mut shapes, mut weights, mut draws) = (vec![], vec![], Draws::new(seed));
        let mut drawn = |rows: usize, columns: usize, inputs: usize, outputs: usize| {
            let scale = (2.0 / inputs as f64).sqrt();
            let w: Vec<f32> = (0..rows * columns)
                .map(|_| (scale * draws.normal()) as f32)
                .collect();
            Some([tensor(&w, columns), tensor(&vec![0.0; outputs], outputs)])
        };
        for &part in parts {
            shapes.push(shape);
            let [channels, side] = shape;
            let inputs = channels * side * side;
            weights.push(match part {
                Part::Dense(to) => drawn(inputs, to, inputs, to),
                Part::Conv(to) => drawn(to, channels * 9, channels * 9, to),
                _ => None,
            });
            shape = match part {
                Part::Dense(to) => [to, 1],
                Part::Conv(to) => [to, side],
                Part::Pool => [channels, side / 2],
                _ => shape,
            };
        }
        Self {
            parts: parts.to_vec(),
            shapes,
            weights,
        }
    }

    fn part(&self, at: usize, x: Tensor<2>) -> Tensor<2> {
        let ([channels, side], n) = (self.shapes[at], x.dims()[0]);
        match (self.parts[at], &self.weights[at]) {
            (Part::Dense(_), Some([w, b])) => x.matmul(w.clone()) + b.clone(),
            (Part::Conv(to), Some([w, b])) => {
                let x = x.reshape([n, channels, side, side]);
                let w = w.clone().reshape([to, channels, 3, 3]);
                let options = ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
                conv2d(x, w, Some(b.clone().reshape([to])), options).reshape([n, to * side * side])
            }
            (Part::Pool, _) => x
                .reshape([n * channels * side / 2, 2, side / 2, 2])
                .mean_dim(3)
                .mean_dim(1)
                .reshape([n, channels * side * side / 4]),
            (Part::Relu, _) => relu(x),
            (Part::Tanh, _) => x.tanh(),
            (part, None) => panic!("{part:?} has no weights"),
        }
    }

    /// What `parts` make of `x`.
    pub fn run(&self, parts: Range<usize>, x: &Tensor<2>) -> Tensor<2> {
        parts.fold(x.clone(), |x, at| self.part(at, x))
    }

    /// What all parts make of `x`.
    pub fn outputs(&self, x: &Tensor<2>) -> Tensor<2> {
        self.run(0..self.parts.len(), x)
    }

    /// What comes out of each part, `[n, features]` each.
    pub fn layers(&self, x: &Tensor<2>) -> Vec<Tensor<2>> {
        let mut at = x.clone();
        let mut next = |part| {
            at = self.part(part, at.clone());
            at.clone()
        };
        (0..self.parts.len()).map(&mut next).collect()
    }

    pub fn accuracy(&self, set: &Set) -> f64 {
        accuracy(&self.outputs(&set.x), &set.labels)
    }

    /// The net with Adam's steps down `loss(net, rows)`, for batches of `0..n`. Tensors that the loss
    /// brings from outside the net go through [`lift`].
    pub fn fit(
        mut self,
        n: usize,
        plan: Plan,
        loss: impl Fn(&Self, &[usize]) -> Tensor<1>,
    ) -> Self {
        let mut order: Vec<usize> = (0..n).collect();
        let mut draws = Draws::new(plan.seed);
        let mut moments: Vec<Option<[[Tensor<2>; 2]; 2]>> = vec![None; self.parts.len()];
        let mut step = 0;
        for _ in 0..plan.epochs {
            (1..n).rev().for_each(|i| order.swap(i, draws.below(i + 1)));
            for rows in order.chunks(plan.batch) {
                step += 1;
                let learning = self.clone().tracked();
                let grads = loss(&learning, rows).backward();
                for (part, tracked) in learning.weights.iter().enumerate() {
                    let Some(tracked) = tracked else { continue };
                    let g = tracked
                        .each_ref()
                        .map(|w| w.grad(&grads).expect("a gradient"));
                    let own = self.weights[part].as_mut().expect("the same parts");
                    let kept = moments[part].get_or_insert_with(|| {
                        g.each_ref().map(|g| [g.zeros_like(), g.zeros_like()])
                    });
                    for ((w, kept), g) in own.iter_mut().zip(kept).zip(g) {
                        *w = adam(w.clone(), kept, g, plan.rate, step);
                    }
                }
            }
        }
        self
    }

    fn tracked(mut self) -> Self {
        for w in self.weights.iter_mut().flatten().flatten() {
            *w = lift(w).require_grad();
        }
        self
    }
}

/// A tensor from outside a loss, beside the weights that learn in it.
pub fn lift(x: &Tensor<2>) -> Tensor<2> {
    Tensor::from_inner(x.clone())
}

fn adam(
    w: Tensor<2>,
    [m, v]: &mut [Tensor<2>; 2],
    g: Tensor<2>,
    rate: f64,
    step: i32,
) -> Tensor<2> {
    *m = m.clone() * 0.9 + g.clone() * 0.1;
    *v = v.clone() * 0.999 + g.clone() * g * 0.001;
    let (of_m, of_v) = (1.0 - 0.9f64.powi(step), 1.0 - 0.999f64.powi(step));
    w - m.clone() * (rate / of_m) / ((v.clone() / of_v).sqrt() + 1e-8)
}

/// How a net is trained.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub epochs: usize,
    pub batch: usize,
    pub rate: f64,
    /// Of the order of the rows.
    pub seed: u64,
}

impl Plan {
    pub fn new(epochs: usize, seed: u64) -> Self {
        Self {
            epochs,
            batch: 64,
            rate: 2e-3,
            seed,
        }
    }
}

/// Mean cross-entropy of ten classes.
pub fn cross_entropy(outputs: Tensor<2>, labels: &[usize]) -> Tensor<1> {
    let mut ones = vec![0.0f32; labels.len() * 10];
    labels
        .iter()
        .enumerate()
        .for_each(|(i, &l)| ones[i * 10 + l] = 1.0);
    let ones = lift(&tensor(&ones, 10));
    (log_softmax(outputs, 1) * ones).sum() * (-1.0 / labels.len() as f64)
}

/// Share of rows whose largest output is that of their label.
pub fn accuracy(outputs: &Tensor<2>, labels: &[usize]) -> f64 {
    let width = outputs.dims()[1];
    let values = values(outputs);
    let right = values.chunks(width).zip(labels).filter(|(row, label)| {
        let best = (0..width).max_by(|&a, &b| row[a].total_cmp(&row[b]));
        best == Some(**label)
    });
    right.count() as f64 / labels.len() as f64
}

/// A classifier of the digits; the last part is to be `Dense(10)`. Weights and order from one seed.
pub fn classifier(parts: &[Part], set: &Set, epochs: usize, seed: u64) -> Net {
    Net::of_images(parts, seed).fit(set.len(), Plan::new(epochs, seed), |net, rows| {
        let batch = set.select(rows);
        cross_entropy(net.outputs(&lift(&batch.x)), &batch.labels)
    })
}

/// An autoencoder of the digits by squared error; the last part is to be `Dense(64)`.
pub fn autoencoder(parts: &[Part], set: &Set, epochs: usize, seed: u64) -> Net {
    Net::of_images(parts, seed).fit(set.len(), Plan::new(epochs, seed), |net, rows| {
        let x = lift(&select(&set.x, rows));
        (net.outputs(&x) - x).powf_scalar(2.0).mean()
    })
}

#[cfg(test)]
mod tests {
    use super::Part::{Conv, Dense, Pool, Relu, Tanh};
    use super::*;

    #[test]
    fn small_networks_learn_the_digits() {
        let [train, held] = digits();
        assert_eq!((train.len(), held.len()), (1348, 449));
        for (parts, epochs) in [
            (&[Dense(64), Relu, Dense(64), Relu, Dense(10)][..], 30),
            (&[Conv(8), Relu, Pool, Conv(16), Relu, Dense(10)][..], 8),
        ] {
            let (start, now) = (Net::of_images(parts, 1), std::time::Instant::now());
            let net = classifier(parts, &train, epochs, 1);
            let [before, after] = [&start, &net].map(|net| net.accuracy(&held));
            println!(
                "{parts:?}: {before:.3} to {after:.3} in {:?}",
                now.elapsed()
            );
            assert!(before < 0.4 && after > 0.94, "{before} {after}");
        }
        let parts = [Dense(64), Tanh, Dense(8), Dense(64), Tanh, Dense(64)];
        let net = autoencoder(&parts, &train, 60, 1);
        let miss = (net.outputs(&held.x) - held.x.clone()).powf_scalar(2.0);
        let about = (held.x.clone() - held.x.clone().mean_dim(0)).powf_scalar(2.0);
        let [miss, about] = [miss, about].map(|x| x.mean().into_scalar::<f32>());
        println!("autoencoder: {:.3} of the variance is lost", miss / about);
        assert!(miss < 0.35 * about);
    }
}
