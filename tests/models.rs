//! Parity of the model families with reference activations at every hook point they cover.
//!
//! Needs the models that `tests/fetch_models.py` fetches; `INSCAPE_MODELS` says where they are.

use std::collections::HashMap;
use std::path::PathBuf;

use burn::tensor::TensorData;
use inscape::Device;
use inscape::device::{block_on, read};
use inscape::hook::{Activation, Hooks};
use inscape::model::{self, Network, Tokens};
use safetensors::{Dtype, SafeTensors};

/// Largest error allowed on residuals, hidden states and logits.
const CLOSE: f32 = 5e-5;

struct Golden(HashMap<String, (Vec<usize>, Vec<f32>)>);

impl Golden {
    fn open(file: &str) -> Self {
        let path = format!("{}/tests/data/models/{file}", env!("CARGO_MANIFEST_DIR"));
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let value = |t: safetensors::tensor::TensorView<'_>| -> Vec<f32> {
            match t.dtype() {
                Dtype::F32 => t
                    .data()
                    .as_chunks()
                    .0
                    .iter()
                    .map(|b| f32::from_le_bytes(*b))
                    .collect(),
                _ => t
                    .data()
                    .as_chunks()
                    .0
                    .iter()
                    .map(|b| i64::from_le_bytes(*b) as f32)
                    .collect(),
            }
        };
        Self(
            file.tensors()
                .into_iter()
                .map(|(n, t)| (n, (t.shape().to_vec(), value(t))))
                .collect(),
        )
    }

    fn get(&self, name: &str) -> &[f32] {
        &self
            .0
            .get(name)
            .unwrap_or_else(|| panic!("no golden {name}"))
            .1
    }

    fn shape(&self, name: &str) -> &[usize] {
        &self.0[name].0
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

fn models() -> PathBuf {
    let default = || std::env::var("HOME").map(|h| format!("{h}/.cache/inscape/models"));
    PathBuf::from(
        std::env::var("INSCAPE_MODELS")
            .or_else(|_| default())
            .expect("INSCAPE_MODELS or HOME is set"),
    )
}

fn open(name: &str) -> Network {
    let path = models().join(name);
    model::load(&path, &Device::cpu())
        .unwrap_or_else(|e| panic!("{e}; fetch it with tests/fetch_models.py"))
}

fn values(act: Activation) -> Vec<f32> {
    block_on(read(act.rows())).unwrap()
}

/// `[head, pos, d]` to `[pos, head, d]`.
fn heads_last(x: &[f32], shape: &[usize]) -> Vec<f32> {
    let [h, p, d] = shape[..] else {
        panic!("rank 3 wanted: {shape:?}")
    };
    (0..p * h)
        .flat_map(|i| x[((i % h) * p + i / h) * d..][..d].to_vec())
        .collect()
}

fn max_error(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    got.iter()
        .zip(want)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}

fn assert_close(name: &str, got: &[f32], want: &[f32], tolerance: f32) {
    let worst = max_error(got, want);
    assert!(
        worst <= tolerance,
        "{name}: max-abs error {worst:e} over {tolerance:e}"
    );
}

#[test]
#[should_panic(expected = "max-abs error")]
fn the_comparison_sees_a_planted_fault() {
    assert_close("planted", &[1.0, 2.0], &[1.0, 2.0 + 2.0 * CLOSE], CLOSE);
}

const BLOCK: [(&str, &str); 11] = [
    ("resid.attn", "hook_resid_mid"),
    ("resid.ffn", "hook_resid_post"),
    ("attn.out", "hook_attn_out"),
    ("ffn.down", "hook_mlp_out"),
    ("ffn.gate", "mlp.hook_pre"),
    ("ffn.up", "mlp.hook_pre_linear"),
    ("ffn.act", "mlp.hook_post"),
    ("attn.q", "attn.hook_q"),
    ("attn.k", "attn.hook_k"),
    ("attn.v", "attn.hook_v"),
    ("attn.mix", "attn.hook_z"),
];

fn glassllm(lang: &str) {
    let golden = Golden::open("ref_glassllm.safetensors");
    let mut network = open(&format!("glassllm-{lang}"));
    let gains: HashMap<String, Vec<f32>> = network
        .model
        .params()
        .into_iter()
        .filter_map(|(name, p)| match p {
            model::Param::R1(x) => Some((name, block_on(read(x.clone())).unwrap())),
            model::Param::R2(_) => None,
        })
        .collect();
    for p in 0..3 {
        let key = |part: &str| format!("{lang}.p{p}.{part}");
        let ids: Vec<u32> = golden
            .get(&key("input_ids"))
            .iter()
            .map(|&x| x as u32)
            .collect();
        let tokens = Tokens::new(vec![ids]);
        let run = network.run(&tokens, &Hooks::new().capture("*")).unwrap();
        let at = |name: &str| values(run[name].clone());
        assert_close("embed", &at("hook_embed"), golden.get(&key("embed")), 0.0);
        for l in 0..4 {
            for (theirs, ours) in BLOCK {
                let name = key(&format!("block{l}.{theirs}"));
                let want = match golden.shape(&name).len() {
                    3 => heads_last(golden.get(&name), golden.shape(&name)),
                    _ => golden.get(&name).to_vec(),
                };
                assert_close(&name, &at(&format!("blocks.{l}.{ours}")), &want, CLOSE);
            }
            for (theirs, ours) in [
                ("attn.rope_q", "attn.hook_rot_q"),
                ("attn.rope_k", "attn.hook_rot_k"),
            ] {
                let name = key(&format!("block{l}.{theirs}"));
                let want = heads_last(golden.get(&name), golden.shape(&name));
                assert_close(&name, &at(&format!("blocks.{l}.{ours}")), &want, CLOSE);
            }
            let name = key(&format!("block{l}.attn.softmax"));
            assert_close(
                &name,
                &at(&format!("blocks.{l}.attn.hook_pattern")),
                golden.get(&name),
                CLOSE,
            );
            let name = key(&format!("block{l}.attn.scores"));
            let pos = tokens.dims()[1];
            let scores = at(&format!("blocks.{l}.attn.hook_attn_scores"));
            for (i, (got, want)) in scores.iter().zip(golden.get(&name)).enumerate() {
                let (query, key) = (i / pos % pos, i % pos);
                assert!(
                    if key > query {
                        *got == f32::NEG_INFINITY
                    } else {
                        (got - want).abs() <= CLOSE
                    },
                    "{name} {i}"
                );
            }
            for (theirs, ours, gain) in [
                ("norm.attn", "ln1", "input_layernorm"),
                ("norm.ffn", "ln2", "post_attention_layernorm"),
            ] {
                let gain = &gains[&format!("model.layers.{l}.{gain}.weight")];
                let got: Vec<f32> = at(&format!("blocks.{l}.{ours}.hook_normalized"))
                    .iter()
                    .zip(gain.iter().cycle())
                    .map(|(x, g)| x * g)
                    .collect();
                let name = key(&format!("block{l}.{theirs}"));
                assert_close(&name, &got, golden.get(&name), CLOSE);
            }
        }
        let logits: Vec<f32> = block_on(read(run.output.logits.unwrap())).unwrap();
        assert_close(&key("logits"), &logits, golden.get(&key("logits")), CLOSE);
    }
}

#[test]
#[ignore = "needs the fetched models"]
fn glassllm_en_agrees_everywhere() {
    glassllm("en");
}

#[test]
#[ignore = "needs the fetched models"]
fn glassllm_pt_agrees_everywhere() {
    glassllm("pt");
}

fn minilm_tokens(golden: &Golden) -> Tokens {
    let [batch, pos] = golden.shape("input_ids")[..] else {
        panic!("ids have rank 2")
    };
    let (ids, mask) = (golden.get("input_ids"), golden.get("attention_mask"));
    let row = |b: usize| {
        (0..pos)
            .filter(|p| mask[b * pos + p] > 0.0)
            .map(|p| ids[b * pos + p] as u32)
            .collect()
    };
    Tokens::new((0..batch).map(row).collect())
}

#[test]
#[ignore = "needs the fetched models"]
fn minilm_agrees_everywhere() {
    let golden = Golden::open("ref_minilm_l6_v2.safetensors");
    let network = open("minilm");
    let tokens = minilm_tokens(&golden);
    let run = network.run(&tokens, &Hooks::new().capture("*")).unwrap();
    let at = |name: &str| values(run[name].clone());
    for l in 0..6 {
        let mut pairs = vec![
            (
                format!("hidden_states.{l}"),
                format!("blocks.{l}.hook_resid_pre"),
            ),
            (
                format!("hidden_states.{}", l + 1),
                format!("blocks.{l}.hook_normalized_resid_post"),
            ),
            (
                format!("attentions.{l}"),
                format!("blocks.{l}.attn.hook_pattern"),
            ),
        ];
        for (theirs, ours) in [
            ("q", "attn.hook_q"),
            ("k", "attn.hook_k"),
            ("v", "attn.hook_v"),
            ("attn_ctx", "attn.hook_z"),
            ("mlp_pre", "mlp.hook_pre"),
            ("mlp_act", "mlp.hook_post"),
        ] {
            pairs.push((format!("layer{l}.{theirs}"), format!("blocks.{l}.{ours}")));
        }
        for (theirs, ours) in pairs.iter().filter(|(t, _)| golden.has(t)) {
            assert_close(ours, &at(ours), golden.get(theirs), CLOSE);
        }
    }
    let embedding: Vec<f32> = block_on(read(run.output.embedding.unwrap())).unwrap();
    assert_close(
        "embedding",
        &embedding,
        golden.get("sentence_embedding"),
        CLOSE,
    );
}

#[test]
#[ignore = "needs the fetched models"]
fn minilm_tokenizes_as_the_reference() {
    let golden = Golden::open("ref_minilm_l6_v2.safetensors");
    let texts = [
        "The capital of France is Paris.",
        "Berlin is the capital city of Germany.",
        "A cat sat quietly on the warm windowsill.",
        "Dogs bark!",
    ];
    assert_eq!(
        open("minilm").tokens(&texts).unwrap(),
        minilm_tokens(&golden)
    );
}

/// Rows of different length in one batch give what each gives alone.
fn padded_equals_single(network: &Network, rows: Vec<Vec<u32>>, hook: &str) {
    let hooks = Hooks::new().capture(hook);
    let batch = network.run(&Tokens::new(rows.clone()), &hooks).unwrap();
    let all: Vec<f32> = values(batch[hook].clone());
    let [_, pos, d] = batch[hook].clone().rows().dims();
    for (i, row) in rows.into_iter().enumerate() {
        let len = row.len();
        let one = network.run(&Tokens::new(vec![row]), &hooks).unwrap();
        assert_close(
            &format!("{hook} row {i}"),
            &all[i * pos * d..][..len * d],
            &values(one[hook].clone()),
            1e-4,
        );
    }
}

#[test]
#[ignore = "needs the fetched models"]
fn padding_changes_nothing() {
    let golden = Golden::open("ref_minilm_l6_v2.safetensors");
    padded_equals_single(
        &open("minilm"),
        minilm_tokens(&golden).rows().to_vec(),
        "blocks.5.hook_normalized_resid_post",
    );
    let network = open("glassllm-en");
    let rows = network
        .tokens(&[
            "Alice was beginning to get very tired",
            "Off",
            "The Queen said to the",
        ])
        .unwrap();
    padded_equals_single(&network, rows.rows().to_vec(), "blocks.3.hook_resid_post");
}

#[test]
#[ignore = "needs the fetched models"]
fn hooks_do_not_change_the_output() {
    let network = open("minilm");
    let tokens = network
        .tokens(&[
            "Call me Ishmael.",
            "Some years ago, never mind how long precisely",
        ])
        .unwrap();
    let bare: Vec<f32> = block_on(read(
        network
            .run(&tokens, &Hooks::new())
            .unwrap()
            .output
            .hidden
            .unwrap(),
    ))
    .unwrap();
    let same = Hooks::new()
        .capture("*")
        .edit("blocks.2.hook_resid_pre", |_, a| a);
    let hooked: Vec<f32> = block_on(read(
        network.run(&tokens, &same).unwrap().output.hidden.unwrap(),
    ))
    .unwrap();
    assert_eq!(bare, hooked);
    let shift = Hooks::new().edit("blocks.2.hook_resid_pre", |_, a| {
        Activation::R3(a.r3() + 0.5)
    });
    let edited: Vec<f32> = block_on(read(
        network.run(&tokens, &shift).unwrap().output.hidden.unwrap(),
    ))
    .unwrap();
    assert!(
        max_error(&bare, &edited) > 1e-3,
        "an edit must reach the output"
    );
}

#[test]
#[ignore = "needs the fetched models"]
fn stopping_early_gives_the_same_activation_and_no_output() {
    let network = open("glassllm-en");
    let tokens = network.tokens(&["The Queen said to the"]).unwrap();
    let name = "blocks.1.hook_resid_post";
    let full = network.run(&tokens, &Hooks::new().capture(name)).unwrap();
    let short = network
        .run(&tokens, &Hooks::new().capture(name).stop_after_last())
        .unwrap();
    assert_eq!(values(full[name].clone()), values(short[name].clone()));
    assert!(full.output.logits.is_some() && short.output.logits.is_none());
}

#[test]
#[ignore = "needs the fetched models"]
fn a_row_beyond_the_context_or_vocabulary_is_an_error() {
    let network = open("glassllm-en");
    let long = network
        .run(&Tokens::new(vec![vec![1; 129]]), &Hooks::new())
        .unwrap_err();
    assert_eq!(
        long.to_string(),
        "a row of 129 tokens exceeds the model's context of 128"
    );
    let outside = network
        .run(&Tokens::new(vec![vec![1024]]), &Hooks::new())
        .unwrap_err();
    assert_eq!(
        outside.to_string(),
        "token id 1024 is outside the model's vocabulary of 1024"
    );
}

#[test]
fn a_broken_directory_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let load = || {
        model::load(dir.path(), &Device::cpu())
            .unwrap_err()
            .to_string()
    };
    assert!(load().contains("config.json"), "{}", load());
    let missing = model::load("no/such/model", &Device::cpu())
        .unwrap_err()
        .to_string();
    assert!(
        missing.contains("no/such/model") && missing.contains("embedded"),
        "{missing}"
    );
}

#[test]
fn data_is_what_the_shape_says() {
    // The golden reader's own check: a tensor of known values comes back unchanged.
    let x = burn::tensor::Tensor::<3>::from_data(
        TensorData::new(vec![1f32, 2.0], [1, 1, 2]),
        Device::cpu().tensor(),
    );
    assert_eq!(values(Activation::R3(x)), [1.0, 2.0]);
}
