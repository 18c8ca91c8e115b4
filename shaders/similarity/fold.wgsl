// Sums of RUN neighbouring rows of a matrix, added in pairs: one thread takes one of them in one
// column. Repeated until one row is left, it adds up any number of rows in pairs.

const WG: u32 = 256u; // threads
const RUN: u32 = 16u; // rows of a sum

@group(0) @binding(0) var<storage, read_write> parts: array<f32>; // [n, m]
@group(0) @binding(1) var<storage, read_write> sizes: array<u32>; // [2]: n, m
@group(0) @binding(2) var<storage, read_write> sums: array<f32>; // [n / RUN, rounded up, m]

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let n = sizes[0];
    let m = sizes[1];
    let place = (group.y * groups.x + group.x) * WG + t;
    let first = place / m * RUN;
    if first >= n {
        return;
    }
    var own: array<f32, RUN>;
    for (var i = 0u; i < RUN; i = i + 1u) {
        own[i] = 0.0;
        if first + i < n {
            own[i] = parts[(first + i) * m + place % m];
        }
    }
    for (var half = RUN / 2u; half > 0u; half = half / 2u) {
        for (var i = 0u; i < half; i = i + 1u) {
            own[i] = own[i] + own[i + half];
        }
    }
    sums[place] = own[0];
}
