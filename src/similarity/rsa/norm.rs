//! Norms of the difference of two dissimilarity matrices.

use faer::{Mat, Side};

use super::super::Error;
use super::super::axes::no_convergence;
use super::super::host::{Values, dot, map_chunks, sum};

/// Which norm of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Norm {
    /// Root of the sum of all squares.
    Frobenius,
    /// Largest absolute eigenvalue.
    Spectral,
}

impl Norm {
    /// The name as options spell it.
    pub(super) const NAMES: [(&'static str, Self); 2] =
        [("frobenius", Self::Frobenius), ("spectral", Self::Spectral)];
}

/// Share of the eigenvalue that its error bound may have.
const ENOUGH: f64 = 1e-13;

/// Most steps of Lanczos.
const STEPS: usize = 300;

/// Norm of `A - B` of two symmetric matrices of zero diagonal, given by their upper triangles.
pub(super) fn of_difference(a: &Values, b: &Values, n: usize, norm: Norm) -> Result<f64, Error> {
    let a = Difference { a, b };
    match norm {
        Norm::Frobenius => Ok((2.0 * sum(a.len(), |i| a.at(i).powi(2))).sqrt()),
        Norm::Spectral => {
            let upper: Vec<f64> = (0..a.len()).map(|i| a.at(i)).collect();
            largest_eigenvalue(&upper, n)
        }
    }
}

struct Difference<'a> {
    a: &'a Values,
    b: &'a Values,
}

impl Difference<'_> {
    fn len(&self) -> usize {
        match self.a {
            Values::F32(v) => v.len(),
            Values::F64(v) => v.len(),
        }
    }

    fn at(&self, i: usize) -> f64 {
        let of = |values: &Values| match values {
            Values::F32(v) => f64::from(v[i]),
            Values::F64(v) => v[i],
        };
        of(self.a) - of(self.b)
    }
}

/// Largest absolute eigenvalue by Lanczos, every new vector made orthogonal to all before, twice.
fn largest_eigenvalue(upper: &[f64], n: usize) -> Result<f64, Error> {
    if upper.iter().all(|v| *v == 0.0) {
        return Ok(0.0);
    }
    let mut basis: Vec<Vec<f64>> = Vec::new();
    let (mut diagonal, mut beside) = (Vec::new(), Vec::new());
    let start: Vec<f64> = (0..n).map(|i| 1.0 + 0.3 * (i as f64 * 1.7).sin()).collect();
    let mut next = scaled(&start, dot(&start, &start).sqrt().recip());
    for step in 1..=n.min(STEPS) {
        let mut image = product(upper, &next);
        diagonal.push(dot(&image, &next));
        basis.push(next);
        for _ in 0..2 {
            for v in &basis {
                let along = dot(&image, v);
                image.iter_mut().zip(v).for_each(|(x, v)| *x -= along * v);
            }
        }
        let length = dot(&image, &image).sqrt();
        if step % 8 == 0 || step == n.min(STEPS) || length == 0.0 {
            let (value, last) = ritz(&diagonal, &beside)?;
            let bound = length * last.abs();
            if bound <= ENOUGH * value.abs() || step == n.min(STEPS) || length == 0.0 {
                return Ok(value.abs());
            }
        }
        beside.push(length);
        next = scaled(&image, length.recip());
    }
    Err(no_convergence())
}

/// The eigenvalue of largest absolute value of a tridiagonal matrix, and the last entry of its vector.
fn ritz(diagonal: &[f64], beside: &[f64]) -> Result<(f64, f64), Error> {
    let k = diagonal.len();
    let entry = |i: usize, j: usize| match i.abs_diff(j) {
        0 => diagonal[i],
        1 => beside[i.min(j)],
        _ => 0.0,
    };
    let eigen = Mat::from_fn(k, k, entry)
        .self_adjoint_eigen(Side::Lower)
        .map_err(|_| no_convergence())?;
    let value = |i: usize| eigen.S().column_vector()[i];
    let at = if value(0).abs() > value(k - 1).abs() {
        0
    } else {
        k - 1
    };
    Ok((value(at), eigen.U()[(k - 1, at)]))
}

fn scaled(v: &[f64], by: f64) -> Vec<f64> {
    v.iter().map(|v| v * by).collect()
}

/// Symmetric matrix of zero diagonal times a vector.
fn product(upper: &[f64], x: &[f64]) -> Vec<f64> {
    let n = x.len();
    let parts = map_chunks(n, 256, |r| {
        let mut y = vec![0.0; n];
        for i in r {
            let row = &upper[i * (2 * n - i - 1) / 2..][..n - i - 1];
            let (head, rest) = y.split_at_mut(i + 1);
            let mut own = 0.0;
            for ((v, xj), y) in row.iter().zip(&x[i + 1..]).zip(rest) {
                own += v * xj;
                *y += v * x[i];
            }
            head[i] += own;
        }
        y
    });
    parts.into_iter().fold(vec![0.0; n], |mut all, part| {
        all.iter_mut().zip(part).for_each(|(a, p)| *a += p);
        all
    })
}
