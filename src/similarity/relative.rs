//! Relative representations: each row by how near it is to a few anchors.

use burn::tensor::{DType, Tensor};
use faer::Mat;

use super::Error;
use super::axes::wide_rows;
use super::host::{Rows, working};
use super::metric::Change;
use super::procrustes::inner;

/// How near a row is to an anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Nearby {
    /// Cosine: blind to rotation and to a scale for each row.
    Cosine,
    /// Euclidean distance: blind to rotation and shift.
    Euclidean,
    /// Sum of absolute differences: blind to shift, to the order and the signs of the columns.
    L1,
    /// Largest absolute difference: blind to what `L1` is blind to.
    LInf,
}

/// How several relative spaces become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Join {
    /// Side by side, `[n, spaces * anchors]`.
    Concatenate,
    /// Added, `[n, anchors]`.
    Sum,
    /// The largest at each anchor, `[n, anchors]`.
    Max,
}

pub(super) const NAMES: [(&str, Nearby); 4] = [
    ("cosine", Nearby::Cosine),
    ("euclidean", Nearby::Euclidean),
    ("l1", Nearby::L1),
    ("linf", Nearby::LInf),
];

impl Nearby {
    /// Changes of `x` and its anchors alike that leave the cosines of relative rows as they are.
    pub(super) fn blind_to(self) -> &'static [Change] {
        use Change::{Permutation, Rotation, RowScale, Scale, Shift};
        match self {
            Self::Cosine => &[Rotation, RowScale],
            Self::Euclidean => &[Rotation, Scale, Shift],
            Self::L1 | Self::LInf => &[Permutation, Scale, Shift],
        }
    }
}

/// Each row of `x`, `[n, d]`, as its nearness to each row of `anchors`, `[a, d]`: `[n, a]`.
///
/// The anchors are encoded by the same network as `x`: two networks that differ by a rotation, a shift
/// or a scale, whatever `by` is blind to, then give the same relative rows, and what was trained on one
/// reads the other. Distances are as they are, not turned into similarities. A row of zeros has cosine
/// 0 with everything. Differentiable; a row that is its own anchor gets no gradient of its distance.
///
/// # Panics
/// If the columns differ or there is no anchor.
///
/// # Cost
/// One product for the cosine; for the others a pass over `x` for each anchor. Memory: `[n, a]` and a
/// few `[n, d]`.
///
/// # Source
/// Moschella et al. 2023, "Relative representations enable zero-shot latent space communication" (the
/// cosine); Cannistraci et al. 2024, "From Bricks to Bridges" (the distances).
///
/// ```
/// use inscape::{Device, similarity::{Nearby, relative}};
/// use burn::tensor::{Tensor, TensorData};
///
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::from_data([[0., 2.], [1., 0.], [3., 4.]], cpu.tensor());
/// let anchors = x.clone().slice([0..2]);
/// let distances = relative(&x, &anchors, Nearby::L1);
/// assert_eq!(distances.dims(), [3, 2]);
/// assert_eq!(distances.to_data(), TensorData::from([[0.0f32, 3.0], [3.0, 0.0], [5.0, 6.0]]));
/// ```
pub fn relative(x: &Tensor<2>, anchors: &Tensor<2>, by: Nearby) -> Tensor<2> {
    let ([_, d], [a, wide]) = (x.dims(), anchors.dims());
    assert!(
        d == wide && a > 0,
        "relative: rows {:?}, anchors {:?}",
        x.dims(),
        anchors.dims()
    );
    if by == Nearby::Cosine {
        return unit(x).matmul(unit(anchors).transpose());
    }
    let column = |at: usize| {
        let difference = x.clone() - anchors.clone().narrow(0, at, 1);
        match by {
            Nearby::L1 => difference.abs().sum_dim(1),
            Nearby::LInf => difference.abs().max_dim(1),
            _ => root(difference.powf_scalar(2.0).sum_dim(1)),
        }
    };
    Tensor::cat((0..a).map(column).collect(), 1)
}

/// A root whose gradient is 0 at 0.
fn root(x: Tensor<2>) -> Tensor<2> {
    x.clamp_min(1e-24).sqrt()
}

/// Rows of length 1, rows of zeros as they are.
fn unit(x: &Tensor<2>) -> Tensor<2> {
    x.clone() / root(x.clone().powf_scalar(2.0).sum_dim(1))
}

/// Several relative spaces of the same rows and anchors, joined: a space that is blind to what any of
/// them is blind to, as far as the reader of it learns which to trust.
///
/// `x` is `[n, d]`, `anchors` `[a, d]`; the result is `[n, spaces * a]` for [`Join::Concatenate`], else
/// `[n, a]`. The rows of each space are first brought to mean 0 and variance 1 over the anchors, so that
/// a distance of large numbers does not drown a cosine. That takes the scale out of the distances.
///
/// # Panics
/// As [`relative`], and if `by` is empty.
///
/// # Cost
/// As [`relative`], for each of `by`.
///
/// # Source
/// Cannistraci et al. 2024, "From Bricks to Bridges: Product of Invariances to Enhance Latent Space
/// Communication". Theirs puts a small trained layer before the sum; here nothing is trained.
///
/// ```
/// use inscape::{Device, similarity::{Join, Nearby, relative_product}};
/// use burn::tensor::Tensor;
///
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::from_data([[0., 2.], [1., 0.], [3., 4.]], cpu.tensor());
/// let by = [Nearby::Cosine, Nearby::Euclidean];
/// assert_eq!(relative_product(&x, &x, &by, Join::Concatenate).dims(), [3, 6]);
/// ```
pub fn relative_product(
    x: &Tensor<2>,
    anchors: &Tensor<2>,
    by: &[Nearby],
    join: Join,
) -> Tensor<2> {
    let spaces = by.iter().map(|&by| standard(relative(x, anchors, by)));
    match join {
        Join::Concatenate => Tensor::cat(spaces.collect(), 1),
        Join::Sum => spaces.reduce(Tensor::add).expect("a space"),
        Join::Max => spaces.reduce(Tensor::max_pair).expect("a space"),
    }
}

/// Rows of mean 0 and variance 1; a row of equal values is 0.
fn standard(x: Tensor<2>) -> Tensor<2> {
    let centred = x.clone() - x.mean_dim(1);
    let variance = centred.clone().powf_scalar(2.0).mean_dim(1);
    centred / root(variance)
}

/// Zero-shot stitching: every encoder with every head, though they never met in training.
///
/// `encoded[i]` is what encoder `i` makes of the inputs, `[n, d]`; `heads[j]` is what was trained on
/// encoder `j`; `score` judges a head's output. `table[i][j]` is the score of encoder `i` with head
/// `j`; the diagonal has those that were trained together.
///
/// # Cost
/// Every head run on every encoding.
///
/// # Source
/// Moschella et al. 2023, section 5.
///
/// ```
/// use inscape::{Device, similarity::stitched};
/// use burn::tensor::Tensor;
///
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::ones([4, 3], cpu.tensor());
/// let heads = [1.0, 2.0].map(|by| move |x: Tensor<2>| x * by);
/// let table = stitched(&[x.clone(), x * 5.0], &heads, |y| f64::from(y.clone().max().into_scalar::<f32>()));
/// assert_eq!(table, [[1.0, 2.0], [5.0, 10.0]]);
/// ```
pub fn stitched(
    encoded: &[Tensor<2>],
    heads: &[impl Fn(Tensor<2>) -> Tensor<2>],
    score: impl Fn(&Tensor<2>) -> f64,
) -> Vec<Vec<f64>> {
    let row = |x: &Tensor<2>| heads.iter().map(|head| score(&head(x.clone()))).collect();
    encoded.iter().map(row).collect()
}

/// The relative rows of `x` to its first rows, each of length 1; rows of distances, which are all above
/// 0, lose their means first.
pub(super) async fn unit_rows(
    x: &Tensor<2>,
    anchors: usize,
    by: Nearby,
) -> Result<Mat<f64>, Error> {
    let x = match x.dtype() {
        DType::F64 => Rows::<f64>::read(x.clone()).await?.0,
        _ => Rows::<f32>::read(working(x)).await?.0,
    };
    let anchors = x.clone().narrow(0, 0, anchors);
    let rows = wide_rows(&relative(&x, &anchors, by)).await?;
    let mean = |row: &[f64]| match by {
        Nearby::Cosine => 0.0,
        _ => row.iter().sum::<f64>() / row.len() as f64,
    };
    let shift = rows.map(mean);
    let length = |i: usize| {
        let squares = rows.row(i).iter().map(|v| (v - shift[i]).powi(2));
        squares.sum::<f64>().sqrt()
    };
    let lengths: Vec<f64> = (0..rows.n).map(length).collect();
    if lengths
        .iter()
        .zip(&shift)
        .any(|(l, s)| *l <= 1e-7 * s.abs())
    {
        return Err(Error::Undefined {
            why: "a row is as near to one anchor as to any other",
        });
    }
    let entry = |i: usize, j: usize| (rows.row(i)[j] - shift[i]) / lengths[i];
    Ok(Mat::from_fn(rows.n, rows.d, entry))
}

/// Mean product of the rows.
pub(super) fn mean_cosine(a: &Mat<f64>, b: &Mat<f64>) -> f64 {
    (inner(a, b) / a.nrows() as f64).clamp(-1.0, 1.0)
}
