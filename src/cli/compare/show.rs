//! A comparison as text, and pictures of the rows' dissimilarities.

use super::values::{Asked, tensor};
use crate::Device;
use crate::capture::paired_rows;
use crate::capture::store::Source;
use crate::cli::Failure;
use crate::report::{Comparison, Heatmap, split_labels};
use crate::similarity::{Channels, Rdm, Rdms};

/// How unlike some of the rows are in each source: correlation distances by rank, as a share of all.
pub(super) fn pictures(
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

pub(in crate::cli) fn print(found: &Comparison) -> Result<(), Failure> {
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
