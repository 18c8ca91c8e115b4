//! `inscape compare`: representations of the same inputs, each against each.

mod show;
mod values;

use std::path::PathBuf;
use std::str::FromStr;

use burn::tensor::{Tensor, TensorData};
use clap::Args;
use clap::builder::RangedU64ValueParser;

use super::{DeviceOption, Failure, print_json};
use crate::Device;
use crate::capture::store::{Source, Store, write_whole};
use crate::device::{block_on, read};
use crate::hook::matches;
use crate::report::{COMPARISON, RDMS};
use crate::similarity::{self, Baseline, Flatten, Metric};

use show::pictures;
pub(super) use show::print;
use values::compare_all_rows;
pub(super) use values::{Asked, compare};

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
    /// Read all rows once, batch by batch, in memory that does not grow with them: for linear CKA, canonical
    /// correlations, Procrustes and what else sums of products decide.
    #[arg(long, conflicts_with_all = ["max_rows", "null", "bootstrap"])]
    all_rows: bool,
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

impl Options {
    fn metrics(&self) -> (Vec<Metric>, bool) {
        let all = self.metric.iter().any(|m| matches!(m, Choice::All));
        let named = self.metric.iter().filter_map(|m| match m {
            Choice::One(metric) => Some(*metric),
            Choice::All => None,
        });
        // Rows of a store are activations: metrics of predictions are for those who name them.
        let every = Metric::names().filter_map(|name| name.parse().ok());
        let every = every.filter(|m| !matches!(m, Metric::Predictions(_)));
        let metrics = every.filter(|_| all).chain(named).collect();
        (metrics, all)
    }

    fn asked(&self) -> Asked {
        let baseline = match self.by_chance {
            ByChance::Rows => Baseline::Rows,
            ByChance::Rotation => Baseline::Rotation,
        };
        Asked {
            all: false,
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
    let asked = Asked {
        all,
        ..options.asked()
    };
    let found = match options.all_rows {
        true => compare_all_rows(&left, &right, &metrics, asked, &device)?,
        false => compare(&left, &right, &metrics, asked, &device)?,
    };
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
