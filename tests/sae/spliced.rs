//! What a language model loses with an autoencoder in it.

use burn::tensor::activation::log_softmax;
use inscape::hook::{Activation, Hooks};
use inscape::model::family::llama::{Config, Llama};
use inscape::model::load::RandomInit;
use inscape::model::{Model, Tokens};
use inscape::sae::Error;
use inscape::sae::eval::{Ablated, Spliced, SplicedAccumulator, splice, splice_across};

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
    oracle_of(hooks, &[tokens(1), tokens(2)])
}

fn oracle_of(hooks: &Hooks, batches: &[Tokens]) -> (f64, f64) {
    let (mut ce, mut kl, mut n) = (0.0, 0.0, 0.0);
    for tokens in batches {
        let (p, q) = (log_probs(&Hooks::new(), tokens), log_probs(hooks, tokens));
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

fn near(got: f64, want: f64) {
    assert!((got - want).abs() < 1e-5 * want.abs(), "{got}, not {want}");
}

/// An ablation's figures, from those of the hooks that do it.
fn check(found: &Spliced, ablated: Option<Ablated>, hooks: &Hooks, batches: &[Tokens]) {
    let ablated = ablated.unwrap();
    let (ce, kl) = oracle_of(hooks, batches);
    near(ablated.ce, ce);
    near(ablated.kl, kl);
    let recovered = (ce - found.ce_spliced) / (ce - found.ce_original);
    assert!(
        (ablated.ce_recovered - recovered).abs() < 1e-3 * recovered.abs(),
        "{ablated:?}"
    );
    near(ablated.kl_ratio, found.kl_spliced / kl);
    assert_eq!(ablated.tokens, found.tokens);
}

#[test]
fn zeros_are_measured_by_divergence_too() {
    let found = measure(random_sae(3, D, 64, 8, &Device::cpu()), HOOK).unwrap();
    let hooks = Hooks::new().edit(HOOK, zeros);
    check(&found, found.zero, &hooks, &[tokens(1), tokens(2)]);
    let zero = found.zero.unwrap();
    assert_eq!(
        (zero.ce, zero.ce_recovered),
        (found.ce_zero, found.ce_recovered)
    );
    assert_eq!(found.mean, None);
}

#[test]
fn the_mean_is_that_of_the_batches_it_was_learnt_on() {
    let sae = random_sae(3, D, 64, 8, &Device::cpu());
    let learnt = [tokens(1), tokens(2), tokens(5)];
    let mut all = SplicedAccumulator::new(sae, HOOK);
    for tokens in &learnt {
        block_on(all.learn_mean(&model(), tokens)).unwrap();
    }
    let measured = [tokens(1), tokens(2)];
    for tokens in &measured {
        block_on(all.add(&model(), tokens)).unwrap();
    }
    let mut mean = [0.0; D];
    for tokens in &learnt {
        let run = model().run(tokens, &Hooks::new().capture(HOOK)).unwrap();
        for row in read64(run[HOOK].clone().r3()).chunks(D) {
            mean.iter_mut().zip(row).for_each(|(m, x)| *m += x / 108.0);
        }
    }
    let mean = t1(&f32s(&mean), &Device::cpu());
    let hooks = Hooks::new().edit(HOOK, move |_, act| {
        Activation::R3(act.r3() * 0.0 + mean.clone().unsqueeze())
    });
    let found = all.finish();
    check(&found, found.mean, &hooks, &measured);
    let (mean, zero) = (found.mean.unwrap(), found.zero.unwrap());
    assert!((mean.ce - zero.ce).abs() > 1e-3, "{found:?}");
}

/// In a batch of two rows there is but one other row.
#[test]
fn resampling_takes_the_other_row() {
    let sae = random_sae(3, D, 64, 8, &Device::cpu());
    let two = |seed| Tokens::new(tokens(seed).rows()[..2].to_vec());
    let batches = [two(1), two(2)];
    let mut all = SplicedAccumulator::new(sae, HOOK);
    for tokens in &batches {
        block_on(all.add(&model(), tokens)).unwrap();
    }
    let found = all.finish();
    let swap = Hooks::new().edit(HOOK, |_, act| Activation::R3(act.r3().flip([0])));
    check(&found, found.resample, &swap, &batches);
}

#[test]
fn resampling_depends_on_the_seed_and_needs_two_rows() {
    let sae = random_sae(3, D, 64, 8, &Device::cpu());
    let run = |seed, tokens: &Tokens| {
        let mut all = SplicedAccumulator::new(sae.clone(), HOOK).seed(seed);
        block_on(all.add(&model(), tokens)).unwrap();
        all.finish()
    };
    let many = tokens(1);
    assert_eq!(run(1, &many), run(1, &many));
    let kl = |seed| run(seed, &many).resample.unwrap().kl.to_bits();
    assert!((2..20).any(|seed| kl(seed) != kl(1)));
    let one = Tokens::new(many.rows()[..1].to_vec());
    assert_eq!(run(1, &one).resample, None);
    // A batch of one row is left out of the figures of resampling, on both sides of the ratio.
    let mut all = SplicedAccumulator::new(sae.clone(), HOOK).seed(1);
    block_on(all.add(&model(), &many)).unwrap();
    block_on(all.add(&model(), &one)).unwrap();
    let found = all.finish();
    assert_eq!(found.resample, run(1, &many).resample);
    assert_eq!((found.tokens, found.resample.unwrap().tokens), (44, 33));
}

#[test]
fn heads_are_averaged_and_resampled() {
    let hook = "blocks.1.attn.hook_z";
    let mut all = SplicedAccumulator::new(identity(D, &Device::cpu()), hook);
    block_on(all.learn_mean(&model(), &tokens(1))).unwrap();
    block_on(all.add(&model(), &tokens(1))).unwrap();
    let found = all.finish();
    for ablated in [found.zero, found.mean, found.resample] {
        let ablated = ablated.unwrap();
        assert!(ablated.kl > 1e-4, "{found:?}");
        assert_eq!((ablated.ce_recovered, ablated.kl_ratio), (1.0, 0.0));
    }
}

/// A transcoder that reads before the MLP and writes after it, with a skip.
fn transcoder() -> Sae {
    let cpu = Device::cpu();
    let skip = Draws::new(12).normals(D * D);
    Sae {
        subtract_b_dec: false,
        w_skip: Some(t2(&f32s(&skip), D, &cpu) * 0.1),
        ..random_sae(11, D, 64, 8, &cpu)
    }
}

const READ: &str = "blocks.1.ln2.hook_normalized";
const WRITE: &str = "blocks.1.hook_mlp_out";

#[test]
fn a_transcoder_reads_one_hook_and_writes_another() {
    let batches = [tokens(1), tokens(2)];
    let mut all = SplicedAccumulator::across(transcoder(), READ, WRITE);
    for tokens in &batches {
        block_on(all.add(&model(), tokens)).unwrap();
    }
    let found = all.finish();
    // By hand: what is read, taken from a pass of its own, makes what is written in the next.
    let (mut ce, mut kl) = (0.0, 0.0);
    for tokens in &batches {
        let run = model().run(tokens, &Hooks::new().capture(READ)).unwrap();
        let rows = run[READ].clone().r3().reshape([36, D]);
        let made = transcoder().reconstruct(rows).reshape([3, 12, D]);
        let hooks = Hooks::new().edit(WRITE, move |_, _| Activation::R3(made.clone()));
        let part = oracle_of(&hooks, std::slice::from_ref(tokens));
        (ce, kl) = (ce + part.0 / 2.0, kl + part.1 / 2.0);
    }
    near(found.ce_spliced, ce);
    near(found.kl_spliced, kl);
    assert!(kl > 1e-3);
    check(
        &found,
        found.zero,
        &Hooks::new().edit(WRITE, zeros),
        &batches,
    );
}

#[test]
fn reading_where_it_writes_is_a_splice() {
    let sae = random_sae(3, D, 64, 8, &Device::cpu());
    let mut all = SplicedAccumulator::across(sae.clone(), HOOK, HOOK);
    block_on(all.add(&model(), &tokens(1))).unwrap();
    block_on(all.add(&model(), &tokens(2))).unwrap();
    assert_eq!(all.finish(), measure(sae, HOOK).unwrap());
}

#[test]
fn a_transcoder_may_not_write_before_it_reads() {
    let mut all = SplicedAccumulator::across(transcoder(), WRITE, READ);
    let error = block_on(all.add(&model(), &tokens(1))).unwrap_err();
    says(
        error,
        &["comes to blocks.1.ln2.hook_normalized before", WRITE],
    );
}

#[test]
#[should_panic(expected = "blocks.1.ln2.hook_normalized comes before what is to be read")]
fn nor_do_its_hooks_alone() {
    let hooks = splice_across(transcoder(), WRITE, READ);
    drop(model().run(&tokens(1), &hooks));
}

#[test]
fn an_older_file_has_no_ablations() {
    let older = r#"{"tokens": 9, "ce_original": 3.0, "ce_spliced": 3.5, "ce_zero": 5.0,
        "ce_recovered": 0.75, "kl_spliced": 0.2}"#;
    let read: Spliced = serde_json::from_str(older).unwrap();
    assert_eq!((read.ce_zero, read.zero, read.resample), (5.0, None, None));
    let found = measure(random_sae(3, D, 64, 8, &Device::cpu()), HOOK).unwrap();
    let text = serde_json::to_string(&found).unwrap();
    assert!(
        text.contains("\"mean\":null") && text.contains("kl_ratio"),
        "{text}"
    );
    let again: Spliced = serde_json::from_str(&text).unwrap();
    near(again.resample.unwrap().kl, found.resample.unwrap().kl);
}
