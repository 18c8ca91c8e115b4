//! Autoencoders of several places: crosscoders, cross-layer transcoders; and end-to-end training.

use super::*;

const LAYERS: [&str; 2] = ["blocks.1.hook_resid_post", "blocks.3.hook_resid_post"];

fn line(source: &str, out: &str, more: &str) -> String {
    format!("sae train {source} --k 4 --width 64 --tokens 4096 --batch 64 --out {out} {more}")
}

#[test]
fn a_crosscoder_reads_and_writes_several_hooks() {
    let bench = Bench::with_store();
    let [a, b] = LAYERS;
    for arch in ["topk", "batch-topk", "standard"] {
        let more = format!("--crosscoder --hook {a} {b} --arch {arch}");
        bench.ok(&line("acts", arch, &more));
        let shown = bench.json(&format!("sae show {arch}"));
        assert_eq!((&shown["sites"], &shown["d_in"]), (&2.into(), &256.into()));
        let json = bench.json(&format!("sae eval {arch} acts --rows 90%.."));
        assert!(
            json["reconstruction"]["fvu"].as_f64().unwrap() < 1.0,
            "{json}"
        );
    }
    // Over models: another store of the same text.
    let more = format!("--crosscoder --hook {a} --beside acts");
    let json = bench.json(&line("acts", "models", &more));
    assert!(json["fvu"].as_f64().unwrap() < 1.0, "{json}");
    bench.ok(&format!(
        "capture {} --text {} --hooks {a} --max-tokens 900 --context 32 --out short",
        tiny(),
        sample()
    ));
    let more = format!("--crosscoder --hook {a} --beside short");
    bench.fails(
        &line("acts", "no", &more),
        &["short", "1500 rows against 900"],
    );
    bench.usage(
        &line("acts", "no", &format!("--hook {a} --beside short")),
        &["--crosscoder"],
    );
}

#[test]
fn a_cross_layer_transcoder_is_trained_measured_and_converted() {
    let bench = Bench::new();
    let [read, write] = ["ln2.hook_normalized", "hook_mlp_out"];
    let hooks = |at: &str| format!("blocks.0.{at} blocks.1.{at} blocks.2.{at}");
    bench.ok(&format!(
        "capture {} --text {} --hooks {} {} --max-tokens 1500 --context 32 --out acts",
        tiny(),
        sample(),
        hooks(read),
        hooks(write)
    ));
    let more = format!(
        "--cross-layer --hook {} --target-hook {} --arch jump-relu",
        hooks(read),
        hooks(write)
    );
    bench.ok(&line("acts", "clt", &more));
    let json = bench.json("sae eval clt acts --rows 90%..");
    let layers = json.as_array().unwrap();
    assert_eq!(layers.len(), 3, "{json}");
    for layer in layers {
        assert!(layer["fvu"].as_f64().unwrap() < 1.5, "{json}");
        assert_eq!(layer["rows"], 150);
    }
    let text = bench.ok("sae eval clt acts");
    assert!(text.contains("layer 2: L0 "), "{text}");
    let text = bench.ok("sae show clt");
    assert!(text.contains("sites 3"), "{text}");
    bench.ok("sae convert clt theirs --to circuit_tracer");
    assert!(bench.path("theirs/W_dec_2.safetensors").exists());
    bench.ok("sae convert theirs back --to saelens");
    let weights =
        |dir: &str| fs::read(bench.path(dir).join("layers/1/sae_weights.safetensors")).unwrap();
    assert!(weights("clt") == weights("back"));
    bench.fails(
        "sae convert clt no --to sparsify",
        &["sparsify", "cross-layer"],
    );
    bench.ok(&line("acts", "clt", &format!("{more} --resume")));
    let more = format!(
        "--cross-layer --hook {} --target-hook blocks.0.{write}",
        hooks(read)
    );
    bench.fails(
        &line("acts", "no", &more),
        &["3 hooks to read", "1 to write"],
    );
    let more = format!("--hook blocks.0.{read} --target-hook {}", hooks(write));
    bench.fails(&line("acts", "no", &more), &["3 hooks", "--cross-layer"]);
}

#[test]
fn training_end_to_end_runs_the_model() {
    let bench = Bench::new();
    let (model, text) = (tiny(), sample());
    let of = |out: &str, more: &str| {
        let about = format!(
            "--text {text} --context 32 --max-tokens 1500 --hook {}",
            LAYERS[0]
        );
        line(&model, out, &format!("{about} {more}"))
    };
    let json = bench.json(&of("kl", "--end-to-end --mse 0.1 --downstream 0.1"));
    assert!(json["loss"].as_f64().unwrap() > 0.0, "{json}");
    let json = bench.json(&format!(
        "sae eval kl {model} --text {text} --context 32 --text-tokens 1500"
    ));
    assert!(
        json["reconstruction"]["fvu"].as_f64().unwrap() < 1.0,
        "{json}"
    );
    bench.usage(
        &line("acts", "no", &format!("--hook {} --end-to-end", LAYERS[0])),
        &["--text"],
    );
}
