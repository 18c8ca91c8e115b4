use std::f64::consts::{FRAC_PI_2, PI};

use serde::{Deserialize, Serialize};

use super::{Error, Matrix, Principal, at_least, differ};

/// How far a plane's two coordinates can be made independent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Separability {
    /// Least mutual information, in bits.
    pub index: f64,
    /// The rotation that has it, in radians.
    pub angle: f64,
}

/// How often points lie near one line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mixture {
    /// Largest share of points near a line.
    pub index: f64,
    /// The line's normal is `(cos, sin)` of this, in radians.
    pub angle: f64,
    /// Where the line crosses its normal.
    pub offset: f64,
}

/// Bins a coordinate.
const BINS: usize = 10;
/// Rotations tried, over a quarter turn.
const ANGLES: usize = 100;

/// The separability index `S(f) = min_θ I(a; b)` of points `[n, 2]`, with `(a, b)` the points turned
/// by θ: 0 for a feature that is two independent ones, **larger** for one that no rotation takes
/// apart (Engels et al. 2024, definition 3).
///
/// As in the authors' code, the mutual information is that of a histogram of 10 × 10 bins between
/// the extremes, in bits, least over 100 angles; a quarter turn holds them all, since more only
/// swaps and mirrors the axes. A histogram of `n` points overstates it by about 81 / (2 n ln 2)
/// bits: compare clusters at equal `n`.
///
/// # Errors
/// [`Error::TooFew`] for fewer than two points; [`Error::Undefined`] for points on an axis-parallel
/// line.
///
/// # Panics
/// Unless there are two columns.
///
/// # Cost
/// `O(100 n)`.
pub fn separability_index(plane: &Matrix) -> Result<Separability, Error> {
    check("the separability index", plane)?;
    let of_angle = |step: usize| {
        let angle = FRAC_PI_2 * step as f64 / ANGLES as f64;
        let index = histogram_information(plane, angle);
        Separability { index, angle }
    };
    let least = (0..ANGLES)
        .map(of_angle)
        .min_by(|a, b| a.index.total_cmp(&b.index));
    Ok(least.expect("there are angles"))
}

fn check(measure: &'static str, plane: &Matrix) -> Result<(), Error> {
    assert_eq!(plane.columns(), 2, "{measure}: points of a plane");
    at_least(measure, "points", 2, plane.rows())?;
    differ(measure, plane)
}

/// Mutual information in bits of the two coordinates after a rotation.
fn histogram_information(plane: &Matrix, angle: f64) -> f64 {
    let (sin, cos) = angle.sin_cos();
    let a: Vec<f64> = plane.each_row().map(|p| cos * p[0] + sin * p[1]).collect();
    let b: Vec<f64> = plane.each_row().map(|p| cos * p[1] - sin * p[0]).collect();
    let (a, b) = (bins(&a), bins(&b));
    let mut joint = [[0.0; BINS]; BINS];
    let share = 1.0 / a.len() as f64;
    a.iter().zip(&b).for_each(|(a, b)| joint[*a][*b] += share);
    let of_a = joint.map(|row| row.iter().sum::<f64>());
    let of_b = |j: usize| joint.iter().map(|row| row[j]).sum::<f64>();
    let of_b: Vec<f64> = (0..BINS).map(of_b).collect();
    let cells = (0..BINS * BINS).map(|at| (at / BINS, at % BINS));
    cells
        .filter(|&(i, j)| joint[i][j] > 0.0)
        .map(|(i, j)| joint[i][j] * (joint[i][j] / (of_a[i] * of_b[j])).log2())
        .sum()
}

/// The bin of each value, in equal steps from the least to the largest.
fn bins(values: &[f64]) -> Vec<usize> {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let width = (high - low).max(f64::MIN_POSITIVE);
    let bin = |v: &f64| ((v - low) / width * BINS as f64) as usize;
    values.iter().map(|v| bin(v).min(BINS - 1)).collect()
}

/// Directions tried, over half a turn.
const NORMALS: usize = 360;

/// The ε-mixture index `M_ε(f) = max_{v, c} P(|v · f + c| < ε √E[(v · f + c)²])` of points `[n, 2]`:
/// near 1 for a feature of which one part is mostly absent, **small** for one that is always all
/// there (Engels et al. 2024, definition 3, with ε = 0.1).
///
/// The authors climb by gradient; here, for each of 360 directions `v`, the best `c` is found
/// exactly. A best strip can be moved until its edge meets a point, so only the strips that begin at
/// a point are tried. Strips are closed, which is the supremum.
///
/// # Errors
/// [`Error::TooFew`] for fewer than two points; [`Error::Undefined`] for points that are all the
/// same; [`Error::Setting`] unless ε is between 0 and 1.
///
/// # Panics
/// Unless there are two columns.
///
/// # Cost
/// `O(360 n log n)`.
pub fn mixture_index(plane: &Matrix, epsilon: f64) -> Result<Mixture, Error> {
    check("the mixture index", plane)?;
    if !(epsilon > 0.0 && epsilon < 1.0) {
        return Err(Error::Setting {
            name: "epsilon",
            value: epsilon,
            reason: "it must lie between 0 and 1",
        });
    }
    let of_angle = |step: usize| {
        let angle = PI * step as f64 / NORMALS as f64;
        let (sin, cos) = angle.sin_cos();
        let z = plane.each_row().map(|p| cos * p[0] + sin * p[1]);
        let (index, offset) = best_strip(z.collect(), epsilon);
        Mixture {
            index,
            angle,
            offset,
        }
    };
    let most = (0..NORMALS)
        .map(of_angle)
        .max_by(|a, b| a.index.total_cmp(&b.index));
    Ok(most.expect("there are directions"))
}

/// The largest share of `z` in `m ± ε √(s² + (m − μ)²)` over all `m`, with s², μ the variance and
/// mean of `z`; and that `m`.
fn best_strip(mut z: Vec<f64>, epsilon: f64) -> (f64, f64) {
    z.sort_by(f64::total_cmp);
    let n = z.len() as f64;
    let mean = z.iter().sum::<f64>() / n;
    let variance = z.iter().map(|z| (z - mean).powi(2)).sum::<f64>() / n;
    let half_width = |m: f64| epsilon * (variance + (m - mean).powi(2)).sqrt();
    let (mut most, mut at) = (0, mean);
    for (i, &edge) in z.iter().enumerate() {
        // m − half_width(m) = edge: of the two roots of a quadratic, that right of the edge.
        let (e2, from) = (epsilon * epsilon, edge - mean);
        let root = (e2 * from * from + (1.0 - e2) * e2 * variance).sqrt();
        let m = mean + (from + root) / (1.0 - e2);
        // Rounding may not cut off the point at the far edge.
        let end = (m + half_width(m)) * (1.0 + 1e-12 * m.signum());
        let inside = z.partition_point(|z| *z <= end) - i;
        if inside > most {
            (most, at) = (inside, m);
        }
    }
    (most as f64 / n, at)
}

/// One plane of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlaneScores {
    /// The plane is spanned by this principal component and the next.
    pub first: usize,
    /// Share of the variance in the plane.
    pub r2: f64,
    /// Small for two independent features.
    pub separability: f64,
    /// Large for a mixture of features that do not occur together.
    pub mixture: f64,
}

impl PlaneScores {
    /// `(1 − mixture) · separability`: large for a plane that neither index takes apart.
    pub fn irreducible(&self) -> f64 {
        (1.0 - self.mixture) * self.separability
    }
}

/// The indices of the planes of neighbouring principal components of a cluster's reconstructions
/// `[n, d]` ([`cluster_reconstructions`](super::cluster_reconstructions)): components 1 and 2, 2 and
/// 3, and so on up to 5, as long as they have variance. An irreducible feature has a plane with a
/// large separability and a small mixture index.
///
/// Engels et al. 2024, section 4, with ε = 0.1.
///
/// # Errors
/// [`Error::TooFew`], [`Error::Undefined`] as for [`Principal::of`], and for rows in one dimension.
pub fn irreducibility(reconstructions: &Matrix) -> Result<Vec<PlaneScores>, Error> {
    let principal = Principal::of(reconstructions)?;
    let floor = 1e-10 * principal.variances[0];
    let dimensions = principal.variances.iter().filter(|v| **v > floor).count();
    at_least("irreducibility", "dimensions", 2, dimensions)?;
    let scores = |first: usize| {
        let plane = principal.project(reconstructions, first, 2);
        Ok(PlaneScores {
            first,
            r2: principal.r2(first, 2),
            separability: separability_index(&plane)?.index,
            mixture: mixture_index(&plane, 0.1)?.index,
        })
    };
    (0..dimensions.min(5) - 1).map(scores).collect()
}
