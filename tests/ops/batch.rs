//! Sparse batches at the hard sizes, for every op that takes them.

use burn::tensor::DType;

use super::*;

/// `n` rows of k entries, over `d_sae` rows of `d` columns.
#[derive(Clone, Copy)]
pub struct Batch {
    pub name: &'static str,
    pub n: usize,
    pub k: usize,
    pub d_sae: usize,
    pub d: usize,
    pub value: fn(usize) -> f32,
    pub index: fn(usize, usize) -> usize,
    /// How all of its matrices are laid out.
    pub view: View,
}

pub const EPS: f64 = f32::EPSILON as f64;

pub fn batch(name: &'static str, [n, k, d_sae, d]: [usize; 4]) -> Batch {
    Batch {
        name,
        n,
        k,
        d_sae,
        d,
        value: uniform,
        index: |i, d_sae| hash(i ^ 0x5555) as usize % d_sae,
        view: View::Plain,
    }
}

/// A workgroup has 128 threads and stages as many entries, or has eight teams of 32; the CPU takes 32
/// columns at once, and multiplies densely where k is an eighth of `d_sae` or more.
pub fn batches() -> Vec<Batch> {
    vec![
        batch("one of all", [1, 1, 1, 1]),
        batch("one latent, many entries", [5, 9, 1, 4]),
        batch("one row", [1, 3, 30, 33]),
        batch("one entry a row", [37, 1, 50, 24]),
        batch("one column", [37, 5, 50, 1]),
        batch("d = 15", [9, 4, 40, 15]),
        batch("d = 16", [9, 4, 40, 16]),
        batch("d = 17", [9, 4, 40, 17]),
        batch("d = 31", [3, 3, 40, 31]),
        batch("d = 32", [3, 3, 40, 32]),
        batch("d = 33", [3, 3, 40, 33]),
        batch("d = workgroup - 1", [3, 3, 40, 127]),
        batch("d = workgroup", [3, 3, 40, 128]),
        batch("d = workgroup + 1", [3, 3, 40, 129]),
        batch("k = 7 of 64, sparse", [40, 7, 64, 24]),
        batch("k = 8 of 64, dense", [40, 8, 64, 24]),
        batch("k = 9 of 64, dense", [40, 9, 64, 24]),
        batch("k = workgroup - 1", [2, 127, 1100, 5]),
        batch("k = workgroup", [2, 128, 1100, 5]),
        batch("k = workgroup + 1", [2, 129, 1100, 5]),
        batch("k over two workgroups", [2, 300, 2500, 130]),
        batch("odd", [129, 11, 257, 67]),
        batch("more latents than entries", [3, 2, 1000, 19]),
        batch("every latent in every row", [5, 40, 7, 20]),
        batch("larger", [300, 32, 2000, 130]),
        batch("over 65,535 rows", [65_537, 1, 9, 2]),
        batch("over 65,535 latents", [2, 3, 65_537, 2]),
        Batch {
            index: |_, d_sae| d_sae - 1,
            ..batch("the last latent only", [60, 6, 90, 18])
        },
        Batch {
            index: |i, d_sae| i / 2 % d_sae,
            ..batch("each index twice in its row", [30, 6, 50, 21])
        },
        Batch {
            value: |i| if i.is_multiple_of(3) { uniform(i) } else { 0.0 },
            ..batch("zeros among the values", [40, 7, 60, 35])
        },
        Batch {
            value: |_| 0.0,
            ..batch("nothing but zeros", [8, 4, 40, 16])
        },
        Batch {
            value: zeros,
            index: |_, _| 0,
            ..batch("both zeros", [8, 4, 40, 16])
        },
        Batch {
            view: View::Transposed,
            ..batch("transposed", [37, 6, 90, 45])
        },
        Batch {
            view: View::Sliced,
            ..batch("sliced", [37, 6, 90, 45])
        },
        batch("no rows", [0, 4, 40, 16]),
        batch("no entries", [6, 0, 40, 16]),
        batch("no columns", [6, 3, 40, 0]),
    ]
}

impl Batch {
    pub fn values(&self) -> Vec<f32> {
        (0..self.n * self.k).map(self.value).collect()
    }

    pub fn indices(&self) -> Vec<i64> {
        let index = |i| (self.index)(i, self.d_sae) as i64;
        (0..self.n * self.k).map(index).collect()
    }

    pub fn g(&self) -> Vec<f32> {
        (0..self.n * self.d).map(|i| uniform(i + 10_000)).collect()
    }

    pub fn w(&self) -> Vec<f32> {
        let w = |i| uniform(i + 999_999);
        (0..self.d_sae * self.d).map(w).collect()
    }

    pub fn values_on(&self, on: &Device, dtype: DType) -> Tensor<2> {
        matrix(&self.values(), [self.n, self.k], self.view, on).cast(dtype)
    }

    pub fn g_on(&self, on: &Device, dtype: DType) -> Tensor<2> {
        matrix(&self.g(), [self.n, self.d], self.view, on).cast(dtype)
    }

    pub fn w_on(&self, on: &Device, dtype: DType) -> Tensor<2> {
        matrix(&self.w(), [self.d_sae, self.d], self.view, on).cast(dtype)
    }

    pub fn indices_on(&self, on: &Device, dtype: DType) -> Tensor<2, Int> {
        let shape @ [rows, columns] = [self.n, self.k];
        let data = arranged(&self.indices(), shape, self.view, 0);
        let x = Tensor::<2, Int>::from_data(data, (on.tensor(), dtype));
        match self.view {
            View::Plain => x,
            View::Transposed => x.transpose(),
            View::Sliced => x.slice([1..1 + rows, 2..2 + columns]),
        }
    }

    /// What `term` gives for each entry, latent and column, added up by place; and the same of the
    /// absolute terms.
    pub fn sums(
        &self,
        places: usize,
        term: impl Fn(usize, usize, usize) -> (usize, f32, f32),
    ) -> Sums {
        let (mut sum, mut size) = (vec![0f64; places], vec![0f64; places]);
        for (entry, &f) in self.indices().iter().enumerate() {
            for c in 0..self.d {
                let (place, a, b) = term(entry, f as usize, c);
                let term = f64::from(a) * f64::from(b);
                sum[place] += term;
                size[place] += term.abs();
            }
        }
        Sums { sum, size }
    }
}

/// Sums in f64, and of how much they are the sum.
pub struct Sums {
    pub sum: Vec<f64>,
    pub size: Vec<f64>,
}

impl Sums {
    /// Every element within `eps · (terms + 1)` of the sum of its absolute terms.
    pub fn close(&self, name: &str, got: &[f64], eps: f64, terms: usize) -> Result<(), String> {
        assert_eq!(got.len(), self.sum.len(), "{name}");
        for (i, got) in got.iter().enumerate() {
            let (sum, size) = (self.sum[i], self.size[i]);
            let off = (got - sum).abs();
            if off.is_nan() || off > eps * (terms + 1) as f64 * size {
                return Err(format!("{name}: {got} for {sum} at element {i}"));
            }
        }
        Ok(())
    }
}

/// A matrix that reads as `values`, seen through a view.
pub fn matrix(values: &[f32], shape: [usize; 2], view: View, on: &Device) -> Tensor<2> {
    let [rows, columns] = shape;
    let data = arranged(values, shape, view, f32::INFINITY);
    let x = Tensor::<2>::from_data(data, (on.tensor(), DType::F32));
    match view {
        View::Plain => x,
        View::Transposed => x.transpose(),
        View::Sliced => x.slice([1..1 + rows, 2..2 + columns]),
    }
}

/// What lies under the view.
fn arranged<T: burn::tensor::Element>(
    values: &[T],
    [rows, columns]: [usize; 2],
    view: View,
    outside: T,
) -> TensorData {
    match view {
        View::Plain => TensorData::new(values.to_vec(), [rows, columns]),
        View::Transposed => {
            let across = (0..rows * columns).map(|i| values[i % rows * columns + i / rows]);
            TensorData::new(across.collect(), [columns, rows])
        }
        View::Sliced => {
            let mut all = vec![outside; (rows + 2) * (columns + 5)];
            for (i, row) in values.chunks(columns).enumerate() {
                all[(i + 1) * (columns + 5) + 2..][..columns].copy_from_slice(row);
            }
            TensorData::new(all, [rows + 2, columns + 5])
        }
    }
}

/// The message of the panic that `run` ends in.
pub fn panic_of<T>(run: impl FnOnce() -> T) -> String {
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
    let panic = caught.map(|_| ()).unwrap_err();
    panic.downcast_ref::<String>().unwrap().clone()
}

/// `run` on one thread, then on others: each time the same.
pub fn same_on_any_threads<T: PartialEq + Send>(run: impl Fn() -> T + Sync) -> bool {
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap().install(&run)
    };
    let one = on(1);
    [2, 3, 7].into_iter().all(|threads| on(threads) == one)
}

/// The device with gradients.
pub fn autodiff(on: &Device) -> Device {
    Device::from_burn(on.tensor().clone().autodiff())
}

pub fn floats<const D: usize>(x: Tensor<D>) -> Vec<f64> {
    block_on(read(x)).unwrap()
}

pub fn integers<const D: usize>(x: Tensor<D, Int>) -> Vec<i64> {
    block_on(read_int(x)).unwrap()
}
