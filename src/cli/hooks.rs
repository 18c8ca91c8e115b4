use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::{Failure, print_json};
use crate::{Device, model};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// A model directory, or an embedded model (tiny-lm-1, tiny-lm-2, tiny-lm-3).
    model: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Point {
    name: String,
    shape: String,
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let network = model::load(&options.model, &Device::cpu())?;
    let points = network.model.hook_points();
    let points: Vec<Point> = points
        .iter()
        .map(|p| Point {
            name: p.site.to_string(),
            shape: p.shape_text(),
        })
        .collect();
    if options.json {
        return print_json(&points);
    }
    for point in points {
        say!("{:<40} {}", point.name, point.shape);
    }
    Ok(())
}
