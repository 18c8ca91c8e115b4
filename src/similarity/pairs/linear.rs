//! Sums over all pairs where a value is linear in the product of its two rows: no pair is looked at.
//!
//! With `v_ij = u_i + u_j - g z_i·z_j` and `w_ij` alike with `h` and `y`, everything is a sum over rows and
//! columns; `Σ (z_i·z_j) (y_i·y_j) = ‖ZᵀY‖²`. In f64, for large sums cancel.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par};

use super::super::host::{dot, map_chunks, sum};
use super::super::lanes::Lane;
use super::Sums;
use super::form::Form;
use super::source::Source;

/// Most columns: the product of two sides has as many rows and columns.
const COLUMNS: usize = 4_096;

/// Rows to a column from which on this is less work than the pairs.
const ROWS: usize = 4;

/// Rows that are multiplied at a time.
const STRIP: usize = 1_024;

/// What the sums are made of.
struct Terms {
    /// `u_i`.
    own: Vec<f64>,
    /// `g`.
    slope: f64,
    /// `z_i · Σ z`.
    with_all: Vec<f64>,
}

impl<T: Lane> Source<T> {
    /// Whether the sums can be had, and are less work, without the pairs.
    pub(super) fn is_linear(&self) -> bool {
        let (n, d) = (self.n(), self.d());
        let linear = matches!(
            self.form,
            Form::SquaredEuclidean | Form::Cosine | Form::Correlation
        );
        linear && d <= COLUMNS && ROWS * d <= n
    }

    fn terms(&self) -> Terms {
        let d = self.d();
        let row = |i: usize| &self.rows[i * d..][..d];
        let parts = map_chunks(self.n(), STRIP, |strip| {
            let mut sums = vec![0.0; d];
            for i in strip {
                let values = sums.iter_mut().zip(row(i));
                values.for_each(|(sum, v)| *sum += v.wide());
            }
            sums
        });
        let all: Vec<f64> = (0..d).map(|j| parts.iter().map(|p| p[j]).sum()).collect();
        let with_all = map_chunks(self.n(), STRIP, |strip| {
            strip.map(|i| dot(row(i), &all)).collect::<Vec<_>>()
        });
        let (own, slope) = match self.form {
            Form::SquaredEuclidean => (self.lengths.clone(), 2.0),
            _ => (vec![0.5; self.n()], 1.0),
        };
        Terms {
            own,
            slope,
            with_all: with_all.concat(),
        }
    }

    /// The sums of one side.
    pub(super) fn linear_sums(&self) -> Sums {
        let n = self.n() as f64;
        let terms = self.terms();
        let total = sum(self.n(), |i| terms.own[i]);
        let row = |i: usize| {
            let all = n * terms.own[i] + total - terms.slope * terms.with_all[i];
            all - self.with_itself(&terms, i)
        };
        let rows: Vec<f64> = (0..self.n()).map(row).collect();
        Sums {
            total: rows.iter().sum(),
            rows,
            squares: self.linear_product(self),
        }
    }

    /// `v_ii`, which is no pair.
    fn with_itself(&self, terms: &Terms, i: usize) -> f64 {
        2.0 * terms.own[i] - terms.slope * self.lengths[i]
    }

    /// Sum of the products of the two sides' values over all unordered pairs.
    pub(super) fn linear_product<U: Lane>(&self, other: &Source<U>) -> f64 {
        let n = self.n();
        let (a, b) = (self.terms(), other.terms());
        let [u, w] = [&a, &b].map(|terms| sum(n, |i| terms.own[i]));
        let rows = sum(n, |i| {
            2.0 * n as f64 * a.own[i] * b.own[i]
                - 2.0 * (b.slope * a.own[i] * b.with_all[i] + a.slope * b.own[i] * a.with_all[i])
                - self.with_itself(&a, i) * other.with_itself(&b, i)
        });
        (rows + 2.0 * u * w + a.slope * b.slope * self.cross_square(other)) / 2.0
    }

    /// `‖ZᵀY‖²`.
    fn cross_square<U: Lane>(&self, other: &Source<U>) -> f64 {
        let (d, e) = (self.d(), other.d());
        let mut product = Mat::<f64>::zeros(d, e);
        for (z, y) in self
            .rows
            .chunks(STRIP * d)
            .zip(other.rows.chunks(STRIP * e))
        {
            let (z, y) = (widened(z), widened(y));
            let z = MatRef::from_row_major_slice(&z, z.len() / d, d);
            let y = MatRef::from_row_major_slice(&y, y.len() / e, e);
            let place = product.as_mut();
            matmul(place, Accum::Add, z.transpose(), y, 1.0, Par::rayon(0));
        }
        product.squared_norm_l2()
    }
}

fn widened<T: Lane>(values: &[T]) -> Vec<f64> {
    values.iter().map(|v| v.wide()).collect()
}
