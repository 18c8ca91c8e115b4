//! One space read in another: an orthogonal map learnt from pairs, and how often it finds the partner.

use burn::tensor::{DType, FloatDType, Tensor};
use faer::Mat;

use super::axes::scaled_rows;
use super::host::{Real, Rows, beside, map_chunks, working};
use super::procrustes::{Side, inner, rotation};
use super::{Error, Nearby, relative};
use crate::device::{self, block_on};

/// A map from one space to another that shifts, turns and scales, and does nothing else; see [`align`].
#[derive(Clone, Debug)]
pub struct Alignment {
    from: Vec<f64>,
    to: Vec<f64>,
    /// `[dx, dy]`, the scale in it.
    turn: Mat<f64>,
}

impl Alignment {
    /// Rows `[n, dx]` of the first space in the second, `[n, dy]`, on the device and in the precision of
    /// `x`.
    ///
    /// # Panics
    /// If `x` has another width.
    pub fn apply(&self, x: &Tensor<2>) -> Tensor<2> {
        let x = working(x);
        match x.dtype() {
            DType::F64 => self.apply_in::<f64>(x),
            _ => self.apply_in::<f32>(x),
        }
    }

    fn apply_in<T: Real>(&self, x: Tensor<2>) -> Tensor<2> {
        let (dx, dy) = (self.from.len(), self.to.len());
        assert_eq!(x.dims()[1], dx, "Alignment::apply: columns of x");
        let row = |values: &[f64]| {
            let rounded = values.iter().map(|&v| T::rounded(v)).collect();
            beside::<T>(rounded, [1, values.len()], &x)
        };
        let turn = (0..dx * dy).map(|at| T::rounded(self.turn[(at / dy, at % dy)]));
        let turn = beside::<T>(turn.collect(), [dx, dy], &x);
        (x.clone() - row(&self.from)).matmul(turn) + row(&self.to)
    }
}

/// The map by which rows of `x` come closest to their partners in `y`: the means are matched, and about
/// them one rotation (or reflection) and one scale.
///
/// `x` is `[n, dx]`, `y` is `[n, dy]`. From the wider space to the narrower the map is a projection, the
/// other way a placement in a subspace. Fit it on some pairs and judge it on others: with fewer pairs
/// than columns it can bring any two spaces together.
///
/// # Errors
/// Different row counts; fewer than 2 rows; a NaN or infinity; a side whose rows are all equal
/// ([`Error::Undefined`]); the device failing.
///
/// # Cost
/// The product `XᵀY` and its singular vectors, `O(n dx dy + d³)`, on the host in f64.
///
/// # Source
/// Schönemann 1966. Of word embeddings: Xing et al. 2015, Conneau et al. 2018, "Word translation without
/// parallel data"; of images and words: Li, Kementchedjhieva, Fierro & Søgaard 2024, "Do Vision and
/// Language Models Share Concepts? A Vector Space Alignment Study".
///
/// ```
/// use inscape::{Device, similarity::align};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::from_data([[0., 1.], [1., 0.], [2., 3.], [4., 1.]], cpu.tensor());
/// let y = x.clone().matmul(Tensor::from_data([[0.6, -0.8], [0.8, 0.6]], cpu.tensor())) * 2.0 + 1.0;
/// let miss = align(&x, &y)?.apply(&x) - y;
/// assert!(miss.abs().max().into_scalar::<f32>() < 1e-5);
/// # Ok(())
/// # }
/// ```
pub fn align(x: &Tensor<2>, y: &Tensor<2>) -> Result<Alignment, Error> {
    block_on(align_async(x, y))
}

/// [`align`] without blocking.
///
/// # Errors
/// As [`align`].
pub async fn align_async(x: &Tensor<2>, y: &Tensor<2>) -> Result<Alignment, Error> {
    let (left, right) = (x.dims(), y.dims());
    if left[0] != right[0] {
        return Err(Error::RowsDiffer { left, right });
    }
    let (a, from) = centred(x).await.map_err(|e| e.at("left"))?;
    let (b, to) = centred(y).await.map_err(|e| e.at("right"))?;
    let cross = a.cross(&b);
    let turn = rotation(cross.as_ref())?;
    let scale = inner(&turn, &cross) / a.squared * b.unit / a.unit;
    let turn = Mat::from_fn(turn.nrows(), turn.ncols(), |i, j| turn[(i, j)] * scale);
    Ok(Alignment { from, to, turn })
}

async fn centred(x: &Tensor<2>) -> Result<(Side, Vec<f64>), Error> {
    let (rows, unit) = scaled_rows(x).await?;
    let mean = rows.column_means().iter().map(|m| m * unit).collect();
    Ok((Side::of(&rows, true, unit)?, mean))
}

/// Share of `queries`, `[q, d]`, that have their partner among the `k` rows of `candidates`, `[n, d]`,
/// of the largest cosine.
///
/// `partners[i]` is the row of `candidates` that belongs to query `i`. By chance it is `k / n`. Of equal
/// cosines the lower row comes first; a row of zeros has cosine 0 with everything.
///
/// # Errors
/// A NaN or infinity; the device failing.
///
/// # Panics
/// If the columns differ, or `partners` has another length or names no row.
///
/// # Cost
/// `q n d` multiply-adds on the device, 1,024 queries at a time.
///
/// # Source
/// Precision at k as in bilingual lexicon induction (Conneau et al. 2018), by plain cosine.
///
/// ```
/// use inscape::{Device, similarity::precision_at_k};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let words = Tensor::<2>::from_data([[1., 0.], [0., 1.], [-1., 0.]], cpu.tensor());
/// let images = Tensor::<2>::from_data([[0.9, 0.1], [0.8, 0.7]], cpu.tensor());
/// assert_eq!(precision_at_k(&images, &words, &[0, 1], 1)?, 0.5);
/// assert_eq!(precision_at_k(&images, &words, &[0, 1], 2)?, 1.0);
/// # Ok(())
/// # }
/// ```
pub fn precision_at_k(
    queries: &Tensor<2>,
    candidates: &Tensor<2>,
    partners: &[usize],
    k: usize,
) -> Result<f64, Error> {
    block_on(precision_at_k_async(queries, candidates, partners, k))
}

/// [`precision_at_k`] without blocking.
///
/// # Errors
/// As [`precision_at_k`].
///
/// # Panics
/// As [`precision_at_k`].
pub async fn precision_at_k_async(
    queries: &Tensor<2>,
    candidates: &Tensor<2>,
    partners: &[usize],
    k: usize,
) -> Result<f64, Error> {
    let ([q, d], [n, wide]) = (queries.dims(), candidates.dims());
    assert!(
        d == wide && partners.len() == q && partners.iter().all(|&p| p < n),
        "precision_at_k: queries {:?}, candidates {:?}, {} partners",
        queries.dims(),
        candidates.dims(),
        partners.len()
    );
    let queries = checked(queries).await.map_err(|e| e.at("left"))?;
    let candidates = checked(candidates).await.map_err(|e| e.at("right"))?;
    let mut found = 0;
    for (start, partners) in (0..q).step_by(TILE).zip(partners.chunks(TILE)) {
        let some = queries.clone().narrow(0, start, partners.len());
        let cosines = relative(&some, &candidates, Nearby::Cosine);
        let cosines = device::read::<f32, 2>(cosines).await?;
        let is_found = |i: usize| rank(&cosines[i * n..(i + 1) * n], partners[i]) < k;
        let hits = map_chunks(partners.len(), 16, |r| r.filter(|&i| is_found(i)).count());
        found += hits.into_iter().sum::<usize>();
    }
    Ok(found as f64 / q as f64)
}

/// In f32, all of it finite, at a scale that no cosine sees.
async fn checked(x: &Tensor<2>) -> Result<Tensor<2>, Error> {
    let x = x.clone().cast(FloatDType::F32);
    Ok(Rows::<f32>::read(x).await?.0)
}

/// Queries looked up together.
const TILE: usize = 1024;

/// How many come before `partner` in falling order.
fn rank(cosines: &[f32], partner: usize) -> usize {
    let own = cosines[partner];
    let ahead = |(j, &c): (usize, &f32)| c > own || (c == own && j < partner);
    cosines.iter().enumerate().filter(|&c| ahead(c)).count()
}
