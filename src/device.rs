//! Which adapter the work runs on, and the way numbers come back from it.
//!
//! Everything that reads a tensor back is `async`; [`block_on`] is the thin native wrapper.


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

    /// The Burn device to create tensors on.
    pub fn tensor(&self) -> &burn::tensor::Device {
        &self.tensor
    }
}
