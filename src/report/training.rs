//! Training logs as charts and tables.

use super::data::{TrainingCurve, TrainingPoint};
use super::page::Section;
use super::svg::{self, LineChart};
use super::table::{folded, table};
use super::text::{decimals, esc, group, num, percent};

/// Rows of a training log shown in its table; of more, every nth.
const LOG_ROWS: usize = 200;

/// Charts over tokens, and the log as a table, per autoencoder.
pub fn training(curves: &[TrainingCurve]) -> Option<Section> {
    let shown = curves.iter().filter(|c| !c.points.is_empty());
    let body: String = shown.enumerate().map(|(i, c)| curve(i + 1, c)).collect();
    (!body.is_empty()).then_some(Section {
        id: "training",
        title: "Training",
        count: None,
        body,
    })
}

/// A value of the training log: id, heading, hint, whether it is a share, and how to read it.
type Series = (
    &'static str,
    &'static str,
    &'static str,
    bool,
    fn(&TrainingPoint) -> f64,
);

const SERIES: [Series; 4] = [
    (
        "fvu",
        "FVU",
        "fraction of variance unexplained",
        false,
        |p| p.fvu,
    ),
    ("loss", "Loss", "what training lowers", false, |p| p.loss),
    ("l0", "L0", "active features for each token", false, |p| {
        p.l0
    }),
    (
        "dead",
        "Dead features",
        "share of all features",
        true,
        |p| p.dead_share,
    ),
];

fn curve(number: usize, curve: &TrainingCurve) -> String {
    let name = esc(&curve.name);
    let charts: String = SERIES
        .iter()
        .filter_map(|s| chart(number, s, curve))
        .collect();
    let log = folded("The log as a table", &log(curve));
    format!(
        "<article>\n<h3 id=\"training-{number}\">{name}</h3>\n\
         <div class=\"charts\">\n{charts}</div>\n{log}</article>\n"
    )
}

fn chart(number: usize, series: &Series, curve: &TrainingCurve) -> Option<String> {
    let &(id, title, hint, share, read) = series;
    let points = curve
        .points
        .iter()
        .map(|p| (p.tokens as f64, read(p)))
        .collect();
    let id = format!("training-{number}-{id}");
    let drawing = svg::line(&LineChart {
        id,
        title,
        share,
        points,
    })?;
    Some(format!(
        "<figure>\n<figcaption>{title} <small>{hint}</small></figcaption>\n{drawing}\n</figure>\n"
    ))
}

fn log(curve: &TrainingCurve) -> String {
    let all = &curve.points;
    let every = all.len().div_ceil(LOG_ROWS);
    let shown = all.iter().enumerate();
    let shown = shown.filter(|(i, _)| i % every == 0 || i + 1 == all.len());
    let rows: Vec<_> = shown.map(|(_, p)| log_row(p)).collect();
    let caption = match every {
        1 => format!("Training log of {}", curve.name),
        n => format!(
            "Training log of {}: one in {n} of {} steps",
            curve.name,
            group(all.len() as u64)
        ),
    };
    let head = ["Step", "Tokens", "Loss", "FVU", "L0", "Dead", "Tokens/s"];
    table(&caption, &head, &rows)
}

fn log_row(p: &TrainingPoint) -> Vec<String> {
    vec![
        group(p.step),
        group(p.tokens),
        num(p.loss),
        decimals(p.fvu, 4),
        decimals(p.l0, 2),
        percent(p.dead_share),
        decimals(p.tokens_per_second, 0),
    ]
}
