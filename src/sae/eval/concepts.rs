use std::collections::HashMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::rows::{ConceptRows, latents_of_rows};
use super::{
    Ablation, Absorbed, Absorption, AbsorptionLimits, Effect, Fit, Labelled, LabelledConcept,
    Probe, ProbeError, Scores, Tpp, most_effective, split_latents, strongest, tpp,
};
use crate::Device;
use crate::capture::store::Source;
use crate::device::{self, block_on};
use crate::sae::{Error, Sae};

/// What [`probe_concepts`] measures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbingOptions {
    /// Rows that latents are chosen and probes are fitted on.
    pub train: Range<usize>,
    /// Rows that everything is measured on.
    pub test: Range<usize>,
    /// Latents of the sparse probes.
    pub k: Vec<usize>,
    /// How probes are fitted.
    pub fit: Fit,
    /// Rise in F1 that makes a further latent a main one ([`split_latents`]).
    pub jump: f64,
    /// When a row counts as absorbed.
    pub limits: AbsorptionLimits,
    /// Latents ablated for each concept ([`tpp`]).
    pub ablate: usize,
}

impl ProbingOptions {
    /// k = 1, 2 and 5, and the defaults of the papers.
    pub fn new(train: Range<usize>, test: Range<usize>) -> Self {
        Self {
            train,
            test,
            k: vec![1, 2, 5],
            fit: Fit::default(),
            jump: 0.03,
            limits: AbsorptionLimits::default(),
            ablate: 10,
        }
    }
}

/// Latents that are tried as main ones.
const MAIN: usize = 10;

/// A probe on a few latents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SparseProbe {
    /// How many.
    pub k: usize,
    /// Which, by falling difference of their class means.
    pub latents: Vec<usize>,
    /// On the test rows.
    pub scores: Scores,
}

/// How well a concept can be read off latents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbedConcept {
    /// Its name.
    pub concept: String,
    /// Training rows, and those of them with the concept.
    pub train: [usize; 2],
    /// Test rows, and those of them with the concept.
    pub test: [usize; 2],
    /// Probes on latents, one a `k`.
    pub sparse: Vec<SparseProbe>,
    /// A probe on the activations that the latents are of, all `d_in` of them.
    pub dense: Scores,
    /// The latents that stand for the concept.
    pub main: Vec<usize>,
    /// Where others carry it, on test rows with the concept that the dense probe gets right: worth
    /// reading where the sparse probes classify, since latents that do not stand for the concept
    /// leave it to others. `None` for a transcoder, whose decoder writes where the probe does not
    /// read.
    pub absorbed: Option<Absorbed>,
}

/// What [`probe_concepts`] found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probed {
    /// Concept by concept.
    pub concepts: Vec<ProbedConcept>,
    /// Targeted probe perturbation between them, where there are two or more and no transcoder.
    pub tpp: Option<Tpp>,
}

/// Sparse probing, absorption and targeted probe perturbation of concepts in stored activations.
///
/// For each concept the latents with the largest difference of class means on the training rows are
/// chosen ([`strongest`]), logistic regressions are fitted on the first `k` of them and on the whole
/// activation ([`Probe::fit`]), and measured on the test rows. Then [`Absorption`], of activations
/// less `b_dec`, which is what latents decode to; and [`tpp`], with balanced probes.
///
/// Train and test should be long stretches of rows, not drawn row by row: neighbours of one text are
/// not independent. Rows are used in the shares in which the classes come, where SAEBench balances
/// them: read F1 and AUROC for rare concepts.
///
/// # Cost
/// Three encoding passes. Memory: the activations of both sets of rows in f32, twice those of the
/// training rows in f64 while a dense probe is fitted, ten latents a row and concept, and one batch.
///
/// # Errors
/// Widths that differ; [`ProbeError`] for a concept with one class only among the training or the
/// test rows, or for more latents than there are; the source or the device failed.
///
/// # Panics
/// Unless there is a label a row.
pub fn probe_concepts(
    sae: &Sae,
    source: &Source,
    concepts: &[LabelledConcept],
    options: &ProbingOptions,
    device: &Device,
    mut seen: impl FnMut(usize),
) -> Result<Probed, Error> {
    let rows = ConceptRows {
        sae,
        source,
        concepts,
        device,
    };
    rows.check()?;
    if let Some(&k) = options.k.iter().find(|k| **k == 0 || **k > sae.d_sae()) {
        let d_sae = sae.d_sae();
        return Err(ProbeError::Latents { k, d_sae }.into());
    }
    let run = Run { rows, options };
    let differences = run.rows.differences(&options.train, &mut seen)?;
    let keep = options.k.iter().copied().chain([MAIN.min(sae.d_sae())]);
    let keep = keep.max().unwrap_or(1);
    let ranked = differences.iter().map(|d| strongest(d, keep));
    let ranked: Vec<Vec<usize>> = ranked.collect::<Result<_, _>>()?;
    let sides = [&options.train, &options.test];
    let [train, test] = sides.map(|range| run.side(range, &ranked, &mut seen));
    let (train, test) = (train?, test?);
    let fitted: Vec<Fitted> = (0..concepts.len())
        .map(|c| run.fit(c, &ranked[c], &train, &test))
        .collect::<Result<_, _>>()?;
    run.ablate(fitted, &differences, &train, &test, &mut seen)
}

/// Everything about a set of rows that is held.
struct Side {
    range: Range<usize>,
    /// Activations `[n, d_in]`.
    x: Vec<f32>,
    /// `[concept][n, ranked latents]`.
    columns: Vec<Vec<f32>>,
}

/// A concept whose probes are fitted.
struct Fitted {
    found: ProbedConcept,
    dense: Probe,
}

struct Run<'a> {
    rows: ConceptRows<'a>,
    options: &'a ProbingOptions,
}

impl Run<'_> {
    /// The activations of some rows and their ranked latents.
    fn side(
        &self,
        rows: &Range<usize>,
        ranked: &[Vec<usize>],
        seen: &mut impl FnMut(usize),
    ) -> Result<Side, Error> {
        let mut slots: HashMap<usize, Vec<(usize, usize)>> = HashMap::new();
        for (c, ranked) in ranked.iter().enumerate() {
            for (at, &latent) in ranked.iter().enumerate() {
                slots.entry(latent).or_default().push((c, at));
            }
        }
        let mut columns: Vec<Vec<f32>> = ranked
            .iter()
            .map(|r| vec![0.0; rows.len() * r.len()])
            .collect();
        self.rows.encode(rows, seen, |range, active| {
            let first = range.start - rows.start;
            for (row, latent, value) in active.each() {
                for &(c, at) in slots.get(&latent).into_iter().flatten() {
                    columns[c][(first + row) * ranked[c].len() + at] = value;
                }
            }
            Ok(())
        })?;
        let mut x = Vec::new();
        self.rows.source.read_rows(rows.clone(), &mut x)?;
        Ok(Side {
            range: rows.clone(),
            x,
            columns,
        })
    }

    fn fit(&self, c: usize, ranked: &[usize], train: &Side, test: &Side) -> Result<Fitted, Error> {
        let fit = &self.options.fit;
        let concept = &self.rows.concepts[c];
        let of = |what: &str, side: &Side, x: &[f32]| concept.of(what, &side.range, x);
        let few = of("training", train, &train.columns[c])?;
        let few_test = of("test", test, &test.columns[c])?;
        let scores = |k: usize, on: &Labelled| -> Result<Scores, Error> {
            let probe = Probe::fit(&few.first_columns(k), fit)?;
            Ok(probe.scores(&on.first_columns(k)))
        };
        let sparse = self.options.k.iter().map(|&k| {
            Ok(SparseProbe {
                k,
                latents: ranked[..k].to_vec(),
                scores: scores(k, &few_test)?,
            })
        });
        let sparse = sparse.collect::<Result<_, Error>>()?;
        let f1 = (1..=MAIN.min(ranked.len())).map(|k| Ok(scores(k, &few)?.f1));
        let f1: Vec<f64> = f1.collect::<Result<_, Error>>()?;
        let all = of("training", train, &train.x)?;
        let dense = Probe::fit(&all, fit)?;
        let found = ProbedConcept {
            concept: concept.name.clone(),
            train: [few.rows(), few.positives()],
            test: [few_test.rows(), few_test.positives()],
            sparse,
            dense: dense.scores(&of("test", test, &test.x)?),
            main: ranked[..split_latents(&f1, self.options.jump)].to_vec(),
            absorbed: None,
        };
        Ok(Fitted { found, dense })
    }

    /// Absorption and targeted perturbation: one pass over the test rows.
    fn ablate(
        &self,
        mut fitted: Vec<Fitted>,
        differences: &[Vec<f64>],
        train: &Side,
        test: &Side,
        seen: &mut impl FnMut(usize),
    ) -> Result<Probed, Error> {
        let tpp = match self.rows.sae.is_transcoder() {
            false => Some(self.perturb(&mut fitted, differences, train, test, seen)?),
            true => None,
        };
        Ok(Probed {
            tpp: tpp.filter(|_| fitted.len() > 1),
            concepts: fitted.into_iter().map(|f| f.found).collect(),
        })
    }

    fn perturb(
        &self,
        fitted: &mut [Fitted],
        differences: &[Vec<f64>],
        train: &Side,
        test: &Side,
        seen: &mut impl FnMut(usize),
    ) -> Result<Tpp, Error> {
        let w_dec: Vec<f32> = block_on(device::read(self.rows.sae.w_dec.clone()))?;
        let b_dec: Vec<f32> = block_on(device::read(self.rows.sae.b_dec.clone()))?;
        let mut absorptions: Vec<Absorption> = fitted
            .iter()
            .map(|f| Absorption::new(&w_dec, &f.dense, &f.found.main, self.options.limits))
            .collect::<Result<_, _>>()?;
        let mut ablation = self.ablation(fitted, differences, train, &w_dec)?;
        let d = self.rows.sae.d_in();
        self.rows.encode(&test.range, seen, |range, active| {
            let labels = self.rows.labels(&range);
            for (row, latents) in latents_of_rows(active, range.len()).iter().enumerate() {
                let x = &test.x[(range.start - test.range.start + row) * d..][..d];
                let of_row: Vec<Option<bool>> = labels.iter().map(|l| l[row]).collect();
                ablation.add(x, latents, &of_row);
                for ((f, all), label) in fitted.iter().zip(&mut absorptions).zip(of_row) {
                    if label == Some(true) && f.dense.logit(x) > 0.0 {
                        all.add(f.dense.project(x) - f.dense.project(&b_dec), latents);
                    }
                }
            }
            Ok(())
        })?;
        for (f, all) in fitted.iter_mut().zip(absorptions) {
            f.found.absorbed = Some(all.finish());
        }
        Ok(tpp(&ablation.finish()))
    }

    /// Balanced probes of every concept, and the latents to ablate for each.
    fn ablation(
        &self,
        fitted: &[Fitted],
        differences: &[Vec<f64>],
        train: &Side,
        w_dec: &[f32],
    ) -> Result<Ablation, Error> {
        let fit = Fit {
            balanced: true,
            ..self.options.fit
        };
        let n = self.options.ablate.min(self.rows.sae.d_sae());
        let (mut probes, mut sets) = (Vec::new(), Vec::new());
        for (c, differences) in differences.iter().enumerate() {
            let rows = self.rows.concepts[c].of("training", &train.range, &train.x)?;
            let probe = Probe::fit_from(&rows, &fit, &fitted[c].dense)?;
            let set = most_effective(differences, w_dec, &probe, Effect::Towards, n)?;
            sets.push(set);
            probes.push(probe);
        }
        Ok(Ablation::new(w_dec, &probes, &sets)?)
    }
}
