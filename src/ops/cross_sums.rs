//! Sums of products of columns over a stream of rows, without the rounding of long sums.

mod running;

use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, backend_extension};
use burn::tensor::{Slice, Tensor};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use burn_flex::FlexTensor;
use rayon::prelude::*;

pub use running::{CrossMoments, CrossSums};

use super::cube;
use super::flex::{all_f32, dims, floats, owned};
use crate::wgsl;

/// Adds `xᵀ y` of a batch to a running sum.
///
/// `x` is `[b, dx]`, `y` is `[b, dy]`; the sum is a pair `[dx, dy]` that stands for `hi + lo`, `lo`
/// holding what the rounding of `hi` lost. Of f32 it keeps some 48 bits, so that what a million batches
/// add is lost nowhere; a batch's own product rounds as f32 does over at most 512 rows. Without a
/// gradient. [`CrossSums`] is made of it.
///
/// # Panics
/// If the shapes do not fit, or on an autodiff device.
///
/// Cost: `b dx dy` multiply-adds and one pass over the sum for every 512 rows (wgpu: one in all), in
/// place where nothing else holds it; on the CPU with another `[dx, dy]`. Other floats and runtimes
/// without WGSL take the reference, which holds several.
///
/// Source: two-sum, Knuth, "Seminumerical Algorithms", 4.2.2; sums of two floats after Dekker 1971.
///
/// ```
/// use burn::tensor::Tensor;
/// use inscape::{Device, ops::cross_sums};
/// let cpu = Device::cpu();
/// let floats = |v: [[f32; 1]; 2]| Tensor::<2>::from_data(v, cpu.tensor());
/// let sum = [[16_777_216.0], [0.0]].map(|v| Tensor::<2>::from_data([v], cpu.tensor()));
/// let [hi, lo] = cross_sums(sum, floats([[0.5], [2.0]]), floats([[0.5], [0.125]]));
/// assert_eq!(hi.into_scalar::<f32>(), 16_777_216.0);
/// assert_eq!(lo.into_scalar::<f32>(), 0.5);
/// ```
pub fn cross_sums(sum: [Tensor<2>; 2], x: Tensor<2>, y: Tensor<2>) -> [Tensor<2>; 2] {
    checked(sum, x, y, <Dispatch as CrossSumsOps>::cross_sums)
}

/// [`cross_sums`] in plain tensor operations: slow, and the meaning that the other forms must match.
pub fn cross_sums_reference(sum: [Tensor<2>; 2], x: Tensor<2>, y: Tensor<2>) -> [Tensor<2>; 2] {
    checked(sum, x, y, reference::<Dispatch>)
}

type Floats = FloatTensor<Dispatch>;

fn checked(
    [hi, lo]: [Tensor<2>; 2],
    x: Tensor<2>,
    y: Tensor<2>,
    run: fn(Floats, Floats, Floats, Floats) -> (Floats, Floats),
) -> [Tensor<2>; 2] {
    let ([b, dx], [rows, dy]) = (x.dims(), y.dims());
    assert!(
        b == rows && hi.dims() == [dx, dy] && lo.dims() == [dx, dy],
        "cross_sums: x [{b}, {dx}], y [{rows}, {dy}], sums {:?} and {:?}",
        hi.dims(),
        lo.dims()
    );
    if b * dx * dy == 0 {
        return [hi, lo];
    }
    let [hi, lo, x, y] = [hi, lo, x, y].map(Tensor::into_dispatch);
    let (hi, lo) = run(hi, lo, x, y);
    [Tensor::from_dispatch(hi), Tensor::from_dispatch(lo)]
}

/// A sum as two floats.
type Pair<B> = (FloatTensor<B>, FloatTensor<B>);

/// The backends' side of [`cross_sums`].
#[backend_extension(Flex, Cube)]
pub trait CrossSumsOps: Backend {
    /// See [`cross_sums`]; no side is 0.
    fn cross_sums(
        hi: FloatTensor<Self>,
        lo: FloatTensor<Self>,
        x: FloatTensor<Self>,
        y: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        reference::<Self>(hi, lo, x, y)
    }
}

fn reference<B: Backend>(
    hi: FloatTensor<B>,
    lo: FloatTensor<B>,
    x: FloatTensor<B>,
    y: FloatTensor<B>,
) -> Pair<B> {
    let product = B::float_matmul(B::float_transpose(x), y);
    let (sum, lost) = two_sum::<B>(hi, product);
    two_sum::<B>(sum, B::float_add(lo, lost))
}

/// The rounded sum, and what the rounding lost.
fn two_sum<B: Backend>(a: FloatTensor<B>, b: FloatTensor<B>) -> Pair<B> {
    let sum = B::float_add(a.clone(), b.clone());
    let of_b = B::float_sub(sum.clone(), a.clone());
    let of_a = B::float_sub(sum.clone(), of_b.clone());
    let lost = B::float_add(B::float_sub(a, of_a), B::float_sub(b, of_b));
    (sum, lost)
}

impl CrossSumsOps for CubeBackend {
    fn cross_sums(hi: CubeTensor, lo: CubeTensor, x: CubeTensor, y: CubeTensor) -> Pair<Self> {
        match cube::takes_wgsl(&[&hi, &lo, &x, &y]) {
            true => cross_sums_wgsl([hi, lo], [x, y]),
            false => reference::<Self>(hi, lo, x, y),
        }
    }
}

/// Columns of either side that a workgroup takes: `SIDE` in the shader.
const SIDE: usize = 64;

fn cross_sums_wgsl(sum: [CubeTensor; 2], batch: [CubeTensor; 2]) -> (CubeTensor, CubeTensor) {
    let ([hi, lo], [x, y]) = (sum.map(cube::owned), batch.map(into_contiguous));
    cube::assert_addressable("cross_sums", &[&hi, &x, &y]);
    let ([b, dx], dy) = (cube::dims(&x), cube::dims(&y)[1]);
    let sizes = cube::sizes(&hi, &[b, dx, dy, 0]);
    let groups = dx.div_ceil(SIDE) * dy.div_ceil(SIDE);
    let buffers = vec![
        x.handle,
        y.handle,
        sizes,
        hi.handle.clone(),
        lo.handle.clone(),
    ];
    let kernel = wgsl::CROSS_SUMS.kernel(&[]);
    wgsl::launch(&hi.client, kernel, groups as u64, buffers);
    (hi, lo)
}

/// Rows whose product is summed in f32.
const ROWS: usize = 512;
/// Sums of one task.
const TASK: usize = 1 << 14;

impl CrossSumsOps for Flex {
    fn cross_sums(hi: FlexTensor, lo: FlexTensor, x: FlexTensor, y: FlexTensor) -> Pair<Self> {
        if !all_f32(&[&hi, &lo, &x, &y]) {
            return reference::<Self>(hi, lo, x, y);
        }
        let ([b, _], [mut hi, mut lo]) = (dims(&x), [hi, lo].map(owned));
        for start in (0..b).step_by(ROWS) {
            let rows = Slice::from(start..b.min(start + ROWS));
            let part = |x: &FlexTensor| Self::float_slice(x.clone(), &[rows]);
            let product = Self::float_matmul(Self::float_transpose(part(&x)), part(&y));
            let product = floats(&product);
            let sums = hi.storage_mut::<f32>().par_chunks_mut(TASK);
            let sums = sums.zip(lo.storage_mut::<f32>().par_chunks_mut(TASK));
            let tasks = sums.zip(product.par_chunks(TASK));
            tasks.for_each(|((hi, lo), product)| add(hi, lo, product));
        }
        (hi, lo)
    }
}

/// `hi + lo` in f64 is exact, and so to 48 bits is what is left of their sum with `more`.
fn add(hi: &mut [f32], lo: &mut [f32], more: &[f32]) {
    for ((hi, lo), more) in hi.iter_mut().zip(lo).zip(more) {
        let sum = f64::from(*hi) + f64::from(*lo) + f64::from(*more);
        *hi = sum as f32;
        *lo = (sum - f64::from(*hi)) as f32;
    }
}
