use std::fs::File;
use std::io::Write;
use std::path::Path;

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

/// Writes a model's parameters as F16 safetensors, to a temporary file that is then renamed.
///
/// Memory: the file once.
///
/// # Errors
/// The device could not be read, or the file not written.
pub fn save(model: &mut dyn Model, path: &Path) -> Result<(), Error> {
    let io = |source| Error::Io {
        path: path.into(),
        source,
    };
    let mut tensors = Vec::new();
    for (name, param) in model.params() {
        let values =
            block_on(param.read()).map_err(|e| super::malformed(path.display().to_string(), e))?;
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
    let bytes = safetensors::serialize(views, None)
        .map_err(|e| super::malformed(path.display().to_string(), e))?;
    let aside = path.with_extension("safetensors.tmp");
    let written = File::create(&aside).and_then(|mut file| {
        file.write_all(&bytes)?;
        file.sync_all()
    });
    written
        .and_then(|()| std::fs::rename(&aside, path))
        .map_err(io)?;
    Ok(())
}
