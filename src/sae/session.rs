//! Training from a store or a matrix file into a directory: checkpoints, log, resume.
//!
//! While it runs the directory holds `run.json`, `log.jsonl` and `checkpoint.safetensors`;
//! when it is done, `sae_weights.safetensors` and `cfg.json` take the checkpoint's place. A run
//! that is killed and resumed ends, on the CPU backend, in the same bytes as one that was not.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::tensor::Tensor;

mod directory;

pub use directory::{LOG, LogLine, RunInfo, read_log, run_info};
use directory::{append, describe, open, open_log, remove_checkpoint};

use super::checkpoint::{CHECKPOINT, checkpoint, restore};
use super::eval::{Accumulator, Reconstruction};
use super::format;
use super::train::{NO_SKIP, batch_tensor};
use super::{Error, Needs, Sae, TrainConfig, Trainer};
use crate::Device;
use crate::capture::store::{ShuffledBatches, Source};
use crate::device::block_on;

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
    seen: impl FnMut(usize),
) -> Result<Reconstruction, Error> {
    measure(
        Accumulator::new(sae.d_sae()),
        sae,
        [source, target],
        device,
        seen,
    )
}

/// [`evaluate`] for an autoencoder of rows that are normalised first
/// ([`is_normalized`](format::is_normalized)).
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_normalised(
    sae: &Sae,
    source: &Source,
    device: &Device,
    seen: impl FnMut(usize),
) -> Result<Reconstruction, Error> {
    let all = Accumulator::new(sae.d_sae()).normalised();
    measure(all, sae, [source, source], device, seen)
}

fn measure(
    mut all: Accumulator,
    sae: &Sae,
    [source, target]: [&Source; 2],
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
