//! A function of all pairs of rows: products, distances, kernels. Small tables are kept, large ones are
//! worked out again tile by tile whenever two of them meet, so that nothing `n × n` is ever held; sums that
//! do not need the pairs are taken without them.

mod fold;
mod form;
mod linear;
mod source;
#[cfg(test)]
mod tests;
mod there;

use std::ops::Range;

use burn::tensor::{DType, Tensor};

use super::Error;
use super::cka::Estimator;
use super::groups::Groups;
use super::host::{Rows, Values, chunks_mut, map_chunks, square, sum, total, working};
use super::lanes::{Lane, wide};
use super::middle::Table;

pub(super) use form::Form;
pub(super) use source::{Source, blocks, segment};

use fold::{packed_fold, tiled_fold};

/// Up to this many rows one value a pair is kept: 512 MiB in f32.
pub(super) const PACKED: usize = 16_384;

/// Rows that are summed together before the partial sums are added in order.
const PART: usize = 128;

/// The values of one form for all pairs of rows of one representation.
#[derive(Clone, Debug)]
pub(in crate::similarity) struct Pairs {
    /// The value of each row and itself.
    pub(in crate::similarity) diagonal: Vec<f64>,
    /// What the pairs come to, without the diagonal.
    pub(in crate::similarity) sums: Sums,
    held: Held,
}

/// Sums over the pairs of one representation, the diagonal left out.
#[derive(Clone, Debug)]
pub(in crate::similarity) struct Sums {
    /// For each row, over all others.
    pub(in crate::similarity) rows: Vec<f64>,
    /// Over all ordered pairs: the sum of `rows`.
    pub(in crate::similarity) total: f64,
    /// Of the squares, over the unordered pairs.
    pub(in crate::similarity) squares: f64,
}

/// The values, or what they are worked out from.
#[derive(Clone, Debug)]
pub(in crate::similarity) enum Held {
    /// The strict upper triangle, row-major.
    Packed(Values),
    Narrow(Box<Source<f32>>),
    Wide(Box<Source<f64>>),
}

/// `$run` with `$a` the packed values of either precision.
macro_rules! unpack {
    ($values:expr, $a:ident => $run:expr) => {
        match $values {
            Values::F32($a) => $run,
            Values::F64($a) => $run,
        }
    };
}

impl Pairs {
    /// Works the pairs of `x`, `[n, d]`, out once: at most one tile is held besides what is kept.
    pub(in crate::similarity) async fn prepare(x: &Tensor<2>, form: Form) -> Result<Self, Error> {
        match x.dtype() {
            DType::F64 => Self::prepare_as::<f64>(x, form).await,
            _ => Self::prepare_as::<f32>(&working(x), form).await,
        }
    }

    async fn prepare_as<T: Lane>(x: &Tensor<2>, form: Form) -> Result<Self, Error> {
        let (x, rows, scale) = Rows::<T>::scaled(x.clone()).await?;
        let form = form.scaled(scale);
        match rows.n <= PACKED {
            true => Self::packed(Groups::new(&rows), rows, form, &x).await,
            false => Self::tiled(Source::new(&rows, &rows.column_means(), form, &x)).await,
        }
    }

    /// Equal rows are taken once, so that the pairs they make tie whatever the device's rounding.
    async fn packed<T: Lane>(
        groups: Groups,
        rows: Rows<T>,
        form: Form,
        like: &Tensor<2>,
    ) -> Result<Self, Error> {
        let mean = rows.column_means();
        let source = Source::new(&groups.distinct_rows(rows), &mean, form, like);
        let own = |form: Form, g: usize| form.of_equals(source.lengths[g]);
        let mut upper = groups.expand(source.upper().await?, |g| T::rounded(own(form, g)));
        let form = form
            .settled(&Table::Packed(&upper), groups.of.len())
            .await?;
        if form != source.form {
            chunks_mut(&mut upper, 1 << 14, |_, values| form.of_squares(values));
        }
        let diagonal: Vec<f64> = groups.of.iter().map(|&g| own(form, g as usize)).collect();
        Ok(Self {
            sums: Sums::packed(&upper, diagonal.len()),
            diagonal,
            held: Held::Packed(T::store(upper)),
        })
    }

    async fn tiled<T: Lane>(mut source: Source<T>) -> Result<Self, Error> {
        let form = source.form;
        source.form = form.settled(&Table::Tiled(&source), source.n()).await?;
        let own = |&square: &f64| source.form.of_equals(square);
        Ok(Self {
            diagonal: source.lengths.iter().map(own).collect(),
            sums: source.sums().await?,
            held: T::hold(Box::new(source)),
        })
    }

    /// Number of rows.
    pub(in crate::similarity) fn n(&self) -> usize {
        self.diagonal.len()
    }

    /// Sum of the products of the two sides' values over all unordered pairs.
    pub(in crate::similarity) async fn product(&self, other: &Self) -> Result<f64, Error> {
        match (&self.held, &other.held) {
            (Held::Narrow(a), Held::Narrow(b)) if a.is_linear() && b.is_linear() => {
                Ok(a.linear_product(b))
            }
            (Held::Narrow(a), Held::Wide(b)) | (Held::Wide(b), Held::Narrow(a))
                if a.is_linear() && b.is_linear() =>
            {
                Ok(a.linear_product(b))
            }
            (Held::Wide(a), Held::Wide(b)) if a.is_linear() && b.is_linear() => {
                Ok(a.linear_product(b))
            }
            (Held::Narrow(a), Held::Narrow(b)) if a.is_there() && b.is_there() => {
                Ok(a.product_there(b).await?)
            }
            _ => Ok(self.fold(other, |a, b| [a * b]).await?[0]),
        }
    }

    /// Sums of functions of the two sides' values over all unordered pairs. Both have equally many rows.
    pub(in crate::similarity) async fn fold<const M: usize>(
        &self,
        other: &Self,
        f: impl Fn(f64, f64) -> [f64; M] + Sync + Send,
    ) -> Result<[f64; M], Error> {
        match (&self.held, &other.held) {
            (Held::Packed(a), Held::Packed(b)) => Ok(unpack!(a, a => unpack!(b, b => {
                packed_fold(a, b, &f)
            }))),
            (Held::Narrow(a), Held::Narrow(b)) => tiled_fold(a, b, &f).await,
            (Held::Narrow(a), Held::Wide(b)) => tiled_fold(a, b, &f).await,
            (Held::Wide(a), Held::Narrow(b)) => tiled_fold(a, b, &f).await,
            (Held::Wide(a), Held::Wide(b)) => tiled_fold(a, b, &f).await,
            _ => unreachable!("what is held follows from the number of rows"),
        }
    }

    /// For tests: the values in row segments, each given as `(i, j, values)` for the pairs `(i, j)`, `(i, j + 1)`, …
    /// with `i < j`, in f64. Within a row the segments come from left to right; with more than
    /// 8,192 rows not all of a row comes at once.
    #[cfg(test)]
    async fn visit(&self, mut f: impl FnMut(usize, usize, &[f64])) -> Result<(), Error> {
        match &self.held {
            Held::Packed(values) => {
                let n = self.n();
                for i in 0..n - 1 {
                    let row = packed_row(n, i);
                    unpack!(values, a => f(i, i + 1, &widen(&a[row])));
                }
                Ok(())
            }
            Held::Narrow(source) => source.visit(f).await,
            Held::Wide(source) => source.visit(f).await,
        }
    }

    /// `HSIC` of two tables whose [`product`](Self::product) is given, up to the scale that cancels in an
    /// alignment: what is left of the sum of products when both tables are centred.
    pub(in crate::similarity) fn hsic(
        &self,
        other: &Self,
        product: f64,
        estimator: Estimator,
    ) -> f64 {
        let n = self.n() as f64;
        let (a, b) = (&self.sums, &other.sums);
        match estimator {
            Estimator::Unbiased => {
                let rows = sum(self.n(), |i| a.rows[i] * b.rows[i]);
                let total = a.total * b.total / ((n - 1.0) * (n - 2.0));
                2.0 * product + total - 2.0 / (n - 2.0) * rows
            }
            Estimator::Biased => {
                let (own, other) = (&self.diagonal, &other.diagonal);
                let row = |i: usize| (a.rows[i] + own[i]) * (b.rows[i] + other[i]);
                let whole = |s: &Sums, d: &[f64]| s.total + sum(d.len(), |i| d[i]);
                let total = whole(a, own) * whole(b, other) / (n * n);
                let diagonal = sum(own.len(), |i| own[i] * other[i]);
                2.0 * product + diagonal + total - 2.0 / n * sum(own.len(), row)
            }
        }
    }

    /// [`Pairs::hsic`] with itself, for which no pass is needed.
    pub(in crate::similarity) fn own_hsic(&self, estimator: Estimator) -> f64 {
        self.hsic(self, self.sums.squares, estimator)
    }

    /// An error if the HSIC with itself is not above rounding. Errors of single values are independent, so
    /// that centring leaves their squares; sums are in f64.
    pub(in crate::similarity) fn check(&self, estimator: Estimator) -> Result<(), Error> {
        let single = matches!(self.held, Held::Packed(Values::F32(_)) | Held::Narrow(_));
        let epsilon = match single {
            true => f64::from(f32::EPSILON),
            false => f64::EPSILON,
        };
        let diagonal = match estimator {
            Estimator::Biased => sum(self.n(), |i| self.diagonal[i] * self.diagonal[i]),
            Estimator::Unbiased => 0.0,
        };
        let size = 2.0 * self.sums.squares + diagonal;
        let floor = (64.0 * epsilon).powi(2).max(64.0 * f64::EPSILON);
        match self.own_hsic(estimator) > floor * size {
            true => Ok(()),
            false => Err(Error::Undefined {
                why: "all its rows are equal, or equally far from each other",
            }),
        }
    }

    /// The same rows in another order, if the pairs are kept.
    pub(in crate::similarity) fn reordered(&self, order: &[usize]) -> Option<Self> {
        let Held::Packed(values) = &self.held else {
            return None;
        };
        let of = |values: &[f64]| order.iter().map(|&i| values[i]).collect();
        Some(Self {
            diagonal: of(&self.diagonal),
            sums: Sums {
                rows: of(&self.sums.rows),
                ..self.sums.clone()
            },
            held: Held::Packed(unpack!(values, values => reordered(values, order))),
        })
    }
}

/// The packed triangle of the same rows in another order.
fn reordered<T: Lane>(values: &[T], order: &[usize]) -> Values {
    let n = order.len();
    let place = |i: usize, j: usize| packed_row(n, i.min(j)).start + i.max(j) - i.min(j) - 1;
    let part = |rows: Range<usize>| {
        let row = |i: usize| {
            order[i + 1..]
                .iter()
                .map(move |&j| values[place(order[i], j)])
        };
        rows.flat_map(row).collect::<Vec<T>>()
    };
    T::store(map_chunks(n, PART, part).concat())
}

/// The places of row `i` in the packed triangle of `n` rows.
pub(super) fn packed_row(n: usize, i: usize) -> Range<usize> {
    let start = i * (2 * n - i - 1) / 2;
    start..start + n - 1 - i
}

impl Sums {
    fn new(n: usize) -> Self {
        Self {
            rows: vec![0.0; n],
            total: 0.0,
            squares: 0.0,
        }
    }

    fn packed<T: Lane>(upper: &[T], n: usize) -> Self {
        let mut sums = Self::new(n);
        let row = |i: usize| (i + 1, &upper[packed_row(n, i)]);
        sums.add(&(0..n), &(0..n), row);
        sums
    }

    /// Adds the pairs of rows `r` with columns `c`, of which `segment(i)` gives those of row `i`.
    fn add<'a, T: Lane>(
        &mut self,
        r: &Range<usize>,
        c: &Range<usize>,
        segment: impl Fn(usize) -> (usize, &'a [T]) + Sync + Send,
    ) {
        let part = |p: Range<usize>| {
            let mut columns = vec![0.0; c.len()];
            let mut squares = 0.0;
            let row = |i: usize| {
                let (j, row) = segment(i);
                let columns = columns[j - c.start..].iter_mut();
                columns.zip(row).for_each(|(sum, v)| *sum += v.wide());
                squares += square(row);
                total(row)
            };
            let rows: Vec<f64> = wide(|| p.map(|i| r.start + i).map(row).collect());
            (rows, columns, squares)
        };
        let parts = map_chunks(r.len(), PART, part);
        for (p, (rows, columns, squares)) in parts.into_iter().enumerate() {
            let mut add = |from: usize, sums: Vec<f64>| {
                let all = self.rows[from..].iter_mut();
                all.zip(sums).for_each(|(all, sum)| *all += sum);
            };
            self.total += 2.0 * rows.iter().sum::<f64>();
            self.squares += squares;
            add(r.start + p * PART, rows);
            add(c.start, columns);
        }
    }
}

#[cfg(test)]
fn widen<T: Lane>(row: &[T]) -> Vec<f64> {
    row.iter().map(|v| v.wide()).collect()
}
