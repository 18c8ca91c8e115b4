//! Shape distances of responses that vary from trial to trial.

use std::ops::Range;

use burn::tensor::Tensor;
use faer::{Mat, MatRef, Side};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::Error;
use super::assignment::assignment;
use super::axes::no_convergence;
use super::axes::scaled_rows;
use super::energy::Samples;
use super::host::map_chunks;
use super::procrustes::{inner, rotation};
use crate::device::block_on;

/// What may be done to one side to bring it onto the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    /// Rotations and reflections.
    Orthogonal,
    /// Another order of the columns.
    Permutation,
    /// Nothing.
    Identity,
}

/// What the fit makes smallest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Weights {
    /// The distance itself.
    Distance,
    /// The same with `α²` and `(2 - α)²` for `α` and `2 - α`, and an end to the search, as the netrep
    /// library has them: not the smallest distance unless `α` is 0, 1 or 2.
    Netrep,
}

/// How the alignment is sought. The search goes downhill and can stop in a valley that is not the
/// deepest, so it is made from several starts, of which the best counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fit {
    /// What may be done.
    pub group: Group,
    /// What is made smallest; the energy distance has only one.
    pub weights: Weights,
    /// Random starts besides the one that aligns the means, in pairs of a draw and its inverse.
    pub starts: usize,
    /// Of the random starts.
    pub seed: u64,
}

impl Default for Fit {
    fn default() -> Self {
        Self {
            group: Group::Orthogonal,
            weights: Weights::Distance,
            starts: 4,
            seed: 0,
        }
    }
}

/// Steps of a search, and the share of the objective below which a further one is not made.
pub(super) const STEPS: usize = 1000;
pub(super) const SMALLEST: f64 = 1e-10;

/// For each of `m` stimuli the mean and covariance of the responses.
#[derive(Clone, Debug)]
pub struct Gaussians {
    /// `[m, d]`.
    mean: Mat<f64>,
    /// Symmetric roots of the covariances, `[d, d]` each.
    root: Vec<Mat<f64>>,
}

impl Gaussians {
    /// From means `[m, d]` and covariances `[m, d, d]`.
    ///
    /// # Errors
    /// A NaN or infinity; a covariance that is not symmetric, or has an eigenvalue below 0 by more than
    /// rounding ([`Error::Undefined`]); the device failing.
    ///
    /// # Panics
    /// If the shapes do not fit each other.
    ///
    /// # Cost
    /// `m` eigendecompositions, `O(m d³)`; `8 m d²` bytes.
    pub fn new(means: &Tensor<2>, covariances: &Tensor<3>) -> Result<Self, Error> {
        block_on(Self::new_async(means, covariances))
    }

    /// [`Gaussians::new`] without blocking.
    ///
    /// # Errors
    /// As [`Gaussians::new`].
    ///
    /// # Panics
    /// As [`Gaussians::new`].
    pub async fn new_async(means: &Tensor<2>, covariances: &Tensor<3>) -> Result<Self, Error> {
        let [m, d] = means.dims();
        assert_eq!(
            covariances.dims(),
            [m, d, d],
            "Gaussians::new: covariances beside means [{m}, {d}]"
        );
        let mean = matrix(means).await?;
        let all = matrix(&covariances.clone().reshape([m * d, d])).await?;
        let root = each(m, |i| root(all.as_ref().subrows(i * d, d)));
        Ok(Self {
            mean,
            root: root.into_iter().collect::<Result<_, _>>()?,
        })
    }

    /// Of repeated responses `[m, repeats, d]`; covariances over `repeats - 1`.
    ///
    /// # Errors
    /// Fewer than 2 repeats ([`Error::Undefined`]); a NaN or infinity; the device failing.
    pub fn of_samples(samples: &Tensor<3>) -> Result<Self, Error> {
        block_on(Self::of_samples_async(samples))
    }

    /// [`Gaussians::of_samples`] without blocking.
    ///
    /// # Errors
    /// As [`Gaussians::of_samples`].
    pub async fn of_samples_async(samples: &Tensor<3>) -> Result<Self, Error> {
        let samples = Samples::read(samples).await?;
        let (m, d) = (samples.of.len(), samples.d());
        let means: Vec<Vec<f64>> = samples.of.iter().map(column_means).collect();
        let covariance = |i: usize| {
            let x = &samples.of[i];
            let centred = Mat::from_fn(x.nrows(), d, |r, j| x[(r, j)] - means[i][j]);
            root((centred.transpose() * &centred * (1.0 / (x.nrows() - 1) as f64)).as_ref())
        };
        Ok(Self {
            mean: Mat::from_fn(m, d, |i, j| means[i][j]),
            root: each(m, covariance).into_iter().collect::<Result<_, _>>()?,
        })
    }

    fn shape(&self) -> [usize; 2] {
        [self.mean.nrows(), self.mean.ncols()]
    }
}

/// `f(i)` for each of a few, in order.
pub(super) fn each<R: Send>(m: usize, f: impl Fn(usize) -> R + Sync + Send) -> Vec<R> {
    let part = |r: Range<usize>| r.map(&f).collect::<Vec<_>>();
    map_chunks(m, 4, part).into_iter().flatten().collect()
}

/// Read back in f64, in its own unit.
pub(super) async fn matrix(x: &Tensor<2>) -> Result<Mat<f64>, Error> {
    let (rows, unit) = scaled_rows(x).await?;
    let (values, n, d) = (&rows.values[..], rows.n, rows.d);
    Ok(Mat::from_fn(n, d, |i, j| values[i * d + j] * unit))
}

pub(super) fn column_means(x: &Mat<f64>) -> Vec<f64> {
    let mean = |j: usize| x.col(j).sum() / x.nrows() as f64;
    (0..x.ncols()).map(mean).collect()
}

/// The symmetric root of a covariance.
fn root(c: MatRef<'_, f64>) -> Result<Mat<f64>, Error> {
    let rounding = 1e-5 * c.norm_max();
    if (c - c.transpose()).norm_max() > rounding {
        return Err(Error::Undefined {
            why: "a covariance is not symmetric",
        });
    }
    let eigen = c
        .self_adjoint_eigen(Side::Lower)
        .map_err(|_| no_convergence())?;
    let (values, vectors) = (eigen.S(), eigen.U());
    if values.column_vector().iter().any(|l| *l < -rounding) {
        return Err(Error::Undefined {
            why: "a covariance has an eigenvalue below 0",
        });
    }
    let half = Mat::from_fn(c.nrows(), c.nrows(), |i, j| {
        vectors[(i, j)] * values[j].max(0.0).sqrt()
    });
    Ok(half * vectors.transpose())
}

impl Group {
    /// The member `T` for which `tr(Tᵀ cross)` is largest.
    pub(super) fn best(self, cross: MatRef<'_, f64>) -> Result<Mat<f64>, Error> {
        let d = cross.nrows();
        match self {
            Self::Orthogonal => rotation(cross),
            Self::Permutation => {
                let scores: Vec<f64> = (0..d * d).map(|at| cross[(at / d, at % d)]).collect();
                Ok(permutation(d, &assignment(&scores, d, d)))
            }
            Self::Identity => Ok(Mat::identity(d, d)),
        }
    }

    /// A random member.
    fn draw(self, d: usize, rng: &mut ChaCha8Rng) -> Mat<f64> {
        match self {
            Self::Orthogonal => super::uncertainty::rotation(d, rng),
            Self::Permutation => {
                let mut order: Vec<usize> = (0..d).collect();
                order.shuffle(rng);
                permutation(d, &order.into_iter().enumerate().collect::<Vec<_>>())
            }
            Self::Identity => Mat::identity(d, d),
        }
    }
}

fn permutation(d: usize, pairs: &[(usize, usize)]) -> Mat<f64> {
    let mut turn = Mat::zeros(d, d);
    pairs.iter().for_each(|&(i, j)| turn[(i, j)] = 1.0);
    turn
}

impl Fit {
    /// The smallest `search(start)` over the aligned means and the random starts.
    pub(super) fn search(
        &self,
        means: MatRef<'_, f64>,
        search: impl Fn(Mat<f64>) -> Result<f64, Error>,
    ) -> Result<f64, Error> {
        let mut best = search(self.group.best(means)?)?;
        if self.group == Group::Identity {
            return Ok(best);
        }
        // With each start its inverse, so that exchanged sides search from the same places.
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        for _ in 0..self.starts.div_ceil(2) {
            let start = self.group.draw(means.nrows(), &mut rng);
            best = best.min(search(start.transpose().to_owned())?);
            best = best.min(search(start)?);
        }
        Ok(best)
    }
}

/// Stochastic shape distance of two networks whose responses to each of `m` stimuli are Gaussians: the
/// smallest, over alignments `T`, of `√(mean of α |μx - μy T|² + (2 - α) B²(Σx, Tᵀ Σy T))`, with `B` the
/// Bures distance of the covariances.
///
/// `alpha` lies in 0 to 2: with 2 only the means count, with 0 only the shape of the noise, and with 1
/// the term of a stimulus is the 2-Wasserstein distance of the Gaussians. Nothing is centred or scaled:
/// do so before if neither place nor unit matter. Unchanged by a member of the group applied to either
/// side. A metric, as far as the search finds the best alignment: symmetric, 0 for equal sides up to
/// the group, with the triangle inequality.
///
/// # Errors
/// Different numbers of stimuli or columns; an `alpha` outside 0 to 2 ([`Error::Undefined`]); a
/// decomposition that does not converge.
///
/// # Cost
/// For each step of each start `m` singular value decompositions `[d, d]`, `O(m d³)`, shared among
/// threads; up to 1,000 steps. Memory: a few `8 m d²` bytes.
///
/// # Source
/// Duong, Zhou, Nassar, Berman, Olieslagers & Williams 2023, "Representational Dissimilarity Metric
/// Spaces for Stochastic Neural Networks", equations 6 and 9. The alignment alternates, as theirs,
/// between the whole and one rotation for each stimulus. Theirs minimises another sum than it reports,
/// see [`Weights`], and starts from the means alone. The Bures distance is measured from the difference
/// of the aligned roots, which keeps its digits near 0.
///
/// ```
/// use inscape::{Device, similarity::{Fit, Gaussians, stochastic_shape_distance}};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let means = Tensor::<2>::from_data([[0., 1.], [1., 0.], [2., 3.]], cpu.tensor());
/// let noise = |a: f32, b: f32| Tensor::<3>::from_data([[[a, 0.], [0., b]]], cpu.tensor()).repeat_dim(0, 3);
/// let x = Gaussians::new(&means, &noise(4.0, 1.0))?;
/// let y = Gaussians::new(&means, &noise(1.0, 4.0))?;
/// let apart = |alpha| stochastic_shape_distance(&x, &y, alpha, Fit::default());
/// assert!(apart(2.0)? < 1e-6); // the means agree
/// assert!(apart(0.0)? < 1e-6); // so does the noise, turned
/// assert!(apart(1.0)? > 0.5); // but not both at once
/// # Ok(())
/// # }
/// ```
pub fn stochastic_shape_distance(
    x: &Gaussians,
    y: &Gaussians,
    alpha: f64,
    fit: Fit,
) -> Result<f64, Error> {
    let (left, right) = (x.shape(), y.shape());
    check(left, right)?;
    if !(0.0..=2.0).contains(&alpha) {
        return Err(Error::Undefined {
            why: "alpha of a stochastic shape distance lies in 0 to 2",
        });
    }
    let of = [alpha, 2.0 - alpha];
    let sought = match fit.weights {
        Weights::Distance => of,
        Weights::Netrep => of.map(|w| w * w),
    };
    let means = y.mean.transpose() * &x.mean;
    let whole = sought[0] * (x.mean.squared_norm_l2() + y.mean.squared_norm_l2())
        + sought[1] * (squares(&x.root) + squares(&y.root));
    fit.search(means.as_ref(), |start| {
        let mut gap = Gap::of(x, y, &start, sought)?;
        let mut last = f64::INFINITY;
        for step in 0..STEPS {
            let turn = fit.group.best(gap.cross.as_ref())?;
            // Before the stimuli follow, which is where netrep looks.
            let halfway = (whole - 2.0 * inner(&turn, &gap.cross)).max(0.0).sqrt();
            let before = gap.weighted(sought);
            gap = Gap::of(x, y, &turn, sought)?;
            let enough = match fit.weights {
                Weights::Distance => before - gap.weighted(sought) <= SMALLEST * before,
                Weights::Netrep => step >= 2 && last - halfway < 1e-8,
            };
            if enough {
                break;
            }
            last = halfway;
        }
        Ok((gap.weighted(of) / left[0] as f64).sqrt())
    })
}

pub(super) fn check(left: [usize; 2], right: [usize; 2]) -> Result<(), Error> {
    match (left[0] == right[0], left[1] == right[1]) {
        (false, _) => Err(Error::RowsDiffer { left, right }),
        (_, false) => Err(Error::ColumnsDiffer { left, right }),
        _ => Ok(()),
    }
}

fn squares(of: &[Mat<f64>]) -> f64 {
    of.iter().map(|x| x.squared_norm_l2()).sum()
}

/// What an alignment leaves between two sides, and the products from which the next follows.
struct Gap {
    /// Of the means, and of the roots once each is turned to fit best.
    squared: [f64; 2],
    cross: Mat<f64>,
}

impl Gap {
    fn of(x: &Gaussians, y: &Gaussians, turn: &Mat<f64>, weights: [f64; 2]) -> Result<Self, Error> {
        let noise = each(x.root.len(), |i| {
            let (a, b) = (&x.root[i], &y.root[i]);
            let turned = b * turn;
            let own = rotation((a * turned.transpose()).as_ref())?;
            let left = (a - &own * turned).squared_norm_l2();
            Ok::<_, Error>((left, b.transpose() * own.transpose() * a))
        });
        let means = (&x.mean - &y.mean * turn).squared_norm_l2();
        let mut gap = Self {
            squared: [means, 0.0],
            cross: y.mean.transpose() * &x.mean * weights[0],
        };
        for stimulus in noise {
            let (left, cross) = stimulus?;
            gap.squared[1] += left;
            gap.cross += cross * weights[1];
        }
        Ok(gap)
    }

    fn weighted(&self, weights: [f64; 2]) -> f64 {
        weights[0] * self.squared[0] + weights[1] * self.squared[1]
    }
}
