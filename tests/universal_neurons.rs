//! Gurnee, Horsley, Guo, Kheirkhah, Sun, Hathaway, Nanda & Bertsimas 2024, "Universal neurons in GPT2
//! language models", on the three embedded seeds of one model.

use burn::tensor::Tensor;
use burn::tensor::activation::log_softmax;
use inscape::Device;
use inscape::capture::batches;
use inscape::device::{block_on, read};
use inscape::hook::{Activation, Hooks};
use inscape::model::{self, Network, Param, Tokens};
use inscape::similarity::{Correlations, UnitCorrelations, excess_correlation, universal_families};

const SEEDS: usize = 3;
const LAYERS: usize = 4;
const WIDTH: usize = 344;
const CONTEXT: usize = 128;

fn network(seed: usize) -> Network {
    model::load(format!("tiny-lm-{}", seed + 1), &Device::cpu()).unwrap()
}

/// The held-out text in batches of sixteen contexts.
fn text(network: &Network, tokens: u64) -> Vec<Tokens> {
    let text = model::load::SAMPLE.as_bytes();
    batches(network, text, "sample", CONTEXT, 16, Some(tokens)).unwrap()
}

/// What each layer's neurons give for a batch, `[tokens, 344]` each.
fn neurons(network: &Network, tokens: &Tokens) -> Vec<Tensor<2>> {
    let hooks = Hooks::new().capture("blocks.*.mlp.hook_post");
    let run = network.run(tokens, &hooks).unwrap();
    let layer = |l: usize| {
        let x = run.captured[&format!("blocks.{l}.mlp.hook_post")]
            .clone()
            .r3();
        let [b, p, d] = x.dims();
        x.reshape([b * p, d])
    };
    (0..LAYERS).map(layer).collect()
}

/// The same left units against the units of several layers.
fn side_by_side(layers: &[UnitCorrelations]) -> UnitCorrelations {
    let rows = layers[0].rows;
    let row = |i: usize| layers.iter().flat_map(move |l| l.row(i)).copied();
    UnitCorrelations {
        rows,
        columns: layers.iter().map(|l| l.columns).sum(),
        values: (0..rows).flat_map(row).collect(),
    }
}

/// All neurons of seed `a` with those of each layer of seed `b`.
struct Pair {
    seeds: [usize; 2],
    layers: Vec<Correlations>,
}

impl Pair {
    fn found(&self) -> UnitCorrelations {
        let layers = self.layers.iter().map(|l| l.read().unwrap());
        side_by_side(&layers.collect::<Vec<_>>())
    }

    /// The neurons of a layer rotated among themselves.
    fn rotated(&self, seed: u64) -> UnitCorrelations {
        let layers = self.layers.iter().map(|l| l.rotated(seed).unwrap());
        side_by_side(&layers.collect::<Vec<_>>())
    }
}

fn gathered(tokens: u64) -> Vec<Pair> {
    let networks: Vec<Network> = (0..SEEDS).map(network).collect();
    let orders = (0..SEEDS * SEEDS).map(|at| [at / SEEDS, at % SEEDS]);
    let mut pairs: Vec<Pair> = orders
        .filter(|[a, b]| a != b)
        .map(|seeds| {
            let one = |_| Correlations::new(LAYERS * WIDTH, WIDTH, &Device::cpu()).with_rotations();
            let layers = (0..LAYERS).map(one).collect();
            Pair { seeds, layers }
        })
        .collect();
    for tokens in text(&networks[0], tokens) {
        let all: Vec<Vec<Tensor<2>>> = networks.iter().map(|n| neurons(n, &tokens)).collect();
        for pair in &mut pairs {
            let [a, b] = pair.seeds;
            let left = Tensor::cat(all[a].clone(), 1);
            for (layer, right) in pair.layers.iter_mut().zip(&all[b]) {
                layer.push(&left, right).unwrap();
            }
        }
    }
    pairs
}

/// A few neurons of each seed have a partner in the other seeds; most do not.
#[test]
fn gurnee_2024_few_neurons_are_universal() {
    let pairs = gathered(20_000);
    println!("{} tokens", pairs[0].layers[0].rows());
    let of = |seed: usize| pairs.iter().filter(move |p| p.seeds[0] == seed);
    let excess: Vec<Vec<f64>> = (0..SEEDS)
        .map(|seed| {
            let found: Vec<_> = of(seed).map(Pair::found).collect();
            let rotated: Vec<_> = of(seed).map(|p| p.rotated(1)).collect();
            excess_correlation(&found, &rotated)
        })
        .collect();
    let again: Vec<_> = of(0).map(|p| p.rotated(2)).collect();
    let once: Vec<_> = of(0).map(|p| p.rotated(1)).collect();
    let none = excess_correlation(&again, &once);
    let share = |excess: &[f64], above: f64| {
        excess.iter().filter(|e| **e > above).count() as f64 / excess.len() as f64
    };
    for (seed, excess) in excess.iter().enumerate() {
        let layers: Vec<String> = excess
            .chunks(WIDTH)
            .map(|l| format!("{:.3}", share(l, 0.5)))
            .collect();
        println!(
            "seed {}: mean excess {:.3}; above 0.5: {:.3} of the neurons (by layer {}), above 0.3: {:.3}",
            seed + 1,
            excess.iter().sum::<f64>() / excess.len() as f64,
            share(excess, 0.5),
            layers.join(", "),
            share(excess, 0.3),
        );
    }
    println!(
        "one rotation against another: {:.4} above 0.1",
        share(&none, 0.1)
    );
    let of_pair = |a: usize, b: usize| {
        let pair = pairs.iter().find(|p| p.seeds == [a, b]);
        pair.unwrap().found()
    };
    let three = [of_pair(0, 1), of_pair(0, 2), of_pair(1, 2)];
    let families = universal_families(&three, &excess, 0.5);
    let same_layer = families.iter().filter(|f| {
        let layers: Vec<usize> = f.units.iter().map(|u| u / WIDTH).collect();
        layers.windows(2).all(|w| w[0] == w[1])
    });
    println!(
        "{} families in all three seeds, {} within one layer",
        families.len(),
        same_layer.count()
    );
    for excess in &excess {
        let universal = share(excess, 0.5);
        assert!(universal > 0.0 && universal < 0.1, "{universal}");
    }
    assert!(share(&none, 0.5) == 0.0);
    assert!(!families.is_empty());
}

/// `[344, 128]`: what a unit of activation of each neuron of the last layer writes.
fn written(network: &mut Network) -> (Vec<Vec<f64>>, Vec<f64>) {
    let (mut down, mut gain) = (Vec::new(), Vec::new());
    for (name, param) in network.model.params() {
        match (name.as_str(), param) {
            ("model.layers.3.mlp.down_proj.weight", Param::R2(w)) => {
                down = block_on(read::<f64, 2>(w.clone())).unwrap();
                assert_eq!(w.dims(), [128, WIDTH]);
            }
            ("model.norm.weight", Param::R1(g)) => {
                gain = block_on(read::<f64, 1>(g.clone())).unwrap()
            }
            _ => {}
        }
    }
    let column = |j: usize| (0..128).map(|d| down[d * WIDTH + j]).collect();
    ((0..WIDTH).map(column).collect(), gain)
}

/// Mean entropy of the next token in nats, and the most likely token at each position, with a neuron of
/// the last layer moved by `by` everywhere.
fn with_neuron(network: &Network, tokens: &[Tokens], neuron: usize, by: f64) -> (f64, Vec<i64>) {
    let (mut entropy, mut said) = (Vec::new(), Vec::new());
    for tokens in tokens {
        let moved = move |_, x: Activation| {
            let x = x.r3();
            let [b, p, _] = x.dims();
            let at = [0..b, 0..p, neuron..neuron + 1];
            let own = x.clone().slice(at.clone());
            Activation::R3(x.slice_assign(at, own + by))
        };
        let hooks = Hooks::new().edit("blocks.3.mlp.hook_post", moved);
        let logits = network.run(tokens, &hooks).unwrap().output.logits.unwrap();
        let [b, p, v] = logits.dims();
        let log = log_softmax(logits.reshape([b * p, v]), 1);
        let own: Vec<f64> = block_on(read((log.clone().exp() * log.clone()).sum_dim(1))).unwrap();
        entropy.extend(own.into_iter().map(|h| -h));
        said.extend(block_on(inscape::device::read_int(log.argmax(1))).unwrap());
    }
    (entropy.iter().sum::<f64>() / entropy.len() as f64, said)
}

/// Neurons of the last layer that write much where the unembedding hardly looks: they change how sure the
/// model is, through the final norm, and hardly what it says.
#[test]
fn gurnee_2024_an_entropy_neuron_changes_the_entropy_and_not_the_ranking() {
    let mut network = network(0);
    let (written, gain) = written(&mut network);
    let unembedding = network.model.unembedding().unwrap();
    let rows: Vec<f64> = block_on(read(unembedding.clone())).unwrap();
    let vocab = unembedding.dims()[0];
    let norm = |w: &[f64]| w.iter().map(|v| v * v).sum::<f64>().sqrt();
    let logit_variance = |w: &[f64]| {
        let logit = |t: usize| -> f64 {
            let row = &rows[t * 128..(t + 1) * 128];
            row.iter()
                .zip(w)
                .zip(&gain)
                .map(|((u, w), g)| u * w * g)
                .sum()
        };
        let logits: Vec<f64> = (0..vocab).map(logit).collect();
        let mean = logits.iter().sum::<f64>() / vocab as f64;
        logits.iter().map(|l| (l - mean).powi(2)).sum::<f64>() / vocab as f64 / norm(w).powi(2)
    };
    let variance: Vec<f64> = written.iter().map(|w| logit_variance(w)).collect();
    let norms: Vec<f64> = written.iter().map(|w| norm(w)).collect();
    let mut by_norm: Vec<usize> = (0..WIDTH).collect();
    by_norm.sort_by(|a, b| norms[*b].total_cmp(&norms[*a]));
    let large = &by_norm[..WIDTH / 4];
    let least = large
        .iter()
        .min_by(|a, b| variance[**a].total_cmp(&variance[**b]));
    let candidate = *least.unwrap();

    let tokens: Vec<Tokens> = text(&network, 4_000);
    let (plain, said) = with_neuron(&network, &tokens, 0, 0.0);
    // As much is written for every neuron: twice the length of the last residual's typical update.
    let effect = |neuron: usize| {
        let by = 8.0 / norms[neuron];
        let (entropy, now) = with_neuron(&network, &tokens, neuron, by);
        let kept = said.iter().zip(&now).filter(|(a, b)| a == b).count();
        (entropy - plain, kept as f64 / said.len() as f64)
    };
    let (change, kept) = effect(candidate);
    println!(
        "neuron {candidate}: norm {:.2}, logit variance {:.4} (median {:.4}); entropy {plain:.3} {change:+.3}, {kept:.3} of the most likely tokens kept",
        norms[candidate],
        variance[candidate],
        {
            let mut v = variance.clone();
            v.sort_by(f64::total_cmp);
            v[WIDTH / 2]
        },
    );
    let others: Vec<(f64, f64)> = large
        .iter()
        .filter(|n| **n != candidate)
        .step_by(4)
        .map(|n| effect(*n))
        .collect();
    for (change, kept) in &others {
        println!("  other: {change:+.3}, {kept:.3}");
    }
    let more = others.iter().filter(|(_, k)| *k > kept).count();
    println!("{more} of {} others keep more", others.len());
    assert!(change.abs() > 0.05, "{change}");
    assert!(kept > 0.9, "{kept}");
}
