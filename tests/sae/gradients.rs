//! The written-out gradients against finite differences, autodiff and f64.

use burn::tensor::activation::relu;
use burn::tensor::{DType, Int, Tensor, TensorData};
use inscape::Device;
use inscape::ops::sparse_matmul_t;
use inscape::sae::{Gradients, Losses, Now, Sae, TrainConfig, backward};

use super::*;

/// A problem in plain numbers; matrices row-major.
#[derive(Clone)]
struct Problem {
    n: usize,
    d: usize,
    k: usize,
    k_aux: usize,
    x: Vec<f64>,
    /// `w_enc`, `b_enc`, `w_dec`, `b_dec`.
    params: [Vec<f64>; 4],
    dead: Option<Vec<bool>>,
}

const NAMES: [&str; 4] = ["w_enc", "b_enc", "w_dec", "b_dec"];
const ALPHA: f64 = 1.0 / 32.0;

impl Problem {
    /// Values that f32 holds exactly; x has an offset that `b_dec` only partly takes off.
    fn new(
        seed: u64,
        [n, d, f]: [usize; 3],
        k: usize,
        k_aux: usize,
        dead: Option<&[usize]>,
    ) -> Self {
        let mut draws = Draws::new(seed);
        let mut exact = |n: usize, shift: f64| -> Vec<f64> {
            let value = |x: f64| f64::from((x + shift) as f32);
            draws.normals(n).into_iter().map(value).collect()
        };
        Self {
            n,
            d,
            k,
            k_aux,
            x: exact(n * d, 0.5),
            params: [
                exact(f * d, 0.0),
                exact(f, 0.2),
                exact(f * d, 0.0),
                exact(d, 0.3),
            ],
            dead: dead.map(|list| (0..f).map(|i| list.contains(&i)).collect()),
        }
    }

    fn latents(&self) -> usize {
        self.params[1].len()
    }

    fn z(&self, row: usize) -> Vec<f64> {
        let [w_enc, b_enc, _, b_dec] = &self.params;
        let x = &self.x[row * self.d..][..self.d];
        let dot = |w: &[f64]| -> f64 { (0..self.d).map(|j| (x[j] - b_dec[j]) * w[j]).sum() };
        w_enc
            .chunks(self.d)
            .zip(b_enc)
            .map(|(w, b)| dot(w) + b)
            .collect()
    }

    /// `Σ relu(z) · w_dec` over the `k` largest of the latents that `may` fire.
    fn decoded(&self, z: &[f64], k: usize, may: impl Fn(usize) -> bool) -> Vec<f64> {
        let mut order: Vec<usize> = (0..z.len()).filter(|&f| may(f)).collect();
        order.sort_by(|&a, &b| z[b].total_cmp(&z[a]));
        let mut y = vec![0.0; self.d];
        for &f in order.iter().take(k) {
            let w = &self.params[2][f * self.d..][..self.d];
            y.iter_mut()
                .zip(w)
                .for_each(|(y, w)| *y += z[f].max(0.0) * w);
        }
        y
    }

    /// `x − x̂`.
    fn error(&self) -> Vec<f64> {
        let rows = (0..self.n).map(|i| self.decoded(&self.z(i), self.k, |_| true));
        let of_row = |(i, y): (usize, Vec<f64>)| -> Vec<f64> {
            (0..self.d)
                .map(|j| self.x[i * self.d + j] - y[j] - self.params[3][j])
                .collect()
        };
        rows.enumerate().flat_map(of_row).collect()
    }

    fn fvu(&self) -> f64 {
        squares(&self.error()) / deviation(&self.x, self.d)
    }

    /// The loss with the auxiliary target held at `frozen`.
    fn loss(&self, frozen: &[f64]) -> f64 {
        let Some(dead) = &self.dead else {
            return self.fvu();
        };
        let guess = (0..self.n).flat_map(|i| self.decoded(&self.z(i), self.k_aux, |f| dead[f]));
        let miss: Vec<f64> = guess.zip(frozen).map(|(g, e)| g - e).collect();
        self.fvu() + ALPHA * squares(&miss) / deviation(frozen, self.d)
    }

    /// Central differences by every parameter.
    fn differences(&self) -> [Vec<f64>; 4] {
        let (frozen, h) = (self.error(), 1e-5);
        let at = |p: usize, i: usize, by: f64| {
            let mut moved = self.clone();
            moved.params[p][i] += by;
            moved.loss(&frozen)
        };
        [0, 1, 2, 3].map(|p| {
            (0..self.params[p].len())
                .map(|i| (at(p, i, h) - at(p, i, -h)) / (2.0 * h))
                .collect()
        })
    }

    fn sae(&self, dtype: DType, device: &Device) -> Sae {
        let wide = |p: usize| self.matrix(&self.params[p], dtype, device);
        let long = |p: usize| {
            let data = TensorData::new(self.params[p].clone(), [self.params[p].len()]);
            Tensor::<1>::from_data(data, (device.tensor(), dtype))
        };
        Sae::topk([wide(0), wide(2)], [long(1), long(3)], self.k)
    }

    fn matrix(&self, values: &[f64], dtype: DType, device: &Device) -> Tensor<2> {
        let data = TensorData::new(values.to_vec(), [values.len() / self.d, self.d]);
        Tensor::from_data(data, (device.tensor(), dtype))
    }

    fn dead_mask(&self, device: &Device) -> Option<Tensor<1>> {
        let mask = self.dead.as_ref()?;
        let mask: Vec<f32> = mask.iter().map(|&d| f32::from(u8::from(d))).collect();
        Some(t1(&mask, device))
    }

    fn dead_latents(&self, device: &Device) -> Option<Tensor<1, Int>> {
        let mask = self.dead.as_ref()?;
        let dead: Vec<i32> = (0..)
            .zip(mask)
            .filter(|(_, d)| **d)
            .map(|(f, _)| f)
            .collect();
        Some(Tensor::from_data(&dead[..], device.tensor()))
    }

    fn config(&self) -> TrainConfig {
        TrainConfig {
            k_aux: self.k_aux,
            aux_alpha: ALPHA,
            ..TrainConfig::new(self.d, self.latents(), self.k, 1 << 20)
        }
    }

    /// Gradients and loss of the crate, computed in `dtype`.
    fn ours(&self, dtype: DType) -> ([Vec<f64>; 4], f64) {
        let cpu = Device::cpu();
        let x = self.matrix(&self.x, dtype, &cpu);
        let sae = self.sae(dtype, &cpu);
        let (grads, losses) = written_out(&sae, x, self.dead_latents(&cpu), &self.config());
        assert_eq!(grads.w_enc.g.dtype(), dtype);
        (numbers(grads), read64(losses.loss)[0])
    }

    /// The same loss in plain tensor operations, differentiated by Burn, in f32.
    fn autodiff(&self) -> ([Vec<f64>; 4], f64) {
        let device = Device::from_burn(Device::cpu().tensor().clone().autodiff());
        let mut sae = self.sae(DType::F32, &device);
        sae.w_enc = sae.w_enc.require_grad();
        sae.b_enc = sae.b_enc.require_grad();
        sae.w_dec = sae.w_dec.require_grad();
        sae.b_dec = sae.b_dec.require_grad();
        let x = self.matrix(&self.x, DType::F32, &device);
        let z = (x.clone() - sae.b_dec.clone().unsqueeze()).matmul(sae.w_enc.clone().transpose())
            + sae.b_enc.clone().unsqueeze();
        let y =
            largest(z.clone(), self.k).matmul(sae.w_dec.clone()) + sae.b_dec.clone().unsqueeze();
        let error = x.clone() - y;
        let mut loss = mean_square(error.clone()) / variance(x);
        if let Some(dead) = self.dead_mask(&device) {
            let alive = dead.equal_elem(0.0).unsqueeze::<2>().expand(z.dims());
            let z = z.mask_fill(alive, -1e9);
            let target = error.detach();
            let miss = target.clone() - largest(z, self.k_aux).matmul(sae.w_dec.clone());
            loss = loss + mean_square(miss) / variance(target) * ALPHA;
        }
        let grads = loss.backward();
        let all = [
            read64(sae.w_enc.grad(&grads).unwrap()),
            read64(sae.b_enc.grad(&grads).unwrap()),
            read64(sae.w_dec.grad(&grads).unwrap()),
            read64(sae.b_dec.grad(&grads).unwrap()),
        ];
        (all, read64(loss)[0])
    }
}

/// Gradients and losses of the first step.
fn written_out(
    sae: &Sae,
    x: Tensor<2>,
    dead: Option<Tensor<1, Int>>,
    config: &TrainConfig,
) -> (Gradients, Losses) {
    let now = Now {
        dead,
        sparsity: 1.0,
        p: 1.0,
        k: config.k().unwrap(),
    };
    block_on(backward(sae, x, None, &now, config)).unwrap()
}

fn squares(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum()
}

/// `Σ‖x − x̄‖²`.
fn deviation(x: &[f64], d: usize) -> f64 {
    let n = (x.len() / d) as f64;
    let mean: Vec<f64> = (0..d)
        .map(|j| x.iter().skip(j).step_by(d).sum::<f64>() / n)
        .collect();
    let off: Vec<f64> = x.iter().enumerate().map(|(i, x)| x - mean[i % d]).collect();
    squares(&off)
}

fn mean_square(x: Tensor<2>) -> Tensor<1> {
    x.powi_scalar(2).mean()
}

fn variance(x: Tensor<2>) -> Tensor<1> {
    let mean = x.clone().mean_dim(0);
    mean_square(x - mean)
}

/// The k largest of each row, ReLU'd, all else 0: dense.
pub fn largest(z: Tensor<2>, k: usize) -> Tensor<2> {
    let kept = kept(&z, k);
    relu(z) * kept
}

/// 1 at the k largest of each row.
pub fn kept(z: &Tensor<2>, k: usize) -> Tensor<2> {
    let kth = z.clone().detach().sort_descending(1).narrow(1, k - 1, 1);
    z.clone().detach().greater_equal(kth).float()
}

fn numbers(g: Gradients) -> [Vec<f64>; 4] {
    [
        read64(sparse_matmul_t(&g.w_enc)),
        read64(g.b_enc),
        read64(sparse_matmul_t(&g.w_dec)),
        read64(g.b_dec),
    ]
}

fn largest_of(x: &[f64]) -> f64 {
    x.iter().fold(0.0, |m, x| x.abs().max(m))
}

/// Every gradient within `tolerance` of the largest of its tensor.
fn compare(got: &[Vec<f64>; 4], want: &[Vec<f64>; 4], tolerance: f64) -> Result<(), String> {
    for ((got, want), name) in got.iter().zip(want).zip(NAMES) {
        assert_eq!(got.len(), want.len(), "{name}");
        let off: Vec<f64> = got.iter().zip(want).map(|(g, w)| g - w).collect();
        let (worst, scale) = (largest_of(&off), largest_of(want));
        if worst.is_nan() || off.iter().any(|x| x.is_nan()) || worst > tolerance * scale {
            return Err(format!("{name}: off by {worst:e} of {scale:e}"));
        }
    }
    Ok(())
}

const DEAD: [usize; 5] = [1, 4, 5, 8, 11];

fn small() -> Vec<(&'static str, Problem)> {
    let shape = [7, 5, 12];
    vec![
        ("no dead latent", Problem::new(1, shape, 3, 4, None)),
        ("some of the k are off", Problem::new(2, shape, 10, 4, None)),
        ("k = 1", Problem::new(3, shape, 1, 4, None)),
        ("dead latents", Problem::new(4, shape, 3, 4, Some(&DEAD))),
        (
            "fewer dead than k_aux",
            Problem::new(5, shape, 3, 4, Some(&DEAD[..2])),
        ),
        (
            "dead latents that fire",
            Problem::new(6, shape, 9, 4, Some(&DEAD)),
        ),
        (
            "one row's width",
            Problem::new(7, [9, 1, 4], 2, 1, Some(&[0])),
        ),
    ]
}

#[test]
fn f64_gradients_are_the_finite_differences() {
    for (name, problem) in small() {
        let (grads, loss) = problem.ours(DType::F64);
        let want = problem.loss(&problem.error());
        assert!(
            (loss - want).abs() <= 1e-12 * want,
            "{name}: loss {loss}, {want}"
        );
        compare(&grads, &problem.differences(), 1e-8).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

#[test]
fn the_differences_can_tell_a_wrong_gradient() {
    let problem = &small()[3].1;
    let (mut grads, _) = problem.ours(DType::F64);
    grads[3][2] *= 1.0001;
    let error = compare(&grads, &problem.differences(), 1e-8).unwrap_err();
    says(error, &["b_dec"]);
}

#[test]
fn the_auxiliary_loss_alone_reaches_dead_encoders() {
    let problem = &small()[3].1;
    let without = Problem {
        dead: None,
        ..problem.clone()
    };
    let (all, main) = (problem.ours(DType::F64).0, without.ours(DType::F64).0);
    let reached = |p: usize, f: usize| {
        let width = all[p].len() / problem.latents();
        let part = f * width..(f + 1) * width;
        all[p][part.clone()] != main[p][part]
    };
    for p in [0, 1, 2] {
        assert!(DEAD.iter().any(|&f| reached(p, f)), "{}", NAMES[p]);
        let alive = (0..problem.latents()).filter(|f| !DEAD.contains(f));
        assert!(alive.into_iter().all(|f| !reached(p, f)), "{}", NAMES[p]);
    }
}

/// Rows on which a latent is among the k largest and above 0: a zero activation is no firing, and
/// the auxiliary loss counts for nothing.
#[test]
fn only_active_latents_fire() {
    let cpu = Device::cpu();
    let mut zeros = 0;
    for (name, problem) in small() {
        let mut want = vec![0.0; problem.latents()];
        for z in (0..problem.n).map(|i| problem.z(i)) {
            let mut order: Vec<usize> = (0..z.len()).collect();
            order.sort_by(|&a, &b| z[b].total_cmp(&z[a]));
            let (on, off): (Vec<usize>, Vec<usize>) =
                order[..problem.k].iter().partition(|&&f| z[f] > 0.0);
            on.iter().for_each(|&f| want[f] += 1.0);
            zeros += off.len();
        }
        let x = problem.matrix(&problem.x, DType::F32, &cpu);
        let sae = problem.sae(DType::F32, &cpu);
        let dead = problem.dead_latents(&cpu);
        let (grads, _) = written_out(&sae, x, dead, &problem.config());
        assert_eq!(read64(grads.fired), want, "{name}");
    }
    assert!(zeros > 0, "the cases say nothing");
}

/// f32 sums over n rows, k latents and d columns: c · eps · n.
fn f32_tolerance(p: &Problem) -> f64 {
    4.0 * f64::from(f32::EPSILON) * (p.n + p.d + p.k) as f64
}

#[test]
fn autodiff_agrees() {
    for (name, problem) in small() {
        let (grads, loss) = problem.ours(DType::F32);
        let (want, want_loss) = problem.autodiff();
        let tolerance = f32_tolerance(&problem);
        assert!(
            (loss - want_loss).abs() <= tolerance * want_loss,
            "{name}: {loss} {want_loss}"
        );
        compare(&grads, &want, tolerance).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

#[test]
fn f32_is_as_close_to_f64_as_it_can_be() {
    for dead in [None, Some(&DEAD[..])] {
        let problem = Problem::new(8, [64, 40, 160], 9, 3, dead);
        let (single, _) = problem.ours(DType::F32);
        let (double, _) = problem.ours(DType::F64);
        compare(&single, &double, f32_tolerance(&problem)).unwrap();
        assert!(
            compare(&single, &double, 1e-9).is_err(),
            "f64 was not computed in f64"
        );
    }
}
