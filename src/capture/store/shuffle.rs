//! Shuffled batches through a bounded buffer.

use std::ops::Range;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::{Error, Source};

/// A buffer size that mixes well, in rows.
pub const BUFFER_ROWS: usize = 1 << 16;

/// Rows that are read together, unless the buffer is too small for it.
const BLOCK: usize = 256;

/// An endless stream of batches in which every row comes once per epoch, in an order that depends
/// on the seed alone, never on the machine or its threads.
///
/// Each epoch permutes blocks of up to 256 consecutive rows (of a running model whole contexts, at
/// least one), fills the buffer with as many blocks as it holds, permutes the rows in the buffer,
/// serves them, and goes on to the next blocks. A row thus travels any distance, and its company is drawn from `buffer_rows / 256` places. Batches run
/// on over the end of an epoch. The position is the number of rows served, so [`seek`] continues a
/// run exactly.
///
/// [`seek`]: ShuffledBatches::seek
///
/// # Cost
/// Holds `buffer_rows` rows of f32 (or all rows if there are fewer), one number per row of those
/// and one per 256 rows of the source; reads each row once per epoch, or once
/// if they all fit. A buffer is filled by one read of
/// the source, which depends on the seed, the epoch and how often it was filled in it alone.
///
/// # Example
/// ```
/// use inscape::capture::store::{BUFFER_ROWS, ShuffledBatches, Source};
/// let source = Source::memory("count", (0..10).map(|i| i as f32).collect(), 1);
/// let mut batches = ShuffledBatches::new(source, 42, BUFFER_ROWS, 5)?;
/// let (mut first, mut second) = (Vec::new(), Vec::new());
/// batches.next_batch(&mut first)?;
/// batches.next_batch(&mut second)?;
/// let mut epoch = [first, second].concat();
/// epoch.sort_by(f32::total_cmp);
/// assert_eq!(epoch, [0., 1., 2., 3., 4., 5., 6., 7., 8., 9.]);
/// # Ok::<(), inscape::capture::store::Error>(())
/// ```
pub struct ShuffledBatches {
    source: Source,
    seed: u64,
    batch: usize,
    /// Rows in a block; only the source's first and last block may be shorter.
    block: usize,
    /// Blocks in a full buffer.
    blocks: usize,
    /// Rows served since the beginning of the first epoch.
    served: u64,
    /// The epoch that `order` belongs to.
    epoch: Option<u64>,
    /// The epoch's blocks in the order they are read.
    order: Vec<usize>,
    buffer: Buffer,
}

/// The rows being served.
#[derive(Default)]
struct Buffer {
    epoch: u64,
    /// Its rows in the epoch's numbering; empty if nothing is loaded.
    span: Range<usize>,
    /// Which of `rows` comes when.
    order: Vec<usize>,
    /// Where `rows` come from.
    blocks: Vec<Range<usize>>,
    rows: Vec<f32>,
}

impl ShuffledBatches {
    /// Serves batches of `batch` rows through a buffer of `buffer_rows` rows, rounded down to whole
    /// blocks.
    ///
    /// # Errors
    /// [`Error::Empty`] if the source has no rows.
    ///
    /// # Panics
    /// If `batch` is 0.
    pub fn new(source: Source, seed: u64, buffer_rows: usize, batch: usize) -> Result<Self, Error> {
        assert!(batch > 0, "ShuffledBatches: a batch of 0 rows");
        if source.rows() == 0 {
            let name = source.name().to_owned();
            return Err(Error::Empty { name });
        }
        let (block, _) = source.cuts((buffer_rows / 64).clamp(1, BLOCK));
        Ok(Self {
            source,
            seed,
            batch,
            block,
            blocks: (buffer_rows / block).max(1),
            served: 0,
            epoch: None,
            order: Vec::new(),
            buffer: Buffer::default(),
        })
    }

    /// The source.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Batches served, or skipped by [`ShuffledBatches::seek`].
    pub fn step(&self) -> u64 {
        self.served / self.batch as u64
    }

    /// The epoch of the next row, and how many of that epoch's rows were served.
    pub fn position(&self) -> (u64, usize) {
        let rows = self.source.rows() as u64;
        (self.served / rows, (self.served % rows) as usize)
    }

    /// Goes to where `step` batches have been served. Reads nothing.
    pub fn seek(&mut self, step: u64) {
        self.served = step * self.batch as u64;
    }

    /// Replaces `out` with the next batch, `[batch, width]` in row-major order.
    ///
    /// # Errors
    /// As for [`Source::read_rows`], above all [`Error::NotFinite`]; the position stays.
    pub fn next_batch(&mut self, out: &mut Vec<f32>) -> Result<(), Error> {
        let start = self.served;
        out.clear();
        while self.served < start + self.batch as u64 {
            let wanted = (start + self.batch as u64 - self.served) as usize;
            match self.serve(wanted, out) {
                Ok(rows) => self.served += rows as u64,
                Err(e) => {
                    self.served = start;
                    return Err(e);
                }
            }
        }
        Ok(())
    }

    /// Appends up to `wanted` rows from one buffer.
    fn serve(&mut self, wanted: usize, out: &mut Vec<f32>) -> Result<usize, Error> {
        let (epoch, at) = self.position();
        if self.buffer.epoch != epoch || !self.buffer.span.contains(&at) {
            self.load(epoch, at)?;
        }
        let (buffer, width) = (&self.buffer, self.source.width());
        let first = at - buffer.span.start;
        let last = (first + wanted).min(buffer.order.len());
        for &row in &buffer.order[first..last] {
            out.extend_from_slice(&buffer.rows[row * width..][..width]);
        }
        Ok(last - first)
    }

    /// Loads the buffer that holds row `at` of the epoch's order.
    fn load(&mut self, epoch: u64, at: usize) -> Result<(), Error> {
        if self.epoch != Some(epoch) {
            let count = self.source.block_count(self.block);
            self.order = permutation(count, self.seed, epoch, 0);
            self.epoch = Some(epoch);
        }
        let (fill, start) = self.find(at);
        let ids = self
            .order
            .chunks(self.blocks)
            .nth(fill)
            .expect("a buffer holds every row");
        let mut blocks: Vec<_> = ids.iter().map(|&id| self.rows_of(id)).collect();
        blocks.sort_by_key(|rows| rows.start);
        let rows = blocks.iter().map(Range::len).sum();
        self.buffer.span = 0..0;
        if self.buffer.blocks != blocks {
            self.buffer.blocks.clear();
            self.buffer.rows.resize(rows * self.source.width(), 0.0);
            self.source.read_blocks(&blocks, &mut self.buffer.rows)?;
            self.buffer.blocks = blocks;
        }
        self.buffer.order = permutation(rows, self.seed, epoch, 1 + fill as u64);
        self.buffer.epoch = epoch;
        self.buffer.span = start..start + rows;
        Ok(())
    }

    /// Which filling of the buffer holds row `at` of the epoch's order, and its first row.
    fn find(&self, at: usize) -> (usize, usize) {
        let mut start = 0;
        for (fill, ids) in self.order.chunks(self.blocks).enumerate() {
            let rows: usize = ids.iter().map(|&id| self.rows_of(id).len()).sum();
            if at < start + rows {
                return (fill, start);
            }
            start += rows;
        }
        unreachable!("row {at} of an epoch of {start} rows")
    }

    fn rows_of(&self, block: usize) -> Range<usize> {
        self.source.block(self.block, block)
    }
}

/// A permutation of `0..n` (Fisher and Yates, as Durstenfeld gives it, 1964), drawn from a generator
/// of its own for each seed, epoch and use.
pub(crate) fn permutation(n: usize, seed: u64, epoch: u64, usage: u64) -> Vec<usize> {
    let mut key = [0; 32];
    for (bytes, value) in key.chunks_exact_mut(8).zip([seed, epoch, usage]) {
        bytes.copy_from_slice(&value.to_le_bytes());
    }
    let mut rng = ChaCha8Rng::from_seed(key);
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        order.swap(i, below(&mut rng, i as u64 + 1));
    }
    order
}

/// A number below `n`, with a bias of at most n / 2^64.
fn below(rng: &mut ChaCha8Rng, n: u64) -> usize {
    ((u128::from(rng.next_u64()) * u128::from(n)) >> 64) as usize
}
