//! What is taken of two rows.

use super::super::Error;
use super::super::host::{square, sum_range};
use super::super::lanes::{Lane, exp, sqrt};
use super::super::middle::Table;
use super::super::rbf::Sigma;

/// What is worked out for two rows `u` and `v`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::similarity) enum Form {
    /// `u · v` of the column-centred rows.
    Dot,
    /// `|u - v|²`.
    SquaredEuclidean,
    /// `|u - v|`.
    Euclidean,
    /// `exp(-|u - v|² / (2 sigma²))`, the rows made to length 1 first if they are to be `unit`. Squared
    /// distances until the sigma is a number.
    Rbf { sigma: Sigma, unit: bool },
    /// 1 less the cosine of the angle; 1 where a row is 0.
    Cosine,
    /// 1 less Pearson's correlation over the columns; 1 where a row is constant.
    Correlation,
}

impl Form {
    /// The value of a row and its equal, given the squared length.
    pub(super) fn of_equals(self, square: f64) -> f64 {
        match self {
            Self::Dot => square,
            Self::Rbf {
                sigma: Sigma::Fixed(_),
                ..
            } => 1.0,
            Self::SquaredEuclidean | Self::Euclidean | Self::Rbf { .. } => 0.0,
            Self::Cosine | Self::Correlation => f64::from(u8::from(square == 0.0)),
        }
    }

    /// The same for rows that were multiplied by `scale`.
    pub(super) fn scaled(self, scale: f64) -> Self {
        match self {
            Self::Rbf {
                sigma: Sigma::Fixed(sigma),
                unit: false,
            } => Self::Rbf {
                sigma: Sigma::Fixed(sigma * scale),
                unit: false,
            },
            other => other,
        }
    }

    /// With a sigma that is a number, found among the squared distances of `n` rows.
    pub(super) async fn settled<T: Lane>(
        self,
        squares: &Table<'_, T>,
        n: usize,
    ) -> Result<Self, Error> {
        let Self::Rbf { sigma, unit } = self else {
            return Ok(self);
        };
        let sigma = Sigma::Fixed(sigma.settle(squares, n).await?);
        Ok(Self::Rbf { sigma, unit })
    }

    /// Turns squared distances into values.
    pub(super) fn of_squares<T: Lane>(self, squares: &mut [T]) {
        match self {
            Self::Euclidean => sqrt(squares),
            Self::Rbf {
                sigma: Sigma::Fixed(sigma),
                ..
            } => exp(squares, T::rounded(-0.5 / (sigma * sigma))),
            Self::Dot | Self::SquaredEuclidean | Self::Rbf { .. } => {}
            Self::Cosine | Self::Correlation => {
                let half = T::rounded(0.5);
                squares.iter_mut().for_each(|v| *v = half * *v);
            }
        }
    }

    /// A row made ready for products: without `mean`, at length 1, or both over its own columns.
    pub(super) fn row<T: Lane>(self, row: &[T], mean: &[T]) -> Vec<T> {
        match self {
            Self::Rbf { unit: true, .. } | Self::Cosine => unit(row.iter().copied()),
            Self::Correlation => {
                let shift = sum_range(0..row.len(), |j| row[j].wide() - row[0].wide());
                let mean = T::rounded(row[0].wide() + shift / row.len() as f64);
                unit(row.iter().map(|&v| v - mean))
            }
            _ => row.iter().zip(mean).map(|(&v, &m)| v - m).collect(),
        }
    }
}

/// A row at length 1; 0 stays 0.
fn unit<T: Lane>(row: impl Iterator<Item = T>) -> Vec<T> {
    let row: Vec<T> = row.collect();
    let length = square(&row).sqrt();
    let inverse = if length > 0.0 { length.recip() } else { 0.0 };
    let scaled = |v: &T| T::rounded(v.wide() * inverse);
    row.iter().map(scaled).collect()
}
