//! Operations that Burn does not have: each with its meaning in tensor operations, a plain-Rust
//! form for the CPU backend, and, where it exists, a WGSL kernel for wgpu.

mod adam;
mod autodiff;
mod cube;
mod flex;
mod gated;
mod jump_relu;
mod masks;
mod sparse;
mod topk;

pub use adam::{Adam, Moments, clip_scale};
pub use gated::{GatedOps, GatedOutputs, gated, gated_backward};
pub use jump_relu::{JumpReluOps, Ste, jump_relu, jump_relu_backward};
pub use sparse::{SparseOps, sparse_decode, sparse_dot, sparse_matmul_t};
pub use topk::{TopkOps, topk, topk_reference};
