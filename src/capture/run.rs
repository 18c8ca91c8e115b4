use std::collections::VecDeque;
use std::io::Read;
use std::path::Path;

use super::Error;
use super::store::{
    Dtype, HookSpec, MANIFEST, ModelId, Positions, RowBlock, RowMeta, Settings, Store, Writer,
};
use super::text::{TextBlocks, TextMark};
use crate::device::{block_on, read};
use crate::hook::{HookPoint, Hooks};
use crate::model::{Network, Tokens, load::Piece};

/// What to capture from a text.
#[derive(Clone, Debug)]
pub struct CaptureConfig {
    /// Hook names or globs.
    pub hooks: Vec<String>,
    /// Which rows of a context are kept. Special tokens are never among them.
    pub positions: Positions,
    /// The number format of the rows on disk.
    pub dtype: Dtype,
    /// Contexts in a forward pass.
    pub batch: usize,
    /// Tokens in a context, special tokens included.
    pub context: usize,
    /// Where to stop, in tokens of the text.
    pub max_tokens: Option<u64>,
    /// About how large a shard is; it is held in memory until it is full.
    pub shard_bytes: usize,
}

impl CaptureConfig {
    /// Every position in f32, 16 contexts of 128 tokens a pass, shards of about 128 MiB.
    pub fn new<S: Into<String>>(hooks: impl IntoIterator<Item = S>) -> Self {
        Self {
            hooks: hooks.into_iter().map(Into::into).collect(),
            positions: Positions::All,
            dtype: Dtype::F32,
            batch: 16,
            context: 128,
            max_tokens: None,
            shard_bytes: 128 << 20,
        }
    }
}

/// How far a capture has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Tokens of the text done, those of earlier runs included.
    pub tokens: u64,
    /// Tokens that earlier runs had done.
    pub resumed: u64,
    /// Bytes of the text read.
    pub bytes: u64,
}

/// Runs a model over a text and streams the activations at the chosen points to a store.
///
/// The text is cut into contexts of consecutive tokens without overlap; the model's special
/// tokens go around each and their rows are dropped. One forward pass serves all hooks and
/// ends after the last block that is needed. `text` is read once, as a stream; `resume`
/// continues after the last finished shard and, on the CPU backend, ends in the same bytes as
/// an uninterrupted run.
///
/// Memory: the model, one batch's activations at the hooks, one shard.
///
/// # Errors
/// An unknown hook, or one without a row a position; a context that does not fit the model; a
/// text that is empty, not UTF-8, or not the one the store was begun with; NaN activations;
/// settings that differ from the store's; a full disk. What was finished stays whole.
#[allow(
    clippy::too_many_arguments,
    reason = "a capture has this many independent parts"
)]
pub fn capture(
    network: &Network,
    text: impl Read,
    text_name: &str,
    dir: &Path,
    config: &CaptureConfig,
    resume: bool,
    device_name: &str,
    mut seen: impl FnMut(Progress),
) -> Result<Store, Error> {
    let plan = Plan::new(network, text_name, config, device_name)?;
    let mut contexts = Contexts::new(
        network,
        TextBlocks::new(text, text_name),
        plan.content,
        config.max_tokens,
    );
    let begun = resume && dir.join(MANIFEST).exists();
    if !begun {
        contexts.fill_one()?; // an empty or broken text leaves no directory behind
    }
    let (mut writer, skip) = match resume {
        true => Store::resume(dir, &plan.settings)?,
        false => (Store::create(dir, plan.settings.clone())?, 0),
    };
    if writer.is_complete() {
        return Ok(writer.finish()?);
    }
    if begun {
        contexts.blocks = contexts.blocks.expecting(writer.manifest().text.clone());
    }
    let (mut tokens, mut resumed) = (0, 0);
    for _ in 0..skip {
        resumed += contexts.next()?.map_or(0, |c| c.len() as u64);
    }
    let mark = &writer.manifest().text;
    match skip {
        0 => contexts.fill_one()?,
        _ if contexts.blocks.mark() == *mark => {}
        _ => return Err(contexts.blocks.changed(mark.bytes).into()), // cut short, say
    }
    tokens += resumed;
    let mut index = skip;
    loop {
        let batch = contexts.batch(config.batch)?;
        if batch.is_empty() {
            break;
        }
        tokens += batch.iter().map(|c| c.len() as u64).sum::<u64>();
        let block = plan.rows(network, &batch, index)?;
        index += batch.len() as u64;
        let mark = contexts.blocks.mark();
        let bytes = mark.bytes;
        push(&mut writer, mark, &block)?;
        seen(Progress {
            tokens,
            resumed,
            bytes,
        });
    }
    Ok(writer.finish()?)
}

fn push(writer: &mut Writer, mark: TextMark, block: &RowBlock) -> Result<(), Error> {
    writer.mark_text(mark);
    Ok(writer.push(block)?)
}

/// The contexts that [`capture`] would run on a text, as rows of token ids with the model's
/// special tokens, in batches. The last context is left out if it is shorter than the others
/// and not alone, so that every batch is unpadded.
///
/// # Errors
/// As [`capture`], for the text and the context.
pub fn batches(
    network: &Network,
    text: impl Read,
    text_name: &str,
    context: usize,
    batch: usize,
    max_tokens: Option<u64>,
) -> Result<Vec<Tokens>, Error> {
    let content = content(network, context)?;
    let mut contexts = Contexts::new(
        network,
        TextBlocks::new(text, text_name),
        content,
        max_tokens,
    );
    contexts.fill_one()?;
    let mut rows = Vec::new();
    while let Some(next) = contexts.next()? {
        rows.push(with_special(network, &next));
    }
    if rows.len() > 1 && rows.last().is_some_and(|r| r.len() < context) {
        rows.pop();
    }
    Ok(rows
        .chunks(batch)
        .map(|rows| Tokens::new(rows.to_vec()))
        .collect())
}

fn with_special(network: &Network, context: &[Located]) -> Vec<u32> {
    let (prefix, suffix) = network.tokenizer.special();
    prefix
        .iter()
        .copied()
        .chain(context.iter().map(|p| p.id))
        .chain(suffix.iter().copied())
        .collect()
}

/// Tokens of the text in a context, or why the context does not fit the model.
fn content(network: &Network, context: usize) -> Result<usize, Error> {
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

/// What does not change from batch to batch.
struct Plan {
    hooks: Hooks,
    points: Vec<HookPoint>,
    settings: Settings,
    /// Tokens of the text in a full context.
    content: usize,
}

impl Plan {
    fn new(
        network: &Network,
        text: &str,
        config: &CaptureConfig,
        device: &str,
    ) -> Result<Self, Error> {
        let hooks = config
            .hooks
            .iter()
            .fold(Hooks::new(), |h, name| h.capture(name))
            .stop_after_last();
        let points = hooks.captured_points(&network.model.hook_points())?;
        let spec = |p: &HookPoint| match p.row_shape() {
            Some(shape) => Ok(HookSpec::new(p.site.to_string(), shape)),
            None => Err(Error::NoRows {
                hook: p.site.to_string(),
                shape: p.shape_text(),
            }),
        };
        let specs = points.iter().map(spec).collect::<Result<Vec<_>, _>>()?;
        let content = content(network, config.context)?;
        let prefix = network.tokenizer.special().0.len();
        if let Positions::Range { start, end } = config.positions
            && (start >= prefix + content || end <= prefix)
        {
            return Err(Error::NoPositions {
                start,
                end,
                first: prefix,
                last: prefix + content - 1,
            });
        }
        let info = &network.info;
        let settings = Settings {
            model: ModelId {
                id: info.id.clone(),
                family: info.family.clone(),
                sha256: info.sha256.clone(),
            },
            tokenizer_sha256: info.tokenizer_sha256.clone(),
            text: text.into(),
            positions: config.positions,
            context: config.context,
            batch: config.batch,
            contexts_per_shard: config.batch,
            max_tokens: config.max_tokens,
            device: device.into(),
            dtype: config.dtype,
            hooks: specs,
        };
        let settings = settings.with_shard_bytes(config.shard_bytes);
        Ok(Self {
            hooks,
            points,
            settings,
            content,
        })
    }

    /// One forward pass, and the rows to keep of it.
    fn rows(
        &self,
        network: &Network,
        batch: &[Vec<Located>],
        first: u64,
    ) -> Result<RowBlock, Error> {
        let prefix = network.tokenizer.special().0;
        let tokens = Tokens::new(batch.iter().map(|c| with_special(network, c)).collect());
        let run = network.run(&tokens, &self.hooks)?;
        let [_, pos] = tokens.dims();
        let kept: Vec<Kept> = batch
            .iter()
            .enumerate()
            .flat_map(|(i, c)| {
                keep(
                    self.settings.positions,
                    c,
                    prefix.len(),
                    first + i as u64,
                    i * pos,
                )
            })
            .collect();
        let mut hooks = Vec::new();
        for point in &self.points {
            let name = point.site.to_string();
            let values: Vec<f32> = block_on(read(run[name.as_str()].clone().rows()))?;
            let width = values.len() / (batch.len() * pos);
            let rows: Vec<f32> = kept.iter().flat_map(|k| k.take(&values, width)).collect();
            if let Some(i) = rows.iter().position(|v| !v.is_finite()) {
                let row = kept[i / width].meta;
                return Err(Error::NotFinite {
                    hook: name,
                    context: row.context,
                    position: row.position,
                });
            }
            hooks.push(rows);
        }
        Ok(RowBlock {
            contexts: batch.len(),
            meta: kept.into_iter().map(|k| k.meta).collect(),
            hooks,
        })
    }
}

/// One row to keep: the mean over the rows `from..to` of the pass (one row, usually).
struct Kept {
    meta: RowMeta,
    from: usize,
    to: usize,
}

impl Kept {
    fn take(&self, values: &[f32], width: usize) -> Vec<f32> {
        if self.to == self.from + 1 {
            return values[self.from * width..self.to * width].to_vec();
        }
        let n = (self.to - self.from) as f64;
        let mean = |w| {
            (self.from..self.to)
                .map(|r| f64::from(values[r * width + w]))
                .sum::<f64>()
                / n
        };
        (0..width).map(|w| mean(w) as f32).collect()
    }
}

/// The rows of one context. Positions count from the first token of the model's input, so the
/// first token of the text stands at `prefix`.
fn keep(
    positions: Positions,
    context: &[Located],
    prefix: usize,
    index: u64,
    base: usize,
) -> Vec<Kept> {
    let row = |i: usize| Kept {
        meta: RowMeta {
            token_id: context[i].id,
            position: (prefix + i) as u32,
            context: index,
            offset_start: context[i].start,
            offset_end: context[i].end,
        },
        from: base + prefix + i,
        to: base + prefix + i + 1,
    };
    let last = context.len() - 1;
    match positions {
        Positions::All => (0..context.len()).map(row).collect(),
        Positions::Last => vec![row(last)],
        Positions::Range { start, end } => {
            let range = start.saturating_sub(prefix)..end.saturating_sub(prefix).min(context.len());
            range.map(row).collect()
        }
        Positions::Mean => {
            let meta = RowMeta {
                offset_start: context[0].start,
                ..row(last).meta
            };
            vec![Kept {
                meta,
                from: base + prefix,
                to: base + prefix + context.len(),
            }]
        }
    }
}

/// A token with its place in the whole text.
#[derive(Clone, Copy)]
struct Located {
    id: u32,
    start: u64,
    end: u64,
}

/// Cuts a text into contexts of `content` tokens; the last may be shorter.
struct Contexts<'a, R> {
    network: &'a Network,
    blocks: TextBlocks<R>,
    content: usize,
    left: u64,
    pending: VecDeque<Located>,
    ended: bool,
}

impl<'a, R: Read> Contexts<'a, R> {
    fn new(
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

    fn batch(&mut self, size: usize) -> Result<Vec<Vec<Located>>, Error> {
        let mut batch = Vec::with_capacity(size);
        while batch.len() < size {
            let Some(context) = self.next()? else { break };
            batch.push(context);
        }
        Ok(batch)
    }

    fn fill_one(&mut self) -> Result<(), Error> {
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

    fn next(&mut self) -> Result<Option<Vec<Located>>, Error> {
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
