//! What single latents respond to: which are worth a look, and where they fire most.

use std::collections::HashMap;
use std::ops::Range;

use burn::tensor::Tensor;

use super::train::batch_tensor;
use super::{Error, Latents, Sae};
use crate::Device;
use crate::capture::store::Source;
use crate::device::{self, block_on};

/// Bars of an activation histogram.
pub const BARS: usize = 20;

/// What one latent did over all rows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Survey {
    /// Rows on which it fired.
    pub fired: u64,
    /// Sum of its activations.
    pub sum: f64,
    /// Sum of their squares.
    pub energy: f64,
    /// The largest.
    pub max: f32,
}

/// One place where a latent fires.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// The row of its peak.
    pub row: usize,
    /// Activation there.
    pub value: f32,
    /// Rows of the snippet around it, within its context.
    pub rows: Range<usize>,
    /// The latent's activation on each of them.
    pub activations: Vec<f32>,
}

/// A latent with its strongest examples.
#[derive(Clone, Debug, PartialEq)]
pub struct Feature {
    /// Which latent.
    pub index: usize,
    /// What it did over all rows.
    pub survey: Survey,
    /// Positive activations in [`BARS`] equal steps from 0 to the largest.
    pub histogram: Vec<u64>,
    /// Strongest first, at most one a context.
    pub examples: Vec<Example>,
}

/// Calls `each` with the rows and the active latents of every batch.
pub(super) fn scan(
    sae: &Sae,
    source: &Source,
    device: &Device,
    mut each: impl FnMut(Range<usize>, &Active) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut rows = Vec::new();
    for start in (0..source.rows()).step_by(2048) {
        let range = start..(start + 2048).min(source.rows());
        source.read_rows(range.clone(), &mut rows)?;
        let active = encode(sae, std::mem::take(&mut rows), device)?;
        each(range, &active)?;
    }
    Ok(())
}

/// Latents of a batch, `k` a row.
pub(super) struct Active {
    k: usize,
    values: Vec<f32>,
    indices: Vec<i64>,
}

impl Active {
    /// Row, latent and value of those above 0.
    pub(super) fn each(&self) -> impl Iterator<Item = (usize, usize, f32)> {
        let entries = self.values.iter().zip(&self.indices).enumerate();
        let entry = |(n, (&v, &i))| (n / self.k, i as usize, v);
        entries.map(entry).filter(|(_, _, v)| *v > 0.0)
    }

    /// Row, latent and value of the first that is NaN or infinite.
    pub(super) fn first_not_finite(&self) -> Option<(usize, usize, f32)> {
        let at = self.values.iter().position(|v| !v.is_finite())?;
        Some((at / self.k, self.indices[at] as usize, self.values[at]))
    }

    pub(super) async fn read(latents: Latents) -> Result<Self, device::Error> {
        Ok(Self {
            k: latents.values.dims()[1],
            values: device::read(latents.values).await?,
            indices: device::read_int(latents.indices).await?,
        })
    }
}

fn encode(sae: &Sae, rows: Vec<f32>, device: &Device) -> Result<Active, Error> {
    let latents = sae.encode(batch_tensor(rows, sae.d_in(), device.tensor()));
    Ok(block_on(async {
        Active::read(latents.compact().await?).await
    })?)
}

/// Counts what every latent does over the rows of `source`: one encoding pass.
///
/// Memory: one batch and its latents.
///
/// # Errors
/// The source or the device failed.
pub fn survey(
    sae: &Sae,
    source: &Source,
    device: &Device,
    mut seen: impl FnMut(usize),
) -> Result<Vec<Survey>, Error> {
    let mut all = vec![Survey::default(); sae.d_sae()];
    scan(sae, source, device, |range, active| {
        for (_, i, v) in active.each() {
            let s = &mut all[i];
            s.fired += 1;
            s.sum += f64::from(v);
            s.energy += f64::from(v).powi(2);
            s.max = s.max.max(v);
        }
        seen(range.end);
        Ok(())
    })?;
    Ok(all)
}

/// The `n` latents most worth a look: those that carry most of the reconstruction's squared
/// length for how rarely they fire, by `energy · −log10(density)`, among those that fire on at
/// least 5 rows and at most a tenth of them. Strongest first.
pub fn interesting(survey: &[Survey], rows: usize, n: usize) -> Vec<usize> {
    let interest = |s: &Survey| -s.energy * (s.fired as f64 / rows as f64).log10();
    let fits = |s: &Survey| s.fired >= 5 && s.fired as f64 <= 0.03 * rows as f64;
    let mut chosen: Vec<usize> = (0..survey.len()).filter(|&i| fits(&survey[i])).collect();
    chosen.sort_by(|&a, &b| {
        interest(&survey[b])
            .total_cmp(&interest(&survey[a]))
            .then(a.cmp(&b))
    });
    chosen.truncate(n);
    chosen
}

/// Histogram and strongest examples of the latents `chosen`: a second encoding pass, then the
/// snippets of `radius` rows to either side. Rows without a context (a plain matrix) count as
/// one context each.
///
/// Memory: one batch, its latents and the examples.
///
/// # Errors
/// The source or the device failed.
pub fn collect(
    sae: &Sae,
    source: &Source,
    device: &Device,
    survey: &[Survey],
    chosen: &[usize],
    examples: usize,
    radius: usize,
) -> Result<Vec<Feature>, Error> {
    let window = [examples, radius];
    collect_seen(sae, source, device, survey, chosen, window, |_| ())
}

/// [`collect`]; `seen` gets the rows of a batch, and 1 for a latent whose snippets are read.
pub(super) fn collect_seen(
    sae: &Sae,
    source: &Source,
    device: &Device,
    survey: &[Survey],
    chosen: &[usize],
    [examples, radius]: [usize; 2],
    mut seen: impl FnMut(usize),
) -> Result<Vec<Feature>, Error> {
    let slot: HashMap<usize, usize> = chosen.iter().enumerate().map(|(s, &i)| (i, s)).collect();
    let mut histograms = vec![vec![0u64; BARS]; chosen.len()];
    let mut peaks = vec![Peaks::new(examples); chosen.len()];
    scan(sae, source, device, |range, active| {
        let contexts = contexts(source, range.clone())?;
        for (row, i, v) in active.each() {
            let Some(&s) = slot.get(&i) else { continue };
            let bar = (v / survey[chosen[s]].max * BARS as f32) as usize;
            histograms[s][bar.min(BARS - 1)] += 1;
            peaks[s].offer(v, range.start + row, contexts[row]);
        }
        seen(range.len());
        Ok(())
    })?;
    let features = chosen.iter().zip(histograms).zip(peaks);
    features
        .map(|((&index, histogram), peaks)| {
            let examples = snippets(sae, source, device, index, &peaks, radius)?;
            seen(1);
            Ok(Feature {
                index,
                survey: survey[index],
                histogram,
                examples,
            })
        })
        .collect()
}

fn contexts(source: &Source, range: Range<usize>) -> Result<Vec<u64>, Error> {
    Ok(match source.meta(range.clone())? {
        Some(meta) => meta.iter().map(|m| m.context).collect(),
        None => range.map(|r| r as u64).collect(),
    })
}

/// The largest activations of one latent, at most one a context, falling.
#[derive(Clone, Debug)]
struct Peaks {
    best: Vec<(f32, usize, u64)>,
    keep: usize,
}

impl Peaks {
    fn new(keep: usize) -> Self {
        Self {
            best: Vec::with_capacity(keep + 1),
            keep,
        }
    }

    fn offer(&mut self, value: f32, row: usize, context: u64) {
        if self.best.len() == self.keep && self.best.last().is_none_or(|l| value <= l.0) {
            return;
        }
        match self.best.iter().position(|b| b.2 == context) {
            Some(at) if self.best[at].0 >= value => return,
            Some(at) => drop(self.best.remove(at)),
            None => {}
        }
        let at = self.best.partition_point(|b| b.0 >= value);
        self.best.insert(at, (value, row, context));
        self.best.truncate(self.keep);
    }
}

fn snippets(
    sae: &Sae,
    source: &Source,
    device: &Device,
    index: usize,
    peaks: &Peaks,
    radius: usize,
) -> Result<Vec<Example>, Error> {
    let (mut rows, mut part, mut ranges) = (Vec::new(), Vec::new(), Vec::new());
    for &(_, row, context) in &peaks.best {
        let around = row.saturating_sub(radius)..(row + radius + 1).min(source.rows());
        let same: Vec<u64> = contexts(source, around.clone())?;
        let first = around.start + same.iter().position(|&c| c == context).unwrap_or(0);
        let range = first..first + same.iter().filter(|&&c| c == context).count();
        source.read_rows(range.clone(), &mut part)?;
        rows.append(&mut part);
        ranges.push(range);
    }
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let rows_read = rows.len() / sae.d_in();
    let active = encode(sae, rows, device)?;
    let mut of_row = vec![0.0; rows_read];
    active
        .each()
        .filter(|(_, i, _)| *i == index)
        .for_each(|(r, _, v)| of_row[r] = v);
    let mut at = 0;
    Ok(peaks
        .best
        .iter()
        .zip(ranges)
        .map(|(&(value, row, _), range)| {
            let activations = of_row[at..at + range.len()].to_vec();
            at += range.len();
            Example {
                row,
                value,
                rows: range,
                activations,
            }
        })
        .collect())
}

/// Token ids with their logits.
pub type TokenLogits = Vec<(u32, f32)>;

/// A latent's direct effect on next-token logits: the `n` tokens that its decoder row raises
/// most, and the `n` it lowers most, with `W_dec[index] · W_U`. Later layers and the final norm
/// are left out.
///
/// `unembedding` is `[vocab, d_model]`.
///
/// # Errors
/// The device failed.
pub fn promoted(
    sae: &Sae,
    index: usize,
    unembedding: &Tensor<2>,
    n: usize,
) -> Result<(TokenLogits, TokenLogits), Error> {
    let row = sae.w_dec.clone().narrow(0, index, 1);
    let logits: Vec<f32> = block_on(device::read(row.matmul(unembedding.clone().transpose())))?;
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
    let with = |i: &u32| (*i, logits[*i as usize]);
    let raised = order.iter().take(n).map(with).collect();
    Ok((raised, order.iter().rev().take(n).map(with).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peaks_keep_the_best_of_each_context() {
        let mut peaks = Peaks::new(2);
        for (value, row, context) in [
            (1.0, 0, 0),
            (3.0, 1, 0),
            (2.0, 2, 1),
            (2.5, 3, 0),
            (0.5, 4, 2),
            (9.0, 5, 3),
        ] {
            peaks.offer(value, row, context);
        }
        assert_eq!(peaks.best, [(9.0, 5, 3), (3.0, 1, 0)]);
    }

    #[test]
    fn rare_and_strong_comes_first() {
        let s = |fired, energy| Survey {
            fired,
            energy,
            ..Survey::default()
        };
        let all = [s(50, 10.0), s(5, 10.0), s(4, 1e9), s(500, 1e9), s(50, 40.0)];
        assert_eq!(interesting(&all, 2000, 10), [4, 1, 0]);
    }
}
