//! A text as contexts of token ids.

use std::collections::VecDeque;
use std::io::Read;

use super::Error;
use super::text::{TextBlocks, TextMark};
use crate::model::{Network, Tokens, load::Piece};

/// The contexts that [`capture`](super::capture()) would run on a text, as rows of token ids with the
/// model's special tokens, in batches. The last context is left out if it is shorter than the others
/// and not alone, so that every batch is unpadded.
///
/// # Errors
/// As [`capture`](super::capture()), for the text and the context.
pub fn batches(
    network: &Network,
    text: impl Read,
    text_name: &str,
    context: usize,
    batch: usize,
    max_tokens: Option<u64>,
) -> Result<Vec<Tokens>, Error> {
    let ids = Ids::of(network, text, text_name, context, max_tokens)?;
    let rows: Vec<&[u32]> = ids.contexts().collect();
    Ok(rows
        .chunks(batch)
        .map(|rows| tokens(network, rows))
        .collect())
}

/// The token ids of a text's contexts, all of one length.
#[derive(Debug)]
pub(super) struct Ids {
    /// One context after another, special tokens not among them.
    pub(super) ids: Vec<u32>,
    /// Ids in a context.
    pub(super) content: usize,
    /// What was read of the text.
    pub(super) text: TextMark,
}

impl Ids {
    /// As [`batches`], without the model's special tokens.
    pub(super) fn of(
        network: &Network,
        text: impl Read,
        text_name: &str,
        context: usize,
        max_tokens: Option<u64>,
    ) -> Result<Self, Error> {
        let content = content(network, context)?;
        let blocks = TextBlocks::new(text, text_name);
        let mut contexts = Contexts::new(network, blocks, content, max_tokens);
        contexts.fill_one()?;
        let mut ids: Vec<u32> = Vec::new();
        while let Some(next) = contexts.next()? {
            if next.len() == content || ids.is_empty() {
                ids.extend(next.iter().map(|p| p.id));
            }
        }
        Ok(Self {
            content: content.min(ids.len()),
            ids,
            text: contexts.blocks.mark(),
        })
    }

    /// The contexts.
    pub(super) fn contexts(&self) -> impl ExactSizeIterator<Item = &[u32]> {
        self.ids.chunks_exact(self.content)
    }
}

/// Contexts of token ids as a batch, with the model's special tokens around each.
pub(super) fn tokens(network: &Network, contexts: &[impl AsRef<[u32]>]) -> Tokens {
    let (prefix, suffix) = network.tokenizer.special();
    let row = |context: &_| [prefix, AsRef::as_ref(context), suffix].concat();
    Tokens::new(contexts.iter().map(row).collect())
}

/// Tokens of the text in a context, or why the context does not fit the model.
pub(super) fn content(network: &Network, context: usize) -> Result<usize, Error> {
    let (prefix, suffix) = network.tokenizer.special();
    let (special, longest) = (prefix.len() + suffix.len(), network.model.max_context());
    if context <= special || context > longest {
        return Err(Error::Context {
            context,
            special,
            longest,
        });
    }
    Ok(context - special)
}

/// A token with its place in the whole text.
#[derive(Clone, Copy)]
pub(super) struct Located {
    pub(super) id: u32,
    pub(super) start: u64,
    pub(super) end: u64,
}

/// Cuts a text into contexts of `content` tokens; the last may be shorter.
pub(super) struct Contexts<'a, R> {
    network: &'a Network,
    pub(super) blocks: TextBlocks<R>,
    content: usize,
    left: u64,
    pending: VecDeque<Located>,
    ended: bool,
}

impl<'a, R: Read> Contexts<'a, R> {
    pub(super) fn new(
        network: &'a Network,
        blocks: TextBlocks<R>,
        content: usize,
        max_tokens: Option<u64>,
    ) -> Self {
        let left = max_tokens.unwrap_or(u64::MAX);
        Self {
            network,
            blocks,
            content,
            left,
            pending: VecDeque::new(),
            ended: false,
        }
    }

    pub(super) fn batch(&mut self, size: usize) -> Result<Vec<Vec<Located>>, Error> {
        let mut batch = Vec::with_capacity(size);
        while batch.len() < size {
            let Some(context) = self.next()? else { break };
            batch.push(context);
        }
        Ok(batch)
    }

    pub(super) fn fill_one(&mut self) -> Result<(), Error> {
        while self.pending.len() < self.content
            && !self.ended
            && (self.pending.len() as u64) < self.left
        {
            self.fill()?;
        }
        match self.pending.is_empty() {
            true => Err(Error::EmptyText {
                name: self.blocks.name().into(),
            }),
            false => Ok(()),
        }
    }

    pub(super) fn next(&mut self) -> Result<Option<Vec<Located>>, Error> {
        while self.pending.len() < self.content
            && !self.ended
            && (self.pending.len() as u64) < self.left
        {
            self.fill()?;
        }
        let n = self
            .pending
            .len()
            .min(self.content)
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= n as u64;
        let context: Vec<Located> = self.pending.drain(..n).collect();
        Ok((!context.is_empty()).then_some(context))
    }

    fn fill(&mut self) -> Result<(), Error> {
        let Some(block) = self.blocks.next().transpose()? else {
            self.ended = true;
            return Ok(());
        };
        let locate = |p: Piece| Located {
            id: p.id,
            start: block.start + p.start as u64,
            end: block.start + p.end as u64,
        };
        self.pending.extend(
            self.network
                .tokenizer
                .encode(&block.text)?
                .into_iter()
                .map(locate),
        );
        Ok(())
    }
}
