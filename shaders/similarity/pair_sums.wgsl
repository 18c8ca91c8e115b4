// Sums over pairs of rows, first of two kernels: one workgroup takes a block of SIDE rows and SIDE
// columns of a tile and leaves its sums for each of its rows and columns. A thread takes every LINE-th
// row and column of the block; the sums of the threads are added in pairs.
//
// A pair counts where its column lies more than `offset` right of its row; what does not count is
// not read.

const WG: u32 = 256u; // threads: LINE * LINE
const LINE: u32 = 16u; // threads along either side
const PER: u32 = 4u; // rows, and columns, of one thread
const SIDE: u32 = 64u; // rows, and columns, of a block: LINE * PER
const FORM_A: u32 = 0u; // 0 dot, 1 one minus, 2 squared Euclidean, 3 Euclidean, 4 RBF
const FORM_B: u32 = 0u;

@group(0) @binding(0) var<storage, read_write> a: array<f32>; // [r, c]
@group(0) @binding(1) var<storage, read_write> b: array<f32>; // [r, c]
@group(0) @binding(2) var<storage, read_write> squares: array<f32>; // [2, r + c]: of a and of b, rows and columns
@group(0) @binding(3) var<storage, read_write> sizes: array<u32>; // [5]: r, c, offset (i32), gamma of a and of b (f32)
@group(0) @binding(4) var<storage, read_write> by_row: array<f32>; // [blocks along c, r, 3]
@group(0) @binding(5) var<storage, read_write> by_column: array<f32>; // [blocks along r, c, 2]

var<workgroup> parts: array<f32, 3072>; // [3, SIDE, LINE]

// A product of two rows in its form, given the squared lengths of both.
fn formed(form: u32, p: f32, s: f32, t: f32, gamma: f32) -> f32 {
    if form == 0u {
        return p;
    }
    if form == 1u {
        return 1.0 - p;
    }
    let d = s + t - 2.0 * p;
    let squared = select(d, 0.0, d < 0.0);
    if form == 2u {
        return squared;
    }
    if form == 3u {
        return sqrt(squared);
    }
    return exp(-gamma * squared);
}

// Adds up `lines` lines of LINE parts each, in pairs; the sums stand first in their lines.
fn add_up(t: u32, lines: u32) {
    workgroupBarrier();
    for (var half = LINE / 2u; half > 0u; half = half / 2u) {
        for (var i = t; i < lines * half; i = i + WG) {
            let at = i / half * LINE + i % half;
            parts[at] = parts[at] + parts[at + half];
        }
        workgroupBarrier();
    }
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let r = sizes[0];
    let c = sizes[1];
    let offset = bitcast<i32>(sizes[2]);
    let gamma_a = bitcast<f32>(sizes[3]);
    let gamma_b = bitcast<f32>(sizes[4]);
    let across = (c + SIDE - 1u) / SIDE;
    let block = group.y * groups.x + group.x;
    let block_row = block / across;
    let block_column = block % across;
    let x = t % LINE;
    let y = t / LINE;

    var rows: array<vec3<f32>, PER>;
    var columns: array<vec2<f32>, PER>;
    for (var i = 0u; i < PER; i = i + 1u) {
        rows[i] = vec3<f32>(0.0);
        columns[i] = vec2<f32>(0.0);
    }
    for (var i = 0u; i < PER; i = i + 1u) {
        let row = block_row * SIDE + i * LINE + y;
        for (var j = 0u; j < PER; j = j + 1u) {
            let column = block_column * SIDE + j * LINE + x;
            if row < r && column < c && i32(column) > i32(row) + offset {
                let at = row * c + column;
                let s = r + c + row; // of b, whose squared lengths follow those of a
                let u = r + c + r + column;
                let f = formed(FORM_A, a[at], squares[row], squares[r + column], gamma_a);
                let g = formed(FORM_B, b[at], squares[s], squares[u], gamma_b);
                rows[i] = rows[i] + vec3<f32>(f * g, f, g);
                columns[j] = columns[j] + vec2<f32>(f, g);
            }
        }
    }

    for (var i = 0u; i < PER; i = i + 1u) {
        for (var which = 0u; which < 3u; which = which + 1u) {
            parts[(which * SIDE + i * LINE + y) * LINE + x] = rows[i][which];
        }
    }
    add_up(t, 3u * SIDE);
    for (var i = t; i < 3u * SIDE; i = i + WG) {
        let row = block_row * SIDE + i / 3u;
        if row < r {
            by_row[(block_column * r + row) * 3u + i % 3u] = parts[(i % 3u * SIDE + i / 3u) * LINE];
        }
    }
    workgroupBarrier();
    for (var j = 0u; j < PER; j = j + 1u) {
        for (var which = 0u; which < 2u; which = which + 1u) {
            parts[(which * SIDE + j * LINE + x) * LINE + y] = columns[j][which];
        }
    }
    add_up(t, 2u * SIDE);
    for (var i = t; i < 2u * SIDE; i = i + WG) {
        let column = block_column * SIDE + i / 2u;
        if block_row * SIDE < r && column < c {
            by_column[(block_row * c + column) * 2u + i % 2u] = parts[(i % 2u * SIDE + i / 2u) * LINE];
        }
    }
}
