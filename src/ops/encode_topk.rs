//! The encoder of a k-sparse autoencoder: a product and its top-k, never held whole.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Dispatch, Flex, Shape, TensorMetadata, backend_extension};
use burn::tensor::{Int, Slice, Tensor};
use burn_cubecl::CubeBackend;
use burn_flex::FlexTensor;
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;

use super::autodiff::record;
use super::by_latent::ByLatentOps;
use super::flex::{self, dims, floats};
use super::simd::wide;
use super::sparse_decode::SparseDecodeOps;
use super::sparse_matmul_t::{SparseMatmulTOps, sums_of};
use super::topk::{Best, TopkOps, check_k, topk};

/// What [`encode_topk`] does besides the product and the selection.
#[derive(Clone, Debug)]
pub struct Encode {
    /// Latents kept a row.
    pub k: usize,
    /// Negative values become 0, after the selection; NaN stays. A ReLU before it would give the same
    /// values, but of the zeros the lowest latents.
    pub relu: bool,
    /// `[d]`, taken from every row of `x` first.
    pub b_dec: Option<Tensor<1>>,
    /// `[d_sae]`, above 0: pre-activations are multiplied by it before the selection. The lengths of
    /// the decoder's rows, where those are not 1 (SAELens's `rescale_acts_by_decoder_norm`).
    pub norms: Option<Tensor<1>>,
}

impl Encode {
    /// The k largest, ReLU'd, of `x` as it is.
    pub fn new(k: usize) -> Self {
        Self {
            k,
            relu: true,
            b_dec: None,
            norms: None,
        }
    }
}

/// `TopK((x − b_dec) W_enc + b_enc)`: values and latents of the k largest pre-activations a row.
///
/// `x` is `[n, d]`, `w_enc` is `W_encᵀ` `[d_sae, d]` (one row a latent), `b_enc` `[d_sae]`; values
/// (falling) and indices (i32) are `[n, k]`. Exact, ties to the lowest latent, NaN in front: as
/// [`topk`](super::topk) of the whole product. The product itself may round differently on other
/// devices and for other batches, and near ties with it.
///
/// On an autodiff device gradients flow to `x`, `w_enc`, `b_enc`, `b_dec` and the norms, through the
/// chosen latents only. A value made 0 by the ReLU passes none on. All of the values carry
/// gradients, whatever they are used for: auxiliary losses reach the encoder.
///
/// Cost: n·d·d_sae multiply-adds and one scan of their result. Memory: never `[n, d_sae]`, but a chunk
/// of it of about [`CHUNK`] values (on wgpu and in the reference at most n·[`COLUMNS`]) and about
/// 2 k candidates a row. Gradients cost 2·n·k·d multiply-adds; that of `w_enc` is a dense `[d_sae, d]`.
///
/// # Panics
/// If the shapes do not fit, k is 0 or above 1024 or `d_sae`, or `d_sae` is above 1,048,576.
///
/// Source: Gao et al. 2024, "Scaling and evaluating sparse autoencoders", equation 2.
///
/// ```
/// use burn::tensor::Tensor;
/// use inscape::{Device, ops::{Encode, encode_topk}};
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::from_data([[1.0, 2.0]], cpu.tensor());
/// let w = Tensor::<2>::from_data([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], cpu.tensor());
/// let b = Tensor::<1>::from_data([0.5, 0.0, -4.0], cpu.tensor());
/// let (values, indices) = encode_topk(x, w, b, &Encode::new(2));
/// assert_eq!(values.into_data().try_to_vec::<f32>().unwrap(), [2.0, 1.5]);
/// assert_eq!(indices.into_data().try_to_vec::<i32>().unwrap(), [1, 0]);
/// ```
pub fn encode_topk(
    x: Tensor<2>,
    w_enc: Tensor<2>,
    b_enc: Tensor<1>,
    encode: &Encode,
) -> (Tensor<2>, Tensor<2, Int>) {
    let ([n, d], [d_sae, dw], [b]) = (x.dims(), w_enc.dims(), b_enc.dims());
    assert!(
        d == dw && d_sae == b,
        "encode_topk: x [{n}, {d}], w_enc [{d_sae}, {dw}], b_enc [{b}]"
    );
    check_k("encode_topk", encode.k, [n, d_sae]);
    let x = match encode.b_dec.clone() {
        Some(b) => {
            assert!(
                b.dims() == [d],
                "encode_topk: b_dec {:?} of x [{n}, {d}]",
                b.dims()
            );
            x - b.unsqueeze()
        }
        None => x,
    };
    let norms = encode.norms.clone().unwrap_or_else(|| b_enc.ones_like());
    assert!(
        norms.dims() == [d_sae],
        "encode_topk: norms {:?} of {d_sae} latents",
        norms.dims()
    );
    if n == 0 {
        return topk(x.matmul(w_enc.transpose()), encode.k);
    }
    let (values, indices) = <Dispatch as EncodeTopkOps>::encode_topk(
        x.into_dispatch(),
        w_enc.into_dispatch(),
        b_enc.into_dispatch(),
        norms.into_dispatch(),
        encode.k,
    );
    let (mut values, indices) = (
        Tensor::<2>::from_dispatch(values),
        Tensor::from_dispatch(indices),
    );
    if encode.relu {
        let negative = values.clone().lower_elem(0.0);
        values = values.mask_fill(negative, 0.0);
    }
    (values, indices)
}

/// The backends' side of [`encode_topk`].
#[backend_extension(Flex, Cube, Autodiff)]
pub trait EncodeTopkOps: TopkOps {
    /// The k largest of `(x wᵀ + b) · norms` of every row, and their latents.
    fn encode_topk(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        b: FloatTensor<Self>,
        norms: FloatTensor<Self>,
        k: usize,
    ) -> (FloatTensor<Self>, IntTensor<Self>) {
        in_chunks::<Self>(x, w, [b, norms], k)
    }
}

type Pair<B> = (FloatTensor<B>, IntTensor<B>);

/// Columns of the product that are held at once on wgpu and in the reference.
pub const COLUMNS: usize = 4096;

/// The top-k of a chunk of latents joins those of the chunks before it, which come first: ties still
/// go to the lowest latent.
fn in_chunks<B: TopkOps>(
    x: FloatTensor<B>,
    w: FloatTensor<B>,
    [b, norms]: [FloatTensor<B>; 2],
    k: usize,
) -> Pair<B> {
    let d_sae = w.shape()[0];
    let mut best: Option<Pair<B>> = None;
    for first in (0..d_sae).step_by(COLUMNS) {
        let range = [Slice::from(first..(first + COLUMNS).min(d_sae))];
        let part = |x: &FloatTensor<B>| B::float_slice(x.clone(), &range);
        let row = |x| B::float_reshape(x, Shape::new([1, range[0].output_size(d_sae)]));
        let z = B::float_matmul(x.clone(), B::float_transpose(part(&w)));
        let z = B::float_mul(B::float_add(z, row(part(&b))), row(part(&norms)));
        let (values, columns) = B::topk(z, k.min(range[0].output_size(d_sae)));
        let found = (values, B::int_add_scalar(columns, (first as i64).into()));
        best = Some(match best {
            None => found,
            Some(before) => merged::<B>(before, found, k),
        });
    }
    best.unwrap_or_else(|| unreachable!("encode_topk: k is at most d_sae, so there are latents"))
}

fn merged<B: TopkOps>(before: Pair<B>, found: Pair<B>, k: usize) -> Pair<B> {
    let values = B::float_cat(vec![before.0, found.0], 1);
    let indices = B::int_cat(vec![before.1, found.1], 1);
    let k = k.min(values.shape()[1]);
    let (values, slots) = B::topk(values, k);
    (values, B::int_gather(1, indices, slots))
}

impl EncodeTopkOps for CubeBackend {}

/// Values of the product that are held at once on the CPU: 8 MiB.
pub const CHUNK: usize = 1 << 21;
/// Rows of one such chunk: enough for the product to run at its full rate.
const CHUNK_ROWS: usize = 1024;
/// Rows that one task scans.
const SCAN_ROWS: usize = 8;

impl EncodeTopkOps for Flex {
    fn encode_topk(
        x: FlexTensor,
        w: FlexTensor,
        b: FlexTensor,
        norms: FlexTensor,
        k: usize,
    ) -> (FlexTensor, FlexTensor) {
        if dims(&x)[1] == 0 || !flex::all_f32(&[&x, &w, &b, &norms]) {
            return in_chunks::<Self>(x, w, [b, norms], k);
        }
        let ([n, d], [d_sae, _]) = (dims(&x), dims(&w));
        let [x, w, b, norms] = [x, w, b, norms].map(|t| t.to_contiguous());
        let [x, w, b, norms] = [&x, &w, &b, &norms].map(floats);
        let (mut values, mut indices) = (vec![0f32; n * k], vec![0i32; n * k]);
        let columns = (CHUNK / n.min(CHUNK_ROWS)).next_multiple_of(16);
        let mut z = vec![0f32; columns.min(d_sae) * n.min(CHUNK_ROWS)];
        let blocks = values
            .chunks_mut(CHUNK_ROWS * k)
            .zip(indices.chunks_mut(CHUNK_ROWS * k));
        for (x, (values, indices)) in x.chunks(CHUNK_ROWS * d).zip(blocks) {
            let mut best: Vec<Best> = (0..x.len() / d).map(|_| Best::new(k)).collect();
            for first in (0..d_sae).step_by(columns) {
                let range = first..d_sae.min(first + columns);
                let z = &mut z[..best.len() * range.len()];
                product(z, x, &w[range.start * d..range.end * d], d);
                scan(z, &b[range.clone()], &norms[range], first, &mut best);
            }
            for (i, best) in best.iter_mut().enumerate() {
                best.write(&mut values[i * k..][..k], &mut indices[i * k..][..k]);
            }
        }
        (flex::matrix(values, n, k), flex::int_matrix(indices, n, k))
    }
}

/// `z = x wᵀ`, of rows of `d`, on all threads: the product that Flex takes, into memory that is there
/// already. New memory for every chunk costs it a third of its rate.
fn product(z: &mut [f32], x: &[f32], w: &[f32], d: usize) {
    let (n, m) = (x.len() / d, w.len() / d);
    let (x, w) = (
        MatRef::from_row_major_slice(x, n, d),
        MatRef::from_row_major_slice(w, m, d),
    );
    let z = MatMut::from_row_major_slice_mut(z, n, m);
    matmul(z, Accum::Replace, x, w.transpose(), 1.0, Par::rayon(0));
}

/// Offers `(z + b) · norms`, the pre-activations of the latents from `first` on, to each row's best.
fn scan(z: &mut [f32], b: &[f32], norms: &[f32], first: usize, best: &mut [Best]) {
    let tasks = z.par_chunks_mut(SCAN_ROWS * b.len());
    tasks
        .zip(best.par_chunks_mut(SCAN_ROWS))
        .for_each(|(z, best)| {
            wide(|| {
                for (z, best) in z.chunks_exact_mut(b.len()).zip(best) {
                    z.iter_mut()
                        .zip(b)
                        .zip(norms)
                        .for_each(|((z, b), norm)| *z = (*z + b) * norm);
                    best.offer(z, first);
                }
            });
        });
}

/// Backward of [`encode_topk`] by `x`, `w_enc`, `b_enc` and the norms.
#[derive(Debug)]
struct EncodeTopk;

impl<B> Backward<B, 4> for EncodeTopk
where
    B: SparseDecodeOps + ByLatentOps + SparseMatmulTOps,
{
    /// x, w, norms; values and indices.
    type State = ([FloatTensor<B>; 3], Pair<B>);

    fn backward(self, ops: Ops<Self::State, 4>, grads: &mut Gradients, _: &mut Checkpointer) {
        let ([x, w, norms], (values, indices)) = ops.state;
        let g = grads.consume::<B>(&ops.node);
        let shape = g.shape();
        let latents = B::int_reshape(indices.clone(), Shape::new([shape.num_elements()]));
        let norm = B::float_reshape(B::float_select(norms, 0, latents), shape.clone());
        let dz = B::float_mul(g.clone(), norm.clone());
        let (n, d_sae) = (shape[0], w.shape()[0]);
        let by_latent = |e: FloatTensor<B>| {
            let ones = B::float_ones(Shape::new([n, 1]), &e.device(), e.dtype().into());
            let sums = sums_of::<B>(e, indices.clone(), ones, d_sae);
            B::float_reshape(sums, Shape::new([d_sae]))
        };
        let [to_x, to_w, to_b, to_norms] = ops.parents;
        if let Some(node) = to_x {
            let dx = B::sparse_decode(dz.clone(), indices.clone(), w.clone());
            grads.register::<B>(node.id, dx);
        }
        if let Some(node) = to_w {
            let dw = sums_of::<B>(dz.clone(), indices.clone(), x, d_sae);
            grads.register::<B>(node.id, dw);
        }
        if let Some(node) = to_b {
            grads.register::<B>(node.id, by_latent(dz));
        }
        if let Some(node) = to_norms {
            let z = B::float_div(values, norm);
            grads.register::<B>(node.id, by_latent(B::float_mul(g, z)));
        }
    }
}

impl<B, C> EncodeTopkOps for Autodiff<B, C>
where
    B: EncodeTopkOps + SparseDecodeOps + ByLatentOps + SparseMatmulTOps,
    C: CheckpointStrategy,
{
    fn encode_topk(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        b: FloatTensor<Self>,
        norms: FloatTensor<Self>,
        k: usize,
    ) -> (FloatTensor<Self>, IntTensor<Self>) {
        let parents = [x.node(), w.node(), b.node(), norms.node()];
        let [x, w, b, norms] = [x, w, b, norms].map(|x| x.into_primitive());
        let (values, indices) = B::encode_topk(x.clone(), w.clone(), b, norms.clone(), k);
        let state = ([x, w, norms], (values.clone(), indices.clone()));
        let values = record::<B, C, _, 4>(EncodeTopk, parents, state, values);
        (values, indices)
    }
}
