//! Line charts.

use std::fmt::Write;

use super::scale::{Scale, Unit};
use super::{Frame, image, n, rule, text};
use crate::report::text::{group, num, percent};

/// Points drawn at most; of more, the least and greatest of each stretch are kept.
const MAX_POINTS: usize = 400;

const FRAME: Frame = Frame {
    width: 520.0,
    height: 214.0,
    left: 52.0,
    right: 64.0,
    top: 12.0,
    bottom: 44.0,
};

/// A value over tokens.
pub struct LineChart<'a> {
    /// Id of the figure, unique in the page.
    pub id: String,
    /// What is drawn.
    pub title: &'a str,
    /// Whether the values are shares of 1.
    pub share: bool,
    /// Tokens and value, in order. Values that are not finite leave a gap.
    pub points: Vec<(f64, f64)>,
}

impl LineChart<'_> {
    fn finite(&self) -> impl Iterator<Item = (f64, f64)> {
        self.points.iter().copied().filter(|p| p.1.is_finite())
    }

    fn value(&self, y: f64) -> String {
        if self.share { percent(y) } else { num(y) }
    }

    /// Whether the early values dwarf the later ones, so that a linear axis would hide these.
    fn steep(&self) -> bool {
        let mut ys: Vec<f64> = self.finite().map(|p| p.1).collect();
        ys.sort_by(f64::total_cmp);
        let (Some(least), Some(greatest)) = (ys.first(), ys.last()) else {
            return false;
        };
        *least > 0.0 && *greatest > 12.0 * ys[ys.len() / 2]
    }

    fn scales(&self) -> (Scale, Scale) {
        let (mut lo, mut hi) = (f64::INFINITY, f64::NEG_INFINITY);
        self.finite()
            .for_each(|(_, y)| (lo, hi) = (lo.min(y), hi.max(y)));
        let end = self.points.iter().fold(0.0, |end: f64, p| end.max(p.0));
        let (y0, y1) = (FRAME.y0(), FRAME.y1());
        let y = match self.steep() {
            true => Scale::log(lo, hi, y0, y1),
            false => Scale::linear(lo.min(0.0), hi, y0, y1),
        };
        (Scale::exact(0.0, end, FRAME.x0(), FRAME.x1()), y)
    }

    fn description(&self) -> String {
        let (Some(first), Some(last)) = (self.finite().next(), self.finite().last()) else {
            return String::new();
        };
        let least = self.finite().fold(first.1, |a, p| a.min(p.1));
        let greatest = self.finite().fold(first.1, |a, p| a.max(p.1));
        let at = |p: (f64, f64)| format!("{} at {} tokens", self.value(p.1), group(p.0 as u64));
        let range = format!(
            "least {}, greatest {}",
            self.value(least),
            self.value(greatest)
        );
        format!("From {} to {}; {range}.", at(first), at(last))
    }
}

/// Draws the chart; `None` if no value is finite.
pub fn line(chart: &LineChart) -> Option<String> {
    let last = chart.finite().last()?;
    let (x, y) = chart.scales();
    let unit = if chart.share {
        Unit::Percent
    } else {
        Unit::Plain
    };
    let mut body = axes(&x, &y, unit);
    for run in thin(&chart.points).split(|p| !p.1.is_finite()) {
        body += &polyline(run, &x, &y);
    }
    let (cx, cy) = (x.at(last.0), y.at(last.1));
    let (px, py) = (n(cx), n(cy));
    let _ = write!(
        body,
        "<circle class=\"dot\" cx=\"{px}\" cy=\"{py}\" r=\"3\"/>"
    );
    body += &text("end", cx + 7.0, cy + 4.0, &chart.value(last.1));
    let size = (FRAME.width, FRAME.height);
    let title = format!("{} over tokens", chart.title);
    let desc = chart.description();
    Some(image(&chart.id, "chart", size, &title, &desc, &body))
}

fn axes(x: &Scale, y: &Scale, unit: Unit) -> String {
    let (x0, x1, y0) = (FRAME.x0(), FRAME.x1(), FRAME.y0());
    let mut out = String::new();
    for tick in y.ticks() {
        let at = y.at(tick);
        out += &rule("grid", (x0, x1), (at, at));
        out += &text("y", x0 - 7.0, at + 4.0, &y.label(tick, unit));
    }
    out += &rule("axis", (x0, x1), (y0, y0));
    for tick in x.ticks() {
        let at = x.at(tick);
        out += &rule("axis", (at, at), (y0, y0 + 4.0));
        out += &text("x", at, y0 + 18.0, &x.label(tick, Unit::Plain));
    }
    let name = if y.is_log() {
        "tokens (values on a log scale)"
    } else {
        "tokens"
    };
    out + &text("x name", (x0 + x1) / 2.0, y0 + 37.0, name)
}

fn polyline(run: &[(f64, f64)], x: &Scale, y: &Scale) -> String {
    let mut path = String::new();
    for &(px, py) in run {
        let mark = if path.is_empty() { 'M' } else { 'L' };
        let _ = write!(path, "{mark}{} {}", n(x.at(px)), n(y.at(py)));
    }
    match run.len() {
        0 => String::new(),
        // A lone point between gaps still shows: round ends turn it into a dot.
        1 => format!("<path class=\"curve\" d=\"{path}h0\"/>"),
        _ => format!("<path class=\"curve\" d=\"{path}\"/>"),
    }
}

/// At most about `MAX_POINTS` points with the same outline.
fn thin(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= MAX_POINTS {
        return points.to_vec();
    }
    let stretch = points.len().div_ceil(MAX_POINTS / 4);
    points.chunks(stretch).flat_map(outline).collect()
}

fn outline(stretch: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let by_value = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
    let ends = [stretch.first(), stretch.last()];
    let extremes = [
        stretch.iter().min_by(by_value),
        stretch.iter().max_by(by_value),
    ];
    let mut kept: Vec<(f64, f64)> = ends
        .into_iter()
        .chain(extremes)
        .flatten()
        .copied()
        .collect();
    kept.sort_by(|a, b| a.0.total_cmp(&b.0));
    kept.dedup_by(|a, b| a.0 == b.0 && a.1 == b.1);
    kept
}
