//! One file per family: its configuration, its weight names, and the order of its blocks.

pub mod attn_only;
pub mod bert;
pub mod llama;
