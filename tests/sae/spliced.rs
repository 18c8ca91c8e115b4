//! What a language model loses with an autoencoder in it.

use burn::tensor::activation::log_softmax;
use inscape::hook::{Activation, Hooks};
use inscape::model::family::llama::{Config, Llama};
use inscape::model::load::RandomInit;
use inscape::model::{Model, Tokens};
use inscape::sae::Error;
use inscape::sae::eval::{Spliced, SplicedAccumulator, splice};

use super::*;

const D: usize = 16;
const HOOK: &str = "blocks.1.hook_resid_pre";

/// A random Llama of three layers. Its weights are large, so that its predictions are not flat.
fn model() -> Llama {
    let config = serde_json::json!({
        "hidden_size": D, "intermediate_size": 24, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 50,
        "max_position_embeddings": 32, "rms_norm_eps": 1e-5,
    });
    let config: Config = serde_json::from_value(config).unwrap();
    let cpu = Device::cpu();
    Llama::new(config, &mut RandomInit::new(1, 0.5, &cpu), cpu.tensor()).unwrap()
}

fn tokens(seed: u64) -> Tokens {
    let mut draws = Draws::new(seed);
    Tokens::new(
        (0..3)
            .map(|_| (0..12).map(|_| draws.below(50) as u32).collect())
            .collect(),
    )
}

fn measure(sae: Sae, hook: &str) -> Result<Spliced, Error> {
    let (model, mut all) = (model(), SplicedAccumulator::new(sae, hook));
    block_on(all.add(&model, &tokens(1)))?;
    block_on(all.add(&model, &tokens(2)))?;
    Ok(all.finish())
}

/// `[row, position, vocab]` of log-probabilities with `hooks`, and the ids.
fn log_probs(hooks: &Hooks, tokens: &Tokens) -> Vec<f64> {
    let logits = model().run(tokens, hooks).unwrap().output.logits.unwrap();
    read64(log_softmax(logits, 2))
}

/// Cross-entropy of `hooks` and KL from the plain model, by a plain loop.
fn oracle(hooks: &Hooks) -> (f64, f64) {
    let (mut ce, mut kl, mut n) = (0.0, 0.0, 0.0);
    for tokens in [tokens(1), tokens(2)] {
        let (p, q) = (log_probs(&Hooks::new(), &tokens), log_probs(hooks, &tokens));
        for (r, row) in tokens.rows().iter().enumerate() {
            for (t, &next) in row.iter().skip(1).enumerate() {
                let at = (r * row.len() + t) * 50;
                ce -= q[at + next as usize];
                kl += (at..at + 50)
                    .map(|i| p[i].exp() * (p[i] - q[i]))
                    .sum::<f64>();
                n += 1.0;
            }
        }
    }
    (ce / n, kl / n)
}

fn zeros(_: inscape::hook::Site, act: Activation) -> Activation {
    Activation::R3(act.r3().zeros_like())
}

#[test]
fn the_identity_loses_nothing() {
    let found = measure(identity(D, &Device::cpu()), HOOK).unwrap();
    assert_eq!(found.tokens, 2 * 3 * 11);
    assert_eq!((found.kl_spliced, found.ce_recovered), (0.0, 1.0));
    assert_eq!(found.ce_spliced, found.ce_original);
    assert!(
        (found.ce_zero - found.ce_original).abs() > 1e-2,
        "{found:?}"
    );
}

#[test]
fn a_zero_splice_is_zero_ablation() {
    let mut sae = identity(D, &Device::cpu());
    sae.w_dec = sae.w_dec * 0.0;
    let found = measure(sae, HOOK).unwrap();
    assert_eq!((found.ce_spliced, found.ce_recovered), (found.ce_zero, 0.0));
    assert!(found.kl_spliced > 1e-2, "{found:?}");
}

#[test]
fn the_figures_are_those_of_a_plain_loop() {
    let sae = random_sae(3, D, 64, 8, &Device::cpu());
    let found = measure(sae.clone(), HOOK).unwrap();
    let close =
        |got: f64, want: f64| assert!((got - want).abs() < 1e-5 * want.abs(), "{got} {want}");
    let (ce, kl) = oracle(&Hooks::new().edit(HOOK, splice(sae)));
    close(found.ce_spliced, ce);
    close(found.kl_spliced, kl);
    close(found.ce_zero, oracle(&Hooks::new().edit(HOOK, zeros)).0);
    close(found.ce_original, oracle(&Hooks::new()).0);
    let kept = (found.ce_zero - found.ce_spliced) / (found.ce_zero - found.ce_original);
    close(found.ce_recovered, kept);
    assert!(found.kl_spliced > 1e-2);
}

#[test]
fn heads_are_spliced_as_one_row() {
    let found = measure(identity(D, &Device::cpu()), "blocks.1.attn.hook_z").unwrap();
    assert_eq!((found.kl_spliced, found.ce_recovered), (0.0, 1.0));
    let sae = random_sae(4, D, 64, 8, &Device::cpu());
    assert!(measure(sae, "blocks.1.attn.hook_z").unwrap().kl_spliced > 1e-4);
}

#[test]
fn an_unknown_hook_is_an_error() {
    let error = measure(identity(D, &Device::cpu()), "blocks.7.hook_resid_pre").unwrap_err();
    assert!(matches!(error, Error::Hook(_)), "{error}");
    says(error, &["blocks.7.hook_resid_pre"]);
}
