// Row-wise exact top-k: one workgroup takes one row.
//
// Every element gets a key of 56 bits that are all different within a row: 32 bits ordered as the
// float is (NaN above +inf, -0 equal to +0), then 24 bits of the inverted column, so that of equal
// values the lowest column is the largest key. A radix select from the top digit down finds the
// bound that exactly k keys reach; it stops as soon as a whole digit bin is wanted, which without
// ties is after the value's 32 bits at the latest. The k chosen ones are sorted in workgroup memory.
// A row of at most K_PAD elements is sorted whole. `key_of` is that of shared/order.wgsl.

const WG: u32 = 256u; // threads, and bins of one radix digit (8 bits)
const K_PAD: u32 = 1024u; // power of two, at least k

@group(0) @binding(0) var<storage, read_write> x: array<u32>; // [rows, n], the bits of f32
@group(0) @binding(1) var<storage, read_write> sizes: array<u32>; // [3]: rows, n, k
@group(0) @binding(2) var<storage, read_write> values: array<u32>; // [rows, k], the bits of f32
@group(0) @binding(3) var<storage, read_write> indices: array<i32>; // [rows, k]

// What has been decided so far about the bound: its digits and which bits they cover.
struct Bound {
    key: u32,
    inv: u32,
    key_mask: u32,
    inv_mask: u32,
    need: u32, // elements still to take among those that match the digits
    done: u32, // 1: all that match are taken
}

var<workgroup> dims: vec3<u32>;
var<workgroup> histogram: array<atomic<u32>, WG>;
var<workgroup> sums: array<u32, WG>;
var<workgroup> bound: Bound;
var<workgroup> taken: atomic<u32>;
var<workgroup> keys: array<u32, K_PAD>;
var<workgroup> columns: array<u32, K_PAD>;

fn inverted(column: u32) -> u32 {
    return ~column & 0x00ffffffu;
}

fn matches(b: Bound, key: u32, inv: u32) -> bool {
    return (key & b.key_mask) == b.key && (inv & b.inv_mask) == b.inv;
}

// Whether (key, inv) is at or above the bound, the undecided digits of which are zero.
fn reaches(b: Bound, key: u32, inv: u32) -> bool {
    return key > b.key || (key == b.key && inv >= b.inv);
}

// Digit 0..3 is of the key, 4..6 of the inverted column, from the top down.
fn digit_of(digit: u32, key: u32, inv: u32) -> u32 {
    if digit < 4u {
        return (key >> (24u - 8u * digit)) & 255u;
    }
    return (inv >> (48u - 8u * digit)) & 255u;
}

fn with_digit(b: Bound, digit: u32, bin: u32, need: u32, in_bin: u32) -> Bound {
    var next = b;
    if digit < 4u {
        let shift = 24u - 8u * digit;
        next.key = b.key | (bin << shift);
        next.key_mask = b.key_mask | (255u << shift);
    } else {
        let shift = 48u - 8u * digit;
        next.inv = b.inv | (bin << shift);
        next.inv_mask = b.inv_mask | (255u << shift);
    }
    next.need = need;
    next.done = select(0u, 1u, need == in_bin);
    return next;
}

// sums[t] = histogram[t] + … + histogram[WG - 1]
fn sum_from_the_top(t: u32) {
    sums[t] = atomicLoad(&histogram[t]);
    workgroupBarrier();
    for (var step = 1u; step < WG; step = step * 2u) {
        var above = 0u;
        if t + step < WG {
            above = sums[t + step];
        }
        workgroupBarrier();
        sums[t] = sums[t] + above;
        workgroupBarrier();
    }
}

// Whether pair a belongs behind pair b: keys fall, and columns rise among equal keys.
fn behind(a: u32, b: u32) -> bool {
    return keys[a] < keys[b] || (keys[a] == keys[b] && columns[a] > columns[b]);
}

fn sort_pairs(t: u32) {
    for (var size = 2u; size <= K_PAD; size = size * 2u) {
        for (var stride = size / 2u; stride > 0u; stride = stride / 2u) {
            for (var i = t; i < K_PAD / 2u; i = i + WG) {
                let a = 2u * i - (i & (stride - 1u));
                let b = a + stride;
                let forward = (a & size) == 0u;
                if (forward && behind(a, b)) || (!forward && behind(b, a)) {
                    let key = keys[a];
                    let column = columns[a];
                    keys[a] = keys[b];
                    columns[a] = columns[b];
                    keys[b] = key;
                    columns[b] = column;
                }
            }
            workgroupBarrier();
        }
    }
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    if t == 0u {
        dims = vec3<u32>(sizes[0], sizes[1], sizes[2]);
        bound = Bound(0u, 0u, 0u, 0u, sizes[2], select(0u, 1u, sizes[1] <= K_PAD));
        atomicStore(&taken, 0u);
    }
    for (var i = t; i < K_PAD; i = i + WG) {
        keys[i] = 0u;
        columns[i] = 0xffffffffu;
    }
    let size = workgroupUniformLoad(&dims);
    let row = group.y * groups.x + group.x;
    if row >= size.x {
        return;
    }
    let n = size.y;
    let k = size.z;
    let start = row * n;

    for (var digit = 0u; digit < 7u; digit = digit + 1u) {
        let b = workgroupUniformLoad(&bound);
        if b.done == 1u {
            break;
        }
        atomicStore(&histogram[t], 0u);
        workgroupBarrier();
        for (var i = t; i < n; i = i + WG) {
            let key = key_of(x[start + i]);
            let inv = inverted(i);
            if matches(b, key, inv) {
                atomicAdd(&histogram[digit_of(digit, key, inv)], 1u);
            }
        }
        workgroupBarrier();
        sum_from_the_top(t);
        let in_bin = atomicLoad(&histogram[t]);
        let above = sums[t] - in_bin;
        if above < b.need && b.need <= sums[t] {
            bound = with_digit(b, digit, t, b.need - above, in_bin);
        }
    }

    let b = workgroupUniformLoad(&bound);
    for (var i = t; i < n; i = i + WG) {
        let key = key_of(x[start + i]);
        if reaches(b, key, inverted(i)) {
            let slot = atomicAdd(&taken, 1u);
            if slot < K_PAD {
                keys[slot] = key;
                columns[slot] = i;
            }
        }
    }
    workgroupBarrier();
    sort_pairs(t);
    for (var i = t; i < k; i = i + WG) {
        let column = min(columns[i], n - 1u);
        values[row * k + i] = x[start + column];
        indices[row * k + i] = i32(column);
    }
}
