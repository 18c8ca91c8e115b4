//! The metrics that compare kernels of the rows.

use std::fmt;

use burn::tensor::Tensor;

use super::Error;
use super::cka::{Estimator, Features};
use super::metric::{Change, Facts, Family, Options};

/// Metrics that compare the similarities of all pairs of rows, as a kernel has them.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Kernel {
    /// [`linear_cka`](super::linear_cka): `linear_cka[unbiased]`, `linear_cka[biased]`.
    LinearCka(Estimator),
}

/// What a kernel metric keeps of one representation.
#[derive(Clone, Debug)]
pub(super) enum Kept {
    Features(Box<Features>),
}

impl Estimator {
    fn parse(options: &mut Options<'_>) -> Self {
        options.word(&[
            ("unbiased", Self::Unbiased),
            ("debiased", Self::Unbiased),
            ("biased", Self::Biased),
        ])
    }

    fn name(self) -> &'static str {
        match self {
            Self::Biased => "biased",
            Self::Unbiased => "unbiased",
        }
    }

    fn fewest_rows(self) -> usize {
        match self {
            Self::Biased => 2,
            Self::Unbiased => 4,
        }
    }
}

impl Family for Kernel {
    const NAMES: &'static [&'static str] = &["linear_cka[unbiased]"];
    type Kept = Kept;

    fn parse(name: &str, options: &mut Options<'_>) -> Option<Self> {
        match name {
            "linear_cka" => Some(Self::LinearCka(Estimator::parse(options))),
            _ => None,
        }
    }

    fn facts(self) -> Facts {
        use Change::{Rotation, Scale, Shift};
        match self {
            Self::LinearCka(estimator) => {
                Facts::similarity(&[Rotation, Scale, Shift], estimator.fewest_rows())
            }
        }
    }

    async fn prepare(self, x: &Tensor<2>) -> Result<Kept, Error> {
        match self {
            Self::LinearCka(estimator) => {
                let features = Features::prepare(x, estimator).await?;
                Ok(Kept::Features(Box::new(features)))
            }
        }
    }

    async fn compare(self, a: &Kept, b: &Kept) -> Result<f64, Error> {
        match (self, a, b) {
            (Self::LinearCka(estimator), Kept::Features(a), Kept::Features(b)) => {
                a.compare(b, estimator).await
            }
        }
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LinearCka(estimator) => write!(f, "linear_cka[{}]", estimator.name()),
        }
    }
}
