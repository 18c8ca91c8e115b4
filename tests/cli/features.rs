//! `inscape sae neuronpedia`.

use super::*;

fn read(bench: &Bench, file: &str) -> serde_json::Value {
    serde_json::from_slice(&fs::read(bench.path(file)).unwrap()).unwrap()
}

#[test]
fn every_feature_that_fires_is_written_with_its_places() {
    let bench = Bench::with_store();
    bench.ok(&format!(
        "sae train acts:{HOOK} --k 8 --width 128 --tokens 4096 --batch 64 --out sae"
    ));
    let eval = bench.json(&format!("sae eval sae acts:{HOOK}"));
    let fired = eval["reconstruction"]["fired"].as_array().unwrap();
    let line = format!("sae neuronpedia sae acts:{HOOK} --per-batch 50 --examples 3");
    let found = bench.json(&format!("{line} --out np"));
    let alive = fired.iter().filter(|n| n.as_u64() != Some(0)).count();
    assert_eq!(found["features"], alive, "{found}");
    assert_eq!(found["silent"], 128 - alive);
    assert_eq!(found["batches"], alive.div_ceil(50));
    let batch = read(&bench, "np/batch-0.json");
    assert_eq!(
        (&batch["model_id"], &batch["layer"], &batch["sae_set"]),
        (&"tiny-lm-1".into(), &2.into(), &"sae".into())
    );
    let features = batch["features"].as_array().unwrap();
    assert_eq!(features.len(), alive.min(50));
    for feature in features {
        let index = feature["feature_index"].as_u64().unwrap() as usize;
        let share = fired[index].as_f64().unwrap() / 1500.0;
        assert!((feature["frac_nonzero"].as_f64().unwrap() - share).abs() < 1e-12);
        assert_eq!(feature["vector"].as_array().unwrap().len(), 128);
        assert_eq!(feature["pos_str"].as_array().unwrap().len(), 10);
        let heights = feature["freq_hist_data_bar_heights"].as_array().unwrap();
        let sum: u64 = heights.iter().map(|h| h.as_u64().unwrap()).sum();
        assert_eq!(sum, fired[index].as_u64().unwrap());
        let examples = feature["activations"].as_array().unwrap();
        assert!((1..=3).contains(&examples.len()), "{index}");
        for example in examples {
            let values = example["values"].as_array().unwrap();
            let tokens = example["tokens"].as_array().unwrap();
            assert_eq!(tokens.len(), values.len());
            let at = example["qualifying_token_index"].as_u64().unwrap() as usize;
            let largest = values.iter().filter_map(|v| v.as_f64()).fold(0.0, f64::max);
            assert_eq!(values[at].as_f64().unwrap(), largest);
            let text = tokens.iter().map(|t| t.as_str().unwrap());
            assert!(text.clone().any(|t| t.chars().any(char::is_alphabetic)) || values.len() < 5);
        }
    }
    let some = bench.json(&format!("{line} --features 5 --out few"));
    assert!(some["features"].as_u64().unwrap() <= 5 && some["batches"].as_u64().unwrap() <= 1);
    bench.fails(&format!("{line} --out np"), &["np", "exists"]);
    matrix(&bench.path("x.safetensors"), 300, 8, scattered);
    bench.fails(
        "sae neuronpedia sae x.safetensors --out no",
        &["x.safetensors", "width 8", "takes 128"],
    );
    assert!(!bench.path("no").exists());
}

#[test]
fn without_a_model_rows_are_named() {
    let bench = Bench::new();
    matrix(&bench.path("x.safetensors"), 300, 8, scattered);
    let topk = format!("{ROOT}/tests/data/sae/sparsify/topk");
    let text = bench.ok(&format!(
        "sae neuronpedia {topk} x.safetensors --out np --set mine"
    ));
    assert!(
        text.starts_with("np: ") && text.contains("of 300 rows"),
        "{text}"
    );
    let batch = read(&bench, "np/batch-0.json");
    assert_eq!(batch["sae_set"], "mine");
    let first = &batch["features"][0];
    assert_eq!(first["n_prompts_total"], 300);
    assert!(first["pos_str"].as_array().unwrap().is_empty());
    let token = first["activations"][0]["tokens"][0].as_str().unwrap();
    assert!(token.starts_with("row "), "{token}");
    let normal = format!("{ROOT}/tests/data/sae/openai/topk");
    bench.fails(
        &format!("sae neuronpedia {normal} x.safetensors --out no"),
        &["normalised", "sae eval"],
    );
}
