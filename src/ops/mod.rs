//! ops.

mod adam;

pub use adam::{Adam, Moments, clip_scale};
