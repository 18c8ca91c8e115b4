//! The sums of one side.

use std::ops::Range;

use burn::tensor::Tensor;
use faer::linalg::matmul::triangular::{BlockStructure, matmul};
use faer::{Accum, Mat, MatRef, Par, Side as Triangle};

use super::super::Error;
use super::super::axes::{Basis, no_convergence, rank};
use super::super::host::{map_chunks, sum_range};
use crate::device;

/// Sums of one side, whose rows less the first batch's mean are `u`.
#[derive(Clone, Debug)]
pub(super) struct Side {
    /// Mean of the first batch.
    pub(super) origin: Vec<f64>,
    /// `Σ u`.
    pub(super) sum: Vec<f64>,
    /// `Σ u uᵀ`, of which the lower triangle is kept up.
    pub(super) products: Mat<f64>,
    /// `Σ |u|² u`.
    pub(super) weighted: Vec<f64>,
    /// `Σ |u|⁴`.
    pub(super) fourth: f64,
}

/// A batch less the origin, and the squared lengths of its rows.
pub(super) struct Batch {
    rows: Vec<f64>,
    pub(super) lengths: Vec<f64>,
    d: usize,
}

impl Batch {
    pub(super) async fn read(x: &Tensor<2>, seen: usize, place: &str) -> Result<Self, Error> {
        let d = x.dims()[1];
        let rows = device::read::<f64, 2>(x.clone()).await?;
        if let Some(at) = rows.iter().position(|v| !v.is_finite()) {
            let error = Error::NotFinite {
                row: seen + at / d,
                column: at % d,
                value: rows[at],
            };
            return Err(error.at(place));
        }
        let lengths = vec![0.0; x.dims()[0]];
        Ok(Self { rows, lengths, d })
    }

    fn subtract(&mut self, origin: &[f64]) {
        for (row, length) in self.rows.chunks_exact_mut(self.d).zip(&mut self.lengths) {
            row.iter_mut().zip(origin).for_each(|(v, o)| *v -= o);
            *length = squared(row);
        }
    }

    /// The sum of all rows, each times its weight.
    fn weighted(&self, weight: impl Fn(usize) -> f64 + Sync + Send) -> Vec<f64> {
        let part = |r: Range<usize>| {
            let mut sum = vec![0.0; self.d];
            for i in r {
                let (row, weight) = (&self.rows[i * self.d..][..self.d], weight(i));
                sum.iter_mut().zip(row).for_each(|(s, v)| *s += weight * v);
            }
            sum
        };
        let mut all = vec![0.0; self.d];
        map_chunks(self.lengths.len(), 256, part)
            .iter()
            .for_each(|part| add(&mut all, part));
        all
    }

    /// `Σ |v|² u`, `v` being the rows of another.
    pub(super) fn weighted_by(&self, other: &Self) -> Vec<f64> {
        self.weighted(|i| other.lengths[i])
    }

    pub(super) fn matrix(&self) -> MatRef<'_, f64> {
        MatRef::from_row_major_slice(&self.rows, self.lengths.len(), self.d)
    }
}

pub(super) fn add(sum: &mut [f64], more: &[f64]) {
    sum.iter_mut().zip(more).for_each(|(s, m)| *s += m);
}

pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    sum_range(0..a.len(), |i| a[i] * b[i])
}

pub(super) fn squared(a: &[f64]) -> f64 {
    dot(a, a)
}

impl Side {
    pub(super) fn new(d: usize) -> Self {
        Self {
            origin: vec![],
            sum: vec![0.0; d],
            products: Mat::zeros(d, d),
            weighted: vec![0.0; d],
            fourth: 0.0,
        }
    }

    pub(super) fn d(&self) -> usize {
        self.sum.len()
    }

    /// Takes the origin off, which the first batch sets.
    pub(super) fn shift(&mut self, batch: &mut Batch) {
        if self.origin.is_empty() {
            let rows = batch.lengths.len() as f64;
            self.origin = batch.weighted(|_| 1.0 / rows);
        }
        batch.subtract(&self.origin);
    }

    pub(super) fn add(&mut self, batch: &Batch) {
        add(&mut self.sum, &batch.weighted(|_| 1.0));
        add(&mut self.weighted, &batch.weighted_by(batch));
        self.fourth += squared(&batch.lengths);
        matmul(
            self.products.as_mut(),
            BlockStructure::TriangularLower,
            Accum::Add,
            batch.matrix().transpose(),
            BlockStructure::Rectangular,
            batch.matrix(),
            BlockStructure::Rectangular,
            1.0,
            Par::rayon(0),
        );
    }

    /// `Σ u uᵀ`, whole.
    pub(super) fn whole(&self) -> Mat<f64> {
        let d = self.d();
        Mat::from_fn(d, d, |i, j| self.products[(i.max(j), i.min(j))])
    }

    /// What the mean is away from the origin.
    pub(super) fn drift(&self, n: usize) -> Vec<f64> {
        self.sum.iter().map(|s| s / n as f64).collect()
    }

    /// `Σ |u|²`.
    pub(super) fn trace(&self) -> f64 {
        (0..self.d()).map(|j| self.products[(j, j)]).sum()
    }

    /// Mean of all rows.
    pub(super) fn mean(&self, n: usize) -> Vec<f64> {
        let drift = self.drift(n);
        self.origin.iter().zip(drift).map(|(o, d)| o + d).collect()
    }

    /// `XᵀX` of the centred rows, whole.
    pub(super) fn covariance(&self, n: usize) -> Mat<f64> {
        let drift = self.drift(n);
        Mat::from_fn(self.d(), self.d(), |i, j| {
            self.products[(i.max(j), i.min(j))] - n as f64 * drift[i] * drift[j]
        })
    }

    /// The principal axes of the rows, centred or as they are: eigenvectors of `XᵀX`.
    pub(super) fn basis(&self, n: usize, centre: bool) -> Result<Basis, Error> {
        let mut products = self.covariance(n);
        if !centre {
            let mean = self.mean(n);
            add_outer(&mut products, &mean, &mean, n);
        }
        let eigen = products
            .self_adjoint_eigen(Triangle::Lower)
            .map_err(|_| no_convergence())?;
        let values = eigen.S().column_vector().iter().rev();
        let mut s: Vec<f64> = values.map(|l| l.max(0.0).sqrt()).collect();
        s.truncate(rank(&s)?);
        let (d, last) = (self.d(), self.d() - 1);
        let v = Mat::from_fn(d, s.len(), |i, j| eigen.U()[(i, last - j)]);
        let squared = s.iter().map(|s| s * s).sum();
        Ok(Basis { d, s, squared, v })
    }
}

/// `sum + n a bᵀ`.
pub(super) fn add_outer(sum: &mut Mat<f64>, a: &[f64], b: &[f64], n: usize) {
    for (j, b) in b.iter().enumerate() {
        let column = sum.col_mut(j).iter_mut();
        column.zip(a).for_each(|(s, a)| *s += n as f64 * a * b);
    }
}

/// What the squared lengths of the centred rows of two sides are multiplied from. With `u` the rows about the
/// origin and `δ` their mean, `|u - δ|² = |u|² - 2 u·δ + |δ|²`.
pub(super) struct Lengths<'a> {
    /// `Σ |u|² |v|²`.
    pub(super) squares: f64,
    /// `Σ |v|² u` and `Σ |u|² v`.
    pub(super) weighted: [&'a [f64]; 2],
    /// `Σ |u|²` and `Σ |v|²`.
    pub(super) traces: [f64; 2],
    /// `δᵀ (Σ u vᵀ) ε`.
    pub(super) cross: f64,
    /// `δ` and `ε`.
    pub(super) drifts: [&'a [f64]; 2],
}

impl Lengths<'_> {
    /// `Σ |u - δ|² |v - ε|²`.
    pub(super) fn product(&self, n: f64) -> f64 {
        let [a, b] = self.drifts.map(squared);
        let linear = |k: usize| dot(self.weighted[k], self.drifts[k]);
        self.squares - 2.0 * (linear(0) + linear(1))
            + 4.0 * self.cross
            + b * self.traces[0]
            + a * self.traces[1]
            - 3.0 * n * a * b
    }
}
