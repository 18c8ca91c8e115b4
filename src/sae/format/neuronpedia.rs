//! Latents as the dashboards of Neuronpedia and SAEDashboard read them: a batch of features as JSON,
//! `batch-{n}.json`.

use serde_json::{Value, json};

use crate::sae::features::{BARS, Example, Feature, TokenLogits};

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
    /// [`promoted`](crate::sae::features::promoted) finds them.
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
