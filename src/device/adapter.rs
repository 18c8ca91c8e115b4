//! The wgpu adapters of this machine, and which of them a specification means.

use std::fmt;

use cubecl::wgpu::{AutoGraphicsApi, WgpuBackend, WgpuDevice, WgpuDeviceKind};
use serde::Serialize;

use super::{DeviceSpec, Error};

/// What kind of hardware an adapter says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AdapterKind {
    /// A GPU with memory of its own.
    Discrete,
    /// A GPU that shares the machine's memory.
    Integrated,
    /// A GPU as a virtual machine shows it.
    Virtual,
    /// A processor that plays a GPU.
    Software,
    /// The driver does not say.
    Other,
}

impl From<wgpu::DeviceType> for AdapterKind {
    fn from(kind: wgpu::DeviceType) -> Self {
        match kind {
            wgpu::DeviceType::DiscreteGpu => Self::Discrete,
            wgpu::DeviceType::IntegratedGpu => Self::Integrated,
            wgpu::DeviceType::VirtualGpu => Self::Virtual,
            wgpu::DeviceType::Cpu => Self::Software,
            wgpu::DeviceType::Other => Self::Other,
        }
    }
}

impl fmt::Display for AdapterKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Discrete => "discrete",
            Self::Integrated => "integrated",
            Self::Virtual => "virtual",
            Self::Software => "software",
            Self::Other => "other",
        })
    }
}

/// One wgpu adapter of this machine.
#[derive(Clone, Debug, Serialize)]
pub struct AdapterInfo {
    /// The specification that selects this adapter.
    pub spec: DeviceSpec,
    /// What the driver calls it.
    pub name: String,
    /// What kind of hardware it says it is.
    pub kind: AdapterKind,
    /// Its place among the adapters of its kind.
    pub index: usize,
    /// The graphics API it is reached through: `Vulkan`, `Metal`, `Dx12`, `Gl`, `WebGPU`.
    pub api: String,
    /// The driver's name, where the API tells it.
    pub driver: String,
    /// The driver's version or description, where the API tells it.
    pub driver_info: String,
    /// The vendor's number (PCI).
    pub vendor: u32,
    /// The device's number (PCI).
    pub device: u32,
    /// The largest buffer, in bytes.
    pub max_buffer_size: u64,
    /// The largest part of a buffer that a kernel can see, in bytes: the limit on one tensor.
    pub max_storage_buffer_binding_size: u64,
    /// Whether a processor plays the GPU (llvmpipe, WARP, SwiftShader).
    pub software: bool,
    #[serde(skip)]
    backend: wgpu::Backend,
}

impl AdapterInfo {
    fn new(info: &wgpu::AdapterInfo, limits: &wgpu::Limits, index: usize) -> Self {
        let kind = AdapterKind::from(info.device_type);
        Self {
            spec: spec_of(kind, index),
            name: info.name.clone(),
            kind,
            index,
            api: api_name(info.backend),
            driver: info.driver.clone(),
            driver_info: info.driver_info.clone(),
            vendor: info.vendor,
            device: info.device,
            max_buffer_size: limits.max_buffer_size,
            max_storage_buffer_binding_size: limits.max_storage_buffer_binding_size,
            software: kind == AdapterKind::Software || named_like_software(&info.name),
            backend: info.backend,
        }
    }

    /// How Burn's runtime names this adapter, with the graphics API it was listed under, so that
    /// its number means the same there. The browser shows one adapter and no numbers.
    pub(super) fn wgpu_device(&self) -> WgpuDevice {
        let kind = match self.kind {
            _ if cfg!(target_family = "wasm") => WgpuDeviceKind::DefaultDevice,
            AdapterKind::Discrete => WgpuDeviceKind::DiscreteGpu(self.index),
            AdapterKind::Integrated => WgpuDeviceKind::IntegratedGpu(self.index),
            AdapterKind::Virtual => WgpuDeviceKind::VirtualGpu(self.index),
            AdapterKind::Software => WgpuDeviceKind::Cpu,
            AdapterKind::Other => WgpuDeviceKind::Other(self.index),
        };
        WgpuDevice::new(kind).on(match self.backend {
            wgpu::Backend::Vulkan => WgpuBackend::Vulkan,
            wgpu::Backend::Metal => WgpuBackend::Metal,
            wgpu::Backend::Dx12 => WgpuBackend::Dx12,
            wgpu::Backend::Gl => WgpuBackend::Gl,
            wgpu::Backend::BrowserWebGpu => WgpuBackend::WebGpu,
            wgpu::Backend::Noop => WgpuBackend::Auto,
        })
    }

    /// Lower is better; `None` for a software adapter.
    fn rank(&self) -> Option<u8> {
        match self.kind {
            _ if self.software => None,
            AdapterKind::Discrete => Some(0),
            AdapterKind::Integrated => Some(1),
            AdapterKind::Virtual => Some(2),
            AdapterKind::Other => Some(3),
            AdapterKind::Software => None,
        }
    }
}

/// `NVIDIA H100 (discrete, Vulkan)`.
impl fmt::Display for AdapterInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {})", self.name, self.kind, self.api)
    }
}

/// What `auto` takes on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AutoChoice {
    /// The device that is taken: [`DeviceSpec::Cpu`] or one adapter.
    pub spec: DeviceSpec,
    /// The reason, as a sentence.
    pub why: String,
}

/// What `auto` takes among `found`: a real GPU (discrete, then integrated, then virtual, then
/// unnamed kinds), else the CPU backend; never a software adapter.
///
/// A software adapter runs the same kernels on the same processor, far slower than the CPU backend.
///
/// ```
/// use inscape::device::{DeviceSpec, auto_choice};
/// assert_eq!(auto_choice(&[]).spec, DeviceSpec::Cpu);
/// ```
pub fn auto_choice(found: &[AdapterInfo]) -> AutoChoice {
    if let Some(gpu) = best_gpu(found) {
        let why = format!("{gpu} is the best GPU here");
        return AutoChoice {
            spec: gpu.spec.clone(),
            why,
        };
    }
    let why = match found.first() {
        None => "there is no wgpu adapter, so the CPU backend is used".into(),
        Some(soft) => format!("{soft} is a software adapter, slower than the CPU backend"),
    };
    AutoChoice {
        spec: DeviceSpec::Cpu,
        why,
    }
}

fn best_gpu(found: &[AdapterInfo]) -> Option<&AdapterInfo> {
    found
        .iter()
        .filter(|a| a.rank().is_some())
        .min_by_key(|a| a.rank())
}

/// The adapter that `spec` means.
pub(super) fn select<'a>(
    found: &'a [AdapterInfo],
    spec: &DeviceSpec,
) -> Result<&'a AdapterInfo, Error> {
    let adapter = match spec {
        DeviceSpec::Wgpu => best_gpu(found),
        DeviceSpec::Software => found.iter().find(|a| a.software),
        named => found.iter().find(|a| a.spec == *named),
    };
    adapter.ok_or_else(|| Error::Absent {
        asked: spec.clone(),
        available: list(found),
    })
}

fn list(found: &[AdapterInfo]) -> String {
    let adapters = found.iter().map(|a| format!("{} = {a}", a.spec));
    adapters
        .chain(["cpu".into()])
        .collect::<Vec<_>>()
        .join("; ")
}

fn spec_of(kind: AdapterKind, index: usize) -> DeviceSpec {
    match kind {
        AdapterKind::Discrete => DeviceSpec::Discrete(index),
        AdapterKind::Integrated => DeviceSpec::Integrated(index),
        AdapterKind::Virtual => DeviceSpec::Virtual(index),
        AdapterKind::Software => DeviceSpec::Software,
        AdapterKind::Other => DeviceSpec::Other(index),
    }
}

fn api_name(backend: wgpu::Backend) -> String {
    match backend {
        wgpu::Backend::BrowserWebGpu => "WebGPU".into(),
        other => format!("{other:?}"),
    }
}

fn named_like_software(name: &str) -> bool {
    let name = name.to_lowercase();
    let known = [
        "llvmpipe",
        "lavapipe",
        "softpipe",
        "swiftshader",
        "basic render driver",
        "warp",
    ];
    known.iter().any(|word| name.contains(word))
}

/// The adapters on the first graphics API that has a GPU, or failing that on the first that has
/// anything: the rule by which Burn's runtime picks one.
async fn enumerate() -> Vec<AdapterInfo> {
    let mut software_only = Vec::new();
    for api in AutoGraphicsApi::chain() {
        let found = enumerate_on(api).await;
        if found.iter().any(|a| a.kind != AdapterKind::Software) {
            return found;
        }
        if software_only.is_empty() {
            software_only = found;
        }
    }
    software_only
}

async fn enumerate_on(api: wgpu::Backend) -> Vec<AdapterInfo> {
    if !wgpu::Instance::enabled_backend_features().contains(api.into()) {
        return Vec::new();
    }
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: api.into(),
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let mut found: Vec<AdapterInfo> = Vec::new();
    for adapter in instance.enumerate_adapters(api.into()).await {
        let info = adapter.get_info();
        let kind = AdapterKind::from(info.device_type);
        let index = found.iter().filter(|a| a.kind == kind).count();
        found.push(AdapterInfo::new(&info, &adapter.limits(), index));
    }
    found
}

/// The wgpu adapters that [`Device::open`](super::Device::open) can reach, in the driver's order.
///
/// Natively the machine is asked once per process, and later calls repeat the answer: Vulkan
/// loaders do not bear instances being made and dropped beside a running device.
pub async fn adapters_async() -> Vec<AdapterInfo> {
    #[cfg(not(target_family = "wasm"))]
    {
        use std::sync::OnceLock;
        static FOUND: OnceLock<Vec<AdapterInfo>> = OnceLock::new();
        FOUND.get_or_init(|| super::block_on(enumerate())).clone()
    }
    #[cfg(target_family = "wasm")]
    enumerate().await
}

/// Blocking form of [`adapters_async`].
#[cfg(not(target_family = "wasm"))]
pub fn adapters() -> Vec<AdapterInfo> {
    super::block_on(adapters_async())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(name: &str, kind: wgpu::DeviceType, index: usize) -> AdapterInfo {
        let mut info = wgpu::AdapterInfo::new(kind, wgpu::Backend::Vulkan);
        info.name = name.into();
        AdapterInfo::new(&info, &wgpu::Limits::default(), index)
    }

    fn machine() -> Vec<AdapterInfo> {
        vec![
            adapter("llvmpipe (LLVM 19)", wgpu::DeviceType::Cpu, 0),
            adapter("Iris", wgpu::DeviceType::IntegratedGpu, 0),
            adapter("GeForce", wgpu::DeviceType::DiscreteGpu, 0),
            adapter("Radeon", wgpu::DeviceType::DiscreteGpu, 1),
        ]
    }

    #[test]
    fn auto_prefers_discrete_then_integrated_then_the_cpu() {
        let mut found = machine();
        assert_eq!(auto_choice(&found).spec, DeviceSpec::Discrete(0));
        found.retain(|a| a.kind != AdapterKind::Discrete);
        assert_eq!(auto_choice(&found).spec, DeviceSpec::Integrated(0));
        found.truncate(1);
        assert_eq!(auto_choice(&found).spec, DeviceSpec::Cpu);
        assert!(auto_choice(&found).why.contains("llvmpipe"));
    }

    #[test]
    fn software_is_known_by_name_too() {
        let warp = [adapter(
            "Microsoft Basic Render Driver",
            wgpu::DeviceType::Other,
            0,
        )];
        assert_eq!(auto_choice(&warp).spec, DeviceSpec::Cpu);
        assert!(select(&warp, &DeviceSpec::Wgpu).is_err());
        assert_eq!(select(&warp, &DeviceSpec::Software).unwrap().index, 0);
    }

    #[test]
    fn a_number_counts_within_its_kind() {
        let found = machine();
        assert_eq!(
            select(&found, &DeviceSpec::Discrete(1)).unwrap().name,
            "Radeon"
        );
        assert_eq!(select(&found, &DeviceSpec::Wgpu).unwrap().name, "GeForce");
        let error = select(&found, &DeviceSpec::Integrated(1))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("wgpu:integrated:0 = Iris (integrated, Vulkan)"),
            "{error}"
        );
    }

    #[test]
    fn this_machine_numbers_as_the_runtime_does() {
        for a in adapters()
            .iter()
            .filter(|a| a.kind != AdapterKind::Software)
        {
            assert_eq!(select(&adapters(), &a.spec).unwrap().name, a.name);
        }
    }
}
