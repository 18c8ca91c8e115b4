//! Steps of Adam on rows, and the squares of their gradients, against f64 that knows its error.

use burn::backend::Flex;
use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use inscape::ops::{
    Adam, AdamRows, ByLatent, LatentSums, Moments, adam_rows, grad_squares, sparse_matmul_t,
};

use super::batch::*;
use super::near::{Near, Rounding, within};
use super::*;

/// Some steps, each on a batch of its own.
#[derive(Clone, Copy)]
struct Steps {
    name: &'static str,
    n: usize,
    k: usize,
    d_sae: usize,
    d: usize,
    count: u64,
    unit: bool,
    lazy: bool,
    decay: f64,
    scale: f32,
    /// The gradient is a matrix `[d_sae, d]`, not sums.
    dense: bool,
    view: View,
}

const RATE: f64 = 0.01;

fn steps(name: &'static str, [n, k, d_sae, d]: [usize; 4]) -> Steps {
    Steps {
        name,
        n,
        k,
        d_sae,
        d,
        count: 10,
        unit: false,
        lazy: false,
        decay: 0.0,
        scale: 1.0,
        dense: false,
        view: View::Plain,
    }
}

/// A workgroup has 128 threads and stages as many entries; of unit rows it keeps 512, 1024, 2048 or
/// 3072 columns. The CPU takes 16 latents at once.
fn cases() -> Vec<Steps> {
    let unit = |case| Steps { unit: true, ..case };
    let view = |view, case| Steps { view, ..case };
    vec![
        steps("plain", [9, 3, 12, 7]),
        unit(steps("unit", [9, 3, 12, 7])),
        steps("rows without entries", [3, 2, 40, 9]),
        unit(steps("unit rows without entries", [3, 2, 40, 9])),
        Steps {
            decay: 0.1,
            ..steps("weight decay", [3, 2, 40, 9])
        },
        Steps {
            scale: 0.25,
            ..steps("scaled", [9, 3, 12, 7])
        },
        Steps {
            lazy: true,
            decay: 0.1,
            ..steps("lazy", [3, 2, 40, 9])
        },
        Steps {
            lazy: true,
            decay: 0.1,
            scale: 0.25,
            ..unit(steps("all at once", [3, 2, 40, 9]))
        },
        Steps {
            dense: true,
            ..steps("a matrix", [17, 1, 17, 33])
        },
        Steps {
            dense: true,
            ..unit(steps("a matrix, unit", [17, 1, 17, 33]))
        },
        steps("one of all", [1, 1, 1, 1]),
        unit(steps("one column", [9, 3, 12, 1])),
        steps("15 latents", [9, 3, 15, 5]),
        steps("16 latents", [9, 3, 16, 5]),
        steps("17 latents", [9, 3, 17, 5]),
        unit(steps("d = workgroup - 1", [3, 2, 3, 127])),
        unit(steps("d = workgroup", [3, 2, 3, 128])),
        unit(steps("d = workgroup + 1", [3, 2, 3, 129])),
        steps("d over two workgroups", [3, 2, 3, 300]),
        unit(steps("d = 512", [3, 2, 2, 512])),
        unit(steps("d = 513", [3, 2, 2, 513])),
        unit(steps("d over all that is kept", [3, 2, 2, 3300])),
        unit(steps("entries = workgroup - 1", [127, 1, 1, 5])),
        unit(steps("entries = workgroup", [128, 1, 1, 5])),
        unit(steps("entries = workgroup + 1", [129, 1, 1, 5])),
        steps("entries over two workgroups", [300, 1, 1, 130]),
        Steps {
            count: 1,
            ..unit(steps("over 65,535 latents", [3, 2, 65_537, 2]))
        },
        view(View::Transposed, unit(steps("transposed", [9, 3, 12, 7]))),
        view(View::Sliced, unit(steps("sliced", [9, 3, 12, 7]))),
    ]
}

impl Steps {
    fn values(&self, t: u64) -> Vec<f32> {
        let all = 0..self.n * self.k;
        match self.dense {
            true => all.map(|_| 1.0).collect(),
            false => all.map(|i| uniform(i + 5000 * t as usize)).collect(),
        }
    }

    fn indices(&self, t: u64) -> Vec<usize> {
        let all = 0..self.n * self.k;
        match self.dense {
            true => all.collect(),
            false => all
                .map(|i| hash(i + 700 * t as usize) as usize % self.d_sae)
                .collect(),
        }
    }

    fn g(&self, t: u64) -> Vec<f32> {
        let g = |i| uniform(i + 90_000 * t as usize + 11);
        (0..self.n * self.d).map(g).collect()
    }

    /// Rows of length 1, as near as f32 has it, if they are to be unit rows.
    fn w(&self) -> Vec<f32> {
        let mut w: Vec<f32> = (0..self.d_sae * self.d).map(|i| uniform(i + 3)).collect();
        for row in w.chunks_mut(self.d).filter(|_| self.unit) {
            let length = row.iter().map(|w| w * w).sum::<f32>().sqrt();
            row.iter_mut().for_each(|w| *w /= length);
        }
        w
    }

    fn rule(&self, t: u64) -> AdamRows {
        AdamRows {
            adam: Adam {
                weight_decay: self.decay,
                ..Adam::default()
            },
            t,
            lr: RATE,
            unit: self.unit,
            lazy: self.lazy,
        }
    }

    fn w_on(&self, on: &Device, dtype: DType) -> Tensor<2> {
        matrix(&self.w(), [self.d_sae, self.d], self.view, on).cast(dtype)
    }

    fn grad(&self, t: u64, on: &Device, dtype: DType) -> LatentSums {
        let g = matrix(&self.g(t), [self.n, self.d], self.view, on).cast(dtype);
        if self.dense {
            return LatentSums::of_matrix(g);
        }
        let indices = self.indices(t).iter().map(|&f| f as i32).collect();
        let indices = TensorData::new(indices, [self.n, self.k]);
        let indices = Tensor::<2, Int>::from_data(indices, (on.tensor(), DType::I32));
        let values = TensorData::new(self.values(t), [self.n * self.k]);
        let values = Tensor::<1>::from_data(values, (on.tensor(), dtype));
        LatentSums::new(values, &ByLatent::of(&indices, self.d_sae), g)
    }

    /// Weight and moments before the first step and after each.
    fn run(&self, on: &Device, dtype: DType) -> Vec<State> {
        let mut w = self.w_on(on, dtype);
        let zeros = || Tensor::zeros([self.d_sae, self.d], (on.tensor(), dtype));
        let (m, v) = (zeros(), zeros());
        let mut moments = Moments { m, v };
        let mut states = vec![state(&w, &moments)];
        for t in 1..=self.count {
            let scale = Tensor::full([1], self.scale, (on.tensor(), dtype));
            let grad = self.grad(t, on, dtype);
            w = adam_rows(w, &mut moments, &grad, scale, &self.rule(t));
            let got = (w.dims(), w.dtype());
            assert_eq!(got, ([self.d_sae, self.d], dtype), "{}", self.name);
            states.push(state(&w, &moments));
        }
        states
    }

    fn squares(&self, on: &Device, dtype: DType) -> Vec<f64> {
        let (grad, w) = (self.grad(1, on, dtype), self.w_on(on, dtype));
        let squares = grad_squares(&grad, self.unit.then_some(&w));
        assert_eq!(squares.dims(), [self.d_sae], "{}", self.name);
        floats(squares)
    }
}

/// Weight and moments.
type State = [Vec<f64>; 3];

fn state(w: &Tensor<2>, moments: &Moments<2>) -> State {
    [w, &moments.m, &moments.v].map(|x| floats(x.clone()))
}

/// What a step should lead to, from the very numbers that the device had before: bounds of more than
/// one step would grow without measure, as gradients next to 0 may take either sign.
struct Oracle {
    rounding: Rounding,
    case: Steps,
    w: Vec<Near>,
    m: Vec<Near>,
    v: Vec<Near>,
}

impl Oracle {
    fn new(case: &Steps, before: &State, rounding: Rounding) -> Self {
        let exact = |x: &Vec<f64>| x.iter().map(|&x| Near { x, off: 0.0 }).collect();
        let [w, m, v] = before;
        Self {
            rounding,
            case: *case,
            w: exact(w),
            m: exact(m),
            v: exact(v),
        }
    }

    /// The entries of every latent in step t: value and row.
    fn entries(&self, t: u64) -> Vec<Vec<(f64, usize)>> {
        let mut entries = vec![vec![]; self.case.d_sae];
        let values = self.case.values(t);
        for (entry, f) in self.case.indices(t).into_iter().enumerate() {
            entries[f].push((f64::from(values[entry]), entry / self.case.k));
        }
        entries
    }

    /// The row of the gradient that counts.
    fn gradient(&self, f: usize, entries: &[(f64, usize)], g: &[f32]) -> Vec<Near> {
        let (r, d) = (self.rounding, self.case.d);
        let column = |c: usize| {
            let term = |&(v, row): &(f64, usize)| r.near(v * f64::from(g[row * d + c]), 0.0);
            r.sum(1, entries.iter().map(term))
        };
        let mut grad: Vec<Near> = (0..d).map(column).collect();
        if self.case.unit && !entries.is_empty() {
            let w = &self.w[f * d..][..d];
            let along = r.dot(&grad, w);
            for (g, &w) in grad.iter_mut().zip(w) {
                *g = r.minus(*g, r.times(along, w));
            }
        }
        grad
    }

    fn step(&mut self, t: u64) {
        let (r, d, g) = (self.rounding, self.case.d, self.case.g(t));
        for (f, entries) in self.entries(t).iter().enumerate() {
            if self.case.lazy && entries.is_empty() {
                continue;
            }
            let grad = self.gradient(f, entries, &g);
            for (c, grad) in grad.into_iter().enumerate() {
                self.move_element(f * d + c, r.scaled(f64::from(self.case.scale), grad), t);
            }
            if self.case.unit {
                let w = &mut self.w[f * d..][..d];
                let length = r.root(r.dot(w, w));
                w.iter_mut().for_each(|w| *w = r.over(*w, length, 1e-12));
            }
        }
    }

    fn move_element(&mut self, i: usize, g: Near, t: u64) {
        let (r, adam) = (self.rounding, self.case.rule(t).adam);
        let power = |beta: f64| 1.0 - beta.powi(t as i32);
        let (b1, b2) = (adam.beta1, adam.beta2);
        let m = r.plus(r.scaled(b1, self.m[i]), r.scaled(1.0 - b1, g));
        let v = r.scaled(1.0 - b2, r.times(g, g));
        let v = r.plus(r.scaled(b2, self.v[i]), v);
        let root = r.root(r.scaled(1.0 / power(b2), v));
        let eps = r.near(adam.eps, 0.0);
        let mut moved = r.over(r.scaled(RATE / power(b1), m), r.plus(root, eps), adam.eps);
        // Whatever a gradient next to 0 is taken for, no step is longer (Kingma & Ba, section 2.1).
        let longest = RATE * (1.0 - b1) / (1.0 - b2).sqrt();
        moved.off = moved.off.min(2.0 * longest);
        let w = r.minus(r.scaled(1.0 - RATE * adam.weight_decay, self.w[i]), moved);
        (self.w[i], self.m[i], self.v[i]) = (w, m, v);
    }
}

fn compare(case: &Steps, states: &[State], rounding: Rounding) -> Result<(), String> {
    for (t, step) in (1..).zip(states.windows(2)) {
        let mut oracle = Oracle::new(case, &step[0], rounding);
        oracle.step(t);
        let want = [oracle.w, oracle.m, oracle.v];
        for ((got, want), name) in step[1].iter().zip(want).zip(["w", "m", "v"]) {
            within(&format!("{}, step {t}: {name}", case.name), got, &want)?;
        }
    }
    Ok(())
}

fn compare_squares(case: &Steps, got: &[f64], rounding: Rounding) -> Result<(), String> {
    let w = case.w().into_iter().map(f64::from).collect();
    let oracle = Oracle::new(case, &[w, vec![], vec![]], rounding);
    let g = case.g(1);
    let square = |(f, entries): (usize, &Vec<_>)| {
        let grad = oracle.gradient(f, entries, &g);
        rounding.dot(&grad, &grad)
    };
    let entries = oracle.entries(1);
    let want: Vec<Near> = entries.iter().enumerate().map(square).collect();
    within(&format!("{}: squares", case.name), got, &want)
}

fn suite(on: &Device, dtype: DType, rounding: Rounding) {
    for case in cases() {
        compare(&case, &case.run(on, dtype), rounding).unwrap();
        compare_squares(&case, &case.squares(on, dtype), rounding).unwrap();
    }
}

#[test]
fn the_cpu_form_is_right() {
    suite(&Device::cpu(), DType::F32, Rounding::F32);
}

#[test]
fn f64_takes_the_reference() {
    suite(&Device::cpu(), DType::F64, Rounding::F64);
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn the_shaders_are_right() {
    suite(&gpu(), DType::F32, Rounding::F32);
}

#[test]
fn squares_are_those_of_the_matrix() {
    let (case, on) = (steps("plain", [9, 3, 12, 7]), Device::cpu());
    let grad = case.grad(1, &on, DType::F64);
    let dense = floats(sparse_matmul_t(&grad));
    let want: Vec<f64> = dense
        .chunks(7)
        .map(|row| row.iter().map(|g| g * g).sum())
        .collect();
    let got = floats(grad_squares(&grad, None));
    let off = |(a, b): (&f64, &f64)| (a - b).abs();
    assert!(got.iter().zip(&want).map(off).all(|off| off < 1e-14));
}

const UNIT: Steps = Steps {
    name: "unit",
    n: 40,
    k: 3,
    d_sae: 35,
    d: 130,
    count: 10,
    unit: true,
    lazy: false,
    decay: 0.1,
    scale: 0.5,
    dense: false,
    view: View::Plain,
};

#[test]
fn the_same_bits_on_any_number_of_threads() {
    let on = Device::cpu();
    let run = || (UNIT.run(&on, DType::F32), UNIT.squares(&on, DType::F32));
    assert!(same_on_any_threads(run));
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn the_shaders_give_the_same_bits_every_time() {
    let on = gpu();
    let run = || (UNIT.run(&on, DType::F32), UNIT.squares(&on, DType::F32));
    assert_eq!(run(), run());
}

/// A wrong rule in place of the right one must show.
#[test]
fn planted_faults_are_caught() {
    let cpu = Device::cpu();
    let plain = Steps {
        n: 3,
        unit: false,
        ..UNIT
    };
    let wrong = [
        Steps {
            lazy: true,
            ..plain
        },
        Steps {
            decay: 0.11,
            ..plain
        },
        Steps {
            scale: 0.501,
            ..plain
        },
        Steps {
            unit: true,
            ..plain
        },
    ];
    let right = plain.run(&cpu, DType::F32);
    compare(&plain, &right, Rounding::F32).unwrap();
    for (i, wrong) in wrong.iter().enumerate() {
        assert!(compare(wrong, &right, Rounding::F32).is_err(), "{i}");
    }
    let late = [&right[..3], &right[4..]].concat();
    assert!(compare(&plain, &late, Rounding::F32).is_err());
    let right = UNIT.run(&cpu, DType::F32);
    compare(&UNIT, &right, Rounding::F32).unwrap();
    for place in [0, 1, 2] {
        let mut off = right.clone();
        let last = &mut off[10][place];
        *last.last_mut().unwrap() *= 1.0 + 1e-3;
        assert!(compare(&UNIT, &off, Rounding::F32).is_err(), "{place}");
    }
    let mut squares = UNIT.squares(&cpu, DType::F32);
    compare_squares(&UNIT, &squares, Rounding::F32).unwrap();
    *squares.last_mut().unwrap() *= 1.0 + 1e-3;
    assert!(compare_squares(&UNIT, &squares, Rounding::F32).is_err());
}

/// Most weights are held to a tenth of a step; the others' gradients are next to 0, and all are
/// where there is one column, along which the row lies.
#[test]
fn the_bounds_are_narrow() {
    let wide = |case: &Steps| case.unit && case.d == 1;
    for case in cases().iter().filter(|case| !wide(case)) {
        let states = case.run(&Device::cpu(), DType::F32);
        for (t, before) in (1..=case.count).zip(&states) {
            let mut oracle = Oracle::new(case, before, Rounding::F32);
            oracle.step(t);
            let narrow = oracle.w.iter().filter(|w| w.off < 0.1 * RATE).count();
            let (name, all) = (case.name, oracle.w.len());
            assert!(narrow * 5 >= all * 4, "{name}, {t}: {narrow} of {all}");
        }
    }
}

/// Where the elements lie.
fn place(x: &Tensor<2>) -> String {
    match x.clone().try_into_primitive::<Flex>() {
        Ok(x) => format!("{:?}", x.as_slice::<f32>().unwrap().as_ptr()),
        Err(_) => {
            let x = x.clone().try_into_primitive::<CubeBackend>().unwrap();
            let id = x.handle.memory.clone().binding().id();
            format!("{id:?} {:?}", x.handle.offset_start)
        }
    }
}

/// One step from moments that are not zero; with clones of all three held, if so asked.
fn one_step(on: &Device, hold: bool) -> (Vec<f64>, [bool; 3]) {
    let number = |by: usize| {
        let values: Vec<f32> = (0..35 * 130).map(|i| uniform(i + by).abs()).collect();
        matrix(&values, [35, 130], View::Plain, on)
    };
    let (w, mut moments) = (
        number(1),
        Moments {
            m: number(2),
            v: number(3),
        },
    );
    let before = [&w, &moments.m, &moments.v].map(place);
    let held = hold.then(|| [w.clone(), moments.m.clone(), moments.v.clone()]);
    let scale = Tensor::ones([1], on.tensor());
    let grad = UNIT.grad(1, on, DType::F32);
    let w = adam_rows(w, &mut moments, &grad, scale, &UNIT.rule(2));
    let after = [&w, &moments.m, &moments.v].map(place);
    let moved = [0, 1, 2].map(|i| before[i] != after[i]);
    for (held, by) in held.into_iter().flatten().zip(1..) {
        assert_eq!(floats(held), floats(number(by)), "a clone has changed");
    }
    let all = [w, moments.m, moments.v];
    (all.into_iter().flat_map(floats).collect(), moved)
}

/// In place where nothing else holds weight and moments; where something does, it does not change.
fn in_place_or_copied(on: &Device) {
    let (alone, moved) = one_step(on, false);
    assert_eq!(moved, [false; 3]);
    let (held, moved) = one_step(on, true);
    assert_eq!(moved, [true; 3]);
    assert_eq!(alone, held);
}

#[test]
fn in_place_or_copied_on_the_cpu() {
    in_place_or_copied(&Device::cpu());
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn in_place_or_copied_on_the_gpu() {
    in_place_or_copied(&gpu());
}

/// Also where weight, gradient and both moments are one and the same tensor.
fn one_tensor_in_many_roles(on: &Device) {
    let values: Vec<f32> = (0..5 * 40).map(|i| uniform(i).abs()).collect();
    let number = || matrix(&values, [5, 40], View::Plain, on);
    let step = |w: Tensor<2>, m, v, g| {
        let (mut moments, one) = (Moments { m, v }, Tensor::ones([1], on.tensor()));
        let grad = LatentSums::of_matrix(g);
        let w = adam_rows(w, &mut moments, &grad, one, &UNIT.rule(3));
        [w, moments.m, moments.v].map(floats)
    };
    let x = number();
    let shared = step(x.clone(), x.clone(), x.clone(), x);
    assert_eq!(shared, step(number(), number(), number(), number()));
}

#[test]
fn one_tensor_in_many_roles_on_the_cpu() {
    one_tensor_in_many_roles(&Device::cpu());
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn one_tensor_in_many_roles_on_the_gpu() {
    one_tensor_in_many_roles(&gpu());
}

fn a_row_of_zeros_stays_one(on: &Device) {
    let zeros = || Tensor::<2>::zeros([3, 5], on.tensor());
    let (mut moments, one) = (Moments::zeros(&zeros()), Tensor::ones([1], on.tensor()));
    let grad = LatentSums::of_matrix(zeros());
    let w = adam_rows(zeros(), &mut moments, &grad, one, &UNIT.rule(1));
    assert_eq!(floats(w), [0.0; 15]);
}

#[test]
fn a_row_of_zeros_stays_one_on_the_cpu() {
    a_row_of_zeros_stays_one(&Device::cpu());
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn a_row_of_zeros_stays_one_on_the_gpu() {
    a_row_of_zeros_stays_one(&gpu());
}

#[test]
fn wrong_shapes_panic_with_the_op_and_both() {
    let on = Device::cpu();
    let x = |rows| Tensor::<2>::ones([rows, 4], on.tensor());
    let (mut moments, one) = (Moments::zeros(&x(3)), Tensor::ones([1], on.tensor()));
    let grad = LatentSums::of_matrix(x(3));
    let text = panic_of(|| adam_rows(x(2), &mut moments, &grad, one, &UNIT.rule(1)));
    let says = |what| text.contains(what);
    assert!(
        says("adam_rows") && says("[2, 4]") && says("[3, 4]"),
        "{text}"
    );
    let text = panic_of(|| grad_squares(&grad, Some(&x(2))));
    let says = |what| text.contains(what);
    assert!(
        says("grad_squares") && says("[2, 4]") && says("[3, 4]"),
        "{text}"
    );
}
