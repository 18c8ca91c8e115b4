use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{DeviceOption, Failure, print_json, spinner};
use crate::capture::store::{Dtype, Positions, Store};
use crate::capture::{CaptureConfig, capture};
use crate::model;

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Number {
    F32,
    F16,
}

#[derive(Debug, Args)]
pub(super) struct Options {
    /// A model directory, or an embedded model (tiny-lm-1, tiny-lm-2, tiny-lm-3).
    model: PathBuf,
    /// UTF-8 text, or - for standard input.
    #[arg(long)]
    text: PathBuf,
    /// Hook names or globs, as `inscape hooks MODEL` lists them.
    #[arg(long, required = true, num_args = 1..)]
    hooks: Vec<String>,
    /// The store's directory.
    #[arg(long)]
    out: PathBuf,
    /// Which rows of a context to keep: all, last, mean or I..J.
    #[arg(long, default_value = "all")]
    positions: Positions,
    /// Number format on disk.
    #[arg(long, value_enum, default_value = "f32")]
    dtype: Number,
    /// Contexts in a forward pass.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Tokens in a context, special tokens included.
    #[arg(long, default_value_t = 128)]
    context: usize,
    /// Stop after this many tokens of the text.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    max_tokens: Option<u64>,
    /// Size of a shard in MiB, which is held in memory until it is full.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    shard_mb: u32,
    /// Continue an interrupted capture.
    #[arg(long)]
    resume: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceOption,
}

#[derive(Serialize)]
struct Summary<'a> {
    out: &'a Path,
    rows: usize,
    hooks: usize,
    shards: usize,
    bytes: u64,
    tokens: u64,
    seconds: f64,
    tokens_per_second: f64,
}

pub(super) fn open_text(path: &Path) -> Result<(Box<dyn Read>, String), Failure> {
    let name = path.display().to_string();
    if name == "-" {
        return Ok((Box::new(std::io::stdin()), "standard input".into()));
    }
    let file = File::open(path).map_err(|e| format!("{name}: {e}"))?;
    Ok((Box::new(file), name))
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let (text, name) = open_text(&options.text)?;
    let device = options.device.open()?;
    let network = model::load(&options.model, &device)?;
    let config = CaptureConfig {
        positions: options.positions,
        dtype: match options.dtype {
            Number::F32 => Dtype::F32,
            Number::F16 => Dtype::F16,
        },
        batch: options.batch as usize,
        context: options.context,
        max_tokens: options.max_tokens,
        shard_bytes: (options.shard_mb as usize) << 20,
        ..CaptureConfig::new(options.hooks.clone())
    };
    let bar = match options.max_tokens {
        Some(n) => super::bar("capture", "tokens", n),
        None => spinner("capture", "tokens"),
    };
    let (begun, mut tokens, mut here) = (Instant::now(), 0, 0);
    let store = capture(
        &network,
        text,
        &name,
        &options.out,
        &config,
        options.resume,
        device.name(),
        |p| {
            if tokens == 0 && p.resumed > 0 {
                bar.set_position(p.resumed);
                bar.reset_eta();
            }
            tokens = p.tokens;
            here = p.tokens - p.resumed;
            bar.set_position(p.tokens);
        },
    )?;
    bar.finish_and_clear();
    report(options, &store, here, begun.elapsed().as_secs_f64())
}

fn report(options: &Options, store: &Store, tokens: u64, seconds: f64) -> Result<(), Failure> {
    let totals = &store.manifest().totals;
    let summary = Summary {
        out: &options.out,
        rows: store.rows(),
        hooks: store.hooks().len(),
        shards: store.manifest().shards.len(),
        bytes: totals.bytes,
        tokens,
        seconds,
        tokens_per_second: tokens as f64 / seconds,
    };
    if options.json {
        return print_json(&summary);
    }
    say!(
        "{}: {} rows at {} hooks in {} shards, {:.1} MB; {tokens} tokens in {seconds:.1} s, {:.0} tokens/s",
        options.out.display(),
        summary.rows,
        summary.hooks,
        summary.shards,
        summary.bytes as f64 / 1e6,
        summary.tokens_per_second,
    );
    Ok(())
}
