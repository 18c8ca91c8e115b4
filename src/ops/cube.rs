//! What the wgpu side of every op needs: may it launch WGSL, where does it write, what are its sizes.

use burn::backend::{DType, Shape, TensorMetadata};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::server::Handle;

use crate::wgsl;

/// Whether the runtime compiles WGSL and all of these are f32; otherwise an op runs its reference.
pub(super) fn takes_wgsl(floats: &[&CubeTensor]) -> bool {
    all_are(DType::F32, floats)
}

/// As [`takes_wgsl`], for i32.
pub(super) fn takes_wgsl_ints(ints: &[&CubeTensor]) -> bool {
    all_are(DType::I32, ints)
}

fn all_are(dtype: DType, tensors: &[&CubeTensor]) -> bool {
    let fits = |x: &&CubeTensor| x.client.name() == wgsl::RUNTIME && x.dtype == dtype;
    tensors.iter().all(fits)
}

/// # Panics
/// If a tensor has more elements than a shader, which counts in u32, can tell apart.
pub(super) fn assert_addressable(op: &str, tensors: &[&CubeTensor]) {
    for shape in tensors.iter().map(|x| x.shape()) {
        let fits = shape.num_elements() <= u32::MAX as usize;
        assert!(fits, "{op}: {shape:?} has over 2^32 elements");
    }
}

/// The tensor, contiguous and in a buffer that may be written: its own where nothing else holds it.
pub(super) fn owned(x: CubeTensor) -> CubeTensor {
    let x = into_contiguous(x);
    match x.can_mut() {
        true => x,
        false => x.copy(),
    }
}

/// As [`takes_wgsl`], for an op over a matrix: there must also be something in it.
pub(super) fn takes_rows(x: &CubeTensor, others: &[&CubeTensor]) -> bool {
    let [n, d] = dims(x);
    n * d > 0 && takes_wgsl(&[x]) && takes_wgsl(others)
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

/// Rows that one thread of a backward kernel adds up: `ROWS` in those shaders.
pub(super) const ROWS: usize = 64;
/// Columns of one workgroup: `WG` in those shaders.
const COLUMNS: usize = 256;

/// The workgroups of a kernel that walks `n` rows of `d` columns in chunks of [`ROWS`] rows.
pub(super) fn chunk_groups(n: usize, d: usize) -> u64 {
    n.div_ceil(ROWS) as u64 * d.div_ceil(COLUMNS) as u64
}

/// The sums of the columns of `partial` `[chunks, m]`, added in the order of the chunks: `[m]`.
pub(super) fn sum_chunks(partial: &CubeTensor) -> CubeTensor {
    let [chunks, m] = dims(partial);
    let sums = output(partial, [m], DType::F32);
    let buffers = vec![
        partial.handle.clone(),
        sizes(partial, &[chunks, m]),
        sums.handle.clone(),
    ];
    let groups = m.div_ceil(COLUMNS) as u64;
    wgsl::launch(
        &partial.client,
        wgsl::CHUNK_SUMS.kernel(&[]),
        groups,
        buffers,
    );
    sums
}
