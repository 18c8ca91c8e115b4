//! Ranks of long vectors, ties averaged; see [`ops::rank`](crate::ops::rank()).

use super::host::Real;
use crate::ops::{ranks_f32, ranks_f64};

/// An element whose vectors can be ranked.
pub(super) trait Ranked: Real {
    /// Doubled average rank of each value. Values are finite; -0 equals 0.
    fn ranks(values: Vec<Self>) -> Vec<u32>;
}

impl Ranked for f32 {
    fn ranks(values: Vec<Self>) -> Vec<u32> {
        ranks_f32(&values)
    }
}

impl Ranked for f64 {
    fn ranks(values: Vec<Self>) -> Vec<u32> {
        ranks_f64(&values)
    }
}
