//! wgsl.
