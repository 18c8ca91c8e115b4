use std::ops::Range;
use std::path::PathBuf;

use clap::Args;

use super::sae::open_raw;
use super::{DeviceOption, Failure, bar, print_json, rows};
use crate::Device;
use crate::capture::concepts::{Concept, stretches};
use crate::capture::store::Source;
use crate::model::{self, Network};
use crate::sae::Sae;
use crate::sae::eval::{LabelledConcept, Probed, ProbedConcept, ProbingOptions, probe_concepts};

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    about: Labelled,
    /// Latents of the sparse probes.
    #[arg(long, value_delimiter = ',', default_value = "1,2,5")]
    k: Vec<usize>,
    /// Latents to ablate for each concept.
    #[arg(long, default_value_t = 10)]
    ablate: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceOption,
}

/// An autoencoder, rows whose tokens label them, and which of them are for what.
#[derive(Debug, Args)]
pub(super) struct Labelled {
    /// The autoencoder: its directory, or another tool's directory or weight file.
    sae: PathBuf,
    /// A store directory, or STORE:HOOK.
    store: String,
    /// The hook, where it is not the one the autoencoder was trained on.
    #[arg(long)]
    hook: Option<String>,
    /// Concepts, like capital,in_quotes. Default: all that the rows have enough of.
    #[arg(long, value_delimiter = ',')]
    concepts: Vec<Concept>,
    /// The model whose tokens they are, where the store's model is not an embedded one.
    #[arg(long)]
    model: Option<PathBuf>,
    /// Rows to choose latents and fit probes on.
    #[arg(long, default_value = "..80%")]
    train: String,
    /// Rows to measure on.
    #[arg(long, default_value = "80%..")]
    test: String,
}

/// What [`Labelled`] opens.
pub(super) struct Opened {
    pub(super) sae: Sae,
    pub(super) source: Source,
    pub(super) train: Range<usize>,
    pub(super) test: Range<usize>,
    pub(super) concepts: Vec<LabelledConcept>,
}

impl Labelled {
    pub(super) fn open(&self, device: &Device) -> Result<Opened, Failure> {
        let (sae, source) = open_raw(&self.sae, &self.store, self.hook.as_deref(), device)?;
        let train = rows(&self.train, source.rows())?;
        let test = rows(&self.test, source.rows())?;
        if train.start < test.end && test.start < train.end {
            return Err(format!("--train {train:?} and --test {test:?} share rows").into());
        }
        let network = |id: &str| match &self.model {
            Some(path) => model::load(path, device),
            None => model::load(id, device),
        };
        let concepts = label(&source, &self.concepts, &[&train, &test], network)?;
        Ok(Opened {
            sae,
            source,
            train,
            test,
            concepts,
        })
    }
}

/// Rows of each class that a concept needs among the training and the test rows, if it is not asked
/// for by name.
const ENOUGH: usize = 10;

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let device = options.device.open()?;
    let Opened {
        sae,
        source,
        train,
        test,
        concepts,
    } = options.about.open(&device)?;
    let probing = ProbingOptions {
        k: options.k.clone(),
        ablate: options.ablate,
        ..ProbingOptions::new(train.clone(), test.clone())
    };
    let progress = bar("probe", "rows", (2 * train.len() + 2 * test.len()) as u64);
    let seen = |n| progress.inc(n as u64);
    let found = probe_concepts(&sae, &source, &concepts, &probing, &device, seen)?;
    progress.finish_and_clear();
    if options.json {
        print_json(&found)
    } else {
        print(&found)
    }
}

/// The concepts asked for, or those with enough rows of both classes everywhere.
fn label(
    source: &Source,
    asked: &[Concept],
    sides: &[&Range<usize>],
    network: impl Fn(&str) -> Result<Network, model::Error>,
) -> Result<Vec<LabelledConcept>, Failure> {
    let store = source.store().ok_or_else(|| {
        let name = source.name();
        format!("{name} is no store: its rows have no tokens to take labels from")
    })?;
    let settings = &store.manifest().settings;
    let network = network(&settings.model.id)?;
    if network.info.tokenizer_sha256 != settings.tokenizer_sha256 {
        let (id, name) = (&network.info.id, store.dir().display());
        return Err(format!("the tokenizer of {id} is not the one that made {name}").into());
    }
    let meta = store.read_meta(0..source.rows())?;
    let tokens = meta.iter().map(|m| network.tokenizer.show(m.token_id));
    let tokens: Vec<String> = tokens.collect();
    let stretches = stretches(&meta);
    let labelled = |concept: Concept| LabelledConcept {
        name: concept.name().into(),
        labels: stretches
            .iter()
            .flat_map(|s| concept.labels(&tokens[s.clone()]))
            .collect(),
    };
    if !asked.is_empty() {
        return Ok(asked.iter().copied().map(labelled).collect());
    }
    let enough = |concept: &LabelledConcept| {
        let count = |side: &Range<usize>, class| {
            let labels = &concept.labels[side.clone()];
            labels.iter().filter(|l| **l == Some(class)).count()
        };
        let least = sides.iter().flat_map(|s| [count(s, false), count(s, true)]);
        let least = least.min().unwrap_or(0);
        if least < ENOUGH {
            eprintln!("{}: only {least} rows of a class, left out", concept.name);
        }
        least >= ENOUGH
    };
    let mut concepts: Vec<_> = Concept::ALL.into_iter().map(labelled).collect();
    concepts.retain(enough);
    if concepts.is_empty() {
        let name = source.name();
        return Err(format!("{name} has too few rows of any concept").into());
    }
    Ok(concepts)
}

fn print(found: &Probed) -> Result<(), Failure> {
    let Some(first) = found.concepts.first() else {
        return Ok(());
    };
    say!(
        "{} training and {} test rows; F1 and AUROC on the test rows, of probes on k latents and on the activation",
        first.train[0],
        first.test[0]
    );
    let heads = first.sparse.iter().map(|s| format!("k = {}", s.k));
    let heads: String = heads.map(|h| format!("{h:>14}")).collect();
    say!(
        "{:<17}{:>7}{heads}{:>14}   absorbed   main latents",
        "concept",
        "share",
        "all"
    );
    for concept in &found.concepts {
        say!("{}", line(concept));
    }
    if let Some(tpp) = &found.tpp {
        say!(
            "ablating a concept's latents costs its probe {:.4} of balanced accuracy, the others {:.4}: TPP {:.4}",
            tpp.intended,
            tpp.unintended,
            tpp.tpp
        );
    }
    Ok(())
}

fn line(concept: &ProbedConcept) -> String {
    let scores = concept.sparse.iter().map(|s| s.scores);
    let scores: String = scores
        .chain([concept.dense])
        .map(|s| format!("{:>8.3}{:>6.3}", s.f1, s.auroc))
        .collect();
    let share = 100.0 * concept.test[1] as f64 / concept.test[0] as f64;
    let absorbed = concept
        .absorbed
        .as_ref()
        .map_or("-".into(), |a| format!("{:.1} %", 100.0 * a.full_rate));
    let main: Vec<String> = concept.main.iter().map(usize::to_string).collect();
    format!(
        "{:<17}{share:>5.1} %{scores}{absorbed:>11}   {}",
        concept.concept,
        main.join(" ")
    )
}
