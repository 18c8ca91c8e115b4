//! How much of two subspaces of the rows' space is one.

use faer::{Mat, MatRef};

use super::Error;
use super::axes::{Axes, Basis, no_convergence};

/// An error if there are fewer than `top` directions.
pub(super) fn check(basis: &Basis, top: usize) -> Result<(), Error> {
    match basis.s.len() >= top {
        true => Ok(()),
        false => Err(Error::Undefined {
            why: "it has fewer principal components than are asked for",
        }),
    }
}

/// Orthonormal basis of what the first `top` components span, `[n, top]`.
fn leading(axes: &Axes, top: usize) -> Mat<f64> {
    let z = axes.z();
    Mat::from_fn(z.nrows(), top, |i, j| z[(i, j)] / axes.basis.s[j])
}

fn squared(a: MatRef<'_, f64>) -> f64 {
    a.col_iter()
        .flat_map(|column| column.iter().map(|v| v * v))
        .sum()
}

/// `‖Uᵀ V‖² / max(dx, dy)`, from the products of the scores.
pub(super) fn eigenspace_overlap(a: &Basis, b: &Basis, cross: MatRef<'_, f64>) -> f64 {
    let (s, t) = (&a.s, &b.s);
    let cosines = Mat::from_fn(s.len(), t.len(), |i, j| cross[(i, j)] / (s[i] * t[j]));
    squared(cosines.as_ref()) / a.d.max(b.d) as f64
}

/// Mean squared cosine of the principal angles, from the products of the scores.
pub(super) fn overlap(
    a: &Basis,
    b: &Basis,
    cross: MatRef<'_, f64>,
    top: usize,
) -> Result<f64, Error> {
    check(a, top)?;
    check(b, top)?;
    let cosines = Mat::from_fn(top, top, |i, j| cross[(i, j)] / (a.s[i] * b.s[j]));
    Ok(squared(cosines.as_ref()) / top as f64)
}

/// Root of the summed squares of the principal angles. An angle below 45° is taken from its sine, the
/// length of what `u` leaves of `v`, where the cosine has lost its digits.
pub(super) fn grassmann(a: &Axes, b: &Axes, top: usize) -> Result<f64, Error> {
    let (u, v) = (leading(a, top), leading(b, top));
    let cross = u.transpose() * &v;
    let left = &v - &u * &cross;
    let singular = |m: MatRef<'_, f64>| m.singular_values().map_err(|_| no_convergence());
    let (cosines, sines) = (singular(cross.as_ref())?, singular(left.as_ref())?);
    let angle = |(cos, sin): (&f64, &f64)| match cos * cos > 0.5 {
        true => sin.min(1.0).asin(),
        false => cos.acos(),
    };
    let squares = cosines.iter().zip(sines.iter().rev()).map(angle);
    Ok(squares.map(|angle| angle * angle).sum::<f64>().sqrt())
}
