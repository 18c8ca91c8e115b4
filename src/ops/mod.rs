//! Operations that Burn does not have: each with its meaning in tensor operations, a plain-Rust
//! form for the CPU backend, and a WGSL kernel for wgpu.

mod adam;
mod adam_rows;
mod autodiff;
mod batch_topk;
mod by_latent;
mod cross_sums;
mod cube;
mod encode_topk;
mod flex;
mod gated;
mod jump_relu;
mod masks;
mod nearest;
mod pair_sums;
mod radix;
mod rank;
mod simd;
mod sparse_decode;
mod sparse_matmul_t;
mod topk;

pub use adam::{Adam, Moments, clip_scale};
pub(crate) use adam_rows::take;
pub use adam_rows::{AdamRows, AdamRowsOps, adam_rows, grad_squares};
pub use batch_topk::{BatchTopk, BatchTopkOps, batch_topk, batch_topk_reference};
pub use by_latent::{ByLatent, ByLatentOps, by_latent, by_latent_reference, rows_of_entries};
pub use cross_sums::{CrossMoments, CrossSums, CrossSumsOps, cross_sums, cross_sums_reference};
pub use encode_topk::{CHUNK, COLUMNS, Encode, EncodeTopkOps, encode_topk};
pub use gated::{GatedOps, GatedOutputs, gated, gated_backward};
pub use jump_relu::{JumpReluOps, Ste, jump_relu, jump_relu_backward};
pub use nearest::{Nearest, NearestBy, nearest};
pub use pair_sums::{
    PairForm, PairSums, PairSumsOps, PairTile, Pairs, pair_sums, pair_sums_reference,
};
pub use rank::{RankOps, rank, rank_reference};
pub(crate) use rank::{ranks_f32, ranks_f64};
pub(crate) use simd::wide;
pub use sparse_decode::{SparseDecodeOps, sparse_decode, sparse_dot};
pub use sparse_matmul_t::{DENSE_FROM, LatentSums, SparseMatmulTOps, sparse_matmul_t};
pub use topk::{TopkOps, topk, topk_reference};
