// The entries of g wᵀ at sparse places: one workgroup takes one row, LANES threads one product, the
// sum of which they add up in a fixed order. An entry whose index is not below d_sae gives 0.

const WG: u32 = 256u; // threads
const LANES: u32 = 32u; // threads of one product

@group(0) @binding(0) var<storage, read_write> g: array<f32>; // [n, d]
@group(0) @binding(1) var<storage, read_write> w: array<f32>; // [d_sae, d]
@group(0) @binding(2) var<storage, read_write> indices: array<i32>; // [n, k]
@group(0) @binding(3) var<storage, read_write> sizes: array<u32>; // [4]: n, k, d_sae, d
@group(0) @binding(4) var<storage, read_write> s: array<f32>; // [n, k]

var<workgroup> dims: vec4<u32>;
var<workgroup> sums: array<f32, WG>;

// The part of g[row] · w[f] that falls to one lane.
fn part(row: u32, f: u32, d: u32, lane: u32) -> f32 {
    var sum = 0.0;
    for (var c = lane; c < d; c = c + LANES) {
        sum = sum + g[row * d + c] * w[f * d + c];
    }
    return sum;
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    if t == 0u {
        dims = vec4<u32>(sizes[0], sizes[1], sizes[2], sizes[3]);
    }
    let size = workgroupUniformLoad(&dims);
    let row = group.y * groups.x + group.x;
    if row >= size.x {
        return;
    }
    let k = size.y;
    let lane = t % LANES;
    for (var first = 0u; first < k; first = first + WG / LANES) {
        let j = first + t / LANES;
        sums[t] = 0.0;
        if j < k {
            let f = u32(indices[row * k + j]);
            if f < size.z {
                sums[t] = part(row, f, size.w, lane);
            }
        }
        workgroupBarrier();
        for (var step = LANES / 2u; step > 0u; step = step / 2u) {
            if lane < step {
                sums[t] = sums[t] + sums[t + step];
            }
            workgroupBarrier();
        }
        if lane == 0u && j < k {
            s[row * k + j] = sums[t];
        }
    }
}
