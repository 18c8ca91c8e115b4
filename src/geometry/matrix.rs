use burn::tensor::Tensor;
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par, Side};

use super::Error;
use crate::device::{self, block_on};

/// Points on the host, one a row: finite f64.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    values: Vec<f64>,
    columns: usize,
}

impl Matrix {
    /// Rows of `columns` values, in row-major order.
    ///
    /// # Errors
    /// [`Error::NotFinite`].
    ///
    /// # Panics
    /// If the values are no whole number of rows.
    pub fn new(values: Vec<f64>, columns: usize) -> Result<Self, Error> {
        assert!(
            columns > 0 && values.len().is_multiple_of(columns),
            "Matrix::new: {} values are no rows of width {columns}",
            values.len()
        );
        match values.iter().position(|v| !v.is_finite()) {
            None => Ok(Self { values, columns }),
            Some(at) => Err(Error::NotFinite {
                row: at / columns,
                column: at % columns,
                value: values[at],
            }),
        }
    }

    /// The rows of a tensor `[n, d]`, in f64.
    ///
    /// # Errors
    /// [`Error::NotFinite`]; the device failed.
    pub fn read(x: Tensor<2>) -> Result<Self, Error> {
        block_on(Self::read_async(x))
    }

    /// [`Matrix::read`] without blocking.
    ///
    /// # Errors
    /// As [`Matrix::read`].
    pub async fn read_async(x: Tensor<2>) -> Result<Self, Error> {
        let [_, columns] = x.dims();
        Self::new(device::read(x).await?, columns)
    }

    /// From a rule for each cell, which must give finite values.
    pub(super) fn from_fn(rows: usize, columns: usize, f: impl Fn(usize, usize) -> f64) -> Self {
        let values = (0..rows * columns).map(|at| f(at / columns, at % columns));
        Self {
            values: values.collect(),
            columns,
        }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.values.len() / self.columns
    }

    /// Length of a row.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// One row.
    pub fn row(&self, i: usize) -> &[f64] {
        &self.values[i * self.columns..][..self.columns]
    }

    /// All rows, in order.
    pub fn each_row(&self) -> impl ExactSizeIterator<Item = &[f64]> {
        self.values.chunks_exact(self.columns)
    }

    /// Some of the rows.
    pub fn select(&self, rows: &[usize]) -> Self {
        let values = rows.iter().flat_map(|&i| self.row(i));
        Self {
            values: values.copied().collect(),
            columns: self.columns,
        }
    }

    /// Mean row.
    pub(super) fn mean(&self) -> Vec<f64> {
        let n = self.rows() as f64;
        let mut mean = vec![0.0; self.columns];
        for row in self.each_row() {
            mean.iter_mut().zip(row).for_each(|(m, v)| *m += v / n);
        }
        mean
    }

    /// The rows less `shift`.
    pub(super) fn less(&self, shift: &[f64]) -> Self {
        Self::from_fn(self.rows(), self.columns, |i, j| self.row(i)[j] - shift[j])
    }

    /// Rows of unit length; one of length 0 stays.
    pub(super) fn unit_rows(&self) -> Self {
        let norms: Vec<f64> = self.each_row().map(|row| dot(row, row).sqrt()).collect();
        Self::from_fn(self.rows(), self.columns, |i, j| {
            self.row(i)[j] / norms[i].max(f64::MIN_POSITIVE)
        })
    }

    fn view(&self) -> MatRef<'_, f64> {
        MatRef::from_row_major_slice(&self.values, self.rows(), self.columns)
    }

    /// `X Yᵀ`.
    pub(super) fn times_transposed(&self, other: &Self) -> Self {
        product(self.view(), other.view().transpose())
    }

    /// `Xᵀ X / n` of the rows less their mean: `[d, d]`.
    pub(super) fn covariance(&self) -> Self {
        let centred = self.less(&self.mean());
        let mut out = product(centred.view().transpose(), centred.view());
        let n = self.rows() as f64;
        out.values.iter_mut().for_each(|v| *v /= n);
        out
    }

    /// Eigenvalues of a symmetric matrix, falling, and its eigenvectors as rows, each with its
    /// largest entry above 0.
    pub(super) fn eigen(&self, measure: &'static str) -> Result<(Vec<f64>, Self), Error> {
        let n = self.columns;
        let why = "the eigenvalue solver did not converge";
        let found = self.view().self_adjoint_eigen(Side::Lower);
        let found = found.map_err(|_| Error::Undefined { measure, why })?;
        let values = found.S().column_vector();
        let vectors = found.U();
        let sign = |i: usize| {
            let column = vectors.col(n - 1 - i);
            let largest = column
                .iter()
                .fold(0.0, |m: f64, v| match v.abs() > m.abs() {
                    true => *v,
                    false => m,
                });
            if largest < 0.0 { -1.0 } else { 1.0 }
        };
        let signs: Vec<f64> = (0..n).map(sign).collect();
        let rows = Self::from_fn(n, n, |i, j| signs[i] * vectors[(j, n - 1 - i)]);
        Ok(((0..n).rev().map(|i| values[i]).collect(), rows))
    }
}

fn product(a: MatRef<'_, f64>, b: MatRef<'_, f64>) -> Matrix {
    let (rows, columns) = (a.nrows(), b.ncols());
    let mut values = vec![0.0; rows * columns];
    let out = MatMut::from_row_major_slice_mut(&mut values, rows, columns);
    matmul(out, Accum::Replace, a, b, 1.0, Par::rayon(0));
    Matrix { values, columns }
}

pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

pub(super) fn squared_distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eigenvectors_rebuild_the_matrix() {
        let n = 7;
        let x = Matrix::from_fn(20, n, |i, j| ((i * 31 + j * 17) % 23) as f64 - 11.0);
        let c = x.covariance();
        let (values, vectors) = c.eigen("test").unwrap();
        assert!(values.is_sorted_by(|a, b| a >= b), "{values:?}");
        for i in 0..n {
            for j in 0..n {
                let of = |k: usize| values[k] * vectors.row(k)[i] * vectors.row(k)[j];
                let got: f64 = (0..n).map(of).sum();
                assert!((got - c.row(i)[j]).abs() < 1e-10);
                let inner = dot(vectors.row(i), vectors.row(j));
                assert!((inner - f64::from(u8::from(i == j))).abs() < 1e-12);
            }
            let largest = vectors.row(i).iter().fold(0.0, |m: f64, v| m.max(v.abs()));
            assert!(vectors.row(i).contains(&largest), "sign");
        }
    }

    #[test]
    fn the_first_value_that_is_not_finite_is_named() {
        let error = Matrix::new(vec![0.0, 1.0, f64::INFINITY, f64::NAN], 2).unwrap_err();
        assert_eq!(error.to_string(), "row 1, column 0 is inf");
    }
}
