//! Whole contexts of a running model, in a seeded order, for end-to-end training.

use std::ops::Range;

use super::Job;
use crate::capture::Live;
use crate::capture::store::{Source, permutation};
use crate::model::Tokens;
use crate::sae::{EndToEnd, EndToEndPass, Error};

/// What an end-to-end job runs: every epoch all contexts that lie within its rows, in an order that
/// depends on the seed alone.
pub(super) struct Contexts {
    live: Live,
    hooks: [Vec<String>; 2],
    settings: EndToEnd,
    range: Range<usize>,
    /// Contexts a step.
    batch: usize,
    seed: u64,
    /// The epoch that `order` belongs to.
    epoch: Option<u64>,
    order: Vec<usize>,
}

impl Contexts {
    /// # Errors
    /// [`Error::Config`]: the job reads from no model, its batch is not of whole contexts, or the model
    /// has no such hooks or no predictions.
    pub(super) fn new(job: &Job, settings: EndToEnd, seed: u64) -> Result<Self, Error> {
        let bad = |text: String| Err(Error::Config(text));
        let Some(live) = job.source.model().cloned() else {
            let name = job.source.name();
            return bad(format!(
                "end-to-end training runs the model: {name} is no model on a text"
            ));
        };
        let (content, batch) = (live.content(), job.config.batch);
        if !batch.is_multiple_of(content) {
            let fits = (batch / content).max(1) * content;
            return bad(format!(
                "batch = {batch}: end-to-end batches are whole contexts of {content} rows; {fits} fits"
            ));
        }
        let rows = job.source.first_row()..job.source.first_row() + job.source.rows();
        let range = rows.start.div_ceil(content)..rows.end / content;
        if range.is_empty() {
            return bad(format!(
                "{} rows hold no whole context of {content}",
                rows.len()
            ));
        }
        let names = |source: &Source| {
            let parts = source.parts().iter();
            parts
                .filter_map(|s| s.hook_name().map(str::to_owned))
                .collect()
        };
        let all = Self {
            hooks: [
                names(&job.source),
                job.target.as_ref().map(names).unwrap_or_default(),
            ],
            live,
            settings,
            range,
            batch: batch / content,
            seed,
            epoch: None,
            order: Vec::new(),
        };
        // What the model does not have, or cannot do, is refused before anything is written.
        all.pass(&all.live.tokens([all.range.start]))?;
        Ok(all)
    }

    /// The tokens of a step, counted from 1.
    pub(super) fn tokens(&mut self, step: u64) -> Tokens {
        let (n, first) = (self.range.len() as u64, (step - 1) * self.batch as u64);
        let mut chosen = Vec::new();
        for at in first..first + self.batch as u64 {
            let epoch = at / n;
            if self.epoch != Some(epoch) {
                self.order = permutation(n as usize, self.seed, epoch, 0);
                self.epoch = Some(epoch);
            }
            chosen.push(self.range.start + self.order[(at % n) as usize]);
        }
        self.live.tokens(chosen)
    }

    /// The model's run on them.
    pub(super) fn pass<'a>(&'a self, tokens: &'a Tokens) -> Result<EndToEndPass<'a>, Error> {
        let network = self.live.network();
        let first = network.tokenizer.special().0.len();
        let [read, write] = &self.hooks;
        EndToEndPass::new(
            network.model.as_ref(),
            tokens,
            [read, write],
            [first, self.live.content()],
            self.settings,
        )
    }
}
