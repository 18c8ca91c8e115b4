// Sums over the entries of each latent: one workgroup takes one latent, a thread a column of its row.
// The entries are staged WG at a time; every sum is in their order.
//
// An entry whose value is zero or whose row is not below n is passed over.

const WG: u32 = 128u; // threads, and entries staged at once
const NONE: u32 = 0xffffffffu;

@group(0) @binding(0) var<storage, read_write> starts: array<i32>; // [d_sae + 1]
@group(0) @binding(1) var<storage, read_write> rows: array<i32>; // [e]
@group(0) @binding(2) var<storage, read_write> values: array<f32>; // [e]
@group(0) @binding(3) var<storage, read_write> g: array<f32>; // [n, d]
@group(0) @binding(4) var<storage, read_write> sizes: array<u32>; // [4]: d_sae, e, n, d
@group(0) @binding(5) var<storage, read_write> r: array<f32>; // [d_sae, d]

var<workgroup> bounds: vec3<u32>; // the latent's first entry, the one behind its last, d
var<workgroup> value: array<f32, WG>;
var<workgroup> at: array<u32, WG>; // where the entry's row of g begins, or NONE

// By its bits: a comparison may hold NaN for zero.
fn is_zero(x: f32) -> bool {
    return (bitcast<u32>(x) << 1u) == 0u;
}

fn stage(t: u32, entry: u32) {
    let row = u32(rows[entry]);
    value[t] = values[entry];
    at[t] = select(row * sizes[3], NONE, row >= sizes[2] || is_zero(value[t]));
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let f = group.y * groups.x + group.x;
    if t == 0u {
        bounds = vec3<u32>(0u);
        if f < sizes[0] {
            let e = sizes[1];
            bounds = vec3<u32>(min(u32(starts[f]), e), min(u32(starts[f + 1u]), e), sizes[3]);
        }
    }
    let bound = workgroupUniformLoad(&bounds);
    let d = bound.z;
    for (var column = 0u; column < d; column = column + WG) {
        let c = column + t;
        var sum = 0.0;
        for (var first = bound.x; first < bound.y; first = first + WG) {
            let count = min(WG, bound.y - first);
            if t < count {
                stage(t, first + t);
            }
            workgroupBarrier();
            for (var j = 0u; c < d && j < count; j = j + 1u) {
                if at[j] != NONE {
                    sum = sum + value[j] * g[at[j] + c];
                }
            }
            workgroupBarrier();
        }
        if c < d {
            r[f * d + c] = sum;
        }
    }
}
