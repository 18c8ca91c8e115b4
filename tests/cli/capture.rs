//! `inscape capture`.

use std::fs;
use std::time::Instant;

use super::*;

/// A capture of the tiny LM from `text` to `out`.
fn line(text: &str, out: &str, more: &str) -> String {
    format!(
        "capture {} --text {text} --hooks {HOOK} --context 32 --out {out} {more}",
        tiny()
    )
}

#[test]
fn the_summary_is_the_result() {
    let bench = Bench::new();
    let json = bench.json(&line(&sample(), "a", "--max-tokens 100"));
    for (key, value) in [("rows", 100), ("hooks", 1), ("shards", 1), ("tokens", 100)] {
        assert_eq!(json[key], value, "{json}");
    }
    let file = fs::metadata(bench.path("a/shard-000000.safetensors")).unwrap();
    assert_eq!(json["bytes"], file.len());
    assert!(json["tokens_per_second"].as_f64().unwrap() > 0.0);
    let text = bench.ok(&line(&sample(), "b", "--max-tokens 100"));
    assert!(
        text.starts_with("b: 100 rows at 1 hooks in 1 shards, 0.1 MB; 100 tokens in "),
        "{text}"
    );
    assert_same_files(&bench.path("a"), &bench.path("b"), &[]);
}

#[test]
fn positions_and_dtype_are_taken() {
    let bench = Bench::new();
    for (positions, rows) in [("all", 100), ("last", 4), ("mean", 4), ("1..3", 8)] {
        let more = format!("--max-tokens 100 --positions {positions} --dtype f16");
        let json = bench.json(&line(&sample(), positions, &more));
        assert_eq!(json["rows"], rows, "{positions}");
    }
    for positions in ["some", "3..3", "5..2", "-1..2"] {
        let more = format!("--positions={positions}");
        bench.usage(&line(&sample(), "no", &more), &[positions, "I..J"]);
    }
    bench.fails(
        &line(&sample(), "no", "--positions 40..50"),
        &["40..50", "0 to 31"],
    );
    assert!(!bench.path("no").exists());
}

#[test]
fn text_comes_from_standard_input() {
    let bench = Bench::new();
    let text = "Call me Ishmael. Some years ago, never mind how long precisely.";
    bench.write("text.txt", text);
    bench.ok(&line("text.txt", "file", ""));
    let out = succeeded(run(bench.command(&line("-", "stdin", "")), text), "stdin");
    assert!(out.starts_with("stdin: "), "{out}");
    assert_same_files(
        &bench.path("file"),
        &bench.path("stdin"),
        &["manifest.json"],
    );
    failed(
        &run(bench.command(&line("-", "empty", "")), ""),
        1,
        &["standard input", "empty"],
    );
    assert!(!bench.path("empty").exists());
}

#[test]
fn a_text_that_cannot_be_read_is_named() {
    let bench = Bench::new();
    bench.write("empty.txt", "");
    bench.write(
        "latin.txt",
        b"Moby-Dick, ou la baleine, traduit en fran\xe7ais",
    );
    bench.fails(&line("gone.txt", "o", ""), &["gone.txt", "os error 2"]);
    bench.fails(&line(".", "o", ""), &["directory"]);
    bench.fails(
        &line("empty.txt", "o", ""),
        &["empty.txt", "the text is empty"],
    );
    bench.fails(&line("empty.txt", "o", "--resume"), &["the text is empty"]);
    bench.fails(
        &line("latin.txt", "o", ""),
        &["latin.txt", "not UTF-8 at byte 41"],
    );
    assert!(!bench.path("o").exists());
}

#[test]
fn what_cannot_be_captured_is_named() {
    let bench = Bench::new();
    let hooks = |hook: &str| {
        format!(
            "capture {} --text {} --hooks {hook} --out o",
            tiny(),
            sample()
        )
    };
    bench.fails(
        &hooks("blocks.2.hook_resid_pos"),
        &["did you mean `blocks.2.hook_resid_post`"],
    );
    bench.fails(&hooks("*"), &["hook_attn_scores", "[batch, 4, pos, pos]"]);
    bench.fails(
        &line(&sample(), "o", "").replace("32", "129"),
        &["129", "up to 128"],
    );
    bench.usage(&line(&sample(), "o", "--batch 0"), &["--batch"]);
    bench.usage(&line(&sample(), "o", "--max-tokens 0"), &["--max-tokens"]);
    bench.usage(&line(&sample(), "o", "--shard-mb 0"), &["--shard-mb"]);
    bench.usage(&line(&sample(), "o", "--dtype f64"), &["f64", "f32, f16"]);
    assert!(!bench.path("o").exists());
}

#[test]
fn what_is_there_is_not_overwritten() {
    let bench = Bench::new();
    bench.ok(&line(&sample(), "o", "--max-tokens 100"));
    let before = files(&bench.path("o"));
    bench.fails(
        &line(&sample(), "o", "--max-tokens 100"),
        &["o already holds a store", "resume"],
    );
    let other = line(&sample(), "o", "--max-tokens 90 --resume");
    bench.fails(&other, &["max_tokens = 100", "max_tokens = 90"]);
    bench.ok(&line(&sample(), "o", "--max-tokens 100 --resume"));
    assert!(files(&bench.path("o")) == before);
    fs::create_dir(bench.path("full")).unwrap();
    bench.write("full/letter.txt", "mine");
    bench.fails(
        &line(&sample(), "full", ""),
        &["full", "not empty", "letter.txt"],
    );
    bench.write("file", "mine");
    bench.fails(&line(&sample(), "file", ""), &["file"]);
    assert_eq!(fs::read(bench.path("file")).unwrap(), b"mine");
}

/// Five shards of 1 MiB.
fn long(out: &str, more: &str) -> String {
    let hooks = "--hooks hook_embed blocks.*.hook_resid_post --max-tokens 2000 --batch 2";
    line(&sample(), out, &format!("{hooks} --shard-mb 1 {more}"))
}

#[cfg(unix)]
#[test]
fn a_full_disk_is_named_and_room_made_later_is_enough() {
    let bench = Bench::new();
    bench.ok(&long("whole", ""));
    assert!(bench.path("whole/shard-000004.safetensors").exists());
    let small = "trap '' XFSZ; ulimit -f 500;";
    for resume in ["", "--resume"] {
        let ran = run(bench.bash(small, &long("part", resume)), "");
        failed(
            &ran,
            1,
            &["part/shard-000000.safetensors", "no room left", "resume"],
        );
    }
    bench.ok(&long("part", "--resume"));
    assert_same_files(&bench.path("part"), &bench.path("whole"), &[]);
    // With no room even for the manifest.
    let ran = run(
        bench.bash("trap '' XFSZ; ulimit -f 0;", &long("none", "")),
        "",
    );
    failed(&ran, 1, &["none/manifest.json", "no room left"]);
    bench.ok(&long("none", "--resume"));
    assert_same_files(&bench.path("none"), &bench.path("whole"), &[]);
}

#[test]
fn a_killed_capture_resumes_to_the_same_bytes() {
    let bench = Bench::new();
    let begun = Instant::now();
    bench.ok(&long("whole", ""));
    let took = begun.elapsed();
    let mut killed = 0;
    for part in 1..6 {
        let out = format!("part-{part}");
        let time = took.mul_f64(f64::from(part) / 6.0);
        killed += u32::from(killed_after(bench.command(&long(&out, "")), time));
        bench.ok(&long(&out, "--resume"));
        assert_same_files(&bench.path(&out), &bench.path("whole"), &[]);
    }
    assert!(killed >= 3, "only {killed} of 5 were killed while they ran");
}
