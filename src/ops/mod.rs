//! Operations that Burn does not have: each with its meaning in tensor operations, a plain-Rust
//! form for the CPU backend, and, where it exists, a WGSL kernel for wgpu.

mod adam;
mod cube;
mod flex;
mod sparse;
mod topk;

pub use adam::{Adam, Moments, clip_scale};
pub use sparse::{SparseOps, sparse_decode, sparse_dot, sparse_matmul_t};
pub use topk::{TopkOps, topk, topk_reference};
