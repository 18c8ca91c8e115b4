//! The gated activation: a gate that is open or shut, and a magnitude behind it.

mod cpu;
mod wgpu;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops};
use burn::backend::tensor::{BoolTensor, FloatTensor};
use burn::backend::{
    Autodiff, AutodiffBackend, Backend, Dispatch, Shape, TensorMetadata, backend_extension,
};
use burn::tensor::Tensor;

use super::{autodiff, masks};

/// The gated activation `f = 1[π > 0] · ReLU(z · exp(r_mag) + b_mag)` with `π = z + b_gate`, the
/// rectified gate `ReLU(π)`, and the number of `f > 0` in every row, in one pass.
///
/// `z` is `[n, d_sae]`, the product `(x − b_dec) W_enc` before any bias; `r_mag`, `b_gate` and
/// `b_mag` are `[d_sae]`. The results are `f` and `gate` `[n, d_sae]` and `l0` `[n]`, in the float
/// type of `z`. `n` and `d_sae` may be 0. `gate` is what the L1 penalty and the auxiliary
/// reconstruction act on. Where π is NaN, `gate` and `f` are NaN; where the magnitude is, `f` is; NaN
/// is not counted. Devices differ in the last bits of `exp` and of sums.
///
/// On an autodiff device the gradients are those of [`gated_backward`]: `z`, `r_mag` and `b_mag` get
/// one from `f`, `z` and `b_gate` one from `gate`; `l0` gives none, so neither does the step. The two
/// outputs are two nodes of the graph, so the backward pass runs once for each that is used.
///
/// # Panics
/// Unless the three vectors have `d_sae` elements of the type of `z`.
///
/// Cost: one pass over `z`; on wgpu one workgroup a row, and a copy of the three vectors. Tensors
/// that are not contiguous are copied. Floats other than f32, and runtimes without WGSL, take the
/// tensor-op form: about a dozen passes.
///
/// Source: Rajamanoharan et al., "Improving Dictionary Learning with Gated Sparse Autoencoders",
/// 2024, section 3.2, with the tied weights given there. They bias the product; here the biases are
/// apart, so that one product serves both paths.
///
/// ```
/// use burn::tensor::Tensor;
/// use inscape::{Device, ops::gated};
/// let device = Device::cpu();
/// let vector = |v: [f32; 3]| Tensor::<1>::from_floats(v, device.tensor());
/// let z = Tensor::<2>::from_floats([[1.0, 1.0, -1.0]], device.tensor());
/// let (r_mag, b_gate, b_mag) = (vector([0.0; 3]), vector([-0.5, -2.0, 0.0]), vector([0.25; 3]));
/// let (f, gate, l0) = gated(z, r_mag, b_gate, b_mag);
/// assert_eq!(f.into_data().try_to_vec::<f32>().unwrap(), [1.25, 0.0, 0.0]);
/// assert_eq!(gate.into_data().try_to_vec::<f32>().unwrap(), [0.5, 0.0, 0.0]);
/// assert_eq!(l0.into_data().try_to_vec::<f32>().unwrap(), [1.0]);
/// ```
pub fn gated(
    z: Tensor<2>,
    r_mag: Tensor<1>,
    b_gate: Tensor<1>,
    b_mag: Tensor<1>,
) -> (Tensor<2>, Tensor<2>, Tensor<1>) {
    check("gated", &z, [&r_mag, &b_gate, &b_mag]);
    let [r_mag, b_gate, b_mag] = [r_mag, b_gate, b_mag].map(Tensor::into_dispatch);
    let (f, gate, l0) = <Dispatch as GatedOps>::gated(z.into_dispatch(), r_mag, b_gate, b_mag);
    (
        Tensor::from_dispatch(f),
        Tensor::from_dispatch(gate),
        Tensor::from_dispatch(l0),
    )
}

/// The gradients of `z` `[n, d_sae]` and of `r_mag`, `b_gate`, `b_mag` `[d_sae]`, in this order, from
/// those of the outputs of [`gated`], `g_f` and `g_gate` `[n, d_sae]`, in one pass.
///
/// With `F = g_f · 1[π > 0] · 1[magnitude > 0]` and `G = g_gate · 1[π > 0]`, whatever the gradients
/// are elsewhere: `dz = F · exp(r_mag) + G`, and over the rows `dr_mag = Σ F · z · exp(r_mag)`,
/// `db_gate = Σ G`, `db_mag = Σ F`. Where π or the magnitude is NaN, so is `dz`, and with it the
/// gradients of the parameters that it passes through. The rows are summed in chunks of 64 and the
/// chunks in order: the same bits from run to run and on any number of threads. Not differentiable
/// itself.
///
/// # Panics
/// As [`gated`], and unless `g_f` and `g_gate` have the shape of `z`.
///
/// Cost: one pass over `z`, `g_f` and `g_gate`, and `3 · n · d_sae / 64` floats beside the results.
/// Elsewhere as [`gated`].
pub fn gated_backward(
    z: Tensor<2>,
    r_mag: Tensor<1>,
    b_gate: Tensor<1>,
    b_mag: Tensor<1>,
    g_f: Tensor<2>,
    g_gate: Tensor<2>,
) -> (Tensor<2>, Tensor<1>, Tensor<1>, Tensor<1>) {
    check("gated_backward", &z, [&r_mag, &b_gate, &b_mag]);
    let (of_z, of_f, of_gate) = (z.dims(), g_f.dims(), g_gate.dims());
    assert!(
        of_z == of_f && of_z == of_gate,
        "gated_backward: z {of_z:?}, g_f {of_f:?}, g_gate {of_gate:?}"
    );
    let [r_mag, b_gate, b_mag] = [r_mag, b_gate, b_mag].map(Tensor::into_dispatch);
    let [z, g_f, g_gate] = [z, g_f, g_gate].map(Tensor::into_dispatch);
    let (dz, r_mag, b_gate, b_mag) = <Dispatch as GatedOps>::gated_backward(
        z,
        r_mag,
        b_gate,
        b_mag,
        g_f,
        g_gate,
        GatedOutputs::Both,
    );
    (
        Tensor::from_dispatch(dz),
        Tensor::from_dispatch(r_mag),
        Tensor::from_dispatch(b_gate),
        Tensor::from_dispatch(b_mag),
    )
}

fn check(op: &str, z: &Tensor<2>, vectors: [&Tensor<1>; 3]) {
    let ([n, d_sae], of_z) = (z.dims(), z.dtype());
    for (name, vector) in ["r_mag", "b_gate", "b_mag"].into_iter().zip(vectors) {
        let ([d], of_vector) = (vector.dims(), vector.dtype());
        assert!(
            d == d_sae && of_vector == of_z,
            "{op}: z [{n}, {d_sae}] of {of_z:?}, {name} [{d}] of {of_vector:?}"
        );
    }
}

/// The outputs of [`gated`] that have a gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GatedOutputs {
    /// `f` and `gate`.
    Both,
    /// `f` alone.
    F,
    /// `gate` alone.
    Gate,
}

impl GatedOutputs {
    fn f(self) -> bool {
        self != Self::Gate
    }

    fn gate(self) -> bool {
        self != Self::F
    }
}

/// The backends' side of [`gated`]: shapes and types that fit.
#[backend_extension(Flex, Cube, Autodiff)]
pub trait GatedOps: Backend {
    /// See [`gated`].
    fn gated(
        z: FloatTensor<Self>,
        r_mag: FloatTensor<Self>,
        b_gate: FloatTensor<Self>,
        b_mag: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        reference::<Self>(z, [r_mag, b_gate, b_mag])
    }

    /// See [`gated_backward`]. The gradient of an output that is not in `of` is not looked at, and
    /// what only it would reach is 0.
    fn gated_backward(
        z: FloatTensor<Self>,
        r_mag: FloatTensor<Self>,
        b_gate: FloatTensor<Self>,
        b_mag: FloatTensor<Self>,
        g_f: FloatTensor<Self>,
        g_gate: FloatTensor<Self>,
        of: GatedOutputs,
    ) -> (
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
    ) {
        reference_backward::<Self>(z, [r_mag, b_gate, b_mag], [g_f, g_gate], of)
    }
}

type Three<B> = (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>);
type Four<B> = (
    FloatTensor<B>,
    FloatTensor<B>,
    FloatTensor<B>,
    FloatTensor<B>,
);
/// `r_mag`, `b_gate`, `b_mag`.
type Vectors<B> = [FloatTensor<B>; 3];

fn reference<B: Backend>(z: FloatTensor<B>, vectors: Vectors<B>) -> Three<B> {
    let paths = Paths::<B>::new(z, vectors);
    let l0 = masks::row_counts::<B>(paths.open.clone(), &paths.pi);
    let gate = paths.through_gate(paths.pi.clone());
    (paths.through_f(paths.magnitude.clone()), gate, l0)
}

fn reference_backward<B: Backend>(
    z: FloatTensor<B>,
    vectors: Vectors<B>,
    [g_f, g_gate]: [FloatTensor<B>; 2],
    of: GatedOutputs,
) -> Four<B> {
    let paths = Paths::<B>::new(z.clone(), vectors);
    let none = || {
        let d = Shape::new([z.shape()[1]]);
        B::float_zeros(d, &z.device(), z.dtype().into())
    };
    match of {
        GatedOutputs::Both => {
            let (dz, r_mag, b_mag) = paths.of_f(&z, g_f);
            let (dz_of_gate, b_gate) = paths.of_gate(g_gate);
            (B::float_add(dz, dz_of_gate), r_mag, b_gate, b_mag)
        }
        GatedOutputs::F => {
            let (dz, r_mag, b_mag) = paths.of_f(&z, g_f);
            (dz, r_mag, none(), b_mag)
        }
        GatedOutputs::Gate => {
            let (dz, b_gate) = paths.of_gate(g_gate);
            (dz, none(), b_gate, none())
        }
    }
}

/// Both paths of every element; all `[n, d_sae]`.
struct Paths<B: Backend> {
    pi: FloatTensor<B>,
    magnitude: FloatTensor<B>,
    scale: FloatTensor<B>,
    /// Where both are above 0.
    open: BoolTensor<B>,
    /// Where either is NaN.
    nan: BoolTensor<B>,
}

impl<B: Backend> Paths<B> {
    fn new(z: FloatTensor<B>, [r_mag, b_gate, b_mag]: Vectors<B>) -> Self {
        let scale = masks::under_rows::<B>(B::float_exp(r_mag), &z);
        let pi = B::float_add(z.clone(), masks::under_rows::<B>(b_gate, &z));
        let b_mag = masks::under_rows::<B>(b_mag, &z);
        let magnitude = B::float_add(B::float_mul(z, scale.clone()), b_mag);
        let open = B::bool_and(masks::positive::<B>(&pi), masks::positive::<B>(&magnitude));
        Self {
            nan: masks::either_nan::<B>(&pi, &magnitude),
            pi,
            magnitude,
            scale,
            open,
        }
    }

    fn through_f(&self, v: FloatTensor<B>) -> FloatTensor<B> {
        masks::masked::<B>(v, self.open.clone(), self.nan.clone())
    }

    fn through_gate(&self, v: FloatTensor<B>) -> FloatTensor<B> {
        let nan = masks::either_nan::<B>(&self.pi, &self.pi);
        masks::masked::<B>(v, masks::positive::<B>(&self.pi), nan)
    }

    /// The gradients of `z`, `r_mag`, `b_mag`.
    fn of_f(&self, z: &FloatTensor<B>, g_f: FloatTensor<B>) -> Three<B> {
        let scaled = B::float_mul(g_f.clone(), self.scale.clone());
        let of_r_mag = self.through_f(B::float_mul(scaled.clone(), z.clone()));
        (
            self.through_f(scaled),
            masks::column_sums::<B>(of_r_mag),
            masks::column_sums::<B>(self.through_f(g_f)),
        )
    }

    /// The gradients of `z` and `b_gate`.
    fn of_gate(&self, g_gate: FloatTensor<B>) -> (FloatTensor<B>, FloatTensor<B>) {
        let dz = self.through_gate(g_gate);
        (dz.clone(), masks::column_sums::<B>(dz))
    }
}

/// Two nodes over one forward pass. The backward function has no gradient itself.
impl<B: GatedOps, C: CheckpointStrategy> GatedOps for Autodiff<B, C> {
    fn gated(
        z: FloatTensor<Self>,
        r_mag: FloatTensor<Self>,
        b_gate: FloatTensor<Self>,
        b_mag: FloatTensor<Self>,
    ) -> Three<Self> {
        let of_f = [z.node(), r_mag.node(), b_mag.node()];
        let of_gate = [z.node(), b_gate.node()];
        let [z, r_mag, b_gate, b_mag] = [z, r_mag, b_gate, b_mag].map(|x| x.into_primitive());
        let (f, gate, l0) = B::gated(z.clone(), r_mag.clone(), b_gate.clone(), b_mag.clone());
        let state = [z, r_mag, b_gate, b_mag];
        let f = autodiff::record::<B, C, _, 3>(OfF, of_f, state.clone(), f);
        let gate = autodiff::record::<B, C, _, 2>(OfGate, of_gate, state, gate);
        (f, gate, Self::from_inner(l0))
    }

    fn gated_backward(
        z: FloatTensor<Self>,
        r_mag: FloatTensor<Self>,
        b_gate: FloatTensor<Self>,
        b_mag: FloatTensor<Self>,
        g_f: FloatTensor<Self>,
        g_gate: FloatTensor<Self>,
        of: GatedOutputs,
    ) -> Four<Self> {
        let inner = |x: FloatTensor<Self>| x.into_primitive();
        let (z, g_f, g_gate) = (inner(z), inner(g_f), inner(g_gate));
        let [r_mag, b_gate, b_mag] = [r_mag, b_gate, b_mag].map(inner);
        let (dz, r_mag, b_gate, b_mag) =
            B::gated_backward(z, r_mag, b_gate, b_mag, g_f, g_gate, of);
        let [dz, r_mag, b_gate, b_mag] = [dz, r_mag, b_gate, b_mag].map(Self::from_inner);
        (dz, r_mag, b_gate, b_mag)
    }
}

/// The node of `f`, over `z`, `r_mag` and `b_mag`.
#[derive(Debug)]
struct OfF;

/// The node of `gate`, over `z` and `b_gate`.
#[derive(Debug)]
struct OfGate;

/// `z`, `r_mag`, `b_gate`, `b_mag`.
type State<B> = [FloatTensor<B>; 4];

impl<B: GatedOps> Backward<B, 3> for OfF {
    type State = State<B>;

    fn backward(self, ops: Ops<State<B>, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [z, r_mag, b_gate, b_mag] = ops.state.clone();
        let g = grads.consume::<B>(&ops.node);
        let (dz, r_mag, _, b_mag) =
            B::gated_backward(z, r_mag, b_gate, b_mag, g.clone(), g, GatedOutputs::F);
        autodiff::register::<B, _, 3>(ops, grads, [dz, r_mag, b_mag]);
    }
}

impl<B: GatedOps> Backward<B, 2> for OfGate {
    type State = State<B>;

    fn backward(self, ops: Ops<State<B>, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [z, r_mag, b_gate, b_mag] = ops.state.clone();
        let g = grads.consume::<B>(&ops.node);
        let (dz, _, b_gate, _) =
            B::gated_backward(z, r_mag, b_gate, b_mag, g.clone(), g, GatedOutputs::Gate);
        autodiff::register::<B, _, 2>(ops, grads, [dz, b_gate]);
    }
}
