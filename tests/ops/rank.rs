//! Ranks against counting.

use burn::tensor::DType;
use inscape::ops::{rank, rank_reference};

use super::batch::{integers, same_on_any_threads};
use super::rows::vector;
use super::*;

type RankOp = fn(Tensor<1>) -> Tensor<1, Int>;

#[derive(Clone, Copy)]
struct Values {
    name: &'static str,
    m: usize,
    view: View,
    fill: fn(usize) -> f32,
}

fn values(name: &'static str, m: usize, fill: fn(usize) -> f32) -> Values {
    Values {
        name,
        m,
        view: View::Plain,
        fill,
    }
}

/// A workgroup has 256 threads and sorts blocks of 1,024 values, 8,192 from 2²⁰ values on; it sums up
/// 4,096 counts (16 blocks) at a time.
fn cases() -> Vec<Values> {
    let view = |view, case| Values { view, ..case };
    vec![
        values("none", 0, uniform),
        values("one", 1, uniform),
        values("two", 2, uniform),
        values("m = workgroup - 1", 255, uniform),
        values("m = workgroup", 256, uniform),
        values("m = workgroup + 1", 257, uniform),
        values("m = block - 1", 1023, uniform),
        values("m = block", 1024, uniform),
        values("m = block + 1", 1025, uniform),
        values("16 blocks", 16_384, uniform),
        values("17 blocks", 16_385, uniform),
        values("ties", 5000, few_values),
        values("all equal", 3000, |_| 2.5),
        values("all NaN", 300, |_| f32::NAN),
        values("NaN, inf, zeros", 3000, special),
        values("both zeros", 3000, zeros),
        values("subnormal", 3000, subnormal),
        values("any bits", 20_000, any_bits),
        values("rising", 5000, |i| i as f32),
        values("falling", 5000, |i| -(i as f32)),
        values("in pairs", 5000, |i| (i / 2) as f32),
        values("equal high digits", 5000, |i| {
            1.0 + f32::EPSILON * (hash(i) % 300) as f32
        }),
        view(View::Transposed, values("strided", 3000, few_values)),
        view(View::Sliced, values("sliced", 3000, few_values)),
    ]
}

fn large() -> [Values; 3] {
    [
        values("just few", (1 << 20) - 1, uniform),
        values("many", 1 << 20, few_values),
        values("many and any bits", (1 << 20) + 8193, any_bits),
    ]
}

impl Values {
    fn run(&self, op: RankOp, on: &Device, dtype: DType) -> Vec<i64> {
        let ranks = op(vector(self.m, self.view, self.fill, on, dtype));
        assert_eq!((ranks.dims(), ranks.dtype()), ([self.m], DType::I32));
        integers(ranks)
    }

    /// Twice the mean of the places each value could take, NaN above all.
    fn oracle(&self) -> Vec<i64> {
        let key = |i: usize| match (self.fill)(i) {
            v if v.is_nan() => (1, 0.0),
            v => (0, f64::from(v) + 0.0),
        };
        let keys: Vec<(i32, f64)> = (0..self.m).map(key).collect();
        let mut sorted = keys.clone();
        sorted.sort_by(|a, b| a.partial_cmp(b).unwrap());
        let below = |key: &(i32, f64)| sorted.partition_point(|other| other < key);
        let up_to = |key: &(i32, f64)| sorted.partition_point(|other| other <= key);
        keys.iter()
            .map(|key| (below(key) + up_to(key) + 1) as i64)
            .collect()
    }
}

fn compare(op: RankOp, case: &Values, on: &Device, dtype: DType) -> Result<(), String> {
    let (got, want) = (case.run(op, on, dtype), case.oracle());
    match (0..case.m).find(|&i| got[i] != want[i]) {
        Some(i) => Err(format!("{}: {} for {} at {i}", case.name, got[i], want[i])),
        None => Ok(()),
    }
}

fn suite(op: RankOp, cases: &[Values], on: &Device, dtype: DType) {
    for case in cases {
        compare(op, case, on, dtype).unwrap();
    }
}

#[test]
fn the_cpu_form_is_right() {
    for dtype in [DType::F32, DType::F64] {
        suite(rank, &cases(), &Device::cpu(), dtype);
    }
    suite(rank, &large(), &Device::cpu(), DType::F32);
}

#[test]
fn the_reference_is_right() {
    for dtype in [DType::F32, DType::F64] {
        suite(rank_reference, &cases(), &Device::cpu(), dtype);
    }
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn the_shaders_are_right() {
    let on = gpu();
    suite(rank, &cases(), &on, DType::F32);
    suite(rank, &large(), &on, DType::F32);
}

/// 256 values a group; every number below 2²⁴ once.
#[test]
#[ignore = "needs a wgpu adapter"]
fn over_65_535_groups_are_right() {
    let scattered = |i: usize| (i.wrapping_mul(0x9e37_79b1) % (1 << 24)) as f32;
    let case = values("", 1 << 24, scattered);
    let ranks = case.run(rank, &gpu(), DType::F32);
    let right = |(i, &rank): (usize, &i64)| rank == 2 * scattered(i) as i64 + 2;
    assert!(ranks.iter().enumerate().all(right));
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn the_shaders_leave_the_given_values_alone() {
    let on = gpu();
    let x = vector(3000, View::Plain, few_values, &on, DType::F32);
    let first = integers(rank(x.clone()));
    assert_eq!(first, integers(rank(x)));
}

#[test]
fn the_same_on_any_number_of_threads() {
    let case = values("ties", 5003, few_values);
    assert!(same_on_any_threads(|| {
        case.run(rank, &Device::cpu(), DType::F32)
    }));
}

/// Ties in the order in which they stand, and a zero that is not the other, must show.
#[test]
fn planted_faults_are_caught() {
    fn no_ties(x: Tensor<1>) -> Tensor<1, Int> {
        x.argsort(0)
            .argsort(0)
            .mul_scalar(2)
            .add_scalar(2)
            .cast(DType::I32)
    }
    fn signed_zeros(x: Tensor<1>) -> Tensor<1, Int> {
        let negative: Vec<f32> = block_on(read(x.clone())).unwrap();
        let apart = |v: f32| if v.is_sign_negative() { -1.0 } else { v };
        let apart: Vec<f32> = negative.into_iter().map(apart).collect();
        rank(Tensor::from_floats(&apart[..], &x.device()))
    }
    let cpu = Device::cpu();
    let caught = |op, name, fill| compare(op, &values(name, 300, fill), &cpu, DType::F32);
    assert!(caught(no_ties, "distinct", uniform).is_ok());
    assert!(caught(no_ties, "ties", few_values).is_err());
    assert!(caught(signed_zeros, "both zeros", zeros).is_err());
}
