//! Every shader, with the constants and bindings that Rust relies on.

use super::{Binding, Constant, Shader};

/// Every shader of this crate.
pub static SHADERS: &[&Shader] = &[
    &TOPK,
    &JUMP_RELU,
    &JUMP_RELU_BACKWARD,
    &GATED,
    &GATED_BACKWARD,
    &CHUNK_SUMS,
];

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

/// A constant that is 1 or 0.
const fn flag(name: &'static str) -> Constant {
    Constant {
        name,
        allowed: &[0, 1],
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

/// The forward kernel of [`ops::jump_relu`](crate::ops::jump_relu).
pub static JUMP_RELU: Shader = Shader {
    file: "sae/jump_relu.wgsl",
    text: include_str!("../../shaders/sae/jump_relu.wgsl"),
    shared: &[],
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
    shared: &[],
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
