use std::path::PathBuf;
use std::str::FromStr;

use burn::tensor::{Tensor, TensorData};
use clap::Args;
use clap::builder::RangedU64ValueParser;

use super::{DeviceOption, Failure, bar, print_json};
use crate::Device;
use crate::capture::paired_rows;
use crate::capture::store::{Source, Store, write_whole};
use crate::device::{block_on, read};
use crate::hook::matches;
use crate::report::{COMPARISON, Comparison, Heatmap, RDMS, split_labels};
use crate::similarity::{
    self, Baseline, Channels, Flatten, Interval, Metric, Null, Rdm, Rdms, bootstrap, matrix, null,
};

/// Share of intervals that hold the true value.
const LEVEL: f64 = 0.95;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// STORE:HOOK, FILE.safetensors[:TENSOR], or a store directory for all its hooks.
    a: String,
    /// The other side; left out, A is compared with itself, hook by hook.
    b: Option<String>,
    /// `all`, or linear_cka, rbf_cka[sigma=0.5*median], rsa[by=pearson], procrustes, mutual_knn[k=5], …; a wrong name
    /// lists them.
    #[arg(long, required = true, num_args = 1.., value_name = "METRIC")]
    metric: Vec<Choice>,
    /// Compare all of A and B with all of A and B: layers by layers, within and between.
    #[arg(long)]
    matrix: bool,
    /// Hold each value against this many values by chance.
    #[arg(long, value_name = "DRAWS", default_value_t = 0)]
    null: usize,
    /// What chance is: the rows of one side shuffled, or its columns turned at random.
    #[arg(long, value_enum, default_value_t = ByChance::Rows)]
    by_chance: ByChance,
    /// Give each value a 95 % interval from this many draws of half of the rows.
    #[arg(long, value_name = "DRAWS", default_value_t = 0)]
    bootstrap: usize,
    /// Of a store directory, only the hooks that match.
    #[arg(long, default_value = "*")]
    hooks: String,
    /// How tensors `[n, t, d]` and `[n, c, h, w]` become rows: features, positions, mean, first, last.
    #[arg(long, value_name = "RULE")]
    flatten: Option<Flatten>,
    /// With --out: also picture how unlike this many of the rows are, evenly drawn, for each side.
    #[arg(long, value_name = "ROWS", default_value_t = 0, requires = "out")]
    rdm: usize,
    /// Use at most this many rows, drawn without replacement.
    #[arg(long, default_value_t = 5000, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    max_rows: usize,
    /// Seed of every draw.
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

/// One metric, or all.
#[derive(Clone, Copy, Debug)]
enum Choice {
    All,
    One(Metric),
}

impl FromStr for Choice {
    type Err = similarity::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "all" => Ok(Self::All),
            name => Ok(Self::One(name.parse()?)),
        }
    }
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum ByChance {
    Rows,
    Rotation,
}

/// What is asked of every pair.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) max_rows: usize,
    pub(super) seed: u64,
    /// Draws by chance, and what chance is.
    pub(super) null: (usize, Baseline),
    pub(super) bootstrap: usize,
}

impl Asked {
    /// Values alone.
    pub(super) fn values(max_rows: usize) -> Self {
        Self {
            max_rows,
            seed: 0,
            null: (0, Baseline::Rows),
            bootstrap: 0,
        }
    }
}

/// The sources that a spelling names: one, or every hook of a store.
fn open(spec: &str, hooks: &str, flatten: Option<Flatten>) -> Result<Vec<Source>, Failure> {
    if !std::path::Path::new(spec).is_dir() {
        return Ok(vec![one(spec, flatten)?]);
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

/// One matrix, or a tensor of more axes laid out by the rule.
fn one(spec: &str, flatten: Option<Flatten>) -> Result<Source, Failure> {
    let (source, shape) = Source::nested(spec)?;
    let Some(rule) = flatten.filter(|_| shape.len() > 2) else {
        return match shape.len() {
            2 => Ok(source),
            _ => Err(format!(
                "{}: has shape {shape:?}; say with --flatten how it becomes rows: {}",
                source.name(),
                Flatten::ALL.map(|rule| rule.to_string()).join(", ")
            )
            .into()),
        };
    };
    let mut values = Vec::new();
    source.read_rows(0..source.rows(), &mut values)?;
    let data = TensorData::new(values, shape.clone());
    let cpu = Device::cpu();
    let rows = match shape.len() {
        3 => rule.tokens(Tensor::from_data(data, cpu.tensor())),
        _ => rule.maps(Tensor::from_data(data, cpu.tensor())),
    };
    let width = rows.dims()[1];
    let values = block_on(read::<f32, 2>(rows))?;
    Ok(Source::memory(source.name(), values, width))
}

fn tensor(rows: Vec<f32>, width: usize, device: &Device) -> Tensor<2> {
    let n = rows.len() / width;
    Tensor::from_data(TensorData::new(rows, [n, width]), device.tensor())
}

/// Compares the sources of two sides; `right` empty means the left side with itself. With `all`, metrics that have
/// no value for these sources are named on stderr and left out.
pub(super) fn compare(
    left: &[Source],
    right: &[Source],
    metrics: &[Metric],
    all: bool,
    asked: Asked,
    device: &Device,
) -> Result<Vec<Comparison>, Failure> {
    let sources: Vec<Source> = left.iter().chain(right).cloned().collect();
    let rows = paired_rows(&sources, asked.max_rows, asked.seed)?;
    let used = rows[0].len() / sources[0].width();
    let mut x: Vec<Tensor<2>> = rows
        .into_iter()
        .zip(&sources)
        .map(|(rows, s)| tensor(rows, s.width(), device))
        .collect();
    let y = x.split_off(left.len());
    let y = if right.is_empty() { &x } else { &y };
    let labels = |sources: &[Source]| sources.iter().map(|s| s.name().to_string()).collect();
    let mut found = Vec::new();
    for &metric in metrics {
        match table(&x, y, metric, asked) {
            Ok((values, nulls, intervals)) => found.push(Comparison {
                metric: metric.to_string(),
                kind: metric.facts().kind,
                rows: used,
                of_rows: sources[0].rows(),
                row_labels: labels(left),
                column_labels: labels(if right.is_empty() { left } else { right }),
                values,
                nulls,
                intervals,
            }),
            Err(e) if all => eprintln!("{metric}: left out: {e}"),
            Err(e) => return Err(format!("{metric}: {e}").into()),
        }
    }
    match found.is_empty() {
        true => Err("no metric has a value for these sources".into()),
        false => Ok(found),
    }
}

type Tables = (
    Vec<Vec<f64>>,
    Option<Vec<Vec<Null>>>,
    Option<Vec<Vec<Interval>>>,
);

/// The values of one metric, with what was asked for beside them.
fn table(
    x: &[Tensor<2>],
    y: &[Tensor<2>],
    metric: Metric,
    asked: Asked,
) -> Result<Tables, similarity::Error> {
    let progress = bar("compare", "steps", 1);
    let seen = |done: usize, total: usize| {
        progress.set_length(total as u64);
        progress.set_position(done as u64);
    };
    let values = matrix(x, y, metric, seen)?;
    progress.finish_and_clear();
    let (draws, baseline) = asked.null;
    let nulls = each_pair("by chance", x, y, draws, |x, y, seen| {
        null(x, y, metric, baseline, draws, asked.seed, seen)
    })?;
    let intervals = each_pair("intervals", x, y, asked.bootstrap, |x, y, seen| {
        bootstrap(x, y, metric, asked.bootstrap, LEVEL, asked.seed, seen)
    })?;
    Ok((values, nulls, intervals))
}

/// `f` of every pair, under one bar; none if there are no draws.
fn each_pair<R>(
    what: &'static str,
    x: &[Tensor<2>],
    y: &[Tensor<2>],
    draws: usize,
    f: impl Fn(&Tensor<2>, &Tensor<2>, &mut dyn FnMut(usize, usize)) -> Result<R, similarity::Error>,
) -> Result<Option<Vec<Vec<R>>>, similarity::Error> {
    if draws == 0 {
        return Ok(None);
    }
    let progress = bar(what, "draws", (x.len() * y.len() * draws) as u64);
    let row = |x: &Tensor<2>| {
        let cell = |y: &Tensor<2>| f(x, y, &mut |_, _| progress.inc(1));
        y.iter().map(cell).collect::<Result<Vec<R>, _>>()
    };
    let found = x.iter().map(row).collect::<Result<_, _>>()?;
    progress.finish_and_clear();
    Ok(Some(found))
}

/// How unlike some of the rows are in each source: correlation distances by rank, as a share of all.
fn pictures(
    sources: &[Source],
    most: usize,
    asked: Asked,
    device: &Device,
) -> Result<Vec<Heatmap>, Failure> {
    let rows = paired_rows(sources, most.max(3), asked.seed)?;
    let picture = |(rows, source): (Vec<f32>, &Source)| {
        let x = tensor(rows, source.width(), device);
        let n = x.dims()[0];
        let rdm = Rdms::of(&[x], Rdm::Correlation, Channels::Sum)
            .map_err(|e| format!("{}: {e}", source.name()))?;
        let labels: Vec<String> = (0..n).map(|i| i.to_string()).collect();
        Ok(Heatmap {
            title: source.name().to_string(),
            metric: "correlation distance, by rank from the nearest pair to the farthest".into(),
            note: Some(format!("{n} of {} rows", source.rows())),
            row_labels: labels.clone(),
            column_labels: labels,
            values: by_rank(rdm.triangle(0), n),
            range: Some((0.0, 1.0)),
            ..Heatmap::default()
        })
    };
    rows.into_iter().zip(sources).map(picture).collect()
}

/// The square matrix of the ranks of an upper triangle, 0 to 1; the diagonal is 0.
fn by_rank(triangle: &[f64], n: usize) -> Vec<Vec<f64>> {
    let mut order: Vec<usize> = (0..triangle.len()).collect();
    order.sort_by(|&a, &b| triangle[a].total_cmp(&triangle[b]));
    let mut share = vec![0.0; triangle.len()];
    let last = (order.len() - 1).max(1) as f64;
    for (rank, &at) in order.iter().enumerate() {
        share[at] = rank as f64 / last;
    }
    let at = |i: usize, j: usize| share[i * (2 * n - i - 1) / 2 + j - i - 1];
    let cell = |i: usize, j: usize| match i == j {
        true => 0.0,
        false => at(i.min(j), i.max(j)),
    };
    (0..n)
        .map(|i| (0..n).map(|j| cell(i, j)).collect())
        .collect()
}

impl Options {
    fn metrics(&self) -> (Vec<Metric>, bool) {
        let all = self.metric.iter().any(|m| matches!(m, Choice::All));
        let named = self.metric.iter().filter_map(|m| match m {
            Choice::One(metric) => Some(*metric),
            Choice::All => None,
        });
        // Rows of a store are activations: metrics of predictions are for those who name them.
        let every = Metric::names().filter_map(|name| name.parse().ok());
        let metrics = every.filter(|_| all).chain(named).collect();
        (metrics, all)
    }

    fn asked(&self) -> Asked {
        let baseline = match self.by_chance {
            ByChance::Rows => Baseline::Rows,
            ByChance::Rotation => Baseline::Rotation,
        };
        Asked {
            max_rows: self.max_rows,
            seed: self.seed,
            null: (self.null, baseline),
            bootstrap: self.bootstrap,
        }
    }
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let mut left = open(&options.a, &options.hooks, options.flatten)?;
    let mut right = options
        .b
        .as_ref()
        .map_or(Ok(Vec::new()), |b| open(b, &options.hooks, options.flatten))?;
    if options.matrix {
        left.append(&mut right);
    }
    let device = options.device.open()?;
    let (metrics, all) = options.metrics();
    let found = compare(&left, &right, &metrics, all, options.asked(), &device)?;
    if let Some(out) = &options.out {
        std::fs::create_dir_all(out).map_err(|e| format!("{}: {e}", out.display()))?;
        write_whole(&out.join(COMPARISON), &serde_json::to_vec_pretty(&found)?)?;
        if options.rdm > 0 {
            left.append(&mut right);
            let pictures = pictures(&left, options.rdm, options.asked(), &device)?;
            write_whole(&out.join(RDMS), &serde_json::to_vec_pretty(&pictures)?)?;
        }
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
    if let [[_]] = found.values.iter().map(Vec::as_slice).collect::<Vec<_>>()[..] {
        return print_pairs(found);
    }
    if found.nulls.is_some() || found.intervals.is_some() {
        return print_pairs(found);
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

/// A line for each pair, with what chance gives and the interval where they were asked for.
fn print_pairs(found: &Comparison) -> Result<(), Failure> {
    for (i, row) in found.values.iter().enumerate() {
        for (j, value) in row.iter().enumerate() {
            let interval = found.intervals.as_ref().map(|t| &t[i][j]);
            let interval = interval
                .map(|t| {
                    format!(
                        "  {:.0} % in [{:.4}, {:.4}]",
                        100.0 * t.level,
                        t.low,
                        t.high
                    )
                })
                .unwrap_or_default();
            let null = found.nulls.as_ref().map(|t| &t[i][j]);
            let null = null
                .map(|t| format!("  by chance {:.4} ± {:.4}, p = {:.2}", t.mean, t.sd, t.p))
                .unwrap_or_default();
            let (a, b) = (&found.row_labels[i], &found.column_labels[j]);
            say!("{value:.6}{interval}{null}  {a}  {b}");
        }
    }
    Ok(())
}
