//! A representation in its principal axes, in f64 on the host: what every metric of subspaces and
//! rotations needs, worked out once for each.

use std::borrow::Cow;

use burn::tensor::{DType, Tensor};
use faer::linalg::matmul::triangular::{BlockStructure, matmul};
use faer::{Accum, Mat, MatRef, Par, Side};

use super::Error;
use super::host::{Real, Rows, chunks_mut, working};
use super::sampled::{BLOCK, Leading, leading};

/// Directions below this share of the largest singular value are none: rounding, in either precision.
const NONE: f64 = 1e-6;

/// Squared singular values have half the digits. Where one that counts lies below this share of the
/// largest, the representation itself is decomposed.
const SQUARED: f64 = 1e-4;

/// Up to this many columns or rows the representation itself is decomposed: it costs little.
const SMALL: usize = 128;

/// From more columns and rows than this the leading directions are sampled, where only they are asked for.
const LARGE: usize = 4_096;

/// Which of the falling singular values are asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    All,
    /// The fewest that hold this share, below 1, of the squares.
    Holding(f64),
    Top(usize),
}

impl Part {
    /// The fewest that hold this share of the squares.
    pub(super) fn holding(variance: f64) -> Self {
        match variance < 1.0 {
            true => Self::Holding(variance),
            false => Self::All,
        }
    }

    /// How many of these they are, the squares of all being `total`.
    pub(super) fn count(self, s: &[f64], total: f64) -> usize {
        match self {
            Self::All => s.len(),
            Self::Holding(variance) => holding(s, variance, total),
            Self::Top(top) => top.min(s.len()),
        }
    }
}

/// The spectrum of one side: of `X = U S Vᵀ` everything but `U`.
#[derive(Clone, Debug)]
pub(super) struct Basis {
    /// Columns of the representation.
    pub(super) d: usize,
    /// Singular values, falling, all above [`NONE`] of the first; at least one. Of a large side of which
    /// a part was asked for, those of the part and some more.
    pub(super) s: Vec<f64>,
    /// `‖X‖²`.
    pub(super) squared: f64,
    /// Principal directions `[d, r]`: of all singular values, or of the leading ones.
    pub(super) v: Mat<f64>,
}

/// One representation `X`, column-centred or as it is, with its principal axes.
#[derive(Clone, Debug)]
pub(super) struct Axes {
    held: Held,
    /// What is left when the rows are gone.
    pub(super) basis: Basis,
}

/// The rows, in the form that is the cheaper to keep and to multiply with.
#[derive(Clone, Debug)]
enum Held {
    /// Scores `Z = X V`, `[n, r]`.
    Scores(Mat<f64>),
    /// `Xᵀ`, where most columns have a direction of their own: a product of two representations then
    /// costs less than the scores of both.
    Turned(Mat<f64>),
}

impl Held {
    /// `Zᵀ` or `Xᵀ`.
    fn turned(&self) -> MatRef<'_, f64> {
        match self {
            Self::Scores(z) => z.transpose(),
            Self::Turned(x) => x.as_ref(),
        }
    }
}

impl Axes {
    /// Decomposes `x`, `[n, d]`; with `centre` its columns lose their means first.
    ///
    /// Cost: `O(n d min(n, d))` on the host; `8 n (d + r)` bytes while it runs, at most `16 r (n + d)`
    /// kept. Through `XᵀX` (or `XXᵀ` if `n < d`) where all that counts lies above [`SQUARED`], which
    /// costs a product and an eigendecomposition; else a singular value decomposition of `X`.
    pub(super) async fn prepare(x: &Tensor<2>, centre: bool) -> Result<Self, Error> {
        Self::through(turned(wide_rows(x).await?, centre), Part::All)
    }

    /// As [`Axes::prepare`], centred, with the directions of `part`: beyond [`LARGE`] columns and rows they
    /// are [sampled](super::sampled).
    pub(super) async fn leading(x: &Tensor<2>, part: Part) -> Result<Self, Error> {
        Self::through(turned(wide_rows(x).await?, true), part)
    }

    /// Decomposes a matrix as it is.
    pub(super) fn of(x: Mat<f64>) -> Result<Self, Error> {
        Self::through(x.transpose().to_owned(), Part::All)
    }

    /// Decomposes the matrix whose transpose is `turned`, and keeps the directions of `part`.
    pub(super) fn through(turned: Mat<f64>, part: Part) -> Result<Self, Error> {
        let (n, d) = (turned.ncols(), turned.nrows());
        let squared = turned.squared_norm_l2();
        let small = n.min(d) <= SMALL;
        let mut parts = match n.min(d) > LARGE && !matches!(part, Part::All) {
            true => through_samples(turned.as_ref(), squared, part)?,
            false => None,
        };
        if parts.is_none() && !small {
            parts = match n >= d {
                true => through_columns(turned.as_ref(), squared, part)?,
                false => through_rows(turned.as_ref(), squared, part)?,
            };
        }
        let Parts { z, s, v } = match parts {
            Some(parts) => parts,
            None => through_svd(turned.transpose(), squared, part)?,
        };
        let held = z.map_or(Held::Turned(turned), Held::Scores);
        let basis = Basis { d, s, squared, v };
        Ok(Self { held, basis })
    }

    /// The same rows in another order.
    pub(super) fn reordered(&self, order: &[usize]) -> Self {
        let held = match &self.held {
            Held::Scores(z) => {
                Held::Scores(Mat::from_fn(z.nrows(), z.ncols(), |i, j| z[(order[i], j)]))
            }
            Held::Turned(x) => {
                Held::Turned(Mat::from_fn(x.nrows(), x.ncols(), |i, j| x[(i, order[j])]))
            }
        };
        let basis = self.basis.clone();
        Self { held, basis }
    }

    /// Scores `Z = X V`, `[n, r]`: orthogonal columns of the lengths `s`.
    pub(super) fn z(&self) -> Cow<'_, Mat<f64>> {
        match &self.held {
            Held::Scores(z) => Cow::Borrowed(z),
            Held::Turned(x) => Cow::Owned(x.transpose() * &self.basis.v),
        }
    }

    /// `Zxᵀ Zy`: the products of the two sides' scores, `[rx, ry]`.
    ///
    /// Cost: `O(n rx ry)`, and where `X` is held and not its scores `O(n dx ry + dx rx ry)`.
    pub(super) fn cross(&self, other: &Self) -> Mat<f64> {
        let product = self.times(other.held.turned().transpose());
        match other.held {
            Held::Scores(_) => product,
            Held::Turned(_) => product * &other.basis.v,
        }
    }

    /// `Zᵀ y` for `y` of `[n, q]`.
    pub(super) fn times(&self, y: MatRef<'_, f64>) -> Mat<f64> {
        let product = self.held.turned() * y;
        match self.held {
            Held::Scores(_) => product,
            Held::Turned(_) => self.basis.v.transpose() * product,
        }
    }
}

/// `x` read back in f64, whatever it is; brought near 1 by a power of two where it lies far from there.
pub(super) async fn wide_rows(x: &Tensor<2>) -> Result<Rows<f64>, Error> {
    Ok(scaled_rows(x).await?.0)
}

/// [`wide_rows`], and what undoes the change of scale.
pub(super) async fn scaled_rows(x: &Tensor<2>) -> Result<(Rows<f64>, f64), Error> {
    let (rows, factor) = match x.dtype() {
        DType::F64 => {
            let (_, rows, factor) = Rows::<f64>::scaled(x.clone()).await?;
            (rows, factor)
        }
        _ => {
            let (_, rows, factor) = Rows::<f32>::scaled(working(x)).await?;
            (widened(&rows), factor)
        }
    };
    Ok((rows, factor.recip()))
}

/// [`wide_rows`] in the units it came in.
pub(super) async fn unscaled_rows(x: &Tensor<2>) -> Result<Rows<f64>, Error> {
    Ok(match x.dtype() {
        DType::F64 => Rows::<f64>::unscaled(x).await?,
        _ => widened(&Rows::<f32>::unscaled(&working(x)).await?),
    })
}

fn widened(rows: &Rows<f32>) -> Rows<f64> {
    let (n, d) = (rows.n, rows.d);
    let all = &rows.values[..];
    let mut values = vec![0.0; n * d];
    chunks_mut(&mut values, 1 << 16, |c, chunk| {
        let narrow = &all[c << 16..];
        chunk
            .iter_mut()
            .zip(narrow)
            .for_each(|(w, v)| *w = v.wide());
    });
    let values = values.into();
    Rows { values, n, d }
}

/// `Xᵀ` in f64; with `centre` each column of `x` has lost its mean.
fn turned(rows: Rows<f64>, centre: bool) -> Mat<f64> {
    let mean = match centre {
        true => rows.column_means(),
        false => vec![0.0; rows.d],
    };
    let (values, d) = (&rows.values[..], rows.d);
    Mat::from_fn(d, rows.n, |j, i| values[i * d + j] - mean[j])
}

/// `x` read back, centred and turned: `[d, n]` in f64; as it came, or brought near 1 by a power of two
/// where it lies far from there.
pub(super) async fn centred(x: &Tensor<2>, units_matter: bool) -> Result<Mat<f64>, Error> {
    let rows = match units_matter {
        true => unscaled_rows(x).await?,
        false => wide_rows(x).await?,
    };
    Ok(turned(rows, true))
}

/// How many of the falling singular values hold `variance` of the squares, which sum to `total`.
fn holding(s: &[f64], variance: f64, total: f64) -> usize {
    let mut sum = 0.0;
    let below = |s: &&f64| {
        sum += **s * **s;
        sum < variance * total
    };
    (s.iter().take_while(below).count() + 1).min(s.len())
}

pub(super) fn no_convergence() -> Error {
    Error::Undefined {
        why: "its singular values did not converge",
    }
}

/// How many of the falling singular values count; an error if none is above 0.
pub(super) fn rank(s: &[f64]) -> Result<usize, Error> {
    let largest = s.first().copied().unwrap_or(0.0);
    match s.iter().take_while(|s| **s > NONE * largest).count() {
        0 => Err(Error::Undefined {
            why: "all its rows are equal",
        }),
        rank => Ok(rank),
    }
}

/// A decomposition: scores (left out where there are many), singular values and directions.
struct Parts {
    z: Option<Mat<f64>>,
    s: Vec<f64>,
    v: Mat<f64>,
}

fn through_svd(x: MatRef<'_, f64>, total: f64, part: Part) -> Result<Parts, Error> {
    let found = x.thin_svd().map_err(|_| no_convergence())?;
    let mut s: Vec<f64> = found.S().column_vector().iter().copied().collect();
    s.truncate(rank(&s)?);
    let r = part.count(&s, total);
    let z = Mat::from_fn(x.nrows(), r, |i, j| found.U()[(i, j)] * s[j]);
    let v = found.V().subcols(0, r).to_owned();
    let z = Some(z);
    Ok(Parts { z, s, v })
}

/// `a aᵀ` of which the lower triangle is computed.
pub(super) fn gram(a: MatRef<'_, f64>) -> Mat<f64> {
    let n = a.nrows();
    let mut product = Mat::zeros(n, n);
    matmul(
        product.as_mut(),
        BlockStructure::TriangularLower,
        Accum::Replace,
        a,
        BlockStructure::Rectangular,
        a.transpose(),
        BlockStructure::Rectangular,
        1.0,
        Par::rayon(0),
    );
    product
}

/// Singular values of `a`, falling, with the eigenvectors of `a aᵀ` of `part`; none if some of those
/// belong to values too small to be trusted after squaring.
#[allow(clippy::type_complexity, reason = "a list and a matrix")]
fn squared_spectrum(
    a: MatRef<'_, f64>,
    total: f64,
    part: Part,
) -> Result<Option<(Vec<f64>, Mat<f64>)>, Error> {
    let eigen = gram(a)
        .self_adjoint_eigen(Side::Lower)
        .map_err(|_| no_convergence())?;
    let values: Vec<f64> = eigen.S().column_vector().iter().copied().collect();
    let mut s: Vec<f64> = values.iter().rev().map(|l| l.max(0.0).sqrt()).collect();
    s.truncate(rank(&s)?);
    let r = part.count(&s, total);
    if s[r - 1] <= SQUARED * s[0] {
        return Ok(None);
    }
    let last = values.len() - 1;
    let vectors = Mat::from_fn(values.len(), r, |i, j| eigen.U()[(i, last - j)]);
    Ok(Some((s, vectors)))
}

/// None where the directions are many, or belong to values too small to be trusted after squaring.
fn through_samples(
    turned: MatRef<'_, f64>,
    squared: f64,
    part: Part,
) -> Result<Option<Parts>, Error> {
    let found = leading(turned, squared, part, BLOCK)?;
    let Some(Leading { s, v }) = found.filter(|l| l.s[l.v.ncols() - 1] > SQUARED * l.s[0]) else {
        return Ok(None);
    };
    let z = Some(turned.transpose() * &v);
    Ok(Some(Parts { z, s, v }))
}

fn through_columns(
    turned: MatRef<'_, f64>,
    total: f64,
    part: Part,
) -> Result<Option<Parts>, Error> {
    let Some((s, v)) = squared_spectrum(turned, total, part)? else {
        return Ok(None);
    };
    let few = 2 * v.ncols() <= turned.nrows();
    let z = few.then(|| turned.transpose() * &v);
    Ok(Some(Parts { z, s, v }))
}

fn through_rows(turned: MatRef<'_, f64>, total: f64, part: Part) -> Result<Option<Parts>, Error> {
    let Some((s, u)) = squared_spectrum(turned.transpose(), total, part)? else {
        return Ok(None);
    };
    let mut v = turned * &u;
    for (v, s) in v.col_iter_mut().zip(&s) {
        v.iter_mut().for_each(|v| *v /= s);
    }
    let z = Mat::from_fn(u.nrows(), u.ncols(), |i, j| u[(i, j)] * s[j]);
    let z = Some(z);
    Ok(Some(Parts { z, s, v }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(n: usize, d: usize) -> Mat<f64> {
        Mat::from_fn(n, d, |i, j| {
            ((i * i + 3 * i * j + 7 * j) as f64 * 0.37).sin() + 0.3 * (i as f64 - j as f64).cos()
        })
    }

    fn largest(a: Mat<f64>) -> f64 {
        a.col_iter()
            .flat_map(|c| c.iter().map(|v| v.abs()).collect::<Vec<_>>())
            .fold(0.0, f64::max)
    }

    /// Tall, wide, rank-deficient: the product gives the matrix back, the scores are orthogonal, and both
    /// roads find the same singular values.
    #[test]
    fn scores_times_directions_are_the_matrix() {
        let flat = wave(300, 5) * wave(5, 200);
        for x in [wave(300, 150), wave(140, 333), wave(40, 30), flat] {
            let axes = Axes::of(x.clone()).unwrap();
            let plain = through_svd(x.as_ref(), 0.0, Part::All).unwrap().s;
            let scale = axes.basis.s[0];
            assert!(largest(&*axes.z() * axes.basis.v.transpose() - &x) < 1e-12 * scale);
            let products = axes.cross(&axes);
            let expected = Mat::from_fn(products.nrows(), products.ncols(), |i, j| match i == j {
                true => axes.basis.s[i].powi(2),
                false => 0.0,
            });
            assert!(largest(products - expected) < 1e-11 * scale * scale);
            assert_eq!(axes.basis.s.len(), plain.len());
            for (a, b) in axes.basis.s.iter().zip(&plain) {
                assert!((a - b).abs() < 1e-11 * scale, "{a} {b}");
            }
        }
    }

    /// Whichever form each side is held in, and in whichever order the rows lie.
    #[test]
    fn products_of_scores_do_not_depend_on_what_is_held() {
        let (full, few) = (wave(300, 150), wave(300, 5) * wave(5, 200));
        let sides = [full, few].map(|x| Axes::of(x).unwrap());
        assert!(matches!(sides[0].held, Held::Turned(_)));
        assert!(matches!(sides[1].held, Held::Scores(_)));
        let order: Vec<usize> = (0..300).map(|i| (i * 7 + 3) % 300).collect();
        for a in &sides {
            for b in &sides {
                let expected = a.z().transpose() * &*b.z();
                let scale = a.basis.s[0] * b.basis.s[0];
                assert!(largest(a.cross(b) - &expected) < 1e-13 * scale);
                let moved = a.reordered(&order).cross(&b.reordered(&order));
                assert!(largest(moved - &expected) < 1e-13 * scale);
            }
        }
    }

    /// A spectrum that falls over five orders: squaring would lose digits, so the matrix is decomposed,
    /// unless the directions that are asked for are the large ones.
    #[test]
    fn small_directions_are_not_squared() {
        let even = wave(400, 130);
        let x = Mat::from_fn(400, 130, |i, j| even[(i, j)] * 10f64.powi(-(j as i32 / 26)));
        let squared =
            |x: &Mat<f64>, part| through_columns(x.transpose(), x.squared_norm_l2(), part).unwrap();
        assert!(squared(&x, Part::All).is_none());
        assert!(squared(&even, Part::All).is_some());
        let found = squared(&x, Part::Holding(0.99)).unwrap();
        let plain = through_svd(x.as_ref(), x.squared_norm_l2(), Part::Holding(0.99)).unwrap();
        assert_eq!(found.v.ncols(), plain.v.ncols());
        assert!(found.v.ncols() < 60);
    }

    #[test]
    fn the_fewest_directions_that_hold_enough() {
        let singular = [3.0, 2.0, 1.0]; // squares 9, 4, 1
        for (variance, fewest) in [(0.6, 1), (0.65, 2), (0.92, 2), (0.93, 3), (1.0, 3)] {
            assert_eq!(holding(&singular, variance, 14.0), fewest, "{variance}");
        }
    }
}
