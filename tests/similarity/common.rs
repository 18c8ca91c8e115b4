//! What the suites of the metrics share: plain matrices, golden values, and how they are held to them.

use std::path::PathBuf;

use burn::tensor::{DType, Tensor, TensorData};
use inscape::Device;
use inscape::similarity::Metric;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::{Dtype, SafeTensors};

/// A plain matrix, from which tensors of either precision are made.
#[derive(Clone, Debug)]
pub struct Matrix {
    pub n: usize,
    pub d: usize,
    pub v: Vec<f64>,
}

impl Matrix {
    pub fn from_fn(n: usize, d: usize, mut f: impl FnMut(usize, usize) -> f64) -> Self {
        let v = (0..n * d).map(|i| f(i / d, i % d)).collect();
        Self { n, d, v }
    }

    /// Values rounded to f32, roughly normal.
    pub fn random(n: usize, d: usize, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut normal = || (0..6).map(|_| rng.random_range(-1.0f32..1.0)).sum::<f32>();
        Self::from_fn(n, d, |_, _| f64::from(normal()))
    }

    pub fn at(&self, i: usize, j: usize) -> f64 {
        self.v[i * self.d + j]
    }

    pub fn row(&self, i: usize) -> &[f64] {
        &self.v[i * self.d..(i + 1) * self.d]
    }

    pub fn map(&self, f: impl Fn(f64) -> f64) -> Self {
        Self {
            v: self.v.iter().map(|&v| f(v)).collect(),
            ..*self
        }
    }

    pub fn permuted(&self, order: &[usize]) -> Self {
        Self::from_fn(self.n, self.d, |i, j| self.at(order[i], j))
    }

    /// Turned by `angle` in each plane of two neighbouring columns.
    pub fn rotated(&self, angle: f64) -> Self {
        let mut out = self.clone();
        for c in 0..self.d - 1 {
            for i in 0..self.n {
                let (a, b) = (out.at(i, c), out.at(i, c + 1));
                out.v[i * self.d + c] = a * angle.cos() - b * angle.sin();
                out.v[i * self.d + c + 1] = a * angle.sin() + b * angle.cos();
            }
        }
        out
    }

    pub fn f64(&self) -> Tensor<2> {
        let data = TensorData::new(self.v.clone(), [self.n, self.d]);
        Tensor::from_data(data, (Device::cpu().tensor(), DType::F64))
    }

    pub fn f32(&self) -> Tensor<2> {
        self.f32_on(Device::cpu().tensor())
    }

    pub fn f32_on(&self, device: &burn::tensor::Device) -> Tensor<2> {
        let values: Vec<f32> = self.v.iter().map(|&v| v as f32).collect();
        Tensor::from_data(
            TensorData::new(values, [self.n, self.d]),
            (device, DType::F32),
        )
    }
}

pub fn metric(name: &str) -> Metric {
    name.parse().expect("a known metric")
}

pub fn compare(name: &str, x: &Tensor<2>, y: &Tensor<2>) -> f64 {
    metric(name)
        .compare(x, y)
        .unwrap_or_else(|e| panic!("{name}: {e}"))
}

#[track_caller]
pub fn close(a: f64, b: f64, tolerance: f64) {
    assert!(
        (a - b).abs() <= tolerance,
        "{a} and {b} differ by {:e} > {tolerance:e}",
        (a - b).abs()
    );
}

/// The software adapter is enough: what is tested is the device's products.
pub fn gpu() -> burn::tensor::Device {
    burn::tensor::Device::wgpu(burn::tensor::DeviceKind::Cpu)
}

// ---- golden values

#[derive(serde::Deserialize)]
struct Record {
    id: String,
    value: Option<f64>,
    suggest_atol_f32: Option<f64>,
}

/// A golden value of a metric of two representations.
#[derive(Clone, Debug)]
pub struct Golden {
    /// Name of the input file, which holds `X` and `Y`.
    pub case: String,
    /// The metric as the crate names it.
    pub metric: String,
    pub value: f64,
    pub atol_f32: f64,
}

pub fn data(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/similarity");
    std::fs::read(folder.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn records() -> Vec<Record> {
    serde_json::from_slice(&data("goldens.json")).expect("goldens.json")
}

/// The golden value with this id.
pub fn golden(id: &str) -> f64 {
    let found = records().into_iter().find(|r| r.id == id);
    found
        .and_then(|r| r.value)
        .unwrap_or_else(|| panic!("no golden value {id}"))
}

/// The golden values of each `(metric with its parameters in the goldens, metric in the crate)`.
pub fn goldens(table: &[(&str, &str)]) -> Vec<Golden> {
    let records = records();
    let of = |(theirs, ours): &(&str, &str)| {
        let found = records.iter().filter_map(|r| {
            let (case, name) = r.id.split_once('/')?;
            (name == *theirs && r.value.is_some()).then(|| Golden {
                case: case.to_owned(),
                metric: (*ours).to_owned(),
                value: r.value.expect("a number"),
                atol_f32: r.suggest_atol_f32.expect("a tolerance"),
            })
        });
        let found: Vec<Golden> = found.collect();
        assert!(!found.is_empty(), "no golden values of {theirs}");
        found
    };
    table.iter().flat_map(of).collect()
}

/// A tensor of an input file (f32), or of `expected.safetensors` (f64), with its shape.
pub fn array(file: &str, name: &str) -> (Vec<usize>, Vec<f64>) {
    let bytes = data(&format!("{file}.safetensors"));
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let tensor = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
    let single = |c: &[u8]| f64::from(f32::from_le_bytes(c.try_into().expect("four bytes")));
    let double = |c: &[u8]| f64::from_le_bytes(c.try_into().expect("eight bytes"));
    let values = match tensor.dtype() {
        Dtype::F32 => tensor.data().chunks_exact(4).map(single).collect(),
        Dtype::F64 => tensor.data().chunks_exact(8).map(double).collect(),
        other => panic!("{name}: {other:?}"),
    };
    (tensor.shape().to_vec(), values)
}

/// A matrix of an input file.
pub fn input(case: &str, name: &str) -> Matrix {
    let (shape, v) = array(case, name);
    Matrix {
        n: shape[0],
        d: shape[1],
        v,
    }
}

/// Every golden value that `make` and `tolerance` do not meet.
pub fn misses(
    goldens: &[Golden],
    make: impl Fn(&Matrix) -> Tensor<2>,
    tolerance: impl Fn(&Golden) -> f64,
    value: impl Fn(&Golden) -> f64,
) -> Vec<String> {
    let miss = |g: &Golden| {
        let (x, y) = (make(&input(&g.case, "X")), make(&input(&g.case, "Y")));
        let got = compare(&g.metric, &x, &y);
        let off = (got - value(g)).abs();
        // Not `off > tolerance`: a NaN is a miss.
        let met = off <= tolerance(g);
        (!met).then(|| format!("{} {}: {got}, off by {off:e}", g.case, g.metric))
    };
    goldens.iter().filter_map(miss).collect()
}

/// Holds f64 to `relative` of each value and f32 to the tolerance that comes with it, and sees to it
/// that a value off by a little more than that is caught.
pub fn hold(goldens: &[Golden], relative: impl Fn(&Golden) -> f64) {
    let f64_off = misses(goldens, Matrix::f64, &relative, |g| g.value);
    assert!(f64_off.is_empty(), "f64: {f64_off:#?}");
    let f32_off = misses(goldens, Matrix::f32, |g| g.atol_f32, |g| g.value);
    assert!(f32_off.is_empty(), "f32: {f32_off:#?}");
    let planted = |g: &Golden| g.value + 2.5 * relative(g) + f64::MIN_POSITIVE;
    let caught = misses(goldens, Matrix::f64, &relative, planted);
    let zero = goldens.iter().filter(|g| relative(g) == 0.0).count();
    assert!(caught.len() + zero >= goldens.len(), "{caught:#?}");
}

/// Holds f32 on a GPU to the tolerance that comes with each value.
pub fn hold_on_wgpu(goldens: &[Golden]) {
    let gpu = gpu();
    let off = misses(goldens, |m| m.f32_on(&gpu), |g| g.atol_f32, |g| g.value);
    assert!(off.is_empty(), "{off:#?}");
}
