//! What a store says about itself: `manifest.json`.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::disk::Disk;
use super::{Error, Settings};
use crate::capture::text::TextMark;

/// The manifest's `format`, and that of every shard.
pub(super) const FORMAT: &str = "inscape-store";
/// The version written and the only one read.
pub(super) const VERSION: u32 = 1;
/// The manifest's file name.
pub(in crate::capture) const MANIFEST: &str = "manifest.json";

/// One finished shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardEntry {
    /// File name in the store's directory.
    pub file: String,
    /// Rows in it.
    pub rows: usize,
    /// Contexts those rows come from.
    pub contexts: u64,
    /// Size of the file.
    pub bytes: u64,
    /// SHA-256 of the file.
    pub sha256: String,
}

/// Sums over the finished shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Rows.
    pub rows: usize,
    /// Contexts.
    pub contexts: u64,
    /// Bytes of the shard files.
    pub bytes: u64,
}

/// The content of `manifest.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Always `inscape-store`.
    pub format: String,
    /// Always 1.
    pub version: u32,
    /// Whether the run came to its end.
    pub complete: bool,
    /// What decides the bytes.
    pub settings: Settings,
    /// How much of the text the shards were made from.
    pub text: TextMark,
    /// Sums over the shards.
    pub totals: Totals,
    /// The finished shards, in order.
    pub shards: Vec<ShardEntry>,
}

/// The file name of a shard.
pub(super) fn shard_file(index: usize) -> String {
    format!("shard-{index:06}.safetensors")
}

impl Manifest {
    /// The manifest of a store without shards.
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            complete: false,
            settings,
            text: TextMark::default(),
            totals: Totals::default(),
            shards: Vec::new(),
        }
    }

    /// Reads and checks the manifest of `dir`; `None` if there is none.
    pub(super) fn read(dir: &Path) -> Result<Option<Self>, Error> {
        let path = dir.join(MANIFEST);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io(&path, e)),
        };
        parse(&bytes)
            .map(Some)
            .map_err(|why| Error::Manifest { path, why })
    }

    pub(super) fn write(&self, disk: &mut Disk, dir: &Path) -> Result<(), Error> {
        let mut json = serde_json::to_vec_pretty(self).expect("a manifest is plain data");
        json.push(b'\n');
        disk.write(&dir.join(MANIFEST), &[&json]).map(drop)
    }

    pub(super) fn add(&mut self, shard: ShardEntry) {
        self.totals.rows += shard.rows;
        self.totals.contexts += shard.contexts;
        self.totals.bytes += shard.bytes;
        self.shards.push(shard);
    }

    fn check(&self) -> Result<(), String> {
        self.settings
            .check()
            .map_err(|e| format!("settings: {e}"))?;
        let mut totals = Totals::default();
        for (i, shard) in self.shards.iter().enumerate() {
            let file = shard_file(i);
            if shard.file != file {
                return Err(format!("shard {i} is called {:?}, not {file}", shard.file));
            }
            totals = totals
                .plus(shard)
                .ok_or_else(|| format!("{file} has impossible counts"))?;
        }
        if totals != self.totals {
            return Err(format!(
                "its totals are {:?}, its shards add up to {totals:?}",
                self.totals
            ));
        }
        Ok(())
    }
}

impl Totals {
    fn plus(self, shard: &ShardEntry) -> Option<Self> {
        Some(Self {
            rows: self.rows.checked_add(shard.rows)?,
            contexts: self.contexts.checked_add(shard.contexts)?,
            bytes: self.bytes.checked_add(shard.bytes)?,
        })
    }
}

/// Only the fields that tell whether the rest can be understood.
#[derive(Deserialize)]
struct Kind {
    format: String,
    version: u32,
}

fn parse(bytes: &[u8]) -> Result<Manifest, String> {
    let kind: Kind = serde_json::from_slice(bytes).map_err(|e| format!("not a manifest: {e}"))?;
    if kind.format != FORMAT {
        return Err(format!("its format is {:?}, not {FORMAT:?}", kind.format));
    }
    if kind.version != VERSION {
        return Err(format!(
            "its version is {}; this program reads {VERSION}",
            kind.version
        ));
    }
    let manifest: Manifest = serde_json::from_slice(bytes).map_err(|e| format!("damaged: {e}"))?;
    manifest.check().map(|()| manifest)
}
