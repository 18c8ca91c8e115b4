//! Which adapter the work runs on, and the way numbers come back from it.
//!
//! Everything that reads a tensor back is `async`; [`block_on`] is the thin native wrapper.

use burn::tensor::{Element, Int, Tensor};

/// What can go wrong between the program and a device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The device could not finish the work or hand the numbers back.
    #[error("reading back from the device failed: {0}")]
    Read(String),
}

/// A device that tensors live on: the CPU backend or one wgpu adapter.
#[derive(Clone, Debug)]
pub struct Device {
    tensor: burn::tensor::Device,
}

impl Device {
    /// The CPU backend (Burn's `Flex`), always there.
    pub fn cpu() -> Self {
        Self { tensor: burn::tensor::Device::flex() }
    }

    /// A device that a host application already holds.
    pub fn from_burn(tensor: burn::tensor::Device) -> Self {
        Self { tensor }
    }

    /// The Burn device to create tensors on.
    pub fn tensor(&self) -> &burn::tensor::Device {
        &self.tensor
    }
}

/// Runs a future to its end on this thread. Not for the browser, where nothing may block.
pub fn block_on<F: Future>(future: F) -> F::Output {
    pollster::block_on(future)
}

/// Reads a float tensor back in row-major order, converted to `E` (`f32` or `f64`).
///
/// # Errors
/// [`Error::Read`] if the device failed.
pub async fn read<E: Element, const D: usize>(x: Tensor<D>) -> Result<Vec<E>, Error> {
    let data = x.into_data_async().await.map_err(|e| Error::Read(format!("{e:?}")))?;
    data.convert::<E>().try_to_vec().map_err(|e| Error::Read(format!("{e:?}")))
}

/// Reads an integer tensor back in row-major order.
///
/// # Errors
/// [`Error::Read`] if the device failed.
pub async fn read_int<const D: usize>(x: Tensor<D, Int>) -> Result<Vec<i64>, Error> {
    let data = x.into_data_async().await.map_err(|e| Error::Read(format!("{e:?}")))?;
    data.convert::<i64>().try_to_vec().map_err(|e| Error::Read(format!("{e:?}")))
}
