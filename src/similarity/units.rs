//! Metrics that match single units (columns): what permuting neurons leaves alone and rotating does not.

use std::fmt;

use burn::tensor::Tensor;

use super::centred::Centred;
use super::correlations::{Standard, UnitCorrelations, UnitPair};
use super::metric::{Change, Facts, Family, Options};
use super::sinkhorn::entropic;
use super::transport::plan;
use super::{Error, Prepared};
use crate::device::block_on;

/// Metrics that match the units of one side with units of the other.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Units {
    /// [`matching`]: `matching`.
    Matching,
    /// [`semi_matching`]: `semi_matching[both]`, `[left]`, `[right]`.
    SemiMatching(Direction),
    /// [`soft_matching`]: `soft_matching[correlation]`, `[distance]`; with `sinkhorn=0.01` as a second
    /// option the plan is an entropic one.
    SoftMatching {
        /// What of two matched units is summed.
        by: Soft,
        /// Weight of the plan's entropy; none for the exact plan.
        sinkhorn: Option<f64>,
    },
    /// [`permutation_shape`]: `permutation_shape[angular]`, `[euclidean]`.
    PermutationShape(PermutationScore),
}

/// Whose units look for their best match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Both sides' units; the mean of the two.
    Both,
    /// Units of the left side look on the right.
    Left,
    /// Units of the right side look on the left.
    Right,
}

/// What soft matching says of two units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Soft {
    /// Their correlation: a similarity.
    Correlation,
    /// The distance of the centred columns: a metric.
    Distance,
}

/// How far two representations are apart when their units are matched one to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PermutationScore {
    /// Angle between the centred matrices, in radians.
    Angular,
    /// Distance of the centred matrices, in the unit of the activations.
    Euclidean,
}

const DIRECTIONS: [(&str, Direction); 3] = [
    ("both", Direction::Both),
    ("left", Direction::Left),
    ("right", Direction::Right),
];

const SOFT: [(&str, Soft); 2] = [
    ("correlation", Soft::Correlation),
    ("distance", Soft::Distance),
];

const SCORES: [(&str, PermutationScore); 2] = [
    ("angular", PermutationScore::Angular),
    ("euclidean", PermutationScore::Euclidean),
];

fn name_of<C: PartialEq>(choices: &[(&'static str, C)], choice: &C) -> &'static str {
    let found = choices.iter().find(|c| c.1 == *choice);
    found.map_or("", |c| c.0)
}

/// What a metric of units keeps of one representation.
#[derive(Clone, Debug)]
pub(super) enum Kept {
    Standard(Box<Standard>),
    Centred(Centred),
}

impl Family for Units {
    const NAMES: &'static [&'static str] = &[
        "matching",
        "semi_matching[both]",
        "soft_matching[correlation]",
        "permutation_shape[angular]",
    ];
    type Kept = Kept;

    fn parse(name: &str, options: &mut Options<'_>) -> Option<Self> {
        Some(match name {
            "matching" => Self::Matching,
            "semi_matching" => Self::SemiMatching(options.word(&DIRECTIONS)),
            "soft_matching" => Self::SoftMatching {
                by: options.word(&SOFT),
                sinkhorn: match options.number("sinkhorn", f64::INFINITY, |e| *e > 0.0)? {
                    f64::INFINITY => None,
                    epsilon => Some(epsilon),
                },
            },
            "permutation_shape" => Self::PermutationShape(options.word(&SCORES)),
            _ => return None,
        })
    }

    fn facts(self) -> Facts {
        use Change::{ColumnScale, Permutation, Scale, Shift};
        let correlation = Facts::similarity(&[Permutation, ColumnScale, Scale, Shift], 2);
        let distance = Facts::distance(&[Permutation, Shift], 2);
        match self {
            Self::Matching | Self::SemiMatching(Direction::Both) => correlation,
            Self::SemiMatching(_) => Facts {
                symmetric: false,
                ..correlation
            },
            Self::SoftMatching { by, sinkhorn } => {
                let exact = match by {
                    Soft::Correlation => correlation,
                    Soft::Distance => distance,
                };
                let same = exact.same.filter(|_| sinkhorn.is_none());
                Facts { same, ..exact }
            }
            Self::PermutationShape(PermutationScore::Euclidean) => distance,
            Self::PermutationShape(PermutationScore::Angular) => {
                Facts::distance(&[Permutation, Scale, Shift], 2)
            }
        }
    }

    fn is_valid(self) -> bool {
        match self {
            Self::SoftMatching { sinkhorn, .. } => {
                sinkhorn.is_none_or(|epsilon| epsilon > 0.0 && epsilon.is_finite())
            }
            _ => true,
        }
    }

    async fn prepare(self, x: &Tensor<2>) -> Result<Kept, Error> {
        match self {
            Self::PermutationShape(score) => {
                let centred = Centred::prepare(x).await?;
                if score == PermutationScore::Angular && centred.total() == 0.0 {
                    let why = "all its rows are equal";
                    return Err(Error::Undefined { why });
                }
                Ok(Kept::Centred(centred))
            }
            Self::SoftMatching {
                by: Soft::Distance, ..
            } => Ok(Kept::Centred(Centred::prepare(x).await?)),
            _ => Ok(Kept::Standard(Box::new(Standard::prepare(x).await?))),
        }
    }

    async fn compare(self, a: &Kept, b: &Kept) -> Result<f64, Error> {
        match (a, b) {
            (Kept::Standard(a), Kept::Standard(b)) => self.of(&a.correlations(b).await?),
            (Kept::Centred(a), Kept::Centred(b)) => match self {
                Self::SoftMatching { sinkhorn, .. } => a.soft_distance(b, sinkhorn),
                Self::PermutationShape(score) => a.permuted_distance(b, score),
                _ => unreachable!("the kind kept follows from the metric"),
            },
            _ => unreachable!("the kind kept follows from the metric"),
        }
    }
}

impl Units {
    /// The value of a metric of correlations.
    fn of(self, r: &UnitCorrelations) -> Result<f64, Error> {
        let mean = |pairs: &[UnitPair]| pairs.iter().map(|p| p.r).sum::<f64>() / pairs.len() as f64;
        Ok(match self {
            Self::SemiMatching(direction) => {
                let left = || mean(&r.best_match());
                let right = || mean(&r.transposed().best_match());
                match direction {
                    Direction::Left => left(),
                    Direction::Right => right(),
                    Direction::Both => (left() + right()) / 2.0,
                }
            }
            Self::SoftMatching { sinkhorn, .. } => {
                let costs: Vec<f64> = r.values.iter().map(|r| 1.0 - r).collect();
                let shape = [r.rows, r.columns];
                match sinkhorn {
                    Some(epsilon) => entropic(&costs, |at| r.values[at], shape, epsilon)?,
                    None => {
                        let plan = plan(&costs, r.rows, r.columns);
                        plan.iter().map(|p| p.share * r.at(p.row, p.column)).sum()
                    }
                }
            }
            _ => mean(&r.one_to_one()),
        })
    }
}

impl fmt::Display for Units {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Matching => f.write_str("matching"),
            Self::SemiMatching(direction) => {
                write!(f, "semi_matching[{}]", name_of(&DIRECTIONS, direction))
            }
            Self::SoftMatching { by, sinkhorn } => {
                write!(f, "soft_matching[{}", name_of(&SOFT, by))?;
                match sinkhorn {
                    Some(epsilon) => write!(f, ",sinkhorn={epsilon}]"),
                    None => f.write_str("]"),
                }
            }
            Self::PermutationShape(score) => {
                write!(f, "permutation_shape[{}]", name_of(&SCORES, score))
            }
        }
    }
}

/// Mean correlation of the units of two representations, matched one to one.
///
/// `x` is `[n, dx]`, `y` is `[n, dy]`; the result lies in [-1, 1]. Of all ways to give every unit of the
/// narrower side a unit of its own on the other, the one with the largest sum of correlations counts;
/// units of the wider side that are left over do not. A constant unit has correlation 0 with all, so
/// equal sides are 1 less the share of their constant units.
/// Unchanged by permutation, and by shift and positive scale of every unit; not by rotation.
///
/// Not near 0 for unrelated data: the best of many chance correlations count. Compare it with a shuffle
/// of the rows of one side. Which unit goes to which is [`UnitCorrelations::one_to_one`]; features of
/// sparse autoencoders, with one unit a latent, are matched the same way.
///
/// # Errors
/// Different row counts; fewer than 2 rows; a NaN or infinity; a representation whose rows are all equal
/// ([`Error::Undefined`]); the device failing.
///
/// # Cost
/// `n dx dy` multiply-adds on the device and an assignment, `O(m² M)` for m ≤ M units. Memory: a
/// standardised copy of each side, `8 dx dy` bytes.
///
/// # Source
/// Li, Yosinski, Clune, Lipson & Hopcroft 2015, "Convergent Learning: Do different neural networks
/// learn the same representations?", section 3 (bipartite matching).
///
/// # Example
/// ```
/// use inscape::{Device, similarity::matching};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::from_data([[0., 1.], [1., 0.], [2., 3.], [4., 1.], [0., 5.]], cpu.tensor());
/// let y = x.clone().flip([1]) * 3.0 + 1.0;
/// assert!((matching(&x, &y)? - 1.0).abs() < 1e-6);
/// # Ok(())
/// # }
/// ```
pub fn matching(x: &Tensor<2>, y: &Tensor<2>) -> Result<f64, Error> {
    block_on(matching_async(x, y))
}

/// [`matching`] without blocking.
///
/// # Errors
/// As [`matching`].
pub async fn matching_async(x: &Tensor<2>, y: &Tensor<2>) -> Result<f64, Error> {
    Prepared::pair(x, y, Units::Matching).await
}

/// Mean over the units of one side of their best correlation with a unit of the other.
///
/// `x` is `[n, dx]`, `y` is `[n, dy]`; the result lies in [-1, 1]. Several units may have the same best
/// match, so for the narrower side it is at least [`matching`]. Invariances as of [`matching`].
///
/// # Errors
/// As [`matching`].
///
/// # Cost
/// `n dx dy` multiply-adds on the device; memory as [`matching`].
///
/// # Source
/// Li et al. 2015, section 3 (semi-matching).
///
/// # Example
/// ```
/// use inscape::{Device, similarity::{Direction, semi_matching}};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::from_data([[0., 1.], [1., 0.], [2., 3.], [4., 1.], [0., 5.]], cpu.tensor());
/// let y = Tensor::cat(vec![x.clone().narrow(1, 0, 1), x.clone().narrow(1, 0, 1) * 2.0], 1);
/// assert!((semi_matching(&y, &x, Direction::Left)? - 1.0).abs() < 1e-6);
/// assert!(semi_matching(&y, &x, Direction::Right)? < 0.6);
/// # Ok(())
/// # }
/// ```
pub fn semi_matching(x: &Tensor<2>, y: &Tensor<2>, direction: Direction) -> Result<f64, Error> {
    block_on(semi_matching_async(x, y, direction))
}

/// [`semi_matching`] without blocking.
///
/// # Errors
/// As [`semi_matching`].
pub async fn semi_matching_async(
    x: &Tensor<2>,
    y: &Tensor<2>,
    direction: Direction,
) -> Result<f64, Error> {
    Prepared::pair(x, y, Units::SemiMatching(direction)).await
}

/// Soft matching: the units of one side are shared out among those of the other.
///
/// `x` is `[n, dx]`, `y` is `[n, dy]`. Every unit of a side has the same weight; the plan that moves the
/// weights of one side to the other at the least cost counts. [`Soft::Correlation`]: the costs are
/// `1 - r`, the result the mean of `r` under the plan, in [-1, 1]. [`Soft::Distance`]: the costs are
/// squared distances of centred columns, the result is the root of the least cost, in the unit of the
/// activations: a metric. Unlike [`matching`] it counts every unit of both sides whatever the widths,
/// and with equal widths it is a one-to-one matching. A constant unit has correlation 0 with all.
/// Unchanged by permutation and shift; the correlation also by a positive scale of every unit.
///
/// With `sinkhorn` the plan is the one of least `cost - epsilon · entropy` instead, which spreads out:
/// another quantity, never better than the exact one, for widths whose exact plan takes too long.
/// `epsilon` is that of `1 - r`, or for distances a share of the mean squared distance.
///
/// # Errors
/// As [`matching`] (for distances, equal rows are no error); an `epsilon` that is not above 0
/// ([`Error::UnknownMetric`]), or so small that the plan does not converge ([`Error::Undefined`]).
///
/// # Cost
/// `n dx dy` multiply-adds, for distances in f64 on the host; then a network simplex on `dx dy` edges
/// (an assignment for equal widths), or with `sinkhorn` some hundred passes of `2 dx dy` exponentials.
/// Memory: a copy of each side, some matrices `[dx, dy]` in f64.
///
/// # Source
/// Khosla & Williams 2024, "Soft matching distance: a metric on neural representations that captures
/// single-neuron tuning", equations 4 and 7. All columns count, those of zeros too.
///
/// # Example
/// ```
/// use inscape::{Device, similarity::{Soft, soft_matching}};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::from_data([[0., 1.], [1., 0.], [2., 3.], [4., 1.], [0., 5.]], cpu.tensor());
/// let twice = Tensor::cat(vec![x.clone(), x.clone()], 1); // every unit is there two times
/// assert!((soft_matching(&x, &twice, Soft::Correlation, None)? - 1.0).abs() < 1e-6);
/// assert!(soft_matching(&x, &twice, Soft::Distance, None)? < 1e-6);
/// # Ok(())
/// # }
/// ```
pub fn soft_matching(
    x: &Tensor<2>,
    y: &Tensor<2>,
    by: Soft,
    sinkhorn: Option<f64>,
) -> Result<f64, Error> {
    block_on(soft_matching_async(x, y, by, sinkhorn))
}

/// [`soft_matching`] without blocking.
///
/// # Errors
/// As [`soft_matching`].
pub async fn soft_matching_async(
    x: &Tensor<2>,
    y: &Tensor<2>,
    by: Soft,
    sinkhorn: Option<f64>,
) -> Result<f64, Error> {
    Prepared::pair(x, y, Units::SoftMatching { by, sinkhorn }).await
}

/// How far two representations are apart when the units of one may be put in any order.
///
/// `x` is `[n, dx]`, `y` is `[n, dy]`, centred; the narrower one gets columns of zeros. The order is the
/// one with the largest sum of products of matched columns, which is the nearest.
/// [`PermutationScore::Euclidean`]: the distance of the two matrices, in the unit of the activations.
/// [`PermutationScore::Angular`]: the angle between them, in radians, unchanged by one scale of either
/// side. Both are metrics among representations of one width; of several, the angle can break the triangle
/// inequality, for every unit of the narrower side has to meet one of the wider. Unchanged by permutation
/// and shift.
///
/// # Errors
/// Different row counts; fewer than 2 rows; a NaN or infinity; for the angle a representation whose rows
/// are all equal ([`Error::Undefined`]); the device failing.
///
/// # Cost
/// `n dx dy` multiply-adds in f64 on the host and an assignment, `O(m² M)` for m ≤ M units. Memory: a
/// copy of each side in f64, `8 dx dy` bytes.
///
/// # Source
/// Williams, Kunz, Kornblith & Linderman 2021, "Generalized shape metrics on neural representations",
/// for the group of permutations. Taken from the differences of matched columns, so that equal sides
/// are at 0 and not at the root of rounding.
///
/// # Example
/// ```
/// use inscape::{Device, similarity::{PermutationScore, permutation_shape}};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::from_data([[0., 1.], [1., 0.], [2., 3.], [4., 1.], [0., 5.]], cpu.tensor());
/// let y = x.clone().flip([1]) + 1.0;
/// assert!(permutation_shape(&x, &y, PermutationScore::Euclidean)? < 1e-6);
/// # Ok(())
/// # }
/// ```
pub fn permutation_shape(
    x: &Tensor<2>,
    y: &Tensor<2>,
    score: PermutationScore,
) -> Result<f64, Error> {
    block_on(permutation_shape_async(x, y, score))
}

/// [`permutation_shape`] without blocking.
///
/// # Errors
/// As [`permutation_shape`].
pub async fn permutation_shape_async(
    x: &Tensor<2>,
    y: &Tensor<2>,
    score: PermutationScore,
) -> Result<f64, Error> {
    Prepared::pair(x, y, Units::PermutationShape(score)).await
}
