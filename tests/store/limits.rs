//! A real process that is killed, and one that may not write any more. Unix only.
#![cfg(unix)]

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::*;

const CONTEXTS: u64 = 240;
const DIR: &str = "STORE_TEST_DIR";

fn child_settings() -> Settings {
    settings(vec![HookSpec::new("a", [50])])
}

/// Not a test of its own: what the processes below run.
#[test]
#[ignore = "run by the other tests in a process of its own"]
fn child() {
    let Some(dir) = std::env::var_os(DIR) else {
        return; // asked for with all ignored tests
    };
    write_store(dir.as_ref(), &child_settings(), CONTEXTS);
}

/// This program again, running `child` behind a line of shell.
fn child_after(shell: &str, dir: &Path) -> Command {
    let mut command = Command::new("bash");
    command.args([
        "-c",
        &format!("{shell}; exec \"$0\" --ignored --exact limits::child"),
    ]);
    command.arg(std::env::current_exe().unwrap()).env(DIR, dir);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    let name = |p: &Path| p.file_name().unwrap().to_string_lossy().into_owned();
    entries
        .map(|p| (name(&p), std::fs::read(&p).unwrap()))
        .collect()
}

fn expected() -> BTreeMap<String, Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    write_store(dir.path(), &child_settings(), CONTEXTS);
    files(dir.path())
}

#[test]
fn a_killed_process_is_resumed() {
    let expected = expected();
    let mut interrupted = 0;
    for wait in 0..10 {
        let dir = tempfile::tempdir().unwrap();
        let mut child = child_after("true", dir.path()).spawn().unwrap();
        let begun = Instant::now();
        while !dir.path().join("manifest.json").exists() && begun.elapsed().as_secs() < 20 {
            std::thread::sleep(Duration::from_micros(200));
        }
        std::thread::sleep(Duration::from_millis(wait));
        child.kill().unwrap();
        child.wait().unwrap();
        interrupted += u32::from(!Store::open(dir.path()).unwrap().manifest().complete);
        write_store(dir.path(), &child_settings(), CONTEXTS)
            .verify()
            .unwrap();
        assert!(files(dir.path()) == expected, "killed after {} ms", wait);
    }
    assert!(interrupted > 0, "none was killed before its end");
}

#[test]
fn a_file_size_limit_is_named_and_survived() {
    // A shard is 3.3 KiB; the manifest grows past 4 KiB with the shards.
    for (limit, file) in [(2, "shard-000000.safetensors"), (4, "manifest.json")] {
        let dir = tempfile::tempdir().unwrap();
        let shell = format!("trap '' XFSZ; ulimit -f {limit}");
        let output = child_after(&shell, dir.path()).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert!(!output.status.success(), "{text}");
        assert!(text.contains("Full") && text.contains(file), "{text}");
        Store::open(dir.path()).unwrap().verify().unwrap();
        assert!(files(dir.path()).keys().all(|name| !name.ends_with(".tmp")));
        write_store(dir.path(), &child_settings(), CONTEXTS);
        assert!(files(dir.path()) == expected());
    }
}
