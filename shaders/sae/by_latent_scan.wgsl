// One pass of a stable radix sort, second of three kernels: every count becomes the sum of those
// before it. One workgroup goes over them all, WG * PER at a time.

const WG: u32 = 256u; // threads
const PER: u32 = 16u; // neighbouring counts that one thread takes

@group(0) @binding(0) var<storage, read_write> counts: array<u32>; // [n], changed in place
@group(0) @binding(1) var<storage, read_write> sizes: array<u32>; // [1]: n

var<workgroup> length: u32;
var<workgroup> sums: array<u32, WG>;

// sums[t] = sums[0] + … + sums[t]
fn sum_from_the_left(t: u32) {
    workgroupBarrier();
    for (var step = 1u; step < WG; step = step * 2u) {
        var left = 0u;
        if t >= step {
            left = sums[t - step];
        }
        workgroupBarrier();
        sums[t] = sums[t] + left;
        workgroupBarrier();
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) t: u32) {
    if t == 0u {
        length = sizes[0];
    }
    let n = workgroupUniformLoad(&length);
    var before = 0u; // the sum of all earlier rounds
    for (var start = 0u; start < n; start = start + WG * PER) {
        let first = start + t * PER;
        let end = min(first + PER, n);
        var sum = 0u;
        for (var i = first; i < end; i = i + 1u) {
            sum = sum + counts[i];
        }
        sums[t] = sum;
        sum_from_the_left(t);
        var next = before + sums[t] - sum;
        before = before + sums[WG - 1u];
        for (var i = first; i < end; i = i + 1u) {
            let count = counts[i];
            counts[i] = next;
            next = next + count;
        }
        workgroupBarrier();
    }
}
