use std::io::Read;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::Error;
use super::contexts::{Ids, tokens};
use super::run::model_id;
use super::store::{ModelId, Source};
use super::text::TextMark;
use crate::device::{block_on, read};
use crate::hook::{self, HookPoint, Hooks};
use crate::model::{Network, Tokens};

/// A model and a text to run it on when rows are read: what [`capture`](super::capture()) would store,
/// without the store.
///
/// The contexts are those of [`batches`](super::batches()), so a last one that is shorter is left out;
/// rows are those of the text's tokens, in its order. A pass runs `batch` contexts, serves all hooks and
/// ends after the last block that is needed. When one hook's rows are read, those of the other hooks
/// stay until the same rows of theirs are read, or others. On the CPU backend what is read depends on
/// the contexts that are read with it alone, in its last bits. Cheap to clone.
///
/// # Cost
/// Holds 4 bytes a token of the text; the model; while it runs, the activations of one pass at the
/// hooks; and of each hook but one as many rows as were read last. So beside its tokens, memory does not
/// grow with the text. Every read is a forward pass of all its contexts.
///
/// # Example
/// ```
/// use std::sync::Arc;
/// use inscape::{Device, capture::Live, model};
/// let network = Arc::new(model::load("tiny-lm-1", &Device::cpu())?);
/// let hook = "blocks.1.hook_resid_post";
/// let text = "Call me Ishmael. Some years ago, never mind how long precisely.".repeat(9);
/// let live = Live::new(network, text.as_bytes(), "loomings", &[hook.into()], 32, 16, None)?;
/// let rows = live.source(hook)?;
/// assert_eq!((rows.rows(), rows.width()), (live.contexts() * live.content(), 128));
/// let mut first = Vec::new();
/// rows.read_rows(0..5, &mut first)?;
/// assert_eq!(first.len(), 5 * 128);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Live(Arc<Inner>);

/// What the rows of a [`Live`] are made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveInfo {
    /// The model.
    pub model: ModelId,
    /// SHA-256 of its `tokenizer.json`.
    pub tokenizer_sha256: String,
    /// The text's name.
    pub text: String,
    /// What was read of the text, with its hash.
    pub read: TextMark,
    /// Tokens in a context, special tokens included.
    pub context: usize,
    /// Contexts in a forward pass.
    pub batch: usize,
    /// Where the text was to stop, in tokens.
    pub max_tokens: Option<u64>,
}

#[derive(Debug)]
struct Inner {
    network: Arc<Network>,
    info: LiveInfo,
    ids: Ids,
    hooks: Hooks,
    points: Vec<Point>,
    kept: Mutex<Option<Kept>>,
}

#[derive(Debug)]
struct Point {
    name: String,
    width: usize,
}

/// Rows that passes made for the hooks that have not asked for them yet.
#[derive(Debug)]
struct Kept {
    blocks: Vec<Range<usize>>,
    rows: Vec<Option<Vec<f32>>>,
}

/// Rows of one context, and which of those asked for they are.
struct Piece {
    context: usize,
    rows: Range<usize>,
    at: usize,
}

impl Live {
    /// Reads the text to its end, or until it has `max_tokens` tokens, and runs nothing yet. `hooks` are
    /// names or globs, `context` counts special tokens, `batch` is contexts in a forward pass.
    ///
    /// # Errors
    /// An unknown hook, or one without a row a position; a context that does not fit the model; a text
    /// that is empty or not UTF-8.
    ///
    /// # Panics
    /// If `batch` is 0.
    pub fn new(
        network: Arc<Network>,
        text: impl Read,
        text_name: &str,
        hooks: &[String],
        context: usize,
        batch: usize,
        max_tokens: Option<u64>,
    ) -> Result<Self, Error> {
        assert!(batch > 0, "Live: passes of 0 contexts");
        let hooks = hooks.iter().fold(Hooks::new(), |h, name| h.capture(name));
        let hooks = hooks.stop_after_last();
        let points = hooks.captured_points(&network.model.hook_points())?;
        let points = points.iter().map(Point::of).collect::<Result<_, _>>()?;
        let ids = Ids::of(&network, text, text_name, context, max_tokens)?;
        let info = LiveInfo {
            model: model_id(&network.info),
            tokenizer_sha256: network.info.tokenizer_sha256.clone(),
            text: text_name.into(),
            read: ids.text.clone(),
            context,
            batch,
            max_tokens,
        };
        Ok(Self(Arc::new(Inner {
            network,
            info,
            ids,
            hooks,
            points,
            kept: Mutex::new(None),
        })))
    }

    /// The rows at one of the hooks.
    ///
    /// # Errors
    /// [`hook::Error::NotCaptured`] if it is none of them.
    pub fn source(&self, hook: &str) -> Result<Source, Error> {
        let found = self.0.points.iter().position(|p| p.name == hook);
        let missing = || hook::Error::NotCaptured(hook.into());
        Ok(Source::live(self.clone(), found.ok_or_else(missing)?))
    }

    /// Contexts of the text.
    pub fn contexts(&self) -> usize {
        self.0.ids.contexts().len()
    }

    /// Tokens of the text in a context: its rows.
    pub fn content(&self) -> usize {
        self.0.ids.content
    }

    /// These contexts as a batch, the model's special tokens around each.
    ///
    /// # Panics
    /// If there are none, or one is not there.
    pub fn tokens(&self, contexts: impl IntoIterator<Item = usize>) -> Tokens {
        let content = self.content();
        let ids = |i: usize| &self.0.ids.ids[i * content..][..content];
        let rows: Vec<&[u32]> = contexts.into_iter().map(ids).collect();
        tokens(&self.0.network, &rows)
    }

    /// The model.
    pub fn network(&self) -> &Arc<Network> {
        &self.0.network
    }

    /// Which model and which text.
    pub fn info(&self) -> &LiveInfo {
        &self.0.info
    }

    /// Bytes of the rows that stay for other hooks while `rows` rows of one are served.
    pub(crate) fn kept_bytes(&self, rows: usize) -> u64 {
        let widths = self.0.points.iter().map(|p| p.width);
        let least = widths.clone().min().unwrap_or(0);
        4 * (rows * (widths.sum::<usize>() - least)) as u64
    }

    /// Bytes of the activations of a pass at the hooks.
    pub(crate) fn pass_bytes(&self) -> u64 {
        let widths: usize = self.0.points.iter().map(|p| p.width).sum();
        4 * (self.0.info.batch * self.0.info.context * widths) as u64
    }

    pub(super) fn hook_name(&self, hook: usize) -> &str {
        &self.0.points[hook].name
    }

    pub(super) fn width(&self, hook: usize) -> usize {
        self.0.points[hook].width
    }

    pub(super) fn token_ids(&self, rows: Range<usize>) -> &[u32] {
        &self.0.ids.ids[rows]
    }

    /// Writes the rows of these blocks, which ascend and do not overlap, over `out`.
    pub(super) fn read(
        &self,
        hook: usize,
        blocks: &[Range<usize>],
        out: &mut [f32],
    ) -> Result<(), Error> {
        let mut kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(rows) = kept.as_mut().and_then(|kept| kept.take(blocks, hook)) {
            out.copy_from_slice(&rows);
            return Ok(());
        }
        *kept = None;
        *kept = Some(self.run(hook, blocks, out)?);
        Ok(())
    }

    /// All passes for these blocks: the rows of one hook over `out`, those of the others to keep.
    fn run(&self, hook: usize, blocks: &[Range<usize>], out: &mut [f32]) -> Result<Kept, Error> {
        let count: usize = blocks.iter().map(Range::len).sum();
        let points = self.0.points.iter().enumerate();
        let place =
            |(i, p): (usize, &Point)| vec![0.0; if i == hook { 0 } else { count * p.width }];
        let mut others: Vec<Vec<f32>> = points.map(place).collect();
        let mut outs: Vec<&mut [f32]> = others.iter_mut().map(Vec::as_mut_slice).collect();
        outs[hook] = out;
        let pieces = pieces(blocks, self.content());
        let contexts: Vec<&[Piece]> = pieces.chunk_by(|a, b| a.context == b.context).collect();
        for contexts in contexts.chunks(self.0.info.batch) {
            self.pass(contexts, &mut outs)?;
        }
        let kept = |rows: Vec<f32>| (!rows.is_empty()).then_some(rows);
        Ok(Kept {
            blocks: blocks.to_vec(),
            rows: others.into_iter().map(kept).collect(),
        })
    }

    /// One forward pass over contexts, of each of which these pieces are wanted.
    fn pass(&self, contexts: &[&[Piece]], outs: &mut [&mut [f32]]) -> Result<(), Error> {
        let network = &self.0.network;
        let tokens = self.tokens(contexts.iter().map(|pieces| pieces[0].context));
        let run = network.run(&tokens, &self.0.hooks)?;
        let ([_, pos], first) = (tokens.dims(), network.tokenizer.special().0.len());
        for (Point { name, width }, out) in self.0.points.iter().zip(outs) {
            let values: Vec<f32> = block_on(read(run[name.as_str()].clone().rows()))?;
            for (pieces, values) in contexts.iter().zip(values.chunks_exact(pos * width)) {
                for piece in *pieces {
                    let rows = &values[(first + piece.rows.start) * width..];
                    let rows = &rows[..piece.rows.len() * width];
                    if let Some(i) = rows.iter().position(|v| !v.is_finite()) {
                        return Err(Error::NotFinite {
                            hook: name.clone(),
                            context: piece.context as u64,
                            position: (first + piece.rows.start + i / width) as u32,
                        });
                    }
                    out[piece.at * width..][..rows.len()].copy_from_slice(rows);
                }
            }
        }
        Ok(())
    }
}

impl Point {
    fn of(point: &HookPoint) -> Result<Self, Error> {
        let hook = point.site.to_string();
        match point.row_shape() {
            Some(shape) => Ok(Self {
                name: hook,
                width: shape.iter().product(),
            }),
            None => Err(Error::NoRows {
                hook,
                shape: point.shape_text(),
            }),
        }
    }
}

impl Kept {
    /// Moves out the rows of a hook, if they are those of these blocks.
    fn take(&mut self, blocks: &[Range<usize>], hook: usize) -> Option<Vec<f32>> {
        match self.blocks == blocks {
            true => self.rows[hook].take(),
            false => None,
        }
    }
}

fn pieces(blocks: &[Range<usize>], content: usize) -> Vec<Piece> {
    let (mut all, mut at) = (Vec::new(), 0);
    for block in blocks {
        let mut row = block.start;
        while row < block.end {
            let (context, from) = (row / content, row % content);
            let to = content.min(from + block.end - row);
            let rows = from..to;
            all.push(Piece { context, rows, at });
            (row, at) = (row + to - from, at + to - from);
        }
    }
    all
}
