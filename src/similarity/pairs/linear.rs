//! Sums over all pairs where a value is linear in the product of its two rows: no pair is looked at.
//!
//! With `δ` the rows less their mean, the squared distances are `|δ_i|² + |δ_j|² - 2 δ_i·δ_j`, and the
//! angles `1 - z_i·z_j` of rows of length 1 half of that; so `v_ij = u_i + u_j - g δ_i·δ_j`. As `Σ δ = 0` and
//! `Σ (δ_i·δ_j) (ε_i·ε_j) = ‖ΔᵀE‖²`, all that is left are sums over rows and a product of columns, in f64.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par};

use super::super::host::{map_chunks, sum};
use super::super::lanes::Lane;
use super::Sums;
use super::form::Form;
use super::source::Source;

/// Most columns: the product of two sides has as many rows and columns.
const COLUMNS: usize = 4_096;

/// Rows to a column from which on this is less work than the pairs: on the host, and beside pairs on a GPU.
const ROWS: usize = 4;
const ROWS_THERE: usize = 64;

/// Rows that are multiplied at a time.
const STRIP: usize = 1_024;

/// What the sums of one side are made of.
struct Terms {
    mean: Vec<f64>,
    /// `u_i`.
    own: Vec<f64>,
    /// `v_ii`, which is no pair: 0, or 1 for a row that gives no direction.
    alone: Vec<f64>,
    /// `g`.
    slope: f64,
}

impl<T: Lane> Source<T> {
    /// Whether the sums can be had, and are less work, without the pairs.
    pub(super) fn is_linear(&self) -> bool {
        let (n, d) = (self.n(), self.d());
        let linear = matches!(
            self.form,
            Form::SquaredEuclidean | Form::Cosine | Form::Correlation
        );
        let rows = if self.is_there() { ROWS_THERE } else { ROWS };
        linear && d <= COLUMNS && rows * d <= n
    }

    fn terms(&self) -> Terms {
        let (n, d) = (self.n(), self.d());
        let row = |i: usize| &self.rows[i * d..][..d];
        let parts = map_chunks(n, STRIP, |strip| {
            let mut sums = vec![0.0; d];
            for i in strip {
                let values = sums.iter_mut().zip(row(i));
                values.for_each(|(sum, v)| *sum += v.wide());
            }
            sums
        });
        let total = |j: usize| parts.iter().map(|p| p[j]).sum::<f64>();
        let mean: Vec<f64> = (0..d).map(|j| total(j) / n as f64).collect();
        let square = |i: usize| -> f64 {
            let off = row(i).iter().zip(&mean).map(|(v, m)| v.wide() - m);
            off.map(|v| v * v).sum()
        };
        let squares = map_chunks(n, STRIP, |strip| strip.map(square).collect::<Vec<_>>()).concat();
        let angle = self.form != Form::SquaredEuclidean;
        let alone = |length: &f64| f64::from(u8::from(angle && *length == 0.0));
        let alone: Vec<f64> = self.lengths.iter().map(alone).collect();
        let slope = if angle { 1.0 } else { 2.0 };
        let own = squares.iter().zip(&alone);
        Terms {
            own: own.map(|(s, a)| 0.5 * (slope * s + a)).collect(),
            mean,
            alone,
            slope,
        }
    }

    /// The sums of one side.
    pub(super) fn linear_sums(&self) -> Sums {
        let n = self.n();
        let terms = self.terms();
        let total = sum(n, |i| terms.own[i]);
        let row = |i: usize| n as f64 * terms.own[i] + total - terms.alone[i];
        let rows: Vec<f64> = (0..n).map(row).collect();
        Sums {
            total: rows.iter().sum(),
            rows,
            squares: self.product_of(&terms, self, &terms),
        }
    }

    /// Sum of the products of the two sides' values over all unordered pairs.
    pub(super) fn linear_product<U: Lane>(&self, other: &Source<U>) -> f64 {
        self.product_of(&self.terms(), other, &other.terms())
    }

    fn product_of<U: Lane>(&self, a: &Terms, other: &Source<U>, b: &Terms) -> f64 {
        let n = self.n();
        let [u, w] = [a, b].map(|terms| sum(n, |i| terms.own[i]));
        let both = sum(n, |i| a.own[i] * b.own[i]);
        let alone = sum(n, |i| a.alone[i] * b.alone[i]);
        let cross = self.cross_square(&a.mean, other, &b.mean);
        n as f64 * both + u * w + (a.slope * b.slope * cross - alone) / 2.0
    }

    /// `‖ΔᵀE‖²`.
    fn cross_square<U: Lane>(&self, mean: &[f64], other: &Source<U>, its: &[f64]) -> f64 {
        let (d, e) = (mean.len(), its.len());
        let mut product = Mat::<f64>::zeros(d, e);
        let strips = self
            .rows
            .chunks(STRIP * d)
            .zip(other.rows.chunks(STRIP * e));
        for (z, y) in strips {
            let (z, y) = (less(z, mean), less(y, its));
            let z = MatRef::from_row_major_slice(&z, z.len() / d, d);
            let y = MatRef::from_row_major_slice(&y, y.len() / e, e);
            let place = product.as_mut();
            matmul(place, Accum::Add, z.transpose(), y, 1.0, Par::rayon(0));
        }
        product.squared_norm_l2()
    }
}

/// Rows without their mean, in f64.
fn less<T: Lane>(rows: &[T], mean: &[f64]) -> Vec<f64> {
    let each = rows.iter().zip(mean.iter().cycle());
    each.map(|(v, m)| v.wide() - m).collect()
}
