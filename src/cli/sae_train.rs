use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::sae::{Activations, open_live, open_source};
use super::{DeviceOption, Failure, bar, print_json, rows};
use crate::Device;
use crate::capture::{beside, store::Source};
use crate::sae::format::WeightDtype;
use crate::sae::session::{self, Job, LogLine, SessionOptions};
use crate::sae::{
    Architecture, EndToEnd, Gated, JumpRelu, Matryoshka, Preset, Standard, TrainConfig,
};

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

impl Arch {
    /// Whether an L1 penalty rules how many latents are active.
    fn has_l1(self) -> bool {
        matches!(self, Self::Standard | Self::PAnneal | Self::Gated)
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Dtype {
    F32,
    F16,
    Bf16,
}

#[derive(Debug, Args)]
pub(super) struct Train {
    /// A store directory (with --hook), STORE:HOOK, or FILE.safetensors[:TENSOR]; with --text a model
    /// directory or an embedded model.
    source: String,
    /// Run the model on this text (UTF-8, or - for standard input) while training, without a store.
    #[arg(long, requires = "hook")]
    text: Option<PathBuf>,
    /// Tokens in a context of the text, special tokens included.
    #[arg(long, default_value_t = 128, requires = "text")]
    context: usize,
    /// Use no more than this many tokens of the text.
    #[arg(long, requires = "text", value_parser = clap::value_parser!(u64).range(1..))]
    max_tokens: Option<u64>,
    /// The hook, where the source is a store directory or a model; several train one autoencoder each.
    #[arg(long, num_args = 1..)]
    hook: Vec<String>,
    /// A transcoder: make the activations at this hook of the store or model, instead of those read.
    #[arg(long, value_name = "HOOK", num_args = 1..)]
    target_hook: Vec<String>,
    /// A crosscoder: one latent space for all --hook, a decoder for each.
    #[arg(long, requires = "hook", conflicts_with_all = ["target_hook", "cross_layer"])]
    crosscoder: bool,
    /// A crosscoder over models: the same hooks of these stores too, of the same text.
    #[arg(long, value_name = "STORE", num_args = 1.., requires = "crosscoder", conflicts_with = "text")]
    beside: Vec<String>,
    /// A cross-layer transcoder: latents read at each --hook, and write to the --target-hook of that layer
    /// and all later ones. --width and --k are those of a layer.
    #[arg(long, requires = "hook", requires = "target_hook")]
    cross_layer: bool,
    /// A transcoder with a linear skip from what it reads to what it writes.
    #[arg(long, requires = "target_hook")]
    skip: bool,
    /// Architecture; several are trained in one pass, as are several --k, --width, --seed and --hook.
    #[arg(long, value_enum, default_value = "topk", num_args = 1..)]
    arch: Vec<Arch>,
    /// Latents kept a row (on average, with batch-topk and matryoshka); the L0 that jump-relu aims at.
    #[arg(long, default_value = "32", num_args = 1..)]
    k: Vec<usize>,
    /// Weight of the L1 penalty of standard, p-anneal and gated; several train one autoencoder each.
    #[arg(long, num_args = 1..)]
    l1: Vec<f64>,
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
    /// Train on what the model predicts with the reconstruction in place (KL divergence), not on the
    /// squared error. Batches are whole contexts.
    #[arg(long, requires = "text")]
    end_to_end: bool,
    /// With --end-to-end: weight of the share of variance that the reconstruction misses.
    #[arg(long, requires = "end_to_end", default_value_t = 0.0)]
    mse: f64,
    /// With --end-to-end: weight of the same for the residual streams that follow.
    #[arg(long, requires = "end_to_end", default_value_t = 0.0)]
    downstream: f64,
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
    /// Number format of the saved weights; they are trained in f32.
    #[arg(long, value_enum, default_value = "f32")]
    dtype: Dtype,
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
    /// None, where the source has but one; several, where they stand side by side.
    hooks: &'a [String],
    arch: Arch,
    l1: Option<f64>,
    k: usize,
    width: &'a str,
    seed: u64,
}

impl Train {
    /// Whether the hooks stand side by side, instead of training one autoencoder each.
    fn is_joined(&self) -> bool {
        self.crosscoder || self.cross_layer
    }
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
    if !options.l1.is_empty() && !options.arch.iter().any(|a| a.has_l1()) {
        return Err("--l1 is for --arch standard, p-anneal and gated".into());
    }
    if options.p_end.is_some() && !options.arch.contains(&Arch::PAnneal) {
        return Err("--p-end is for --arch p-anneal".into());
    }
    let choices = choices(options);
    let mut jobs = Vec::new();
    let mut first_row = 0;
    let (from, device) = activations(options)?;
    for choice in &choices {
        let (job, first) = job(options, choice, &from, choices.len() > 1)?;
        first_row = first;
        jobs.push(job);
    }
    let device = device.map_or_else(|| options.device.open(), Ok)?;
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

/// Where it reads; and the device, if a model runs on it.
fn activations(options: &Train) -> Result<(Activations, Option<Device>), Failure> {
    let Some(text) = &options.text else {
        return Ok((Activations::Stored(options.source.clone()), None));
    };
    let device = options.device.open()?;
    let mut hooks = options.hook.clone();
    hooks.extend_from_slice(&options.target_hook);
    let tokens = (options.context, options.max_tokens);
    let on = match options.end_to_end {
        true => device.autodiff(),
        false => device.clone(),
    };
    let live = open_live(&options.source, text, &hooks, tokens, &on)?;
    Ok((Activations::Live(live), Some(device)))
}

/// Every combination of what was asked for.
fn choices(options: &Train) -> Vec<Choice<'_>> {
    let hooks: Vec<&[String]> = match options.hook.is_empty() || options.is_joined() {
        true => vec![&options.hook],
        false => options.hook.chunks(1).collect(),
    };
    let mut all = Vec::new();
    for hooks in hooks {
        for &arch in &options.arch {
            for (k, l1) in sparsities(options, arch) {
                for width in &options.width {
                    let of = |&seed| Choice {
                        hooks,
                        arch,
                        l1,
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

/// What an architecture is told about sparsity: every --k, or where a penalty rules every --l1.
fn sparsities(options: &Train, arch: Arch) -> Vec<(usize, Option<f64>)> {
    let k = options.k[0];
    match (arch.has_l1(), &options.l1[..]) {
        (false, _) => options.k.iter().map(|k| (*k, None)).collect(),
        (true, []) => vec![(k, None)],
        (true, all) => all.iter().map(|l1| (k, Some(*l1))).collect(),
    }
}

fn job(
    options: &Train,
    choice: &Choice,
    from: &Activations,
    many: bool,
) -> Result<(Job, usize), Failure> {
    let all = source(options, choice.hooks, from)?;
    let range = rows(&options.rows, all.rows())?;
    let source = all.sub(range.clone())?;
    let target = target(options, from)?;
    let target = target.map(|all| all.sub(range.clone())).transpose()?;
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

/// What is read: one hook, or several side by side.
fn source(options: &Train, hooks: &[String], from: &Activations) -> Result<Source, Failure> {
    if !options.is_joined() {
        return from.at(hooks.first().map(String::as_str));
    }
    let mut parts = Vec::new();
    for hook in hooks {
        parts.push(from.at(Some(hook))?);
    }
    for store in &options.beside {
        for hook in hooks {
            parts.push(open_source(store, Some(hook))?);
        }
    }
    Ok(beside(&parts)?)
}

/// What is to be written, if that is something else.
fn target(options: &Train, from: &Activations) -> Result<Option<Source>, Failure> {
    let hooks = &options.target_hook;
    match (options.cross_layer, hooks.len()) {
        (false, 0) => Ok(None),
        (false, 1) => from.at(Some(&hooks[0])).map(Some),
        (false, n) => Err(format!("--target-hook: {n} hooks are for --cross-layer").into()),
        (true, n) if n != options.hook.len() => {
            let read = options.hook.len();
            Err(format!(
                "--cross-layer: {read} hooks to read and {n} to write; a layer has one of each"
            )
            .into())
        }
        (true, _) => {
            let parts: Result<Vec<_>, _> = hooks.iter().map(|hook| from.at(Some(hook))).collect();
            Ok(Some(beside(&parts?)?))
        }
    }
}

fn config(options: &Train, choice: &Choice, source: &Source) -> Result<TrainConfig, Failure> {
    let sites = source.parts().len();
    let d_sae = width(choice.width, source.width() / sites)?;
    let tokens = options.tokens.unwrap_or(source.rows() as u64);
    let mut config = TrainConfig {
        batch: options.batch,
        sites,
        cross_layer: options.cross_layer,
        ..TrainConfig::new(source.width() / sites, d_sae, choice.k, tokens)
    };
    config.seed = choice.seed;
    config.skip = options.skip;
    config.conventions.subtract_b_dec = options.target_hook.is_empty() && !options.crosscoder;
    config.architecture = architecture(options, choice, [source.width(), d_sae]);
    if let Some(preset) = options.preset {
        if preset == Preset::AnthropicJumpRelu && choice.arch != Arch::JumpRelu {
            return Err("--preset anthropic-jumprelu is for --arch jump-relu".into());
        }
        preset.apply(&mut config, source.width() / sites);
    }
    if let (true, Some(live)) = (options.end_to_end, source.model()) {
        let (mse, downstream) = (options.mse, options.downstream);
        config.end_to_end = Some(EndToEnd { mse, downstream });
        config.batch = (config.batch / live.content()).max(1) * live.content();
    }
    if sites > 1 {
        // A penalty weighs what a latent writes by its length at every site.
        config.conventions.unit_decoder &= config.k().is_some();
        config.conventions.subtract_b_dec = false;
    }
    if let Some(l1) = choice.l1 {
        set_l1(&mut config.architecture, l1);
    }
    config.lr = options.lr.unwrap_or(config.lr);
    config.dead_after = options.dead_after.unwrap_or(config.dead_after);
    config.resample_every = options.resample_every;
    config.ema = options.ema;
    config.lazy_adam = options.lazy_adam;
    config.dtype = match options.dtype {
        Dtype::F32 => WeightDtype::F32,
        Dtype::F16 => WeightDtype::F16,
        Dtype::Bf16 => WeightDtype::Bf16,
    };
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

fn set_l1(architecture: &mut Architecture, l1: f64) {
    match architecture {
        Architecture::Standard(s) => s.l1 = l1,
        Architecture::Gated(g) => g.l1 = l1,
        _ => unreachable!("only architectures with a penalty are given one"),
    }
}

/// The directory of one of many: `topk-k32-w3072-s0`, of several hooks in one of the hook's name.
fn label(options: &Train, choice: &Choice, d_sae: usize) -> PathBuf {
    let arch = choice.arch.to_possible_value();
    let arch = arch.map_or_else(String::new, |a| a.get_name().to_string());
    let sparsity = match (choice.l1, choice.arch.has_l1()) {
        (Some(l1), _) => format!("-l1-{l1}"),
        (None, true) => String::new(),
        (None, false) => format!("-k{}", choice.k),
    };
    let name = format!("{arch}{sparsity}-w{d_sae}-s{}", choice.seed);
    match choice.hooks {
        [hook] if options.hook.len() > 1 => PathBuf::from(hook).join(name),
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
