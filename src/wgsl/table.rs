//! Every shader, with the constants and bindings that Rust relies on.

use super::{Binding, Constant, Shader};

/// Every shader of this crate.
pub static SHADERS: &[&Shader] = &[
    &TOPK,
    &BATCH_TOPK_DIGIT,
    &BATCH_TOPK_HISTOGRAM,
    &BATCH_TOPK_MARK,
    &BATCH_TOPK_SCAN,
    &BATCH_TOPK_WRITE,
    &BY_LATENT_COUNT,
    &BY_LATENT_SCAN,
    &BY_LATENT_PLACE,
    &BY_LATENT_STARTS,
    &SPARSE_DECODE,
    &SPARSE_DOT,
    &SPARSE_MATMUL_T,
    &JUMP_RELU,
    &JUMP_RELU_BACKWARD,
    &GATED,
    &GATED_BACKWARD,
    &CHUNK_SUMS,
    &GRAD_SQUARES,
    &ADAM_ROWS,
    &PAIR_SUMS,
    &FOLD,
    &RANK_KEYS,
    &RANK_WRITE,
    &CROSS_SUMS,
];

/// Floats as integers of the same order.
const ORDER: &str = include_str!("../../shaders/shared/order.wgsl");

const fn reads(name: &'static str, element: &'static str) -> Binding {
    Binding {
        name,
        element,
        written: false,
    }
}

const fn writes(name: &'static str, element: &'static str) -> Binding {
    Binding {
        name,
        element,
        written: true,
    }
}

/// The kernel of [`ops::topk`](crate::ops::topk).
pub static TOPK: Shader = Shader {
    file: "sae/topk.wgsl",
    text: include_str!("../../shaders/sae/topk.wgsl"),
    shared: &[ORDER],
    constants: &[Constant {
        name: "K_PAD",
        allowed: &[16, 64, 256, 1024],
    }],
    bindings: &[
        reads("x", "u32"),
        reads("sizes", "u32"),
        writes("values", "u32"),
        writes("indices", "i32"),
    ],
    workgroup: [256, 1, 1],
};

/// Counts the next digit of the bound of [`ops::batch_topk`](crate::ops::batch_topk).
pub static BATCH_TOPK_HISTOGRAM: Shader = Shader {
    file: "sae/batch_topk_histogram.wgsl",
    text: include_str!("../../shaders/sae/batch_topk_histogram.wgsl"),
    shared: &[ORDER],
    constants: &[],
    bindings: &[
        reads("x", "u32"),
        reads("sizes", "u32"),
        reads("bound", "u32"),
        writes("histogram", "u32"),
    ],
    workgroup: [256, 1, 1],
};

/// Picks the next digit of the bound of [`ops::batch_topk`](crate::ops::batch_topk).
pub static BATCH_TOPK_DIGIT: Shader = Shader {
    file: "sae/batch_topk_digit.wgsl",
    text: include_str!("../../shaders/sae/batch_topk_digit.wgsl"),
    shared: &[ORDER],
    constants: &[],
    bindings: &[
        writes("histogram", "u32"),
        writes("bound", "u32"),
        writes("threshold", "u32"),
    ],
    workgroup: [256, 1, 1],
};

/// Marks the elements at and above the bound of [`ops::batch_topk`](crate::ops::batch_topk).
pub static BATCH_TOPK_MARK: Shader = Shader {
    file: "sae/batch_topk_mark.wgsl",
    text: include_str!("../../shaders/sae/batch_topk_mark.wgsl"),
    shared: &[ORDER],
    constants: &[],
    bindings: &[
        reads("x", "u32"),
        reads("sizes", "u32"),
        reads("bound", "u32"),
        writes("marks", "u32"),
        writes("counts", "u32"),
    ],
    workgroup: [256, 1, 1],
};

/// Sums the counts of marks of [`ops::batch_topk`](crate::ops::batch_topk) over the blocks.
pub static BATCH_TOPK_SCAN: Shader = Shader {
    file: "sae/batch_topk_scan.wgsl",
    text: include_str!("../../shaders/sae/batch_topk_scan.wgsl"),
    shared: &[],
    constants: &[],
    bindings: &[reads("sizes", "u32"), writes("counts", "u32")],
    workgroup: [256, 1, 1],
};

/// Writes the selected elements of [`ops::batch_topk`](crate::ops::batch_topk).
pub static BATCH_TOPK_WRITE: Shader = Shader {
    file: "sae/batch_topk_write.wgsl",
    text: include_str!("../../shaders/sae/batch_topk_write.wgsl"),
    shared: &[],
    constants: &[],
    bindings: &[
        reads("x", "u32"),
        reads("sizes", "u32"),
        reads("bound", "u32"),
        reads("marks", "u32"),
        reads("counts", "u32"),
        writes("values", "u32"),
        writes("rows", "i32"),
        writes("columns", "i32"),
    ],
    workgroup: [256, 1, 1],
};

/// A constant that is 1 or 0.
const fn flag(name: &'static str) -> Constant {
    Constant {
        name,
        allowed: &[0, 1],
    }
}

/// The forward kernel of [`ops::jump_relu`](crate::ops::jump_relu).
pub static JUMP_RELU: Shader = Shader {
    file: "sae/jump_relu.wgsl",
    text: include_str!("../../shaders/sae/jump_relu.wgsl"),
    shared: &[ORDER],
    constants: &[],
    bindings: &[
        reads("z", "u32"),
        reads("threshold", "u32"),
        reads("sizes", "u32"),
        writes("f", "u32"),
        writes("l0", "f32"),
    ],
    workgroup: [256, 1, 1],
};

/// The backward kernel of [`ops::jump_relu`](crate::ops::jump_relu).
pub static JUMP_RELU_BACKWARD: Shader = Shader {
    file: "sae/jump_relu_backward.wgsl",
    text: include_str!("../../shaders/sae/jump_relu_backward.wgsl"),
    shared: &[ORDER],
    constants: &[flag("OF_F")],
    bindings: &[
        reads("z", "u32"),
        reads("threshold", "u32"),
        reads("g_f", "u32"),
        reads("g_l0", "f32"),
        reads("sizes", "u32"),
        writes("dz", "u32"),
        writes("shares", "u32"),
    ],
    workgroup: [256, 1, 1],
};

/// The forward kernel of [`ops::gated`](crate::ops::gated).
pub static GATED: Shader = Shader {
    file: "sae/gated.wgsl",
    text: include_str!("../../shaders/sae/gated.wgsl"),
    shared: &[],
    constants: &[],
    bindings: &[
        reads("z", "f32"),
        reads("latent", "f32"),
        reads("sizes", "u32"),
        writes("f", "u32"),
        writes("gate", "u32"),
        writes("l0", "f32"),
    ],
    workgroup: [256, 1, 1],
};

/// The backward kernel of [`ops::gated`](crate::ops::gated).
pub static GATED_BACKWARD: Shader = Shader {
    file: "sae/gated_backward.wgsl",
    text: include_str!("../../shaders/sae/gated_backward.wgsl"),
    shared: &[],
    constants: &[flag("OF_F"), flag("OF_GATE")],
    bindings: &[
        reads("z", "f32"),
        reads("latent", "f32"),
        reads("g_f", "f32"),
        reads("g_gate", "f32"),
        reads("sizes", "u32"),
        writes("dz", "u32"),
        writes("shares", "u32"),
    ],
    workgroup: [256, 1, 1],
};

/// The second stage of the backward kernels: sums of chunks of rows, in their order.
pub static CHUNK_SUMS: Shader = Shader {
    file: "sae/chunk_sums.wgsl",
    text: include_str!("../../shaders/sae/chunk_sums.wgsl"),
    shared: &[],
    constants: &[],
    bindings: &[
        reads("shares", "f32"),
        reads("sizes", "u32"),
        writes("sums", "f32"),
    ],
    workgroup: [256, 1, 1],
};

/// Entries of a block of the sort behind [`ops::by_latent`](crate::ops::by_latent) and
/// [`ops::rank`](crate::ops::rank()).
const BLOCK: &[Constant] = &[Constant {
    name: "BLOCK",
    allowed: &[1024, 8192],
}];

/// The first kernel of a pass of [`ops::by_latent`](crate::ops::by_latent).
pub static BY_LATENT_COUNT: Shader = Shader {
    file: "sae/by_latent_count.wgsl",
    text: include_str!("../../shaders/sae/by_latent_count.wgsl"),
    shared: &[],
    constants: BLOCK,
    bindings: &[
        reads("latents", "u32"),
        reads("sizes", "u32"),
        writes("counts", "u32"),
    ],
    workgroup: [256, 1, 1],
};

/// The second.
pub static BY_LATENT_SCAN: Shader = Shader {
    file: "sae/by_latent_scan.wgsl",
    text: include_str!("../../shaders/sae/by_latent_scan.wgsl"),
    shared: &[],
    constants: &[],
    bindings: &[writes("counts", "u32"), reads("sizes", "u32")],
    workgroup: [256, 1, 1],
};

/// The third.
pub static BY_LATENT_PLACE: Shader = Shader {
    file: "sae/by_latent_place.wgsl",
    text: include_str!("../../shaders/sae/by_latent_place.wgsl"),
    shared: &[],
    constants: BLOCK,
    bindings: &[
        reads("latents", "u32"),
        reads("entries", "u32"),
        reads("places", "u32"),
        reads("sizes", "u32"),
        writes("placed_latents", "u32"),
        writes("placed_entries", "u32"),
    ],
    workgroup: [256, 1, 1],
};

/// The last kernel of [`ops::by_latent`](crate::ops::by_latent).
pub static BY_LATENT_STARTS: Shader = Shader {
    file: "sae/by_latent_starts.wgsl",
    text: include_str!("../../shaders/sae/by_latent_starts.wgsl"),
    shared: &[],
    constants: &[],
    bindings: &[
        reads("latents", "u32"),
        reads("sizes", "u32"),
        writes("starts", "i32"),
    ],
    workgroup: [256, 1, 1],
};

/// The kernel of [`ops::sparse_decode`](crate::ops::sparse_decode).
pub static SPARSE_DECODE: Shader = Shader {
    file: "sae/sparse_decode.wgsl",
    text: include_str!("../../shaders/sae/sparse_decode.wgsl"),
    shared: &[],
    constants: &[],
    bindings: &[
        reads("values", "f32"),
        reads("indices", "i32"),
        reads("w", "f32"),
        reads("sizes", "u32"),
        writes("y", "f32"),
    ],
    workgroup: [128, 1, 1],
};

/// The kernel of [`ops::sparse_dot`](crate::ops::sparse_dot).
pub static SPARSE_DOT: Shader = Shader {
    file: "sae/sparse_dot.wgsl",
    text: include_str!("../../shaders/sae/sparse_dot.wgsl"),
    shared: &[],
    constants: &[],
    bindings: &[
        reads("g", "f32"),
        reads("w", "f32"),
        reads("indices", "i32"),
        reads("sizes", "u32"),
        writes("s", "f32"),
    ],
    workgroup: [256, 1, 1],
};

/// The kernel of [`ops::sparse_matmul_t`](crate::ops::sparse_matmul_t).
pub static SPARSE_MATMUL_T: Shader = Shader {
    file: "sae/sparse_matmul_t.wgsl",
    text: include_str!("../../shaders/sae/sparse_matmul_t.wgsl"),
    shared: &[],
    constants: &[],
    bindings: &[
        reads("starts", "i32"),
        reads("rows", "i32"),
        reads("values", "f32"),
        reads("g", "f32"),
        reads("sizes", "u32"),
        writes("r", "f32"),
    ],
    workgroup: [128, 1, 1],
};

/// Columns of a row that a workgroup may keep: multiples of 128.
pub const ROW: &[u32] = &[512, 1024, 2048, 3072];

const ROW_CONSTANT: Constant = Constant {
    name: "ROW",
    allowed: ROW,
};

/// The kernel of [`ops::adam_rows`](crate::ops::adam_rows).
pub static ADAM_ROWS: Shader = Shader {
    file: "sae/adam_rows.wgsl",
    text: include_str!("../../shaders/sae/adam_rows.wgsl"),
    shared: &[],
    constants: &[flag("UNIT"), flag("LAZY"), ROW_CONSTANT],
    bindings: &[
        writes("w", "f32"),
        writes("m", "f32"),
        writes("v", "f32"),
        reads("starts", "i32"),
        reads("rows", "i32"),
        reads("values", "f32"),
        reads("g", "f32"),
        reads("settings", "f32"),
    ],
    workgroup: [128, 1, 1],
};

/// The kernel of [`ops::grad_squares`](crate::ops::grad_squares).
pub static GRAD_SQUARES: Shader = Shader {
    file: "sae/grad_squares.wgsl",
    text: include_str!("../../shaders/sae/grad_squares.wgsl"),
    shared: &[],
    constants: &[flag("UNIT"), ROW_CONSTANT],
    bindings: &[
        reads("w", "f32"),
        reads("starts", "i32"),
        reads("rows", "i32"),
        reads("values", "f32"),
        reads("g", "f32"),
        reads("sizes", "u32"),
        writes("squares", "f32"),
    ],
    workgroup: [128, 1, 1],
};

/// Forms of a pair of rows that [`ops::pair_sums`](crate::ops::pair_sums) knows.
const FORMS: &[u32] = &[0, 1, 2, 3, 4];

/// The first kernel of [`ops::pair_sums`](crate::ops::pair_sums).
pub static PAIR_SUMS: Shader = Shader {
    file: "similarity/pair_sums.wgsl",
    text: include_str!("../../shaders/similarity/pair_sums.wgsl"),
    shared: &[],
    constants: &[
        Constant {
            name: "FORM_A",
            allowed: FORMS,
        },
        Constant {
            name: "FORM_B",
            allowed: FORMS,
        },
    ],
    bindings: &[
        reads("a", "f32"),
        reads("b", "f32"),
        reads("squares", "f32"),
        reads("sizes", "u32"),
        writes("by_row", "f32"),
        writes("by_column", "f32"),
    ],
    workgroup: [256, 1, 1],
};

/// The second, repeated until one sum is left.
pub static FOLD: Shader = Shader {
    file: "similarity/fold.wgsl",
    text: include_str!("../../shaders/similarity/fold.wgsl"),
    shared: &[],
    constants: &[],
    bindings: &[
        reads("parts", "f32"),
        reads("sizes", "u32"),
        writes("sums", "f32"),
    ],
    workgroup: [256, 1, 1],
};

/// What [`ops::rank`](crate::ops::rank()) sorts by.
pub static RANK_KEYS: Shader = Shader {
    file: "similarity/rank_keys.wgsl",
    text: include_str!("../../shaders/similarity/rank_keys.wgsl"),
    shared: &[ORDER],
    constants: &[],
    bindings: &[
        reads("x", "u32"),
        reads("sizes", "u32"),
        writes("keys", "u32"),
    ],
    workgroup: [256, 1, 1],
};

/// The ranks of [`ops::rank`](crate::ops::rank()), once it has sorted.
pub static RANK_WRITE: Shader = Shader {
    file: "similarity/rank_write.wgsl",
    text: include_str!("../../shaders/similarity/rank_write.wgsl"),
    shared: &[],
    constants: &[],
    bindings: &[
        reads("keys", "u32"),
        reads("entries", "u32"),
        reads("sizes", "u32"),
        writes("ranks", "i32"),
    ],
    workgroup: [256, 1, 1],
};

/// The kernel of [`ops::cross_sums`](crate::ops::cross_sums()).
pub static CROSS_SUMS: Shader = Shader {
    file: "similarity/cross_sums.wgsl",
    text: include_str!("../../shaders/similarity/cross_sums.wgsl"),
    shared: &[],
    constants: &[],
    bindings: &[
        reads("x", "f32"),
        reads("y", "f32"),
        reads("sizes", "u32"),
        writes("hi", "f32"),
        writes("lo", "f32"),
    ],
    workgroup: [256, 1, 1],
};
