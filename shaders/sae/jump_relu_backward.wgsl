// The gradients of JumpReLU and of its count, first stage: one thread takes one column and walks a
// chunk of ROWS rows, writes dz and leaves the chunk's share of the gradient of the threshold.
//
// Groups are numbered along a chunk first: group = chunk * blocks of columns + block.

const WG: u32 = 256u; // threads, one a column
const ROWS: u32 = 64u; // rows of a chunk
const NAN: u32 = 0x7fc00000u; // the bits of the NaN that is written
const OF_F: u32 = 1u; // 1: f has a gradient; 0: only l0 has, and g_f and dz are not touched

@group(0) @binding(0) var<storage, read_write> z: array<u32>; // [n, d_sae], the bits of f32
@group(0) @binding(1) var<storage, read_write> threshold: array<u32>; // [d_sae], the bits of f32
@group(0) @binding(2) var<storage, read_write> g_f: array<u32>; // [n, d_sae], the bits of f32
@group(0) @binding(3) var<storage, read_write> g_l0: array<f32>; // [n]
@group(0) @binding(4) var<storage, read_write> sizes: array<u32>; // [4]: n, d_sae, the bits of half the bandwidth, of -1/bandwidth
@group(0) @binding(5) var<storage, read_write> dz: array<u32>; // [n, d_sae], the bits of f32
@group(0) @binding(6) var<storage, read_write> shares: array<u32>; // [chunks, d_sae], the bits of f32

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
    let half = bitcast<f32>(sizes[2]);
    let bar = threshold[column];
    let theta = bitcast<f32>(bar);

    var sum = 0.0;
    var unordered_rows = 0u;
    for (var row = first; row < min(first + ROWS, n); row = row + 1u) {
        let at = row * d_sae + column;
        let value = z[at];
        let unordered = is_nan(value) || is_nan(bar);
        let near = abs(bitcast<f32>(value) - theta) < half;
        var term = g_l0[row];
        if OF_F == 1u {
            let g = g_f[at];
            let above = key_of(value) > key_of(bar);
            dz[at] = select(select(0u, g, above), NAN, unordered);
            term = theta * bitcast<f32>(g) + term;
        }
        if near && !unordered {
            sum = sum + term;
        }
        unordered_rows = unordered_rows + select(0u, 1u, unordered);
    }
    let share = bitcast<u32>(sum * bitcast<f32>(sizes[3]));
    shares[chunk * d_sae + column] = select(share, NAN, unordered_rows > 0u);
}
