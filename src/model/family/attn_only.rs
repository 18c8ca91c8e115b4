//! Attention-only language models (Elhage et al. 2021, "A mathematical framework for transformer
//! circuits"): tokens, blocks of nothing but attention, logits. The smallest models with induction heads.
//!
//! As TransformerLens's `attn-only-2l` with `attn_only` and `positional_embedding_type: "shortformer"`
//! (Press, Smith & Lewis 2021): a learned position is added to what queries and keys read and to nothing
//! else, so that the residual stream, values and heads' outputs hold no position. Simpler than those: no
//! layer norms, no biases. `hook_result` `[batch, pos, heads, d_model]` is what each head adds to the
//! residual stream.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::hook::{BlockSite, HookPoint, Site, Tap};
use crate::model::layers::{Attention, Linear, attention_mask, embed};
use crate::model::load::{Error, TensorSource, unsupported};
use crate::model::{Model, Output, Param, Tokens};

/// `config.json` of an attention-only model, with TransformerLens's field names.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are TransformerLens's")]
pub struct Config {
    /// `attn_only`.
    #[serde(default = "attn_only")]
    pub model_type: String,
    pub n_layers: usize,
    pub n_heads: usize,
    pub d_model: usize,
    pub d_head: usize,
    pub d_vocab: usize,
    pub n_ctx: usize,
    /// `shortformer`.
    #[serde(default = "shortformer")]
    pub positional_embedding_type: String,
    /// None.
    #[serde(default)]
    pub normalization_type: Option<String>,
}

fn attn_only() -> String {
    "attn_only".into()
}

fn shortformer() -> String {
    "shortformer".into()
}

impl Config {
    fn check(&self) -> Result<(), Error> {
        if self.positional_embedding_type != "shortformer" {
            let given = &self.positional_embedding_type;
            return Err(unsupported("positional_embedding_type", given));
        }
        if let Some(given) = &self.normalization_type {
            return Err(unsupported("normalization_type", given));
        }
        for (field, size) in [
            ("n_heads", self.n_heads),
            ("d_head", self.d_head),
            ("d_model", self.d_model),
        ] {
            if size == 0 {
                return Err(unsupported(field, "0"));
            }
        }
        Ok(())
    }
}

/// A causal language model of attention blocks alone.
#[derive(Clone, Debug)]
pub struct AttnOnly {
    config: Config,
    /// `[d_vocab, d_model]`.
    embed: Tensor<2>,
    /// `[n_ctx, d_model]`.
    pos_embed: Tensor<2>,
    blocks: Vec<Attention>,
    /// `[d_model, d_vocab]`.
    unembed: Tensor<2>,
}

impl AttnOnly {
    /// Builds the model from tensors by name: `embed.W_E`, `pos_embed.W_pos` and `unembed.W_U` as
    /// TransformerLens has them; `blocks.{l}.attn.{q,k,v,o}.weight`, where it has three dimensions, as
    /// matrices `[d_out, d_in]` with the heads side by side.
    ///
    /// # Errors
    /// A setting this family does not compute, or a tensor that is missing or misshapen.
    pub fn new(config: Config, source: &mut dyn TensorSource) -> Result<Self, Error> {
        config.check()?;
        let d = config.d_model;
        let embed = source.r2("embed.W_E", [config.d_vocab, d])?;
        let pos_embed = source.r2("pos_embed.W_pos", [config.n_ctx, d])?;
        let blocks = (0..config.n_layers)
            .map(|l| block(&config, l, source))
            .collect::<Result<_, _>>()?;
        let unembed = source.r2("unembed.W_U", [d, config.d_vocab])?;
        Ok(Self {
            config,
            embed,
            pos_embed,
            blocks,
            unembed,
        })
    }

    /// Its configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    fn positions(&self, [batch, pos]: [usize; 2], tap: &mut Tap<'_>) -> Tensor<3> {
        let rows = self
            .pos_embed
            .clone()
            .slice([0..pos, 0..self.config.d_model]);
        let rows = rows.unsqueeze::<3>();
        tap.at(
            Site::PosEmbed,
            rows.expand([batch, pos, self.config.d_model]),
        )
    }
}

fn block(config: &Config, layer: usize, source: &mut dyn TensorSource) -> Result<Attention, Error> {
    let (d, all) = (config.d_model, config.n_heads * config.d_head);
    let mut linear = |part: &str, shape| {
        let weight = source.r2(&format!("blocks.{layer}.attn.{part}.weight"), shape)?;
        Ok::<_, Error>(Linear { weight, bias: None })
    };
    Ok(Attention {
        q: linear("q", [all, d])?,
        k: linear("k", [all, d])?,
        v: linear("v", [all, d])?,
        o: linear("o", [d, all])?,
        heads: config.n_heads,
        kv_heads: config.n_heads,
        d_head: config.d_head,
    })
}

fn block_points(config: &Config, layer: usize) -> Vec<HookPoint> {
    use BlockSite as B;
    let (d, heads) = (config.d_model, config.n_heads);
    let row = |s| HookPoint::rows(Site::Block(layer, s), d);
    let head = |s, width| HookPoint::heads(Site::Block(layer, s), heads, width);
    let square = |s| HookPoint::square(Site::Block(layer, s), heads);
    vec![
        row(B::ResidPre),
        head(B::Q, config.d_head),
        head(B::K, config.d_head),
        head(B::V, config.d_head),
        square(B::AttnScores),
        square(B::Pattern),
        head(B::Z, config.d_head),
        head(B::Result, d),
        row(B::AttnOut),
        row(B::ResidPost),
    ]
}

impl Model for AttnOnly {
    fn hook_points(&self) -> Vec<HookPoint> {
        let d = self.config.d_model;
        let blocks = (0..self.blocks.len()).flat_map(|l| block_points(&self.config, l));
        [Site::Embed, Site::PosEmbed]
            .map(|s| HookPoint::rows(s, d))
            .into_iter()
            .chain(blocks)
            .collect()
    }

    fn forward(&self, tokens: &Tokens, tap: &mut Tap<'_>) -> Output {
        let device = self.embed.device();
        let dims = tokens.dims();
        let mask = attention_mask(dims[1], true, tokens.mask(&device), &device);
        let mut x = tap.at(Site::Embed, embed(&self.embed, tokens.ids(&device)));
        let positions = self.positions(dims, tap);
        for (layer, attn) in self.blocks.iter().enumerate() {
            if tap.done() {
                return Output::default();
            }
            let at = |s| Site::Block(layer, s);
            x = tap.at(at(BlockSite::ResidPre), x);
            let qk = x.clone() + positions.clone();
            let out = attn.forward_from([qk, x.clone()], None, mask.clone(), layer, tap);
            x = x + tap.at(at(BlockSite::AttnOut), out);
            x = tap.at(at(BlockSite::ResidPost), x);
        }
        if tap.done() {
            return Output::default();
        }
        let unembed = Linear {
            weight: self.unembed.clone().transpose(),
            bias: None,
        };
        Output {
            logits: Some(unembed.forward(x)),
            ..Output::default()
        }
    }

    fn max_context(&self) -> usize {
        self.config.n_ctx
    }

    fn vocab_size(&self) -> usize {
        self.config.d_vocab
    }

    fn params(&mut self) -> Vec<(String, Param<'_>)> {
        let mut all = vec![
            ("embed.W_E".into(), Param::R2(&mut self.embed)),
            ("pos_embed.W_pos".into(), Param::R2(&mut self.pos_embed)),
        ];
        for (layer, attn) in self.blocks.iter_mut().enumerate() {
            let parts = [
                ("q", &mut attn.q),
                ("k", &mut attn.k),
                ("v", &mut attn.v),
                ("o", &mut attn.o),
            ];
            for (part, linear) in parts {
                let name = format!("blocks.{layer}.attn.{part}.weight");
                all.push((name, Param::R2(&mut linear.weight)));
            }
        }
        all.push(("unembed.W_U".into(), Param::R2(&mut self.unembed)));
        all
    }

    fn unembedding(&self) -> Option<Tensor<2>> {
        Some(self.unembed.clone().transpose())
    }
}
