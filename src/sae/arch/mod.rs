//! One file per architecture.

mod topk;

pub use topk::{Latents, TopK};
