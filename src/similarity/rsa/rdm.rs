//! Dissimilarities of the rows of one representation.
//!
//! Every kind is `q_i + q_j - 2 u_i · v_j` of points made from the rows (times ½, or under a root),
//! so that all pairs are products of tiles, and points are shifted where that keeps digits.

use std::ops::Range;

use burn::tensor::Tensor;

use super::super::Error;
use super::super::groups::Groups;
use super::super::host::{Real, Rows, beside, map_chunks, sum_range};
use super::super::tiles::tiles;
use crate::device;

/// How the dissimilarity of two rows is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rdm {
    /// `1 - r`, with `r` Pearson's correlation of the two rows over their columns. A row whose columns
    /// are all equal has `r = 0` with every other row.
    Correlation,
    /// `1 - cos`, with the cosine of the two rows. A row of zeros has `cos = 0` with every other row.
    Cosine,
    /// Euclidean distance.
    Euclidean,
    /// Squared Euclidean distance, which rsatoolbox calls `euclidean`.
    SquaredEuclidean,
    /// Symmetric Kullback-Leibler divergence of Poisson rates, summed over columns. The rates are
    /// `(x + 0.1) / 1.1`: a prior rate of 1 with weight 0.1. The values must not be negative.
    Poisson,
}

/// Counts that the prior is worth beside one count seen (rsatoolbox's `prior_weight`).
const PRIOR_WEIGHT: f64 = 0.1;

/// Above this squared length of the rows' mean direction, directions are shifted by it.
const ONE_WAY: f64 = 0.5;

impl Rdm {
    /// The name as options spell it.
    pub(super) const NAMES: [(&'static str, Self); 5] = [
        ("correlation", Self::Correlation),
        ("cosine", Self::Cosine),
        ("euclidean", Self::Euclidean),
        ("sqeuclidean", Self::SquaredEuclidean),
        ("poisson", Self::Poisson),
    ];

    /// Power of the data's scale that the dissimilarity has.
    pub(super) fn degree(self) -> i32 {
        match self {
            Self::Correlation | Self::Cosine | Self::Poisson => 0,
            Self::Euclidean => 1,
            Self::SquaredEuclidean => 2,
        }
    }
}

/// Rows as points: the dissimilarity of two is `scale (q_i + q_j - 2 left_i · right_j)` or its root.
#[derive(Clone, Debug)]
pub(super) struct Points {
    /// `[n, k]`.
    left: Tensor<2>,
    /// `[n, k]`; the same tensor but for Poisson rates.
    right: Tensor<2>,
    q: Vec<f64>,
    scale: f64,
    root: bool,
    /// Whether `q` is 1 throughout, so that `-left_i · right_j` has the same order and more digits.
    unit: bool,
}

impl Points {
    pub(super) fn new<T: Real>(rdm: Rdm, x: &Tensor<2>, rows: &Rows<T>) -> Result<Self, Error> {
        match rdm {
            Rdm::Euclidean => Ok(Self::positions(x, rows, true)),
            Rdm::SquaredEuclidean => Ok(Self::positions(x, rows, false)),
            Rdm::Correlation => Ok(Self::directions(x, rows, row_mean)),
            Rdm::Cosine => Ok(Self::directions(x, rows, |_| 0.0)),
            Rdm::Poisson => Self::rates(x, rows),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.q.len()
    }

    fn symmetric(z: Tensor<2>, q: Vec<f64>, scale: f64) -> Self {
        Self {
            left: z.clone(),
            right: z,
            q,
            scale,
            root: false,
            unit: false,
        }
    }

    /// Rows less a shift near their mean.
    fn positions<T: Real>(x: &Tensor<2>, rows: &Rows<T>, root: bool) -> Self {
        let shift = exact_shift(rows);
        let q = rows.map(|row| {
            let centred = |j: usize| (row[j] - shift[j]).wide();
            sum_range(0..rows.d, |j| centred(j) * centred(j))
        });
        let z = x.clone() - beside(shift, [1, rows.d], x);
        Self {
            root,
            ..Self::symmetric(z, q, 1.0)
        }
    }

    /// Rows of length 1 about `about(row)`; a row without length is 0 and has `q = 1` all the same.
    fn directions<T: Real>(
        x: &Tensor<2>,
        rows: &Rows<T>,
        about: impl Fn(&[T]) -> f64 + Sync,
    ) -> Self {
        let frame = rows.map(|row| {
            let mean = T::rounded(about(row));
            (mean, T::rounded(inverse_length(row, mean.wide())))
        });
        let shift = mean_direction(rows, &frame);
        if sum_range(0..rows.d, |j| shift[j] * shift[j]) > ONE_WAY {
            return Self::shifted(x, rows, about, &shift);
        }
        let (mean, inverse): (Vec<T>, Vec<T>) = frame.into_iter().unzip();
        let column = |values: Vec<T>| beside(values, [rows.n, 1], x);
        let z = (x.clone() - column(mean)) * column(inverse);
        Self {
            unit: true,
            ..Self::symmetric(z, vec![1.0; rows.n], 0.5)
        }
    }

    /// Directions less a shift, taken in f64 before they are rounded: rows that point nearly one way
    /// differ in digits that a product of the directions themselves does not have.
    fn shifted<T: Real>(
        x: &Tensor<2>,
        rows: &Rows<T>,
        about: impl Fn(&[T]) -> f64 + Sync,
        shift: &[f64],
    ) -> Self {
        let turned = rows.map(|row| {
            let mean = about(row);
            let inverse = inverse_length(row, mean);
            let less = |(v, s): (&T, &f64)| T::rounded((v.wide() - mean) * inverse - s);
            let z: Vec<T> = row.iter().zip(shift).map(less).collect();
            let lost = if inverse > 0.0 { 0.0 } else { 1.0 };
            let q = lost + sum_range(0..z.len(), |j| z[j].wide() * z[j].wide());
            (q, z)
        });
        let (q, z): (Vec<f64>, Vec<Vec<T>>) = turned.into_iter().unzip();
        Self::symmetric(beside(z.concat(), [rows.n, rows.d], x), q, 0.5)
    }

    /// Rates beside their logarithms, both column-centred: only differences count.
    fn rates<T: Real>(x: &Tensor<2>, rows: &Rows<T>) -> Result<Self, Error> {
        let (n, d) = (rows.n, rows.d);
        if rows.values.iter().any(|v| v.wide() < 0.0) {
            return Err(Error::Undefined {
                why: "a Poisson rate is negative",
            });
        }
        let rate = |v: f64| (v + PRIOR_WEIGHT) / (1.0 + PRIOR_WEIGHT);
        let column = |j: usize, f: &dyn Fn(f64) -> f64| {
            (0..n).map(|i| f(rows.row(i)[j].wide())).sum::<f64>() / n as f64
        };
        let mean: Vec<[f64; 2]> = (0..d)
            .map(|j| [column(j, &rate), column(j, &|v| rate(v).ln())])
            .collect();
        let both = rows.map(|row| {
            let rates = row.iter().zip(&mean);
            let rates = rates.map(|(v, m)| T::rounded(rate(v.wide()) - m[0]));
            let logs = row.iter().zip(&mean);
            let logs = logs.map(|(v, m)| T::rounded(rate(v.wide()).ln() - m[1]));
            (rates.collect::<Vec<T>>(), logs.collect::<Vec<T>>())
        });
        let product = |(c, l): &(Vec<T>, Vec<T>)| sum_range(0..d, |j| c[j].wide() * l[j].wide());
        let half = |v: &T| *v * T::rounded(0.5);
        let left = both.iter().flat_map(|(c, l)| c.iter().chain(l).copied());
        let right = both.iter().flat_map(|(c, l)| l.iter().chain(c).map(half));
        Ok(Self {
            q: both.iter().map(product).collect(),
            left: beside(left.collect::<Vec<T>>(), [n, 2 * d], x),
            right: beside(right.collect::<Vec<T>>(), [n, 2 * d], x),
            scale: 1.0,
            root: false,
            unit: false,
        })
    }

    /// Products of rows `r` with all rows from `r.start` on: `[r.len(), n - r.start]`.
    pub(super) fn tile(&self, r: &Range<usize>) -> Tensor<2> {
        let rows = self.left.clone().narrow(0, r.start, r.len());
        let rest = self.right.clone().narrow(0, r.start, self.len() - r.start);
        rows.matmul(rest.transpose())
    }

    /// The dissimilarity of rows `i` and `j` from their product.
    pub(super) fn value(&self, product: f64, i: usize, j: usize) -> f64 {
        let value = (self.scale * (self.q[i] + self.q[j] - 2.0 * product)).max(0.0);
        if self.root { value.sqrt() } else { value }
    }

    /// What orders as the dissimilarity does, with no digits spent on roots and sums.
    fn order(&self, product: f64, i: usize, j: usize) -> f64 {
        match self.unit {
            true => -product,
            false => self.scale * (self.q[i] + self.q[j] - 2.0 * product),
        }
    }

    /// [`Points::order`] of two equal rows that are `alike`, their dissimilarity.
    fn order_of_equals(&self, alike: f64) -> f64 {
        if self.unit { alike - 1.0 } else { alike }
    }
}

/// Rows made ready: equal ones once, so that the pairs they make tie whatever the device's rounding.
pub(super) struct Distinct {
    pub(super) points: Points,
    groups: Groups,
    /// Dissimilarity of two equal rows of each group.
    alike: Vec<f64>,
}

impl Distinct {
    pub(super) async fn new<T: Real>(rdm: Rdm, x: &Tensor<2>) -> Result<Self, Error> {
        let (x, rows) = match rdm {
            Rdm::Poisson => (x.clone(), Rows::<T>::unscaled(x).await?),
            _ => Rows::<T>::read(x.clone()).await?,
        };
        let groups = Groups::new(&rows);
        let rows = groups.distinct_rows(rows);
        let alike = rows.map(|row| alike(rdm, row));
        let points = Points::new(rdm, &groups.distinct(x), &rows)?;
        Ok(Self {
            points,
            groups,
            alike,
        })
    }

    /// The dissimilarities of all pairs, row-major.
    pub(super) async fn values<T: Real>(&self) -> Result<Vec<T>, device::Error> {
        let points = &self.points;
        let upper = triangle(points, |p, i, j| points.value(p, i, j)).await?;
        Ok(self.groups.expand(upper, |g| T::rounded(self.alike[g])))
    }

    /// Values of all pairs that order as the dissimilarities do.
    pub(super) async fn order<T: Real>(&self) -> Result<Vec<T>, device::Error> {
        let points = &self.points;
        let upper = triangle(points, |p, i, j| points.order(p, i, j)).await?;
        let alike = |g: usize| T::rounded(points.order_of_equals(self.alike[g]));
        Ok(self.groups.expand(upper, alike))
    }
}

/// The dissimilarity of a row and its equal: 0, or 1 where the row gives no direction.
pub(super) fn alike<T: Real>(rdm: Rdm, row: &[T]) -> f64 {
    let none = match rdm {
        Rdm::Correlation => row.iter().all(|v| *v == row[0]),
        Rdm::Cosine => row.iter().all(|v| v.wide() == 0.0),
        _ => false,
    };
    f64::from(none)
}

/// `value(product, i, j)` of the pairs `i < j`, row-major. One tile is held besides.
async fn triangle<T: Real>(
    points: &Points,
    value: impl Fn(f64, usize, usize) -> f64,
) -> Result<Vec<T>, device::Error> {
    let n = points.len();
    let mut upper = Vec::with_capacity(n * n.saturating_sub(1) / 2);
    for r in tiles(n) {
        let width = n - r.start;
        let tile = device::read::<T, 2>(points.tile(&r)).await?;
        for i in r.clone() {
            let at = (i - r.start) * width;
            let products = tile[at + i + 1 - r.start..at + width].iter();
            let of = |(p, j): (&T, usize)| T::rounded(value(p.wide(), i, j));
            upper.extend(products.zip(i + 1..n).map(of));
        }
    }
    Ok(upper)
}

/// By what power of two the rows were scaled when they were read.
pub(super) async fn scale<T: Real>(x: &Tensor<2>) -> Result<f64, Error> {
    Ok(Rows::<T>::scaled(x.clone()).await?.2)
}

/// Each column's mean, rounded to a power of two that its values span: subtracting it is exact, and values
/// of few bits, such as counts, keep exact products, so that equal distances tie.
fn exact_shift<T: Real>(rows: &Rows<T>) -> Vec<T> {
    let mean = rows.column_means();
    let part = |r: Range<usize>| {
        let mut reach = vec![0.0f64; rows.d];
        for i in r {
            let cells = rows.row(i).iter().zip(&mean);
            let off = cells.map(|(v, m)| (v.wide() - m.wide()).abs());
            reach.iter_mut().zip(off).for_each(|(r, o)| *r = r.max(o));
        }
        reach
    };
    let parts = map_chunks(rows.n, 256, part);
    let reach = (0..rows.d).map(|j| parts.iter().map(|p| p[j]).fold(0.0, f64::max));
    let rounded = |(m, reach): (&T, f64)| match reach > 0.0 {
        true => {
            let step = reach.log2().floor().exp2();
            T::rounded((m.wide() / step).round() * step)
        }
        false => *m,
    };
    mean.iter().zip(reach).map(rounded).collect()
}

/// Mean of the rows' directions.
fn mean_direction<T: Real>(rows: &Rows<T>, frame: &[(T, T)]) -> Vec<f64> {
    let part = |r: Range<usize>| {
        let mut sum = vec![0.0; rows.d];
        for i in r {
            let (mean, inverse) = (frame[i].0, frame[i].1.wide());
            let turned = |(s, v): (&mut f64, &T)| *s += (*v - mean).wide() * inverse;
            sum.iter_mut().zip(rows.row(i)).for_each(turned);
        }
        sum
    };
    let mut mean = vec![0.0; rows.d];
    for sum in map_chunks(rows.n, 256, part) {
        mean.iter_mut()
            .zip(sum)
            .for_each(|(m, s)| *m += s / rows.n as f64);
    }
    mean
}

fn row_mean<T: Real>(row: &[T]) -> f64 {
    let first = row[0].wide();
    first + sum_range(0..row.len(), |j| row[j].wide() - first) / row.len() as f64
}

/// One over the length of a row about `mean` (0 for a row without length).
fn inverse_length<T: Real>(row: &[T], mean: f64) -> f64 {
    let centred = |j: usize| row[j].wide() - mean;
    let length = sum_range(0..row.len(), |j| centred(j) * centred(j)).sqrt();
    if length > 0.0 { length.recip() } else { 0.0 }
}
