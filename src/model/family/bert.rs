//! BERT (Devlin et al. 2019) as a sentence encoder: all-MiniLM-L6-v2 and its kin.
//!
//! Post-norm blocks, so names mean what they mean in TransformerLens's `BertBlock`:
//! `hook_resid_mid` and `hook_resid_post` are the sums *before* the layer norms,
//! `hook_normalized_resid_post` is the block's output and equals the next `hook_resid_pre`.

use burn::tensor::{Device, Tensor, TensorData, activation::gelu};
use serde::Deserialize;

use crate::hook::{BlockSite, HookPoint, Site, Tap};
use crate::model::layers::{Attention, LayerNorm, Linear, attention_mask, embed};
use crate::model::load::{Error, TensorSource, unsupported};
use crate::model::{Model, Output, Param, Tokens};

/// `config.json` of a BERT model.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs, reason = "the fields are Hugging Face's")]
pub struct Config {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub vocab_size: usize,
    pub max_position_embeddings: usize,
    pub type_vocab_size: usize,
    pub layer_norm_eps: f64,
    pub hidden_act: String,
    #[serde(default = "absolute")]
    pub position_embedding_type: String,
}

fn absolute() -> String {
    "absolute".into()
}

impl Config {
    fn check(&self) -> Result<(), Error> {
        if self.hidden_act != "gelu" {
            return Err(unsupported("hidden_act", &self.hidden_act));
        }
        if self.position_embedding_type != "absolute" {
            return Err(unsupported(
                "position_embedding_type",
                &self.position_embedding_type,
            ));
        }
        if self.num_attention_heads == 0
            || !self.hidden_size.is_multiple_of(self.num_attention_heads)
        {
            return Err(unsupported(
                "num_attention_heads",
                &self.num_attention_heads.to_string(),
            ));
        }
        Ok(())
    }
}

#[derive(Clone, Debug)]
struct Block {
    attn: Attention,
    ln1: LayerNorm,
    up: Linear,
    down: Linear,
    ln2: LayerNorm,
}

/// A BERT encoder with mean-pooled, normalised sentence embeddings.
#[derive(Clone, Debug)]
pub struct Bert {
    config: Config,
    prefix: String,
    word: Tensor<2>,
    position: Tensor<2>,
    token_type: Tensor<2>,
    ln: LayerNorm,
    blocks: Vec<Block>,
}

/// Reads the tensors of one BERT under its name prefix (`""` or `"bert."`).
struct Reader<'a> {
    source: &'a mut dyn TensorSource,
    prefix: String,
    eps: f64,
}

impl Reader<'_> {
    fn r2(&mut self, name: &str, shape: [usize; 2]) -> Result<Tensor<2>, Error> {
        self.source.r2(&format!("{}{name}", self.prefix), shape)
    }

    fn r1(&mut self, name: &str, len: usize) -> Result<Tensor<1>, Error> {
        self.source.r1(&format!("{}{name}", self.prefix), len)
    }

    fn linear(&mut self, name: &str, shape: [usize; 2]) -> Result<Linear, Error> {
        let weight = self.r2(&format!("{name}.weight"), shape)?;
        let bias = Some(self.r1(&format!("{name}.bias"), shape[0])?);
        Ok(Linear { weight, bias })
    }

    fn norm(&mut self, name: &str, d: usize) -> Result<LayerNorm, Error> {
        let weight = self.r1(&format!("{name}.weight"), d)?;
        Ok(LayerNorm {
            weight,
            bias: self.r1(&format!("{name}.bias"), d)?,
            eps: self.eps,
        })
    }

    fn block(&mut self, config: &Config, layer: usize) -> Result<Block, Error> {
        let (d, ff, heads) = (
            config.hidden_size,
            config.intermediate_size,
            config.num_attention_heads,
        );
        let name = |part: &str| format!("encoder.layer.{layer}.{part}");
        let q = self.linear(&name("attention.self.query"), [d, d])?;
        let k = self.linear(&name("attention.self.key"), [d, d])?;
        let v = self.linear(&name("attention.self.value"), [d, d])?;
        let o = self.linear(&name("attention.output.dense"), [d, d])?;
        Ok(Block {
            attn: Attention {
                q,
                k,
                v,
                o,
                heads,
                kv_heads: heads,
                d_head: d / heads,
            },
            ln1: self.norm(&name("attention.output.LayerNorm"), d)?,
            up: self.linear(&name("intermediate.dense"), [ff, d])?,
            down: self.linear(&name("output.dense"), [d, ff])?,
            ln2: self.norm(&name("output.LayerNorm"), d)?,
        })
    }
}

impl Bert {
    /// Builds the model from tensors by name, with or without the prefix `bert.`.
    ///
    /// # Errors
    /// A setting this family does not compute, or a tensor that is missing or misshapen.
    pub fn new(config: Config, source: &mut dyn TensorSource) -> Result<Self, Error> {
        config.check()?;
        let prefixed = source.has("bert.embeddings.word_embeddings.weight");
        let prefix = if prefixed { "bert." } else { "" }.to_string();
        let d = config.hidden_size;
        let mut reader = Reader {
            source,
            prefix: prefix.clone(),
            eps: config.layer_norm_eps,
        };
        let word = reader.r2("embeddings.word_embeddings.weight", [config.vocab_size, d])?;
        let position = reader.r2(
            "embeddings.position_embeddings.weight",
            [config.max_position_embeddings, d],
        )?;
        let token_type = reader.r2(
            "embeddings.token_type_embeddings.weight",
            [config.type_vocab_size, d],
        )?;
        let ln = reader.norm("embeddings.LayerNorm", d)?;
        let blocks = (0..config.num_hidden_layers)
            .map(|l| reader.block(&config, l))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            config,
            prefix,
            word,
            position,
            token_type,
            ln,
            blocks,
        })
    }

    fn embed(&self, tokens: &Tokens, device: &Device, tap: &mut Tap<'_>) -> Tensor<3> {
        let [batch, pos] = tokens.dims();
        let d = self.config.hidden_size;
        let broadcast = |table: Tensor<2>, rows| {
            table
                .slice([0..rows, 0..d])
                .unsqueeze::<3>()
                .expand([batch, pos, d])
        };
        let word = tap.at(Site::Embed, embed(&self.word, tokens.ids(device)));
        let position = tap.at(Site::PosEmbed, broadcast(self.position.clone(), pos));
        let token_type = tap.at(Site::TokenTypeEmbed, broadcast(self.token_type.clone(), 1));
        tap.at(Site::FullEmbed, self.ln.plain(word + position + token_type))
    }
}

impl Block {
    fn forward(
        &self,
        x: Tensor<3>,
        mask: Option<Tensor<4>>,
        layer: usize,
        tap: &mut Tap<'_>,
    ) -> Tensor<3> {
        let at = |s| Site::Block(layer, s);
        let x = tap.at(at(BlockSite::ResidPre), x);
        let h = self.attn.forward(x.clone(), None, mask, layer, tap);
        let x = x + tap.at(at(BlockSite::AttnOut), h);
        let x = tap.at(at(BlockSite::ResidMid), x);
        let x = self.ln1.forward(
            x,
            tap,
            at(BlockSite::Ln1Scale),
            at(BlockSite::Ln1Normalized),
        );
        let pre = tap.at(at(BlockSite::MlpPre), self.up.forward(x.clone()));
        let post = tap.at(at(BlockSite::MlpPost), gelu(pre));
        let out = tap.at(at(BlockSite::MlpOut), self.down.forward(post));
        let x = tap.at(at(BlockSite::ResidPost), x + out);
        let x = self.ln2.forward(
            x,
            tap,
            at(BlockSite::Ln2Scale),
            at(BlockSite::Ln2Normalized),
        );
        tap.at(at(BlockSite::NormalizedResidPost), x)
    }

    fn params(&mut self, prefix: &str, layer: usize) -> Vec<(String, Param<'_>)> {
        let name = |part: &str| format!("{prefix}encoder.layer.{layer}.{part}");
        let mut all = linear_params(name("attention.self.query"), &mut self.attn.q);
        all.extend(linear_params(name("attention.self.key"), &mut self.attn.k));
        all.extend(linear_params(
            name("attention.self.value"),
            &mut self.attn.v,
        ));
        all.extend(linear_params(
            name("attention.output.dense"),
            &mut self.attn.o,
        ));
        all.extend(norm_params(
            name("attention.output.LayerNorm"),
            &mut self.ln1,
        ));
        all.extend(linear_params(name("intermediate.dense"), &mut self.up));
        all.extend(linear_params(name("output.dense"), &mut self.down));
        all.extend(norm_params(name("output.LayerNorm"), &mut self.ln2));
        all
    }
}

fn linear_params(name: String, linear: &mut Linear) -> Vec<(String, Param<'_>)> {
    let mut all = vec![(format!("{name}.weight"), Param::R2(&mut linear.weight))];
    all.extend(
        linear
            .bias
            .as_mut()
            .map(|b| (format!("{name}.bias"), Param::R1(b))),
    );
    all
}

fn norm_params(name: String, norm: &mut LayerNorm) -> Vec<(String, Param<'_>)> {
    vec![
        (format!("{name}.weight"), Param::R1(&mut norm.weight)),
        (format!("{name}.bias"), Param::R1(&mut norm.bias)),
    ]
}

fn block_points(config: &Config, layer: usize) -> Vec<HookPoint> {
    use BlockSite as B;
    let (d, ff, heads) = (
        config.hidden_size,
        config.intermediate_size,
        config.num_attention_heads,
    );
    let row = |s, width| HookPoint::rows(Site::Block(layer, s), width);
    let head = |s| HookPoint::heads(Site::Block(layer, s), heads, d / heads);
    let square = |s| HookPoint::square(Site::Block(layer, s), heads);
    vec![
        row(B::ResidPre, d),
        head(B::Q),
        head(B::K),
        head(B::V),
        square(B::AttnScores),
        square(B::Pattern),
        head(B::Z),
        row(B::AttnOut, d),
        row(B::ResidMid, d),
        row(B::Ln1Scale, 1),
        row(B::Ln1Normalized, d),
        row(B::MlpPre, ff),
        row(B::MlpPost, ff),
        row(B::MlpOut, d),
        row(B::ResidPost, d),
        row(B::Ln2Scale, 1),
        row(B::Ln2Normalized, d),
        row(B::NormalizedResidPost, d),
    ]
}

/// Mean over real tokens, then unit length: the pooling all-MiniLM-L6-v2 was trained with.
fn sentence_embedding(hidden: Tensor<3>, mask: Option<Tensor<2>>) -> Tensor<2> {
    let [batch, pos, d] = hidden.dims();
    let mask = mask.unwrap_or_else(|| {
        Tensor::from_data(
            TensorData::new(vec![1f32; batch * pos], [batch, pos]),
            &hidden.device(),
        )
    });
    let count = mask.clone().sum_dim(1);
    let sum = (hidden * mask.unsqueeze_dim::<3>(2))
        .sum_dim(1)
        .reshape([batch, d]);
    let mean = sum / count;
    let norm = (mean.clone() * mean.clone())
        .sum_dim(1)
        .sqrt()
        .clamp_min(1e-12);
    mean / norm
}

impl Model for Bert {
    fn hook_points(&self) -> Vec<HookPoint> {
        let d = self.config.hidden_size;
        let first = [
            Site::Embed,
            Site::PosEmbed,
            Site::TokenTypeEmbed,
            Site::FullEmbed,
        ];
        let blocks = (0..self.blocks.len()).flat_map(|l| block_points(&self.config, l));
        first
            .into_iter()
            .map(|s| HookPoint::rows(s, d))
            .chain(blocks)
            .collect()
    }

    fn forward(&self, tokens: &Tokens, tap: &mut Tap<'_>) -> Output {
        let device = self.word.device();
        let [_, pos] = tokens.dims();
        let padding = tokens.mask(&device);
        let mask = attention_mask(pos, false, padding.clone(), &device);
        let mut x = self.embed(tokens, &device, tap);
        for (layer, block) in self.blocks.iter().enumerate() {
            if tap.done() {
                return Output::default();
            }
            x = block.forward(x, mask.clone(), layer, tap);
        }
        let embedding = Some(sentence_embedding(x.clone(), padding));
        Output {
            logits: None,
            hidden: Some(x),
            embedding,
        }
    }

    fn max_context(&self) -> usize {
        self.config.max_position_embeddings
    }

    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn params(&mut self) -> Vec<(String, Param<'_>)> {
        let Self {
            prefix,
            word,
            position,
            token_type,
            ln,
            blocks,
            ..
        } = self;
        let name = |part: &str| format!("{prefix}embeddings.{part}");
        let mut all = vec![
            (name("word_embeddings.weight"), Param::R2(word)),
            (name("position_embeddings.weight"), Param::R2(position)),
            (name("token_type_embeddings.weight"), Param::R2(token_type)),
        ];
        all.extend(norm_params(name("LayerNorm"), ln));
        for (layer, block) in blocks.iter_mut().enumerate() {
            all.extend(block.params(prefix, layer));
        }
        all
    }
}
