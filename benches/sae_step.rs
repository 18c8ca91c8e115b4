//! A whole training step of a TopK autoencoder beside the one dense product it cannot do without.
//!
//! `cargo bench --bench sae_step [-- WORD…]` runs the shapes whose line contains a word, or all. The
//! device is `INSCAPE_DEVICE` (default `cpu`). The product is timed twice: as one call, whose result
//! `[batch, F]` is new memory each time, and in chunks as the encoder takes it, the fastest that the
//! backend has. Products and step take turns, so that their ratio holds
//! on a machine whose speed drifts; figures are medians. The step is forward, backward, clipping,
//! projection, Adam, renormalisation and dead-latent bookkeeping; every timing ends with the device
//! synchronised. The peak is what one step allocates on the host beyond what it began with, which on
//! the CPU backend is all that it holds; the batch, the weights and the moments are there before.

use std::alloc::System;
use std::hint::black_box;
use std::time::{Duration, Instant};

use burn::tensor::{Distribution, Tensor};
use cap::Cap;
use inscape::Device;
use inscape::device::{block_on, read};
use inscape::ops::CHUNK;
use inscape::sae::{TrainConfig, Trainer};

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

/// (d, F, k, batch): MiniLM's and GPT-2's widths at 16x, GPT-2's at 32x, Gemma 2's at 7x.
const SHAPES: [[usize; 4]; 4] = [
    [384, 6144, 32, 2048],
    [768, 12288, 32, 4096],
    [768, 24576, 64, 4096],
    [2304, 16384, 64, 2048],
];

/// Turns taken by each of the two.
const TURNS: usize = 7;

fn main() {
    let device = device();
    println!("device: {}", device.name());
    println!(
        "{:>24}  {:>22}  {:>22}  {:>12}  {:>12}  {:>18}",
        "d, F, k, batch",
        "product, GFLOP/s",
        "in chunks, GFLOP/s",
        "step",
        "ratio to each",
        "peak, of [batch, F]"
    );
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    for shape in SHAPES {
        let name = shape.map(|n| n.to_string()).join(", ");
        if words.is_empty() || words.iter().any(|word| name.contains(word)) {
            println!("{name:>24}  {}", measure(shape, &device));
        }
    }
}

fn device() -> Device {
    let spec = std::env::var("INSCAPE_DEVICE").unwrap_or_else(|_| "cpu".into());
    let opened = spec.parse().and_then(|spec| Device::open(&spec));
    opened.unwrap_or_else(|error| panic!("INSCAPE_DEVICE: {error}"))
}

/// Rows of 4 d sparse sources, one in a hundred active, and some noise.
fn rows(batch: usize, d: usize, device: &Device) -> Tensor<2> {
    let on = device.tensor();
    on.seed(0);
    let uniform = Tensor::<2>::random([batch, 4 * d], Distribution::Uniform(0.0, 1.0), on);
    let code = uniform.clone() * uniform.greater_elem(0.99).float();
    let normal = |shape| Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), on);
    code.matmul(normal([4 * d, d])) / (d as f64).sqrt() + normal([batch, d]) * 0.05
}

fn measure([d, f, k, batch]: [usize; 4], device: &Device) -> String {
    let x = rows(batch, d, device);
    let sample = block_on(read(x.clone().narrow(0, 0, 256))).expect("the device works");
    let config = TrainConfig {
        batch,
        ..TrainConfig::new(d, f, k, 1 << 40)
    };
    let mut trainer = Trainer::new(config, &sample, d, device.tensor()).expect("the settings fit");
    let w = trainer.sae().w_enc * 1.0;
    let mut step = || {
        block_on(trainer.step(x.clone())).expect("the device works");
        device.sync().expect("the device works");
    };
    let product = || {
        black_box(x.clone().matmul(w.clone().transpose()));
        device.sync().expect("the device works");
    };
    let chunked = || {
        in_chunks(&x, &w);
        device.sync().expect("the device works");
    };
    (0..2).for_each(|_| step());
    let peak = peak_of(&mut step);
    product();
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..TURNS {
        times[0].push(timed(product));
        times[1].push(timed(chunked));
        times[2].push(timed(&mut step));
    }
    let [product, chunked, step] = times.map(|mut times| median(&mut times).as_secs_f64());
    let work = 2e-9 * (batch * d * f) as f64;
    let rate = |seconds: f64| batch as f64 / seconds;
    format!(
        "{:>8.0} act/s, {:>6.1}  {:>8.0} act/s, {:>6.1}  {:>6.0} act/s  {:>5.2}, {:>5.2}  {:>9.1} MB, {:>3.0} %",
        rate(product),
        work / product,
        rate(chunked),
        work / chunked,
        rate(step),
        step / product,
        step / chunked,
        peak as f64 / 1e6,
        100.0 * peak as f64 / (4 * batch * f) as f64,
    )
}

/// `x wᵀ`, never held whole: blocks of 1,024 rows by the columns that make a chunk.
fn in_chunks(x: &Tensor<2>, w: &Tensor<2>) {
    let ([batch, _], [f, _]) = (x.dims(), w.dims());
    let columns = CHUNK / batch.min(1024);
    for row in (0..batch).step_by(1024) {
        let x = x.clone().narrow(0, row, 1024.min(batch - row));
        for first in (0..f).step_by(columns) {
            let w = w.clone().narrow(0, first, columns.min(f - first));
            black_box(x.clone().matmul(w.transpose()));
        }
    }
}

/// Bytes allocated at most while `run` runs, beyond those allocated before. The counter never falls,
/// so untouched memory first lifts what is allocated to the highest it has seen.
fn peak_of(mut run: impl FnMut()) -> usize {
    let ballast = Vec::<u8>::with_capacity(HEAP.max_allocated() - HEAP.allocated());
    let before = HEAP.allocated();
    run();
    drop(ballast);
    HEAP.max_allocated() - before
}

fn timed(mut run: impl FnMut()) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
