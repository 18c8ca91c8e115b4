//! How two vectors of dissimilarities are compared, and what of each is worked out once.

use super::super::Error;
use super::super::host::{Values, dot, map_chunks, sum, sum_range};
use super::super::rank::Ranked;
use super::bures;
use super::kendall::{self, Ties};
use super::whitened::{self, Whitening};

/// How the dissimilarities of two representations are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Comparator {
    /// Spearman's rank correlation, ties at their average rank.
    Spearman,
    /// Pearson's correlation.
    Pearson,
    /// Cosine of the two vectors of dissimilarities.
    Cosine,
    /// Spearman's without a correction for ties: `12 Σ (p - p̄) (q - q̄) / (m³ - m)` of the ranks, its
    /// expectation over random orders of the tied (Schütt et al. 2023).
    RhoA,
    /// Kendall's tau: concordant less discordant pairs of dissimilarities, as a share of all pairs.
    KendallTauA,
    /// The same over the root of the pairs that tie on neither side, each side on its own.
    KendallTauB,
    /// Cosine after whitening by the covariance that the dissimilarities have because they share rows
    /// (Diedrichsen et al. 2021), the noise of the rows taken as independent and equal. For squared
    /// Euclidean dissimilarities this is biased linear CKA.
    WhitenedCosine,
    /// The same of dissimilarities less their mean.
    WhitenedPearson,
    /// Normalised Bures similarity (Harvey et al. 2023) of the kernels `-H D H / 2`: their nuclear
    /// fidelity over the root of the product of traces. Negative eigenvalues count as 0.
    Bures,
}

impl Comparator {
    /// The name as options spell it.
    pub(super) const NAMES: [(&'static str, Self); 9] = [
        ("spearman", Self::Spearman),
        ("pearson", Self::Pearson),
        ("cosine", Self::Cosine),
        ("rho_a", Self::RhoA),
        ("kendall_tau_a", Self::KendallTauA),
        ("kendall_tau_b", Self::KendallTauB),
        ("whitened_cosine", Self::WhitenedCosine),
        ("whitened_pearson", Self::WhitenedPearson),
        ("bures", Self::Bures),
    ];

    /// Whether only the order of the dissimilarities counts.
    pub(super) fn is_of_ranks(self) -> bool {
        matches!(
            self,
            Self::Spearman | Self::RhoA | Self::KendallTauA | Self::KendallTauB
        )
    }

    /// Whether the dissimilarities lose their mean first.
    pub(super) fn centres(self) -> bool {
        matches!(self, Self::Pearson | Self::WhitenedPearson)
    }
}

/// One side made ready.
#[derive(Clone, Debug)]
pub(super) enum Side {
    Ranks(Ranks),
    Plain(Plain),
    Whitened(Whitened),
    /// Dissimilarities and what they are multiplied with, `V⁻¹ d`.
    Solved {
        values: Vec<f64>,
        whitened: Vec<f64>,
        own: f64,
    },
    Kernel(bures::Root),
}

/// Which pairs of `n` conditions the values stand for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chosen<'a> {
    pub(super) n: usize,
    /// Places in the upper triangle, row-major; all if none.
    pub(super) kept: Option<&'a [usize]>,
}

impl Side {
    /// `values` are the dissimilarities of `pairs` in the order of the upper triangle.
    pub(super) fn new(values: Values, pairs: Chosen<'_>, by: Comparator) -> Result<Self, Error> {
        match by {
            _ if by.is_of_ranks() => {
                let doubled = match values {
                    Values::F32(values) => f32::ranks(values),
                    Values::F64(values) => f64::ranks(values),
                };
                Self::ranked(doubled, by)
            }
            Comparator::WhitenedCosine | Comparator::WhitenedPearson => match pairs.kept {
                None => Whitened::new(values, pairs.n, by).map(Self::Whitened),
                Some(_) => Self::solved(&values.wide(), &Whitening::equal(pairs), by),
            },
            Comparator::Bures => {
                let whole = whitened::spread(&values.wide(), pairs);
                bures::Root::new(&whole, pairs.n).map(Self::Kernel)
            }
            _ => Plain::new(values, by).map(Self::Plain),
        }
    }

    /// For comparators of ranks: the doubled ranks of all pairs.
    pub(super) fn ranked(doubled: Vec<u32>, by: Comparator) -> Result<Self, Error> {
        Ranks::new(doubled, by).map(Self::Ranks)
    }

    /// Whitened by a covariance that has no short cut.
    pub(super) fn solved(
        values: &[f64],
        whitening: &Whitening<'_>,
        by: Comparator,
    ) -> Result<Self, Error> {
        let mean = if by.centres() { mean(values) } else { 0.0 };
        let values: Vec<f64> = values.iter().map(|v| v - mean).collect();
        let whitened = whitening.solve(&values)?;
        let own = dot(&values, &whitened);
        match own > 0.0 {
            true => Ok(Self::Solved {
                values,
                whitened,
                own,
            }),
            false => Err(equal()),
        }
    }

    /// The same rows in another order; none for a sample of the pairs.
    pub(super) fn reordered(&self, order: &[usize]) -> Option<Self> {
        Some(match self {
            Self::Ranks(ranks) => Self::Ranks(Ranks {
                doubled: triangle_reordered(&ranks.doubled, order),
                ..*ranks
            }),
            Self::Plain(plain) => Self::Plain(plain.reordered(order)),
            Self::Whitened(whitened) => Self::Whitened(Whitened {
                plain: whitened.plain.reordered(order),
                rows: order.iter().map(|&i| whitened.rows[i]).collect(),
                own: whitened.own,
            }),
            Self::Solved { .. } => return None,
            Self::Kernel(root) => Self::Kernel(root.reordered(order)),
        })
    }

    pub(super) fn compare(&self, other: &Self, by: Comparator) -> Result<f64, Error> {
        match (self, other) {
            (Self::Ranks(a), Self::Ranks(b)) => Ok(a.compare(b, by)),
            (Self::Plain(a), Self::Plain(b)) => Ok(a.compare(b)),
            (Self::Whitened(a), Self::Whitened(b)) => Ok(a.compare(b)),
            (
                Self::Solved { values, own, .. },
                Self::Solved {
                    whitened, own: o, ..
                },
            ) => Ok(dot(values, whitened) / own.sqrt() / o.sqrt()),
            (Self::Kernel(a), Self::Kernel(b)) => a.compare(b),
            _ => unreachable!("both sides were made ready for one comparator"),
        }
    }
}

/// The upper triangle of the same rows in another order: row `i` of the new is row `order[i]`.
pub(super) fn triangle_reordered<V: Copy + Default + Send + Sync>(
    upper: &[V],
    order: &[usize],
) -> Vec<V> {
    let n = order.len();
    let place = |a: usize, b: usize| a * (2 * n - a - 1) / 2 + b - a - 1;
    let rows = map_chunks(n, 64, |r| {
        let pairs = r.flat_map(|i| (i + 1..n).map(move |j| (order[i], order[j])));
        pairs
            .map(|(a, b)| upper[place(a.min(b), a.max(b))])
            .collect::<Vec<V>>()
    });
    rows.concat()
}

pub(super) fn reordered(values: &Values, order: &[usize]) -> Values {
    match values {
        Values::F32(v) => Values::F32(triangle_reordered(v, order)),
        Values::F64(v) => Values::F64(triangle_reordered(v, order)),
    }
}

pub(super) fn equal() -> Error {
    Error::Undefined {
        why: "all its dissimilarities are equal",
    }
}

fn mean(values: &[f64]) -> f64 {
    sum(values.len(), |i| values[i]) / values.len().max(1) as f64
}

/// Doubled average ranks of the dissimilarities.
#[derive(Clone, Debug)]
pub(super) struct Ranks {
    doubled: Vec<u32>,
    /// Sum of squares about the mean.
    own: f64,
    ties: Ties,
}

impl Ranks {
    fn new(doubled: Vec<u32>, by: Comparator) -> Result<Self, Error> {
        let own = covariance(&doubled, &doubled);
        let ties = match by {
            Comparator::KendallTauA | Comparator::KendallTauB => Ties::of(&doubled),
            _ => Ties::default(),
        };
        match own > 0.0 {
            true => Ok(Self { doubled, own, ties }),
            false => Err(equal()),
        }
    }

    fn compare(&self, other: &Self, by: Comparator) -> f64 {
        let (a, b) = (&self.doubled, &other.doubled);
        match by {
            Comparator::RhoA => {
                let m = a.len() as f64;
                3.0 * covariance(a, b) / (m * (m * m - 1.0))
            }
            Comparator::KendallTauA => kendall::tau_a((a, &self.ties), (b, &other.ties)),
            Comparator::KendallTauB => kendall::tau_b((a, &self.ties), (b, &other.ties)),
            _ => covariance(a, b) / self.own.sqrt() / other.own.sqrt(),
        }
    }
}

/// Sum of products about the mean, which is `len + 1` for doubled ranks with or without ties.
fn covariance(a: &[u32], b: &[u32]) -> f64 {
    let mean = a.len() as f64 + 1.0;
    sum(a.len(), |i| {
        (f64::from(a[i]) - mean) * (f64::from(b[i]) - mean)
    })
}

/// The dissimilarities with what they are centred on.
#[derive(Clone, Debug)]
pub(super) struct Plain {
    values: Values,
    centre: f64,
    /// Sum of squares about the centre.
    own: f64,
}

impl Plain {
    fn new(values: Values, by: Comparator) -> Result<Self, Error> {
        let centre = if by.centres() { values.mean() } else { 0.0 };
        let own = values.product(centre, &values, centre);
        match own > values.rounding() {
            true => Ok(Self {
                values,
                centre,
                own,
            }),
            false => Err(equal()),
        }
    }

    fn reordered(&self, order: &[usize]) -> Self {
        Self {
            values: reordered(&self.values, order),
            ..*self
        }
    }

    fn compare(&self, other: &Self) -> f64 {
        let product = self
            .values
            .product(self.centre, &other.values, other.centre);
        product / self.own.sqrt() / other.own.sqrt()
    }
}

/// The same with the sums of each row of the whole matrix, from which `⟨HAH, HBH⟩` follows.
#[derive(Clone, Debug)]
pub(super) struct Whitened {
    plain: Plain,
    rows: Vec<f64>,
    own: f64,
}

impl Whitened {
    fn new(values: Values, n: usize, by: Comparator) -> Result<Self, Error> {
        let plain = Plain::new(values, by)?;
        let rows = match &plain.values {
            Values::F32(v) => row_sums(v.len(), n, |i| f64::from(v[i]) - plain.centre),
            Values::F64(v) => row_sums(v.len(), n, |i| v[i] - plain.centre),
        };
        let mut new = Self {
            plain,
            rows,
            own: 0.0,
        };
        new.own = new.product(&new);
        match new.own > 64.0 * f64::EPSILON * new.plain.own {
            true => Ok(new),
            false => Err(equal()),
        }
    }

    /// `⟨HAH, HBH⟩ = ⟨A, B⟩ - 2/n a·b + (Σ a) (Σ b) / n²` with the row sums `a`, `b`.
    fn product(&self, other: &Self) -> f64 {
        let (a, b) = (&self.plain, &other.plain);
        let n = self.rows.len() as f64;
        let total = |rows: &[f64]| sum_range(0..rows.len(), |i| rows[i]);
        2.0 * a.values.product(a.centre, &b.values, b.centre)
            - 2.0 / n * dot(&self.rows, &other.rows)
            + total(&self.rows) * total(&other.rows) / (n * n)
    }

    fn compare(&self, other: &Self) -> f64 {
        self.product(other) / self.own.sqrt() / other.own.sqrt()
    }
}

/// Sums of the rows of a symmetric matrix with zero diagonal, of which `value` gives the upper triangle.
fn row_sums(pairs: usize, n: usize, value: impl Fn(usize) -> f64 + Sync) -> Vec<f64> {
    debug_assert_eq!(pairs, n * (n - 1) / 2);
    let start = |i: usize| i * (2 * n - i - 1) / 2;
    let parts = map_chunks(n, 256, |r| {
        let mut sums = vec![0.0; n];
        for i in r {
            let first = start(i);
            for j in i + 1..n {
                let v = value(first + j - i - 1);
                sums[i] += v;
                sums[j] += v;
            }
        }
        sums
    });
    parts.into_iter().fold(vec![0.0; n], |mut all, part| {
        all.iter_mut().zip(part).for_each(|(a, p)| *a += p);
        all
    })
}

/// What the comparators need of packed numbers of either precision.
trait Packed {
    fn wide(&self) -> Vec<f64>;
    fn mean(&self) -> f64;
    /// Σ (a - ca) (b - cb).
    fn product(&self, ca: f64, other: &Self, cb: f64) -> f64;
    /// Sum of squares that rounding alone can leave.
    fn rounding(&self) -> f64;
}

impl Packed for Values {
    fn wide(&self) -> Vec<f64> {
        match self {
            Self::F32(v) => v.iter().map(|&v| f64::from(v)).collect(),
            Self::F64(v) => v.clone(),
        }
    }

    fn mean(&self) -> f64 {
        match self {
            Self::F32(v) => sum(v.len(), |i| f64::from(v[i])) / v.len().max(1) as f64,
            Self::F64(v) => mean(v),
        }
    }

    fn product(&self, ca: f64, other: &Self, cb: f64) -> f64 {
        match (self, other) {
            (Self::F32(a), Self::F32(b)) => {
                sum(a.len(), |i| (f64::from(a[i]) - ca) * (f64::from(b[i]) - cb))
            }
            (Self::F32(a), Self::F64(b)) => sum(a.len(), |i| (f64::from(a[i]) - ca) * (b[i] - cb)),
            (Self::F64(a), Self::F32(b)) => sum(a.len(), |i| (a[i] - ca) * (f64::from(b[i]) - cb)),
            (Self::F64(a), Self::F64(b)) => sum(a.len(), |i| (a[i] - ca) * (b[i] - cb)),
        }
    }

    fn rounding(&self) -> f64 {
        let epsilon = match self {
            Self::F32(_) => f64::from(f32::EPSILON),
            Self::F64(_) => f64::EPSILON,
        };
        (4.0 * epsilon).powi(2) * self.dot(self)
    }
}
