//! A stable radix sort on wgpu.

use burn::backend::{DType, TensorMetadata};
use burn_cubecl::tensor::CubeTensor;
use cubecl::server::Handle;

use super::cube;
use crate::wgsl;

/// Keys and, for each, the place it came from.
type Order = (Handle, CubeTensor);

/// The keys `[e]` in rising order, equal ones in the order in which they stand, and the place each
/// came from `[e]`, i32. Keys above `most` count as `most`. There must be one.
pub(super) fn sort(keys: &CubeTensor, most: usize) -> Order {
    let e = keys.shape()[0];
    let made = || cube::output(keys, [e], DType::I32);
    let mut from = (keys.handle.clone(), made()); // the first pass reads no places
    let mut to = (made().handle, made());
    for shift in (0..bits(most)).step_by(8) {
        pass(keys, &from, &to, [e, most, shift]);
        std::mem::swap(&mut from, &mut to);
        if shift == 0 {
            to.0 = made().handle; // the given keys are not written
        }
    }
    from
}

/// Bits of the largest key. At least one.
fn bits(most: usize) -> usize {
    (usize::BITS - most.leading_zeros()).max(1) as usize
}

/// Values of a digit, and threads of a workgroup.
pub(super) const DIGITS: usize = 256;
/// From this many keys on a workgroup takes more of them: the counts of all workgroups are summed by one.
const MANY: usize = 1 << 20;

/// Keys that one workgroup counts and places.
fn block(e: usize) -> usize {
    if e < MANY { 1024 } else { 8192 }
}

/// Sorts by the digit from bit `shift` on, stably.
fn pass(on: &CubeTensor, from: &Order, to: &Order, [e, most, shift]: [usize; 3]) {
    let blocks = e.div_ceil(block(e));
    let counts = cube::output(on, [DIGITS * blocks], DType::U32).handle;
    let sizes = cube::sizes(on, &[e, most, shift, blocks]);
    let launch = |shader: &'static wgsl::Shader, constants: &[_], groups, buffers| {
        wgsl::launch(&on.client, shader.kernel(constants), groups, buffers);
    };
    let block = [("BLOCK", block(e) as u32)];
    let buffers = vec![from.0.clone(), sizes.clone(), counts.clone()];
    launch(&wgsl::BY_LATENT_COUNT, &block, blocks as u64, buffers);
    let length = cube::sizes(on, &[DIGITS * blocks]);
    launch(&wgsl::BY_LATENT_SCAN, &[], 1, vec![counts.clone(), length]);
    let buffers = vec![
        from.0.clone(),
        from.1.handle.clone(),
        counts,
        sizes,
        to.0.clone(),
        to.1.handle.clone(),
    ];
    launch(&wgsl::BY_LATENT_PLACE, &block, blocks as u64, buffers);
}
