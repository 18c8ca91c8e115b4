//! Distances between the centred columns of two representations, in the unit they came in.

use burn::tensor::Tensor;
use faer::MatRef;

use super::assignment::assignment;
use super::axes::scaled_rows;
use super::correlations::centre;
use super::host::{map_chunks, sum_range};
use super::sinkhorn::entropic;
use super::transport::plan;
use super::{Error, PermutationScore};

/// A representation with centred columns, in f64 on the host.
#[derive(Clone, Debug)]
pub(super) struct Centred {
    /// Column after column, `[d, n]`.
    columns: Vec<f64>,
    n: usize,
    /// Sum of squares of each column.
    squares: Vec<f64>,
}

impl Centred {
    pub(super) async fn prepare(x: &Tensor<2>) -> Result<Self, Error> {
        let (mut rows, unit) = scaled_rows(x).await?;
        if unit != 1.0 {
            rows.values.to_mut().iter_mut().for_each(|v| *v *= unit);
        }
        let squares = centre(&mut rows);
        if !squares.iter().sum::<f64>().is_finite() {
            let why = "its squares are too large";
            return Err(Error::Undefined { why });
        }
        let (n, d) = (rows.n, rows.d);
        let values = &rows.values[..];
        let column = |j: usize| (0..n).map(|i| values[i * d + j]).collect::<Vec<_>>();
        Ok(Self {
            columns: map_chunks(d, 1, |r| column(r.start)).concat(),
            n,
            squares,
        })
    }

    /// Sum of all squares.
    pub(super) fn total(&self) -> f64 {
        self.squares.iter().sum()
    }

    fn column(&self, j: usize) -> &[f64] {
        &self.columns[j * self.n..(j + 1) * self.n]
    }

    /// Products of all columns with all of another, `[d, other's d]`.
    fn products(&self, other: &Self) -> Vec<f64> {
        let (d, e) = (self.squares.len(), other.squares.len());
        let x = MatRef::from_row_major_slice(&self.columns, d, self.n);
        let y = MatRef::from_row_major_slice(&other.columns, e, other.n);
        let product = y * x.transpose(); // column-major [e, d]: a row of ours after another
        (0..d)
            .flat_map(|i| product.col(i).iter().copied().collect::<Vec<_>>())
            .collect()
    }

    /// `‖a x_i - b y_j‖²`, from the differences.
    fn apart(&self, i: usize, a: f64, other: &Self, j: usize, b: f64) -> f64 {
        let (x, y) = (self.column(i), other.column(j));
        sum_range(0..self.n, |k| (a * x[k] - b * y[k]).powi(2))
    }

    /// See [`soft_matching`](super::soft_matching).
    pub(super) fn soft_distance(&self, other: &Self, sinkhorn: Option<f64>) -> Result<f64, Error> {
        let (d, e) = (self.squares.len(), other.squares.len());
        let mut costs = self.products(other);
        for (at, cost) in costs.iter_mut().enumerate() {
            *cost = (self.squares[at / e] + other.squares[at % e] - 2.0 * *cost).max(0.0);
        }
        let mean = costs.iter().sum::<f64>() / costs.len() as f64;
        let squared = match sinkhorn {
            _ if mean == 0.0 => 0.0,
            Some(epsilon) => entropic(&costs, |at| costs[at], [d, e], epsilon * mean)?,
            None => {
                let plan = plan(&costs, d, e);
                let pieces = plan.iter();
                pieces
                    .map(|p| p.share * self.apart(p.row, 1.0, other, p.column, 1.0))
                    .sum()
            }
        };
        Ok(squared.sqrt())
    }

    /// See [`permutation_shape`](super::permutation_shape).
    pub(super) fn permuted_distance(
        &self,
        other: &Self,
        score: PermutationScore,
    ) -> Result<f64, Error> {
        let (d, e) = (self.squares.len(), other.squares.len());
        let pairs = assignment(&self.products(other), d, e);
        let (a, b) = match score {
            PermutationScore::Euclidean => (1.0, 1.0),
            PermutationScore::Angular => {
                (self.total().sqrt().recip(), other.total().sqrt().recip())
            }
        };
        // Units that are left over meet a column of zeros.
        let (mut left, mut right) = (self.squares.clone(), other.squares.clone());
        let mut squared = 0.0;
        for (i, j) in pairs {
            squared += self.apart(i, a, other, j, b);
            (left[i], right[j]) = (0.0, 0.0);
        }
        squared += a * a * left.iter().sum::<f64>() + b * b * right.iter().sum::<f64>();
        Ok(match score {
            PermutationScore::Euclidean => squared.sqrt(),
            PermutationScore::Angular => 2.0 * (squared.sqrt() / 2.0).min(1.0).asin(),
        })
    }
}
