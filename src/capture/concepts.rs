//! Labels that a text gives its own tokens, for probes that need nothing but the text.
//!
//! A [`Concept`] is a property of a token, of the text around it, or of the token after it.

use std::ops::Range;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::store::RowMeta;

/// Something that a token is or is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Concept {
    /// Starts a word: begins with white space and has a letter after it.
    WordStart,
    /// Its first letter is a capital.
    Capital,
    /// Nothing but punctuation, and white space around it.
    Punctuation,
    /// Has a digit.
    Digit,
    /// Has a line break.
    Newline,
    /// Its first letter is a vowel.
    Vowel,
    /// One of the commonest English words without a meaning of their own, whole.
    FunctionWord,
    /// Inside double quotation marks, the marks included.
    InQuotes,
    /// The next token starts a word.
    NextWordStart,
    /// The next token's first letter is a capital.
    NextCapital,
    /// The next token is punctuation.
    NextPunctuation,
    /// The next token has a line break.
    NextNewline,
}

const FUNCTION_WORDS: &[&str] = &[
    "the", "of", "and", "a", "to", "in", "that", "it", "his", "i", "he", "but", "as", "with", "is",
    "was", "for", "all", "this", "at", "by", "not", "from", "him", "be", "on", "so", "or", "an",
];

impl Concept {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::WordStart,
        Self::Capital,
        Self::Punctuation,
        Self::Digit,
        Self::Newline,
        Self::Vowel,
        Self::FunctionWord,
        Self::InQuotes,
        Self::NextWordStart,
        Self::NextCapital,
        Self::NextPunctuation,
        Self::NextNewline,
    ];

    /// Its name in commands and files, such as `word_start`.
    pub fn name(self) -> &'static str {
        match self {
            Self::WordStart => "word_start",
            Self::Capital => "capital",
            Self::Punctuation => "punctuation",
            Self::Digit => "digit",
            Self::Newline => "newline",
            Self::Vowel => "vowel",
            Self::FunctionWord => "function_word",
            Self::InQuotes => "in_quotes",
            Self::NextWordStart => "next_word_start",
            Self::NextCapital => "next_capital",
            Self::NextPunctuation => "next_punctuation",
            Self::NextNewline => "next_newline",
        }
    }

    /// Whether each of the tokens of a stretch of text has it. Tokens are given as a reader sees
    /// them ([`Tokenizer::show`](crate::model::load::Tokenizer::show)): with a leading space where a
    /// word starts.
    ///
    /// `None` where the stretch does not tell: the last token's next one, and what lies before the
    /// first quotation mark or blank line.
    ///
    /// ```
    /// use inscape::capture::concepts::Concept;
    ///
    /// let tokens = [" Call", " me", " Ish", "ma", "el", "."];
    /// let labels = Concept::Capital.labels(&tokens);
    /// assert_eq!(labels, [true, false, true, false, false, false].map(Some));
    /// let labels = Concept::NextPunctuation.labels(&tokens);
    /// assert_eq!((labels[4], labels[5]), (Some(true), None));
    /// ```
    pub fn labels<T: AsRef<str>>(self, tokens: &[T]) -> Vec<Option<bool>> {
        if self == Self::InQuotes {
            return in_quotes(tokens);
        }
        let next = |of: Self| {
            let mut labels = of.labels(tokens);
            labels.rotate_left(1.min(tokens.len()));
            if let Some(last) = labels.last_mut() {
                *last = None;
            }
            labels
        };
        match self {
            Self::NextWordStart => next(Self::WordStart),
            Self::NextCapital => next(Self::Capital),
            Self::NextPunctuation => next(Self::Punctuation),
            Self::NextNewline => next(Self::Newline),
            own => tokens.iter().map(|t| Some(own.is(t.as_ref()))).collect(),
        }
    }

    /// Of a token alone.
    fn is(self, token: &str) -> bool {
        let word = token.trim();
        let first = word.chars().find(|c| c.is_alphabetic());
        match self {
            Self::WordStart => {
                token.starts_with(char::is_whitespace) && word.starts_with(char::is_alphabetic)
            }
            Self::Capital => first.is_some_and(char::is_uppercase),
            Self::Punctuation => !word.is_empty() && word.chars().all(is_punctuation),
            Self::Digit => word.chars().any(|c| c.is_ascii_digit()),
            Self::Newline => token.contains('\n'),
            Self::Vowel => first.is_some_and(|c| "aeiouAEIOU".contains(c)),
            Self::FunctionWord => {
                token.starts_with(char::is_whitespace)
                    && FUNCTION_WORDS.contains(&word.to_lowercase().as_str())
            }
            _ => false,
        }
    }
}

fn is_punctuation(c: char) -> bool {
    c.is_ascii_punctuation() || "“”‘’—–…".contains(c)
}

/// A name that no concept has.
#[derive(Debug, thiserror::Error)]
#[error("unknown concept `{given}`; known: {}", Concept::ALL.map(Concept::name).join(", "))]
pub struct UnknownConcept {
    /// The text as given.
    pub given: String,
}

impl FromStr for Concept {
    type Err = UnknownConcept;

    fn from_str(text: &str) -> Result<Self, UnknownConcept> {
        let mut all = Self::ALL.into_iter();
        all.find(|c| c.name() == text)
            .ok_or_else(|| UnknownConcept { given: text.into() })
    }
}

/// Where a text is in its quotations.
#[derive(Default)]
struct Quotes {
    /// `None` until a mark or a blank line tells.
    inside: Option<bool>,
    after_break: bool,
    after_text: bool,
}

impl Quotes {
    fn step(&mut self, c: char) {
        match c {
            '“' => self.inside = Some(true),
            '”' => self.inside = Some(false),
            // Where nothing has told yet, a mark right after text closes.
            '"' => self.inside = Some(!self.inside.unwrap_or(self.after_text)),
            '\n' if self.after_break => self.inside = Some(false),
            _ => {}
        }
        self.after_break = c == '\n' || (self.after_break && c.is_whitespace());
        self.after_text = !c.is_whitespace();
    }
}

/// A token is inside where it begins, ends or passes inside.
fn in_quotes<T: AsRef<str>>(tokens: &[T]) -> Vec<Option<bool>> {
    let mut quotes = Quotes::default();
    let of_token = |token: &T| {
        let mut inside = quotes.inside;
        for c in token.as_ref().chars() {
            quotes.step(c);
            inside = match (inside, quotes.inside) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (_, now) => now,
            };
        }
        inside
    };
    tokens.iter().map(of_token).collect()
}

/// The stretches of stored rows whose tokens follow each other in one context.
pub fn stretches(meta: &[RowMeta]) -> Vec<Range<usize>> {
    let follows = |a: &RowMeta, b: &RowMeta| a.context == b.context && a.position + 1 == b.position;
    let mut start = 0;
    let ranges = meta.chunk_by(follows).map(|part| {
        let range = start..start + part.len();
        start = range.end;
        range
    });
    ranges.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(concept: Concept, text: &[&str]) -> String {
        let letter = |l: Option<bool>| l.map_or('?', |l| if l { 'x' } else { '.' });
        concept.labels(text).into_iter().map(letter).collect()
    }

    #[test]
    fn tokens_by_themselves() {
        let text = [
            " The", "re", " are", " 17", "—", " “", "Ah", "\n", " the", " ",
        ];
        for (concept, want) in [
            (Concept::WordStart, "x.x.....x."),
            (Concept::Capital, "x.....x..."),
            (Concept::Punctuation, "....xx...."),
            (Concept::Digit, "...x......"),
            (Concept::Newline, ".......x.."),
            (Concept::Vowel, "..x...x..."),
            (Concept::FunctionWord, "x.......x."),
            (Concept::NextCapital, ".....x...?"),
            (Concept::NextNewline, "......x..?"),
        ] {
            assert_eq!(labels(concept, &text), want, "{concept:?}");
        }
    }

    #[test]
    fn quotations_open_close_and_end_with_the_paragraph() {
        let text = [
            "a", " “", "b", "” c", "d", "\n", "“e", "\n", " \n", "f", " \"g", "h\"", "i",
        ];
        assert_eq!(labels(Concept::InQuotes, &text), "?xxx..xxx.xx.");
        assert_eq!(labels(Concept::InQuotes, &["a", ".", "\"", " b"]), "??..");
    }

    #[test]
    fn every_name_is_read_back() {
        for concept in Concept::ALL {
            assert_eq!(concept.name().parse::<Concept>().unwrap(), concept);
            let json = serde_json::to_string(&concept).unwrap();
            assert_eq!(json, format!("\"{}\"", concept.name()));
        }
        let error = "colour".parse::<Concept>().unwrap_err().to_string();
        assert!(error.contains("`colour`") && error.contains("next_newline"));
    }

    #[test]
    fn nothing_follows_over_a_gap() {
        let row = |context, position| RowMeta {
            token_id: 0,
            position,
            context,
            offset_start: 0,
            offset_end: 0,
        };
        let meta = [row(0, 1), row(0, 2), row(0, 4), row(1, 5), row(1, 6)];
        assert_eq!(stretches(&meta), [0..2, 2..3, 3..5]);
        assert!(stretches(&[]).is_empty());
    }
}
