//! Second-order cosine: how far a row is from the neighbours it has on either side.

use burn::tensor::{DType, Tensor};

use super::lists::{Lists, mean_of_rows};
use super::space::{inverse_lengths, nearest_rows, squared_distance};
use super::{Nearness, Neighbours};
use crate::device::block_on;
use crate::similarity::host::{Real, Rows, Values, working};
use crate::similarity::{Error, Prepared};

/// Mean over the rows of the cosine between their distances, on either side, to all that are among
/// their `k` nearest on one side.
///
/// `x` is `[n, dx]`, `y` is `[n, dy]`; distances are `1 - cosine`, so that the result lies in [0, 1]
/// and is far above 0 even for unrelated data: compare it with a shuffled pairing. Unchanged by rotation
/// and by scaling each row.
///
/// A row is not its own neighbour. Of rows equally near, the one with the lower index comes first.
/// Equal rows have distance 0 exactly, and a row of zeros has distance 1 to every row. Where all these
/// distances are 0 on one side, the row counts 0; on both sides, 1.
///
/// # Errors
/// Different row counts; `k` of 0 or fewer than `k + 2` rows; a NaN or infinity; no columns
/// ([`Error::Undefined`]); the device failing.
///
/// # Cost
/// That of [`mutual_knn`](super::mutual_knn()), and up to `2 n k (dx + dy)` multiply-adds in f64. The
/// rows are kept on the host.
///
/// # Source
/// Hamilton, Leskovec & Jurafsky 2016, "Cultural shift or linguistic drift?", with the cosine
/// of the distances, not of the similarities, as in the ReSi code.
///
/// # Example
/// ```
/// use inscape::{Device, similarity::second_order_cosine};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::from_data([[0., 1.], [1., 2.], [2., -1.], [4., 1.], [-1., 5.]], cpu.tensor());
/// assert!((second_order_cosine(&x, &(x.clone() * 3.0), 2)? - 1.0).abs() < 1e-9);
/// # Ok(())
/// # }
/// ```
pub fn second_order_cosine(x: &Tensor<2>, y: &Tensor<2>, k: usize) -> Result<f64, Error> {
    block_on(second_order_cosine_async(x, y, k))
}

/// [`second_order_cosine`] without blocking.
///
/// # Errors
/// As [`second_order_cosine`].
pub async fn second_order_cosine_async(
    x: &Tensor<2>,
    y: &Tensor<2>,
    k: usize,
) -> Result<f64, Error> {
    Prepared::pair(x, y, Neighbours::SecondOrderCosine { k }).await
}

/// What is kept of one representation: the lists, and the rows with one over their lengths.
#[derive(Clone, Debug)]
pub(in crate::similarity) struct Surroundings {
    lists: Lists,
    rows: Values,
    d: usize,
    weight: Vec<f64>,
}

impl Surroundings {
    pub(super) async fn prepare(x: &Tensor<2>, k: usize) -> Result<Self, Error> {
        match x.dtype() {
            DType::F64 => Self::read::<f64>(x.clone(), k).await,
            _ => Self::read::<f32>(working(x), k).await,
        }
    }

    async fn read<T: Real>(x: Tensor<2>, k: usize) -> Result<Self, Error> {
        let (x, rows) = Rows::<T>::read(x).await?;
        let (weight, d) = (inverse_lengths(&rows), rows.d);
        let kept = T::store(rows.values.to_vec());
        let near = nearest_rows(x, rows, k, Nearness::Cosine).await?;
        let neighbours = near.into_iter().map(|n| n.row).collect();
        Ok(Self {
            lists: Lists { k, neighbours },
            rows: kept,
            d,
            weight,
        })
    }

    /// See [`Lists::reordered`].
    pub(super) fn reordered(&self, order: &[usize]) -> Self {
        fn gathered<T: Real>(rows: &[T], d: usize, order: &[usize]) -> Values {
            let row = |&i: &usize| rows[i * d..(i + 1) * d].iter().copied();
            T::store(order.iter().flat_map(row).collect())
        }
        Self {
            lists: self.lists.reordered(order),
            rows: match &self.rows {
                Values::F32(rows) => gathered(rows, self.d, order),
                Values::F64(rows) => gathered(rows, self.d, order),
            },
            d: self.d,
            weight: order.iter().map(|&i| self.weight[i]).collect(),
        }
    }

    pub(super) fn compare(&self, other: &Self) -> f64 {
        mean_of_rows(self.weight.len(), |i| {
            let mut union = [self.lists.row(i), other.lists.row(i)].concat();
            union.sort_unstable();
            union.dedup();
            cosine(&self.distances(i, &union), &other.distances(i, &union))
        })
    }

    fn distances(&self, i: usize, to: &[u32]) -> Vec<f64> {
        let distance = |&j: &u32| match &self.rows {
            Values::F32(rows) => self.distance(rows, i, j as usize),
            Values::F64(rows) => self.distance(rows, i, j as usize),
        };
        to.iter().map(distance).collect()
    }

    /// `1 - cosine` as half the squared distance of the normalised rows, which is 0 for equal rows.
    fn distance<T: Real>(&self, rows: &[T], i: usize, j: usize) -> f64 {
        let weights = [i, j].map(|i| self.weight[i]);
        match weights.contains(&0.0) {
            true => 1.0,
            false => {
                let rows = [i, j].map(|i| &rows[i * self.d..(i + 1) * self.d]);
                0.5 * squared_distance(rows, weights)
            }
        }
    }
}

/// Cosine of two vectors; vectors of zeros agree with each other and with nothing else.
fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let (aa, bb) = (dot(a, a), dot(b, b));
    match (aa > 0.0, bb > 0.0) {
        (true, true) => dot(a, b) / aa.sqrt() / bb.sqrt(),
        (false, false) => 1.0,
        _ => 0.0,
    }
}
