//! A report of the size people will have, filled with made-up numbers.

use inscape::report::*;

const TEXT: &str = " Call me Ishmael. Some years ago—never mind how long precisely—having little \
    or no money in my purse, and nothing particular to interest me on shore, I thought I would \
    sail about a little and see the watery part of the world.\n It is a way I have of driving off \
    the spleen and regulating the circulation. Whenever I find myself growing grim about the \
    mouth; whenever it is a damp, drizzly November in my soul; whenever I find myself \
    involuntarily pausing before coffin warehouses, and bringing up the rear of every funeral I \
    meet; then, I account it high time to get to sea as soon as I can.\n There now is your \
    insular city of the Manhattoes, belted round by wharves as Indian isles by coral reefs; \
    commerce surrounds it with her surf.";

/// The same numbers on every machine.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 40) as f64 / (1u64 << 24) as f64
    }
}

pub fn words() -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for c in TEXT.chars() {
        match words.last_mut() {
            Some(word)
                if c.is_alphanumeric()
                    && word
                        .chars()
                        .last()
                        .is_some_and(|l| l == ' ' || l.is_alphanumeric()) =>
            {
                word.push(c)
            }
            _ => words.push(c.to_string()),
        }
    }
    words
}

pub fn report(saes: usize, cards: usize) -> Report {
    let name = |i: usize| format!("blocks.{i}.hook_resid_post");
    let mut report = Report::new("all-MiniLM-L6-v2 on Moby-Dick");
    report.made_at = Some("2025-03-14 09:26 UTC".into());
    for i in (3..).take(saes) {
        report.runs.push(run(&name(i), i as u64));
        report.evaluations.push(evaluation(&name(i), i as u64));
        report.curves.push(curve(&name(i), i as u64, 350));
        report.densities.push(density(&name(i), i as u64));
        report.features.push(features(&name(i), i as u64, cards));
    }
    report
        .heatmaps
        .push(heatmap("linear CKA (unbiased)", 7, 7, 0.0));
    report.heatmaps.push(heatmap("RSA (Spearman)", 7, 7, 0.1));
    report
        .heatmaps
        .push(heatmap("mutual 10-nearest neighbours", 6, 24, 0.2));
    report
}

fn run(name: &str, seed: u64) -> RunHeader {
    RunHeader {
        name: name.into(),
        model: Some("sentence-transformers/all-MiniLM-L6-v2".into()),
        hook: Some(name.into()),
        text: Some("moby-dick.txt (1.2 MB)".into()),
        tokens: Some(200_000),
        architecture: Some("topk".into()),
        d_in: Some(384),
        d_sae: Some(3072),
        k: Some(32),
        batch: Some(2048),
        trained_tokens: Some(1_440_000),
        lr: Some(3e-4),
        seed: Some(seed),
        device: Some("cpu (flex, 2 threads)".into()),
        capture_seconds: Some(97.4),
        train_seconds: Some(133.2),
        fvu: Some(0.1553),
        l0: Some(32.0),
        dead_share: Some(0.0068),
        ce_recovered: Some(0.9712),
        extra: vec![Setting {
            key: "Context".into(),
            value: "128, CLS and SEP dropped".into(),
        }],
    }
}

fn evaluation(name: &str, seed: u64) -> Evaluation {
    Evaluation {
        name: name.into(),
        tokens: Some(20_000),
        l0: Some(32.0),
        fvu: Some(0.1553 + seed as f64 * 0.01),
        cosine: Some(0.9187),
        dead_share: Some(0.0068),
        ce_original: Some(3.2114),
        ce_spliced: Some(3.3327),
        ce_zero: Some(7.4218),
        ce_recovered: Some(0.9712),
    }
}

fn curve(name: &str, seed: u64, steps: u64) -> TrainingCurve {
    let mut draw = Draw(seed);
    let point = |step: u64| {
        let t = step as f64 / steps as f64;
        let fvu =
            0.152 + 0.75 * (-t * 14.0).exp() + 0.08 * (1.0 - t) * (-t).exp() + 0.008 * draw.next();
        TrainingPoint {
            step: step * 2,
            tokens: step * 2 * 2048,
            loss: if step < 3 {
                40.0 / step as f64
            } else {
                fvu * 1.03
            },
            fvu,
            l0: 32.0 - 0.02 * draw.next(),
            dead_share: (0.3 * (-t * 5.0).exp() * (t * 20.0).min(1.0) + 0.006).max(0.0),
            tokens_per_second: 10_800.0 + 400.0 * draw.next(),
        }
    };
    TrainingCurve {
        name: name.into(),
        points: (1..=steps).map(point).collect(),
    }
}

fn density(name: &str, seed: u64) -> DensityHistogram {
    let mut draw = Draw(seed);
    let edges: Vec<f64> = (0..=40).map(|i| -5.0 + i as f64 * 0.125).collect();
    let bell = |e: f64| 260.0 * (-(e + 2.3).powi(2) / 0.5).exp();
    let counts = edges[..40]
        .iter()
        .map(|&e| (bell(e) * (0.9 + 0.2 * draw.next())) as u64)
        .collect();
    DensityHistogram {
        name: name.into(),
        bins: Histogram { edges, counts },
        dead: 21,
    }
}

fn heatmap(metric: &str, rows: usize, columns: usize, fall: f64) -> Heatmap {
    let label = |i: usize| format!("blocks.{i}.hook_resid_post");
    let value = |r: usize, c: usize| {
        (1.0 - 0.012 * (r.abs_diff(c) as f64).powf(1.7) - fall * f64::from(r != c)).max(0.02)
    };
    Heatmap {
        title: "Layer by layer".into(),
        metric: metric.into(),
        rows: Some("seed 1".into()),
        columns: Some("seed 2".into()),
        row_labels: (0..rows).map(label).collect(),
        column_labels: (0..columns).map(label).collect(),
        values: (0..rows)
            .map(|r| (0..columns).map(|c| value(r, c)).collect())
            .collect(),
        range: None,
        note: None,
    }
}

fn features(name: &str, seed: u64, cards: usize) -> FeatureSet {
    let mut draw = Draw(seed);
    let words = words();
    let cards = (0..cards).map(|_| card(&mut draw, &words)).collect();
    let note = Some("The features with the most kurtotic activations, strongest first.".into());
    FeatureSet {
        name: name.into(),
        note,
        cards,
    }
}

fn card(draw: &mut Draw, words: &[String]) -> FeatureCard {
    let max = 4.0 + 8.0 * draw.next();
    let edges = (0..=30).map(|i| max * i as f64 / 30.0).collect();
    let counts = (0..30)
        .map(|i| (900.0 * (-f64::from(i) / 5.0).exp() * (0.7 + draw.next())) as u64)
        .collect();
    let home = (draw.next() * words.len() as f64) as usize;
    let logits = |sign: f64, draw: &mut Draw| {
        let pick = |i: usize| words[(home + i * 7) % words.len()].clone();
        (0..6)
            .map(|i| TokenLogit {
                text: pick(i),
                logit: sign * (2.0 - 0.25 * i as f64 - 0.1 * draw.next()),
            })
            .collect()
    };
    FeatureCard {
        feature: (draw.next() * 3072.0) as u64,
        density: 0.0005 + 0.03 * draw.next() * draw.next(),
        max_activation: max,
        mean_activation: max * 0.31,
        activations: Histogram { edges, counts },
        snippets: (0..8)
            .map(|i| snippet(draw, words, home, max * (1.0 - 0.06 * i as f64)))
            .collect(),
        promoted: logits(1.0, draw),
        suppressed: logits(-1.0, draw),
    }
}

fn snippet(draw: &mut Draw, words: &[String], home: usize, peak: f64) -> Snippet {
    let before = 8 + (draw.next() * 8.0) as usize;
    let start = (home + words.len() - before) % words.len();
    let token = |i: usize| {
        let near = (-(i.abs_diff(before) as f64) / 1.6).exp();
        let activation = if draw.next() < near {
            peak * near
        } else if draw.next() < 0.12 {
            peak * 0.2 * draw.next()
        } else {
            0.0
        };
        TokenActivation {
            text: words[(start + i) % words.len()].clone(),
            activation,
        }
    };
    Snippet {
        tokens: (0..25).map(token).collect(),
        row: Some(12_000 + start as u64),
    }
}
