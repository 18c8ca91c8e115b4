//! Runs that die, and disks that fill up, between any two file operations.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};

use super::disk::{Disk, Gate, Step};
use super::*;
use crate::capture::text::TextMark;

const CONTEXTS: u64 = 11;

fn settings() -> Settings {
    Settings {
        model: ModelId {
            id: "toy".into(),
            family: "llama".into(),
            sha256: "aa".into(),
        },
        tokenizer_sha256: "bb".into(),
        text: "toy.txt".into(),
        positions: Positions::All,
        context: 3,
        batch: 2,
        contexts_per_shard: 4,
        max_tokens: Some(33),
        device: "cpu".into(),
        dtype: Dtype::F16,
        hooks: vec![HookSpec::new("a", [2]), HookSpec::new("b", [2, 3])],
    }
}

fn block(contexts: std::ops::Range<u64>) -> RowBlock {
    let rows = contexts.clone().flat_map(|c| (0..3).map(move |p| (c, p)));
    let meta: Vec<_> = rows
        .map(|(context, position)| RowMeta {
            token_id: (context * 7) as u32 + position,
            position,
            context,
            offset_start: context * 30 + u64::from(position),
            offset_end: context * 30 + u64::from(position) + 1,
        })
        .collect();
    let values = |width: usize| {
        let row = move |token| (0..width).map(move |j| (token as usize * 10 + j) as f32);
        meta.iter()
            .map(|m| m.token_id)
            .flat_map(row)
            .collect::<Vec<_>>()
    };
    let hooks = vec![values(2), values(6)];
    RowBlock {
        contexts: (contexts.end - contexts.start) as usize,
        hooks,
        meta,
    }
}

fn mark(contexts: u64) -> TextMark {
    let sha256 = format!("{:x}", Sha256::digest(contexts.to_le_bytes()));
    TextMark {
        bytes: contexts * 30,
        sha256,
    }
}

/// What a caller does: resume, skip what is done, push the rest.
fn run(dir: &Path, gate: Option<Gate>) -> Result<Store, Error> {
    let (mut writer, mut next) = Writer::resume_on(Disk { gate }, dir, &settings())?;
    while next < CONTEXTS && !writer.is_complete() {
        let end = (next + 2).min(CONTEXTS);
        writer.mark_text(mark(end));
        writer.push(&block(next..end))?;
        next = end;
    }
    writer.finish()
}

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let Ok(entries) = fs::read_dir(dir) else {
        return BTreeMap::new();
    };
    let read = |path: std::path::PathBuf| {
        (
            path.file_name().unwrap().to_string_lossy().into_owned(),
            fs::read(path).unwrap(),
        )
    };
    entries.map(|e| read(e.unwrap().path())).collect()
}

/// A gate that lets `steps` operations through and none after: what a killed process does.
fn dies_after(steps: usize) -> Gate {
    let mut left = steps;
    Box::new(move |_, _| {
        left = left
            .checked_sub(1)
            .ok_or_else(|| io::Error::other("killed"))?;
        Ok(())
    })
}

/// A gate that only writes the steps down.
fn recorder() -> (Gate, Arc<Mutex<Vec<Step>>>) {
    let steps = Arc::new(Mutex::new(Vec::new()));
    let log = steps.clone();
    (
        Box::new(move |step, _| {
            log.lock().unwrap().push(step);
            Ok(())
        }),
        steps,
    )
}

/// The files of an uninterrupted run and the steps it took.
fn uninterrupted() -> (BTreeMap<String, Vec<u8>>, Vec<Step>) {
    let dir = tempfile::tempdir().unwrap();
    let (gate, steps) = recorder();
    run(&dir.path().join("s"), Some(gate)).unwrap();
    let steps = steps.lock().unwrap().clone();
    (files(&dir.path().join("s")), steps)
}

#[test]
fn a_run_takes_the_steps_it_should() {
    let (files, steps) = uninterrupted();
    let count = |step| steps.iter().filter(|&&s| s == step).count();
    // Three shards, and the manifest at the beginning, after two shards and at the end.
    assert_eq!(files.len(), 4);
    assert_eq!(count(Step::MakeDir), 1);
    assert_eq!(
        [Step::Create, Step::Sync, Step::Rename, Step::SyncDir].map(count),
        [7; 4]
    );
    assert_eq!(count(Step::Write), 4 + 3 * (1 + 5 + 2));
}

#[test]
fn a_run_killed_anywhere_resumes_to_the_same_bytes() {
    let (expected, steps) = uninterrupted();
    for (kill, step) in steps.iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("s");
        let error = run(&dir, Some(dies_after(kill))).unwrap_err();
        assert!(error.to_string().contains("killed"), "{kill}: {error}");
        if dir.join("manifest.json").exists() {
            Store::open(&dir).unwrap().verify().unwrap();
        }
        run(&dir, None).unwrap().verify().unwrap();
        assert!(
            files(&dir) == expected,
            "killed before step {kill}: {step:?}"
        );
    }
}

#[test]
fn a_run_killed_again_while_resuming_resumes_to_the_same_bytes() {
    let (expected, steps) = uninterrupted();
    for first in (0..steps.len()).step_by(7) {
        for second in [0, 1, 2, 4, 7, 11] {
            let dir = tempfile::tempdir().unwrap();
            let dir = dir.path().join("s");
            run(&dir, Some(dies_after(first))).unwrap_err();
            let again = run(&dir, Some(dies_after(second)));
            assert!(again.is_err() || first + second + 2 > steps.len());
            run(&dir, None).unwrap();
            assert!(
                files(&dir) == expected,
                "killed before steps {first} and {second}"
            );
        }
    }
}

/// The fault planted in the kill tests: a resume that skips wrongly must not pass them.
#[test]
fn a_wrong_resume_is_noticed() {
    let (expected, steps) = uninterrupted();
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), Some(dies_after(steps.len() / 2))).unwrap_err();
    let (mut writer, done) = Store::resume(dir.path(), &settings()).unwrap();
    assert!(done > 0 && done < CONTEXTS);
    let mut wrong = block(0..2);
    for (i, meta) in wrong.meta.iter_mut().enumerate() {
        meta.context = done + i as u64 / 3;
    }
    writer.push(&wrong).unwrap();
    writer.finish().unwrap();
    assert!(files(dir.path()) != expected);
}

#[test]
fn resuming_a_complete_store_changes_nothing() {
    let (expected, _) = uninterrupted();
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), None).unwrap();
    let (gate, steps) = recorder();
    assert_eq!(run(dir.path(), Some(gate)).unwrap().rows(), 33);
    assert_eq!(*steps.lock().unwrap(), []);
    assert!(files(dir.path()) == expected);
}

#[test]
fn leftovers_are_dropped_and_foreign_files_kept() {
    let (mut expected, steps) = uninterrupted();
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), Some(dies_after(steps.len() / 2))).unwrap_err();
    for leftover in [
        "shard-000007.safetensors",
        "shard-000001.safetensors.tmp",
        "manifest.json.tmp",
    ] {
        fs::write(dir.path().join(leftover), "half").unwrap();
    }
    for kept in ["notes.txt", "shard-1.safetensors", "my.tmp"] {
        fs::write(dir.path().join(kept), "mine").unwrap();
        expected.insert(kept.to_owned(), b"mine".to_vec());
    }
    run(dir.path(), None).unwrap();
    assert_eq!(
        files(dir.path()).keys().collect::<Vec<_>>(),
        expected.keys().collect::<Vec<_>>()
    );
    assert!(files(dir.path()) == expected);
}

#[test]
fn a_full_disk_names_the_file_and_leaves_a_valid_store() {
    let (expected, steps) = uninterrupted();
    let kinds = [
        io::ErrorKind::StorageFull,
        io::ErrorKind::QuotaExceeded,
        io::ErrorKind::FileTooLarge,
    ];
    let writes = steps.iter().filter(|&&s| s == Step::Write).count();
    for full_at in 0..writes {
        let dir = tempfile::tempdir().unwrap();
        let mut seen = 0;
        let kind = kinds[full_at % kinds.len()];
        let gate: Gate = Box::new(move |step, _| {
            seen += usize::from(step == Step::Write);
            if step == Step::Write && seen > full_at {
                Err(kind.into())
            } else {
                Ok(())
            }
        });
        let error = run(dir.path(), Some(gate)).unwrap_err();
        let Error::Full { path, .. } = &error else {
            panic!("{error}")
        };
        assert!(
            error.to_string().contains(&path.display().to_string()),
            "{error}"
        );
        let left = files(dir.path());
        assert!(
            left.keys().all(|name| !name.ends_with(".tmp")),
            "{:?}",
            left.keys()
        );
        if full_at > 0 {
            Store::open(dir.path()).unwrap().verify().unwrap();
        }
        run(dir.path(), None).unwrap();
        assert!(files(dir.path()) == expected, "full at write {full_at}");
    }
}

#[test]
fn two_writers_do_not_share_a_directory() {
    if !cfg!(unix) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let writer = Store::create(dir.path(), settings()).unwrap();
    let second = Store::resume(dir.path(), &settings()).err().unwrap();
    assert!(matches!(second, Error::InUse { .. }), "{second}");
    drop(writer);
    Store::resume(dir.path(), &settings()).unwrap();
}
