//! Rows out of finished shards.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::disk::sha256_file;
use super::header::{self, Field, Header};
use super::manifest::Manifest;
use super::writer::META;
use super::{Error, HookSpec, RowMeta, ShardEntry};

/// A store opened for reading.
///
/// # Cost
/// Holds the manifest and some numbers per shard; rows are read when asked for. No file stays open,
/// so that threads may read at once.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    manifest: Manifest,
    fields: Vec<Field>,
    shards: Vec<Shard>,
}

#[derive(Debug)]
struct Shard {
    path: PathBuf,
    /// Its rows in the store's numbering.
    rows: Range<usize>,
    /// Where each field begins in the file.
    offsets: Vec<u64>,
}

/// A run of rows within one shard.
struct Piece<'a> {
    shard: &'a Shard,
    /// First row, in the shard's numbering.
    first: usize,
    /// The rows, in the numbering of what was asked for.
    asked: Range<usize>,
}

impl Store {
    /// Opens a store and checks its manifest and the header and size of every shard. A store whose
    /// run was interrupted opens with the shards it has; `manifest().complete` tells.
    ///
    /// # Errors
    /// [`Error::NotAStore`], [`Error::Manifest`]; [`Error::File`] and [`Error::Tensor`] name a shard
    /// that is missing, cut short, foreign or of the wrong shape.
    ///
    /// # Cost
    /// Reads the headers only; [`Store::verify`] reads everything.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, Error> {
        let dir = dir.as_ref();
        let manifest = Manifest::read(dir)?.ok_or_else(|| Error::NotAStore {
            dir: dir.to_owned(),
        })?;
        Self::from_manifest(dir, manifest)
    }

    pub(super) fn from_manifest(dir: &Path, manifest: Manifest) -> Result<Self, Error> {
        let fields = manifest.settings.fields();
        let (mut shards, mut start) = (Vec::new(), 0);
        for (index, entry) in manifest.shards.iter().enumerate() {
            let path = dir.join(&entry.file);
            let offsets = check_shard(&path, index, entry, &fields)?;
            let rows = start..start + entry.rows;
            start = rows.end;
            shards.push(Shard {
                path,
                rows,
                offsets,
            });
        }
        let dir = dir.to_owned();
        Ok(Self {
            dir,
            manifest,
            fields,
            shards,
        })
    }

    /// The store's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What the store says about itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The captured points.
    pub fn hooks(&self) -> &[HookSpec] {
        &self.manifest.settings.hooks
    }

    /// Rows in the store, the same for every hook.
    pub fn rows(&self) -> usize {
        self.manifest.totals.rows
    }

    /// Length of a row at `hook`.
    ///
    /// # Errors
    /// [`Error::NoHook`] lists the hooks there are.
    pub fn width(&self, hook: &str) -> Result<usize, Error> {
        Ok(self.hooks()[self.hook_index(hook)?].width)
    }

    /// The rows `range` at `hook`, `[rows, width]` in row-major order.
    ///
    /// # Errors
    /// [`Error::NoHook`], [`Error::Rows`], and [`Error::File`] or [`Error::Io`] if a shard can no
    /// longer be read. Values are returned as stored, NaN included; [`Source`](super::Source)
    /// refuses those.
    ///
    /// # Cost
    /// Holds the rows and 1 MiB.
    pub fn read_rows(&self, hook: &str, range: Range<usize>) -> Result<Vec<f32>, Error> {
        let index = self.hook_index(hook)?;
        self.check_range(&range)?;
        let mut rows = vec![0.0; range.len() * self.hooks()[index].width];
        self.read_into(index, range, &mut rows)?;
        Ok(rows)
    }

    /// Where the rows `range` come from.
    ///
    /// # Errors
    /// As for [`Store::read_rows`].
    pub fn read_meta(&self, range: Range<usize>) -> Result<Vec<RowMeta>, Error> {
        let context = self.read_u64(0, range.clone())?;
        let start = self.read_u64(1, range.clone())?;
        let end = self.read_u64(2, range.clone())?;
        let position = self.read_u32(3, range.clone())?;
        let token = self.read_u32(4, range.clone())?;
        let row = |i| RowMeta {
            token_id: token[i],
            position: position[i],
            context: context[i],
            offset_start: start[i],
            offset_end: end[i],
        };
        Ok((0..range.len()).map(row).collect())
    }

    /// The token ids of the rows `range`.
    ///
    /// # Errors
    /// As for [`Store::read_rows`].
    pub fn token_ids(&self, range: Range<usize>) -> Result<Vec<u32>, Error> {
        self.read_u32(4, range)
    }

    /// Reads every shard and compares its hash with the manifest's.
    ///
    /// # Errors
    /// [`Error::Checksum`] names the first shard that was changed.
    ///
    /// # Cost
    /// Reads the whole store once; holds 1 MiB.
    pub fn verify(&self) -> Result<(), Error> {
        for (shard, entry) in self.shards.iter().zip(&self.manifest.shards) {
            let found = sha256_file(&shard.path)?;
            if found != entry.sha256 {
                let (path, expected) = (shard.path.clone(), entry.sha256.clone());
                return Err(Error::Checksum {
                    path,
                    expected,
                    found,
                });
            }
        }
        Ok(())
    }

    pub(super) fn hook_index(&self, hook: &str) -> Result<usize, Error> {
        let names = || self.hooks().iter().map(|h| h.name.clone());
        names()
            .position(|name| name == hook)
            .ok_or_else(|| Error::NoHook {
                dir: self.dir.clone(),
                hook: hook.to_owned(),
                hooks: names().collect(),
            })
    }

    /// The shard that holds `row`, and the row's number in it.
    pub(super) fn locate(&self, row: usize) -> (&Path, usize) {
        let shard = &self.shards[self.shards.partition_point(|s| s.rows.end <= row)];
        (&shard.path, row - shard.rows.start)
    }

    /// Reads rows that are known to be there.
    pub(super) fn read_into(
        &self,
        hook: usize,
        range: Range<usize>,
        out: &mut [f32],
    ) -> Result<(), Error> {
        let width = self.hooks()[hook].width;
        let field = META.len() + hook;
        for piece in self.pieces(range) {
            let out = &mut out[piece.asked.start * width..piece.asked.end * width];
            let offset = self.offset(&piece, field);
            header::read_floats(&piece.shard.path, offset, self.fields[field].dtype, out)?;
        }
        Ok(())
    }

    fn offset(&self, piece: &Piece, field: usize) -> u64 {
        piece.shard.offsets[field] + (piece.first * self.fields[field].row_bytes()) as u64
    }

    fn read_bytes(&self, field: usize, range: Range<usize>) -> Result<Vec<u8>, Error> {
        self.check_range(&range)?;
        let size = self.fields[field].row_bytes();
        let mut bytes = vec![0; range.len() * size];
        for piece in self.pieces(range) {
            let out = &mut bytes[piece.asked.start * size..piece.asked.end * size];
            header::read_at(&piece.shard.path, self.offset(&piece, field), out)?;
        }
        Ok(bytes)
    }

    fn read_u64(&self, field: usize, range: Range<usize>) -> Result<Vec<u64>, Error> {
        let bytes = self.read_bytes(field, range)?;
        Ok(bytes
            .as_chunks()
            .0
            .iter()
            .map(|&b| u64::from_le_bytes(b))
            .collect())
    }

    fn read_u32(&self, field: usize, range: Range<usize>) -> Result<Vec<u32>, Error> {
        let bytes = self.read_bytes(field, range)?;
        Ok(bytes
            .as_chunks()
            .0
            .iter()
            .map(|&b| u32::from_le_bytes(b))
            .collect())
    }

    fn check_range(&self, range: &Range<usize>) -> Result<(), Error> {
        if range.start <= range.end && range.end <= self.rows() {
            return Ok(());
        }
        Err(Error::Rows {
            name: self.dir.display().to_string(),
            rows: self.rows(),
            start: range.start,
            end: range.end,
        })
    }

    fn pieces(&self, range: Range<usize>) -> impl Iterator<Item = Piece<'_>> {
        let first = self.shards.partition_point(|s| s.rows.end <= range.start);
        let touched = self.shards[first..]
            .iter()
            .take_while(move |s| s.rows.start < range.end);
        touched.map(move |shard| {
            let (start, end) = (
                range.start.max(shard.rows.start),
                range.end.min(shard.rows.end),
            );
            let (first, asked) = (
                start - shard.rows.start,
                start - range.start..end - range.start,
            );
            Piece {
                shard,
                first,
                asked,
            }
        })
    }
}

fn check_shard(
    path: &Path,
    index: usize,
    entry: &ShardEntry,
    fields: &[Field],
) -> Result<Vec<u64>, Error> {
    let header = Header::read(path)?;
    header.check_shard(path, index)?;
    let offsets = header.check_fields(path, entry.rows, fields)?;
    header.check_size(path)?;
    let size = path.metadata().map_err(|e| Error::io(path, e))?.len();
    if size != entry.bytes {
        let why = format!("has {size} bytes, the manifest says {}", entry.bytes);
        return Err(Error::file(path, why));
    }
    Ok(offsets)
}
