// The squared length of each row of a gradient: one workgroup takes one latent, a thread every WG-th
// column. The row is summed up from the latent's entries, in their order.
//
// UNIT: what lies along the unit row of w does not count. It is taken off before the squares are
// summed up: the first ROW columns are kept in workgroup memory in between, and those behind are
// summed up twice.
//
// An entry whose value is zero or whose row is not below n is passed over.

const WG: u32 = 128u; // threads, and entries staged at once
const UNIT: u32 = 0u;
const ROW: u32 = 3072u; // a multiple of WG
const NONE: u32 = 0xffffffffu;

@group(0) @binding(0) var<storage, read_write> w: array<f32>; // [d_sae, d], if UNIT
@group(0) @binding(1) var<storage, read_write> starts: array<i32>; // [d_sae + 1]
@group(0) @binding(2) var<storage, read_write> rows: array<i32>; // [e]
@group(0) @binding(3) var<storage, read_write> values: array<f32>; // [e]
@group(0) @binding(4) var<storage, read_write> g: array<f32>; // [n, d]
@group(0) @binding(5) var<storage, read_write> sizes: array<u32>; // [4]: d_sae, e, n, d
@group(0) @binding(6) var<storage, read_write> squares: array<f32>; // [d_sae]

var<workgroup> bounds: vec3<u32>; // the latent's first entry, the one behind its last, d
var<workgroup> value: array<f32, WG>;
var<workgroup> at: array<u32, WG>; // where the entry's row of g begins, or NONE
var<workgroup> sums: array<f32, WG>;
var<workgroup> grad: array<f32, ROW>; // each thread reads its own columns only

// By its bits: a comparison may hold NaN for zero.
fn is_zero(x: f32) -> bool {
    return (bitcast<u32>(x) << 1u) == 0u;
}

fn stage(t: u32, entry: u32) {
    let row = u32(rows[entry]);
    value[t] = values[entry];
    at[t] = select(row * sizes[3], NONE, row >= sizes[2] || is_zero(value[t]));
}

// Column c of the gradient's row; all threads call it together.
fn gradient(t: u32, c: u32) -> f32 {
    let bound = workgroupUniformLoad(&bounds);
    var sum = 0.0;
    for (var first = bound.x; first < bound.y; first = first + WG) {
        let count = min(WG, bound.y - first);
        if t < count {
            stage(t, first + t);
        }
        workgroupBarrier();
        for (var j = 0u; c < bound.z && j < count; j = j + 1u) {
            if at[j] != NONE {
                sum = sum + value[j] * g[at[j] + c];
            }
        }
        workgroupBarrier();
    }
    return sum;
}

// The sum of every thread's x, in a fixed order; all threads call it together.
fn total(t: u32, x: f32) -> f32 {
    sums[t] = x;
    workgroupBarrier();
    for (var step = WG / 2u; step > 0u; step = step / 2u) {
        if t < step {
            sums[t] = sums[t] + sums[t + step];
        }
        workgroupBarrier();
    }
    return workgroupUniformLoad(&sums[0]);
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

    var along = 0.0;
    if UNIT == 1u && bound.x < bound.y {
        for (var column = 0u; column < d; column = column + WG) {
            let c = column + t;
            let sum = gradient(t, c);
            if column < ROW {
                grad[c] = sum;
            }
            if c < d {
                along = along + sum * w[f * d + c];
            }
        }
        along = total(t, along);
    }

    var square = 0.0;
    if bound.x < bound.y {
        for (var column = 0u; column < d; column = column + WG) {
            let c = column + t;
            var sum = 0.0;
            if UNIT == 1u && column < ROW {
                sum = grad[c];
            } else {
                sum = gradient(t, c);
            }
            if UNIT == 1u && c < d {
                sum = sum - along * w[f * d + c];
            }
            if c < d {
                square = square + sum * sum;
            }
        }
    }
    square = total(t, square);
    if t == 0u && f < sizes[0] {
        squares[f] = square;
    }
}
