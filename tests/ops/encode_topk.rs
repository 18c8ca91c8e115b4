//! The encoder and its top-k against a plain f64 product and a sort. Small whole numbers make every
//! product exact, so that ties are ties on every device and results must agree bit for bit.

use burn::tensor::DType;
use inscape::ops::{Encode, encode_topk};

use super::*;

#[derive(Clone)]
struct Encoder {
    name: &'static str,
    /// n, d, d_sae, k.
    shape: [usize; 4],
    value: fn(usize) -> f32,
    relu: bool,
    b_dec: bool,
    norms: bool,
    /// Whether the matrices are given as transposed views.
    transposed: bool,
}

fn encoder(name: &'static str, shape: [usize; 4]) -> Encoder {
    Encoder {
        name,
        shape,
        value: whole,
        relu: true,
        b_dec: true,
        norms: false,
        transposed: false,
    }
}

/// −2 to 2.
fn whole(i: usize) -> f32 {
    (hash(i) % 5) as f32 - 2.0
}

fn encoders() -> Vec<Encoder> {
    let with = |change: fn(&mut Encoder), mut case: Encoder| {
        change(&mut case);
        case
    };
    let norms = |c: &mut Encoder| c.norms = true;
    let raw = |c: &mut Encoder| (c.relu, c.b_dec) = (false, false);
    vec![
        encoder("one of one", [1, 1, 1, 1]),
        encoder("one row", [1, 5, 40, 3]),
        encoder("all latents", [3, 4, 17, 17]),
        encoder("k = 1", [9, 4, 33, 1]),
        encoder("rows = task", [8, 6, 64, 4]),
        encoder("rows = task + 1", [9, 6, 65, 4]),
        encoder("latents = 15", [7, 6, 15, 4]),
        encoder("latents = 16", [7, 6, 16, 4]),
        with(raw, encoder("no ReLU, no b_dec", [20, 3, 50, 45])),
        with(norms, encoder("norms", [20, 3, 50, 9])),
        with(
            |c| c.transposed = true,
            encoder("transposed", [13, 5, 70, 6]),
        ),
        with(
            |c| c.value = |i| if i == 7 { f32::NAN } else { whole(i) },
            encoder("NaN in one row", [4, 5, 30, 6]),
        ),
    ]
}

/// More latents than a chunk holds, for the device's rows a chunk.
fn chunked() -> Vec<Encoder> {
    vec![
        encoder("a chunk of wgpu's columns and one", [2, 3, 4097, 70]),
        encoder("two chunks of wgpu's columns", [2, 3, 8192, 20]),
    ]
}

fn many_rows() -> Vec<Encoder> {
    vec![
        encoder("a block of rows and one", [1025, 3, 100, 5]),
        encoder("a chunk of columns", [1024, 2, 2048, 40]),
        encoder("a chunk of columns and one", [1025, 2, 2049, 40]),
        encoder("two chunks and some", [1100, 2, 4200, 3]),
    ]
}

/// x, w_enc, b_enc, b_dec, norms as plain numbers.
type Numbers = [Vec<f32>; 5];

impl Encoder {
    fn numbers(&self) -> Numbers {
        let [n, d, d_sae, _] = self.shape;
        let part = |len: usize, from: usize| (from..from + len).map(self.value).collect();
        let norms = (0..d_sae).map(|f| {
            if self.norms {
                [0.5, 1.0, 2.0][f % 3]
            } else {
                1.0
            }
        });
        let b_dec = if self.b_dec {
            (0..d).map(|i| whole(i + 77)).collect()
        } else {
            vec![0.0; d]
        };
        [
            part(n * d, 0),
            (5000..5000 + d_sae * d).map(whole).collect(),
            (900..900 + d_sae).map(whole).collect(),
            b_dec,
            norms.collect(),
        ]
    }

    fn run(&self, device: &Device) -> (Tensor<2>, Tensor<2, Int>) {
        let [n, d, d_sae, k] = self.shape;
        let [x, w, b, b_dec, norms] = self.numbers();
        let wide = |v: Vec<f32>, rows: usize| {
            let plain = Tensor::<2>::from_data(TensorData::new(v, [rows, d]), device.tensor());
            match self.transposed {
                true => plain.transpose().clone().mul_scalar(1.0).transpose(),
                false => plain,
            }
        };
        let long = |v: Vec<f32>| {
            let len = v.len();
            Tensor::<1>::from_data(TensorData::new(v, [len]), device.tensor())
        };
        let encode = Encode {
            k,
            relu: self.relu,
            b_dec: self.b_dec.then(|| long(b_dec)),
            norms: self.norms.then(|| long(norms)),
        };
        encode_topk(wide(x, n), wide(w, d_sae), long(b), &encode)
    }

    /// Values and latents by a stable sort, NaN in front.
    fn oracle(&self) -> (Vec<f32>, Vec<i64>) {
        let [_, d, d_sae, k] = self.shape;
        let [x, w, b, b_dec, norms] = self.numbers();
        let (mut values, mut indices) = (Vec::new(), Vec::new());
        for x in x.chunks(d) {
            let z = |f: usize| -> f64 {
                let product = |j: usize| f64::from(x[j] - b_dec[j]) * f64::from(w[f * d + j]);
                ((0..d).map(product).sum::<f64>() + f64::from(b[f])) * f64::from(norms[f])
            };
            let z: Vec<f64> = (0..d_sae).map(z).collect();
            let mut order: Vec<usize> = (0..d_sae).collect();
            let rank = |f: usize| if z[f].is_nan() { f64::INFINITY } else { z[f] };
            order.sort_by(|&a, &b| rank(b).total_cmp(&rank(a)));
            let shown = |f: &usize| match z[*f] {
                z if self.relu && z < 0.0 => 0.0,
                z => (z + 0.0) as f32,
            };
            values.extend(order[..k].iter().map(shown));
            indices.extend(order[..k].iter().map(|&f| f as i64));
        }
        (values, indices)
    }

    fn compare(&self, device: &Device) -> Result<(), String> {
        let (values, indices) = self.run(device);
        let (want, want_indices) = self.oracle();
        let values: Vec<f32> = block_on(read(values)).unwrap();
        let same = |a: f32, b: f32| a == b || (a.is_nan() && b.is_nan());
        if block_on(read_int(indices)).unwrap() != want_indices {
            return Err(format!("{}: other latents", self.name));
        }
        match values.iter().zip(&want).all(|(&a, &b)| same(a, b)) && values.len() == want.len() {
            true => Ok(()),
            false => Err(format!("{}: other values", self.name)),
        }
    }
}

#[test]
fn the_cpu_form_is_right() {
    for case in encoders().into_iter().chain(chunked()).chain(many_rows()) {
        case.compare(&Device::cpu()).unwrap();
    }
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn the_gpu_form_is_right() {
    let gpu = gpu();
    for case in encoders().into_iter().chain(chunked()) {
        case.compare(&gpu).unwrap();
    }
}

#[test]
fn planted_faults_are_caught() {
    let ties = encoder("ties", [5, 2, 60, 7]);
    let other_k = Encoder {
        shape: [5, 2, 60, 8],
        ..ties.clone()
    };
    let (values, indices) = (ties.oracle(), other_k.oracle());
    assert_ne!(values, indices);
    // An encoder that forgets b_dec, checked against one that does not.
    let forgets = Encoder {
        b_dec: false,
        ..ties.clone()
    };
    let (got, _) = forgets.run(&Device::cpu());
    let got: Vec<f32> = block_on(read(got)).unwrap();
    assert_ne!(got, ties.oracle().0);
    assert!(ties.compare(&Device::cpu()).is_ok());
}

#[test]
fn no_rows_give_no_rows() {
    let cpu = Device::cpu();
    let zeros = |shape| Tensor::<2>::zeros(shape, cpu.tensor());
    let b = Tensor::zeros([9], cpu.tensor());
    let (values, indices) = encode_topk(zeros([0, 4]), zeros([9, 4]), b, &Encode::new(3));
    assert_eq!((values.dims(), indices.dims()), ([0, 3], [0, 3]));
}

#[test]
fn shapes_that_do_not_fit_panic_with_both() {
    let cpu = Device::cpu();
    let run = |dw: usize, b: usize, k: usize| {
        let x = Tensor::<2>::zeros([2, 3], cpu.tensor());
        let (w, b) = (
            Tensor::zeros([5, dw], cpu.tensor()),
            Tensor::zeros([b], cpu.tensor()),
        );
        let panic = std::panic::catch_unwind(|| encode_topk(x, w, b, &Encode::new(k)));
        panic
            .map(|_| ())
            .unwrap_err()
            .downcast_ref::<String>()
            .unwrap()
            .clone()
    };
    assert!(run(4, 5, 2).contains("encode_topk: x [2, 3], w_enc [5, 4], b_enc [5]"));
    assert!(run(3, 6, 2).contains("b_enc [6]"));
    assert!(run(3, 5, 6).contains("encode_topk: k = 6 of x [2, 5]"));
}

// ---- gradients

/// Random numbers without near ties; weights of the loss differ for every value.
struct Gradient {
    shape: [usize; 4],
    /// Values from this place on count: those a plain TopK would not use.
    from: usize,
}

const PARTS: [&str; 5] = ["x", "w_enc", "b_enc", "b_dec", "norms"];

impl Gradient {
    fn numbers(&self) -> [Vec<f64>; 5] {
        let [n, d, d_sae, _] = self.shape;
        let part = |len: usize, from: usize| (from..from + len).map(|i| f64::from(uniform(i)));
        [
            part(n * d, 0).collect(),
            part(d_sae * d, 1000).collect(),
            part(d_sae, 3000).collect(),
            part(d, 4000).collect(),
            part(d_sae, 5000).map(|v| 1.0 + 0.4 * v).collect(),
        ]
    }

    fn weight(&self, i: usize) -> f64 {
        let k = self.shape[3];
        f64::from(u8::from(i % k >= self.from)) * (1.0 + (i % 7) as f64)
    }

    fn loss(&self, [x, w, b, b_dec, norms]: &[Vec<f64>; 5]) -> f64 {
        let [n, d, d_sae, k] = self.shape;
        let of_row = |i: usize| {
            let z = |f: usize| {
                let term = |j: usize| (x[i * d + j] - b_dec[j]) * w[f * d + j];
                ((0..d).map(term).sum::<f64>() + b[f]) * norms[f]
            };
            let mut z: Vec<f64> = (0..d_sae).map(z).collect();
            z.sort_by(|a, b| b.total_cmp(a));
            (0..k)
                .map(|j| self.weight(i * k + j) * z[j].max(0.0))
                .sum::<f64>()
        };
        (0..n).map(of_row).sum()
    }

    fn differences(&self) -> [Vec<f64>; 5] {
        let h = 1e-6;
        let at = |part: usize, i: usize, by: f64| {
            let mut moved = self.numbers();
            moved[part][i] += by;
            self.loss(&moved)
        };
        [0, 1, 2, 3, 4].map(|p| {
            let len = self.numbers()[p].len();
            (0..len)
                .map(|i| (at(p, i, h) - at(p, i, -h)) / (2.0 * h))
                .collect()
        })
    }

    fn ours(&self, device: &Device, dtype: DType) -> [Vec<f64>; 5] {
        let [n, d, d_sae, k] = self.shape;
        let device = Device::from_burn(device.tensor().clone().autodiff());
        let [x, w, b, b_dec, norms] = self.numbers();
        let wide = |v: Vec<f64>, rows: usize| {
            let data = TensorData::new(v, [rows, d]);
            Tensor::<2>::from_data(data, (device.tensor(), dtype)).require_grad()
        };
        let long = |v: Vec<f64>| {
            let len = v.len();
            let data = TensorData::new(v, [len]);
            Tensor::<1>::from_data(data, (device.tensor(), dtype)).require_grad()
        };
        let (x, w, b) = (wide(x, n), wide(w, d_sae), long(b));
        let (b_dec, norms) = (long(b_dec), long(norms));
        let encode = Encode {
            b_dec: Some(b_dec.clone()),
            norms: Some(norms.clone()),
            ..Encode::new(k)
        };
        let (values, _) = encode_topk(x.clone(), w.clone(), b.clone(), &encode);
        let weights: Vec<f64> = (0..n * k).map(|i| self.weight(i)).collect();
        let weights = TensorData::new(weights, [n, k]);
        let weights = Tensor::<2>::from_data(weights, (device.tensor(), dtype));
        let grads = (values * weights).sum().backward();
        [
            block_on(read(x.grad(&grads).unwrap())).unwrap(),
            block_on(read(w.grad(&grads).unwrap())).unwrap(),
            block_on(read(b.grad(&grads).unwrap())).unwrap(),
            block_on(read(b_dec.grad(&grads).unwrap())).unwrap(),
            block_on(read(norms.grad(&grads).unwrap())).unwrap(),
        ]
    }
}

/// Within `tolerance` of the largest gradient of each part.
fn near(got: &[Vec<f64>; 5], want: &[Vec<f64>; 5], tolerance: f64) -> Result<(), String> {
    for ((got, want), name) in got.iter().zip(want).zip(PARTS) {
        assert_eq!(got.len(), want.len(), "{name}");
        let scale = want.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        let off = got.iter().zip(want).map(|(a, b)| (a - b).abs());
        let worst = off.fold(0.0f64, |m, v| if v.is_nan() { v } else { m.max(v) });
        if scale == 0.0 || worst.is_nan() || worst > tolerance * scale {
            return Err(format!("{name}: off by {worst:e} of {scale:e}"));
        }
    }
    Ok(())
}

const GRADIENTS: [Gradient; 2] = [
    Gradient {
        shape: [6, 5, 23, 4],
        from: 0,
    },
    // The surplus of a Multi-TopK, as an auxiliary loss takes it.
    Gradient {
        shape: [7, 4, 31, 12],
        from: 3,
    },
];

#[test]
fn gradients_are_the_finite_differences() {
    for case in &GRADIENTS {
        let want = case.differences();
        near(&case.ours(&Device::cpu(), DType::F64), &want, 1e-8).unwrap();
        let rounding = 64.0 * f64::from(f32::EPSILON);
        near(&case.ours(&Device::cpu(), DType::F32), &want, rounding).unwrap();
        let mut planted = case.ours(&Device::cpu(), DType::F64);
        planted[2][1] += 1e-3;
        assert!(near(&planted, &want, 1e-8).is_err());
    }
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn gradients_are_the_finite_differences_on_the_gpu() {
    let gpu = gpu();
    for case in &GRADIENTS {
        let rounding = 64.0 * f64::from(f32::EPSILON);
        near(&case.ours(&gpu, DType::F32), &case.differences(), rounding).unwrap();
    }
}
