//! Ranks of a long vector, ties averaged.

mod sort;

use burn::backend::tensor::{FloatTensor, IndexingUpdateOp, IntTensor};
use burn::backend::{Backend, DType, Dispatch, Flex, IntDType, TensorMetadata, backend_extension};
use burn::tensor::{Int, Tensor};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use burn_flex::FlexTensor;

pub(crate) use sort::{ranks_f32, ranks_f64};

use super::topk::bools;
use super::{cube, flex, radix};
use crate::wgsl;

/// Twice the average rank of every value.
///
/// `x` is `[m]`, the ranks are `[m]`, i32. Ranks count from 1 and rise with the value; equal values,
/// which would stand at `lo..=hi` counted from 0, share the mean of their ranks, and doubled it is an
/// integer: `lo + hi + 2`. −0 equals +0; NaN stands above +∞, all NaN equal. The same on every device,
/// and without a gradient.
///
/// # Panics
/// If `m` is 2³⁰ or more, or on an autodiff device.
///
/// Cost: on the CPU a radix sort by three digits of 11 bits of the value, on all threads, with 20 bytes
/// a value while it runs (f64: a comparison sort). On wgpu one by four digits of 8 bits, each of three
/// kernels (count, prefix sum, place), and 20 bytes a value. Other floats and runtimes without WGSL
/// take the reference, which sorts on the host where Burn has no sort for the device.
///
/// Source: the mid-ranks of Spearman 1904 with ties after Kendall 1945, "The treatment of ties in
/// ranking problems"; the sort is that of [`by_latent`](super::by_latent()).
///
/// ```
/// use burn::tensor::Tensor;
/// use inscape::{Device, ops::rank};
/// let x = Tensor::<1>::from_floats([0.5, -1.0, 0.5, 7.0], Device::cpu().tensor());
/// assert_eq!(rank(x).into_data().try_to_vec::<i32>().unwrap(), [5, 2, 5, 8]);
/// ```
pub fn rank(x: Tensor<1>) -> Tensor<1, Int> {
    checked(x, <Dispatch as RankOps>::rank)
}

/// [`rank`] in plain tensor operations: slow, and the meaning that the other forms must match.
pub fn rank_reference(x: Tensor<1>) -> Tensor<1, Int> {
    checked(x, reference::<Dispatch>)
}

fn checked(
    x: Tensor<1>,
    run: impl FnOnce(FloatTensor<Dispatch>) -> IntTensor<Dispatch>,
) -> Tensor<1, Int> {
    let [m] = x.dims();
    assert!(m < 1 << 30, "rank: {m} values; fewer than 2^30 are taken");
    match m {
        0 => Tensor::zeros([0], (&x.device(), DType::I32)),
        _ => Tensor::from_dispatch(run(x.into_dispatch())),
    }
}

/// The backends' side of [`rank`].
#[backend_extension(Flex, Cube)]
pub trait RankOps: Backend {
    /// See [`rank`]; there is a value.
    fn rank(x: FloatTensor<Self>) -> IntTensor<Self> {
        reference::<Self>(x)
    }
}

/// Numbers the runs of equal values among the sorted ones, and counts them. NaN is sorted with +∞,
/// counted in no run, and put in its place at the end.
fn reference<B: Backend>(x: FloatTensor<B>) -> IntTensor<B> {
    let (shape, device, bools) = (x.shape(), x.device(), bools::<B>(&x));
    let zeros = B::int_zeros(shape.clone(), &device, IntDType::I32);
    let nan = B::float_is_nan(x.clone(), bools);
    let x = B::float_mask_fill(x, nan.clone(), f64::INFINITY.into());
    let order = B::float_argsort(x.clone(), 0, false, IntDType::I32);
    let run = run_of::<B>(B::float_gather(0, x, order.clone()));

    let number = B::bool_into_int(B::bool_not(nan.clone()), IntDType::I32);
    let counted = B::int_gather(0, number.clone(), order.clone());
    let add = IndexingUpdateOp::Add;
    let counts = B::int_scatter(0, zeros.clone(), run.clone(), counted, add);
    let ends = B::int_cumsum(counts.clone(), 0);
    // From lo to hi + 1 of each run.
    let sums = B::int_sub(B::int_mul_scalar(ends, 2i64.into()), counts);
    let ranks = B::int_add_scalar(B::int_gather(0, sums, run), 1i64.into());
    let ranks = B::int_scatter(0, zeros, order, ranks, IndexingUpdateOp::Add);

    let m = shape.num_elements() as i64;
    let of_nan = B::int_add_scalar(B::int_sum(number), (m + 1).into());
    B::int_mask_where(ranks, nan, B::int_expand(of_nan, shape))
}

/// Which run of equal values each of these belongs to, from 0.
fn run_of<B: Backend>(sorted: FloatTensor<B>) -> IntTensor<B> {
    let (m, device, bools) = (sorted.shape()[0], sorted.device(), bools::<B>(&sorted));
    let before = B::int_arange(-1..m as i64 - 1, &device, IntDType::I32);
    let before = B::int_clamp_min(before, 0i64.into());
    let before = B::float_gather(0, sorted.clone(), before);
    let begins = B::float_not_equal(sorted, before, bools);
    B::int_cumsum(B::bool_into_int(begins, IntDType::I32), 0)
}

impl RankOps for CubeBackend {
    fn rank(x: CubeTensor) -> CubeTensor {
        match cube::takes_wgsl(&[&x]) {
            true => rank_wgsl(into_contiguous(x)),
            false => reference::<Self>(x),
        }
    }
}

fn rank_wgsl(x: CubeTensor) -> CubeTensor {
    let m = x.shape()[0];
    let groups = m.div_ceil(256) as u64;
    let sizes = cube::sizes(&x, &[m]);
    let keys = cube::output(&x, [m], DType::U32);
    let buffers = vec![x.handle.clone(), sizes.clone(), keys.handle.clone()];
    wgsl::launch(&x.client, wgsl::RANK_KEYS.kernel(&[]), groups, buffers);
    let (keys, entries) = radix::sort(&keys, u32::MAX as usize);
    let ranks = cube::output(&x, [m], DType::I32);
    let buffers = vec![keys, entries.handle, sizes, ranks.handle.clone()];
    wgsl::launch(&x.client, wgsl::RANK_WRITE.kernel(&[]), groups, buffers);
    ranks
}

impl RankOps for Flex {
    fn rank(x: FlexTensor) -> FlexTensor {
        let x = x.to_contiguous();
        let ranks = match (x.as_slice::<f32>(), x.as_slice::<f64>()) {
            (Some(x), _) => ranks_f32(x),
            (_, Some(x)) => ranks_f64(x),
            _ => return reference::<Self>(x),
        };
        flex::ints(ranks.into_iter().map(|rank| rank as i32).collect())
    }
}
