//! Training from a store or a matrix file into a directory: checkpoints, log, resume.
//!
//! While it runs the directory holds `run.json`, `log.jsonl` and `checkpoint.safetensors`;
//! when it is done, `sae_weights.safetensors` and `cfg.json` take the checkpoint's place. A run
//! that is killed and resumed ends, on the CPU backend, in the same bytes as one that was not.
//! Weights that do not fit the number format they are to be saved in stay in the checkpoint: resume
//! with another [`dtype`](super::TrainConfig::dtype).

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use burn::tensor::Tensor;

mod contexts;
mod directory;
mod evaluate;
mod trained;

use contexts::Contexts;
pub use directory::{LOG, LogLine, RunInfo, read_log, run_info};
use directory::{append, describe, open, open_log, remove_checkpoint};
pub use evaluate::{evaluate, evaluate_cross_layer, evaluate_normalised, evaluate_pair};
use trained::AnyTrainer;
pub use trained::Trained;

use super::checkpoint::{CHECKPOINT, restore};
use super::cross_layer;
use super::format::{self, WeightDtype};
use super::train::{NO_SKIP, TRANSCODER_BIAS, batch_tensor, check_width};
use super::{CrossLayerTrainer, Error, Needs, Sae, TrainConfig, Trainer};
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

/// Trains to the end and writes the autoencoder, which is returned as it was written. `seen` gets every
/// line of the log.
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
    match all.remove(0) {
        Trained::Sae(sae) => Ok(sae),
        Trained::CrossLayer(_) => unreachable!("it has no target"),
    }
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
) -> Result<Vec<Trained>, Error> {
    check_together(jobs)?;
    let left = |job: &&Job| !(options.resume && job.out.join(format::CONFIG).exists());
    let left: Vec<&Job> = jobs.iter().filter(left).collect();
    Needs::of(&left, options).check(&jobs[0].out, device)?;
    let order = jobs[0].config.seed;
    let (mut done, mut running) = (vec![None; jobs.len()], Vec::new());
    let mut samples = Samples::default();
    let contexts = |job: &Job| job.config.end_to_end.map(|e| Contexts::new(job, e, order));
    let contexts = jobs.iter().map(|job| contexts(job).transpose());
    let mut contexts = contexts.collect::<Result<Vec<_>, _>>()?;
    for (number, job) in jobs.iter().enumerate() {
        let info = describe(job, order, first_row, options, device);
        done[number] = open(&info, &job.out, options.resume, device)?;
        if done[number].is_none() {
            let contexts = contexts[number].take();
            let run = Running::start(number, job, info, &mut samples, device)?;
            running.push(Running { contexts, ..run });
        }
    }
    drop(samples);
    let steps = jobs[0].config.steps();
    let first = running.iter().map(|r| r.trainer.steps_done()).min();
    let first = first.unwrap_or(steps);
    let fed: Vec<&Job> = (left.into_iter().filter(|j| j.config.end_to_end.is_none())).collect();
    let mut feeds = Feeds::new(&fed, order, options, first)?;
    for step in first + 1..=steps {
        let batches = feeds.next(device)?;
        for run in running.iter_mut().filter(|r| r.trainer.steps_done() < step) {
            let job = &jobs[run.number];
            if let Some(contexts) = &mut run.contexts {
                let tokens = contexts.tokens(step);
                block_on(run.trainer.step_end_to_end(&contexts.pass(&tokens)?))?;
            } else {
                let x = feeds.of(&batches, &job.source);
                let y = job.target.as_ref().map(|target| feeds.of(&batches, target));
                block_on(run.trainer.step_to(x, y))?;
            }
            run.record(options, &job.out, &mut seen)?;
        }
    }
    let mut failed = None; // the others are saved even so
    for run in running {
        match finish(&run.trainer, &run.info, &jobs[run.number].out, device) {
            Ok(trained) => done[run.number] = Some(trained),
            Err(e) => failed = failed.or(Some(e)),
        }
    }
    if let Some(e) = failed {
        return Err(e);
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
        if job.config.cross_layer && job.target.is_none() {
            return bad("cross_layer: a transcoder needs a target to write".into());
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
        check_sites(job)?;
        if jobs[..i].iter().any(|other| other.out == job.out) {
            return bad(format!(
                "{}: two autoencoders cannot share it",
                job.out.display()
            ));
        }
    }
    Ok(())
}

/// Sources of several places hold activations of one width, as many as the settings say.
fn check_sites(job: &Job) -> Result<(), Error> {
    let (sites, bad) = (job.config.sites, |text| Err(Error::Config(text)));
    for source in job.reads().filter(|s| s.parts().len() > 1) {
        let parts = source.parts();
        if parts.len() != sites {
            let (name, n) = (source.name(), parts.len());
            return bad(format!(
                "sites = {sites}: {name} holds {n} activations side by side"
            ));
        }
        if let Some(other) = parts.iter().find(|p| p.width() != parts[0].width()) {
            let (a, b) = (&parts[0], other);
            return bad(format!(
                "{} has width {}, {} has width {}: places side by side need one width",
                a.name(),
                a.width(),
                b.name(),
                b.width()
            ));
        }
    }
    match &job.target {
        Some(target) if job.config.cross_layer => {
            cross_layer::check(&job.config, [job.source.width(), target.width()])
        }
        Some(_) if job.config.conventions.subtract_b_dec => bad(TRANSCODER_BIAS.into()),
        _ => check_width(job.source.width(), &job.config),
    }
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
    trainer: AnyTrainer,
    /// What it runs the model on, where it is trained end to end.
    contexts: Option<Contexts>,
    info: RunInfo,
    log: fs::File,
    begun: Instant,
    /// Steps done when it was begun, and seconds of training before.
    first: u64,
    before: f64,
}

impl Running {
    fn start(
        number: usize,
        job: &Job,
        info: RunInfo,
        samples: &mut Samples,
        device: &Device,
    ) -> Result<Self, Error> {
        let trainer = start(job, &info, samples, device)?;
        let first = trainer.steps_done();
        let (log, before) = open_log(&job.out, first)?;
        let begun = Instant::now();
        Ok(Self {
            number,
            trainer,
            contexts: None,
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
            self.trainer.checkpoint(out)?;
        }
        Ok(())
    }
}

fn start(
    job: &Job,
    info: &RunInfo,
    samples: &mut Samples,
    device: &Device,
) -> Result<AnyTrainer, Error> {
    let path = job.out.join(CHECKPOINT);
    if path.exists() {
        let trainers = restore(&path, info, device.tensor())?;
        return Ok(AnyTrainer::of(trainers, &info.config));
    }
    let (config, on) = (info.config.clone(), device.tensor());
    let sample = samples.of(&job.source)?;
    let Some(target) = &job.target else {
        let trainer = Trainer::new(config, &sample, info.d_in, on)?;
        return Ok(AnyTrainer::One(trainer));
    };
    let (read, write) = (
        (&sample[..], info.d_in),
        (&samples.of(target)?[..], info.d_out),
    );
    Ok(match config.cross_layer {
        true => AnyTrainer::CrossLayer(CrossLayerTrainer::new(config, read, write, on)?),
        false => AnyTrainer::One(Trainer::transcoder(config, read, write, on)?),
    })
}

/// What each source that was asked for gave.
#[derive(Default)]
struct Samples(Vec<(Source, Rc<[f32]>)>);

impl Samples {
    fn of(&mut self, source: &Source) -> Result<Rc<[f32]>, Error> {
        if let Some((_, rows)) = self.0.iter().find(|(other, _)| other.is(source)) {
            return Ok(rows.clone());
        }
        let rows: Rc<[f32]> = sample(source)?.into();
        self.0.push((source.clone(), rows.clone()));
        Ok(rows)
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
    let (block, _) = source.cuts(64.min(rows));
    let blocks = (0..(rows / block).max(1)).map(|i| source.block(block, i * step));
    let blocks: Vec<_> = blocks.collect();
    let rows: usize = blocks.iter().map(ExactSizeIterator::len).sum();
    sample.resize(rows * source.width(), 0.0);
    source.read_blocks(&blocks, &mut sample)?;
    Ok(sample)
}

fn finish(
    trainer: &AnyTrainer,
    info: &RunInfo,
    dir: &Path,
    device: &Device,
) -> Result<Trained, Error> {
    let trained = trainer.trained();
    let model = info.model().map(|m| m.id.clone());
    let metadata = serde_json::json!({
        "hook_name": info.hook, "hook_name_out": info.target_hook, "model_name": model, "context_size": info.context(),
        "inscape": { "version": info.inscape, "config": info.config, "source": info.source },
    });
    let dtype = info.config.dtype;
    let saved = block_on(trained.save(dir, metadata, dtype));
    if let Err(Error::Overflow { .. }) = saved {
        trainer.checkpoint(dir)?; // all that was trained, to be saved in another format
    }
    saved?;
    remove_checkpoint(dir)?;
    match dtype {
        WeightDtype::F32 => Ok(trained),
        _ => Trained::load(dir, device),
    }
}
