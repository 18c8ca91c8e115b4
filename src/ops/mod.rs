//! ops.

mod adam;
mod sparse;

pub use adam::{Adam, Moments, clip_scale};
pub use sparse::{sparse_decode, sparse_dot, sparse_matmul_t};
