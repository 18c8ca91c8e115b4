//! Every shader, with the constants and bindings that Rust relies on.

use super::{Binding, Constant, Shader};

/// Every shader of this crate.
pub static SHADERS: &[&Shader] = &[&TOPK];

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
