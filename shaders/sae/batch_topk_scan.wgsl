// Batch top-k, fourth of five: each block's counts become the counts of all blocks before it. One
// workgroup; a thread takes a run of blocks.

const WG: u32 = 256u; // threads

@group(0) @binding(0) var<storage, read_write> sizes: array<u32>; // [4]: elements, d_sae, total, blocks
@group(0) @binding(1) var<storage, read_write> counts: array<u32>; // [2, blocks]: above, equal

var<workgroup> sums: array<vec2<u32>, WG>;

// sums[t] becomes sums[0] + … + sums[t].
fn sum_from_the_start(t: u32) {
    workgroupBarrier();
    for (var step = 1u; step < WG; step = step * 2u) {
        var before = vec2<u32>(0u, 0u);
        if t >= step {
            before = sums[t - step];
        }
        workgroupBarrier();
        sums[t] = sums[t] + before;
        workgroupBarrier();
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) t: u32) {
    let blocks = sizes[3];
    let run = (blocks + WG - 1u) / WG;
    let start = min(t * run, blocks);
    let end = min(start + run, blocks);
    var own = vec2<u32>(0u, 0u);
    for (var i = start; i < end; i = i + 1u) {
        own = own + vec2<u32>(counts[i], counts[blocks + i]);
    }
    sums[t] = own;
    sum_from_the_start(t);
    var before = sums[t] - own;
    for (var i = start; i < end; i = i + 1u) {
        let here = vec2<u32>(counts[i], counts[blocks + i]);
        counts[i] = before.x;
        counts[blocks + i] = before.y;
        before = before + here;
    }
}
