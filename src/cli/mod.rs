//! The command line: one file a command. It parses, calls the library and prints.
//!
//! Results go to stdout, everything else to stderr; progress is shown on a terminal only.

/// `println!` that fails, rather than panics, when the reader has gone.
macro_rules! say {
    ($($arg:tt)*) => {{
        use std::io::Write as _;
        writeln!(std::io::stdout().lock(), $($arg)*)?
    }};
}

mod capture;
mod compare;
mod devices;
mod features;
mod geometry;
mod hooks;
mod matching;
mod probe;
mod removal;
mod report;
mod sae;
mod sae_files;
mod sae_train;
mod selftest;
mod tour;

use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

use crate::Device;
use crate::device::DeviceSpec;

/// What a command fails with: any room's error.
type Failure = Box<dyn std::error::Error>;

/// Look inside neural networks on the machine you have.
#[derive(Debug, Parser)]
#[command(name = "inscape", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the adapters, and which one `auto` takes.
    Devices(devices::Options),
    /// Print every hook point of a model with its shape.
    Hooks(hooks::Options),
    /// Run a model over a text and store its activations.
    Capture(capture::Options),
    /// Train and evaluate sparse autoencoders.
    #[command(subcommand)]
    Sae(sae::Sub),
    /// Compare representations of the same inputs.
    Compare(compare::Options),
    /// Describe the shape of an autoencoder's features: clusters, spectra, which fire together.
    Geometry(geometry::Options),
    /// Write one self-contained HTML page about runs, stores and comparisons.
    Report(report::Options),
    /// The whole job on the embedded models, in about a minute.
    Tour(tour::Options),
}

/// Where the work runs.
#[derive(Clone, Debug, Args)]
struct DeviceOption {
    /// auto, cpu, wgpu, wgpu:discrete[:N], wgpu:integrated[:N], wgpu:software.
    #[arg(
        long,
        value_name = "DEVICE",
        env = "INSCAPE_DEVICE",
        default_value = "auto"
    )]
    device: DeviceSpec,
}

impl DeviceOption {
    fn open(&self) -> Result<Device, Failure> {
        let device = Device::open(&self.device)?;
        eprintln!("device: {}", device.name());
        Ok(device)
    }
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    /// Whatever the command met, ready to be shown.
    pub fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::Devices(options) => devices::run(&options),
            Command::Hooks(options) => hooks::run(&options),
            Command::Capture(options) => capture::run(&options),
            Command::Sae(sub) => sae::run(&sub),
            Command::Compare(options) => compare::run(&options),
            Command::Geometry(options) => geometry::run(&options),
            Command::Report(options) => report::run(&options),
            Command::Tour(options) => tour::run(&options),
        }
    }
}

/// A bar over `len` things of a kind, with rate and time left; hidden off a terminal.
fn bar(what: &'static str, unit: &'static str, len: u64) -> ProgressBar {
    let template =
        format!("{what:<10} {{bar:28}} {{pos}}/{{len}} {unit}  {{per_sec}}  {{eta}} left  {{msg}}");
    let bar = ProgressBar::new(len)
        .with_style(ProgressStyle::with_template(&template).expect("the template is valid"));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// A rate without an end.
fn spinner(what: &'static str, unit: &'static str) -> ProgressBar {
    let template = format!("{what:<10} {{spinner}} {{pos}} {unit}  {{per_sec}}  {{elapsed}}");
    let bar = ProgressBar::new_spinner()
        .with_style(ProgressStyle::with_template(&template).expect("the template is valid"));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Prints a value as JSON on stdout.
fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    use std::io::Write;
    let text = serde_json::to_string_pretty(value)?;
    Ok(writeln!(std::io::stdout().lock(), "{text}")?)
}

/// `10`, `90%`: a place among `len` rows.
fn place(text: &str, len: usize) -> Result<usize, Failure> {
    let bad = || format!("`{text}` is no row number and no share like 90%");
    let at = match text.strip_suffix('%') {
        Some(share) => {
            let share: f64 = share.parse().map_err(|_| bad())?;
            if !(0.0..=100.0).contains(&share) {
                return Err(bad().into());
            }
            (len as f64 * share / 100.0).round() as usize
        }
        None => text.parse().map_err(|_| bad())?,
    };
    if at > len {
        Err(format!("row {at} of {len}").into())
    } else {
        Ok(at)
    }
}

/// `A..B` with either end left out, each a row number or a share.
fn rows(text: &str, len: usize) -> Result<std::ops::Range<usize>, Failure> {
    let (a, b) = text
        .split_once("..")
        .ok_or_else(|| format!("`{text}` is no range like ..90% or 1000..2000"))?;
    let start = if a.is_empty() { 0 } else { place(a, len)? };
    let end = if b.is_empty() { len } else { place(b, len)? };
    if start < end {
        Ok(start..end)
    } else {
        Err(format!("`{text}` holds none of {len} rows").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn row_ranges() {
        assert_eq!(rows("..90%", 1000).unwrap(), 0..900);
        assert_eq!(rows("90%..", 1000).unwrap(), 900..1000);
        assert_eq!(rows("5..7", 10).unwrap(), 5..7);
        for bad in ["90%", "7..7", "..101%", "..11", "x..", "9..2"] {
            assert!(rows(bad, 10).is_err(), "{bad}");
        }
    }
}
