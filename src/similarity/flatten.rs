//! How activations of more than two axes become rows.

use std::fmt;
use std::str::FromStr;

use burn::tensor::Tensor;

/// The rule by which activations `[n, t, d]` (tokens) or `[n, c, h, w]` (maps) become the rows of a
/// representation.
///
/// A position is a token, or a place `(h, w)` of a map, row by row from the top left; its features are
/// the `d` of the token, or the `c` channels there. Text and value turn into each other by [`FromStr`]
/// and [`fmt::Display`].
///
/// | text | rows of tokens | rows of maps | |
/// |---|---|---|---|
/// | `features` | `[n, t d]` | `[n, c h w]` | each input a row, in the tensor's order |
/// | `positions` | `[n t, d]` | `[n h w, c]` | each position of each input a row |
/// | `mean` | `[n, d]` | `[n, c]` | each input the mean of its positions |
/// | `first` | `[n, d]` | `[n, c]` | each input its first position, as the class token of a ViT |
/// | `last` | `[n, d]` | `[n, c]` | each input its last position, as in causal language models |
///
/// With `positions`, a metric compares the same place of the same input on both sides; the other side
/// needs as many positions.
///
/// # Cost
/// `positions` of maps moves every value once, `mean` reads each once; the others copy what they keep at
/// most.
///
/// # Example
/// ```
/// use inscape::{Device, similarity::Flatten};
/// use burn::tensor::Tensor;
///
/// let cpu = Device::cpu();
/// let tokens = Tensor::<3>::zeros([2, 5, 3], cpu.tensor());
/// let rule: Flatten = "positions".parse().unwrap();
/// assert_eq!(rule.tokens(tokens).dims(), [10, 3]);
/// let maps = Tensor::<4>::zeros([2, 3, 4, 4], cpu.tensor());
/// assert_eq!(Flatten::Mean.maps(maps).dims(), [2, 3]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Flatten {
    /// Each input one row of all its values.
    Features,
    /// Each position of each input one row of its features.
    Positions,
    /// Each input the mean over its positions.
    Mean,
    /// Each input its first position.
    First,
    /// Each input its last position.
    Last,
}

/// A name that no flattening rule has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown flattening `{given}`; known: {}", Flatten::ALL.map(Flatten::name).join(", "))]
pub struct UnknownFlatten {
    /// The text as given.
    pub given: String,
}

impl Flatten {
    /// Every rule.
    pub const ALL: [Self; 5] = [
        Self::Features,
        Self::Positions,
        Self::Mean,
        Self::First,
        Self::Last,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Features => "features",
            Self::Positions => "positions",
            Self::Mean => "mean",
            Self::First => "first",
            Self::Last => "last",
        }
    }

    /// The rows of tokens `[n, t, d]`.
    ///
    /// # Panics
    /// If there are no tokens of which to take the mean, first or last.
    pub fn tokens(self, x: Tensor<3>) -> Tensor<2> {
        let [n, t, d] = x.dims();
        assert!(
            t > 0 || matches!(self, Self::Features | Self::Positions),
            "Flatten::tokens: {self} of [{n}, {t}, {d}], which has no positions"
        );
        match self {
            Self::Features => x.reshape([n, t * d]),
            Self::Positions => x.reshape([n * t, d]),
            Self::Mean => x.mean_dim(1).reshape([n, d]),
            Self::First => x.narrow(1, 0, 1).reshape([n, d]),
            Self::Last => x.narrow(1, t - 1, 1).reshape([n, d]),
        }
    }

    /// The rows of maps `[n, c, h, w]`.
    ///
    /// # Panics
    /// If there are no places of which to take the mean, first or last.
    pub fn maps(self, x: Tensor<4>) -> Tensor<2> {
        let [n, c, h, w] = x.dims();
        match self {
            Self::Features => x.reshape([n, c * h * w]),
            _ => self.tokens(x.permute([0, 2, 3, 1]).reshape([n, h * w, c])),
        }
    }
}

impl FromStr for Flatten {
    type Err = UnknownFlatten;

    fn from_str(text: &str) -> Result<Self, UnknownFlatten> {
        let named = |rule: &Self| rule.name() == text.trim();
        Self::ALL.into_iter().find(named).ok_or(UnknownFlatten {
            given: text.to_owned(),
        })
    }
}

impl fmt::Display for Flatten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
