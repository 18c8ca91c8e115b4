//! Operations that Burn does not have: each with its meaning in tensor operations, a plain-Rust
//! form for the CPU backend, and a WGSL kernel for wgpu.

mod adam;
mod adam_rows;
mod by_latent;
mod cube;
mod encode_topk;
mod flex;
mod simd;
mod sparse_decode;
mod sparse_matmul_t;
mod topk;

pub use adam::{Adam, Moments, clip_scale};
pub(crate) use adam_rows::take;
pub use adam_rows::{AdamRows, AdamRowsOps, adam_rows, grad_squares};
pub use by_latent::{ByLatent, ByLatentOps, by_latent, by_latent_reference, rows_of_entries};
pub use encode_topk::{Encode, EncodeTopkOps, encode_topk};
pub use sparse_decode::{DENSE_FROM, SparseDecodeOps, sparse_decode, sparse_dot};
pub use sparse_matmul_t::{LatentSums, SparseMatmulTOps, sparse_matmul_t};
pub use topk::{TopkOps, topk, topk_reference};
