//! The adapter that the GPU tests run on.

use inscape::device::{Device, DeviceSpec};

/// `INSCAPE_TEST_DEVICE` names it (default: `wgpu:software`, else the best GPU).
///
/// # Panics
/// Without an adapter. Tests that call this are ignored unless asked for.
pub fn gpu() -> Device {
    let device = match std::env::var("INSCAPE_TEST_DEVICE") {
        Ok(spec) => Device::open(&spec.parse().unwrap()),
        Err(_) => Device::open(&DeviceSpec::Software).or_else(|_| Device::open(&DeviceSpec::Wgpu)),
    };
    let device = device.unwrap_or_else(|e| panic!("the GPU tests need a wgpu adapter: {e}"));
    println!("gpu suite ran on: {}", device.name());
    device
}
