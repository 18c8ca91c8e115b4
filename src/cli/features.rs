//! `inscape sae neuronpedia`.

use std::path::PathBuf;

use clap::Args;
use clap::builder::RangedU64ValueParser;

use super::sae::{open_raw, tokens_of};
use super::sae_files::refuse_to_overwrite;
use super::{DeviceOption, Failure, bar, print_json};
use crate::capture::store::Source;
use crate::hook::Site;
use crate::sae::features::{Survey, interesting};
use crate::sae::format::neuronpedia::{Batch, Extent, contexts, write_batches};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The autoencoder: its directory, or another tool's directory or weight file.
    sae: PathBuf,
    /// A store directory, STORE:HOOK, or FILE.safetensors[:TENSOR].
    source: String,
    /// The hook, where it is not the one the autoencoder was trained on.
    #[arg(long)]
    hook: Option<String>,
    /// The directory to write batch-0.json, batch-1.json, … into.
    #[arg(long)]
    out: PathBuf,
    /// The model, which gives tokens their text; an embedded model is found by itself.
    #[arg(long)]
    model: Option<PathBuf>,
    /// Only the features most worth a look, at most this many. Default: all that fired.
    #[arg(long, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    features: Option<usize>,
    /// Features in a file.
    #[arg(long, default_value_t = 64, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    per_batch: usize,
    /// Examples of a feature, at most one a context.
    #[arg(long, default_value_t = 10)]
    examples: usize,
    /// Tokens to either side of an example's peak.
    #[arg(long, default_value_t = 16)]
    radius: usize,
    /// The model's name at Neuronpedia. Default: that of the store's model.
    #[arg(long)]
    model_id: Option<String>,
    /// The name of the set of autoencoders. Default: that of the autoencoder's file or directory.
    #[arg(long)]
    set: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceOption,
}

/// Tokens listed as raised, and as lowered.
const TOKENS: usize = 10;

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    refuse_to_overwrite(&options.out)?;
    let device = options.device.open()?;
    let hook = options.hook.as_deref();
    let (sae, source) = open_raw(&options.sae, &options.source, hook, &device)?;
    let network = tokens_of(&source, options.model.as_deref(), &device)?;
    if network.is_none() {
        eprintln!("note: without --model, tokens are shown as ids");
    }
    let rows = source.rows();
    let choose = |survey: &[Survey]| match options.features {
        Some(n) => interesting(survey, rows, n),
        None => (0..survey.len()).collect(),
    };
    let extent = Extent {
        per_batch: options.per_batch,
        examples: options.examples,
        radius: options.radius,
        tokens: TOKENS,
    };
    let progress = bar("neuronpedia", "steps", 2 * rows as u64);
    let found = write_batches(
        &sae,
        &source,
        network.as_ref(),
        &about(options, &source)?,
        &extent,
        choose,
        &options.out,
        &device,
        |done, total| {
            progress.set_length(total as u64);
            progress.set_position(done as u64);
        },
    )?;
    progress.finish_and_clear();
    if options.json {
        return print_json(&found);
    }
    say!(
        "{}: {} features in {} files, {} examples of {} rows; {} latents never fired",
        options.out.display(),
        found.features,
        found.batches,
        found.examples,
        found.rows,
        found.silent
    );
    Ok(())
}

fn about(options: &Options, source: &Source) -> Result<Batch, Failure> {
    let settings = source.store().map(|s| &s.manifest().settings);
    let model = settings.map_or("unknown", |s| &s.model.id);
    let hook = source.name().rsplit_once(':').map_or("", |(_, hook)| hook);
    let layer = hook.parse().ok().and_then(|site: Site| site.layer());
    let file = options.sae.canonicalize()?;
    // Directories may have a dot in their names.
    let name = match file.is_dir() {
        true => file.file_name(),
        false => file.file_stem(),
    };
    let name = name.unwrap_or_default().to_string_lossy();
    Ok(Batch {
        model_id: options.model_id.clone().unwrap_or_else(|| model.into()),
        layer: layer.unwrap_or(0),
        sae_set: options.set.clone().unwrap_or_else(|| name.into()),
        sae_id_suffix: None,
        dataset: settings.map_or_else(|| source.name().into(), |s| s.text.clone()),
        n_prompts: contexts(source)?,
        n_tokens_in_prompt: settings.map_or(1, |s| s.context),
        rows: source.rows(),
    })
}
