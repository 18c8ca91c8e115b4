//! CKNNA: the kernel alignment of nearest neighbours alone.

use burn::tensor::{DType, Tensor};

use super::lists::places;
use super::space::{inverse_lengths, nearest_rows};
use super::{Nearness, Neighbours};
use crate::device::block_on;
use crate::similarity::host::{Real, Rows, working};
use crate::similarity::{Error, Estimator, Prepared};

/// Centred kernel nearest-neighbour alignment (CKNNA): CKA of the cosines that are among the `k`
/// nearest of a row on both sides, all others set to 0.
///
/// `x` is `[n, dx]`, `y` is `[n, dy]`. With cosines `K` and `L` and the masks `m_x`, `m_y` that are 1
/// where column `j` is among the `k` nearest of row `i`, the value is
/// `HSIC(m∘K, m∘L) / √(HSIC(m_x∘K, m_x∘K) HSIC(m_y∘L, m_y∘L))` with `m = m_x∘m_y`. The masks are not
/// made symmetric, and with [`Estimator::Unbiased`] exchanging the sides can change the value a
/// little. Equal sides give 1; no neighbour in common gives about 0, also below it. Unchanged by
/// rotation and by scaling each row.
///
/// A row is not its own neighbour, but for [`Estimator::Biased`] its own nearest. Of rows equally
/// near, the one with the lower index comes first. A row of zeros has cosine 0 with every row.
///
/// # Errors
/// Different row counts; `k` of 0 or fewer than `k + 2` (and 4) rows; a NaN or infinity; no columns,
/// or masked cosines that have no positive HSIC with themselves ([`Error::Undefined`]); the device
/// failing.
///
/// # Cost
/// That of [`mutual_knn`](super::mutual_knn()); of the `n × n` masked matrices only the `n k` entries
/// that are not 0 exist, 12 bytes each.
///
/// # Source
/// Huh et al. 2024, "The Platonic Representation Hypothesis", appendix A, with the sums of their code:
/// `tr(K L) + ΣK ΣL / ((n-1)(n-2)) - 2 1ᵀK L 1 / (n-2)` over `n (n-3)` (Song et al. 2012, eq. 5), or
/// `tr(K H L H)`. Their code adds 1e-6 to the denominator, which moves the value by 5e-5 of itself:
/// `cknna[eps=1e-6]` does the same, this function does not.
///
/// # Example
/// ```
/// use inscape::{Device, similarity::{Estimator, cknna}};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::from_data([[0., 1.], [1., 2.], [2., -1.], [4., 1.], [-1., 5.]], cpu.tensor());
/// let value = cknna(&x, &(x.clone() * 3.0), 2, Estimator::Unbiased)?;
/// assert!((value - 1.0).abs() < 1e-9);
/// # Ok(())
/// # }
/// ```
pub fn cknna(x: &Tensor<2>, y: &Tensor<2>, k: usize, estimator: Estimator) -> Result<f64, Error> {
    block_on(cknna_async(x, y, k, estimator))
}

/// [`cknna`] without blocking.
///
/// # Errors
/// As [`cknna`].
pub async fn cknna_async(
    x: &Tensor<2>,
    y: &Tensor<2>,
    k: usize,
    estimator: Estimator,
) -> Result<f64, Error> {
    let eps = 0.0;
    Prepared::pair(x, y, Neighbours::Cknna { k, estimator, eps }).await
}

/// What CKNNA keeps of one representation: the masked cosines.
#[derive(Clone, Debug)]
pub(in crate::similarity) struct Masked {
    graph: Graph,
    cosines: Vec<f64>,
    /// Root of their HSIC with themselves.
    own: f64,
}

impl Masked {
    pub(super) async fn prepare(
        x: &Tensor<2>,
        k: usize,
        estimator: Estimator,
    ) -> Result<Self, Error> {
        let (graph, cosines) = match x.dtype() {
            DType::F64 => entries::<f64>(x.clone(), k, estimator).await?,
            _ => entries::<f32>(working(x), k, estimator).await?,
        };
        let own = graph.hsic(&cosines, &cosines, estimator);
        match own > 0.0 {
            true => Ok(Self {
                graph,
                cosines,
                own: own.sqrt(),
            }),
            false => Err(Error::Undefined {
                why: "the HSIC of its nearest neighbours' cosines with themselves is not positive",
            }),
        }
    }

    /// See [`Lists::reordered`](super::lists::Lists::reordered).
    pub(super) fn reordered(&self, order: &[usize]) -> Self {
        let new = places(order);
        let (mut graph, mut cosines) = (Graph::default(), Vec::with_capacity(self.cosines.len()));
        for &i in order {
            let entry = |e: usize| (new[self.graph.columns[e] as usize], self.cosines[e]);
            graph.push(self.graph.row(i).map(entry), &mut cosines);
        }
        let own = self.own;
        Self {
            graph,
            cosines,
            own,
        }
    }

    pub(super) fn compare(&self, other: &Self, estimator: Estimator, eps: f64) -> f64 {
        let (graph, a, b) = self.common(other);
        graph.hsic(&a, &b, estimator) / (self.own * other.own + eps)
    }

    /// The entries that both have, with both cosines.
    fn common(&self, other: &Self) -> (Graph, Vec<f64>, Vec<f64>) {
        let (mut graph, mut a, mut b) = (Graph::default(), vec![], vec![]);
        for i in 0..self.graph.rows() {
            for e in self.graph.row(i) {
                if let Some(f) = other.graph.find(i, self.graph.columns[e]) {
                    graph.columns.push(self.graph.columns[e]);
                    a.push(self.cosines[e]);
                    b.push(other.cosines[f]);
                }
            }
            graph.ends.push(graph.columns.len());
        }
        (graph, a, b)
    }
}

/// The `k` nearest of each row by cosine and their cosines, columns ascending.
async fn entries<T: Real>(
    x: Tensor<2>,
    k: usize,
    estimator: Estimator,
) -> Result<(Graph, Vec<f64>), Error> {
    let (x, rows) = Rows::<T>::read(x).await?;
    let weight = inverse_lengths(&rows);
    let found = nearest_rows(x, rows, k, Nearness::Cosine).await?;
    let (mut graph, mut cosines) = (Graph::default(), Vec::with_capacity(found.len()));
    for (i, near) in found.chunks(k).enumerate() {
        let cosine = |n: &super::space::Near| (n.row, n.score * weight[i]);
        match estimator {
            Estimator::Unbiased => graph.push(near.iter().map(cosine), &mut cosines),
            Estimator::Biased => {
                let own = (i as u32, if weight[i] > 0.0 { 1.0 } else { 0.0 });
                graph.push(near[..k - 1].iter().map(cosine).chain([own]), &mut cosines);
            }
        }
    }
    Ok((graph, cosines))
}

/// Which entries of an `n × n` matrix are not 0.
#[derive(Clone, Debug, Default)]
struct Graph {
    /// Where each row ends in `columns`.
    ends: Vec<usize>,
    /// Ascending within a row.
    columns: Vec<u32>,
}

impl Graph {
    fn rows(&self) -> usize {
        self.ends.len()
    }

    fn row(&self, i: usize) -> std::ops::Range<usize> {
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        start..self.ends[i]
    }

    /// Adds a row, whose values go to the end of `values`.
    fn push(&mut self, row: impl Iterator<Item = (u32, f64)>, values: &mut Vec<f64>) {
        let mut row: Vec<(u32, f64)> = row.collect();
        row.sort_unstable_by_key(|e| e.0);
        self.columns.extend(row.iter().map(|e| e.0));
        self.ends.push(self.columns.len());
        values.extend(row.iter().map(|e| e.1));
    }

    fn find(&self, i: usize, column: u32) -> Option<usize> {
        let row = self.row(i);
        let at = self.columns[row.clone()].binary_search(&column).ok()?;
        Some(row.start + at)
    }

    fn sums_of_rows(&self, values: &[f64]) -> Vec<f64> {
        let sum = |i: usize| values[self.row(i)].iter().sum();
        (0..self.rows()).map(sum).collect()
    }

    fn sums_of_columns(&self, values: &[f64]) -> Vec<f64> {
        let mut sums = vec![0.0; self.rows()];
        for (&column, value) in self.columns.iter().zip(values) {
            sums[column as usize] += value;
        }
        sums
    }

    /// `tr(A B)`.
    fn trace(&self, a: &[f64], b: &[f64]) -> f64 {
        let of_row = |i: usize| {
            let pair = |e: usize| {
                let back = self.find(self.columns[e] as usize, i as u32);
                back.map_or(0.0, |f| a[e] * b[f])
            };
            self.row(i).map(pair).sum::<f64>()
        };
        (0..self.rows()).map(of_row).sum()
    }

    /// HSIC of two matrices with these entries, which need not be symmetric.
    fn hsic(&self, a: &[f64], b: &[f64], estimator: Estimator) -> f64 {
        let n = self.rows() as f64;
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let product = |a: &[f64], b: &[f64]| dot(&self.sums_of_columns(a), &self.sums_of_rows(b));
        let totals = a.iter().sum::<f64>() * b.iter().sum::<f64>();
        let trace = self.trace(a, b);
        match estimator {
            Estimator::Unbiased => {
                let centred = trace + totals / ((n - 1.0) * (n - 2.0));
                (centred - 2.0 * product(a, b) / (n - 2.0)) / (n * (n - 3.0))
            }
            Estimator::Biased => trace - (product(a, b) + product(b, a)) / n + totals / (n * n),
        }
    }
}
