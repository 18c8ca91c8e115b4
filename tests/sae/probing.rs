//! Probes, absorption and ablation against plain loops, and planted concepts of which the truth is
//! known.

use inscape::sae::eval::*;
use inscape::sae::{Activation, Latents};

use super::*;

pub fn close(got: f64, want: f64, tolerance: f64) {
    assert!((got - want).abs() <= tolerance, "{got}, not {want}");
}

/// Rows whose class shifts two of five columns of very different scales.
fn shifted(seed: u64, n: usize, positives: usize) -> (Vec<f32>, Vec<bool>) {
    let mut draws = Draws::new(seed);
    let labels: Vec<bool> = (0..n).map(|i| i < positives).collect();
    let mut x = Vec::new();
    for &l in &labels {
        let shift = if l { 1.0 } else { 0.0 };
        let row = draws.normals(5);
        x.push((row[0] + shift) as f32);
        x.push((100.0 * (row[1] - 0.5 * shift) + 7.0) as f32);
        x.extend(row[2..4].iter().map(|v| *v as f32));
        x.push(3.0);
    }
    (x, labels)
}

/// At the minimum of a convex function its gradient is 0; found here by a plain loop over columns
/// standardised by another.
#[test]
fn the_fit_is_where_the_objective_is_least() {
    let (n, positives) = (300, 80);
    let (x, labels) = shifted(1, n, positives);
    let rows = Labelled::new("rows", x.clone(), 5, labels.clone()).unwrap();
    for fit in [
        Fit::default(),
        Fit {
            l2: 25.0,
            balanced: true,
        },
    ] {
        let probe = Probe::fit(&rows, &fit).unwrap();
        assert_eq!(probe.weights[4], 0.0, "a constant column");
        let column = |j: usize| x.iter().skip(j).step_by(5).map(|v| f64::from(*v));
        let mut gradient = [0.0; 5];
        for (j, slope) in gradient.iter_mut().enumerate().take(4) {
            let mean = column(j).sum::<f64>() / n as f64;
            let variance = column(j).map(|v| (v - mean).powi(2)).sum::<f64>() / n as f64;
            let scale = variance.sqrt();
            *slope = fit.l2 * probe.weights[j] * scale;
            for (i, v) in column(j).enumerate() {
                *slope += pull(&probe, &x[i * 5..][..5], labels[i], &fit, n, positives)
                    * (v - mean)
                    / scale;
            }
        }
        for (i, &label) in labels.iter().enumerate() {
            gradient[4] += pull(&probe, &x[i * 5..][..5], label, &fit, n, positives);
        }
        for g in gradient {
            close(g, 0.0, 1e-6);
        }
    }
}

/// `s (p − y)` of a row.
fn pull(probe: &Probe, x: &[f32], label: bool, fit: &Fit, n: usize, positives: usize) -> f64 {
    let class = if label { positives } else { n - positives } as f64;
    let weight = match fit.balanced {
        true => n as f64 / (2.0 * class),
        false => 1.0,
    };
    let z: f64 = x
        .iter()
        .zip(&probe.weights)
        .map(|(x, w)| f64::from(*x) * w)
        .sum();
    let p = 1.0 / (1.0 + (-(z + probe.bias)).exp());
    weight * (p - if label { 1.0 } else { 0.0 })
}

#[test]
fn scores_are_those_of_plain_counts_with_ties() {
    let mut draws = Draws::new(2);
    let labels: Vec<bool> = (0..200).map(|_| draws.below(4) == 0).collect();
    let logits: Vec<f64> = labels
        .iter()
        .map(|l| (draws.below(9) as f64 - 5.0) + if *l { 2.0 } else { 0.0 })
        .collect();
    let found = Scores::of(&logits, &labels);
    let count = |label: bool, side: bool| {
        let both = logits.iter().zip(&labels);
        both.filter(|(z, l)| **l == label && (**z > 0.0) == side)
            .count() as f64
    };
    let [tp, fp, missed, tn] = [
        count(true, true),
        count(false, true),
        count(true, false),
        count(false, false),
    ];
    close(found.accuracy, (tp + tn) / 200.0, 1e-12);
    close(found.f1, 2.0 * tp / (2.0 * tp + fp + missed), 1e-12);
    let balanced = (tp / (tp + missed) + tn / (tn + fp)) / 2.0;
    close(found.balanced_accuracy, balanced, 1e-12);
    let (mut won, mut pairs) = (0.0, 0.0);
    for (a, _) in logits.iter().zip(&labels).filter(|(_, l)| **l) {
        for (b, _) in logits.iter().zip(&labels).filter(|(_, l)| !**l) {
            won += if a > b {
                1.0
            } else if a == b {
                0.5
            } else {
                0.0
            };
            pairs += 1.0;
        }
    }
    close(found.auroc, won / pairs, 1e-12);
}

#[test]
fn what_cannot_be_probed_is_named() {
    let rows = |labels: Vec<bool>, x: Vec<f32>| Labelled::new("the rows", x, 1, labels);
    let error = rows(vec![true; 3], vec![0.0; 3]).unwrap_err();
    says(
        error,
        &["the rows", "3 of 3 rows are positive", "both classes"],
    );
    let error = rows(vec![false; 2], vec![0.0; 2]).unwrap_err();
    says(error, &["0 of 2 rows are positive"]);
    let error = rows(vec![true, false], vec![0.0, f32::NAN]).unwrap_err();
    says(error, &["the rows", "row 1, column 0 is NaN"]);
    let two = rows(vec![false, true], vec![-1.0, 1.0]).unwrap();
    for l2 in [0.0, -1.0, f64::NAN] {
        let fit = Fit {
            l2,
            balanced: false,
        };
        says(Probe::fit(&two, &fit).unwrap_err(), &["l2 = ", "above 0"]);
    }
    let separable = Probe::fit(&two, &Fit::default()).unwrap();
    assert!(separable.weights[0].is_finite() && separable.scores(&two).accuracy == 1.0);
    for k in [0, 4] {
        let error = strongest(&[1.0, 2.0, 3.0], k).unwrap_err();
        says(error, &[&format!("k = {k}"), "of 3", "from 1 to 3"]);
    }
    let cpu = Device::cpu();
    let latents = Latents::of_dense(t2(&[1.0, 0.0, f32::NAN, 2.0], 2, &cpu));
    let error = block_on(columns(&latents, &[0])).unwrap_err();
    says(error, &["latents of 2 rows", "row 1, column 0 is NaN"]);
    let labels = [Some(true), Some(false)];
    let error = block_on(ClassMeans::new(2, 1).add(&latents, &[&labels])).unwrap_err();
    says(error, &["row 1, column 0 is NaN"]);
    let error = ClassMeans::new(2, 1).differences(0, "no rows").unwrap_err();
    says(error, &["no rows", "0 of 0"]);
    let probe = Probe {
        weights: vec![1.0],
        bias: 0.0,
    };
    let limits = AbsorptionLimits::default();
    let error = Absorption::new(&[1.0; 3], &probe, &[3], limits).unwrap_err();
    says(error, &["k = 4", "of 3"]);
    let error = Ablation::new(&[1.0; 3], &[probe], &[vec![1], vec![7]]).unwrap_err();
    says(error, &["k = 8", "of 3"]);
}

#[test]
fn class_means_and_columns_are_those_of_the_dense_matrix() {
    let cpu = Device::cpu();
    let sae = random_sae(3, 12, 40, 5, &cpu);
    let mut draws = Draws::new(4);
    let x = f32s(&draws.normals(150 * 12));
    let labels: Vec<Vec<Option<bool>>> = (0..2)
        .map(|_| {
            let draw = |_| [Some(true), Some(false), None][draws.below(3)];
            (0..150).map(draw).collect()
        })
        .collect();
    let mut means = ClassMeans::new(40, 2);
    for start in [0, 64, 128] {
        let range = start..150.min(start + 64);
        let part = t2(&x[range.start * 12..range.end * 12], 12, &cpu);
        let labels: Vec<&[Option<bool>]> = labels.iter().map(|l| &l[range.clone()]).collect();
        block_on(means.add(&sae.encode(part), &labels)).unwrap();
    }
    let dense = read64(sae.encode_dense(t2(&x, 12, &cpu)));
    for (c, labels) in labels.iter().enumerate() {
        let mean = |latent: usize, class: bool| {
            let rows: Vec<usize> = (0..150).filter(|&i| labels[i] == Some(class)).collect();
            rows.iter().map(|i| dense[i * 40 + latent]).sum::<f64>() / rows.len() as f64
        };
        let found = means.differences(c, "rows").unwrap();
        for (j, found) in found.iter().enumerate() {
            close(*found, mean(j, true) - mean(j, false), 1e-9);
        }
    }
    let chosen = [7, 0, 33];
    let found = block_on(columns(&sae.encode(t2(&x, 12, &cpu)), &chosen)).unwrap();
    for (i, row) in found.chunks(3).enumerate() {
        let want = chosen.map(|j| dense[i * 40 + j] as f32);
        assert_eq!(row, want);
    }
}

/// `max(W_enc x, 0)` with rows given for both sides.
pub fn relu(w_enc: &[f64], w_dec: &[f64], d: usize) -> Sae {
    let cpu = Device::cpu();
    let f = w_enc.len() / d;
    Sae {
        activation: Activation::Relu,
        ..Sae::topk(
            [t2(&f32s(w_enc), d, &cpu), t2(&f32s(w_dec), d, &cpu)],
            [f, d].map(|n| t1(&vec![0.0; n], &cpu)),
            1,
        )
    }
}

/// Axis-aligned features 0.. that fire with chance `p` each, as `[n, d]`, in ±0.01 of noise.
pub fn axes(seed: u64, n: usize, d: usize, p: f64) -> (Vec<f32>, Vec<Vec<bool>>) {
    let mut draws = Draws::new(seed);
    let (mut x, mut on) = (Vec::new(), Vec::new());
    for _ in 0..n {
        let row: Vec<bool> = (0..d).map(|_| draws.uniform(0.0, 1.0) < p).collect();
        for &fires in &row {
            let value = if fires { draws.uniform(0.8, 1.2) } else { 0.0 };
            x.push((value + draws.uniform(-0.01, 0.01)) as f32);
        }
        on.push(row);
    }
    (x, on)
}

pub fn eye(d: usize) -> Vec<f64> {
    (0..d * d)
        .map(|i| if i / d == i % d { 1.0 } else { 0.0 })
        .collect()
}

pub fn concept(name: &str, labels: impl Iterator<Item = bool>) -> LabelledConcept {
    LabelledConcept {
        name: name.into(),
        labels: labels.map(Some).collect(),
    }
}

fn probe(sae: &Sae, x: Vec<f32>, concepts: &[LabelledConcept]) -> Probed {
    let source = Source::memory("planted", x, sae.d_in());
    let half = source.rows() / 2;
    let options = ProbingOptions {
        k: [1, 2, 5]
            .into_iter()
            .filter(|k| *k <= sae.d_sae())
            .collect(),
        ablate: 1,
        ..ProbingOptions::new(0..half, half..source.rows())
    };
    let mut seen = 0;
    let cpu = Device::cpu();
    let found = probe_concepts(sae, &source, concepts, &options, &cpu, |n| seen += n).unwrap();
    assert_eq!(seen, 4 * half);
    found
}

/// Concept a is latent 3; concept b is latent 5 or latent 6.
#[test]
fn planted_concepts_are_found_in_their_latents() {
    let (x, on) = axes(5, 4000, 12, 0.15);
    let concepts = [
        concept("a", on.iter().map(|r| r[3])),
        concept("b", on.iter().map(|r| r[5] || r[6])),
    ];
    let found = probe(&relu(&eye(12), &eye(12), 12), x, &concepts);
    let [a, b] = &found.concepts[..] else {
        panic!("{found:?}")
    };
    assert_eq!(
        a.test,
        [2000, on[2000..].iter().filter(|r| r[3]).count()],
        "test rows"
    );
    assert_eq!(
        (&a.sparse[0].latents[..], &a.main[..]),
        (&[3][..], &[3][..])
    );
    for scores in a.sparse.iter().map(|s| s.scores).chain([a.dense]) {
        assert!(scores.f1 > 0.99 && scores.auroc > 0.999, "{scores:?}");
    }
    assert_eq!(a.absorbed.as_ref().unwrap().full_rate, 0.0);
    let mut main = b.main.clone();
    main.sort_unstable();
    assert_eq!(main, [5, 6]);
    let f1: Vec<f64> = b.sparse.iter().map(|s| s.scores.f1).collect();
    assert!(f1[0] < 0.8 && f1[1] > 0.99 && f1[2] > 0.99, "{f1:?}");
    assert_eq!(b.sparse.iter().map(|s| s.k).collect::<Vec<_>>(), [1, 2, 5]);
}

/// Latent 0 stands for a direction s, but not where t is too: there latent 1, which writes s + t,
/// has absorbed it. Everything is reconstructed.
#[test]
fn a_planted_absorption_is_measured() {
    let mut draws = Draws::new(6);
    let (n, d) = (6000, 4);
    let (mut x, mut has, mut snake) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..n {
        let s = draws.uniform(0.0, 1.0) < 0.4;
        let t = s && draws.uniform(0.0, 1.0) < 0.04;
        let row = [f64::from(u8::from(s)), f64::from(u8::from(t)), 0.0, 0.0];
        x.extend(row.map(|v| (v + draws.uniform(-0.02, 0.02)) as f32));
        has.push(s);
        snake.push(t);
    }
    let mut w_enc = eye(4);
    w_enc[1] = -1.0; // latent 0 reads s − t
    let mut w_dec = eye(4);
    w_dec[4] = 1.0; // latent 1 writes s + t
    let sae = relu(&w_enc, &w_dec, d);
    let found = probe(&sae, x.clone(), &[concept("s", has.iter().copied())]);
    let s = &found.concepts[0];
    assert_eq!(s.main, [0]);
    let absorbed = s.absorbed.as_ref().unwrap();
    let rows = has[n / 2..].iter().filter(|h| **h).count();
    let snakes = snake[n / 2..].iter().filter(|t| **t).count();
    assert_eq!(absorbed.rows, rows as u64, "the dense probe errs nowhere");
    // Latent 0 reads the difference of two noises there, which is above 0 half of the time.
    let want = snakes as f64 / rows as f64;
    assert!(
        absorbed.full_rate > 0.3 * want && absorbed.full_rate < 0.7 * want,
        "{absorbed:?}, {snakes} of {rows}"
    );
    close(absorbed.mean_fraction, want, 0.1 * want);
    assert_eq!(absorbed.absorbers[0].0, 1);
    assert!(found.tpp.is_none(), "one concept has no other");
    // The same dictionary without the hole: nothing is absorbed.
    let whole = probe(
        &relu(&eye(4), &eye(4), d),
        x,
        &[concept("s", has.iter().copied())],
    );
    let absorbed = whole.concepts[0].absorbed.as_ref().unwrap();
    assert_eq!((absorbed.full_rate, absorbed.mean_fraction), (0.0, 0.0));
}

/// Three latents: main at 0; projections by hand.
#[test]
fn absorption_by_hand() {
    let probe = Probe {
        weights: vec![2.0, 0.0],
        bias: 0.0,
    };
    let w_dec = [1.0, 0.0, 0.6, 0.8, 0.0, 1.0];
    let new = || Absorption::new(&w_dec, &probe, &[0], AbsorptionLimits::default()).unwrap();
    let one = |projection: f64, active: &[(usize, f32)]| {
        let mut all = new();
        all.add(projection, active);
        let found = all.finish();
        (found.full_rate, found.mean_fraction)
    };
    // Latent 1 carries 2 · 0.6 = 1.2 an activation.
    assert_eq!(one(2.0, &[(1, 1.0)]), (1.0, 1.0));
    assert_eq!(one(3.1, &[(1, 1.0)]), (0.0, 0.0), "too small a share");
    assert_eq!(one(2.0, &[(2, 9.0)]), (0.0, 0.0), "another direction");
    assert_eq!(
        one(2.0, &[(0, 1.0), (1, 1.0)]),
        (0.0, 0.0),
        "all in the main"
    );
    let (full, fraction) = one(2.0, &[(0, 0.5), (1, 1.0)]);
    assert_eq!(full, 0.0, "the main one fires");
    close(fraction, 0.5, 1e-6); // min(1.2, 2 − 1) / (1 + 1)
    assert_eq!(one(-1.0, &[(1, 1.0)]), (0.0, 0.0));
    assert_eq!(one(2.0, &[]), (0.0, 0.0));
    assert!(new().finish().full_rate.is_nan());
}

/// Against activations with the latents' parts really taken out.
#[test]
fn ablating_is_subtracting_what_latents_write() {
    let cpu = Device::cpu();
    let (d, f) = (6, 15);
    let sae = random_sae(7, d, f, 4, &cpu);
    let mut draws = Draws::new(8);
    let x = f32s(&draws.normals(200 * d));
    let dense = read64(sae.encode_dense(t2(&x, d, &cpu)));
    let (w_dec, w64) = (read32(sae.w_dec.clone()), read64(sae.w_dec.clone()));
    let probes: Vec<Probe> = (0..2)
        .map(|_| Probe {
            weights: draws.normals(d),
            bias: 0.3 * draws.normal(),
        })
        .collect();
    let sets = vec![vec![0, 4, 9], vec![2], vec![]];
    let labels: Vec<[Option<bool>; 2]> = (0..200)
        .map(|_| [0, 1].map(|_| [Some(true), Some(false), None][draws.below(3)]))
        .collect();
    let mut ablation = Ablation::new(&w_dec, &probes, &sets).unwrap();
    for i in 0..200 {
        let active: Vec<(usize, f32)> = (0..f)
            .map(|j| (j, dense[i * f + j] as f32))
            .filter(|(_, v)| *v > 0.0)
            .collect();
        ablation.add(&x[i * d..][..d], &active, &labels[i]);
    }
    let found = ablation.finish();
    for (s, set) in sets.iter().enumerate() {
        for (p, probe) in probes.iter().enumerate() {
            let mut logits = Vec::new();
            let mut truth = Vec::new();
            for i in 0..200 {
                let Some(label) = labels[i][p] else { continue };
                let mut row: Vec<f64> = x[i * d..][..d].iter().map(|v| f64::from(*v)).collect();
                for &j in set {
                    let part = w64[j * d..][..d].iter().map(|w| dense[i * f + j] * w);
                    row.iter_mut().zip(part).for_each(|(r, w)| *r -= w);
                }
                logits.push(
                    probe.bias
                        + row
                            .iter()
                            .zip(&probe.weights)
                            .map(|(x, w)| x * w)
                            .sum::<f64>(),
                );
                truth.push(label);
            }
            let want = Scores::of(&logits, &truth).balanced_accuracy;
            close(found.after[s][p], want, 1e-12);
        }
    }
    assert_eq!(found.after[2], found.clean);
}

/// Concepts with latents of their own, and the same activations in a dictionary of sums and
/// differences.
#[test]
fn targeted_perturbation_prefers_a_dictionary_of_concepts() {
    let (x, on) = axes(9, 3000, 4, 0.5);
    let concepts: Vec<LabelledConcept> = (0..2)
        .map(|c| concept(&c.to_string(), on.iter().map(|r| r[c])))
        .collect();
    let own = probe(&relu(&eye(4), &eye(4), 4), x.clone(), &concepts)
        .tpp
        .unwrap();
    close(own.intended, 0.5, 0.02);
    close(own.unintended, 0.0, 0.02);
    close(own.tpp, own.intended - own.unintended, 1e-12);
    let mut mixed = eye(4);
    let half = 0.5f64.sqrt();
    mixed[..2].copy_from_slice(&[half, half]);
    mixed[4..6].copy_from_slice(&[half, -half]);
    let mixed = probe(&relu(&mixed, &mixed, 4), x, &concepts).tpp.unwrap();
    assert!(mixed.tpp < own.tpp - 0.2, "{mixed:?} and {own:?}");
}

#[test]
fn perturbation_scores_by_hand() {
    let found = Perturbed {
        clean: vec![0.9, 0.8],
        after: vec![vec![0.5, 0.7], vec![0.9, 0.6]],
    };
    let found = tpp(&found);
    close(found.intended, (0.4 + 0.2) / 2.0, 1e-12);
    close(found.unintended, (0.1 + 0.0) / 2.0, 1e-12);
    close(found.tpp, 0.25, 1e-12);
    close(scr(0.6, 0.8, 0.9), 2.0 / 3.0, 1e-12);
}

/// Two concepts, ±u (noisy) and ±v, that agree on the biased rows: a probe for the first learns
/// mostly the second, and ablating v's two latents mends it.
#[test]
fn a_planted_spurious_correlation_is_removed() {
    let mut draws = Draws::new(10);
    let sign = |b: bool| if b { 1.0 } else { -1.0 };
    let mut draw = |n: usize, agree: bool| {
        let (mut x, mut a, mut b) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..n {
            let first = draws.below(2) == 0;
            let second = if agree { first } else { draws.below(2) == 0 };
            x.push((sign(first) + 0.3 * draws.normal()) as f32);
            x.push((2.0 * sign(second) + 0.1 * draws.normal()) as f32);
            a.push(first);
            b.push(second);
        }
        (x, a, b)
    };
    let fit = |x: &[f32], labels: &[bool]| {
        let rows = Labelled::new("rows", x.to_vec(), 2, labels.to_vec()).unwrap();
        Probe::fit(&rows, &Fit::default()).unwrap()
    };
    let (x, a, _) = draw(2000, true);
    let biased = fit(&x, &a);
    let (x, a, b) = draw(2000, false);
    let (oracle, spurious) = (fit(&x, &a), fit(&x, &b));
    let w_dec = [1.0f32, 0.0, -1.0, 0.0, 0.0, 1.0, 0.0, -1.0];
    let latents = |row: &[f32]| -> Vec<(usize, f32)> {
        let all = w_dec.chunks(2).map(|w| w[0] * row[0] + w[1] * row[1]);
        all.enumerate().filter(|(_, f)| *f > 0.0).collect()
    };
    let mut means = ClassMeans::new(4, 1);
    let dense: Vec<f32> = x
        .chunks(2)
        .flat_map(|row| {
            let mut out = [0.0; 4];
            latents(row).iter().for_each(|&(j, f)| out[j] = f);
            out
        })
        .collect();
    let labels: Vec<Option<bool>> = b.iter().copied().map(Some).collect();
    let dense = Latents::of_dense(t2(&dense, 4, &Device::cpu()));
    block_on(means.add(&dense, &[&labels])).unwrap();
    let differences = means.differences(0, "rows").unwrap();
    let mut set = most_effective(&differences, &w_dec, &spurious, Effect::EitherWay, 2).unwrap();
    set.sort_unstable();
    assert_eq!(set, [2, 3]);
    let towards = most_effective(&differences, &w_dec, &spurious, Effect::Towards, 2).unwrap();
    assert_eq!(towards[0], 2, "{differences:?}");
    let (x, a, _) = draw(2000, false);
    let mut ablation = Ablation::new(&w_dec, &[biased, oracle], &[set]).unwrap();
    for (row, &a) in x.chunks(2).zip(&a) {
        ablation.add(row, &latents(row), &[Some(a), Some(a)]);
    }
    let found = ablation.finish();
    let (base, ablated, oracle) = (found.clean[0], found.after[0][0], found.clean[1]);
    assert!(base < 0.8 && oracle > 0.99, "{found:?}");
    assert!(scr(base, ablated, oracle) > 0.9, "{found:?}");
}

#[test]
fn a_concept_that_cannot_be_probed_names_itself() {
    let (x, on) = axes(11, 400, 4, 0.5);
    let sae = relu(&eye(4), &eye(4), 4);
    let source = Source::memory("planted", x, 4);
    let run = |sae: &Sae, labels: Vec<Option<bool>>, k: usize| {
        let options = ProbingOptions {
            k: vec![k],
            ..ProbingOptions::new(0..200, 200..400)
        };
        let concepts = [LabelledConcept {
            name: "colour".into(),
            labels,
        }];
        probe_concepts(sae, &source, &concepts, &options, &Device::cpu(), |_| ())
    };
    let labels: Vec<Option<bool>> = on.iter().map(|r| Some(r[0])).collect();
    assert!(run(&sae, labels.clone(), 1).is_ok());
    let late: Vec<Option<bool>> = (0..400).map(|i| Some(i > 300)).collect();
    says(
        run(&sae, late, 1).unwrap_err(),
        &["colour, training rows", "0 of 200"],
    );
    let early: Vec<Option<bool>> = (0..400).map(|i| Some(i < 100)).collect();
    says(
        run(&sae, early, 1).unwrap_err(),
        &["colour, test rows", "0 of 200"],
    );
    says(
        run(&sae, labels.clone(), 5).unwrap_err(),
        &["k = 5", "of 4"],
    );
    let narrow = relu(&eye(3), &eye(3), 3);
    says(
        run(&narrow, labels, 1).unwrap_err(),
        &["planted", "width 4", "takes 3"],
    );
}
