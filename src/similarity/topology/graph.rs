//! The graph of nearest neighbours.

use burn::tensor::Tensor;

use super::super::host::{Rows, map_chunks, sum_range};
use super::super::neighbours::Lists;
use super::super::{Error, Nearness};
use crate::device::block_on;

/// How long the edges of a [`KnnGraph`] are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EdgeLength {
    /// Every edge has length 1.
    Hop,
    /// The Euclidean distance of its ends.
    Euclidean,
}

/// The rows of a representation, each joined to its `k` nearest by Euclidean distance.
///
/// Two rows are joined if either is among the `k` nearest of the other; of rows equally near the one
/// with the lower index comes first. Holds 12 bytes for each end of each edge.
///
/// ```
/// use inscape::{Device, similarity::{EdgeLength, KnnGraph}};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let path = Tensor::<2>::from_data([[0.], [1.], [3.], [6.]], Device::cpu().tensor());
/// let graph = KnnGraph::new(&path, 1, EdgeLength::Euclidean)?;
/// assert_eq!(graph.edges(), [(0, 1), (1, 2), (2, 3)]);
/// assert_eq!(graph.neighbours(2), [1, 3]);
/// assert_eq!(graph.forman_ricci(), [1.0, 0.0, 1.0]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct KnnGraph {
    /// Neighbours of each row, ascending.
    pub(super) joined: Vec<Vec<u32>>,
    /// Length of the edge to each of them.
    pub(super) length: Vec<Vec<f64>>,
    pub(super) by: EdgeLength,
}

impl KnnGraph {
    /// Joins each row of `x`, `[n, d]`, to its `k` nearest.
    ///
    /// # Errors
    /// `k` of 0 or fewer than `k + 1` rows ([`Error::Undefined`]); a NaN or infinity; the device
    /// failing.
    ///
    /// # Cost
    /// The neighbour lists of [`mutual_knn`](super::super::mutual_knn()).
    pub fn new(x: &Tensor<2>, k: usize, by: EdgeLength) -> Result<Self, Error> {
        block_on(Self::new_async(x, k, by))
    }

    /// [`KnnGraph::new`] without blocking.
    ///
    /// # Errors
    /// As [`KnnGraph::new`].
    pub async fn new_async(x: &Tensor<2>, k: usize, by: EdgeLength) -> Result<Self, Error> {
        if k == 0 || x.dims()[0] <= k {
            return Err(Error::Undefined {
                why: "a graph of k nearest neighbours needs k above 0 and more than k rows",
            });
        }
        let lists = Lists::prepare(x, k, Nearness::Euclidean).await?;
        let mut joined = vec![Vec::new(); x.dims()[0]];
        for i in 0..x.dims()[0] {
            for &j in lists.row(i) {
                joined[i].push(j);
                joined[j as usize].push(i as u32);
            }
        }
        for near in &mut joined {
            near.sort_unstable();
            near.dedup();
        }
        let length = match by {
            EdgeLength::Hop => joined.iter().map(|near| vec![1.0; near.len()]).collect(),
            EdgeLength::Euclidean => lengths(&joined, &Rows::unscaled(x).await?),
        };
        Ok(Self { joined, length, by })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.joined.len()
    }

    /// The rows that `row` is joined to, ascending.
    pub fn neighbours(&self, row: usize) -> &[u32] {
        &self.joined[row]
    }

    /// Every edge once, the lower row first, in ascending order.
    pub fn edges(&self) -> Vec<(usize, usize)> {
        let of = |i: usize| {
            let above = self.joined[i]
                .iter()
                .map(|&j| j as usize)
                .filter(move |&j| j > i);
            above.map(move |j| (i, j))
        };
        (0..self.rows()).flat_map(of).collect()
    }

    /// Length of the edge between `i` and `j`, if they are joined.
    pub fn length(&self, i: usize, j: usize) -> Option<f64> {
        let at = self.joined[i].binary_search(&(j as u32)).ok()?;
        Some(self.length[i][at])
    }
}

/// Euclidean length of every edge, at both its ends.
fn lengths(joined: &[Vec<u32>], rows: &Rows<f64>) -> Vec<Vec<f64>> {
    let length = |i: usize, j: u32| {
        let (a, b) = (rows.row(i), rows.row(j as usize));
        sum_range(0..a.len(), |c| (a[c] - b[c]).powi(2)).sqrt()
    };
    let of = |i: usize| joined[i].iter().map(|&j| length(i, j)).collect();
    let part = |r: std::ops::Range<usize>| r.map(of).collect::<Vec<Vec<f64>>>();
    map_chunks(joined.len(), 64, part)
        .into_iter()
        .flatten()
        .collect()
}
