//! Ranks of long vectors, ties averaged; see [`ops::rank`](crate::ops::rank()).

use burn::tensor::{DType, Tensor, TensorData};

use super::host::{Real, is_here};
use crate::device;
use crate::ops::{rank, ranks_f32, ranks_f64};

/// Most values ranked on a GPU: what one buffer of WebGPU's least limits holds.
const MOST: usize = 1 << 25;

/// An element whose vectors can be ranked.
pub(super) trait Ranked: Real {
    /// Doubled average rank of each value. Values are finite; -0 equals 0.
    fn ranks(values: Vec<Self>) -> Vec<u32>;

    /// [`Ranked::ranks`], on the device that `like` is on if that is a GPU.
    async fn ranks_beside(values: Vec<Self>, _like: &Tensor<2>) -> Result<Vec<u32>, device::Error> {
        Ok(Self::ranks(values))
    }
}

impl Ranked for f32 {
    fn ranks(values: Vec<Self>) -> Vec<u32> {
        ranks_f32(&values)
    }

    async fn ranks_beside(values: Vec<Self>, like: &Tensor<2>) -> Result<Vec<u32>, device::Error> {
        let count = values.len();
        if count > MOST || is_here(like) {
            return Ok(Self::ranks(values));
        }
        let on = like.device().inner();
        let values = Tensor::<1>::from_data(TensorData::new(values, [count]), (&on, DType::F32));
        let ranks = device::read_int(rank(values)).await?;
        Ok(ranks.into_iter().map(|rank| rank as u32).collect())
    }
}

impl Ranked for f64 {
    fn ranks(values: Vec<Self>) -> Vec<u32> {
        ranks_f64(&values)
    }
}
