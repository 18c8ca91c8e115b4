//! What a training run leaves in its directory, and whether another may go on there.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Job, SessionOptions, Trained};
use crate::Device;
use crate::capture::LiveInfo;
use crate::capture::store::{Manifest, ModelId, Source, write_whole};
use crate::sae::checkpoint::CHECKPOINT;
use crate::sae::format::{self, malformed};
use crate::sae::{Error, StepStats, TrainConfig};

const RUN: &str = "run.json";
/// Name of the training log, one [`LogLine`] a line.
pub const LOG: &str = "log.jsonl";

/// What a run was made from: `run.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunInfo {
    /// Version of this crate.
    pub inscape: String,
    /// `store:hook` or `file.safetensors:tensor`, as it was opened.
    pub source: String,
    /// What is made of it, where that is something else.
    #[serde(default)]
    pub target: Option<String>,
    /// Rows of the source that were used.
    pub rows: usize,
    /// First of them.
    pub first_row: usize,
    /// Width of a row.
    pub d_in: usize,
    /// Width of a row of what is made of it.
    pub d_out: usize,
    /// The store's manifest, where the source is a store.
    pub store: Option<Manifest>,
    /// Those of the other stores that it reads, where there are such.
    #[serde(default)]
    pub other_stores: Vec<Manifest>,
    /// The model and the text, where the source is a model that runs.
    #[serde(default)]
    pub live: Option<LiveInfo>,
    /// The hook, where the source is a store or a model; several are joined by commas.
    pub hook: Option<String>,
    /// The hook of what is made of it.
    #[serde(default)]
    pub target_hook: Option<String>,
    /// The device.
    pub device: String,
    /// Rows of the shuffle buffer.
    pub buffer_rows: usize,
    /// Seed of the order of the activations: that of the first of those trained together.
    pub order_seed: u64,
    /// The settings.
    pub config: TrainConfig,
}

impl RunInfo {
    /// The model that the activations are of, if it is known.
    pub fn model(&self) -> Option<&ModelId> {
        let live = self.live.as_ref().map(|l| &l.model);
        self.store.as_ref().map(|s| &s.settings.model).or(live)
    }

    /// The name of the text that it read, if it is known.
    pub fn text(&self) -> Option<&str> {
        let live = self.live.as_ref().map(|l| &l.text);
        let text = self.store.as_ref().map(|s| &s.settings.text).or(live);
        text.map(String::as_str)
    }

    /// Tokens in a context of it, if they are known.
    pub fn context(&self) -> Option<usize> {
        let live = self.live.as_ref().map(|l| l.context);
        self.store.as_ref().map(|s| s.settings.context).or(live)
    }
}

/// One line of the log.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    /// What the step did.
    #[serde(flatten)]
    pub stats: StepStats,
    /// Activations seen.
    pub tokens: u64,
    /// Learning rate of the step.
    pub lr: f64,
    /// Activations a second since the session started or resumed.
    pub tokens_per_second: f64,
    /// Seconds of training so far, those before a resume included.
    pub seconds: f64,
}

pub(super) fn describe(
    job: &Job,
    order: u64,
    first_row: usize,
    options: &SessionOptions,
    device: &Device,
) -> RunInfo {
    let (source, target) = (&job.source, job.target.as_ref());
    RunInfo {
        inscape: env!("CARGO_PKG_VERSION").into(),
        source: source.name().into(),
        target: target.map(|t| t.name().into()),
        rows: source.rows(),
        first_row,
        d_in: source.width(),
        d_out: target.unwrap_or(source).width(),
        store: source.store().map(|s| s.manifest().clone()),
        other_stores: other_stores(job),
        live: source.model().map(|live| live.info().clone()),
        hook: hook_of(source),
        target_hook: target.and_then(hook_of),
        device: device.name().into(),
        buffer_rows: options.buffer_rows,
        order_seed: order,
        config: job.config.clone(),
    }
}

/// The manifests of all stores but that of the first source.
fn other_stores(job: &Job) -> Vec<Manifest> {
    let mut seen: Vec<&Path> = job.source.store().map(|s| s.dir()).into_iter().collect();
    let mut found = Vec::new();
    let parts = job.reads().flat_map(Source::parts);
    for store in parts.filter_map(Source::store) {
        if !seen.contains(&store.dir()) {
            seen.push(store.dir());
            found.push(store.manifest().clone());
        }
    }
    found
}

/// The hook; several, side by side, are joined by commas.
fn hook_of(source: &Source) -> Option<String> {
    let hooks = source.parts().iter().map(Source::hook_name);
    let hooks: Option<Vec<&str>> = hooks.collect();
    hooks.map(|hooks| hooks.join(","))
}

/// Makes the directory ready. Returns the autoencoder if the run in it is complete.
pub(super) fn open(
    info: &RunInfo,
    dir: &Path,
    resume: bool,
    device: &Device,
) -> Result<Option<Trained>, Error> {
    let io = |source| Error::Io {
        path: dir.into(),
        source,
    };
    let refuse = |reason: String| {
        Err(Error::Resume {
            path: dir.into(),
            reason,
        })
    };
    let run = dir.join(RUN);
    if !run.exists() {
        if dir.is_dir() && holds_something(dir).map_err(io)? {
            return refuse("is not empty and holds no training run".into());
        }
        fs::create_dir_all(dir).map_err(io)?;
        write_whole(&run, &text(info))?;
        return Ok(None);
    }
    if !resume {
        return refuse("holds a training run already; resume it or name another directory".into());
    }
    let finished = dir.join(format::CONFIG).exists();
    let there = format::read_file(&run)?;
    let begun: RunInfo = serde_json::from_slice(&there).map_err(|e| malformed(&run, e))?;
    let dtypes = [begun.config.dtype, info.config.dtype];
    let mut wanted = info.clone();
    wanted.config.dtype = dtypes[0]; // until the end it changes nothing
    let what = difference(&there, &wanted).or_else(|| {
        let [there, now] = dtypes;
        let differ = finished && there != now;
        differ.then(|| format!("config.dtype is {there} there and {now} now"))
    });
    if let Some(what) = what {
        return refuse(format!("holds another run: {what}"));
    }
    if finished {
        remove_checkpoint(dir)?; // a kill may have come between the two
        return Trained::load(dir, device).map(Some);
    }
    if dtypes[0] != dtypes[1] {
        write_whole(&run, &text(info))?;
    }
    Ok(None)
}

fn text(info: &RunInfo) -> Vec<u8> {
    serde_json::to_vec_pretty(info).expect("plain data serialises")
}

/// Whether there is any file but one that a run killed at its very start may leave.
fn holds_something(dir: &Path) -> std::io::Result<bool> {
    let left = format!("{RUN}.tmp");
    for entry in fs::read_dir(dir)? {
        if entry?.file_name() != left.as_str() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The first setting in which the run of a `run.json` and the wanted one differ, with both
/// values. Both are compared as they read back: serde_json may read a float one unit in the
/// last place off.
fn difference(there: &[u8], wanted: &RunInfo) -> Option<String> {
    let value = |text: &[u8]| serde_json::from_slice(text).expect("it was read before");
    let wanted = serde_json::to_vec(wanted).expect("plain data serialises");
    first_difference("", &value(there), &value(&wanted))
}

fn first_difference(path: &str, a: &serde_json::Value, b: &serde_json::Value) -> Option<String> {
    if let (Some(a), Some(b)) = (a.as_object(), b.as_object()) {
        let null = serde_json::Value::Null;
        let new = b.keys().filter(|key| !a.contains_key(*key));
        let mut all = a.iter().chain(new.map(|key| (key, &null)));
        return all.find_map(|(key, v)| {
            let path = if path.is_empty() {
                key.clone()
            } else {
                format!("{path}.{key}")
            };
            first_difference(&path, v, b.get(key).unwrap_or(&null))
        });
    }
    (a != b).then(|| format!("{path} is {a} there and {b} now"))
}

/// The log, cut back to the lines of steps that the checkpoint has, and the seconds it covers.
pub(super) fn open_log(dir: &Path, steps_done: u64) -> Result<(fs::File, f64), Error> {
    let path = dir.join(LOG);
    let io = |source| Error::Io {
        path: path.clone(),
        source,
    };
    let text = if path.exists() {
        fs::read_to_string(&path).map_err(io)?
    } else {
        String::new()
    };
    let (mut kept, mut seconds) = (String::new(), 0.0);
    for line in text.lines() {
        let Ok(parsed) = serde_json::from_str::<LogLine>(line) else {
            break;
        };
        if parsed.stats.step > steps_done {
            break;
        }
        kept += &format!("{line}\n");
        seconds = parsed.seconds;
    }
    write_whole(&path, kept.as_bytes())?;
    let file = OpenOptions::new().append(true).open(&path).map_err(io)?;
    Ok((file, seconds))
}

pub(super) fn append(log: &mut fs::File, dir: &Path, line: &LogLine) -> Result<(), Error> {
    let mut text = serde_json::to_string(line).expect("plain data serialises");
    text.push('\n');
    log.write_all(text.as_bytes()).map_err(|source| Error::Io {
        path: dir.join(LOG),
        source,
    })
}

/// Removes the checkpoint of a run that is complete, if it is still there.
pub(super) fn remove_checkpoint(dir: &Path) -> Result<(), Error> {
    let path = dir.join(CHECKPOINT);
    match fs::remove_file(&path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::Io { path, source })
        }
        _ => Ok(()),
    }
}

/// Reads `run.json` of a training directory.
///
/// # Errors
/// The file is missing or malformed.
pub fn run_info(dir: &Path) -> Result<RunInfo, Error> {
    let path = dir.join(RUN);
    serde_json::from_slice(&format::read_file(&path)?).map_err(|e| malformed(&path, e))
}

/// Reads the log of a training directory.
///
/// # Errors
/// The file is missing or malformed.
pub fn read_log(dir: &Path) -> Result<Vec<LogLine>, Error> {
    let path = dir.join(LOG);
    let text = String::from_utf8(format::read_file(&path)?).map_err(|e| malformed(&path, e))?;
    text.lines()
        .map(|l| serde_json::from_str(l).map_err(|e| malformed(&path, e)))
        .collect()
}
