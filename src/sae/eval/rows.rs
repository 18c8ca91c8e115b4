use std::ops::Range;

use super::probing::finite;
use super::{ClassMeans, Labelled};
use crate::Device;
use crate::capture::store::Source;
use crate::sae::features::{Active, scan};
use crate::sae::{Error, Sae};

/// A concept and where it is.
#[derive(Clone, Debug)]
pub struct LabelledConcept {
    /// Its name.
    pub name: String,
    /// Whether each row of the source has it; `None` where that cannot be told.
    pub labels: Vec<Option<bool>>,
}

impl LabelledConcept {
    /// Rows that count for it, and those of them that have it.
    pub(super) fn count(&self, range: &Range<usize>) -> [usize; 2] {
        let labels = self.labels[range.clone()].iter().flatten();
        [labels.clone().count(), labels.filter(|l| **l).count()]
    }

    /// The rows of `x` that count for it; `x` holds the rows `range` of the source.
    pub(super) fn of(
        &self,
        what: &str,
        range: &Range<usize>,
        x: &[f32],
    ) -> Result<Labelled, Error> {
        let labels = &self.labels[range.clone()];
        let width = x.len() / labels.len().max(1);
        let rows = x.chunks(width.max(1)).zip(labels);
        let (x, labels): (Vec<&[f32]>, Vec<bool>) =
            rows.filter_map(|(x, l)| Some((x, (*l)?))).unzip();
        let what = format!("{}, {what} rows", self.name);
        Ok(Labelled::new(what, x.concat(), width, labels)?)
    }
}

/// Rows that concepts label, and the autoencoder that encodes them.
pub(super) struct ConceptRows<'a> {
    pub(super) sae: &'a Sae,
    pub(super) source: &'a Source,
    pub(super) concepts: &'a [LabelledConcept],
    pub(super) device: &'a Device,
}

impl ConceptRows<'_> {
    /// Refuses widths that differ; panics unless there is a label a row.
    pub(super) fn check(&self) -> Result<(), Error> {
        for concept in self.concepts {
            let (found, rows) = (concept.labels.len(), self.source.rows());
            assert_eq!(found, rows, "labels of {}", concept.name);
        }
        if self.source.width() == self.sae.d_in() {
            return Ok(());
        }
        let (name, width) = (self.source.name(), self.source.width());
        let d_in = self.sae.d_in();
        let text = format!("{name} has rows of width {width}, the autoencoder takes {d_in}");
        Err(Error::Config(text))
    }

    pub(super) fn labels(&self, range: &Range<usize>) -> Vec<&[Option<bool>]> {
        let concepts = self.concepts.iter();
        concepts.map(|c| &c.labels[range.clone()]).collect()
    }

    /// Encodes rows and hands every batch over, its range in the numbering of the source.
    pub(super) fn encode(
        &self,
        rows: &Range<usize>,
        seen: &mut impl FnMut(usize),
        mut each: impl FnMut(Range<usize>, &Active) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let part = self.source.sub(rows.clone())?;
        scan(self.sae, &part, self.device, |range, active| {
            finite(active, range.len())?;
            seen(range.len());
            each(rows.start + range.start..rows.start + range.end, active)
        })
    }

    /// Class-mean differences of every concept on training rows.
    pub(super) fn differences(
        &self,
        train: &Range<usize>,
        seen: &mut impl FnMut(usize),
    ) -> Result<Vec<Vec<f64>>, Error> {
        let mut means = ClassMeans::new(self.sae.d_sae(), self.concepts.len());
        self.encode(train, seen, |range, active| {
            means.add_active(active, range.len(), &self.labels(&range));
            Ok(())
        })?;
        let of = |(c, concept): (usize, &LabelledConcept)| {
            means.differences(c, &format!("{}, training rows", concept.name))
        };
        let concepts = self.concepts.iter().enumerate();
        Ok(concepts.map(of).collect::<Result<_, _>>()?)
    }
}

/// The latents of each of `n` rows.
pub(super) fn latents_of_rows(active: &Active, n: usize) -> Vec<Vec<(usize, f32)>> {
    let mut rows = vec![Vec::new(); n];
    active
        .each()
        .for_each(|(row, latent, value)| rows[row].push((latent, value)));
    rows
}
