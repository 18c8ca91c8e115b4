use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};

use super::sae_train::{self, Train};
use super::{
    DeviceOption, Failure, bar, capture::open_text, print_json, rows, sae_files, selftest,
};
use crate::capture::Live;
use crate::capture::store::{Source, write_whole};
use crate::device::block_on;
use crate::model::{self, Network};
use crate::report::{EVALUATION, Evaluated};
use crate::sae::eval::{Spliced, SplicedAccumulator};
use crate::sae::{Sae, format, session};
use crate::{Device, capture};

#[derive(Debug, Subcommand)]
pub(super) enum Sub {
    /// Train an autoencoder on stored activations, on a matrix, or on a model while it runs.
    Train(Box<Train>),
    /// Measure an autoencoder on activations, and in its model.
    Eval(Eval),
    /// Write an autoencoder in another tool's format.
    Convert(sae_files::Convert),
    /// Describe an autoencoder of any tool.
    Show(sae_files::Show),
    /// Probe an autoencoder's latents for concepts that the text's own tokens label.
    Probe(super::probe::Options),
    /// Ablate the latents of concepts that the text's own tokens label: SCR and TPP.
    Scr(super::removal::Options),
    /// Write features for the dashboards of Neuronpedia, with the places where they fire most.
    Neuronpedia(super::features::Options),
    /// Say which features of two autoencoders are the same.
    Match(super::matching::Options),
    /// Train on synthetic activations of known features, and count how many are found.
    Selftest(selftest::Options),
}

#[derive(Debug, Args)]
pub(super) struct Eval {
    /// The autoencoder: its directory, or another tool's directory or weight file.
    sae: PathBuf,
    /// A store directory, STORE:HOOK, or FILE.safetensors[:TENSOR]; with --text also a model directory or
    /// an embedded model, to measure it on what the model computes.
    source: String,
    /// The hook, where it is not the one the autoencoder was trained on.
    #[arg(long)]
    hook: Option<String>,
    /// The other stores of a crosscoder over models, in the order it was trained on.
    #[arg(long, value_name = "STORE", num_args = 1..)]
    beside: Vec<String>,
    /// Which rows to measure, like 90%..
    #[arg(long, default_value = "..")]
    rows: String,
    /// A language model: also measure the cross-entropy it keeps with the autoencoder spliced in.
    #[arg(long, requires = "text")]
    model: Option<PathBuf>,
    /// The text that models run on, or -.
    #[arg(long)]
    text: Option<PathBuf>,
    /// Tokens of the text to use. Default: 20,000 for the cross-entropy, for activations all.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    text_tokens: Option<u64>,
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
        Sub::Train(options) => sae_train::run(options),
        Sub::Eval(options) => eval(options),
        Sub::Convert(options) => sae_files::convert(options),
        Sub::Show(options) => sae_files::show(options),
        Sub::Probe(options) => super::probe::run(options),
        Sub::Scr(options) => super::removal::run(options),
        Sub::Neuronpedia(options) => super::features::run(options),
        Sub::Match(options) => super::matching::run(options),
        Sub::Selftest(options) => selftest::run(options),
    }
}

/// Where activations come from.
pub(super) enum Activations {
    /// What was stored: `STORE` or a full spelling.
    Stored(String),
    /// A model that runs.
    Live(Live),
}

impl Activations {
    /// At one hook, or at several that are joined by commas, side by side.
    pub(super) fn at(&self, hook: Option<&str>) -> Result<Source, Failure> {
        if let Some(hooks) = hook.filter(|hooks| hooks.contains(',')) {
            let parts = hooks.split(',').map(|hook| self.at(Some(hook)));
            return Ok(capture::beside(&parts.collect::<Result<Vec<_>, _>>()?)?);
        }
        match (self, hook) {
            (Self::Stored(spec), hook) => open_source(spec, hook),
            (Self::Live(live), Some(hook)) => Ok(live.source(hook)?),
            (Self::Live(_), None) => Err("a model has many hooks; give --hook".into()),
        }
    }
}

/// A model directory, or an embedded model.
fn is_model(spec: &str) -> bool {
    let dir = Path::new(spec);
    let embedded = model::load::EMBEDDED.iter().any(|m| m.name == spec);
    match dir.exists() {
        true => dir.join("config.json").exists(),
        false => embedded,
    }
}

/// Contexts that a model runs at once.
const PASS: usize = 16;

/// A model at some hooks, on a text cut into contexts of so many tokens, up to so many.
pub(super) fn open_live(
    model: &str,
    text: &Path,
    hooks: &[String],
    (context, max_tokens): (usize, Option<u64>),
    device: &Device,
) -> Result<Live, Failure> {
    let (reader, name) = open_text(text)?;
    let network = Arc::new(model::load(model, device)?);
    Ok(Live::new(
        network, reader, &name, hooks, context, PASS, max_tokens,
    )?)
}

/// `STORE` with a hook, or a full spelling.
pub(super) fn open_source(spec: &str, hook: Option<&str>) -> Result<Source, Failure> {
    let spec = match hook {
        Some(hook) => format!("{spec}:{hook}"),
        None => spec.to_string(),
    };
    Ok(Source::open(&spec)?)
}

/// An autoencoder of any tool that takes rows as they are, and what it was trained on.
pub(super) fn read_raw(path: &Path, device: &Device) -> Result<(Sae, Option<String>), Failure> {
    refuse_unfinished(path)?;
    if format::is_cross_layer(path) {
        let text =
            "it is a cross-layer transcoder, which only `sae eval`, `show` and `convert` take";
        return Err(format!("{}: {text}", path.display()).into());
    }
    let format::Loaded { sae, metadata, .. } = format::read(path, None, device.tensor())?;
    if format::is_normalized(&metadata) {
        let text = "it acts on rows that are normalised first, which only `sae eval` does";
        return Err(format!("{}: {text}", path.display()).into());
    }
    Ok((sae, metadata["hook_name"].as_str().map(str::to_owned)))
}

/// The same with the rows of `spec`, at `hook` or, of a store, at the one it was trained on.
pub(super) fn open_raw(
    path: &Path,
    spec: &str,
    hook: Option<&str>,
    device: &Device,
) -> Result<(Sae, Source), Failure> {
    let (sae, trained) = read_raw(path, device)?;
    let trained = trained.as_deref().filter(|_| Path::new(spec).is_dir());
    let source = open_source(spec, hook.or(trained))?;
    let (name, width, d_in) = (source.name(), source.width(), sae.d_in());
    if width != d_in {
        let text = format!("{name} has rows of width {width}, the autoencoder takes {d_in}");
        return Err(text.into());
    }
    Ok((sae, source))
}

/// The model whose tokens a source has: the one named, or the store's where it is an embedded one.
pub(super) fn tokens_of(
    source: &Source,
    named: Option<&Path>,
    device: &Device,
) -> Result<Option<Network>, Failure> {
    let Some(store) = source.store() else {
        return Ok(None);
    };
    let settings = &store.manifest().settings;
    let mut embedded = model::load::EMBEDDED.iter();
    let network = match named {
        Some(path) => model::load(path, device)?,
        None if embedded.any(|m| m.name == settings.model.id) => {
            model::load(&settings.model.id, device)?
        }
        None => return Ok(None),
    };
    if network.info.tokenizer_sha256 != settings.tokenizer_sha256 {
        let (id, name) = (&network.info.id, store.dir().display());
        return Err(format!("the tokenizer of {id} is not the one that made {name}").into());
    }
    Ok(Some(network))
}

fn eval(options: &Eval) -> Result<(), Failure> {
    let device = options.device.open()?;
    refuse_unfinished(&options.sae)?;
    if format::is_cross_layer(&options.sae) {
        return layers(options, &device);
    }
    let format::Loaded { sae, metadata, .. } = format::read(&options.sae, None, device.tensor())?;
    let trained = metadata["hook_name"].as_str().map(str::to_owned);
    let has_hooks = Path::new(&options.source).is_dir() || is_model(&options.source);
    let hook = options
        .hook
        .clone()
        .or(if has_hooks { trained.clone() } else { None });
    let written = written(&metadata);
    let hooks = hook.iter().chain(&written);
    let hooks: Vec<String> = hooks
        .flat_map(|h| h.split(',').map(str::to_owned))
        .collect();
    let from = activations(options, &hooks, &device)?;
    let all = match has_hooks {
        true => side_by_side(&from, &hook, &options.beside)?,
        false => from.at(hook.as_deref())?,
    };
    let range = rows(&options.rows, all.rows())?;
    let source = all.sub(range.clone())?;
    let target = match &written {
        None => source.clone(),
        Some(hook) if has_hooks => from.at(Some(hook))?.sub(range)?,
        Some(hook) => {
            let text = format!("it makes {hook}: measure it on a store that holds both hooks");
            return Err(format!("{}: {text}", options.sae.display()).into());
        }
    };
    let progress = bar("evaluate", "rows", source.rows() as u64);
    let seen = |n| progress.set_position(n as u64);
    let normalised = format::is_normalized(&metadata);
    let reconstruction = match normalised {
        true => session::evaluate_normalised(&sae, &source, &device, seen)?,
        false => session::evaluate_pair(&sae, &source, &target, &device, seen)?,
    };
    progress.finish_and_clear();
    let spliced = match (&options.model, &options.text) {
        (Some(model), Some(text)) => {
            let hook = options
                .hook
                .clone()
                .or(trained)
                .ok_or("the autoencoder names no hook; give --hook")?;
            let accumulator = match &written {
                Some(written) => SplicedAccumulator::across(sae, &hook, written),
                None if normalised => SplicedAccumulator::normalised(sae, &hook),
                None => SplicedAccumulator::new(sae, &hook),
            };
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

/// What an autoencoder reads: of a crosscoder over models the same hooks of each store.
fn side_by_side(
    from: &Activations,
    hook: &Option<String>,
    others: &[String],
) -> Result<Source, Failure> {
    let Some(hooks) = hook else {
        return from.at(None);
    };
    let hooks: Vec<&str> = hooks.split(',').collect();
    let stores = 1 + others.len();
    let each = &hooks[..hooks.len() / stores];
    if hooks.len() == 1 && others.is_empty() {
        return from.at(Some(hooks[0]));
    }
    let repeated = (1..each.len()).any(|i| each[..i].contains(&each[i]));
    if repeated || hooks.chunks(each.len().max(1)).any(|chunk| chunk != each) {
        let n = hooks.len();
        return Err(format!(
            "it reads {n} activations of several models: name the other stores with --beside"
        )
        .into());
    }
    let mut parts = Vec::new();
    for hook in each {
        parts.push(from.at(Some(hook))?);
    }
    for store in others {
        for hook in each {
            parts.push(open_source(store, Some(hook))?);
        }
    }
    Ok(capture::beside(&parts)?)
}

/// Of a cross-layer transcoder: every layer.
fn layers(options: &Eval, device: &Device) -> Result<(), Failure> {
    let path = &options.sae;
    if options.model.is_some() {
        let text = "splicing in is for autoencoders that read at one place";
        return Err(format!("{}: {text}", path.display()).into());
    }
    let (transcoder, metadata) = format::load_cross_layer(path, device.tensor())?;
    let named = |key: &str| metadata[key].as_str().map(str::to_owned);
    let missing = || format!("{}: it names no hooks", path.display());
    let read = options
        .hook
        .clone()
        .or(named("hook_name"))
        .ok_or_else(missing)?;
    let write = named("hook_name_out").ok_or_else(missing)?;
    let hooks: Vec<String> = [&read, &write]
        .into_iter()
        .flat_map(|h| h.split(',').map(str::to_owned))
        .collect();
    let from = activations(options, &hooks, device)?;
    let all = from.at(Some(&read))?;
    let range = rows(&options.rows, all.rows())?;
    let (source, target) = (all.sub(range.clone())?, from.at(Some(&write))?.sub(range)?);
    let progress = bar("evaluate", "rows", source.rows() as u64);
    let seen = |n| progress.set_position(n as u64);
    let found = session::evaluate_cross_layer(&transcoder, &source, &target, device, seen)?;
    progress.finish_and_clear();
    if options.json {
        return print_json(&found);
    }
    say!(
        "{} rows {} of {}",
        source.rows(),
        options.rows,
        source.name()
    );
    for (l, r) in found.iter().enumerate() {
        say!(
            "layer {l}: L0 {:.2}   FVU {:.4}   cosine {:.4}   dead {:.2} %",
            r.l0,
            r.fvu,
            r.cosine,
            100.0 * r.dead_share
        );
    }
    Ok(())
}

fn activations(options: &Eval, hooks: &[String], device: &Device) -> Result<Activations, Failure> {
    let source = &options.source;
    match &options.text {
        Some(text) if is_model(source) => {
            let tokens = (options.context, options.text_tokens);
            let live = open_live(source, text, hooks, tokens, device)?;
            Ok(Activations::Live(live))
        }
        Some(_) if options.model.is_none() => {
            let text = "no model to run on the text: give --model, or a model as the source";
            Err(format!("{source}: {text}").into())
        }
        _ => Ok(Activations::Stored(source.clone())),
    }
}

/// The hook that a transcoder writes to.
fn written(metadata: &serde_json::Value) -> Option<String> {
    let hook = metadata["hook_name_out"].as_str()?;
    (metadata["hook_name"] != hook).then(|| hook.to_owned())
}

/// A training run without its autoencoder is one that has not come to its end.
pub(super) fn refuse_unfinished(dir: &Path) -> Result<(), Failure> {
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
        PASS,
        options.text_tokens.or(Some(20_000)),
    )?;
    let progress = bar("splice", "batches", batches.len() as u64);
    for tokens in &batches {
        block_on(all.learn_mean(network.model.as_ref(), tokens))?;
    }
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
    say!(
        "L1 {:.3}   explained variance {:.4}   shrinkage {:.4}   encoder · decoder {:.4}",
        r.l1,
        r.explained_variance,
        r.shrinkage,
        r.encoder_decoder_cosine
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
        let against = [("zero", s.zero), ("mean", s.mean), ("resample", s.resample)];
        for (name, ablated) in against {
            if let Some(a) = ablated {
                say!(
                    "against {name} ablation: {:.4} nats, cross-entropy recovered {:.2} %, KL recovered {:.2} %",
                    a.ce,
                    100.0 * a.ce_recovered,
                    100.0 * (1.0 - a.kl_ratio),
                );
            }
        }
    }
    Ok(())
}
