//! `inscape sae scr`.

use clap::Args;
use clap::builder::RangedU64ValueParser;

use super::probe::{Labelled, Opened};
use super::{DeviceOption, Failure, bar, print_json};
use crate::sae::eval::{RemovalOptions, Removed, ScrAt, TppAt, remove_concepts};

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    about: Labelled,
    /// Latents to ablate, each number by itself.
    #[arg(long, value_delimiter = ',', default_value = "2,5,10,20,50")]
    k: Vec<usize>,
    /// Most rows of each of the four combinations of two concepts.
    #[arg(long, default_value_t = 1000, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    per_cell: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceOption,
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let device = options.device.open()?;
    let Opened {
        sae,
        source,
        train,
        test,
        concepts,
    } = options.about.open(&device)?;
    let progress = bar("scr", "rows", (train.len() + test.len()) as u64);
    let seen = |n| progress.inc(n as u64);
    let removal = RemovalOptions {
        k: options.k.clone(),
        per_cell: options.per_cell,
        ..RemovalOptions::new(train, test)
    };
    let found = remove_concepts(&sae, &source, &concepts, &removal, &device, seen)?;
    progress.finish_and_clear();
    for pair in &found.left_out {
        let [a, b] = &pair.concepts;
        let rows = pair.rows;
        eprintln!("{a} and {b}: only {rows} rows of a combination, left out of SCR");
    }
    match options.json {
        true => print_json(&found),
        false => print(&found),
    }
}

fn print(found: &Removed) -> Result<(), Failure> {
    let k = found.tpp.iter().map(|at| at.k);
    let k: String = k.map(|k| format!("{:>16}", format!("k = {k}"))).collect();
    say!(
        "TPP: balanced accuracy that a concept's probe loses with the k latents most for it, and the others' probes"
    );
    say!("{:<17}{:>8}{k}", "concept", "before");
    for concept in &found.concepts {
        let (name, before) = (&concept.concept, concept.accuracy);
        say!("{name:<17}{before:>8.3}{}", costs(&concept.ablated));
    }
    say!("{:<25}{}", "mean", costs(&found.tpp));
    say!("{:<25}{}", "TPP", difference(&found.tpp));
    if found.scr.is_empty() {
        return Ok(());
    }
    say!(
        "SCR: a probe fitted where two concepts agree, measured for one of them without the k latents that matter most to the other"
    );
    let k = found.scr.iter().map(|at| format!("k = {}", at.k));
    let k: String = k.map(|k| format!("{k:>8}")).collect();
    say!(
        "{:<17}{:<17}{:>8}{:>8}{k}",
        "probed for",
        "biased by",
        "biased",
        "oracle"
    );
    for pair in found.pairs.iter().filter(|p| p.harder) {
        say!(
            "{:<17}{:<17}{:>8.3}{:>8.3}{}",
            pair.intended,
            pair.spurious,
            pair.biased,
            pair.oracle,
            shares(&pair.ablated)
        );
    }
    say!(
        "{:<50}{}",
        "SCR, of all that bias costs",
        shares(&found.scr)
    );
    Ok(())
}

fn costs(each: &[TppAt]) -> String {
    let each = each.iter().map(|at| at.tpp);
    each.map(|t| format!("{:>9.3}{:>7.3}", t.intended, t.unintended))
        .collect()
}

fn difference(each: &[TppAt]) -> String {
    let each = each.iter();
    each.map(|at| format!("{:>16.3}", at.tpp.tpp)).collect()
}

fn shares(each: &[ScrAt]) -> String {
    let share = |at: &ScrAt| match at.scr.is_nan() {
        true => format!("{:>8}", "-"),
        false => format!("{:>8.3}", at.scr),
    };
    each.iter().map(share).collect()
}
