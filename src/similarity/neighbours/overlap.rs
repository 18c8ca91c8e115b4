//! Metrics of the neighbour lists alone.

use burn::tensor::Tensor;

use super::{Nearness, Neighbours};
use crate::device::block_on;
use crate::similarity::{Error, Prepared};

/// Mean share of the `k` nearest neighbours of each row that two representations have in common.
///
/// `x` is `[n, dx]`, `y` is `[n, dy]`; the result lies in [0, 1], and is about `k / (n - 1)` for
/// unrelated data. A row is not its own neighbour. Of rows equally near, the one with the lower
/// index comes first, so duplicated rows are handled the same on every device. Unchanged by
/// rotation and scale; by a shift only with [`Nearness::Euclidean`].
///
/// # Errors
/// Different row counts; `k` of 0 or fewer than `k + 2` rows; a NaN or infinity; no columns
/// ([`Error::Undefined`]); the device failing.
///
/// # Cost
/// `n² (dx + dy) / 2` multiply-adds on the CPU, where each block of products serves its rows and its
/// columns; twice that on other devices, from which only the `k + 8` best of each row come
/// back. Memory per side, however large `n` is: a normalised copy on the device, a copy on the host
/// while the lists are made, one block of 16 MiB (64 MiB on other devices), 8 bytes (f64: 16) for each
/// of the `k + 8` candidates of a row; afterwards `4 n k` bytes.
///
/// # Source
/// Huh et al. 2024, "The Platonic Representation Hypothesis", appendix A. Deviations: nothing is
/// clamped beforehand; the `k + 8` best by the device's products are put in order in f64, for Euclidean
/// distances from the differences. Equal rows are compared once and share the result, however many
/// they are. Where more than 8 *unequal* rows are as near as the k-th but for f32 rounding, the
/// device's rounding chooses.
///
/// # Example
/// ```
/// use inscape::{Device, similarity::{Nearness, mutual_knn}};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::from_data([[0., 1.], [0., 2.], [9., 0.], [7., 0.]], cpu.tensor());
/// let y = Tensor::<2>::from_data([[1., 0.], [3., 0.], [0., 4.], [0., 5.]], cpu.tensor());
/// assert_eq!(mutual_knn(&x, &y, 1, Nearness::Euclidean)?, 1.0);
/// # Ok(())
/// # }
/// ```
pub fn mutual_knn(x: &Tensor<2>, y: &Tensor<2>, k: usize, by: Nearness) -> Result<f64, Error> {
    block_on(mutual_knn_async(x, y, k, by))
}

/// [`mutual_knn`] without blocking.
///
/// # Errors
/// As [`mutual_knn`].
pub async fn mutual_knn_async(
    x: &Tensor<2>,
    y: &Tensor<2>,
    k: usize,
    by: Nearness,
) -> Result<f64, Error> {
    Prepared::pair(x, y, Neighbours::MutualKnn { k, by }).await
}

/// Mean Jaccard similarity of the `k` nearest neighbours of each row: those that both
/// representations have, of those that either has.
///
/// `x` is `[n, dx]`, `y` is `[n, dy]`; the result lies in [0, 1]. Neighbours, ties and invariances are
/// those of [`mutual_knn`]; a row with `s` common neighbours counts `s / (2k - s)` here, `s / k` there.
///
/// # Errors
/// As [`mutual_knn`].
///
/// # Cost
/// That of [`mutual_knn`].
///
/// # Source
/// Klabunde et al. 2023, "Similarity of neural network models: a survey", section 3.5. The ReSi code
/// takes the first column of `k + 1` for the row itself, which is wrong where rows are equal.
///
/// # Example
/// ```
/// use inscape::{Device, similarity::{Nearness, knn_jaccard}};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::from_data([[0., 1.], [1., 2.], [2., -1.], [4., 1.], [-1., 5.]], cpu.tensor());
/// assert_eq!(knn_jaccard(&x, &(x.clone() * 3.0), 2, Nearness::Cosine)?, 1.0);
/// # Ok(())
/// # }
/// ```
pub fn knn_jaccard(x: &Tensor<2>, y: &Tensor<2>, k: usize, by: Nearness) -> Result<f64, Error> {
    block_on(knn_jaccard_async(x, y, k, by))
}

/// [`knn_jaccard`] without blocking.
///
/// # Errors
/// As [`knn_jaccard`].
pub async fn knn_jaccard_async(
    x: &Tensor<2>,
    y: &Tensor<2>,
    k: usize,
    by: Nearness,
) -> Result<f64, Error> {
    Prepared::pair(x, y, Neighbours::KnnJaccard { k, by }).await
}

/// Mean rank similarity of the `k` nearest neighbours of each row by cosine: common neighbours count the
/// more, the nearer they are and the less their ranks differ.
///
/// `x` is `[n, dx]`, `y` is `[n, dy]`; the result lies in [0, 1]. With ranks from 1, a row whose lists
/// share the set `S` has `Σ_S 2 / ((1 + |r_x - r_y|) (r_x + r_y)) / (1 + 1/2 + … + 1/|S|)`, and 0 if `S`
/// is empty. One common neighbour at rank 1 on both sides is enough for a row to count 1. Neighbours,
/// ties and invariances are those of [`mutual_knn`] by cosine.
///
/// # Errors
/// As [`mutual_knn`].
///
/// # Cost
/// That of [`mutual_knn`].
///
/// # Source
/// Wang et al. 2020, "Towards understanding the instability of network embedding", as in the ReSi code.
///
/// # Example
/// ```
/// use inscape::{Device, similarity::knn_rank};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::from_data([[0., 1.], [1., 2.], [2., -1.], [4., 1.], [-1., 5.]], cpu.tensor());
/// assert_eq!(knn_rank(&x, &(x.clone() * 3.0), 2)?, 1.0);
/// # Ok(())
/// # }
/// ```
pub fn knn_rank(x: &Tensor<2>, y: &Tensor<2>, k: usize) -> Result<f64, Error> {
    block_on(knn_rank_async(x, y, k))
}

/// [`knn_rank`] without blocking.
///
/// # Errors
/// As [`knn_rank`].
pub async fn knn_rank_async(x: &Tensor<2>, y: &Tensor<2>, k: usize) -> Result<f64, Error> {
    Prepared::pair(x, y, Neighbours::KnnRank { k }).await
}

/// Share of the rows that come back: row `i` is, in `x`, among the `k` nearest of one of the `k`
/// nearest it has in `y`.
///
/// `x` is `[n, dx]`, `y` is `[n, dy]`; the result lies in [0, 1]. Not symmetric, and not always 1 for
/// equal sides: a row that is nobody's neighbour never comes back. Unrelated data has about
/// `1 - (1 - k / n)ᵏ`. Neighbours, ties and invariances are those of [`mutual_knn`] by cosine.
///
/// # Errors
/// As [`mutual_knn`].
///
/// # Cost
/// That of [`mutual_knn`], and `k²` look-ups a row.
///
/// # Source
/// The code of Huh et al. 2024, "The Platonic Representation Hypothesis".
///
/// # Example
/// ```
/// use inscape::{Device, similarity::cycle_knn};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::from_data([[0., 1.], [1., 2.], [2., -1.], [4., 1.], [-1., 5.]], cpu.tensor());
/// assert_eq!(cycle_knn(&x, &(x.clone() * 3.0), 2)?, 1.0);
/// # Ok(())
/// # }
/// ```
pub fn cycle_knn(x: &Tensor<2>, y: &Tensor<2>, k: usize) -> Result<f64, Error> {
    block_on(cycle_knn_async(x, y, k))
}

/// [`cycle_knn`] without blocking.
///
/// # Errors
/// As [`cycle_knn`].
pub async fn cycle_knn_async(x: &Tensor<2>, y: &Tensor<2>, k: usize) -> Result<f64, Error> {
    Prepared::pair(x, y, Neighbours::CycleKnn { k }).await
}

/// Mean length of the longest common subsequence of the two lists of the `k` nearest neighbours, nearest
/// first.
///
/// `x` is `[n, dx]`, `y` is `[n, dy]`; the result lies in [0, `k`] and is `k` for equal sides: divide by
/// `k` to compare different `k`. Neighbours, ties and invariances are those of [`mutual_knn`] by cosine.
///
/// # Errors
/// As [`mutual_knn`].
///
/// # Cost
/// That of [`mutual_knn`].
///
/// # Source
/// The code of Huh et al. 2024, "The Platonic Representation Hypothesis".
///
/// # Example
/// ```
/// use inscape::{Device, similarity::lcs_knn};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::from_data([[0., 1.], [1., 2.], [2., -1.], [4., 1.], [-1., 5.]], cpu.tensor());
/// assert_eq!(lcs_knn(&x, &(x.clone() * 3.0), 2)?, 2.0);
/// # Ok(())
/// # }
/// ```
pub fn lcs_knn(x: &Tensor<2>, y: &Tensor<2>, k: usize) -> Result<f64, Error> {
    block_on(lcs_knn_async(x, y, k))
}

/// [`lcs_knn`] without blocking.
///
/// # Errors
/// As [`lcs_knn`].
pub async fn lcs_knn_async(x: &Tensor<2>, y: &Tensor<2>, k: usize) -> Result<f64, Error> {
    Prepared::pair(x, y, Neighbours::LcsKnn { k }).await
}
