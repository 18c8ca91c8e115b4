//! Cunningham, Ewart, Riggs, Huben & Sharkey 2023, "Sparse autoencoders find highly interpretable
//! features in language models", on a language model.

use burn::tensor::activation::log_softmax;
use inscape::capture::{self, concepts::Concept};
use inscape::geometry::{Matrix, Principal};
use inscape::hook::{Activation, Hooks};
use inscape::model::load::SAMPLE;
use inscape::model::{Network, Tokens};
use inscape::sae::eval::{ClassMeans, SplicedAccumulator, strongest};
use inscape::sae::session;

use super::tiny::{captured, trained};
use crate::*;

const HOOK: &str = "blocks.1.hook_resid_post";

/// Log-probabilities `[rows, vocab]` of the next tokens.
fn log_probs(network: &Network, tokens: &Tokens, hooks: &Hooks) -> Vec<f32> {
    let logits = network.run(tokens, hooks).unwrap().output.logits.unwrap();
    read32(log_softmax(logits, 2))
}

/// Adds `change` to the rows at the hook.
fn changed(change: impl Fn(Tensor<2>) -> Tensor<2> + Send + Sync + 'static) -> Hooks {
    Hooks::new().edit(HOOK, move |_, act: Activation| {
        let x = act.r3();
        let [batch, pos, d] = x.dims();
        let rows = x.reshape([batch * pos, d]);
        Activation::R3((rows.clone() + change(rows)).reshape([batch, pos, d]))
    })
}

/// What a change does to a class of next tokens.
#[derive(Debug)]
struct Effect {
    /// Fall of the mean probability of the class, where the next token is of it.
    fall: f64,
    /// Mean KL divergence from the predictions as they were, where it is not.
    elsewhere: f64,
}

struct Class {
    /// Whether each token of the vocabulary is of it.
    members: Vec<bool>,
    /// Whether the next token of each row is.
    next: Vec<Option<bool>>,
}

impl Class {
    fn effect(&self, before: &[f32], after: &[f32]) -> Effect {
        let vocab = self.members.len();
        let (mut fall, mut kl, mut n) = (0.0, 0.0, [0.0; 2]);
        for ((p, q), next) in before
            .chunks(vocab)
            .zip(after.chunks(vocab))
            .zip(&self.next)
        {
            let each = || p.iter().zip(q).map(|(p, q)| (f64::from(*p), f64::from(*q)));
            match next {
                Some(true) => {
                    let of = each().zip(&self.members).filter(|(_, m)| **m);
                    fall += of.map(|((p, q), _)| p.exp() - q.exp()).sum::<f64>();
                    n[0] += 1.0;
                }
                Some(false) => {
                    kl += each().map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
                    n[1] += 1.0;
                }
                None => {}
            }
        }
        Effect {
            fall: fall / n[0],
            elsewhere: kl / n[1],
        }
    }
}

/// What the model predicts for a text, before anything is changed.
struct Text<'a> {
    network: &'a Network,
    tokens: &'a Tokens,
    before: Vec<f32>,
}

impl<'a> Text<'a> {
    fn new(network: &'a Network, tokens: &'a Tokens) -> Self {
        Self {
            network,
            tokens,
            before: log_probs(network, tokens, &Hooks::new()),
        }
    }

    /// Whether the tokens after each token are of a class.
    fn class(&self, class: Concept) -> Class {
        let vocabulary: Vec<u32> = (0..self.network.model.vocab_size() as u32).collect();
        let members = class.labels(&shown(self.network, &vocabulary));
        let rows = self.tokens.rows().iter();
        Class {
            members: members.iter().map(|l| *l == Some(true)).collect(),
            next: rows
                .flat_map(|row| next(class, &shown(self.network, row)))
                .collect(),
        }
    }

    fn effect(&self, of: &Class, hooks: &Hooks) -> Effect {
        of.effect(&self.before, &log_probs(self.network, self.tokens, hooks))
    }
}

fn shown(network: &Network, ids: &[u32]) -> Vec<String> {
    ids.iter().map(|id| network.tokenizer.show(*id)).collect()
}

fn next(class: Concept, text: &[String]) -> Vec<Option<bool>> {
    let mut labels = class.labels(text);
    labels.rotate_left(1);
    labels[text.len() - 1] = None;
    labels
}

/// Takes what a latent adds from the activations.
fn without_latent(sae: &Sae, latent: usize) -> Hooks {
    let (encoder, row) = (sae.clone(), sae.w_dec.clone().narrow(0, latent, 1));
    changed(move |x| {
        let f = encoder.encode_dense(x).narrow(1, latent, 1);
        f.matmul(row.clone()).neg()
    })
}

/// Takes `share` of what lies along a principal axis, about the mean, from the activations.
fn without_axis(principal: &Principal, axis: usize, share: f64, cpu: &Device) -> Hooks {
    let v = principal.axes.row(axis);
    let mean: f64 = principal.mean.iter().zip(v).map(|(m, v)| m * v).sum();
    let v = t2(&f32s(v), v.len(), cpu);
    changed(move |x| {
        let along = x.matmul(v.clone().transpose()) - mean;
        (along * -share).matmul(v.clone())
    })
}

/// The effect of as much of an axis as lowers the class as far as `fall`: 0 to 4 times all of it; `None`
/// where that is not enough.
fn as_strong(fall: f64, remove: impl Fn(f64) -> Effect) -> Option<(f64, Effect)> {
    let (mut low, mut high) = (0.0, 4.0);
    let mut found = remove(high);
    if found.fall < fall {
        return None;
    }
    for _ in 0..7 {
        let middle = (low + high) / 2.0;
        let now = remove(middle);
        match now.fall < fall {
            true => low = middle,
            false => (high, found) = (middle, now),
        }
    }
    Some((high, found))
}

/// How far apart the class lies along each axis, in deviations.
fn apart(scores: &Matrix, labels: &[Option<bool>], principal: &Principal) -> Vec<f64> {
    let d = scores.columns();
    let (mut sums, mut n) = ([vec![0.0; d], vec![0.0; d]], [0.0; 2]);
    for (row, label) in scores.each_row().zip(labels) {
        let Some(is) = label.map(usize::from) else {
            continue;
        };
        n[is] += 1.0;
        sums[is].iter_mut().zip(row).for_each(|(s, x)| *s += x);
    }
    let by = |j: usize| sums[1][j] / n[1] - sums[0][j] / n[0];
    (0..d)
        .map(|j| by(j) / principal.variances[j].sqrt())
        .collect()
}

/// An autoencoder four times as wide as the model keeps nine tenths of the variance and of the model's
/// loss with 16 latents a token. The latent that stands for a class of next tokens (of the five with
/// the largest difference of class means, the one whose ablation lowers the class most on training
/// text) can be ablated with less change elsewhere than any of the three principal components that tell
/// the class best, of each as much as lowers the class as far. (The largest difference alone chooses no
/// such latent for punctuation.)
#[test]
fn cunningham_2023_ablating_a_feature_is_precise() {
    let (cpu, dir) = (Device::cpu(), tempfile::tempdir().unwrap());
    let (network, all) = captured("tiny-lm-1", HOOK, 60_000, dir.path(), &cpu);
    let (d, cut) = (all.width(), all.rows() * 9 / 10);
    let train = all.sub(0..cut).unwrap();
    let sae = trained(&train, [4 * d, 16], 10, &dir.path().join("sae"), &cpu);

    let held_out = all.sub(cut..all.rows()).unwrap();
    let kept = session::evaluate(&sae, &held_out, &cpu, |_| ()).unwrap();
    let from = held_out.meta(0..1).unwrap().unwrap()[0].offset_start as usize;
    let batch = |from: usize| {
        let (text, most) = (&SAMPLE.as_bytes()[from..], Some(24 * 128));
        capture::batches(&network, text, "sample", 128, 24, most)
            .unwrap()
            .remove(0)
    };
    let [seen, unseen] = [0, from].map(batch);
    let mut spliced = SplicedAccumulator::new(sae.clone(), HOOK);
    block_on(spliced.add(network.model.as_ref(), &unseen)).unwrap();
    let spliced = spliced.finish();
    println!(
        "variance explained {:.4}, L0 {:.2}, dead {:.4}, loss recovered {:.4}",
        1.0 - kept.fvu,
        kept.l0,
        kept.dead_share,
        spliced.ce_recovered,
    );
    assert!(kept.fvu <= 0.1 && kept.l0 <= 16.0, "{kept:?}");
    assert!(spliced.ce_recovered >= 0.9, "{spliced:?}");

    let classes = [
        Concept::Punctuation,
        Concept::Newline,
        Concept::WordStart,
        Concept::Capital,
    ];
    let ids = train.token_ids(0..cut).unwrap().unwrap();
    let text = shown(&network, &ids);
    let labels = classes.map(|class| next(class, &text));
    let mut rows = Vec::new();
    train.read_rows(0..cut, &mut rows).unwrap();
    let mut means = ClassMeans::new(sae.d_sae(), classes.len());
    for start in (0..cut).step_by(4096) {
        let range = start..(start + 4096).min(cut);
        let of = labels.each_ref().map(|l| &l[range.clone()]);
        let x = t2(&rows[range.start * d..range.end * d], d, &cpu);
        block_on(means.add(&sae.encode(x), &of)).unwrap();
    }
    let points = Matrix::new(rows.iter().map(|v| f64::from(*v)).collect(), d).unwrap();
    let principal = Principal::of(&points).unwrap();
    let scores = principal.project(&points, 0, d);

    let [seen, unseen] = [&seen, &unseen].map(|tokens| Text::new(&network, tokens));
    let mut precise = 0;
    for (c, class) in classes.into_iter().enumerate() {
        let (known, of) = (seen.class(class), unseen.class(class));
        let differences = means.differences(c, class.name()).unwrap();
        let falls = strongest(&differences, 5)
            .unwrap()
            .into_iter()
            .map(|latent| {
                let effect = seen.effect(&known, &without_latent(&sae, latent));
                (effect.fall, latent)
            });
        let (_, latent) = falls.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
        let feature = unseen.effect(&of, &without_latent(&sae, latent));
        println!("{}: latent {latent}: {feature:?}", class.name());
        let mut least = f64::INFINITY;
        for axis in strongest(&apart(&scores, &labels[c], &principal), 3).unwrap() {
            let remove = |share| unseen.effect(&of, &without_axis(&principal, axis, share, &cpu));
            match as_strong(feature.fall, remove) {
                Some((share, effect)) => {
                    println!("  {share:.2} of component {axis}: {effect:?}");
                    least = least.min(effect.elsewhere);
                }
                None => println!("  component {axis}: not as far"),
            }
        }
        precise += usize::from(feature.fall > 0.0 && feature.elsewhere < least);
    }
    println!("{precise} of {} classes", classes.len());
    assert!(precise >= 3);
}
