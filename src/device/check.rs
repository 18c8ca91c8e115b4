//! Known silent wrong results of GPU paths, tried on the user's own device.

use burn::tensor::{Tensor, TensorData, activation};
use serde::Serialize;

use super::{Device, Error, read};

/// One case of [`self_check_async`]: the same small computation on the device and on the CPU backend.
#[derive(Clone, Debug, Serialize)]
pub struct CheckCase {
    /// What was computed.
    pub name: &'static str,
    /// The largest absolute difference from the CPU backend; infinite if a NaN is in it.
    pub max_error: f64,
    /// The largest difference allowed, `8 · eps · terms · scale`.
    pub tolerance: f64,
}

impl CheckCase {
    /// Whether the difference is within the tolerance.
    pub fn passed(&self) -> bool {
        self.max_error <= self.tolerance
    }
}

/// What [`self_check_async`] found.
#[derive(Clone, Debug, Serialize)]
pub struct SelfCheckReport {
    /// The device that was tried.
    pub device: String,
    /// Every case, in order.
    pub cases: Vec<CheckCase>,
}

impl SelfCheckReport {
    /// Whether every case passed.
    pub fn passed(&self) -> bool {
        self.cases.iter().all(CheckCase::passed)
    }
}

/// A case: its name, the longest sum in it, and the computation. Inputs are within [-1, 1].
type Case = (
    &'static str,
    usize,
    fn(&burn::tensor::Device) -> Vec<Tensor<1>>,
);

const CASES: [Case; 5] = [
    ("matmul, many rows, narrow", 64, tall_matmul),
    ("matmul, odd shape", 37, odd_matmul),
    ("the same forward pass, three times", 64, repeated_forward),
    ("attention over a growing sequence", 64, growing_attention),
    ("gradient of the parameters only", 512, params_only_backward),
];

/// Tries computations that have gone silently wrong on GPUs, and compares them with the CPU backend.
///
/// The cases come from tracel-ai/burn issues #4966 (matmul near zero from 500 rows on), #5257
/// (a repeated forward pass), #4366 (autoregressive inference) and #5162 (backward with gradients
/// for parameters only).
///
/// # Errors
/// [`Error::Read`] if the device fails altogether. A wrong number is no error: it is in the report.
///
/// Cost: under a megabyte, and a few seconds on a software adapter.
pub async fn self_check_async(device: &Device) -> Result<SelfCheckReport, Error> {
    let cpu = Device::cpu();
    let mut cases = Vec::with_capacity(CASES.len());
    for (name, terms, compute) in CASES {
        let got = flatten(compute(device.tensor())).await?;
        let want = flatten(compute(cpu.tensor())).await?;
        let scale = want.iter().fold(1.0, |m: f64, v| m.max(v.abs()));
        let tolerance = 8.0 * f64::from(f32::EPSILON) * terms as f64 * scale;
        cases.push(CheckCase {
            name,
            max_error: max_error(&got, &want),
            tolerance,
        });
    }
    Ok(SelfCheckReport {
        device: device.name().into(),
        cases,
    })
}

/// Blocking form of [`self_check_async`].
///
/// # Errors
/// As [`self_check_async`].
///
/// ```
/// use inscape::device::{Device, self_check};
/// assert!(self_check(&Device::cpu())?.passed());
/// # Ok::<(), inscape::device::Error>(())
/// ```
#[cfg(not(target_family = "wasm"))]
pub fn self_check(device: &Device) -> Result<SelfCheckReport, Error> {
    super::block_on(self_check_async(device))
}

async fn flatten(parts: Vec<Tensor<1>>) -> Result<Vec<f64>, Error> {
    let mut all = Vec::new();
    for part in parts {
        all.extend(read::<f64, 1>(part).await?);
    }
    Ok(all)
}

fn max_error(got: &[f64], want: &[f64]) -> f64 {
    if got.len() != want.len() {
        return f64::INFINITY;
    }
    let differences = got.iter().zip(want).map(|(a, b)| (a - b).abs());
    differences.fold(
        0.0,
        |m, d| if d.is_nan() { f64::INFINITY } else { m.max(d) },
    )
}

/// Numbers in [-1, 1] that repeat nowhere soon, the same on every device.
fn wave<const D: usize>(shape: [usize; D], phase: f32, on: &burn::tensor::Device) -> Tensor<D> {
    let count = shape.iter().product();
    let values: Vec<f32> = (0..count)
        .map(|i| (i as f32 * 0.731 + phase).sin())
        .collect();
    Tensor::from_data(TensorData::new(values, shape), on)
}

fn tall_matmul(on: &burn::tensor::Device) -> Vec<Tensor<1>> {
    let products = [(512, 3, 2), (1000, 1, 1), (500, 64, 1), (513, 4, 8)];
    let product = |(m, k, n)| {
        wave([m, k], 0.1, on)
            .matmul(wave([k, n], 0.2, on))
            .flatten(0, 1)
    };
    products.into_iter().map(product).collect()
}

fn odd_matmul(on: &burn::tensor::Device) -> Vec<Tensor<1>> {
    let left = wave([37, 19], 0.3, on).transpose();
    vec![left.matmul(wave([37, 23], 0.4, on)).flatten(0, 1)]
}

fn repeated_forward(on: &burn::tensor::Device) -> Vec<Tensor<1>> {
    let (w1, w2) = (wave([16, 64], 0.5, on), wave([64, 16], 0.6, on));
    let forward = || {
        let hidden = activation::relu(wave([24, 16], 0.7, on).matmul(w1.clone()));
        hidden.matmul(w2.clone()).flatten(0, 1)
    };
    vec![forward(), forward(), forward()]
}

fn growing_attention(on: &burn::tensor::Device) -> Vec<Tensor<1>> {
    let rows = wave([6, 8], 0.8, on);
    let step = |length| {
        let seen = rows.clone().slice([0..length, 0..8]);
        let query = rows.clone().slice([length - 1..length, 0..8]);
        let scores = query.matmul(seen.clone().transpose());
        activation::softmax(scores, 1).matmul(seen).flatten(0, 1)
    };
    (1..=6).map(step).collect()
}

fn params_only_backward(on: &burn::tensor::Device) -> Vec<Tensor<1>> {
    let on = on.clone().autodiff();
    let w = wave([8, 4], 0.9, &on).require_grad();
    let b = wave([1, 4], 1.0, &on).require_grad();
    let out = wave([512, 8], 1.1, &on).matmul(w.clone()) + b.clone();
    let grads = (out.clone() * out).mean().backward();
    let flat = |p: Tensor<2>| p.grad(&grads).map(|g| g.flatten(0, 1));
    [flat(w), flat(b)].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_number_is_caught() {
        assert_eq!(max_error(&[1.0, 2.0], &[1.0, 2.5]), 0.5);
        assert_eq!(max_error(&[f64::NAN], &[1.0]), f64::INFINITY);
        assert_eq!(max_error(&[], &[1.0]), f64::INFINITY);
        let case = CheckCase {
            name: "",
            max_error: f64::INFINITY,
            tolerance: 1.0,
        };
        assert!(!case.passed());
    }
}
