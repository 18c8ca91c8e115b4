//! Sparse rows times a matrix, and its gradients.
//!
//! A sparse batch is `values [n, k]` with `indices [n, k]` into the `d_sae` rows of a weight
//! `w [d_sae, d]`; an index may occur twice in a row and a value may be 0.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops};
use burn::backend::tensor::{FloatTensor, IndexingUpdateOp, IntTensor};
use burn::backend::{
    Autodiff, Backend, DType, Dispatch, Flex, Shape, TensorMetadata, backend_extension,
};
use burn::tensor::{Int, Tensor};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::autodiff::record;
use super::by_latent::ByLatentOps;
use super::cube;
use super::flex::{self, dims, floats, matrix, row};
use super::simd::{add_all, dot, wide};
use super::sparse_matmul_t::{SparseMatmulTOps, is_dense, sums_of};
use crate::wgsl;

/// `y[i] = Σ_j values[i, j] · w[indices[i, j]] + b`: sparse rows times a matrix.
///
/// `values` and `indices` `[n, k]`, `w` `[d_sae, d]`, `b` `[d]` if there is one; the result is
/// `[n, d]`. On an autodiff device gradients flow to the values, to `w` and to `b`; that of `w` is
/// [`sparse_matmul_t`](super::sparse_matmul_t), summed in the order of the rows.
///
/// Cost: n·k·d multiply-adds and no scratch. On the CPU, from half of the latents on (twice
/// [`DENSE_FROM`](super::DENSE_FROM)), a dense product over `[n, d_sae]`, which it then holds; so does the reference,
/// for other floats and runtimes without WGSL. Elsewhere an entry of value 0 is passed over, whatever
/// its row of `w` holds.
///
/// # Panics
/// If the shapes do not fit, or (on the CPU) an index is not below `d_sae`. On wgpu an index that is
/// not is passed over.
///
/// Source: the decoder of a k-sparse autoencoder (Makhzani & Frey 2013; Gao et al. 2024, appendix D).
///
/// ```
/// use burn::tensor::{Int, Tensor};
/// use inscape::{Device, ops::sparse_decode};
/// let cpu = Device::cpu();
/// let values = Tensor::<2>::from_data([[2.0, 1.0]], cpu.tensor());
/// let indices = Tensor::<2, Int>::from_data([[2, 0]], cpu.tensor());
/// let w = Tensor::<2>::from_data([[1.0, 0.0], [5.0, 5.0], [0.0, 3.0]], cpu.tensor());
/// let y = sparse_decode(values, indices, w, None);
/// assert_eq!(y.into_data().try_to_vec::<f32>().unwrap(), [1.0, 6.0]);
/// ```
pub fn sparse_decode(
    values: Tensor<2>,
    indices: Tensor<2, Int>,
    w: Tensor<2>,
    b: Option<Tensor<1>>,
) -> Tensor<2> {
    let (v, i) = (values.dims(), indices.dims());
    assert!(v == i, "sparse_decode: values {v:?}, indices {i:?}");
    let y = <Dispatch as SparseDecodeOps>::sparse_decode(
        values.into_dispatch(),
        indices.into_dispatch(),
        w.into_dispatch(),
    );
    let y = Tensor::<2>::from_dispatch(y);
    match b {
        Some(b) => {
            assert!(
                b.dims()[0] == y.dims()[1],
                "sparse_decode: b {:?} to {:?}",
                b.dims(),
                y.dims()
            );
            y + b.unsqueeze()
        }
        None => y,
    }
}

/// `s[i, j] = g[i] · w[indices[i, j]]`: the entries of `g wᵀ` at the sparse places.
///
/// `g` `[n, d]`, `w` `[d_sae, d]`, `indices` and result `[n, k]`. Cost as [`sparse_decode`], of
/// whose values it gives the gradient. Its own gradients take dense products.
///
/// # Panics
/// As [`sparse_decode`].
pub fn sparse_dot(g: Tensor<2>, w: Tensor<2>, indices: Tensor<2, Int>) -> Tensor<2> {
    let ([n, d], [_, dw], i) = (g.dims(), w.dims(), indices.dims());
    assert!(
        i[0] == n && d == dw,
        "sparse_dot: g [{n}, {d}], w [_, {dw}], indices {i:?}"
    );
    let s = <Dispatch as SparseDecodeOps>::sparse_dot(
        g.into_dispatch(),
        w.into_dispatch(),
        indices.into_dispatch(),
    );
    Tensor::from_dispatch(s)
}

/// The backends' side of [`sparse_decode`] and [`sparse_dot`].
#[backend_extension(Flex, Cube, Autodiff)]
pub trait SparseDecodeOps: Backend {
    /// See [`sparse_decode`].
    fn sparse_decode(
        values: FloatTensor<Self>,
        indices: IntTensor<Self>,
        w: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        decode::<Self>(values, indices, w)
    }

    /// See [`sparse_dot`].
    fn sparse_dot(
        g: FloatTensor<Self>,
        w: FloatTensor<Self>,
        indices: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        dots::<Self>(g, w, indices)
    }
}

/// The sparse rows as `[n, d_sae]`.
fn dense<B: Backend>(
    values: FloatTensor<B>,
    indices: IntTensor<B>,
    d_sae: usize,
) -> FloatTensor<B> {
    let shape = Shape::new([values.shape()[0], d_sae]);
    let zeros = B::float_zeros(shape, &values.device(), values.dtype().into());
    B::float_scatter(1, zeros, indices, values, IndexingUpdateOp::Add)
}

fn decode<B: Backend>(
    values: FloatTensor<B>,
    indices: IntTensor<B>,
    w: FloatTensor<B>,
) -> FloatTensor<B> {
    B::float_matmul(dense::<B>(values, indices, w.shape()[0]), w)
}

fn dots<B: Backend>(g: FloatTensor<B>, w: FloatTensor<B>, indices: IntTensor<B>) -> FloatTensor<B> {
    B::float_gather(1, B::float_matmul(g, B::float_transpose(w)), indices)
}

impl SparseDecodeOps for CubeBackend {
    fn sparse_decode(values: CubeTensor, indices: CubeTensor, w: CubeTensor) -> CubeTensor {
        if !cube::takes_wgsl(&[&values, &w]) || !cube::takes_wgsl_ints(&[&indices]) {
            return decode::<Self>(values, indices, w);
        }
        let ([n, k], [d_sae, d]) = (cube::dims(&values), cube::dims(&w));
        let y = cube::output(&w, [n, d], DType::F32);
        let sizes = [n, k, d_sae, d];
        row_by_row(&wgsl::SPARSE_DECODE, [values, indices, w], sizes, &y);
        y
    }

    fn sparse_dot(g: CubeTensor, w: CubeTensor, indices: CubeTensor) -> CubeTensor {
        if !cube::takes_wgsl(&[&g, &w]) || !cube::takes_wgsl_ints(&[&indices]) {
            return dots::<Self>(g, w, indices);
        }
        let ([n, k], [d_sae, d]) = (cube::dims(&indices), cube::dims(&w));
        let s = cube::output(&w, [n, k], DType::F32);
        let sizes = [n, k, d_sae, d];
        row_by_row(&wgsl::SPARSE_DOT, [g, w, indices], sizes, &s);
        s
    }
}

/// Queues a workgroup for every row of the result.
fn row_by_row(
    shader: &'static wgsl::Shader,
    inputs: [CubeTensor; 3],
    sizes: [usize; 4],
    output: &CubeTensor,
) {
    let [a, b, c] = inputs.map(into_contiguous);
    cube::assert_addressable(shader.file, &[&a, &b, &c, output]);
    let rows = match output.shape().num_elements() {
        0 => 0,
        _ => sizes[0] as u64,
    };
    let sizes = cube::sizes(output, &sizes);
    let buffers = vec![a.handle, b.handle, c.handle, sizes, output.handle.clone()];
    wgsl::launch(&output.client, shader.kernel(&[]), rows, buffers);
}

impl SparseDecodeOps for Flex {
    fn sparse_decode(values: FlexTensor, indices: FlexTensor, w: FlexTensor) -> FlexTensor {
        let ([n, k], [d_sae, d]) = (dims(&values), dims(&w));
        if !flex::plain(&[&values, &w], &indices) || d * k == 0 {
            return decode::<Self>(values, indices, w);
        }
        let latents = flex::indices("sparse_decode", &indices, d_sae);
        if is_dense(k, 2 * d_sae) {
            return decode::<Self>(values, indices, w);
        }
        let (values, w) = (values.to_contiguous(), w.to_contiguous());
        let w = floats(&w);
        let entries = floats(&values).par_chunks(k).zip(latents.par_chunks(k));
        let mut y = vec![0f32; n * d];
        y.par_chunks_mut(d)
            .zip(entries)
            .for_each(|(y, (values, latents))| {
                let rows = latents.iter().map(|&f| row(w, f as usize, d));
                wide(|| add_all(y, values.iter().copied().zip(rows)));
            });
        matrix(y, n, d)
    }

    fn sparse_dot(g: FlexTensor, w: FlexTensor, indices: FlexTensor) -> FlexTensor {
        let ([n, d], [_, k], [d_sae, _]) = (dims(&g), dims(&indices), dims(&w));
        if !flex::plain(&[&g, &w], &indices) || d * k == 0 {
            return dots::<Self>(g, w, indices);
        }
        let latents = flex::indices("sparse_dot", &indices, d_sae);
        if is_dense(k, 2 * d_sae) {
            return dots::<Self>(g, w, indices);
        }
        let (g, w) = (g.to_contiguous(), w.to_contiguous());
        let w = floats(&w);
        let mut s = vec![0f32; n * k];
        let rows = floats(&g).par_chunks(d).zip(latents.par_chunks(k));
        s.par_chunks_mut(k).zip(rows).for_each(|(s, (g, latents))| {
            wide(|| {
                for (s, &f) in s.iter_mut().zip(latents) {
                    *s = dot(g, row(w, f as usize, d));
                }
            });
        });
        matrix(s, n, k)
    }
}

/// Backward of [`sparse_decode`] by the values and by `w`.
#[derive(Debug)]
struct Decode;

impl<B: Backend + SparseDecodeOps + ByLatentOps + SparseMatmulTOps> Backward<B, 2> for Decode {
    type State = (FloatTensor<B>, IntTensor<B>, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (values, indices, w) = ops.state;
        let g = grads.consume::<B>(&ops.node);
        let [to_values, to_w] = ops.parents;
        if let Some(node) = to_values {
            let s = B::sparse_dot(g.clone(), w.clone(), indices.clone());
            grads.register::<B>(node.id, s);
        }
        if let Some(node) = to_w {
            grads.register::<B>(node.id, sums_of::<B>(values, indices, g, w.shape()[0]));
        }
    }
}

impl<B, C> SparseDecodeOps for Autodiff<B, C>
where
    B: Backend + SparseDecodeOps + ByLatentOps + SparseMatmulTOps,
    C: CheckpointStrategy,
{
    fn sparse_decode(
        values: FloatTensor<Self>,
        indices: IntTensor<Self>,
        w: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let parents = [values.node(), w.node()];
        let (values, w) = (values.into_primitive(), w.into_primitive());
        let y = B::sparse_decode(values.clone(), indices.clone(), w.clone());
        record::<B, C, _, 2>(Decode, parents, (values, indices, w), y)
    }

    /// A product of tracked operations: a gradient's gradient takes the dense way.
    fn sparse_dot(
        g: FloatTensor<Self>,
        w: FloatTensor<Self>,
        indices: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        dots::<Self>(g, w, indices)
    }
}
