//! The driver from text to store: a store holds what the model computed, wherever the run stopped.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use half::f16;
use inscape::Device;
use inscape::capture::store::{Dtype, Positions, RowMeta, Source, Store};
use inscape::capture::{
    CaptureConfig, Error, Progress, batches, capture as run_capture, paired_rows,
};
use inscape::device::{block_on, read};
use inscape::hook::Hooks;
use inscape::model::{self, Network, Tokens};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// One point of every kind that has rows.
const HOOKS: [&str; 5] = [
    "hook_embed",
    "blocks.1.attn.hook_z",
    "blocks.2.hook_resid_post",
    "blocks.3.mlp.hook_post",
    "ln_final.hook_normalized",
];

fn tiny_dir() -> PathBuf {
    Path::new(ROOT).join("examples/data/tiny-lm-1")
}

fn tiny() -> Network {
    model::load(tiny_dir(), &Device::cpu()).unwrap()
}

/// The first `bytes` bytes of the sample, or a few less.
fn sample(bytes: usize) -> String {
    let text = fs::read_to_string(Path::new(ROOT).join("examples/data/sample.txt")).unwrap();
    text[..text.floor_char_boundary(bytes)].into()
}

/// Contexts of 16, three a pass, one pass a shard.
fn config<S: Into<String>>(hooks: impl IntoIterator<Item = S>) -> CaptureConfig {
    CaptureConfig {
        batch: 3,
        context: 16,
        shard_bytes: 1,
        ..CaptureConfig::new(hooks)
    }
}

fn capture(
    network: &Network,
    text: &str,
    dir: &Path,
    config: &CaptureConfig,
    resume: bool,
) -> Result<Store, Error> {
    stopped_after(network, text, dir, config, resume, u64::MAX).expect("nothing stops it")
}

/// A capture that dies after `batches` passes; `None` if it did.
fn stopped_after(
    network: &Network,
    text: &str,
    dir: &Path,
    config: &CaptureConfig,
    resume: bool,
    mut batches: u64,
) -> Option<Result<Store, Error>> {
    let mut seen = |_: Progress| {
        batches -= 1;
        if batches == 0 {
            resume_unwind(Box::new("stopped")); // a panic that prints nothing
        }
    };
    let run = || {
        run_capture(
            network,
            text.as_bytes(),
            "text",
            dir,
            config,
            resume,
            "cpu",
            &mut seen,
        )
    };
    catch_unwind(AssertUnwindSafe(run)).ok()
}

/// Names and bytes of the files in a directory.
fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .map(|p| {
            let name = p.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read(p).unwrap())
        })
        .collect();
    files.sort();
    files
}

#[track_caller]
fn assert_same_files(a: &Path, b: &Path) {
    let (a, b) = (files(a), files(b));
    let names = |f: &[(String, Vec<u8>)]| f.iter().map(|f| f.0.clone()).collect::<Vec<_>>();
    assert_eq!(names(&a), names(&b));
    for (x, y) in a.iter().zip(&b) {
        assert!(x.1 == y.1, "{} differs", x.0);
    }
}

#[track_caller]
fn says(error: impl std::fmt::Display, words: &[&str]) {
    let message = error.to_string();
    for word in words {
        assert!(message.contains(word), "{message:?} does not say {word:?}");
    }
}

/// What a store should hold: rows of one hook and where they come from.
type Rows = (Vec<RowMeta>, Vec<Vec<f32>>);

/// Direct runs over the contexts of a text of one block, and the rows picked by hand.
fn direct(network: &Network, text: &str, hook: &str, config: &CaptureConfig) -> Rows {
    let (prefix, suffix) = network.tokenizer.special();
    let pieces = network.tokenizer.encode(text).unwrap();
    let contexts: Vec<_> = pieces
        .chunks(config.context - prefix.len() - suffix.len())
        .collect();
    let (mut metas, mut rows) = (Vec::new(), Vec::new());
    for (b, batch) in contexts.chunks(config.batch).enumerate() {
        let ids = |c: &&[model::load::Piece]| -> Vec<u32> {
            let inner = c.iter().map(|p| p.id);
            let prefix = prefix.iter().copied();
            prefix.chain(inner).chain(suffix.iter().copied()).collect()
        };
        let tokens = Tokens::new(batch.iter().map(ids).collect());
        let [_, pos] = tokens.dims();
        let run = network.run(&tokens, &Hooks::new().capture(hook)).unwrap();
        let values: Vec<f32> = block_on(read(run[hook].clone().rows())).unwrap();
        let width = values.len() / (batch.len() * pos);
        for (i, context) in batch.iter().enumerate() {
            let row = |p: usize| values[(i * pos + p) * width..][..width].to_vec();
            let meta = |p: usize| RowMeta {
                token_id: context[p - prefix.len()].id,
                position: p as u32,
                context: (b * config.batch + i) as u64,
                offset_start: context[p - prefix.len()].start as u64,
                offset_end: context[p - prefix.len()].end as u64,
            };
            let content: Vec<usize> = (prefix.len()..prefix.len() + context.len()).collect();
            let last = content[content.len() - 1];
            let kept: Vec<usize> = match config.positions {
                Positions::All => content,
                Positions::Last => vec![last],
                Positions::Range { start, end } => content
                    .into_iter()
                    .filter(|p| (start..end).contains(p))
                    .collect(),
                Positions::Mean => {
                    let mean = |w: usize| {
                        let sum: f64 = content.iter().map(|&p| f64::from(row(p)[w])).sum();
                        (sum / content.len() as f64) as f32
                    };
                    rows.push((0..width).map(mean).collect());
                    metas.push(RowMeta {
                        offset_start: meta(prefix.len()).offset_start,
                        ..meta(last)
                    });
                    vec![]
                }
            };
            rows.extend(kept.iter().map(|&p| row(p)));
            metas.extend(kept.iter().map(|&p| meta(p)));
        }
    }
    (metas, rows)
}

fn stored(store: &Store, hook: &str) -> Rows {
    let (all, width) = (0..store.rows(), store.width(hook).unwrap());
    let values = store.read_rows(hook, all.clone()).unwrap();
    let rows = values.chunks(width).map(<[f32]>::to_vec).collect();
    (store.read_meta(all).unwrap(), rows)
}

/// Exact: every value, and every column of where it comes from.
fn same(got: &Rows, want: &Rows) -> Result<(), String> {
    if got.0.len() != want.0.len() {
        return Err(format!("{} rows for {}", got.0.len(), want.0.len()));
    }
    for i in 0..got.0.len() {
        if got.0[i] != want.0[i] {
            return Err(format!("row {i}: {:?} for {:?}", got.0[i], want.0[i]));
        }
        if got.1[i] != want.1[i] {
            return Err(format!("row {i}: other values"));
        }
    }
    Ok(())
}

#[test]
fn rows_are_those_of_a_direct_run() {
    let (network, text) = (tiny(), sample(900));
    for positions in ["all", "last", "mean", "2..5", "0..1", "14..400"] {
        let dir = tempfile::tempdir().unwrap();
        let config = CaptureConfig {
            positions: positions.parse().unwrap(),
            ..config(HOOKS)
        };
        let store = capture(&network, &text, dir.path(), &config, false).unwrap();
        for hook in HOOKS {
            let want = direct(&network, &text, hook, &config);
            assert!(!want.0.is_empty());
            same(&stored(&store, hook), &want)
                .unwrap_or_else(|e| panic!("{positions} {hook}: {e}"));
        }
    }
}

/// The comparison must see a row that is lost, moved, from another place, or off by one bit.
#[test]
fn the_comparison_sees_planted_faults() {
    let (network, text) = (tiny(), sample(300));
    let config = config([HOOKS[2]]);
    let good = direct(&network, &text, HOOKS[2], &config);
    assert_eq!(same(&good, &good), Ok(()));
    let fault = |change: fn(&mut Rows)| {
        let mut bad = good.clone();
        change(&mut bad);
        same(&bad, &good).unwrap_err();
    };
    fault(|r| drop((r.0.pop(), r.1.pop())));
    fault(|r| r.1.swap(3, 4));
    fault(|r| r.0[7].offset_end += 1);
    fault(|r| r.0[7].context += 1);
    fault(|r| r.1[9][5] = f32::from_bits(r.1[9][5].to_bits() ^ 1));
}

#[test]
fn hooks_in_one_pass_equal_each_alone() {
    let (network, text) = (tiny(), sample(700));
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let all = capture(&network, &text, &at("all"), &config(HOOKS), false).unwrap();
    for hook in HOOKS {
        let one = capture(&network, &text, &at(hook), &config([hook]), false).unwrap();
        same(&stored(&one, hook), &stored(&all, hook)).unwrap();
    }
    let globbed = capture(
        &network,
        &text,
        &at("glob"),
        &config(["blocks.*.hook_resid_p*", "hook_embed"]),
        false,
    );
    let globbed = globbed.unwrap();
    let names: Vec<&str> = globbed.hooks().iter().map(|h| h.name.as_str()).collect();
    assert_eq!(names.len(), 9, "{names:?}");
    assert_eq!(names[0], "hook_embed", "in the order of the model");
    same(&stored(&globbed, HOOKS[2]), &stored(&all, HOOKS[2])).unwrap();
}

/// Every token's offsets hold the bytes that the tokenizer says the token stands for, and
/// together they hold the whole text.
fn check_offsets(network: &Network, text: &str, metas: &[RowMeta]) {
    let mut end = 0;
    for (i, m) in metas.iter().enumerate() {
        let range = m.offset_start as usize..m.offset_end as usize;
        assert!(
            range.start <= end && range.end >= end,
            "token {i} is at {range:?} after {end}"
        );
        end = range.end;
        let shown = network.tokenizer.show(m.token_id);
        match std::str::from_utf8(&text.as_bytes()[range.clone()]) {
            Ok(slice) if !shown.contains('\u{fffd}') => {
                assert!(slice == shown, "token {i} {shown:?} is not at {range:?}")
            }
            Ok(slice) => assert!(!slice.is_ascii(), "token {i} {slice:?} is {shown:?}"),
            Err(_) => assert!(shown.contains('\u{fffd}'), "token {i} cuts {range:?}"),
        }
    }
    assert_eq!(end, text.len());
}

#[test]
fn offsets_point_at_the_text() {
    let network = tiny();
    let odd = "naïve café, “quotes”…\n\t語 🐳🐳 e\u{301}\r\n";
    // Beyond the first block, whose end is past 64 KiB.
    let text = [odd, &sample(90_000), odd].concat();
    let dir = tempfile::tempdir().unwrap();
    let config = CaptureConfig {
        batch: 64,
        context: 128,
        ..CaptureConfig::new(["hook_embed"])
    };
    let store = capture(&network, &text, dir.path(), &config, false).unwrap();
    let metas = store.read_meta(0..store.rows()).unwrap();
    assert!(metas.len() > 20_000);
    check_offsets(&network, &text, &metas);
}

#[test]
fn a_short_last_context_is_kept() {
    let (network, text) = (tiny(), sample(400));
    let tokens = network.tokenizer.encode(&text).unwrap();
    let cut = &text[..tokens[16 * 4 + 4].end]; // five tokens more than four contexts
    let dir = tempfile::tempdir().unwrap();
    let hook = HOOKS[2];
    let store = capture(&network, cut, dir.path(), &config([hook]), false).unwrap();
    let (metas, rows) = stored(&store, hook);
    assert_eq!(metas.len(), 16 * 4 + 5);
    assert_eq!((metas[64].context, metas[64].position), (4, 0));
    // Padded in its batch, it gives what it gives alone, to rounding.
    let alone = Tokens::new(vec![tokens[64..69].iter().map(|t| t.id).collect()]);
    let run = network.run(&alone, &Hooks::new().capture(hook)).unwrap();
    let want: Vec<f32> = block_on(read(run[hook].clone().rows())).unwrap();
    let worst = rows[64..]
        .iter()
        .flatten()
        .zip(&want)
        .map(|(a, b)| (a - b).abs());
    assert!(worst.fold(0.0, f32::max) <= 1e-4);
}

#[test]
fn max_tokens_cuts_the_same_contexts_short() {
    let (network, text) = (tiny(), sample(700));
    let dir = tempfile::tempdir().unwrap();
    let whole = capture(
        &network,
        &text,
        &dir.path().join("a"),
        &config(HOOKS),
        false,
    )
    .unwrap();
    for tokens in [1, 16, 40, 48, 100_000] {
        let dir = dir.path().join(tokens.to_string());
        let config = CaptureConfig {
            max_tokens: Some(tokens),
            ..config(HOOKS)
        };
        let cut = capture(&network, &text, &dir, &config, false).unwrap();
        let rows = whole.rows().min(tokens as usize);
        assert_eq!(cut.rows(), rows);
        assert_eq!(
            cut.read_meta(0..rows).unwrap(),
            whole.read_meta(0..rows).unwrap()
        );
        let full = rows / 48 * 48; // whole batches
        let head = |s: &Store| s.read_rows(HOOKS[4], 0..full).unwrap();
        assert_eq!(head(&cut), head(&whole));
    }
}

#[test]
fn f16_rows_are_the_rounded_ones() {
    let (network, text) = (tiny(), sample(500));
    let dir = tempfile::tempdir().unwrap();
    let whole = capture(
        &network,
        &text,
        &dir.path().join("a"),
        &config(HOOKS),
        false,
    )
    .unwrap();
    let half = CaptureConfig {
        dtype: Dtype::F16,
        ..config(HOOKS)
    };
    let half = capture(&network, &text, &dir.path().join("b"), &half, false).unwrap();
    for hook in HOOKS {
        let (mut rows, got) = (stored(&whole, hook), stored(&half, hook));
        rows.1
            .iter_mut()
            .flatten()
            .for_each(|v| *v = f16::from_f32(*v).to_f32());
        same(&got, &rows).unwrap();
    }
}

#[test]
fn a_run_stopped_anywhere_resumes_to_the_same_bytes() {
    let (network, text) = (tiny(), sample(900));
    let dir = tempfile::tempdir().unwrap();
    let config = config(HOOKS);
    let whole = dir.path().join("whole");
    let store = capture(&network, &text, &whole, &config, false).unwrap();
    let shards = store.manifest().shards.len() as u64;
    assert!(shards >= 6, "{shards} shards");
    drop(store);
    for stop in 1..=shards {
        let part = dir.path().join(format!("part-{stop}"));
        let stopped = stopped_after(&network, &text, &part, &config, false, stop);
        assert!(stopped.is_none(), "it was to stop after pass {stop}");
        // Stopped once more on the way, then left to end; a further run finds nothing to do.
        stopped_after(&network, &text, &part, &config, true, 2);
        for _ in 0..2 {
            capture(&network, &text, &part, &config, true).unwrap();
            assert_same_files(&part, &whole);
        }
    }
}

/// The same over several blocks of text, where the place in the text is found again by its mark.
#[test]
fn a_long_text_resumes_to_the_same_bytes() {
    let (network, text) = (tiny(), sample(180_000));
    let dir = tempfile::tempdir().unwrap();
    let config = CaptureConfig {
        positions: Positions::Last,
        batch: 32,
        context: 100,
        shard_bytes: 40_000, // two passes
        ..CaptureConfig::new(["hook_embed"])
    };
    let whole = dir.path().join("whole");
    let store = capture(&network, &text, &whole, &config, false).unwrap();
    assert!(store.manifest().shards.len() >= 5);
    drop(store);
    for stop in [1, 2, 5, 9, 12] {
        let part = dir.path().join(format!("part-{stop}"));
        assert!(stopped_after(&network, &text, &part, &config, false, stop).is_none());
        capture(&network, &text, &part, &config, true).unwrap();
        assert_same_files(&part, &whole);
    }
}

#[test]
fn a_changed_text_is_noticed() {
    let (network, text) = (tiny(), sample(900));
    let dir = tempfile::tempdir().unwrap();
    let config = config(["hook_embed"]);
    assert!(stopped_after(&network, &text, dir.path(), &config, false, 3).is_none());
    let changed = text.replacen('a', "b", 1);
    let cuts = [0, 100, 300, 450, 600, 850].map(|n| &text[..text.floor_char_boundary(n)]);
    for wrong in [&[changed.as_str()], &cuts[..]].concat() {
        let error = capture(&network, wrong, dir.path(), &config, true).unwrap_err();
        says(error, &["text", "not the text that was begun with"]);
    }
    capture(&network, &text, dir.path(), &config, true).unwrap();
}

/// Another setting is named, and nothing is written.
#[test]
fn another_setting_is_refused() {
    let (network, text) = (tiny(), sample(900));
    let dir = tempfile::tempdir().unwrap();
    assert!(
        stopped_after(
            &network,
            &text,
            dir.path(),
            &config(["hook_embed"]),
            false,
            3
        )
        .is_none()
    );
    let before = files(dir.path());
    let wrong = |change: fn(&mut CaptureConfig), words: &[&str]| {
        let mut config = config(["hook_embed"]);
        change(&mut config);
        says(
            capture(&network, &text, dir.path(), &config, true).unwrap_err(),
            words,
        );
        assert!(files(dir.path()) == before);
    };
    wrong(|c| c.context = 17, &["context = 16", "context = 17"]);
    wrong(|c| c.dtype = Dtype::F16, &["dtype"]);
    wrong(|c| c.positions = Positions::Mean, &["positions"]);
    wrong(|c| c.max_tokens = Some(9), &["max_tokens"]);
    wrong(|c| c.hooks = vec![HOOKS[2].into()], &["hooks"]);
    let error = capture(&network, &text, dir.path(), &config(["hook_embed"]), false);
    says(error.unwrap_err(), &["already holds a store", "resume"]);
}

#[test]
fn what_cannot_be_captured_is_named_and_leaves_no_directory() {
    let (network, text) = (tiny(), sample(300));
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let base = || config([HOOKS[2]]);
    let refused = |text: &str, config: CaptureConfig, words: &[&str]| {
        for resume in [false, true] {
            says(
                capture(&network, text, &out, &config, resume).unwrap_err(),
                words,
            );
            assert!(!out.exists(), "{words:?}, resume = {resume}");
        }
    };
    refused("", base(), &["text is empty"]);
    refused(
        &text,
        config(["blocks.2.hook_resid_pots"]),
        &[
            "blocks.2.hook_resid_pots",
            "did you mean `blocks.2.hook_resid_post`",
        ],
    );
    refused(&text, config(["blocks.9.*"]), &["blocks.9.*", "83 points"]);
    refused(&text, config(["blocks.["]), &["blocks.[", "glob"]);
    refused(
        &text,
        config(["blocks.1.attn.hook_pattern"]),
        &["blocks.1.attn.hook_pattern", "[batch, 4, pos, pos]"],
    );
    for context in [0, 129] {
        let config = CaptureConfig { context, ..base() };
        refused(
            &text,
            config,
            &[&format!("context of {context} tokens"), "up to 128"],
        );
    }
    let config = CaptureConfig {
        positions: Positions::Range { start: 16, end: 20 },
        ..base()
    };
    refused(&text, config, &["16..20", "positions 0 to 15"]);
    let mut bytes = text.into_bytes();
    bytes[123] = 0xff;
    let error = run_capture(
        &network,
        &bytes[..],
        "bad.txt",
        &out,
        &base(),
        false,
        "cpu",
        |_| {},
    );
    says(error.unwrap_err(), &["bad.txt", "not UTF-8 at byte 123"]);
    assert!(!out.exists());
}

/// The tiny model with NaN in the embedding of one token.
fn with_nan(token: u32, dir: &Path) -> Network {
    use safetensors::{SafeTensors, tensor::TensorView};
    for name in ["config.json", "tokenizer.json"] {
        fs::copy(tiny_dir().join(name), dir.join(name)).unwrap();
    }
    let bytes = fs::read(tiny_dir().join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: Vec<_> = file
        .tensors()
        .into_iter()
        .map(|(n, t)| (n, t.dtype(), t.shape().to_vec(), t.data().to_vec()))
        .collect();
    let embed = tensors.iter_mut().find(|t| t.0.contains("embed")).unwrap();
    let at = (token as usize * embed.2[1] + 3) * 2;
    embed.3[at..at + 2].copy_from_slice(&f16::NAN.to_le_bytes());
    let views = tensors.iter().map(|(name, dtype, shape, data)| {
        (name, TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    let whole = safetensors::serialize(views, None).unwrap();
    fs::write(dir.join("model.safetensors"), whole).unwrap();
    model::load(dir, &Device::cpu()).unwrap()
}

#[test]
fn a_nan_is_named_with_its_place() {
    let (good, text) = (tiny(), sample(900));
    let dir = tempfile::tempdir().unwrap();
    let ids: Vec<u32> = good
        .tokenizer
        .encode(&text)
        .unwrap()
        .iter()
        .map(|p| p.id)
        .collect();
    let first = |id: u32| ids.iter().position(|i| *i == id).unwrap();
    // A token that comes first in the ninth context, which is in the third pass.
    let at = (8 * 16..9 * 16).find(|&i| first(ids[i]) == i).unwrap();
    let network = with_nan(ids[at], dir.path());
    // Attention weighs the rest of the context with 0, and 0 times NaN is NaN: from the first block
    // on the whole context is lost.
    let place = format!("context 8, position {}", at % 16);
    for (hook, place) in [
        ("hook_embed", place.as_str()),
        ("blocks.2.hook_resid_post", "context 8, position 0"),
    ] {
        let out = dir.path().join(hook);
        let error = capture(&network, &text, &out, &config([hook]), false).unwrap_err();
        says(error, &[hook, "not finite", place]);
        // What came before it stays whole.
        assert_eq!(Store::open(&out).unwrap().manifest().totals.contexts, 6);
    }
}

#[test]
fn batches_are_the_contexts() {
    let (network, text) = (tiny(), sample(900));
    let ids: Vec<u32> = network
        .tokenizer
        .encode(&text)
        .unwrap()
        .iter()
        .map(|p| p.id)
        .collect();
    let all = |text: &str, context, batch, max| {
        batches(&network, text.as_bytes(), "text", context, batch, max)
    };
    let found = all(&text, 16, 3, None).unwrap();
    let rows: Vec<Vec<u32>> = found.iter().flat_map(|t| t.rows().to_vec()).collect();
    let want: Vec<Vec<u32>> = ids.chunks_exact(16).map(<[u32]>::to_vec).collect();
    assert!(
        !ids.len().is_multiple_of(16),
        "the sample has a short last context"
    );
    assert_eq!(rows, want);
    assert!(found[..found.len() - 1].iter().all(|t| t.dims() == [3, 16]));
    let cut = all(&text, 16, 3, Some(40)).unwrap();
    assert_eq!(cut.iter().map(|t| t.rows().len()).sum::<usize>(), 2);
    let short = all(&text, 16, 3, Some(7)).unwrap();
    assert_eq!(short, [Tokens::new(vec![ids[..7].to_vec()])]);
    says(all("", 16, 3, None).unwrap_err(), &["text is empty"]);
    says(all(&text, 129, 3, None).unwrap_err(), &["129", "up to 128"]);
}

#[test]
fn rows_of_other_tokens_do_not_pair_up() {
    let (network, text) = (tiny(), sample(900));
    let dir = tempfile::tempdir().unwrap();
    let config = CaptureConfig {
        max_tokens: Some(100),
        ..config([HOOKS[0], HOOKS[2]])
    };
    let store = |name: &str, text: &str| {
        Arc::new(capture(&network, text, &dir.path().join(name), &config, false).unwrap())
    };
    let (a, b) = (store("a", &text), store("b", &text[200..]));
    let of = |s: &Arc<Store>, hook| Source::hook(s, hook).unwrap();
    let (x, y, z) = (of(&a, HOOKS[0]), of(&a, HOOKS[2]), of(&b, HOOKS[0]));
    let rows = paired_rows(&[x.clone(), y], 1000, 0).unwrap();
    assert_eq!(rows[0], a.read_rows(HOOKS[0], 0..100).unwrap());
    let (p, q) = (a.token_ids(0..100).unwrap(), b.token_ids(0..100).unwrap());
    let row = (0..100).find(|&i| p[i] != q[i]).unwrap();
    let words = [
        "/a:hook_embed",
        "/b:hook_embed",
        &format!(
            "row {row} is token {} there and token {} here",
            p[row], q[row]
        ),
    ];
    says(
        paired_rows(&[x.clone(), z.clone()], 10, 0).unwrap_err(),
        &words,
    );
    // Also behind a source that does not know its tokens.
    let plain = Source::memory("plain", vec![0.0; 100], 1);
    paired_rows(&[plain.clone(), x.clone()], 10, 0).unwrap();
    says(paired_rows(&[plain, x, z], 10, 0).unwrap_err(), &words);
}

/// `inscape capture` of about 20 shards of 1 MiB.
fn command(out: &Path, resume: bool) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_inscape"));
    command
        .args(["capture".as_ref(), tiny_dir().as_os_str()])
        .args(["--text", "examples/data/sample.txt", "--hooks"])
        .args(["hook_embed", "blocks.*.hook_resid_post"])
        .args(["--max-tokens", "6000", "--context", "32", "--batch", "2"])
        .args(["--shard-mb", "1", "--device", "cpu", "--out"])
        .arg(out)
        .args(resume.then_some("--resume"))
        .current_dir(ROOT)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

#[test]
fn a_killed_process_resumes_to_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    let begun = Instant::now();
    assert!(command(&whole, false).status().unwrap().success());
    let took = begun.elapsed();
    let (mut killed, mut seed) = (0, std::process::id());
    for round in 0..8 {
        let part = dir.path().join(format!("part-{round}"));
        loop {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let mut child = command(&part, true).spawn().unwrap();
            std::thread::sleep(took.mul_f64(f64::from(seed >> 16) / 65536.0 * 0.7));
            match child.try_wait().unwrap() {
                Some(status) => {
                    assert!(status.success());
                    break;
                }
                None => {
                    child.kill().unwrap();
                    child.wait().unwrap();
                    killed += 1;
                    if killed % 3 == 0 {
                        assert!(command(&part, true).status().unwrap().success());
                        break;
                    }
                }
            }
        }
        assert_same_files(&part, &whole);
    }
    println!("killed {killed} times; one run takes {took:?}");
    assert!(killed >= 8, "killed {killed} times only");
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[test]
#[ignore = "needs the fetched models"]
fn special_tokens_have_no_rows() {
    let models = std::env::var("INSCAPE_MODELS")
        .or_else(|_| std::env::var("HOME").map(|h| format!("{h}/.cache/inscape/models")));
    let network = model::load(Path::new(&models.unwrap()).join("minilm"), &Device::cpu())
        .unwrap_or_else(|e| panic!("{e}; fetch it with tests/fetch_models.py"));
    let (text, hook) = (sample(700), "blocks.1.hook_resid_post");
    let (prefix, suffix) = network.tokenizer.special();
    assert_eq!((prefix, suffix), (&[101][..], &[102][..]));
    for positions in ["all", "last", "mean", "1..4", "0..2", "14..400"] {
        let dir = tempfile::tempdir().unwrap();
        let config = CaptureConfig {
            positions: positions.parse().unwrap(),
            ..config([hook])
        };
        let store = capture(&network, &text, dir.path(), &config, false).unwrap();
        let got = stored(&store, hook);
        same(&got, &direct(&network, &text, hook, &config))
            .unwrap_or_else(|e| panic!("{positions}: {e}"));
        assert!(got.0.iter().all(|m| m.position >= 1 && m.position <= 14));
        assert!(got.0.iter().all(|m| m.token_id != 101 && m.token_id != 102));
    }
    let dir = tempfile::tempdir().unwrap();
    let refused = |change: fn(&mut CaptureConfig), words: &[&str]| {
        let mut config = config([hook]);
        change(&mut config);
        says(
            capture(&network, &text, dir.path(), &config, false).unwrap_err(),
            words,
        );
    };
    refused(
        |c| c.positions = Positions::Range { start: 0, end: 1 },
        &["0..1", "positions 1 to 14"],
    );
    refused(|c| c.context = 2, &["context of 2", "2 of them special"]);
    refused(|c| c.context = 513, &["context of 513", "up to 512"]);
    let tokens = batches(&network, text.as_bytes(), "text", 16, 4, None).unwrap();
    for row in tokens.iter().flat_map(|t| t.rows()) {
        assert!(row.len() == 16 && row[0] == 101 && row[15] == 102);
    }
    // Offsets hold the word as it stands in the text, whatever its case.
    let dir = tempfile::tempdir().unwrap();
    let store = capture(&network, &text, dir.path(), &config([hook]), false).unwrap();
    for m in store.read_meta(0..store.rows()).unwrap() {
        let slice = &text[m.offset_start as usize..m.offset_end as usize];
        let shown = network.tokenizer.show(m.token_id);
        assert_eq!(slice.to_lowercase(), shown.trim_start(), "{m:?}");
    }
}
