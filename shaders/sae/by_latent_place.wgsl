// One pass of a stable radix sort, third of three kernels: every entry goes to its place, which is
// the first place of its digit in its block plus the number of earlier entries of the block with the
// same digit. One workgroup takes one block, WG entries at a time.
//
// In the first pass entries stand as they were given and are not read.

const WG: u32 = 256u; // threads, and values of a digit
const WORDS: u32 = 8u; // words of a set of threads: WG / 32
const BLOCK: u32 = 1024u; // entries of a block

@group(0) @binding(0) var<storage, read_write> latents: array<u32>; // [e], the bits of i32
@group(0) @binding(1) var<storage, read_write> entries: array<u32>; // [e]
@group(0) @binding(2) var<storage, read_write> places: array<u32>; // [256, blocks]: the first of each digit in each block
@group(0) @binding(3) var<storage, read_write> sizes: array<u32>; // [4]: e, d_sae, lowest bit of the digit, blocks
@group(0) @binding(4) var<storage, read_write> placed_latents: array<u32>; // [e]
@group(0) @binding(5) var<storage, read_write> placed_entries: array<u32>; // [e]

var<workgroup> next: array<u32, WG>; // where the next entry with each digit goes
var<workgroup> holders: array<atomic<u32>, 2048>; // [WORDS, WG]: the set of threads that hold each digit

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
    let word = t / 32u;
    let bit = 1u << (t % 32u);
    next[t] = e;
    if block < blocks {
        next[t] = places[t * blocks + block];
    }
    for (var start = 0u; start < BLOCK; start = start + WG) {
        for (var i = 0u; i < WORDS; i = i + 1u) {
            atomicStore(&holders[i * WG + t], 0u);
        }
        workgroupBarrier();
        let i = block * BLOCK + start + t;
        var latent = 0u;
        var digit = 0u;
        if i < e {
            latent = min(latents[i], d_sae);
            digit = (latent >> shift) & 255u;
            atomicOr(&holders[word * WG + digit], bit);
        }
        workgroupBarrier();
        if i < e {
            let earlier = atomicLoad(&holders[word * WG + digit]) & (bit - 1u);
            var place = next[digit] + countOneBits(earlier);
            for (var j = 0u; j < word; j = j + 1u) {
                place = place + countOneBits(atomicLoad(&holders[j * WG + digit]));
            }
            var entry = i;
            if shift > 0u {
                entry = entries[i];
            }
            if place < e {
                placed_latents[place] = latent;
                placed_entries[place] = entry;
            }
        }
        workgroupBarrier();
        var count = 0u;
        for (var j = 0u; j < WORDS; j = j + 1u) {
            count = count + countOneBits(atomicLoad(&holders[j * WG + t]));
        }
        next[t] = next[t] + count;
    }
}
