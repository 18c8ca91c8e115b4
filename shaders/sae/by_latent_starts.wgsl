// Where each latent's entries start among entries in the order of their latents: for each latent a
// thread looks for the first that is not below it. The last start is where those end that have one.

const WG: u32 = 256u; // threads

@group(0) @binding(0) var<storage, read_write> latents: array<u32>; // [e], rising
@group(0) @binding(1) var<storage, read_write> sizes: array<u32>; // [2]: e, d_sae
@group(0) @binding(2) var<storage, read_write> starts: array<i32>; // [d_sae + 1]

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let f = (group.y * groups.x + group.x) * WG + t;
    if f > sizes[1] {
        return;
    }
    var low = 0u;
    var high = sizes[0];
    while low < high {
        let middle = low + (high - low) / 2u;
        if latents[middle] < f {
            low = middle + 1u;
        } else {
            high = middle;
        }
    }
    starts[f] = i32(low);
}
