// JumpReLU and the number of active latents of every row: one workgroup takes one row.
//
// Values are compared as integers that are ordered as the floats are (-0 equal to +0), and NaN is
// told by its bits, so the result is the same bits on every device, whatever it does with
// subnormals and NaN.

const WG: u32 = 256u; // threads
const NAN: u32 = 0x7fc00000u; // the bits of the NaN that is written

@group(0) @binding(0) var<storage, read_write> z: array<u32>; // [n, d_sae], the bits of f32
@group(0) @binding(1) var<storage, read_write> threshold: array<u32>; // [d_sae], the bits of f32
@group(0) @binding(2) var<storage, read_write> sizes: array<u32>; // [2]: n, d_sae
@group(0) @binding(3) var<storage, read_write> f: array<u32>; // [n, d_sae], the bits of f32
@group(0) @binding(4) var<storage, read_write> l0: array<f32>; // [n]

var<workgroup> dims: vec2<u32>;
var<workgroup> count: atomic<u32>;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    if t == 0u {
        dims = vec2<u32>(sizes[0], sizes[1]);
        atomicStore(&count, 0u);
    }
    let size = workgroupUniformLoad(&dims);
    let row = group.y * groups.x + group.x;
    if row >= size.x {
        return;
    }
    let d_sae = size.y;
    let start = row * d_sae;

    var seen = 0u;
    for (var column = t; column < d_sae; column = column + WG) {
        let value = z[start + column];
        let bar = threshold[column];
        let unordered = is_nan(value) || is_nan(bar);
        let above = !unordered && key_of(value) > key_of(bar);
        f[start + column] = select(select(0u, value, above), NAN, unordered);
        seen = seen + select(0u, 1u, above);
    }
    atomicAdd(&count, seen);
    workgroupBarrier();
    if t == 0u {
        l0[row] = f32(atomicLoad(&count));
    }
}
