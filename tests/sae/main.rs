//! Sparse autoencoders from the outside: gradients, training, resume, measures, files.

mod architectures;
mod codes;
mod cross_layer;
mod damaged;
mod dense;
#[path = "../shared/digits.rs"]
mod digits;
#[path = "../shared/draws.rs"]
mod draws;
mod dtype;
mod end_to_end;
mod eval;
mod features;
mod foreign;
mod format;
mod gradients;
mod hostile;
mod live;
mod matching;
mod papers;
mod pickles;
mod plain_loss;
mod probing;
mod removal;
mod resume;
mod round_trip;
mod settings;
#[path = "../shared/gpu.rs"]
mod shared;
mod spliced;
mod synthetic;
mod together;
mod training;

use std::path::Path;

use burn::tensor::{Tensor, TensorData};
pub use draws::{Draws, says};
use inscape::Device;
use inscape::capture::store::Source;
use inscape::device::{block_on, read};
use inscape::sae::Sae;

pub fn f32s(x: &[f64]) -> Vec<f32> {
    x.iter().map(|&x| x as f32).collect()
}

pub fn t2(values: &[f32], columns: usize, device: &Device) -> Tensor<2> {
    let rows = values.len() / columns;
    Tensor::from_data(
        TensorData::new(values.to_vec(), [rows, columns]),
        device.tensor(),
    )
}

pub fn t1(values: &[f32], device: &Device) -> Tensor<1> {
    Tensor::from_data(
        TensorData::new(values.to_vec(), [values.len()]),
        device.tensor(),
    )
}

pub fn read64<const D: usize>(x: Tensor<D>) -> Vec<f64> {
    block_on(read(x)).unwrap()
}

pub fn read32<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    block_on(read(x)).unwrap()
}

pub fn bits<const D: usize>(x: Tensor<D>) -> Vec<u32> {
    read32(x).into_iter().map(f32::to_bits).collect()
}

/// Another order (Fisher & Yates).
pub fn shuffle<T>(values: &mut [T], draws: &mut Draws) {
    for i in (1..values.len()).rev() {
        values.swap(i, draws.below(i + 1));
    }
}

/// Rows made of a few of a dictionary's unit rows.
pub struct Planted {
    pub dictionary: Vec<f64>,
    pub rows: Vec<f32>,
    pub d: usize,
}

impl Planted {
    /// Each row sums `active` different features with weights in 0.5..1.5.
    pub fn new(seed: u64, n: usize, d: usize, features: usize, active: usize) -> Self {
        let mut draws = Draws::new(seed);
        let dictionary = draws.unit_rows(features, d);
        let mut rows = vec![0f32; n * d];
        for row in rows.chunks_mut(d) {
            let mut chosen = Vec::new();
            while chosen.len() < active {
                let f = draws.below(features);
                if !chosen.contains(&f) {
                    chosen.push(f);
                }
            }
            for f in chosen {
                let weight = draws.uniform(0.5, 1.5);
                let feature = &dictionary[f * d..][..d];
                row.iter_mut()
                    .zip(feature)
                    .for_each(|(x, v)| *x += (weight * v) as f32);
            }
        }
        Self {
            dictionary,
            rows,
            d,
        }
    }

    pub fn source(&self) -> Source {
        Source::memory("planted", self.rows.clone(), self.d)
    }

    /// Mean over the dictionary of the largest cosine with a row of `w` (unit rows).
    pub fn recovery(&self, w: &[f64]) -> f64 {
        let best = |v: &[f64]| {
            let cosine = |w: &[f64]| w.iter().zip(v).map(|(a, b)| a * b).sum::<f64>();
            w.chunks(self.d).map(cosine).fold(-1.0, f64::max)
        };
        let all: Vec<f64> = self.dictionary.chunks(self.d).map(best).collect();
        all.iter().sum::<f64>() / all.len() as f64
    }
}

/// Latents `x` and `−x`: with k = d every row comes back as it was.
pub fn identity(d: usize, device: &Device) -> Sae {
    let signed = |i: usize| {
        (0..d).map(move |j| match (i % d == j, i < d) {
            (false, _) => 0.0,
            (true, true) => 1.0,
            (true, false) => -1.0,
        })
    };
    let w: Vec<f32> = (0..2 * d).flat_map(signed).collect();
    let biases = [2 * d, d].map(|n| t1(&vec![0.0; n], device));
    Sae::topk([t2(&w, d, device), t2(&w, d, device)], biases, d)
}

/// A random autoencoder with unit decoder rows and every parameter away from 0.
pub fn random_sae(seed: u64, d: usize, f: usize, k: usize, device: &Device) -> Sae {
    let mut draws = Draws::new(seed);
    let small = |x: Vec<f64>| f32s(&x.iter().map(|x| 0.3 * x).collect::<Vec<_>>());
    let w_enc = t2(&f32s(&draws.unit_rows(f, d)), d, device);
    let b_enc = t1(&small(draws.normals(f)), device);
    let w_dec = t2(&f32s(&draws.unit_rows(f, d)), d, device);
    let b_dec = t1(&small(draws.normals(d)), device);
    Sae::topk([w_enc, w_dec], [b_enc, b_dec], k)
}

/// A safetensors file with one f32 matrix `x`.
pub fn matrix_file(path: &Path, values: &[f32], columns: usize) {
    let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    let shape = vec![values.len() / columns, columns];
    let view =
        safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, &bytes).unwrap();
    std::fs::write(path, safetensors::serialize([("x", view)], None).unwrap()).unwrap();
}
