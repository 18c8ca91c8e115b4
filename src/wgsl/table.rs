//! Every shader, with the constants and bindings that Rust relies on.

use super::{Binding, Constant, Shader};

/// Every shader of this crate.
pub static SHADERS: &[&Shader] = &[
    &BATCH_TOPK_DIGIT,
    &BATCH_TOPK_HISTOGRAM,
    &BATCH_TOPK_MARK,
    &BATCH_TOPK_SCAN,
    &BATCH_TOPK_WRITE,
    &TOPK,
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
    shared: &[],
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
