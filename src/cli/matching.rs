//! `inscape sae match`.

use std::path::PathBuf;

use burn::tensor::{Tensor, TensorData};
use clap::Args;
use clap::builder::RangedU64ValueParser;
use serde::Serialize;

use super::sae::{open_raw, read_raw};
use super::{DeviceOption, Failure, bar, print_json};
use crate::Device;
use crate::capture::paired_rows;
use crate::device::block_on;
use crate::sae::Sae;
use crate::sae::eval::matching::{Correlations, Matched, cosines};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The first autoencoder: its directory, or another tool's directory or weight file.
    a: PathBuf,
    /// The second.
    b: PathBuf,
    /// A store directory, STORE:HOOK, or a matrix: also match by activations on its rows.
    source: Option<String>,
    /// The same rows as the second autoencoder reads them. Default: as the first does.
    source_b: Option<String>,
    /// Use at most this many rows, drawn without replacement.
    #[arg(long, default_value_t = 20_000, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    max_rows: usize,
    /// Seed of the draw.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Pairs to list.
    #[arg(long, default_value_t = 10)]
    top: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceOption,
}

/// What was matched.
#[derive(Serialize)]
struct Found {
    latents: [usize; 2],
    rows: Option<usize>,
    cosine: Option<Matched>,
    correlation: Option<Matched>,
}

/// Scores that are held: 1 GiB.
const MOST: usize = 1 << 27;

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let device = options.device.open()?;
    let (a, _) = read_raw(&options.a, &device)?;
    let (b, _) = read_raw(&options.b, &device)?;
    let latents = [a.d_sae(), b.d_sae()];
    if latents[0].saturating_mul(latents[1]) > MOST {
        let text = format!(
            "{} times {} latents have too many pairs to match",
            latents[0], latents[1]
        );
        return Err(text.into());
    }
    let widths = [a.d_out(), b.d_out()];
    if options.source.is_none() && widths[0] != widths[1] {
        return Err(format!(
            "{} writes rows of width {}, {} of {}: without a store there is nothing to match by",
            options.a.display(),
            widths[0],
            options.b.display(),
            widths[1]
        )
        .into());
    }
    let cosine = match widths[0] == widths[1] {
        true => Some(block_on(cosines(a.w_dec.clone(), b.w_dec.clone()))?.matched()?),
        false => None,
    };
    let (rows, correlation) = match &options.source {
        Some(source) => {
            let (rows, found) = correlate(options, source, [&a, &b], &device)?;
            (Some(rows), Some(found))
        }
        None => (None, None),
    };
    let mut found = Found {
        latents,
        rows,
        cosine,
        correlation,
    };
    let both = [&mut found.cosine, &mut found.correlation];
    for matched in both.into_iter().flatten() {
        matched.pairs.truncate(options.top);
    }
    match options.json {
        true => print_json(&found),
        false => print(&found),
    }
}

fn correlate(
    options: &Options,
    source: &str,
    saes: [&Sae; 2],
    device: &Device,
) -> Result<(usize, Matched), Failure> {
    let other = options.source_b.as_deref().unwrap_or(source);
    let (_, a) = open_raw(&options.a, source, None, device)?;
    let (_, b) = open_raw(&options.b, other, None, device)?;
    let rows = paired_rows(&[a.clone(), b.clone()], options.max_rows, options.seed)?;
    let n = rows[0].len() / a.width();
    let progress = bar("match", "rows", n as u64);
    let mut all = Correlations::new(saes[0].d_sae(), saes[1].d_sae());
    for start in (0..n).step_by(2048) {
        let here = 2048.min(n - start);
        let latents = |i: usize, d: usize| {
            let part = rows[i][start * d..][..here * d].to_vec();
            let x = Tensor::from_data(TensorData::new(part, [here, d]), device.tensor());
            block_on(saes[i].encode(x).compact())
        };
        let (of_a, of_b) = (latents(0, a.width())?, latents(1, b.width())?);
        block_on(all.add_latents(&of_a, &of_b))?;
        progress.inc(here as u64);
    }
    progress.finish_and_clear();
    Ok((n, all.finish().matched()?))
}

fn print(found: &Found) -> Result<(), Failure> {
    let [a, b] = found.latents;
    say!("{a} latents and {b}");
    if let Some(rows) = found.rows {
        say!("correlations of activations on {rows} rows");
    }
    let both = [
        ("cosine", &found.cosine),
        ("correlation", &found.correlation),
    ];
    say!("             with a score     best of the other's    one to one");
    for (name, matched) in both {
        if let Some(m) = matched {
            say!(
                "{name:<12}{:>7}{:>7}{:>14.4}{:>9.4}{:>14.4}",
                m.features[0],
                m.features[1],
                m.best[0],
                m.best[1],
                m.one_to_one
            );
        }
    }
    for (name, matched) in both {
        for pair in matched.iter().flat_map(|m| &m.pairs) {
            say!("{name:<12}{:>7}{:>7}{:>9.4}", pair.a, pair.b, pair.score);
        }
    }
    Ok(())
}
