//! Every op on every device against an oracle written apart from it.
//!
//! The GPU half is ignored unless asked for (`--run-ignored all`), and then fails without an adapter.
//! `INSCAPE_TEST_DEVICE` names the device (default: `wgpu:software`, else the best GPU);
//! with `INSCAPE_REQUIRE_GPU=1` a plain run fails too when there is no adapter.

use std::cmp::Ordering;

use burn::tensor::{Int, Tensor, TensorData};
use inscape::device::{Device, block_on, read, read_int, self_check};
use inscape::ops::{topk, topk_reference};

mod adam_rows;
mod batch;
mod batch_topk;
mod by_latent;
mod cross_sums;
mod encode_topk;
mod gated;
mod jump_relu;
mod near;
mod nearest;
mod pair_sums;
mod rank;
mod rows;
#[path = "../shared/gpu.rs"]
mod shared;
mod sparse_decode;
mod sparse_matmul_t;

use shared::gpu;

type Op = fn(Tensor<2>, usize) -> (Tensor<2>, Tensor<2, Int>);

/// How the tensor of a case is laid out before the op sees it.
#[derive(Clone, Copy, PartialEq, Debug)]
enum View {
    Plain,
    Transposed,
    Sliced,
}

struct Case {
    name: &'static str,
    rows: usize,
    n: usize,
    k: usize,
    view: View,
    fill: fn(usize) -> f32,
}

const fn case(name: &'static str, rows: usize, n: usize, k: usize, fill: fn(usize) -> f32) -> Case {
    Case {
        name,
        rows,
        n,
        k,
        view: View::Plain,
        fill,
    }
}

/// Scrambles a counter into 32 bits (Murmur3's finaliser).
fn hash(i: usize) -> u32 {
    let mut h = (i as u32).wrapping_add(0x9e37_79b9);
    for (shift, factor) in [(16, 0x85eb_ca6b), (13, 0xc2b2_ae35)] {
        h = (h ^ (h >> shift)).wrapping_mul(factor);
    }
    h ^ (h >> 16)
}

fn uniform(i: usize) -> f32 {
    hash(i) as f32 / 2f32.powi(31) - 1.0
}

/// Any bits at all: every exponent, NaN with payloads, infinities, subnormals.
fn any_bits(i: usize) -> f32 {
    f32::from_bits(hash(i))
}

fn few_values(i: usize) -> f32 {
    (hash(i) % 5) as f32 - 2.0
}

fn special(i: usize) -> f32 {
    let known = [
        f32::NAN,
        -f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        0.0,
        -0.0,
        1.0,
        -1.0,
    ];
    known[hash(i) as usize % known.len()]
}

fn zeros(i: usize) -> f32 {
    if hash(i).is_multiple_of(2) { 0.0 } else { -0.0 }
}

fn subnormal(i: usize) -> f32 {
    f32::from_bits(hash(i) & 0x807f_ffff)
}

/// The hard sizes. The workgroup has 256 threads; k is padded to 16, 64, 256 or 1024.
fn cases() -> Vec<Case> {
    let view = |view, case| Case { view, ..case };
    vec![
        case("one element", 1, 1, 1, uniform),
        case("n = 1, many rows", 300, 1, 1, uniform),
        case("no rows", 0, 7, 3, uniform),
        case("k = 1", 5, 1000, 1, uniform),
        case("k = n, small", 3, 17, 17, uniform),
        case("n = workgroup - 1", 3, 255, 31, uniform),
        case("n = workgroup", 3, 256, 32, uniform),
        case("n = workgroup + 1", 3, 257, 33, uniform),
        case("k = 15", 2, 700, 15, uniform),
        case("k = 16", 2, 700, 16, uniform),
        case("k = 17", 2, 700, 17, uniform),
        case("n = 16, sorted whole", 2, 16, 5, few_values),
        case("n = 17, selected", 2, 17, 5, few_values),
        case("k = 63", 2, 700, 63, uniform),
        case("k = 64", 2, 700, 64, uniform),
        case("k = 65", 2, 700, 65, uniform),
        case("k = 255", 2, 700, 255, uniform),
        case("k = 256", 2, 700, 256, uniform),
        case("k = 257", 2, 700, 257, uniform),
        case("k = 1023", 2, 3000, 1023, uniform),
        case("k = 1024", 2, 3000, 1024, uniform),
        case("k = n = 1024", 2, 1024, 1024, uniform),
        case("ties", 9, 513, 40, few_values),
        case("ties, k = 1", 9, 513, 1, few_values),
        case("all equal", 4, 600, 300, |_| 2.5),
        case("all NaN", 2, 300, 7, |_| f32::NAN),
        case("all -inf", 2, 300, 7, |_| f32::NEG_INFINITY),
        case("NaN, inf, zeros", 16, 128, 50, special),
        case("more NaN than k", 4, 300, 9, special),
        case("both zeros", 4, 300, 77, zeros),
        case("subnormal", 4, 300, 20, subnormal),
        case("any bits", 8, 2000, 100, any_bits),
        case("rising", 2, 5000, 50, |i| i as f32),
        case("falling", 2, 5000, 50, |i| -(i as f32)),
        case("negative", 2, 500, 50, |i| -1.0 - hash(i) as f32),
        view(View::Transposed, case("transposed", 37, 300, 20, uniform)),
        view(View::Sliced, case("sliced", 37, 300, 20, uniform)),
        view(View::Sliced, case("sliced ties", 5, 257, 200, few_values)),
    ]
}

/// Sizes that the k-pass reference would take too long over.
fn large_cases() -> Vec<Case> {
    vec![
        case("over 65,535 rows", 65_537, 3, 2, few_values),
        case("long row", 1, 1 << 20, 1024, uniform),
        case("long row, ties", 1, 1 << 20, 700, few_values),
    ]
}

impl Case {
    fn data(&self) -> Vec<f32> {
        (0..self.rows * self.n).map(self.fill).collect()
    }

    fn tensor(&self, device: &Device) -> Tensor<2> {
        let (rows, n, data) = (self.rows, self.n, self.data());
        let make =
            |values, shape| Tensor::<2>::from_data(TensorData::new(values, shape), device.tensor());
        match self.view {
            View::Plain => make(data, [rows, n]),
            View::Transposed => {
                let across = (0..rows * n)
                    .map(|i| data[(i % rows) * n + i / rows])
                    .collect();
                make(across, [n, rows]).transpose()
            }
            View::Sliced => {
                let inner = |i: usize, j: usize| {
                    let within = (1..=rows).contains(&i) && (2..2 + n).contains(&j);
                    if within {
                        data[(i - 1) * n + j - 2]
                    } else {
                        f32::INFINITY
                    }
                };
                let all = (0..(rows + 2) * (n + 5)).map(|i| inner(i / (n + 5), i % (n + 5)));
                make(all.collect(), [rows + 2, n + 5]).slice([1..1 + rows, 2..2 + n])
            }
        }
    }
}

/// A stable sort of every row by the order in the op's documentation.
fn oracle(case: &Case) -> (Vec<u32>, Vec<i64>) {
    let (mut values, mut columns) = (Vec::new(), Vec::new());
    let falling = |a: f32, b: f32| match (a.is_nan(), b.is_nan()) {
        (false, false) => b.partial_cmp(&a).unwrap(),
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
    };
    for row in case.data().chunks(case.n) {
        let mut order: Vec<usize> = (0..case.n).collect();
        order.sort_by(|&a, &b| falling(row[a], row[b]));
        values.extend(order[..case.k].iter().map(|&c| row[c].to_bits()));
        columns.extend(order[..case.k].iter().map(|&c| c as i64));
    }
    (values, columns)
}

fn run(op: Op, case: &Case, device: &Device) -> (Vec<u32>, Vec<i64>) {
    let (values, columns) = op(case.tensor(device), case.k);
    assert_eq!(values.dims(), [case.rows, case.k], "{}", case.name);
    assert_eq!(columns.dims(), [case.rows, case.k], "{}", case.name);
    let values = block_on(read::<f32, 2>(values)).unwrap();
    let columns = block_on(read_int(columns)).unwrap();
    (values.into_iter().map(f32::to_bits).collect(), columns)
}

/// Values and columns must be the oracle's, bit for bit.
fn compare(op: Op, case: &Case, device: &Device) -> Result<(), String> {
    let (values, columns) = run(op, case, device);
    let (want_values, want_columns) = oracle(case);
    let at = |place: Option<usize>| place.map(|i| (i / case.k, i % case.k));
    if let Some(place) = at((0..columns.len()).find(|&i| columns[i] != want_columns[i])) {
        return Err(format!(
            "{}: another column at (row, slot) {place:?}",
            case.name
        ));
    }
    if let Some(place) = at((0..values.len()).find(|&i| values[i] != want_values[i])) {
        return Err(format!(
            "{}: other bits at (row, slot) {place:?}",
            case.name
        ));
    }
    Ok(())
}

fn suite(op: Op, cases: &[Case], device: &Device) {
    for case in cases {
        compare(op, case, device).unwrap();
    }
}

#[test]
fn the_cpu_form_is_right() {
    suite(topk, &cases(), &Device::cpu());
    suite(topk, &large_cases(), &Device::cpu());
}

#[test]
fn the_reference_is_right() {
    suite(topk_reference, &cases(), &Device::cpu());
}

#[test]
fn other_floats_take_the_reference() {
    let x = Tensor::<2>::from_floats([[1.0, 3.0, 3.0, f32::NAN]], Device::cpu().tensor());
    let (values, columns) = topk(x.cast(burn::tensor::DType::F64), 3);
    assert_eq!(block_on(read_int(columns)).unwrap(), [3, 1, 2]);
    assert_eq!(block_on(read::<f64, 2>(values)).unwrap()[1..], [3.0, 3.0]);
}

#[test]
fn gradients_reach_the_chosen_ones_on_the_cpu() {
    assert_eq!(gradient(&Device::cpu()), expected_gradient());
}

#[test]
fn a_bad_k_panics_with_the_shapes() {
    for (n, k) in [(3, 0), (3, 4), (2000, 1025)] {
        let x = Tensor::<2>::zeros([2, n], Device::cpu().tensor());
        let panic = std::panic::catch_unwind(|| topk(x, k))
            .map(|_| ())
            .unwrap_err();
        let text = panic.downcast_ref::<String>().unwrap();
        assert!(
            text.contains(&format!("topk: k = {k} of x [2, {n}]")),
            "{text}"
        );
    }
}

/// The comparison must be able to fail: in a column among ties, and in the bits of a zero.
#[test]
fn planted_faults_are_caught() {
    fn later_column(x: Tensor<2>, k: usize) -> (Tensor<2>, Tensor<2, Int>) {
        let (values, columns) = topk(x.flip([1]), k);
        let last = (columns.dims()[1].max(513) - 1) as i64;
        (values, columns.neg().add_scalar(last))
    }
    fn lost_sign(x: Tensor<2>, k: usize) -> (Tensor<2>, Tensor<2, Int>) {
        let (values, columns) = topk(x, k);
        (values.add_scalar(0.0), columns)
    }
    let cpu = Device::cpu();
    let ties = case("ties", 9, 513, 40, few_values);
    assert!(
        compare(later_column, &ties, &cpu)
            .unwrap_err()
            .contains("another column")
    );
    let zeros = case("both zeros", 4, 300, 77, zeros);
    assert!(
        compare(lost_sign, &zeros, &cpu)
            .unwrap_err()
            .contains("other bits")
    );
}

#[test]
fn an_adapter_is_there_where_one_is_required() {
    if std::env::var("INSCAPE_REQUIRE_GPU").is_ok_and(|v| v == "1") {
        gpu();
    }
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn the_shader_is_right() {
    let gpu = gpu();
    suite(topk, &cases(), &gpu);
    suite(topk, &large_cases(), &gpu);
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn the_reference_is_right_on_the_gpu() {
    let small = |c: &Case| c.k <= 20 && c.rows * c.n <= 20_000;
    let cases: Vec<Case> = cases().into_iter().filter(small).collect();
    suite(topk_reference, &cases, &gpu());
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn gradients_reach_the_chosen_ones_on_the_gpu() {
    assert_eq!(gradient(&gpu()), expected_gradient());
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn the_device_opens_twice() {
    let spec = gpu();
    assert_eq!(spec.name(), gpu().name());
    let shared = Device::from_burn(spec.tensor().clone());
    assert!(
        !shared.is_cpu() && shared.name().contains("host"),
        "{}",
        shared.name()
    );
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn the_self_check_passes() {
    let report = self_check(&gpu()).unwrap();
    assert!(report.passed(), "{report:#?}");
}

const GRADIENT: Case = case("gradient", 6, 70, 5, few_values);

/// The gradient of Σ weight · value, the weights different for every slot.
fn gradient(device: &Device) -> Vec<f32> {
    let device = Device::from_burn(device.tensor().clone().autodiff());
    let x = GRADIENT.tensor(&device).require_grad();
    let (values, _) = topk(x.clone(), GRADIENT.k);
    let weights = Tensor::from_data(TensorData::new(weights(), values.dims()), device.tensor());
    let grads = (values * weights).sum().backward();
    block_on(read(x.grad(&grads).unwrap())).unwrap()
}

fn weights() -> Vec<f32> {
    (0..GRADIENT.rows * GRADIENT.k)
        .map(|i| i as f32 + 1.0)
        .collect()
}

fn expected_gradient() -> Vec<f32> {
    let mut gradient = vec![0.0; GRADIENT.rows * GRADIENT.n];
    let (_, columns) = oracle(&GRADIENT);
    for (i, (column, weight)) in columns.iter().zip(weights()).enumerate() {
        gradient[i / GRADIENT.k * GRADIENT.n + *column as usize] = weight;
    }
    gradient
}
