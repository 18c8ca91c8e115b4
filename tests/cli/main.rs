//! The binary as its user meets it: real files, exit codes, stdout and stderr.

mod capture;
#[path = "../report/check.rs"]
mod check;
mod compare;
mod devices;
mod features;
mod geometry;
mod matching;
mod models;
mod probe;
mod removal;
mod report;
mod sae;
mod sae_files;
mod sae_sites;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

pub const ROOT: &str = env!("CARGO_MANIFEST_DIR");
pub const HOOK: &str = "blocks.2.hook_resid_post";

/// What a finished process left.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// `inscape`, in an empty directory of its own, on the CPU.
pub struct Bench {
    pub dir: TempDir,
}

impl Default for Bench {
    fn default() -> Self {
        Self::new()
    }
}

impl Bench {
    pub fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// A bench with a store `acts` of the tiny LM's residuals: 1,500 tokens in contexts of 32.
    pub fn with_store() -> Self {
        let bench = Self::new();
        bench.ok(&format!(
            "capture {} --text {} --hooks blocks.*.hook_resid_post --max-tokens 1500 --context 32 --out acts",
            tiny(), sample()
        ));
        bench
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).unwrap();
    }

    /// The command for a line whose words are split at spaces.
    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_inscape"));
        command.args(line.split_whitespace());
        self.settle(command)
    }

    /// The same through bash, after `before`.
    #[cfg(unix)]
    pub fn bash(&self, before: &str, line: &str) -> Command {
        let mut command = Command::new("bash");
        let program = env!("CARGO_BIN_EXE_inscape");
        command.args(["-c", &format!("{before} exec {program} {line}")]);
        self.settle(command)
    }

    fn settle(&self, mut command: Command) -> Command {
        command
            .current_dir(self.dir.path())
            .env("INSCAPE_DEVICE", "cpu")
            .env("XDG_RUNTIME_DIR", self.dir.path()) // Mesa complains on stderr where it is not set
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, line: &str) -> Ran {
        run(self.command(line), "")
    }

    /// Runs to success: results on stdout, nothing of a progress bar anywhere.
    #[track_caller]
    pub fn ok(&self, line: &str) -> String {
        succeeded(self.run(line), line)
    }

    /// The JSON that a command prints with `--json`.
    #[track_caller]
    pub fn json(&self, line: &str) -> serde_json::Value {
        let out = self.ok(&format!("{line} --json"));
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e} in {out}"))
    }

    /// Fails with exit code 1 and one error line on stderr that holds each of `words`.
    #[track_caller]
    pub fn fails(&self, line: &str, words: &[&str]) {
        failed(&self.run(line), 1, words);
    }

    /// Fails with exit code 2, as a command line that cannot be read.
    #[track_caller]
    pub fn usage(&self, line: &str, words: &[&str]) {
        failed(&self.run(line), 2, words);
    }
}

pub fn run(command: Command, stdin: &str) -> Ran {
    let mut command = assert_cmd::Command::from_std(command);
    if !stdin.is_empty() {
        command.write_stdin(stdin);
    }
    let output = command.timeout(Duration::from_secs(60)).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
    Ran {
        code: output.status.code(),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

#[track_caller]
pub fn succeeded(ran: Ran, line: &str) -> String {
    assert_eq!(ran.code, Some(0), "{line}: {ran:#?}");
    for text in [&ran.out, &ran.err] {
        let progress = ['\r', '\u{1b}', '█', '░'];
        assert!(!text.contains(progress), "progress on a pipe: {text:?}");
    }
    ran.out
}

#[track_caller]
pub fn failed(ran: &Ran, code: i32, words: &[&str]) {
    assert_eq!(ran.code, Some(code), "{ran:#?}");
    assert_eq!(ran.out, "", "a failure prints no result");
    let errors = ran.err.lines().filter(|l| l.starts_with("error: ")).count();
    assert!(errors == 1 && !ran.err.contains("panicked"), "{}", ran.err);
    for word in words {
        assert!(
            ran.err.contains(word),
            "{:?} does not say {word:?}",
            ran.err
        );
    }
}

pub fn tiny() -> String {
    format!("{ROOT}/examples/data/tiny-lm-1")
}

pub fn sample() -> String {
    format!("{ROOT}/examples/data/sample.txt")
}

/// A safetensors file with one f32 matrix `x`.
pub fn matrix(path: &Path, rows: usize, width: usize, value: impl Fn(usize, usize) -> f32) {
    use safetensors::{Dtype, tensor::TensorView};
    let cells = (0..rows * width).map(|i| value(i / width, i % width));
    let bytes: Vec<u8> = cells.flat_map(f32::to_le_bytes).collect();
    let view = TensorView::new(Dtype::F32, vec![rows, width], &bytes).unwrap();
    fs::write(path, safetensors::serialize([("x", view)], None).unwrap()).unwrap();
}

/// Scattered values in -1..1 that differ in every cell.
pub fn scattered(row: usize, column: usize) -> f32 {
    let mut h = (row as u32).wrapping_mul(0x9e37_79b9) ^ (column as u32).wrapping_mul(0x85eb_ca6b);
    for factor in [0x2c1b_3c6d, 0x297a_2d39] {
        h = (h ^ (h >> 15)).wrapping_mul(factor);
    }
    (h ^ (h >> 16)) as f32 / 2f32.powi(31) - 1.0
}

/// Names and bytes of the files in a directory.
pub fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut files: Vec<_> = entries
        .map(|e| e.unwrap().path())
        .map(|p| {
            let name = p.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read(p).unwrap())
        })
        .collect();
    files.sort();
    files
}

/// Requires two directories to hold the same files, but for what `ignored` names.
#[track_caller]
pub fn assert_same_files(a: &Path, b: &Path, ignored: &[&str]) {
    let keep = |dir| -> Vec<(String, Vec<u8>)> {
        let kept = files(dir).into_iter();
        kept.filter(|f| !ignored.contains(&f.0.as_str())).collect()
    };
    let (a, b) = (keep(a), keep(b));
    let names = |f: &[(String, Vec<u8>)]| f.iter().map(|f| f.0.clone()).collect::<Vec<_>>();
    assert_eq!(names(&a), names(&b));
    for (x, y) in a.iter().zip(&b) {
        assert!(x.1 == y.1, "{} differs", x.0);
    }
}

/// Starts a command with its output thrown away and kills it after a while, unless it has ended.
pub fn killed_after(mut command: Command, time: Duration) -> bool {
    let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child: Child = quiet.spawn().unwrap();
    std::thread::sleep(time);
    if child.try_wait().unwrap().is_some() {
        return false;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    true
}

/// The checks themselves must be able to fail.
#[test]
fn the_checks_see_planted_faults() {
    let noticed = |f: fn()| assert!(std::panic::catch_unwind(f).is_err());
    fn ran(code: i32, out: &str, err: &str) -> Ran {
        Ran {
            code: Some(code),
            out: out.into(),
            err: err.into(),
        }
    }
    succeeded(ran(0, "{}\n", "device: CPU\n"), "");
    noticed(|| drop(succeeded(ran(1, "", ""), "")));
    noticed(|| drop(succeeded(ran(0, "{}\n", "\u{1b}[2K 10/20"), "")));
    failed(&ran(1, "", "error: no room\n"), 1, &["room"]);
    noticed(|| failed(&ran(0, "", "error: no room\n"), 1, &[]));
    noticed(|| failed(&ran(1, "half a result", "error: no room\n"), 1, &[]));
    noticed(|| failed(&ran(1, "", "no room\n"), 1, &[]));
    noticed(|| failed(&ran(1, "", "error: no room\n"), 1, &["disk"]));
    noticed(|| failed(&ran(101, "", "thread 'main' panicked"), 101, &[]));
    noticed(|| {
        let bench = Bench::new();
        for (dir, text) in [("a", "1"), ("b", "2")] {
            fs::create_dir(bench.path(dir)).unwrap();
            bench.write(&format!("{dir}/f"), text);
        }
        assert_same_files(&bench.path("a"), &bench.path("b"), &[]);
    });
}

/// Help names every command, and each command's help names its options.
#[test]
fn help_and_version_are_results() {
    let bench = Bench::new();
    let help = bench.ok("--help");
    for command in [
        "devices", "hooks", "capture", "sae", "compare", "geometry", "report", "tour",
    ] {
        assert!(help.contains(command), "{help}");
    }
    let help = bench.ok("capture --help");
    for option in [
        "--positions",
        "--max-tokens",
        "--resume",
        "--device",
        "--shard-mb",
    ] {
        assert!(help.contains(option), "{help}");
    }
    let version = bench.ok("--version");
    assert_eq!(
        version.trim(),
        concat!("inscape ", env!("CARGO_PKG_VERSION"))
    );
    let none = bench.run("");
    assert!(none.code == Some(2) && none.out.is_empty() && none.err.contains("Usage"));
    bench.usage("captur", &["captur"]);
}
