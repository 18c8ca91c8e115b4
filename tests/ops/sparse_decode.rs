//! Sparse rows times a matrix, its adjoint and its gradients against plain f64 loops.

use burn::tensor::DType;
use inscape::ops::{DENSE_FROM, sparse_decode, sparse_dot};

use super::batch::*;
use super::*;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Which {
    Decode,
    Dot,
}

const BOTH: [Which; 2] = [Which::Decode, Which::Dot];

fn run(which: Which, case: &Batch, on: &Device, dtype: DType, index: DType) -> Vec<f64> {
    let (w, indices) = (case.w_on(on, dtype), case.indices_on(on, index));
    let (result, want) = match which {
        Which::Decode => {
            let y = sparse_decode(case.values_on(on, dtype), indices, w, None);
            (y, [case.n, case.d])
        }
        Which::Dot => {
            let s = sparse_dot(case.g_on(on, dtype), w, indices);
            (s, [case.n, case.k])
        }
    };
    let got = (result.dims(), result.dtype());
    assert_eq!(got, (want, dtype), "{which:?}, {}", case.name);
    floats(result)
}

fn close(which: Which, case: &Batch, got: &[f64], eps: f64) -> Result<(), String> {
    let (values, g, w) = (case.values(), case.g(), case.w());
    let (k, d) = (case.k, case.d);
    let name = format!("{which:?}, {}", case.name);
    match which {
        Which::Decode => {
            let term = |e, f, c| (e / k * d + c, values[e], w[f * d + c]);
            let sums = case.sums(case.n * d, term);
            sums.close(&name, got, eps, k)
        }
        Which::Dot => {
            let term = |e, f, c| (e, g[e / k * d + c], w[f * d + c]);
            case.sums(case.n * k, term).close(&name, got, eps, d)
        }
    }
}

fn suite(cases: &[Batch], on: &Device, dtype: DType, index: DType, eps: f64) {
    for case in cases {
        for which in BOTH {
            let got = run(which, case, on, dtype, index);
            close(which, case, &got, eps).unwrap();
        }
    }
}

#[test]
fn the_cpu_form_is_right() {
    for index in [DType::I32, DType::I64] {
        suite(&batches(), &Device::cpu(), DType::F32, index, EPS);
    }
}

#[test]
fn f64_takes_the_reference() {
    let mut cases = batches();
    cases.retain(|case| case.n * case.d_sae < 1_000_000);
    for index in [DType::I32, DType::I64] {
        let eps = f64::EPSILON;
        suite(&cases, &Device::cpu(), DType::F64, index, eps);
    }
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn the_shaders_are_right() {
    suite(&batches(), &gpu(), DType::F32, DType::I32, EPS);
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn the_shaders_give_the_same_bits_every_time() {
    let (case, on) = (batch("odd", [129, 11, 257, 67]), gpu());
    for which in BOTH {
        let run = || run(which, &case, &on, DType::F32, DType::I32);
        assert_eq!(run(), run(), "{which:?}");
    }
}

#[test]
fn the_same_bits_on_any_number_of_threads() {
    let case = batch("larger", [300, 32, 2000, 130]);
    for which in BOTH {
        let run = || run(which, &case, &Device::cpu(), DType::F32, DType::I32);
        assert!(same_on_any_threads(run), "{which:?}");
    }
}

/// One latent more that no entry has makes the dense product a sparse one.
#[test]
fn the_dense_form_and_the_sparse_one_agree() {
    let dense = batch("dense", [40, 32, 64, 24]);
    const { assert!(32.0 >= 2.0 * DENSE_FROM * 64.0 && 32.0 < 2.0 * DENSE_FROM * 65.0) };
    let cpu = Device::cpu();
    let (values, g) = (
        dense.values_on(&cpu, DType::F32),
        dense.g_on(&cpu, DType::F32),
    );
    let (w, indices) = (
        dense.w_on(&cpu, DType::F32),
        dense.indices_on(&cpu, DType::I32),
    );
    let row = Tensor::full([1, dense.d], f32::NAN, cpu.tensor());
    let more = Tensor::cat(vec![w, row], 0);
    let y = sparse_decode(values, indices.clone(), more.clone(), None);
    close(Which::Decode, &dense, &floats(y), EPS).unwrap();
    let s = sparse_dot(g, more, indices);
    close(Which::Dot, &dense, &floats(s), EPS).unwrap();
}

/// A NaN shows in its own row only, and in every column of it.
fn a_nan_shows(on: &Device) {
    let case = Batch {
        value: |i| if i == 20 { f32::NAN } else { uniform(i) },
        ..batch("one NaN", [9, 4, 60, 33])
    };
    let y = run(Which::Decode, &case, on, DType::F32, DType::I32);
    for (i, row) in y.chunks(case.d).enumerate() {
        assert!(row.iter().all(|v| v.is_nan() == (i == 5)), "row {i}");
    }
}

#[test]
fn a_nan_shows_on_the_cpu() {
    a_nan_shows(&Device::cpu());
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn a_nan_shows_on_the_gpu() {
    a_nan_shows(&gpu());
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn indices_out_of_range_are_passed_over_on_the_gpu() {
    let on = gpu();
    let x = Tensor::<2>::ones([2, 3], on.tensor());
    let w = Tensor::<2>::ones([5, 3], on.tensor());
    let indices = [[0, 5, 1], [-1, 4, i32::MAX]];
    let indices = Tensor::<2, Int>::from_data(indices, (on.tensor(), DType::I32));
    let y = sparse_decode(x.clone(), indices.clone(), w.clone(), None);
    assert_eq!(floats(y), [2.0, 2.0, 2.0, 1.0, 1.0, 1.0]);
    let s = sparse_dot(x, w, indices);
    assert_eq!(floats(s), [3.0, 0.0, 3.0, 0.0, 3.0, 0.0]);
}

/// One element or one index off must show.
#[test]
fn planted_faults_are_caught() {
    let (case, cpu) = (batch("odd", [129, 11, 257, 67]), Device::cpu());
    for which in BOTH {
        let mut off = run(which, &case, &cpu, DType::F32, DType::I32);
        *off.last_mut().unwrap() *= 1.0 + 1e-3;
        assert!(close(which, &case, &off, EPS).is_err(), "{which:?}");
        let moved = Batch {
            index: |i, d_sae| (hash(i ^ 0x5555) as usize + usize::from(i == 700)) % d_sae,
            ..case
        };
        let moved = run(which, &moved, &cpu, DType::F32, DType::I32);
        assert!(close(which, &case, &moved, EPS).is_err(), "{which:?}");
    }
}

/// In the sparse form, of 50 latents, and in the dense, of 5.
#[test]
fn an_index_out_of_range_panics_with_the_op() {
    let on = Device::cpu();
    let x = || Tensor::<2>::ones([2, 3], on.tensor());
    for d_sae in [5usize, 50] {
        let w = || Tensor::<2>::ones([d_sae, 3], on.tensor());
        for (bad, dtype) in [
            (d_sae as i64, DType::I32),
            (-1, DType::I32),
            (d_sae as i64, DType::I64),
            (-1, DType::I64),
            (1 << 32, DType::I64),
        ] {
            let data = TensorData::new(vec![0i64, 1, 2, bad, 4, 0], [2, 3]);
            let indices = || Tensor::<2, Int>::from_data(data.clone(), (on.tensor(), dtype));
            let says = |op: &str, text: String| {
                let want = format!("{op}: index {bad} of {d_sae} latents");
                assert!(text.contains(&want), "{text}");
            };
            let decode = panic_of(|| sparse_decode(x(), indices(), w(), None));
            says("sparse_decode", decode);
            let dot = panic_of(|| sparse_dot(x(), w(), indices()));
            says("sparse_dot", dot);
        }
    }
}

#[test]
fn wrong_shapes_panic_with_the_op_and_both() {
    let on = Device::cpu();
    let x = |rows, columns| Tensor::<2>::ones([rows, columns], on.tensor());
    let indices = |rows, columns| Tensor::<2, Int>::zeros([rows, columns], on.tensor());
    let says = |text: String, words: &[&str]| {
        assert!(words.iter().all(|w| text.contains(w)), "{text}");
    };
    let decode = panic_of(|| sparse_decode(x(2, 3), indices(2, 4), x(5, 6), None));
    says(decode, &["sparse_decode", "[2, 3]", "[2, 4]"]);
    let dot = panic_of(|| sparse_dot(x(2, 6), x(5, 7), indices(2, 4)));
    says(dot, &["sparse_dot", "[2, 6]", "7"]);
    let rows = panic_of(|| sparse_dot(x(2, 6), x(5, 6), indices(3, 4)));
    says(rows, &["sparse_dot", "[2, 6]", "[3, 4]"]);
}

/// What gradients are taken of: indices twice in a row, latents without an entry.
const GRADIENT: Batch = Batch {
    name: "gradient",
    n: 7,
    k: 4,
    d_sae: 40,
    d: 9,
    value: uniform,
    index: |i, d_sae| (i / 4 * 5 + [0, 3, 3, 1][i % 4]) % d_sae,
    view: View::Plain,
};

/// A bilinear loss, `Σ weight · result`, at each of its inputs.
struct Loss {
    which: Which,
    inputs: [Vec<f64>; 3],
}

impl Loss {
    /// Values (or g), w and b (not for the products).
    fn new(which: Which) -> Self {
        let case = &GRADIENT;
        let wide = |x: Vec<f32>| x.into_iter().map(f64::from).collect();
        let x = match which {
            Which::Decode => case.values(),
            Which::Dot => case.g(),
        };
        let b = (0..case.d).map(|i| uniform(i + 77)).collect();
        Self {
            which,
            inputs: [x, case.w(), b].map(wide),
        }
    }

    fn weight(place: usize) -> f64 {
        f64::from(uniform(place + 31))
    }

    fn value(&self) -> f64 {
        let (case, [x, w, b]) = (&GRADIENT, &self.inputs);
        let (k, d) = (case.k, case.d);
        let mut loss = match self.which {
            Which::Decode => (0..case.n * d).map(|i| Self::weight(i) * b[i % d]).sum(),
            Which::Dot => 0.0,
        };
        for (entry, &f) in case.indices().iter().enumerate() {
            for c in 0..d {
                let (place, row) = (entry / k * d + c, f as usize * d + c);
                loss += match self.which {
                    Which::Decode => Self::weight(place) * x[entry] * w[row],
                    Which::Dot => Self::weight(entry) * x[place] * w[row],
                };
            }
        }
        loss
    }

    /// Central differences, which are exact but for rounding: the loss is linear in each input.
    fn differences(mut self) -> [Vec<f64>; 3] {
        [0, 1, 2].map(|input| {
            (0..self.inputs[input].len())
                .map(|i| {
                    let at = self.inputs[input][i];
                    let mut moved = |by| {
                        self.inputs[input][i] = at + by;
                        self.value()
                    };
                    let slope = (moved(0.5) - moved(-0.5)) / 1.0;
                    self.inputs[input][i] = at;
                    slope
                })
                .collect()
        })
    }

    /// The gradients that the device gives. Those of the product have no b.
    fn gradients(self, on: &Device, dtype: DType) -> [Vec<f64>; 3] {
        let (case, on) = (&GRADIENT, autodiff(on));
        let tensor = |values: &[f64], columns: usize| {
            let data = TensorData::new(values.to_vec(), [values.len() / columns, columns]);
            Tensor::<2>::from_data(data, (on.tensor(), dtype)).require_grad()
        };
        let [x, w, b] = &self.inputs;
        let indices = case.indices_on(&on, DType::I32);
        let (columns, w) = (x.len() / case.n, tensor(w, case.d));
        let (x, b) = (tensor(x, columns), tensor(b, case.d));
        let result = match self.which {
            Which::Decode => {
                let b = b.clone().squeeze_dim(0);
                sparse_decode(x.clone(), indices, w.clone(), Some(b))
            }
            Which::Dot => sparse_dot(x.clone(), w.clone(), indices),
        };
        let weights = (0..result.dims().iter().product()).map(Self::weight);
        let weights = TensorData::new(weights.collect::<Vec<f64>>(), result.dims());
        let weights = Tensor::<2>::from_data(weights, (on.tensor(), dtype));
        let grads = (result * weights).sum().backward();
        [x, w, b].map(|x| x.grad(&grads).map(floats).unwrap_or_default())
    }
}

/// Within `eps · t²`: a gradient is a sum of at most t = n·k or d terms, each at most 1.
fn agree(got: &[Vec<f64>; 3], want: &[Vec<f64>; 3], eps: f64) -> Result<(), String> {
    let terms = (GRADIENT.n * GRADIENT.k).max(GRADIENT.d) as f64;
    for ((got, want), name) in got.iter().zip(want).zip(["x", "w", "b"]) {
        assert_eq!(got.len(), want.len(), "{name}");
        for (i, (got, want)) in got.iter().zip(want).enumerate() {
            let off = (got - want).abs();
            if off.is_nan() || off > eps * terms * terms {
                return Err(format!("{name}[{i}]: {got} for {want}"));
            }
        }
    }
    Ok(())
}

/// The differences' own rounding counts as a few more terms of f64.
#[test]
fn gradients_are_the_slopes_on_the_cpu() {
    for which in BOTH {
        let mut want = Loss::new(which).differences();
        if which == Which::Dot {
            want[2].clear();
        }
        for (dtype, eps) in [(DType::F32, EPS), (DType::F64, 16.0 * f64::EPSILON)] {
            let got = Loss::new(which).gradients(&Device::cpu(), dtype);
            agree(&got, &want, eps).unwrap_or_else(|e| panic!("{which:?}, {dtype:?}: {e}"));
        }
    }
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn gradients_are_those_of_the_cpu_on_the_gpu() {
    let of = |on| Loss::new(Which::Decode).gradients(&on, DType::F32);
    let got = of(gpu());
    agree(&got, &Loss::new(Which::Decode).differences(), EPS).unwrap();
    agree(&got, &of(Device::cpu()), EPS).unwrap();
}

#[test]
fn a_planted_fault_in_a_gradient_is_caught() {
    let want = Loss::new(Which::Decode).differences();
    for input in 0..3 {
        let mut off = Loss::new(Which::Decode).gradients(&Device::cpu(), DType::F32);
        let place = off[input].iter().rposition(|&x| x.abs() > 0.3).unwrap();
        off[input][place] *= 1.0 + 1e-3;
        assert!(agree(&off, &want, EPS).is_err(), "{input}");
    }
}
