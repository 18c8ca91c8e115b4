// The gradients of the gated activation, first stage: one thread takes one column and walks a chunk
// of ROWS rows, writes dz and leaves the chunk's share of the gradients of the latent's parameters.
//
// Groups are numbered along a chunk first: group = chunk * blocks of columns + block.

const WG: u32 = 256u; // threads, one a column
const ROWS: u32 = 64u; // rows of a chunk
const NAN: u32 = 0x7fc00000u; // the bits of the NaN that is written
const OF_F: u32 = 1u; // 1: f has a gradient; 0: g_f and all of latent but b_gate are not touched
const OF_GATE: u32 = 1u; // 1: gate has a gradient; 0: g_gate is not touched

@group(0) @binding(0) var<storage, read_write> z: array<f32>; // [n, d_sae]
@group(0) @binding(1) var<storage, read_write> latent: array<f32>; // [3, d_sae]: b_gate, b_mag, exp(r_mag)
@group(0) @binding(2) var<storage, read_write> g_f: array<f32>; // [n, d_sae]
@group(0) @binding(3) var<storage, read_write> g_gate: array<f32>; // [n, d_sae]
@group(0) @binding(4) var<storage, read_write> sizes: array<u32>; // [2]: n, d_sae
@group(0) @binding(5) var<storage, read_write> dz: array<u32>; // [n, d_sae], the bits of f32
@group(0) @binding(6) var<storage, read_write> shares: array<u32>; // [chunks, 3, d_sae], the bits of f32: b_gate, b_mag, r_mag

fn is_nan(v: f32) -> bool {
    return (bitcast<u32>(v) & 0x7fffffffu) > 0x7f800000u;
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let n = sizes[0];
    let d_sae = sizes[1];
    let blocks = (d_sae + WG - 1u) / WG;
    let number = group.y * groups.x + group.x;
    let chunk = number / blocks;
    let column = (number % blocks) * WG + t;
    let first = chunk * ROWS;
    if first >= n || column >= d_sae {
        return;
    }
    let b_gate = latent[column];
    var b_mag = 0.0;
    var scale = 0.0;
    if OF_F == 1u {
        b_mag = latent[d_sae + column];
        scale = latent[2u * d_sae + column];
    }

    var of_b_gate = 0.0;
    var of_b_mag = 0.0;
    var of_r_mag = 0.0;
    var gate_nans = 0u;
    var f_nans = 0u;
    for (var row = first; row < min(first + ROWS, n); row = row + 1u) {
        let at = row * d_sae + column;
        let value = z[at];
        let pi = value + b_gate;
        let magnitude = value * scale + b_mag;
        let pi_nan = is_nan(pi);
        let f_nan = OF_F == 1u && (pi_nan || is_nan(magnitude));
        var g = 0.0;
        if OF_F == 1u && pi > 0.0 && magnitude > 0.0 && !f_nan {
            let g_here = g_f[at];
            of_b_mag = of_b_mag + g_here;
            g = g_here * scale;
            of_r_mag = of_r_mag + g * value;
        }
        if OF_GATE == 1u && pi > 0.0 && !pi_nan {
            let g_here = g_gate[at];
            of_b_gate = of_b_gate + g_here;
            g = g + g_here;
        }
        dz[at] = select(bitcast<u32>(g), NAN, f_nan || pi_nan);
        gate_nans = gate_nans + select(0u, OF_GATE, pi_nan);
        f_nans = f_nans + select(0u, 1u, f_nan);
    }
    let at = chunk * 3u * d_sae + column;
    shares[at] = select(bitcast<u32>(of_b_gate), NAN, gate_nans > 0u);
    shares[at + d_sae] = select(bitcast<u32>(of_b_mag), NAN, f_nans > 0u);
    shares[at + 2u * d_sae] = select(bitcast<u32>(of_r_mag), NAN, f_nans > 0u);
}
