//! Training from a store or a matrix file into a directory: checkpoints, log, resume.
//!
//! While it runs the directory holds `run.json`, `log.jsonl` and `checkpoint.safetensors`;
//! when it is done, `sae_weights.safetensors` and `cfg.json` take the checkpoint's place. A run
//! that is killed and resumed ends, on the CPU backend, in the same bytes as one that was not.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::checkpoint::{CHECKPOINT, checkpoint, restore};
use super::eval::{Accumulator, Reconstruction};
use super::format::{self, malformed};
use super::train::{NO_SKIP, batch_tensor};
use super::{Error, Needs, Sae, StepStats, TrainConfig, Trainer};
use crate::Device;
use crate::capture::store::{Manifest, ShuffledBatches, Source, write_whole};
use crate::device::block_on;

const RUN: &str = "run.json";
/// Name of the training log, one [`LogLine`] a line.
pub const LOG: &str = "log.jsonl";
/// Rows that the start of a run is computed from.
const SAMPLE_ROWS: usize = 8192;

/// Where and how often a session writes.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// The directory.
    pub out: PathBuf,
    /// Continue what is there instead of starting anew.
    pub resume: bool,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// Steps between lines of the log.
    pub log_every: u64,
    /// Rows of the shuffle buffer.
    pub buffer_rows: usize,
}

impl SessionOptions {
    /// A checkpoint every 200 steps, a line every 10, a buffer of 65,536 rows.
    pub fn new(out: impl Into<PathBuf>) -> Self {
        Self {
            out: out.into(),
            resume: false,
            checkpoint_every: 200,
            log_every: 10,
            buffer_rows: 1 << 16,
        }
    }
}

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
    /// The hook, where the source is a store.
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

/// One autoencoder of a session.
#[derive(Clone)]
pub struct Job {
    /// Where it reads.
    pub source: Source,
    /// What it is to make of that, row by row, where that is something else: a transcoder.
    pub target: Option<Source>,
    /// Its settings.
    pub config: TrainConfig,
    /// The directory.
    pub out: PathBuf,
}

impl Job {
    /// What it reads: its source, and its target if it has one.
    pub(super) fn reads(&self) -> impl Iterator<Item = &Source> {
        [Some(&self.source), self.target.as_ref()]
            .into_iter()
            .flatten()
    }
}

/// Trains to the end and writes the autoencoder. `seen` gets every line of the log.
///
/// Memory: weights and moments (three times the parameters), one batch and what a
/// step holds ([`backward`](super::backward)), the shuffle buffer.
///
/// # Errors
/// A setting that cannot work, a damaged or unfitting checkpoint, a full disk, activations
/// that are not finite, a loss that diverges. What was written before stays whole.
pub fn train(
    source: Source,
    first_row: usize,
    config: &TrainConfig,
    options: &SessionOptions,
    device: &Device,
    mut seen: impl FnMut(&LogLine),
) -> Result<Sae, Error> {
    let job = Job {
        source,
        target: None,
        config: config.clone(),
        out: options.out.clone(),
    };
    let mut all = train_all(&[job], first_row, options, device, |_, line| seen(line))?;
    Ok(all.remove(0))
}

/// Trains many autoencoders in one pass over the activations: every batch is read once for each hook,
/// in one order, and goes to all of them. `seen` gets the number of the job with every line of its
/// log. `options.out` is not used. As [`train`] otherwise; memory and time are those of all together.
///
/// # Errors
/// As [`train`]; jobs whose batches, tokens or rows differ, or that share a directory; what does not
/// fit into memory or on the disk ([`Needs`]). A loss that diverges stops all of them.
pub fn train_all(
    jobs: &[Job],
    first_row: usize,
    options: &SessionOptions,
    device: &Device,
    mut seen: impl FnMut(usize, &LogLine),
) -> Result<Vec<Sae>, Error> {
    check_together(jobs)?;
    let left = |job: &&Job| !(options.resume && job.out.join(format::CONFIG).exists());
    let left: Vec<&Job> = jobs.iter().filter(left).collect();
    Needs::of(&left, options).check(&jobs[0].out, device)?;
    let order = jobs[0].config.seed;
    let (mut done, mut running) = (vec![None; jobs.len()], Vec::new());
    for (number, job) in jobs.iter().enumerate() {
        let info = describe(job, order, first_row, options, device);
        done[number] = open(&info, &job.out, options.resume, device)?;
        if done[number].is_none() {
            running.push(Running::start(number, job, info, device)?);
        }
    }
    let steps = jobs[0].config.steps();
    let first = running.iter().map(|r| r.trainer.steps_done()).min();
    let first = first.unwrap_or(steps);
    let mut feeds = Feeds::new(&left, order, options, first)?;
    for step in first + 1..=steps {
        let batches = feeds.next(device)?;
        for run in running.iter_mut().filter(|r| r.trainer.steps_done() < step) {
            let job = &jobs[run.number];
            let x = feeds.of(&batches, &job.source);
            let y = job.target.as_ref().map(|target| feeds.of(&batches, target));
            block_on(run.trainer.step_to(x, y))?;
            run.record(options, &job.out, &mut seen)?;
        }
    }
    for run in running {
        done[run.number] = Some(finish(&run.trainer, &run.info, &jobs[run.number].out)?);
    }
    Ok(done.into_iter().flatten().collect())
}

fn check_together(jobs: &[Job]) -> Result<(), Error> {
    let bad = |text: String| Err(Error::Config(text));
    let Some(first) = jobs.first() else {
        return bad("there is nothing to train".into());
    };
    let rows = first.source.rows();
    for (i, job) in jobs.iter().enumerate() {
        job.config.check()?;
        if job.config.skip && job.target.is_none() {
            return bad(NO_SKIP.into());
        }
        let (ours, others) = (&job.config, &first.config);
        if (ours.batch, ours.tokens) != (others.batch, others.tokens) {
            return bad("autoencoders trained together need the same batch and tokens".into());
        }
        for source in job.reads() {
            if source.rows() != rows {
                let (a, b) = (first.source.name(), source.name());
                let n = source.rows();
                return bad(format!(
                    "{a} has {rows} rows, {b} has {n}: they must be of the same tokens"
                ));
            }
        }
        if jobs[..i].iter().any(|other| other.out == job.out) {
            return bad(format!(
                "{}: two autoencoders cannot share it",
                job.out.display()
            ));
        }
    }
    Ok(())
}

/// The shuffled batches of every source that a session reads, all in one order.
struct Feeds(Vec<ShuffledBatches>);

impl Feeds {
    fn new(jobs: &[&Job], seed: u64, options: &SessionOptions, first: u64) -> Result<Self, Error> {
        let mut all: Vec<ShuffledBatches> = Vec::new();
        for (job, source) in jobs
            .iter()
            .flat_map(|job| job.reads().map(move |s| (job, s)))
        {
            if !all.iter().any(|feed| feed.source().is(source)) {
                let (rows, batch) = (options.buffer_rows, job.config.batch);
                all.push(ShuffledBatches::new(source.clone(), seed, rows, batch)?);
            }
        }
        all.iter_mut().for_each(|feed| feed.seek(first));
        Ok(Self(all))
    }

    fn next(&mut self, device: &Device) -> Result<Vec<Tensor<2>>, Error> {
        let one = |feed: &mut ShuffledBatches| {
            let (mut rows, d) = (Vec::new(), feed.source().width());
            feed.next_batch(&mut rows)?;
            Ok(batch_tensor(rows, d, device.tensor()))
        };
        self.0.iter_mut().map(one).collect()
    }

    fn of(&self, batches: &[Tensor<2>], source: &Source) -> Tensor<2> {
        let at = self.0.iter().position(|feed| feed.source().is(source));
        batches[at.expect("every source has a feed")].clone()
    }
}

/// A job on its way.
struct Running {
    number: usize,
    trainer: Trainer,
    info: RunInfo,
    log: fs::File,
    begun: Instant,
    /// Steps done when it was begun, and seconds of training before.
    first: u64,
    before: f64,
}

impl Running {
    fn start(number: usize, job: &Job, info: RunInfo, device: &Device) -> Result<Self, Error> {
        let trainer = start(job, &info, device)?;
        let first = trainer.steps_done();
        let (log, before) = open_log(&job.out, first)?;
        let begun = Instant::now();
        Ok(Self {
            number,
            trainer,
            info,
            log,
            begun,
            first,
            before,
        })
    }

    /// Writes what is due after a step: a line of the log, a checkpoint.
    fn record(
        &mut self,
        options: &SessionOptions,
        out: &Path,
        seen: &mut impl FnMut(usize, &LogLine),
    ) -> Result<(), Error> {
        let (config, step) = (self.trainer.config(), self.trainer.steps_done());
        let last = step == config.steps();
        if last || step.is_multiple_of(options.log_every) {
            let stats = block_on(self.trainer.stats())?;
            let done = (step - self.first) as f64 * config.batch as f64;
            let elapsed = self.begun.elapsed().as_secs_f64();
            let line = LogLine {
                stats,
                tokens: step * config.batch as u64,
                lr: config.lr_at(step),
                tokens_per_second: done / elapsed,
                seconds: self.before + elapsed,
            };
            append(&mut self.log, out, &line)?;
            seen(self.number, &line);
        }
        if !last && step.is_multiple_of(options.checkpoint_every) {
            block_on(self.trainer.stats())?;
            block_on(checkpoint(&self.trainer, out))?;
        }
        Ok(())
    }
}

fn describe(
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
        hook: hook_of(source),
        target_hook: target.and_then(hook_of),
        device: device.name().into(),
        buffer_rows: options.buffer_rows,
        order_seed: order,
        config: job.config.clone(),
    }
}

/// The hook, where the source is one of a store.
fn hook_of(source: &Source) -> Option<String> {
    source.store()?;
    source.name().rsplit_once(':').map(|(_, hook)| hook.into())
}

/// Makes the directory ready. Returns the autoencoder if the run in it is complete.
fn open(info: &RunInfo, dir: &Path, resume: bool, device: &Device) -> Result<Option<Sae>, Error> {
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
        let text = serde_json::to_vec_pretty(info).expect("plain data serialises");
        write_whole(&run, &text)?;
        return Ok(None);
    }
    if !resume {
        return refuse("holds a training run already; resume it or name another directory".into());
    }
    let there = format::read_file(&run)?;
    let _: RunInfo = serde_json::from_slice(&there).map_err(|e| malformed(&run, e))?;
    if let Some(what) = difference(&there, info) {
        return refuse(format!("holds another run: {what}"));
    }
    if dir.join(format::CONFIG).exists() {
        remove_checkpoint(dir)?; // a kill may have come between the two
        return format::load(dir, device.tensor()).map(|(sae, _)| Some(sae));
    }
    Ok(None)
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
        return a.iter().find_map(|(key, v)| {
            let path = if path.is_empty() {
                key.clone()
            } else {
                format!("{path}.{key}")
            };
            first_difference(&path, v, b.get(key).unwrap_or(&serde_json::Value::Null))
        });
    }
    (a != b).then(|| format!("{path} is {a} there and {b} now"))
}

fn start(job: &Job, info: &RunInfo, device: &Device) -> Result<Trainer, Error> {
    let path = job.out.join(CHECKPOINT);
    if path.exists() {
        return restore(&path, info, device.tensor());
    }
    let (config, on) = (info.config.clone(), device.tensor());
    let sample = sample(&job.source)?;
    match &job.target {
        None => Trainer::new(config, &sample, info.d_in, on),
        Some(target) => Trainer::transcoder(
            config,
            (&sample, info.d_in),
            (&self::sample(target)?, info.d_out),
            on,
        ),
    }
}

/// Rows from all over the source, for what a run starts from.
fn sample(source: &Source) -> Result<Vec<f32>, Error> {
    let mut sample = Vec::new();
    let rows = source.rows().min(SAMPLE_ROWS);
    let step = (source.rows() / rows.max(1)).max(1);
    if step == 1 {
        source.read_rows(0..rows, &mut sample)?;
        return Ok(sample);
    }
    let block = 64.min(rows);
    let mut part = Vec::new();
    for i in 0..rows / block {
        source.read_rows(i * block * step..i * block * step + block, &mut part)?;
        sample.append(&mut part);
    }
    Ok(sample)
}

/// The log, cut back to the lines of steps that the checkpoint has, and the seconds it covers.
fn open_log(dir: &Path, steps_done: u64) -> Result<(fs::File, f64), Error> {
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

fn append(log: &mut fs::File, dir: &Path, line: &LogLine) -> Result<(), Error> {
    let mut text = serde_json::to_string(line).expect("plain data serialises");
    text.push('\n');
    log.write_all(text.as_bytes()).map_err(|source| Error::Io {
        path: dir.join(LOG),
        source,
    })
}

fn finish(trainer: &Trainer, info: &RunInfo, dir: &Path) -> Result<Sae, Error> {
    let sae = trainer.sae();
    let model = info.store.as_ref().map(|s| s.settings.model.id.clone());
    let metadata = serde_json::json!({
        "hook_name": info.hook, "hook_name_out": info.target_hook, "model_name": model, "context_size": info.store.as_ref().map(|s| s.settings.context),
        "inscape": { "version": info.inscape, "config": info.config, "source": info.source },
    });
    block_on(format::save(&sae, dir, metadata))?;
    remove_checkpoint(dir)?;
    Ok(sae)
}

/// Measures an autoencoder over the rows of `source`. `seen` gets the rows done.
///
/// Memory: one batch of 2048 rows and its latents.
///
/// # Errors
/// Widths that differ; the source or the device failed.
pub fn evaluate(
    sae: &Sae,
    source: &Source,
    device: &Device,
    seen: impl FnMut(usize),
) -> Result<Reconstruction, Error> {
    evaluate_pair(sae, source, source, device, seen)
}

/// The same for a transcoder, which is to make the rows of `target` of those of `source`.
///
/// # Errors
/// Widths that do not fit the autoencoder, rows that differ in number; a source or the device failed.
pub fn evaluate_pair(
    sae: &Sae,
    source: &Source,
    target: &Source,
    device: &Device,
    mut seen: impl FnMut(usize),
) -> Result<Reconstruction, Error> {
    let (name, width) = (source.name(), source.width());
    if width != sae.d_in() {
        let takes = sae.d_in();
        let text = format!("{name} has rows of width {width}, the autoencoder takes {takes}");
        return Err(Error::Config(text));
    }
    if target.width() != sae.d_out() || target.rows() != source.rows() {
        return Err(Error::Config(format!(
            "{} has {} rows of width {}; {} of width {} are to be made of {name}",
            target.name(),
            target.rows(),
            target.width(),
            source.rows(),
            sae.d_out()
        )));
    }
    let same = target.is(source);
    let read = |source: &Source, range| {
        let mut rows = Vec::new();
        source.read_rows(range, &mut rows)?;
        Ok::<_, Error>(batch_tensor(rows, source.width(), device.tensor()))
    };
    let mut all = Accumulator::new(sae.d_sae());
    for start in (0..source.rows()).step_by(2048) {
        let range = start..(start + 2048).min(source.rows());
        let x = read(source, range.clone())?;
        let y = if same {
            x.clone()
        } else {
            read(target, range.clone())?
        };
        block_on(all.add_pair(sae, x, y))?;
        seen(range.end);
    }
    Ok(all.finish())
}

/// Removes the checkpoint of a run that is complete, if it is still there.
fn remove_checkpoint(dir: &Path) -> Result<(), Error> {
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
