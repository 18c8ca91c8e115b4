//! The entries of sparse rows, grouped by latent: what every sum over a latent's entries needs.

use burn::backend::ops::IntTensorOps;
use burn::backend::tensor::{IndexingUpdateOp, IntTensor};
use burn::backend::{
    Backend, DType, Dispatch, Flex, IntDType, Shape, TensorMetadata, backend_extension,
};
use burn::tensor::{Device, Int, Tensor};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use burn_flex::FlexTensor;

use super::{cube, flex, radix};
use crate::wgsl;

/// Entries of a sparse batch in the order of their latents, and within a latent in the order in
/// which they were given.
#[derive(Clone, Debug)]
pub struct ByLatent {
    /// The entries of latent `f` are `starts[f]..starts[f + 1]` of the other two: `[d_sae + 1]`, i32.
    pub starts: Tensor<1, Int>,
    /// Which entry stands here, counted as they were given: `[e]`, i32.
    pub entries: Tensor<1, Int>,
    /// The row of that entry: `[e]`, i32.
    pub rows: Tensor<1, Int>,
}

/// Groups entries by latent.
///
/// `latents` and `rows` are `[e]` (i32 or i64), the latent and the row of each entry. Entries of one
/// latent keep their order, so that every sum over them is the same from run to run.
///
/// # Panics
/// If the lengths differ, `e` or `d_sae` is 2³¹ or more, or (on the CPU) a latent is not in
/// `0..d_sae`. On wgpu an entry whose latent is not comes behind all others and belongs to no group.
///
/// Cost: on the CPU two passes over the entries, one thread. On wgpu a stable radix sort by 8-bit
/// digits of the latent, as many as `d_sae` has: three kernels each (count, prefix sum, place), then
/// a binary search a latent. Memory: `d_sae + 2 e` integers, on wgpu another `3¼ e` while it runs.
/// Runtimes without WGSL and i64 on wgpu take the reference, which sorts on the host.
///
/// Source: counting sort, and least-significant-digit radix sort (Knuth, "Sorting and Searching",
/// 5.2 and 5.2.5) with the ranks of Satish, Harris & Garland 2009, counted over sets of threads.
///
/// ```
/// use burn::tensor::{Int, Tensor};
/// use inscape::{Device, ops::by_latent};
/// let device = Device::cpu();
/// let ints = |v: [i32; 4]| Tensor::<1, Int>::from_data(v, device.tensor());
/// let groups = by_latent(ints([2, 0, 2, 1]), ints([0, 0, 1, 1]), 3);
/// let read = |x: Tensor<1, Int>| x.into_data().try_to_vec::<i32>().unwrap();
/// assert_eq!(read(groups.starts), [0, 1, 2, 4]);
/// assert_eq!(read(groups.entries), [1, 3, 0, 2]);
/// assert_eq!(read(groups.rows), [0, 1, 0, 1]);
/// ```
pub fn by_latent(latents: Tensor<1, Int>, rows: Tensor<1, Int>, d_sae: usize) -> ByLatent {
    checked(latents, rows, d_sae, <Dispatch as ByLatentOps>::by_latent)
}

/// [`by_latent`] in plain tensor operations: slow, and the meaning that the other forms must match.
pub fn by_latent_reference(
    latents: Tensor<1, Int>,
    rows: Tensor<1, Int>,
    d_sae: usize,
) -> ByLatent {
    checked(latents, rows, d_sae, reference::<Dispatch>)
}

fn checked(
    latents: Tensor<1, Int>,
    rows: Tensor<1, Int>,
    d_sae: usize,
    run: impl FnOnce(IntTensor<Dispatch>, IntTensor<Dispatch>, usize) -> Triple<Dispatch>,
) -> ByLatent {
    let ([e], [r]) = (latents.dims(), rows.dims());
    assert!(
        e == r && e < 1 << 31 && d_sae < 1 << 31,
        "by_latent: {e} latents, {r} rows, d_sae = {d_sae}"
    );
    let (starts, entries, rows) = run(latents.into_dispatch(), rows.into_dispatch(), d_sae);
    ByLatent {
        starts: Tensor::from_dispatch(starts),
        entries: Tensor::from_dispatch(entries),
        rows: Tensor::from_dispatch(rows),
    }
}

impl ByLatent {
    /// Groups `indices` `[n, k]`, entry `i k + j` being in row `i`.
    pub fn of(indices: &Tensor<2, Int>, d_sae: usize) -> Self {
        let rows = rows_of_entries(0, indices.dims(), &indices.device());
        by_latent(indices.clone().flatten(0, 1), rows, d_sae)
    }

    /// Number of latents.
    pub fn d_sae(&self) -> usize {
        self.starts.dims()[0] - 1
    }
}

/// The row of each entry of `[n, k]`, counted from `first`: `[n k]`, i32.
pub fn rows_of_entries(first: usize, [n, k]: [usize; 2], device: &Device) -> Tensor<1, Int> {
    if n * k == 0 {
        return Tensor::zeros([0], (device, DType::I32));
    }
    let rows = Tensor::<1, Int>::arange(first as i64..(first + n) as i64, (device, DType::I32));
    rows.unsqueeze_dim::<2>(1).expand([n, k]).flatten(0, 1)
}

type Triple<B> = (IntTensor<B>, IntTensor<B>, IntTensor<B>);

/// The backends' side of [`by_latent`].
#[backend_extension(Flex, Cube)]
pub trait ByLatentOps: Backend {
    /// See [`by_latent`]: starts, entries, rows, all i32.
    fn by_latent(
        latents: IntTensor<Self>,
        rows: IntTensor<Self>,
        d_sae: usize,
    ) -> (IntTensor<Self>, IntTensor<Self>, IntTensor<Self>) {
        reference::<Self>(latents, rows, d_sae)
    }
}

/// Sorts by `latent · e + entry`, which no two entries share.
fn reference<B: Backend>(latents: IntTensor<B>, rows: IntTensor<B>, d_sae: usize) -> Triple<B> {
    let (e, device) = (latents.shape()[0], latents.device());
    let dtype = index_type(e.saturating_mul(d_sae));
    let latents = B::int_cast(latents, dtype);
    let place = B::int_arange(0..e as i64, &device, dtype);
    let key = B::int_add(B::int_mul_scalar(latents.clone(), (e as i64).into()), place);
    let entries = B::int_argsort(key, 0, false);
    let rows = B::int_gather(0, rows, entries.clone());
    let narrow = |x| B::int_cast(x, IntDType::I32);
    (
        counts_before::<B>(narrow(latents), d_sae),
        narrow(entries),
        narrow(rows),
    )
}

/// Integers that can number `size` places.
pub(super) fn index_type(size: usize) -> IntDType {
    match size < 1 << 31 {
        true => IntDType::I32,
        false => IntDType::I64,
    }
}

/// How many entries have a latent below each of `0..=d_sae`.
fn counts_before<B: Backend>(latents: IntTensor<B>, d_sae: usize) -> IntTensor<B> {
    let (e, device) = (latents.shape()[0], latents.device());
    let zeros = B::int_zeros(Shape::new([d_sae + 1]), &device, IntDType::I32);
    let ones = B::int_ones(Shape::new([e]), &device, IntDType::I32);
    let above = B::int_add_scalar(latents, 1i64.into());
    let counts = B::int_scatter(0, zeros, above, ones, IndexingUpdateOp::Add);
    B::int_cumsum(counts, 0)
}

impl ByLatentOps for CubeBackend {
    fn by_latent(latents: CubeTensor, rows: CubeTensor, d_sae: usize) -> Triple<Self> {
        if !cube::takes_wgsl_ints(&[&latents]) || latents.shape()[0] == 0 {
            return reference::<Self>(latents, rows, d_sae);
        }
        let (starts, entries) = sorted(into_contiguous(latents), d_sae);
        let rows = Self::int_gather(0, Self::int_cast(rows, IntDType::I32), entries.clone());
        (starts, entries, rows)
    }
}

/// Starts `[d_sae + 1]` and entries `[e]`. `d_sae` itself stands for latents that are not below it.
fn sorted(latents: CubeTensor, d_sae: usize) -> (CubeTensor, CubeTensor) {
    let (sorted, entries) = radix::sort(&latents, d_sae);
    let starts = cube::output(&latents, [d_sae + 1], DType::I32);
    let sizes = cube::sizes(&latents, &[latents.shape()[0], d_sae]);
    let kernel = wgsl::BY_LATENT_STARTS.kernel(&[]);
    let groups = (d_sae + 1).div_ceil(radix::DIGITS) as u64;
    let buffers = vec![sorted, sizes, starts.handle.clone()];
    wgsl::launch(&latents.client, kernel, groups, buffers);
    (starts, entries)
}

impl ByLatentOps for Flex {
    fn by_latent(latents: FlexTensor, rows: FlexTensor, d_sae: usize) -> Triple<Self> {
        let latents = flex::indices("by_latent", &latents, d_sae);
        let rows = flex::indices("by_latent", &rows, 1 << 31);
        let (starts, entries) = counted(&latents, d_sae);
        let rows = entries.iter().map(|&e| rows[e as usize] as i32).collect();
        (flex::ints(starts), flex::ints(entries), flex::ints(rows))
    }
}

/// Counting sort: starts `[d_sae + 1]` and entries `[e]`.
fn counted(latents: &[u32], d_sae: usize) -> (Vec<i32>, Vec<i32>) {
    let mut starts = vec![0i32; d_sae + 1];
    latents.iter().for_each(|&f| starts[f as usize + 1] += 1);
    (0..d_sae).for_each(|f| starts[f + 1] += starts[f]);
    let mut next = starts.clone();
    let mut entries = vec![0i32; latents.len()];
    for (entry, &f) in latents.iter().enumerate() {
        entries[next[f as usize] as usize] = entry as i32;
        next[f as usize] += 1;
    }
    (starts, entries)
}
