//! Linear maps fitted on some rows and judged on the others.

use std::sync::OnceLock;

use faer::{Mat, MatRef};

use super::Error;
use super::axes::{Axes, Part};
use super::pls;

/// How one representation is mapped to the other.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Mapping {
    /// Ridge regression.
    Ridge(Penalty),
    /// Partial least squares with this many components, or as many as there are.
    Pls {
        /// Components; at least 1.
        components: usize,
    },
}

/// The penalty of a ridge regression: `‖Y - X W‖² + λ ‖W‖²`, with an intercept that is free.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Penalty {
    /// This λ; at least 0. With 0, least squares of the smallest weights.
    Fixed(f64),
    /// The λ of the smallest squared error with each row of a training set left out in turn, for all
    /// targets together: of `10^-6, 10^-5, … 10^6` times the mean squared singular value of the
    /// predictors.
    Auto,
}

/// Decades about the mean squared singular value in which [`Penalty::Auto`] looks.
const DECADES: std::ops::RangeInclusive<i32> = -6..=6;

/// A representation cut into folds: row `i` is tested in fold `i % count` and trained on in the others.
#[derive(Clone, Debug)]
pub(super) struct Folds {
    /// The rows turned, `[d, n]`.
    turned: Mat<f64>,
    count: usize,
    trained: OnceLock<Vec<Trained>>,
}

/// The rows of one fold, turned, less the means of the training rows.
pub(super) struct Split {
    pub(super) train: Mat<f64>,
    pub(super) test: Mat<f64>,
}

/// What ridge regressions on the training rows of one fold need of the predictors, whatever the penalty
/// and the targets.
#[derive(Clone, Debug)]
struct Trained {
    train: Axes,
    /// Scores of the test rows, `[t, r]`.
    test: Mat<f64>,
}

impl Folds {
    pub(super) fn new(turned: Mat<f64>, count: usize) -> Self {
        let trained = OnceLock::new();
        Self {
            turned,
            count,
            trained,
        }
    }

    pub(super) fn reordered(&self, order: &[usize]) -> Self {
        Self::new(columns(&self.turned, order), self.count)
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Columns of the representation.
    pub(super) fn width(&self) -> usize {
        self.turned.nrows()
    }

    pub(super) fn split(&self, fold: usize) -> Split {
        let of = |tested: bool| {
            let rows = (0..self.turned.ncols()).filter(|i| (i % self.count == fold) == tested);
            columns(&self.turned, &rows.collect::<Vec<_>>())
        };
        let [mut train, mut test] = [of(false), of(true)];
        let ones = Mat::from_fn(train.ncols(), 1, |_, _| 1.0 / train.ncols() as f64);
        let mean = &train * ones;
        for part in [&mut train, &mut test] {
            for column in part.col_iter_mut() {
                column
                    .iter_mut()
                    .zip(mean.col(0).iter())
                    .for_each(|(v, m)| *v -= m);
            }
        }
        Split { train, test }
    }

    /// Worked out once, on first use: the side that is predicted needs none of it.
    fn trained(&self) -> Result<&[Trained], Error> {
        if self.trained.get().is_none() {
            let of = |fold| {
                let Split { train, test } = self.split(fold);
                let train = Axes::through(train, Part::All)?;
                let test = test.transpose() * &train.basis.v;
                Ok(Trained { train, test })
            };
            let all = (0..self.count).map(of).collect::<Result<_, Error>>()?;
            let _ = self.trained.set(all); // another thread may have been first, with the same
        }
        Ok(self.trained.get().expect("set above"))
    }

    /// What the rows of this representation predict of the test rows of `target`, less its training
    /// means: `[t, q]`.
    pub(super) fn predictions(
        &self,
        fold: usize,
        target: &Split,
        by: Mapping,
    ) -> Result<Mat<f64>, Error> {
        match by {
            Mapping::Ridge(penalty) => {
                Ok(self.trained()?[fold].ridge(target.train.as_ref(), penalty))
            }
            Mapping::Pls { components } => {
                let x = self.split(fold);
                let fitted = pls::fit(x.train.as_ref(), target.train.as_ref(), components)?;
                Ok(fitted.predictions(x.test.as_ref()))
            }
        }
    }
}

fn columns(x: &Mat<f64>, which: &[usize]) -> Mat<f64> {
    Mat::from_fn(x.nrows(), which.len(), |i, j| x[(i, which[j])])
}

impl Trained {
    /// Predictions of the test rows, `[t, q]`, for the turned training targets `[q, m]`, whose means are 0.
    fn ridge(&self, target: MatRef<'_, f64>, penalty: Penalty) -> Mat<f64> {
        let products = self.train.times(target.transpose());
        let lambda = match penalty {
            Penalty::Fixed(lambda) => lambda,
            Penalty::Auto => self.best(&products, target),
        };
        &self.test * self.weights(&products, lambda)
    }

    /// Weights of the scores, `[r, q]`.
    fn weights(&self, products: &Mat<f64>, lambda: f64) -> Mat<f64> {
        let s = &self.train.basis.s;
        Mat::from_fn(products.nrows(), products.ncols(), |i, j| {
            products[(i, j)] / (s[i] * s[i] + lambda)
        })
    }

    /// The penalty of the smallest error with one row left out.
    fn best(&self, products: &Mat<f64>, target: MatRef<'_, f64>) -> f64 {
        let basis = &self.train.basis;
        let mean = basis.squared / basis.s.len() as f64;
        let z = self.train.z();
        let grid = DECADES.map(|decade| mean * 10f64.powi(decade));
        let tried = grid.map(|lambda| {
            let fitted = self.weights(products, lambda).transpose() * z.transpose();
            let rows = target.col_iter().zip(fitted.col_iter());
            let misses = rows
                .zip(self.leverage(&z, lambda))
                .map(|((y, fit), leverage)| {
                    let miss = y.iter().zip(fit.iter()).map(|(y, fit)| (y - fit).powi(2));
                    miss.sum::<f64>() / (1.0 - leverage).powi(2)
                });
            (lambda, misses.sum::<f64>())
        });
        let best = tried.min_by(|a, b| a.1.total_cmp(&b.1));
        best.expect("a grid that is not empty").0
    }

    /// How much of its own prediction each training row makes.
    fn leverage(&self, z: &Mat<f64>, lambda: f64) -> Vec<f64> {
        let mut leverage = vec![1.0 / z.nrows() as f64; z.nrows()];
        for (column, s) in z.col_iter().zip(&self.train.basis.s) {
            let own = 1.0 / (s * s + lambda);
            for (h, z) in leverage.iter_mut().zip(column.iter()) {
                *h += z * z * own;
            }
        }
        leverage
    }
}
