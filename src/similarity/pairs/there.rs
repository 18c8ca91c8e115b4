//! Sums over tiles where the tensors are, on a GPU: of a tile only what its rows and columns come to is
//! read back. Distances are as their products round: nothing is taken from differences.

use std::ops::Range;

use burn::tensor::{Tensor, TensorData};

use super::super::host::is_here;
use super::super::lanes::Lane;
use super::super::products;
use super::super::rbf::Sigma;
use super::Sums;
use super::form::Form;
use super::source::{Source, blocks};
use crate::device;
use crate::ops::{PairForm, PairTile, pair_sums};

impl Form {
    fn there(self) -> PairForm {
        match self {
            Self::Dot => PairForm::Dot,
            Self::Euclidean => PairForm::Euclidean,
            Self::Cosine | Self::Correlation => PairForm::OneMinus,
            Self::Rbf {
                sigma: Sigma::Fixed(sigma),
                ..
            } => PairForm::Rbf {
                gamma: 0.5 / (sigma * sigma),
            },
            Self::SquaredEuclidean | Self::Rbf { .. } => PairForm::SquaredEuclidean,
        }
    }
}

impl<T: Lane> Source<T> {
    /// Whether its sums are better taken where its tensor is.
    pub(super) fn is_there(&self) -> bool {
        T::EPSILON > f64::EPSILON && !is_here(&self.z)
    }

    fn tile_there(&self, r: &Range<usize>, c: &Range<usize>) -> PairTile {
        let squares = |of: &Range<usize>| {
            let squares = TensorData::new(self.squares[of.clone()].to_vec(), [of.len()]);
            Tensor::<1>::from_data(squares, (&self.z.device(), T::dtype()))
        };
        PairTile {
            products: products::there(&self.z, r, c),
            row_squares: squares(r),
            column_squares: squares(c),
        }
    }

    pub(super) async fn sums_there(&self) -> Result<Sums, device::Error> {
        let mut sums = Sums::new(self.n());
        for (r, c) in blocks(self.n()) {
            let tile = self.tile_there(&r, &c);
            let form = self.form.there();
            let found = pair_sums([&tile, &tile], [form; 2], [r.start, c.start]);
            let by_row = device::read::<f64, 2>(found.by_row).await?;
            for (i, [squares, sum, _]) in r.zip(by_row.as_chunks().0) {
                sums.rows[i] += sum;
                sums.total += 2.0 * sum;
                sums.squares += squares;
            }
            let by_column = device::read::<f64, 2>(found.by_column).await?;
            for (j, [sum, _]) in c.zip(by_column.as_chunks().0) {
                sums.rows[j] += sum;
            }
        }
        Ok(sums)
    }

    pub(super) async fn product_there(&self, other: &Self) -> Result<f64, device::Error> {
        let mut product = 0.0;
        for (r, c) in blocks(self.n()) {
            let tiles = [self, other].map(|side| side.tile_there(&r, &c));
            let forms = [self, other].map(|side| side.form.there());
            let found = pair_sums(tiles.each_ref(), forms, [r.start, c.start]);
            let by_row = device::read::<f64, 2>(found.by_row).await?;
            product += by_row
                .as_chunks::<3>()
                .0
                .iter()
                .map(|[p, ..]| p)
                .sum::<f64>();
        }
        Ok(product)
    }
}
