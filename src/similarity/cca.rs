//! Canonical correlation analysis: how much of two subspaces is one.

use std::fmt;

use burn::tensor::Tensor;
use faer::{Mat, MatRef, Side as Triangle};

use super::Error;
use super::axes::{Axes, Basis, Part, gram, no_convergence};
use super::gulp;
use super::metric::{Change, Facts, Family, Options, is_share};

/// Metrics made of canonical correlations.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Cca {
    /// [`cca`](super::cca()): `cca[mean]`, `cca[min_width]` or `cca[r2]`.
    Plain(Summary),
    /// [`svcca`](super::svcca()): `svcca[variance=0.99,mean=all]` or `svcca[mean=leading]`.
    Svcca {
        /// Share of the variance that is kept of each side, above 0 and at most 1.
        variance: f64,
        /// Which correlations count.
        mean: Mean,
    },
    /// [`pwcca`](super::pwcca()): `pwcca[from=x]` or `pwcca[from=y]`.
    Pwcca {
        /// The side whose columns give the weights.
        from: Side,
    },
    /// [`gulp`](super::gulp()): `gulp[lambda=0.1]`.
    Gulp {
        /// Ridge of the linear predictors, for rows of mean squared length 1; at least 0.
        lambda: f64,
    },
}

/// One of two representations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The first or left one.
    X,
    /// The second or right one.
    Y,
}

impl Side {
    pub(super) const NAMES: [(&'static str, Self); 2] = [("x", Self::X), ("y", Self::Y)];
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::X => "x",
            Self::Y => "y",
        })
    }
}

/// How canonical correlations become one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Summary {
    /// Their mean, over as many as the side of lower rank has directions.
    Mean,
    /// Their sum over the smaller width: directions that are missing count as 0.
    MinWidth,
    /// The sum of their squares over the smaller width: the R² of Kornblith et al. 2019.
    R2,
}

/// Which canonical correlations are averaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mean {
    /// All.
    All,
    /// The fewest leading ones that hold 98 % of the sum of all, as google/svcca has it.
    Leading,
}

/// Share of the summed correlations that [`Mean::Leading`] averages.
const LEADING: f64 = 0.98;

impl Family for Cca {
    const NAMES: &'static [&'static str] = &[
        "cca[mean]",
        "svcca[variance=0.99,mean=all]",
        "pwcca[from=x]",
        "gulp[lambda=0.1]",
    ];
    type Kept = Axes;

    fn parse(name: &str, options: &mut Options<'_>) -> Option<Self> {
        Some(match name {
            "cca" => Self::Plain(options.word(&[
                ("mean", Summary::Mean),
                ("min_width", Summary::MinWidth),
                ("r2", Summary::R2),
            ])),
            "svcca" => Self::Svcca {
                variance: options.number("variance", 0.99, is_share)?,
                mean: options.choose("mean", &[("all", Mean::All), ("leading", Mean::Leading)])?,
            },
            "pwcca" => Self::Pwcca {
                from: options.choose("from", &Side::NAMES)?,
            },
            "gulp" => Self::Gulp {
                lambda: options.number("lambda", 0.1, is_ridge)?,
            },
            _ => return None,
        })
    }

    fn facts(self) -> Facts {
        use Change::{Invertible, Permutation, Rotation, Scale, Shift};
        match self {
            Self::Plain(Summary::Mean) => Facts::similarity(&[Invertible, Shift], 3),
            Self::Plain(_) => Facts {
                same: None, // below 1 where the rank is below the width
                ..Facts::similarity(&[Invertible, Shift], 3)
            },
            Self::Svcca { variance: 1.0, .. } => Facts::similarity(&[Invertible, Shift], 3),
            Self::Svcca { .. } => Facts::similarity(&[Rotation, Scale, Shift], 3),
            Self::Pwcca { .. } => Facts {
                symmetric: false,
                ..Facts::similarity(&[Permutation, Scale, Shift], 3)
            },
            Self::Gulp { lambda: 0.0 } => Facts::distance(&[Invertible, Shift], 3),
            Self::Gulp { .. } => Facts::distance(&[Rotation, Scale, Shift], 3),
        }
    }

    fn is_valid(self) -> bool {
        match self {
            Self::Svcca { variance, .. } => is_share(&variance),
            Self::Gulp { lambda } => is_ridge(&lambda),
            Self::Plain(_) | Self::Pwcca { .. } => true,
        }
    }

    async fn prepare(self, x: &Tensor<2>) -> Result<Axes, Error> {
        match self {
            Self::Svcca { variance, .. } => Axes::leading(x, Part::holding(variance)).await,
            _ => Axes::prepare(x, true).await,
        }
    }

    async fn compare(self, a: &Axes, b: &Axes) -> Result<f64, Error> {
        self.value(&a.basis, &b.basis, a.cross(b).as_ref())
    }

    fn reordered(kept: &Axes, order: &[usize]) -> Option<Axes> {
        Some(kept.reordered(order))
    }
}

impl Cca {
    /// The metric from what is left of two sides when their rows are gone: the two spectra, and the
    /// products `Zxᵀ Zy` of their scores.
    pub(super) fn value(self, a: &Basis, b: &Basis, cross: MatRef<'_, f64>) -> Result<f64, Error> {
        let narrower = a.d.min(b.d) as f64;
        match self {
            Self::Plain(Summary::R2) => Ok(white(a, b, cross).squared_norm_l2() / narrower),
            Self::Plain(summary) => {
                let rho = correlations(white(a, b, cross).as_ref())?;
                let sum: f64 = rho.iter().sum();
                Ok(match summary {
                    Summary::Mean => sum / rho.len() as f64,
                    _ => sum / narrower,
                })
            }
            Self::Svcca { variance, mean } => {
                let [k, l] =
                    [a, b].map(|side| Part::holding(variance).count(&side.s, side.squared));
                let rho = correlations(white(a, b, cross.submatrix(0, 0, k, l)).as_ref())?;
                Ok(mean.of(&rho))
            }
            Self::Pwcca { from: Side::X } => projection_weighted(a, white(a, b, cross).as_ref()),
            Self::Pwcca { from: Side::Y } => projection_weighted(b, white(a, b, cross).transpose()),
            Self::Gulp { lambda } => Ok(gulp::distance(a, b, white(a, b, cross), lambda)),
        }
    }
}

impl fmt::Display for Cca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(Summary::Mean) => write!(f, "cca[mean]"),
            Self::Plain(Summary::MinWidth) => write!(f, "cca[min_width]"),
            Self::Plain(Summary::R2) => write!(f, "cca[r2]"),
            Self::Svcca { variance, mean } => {
                let mean = match mean {
                    Mean::All => "all",
                    Mean::Leading => "leading",
                };
                write!(f, "svcca[variance={variance},mean={mean}]")
            }
            Self::Pwcca { from } => write!(f, "pwcca[from={from}]"),
            Self::Gulp { lambda } => write!(f, "gulp[lambda={lambda}]"),
        }
    }
}

impl Mean {
    /// The mean of falling correlations.
    fn of(self, rho: &[f64]) -> f64 {
        let sum: f64 = rho.iter().sum();
        let mut held = 0.0;
        let below = |rho: &&f64| {
            held += **rho;
            self == Self::All || held < LEADING * sum
        };
        let count = (rho.iter().take_while(below).count() + 1).min(rho.len());
        rho[..count].iter().sum::<f64>() / count as f64
    }
}

/// At least 0 and finite.
pub(super) fn is_ridge(value: &f64) -> bool {
    *value >= 0.0 && value.is_finite()
}

/// The products of the two sides' scores at unit length: its singular values are the canonical
/// correlations of the directions in `cross`.
pub(super) fn white(a: &Basis, b: &Basis, cross: MatRef<'_, f64>) -> Mat<f64> {
    Mat::from_fn(cross.nrows(), cross.ncols(), |i, j| {
        cross[(i, j)] / (a.s[i] * b.s[j])
    })
}

/// Above this size singular values are roots of eigenvalues where those are large enough: a third of the
/// time.
const LARGE: usize = 128;

/// Squared correlations from this on have roots that are right to ten digits.
const ROOTS: f64 = 1e-8;

/// The canonical correlations, falling: singular values of [`white`].
pub(super) fn correlations(white: MatRef<'_, f64>) -> Result<Vec<f64>, Error> {
    if white.nrows().min(white.ncols()) > LARGE {
        let flat = match white.nrows() <= white.ncols() {
            true => white,
            false => white.transpose(),
        };
        let squares = gram(flat).self_adjoint_eigenvalues(Triangle::Lower);
        let squares = squares.map_err(|_| no_convergence())?;
        if squares[0] > ROOTS {
            return Ok(squares.iter().rev().map(|l| l.sqrt().min(1.0)).collect());
        }
    }
    let rho = white.singular_values().map_err(|_| no_convergence())?;
    Ok(rho.into_iter().map(|rho| rho.min(1.0)).collect())
}

/// The mean of the correlations, each weighted by how much the columns of `side`, whose directions are
/// the rows of `white`, have in common with its canonical variate.
fn projection_weighted(side: &Basis, white: MatRef<'_, f64>) -> Result<f64, Error> {
    let found = white.thin_svd().map_err(|_| no_convergence())?;
    let rho = found.S().column_vector();
    let scaled = Mat::from_fn(side.d, side.s.len(), |j, i| side.v[(j, i)] * side.s[i]);
    let common = scaled * found.U();
    let weights = common.col_iter().map(|c| c.norm_l1());
    let (mut sum, mut total) = (0.0, 0.0);
    for (rho, weight) in rho.iter().zip(weights) {
        sum += rho.min(1.0) * weight;
        total += weight;
    }
    Ok(sum / total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leading_correlations_hold_98_percent() {
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-15, "{a} {b}");
        let rho = [1.0, 0.5, 0.4, 0.02, 0.01];
        close(Mean::Leading.of(&rho), 1.9 / 3.0);
        close(Mean::All.of(&rho), 1.93 / 5.0);
        close(Mean::Leading.of(&[0.3]), 0.3);
        close(Mean::Leading.of(&[0.0, 0.0]), 0.0);
    }

    /// Both roads, on a matrix with singular values down to a few thousandths.
    #[test]
    fn roots_of_eigenvalues_are_the_singular_values() {
        let wave = |i: usize, j: usize| ((i * i + 3 * i * j + 7 * j) as f64 * 0.37).sin() / 40.0;
        let white = Mat::from_fn(150, 170, wave);
        let plain = white.singular_values().unwrap();
        for white in [white.as_ref(), white.transpose()] {
            let found = correlations(white).unwrap();
            assert_eq!(found.len(), plain.len());
            for (a, b) in found.iter().zip(&plain) {
                assert!((a - b.min(1.0)).abs() < 1e-10, "{a} {b}");
            }
        }
    }
}
