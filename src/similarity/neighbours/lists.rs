//! Ordered neighbour lists, and what two sets of them have in common.

use burn::tensor::{DType, Tensor};

use super::Nearness;
use super::space::nearest_rows;
use crate::similarity::Error;
use crate::similarity::host::{Rows, map_chunks, working};

/// Rows whose lists are compared together.
const CHUNK: usize = 64;

/// The `k` neighbours of each row, nearest first.
#[derive(Clone, Debug)]
pub(in crate::similarity) struct Lists {
    pub(super) k: usize,
    /// `[n, k]`.
    pub(super) neighbours: Vec<u32>,
}

impl Lists {
    pub(in crate::similarity) async fn prepare(
        x: &Tensor<2>,
        k: usize,
        by: Nearness,
    ) -> Result<Self, Error> {
        let near = match x.dtype() {
            DType::F64 => {
                let (x, rows) = Rows::<f64>::read(x.clone()).await?;
                nearest_rows(x, rows, k, by).await?
            }
            _ => {
                let (x, rows) = Rows::<f32>::read(working(x)).await?;
                nearest_rows(x, rows, k, by).await?
            }
        };
        let neighbours = near.into_iter().map(|n| n.row).collect();
        Ok(Self { k, neighbours })
    }

    /// The same rows in another order: row `i` is the old row `order[i]`. Rows that are equally near stay
    /// as they stood.
    pub(super) fn reordered(&self, order: &[usize]) -> Self {
        let new = places(order);
        let row = |&i: &usize| self.row(i).iter().map(|&j| new[j as usize]);
        Self {
            k: self.k,
            neighbours: order.iter().flat_map(row).collect(),
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.neighbours.len() / self.k
    }

    pub(in crate::similarity) fn row(&self, i: usize) -> &[u32] {
        &self.neighbours[i * self.k..(i + 1) * self.k]
    }

    /// Mean of `f` over what the lists of each row share: the places in both, from 1.
    fn mean(&self, other: &Self, f: impl Fn(&[[usize; 2]]) -> f64 + Sync + Send) -> f64 {
        mean_of_rows(self.rows(), |i| f(&shared(self.row(i), other.row(i))))
    }

    /// Share of the neighbours that both have.
    pub(super) fn overlap(&self, other: &Self) -> f64 {
        let common = self.mean(other, |shared| shared.len() as f64);
        common / self.k as f64
    }

    /// Neighbours that both have, of those that either has.
    pub(super) fn jaccard(&self, other: &Self) -> f64 {
        let k = self.k;
        self.mean(other, |shared| {
            shared.len() as f64 / (2 * k - shared.len()) as f64
        })
    }

    /// Rank similarity.
    pub(super) fn ranks(&self, other: &Self) -> f64 {
        let weight = |&[a, b]: &[usize; 2]| 2.0 / ((1 + a.abs_diff(b)) * (a + b)) as f64;
        let most = |n: usize| (1..=n).map(|q| (q as f64).recip()).sum::<f64>();
        self.mean(other, |shared| match shared.len() {
            0 => 0.0,
            n => shared.iter().map(weight).sum::<f64>() / most(n),
        })
    }

    /// Longest common subsequence. No neighbour comes twice in a list, so that it is the longest run of
    /// rising places on one side when what is shared stands in the order of the other.
    pub(super) fn subsequence(&self, other: &Self) -> f64 {
        self.mean(other, |shared| {
            let mut places: Vec<[usize; 2]> = shared.to_vec();
            places.sort_unstable();
            let mut ends: Vec<usize> = Vec::with_capacity(places.len());
            for [_, place] in places {
                match ends.partition_point(|&end| end < place) {
                    at if at == ends.len() => ends.push(place),
                    at => ends[at] = place,
                }
            }
            ends.len() as f64
        })
    }

    /// Rows that are a neighbour here of one of their neighbours there.
    pub(super) fn cycles(&self, there: &Self) -> f64 {
        mean_of_rows(self.rows(), |i| {
            let back = |&j: &u32| self.row(j as usize).contains(&(i as u32));
            f64::from(u8::from(there.row(i).iter().any(back)))
        })
    }
}

/// Where each row stands in this order.
pub(super) fn places(order: &[usize]) -> Vec<u32> {
    let mut places = vec![0; order.len()];
    order.iter().zip(0..).for_each(|(&i, at)| places[i] = at);
    places
}

/// Mean of `f` over the rows, in fixed chunks.
pub(super) fn mean_of_rows(n: usize, f: impl Fn(usize) -> f64 + Sync + Send) -> f64 {
    let parts = map_chunks(n, CHUNK, |r| r.map(&f).sum::<f64>());
    parts.into_iter().sum::<f64>() / n as f64
}

/// The places, from 1, of the values that both lists have.
fn shared(a: &[u32], b: &[u32]) -> Vec<[usize; 2]> {
    let (a, b) = (by_value(a), by_value(b));
    let (mut i, mut j, mut found) = (0, 0, vec![]);
    while i < a.len() && j < b.len() {
        let (left, right) = (a[i], b[j]);
        if left.0 == right.0 {
            found.push([left.1, right.1]);
        }
        i += usize::from(left.0 <= right.0);
        j += usize::from(right.0 <= left.0);
    }
    found
}

/// The values of a list with their places from 1, in ascending order.
fn by_value(list: &[u32]) -> Vec<(u32, usize)> {
    let mut places: Vec<(u32, usize)> = list.iter().copied().zip(1..).collect();
    places.sort_unstable();
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_values_come_with_both_places() {
        assert_eq!(shared(&[7, 3, 9], &[9, 1, 7]), [[1, 3], [3, 1]]);
        assert!(shared(&[1, 2], &[3, 4]).is_empty());
    }
}
