//! Representational similarity analysis (RSA): compare the pairwise dissimilarities of the rows.

use std::fmt;

use burn::tensor::{DType, Tensor};

use super::groups::Groups;
use super::host::{Rows, beside, sum, sum_range, working};
use super::metric::{Change, Facts, Family, Options};
use super::rank::Ranked;
use super::tiles::upper_triangle;
use super::{Error, Prepared};
use crate::device::block_on;

/// How the dissimilarity of two rows is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rdm {
    /// `1 - r`, with `r` Pearson's correlation of the two rows over their columns.
    Correlation,
}

/// How two dissimilarity matrices are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Comparator {
    /// Spearman's rank correlation, ties at their average rank.
    Spearman,
}

/// RSA with one kind of dissimilarity and one comparison: `rsa[rdm=correlation,by=spearman]`; see
/// [`rsa`](super::rsa()).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rsa {
    /// The dissimilarity of two rows.
    pub rdm: Rdm,
    /// How the dissimilarities are compared.
    pub by: Comparator,
}

impl Family for Rsa {
    const NAMES: &'static [&'static str] = &["rsa[rdm=correlation,by=spearman]"];
    type Kept = Ranks;

    fn parse(name: &str, options: &mut Options<'_>) -> Option<Self> {
        (name == "rsa").then_some(Self {
            rdm: options.choose("rdm", &[("correlation", Rdm::Correlation)])?,
            by: options.choose("by", &[("spearman", Comparator::Spearman)])?,
        })
    }

    fn facts(self) -> Facts {
        use Change::{Permutation, RowScale, RowShift, Scale};
        Facts {
            most_rows: Some(MOST_ROWS),
            ..Facts::similarity(&[Permutation, Scale, RowScale, RowShift], 3)
        }
    }

    async fn prepare(self, x: &Tensor<2>) -> Result<Ranks, Error> {
        Ranks::prepare(x, self.rdm, self.by).await
    }

    async fn compare(self, a: &Ranks, b: &Ranks) -> Result<f64, Error> {
        Ok(a.compare(b))
    }
}

impl fmt::Display for Rsa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("rsa[rdm=correlation,by=spearman]")
    }
}

/// Most rows whose pairs have doubled ranks of 32 bits.
pub(super) const MOST_ROWS: usize = 65_536;

/// RSA of two representations of the same rows.
///
/// `x` is `[n, dx]`, `y` is `[n, dy]`; the result lies in [-1, 1]. The `n (n - 1) / 2` entries above
/// the diagonal of each dissimilarity matrix (RDM) are compared. With the correlation RDM the result
/// is unchanged when one row is shifted or scaled as a whole, and by permuting columns; it *does*
/// change when a constant vector is added to every row, or under rotation.
///
/// A row whose columns are all equal has no correlation; it is given `r = 0` (dissimilarity 1) with
/// every other row. Rows equal to the last bit give exactly equal dissimilarities, so their pairs tie.
/// Two columns leave only `r = ±1`: use three or more.
///
/// # Errors
/// Different row counts; fewer than 3 rows or more than 65,536; a NaN or infinity; a representation
/// with all dissimilarities equal ([`Error::Undefined`]); the device failing.
///
/// # Cost
/// `n² (dx + dy) / 2` multiply-adds and a radix sort of `n (n - 1) / 2` keys per side. Memory per
/// side: a standardised copy on the device, one 16 MiB tile, 4 bytes a pair for the ranks; while
/// ranking up to 16 bytes a pair (f64: 24), so 200 MB at n = 5,000.
///
/// # Source
/// Kriegeskorte, Mur & Bandettini 2008, "Representational similarity analysis". The ranks are those
/// of `r`, not of `1 - r`: the order is the same reversed on both sides, and no digits are lost near
/// `r = 0` by the subtraction.
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
    Prepared::pair(x, y, Rsa { rdm, by }).await
}

/// What RSA keeps of one representation: the ranks of its pairs.
#[derive(Clone, Debug)]
pub(super) struct Ranks {
    /// Doubled average ranks of the upper triangle of the RDM, row-major.
    doubled: Vec<u32>,
    /// Sum of squares about the mean.
    own: f64,
}

impl Ranks {
    pub(super) async fn prepare(
        x: &Tensor<2>,
        Rdm::Correlation: Rdm,
        Comparator::Spearman: Comparator,
    ) -> Result<Self, Error> {
        let doubled = match x.dtype() {
            DType::F64 => ranked_correlations::<f64>(x).await?,
            _ => ranked_correlations::<f32>(&working(x)).await?,
        };
        let own = covariance(&doubled, &doubled);
        match own > 0.0 {
            true => Ok(Self { doubled, own }),
            false => Err(Error::Undefined {
                why: "all its dissimilarities are equal",
            }),
        }
    }

    pub(super) fn compare(&self, other: &Self) -> f64 {
        covariance(&self.doubled, &other.doubled) / self.own.sqrt() / other.own.sqrt()
    }
}

/// Sum of products about the mean, which is `len + 1` for doubled ranks with or without ties.
fn covariance(a: &[u32], b: &[u32]) -> f64 {
    let mean = a.len() as f64 + 1.0;
    sum(a.len(), |i| {
        (f64::from(a[i]) - mean) * (f64::from(b[i]) - mean)
    })
}

/// Equal rows are taken once, so that the pairs they make tie whatever the device's rounding.
async fn ranked_correlations<T: Ranked>(x: &Tensor<2>) -> Result<Vec<u32>, Error> {
    let (x, rows) = Rows::<T>::read(x.clone()).await?;
    let groups = Groups::new(&rows);
    let rows = groups.distinct_rows(rows);
    let (mean, inverse): (Vec<T>, Vec<T>) = rows.map(mean_and_inverse_length).into_iter().unzip();
    drop(rows);
    let own = |g: usize| {
        if inverse[g] > T::default() {
            T::rounded(1.0)
        } else {
            T::default()
        }
    };
    let standard = standardised(groups.distinct(x), &mean, &inverse);
    let upper = upper_triangle::<T>(&standard).await?;
    drop(standard);
    Ok(T::ranks(groups.expand(upper, own)))
}

/// Rows with mean 0 and length 1, so that products of rows are correlations; a constant row is 0.
fn standardised<T: Ranked>(x: Tensor<2>, mean: &[T], inverse: &[T]) -> Tensor<2> {
    let n = mean.len();
    let column = |values: &[T]| beside(values.to_vec(), [n, 1], &x);
    (x.clone() - column(mean)) * column(inverse)
}

/// Mean of a row, and one over the length of the row about it (0 for a constant row).
fn mean_and_inverse_length<T: Ranked>(row: &[T]) -> (T, T) {
    let (d, first) = (row.len(), row[0].wide());
    let shift = sum_range(0..d, |j| row[j].wide() - first) / d as f64;
    let mean = T::rounded(first + shift);
    let centred = |j: usize| (row[j] - mean).wide();
    let length = sum_range(0..d, |j| centred(j) * centred(j)).sqrt();
    let inverse = if length > 0.0 { length.recip() } else { 0.0 };
    (mean, T::rounded(inverse))
}
