//! Llama (Touvron et al. 2023) and what shares its block: RMSNorm, rotary positions,
//! grouped-query attention, SwiGLU, no biases. SmolLM2, glassllm and the embedded tiny LMs.

use burn::tensor::{Device, Tensor, activation::silu};
use serde::{Deserialize, Serialize};

use crate::hook::{BlockSite, HookPoint, Site, Tap};
use crate::model::layers::{Attention, Linear, RmsNorm, Rope, RopePairs, attention_mask, embed};
use crate::model::load::{Error, TensorSource, unsupported};
use crate::model::{Model, Output, Param, Tokens};

/// `config.json` of a Llama model. `rope_interleaved` is ours: it says that q and k rows are
/// stored for adjacent-pair rotation.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are Hugging Face's")]
pub struct Config {
    #[serde(default = "llama")]
    pub model_type: String,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: Option<usize>,
    #[serde(default)]
    pub head_dim: Option<usize>,
    pub vocab_size: usize,
    pub max_position_embeddings: usize,
    pub rms_norm_eps: f64,
    #[serde(default)]
    pub rope_theta: Option<f64>,
    #[serde(default)]
    pub rope_parameters: Option<serde_json::Value>,
    #[serde(default)]
    pub rope_scaling: Option<serde_json::Value>,
    #[serde(default)]
    pub rope_interleaved: bool,
    #[serde(default)]
    pub tie_word_embeddings: bool,
    #[serde(default = "silu_name")]
    pub hidden_act: String,
    #[serde(default)]
    pub attention_bias: bool,
    #[serde(default)]
    pub mlp_bias: bool,
}

fn llama() -> String {
    "llama".into()
}

fn silu_name() -> String {
    "silu".into()
}

impl Config {
    fn kv_heads(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    fn d_head(&self) -> usize {
        self.head_dim
            .unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
    }

    fn theta(&self) -> f64 {
        let nested = self
            .rope_parameters
            .as_ref()
            .and_then(|p| p.get("rope_theta"))
            .and_then(|t| t.as_f64());
        self.rope_theta.or(nested).unwrap_or(10_000.0)
    }

    /// Refuses what this file does not compute.
    fn check(&self) -> Result<(), Error> {
        let nested = self
            .rope_parameters
            .as_ref()
            .and_then(|p| p.get("rope_type"))
            .and_then(|t| t.as_str());
        if self.rope_scaling.as_ref().is_some_and(|s| !s.is_null())
            || nested.is_some_and(|t| t != "default")
        {
            return Err(unsupported("rope_scaling", "scaled rotary positions"));
        }
        if self.hidden_act != "silu" {
            return Err(unsupported("hidden_act", &self.hidden_act));
        }
        if self.attention_bias || self.mlp_bias {
            return Err(unsupported("attention_bias / mlp_bias", "true"));
        }
        let heads = self.num_attention_heads;
        if heads == 0 || self.kv_heads() == 0 || !heads.is_multiple_of(self.kv_heads()) {
            return Err(unsupported(
                "num_key_value_heads",
                &format!("{} for {heads} heads", self.kv_heads()),
            ));
        }
        if !self.d_head().is_multiple_of(2) || self.d_head() == 0 {
            return Err(unsupported("head_dim", &self.d_head().to_string()));
        }
        Ok(())
    }
}

#[derive(Clone, Debug)]
struct Block {
    ln1: RmsNorm,
    attn: Attention,
    ln2: RmsNorm,
    gate: Linear,
    up: Linear,
    down: Linear,
}

/// A causal language model of the Llama family.
#[derive(Clone, Debug)]
pub struct Llama {
    config: Config,
    embed: Tensor<2>,
    blocks: Vec<Block>,
    norm: RmsNorm,
    unembed: Option<Linear>,
    rope: Rope,
}

impl Llama {
    /// Builds the model from tensors by name.
    ///
    /// # Errors
    /// A setting this family does not compute, or a tensor that is missing or misshapen.
    pub fn new(
        config: Config,
        source: &mut dyn TensorSource,
        device: &Device,
    ) -> Result<Self, Error> {
        config.check()?;
        let (d, vocab) = (config.hidden_size, config.vocab_size);
        let embed = source.r2("model.embed_tokens.weight", [vocab, d])?;
        let blocks = (0..config.num_hidden_layers)
            .map(|l| Block::new(&config, l, source))
            .collect::<Result<_, _>>()?;
        let norm = RmsNorm {
            weight: source.r1("model.norm.weight", d)?,
            eps: config.rms_norm_eps,
        };
        let unembed = match config.tie_word_embeddings {
            true => None,
            false => Some(Linear {
                weight: source.r2("lm_head.weight", [vocab, d])?,
                bias: None,
            }),
        };
        let pairs = if config.rope_interleaved {
            RopePairs::Adjacent
        } else {
            RopePairs::Half
        };
        let rope = Rope::new(
            config.max_position_embeddings,
            config.d_head(),
            config.theta(),
            pairs,
            device,
        );
        Ok(Self {
            config,
            embed,
            blocks,
            norm,
            unembed,
            rope,
        })
    }

    /// Its configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }
}

impl Block {
    fn new(config: &Config, layer: usize, source: &mut dyn TensorSource) -> Result<Self, Error> {
        let (d, ff, dh) = (
            config.hidden_size,
            config.intermediate_size,
            config.d_head(),
        );
        let (heads, kv_heads) = (config.num_attention_heads, config.kv_heads());
        let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
        let mut linear = |part: &str, shape| {
            source
                .r2(&name(part), shape)
                .map(|weight| Linear { weight, bias: None })
        };
        let q = linear("self_attn.q_proj", [heads * dh, d])?;
        let k = linear("self_attn.k_proj", [kv_heads * dh, d])?;
        let v = linear("self_attn.v_proj", [kv_heads * dh, d])?;
        let o = linear("self_attn.o_proj", [d, heads * dh])?;
        let gate = linear("mlp.gate_proj", [ff, d])?;
        let up = linear("mlp.up_proj", [ff, d])?;
        let down = linear("mlp.down_proj", [d, ff])?;
        let mut norm = |part: &str| {
            source.r1(&name(part), d).map(|weight| RmsNorm {
                weight,
                eps: config.rms_norm_eps,
            })
        };
        let (ln1, ln2) = (norm("input_layernorm")?, norm("post_attention_layernorm")?);
        Ok(Self {
            ln1,
            attn: Attention {
                q,
                k,
                v,
                o,
                heads,
                kv_heads,
                d_head: dh,
            },
            ln2,
            gate,
            up,
            down,
        })
    }

    fn forward(
        &self,
        x: Tensor<3>,
        rope: &Rope,
        mask: Option<Tensor<4>>,
        layer: usize,
        tap: &mut Tap<'_>,
    ) -> Tensor<3> {
        let at = |s| Site::Block(layer, s);
        let x = tap.at(at(BlockSite::ResidPre), x);
        let h = self.ln1.forward(
            x.clone(),
            tap,
            at(BlockSite::Ln1Scale),
            at(BlockSite::Ln1Normalized),
        );
        let h = self.attn.forward(h, Some(rope), mask, layer, tap);
        let x = x + tap.at(at(BlockSite::AttnOut), h);
        let x = tap.at(at(BlockSite::ResidMid), x);
        let h = self.ln2.forward(
            x.clone(),
            tap,
            at(BlockSite::Ln2Scale),
            at(BlockSite::Ln2Normalized),
        );
        let pre = tap.at(at(BlockSite::MlpPre), self.gate.forward(h.clone()));
        let linear = tap.at(at(BlockSite::MlpPreLinear), self.up.forward(h));
        let post = tap.at(at(BlockSite::MlpPost), silu(pre) * linear);
        let x = x + tap.at(at(BlockSite::MlpOut), self.down.forward(post));
        tap.at(at(BlockSite::ResidPost), x)
    }

    fn params(&mut self, layer: usize) -> Vec<(String, Param<'_>)> {
        let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
        vec![
            (name("input_layernorm"), Param::R1(&mut self.ln1.weight)),
            (name("self_attn.q_proj"), Param::R2(&mut self.attn.q.weight)),
            (name("self_attn.k_proj"), Param::R2(&mut self.attn.k.weight)),
            (name("self_attn.v_proj"), Param::R2(&mut self.attn.v.weight)),
            (name("self_attn.o_proj"), Param::R2(&mut self.attn.o.weight)),
            (
                name("post_attention_layernorm"),
                Param::R1(&mut self.ln2.weight),
            ),
            (name("mlp.gate_proj"), Param::R2(&mut self.gate.weight)),
            (name("mlp.up_proj"), Param::R2(&mut self.up.weight)),
            (name("mlp.down_proj"), Param::R2(&mut self.down.weight)),
        ]
    }
}

fn block_points(config: &Config, layer: usize) -> Vec<HookPoint> {
    use BlockSite as B;
    let (d, dh, heads, kv) = (
        config.hidden_size,
        config.d_head(),
        config.num_attention_heads,
        config.kv_heads(),
    );
    let row = |s, width| HookPoint::rows(Site::Block(layer, s), width);
    let head = |s, n| HookPoint::heads(Site::Block(layer, s), n, dh);
    let square = |s| HookPoint::square(Site::Block(layer, s), heads);
    let ff = config.intermediate_size;
    vec![
        row(B::ResidPre, d),
        row(B::Ln1Scale, 1),
        row(B::Ln1Normalized, d),
        head(B::Q, heads),
        head(B::K, kv),
        head(B::V, kv),
        head(B::RotQ, heads),
        head(B::RotK, kv),
        square(B::AttnScores),
        square(B::Pattern),
        head(B::Z, heads),
        row(B::AttnOut, d),
        row(B::ResidMid, d),
        row(B::Ln2Scale, 1),
        row(B::Ln2Normalized, d),
        row(B::MlpPre, ff),
        row(B::MlpPreLinear, ff),
        row(B::MlpPost, ff),
        row(B::MlpOut, d),
        row(B::ResidPost, d),
    ]
}

impl Model for Llama {
    fn hook_points(&self) -> Vec<HookPoint> {
        let d = self.config.hidden_size;
        let blocks = (0..self.blocks.len()).flat_map(|l| block_points(&self.config, l));
        let last = [
            HookPoint::rows(Site::LnFinalScale, 1),
            HookPoint::rows(Site::LnFinalNormalized, d),
        ];
        [HookPoint::rows(Site::Embed, d)]
            .into_iter()
            .chain(blocks)
            .chain(last)
            .collect()
    }

    fn forward(&self, tokens: &Tokens, tap: &mut Tap<'_>) -> Output {
        let device = self.embed.device();
        let [_, pos] = tokens.dims();
        let mask = attention_mask(pos, true, tokens.mask(&device), &device);
        let mut x = tap.at(Site::Embed, embed(&self.embed, tokens.ids(&device)));
        for (layer, block) in self.blocks.iter().enumerate() {
            if tap.done() {
                return Output::default();
            }
            x = block.forward(x, &self.rope, mask.clone(), layer, tap);
        }
        if tap.done() {
            return Output::default();
        }
        let x = self
            .norm
            .forward(x, tap, Site::LnFinalScale, Site::LnFinalNormalized);
        let unembed = Linear {
            weight: self.unembedding().expect("a language model has one"),
            bias: None,
        };
        Output {
            logits: Some(unembed.forward(x)),
            ..Output::default()
        }
    }

    fn max_context(&self) -> usize {
        self.config.max_position_embeddings
    }

    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn params(&mut self) -> Vec<(String, Param<'_>)> {
        let mut all = vec![(
            "model.embed_tokens.weight".into(),
            Param::R2(&mut self.embed),
        )];
        for (layer, block) in self.blocks.iter_mut().enumerate() {
            all.extend(block.params(layer));
        }
        all.push(("model.norm.weight".into(), Param::R1(&mut self.norm.weight)));
        if let Some(unembed) = &mut self.unembed {
            all.push(("lm_head.weight".into(), Param::R2(&mut unembed.weight)));
        }
        all
    }

    fn unembedding(&self) -> Option<Tensor<2>> {
        Some(
            self.unembed
                .as_ref()
                .map_or(&self.embed, |u| &u.weight)
                .clone(),
        )
    }
}
