//! Gurnee, Horsley, Guo, Kheirkhah, Sun, Hathaway, Nanda & Bertsimas 2024, "Universal neurons in GPT2
//! language models", on the three embedded seeds of one model.

use burn::tensor::Tensor;
use burn::tensor::activation::log_softmax;
use inscape::Device;
use inscape::capture::batches;
use inscape::device::{block_on, read, read_int};
use inscape::hook::{Activation, Hooks};
use inscape::model::{self, Network, Param, Tokens};
use inscape::similarity::{
    Correlations, Rosetta, UnitCorrelations, excess_correlation, universal_families,
};

const SEEDS: usize = 3;
const LAYERS: usize = 4;
const WIDTH: usize = 344;
const CONTEXT: usize = 128;
/// Excess correlation from which a neuron counts as universal here.
const UNIVERSAL: f64 = 0.3;
/// How far a neuron is moved, as a share of the length of the last residual.
const STEP: f64 = 0.3;

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

/// A few neurons of each seed have a partner in the other seeds; most do not. At this size the paper's
/// excess of 0.5 is out of reach, and most neurons exceed a rotation by a little: those above 0.3 are as
/// few as the paper's universal ones (1 to 5 %).
#[test]
fn gurnee_2024_few_neurons_are_universal() {
    let pairs = gathered(16_000);
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
    let most = |excess: &[f64]| excess.iter().fold(f64::MIN, |m, e| m.max(*e));
    for (seed, excess) in excess.iter().enumerate() {
        let shares = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5].map(|above| share(excess, above));
        let layers: Vec<f64> = excess.chunks(WIDTH).map(|l| share(l, UNIVERSAL)).collect();
        println!(
            "seed {}: excess {:.3} in the mean, {:.3} at most; shares above 0.0 to 0.5 {shares:.3?}; above {UNIVERSAL} by layer {layers:.3?}",
            seed + 1,
            excess.iter().sum::<f64>() / excess.len() as f64,
            most(excess),
        );
    }
    println!("one rotation less another: {:.3} at most", most(&none));
    let of_pair = |a: usize, b: usize| {
        let pair = pairs.iter().find(|p| p.seeds == [a, b]);
        pair.unwrap().found()
    };
    let three = [of_pair(0, 1), of_pair(0, 2), of_pair(1, 2)];
    let families = universal_families(&three, &excess, UNIVERSAL);
    let layers = |f: &Rosetta| f.units.iter().map(|u| u / WIDTH).collect::<Vec<_>>();
    for family in &families {
        let units: Vec<usize> = family.units.iter().map(|u| u % WIDTH).collect();
        println!(
            "family in layers {:?}, neurons {units:?}: r at least {:.2}",
            layers(family),
            family.r
        );
    }
    for excess in &excess {
        let universal = share(excess, UNIVERSAL);
        assert!(universal > 0.0 && universal < 0.05, "{universal}");
        assert!(share(excess, 0.5) < 0.01);
    }
    assert!(most(&none) < UNIVERSAL / 2.0);
    assert!(!families.is_empty());
}

/// What the last layer's neurons write, `[344, 128]`, and the gain of the final norm, `[1, 128]`.
fn written(network: &mut Network) -> [Tensor<2>; 2] {
    let (mut down, mut gain) = (None, None);
    for (name, param) in network.model.params() {
        match (name.as_str(), param) {
            ("model.layers.3.mlp.down_proj.weight", Param::R2(w)) => down = Some(w.clone()),
            ("model.norm.weight", Param::R1(g)) => gain = Some(g.clone().unsqueeze()),
            _ => {}
        }
    }
    [down.unwrap().transpose(), gain.unwrap()]
}

/// The end of the model: what is said of each row of the last residual.
struct Head {
    gain: Tensor<2>,
    unembedding: Tensor<2>,
}

/// Mean entropy of the next token in nats, and the most likely token at each position.
type Said = (f64, Vec<i64>);

impl Head {
    fn says(&self, residual: Tensor<2>) -> Said {
        let scale = (residual.clone().square().mean_dim(1) + 1e-6).sqrt();
        let normal = residual / scale * self.gain.clone();
        said(normal.matmul(self.unembedding.clone().transpose()))
    }

    /// Variance over the tokens of what a unit length of each row adds to the logits.
    fn logit_variance(&self, written: &Tensor<2>) -> Vec<f64> {
        let unit = written.clone() / written.clone().square().sum_dim(1).sqrt();
        let logits = (unit * self.gain.clone()).matmul(self.unembedding.clone().transpose());
        let about = logits.clone() - logits.mean_dim(1);
        block_on(read(about.square().mean_dim(1))).unwrap()
    }
}

fn said(logits: Tensor<2>) -> Said {
    let log = log_softmax(logits, 1);
    let entropy = -(log.clone().exp() * log.clone()).sum_dim(1).mean();
    let entropy: Vec<f64> = block_on(read(entropy)).unwrap();
    (entropy[0], block_on(read_int(log.argmax(1))).unwrap())
}

fn flat(x: Tensor<3>) -> Tensor<2> {
    let [b, p, d] = x.dims();
    x.reshape([b * p, d])
}

/// A neuron of the last layer moved by `by` everywhere, through the hooks.
fn hooked(network: &Network, tokens: &Tokens, neuron: usize, by: f64) -> Said {
    let moved = move |_, x: Activation| {
        let x = x.r3();
        let [b, p, _] = x.dims();
        let at = [0..b, 0..p, neuron..neuron + 1];
        let own = x.clone().slice(at.clone());
        Activation::R3(x.slice_assign(at, own + by))
    };
    let hooks = Hooks::new().edit("blocks.3.mlp.hook_post", moved);
    said(flat(
        network.run(tokens, &hooks).unwrap().output.logits.unwrap(),
    ))
}

fn kept(a: &[i64], b: &[i64]) -> f64 {
    a.iter().zip(b).filter(|(a, b)| a == b).count() as f64 / a.len() as f64
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// Neurons of the last layer that write where the unembedding hardly looks (entropy neurons) change how
/// sure the model is, and what it says less than other neurons do that are moved by the same length.
///
/// The paper's neurons change the entropy and hardly anything else. Here there is none of those: an
/// unembedding of 128 dimensions looks everywhere, and the entropy moves less by what keeps the ranking.
#[test]
fn gurnee_2024_entropy_neurons_change_the_ranking_less() {
    let mut network = network(0);
    let [written, gain] = written(&mut network);
    let unembedding = network.model.unembedding().unwrap();
    let head = Head { gain, unembedding };
    let tokens = text(&network, 1_024).swap_remove(0);
    let point = "blocks.3.hook_resid_post";
    let run = network.run(&tokens, &Hooks::new().capture(point)).unwrap();
    let residual = flat(run.captured[point].clone().r3());
    let length: Vec<f64> =
        block_on(read(residual.clone().square().sum_dim(1).sqrt().mean())).unwrap();
    let norms: Vec<f64> = block_on(read(written.clone().square().sum_dim(1).sqrt())).unwrap();
    let variance = head.logit_variance(&written);
    let (plain, before) = head.says(residual.clone());
    let step = |neuron: usize, sign: f64| sign * STEP * length[0] / norms[neuron];
    let effect = |neuron: usize| {
        let both = [1.0, -1.0].map(|sign| {
            let row = written.clone().narrow(0, neuron, 1);
            let (entropy, now) = head.says(residual.clone() + row * step(neuron, sign));
            ((entropy - plain).abs(), kept(&before, &now))
        });
        [(both[0].0 + both[1].0) / 2.0, (both[0].1 + both[1].1) / 2.0]
    };
    let effects: Vec<[f64; 2]> = (0..WIDTH).map(effect).collect();
    let candidate = (0..WIDTH)
        .min_by(|a, b| variance[*a].total_cmp(&variance[*b]))
        .unwrap();
    let (hooked_entropy, hooked_said) = hooked(&network, &tokens, candidate, step(candidate, 1.0));
    let (entropy, now) = head
        .says(residual.clone() + written.clone().narrow(0, candidate, 1) * step(candidate, 1.0));
    assert!((hooked_entropy - entropy).abs() < 1e-3);
    assert!(kept(&hooked_said, &now) > 0.99);
    let moved: Vec<f64> = effects.iter().map(|e| e[0]).collect();
    let stays: Vec<f64> = effects.iter().map(|e| e[1]).collect();
    println!(
        "residual length {:.1}, moved by {STEP} of it; entropy {plain:.3}; medians: entropy moved {:.3}, most likely token kept {:.3}",
        length[0],
        median(&moved),
        median(&stays)
    );
    println!(
        "neuron {candidate}, logit variance {:.4} (median {:.4}): entropy moved {:.3}, kept {:.3}",
        variance[candidate],
        median(&variance),
        moved[candidate],
        stays[candidate]
    );
    let mut by_variance: Vec<usize> = (0..WIDTH).collect();
    by_variance.sort_by(|a, b| variance[*a].total_cmp(&variance[*b]));
    let third = |which: &[usize]| {
        let of = |values: &[f64]| median(&which.iter().map(|n| values[*n]).collect::<Vec<_>>());
        [of(&moved), of(&stays)]
    };
    let low = third(&by_variance[..WIDTH / 3]);
    let high = third(&by_variance[WIDTH - WIDTH / 3..]);
    println!("thirds by logit variance, entropy moved and kept: least {low:.3?}, most {high:.3?}");
    assert!(moved[candidate] > 0.05 && stays[candidate] > median(&stays));
    assert!(low[1] > high[1]);
}
