//! Tiles of all pairs, made from the rows whenever they are needed.

use std::ops::Range;

use burn::tensor::Tensor;

use super::super::Error;
use super::super::host::{Rows, beside, chunks_mut, square, sum_range};
use super::super::lanes::{Lane, wide};
use super::super::products;
use super::form::Form;
#[cfg(test)]
use super::widen;
use super::{Sums, packed_row};
use crate::device;

/// Most rows of a tile.
const ROWS: usize = 512;

/// Most columns of a tile: 16 MiB in f32.
const COLUMNS: usize = 8_192;

/// A squared distance below this share of the two squared lengths is taken from the differences, for
/// the subtraction of a product would leave few of its digits.
const NEAR: f64 = 1e-3;

/// Rows and columns of the tiles on and right of the diagonal, row by row.
pub(in crate::similarity) fn blocks(
    n: usize,
) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
    let part = move |start: usize, size: usize| start..(start + size).min(n);
    let columns = move |r: usize| (r..n).step_by(COLUMNS).map(move |c| part(c, COLUMNS));
    let rows = (0..n).step_by(ROWS);
    rows.flat_map(move |r| columns(r).map(move |c| (part(r, ROWS), c)))
}

/// Rows ready for products, from which every tile can be made.
#[derive(Clone, Debug)]
pub(in crate::similarity) struct Source<T> {
    pub(super) form: Form,
    pub(super) z: Tensor<2>,
    /// The rows of `z` on the host, from which short distances are taken; empty for products.
    pub(super) rows: Vec<T>,
    /// Squared length of each row. For the angles 1, even where a row is 0: then it lies at a right angle
    /// to all others.
    pub(super) squares: Vec<T>,
    /// Squared length of each row, as it is and in f64.
    pub(super) lengths: Vec<f64>,
}

impl<T: Lane> Source<T> {
    pub(in crate::similarity) fn n(&self) -> usize {
        self.lengths.len()
    }

    /// Number of columns.
    pub(super) fn d(&self) -> usize {
        self.z.dims()[1]
    }

    pub(super) fn new(rows: &Rows<T>, mean: &[T], form: Form, like: &Tensor<2>) -> Self {
        let ready = rows.map(|row| form.row(row, mean));
        let lengths: Vec<f64> = ready.iter().map(|row| square(row)).collect();
        let rounded = |&s: &f64| match form {
            Form::Cosine | Form::Correlation => T::rounded(1.0),
            _ => T::rounded(s),
        };
        let ready = ready.concat();
        Self {
            form,
            z: beside(ready.clone(), [rows.n, rows.d], like),
            rows: match form {
                Form::Dot => vec![],
                _ => ready,
            },
            squares: lengths.iter().map(rounded).collect(),
            lengths,
        }
    }

    /// The values of one block, `[r.len(), c.len()]`; those on and below the diagonal mean nothing.
    pub(in crate::similarity) async fn tile(
        &self,
        r: &Range<usize>,
        c: &Range<usize>,
    ) -> Result<Vec<T>, device::Error> {
        let mut values = products::between::<T>(&self.z, r, c).await?;
        if self.form != Form::Dot {
            chunks_mut(&mut values, c.len(), |i, row| {
                let i = r.start + i;
                let skip = (i + 1).saturating_sub(c.start).min(row.len());
                self.finish(i, c.start + skip, &mut row[skip..]);
            });
        }
        Ok(values)
    }

    /// Turns the products of row `i` with those from `j` on into values.
    fn finish(&self, i: usize, j: usize, row: &mut [T]) {
        let (own, squares) = (self.squares[i], &self.squares[j..j + row.len()]);
        let near = T::rounded(NEAR);
        let is_near = |d: T, s: T| d <= near * (own + s);
        let any_near = wide(|| {
            let mut any = false;
            for (v, &s) in row.iter_mut().zip(squares) {
                *v = own + s - (*v + *v);
                any |= is_near(*v, s);
            }
            any
        });
        if any_near {
            for (k, (v, &s)) in row.iter_mut().zip(squares).enumerate() {
                if is_near(*v, s) {
                    *v = self.difference(i, j + k);
                }
            }
        }
        self.form.of_squares(row);
    }

    /// `|u - v|²` from the differences: exactly 0 for equal rows.
    fn difference(&self, i: usize, j: usize) -> T {
        let d = self.rows.len() / self.n();
        let (u, v) = (&self.rows[i * d..][..d], &self.rows[j * d..][..d]);
        T::rounded(sum_range(0..d, |k| (u[k].wide() - v[k].wide()).powi(2)))
    }

    /// The strict upper triangle, row-major. One tile is held besides.
    pub(super) async fn upper(&self) -> Result<Vec<T>, device::Error> {
        let n = self.n();
        let mut upper = vec![T::default(); n * (n - 1) / 2];
        for (r, c) in blocks(n) {
            let values = self.tile(&r, &c).await?;
            for i in r.clone() {
                let (j, row) = segment(&values, &r, &c, i);
                let start = packed_row(n, i).start + j - (i + 1);
                upper[start..start + row.len()].copy_from_slice(row);
            }
        }
        Ok(upper)
    }

    #[cfg(test)]
    pub(super) async fn visit(&self, mut f: impl FnMut(usize, usize, &[f64])) -> Result<(), Error> {
        for (r, c) in blocks(self.n()) {
            let values = self.tile(&r, &c).await?;
            for i in r.clone() {
                let (j, row) = segment(&values, &r, &c, i);
                f(i, j, &widen(row));
            }
        }
        Ok(())
    }

    /// The pairs of `few` of the rows, evenly spaced.
    pub(in crate::similarity) async fn sample(&self, few: usize) -> Result<Vec<T>, Error> {
        let (n, d) = (self.n(), self.rows.len() / self.n());
        let chosen = || (0..few).map(|k| k * n / few);
        let rows: Vec<T> = chosen()
            .flat_map(|i| &self.rows[i * d..][..d])
            .copied()
            .collect();
        let part = Self {
            form: self.form,
            z: beside(rows.clone(), [few, d], &self.z),
            rows,
            squares: chosen().map(|i| self.squares[i]).collect(),
            lengths: chosen().map(|i| self.lengths[i]).collect(),
        };
        Ok(part.upper().await?)
    }

    pub(super) async fn sums(&self) -> Result<Sums, Error> {
        if self.is_linear() {
            return Ok(self.linear_sums());
        }
        if self.is_there() {
            return Ok(self.sums_there().await?);
        }
        let mut sums = Sums::new(self.n());
        for (r, c) in blocks(self.n()) {
            let values = self.tile(&r, &c).await?;
            sums.add(&r, &c, |i| segment(&values, &r, &c, i));
        }
        Ok(sums)
    }
}

/// What of row `i` of a tile lies right of the diagonal: its first column, and the values from there.
pub(in crate::similarity) fn segment<'a, T>(
    values: &'a [T],
    r: &Range<usize>,
    c: &Range<usize>,
    i: usize,
) -> (usize, &'a [T]) {
    let first = (i + 1).clamp(c.start, c.end);
    let row = &values[(i - r.start) * c.len()..][..c.len()];
    (first, &row[first - c.start..])
}
