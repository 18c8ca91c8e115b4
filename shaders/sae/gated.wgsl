// The gated activation and the number of active latents of every row: one workgroup takes one row.

const WG: u32 = 256u; // threads
const NAN: u32 = 0x7fc00000u; // the bits of the NaN that is written

@group(0) @binding(0) var<storage, read_write> z: array<f32>; // [n, d_sae]
@group(0) @binding(1) var<storage, read_write> latent: array<f32>; // [3, d_sae]: b_gate, b_mag, exp(r_mag)
@group(0) @binding(2) var<storage, read_write> sizes: array<u32>; // [2]: n, d_sae
@group(0) @binding(3) var<storage, read_write> f: array<u32>; // [n, d_sae], the bits of f32
@group(0) @binding(4) var<storage, read_write> gate: array<u32>; // [n, d_sae], the bits of f32
@group(0) @binding(5) var<storage, read_write> l0: array<f32>; // [n]

var<workgroup> dims: vec2<u32>;
var<workgroup> count: atomic<u32>;

fn is_nan(v: f32) -> bool {
    return (bitcast<u32>(v) & 0x7fffffffu) > 0x7f800000u;
}

// The bits of v where `keep` holds, of NaN where `nan` holds, of 0 elsewhere.
fn kept(v: f32, keep: bool, nan: bool) -> u32 {
    return select(select(0u, bitcast<u32>(v), keep), NAN, nan);
}

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
        let pi = value + latent[column];
        let magnitude = value * latent[2u * d_sae + column] + latent[d_sae + column];
        let pi_nan = is_nan(pi);
        let nan = pi_nan || is_nan(magnitude);
        let open = pi > 0.0 && magnitude > 0.0 && !nan;
        f[start + column] = kept(magnitude, open, nan);
        gate[start + column] = kept(pi, pi > 0.0, pi_nan);
        seen = seen + select(0u, 1u, open);
    }
    atomicAdd(&count, seen);
    workgroupBarrier();
    if t == 0u {
        l0[row] = f32(atomicLoad(&count));
    }
}
