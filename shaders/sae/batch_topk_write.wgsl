// Batch top-k, last of five: the elements taken, in row-major order.
//
// A thread takes the 32 elements of one word of marks. All above the bound are taken and, of those
// equal to it, the first `need` of the matrix; so the place of an element is the number of elements
// above before it, plus the number of equal ones before it but at most `need`.

const WG: u32 = 256u; // threads, and words of a block

@group(0) @binding(0) var<storage, read_write> x: array<u32>; // [n, d_sae], the bits of f32
@group(0) @binding(1) var<storage, read_write> sizes: array<u32>; // [4]: elements, d_sae, total, blocks
@group(0) @binding(2) var<storage, read_write> bound: array<u32>; // [3]: key, need, shift
@group(0) @binding(3) var<storage, read_write> marks: array<u32>; // [2, blocks * WG]: above, equal
@group(0) @binding(4) var<storage, read_write> counts: array<u32>; // [2, blocks]: above, equal, of all blocks before
@group(0) @binding(5) var<storage, read_write> values: array<u32>; // [total], the bits of f32
@group(0) @binding(6) var<storage, read_write> rows: array<i32>; // [total]
@group(0) @binding(7) var<storage, read_write> columns: array<i32>; // [total]

var<workgroup> blocks: u32;
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

fn write(slot: u32, element: u32) {
    if slot < sizes[2] && element < sizes[0] {
        values[slot] = x[element];
        rows[slot] = i32(element / sizes[1]);
        columns[slot] = i32(element % sizes[1]);
    }
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    if t == 0u {
        blocks = sizes[3];
    }
    let all = workgroupUniformLoad(&blocks);
    let block = group.y * groups.x + group.x;
    if block >= all {
        return;
    }
    let word = block * WG + t;
    let above = marks[word];
    let equal = marks[all * WG + word];
    let own = vec2<u32>(countOneBits(above), countOneBits(equal));
    sums[t] = own;
    sum_from_the_start(t);
    var before = vec2<u32>(counts[block], counts[all + block]) + sums[t] - own;
    let need = bound[1];
    for (var left = above | equal; left != 0u; left = left & (left - 1u)) {
        let bit = firstTrailingBit(left);
        let slot = before.x + min(before.y, need);
        if ((above >> bit) & 1u) == 1u {
            write(slot, word * 32u + bit);
            before.x = before.x + 1u;
        } else {
            if before.y < need {
                write(slot, word * 32u + bit);
            }
            before.y = before.y + 1u;
        }
    }
}
