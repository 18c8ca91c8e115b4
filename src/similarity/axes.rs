//! A representation in its principal axes, in f64 on the host: what every metric of subspaces and
//! rotations needs, worked out once for each.

use burn::tensor::{DType, Tensor};
use faer::linalg::matmul::triangular::{BlockStructure, matmul};
use faer::{Accum, Mat, MatRef, Par, Side};

use super::Error;
use super::host::{Real, Rows, map_chunks, working};

/// Directions below this share of the largest singular value are none: rounding, in either precision.
const NONE: f64 = 1e-6;

/// Squared singular values have half the digits. Where one that counts lies below this share of the
/// largest, the representation itself is decomposed.
const SQUARED: f64 = 1e-4;

/// Up to this many columns or rows the representation itself is decomposed: it costs little.
const SMALL: usize = 128;

/// The spectrum of one side: of `X = U S Vᵀ` everything but `U`.
#[derive(Clone, Debug)]
pub(super) struct Basis {
    /// Rows of the representation.
    pub(super) n: usize,
    /// Columns of the representation.
    pub(super) d: usize,
    /// Singular values, falling, all above [`NONE`] of the first; at least one.
    pub(super) s: Vec<f64>,
    /// Principal directions, `[d, s.len()]`.
    pub(super) v: Mat<f64>,
}

impl Basis {
    /// `‖X‖²`.
    pub(super) fn squared(&self) -> f64 {
        self.s.iter().map(|s| s * s).sum()
    }
}

/// One representation `X`, column-centred or as it is, as `Z Vᵀ` with orthogonal columns of `Z`.
#[derive(Clone, Debug)]
pub(super) struct Axes {
    /// Scores `Z = X V`, `[n, s.len()]`; column `i` has length `s[i]`.
    pub(super) z: Mat<f64>,
    /// The rest of the decomposition.
    pub(super) basis: Basis,
}

impl Axes {
    /// Decomposes `x`, `[n, d]`; with `centre` its columns lose their means first.
    ///
    /// Cost: `O(n d min(n, d))` on the host; `8 n (d + r)` bytes while it runs, `8 r (n + d)` kept.
    /// Through `XᵀX` (or `XXᵀ` if `n < d`) where all that counts lies above [`SQUARED`], which costs a
    /// product and an eigendecomposition; else a singular value decomposition of `X`.
    pub(super) async fn prepare(x: &Tensor<2>, centre: bool) -> Result<Self, Error> {
        let rows = wide_rows(x).await?;
        let mean = match centre {
            true => rows.column_means(),
            false => vec![0.0; rows.d],
        };
        let x = Mat::from_fn(rows.n, rows.d, |i, j| rows.row(i)[j] - mean[j]);
        drop(rows);
        Self::of(x)
    }

    /// Decomposes a matrix as it is.
    pub(super) fn of(x: Mat<f64>) -> Result<Self, Error> {
        let (n, d) = (x.nrows(), x.ncols());
        let squared = match n.min(d) > SMALL {
            true if n >= d => through_columns(x.as_ref())?,
            true => through_rows(x.as_ref())?,
            false => None,
        };
        match squared {
            Some(axes) => Ok(axes),
            None => through_svd(x.as_ref()),
        }
    }

    /// The same rows in another order.
    pub(super) fn reordered(&self, order: &[usize]) -> Self {
        let z = Mat::from_fn(self.z.nrows(), self.z.ncols(), |i, j| self.z[(order[i], j)]);
        let basis = self.basis.clone();
        Self { z, basis }
    }

    /// `Zxᵀ Zy`: the products of the two sides' scores, `[rx, ry]`.
    pub(super) fn cross(&self, other: &Self) -> Mat<f64> {
        self.z.transpose() * &other.z
    }
}

/// `x` read back in f64, whatever it is.
pub(super) async fn wide_rows(x: &Tensor<2>) -> Result<Rows<f64>, Error> {
    Ok(match x.dtype() {
        DType::F64 => Rows::<f64>::read(x.clone()).await?.1,
        _ => {
            let rows = Rows::<f32>::read(working(x)).await?.1;
            let widen = |r: std::ops::Range<usize>| {
                let values = &rows.values[r.start * rows.d..r.end * rows.d];
                values.iter().map(|v| v.wide()).collect::<Vec<_>>()
            };
            Rows {
                values: map_chunks(rows.n, 1024, widen).concat(),
                n: rows.n,
                d: rows.d,
                scale: rows.scale,
            }
        }
    })
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

fn through_svd(x: MatRef<'_, f64>) -> Result<Axes, Error> {
    let found = x.thin_svd().map_err(|_| no_convergence())?;
    let mut s: Vec<f64> = found.S().column_vector().iter().copied().collect();
    let rank = rank(&s)?;
    s.truncate(rank);
    let z = Mat::from_fn(x.nrows(), rank, |i, j| found.U()[(i, j)] * s[j]);
    let v = found.V().subcols(0, rank).to_owned();
    let (n, d) = (x.nrows(), x.ncols());
    Ok(Axes {
        z,
        basis: Basis { n, d, s, v },
    })
}

/// `a aᵀ` of which the lower triangle is computed.
fn gram(a: MatRef<'_, f64>) -> Mat<f64> {
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

/// Singular values of `a`, falling, with the eigenvectors of `a aᵀ`; none if some of those that count
/// are too small to be trusted after squaring.
#[allow(clippy::type_complexity, reason = "a list and a matrix")]
fn squared_spectrum(a: MatRef<'_, f64>) -> Result<Option<(Vec<f64>, Mat<f64>)>, Error> {
    let eigen = gram(a)
        .self_adjoint_eigen(Side::Lower)
        .map_err(|_| no_convergence())?;
    let values: Vec<f64> = eigen.S().column_vector().iter().copied().collect();
    let mut s: Vec<f64> = values.iter().rev().map(|l| l.max(0.0).sqrt()).collect();
    let rank = rank(&s)?;
    if s[rank - 1] <= SQUARED * s[0] {
        return Ok(None);
    }
    s.truncate(rank);
    let last = values.len() - 1;
    let vectors = Mat::from_fn(values.len(), rank, |i, j| eigen.U()[(i, last - j)]);
    Ok(Some((s, vectors)))
}

fn through_columns(x: MatRef<'_, f64>) -> Result<Option<Axes>, Error> {
    let Some((s, v)) = squared_spectrum(x.transpose())? else {
        return Ok(None);
    };
    let (n, d) = (x.nrows(), x.ncols());
    Ok(Some(Axes {
        z: x * &v,
        basis: Basis { n, d, s, v },
    }))
}

fn through_rows(x: MatRef<'_, f64>) -> Result<Option<Axes>, Error> {
    let Some((s, u)) = squared_spectrum(x)? else {
        return Ok(None);
    };
    let mut v = x.transpose() * &u;
    for (j, &s) in s.iter().enumerate() {
        v.col_mut(j).iter_mut().for_each(|v| *v /= s);
    }
    let z = Mat::from_fn(x.nrows(), s.len(), |i, j| u[(i, j)] * s[j]);
    let (n, d) = (x.nrows(), x.ncols());
    Ok(Some(Axes {
        z,
        basis: Basis { n, d, s, v },
    }))
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
            let plain = through_svd(x.as_ref()).unwrap();
            let scale = axes.basis.s[0];
            assert!(largest(&axes.z * axes.basis.v.transpose() - &x) < 1e-12 * scale);
            let products = axes.cross(&axes);
            let expected = Mat::from_fn(products.nrows(), products.ncols(), |i, j| match i == j {
                true => axes.basis.s[i].powi(2),
                false => 0.0,
            });
            assert!(largest(products - expected) < 1e-11 * scale * scale);
            assert_eq!(axes.basis.s.len(), plain.basis.s.len());
            for (a, b) in axes.basis.s.iter().zip(&plain.basis.s) {
                assert!((a - b).abs() < 1e-11 * scale, "{a} {b}");
            }
        }
    }

    /// A spectrum that falls over five orders: squaring would lose digits, so the matrix is decomposed.
    #[test]
    fn small_directions_are_not_squared() {
        let even = wave(400, 130);
        let x = Mat::from_fn(400, 130, |i, j| even[(i, j)] * 10f64.powi(-(j as i32 / 26)));
        assert!(through_columns(x.as_ref()).unwrap().is_none());
        assert!(through_columns(even.as_ref()).unwrap().is_some());
    }
}
