//! Partial least squares of several targets.

use faer::{Col, ColRef, Mat, MatRef, Side};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Error;
use super::axes::no_convergence;

/// What is left of the covariance after this share of it is rounding.
const NOTHING: f64 = 1e-12;

/// The map from centred predictors to centred targets, in factors.
pub(super) struct Fitted {
    /// Directions of the predictors, a column `[d]` a component.
    directions: Vec<Col<f64>>,
    /// What each component's scores are worth in every target, `[q]`.
    loadings: Vec<Col<f64>>,
}

impl Fitted {
    /// Predictions `[t, q]` for turned rows `[d, t]`.
    pub(super) fn predictions(&self, x: MatRef<'_, f64>) -> Mat<f64> {
        let q = self.loadings.first().map_or(0, Col::nrows);
        let scores = x.transpose() * joined(&self.directions, x.nrows());
        scores * joined(&self.loadings, q).transpose()
    }
}

fn joined(columns: &[Col<f64>], rows: usize) -> Mat<f64> {
    Mat::from_fn(rows, columns.len(), |i, j| columns[j][i])
}

/// PLS2 with at most `components` components, of turned and centred rows `[d, m]` and `[q, m]`; fewer
/// where the covariance is used up.
///
/// The weights of a component are the leading left singular vector of what is left of `XᵀY`. Only that
/// product is deflated, which gives the same components as deflating both sides (Dayal & MacGregor 1997,
/// "Improved PLS algorithms").
pub(super) fn fit(
    x: MatRef<'_, f64>,
    y: MatRef<'_, f64>,
    components: usize,
) -> Result<Fitted, Error> {
    let mut left = x * y.transpose();
    let nothing = NOTHING * left.norm_l2();
    let mut on: Vec<Col<f64>> = Vec::new(); // loadings of the predictors
    let (mut directions, mut loadings) = (Vec::new(), Vec::new());
    for _ in 0..components {
        if left.norm_l2() <= nothing {
            break;
        }
        let weights = leading(left.as_ref())?;
        let mut direction = weights.clone();
        for (p, r) in on.iter().zip(&directions) {
            direction -= r * (p.transpose() * &weights);
        }
        let scores = x.transpose() * &direction;
        let squared = scores.squared_norm_l2();
        let p = x * &scores / squared;
        let q = left.transpose() * &direction / squared;
        left -= &p * (q.transpose() * squared);
        on.push(p);
        directions.push(direction);
        loadings.push(q);
    }
    if loadings.is_empty() {
        directions.push(Col::zeros(x.nrows()));
        loadings.push(Col::zeros(y.nrows()));
    }
    Ok(Fitted {
        directions,
        loadings,
    })
}

/// Most steps of a Lanczos iteration: enough for singular values a thousandth apart.
const STEPS: usize = 200;

/// Steps between looks at what has been found.
const LOOK: usize = 8;

/// Residual at which a singular vector is found, as a share of the squared singular value.
const FOUND: f64 = 1e-14;

/// The left singular vector of the largest singular value, by a Lanczos iteration on the product with the
/// transpose that is the smaller, each vector made orthogonal to all before it.
fn leading(a: MatRef<'_, f64>) -> Result<Col<f64>, Error> {
    let turn = a.nrows() > a.ncols();
    let b = if turn { a.transpose() } else { a };
    let found = leading_of_square(b)?;
    let vector = if turn { a * &found } else { found };
    let length = vector.norm_l2();
    Ok(vector / length)
}

/// The eigenvector of `b bᵀ` of the largest eigenvalue.
fn leading_of_square(b: MatRef<'_, f64>) -> Result<Col<f64>, Error> {
    let most = b.nrows().min(STEPS);
    let mut basis = vec![start(b.nrows())];
    let (mut diagonal, mut beside) = (Vec::new(), Vec::new());
    loop {
        let last = &basis[basis.len() - 1];
        let mut next = b * (b.transpose() * last);
        diagonal.push(last.transpose() * &next);
        for _ in 0..2 {
            for v in &basis {
                next -= v * (v.transpose() * &next);
            }
        }
        let length = next.norm_l2();
        let steps = basis.len();
        if steps % LOOK == 0 || steps == most || length <= FOUND * diagonal[0] {
            let (value, vector) = ritz(&diagonal, &beside)?;
            if steps == most || length * vector[steps - 1].abs() <= FOUND * value {
                let sum = |out: Col<f64>, (v, c): (&Col<f64>, &f64)| out + v * *c;
                return Ok(basis.iter().zip(&vector).fold(Col::zeros(b.nrows()), sum));
            }
        }
        beside.push(length);
        basis.push(next / length);
    }
}

/// A direction that no data has a reason to be orthogonal to.
fn start(n: usize) -> Col<f64> {
    let mut draws = ChaCha8Rng::seed_from_u64(0);
    let vector = Col::from_fn(n, |_| draws.random_range(-1.0..1.0));
    let length = vector.norm_l2();
    vector / length
}

/// The largest eigenvalue of the tridiagonal matrix, and its eigenvector.
fn ritz(diagonal: &[f64], beside: &[f64]) -> Result<(f64, Vec<f64>), Error> {
    let n = diagonal.len();
    let matrix = Mat::from_fn(n, n, |i, j| match i.abs_diff(j) {
        0 => diagonal[i],
        1 => beside[i.min(j)],
        _ => 0.0,
    });
    let found = matrix
        .self_adjoint_eigen(Side::Lower)
        .map_err(|_| no_convergence())?;
    let vector: ColRef<'_, f64> = found.U().col(n - 1);
    Ok((found.S()[n - 1], vector.iter().copied().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(n: usize, d: usize) -> Mat<f64> {
        Mat::from_fn(n, d, |i, j| {
            ((i * i + 3 * i * j + 7 * j) as f64 * 0.37).sin() + 0.3 * (i as f64 - j as f64).cos()
        })
    }

    #[test]
    fn the_leading_vector_is_that_of_the_decomposition() {
        for (n, d) in [(1, 5), (5, 1), (30, 20), (20, 30), (300, 250)] {
            let a = wave(n, d);
            let found = leading(a.as_ref()).unwrap();
            let plain = a.thin_svd().unwrap();
            let along = (found.transpose() * plain.U().col(0)).abs();
            assert!((along - 1.0).abs() < 1e-12, "{n} {d}: {along}");
        }
    }

    /// With as many components as columns it is least squares; of a map of rank 1 one is enough.
    #[test]
    fn all_components_are_least_squares() {
        let (x, y) = (wave(6, 40), wave(4, 50).subcols(3, 40).to_owned());
        let inverse = (&x * x.transpose())
            .self_adjoint_eigen(Side::Lower)
            .unwrap();
        let s = inverse.S().column_vector();
        let scaled = Mat::from_fn(6, 6, |i, j| inverse.U()[(i, j)] / s[j]);
        let weights = scaled * (inverse.U().transpose() * (&x * y.transpose()));
        let plain = x.transpose() * weights;
        for components in [6, 30] {
            let fitted = fit(x.as_ref(), y.as_ref(), components).unwrap();
            assert!((fitted.predictions(x.as_ref()) - &plain).norm_max() < 1e-9);
            assert_eq!(fitted.directions.len(), 6);
        }
    }

    #[test]
    fn nothing_in_common_predicts_nothing() {
        let x = Mat::from_fn(2, 4, |i, j| [[1.0, -1.0, 1.0, -1.0], [0.0; 4]][i][j]);
        let y = Mat::from_fn(1, 4, |_, j| [1.0, 1.0, -1.0, -1.0][j]);
        let fitted = fit(x.as_ref(), y.as_ref(), 2).unwrap();
        assert_eq!(fitted.predictions(x.as_ref()).norm_max(), 0.0);
    }
}
