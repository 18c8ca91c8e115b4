//! A function of all pairs of rows: products, distances, kernels. Small tables are kept, large ones are
//! worked out again tile by tile whenever two of them meet, so that nothing `n × n` is ever held.

use std::ops::Range;

use burn::tensor::{DType, Tensor};

use super::Error;
use super::cka::Estimator;
use super::groups::Groups;
use super::host::{Rows, Values, beside, chunks_mut, map_chunks, sum, sum_range, working};
use super::lanes::{Lane, exp, sqrt, wide};
use super::middle::Table;
use super::rbf::Sigma;
use crate::device;

/// Up to this many rows one value a pair is kept: 512 MiB in f32.
const PACKED: usize = 16_384;

/// Most rows of a tile.
const ROWS: usize = 512;

/// Most columns of a tile: 16 MiB in f32.
const COLUMNS: usize = 8_192;

/// Rows that are summed together before the partial sums are added in order.
const PART: usize = 128;

/// Partial sums of a row.
const LANES: usize = 8;

/// A squared distance below this share of the two squared lengths is taken from the differences, for
/// the subtraction of a product would leave few of its digits.
const NEAR: f64 = 1e-3;

/// What is worked out for two rows `u` and `v`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Form {
    /// `u · v` of the column-centred rows.
    Dot,
    /// `|u - v|²`.
    SquaredEuclidean,
    /// `|u - v|`.
    Euclidean,
    /// `exp(-|u - v|² / (2 sigma²))`, the rows made to length 1 first if they are to be `unit`. Squared
    /// distances until the sigma is a number.
    Rbf { sigma: Sigma, unit: bool },
    /// 1 less the cosine of the angle; 1 where a row is 0.
    Cosine,
    /// 1 less Pearson's correlation over the columns; 1 where a row is constant.
    Correlation,
}

impl Form {
    /// The value of a row and its equal, given the squared length.
    fn of_equals(self, square: f64) -> f64 {
        match self {
            Self::Dot => square,
            Self::Rbf {
                sigma: Sigma::Fixed(_),
                ..
            } => 1.0,
            Self::SquaredEuclidean | Self::Euclidean | Self::Rbf { .. } => 0.0,
            Self::Cosine | Self::Correlation => f64::from(u8::from(square == 0.0)),
        }
    }

    /// The same for rows that were multiplied by `scale`.
    fn scaled(self, scale: f64) -> Self {
        match self {
            Self::Rbf {
                sigma: Sigma::Fixed(sigma),
                unit: false,
            } => Self::Rbf {
                sigma: Sigma::Fixed(sigma * scale),
                unit: false,
            },
            other => other,
        }
    }

    /// With a sigma that is a number, found among the squared distances of `n` rows.
    async fn settled<T: Lane>(self, squares: &Table<'_, T>, n: usize) -> Result<Self, Error> {
        let Self::Rbf { sigma, unit } = self else {
            return Ok(self);
        };
        let sigma = Sigma::Fixed(sigma.settle(squares, n).await?);
        Ok(Self::Rbf { sigma, unit })
    }

    /// Turns squared distances into values.
    fn of_squares<T: Lane>(self, squares: &mut [T]) {
        match self {
            Self::Euclidean => sqrt(squares),
            Self::Rbf {
                sigma: Sigma::Fixed(sigma),
                ..
            } => exp(squares, T::rounded(-0.5 / (sigma * sigma))),
            Self::Dot | Self::SquaredEuclidean | Self::Rbf { .. } => {}
            Self::Cosine | Self::Correlation => {
                let half = T::rounded(0.5);
                squares.iter_mut().for_each(|v| *v = half * *v);
            }
        }
    }

    /// A row made ready for products: without `mean`, at length 1, or both over its own columns.
    fn row<T: Lane>(self, row: &[T], mean: &[T]) -> Vec<T> {
        match self {
            Self::Rbf { unit: true, .. } | Self::Cosine => unit(row.iter().copied()),
            Self::Correlation => {
                let shift = sum_range(0..row.len(), |j| row[j].wide() - row[0].wide());
                let mean = T::rounded(row[0].wide() + shift / row.len() as f64);
                unit(row.iter().map(|&v| v - mean))
            }
            _ => row.iter().zip(mean).map(|(&v, &m)| v - m).collect(),
        }
    }
}

/// A row at length 1; 0 stays 0.
fn unit<T: Lane>(row: impl Iterator<Item = T>) -> Vec<T> {
    let row: Vec<T> = row.collect();
    let length = square(&row).sqrt();
    let inverse = if length > 0.0 { length.recip() } else { 0.0 };
    let scaled = |v: &T| T::rounded(v.wide() * inverse);
    row.iter().map(scaled).collect()
}

fn square<T: Lane>(row: &[T]) -> f64 {
    sum_range(0..row.len(), |j| row[j].wide() * row[j].wide())
}

/// The values of one form for all pairs of rows of one representation.
#[derive(Clone, Debug)]
pub(super) struct Pairs {
    /// The value of each row and itself.
    pub(super) diagonal: Vec<f64>,
    /// What the pairs come to, without the diagonal.
    pub(super) sums: Sums,
    held: Held,
}

/// Sums over the pairs of one representation, the diagonal left out.
#[derive(Clone, Debug)]
pub(super) struct Sums {
    /// For each row, over all others.
    pub(super) rows: Vec<f64>,
    /// Over all ordered pairs: the sum of `rows`.
    pub(super) total: f64,
    /// Of the squares, over the unordered pairs.
    pub(super) squares: f64,
}

/// The values, or what they are worked out from.
#[derive(Clone, Debug)]
pub(super) enum Held {
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
    pub(super) async fn prepare(x: &Tensor<2>, form: Form) -> Result<Self, Error> {
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
    pub(super) fn n(&self) -> usize {
        self.diagonal.len()
    }

    /// Sum of the products of the two sides' values over all unordered pairs.
    pub(super) async fn product(&self, other: &Self) -> Result<f64, Error> {
        let [product] = self.fold(other, |a, b| [a * b]).await?;
        Ok(product)
    }

    /// Sums of functions of the two sides' values over all unordered pairs. Both have equally many rows.
    pub(super) async fn fold<const M: usize>(
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
    /// [`COLUMNS`] rows not all of a row comes at once.
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
    pub(super) fn hsic(&self, other: &Self, product: f64, estimator: Estimator) -> f64 {
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
    pub(super) fn own_hsic(&self, estimator: Estimator) -> f64 {
        self.hsic(self, self.sums.squares, estimator)
    }

    /// An error if the HSIC with itself is not above rounding. Errors of single values are independent, so
    /// that centring leaves their squares; sums are in f64.
    pub(super) fn check(&self, estimator: Estimator) -> Result<(), Error> {
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
    pub(super) fn reordered(&self, order: &[usize]) -> Option<Self> {
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
fn packed_row(n: usize, i: usize) -> Range<usize> {
    let start = i * (2 * n - i - 1) / 2;
    start..start + n - 1 - i
}

/// Rows and columns of the tiles on and right of the diagonal, row by row.
pub(super) fn blocks(n: usize) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
    let part = move |start: usize, size: usize| start..(start + size).min(n);
    let columns = move |r: usize| (r..n).step_by(COLUMNS).map(move |c| part(c, COLUMNS));
    let rows = (0..n).step_by(ROWS);
    rows.flat_map(move |r| columns(r).map(move |c| (part(r, ROWS), c)))
}

/// Rows ready for products, from which every tile can be made.
#[derive(Clone, Debug)]
pub(super) struct Source<T> {
    form: Form,
    z: Tensor<2>,
    /// The rows of `z` on the host, from which short distances are taken; empty for products.
    rows: Vec<T>,
    /// Squared length of each row. For the angles 1, even where a row is 0: then it lies at a right angle
    /// to all others.
    squares: Vec<T>,
    /// Squared length of each row, as it is and in f64.
    lengths: Vec<f64>,
}

impl<T: Lane> Source<T> {
    pub(super) fn n(&self) -> usize {
        self.lengths.len()
    }

    fn new(rows: &Rows<T>, mean: &[T], form: Form, like: &Tensor<2>) -> Self {
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
    pub(super) async fn tile(
        &self,
        r: &Range<usize>,
        c: &Range<usize>,
    ) -> Result<Vec<T>, device::Error> {
        let rows = self.z.clone().narrow(0, r.start, r.len());
        let columns = self.z.clone().narrow(0, c.start, c.len());
        let mut values = device::read::<T, 2>(rows.matmul(columns.transpose())).await?;
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
    async fn upper(&self) -> Result<Vec<T>, device::Error> {
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
    async fn visit(&self, mut f: impl FnMut(usize, usize, &[f64])) -> Result<(), Error> {
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
    pub(super) async fn sample(&self, few: usize) -> Result<Vec<T>, Error> {
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

    async fn sums(&self) -> Result<Sums, Error> {
        let mut sums = Sums::new(self.n());
        for (r, c) in blocks(self.n()) {
            let values = self.tile(&r, &c).await?;
            sums.add(&r, &c, |i| segment(&values, &r, &c, i));
        }
        Ok(sums)
    }
}

/// What of row `i` of a tile lies right of the diagonal: its first column, and the values from there.
pub(super) fn segment<'a, T>(
    values: &'a [T],
    r: &Range<usize>,
    c: &Range<usize>,
    i: usize,
) -> (usize, &'a [T]) {
    let first = (i + 1).clamp(c.start, c.end);
    let row = &values[(i - r.start) * c.len()..][..c.len()];
    (first, &row[first - c.start..])
}

#[cfg(test)]
fn widen<T: Lane>(row: &[T]) -> Vec<f64> {
    row.iter().map(|v| v.wide()).collect()
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
                sum_range(0..row.len(), |k| row[k].wide())
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

/// Sums of `M` functions of the values of two row segments.
fn fold_rows<A: Lane, B: Lane, const M: usize>(
    a: &[A],
    b: &[B],
    f: &impl Fn(f64, f64) -> [f64; M],
) -> [f64; M] {
    let mut lanes = [[0.0; LANES]; M];
    let (a_whole, a_rest) = a.as_chunks::<LANES>();
    let (b_whole, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_whole.iter().zip(b_whole) {
        for l in 0..LANES {
            let values = f(a[l].wide(), b[l].wide());
            (0..M).for_each(|m| lanes[m][l] += values[m]);
        }
    }
    for (l, (a, b)) in a_rest.iter().zip(b_rest).enumerate() {
        let values = f(a.wide(), b.wide());
        (0..M).for_each(|m| lanes[m][l] += values[m]);
    }
    lanes.map(|lanes| lanes.iter().sum())
}

fn add<const M: usize>(a: [f64; M], b: [f64; M]) -> [f64; M] {
    std::array::from_fn(|m| a[m] + b[m])
}

fn packed_fold<A: Lane, B: Lane, const M: usize>(
    a: &[A],
    b: &[B],
    f: &(impl Fn(f64, f64) -> [f64; M] + Sync),
) -> [f64; M] {
    let part = |r: Range<usize>| wide(|| fold_rows(&a[r.clone()], &b[r], f));
    map_chunks(a.len(), 1 << 15, part)
        .into_iter()
        .fold([0.0; M], add)
}

async fn tiled_fold<A: Lane, B: Lane, const M: usize>(
    a: &Source<A>,
    b: &Source<B>,
    f: &(impl Fn(f64, f64) -> [f64; M] + Sync),
) -> Result<[f64; M], Error> {
    let mut sums = [0.0; M];
    for (r, c) in blocks(a.n()) {
        let (left, right) = (a.tile(&r, &c).await?, b.tile(&r, &c).await?);
        let row = |i: usize| {
            let (_, left) = segment(&left, &r, &c, i);
            let (_, right) = segment(&right, &r, &c, i);
            fold_rows(left, right, f)
        };
        let part = |p: Range<usize>| wide(|| p.map(|i| row(r.start + i)).fold([0.0; M], add));
        sums = map_chunks(r.len(), PART, part).into_iter().fold(sums, add);
    }
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Device, block_on};
    use burn::tensor::TensorData;

    const FORMS: [Form; 7] = [
        Form::Dot,
        Form::SquaredEuclidean,
        Form::Euclidean,
        Form::Rbf {
            sigma: Sigma::Fixed(2.5),
            unit: false,
        },
        Form::Rbf {
            sigma: Sigma::Fixed(0.7),
            unit: true,
        },
        Form::Cosine,
        Form::Correlation,
    ];

    /// Rows of which some are equal, one is 0, one is constant and two are nearly equal.
    fn rows(n: usize, d: usize) -> Vec<Vec<f64>> {
        let value = |i: usize, j: usize| ((i * i + 3 * i * j + 7 * j) as f64 * 0.37).sin();
        let of = |i: usize| match i {
            3 => vec![0.0; d],
            5 => vec![1.5; d],
            7 => (0..d).map(|j| value(2, j) * (1.0 + 1e-5)).collect(),
            i if i % 11 == 10 => (0..d).map(|j| value(1, j)).collect(),
            i => (0..d).map(|j| value(i, j)).collect(),
        };
        let narrow = |row: Vec<f64>| row.into_iter().map(|v| f64::from(v as f32)).collect();
        (0..n).map(of).map(narrow).collect()
    }

    fn tensor(rows: &[Vec<f64>], dtype: DType) -> Tensor<2> {
        let data = TensorData::new(rows.concat(), [rows.len(), rows[0].len()]);
        let data = match dtype {
            DType::F32 => data.convert::<f32>(),
            _ => data,
        };
        Tensor::from_data(data, (Device::cpu().tensor(), dtype))
    }

    fn dot(u: &[f64], v: &[f64]) -> f64 {
        u.iter().zip(v).map(|(u, v)| u * v).sum()
    }

    /// The table by its definition, the diagonal included.
    fn plain(rows: &[Vec<f64>], form: Form) -> Vec<Vec<f64>> {
        let (n, d) = (rows.len(), rows[0].len());
        let mean: Vec<f64> = (0..d)
            .map(|j| rows.iter().map(|r| r[j]).sum::<f64>() / n as f64)
            .collect();
        let unit = |row: Vec<f64>| {
            let length = dot(&row, &row).sqrt().max(f64::MIN_POSITIVE);
            row.into_iter().map(|v| v / length).collect::<Vec<_>>()
        };
        let ready = |row: &Vec<f64>| match form {
            Form::Cosine | Form::Rbf { unit: true, .. } => unit(row.clone()),
            Form::Correlation => {
                let mean = row.iter().sum::<f64>() / d as f64;
                unit(row.iter().map(|v| v - mean).collect())
            }
            _ => row.iter().zip(&mean).map(|(v, m)| v - m).collect(),
        };
        let z: Vec<Vec<f64>> = rows.iter().map(ready).collect();
        let square = |u: &[f64], v: &[f64]| u.iter().zip(v).map(|(u, v)| (u - v).powi(2)).sum();
        let value = |i: usize, j: usize| {
            let (u, v): (&[f64], &[f64]) = (&z[i], &z[j]);
            let square: f64 = square(u, v);
            match form {
                Form::Dot => dot(u, v),
                Form::SquaredEuclidean => square,
                Form::Euclidean => square.sqrt(),
                Form::Rbf {
                    sigma: Sigma::Fixed(sigma),
                    ..
                } => (-square / (2.0 * sigma * sigma)).exp(),
                _ if dot(u, u) == 0.0 || dot(v, v) == 0.0 => 1.0,
                _ => square / 2.0,
            }
        };
        let row = |i: usize| (0..n).map(|j| value(i, j)).collect();
        (0..n).map(row).collect()
    }

    /// Both ways of holding the pairs, with few rows.
    fn both<T: Lane>(x: &Tensor<2>, form: Form) -> [Pairs; 2] {
        block_on(async {
            let (_, rows) = Rows::<T>::read(x.clone()).await.unwrap();
            let source = Source::new(&rows, &rows.column_means(), form, x);
            let tiled = Pairs::tiled(source).await.unwrap();
            [Pairs::prepare(x, form).await.unwrap(), tiled]
        })
    }

    #[test]
    fn every_form_is_its_definition() {
        let rows = rows(700, 5);
        for form in FORMS {
            let table = plain(&rows, form);
            let largest = table.concat().iter().fold(0.0f64, |m, v| m.max(v.abs()));
            for (dtype, tolerance) in [(DType::F32, 4e-6), (DType::F64, 1e-13)] {
                let x = tensor(&rows, dtype);
                let both = match dtype {
                    DType::F64 => both::<f64>(&x, form),
                    _ => both::<f32>(&x, form),
                };
                for pairs in both {
                    let mut seen = 0;
                    let check = |i: usize, j: usize, values: &[f64]| {
                        seen += values.len();
                        for (k, v) in values.iter().enumerate() {
                            let expected = table[i][j + k];
                            let off = (v - expected).abs();
                            assert!(
                                off <= tolerance * largest,
                                "{form:?} {i} {} {v} {expected}",
                                j + k
                            );
                            if rows[i] == rows[j + k] && form != Form::Dot {
                                assert_eq!(*v, pairs.diagonal[i], "{form:?}");
                            }
                        }
                    };
                    block_on(pairs.visit(check)).unwrap();
                    assert_eq!(seen, 700 * 699 / 2);
                }
            }
        }
    }

    /// Nearly equal rows: the subtraction of products would leave nothing of their distance in f32.
    #[test]
    fn short_distances_keep_their_digits() {
        let rows = rows(40, 300);
        let table = plain(&rows, Form::Euclidean);
        for pairs in both::<f32>(&tensor(&rows, DType::F32), Form::Euclidean) {
            let mut found = 0.0;
            let check = |i: usize, j: usize, values: &[f64]| {
                if i == 2 {
                    found = values[7 - j];
                }
            };
            block_on(pairs.visit(check)).unwrap();
            assert!(
                table[2][7] < 1e-3 && (found / table[2][7] - 1.0).abs() < 2e-2,
                "{found}"
            );
        }
    }

    #[test]
    fn sums_products_and_hsic_are_their_definitions() {
        let (n, left, right) = (600, rows(600, 4), rows(600, 6));
        let (x, y) = (tensor(&left, DType::F64), tensor(&right, DType::F64));
        let narrow = tensor(&right, DType::F32);
        for form in FORMS {
            let (k, l) = (plain(&left, form), plain(&right, form));
            let a = both::<f64>(&x, form);
            let off = |i: usize| k[i].iter().sum::<f64>() - k[i][i];
            let product = |k: &[Vec<f64>], l: &[Vec<f64>]| {
                let row = |i: usize| dot(&k[i][i + 1..], &l[i][i + 1..]);
                (0..n).map(row).sum::<f64>()
            };
            let close = |a: f64, b: f64, tolerance: f64| {
                assert!(
                    (a - b).abs() <= tolerance * b.abs().max(1.0),
                    "{form:?} {a} {b}"
                );
            };
            for ((a, b), narrow) in a
                .iter()
                .zip(&both::<f64>(&y, form))
                .zip(&both::<f32>(&narrow, form))
            {
                (0..n).for_each(|i| close(a.sums.rows[i], off(i), 1e-11));
                close(a.sums.total, (0..n).map(off).sum(), 1e-11);
                close(a.sums.squares, product(&k, &k), 1e-11);
                let found = block_on(a.product(b)).unwrap();
                close(found, product(&k, &l), 1e-11);
                close(block_on(a.product(narrow)).unwrap(), product(&k, &l), 1e-5);
                close(block_on(narrow.product(a)).unwrap(), product(&k, &l), 1e-5);
                for estimator in [Estimator::Biased, Estimator::Unbiased] {
                    let expected = plain_hsic(&k, &l, estimator);
                    close(a.hsic(b, found, estimator), expected, 1e-9);
                    close(a.own_hsic(estimator), plain_hsic(&k, &k, estimator), 1e-9);
                }
            }
        }
    }

    /// Centring by the definition: every mean taken off the matrix, the diagonal as the estimator has it.
    fn plain_hsic(k: &[Vec<f64>], l: &[Vec<f64>], estimator: Estimator) -> f64 {
        let n = k.len();
        let drop = estimator == Estimator::Unbiased;
        let at = |k: &[Vec<f64>], i: usize, j: usize| if drop && i == j { 0.0 } else { k[i][j] };
        let (few, fewer) = match drop {
            true => (n as f64 - 2.0, (n as f64 - 1.0) * (n as f64 - 2.0)),
            false => (n as f64, (n * n) as f64),
        };
        let centred = |k: &[Vec<f64>]| {
            let sums: Vec<f64> = (0..n).map(|i| (0..n).map(|j| at(k, i, j)).sum()).collect();
            let total: f64 = sums.iter().sum();
            let value = |i: usize, j: usize| match drop && i == j {
                true => 0.0,
                false => at(k, i, j) - (sums[i] + sums[j]) / few + total / fewer,
            };
            let row = |i: usize| (0..n).map(|j| value(i, j)).collect::<Vec<_>>();
            (0..n).flat_map(row).collect::<Vec<f64>>()
        };
        dot(&centred(k), &centred(l))
    }

    #[test]
    fn blocks_cover_the_triangle_once() {
        let mut seen = vec![0u8; 9000 * 9];
        let rows: Vec<usize> = (0..9).map(|r| r * 1100 + 77).collect();
        for (r, c) in blocks(9000) {
            assert!(r.len() <= ROWS && c.len() <= COLUMNS && c.end > r.start);
            for (k, i) in rows.iter().enumerate().filter(|(_, i)| r.contains(i)) {
                c.clone()
                    .filter(|j| j > i)
                    .for_each(|j| seen[k * 9000 + j] += 1);
            }
        }
        for (k, i) in rows.iter().enumerate() {
            assert!((0..9000).all(|j| seen[k * 9000 + j] == u8::from(j > *i)));
        }
    }
}
