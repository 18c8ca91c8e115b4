// Ranks, last: a thread takes one place among the sorted keys, finds where the run of equal keys around
// it begins and ends, and writes the rank they share to where its key came from.

const WG: u32 = 256u; // threads

@group(0) @binding(0) var<storage, read_write> keys: array<u32>; // [m], rising
@group(0) @binding(1) var<storage, read_write> entries: array<u32>; // [m]: where each came from
@group(0) @binding(2) var<storage, read_write> sizes: array<u32>; // [1]: m
@group(0) @binding(3) var<storage, read_write> ranks: array<i32>; // [m]

// The first place in start..end whose key is at least `key`, or above it; `end` if there is none.
fn first_place(key: u32, above: bool, start: u32, end: u32) -> u32 {
    var low = start;
    var high = end;
    while low < high {
        let middle = low + (high - low) / 2u;
        if keys[middle] < key || (above && keys[middle] == key) {
            low = middle + 1u;
        } else {
            high = middle;
        }
    }
    return low;
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let m = sizes[0];
    let i = (group.y * groups.x + group.x) * WG + t;
    if i >= m {
        return;
    }
    let key = keys[i];
    var start = i;
    if i > 0u && keys[i - 1u] == key {
        start = first_place(key, false, 0u, i);
    }
    var end = i + 1u;
    if end < m && keys[end] == key {
        end = first_place(key, true, end, m);
    }
    if entries[i] < m {
        ranks[entries[i]] = i32(start + end + 1u);
    }
}
