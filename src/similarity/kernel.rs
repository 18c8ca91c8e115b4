//! The metrics that compare kernels of the rows.

use std::fmt;

use burn::tensor::Tensor;

use super::axes::{Axes, Part};
use super::cka::{Estimator, Features, Moments};
use super::hsic::hsic_scale;
use super::metric::{Change, Facts, Family, Grid, Options};
use super::pairs::{Form, Pairs};
use super::rbf::Sigma;
use super::subspace;
use super::{Error, minibatch};

/// Metrics that compare the similarities of all pairs of rows, as a kernel has them, and the subspaces
/// that linear kernels span.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Kernel {
    /// [`linear_cka`](super::linear_cka): `linear_cka[unbiased]`, `linear_cka[biased]`; also read as `rv`,
    /// the RV coefficient, which is the biased form.
    LinearCka(Estimator),
    /// The angle whose cosine linear CKA is, in radians, a proper distance if biased: `cka_angular[biased]`.
    /// Of nearly equal sides half of the digits are lost: 1e-7 below 1 is an angle of 4e-4.
    ///
    /// Source: Williams, Kunz, Kornblith & Linderman 2021, "Generalized Shape Metrics on Neural
    /// Representations".
    CkaAngular(Estimator),
    /// [`rbf_cka`](super::rbf_cka): `rbf_cka[unbiased,sigma=0.5*median]`.
    RbfCka {
        /// Which estimator of HSIC.
        estimator: Estimator,
        /// How wide the kernel is.
        sigma: Sigma,
        /// Whether each row is first made to length 1: `rbf_cka[biased,sigma=1,unit_rows]`.
        unit_rows: bool,
    },
    /// [`minibatch_cka`](super::minibatch_cka): `minibatch_cka[batch=64]`.
    MinibatchCka {
        /// Rows of a batch, at least 4.
        batch: usize,
        /// Whether a last, shorter batch is left out: `minibatch_cka[batch=64,drop_last]`. If not, it
        /// counts as the others do unless it has fewer than 4 rows.
        drop_last: bool,
    },
    /// [`hsic`](super::hsic()): `hsic[unbiased]` of linear kernels, with a sigma of RBF kernels:
    /// `hsic[biased,sigma=1*median]`.
    Hsic {
        /// Which estimator.
        estimator: Estimator,
        /// How wide an RBF kernel is; none for the linear one.
        sigma: Option<Sigma>,
    },
    /// [`distance_correlation`](super::distance_correlation): `distance_correlation[unbiased]`.
    DistanceCorrelation(DistanceCorrelation),
    /// RV without the diagonals of the Gram matrices, so that many columns alone do not make it large:
    /// `rv2`.
    ///
    /// Source: Smilde, Kiers, Bijlsma, Rubingh & van Erk 2009, "Matrix correlations for high-dimensional
    /// data: the modified RV-coefficient".
    Rv2,
    /// Effective number of dimensions that two sides share, from Gram matrices `K` and `L` of centred rows:
    /// `ensd[shared]` is `PR(K) PR(L) tr(K L) / (tr K tr L)` with the participation ratio
    /// `PR(K) = (tr K)² / tr K²`; `ensd[ratio]` is `tr K tr L / tr(K L)`, which is `√(PR(K) PR(L))` over
    /// biased linear CKA and falls as the sides grow alike. Both are the participation ratio for equal
    /// sides.
    ///
    /// Source: Giaffar, Rullán Buxó & Aoi 2024, "The effective number of shared dimensions between paired
    /// datasets"; the shared form is that of their code.
    Ensd(Ensd),
    /// `‖Uᵀ V‖² / max(dx, dy)` of orthonormal bases of the two column spaces, not centred:
    /// `eigenspace_overlap`. Directions below 1e-6 of the largest singular value count for none; equal sides
    /// give 1 if their columns are independent, and less otherwise.
    ///
    /// Source: May, Zhang, Dao & Ré 2019, "On the Downstream Performance of Compressed Word Embeddings".
    EigenspaceOverlap,
    /// Mean squared cosine of the principal angles between the spaces that the leading principal components
    /// of the rows span, as scores over the rows: `subspace_overlap[top=10]`. Beyond 4,096 columns and
    /// rows the components are found by products with random vectors, as for [`svcca`](super::svcca()).
    SubspaceOverlap {
        /// How many components of each side. A side that has fewer is an error.
        top: usize,
    },
    /// Root of the summed squares of those angles, the geodesic distance on the Grassmann manifold, in
    /// radians: `grassmann[top=10]`. Small angles keep their digits.
    ///
    /// Source: Björck & Golub 1973, "Numerical Methods for Computing Angles Between Linear Subspaces".
    Grassmann {
        /// How many components of each side. A side that has fewer is an error.
        top: usize,
    },
}

/// Which distance correlation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DistanceCorrelation {
    /// The squared one from U-centred distances, about 0 for independent data and sometimes below.
    Unbiased,
    /// The root of the first, from doubly centred distances; large by chance where columns are many.
    Biased,
    /// The first without the root.
    BiasedSquared,
}

/// Which form of the effective number of shared dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ensd {
    /// `PR(K) PR(L) tr(K L) / (tr K tr L)`.
    Shared,
    /// `tr K tr L / tr(K L)`.
    Ratio,
}

/// What a kernel metric keeps of one representation.
#[derive(Clone, Debug)]
pub(super) enum Kept {
    Features(Box<Features>),
    Batches(Vec<Features>),
    Pairs(Box<Pairs>),
    Axes(Box<Axes>),
}

impl Estimator {
    const WORDS: [(&'static str, Self); 3] = [
        ("unbiased", Self::Unbiased),
        ("debiased", Self::Unbiased),
        ("biased", Self::Biased),
    ];

    fn parse(options: &mut Options<'_>) -> Self {
        options.word(&Self::WORDS)
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

impl DistanceCorrelation {
    const WORDS: [(&'static str, Self); 3] = [
        ("unbiased", Self::Unbiased),
        ("biased", Self::Biased),
        ("biased_squared", Self::BiasedSquared),
    ];

    fn estimator(self) -> Estimator {
        match self {
            Self::Unbiased => Estimator::Unbiased,
            _ => Estimator::Biased,
        }
    }
}

impl Ensd {
    const WORDS: [(&'static str, Self); 2] = [("shared", Self::Shared), ("ratio", Self::Ratio)];
}

/// The word of a choice.
fn word<C: Copy + PartialEq>(choices: &[(&'static str, C)], choice: C) -> &'static str {
    let found = choices.iter().find(|c| c.1 == choice);
    found.expect("every choice has a word").0
}

impl Family for Kernel {
    const NAMES: &'static [&'static str] = &[
        "linear_cka[unbiased]",
        "rbf_cka[unbiased,sigma=0.5*median]",
        "minibatch_cka[batch=64]",
        "cka_angular[biased]",
        "hsic[unbiased]",
        "distance_correlation[unbiased]",
        "rv2",
        "ensd[shared]",
        "eigenspace_overlap",
        "subspace_overlap[top=10]",
        "grassmann[top=10]",
    ];
    type Kept = Kept;

    fn parse(name: &str, options: &mut Options<'_>) -> Option<Self> {
        let sigma = |options: &mut Options<'_>| options.value("sigma").map(Sigma::parse);
        Some(match name {
            "linear_cka" => Self::LinearCka(Estimator::parse(options)),
            "rv" => Self::LinearCka(Estimator::Biased),
            "cka_angular" => Self::CkaAngular(options.word(&[
                ("biased", Estimator::Biased),
                ("unbiased", Estimator::Unbiased),
            ])),
            "rbf_cka" => Self::RbfCka {
                estimator: Estimator::parse(options),
                sigma: sigma(options).unwrap_or(Some(Sigma::DEFAULT))?,
                unit_rows: options.word(&[("", false), ("unit_rows", true)]),
            },
            "minibatch_cka" => Self::MinibatchCka {
                batch: options.number("batch", 64, |&batch| batch >= 4)?,
                drop_last: options.word(&[("", false), ("drop_last", true)]),
            },
            "hsic" => Self::Hsic {
                estimator: Estimator::parse(options),
                sigma: match sigma(options) {
                    Some(sigma) => Some(sigma?),
                    None => None,
                },
            },
            "distance_correlation" => {
                Self::DistanceCorrelation(options.word(&DistanceCorrelation::WORDS))
            }
            "rv2" => Self::Rv2,
            "ensd" => Self::Ensd(options.word(&Ensd::WORDS)),
            "eigenspace_overlap" => Self::EigenspaceOverlap,
            "subspace_overlap" => Self::SubspaceOverlap {
                top: options.number("top", 10, |&top| top > 0)?,
            },
            "grassmann" => Self::Grassmann {
                top: options.number("top", 10, |&top| top > 0)?,
            },
            _ => return None,
        })
    }

    fn facts(self) -> Facts {
        use Change::{Invertible, Rotation, RowScale, Scale, Shift};
        const LINEAR: &[Change] = &[Rotation, Scale, Shift];
        let fewest = self.fewest_rows();
        match self {
            Self::CkaAngular(_) | Self::Grassmann { .. } => Facts::distance(LINEAR, fewest),
            Self::RbfCka {
                unit_rows: true, ..
            } => Facts::similarity(&[Rotation, Scale, RowScale], fewest),
            Self::RbfCka {
                sigma: Sigma::Fixed(_),
                ..
            } => Facts::similarity(&[Rotation, Shift], fewest),
            Self::Hsic { sigma, .. } => Facts {
                same: None,
                ..Facts::similarity(
                    match sigma {
                        Some(Sigma::Median(_) | Sigma::OffDiagonalMedian(_)) => LINEAR,
                        _ => &[Rotation, Shift],
                    },
                    fewest,
                )
            },
            Self::MinibatchCka { .. } => Facts {
                rows_in_order: true,
                ..Facts::similarity(LINEAR, fewest)
            },
            Self::Ensd(form) => Facts {
                same: None,
                ..match form {
                    Ensd::Shared => Facts::similarity(LINEAR, fewest),
                    Ensd::Ratio => Facts::distance(LINEAR, fewest),
                }
            },
            Self::EigenspaceOverlap => Facts::similarity(&[Invertible], fewest),
            _ => Facts::similarity(LINEAR, fewest),
        }
    }

    fn is_valid(self) -> bool {
        match self {
            Self::RbfCka { sigma, .. }
            | Self::Hsic {
                sigma: Some(sigma), ..
            } => sigma.is_valid(),
            Self::MinibatchCka { batch, .. } => batch >= 4,
            Self::SubspaceOverlap { top } | Self::Grassmann { top } => top > 0,
            _ => true,
        }
    }

    async fn prepare_in(self, x: &Tensor<2>, grid: Grid) -> Result<Kept, Error> {
        match self.rows_as() {
            RowsAs::Features => self.features(x, Some(grid)).await,
            _ => self.prepare(x).await,
        }
    }

    async fn prepare(self, x: &Tensor<2>) -> Result<Kept, Error> {
        match self.rows_as() {
            RowsAs::Features => self.features(x, None).await,
            RowsAs::Pairs(form) => {
                let pairs = Pairs::prepare(x, form).await?;
                if let Some(estimator) = self.divides_by() {
                    pairs.check(estimator)?;
                }
                Ok(Kept::Pairs(Box::new(pairs)))
            }
            RowsAs::Batches { batch, drop_last } => Ok(Kept::Batches(
                minibatch::prepare(x, batch, drop_last).await?,
            )),
            RowsAs::Axes => Ok(Kept::Axes(Box::new(Axes::prepare(x, false).await?))),
            RowsAs::Leading { top } => {
                let axes = Axes::leading(x, Part::Top(top)).await?;
                subspace::check(&axes.basis, top)?;
                Ok(Kept::Axes(Box::new(axes)))
            }
        }
    }

    async fn compare(self, a: &Kept, b: &Kept) -> Result<f64, Error> {
        match (a, b) {
            (Kept::Features(a), Kept::Features(b)) => {
                let value = self.of_moments(&a.moments(b).await?)?;
                match self {
                    Self::Hsic { .. } => Ok(value / a.factor(b)),
                    _ => Ok(value),
                }
            }
            (Kept::Pairs(a), Kept::Pairs(b)) => self.of_pairs(a, b).await,
            (Kept::Batches(a), Kept::Batches(b)) => minibatch::compare(a, b).await,
            (Kept::Axes(a), Kept::Axes(b)) => self.of_axes(a, b),
            _ => unreachable!("the kind kept follows from the metric"),
        }
    }

    fn reordered(kept: &Kept, order: &[usize]) -> Option<Kept> {
        Some(match kept {
            Kept::Features(features) => Kept::Features(Box::new(features.reordered(order)?)),
            Kept::Pairs(pairs) => Kept::Pairs(Box::new(pairs.reordered(order)?)),
            Kept::Axes(axes) => Kept::Axes(Box::new(axes.reordered(order))),
            Kept::Batches(_) => return None,
        })
    }
}

/// In what form the rows of a representation are needed.
enum RowsAs {
    Features,
    Pairs(Form),
    Batches { batch: usize, drop_last: bool },
    Axes,
    Leading { top: usize },
}

impl Kernel {
    fn rows_as(self) -> RowsAs {
        match self {
            Self::LinearCka(_)
            | Self::CkaAngular(_)
            | Self::Rv2
            | Self::Ensd(_)
            | Self::Hsic { sigma: None, .. } => RowsAs::Features,
            Self::RbfCka {
                sigma, unit_rows, ..
            } => RowsAs::Pairs(Form::Rbf {
                sigma,
                unit: unit_rows,
            }),
            Self::Hsic {
                sigma: Some(sigma), ..
            } => RowsAs::Pairs(Form::Rbf { sigma, unit: false }),
            Self::DistanceCorrelation(_) => RowsAs::Pairs(Form::Euclidean),
            Self::MinibatchCka { batch, drop_last } => RowsAs::Batches { batch, drop_last },
            Self::EigenspaceOverlap => RowsAs::Axes,
            Self::SubspaceOverlap { top } | Self::Grassmann { top } => RowsAs::Leading { top },
        }
    }

    async fn features(self, x: &Tensor<2>, grid: Option<Grid>) -> Result<Kept, Error> {
        let features = Features::prepare(x, grid).await?;
        if let Some(estimator) = self.divides_by() {
            features.check(estimator)?;
        }
        Ok(Kept::Features(Box::new(features)))
    }

    /// The estimator of the self-HSIC that the metric divides by.
    pub(super) fn divides_by(self) -> Option<Estimator> {
        match self {
            Self::LinearCka(estimator)
            | Self::CkaAngular(estimator)
            | Self::RbfCka { estimator, .. } => Some(estimator),
            Self::DistanceCorrelation(form) => Some(form.estimator()),
            Self::Rv2 | Self::Ensd(_) => Some(Estimator::Biased),
            _ => None,
        }
    }

    fn fewest_rows(self) -> usize {
        match self {
            Self::LinearCka(estimator)
            | Self::CkaAngular(estimator)
            | Self::RbfCka { estimator, .. }
            | Self::Hsic { estimator, .. } => estimator.fewest_rows(),
            Self::DistanceCorrelation(form) => form.estimator().fewest_rows(),
            Self::MinibatchCka {
                batch,
                drop_last: true,
            } => batch,
            Self::MinibatchCka { .. } => 4,
            Self::Rv2 | Self::Ensd(_) | Self::EigenspaceOverlap => 2,
            Self::SubspaceOverlap { top } | Self::Grassmann { top } => top.saturating_add(1).max(2),
        }
    }

    /// The metric from sums over linear kernels; an error for those that need more.
    pub(super) fn of_moments(self, moments: &Moments) -> Result<f64, Error> {
        match self {
            Self::LinearCka(estimator) => Ok(moments.cka(estimator)),
            Self::CkaAngular(estimator) => Ok(angle(moments.cka(estimator))),
            Self::Hsic {
                estimator,
                sigma: None,
            } => Ok(moments.hsic(estimator)[0] / hsic_scale(moments.n, estimator)),
            Self::Rv2 => moments.rv2(),
            Self::Ensd(form) => form.value(moments),
            _ => Err(needs_rows()),
        }
    }

    async fn of_pairs(self, a: &Pairs, b: &Pairs) -> Result<f64, Error> {
        let product = a.product(b).await?;
        let aligned = |estimator| {
            let own = [a, b].map(|side| side.own_hsic(estimator).sqrt());
            a.hsic(b, product, estimator) / own[0] / own[1]
        };
        Ok(match self {
            Self::Hsic { estimator, .. } => {
                a.hsic(b, product, estimator) / hsic_scale(a.n(), estimator)
            }
            Self::DistanceCorrelation(DistanceCorrelation::Biased) => {
                aligned(Estimator::Biased).max(0.0).sqrt()
            }
            _ => aligned(self.divides_by().expect("an alignment")),
        })
    }

    fn of_axes(self, a: &Axes, b: &Axes) -> Result<f64, Error> {
        match self {
            Self::SubspaceOverlap { top } => {
                subspace::overlap(&a.basis, &b.basis, a.cross(b).as_ref(), top)
            }
            Self::Grassmann { top } => subspace::grassmann(a, b, top),
            _ => Ok(subspace::eigenspace_overlap(
                &a.basis,
                &b.basis,
                a.cross(b).as_ref(),
            )),
        }
    }
}

/// What to say where sums do not suffice.
pub(super) fn needs_rows() -> Error {
    Error::Undefined {
        why: "the metric needs the rows themselves",
    }
}

fn angle(cosine: f64) -> f64 {
    cosine.clamp(-1.0, 1.0).acos()
}

impl Ensd {
    fn value(self, moments: &Moments) -> Result<f64, Error> {
        let [both, left, right] = moments.products;
        let traces = moments.traces[0] * moments.traces[1];
        match self {
            Self::Shared => Ok(traces / left * (both / right)),
            Self::Ratio if both > 0.0 => Ok(traces / both),
            Self::Ratio => Err(Error::Undefined {
                why: "the two sides share no direction",
            }),
        }
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_nothing = |word: &'static str, given: bool| if given { word } else { "" };
        match self {
            Self::LinearCka(estimator) => write!(f, "linear_cka[{}]", estimator.name()),
            Self::CkaAngular(estimator) => write!(f, "cka_angular[{}]", estimator.name()),
            Self::RbfCka {
                estimator,
                sigma,
                unit_rows,
            } => {
                let unit = or_nothing(",unit_rows", *unit_rows);
                write!(f, "rbf_cka[{},sigma={sigma}{unit}]", estimator.name())
            }
            Self::MinibatchCka { batch, drop_last } => {
                let drop = or_nothing(",drop_last", *drop_last);
                write!(f, "minibatch_cka[batch={batch}{drop}]")
            }
            Self::Hsic { estimator, sigma } => match sigma {
                Some(sigma) => write!(f, "hsic[{},sigma={sigma}]", estimator.name()),
                None => write!(f, "hsic[{}]", estimator.name()),
            },
            Self::DistanceCorrelation(form) => {
                let form = word(&DistanceCorrelation::WORDS, *form);
                write!(f, "distance_correlation[{form}]")
            }
            Self::Rv2 => f.write_str("rv2"),
            Self::Ensd(form) => write!(f, "ensd[{}]", word(&Ensd::WORDS, *form)),
            Self::EigenspaceOverlap => f.write_str("eigenspace_overlap"),
            Self::SubspaceOverlap { top } => write!(f, "subspace_overlap[top={top}]"),
            Self::Grassmann { top } => write!(f, "grassmann[top={top}]"),
        }
    }
}
