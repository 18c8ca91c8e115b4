use std::{fmt, str::FromStr};

/// A place inside one transformer block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(
    missing_docs,
    reason = "each variant is documented by its TransformerLens name in BLOCK_SITES"
)]
pub enum BlockSite {
    ResidPre,
    Ln1Scale,
    Ln1Normalized,
    Q,
    K,
    V,
    RotQ,
    RotK,
    AttnScores,
    Pattern,
    Z,
    Result,
    AttnOut,
    ResidMid,
    Ln2Scale,
    Ln2Normalized,
    MlpPre,
    MlpPreLinear,
    MlpPost,
    MlpOut,
    ResidPost,
    NormalizedResidPost,
}

/// Every block site with its TransformerLens name after `blocks.{l}.`.
const BLOCK_SITES: [(BlockSite, &str); 22] = [
    (BlockSite::ResidPre, "hook_resid_pre"),
    (BlockSite::Ln1Scale, "ln1.hook_scale"),
    (BlockSite::Ln1Normalized, "ln1.hook_normalized"),
    (BlockSite::Q, "attn.hook_q"),
    (BlockSite::K, "attn.hook_k"),
    (BlockSite::V, "attn.hook_v"),
    (BlockSite::RotQ, "attn.hook_rot_q"),
    (BlockSite::RotK, "attn.hook_rot_k"),
    (BlockSite::AttnScores, "attn.hook_attn_scores"),
    (BlockSite::Pattern, "attn.hook_pattern"),
    (BlockSite::Z, "attn.hook_z"),
    (BlockSite::Result, "attn.hook_result"),
    (BlockSite::AttnOut, "hook_attn_out"),
    (BlockSite::ResidMid, "hook_resid_mid"),
    (BlockSite::Ln2Scale, "ln2.hook_scale"),
    (BlockSite::Ln2Normalized, "ln2.hook_normalized"),
    (BlockSite::MlpPre, "mlp.hook_pre"),
    (BlockSite::MlpPreLinear, "mlp.hook_pre_linear"),
    (BlockSite::MlpPost, "mlp.hook_post"),
    (BlockSite::MlpOut, "hook_mlp_out"),
    (BlockSite::ResidPost, "hook_resid_post"),
    (BlockSite::NormalizedResidPost, "hook_normalized_resid_post"),
];

/// A named place in a forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Site {
    /// `hook_embed`: token embeddings.
    Embed,
    /// `hook_pos_embed`: learned position embeddings.
    PosEmbed,
    /// `hook_token_type_embed`: BERT's segment embeddings.
    TokenTypeEmbed,
    /// `hook_full_embed`: BERT's normalised sum of embeddings, the input of block 0.
    FullEmbed,
    /// `blocks.{l}.…`
    Block(usize, BlockSite),
    /// `ln_final.hook_scale`.
    LnFinalScale,
    /// `ln_final.hook_normalized`.
    LnFinalNormalized,
}

const PLAIN_SITES: [(Site, &str); 6] = [
    (Site::Embed, "hook_embed"),
    (Site::PosEmbed, "hook_pos_embed"),
    (Site::TokenTypeEmbed, "hook_token_type_embed"),
    (Site::FullEmbed, "hook_full_embed"),
    (Site::LnFinalScale, "ln_final.hook_scale"),
    (Site::LnFinalNormalized, "ln_final.hook_normalized"),
];

impl Site {
    /// The block this site is in, if it is in one.
    pub fn layer(&self) -> Option<usize> {
        match self {
            Self::Block(layer, _) => Some(*layer),
            _ => None,
        }
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Block(layer, site) => {
                let (_, name) = BLOCK_SITES
                    .iter()
                    .find(|(s, _)| s == site)
                    .expect("table is total");
                write!(f, "blocks.{layer}.{name}")
            }
            plain => {
                let (_, name) = PLAIN_SITES
                    .iter()
                    .find(|(s, _)| s == plain)
                    .expect("table is total");
                f.write_str(name)
            }
        }
    }
}

/// The text is no TransformerLens hook name that this crate knows.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a hook name")]
pub struct ParseSiteError(String);

impl FromStr for Site {
    type Err = ParseSiteError;

    fn from_str(text: &str) -> Result<Self, ParseSiteError> {
        parse_plain(text)
            .or_else(|| parse_block(text))
            .ok_or_else(|| ParseSiteError(text.into()))
    }
}

fn parse_plain(text: &str) -> Option<Site> {
    PLAIN_SITES
        .iter()
        .find(|(_, name)| *name == text)
        .map(|(site, _)| *site)
}

fn parse_block(text: &str) -> Option<Site> {
    let (layer, name) = text.strip_prefix("blocks.")?.split_once('.')?;
    let canonical =
        layer.bytes().all(|b| b.is_ascii_digit()) && (layer == "0" || !layer.starts_with('0'));
    let (site, _) = BLOCK_SITES.iter().find(|(_, n)| *n == name)?;
    canonical
        .then(|| layer.parse().ok())
        .flatten()
        .map(|layer| Site::Block(layer, *site))
}

/// One dimension of a hook point's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dim {
    /// Rows of the batch.
    Batch,
    /// Token positions.
    Pos,
    /// A number the model fixes.
    Size(usize),
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Batch => f.write_str("batch"),
            Self::Pos => f.write_str("pos"),
            Self::Size(n) => write!(f, "{n}"),
        }
    }
}

/// A site of a model and the shape of what passes there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookPoint {
    /// Where.
    pub site: Site,
    /// `[batch, pos, 384]`, `[batch, 12, pos, pos]`, …
    pub shape: Vec<Dim>,
}

impl HookPoint {
    /// `[batch, pos, width]`.
    pub fn rows(site: Site, width: usize) -> Self {
        Self {
            site,
            shape: vec![Dim::Batch, Dim::Pos, Dim::Size(width)],
        }
    }

    /// `[batch, pos, heads, d_head]`.
    pub fn heads(site: Site, heads: usize, d_head: usize) -> Self {
        Self {
            site,
            shape: vec![Dim::Batch, Dim::Pos, Dim::Size(heads), Dim::Size(d_head)],
        }
    }

    /// `[batch, heads, pos, pos]`.
    pub fn square(site: Site, heads: usize) -> Self {
        Self {
            site,
            shape: vec![Dim::Batch, Dim::Size(heads), Dim::Pos, Dim::Pos],
        }
    }

    /// The shape of one position's row (`[384]`, `[12, 32]`), or `None` where a position has
    /// no row of fixed size (attention scores and patterns).
    pub fn row_shape(&self) -> Option<Vec<usize>> {
        let sizes = self.shape.get(2..)?.iter();
        let fixed = sizes.map(|d| if let Dim::Size(n) = d { Some(*n) } else { None });
        (self.shape[1] == Dim::Pos)
            .then(|| fixed.collect())
            .flatten()
    }

    /// `[batch, pos, 384]`.
    pub fn shape_text(&self) -> String {
        let dims: Vec<String> = self.shape.iter().map(Dim::to_string).collect();
        format!("[{}]", dims.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_name_comes_back() {
        let blocks = BLOCK_SITES.iter().map(|(s, _)| Site::Block(7, *s));
        for site in blocks.chain(PLAIN_SITES.iter().map(|(s, _)| *s)) {
            assert_eq!(site.to_string().parse(), Ok(site));
        }
        assert_eq!(
            Site::Block(3, BlockSite::Pattern).to_string(),
            "blocks.3.attn.hook_pattern"
        );
    }

    #[test]
    fn near_misses_are_refused() {
        for text in [
            "",
            "blocks.3",
            "blocks.03.hook_resid_pre",
            "blocks.-1.hook_resid_pre",
            "blocks.3.hook_resid",
            "Hook_embed",
        ] {
            assert!(text.parse::<Site>().is_err(), "{text}");
        }
    }

    #[test]
    fn scores_have_no_row() {
        assert_eq!(
            HookPoint::square(Site::Block(0, BlockSite::Pattern), 12).row_shape(),
            None
        );
        assert_eq!(
            HookPoint::heads(Site::Block(0, BlockSite::Z), 12, 32).row_shape(),
            Some(vec![12, 32])
        );
        assert_eq!(HookPoint::rows(Site::Embed, 8).row_shape(), Some(vec![8]));
    }

    proptest! {
        #[test]
        fn layers_round_trip(layer in 0usize..100_000, i in 0usize..BLOCK_SITES.len()) {
            let site = Site::Block(layer, BLOCK_SITES[i].0);
            prop_assert_eq!(site.to_string().parse(), Ok(site));
        }

        #[test]
        fn parsing_never_panics(text in ".{0,40}") {
            let _ = text.parse::<Site>();
        }
    }
}
