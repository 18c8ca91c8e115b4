//! The attention-only family against plain loops, and the one that is embedded.

use std::collections::HashMap;

use inscape::Device;
use inscape::device::{block_on, read};
use inscape::hook::{Activation, Hooks};
use inscape::model::family::attn_only::{AttnOnly, Config};
use inscape::model::load::{RandomInit, Weights, to_safetensors};
use inscape::model::{self, Model, Network, Param, Tokens};

const VOCAB: usize = 11;

fn config() -> serde_json::Value {
    serde_json::json!({
        "model_type": "attn_only", "n_layers": 2, "n_heads": 3, "d_model": 10, "d_head": 4,
        "d_vocab": VOCAB, "n_ctx": 8,
    })
}

fn model() -> AttnOnly {
    let config: Config = serde_json::from_value(config()).unwrap();
    AttnOnly::new(config, &mut RandomInit::new(3, 0.5, &Device::cpu())).unwrap()
}

fn tokens() -> Tokens {
    Tokens::new(vec![vec![1, 5, 2, 5, 0, 10], vec![7, 7, 3]])
}

fn values(x: Activation) -> Vec<f64> {
    match x {
        Activation::R3(x) => block_on(read(x)).unwrap(),
        Activation::R4(x) => block_on(read(x)).unwrap(),
    }
}

fn logits(hooks: &Hooks) -> Vec<u32> {
    let logits = model().run(&tokens(), hooks).unwrap().output.logits;
    let values: Vec<f32> = block_on(read(logits.unwrap())).unwrap();
    values.into_iter().map(f32::to_bits).collect()
}

/// A matrix of `columns` columns.
struct Rows(Vec<f64>, usize);

impl Rows {
    fn row(&self, i: usize) -> &[f64] {
        &self.0[i * self.1..][..self.1]
    }

    /// Rows `from..from + n` times `x`.
    fn times(&self, from: usize, n: usize, x: &[f64]) -> Vec<f64> {
        (from..from + n).map(|i| dot(self.row(i), x)).collect()
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

fn weights() -> HashMap<String, Rows> {
    let mut model = model();
    let all = model.params().into_iter().map(|(name, p)| match p {
        Param::R2(x) => (name, Rows(block_on(read(x.clone())).unwrap(), x.dims()[1])),
        Param::R1(_) => panic!("{name}: the family has no vectors"),
    });
    all.collect()
}

/// What one row of tokens gives, in f64: each head's result `[layer][pos][head]`, and the logits `[pos]`.
#[allow(clippy::type_complexity, reason = "a test's oracle")]
fn oracle(row: &[u32]) -> (Vec<Vec<Vec<Vec<f64>>>>, Vec<Vec<f64>>) {
    let w = weights();
    let embed = |id: &u32| w["embed.W_E"].row(*id as usize).to_vec();
    let mut x: Vec<Vec<f64>> = row.iter().map(embed).collect();
    let mut results = Vec::new();
    for layer in 0..2 {
        let part = |p: &str| &w[&format!("blocks.{layer}.attn.{p}.weight")];
        let placed = |t: usize, x: &[f64]| add(x, w["pos_embed.W_pos"].row(t));
        let head = |t: usize, h: usize| {
            let q = part("q").times(4 * h, 4, &placed(t, &x[t]));
            let score = |s| dot(&q, &part("k").times(4 * h, 4, &placed(s, &x[s]))) / 2.0;
            let scores: Vec<f64> = (0..=t).map(|s| f64::exp(score(s))).collect();
            let total: f64 = scores.iter().sum();
            let mut z = vec![0.0; 12];
            for (s, score) in scores.iter().enumerate() {
                let v = part("v").times(4 * h, 4, &x[s]);
                (0..4).for_each(|i| z[4 * h + i] += score / total * v[i]);
            }
            part("o").times(0, 10, &z)
        };
        let rows = (0..row.len()).map(|t| (0..3).map(|h| head(t, h)).collect());
        let made: Vec<Vec<Vec<f64>>> = rows.collect();
        for (x, heads) in x.iter_mut().zip(&made) {
            *x = heads.iter().fold(x.clone(), |x, r| add(&x, r));
        }
        results.push(made);
    }
    let unembed = |x: &Vec<f64>| {
        let column = |v| (0..10).map(|i| w["unembed.W_U"].row(i)[v] * x[i]).sum();
        (0..VOCAB).map(column).collect()
    };
    let logits = x.iter().map(unembed).collect();
    (results, logits)
}

#[track_caller]
fn close(got: &[f64], want: &[f64]) {
    for (got, want) in got.iter().zip(want) {
        assert!(
            (got - want).abs() < 1e-5 * (1.0 + want.abs()),
            "{got}, not {want}"
        );
    }
}

#[test]
fn heads_and_logits_are_what_plain_loops_give() {
    let hooks = Hooks::new().capture("blocks.*.attn.hook_result");
    let run = model().run(&tokens(), &hooks).unwrap();
    let got = values(Activation::R3(run.output.logits.clone().unwrap()));
    for (b, row) in tokens().rows().iter().enumerate() {
        let (results, logits) = oracle(row);
        for (t, want) in logits.iter().enumerate() {
            close(&got[(b * 6 + t) * VOCAB..][..VOCAB], want);
        }
        for (layer, result) in results.iter().enumerate() {
            let name = format!("blocks.{layer}.attn.hook_result");
            let got = values(run[name.as_str()].clone());
            for (t, heads) in result.iter().enumerate() {
                close(&got[(b * 6 + t) * 30..][..30], &heads.concat());
            }
        }
    }
}

#[test]
fn every_point_fires_with_its_shape_and_changes_nothing() {
    let model = model();
    let points = model.hook_points();
    let run = model.run(&tokens(), &Hooks::new().capture("*")).unwrap();
    assert_eq!(run.captured.iter().count(), points.len());
    for point in points {
        let shape = point.shape_text().replace("batch", "2").replace("pos", "6");
        let got = run[point.site.to_string().as_str()].shape().to_vec();
        assert_eq!(format!("{got:?}"), shape, "{}", point.site);
    }
    let plain = logits(&Hooks::new());
    assert_eq!(logits(&Hooks::new().capture("*")), plain);
    let z = Hooks::new().edit("blocks.*.attn.hook_z", |_, z| z);
    assert_eq!(logits(&z), plain);
}

/// Edited results are summed where unedited ones go through one product: equal up to rounding.
#[test]
fn an_edited_result_reaches_the_output() {
    let run = |hooks: Hooks| {
        let run = model().run(&tokens(), &hooks).unwrap();
        values(Activation::R3(run.output.logits.unwrap()))
    };
    let plain = run(Hooks::new());
    close(
        &run(Hooks::new().edit("blocks.*.attn.hook_result", |_, r| r)),
        &plain,
    );
    let without = |point: &str| {
        let zero = |_, x: Activation| {
            let x = x.r4();
            let [b, p, _, d] = x.dims();
            let blank = x.zeros_like().slice([0..b, 0..p, 1..2, 0..d]);
            Activation::R4(x.slice_assign([0..b, 0..p, 1..2, 0..d], blank))
        };
        run(Hooks::new().edit(format!("blocks.0.attn.{point}"), zero))
    };
    let (z, result) = (without("hook_z"), without("hook_result"));
    close(&result, &z);
    assert!(z.iter().zip(&plain).any(|(a, b)| (a - b).abs() > 1e-2));
}

#[test]
fn stopping_early_gives_no_logits() {
    let hooks = Hooks::new().capture("blocks.0.attn.hook_z");
    let run = model().run(&tokens(), &hooks.stop_after_last()).unwrap();
    assert!(run.output.logits.is_none());
}

#[test]
fn what_is_saved_loads_again() {
    let network = model::load("tiny-induction", &Device::cpu()).unwrap();
    let mut copy = network.model;
    let bytes = to_safetensors(copy.as_mut()).unwrap();
    let config = include_bytes!("../examples/data/tiny-induction/config.json");
    let tokenizer = include_bytes!("../examples/data/tiny-induction/tokenizer.json");
    assert_eq!(
        bytes,
        include_bytes!("../examples/data/tiny-induction/model.safetensors")
    );
    let weights = Weights::from_bytes("copy", bytes).unwrap();
    let again = Network::from_parts("copy", config, tokenizer, weights, &Device::cpu()).unwrap();
    assert_eq!(again.info.family, "attn_only");
    assert_eq!(again.info.parameters, 76_800);
    assert_eq!(again.info.sha256, network.info.sha256);
}

#[test]
fn what_it_does_not_compute_is_refused() {
    for (field, value) in [
        ("positional_embedding_type", "rotary".into()),
        ("normalization_type", "LN".into()),
        ("n_heads", 0.into()),
    ] {
        let mut config = config();
        config[field] = value;
        let config: Config = serde_json::from_value(config).unwrap();
        let made = AttnOnly::new(config, &mut RandomInit::new(3, 0.5, &Device::cpu()));
        assert!(made.unwrap_err().to_string().contains(field));
    }
}

/// The embedded model continues what repeats.
#[test]
fn the_embedded_model_does_induction() {
    let network = model::load("tiny-induction", &Device::cpu()).unwrap();
    let tokens = network
        .tokens(&["Inscape-3xInscape-3", "qwertyuiopqwertyuio"])
        .unwrap();
    let logits = network.run(&tokens, &Hooks::new()).unwrap().output.logits;
    let [_, pos, _] = logits.clone().unwrap().dims();
    let best = logits.unwrap().argmax(2).squeeze_dim::<2>(2);
    let best = block_on(inscape::device::read_int(best)).unwrap();
    let said = [best[pos - 1], best[2 * pos - 1]].map(|id| network.tokenizer.show(id as u32));
    assert_eq!(said, ["x", "p"]);
}
