//! Which adapter the work runs on, and the way numbers come back from it.
//!
//! A [`DeviceSpec`] names a device (`auto`, `cpu`, `wgpu:discrete:0`, …), [`adapters`] lists what
//! this machine has, and [`Device::open`] brings one up. [`Device::from_burn`] takes a device that
//! a host application has already set up. Burn's kernel fusion stays off in this crate: it has
//! given silent wrong results (see [`self_check`]).
//!
//! Everything that waits for a device is `async`; the functions without `async` are thin native
//! wrappers over [`block_on`].

mod adapter;
mod check;
mod spec;
mod view;

pub use adapter::{AdapterInfo, AdapterKind, AutoChoice, adapters_async, auto_choice};
pub use check::{CheckCase, SelfCheckReport, self_check_async};
pub use spec::DeviceSpec;
pub(crate) use view::{View, view};

#[cfg(not(target_family = "wasm"))]
pub use adapter::adapters;
#[cfg(not(target_family = "wasm"))]
pub use check::self_check;

use std::sync::{Arc, Mutex, PoisonError};

use burn::backend::Flex;
use burn::tensor::{Element, Int, Tensor, TensorData};
use bytemuck::Pod;
use cubecl::wgpu::{
    AutoGraphicsApi, RuntimeOptions, WgpuDevice, WgpuInitError, try_init_setup_async,
};

/// What can go wrong between the program and a device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The device could not finish the work or hand the numbers back.
    #[error("reading back from the device failed: {0}")]
    Read(String),
    /// The text is not a device specification.
    #[error("`{given}` is not a device; use one of: {}", spec::FORMS)]
    Spec {
        /// The text that was given.
        given: String,
    },
    /// The adapter asked for is not on this machine.
    #[error("no adapter matches `{asked}`; this machine has: {available}")]
    Absent {
        /// The device that was asked for.
        asked: DeviceSpec,
        /// The devices that are there, each with the text that selects it.
        available: String,
    },
    /// The adapter is there but gave no usable device.
    #[error("opening `{asked}` ({adapter}) failed: {reason}")]
    Open {
        /// The device that was asked for.
        asked: DeviceSpec,
        /// The adapter it stands for.
        adapter: String,
        /// What the runtime said.
        reason: String,
    },
}

/// A device that tensors live on: the CPU backend or one wgpu adapter.
#[derive(Clone, Debug)]
pub struct Device {
    tensor: burn::tensor::Device,
    name: Arc<str>,
}

impl Device {
    /// The CPU backend (Burn's `Flex`), always there.
    pub fn cpu() -> Self {
        let threads = rayon::current_num_threads();
        let plural = if threads == 1 { "" } else { "s" };
        Self::named(
            burn::tensor::Device::flex(),
            format!("CPU (Flex, {threads} thread{plural})"),
        )
    }

    /// The same device, recording what is computed on it for gradients.
    pub fn autodiff(&self) -> Self {
        Self {
            tensor: self.tensor.clone().autodiff(),
            ..self.clone()
        }
    }

    /// A device that a host application has set up with Burn, for example around its own
    /// `wgpu::Device` (`burn::tensor::Device::wgpu_options().setup(…).init()`).
    pub fn from_burn(tensor: burn::tensor::Device) -> Self {
        if tensor == burn::tensor::Device::flex() {
            return Self {
                tensor,
                ..Self::cpu()
            };
        }
        let name = tensor
            .identity()
            .map_or("unnamed device".into(), |id| id.name);
        Self::named(tensor, format!("{name} (from the host application)"))
    }

    /// Opens the device that `spec` names.
    ///
    /// The same specification can be opened any number of times in one process; all of them share
    /// one runtime.
    ///
    /// # Errors
    /// [`Error::Absent`] if no adapter fits (the message lists those that are there),
    /// [`Error::Open`] if the driver refuses it.
    pub async fn open_async(spec: &DeviceSpec) -> Result<Self, Error> {
        let found = match spec {
            DeviceSpec::Cpu => Vec::new(), // no driver is woken for it
            _ => adapters_async().await,
        };
        let spec = match spec {
            DeviceSpec::Auto => auto_choice(&found).spec,
            named => named.clone(),
        };
        if spec == DeviceSpec::Cpu {
            return Ok(Self::cpu());
        }
        let adapter = adapter::select(&found, &spec)?;
        let tensor = start(adapter).await.map_err(|e| Error::Open {
            asked: spec.clone(),
            adapter: adapter.to_string(),
            reason: e.to_string(),
        })?;
        Ok(Self::named(tensor, format!("wgpu: {adapter}")))
    }

    /// The best real GPU if there is one, else the CPU backend (see [`auto_choice`]).
    ///
    /// # Errors
    /// [`Error::Open`] if there is a GPU and its driver refuses it.
    pub async fn auto_async() -> Result<Self, Error> {
        Self::open_async(&DeviceSpec::Auto).await
    }

    /// The Burn device to create tensors on.
    pub fn tensor(&self) -> &burn::tensor::Device {
        &self.tensor
    }

    /// What the device is, for people: `CPU (Flex, 2 threads)`, `wgpu: NVIDIA … (discrete, Vulkan)`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether this is the CPU backend (a software wgpu adapter is not).
    pub fn is_cpu(&self) -> bool {
        self.tensor == burn::tensor::Device::flex()
    }

    fn named(tensor: burn::tensor::Device, name: String) -> Self {
        Self {
            tensor,
            name: name.into(),
        }
    }
}

#[cfg(not(target_family = "wasm"))]
impl Device {
    /// Blocking form of [`Device::open_async`].
    ///
    /// # Errors
    /// As [`Device::open_async`].
    ///
    /// ```
    /// use inscape::Device;
    /// let device = Device::open(&"cpu".parse()?)?;
    /// assert!(device.is_cpu());
    /// # Ok::<(), inscape::device::Error>(())
    /// ```
    pub fn open(spec: &DeviceSpec) -> Result<Self, Error> {
        block_on(Self::open_async(spec))
    }

    /// Blocking form of [`Device::auto_async`].
    ///
    /// # Errors
    /// As [`Device::auto_async`].
    pub fn auto() -> Result<Self, Error> {
        block_on(Self::auto_async())
    }

    /// Waits until all work given to the device so far is done.
    ///
    /// An allocation or kernel that failed on wgpu is not reported here: the error comes when its
    /// result, or anything made from it, is read.
    ///
    /// # Errors
    /// [`Error::Read`] if the device itself is lost.
    pub fn sync(&self) -> Result<(), Error> {
        self.tensor.sync().map_err(|e| Error::Read(e.to_string()))
    }
}

/// Brings the adapter's runtime up, or takes the one that runs already.
async fn start(adapter: &AdapterInfo) -> Result<burn::tensor::Device, WgpuInitError> {
    static STARTED: Mutex<Vec<WgpuDevice>> = Mutex::new(Vec::new());
    let started = || STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    let device = adapter.wgpu_device();
    if !started().contains(&device) {
        let options = RuntimeOptions::try_default()?;
        match try_init_setup_async::<AutoGraphicsApi>(&device, options).await {
            // Another thread, or the host application through Burn itself, was first.
            Err(WgpuInitError::Registration { .. }) => {}
            other => drop(other?),
        }
        started().push(device.clone());
    }
    Ok(burn::tensor::Device::from(device))
}

/// Runs a future to its end on this thread. Not for the browser, where nothing may block.
pub fn block_on<F: Future>(future: F) -> F::Output {
    pollster::block_on(future)
}

/// Reads a float tensor back in row-major order, converted to `E` (`f32` or `f64`).
///
/// # Errors
/// [`Error::Read`] if the device failed.
pub async fn read<E: Element + Pod, const D: usize>(x: Tensor<D>) -> Result<Vec<E>, Error> {
    // Where the values lie in this memory and somebody else holds them too, they are copied once. To
    // Burn's data they would be copied as bytes, and from there again.
    if let Ok(here) = x.clone().try_into_primitive::<Flex>() {
        drop(x);
        if let Some(values) = here.as_slice::<E>().filter(|_| !here.is_unique()) {
            return Ok(values.to_vec());
        }
        return vec(here.into_data());
    }
    let data = x.into_data_async().await;
    vec(data.map_err(|e| Error::Read(format!("{e:?}")))?)
}

fn vec<E: Element>(data: TensorData) -> Result<Vec<E>, Error> {
    let values = data.try_into_vec_as();
    values.map_err(|e| Error::Read(format!("{e:?}")))
}

/// Reads an integer tensor back in row-major order.
///
/// # Errors
/// [`Error::Read`] if the device failed.
pub async fn read_int<const D: usize>(x: Tensor<D, Int>) -> Result<Vec<i64>, Error> {
    let data = x.into_data_async().await;
    vec(data.map_err(|e| Error::Read(format!("{e:?}")))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_opens_twice_and_says_so() {
        for _ in 0..2 {
            let device = Device::open(&DeviceSpec::Cpu).unwrap();
            assert!(device.is_cpu());
            assert!(
                device.name().starts_with("CPU (Flex, "),
                "{}",
                device.name()
            );
            device.sync().unwrap();
        }
    }

    #[test]
    fn a_host_device_is_recognised() {
        assert!(Device::from_burn(burn::tensor::Device::flex().autodiff()).is_cpu());
    }

    #[test]
    fn an_absent_adapter_lists_what_is_there() {
        let error = Device::open(&DeviceSpec::Discrete(4000))
            .unwrap_err()
            .to_string();
        assert!(error.contains("wgpu:discrete:4000"), "{error}");
        assert!(
            error.contains("this machine has: ") && error.contains("cpu"),
            "{error}"
        );
    }
}
