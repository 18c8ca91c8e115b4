//! `inscape sae match`.

use super::*;

#[test]
fn an_autoencoder_matches_itself_in_another_format() {
    let bench = Bench::new();
    matrix(&bench.path("x.safetensors"), 300, 8, scattered);
    let topk = format!("{ROOT}/tests/data/sae/sparsify/topk");
    bench.ok(&format!("sae convert {topk} other --to saelens"));
    let found = bench.json(&format!("sae match {topk} other x.safetensors --top 24"));
    assert_eq!(found["latents"], serde_json::json!([24, 24]));
    assert_eq!(found["rows"], 300);
    for by in ["cosine", "correlation"] {
        let matched = &found[by];
        let near = |score: &serde_json::Value| (score.as_f64().unwrap() - 1.0).abs() < 1e-5;
        assert!(
            near(&matched["best"][0]) && near(&matched["best"][1]),
            "{matched}"
        );
        assert!(near(&matched["one_to_one"]), "{matched}");
        let pairs = matched["pairs"].as_array().unwrap();
        assert_eq!(pairs.len() as u64, matched["features"][0].as_u64().unwrap());
        assert!(
            pairs.len() > 12 && pairs.iter().all(|p| p["a"] == p["b"]),
            "{matched}"
        );
    }
    let text = bench.ok(&format!("sae match {topk} other --top 3"));
    assert_eq!(text.lines().count(), 6, "{text}");
    assert!(
        text.starts_with("24 latents and 24\n") && text.contains("1.0000"),
        "{text}"
    );
}

#[test]
fn what_cannot_be_matched_is_named() {
    let bench = Bench::new();
    matrix(&bench.path("x.safetensors"), 300, 8, scattered);
    matrix(&bench.path("wide.safetensors"), 300, 16, scattered);
    matrix(&bench.path("short.safetensors"), 299, 8, scattered);
    let same = format!("{ROOT}/tests/data/sae/saelens/topk");
    let narrow = format!("{ROOT}/tests/data/sae/saelens/transcoder");
    bench.fails(
        &format!("sae match {same} {narrow}"),
        &["width 8", "transcoder of 6", "without a store"],
    );
    let found = bench.json(&format!("sae match {same} {narrow} x.safetensors"));
    assert!(
        found["cosine"].is_null() && found["correlation"].is_object(),
        "{found}"
    );
    bench.fails(
        &format!("sae match {same} {same} wide.safetensors"),
        &["width 16", "takes 8"],
    );
    bench.fails(
        &format!("sae match {same} {same} x.safetensors short.safetensors"),
        &["x.safetensors", "short.safetensors", "299"],
    );
    bench.fails(&format!("sae match {same} gone"), &["gone"]);
}
