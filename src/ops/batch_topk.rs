//! Exact top-k of a whole batch.

mod select;

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::{BoolTensor, FloatTensor, IntTensor};
use burn::backend::{
    Autodiff, AutodiffBackend, Backend, BoolDType, DType, Dispatch, Flex, IntDType, Shape,
    TensorMetadata, backend_extension,
};
use burn::tensor::{Int, Slice, Tensor, TensorData};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use burn_flex::FlexTensor;
use cubecl::server::Handle;
use rayon::prelude::*;

use select::select;

use super::topk::bools;
use super::{cube, flex};
use crate::wgsl::{self, Shader};

/// What [`batch_topk`] selects, in row-major order.
#[derive(Clone, Debug)]
pub struct BatchTopk {
    /// The selected elements, bits unchanged: `[total]`.
    pub values: Tensor<1>,
    /// Their rows, never falling: `[total]`, `i32`.
    pub rows: Tensor<1, Int>,
    /// Their columns, rising within a row: `[total]`, `i32`.
    pub columns: Tensor<1, Int>,
    /// The smallest selected value, +0 for a zero: `[1]`. No gradient flows to it.
    pub threshold: Tensor<1>,
}

/// The `total` largest elements of the whole matrix, in row-major order.
///
/// `x` is `[n, d_sae]`; of a batch with k active latents a row on average, `total` is k·n. A row may
/// have any number of the selected ones, none included. Among equal values the lowest row comes
/// first and then the lowest column, and −0 equals +0. NaN orders above +∞, so a NaN is never
/// hidden. The result is the same, bit for bit, on every device.
///
/// `threshold` is this batch's estimate of the threshold for inference, where the rows of a batch
/// must not depend on each other: the caller keeps a running mean over training batches and then
/// takes the latents with `x > threshold`, as a JumpReLU does. It is the smallest selected value
/// whatever its sign; SAELens and dictionary_learning average the smallest positive one, which is
/// the same unless fewer than `total` elements are positive (`x` after ReLU: the threshold is 0).
///
/// On an autodiff device gradients flow to the values: the gradient of `x` is the gradient of the
/// values at their places, and zero elsewhere.
///
/// # Panics
/// Unless 1 ≤ total ≤ n·d_sae and n·d_sae < 2³¹.
///
/// Cost: on the CPU one pass over `x`, over all threads, and about 30 bytes for each selected element
/// beside the result; a selection over all of `x` and its memory once more where a sample of it
/// misleads or nearly all is selected. On wgpu four passes over `x`, a sixteenth of its memory, and no
/// wait for the device. `x` is copied if it is not contiguous. Floats other than f32, and runtimes
/// without WGSL, take the reference: it sorts `x`, on the host where Burn has no sort for the device.
///
/// Source: Bussmann, Leask and Nanda, "BatchTopK Sparse Autoencoders" (2024), with ReLU left to the
/// caller, before or after; selection by radix digits on wgpu as in Alabi, Blanchard, Gordon and
/// Steinbach (2012). The order among ties and of NaN is ours.
///
/// ```
/// use burn::tensor::Tensor;
/// use inscape::{Device, ops::batch_topk};
/// let device = Device::cpu();
/// let x = Tensor::<2>::from_floats([[1.0, 5.0, 3.0], [0.0, 2.0, 3.0]], device.tensor());
/// let best = batch_topk(x, 3);
/// assert_eq!(best.values.into_data().try_to_vec::<f32>().unwrap(), [5.0, 3.0, 3.0]);
/// assert_eq!(best.rows.into_data().try_to_vec::<i32>().unwrap(), [0, 0, 1]);
/// assert_eq!(best.columns.into_data().try_to_vec::<i32>().unwrap(), [1, 2, 2]);
/// assert_eq!(best.threshold.into_data().try_to_vec::<f32>().unwrap(), [3.0]);
/// ```
pub fn batch_topk(x: Tensor<2>, total: usize) -> BatchTopk {
    checked(x, total, <Dispatch as BatchTopkOps>::batch_topk)
}

/// [`batch_topk`] in plain tensor operations: slow, and the meaning that the other forms must match.
pub fn batch_topk_reference(x: Tensor<2>, total: usize) -> BatchTopk {
    checked(x, total, reference::<Dispatch>)
}

/// Values, rows, columns and threshold.
type Parts<B> = (FloatTensor<B>, IntTensor<B>, IntTensor<B>, FloatTensor<B>);

fn checked(
    x: Tensor<2>,
    total: usize,
    run: impl FnOnce(FloatTensor<Dispatch>, usize) -> Parts<Dispatch>,
) -> BatchTopk {
    let [n, d_sae] = x.dims();
    let size = n.saturating_mul(d_sae);
    assert!(
        1 <= total && total <= size && size < 1 << 31,
        "batch_topk: total = {total} of x [{n}, {d_sae}]; needs 1 <= total <= n * d_sae < 2^31"
    );
    let (values, rows, columns, threshold) = run(x.into_dispatch(), total);
    BatchTopk {
        values: Tensor::from_dispatch(values),
        rows: Tensor::from_dispatch(rows),
        columns: Tensor::from_dispatch(columns),
        threshold: Tensor::from_dispatch(threshold),
    }
}

/// The backends' side of [`batch_topk`]: `x` `[n, d_sae]` and a total that fits.
#[backend_extension(Flex, Cube, Autodiff)]
pub trait BatchTopkOps: Backend {
    /// Values, rows and columns `[total]` of the largest elements, and the threshold `[1]`.
    fn batch_topk(
        x: FloatTensor<Self>,
        total: usize,
    ) -> (
        FloatTensor<Self>,
        IntTensor<Self>,
        IntTensor<Self>,
        FloatTensor<Self>,
    ) {
        reference::<Self>(x, total)
    }
}

/// Sorts to find the bound, takes all above it, then the first of those equal to it.
fn reference<B: Backend>(x: FloatTensor<B>, total: usize) -> Parts<B> {
    let (shape, bools) = (x.shape(), bools::<B>(&x));
    let (size, d_sae) = (shape[0] * shape[1], shape[1]);
    let nan = B::float_is_nan(x.clone(), bools);
    let value = B::float_mask_fill(x.clone(), nan.clone(), f64::INFINITY.into());
    let bar = nth::<B>(value.clone(), total);
    let wide = B::float_expand(bar.clone(), shape);

    // NaN counts as +∞ here, so only a bound of +∞ meets it, and then it goes first.
    let above = B::float_greater(value.clone(), wide.clone(), bools);
    let equal = B::float_equal(value, wide, bools);
    let need = B::int_add_scalar(B::int_neg(count::<B>(&above)), (total as i64).into());
    let (first, need) = take::<B>(B::bool_and(equal.clone(), nan.clone()), need, bools);
    let (then, _) = take::<B>(B::bool_and(equal, B::bool_not(nan)), need, bools);
    let only_nan = B::int_equal_elem(count::<B>(&first), (total as i64).into(), bools);
    let taken = B::bool_or(B::bool_or(above, first), then);

    let places = places::<B>(taken, size, total);
    let values = B::float_reshape(x, Shape::new([size]));
    let values = B::float_select(values, 0, places.clone());
    let rows = B::int_div_scalar(places.clone(), (d_sae as i64).into());
    let columns = B::int_remainder_scalar(places, (d_sae as i64).into());

    let zero = B::float_equal_elem(bar.clone(), 0.0.into(), bools);
    let threshold = B::float_mask_fill(bar, zero, 0.0.into());
    let threshold = B::float_mask_fill(threshold, only_nan, f64::NAN.into());
    let threshold = B::float_reshape(threshold, Shape::new([1]));
    (values, rows, columns, threshold)
}

/// The n-th largest element: `[1, 1]`.
fn nth<B: Backend>(x: FloatTensor<B>, n: usize) -> FloatTensor<B> {
    let size = x.shape().num_elements();
    let sorted = B::float_sort(B::float_reshape(x, Shape::new([size])), 0, true);
    let nth = B::float_slice(sorted, &[Slice::from(n - 1..n)]);
    B::float_reshape(nth, Shape::new([1, 1]))
}

/// The first `need` (`[1, 1]`) set places of a mask in row-major order, and how many are left to take.
fn take<B: Backend>(
    mask: BoolTensor<B>,
    need: IntTensor<B>,
    bools: BoolDType,
) -> (BoolTensor<B>, IntTensor<B>) {
    let wide = B::int_expand(need.clone(), mask.shape());
    let within = B::int_lower_equal(position::<B>(&mask), wide, bools);
    let taken = B::bool_and(mask, within);
    let left = B::int_sub(need, count::<B>(&taken));
    (taken, left)
}

/// For every place the number of set places up to it, itself included, in row-major order.
fn position<B: Backend>(mask: &BoolTensor<B>) -> IntTensor<B> {
    let ones = ones::<B>(mask);
    let per_row = B::int_sum_dim(ones.clone(), 1);
    let before = B::int_sub(B::int_cumsum(per_row.clone(), 0), per_row);
    B::int_add(B::int_cumsum(ones, 1), B::int_expand(before, mask.shape()))
}

/// How many places are set: `[1, 1]`.
fn count<B: Backend>(mask: &BoolTensor<B>) -> IntTensor<B> {
    B::int_sum_dim(B::int_sum_dim(ones::<B>(mask), 1), 0)
}

fn ones<B: Backend>(mask: &BoolTensor<B>) -> IntTensor<B> {
    B::bool_into_int(mask.clone(), IntDType::I32)
}

/// The flat places of the `total` set elements of a mask, rising.
fn places<B: Backend>(taken: BoolTensor<B>, size: usize, total: usize) -> IntTensor<B> {
    let place = B::int_arange(0..size as i64, &taken.device(), IntDType::I32);
    let others = B::bool_reshape(B::bool_not(taken), Shape::new([size]));
    let place = B::int_mask_fill(place, others, (size as i64).into());
    B::int_slice(B::int_sort(place, 0, false), &[Slice::from(0..total)])
}

impl BatchTopkOps for Flex {
    fn batch_topk(x: FloatTensor<Self>, total: usize) -> Parts<Self> {
        if !flex::all_f32(&[&x]) {
            return reference::<Self>(x, total);
        }
        let d_sae = flex::dims(&x)[1] as u32;
        let (best, threshold) = select(flex::floats(&x.to_contiguous()), total);
        let ints = |of: fn(u32, u32) -> u32| -> FlexTensor {
            let of: Vec<i32> = best.par_iter().map(|&(p, _)| of(p, d_sae) as i32).collect();
            FlexTensor::from_data(TensorData::new(of, [total]))
        };
        let values: Vec<f32> = best.par_iter().map(|&(_, v)| v).collect();
        (
            FlexTensor::from_data(TensorData::new(values, [total])),
            ints(|place, d_sae| place / d_sae),
            ints(|place, d_sae| place % d_sae),
            FlexTensor::from_data(TensorData::new(vec![threshold], [1])),
        )
    }
}

impl BatchTopkOps for CubeBackend {
    fn batch_topk(x: FloatTensor<Self>, total: usize) -> Parts<Self> {
        match cube::takes_wgsl(&[&x]) {
            true => batch_topk_wgsl(into_contiguous(x), total),
            false => reference::<Self>(x, total),
        }
    }
}

/// Digits of a key: of 11, 11 and 10 bits.
const DIGITS: usize = 3;
/// Where the first digit starts.
const FIRST_SHIFT: usize = 21;
/// Values of a digit.
const BINS: usize = 1 << 11;
/// Elements of a workgroup of `batch_topk_histogram`.
const HISTOGRAM_BLOCK: usize = 1 << 15;
/// Words of marks of a workgroup of `batch_topk_mark` and `batch_topk_write`.
const WORDS: usize = 256;

fn batch_topk_wgsl(x: CubeTensor, total: usize) -> Parts<CubeBackend> {
    let [n, d_sae] = cube::dims(&x);
    let blocks = (n * d_sae).div_ceil(32 * WORDS);
    let sizes = cube::sizes(&x, &[n * d_sae, d_sae, total, blocks]);
    let bound = cube::sizes(&x, &[0, total, FIRST_SHIFT]);
    let threshold = find_bound(&x, &sizes, &bound);

    let scratch = |words: usize| x.client.empty(words * size_of::<u32>());
    let (marks, counts) = (scratch(2 * blocks * WORDS), scratch(2 * blocks));
    let mut buffers = vec![
        x.handle.clone(),
        sizes.clone(),
        bound,
        marks,
        counts.clone(),
    ];
    run(&x, &wgsl::BATCH_TOPK_MARK, blocks, buffers.clone());
    run(&x, &wgsl::BATCH_TOPK_SCAN, 1, vec![sizes, counts]);
    let output = |dtype| cube::output(&x, [total], dtype);
    let [values, rows, columns] = [DType::F32, DType::I32, DType::I32].map(output);
    buffers.extend([&values, &rows, &columns].map(|output| output.handle.clone()));
    run(&x, &wgsl::BATCH_TOPK_WRITE, blocks, buffers);
    (values, rows, columns, threshold)
}

/// Leaves the bound's key, and how many of its equals are taken, in `bound`; its value is the
/// threshold.
fn find_bound(x: &CubeTensor, sizes: &Handle, bound: &Handle) -> CubeTensor {
    let threshold = cube::output(x, [1], DType::F32);
    let groups = x.shape().num_elements().div_ceil(HISTOGRAM_BLOCK);
    let histogram = cube::sizes(x, &[0; BINS]);
    for _ in 0..DIGITS {
        let read = [&x.handle, sizes, bound, &histogram].map(Handle::clone);
        run(x, &wgsl::BATCH_TOPK_HISTOGRAM, groups, read.to_vec());
        let written = [&histogram, bound, &threshold.handle].map(Handle::clone);
        run(x, &wgsl::BATCH_TOPK_DIGIT, 1, written.to_vec());
    }
    threshold
}

fn run(x: &CubeTensor, shader: &'static Shader, groups: usize, buffers: Vec<Handle>) {
    wgsl::launch(&x.client, shader.kernel(&[]), groups as u64, buffers);
}

/// Values are gathered at the selected places, and gathering has its gradient.
impl<B: Backend + BatchTopkOps, C: CheckpointStrategy> BatchTopkOps for Autodiff<B, C> {
    fn batch_topk(x: FloatTensor<Self>, total: usize) -> Parts<Self> {
        let (_, rows, columns, threshold) = B::batch_topk(x.primitive().clone(), total);
        let upright = |i: &IntTensor<B>| B::int_reshape(i.clone(), Shape::new([total, 1]));
        let places = B::int_cat(vec![upright(&rows), upright(&columns)], 1);
        let values = Self::float_gather_nd(x, places);
        (values, rows, columns, Self::from_inner(threshold))
    }
}
