use std::fmt;

use half::{bf16, f16};
use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use super::Error;

/// The number format of weights on disk. They are trained in f32 whatever it is, and rounded to the
/// nearest, ties to even.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightDtype {
    /// 4 bytes.
    #[default]
    F32,
    /// 2 bytes, 11 bits of precision, up to 65,504.
    F16,
    /// 2 bytes, 8 bits of precision, the range of f32.
    Bf16,
}

impl WeightDtype {
    /// As SAELens and torch spell it.
    pub fn torch_name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
        }
    }

    /// Bytes of a number.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    pub(super) fn of_file(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::F16 => Dtype::F16,
            Self::Bf16 => Dtype::BF16,
        }
    }

    /// The bytes of a tensor's values, little endian.
    pub(super) fn encode(self, tensor: &str, values: &[f32]) -> Result<Vec<u8>, Error> {
        let fits = |&x: &f32| match self {
            Self::F32 => true,
            Self::F16 => f16::from_f32(x).is_finite() || !x.is_finite(),
            Self::Bf16 => bf16::from_f32(x).is_finite() || !x.is_finite(),
        };
        if let Some(&value) = values.iter().find(|x| !fits(x)) {
            return Err(Error::Overflow {
                tensor: tensor.into(),
                value,
                dtype: self,
            });
        }
        let all = values.iter().copied();
        Ok(match self {
            Self::F32 => all.flat_map(f32::to_le_bytes).collect(),
            Self::F16 => all.flat_map(|x| f16::from_f32(x).to_le_bytes()).collect(),
            Self::Bf16 => all.flat_map(|x| bf16::from_f32(x).to_le_bytes()).collect(),
        })
    }
}

impl fmt::Display for WeightDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        })
    }
}
