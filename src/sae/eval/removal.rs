use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::pairs::{LeftOut, Pair, agreeing, pairs};
use super::rows::{ConceptRows, latents_of_rows};
use super::{
    Ablation, Effect, Fit, LabelledConcept, Perturbed, Probe, ProbeError, Tpp, measure,
    most_effective, scr, tpp, tpp_each,
};
use crate::Device;
use crate::capture::store::Source;
use crate::device::{self, block_on};
use crate::sae::{Error, Sae};

/// What [`remove_concepts`] measures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RemovalOptions {
    /// Rows that latents are chosen and probes are fitted on.
    pub train: Range<usize>,
    /// Rows that everything is measured on.
    pub test: Range<usize>,
    /// Latents ablated, each number by itself.
    pub k: Vec<usize>,
    /// λ of the probes ([`Fit::l2`]).
    pub l2: f64,
    /// Most rows of each combination of two concepts.
    pub per_cell: usize,
    /// Fewest rows of each: pairs with fewer among the training or the test rows are left out.
    pub least: usize,
}

impl RemovalOptions {
    /// SAEBench's k up to 50, and up to 1,000 rows of each combination: its 4,000 training rows.
    pub fn new(train: Range<usize>, test: Range<usize>) -> Self {
        Self {
            train,
            test,
            k: vec![2, 5, 10, 20, 50],
            l2: 1.0,
            per_cell: 1000,
            least: 10,
        }
    }
}

/// A [`Tpp`] for a number of latents.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TppAt {
    /// Latents ablated for a concept.
    pub k: usize,
    /// What it costs.
    #[serde(flatten)]
    pub tpp: Tpp,
}

/// A concept whose latents were ablated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetedConcept {
    /// Its name.
    pub concept: String,
    /// Training rows, and those of them with the concept.
    pub train: [usize; 2],
    /// Test rows, and those of them with the concept.
    pub test: [usize; 2],
    /// Balanced accuracy of its probe before.
    pub accuracy: f64,
    /// Its part in [`tpp`], one a `k`.
    pub ablated: Vec<TppAt>,
}

/// A [`scr`] for a number of latents.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScrAt {
    /// Latents ablated.
    pub k: usize,
    /// Balanced accuracy of the biased probe without them.
    pub accuracy: f64,
    /// Share of what the bias costs that comes back; NaN where it costs nothing.
    #[serde(deserialize_with = "measure")]
    pub scr: f64,
}

/// A concept, and another that a biased probe takes for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpuriousConcept {
    /// What the probe is for.
    pub intended: String,
    /// What it was fitted to agree with, and whose latents are ablated.
    pub spurious: String,
    /// Rows of each combination of the two, among the training rows and the test rows.
    pub rows: [usize; 2],
    /// Balanced accuracy of the biased probe.
    pub biased: f64,
    /// Of a probe fitted where the two are independent.
    pub oracle: f64,
    /// Whether the biased probe does worse for this concept than for the other of the pair: where
    /// there is something to bring back.
    pub harder: bool,
    /// After ablating, one a `k`.
    pub ablated: Vec<ScrAt>,
}

/// What [`remove_concepts`] found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Removed {
    /// Concept by concept.
    pub concepts: Vec<TargetedConcept>,
    /// [`tpp`] over all of them, one a `k`.
    pub tpp: Vec<TppAt>,
    /// Every pair of concepts, both ways round.
    pub pairs: Vec<SpuriousConcept>,
    /// [`scr`] over the harder ways, one a `k`; none where there is no pair.
    pub scr: Vec<ScrAt>,
    /// Pairs that were not measured.
    pub left_out: Vec<LeftOut>,
}

/// Targeted probe perturbation and spurious correlation removal of concepts in stored activations,
/// for several numbers of latents.
///
/// [`tpp`]: a balanced probe a concept is fitted on the training rows, and measured on the test rows
/// without the `k` latents that speak most for each concept ([`Effect::Towards`]).
///
/// [`scr`], for each pair of concepts: rows are taken so that all four combinations are equally many,
/// spread evenly over the training and over the test rows. On all of those of the training rows a
/// probe for each concept is fitted (the oracles); on the half where the two agree, the biased one,
/// which cannot know which of the two it is for. It is measured for either, without the `k` latents
/// of the other that matter most to that one's oracle ([`Effect::EitherWay`]). As in SAEBench a pair
/// counts with the concept for which the biased probe does worse. The whole is
/// `(Σ A_abl − Σ A_base) / (Σ A_oracle − Σ A_base)` over the pairs, where SAEBench takes the mean of
/// their shares: among the concepts of a text there are pairs whose bias costs next to nothing, and
/// their shares are noise.
///
/// Karvonen et al. 2024 ("Evaluating sparse autoencoders on targeted concept removal tasks"), as
/// SAEBench has it (2025), on rows where it takes the means of texts.
///
/// # Cost
/// Two encoding passes, a dense probe a concept and three a pair. Memory: the activations of the
/// training rows in f32, twice those in f64 while a probe is fitted; four products and four means a
/// latent and pair; two labels a row and pair.
///
/// # Errors
/// Widths that differ, a transcoder (its decoder writes where the probes do not read), fewer than
/// two concepts; [`ProbeError`] for a concept with one class only among the training or the test
/// rows, or for more latents than there are; the source or the device failed.
///
/// # Panics
/// Unless there is a label a row.
pub fn remove_concepts(
    sae: &Sae,
    source: &Source,
    concepts: &[LabelledConcept],
    options: &RemovalOptions,
    device: &Device,
    mut seen: impl FnMut(usize),
) -> Result<Removed, Error> {
    let rows = ConceptRows {
        sae,
        source,
        concepts,
        device,
    };
    rows.check()?;
    check(sae, concepts, options)?;
    let (pairs, left_out) = pairs(concepts, options);
    let even = pairs.iter().flat_map(|pair| &pair.even);
    let all: Vec<LabelledConcept> = concepts.iter().chain(even).cloned().collect();
    let rows = ConceptRows {
        concepts: &all,
        ..rows
    };
    let mut x = Vec::new();
    source.read_rows(options.train.clone(), &mut x)?;
    let run = Run {
        differences: rows.differences(&options.train, &mut seen)?,
        w_dec: block_on(device::read(sae.w_dec.clone()))?,
        concepts: concepts.len(),
        rows,
        options,
        x,
    };
    let (targeted, spurious) = run.measure(&mut seen)?;
    let pairs = pairs.iter().zip(&spurious);
    let pairs: Vec<_> = pairs
        .flat_map(|(pair, found)| both_ways(pair, found, &options.k))
        .collect();
    Ok(Removed {
        concepts: each_targeted(concepts, &targeted, options),
        tpp: ks(&options.k, |s| tpp(&of_size(&targeted, s, &options.k))),
        scr: over_pairs(&pairs, &options.k),
        pairs,
        left_out,
    })
}

fn check(sae: &Sae, concepts: &[LabelledConcept], options: &RemovalOptions) -> Result<(), Error> {
    if sae.is_transcoder() {
        let text =
            "it is a transcoder: what its latents write is not what probes on its input read";
        return Err(Error::Config(text.into()));
    }
    if concepts.len() < 2 {
        let text = "one concept has no other to compare with: removal needs two";
        return Err(Error::Config(text.into()));
    }
    if let Some(&k) = options.k.iter().find(|k| **k == 0 || **k > sae.d_sae()) {
        let d_sae = sae.d_sae();
        return Err(ProbeError::Latents { k, d_sae }.into());
    }
    for concept in concepts {
        let [rows, positives] = concept.count(&options.test);
        if positives == 0 || positives == rows {
            let what = format!("{}, test rows", concept.name);
            return Err(ProbeError::OneClass {
                what,
                positives,
                rows,
            }
            .into());
        }
    }
    Ok(())
}

struct Run<'a> {
    /// The concepts, then both of every pair.
    rows: ConceptRows<'a>,
    /// Concepts that are not of a pair.
    concepts: usize,
    options: &'a RemovalOptions,
    differences: Vec<Vec<f64>>,
    w_dec: Vec<f32>,
    /// Activations of the training rows.
    x: Vec<f32>,
}

impl Run<'_> {
    fn fit(&self, concept: &LabelledConcept) -> Result<Probe, Error> {
        let fit = Fit {
            l2: self.options.l2,
            balanced: true,
        };
        let rows = concept.of("training", &self.options.train, &self.x)?;
        Ok(Probe::fit(&rows, &fit)?)
    }

    /// The latents to ablate for a concept, one set a `k`.
    fn sets(&self, probe: &Probe, of: usize, by: Effect) -> Result<Vec<Vec<usize>>, Error> {
        let k = &self.options.k;
        let most = k.iter().copied().max().unwrap_or(0);
        let chosen = most_effective(&self.differences[of], &self.w_dec, probe, by, most)?;
        let first = |k: &usize| chosen[..chosen.len().min(*k)].to_vec();
        Ok(k.iter().map(first).collect())
    }

    fn targeted(&self) -> Result<Ablation, Error> {
        let (mut probes, mut sets) = (Vec::new(), Vec::new());
        for (c, concept) in self.rows.concepts[..self.concepts].iter().enumerate() {
            let probe = self.fit(concept)?;
            sets.extend(self.sets(&probe, c, Effect::Towards)?);
            probes.push(probe);
        }
        Ok(Ablation::new(&self.w_dec, &probes, &sets)?)
    }

    /// The biased probe for the first of a pair and for the second, and the oracle of each; without
    /// the first's latents, and without the second's.
    fn spurious(&self, pair: usize) -> Result<Ablation, Error> {
        let at = self.concepts + 2 * pair;
        let [a, b] = [at, at + 1].map(|c| &self.rows.concepts[c]);
        let biased = self.fit(&agreeing([a, b]))?;
        let oracles = [self.fit(a)?, self.fit(b)?];
        let mut sets = self.sets(&oracles[0], at, Effect::EitherWay)?;
        sets.extend(self.sets(&oracles[1], at + 1, Effect::EitherWay)?);
        let [of_a, of_b] = oracles;
        let probes = [biased.clone(), biased, of_a, of_b];
        Ok(Ablation::new(&self.w_dec, &probes, &sets)?)
    }

    /// One pass over the test rows: all concepts, and pair by pair.
    fn measure(&self, seen: &mut impl FnMut(usize)) -> Result<(Perturbed, Vec<Perturbed>), Error> {
        let mut targeted = self.targeted()?;
        let pairs = (self.rows.concepts.len() - self.concepts) / 2;
        let mut spurious: Vec<Ablation> = (0..pairs)
            .map(|pair| self.spurious(pair))
            .collect::<Result<_, _>>()?;
        let d = self.rows.sae.d_in();
        let mut x = Vec::new();
        self.rows
            .encode(&self.options.test, seen, |range, active| {
                x.clear();
                self.rows.source.read_rows(range.clone(), &mut x)?;
                let labels = self.rows.labels(&range);
                for (row, latents) in latents_of_rows(active, range.len()).iter().enumerate() {
                    let x = &x[row * d..][..d];
                    let of_row: Vec<Option<bool>> = labels.iter().map(|l| l[row]).collect();
                    let (own, even) = of_row.split_at(self.concepts);
                    targeted.add(x, latents, own);
                    for (ablation, even) in spurious.iter_mut().zip(even.chunks(2)) {
                        ablation.add(x, latents, &[even, even].concat());
                    }
                }
                Ok(())
            })?;
        let spurious = spurious.into_iter().map(Ablation::finish).collect();
        Ok((targeted.finish(), spurious))
    }
}

/// The sets of the `s`-th `k`, one a concept.
fn of_size(found: &Perturbed, s: usize, k: &[usize]) -> Perturbed {
    let sets = found.after.chunks(k.len());
    Perturbed {
        clean: found.clean.clone(),
        after: sets.map(|sets| sets[s].clone()).collect(),
    }
}

fn ks(k: &[usize], of: impl Fn(usize) -> Tpp) -> Vec<TppAt> {
    let each = k.iter().enumerate();
    each.map(|(s, &k)| TppAt { k, tpp: of(s) }).collect()
}

fn each_targeted(
    concepts: &[LabelledConcept],
    found: &Perturbed,
    options: &RemovalOptions,
) -> Vec<TargetedConcept> {
    let sizes = 0..options.k.len();
    let each: Vec<Vec<Tpp>> = sizes
        .map(|s| tpp_each(&of_size(found, s, &options.k)))
        .collect();
    let of = |(c, concept): (usize, &LabelledConcept)| TargetedConcept {
        concept: concept.name.clone(),
        train: concept.count(&options.train),
        test: concept.count(&options.test),
        accuracy: found.clean[c],
        ablated: ks(&options.k, |s| each[s][c]),
    };
    concepts.iter().enumerate().map(of).collect()
}

/// A pair with the first as the intended concept, and with the second.
fn both_ways(pair: &Pair, found: &Perturbed, k: &[usize]) -> [SpuriousConcept; 2] {
    let second_is_harder = found.clean[1] < found.clean[0];
    [0, 1].map(|intended| {
        let other = 1 - intended;
        let (biased, oracle) = (found.clean[intended], found.clean[2 + intended]);
        let without = &found.after[other * k.len()..][..k.len()];
        let accuracies = without.iter().map(|after| after[intended]);
        SpuriousConcept {
            intended: pair.even[intended].name.clone(),
            spurious: pair.even[other].name.clone(),
            rows: pair.each,
            biased,
            oracle,
            harder: (intended == 1) == second_is_harder,
            ablated: k
                .iter()
                .zip(accuracies)
                .map(|(&k, accuracy)| recovered(k, biased, accuracy, oracle))
                .collect(),
        }
    })
}

fn recovered(k: usize, biased: f64, accuracy: f64, oracle: f64) -> ScrAt {
    let scr = match oracle > biased {
        true => scr(biased, accuracy, oracle),
        false => f64::NAN,
    };
    ScrAt { k, accuracy, scr }
}

/// Of the sums over the harder ways.
fn over_pairs(pairs: &[SpuriousConcept], k: &[usize]) -> Vec<ScrAt> {
    let harder: Vec<&SpuriousConcept> = pairs.iter().filter(|p| p.harder).collect();
    if harder.is_empty() {
        return Vec::new();
    }
    let mean = |of: &dyn Fn(&SpuriousConcept) -> f64| {
        harder.iter().map(|p| of(p)).sum::<f64>() / harder.len() as f64
    };
    let (biased, oracle) = (mean(&|p| p.biased), mean(&|p| p.oracle));
    let of =
        |(s, &k): (usize, &usize)| recovered(k, biased, mean(&|p| p.ablated[s].accuracy), oracle);
    k.iter().enumerate().map(of).collect()
}
