use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;

use super::{DeviceOption, Failure, bar, compare, sae};
use crate::Device;
use crate::capture::store::{Source, Store, write_whole};
use crate::capture::{self, CaptureConfig};
use crate::device::{adapters, auto_choice, block_on};
use crate::model::{self, Network, load::SAMPLE};
use crate::report::{COMPARISON, Comparison, EVALUATION, Evaluated, Gather, write};
use crate::sae::eval::SplicedAccumulator;
use crate::sae::session::{self, SessionOptions};
use crate::sae::{Sae, TrainConfig};
use crate::similarity::Metric;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The directory to write; what an earlier tour left there is replaced.
    #[arg(long, default_value = "inscape-tour")]
    out: PathBuf,
    #[command(flatten)]
    device: DeviceOption,
}

const MODELS: [&str; 2] = ["tiny-lm-1", "tiny-lm-2"];
const HOOK: &str = "blocks.2.hook_resid_post";
const PASSES: u64 = 8;

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let begun = Instant::now();
    let out = &options.out;
    clear(out)?;
    step(1, "devices");
    let found = adapters();
    found.iter().for_each(|a| eprintln!("  {}  {a}", a.spec));
    let auto = auto_choice(&found);
    say!("auto takes {}: {}", auto.spec, auto.why);
    let device = options.device.open()?;

    step(2, "capture: every layer of one small model, from two seeds");
    let networks = MODELS.map(|name| model::load(name, &device));
    let [first, second] = networks;
    let (first, second) = (first?, second?);
    let stores = [store(&first, out, &device)?, store(&second, out, &device)?];

    step(
        3,
        "train a sparse autoencoder on the first model's residual stream",
    );
    let all = Source::hook(&stores[0], HOOK)?;
    let cut = all.rows() * 9 / 10;
    let dir = out.join("sae");
    let autoencoder = train(&all.sub(0..cut)?, &dir, &device)?;

    step(4, "evaluate it on the last tenth, which it has not seen");
    let held_out = all.sub(cut..all.rows())?;
    evaluate(&autoencoder, &held_out, &first, &dir, &device)?;

    step(
        5,
        "compare layers, within the first model and between the two",
    );
    compare_layers(&stores, out, &device)?;

    step(6, "report");
    let dirs = [
        dir,
        out.join("within"),
        out.join("between"),
        out.join(MODELS[0]),
    ];
    let gather = Gather {
        title: "Inscape tour",
        dirs: &dirs,
        network: Some(&first),
        device: &device,
        cards: 100,
    };
    let page = out.join("report.html");
    write(&page, &gather.run(|note| eprintln!("note: {note}"))?)?;
    let size = std::fs::metadata(&page)?.len() as f64 / 1e6;
    say!(
        "{} ({size:.2} MB), {:.0} s in all",
        page.canonicalize()?.display(),
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}

fn step(n: usize, what: &str) {
    eprintln!("\n{n}/6 {what}");
}

/// Removes what an earlier tour wrote; refuses a directory that holds anything else.
fn clear(out: &Path) -> Result<(), Failure> {
    let ours = [
        MODELS[0],
        MODELS[1],
        "sae",
        "within",
        "between",
        "report.html",
    ];
    if !out.exists() {
        return Ok(std::fs::create_dir_all(out)?);
    }
    for entry in std::fs::read_dir(out).map_err(|e| format!("{}: {e}", out.display()))? {
        let path = entry?.path();
        if !path
            .file_name()
            .is_some_and(|n| ours.iter().any(|o| n == *o))
        {
            return Err(format!(
                "{} is not a tour's; name another directory with --out",
                path.display()
            )
            .into());
        }
        if path.is_dir() {
            std::fs::remove_dir_all(&path)?
        } else {
            std::fs::remove_file(&path)?
        }
    }
    Ok(())
}

fn store(network: &Network, out: &Path, device: &Device) -> Result<std::sync::Arc<Store>, Failure> {
    let config = CaptureConfig::new(["hook_embed", "blocks.*.hook_resid_post"]);
    let dir = out.join(&network.info.id);
    let (begun, mut tokens) = (Instant::now(), 0);
    let progress = bar("capture", "bytes", SAMPLE.len() as u64);
    let store = capture::capture(
        network,
        SAMPLE.as_bytes(),
        "the last 15 % of Moby-Dick",
        &dir,
        &config,
        false,
        device.name(),
        |p| {
            tokens = p.tokens;
            progress.set_position(p.bytes);
        },
    )?;
    progress.finish_and_clear();
    let rate = tokens as f64 / begun.elapsed().as_secs_f64();
    say!(
        "{}: {} rows at {} hooks, {rate:.0} tokens/s",
        network.info.id,
        store.rows(),
        store.hooks().len()
    );
    Ok(std::sync::Arc::new(store))
}

fn train(source: &Source, dir: &Path, device: &Device) -> Result<Sae, Failure> {
    let config = TrainConfig {
        batch: 1024,
        ..TrainConfig::new(
            source.width(),
            8 * source.width(),
            16,
            PASSES * source.rows() as u64,
        )
    };
    let progress = bar("train", "activations", config.tokens);
    let mut last = None;
    let trained = session::train(
        source.clone(),
        0,
        &config,
        &SessionOptions::new(dir),
        device,
        |line| {
            progress.set_position(line.tokens);
            last = Some(*line);
        },
    )?;
    progress.finish_and_clear();
    if let Some(line) = last {
        say!(
            "TopK, {} latents, k {}, on {HOOK}: {} activations in {:.1} s, {:.0}/s; last batch FVU {:.3}",
            config.d_sae,
            config.k().unwrap_or(0),
            line.tokens,
            line.seconds,
            line.tokens_per_second,
            line.stats.fvu,
        );
    }
    Ok(trained)
}

fn evaluate(
    autoencoder: &Sae,
    held_out: &Source,
    network: &Network,
    dir: &Path,
    device: &Device,
) -> Result<(), Failure> {
    let reconstruction = session::evaluate(autoencoder, held_out, device, |_| ())?;
    let from = held_out
        .meta(0..1)?
        .map_or(0, |meta| meta[0].offset_start as usize);
    let mut spliced = SplicedAccumulator::new(autoencoder.clone(), HOOK);
    let batches = capture::batches(
        network,
        &SAMPLE.as_bytes()[from..],
        "the sample",
        128,
        16,
        None,
    )?;
    for tokens in &batches {
        block_on(spliced.add(network.model.as_ref(), tokens))?;
    }
    let density_histogram = reconstruction.density_histogram(4);
    let found = Evaluated {
        source: held_out.name().into(),
        rows: "90%..".into(),
        reconstruction,
        density_histogram,
        spliced: Some(spliced.finish()),
    };
    write_whole(&dir.join(EVALUATION), &serde_json::to_vec_pretty(&found)?)?;
    sae::print(&found)
}

fn compare_layers(
    stores: &[std::sync::Arc<Store>; 2],
    out: &Path,
    device: &Device,
) -> Result<(), Failure> {
    let layers = |store: &std::sync::Arc<Store>| -> Result<Vec<Source>, Failure> {
        store
            .hooks()
            .iter()
            .map(|h| Ok(Source::hook(store, &h.name)?))
            .collect()
    };
    let metrics: [Metric; 2] = ["linear_cka".parse()?, "mutual_knn".parse()?];
    let (left, right) = (layers(&stores[0])?, layers(&stores[1])?);
    for (name, right) in [("within", &[][..]), ("between", &right[..])] {
        let found: Vec<Comparison> =
            compare::compare(&left, right, &metrics, compare::Asked::values(3000), device)?;
        let dir = out.join(name);
        std::fs::create_dir_all(&dir)?;
        write_whole(&dir.join(COMPARISON), &serde_json::to_vec_pretty(&found)?)?;
        say!("\n{name}:");
        found.iter().try_for_each(compare::print)?;
    }
    Ok(())
}
