//! Lan, Torr, Meek, Khakzar, Krueger & Barez 2024, "Sparse autoencoders reveal universal feature
//! spaces across large language models".

use inscape::sae::eval::matching::{Correlations, Pair, one_to_one};
use inscape::similarity::{Metric, Prepared};

use super::tiny::{captured, trained};
use crate::*;

/// The metric of the decoder rows of `pairs`, and of `random` other pairings of the same rows.
fn paired(
    metric: &str,
    [a, b]: [&Tensor<2>; 2],
    pairs: &[Pair],
    random: usize,
    draws: &mut Draws,
) -> (f64, Vec<f64>) {
    let metric: Metric = metric.parse().unwrap();
    let left = select(a, pairs.iter().map(|p| p.a));
    let left = Prepared::new(&left, metric).unwrap();
    let mut to: Vec<usize> = pairs.iter().map(|p| p.b).collect();
    let with = |to: &[usize]| {
        let right = select(b, to.iter().copied());
        left.compare(&Prepared::new(&right, metric).unwrap())
            .unwrap()
    };
    let own = with(&to);
    let others = (0..random).map(|_| {
        shuffle(&mut to, draws);
        with(&to)
    });
    (own, others.collect())
}

fn select(w: &Tensor<2>, rows: impl Iterator<Item = usize>) -> Tensor<2> {
    let rows: Vec<i32> = rows.map(|i| i as i32).collect();
    let n = rows.len();
    let rows = Tensor::from_data(TensorData::new(rows, [n]), &w.device());
    w.clone().select(0, rows)
}

/// Two models that differ in their seeds alone have features that respond to the same text, and their
/// decoder rows one geometry: more alike than in every one of a thousand other pairings.
///
/// All one-to-one pairs count, also those of features that hardly respond alike.
#[test]
fn lan_2024_two_seeds_of_a_model_share_a_feature_space() {
    const HOOK: &str = "blocks.1.hook_resid_post";
    const D_SAE: usize = 1024;
    let (cpu, dir) = (Device::cpu(), tempfile::tempdir().unwrap());
    let one = |name: &str| {
        let (_, source) = captured(name, HOOK, 30_000, dir.path(), &cpu);
        let out = dir.path().join(format!("{name}-sae"));
        let sae = trained(&source, [D_SAE, 16], 8, &out, &cpu);
        (source, sae)
    };
    let [(x, a), (y, b)] = ["tiny-lm-1", "tiny-lm-2"].map(one);
    let mut all = Correlations::new(D_SAE, D_SAE);
    for start in (0..x.rows()).step_by(2000) {
        let range = start..(start + 2000).min(x.rows());
        let latents = |source: &Source, sae: &Sae| {
            let mut rows = Vec::new();
            source.read_rows(range.clone(), &mut rows).unwrap();
            sae.encode(t2(&rows, source.width(), &cpu))
        };
        block_on(all.add_latents(&latents(&x, &a), &latents(&y, &b))).unwrap();
    }
    let best = all.finish().best();
    let pairs = one_to_one(&best);
    let mean = |pairs: &[Pair]| pairs.iter().map(|p| p.score).sum::<f64>() / pairs.len() as f64;
    println!(
        "{D_SAE} latents: {} dead, {} many to one, {} paired; mean correlation {:.3} before, {:.3} after; {} above 0.5",
        D_SAE - best.len(),
        best.len() - pairs.len(),
        pairs.len(),
        mean(&best),
        mean(&pairs),
        pairs.iter().filter(|p| p.score > 0.5).count()
    );
    let decoders = [&a.w_dec, &b.w_dec];
    for metric in ["svcca", "rsa"] {
        let (own, others) = paired(metric, decoders, &pairs, 1000, &mut Draws::new(1));
        let most = others.iter().fold(f64::MIN, |m, x| m.max(*x));
        let mean = others.iter().sum::<f64>() / others.len() as f64;
        println!("{metric}: {own:.4}; 1000 random pairings: mean {mean:.4}, most {most:.4}");
        assert!(own > most, "{metric}: {own} {most}");
    }
}
