use half::f16;
use safetensors::{Dtype, tensor::TensorView};

use super::Error;
use crate::device::{self, block_on};
use crate::model::{Model, Param};

impl Param<'_> {
    /// Number of values.
    #[allow(clippy::len_without_is_empty, reason = "a parameter is never empty")]
    pub fn len(&self) -> usize {
        self.shape().iter().product()
    }

    /// Its shape.
    pub fn shape(&self) -> Vec<usize> {
        match self {
            Self::R1(x) => x.dims().to_vec(),
            Self::R2(x) => x.dims().to_vec(),
        }
    }

    async fn read(&self) -> Result<Vec<f32>, device::Error> {
        match self {
            Self::R1(x) => device::read((*x).clone()).await,
            Self::R2(x) => device::read((*x).clone()).await,
        }
    }
}

/// A model's parameters as the bytes of an F16 safetensors file.
///
/// Memory: the file twice.
///
/// # Errors
/// The device could not be read.
pub fn to_safetensors(model: &mut dyn Model) -> Result<Vec<u8>, Error> {
    let mut tensors = Vec::new();
    for (name, param) in model.params() {
        let values = block_on(param.read()).map_err(|e| super::malformed(name.as_str(), e))?;
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|v| f16::from_f32(*v).to_le_bytes())
            .collect();
        tensors.push((name, param.shape(), bytes));
    }
    let views = tensors.iter().map(|(name, shape, bytes)| {
        (
            name.as_str(),
            TensorView::new(Dtype::F16, shape.clone(), bytes).expect("length fits the shape"),
        )
    });
    Ok(safetensors::serialize(views, None).expect("views of whole tensors serialise"))
}
