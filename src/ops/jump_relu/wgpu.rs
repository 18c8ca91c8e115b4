//! JumpReLU on wgpu: the launches of its kernels.

use burn::backend::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use super::{JumpReluOps, Pair, half, reference, reference_backward, reference_backward_l0, scale};
use crate::ops::cube;
use crate::wgsl;

impl JumpReluOps for CubeBackend {
    fn jump_relu(z: CubeTensor, threshold: CubeTensor, _bandwidth: f64) -> Pair<Self> {
        match cube::takes_rows(&z, &[&threshold]) {
            true => forward_wgsl(into_contiguous(z), into_contiguous(threshold)),
            false => reference::<Self>(z, threshold),
        }
    }

    fn jump_relu_backward(
        z: CubeTensor,
        threshold: CubeTensor,
        g_f: CubeTensor,
        g_l0: CubeTensor,
        bandwidth: f64,
    ) -> Pair<Self> {
        match cube::takes_rows(&z, &[&threshold, &g_f, &g_l0]) {
            true => backward_wgsl([z, threshold, g_l0], Some(g_f), bandwidth),
            false => reference_backward::<Self>(z, threshold, g_f, g_l0, bandwidth),
        }
    }

    fn jump_relu_backward_l0(
        z: CubeTensor,
        threshold: CubeTensor,
        g_l0: CubeTensor,
        bandwidth: f64,
    ) -> CubeTensor {
        match cube::takes_rows(&z, &[&threshold, &g_l0]) {
            true => backward_wgsl([z, threshold, g_l0], None, bandwidth).1,
            false => reference_backward_l0::<Self>(z, threshold, g_l0, bandwidth),
        }
    }
}

fn forward_wgsl(z: CubeTensor, threshold: CubeTensor) -> Pair<CubeBackend> {
    cube::assert_addressable("jump_relu", &[&z]);
    let [n, d] = cube::dims(&z);
    let f = cube::output(&z, [n, d], DType::F32);
    let l0 = cube::output(&z, [n], DType::F32);
    let buffers = vec![
        z.handle.clone(),
        threshold.handle,
        cube::sizes(&z, &[n, d]),
        f.handle.clone(),
        l0.handle.clone(),
    ];
    wgsl::launch(&z.client, wgsl::JUMP_RELU.kernel(&[]), n as u64, buffers);
    (f, l0)
}

/// `dz` (one unwritten element if `f` has no gradient) and `dθ`; `g_l0` `[n]`.
fn backward_wgsl(
    z_threshold_g_l0: [CubeTensor; 3],
    g_f: Option<CubeTensor>,
    bandwidth: f64,
) -> Pair<CubeBackend> {
    let [z, threshold, g_l0] = z_threshold_g_l0.map(into_contiguous);
    cube::assert_addressable("jump_relu_backward", &[&z]);
    let [n, d] = cube::dims(&z);
    let of_f = g_f.is_some();
    let dz = match of_f {
        true => cube::output(&z, [n, d], DType::F32),
        false => cube::output(&z, [1, 1], DType::F32),
    };
    let g_f = g_f.map_or_else(|| cube::output(&z, [1, 1], DType::F32), into_contiguous);
    let shares = cube::output(&z, [n.div_ceil(cube::ROWS), d], DType::F32);
    let bits = |x: f32| x.to_bits() as usize;
    let sizes = [n, d, bits(half(bandwidth)), bits(scale(bandwidth))];
    let buffers = vec![
        z.handle.clone(),
        threshold.handle,
        g_f.handle,
        g_l0.handle,
        cube::sizes(&z, &sizes),
        dz.handle.clone(),
        shares.handle.clone(),
    ];
    let kernel = wgsl::JUMP_RELU_BACKWARD.kernel(&[("OF_F", of_f.into())]);
    wgsl::launch(&z.client, kernel, cube::chunk_groups(n, d), buffers);
    (dz, cube::sum_chunks(&shares))
}
