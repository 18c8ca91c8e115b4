//! Heatmaps.

use std::fmt::Write;

use super::{image, n, rect, text};
use crate::report::data::Heatmap;
use crate::report::palette::{STEPS, step};
use crate::report::text::{MISSING, decimals, esc, num};

/// Up to this many columns, each cell prints its value.
const PRINTED: usize = 16;
/// Characters of a label that are drawn; the rest is in the cell's title and in the table.
const LABEL: usize = 28;
/// Width of a character of a label, about.
const CHAR: f64 = 6.8;

struct Layout {
    columns: usize,
    rows: usize,
    cell: (f64, f64),
    left: f64,
    top: f64,
    right: f64,
    /// Whether the labels over the columns are slanted to fit.
    slanted: bool,
}

impl Layout {
    fn new(rows: &[String], columns: &[String]) -> Layout {
        let cell = match columns.len() {
            0..=PRINTED => (46.0, 30.0),
            many => [(560.0 / many as f64).clamp(6.0, 24.0); 2].into(),
        };
        let widest = |labels: &[String]| {
            let chars = labels.iter().map(|l| l.chars().count().min(LABEL));
            chars.max().unwrap_or(0) as f64 * CHAR
        };
        let slanted = widest(columns) > cell.0 * every(cell.0) as f64 - 4.0;
        let reach = if slanted { widest(columns) * 0.72 } else { 0.0 };
        Layout {
            columns: columns.len(),
            rows: rows.len(),
            cell,
            left: (widest(rows) + 10.0).ceil(),
            top: if slanted { reach + 14.0 } else { 20.0 },
            right: reach.max(4.0),
            slanted,
        }
    }

    fn corner(&self, row: usize, column: usize) -> (f64, f64) {
        let x = self.left + self.cell.0 * column as f64;
        (x, self.top + self.cell.1 * row as f64)
    }

    fn size(&self) -> (f64, f64) {
        let (x, y) = self.corner(self.rows, self.columns);
        ((x + self.right).max(self.left + 200.0), y + 44.0)
    }
}

/// Draws the matrix with its legend; `None` if it has no cell. `rows` and `columns` are the
/// labels as drawn.
pub fn heat(id: &str, map: &Heatmap, rows: &[String], columns: &[String]) -> Option<String> {
    if rows.is_empty() || columns.is_empty() {
        return None;
    }
    let layout = Layout::new(rows, columns);
    let (lo, hi) = range(map);
    let mut body = labels(&layout, rows, columns);
    for r in 0..rows.len() {
        for c in 0..columns.len() {
            body += &cell(&layout, map, (r, c), (lo, hi));
        }
    }
    body += &legend(&layout, lo, hi);
    let title = format!("{}: {}", map.title, map.metric);
    let desc = format!(
        "{} rows by {} columns; values from {} to {}.",
        rows.len(),
        columns.len(),
        num(lo),
        num(hi)
    );
    Some(image(id, "heat", layout.size(), &title, &desc, &body))
}

/// Whether the drawing takes the width of the page.
pub fn broad(columns: usize) -> bool {
    columns > 9
}

/// The value of a cell, NaN if there is none.
pub fn value(map: &Heatmap, row: usize, column: usize) -> f64 {
    let row = map.values.get(row);
    row.and_then(|r| r.get(column)).copied().unwrap_or(f64::NAN)
}

fn range(map: &Heatmap) -> (f64, f64) {
    let given = map
        .range
        .filter(|(lo, hi)| lo.is_finite() && hi.is_finite());
    let finite = map.values.iter().flatten().filter(|v| v.is_finite());
    let data = || {
        finite.fold(None, |range: Option<(f64, f64)>, &v| {
            let (lo, hi) = range.unwrap_or((v, v));
            Some((lo.min(v), hi.max(v)))
        })
    };
    given.or_else(data).unwrap_or((0.0, 1.0))
}

fn cell(layout: &Layout, map: &Heatmap, (r, c): (usize, usize), range: (f64, f64)) -> String {
    let v = value(map, r, c);
    let class = match v.is_finite() {
        true => format!("h{}", step(v, range.0, range.1)),
        false => "none".into(),
    };
    let label = |labels: &[String], i: usize| labels.get(i).cloned().unwrap_or_default();
    let (row, column) = (label(&map.row_labels, r), label(&map.column_labels, c));
    let title = format!("{row} × {column}: {}", decimals(v, 4));
    let (x, y) = layout.corner(r, c);
    let gap = if layout.cell.0 > 12.0 { 1.0 } else { 0.0 };
    let size = (layout.cell.0 - gap, layout.cell.1 - gap);
    if layout.columns > PRINTED {
        return rect(&class, (x, y), size, &title);
    }
    let middle = (x + size.0 / 2.0, y + size.1 / 2.0 + 4.0);
    let value = text("x", middle.0, middle.1, &printed(v));
    format!(
        "<g class=\"{class}\">{}{value}</g>",
        rect("cell", (x, y), size, &title)
    )
}

/// A value that fits into a cell.
fn printed(v: f64) -> String {
    match v.abs() {
        a if !a.is_finite() => MISSING.into(),
        a if a >= 1e5 => format!("{v:.0e}"),
        a if a >= 100.0 => decimals(v, 0),
        _ => decimals(v, 2),
    }
}

/// Cells can be smaller than the letters beside them: then only every nth is named.
fn every(space: f64) -> usize {
    (12.0 / space).ceil().max(1.0) as usize
}

fn labels(layout: &Layout, rows: &[String], columns: &[String]) -> String {
    let mut out = String::new();
    for (r, label) in rows.iter().enumerate().step_by(every(layout.cell.1)) {
        let (x, y) = layout.corner(r, 0);
        out += &text("y", x - 6.0, y + layout.cell.1 / 2.0 + 4.0, &short(label));
    }
    for (c, label) in columns.iter().enumerate().step_by(every(layout.cell.0)) {
        let (x, y) = layout.corner(0, c);
        let (x, y) = (x + layout.cell.0 / 2.0, y - 6.0);
        out += &match layout.slanted {
            true => slanted(x, y, &short(label)),
            false => text("x", x, y, &short(label)),
        };
    }
    out
}

fn slanted(x: f64, y: f64, label: &str) -> String {
    let (x, y, label) = (n(x), n(y), esc(label));
    format!("<text class=\"left\" transform=\"translate({x} {y}) rotate(-45)\">{label}</text>")
}

fn short(label: &str) -> String {
    if label.chars().count() <= LABEL {
        return label.to_string();
    }
    label.chars().take(LABEL - 1).chain(['…']).collect()
}

fn legend(layout: &Layout, lo: f64, hi: f64) -> String {
    let (x, y) = layout.corner(layout.rows, 0);
    let (y, wide) = (y + 14.0, 192.0 / STEPS as f64);
    let mut out = String::from("<g class=\"legend\">");
    for i in 0..STEPS {
        let (at, y) = (n(x + wide * i as f64), n(y));
        let _ = write!(
            out,
            "<rect class=\"h{i}\" x=\"{at}\" y=\"{y}\" width=\"{wide}\" height=\"9\"/>"
        );
    }
    out += "</g>";
    let places = if hi - lo >= 0.05 { 2 } else { 4 };
    let words = |v: f64| {
        if v.abs() < 100.0 {
            decimals(v, places)
        } else {
            num(v)
        }
    };
    out += &text("left", x, y + 24.0, &words(lo));
    if hi > lo {
        out += &text("x", x + 96.0, y + 24.0, &words((lo + hi) / 2.0));
        out += &text("right", x + 192.0, y + 24.0, &words(hi));
    }
    out
}
