//! One training step of a TopK autoencoder, and the dense product it cannot do without.
//! The device is `INSCAPE_DEVICE` (default `cpu`). Items are activations.

use divan::{Bencher, counter::ItemsCount};
use inscape::Device;
use inscape::device::block_on;
use inscape::sae::{TrainConfig, Trainer};
use rand::{Rng, SeedableRng};

fn main() {
    println!("device: {}", device().name());
    divan::main();
}

fn device() -> Device {
    let spec = std::env::var("INSCAPE_DEVICE").unwrap_or_else(|_| "cpu".into());
    Device::open(&spec.parse().expect("INSCAPE_DEVICE names a device")).expect("the device opens")
}

/// (d_in, d_sae, k, batch): the embedded model's, MiniLM's at 8x and at 16x, GPT-2's at 16x.
const SHAPES: [(usize, usize, usize, usize); 4] = [
    (128, 1024, 16, 1024),
    (384, 3072, 32, 2048),
    (384, 6144, 32, 2048),
    (768, 12288, 32, 4096),
];

fn rows(n: usize, d: usize) -> Vec<f32> {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(0);
    (0..n * d).map(|_| rng.random_range(-1.0..1.0)).collect()
}

fn tensor(n: usize, d: usize, device: &Device) -> burn::tensor::Tensor<2> {
    burn::tensor::Tensor::from_data(
        burn::tensor::TensorData::new(rows(n, d), [n, d]),
        device.tensor(),
    )
}

#[divan::bench(args = SHAPES, max_time = 20, min_time = 2)]
fn topk_step(bencher: Bencher<'_, '_>, (d, f, k, batch): (usize, usize, usize, usize)) {
    let device = device();
    let config = TrainConfig {
        batch,
        ..TrainConfig::new(d, f, k, 1 << 40)
    };
    let mut trainer =
        Trainer::new(config, &rows(64, d), d, device.tensor()).expect("the settings fit");
    let x = tensor(batch, d, &device);
    bencher.counter(ItemsCount::new(batch)).bench_local(|| {
        block_on(trainer.step(x.clone())).expect("the device works");
        device.sync().expect("the device works");
    });
}

#[divan::bench(args = SHAPES, max_time = 20, min_time = 2)]
fn dense_product(bencher: Bencher<'_, '_>, (d, f, _, batch): (usize, usize, usize, usize)) {
    let device = device();
    let (x, w) = (tensor(batch, d, &device), tensor(f, d, &device));
    bencher.counter(ItemsCount::new(batch)).bench_local(|| {
        let y = x.clone().matmul(w.clone().transpose());
        device.sync().expect("the device works");
        y
    });
}
