//! Streamed products of columns against plain f64 loops.

use burn::tensor::DType;
use inscape::ops::{CrossMoments, CrossSums, cross_sums, cross_sums_reference};

use super::batch::{EPS, panic_of, same_on_any_threads};
use super::rows::{matrix, numbers};
use super::*;

type CrossOp = fn([Tensor<2>; 2], Tensor<2>, Tensor<2>) -> [Tensor<2>; 2];

struct Product {
    name: &'static str,
    /// Rows, columns of x, columns of y.
    size: [usize; 3],
    view: View,
}

fn product(name: &'static str, size: [usize; 3]) -> Product {
    let view = View::Plain;
    Product { name, size, view }
}

/// A workgroup takes 64 columns of each side, stages 16 rows and sums 128 of them in f32; the CPU sums
/// 512, and adds 16,384 sums a task.
fn cases() -> Vec<Product> {
    let view = |view, case| Product { view, ..case };
    vec![
        product("no rows", [0, 3, 4]),
        product("no columns", [5, 0, 4]),
        product("one of all", [1, 1, 1]),
        product("one row", [1, 70, 33]),
        product("b = 15", [15, 5, 7]),
        product("b = 16", [16, 5, 7]),
        product("b = 17", [17, 5, 7]),
        product("b = 127", [127, 3, 5]),
        product("b = 128", [128, 3, 5]),
        product("b = 129", [129, 3, 5]),
        product("b = 511", [511, 2, 3]),
        product("b = 512", [512, 2, 3]),
        product("b = 513", [513, 2, 3]),
        product("63 by 65", [20, 63, 65]),
        product("64 by 64", [20, 64, 64]),
        product("65 by 63", [20, 65, 63]),
        product("one column", [300, 200, 1]),
        product("more than a task", [40, 130, 129]),
        view(View::Transposed, product("transposed", [33, 40, 70])),
        view(View::Sliced, product("sliced", [33, 70, 40])),
    ]
}

fn of_x(i: usize) -> f32 {
    uniform(i) + 0.25
}

fn of_y(i: usize) -> f32 {
    uniform(i + 5_000_000)
}

fn of_hi(i: usize) -> f32 {
    1000.0 * uniform(i + 77)
}

fn of_lo(i: usize) -> f32 {
    1e-5 * uniform(i + 99)
}

impl Product {
    fn run(&self, op: CrossOp, on: &Device, dtype: DType) -> Vec<f64> {
        let [b, dx, dy] = self.size;
        let make = |shape, fill| matrix(shape, self.view, fill, on, dtype);
        let sum = [
            make([dx, dy], of_hi as fn(usize) -> f32),
            make([dx, dy], of_lo),
        ];
        let [hi, lo] = op(sum, make([b, dx], of_x), make([b, dy], of_y));
        assert_eq!(
            (hi.dims(), lo.dims()),
            ([dx, dy], [dx, dy]),
            "{}",
            self.name
        );
        let (hi, lo) = (numbers(hi), numbers(lo));
        let small = |(hi, lo): (&f64, &f64)| lo.abs() <= EPS * hi.abs();
        assert!(
            b == 0 || hi.iter().zip(&lo).all(small),
            "{}: lo is not",
            self.name
        );
        hi.into_iter().zip(lo).map(|(hi, lo)| hi + lo).collect()
    }

    fn compare(&self, got: &[f64], eps: f64) -> Result<(), String> {
        let [b, dx, dy] = self.size;
        assert_eq!(got.len(), dx * dy);
        for (at, got) in got.iter().enumerate() {
            let (i, j) = (at / dy, at % dy);
            let term = |r: usize| f64::from(of_x(r * dx + i)) * f64::from(of_y(r * dy + j));
            let sum: f64 = (0..b).map(term).sum();
            let size: f64 = (0..b).map(|r| term(r).abs()).sum();
            let exact = f64::from(of_hi(at)) + f64::from(of_lo(at)) + sum;
            let off = eps * b.min(512) as f64 * size + 2f64.powi(-44) * exact.abs();
            if (got - exact).abs() > off {
                return Err(format!("{}: {got} for {exact} at {at}", self.name));
            }
        }
        Ok(())
    }
}

fn suite(op: CrossOp, on: &Device, dtype: DType, eps: f64) {
    for case in cases() {
        case.compare(&case.run(op, on, dtype), eps).unwrap();
    }
}

#[test]
fn the_cpu_form_is_right() {
    suite(cross_sums, &Device::cpu(), DType::F32, EPS);
}

#[test]
fn the_reference_is_right() {
    suite(cross_sums_reference, &Device::cpu(), DType::F32, EPS);
}

#[test]
fn f64_takes_the_reference() {
    suite(cross_sums, &Device::cpu(), DType::F64, f64::EPSILON);
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn the_shader_is_right() {
    suite(cross_sums, &gpu(), DType::F32, EPS);
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn the_shader_leaves_a_sum_that_is_held_alone() {
    let (case, on) = (product("held", [20, 9, 5]), gpu());
    let make = |shape, fill| matrix(shape, View::Plain, fill, &on, DType::F32);
    let sum = [make([9, 5], of_hi as fn(usize) -> f32), make([9, 5], of_lo)];
    let run = || cross_sums(sum.clone(), make([20, 9], of_x), make([20, 5], of_y));
    let (first, again) = (run().map(numbers), run().map(numbers));
    assert_eq!(first, again);
    let sums: Vec<f64> = first[0]
        .iter()
        .zip(&first[1])
        .map(|(hi, lo)| hi + lo)
        .collect();
    case.compare(&sums, EPS).unwrap();
}

/// Products that f32 holds exactly, each far below half an ulp of the sum: all must be there in the end.
fn nothing_is_lost(op: CrossOp, on: &Device) -> Result<(), String> {
    let [start, batches] = [2f64.powi(24), 1500.0];
    let full = |v: f64| Tensor::<2>::full([1, 1], v, on.tensor());
    let mut sum = [full(start), full(0.0)];
    for _ in 0..batches as usize {
        sum = op(sum, full(0.0625 + 2f64.powi(-11)), full(0.125));
    }
    let [hi, lo] = sum.map(|x| numbers(x)[0]);
    let exact = start + batches * 0.125 * (0.0625 + 2f64.powi(-11));
    match hi + lo == exact {
        true => Ok(()),
        false => Err(format!("{hi} + {lo} for {exact}")),
    }
}

#[test]
fn nothing_is_lost_on_the_cpu() {
    nothing_is_lost(cross_sums, &Device::cpu()).unwrap();
    nothing_is_lost(cross_sums_reference, &Device::cpu()).unwrap();
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn nothing_is_lost_on_the_gpu() {
    nothing_is_lost(cross_sums, &gpu()).unwrap();
}

#[test]
fn the_same_bits_on_any_number_of_threads() {
    let case = product("odd", [700, 130, 129]);
    assert!(same_on_any_threads(|| {
        case.run(cross_sums, &Device::cpu(), DType::F32)
    }));
}

/// A sum without its second half, and a product with one row short, must show.
#[test]
fn planted_faults_are_caught() {
    fn one_float([hi, lo]: [Tensor<2>; 2], x: Tensor<2>, y: Tensor<2>) -> [Tensor<2>; 2] {
        [hi + x.transpose().matmul(y), lo]
    }
    fn one_row_short(sum: [Tensor<2>; 2], x: Tensor<2>, y: Tensor<2>) -> [Tensor<2>; 2] {
        let b = x.dims()[0] - 1;
        cross_sums(sum, x.narrow(0, 0, b), y.narrow(0, 0, b))
    }
    let cpu = Device::cpu();
    assert!(nothing_is_lost(one_float, &cpu).is_err());
    let case = product("odd", [40, 9, 5]);
    let got = case.run(one_row_short, &cpu, DType::F32);
    assert!(case.compare(&got, EPS).is_err());
}

#[test]
fn shapes_that_do_not_fit_panic() {
    let on = Device::cpu();
    let zeros = |shape: [usize; 2]| Tensor::<2>::zeros(shape, on.tensor());
    let sum = || [zeros([3, 4]), zeros([3, 4])];
    let text = panic_of(|| cross_sums(sum(), zeros([5, 3]), zeros([6, 4])));
    assert!(text.contains("cross_sums: x [5, 3], y [6, 4]"), "{text}");
    let text = panic_of(|| CrossSums::new(3, 4).push(&zeros([5, 3]), &zeros([5, 3])));
    assert!(text.contains("CrossSums: x [5, 3], y [5, 3]"), "{text}");
}

/// Columns far from 0, of very different spread, and constant ones.
fn stream_x(i: usize) -> f32 {
    match i % 5 {
        0 => 1e4 + uniform(i),
        1 => 3.3,
        2 => 1e-3 * uniform(i),
        _ => uniform(i) + 2.0 * uniform(i / 5),
    }
}

fn stream_y(i: usize) -> f32 {
    match i % 3 {
        0 => uniform(i + 1) - 2.0 * uniform(i / 3),
        1 => 0.0,
        _ => -50.0 + uniform(i + 1),
    }
}

fn streamed(batches: &[usize], on: &Device, dtype: DType) -> CrossMoments {
    let mut sums = CrossSums::new(5, 3);
    let mut first = 0;
    for &b in batches {
        let part = |d: usize, fill: fn(usize) -> f32| {
            let values = (first * d..(first + b) * d).map(fill).collect();
            Tensor::<2>::from_data(TensorData::new(values, [b, d]), on.tensor()).cast(dtype)
        };
        sums.push(&part(5, stream_x), &part(3, stream_y));
        first += b;
        assert_eq!(sums.rows(), first);
    }
    sums.read().unwrap()
}

fn column(rows: usize, d: usize, at: usize, fill: fn(usize) -> f32) -> (f64, Vec<f64>) {
    let values: Vec<f64> = (0..rows).map(|r| fill(r * d + at).into()).collect();
    let mean = values.iter().sum::<f64>() / rows as f64;
    (mean, values.iter().map(|v| v - mean).collect())
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn moments_are_right(on: &Device, dtype: DType, eps: f64) {
    let batches = [70, 0, 1, 300, 129];
    let rows: usize = batches.iter().sum();
    let got = streamed(&batches, on, dtype);
    assert_eq!(got.rows, rows);
    let correlations = got.correlations();
    let near = |got: f64, exact: f64, size: f64| {
        assert!(
            (got - exact).abs() <= 64.0 * eps * size,
            "{got} for {exact} of {size}"
        );
    };
    for i in 0..5 {
        let (mean, x) = column(rows, 5, i, stream_x);
        near(got.means[0][i], mean, mean.abs() + 1e-3);
        near(got.squares[0][i], dot(&x, &x), dot(&x, &x));
        for j in 0..3 {
            let (_, y) = column(rows, 3, j, stream_y);
            let size = (dot(&x, &x) * dot(&y, &y)).sqrt();
            near(got.products[i * 3 + j], dot(&x, &y), size);
            match i == 1 || j == 1 {
                true => assert_eq!(correlations[i * 3 + j], 0.0),
                false => near(correlations[i * 3 + j], dot(&x, &y) / size, 1.0),
            }
        }
    }
    assert_eq!((got.squares[0][1], got.squares[1][1]), (0.0, 0.0));
}

#[test]
fn moments_are_right_on_the_cpu() {
    moments_are_right(&Device::cpu(), DType::F32, EPS);
    moments_are_right(&Device::cpu(), DType::F64, f64::EPSILON);
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn moments_are_right_on_the_gpu() {
    moments_are_right(&gpu(), DType::F32, EPS);
}

#[test]
fn nothing_pushed_is_nothing_read() {
    let moments = streamed(&[0], &Device::cpu(), DType::F32);
    assert_eq!((moments.rows, moments.products), (0, vec![0.0; 15]));
    let none = CrossSums::new(0, 3).read().unwrap();
    assert!(none.correlations().is_empty());
}

#[test]
fn a_nan_stays_one() {
    let on = Device::cpu();
    let x = Tensor::<2>::from_floats([[1.0], [f32::NAN], [2.0]], on.tensor());
    let mut sums = CrossSums::new(1, 1);
    sums.push(&x, &x);
    assert!(sums.read().unwrap().correlations()[0].is_nan());
}
