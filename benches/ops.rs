//! Ops on the device that `INSCAPE_DEVICE` names (default: `cpu`).
//!
//! Every timing includes the wait for the device. `matmul` is the yardstick: its items are
//! floating-point operations, so items per second are FLOP/s.

use std::sync::OnceLock;

use burn::tensor::{Distribution, Int, Tensor, TensorData};
use divan::Bencher;
use divan::counter::ItemsCount;
use inscape::device::{block_on, read};
use inscape::ops::Ste;
use inscape::{Device, ops};

fn main() {
    println!("device: {}", device().name());
    divan::main();
}

fn device() -> &'static Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    DEVICE.get_or_init(|| {
        let spec = std::env::var("INSCAPE_DEVICE").unwrap_or_else(|_| "cpu".into());
        let opened = spec.parse().and_then(|spec| Device::open(&spec));
        opened.unwrap_or_else(|error| panic!("INSCAPE_DEVICE: {error}"))
    })
}

fn normal(rows: usize, columns: usize) -> Tensor<2> {
    let on = device().tensor();
    on.seed(1);
    Tensor::random([rows, columns], Distribution::Normal(0.0, 1.0), on)
}

/// Times `run` with the wait for the device. A failed allocation or kernel shows only when its
/// result is read, so the first result is read before anything is timed.
fn timed(bencher: Bencher, items: usize, mut run: impl FnMut() -> Tensor<2>) {
    let first = run().slice([0..1, 0..1]);
    block_on(read::<f32, 2>(first)).unwrap_or_else(|error| panic!("{error}"));
    bencher.counter(ItemsCount::new(items)).bench_local(|| {
        let out = run();
        device().sync().expect("sync");
        out
    });
}

/// Rows, width, k; the items are rows.
#[divan::bench(args = [(2048, 6144, 32), (4096, 24576, 64)], sample_count = 20)]
fn topk(bencher: Bencher, (rows, n, k): (usize, usize, usize)) {
    let x = normal(rows, n);
    timed(bencher, rows, || ops::topk(x.clone(), k).0);
}

/// Rows, width, k of a row on average; the items are rows.
#[divan::bench(args = [(2048, 6144, 32), (4096, 24576, 64)], sample_count = 20)]
fn batch_topk(bencher: Bencher, (rows, n, k): (usize, usize, usize)) {
    let x = normal(rows, n);
    timed(bencher, rows, || {
        ops::batch_topk(x.clone(), rows * k).values.unsqueeze()
    });
}

/// Rows, inner, columns; the items are floating-point operations.
#[divan::bench(args = [(2048, 384, 3072), (2048, 768, 12288)], sample_count = 10)]
fn matmul(bencher: Bencher, (m, k, n): (usize, usize, usize)) {
    let (a, b) = (normal(m, k), normal(k, n));
    timed(bencher, 2 * m * k * n, || a.clone().matmul(b.clone()));
}

/// Rows, latents, d, k: MiniLM's at 8x and GPT-2's at 16x.
const SPARSE: [(usize, usize, usize, usize); 2] = [(2048, 3072, 384, 32), (2048, 12288, 768, 32)];

/// `k` columns a row, spread over the latents.
fn spread(rows: usize, k: usize, latents: usize) -> Tensor<2, Int> {
    let index = |i: usize| (i.wrapping_mul(2_654_435_761) % latents) as i32;
    let indices: Vec<i32> = (0..rows * k).map(index).collect();
    Tensor::from_data(TensorData::new(indices, [rows, k]), device().tensor())
}

/// The items are multiply-adds of the k entries.
#[divan::bench(args = SPARSE, sample_count = 10)]
fn sparse_decode(bencher: Bencher, (n, latents, d, k): (usize, usize, usize, usize)) {
    let (values, indices, w) = (normal(n, k), spread(n, k, latents), normal(latents, d));
    timed(bencher, n * k * d, || {
        ops::sparse_decode(values.clone(), indices.clone(), w.clone())
    });
}

/// The items are multiply-adds of the k entries.
#[divan::bench(args = SPARSE, sample_count = 10)]
fn sparse_dot(bencher: Bencher, (n, latents, d, k): (usize, usize, usize, usize)) {
    let (g, w, indices) = (normal(n, d), normal(latents, d), spread(n, k, latents));
    timed(bencher, n * k * d, || {
        ops::sparse_dot(g.clone(), w.clone(), indices.clone())
    });
}

/// The items are multiply-adds of the k entries.
#[divan::bench(args = SPARSE, sample_count = 10)]
fn sparse_matmul_t(bencher: Bencher, (n, latents, d, k): (usize, usize, usize, usize)) {
    let (values, indices, g) = (normal(n, k), spread(n, k, latents), normal(n, d));
    timed(bencher, n * k * d, || {
        ops::sparse_matmul_t(values.clone(), indices.clone(), g.clone(), latents)
    });
}

/// Rows and latents: MiniLM's at 8x and GPT-2's at 16x.
const LATENTS: [(usize, usize); 2] = [(2048, 3072), (2048, 12288)];

fn row(length: usize) -> Tensor<1> {
    normal(1, length).reshape([length])
}

/// The items are elements.
#[divan::bench(args = LATENTS, sample_count = 10)]
fn jump_relu(bencher: Bencher, (n, latents): (usize, usize)) {
    let (z, threshold) = (normal(n, latents), row(latents));
    timed(bencher, n * latents, || {
        ops::jump_relu(z.clone(), threshold.clone(), Ste::default()).0
    });
}

/// The yardstick of `jump_relu`: the same two results from Burn's own operations.
#[divan::bench(args = LATENTS, sample_count = 10)]
fn jump_relu_in_tensor_ops(bencher: Bencher, (n, latents): (usize, usize)) {
    let (z, threshold) = (normal(n, latents), row(latents));
    timed(bencher, n * latents, || {
        let above = z.clone().greater(threshold.clone().unsqueeze());
        let l0 = above.clone().float().sum_dim(1);
        let f = z.clone().mask_fill(above.bool_not(), 0.0);
        std::hint::black_box(l0);
        f
    });
}

/// The items are elements.
#[divan::bench(args = LATENTS, sample_count = 10)]
fn jump_relu_backward(bencher: Bencher, (n, latents): (usize, usize)) {
    let (z, threshold) = (normal(n, latents), row(latents));
    let (g_f, g_l0) = (normal(n, latents), row(n));
    let ste = Ste { bandwidth: 0.1 };
    timed(bencher, n * latents, || {
        let (g_f, g_l0) = (g_f.clone(), g_l0.clone());
        ops::jump_relu_backward(z.clone(), threshold.clone(), g_f, g_l0, ste).0
    });
}

/// The items are elements.
#[divan::bench(args = LATENTS, sample_count = 10)]
fn gated(bencher: Bencher, (n, latents): (usize, usize)) {
    let (z, v) = (normal(n, latents), row(latents));
    timed(bencher, n * latents, || {
        ops::gated(z.clone(), v.clone(), v.clone(), v.clone()).0
    });
}

/// The items are elements.
#[divan::bench(args = LATENTS, sample_count = 10)]
fn gated_backward(bencher: Bencher, (n, latents): (usize, usize)) {
    let (z, v, g) = (normal(n, latents), row(latents), normal(n, latents));
    timed(bencher, n * latents, || {
        let (z, g_f, g_gate) = (z.clone(), g.clone(), g.clone());
        ops::gated_backward(z, v.clone(), v.clone(), v.clone(), g_f, g_gate).0
    });
}
