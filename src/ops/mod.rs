//! Operations that Burn does not have: each with its meaning in tensor operations, a plain-Rust
//! form for the CPU backend, and, where it exists, a WGSL kernel for wgpu.

mod adam;
mod batch_topk;
mod cube;
mod flex;
mod sparse;
mod topk;

pub use adam::{Adam, Moments, clip_scale};
pub use batch_topk::{BatchTopk, BatchTopkOps, batch_topk, batch_topk_reference};
pub use sparse::{SparseOps, sparse_decode, sparse_dot, sparse_matmul_t};
pub use topk::{TopkOps, topk, topk_reference};
