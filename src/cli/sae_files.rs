//! `inscape sae convert` and `inscape sae show`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{Failure, print_json};
use crate::Device;
use crate::device::block_on;
use crate::sae::Error;
use crate::sae::format::{self, Format, Loaded, Range, Summary, WeightDtype};

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

/// A cross-layer transcoder's own two formats.
fn convert_layers(options: &Convert) -> Result<(), Failure> {
    let (from, to) = (&options.from_path, &options.to_path);
    let (transcoder, metadata) = format::load_cross_layer(from, Device::cpu().tensor())?;
    refuse_to_overwrite(to)?;
    block_on(async {
        match options.to {
            Format::SaeLens => {
                format::save_cross_layer(&transcoder, to, metadata, WeightDtype::F32).await
            }
            Format::CircuitTracer => format::write_cross_layer(&transcoder, &metadata, to).await,
            other => {
                let text = format!("{other} cannot hold a cross-layer transcoder");
                Err(Error::Config(text))
            }
        }
    })?;
    say!(
        "{}: {} layers of {} latents; to {}",
        to.display(),
        transcoder.layers().len(),
        transcoder.layers()[0].d_sae(),
        options.to,
    );
    Ok(())
}

fn show_layers(options: &Show) -> Result<(), Failure> {
    let (transcoder, metadata) = format::load_cross_layer(&options.path, Device::cpu().tensor())?;
    let mut all = Vec::new();
    for sae in transcoder.layers() {
        let loaded = Loaded {
            sae: sae.clone(),
            metadata: metadata.clone(),
            format: Format::SaeLens,
        };
        all.push(block_on(format::summary(&loaded))?);
    }
    if options.json {
        return print_json(&all);
    }
    for (l, found) in all.iter().enumerate() {
        print(&options.path.join(format!("layer {l}")), found)?;
    }
    Ok(())
}

pub(super) fn convert(options: &Convert) -> Result<(), Failure> {
    if options.from.is_none() && format::is_cross_layer(&options.from_path) {
        return convert_layers(options);
    }
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
    if options.from.is_none() && format::is_cross_layer(&options.path) {
        return show_layers(options);
    }
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
