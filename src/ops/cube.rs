//! What the wgpu side of every op needs: may it launch WGSL, where does it write, what are its sizes.

use burn::backend::{DType, Shape, TensorMetadata};
use burn_cubecl::tensor::CubeTensor;
use cubecl::server::Handle;

use crate::wgsl;

/// Whether the runtime compiles WGSL and all of these are f32; otherwise an op runs its reference.
pub(super) fn takes_wgsl(floats: &[&CubeTensor]) -> bool {
    let fits = |x: &&CubeTensor| x.client.name() == wgsl::RUNTIME && x.dtype == DType::F32;
    floats.iter().all(fits)
}

/// A new tensor beside `like`, its elements (of four bytes) not initialised.
pub(super) fn output<const D: usize>(
    like: &CubeTensor,
    shape: [usize; D],
    dtype: DType,
) -> CubeTensor {
    let handle = like
        .client
        .empty(shape.iter().product::<usize>() * size_of::<u32>());
    let shape = Shape::new(shape);
    CubeTensor::new_contiguous(
        like.client.clone(),
        like.device.clone(),
        shape,
        handle,
        dtype,
    )
}

/// Sizes as a buffer of u32 beside `like`.
pub(super) fn sizes(like: &CubeTensor, values: &[usize]) -> Handle {
    let values: Vec<u32> = values.iter().map(|&v| v as u32).collect();
    like.client.create_from_slice(bytemuck::cast_slice(&values))
}

/// The two sides of a matrix.
pub(super) fn dims(x: &CubeTensor) -> [usize; 2] {
    let shape = x.shape();
    [shape[0], shape[1]]
}
