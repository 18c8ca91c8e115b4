//! Features of two dictionaries, paired.

use inscape::sae::Latents;
use inscape::sae::eval::matching::*;

use super::*;

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[test]
fn cosines_are_those_of_a_plain_loop() {
    let cpu = Device::cpu();
    let (a, b) = (Draws::new(1).normals(7 * 5), Draws::new(2).normals(9 * 5));
    let mut a = f32s(&a);
    a[10..15].fill(0.0); // a dead decoder row
    let (ta, tb) = (t2(&a, 5, &cpu), t2(&f32s(&b), 5, &cpu));
    let (a, b) = (read64(ta.clone()), read64(tb.clone()));
    let scores = block_on(cosines(ta.clone(), tb.clone())).unwrap();
    assert_eq!(
        (scores.rows, scores.columns, scores.values.len()),
        (7, 9, 63)
    );
    for (i, score) in scores.values.iter().enumerate() {
        let (a, b) = (&a[i / 9 * 5..][..5], &b[i % 9 * 5..][..5]);
        let want = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(1e-12);
        assert!((score - want).abs() < 1e-6, "{i}: {score}, not {want}");
    }
    assert_eq!(scores.values[18..27], [0.0; 9]);
    let best = block_on(max_cosine(ta.clone(), tb.clone())).unwrap();
    for (a, pair) in best.iter().enumerate() {
        let row = &scores.values[a * 9..][..9];
        let most = row.iter().fold(f64::MIN, |m, s| m.max(*s));
        assert_eq!((pair.a, pair.score), (a, most));
        assert_eq!(row[pair.b], most);
    }
    let mean = best.iter().map(|p| p.score).sum::<f64>() / 7.0;
    assert!((block_on(mmcs(ta, tb)).unwrap() - mean).abs() < 1e-12);
}

/// More than one tile of four million values.
#[test]
fn tiles_make_no_difference() {
    let cpu = Device::cpu();
    let (a, b) = (
        Draws::new(3).normals(2100 * 3),
        Draws::new(4).normals(2100 * 3),
    );
    let (a, b) = (t2(&f32s(&a), 3, &cpu), t2(&f32s(&b), 3, &cpu));
    let all = block_on(max_cosine(a.clone(), b.clone())).unwrap();
    assert_eq!(all.len(), 2100);
    for start in [0, 1990, 2090] {
        let part = a.clone().narrow(0, start, 10);
        for pair in block_on(max_cosine(part, b.clone())).unwrap() {
            let whole = all[start + pair.a];
            assert_eq!((whole.a, whole.b), (start + pair.a, pair.b));
            assert!((whole.score - pair.score).abs() < 1e-6);
        }
    }
    let scores = block_on(cosines(a, b)).unwrap();
    let best = scores.best();
    assert!(best.iter().zip(&all).all(|(x, y)| x.score == y.score));
}

#[test]
fn dictionaries_that_share_no_space_are_refused() {
    let cpu = Device::cpu();
    let error = block_on(cosines(t2(&[1.0; 6], 3, &cpu), t2(&[1.0; 8], 4, &cpu))).unwrap_err();
    says(error, &["[2, 3]", "[2, 4]"]);
}

/// A shuffled copy with noise: everything finds its own again, one to one.
#[test]
fn a_shuffled_dictionary_is_assigned_back() {
    let (cpu, n, d) = (Device::cpu(), 120, 16);
    let mut draws = Draws::new(5);
    let a = draws.unit_rows(n, d);
    let place = |i: usize| (i * 43 + 7) % n;
    let mut b = vec![0.0; n * d];
    for i in 0..n {
        let row: Vec<f64> = a[i * d..][..d]
            .iter()
            .map(|x| x + 0.05 * draws.normal())
            .collect();
        b[place(i) * d..][..d].copy_from_slice(&row);
    }
    let scores = block_on(cosines(t2(&f32s(&a), d, &cpu), t2(&f32s(&b), d, &cpu))).unwrap();
    let pairs = scores.assigned().unwrap();
    assert_eq!(pairs.len(), n);
    assert!(pairs.iter().all(|p| p.b == place(p.a) && p.score > 0.9));
    assert_eq!(one_to_one(&scores.best()), pairs);
}

#[test]
fn many_to_one_pairs_are_dropped_but_for_the_best() {
    let scores = Scores {
        rows: 4,
        columns: 3,
        values: vec![
            0.9,
            0.1,
            0.0,
            0.8,
            0.7,
            0.0,
            f64::NAN,
            f64::NAN,
            f64::NAN,
            0.0,
            0.2,
            0.3,
        ],
    };
    let pair = |(a, b, score)| Pair { a, b, score };
    let best = [(0, 0, 0.9), (1, 0, 0.8), (3, 2, 0.3)].map(pair);
    assert_eq!(scores.best(), best);
    assert_eq!(one_to_one(&best), [best[0], best[2]]);
    // One to one over all: the second takes its second best. The third has no score at all.
    let all = [(0, 0, 0.9), (1, 1, 0.7), (3, 2, 0.3)].map(pair);
    assert_eq!(scores.assigned().unwrap(), all);
    let torn = Scores {
        rows: 1,
        columns: 2,
        values: vec![1.0, f64::NAN],
    };
    // The second column has no score with anything: left out as a whole.
    assert_eq!(torn.assigned().unwrap(), [pair((0, 0, 1.0))]);
    let torn = Scores {
        rows: 2,
        columns: 2,
        values: vec![1.0, f64::NAN, 0.0, 1.0],
    };
    says(torn.assigned().unwrap_err(), &["0 has no score with 1"]);
}

/// Pearson's r in f64; NaN without variance.
fn pearson(a: &[f64], b: &[f64]) -> f64 {
    let n = a.len() as f64;
    let about = |x: &[f64]| -> Vec<f64> {
        let mean = x.iter().sum::<f64>() / n;
        x.iter().map(|x| x - mean).collect()
    };
    let (a, b) = (about(a), about(b));
    dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt()
}

fn column(x: &[f64], columns: usize, j: usize) -> Vec<f64> {
    x.iter().skip(j).step_by(columns).copied().collect()
}

fn check(scores: &Scores, a: &[f64], b: &[f64], tolerance: f64) {
    for (i, score) in scores.values.iter().enumerate() {
        let (x, y) = (i / scores.columns, i % scores.columns);
        let want = pearson(&column(a, scores.rows, x), &column(b, scores.columns, y));
        let same = (score - want).abs() < tolerance || score.is_nan() && want.is_nan();
        assert!(same, "{x} with {y}: {score}, not {want}");
    }
}

#[test]
fn correlations_are_those_of_a_plain_loop() {
    let cpu = Device::cpu();
    for offset in [0.0, 1e4] {
        let mut draws = Draws::new(6);
        let noise: Vec<f64> = draws.normals(600 * 4);
        let mut a: Vec<f64> = noise.iter().map(|x| x + offset).collect();
        a.iter_mut().skip(2).step_by(4).for_each(|x| *x = 0.0); // dead
        let b: Vec<f64> = (0..600 * 3)
            .map(|i| 0.7 * noise[i / 3 * 4 + i % 3] + draws.normal() - offset)
            .collect();
        let (ta, tb) = (t2(&f32s(&a), 4, &cpu), t2(&f32s(&b), 3, &cpu));
        let (a, b) = (read64(ta.clone()), read64(tb.clone()));
        for step in [600, 101] {
            let mut all = Correlations::new(4, 3);
            for start in (0..600).step_by(step) {
                let n = step.min(600 - start);
                let part = |x: &Tensor<2>| x.clone().narrow(0, start, n);
                block_on(all.add(part(&ta), part(&tb))).unwrap();
            }
            let scores = all.finish();
            check(&scores, &a, &b, 1e-5);
            assert!(scores.values[6..9].iter().all(|s| s.is_nan()));
            assert!(scores.values[0] > 0.4 && scores.values[1].abs() < 0.2);
            assert!(scores.best().iter().all(|p| p.a != 2));
            let pairs = scores.assigned().unwrap();
            assert_eq!(pairs.iter().map(|p| p.a).collect::<Vec<_>>(), [0, 1, 3]);
        }
    }
}

/// Sparse latents, dense ones, and both after one another.
#[test]
fn latents_correlate_as_their_matrices_do() {
    let cpu = Device::cpu();
    let x = t2(&f32s(&Draws::new(7).normals(400 * 10)), 10, &cpu);
    let (a, b) = (
        random_sae(8, 10, 30, 4, &cpu),
        random_sae(9, 10, 20, 3, &cpu),
    );
    let latents = |sae: &Sae, from: usize| sae.encode(x.clone().narrow(0, from, 200));
    let (fa, fb) = (a.encode_dense(x.clone()), b.encode_dense(x.clone()));
    let (wa, wb) = (read64(fa.clone()), read64(fb.clone()));
    for mode in 0..3 {
        let mut all = Correlations::new(30, 20);
        for from in [0, 200] {
            let dense = |f: &Tensor<2>| f.clone().narrow(0, from, 200);
            if mode == 0 || mode == 1 && from == 0 {
                let (la, lb) = (latents(&a, from), latents(&b, from));
                block_on(all.add_latents(&la, &lb)).unwrap();
            } else if mode == 1 || from == 0 {
                block_on(all.add(dense(&fa), dense(&fb))).unwrap();
            } else {
                let (la, lb) = (latents(&a, from), Latents::of_dense(dense(&fb)));
                block_on(all.add_latents(&la, &lb)).unwrap();
            }
        }
        check(
            &all.finish(),
            &wa,
            &wb,
            if mode == 0 { 1e-12 } else { 1e-5 },
        );
    }
    let mut all = Correlations::new(30, 21);
    says(
        block_on(all.add(fa, fb)).unwrap_err(),
        &["[400, 20]", "[n, 21]"],
    );
}
