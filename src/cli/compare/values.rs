//! The values of a comparison, from rows that were drawn or from all.

use burn::tensor::{Tensor, TensorData};

use crate::Device;
use crate::capture::store::Source;
use crate::capture::{beside, paired_rows};
use crate::cli::{Failure, bar};
use crate::report::Comparison;
use crate::similarity::{
    self, Baseline, Interval, Metric, Null, StreamedMatrix, bootstrap, matrix, null,
};

/// Share of intervals that hold the true value.
const LEVEL: f64 = 0.95;

/// Rows read together where all are read.
const BATCH: usize = 4096;

/// What is asked of every pair.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli) struct Asked {
    /// Whether every metric was asked for: then those that have no value are named and left out.
    pub(in crate::cli) all: bool,
    pub(in crate::cli) max_rows: usize,
    pub(in crate::cli) seed: u64,
    /// Draws by chance, and what chance is.
    pub(in crate::cli) null: (usize, Baseline),
    pub(in crate::cli) bootstrap: usize,
}

impl Asked {
    /// Values alone.
    pub(in crate::cli) fn values(max_rows: usize) -> Self {
        Self {
            all: false,
            max_rows,
            seed: 0,
            null: (0, Baseline::Rows),
            bootstrap: 0,
        }
    }
}

pub(super) fn tensor(rows: Vec<f32>, width: usize, device: &Device) -> Tensor<2> {
    let n = rows.len() / width;
    Tensor::from_data(TensorData::new(rows, [n, width]), device.tensor())
}

/// Compares the sources of two sides; `right` empty means the left side with itself.
pub(in crate::cli) fn compare(
    left: &[Source],
    right: &[Source],
    metrics: &[Metric],
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
    collect([left, right], metrics, asked, used, |metric| {
        table(&x, y, metric, asked)
    })
}

/// [`compare`] on all rows, read once, batch by batch; for the metrics that sums of products decide.
pub(super) fn compare_all_rows(
    left: &[Source],
    right: &[Source],
    metrics: &[Metric],
    asked: Asked,
    device: &Device,
) -> Result<Vec<Comparison>, Failure> {
    let sources: Vec<Source> = left.iter().chain(right).cloned().collect();
    let all = beside(&sources)?;
    let widths: Vec<usize> = sources.iter().map(Source::width).collect();
    let mut sums = StreamedMatrix::new(&widths[..left.len()], &widths[left.len()..]);
    let progress = bar("compare", "rows", all.rows() as u64);
    for start in (0..all.rows()).step_by(BATCH) {
        let range = start..(start + BATCH).min(all.rows());
        let mut values = Vec::new();
        all.read_rows(range.clone(), &mut values)?;
        sums.push(&side_by_side(tensor(values, all.width(), device), &widths))?;
        progress.set_position(range.end as u64);
    }
    progress.finish_and_clear();
    collect([left, right], metrics, asked, all.rows(), |metric| {
        Ok((sums.values(metric)?, None, None))
    })
}

/// The sources again, from columns side by side.
fn side_by_side(all: Tensor<2>, widths: &[usize]) -> Vec<Tensor<2>> {
    let mut start = 0;
    let part = |&width: &usize| {
        start += width;
        all.clone().narrow(1, start - width, width)
    };
    widths.iter().map(part).collect()
}

/// A comparison for each metric that has a table.
fn collect(
    [left, right]: [&[Source]; 2],
    metrics: &[Metric],
    asked: Asked,
    rows: usize,
    table: impl Fn(Metric) -> Result<Tables, similarity::Error>,
) -> Result<Vec<Comparison>, Failure> {
    let labels = |sources: &[Source]| sources.iter().map(|s| s.name().to_string()).collect();
    let mut found = Vec::new();
    for &metric in metrics {
        match table(metric) {
            Ok((values, nulls, intervals)) => found.push(Comparison {
                metric: metric.to_string(),
                kind: metric.facts().kind,
                rows,
                of_rows: left[0].rows(),
                row_labels: labels(left),
                column_labels: labels(if right.is_empty() { left } else { right }),
                values,
                nulls,
                intervals,
            }),
            Err(e) if asked.all => eprintln!("{metric}: left out: {e}"),
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
    // With all metrics, one that chance cannot touch keeps its value.
    let draws = match asked.all && !baseline.tells(metric) {
        true => 0,
        false => draws,
    };
    let nulls = each_pair("by chance", (x, y, metric), draws, |x, y, seen| {
        null(x, y, metric, baseline, draws, asked.seed, seen)
    })?;
    let intervals = each_pair(
        "intervals",
        (x, y, metric),
        asked.bootstrap,
        |x, y, seen| bootstrap(x, y, metric, asked.bootstrap, LEVEL, asked.seed, seen),
    )?;
    Ok((values, nulls, intervals))
}

/// `f` of every pair, under one bar; none if there are no draws. Of one side with itself by a symmetric
/// metric every pair comes once.
fn each_pair<R: Clone>(
    what: &'static str,
    (x, y, metric): (&[Tensor<2>], &[Tensor<2>], Metric),
    draws: usize,
    f: impl Fn(&Tensor<2>, &Tensor<2>, &mut dyn FnMut(usize, usize)) -> Result<R, similarity::Error>,
) -> Result<Option<Vec<Vec<R>>>, similarity::Error> {
    if draws == 0 {
        return Ok(None);
    }
    let mirrored = std::ptr::eq(x, y) && metric.facts().symmetric;
    let pairs = match mirrored {
        true => x.len() * (x.len() + 1) / 2,
        false => x.len() * y.len(),
    };
    let progress = bar(what, "draws", (pairs * draws) as u64);
    let mut found: Vec<Vec<R>> = Vec::with_capacity(x.len());
    for (i, x) in x.iter().enumerate() {
        let mut row = Vec::with_capacity(y.len());
        for (j, y) in y.iter().enumerate() {
            row.push(match mirrored && j < i {
                true => found[j][i].clone(),
                false => f(x, y, &mut |_, _| progress.inc(1))?,
            });
        }
        found.push(row);
    }
    progress.finish_and_clear();
    Ok(Some(found))
}
