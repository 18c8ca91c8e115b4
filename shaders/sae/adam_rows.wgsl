// A step of Adam on the rows of a weight, in place: one workgroup takes one latent, a thread every
// WG-th column. The gradient's row is summed up from the latent's entries, in their order.
//
// UNIT: rows are directions. The gradient's part along the row is taken off, which takes the whole
// row before any column can move: its first ROW columns are kept in workgroup memory in between, and
// those behind are summed up twice. After the step the row is brought back to length 1.
// LAZY: rows without an entry are left alone.
//
// An entry whose value is zero or whose row is not below n is passed over.

const WG: u32 = 128u; // threads, and entries staged at once
const UNIT: u32 = 0u;
const LAZY: u32 = 0u;
const ROW: u32 = 3072u; // a multiple of WG
const NONE: u32 = 0xffffffffu;
const SHORTEST: f32 = 1e-12; // a row is never divided by less

@group(0) @binding(0) var<storage, read_write> w: array<f32>; // [d_sae, d]
@group(0) @binding(1) var<storage, read_write> m: array<f32>; // [d_sae, d]
@group(0) @binding(2) var<storage, read_write> v: array<f32>; // [d_sae, d]
@group(0) @binding(3) var<storage, read_write> starts: array<i32>; // [d_sae + 1]
@group(0) @binding(4) var<storage, read_write> rows: array<i32>; // [e]
@group(0) @binding(5) var<storage, read_write> values: array<f32>; // [e]
@group(0) @binding(6) var<storage, read_write> g: array<f32>; // [n, d]
@group(0) @binding(7) var<storage, read_write> settings: array<f32>; // [11]: those of Rule, d_sae, d, scale

struct Rule {
    beta1: f32,
    new1: f32,
    beta2: f32,
    new2: f32,
    rate: f32,
    correct2: f32,
    eps: f32,
    keep: f32,
}

var<workgroup> bounds: vec3<u32>; // the latent's first entry, the one behind its last, d
var<workgroup> value: array<f32, WG>;
var<workgroup> at: array<u32, WG>; // where the entry's row of g begins, or NONE
var<workgroup> sums: array<f32, WG>;
var<workgroup> grad: array<f32, ROW>; // each thread reads its own columns only

// By its bits: a comparison may hold NaN for zero.
fn is_zero(x: f32) -> bool {
    return (bitcast<u32>(x) << 1u) == 0u;
}

fn stage(t: u32, entry: u32, d: u32) {
    let row = u32(rows[entry]);
    value[t] = values[entry];
    at[t] = select(row * d, NONE, row >= arrayLength(&g) / d || is_zero(value[t]));
}

// Column c of the gradient's row; all threads call it together.
fn gradient(t: u32, c: u32) -> f32 {
    let bound = workgroupUniformLoad(&bounds);
    var sum = 0.0;
    for (var first = bound.x; first < bound.y; first = first + WG) {
        let count = min(WG, bound.y - first);
        if t < count {
            stage(t, first + t, bound.z);
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

// Moves element i and gives its new value.
fn moved(rule: Rule, i: u32, slope: f32) -> f32 {
    let mean = rule.beta1 * m[i] + rule.new1 * slope;
    let square = rule.beta2 * v[i] + rule.new2 * (slope * slope);
    let x = rule.keep * w[i] - rule.rate * mean / (sqrt(rule.correct2 * square) + rule.eps);
    m[i] = mean;
    v[i] = square;
    w[i] = x;
    return x;
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
        if f < u32(settings[8]) {
            let e = arrayLength(&rows);
            bounds = vec3<u32>(min(u32(starts[f]), e), min(u32(starts[f + 1u]), e), u32(settings[9]));
        }
    }
    let bound = workgroupUniformLoad(&bounds);
    let d = bound.z;
    let empty = bound.x >= bound.y;
    if d == 0u || (LAZY == 1u && empty) {
        return;
    }
    let rule = Rule(
        settings[0], settings[1], settings[2], settings[3],
        settings[4], settings[5], settings[6], settings[7],
    );
    let scale = settings[10];
    let project = UNIT == 1u && !empty;

    var along = 0.0;
    if project {
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

    var length = 0.0;
    for (var column = 0u; column < d; column = column + WG) {
        let c = column + t;
        var sum = 0.0;
        if project && column < ROW {
            sum = grad[c];
        } else {
            sum = gradient(t, c);
        }
        if c < d {
            let i = f * d + c;
            if project {
                sum = sum - along * w[i];
            }
            let x = moved(rule, i, scale * sum);
            length = length + x * x;
        }
    }

    if UNIT == 1u {
        length = max(sqrt(total(t, length)), SHORTEST);
        for (var c = t; c < d; c = c + WG) {
            w[f * d + c] = w[f * d + c] / length;
        }
    }
}
