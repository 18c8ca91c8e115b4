//! `inscape geometry`.

use std::path::PathBuf;

use burn::tensor::{Tensor, TensorData};
use clap::Args;
use clap::builder::RangedU64ValueParser;
use serde::Serialize;

use super::sae::{open_raw, read_raw};
use super::{DeviceOption, Failure, bar, print_json, rows};
use crate::Device;
use crate::capture::store::Source;
use crate::device::block_on;
use crate::geometry::{
    Covariance, Error, Firing, LobeSettings, Lobes, Matrix, PlaneScores, PowerLaw,
    covariance_spectrum, graph_clusters, irreducibility, lobes, numerical_rank, power_law,
};
use crate::sae::Sae;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The autoencoder: its directory, or another tool's directory or weight file.
    sae: PathBuf,
    /// A store directory, STORE:HOOK, or FILE.safetensors[:TENSOR]: also measure what fires on its
    /// rows.
    source: Option<String>,
    /// The hook, where it is not the one the autoencoder was trained on.
    #[arg(long, requires = "source")]
    hook: Option<String>,
    /// Which rows to use.
    #[arg(long, default_value = "..", requires = "source")]
    rows: String,
    /// Use at most this many of them, the first.
    #[arg(long, default_value_t = 100_000, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    max_rows: usize,
    /// Join each decoder row to so many of its nearest.
    #[arg(long, default_value_t = 1, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    neighbours: usize,
    /// Only those with a cosine above this.
    #[arg(long, default_value_t = 0.5)]
    cutoff: f64,
    /// Clusters to list, the largest.
    #[arg(long, default_value_t = 10)]
    top: usize,
    /// Eigenvalues that a power law is fitted to.
    #[arg(long, default_value = "1%..50%")]
    fit: String,
    /// Rows in a stretch in which features fire together or not.
    #[arg(long, default_value_t = 256, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    block: usize,
    /// Features to cluster by firing and by direction, at most.
    #[arg(long, default_value_t = 1000, value_parser = RangedU64ValueParser::<usize>::new().range(2..=8192))]
    features: usize,
    /// Clusters to make of them.
    #[arg(long, default_value_t = 8, value_parser = RangedU64ValueParser::<usize>::new().range(2..))]
    lobes: usize,
    /// Permutations that the agreement of the two is held against.
    #[arg(long, default_value_t = 200, value_parser = RangedU64ValueParser::<usize>::new().range(2..))]
    shuffles: usize,
    /// Seed of all draws.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceOption,
}

/// A measure, or why there is none.
#[derive(Serialize)]
#[serde(untagged)]
enum Measured<T> {
    Found(T),
    Not { why: String },
}

impl<T> Measured<T> {
    /// Fails where more than the measure did.
    fn of(found: Result<T, Error>) -> Result<Self, Error> {
        match found {
            Ok(found) => Ok(Self::Found(found)),
            Err(error @ (Error::TooFew { .. } | Error::Undefined { .. })) => Ok(Self::Not {
                why: error.to_string(),
            }),
            Err(error) => Err(error),
        }
    }
}

/// Everything that was measured.
#[derive(Serialize)]
struct Found {
    latents: usize,
    width: usize,
    rows: Option<usize>,
    decoder: Measured<Spectrum>,
    activations: Option<Measured<Spectrum>>,
    clusters: Measured<Clusters>,
    cooccurrence: Option<Measured<Lobes>>,
}

#[derive(Serialize)]
struct Spectrum {
    eigenvalues: usize,
    /// The first and the last that the law is fitted to, from 1.
    fitted: [usize; 2],
    #[serde(flatten)]
    law: PowerLaw,
}

#[derive(Serialize)]
struct Clusters {
    clusters: usize,
    latents: usize,
    largest: Vec<Cluster>,
}

#[derive(Serialize)]
struct Cluster {
    latents: Vec<usize>,
    /// Rows on which one of them fires.
    fires: Option<usize>,
    planes: Option<Measured<Vec<PlaneScores>>>,
}

/// What an autoencoder does on some rows.
struct Observed {
    covariance: Covariance,
    firing: Firing,
}

/// Rows that a cluster's indices are of, so that large ones stay within memory.
const POINTS: usize = 10_000;
/// Blocks in which a feature has to fire, and as many in which it must not.
const LEAST: usize = 5;

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let device = options.device.open()?;
    let (sae, observed) = match &options.source {
        None => (read_raw(&options.sae, &device)?.0, None),
        Some(spec) => {
            let hook = options.hook.as_deref();
            let (sae, source) = open_raw(&options.sae, spec, hook, &device)?;
            let range = rows(&options.rows, source.rows())?;
            let end = range.end.min(range.start + options.max_rows);
            let seen = observe(&sae, &source.sub(range.start..end)?, &device)?;
            (sae, Some(seen))
        }
    };
    let w_dec = Matrix::read(sae.w_dec.clone())?;
    let found = measure(options, &w_dec, observed.as_ref())?;
    match options.json {
        true => print_json(&found),
        false => print(options, &found),
    }
}

fn observe(sae: &Sae, source: &Source, device: &Device) -> Result<Observed, Failure> {
    let (n, d) = (source.rows(), source.width());
    let progress = bar("geometry", "rows", n as u64);
    let mut seen = Observed {
        covariance: Covariance::new(d),
        firing: Firing::new(),
    };
    for start in (0..n).step_by(2048) {
        let here = 2048.min(n - start);
        let mut x = Vec::new();
        source.read_rows(start..start + here, &mut x)?;
        let wide = x.iter().map(|v| f64::from(*v)).collect();
        seen.covariance.add(&Matrix::new(wide, d)?);
        let x = Tensor::from_data(TensorData::new(x, [here, d]), device.tensor());
        let latents = block_on(sae.encode(x).compact())?;
        seen.firing.add(latents.values, latents.indices)?;
        progress.inc(here as u64);
    }
    progress.finish_and_clear();
    Ok(seen)
}

fn measure(options: &Options, w_dec: &Matrix, seen: Option<&Observed>) -> Result<Found, Failure> {
    let activations = seen.map(|s| spectrum(options, s.covariance.spectrum()));
    let together = seen.map(|s| {
        let settings = LobeSettings {
            features: options.features,
            least: LEAST,
            clusters: options.lobes,
            shuffles: options.shuffles,
            seed: options.seed,
        };
        Measured::of(lobes(&s.firing.blocks(options.block), w_dec, &settings))
    });
    Ok(Found {
        latents: w_dec.rows(),
        width: w_dec.columns(),
        rows: seen.map(|s| s.firing.rows()),
        decoder: spectrum(options, covariance_spectrum(w_dec))?,
        activations: activations.transpose()?,
        clusters: clusters(options, w_dec, seen.map(|s| &s.firing))?,
        cooccurrence: together.transpose()?,
    })
}

fn spectrum(
    options: &Options,
    eigenvalues: Result<Vec<f64>, Error>,
) -> Result<Measured<Spectrum>, Failure> {
    let eigenvalues = match Measured::of(eigenvalues)? {
        Measured::Found(eigenvalues) => eigenvalues,
        Measured::Not { why } => return Ok(Measured::Not { why }),
    };
    let rank = numerical_rank(&eigenvalues);
    let range = rows(&options.fit, rank).map_err(|error| format!("--fit: {error}"))?;
    let fitted = [range.start + 1, range.end];
    let law = power_law(&eigenvalues, range).map(|law| Spectrum {
        eigenvalues: rank,
        fitted,
        law,
    });
    Ok(Measured::of(law)?)
}

fn clusters(
    options: &Options,
    w_dec: &Matrix,
    firing: Option<&Firing>,
) -> Result<Measured<Clusters>, Error> {
    let all = match Measured::of(graph_clusters(w_dec, options.neighbours, options.cutoff))? {
        Measured::Found(all) => all,
        Measured::Not { why } => return Ok(Measured::Not { why }),
    };
    let planes = |latents: &[usize], firing: &Firing| {
        let points = firing.reconstructions(w_dec, latents, POINTS);
        Measured::of(points.and_then(|points| irreducibility(&points)))
    };
    let cluster = |latents: &Vec<usize>| {
        let planes = firing.map(|firing| planes(latents, firing));
        Ok(Cluster {
            latents: latents.clone(),
            fires: firing.map(|firing| firing.fires(latents).len()),
            planes: planes.transpose()?,
        })
    };
    let largest = all.iter().take(options.top).map(cluster);
    Ok(Measured::Found(Clusters {
        clusters: all.len(),
        latents: all.iter().map(Vec::len).sum(),
        largest: largest.collect::<Result<_, Error>>()?,
    }))
}

fn print(options: &Options, found: &Found) -> Result<(), Failure> {
    say!("{} latents of width {}", found.latents, found.width);
    say!("decoder rows: {}", law(&found.decoder));
    if let (Some(rows), Some(of_rows)) = (found.rows, &found.activations) {
        say!("activations, {rows} rows: {}", law(of_rows));
    }
    match &found.cooccurrence {
        Some(Measured::Found(l)) => say!(
            "{} features, {} clusters by firing in {} blocks of {} rows and by direction: AMI {:.4}, shuffled {:.4} ± {:.4}, {:.1} σ",
            l.features,
            l.clusters,
            l.blocks,
            options.block,
            l.agreement.ami,
            l.agreement.shuffled,
            l.agreement.deviation,
            l.agreement.sigmas
        ),
        Some(Measured::Not { why }) => say!("firing against direction: {why}"),
        None => {}
    }
    match &found.clusters {
        Measured::Found(clusters) => print_clusters(options, clusters)?,
        Measured::Not { why } => say!("clusters: {why}"),
    }
    Ok(())
}

fn law(found: &Measured<Spectrum>) -> String {
    match found {
        Measured::Found(s) => format!(
            "λ ∝ k^{:.3}, R² {:.3}, eigenvalues {} to {} of {}",
            s.law.slope, s.law.r2, s.fitted[0], s.fitted[1], s.eigenvalues
        ),
        Measured::Not { why } => why.clone(),
    }
}

fn print_clusters(options: &Options, found: &Clusters) -> Result<(), Failure> {
    say!(
        "{} latents in {} clusters: nearest {} with a cosine above {}",
        found.latents,
        found.clusters,
        options.neighbours,
        options.cutoff
    );
    let measured = options.source.is_some();
    if measured && !found.largest.is_empty() {
        say!("the plane of each that is hardest to take apart: large separability, small mixture");
        say!("   size   fires   plane     R²  separability  mixture   latents");
    }
    for cluster in &found.largest {
        let planes = match &cluster.planes {
            Some(Measured::Found(planes)) => hardest(planes),
            Some(Measured::Not { why }) => format!("   {why}"),
            None => String::new(),
        };
        let fires = cluster.fires.map_or(String::new(), |n| format!("{n:>8}"));
        let first: Vec<String> = cluster
            .latents
            .iter()
            .take(8)
            .map(usize::to_string)
            .collect();
        let more = if cluster.latents.len() > 8 {
            " …"
        } else {
            ""
        };
        let (size, first) = (cluster.latents.len(), first.join(" "));
        say!("{size:>7}{fires}{planes}   {first}{more}");
    }
    Ok(())
}

/// The most irreducible plane.
fn hardest(planes: &[PlaneScores]) -> String {
    let by = |a: &&PlaneScores, b: &&PlaneScores| a.irreducible().total_cmp(&b.irreducible());
    planes.iter().max_by(by).map_or(String::new(), |p| {
        let plane = format!("{}-{}", p.first + 1, p.first + 2);
        format!(
            "{plane:>8}{:>7.3}{:>14.4}{:>9.4}",
            p.r2, p.separability, p.mixture
        )
    })
}
