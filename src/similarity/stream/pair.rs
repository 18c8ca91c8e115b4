//! The sums of two sides' products.

use std::borrow::Cow;

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, Par};

use super::super::axes::Basis;
use super::super::cka::Moments;
use super::super::host::sum_range;
use super::super::kernel::needs_rows;
use super::super::{Error, Kernel, Metric, subspace};
use super::side::{Batch, Lengths, Side, add, add_outer, dot, squared};

/// Sums of two sides, whose rows less the first batch's means are `u` and `v`.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    /// Which sides.
    pub(super) places: [usize; 2],
    /// `Σ u vᵀ`, `[dx, dy]`.
    cross: Mat<f64>,
    /// `Σ |u|² |v|²`.
    squares: f64,
    /// `Σ |v|² u` and `Σ |u|² v`.
    weighted: [Vec<f64>; 2],
}

impl Pair {
    pub(super) fn new(places: [usize; 2], [dx, dy]: [usize; 2]) -> Self {
        Self {
            places,
            cross: Mat::zeros(dx, dy),
            squares: 0.0,
            weighted: [vec![0.0; dx], vec![0.0; dy]],
        }
    }

    pub(super) fn add(&mut self, batches: &[Batch]) {
        let [x, y] = self.places.map(|k| &batches[k]);
        let [left, right] = &mut self.weighted;
        add(left, &x.weighted_by(y));
        add(right, &y.weighted_by(x));
        self.squares += dot(&x.lengths, &y.lengths);
        let columns = x.matrix().transpose();
        let cross = self.cross.as_mut();
        matmul(cross, Accum::Add, columns, y.matrix(), 1.0, Par::rayon(0));
    }

    pub(super) fn seen<'a>(&'a self, sides: &'a [Side], n: usize) -> Seen<'a> {
        let [left, right] = &self.weighted;
        Seen {
            n,
            places: self.places,
            sides: self.places.map(|k| &sides[k]),
            cross: Cow::Borrowed(&self.cross),
            squares: self.squares,
            weighted: [left, right],
        }
    }

    /// From the other side.
    pub(super) fn turned<'a>(&'a self, sides: &'a [Side], n: usize) -> Seen<'a> {
        let Seen {
            places: [i, j],
            sides: [a, b],
            cross,
            weighted: [left, right],
            ..
        } = self.seen(sides, n);
        Seen {
            places: [j, i],
            sides: [b, a],
            cross: Cow::Owned(cross.transpose().to_owned()),
            weighted: [right, left],
            ..self.seen(sides, n)
        }
    }
}

/// Two sides and their sums over `n` rows.
pub(super) struct Seen<'a> {
    n: usize,
    pub(super) places: [usize; 2],
    sides: [&'a Side; 2],
    cross: Cow<'a, Mat<f64>>,
    squares: f64,
    weighted: [&'a [f64]; 2],
}

impl<'a> Seen<'a> {
    /// One side with itself.
    pub(super) fn alone(side: &'a Side, place: usize, n: usize) -> Self {
        Self {
            n,
            places: [place; 2],
            sides: [side; 2],
            cross: Cow::Owned(side.whole()),
            squares: side.fourth,
            weighted: [&side.weighted; 2],
        }
    }

    /// What a metric of axes makes of those of the two sides and the products of their scores.
    pub(super) fn value(
        &self,
        metric: Metric,
        left: &Basis,
        right: &Basis,
        centred: bool,
    ) -> Result<f64, Error> {
        let [a, b] = self.sides;
        let mut products = self.centred_cross();
        if !centred {
            add_outer(&mut products, &a.mean(self.n), &b.mean(self.n), self.n);
        }
        let cross = left.v.transpose() * products * &right.v;
        let cross = cross.as_ref();
        match metric {
            Metric::Kernel(Kernel::SubspaceOverlap { top }) => {
                subspace::overlap(left, right, cross, top)
            }
            Metric::Kernel(_) => Ok(subspace::eigenspace_overlap(left, right, cross)),
            Metric::Cca(cca) => cca.value(left, right, cross),
            Metric::Shape(shape) => shape.value(left, right, cross),
            _ => Err(needs_rows()),
        }
    }

    /// `XᵀY` of the centred rows.
    fn centred_cross(&self) -> Mat<f64> {
        let [a, b] = self.sides.map(|side| side.drift(self.n));
        Mat::from_fn(a.len(), b.len(), |i, j| {
            self.cross[(i, j)] - self.n as f64 * a[i] * b[j]
        })
    }

    /// What linear kernels are compared by.
    pub(super) fn moments(&self) -> Moments {
        let n = self.n as f64;
        let [a, b] = self.sides;
        let [da, db] = self.sides.map(|side| side.drift(self.n));
        let trace = |side: &Side, drift: &[f64]| side.trace() - n * squared(drift);
        let own = |side: &Side, drift: &[f64]| {
            let whole = |j: usize| -> f64 {
                let at = |i: usize| side.products[(i.max(j), i.min(j))] * drift[i];
                sum_range(0..side.d(), at) * drift[j]
            };
            Lengths {
                squares: side.fourth,
                weighted: [&side.weighted; 2],
                traces: [side.trace(); 2],
                cross: (0..side.d()).map(whole).sum(),
                drifts: [drift; 2],
            }
            .product(n)
        };
        let column = |j: usize| sum_range(0..a.d(), |i| self.cross[(i, j)] * da[i]) * db[j];
        let both = Lengths {
            squares: self.squares,
            weighted: self.weighted,
            traces: [a.trace(), b.trace()],
            cross: (0..b.d()).map(column).sum(),
            drifts: [&da, &db],
        };
        Moments {
            n: self.n,
            products: [
                self.centred_cross().squared_norm_l2(),
                a.covariance(self.n).squared_norm_l2(),
                b.covariance(self.n).squared_norm_l2(),
            ],
            diagonals: [both.product(n), own(a, &da), own(b, &db)],
            traces: [trace(a, &da), trace(b, &db)],
        }
    }
}
