// Ranks, first: what each value is sorted by. `key_of` is that of shared/order.wgsl.

const WG: u32 = 256u; // threads

@group(0) @binding(0) var<storage, read_write> x: array<u32>; // [m], the bits of f32
@group(0) @binding(1) var<storage, read_write> sizes: array<u32>; // [1]: m
@group(0) @binding(2) var<storage, read_write> keys: array<u32>; // [m]

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let i = (group.y * groups.x + group.x) * WG + t;
    if i < sizes[0] {
        keys[i] = key_of(x[i]);
    }
}
