//! `inscape sae probe`.

use super::*;

fn trained() -> Bench {
    let bench = Bench::with_store();
    bench.ok(&format!(
        "sae train acts:{HOOK} --k 8 --width 128 --tokens 8192 --batch 64 --out sae"
    ));
    bench
}

#[test]
fn concepts_of_the_text_are_probed_for() {
    let bench = trained();
    let json = bench.json(&format!("sae probe sae acts:{HOOK}"));
    let concepts = json["concepts"].as_array().unwrap();
    assert!(concepts.len() >= 6, "{json}");
    for concept in concepts {
        let name = concept["concept"].as_str().unwrap();
        let rows = |side: &str, at: usize| concept[side][at].as_u64().unwrap();
        assert!(rows("train", 0) <= 1200 && rows("test", 0) <= 300, "{name}");
        assert!(rows("test", 1) >= 10, "{name}");
        let sparse = concept["sparse"].as_array().unwrap();
        let k: Vec<u64> = sparse.iter().map(|s| s["k"].as_u64().unwrap()).collect();
        assert_eq!(k, [1, 2, 5]);
        let scores = sparse.iter().map(|s| &s["scores"]);
        for score in scores.chain([&concept["dense"]]) {
            let auroc = score["auroc"].as_f64().unwrap();
            assert!((0.0..=1.0).contains(&auroc), "{name}: {score}");
        }
        assert!(!concept["main"].as_array().unwrap().is_empty());
    }
    // Whether a token starts a word is written all over its residual.
    let word_start = concepts.iter().find(|c| c["concept"] == "word_start");
    let auroc = word_start.unwrap()["dense"]["auroc"].as_f64().unwrap();
    assert!(auroc > 0.9, "{auroc}");
    assert!(json["tpp"]["tpp"].as_f64().is_some());
    let text = bench.ok("sae probe sae acts --concepts capital,punctuation --k 1,3");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 5, "{text}");
    assert!(lines[0].starts_with("1200 training and 300 test rows"));
    assert!(lines[1].contains("k = 3") && lines[2].starts_with("capital "));
    assert!(lines[4].contains("TPP "), "{text}");
    let twice = bench.ok("sae probe sae acts --concepts capital,punctuation --k 1,3");
    assert_eq!(text, twice);
}

#[test]
fn what_cannot_be_probed_is_named() {
    let bench = trained();
    bench.usage(
        "sae probe sae acts --concepts colour",
        &["unknown concept `colour`", "in_quotes"],
    );
    bench.fails(
        "sae probe sae acts --train ..60% --test 50%..",
        &["--train", "--test", "share rows"],
    );
    bench.fails("sae probe sae acts --k 129", &["k = 129", "of 128"]);
    bench.fails(
        "sae probe sae acts --concepts capital --train ..1 --test 2..",
        &["capital, training rows", "of 1 rows"],
    );
    bench.fails("sae probe sae acts --model tiny-lm-9", &["tiny-lm-9"]);
    matrix(&bench.path("x.safetensors"), 300, 128, scattered);
    bench.fails(
        "sae probe sae x.safetensors",
        &["x.safetensors:x", "is no store"],
    );
}
