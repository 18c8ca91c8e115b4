use std::io::Read;
use std::path::Path;

use super::Error;
use super::contexts::{Contexts, Located, content, tokens};
use super::store::{
    Dtype, HookSpec, MANIFEST, ModelId, Positions, RowBlock, RowMeta, Settings, Store, Writer,
};
use super::text::{TextBlocks, TextMark};
use crate::device::{block_on, read};
use crate::hook::{HookPoint, Hooks};
use crate::model::{Network, load::Info};

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
            model: model_id(info),
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
        let ids = |context: &Vec<Located>| context.iter().map(|p| p.id).collect();
        let ids: Vec<Vec<u32>> = batch.iter().map(ids).collect();
        let tokens = tokens(network, &ids);
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

/// Which model it is, as files say it.
pub(super) fn model_id(info: &Info) -> ModelId {
    ModelId {
        id: info.id.clone(),
        family: info.family.clone(),
        sha256: info.sha256.clone(),
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
