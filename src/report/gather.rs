//! From directories to a [`Report`]: what runs, stores and comparisons left on disk.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::Error;
use super::data::*;
use crate::Device;
use crate::capture::store::{Source, Store};
use crate::model::Network;
use crate::sae::eval::{Reconstruction, Spliced};
use crate::sae::features::{self, BARS, Feature};
use crate::sae::session::{self, LogLine, RunInfo};
use crate::sae::{Sae, format};
use crate::similarity::{Interval, Kind, Null, mds};

/// File in which a comparison is kept: a list of [`Comparison`]s.
pub const COMPARISON: &str = "compare.json";
/// File in which pictures of the rows' dissimilarities are kept: a list of [`Heatmap`]s.
pub const RDMS: &str = "rdms.json";
/// File in an autoencoder's directory in which its evaluation is kept: an [`Evaluated`].
pub const EVALUATION: &str = "eval.json";

/// One metric between two sets of representations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The metric with its options.
    pub metric: String,
    /// Whether larger values mean more or less alike.
    pub kind: Kind,
    /// Rows it was computed on.
    pub rows: usize,
    /// Rows there were.
    pub of_rows: usize,
    /// Names of the left side.
    pub row_labels: Vec<String>,
    /// Names of the right side.
    pub column_labels: Vec<String>,
    /// `[left][right]`.
    pub values: Vec<Vec<f64>>,
    /// What chance gives, `[left][right]`, if it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nulls: Option<Vec<Vec<Null>>>,
    /// Intervals, `[left][right]`, if they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intervals: Option<Vec<Vec<Interval>>>,
}

/// What an evaluation of an autoencoder found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluated {
    /// What it was measured on.
    pub source: String,
    /// Which rows.
    pub rows: String,
    /// Reconstruction.
    pub reconstruction: Reconstruction,
    /// Latents by log10 density: lower edge, count; four bins a decade.
    pub density_histogram: Vec<(f64, u64)>,
    /// In the model, where one was given.
    pub spliced: Option<Spliced>,
}

/// What to put in a report.
#[derive(Clone, Copy, Debug)]
pub struct Gather<'a> {
    /// The title.
    pub title: &'a str,
    /// Autoencoders, stores and comparisons, in the order they are shown.
    pub dirs: &'a [PathBuf],
    /// The model: gives tokens their text, and latents the tokens they promote.
    pub network: Option<&'a Network>,
    /// Where latents are computed.
    pub device: &'a Device,
    /// The most feature cards an autoencoder gets.
    pub cards: usize,
}

/// Snippets a card.
const EXAMPLES: usize = 8;
/// Tokens to either side of a snippet's peak.
const RADIUS: usize = 12;
/// Tokens listed as promoted, and as suppressed.
const TOKENS: usize = 8;

impl Gather<'_> {
    /// Reads the directories. `note` gets what had to be left out, and why.
    ///
    /// Cost: two encoding passes over the activations of each autoencoder.
    ///
    /// # Errors
    /// A directory that holds nothing, a file that cannot be read.
    pub fn run(&self, mut note: impl FnMut(String)) -> Result<Report, Error> {
        let mut report = Report::new(self.title);
        for dir in self.dirs {
            let mut found = false;
            if dir.join("manifest.json").exists() {
                self.store(dir, &mut report)?;
                found = true;
            }
            if dir.join("run.json").exists() {
                self.autoencoder(dir, &mut report, &mut note)?;
                found = true;
            }
            if dir.join(COMPARISON).exists() {
                let kept = read::<Vec<Comparison>>(&dir.join(COMPARISON))?;
                report.maps.extend(kept.iter().filter_map(map));
                report.heatmaps.extend(kept.into_iter().map(heatmap));
                found = true;
            }
            if dir.join(RDMS).exists() {
                report.rdms.extend(read::<Vec<Heatmap>>(&dir.join(RDMS))?);
                found = true;
            }
            if !found {
                return Err(Error::Nothing { dir: dir.clone() });
            }
        }
        Ok(report)
    }

    fn store(&self, dir: &Path, report: &mut Report) -> Result<(), Error> {
        let store = Store::open(dir)?;
        let manifest = store.manifest();
        let settings = &manifest.settings;
        let setting = |key: &str, value: String| Setting {
            key: key.into(),
            value,
        };
        let hooks: Vec<&str> = settings.hooks.iter().map(|h| h.name.as_str()).collect();
        report.runs.push(RunHeader {
            name: format!("store {}", dir.display()),
            model: Some(settings.model.id.clone()),
            hook: Some(hooks.join(", ")),
            text: Some(settings.text.clone()),
            tokens: Some(store.rows() as u64),
            device: Some(settings.device.clone()),
            extra: vec![
                setting("rows", format!("{} ({})", store.rows(), settings.positions)),
                setting("context", settings.context.to_string()),
                setting(
                    "shards",
                    format!(
                        "{}, {:.1} MB",
                        manifest.shards.len(),
                        manifest.totals.bytes as f64 / 1e6
                    ),
                ),
                setting(
                    "model sha256",
                    settings.model.sha256.chars().take(16).collect(),
                ),
            ],
            ..RunHeader::default()
        });
        Ok(())
    }

    fn autoencoder(
        &self,
        dir: &Path,
        report: &mut Report,
        note: &mut impl FnMut(String),
    ) -> Result<(), Error> {
        let name = dir.display().to_string();
        let info = session::run_info(dir)?;
        let log = session::read_log(dir)?;
        let evaluated: Option<Evaluated> = match dir.join(EVALUATION) {
            path if path.exists() => Some(read(&path)?),
            _ => None,
        };
        report
            .runs
            .push(header(&name, &info, log.last(), evaluated.as_ref()));
        report.curves.push(TrainingCurve {
            name: name.clone(),
            points: log.iter().map(point).collect(),
        });
        if let Some(found) = &evaluated {
            report.evaluations.push(evaluation(&name, found));
            report.densities.push(density(&name, found));
        }
        if !dir.join(format::CONFIG).exists() {
            note(format!(
                "{name}: training is not finished; no feature cards"
            ));
            return Ok(());
        }
        if format::is_cross_layer(dir) {
            note(format!(
                "{name}: no feature cards of a cross-layer transcoder"
            ));
            return Ok(());
        }
        let (sae, _) = format::load(dir, self.device.tensor())?;
        match Source::open(&info.source) {
            Ok(source) => report.features.extend(self.cards(&name, &sae, &source)?),
            Err(e) => note(format!(
                "{name}: no feature cards, its activations cannot be read ({e})"
            )),
        }
        Ok(())
    }

    fn cards(&self, name: &str, sae: &Sae, source: &Source) -> Result<Option<FeatureSet>, Error> {
        let survey = features::survey(sae, source, self.device, |_| ())?;
        let chosen = features::interesting(&survey, source.rows(), self.cards);
        let found =
            features::collect(sae, source, self.device, &survey, &chosen, EXAMPLES, RADIUS)?;
        let cards = found
            .iter()
            .map(|f| self.card(f, sae, source))
            .collect::<Result<Vec<_>, _>>()?;
        let note = format!(
            "The {} latents that carry most of the reconstruction for how rarely they fire, of those that fire on at most 3 % of {} rows.",
            cards.len(),
            source.rows(),
        );
        Ok((!cards.is_empty()).then(|| FeatureSet {
            name: name.into(),
            note: Some(note),
            cards,
        }))
    }

    fn card(&self, f: &Feature, sae: &Sae, source: &Source) -> Result<FeatureCard, Error> {
        let max = f64::from(f.survey.max);
        let snippets = f.examples.iter().map(|e| {
            let ids = source.token_ids(e.rows.clone())?;
            let ids = ids.map_or_else(
                || e.rows.clone().map(|r| format!("row {r}")).collect(),
                |ids| self.texts(&ids),
            );
            let tokens = ids.into_iter().zip(&e.activations);
            let tokens = tokens
                .map(|(text, a)| TokenActivation {
                    text,
                    activation: f64::from(*a),
                })
                .collect();
            Ok(Snippet {
                tokens,
                row: Some(e.row as u64),
            })
        });
        let unembedding = self
            .network
            .and_then(|n| n.model.unembedding())
            .filter(|u| u.dims()[1] == sae.d_out());
        let (raised, lowered) = match unembedding {
            Some(u) => features::promoted(sae, f.index, &u, TOKENS)?,
            None => Default::default(),
        };
        let logits = |list: Vec<(u32, f32)>| {
            list.into_iter()
                .map(|(id, l)| TokenLogit {
                    text: self.texts(&[id]).remove(0),
                    logit: f64::from(l),
                })
                .collect()
        };
        Ok(FeatureCard {
            feature: f.index as u64,
            density: f.survey.fired as f64 / source.rows() as f64,
            max_activation: max,
            mean_activation: f.survey.sum / f.survey.fired.max(1) as f64,
            activations: Histogram {
                edges: (0..=BARS).map(|i| max * i as f64 / BARS as f64).collect(),
                counts: f.histogram.clone(),
            },
            snippets: snippets.collect::<Result<_, Error>>()?,
            promoted: logits(raised),
            suppressed: logits(lowered),
        })
    }

    /// Tokens as a reader sees them; their ids where there is no tokenizer.
    fn texts(&self, ids: &[u32]) -> Vec<String> {
        let text = |id: &u32| {
            self.network
                .map_or_else(|| format!(" {id}"), |n| n.tokenizer.show(*id))
        };
        ids.iter().map(text).collect()
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let bad = |reason: String| Error::Read {
        path: path.into(),
        reason,
    };
    let bytes = std::fs::read(path).map_err(|e| bad(e.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|e| bad(e.to_string()))
}

fn header(
    name: &str,
    info: &RunInfo,
    last: Option<&LogLine>,
    found: Option<&Evaluated>,
) -> RunHeader {
    let c = &info.config;
    RunHeader {
        name: name.into(),
        model: info.model().map(|m| m.id.clone()),
        hook: info.hook.clone(),
        text: info.text().map(str::to_owned),
        tokens: Some(info.rows as u64),
        architecture: Some(c.architecture.name().into()),
        d_in: Some(info.d_in as u64),
        d_sae: Some(c.d_sae as u64),
        k: c.k().map(|k| k as u64),
        batch: Some(c.batch as u64),
        trained_tokens: last.map(|l| l.tokens),
        lr: Some(c.lr),
        seed: Some(c.seed),
        device: Some(info.device.clone()),
        train_seconds: last.map(|l| l.seconds),
        fvu: found.map(|f| f.reconstruction.fvu),
        l0: found.map(|f| f.reconstruction.l0),
        dead_share: found.map(|f| f.reconstruction.dead_share),
        ce_recovered: found.and_then(|f| f.spliced).map(|s| s.ce_recovered),
        extra: vec![Setting {
            key: "activations".into(),
            value: info.source.clone(),
        }],
        ..RunHeader::default()
    }
}

fn point(line: &LogLine) -> TrainingPoint {
    TrainingPoint {
        step: line.stats.step,
        tokens: line.tokens,
        loss: line.stats.loss,
        fvu: line.stats.fvu,
        l0: line.stats.l0,
        dead_share: line.stats.dead_share,
        tokens_per_second: line.tokens_per_second,
    }
}

fn evaluation(name: &str, found: &Evaluated) -> Evaluation {
    let (r, s) = (&found.reconstruction, found.spliced);
    Evaluation {
        name: format!("{name}, rows {}", found.rows),
        tokens: Some(r.rows),
        l0: Some(r.l0),
        fvu: Some(r.fvu),
        cosine: Some(r.cosine),
        dead_share: Some(r.dead_share),
        ce_original: s.map(|s| s.ce_original),
        ce_spliced: s.map(|s| s.ce_spliced),
        ce_zero: s.map(|s| s.ce_zero),
        ce_recovered: s.map(|s| s.ce_recovered),
    }
}

fn density(name: &str, found: &Evaluated) -> DensityHistogram {
    let bins = &found.density_histogram;
    let last = bins.last().map(|b| b.0 + 0.25);
    let dead = found
        .reconstruction
        .fired
        .iter()
        .filter(|n| **n == 0)
        .count();
    DensityHistogram {
        name: name.into(),
        bins: Histogram {
            edges: bins.iter().map(|b| b.0).chain(last).collect(),
            counts: bins.iter().map(|b| b.1).collect(),
        },
        dead: dead as u64,
    }
}

fn title(found: &Comparison) -> String {
    let sides = (
        split_labels(&found.row_labels).0,
        split_labels(&found.column_labels).0,
    );
    match sides {
        (Some(a), Some(b)) if a != b => format!("{a} and {b}"),
        (Some(a), _) => format!("Within {a}"),
        _ if found.row_labels == found.column_labels => "Within one set".into(),
        _ => "Between two sets".into(),
    }
}

/// A map of what was compared with itself by a distance; two points make none.
fn map(found: &Comparison) -> Option<Map> {
    let same = found.row_labels == found.column_labels && found.row_labels.len() > 2;
    if !same || found.kind != Kind::Distance {
        return None;
    }
    let placed = mds(&found.values, 2).ok()?;
    let place = |p: &Vec<f64>| (p[0], p[1]);
    Some(Map {
        title: title(found),
        metric: found.metric.clone(),
        labels: found.row_labels.clone(),
        places: placed.coordinates.iter().map(place).collect(),
        shown: placed.shown,
    })
}

fn heatmap(found: Comparison) -> Heatmap {
    let title = title(&found);
    let (rows, row_labels) = split_labels(&found.row_labels);
    let (columns, column_labels) = split_labels(&found.column_labels);
    let same = found.row_labels == found.column_labels;
    let owned = |labels: Vec<&str>| labels.into_iter().map(str::to_owned).collect();
    let unit = found
        .values
        .iter()
        .flatten()
        .all(|v| (0.0..=1.0).contains(v));
    Heatmap {
        title,
        metric: found.metric,
        note: Some(format!("{} of {} rows", found.rows, found.of_rows)),
        rows: rows.filter(|_| !same).map(str::to_owned),
        columns: columns.filter(|_| !same).map(str::to_owned),
        row_labels: owned(row_labels),
        column_labels: owned(column_labels),
        values: found.values,
        range: (unit && found.kind == Kind::Similarity).then_some((0.0, 1.0)),
    }
}

/// Labels of the form `store:hook` that share their store: the store, and the hooks alone.
/// Other labels come back as they are.
pub fn split_labels(labels: &[String]) -> (Option<&str>, Vec<&str>) {
    let parts: Option<Vec<(&str, &str)>> = labels.iter().map(|l| l.rsplit_once(':')).collect();
    match parts.as_deref() {
        Some([(store, hook), rest @ ..]) if rest.iter().all(|(s, _)| s == store) => {
            let hooks = std::iter::once(*hook).chain(rest.iter().map(|(_, h)| *h));
            (Some(store), hooks.collect())
        }
        _ => (None, labels.iter().map(String::as_str).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_one_store_lose_its_name() {
        let labels = |l: &[&str]| l.iter().map(|s| s.to_string()).collect::<Vec<_>>();
        assert_eq!(
            split_labels(&labels(&["a:x", "a:y"])),
            (Some("a"), vec!["x", "y"])
        );
        assert_eq!(
            split_labels(&labels(&["a:x", "b:y"])),
            (None, vec!["a:x", "b:y"])
        );
        assert_eq!(
            split_labels(&labels(&["m.safetensors"])),
            (None, vec!["m.safetensors"])
        );
    }
}
