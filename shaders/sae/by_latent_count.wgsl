// One pass of a stable radix sort by 8 bits of the latent, first of three kernels: how often each
// digit occurs in each block of BLOCK entries. One workgroup takes one block.
//
// A latent that is negative or not below d_sae counts as d_sae: it is sorted behind all others.

const WG: u32 = 256u; // threads, and values of a digit
const BLOCK: u32 = 1024u; // entries of a block

@group(0) @binding(0) var<storage, read_write> latents: array<u32>; // [e], the bits of i32
@group(0) @binding(1) var<storage, read_write> sizes: array<u32>; // [4]: e, d_sae, lowest bit of the digit, blocks
@group(0) @binding(2) var<storage, read_write> counts: array<u32>; // [256, blocks]

var<workgroup> histogram: array<atomic<u32>, WG>;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let e = sizes[0];
    let d_sae = sizes[1];
    let shift = sizes[2];
    let blocks = sizes[3];
    let block = group.y * groups.x + group.x;
    atomicStore(&histogram[t], 0u);
    workgroupBarrier();
    for (var i = t; i < BLOCK; i = i + WG) {
        let entry = block * BLOCK + i;
        if entry < e {
            let digit = (min(latents[entry], d_sae) >> shift) & 255u;
            atomicAdd(&histogram[digit], 1u);
        }
    }
    workgroupBarrier();
    if block < blocks {
        counts[t * blocks + block] = atomicLoad(&histogram[t]);
    }
}
