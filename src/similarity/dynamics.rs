//! Dynamical similarity analysis: do two systems move alike, whatever space they move in?

use burn::tensor::Tensor;
use faer::prelude::Solve;
use faer::{Mat, Side};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Error;
use super::axes::Axes;
use super::host::{Rows, map_chunks};
use super::transport::{Piece, plan};
use crate::device::block_on;

/// A linear map that moves a trajectory one step on, in the principal coordinates of its delays: what
/// [`dsa_angle`] and [`dsa_wasserstein`] compare.
///
/// A state is `delays` consecutive values side by side, the latest first. Of the matrix of all states
/// (not centred) the `rank` largest left singular vectors are taken; the map is the ridge regression
/// of each on the one before.
///
/// ```
/// use inscape::{Device, similarity::{Dmd, dsa_wasserstein}};
/// use burn::tensor::{Tensor, TensorData};
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// // A turn by 0.3 radians a step, seen as it is and as a sum.
/// let circle = |t: usize| [(0.3 * t as f32).cos(), (0.3 * t as f32).sin()];
/// let both: Vec<f32> = (0..50).flat_map(circle).collect();
/// let one: Vec<f32> = (0..50).map(|t| circle(t)[0] + circle(t)[1]).collect();
/// let tensor = |values, d| Tensor::<3>::from_data(TensorData::new(values, [1, 50, d]), Device::cpu().tensor());
/// let (a, b) = (Dmd::new(&tensor(both, 2), 1, 2, 0.0)?, Dmd::new(&tensor(one, 1), 2, 2, 0.0)?);
/// let [re, im] = a.eigenvalues()?[1];
/// assert!((re - 0.3f64.cos()).abs() < 1e-5 && (im - 0.3f64.sin()).abs() < 1e-5);
/// assert!(dsa_wasserstein(&a, &b)? < 1e-8);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Dmd {
    operator: Mat<f64>,
}

impl Dmd {
    /// Fits the map to trajectories of equal length, `[trials, time, d]`; states do not reach from one
    /// trial into the next.
    ///
    /// # Errors
    /// No delay, a rank of 0, a `ridge` that is below 0 or not finite, no step between two states of
    /// a trial (`time` of `delays` or less), fewer directions above 1e-6 of the largest than `rank`, a
    /// regression with more than one solution ([`Error::Undefined`]); a NaN or infinity (its row is
    /// that of `[trials · time, d]`); the device failing.
    ///
    /// # Cost
    /// On the host, in f64: a decomposition of the `[trials · (time - delays + 1), delays · d]` states,
    /// and a few copies of them.
    ///
    /// # Source
    /// Ostrow, Eisen, Kozachkov & Fiete 2023, "Beyond Geometry: Comparing the Temporal Structure of
    /// Computation in Neural Circuits with Dynamical Similarity Analysis", after the HAVOK of
    /// Brunton et al. 2017.
    pub fn new(x: &Tensor<3>, delays: usize, rank: usize, ridge: f64) -> Result<Self, Error> {
        block_on(Self::new_async(x, delays, rank, ridge))
    }

    /// [`Dmd::new`] without blocking.
    ///
    /// # Errors
    /// As [`Dmd::new`].
    pub async fn new_async(
        x: &Tensor<3>,
        delays: usize,
        rank: usize,
        ridge: f64,
    ) -> Result<Self, Error> {
        let [trials, time, d] = x.dims();
        let undefined = |why| Err(Error::Undefined { why });
        if delays == 0 || rank == 0 || !(ridge >= 0.0 && ridge.is_finite()) {
            return undefined("DSA needs a delay, a rank and a ridge of 0 or more");
        }
        if time <= delays || trials * d == 0 {
            return undefined("no trial has two states");
        }
        let rows = Rows::<f64>::unscaled(&x.clone().reshape([trials * time, d])).await?;
        let states = time - delays + 1;
        let hankel = Mat::from_fn(trials * states, delays * d, |i, j| {
            let (trial, step) = (i / states, i % states);
            rows.row(trial * time + step + delays - 1 - j / d)[j % d]
        });
        let axes = Axes::of(hankel)?;
        if axes.basis.s.len() < rank {
            return undefined("its delays span fewer directions than the rank asked for");
        }
        let z = axes.z();
        let v = Mat::from_fn(trials * states, rank, |i, j| z[(i, j)] / axes.basis.s[j]);
        Ok(Self {
            operator: one_step(&v, states, ridge)?,
        })
    }

    /// A map that is known: `[rank, rank]`, row-major.
    ///
    /// # Errors
    /// [`Error::NotFinite`].
    ///
    /// # Panics
    /// If the values are no square.
    pub fn from_operator(values: &[f64], rank: usize) -> Result<Self, Error> {
        assert!(
            rank > 0 && values.len() == rank * rank,
            "Dmd::from_operator: {} values for rank {rank}",
            values.len()
        );
        if let Some(at) = values.iter().position(|v| !v.is_finite()) {
            return Err(Error::NotFinite {
                row: at / rank,
                column: at % rank,
                value: values[at],
            });
        }
        let operator = Mat::from_fn(rank, rank, |i, j| values[i * rank + j]);
        Ok(Self { operator })
    }

    /// Rank of the map.
    pub fn rank(&self) -> usize {
        self.operator.nrows()
    }

    /// Entry of the map: how much coordinate `from` adds to coordinate `to` a step later. Coordinates
    /// have a sign of their own.
    pub fn entry(&self, to: usize, from: usize) -> f64 {
        self.operator[(to, from)]
    }

    /// Eigenvalues of the map as real and imaginary parts, by the real part and then the other.
    ///
    /// # Errors
    /// [`Error::Undefined`] if they do not converge.
    pub fn eigenvalues(&self) -> Result<Vec<[f64; 2]>, Error> {
        let found = self.operator.eigenvalues().map_err(|_| Error::Undefined {
            why: "the eigenvalues of its dynamics did not converge",
        })?;
        let mut values: Vec<[f64; 2]> = found.iter().map(|value| [value.re, value.im]).collect();
        values.sort_by(|a, b| a[0].total_cmp(&b[0]).then(a[1].total_cmp(&b[1])));
        Ok(values)
    }

    /// The map divided by its Frobenius norm.
    fn unit(&self) -> Result<Mat<f64>, Error> {
        let norm = self.operator.norm_l2();
        match norm > 0.0 {
            true => Ok(faer::Scale(norm.recip()) * &self.operator),
            false => Err(Error::Undefined {
                why: "its dynamics are 0",
            }),
        }
    }
}

/// Ridge regression of the coordinates on those of the state before, `[rank, rank]`.
fn one_step(v: &Mat<f64>, states: usize, ridge: f64) -> Result<Mat<f64>, Error> {
    let (trials, rank) = (v.nrows() / states, v.ncols());
    let (mut moments, mut moved) = (
        Mat::<f64>::identity(rank, rank) * faer::Scale(ridge),
        Mat::zeros(rank, rank),
    );
    for trial in 0..trials {
        let before = v.subrows(trial * states, states - 1);
        let after = v.subrows(trial * states + 1, states - 1);
        moments += before.transpose() * before;
        moved += before.transpose() * after;
    }
    let solved = moments.llt(Side::Lower).map_err(|_| Error::Undefined {
        why: "it has too few steps for the rank asked for",
    })?;
    Ok(solved.solve(moved).transpose().to_owned())
}

/// How far apart the eigenvalues of two systems' dynamics are: the least mean squared distance, in the
/// complex plane, over all ways to carry those of one to those of the other.
///
/// For maps of equal rank each eigenvalue is paired with one of the other side. At least 0, and 0 for
/// equal eigenvalues; blind to every invertible change of coordinates, also to those that are no
/// rotation. The same on every call, unlike [`dsa_angle`], and much cheaper.
///
/// # Errors
/// [`Error::Undefined`] if the eigenvalues do not converge.
///
/// # Cost
/// `O(r³)`.
///
/// # Source
/// The score `wasserstein` of the dsa-metric package of Ostrow et al. 2023 (the square of the
/// 2-Wasserstein distance of the two spectra). Ours also takes maps of different ranks.
///
/// An example is at [`Dmd`].
pub fn dsa_wasserstein(a: &Dmd, b: &Dmd) -> Result<f64, Error> {
    let (a, b) = (a.eigenvalues()?, b.eigenvalues()?);
    let square = |x: &[f64; 2], y: &[f64; 2]| (x[0] - y[0]).powi(2) + (x[1] - y[1]).powi(2);
    let cost: Vec<f64> = a
        .iter()
        .flat_map(|x| b.iter().map(move |y| square(x, y)))
        .collect();
    let pieces = plan(&cost, a.len(), b.len());
    let of = |piece: Piece| piece.share * cost[piece.row * b.len() + piece.column];
    Ok(pieces.into_iter().map(of).sum())
}

/// Angle between two systems' dynamics `A` and `B` after the best rotation or reflection `C`:
/// `min arccos(⟨A, C B Cᵀ⟩ / (|A| |B|))`, in radians, 0 to π.
///
/// The problem has many local minima; the best of `starts` searches is returned, so the value is an
/// upper bound that falls as `starts` grows, and the same for the same `starts`. The first two align the
/// eigenvectors of the symmetric parts, which is best if both maps are symmetric; the others are random.
///
/// # Errors
/// A map of zeros ([`Error::Undefined`]).
///
/// # Panics
/// If the ranks differ.
///
/// # Cost
/// `O(r³)` a step and at most 500 steps a start, on the host; starts run in parallel.
///
/// # Source
/// Ostrow et al. 2023. Their dsa-metric runs Adam over a Cayley parametrisation from one random
/// start in each half of the orthogonal group: 0.353, 0.314 and 0.315 for the same data and three seeds.
/// Ours is the descent along the group of Wen & Yin 2013, "A feasible method for optimization with
/// orthogonality constraints", with a fixed seed, to a gradient of 1e-8.
///
/// # Example
/// ```
/// use inscape::{Device, similarity::{Dmd, dsa_angle}};
/// use burn::tensor::{Tensor, TensorData};
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let turn = |by: f32| {
///     let values: Vec<f32> = (0..60).flat_map(|t| [(by * t as f32).cos(), (by * t as f32).sin()]).collect();
///     let x = Tensor::<3>::from_data(TensorData::new(values, [1, 60, 2]), Device::cpu().tensor());
///     Dmd::new(&x, 1, 2, 0.0)
/// };
/// // Two turns of the plane differ by the difference of their angles, whichever way they go.
/// assert!((dsa_angle(&turn(0.3)?, &turn(-0.5)?, 4)? - 0.2).abs() < 1e-3);
/// # Ok(())
/// # }
/// ```
pub fn dsa_angle(a: &Dmd, b: &Dmd, starts: usize) -> Result<f64, Error> {
    assert!(
        a.rank() == b.rank(),
        "dsa_angle: maps of rank {} and {}",
        a.rank(),
        b.rank()
    );
    let (a, b) = (a.unit()?, b.unit()?);
    let found = map_chunks(starts.max(1), 1, |r| {
        let turn = descend(&a, &b, start(&a, &b, r.start)?);
        // Twice the arcsine of half the chord: the arccosine has no digits left near 0.
        let chord = (&a - &turn * &b * turn.transpose()).norm_l2();
        Ok::<f64, Error>(2.0 * (chord / 2.0).min(1.0).asin())
    });
    found
        .into_iter()
        .try_fold(f64::INFINITY, |least, angle| angle.map(|a| least.min(a)))
}

/// Where a search starts: the first two from the eigenvectors of the symmetric parts, one in each half
/// of the group, the others from random matrices.
fn start(a: &Mat<f64>, b: &Mat<f64>, number: usize) -> Result<Mat<f64>, Error> {
    let n = a.nrows();
    if number < 2 {
        let symmetric = |m: &Mat<f64>| {
            let vectors = (m + m.transpose()).self_adjoint_eigen(Side::Lower);
            vectors.map(|found| found.U().to_owned())
        };
        let (Ok(u), Ok(mut v)) = (symmetric(a), symmetric(b)) else {
            return Err(Error::Undefined {
                why: "the eigenvalues of its dynamics did not converge",
            });
        };
        if number == 1 {
            v.col_mut(0).iter_mut().for_each(|v| *v = -*v);
        }
        return Ok(u * v.transpose());
    }
    let mut rng = ChaCha8Rng::seed_from_u64(number as u64);
    let random = Mat::from_fn(n, n, |_, _| rng.random_range(-1.0..1.0));
    let mut turn = random.qr().compute_Q();
    if rng.random() {
        turn.col_mut(0).iter_mut().for_each(|v| *v = -*v);
    }
    Ok(turn)
}

/// Most steps of one search, and the length of the gradient at which it ends.
const STEPS: usize = 500;
const FLAT: f64 = 1e-8;

/// Minimises `f(C) = -⟨A, C B Cᵀ⟩` over the orthogonal group from `c`: steps along curves of the group
/// (Cayley transforms) of Barzilai-Borwein lengths, shortened until `f` lies below a running mean of
/// what it was (Zhang & Hager 2004).
fn descend(a: &Mat<f64>, b: &Mat<f64>, mut c: Mat<f64>) -> Mat<f64> {
    let value = |c: &Mat<f64>| -inner(a, &(c * b * c.transpose()));
    let mut f = value(&c);
    let (mut reference, mut weight, mut length) = (f, 1.0, 1.0);
    let (mut skew, mut gradient) = slope(a, b, &c);
    for step in 0..STEPS {
        let squared = skew.squared_norm_l2();
        if gradient.norm_l2() <= FLAT {
            break;
        }
        let (mut next, mut lower) = (along(&skew, &c, length), 0.0);
        for _ in 0..40 {
            lower = value(&next);
            if lower <= reference - 1e-4 * length * squared / 2.0 {
                break;
            }
            length /= 4.0;
            next = along(&skew, &c, length);
        }
        let moved = &next - &c;
        let before = gradient;
        c = next;
        f = lower;
        (skew, gradient) = slope(a, b, &c);
        let bent = &gradient - before;
        let along_both = inner(&moved, &bent).abs().max(f64::MIN_POSITIVE);
        length = match step % 2 {
            0 => moved.squared_norm_l2() / along_both,
            _ => along_both / bent.squared_norm_l2().max(f64::MIN_POSITIVE),
        };
        length = length.clamp(1e-10, 1e10);
        let heavier = 0.85 * weight + 1.0;
        reference = (0.85 * weight * reference + f) / heavier;
        weight = heavier;
    }
    c
}

/// `W = G Cᵀ - C Gᵀ` of the gradient `G` of `f` at `C`, and the gradient along the group, `W C`.
fn slope(a: &Mat<f64>, b: &Mat<f64>, c: &Mat<f64>) -> (Mat<f64>, Mat<f64>) {
    let g = -(a * c * b.transpose() + a.transpose() * c * b);
    let skew = &g * c.transpose() - c * g.transpose();
    let gradient = &skew * c;
    (skew, gradient)
}

/// `(I + ½ t W)⁻¹ (I - ½ t W) C`.
fn along(skew: &Mat<f64>, c: &Mat<f64>, t: f64) -> Mat<f64> {
    let half = faer::Scale(t / 2.0) * skew;
    let identity = Mat::<f64>::identity(c.nrows(), c.nrows());
    let right = c - &half * c;
    (identity + half).partial_piv_lu().solve(right)
}

fn inner(a: &Mat<f64>, b: &Mat<f64>) -> f64 {
    let column = |j: usize| {
        a.col(j)
            .iter()
            .zip(b.col(j).iter())
            .map(|(a, b)| a * b)
            .sum::<f64>()
    };
    (0..a.ncols()).map(column).sum()
}
