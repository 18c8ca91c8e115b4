use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::sae::open_source;
use super::{DeviceOption, Failure, bar, print_json, rows};
use crate::capture::store::Source;
use crate::sae::session::{self, Job, LogLine, SessionOptions};
use crate::sae::{Architecture, Gated, JumpRelu, Matryoshka, Preset, Standard, TrainConfig};

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Arch {
    Topk,
    BatchTopk,
    Matryoshka,
    JumpRelu,
    Gated,
    Standard,
    PAnneal,
}

#[derive(Debug, Args)]
pub(super) struct Train {
    /// A store directory (with --hook), STORE:HOOK, or FILE.safetensors[:TENSOR].
    source: String,
    /// The hook, where the source is a store directory; several train one autoencoder each.
    #[arg(long, num_args = 1..)]
    hook: Vec<String>,
    /// A transcoder: make the activations at this hook of the store, instead of those read.
    #[arg(long, value_name = "HOOK")]
    target_hook: Option<String>,
    /// A transcoder with a linear skip from what it reads to what it writes.
    #[arg(long, requires = "target_hook")]
    skip: bool,
    /// Architecture; several are trained in one pass, as are several --k, --width, --seed and --hook.
    #[arg(long, value_enum, default_value = "topk", num_args = 1..)]
    arch: Vec<Arch>,
    /// Latents kept a row (on average, with batch-topk and matryoshka); the L0 that jump-relu aims at.
    #[arg(long, default_value = "32", num_args = 1..)]
    k: Vec<usize>,
    /// Weight of the L1 penalty of standard, p-anneal and gated.
    #[arg(long)]
    l1: Option<f64>,
    /// Exponent at which p-anneal ends. Default: 0.5.
    #[arg(long)]
    p_end: Option<f64>,
    /// Latents: a number, or a multiple of the input width like 8x.
    #[arg(long, default_value = "8x", num_args = 1..)]
    width: Vec<String>,
    /// Everything else as a public tool has it: saelens, dictionary_learning, sparsify, openai,
    /// anthropic-jumprelu.
    #[arg(long)]
    preset: Option<Preset>,
    /// Activations to train on; more than there are means several passes. Default: one pass.
    #[arg(long)]
    tokens: Option<u64>,
    /// Activations a step.
    #[arg(long, default_value_t = 2048)]
    batch: usize,
    /// Peak learning rate.
    #[arg(long)]
    lr: Option<f64>,
    /// Seed of the weights, and the first of the order of the activations.
    #[arg(long, default_value = "0", num_args = 1..)]
    seed: Vec<u64>,
    /// Which rows to train on, like ..90%.
    #[arg(long, default_value = "..")]
    rows: String,
    /// A latent is dead when it has not fired for this many activations.
    #[arg(long)]
    dead_after: Option<u64>,
    /// Start dead latents anew every so many steps.
    #[arg(long)]
    resample_every: Option<u64>,
    /// Latents kept a row at the start, falling to k over the first half.
    #[arg(long)]
    k_start: Option<usize>,
    /// Save a running mean of the weights that keeps this much of itself a step.
    #[arg(long)]
    ema: Option<f64>,
    /// Leave latents alone in the steps in which no row chose them: another optimiser than Adam.
    #[arg(long)]
    lazy_adam: bool,
    /// Rows of the shuffle buffer.
    #[arg(long, default_value_t = 1 << 16)]
    buffer: usize,
    /// Steps between checkpoints.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    checkpoint_every: u64,
    /// The directory to write; with several autoencoders one in it for each.
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

/// One of the autoencoders asked for.
struct Choice<'a> {
    hook: Option<&'a str>,
    arch: Arch,
    k: usize,
    width: &'a str,
    seed: u64,
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

pub(super) fn run(options: &Train) -> Result<(), Failure> {
    if options.p_end.is_some() && !options.arch.contains(&Arch::PAnneal) {
        return Err("--p-end is for --arch p-anneal".into());
    }
    let choices = choices(options);
    let mut jobs = Vec::new();
    let mut first_row = 0;
    for choice in &choices {
        let (job, first) = job(options, choice, choices.len() > 1)?;
        first_row = first;
        jobs.push(job);
    }
    let device = options.device.open()?;
    let session = SessionOptions {
        resume: options.resume,
        buffer_rows: options.buffer,
        checkpoint_every: options.checkpoint_every,
        ..SessionOptions::new(&options.out)
    };
    let config = &jobs[0].config;
    let progress = bar("train", "activations", config.steps() * config.batch as u64);
    let mut last: Vec<Option<LogLine>> = vec![None; jobs.len()];
    session::train_all(&jobs, first_row, &session, &device, |job, line| {
        progress.set_position(line.tokens);
        if last.iter().all(Option::is_none) {
            progress.reset_eta();
        }
        let s = line.stats;
        progress.set_message(format!(
            "loss {:.4}  L0 {:.1}  dead {:.2} %",
            s.loss,
            s.l0,
            100.0 * s.dead_share
        ));
        last[job] = Some(*line);
    })?;
    progress.finish_and_clear();
    report(options, &jobs, last)
}

/// Every combination of what was asked for.
fn choices(options: &Train) -> Vec<Choice<'_>> {
    let hooks: Vec<Option<&str>> = match options.hook.is_empty() {
        true => vec![None],
        false => options.hook.iter().map(|h| Some(h.as_str())).collect(),
    };
    let mut all = Vec::new();
    for hook in hooks {
        for &arch in &options.arch {
            for &k in &options.k {
                for width in &options.width {
                    let of = |&seed| Choice {
                        hook,
                        arch,
                        k,
                        width,
                        seed,
                    };
                    all.extend(options.seed.iter().map(of));
                }
            }
        }
    }
    all
}

fn job(options: &Train, choice: &Choice, many: bool) -> Result<(Job, usize), Failure> {
    let all = open_source(&options.source, choice.hook)?;
    let range = rows(&options.rows, all.rows())?;
    let source = all.sub(range.clone())?;
    let target = match &options.target_hook {
        Some(hook) => Some(open_source(&options.source, Some(hook))?.sub(range.clone())?),
        None => None,
    };
    let config = config(options, choice, &source)?;
    config.check()?;
    let out = match many {
        true => options.out.join(label(options, choice, config.d_sae)),
        false => options.out.clone(),
    };
    let job = Job {
        source,
        target,
        config,
        out,
    };
    Ok((job, range.start))
}

fn config(options: &Train, choice: &Choice, source: &Source) -> Result<TrainConfig, Failure> {
    let d_sae = width(choice.width, source.width())?;
    let tokens = options.tokens.unwrap_or(source.rows() as u64);
    let mut config = TrainConfig {
        batch: options.batch,
        ..TrainConfig::new(source.width(), d_sae, choice.k, tokens)
    };
    config.seed = choice.seed;
    config.skip = options.skip;
    config.conventions.subtract_b_dec = options.target_hook.is_none();
    config.architecture = architecture(options, choice, [source.width(), d_sae]);
    if let Some(preset) = options.preset {
        if preset == Preset::AnthropicJumpRelu && choice.arch != Arch::JumpRelu {
            return Err("--preset anthropic-jumprelu is for --arch jump-relu".into());
        }
        preset.apply(&mut config, source.width());
    }
    if let Some(l1) = options.l1 {
        set_l1(&mut config.architecture, l1)?;
    }
    config.lr = options.lr.unwrap_or(config.lr);
    config.dead_after = options.dead_after.unwrap_or(config.dead_after);
    config.resample_every = options.resample_every;
    config.ema = options.ema;
    config.lazy_adam = options.lazy_adam;
    if options.k_start.is_some() {
        (config.k_start, config.k_anneal) = (options.k_start, 0.5);
    }
    Ok(config)
}

fn architecture(options: &Train, choice: &Choice, [d, d_sae]: [usize; 2]) -> Architecture {
    let k = choice.k;
    match choice.arch {
        Arch::Topk => Architecture::TopK { k },
        Arch::BatchTopk => Architecture::BatchTopK { k },
        Arch::Matryoshka => Architecture::Matryoshka(Matryoshka::halving(k, d_sae)),
        Arch::JumpRelu => Architecture::JumpRelu(JumpRelu::aiming_at(k as f64)),
        Arch::Gated => Architecture::Gated(Gated::for_width(d)),
        Arch::Standard => Architecture::Standard(Standard::for_width(d)),
        Arch::PAnneal => Architecture::Standard(Standard {
            p_end: options.p_end.unwrap_or(0.5),
            ..Standard::for_width(d)
        }),
    }
}

fn set_l1(architecture: &mut Architecture, l1: f64) -> Result<(), Failure> {
    match architecture {
        Architecture::Standard(s) => s.l1 = l1,
        Architecture::Gated(g) => g.l1 = l1,
        _ => return Err("--l1 is for --arch standard, p-anneal and gated".into()),
    }
    Ok(())
}

/// The directory of one of many: `topk-k32-w3072-s0`, of several hooks in one of the hook's name.
fn label(options: &Train, choice: &Choice, d_sae: usize) -> PathBuf {
    let arch = choice.arch.to_possible_value();
    let arch = arch.map_or_else(String::new, |a| a.get_name().to_string());
    let name = format!("{arch}-k{}-w{d_sae}-s{}", choice.k, choice.seed);
    match choice.hook {
        Some(hook) if options.hook.len() > 1 => PathBuf::from(hook).join(name),
        _ => PathBuf::from(name),
    }
}

fn report(options: &Train, jobs: &[Job], last: Vec<Option<LogLine>>) -> Result<(), Failure> {
    let mut lines = Vec::new();
    for (job, line) in jobs.iter().zip(last) {
        let Some(line) = line.or(session::read_log(&job.out)?.last().copied()) else {
            continue;
        };
        if !options.json {
            print(job, &line)?;
        }
        lines.push(serde_json::json!({ "out": job.out, "last": line }));
    }
    match (options.json, &lines[..], jobs) {
        (false, ..) => Ok(()),
        (true, [line], [_]) => print_json(&line["last"]),
        (true, ..) => print_json(&lines),
    }
}

fn print(job: &Job, line: &LogLine) -> Result<(), Failure> {
    let (config, k) = (&job.config, job.config.k());
    say!(
        "{}: {} latents{}; {} activations, last batch FVU {:.4}, L0 {:.1}, dead {:.2} %, {:.0} activations/s",
        job.out.display(),
        config.d_sae,
        k.map_or_else(String::new, |k| format!(", k {k}")),
        line.tokens,
        line.stats.fvu,
        line.stats.l0,
        100.0 * line.stats.dead_share,
        line.tokens_per_second,
    );
    Ok(())
}
