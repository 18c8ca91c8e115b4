//! What the networks say, not how they say it: metrics of two sets of logits.

mod inpca;

use std::fmt;

use burn::tensor::Tensor;

use super::host::{Rows, sum, sum_range};
use super::metric::{Change, Facts, Family, Options};
use super::{Error, Prepared};
use crate::device::block_on;

pub use inpca::{InPca, inpca, inpca_async};

/// Metrics of the predictions of two classifiers: both sides are logits `[n, classes]` of the same
/// classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Predictions {
    /// [`jsd`].
    Jsd,
    /// [`disagreement`].
    Disagreement,
    /// [`norm_difference`].
    NormDifference,
}

impl Family for Predictions {
    const NAMES: &'static [&'static str] = &["jsd", "disagreement", "norm_difference"];

    type Kept = Kept;

    fn parse(name: &str, _options: &mut Options<'_>) -> Option<Self> {
        match name {
            "jsd" => Some(Self::Jsd),
            "disagreement" => Some(Self::Disagreement),
            "norm_difference" => Some(Self::NormDifference),
            _ => None,
        }
    }

    fn facts(self) -> Facts {
        let blind_to: &[Change] = match self {
            Self::Disagreement => &[Change::Scale, Change::RowScale, Change::RowShift],
            Self::Jsd | Self::NormDifference => &[Change::RowShift],
        };
        Facts {
            equal_widths: true,
            ..Facts::distance(blind_to, 1)
        }
    }

    async fn prepare(self, x: &Tensor<2>) -> Result<Kept, Error> {
        let rows = Rows::<f64>::unscaled(x).await?;
        Ok(match self {
            Self::Disagreement => Kept::Classes(rows.map(argmax)),
            Self::Jsd | Self::NormDifference => Kept::Probabilities(Rows {
                values: rows.map(softmax).concat().into(),
                ..rows
            }),
        })
    }

    async fn compare(self, a: &Kept, b: &Kept) -> Result<f64, Error> {
        Ok(match (self, a, b) {
            (_, Kept::Classes(a), Kept::Classes(b)) => {
                sum(a.len(), |i| f64::from(u8::from(a[i] != b[i]))) / a.len() as f64
            }
            (Self::Jsd, Kept::Probabilities(a), Kept::Probabilities(b)) => {
                sum(a.n, |i| divergence(a.row(i), b.row(i))) / a.n as f64
            }
            (_, Kept::Probabilities(a), Kept::Probabilities(b)) => {
                sum(a.n, |i| distance(a.row(i), b.row(i))) / a.n as f64
            }
            _ => unreachable!("the kind kept follows from the metric"),
        })
    }

    fn reordered(kept: &Kept, order: &[usize]) -> Option<Kept> {
        Some(match kept {
            Kept::Classes(of) => Kept::Classes(order.iter().map(|&i| of[i]).collect()),
            Kept::Probabilities(rows) => Kept::Probabilities(rows.reordered(order)),
        })
    }
}

impl fmt::Display for Predictions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Jsd => "jsd",
            Self::Disagreement => "disagreement",
            Self::NormDifference => "norm_difference",
        })
    }
}

/// What a metric of this family keeps of one set of logits.
#[derive(Clone, Debug)]
pub(super) enum Kept {
    Probabilities(Rows<f64>),
    Classes(Vec<usize>),
}

/// The class of the largest logit, the first of equals.
fn argmax(row: &[f64]) -> usize {
    let first_larger = |best: usize, j: usize| if row[j] > row[best] { j } else { best };
    (1..row.len()).fold(0, first_larger)
}

fn softmax(row: &[f64]) -> Vec<f64> {
    let largest = row.iter().fold(f64::NEG_INFINITY, |m, v| m.max(*v));
    let total: f64 = row.iter().map(|v| (v - largest).exp()).sum();
    row.iter().map(|v| (v - largest).exp() / total).collect()
}

/// Jensen-Shannon divergence in bits: `p log(p / m)` is `p log(1 + (p - q) / (p + q))`, which loses
/// nothing where the two are near; far apart, where that could be the logarithm of 0, it is as written.
fn divergence(p: &[f64], q: &[f64]) -> f64 {
    let term = |p: f64, q: f64| match p {
        0.0 => 0.0,
        _ if 3.0 * p < q => p * (2.0 * p / (p + q)).ln(),
        _ => p * ((p - q) / (p + q)).ln_1p(),
    };
    let both = sum_range(0..p.len(), |j| term(p[j], q[j]) + term(q[j], p[j]));
    (both / 2.0 / std::f64::consts::LN_2).clamp(0.0, 1.0)
}

fn distance(p: &[f64], q: &[f64]) -> f64 {
    sum_range(0..p.len(), |j| (p[j] - q[j]).powi(2)).sqrt()
}

/// Mean Jensen-Shannon divergence of two classifiers' predicted probabilities.
///
/// `x` and `y` are logits, `[n, classes]`; the result is in bits and lies in [0, 1]. Unchanged by adding
/// a constant to all logits of a row.
///
/// # Errors
/// Different row counts or column counts; no rows; a NaN or infinity; the device failing.
///
/// # Cost
/// `O(n classes)` on the host, in f64; `8 n classes` bytes a side.
///
/// # Source
/// Lin 1991, "Divergence measures based on the Shannon entropy", to base 2, averaged over the rows as
/// in Klabunde et al. 2025, "ReSi".
///
/// # Example
/// ```
/// use inscape::{Device, similarity::jsd};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let cat = Tensor::<2>::from_data([[100.0, 0.0]], cpu.tensor());
/// let dog = Tensor::<2>::from_data([[0.0, 100.0]], cpu.tensor());
/// assert!((jsd(&cat, &dog)? - 1.0).abs() < 1e-12);
/// # Ok(())
/// # }
/// ```
pub fn jsd(x: &Tensor<2>, y: &Tensor<2>) -> Result<f64, Error> {
    block_on(jsd_async(x, y))
}

/// [`jsd`] without blocking.
///
/// # Errors
/// As [`jsd`].
pub async fn jsd_async(x: &Tensor<2>, y: &Tensor<2>) -> Result<f64, Error> {
    Prepared::pair(x, y, Predictions::Jsd).await
}

/// Share of the rows for which two classifiers predict different classes.
///
/// `x` and `y` are logits, `[n, classes]`; the result lies in [0, 1]. Of equal logits the first class
/// is predicted. Unchanged by scaling a row or adding a constant to it.
///
/// # Errors
/// As [`jsd`].
///
/// # Cost
/// `O(n classes)` on the host; `8 n` bytes a side.
///
/// # Source
/// Klabunde et al. 2025, "ReSi"; the 1 - agreement of distillation.
///
/// # Example
/// ```
/// use inscape::{Device, similarity::disagreement};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::from_data([[1.0, 0.0], [0.0, 3.0]], cpu.tensor());
/// let y = Tensor::<2>::from_data([[2.0, 1.0], [0.5, 0.1]], cpu.tensor());
/// assert_eq!(disagreement(&x, &y)?, 0.5);
/// # Ok(())
/// # }
/// ```
pub fn disagreement(x: &Tensor<2>, y: &Tensor<2>) -> Result<f64, Error> {
    block_on(disagreement_async(x, y))
}

/// [`disagreement`] without blocking.
///
/// # Errors
/// As [`jsd`].
pub async fn disagreement_async(x: &Tensor<2>, y: &Tensor<2>) -> Result<f64, Error> {
    Prepared::pair(x, y, Predictions::Disagreement).await
}

/// Mean Euclidean distance of two classifiers' predicted probabilities.
///
/// `x` and `y` are logits, `[n, classes]`; the result lies in [0, √2]. Unchanged by adding a constant to
/// all logits of a row.
///
/// # Errors
/// As [`jsd`].
///
/// # Cost
/// As [`jsd`].
///
/// # Source
/// The norm of the difference of soft predictions of Klabunde et al. 2025, "Similarity of Neural
/// Network Models: A Survey", without a factor of one half.
///
/// # Example
/// ```
/// use inscape::{Device, similarity::norm_difference};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let cat = Tensor::<2>::from_data([[100.0, 0.0]], cpu.tensor());
/// let undecided = Tensor::<2>::from_data([[0.0, 0.0]], cpu.tensor());
/// assert!((norm_difference(&cat, &undecided)? - 0.5f64.sqrt()).abs() < 1e-12);
/// # Ok(())
/// # }
/// ```
pub fn norm_difference(x: &Tensor<2>, y: &Tensor<2>) -> Result<f64, Error> {
    block_on(norm_difference_async(x, y))
}

/// [`norm_difference`] without blocking.
///
/// # Errors
/// As [`jsd`].
pub async fn norm_difference_async(x: &Tensor<2>, y: &Tensor<2>) -> Result<f64, Error> {
    Prepared::pair(x, y, Predictions::NormDifference).await
}
