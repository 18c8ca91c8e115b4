//! Representational similarity analysis (RSA): compare the pairwise dissimilarities of the rows.

mod bures;
mod compare;
mod inference;
mod kendall;
mod noise;
mod norm;
mod rdm;
mod rdms;
mod stream;
mod topological;
mod weighted;
mod whitened;

use std::fmt;

use burn::tensor::{DType, Tensor};

pub use compare::Comparator;
pub use inference::{
    Bootstrap, Ceiling, DualBootstrap, Resampled, bootstrap_models, dual_bootstrap, noise_ceiling,
};
pub use noise::{
    crossnobis, crossnobis_async, mahalanobis, mahalanobis_async, shrunk_precision,
    shrunk_precision_async,
};
pub use norm::Norm;
pub use rdm::Rdm;
pub use rdms::{Channels, Rdms};
pub use weighted::{Crossvalidated, Folds, crossvalidate, model_weights};

use super::host::{Values, working};
use super::metric::{Change, Facts, Family, Options};
use super::pairs::Form;
use super::rank::Ranked;
use super::{Error, Prepared};
use crate::device::block_on;
use compare::{Chosen, Side, reordered};
use rdm::Distinct;
use stream::Stream;

/// Comparisons of the dissimilarities of all pairs of rows.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Rsa {
    /// [`rsa`]: `rsa[rdm=correlation,by=spearman]`.
    Rsa {
        /// The dissimilarity of two rows.
        rdm: Rdm,
        /// How the dissimilarities are compared.
        by: Comparator,
    },
    /// Topological RSA: the dissimilarities become `(d - l) / (u - l)`, cut off at 0 and 1, before they
    /// are compared, with `l` and `u` their quantiles at `low` and `up`: what lies below is one place, what
    /// lies above is merely far. `trsa[rdm=euclidean,low=0.2,up=0.8,by=pearson]`.
    ///
    /// Lin & Kriegeskorte 2024, "The topology and geometry of neural representations": their geo-topological
    /// matrix. rsatoolbox 0.3.2 sets transformed values above `u` to 1 as well, which differs if `u < 1`.
    Topological {
        /// The dissimilarity of two rows.
        rdm: Rdm,
        /// Share of the dissimilarities that become 0.
        low: f64,
        /// Share of the dissimilarities that do not become 1, at least `low`.
        up: f64,
        /// How they are compared.
        by: Comparator,
    },
    /// The same with the lengths of the shortest paths over the pairs that did not become 1 (the paper's
    /// geodesic matrix): `geodesic_rsa[rdm=euclidean,low=0,up=1,by=pearson]`, where only the longest is no
    /// edge. Undefined if that graph falls apart, as it does where one row is far from all others.
    /// `n³` additions.
    Geodesic {
        /// The dissimilarity of two rows.
        rdm: Rdm,
        /// Share of the dissimilarities that become 0.
        low: f64,
        /// Share of the dissimilarities that are edges, at least `low`.
        up: f64,
        /// How the lengths are compared.
        by: Comparator,
    },
    /// [`rsm_norm_difference`]: `rsm_norm_difference[rdm=euclidean,norm=frobenius]`.
    NormDifference {
        /// The dissimilarity of two rows.
        rdm: Rdm,
        /// The norm of the difference of the two matrices.
        norm: Norm,
    },
}

/// Most rows whose pairs have doubled ranks of 32 bits.
const MOST_ROWS: usize = 65_536;

/// Up to this many rows the dissimilarities are kept, where they could also be made anew; as in `pairs`.
const KEPT_ROWS: usize = 16_384;

impl Rsa {
    fn rdm(self) -> Rdm {
        match self {
            Self::Rsa { rdm, .. }
            | Self::Topological { rdm, .. }
            | Self::Geodesic { rdm, .. }
            | Self::NormDifference { rdm, .. } => rdm,
        }
    }

    /// How the dissimilarities are compared; none if by a norm.
    fn by(self) -> Option<Comparator> {
        match self {
            Self::Rsa { by, .. } | Self::Topological { by, .. } | Self::Geodesic { by, .. } => {
                Some(by)
            }
            Self::NormDifference { .. } => None,
        }
    }

    /// The form of the dissimilarities where sums over pairs and rows are all that is needed, so that
    /// nothing has to grow with their number.
    fn streamed(self) -> Option<Form> {
        use Comparator::{Cosine, Pearson, WhitenedCosine, WhitenedPearson};
        let sums = match self {
            Self::Rsa { by, .. } => {
                matches!(by, Pearson | Cosine | WhitenedCosine | WhitenedPearson)
            }
            Self::NormDifference { norm, .. } => norm == Norm::Frobenius,
            Self::Topological { .. } | Self::Geodesic { .. } => false,
        };
        stream::form(self.rdm()).filter(|_| sums)
    }

    async fn prepare_as<T: Ranked>(self, x: &Tensor<2>) -> Result<Kept, Error> {
        let n = x.dims()[0];
        let norm = matches!(self, Self::NormDifference { .. });
        if let Some(form) = self.streamed().filter(|_| n > KEPT_ROWS) {
            let stream = Stream::new(form, self.rdm().degree(), x, norm).await?;
            return Ok(Kept::Stream(Box::new(stream)));
        }
        let distinct = Distinct::new::<T>(self.rdm(), x).await?;
        let mut values = match self {
            Self::Rsa { by, .. } if by.is_of_ranks() => distinct.order::<T>().await?,
            _ => distinct.values::<T>().await?,
        };
        drop(distinct);
        match self {
            Self::Topological { low, up, .. } => {
                topological::geotopological(&mut values, low, up);
            }
            Self::Geodesic { low, up, .. } => {
                topological::geotopological(&mut values, low, up);
                topological::geodesic(&mut values, n)?;
            }
            Self::NormDifference { rdm, .. } => {
                let unit = T::rounded(rdm::scale::<T>(x).await?.powi(-rdm.degree()));
                values.iter_mut().for_each(|v| *v *= unit);
            }
            Self::Rsa { .. } => (),
        }
        match self.by() {
            Some(by) if by.is_of_ranks() => {
                Side::ranked(T::ranks_beside(values, x).await?, by).map(Kept::Side)
            }
            Some(by) => Side::new(T::store(values), Chosen { n, kept: None }, by).map(Kept::Side),
            None => Ok(Kept::Matrix(T::store(values), n)),
        }
    }
}

/// What RSA keeps of one representation.
#[derive(Clone, Debug)]
pub(super) struct Ready(Kept);

#[derive(Clone, Debug)]
enum Kept {
    Side(Side),
    Stream(Box<Stream>),
    /// Upper triangle and number of rows.
    Matrix(Values, usize),
}

impl Family for Rsa {
    const NAMES: &'static [&'static str] = &[
        "rsa[rdm=correlation,by=spearman]",
        "trsa[rdm=euclidean,low=0.2,up=0.8,by=pearson]",
        "geodesic_rsa[rdm=euclidean,low=0,up=1,by=pearson]",
        "rsm_norm_difference[rdm=euclidean,norm=frobenius]",
    ];
    type Kept = Ready;

    fn parse(name: &str, options: &mut Options<'_>) -> Option<Self> {
        let first = |name| match name {
            "rsa" => (Rdm::Correlation, Comparator::Spearman),
            _ => (Rdm::Euclidean, Comparator::Pearson),
        };
        let (rdm, by) = first(name);
        let rdm = options.choose("rdm", &from(rdm, &Rdm::NAMES))?;
        let by = match name {
            "rsm_norm_difference" => by,
            _ => options.choose("by", &from(by, &Comparator::NAMES))?,
        };
        let share = |v: &f64| (0.0..=1.0).contains(v);
        let found = match name {
            "rsa" => Self::Rsa { rdm, by },
            "trsa" => Self::Topological {
                rdm,
                low: options.number("low", 0.2, share)?,
                up: options.number("up", 0.8, share)?,
                by,
            },
            "geodesic_rsa" => Self::Geodesic {
                rdm,
                low: options.number("low", 0.0, share)?,
                up: options.number("up", 1.0, share)?,
                by,
            },
            "rsm_norm_difference" => Self::NormDifference {
                rdm,
                norm: options.choose("norm", &Norm::NAMES)?,
            },
            _ => return None,
        };
        found.is_valid().then_some(found)
    }

    fn facts(self) -> Facts {
        let most_rows = self.streamed().is_none().then_some(MOST_ROWS);
        let blind_to = blind_to(self.rdm());
        let Some(by) = self.by() else {
            return Facts {
                most_rows,
                ..Facts::distance(without_scale(blind_to), 3)
            };
        };
        let same = match by {
            Comparator::RhoA | Comparator::KendallTauA => None,
            _ => Some(1.0),
        };
        Facts {
            most_rows,
            same,
            ..Facts::similarity(blind_to, 3)
        }
    }

    fn is_valid(self) -> bool {
        match self {
            Self::Topological { low, up, .. } | Self::Geodesic { low, up, .. } => {
                0.0 <= low && low <= up && up <= 1.0
            }
            Self::Rsa { .. } | Self::NormDifference { .. } => true,
        }
    }

    async fn prepare(self, x: &Tensor<2>) -> Result<Ready, Error> {
        match x.dtype() {
            DType::F64 => self.prepare_as::<f64>(x).await,
            _ => self.prepare_as::<f32>(&working(x)).await,
        }
        .map(Ready)
    }

    async fn compare(self, a: &Ready, b: &Ready) -> Result<f64, Error> {
        match (self, self.by(), &a.0, &b.0) {
            (_, Some(by), Kept::Side(a), Kept::Side(b)) => a.compare(b, by),
            (_, Some(by), Kept::Stream(a), Kept::Stream(b)) => a.compare(b, by).await,
            (_, None, Kept::Stream(a), Kept::Stream(b)) => a.difference(b).await,
            (Self::NormDifference { norm, .. }, _, Kept::Matrix(a, n), Kept::Matrix(b, _)) => {
                norm::of_difference(a, b, *n, norm)
            }
            _ => unreachable!("the kind kept follows from the metric and the number of rows"),
        }
    }

    fn reordered(kept: &Ready, order: &[usize]) -> Option<Ready> {
        Some(Ready(match &kept.0 {
            Kept::Side(side) => Kept::Side(side.reordered(order)?),
            Kept::Matrix(values, n) => Kept::Matrix(reordered(values, order), *n),
            Kept::Stream(_) => return None,
        }))
    }
}

/// The choices with the default in front.
fn from<C: Copy + PartialEq, const N: usize>(
    first: C,
    names: &[(&'static str, C); N],
) -> [(&'static str, C); N] {
    let mut names = *names;
    let at = names.iter().position(|n| n.1 == first).unwrap_or(0);
    names.swap(0, at);
    names
}

/// What a dissimilarity does not see.
const fn blind_to(rdm: Rdm) -> &'static [Change] {
    use Change::{Permutation, Rotation, RowScale, RowShift, Scale, Shift};
    match rdm {
        Rdm::Correlation => &[Permutation, Scale, RowScale, RowShift],
        Rdm::Cosine => &[Permutation, Rotation, Scale, RowScale],
        Rdm::Euclidean | Rdm::SquaredEuclidean => &[Permutation, Rotation, Scale, Shift],
        Rdm::Poisson => &[Permutation],
    }
}

/// The same where the dissimilarities' own size counts.
fn without_scale(changes: &'static [Change]) -> &'static [Change] {
    use Change::{Permutation, Rotation, Scale, Shift};
    match changes {
        [Permutation, Rotation, Scale, Shift] => &[Permutation, Rotation, Shift],
        other => other,
    }
}

fn name_of<C: PartialEq>(names: &[(&'static str, C)], choice: C) -> &'static str {
    let found = names.iter().find(|n| n.1 == choice);
    found.map_or("", |n| n.0)
}

impl fmt::Display for Rsa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rdm = name_of(&Rdm::NAMES, self.rdm());
        let by = self.by().map_or("", |by| name_of(&Comparator::NAMES, by));
        match self {
            Self::Rsa { .. } => write!(f, "rsa[rdm={rdm},by={by}]"),
            Self::Topological { low, up, .. } => {
                write!(f, "trsa[rdm={rdm},low={low},up={up},by={by}]")
            }
            Self::Geodesic { low, up, .. } => {
                write!(f, "geodesic_rsa[rdm={rdm},low={low},up={up},by={by}]")
            }
            Self::NormDifference { norm, .. } => {
                let norm = name_of(&Norm::NAMES, *norm);
                write!(f, "rsm_norm_difference[rdm={rdm},norm={norm}]")
            }
        }
    }
}

/// RSA of two representations of the same rows.
///
/// `x` is `[n, dx]`, `y` is `[n, dy]`; the result lies in [-1, 1]. The `n (n - 1) / 2` entries above
/// the diagonal of each dissimilarity matrix (RDM) are compared. What the result does not see is what the
/// dissimilarities do not see: with the correlation RDM a shift or scale of one row as a whole, but not
/// a constant vector added to every row, nor rotation.
///
/// Rows equal to the last bit give exactly equal dissimilarities, so their pairs tie. Two columns leave
/// only `r = ±1`: use three or more for the correlation RDM.
///
/// # Errors
/// Different row counts; fewer than 3 rows, or more than 65,536 unless compared by Pearson or cosine,
/// whitened or not; a NaN or infinity; a representation with all dissimilarities equal, or negative rates for
/// [`Rdm::Poisson`] ([`Error::Undefined`]); the device failing.
///
/// # Cost
/// `n² (dx + dy) / 2` multiply-adds (twice that for Poisson). By ranks besides a radix sort of
/// `n (n - 1) / 2` keys per side, and for Kendall's tau a merge sort of them per pair of sides; for Bures
/// two eigendecompositions `n × n` in f64. Memory per side: a copy on the device, one 16 MiB tile, 4 bytes a
/// pair (f64 without ranks: 8); while ranking up to 16 bytes a pair (f64: 24), so 200 MB at n = 5,000. By
/// Pearson or cosine, whitened or not, with more than 16,384 rows nothing is kept of the pairs (but for
/// Poisson rates): each preparation and each comparison makes the tiles of its sides anew, or, of squared
/// Euclidean, cosine and correlation dissimilarities with `n ≥ 4 d`, takes its sums from products of
/// columns in f64, `n d²` multiply-adds and `8 dx dy` bytes.
///
/// # Source
/// Kriegeskorte, Mur & Bandettini 2008, "Representational similarity analysis"; the dissimilarities and
/// comparators as in rsatoolbox (Schütt et al. 2023), but for ranks, which of correlations are those of `-r`
/// and not of `1 - r`: the same order with all digits of `r` near 0. Bures clips negative eigenvalues out of
/// the trace too, so that equal sides always give 1.
///
/// # Example
/// ```
/// use inscape::{Device, similarity::{Comparator, Rdm, rsa}};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::from_data([[0., 1., 4.], [1., 0., 2.], [2., 3., 0.], [4., 1., 1.]], cpu.tensor());
/// let y = x.clone() * 3.0 + 1.0;
/// assert!((rsa(&x, &y, Rdm::Correlation, Comparator::Spearman)? - 1.0).abs() < 1e-9);
/// # Ok(())
/// # }
/// ```
pub fn rsa(x: &Tensor<2>, y: &Tensor<2>, rdm: Rdm, by: Comparator) -> Result<f64, Error> {
    block_on(rsa_async(x, y, rdm, by))
}

/// [`rsa`] without blocking.
///
/// # Errors
/// As [`rsa`].
pub async fn rsa_async(
    x: &Tensor<2>,
    y: &Tensor<2>,
    rdm: Rdm,
    by: Comparator,
) -> Result<f64, Error> {
    Prepared::pair(x, y, Rsa::Rsa { rdm, by }).await
}

/// Norm of the difference of the two dissimilarity matrices, whose scale counts.
///
/// `x` is `[n, dx]`, `y` is `[n, dy]`; 0 for equal representations, in the unit of the dissimilarities.
///
/// # Errors
/// Different row counts; fewer than 3 rows (more than 65,536 for the spectral norm); a NaN or infinity;
/// the device failing.
///
/// # Cost
/// As [`rsa`]. The spectral norm takes at most 300 products of the matrix with a vector and holds 8 bytes a
/// pair.
///
/// # Source
/// Shahbazi et al. 2021; Yin & Shen 2018. ReSi (2025) calls the spectral norm Frobenius.
///
/// # Example
/// ```
/// use inscape::{Device, similarity::{Norm, Rdm, rsm_norm_difference}};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::from_data([[0., 0.], [1., 0.], [0., 1.]], cpu.tensor());
/// let far = rsm_norm_difference(&x, &(x.clone() * 2.0), Rdm::Euclidean, Norm::Frobenius)?;
/// assert!((far - 8f64.sqrt()).abs() < 1e-6); // 2 (1 + 1 + 2)
/// # Ok(())
/// # }
/// ```
pub fn rsm_norm_difference(
    x: &Tensor<2>,
    y: &Tensor<2>,
    rdm: Rdm,
    norm: Norm,
) -> Result<f64, Error> {
    block_on(rsm_norm_difference_async(x, y, rdm, norm))
}

/// [`rsm_norm_difference`] without blocking.
///
/// # Errors
/// As [`rsm_norm_difference`].
pub async fn rsm_norm_difference_async(
    x: &Tensor<2>,
    y: &Tensor<2>,
    rdm: Rdm,
    norm: Norm,
) -> Result<f64, Error> {
    Prepared::pair(x, y, Rsa::NormDifference { rdm, norm }).await
}
