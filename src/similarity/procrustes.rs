//! How far two representations are apart once one is turned onto the other.

use burn::tensor::Tensor;
use faer::{Mat, MatRef};

use super::axes::{Axes, gram, no_convergence, scaled_rows};
use super::host::{Rows, chunks_mut};
use super::shape::{NbsKernel, Shape};
use super::{Error, Prepared};
use crate::device::block_on;

/// What is reported of the gap that the best rotation leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Procrustes {
    /// `√(2 - 2 c)`, with `c` the cosine [`nbs`] of the two sides, in 0 to `√2`: a metric.
    Distance,
    /// `2 - 2 c`: the squared gap of the two sides, each of Frobenius norm 1.
    Squared,
    /// `arccos c`, in 0 to `π / 2`: a metric.
    Angular,
    /// `1 - c²`: one side scaled to fit as well, as `scipy.spatial.procrustes` has it.
    Disparity,
    /// `‖X‖² + ‖Y‖² - 2 ‖XᵀY‖_*`: the squared gap of the two sides as they are.
    Raw,
}

/// Below this squared gap the difference of the two sides is formed, where `2 - 2 c` has lost its
/// digits.
const NEAR: f64 = 1e-4;

/// Up to this many columns singular values cost little.
const SMALL: usize = 64;

/// The share of a gap that may be rounding.
const LOST: f64 = 1e-9;

/// A side whose rows are known up to a rotation of the columns.
#[derive(Clone, Debug)]
pub(super) struct Side {
    /// `[n, r]`.
    pub(super) z: Mat<f64>,
    /// `‖z‖²`, above 0.
    pub(super) squared: f64,
    /// What the values of `z` are multiplied by to be in the units of the representation.
    pub(super) unit: f64,
}

impl Side {
    pub(super) fn new(z: Mat<f64>, unit: f64) -> Self {
        let squared = z.squared_norm_l2();
        Self { z, squared, unit }
    }

    /// `x` itself, or its scores where it has fewer rows than columns.
    pub(super) async fn prepare(x: &Tensor<2>, centre: bool) -> Result<Self, Error> {
        let [n, d] = x.dims();
        let (rows, unit) = scaled_rows(x).await?;
        match n < d {
            true => {
                let axes = Axes::of(matrix(&rows, centre))?;
                Ok(Self::new(axes.z().into_owned(), unit))
            }
            false => Self::of(&rows, centre, unit),
        }
    }

    /// The rows as they are, or without their mean.
    pub(super) fn of(rows: &Rows<f64>, centre: bool, unit: f64) -> Result<Self, Error> {
        let side = Self::new(matrix(rows, centre), unit);
        let largest = rows.values.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
        // What rounding of the means leaves of equal rows.
        let nothing = (largest * 1e-15).powi(2) * rows.values.len() as f64;
        match (side.squared > nothing, centre) {
            (true, _) => Ok(side),
            (false, true) => Err(Error::Undefined {
                why: "all its rows are equal",
            }),
            (false, false) => Err(Error::Undefined {
                why: "all its values are 0",
            }),
        }
    }

    /// The root of the Gaussian kernel of the rows of `x`, centred, of width `median` times the median
    /// distance over all `n²` pairs.
    pub(super) async fn of_kernel(x: &Tensor<2>, median: f64) -> Result<Self, Error> {
        let x = matrix(&scaled_rows(x).await?.0, true);
        let n = x.nrows();
        let product = &x * x.transpose();
        let square = |i: usize, j: usize| {
            (product[(i, i)] + product[(j, j)] - 2.0 * product[(i, j)]).max(0.0)
        };
        let mut all: Vec<f64> = (0..n * n).map(|at| square(at / n, at % n)).collect();
        let middle = middle(&mut all);
        drop(all);
        if middle <= product.diagonal().column_vector().max().unwrap_or(0.0) * 1e-14 {
            return Err(Error::Undefined {
                why: "half of its pairs of rows or more are equal",
            });
        }
        let kernel = Mat::from_fn(n, n, |i, j| {
            (-square(i, j) / (2.0 * median * median * middle)).exp()
        });
        let mean: Vec<f64> = (0..n).map(|j| kernel.col(j).sum() / n as f64).collect();
        let total = mean.iter().sum::<f64>() / n as f64;
        let centred = Mat::from_fn(n, n, |i, j| kernel[(i, j)] - mean[i] - mean[j] + total);
        let eigen = centred
            .self_adjoint_eigen(faer::Side::Lower)
            .map_err(|_| no_convergence())?;
        let root = |j: usize| eigen.S()[j].max(0.0).sqrt();
        Ok(Self::new(
            Mat::from_fn(n, n, |i, j| eigen.U()[(i, j)] * root(j)),
            1.0,
        ))
    }

    /// Frobenius norm in the units of the representation.
    pub(super) fn length(&self) -> f64 {
        self.squared.sqrt() * self.unit
    }

    /// The same rows in another order.
    pub(super) fn reordered(&self, order: &[usize]) -> Self {
        let z = Mat::from_fn(order.len(), self.z.ncols(), |i, j| self.z[(order[i], j)]);
        Self::new(z, self.unit)
    }

    pub(super) fn cross(&self, other: &Self) -> Mat<f64> {
        self.z.transpose() * &other.z
    }

    /// The squared gap of the two sides, each scaled to norm 1, after the best rotation: 0 to 2.
    pub(super) fn gap(&self, other: &Self) -> Result<f64, Error> {
        let cross = self.cross(other);
        let far = gap(cross.as_ref(), [self.squared, other.squared])?;
        match far > NEAR {
            true => Ok(far),
            false => self.residual(other, cross.as_ref()),
        }
    }

    /// The same from the difference itself: the narrower side is turned onto the wider.
    fn residual(&self, other: &Self, cross: MatRef<'_, f64>) -> Result<f64, Error> {
        if self.z.ncols() < other.z.ncols() {
            return other.residual(self, cross.transpose());
        }
        let turn = rotation(cross)?;
        let turned = &other.z * turn.transpose();
        let [a, b] = [self, other].map(|side| side.squared.sqrt().recip());
        let difference = |i, j| self.z[(i, j)] * a - turned[(i, j)] * b;
        let apart = Mat::from_fn(turned.nrows(), turned.ncols(), difference);
        Ok(apart.squared_norm_l2())
    }
}

/// As a matrix, with or without its column means.
pub(super) fn matrix(rows: &Rows<f64>, centre: bool) -> Mat<f64> {
    let mean = match centre {
        true => rows.column_means(),
        false => vec![0.0; rows.d],
    };
    let mut x = Mat::zeros(rows.n, rows.d);
    let mut columns: Vec<_> = x.as_mut().col_iter_mut().collect();
    chunks_mut(&mut columns, 64, |c, columns| {
        let first = 64 * c;
        // Few rows at a time, which stay at hand while their columns are written.
        for start in (0..rows.n).step_by(32) {
            for i in start..(start + 32).min(rows.n) {
                let row = rows.row(i)[first..].iter().zip(&mean[first..]);
                let places = columns.iter_mut().zip(row);
                places.for_each(|(column, (v, m))| column[i] = v - m);
            }
        }
    });
    x
}

/// The median of numbers from 0, the mean of the middle two of an even number.
fn middle(values: &mut [f64]) -> f64 {
    let half = values.len() / 2;
    let even = values.len().is_multiple_of(2);
    let (below, &mut upper, _) = values.select_nth_unstable_by(half, f64::total_cmp);
    match even {
        true => (below.iter().copied().fold(0.0, f64::max) + upper) / 2.0,
        false => upper,
    }
}

/// `2 - 2 ‖cross‖_* / √(‖X‖² ‖Y‖²)`, in 0 to 2.
pub(super) fn gap(cross: MatRef<'_, f64>, squared: [f64; 2]) -> Result<f64, Error> {
    let scale = squared[0].sqrt() * squared[1].sqrt();
    let cosines = Mat::from_fn(cross.nrows(), cross.ncols(), |i, j| cross[(i, j)] / scale);
    let gap = |norm: f64| 2.0 - 2.0 * norm.min(1.0);
    if cosines.nrows().min(cosines.ncols()) > SMALL {
        let (norm, error) = nuclear_norm(cosines.as_ref())?;
        if 2.0 * error <= LOST * gap(norm) {
            return Ok(gap(norm));
        }
    }
    let s = cosines.singular_values().map_err(|_| no_convergence())?;
    Ok(gap(s.iter().sum()))
}

/// Sum of the singular values of `a`, through the eigenvalues of `a aᵀ`, which takes a third of the time;
/// and how far it may be off, for the square of a small one is lost in the rounding of large ones.
fn nuclear_norm(a: MatRef<'_, f64>) -> Result<(f64, f64), Error> {
    let product = match a.nrows() <= a.ncols() {
        true => gram(a),
        false => gram(a.transpose()),
    };
    let values = product.self_adjoint_eigenvalues(faer::Side::Lower);
    let values = values.map_err(|_| no_convergence())?;
    let off = 64.0 * f64::EPSILON * values.last().copied().unwrap_or(0.0);
    let (mut norm, mut error) = (0.0, 0.0);
    for value in values {
        let s = value.max(0.0).sqrt();
        norm += s;
        error += (off / s).min(off.sqrt());
    }
    Ok((norm, error))
}

/// The `R` of orthonormal rows or columns for which `tr(Rᵀ cross)` is largest.
pub(super) fn rotation(cross: MatRef<'_, f64>) -> Result<Mat<f64>, Error> {
    let found = cross.thin_svd().map_err(|_| no_convergence())?;
    Ok(found.U() * found.V().transpose())
}

/// Sum of the products of the entries.
pub(super) fn inner(a: &Mat<f64>, b: &Mat<f64>) -> f64 {
    let columns = a.col_iter().zip(b.col_iter());
    columns.map(|(a, b)| a.transpose() * b).sum()
}

/// The angle whose chord is the root of `gap`: `arccos(1 - gap / 2)` without its loss near 0.
pub(super) fn angle(gap: f64) -> f64 {
    2.0 * (gap.sqrt() / 2.0).min(1.0).asin()
}

/// The squared gap of sides of these lengths that leave `gap` when scaled to 1.
pub(super) fn unscaled(gap: f64, [a, b]: [f64; 2]) -> f64 {
    (a - b).powi(2) + a * b * gap
}

impl Procrustes {
    /// From the squared gap at norm 1, and the two lengths.
    pub(super) fn value(self, gap: f64, lengths: [f64; 2]) -> f64 {
        match self {
            Self::Distance => gap.sqrt(),
            Self::Squared => gap,
            Self::Angular => angle(gap),
            Self::Disparity => gap * (1.0 - gap / 4.0),
            Self::Raw => unscaled(gap, lengths),
        }
    }
}

/// Procrustes distance of two representations of the same rows: how far apart they are once each is
/// centred and scaled to Frobenius norm 1, and one is turned (or mirrored) onto the other.
///
/// `x` is `[n, dx]`, `y` is `[n, dy]`; the narrower side counts as if it had columns of zeros. See
/// [`Procrustes`] for what is reported; all but `Raw` come from the one number [`nbs`]. Unchanged by
/// rotation, one scale and a shift of either side; `Raw` sees the scale. Independent data is far apart
/// only if rows are many: 1.16 of at most 1.41 for 200 rows of 64 and 48 columns.
///
/// # Errors
/// Different row counts; fewer than 3 rows; a NaN or infinity; a representation whose rows are all
/// equal ([`Error::Undefined`]); the device failing.
///
/// # Cost
/// The product `XᵀY`, `n dx dy` multiply-adds, and its singular values, `O(d³)`, on the host in f64
/// whatever the tensors are: as roots of eigenvalues, a third of the time, where what squaring can lose is
/// below 1e-9 of the result, else by a decomposition of the product itself. A side of fewer rows than columns is first written in its `n` principal
/// axes. Memory: `8 n d` bytes a side.
///
/// # Source
/// Schönemann 1966, "A generalized solution of the orthogonal Procrustes problem"; Ding, Denain &
/// Steinhardt 2021, "Grounding Representation Similarity Through Statistical Testing" (they report
/// `Squared`); Williams, Kunz, Kornblith & Linderman 2021 (`Angular`). Where the two sides nearly
/// agree, `2 - 2 c` and `arccos c` keep half the digits, so there the rotation is applied and the
/// difference of the sides measured.
///
/// # Example
/// ```
/// use inscape::{Device, similarity::{Procrustes, procrustes}};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::from_data([[0., 1.], [1., 0.], [2., 3.], [4., 1.], [0., 5.]], cpu.tensor());
/// let turned = x.clone().matmul(Tensor::from_data([[0.6, -0.8], [0.8, 0.6]], cpu.tensor()));
/// assert!(procrustes(&x, &(turned * 3.0), Procrustes::Distance)? < 1e-6);
/// # Ok(())
/// # }
/// ```
pub fn procrustes(x: &Tensor<2>, y: &Tensor<2>, form: Procrustes) -> Result<f64, Error> {
    block_on(procrustes_async(x, y, form))
}

/// [`procrustes`] without blocking.
///
/// # Errors
/// As [`procrustes`].
pub async fn procrustes_async(
    x: &Tensor<2>,
    y: &Tensor<2>,
    form: Procrustes,
) -> Result<f64, Error> {
    Prepared::pair(x, y, Shape::Procrustes { form, centre: true }).await
}

/// Normalised Bures similarity (NBS) of two representations of the same rows: `‖XᵀY‖_* / (‖X‖ ‖Y‖)`,
/// the cosine of the two sides once one is turned onto the other.
///
/// `x` is `[n, dx]`, `y` is `[n, dy]`, both centred first; the result lies in 0 to 1. It is the
/// fidelity of the two linear kernels, and the cosine of [`Procrustes::Angular`]. Unchanged by
/// rotation, one scale and a shift of either side. Large by chance: 0.32 for independent data of 200
/// rows of 64 and 48 columns.
///
/// # Errors
/// As [`procrustes`].
///
/// # Cost
/// As [`procrustes`].
///
/// # Source
/// Harvey, Larsen & Williams 2023, "Duality of Bures and Shape Distances with Implications for
/// Comparing Neural Representations". From the product of the features, not of two `n × n` roots,
/// which lose half the digits. `nbs[rbf,sigma=0.5*median]` is the same of Gaussian kernels, by the
/// eigenvectors of each, `O(n³)`; `sigma` in medians of the distances of all `n²` pairs.
///
/// ```
/// use inscape::{Device, similarity::nbs};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::from_data([[0., 1.], [1., 0.], [2., 3.], [4., 1.], [0., 5.]], cpu.tensor());
/// assert!((nbs(&x, &(x.clone() * 2.0 + 1.0))? - 1.0).abs() < 1e-6);
/// # Ok(())
/// # }
/// ```
pub fn nbs(x: &Tensor<2>, y: &Tensor<2>) -> Result<f64, Error> {
    block_on(nbs_async(x, y))
}

/// [`nbs`] without blocking.
///
/// # Errors
/// As [`nbs`].
pub async fn nbs_async(x: &Tensor<2>, y: &Tensor<2>) -> Result<f64, Error> {
    Prepared::pair(
        x,
        y,
        Shape::Nbs {
            kernel: NbsKernel::Linear,
        },
    )
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bound on what squaring loses holds for even spectra, steep ones and matrices of low rank, and
    /// is small for the first.
    #[test]
    fn singular_values_through_squares_are_as_far_off_as_is_said() {
        let wave = |n: usize, d: usize, f: f64| {
            Mat::from_fn(n, d, |i, j| ((i * i + 3 * i * j + 7 * j) as f64 * f).sin())
        };
        let even = wave(150, 200, 0.37);
        let steep = Mat::from_fn(150, 200, |i, j| even[(i, j)] * 0.9f64.powi(i as i32));
        let flat = wave(150, 5, 0.21) * wave(5, 200, 0.77);
        for (name, a, sharp) in [
            ("even", even, true),
            ("steep", steep, false),
            ("flat", flat, false),
        ] {
            for a in [a.as_ref(), a.transpose()] {
                let exact: f64 = a.singular_values().unwrap().iter().sum();
                let (norm, error) = nuclear_norm(a).unwrap();
                assert!(
                    (norm - exact).abs() <= error,
                    "{name}: {norm} for {exact}, {error:e}"
                );
                assert_eq!(error < 1e-10 * exact, sharp, "{name}: {error:e}");
            }
        }
    }

    /// Sides that nearly agree leave a gap in which the bound would be felt: the slow road is taken.
    #[test]
    fn a_small_gap_has_its_digits() {
        let a = Mat::from_fn(200, 100, |i, j| ((i * i + 3 * i * j) as f64 * 0.37).sin());
        let b = Mat::from_fn(200, 100, |i, j| {
            a[(i, j)] + 0.02 * ((i + 5 * j * j) as f64).cos()
        });
        let [a, b] = [a, b].map(|z| Side::new(z, 1.0));
        let cross = a.cross(&b);
        let exact: f64 = cross.singular_values().unwrap().iter().sum();
        let expected = 2.0 - 2.0 * exact / a.squared.sqrt() / b.squared.sqrt();
        assert!((1e-4..1e-2).contains(&expected), "{expected}");
        let found = gap(cross.as_ref(), [a.squared, b.squared]).unwrap();
        assert!((found / expected - 1.0).abs() < 1e-9, "{found} {expected}");
    }
}
