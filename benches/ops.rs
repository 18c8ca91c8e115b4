//! Ops on the device that `INSCAPE_DEVICE` names (default: `cpu`).
//!
//! Every timing includes the wait for the device. `matmul` is the yardstick: its items are
//! floating-point operations, so items per second are FLOP/s.

use std::sync::OnceLock;

use burn::tensor::{DType, Distribution, IndexingUpdateOp, Int, Tensor, TensorData};
use divan::Bencher;
use divan::counter::ItemsCount;
use inscape::device::{block_on, read};
use inscape::ops::Ste;
use inscape::ops::{Adam, AdamRows, ByLatent, LatentSums, Moments, NearestBy, PairForm, PairTile};
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
const SPARSE: [Sparse; 2] = [(2048, 3072, 384, 32), (2048, 12288, 768, 32)];

type Sparse = (usize, usize, usize, usize);

/// `k` columns a row, spread over the latents.
fn spread(rows: usize, k: usize, latents: usize) -> Tensor<2, Int> {
    let index = |i: usize| (i.wrapping_mul(2_654_435_761) % latents) as i32;
    let indices: Vec<i32> = (0..rows * k).map(index).collect();
    let data = TensorData::new(indices, [rows, k]);
    Tensor::from_data(data, (device().tensor(), DType::I32))
}

fn sums((n, latents, d, k): Sparse) -> LatentSums {
    let groups = ByLatent::of(&spread(n, k, latents), latents);
    LatentSums::new(normal(n, k).flatten(0, 1), &groups, normal(n, d))
}

/// The items are entries.
#[divan::bench(args = SPARSE, sample_count = 20)]
fn by_latent(bencher: Bencher, (n, latents, _, k): Sparse) {
    let indices = spread(n, k, latents);
    timed(bencher, n * k, || {
        let groups = ByLatent::of(&indices, latents);
        groups.entries.float().unsqueeze()
    });
}

/// The items are multiply-adds of the k entries.
#[divan::bench(args = SPARSE, sample_count = 10)]
fn sparse_decode(bencher: Bencher, (n, latents, d, k): Sparse) {
    let (values, indices, w) = (normal(n, k), spread(n, k, latents), normal(latents, d));
    timed(bencher, n * k * d, || {
        ops::sparse_decode(values.clone(), indices.clone(), w.clone(), None)
    });
}

/// The items are multiply-adds of the k entries.
#[divan::bench(args = SPARSE, sample_count = 10)]
fn sparse_dot(bencher: Bencher, (n, latents, d, k): Sparse) {
    let (g, w, indices) = (normal(n, d), normal(latents, d), spread(n, k, latents));
    timed(bencher, n * k * d, || {
        ops::sparse_dot(g.clone(), w.clone(), indices.clone())
    });
}

/// The items are multiply-adds of the k entries.
#[divan::bench(args = SPARSE, sample_count = 10)]
fn sparse_matmul_t(bencher: Bencher, case @ (n, _, d, k): Sparse) {
    let sums = sums(case);
    timed(bencher, n * k * d, || ops::sparse_matmul_t(&sums));
}

/// The items are weights.
#[divan::bench(args = SPARSE, consts = [false, true], sample_count = 10)]
fn adam_rows<const UNIT: bool>(bencher: Bencher, case @ (_, latents, d, _): Sparse) {
    let (sums, mut w) = (sums(case), normal(latents, d));
    let (mut moments, mut step) = (Moments::zeros(&w), adam(UNIT));
    timed(bencher, latents * d, || {
        step.t += 1;
        let scale = Tensor::ones([1], device().tensor());
        let empty = Tensor::zeros([0, 0], device().tensor());
        let before = std::mem::replace(&mut w, empty);
        w = ops::adam_rows(before, &mut moments, &sums, scale, &step);
        w.clone().slice([0..1, 0..1]) * 1.0 // another buffer: a view would hold w
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

/// The items are multiply-adds of the k entries.
#[divan::bench(args = SPARSE, consts = [false, true], sample_count = 10)]
fn grad_squares<const UNIT: bool>(bencher: Bencher, case @ (n, latents, d, k): Sparse) {
    let (sums, w) = (sums(case), normal(latents, d));
    timed(bencher, n * k * d, || {
        ops::grad_squares(&sums, UNIT.then_some(&w)).unsqueeze()
    });
}

fn adam(unit: bool) -> AdamRows {
    AdamRows {
        adam: Adam::default(),
        t: 0,
        lr: 1e-3,
        unit,
        lazy: false,
    }
}

/// A tile of 5,000 rows' products; the items are pairs.
#[divan::bench(args = [(512, 5000)], sample_count = 20)]
fn pair_sums(bencher: Bencher, (r, c): (usize, usize)) {
    let side = PairTile {
        products: normal(r, c),
        row_squares: row(r),
        column_squares: row(c),
    };
    let forms = [PairForm::Rbf { gamma: 0.5 }; 2];
    timed(bencher, r * c, || {
        ops::pair_sums([&side, &side], forms, [0, r]).by_row
    });
}

/// Pairs of 1,000 and of 5,000 rows; the items are values.
#[divan::bench(args = [499_500, 12_497_500], sample_count = 10)]
fn rank(bencher: Bencher, m: usize) {
    let x = row(m);
    timed(bencher, m, || ops::rank(x.clone()).float().unsqueeze());
}

/// Rows, columns of either side; the items are multiply-adds.
#[divan::bench(args = [(512, 384, 768), (2048, 4096, 4096)], sample_count = 10)]
fn cross_sums(bencher: Bencher, (b, dx, dy): (usize, usize, usize)) {
    let (x, y) = (normal(b, dx), normal(b, dy));
    let zeros = || Tensor::<2>::zeros([dx, dy], device().tensor());
    let mut sum = Some([zeros(), zeros()]);
    timed(bencher, b * dx * dy, || {
        let [hi, lo] = ops::cross_sums(sum.take().expect("a sum"), x.clone(), y.clone());
        let first = hi.clone().slice([0..1, 0..1]) * 1.0; // another buffer: a view would hold the sum
        sum = Some([hi, lo]);
        first
    });
}

/// A tile of 5,000 rows' products and k; the items are pairs.
#[divan::bench(args = [(512, 5000, 18)], sample_count = 10)]
fn nearest(bencher: Bencher, (r, c, k): (usize, usize, usize)) {
    let tile = PairTile {
        products: normal(r, c),
        row_squares: row(r),
        column_squares: row(c),
    };
    let running = ops::nearest(None, &tile, [0, r], NearestBy::Distance, k);
    timed(bencher, r * c, || {
        let running = Some(running.clone());
        ops::nearest(running, &tile, [0, r + c], NearestBy::Distance, k).values
    });
}

/// Where a dense product overtakes a sparse one on the CPU: what `ops::DENSE_FROM` is read off.
///
/// k of 1024 latents, 2048 rows, d = 384; the items are multiply-adds of the k entries, so a dense
/// product does 1024 / k as many. `INSCAPE_DEVICE=cpu cargo bench --bench ops -- density`
#[divan::bench_group(sample_count = 10)]
mod density {
    use super::*;

    const N: usize = 2048;
    const LATENTS: usize = 1024;
    const D: usize = 384;
    const K: [usize; 9] = [16, 32, 64, 96, 128, 192, 256, 384, 512];

    /// The rows as `[n, latents]`: of the dense product's cost.
    fn dense(values: Tensor<2>, indices: Tensor<2, Int>) -> Tensor<2> {
        let zeros = Tensor::<2>::zeros([N, LATENTS], device().tensor());
        zeros.scatter(1, indices, values, IndexingUpdateOp::Add)
    }

    /// Sparse at every k: the op sees more latents than the entries have, and never takes them for
    /// dense.
    #[divan::bench(args = K)]
    fn decode_sparse(bencher: Bencher, k: usize) {
        let latents = (k as f64 / ops::DENSE_FROM) as usize + LATENTS;
        let (values, indices, w) = (normal(N, k), spread(N, k, LATENTS), normal(latents, D));
        timed(bencher, N * k * D, || {
            ops::sparse_decode(values.clone(), indices.clone(), w.clone(), None)
        });
    }

    #[divan::bench(args = K)]
    fn decode_dense(bencher: Bencher, k: usize) {
        let (values, indices, w) = (normal(N, k), spread(N, k, LATENTS), normal(LATENTS, D));
        timed(bencher, N * k * D, || {
            dense(values.clone(), indices.clone()).matmul(w.clone())
        });
    }

    /// With the grouping, which the dense form does without.
    #[divan::bench(args = K)]
    fn matmul_t_sparse(bencher: Bencher, k: usize) {
        let (values, indices, g) = (normal(N, k), spread(N, k, LATENTS), normal(N, D));
        timed(bencher, N * k * D, || {
            let groups = ByLatent::of(&indices, LATENTS);
            let values = values.clone().flatten(0, 1);
            ops::sparse_matmul_t(&LatentSums::new(values, &groups, g.clone()))
        });
    }

    #[divan::bench(args = K)]
    fn matmul_t_dense(bencher: Bencher, k: usize) {
        let (values, indices, g) = (normal(N, k), spread(N, k, LATENTS), normal(N, D));
        timed(bencher, N * k * D, || {
            let rows = dense(values.clone(), indices.clone());
            rows.transpose().matmul(g.clone())
        });
    }
}
