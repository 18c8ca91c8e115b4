use std::path::PathBuf;

use burn::tensor::{Tensor, TensorData};
use clap::Args;
use clap::builder::RangedU64ValueParser;

use super::{DeviceOption, Failure, bar, print_json};
use crate::Device;
use crate::capture::paired_rows;
use crate::capture::store::{Source, Store, write_whole};
use crate::hook::matches;
use crate::report::{COMPARISON, Comparison, split_labels};
use crate::similarity::{Metric, matrix};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// STORE:HOOK, FILE.safetensors[:TENSOR], or a store directory for all its hooks.
    a: String,
    /// The other side; left out, A is compared with itself, hook by hook.
    b: Option<String>,
    /// linear_cka, linear_cka[biased], rsa, svcca, mutual_knn, mutual_knn[k=5,by=inner], …
    #[arg(long, required = true, num_args = 1..)]
    metric: Vec<Metric>,
    /// Of a store directory, only the hooks that match.
    #[arg(long, default_value = "*")]
    hooks: String,
    /// Use at most this many rows, drawn without replacement.
    #[arg(long, default_value_t = 5000, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    max_rows: usize,
    /// Seed of the draw.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Also keep the result in this directory, for `inscape report`.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceOption,
}

/// The sources that a spelling names: one, or every hook of a store.
fn open(spec: &str, hooks: &str) -> Result<Vec<Source>, Failure> {
    if !std::path::Path::new(spec).is_dir() {
        return Ok(vec![Source::open(spec)?]);
    }
    let store = std::sync::Arc::new(Store::open(spec)?);
    let wanted: Vec<&str> = store
        .hooks()
        .iter()
        .map(|h| h.name.as_str())
        .filter(|name| matches(hooks, name))
        .collect();
    if wanted.is_empty() {
        let all: Vec<&str> = store.hooks().iter().map(|h| h.name.as_str()).collect();
        return Err(format!(
            "{spec}: no hook matches `{hooks}`; it holds {}",
            all.join(", ")
        )
        .into());
    }
    wanted
        .into_iter()
        .map(|name| Ok(Source::hook(&store, name)?))
        .collect()
}

fn tensor(rows: Vec<f32>, width: usize, device: &Device) -> Tensor<2> {
    let n = rows.len() / width;
    Tensor::from_data(TensorData::new(rows, [n, width]), device.tensor())
}

/// Compares the sources of two sides; `right` empty means the left side with itself.
pub(super) fn compare(
    left: &[Source],
    right: &[Source],
    metrics: &[Metric],
    max_rows: usize,
    seed: u64,
    device: &Device,
) -> Result<Vec<Comparison>, Failure> {
    let all: Vec<Source> = left.iter().chain(right).cloned().collect();
    let rows = paired_rows(&all, max_rows, seed)?;
    let used = rows[0].len() / all[0].width();
    let mut x: Vec<Tensor<2>> = rows
        .into_iter()
        .zip(&all)
        .map(|(rows, s)| tensor(rows, s.width(), device))
        .collect();
    let y = x.split_off(left.len());
    let columns = if right.is_empty() { left } else { right };
    let labels = |sources: &[Source]| sources.iter().map(|s| s.name().to_string()).collect();
    metrics
        .iter()
        .map(|metric| {
            let progress = bar("compare", "steps", 1);
            let seen = |done: usize, total: usize| {
                progress.set_length(total as u64);
                progress.set_position(done as u64);
            };
            let values = if right.is_empty() {
                matrix(&x, &x, *metric, seen)
            } else {
                matrix(&x, &y, *metric, seen)
            };
            progress.finish_and_clear();
            let values = values.map_err(|e| format!("{metric}: {e}"))?;
            Ok(Comparison {
                metric: metric.to_string(),
                rows: used,
                of_rows: all[0].rows(),
                row_labels: labels(left),
                column_labels: labels(columns),
                values,
            })
        })
        .collect()
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let left = open(&options.a, &options.hooks)?;
    let right = options
        .b
        .as_ref()
        .map_or(Ok(Vec::new()), |b| open(b, &options.hooks))?;
    let device = options.device.open()?;
    let found = compare(
        &left,
        &right,
        &options.metric,
        options.max_rows,
        options.seed,
        &device,
    )?;
    if let Some(out) = &options.out {
        std::fs::create_dir_all(out).map_err(|e| format!("{}: {e}", out.display()))?;
        write_whole(&out.join(COMPARISON), &serde_json::to_vec_pretty(&found)?)?;
    }
    if options.json {
        print_json(&found)
    } else {
        found.iter().try_for_each(print)
    }
}

pub(super) fn print(found: &Comparison) -> Result<(), Failure> {
    say!(
        "{} over {} of {} rows",
        found.metric,
        found.rows,
        found.of_rows
    );
    if let [[value]] = found.values.iter().map(Vec::as_slice).collect::<Vec<_>>()[..] {
        say!(
            "{value:.6}  {}  {}",
            found.row_labels[0],
            found.column_labels[0]
        );
        return Ok(());
    }
    let (store, rows) = split_labels(&found.row_labels);
    let (other, columns) = split_labels(&found.column_labels);
    if let (Some(a), Some(b)) = (store, other) {
        say!("rows: {a}, columns: {b}");
    }
    let wide = rows
        .iter()
        .chain(&columns)
        .map(|l| l.len())
        .max()
        .unwrap_or(0)
        + 4;
    if rows != columns {
        for (i, label) in columns.iter().enumerate() {
            say!("{:wide$} {i:>7}  {label}", "");
        }
    }
    let numbers: String = (0..columns.len()).map(|i| format!(" {i:>7}")).collect();
    say!("{:wide$}{numbers}", "");
    for (i, (label, values)) in rows.iter().zip(&found.values).enumerate() {
        let cells: String = values.iter().map(|v| format!(" {v:7.4}")).collect();
        say!("{:wide$}{cells}", format!("{i:>2}  {label}"));
    }
    Ok(())
}
