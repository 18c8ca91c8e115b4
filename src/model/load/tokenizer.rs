use super::{Error, malformed};

/// One token of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Token id.
    pub id: u32,
    /// First byte in the text.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

/// A Hugging Face `tokenizer.json`, with its own truncation and padding switched off.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    prefix: Vec<u32>,
    suffix: Vec<u32>,
}

impl Tokenizer {
    /// Reads `tokenizer.json`.
    ///
    /// # Errors
    /// The bytes are no tokenizer.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let bad = |e: tokenizers::Error| malformed("tokenizer.json", e);
        let mut inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(bad)?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(bad)?;
        let plain = inner.encode("a", false).map_err(bad)?.get_ids().to_vec();
        let full = inner.encode("a", true).map_err(bad)?.get_ids().to_vec();
        let at = full
            .windows(plain.len().max(1))
            .position(|w| w == plain)
            .unwrap_or(0);
        let (prefix, suffix) = (full[..at].to_vec(), full[at + plain.len()..].to_vec());
        Ok(Self {
            inner,
            prefix,
            suffix,
        })
    }

    /// Special tokens that go before and after a text (`[CLS]` and `[SEP]` for BERT).
    pub fn special(&self) -> (&[u32], &[u32]) {
        (&self.prefix, &self.suffix)
    }

    /// The tokens of a text with their byte offsets, without special tokens.
    ///
    /// # Errors
    /// The tokenizer refuses the text.
    pub fn encode(&self, text: &str) -> Result<Vec<Piece>, Error> {
        let encoding = self
            .inner
            .encode(text, false)
            .map_err(|e| malformed("tokenizer.json", e))?;
        let offsets = encoding.get_offsets().iter();
        Ok(encoding
            .get_ids()
            .iter()
            .zip(offsets)
            .map(|(&id, &(start, end))| Piece { id, start, end })
            .collect())
    }

    /// The ids of a text between its special tokens.
    ///
    /// # Errors
    /// The tokenizer refuses the text.
    pub fn encode_with_special(&self, text: &str) -> Result<Vec<u32>, Error> {
        let ids = self.encode(text)?.into_iter().map(|p| p.id);
        Ok(self
            .prefix
            .iter()
            .copied()
            .chain(ids)
            .chain(self.suffix.iter().copied())
            .collect())
    }

    /// Number of ids.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// A token as a reader would see it inside a text: a leading space where the token starts
    /// a word, no continuation marks.
    pub fn show(&self, id: u32) -> String {
        let Some(token) = self.inner.id_to_token(id) else {
            return format!("<{id}>");
        };
        if let Some(rest) = token.strip_prefix("##") {
            return rest.into();
        }
        if token.contains('\u{2581}') {
            return token.replace('\u{2581}', " ");
        }
        match self.inner.decode(&[id], false) {
            Ok(text) if !text.is_empty() && self.is_byte_level() => text,
            _ if self.is_word_piece() && token.chars().all(char::is_alphanumeric) => {
                format!(" {token}")
            }
            _ => token,
        }
    }

    fn is_byte_level(&self) -> bool {
        matches!(
            self.inner.get_decoder(),
            Some(tokenizers::DecoderWrapper::ByteLevel(_))
        )
    }

    fn is_word_piece(&self) -> bool {
        matches!(
            self.inner.get_model(),
            tokenizers::ModelWrapper::WordPiece(_)
        )
    }
}
