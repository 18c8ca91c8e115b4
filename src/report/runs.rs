//! The run headers: what was run, on which device, with which settings.

use super::data::{RunHeader, Setting};
use super::page::Section;
use super::text::{duration, esc, group, num, percent, sig};

/// One card per run.
pub fn runs(runs: &[RunHeader]) -> Option<Section> {
    (!runs.is_empty()).then(|| Section {
        id: "runs",
        title: "What was run",
        count: None,
        body: runs.iter().map(card).collect(),
    })
}

fn card(run: &RunHeader) -> String {
    let (name, figures, settings) = (esc(&run.name), figures(run), settings(run));
    format!("<article class=\"run\">\n<h3>{name}</h3>\n{figures}{settings}</article>\n")
}

/// The numbers a reader looks for first.
fn figures(run: &RunHeader) -> String {
    let known = [
        ("FVU", "variance unexplained", run.fvu.map(|x| sig(x, 3))),
        ("L0", "features for each token", run.l0.map(|x| sig(x, 3))),
        (
            "Dead",
            "of features never fire",
            run.dead_share.map(percent),
        ),
        (
            "CE recovered",
            "against zero ablation",
            run.ce_recovered.map(percent),
        ),
    ];
    let items = known.into_iter().filter_map(|(name, hint, value)| {
        let value = value?;
        Some(format!(
            "<div><dt>{name} <small>{hint}</small></dt><dd>{value}</dd></div>\n"
        ))
    });
    list("figures", items.collect())
}

fn settings(run: &RunHeader) -> String {
    let words = |key: &str, value: &Option<String>| value.as_deref().map(|v| setting(key, v));
    let count = |key: &str, value: Option<u64>| value.map(|v| setting(key, &group(v)));
    let time = |key: &str, value: Option<f64>| value.map(|v| setting(key, &duration(v)));
    let known = [
        words("Model", &run.model),
        words("Hook", &run.hook),
        words("Text", &run.text),
        count("Tokens captured", run.tokens),
        words("Device", &run.device),
        words("Architecture", &run.architecture),
        widths(run),
        count("k", run.k),
        count("Tokens trained on", run.trained_tokens),
        count("Batch", run.batch),
        run.lr.map(|lr| setting("Learning rate", &rate(lr))),
        run.seed.map(|seed| setting("Seed", &seed.to_string())),
        time("Capture", run.capture_seconds),
        time("Training", run.train_seconds),
    ];
    let extra = run
        .extra
        .iter()
        .map(|Setting { key, value }| setting(key, value));
    list(
        "settings",
        known.into_iter().flatten().chain(extra).collect(),
    )
}

fn widths(run: &RunHeader) -> Option<String> {
    let value = match (run.d_in, run.d_sae) {
        (Some(d_in), Some(d_sae)) => format!("{} → {}", group(d_in), group(d_sae)),
        (None, Some(d_sae)) => group(d_sae),
        (Some(d_in), None) => format!("{} in", group(d_in)),
        (None, None) => return None,
    };
    Some(setting("Width", &value))
}

/// A learning rate as it is typed, such as `3e-4`.
fn rate(lr: f64) -> String {
    match lr {
        tiny if tiny > 0.0 && tiny < 1e-2 => format!("{tiny:e}"),
        lr => num(lr),
    }
}

fn setting(key: &str, value: &str) -> String {
    let (key, value) = (esc(key), esc(value));
    format!("<div><dt>{key}</dt><dd>{value}</dd></div>\n")
}

fn list(class: &str, items: String) -> String {
    if items.is_empty() {
        return String::new();
    }
    format!("<dl class=\"{class}\">\n{items}</dl>\n")
}
