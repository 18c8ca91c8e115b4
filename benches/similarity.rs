//! Similarity metrics at N = 5,000, D = 1,024 on both sides, and a matrix of layers.
//! `peers/similarity.py` takes the same from the public Python tools.
//!
//! `INSCAPE_METRICS_N` and `INSCAPE_METRICS_D` change the size. Items are rows. Each run prepares
//! both sides and compares them; the result is on the host before the clock stops.

use burn::tensor::{DType, Tensor, TensorData};
use divan::{Bencher, counter::ItemsCount};
use inscape::Device;
use inscape::similarity::{Metric, matrix};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn main() {
    divan::main();
}

fn size(name: &str, default: usize) -> usize {
    std::env::var(name)
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(default)
}

/// `[n, d]` with a decaying spectrum: the kind of data on which layers are compared.
fn layer(n: usize, d: usize, seed: u64) -> Tensor<2> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let latent: Vec<f32> = (0..n * 32).map(|_| rng.random_range(-1.0..1.0)).collect();
    let noise: Vec<f32> = (0..n * d).map(|_| rng.random_range(-0.5..0.5)).collect();
    let mix: Vec<f32> = (0..32 * d)
        .map(|i| rng.random_range(-1.0..1.0) / (1.0 + (i / d) as f32).sqrt())
        .collect();
    let device = Device::cpu();
    let tensor = |values: Vec<f32>, shape| {
        Tensor::<2>::from_data(
            TensorData::new(values, shape),
            (device.tensor(), DType::F32),
        )
    };
    tensor(latent, [n, 32]).matmul(tensor(mix, [32, d])) + tensor(noise, [n, d])
}

#[divan::bench(sample_count = 10, sample_size = 1, args = [
    "linear_cka[biased]",
    "linear_cka[unbiased]",
    "rbf_cka[biased]",
    "distance_correlation[biased]",
    "rsa[rdm=correlation,by=spearman]",
    "rsa[rdm=correlation,by=pearson]",
    "svcca[variance=0.99]",
    "procrustes",
    "mutual_knn[k=10,by=cosine]",
    "mutual_knn[k=10,by=euclidean]",
    "cknna[unbiased,k=10]",
])]
fn pair(bencher: Bencher, name: &str) {
    let (n, d) = (
        size("INSCAPE_METRICS_N", 5_000),
        size("INSCAPE_METRICS_D", 1_024),
    );
    let (x, y) = (layer(n, d, 1), layer(n, d, 2));
    let metric: Metric = name.parse().expect("a known metric");
    bencher
        .counter(ItemsCount::new(n))
        .bench(|| metric.compare(&x, &y).expect("a value"));
}

/// Twelve layers against themselves: 12 preparations and 78 comparisons.
#[divan::bench(sample_count = 2, sample_size = 1, args = ["linear_cka[unbiased]"])]
fn twelve_layers(bencher: Bencher, name: &str) {
    let (n, d) = (
        size("INSCAPE_METRICS_N", 5_000),
        size("INSCAPE_METRICS_D", 1_024),
    );
    let layers: Vec<Tensor<2>> = (0..12).map(|seed| layer(n, d, seed)).collect();
    let metric: Metric = name.parse().expect("a known metric");
    bencher
        .counter(ItemsCount::new(12 * n))
        .bench(|| matrix(&layers, &layers, metric, |_, _| ()).expect("a table"));
}
