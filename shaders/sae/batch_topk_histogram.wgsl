// Batch top-k, first of five: how often each value of the next digit occurs.
//
// A radix select over the whole matrix finds the key of the `total`-th largest element in three
// digits of 11, 11 and 10 bits from the top. This kernel counts, among the elements that have the
// digits found so far, each value of the next one. The counts of the workgroups are added as
// integers, so their order does not matter.

const WG: u32 = 256u; // threads
const BINS: u32 = 2048u; // values of a digit
const BLOCK: u32 = 32768u; // elements of one workgroup

@group(0) @binding(0) var<storage, read_write> x: array<u32>; // [n, d_sae], the bits of f32
@group(0) @binding(1) var<storage, read_write> sizes: array<u32>; // [4]: elements, d_sae, total, blocks of marks
@group(0) @binding(2) var<storage, read_write> bound: array<u32>; // [3]: key, need, shift
@group(0) @binding(3) var<storage, read_write> histogram: array<atomic<u32>>; // [BINS]

var<workgroup> state: vec3<u32>; // elements, key, shift
var<workgroup> counts: array<atomic<u32>, BINS>;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    if t == 0u {
        state = vec3<u32>(sizes[0], bound[0], bound[2]);
    }
    for (var i = t; i < BINS; i = i + WG) {
        atomicStore(&counts[i], 0u);
    }
    let s = workgroupUniformLoad(&state);
    let shift = s.z;
    let width = select(BINS, BINS / 2u, shift == 0u);
    let start = (group.y * groups.x + group.x) * BLOCK;
    let end = min(start + BLOCK, s.x);
    for (var i = start + t; i < end; i = i + WG) {
        // Digits above this one that differ from the key's leave a number past the width.
        let digit = (key_of(x[i]) ^ s.y) >> shift;
        if digit < width {
            atomicAdd(&counts[digit], 1u);
        }
    }
    workgroupBarrier();
    for (var i = t; i < BINS; i = i + WG) {
        let count = atomicLoad(&counts[i]);
        if count > 0u {
            atomicAdd(&histogram[i], count);
        }
    }
}
