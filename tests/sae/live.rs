//! A model that runs instead of a store: the same rows, in one pass for all hooks, trained on to the same
//! bytes.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use inscape::capture::store::{ShuffledBatches, Store};
use inscape::capture::{CaptureConfig, Live, capture, paired_rows};
use inscape::hook::{HookPoint, Tap};
use inscape::model::load::Weights;
use inscape::model::{self, Model, Network, Output, Param, Tokens};
use inscape::sae::session::{self, Job, SessionOptions};
use inscape::sae::{Error, Needs, TrainConfig, format};

use super::*;

const A: &str = "blocks.1.hook_resid_post";
const B: &str = "blocks.2.attn.hook_z";
const CONTEXT: usize = 24;
const PASS: usize = 3;

fn examples(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples/data")
        .join(name)
}

fn text(bytes: usize) -> String {
    let text = fs::read_to_string(examples("sample.txt")).unwrap();
    text[..text.floor_char_boundary(bytes)].into()
}

/// A text whose last context is short.
fn uneven(content: usize) -> String {
    let tokenizer = tiny().tokenizer;
    let tokens = |text: &String| tokenizer.encode(text).unwrap().len();
    let mut texts = (3000..).map(text);
    texts
        .find(|text| !tokens(text).is_multiple_of(content))
        .unwrap()
}

fn tiny() -> Network {
    model::load("tiny-lm-1", &Device::cpu()).unwrap()
}

/// The same with a special token before every context and two after.
fn with_special_tokens() -> Network {
    let read = |name: &str| fs::read(examples("tiny-lm-1").join(name)).unwrap();
    let mut tokenizer: serde_json::Value = serde_json::from_slice(&read("tokenizer.json")).unwrap();
    let special = |id: &str| serde_json::json!({"SpecialToken": {"id": id, "type_id": 0}});
    let text = serde_json::json!({"Sequence": {"id": "A", "type_id": 0}});
    let ids = |id: &str, n: u32| serde_json::json!({"id": id, "ids": [n], "tokens": [id]});
    let around = [special("!"), text, special("#"), special("#")];
    tokenizer["post_processor"] = serde_json::json!({
        "type": "TemplateProcessing", "single": around, "pair": around,
        "special_tokens": {"!": ids("!", 0), "#": ids("#", 2)},
    });
    let tokenizer = serde_json::to_vec(&tokenizer).unwrap();
    let weights = Weights::from_dir(&examples("tiny-lm-1")).unwrap();
    let config = read("config.json");
    Network::from_parts("special", &config, &tokenizer, weights, &Device::cpu()).unwrap()
}

fn live_of(network: Network, text: &str, hooks: &[&str]) -> Live {
    let hooks: Vec<String> = hooks.iter().map(|h| h.to_string()).collect();
    let network = Arc::new(network);
    Live::new(
        network,
        text.as_bytes(),
        "text",
        &hooks,
        CONTEXT,
        PASS,
        None,
    )
    .unwrap()
}

fn store_of(network: &Network, text: &str, dir: &Path) -> Arc<Store> {
    let config = CaptureConfig {
        batch: PASS,
        context: CONTEXT,
        ..CaptureConfig::new([A, B])
    };
    let store = capture(
        network,
        text.as_bytes(),
        "text",
        dir,
        &config,
        false,
        "cpu",
        |_| {},
    );
    Arc::new(store.unwrap())
}

fn all_rows(source: &Source) -> Vec<f32> {
    let mut rows = Vec::new();
    source.read_rows(0..source.rows(), &mut rows).unwrap();
    rows
}

fn close(got: &[f32], want: &[f32]) -> bool {
    let largest = want.iter().fold(1f32, |m, x| m.max(x.abs()));
    got.len() == want.len()
        && got
            .iter()
            .zip(want)
            .all(|(a, b)| (a - b).abs() <= 1e-6 * largest)
}

/// A model that counts its passes and their contexts.
#[derive(Debug)]
struct Counting {
    inner: Box<dyn Model>,
    counts: Arc<[AtomicUsize; 2]>,
}

impl Model for Counting {
    fn hook_points(&self) -> Vec<HookPoint> {
        self.inner.hook_points()
    }

    fn forward(&self, tokens: &Tokens, tap: &mut Tap<'_>) -> Output {
        self.counts[0].fetch_add(1, Ordering::Relaxed);
        self.counts[1].fetch_add(tokens.dims()[0], Ordering::Relaxed);
        self.inner.forward(tokens, tap)
    }

    fn max_context(&self) -> usize {
        self.inner.max_context()
    }

    fn vocab_size(&self) -> usize {
        self.inner.vocab_size()
    }

    fn params(&mut self) -> Vec<(String, Param<'_>)> {
        self.inner.params()
    }
}

/// Passes and contexts since they were last taken.
struct Counts(Arc<[AtomicUsize; 2]>);

impl Counts {
    fn of(network: Network) -> (Network, Self) {
        let counts: Arc<[AtomicUsize; 2]> = Arc::default();
        let (inner, count) = (network.model, counts.clone());
        let model = Box::new(Counting { inner, counts });
        (Network { model, ..network }, Self(count))
    }

    fn take(&self) -> [usize; 2] {
        [0, 1].map(|i| self.0[i].swap(0, Ordering::Relaxed))
    }
}

#[test]
fn rows_are_those_of_a_store() {
    for (network, content) in [(tiny(), CONTEXT), (with_special_tokens(), CONTEXT - 3)] {
        let dir = tempfile::tempdir().unwrap();
        let text = uneven(content);
        let store = store_of(&network, &text, dir.path());
        let live = live_of(network, &text, &[A, B]);
        assert_eq!(live.content(), content);
        assert_eq!(live.contexts(), store.rows() / content);
        assert!(!store.rows().is_multiple_of(content));
        for hook in [A, B] {
            let (ours, theirs) = (
                live.source(hook).unwrap(),
                Source::hook(&store, hook).unwrap(),
            );
            let theirs = theirs.sub(0..ours.rows()).unwrap();
            // The same contexts in a pass: the same bits.
            let want = all_rows(&theirs);
            assert!(all_rows(&ours) == want, "{hook}");
            // Any rows, from the middle of contexts.
            let (n, width) = (ours.rows(), ours.width());
            let mut draws = Draws::new(3);
            for _ in 0..20 {
                let start = draws.below(n);
                let range = start..start + 1 + draws.below((n - start).min(90));
                let part = ours.sub(draws.below(start + 1)..n).unwrap();
                let before = n - part.rows();
                let mut got = vec![7.0];
                part.read_rows(range.start - before..range.end - before, &mut got)
                    .unwrap();
                let want = &want[range.start * width..range.end * width];
                assert!(got[0] == 7.0 && close(&got[1..], want), "{hook} {range:?}");
            }
            paired_rows(&[ours, theirs], 9, 0).unwrap(); // the same token ids
        }
        let tokens = live.tokens([4, 0]);
        let ids = store.token_ids(4 * content..5 * content).unwrap();
        let (prefix, suffix) = live.network().tokenizer.special();
        assert_eq!(tokens.rows()[0], [prefix, &ids, suffix].concat());
    }
}

/// One epoch of both hooks in step, as training reads them; each its own [`Live`] or one for both.
fn epoch(lives: [&Live; 2], from: usize) -> Vec<[Vec<f32>; 2]> {
    let mut feeds = [(lives[0], A), (lives[1], B)].map(|(live, hook)| {
        let source = live.source(hook).unwrap();
        let source = source.sub(from..source.rows()).unwrap();
        ShuffledBatches::new(source, 5, 200, 64).unwrap()
    });
    let mut all = Vec::new();
    while feeds[0].position().0 == 0 {
        all.push([0, 1].map(|i| {
            let mut batch = Vec::new();
            feeds[i].next_batch(&mut batch).unwrap();
            batch
        }));
    }
    all
}

#[test]
fn one_pass_serves_all_hooks_and_no_context_is_run_for_a_part() {
    let text = text(6000);
    let (network, counts) = Counts::of(tiny());
    let both = live_of(network, &text, &[A, B]);
    let count = |lives, from| {
        let served = epoch(lives, from);
        (served, counts.take())
    };
    // A batch may reach over the end of the epoch and load the next one's first buffer: 8 contexts.
    let contexts = both.contexts();
    let once = |contexts: usize, run: usize| contexts <= run && run <= contexts + 8;
    let (served, [passes, run]) = count([&both, &both], 0);
    assert!(once(contexts, run), "{run} contexts for {contexts}");
    // Buffers of 8 contexts, in passes of 3.
    let least = 3 * contexts.div_ceil(8) - 2;
    assert!((least..=least + 5).contains(&passes), "{passes} passes");
    // Rows from the middle of a context on: still each context once.
    let (_, [_, run]) = count([&both, &both], 3 * CONTEXT + 7);
    assert!(once(contexts - 3, run), "{run} contexts");
    // A model for each hook is the fault that this sees; the rows are the same.
    let alone = [A, B].map(|hook| {
        let network = Counts::of(tiny());
        (live_of(network.0, &text, &[hook]), network.1)
    });
    let apart = epoch([&alone[0].0, &alone[1].0], 0);
    assert!(apart == served);
    let twice: usize = alone.iter().map(|(_, counts)| counts.take()[1]).sum();
    assert!(!once(contexts, twice), "{twice}");
}

#[test]
fn every_row_comes_once_per_epoch_and_seeking_equals_running() {
    let live = live_of(tiny(), &text(2500), &[A]);
    let source = live.source(A).unwrap();
    let source = source.sub(7..source.rows() - 5).unwrap();
    let (rows, n, width) = (all_rows(&source), source.rows(), source.width());
    let mut batches = ShuffledBatches::new(source.clone(), 1, 150, 16).unwrap();
    let steps = 3 * n / 16;
    let mut all: Vec<Vec<f32>> = Vec::new();
    for _ in 0..steps {
        let mut batch = Vec::new();
        batches.next_batch(&mut batch).unwrap();
        all.push(batch);
    }
    let served = all.concat();
    let distance = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum();
    for epoch in served.chunks_exact(n * width) {
        let mut left: Vec<usize> = (0..n).collect();
        for row in epoch.chunks(width) {
            let from = |&i: &usize| -> f32 { distance(row, &rows[i * width..][..width]) };
            let nearest =
                (0..left.len()).min_by(|&a, &b| from(&left[a]).total_cmp(&from(&left[b])));
            let nearest = nearest.unwrap();
            assert!(
                from(&left[nearest]) < 1e-4,
                "a row that is not there, or comes twice"
            );
            left.swap_remove(nearest);
        }
        assert!(left.is_empty());
    }
    for step in [0, 1, 8, 9, 10, steps / 2, steps - 1] {
        let mut again = ShuffledBatches::new(source.clone(), 1, 150, 16).unwrap();
        again.seek(step as u64);
        let mut batch = Vec::new();
        again.next_batch(&mut batch).unwrap();
        assert!(batch == all[step], "step {step}");
    }
}

fn job(live: &Live, hook: &str, target: Option<&str>, out: &Path) -> Job {
    let all = |hook| {
        let source = live.source(hook).unwrap();
        let rows = source.rows();
        source.sub(0..rows * 9 / 10).unwrap()
    };
    let source = all(hook);
    let config = TrainConfig {
        batch: 64,
        dead_after: 640,
        ..TrainConfig::new(source.width(), 64, 4, 64 * 60)
    };
    Job {
        target: target.map(all),
        source,
        config,
        out: out.into(),
    }
}

fn options(resume: bool) -> SessionOptions {
    SessionOptions {
        resume,
        checkpoint_every: 7,
        log_every: 1,
        buffer_rows: 500,
        ..SessionOptions::new("unused")
    }
}

/// Trains on both hooks and on what the second makes of the first.
fn train(dir: &Path, text: &str, network: Network, stop: Option<u64>) -> Result<Vec<Sae>, Error> {
    let live = live_of(network, text, &[A, B]);
    let mut jobs = vec![
        job(&live, A, None, &dir.join("a")),
        job(&live, B, None, &dir.join("b")),
        job(&live, A, Some(B), &dir.join("ab")),
    ];
    jobs[2].config.conventions.subtract_b_dec = false;
    session::train_all(&jobs, 0, &options(true), &Device::cpu(), |_, line| {
        assert!(Some(line.stats.step) != stop, "stopped");
    })
    .map(|all| all.into_iter().filter_map(session::Trained::sae).collect())
}

fn weights(dir: &Path) -> [Vec<u8>; 3] {
    ["a", "b", "ab"].map(|job| {
        let dir = dir.join(job);
        [
            fs::read(dir.join(format::WEIGHTS)),
            fs::read(dir.join(format::CONFIG)),
        ]
        .map(Result::unwrap)
        .concat()
    })
}

#[test]
fn training_ends_in_the_same_bytes_again_killed_or_alone() {
    let dir = tempfile::tempdir().unwrap();
    let [whole, again, part, alone] =
        ["whole", "again", "part", "alone"].map(|n| dir.path().join(n));
    let text = text(6000);
    let saes = train(&whole, &text, tiny(), None).unwrap();
    assert!(saes.iter().all(|sae| sae.d_sae() == 64));
    train(&again, &text, tiny(), None).unwrap();
    assert!(weights(&again) == weights(&whole));
    for stop in [3, 14, 30, 31] {
        let stopped = || train(&part, &text, tiny(), Some(stop));
        assert!(
            catch_unwind(AssertUnwindSafe(stopped)).is_err(),
            "step {stop} never came"
        );
    }
    train(&part, &text, tiny(), None).unwrap();
    assert!(weights(&part) == weights(&whole));
    // A hook's rows do not depend on the other hooks of the pass.
    let live = live_of(tiny(), &text, &[B]);
    let jobs = [job(&live, B, None, &alone)];
    session::train_all(&jobs, 0, &options(false), &Device::cpu(), |_, _| {}).unwrap();
    let weights = |dir: &Path| fs::read(dir.join(format::WEIGHTS)).unwrap();
    assert!(weights(&alone) == weights(&whole.join("b")));
    // Files say where it belongs.
    let (_, metadata) = format::load(&whole.join("ab"), Device::cpu().tensor()).unwrap();
    assert_eq!(metadata["model_name"], "tiny-lm-1");
    assert_eq!(metadata["context_size"], CONTEXT);
    assert_eq!(
        (&metadata["hook_name"], &metadata["hook_name_out"]),
        (&A.into(), &B.into())
    );
}

#[test]
fn a_session_runs_the_model_once_for_all_it_trains() {
    let text = text(6000);
    let (network, counts) = Counts::of(tiny());
    let dir = tempfile::tempdir().unwrap();
    let live = live_of(network, &text, &[A, B]);
    let jobs = [
        job(&live, A, None, &dir.path().join("a")),
        job(&live, B, None, &dir.path().join("b")),
        job(&live, A, Some(B), &dir.path().join("ab")),
    ];
    let mut jobs = jobs.to_vec();
    jobs[2].config.conventions.subtract_b_dec = false;
    session::train_all(&jobs, 0, &options(false), &Device::cpu(), |_, _| {}).unwrap();
    let [_, run] = counts.take();
    let rows = jobs[0].source.rows();
    let contexts = rows.div_ceil(CONTEXT);
    // What a run starts from, the epochs that 60 batches take, and at most one buffer more than those.
    let epochs = (64 * 60) as f64 / rows as f64;
    let most = contexts as f64 * (1.0 + epochs) + (500 / CONTEXT) as f64;
    println!("{run} contexts run, {epochs:.2} epochs of {contexts}");
    assert!(
        run as f64 <= most && run as f64 >= contexts as f64 * epochs,
        "{run} of {most}"
    );
}

#[test]
fn another_text_or_model_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let text = text(4000);
    let stopped = || train(dir.path(), &text, tiny(), Some(9));
    assert!(catch_unwind(AssertUnwindSafe(stopped)).is_err());
    let changed = text.replace(" the ", " teh ");
    assert!(changed != text && changed.len() == text.len());
    let error = train(dir.path(), &changed, tiny(), None).unwrap_err();
    says(error, &["holds another run", "live.read.sha256"]);
    let other = model::load("tiny-lm-2", &Device::cpu()).unwrap();
    let error = train(dir.path(), &text, other, None).unwrap_err();
    says(
        error,
        &["holds another run", "live.model", "tiny-lm-1", "tiny-lm-2"],
    );
    train(dir.path(), &text, tiny(), None).unwrap();
}

/// A network that has NaN in the embedding of one token, and so in all of its context further on.
fn poisoned(id: u32) -> Network {
    let mut network = tiny();
    for (name, param) in network.model.params() {
        if let (true, Param::R2(w)) = (name.contains("embed_tokens"), param) {
            let row = id as usize;
            *w = w.clone().slice_fill([row..row + 1, 0..1], f32::NAN);
        }
    }
    network
}

#[test]
fn what_goes_wrong_is_named() {
    let text = text(3000);
    let live = live_of(tiny(), &text, &[A, B]);
    // The first token that comes nowhere before, in the third context or later.
    let tokens = live.tokens(0..live.contexts());
    let ids = tokens.rows().concat();
    let new = |&i: &usize| !i.is_multiple_of(CONTEXT) && !ids[..i].contains(&ids[i]);
    let at = (2 * CONTEXT..ids.len()).find(new).unwrap();
    let broken = live_of(poisoned(ids[at]), &text, &["hook_embed", B]);
    let place = format!("context {}, position {}", at / CONTEXT, at % CONTEXT);
    let source = broken.source(B).unwrap();
    let mut rows = vec![1.0];
    source
        .read_rows(0..at / CONTEXT * CONTEXT, &mut rows)
        .unwrap();
    let before = rows.len();
    let error = source.read_rows(0..source.rows(), &mut rows).unwrap_err();
    says(&error, &["`hook_embed` is not finite", &place]);
    assert_eq!(rows.len(), before, "{error}");
    let dir = tempfile::tempdir().unwrap();
    let broken = live_of(poisoned(ids[at]), &text, &[A]);
    let place = format!(
        "`{A}` is not finite in context {}, position 0",
        at / CONTEXT
    );
    let jobs = [job(&broken, A, None, dir.path())];
    let error = session::train_all(&jobs, 0, &options(false), &Device::cpu(), |_, _| {});
    says(error.unwrap_err(), &[&place]);
    says(
        live.source("blocks.3.hook_resid_post").unwrap_err(),
        &["blocks.3.hook_resid_post"],
    );
    let error = |text: &str, hook: &str, context| {
        let hooks = [hook.to_string()];
        let live = Live::new(
            Arc::new(tiny()),
            text.as_bytes(),
            "t",
            &hooks,
            context,
            4,
            None,
        );
        live.unwrap_err()
    };
    says(error("", A, 16), &["t: the text is empty"]);
    says(error("x", "blocks.9.hook_resid_post", 16), &["blocks.9"]);
    says(
        error("x", "blocks.1.attn.hook_pattern", 16),
        &["hook_pattern", "no row"],
    );
    says(error("x", A, 129), &["context of 129", "up to 128"]);
}

#[test]
fn what_a_session_needs_holds_the_rows_of_the_other_hooks() {
    let live = live_of(tiny(), &text(4000), &[A, B, "blocks.0.mlp.hook_post"]);
    let rows = |hook| live.source(hook).unwrap();
    let alike = Source::memory("alike", all_rows(&rows(A)), rows(A).width());
    let mut jobs = [0, 1].map(|_| job(&live, A, None, Path::new("x")));
    jobs[1].source = alike;
    let needs = [&jobs[0], &jobs[1]].map(|job| Needs::of(&[job], &options(false)));
    let widths = 128 + 128 + 344;
    let pass = 4 * PASS * CONTEXT * widths;
    assert_eq!((needs[0].device - needs[1].device) as usize, pass);
    let kept = 4 * 500 * (widths - 128);
    assert_eq!((needs[0].host - needs[1].host) as usize, pass + kept);
}
