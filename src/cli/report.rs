use std::path::PathBuf;

use clap::Args;

use super::{DeviceOption, Failure};
use crate::Device;
use crate::model::{self, Network};
use crate::report::{Gather, write};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Directories of autoencoders, stores and comparisons, in the order to show them.
    #[arg(required = true)]
    dirs: Vec<PathBuf>,
    /// The page to write.
    #[arg(long, default_value = "report.html")]
    out: PathBuf,
    /// The model, which gives tokens their text; an embedded model is found by itself.
    #[arg(long)]
    model: Option<PathBuf>,
    /// The most feature cards an autoencoder gets.
    #[arg(long, default_value_t = 100)]
    cards: usize,
    /// The page's title.
    #[arg(long, default_value = "Inscape report")]
    title: String,
    #[command(flatten)]
    device: DeviceOption,
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let device = options.device.open()?;
    let network = match &options.model {
        Some(path) => Some(model::load(path, &device)?),
        None => embedded(&options.dirs, &device)?,
    };
    if network.is_none() {
        eprintln!("note: without --model, tokens are shown as ids");
    }
    let gather = Gather {
        title: &options.title,
        dirs: &options.dirs,
        network: network.as_ref(),
        device: &device,
        cards: options.cards,
    };
    let report = gather.run(|note| eprintln!("note: {note}"))?;
    write(&options.out, &report)?;
    let bytes = std::fs::metadata(&options.out)?.len();
    say!("{}: {:.2} MB", options.out.display(), bytes as f64 / 1e6);
    Ok(())
}

/// The embedded model that the first autoencoder was trained on, if it is one.
fn embedded(dirs: &[PathBuf], device: &Device) -> Result<Option<Network>, model::Error> {
    let infos = dirs
        .iter()
        .filter_map(|d| crate::sae::session::run_info(d).ok());
    let Some(trained) = infos.filter_map(|i| i.model().cloned()).next() else {
        return Ok(None);
    };
    if !model::load::EMBEDDED.iter().any(|m| m.name == trained.id) {
        return Ok(None);
    }
    let network = model::load(&trained.id, device)?;
    Ok((network.info.sha256 == trained.sha256).then_some(network))
}
