//! One file per architecture.

mod topk;

pub(super) use topk::unit_rows;
pub use topk::{Latents, TopK};
