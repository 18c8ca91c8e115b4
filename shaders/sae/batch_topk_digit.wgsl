// Batch top-k, second of five: the next digit of the bound. One workgroup.
//
// The bins are summed from the top; the one in which the sum reaches what is still needed is the
// digit. The histogram is left empty for the next digit. After the last one the key is that of the
// smallest element taken, and `need` says how many of its equals are taken.

const WG: u32 = 256u; // threads
const RUN: u32 = 8u; // bins of one thread
const FULL: u32 = 11u; // bits of a digit but the last

@group(0) @binding(0) var<storage, read_write> histogram: array<u32>; // [WG * RUN]
@group(0) @binding(1) var<storage, read_write> bound: array<u32>; // [3]: key, need, shift
@group(0) @binding(2) var<storage, read_write> threshold: array<u32>; // [1], the bits of f32

var<workgroup> state: vec3<u32>; // key, need, shift
var<workgroup> sums: array<u32, WG>;

// sums[t] becomes sums[t] + … + sums[WG - 1].
fn sum_from_the_top(t: u32) {
    workgroupBarrier();
    for (var step = 1u; step < WG; step = step * 2u) {
        var above = 0u;
        if t + step < WG {
            above = sums[t + step];
        }
        workgroupBarrier();
        sums[t] = sums[t] + above;
        workgroupBarrier();
    }
}

// The digit is among the bins from `first`, of which `need` elements are taken.
fn settle(first: u32, need: u32) {
    var left = need;
    var bin = first + RUN - 1u;
    for (; bin > first && histogram[bin] < left; bin = bin - 1u) {
        left = left - histogram[bin];
    }
    let key = state.x | (bin << state.z);
    bound[0] = key;
    bound[1] = left;
    bound[2] = select(0u, state.z - FULL, state.z > FULL);
    threshold[0] = bits_of(key);
}

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) t: u32) {
    if t == 0u {
        state = vec3<u32>(bound[0], bound[1], bound[2]);
    }
    let first = t * RUN;
    var own = 0u;
    for (var i = 0u; i < RUN; i = i + 1u) {
        own = own + histogram[first + i];
    }
    sums[t] = own;
    sum_from_the_top(t);
    let need = state.y;
    let above = sums[t] - own;
    if above < need && need <= sums[t] {
        settle(first, need - above);
    }
    for (var i = 0u; i < RUN; i = i + 1u) {
        histogram[first + i] = 0u;
    }
}
