//! The stochastic shape distance of responses as they are: the energy distance.

use burn::tensor::Tensor;
use faer::Mat;

use super::Error;
use super::stochastic::{Fit, SMALLEST, STEPS, check, column_means, each, matrix};
use crate::device::block_on;

/// Repeated responses to each stimulus, `[repeats, d]` each.
pub(super) struct Samples {
    pub(super) of: Vec<Mat<f64>>,
}

impl Samples {
    pub(super) async fn read(samples: &Tensor<3>) -> Result<Self, Error> {
        let [m, repeats, d] = samples.dims();
        if repeats < 2 {
            return Err(Error::Undefined {
                why: "fewer than 2 responses to a stimulus say nothing of its noise",
            });
        }
        let all = matrix(&samples.clone().reshape([m * repeats, d])).await?;
        let one = |i: usize| all.subrows(i * repeats, repeats).to_owned();
        Ok(Self {
            of: (0..m).map(one).collect(),
        })
    }

    pub(super) fn d(&self) -> usize {
        self.of.first().map_or(0, Mat::ncols)
    }

    /// Mean over the stimuli of the mean distance of two responses to the same, each to itself left out.
    fn within(&self) -> f64 {
        let of_one = |i: usize| {
            let (x, n) = (&self.of[i], self.of[i].nrows());
            let pairs = (0..n).flat_map(|a| (0..a).map(move |b| (a, b)));
            let sum: f64 = pairs.map(|(a, b)| (x.row(a) - x.row(b)).norm_l2()).sum();
            sum / (n * (n - 1) / 2) as f64
        };
        each(self.of.len(), of_one).iter().sum::<f64>() / self.of.len() as f64
    }
}

/// Below this a distance weighs as if it were this.
const LEAST: f64 = 1e-12;

/// Mean distance of all pairs of responses to the same stimulus, one of `x` and one of `y` turned, and
/// the products, each pair weighted by one over its distance, from which the next alignment follows.
fn between(x: &Samples, y: &Samples, turn: &Mat<f64>) -> (f64, Mat<f64>) {
    let d = x.d();
    let of_one = |i: usize| {
        let (x, y) = (&x.of[i], &y.of[i]);
        let turned = y * turn;
        let apart = Mat::from_fn(y.nrows(), x.nrows(), |b, a| {
            (x.row(a) - turned.row(b)).norm_l2()
        });
        let weights = Mat::from_fn(y.nrows(), x.nrows(), |b, a| {
            apart[(b, a)].max(LEAST).recip()
        });
        let mean = apart.sum() / (x.nrows() * y.nrows()) as f64;
        (mean, y.transpose() * weights * x)
    };
    let (mut mean, mut cross) = (0.0, Mat::zeros(d, d));
    for (one, products) in each(x.of.len(), of_one) {
        mean += one / x.of.len() as f64;
        cross += products;
    }
    (mean, cross)
}

/// Stochastic shape distance from repeated responses, without taking them for Gaussians: the smallest,
/// over alignments `T`, of `√(E|x - yT| - (E|x - x'| + E|y - y'|) / 2)`, the energy distance averaged
/// over the stimuli.
///
/// `x` is `[m, repeats, d]`, `y` is `[m, repeats', d]`: responses of two networks to each of `m` stimuli.
/// Means over pairs within a side leave out each response with itself, so noise alone averages to 0;
/// where it comes out below 0 the result is 0. Unchanged by a member of the group applied to either
/// side. `fit.weights` plays no part.
///
/// # Errors
/// Different numbers of stimuli or columns; fewer than 2 repeats ([`Error::Undefined`]); a NaN or
/// infinity; the device failing.
///
/// # Cost
/// For each step of each start `m repeats repeats' d` multiply-adds and one singular value decomposition
/// `[d, d]`; up to 1,000 steps.
///
/// # Source
/// Duong et al. 2023, equation 8; the alignment by reweighted least squares, as theirs, each pair
/// weighted by one over its distance. Theirs starts from all pairs weighted alike, which is one of the
/// starts here, and stops sooner.
///
/// ```
/// use inscape::{Device, similarity::{Fit, energy_shape_distance}};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let x = Tensor::<3>::from_data([[[0., 1.], [2., 1.]], [[1., 0.], [3., 0.]]], cpu.tensor());
/// let mirrored = x.clone().flip([2]);
/// let moved = x.clone() + 5.0;
/// let apart = |y| energy_shape_distance(&x, &y, Fit::default());
/// assert!(apart(mirrored)? < 1e-3 && apart(moved)? > 0.5);
/// # Ok(())
/// # }
/// ```
pub fn energy_shape_distance(x: &Tensor<3>, y: &Tensor<3>, fit: Fit) -> Result<f64, Error> {
    block_on(energy_shape_distance_async(x, y, fit))
}

/// [`energy_shape_distance`] without blocking.
///
/// # Errors
/// As [`energy_shape_distance`].
pub async fn energy_shape_distance_async(
    x: &Tensor<3>,
    y: &Tensor<3>,
    fit: Fit,
) -> Result<f64, Error> {
    let shape = |x: &Tensor<3>| [x.dims()[0], x.dims()[2]];
    check(shape(x), shape(y))?;
    let x = Samples::read(x).await.map_err(|e| e.at("left"))?;
    let y = Samples::read(y).await.map_err(|e| e.at("right"))?;
    let within = (x.within() + y.within()) / 2.0;
    let pairs = x.of.iter().zip(&y.of);
    let means = pairs
        .map(|(x, y)| row(&column_means(y)).transpose() * row(&column_means(x)))
        .fold(Mat::zeros(x.d(), x.d()), |sum, m| sum + m);
    let apart = fit.search(means.as_ref(), |start| {
        let (mut apart, mut cross) = between(&x, &y, &start);
        for _ in 0..STEPS {
            let (next, products) = between(&x, &y, &fit.group.best(cross.as_ref())?);
            if apart - next <= SMALLEST * apart {
                return Ok(apart.min(next));
            }
            (apart, cross) = (next, products);
        }
        Ok(apart)
    })?;
    Ok((apart - within).max(0.0).sqrt())
}

fn row(values: &[f64]) -> Mat<f64> {
    Mat::from_fn(1, values.len(), |_, j| values[j])
}
