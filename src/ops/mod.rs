//! Operations that Burn does not have: each with its meaning in tensor operations, a plain-Rust
//! form for the CPU backend, and a WGSL kernel for wgpu.

mod topk;

pub use topk::{TopkOps, topk, topk_reference};
