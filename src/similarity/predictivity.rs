//! Predictivity: how much of one representation a linear map of the other gives.

use std::fmt;

use burn::tensor::Tensor;
use faer::{Mat, MatRef};

use super::Error;
use super::axes::{Axes, Basis, Part, centred};
use super::cca::{Side, is_ridge};
use super::metric::{Change, Facts, Family, Options};
use super::regression::{Folds, Mapping, Penalty};

/// Metrics of what one side predicts of the other.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Predictivity {
    /// [`linear_r2`](super::linear_r2()): `linear_r2[target=y]`.
    LinearR2 {
        /// The side that is predicted.
        target: Side,
    },
    /// [`ridge_r2`](super::ridge_r2()): `ridge_r2[lambda=1,target=y]`.
    RidgeR2 {
        /// Penalty; at least 0.
        lambda: f64,
        /// The side that is predicted.
        target: Side,
    },
    /// [`predictivity`](super::predictivity()) as one number:
    /// `ridge_cv[lambda=1,folds=5,score=r2,over=mean,target=y]`, with `lambda=auto` too, and
    /// `pls[components=25,folds=5,score=pearson,over=median,target=y]`.
    CrossValidated {
        /// The map.
        by: Mapping,
        /// Folds; at least 2.
        folds: usize,
        /// What a prediction of one target unit is worth.
        score: Goodness,
        /// How units become one number.
        over: Over,
        /// The side that is predicted.
        target: Side,
    },
}

/// What the prediction of one unit is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Goodness {
    /// 1 less the squared error over the squared deviations from the mean of the rows tested: 1 at best,
    /// negative where the mean would have been better.
    R2,
    /// Pearson correlation; 0 for a prediction that does not vary.
    Pearson,
}

/// How the scores of many units become one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Over {
    /// Their mean.
    Mean,
    /// Their median, as Brain-Goodness has it; of an even count the mean of the middle two.
    Median,
}

const SCORES: [(&str, Goodness); 2] = [("r2", Goodness::R2), ("pearson", Goodness::Pearson)];
const BRAIN: [(&str, Goodness); 2] = [SCORES[1], SCORES[0]];
const OVER: [(&str, Over); 2] = [("mean", Over::Mean), ("median", Over::Median)];
const BRAIN_OVER: [(&str, Over); 2] = [OVER[1], OVER[0]];
const TARGETS: [(&str, Side); 2] = [Side::NAMES[1], Side::NAMES[0]];

/// What is kept of one side: for fits of all rows its axes, for fits of some its rows.
#[derive(Clone, Debug)]
pub(super) enum Kept {
    Axes(Box<Axes>),
    Folds(Box<Folds>),
}

impl Family for Predictivity {
    const NAMES: &'static [&'static str] = &[
        "linear_r2[target=y]",
        "ridge_r2[lambda=1,target=y]",
        "ridge_cv[lambda=1,folds=5,score=r2,over=mean,target=y]",
        "pls[components=25,folds=5,score=pearson,over=median,target=y]",
    ];
    type Kept = Kept;

    fn parse(name: &str, options: &mut Options<'_>) -> Option<Self> {
        let target = options.choose("target", &TARGETS)?;
        Some(match name {
            "linear_r2" => Self::LinearR2 { target },
            "ridge_r2" => Self::RidgeR2 {
                lambda: options.number("lambda", 1.0, is_ridge)?,
                target,
            },
            "ridge_cv" => Self::CrossValidated {
                by: Mapping::Ridge(penalty(options)?),
                folds: folds(options)?,
                score: options.choose("score", &SCORES)?,
                over: options.choose("over", &OVER)?,
                target,
            },
            "pls" => Self::CrossValidated {
                by: Mapping::Pls {
                    components: options.number("components", 25, |c| *c > 0)?,
                },
                folds: folds(options)?,
                score: options.choose("score", &BRAIN)?,
                over: options.choose("over", &BRAIN_OVER)?,
                target,
            },
            _ => return None,
        })
    }

    fn facts(self) -> Facts {
        use Change::{ColumnScale, Permutation, Rotation, Scale, Shift};
        let (blind_to, same, rows): (&[Change], _, _) = match self {
            Self::LinearR2 { .. } => (&[Rotation, Scale, Shift], Some(1.0), 3),
            Self::RidgeR2 { .. } => (&[Rotation, Shift], None, 3),
            Self::CrossValidated {
                by, folds, score, ..
            } => {
                let blind_to: &[Change] = match by {
                    Mapping::Ridge(Penalty::Fixed(0.0)) => &[ColumnScale, Permutation, Shift],
                    Mapping::Ridge(Penalty::Fixed(_)) => &[Permutation, Shift],
                    Mapping::Ridge(Penalty::Auto) | Mapping::Pls { .. } => {
                        &[Permutation, Scale, Shift]
                    }
                };
                (blind_to, None, score.fewest_rows() * folds)
            }
        };
        Facts {
            symmetric: false,
            same,
            rows_in_order: matches!(self, Self::CrossValidated { .. }),
            ..Facts::similarity(blind_to, rows)
        }
    }

    fn is_valid(self) -> bool {
        match self {
            Self::LinearR2 { .. } => true,
            Self::RidgeR2 { lambda, .. } => is_ridge(&lambda),
            Self::CrossValidated { by, folds, .. } => {
                folds >= 2
                    && match by {
                        Mapping::Ridge(Penalty::Fixed(lambda)) => is_ridge(&lambda),
                        Mapping::Ridge(Penalty::Auto) => true,
                        Mapping::Pls { components } => components > 0,
                    }
            }
        }
    }

    async fn prepare(self, x: &Tensor<2>) -> Result<Kept, Error> {
        Ok(match self {
            Self::LinearR2 { .. } => Kept::Axes(Box::new(Axes::prepare(x, true).await?)),
            Self::RidgeR2 { .. } => {
                let turned = centred(x, true).await?;
                Kept::Axes(Box::new(Axes::through(turned, Part::All)?))
            }
            Self::CrossValidated { by, folds, .. } => {
                let units_matter = matches!(by, Mapping::Ridge(Penalty::Fixed(_)));
                let turned = centred(x, units_matter).await?;
                Kept::Folds(Box::new(Folds::new(turned, folds)))
            }
        })
    }

    async fn compare(self, a: &Kept, b: &Kept) -> Result<f64, Error> {
        match (a, b, self) {
            (
                Kept::Folds(a),
                Kept::Folds(b),
                Self::CrossValidated {
                    by,
                    score,
                    over,
                    target,
                    ..
                },
            ) => over.of(match target {
                Side::X => unit_scores(b, a, by, score)?,
                Side::Y => unit_scores(a, b, by, score)?,
            }),
            (Kept::Axes(a), Kept::Axes(b), _) => {
                self.value(&a.basis, &b.basis, a.cross(b).as_ref())
            }
            _ => unreachable!("the kind kept follows from the metric"),
        }
    }

    fn reordered(kept: &Kept, order: &[usize]) -> Option<Kept> {
        Some(match kept {
            Kept::Axes(axes) => Kept::Axes(Box::new(axes.reordered(order))),
            Kept::Folds(folds) => Kept::Folds(Box::new(folds.reordered(order))),
        })
    }
}

fn penalty(options: &mut Options<'_>) -> Option<Penalty> {
    match options.value("lambda") {
        None => Some(Penalty::Fixed(1.0)),
        Some("auto") => Some(Penalty::Auto),
        Some(text) => text.parse().ok().filter(is_ridge).map(Penalty::Fixed),
    }
}

fn folds(options: &mut Options<'_>) -> Option<usize> {
    options.number("folds", 5, |folds| *folds >= 2)
}

impl Predictivity {
    /// The metric from what is left of two sides when their rows are gone: the two spectra, and the
    /// products `Zxᵀ Zy` of their scores. An error for a metric that holds rows out.
    pub(super) fn value(self, a: &Basis, b: &Basis, cross: MatRef<'_, f64>) -> Result<f64, Error> {
        let (lambda, target) = match self {
            Self::LinearR2 { target } => (0.0, target),
            Self::RidgeR2 { lambda, target } => (lambda, target),
            Self::CrossValidated { .. } => {
                return Err(Error::Undefined {
                    why: "the metric needs the rows themselves",
                });
            }
        };
        Ok(match target {
            Side::X => fitted_r2(b, a, cross.transpose(), lambda),
            Side::Y => fitted_r2(a, b, cross, lambda),
        })
    }
}

/// R² of the rows that were fitted.
fn fitted_r2(from: &Basis, to: &Basis, cross: MatRef<'_, f64>, lambda: f64) -> f64 {
    // Of what lies along a direction a share f is predicted, and f (2 - f) of its squares explained.
    let explained = |(i, s): (usize, &f64)| {
        let share = s * s / (s * s + lambda);
        share * (2.0 - share) * cross.row(i).squared_norm_l2() / (s * s)
    };
    from.s.iter().enumerate().map(explained).sum::<f64>() / to.squared
}

impl fmt::Display for Predictivity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LinearR2 { target } => write!(f, "linear_r2[target={target}]"),
            Self::RidgeR2 { lambda, target } => {
                write!(f, "ridge_r2[lambda={lambda},target={target}]")
            }
            Self::CrossValidated {
                by,
                folds,
                score,
                over,
                target,
            } => {
                match by {
                    Mapping::Ridge(Penalty::Fixed(lambda)) => write!(f, "ridge_cv[lambda={lambda}"),
                    Mapping::Ridge(Penalty::Auto) => write!(f, "ridge_cv[lambda=auto"),
                    Mapping::Pls { components } => write!(f, "pls[components={components}"),
                }?;
                let score = SCORES.iter().find(|s| s.1 == *score).map_or("", |s| s.0);
                let over = OVER.iter().find(|o| o.1 == *over).map_or("", |o| o.0);
                write!(
                    f,
                    ",folds={folds},score={score},over={over},target={target}]"
                )
            }
        }
    }
}

impl Goodness {
    /// Fewest rows in which it means something.
    fn fewest_rows(self) -> usize {
        match self {
            Self::R2 => 2,
            Self::Pearson => 3,
        }
    }

    /// The score of one unit; none if `truth` does not vary.
    pub(super) fn of(self, truth: &[f64], predicted: &[f64]) -> Option<f64> {
        let (t, p) = (deviations(truth), deviations(predicted));
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let variance = dot(&t, &t);
        if variance == 0.0 {
            return None;
        }
        Some(match self {
            Self::R2 => {
                let miss = |(t, p): (&f64, &f64)| (t - p).powi(2);
                1.0 - truth.iter().zip(predicted).map(miss).sum::<f64>() / variance
            }
            Self::Pearson if dot(&p, &p) == 0.0 => 0.0,
            Self::Pearson => dot(&t, &p) / (variance.sqrt() * dot(&p, &p).sqrt()),
        })
    }
}

/// Differences from the mean, exactly 0 for equal values.
fn deviations(values: &[f64]) -> Vec<f64> {
    let first = values[0];
    let mean = values.iter().map(|v| v - first).sum::<f64>() / values.len() as f64;
    values.iter().map(|v| v - first - mean).collect()
}

impl Over {
    /// The units that have a score, as one number.
    pub(super) fn of(self, units: impl IntoIterator<Item = Option<f64>>) -> Result<f64, Error> {
        let mut scores: Vec<f64> = units.into_iter().flatten().collect();
        let n = scores.len();
        if n == 0 {
            return Err(Error::Undefined {
                why: "no unit of the target varies",
            });
        }
        Ok(match self {
            Self::Mean => scores.iter().sum::<f64>() / n as f64,
            Self::Median => {
                scores.sort_by(f64::total_cmp);
                (scores[(n - 1) / 2] + scores[n / 2]) / 2.0
            }
        })
    }
}

/// The score of each unit of `to`: the mean over the folds whose test rows it varies in.
pub(super) fn unit_scores(
    from: &Folds,
    to: &Folds,
    by: Mapping,
    score: Goodness,
) -> Result<Vec<Option<f64>>, Error> {
    let mut sums = vec![(0.0, 0u32); to.width()];
    for fold in 0..to.len() {
        let truth = to.split(fold);
        let predicted = from.predictions(fold, &truth, by)?;
        for (unit, (sum, count)) in sums.iter_mut().enumerate() {
            if let Some(score) = of_unit(score, &truth.test, &predicted, unit) {
                *sum += score;
                *count += 1;
            }
        }
    }
    let mean = |(sum, count)| (count > 0).then(|| sum / f64::from(count));
    Ok(sums.into_iter().map(mean).collect())
}

fn of_unit(score: Goodness, truth: &Mat<f64>, predicted: &Mat<f64>, unit: usize) -> Option<f64> {
    let truth: Vec<f64> = truth.row(unit).iter().copied().collect();
    let predicted: Vec<f64> = predicted.col(unit).iter().copied().collect();
    score.of(&truth, &predicted)
}
