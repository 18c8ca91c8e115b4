//! The gated activation on wgpu: the launches of its kernels.

use burn::backend::DType;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::Slice;
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use super::{Four, GatedOps, GatedOutputs, Three, Vectors, reference, reference_backward};
use crate::ops::cube;
use crate::wgsl;

impl GatedOps for CubeBackend {
    fn gated(
        z: CubeTensor,
        r_mag: CubeTensor,
        b_gate: CubeTensor,
        b_mag: CubeTensor,
    ) -> Three<Self> {
        match cube::takes_rows(&z, &[&r_mag, &b_gate, &b_mag]) {
            true => forward_wgsl(into_contiguous(z), latents([r_mag, b_gate, b_mag])),
            false => reference::<Self>(z, [r_mag, b_gate, b_mag]),
        }
    }

    fn gated_backward(
        z: CubeTensor,
        r_mag: CubeTensor,
        b_gate: CubeTensor,
        b_mag: CubeTensor,
        g_f: CubeTensor,
        g_gate: CubeTensor,
        of: GatedOutputs,
    ) -> Four<Self> {
        let vectors = [r_mag, b_gate, b_mag];
        let [r_mag, b_gate, b_mag] = &vectors;
        match cube::takes_rows(&z, &[r_mag, b_gate, b_mag, &g_f, &g_gate]) {
            true => backward_wgsl(into_contiguous(z), latents(vectors), [g_f, g_gate], of),
            false => reference_backward::<Self>(z, vectors, [g_f, g_gate], of),
        }
    }
}

/// `[3 · d_sae]`: `b_gate`, `b_mag`, `exp(r_mag)`, so that the kernels bind few enough buffers.
fn latents([r_mag, b_gate, b_mag]: Vectors<CubeBackend>) -> CubeTensor {
    let scale = CubeBackend::float_exp(r_mag);
    into_contiguous(CubeBackend::float_cat(vec![b_gate, b_mag, scale], 0))
}

fn forward_wgsl(z: CubeTensor, latents: CubeTensor) -> Three<CubeBackend> {
    cube::assert_addressable("gated", &[&z]);
    let [n, d] = cube::dims(&z);
    let [f, gate] = [(); 2].map(|()| cube::output(&z, [n, d], DType::F32));
    let l0 = cube::output(&z, [n], DType::F32);
    let buffers = vec![
        z.handle.clone(),
        latents.handle,
        cube::sizes(&z, &[n, d]),
        f.handle.clone(),
        gate.handle.clone(),
        l0.handle.clone(),
    ];
    wgsl::launch(&z.client, wgsl::GATED.kernel(&[]), n as u64, buffers);
    (f, gate, l0)
}

fn backward_wgsl(
    z: CubeTensor,
    latents: CubeTensor,
    [g_f, g_gate]: [CubeTensor; 2],
    of: GatedOutputs,
) -> Four<CubeBackend> {
    cube::assert_addressable("gated_backward", &[&z]);
    let [n, d] = cube::dims(&z);
    let unread = |wanted: bool, g: CubeTensor| match wanted {
        true => into_contiguous(g),
        false => cube::output(&z, [1], DType::F32),
    };
    let (g_f, g_gate) = (unread(of.f(), g_f), unread(of.gate(), g_gate));
    let dz = cube::output(&z, [n, d], DType::F32);
    let shares = cube::output(&z, [n.div_ceil(cube::ROWS), 3 * d], DType::F32);
    let buffers = vec![
        z.handle.clone(),
        latents.handle,
        g_f.handle,
        g_gate.handle,
        cube::sizes(&z, &[n, d]),
        dz.handle.clone(),
        shares.handle.clone(),
    ];
    let flags = [("OF_F", of.f().into()), ("OF_GATE", of.gate().into())];
    let kernel = wgsl::GATED_BACKWARD.kernel(&flags);
    wgsl::launch(&z.client, kernel, cube::chunk_groups(n, d), buffers);
    let sums = cube::sum_chunks(&shares);
    let of_vector =
        |i: usize| CubeBackend::float_slice(sums.clone(), &[Slice::from(i * d..(i + 1) * d)]);
    (dz, of_vector(2), of_vector(0), of_vector(1))
}
