//! `inscape sae convert` and `inscape sae show`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{Failure, print_json};
use crate::Device;
use crate::device::block_on;
use crate::sae::format::{self, Format, Loaded, Range, Summary};

#[derive(Debug, Args)]
pub(super) struct Convert {
    /// The autoencoder: a directory or a weight file.
    #[arg(value_name = "SRC")]
    from_path: PathBuf,
    /// What to write: a directory, or a file where the format is one.
    #[arg(value_name = "DST")]
    to_path: PathBuf,
    /// The format to write: saelens, sparsify, dictionary_learning, gemma_scope, gemma_scope_2,
    /// circuit_tracer, llama_scope, language_model_saes, openai, crosscoder.
    #[arg(long, value_name = "FORMAT")]
    to: Format,
    /// The format to read, where it should not be told by the files.
    #[arg(long, value_name = "FORMAT")]
    from: Option<Format>,
}

#[derive(Debug, Args)]
pub(super) struct Show {
    /// The autoencoder: a directory or a weight file.
    path: PathBuf,
    /// The format to read, where it should not be told by the files.
    #[arg(long, value_name = "FORMAT")]
    from: Option<Format>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Reads on the CPU, where nothing is computed but sums.
fn read(path: &Path, format: Option<Format>) -> Result<Loaded, Failure> {
    Ok(format::read(path, format, Device::cpu().tensor())?)
}

pub(super) fn convert(options: &Convert) -> Result<(), Failure> {
    let Loaded {
        sae,
        metadata,
        format,
    } = read(&options.from_path, options.from)?;
    let to = &options.to_path;
    refuse_to_overwrite(to)?;
    block_on(format::write(&sae, &metadata, to, options.to))?;
    say!(
        "{}: {}, {} latents of width {}; {format} to {}",
        to.display(),
        sae.activation.name(),
        sae.d_sae(),
        sae.d_in(),
        options.to,
    );
    Ok(())
}

pub(super) fn refuse_to_overwrite(path: &Path) -> Result<(), Failure> {
    let empty = || {
        path.read_dir()
            .is_ok_and(|mut entries| entries.next().is_none())
    };
    match path.exists() && !empty() {
        true => Err(format!("{} exists: nothing is overwritten", path.display()).into()),
        false => Ok(()),
    }
}

pub(super) fn show(options: &Show) -> Result<(), Failure> {
    let loaded = read(&options.path, options.from)?;
    let found = block_on(format::summary(&loaded))?;
    match options.json {
        true => print_json(&found),
        false => print(&options.path, &found),
    }
}

fn print(path: &Path, found: &Summary) -> Result<(), Failure> {
    say!("{}: {}, {}", path.display(), found.format, found.activation);
    let sites = match found.sites {
        1 => String::new(),
        n => format!("   sites {n}"),
    };
    say!(
        "d_in {}   d_sae {}   d_out {}{sites}",
        found.d_in,
        found.d_sae,
        found.d_out
    );
    if let Some(k) = found.k {
        say!("k {k}");
    }
    if let Some(threshold) = &found.threshold {
        say!("threshold {}", range(threshold));
    }
    let takes = if found.subtract_b_dec {
        "taken from"
    } else {
        "not taken from"
    };
    say!("b_dec {takes} the input; norm {:.4}", found.b_dec_norm);
    say!("skip {}", if found.skip { "yes" } else { "no" });
    say!("norms of W_enc {}", range(&found.encoder_norm));
    say!("norms of W_dec {}", range(&found.decoder_norm));
    let plain = found.metadata.as_object().into_iter().flatten();
    for (key, value) in plain.filter(|(_, value)| !value.is_null() && !value.is_object()) {
        match value.as_str() {
            Some(text) => say!("{key} {text}"),
            None => say!("{key} {value}"),
        }
    }
    Ok(())
}

fn range(r: &Range) -> String {
    format!("{:.4} to {:.4}, mean {:.4}", r.min, r.max, r.mean)
}
