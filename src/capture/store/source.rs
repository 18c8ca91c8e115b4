//! A matrix of rows, wherever it lies.

use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use safetensors::tensor::Dtype as FileDtype;

use super::header::{self, Header};
use super::spec::{pick, split};
use super::{Error, RowMeta, Store};
use crate::capture::Live;

/// A matrix `[rows, width]` of f32: one hook of a store, one 2-D tensor of a safetensors file, rows
/// in memory, rows made when they are read, by a function or a model, or rows of several sources side by
/// side. Cheap to clone.
///
/// # Cost
/// Holds no rows, unless they were given in memory.
#[derive(Clone)]
pub struct Source {
    name: String,
    kind: Kind,
    width: usize,
    /// The rows it shows, in the numbering of what it reads from.
    range: Range<usize>,
}

#[derive(Clone)]
enum Kind {
    Hook {
        store: Arc<Store>,
        hook: usize,
    },
    Tensor {
        path: PathBuf,
        offset: u64,
        dtype: FileDtype,
    },
    Memory {
        rows: Arc<[f32]>,
    },
    Generated {
        fill: Arc<Fill>,
    },
    Live {
        live: Live,
        hook: usize,
    },
    Beside {
        parts: Arc<[Source]>,
    },
}

/// Writes the rows of a range over a slice.
type Fill = dyn Fn(Range<usize>, &mut [f32]) + Send + Sync;

impl Source {
    /// Whether it shows the same rows of what has the same name.
    pub fn is(&self, other: &Self) -> bool {
        (&self.name, self.width, &self.range) == (&other.name, other.width, &other.range)
    }

    /// Opens `STORE_DIR:HOOK` or `FILE.safetensors:TENSOR`. The name may be left out where there is
    /// one hook, or one 2-D float tensor, only.
    ///
    /// # Errors
    /// [`Error::NoSource`] if there is no such path; [`Error::NoHook`], [`Error::NoTensor`] and
    /// [`Error::Which`] list what there is; [`Error::Tensor`] for a tensor that is no float matrix;
    /// the rest as for [`Store::open`].
    pub fn open(spec: &str) -> Result<Self, Error> {
        let (path, name) = split(spec)?;
        if !path.is_dir() {
            return Self::tensor(path, name);
        }
        let store = Arc::new(Store::open(path)?);
        match (name, store.hooks()) {
            (Some(name), _) => Self::hook(&store, name),
            (None, [only]) => Self::hook(&store, &only.name),
            (None, hooks) => Err(Error::Which {
                path: path.to_owned(),
                found: hooks.iter().map(|h| h.name.clone()).collect(),
            }),
        }
    }

    /// One hook of a store.
    ///
    /// # Errors
    /// [`Error::NoHook`] lists the hooks there are.
    pub fn hook(store: &Arc<Store>, hook: &str) -> Result<Self, Error> {
        let index = store.hook_index(hook)?;
        Ok(Self {
            name: format!("{}:{hook}", store.dir().display()),
            width: store.hooks()[index].width,
            range: 0..store.rows(),
            kind: Kind::Hook {
                store: store.clone(),
                hook: index,
            },
        })
    }

    /// One 2-D tensor (F32, F16, BF16 or F64) of a safetensors file.
    ///
    /// # Errors
    /// As for [`Source::open`].
    pub fn tensor(path: impl AsRef<Path>, tensor: Option<&str>) -> Result<Self, Error> {
        Ok(Self::first_axis(path.as_ref(), tensor, 2..=2)?.0)
    }

    /// [`Source::open`] that also takes a tensor of up to four axes, as rows of its first: `[n, t, d]` gives
    /// `n` rows of `t d` values. The shape comes with it, for a caller that lays it out in another way.
    ///
    /// # Errors
    /// As for [`Source::open`].
    pub fn nested(spec: &str) -> Result<(Self, Vec<usize>), Error> {
        let (path, name) = split(spec)?;
        if !path.is_dir() {
            return Self::first_axis(path, name, 2..=4);
        }
        let source = Self::open(spec)?;
        let shape = vec![source.rows(), source.width()];
        Ok((source, shape))
    }

    fn first_axis(
        path: &Path,
        tensor: Option<&str>,
        axes: RangeInclusive<usize>,
    ) -> Result<(Self, Vec<usize>), Error> {
        let header = Header::read(path)?;
        header.check_size(path)?;
        let tensor = pick(&header, path, tensor, &axes)?;
        let info = header.info(&tensor).expect("a name it gave");
        if !axes.contains(&info.shape.len()) {
            let needed = match axes.end() {
                2 => "a matrix is needed",
                _ => "two to four axes are needed",
            };
            let why = format!("has shape {:?}; {needed}", info.shape);
            return Err(Error::tensor(path, &tensor, why));
        }
        let width = info.shape[1..].iter().product();
        if !header::is_float(info.dtype) || width == 0 {
            let why = format!(
                "is {} {:?}; F32, F16, BF16 or F64 is needed",
                info.dtype, info.shape
            );
            return Err(Error::tensor(path, &tensor, why));
        }
        let source = Self {
            name: format!("{}:{tensor}", path.display()),
            kind: Kind::Tensor {
                path: path.to_owned(),
                offset: header.offset(info),
                dtype: info.dtype,
            },
            width,
            range: 0..info.shape[0],
        };
        Ok((source, info.shape.clone()))
    }

    /// Rows in memory, `[rows, width]` in row-major order.
    ///
    /// # Panics
    /// If the values are no whole number of rows.
    pub fn memory(name: impl Into<String>, rows: Vec<f32>, width: usize) -> Self {
        assert!(
            width > 0 && rows.len().is_multiple_of(width),
            "Source::memory: {} values are no rows of width {width}",
            rows.len()
        );
        Self {
            name: name.into(),
            range: 0..rows.len() / width,
            kind: Kind::Memory { rows: rows.into() },
            width,
        }
    }

    /// Rows that `fill` writes when they are read: a range of them over a slice that holds as many,
    /// in row-major order. It must write the same row every time, and may be called by several
    /// threads at once.
    ///
    /// ```
    /// use inscape::capture::store::Source;
    /// let squares = Source::generated("squares", 1_000_000, 1, |rows, out| {
    ///     out.iter_mut().zip(rows).for_each(|(x, i)| *x = (i * i) as f32);
    /// });
    /// let mut out = Vec::new();
    /// squares.read_rows(3..6, &mut out)?;
    /// assert_eq!(out, [9.0, 16.0, 25.0]);
    /// # Ok::<(), inscape::capture::store::Error>(())
    /// ```
    ///
    /// # Panics
    /// If `width` is 0.
    pub fn generated(
        name: impl Into<String>,
        rows: usize,
        width: usize,
        fill: impl Fn(Range<usize>, &mut [f32]) + Send + Sync + 'static,
    ) -> Self {
        assert!(width > 0, "Source::generated: rows of width 0");
        Self {
            name: name.into(),
            range: 0..rows,
            kind: Kind::Generated {
                fill: Arc::new(fill),
            },
            width,
        }
    }

    /// The rows `range` of this source as a source.
    ///
    /// # Errors
    /// [`Error::Rows`] if it does not have them.
    pub fn sub(&self, range: Range<usize>) -> Result<Self, Error> {
        let range = self.absolute(range)?;
        Ok(Self {
            range,
            ..self.clone()
        })
    }

    /// Where the rows come from, as [`Source::open`] spells it; several places are joined by ` + `.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first of its rows, in the numbering of the store or the model.
    pub(crate) fn first_row(&self) -> usize {
        match &self.kind {
            Kind::Beside { parts } => parts[0].first_row() + self.range.start,
            _ => self.range.start,
        }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.range.len()
    }

    /// One hook of a running model.
    pub(in crate::capture) fn live(live: Live, hook: usize) -> Self {
        let (info, name) = (live.info(), live.hook_name(hook));
        Self {
            name: format!(
                "{} on {} in {}s:{name}",
                info.model.id, info.text, info.context
            ),
            width: live.width(hook),
            range: 0..live.contexts() * live.content(),
            kind: Kind::Live { live, hook },
        }
    }

    /// Rows of several sources side by side; they have as many rows.
    pub(in crate::capture) fn joined(parts: &[Self]) -> Self {
        let names: Vec<&str> = parts.iter().map(Self::name).collect();
        Self {
            name: names.join(" + "),
            width: parts.iter().map(Self::width).sum(),
            range: 0..parts[0].rows(),
            kind: Kind::Beside {
                parts: parts.into(),
            },
        }
    }

    /// The sources whose rows stand side by side: it alone, unless it was made of several.
    pub fn parts(&self) -> &[Self] {
        match &self.kind {
            Kind::Beside { parts } => parts,
            _ => std::slice::from_ref(self),
        }
    }

    /// Length of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The store behind it, or behind the first of its parts, if there is one.
    pub fn store(&self) -> Option<&Arc<Store>> {
        match &self.kind {
            Kind::Hook { store, .. } => Some(store),
            Kind::Beside { parts } => parts[0].store(),
            _ => None,
        }
    }

    /// The running model behind it, or behind the first of its parts, if there is one.
    pub fn model(&self) -> Option<&Live> {
        match &self.kind {
            Kind::Live { live, .. } => Some(live),
            Kind::Beside { parts } => parts[0].model(),
            _ => None,
        }
    }

    /// The hook, where it is one of a store or of a running model.
    pub fn hook_name(&self) -> Option<&str> {
        match &self.kind {
            Kind::Hook { store, hook } => Some(&store.hooks()[*hook].name),
            Kind::Live { live, hook } => Some(live.hook_name(*hook)),
            _ => None,
        }
    }

    /// Rows `i` of those cut into blocks of about `len`, and of whole contexts where a model makes them.
    pub(crate) fn block(&self, len: usize, i: usize) -> Range<usize> {
        let (len, before) = self.cuts(len);
        let cut = |i: usize| (i * len).saturating_sub(before).min(self.rows());
        cut(i)..cut(i + 1)
    }

    /// All of these, in order.
    pub(crate) fn blocks(&self, len: usize) -> impl Iterator<Item = Range<usize>> {
        (0..self.block_count(len)).map(move |i| self.block(len, i))
    }

    /// How many there are.
    pub(super) fn block_count(&self, len: usize) -> usize {
        let (len, before) = self.cuts(len);
        (self.rows() + before).div_ceil(len)
    }

    /// Rows in such a block, and rows of the first context that lie before its own.
    pub(crate) fn cuts(&self, len: usize) -> (usize, usize) {
        let context = self.model().map_or(1, Live::content);
        ((len / context).max(1) * context, self.first_row() % context)
    }

    /// Appends the rows `range` to `out`, in row-major order.
    ///
    /// # Errors
    /// [`Error::Rows`]; [`Error::NotFinite`] names the first value that is NaN or infinite, with its
    /// shard; [`Error::File`] or [`Error::Io`] if the file can no longer be read. After an error
    /// `out` is as it was.
    pub fn read_rows(&self, range: Range<usize>, out: &mut Vec<f32>) -> Result<(), Error> {
        self.absolute(range.clone())?;
        let before = out.len();
        out.resize(before + range.len() * self.width, 0.0);
        let read = self.read_into(range, &mut out[before..]);
        if read.is_err() {
            out.truncate(before);
        }
        read
    }

    /// Where the rows `range` come from; `None` if the source is no store.
    ///
    /// # Errors
    /// As for [`Source::read_rows`].
    pub fn meta(&self, range: Range<usize>) -> Result<Option<Vec<RowMeta>>, Error> {
        if let Kind::Beside { parts } = &self.kind {
            return parts[0].meta(self.absolute(range)?);
        }
        let range = self.absolute(range)?;
        self.store().map(|store| store.read_meta(range)).transpose()
    }

    /// The token ids of the rows `range`, to check that two sources pair up; `None` if the source
    /// is neither a store nor a model.
    ///
    /// # Errors
    /// As for [`Source::read_rows`].
    pub fn token_ids(&self, range: Range<usize>) -> Result<Option<Vec<u32>>, Error> {
        if let Kind::Beside { parts } = &self.kind {
            return parts[0].token_ids(self.absolute(range)?);
        }
        let range = self.absolute(range)?;
        if let Some(live) = self.model() {
            return Ok(Some(live.token_ids(range).to_vec()));
        }
        self.store().map(|store| store.token_ids(range)).transpose()
    }

    /// Reads ascending blocks of rows, which are known to be there, one after another over `out`: side
    /// by side, or in one run of the model. Of several errors the first block's is given.
    pub(crate) fn read_blocks(
        &self,
        blocks: &[Range<usize>],
        out: &mut [f32],
    ) -> Result<(), Error> {
        if let Kind::Live { live, hook } = &self.kind {
            let first = self.range.start;
            let blocks: Vec<_> = blocks
                .iter()
                .map(|b| first + b.start..first + b.end)
                .collect();
            return Ok(live.read(*hook, &blocks, out).map_err(Box::new)?);
        }
        if let Kind::Beside { parts } = &self.kind {
            return self.read_beside(parts, blocks, out);
        }
        let mut rest = out;
        let mut jobs = Vec::with_capacity(blocks.len());
        for rows in blocks {
            let (head, tail) = rest.split_at_mut(rows.len() * self.width);
            jobs.push((rows.clone(), head));
            rest = tail;
        }
        let read = jobs
            .into_par_iter()
            .map(|(rows, out)| self.read_into(rows, out));
        read.collect::<Vec<_>>().into_iter().collect()
    }

    /// The same of parts, one after another: holds the rows of one part twice.
    fn read_beside(
        &self,
        parts: &[Self],
        blocks: &[Range<usize>],
        out: &mut [f32],
    ) -> Result<(), Error> {
        let first = self.range.start;
        let blocks: Vec<_> = blocks
            .iter()
            .map(|b| first + b.start..first + b.end)
            .collect();
        let (mut rows, mut at) = (Vec::new(), 0);
        for part in parts {
            rows.resize(out.len() / self.width * part.width, 0.0);
            part.read_blocks(&blocks, &mut rows)?;
            let into = out.chunks_exact_mut(self.width);
            for (row, values) in into.zip(rows.chunks_exact(part.width)) {
                row[at..at + part.width].copy_from_slice(values);
            }
            at += part.width;
        }
        Ok(())
    }

    /// Reads the rows `range`, which are known to be there, over `out`.
    fn read_into(&self, range: Range<usize>, out: &mut [f32]) -> Result<(), Error> {
        let first = self.range.start + range.start;
        match &self.kind {
            Kind::Hook { store, hook } => {
                store.read_into(*hook, first..first + range.len(), out)?
            }
            Kind::Tensor {
                path,
                offset,
                dtype,
            } => {
                let skipped = first * self.width * (dtype.bitsize() / 8);
                header::read_floats(path, offset + skipped as u64, *dtype, out)?;
            }
            Kind::Memory { rows } => {
                out.copy_from_slice(&rows[first * self.width..][..out.len()]);
            }
            Kind::Generated { fill } => fill(first..first + range.len(), out),
            Kind::Live { .. } | Kind::Beside { .. } => return self.read_blocks(&[range], out),
        }
        self.check_finite(range.start, out)
    }

    fn check_finite(&self, first: usize, values: &[f32]) -> Result<(), Error> {
        for (i, row) in values.chunks_exact(self.width).enumerate() {
            if all_finite(row) {
                continue;
            }
            let column = row
                .iter()
                .position(|v| !v.is_finite())
                .expect("one is not finite");
            return Err(Error::NotFinite {
                name: self.name.clone(),
                row: first + i,
                column,
                value: row[column],
                place: self.place(first + i),
            });
        }
        Ok(())
    }

    /// Where a row lies, for a message.
    fn place(&self, row: usize) -> String {
        let row = self.range.start + row;
        match &self.kind {
            Kind::Hook { store, .. } => {
                let (path, row) = store.locate(row);
                format!("row {row} of {}", path.display())
            }
            Kind::Tensor { path, .. } => format!("row {row} of {}", path.display()),
            Kind::Memory { .. } => "in memory".to_owned(),
            Kind::Generated { .. } | Kind::Live { .. } | Kind::Beside { .. } => {
                format!("row {row} as it was made")
            }
        }
    }

    /// The rows `range` in the numbering of what is read from.
    fn absolute(&self, range: Range<usize>) -> Result<Range<usize>, Error> {
        if range.start <= range.end && range.end <= self.rows() {
            return Ok(self.range.start + range.start..self.range.start + range.end);
        }
        Err(Error::Rows {
            name: self.name.clone(),
            rows: self.rows(),
            start: range.start,
            end: range.end,
        })
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rows, width) = (self.rows(), self.width);
        write!(f, "Source({} [{rows}, {width}])", self.name)
    }
}

/// Whether no value is NaN or infinite; without an early exit, so that it vectorises.
fn all_finite(values: &[f32]) -> bool {
    const EXPONENT: u32 = 0x7f80_0000;
    values
        .iter()
        .fold(true, |all, v| all & (v.to_bits() & EXPONENT != EXPONENT))
}
