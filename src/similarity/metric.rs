//! The metrics by name.

use std::fmt;
use std::str::FromStr;

use burn::tensor::Tensor;

use super::{Comparator, Error, Estimator, Nearness, Prepared, Rdm};
use crate::device::block_on;

/// A similarity metric with its options. Text and value turn into each other by [`FromStr`] and
/// [`fmt::Display`].
///
/// | text | short for |
/// |---|---|
/// | `linear_cka[unbiased]`, `linear_cka[biased]` | `linear_cka` is `linear_cka[unbiased]` |
/// | `rsa[rdm=correlation,by=spearman]` | `rsa` |
/// | `svcca[variance=0.99]` | `svcca` |
/// | `mutual_knn[k=10,by=cosine]`, also `by=inner`, `by=euclidean` | `mutual_knn` |
///
/// `debiased` is taken for `unbiased`; options may be left out and stand in any order.
///
/// ```
/// use inscape::similarity::{Metric, Nearness};
///
/// let metric: Metric = "mutual_knn[k=5]".parse().unwrap();
/// assert_eq!(metric, Metric::MutualKnn { k: 5, by: Nearness::Cosine });
/// assert_eq!(metric.to_string(), "mutual_knn[k=5,by=cosine]");
/// assert!("cka".parse::<Metric>().unwrap_err().to_string().contains("linear_cka[unbiased]"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Metric {
    /// [`linear_cka`](super::linear_cka).
    LinearCka(Estimator),
    /// [`rsa`](super::rsa).
    Rsa {
        /// The dissimilarity of two rows.
        rdm: Rdm,
        /// How the dissimilarities are compared.
        by: Comparator,
    },
    /// [`svcca`](super::svcca()).
    Svcca {
        /// Share of the variance that is kept of each side, above 0 and at most 1.
        variance: f64,
    },
    /// [`mutual_knn`](super::mutual_knn).
    MutualKnn {
        /// Neighbours of each row, at least 1.
        k: usize,
        /// What makes a row near.
        by: Nearness,
    },
}

impl Metric {
    /// Every name with its options, as the error for an unknown name lists them.
    pub const NAMES: &str = "linear_cka[unbiased], linear_cka[biased], \
         rsa[rdm=correlation,by=spearman], svcca[variance=0.99], mutual_knn[k=10,by=cosine|inner|euclidean]";

    /// Compares two representations of the same rows, `[n, dx]` and `[n, dy]`.
    ///
    /// Errors and cost are those of the metric's own function.
    ///
    /// # Errors
    /// As the metric's own function.
    pub fn compare(self, x: &Tensor<2>, y: &Tensor<2>) -> Result<f64, Error> {
        block_on(self.compare_async(x, y))
    }

    /// [`Metric::compare`] without blocking.
    ///
    /// # Errors
    /// As the metric's own function.
    pub async fn compare_async(self, x: &Tensor<2>, y: &Tensor<2>) -> Result<f64, Error> {
        Prepared::pair(x, y, self).await
    }

    /// Fewest rows for which the metric means something.
    pub fn fewest_rows(self) -> usize {
        match self {
            Self::LinearCka(Estimator::Biased) => 2,
            Self::LinearCka(Estimator::Unbiased) => 4,
            Self::Rsa { .. } | Self::Svcca { .. } => 3,
            Self::MutualKnn { k, .. } => k.saturating_add(2),
        }
    }

    /// Most rows the metric can take, if there is a limit.
    pub fn most_rows(self) -> Option<usize> {
        match self {
            Self::Rsa { .. } => Some(super::rsa::MOST_ROWS),
            Self::MutualKnn { .. } => Some(u32::MAX as usize),
            Self::LinearCka(_) | Self::Svcca { .. } => None,
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LinearCka(Estimator::Unbiased) => f.write_str("linear_cka[unbiased]"),
            Self::LinearCka(Estimator::Biased) => f.write_str("linear_cka[biased]"),
            Self::Rsa {
                rdm: Rdm::Correlation,
                by: Comparator::Spearman,
            } => f.write_str("rsa[rdm=correlation,by=spearman]"),
            Self::Svcca { variance } => write!(f, "svcca[variance={variance}]"),
            Self::MutualKnn { k, by } => {
                let by = match by {
                    Nearness::Cosine => "cosine",
                    Nearness::Inner => "inner",
                    Nearness::Euclidean => "euclidean",
                };
                write!(f, "mutual_knn[k={k},by={by}]")
            }
        }
    }
}

impl FromStr for Metric {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text.trim()).ok_or_else(|| Error::UnknownMetric {
            given: text.to_owned(),
        })
    }
}

fn parse(text: &str) -> Option<Metric> {
    let (name, options) = match text.split_once('[') {
        Some((name, rest)) => (name, rest.strip_suffix(']')?),
        None => (text, ""),
    };
    let mut options = Options::new(options);
    let metric = match name {
        "linear_cka" => Metric::LinearCka(match options.bare() {
            None | Some("unbiased" | "debiased") => Estimator::Unbiased,
            Some("biased") => Estimator::Biased,
            Some(_) => return None,
        }),
        "rsa" => Metric::Rsa {
            rdm: options.choose("rdm", &[("correlation", Rdm::Correlation)])?,
            by: options.choose("by", &[("spearman", Comparator::Spearman)])?,
        },
        "svcca" => Metric::Svcca {
            variance: options
                .value("variance")
                .map_or(Some(0.99), |v| v.parse().ok().filter(is_share))?,
        },
        "mutual_knn" => Metric::MutualKnn {
            k: options
                .value("k")
                .map_or(Some(10), |k| k.parse().ok().filter(|&k| k > 0))?,
            by: options.choose(
                "by",
                &[
                    ("cosine", Nearness::Cosine),
                    ("inner", Nearness::Inner),
                    ("euclidean", Nearness::Euclidean),
                ],
            )?,
        },
        _ => return None,
    };
    options.0.is_empty().then_some(metric)
}

/// Above 0 and at most 1.
pub(super) fn is_share(value: &f64) -> bool {
    *value > 0.0 && *value <= 1.0
}

/// The options of a name, taken out one by one; what is left over was not known.
struct Options<'a>(Vec<&'a str>);

impl<'a> Options<'a> {
    fn new(text: &'a str) -> Self {
        Self(
            text.split(',')
                .map(str::trim)
                .filter(|o| !o.is_empty())
                .collect(),
        )
    }

    fn bare(&mut self) -> Option<&'a str> {
        self.0.pop()
    }

    fn value(&mut self, key: &str) -> Option<&'a str> {
        let value = |o: &&'a str| o.strip_prefix(key).and_then(|o| o.strip_prefix('='));
        let at = self.0.iter().position(|o| value(o).is_some())?;
        value(&self.0.remove(at))
    }

    /// The named choice; the first if the option is absent; none if the name is not among them.
    fn choose<C: Copy>(&mut self, key: &str, choices: &[(&str, C)]) -> Option<C> {
        let Some(name) = self.value(key) else {
            return Some(choices[0].1);
        };
        choices.iter().find(|c| c.0 == name).map(|c| c.1)
    }
}
