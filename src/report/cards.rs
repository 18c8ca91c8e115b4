//! Feature cards and their index.

use std::fmt::Write;

use super::data::{FeatureCard, FeatureSet, Snippet, TokenActivation, TokenLogit};
use super::page::Section;
use super::palette::shade;
use super::svg;
use super::text::{decimals, esc, group, lone_token, num, percent, sig, token};

/// Index and cards, per autoencoder.
pub fn features(sets: &[FeatureSet]) -> Option<Section> {
    let shown = sets.iter().filter(|s| !s.cards.is_empty());
    let body: String = shown.enumerate().map(|(i, s)| set(i + 1, s)).collect();
    (!body.is_empty()).then(|| Section {
        id: "features",
        title: "Features",
        count: Some(sets.iter().map(|s| s.cards.len()).sum()),
        body,
    })
}

fn set(number: usize, set: &FeatureSet) -> String {
    let name = esc(&set.name);
    let note = set
        .note
        .as_deref()
        .map(|n| format!("<p class=\"note\">{}</p>\n", esc(n)));
    let note = note.unwrap_or_default();
    let ids: Vec<String> = (1..=set.cards.len())
        .map(|i| format!("f{number}-{i}"))
        .collect();
    let with_ids = || ids.iter().zip(&set.cards);
    let index: String = with_ids().map(|(id, c)| index_item(id, c)).collect();
    let home = format!("features-{number}");
    let cards: String = with_ids().map(|(id, c)| card(id, &home, c)).collect();
    format!(
        "<h3 id=\"{home}\" tabindex=\"-1\">{name}</h3>\n{note}\
         <nav aria-label=\"Features of {name}\">\n<ol class=\"index\">\n{index}</ol>\n</nav>\n{cards}"
    )
}

/// The card's number and the token it fires on most.
fn index_item(id: &str, card: &FeatureCard) -> String {
    let peak = card
        .snippets
        .first()
        .and_then(|s| Some(&s.tokens[peak(s)?]));
    let word = peak.map(|t| format!(" <span>{}</span>", token(t.text.trim_start_matches(' '))));
    let (feature, word) = (card.feature, word.unwrap_or_default());
    format!("<li><a href=\"#{id}\"><b>{feature}</b>{word}</a></li>\n")
}

fn card(id: &str, home: &str, card: &FeatureCard) -> String {
    let feature = card.feature;
    let figures = figures(card);
    let spark = svg::spark(&format!("{id}-svg"), feature, &card.activations);
    let spark = spark.map(|s| format!("<figure>\n<figcaption>Activations <small>log counts</small></figcaption>\n{s}\n</figure>\n"));
    let spark = spark.unwrap_or_default();
    let promoted = tokens("Promotes", &card.promoted);
    let suppressed = tokens("Suppresses", &card.suppressed);
    let snippets = snippets(card);
    format!(
        "<details class=\"card\" id=\"{id}\" open>\n\
         <summary><h4>Feature {feature}</h4>{figures}</summary>\n\
         <div class=\"body\">\n<div class=\"aside\">\n{spark}{promoted}{suppressed}</div>\n\
         {snippets}</div>\n<p class=\"up\"><a href=\"#{home}\">Back to the index</a></p>\n</details>\n"
    )
}

fn figures(card: &FeatureCard) -> String {
    let three = |x: f64| sig(x, 3);
    let known = [
        ("density", card.density, percent as fn(f64) -> String),
        ("max", card.max_activation, three),
        ("mean", card.mean_activation, three),
    ];
    let mut out = String::new();
    for (name, value, show) in known {
        let _ = write!(out, " <span>{name} <b>{}</b></span>", show(value));
    }
    out
}

fn tokens(name: &str, tokens: &[TokenLogit]) -> String {
    if tokens.is_empty() {
        return String::new();
    }
    let items: String = tokens.iter().map(logit).collect();
    format!(
        "<table class=\"logits\">\n<caption>{name}<span class=\"vh\">: token, change of its logit</span></caption>\n<tbody>\n{items}</tbody>\n</table>\n"
    )
}

fn logit(t: &TokenLogit) -> String {
    let sign = if t.logit > 0.0 { "+" } else { "" };
    let (text, value) = (lone_token(&t.text), decimals(t.logit, 2));
    format!("<tr><th scope=\"row\" title=\"{text}\">{text}</th><td>{sign}{value}</td></tr>\n")
}

fn snippets(card: &FeatureCard) -> String {
    let shown = card.snippets.iter().filter(|s| !s.tokens.is_empty());
    let items: String = shown.map(|s| snippet(s, card.max_activation)).collect();
    if items.is_empty() {
        return "<p class=\"note\">No snippets.</p>\n".into();
    }
    format!("<ol class=\"snippets\">\n{items}</ol>\n")
}

fn snippet(snippet: &Snippet, max: f64) -> String {
    let peak = peak(snippet);
    let value = peak.map_or(f64::NAN, |i| snippet.tokens[i].activation);
    let row = snippet
        .row
        .map(|r| format!(" title=\"token {} of the text\"", group(r)));
    let (row, value) = (row.unwrap_or_default(), sig(value, 3));
    // Without a greatest activation, the snippet's own gives the full shade.
    let full = if max > 0.0 {
        max
    } else {
        peak.map_or(1.0, |i| snippet.tokens[i].activation)
    };
    let mut text = String::new();
    for (i, t) in snippet.tokens.iter().enumerate() {
        let word = if i == 0 { first_word(&t.text) } else { &t.text };
        text += &shaded(word, t.activation, full, peak == Some(i));
    }
    format!(
        "<li><span class=\"peak\"{row}>{value}</span><p lang=\"\" dir=\"auto\">{text}</p></li>\n"
    )
}

/// A snippet starts flush left, so its first token loses the space before the word.
fn first_word(text: &str) -> &str {
    match text.strip_prefix(' ') {
        Some(word) if !word.is_empty() => word,
        _ => text,
    }
}

fn shaded(text: &str, activation: f64, full: f64, peak: bool) -> String {
    let (text, value) = (token(text), num(activation));
    match shade(activation, full) {
        level if peak => format!("<mark class=\"a{level}\" title=\"{value}\">{text}</mark>"),
        0 => text,
        level => format!("<span class=\"a{level}\" title=\"{value}\">{text}</span>"),
    }
}

/// Where the first greatest activation stands; `None` if none is above zero.
fn peak(snippet: &Snippet) -> Option<usize> {
    let positive = snippet
        .tokens
        .iter()
        .enumerate()
        .filter(|(_, t)| t.activation > 0.0);
    let greatest = |best: Option<(usize, f64)>, (i, t): (usize, &TokenActivation)| match best {
        Some((_, a)) if a >= t.activation => best,
        _ => Some((i, t.activation)),
    };
    positive.fold(None, greatest).map(|(i, _)| i)
}
