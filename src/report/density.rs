//! How often features fire.

use super::data::DensityHistogram;
use super::page::Section;
use super::svg;
use super::table::{folded, table};
use super::text::{decimals, esc, group, percent};

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

#[cfg(test)]
mod tests {
    use super::quantile;

    #[test]
    fn quantiles_lie_where_the_counts_do() {
        let bins = [(-3.0, -2.0, 10), (-2.0, -1.0, 0), (-1.0, 0.0, 30)];
        assert_eq!(quantile(&bins, 0.25), Some(-2.0));
        assert_eq!(quantile(&bins, 0.625), Some(-0.5));
        assert_eq!(quantile(&bins, 1.0), Some(0.0));
        assert_eq!(quantile(&[(0.0, 1.0, 0)], 0.5), None);
    }
}
