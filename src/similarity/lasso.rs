//! Each unit of one representation predicted from few units of another.

use burn::tensor::Tensor;

use super::Error;
use super::correlations::{Standard, same_rows};
use super::host::map_chunks;
use crate::device::block_on;

/// Most sweeps over the weights of one unit.
const SWEEPS: usize = 10_000;

/// How one unit is predicted, units of both sides being taken with mean 0 and variance 1.
#[derive(Clone, Debug, PartialEq)]
pub struct SparsePrediction {
    /// Units of the other side with their weights, ascending; those with a weight of 0 are left out.
    pub from: Vec<(usize, f64)>,
    /// Share of the unit's variance that the prediction explains, at most 1.
    pub explained: f64,
}

/// Predicts every unit of `y` from as few units of `x` as a penalty of `lambda` leaves.
///
/// `x` is `[n, dx]`, `y` is `[n, dy]`; the result has one [`SparsePrediction`] for each column of `y`.
/// With all columns standardised, `½ mean (y - x w)² + lambda Σ |w|` is the smallest it can be (the
/// lasso), so `lambda` is in units of a correlation: a unit is left without any prediction if none of
/// its correlations with `x` exceeds it. A column that is constant predicts nothing, and 0 of it is
/// explained.
///
/// # Errors
/// Different row counts; fewer than 2 rows; a NaN or infinity; columns that are all constant; a
/// `lambda` that is not above 0, or weights that do not converge ([`Error::Undefined`]); the device
/// failing.
///
/// # Cost
/// `n dx (dx + dy)` multiply-adds for the correlations, then `dx` for each change of a weight. Memory:
/// a standardised copy of each side, `8 dx (dx + dy)` bytes.
///
/// # Source
/// Li, Yosinski, Clune, Lipson & Hopcroft 2015, "Convergent Learning: Do different neural networks
/// learn the same representations?", section 4 (one-to-many mappings). By coordinate descent on the
/// correlations (Friedman, Hastie & Tibshirani 2010), so that the rows are gone through once.
///
/// # Example
/// ```
/// use inscape::{Device, similarity::sparse_prediction};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::from_data([[0., 1., 1.], [1., 0., 1.], [2., 3., 0.], [4., 1., 0.]], cpu.tensor());
/// let y = x.clone().narrow(1, 1, 1) * 5.0;
/// let found = sparse_prediction(&x, &y, 0.1)?;
/// assert_eq!(found[0].from.len(), 1);
/// assert_eq!(found[0].from[0].0, 1);
/// assert!((found[0].from[0].1 - 0.9).abs() < 1e-6); // the penalty shrinks it
/// # Ok(())
/// # }
/// ```
pub fn sparse_prediction(
    x: &Tensor<2>,
    y: &Tensor<2>,
    lambda: f64,
) -> Result<Vec<SparsePrediction>, Error> {
    block_on(sparse_prediction_async(x, y, lambda))
}

/// [`sparse_prediction`] without blocking.
///
/// # Errors
/// As [`sparse_prediction`].
pub async fn sparse_prediction_async(
    x: &Tensor<2>,
    y: &Tensor<2>,
    lambda: f64,
) -> Result<Vec<SparsePrediction>, Error> {
    if lambda.is_nan() || lambda <= 0.0 {
        let why = "lambda is not above 0";
        return Err(Error::Undefined { why });
    }
    same_rows(x, y)?;
    let x = Standard::prepare(x).await.map_err(|e| e.at("left"))?;
    let y = Standard::prepare(y).await.map_err(|e| e.at("right"))?;
    let (own, with) = (x.correlations(&x).await?, y.correlations(&x).await?);
    let found = map_chunks(with.rows, 1, |r| {
        let c = with.row(r.start);
        descend(&own.values, c, lambda).map(|w| prediction(c, &w))
    });
    found.into_iter().collect()
}

/// Weights and what is left of the correlations, `c - G w`.
struct Weights {
    w: Vec<f64>,
    left: Vec<f64>,
}

/// Coordinate descent on `½ wᵀ G w - cᵀ w + lambda Σ |w|`, over all weights and then over those that
/// are not 0 until they stand, again and again.
fn descend(g: &[f64], c: &[f64], lambda: f64) -> Result<Weights, Error> {
    let mut at = Weights {
        w: vec![0.0; c.len()],
        left: c.to_vec(),
    };
    for _ in 0..SWEEPS {
        let all = 0..c.len();
        if at.sweep(g, lambda, all) < 1e-10 {
            return Ok(at);
        }
        let active: Vec<usize> = (0..c.len()).filter(|&k| at.w[k] != 0.0).collect();
        for _ in 0..SWEEPS {
            if at.sweep(g, lambda, active.iter().copied()) < 1e-10 {
                break;
            }
        }
    }
    let why = "its sparse weights did not converge: take a larger lambda";
    Err(Error::Undefined { why })
}

impl Weights {
    /// Sets each of these weights to its best; the largest change.
    fn sweep(&mut self, g: &[f64], lambda: f64, which: impl Iterator<Item = usize>) -> f64 {
        let d = self.w.len();
        let mut most = 0.0f64;
        for k in which {
            let row = &g[k * d..(k + 1) * d];
            if row[k] == 0.0 {
                continue; // a constant column
            }
            let pull = self.left[k] + row[k] * self.w[k];
            let new = pull.signum() * (pull.abs() - lambda).max(0.0) / row[k];
            let change = new - self.w[k];
            if change != 0.0 {
                self.left
                    .iter_mut()
                    .zip(row)
                    .for_each(|(l, g)| *l -= change * g);
                self.w[k] = new;
                most = most.max(change.abs());
            }
        }
        most
    }
}

/// With `G w = c - left` the error `1 - 2 cᵀ w + wᵀ G w` needs no product with `G`.
fn prediction(c: &[f64], found: &Weights) -> SparsePrediction {
    let term = |(w, (c, left)): (&f64, (&f64, &f64))| w * (c + left);
    let pairs = found.w.iter().zip(c.iter().zip(&found.left));
    let from = found.w.iter().copied().enumerate();
    SparsePrediction {
        from: from.filter(|f| f.1 != 0.0).collect(),
        explained: pairs.map(term).sum(),
    }
}
