// Sums down the columns of a matrix, one thread a column, rows in their order: the second stage of
// the backward kernels, whose first stage leaves one row of sums for every chunk of rows.

const WG: u32 = 256u; // threads, one a column

@group(0) @binding(0) var<storage, read_write> shares: array<f32>; // [chunks, m]
@group(0) @binding(1) var<storage, read_write> sizes: array<u32>; // [2]: chunks, m
@group(0) @binding(2) var<storage, read_write> sums: array<f32>; // [m]

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let chunks = sizes[0];
    let m = sizes[1];
    let column = (group.y * groups.x + group.x) * WG + t;
    if column >= m {
        return;
    }
    var sum = 0.0;
    for (var chunk = 0u; chunk < chunks; chunk = chunk + 1u) {
        sum = sum + shares[chunk * m + column];
    }
    sums[column] = sum;
}
