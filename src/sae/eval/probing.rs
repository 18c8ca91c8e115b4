use crate::sae::Latents;
use crate::sae::features::Active;

use super::ProbeError;

/// Mean latents of each class of one or more concepts, gathered batch by batch: the first of two
/// passes of k-sparse probing. The second reads the few latents chosen ([`columns`]), so that no
/// `[n, d_sae]` is ever held.
///
/// # Cost
/// Memory: two f64 a latent and concept. Time: the active latents of a row times the concepts.
///
/// ```
/// use burn::tensor::Tensor;
/// use inscape::sae::{Latents, eval::{ClassMeans, strongest}};
/// use inscape::{Device, device::block_on};
///
/// let cpu = Device::cpu();
/// let latents = Tensor::<2>::from_data([[0., 2., 1.], [0., 3., 1.], [1., 0., 1.]], cpu.tensor());
/// let mut means = ClassMeans::new(3, 1);
/// let labels = [Some(true), Some(true), Some(false)];
/// block_on(means.add(&Latents::of_dense(latents), &[&labels]))?;
/// assert_eq!(means.differences(0, "rows")?, [-1.0, 2.5, 0.0]);
/// assert_eq!(strongest(&means.differences(0, "rows")?, 2)?, [1, 0]);
/// # Ok::<(), inscape::sae::eval::ProbeError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ClassMeans {
    /// `[concept][class][latent]`.
    sums: Vec<[Vec<f64>; 2]>,
    /// `[concept][class]`.
    rows: Vec<[u64; 2]>,
}

impl ClassMeans {
    /// For `d_sae` latents and a number of concepts.
    pub fn new(d_sae: usize, concepts: usize) -> Self {
        let zeros = || [vec![0.0; d_sae], vec![0.0; d_sae]];
        Self {
            sums: (0..concepts).map(|_| zeros()).collect(),
            rows: vec![[0; 2]; concepts],
        }
    }

    /// Adds a batch: its latents, and for each concept a label a row, `None` where the row does not
    /// count for it.
    ///
    /// # Errors
    /// The device failed; [`ProbeError::NotFinite`].
    ///
    /// # Panics
    /// Unless there is a label a concept and row.
    pub async fn add(
        &mut self,
        latents: &Latents,
        labels: &[&[Option<bool>]],
    ) -> Result<(), ProbeError> {
        let n = latents.values.dims()[0];
        let active = Active::read(latents.clone()).await?;
        finite(&active, n)?;
        self.add_active(&active, n, labels);
        Ok(())
    }

    pub(super) fn add_active(&mut self, active: &Active, n: usize, labels: &[&[Option<bool>]]) {
        assert_eq!(labels.len(), self.rows.len(), "ClassMeans::add: concepts");
        for (rows, labels) in self.rows.iter_mut().zip(labels) {
            assert_eq!(labels.len(), n, "ClassMeans::add: labels");
            for &label in labels.iter().flatten() {
                rows[usize::from(label)] += 1;
            }
        }
        for (row, latent, value) in active.each() {
            for (sums, labels) in self.sums.iter_mut().zip(labels) {
                if let Some(label) = labels[row] {
                    sums[usize::from(label)][latent] += f64::from(value);
                }
            }
        }
    }

    /// Mean of every latent where the concept is, less its mean where it is not: `[d_sae]`. `what`
    /// names the rows in an error.
    ///
    /// # Errors
    /// [`ProbeError::OneClass`].
    pub fn differences(&self, concept: usize, what: &str) -> Result<Vec<f64>, ProbeError> {
        let [negatives, positives] = self.rows[concept];
        if negatives == 0 || positives == 0 {
            return Err(ProbeError::OneClass {
                what: what.into(),
                positives: positives as usize,
                rows: (negatives + positives) as usize,
            });
        }
        let [without, with] = &self.sums[concept];
        let pairs = with.iter().zip(without);
        Ok(pairs
            .map(|(p, n)| p / positives as f64 - n / negatives as f64)
            .collect())
    }
}

/// Refuses latents that are NaN or infinite. A NaN is not above 0, so that nothing would see it.
pub(super) fn finite(active: &Active, n: usize) -> Result<(), ProbeError> {
    match active.first_not_finite() {
        None => Ok(()),
        Some((row, latent, value)) => Err(ProbeError::NotFinite {
            what: format!("latents of {n} rows"),
            row,
            column: latent,
            value,
        }),
    }
}

/// The `k` latents with the largest absolute value, falling; of equals the first. With
/// [`ClassMeans::differences`] this is the choice by mean difference of Gurnee et al. 2023
/// ("Finding neurons in a haystack") that SAEBench uses (Karvonen et al. 2025).
///
/// # Errors
/// [`ProbeError::Latents`] if `k` is 0 or there are fewer latents.
pub fn strongest(values: &[f64], k: usize) -> Result<Vec<usize>, ProbeError> {
    let d_sae = values.len();
    if k == 0 || k > d_sae {
        return Err(ProbeError::Latents { k, d_sae });
    }
    let mut order: Vec<usize> = (0..d_sae).collect();
    order.sort_by(|&a, &b| {
        let by_size = values[b].abs().total_cmp(&values[a].abs());
        by_size.then(a.cmp(&b))
    });
    order.truncate(k);
    Ok(order)
}

/// The latents `chosen` of each row, 0 where they are not active: `[n, chosen.len()]` in row-major
/// order, for [`Labelled`](super::Labelled).
///
/// # Errors
/// The device failed; [`ProbeError::NotFinite`].
pub async fn columns(latents: &Latents, chosen: &[usize]) -> Result<Vec<f32>, ProbeError> {
    let n = latents.values.dims()[0];
    let active = Active::read(latents.clone()).await?;
    finite(&active, n)?;
    let mut out = vec![0.0; n * chosen.len()];
    for (row, latent, value) in active.each() {
        for (c, _) in chosen.iter().enumerate().filter(|(_, j)| **j == latent) {
            out[row * chosen.len() + c] = value;
        }
    }
    Ok(out)
}
