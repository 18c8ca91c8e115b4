//! One self-contained HTML page from plain data.
//!
//! The page holds no script and fetches nothing: style and drawings are inline, and a content
//! security policy in its head forbids the rest. It follows the reader's light or dark theme,
//! works from disk, prints, and reads well by keyboard and screen reader: every drawing has a
//! description, and the numbers of charts and heatmaps also stand in tables.
//!
//! Who gathers the data fills a [`Report`]; this room only lays it out.
//!
//! ```
//! use inscape::report::{Heatmap, Report, render};
//!
//! let mut report = Report::new("Two layers");
//! report.heatmaps.push(Heatmap {
//!     title: "tiny, layer by layer".into(),
//!     metric: "linear CKA".into(),
//!     row_labels: vec!["blocks.0.hook_resid_post".into(), "blocks.1.hook_resid_post".into()],
//!     column_labels: vec!["blocks.0.hook_resid_post".into(), "blocks.1.hook_resid_post".into()],
//!     values: vec![vec![1.0, 0.93], vec![0.93, 1.0]],
//!     ..Heatmap::default()
//! });
//! let page = render(&report);
//! assert!(page.starts_with("<!DOCTYPE html>") && page.contains("0.9300"));
//! ```

mod cards;
mod data;
mod density;
mod evaluation;
mod gather;
mod page;
mod palette;
mod runs;
mod similarity;
mod svg;
mod table;
mod text;
mod training;

use std::path::{Path, PathBuf};

use crate::capture::store::write_whole;
use crate::sae;

pub use data::{
    DensityHistogram, Evaluation, FeatureCard, FeatureSet, Heatmap, Histogram, Map, Report,
    RunHeader, Setting, Snippet, TokenActivation, TokenLogit, TrainingCurve, TrainingPoint,
};

pub use gather::{COMPARISON, Comparison, EVALUATION, Evaluated, Gather, RDMS, split_labels};

/// What can go wrong with a report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A directory that holds nothing a report shows.
    #[error("{}: holds no store, no autoencoder and no comparison", dir.display())]
    Nothing {
        /// The directory.
        dir: PathBuf,
    },
    /// A result could not be read.
    #[error("{}: {reason}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// An autoencoder or its activations.
    #[error(transparent)]
    Sae(#[from] sae::Error),
    /// A store.
    #[error(transparent)]
    Store(#[from] crate::capture::store::Error),
}

/// Lays the report out as one HTML document.
///
/// Time and memory grow with the report's tokens and matrix cells: about 50 bytes for a shaded
/// token, and 200 and the two labels for a cell.
pub fn render(report: &Report) -> String {
    page::document(report)
}

/// Writes the report to `path`, replacing what is there: first in full to a temporary file beside
/// it, which is then renamed. A failure leaves an earlier report as it was.
///
/// # Errors
///
/// [`Error::Store`], naming the file, if its directory is missing or it cannot be written.
pub fn write(path: impl AsRef<Path>, report: &Report) -> Result<(), Error> {
    Ok(write_whole(path.as_ref(), render(report).as_bytes())?)
}
