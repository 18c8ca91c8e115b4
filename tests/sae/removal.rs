//! Removal of concepts against plain loops, and planted correlations of which the truth is known.

use inscape::sae::eval::*;

use super::probing::{axes, close, concept, eye, relu};
use super::*;

fn remove(
    sae: &Sae,
    x: Vec<f32>,
    concepts: &[LabelledConcept],
    k: &[usize],
    train: usize,
) -> Result<Removed, inscape::sae::Error> {
    let source = Source::memory("planted", x, sae.d_in());
    let rows = source.rows();
    let options = RemovalOptions {
        k: k.to_vec(),
        ..RemovalOptions::new(0..train, train..rows)
    };
    let mut seen = 0;
    let found = remove_concepts(sae, &source, concepts, &options, &Device::cpu(), |n| {
        seen += n;
    })?;
    assert_eq!(seen, rows);
    Ok(found)
}

/// Rows of two concepts, as many of each combination, in order; and their labels.
fn four_by_four(seed: u64, n: usize, d: usize) -> (Vec<f32>, [Vec<bool>; 2]) {
    let mut draws = Draws::new(seed);
    let (u, v) = (draws.unit_rows(1, d), draws.unit_rows(1, d));
    let labels = [2, 1].map(|bit| (0..n).map(|i| i & bit != 0).collect::<Vec<bool>>());
    let sign = |on: bool| if on { 1.0 } else { -1.0 };
    let mut x = Vec::new();
    for (&a, &b) in labels[0].iter().zip(&labels[1]) {
        let row = (0..d).map(|j| {
            let signal = 0.7 * sign(a) * u[j] + 1.5 * sign(b) * v[j];
            (signal + 0.5 * draws.normal()) as f32
        });
        x.extend(row);
    }
    (x, labels)
}

/// What the definitions say, row by row and latent by latent.
struct Plain {
    d: usize,
    x: Vec<f32>,
    /// `[n, d_sae]`.
    f: Vec<f64>,
    /// `[d_sae, d]`.
    w_dec: Vec<f64>,
    train: usize,
}

impl Plain {
    fn rows(&self) -> usize {
        self.x.len() / self.d
    }

    fn d_sae(&self) -> usize {
        self.w_dec.len() / self.d
    }

    fn fit(&self, rows: &[usize], labels: &[bool]) -> Probe {
        let x = rows.iter().flat_map(|i| &self.x[i * self.d..][..self.d]);
        let labels = rows.iter().map(|i| labels[*i]).collect();
        let rows = Labelled::new("rows", x.copied().collect(), self.d, labels).unwrap();
        let fit = Fit {
            l2: 1.0,
            balanced: true,
        };
        Probe::fit(&rows, &fit).unwrap()
    }

    /// The `k` latents of largest effect on a probe.
    fn strongest(&self, probe: &Probe, labels: &[bool], k: usize, either_way: bool) -> Vec<usize> {
        let effect = |j: usize| {
            let mean = |class: bool| {
                let rows = (0..self.train).filter(|i| labels[*i] == class);
                let values: Vec<f64> = rows.map(|i| self.f[i * self.d_sae() + j]).collect();
                values.iter().sum::<f64>() / values.len() as f64
            };
            let row = &self.w_dec[j * self.d..][..self.d];
            let dot: f64 = row.iter().zip(&probe.weights).map(|(a, b)| a * b).sum();
            let delta = mean(true) - mean(false);
            match either_way {
                true => (delta * dot).abs(),
                false => delta.max(0.0) * dot,
            }
        };
        let mut all: Vec<usize> = (0..self.d_sae()).filter(|j| effect(*j) > 0.0).collect();
        all.sort_by(|&a, &b| effect(b).total_cmp(&effect(a)));
        all.truncate(k);
        all
    }

    /// Balanced accuracy on the test rows without some latents.
    fn accuracy(&self, probe: &Probe, labels: &[bool], without: &[usize]) -> f64 {
        let mut logits = Vec::new();
        for i in self.train..self.rows() {
            let x = self.x[i * self.d..][..self.d].iter();
            let mut row: Vec<f64> = x.map(|v| f64::from(*v)).collect();
            for &j in without {
                for (r, w) in row.iter_mut().zip(&self.w_dec[j * self.d..]) {
                    *r -= self.f[i * self.d_sae() + j] * w;
                }
            }
            let logit: f64 = row.iter().zip(&probe.weights).map(|(x, w)| x * w).sum();
            logits.push(logit + probe.bias);
        }
        Scores::of(&logits, &labels[self.train..]).balanced_accuracy
    }
}

#[test]
fn removal_is_what_plain_loops_make_of_the_definitions() {
    let cpu = Device::cpu();
    let (n, train, d) = (1200, 800, 6);
    let sae = random_sae(21, d, 15, 4, &cpu);
    let (x, labels) = four_by_four(22, n, d);
    let plain = Plain {
        d,
        f: read64(sae.encode_dense(t2(&x, d, &cpu))),
        w_dec: read64(sae.w_dec.clone()),
        train,
        x: x.clone(),
    };
    let names = ["a", "b"];
    let concepts = [0, 1].map(|c| concept(names[c], labels[c].iter().copied()));
    let k = [3, 1, 6];
    let found = remove(&sae, x, &concepts, &k, train).unwrap();
    let all: Vec<usize> = (0..train).collect();
    let agree: Vec<usize> = (0..train).filter(|i| i % 4 == 0 || i % 4 == 3).collect();
    let probes = [0, 1].map(|c| plain.fit(&all, &labels[c]));
    let biased = plain.fit(&agree, &labels[0]);
    assert!(found.left_out.is_empty() && found.pairs.len() == 2);
    for c in [0, 1] {
        let other = 1 - c;
        let concept = &found.concepts[c];
        assert_eq!((concept.train, concept.test), ([800, 400], [400, 200]));
        let before = [0, 1].map(|p| plain.accuracy(&probes[p], &labels[p], &[]));
        close(concept.accuracy, before[c], 1e-12);
        let pair = &found.pairs[c];
        assert_eq!(
            (&pair.intended[..], &pair.spurious[..]),
            (names[c], names[other])
        );
        assert_eq!(pair.rows, [200, 100]);
        let base = plain.accuracy(&biased, &labels[c], &[]);
        close(pair.biased, base, 1e-12);
        close(pair.oracle, before[c], 1e-12);
        for (s, &k) in k.iter().enumerate() {
            let own = plain.strongest(&probes[c], &labels[c], k, false);
            let lost = [0, 1].map(|p| before[p] - plain.accuracy(&probes[p], &labels[p], &own));
            let at = concept.ablated[s];
            assert_eq!(at.k, k);
            close(at.tpp.intended, lost[c], 1e-12);
            close(at.tpp.unintended, lost[other], 1e-12);
            close(at.tpp.tpp, lost[c] - lost[other], 1e-12);
            let set = plain.strongest(&probes[other], &labels[other], k, true);
            let after = plain.accuracy(&biased, &labels[c], &set);
            close(pair.ablated[s].accuracy, after, 1e-12);
            if before[c] > base {
                let want = (after - base) / (before[c] - base);
                close(pair.ablated[s].scr, want, 1e-9);
            }
        }
    }
    for (s, &k) in k.iter().enumerate() {
        let each = found.concepts.iter().map(|c| c.ablated[s].tpp);
        let mean = each.map(|t| t.tpp).sum::<f64>() / 2.0;
        assert_eq!(found.tpp[s].k, k);
        close(found.tpp[s].tpp.tpp, mean, 1e-12);
    }
}

/// Concept a is ±u, noisy, and concept b ±v, twice as long and clean: where they agree a probe learns
/// mostly v, and what v's two latents write is what has to go.
#[test]
fn a_planted_bias_is_found_and_removed() {
    let mut draws = Draws::new(23);
    let sign = |b: bool| if b { 1.0 } else { -1.0 };
    let (mut x, mut a, mut b) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..12_000 {
        let (first, second) = (draws.below(2) == 0, draws.below(2) == 0);
        x.push((sign(first) + 0.3 * draws.normal()) as f32);
        x.push((2.0 * sign(second) + 0.1 * draws.normal()) as f32);
        a.push(first);
        b.push(second);
    }
    let w = [1.0, 0.0, -1.0, 0.0, 0.0, 1.0, 0.0, -1.0];
    let concepts = [
        concept("a", a.iter().copied()),
        concept("b", b.iter().copied()),
    ];
    let found = remove(&relu(&w, &w, 2), x, &concepts, &[1, 2], 8000).unwrap();
    let [of_a, of_b] = &found.pairs[..] else {
        panic!("{found:?}")
    };
    println!("{of_a:?}\n{of_b:?}");
    assert_eq!(of_a.rows[0], 1000, "at most 1,000 of a combination");
    assert!(of_a.rows[1] > 850 && of_a.rows[1] <= 1000);
    assert!(of_a.harder && !of_b.harder);
    assert!(of_a.biased < 0.8 && of_a.oracle > 0.99);
    let [one, two] = &of_a.ablated[..] else {
        panic!("{of_a:?}")
    };
    assert!(two.scr > 0.9 && one.scr < two.scr - 0.1);
    assert_eq!(found.scr, of_a.ablated, "one pair is all");
}

/// The same number as [`probe_concepts`] gives, which fits its probes from others.
#[test]
fn targeted_perturbation_is_that_of_probing() {
    let (x, on) = axes(24, 3000, 4, 0.4);
    let mut mixed = eye(4);
    let half = 0.5f64.sqrt();
    mixed[..2].copy_from_slice(&[half, half]);
    mixed[4..6].copy_from_slice(&[half, -half]);
    let sae = relu(&mixed, &mixed, 4);
    let concepts: Vec<LabelledConcept> = (0..3)
        .map(|c| concept(&c.to_string(), on.iter().map(|r| r[c])))
        .collect();
    let k = [1, 2];
    let found = remove(&sae, x.clone(), &concepts, &k, 2000).unwrap();
    let source = Source::memory("planted", x, 4);
    for (at, &k) in found.tpp.iter().zip(&k) {
        let options = ProbingOptions {
            k: vec![1],
            ablate: k,
            ..ProbingOptions::new(0..2000, 2000..3000)
        };
        let cpu = Device::cpu();
        let probed = probe_concepts(&sae, &source, &concepts, &options, &cpu, |_| ()).unwrap();
        let want = probed.tpp.unwrap();
        close(at.tpp.intended, want.intended, 1e-9);
        close(at.tpp.unintended, want.unintended, 1e-9);
        close(at.tpp.tpp, want.tpp, 1e-9);
    }
}

/// A part without its whole is a combination that there is not.
#[test]
fn a_pair_without_all_combinations_is_left_out() {
    let (x, on) = axes(25, 2000, 4, 0.5);
    let concepts = [
        concept("whole", on.iter().map(|r| r[0])),
        concept("part", on.iter().map(|r| r[0] && r[1])),
        concept("other", on.iter().map(|r| r[2])),
    ];
    let sae = relu(&eye(4), &eye(4), 4);
    let found = remove(&sae, x.clone(), &concepts, &[1], 1000).unwrap();
    let [left] = &found.left_out[..] else {
        panic!("{found:?}")
    };
    assert_eq!(
        (&left.concepts[..], left.rows),
        (&["whole".into(), "part".into()][..], 0)
    );
    let of = |c: &SpuriousConcept| (c.intended.clone(), c.spurious.clone());
    let pairs: Vec<_> = found.pairs.iter().map(of).collect();
    let want = [
        ("whole", "other"),
        ("other", "whole"),
        ("part", "other"),
        ("other", "part"),
    ];
    assert_eq!(pairs, want.map(|(a, b)| (a.to_string(), b.to_string())));
    let none = remove(&sae, x, &concepts[..2], &[1], 1000).unwrap();
    assert!(none.pairs.is_empty() && none.scr.is_empty() && none.tpp.len() == 1);
    let text = serde_json::to_string(&found).unwrap();
    let back: Removed = serde_json::from_str(&text).unwrap();
    assert_eq!((back.pairs.len(), back.left_out), (4, found.left_out));
}

#[test]
fn what_cannot_be_removed_is_named() {
    let (x, on) = axes(26, 400, 4, 0.5);
    let sae = || relu(&eye(4), &eye(4), 4);
    let fine = || concept("fine", on.iter().map(|r| r[0]));
    let run = |sae: &Sae, concepts: &[LabelledConcept], k: usize| {
        let error = remove(sae, x.clone(), concepts, &[k], 200);
        error.unwrap_err().to_string()
    };
    says(run(&sae(), &[fine()], 1), &["one concept", "two"]);
    let two = [fine(), concept("two", on.iter().map(|r| r[1]))];
    assert!(remove(&sae(), x.clone(), &two, &[1], 200).is_ok());
    for k in [0, 5] {
        says(run(&sae(), &two, k), &[&format!("k = {k}"), "of 4"]);
    }
    let late = concept("late", (0..400).map(|i| i > 300));
    says(
        run(&sae(), &[fine(), late], 1),
        &["late, training rows", "0 of 200"],
    );
    let early = concept("early", (0..400).map(|i| i < 100));
    says(
        run(&sae(), &[fine(), early], 1),
        &["early, test rows", "0 of 200"],
    );
    let transcoder = Sae {
        transcoder: true,
        ..sae()
    };
    says(run(&transcoder, &two, 1), &["transcoder"]);
    let narrow = relu(&eye(3), &eye(3), 3);
    let source = Source::memory("planted", x.clone(), 4);
    let options = RemovalOptions::new(0..200, 200..400);
    let error = remove_concepts(&narrow, &source, &two, &options, &Device::cpu(), |_| ());
    says(error.unwrap_err(), &["planted", "width 4", "takes 3"]);
}
