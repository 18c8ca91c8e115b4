//! `inscape sae convert` and `inscape sae show`, and evaluation of what other tools wrote.

use std::fs;

use super::*;

fn fixture(case: &str) -> String {
    format!("{ROOT}/tests/data/sae/{case}")
}

#[test]
fn an_autoencoder_goes_through_every_format_and_back() {
    let bench = Bench::new();
    let start = fixture("saelens/batchtopk");
    let mut from = start.clone();
    for format in [
        "saelens",
        "gemma_scope_2",
        "llama_scope",
        "language_model_saes",
        "circuit_tracer", // last: what it holds are transcoders
    ] {
        let text = bench.ok(&format!("sae convert {from} {format} --to {format}"));
        assert!(text.starts_with(&format!("{format}: ")), "{text}");
        assert!(text.contains("24 latents of width 8") && text.contains(&format!("to {format}")));
        let shown = bench.json(&format!("sae show {format}"));
        assert_eq!(shown["format"], format, "{shown}");
        assert_eq!((&shown["d_sae"], &shown["d_in"]), (&24.into(), &8.into()));
        let threshold = &shown["threshold"];
        assert!(threshold["min"].as_f64().unwrap() > 0.4, "{shown}");
        assert_eq!(shown["metadata"]["hook_name"], "blocks.3.hook_resid_pre");
        from = format.into();
    }
    let first = bench.json(&format!("sae show {start}"));
    assert_eq!(first["activation"], "batchtopk");
    assert_eq!(bench.json("sae show saelens")["activation"], "batchtopk");
    assert_eq!(bench.json("sae show llama_scope")["activation"], "jumprelu");
    assert_eq!(
        bench.json("sae show saelens")["decoder_norm"],
        first["decoder_norm"]
    );
}

#[test]
fn show_says_what_it_is() {
    let bench = Bench::new();
    let text = bench.ok(&format!("sae show {}", fixture("sparsify/skip_transcoder")));
    for words in [
        "sparsify, topk",
        "d_in 8   d_sae 24",
        "k 3",
        "not taken from",
        "skip yes",
        "norms of W_dec",
    ] {
        assert!(text.contains(words), "{text:?} does not say {words:?}");
    }
    let text = bench.ok(&format!("sae show {}", fixture("saelens/jumprelu")));
    for words in [
        "threshold 0.",
        "b_dec taken from",
        "hook_name blocks.3.hook_resid_pre",
        "model_name gpt2",
    ] {
        assert!(text.contains(words), "{text:?} does not say {words:?}");
    }
    let file = fixture("circuit_tracer/relu/layer_4.safetensors");
    let json = bench.json(&format!("sae show {file} --from circuit_tracer"));
    assert_eq!(json["activation"], "standard");
    assert!(json["threshold"].is_null() && json["k"].is_null(), "{json}");
}

#[test]
fn what_cannot_be_converted_is_refused() {
    let bench = Bench::new();
    let gated = fixture("saelens/gated");
    let line = format!("sae convert {gated} out --to sparsify");
    bench.fails(&line, &["sparsify", "gated"]);
    let skip = fixture("sparsify/skip");
    bench.fails(
        &format!("sae convert {skip} out --to saelens"),
        &["saelens", "topk transcoder"],
    );
    assert!(!bench.path("out").exists());
    bench.fails(
        &format!("sae convert {gated} out --to saelens --from sparsify"),
        &["sae.safetensors"],
    );
    bench.fails("sae show gone", &["gone"]);
    bench.fails("sae show .", &["no known autoencoder"]);
    bench.usage(
        &format!("sae convert {gated} out --to torch"),
        &["torch", "saelens", "openai"],
    );
    bench.usage(&format!("sae convert {gated} out"), &["--to"]);
    fs::create_dir(bench.path("there")).unwrap();
    bench.ok(&format!("sae convert {gated} there --to saelens"));
    let before = fs::read(bench.path("there/cfg.json")).unwrap();
    bench.fails(
        &format!("sae convert {gated} there --to saelens"),
        &["there", "exists"],
    );
    assert_eq!(fs::read(bench.path("there/cfg.json")).unwrap(), before);
}

#[test]
fn what_another_tool_wrote_is_evaluated() {
    let bench = Bench::new();
    let x = |r: usize, c: usize| ((r * 7 + c * 13) % 11) as f32 / 5.0 - 1.0;
    matrix(&bench.path("x.safetensors"), 300, 8, x);
    bench.ok(&format!(
        "sae convert {} there --to sparsify",
        fixture("sparsify/topk")
    ));
    let ours = bench.json("sae eval there x.safetensors");
    assert_eq!(ours["reconstruction"]["l0"], 3.0, "{ours}");
    assert!(bench.path("there/eval.json").exists());
    let file = bench.json("sae eval there/sae.safetensors x.safetensors");
    assert_eq!(file["reconstruction"], ours["reconstruction"]);
}

#[test]
fn rows_are_normalised_for_what_wants_it() {
    let bench = Bench::new();
    let line = format!(
        "sae eval {0}/autoencoder.pt {0}/expected.safetensors",
        fixture("openai/topk")
    );
    let found = bench.json(&format!("{line}:x"));
    let found = &found["reconstruction"];
    assert_eq!((&found["rows"], &found["l0"]), (&16.into(), &3.0.into()));
    // That of the tool's own outputs, in the file beside it.
    let fvu = found["fvu"].as_f64().unwrap();
    assert!((fvu - 4.591_486).abs() < 1e-3, "{fvu}");
}
