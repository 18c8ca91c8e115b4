//! What a training run will need, before it starts.

use std::path::Path;

use super::session::{Job, SessionOptions};
use super::{Architecture, Error};
use crate::Device;
use crate::capture::store::Source;
use crate::ops::CHUNK;

/// What a session needs at most, in bytes, to a few percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// On the device: weights, moments, a step's work; of a model that runs its activations at the hooks.
    pub device: u64,
    /// On the host beside that: shuffle buffers (with what a model that runs has ready for them), and a
    /// checkpoint while it is written.
    pub host: u64,
    /// On disk: checkpoints (the old one stays until the new one is whole) and weights.
    pub disk: u64,
}

impl Needs {
    /// What these jobs need together.
    pub fn of(jobs: &[&Job], options: &SessionOptions) -> Self {
        let mut needs = Self {
            device: 0,
            host: 0,
            disk: 0,
        };
        let (mut largest, mut read, mut runs): (u64, Vec<&Source>, bool) = (0, Vec::new(), false);
        for job in jobs {
            let weights = 4 * job.config.d_sae as u64 * row_lengths(job);
            let state = weights * if job.config.ema.is_some() { 4 } else { 3 };
            needs.device += state + step(job) + predictions(job);
            needs.disk += 2 * state + weights * job.config.dtype.bytes() as u64 / 4;
            largest = largest.max(state);
            // End to end the model runs on whole contexts: there is no buffer.
            let fed = job.config.end_to_end.is_none();
            for source in job.reads().filter(|_| fed) {
                if !read.iter().any(|other| other.is(source)) {
                    read.push(source);
                    let rows = options.buffer_rows + job.config.batch;
                    needs.host += 4 * (rows * source.width()) as u64;
                    if let Some(live) = source.model().filter(|_| !runs) {
                        runs = true;
                        needs.device += live.pass_bytes();
                        needs.host += live.pass_bytes() + live.kept_bytes(options.buffer_rows);
                    }
                }
            }
        }
        // Read from the device, as bytes, and as a file.
        needs.host += 3 * largest;
        needs
    }

    /// Refuses what will not fit in the memory that is free, or on the disk that holds `dir`. A GPU's
    /// memory is not known; there the device refuses when it comes to it.
    ///
    /// # Errors
    /// [`Error::Config`] says how much is needed, how much there is, and what would help.
    pub fn check(&self, dir: &Path, device: &Device) -> Result<(), Error> {
        let mut system = sysinfo::System::new();
        system.refresh_memory();
        let memory = match device.is_cpu() {
            true => self.device + self.host,
            false => self.host,
        };
        let free = system.available_memory();
        if free > 0 && memory > free {
            return Err(Error::Config(format!(
                "training needs {} of memory and {} are free: fewer autoencoders at once, fewer latents, a smaller batch or a smaller buffer need less",
                gigabytes(memory),
                gigabytes(free)
            )));
        }
        match free_on_disk(dir) {
            Some(free) if self.disk > free => Err(Error::Config(format!(
                "{}: training needs {} of disk and {} are free: fewer autoencoders at once or fewer latents need less",
                dir.display(),
                gigabytes(self.disk),
                gigabytes(free)
            ))),
            _ => Ok(()),
        }
    }
}

/// What a model's predictions and their gradients hold, where it is trained end to end.
fn predictions(job: &Job) -> u64 {
    let (live, end_to_end) = (job.source.model(), job.config.end_to_end.is_some());
    let vocab = live.map_or(0, |live| live.network().model.vocab_size());
    match end_to_end {
        true => 4 * 6 * (job.config.batch * vocab) as u64,
        false => 0,
    }
}

/// Numbers a latent has in both weights; of a cross-layer transcoder one of each layer together.
fn row_lengths(job: &Job) -> u64 {
    let ([d_in, d_out], layers) = (widths(job), job.config.layers() as u64);
    d_in + d_out / layers * (layers * (layers + 1) / 2)
}

fn widths(job: &Job) -> [u64; 2] {
    let target = job.target.as_ref().unwrap_or(&job.source);
    [job.source.width() as u64, target.width() as u64]
}

/// What a step holds beside the weights: measured for TopK, where the pre-activations are never held;
/// the others hold them about four times, and while many latents are active dense gradients.
fn step(job: &Job) -> u64 {
    let (config, [d_in, d_out]) = (&job.config, widths(job));
    let (batch, d_sae) = (config.batch as u64, config.d_sae as u64);
    let layers = config.layers() as u64;
    let rows = 4 * batch * (3 * d_in + 3 * row_lengths(job));
    let (batch, d_sae) = (batch * layers, d_sae * layers);
    match &config.architecture {
        Architecture::TopK { k } => rows + 4 * (CHUNK as u64 + 6 * batch * *k as u64),
        _ => rows + 4 * (4 * batch * d_sae + d_sae * (d_in + d_out)),
    }
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.2} GB", bytes as f64 / 1e9)
}

/// Bytes free on the disk that holds `dir`, which may not be there yet.
fn free_on_disk(dir: &Path) -> Option<u64> {
    let dir = std::path::absolute(dir).ok()?;
    let disks = sysinfo::Disks::new_with_refreshed_list();
    let holding = disks.iter().filter(|d| dir.starts_with(d.mount_point()));
    let nearest = holding.max_by_key(|d| d.mount_point().components().count())?;
    Some(nearest.available_space())
}
