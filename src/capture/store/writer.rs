//! Rows in, shards out.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use half::f16;
use half::slice::HalfFloatSliceExt;
use safetensors::tensor::Dtype as FileDtype;

use super::disk::{self, Disk, TEMP};
use super::header::{self, Field};
use super::manifest::{MANIFEST, Manifest, ShardEntry, shard_file};
use super::{Dtype, Error, Settings, Store};
use crate::capture::text::TextMark;

/// The tensors of a shard that say where its rows come from; 8-byte ones first, for alignment.
pub(super) const META: [(&str, FileDtype); 5] = [
    ("context", FileDtype::U64),
    ("offset_start", FileDtype::U64),
    ("offset_end", FileDtype::U64),
    ("position", FileDtype::U32),
    ("token_ids", FileDtype::U32),
];
/// Bytes of one row in those tensors.
pub(super) const META_BYTES: usize = 3 * 8 + 2 * 4;

/// Where a row comes from.
///
/// A row that is the mean of a context carries the token and position of the last position in the
/// mean, and the offsets of the whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowMeta {
    /// The token's id.
    pub token_id: u32,
    /// Its position in its context.
    pub position: u32,
    /// Its context's index in the run.
    pub context: u64,
    /// Byte offset of its first byte in the text.
    pub offset_start: u64,
    /// One past its last byte.
    pub offset_end: u64,
}

/// The rows of one batch, at every hook.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowBlock {
    /// Contexts in the batch.
    pub contexts: usize,
    /// Where each row comes from, by context.
    pub meta: Vec<RowMeta>,
    /// For each hook of the settings, in their order: `[rows, width]` in row-major order.
    pub hooks: Vec<Vec<f32>>,
}

/// Writes a store; made by [`Store::create`] or [`Store::resume`].
///
/// After an error drop it, and resume.
///
/// # Cost
/// Holds the rows of one shard in their stored type.
pub struct Writer {
    dir: PathBuf,
    disk: Disk,
    manifest: Manifest,
    fields: Vec<Field>,
    shard: Buffer,
    /// Locks the directory for as long as it is open.
    _lock: Option<File>,
}

/// The shard being filled: the bytes of each field.
#[derive(Default)]
struct Buffer {
    columns: Vec<Vec<u8>>,
    rows: usize,
    contexts: usize,
}

impl Store {
    /// Begins a store in a directory that is new or empty.
    ///
    /// # Errors
    /// [`Error::Exists`] or [`Error::NotEmpty`] if the directory is in use, [`Error::Setting`] for
    /// settings that contradict themselves, [`Error::InUse`], [`Error::Full`], [`Error::Io`].
    pub fn create(dir: impl AsRef<Path>, settings: Settings) -> Result<Writer, Error> {
        Writer::create_on(Disk::default(), dir.as_ref(), settings)
    }

    /// Continues a store after its last finished shard, or begins it if there is none; gives the
    /// writer and the number of contexts it already holds. The caller skips those contexts and
    /// requires the text to match the manifest's mark
    /// ([`TextBlocks::expecting`](crate::capture::text::TextBlocks::expecting)).
    ///
    /// # Errors
    /// [`Error::Mismatch`] names the first setting that differs; damaged shards as for
    /// [`Store::open`]; the rest as for [`Store::create`].
    pub fn resume(dir: impl AsRef<Path>, settings: &Settings) -> Result<(Writer, u64), Error> {
        Writer::resume_on(Disk::default(), dir.as_ref(), settings)
    }
}

impl Writer {
    pub(super) fn create_on(mut disk: Disk, dir: &Path, settings: Settings) -> Result<Self, Error> {
        settings.check()?;
        disk.make_dir(dir)?;
        let lock = disk::lock(dir)?;
        if Manifest::read(dir)?.is_some() {
            return Err(Error::Exists {
                dir: dir.to_owned(),
            });
        }
        Self::begin(disk, dir, settings, lock)
    }

    pub(super) fn resume_on(
        mut disk: Disk,
        dir: &Path,
        settings: &Settings,
    ) -> Result<(Self, u64), Error> {
        settings.check()?;
        disk.make_dir(dir)?;
        let lock = disk::lock(dir)?;
        let Some(manifest) = Manifest::read(dir)? else {
            return Ok((Self::begin(disk, dir, settings.clone(), lock)?, 0));
        };
        manifest.settings.check_same(settings, dir)?;
        drop_orphans(&mut disk, dir, &manifest)?;
        Store::from_manifest(dir, manifest.clone())?;
        let contexts = manifest.totals.contexts;
        Ok((Self::new(disk, dir, manifest, lock), contexts))
    }

    fn begin(
        mut disk: Disk,
        dir: &Path,
        settings: Settings,
        lock: Option<File>,
    ) -> Result<Self, Error> {
        let temp = format!("{MANIFEST}{TEMP}");
        if let Some(found) = names(dir)?.into_iter().find(|name| *name != temp) {
            let dir = dir.to_owned();
            return Err(Error::NotEmpty { dir, found });
        }
        let manifest = Manifest::new(settings);
        manifest.write(&mut disk, dir)?;
        Ok(Self::new(disk, dir, manifest, lock))
    }

    fn new(disk: Disk, dir: &Path, manifest: Manifest, lock: Option<File>) -> Self {
        Self {
            dir: dir.to_owned(),
            disk,
            fields: manifest.settings.fields(),
            manifest,
            shard: Buffer::default(),
            _lock: lock,
        }
    }

    /// The manifest as it would be written now: finished shards only.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Whether the run that is being resumed had come to its end; there is nothing left to push.
    pub fn is_complete(&self) -> bool {
        self.manifest.complete
    }

    /// Contexts pushed so far, those of earlier runs included.
    pub fn contexts(&self) -> u64 {
        self.manifest.totals.contexts + self.shard.contexts as u64
    }

    /// Notes how far the text has been read, for the next manifest. Call it before [`Writer::push`],
    /// with the mark that an uninterrupted run has at the same batch.
    pub fn mark_text(&mut self, mark: TextMark) {
        self.manifest.text = mark;
    }

    /// Adds the rows of one batch; writes the shard when that fills it.
    ///
    /// # Errors
    /// [`Error::Overflow`] if a finite value does not fit in f16, [`Error::Full`], [`Error::Io`].
    ///
    /// # Panics
    /// If the block's shapes are not those of the settings, if its contexts do not follow the ones
    /// before, if a block came after one with fewer contexts than `batch`, or if the store is
    /// complete.
    pub fn push(&mut self, block: &RowBlock) -> Result<(), Error> {
        self.check_block(block);
        let columns = self.encode(block)?;
        self.shard.columns.resize(self.fields.len(), Vec::new());
        for (kept, new) in self.shard.columns.iter_mut().zip(columns) {
            kept.extend(new);
        }
        self.shard.rows += block.meta.len();
        self.shard.contexts += block.contexts;
        if self.shard.contexts == self.manifest.settings.contexts_per_shard {
            self.end_shard()?;
            self.manifest.write(&mut self.disk, &self.dir)?;
        }
        Ok(())
    }

    /// Writes the last shard, marks the store complete and opens it.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Io`].
    pub fn finish(mut self) -> Result<Store, Error> {
        if !self.is_complete() {
            if self.shard.contexts > 0 {
                self.end_shard()?;
            }
            self.manifest.complete = true;
            self.manifest.write(&mut self.disk, &self.dir)?;
        }
        Store::from_manifest(&self.dir, self.manifest)
    }

    /// Writes the buffered shard and lists it; the manifest on disk is the caller's to write.
    fn end_shard(&mut self) -> Result<(), Error> {
        let index = self.manifest.shards.len();
        let file = shard_file(index);
        let head = header::shard_header(index, self.shard.rows, &self.fields);
        let columns = self.shard.columns.iter().map(Vec::as_slice);
        let parts: Vec<&[u8]> = [head.as_slice()].into_iter().chain(columns).collect();
        let written = self.disk.write(&self.dir.join(&file), &parts)?;
        self.manifest.add(ShardEntry {
            file,
            rows: self.shard.rows,
            contexts: self.shard.contexts as u64,
            bytes: written.bytes,
            sha256: written.sha256,
        });
        self.shard = Buffer::default();
        Ok(())
    }

    fn check_block(&self, block: &RowBlock) {
        let settings = &self.manifest.settings;
        assert!(!self.is_complete(), "push: the store is complete");
        assert!(
            (1..=settings.batch).contains(&block.contexts)
                && self.shard.contexts.is_multiple_of(settings.batch),
            "push: {} contexts after {}, with a batch of {}: only the last block may be short",
            block.contexts,
            self.shard.contexts,
            settings.batch
        );
        let widths: Vec<_> = settings
            .hooks
            .iter()
            .map(|h| h.width * block.meta.len())
            .collect();
        let found: Vec<_> = block.hooks.iter().map(Vec::len).collect();
        assert!(
            found == widths,
            "push: values per hook {found:?}, expected {widths:?}"
        );
        let first = self.contexts();
        let contexts = first..first + block.contexts as u64;
        let ids = block.meta.iter().map(|m| m.context);
        assert!(
            ids.clone().is_sorted() && ids.clone().all(|c| contexts.contains(&c)),
            "push: rows of contexts {:?}..={:?}, expected {contexts:?} in order",
            ids.clone().min(),
            ids.max()
        );
    }

    /// The block's bytes, one column per field.
    fn encode(&self, block: &RowBlock) -> Result<Vec<Vec<u8>>, Error> {
        let u64s = |get: fn(&RowMeta) -> u64| {
            block
                .meta
                .iter()
                .flat_map(|m| get(m).to_le_bytes())
                .collect()
        };
        let u32s = |get: fn(&RowMeta) -> u32| {
            block
                .meta
                .iter()
                .flat_map(|m| get(m).to_le_bytes())
                .collect()
        };
        let mut columns: Vec<Vec<u8>> = vec![
            u64s(|m| m.context),
            u64s(|m| m.offset_start),
            u64s(|m| m.offset_end),
            u32s(|m| m.position),
            u32s(|m| m.token_id),
        ];
        for (i, values) in block.hooks.iter().enumerate() {
            columns.push(match self.manifest.settings.dtype {
                Dtype::F32 => f32_bytes(values),
                Dtype::F16 => self.f16_bytes(i, values)?,
            });
        }
        Ok(columns)
    }

    fn f16_bytes(&self, hook: usize, values: &[f32]) -> Result<Vec<u8>, Error> {
        let mut halves = vec![f16::ZERO; values.len()];
        halves.convert_from_f32_slice(values);
        if let Some(i) =
            (0..values.len()).find(|&i| values[i].is_finite() && halves[i].is_infinite())
        {
            let hook = &self.manifest.settings.hooks[hook];
            return Err(Error::Overflow {
                hook: hook.name.clone(),
                row: self.manifest.totals.rows + self.shard.rows + i / hook.width,
                value: values[i],
            });
        }
        Ok(halves.iter().flat_map(|h| h.to_le_bytes()).collect())
    }
}

fn f32_bytes(values: &[f32]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(values.len() * 4);
    values
        .iter()
        .for_each(|v| bytes.extend_from_slice(&v.to_le_bytes()));
    bytes
}

/// The names in a directory, sorted.
fn names(dir: &Path) -> Result<Vec<String>, Error> {
    let list = || -> std::io::Result<Vec<String>> {
        let entries = fs::read_dir(dir)?;
        entries
            .map(|e| Ok(e?.file_name().to_string_lossy().into_owned()))
            .collect()
    };
    let mut names = list().map_err(|e| Error::io(dir, e))?;
    names.sort();
    Ok(names)
}

/// Removes what an interrupted run left: files half written, and a shard not yet in the manifest.
fn drop_orphans(disk: &mut Disk, dir: &Path, manifest: &Manifest) -> Result<(), Error> {
    for name in names(dir)? {
        let whole = name.strip_suffix(TEMP).unwrap_or(&name);
        let ours = whole == MANIFEST || shard_index(whole).is_some();
        let listed = shard_index(&name).is_some_and(|i| i < manifest.shards.len());
        if ours && name != MANIFEST && !listed {
            disk.remove(&dir.join(name))?;
        }
    }
    Ok(())
}

fn shard_index(name: &str) -> Option<usize> {
    let digits = name.strip_prefix("shard-")?.strip_suffix(".safetensors")?;
    let index = digits.parse().ok()?;
    (shard_file(index) == name).then_some(index)
}
