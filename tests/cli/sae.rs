//! `inscape sae train` and `inscape sae eval`.

use std::fs;
use std::time::Instant;

use super::*;

fn line(source: &str, out: &str, more: &str) -> String {
    format!("sae train {source} --k 4 --width 64 --tokens 4096 --batch 64 --out {out} {more}")
}

#[test]
fn training_and_evaluation_print_their_results() {
    let bench = Bench::with_store();
    let json = bench.json(&line("acts", "sae", &format!("--hook {HOOK} --rows ..90%")));
    assert_eq!(
        (&json["step"], &json["tokens"]),
        (&64.into(), &4096.into()),
        "{json}"
    );
    assert!(json["fvu"].as_f64().unwrap() < 1.0 && json["l0"].as_f64().unwrap() <= 4.0);
    let text = bench
        .ok(&line("acts:hook_none", "x", "").replace("acts:hook_none", &format!("acts:{HOOK}")));
    assert!(
        text.starts_with("x: 64 latents, k 4; 4096 activations, "),
        "{text}"
    );
    let json = bench.json("sae eval sae acts --rows 90%..");
    let r = &json["reconstruction"];
    assert_eq!(r["rows"], 150);
    assert!(
        r["fvu"].as_f64().unwrap() < 1.0 && r["l0"].as_f64().unwrap() <= 4.0,
        "{json}"
    );
    assert!(json["spliced"].is_null());
    let (model, text) = (tiny(), sample());
    let line =
        format!("sae eval sae acts --model {model} --text {text} --text-tokens 600 --context 32");
    let spliced = &bench.json(&line)["spliced"];
    let ce = |key: &str| spliced[key].as_f64().unwrap();
    assert!(
        ce("ce_original") < ce("ce_spliced") && ce("ce_spliced") < ce("ce_zero"),
        "{spliced}"
    );
    for more in ["--context 1 --text-tokens 9", "--context 9 --text-tokens 1"] {
        let line = format!("sae eval sae acts --model {model} --text {text} {more}");
        bench.fails(&line, &["one token", "no next token"]);
    }
    let text = bench.ok(&line);
    assert!(
        text.contains("L0 ") && text.contains("cross-entropy "),
        "{text}"
    );
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let bench = Bench::with_store();
    let source = format!("acts:{HOOK}");
    bench.ok(&line(&source, "a", "--seed 3"));
    bench.ok(&line(&source, "b", "--seed 3"));
    bench.ok(&line(&source, "c", "--seed 4"));
    assert_same_files(&bench.path("a"), &bench.path("b"), &["log.jsonl"]);
    let weights = |dir: &str| fs::read(bench.path(dir).join("sae_weights.safetensors")).unwrap();
    assert!(weights("a") != weights("c"));
}

#[test]
fn a_setting_that_cannot_work_is_named() {
    let bench = Bench::new();
    matrix(&bench.path("x.safetensors"), 300, 8, scattered);
    for (more, words) in [
        ("--k 65", &["k = 65", "64"][..]),
        ("--k 0", &["k = 0"]),
        ("--width 0", &["width = 0"]),
        ("--width 0x", &["width = 0"]),
        ("--width wide", &["--width", "`wide`", "8x"]),
        ("--width 99999999x", &["width = "]),
        ("--lr 0", &["lr = 0"]),
        ("--lr NaN", &["lr = NaN"]),
        ("--batch 1", &["batch = 1"]),
        ("--p-end 0.5", &["--p-end", "p-anneal"]),
        ("--tokens 63", &["tokens = 63", "64"]),
        ("--rows 5..5", &["5..5", "300"]),
        ("--rows half", &["`half`"]),
        ("--rows ..301", &["301", "300"]),
    ] {
        // The later of two equal options would be an error; take the default ones out.
        let flag = more.split(' ').next().unwrap();
        let mut words_of: Vec<String> = line("x.safetensors", "o", "")
            .split(' ')
            .map(Into::into)
            .collect();
        if let Some(at) = words_of.iter().position(|w| w == flag) {
            words_of.drain(at..at + 2);
        }
        bench.fails(&format!("{} {more}", words_of.join(" ")), words);
        assert!(!bench.path("o").exists(), "{more}");
    }
    bench.usage(
        &line("x.safetensors", "o", "--arch vanilla"),
        &["vanilla", "topk"],
    );
    bench.usage(
        &line("x.safetensors", "o", "--checkpoint-every 0"),
        &["--checkpoint-every"],
    );
}

#[test]
fn a_source_that_is_not_there_is_named() {
    let bench = Bench::with_store();
    bench.fails(&line("gone", "o", ""), &["gone", "does not exist"]);
    bench.fails(
        &line("acts", "o", "--hook blocks.9.hook_resid_post"),
        &["blocks.9", HOOK],
    );
    bench.fails(&line("acts", "o", ""), &["acts", HOOK]);
    matrix(&bench.path("x.safetensors"), 300, 8, scattered);
    bench.fails(
        &line("x.safetensors:y", "o", ""),
        &["x.safetensors", "\"y\"", "x"],
    );
    let bytes = fs::read(bench.path("x.safetensors")).unwrap();
    bench.write("cut.safetensors", &bytes[..bytes.len() - 3]);
    bench.fails(&line("cut.safetensors", "o", ""), &["cut.safetensors"]);
    assert!(!bench.path("o").exists());
}

/// A single NaN in the matrix, where training reads it first and where it reads it late.
#[test]
fn a_nan_is_named_with_its_place() {
    let bench = Bench::new();
    for row in [3, 250] {
        let value = move |r, c| {
            if (r, c) == (row, 5) {
                f32::NAN
            } else {
                scattered(r, c)
            }
        };
        matrix(&bench.path("x.safetensors"), 300, 8, value);
        let out = format!("o-{row}");
        let words = ["x.safetensors", &format!("row {row} "), "NaN", "column 5"];
        bench.fails(&line("x.safetensors", &out, ""), &words);
    }
}

#[test]
fn what_is_there_is_not_overwritten() {
    let bench = Bench::new();
    matrix(&bench.path("x.safetensors"), 300, 8, scattered);
    bench.ok(&line("x.safetensors", "o", ""));
    let before = files(&bench.path("o"));
    bench.fails(
        &line("x.safetensors", "o", ""),
        &["o: ", "already", "resume"],
    );
    bench.fails(
        &line("x.safetensors", "o", "--resume --seed 5"),
        &["config.seed is 0 there and 5 now"],
    );
    bench.ok(&line("x.safetensors", "o", "--resume"));
    assert!(files(&bench.path("o")) == before);
    fs::create_dir(bench.path("full")).unwrap();
    bench.write("full/letter.txt", "mine");
    bench.fails(&line("x.safetensors", "full", ""), &["full", "not empty"]);
}

/// A run of about a second, with a checkpoint every 20 of its steps.
fn long(out: &str, more: &str) -> String {
    format!(
        "sae train acts --hook {HOOK} --k 8 --width 8x --tokens 60000 --batch 256 --checkpoint-every 20 --out {out} {more}"
    )
}

/// The log without what a clock says.
fn timeless(path: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| {
            let mut json: serde_json::Value = serde_json::from_str(line).unwrap();
            let fields = json.as_object_mut().unwrap();
            fields.remove("seconds").unwrap();
            fields.remove("tokens_per_second").unwrap();
            json
        })
        .collect()
}

#[test]
fn a_killed_training_resumes_to_the_same_bytes() {
    let bench = Bench::with_store();
    let begun = Instant::now();
    bench.ok(&long("whole", ""));
    let took = begun.elapsed();
    let mut killed = 0;
    for part in [2, 4, 6] {
        let out = format!("part-{part}");
        for share in [f64::from(part) / 8.0, 0.3] {
            let command = bench.command(&long(&out, "--resume"));
            killed += u32::from(killed_after(command, took.mul_f64(share)));
        }
        bench.ok(&long(&out, "--resume"));
        assert_same_files(&bench.path(&out), &bench.path("whole"), &["log.jsonl"]);
        let log = |dir: &str| timeless(&bench.path(dir).join("log.jsonl"));
        assert_eq!(log(&out), log("whole"));
    }
    println!("killed {killed} times; one run takes {took:?}");
    assert!(killed >= 4, "only {killed} of 6 were killed while they ran");
}

#[cfg(unix)]
#[test]
fn a_full_disk_is_named_and_room_made_later_is_enough() {
    let bench = Bench::with_store();
    bench.ok(&line("acts", "whole", &format!("--hook {HOOK}")));
    // 64 KiB of weights do not fit into 40 KiB.
    let part = line("acts", "part", &format!("--hook {HOOK}"));
    let ran = run(bench.bash("trap '' XFSZ; ulimit -f 40;", &part), "");
    failed(&ran, 1, &["part/sae_weights.safetensors", "no room left"]);
    bench.ok(&format!("{part} --resume"));
    assert_same_files(&bench.path("part"), &bench.path("whole"), &["log.jsonl"]);
}

#[test]
fn an_evaluation_before_the_end_says_so() {
    let bench = Bench::with_store();
    let whole = Instant::now();
    bench.ok(&long("whole", ""));
    let half = whole.elapsed().mul_f64(0.5);
    assert!(
        killed_after(bench.command(&long("part", "")), half),
        "it ended early"
    );
    bench.fails("sae eval part acts", &["part", "not finished", "--resume"]);
    bench.fails("sae eval nowhere acts", &["nowhere"]);
}

#[test]
fn an_evaluation_on_something_else_is_refused() {
    let bench = Bench::with_store();
    matrix(&bench.path("x.safetensors"), 300, 8, scattered);
    bench.ok(&line("x.safetensors", "sae", ""));
    bench.fails("sae eval sae acts", &["acts"]);
    bench.fails(
        &format!("sae eval sae acts:{HOOK}"),
        &["width 128", "takes 8"],
    );
    bench.fails(
        "sae eval sae x.safetensors --text t",
        &["x.safetensors", "--model"],
    );
    bench.ok("sae eval sae x.safetensors");
    let before = fs::read(bench.path("sae/cfg.json")).unwrap();
    bench.write("sae/cfg.json", "{\"architecture\": \"jumprelu\"}");
    bench.fails(
        "sae eval sae x.safetensors",
        &["sae_weights.safetensors", "`threshold` is missing"],
    );
    bench.write("sae/cfg.json", before);
    bench.write("sae/sae_weights.safetensors", "short");
    bench.fails(
        "sae eval sae x.safetensors",
        &["sae/sae_weights.safetensors"],
    );
}

#[test]
fn a_selftest_shows_what_training_finds() {
    let bench = Bench::new();
    let line = "sae selftest --d 16 --features 24 --active 2 --samples 200000";
    let json = bench.json(line);
    assert_eq!(json["task"]["features"], 24, "{json}");
    let found = &json["found"][0];
    assert_eq!(
        (&found["architecture"], &found["d_sae"]),
        (&"TopK".into(), &24.into())
    );
    let cosine = found["mean_max_cosine"].as_f64().unwrap();
    assert!(cosine > 0.85, "{json}");
    let text = bench.ok(line);
    assert!(text.contains("mean max cosine"), "{text}");
    let topk = text.lines().find(|l| l.starts_with("TopK ")).unwrap();
    assert!(
        topk.contains(&format!("{cosine:.4}")),
        "the same seed: {text}"
    );
    for name in [
        "BatchTopK ",
        "Matryoshka",
        "JumpReLU ",
        "Gated ",
        "Standard ",
    ] {
        assert!(text.lines().any(|l| l.starts_with(name)), "{name}: {text}");
    }
    bench.fails("sae selftest --active 300", &["active = 300"]);
}

#[test]
fn a_transcoder_is_trained_saved_and_measured_on_what_it_makes() {
    let bench = Bench::with_store();
    let to = "blocks.3.hook_resid_post";
    let more = format!("--hook {HOOK} --target-hook {to} --arch batch-topk");
    bench.ok(&line("acts", "transcoder", &more));
    let json = bench.json("sae eval transcoder acts");
    let fvu = json["reconstruction"]["fvu"].as_f64().unwrap();
    assert!(fvu < 0.9, "{json}");
    // Of what it reads it says less than of what it writes.
    let config = fs::read_to_string(bench.path("transcoder/cfg.json")).unwrap();
    assert!(config.contains(to), "{config}");
    bench.write("transcoder/cfg.json", config.replace(to, HOOK));
    let json = bench.json("sae eval transcoder acts");
    assert!(
        json["reconstruction"]["fvu"].as_f64().unwrap() > fvu,
        "{json}"
    );
    bench.write("transcoder/cfg.json", config);
    matrix(&bench.path("x.safetensors"), 30, 128, scattered);
    bench.fails("sae eval transcoder x.safetensors", &[to, "store"]);
}

#[test]
fn several_are_trained_in_one_pass_each_in_its_directory() {
    let bench = Bench::with_store();
    let more = format!("--hook {HOOK} --arch topk jump-relu gated --seed 1 2");
    let json = bench.json(&line("acts", "many", &more));
    assert_eq!(json.as_array().unwrap().len(), 6, "{json}");
    for name in ["topk-k4-w64-s1", "jump-relu-k4-w64-s2", "gated-w64-s1"] {
        let json = bench.json(&format!("sae eval many/{name} acts"));
        assert!(
            json["reconstruction"]["l0"].as_f64().unwrap() > 0.0,
            "{name}: {json}"
        );
    }
    let json = bench.json("sae show many/jump-relu-k4-w64-s2");
    assert_eq!(json["activation"], "jumprelu", "{json}");
    // Alone it is the same.
    let more = format!("--hook {HOOK} --seed 1");
    bench.ok(&line("acts", "alone", &more));
    let weights = |dir: &str| fs::read(bench.path(dir).join("sae_weights.safetensors")).unwrap();
    assert!(weights("alone") == weights("many/topk-k4-w64-s1"));
    bench.usage(
        &line("acts", "other", "--preset unknown"),
        &["unknown", "saelens"],
    );
}

/// A run on the model itself: 64 steps on 1,500 tokens in contexts of 32.
fn live(out: &str, more: &str) -> String {
    let text = sample();
    let more = format!("--text {text} --context 32 --max-tokens 1500 {more}");
    line("tiny-lm-1", out, &more)
}

#[test]
fn a_model_is_trained_on_without_a_store() {
    let bench = Bench::with_store();
    let to = "blocks.3.hook_resid_post";
    let json = bench.json(&live("one", &format!("--hook {HOOK} --rows ..90%")));
    assert_eq!(json["step"], 64, "{json}");
    bench.ok(&live("again", &format!("--hook {HOOK} --rows ..90%")));
    assert_same_files(&bench.path("one"), &bench.path("again"), &["log.jsonl"]);
    // What was trained on the model is as good on what was stored of it, and the other way round.
    bench.ok(&line(
        "acts",
        "stored",
        &format!("--hook {HOOK} --rows ..90%"),
    ));
    let fvu = |line: &str| {
        let json = bench.json(line);
        json["reconstruction"]["fvu"].as_f64().unwrap()
    };
    let text = sample();
    let on = format!("tiny-lm-1 --text {text} --context 32 --text-tokens 1500");
    for sae in ["one", "stored"] {
        // The store has the rows of one short context more.
        let [a, b] = [
            fvu(&format!("sae eval {sae} acts --rows ..1472")),
            fvu(&format!("sae eval {sae} {on}")),
        ];
        assert!((a - b).abs() < 1e-4, "{sae}: {a} stored, {b} live");
    }
    let more = format!("--hook {HOOK} {to} --target-hook {to} --arch batch-topk");
    bench.ok(&live("many", &more));
    let coder = format!("many/{HOOK}/batch-topk-k4-w64-s0");
    assert!(fvu(&format!("sae eval {coder} {on}")) < 0.9);
    let json = bench.json(&format!("sae eval {coder} {on} --model tiny-lm-1"));
    assert!(json["spliced"]["ce_recovered"].is_number(), "{json}");
    bench.ok("report one --out report.html");
    let other = format!("--hook {HOOK} --rows ..90% --resume");
    let text = fs::read_to_string(sample()).unwrap();
    bench.write("text.txt", text.replacen("whale", "shark", 1));
    let line = live("one", &other).replace(&sample(), "text.txt");
    bench.fails(&line, &["one: holds another run", "live."]);
    bench.usage(&live("x", ""), &["--hook"]);
    bench.fails(&live("x", "--hook blocks.9.hook_resid_post"), &["blocks.9"]);
    bench.usage(&line_without_text("x"), &["--text"]);
}

fn line_without_text(out: &str) -> String {
    line("acts", out, &format!("--hook {HOOK} --context 32"))
}

#[test]
fn saved_weights_may_be_half_as_large() {
    let bench = Bench::with_store();
    for dtype in ["f32", "f16", "bf16"] {
        bench.ok(&line(
            "acts",
            dtype,
            &format!("--hook {HOOK} --dtype {dtype}"),
        ));
    }
    let size = |dir: &str| {
        let file = bench.path(dir).join("sae_weights.safetensors");
        fs::metadata(file).unwrap().len() as f64
    };
    let config = fs::read_to_string(bench.path("bf16/cfg.json")).unwrap();
    assert!(config.contains("\"dtype\": \"bfloat16\""), "{config}");
    for dtype in ["f16", "bf16"] {
        let share = size(dtype) / size("f32");
        assert!((share - 0.5).abs() < 0.02, "{share}");
        bench.ok(&format!("sae eval {dtype} acts"));
        bench.ok(&format!("sae convert {dtype} there-{dtype} --to sparsify"));
        let json = bench.json(&format!("sae show there-{dtype}"));
        assert_eq!(json["activation"], "topk", "{json}");
    }
    bench.usage(&line("acts", "x", "--dtype f8"), &["f8", "bf16"]);
}
