//! Canonical correlation analysis: how much of two subspaces is one.

use std::fmt;

use burn::tensor::Tensor;
use faer::{Mat, MatRef};

use super::axes::{Axes, Basis, no_convergence};
use super::metric::{Change, Facts, Family, Options, is_share};
use super::{Error, Prepared};
use crate::device::block_on;

/// Metrics made of canonical correlations, and of what one side predicts of the other.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Cca {
    /// [`svcca`](super::svcca()): `svcca[variance=0.99]`.
    Svcca {
        /// Share of the variance that is kept of each side, above 0 and at most 1.
        variance: f64,
    },
}

impl Family for Cca {
    const NAMES: &'static [&'static str] = &["svcca[variance=0.99]"];
    type Kept = Axes;

    fn parse(name: &str, options: &mut Options<'_>) -> Option<Self> {
        match name {
            "svcca" => Some(Self::Svcca {
                variance: options.number("variance", 0.99, is_share)?,
            }),
            _ => None,
        }
    }

    fn facts(self) -> Facts {
        use Change::{Rotation, Scale, Shift};
        Facts::similarity(&[Rotation, Scale, Shift], 3)
    }

    fn is_valid(self) -> bool {
        let Self::Svcca { variance } = self;
        is_share(&variance)
    }

    async fn prepare(self, x: &Tensor<2>) -> Result<Axes, Error> {
        Axes::prepare(x, true).await
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
        let Self::Svcca { variance } = self;
        let rho = correlations(a, b, cross, [kept(&a.s, variance), kept(&b.s, variance)])?;
        Ok(rho.iter().sum::<f64>() / rho.len() as f64)
    }
}

impl fmt::Display for Cca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Svcca { variance } => write!(f, "svcca[variance={variance}]"),
        }
    }
}

/// The canonical correlations, falling, between the first `kept` principal directions of each side.
fn correlations(
    a: &Basis,
    b: &Basis,
    cross: MatRef<'_, f64>,
    kept: [usize; 2],
) -> Result<Vec<f64>, Error> {
    let white = Mat::from_fn(kept[0], kept[1], |i, j| cross[(i, j)] / (a.s[i] * b.s[j]));
    let rho = white.singular_values().map_err(|_| no_convergence())?;
    Ok(rho.into_iter().map(|rho| rho.min(1.0)).collect())
}

/// How many of the falling singular values hold `variance` of the summed squares.
fn kept(s: &[f64], variance: f64) -> usize {
    let total: f64 = s.iter().map(|s| s * s).sum();
    let mut sum = 0.0;
    let below = |s: &&f64| {
        sum += **s * **s;
        sum < variance * total
    };
    (s.iter().take_while(below).count() + 1).min(s.len())
}

/// SVCCA of two representations of the same rows.
///
/// `x` is `[n, dx]`, `y` is `[n, dy]`; the result lies in 0 to 1. Of each side the fewest principal
/// directions are kept that hold at least `variance` of its variance (0.99 in the paper); the result
/// is the mean of the canonical correlations of the two sets of scores, of which there are as many as
/// the smaller set has. With `variance = 1` it is plain CCA: every direction of a singular value above
/// 1e-6 of the largest is kept. Unchanged by rotation, one scale and a shift of either side, and with
/// `variance = 1` by every invertible map.
///
/// Large by chance where rows are few: independent data gives 0.42 for 200 rows of 64 and 48 columns,
/// and 1 when both sides keep as many directions as there are rows less one. Compare it with a shuffle of
/// the rows of one side.
///
/// # Errors
/// Different row counts; fewer than 3 rows; a NaN or infinity; a representation whose rows are all
/// equal ([`Error::Undefined`]); a `variance` that is not above 0 and at most 1
/// ([`Error::UnknownMetric`]); the device failing.
///
/// # Cost
/// Two singular value decompositions, `O(n d min(n, d))`, and one of the product of what is kept; all
/// of it on the host, in f64 whatever the tensors are. Memory: a few copies of one side in f64, then
/// `8 n` bytes a direction kept.
///
/// # Source
/// Raghu, Gilmer, Yosinski & Sohl-Dickstein 2017, "SVCCA: Singular Vector Canonical Correlation
/// Analysis for Deep Learning Dynamics and Interpretability". The mean is over all correlations; the
/// `mean` of google/svcca is over the leading ones that hold 98 % of their sum.
///
/// # Example
/// ```
/// use inscape::{Device, similarity::svcca};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::from_data([[0., 1.], [1., 0.], [2., 3.], [4., 1.], [0., 5.]], cpu.tensor());
/// let turned = x.clone().matmul(Tensor::from_data([[0.6, -0.8], [0.8, 0.6]], cpu.tensor()));
/// assert!((svcca(&x, &turned, 0.99)? - 1.0).abs() < 1e-5);
/// # Ok(())
/// # }
/// ```
pub fn svcca(x: &Tensor<2>, y: &Tensor<2>, variance: f64) -> Result<f64, Error> {
    block_on(svcca_async(x, y, variance))
}

/// [`svcca`] without blocking.
///
/// # Errors
/// As [`svcca`].
pub async fn svcca_async(x: &Tensor<2>, y: &Tensor<2>, variance: f64) -> Result<f64, Error> {
    Prepared::pair(x, y, Cca::Svcca { variance }).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fewest_directions_that_hold_enough() {
        let singular = [3.0, 2.0, 1.0]; // squares 9, 4, 1
        for (variance, fewest) in [(0.6, 1), (0.65, 2), (0.92, 2), (0.93, 3), (1.0, 3)] {
            assert_eq!(kept(&singular, variance), fewest, "{variance}");
        }
    }
}
