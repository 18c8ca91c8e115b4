//! Histograms.

use super::scale::Scale;
use super::{Frame, image, rect, rule, text};
use crate::report::data::{DensityHistogram, Histogram};
use crate::report::text::{counted, group, num, percent, sig};

const FRAME: Frame = Frame {
    width: 680.0,
    height: 226.0,
    left: 48.0,
    right: 20.0,
    top: 14.0,
    bottom: 46.0,
};

/// Room left of the bins for the bar of dead features.
const DEAD: f64 = 96.0;

/// Bins as (low edge, high edge, count); those without finite, rising edges are left out.
pub fn bins(histogram: &Histogram) -> Vec<(f64, f64, u64)> {
    let edges = histogram.edges.windows(2).map(|e| (e[0], e[1]));
    let bins = edges
        .zip(&histogram.counts)
        .map(|((lo, hi), &n)| (lo, hi, n));
    bins.filter(|(lo, hi, _)| lo < hi && lo.is_finite() && hi.is_finite())
        .collect()
}

/// Draws how often features fire; dead ones stand apart. `None` without features.
pub fn densities(id: &str, histogram: &DensityHistogram) -> Option<String> {
    let bins = bins(&histogram.bins);
    let living: u64 = bins.iter().map(|b| b.2).sum();
    if living + histogram.dead == 0 {
        return None;
    }
    let most = bins
        .iter()
        .map(|b| b.2)
        .max()
        .unwrap_or(0)
        .max(histogram.dead);
    let y = Scale::linear(0.0, most as f64, FRAME.y0(), FRAME.y1());
    let left = FRAME.x0() + DEAD;
    let mut body = count_axis(&y) + &dead_bar(histogram.dead, &y);
    let full = || bins.iter().filter(|b| b.2 > 0);
    if let (Some(first), Some(last)) = (full().next(), full().next_back()) {
        let x = Scale::exact(first.0.floor(), last.1.ceil(), left, FRAME.x1());
        for bin in full() {
            body += &density_bar(*bin, &x, &y);
        }
        body += &density_axis(&x);
    }
    let size = (FRAME.width, FRAME.height);
    let title = format!("Features by density, {}", histogram.name);
    let desc = describe(&bins, histogram.dead);
    Some(image(id, "chart wide", size, &title, &desc, &body))
}

fn describe(bins: &[(f64, f64, u64)], dead: u64) -> String {
    let living: u64 = bins.iter().map(|b| b.2).sum();
    let counts = format!(
        "{} that fire, {} dead.",
        counted(living, "feature"),
        group(dead)
    );
    match bins.iter().max_by_key(|b| b.2) {
        Some((lo, hi, _)) if living > 0 => {
            let (lo, hi) = (percent(10f64.powf(*lo)), percent(10f64.powf(*hi)));
            format!("{counts} Most fire on {lo} to {hi} of tokens.")
        }
        _ => counts,
    }
}

fn count_axis(y: &Scale) -> String {
    let (x0, x1) = (FRAME.x0(), FRAME.x1());
    let whole = y.ticks().into_iter().filter(|t| t.fract() == 0.0);
    let mut out = String::new();
    for tick in whole {
        let at = y.at(tick);
        out += &rule("grid", (x0, x1), (at, at));
        out += &text("y", x0 - 7.0, at + 4.0, &group(tick as u64));
    }
    out
}

fn dead_bar(dead: u64, y: &Scale) -> String {
    let (x, wide, y0) = (FRAME.x0() + 10.0, 22.0, FRAME.y0());
    let top = y.at(dead as f64);
    let title = format!("{} never fired", counted(dead, "feature"));
    let bar = rect("bar dead", (x, top), (wide, y0 - top), &title);
    let middle = x + wide / 2.0;
    let count = text("x", middle, top - 4.0, &group(dead));
    let axis = rule("axis", (FRAME.x0(), x + wide + 10.0), (y0, y0));
    bar + &count + &axis + &text("x", middle, y0 + 18.0, "dead")
}

fn density_bar((lo, hi, count): (f64, f64, u64), x: &Scale, y: &Scale) -> String {
    let (x0, x1, y0) = (x.at(lo), x.at(hi), FRAME.y0());
    let top = y.at(count as f64);
    let (low, high) = (percent(10f64.powf(lo)), percent(10f64.powf(hi)));
    let title = format!("{} on {low} to {high} of tokens", counted(count, "feature"));
    let wide = (x1 - x0 - 1.0).max(0.5);
    rect("bar", (x0 + 0.5, top), (wide, y0 - top), &title)
}

fn density_axis(x: &Scale) -> String {
    let (x0, x1, y0) = (FRAME.x0() + DEAD, FRAME.x1(), FRAME.y0());
    let mut out = rule("axis", (x0, x1), (y0, y0));
    for tick in x.ticks() {
        let at = x.at(tick);
        out += &rule("axis", (at, at), (y0, y0 + 4.0));
        out += &text("x", at, y0 + 18.0, &power(tick));
    }
    let name = "share of tokens (log scale)";
    out + &text("x name", (x0 + x1) / 2.0, y0 + 40.0, name)
}

/// The share `10^exponent`; without idle decimals where it is a power of ten.
fn power(exponent: f64) -> String {
    let places = (-exponent - 2.0).max(0.0);
    match exponent.fract() == 0.0 && places < 10.0 {
        true => format!("{:.*}%", places as usize, 10f64.powf(exponent + 2.0)),
        false => percent(10f64.powf(exponent)),
    }
}

const SPARK: (f64, f64) = (248.0, 80.0);

/// Draws the small histogram of a feature card; bar heights go by the logarithm of the count.
pub fn spark(id: &str, feature: u64, histogram: &Histogram) -> Option<String> {
    let bins = bins(histogram);
    let (first, last) = (bins.first()?, bins.last()?);
    let most = bins.iter().map(|b| b.2).max().filter(|&m| m > 0)?;
    let (bottom, top) = (SPARK.1 - 16.0, 2.0);
    let x = Scale::exact(first.0, last.1, 0.0, SPARK.0);
    let y = Scale::exact(0.0, (most as f64).ln_1p(), bottom, top);
    let mut body = String::new();
    for &(lo, hi, count) in bins.iter().filter(|b| b.2 > 0) {
        let (x0, x1, at) = (x.at(lo), x.at(hi), y.at((count as f64).ln_1p()));
        let title = format!("{} to {}: {}", num(lo), num(hi), counted(count, "token"));
        let wide = (x1 - x0 - 1.0).max(0.5);
        body += &rect("bar", (x0 + 0.5, at), (wide, bottom - at), &title);
    }
    body += &rule("axis", (0.0, SPARK.0), (bottom, bottom));
    body += &text("left", 0.0, SPARK.1 - 3.0, &sig(first.0, 3));
    body += &text("right", SPARK.0, SPARK.1 - 3.0, &sig(last.1, 3));
    let title = format!("Activations of feature {feature}");
    let total: u64 = bins.iter().map(|b| b.2).sum();
    let range = format!("between {} and {}", num(first.0), num(last.1));
    let desc = format!("{} {range}; log counts.", counted(total, "activation"));
    Some(image(id, "spark", SPARK, &title, &desc, &body))
}

#[cfg(test)]
mod tests {
    use super::power;

    #[test]
    fn powers_of_ten_have_no_idle_decimals() {
        let cases = [
            (-5.0, "0.001%"),
            (-1.0, "10%"),
            (0.0, "100%"),
            (-2.5, "0.32%"),
        ];
        for (exponent, text) in cases {
            assert_eq!(power(exponent), text);
        }
    }
}
