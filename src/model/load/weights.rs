use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::path::Path;

use burn::tensor::{Tensor, TensorData};
use half::{bf16, f16};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::{Dtype, tensor::Metadata};
use sha2::{Digest, Sha256};

use super::{Error, TensorSource, malformed};
use crate::Device;

trait ReadSeek: Read + Seek + Send {}
impl<T: Read + Seek + Send> ReadSeek for T {}

struct Part {
    file: String,
    reader: Box<dyn ReadSeek>,
    metadata: Metadata,
    data_start: u64,
}

/// The tensors of one or more safetensors files, read one at a time.
pub struct Weights {
    parts: Vec<Part>,
    part_of: HashMap<String, usize>,
}

impl std::fmt::Debug for Weights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.parts.iter().map(|p| &p.file))
            .finish()
    }
}

/// A header larger than this is no model's.
const MAX_HEADER: u64 = 100 << 20;

impl Part {
    fn new(file: &str, mut reader: Box<dyn ReadSeek>) -> Result<Self, Error> {
        let io = |e: std::io::Error| malformed(file, e);
        let size = reader.seek(SeekFrom::End(0)).map_err(io)?;
        reader.seek(SeekFrom::Start(0)).map_err(io)?;
        let mut len = [0u8; 8];
        reader
            .read_exact(&mut len)
            .map_err(|_| malformed(file, "shorter than a safetensors header"))?;
        let header = u64::from_le_bytes(len);
        if header > MAX_HEADER || header + 8 > size {
            return Err(malformed(
                file,
                format!(
                    "header of {header} bytes in a file of {size}: truncated, or no safetensors"
                ),
            ));
        }
        let mut bytes = vec![0u8; header as usize];
        reader.read_exact(&mut bytes).map_err(io)?;
        let metadata: Metadata = serde_json::from_slice(&bytes).map_err(|e| malformed(file, e))?;
        let data_start = header + 8;
        let wanted = data_start + metadata.data_len() as u64;
        if wanted != size {
            return Err(malformed(
                file,
                format!("{size} bytes where the header says {wanted}: truncated or overwritten"),
            ));
        }
        Ok(Self {
            file: file.into(),
            reader,
            metadata,
            data_start,
        })
    }

    fn fetch(&mut self, name: &str) -> Result<(Vec<usize>, Vec<f32>), Error> {
        let info = self
            .metadata
            .info(name)
            .expect("the name was indexed")
            .clone();
        let (start, end) = info.data_offsets;
        let mut bytes = vec![0u8; end - start];
        self.reader
            .seek(SeekFrom::Start(self.data_start + start as u64))
            .and_then(|_| self.reader.read_exact(&mut bytes))
            .map_err(|e| malformed(&self.file, e))?;
        let values = match info.dtype {
            Dtype::F32 => bytes
                .as_chunks()
                .0
                .iter()
                .map(|b| f32::from_le_bytes(*b))
                .collect(),
            Dtype::F16 => bytes
                .as_chunks()
                .0
                .iter()
                .map(|b| f16::from_le_bytes(*b).to_f32())
                .collect(),
            Dtype::BF16 => bytes
                .as_chunks()
                .0
                .iter()
                .map(|b| bf16::from_le_bytes(*b).to_f32())
                .collect(),
            other => {
                return Err(self.bad(name, format!("dtype {other:?}; F32, F16 or BF16 wanted")));
            }
        };
        Ok((info.shape, values))
    }

    fn bad(&self, tensor: &str, reason: String) -> Error {
        Error::Tensor {
            file: self.file.clone(),
            tensor: tensor.into(),
            reason,
        }
    }
}

impl Weights {
    /// One safetensors file that is already in memory.
    ///
    /// # Errors
    /// The bytes are no whole safetensors file.
    pub fn from_bytes(name: &str, bytes: Vec<u8>) -> Result<Self, Error> {
        Self::index(vec![Part::new(name, Box::new(Cursor::new(bytes)))?])
    }

    /// `model.safetensors` of a directory, or the files that `model.safetensors.index.json` lists.
    ///
    /// # Errors
    /// A file is missing, truncated or no safetensors.
    pub fn from_dir(dir: &Path) -> Result<Self, Error> {
        #[derive(serde::Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        let index = dir.join("model.safetensors.index.json");
        let mut files = vec!["model.safetensors".to_string()];
        if index.exists() {
            let text = std::fs::read(&index).map_err(|source| Error::Io {
                path: index.clone(),
                source,
            })?;
            let index: Index = serde_json::from_slice(&text)
                .map_err(|e| malformed(index.display().to_string(), e))?;
            files = index.weight_map.into_values().collect();
            files.sort();
            files.dedup();
        }
        let open = |file: &String| {
            let path = dir.join(file);
            let reader = File::open(&path).map_err(|source| Error::Io {
                path: path.clone(),
                source,
            })?;
            Part::new(&path.display().to_string(), Box::new(reader))
        };
        Self::index(files.iter().map(open).collect::<Result<_, _>>()?)
    }

    fn index(parts: Vec<Part>) -> Result<Self, Error> {
        let names = parts.iter().enumerate();
        let part_of = names
            .flat_map(|(i, p)| p.metadata.offset_keys().into_iter().map(move |n| (n, i)))
            .collect();
        Ok(Self { parts, part_of })
    }

    /// Hash of all files, in order. Reads them once.
    pub(super) fn sha256(&mut self) -> Result<String, Error> {
        let mut hash = Sha256::new();
        for part in &mut self.parts {
            let copied = part
                .reader
                .seek(SeekFrom::Start(0))
                .and_then(|_| copy_into(&mut part.reader, &mut hash));
            copied.map_err(|e| malformed(&part.file, e))?;
        }
        Ok(hex(&hash.finalize()))
    }

    /// These tensors, placed on a device.
    pub fn on<'a>(&'a mut self, device: &'a Device) -> OnDevice<'a> {
        OnDevice {
            weights: self,
            device,
        }
    }
}

fn copy_into(reader: &mut dyn ReadSeek, hash: &mut Sha256) -> std::io::Result<()> {
    let mut buffer = vec![0u8; 1 << 20];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(()),
            n => hash.update(&buffer[..n]),
        }
    }
}

pub(super) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A [`TensorSource`] over [`Weights`].
#[derive(Debug)]
pub struct OnDevice<'a> {
    weights: &'a mut Weights,
    device: &'a Device,
}

impl OnDevice<'_> {
    pub(super) fn device(&self) -> &Device {
        self.device
    }

    fn take(&mut self, name: &str, shape: &[usize]) -> Result<TensorData, Error> {
        let Some(&i) = self.weights.part_of.get(name) else {
            let files: Vec<&str> = self.weights.parts.iter().map(|p| p.file.as_str()).collect();
            return Err(Error::Tensor {
                file: files.join(", "),
                tensor: name.into(),
                reason: "missing".into(),
            });
        };
        let part = &mut self.weights.parts[i];
        let (found, values) = part.fetch(name)?;
        if found != shape {
            return Err(part.bad(
                name,
                format!("shape {found:?} where the configuration says {shape:?}"),
            ));
        }
        Ok(TensorData::new(values, shape.to_vec()))
    }
}

impl TensorSource for OnDevice<'_> {
    fn has(&self, name: &str) -> bool {
        self.weights.part_of.contains_key(name)
    }

    fn r2(&mut self, name: &str, shape: [usize; 2]) -> Result<Tensor<2>, Error> {
        let data = self.take(name, &shape)?;
        Ok(Tensor::from_data(data, self.device.tensor()))
    }

    fn r1(&mut self, name: &str, len: usize) -> Result<Tensor<1>, Error> {
        let data = self.take(name, &[len])?;
        Ok(Tensor::from_data(data, self.device.tensor()))
    }
}

/// A [`TensorSource`] that draws fresh parameters: normal matrices, vectors of ones.
///
/// The draws depend on the seed and the order of the calls only, not on the device.
#[derive(Debug)]
pub struct RandomInit {
    /// Standard deviation of the matrices.
    pub std: f32,
    rng: ChaCha8Rng,
    device: Device,
}

impl RandomInit {
    /// Draws from `seed`.
    pub fn new(seed: u64, std: f32, device: &Device) -> Self {
        Self {
            std,
            rng: ChaCha8Rng::seed_from_u64(seed),
            device: device.clone(),
        }
    }

    /// Box-Muller on two uniform draws.
    fn normal(&mut self) -> f32 {
        let (u, v): (f64, f64) = (self.rng.random(), self.rng.random());
        ((-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32 * self.std
    }
}

impl TensorSource for RandomInit {
    fn has(&self, _name: &str) -> bool {
        true
    }

    fn r2(&mut self, _name: &str, shape: [usize; 2]) -> Result<Tensor<2>, Error> {
        let values: Vec<f32> = (0..shape[0] * shape[1]).map(|_| self.normal()).collect();
        Ok(Tensor::from_data(
            TensorData::new(values, shape),
            self.device.tensor(),
        ))
    }

    fn r1(&mut self, _name: &str, len: usize) -> Result<Tensor<1>, Error> {
        Ok(Tensor::ones([len], self.device.tensor()))
    }
}
