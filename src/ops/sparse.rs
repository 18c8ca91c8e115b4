//! Products with k-sparse rows: what a sparse autoencoder does after its top-k.
//!
//! A sparse batch is `values [n, k]` with `indices [n, k]` into the `d_sae` rows of a weight
//! `w [d_sae, d]`; an index may occur twice in a row and a value may be 0. The meaning of each
//! op is a dense product (the trait's default body, which also serves the GPU); the CPU form
//! touches only the k entries of each row. None of them is differentiable: the autoencoders
//! write their gradients with these same products.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{
    Backend, DType, Dispatch, Flex, Shape, TensorMetadata, backend_extension,
    tensor::IndexingUpdateOp,
};
use burn::tensor::{Int, Tensor, TensorData};
use burn_cubecl::CubeBackend;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::flex::{dims, floats, indices, matrix, plain};

/// `y[i] = Σ_j values[i, j] · w[indices[i, j]]`: sparse rows times a matrix.
///
/// `values` and `indices` `[n, k]`, `w` `[d_sae, d]`, result `[n, d]`.
/// Cost on the CPU: n·k·d multiply-adds, no scratch. Elsewhere a dense product over
/// `[n, d_sae]`, which it holds.
///
/// # Panics
/// If the shapes do not fit, or (on the CPU) an index is not below `d_sae`.
pub fn sparse_decode(values: Tensor<2>, indices: Tensor<2, Int>, w: Tensor<2>) -> Tensor<2> {
    check("sparse_decode", values.dims(), indices.dims(), None);
    let y = <Dispatch as SparseOps>::sparse_decode(
        values.into_dispatch(),
        indices.into_dispatch(),
        w.into_dispatch(),
    );
    Tensor::from_dispatch(y)
}

/// `s[i, j] = g[i] · w[indices[i, j]]`: the entries of `g wᵀ` at the sparse places.
///
/// `g` `[n, d]`, `w` `[d_sae, d]`, `indices` and result `[n, k]`. Cost as [`sparse_decode`].
///
/// # Panics
/// As [`sparse_decode`].
pub fn sparse_dot(g: Tensor<2>, w: Tensor<2>, indices: Tensor<2, Int>) -> Tensor<2> {
    let ([n, d], [_, dw]) = (g.dims(), w.dims());
    assert!(
        indices.dims()[0] == n && d == dw,
        "sparse_dot: g [{n}, {d}], w [_, {dw}], indices {:?}",
        indices.dims()
    );
    let s = <Dispatch as SparseOps>::sparse_dot(
        g.into_dispatch(),
        w.into_dispatch(),
        indices.into_dispatch(),
    );
    Tensor::from_dispatch(s)
}

/// `r[f] = Σ values[i, j] · g[i]` over the entries with `indices[i, j] = f`: the transpose of
/// the sparse matrix times `g`.
///
/// `values` and `indices` `[n, k]`, `g` `[n, d]`, result `[d_sae, d]`. Entries of one latent
/// are summed in row order, so the result is the same bits on any number of threads.
/// Cost on the CPU: n·k·d multiply-adds and n·k indices of scratch.
///
/// # Panics
/// As [`sparse_decode`].
pub fn sparse_matmul_t(
    values: Tensor<2>,
    indices: Tensor<2, Int>,
    g: Tensor<2>,
    d_sae: usize,
) -> Tensor<2> {
    check(
        "sparse_matmul_t",
        values.dims(),
        indices.dims(),
        Some(g.dims()),
    );
    let r = <Dispatch as SparseOps>::sparse_matmul_t(
        values.into_dispatch(),
        indices.into_dispatch(),
        g.into_dispatch(),
        d_sae,
    );
    Tensor::from_dispatch(r)
}

fn check(op: &str, values: [usize; 2], indices: [usize; 2], g: Option<[usize; 2]>) {
    let fits = values == indices && g.is_none_or(|g| g[0] == values[0]);
    assert!(
        fits,
        "{op}: values {values:?}, indices {indices:?}, g {g:?}"
    );
}

/// The backends' side of the sparse products.
#[backend_extension(Flex, Cube)]
pub trait SparseOps: Backend {
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

    /// See [`sparse_matmul_t`].
    fn sparse_matmul_t(
        values: FloatTensor<Self>,
        indices: IntTensor<Self>,
        g: FloatTensor<Self>,
        d_sae: usize,
    ) -> FloatTensor<Self> {
        matmul_t::<Self>(values, indices, g, d_sae)
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

fn matmul_t<B: Backend>(
    values: FloatTensor<B>,
    indices: IntTensor<B>,
    g: FloatTensor<B>,
    d_sae: usize,
) -> FloatTensor<B> {
    B::float_matmul(B::float_transpose(dense::<B>(values, indices, d_sae)), g)
}

impl SparseOps for CubeBackend {}

impl SparseOps for Flex {
    fn sparse_decode(values: FlexTensor, index: FlexTensor, w: FlexTensor) -> FlexTensor {
        let ([n, k], [d_sae, d]) = (dims(&values), dims(&w));
        if !plain(&[&values, &w], &index) || d == 0 || k == 0 {
            return decode::<Self>(values, index, w);
        }
        let (values, w, indices) = (
            values.to_contiguous(),
            w.to_contiguous(),
            indices("sparse_decode", &index, d_sae),
        );
        let mut y = vec![0f32; n * d];
        let rows = floats(&values).par_chunks(k).zip(indices.par_chunks(k));
        y.par_chunks_mut(d)
            .zip(rows)
            .for_each(|(y, (values, indices))| {
                for (&v, &f) in values.iter().zip(indices) {
                    add_scaled(y, v, row(floats(&w), f, d));
                }
            });
        matrix(y, n, d)
    }

    fn sparse_dot(g: FlexTensor, w: FlexTensor, index: FlexTensor) -> FlexTensor {
        let ([n, d], [_, k], [d_sae, _]) = (dims(&g), dims(&index), dims(&w));
        if !plain(&[&g, &w], &index) || d == 0 || k == 0 {
            return dots::<Self>(g, w, index);
        }
        let (g, w, indices) = (
            g.to_contiguous(),
            w.to_contiguous(),
            indices("sparse_dot", &index, d_sae),
        );
        let mut s = vec![0f32; n * k];
        let rows = floats(&g).par_chunks(d).zip(indices.par_chunks(k));
        s.par_chunks_mut(k).zip(rows).for_each(|(s, (g, indices))| {
            for (s, &f) in s.iter_mut().zip(indices) {
                *s = dot(g, row(floats(&w), f, d));
            }
        });
        matrix(s, n, k)
    }

    fn sparse_matmul_t(
        values: FlexTensor,
        index: FlexTensor,
        g: FlexTensor,
        d_sae: usize,
    ) -> FlexTensor {
        let ([_, k], [_, d]) = (dims(&values), dims(&g));
        if !plain(&[&values, &g], &index) || d == 0 || k == 0 {
            return matmul_t::<Self>(values, index, g, d_sae);
        }
        let (values, g, indices) = (
            values.to_contiguous(),
            g.to_contiguous(),
            indices("sparse_matmul_t", &index, d_sae),
        );
        let (starts, order) = by_latent(&indices, d_sae);
        let mut r = vec![0f32; d_sae * d];
        r.par_chunks_mut(d).enumerate().for_each(|(f, r)| {
            for &entry in &order[starts[f] as usize..starts[f + 1] as usize] {
                let entry = entry as usize;
                add_scaled(
                    r,
                    floats(&values)[entry],
                    row(floats(&g), (entry / k) as u32, d),
                );
            }
        });
        matrix(r, d_sae, d)
    }
}

fn row(w: &[f32], f: u32, d: usize) -> &[f32] {
    &w[f as usize * d..][..d]
}

fn add_scaled(y: &mut [f32], v: f32, x: &[f32]) {
    if v != 0.0 {
        y.iter_mut().zip(x).for_each(|(y, x)| *y += v * x);
    }
}

/// A dot product in 16 lanes that the compiler can keep in vector registers.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; 16];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    for (a, b) in a.iter().zip(b) {
        for i in 0..16 {
            lanes[i] += a[i] * b[i];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    lanes.iter().sum::<f32>() + rest
}

/// Entries grouped by latent, each group in entry order: counting sort. The group of latent
/// `f` is `order[starts[f]..starts[f + 1]]`.
fn by_latent(indices: &[u32], d_sae: usize) -> (Vec<u32>, Vec<u32>) {
    let mut starts = vec![0u32; d_sae + 1];
    indices.iter().for_each(|&f| starts[f as usize + 1] += 1);
    (0..d_sae).for_each(|f| starts[f + 1] += starts[f]);
    let mut next = starts.clone();
    let mut order = vec![0u32; indices.len()];
    for (entry, &f) in indices.iter().enumerate() {
        order[next[f as usize] as usize] = entry as u32;
        next[f as usize] += 1;
    }
    (starts, order)
}
