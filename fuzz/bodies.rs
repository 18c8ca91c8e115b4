//! What every fuzz target does with its bytes. `tests/sae/hostile.rs` runs the same over the seeds.
//! Nothing here may panic, hang or take memory out of proportion, whatever the bytes are.

use std::path::Path;

use inscape::Device;
use inscape::sae::format::{self, Format};

/// The pickle machine alone.
pub fn pickle(bytes: &[u8]) {
    let _ = format::read_pickle(bytes);
}

/// A `.pt` file as each of the formats that are one.
pub fn pt(bytes: &[u8]) {
    for format in [
        Format::DictionaryLearning,
        Format::OpenAi,
        Format::Crosscoder,
    ] {
        read(bytes, format);
    }
}

/// An `.npz` file.
pub fn npz(bytes: &[u8]) {
    read(bytes, Format::GemmaScope);
}

/// A folder with `cfg.json` and `sae_weights.safetensors`: the bytes up to the first 0, and those
/// behind it.
pub fn folder(bytes: &[u8], dir: &Path) {
    let split = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    let (config, weights) = bytes.split_at(split);
    std::fs::write(dir.join(format::CONFIG), config).expect("a scratch file is written");
    let weights = weights.get(1..).unwrap_or_default();
    std::fs::write(dir.join(format::WEIGHTS), weights).expect("a scratch file is written");
    let _ = format::load(dir, Device::cpu().tensor());
}

fn read(bytes: &[u8], format: Format) {
    let _ = format::read_bytes(bytes, format, Device::cpu().tensor());
}
