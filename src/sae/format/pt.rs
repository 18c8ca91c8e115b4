//! Files of `torch.save`: a zip archive with a pickle, `data.pkl`, and one entry a storage.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry as MapEntry;
use std::path::Path;
use std::rc::Rc;

use half::{bf16, f16};

use super::archive::{Archive, Writer};
use super::pickle::{Dtype, LONGEST, Pickle, Storage, Value, View};
use super::tensors::{HostTensor, Tensors, each};
use super::{Error, malformed};

/// A `.pt` file that was read into memory.
#[derive(Debug)]
pub(super) struct Checkpoint<'a> {
    pub(super) path: &'a Path,
    archive: Archive<'a>,
    /// Folder in the archive.
    folder: &'a str,
    pub(super) pickle: Pickle,
}

impl<'a> Checkpoint<'a> {
    /// Reads the directory and the pickle; storages are read when a tensor is asked for.
    ///
    /// # Errors
    /// Names the file and what is refused in it.
    pub(super) fn parse(path: &'a Path, bytes: &'a [u8]) -> Result<Self, Error> {
        Self::parts(path, bytes).map_err(|e| malformed(path, e))
    }

    fn parts(path: &'a Path, bytes: &'a [u8]) -> Result<Self, String> {
        if !bytes.starts_with(b"PK") {
            return Err("no zip archive; files of PyTorch before 1.6 are not read".into());
        }
        let archive = Archive::parse(bytes)?;
        let pickles: Vec<&str> = archive
            .names()
            .filter_map(|name| name.strip_suffix("/data.pkl"))
            .collect();
        let [folder] = pickles[..] else {
            let n = pickles.len();
            return Err(format!(
                "{n} entries `data.pkl` in folders where one is wanted"
            ));
        };
        let order = format!("{folder}/byteorder");
        if archive.has(&order) && *archive.read(&order)? != *b"little" {
            return Err("numbers in another byte order than little".into());
        }
        let pickle = format!("{folder}/data.pkl");
        if archive.size(&pickle) > Some(LONGEST) {
            return Err(format!("`{pickle}` has more than {LONGEST} bytes"));
        }
        let pickle = Pickle::parse(&archive.read(&pickle)?)?;
        Ok(Self {
            path,
            archive,
            folder,
            pickle,
        })
    }

    /// What the file is.
    pub(super) fn root(&self) -> &Value {
        self.pickle.root()
    }

    /// The tensors of a dict as f32, whatever their type. Together they must have no more numbers
    /// than the archive has bytes, so that views that share a storage cannot grow without bound.
    ///
    /// # Errors
    /// It is no dict; names the tensor that lies beyond its storage.
    pub(super) fn tensors(&self, dict: &Value) -> Result<Tensors, Error> {
        let items = self.pickle.items(dict);
        let items = items.ok_or_else(|| malformed(self.path, "no dict of tensors"))?;
        let views = items.iter().filter_map(|item| match item {
            (Value::Str(name), Value::Tensor(view)) => Some((&**name, &**view)),
            _ => None,
        });
        let views: BTreeMap<&str, &View> = views.collect();
        let mut map = BTreeMap::new();
        let mut storages = Storages {
            checkpoint: self,
            read: BTreeMap::new(),
            left: self.archive.unpacked,
        };
        for (name, view) in views {
            let tensor = storages.tensor(view);
            let tensor = tensor.map_err(|e| malformed(self.path, format!("tensor `{name}`: {e}")));
            map.insert(name.to_string(), tensor?);
        }
        let path = self.path.into();
        Ok(Tensors { path, map })
    }
}

/// Storages, each read once.
struct Storages<'c, 'a> {
    checkpoint: &'c Checkpoint<'a>,
    read: BTreeMap<Rc<str>, Cow<'a, [u8]>>,
    /// Numbers that tensors may still have.
    left: usize,
}

impl Storages<'_, '_> {
    fn tensor(&mut self, view: &View) -> Result<HostTensor, String> {
        let numbers = view.fits()?;
        let left = self.left.checked_sub(numbers);
        self.left = left.ok_or("more numbers than the file has bytes")?;
        Ok(HostTensor {
            shape: view.size.clone(),
            values: floats(view, self.bytes(&view.storage)?),
        })
    }

    fn bytes(&mut self, storage: &Storage) -> Result<&[u8], String> {
        let bytes = match self.read.entry(storage.key.clone()) {
            MapEntry::Occupied(read) => read.into_mut(),
            MapEntry::Vacant(new) => {
                let Checkpoint {
                    folder, archive, ..
                } = self.checkpoint;
                new.insert(archive.read(&format!("{folder}/data/{}", storage.key))?)
            }
        };
        let (found, len, dtype) = (bytes.len(), storage.len, storage.dtype);
        match len.checked_mul(dtype.bytes()) == Some(found) {
            true => Ok(bytes),
            false => Err(format!(
                "a storage of {found} bytes for {len} numbers ({dtype:?})"
            )),
        }
    }
}

impl View {
    /// How many numbers it has, if all of them lie in the storage and none twice as often as that
    /// has numbers.
    fn fits(&self) -> Result<usize, String> {
        let wrong = || {
            let (size, stride, offset) = (&self.size, &self.stride, self.offset);
            let len = self.storage.len;
            format!("{size:?} by steps of {stride:?} from {offset} in a storage of {len} numbers")
        };
        let numbers = product(&self.size).ok_or_else(wrong)?;
        if numbers == 0 {
            return Ok(0);
        }
        let steps = self.size.iter().zip(&self.stride);
        let mut steps = steps.map(|(n, stride)| (n - 1).checked_mul(*stride));
        let last = steps.try_fold(self.offset, |last, step| last.checked_add(step?));
        let inside = last.is_some_and(|last| last < self.storage.len);
        match inside && numbers <= self.storage.len {
            true => Ok(numbers),
            false => Err(wrong()),
        }
    }

    /// Whether its numbers follow one another.
    fn is_dense(&self) -> bool {
        let mut step = 1;
        self.size
            .iter()
            .zip(&self.stride)
            .rev()
            .all(|(&n, &stride)| {
                let dense = n == 1 || stride == step;
                step *= n;
                dense
            })
    }
}

/// Where each number of a view lies, the last dimension running fastest. It has at least one.
pub(super) fn places(offset: usize, size: &[usize], stride: &[usize]) -> Vec<usize> {
    let mut places = vec![offset];
    for (&n, &stride) in size.iter().zip(stride) {
        let along = |&start: &usize| (0..n).map(move |i| start + i * stride);
        places = places.iter().flat_map(along).collect();
    }
    places
}

/// A product that is a size in memory.
pub(super) fn product(shape: &[usize]) -> Option<usize> {
    let numbers = shape.iter().try_fold(1usize, |all, &n| all.checked_mul(n));
    numbers.filter(|&n| n <= isize::MAX as usize / 8)
}

/// The numbers of a view that fits a storage of these bytes.
fn floats(view: &View, bytes: &[u8]) -> Vec<f32> {
    let numbers: usize = view.size.iter().product();
    if numbers == 0 {
        return Vec::new();
    }
    let dtype = view.storage.dtype;
    if view.is_dense() {
        let start = view.offset * dtype.bytes();
        return dtype.floats(&bytes[start..][..numbers * dtype.bytes()]);
    }
    let width = dtype.bytes();
    let number = |place: usize| &bytes[place * width..][..width];
    let places = places(view.offset, &view.size, &view.stride);
    let gathered: Vec<u8> = places.into_iter().flat_map(number).copied().collect();
    dtype.floats(&gathered)
}

impl Dtype {
    /// Little-endian numbers as f32.
    pub(super) fn floats(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Self::F32 => each(bytes, f32::from_le_bytes),
            Self::F64 => each(bytes, |b| f64::from_le_bytes(b) as f32),
            Self::F16 => each(bytes, |b| f16::from_le_bytes(b).to_f32()),
            Self::Bf16 => each(bytes, |b| bf16::from_le_bytes(b).to_f32()),
            Self::I64 => each(bytes, |b| i64::from_le_bytes(b) as f32),
            Self::I32 => each(bytes, |b| i32::from_le_bytes(b) as f32),
            Self::I16 => each(bytes, |b| i16::from_le_bytes(b).into()),
            Self::I8 => each(bytes, |b| i8::from_le_bytes(b).into()),
            Self::U8 => each(bytes, |[b]| b.into()),
            Self::Bool => each(bytes, |[b]| f32::from(b != 0)),
        }
    }
}

/// What a dict of [`write()`] has under a name.
#[derive(Debug)]
pub(super) enum Entry {
    F32(Vec<usize>, Vec<f32>),
    I32(Vec<usize>, Vec<i32>),
    I64(Vec<usize>, Vec<i64>),
    Str(&'static str),
    Int(i32),
    Dict(Vec<(&'static str, Self)>),
}

/// The bytes of a file that `torch.load(…, weights_only=True)` reads as this dict.
///
/// Holds the archive beside what it is given, which is let go as it is written.
///
/// # Errors
/// It would have more than 4 GiB.
pub(super) fn write(dict: Vec<(&'static str, Entry)>) -> Result<Vec<u8>, String> {
    let mut out = Output::default();
    let mut pickle = vec![0x80, 2];
    out.dict(&mut pickle, dict)?;
    pickle.push(b'.');
    let archive = &mut out.archive;
    archive.add("archive/data.pkl", &pickle)?;
    archive.add("archive/byteorder", b"little")?;
    archive.add("archive/version", b"3\n")?;
    out.archive.finish()
}

#[derive(Default)]
struct Output {
    archive: Writer,
    storages: usize,
}

impl Output {
    fn dict(&mut self, out: &mut Vec<u8>, dict: Vec<(&'static str, Entry)>) -> Result<(), String> {
        out.extend(b"}(");
        for (name, entry) in dict {
            text(out, name);
            self.entry(out, entry)?;
        }
        out.push(b'u');
        Ok(())
    }

    fn entry(&mut self, out: &mut Vec<u8>, entry: Entry) -> Result<(), String> {
        match entry {
            Entry::F32(shape, values) => {
                let bytes = bytes(values, f32::to_le_bytes);
                self.tensor(out, "FloatStorage", shape, &bytes)
            }
            Entry::I32(shape, values) => {
                let bytes = bytes(values, i32::to_le_bytes);
                self.tensor(out, "IntStorage", shape, &bytes)
            }
            Entry::I64(shape, values) => {
                let bytes = bytes(values, i64::to_le_bytes);
                self.tensor(out, "LongStorage", shape, &bytes)
            }
            Entry::Str(value) => {
                text(out, value);
                Ok(())
            }
            Entry::Int(n) => {
                out.push(b'J');
                out.extend(n.to_le_bytes());
                Ok(())
            }
            Entry::Dict(dict) => self.dict(out, dict),
        }
    }

    /// `_rebuild_tensor_v2(storage, 0, shape, strides, False, OrderedDict())`.
    fn tensor(
        &mut self,
        out: &mut Vec<u8>,
        class: &str,
        shape: Vec<usize>,
        bytes: &[u8],
    ) -> Result<(), String> {
        let key = self.storages.to_string();
        self.storages += 1;
        self.archive.add(&format!("archive/data/{key}"), bytes)?;
        let numbers = shape.iter().product();
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(out, "storage");
        out.extend(format!("ctorch\n{class}\n").as_bytes());
        text(out, &key);
        text(out, "cpu");
        long(out, numbers);
        out.extend(b"tQK\0");
        tuple(out, &shape);
        let inner = |i: usize| shape[i + 1..].iter().product();
        tuple(out, &(0..shape.len()).map(inner).collect::<Vec<_>>());
        out.extend(b"\x89ccollections\nOrderedDict\n)RtR");
        Ok(())
    }
}

fn bytes<T, const N: usize>(values: Vec<T>, le: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    values.into_iter().flat_map(le).collect()
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.as_bytes());
}

fn long(out: &mut Vec<u8>, n: usize) {
    out.extend([0x8a, 8]);
    out.extend((n as u64).to_le_bytes());
}

fn tuple(out: &mut Vec<u8>, items: &[usize]) {
    out.push(b'(');
    items.iter().for_each(|&n| long(out, n));
    out.push(b't');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(name: &str) -> Vec<u8> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/sae/pt");
        std::fs::read(root.join(name)).unwrap()
    }

    /// Every number type and view that PyTorch wrote, against the same tensors as f32.
    #[test]
    fn tensors_of_every_type_and_layout_are_read() {
        let path = Path::new("types.pt");
        let bytes = fixture("types.pt");
        let file = Checkpoint::parse(path, &bytes).unwrap();
        let got = file.tensors(file.root()).unwrap();
        let want = Tensors::parse(path, &fixture("expected.safetensors")).unwrap();
        assert_eq!(got.map.len(), 16);
        assert!(got.map.keys().eq(want.map.keys()));
        for (name, want) in &want.map {
            let got = &got.map[name];
            assert_eq!(got.shape, want.shape, "{name}");
            assert_eq!(got.values, want.values, "{name}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let state = Entry::Dict(vec![("k", Entry::Int(-3)), ("name", Entry::Str("é"))]);
        let bytes = write(vec![
            ("w", Entry::F32(vec![2, 3], vec![1., 2., 3., 4., 5., 6.])),
            ("n", Entry::I64(vec![2], vec![7, -7])),
            ("k", Entry::I32(vec![], vec![9])),
            ("none", Entry::F32(vec![0, 4], vec![])),
            ("state", state),
        ]);
        let bytes = bytes.unwrap();
        let file = Checkpoint::parse(Path::new("x.pt"), &bytes).unwrap();
        let tensors = file.tensors(file.root()).unwrap();
        assert_eq!(tensors.map["w"].shape, [2, 3]);
        assert_eq!(tensors.map["w"].values, [1., 2., 3., 4., 5., 6.]);
        assert_eq!(tensors.map["n"].values, [7., -7.]);
        assert!(tensors.map["k"].shape.is_empty());
        assert_eq!(tensors.map["none"].shape, [0, 4]);
        let state = file.pickle.get(file.root(), "state").unwrap();
        let in_state = |key| file.pickle.get(state, key).unwrap();
        assert!(matches!(in_state("k"), Value::Int(-3)));
        assert!(matches!(in_state("name"), Value::Str(s) if **s == *"é"));
    }

    /// Every place of a view, by the definition of a stride.
    #[test]
    fn a_view_has_the_numbers_its_strides_say() {
        let places = places(1, &[2, 1, 3], &[7, 100, 2]);
        assert_eq!(places, [1, 3, 5, 8, 10, 12]);
    }
}
