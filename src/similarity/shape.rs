//! The metrics that turn one side onto the other, by name.

use std::fmt;

use burn::tensor::Tensor;
use faer::{Mat, MatRef};

use super::Error;
use super::aligned::{Moments, mean_cosine};
use super::axes::Basis;
use super::metric::{Change, Facts, Family, Options, is_share};
use super::procrustes::{self, Procrustes, Side, angle, unscaled};
use super::relative::{self, Nearby};
use super::whiten::{Score, White, Whitening, whitened};

/// Metrics of what is left between two sides when one has been turned onto the other.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Shape {
    /// [`procrustes`](super::procrustes()): `procrustes[distance,centred]`; also `squared`, `angular`,
    /// `disparity`, `raw`, and `uncentred`.
    Procrustes {
        /// What is reported.
        form: Procrustes,
        /// Whether the columns lose their means first.
        centre: bool,
    },
    /// [`shape_distance`]: `shape[alpha=1,score=angular,whiten=mixed]`.
    Linear {
        /// How much of the shape of each cloud stays: 1 all, 0 none (whitened).
        alpha: f64,
        /// What is reported.
        score: Score,
        /// What lies between 0 and 1.
        whiten: Whitening,
    },
    /// [`nbs`](super::nbs): `nbs[linear]`, `nbs[rbf,sigma=0.5*median]`.
    Nbs {
        /// The kernel of the rows.
        kernel: NbsKernel,
    },
    /// [`aligned_cosine`](super::aligned_cosine()): `aligned_cosine`.
    AlignedCosine,
    /// [`frechet_distance`](super::frechet_distance): `frechet`.
    Frechet,
    /// [`relative`](super::relative()) spaces compared row by row: `relative[anchors=16,by=cosine]`.
    Relative {
        /// How many anchors: the first rows, which stay among the rows compared.
        anchors: usize,
        /// How near a row is to an anchor.
        by: Nearby,
    },
}

/// The kernel of which [`Shape::Nbs`] takes the fidelity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NbsKernel {
    /// Products of centred rows.
    Linear,
    /// `exp(-|u - v|² / (2 σ²))`, centred.
    Rbf {
        /// `σ` in medians of the distances of all `n²` pairs of rows, above 0.
        median: f64,
    },
}

/// What a shape metric keeps of one representation.
#[derive(Clone, Debug)]
pub(super) enum Kept {
    Side(Side),
    White(Side, White),
    Moments(Moments),
    /// Rows of length 1, `[n, anchors]`.
    Relative(Mat<f64>),
}

const FORMS: [(&str, Procrustes); 5] = [
    ("distance", Procrustes::Distance),
    ("squared", Procrustes::Squared),
    ("angular", Procrustes::Angular),
    ("disparity", Procrustes::Disparity),
    ("raw", Procrustes::Raw),
];
const CENTRES: [(&str, bool); 2] = [("centred", true), ("uncentred", false)];
const SCORES: [(&str, Score); 2] = [("angular", Score::Angular), ("euclidean", Score::Euclidean)];
const WHITENINGS: [(&str, Whitening); 2] =
    [("mixed", Whitening::Mixed), ("power", Whitening::Power)];

fn named<V: PartialEq>(choices: &[(&'static str, V)], value: V) -> &'static str {
    choices.iter().find(|c| c.1 == value).expect("a choice").0
}

impl NbsKernel {
    fn parse(options: &mut Options<'_>) -> Option<Self> {
        match options.word(&[("linear", false), ("rbf", true)]) {
            false => Some(Self::Linear),
            true => {
                let text = options.value("sigma").unwrap_or("0.5*median");
                let median = match text.strip_suffix("median")? {
                    "" => 1.0,
                    factor => factor.strip_suffix('*')?.parse().ok()?,
                };
                Some(Self::Rbf { median })
            }
        }
    }

    fn is_valid(self) -> bool {
        match self {
            Self::Linear => true,
            Self::Rbf { median } => median > 0.0 && median.is_finite(),
        }
    }
}

impl Family for Shape {
    const NAMES: &'static [&'static str] = &[
        "procrustes[distance,centred]",
        "shape[alpha=1,score=angular,whiten=mixed]",
        "nbs[linear]",
        "aligned_cosine",
        "frechet",
        "relative[anchors=16,by=cosine]",
    ];
    type Kept = Kept;

    fn parse(name: &str, options: &mut Options<'_>) -> Option<Self> {
        let found = match name {
            "procrustes" => Self::Procrustes {
                form: options.word(&FORMS),
                centre: options.word(&CENTRES),
            },
            "shape" => Self::Linear {
                alpha: options.number("alpha", 1.0, |_| true)?,
                score: options.choose("score", &SCORES)?,
                whiten: options.choose("whiten", &WHITENINGS)?,
            },
            "nbs" => Self::Nbs {
                kernel: NbsKernel::parse(options)?,
            },
            "aligned_cosine" => Self::AlignedCosine,
            "frechet" => Self::Frechet,
            "relative" => Self::Relative {
                anchors: options.number("anchors", 16, |_| true)?,
                by: options.choose("by", &relative::NAMES)?,
            },
            _ => return None,
        };
        Some(found).filter(|metric| metric.is_valid())
    }

    fn facts(self) -> Facts {
        use Change::{Invertible, Rotation, Scale, Shift};
        match self {
            Self::Procrustes { form, centre } => Facts::distance(
                match (form, centre) {
                    (Procrustes::Raw, true) => &[Rotation, Shift],
                    (Procrustes::Raw, false) => &[Rotation],
                    (_, true) => &[Rotation, Scale, Shift],
                    (_, false) => &[Rotation, Scale],
                },
                3,
            ),
            Self::Linear {
                alpha,
                score,
                whiten,
            } => Facts::distance(
                match score {
                    Score::Euclidean => &[Rotation, Shift],
                    Score::Angular if alpha == 0.0 => &[Invertible, Shift],
                    Score::Angular if alpha == 1.0 || whiten == Whitening::Power => {
                        &[Rotation, Scale, Shift]
                    }
                    Score::Angular => &[Rotation, Shift],
                },
                3,
            ),
            Self::Nbs { .. } => Facts::similarity(&[Rotation, Scale, Shift], 3),
            Self::AlignedCosine => Facts::similarity(&[Rotation, Scale], 3),
            Self::Frechet => Facts {
                equal_widths: true,
                pairs_rows: false,
                ..Facts::distance(&[], 2)
            },
            Self::Relative { anchors, by } => Facts {
                rows_in_order: true,
                ..Facts::similarity(by.blind_to(), anchors + 1)
            },
        }
    }

    fn is_valid(self) -> bool {
        match self {
            Self::Linear { alpha, .. } => alpha == 0.0 || is_share(&alpha),
            Self::Nbs { kernel } => kernel.is_valid(),
            Self::Relative { anchors, .. } => anchors > 0,
            _ => true,
        }
    }

    async fn prepare(self, x: &Tensor<2>) -> Result<Kept, Error> {
        Ok(match self {
            Self::Procrustes { centre, .. } => Kept::Side(Side::prepare(x, centre).await?),
            Self::Linear { alpha, whiten, .. } if alpha < 1.0 => {
                let (side, white) = whitened(x, alpha, whiten).await?;
                Kept::White(side, white)
            }
            Self::Linear { .. } => Kept::Side(Side::prepare(x, true).await?),
            Self::Nbs { kernel } => Kept::Side(match kernel {
                NbsKernel::Linear => Side::prepare(x, true).await?,
                NbsKernel::Rbf { median } => Side::of_kernel(x, median).await?,
            }),
            Self::AlignedCosine => Kept::Side(Side::prepare(x, false).await?),
            Self::Frechet => Kept::Moments(Moments::prepare(x).await?),
            Self::Relative { anchors, by } => {
                Kept::Relative(relative::unit_rows(x, anchors, by).await?)
            }
        })
    }

    async fn compare(self, a: &Kept, b: &Kept) -> Result<f64, Error> {
        match (a, b) {
            (Kept::Side(a), Kept::Side(b)) if self == Self::AlignedCosine => mean_cosine(a, b),
            (Kept::Side(a), Kept::Side(b)) => Ok(self.of_gap(a.gap(b)?, [a.length(), b.length()])),
            (Kept::White(side, white), Kept::White(other, its)) => {
                let lengths = [
                    side.length() * self.restore(white, its),
                    other.length() * self.restore(its, white),
                ];
                Ok(self.of_gap(side.gap(other)?, lengths))
            }
            (Kept::Moments(a), Kept::Moments(b)) => a.apart(b),
            (Kept::Relative(a), Kept::Relative(b)) => Ok(relative::mean_cosine(a, b)),
            _ => unreachable!("the kind kept follows from the metric"),
        }
    }

    fn reordered(kept: &Kept, order: &[usize]) -> Option<Kept> {
        match kept {
            Kept::Side(side) => Some(Kept::Side(side.reordered(order))),
            Kept::White(side, white) => Some(Kept::White(side.reordered(order), white.clone())),
            Kept::Moments(moments) => Some(Kept::Moments(moments.clone())),
            // The anchors are rows by their place.
            Kept::Relative(_) => None,
        }
    }
}

impl Shape {
    /// The metric from what is left of two sides when their rows are gone: the two spectra, and the
    /// products `Zxᵀ Zy` of their scores. Between sides that nearly agree it has fewer digits than with
    /// the rows. An error for a metric that needs them: aligned cosine, the Fréchet distance (which needs
    /// the means), kernels, anchors.
    pub(super) fn value(self, a: &Basis, b: &Basis, cross: MatRef<'_, f64>) -> Result<f64, Error> {
        let (alpha, by) = match self {
            Self::Procrustes { .. }
            | Self::Nbs {
                kernel: NbsKernel::Linear,
            } => (1.0, Whitening::Mixed),
            Self::Linear { alpha, whiten, .. } => (alpha, whiten),
            _ => {
                return Err(Error::Undefined {
                    why: "the metric needs the rows themselves",
                });
            }
        };
        let [white, its] = [a, b].map(|side| White::new(&side.s, side.d, alpha, by));
        let squared = [(a, &white), (b, &its)].map(|(side, white)| {
            let each = side.s.iter().zip(&white.factors);
            each.map(|(s, f)| (s * f).powi(2)).sum::<f64>()
        });
        let scaled = Mat::from_fn(cross.nrows(), cross.ncols(), |i, j| {
            cross[(i, j)] * white.factors[i] * its.factors[j]
        });
        let lengths = [
            squared[0].sqrt() * self.restore(&white, &its),
            squared[1].sqrt() * self.restore(&its, &white),
        ];
        Ok(self.of_gap(procrustes::gap(scaled.as_ref(), squared)?, lengths))
    }

    /// What restores the variance of one side beside another, to whose width it is padded.
    fn restore(self, white: &White, beside: &White) -> f64 {
        match self {
            Self::Linear { alpha, whiten, .. } if alpha < 1.0 => {
                white.restore(beside.d, alpha, whiten)
            }
            _ => 1.0,
        }
    }

    /// From the squared gap of the sides at norm 1, and their norms.
    fn of_gap(self, gap: f64, lengths: [f64; 2]) -> f64 {
        match self {
            Self::Procrustes { form, .. } => form.value(gap, lengths),
            Self::Linear { score, .. } => match score {
                Score::Angular => angle(gap),
                Score::Euclidean => unscaled(gap, lengths).sqrt(),
            },
            _ => 1.0 - gap / 2.0,
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Procrustes { form, centre } => {
                let (form, centre) = (named(&FORMS, form), named(&CENTRES, centre));
                write!(f, "procrustes[{form},{centre}]")
            }
            Self::Linear {
                alpha,
                score,
                whiten,
            } => {
                let (score, whiten) = (named(&SCORES, score), named(&WHITENINGS, whiten));
                write!(f, "shape[alpha={alpha},score={score},whiten={whiten}]")
            }
            Self::Nbs { kernel } => match kernel {
                NbsKernel::Linear => f.write_str("nbs[linear]"),
                NbsKernel::Rbf { median } => write!(f, "nbs[rbf,sigma={median}*median]"),
            },
            Self::AlignedCosine => f.write_str("aligned_cosine"),
            Self::Frechet => f.write_str("frechet"),
            Self::Relative { anchors, by } => {
                write!(
                    f,
                    "relative[anchors={anchors},by={}]",
                    named(&relative::NAMES, by)
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;
    use crate::device::block_on;
    use crate::similarity::Metric;
    use crate::similarity::axes::Axes;

    /// Spectra and products alone give what the rows give.
    #[test]
    fn second_moments_are_enough_where_it_says_so() {
        let device = Device::cpu();
        let wave = |n: usize, d: usize, f: f32| {
            let values: Vec<f32> = (0..n * d)
                .map(|at| ((at / d * (at / d) + 3 * at) as f32 * f).sin() + (at % d) as f32)
                .collect();
            let data = burn::tensor::TensorData::new(values, [n, d]);
            Tensor::<2>::from_data(data, device.tensor())
        };
        let (x, y) = (wave(40, 5, 0.37), wave(40, 7, 0.21));
        let axes = |x: &Tensor<2>| block_on(Axes::prepare(x, true)).unwrap();
        let (a, b) = (axes(&x), axes(&y));
        let cross = a.cross(&b);
        for name in [
            "procrustes",
            "procrustes[raw]",
            "nbs",
            "shape[alpha=1,score=euclidean]",
            "shape[alpha=0.3,score=euclidean]",
            "shape[alpha=0.3]",
            "shape[alpha=0,score=euclidean,whiten=power]",
            "frechet",
        ] {
            let Ok(Metric::Shape(metric)) = name.parse() else {
                panic!("{name}")
            };
            let found = metric.value(&a.basis, &b.basis, cross.as_ref());
            if name == "frechet" {
                assert!(found.unwrap_err().to_string().contains("rows themselves"));
                continue;
            }
            let rows = Metric::from(metric).compare(&x, &y).unwrap();
            assert!((found.unwrap() / rows - 1.0).abs() < 1e-9, "{name}: {rows}");
        }
    }
}
