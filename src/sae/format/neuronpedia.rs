//! Latents as the dashboards of Neuronpedia and SAEDashboard read them: a batch of features as JSON,
//! `batch-{n}.json`.

use std::collections::HashMap;
use std::path::Path;

use burn::tensor::Tensor;
use serde::Serialize;
use serde_json::{Value, json};

use super::{make_dir, write_json};
use crate::Device;
use crate::capture::store::Source;
use crate::device::{self, block_on};
use crate::model::Network;
use crate::sae::features::{
    BARS, Example, Feature, Survey, TokenLogits, collect_seen, promoted, survey,
};
use crate::sae::{Error, Sae};

/// Where the features of a batch come from.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The model's name there: `gpt2-small`.
    pub model_id: String,
    /// The layer that the autoencoder reads.
    pub layer: usize,
    /// The set that it belongs to: `res-jb`.
    pub sae_set: String,
    /// What tells it from others of its set and layer.
    pub sae_id_suffix: Option<String>,
    /// The text that was read.
    pub dataset: String,
    /// Contexts of that text.
    pub n_prompts: usize,
    /// Tokens of a context.
    pub n_tokens_in_prompt: usize,
    /// Rows that were encoded: what shares are of.
    pub rows: usize,
}

/// One feature with what is told of it.
#[derive(Clone, Copy, Debug)]
pub struct Card<'a> {
    /// What it responds to.
    pub feature: &'a Feature,
    /// The tokens that it raises and lowers most, as
    /// [`promoted`] finds them.
    pub logits: &'a (TokenLogits, TokenLogits),
    /// Its decoder's row `[d_out]`.
    pub vector: &'a [f32],
}

impl Batch {
    /// The batch as JSON. `word` is the text of a token of the vocabulary, `token` that of a row of
    /// the activations.
    ///
    /// Written are, for every feature: `feature_index`, `pos_str`, `pos_values`, `neg_str`,
    /// `neg_values`, `frac_nonzero`, `freq_hist_data_bar_values` (a bar's middle) and
    /// `freq_hist_data_bar_heights`, `n_prompts_total`, `n_tokens_in_prompt`, `dataset`, `vector`, and
    /// `activations`, one of each example, all in one bin from 0 to the largest.
    ///
    /// Left out, since nothing here measures them: `neuron_alignment_*`, `correlated_neurons_*`,
    /// `correlated_features_*` and `logits_hist_data_*` are empty, `decoder_weights_dist` and the
    /// `dfa_*` of an activation are absent.
    ///
    /// ```
    /// use inscape::sae::features::{BARS, Example, Feature, Survey};
    /// use inscape::sae::format::neuronpedia::{Batch, Card};
    ///
    /// let example = Example { row: 6, value: 2.0, rows: 5..8, activations: vec![0.0, 2.0, 0.5] };
    /// let survey = Survey { fired: 3, max: 2.0, ..Survey::default() };
    /// let feature = Feature { index: 7, survey, histogram: vec![0; BARS], examples: vec![example] };
    /// let card = Card { feature: &feature, logits: &(vec![(1, 0.9)], vec![(0, -0.4)]), vector: &[1.0] };
    /// let batch = Batch {
    ///     model_id: "toy".into(),
    ///     layer: 3,
    ///     sae_set: "res".into(),
    ///     sae_id_suffix: None,
    ///     dataset: "toy.txt".into(),
    ///     n_prompts: 4,
    ///     n_tokens_in_prompt: 3,
    ///     rows: 12,
    /// };
    /// let json = batch.json(&[card], |id| ["no", "yes"][id as usize].into(), |row| format!("w{row}"));
    /// let feature = &json["features"][0];
    /// assert_eq!(feature["pos_str"][0], "yes");
    /// assert_eq!(feature["frac_nonzero"], 0.25);
    /// assert_eq!(feature["activations"][0]["tokens"][1], "w6");
    /// assert_eq!(feature["activations"][0]["qualifying_token_index"], 1);
    /// ```
    pub fn json(
        &self,
        cards: &[Card<'_>],
        word: impl Fn(u32) -> String,
        token: impl Fn(usize) -> String,
    ) -> Value {
        let features = cards.iter().map(|card| self.feature(card, &word, &token));
        json!({
            "model_id": self.model_id,
            "layer": self.layer,
            "sae_set": self.sae_set,
            "sae_id_suffix": self.sae_id_suffix,
            "features": features.collect::<Vec<_>>(),
        })
    }

    fn feature(
        &self,
        card: &Card<'_>,
        word: &impl Fn(u32) -> String,
        token: &impl Fn(usize) -> String,
    ) -> Value {
        let feature = card.feature;
        let (max, fired) = (feature.survey.max, feature.survey.fired);
        let words = |all: &TokenLogits| all.iter().map(|t| word(t.0)).collect::<Vec<_>>();
        let values = |all: &TokenLogits| all.iter().map(|t| t.1).collect::<Vec<_>>();
        let (raised, lowered) = card.logits;
        let middle = |bar: usize| (bar as f32 + 0.5) / BARS as f32 * max;
        let examples = feature.examples.iter();
        let examples = examples.map(|e| activation(e, max, fired as f64 / self.rows as f64, token));
        let mut json = json!({
            "feature_index": feature.index,
            "pos_str": words(raised),
            "pos_values": values(raised),
            "neg_str": words(lowered),
            "neg_values": values(lowered),
            "frac_nonzero": fired as f64 / self.rows as f64,
            "freq_hist_data_bar_values": (0..BARS).map(middle).collect::<Vec<_>>(),
            "freq_hist_data_bar_heights": feature.histogram,
            "n_prompts_total": self.n_prompts,
            "n_tokens_in_prompt": self.n_tokens_in_prompt,
            "dataset": self.dataset,
            "activations": examples.collect::<Vec<_>>(),
            "vector": card.vector,
        });
        for empty in EMPTY {
            json[empty] = json!([]);
        }
        json
    }
}

/// What a feature must have and nothing here measures.
const EMPTY: [&str; 11] = [
    "neuron_alignment_indices",
    "neuron_alignment_values",
    "neuron_alignment_l1",
    "correlated_neurons_indices",
    "correlated_neurons_l1",
    "correlated_neurons_pearson",
    "correlated_features_indices",
    "correlated_features_l1",
    "correlated_features_pearson",
    "logits_hist_data_bar_heights",
    "logits_hist_data_bar_values",
];

fn activation(example: &Example, max: f32, share: f64, token: &impl Fn(usize) -> String) -> Value {
    json!({
        "bin_min": 0.0,
        "bin_max": max,
        "bin_contains": share,
        "tokens": example.rows.clone().map(token).collect::<Vec<_>>(),
        "values": example.activations,
        "qualifying_token_index": example.row - example.rows.start,
    })
}

/// What is told of each feature.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Features of a file.
    pub per_batch: usize,
    /// Examples of a feature.
    pub examples: usize,
    /// Rows to either side of an example's peak.
    pub radius: usize,
    /// Tokens raised, and as many lowered.
    pub tokens: usize,
}

/// What [`write_batches`] wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Exported {
    /// Files.
    pub batches: usize,
    /// Features in them.
    pub features: usize,
    /// Latents that fired on no row, and are in none.
    pub silent: usize,
    /// Examples in all.
    pub examples: usize,
    /// Rows that were encoded.
    pub rows: usize,
}

/// Writes `batch-0.json`, `batch-1.json`, … into `dir`: the latents that `choose` picks of what all
/// did over the rows of `source`, in its order. A latent that fired on no row is left out.
///
/// With `network` tokens have their text, and the latents the tokens that they raise and lower, where
/// the model has an unembedding of the decoder's width; without it tokens are their ids. `seen` gets
/// the steps done, and all of them.
///
/// # Errors
/// The source, the device or a file failed. A file is there whole or not at all.
///
/// # Cost
/// Two encoding passes and the examples once more. Memory: one batch of rows, the examples of all
/// features, and one file.
#[allow(
    clippy::too_many_arguments,
    reason = "what is read, what is told of it, where it goes"
)]
pub fn write_batches(
    sae: &Sae,
    source: &Source,
    network: Option<&Network>,
    about: &Batch,
    extent: &Extent,
    choose: impl FnOnce(&[Survey]) -> Vec<usize>,
    dir: &Path,
    device: &Device,
    mut seen: impl FnMut(usize, usize),
) -> Result<Exported, Error> {
    let rows = source.rows();
    let all = survey(sae, source, device, |done| seen(done, 2 * rows))?;
    let mut chosen = choose(&all);
    chosen.retain(|&i| all[i].fired > 0);
    let total = 2 * rows + chosen.len();
    let (mut done, window) = (rows, [extent.examples, extent.radius]);
    let found = collect_seen(sae, source, device, &all, &chosen, window, |n| {
        done += n;
        seen(done, total);
    })?;
    let unembedding = network.and_then(|n| n.model.unembedding());
    let unembedding = unembedding.filter(|u| u.dims()[1] == sae.d_out());
    make_dir(dir)?;
    let files = found.chunks(extent.per_batch.max(1));
    for (i, features) in files.clone().enumerate() {
        let tokens = tokens(source, network, features)?;
        let logits = features.iter().map(|f| match &unembedding {
            Some(u) => promoted(sae, f.index, u, extent.tokens),
            None => Ok(Default::default()),
        });
        let logits: Vec<_> = logits.collect::<Result<_, _>>()?;
        let vectors = features.iter().map(|f| row(&sae.w_dec, f.index));
        let vectors: Vec<Vec<f32>> = vectors.collect::<Result<_, _>>()?;
        let cards = features.iter().zip(&logits).zip(&vectors);
        let cards = cards.map(|((feature, logits), vector)| Card {
            feature,
            logits,
            vector,
        });
        let json = about.json(
            &cards.collect::<Vec<_>>(),
            |id| word(network, id),
            |row| tokens.get(&row).cloned().unwrap_or_default(),
        );
        write_json(&dir.join(format!("batch-{i}.json")), &json)?;
    }
    Ok(Exported {
        batches: files.len(),
        features: found.len(),
        silent: all.iter().filter(|s| s.fired == 0).count(),
        examples: found.iter().map(|f| f.examples.len()).sum(),
        rows,
    })
}

fn row(w_dec: &Tensor<2>, index: usize) -> Result<Vec<f32>, Error> {
    Ok(block_on(device::read(w_dec.clone().narrow(0, index, 1)))?)
}

fn word(network: Option<&Network>, id: u32) -> String {
    network.map_or_else(|| format!("<{id}>"), |n| n.tokenizer.show(id))
}

/// The text of every row that an example shows.
fn tokens(
    source: &Source,
    network: Option<&Network>,
    features: &[Feature],
) -> Result<HashMap<usize, String>, Error> {
    let mut all = HashMap::new();
    for example in features.iter().flat_map(|f| &f.examples) {
        let rows = example.rows.clone();
        match source.token_ids(rows.clone())? {
            Some(ids) => all.extend(rows.zip(ids).map(|(row, id)| (row, word(network, id)))),
            None => all.extend(rows.map(|row| (row, format!("row {row}")))),
        }
    }
    Ok(all)
}

/// Contexts among the rows of a source; those of a plain matrix are one each.
///
/// Holds the places of 65,536 rows.
///
/// # Errors
/// The source failed.
pub fn contexts(source: &Source) -> Result<usize, Error> {
    let (mut count, mut last) = (0, None);
    for start in (0..source.rows()).step_by(1 << 16) {
        let range = start..(start + (1 << 16)).min(source.rows());
        let Some(meta) = source.meta(range)? else {
            return Ok(source.rows());
        };
        for row in meta {
            count += usize::from(last != Some(row.context));
            last = Some(row.context);
        }
    }
    Ok(count)
}
