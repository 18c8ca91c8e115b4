//! What a report is made of: plain data, gathered elsewhere.
//!
//! Numbers are `f64`; NaN stands for "not measured" and is shown as "n/a".
//! JSON has no NaN, so it is written as `null` and read back as NaN.

use serde::{Deserialize, Deserializer, Serialize};

/// One report. A section whose list is empty is left out of the page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Title of the page.
    pub title: String,
    /// Program and version that made the report, such as `inscape 0.1.0`.
    pub made_with: String,
    /// When the report was made, as the reader should see it.
    pub made_at: Option<String>,
    /// What was run: one header per autoencoder (or capture).
    pub runs: Vec<RunHeader>,
    /// Held-out figures, one row per autoencoder.
    pub evaluations: Vec<Evaluation>,
    /// Training logs, one per autoencoder.
    pub curves: Vec<TrainingCurve>,
    /// How often features fire, one histogram per autoencoder.
    pub densities: Vec<DensityHistogram>,
    /// Similarity matrices.
    pub heatmaps: Vec<Heatmap>,
    /// Representations as points, the nearer the more alike.
    pub maps: Vec<Map>,
    /// Dissimilarities of the rows of one representation each.
    pub rdms: Vec<Heatmap>,
    /// Feature cards, one set per autoencoder.
    pub features: Vec<FeatureSet>,
}

impl Default for Report {
    fn default() -> Self {
        Report {
            title: "Inscape report".into(),
            made_with: concat!("inscape ", env!("CARGO_PKG_VERSION")).into(),
            made_at: None,
            runs: Vec::new(),
            evaluations: Vec::new(),
            curves: Vec::new(),
            densities: Vec::new(),
            heatmaps: Vec::new(),
            maps: Vec::new(),
            rdms: Vec::new(),
            features: Vec::new(),
        }
    }
}

impl Report {
    /// An empty report with this title.
    pub fn new(title: impl Into<String>) -> Self {
        Report {
            title: title.into(),
            ..Report::default()
        }
    }
}

/// What was run, on which device, with which settings. Fields left `None` are not shown.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunHeader {
    /// Name of the run, such as the hook or the autoencoder's directory.
    pub name: String,
    /// Model.
    pub model: Option<String>,
    /// Hook the activations come from.
    pub hook: Option<String>,
    /// Text that was read.
    pub text: Option<String>,
    /// Tokens captured.
    pub tokens: Option<u64>,
    /// Autoencoder architecture, such as `topk`.
    pub architecture: Option<String>,
    /// Width of the activations.
    pub d_in: Option<u64>,
    /// Number of features.
    pub d_sae: Option<u64>,
    /// Features active for each token.
    pub k: Option<u64>,
    /// Tokens in one training step.
    pub batch: Option<u64>,
    /// Tokens trained on, counting every pass.
    pub trained_tokens: Option<u64>,
    /// Learning rate.
    pub lr: Option<f64>,
    /// Seed of every draw.
    pub seed: Option<u64>,
    /// Device that did the work.
    pub device: Option<String>,
    /// Seconds spent capturing.
    pub capture_seconds: Option<f64>,
    /// Seconds spent training.
    pub train_seconds: Option<f64>,
    /// Fraction of variance unexplained.
    pub fvu: Option<f64>,
    /// Mean number of active features for each token.
    pub l0: Option<f64>,
    /// Share of features that never fire, `0..=1`.
    pub dead_share: Option<f64>,
    /// Cross-entropy recovered against zero ablation; 1 is all of it.
    pub ce_recovered: Option<f64>,
    /// Further settings, shown after the known ones in this order.
    pub extra: Vec<Setting>,
}

/// One further setting of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// Name.
    pub key: String,
    /// Value, as shown.
    pub value: String,
}

/// Figures of one autoencoder on data it was not trained on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Evaluation {
    /// Name of the autoencoder.
    pub name: String,
    /// Tokens evaluated.
    pub tokens: Option<u64>,
    /// Mean number of active features for each token.
    pub l0: Option<f64>,
    /// Fraction of variance unexplained.
    pub fvu: Option<f64>,
    /// Mean cosine between activation and reconstruction.
    pub cosine: Option<f64>,
    /// Share of features that never fire, `0..=1`.
    pub dead_share: Option<f64>,
    /// Cross-entropy of the untouched model, nats for each token.
    pub ce_original: Option<f64>,
    /// Cross-entropy with the reconstruction spliced in.
    pub ce_spliced: Option<f64>,
    /// Cross-entropy with the hook's value set to zero.
    pub ce_zero: Option<f64>,
    /// `(ce_zero - ce_spliced) / (ce_zero - ce_original)`.
    pub ce_recovered: Option<f64>,
}

/// The training log of one autoencoder.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainingCurve {
    /// Name of the autoencoder.
    pub name: String,
    /// Logged steps, in order.
    pub points: Vec<TrainingPoint>,
}

/// One logged training step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrainingPoint {
    /// Step, counted from 1.
    pub step: u64,
    /// Tokens seen up to and including this step.
    pub tokens: u64,
    /// Training loss.
    #[serde(deserialize_with = "nan")]
    pub loss: f64,
    /// Fraction of variance unexplained.
    #[serde(deserialize_with = "nan")]
    pub fvu: f64,
    /// Mean number of active features for each token.
    #[serde(deserialize_with = "nan")]
    pub l0: f64,
    /// Share of features counted as dead, `0..=1`.
    #[serde(deserialize_with = "nan")]
    pub dead_share: f64,
    /// Speed, tokens per second.
    #[serde(deserialize_with = "nan")]
    pub tokens_per_second: f64,
}

impl Default for TrainingPoint {
    fn default() -> Self {
        TrainingPoint {
            step: 0,
            tokens: 0,
            loss: f64::NAN,
            fvu: f64::NAN,
            l0: f64::NAN,
            dead_share: f64::NAN,
            tokens_per_second: f64::NAN,
        }
    }
}

/// Counts between edges.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Bin edges, rising: `[bins + 1]`.
    pub edges: Vec<f64>,
    /// Counts: `[bins]`. Bins without both edges are not shown.
    pub counts: Vec<u64>,
}

/// How often the features of one autoencoder fire.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DensityHistogram {
    /// Name of the autoencoder.
    pub name: String,
    /// Living features by log10 of their density (the share of tokens they fire on).
    pub bins: Histogram,
    /// Features that never fired.
    pub dead: u64,
}

/// A similarity matrix.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Heatmap {
    /// What is compared, such as `MiniLM, layer by layer`.
    pub title: String,
    /// Metric, such as `linear CKA (unbiased)`.
    pub metric: String,
    /// What the rows are, such as `seed 1`.
    pub rows: Option<String>,
    /// What the columns are.
    pub columns: Option<String>,
    /// One label per row. A part that all labels share is shown once.
    pub row_labels: Vec<String>,
    /// One label per column.
    pub column_labels: Vec<String>,
    /// Values: `[rows][columns]`. A missing value counts as NaN.
    #[serde(deserialize_with = "nan_rows")]
    pub values: Vec<Vec<f64>>,
    /// Values at the two ends of the colour scale; without it, the least and greatest value.
    pub range: Option<(f64, f64)>,
    /// A sentence below the title.
    pub note: Option<String>,
}

/// Many representations as points of a plane, by how far each is from each.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Map {
    /// What is compared, such as `MiniLM, layer by layer`.
    pub title: String,
    /// Metric, a distance.
    pub metric: String,
    /// One label per point. A part that all labels share is shown once.
    pub labels: Vec<String>,
    /// Where the points are.
    pub places: Vec<(f64, f64)>,
    /// Share of the squared distances that the plane shows, `0..=1`.
    pub shown: f64,
}

/// Feature cards of one autoencoder.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FeatureSet {
    /// Name of the autoencoder.
    pub name: String,
    /// A sentence on how the features were chosen.
    pub note: Option<String>,
    /// Cards, in the order shown.
    pub cards: Vec<FeatureCard>,
}

/// What is known of one feature.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FeatureCard {
    /// Index of the feature, `0..d_sae`.
    pub feature: u64,
    /// Share of tokens it fires on, `0..=1`.
    #[serde(deserialize_with = "nan")]
    pub density: f64,
    /// Greatest activation; the full shade of a token.
    #[serde(deserialize_with = "nan")]
    pub max_activation: f64,
    /// Mean activation over the tokens it fires on.
    #[serde(deserialize_with = "nan")]
    pub mean_activation: f64,
    /// Activations above zero.
    pub activations: Histogram,
    /// Snippets it fires on most, strongest first.
    pub snippets: Vec<Snippet>,
    /// Tokens whose logits it raises most, strongest first (language models only).
    pub promoted: Vec<TokenLogit>,
    /// Tokens whose logits it lowers most, strongest first.
    pub suppressed: Vec<TokenLogit>,
}

/// A stretch of text with one activation per token. The first greatest activation is marked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snippet {
    /// Tokens, in order.
    pub tokens: Vec<TokenActivation>,
    /// Where the marked token stands in the captured text, in tokens.
    #[serde(default)]
    pub row: Option<u64>,
}

/// A token of a snippet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TokenActivation {
    /// The token as it stands in the text, with the space before it if it has one.
    pub text: String,
    /// Activation of the feature on it.
    #[serde(deserialize_with = "nan")]
    pub activation: f64,
}

/// A token of the vocabulary and what a feature adds to its logit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TokenLogit {
    /// The token, with the space before it if it has one.
    pub text: String,
    /// Change of the logit for one unit of activation.
    #[serde(deserialize_with = "nan")]
    pub logit: f64,
}

/// Reads `null` as NaN.
fn nan<'de, D: Deserializer<'de>>(de: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(de)?.unwrap_or(f64::NAN))
}

/// Reads `null` as NaN in a matrix.
fn nan_rows<'de, D: Deserializer<'de>>(de: D) -> Result<Vec<Vec<f64>>, D::Error> {
    let rows = Vec::<Vec<Option<f64>>>::deserialize(de)?;
    let fill = |row: Vec<Option<f64>>| row.into_iter().map(|v| v.unwrap_or(f64::NAN)).collect();
    Ok(rows.into_iter().map(fill).collect())
}
