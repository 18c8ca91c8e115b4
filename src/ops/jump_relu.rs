//! JumpReLU and its count of active latents, with straight-through gradients of the threshold.

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

/// How the straight-through estimators see the step at a threshold.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Ste {
    /// ε: the width of the window around the threshold, in units of the pre-activations.
    pub bandwidth: f64,
}

impl Default for Ste {
    /// ε = 0.001, as in the paper, whose inputs have a mean squared norm of 1.
    fn default() -> Self {
        Self { bandwidth: 1e-3 }
    }
}

/// `f = z · 1[z > θ]` and the number of `z > θ` in every row, in one pass.
///
/// `z` is `[n, d_sae]`, `threshold` (θ itself, not its logarithm) is `[d_sae]`; `f` is `[n, d_sae]`
/// and `l0` `[n]`, in the float type of `z` (f32 counts exactly to 2^24, f16 to 2,048). `n` and
/// `d_sae` may be 0. The comparison is literal whatever the sign of θ: with θ < 0 an `f` may be
/// negative, or 0 and still be counted. Where `z` or θ is NaN, `f` is NaN and nothing is counted. In
/// f32 the CPU and WGSL give the same bits, subnormals included.
///
/// On an autodiff device the gradients are those of [`jump_relu_backward`]: `z` gets one from `f`,
/// θ one from each of `f` and `l0`. The two outputs are two nodes of the graph, so the backward pass
/// runs once for each that is used.
///
/// # Panics
/// Unless `threshold` has `d_sae` elements of the type of `z` and 1e-30 ≤ ε ≤ 1e30.
///
/// Cost: one pass over `z`; on wgpu one workgroup a row. Tensors that are not contiguous are copied.
/// Floats other than f32, and runtimes without WGSL, take the tensor-op form: about eight passes.
///
/// Source: Rajamanoharan et al., "Jumping Ahead", 2024, eqs. 11 and 12 with the rectangle kernel.
/// They hold log θ as the parameter; here it is θ.
///
/// ```
/// use burn::tensor::Tensor;
/// use inscape::{Device, ops::{Ste, jump_relu}};
/// let device = Device::cpu();
/// let z = Tensor::<2>::from_floats([[0.5, 0.2, -1.0], [0.3, 0.4, 2.0]], device.tensor());
/// let threshold = Tensor::<1>::from_floats([0.3, 0.3, 0.3], device.tensor());
/// let (f, l0) = jump_relu(z, threshold, Ste::default());
/// let f = f.into_data().try_to_vec::<f32>().unwrap();
/// assert_eq!(f, [0.5, 0.0, 0.0, 0.0, 0.4, 2.0]);
/// assert_eq!(l0.into_data().try_to_vec::<f32>().unwrap(), [1.0, 2.0]);
/// ```
pub fn jump_relu(z: Tensor<2>, threshold: Tensor<1>, ste: Ste) -> (Tensor<2>, Tensor<1>) {
    check("jump_relu", &z, &threshold, ste);
    let (z, threshold) = (z.into_dispatch(), threshold.into_dispatch());
    let (f, l0) = <Dispatch as JumpReluOps>::jump_relu(z, threshold, ste.bandwidth);
    (Tensor::from_dispatch(f), Tensor::from_dispatch(l0))
}

/// The gradients of `z` `[n, d_sae]` and `threshold` `[d_sae]` from those of the two outputs of
/// [`jump_relu`], `g_f` `[n, d_sae]` and `g_l0` `[n]`, in one pass.
///
/// `dz = g_f · 1[z > θ]`, whatever `g_f` is elsewhere; `l0` gives none to `z`.
/// `dθ_j = −1/ε · Σ_i 1[|z_ij − θ_j| < ε/2] · (θ_j · g_f,ij + g_l0,i)`.
/// Where `z` or θ is NaN, so is `dz`, and with it the `dθ` of that latent. The rows are summed in
/// chunks of 64 and the chunks in order: the same bits from run to run and on any number of
/// threads. Not differentiable itself.
///
/// # Panics
/// As [`jump_relu`], and unless `g_f` and `g_l0` fit.
///
/// Cost: one pass over `z` and `g_f`, and `n · d_sae / 64` floats beside the results. Elsewhere as
/// [`jump_relu`].
pub fn jump_relu_backward(
    z: Tensor<2>,
    threshold: Tensor<1>,
    g_f: Tensor<2>,
    g_l0: Tensor<1>,
    ste: Ste,
) -> (Tensor<2>, Tensor<1>) {
    check("jump_relu_backward", &z, &threshold, ste);
    let (z_dims, g_dims, l0_dims) = (z.dims(), g_f.dims(), g_l0.dims());
    assert!(
        z_dims == g_dims && l0_dims[0] == z_dims[0],
        "jump_relu_backward: z {z_dims:?}, g_f {g_dims:?}, g_l0 {l0_dims:?}"
    );
    let (dz, d_threshold) = <Dispatch as JumpReluOps>::jump_relu_backward(
        z.into_dispatch(),
        threshold.into_dispatch(),
        g_f.into_dispatch(),
        g_l0.into_dispatch(),
        ste.bandwidth,
    );
    (
        Tensor::from_dispatch(dz),
        Tensor::from_dispatch(d_threshold),
    )
}

fn check(op: &str, z: &Tensor<2>, threshold: &Tensor<1>, ste: Ste) {
    let ([n, d_sae], [d]) = (z.dims(), threshold.dims());
    let (of_z, of_threshold) = (z.dtype(), threshold.dtype());
    assert!(
        d == d_sae && of_z == of_threshold,
        "{op}: z [{n}, {d_sae}] of {of_z:?}, threshold [{d}] of {of_threshold:?}"
    );
    let fits = (1e-30..=1e30).contains(&ste.bandwidth);
    assert!(fits, "{op}: bandwidth {}", ste.bandwidth);
}

/// The backends' side of [`jump_relu`]: shapes and types that fit, `bandwidth` ε.
#[backend_extension(Flex, Cube, Autodiff)]
pub trait JumpReluOps: Backend {
    /// See [`jump_relu`]. Only its gradients look at the bandwidth.
    fn jump_relu(
        z: FloatTensor<Self>,
        threshold: FloatTensor<Self>,
        _bandwidth: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        reference::<Self>(z, threshold)
    }

    /// See [`jump_relu_backward`].
    fn jump_relu_backward(
        z: FloatTensor<Self>,
        threshold: FloatTensor<Self>,
        g_f: FloatTensor<Self>,
        g_l0: FloatTensor<Self>,
        bandwidth: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        reference_backward::<Self>(z, threshold, g_f, g_l0, bandwidth)
    }

    /// The part of the gradient of the threshold that comes from `l0`.
    fn jump_relu_backward_l0(
        z: FloatTensor<Self>,
        threshold: FloatTensor<Self>,
        g_l0: FloatTensor<Self>,
        bandwidth: f64,
    ) -> FloatTensor<Self> {
        reference_backward_l0::<Self>(z, threshold, g_l0, bandwidth)
    }
}

type Pair<B> = (FloatTensor<B>, FloatTensor<B>);

fn reference<B: Backend>(z: FloatTensor<B>, threshold: FloatTensor<B>) -> Pair<B> {
    let places = Places::<B>::new(&z, threshold);
    let l0 = masks::row_counts::<B>(places.above.clone(), &z);
    (places.above(z), l0)
}

fn reference_backward<B: Backend>(
    z: FloatTensor<B>,
    threshold: FloatTensor<B>,
    g_f: FloatTensor<B>,
    g_l0: FloatTensor<B>,
    bandwidth: f64,
) -> Pair<B> {
    let of_l0 = reference_backward_l0::<B>(z.clone(), threshold.clone(), g_l0, bandwidth);
    let places = Places::<B>::new(&z, threshold);
    let terms = B::float_mul(places.threshold.clone(), g_f.clone());
    let of_f = places.near(z, terms, bandwidth);
    (places.above(g_f), B::float_add(of_f, of_l0))
}

fn reference_backward_l0<B: Backend>(
    z: FloatTensor<B>,
    threshold: FloatTensor<B>,
    g_l0: FloatTensor<B>,
    bandwidth: f64,
) -> FloatTensor<B> {
    let terms = masks::along_rows::<B>(g_l0, &z);
    Places::<B>::new(&z, threshold).near(z, terms, bandwidth)
}

/// Where every element of `z` lies; all `[n, d_sae]`.
struct Places<B: Backend> {
    threshold: FloatTensor<B>,
    above: BoolTensor<B>,
    nan: BoolTensor<B>,
}

impl<B: Backend> Places<B> {
    fn new(z: &FloatTensor<B>, threshold: FloatTensor<B>) -> Self {
        let threshold = masks::under_rows::<B>(threshold, z);
        Self {
            above: masks::greater::<B>(z, &threshold),
            nan: masks::either_nan::<B>(z, &threshold),
            threshold,
        }
    }

    /// `v · 1[z > θ]`.
    fn above(self, v: FloatTensor<B>) -> FloatTensor<B> {
        masks::masked::<B>(v, self.above, self.nan)
    }

    /// `−1/ε · Σ_i 1[|z − θ| < ε/2] · v`: `[d_sae]`.
    fn near(&self, z: FloatTensor<B>, v: FloatTensor<B>, bandwidth: f64) -> FloatTensor<B> {
        let distance = B::float_abs(B::float_sub(z, self.threshold.clone()));
        let near = masks::below::<B>(distance, bandwidth / 2.0);
        let terms = masks::masked::<B>(v, near, self.nan.clone());
        B::float_mul_scalar(masks::column_sums::<B>(terms), (-1.0 / bandwidth).into())
    }
}

/// Half the window, as the CPU form and the shader compare with it.
fn half(bandwidth: f64) -> f32 {
    (bandwidth / 2.0) as f32
}

/// `−1/ε`.
fn scale(bandwidth: f64) -> f32 {
    (-1.0 / bandwidth) as f32
}

/// Two nodes over one forward pass. The backward functions have no gradients themselves.
impl<B: JumpReluOps, C: CheckpointStrategy> JumpReluOps for Autodiff<B, C> {
    fn jump_relu(z: FloatTensor<Self>, threshold: FloatTensor<Self>, bandwidth: f64) -> Pair<Self> {
        let (z, of_z) = z.into_parts();
        let (of_f, of_l0) = (threshold.node(), threshold.node());
        let threshold = threshold.into_primitive();
        let (f, l0) = B::jump_relu(z.clone(), threshold.clone(), bandwidth);
        let state = (z, threshold, bandwidth);
        let f = autodiff::record::<B, C, _, 2>(OfF, [of_z, of_f], state.clone(), f);
        (f, autodiff::record::<B, C, _, 1>(OfL0, [of_l0], state, l0))
    }

    fn jump_relu_backward(
        z: FloatTensor<Self>,
        threshold: FloatTensor<Self>,
        g_f: FloatTensor<Self>,
        g_l0: FloatTensor<Self>,
        bandwidth: f64,
    ) -> Pair<Self> {
        let [z, threshold, g_f, g_l0] = [z, threshold, g_f, g_l0].map(|x| x.into_primitive());
        let (dz, d_threshold) = B::jump_relu_backward(z, threshold, g_f, g_l0, bandwidth);
        (Self::from_inner(dz), Self::from_inner(d_threshold))
    }

    fn jump_relu_backward_l0(
        z: FloatTensor<Self>,
        threshold: FloatTensor<Self>,
        g_l0: FloatTensor<Self>,
        bandwidth: f64,
    ) -> FloatTensor<Self> {
        let [z, threshold, g_l0] = [z, threshold, g_l0].map(|x| x.into_primitive());
        Self::from_inner(B::jump_relu_backward_l0(z, threshold, g_l0, bandwidth))
    }
}

/// The node of `f`, over `z` and the threshold.
#[derive(Debug)]
struct OfF;

/// The node of `l0`, over the threshold.
#[derive(Debug)]
struct OfL0;

/// `z`, threshold, bandwidth.
type State<B> = (FloatTensor<B>, FloatTensor<B>, f64);

impl<B: JumpReluOps> Backward<B, 2> for OfF {
    type State = State<B>;

    fn backward(self, ops: Ops<State<B>, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (z, threshold, bandwidth) = ops.state.clone();
        let g_f = grads.consume::<B>(&ops.node);
        let rows = Shape::new([z.shape()[0]]);
        let g_l0 = B::float_zeros(rows, &z.device(), z.dtype().into());
        let (dz, d_threshold) = B::jump_relu_backward(z, threshold, g_f, g_l0, bandwidth);
        autodiff::register::<B, _, 2>(ops, grads, [dz, d_threshold]);
    }
}

impl<B: JumpReluOps> Backward<B, 1> for OfL0 {
    type State = State<B>;

    fn backward(self, ops: Ops<State<B>, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (z, threshold, bandwidth) = ops.state.clone();
        let g_l0 = grads.consume::<B>(&ops.node);
        let d_threshold = B::jump_relu_backward_l0(z, threshold, g_l0, bandwidth);
        autodiff::register::<B, _, 1>(ops, grads, [d_threshold]);
    }
}
