// Sparse rows times a matrix: one workgroup takes one row of the result, a thread a column of it.
// The row's entries are staged WG at a time; every sum is in their order.
//
// An entry whose value is zero or whose index is not below d_sae is passed over.

const WG: u32 = 128u; // threads, and entries staged at once
const NONE: u32 = 0xffffffffu;

@group(0) @binding(0) var<storage, read_write> values: array<f32>; // [n, k]
@group(0) @binding(1) var<storage, read_write> indices: array<i32>; // [n, k]
@group(0) @binding(2) var<storage, read_write> w: array<f32>; // [d_sae, d]
@group(0) @binding(3) var<storage, read_write> sizes: array<u32>; // [4]: n, k, d_sae, d
@group(0) @binding(4) var<storage, read_write> y: array<f32>; // [n, d]

var<workgroup> dims: vec4<u32>;
var<workgroup> value: array<f32, WG>;
var<workgroup> at: array<u32, WG>; // where the entry's row of w begins, or NONE

// By its bits: a comparison may hold NaN for zero.
fn is_zero(x: f32) -> bool {
    return (bitcast<u32>(x) << 1u) == 0u;
}

fn stage(t: u32, entry: u32, d_sae: u32, d: u32) {
    let f = u32(indices[entry]);
    value[t] = values[entry];
    at[t] = select(f * d, NONE, f >= d_sae || is_zero(value[t]));
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
    let d = size.w;
    for (var column = 0u; column < d; column = column + WG) {
        let c = column + t;
        var sum = 0.0;
        for (var first = 0u; first < k; first = first + WG) {
            let count = min(WG, k - first);
            if t < count {
                stage(t, row * k + first + t, size.z, d);
            }
            workgroupBarrier();
            for (var j = 0u; c < d && j < count; j = j + 1u) {
                if at[j] != NONE {
                    sum = sum + value[j] * w[at[j] + c];
                }
            }
            workgroupBarrier();
        }
        if c < d {
            y[row * d + c] = sum;
        }
    }
}
