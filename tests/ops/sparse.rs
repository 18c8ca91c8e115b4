//! The products with k-sparse rows against plain f64 loops.

use burn::tensor::DType;
use inscape::ops::{sparse_decode, sparse_dot, sparse_matmul_t};

use super::*;

/// `n` rows of k entries, over `latents` rows of `d` columns.
struct Sparse {
    name: &'static str,
    n: usize,
    k: usize,
    latents: usize,
    d: usize,
    value: fn(usize) -> f32,
    index: fn(usize, usize) -> usize,
    /// Whether the matrices are given as transposed views.
    transposed: bool,
}

/// One op of the three.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Which {
    Decode,
    Dot,
    MatmulT,
}

const ALL: [Which; 3] = [Which::Decode, Which::Dot, Which::MatmulT];

fn sparse(name: &'static str, [n, k, latents, d]: [usize; 4]) -> Sparse {
    Sparse {
        name,
        n,
        k,
        latents,
        d,
        value: uniform,
        index: |i, latents| hash(i ^ 0x5555) as usize % latents,
        transposed: false,
    }
}

fn sparse_cases() -> Vec<Sparse> {
    vec![
        sparse("one of all", [1, 1, 1, 1]),
        sparse("one latent, many entries", [5, 9, 1, 4]),
        sparse("one row", [1, 7, 30, 33]),
        sparse("one entry a row", [37, 1, 50, 24]),
        sparse("one column", [37, 5, 50, 1]),
        sparse("d = 15", [9, 4, 20, 15]),
        sparse("d = 16", [9, 4, 20, 16]),
        sparse("d = 17", [9, 4, 20, 17]),
        sparse("d = 31", [3, 3, 20, 31]),
        sparse("odd", [129, 11, 257, 67]),
        sparse("more latents than entries", [3, 2, 1000, 19]),
        sparse("every latent in every row", [5, 40, 7, 20]),
        sparse("larger", [300, 32, 2000, 130]),
        Sparse {
            index: |_, latents| latents - 1,
            ..sparse("the last latent only", [20, 6, 9, 18])
        },
        Sparse {
            index: |i, latents| i / 2 % latents,
            ..sparse("each index twice in its row", [30, 8, 50, 21])
        },
        Sparse {
            value: |i| if i.is_multiple_of(3) { uniform(i) } else { 0.0 },
            ..sparse("zeros among the values", [40, 9, 60, 35])
        },
        Sparse {
            value: |_| 0.0,
            ..sparse("nothing but zeros", [8, 4, 12, 16])
        },
        Sparse {
            value: zeros,
            index: |_, _| 0,
            ..sparse("both zeros", [8, 4, 12, 16])
        },
        Sparse {
            transposed: true,
            ..sparse("transposed", [37, 6, 90, 45])
        },
        sparse("no rows", [0, 4, 12, 16]),
        sparse("no entries", [6, 0, 12, 16]),
        sparse("no columns", [6, 3, 12, 0]),
    ]
}

impl Sparse {
    fn values(&self) -> Vec<f32> {
        (0..self.n * self.k).map(self.value).collect()
    }

    fn indices(&self) -> Vec<i64> {
        let index = |i| (self.index)(i, self.latents) as i64;
        (0..self.n * self.k).map(index).collect()
    }

    fn g(&self) -> Vec<f32> {
        (0..self.n * self.d).map(|i| uniform(i + 10_000)).collect()
    }

    fn w(&self) -> Vec<f32> {
        (0..self.latents * self.d)
            .map(|i| uniform(i + 999_999))
            .collect()
    }

    /// The result and, for each of its elements, the sum of the absolute terms.
    fn oracle(&self, which: Which) -> (Vec<f64>, Vec<f64>) {
        let (values, indices, g, w) = (self.values(), self.indices(), self.g(), self.w());
        let (k, d) = (self.k, self.d);
        let len = match which {
            Which::Decode => self.n * d,
            Which::Dot => self.n * k,
            Which::MatmulT => self.latents * d,
        };
        let (mut sum, mut size) = (vec![0f64; len], vec![0f64; len]);
        for entry in 0..self.n * k {
            let (row, f) = (entry / k, indices[entry] as usize);
            for c in 0..d {
                let (out, a, b) = match which {
                    Which::Decode => (row * d + c, values[entry], w[f * d + c]),
                    Which::Dot => (entry, g[row * d + c], w[f * d + c]),
                    Which::MatmulT => (f * d + c, values[entry], g[row * d + c]),
                };
                let term = f64::from(a) * f64::from(b);
                sum[out] += term;
                size[out] += term.abs();
            }
        }
        (sum, size)
    }

    /// Terms in a sum, at most: entries of a row, columns, entries of a latent.
    fn terms(&self, which: Which) -> usize {
        match which {
            Which::Decode => self.k,
            Which::Dot => self.d,
            Which::MatmulT => self.n * self.k,
        }
    }

    fn matrix(&self, values: Vec<f32>, [rows, columns]: [usize; 2], on: &Device) -> Tensor<2> {
        if !self.transposed {
            return Tensor::from_data(TensorData::new(values, [rows, columns]), on.tensor());
        }
        let across: Vec<f32> = (0..rows * columns)
            .map(|i| values[i % rows * columns + i / rows])
            .collect();
        Tensor::<2>::from_data(TensorData::new(across, [columns, rows]), on.tensor()).transpose()
    }

    fn index_tensor(&self, on: &Device, dtype: DType) -> Tensor<2, Int> {
        let (rows, columns) = (self.n, self.k);
        let data = TensorData::new(self.indices(), [rows, columns]);
        if !self.transposed {
            return Tensor::from_data(data, (on.tensor(), dtype));
        }
        let across: Vec<i64> = (0..rows * columns)
            .map(|i| self.indices()[i % rows * columns + i / rows])
            .collect();
        let data = TensorData::new(across, [columns, rows]);
        Tensor::<2, Int>::from_data(data, (on.tensor(), dtype)).transpose()
    }

    fn run(&self, which: Which, on: &Device, dtype: DType, index: DType) -> Vec<f64> {
        let (n, k, f, d) = (self.n, self.k, self.latents, self.d);
        let values = self.matrix(self.values(), [n, k], on).cast(dtype);
        let g = self.matrix(self.g(), [n, d], on).cast(dtype);
        let w = self.matrix(self.w(), [f, d], on).cast(dtype);
        let indices = self.index_tensor(on, index);
        let (result, want) = match which {
            Which::Decode => (sparse_decode(values, indices, w), [n, d]),
            Which::Dot => (sparse_dot(g, w, indices), [n, k]),
            Which::MatmulT => (sparse_matmul_t(values, indices, g, f), [f, d]),
        };
        assert_eq!(
            (result.dims(), result.dtype()),
            (want, dtype),
            "{}",
            self.name
        );
        block_on(read(result)).unwrap()
    }
}

/// Every element within `c · eps · terms` of the sum of its absolute terms.
fn close(case: &Sparse, which: Which, got: &[f64], eps: f64) -> Result<(), String> {
    let (sum, size) = case.oracle(which);
    assert_eq!(got.len(), sum.len(), "{}", case.name);
    for (i, ((got, sum), size)) in got.iter().zip(sum).zip(size).enumerate() {
        let tolerance = eps * (case.terms(which) + 1) as f64 * size;
        let off = (got - sum).abs();
        if off.is_nan() || off > tolerance {
            let name = case.name;
            return Err(format!("{which:?}, {name}: {got} for {sum} at element {i}"));
        }
    }
    Ok(())
}

fn sparse_suite(cases: &[Sparse], on: &Device, dtype: DType, index: DType, eps: f64) {
    for case in cases {
        for which in ALL {
            close(case, which, &case.run(which, on, dtype, index), eps).unwrap();
        }
    }
}

const EPS: f64 = f32::EPSILON as f64;

#[test]
fn the_cpu_form_of_sparse_products_is_right() {
    for index in [DType::I32, DType::I64] {
        sparse_suite(&sparse_cases(), &Device::cpu(), DType::F32, index, EPS);
    }
}

#[test]
fn sparse_products_in_f64_take_the_reference() {
    for index in [DType::I32, DType::I64] {
        sparse_suite(
            &sparse_cases(),
            &Device::cpu(),
            DType::F64,
            index,
            f64::EPSILON,
        );
    }
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn sparse_products_are_right_on_the_gpu() {
    // A software adapter compiles a product's kernels for seconds: the sizes of d are the CPU form's.
    let mut cases = sparse_cases();
    cases.retain(|case| !case.name.starts_with("d = ") && case.name != "one entry a row");
    cases.retain(|case| !case.name.contains("latent") && case.name != "both zeros");
    sparse_suite(&cases, &gpu(), DType::F32, DType::I32, EPS);
}

/// One entry, one column or one index off must show.
#[test]
fn planted_faults_in_sparse_products_are_caught() {
    let case = sparse("odd", [129, 11, 257, 67]);
    let cpu = Device::cpu();
    for which in ALL {
        let good = case.run(which, &cpu, DType::F32, DType::I32);
        let mut off = good.clone();
        let last = off.len() - 1;
        let place = (0..=last).rev().find(|&i| off[i] != 0.0).unwrap();
        off[place] *= 1.0 + 1e-3;
        assert!(close(&case, which, &off, EPS).is_err(), "{which:?}");
        let moved = Sparse {
            index: |i, latents| (hash(i ^ 0x5555) as usize + usize::from(i == 700)) % latents,
            ..sparse("odd", [129, 11, 257, 67])
        };
        let moved = moved.run(which, &cpu, DType::F32, DType::I32);
        assert!(close(&case, which, &moved, EPS).is_err(), "{which:?}");
    }
}

fn panic_of(run: impl FnOnce() -> Tensor<2>) -> String {
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
    let panic = caught.map(|_| ()).unwrap_err();
    panic.downcast_ref::<String>().unwrap().clone()
}

#[test]
fn an_index_out_of_range_panics_with_the_op() {
    let on = Device::cpu();
    let x = || Tensor::<2>::ones([2, 3], on.tensor());
    for (bad, dtype) in [
        (5, DType::I32),
        (-1, DType::I32),
        (5, DType::I64),
        (-1, DType::I64),
        (1 << 32, DType::I64),
    ] {
        let data = TensorData::new(vec![0i64, 1, 2, bad, 4, 0], [2, 3]);
        let indices = || Tensor::<2, Int>::from_data(data.clone(), (on.tensor(), dtype));
        let w = || Tensor::<2>::ones([5, 3], on.tensor());
        let says = |op: &str, text: String| {
            let want = format!("{op}: index {bad} of 5 latents");
            assert!(text.contains(&want), "{text}");
        };
        says(
            "sparse_decode",
            panic_of(|| sparse_decode(x(), indices(), w())),
        );
        says("sparse_dot", panic_of(|| sparse_dot(x(), w(), indices())));
        says(
            "sparse_matmul_t",
            panic_of(|| sparse_matmul_t(x(), indices(), x(), 5)),
        );
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
    let decode = panic_of(|| sparse_decode(x(2, 3), indices(2, 4), x(5, 6)));
    says(decode, &["sparse_decode", "[2, 3]", "[2, 4]"]);
    let dot = panic_of(|| sparse_dot(x(2, 6), x(5, 7), indices(2, 4)));
    says(dot, &["sparse_dot", "[2, 6]", "7"]);
    let rows = panic_of(|| sparse_dot(x(2, 6), x(5, 6), indices(3, 4)));
    says(rows, &["sparse_dot", "[2, 6]", "[3, 4]"]);
    let matmul = panic_of(|| sparse_matmul_t(x(2, 3), indices(2, 3), x(4, 6), 5));
    says(matmul, &["sparse_matmul_t", "[2, 3]", "[4, 6]"]);
}

#[test]
fn sparse_products_are_the_same_bits_on_any_number_of_threads() {
    let case = sparse("larger", [300, 32, 2000, 130]);
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build()
            .unwrap()
            .install(|| ALL.map(|which| case.run(which, &Device::cpu(), DType::F32, DType::I32)))
    };
    let one = run(1);
    assert!([2, 3, 7].into_iter().all(|threads| run(threads) == one));
}
