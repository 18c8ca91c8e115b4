// Batch top-k, third of five: which elements are above the bound and which are equal to it.
//
// A workgroup takes a block of 32 * WG elements and leaves a bit for each in two rows of marks, with
// the number of bits set in each row.

const WG: u32 = 256u; // threads, and words of a block

@group(0) @binding(0) var<storage, read_write> x: array<u32>; // [n, d_sae], the bits of f32
@group(0) @binding(1) var<storage, read_write> sizes: array<u32>; // [4]: elements, d_sae, total, blocks
@group(0) @binding(2) var<storage, read_write> bound: array<u32>; // [3]: key, need, shift
@group(0) @binding(3) var<storage, read_write> marks: array<u32>; // [2, blocks * WG]: above, equal
@group(0) @binding(4) var<storage, read_write> counts: array<u32>; // [2, blocks]: above, equal

var<workgroup> state: vec3<u32>; // elements, blocks, key
var<workgroup> above: array<atomic<u32>, WG>;
var<workgroup> equal: array<atomic<u32>, WG>;
var<workgroup> above_count: atomic<u32>;
var<workgroup> equal_count: atomic<u32>;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    if t == 0u {
        state = vec3<u32>(sizes[0], sizes[3], bound[0]);
        atomicStore(&above_count, 0u);
        atomicStore(&equal_count, 0u);
    }
    atomicStore(&above[t], 0u);
    atomicStore(&equal[t], 0u);
    let s = workgroupUniformLoad(&state);
    let block = group.y * groups.x + group.x;
    if block >= s.y {
        return;
    }
    let start = block * 32u * WG;
    let size = min(32u * WG, s.x - start);
    for (var i = t; i < size; i = i + WG) {
        let key = key_of(x[start + i]);
        let bit = 1u << (i % 32u);
        if key > s.z {
            atomicOr(&above[i / 32u], bit);
        } else if key == s.z {
            atomicOr(&equal[i / 32u], bit);
        }
    }
    workgroupBarrier();
    let over = atomicLoad(&above[t]);
    let level = atomicLoad(&equal[t]);
    marks[block * WG + t] = over;
    marks[(s.y + block) * WG + t] = level;
    atomicAdd(&above_count, countOneBits(over));
    atomicAdd(&equal_count, countOneBits(level));
    workgroupBarrier();
    if t == 0u {
        counts[block] = atomicLoad(&above_count);
        counts[s.y + block] = atomicLoad(&equal_count);
    }
}
