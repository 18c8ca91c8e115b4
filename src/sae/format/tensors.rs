use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use super::{Error, malformed, read_file};

/// The tensors of one file, on the host, by name.
#[derive(Debug)]
pub(in crate::sae) struct Tensors {
    /// Where they were read, for errors.
    pub(super) path: PathBuf,
    pub(super) map: BTreeMap<String, HostTensor>,
}

/// A tensor on the host: `values`, the last dimension running fastest.
#[derive(Debug)]
pub(in crate::sae) struct HostTensor {
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<f32>,
}

impl Tensors {
    /// Every tensor of a safetensors file as f32. F16, BF16 and F64 are converted, and I64 where it is
    /// a single number; other types are refused. Holds the file beside its values while it reads.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        Self::parse(path, &read_file(path)?)
    }

    /// The same for bytes that were read from `path`.
    pub(in crate::sae) fn parse(path: &Path, bytes: &[u8]) -> Result<Self, Error> {
        let file = SafeTensors::deserialize(bytes).map_err(|e| malformed(path, e))?;
        let mut map = BTreeMap::new();
        for (name, view) in file.iter() {
            let values = floats(&view).ok_or_else(|| {
                let dtype = view.dtype();
                malformed(path, format!("tensor `{name}` is {dtype:?}; floats wanted"))
            })?;
            let shape = view.shape().to_vec();
            map.insert(name.to_string(), HostTensor { shape, values });
        }
        let path = path.into();
        Ok(Self { path, map })
    }

    /// Whether there is a tensor of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.map.contains_key(name)
    }

    /// Its shape.
    pub(super) fn shape(&self, name: &str) -> Result<&[usize], Error> {
        Ok(&self.get(name)?.shape)
    }

    /// A shape of two dimensions.
    pub(super) fn shape2(&self, name: &str) -> Result<[usize; 2], Error> {
        let shape = self.shape(name)?;
        let wrong = || self.wrong(name, format!("{shape:?}; two dimensions wanted"));
        shape.try_into().map_err(|_| wrong())
    }

    /// A vector.
    pub(in crate::sae) fn r1(
        &self,
        name: &str,
        len: usize,
        device: &Device,
    ) -> Result<Tensor<1>, Error> {
        let values = self.values(name, &[len])?.to_vec();
        Ok(Tensor::from_data(TensorData::new(values, [len]), device))
    }

    /// A matrix.
    pub(in crate::sae) fn r2(
        &self,
        name: &str,
        shape: [usize; 2],
        device: &Device,
    ) -> Result<Tensor<2>, Error> {
        let values = self.values(name, &shape)?.to_vec();
        Ok(Tensor::from_data(TensorData::new(values, shape), device))
    }

    /// The transpose of a matrix of this shape, laid out anew: a view would be multiplied in
    /// another order, and the latents would differ in their last bits from those before saving.
    pub(super) fn r2_across(
        &self,
        name: &str,
        [rows, columns]: [usize; 2],
        device: &Device,
    ) -> Result<Tensor<2>, Error> {
        let across = transpose(self.values(name, &[rows, columns])?, [rows, columns]);
        let data = TensorData::new(across, [columns, rows]);
        Ok(Tensor::from_data(data, device))
    }

    /// A single number, of any number of dimensions.
    pub(super) fn scalar(&self, name: &str) -> Result<f32, Error> {
        let tensor = self.get(name)?;
        match tensor.values[..] {
            [value] => Ok(value),
            _ => Err(self.wrong(name, format!("{:?}; one number wanted", tensor.shape))),
        }
    }

    /// The values of a tensor that must have this shape.
    pub(super) fn values(&self, name: &str, shape: &[usize]) -> Result<&[f32], Error> {
        let tensor = self.get(name)?;
        match tensor.shape == shape {
            true => Ok(&tensor.values),
            false => Err(self.wrong(name, format!("{:?}; {shape:?} wanted", tensor.shape))),
        }
    }

    fn get(&self, name: &str) -> Result<&HostTensor, Error> {
        let missing = || malformed(&self.path, format!("tensor `{name}` is missing"));
        self.map.get(name).ok_or_else(missing)
    }

    fn wrong(&self, name: &str, is: String) -> Error {
        malformed(&self.path, format!("tensor `{name}` is {is}"))
    }
}

/// `[rows, columns]` to `[columns, rows]`.
pub(super) fn transpose(values: &[f32], [rows, columns]: [usize; 2]) -> Vec<f32> {
    (0..rows * columns)
        .map(|i| values[i % rows * columns + i / rows])
        .collect()
}

fn floats(view: &TensorView<'_>) -> Option<Vec<f32>> {
    let data = view.data();
    Some(match view.dtype() {
        Dtype::F32 => each(data, f32::from_le_bytes),
        Dtype::F16 => each(data, |b| f16::from_le_bytes(b).to_f32()),
        Dtype::BF16 => each(data, |b| bf16::from_le_bytes(b).to_f32()),
        Dtype::F64 => each(data, |b| f64::from_le_bytes(b) as f32),
        Dtype::I64 if data.len() == 8 => each(data, |b| i64::from_le_bytes(b) as f32),
        _ => return None,
    })
}

pub(super) fn each<const N: usize>(data: &[u8], value: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    data.as_chunks().0.iter().map(|b| value(*b)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(tensors: &[(&str, Dtype, &[usize], Vec<u8>)]) -> Result<Tensors, Error> {
        let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
            (
                *name,
                TensorView::new(*dtype, shape.to_vec(), bytes).unwrap(),
            )
        });
        let bytes = safetensors::serialize(views, None).unwrap();
        Tensors::parse(Path::new("some.safetensors"), &bytes)
    }

    fn bytes<const N: usize>(values: &[f32], le: impl Fn(f32) -> [u8; N]) -> Vec<u8> {
        values.iter().flat_map(|&x| le(x)).collect()
    }

    #[test]
    fn every_float_type_is_read() {
        let x = [1.5, -0.0, 0.25, -3.0, 96.0, 0.5];
        let all = file(&[
            (
                "f64",
                Dtype::F64,
                &[6],
                bytes(&x, |x| f64::from(x).to_le_bytes()),
            ),
            ("f32", Dtype::F32, &[6], bytes(&x, f32::to_le_bytes)),
            (
                "f16",
                Dtype::F16,
                &[6],
                bytes(&x, |x| f16::from_f32(x).to_le_bytes()),
            ),
            (
                "bf16",
                Dtype::BF16,
                &[6],
                bytes(&x, |x| bf16::from_f32(x).to_le_bytes()),
            ),
        ])
        .unwrap();
        for name in ["f64", "f32", "f16", "bf16"] {
            let got = all.values(name, &[6]).unwrap();
            let same = got.iter().zip(x).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "{name}: {got:?}");
        }
        let k = file(&[("k", Dtype::I64, &[], vec![7, 0, 0, 0, 0, 0, 0, 0])]).unwrap();
        assert_eq!(k.scalar("k").unwrap(), 7.0);
        let error = file(&[("steps", Dtype::I64, &[2], vec![0; 16])]).unwrap_err();
        assert!(error.to_string().contains("`steps` is I64"), "{error}");
    }

    #[test]
    fn a_transpose_is_laid_out_anew() {
        let x = [0., 1., 2., 3., 4., 5.];
        let all = file(&[("x", Dtype::F32, &[2, 3], bytes(&x, f32::to_le_bytes))]).unwrap();
        let across = all.r2_across("x", [2, 3], crate::Device::cpu().tensor());
        let across = across.unwrap();
        assert_eq!(across.dims(), [3, 2]);
        let across = across.into_data().try_to_vec::<f32>().unwrap();
        assert_eq!(across, [0., 3., 1., 4., 2., 5.]);
        let error = all.scalar("x").unwrap_err().to_string();
        assert!(
            error.contains("`x` is [2, 3]; one number wanted"),
            "{error}"
        );
    }
}
