//! The metrics by name: one enum a family, each in its own file, and [`Metric`] over all of them.

use std::fmt;
use std::str::FromStr;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{
    Cca, Error, Kernel, Neighbours, Predictions, Predictivity, Prepared, Rsa, Shape, Topology,
    Units,
};

use crate::device::block_on;

/// What a family of metrics is made of.
pub(super) trait Family: Copy + fmt::Display {
    /// Every metric of the family once, with its defaults, as users type it.
    const NAMES: &'static [&'static str];

    /// What is worked out once for one representation.
    type Kept: Clone + fmt::Debug;

    /// The metric of this name; its options are taken out of `options`. None if the name or the value of
    /// an option is not known.
    fn parse(name: &str, options: &mut Options<'_>) -> Option<Self>;

    /// What its values mean.
    fn facts(self) -> Facts;

    /// Whether its options are in range; values made in code may not be.
    fn is_valid(self) -> bool {
        true
    }

    /// Makes `[n, d]` ready. The shape has been checked against the facts.
    async fn prepare(self, x: &Tensor<2>) -> Result<Self::Kept, Error>;

    /// [`Family::prepare`] for one of many in a grid: more may be kept, to compare faster.
    async fn prepare_in(self, x: &Tensor<2>, _grid: Grid) -> Result<Self::Kept, Error> {
        self.prepare(x).await
    }

    /// The value for two representations that were made ready for this metric, of equally many rows.
    async fn compare(self, a: &Self::Kept, b: &Self::Kept) -> Result<f64, Error>;

    /// What is kept of the same rows in another order, where that costs less than to prepare them: row
    /// `i` of the new is row `order[i]` of the old.
    fn reordered(_kept: &Self::Kept, _order: &[usize]) -> Option<Self::Kept> {
        None
    }
}

/// A grid of many representations against many.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    /// How many comparisons there are to a preparation.
    pub(super) comparisons: f64,
    /// Fewest columns of any.
    pub(super) narrowest: usize,
}

/// What the values of a metric mean.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Facts {
    /// Whether larger values mean more or less alike.
    pub kind: Kind,
    /// Whether exchanging the sides leaves the value as it is.
    pub symmetric: bool,
    /// The value of a representation and itself; none if that depends on the representation.
    pub same: Option<f64>,
    /// Changes of one side, whichever it is, that leave the value as it is, up to rounding.
    pub blind_to: &'static [Change],
    /// Fewest rows for which the metric means something.
    pub fewest_rows: usize,
    /// Most rows the metric can take, if there is a limit.
    pub most_rows: Option<usize>,
    /// Whether both sides need equally many columns.
    pub equal_widths: bool,
    /// Whether the value changes when both sides are put in another order: batches, folds, anchors.
    pub rows_in_order: bool,
    /// Whether it matters which row of one side goes with which of the other; if not, the two clouds are
    /// compared as wholes.
    pub pairs_rows: bool,
}

impl Facts {
    /// A symmetric measure that is 1 for equal sides.
    pub(super) const fn similarity(blind_to: &'static [Change], fewest_rows: usize) -> Self {
        Self {
            kind: Kind::Similarity,
            symmetric: true,
            same: Some(1.0),
            blind_to,
            fewest_rows,
            most_rows: None,
            equal_widths: false,
            rows_in_order: false,
            pairs_rows: true,
        }
    }

    /// A symmetric measure that is 0 for equal sides.
    pub(super) const fn distance(blind_to: &'static [Change], fewest_rows: usize) -> Self {
        Self {
            kind: Kind::Distance,
            same: Some(0.0),
            ..Self::similarity(blind_to, fewest_rows)
        }
    }
}

/// Which way a metric counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Larger values mean more alike.
    #[default]
    Similarity,
    /// Smaller values mean more alike.
    Distance,
}

/// A change of one representation `[n, d]` that a metric may not see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Change {
    /// Another order of the columns.
    Permutation,
    /// An orthogonal map of the columns, reflections and permutations among them.
    Rotation,
    /// One positive factor for all values.
    Scale,
    /// A positive factor for each column.
    ColumnScale,
    /// A positive factor for each row.
    RowScale,
    /// A constant added to each column.
    Shift,
    /// A constant added to each row.
    RowShift,
    /// Any invertible linear map of the columns.
    Invertible,
}

macro_rules! families {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A similarity metric with its options. Text and value turn into each other by [`FromStr`] and
        /// [`fmt::Display`]; [`Metric::names`] lists all with their defaults.
        ///
        /// A name comes alone or with options in brackets, in any order: `linear_cka`,
        /// `linear_cka[biased]`, `rsa[rdm=correlation,by=spearman]`. Options that are left out have the
        /// values that [`Metric::names`] shows.
        ///
        /// ```
        /// use inscape::similarity::{Metric, Nearness, Neighbours};
        ///
        /// let metric: Metric = "mutual_knn[k=5]".parse().unwrap();
        /// assert_eq!(metric, Neighbours::MutualKnn { k: 5, by: Nearness::Cosine }.into());
        /// assert_eq!(metric.to_string(), "mutual_knn[k=5,by=cosine]");
        /// assert!("cka".parse::<Metric>().unwrap_err().to_string().contains("linear_cka[unbiased]"));
        /// ```
        #[derive(Clone, Copy, Debug, PartialEq)]
        #[non_exhaustive]
        pub enum Metric {
            $($(#[$doc])* $name($name),)*
        }

        /// What a metric keeps of one representation.
        #[derive(Clone, Debug)]
        pub(super) enum Kept {
            $($name(<$name as Family>::Kept),)*
        }

        impl Kept {
            /// See [`Family::reordered`].
            pub(super) fn reordered(&self, order: &[usize]) -> Option<Self> {
                match self {
                    $(Self::$name(kept) => <$name as Family>::reordered(kept, order).map(Self::$name),)*
                }
            }
        }

        $(impl From<$name> for Metric {
            fn from(metric: $name) -> Self {
                Self::$name(metric)
            }
        })*

        impl Metric {
            /// Every metric with its defaults, as users type it.
            pub fn names() -> impl Iterator<Item = &'static str> {
                [$(<$name as Family>::NAMES),*].into_iter().flatten().copied()
            }

            /// What its values mean.
            pub fn facts(self) -> Facts {
                match self {
                    $(Self::$name(metric) => metric.facts(),)*
                }
            }

            pub(super) fn is_valid(self) -> bool {
                match self {
                    $(Self::$name(metric) => metric.is_valid(),)*
                }
            }

            pub(super) async fn prepare(
                self,
                x: &Tensor<2>,
                grid: Option<Grid>,
            ) -> Result<Kept, Error> {
                Ok(match self {
                    $(Self::$name(metric) => Kept::$name(match grid {
                        Some(grid) => metric.prepare_in(x, grid).await?,
                        None => metric.prepare(x).await?,
                    }),)*
                })
            }

            /// The value for two sides that were made ready for this metric.
            pub(super) async fn value(self, a: &Kept, b: &Kept) -> Result<f64, Error> {
                match (self, a, b) {
                    $((Self::$name(metric), Kept::$name(a), Kept::$name(b)) => metric.compare(a, b).await,)*
                    _ => unreachable!("the kind kept follows from the metric"),
                }
            }

            fn parse(name: &str, options: &Options<'_>) -> Option<Self> {
                $({
                    let mut options = options.clone();
                    let found = <$name as Family>::parse(name, &mut options);
                    if let Some(metric) = found.filter(|_| options.0.is_empty()) {
                        return Some(Self::$name(metric));
                    }
                })*
                None
            }
        }

        impl fmt::Display for Metric {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$name(metric) => metric.fmt(f),)*
                }
            }
        }
    };
}

families! {
    /// Kernels of the rows: CKA and its relatives.
    Kernel,
    /// Canonical correlations.
    Cca,
    /// What one side predicts of the other.
    Predictivity,
    /// What is left when one side has been turned onto the other.
    Shape,
    /// Dissimilarities of all pairs of rows.
    Rsa,
    /// Who is nearest to whom.
    Neighbours,
    /// Single units matched with single units.
    Units,
    /// Loops, components, heat and curvature.
    Topology,
    /// What two classifiers predict.
    Predictions,
}

impl Metric {
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
}

impl FromStr for Metric {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let unknown = || Error::UnknownMetric {
            given: text.to_owned(),
        };
        let text = text.trim();
        let (name, options) = match text.split_once('[') {
            Some((name, rest)) => (name, rest.strip_suffix(']').ok_or_else(unknown)?),
            None => (text, ""),
        };
        Self::parse(name, &Options::new(options)).ok_or_else(unknown)
    }
}

/// Above 0 and at most 1.
pub(super) fn is_share(value: &f64) -> bool {
    *value > 0.0 && *value <= 1.0
}

/// The options of a name, taken out one by one; what is left over was not known.
#[derive(Clone)]
pub(super) struct Options<'a>(Vec<&'a str>);

impl<'a> Options<'a> {
    fn new(text: &'a str) -> Self {
        let parts = text.split(',').map(str::trim);
        Self(parts.filter(|o| !o.is_empty()).collect())
    }

    /// The text behind `key=`.
    pub(super) fn value(&mut self, key: &str) -> Option<&'a str> {
        let value = |o: &&'a str| o.strip_prefix(key).and_then(|o| o.strip_prefix('='));
        let at = self.0.iter().position(|o| value(o).is_some())?;
        value(&self.0.remove(at))
    }

    /// The number behind `key=`, or `default`; none if it is not one that `fits`.
    pub(super) fn number<N: FromStr>(
        &mut self,
        key: &str,
        default: N,
        fits: impl Fn(&N) -> bool,
    ) -> Option<N> {
        match self.value(key) {
            Some(text) => text.parse().ok().filter(fits),
            None => Some(default),
        }
    }

    /// The choice named behind `key=`; the first if the option is absent; none if there is no such choice.
    pub(super) fn choose<C: Copy>(&mut self, key: &str, choices: &[(&str, C)]) -> Option<C> {
        let Some(name) = self.value(key) else {
            return Some(choices[0].1);
        };
        choices.iter().find(|c| c.0 == name).map(|c| c.1)
    }

    /// The choice that stands as a bare word; the first if none does.
    pub(super) fn word<C: Copy>(&mut self, choices: &[(&str, C)]) -> C {
        let known = |o: &&str| choices.iter().find(|c| c.0 == *o).map(|c| c.1);
        match self.0.iter().position(|o| known(o).is_some()) {
            Some(at) => known(&self.0.remove(at)).unwrap_or(choices[0].1),
            None => choices[0].1,
        }
    }
}
