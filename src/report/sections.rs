//! The sections with figures and tables: evaluation, training, density, similarity.

use super::data::{DensityHistogram, Evaluation, Heatmap, TrainingCurve, TrainingPoint};
use super::page::Section;
use super::svg::{self, LineChart};
use super::text::{MISSING, decimals, esc, group, num, percent};

/// Rows of a training log shown in its table; of more, every nth.
const LOG_ROWS: usize = 200;

/// A table that scrolls sideways where the page is narrow. `head` and the first cell of each
/// row name what stands in line with them. Cells are HTML.
fn table(caption: &str, head: &[&str], rows: &[Vec<String>]) -> String {
    let caption = esc(caption);
    let head: String = head
        .iter()
        .map(|h| format!("<th scope=\"col\">{h}</th>"))
        .collect();
    let rows: String = rows.iter().map(|row| table_row(row)).collect();
    format!(
        "<div class=\"scroll\" role=\"region\" aria-label=\"{caption}\" tabindex=\"0\">\n\
         <table>\n<caption>{caption}</caption>\n<thead><tr>{head}</tr></thead>\n\
         <tbody>\n{rows}</tbody>\n</table>\n</div>\n"
    )
}

fn table_row(row: &[String]) -> String {
    let Some((name, cells)) = row.split_first() else {
        return String::new();
    };
    let cells: String = cells.iter().map(|c| format!("<td>{c}</td>")).collect();
    format!("<tr><th scope=\"row\">{name}</th>{cells}</tr>\n")
}

fn folded(summary: &str, body: &str) -> String {
    format!("<details>\n<summary>{summary}</summary>\n{body}</details>\n")
}

/// A figure measured on held-out data: heading, hint, and how to read it.
type Column = (
    &'static str,
    &'static str,
    fn(&Evaluation) -> Option<String>,
);

const COLUMNS: [Column; 9] = [
    ("Tokens", "", |e| e.tokens.map(group)),
    ("L0", "active each", |e| e.l0.map(|x| decimals(x, 2))),
    ("FVU", "0 is best", |e| e.fvu.map(|x| decimals(x, 4))),
    ("Cosine", "1 is best", |e| e.cosine.map(|x| decimals(x, 4))),
    ("Dead", "share", |e| e.dead_share.map(percent)),
    ("CE", "untouched", |e| e.ce_original.map(|x| decimals(x, 4))),
    ("CE", "spliced", |e| e.ce_spliced.map(|x| decimals(x, 4))),
    ("CE", "zeroed", |e| e.ce_zero.map(|x| decimals(x, 4))),
    ("Recovered", "100% is best", |e| e.ce_recovered.map(percent)),
];

/// One row per autoencoder; columns nobody measured are left out.
pub fn evaluation(evaluations: &[Evaluation]) -> Option<Section> {
    if evaluations.is_empty() {
        return None;
    }
    let measured = |c: &&Column| evaluations.iter().any(|e| c.2(e).is_some());
    let columns: Vec<&Column> = COLUMNS.iter().filter(measured).collect();
    let names = columns.iter().map(|(name, hint, _)| match *hint {
        "" => name.to_string(),
        hint => format!("{name} <small>{hint}</small>"),
    });
    let head: Vec<String> = ["Autoencoder".to_string()]
        .into_iter()
        .chain(names)
        .collect();
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let rows: Vec<_> = evaluations
        .iter()
        .map(|e| evaluation_row(e, &columns))
        .collect();
    Some(Section {
        id: "evaluation",
        title: "Evaluation",
        count: None,
        body: table("Figures on held-out tokens", &head, &rows) + &evaluation_note(evaluations),
    })
}

fn evaluation_row(evaluation: &Evaluation, columns: &[&Column]) -> Vec<String> {
    let value = |c: &&Column| c.2(evaluation).unwrap_or_else(|| MISSING.into());
    let values = columns.iter().map(value);
    [esc(&evaluation.name)].into_iter().chain(values).collect()
}

fn evaluation_note(evaluations: &[Evaluation]) -> String {
    let mut note = "<p class=\"note\">FVU: share of the activations’ variance that the \
                    reconstruction misses."
        .to_string();
    if evaluations
        .iter()
        .any(|e| e.ce_original.is_some() || e.ce_recovered.is_some())
    {
        note += " CE: cross-entropy of the next token, in nats, with the activations untouched, \
                 replaced by their reconstruction, or set to zero. Recovered: how much of the \
                 loss from zeroing the reconstruction avoids.";
    }
    note + "</p>\n"
}

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

/// How often features fire, per autoencoder.
pub fn densities(densities: &[DensityHistogram]) -> Option<Section> {
    let figures = densities.iter().enumerate();
    let body: String = figures.filter_map(|(i, d)| density(i + 1, d)).collect();
    (!body.is_empty()).then_some(Section {
        id: "density",
        title: "Feature density",
        count: None,
        body,
    })
}

fn density(number: usize, histogram: &DensityHistogram) -> Option<String> {
    let name = esc(&histogram.name);
    let drawing = svg::densities(&format!("density-{number}-svg"), histogram)?;
    let summary = density_summary(histogram);
    let counts = folded("The counts as a table", &density_table(histogram));
    Some(format!(
        "<article>\n<h3 id=\"density-{number}\">{name}</h3>\n<div class=\"beside\">\n\
         <figure>\n<figcaption>Features <small>by the share of tokens they fire on</small>\
         </figcaption>\n{drawing}\n</figure>\n{summary}</div>\n{counts}</article>\n"
    ))
}

/// What the histogram says in four numbers.
fn density_summary(histogram: &DensityHistogram) -> String {
    let bins = svg::bins(&histogram.bins);
    let living: u64 = bins.iter().map(|b| b.2).sum();
    let at = |part| quantile(&bins, part).map(|edge| percent(10f64.powf(edge)));
    let spread = at(0.05)
        .zip(at(0.95))
        .map(|(lo, hi)| format!("{lo} to {hi}"));
    let known = [
        ("Features that fire", Some(group(living))),
        ("Dead", Some(group(histogram.dead))),
        ("Median density", at(0.5)),
        ("Nine in ten between", spread),
    ];
    let shown = known
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)));
    let items: String = shown
        .map(|(name, value)| format!("<div><dt>{name}</dt><dd>{value}</dd></div>\n"))
        .collect();
    format!("<dl class=\"summary\">\n{items}</dl>\n")
}

/// The value below which this part of the counts lies, taking each bin as evenly filled.
fn quantile(bins: &[(f64, f64, u64)], part: f64) -> Option<f64> {
    let total: u64 = bins.iter().map(|b| b.2).sum();
    let mut left = part * total as f64;
    for &(lo, hi, count) in bins.iter().filter(|b| b.2 > 0) {
        if left <= count as f64 {
            return Some(lo + (hi - lo) * left / count as f64);
        }
        left -= count as f64;
    }
    None
}

fn density_table(histogram: &DensityHistogram) -> String {
    let dead = [vec!["dead".into(), "0%".into(), group(histogram.dead)]];
    let bins = svg::bins(&histogram.bins);
    let rows: Vec<_> = dead
        .into_iter()
        .chain(bins.iter().map(density_row))
        .collect();
    let head = ["log10 density", "Share of tokens", "Features"];
    table(
        &format!("Features of {} by density", histogram.name),
        &head,
        &rows,
    )
}

fn density_row(&(lo, hi, count): &(f64, f64, u64)) -> Vec<String> {
    let share = |edge: f64| percent(10f64.powf(edge));
    vec![
        format!("{} to {}", decimals(lo, 2), decimals(hi, 2)),
        format!("{} to {}", share(lo), share(hi)),
        group(count),
    ]
}

/// Heatmaps, side by side where there is room.
pub fn similarity(maps: &[Heatmap]) -> Option<Section> {
    let figures = maps.iter().enumerate();
    let body: String = figures.filter_map(|(i, m)| heatmap(i + 1, m)).collect();
    (!body.is_empty()).then(|| Section {
        id: "similarity",
        title: "Similarity",
        count: None,
        body: format!("<div class=\"maps\">\n{body}</div>\n"),
    })
}

fn heatmap(number: usize, map: &Heatmap) -> Option<String> {
    let map = &labelled(map);
    let (rows, row_part) = shorten(&map.row_labels);
    let (columns, column_part) = shorten(&map.column_labels);
    let drawing = svg::heat(&format!("similarity-{number}-svg"), map, &rows, &columns)?;
    let title = esc(&map.title);
    let metric = esc(&map.metric);
    let axes = axes(map, row_part.as_deref(), column_part.as_deref());
    let note = map
        .note
        .as_deref()
        .map(|n| format!("<p class=\"note\">{}</p>\n", esc(n)));
    let note = note.unwrap_or_default();
    let class = if svg::broad(columns.len()) {
        " class=\"broad\""
    } else {
        ""
    };
    let values = folded("The values as a table", &matrix(map));
    Some(format!(
        "<article{class}>\n<h3 id=\"similarity-{number}\">{title}</h3>\n{note}\
         <figure>\n<figcaption>{metric}{axes}</figcaption>\n\
         <div class=\"scroll\" role=\"region\" aria-label=\"{title}: {metric}, heatmap\" tabindex=\"0\">\
         {drawing}</div>\n</figure>\n{values}</article>\n"
    ))
}

/// The map with a label for every row and column that has a value.
fn labelled(map: &Heatmap) -> Heatmap {
    let mut map = map.clone();
    let columns = map.values.iter().map(Vec::len).max().unwrap_or(0);
    let missing = map.row_labels.len()..map.values.len();
    map.row_labels.extend(missing.map(|i| i.to_string()));
    let missing = map.column_labels.len()..columns;
    map.column_labels.extend(missing.map(|i| i.to_string()));
    map
}

/// What the rows and columns are: their names, and what their labels have in common.
fn axes(map: &Heatmap, row_part: Option<&str>, column_part: Option<&str>) -> String {
    let phrase = |name: &Option<String>, part: Option<&str>| {
        let words: Vec<String> = name.as_deref().into_iter().chain(part).map(esc).collect();
        words.join(", ")
    };
    let rows = phrase(&map.rows, row_part);
    let columns = phrase(&map.columns, column_part);
    let line = |name: &str, words: &str| match words {
        "" => String::new(),
        words => format!("<small>{name}: {words}</small>"),
    };
    match rows == columns {
        true => line("Rows and columns", &rows),
        false => line("Rows", &rows) + &line("Columns", &columns),
    }
}

/// Labels without what they all begin and end with, and that part as a pattern: `blocks.0.mlp`
/// and `blocks.1.mlp` become `0` and `1` of `blocks.*.mlp`. Parts are cut at dots.
fn shorten(labels: &[String]) -> (Vec<String>, Option<String>) {
    let Some((first, rest)) = labels.split_first().filter(|(_, rest)| !rest.is_empty()) else {
        return (labels.to_vec(), None);
    };
    let same = |a: &str, b: &str| a.bytes().zip(b.bytes()).take_while(|(x, y)| x == y).count();
    let ends = |a: &str, b: &str| {
        a.bytes()
            .rev()
            .zip(b.bytes().rev())
            .take_while(|(x, y)| x == y)
            .count()
    };
    let head = rest.iter().map(|l| same(first, l)).min().unwrap_or(0);
    let tail = rest.iter().map(|l| ends(first, l)).min().unwrap_or(0);
    let cut = |at: Option<usize>| at.unwrap_or(0);
    let head = cut(first.as_bytes()[..head]
        .iter()
        .rposition(|&b| b == b'.')
        .map(|i| i + 1));
    let tail_start = first.len() - tail;
    let dot = first.as_bytes()[tail_start..]
        .iter()
        .position(|&b| b == b'.');
    let tail = dot.map_or(0, |i| first.len() - tail_start - i);
    if head + tail == 0 || labels.iter().any(|l| l.len() <= head + tail) {
        return (labels.to_vec(), None);
    }
    let pattern = format!("{}*{}", &first[..head], &first[first.len() - tail..]);
    let middles = labels.iter().map(|l| l[head..l.len() - tail].to_string());
    (middles.collect(), Some(pattern))
}

fn matrix(map: &Heatmap) -> String {
    let columns: Vec<String> = map.column_labels.iter().map(|l| esc(l)).collect();
    let corner = ["<span class=\"vh\">Row</span>"].into_iter();
    let head: Vec<&str> = corner.chain(columns.iter().map(String::as_str)).collect();
    let row = |(r, label): (usize, &String)| {
        let values = (0..columns.len()).map(|c| decimals(svg::value(map, r, c), 4));
        [esc(label)].into_iter().chain(values).collect()
    };
    let rows: Vec<Vec<String>> = map.row_labels.iter().enumerate().map(row).collect();
    table(&format!("{}: {}", map.title, map.metric), &head, &rows)
}

#[cfg(test)]
mod tests {
    use super::{quantile, shorten};

    #[test]
    fn quantiles_lie_where_the_counts_do() {
        let bins = [(-3.0, -2.0, 10), (-2.0, -1.0, 0), (-1.0, 0.0, 30)];
        assert_eq!(quantile(&bins, 0.25), Some(-2.0));
        assert_eq!(quantile(&bins, 0.625), Some(-0.5));
        assert_eq!(quantile(&bins, 1.0), Some(0.0));
        assert_eq!(quantile(&[(0.0, 1.0, 0)], 0.5), None);
    }

    fn short(labels: &[&str]) -> (Vec<String>, Option<String>) {
        shorten(&labels.iter().map(|l| l.to_string()).collect::<Vec<_>>())
    }

    #[test]
    fn shared_parts_are_said_once() {
        let (labels, part) = short(&["blocks.0.hook_resid_post", "blocks.11.hook_resid_post"]);
        assert_eq!(labels, ["0", "11"]);
        assert_eq!(part.as_deref(), Some("blocks.*.hook_resid_post"));
    }

    #[test]
    fn labels_that_share_nothing_or_all_stay() {
        for labels in [
            &["a", "b"][..],
            &["x.y", "x.y"],
            &["é.a", "è.b"],
            &["one"],
            &[],
        ] {
            let (kept, part) = short(labels);
            assert_eq!(
                (kept, part),
                (labels.iter().map(|l| l.to_string()).collect(), None)
            );
        }
        let (labels, part) = short(&["hook_embed", "blocks.0.hook_resid_post"]);
        assert_eq!((labels[0].as_str(), part), ("hook_embed", None));
    }
}
