//! The held-out figures, one row per autoencoder.

use super::data::Evaluation;
use super::page::Section;
use super::table::table;
use super::text::{MISSING, decimals, esc, group, percent};

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
        body: table("Figures on the rows evaluated", &head, &rows) + &evaluation_note(evaluations),
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
