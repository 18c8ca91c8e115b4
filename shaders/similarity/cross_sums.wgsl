// Adds the product of two batches, one transposed, to a running sum: one workgroup takes SIDE columns of
// each, a thread every LINE-th of both. DEEP rows at a time are staged; after each RUN rows the thread's
// f32 sums go into its share of the running sum, which is held in two f32: `hi`, and in `lo` what its
// rounding lost (Knuth's two-sum).

const WG: u32 = 256u; // threads: LINE * LINE
const LINE: u32 = 16u; // threads along either side
const PER: u32 = 4u; // columns of x, and of y, of one thread
const SIDE: u32 = 64u; // columns of x, and of y, of a workgroup: LINE * PER
const DEEP: u32 = 16u; // rows staged at once
const RUN: u32 = 128u; // rows summed in f32: a multiple of DEEP

@group(0) @binding(0) var<storage, read_write> x: array<f32>; // [b, dx]
@group(0) @binding(1) var<storage, read_write> y: array<f32>; // [b, dy]
@group(0) @binding(2) var<storage, read_write> sizes: array<u32>; // [4]: b, dx, dy, 0
@group(0) @binding(3) var<storage, read_write> hi: array<f32>; // [dx, dy], changed in place
@group(0) @binding(4) var<storage, read_write> lo: array<f32>; // [dx, dy], changed in place

var<workgroup> dims: vec4<u32>;
var<workgroup> staged_x: array<f32, 1024>; // [DEEP, SIDE]
var<workgroup> staged_y: array<f32, 1024>; // [DEEP, SIDE]

// The same number, through an integer that no compiler knows to be zero: what is taken from a rounded sum
// must not be worked out from its terms, as fast-math allows.
fn held(v: f32, zero: u32) -> f32 {
    return bitcast<f32>(bitcast<u32>(v) ^ zero);
}

// The rounded sum, and what the rounding lost.
fn two_sum(a: f32, b: f32, zero: u32) -> vec2<f32> {
    let sum = held(a + b, zero);
    let of_b = held(sum - a, zero);
    let of_a = held(sum - of_b, zero);
    return vec2<f32>(sum, held(a - of_a, zero) + held(b - of_b, zero));
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    if t == 0u {
        dims = vec4<u32>(sizes[0], sizes[1], sizes[2], sizes[3]);
    }
    let size = workgroupUniformLoad(&dims);
    let b = size.x;
    let dx = size.y;
    let dy = size.z;
    let across = (dy + SIDE - 1u) / SIDE;
    let block = group.y * groups.x + group.x;
    let from_x = block / across * SIDE;
    let from_y = block % across * SIDE;
    let tx = t / LINE;
    let ty = t % LINE;

    var run: array<f32, 16>; // [PER, PER]
    var sum: array<vec2<f32>, 16>; // [PER, PER]
    for (var n = 0u; n < PER * PER; n = n + 1u) {
        let i = from_x + n / PER * LINE + tx;
        let j = from_y + n % PER * LINE + ty;
        run[n] = 0.0;
        sum[n] = vec2<f32>(0.0);
        if i < dx && j < dy {
            sum[n] = vec2<f32>(hi[i * dy + j], lo[i * dy + j]);
        }
    }

    for (var first = 0u; first < b; first = first + DEEP) {
        for (var n = t; n < DEEP * SIDE; n = n + WG) {
            let row = first + n / SIDE;
            let i = from_x + n % SIDE;
            let j = from_y + n % SIDE;
            staged_x[n] = 0.0;
            staged_y[n] = 0.0;
            if row < b && i < dx {
                staged_x[n] = x[row * dx + i];
            }
            if row < b && j < dy {
                staged_y[n] = y[row * dy + j];
            }
        }
        workgroupBarrier();
        for (var row = 0u; row < DEEP; row = row + 1u) {
            var of_y: array<f32, PER>;
            for (var j = 0u; j < PER; j = j + 1u) {
                of_y[j] = staged_y[row * SIDE + j * LINE + ty];
            }
            for (var i = 0u; i < PER; i = i + 1u) {
                let of_x = staged_x[row * SIDE + i * LINE + tx];
                for (var j = 0u; j < PER; j = j + 1u) {
                    run[i * PER + j] = run[i * PER + j] + of_x * of_y[j];
                }
            }
        }
        workgroupBarrier();
        let rows = first + DEEP;
        if rows % RUN == 0u || rows >= b {
            for (var n = 0u; n < PER * PER; n = n + 1u) {
                let added = two_sum(sum[n].x, run[n], size.w);
                sum[n] = vec2<f32>(added.x, sum[n].y + added.y);
                run[n] = 0.0;
            }
        }
    }

    for (var n = 0u; n < PER * PER; n = n + 1u) {
        let i = from_x + n / PER * LINE + tx;
        let j = from_y + n % PER * LINE + ty;
        if i < dx && j < dy {
            let settled = two_sum(sum[n].x, sum[n].y, size.w);
            hi[i * dy + j] = settled.x;
            lo[i * dy + j] = settled.y;
        }
    }
}
