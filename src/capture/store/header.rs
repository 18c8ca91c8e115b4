//! The head of a safetensors file: written byte for byte the same each time, read with suspicion.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorInfo};
use serde_json::{Value, json};

use super::Error;
use super::manifest::{FORMAT, VERSION};

/// No header is longer (the limit of the format's own reader).
const MAX_HEADER: u64 = 100_000_000;

/// One tensor of a shard: `[rows]` or `[rows, width]`.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    width: Option<usize>,
}

impl Field {
    pub(super) fn meta(name: &str, dtype: Dtype) -> Self {
        let name = name.to_owned();
        Self {
            name,
            dtype,
            width: None,
        }
    }

    pub(super) fn hook(name: &str, dtype: Dtype, width: usize) -> Self {
        let name = name.to_owned();
        Self {
            name,
            dtype,
            width: Some(width),
        }
    }

    pub(super) fn shape(&self, rows: usize) -> Vec<usize> {
        [rows].into_iter().chain(self.width).collect()
    }

    /// Bytes of one row.
    pub(super) fn row_bytes(&self) -> usize {
        self.width.unwrap_or(1) * self.dtype.bitsize() / 8
    }
}

/// The header of shard `index` (keys in alphabetical order, whatever map the JSON crate is built with), with its length in front; the tensors follow in the fields' order.
pub(super) fn shard_header(index: usize, rows: usize, fields: &[Field]) -> Vec<u8> {
    let about =
        json!({"format": FORMAT, "shard": index.to_string(), "version": VERSION.to_string()});
    let mut text = format!("{{\"__metadata__\":{about}");
    let mut end = 0;
    for field in fields {
        let start = end;
        end += rows * field.row_bytes();
        let info = json!({
            "data_offsets": [start, end],
            "dtype": field.dtype.to_string(),
            "shape": field.shape(rows),
        });
        text += &format!(",{}:{info}", json!(field.name));
    }
    text.push('}');
    text += &" ".repeat(text.len().next_multiple_of(8) - text.len());
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

/// A header that was read.
pub(super) struct Header {
    about: BTreeMap<String, String>,
    /// In the order of their bytes.
    tensors: Vec<(String, TensorInfo)>,
    /// Where the tensors begin in the file.
    data_start: u64,
}

impl Header {
    /// Reads the header of `path`.
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let text = read_text(path)?;
        let bad = |e| Error::file(path, format!("no safetensors header: {e}"));
        let mut entries: BTreeMap<String, Value> = serde_json::from_slice(&text).map_err(bad)?;
        let about = entries.remove("__metadata__").map(serde_json::from_value);
        let about = about.transpose().map_err(bad)?.unwrap_or_default();
        let tensor = |(name, entry): (String, Value)| match serde_json::from_value(entry) {
            Ok(info) => Ok((name, info)),
            Err(e) => Err(Error::tensor(path, &name, e.to_string())),
        };
        let mut tensors = entries
            .into_iter()
            .map(tensor)
            .collect::<Result<Vec<(String, TensorInfo)>, _>>()?;
        tensors.sort_by_key(|(_, info)| info.data_offsets);
        check_places(path, &tensors)?;
        let data_start = 8 + text.len() as u64;
        Ok(Self {
            about,
            tensors,
            data_start,
        })
    }

    /// Requires the file to be as long as its header says.
    pub(super) fn check_size(&self, path: &Path) -> Result<(), Error> {
        let size = path.metadata().map_err(|e| Error::io(path, e))?.len();
        let expected = self.data_start.checked_add(self.data_len());
        if expected == Some(size) {
            return Ok(());
        }
        let expected = expected.unwrap_or(u64::MAX);
        Err(Error::file(
            path,
            format!("has {size} bytes, its header needs {expected}"),
        ))
    }

    fn data_len(&self) -> u64 {
        self.tensors
            .last()
            .map_or(0, |(_, info)| info.data_offsets.1 as u64)
    }

    /// The tensors' names, in the order of their bytes.
    pub(super) fn names(&self) -> Vec<String> {
        self.tensors.iter().map(|(name, _)| name.clone()).collect()
    }

    pub(super) fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, info)| info)
    }

    /// Where a tensor begins in the file.
    pub(super) fn offset(&self, info: &TensorInfo) -> u64 {
        self.data_start + info.data_offsets.0 as u64
    }

    /// Requires the file to be shard `index` of a store.
    pub(super) fn check_shard(&self, path: &Path, index: usize) -> Result<(), Error> {
        let get = |key| self.about.get(key).map(String::as_str);
        if get("format") != Some(FORMAT) {
            return Err(Error::file(path, "is not a shard of a store"));
        }
        let shard = get("shard").unwrap_or("without a number");
        if shard != index.to_string() {
            return Err(Error::file(
                path,
                format!("is shard {shard}, expected shard {index}"),
            ));
        }
        Ok(())
    }

    /// Requires the file to hold these tensors with `rows` rows, and no other; gives their offsets.
    pub(super) fn check_fields(
        &self,
        path: &Path,
        rows: usize,
        fields: &[Field],
    ) -> Result<Vec<u64>, Error> {
        for name in self.names() {
            if !fields.iter().any(|f| f.name == name) {
                return Err(Error::tensor(path, &name, "does not belong to this store"));
            }
        }
        fields
            .iter()
            .map(|field| self.check_field(path, rows, field))
            .collect()
    }

    fn check_field(&self, path: &Path, rows: usize, field: &Field) -> Result<u64, Error> {
        let info = self.info(&field.name);
        let info = info.ok_or_else(|| Error::tensor(path, &field.name, "is missing"))?;
        let (found, shape) = ((info.dtype, &info.shape), field.shape(rows));
        if found == (field.dtype, &shape) {
            return Ok(self.offset(info));
        }
        let why = format!(
            "is {} {:?}, expected {} {shape:?}",
            found.0, found.1, field.dtype
        );
        Err(Error::tensor(path, &field.name, why))
    }
}

/// The header's JSON, if its length can be true.
fn read_text(path: &Path) -> Result<Vec<u8>, Error> {
    let mut file = open(path)?;
    let size = file.metadata().map_err(|e| Error::io(path, e))?.len();
    if size < 8 {
        return Err(Error::file(
            path,
            format!("{size} bytes hold no safetensors header"),
        ));
    }
    let mut length = [0; 8];
    file.read_exact(&mut length)
        .map_err(|e| Error::io(path, e))?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER || length > size - 8 {
        let why = format!("its header claims {length} bytes, the file has {size}");
        return Err(Error::file(path, why));
    }
    let mut text = vec![0; length as usize];
    file.read_exact(&mut text).map_err(|e| Error::io(path, e))?;
    Ok(text)
}

/// Requires the tensors to lie end to end, each as long as its shape and type need.
fn check_places(path: &Path, tensors: &[(String, TensorInfo)]) -> Result<(), Error> {
    let mut end = 0;
    for (name, info) in tensors {
        let (start, stop) = info.data_offsets;
        let shape = info.shape.iter();
        let bits = shape
            .copied()
            .try_fold(info.dtype.bitsize(), usize::checked_mul);
        let expected = bits.and_then(|bits| start.checked_add(bits.div_ceil(8)));
        if start != end || expected != Some(stop) {
            let why = format!("bytes {start}..{stop} do not fit its shape and place");
            return Err(Error::tensor(path, name, why));
        }
        end = stop;
    }
    Ok(())
}

/// Opens a file, saying which one is missing.
pub(super) fn open(path: &Path) -> Result<File, Error> {
    File::open(path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Error::file(path, "is missing"),
        _ => Error::io(path, e),
    })
}

/// Reads `buffer.len()` bytes at `offset`.
pub(super) fn read_at(path: &Path, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
    let mut file = open(path)?;
    let read = file
        .seek(SeekFrom::Start(offset))
        .and_then(|_| file.read_exact(buffer));
    read.map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => Error::file(path, "was cut short while it was open"),
        _ => Error::io(path, e),
    })
}

/// Whether rows of this type can be read as f32.
pub(super) fn is_float(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::F64)
}

/// Reads values of a float type at `offset` as f32, in pieces of about 1 MiB.
pub(super) fn read_floats(
    path: &Path,
    mut offset: u64,
    dtype: Dtype,
    out: &mut [f32],
) -> Result<(), Error> {
    let bytes = dtype.bitsize() / 8;
    let mut buffer = vec![0; bytes * out.len().min(1 << 18)];
    for piece in out.chunks_mut(1 << 18) {
        let buffer = &mut buffer[..piece.len() * bytes];
        read_at(path, offset, buffer)?;
        decode(dtype, buffer, piece);
        offset += buffer.len() as u64;
    }
    Ok(())
}

fn decode(dtype: Dtype, bytes: &[u8], out: &mut [f32]) {
    match dtype {
        Dtype::F32 => each(bytes, out, f32::from_le_bytes),
        Dtype::F64 => each(bytes, out, |b| f64::from_le_bytes(b) as f32),
        Dtype::BF16 => each(bytes, out, |b| bf16::from_le_bytes(b).to_f32()),
        Dtype::F16 => {
            let halves: Vec<f16> = bytes
                .as_chunks()
                .0
                .iter()
                .map(|&b| f16::from_le_bytes(b))
                .collect();
            halves.convert_to_f32_slice(out);
        }
        _ => unreachable!("{dtype} is refused when the matrix is opened"),
    }
}

fn each<const N: usize>(bytes: &[u8], out: &mut [f32], read: impl Fn([u8; N]) -> f32) {
    for (value, &bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
        *value = read(bytes);
    }
}
