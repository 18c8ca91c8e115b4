//! Leading directions of a matrix too large to decompose, from its products with random vectors.

use faer::{Mat, MatRef, Side};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Error;
use super::axes::{Part, gram, no_convergence, rank};

/// Random vectors of one round; as many directions are found beyond those that are asked for, at least.
pub(super) const BLOCK: usize = 128;

/// How often a round, and in the end the whole, is multiplied with the matrix and back again: with each,
/// directions outside of what is sought fall behind by the square of their share.
const POWERS: usize = 2;

/// Singular values and directions of `[n, d]`, falling: those of `part`, and some more.
pub(super) struct Leading {
    pub(super) s: Vec<f64>,
    /// `[d, r]`.
    pub(super) v: Mat<f64>,
}

/// The leading directions of the matrix whose transpose is `turned`, of squares `total`; none where they
/// are so many that a whole decomposition costs no more.
///
/// Rounds of `block` random sign vectors are multiplied `POWERS` times with `XᵀX`, made orthogonal to
/// what is there and added to it, until `part` is held and one round more; then all are multiplied as
/// often. Singular values that fall as `1 / j` come out right to 1e-6. Cost: `(4 POWERS + 2) n d`
/// multiply-adds a direction; memory, `8 (n + 4 d)` bytes a direction.
///
/// Source: Halko, Martinsson & Tropp 2011, "Finding structure with randomness", algorithm 4.4, in rounds
/// as in Martinsson & Voronin 2016.
pub(super) fn leading(
    turned: MatRef<'_, f64>,
    total: f64,
    part: Part,
    block: usize,
) -> Result<Option<Leading>, Error> {
    let (d, n) = (turned.nrows(), turned.ncols());
    if total == 0.0 {
        return Ok(None);
    }
    let times = |v: Mat<f64>| turned * (turned.transpose() * v);
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut basis = Mat::<f64>::zeros(d, 0);
    let (mut held, mut last) = (0.0, total);
    let mut enough = false;
    while !enough {
        let found = basis.ncols();
        // No round gains more than the one before it.
        let rounds = match part {
            Part::Holding(variance) => ((variance * total - held) / last).ceil(),
            Part::Top(top) => top.saturating_sub(found).div_ceil(block) as f64,
            Part::All => f64::INFINITY,
        };
        if 2.0 * (found as f64 + block as f64 * rounds.max(1.0)) > n.min(d) as f64 {
            return Ok(None);
        }
        enough = rounds <= 0.0;
        let mut round = Mat::from_fn(d, block, |_, _| if rng.random() { 1.0 } else { -1.0 });
        for _ in 0..POWERS {
            round = times(orthonormal(&round, &basis));
        }
        round = orthonormal(&round, &basis);
        last = (turned.transpose() * &round).squared_norm_l2();
        held += last;
        basis = Mat::from_fn(d, basis.ncols() + block, |i, j| {
            match j.checked_sub(basis.ncols()) {
                Some(j) => round[(i, j)],
                None => basis[(i, j)],
            }
        });
    }
    for _ in 0..POWERS {
        basis = times(basis).qr().compute_thin_Q();
    }
    let scores = turned.transpose() * &basis;
    let eigen = gram(scores.transpose())
        .self_adjoint_eigen(Side::Lower)
        .map_err(|_| no_convergence())?;
    let values = eigen.S().column_vector().iter().rev();
    let mut s: Vec<f64> = values.map(|l| l.max(0.0).sqrt()).collect();
    s.truncate(rank(&s)?);
    let r = part.count(&s, total);
    let last = basis.ncols() - 1;
    let vectors = Mat::from_fn(basis.ncols(), r, |i, j| eigen.U()[(i, last - j)]);
    Ok(Some(Leading {
        s,
        v: basis * vectors,
    }))
}

/// An orthonormal basis of what `round` holds outside of `basis`. Twice, for once leaves what rounding
/// made of nearly parallel vectors.
fn orthonormal(round: &Mat<f64>, basis: &Mat<f64>) -> Mat<f64> {
    let once = |round: &Mat<f64>| {
        let outside = round - basis * (basis.transpose() * round);
        outside.qr().compute_thin_Q()
    };
    once(&once(round))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::similarity::axes::Axes;

    /// `[n, d]` with singular values that fall as those of layers do: some large, a long tail.
    fn falling(n: usize, d: usize, power: f64) -> Mat<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let mut normal = |n, d| Mat::from_fn(n, d, |_, _| rng.random_range(-1.0..1.0));
        let (u, v) = (
            normal(n, d).qr().compute_thin_Q(),
            normal(d, d).qr().compute_Q(),
        );
        Mat::from_fn(n, d, |i, j| u[(i, j)] / (1.0 + j as f64).powf(power)) * v.transpose()
    }

    /// Values and subspaces against the whole decomposition.
    #[test]
    fn what_is_found_are_the_leading_directions() {
        let x = falling(500, 400, 1.0);
        let total = x.squared_norm_l2();
        let exact = Axes::of(x.clone()).unwrap().basis;
        for part in [Part::Holding(0.97), Part::Top(20)] {
            let found = leading(x.transpose(), total, part, 16).unwrap().unwrap();
            let r = part.count(&exact.s, total);
            assert_eq!(found.v.ncols(), r);
            for (found, exact) in found.s.iter().zip(&exact.s[..r]) {
                assert!((found / exact - 1.0).abs() < 1e-6, "{found} {exact}");
            }
            let cosines = found.v.transpose() * exact.v.subcols(0, r);
            let outside = r as f64 - cosines.squared_norm_l2();
            assert!(outside < 1e-4, "{outside}");
        }
    }

    /// A spectrum so even that half of all directions are asked for is left to the whole decomposition.
    #[test]
    fn many_directions_are_not_sampled() {
        let x = falling(300, 200, 0.1);
        let total = x.squared_norm_l2();
        let found = leading(x.transpose(), total, Part::Holding(0.9), 16).unwrap();
        assert!(found.is_none());
    }
}
