use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};

use super::{DeviceOption, Failure, bar, capture::open_text, print_json, rows, sae_files};
use crate::capture::store::{Source, write_whole};
use crate::device::block_on;
use crate::model;
use crate::report::{EVALUATION, Evaluated};
use crate::sae::eval::{Spliced, SplicedAccumulator};
use crate::sae::session::{self, SessionOptions};
use crate::sae::{TrainConfig, format};
use crate::{Device, capture};

#[derive(Debug, Subcommand)]
pub(super) enum Sub {
    /// Train an autoencoder on stored activations or on a matrix.
    Train(Box<Train>),
    /// Measure an autoencoder on stored activations, and in its model.
    Eval(Eval),
    /// Write an autoencoder in another tool's format.
    Convert(sae_files::Convert),
    /// Describe an autoencoder of any tool.
    Show(sae_files::Show),
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Arch {
    Topk,
}

#[derive(Debug, Args)]
pub(super) struct Train {
    /// A store directory (with --hook), STORE:HOOK, or FILE.safetensors[:TENSOR].
    source: String,
    /// The hook, where the source is a store directory.
    #[arg(long)]
    hook: Option<String>,
    /// Architecture.
    #[arg(long, value_enum, default_value = "topk")]
    arch: Arch,
    /// Latents kept a row.
    #[arg(long, default_value_t = 32)]
    k: usize,
    /// Latents: a number, or a multiple of the input width like 8x.
    #[arg(long, default_value = "8x")]
    width: String,
    /// Activations to train on; more than there are means several passes. Default: one pass.
    #[arg(long)]
    tokens: Option<u64>,
    /// Activations a step.
    #[arg(long, default_value_t = 2048)]
    batch: usize,
    /// Peak learning rate.
    #[arg(long)]
    lr: Option<f64>,
    /// Seed of the weights and of the order of the activations.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Which rows to train on, like ..90%.
    #[arg(long, default_value = "..")]
    rows: String,
    /// A latent is dead when it has not fired for this many activations.
    #[arg(long)]
    dead_after: Option<u64>,
    /// Leave latents alone in the steps in which no row chose them: another optimiser than Adam.
    #[arg(long)]
    lazy_adam: bool,
    /// Rows of the shuffle buffer.
    #[arg(long, default_value_t = 1 << 16)]
    buffer: usize,
    /// Steps between checkpoints.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    checkpoint_every: u64,
    /// The directory to write.
    #[arg(long)]
    out: PathBuf,
    /// Continue an interrupted run.
    #[arg(long)]
    resume: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceOption,
}

#[derive(Debug, Args)]
pub(super) struct Eval {
    /// The autoencoder: its directory, or another tool's directory or weight file.
    sae: PathBuf,
    /// A store directory, STORE:HOOK, or FILE.safetensors[:TENSOR].
    source: String,
    /// The hook, where it is not the one the autoencoder was trained on.
    #[arg(long)]
    hook: Option<String>,
    /// Which rows to measure, like 90%..
    #[arg(long, default_value = "..")]
    rows: String,
    /// A language model: also measure the cross-entropy it keeps with the autoencoder spliced in.
    #[arg(long, requires = "text")]
    model: Option<PathBuf>,
    /// The text to measure it on, or -.
    #[arg(long, requires = "model")]
    text: Option<PathBuf>,
    /// Tokens of the text to use.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..))]
    text_tokens: u64,
    /// Tokens in a context of the text.
    #[arg(long, default_value_t = 128)]
    context: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceOption,
}

pub(super) fn run(sub: &Sub) -> Result<(), Failure> {
    match sub {
        Sub::Train(options) => train(options),
        Sub::Eval(options) => eval(options),
        Sub::Convert(options) => sae_files::convert(options),
        Sub::Show(options) => sae_files::show(options),
    }
}

/// `STORE` with a hook, or a full spelling.
pub(super) fn open_source(spec: &str, hook: Option<&str>) -> Result<Source, Failure> {
    let spec = match hook {
        Some(hook) => format!("{spec}:{hook}"),
        None => spec.to_string(),
    };
    Ok(Source::open(&spec)?)
}

/// `3072`, or `8x` times the input width.
fn width(text: &str, d_in: usize) -> Result<usize, Failure> {
    let number = text.strip_suffix('x').unwrap_or(text);
    let n: usize = number
        .parse()
        .map_err(|_| format!("--width `{text}` is no number and no multiple like 8x"))?;
    Ok(if text.ends_with('x') {
        n.saturating_mul(d_in)
    } else {
        n
    })
}

fn train(options: &Train) -> Result<(), Failure> {
    let Arch::Topk = options.arch;
    let all = open_source(&options.source, options.hook.as_deref())?;
    let range = rows(&options.rows, all.rows())?;
    let source = all.sub(range.clone())?;
    let d_sae = width(&options.width, source.width())?;
    let tokens = options.tokens.unwrap_or(source.rows() as u64);
    let defaults = TrainConfig::new(source.width(), d_sae, options.k, tokens);
    let config = TrainConfig {
        batch: options.batch,
        lr: options.lr.unwrap_or(defaults.lr),
        seed: options.seed,
        dead_after: options.dead_after.unwrap_or(defaults.dead_after),
        lazy_adam: options.lazy_adam,
        ..defaults
    };
    config.check()?;
    let device = options.device.open()?;
    let session = SessionOptions {
        resume: options.resume,
        buffer_rows: options.buffer,
        checkpoint_every: options.checkpoint_every,
        ..SessionOptions::new(&options.out)
    };
    let progress = bar("train", "activations", config.steps() * config.batch as u64);
    let mut last = None;
    session::train(source, range.start, &config, &session, &device, |line| {
        if last.is_none() {
            progress.set_position(line.tokens);
            progress.reset_eta();
        }
        progress.set_position(line.tokens);
        let s = line.stats;
        progress.set_message(format!(
            "loss {:.4}  L0 {:.1}  dead {:.2} %",
            s.loss,
            s.l0,
            100.0 * s.dead_share
        ));
        last = Some(*line);
    })?;
    progress.finish_and_clear();
    let last = last.or(session::read_log(&options.out)?.last().copied());
    match (last, options.json) {
        (Some(line), true) => print_json(&line)?,
        (Some(line), false) => say!(
            "{}: {} latents, k {}; {} activations, last batch FVU {:.4}, L0 {:.1}, dead {:.2} %, {:.0} activations/s",
            options.out.display(),
            d_sae,
            config.k,
            line.tokens,
            line.stats.fvu,
            line.stats.l0,
            100.0 * line.stats.dead_share,
            line.tokens_per_second,
        ),
        (None, _) => {}
    }
    Ok(())
}

fn eval(options: &Eval) -> Result<(), Failure> {
    let device = options.device.open()?;
    refuse_unfinished(&options.sae)?;
    let format::Loaded { sae, metadata, .. } = format::read(&options.sae, None, device.tensor())?;
    let trained = metadata["hook_name"].as_str().map(str::to_owned);
    let is_store = Path::new(&options.source).is_dir();
    let hook = options
        .hook
        .clone()
        .or(if is_store { trained.clone() } else { None });
    let all = open_source(&options.source, hook.as_deref())?;
    let source = all.sub(rows(&options.rows, all.rows())?)?;
    let progress = bar("evaluate", "rows", source.rows() as u64);
    let reconstruction =
        session::evaluate(&sae, &source, &device, |n| progress.set_position(n as u64))?;
    progress.finish_and_clear();
    let spliced = match (&options.model, &options.text) {
        (Some(model), Some(text)) => {
            let hook = options
                .hook
                .clone()
                .or(trained)
                .ok_or("the autoencoder names no hook; give --hook")?;
            let accumulator = SplicedAccumulator::new(sae, &hook);
            Some(splice(accumulator, model, text, options, &device)?)
        }
        _ => None,
    };
    let density_histogram = reconstruction.density_histogram(4);
    let found = Evaluated {
        source: source.name().into(),
        rows: options.rows.clone(),
        reconstruction,
        density_histogram,
        spliced,
    };
    if options.sae.is_dir() {
        let text = serde_json::to_vec_pretty(&found)?;
        write_whole(&options.sae.join(EVALUATION), &text)?;
    }
    if options.json {
        print_json(&found)
    } else {
        print(&found)
    }
}

/// A training run without its autoencoder is one that has not come to its end.
fn refuse_unfinished(dir: &Path) -> Result<(), Failure> {
    if session::run_info(dir).is_ok() && !dir.join(format::CONFIG).exists() {
        let dir = dir.display();
        return Err(
            format!("{dir}: its training is not finished; continue it with --resume").into(),
        );
    }
    Ok(())
}

fn splice(
    mut all: SplicedAccumulator,
    model: &Path,
    text: &Path,
    options: &Eval,
    device: &Device,
) -> Result<Spliced, Failure> {
    let network = model::load(model, device)?;
    let (reader, name) = open_text(text)?;
    let batches = capture::batches(
        &network,
        reader,
        &name,
        options.context,
        16,
        Some(options.text_tokens),
    )?;
    let progress = bar("splice", "batches", batches.len() as u64);
    for tokens in &batches {
        block_on(all.add(network.model.as_ref(), tokens))?;
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(all.finish())
}

pub(super) fn print(found: &Evaluated) -> Result<(), Failure> {
    let r = &found.reconstruction;
    say!("{} rows {} of {}", r.rows, found.rows, found.source);
    say!(
        "L0 {:.2}   FVU {:.4}   cosine {:.4}   dead {:.2} %",
        r.l0,
        r.fvu,
        r.cosine,
        100.0 * r.dead_share
    );
    say!("log10 density: latents");
    let most = found
        .density_histogram
        .iter()
        .map(|b| b.1)
        .max()
        .unwrap_or(1)
        .max(1);
    for (edge, count) in &found.density_histogram {
        say!(
            "{edge:>6.2} {count:>7} {}",
            "#".repeat((count * 40 / most) as usize)
        );
    }
    if let Some(s) = &found.spliced {
        say!(
            "cross-entropy {:.4}, spliced {:.4}, zero-ablated {:.4} nats: recovered {:.2} % (KL {:.4}, {} tokens)",
            s.ce_original,
            s.ce_spliced,
            s.ce_zero,
            100.0 * s.ce_recovered,
            s.kl_spliced,
            s.tokens,
        );
    }
    Ok(())
}
