//! Look inside neural networks on the machine you have.
//!
//! (The tour is written once the rooms stand.)
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod capture;
pub mod cli;
pub mod device;
pub mod hook;
pub mod model;
pub mod ops;
pub mod report;
pub mod sae;
pub mod similarity;
pub mod wgsl;

pub use device::Device;
