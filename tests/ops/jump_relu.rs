//! JumpReLU against plain f64 loops, and its gradient against the objective it stands for.

use burn::tensor::DType;
use inscape::ops::{Ste, jump_relu, jump_relu_backward};

use super::rows::{About, eps, exact, matrix, numbers, on_any_number_of_threads, panic_of};
use super::rows::{vector, within};
use super::*;

struct Jump {
    name: &'static str,
    n: usize,
    d: usize,
    z: fn(usize) -> f32,
    threshold: fn(usize) -> f32,
    bandwidth: f64,
    view: View,
}

/// What the op gives; the gradients are those of `Σ f · g_f + Σ l0 · g_l0`.
struct Got {
    f: Vec<f64>,
    l0: Vec<f64>,
    dz: Vec<f64>,
    d_threshold: Vec<f64>,
}

fn jump(name: &'static str, n: usize, d: usize) -> Jump {
    Jump {
        name,
        n,
        d,
        z: uniform,
        threshold: |j| 0.5 * uniform(j + 555),
        bandwidth: 0.25,
        view: View::Plain,
    }
}

fn tiny(i: usize) -> f32 {
    f32::from_bits(hash(i) & 0x8000_0007)
}

/// The hard sizes: workgroups of 256, chunks of 64 rows, blocks of 1,024 columns on the CPU.
fn cases() -> Vec<Jump> {
    let mut all: Vec<Jump> = [
        ("one element", 1, 1),
        ("one row", 1, 700),
        ("one column", 300, 1),
        ("no rows", 0, 5),
        ("no columns", 5, 0),
        ("workgroup - 1", 3, 255),
        ("workgroup", 3, 256),
        ("workgroup + 1", 3, 257),
        ("chunk - 1", 63, 5),
        ("chunk", 64, 5),
        ("chunk + 1", 65, 5),
        ("two chunks, two blocks", 128, 512),
        ("odd", 131, 307),
        ("CPU block", 70, 1024),
        ("CPU block + 1", 70, 1025),
        ("CPU blocks", 5, 3000),
    ]
    .map(|(name, n, d)| jump(name, n, d))
    .into();
    all.extend([
        Jump {
            view: View::Transposed,
            ..jump("transposed", 67, 130)
        },
        Jump {
            view: View::Sliced,
            ..jump("sliced", 67, 130)
        },
        Jump {
            z: few_values,
            threshold: few_values,
            bandwidth: 3.0,
            ..jump("ties, window of three values", 80, 90)
        },
        Jump {
            z: few_values,
            threshold: few_values,
            bandwidth: 2.0,
            ..jump("ties, values on the edge of the window", 80, 90)
        },
        Jump {
            z: zeros,
            threshold: zeros,
            ..jump("both zeros", 9, 40)
        },
        Jump {
            threshold: |_| 0.0,
            ..jump("threshold 0: ReLU", 9, 300)
        },
        Jump {
            threshold: |j| -uniform(j).abs(),
            ..jump("negative thresholds", 90, 300)
        },
        Jump {
            z: special,
            ..jump("NaN, inf, zeros", 66, 128)
        },
        Jump {
            threshold: special,
            ..jump("NaN, inf, zeros as thresholds", 66, 128)
        },
        Jump {
            z: special,
            threshold: special,
            ..jump("NaN, inf, zeros in both", 66, 128)
        },
        Jump {
            z: tiny,
            threshold: tiny,
            ..jump("subnormal", 20, 60)
        },
        Jump {
            z: any_bits,
            threshold: |j| any_bits(j + 999),
            ..jump("any bits", 20, 600)
        },
        Jump {
            bandwidth: 1e-3,
            ..jump("narrow window", 500, 30)
        },
        Jump {
            bandwidth: 100.0,
            ..jump("everything in the window", 70, 30)
        },
    ]);
    all
}

fn g_f(i: usize) -> f32 {
    uniform(i + 31_337)
}

fn g_l0(i: usize) -> f32 {
    uniform(i + 2_718_281)
}

impl Jump {
    fn ste(&self) -> Ste {
        Ste {
            bandwidth: self.bandwidth,
        }
    }

    fn inputs(&self, on: &Device, dtype: DType) -> (Tensor<2>, Tensor<1>) {
        let z = matrix([self.n, self.d], self.view, self.z, on, dtype);
        (z, vector(self.d, self.view, self.threshold, on, dtype))
    }

    fn grads(&self, on: &Device, dtype: DType) -> (Tensor<2>, Tensor<1>) {
        let of_f = matrix([self.n, self.d], self.view, g_f, on, dtype);
        (of_f, vector(self.n, self.view, g_l0, on, dtype))
    }

    fn run(&self, on: &Device, dtype: DType) -> Got {
        let (z, threshold) = self.inputs(on, dtype);
        let (f, l0) = jump_relu(z.clone(), threshold.clone(), self.ste());
        let (g_f, g_l0) = self.grads(on, dtype);
        let (dz, d_threshold) = jump_relu_backward(z, threshold, g_f, g_l0, self.ste());
        let shapes = (f.dims(), l0.dims(), dz.dims(), d_threshold.dims());
        let matrix = [self.n, self.d];
        assert_eq!(
            shapes,
            (matrix, [self.n], matrix, [self.d]),
            "{}",
            self.name
        );
        Got::read(f, l0, dz, d_threshold)
    }

    /// The gradients as a graph gives them, from both outputs.
    fn run_graph(&self, on: &Device, dtype: DType) -> Got {
        let on = Device::from_burn(on.tensor().clone().autodiff());
        let (z, threshold) = self.inputs(&on, dtype);
        let (z, threshold) = (z.detach().require_grad(), threshold.detach().require_grad());
        let (f, l0) = jump_relu(z.clone(), threshold.clone(), self.ste());
        let (g_f, g_l0) = self.grads(&on, dtype);
        let loss = (f.clone() * g_f).sum() + (l0.clone() * g_l0).sum();
        let grads = loss.backward();
        let (dz, d_threshold) = (z.grad(&grads).unwrap(), threshold.grad(&grads).unwrap());
        Got::read(f, l0, dz, d_threshold)
    }

    /// `f`, `l0` and `dz`, which are exact, and the gradient of the threshold as the formula has it.
    fn oracle(&self, eps: f64) -> (Vec<f64>, Vec<f64>, Vec<f64>, Vec<About>) {
        let of = |fill: fn(usize) -> f32, i| f64::from(fill(i));
        let (mut f, mut l0, mut dz) = (vec![], vec![0.0; self.n], vec![]);
        let mut d_threshold = vec![About::default(); self.d];
        for i in 0..self.n * self.d {
            let (row, j) = (i / self.d, i % self.d);
            let (z, theta) = (of(self.z, i), of(self.threshold, j));
            let (g, g_count) = (of(g_f, i), of(g_l0, row));
            let known = !z.is_nan() && !theta.is_nan();
            let pick = |v: f64| match z > theta {
                true => v,
                false if known => 0.0,
                false => f64::NAN,
            };
            f.push(pick(z));
            dz.push(pick(g));
            l0[row] += f64::from(u8::from(z > theta));
            let near = known && (z - theta).abs() < self.bandwidth / 2.0;
            let term = -(theta * g + g_count) / self.bandwidth;
            let size = ((theta * g).abs() + g_count.abs()) / self.bandwidth;
            let about = &mut d_threshold[j];
            if near || !known {
                about.value += if known { term } else { f64::NAN };
                about.tolerance += eps * (self.n + 6) as f64 * size;
            }
            // Rounding may put it on the other side of the window's edge.
            let edge = ((z - theta).abs() - self.bandwidth / 2.0).abs();
            let reach = (z - theta).abs() + self.bandwidth;
            if reach.is_finite() && 0.0 < edge && edge <= eps * reach {
                about.tolerance += size;
            }
        }
        (f, l0, dz, d_threshold)
    }
}

impl Got {
    fn read(f: Tensor<2>, l0: Tensor<1>, dz: Tensor<2>, d_threshold: Tensor<1>) -> Self {
        Self {
            f: numbers(f),
            l0: numbers(l0),
            dz: numbers(dz),
            d_threshold: numbers(d_threshold),
        }
    }
}

fn compare(case: &Jump, got: &Got, eps: f64) -> Result<(), String> {
    let (f, l0, dz, d_threshold) = case.oracle(eps);
    let what = |part: &str| format!("{}, {part}", case.name);
    exact(&what("f"), &got.f, &f)?;
    exact(&what("l0"), &got.l0, &l0)?;
    exact(&what("dz"), &got.dz, &dz)?;
    within(&what("d_threshold"), &got.d_threshold, &d_threshold)
}

#[test]
fn the_cpu_form_of_jump_relu_is_right() {
    for case in cases() {
        let got = case.run(&Device::cpu(), DType::F32);
        compare(&case, &got, eps(DType::F32)).unwrap();
    }
}

/// Other floats than f32 take the tensor-op form.
#[test]
fn the_tensor_op_form_of_jump_relu_is_right() {
    for case in cases() {
        let got = case.run(&Device::cpu(), DType::F64);
        compare(&case, &got, eps(DType::F64)).unwrap();
    }
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn the_shaders_of_jump_relu_are_right() {
    let gpu = gpu();
    for case in cases() {
        compare(&case, &case.run(&gpu, DType::F32), eps(DType::F32)).unwrap();
    }
}

#[test]
fn jump_relu_holds_over_many_rows() {
    let case = jump("over 65,535 rows", 65_537, 3);
    compare(
        &case,
        &case.run(&Device::cpu(), DType::F32),
        eps(DType::F32),
    )
    .unwrap();
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn jump_relu_holds_over_65535_workgroups() {
    let gpu = gpu();
    let rows = jump("over 65,535 rows", 65_537, 3);
    compare(&rows, &rows.run(&gpu, DType::F32), eps(DType::F32)).unwrap();
    let chunks = jump("over 65,535 chunks", 64 * 65_536 + 1, 1);
    let ((z, threshold), (g_f, g_l0)) = (
        chunks.inputs(&gpu, DType::F32),
        chunks.grads(&gpu, DType::F32),
    );
    let (dz, d_threshold) = jump_relu_backward(z, threshold, g_f, g_l0, chunks.ste());
    let (_, _, want_z, want_threshold) = chunks.oracle(eps(DType::F32));
    exact("dz", &numbers(dz), &want_z).unwrap();
    within("d_threshold", &numbers(d_threshold), &want_threshold).unwrap();
}

#[test]
fn a_graph_gives_the_gradients_of_jump_relu() {
    for case in cases().iter().filter(|case| case.n * case.d > 0) {
        for dtype in [DType::F32, DType::F64] {
            let got = case.run_graph(&Device::cpu(), dtype);
            compare(case, &got, eps(dtype)).unwrap();
        }
    }
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn a_graph_gives_the_gradients_of_jump_relu_on_the_gpu() {
    let gpu = gpu();
    for name in ["one element", "odd", "transposed", "negative thresholds"] {
        let case = cases().into_iter().find(|case| case.name == name).unwrap();
        let got = case.run_graph(&gpu, DType::F32);
        compare(&case, &got, eps(DType::F32)).unwrap();
    }
}

/// Each output alone, with and without gradient checkpointing, and a threshold held fixed.
#[test]
fn each_output_of_jump_relu_has_its_own_gradient() {
    let case = jump("odd", 131, 307);
    let cpu = Device::cpu();
    let plain = cpu.tensor().clone().autodiff();
    for on in [plain.clone(), plain.gradient_checkpointing()].map(Device::from_burn) {
        let (z, threshold) = case.inputs(&on, DType::F32);
        let (z, threshold) = (z.require_grad(), threshold.require_grad());
        let (g_f, g_l0) = case.grads(&on, DType::F32);
        let (f, l0) = jump_relu(z.clone(), threshold.clone(), case.ste());

        let of_f = (f * g_f.clone()).sum().backward();
        let of_l0 = (l0 * g_l0.clone()).sum().backward();
        assert!(z.grad(&of_l0).is_none(), "l0 gives z no gradient");

        let backward = |g_f: Tensor<2>, g_l0: Tensor<1>| {
            jump_relu_backward(z.clone(), threshold.clone(), g_f, g_l0, case.ste())
        };
        let (dz, by_f) = backward(g_f.clone(), g_l0.zeros_like());
        let (_, by_l0) = backward(g_f.zeros_like(), g_l0);
        let same = |what, got: Option<Tensor<1>>, want| {
            exact(what, &numbers(got.unwrap()), &numbers(want)).unwrap();
        };
        exact("z", &numbers(z.grad(&of_f).unwrap()), &numbers(dz.clone())).unwrap();
        same("threshold by f", threshold.grad(&of_f), by_f);
        same("threshold by l0", threshold.grad(&of_l0), by_l0);

        let (f, _) = jump_relu(z.clone(), threshold.detach(), case.ste());
        let fixed = (f * g_f).sum().backward();
        exact("z", &numbers(z.grad(&fixed).unwrap()), &numbers(dz)).unwrap();
    }
}

/// The estimator's promise: over a density of pre-activations it is the slope of the mean.
///
/// The `n` values of z lie evenly, `step` apart, on [a, b], each weighted by `c(z) = 1 + z / 2`.
/// `F(θ) = mean f · c` falls by `θ c(θ) / (b − a)` per unit of θ; `C(θ) = mean l0 · c` by
/// `c(θ) / (b − a)`. A central difference over `±h` averages that slope over its 2h; the estimator
/// averages it over its window. The average of a quadratic is off by a sixth of its second derivative
/// (1 at most) times the square of the half-width, and both count whole steps: one too many or few at
/// each side. The sums of the op are in f32, in chunks of 64 rows.
#[test]
fn the_estimator_is_the_slope_of_the_mean() {
    let (n, a, b) = (1 << 16, -2.0, 2.0);
    let (epsilon, h) = (0.05, 0.03);
    let step = (b - a) / n as f64;
    let thresholds = [-0.7f32, 0.013, 0.3, 1.1];
    let d = thresholds.len();
    let z: Vec<f32> = (0..n)
        .map(|i| (a + (i as f64 + 0.5) * step) as f32)
        .collect();
    let weight = |z: f64| 1.0 + z / 2.0;
    let on = Device::cpu();
    let spread = |of: &dyn Fn(usize) -> f32| -> Tensor<2> {
        let values: Vec<f32> = (0..n * d).map(|i| of(i / d)).collect();
        Tensor::from_data(TensorData::new(values, [n, d]), on.tensor())
    };
    let weights: Vec<f32> = z
        .iter()
        .map(|&z| (weight(z.into()) / n as f64) as f32)
        .collect();
    let forward = |shift: f64| {
        let moved = thresholds.map(|t| (f64::from(t) + shift) as f32);
        let threshold = Tensor::<1>::from_floats(moved, on.tensor());
        numbers(jump_relu(spread(&|i| z[i]), threshold, Ste::default()).0)
    };
    let (up, down) = (forward(h), forward(-h));
    let threshold = || Tensor::<1>::from_floats(thresholds, on.tensor());
    let ste = Ste { bandwidth: epsilon };
    let none = Tensor::<1>::zeros([n], on.tensor());
    let g_f = spread(&|i| weights[i]);
    let (_, by_f) = jump_relu_backward(spread(&|i| z[i]), threshold(), g_f, none, ste);
    let g_l0 = Tensor::<1>::from_floats(weights.as_slice(), on.tensor());
    let none = Tensor::zeros([n, d], on.tensor());
    let (_, by_l0) = jump_relu_backward(spread(&|i| z[i]), threshold(), none, g_l0, ste);

    for (j, theta) in thresholds.into_iter().map(f64::from).enumerate() {
        let slope = |of: &dyn Fn(f64, f64) -> f64| {
            let mean = |f: &[f64]| -> f64 {
                let terms = (0..n).map(|i| of(z[i].into(), f[i * d + j]));
                terms.zip(&weights).map(|(v, &w)| v * f64::from(w)).sum()
            };
            (mean(&up) - mean(&down)) / (2.0 * h)
        };
        let counted = 2.0 * (step / epsilon + step / (2.0 * h));
        let rounded = eps(DType::F32) * (64 + n / 64) as f64;
        let curved = (epsilon * epsilon / 4.0 + h * h) / 6.0;
        let bound = |size: f64| ((size + epsilon + h) * (counted + rounded) + curved) / (b - a);
        let check = |what: &str, got: f64, slope: f64, size: f64| {
            let want = -size / (b - a);
            assert!(
                (got - slope).abs() <= bound(size.abs()),
                "{what}, {theta}: {got} for {slope}"
            );
            assert!(
                (slope - want).abs() <= bound(size.abs()),
                "{what}, {theta}: {slope}, {want}"
            );
        };
        let size = theta * weight(theta);
        check("f", numbers(by_f.clone())[j], slope(&|_, f| f), size);
        let counts = slope(&|_, f| f64::from(u8::from(f != 0.0)));
        check("l0", numbers(by_l0.clone())[j], counts, weight(theta));
    }
}

/// Below the threshold nothing of the gradient may come through, not even NaN.
#[test]
fn a_closed_latent_stops_any_gradient() {
    let on = Device::cpu();
    let row = |v: [f32; 3], dtype| Tensor::<2>::from_floats([v], on.tensor()).cast(dtype);
    for dtype in [DType::F32, DType::F64] {
        let threshold = Tensor::<1>::from_floats([0.5; 3], on.tensor()).cast(dtype);
        let g_l0 = Tensor::<1>::zeros([1], on.tensor()).cast(dtype);
        let (z, g) = (
            row([0.0, 9.0, 0.5], dtype),
            row([f32::NAN, 2.0, f32::INFINITY], dtype),
        );
        let ste = Ste { bandwidth: 0.1 };
        let (dz, d_threshold) = jump_relu_backward(z, threshold, g, g_l0, ste);
        exact("dz", &numbers(dz), &[0.0, 2.0, 0.0]).unwrap();
        assert_eq!(numbers(d_threshold), [0.0, 0.0, f64::NEG_INFINITY]);
    }
}

#[test]
fn jump_relu_is_the_same_bits_on_any_number_of_threads() {
    let case = jump("larger", 1000, 1100);
    on_any_number_of_threads(|| {
        let got = case.run(&Device::cpu(), DType::F32);
        (got.f, got.l0, got.dz, got.d_threshold)
    });
}

/// What must show: a value at its threshold let through, a window twice as wide, a row left out, and
/// the share of either output.
#[test]
fn planted_faults_in_jump_relu_are_caught() {
    let on = Device::cpu();
    let case = Jump {
        z: few_values,
        threshold: few_values,
        bandwidth: 2.5,
        ..jump("ties", 80, 90)
    };
    let fails = |wrong: &Jump, says: &str| {
        let text = compare(&case, &wrong.run(&on, DType::F32), eps(DType::F32)).unwrap_err();
        assert!(text.contains(says), "{text}");
    };
    let lower = Jump {
        threshold: |j| few_values(j) - 1e-3,
        ..jump("ties", 80, 90)
    };
    fails(&lower, "f:");
    let wide = Jump {
        z: few_values,
        threshold: few_values,
        bandwidth: 5.0,
        ..jump("ties", 80, 90)
    };
    fails(&wide, "d_threshold");
    let mut got = case.run(&on, DType::F32);
    got.l0[79] += 1.0;
    assert!(
        compare(&case, &got, eps(DType::F32))
            .unwrap_err()
            .contains("l0")
    );

    let (z, threshold) = case.inputs(&on, DType::F32);
    let (g_f, g_l0) = case.grads(&on, DType::F32);
    let rest = g_l0.clone().narrow(0, 0, 79);
    let last = Tensor::cat(vec![rest, Tensor::zeros([1], on.tensor())], 0);
    let (_, _, _, want) = case.oracle(eps(DType::F32));
    for (g_f, g_l0) in [
        (g_f.clone(), last),
        (g_f.clone(), g_l0.zeros_like()),
        (g_f.zeros_like(), g_l0),
    ] {
        let (z, threshold) = (z.clone(), threshold.clone());
        let (_, d_threshold) = jump_relu_backward(z, threshold, g_f, g_l0, case.ste());
        assert!(within("", &numbers(d_threshold), &want).is_err());
    }
}

#[test]
fn what_jump_relu_cannot_take_panics_with_the_shapes() {
    let on = Device::cpu();
    let z = || Tensor::<2>::zeros([2, 3], on.tensor());
    let row = |d: usize| Tensor::<1>::zeros([d], on.tensor());
    let says = |text: String, words: &[&str]| {
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    };
    let short = panic_of(|| jump_relu(z(), row(4), Ste::default()));
    says(short, &["jump_relu", "[2, 3]", "[4]"]);
    let mixed = panic_of(|| jump_relu(z(), row(3).cast(DType::F64), Ste::default()));
    says(mixed, &["jump_relu", "F32", "F64"]);
    for bandwidth in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-31] {
        let text = panic_of(|| jump_relu(z(), row(3), Ste { bandwidth }));
        says(text, &["jump_relu: bandwidth"]);
    }
    let ste = Ste::default();
    let of_f = panic_of(|| jump_relu_backward(z(), row(3), z().transpose(), row(2), ste));
    says(of_f, &["jump_relu_backward", "[2, 3]", "[3, 2]"]);
    let of_l0 = panic_of(|| jump_relu_backward(z(), row(3), z(), row(3), ste));
    says(of_l0, &["jump_relu_backward", "[2, 3]", "g_l0 [3]"]);
}
