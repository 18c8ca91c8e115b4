//! A text as a stream of blocks, with byte offsets and a running hash.

use std::io::{self, Read};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// No block but the last is shorter, in bytes.
pub const MIN_BLOCK: usize = 64 << 10;
/// No block is longer, in bytes.
pub const MAX_BLOCK: usize = 1 << 20;

/// What can go wrong while a text is read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The reader failed.
    #[error("{name}: {source}")]
    Io {
        /// The text's name.
        name: String,
        /// The reader's error.
        source: io::Error,
    },
    /// The text is not UTF-8.
    #[error("{name}: not UTF-8 at byte {offset}")]
    Utf8 {
        /// The text's name.
        name: String,
        /// Byte offset of the first wrong byte.
        offset: u64,
    },
    /// The text does not begin as it did when the mark was taken.
    #[error("{name}: not the text that was begun with: its first {bytes} bytes have changed")]
    Changed {
        /// The text's name.
        name: String,
        /// Length in bytes of the beginning that was expected.
        bytes: u64,
    },
}

/// How far a text has been read: its first `bytes` bytes and their hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextMark {
    /// Bytes read.
    pub bytes: u64,
    /// SHA-256 of those bytes, in lower-case hex.
    pub sha256: String,
}

impl Default for TextMark {
    /// The mark of a text of which nothing has been read.
    fn default() -> Self {
        Self {
            bytes: 0,
            sha256: format!("{:x}", Sha256::new().finalize()),
        }
    }
}

/// A piece of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextBlock {
    /// The piece.
    pub text: String,
    /// Byte offset of its first byte in the whole text.
    pub start: u64,
}

/// Cuts a UTF-8 text into blocks; an iterator of [`TextBlock`]s that concatenate to the text.
///
/// A block ends after the first newline that makes it at least [`MIN_BLOCK`] long. If there is none
/// within [`MAX_BLOCK`], it ends before the first ASCII white space past [`MIN_BLOCK`] (so that a
/// word keeps its leading space), and failing that at the last character boundary. The cuts depend
/// on the text alone, never on how the reader hands it over. An empty text gives no block.
///
/// # Errors
/// The iterator yields an [`Error`] and then ends.
///
/// # Cost
/// One pass; holds [`MAX_BLOCK`] bytes and the block handed out.
///
/// # Example
/// ```
/// use inscape::capture::text::TextBlocks;
/// let blocks: Vec<_> = TextBlocks::new("one\ntwo".as_bytes(), "numbers")
///     .collect::<Result<_, _>>()
///     .unwrap();
/// assert_eq!((blocks.len(), blocks[0].text.as_str(), blocks[0].start), (1, "one\ntwo", 0));
/// ```
pub struct TextBlocks<R> {
    reader: R,
    name: String,
    pending: Vec<u8>,
    read: u64,
    hash: Sha256,
    expected: Option<TextMark>,
    ended: bool,
}

impl<R: Read> TextBlocks<R> {
    /// Reads from `reader`; `name` is the text's name in errors.
    pub fn new(reader: R, name: impl Into<String>) -> Self {
        Self {
            reader,
            name: name.into(),
            pending: Vec::new(),
            read: 0,
            hash: Sha256::new(),
            expected: None,
            ended: false,
        }
    }

    /// Requires the text to begin as the one `mark` was taken from: the block that reaches the mark
    /// is replaced by [`Error::Changed`] if it does not.
    pub fn expecting(mut self, mark: TextMark) -> Self {
        self.expected = (mark.bytes > 0).then_some(mark);
        self
    }

    /// The text's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How much of the text the blocks handed out so far cover, and its hash.
    pub fn mark(&self) -> TextMark {
        TextMark {
            bytes: self.read,
            sha256: format!("{:x}", self.hash.clone().finalize()),
        }
    }

    fn advance(&mut self) -> Result<Option<TextBlock>, Error> {
        self.fill()?;
        let text = self.take_block()?;
        self.check_expected(text.is_empty())?;
        let start = self.read - text.len() as u64;
        Ok((!text.is_empty()).then_some(TextBlock { text, start }))
    }

    /// Tops `pending` up to [`MAX_BLOCK`] bytes, or to what the text still has.
    fn fill(&mut self) -> Result<(), Error> {
        let wanted = (MAX_BLOCK - self.pending.len()) as u64;
        let read = self
            .reader
            .by_ref()
            .take(wanted)
            .read_to_end(&mut self.pending);
        read.map(drop).map_err(|source| Error::Io {
            name: self.name.clone(),
            source,
        })
    }

    fn take_block(&mut self) -> Result<String, Error> {
        let rest = self.pending.split_off(cut(&self.pending));
        let block = std::mem::replace(&mut self.pending, rest);
        let text = String::from_utf8(block).map_err(|e| Error::Utf8 {
            name: self.name.clone(),
            offset: self.read + e.utf8_error().valid_up_to() as u64,
        })?;
        self.hash.update(&text);
        self.read += text.len() as u64;
        Ok(text)
    }

    fn check_expected(&mut self, at_end: bool) -> Result<(), Error> {
        let Some(mark) = self.expected.take_if(|m| at_end || self.read >= m.bytes) else {
            return Ok(());
        };
        if mark == self.mark() {
            return Ok(());
        }
        Err(self.changed(mark.bytes))
    }

    pub(super) fn changed(&self, bytes: u64) -> Error {
        let name = self.name.clone();
        Error::Changed { name, bytes }
    }
}

impl<R: Read> Iterator for TextBlocks<R> {
    type Item = Result<TextBlock, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let block = self.advance().transpose();
        self.ended = !matches!(block, Some(Ok(_)));
        block
    }
}

/// Where the first block of `bytes` ends; `bytes` is [`MAX_BLOCK`] long unless the text ends in it.
fn cut(bytes: &[u8]) -> usize {
    let Some(tail) = bytes.get(MIN_BLOCK - 1..) else {
        return bytes.len();
    };
    if let Some(i) = tail.iter().position(|&b| b == b'\n') {
        return MIN_BLOCK + i;
    }
    if bytes.len() < MAX_BLOCK {
        return bytes.len();
    }
    if let Some(i) = tail[1..].iter().position(u8::is_ascii_whitespace) {
        return MIN_BLOCK + i;
    }
    match std::str::from_utf8(bytes) {
        Err(e) if e.error_len().is_none() => e.valid_up_to(),
        _ => bytes.len(),
    }
}
