use burn::tensor::{Int, Tensor};

use super::{Error, Matrix, at_least};
use crate::device::{self, block_on};

/// Which latents fire on each row, and how strongly: gathered batch by batch.
///
/// # Cost
/// Holds 16 bytes an active latent.
///
/// ```
/// use burn::tensor::Tensor;
/// use inscape::geometry::{Firing, Matrix};
///
/// let cpu = inscape::Device::cpu();
/// let values = Tensor::from_data([[2.0, 0.0], [1.0, 3.0]], cpu.tensor());
/// let indices = Tensor::from_data([[0, 1], [1, 2]], cpu.tensor());
/// let mut firing = Firing::new();
/// firing.add(values, indices)?;
/// assert_eq!(firing.blocks(1), [vec![0], vec![1, 2]]);
/// let w_dec = Matrix::new(vec![1.0, 0.0, 0.0, 1.0, 1.0, 1.0], 2)?;
/// let rows = firing.reconstructions(&w_dec, &[0, 2], 10)?;
/// assert_eq!(rows, Matrix::new(vec![2.0, 0.0, 3.0, 3.0], 2)?);
/// # Ok::<(), inscape::geometry::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Firing {
    /// Where each row's latents end.
    ends: Vec<usize>,
    active: Vec<(usize, f64)>,
}

impl Firing {
    /// Of no row.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the latents `values` and `indices` `[n, k]` of `n` rows, those that are not above 0 left
    /// out.
    ///
    /// # Errors
    /// [`Error::NotFinite`]; the device failed.
    ///
    /// # Panics
    /// Unless both have the same shape.
    pub fn add(&mut self, values: Tensor<2>, indices: Tensor<2, Int>) -> Result<(), Error> {
        block_on(self.add_async(values, indices))
    }

    /// [`Firing::add`] without blocking.
    ///
    /// # Errors
    /// As [`Firing::add`].
    pub async fn add_async(
        &mut self,
        values: Tensor<2>,
        indices: Tensor<2, Int>,
    ) -> Result<(), Error> {
        assert_eq!(values.dims(), indices.dims(), "Firing::add: shapes");
        let values = Matrix::read_async(values).await?;
        let indices = device::read_int(indices).await?;
        for (row, indices) in values.each_row().zip(indices.chunks(values.columns())) {
            let latents = indices.iter().zip(row).map(|(j, f)| (*j as usize, *f));
            self.active.extend(latents.filter(|(_, f)| *f > 0.0));
            self.ends.push(self.active.len());
        }
        Ok(())
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.ends.len()
    }

    /// The latents of each row with their activations.
    pub fn each_row(&self) -> impl Iterator<Item = &[(usize, f64)]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(a, b)| &self.active[a..*b])
    }

    /// The latents that fire in each stretch of `block` rows, in rising order. Rows that are left
    /// over at the end make no block.
    ///
    /// # Panics
    /// If `block` is 0.
    pub fn blocks(&self, block: usize) -> Vec<Vec<usize>> {
        let rows: Vec<&[(usize, f64)]> = self.each_row().collect();
        let fired = |rows: &[&[(usize, f64)]]| {
            let mut fired: Vec<usize> = rows.concat().into_iter().map(|(j, _)| j).collect();
            fired.sort_unstable();
            fired.dedup();
            fired
        };
        rows.chunks_exact(block).map(fired).collect()
    }

    /// The rows on which one of some latents fires.
    pub fn fires(&self, cluster: &[usize]) -> Vec<usize> {
        let mine = mask(cluster);
        let rows = self.each_row().enumerate();
        rows.filter(|(_, row)| row.iter().any(|(j, _)| mine.get(*j) == Some(&true)))
            .map(|(i, _)| i)
            .collect()
    }

    /// What some latents alone make of each row on which one of them fires: `Σ_{j in cluster} f_j d_j`,
    /// `[rows that fire, d]`, at most `most` of them, spread evenly. `w_dec` `[d_sae, d]` is the
    /// decoder.
    ///
    /// # Errors
    /// [`Error::TooFew`] if the cluster fires on no row.
    ///
    /// # Panics
    /// If the cluster names a latent that `w_dec` does not have.
    pub fn reconstructions(
        &self,
        w_dec: &Matrix,
        cluster: &[usize],
        most: usize,
    ) -> Result<Matrix, Error> {
        let (mine, fires) = (mask(cluster), self.fires(cluster));
        assert!(mine.len() <= w_dec.rows(), "reconstructions: latents");
        let n = fires.len().min(most);
        at_least("a cluster's reconstruction", "rows that fire", 1, n)?;
        let rows: Vec<&[(usize, f64)]> = self.each_row().collect();
        let mut out = Vec::with_capacity(n * w_dec.columns());
        for i in 0..n {
            let active = rows[fires[i * fires.len() / n]].iter();
            let mut row = vec![0.0; w_dec.columns()];
            for (j, f) in active.filter(|(j, _)| mine.get(*j) == Some(&true)) {
                let part = w_dec.row(*j).iter();
                row.iter_mut().zip(part).for_each(|(r, w)| *r += f * w);
            }
            out.append(&mut row);
        }
        Matrix::new(out, w_dec.columns())
    }
}

/// Which latents are of a cluster, up to its last.
fn mask(cluster: &[usize]) -> Vec<bool> {
    let mut mine = vec![false; cluster.iter().max().map_or(0, |last| last + 1)];
    cluster.iter().for_each(|&j| mine[j] = true);
    mine
}
