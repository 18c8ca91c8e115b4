//! Kernels that fall with the distance of two rows.

use std::fmt;

use burn::tensor::Tensor;

use super::cka::Estimator;
use super::lanes::Lane;
use super::middle::Table;
use super::{Error, Kernel, Prepared};
use crate::device::block_on;

/// How wide an RBF kernel `exp(-|u - v|² / (2 sigma²))` is. In text a number, or a number times one of
/// two medians: `1`, `0.5*median`, `1*offdiag_median`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sigma {
    /// This number, in the units of the features.
    Fixed(f64),
    /// So many times the root of the median of all `n²` squared distances, each row's to itself among
    /// them, as the authors of CKA take it.
    Median(f64),
    /// So many times the root of the median squared distance of two different rows.
    OffDiagonalMedian(f64),
}

impl Sigma {
    /// Half of the median.
    pub(super) const DEFAULT: Self = Self::Median(0.5);

    pub(super) fn parse(text: &str) -> Option<Self> {
        let (factor, of) = text.split_once('*').unwrap_or((text, ""));
        let factor: f64 = factor.parse().ok()?;
        let sigma = match of {
            "" if !text.contains('*') => Self::Fixed(factor),
            "median" => Self::Median(factor),
            "offdiag_median" => Self::OffDiagonalMedian(factor),
            _ => return None,
        };
        sigma.is_valid().then_some(sigma)
    }

    fn factor(self) -> f64 {
        let (Self::Fixed(factor) | Self::Median(factor) | Self::OffDiagonalMedian(factor)) = self;
        factor
    }

    pub(super) fn is_valid(self) -> bool {
        self.factor().is_finite() && self.factor() > 0.0
    }

    /// As a number, from the squared distances of the pairs of `n` rows. A median of evenly many is the
    /// mean of the middle two; both are found exactly.
    pub(super) async fn settle<T: Lane>(
        self,
        squares: &Table<'_, T>,
        n: usize,
    ) -> Result<f64, Error> {
        let pairs = n * (n - 1) / 2;
        let middle = |count: usize| [(count - 1) / 2, count / 2];
        let median = match self {
            Self::Fixed(sigma) => return Ok(sigma),
            Self::OffDiagonalMedian(_) => squares.at(middle(pairs)).await?.map(Lane::wide),
            Self::Median(_) => {
                // The n zeros of the diagonal come first, then every pair twice.
                let places = middle(n * n).map(|place| place.checked_sub(n).map(|p| p / 2));
                let found = squares.at(places.map(|p| p.unwrap_or(0))).await?;
                let or_zero = |k: usize| places[k].map_or(0.0, |_| found[k].wide());
                [or_zero(0), or_zero(1)]
            }
        };
        let sigma = self.factor() * ((median[0] + median[1]) / 2.0).sqrt();
        match sigma > 0.0 {
            true => Ok(sigma),
            false => Err(Error::Undefined {
                why: "its median distance is 0: most of its rows are equal",
            }),
        }
    }
}

impl fmt::Display for Sigma {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(sigma) => write!(f, "{sigma}"),
            Self::Median(factor) => write!(f, "{factor}*median"),
            Self::OffDiagonalMedian(factor) => write!(f, "{factor}*offdiag_median"),
        }
    }
}
