//! Model directories that are not what they should be: the file is named, and what is wrong.

use std::fs;
use std::io::Read;
use std::process::Stdio;

use super::*;

const PARTS: [&str; 3] = ["config.json", "tokenizer.json", "model.safetensors"];

/// A copy of the tiny LM at `model`.
fn copied() -> Bench {
    let bench = Bench::new();
    fs::create_dir(bench.path("model")).unwrap();
    for part in PARTS {
        let from = format!("{}/{part}", tiny());
        fs::copy(from, bench.path("model").join(part)).unwrap();
    }
    bench
}

#[test]
fn hooks_are_listed_with_their_shapes() {
    let bench = Bench::new();
    let text = bench.ok(&format!("hooks {}", tiny()));
    assert_eq!(text.lines().count(), 83);
    let line = text
        .lines()
        .find(|l| l.starts_with("blocks.3.attn.hook_z "))
        .unwrap();
    assert!(line.ends_with(" [batch, pos, 4, 32]"), "{line}");
    let json = bench.json(&format!("hooks {}", tiny()));
    assert_eq!(json[0]["name"], "hook_embed");
    assert_eq!(json[0]["shape"], "[batch, pos, 128]");
    assert_eq!(json.as_array().unwrap().len(), 83);
}

/// The embedded models need no directory, and are the ones in `examples/data`.
#[test]
fn embedded_models_are_found_by_name() {
    let bench = Bench::new();
    let capture = |model: &str, out: &str| {
        let (text, hook) = (sample(), HOOK);
        bench.ok(&format!(
            "capture {model} --text {text} --hooks {hook} --max-tokens 64 --out {out}"
        ));
    };
    capture("tiny-lm-1", "name");
    capture(&tiny(), "path");
    assert_same_files(&bench.path("name"), &bench.path("path"), &[]);
    capture("tiny-lm-2", "other");
    let shard = "shard-000000.safetensors";
    let rows = |dir: &str| fs::read(bench.path(dir).join(shard)).unwrap();
    assert!(rows("name") != rows("other"));
    bench.fails(
        "hooks tiny-lm-9",
        &["tiny-lm-9", "tiny-lm-1, tiny-lm-2, tiny-lm-3"],
    );
}

/// `inscape hooks MODEL | head -1`: a reader that has gone is no failure.
#[test]
fn a_closed_pipe_is_no_failure() {
    let bench = Bench::new();
    for json in ["", "--json"] {
        let mut command = bench.command(&format!("hooks {} {json}", tiny()));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(child.stdout.take());
        let mut err = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut err)
            .unwrap();
        assert_eq!(
            (child.wait().unwrap().code(), err.as_str()),
            (Some(0), ""),
            "{json}"
        );
    }
}

#[test]
fn a_wrong_path_is_named() {
    let bench = Bench::new();
    bench.fails("hooks no/such/model", &["no/such/model", "embedded"]);
    bench.fails(
        &format!("capture nowhere --text {} --hooks * --out o", sample()),
        &["nowhere"],
    );
    bench.write("file", "x");
    bench.fails("hooks file", &["file"]);
    assert!(!bench.path("o").exists());
}

#[test]
fn a_missing_part_is_named() {
    for part in PARTS {
        let bench = copied();
        fs::remove_file(bench.path("model").join(part)).unwrap();
        bench.fails("hooks model", &[&format!("model/{part}"), "os error 2"]);
    }
}

#[test]
fn a_damaged_configuration_is_named() {
    let bench = copied();
    bench.ok("hooks model");
    let good = fs::read_to_string(bench.path("model/config.json")).unwrap();
    for (from, to, words) in [
        ("{", "[", &["config.json"][..]),
        (
            "\"llama\"",
            "\"mamba\"",
            &["config.json", "mamba", "attn_only, bert, llama"],
        ),
        ("hidden_size", "hidden", &["config.json", "hidden_size"]),
        (
            "\"silu\"",
            "\"gelu\"",
            &["config.json", "hidden_act", "gelu"],
        ),
        (
            "\"num_key_value_heads\": 2",
            "\"num_key_value_heads\": 3",
            &["num_key_value_heads"],
        ),
        (
            "\"num_attention_heads\": 4",
            "\"num_attention_heads\": 0",
            &["0 heads"],
        ),
        (
            "\"hidden_size\": 128",
            "\"hidden_size\": 64",
            &[
                "model.safetensors",
                "embed_tokens",
                "[1024, 128]",
                "[1024, 64]",
            ],
        ),
        (
            "\"num_hidden_layers\": 4",
            "\"num_hidden_layers\": 5",
            &["model.layers.4", "missing"],
        ),
        (
            "\"rope_scaling\": null",
            "\"rope_scaling\": {\"factor\": 2}",
            &["rope_scaling"],
        ),
    ] {
        assert!(good.contains(from), "{from}");
        bench.write("model/config.json", good.replacen(from, to, 1));
        bench.fails("hooks model", words);
    }
    bench.write("model/config.json", &good);
    bench.write("model/tokenizer.json", "{}");
    bench.fails("hooks model", &["tokenizer.json"]);
}

#[test]
fn damaged_weights_are_named() {
    let bench = copied();
    let path = "model/model.safetensors";
    let good = fs::read(bench.path(path)).unwrap();
    for keep in [0, 5, 8, 1000, good.len() / 2, good.len() - 1] {
        bench.write(path, &good[..keep]);
        bench.fails("hooks model", &[path]);
    }
    bench.write(path, [&good[..], b"more"].concat());
    bench.fails("hooks model", &[path, "overwritten"]);
    bench.write(path, [&[0xff; 8], &good[8..]].concat());
    bench.fails("hooks model", &[path, "no safetensors"]);
    let header = u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    bench.write(
        path,
        [&good[..8], &vec![b'x'; header][..], &good[8 + header..]].concat(),
    );
    bench.fails("hooks model", &[path]);
}

/// A header whose offsets lie is refused before anything is allocated.
#[test]
fn lying_offsets_are_named() {
    let bench = copied();
    let path = "model/model.safetensors";
    let good = fs::read(bench.path(path)).unwrap();
    let length = u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    let header = std::str::from_utf8(&good[8..8 + length]).unwrap();
    let of = |name: &str| {
        let json: serde_json::Value = serde_json::from_str(header).unwrap();
        json[name]["data_offsets"].clone()
    };
    let name = "model.layers.1.mlp.up_proj.weight";
    let [from, to] = [0, 1].map(|i| of(name)[i].as_u64().unwrap());
    for (a, b) in [
        (from, to - 2),
        (from + 2, to),
        (to, from),
        (from, u64::MAX / 2),
    ] {
        let lie = header.replacen(&format!("[{from},{to}]"), &format!("[{a},{b}]"), 1);
        assert_ne!(lie, header);
        let head = (lie.len() as u64).to_le_bytes();
        bench.write(path, [&head, lie.as_bytes(), &good[8 + length..]].concat());
        bench.fails("hooks model", &[path]);
    }
}
