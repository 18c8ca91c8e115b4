//! Whitening by the covariance of the dissimilarities (Diedrichsen et al. 2021).
//!
//! Squared distances of rows with noise of covariance `S` between conditions covary as `V = Ξ ∘ Ξ`, with
//! `Ξ = C S Cᵀ` and `C` the differences of all pairs. `V` has `m²` entries for `m` pairs, but its product
//! with a vector `d`, written as a symmetric matrix `D` of zero diagonal, needs two products of `n × n`
//! matrices: with `r = D 1`, `t = (S ∘ S) r`, `P = S D S` and `Q = S diag(r) S`,
//! `(V d)_ij = t_i + t_j - P_ii - P_jj + 2 P_ij - 2 Q_ij`.

use faer::Mat;

use super::super::Error;
use super::super::host::dot;
use super::compare::Chosen;

/// Squared relative residual at which a solution is taken.
const SOLVED: f64 = 1e-26;

/// The covariance of the dissimilarities of some pairs of `n` conditions.
pub(super) struct Whitening<'a> {
    pairs: Chosen<'a>,
    s: Mat<f64>,
    /// `s ∘ s`.
    squared: Mat<f64>,
}

impl<'a> Whitening<'a> {
    /// Independent and equal noise of the conditions.
    pub(super) fn equal(pairs: Chosen<'a>) -> Self {
        Self::new(pairs, Mat::identity(pairs.n, pairs.n))
    }

    pub(super) fn new(pairs: Chosen<'a>, s: Mat<f64>) -> Self {
        let squared = Mat::from_fn(pairs.n, pairs.n, |i, j| s[(i, j)] * s[(i, j)]);
        Self { pairs, s, squared }
    }

    /// `V d`.
    fn apply(&self, d: &[f64]) -> Vec<f64> {
        let n = self.pairs.n;
        let whole = square(&spread(d, self.pairs), n);
        let r = &whole * Mat::from_fn(n, 1, |_, _| 1.0);
        let t = &self.squared * &r;
        let p = &self.s * &whole * &self.s;
        let q = Mat::from_fn(n, n, |i, j| self.s[(i, j)] * r[(j, 0)]) * &self.s;
        let value =
            |(i, j)| t[(i, 0)] + t[(j, 0)] - p[(i, i)] - p[(j, j)] + 2.0 * (p[(i, j)] - q[(i, j)]);
        let all: Vec<f64> = upper(n).map(value).collect();
        match self.pairs.kept {
            Some(kept) => kept.iter().map(|&at| all[at]).collect(),
            None => all,
        }
    }

    /// `V⁻¹ d` by conjugate gradients.
    pub(super) fn solve(&self, d: &[f64]) -> Result<Vec<f64>, Error> {
        let mut x = vec![0.0; d.len()];
        let mut residual = d.to_vec();
        let mut direction = d.to_vec();
        let mut size = dot(&residual, &residual);
        let enough = SOLVED * size;
        for _ in 0..10 * d.len().max(10) {
            if size <= enough {
                return Ok(x);
            }
            let image = self.apply(&direction);
            let curvature = dot(&direction, &image);
            if curvature <= 0.0 {
                break;
            }
            let step = size / curvature;
            for i in 0..d.len() {
                x[i] += step * direction[i];
                residual[i] -= step * image[i];
            }
            let last = std::mem::replace(&mut size, dot(&residual, &residual));
            for i in 0..d.len() {
                direction[i] = residual[i] + size / last * direction[i];
            }
        }
        Err(Error::Undefined {
            why: "the covariance of its dissimilarities cannot be inverted",
        })
    }
}

/// The pairs `i < j` of `n`, row-major.
pub(super) fn upper(n: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..n).flat_map(move |i| (i + 1..n).map(move |j| (i, j)))
}

/// Values of the kept pairs in the whole upper triangle, 0 elsewhere.
pub(super) fn spread(values: &[f64], pairs: Chosen<'_>) -> Vec<f64> {
    match pairs.kept {
        None => values.to_vec(),
        Some(kept) => {
            let mut whole = vec![0.0; pairs.n * (pairs.n - 1) / 2];
            kept.iter().zip(values).for_each(|(&at, v)| whole[at] = *v);
            whole
        }
    }
}

/// The symmetric matrix with this upper triangle and a zero diagonal.
pub(super) fn square(upper_values: &[f64], n: usize) -> Mat<f64> {
    let mut whole = Mat::zeros(n, n);
    for ((i, j), v) in upper(n).zip(upper_values) {
        whole[(i, j)] = *v;
        whole[(j, i)] = *v;
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `V` by its definition, for a covariance without structure and with pairs left out.
    #[test]
    fn the_product_is_that_of_the_matrix() {
        let n = 5;
        let root = Mat::from_fn(n, n, |i, j| ((3 * i + 5 * j) as f64).sin());
        let s = &root * root.transpose() + Mat::<f64>::identity(n, n);
        let all: Vec<(usize, usize)> = upper(n).collect();
        let kept = [0, 1, 3, 4, 7, 9];
        let d: Vec<f64> = kept.iter().map(|&k| (k as f64).cos()).collect();
        let pairs = Chosen {
            n,
            kept: Some(&kept),
        };
        let whitening = Whitening::new(pairs, s.clone());
        let product = whitening.apply(&d);
        let xi = |(i, j): (usize, usize), (k, l): (usize, usize)| {
            s[(i, k)] - s[(i, l)] - s[(j, k)] + s[(j, l)]
        };
        for (row, &a) in kept.iter().enumerate() {
            let terms = kept
                .iter()
                .zip(&d)
                .map(|(&b, d)| xi(all[a], all[b]).powi(2) * d);
            let expected: f64 = terms.sum();
            assert!((product[row] - expected).abs() < 1e-12 * expected.abs().max(1.0));
        }
        let back = whitening.apply(&whitening.solve(&d).unwrap());
        assert!(back.iter().zip(&d).all(|(a, b)| (a - b).abs() < 1e-10));
    }
}
