//! The gated activation against plain f64 loops and finite differences.

use burn::tensor::DType;
use inscape::ops::{gated, gated_backward};

use super::rows::{About, eps, exact, matrix, numbers, on_any_number_of_threads, panic_of};
use super::rows::{vector, within};
use super::*;

type Fill = fn(usize) -> f32;

struct Gated {
    name: &'static str,
    n: usize,
    d: usize,
    z: Fill,
    /// `r_mag`, `b_gate`, `b_mag`.
    vectors: [Fill; 3],
    view: View,
}

/// What the op gives; the gradients are those of `Σ f · g_f + Σ gate · g_gate`.
#[derive(Clone, PartialEq)]
struct Got {
    f: Vec<f64>,
    gate: Vec<f64>,
    l0: Vec<f64>,
    dz: Vec<f64>,
    /// Of `r_mag`, `b_gate`, `b_mag`.
    d_vectors: [Vec<f64>; 3],
}

/// What the op should give.
struct Want {
    f: Vec<About>,
    gate: Vec<About>,
    l0: Vec<About>,
    dz: Vec<About>,
    d_vectors: [Vec<About>; 3],
}

const VECTORS: [Fill; 3] = [
    |j| 0.7 * uniform(j + 111),
    |j| 0.4 * uniform(j + 2_222),
    |j| 0.4 * uniform(j + 33_333),
];

fn gate(name: &'static str, n: usize, d: usize) -> Gated {
    Gated {
        name,
        n,
        d,
        z: uniform,
        vectors: VECTORS,
        view: View::Plain,
    }
}

/// The hard sizes: workgroups of 256, chunks of 64 rows, blocks of 1,024 columns on the CPU.
fn cases() -> Vec<Gated> {
    let mut all: Vec<Gated> = [
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
    .map(|(name, n, d)| gate(name, n, d))
    .into();
    all.extend([
        Gated {
            view: View::Transposed,
            ..gate("transposed", 67, 130)
        },
        Gated {
            view: View::Sliced,
            ..gate("sliced", 67, 130)
        },
        Gated {
            vectors: [|_| 0.0, few_values, few_values],
            z: few_values,
            ..gate("ties at both steps", 80, 90)
        },
        Gated {
            vectors: [|_| 0.0; 3],
            ..gate("ReLU", 40, 90)
        },
        Gated {
            vectors: [VECTORS[0], |_| 9.0, VECTORS[2]],
            ..gate("every gate open", 40, 90)
        },
        Gated {
            vectors: [VECTORS[0], |_| -9.0, VECTORS[2]],
            ..gate("every gate shut", 40, 90)
        },
        Gated {
            vectors: [VECTORS[0], VECTORS[1], |_| -9.0],
            ..gate("no magnitude", 40, 90)
        },
        Gated {
            vectors: [|_| 0.0, zeros, zeros],
            z: zeros,
            ..gate("both zeros", 9, 40)
        },
        Gated {
            z: special,
            ..gate("NaN, inf, zeros", 66, 128)
        },
        Gated {
            vectors: [VECTORS[0], special, VECTORS[2]],
            ..gate("NaN, inf, zeros in the gate", 66, 128)
        },
        Gated {
            vectors: [VECTORS[0], VECTORS[1], special],
            ..gate("NaN, inf, zeros in the magnitude", 66, 128)
        },
        Gated {
            vectors: [special, VECTORS[1], VECTORS[2]],
            ..gate("NaN, inf, zeros in the scale", 66, 128)
        },
    ]);
    all
}

fn g_f(i: usize) -> f32 {
    uniform(i + 31_337)
}

fn g_gate(i: usize) -> f32 {
    uniform(i + 2_718_281)
}

impl Gated {
    fn inputs(&self, on: &Device, dtype: DType) -> (Tensor<2>, [Tensor<1>; 3]) {
        let z = matrix([self.n, self.d], self.view, self.z, on, dtype);
        let vector = |fill| vector(self.d, self.view, fill, on, dtype);
        (z, self.vectors.map(vector))
    }

    fn grads(&self, on: &Device, dtype: DType) -> [Tensor<2>; 2] {
        [g_f, g_gate].map(|fill| matrix([self.n, self.d], self.view, fill, on, dtype))
    }

    fn run(&self, on: &Device, dtype: DType) -> Got {
        let (z, [r_mag, b_gate, b_mag]) = self.inputs(on, dtype);
        let outputs = gated(z.clone(), r_mag.clone(), b_gate.clone(), b_mag.clone());
        let [g_f, g_gate] = self.grads(on, dtype);
        let (dz, r_mag, b_gate, b_mag) = gated_backward(z, r_mag, b_gate, b_mag, g_f, g_gate);
        self.read(outputs, dz, [r_mag, b_gate, b_mag])
    }

    /// The gradients as a graph gives them, from both outputs.
    fn run_graph(&self, on: &Device, dtype: DType) -> Got {
        let on = Device::from_burn(on.tensor().clone().autodiff());
        let (z, vectors) = self.inputs(&on, dtype);
        let z = z.detach().require_grad();
        let vectors = vectors.map(|v| v.detach().require_grad());
        let [r_mag, b_gate, b_mag] = vectors.clone();
        let (f, gate, l0) = gated(z.clone(), r_mag, b_gate, b_mag);
        let [g_f, g_gate] = self.grads(&on, dtype);
        let grads = ((f.clone() * g_f).sum() + (gate.clone() * g_gate).sum()).backward();
        let d_vectors = vectors.map(|v| v.grad(&grads).unwrap());
        self.read((f, gate, l0), z.grad(&grads).unwrap(), d_vectors)
    }

    fn read(
        &self,
        (f, gate, l0): (Tensor<2>, Tensor<2>, Tensor<1>),
        dz: Tensor<2>,
        d_vectors: [Tensor<1>; 3],
    ) -> Got {
        for x in [&f, &gate, &dz] {
            assert_eq!(x.dims(), [self.n, self.d], "{}", self.name);
        }
        assert!(l0.dims() == [self.n] && d_vectors.iter().all(|v| v.dims() == [self.d]));
        Got {
            f: numbers(f),
            gate: numbers(gate),
            l0: numbers(l0),
            dz: numbers(dz),
            d_vectors: d_vectors.map(numbers),
        }
    }

    fn numbers(&self) -> Numbers {
        let of = |fill: Fill, length: usize| (0..length).map(|i| fill(i).into()).collect();
        Numbers {
            z: of(self.z, self.n * self.d),
            vectors: self.vectors.map(|fill| of(fill, self.d)),
        }
    }

    fn oracle(&self, eps: f64) -> Want {
        let (matrix, row) = (self.n * self.d, vec![About::default(); self.d]);
        let mut want = Want {
            f: Vec::with_capacity(matrix),
            gate: Vec::with_capacity(matrix),
            l0: vec![About::default(); self.n],
            dz: Vec::with_capacity(matrix),
            d_vectors: [row.clone(), row.clone(), row],
        };
        let numbers = self.numbers();
        for i in 0..matrix {
            want.add(&numbers.element(i), i, [self.n, self.d], eps);
        }
        want
    }
}

/// The inputs of a case in f64.
#[derive(Clone)]
struct Numbers {
    z: Vec<f64>,
    vectors: [Vec<f64>; 3],
}

/// One element: `z`, `exp(r_mag)`, π, the magnitude and the sum of the sizes of its terms.
struct Element {
    z: f64,
    scale: f64,
    pi: f64,
    magnitude: f64,
    size: f64,
}

impl Numbers {
    fn element(&self, i: usize) -> Element {
        let [r_mag, b_gate, b_mag] = &self.vectors;
        let (z, j) = (self.z[i], i % r_mag.len());
        let scale = r_mag[j].exp();
        Element {
            z,
            scale,
            pi: z + b_gate[j],
            magnitude: z * scale + b_mag[j],
            size: (z * scale).abs() + b_mag[j].abs(),
        }
    }

    /// `Σ f · g_f + Σ gate · g_gate`.
    fn objective(&self) -> f64 {
        let terms = (0..self.z.len()).map(|i| {
            let Element { pi, magnitude, .. } = self.element(i);
            let f = if pi > 0.0 { magnitude.max(0.0) } else { 0.0 };
            f * f64::from(g_f(i)) + pi.max(0.0) * f64::from(g_gate(i))
        });
        terms.sum()
    }
}

/// Roundings in a magnitude: of `exp`, which WGSL lets be off by 3 + 2 |r| of them, of its product
/// and of the sum.
const ROUNDINGS: f64 = 8.0;

impl Element {
    fn pick(&self, nan: bool, keep: bool, v: f64) -> f64 {
        match (nan, keep) {
            (true, _) => f64::NAN,
            (_, true) => v,
            _ => 0.0,
        }
    }

    fn f(&self, v: f64) -> f64 {
        let nan = self.pi.is_nan() || self.magnitude.is_nan();
        self.pick(nan, self.pi > 0.0 && self.magnitude > 0.0, v)
    }

    fn gate(&self, v: f64) -> f64 {
        self.pick(self.pi.is_nan(), self.pi > 0.0, v)
    }

    /// Whether rounding may put the magnitude on the other side of 0.
    fn on_the_edge(&self, eps: f64) -> bool {
        let reach = ROUNDINGS * eps * self.size;
        reach.is_finite() && self.magnitude != 0.0 && self.magnitude.abs() <= reach
    }
}

impl About {
    /// Beside something infinite nothing is rounded: what is there is 0, infinite or NaN.
    fn add(&mut self, term: f64, tolerance: f64) {
        self.value += term;
        if tolerance.is_finite() {
            self.tolerance += tolerance;
        }
    }
}

impl Want {
    fn add(&mut self, x: &Element, i: usize, [n, d]: [usize; 2], eps: f64) {
        let (row, j) = (i / d, i % d);
        let (g, g_gate) = (f64::from(g_f(i)), f64::from(g_gate(i)));
        let loose = if x.on_the_edge(eps) { 1.0 } else { 0.0 };
        let about = |value: f64, tolerance: f64| {
            let mut sum = About::default();
            sum.add(value, tolerance);
            sum
        };

        let rounding = ROUNDINGS * eps;
        self.f.push(about(x.f(x.magnitude), rounding * x.size));
        self.gate.push(about(x.gate(x.pi), eps * x.pi.abs()));
        self.l0[row].add((x.f(1.0) > 0.0).into(), loose);

        let size = (g * x.scale).abs() + g_gate.abs();
        let slack = rounding * size + loose * (g * x.scale).abs();
        self.dz
            .push(about(x.f(g * x.scale) + x.gate(g_gate), slack));

        let terms = [x.f(g * x.z * x.scale), x.gate(g_gate), x.f(g)];
        let sizes = [g * x.z * x.scale, g_gate, g].map(f64::abs);
        for (sum, (term, size)) in self.d_vectors.iter_mut().zip(terms.into_iter().zip(sizes)) {
            sum[j].add(term, eps * (n as f64 + ROUNDINGS) * size + loose * size);
        }
    }
}

fn compare(case: &Gated, got: &Got, eps: f64) -> Result<(), String> {
    let want = case.oracle(eps);
    let what = |part: &str| format!("{}, {part}", case.name);
    within(&what("f"), &got.f, &want.f)?;
    within(&what("gate"), &got.gate, &want.gate)?;
    within(&what("l0"), &got.l0, &want.l0)?;
    within(&what("dz"), &got.dz, &want.dz)?;
    let names = ["r_mag", "b_gate", "b_mag"].into_iter();
    for (name, (got, want)) in names.zip(got.d_vectors.iter().zip(&want.d_vectors)) {
        within(&what(name), got, want)?;
    }
    Ok(())
}

#[test]
fn the_cpu_form_of_gated_is_right() {
    for case in cases() {
        let got = case.run(&Device::cpu(), DType::F32);
        compare(&case, &got, eps(DType::F32)).unwrap();
    }
}

/// Other floats than f32 take the tensor-op form.
#[test]
fn the_tensor_op_form_of_gated_is_right() {
    for case in cases() {
        let got = case.run(&Device::cpu(), DType::F64);
        compare(&case, &got, eps(DType::F64)).unwrap();
    }
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn the_shaders_of_gated_are_right() {
    let gpu = gpu();
    for case in cases() {
        compare(&case, &case.run(&gpu, DType::F32), eps(DType::F32)).unwrap();
    }
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn gated_holds_over_65535_workgroups() {
    let gpu = gpu();
    let rows = gate("over 65,535 rows", 65_537, 3);
    compare(&rows, &rows.run(&gpu, DType::F32), eps(DType::F32)).unwrap();
    let chunks = gate("over 65,535 chunks", 64 * 65_536 + 1, 1);
    let (z, [r_mag, b_gate, b_mag]) = chunks.inputs(&gpu, DType::F32);
    let [g_f, g_gate] = chunks.grads(&gpu, DType::F32);
    let (dz, r_mag, ..) = gated_backward(z, r_mag, b_gate, b_mag, g_f, g_gate);
    let want = chunks.oracle(eps(DType::F32));
    within("dz", &numbers(dz), &want.dz).unwrap();
    within("r_mag", &numbers(r_mag), &want.d_vectors[0]).unwrap();
}

#[test]
fn a_graph_gives_the_gradients_of_gated() {
    for case in cases().iter().filter(|case| case.n * case.d > 0) {
        for dtype in [DType::F32, DType::F64] {
            let got = case.run_graph(&Device::cpu(), dtype);
            compare(case, &got, eps(dtype)).unwrap();
        }
    }
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn a_graph_gives_the_gradients_of_gated_on_the_gpu() {
    let gpu = gpu();
    for name in ["one element", "odd", "transposed", "every gate open"] {
        let case = cases().into_iter().find(|case| case.name == name).unwrap();
        let got = case.run_graph(&gpu, DType::F32);
        compare(&case, &got, eps(DType::F32)).unwrap();
    }
}

/// Each output alone: no gradient reaches what the other one depends on, and none the step.
#[test]
fn each_output_of_gated_has_its_own_gradient() {
    let case = gate("odd", 131, 307);
    let plain = Device::cpu().tensor().clone().autodiff();
    for on in [plain.clone(), plain.gradient_checkpointing()].map(Device::from_burn) {
        let (z, vectors) = case.inputs(&on, DType::F32);
        let (z, vectors) = (z.require_grad(), vectors.map(Tensor::require_grad));
        let [r_mag, b_gate, b_mag] = vectors.clone();
        let (f, gate, l0) = gated(z.clone(), r_mag, b_gate, b_mag);
        assert!(!l0.is_require_grad());
        let [g_f, g_gate] = case.grads(&on, DType::F32);
        let of_f = (f * g_f.clone()).sum().backward();
        let of_gate = (gate * g_gate.clone()).sum().backward();

        let [r_mag, b_gate, b_mag] = &vectors;
        assert!(b_gate.grad(&of_f).is_none());
        assert!(r_mag.grad(&of_gate).is_none() && b_mag.grad(&of_gate).is_none());

        let alone = |g_f: Tensor<2>, g_gate: Tensor<2>| {
            let [r_mag, b_gate, b_mag] = vectors.clone();
            gated_backward(z.clone(), r_mag, b_gate, b_mag, g_f, g_gate)
        };
        let (by_f, d_r_mag, _, d_b_mag) = alone(g_f.clone(), g_f.zeros_like());
        let (by_gate, _, d_b_gate, _) = alone(g_f.zeros_like(), g_gate);
        for (x, grads, want) in [
            (r_mag, &of_f, d_r_mag),
            (b_mag, &of_f, d_b_mag),
            (b_gate, &of_gate, d_b_gate),
        ] {
            let got = numbers(x.grad(grads).unwrap());
            assert_eq!(got, numbers(want));
        }
        assert_eq!(numbers(z.grad(&of_f).unwrap()), numbers(by_f));
        assert_eq!(numbers(z.grad(&of_gate).unwrap()), numbers(by_gate));
    }
}

/// Inputs at least 0.05 away from either step.
fn away_from_the_steps(n: usize, d: usize) -> Numbers {
    let mut numbers = gate("", n, d).numbers();
    for i in 0..n * d {
        let mut draw = (0..).map(|t| f64::from(2.0 * uniform(i + 1_000 * t)));
        while {
            let Element { pi, magnitude, .. } = numbers.element(i);
            pi.abs() < 0.05 || magnitude.abs() < 0.05
        } {
            numbers.z[i] = draw.next().unwrap();
        }
    }
    numbers
}

/// A central difference of step h is off by `h² / 6` times the third derivative, which only `exp`
/// has, and by the rounding of the objective over h.
#[test]
fn finite_differences_give_the_gradients_of_gated() {
    let (n, d, h) = (7, 9, 1e-5);
    let inputs = away_from_the_steps(n, d);
    let on = Device::cpu();
    let f64s = |values: &[f64]| {
        let data = TensorData::new(values.to_vec(), [values.len()]);
        Tensor::<1>::from_data(data, (on.tensor(), DType::F64))
    };
    let difference = |change: &dyn Fn(&mut Numbers) -> &mut f64| {
        let at = |step: f64| {
            let mut moved = inputs.clone();
            *change(&mut moved) += step;
            moved.objective()
        };
        (at(h) - at(-h)) / (2.0 * h)
    };
    let sizes = (0..n * d).map(|i| inputs.element(i).size + 1.0);
    let size: f64 = sizes.sum();
    let tolerance = h * h * size + 4.0 * f64::EPSILON / h * size;
    let about = |value| About { value, tolerance };
    let want_z: Vec<About> = (0..n * d)
        .map(|i| about(difference(&|x| &mut x.z[i])))
        .collect();
    let want_vectors = [0, 1, 2].map(|v| {
        let of = |j| about(difference(&|x| &mut x.vectors[v][j]));
        (0..d).map(of).collect::<Vec<About>>()
    });
    let weights = |fill: Fill| -> Vec<f64> { (0..n * d).map(|i| fill(i).into()).collect() };
    let rows = |x: &[f64]| f64s(x).reshape([n, d]);
    for (dtype, rounding) in [(DType::F64, 0.0), (DType::F32, eps(DType::F32) * 20.0)] {
        let [r_mag, b_gate, b_mag] = inputs.vectors.each_ref().map(|v| f64s(v).cast(dtype));
        let z = rows(&inputs.z).cast(dtype);
        let [g_f, g_gate] = [g_f, g_gate].map(|g| rows(&weights(g)).cast(dtype));
        let (dz, r_mag, b_gate, b_mag) = gated_backward(z, r_mag, b_gate, b_mag, g_f, g_gate);
        let looser = |want: &[About]| -> Vec<About> {
            let wider = |w: &About| About {
                tolerance: w.tolerance + rounding * size,
                ..*w
            };
            want.iter().map(wider).collect()
        };
        within("dz", &numbers(dz), &looser(&want_z)).unwrap();
        for (got, want) in [r_mag, b_gate, b_mag].into_iter().zip(&want_vectors) {
            within("vectors", &numbers(got), &looser(want)).unwrap();
        }
    }
}

/// Behind a shut gate nothing of the gradient may come through, not even NaN.
#[test]
fn a_shut_gate_stops_any_gradient() {
    let on = Device::cpu();
    for dtype in [DType::F32, DType::F64] {
        let row = |v: [f32; 3]| Tensor::<2>::from_floats([v], on.tensor()).cast(dtype);
        let flat = |v: [f32; 3]| Tensor::<1>::from_floats(v, on.tensor()).cast(dtype);
        let z = row([-1.0, f32::NEG_INFINITY, 2.0]);
        let zeros = || flat([0.0; 3]);
        let g = || row([f32::NAN, 1.0, 0.5]);
        let (dz, r_mag, b_gate, b_mag) = gated_backward(z, zeros(), zeros(), zeros(), g(), g());
        exact("dz", &numbers(dz), &[0.0, 0.0, 1.0]).unwrap();
        assert_eq!(numbers(r_mag), [0.0, 0.0, 1.0]);
        assert_eq!(numbers(b_gate), [0.0, 0.0, 0.5]);
        assert_eq!(numbers(b_mag), [0.0, 0.0, 0.5]);
    }
}

#[test]
fn gated_is_the_same_bits_on_any_number_of_threads() {
    let case = gate("larger", 1000, 1100);
    on_any_number_of_threads(|| case.run(&Device::cpu(), DType::F32));
}

/// What must show: biases exchanged, the scale without its exponential, a row left out, and the
/// gradient of the wrong output.
#[test]
fn planted_faults_in_gated_are_caught() {
    let on = Device::cpu();
    let case = gate("odd", 131, 307);
    let eps = eps(DType::F32);
    let [r_mag, b_gate, b_mag] = VECTORS;
    let fails = |vectors: [Fill; 3]| {
        let wrong = Gated {
            vectors,
            ..gate("odd", 131, 307)
        };
        let got = wrong.run(&on, DType::F32);
        assert!(compare(&case, &got, eps).is_err());
    };
    fails([r_mag, b_mag, b_gate]);
    fails([|j| VECTORS[0](j).exp(), b_gate, b_mag]);

    let good = case.run(&on, DType::F32);
    compare(&case, &good, eps).unwrap();
    let mut count = good.clone();
    count.l0[130] += 1.0;
    assert!(compare(&case, &count, eps).unwrap_err().contains("l0"));
    let mut value = good.clone();
    let last = value.f.iter().rposition(|&f| f > 0.1).unwrap();
    value.f[last] *= 1.0 + 1e-5;
    assert!(compare(&case, &value, eps).unwrap_err().contains("f:"));

    let (z, [r_mag, b_gate, b_mag]) = case.inputs(&on, DType::F32);
    let [g_f, g_gate] = case.grads(&on, DType::F32);
    let (dz, r_mag, b_gate, b_mag) = gated_backward(z, r_mag, b_gate, b_mag, g_gate, g_f);
    let swapped = Got {
        dz: numbers(dz),
        d_vectors: [r_mag, b_gate, b_mag].map(numbers),
        ..good
    };
    assert!(compare(&case, &swapped, eps).unwrap_err().contains("dz"));
}

#[test]
fn what_gated_cannot_take_panics_with_the_shapes() {
    let on = Device::cpu();
    let z = || Tensor::<2>::zeros([2, 3], on.tensor());
    let row = |d: usize| Tensor::<1>::zeros([d], on.tensor());
    let says = |text: String, words: &[&str]| {
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    };
    let short = panic_of(|| gated(z(), row(3), row(4), row(3)));
    says(short, &["gated: ", "[2, 3]", "b_gate [4]"]);
    let mixed = panic_of(|| gated(z(), row(3), row(3), row(3).cast(DType::F64)));
    says(mixed, &["gated: ", "F32", "b_mag [3] of F64"]);
    let across = || gated_backward(z(), row(3), row(3), row(3), z(), z().transpose());
    says(
        panic_of(across),
        &["gated_backward", "[2, 3]", "g_gate [3, 2]"],
    );
}
