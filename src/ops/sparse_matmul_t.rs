//! The transpose of a sparse batch times a matrix: sums over the entries of each latent.

use std::ops::Range;

use burn::backend::tensor::{FloatTensor, IndexingUpdateOp, IntTensor};
use burn::backend::{
    Backend, DType, Dispatch, Flex, IntDType, Shape, TensorMetadata, backend_extension,
};
use burn::tensor::{Bool, Int, Tensor};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::ByLatent;
use super::by_latent::{ByLatentOps, index_type, rows_of_entries};
use super::cube;
use super::flex::{dims, matrix, row};
use super::simd::{add_all, wide};
use crate::wgsl;

/// A matrix `[d_sae, d]` as the sums it is made of:
/// row `f` is `Σ values[e] · g[rows[e]]` over `e` in `starts[f]..starts[f + 1]`.
///
/// The gradient of a weight with one row a latent has this form. [`sparse_matmul_t`] works it out;
/// [`adam_rows`](super::adam_rows) never holds it.
#[derive(Clone, Debug)]
pub struct LatentSums {
    /// `[d_sae + 1]`, i32.
    pub starts: Tensor<1, Int>,
    /// `[e]`, i32, in the order of the latents.
    pub rows: Tensor<1, Int>,
    /// `[e]`, in the same order.
    pub values: Tensor<1>,
    /// `[n, d]`.
    pub g: Tensor<2>,
}

impl LatentSums {
    /// From entries in the order in which they were grouped: `values` `[e]`, `g` `[n, d]`.
    ///
    /// # Panics
    /// If there is not one value an entry.
    pub fn new(values: Tensor<1>, groups: &ByLatent, g: Tensor<2>) -> Self {
        let ([e], [grouped]) = (values.dims(), groups.entries.dims());
        assert!(e == grouped, "LatentSums: {e} values, {grouped} entries");
        Self {
            starts: groups.starts.clone(),
            rows: groups.rows.clone(),
            values: values.gather(0, groups.entries.clone()),
            g,
        }
    }

    /// A matrix that is already there: every row one entry of itself.
    pub fn of_matrix(g: Tensor<2>) -> Self {
        let ([n, _], device) = (g.dims(), g.device());
        Self {
            starts: rows_of_entries(0, [n + 1, 1], &device),
            rows: rows_of_entries(0, [n, 1], &device),
            values: Tensor::ones([n], (&device, g.dtype())),
            g,
        }
    }

    /// The same sums worked out, from [`DENSE_FROM`] on: then a dense product, and holding
    /// `[d_sae, d]`, costs the CPU less than going through the entries of each latent twice. Every row
    /// then has an entry, so [`AdamRows::lazy`](super::AdamRows::lazy) no longer tells which had none.
    pub fn condensed(self) -> Self {
        let ([d_sae, _], [n, _]) = (self.dims(), self.g.dims());
        match is_dense(self.rows.dims()[0], n * d_sae) {
            true => Self::of_matrix(sparse_matmul_t(&self)),
            false => self,
        }
    }

    /// The latents without an entry: `[d_sae]`.
    pub fn idle(&self) -> Tensor<1, Bool> {
        let d_sae = self.dims()[0];
        let from = |i| self.starts.clone().narrow(0, i, d_sae);
        from(0).equal(from(1))
    }

    /// # Panics
    /// If there is not one value and one row an entry.
    pub(super) fn check(&self, op: &str) {
        let ([e], [rows]) = (self.values.dims(), self.rows.dims());
        assert!(e == rows, "{op}: {e} values in {rows} rows");
    }

    /// Latents and columns.
    pub fn dims(&self) -> [usize; 2] {
        [self.starts.dims()[0] - 1, self.g.dims()[1]]
    }
}

/// `r[f] = Σ values[i, j] · g[i]` over the entries with `indices[i, j] = f`: the transpose of the
/// sparse matrix times `g`.
///
/// The sums hold `values` `[e]`, `g` `[n, d]`; the result is `[d_sae, d]`. The entries of a latent are
/// summed in their order, without atomics: the same bits on any number of threads, from run to run.
/// It is what gradients are made of and has none itself.
///
/// # Panics
/// If there is not one value and one row an entry, or on an autodiff device.
///
/// Cost: e·d multiply-adds, no scratch; on the CPU one latent after another on all threads, on wgpu a
/// workgroup a latent. Other floats and runtimes without WGSL take the reference, a dense product
/// over `[n, d_sae]`, which it holds; so does the CPU from [`DENSE_FROM`] on.
///
/// Source: the count, prefix sum and segment sum of Gao et al. 2024, appendix D, without its atomics.
///
/// ```
/// use burn::tensor::{Int, Tensor};
/// use inscape::{Device, ops::{ByLatent, LatentSums, sparse_matmul_t}};
/// let cpu = Device::cpu();
/// let indices = Tensor::<2, Int>::from_data([[2, 0], [2, 1]], cpu.tensor());
/// let values = Tensor::<1>::from_data([1.0, 2.0, 3.0, 4.0], cpu.tensor());
/// let g = Tensor::<2>::from_data([[1.0], [10.0]], cpu.tensor());
/// let sums = LatentSums::new(values, &ByLatent::of(&indices, 3), g);
/// let r = sparse_matmul_t(&sums);
/// assert_eq!(r.into_data().try_to_vec::<f32>().unwrap(), [2.0, 40.0, 31.0]);
/// ```
pub fn sparse_matmul_t(sums: &LatentSums) -> Tensor<2> {
    sums.check("sparse_matmul_t");
    let r = <Dispatch as SparseMatmulTOps>::sparse_matmul_t(
        sums.starts.clone().into_dispatch(),
        sums.rows.clone().into_dispatch(),
        sums.values.clone().into_dispatch(),
        sums.g.clone().into_dispatch(),
    );
    Tensor::from_dispatch(r)
}

/// The backends' side of [`sparse_matmul_t`].
#[backend_extension(Flex, Cube)]
pub trait SparseMatmulTOps: Backend {
    /// See [`sparse_matmul_t`].
    fn sparse_matmul_t(
        starts: IntTensor<Self>,
        rows: IntTensor<Self>,
        values: FloatTensor<Self>,
        g: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        reference::<Self>(starts, rows, values, g)
    }
}

/// The entries as a dense `[d_sae, n]`, times `g`.
pub(super) fn reference<B: Backend>(
    starts: IntTensor<B>,
    rows: IntTensor<B>,
    values: FloatTensor<B>,
    g: FloatTensor<B>,
) -> FloatTensor<B> {
    let (d_sae, n) = (starts.shape()[0] - 1, g.shape()[0]);
    let dtype = index_type(d_sae.saturating_mul(n));
    let latents = B::int_cast(latent_of_entries::<B>(starts, rows.shape()[0]), dtype);
    let rows = B::int_cast(rows, dtype);
    let place = B::int_add(B::int_mul_scalar(latents, (n as i64).into()), rows);
    let zeros = Shape::new([d_sae * n]);
    let zeros = B::float_zeros(zeros, &values.device(), values.dtype().into());
    let dense = B::float_scatter(0, zeros, place, values, IndexingUpdateOp::Add);
    B::float_matmul(B::float_reshape(dense, Shape::new([d_sae, n])), g)
}

/// The latent of each of `e` entries: how many groups have begun at or before it, less one.
fn latent_of_entries<B: Backend>(starts: IntTensor<B>, e: usize) -> IntTensor<B> {
    let device = starts.device();
    let d_sae = starts.shape()[0] - 1;
    let begun = B::int_zeros(Shape::new([e + 1]), &device, IntDType::I32);
    let ones = B::int_ones(Shape::new([d_sae + 1]), &device, IntDType::I32);
    let begun = B::int_scatter(0, begun, starts, ones, IndexingUpdateOp::Add);
    let begun = B::int_sub_scalar(B::int_cumsum(begun, 0), 1i64.into());
    B::int_slice(begun, &[burn::tensor::Slice::from(0..e)])
}

/// Above this share of entries in `[n, d_sae]` the CPU multiplies densely. Measured with two cores,
/// d = 384, 1,024 latents and 2,048 rows: [`sparse_decode`](super::sparse_decode) lost nowhere up to
/// a half, [`sparse_matmul_t`] from a quarter on (`cargo bench --bench ops -- density`).
pub const DENSE_FROM: f64 = 0.25;

pub(super) fn is_dense(entries: usize, all: usize) -> bool {
    entries as f64 >= DENSE_FROM * all as f64
}

/// `Σ values[i, j] · g[i]` by latent, from sparse rows as they are.
pub(super) fn sums_of<B: Backend + ByLatentOps + SparseMatmulTOps>(
    values: FloatTensor<B>,
    indices: IntTensor<B>,
    g: FloatTensor<B>,
    d_sae: usize,
) -> FloatTensor<B> {
    let (shape, device) = (values.shape(), values.device());
    let (n, k) = (shape[0], shape[1]);
    let flat = Shape::new([n * k]);
    let rows = B::int_arange(0..n as i64, &device, IntDType::I32);
    let rows = B::int_expand(B::int_reshape(rows, Shape::new([n, 1])), shape);
    let latents = B::int_reshape(indices, flat.clone());
    let (starts, entries, rows) = B::by_latent(latents, B::int_reshape(rows, flat.clone()), d_sae);
    let values = B::float_gather(0, B::float_reshape(values, flat), entries);
    B::sparse_matmul_t(starts, rows, values, g)
}

impl SparseMatmulTOps for CubeBackend {
    fn sparse_matmul_t(
        starts: CubeTensor,
        rows: CubeTensor,
        values: CubeTensor,
        g: CubeTensor,
    ) -> CubeTensor {
        if !cube::takes_wgsl(&[&values, &g]) || !cube::takes_wgsl_ints(&[&starts, &rows]) {
            return reference::<Self>(starts, rows, values, g);
        }
        let sizes = sizes_of(&starts, &rows, &g);
        let [d_sae, _, _, d] = sizes;
        let r = cube::output(&g, [d_sae, d], DType::F32);
        cube::assert_addressable("sparse_matmul_t", &[&g, &r]);
        let inputs = [starts, rows, values, g].map(|x| into_contiguous(x).handle);
        let rest = [cube::sizes(&r, &sizes), r.handle.clone()];
        let buffers = inputs.into_iter().chain(rest).collect();
        let groups = if d == 0 { 0 } else { d_sae as u64 };
        let kernel = wgsl::SPARSE_MATMUL_T.kernel(&[]);
        wgsl::launch(&r.client, kernel, groups, buffers);
        r
    }
}

/// d_sae, e, n and d, as the shaders take them.
pub(super) fn sizes_of(starts: &CubeTensor, rows: &CubeTensor, g: &CubeTensor) -> [usize; 4] {
    let [n, d] = cube::dims(g);
    [starts.shape()[0] - 1, rows.shape()[0], n, d]
}

impl SparseMatmulTOps for Flex {
    fn sparse_matmul_t(
        starts: FlexTensor,
        rows: FlexTensor,
        values: FlexTensor,
        g: FlexTensor,
    ) -> FlexTensor {
        let [starts, rows, values, g] = [starts, rows, values, g].map(|x| x.to_contiguous());
        let Some(sums) = HostSums::new(&starts, &rows, &values, &g) else {
            return reference::<Self>(starts, rows, values, g);
        };
        if sums.is_dense() {
            return reference::<Self>(starts, rows, values, g);
        }
        let (d_sae, d) = (sums.d_sae(), sums.d);
        let mut r = vec![0f32; d_sae * d];
        let each = r.par_chunks_mut(d).enumerate();
        each.for_each(|(f, r)| wide(|| sums.add_to(f, r)));
        matrix(r, d_sae, d)
    }
}

/// [`LatentSums`] as slices.
pub(super) struct HostSums<'a> {
    starts: &'a [i32],
    rows: &'a [i32],
    values: &'a [f32],
    g: &'a [f32],
    pub(super) d: usize,
}

impl<'a> HostSums<'a> {
    /// None where the tensors are not contiguous f32 and i32, or `g` has no columns.
    pub(super) fn new(
        starts: &'a FlexTensor,
        rows: &'a FlexTensor,
        values: &'a FlexTensor,
        g: &'a FlexTensor,
    ) -> Option<Self> {
        let d = dims(g)[1];
        let sums = Self {
            starts: starts.as_slice()?,
            rows: rows.as_slice()?,
            values: values.as_slice()?,
            g: g.as_slice()?,
            d,
        };
        (d > 0).then_some(sums)
    }

    pub(super) fn d_sae(&self) -> usize {
        self.starts.len() - 1
    }

    /// Whether a dense product is the faster one; for a few columns it never is.
    fn is_dense(&self) -> bool {
        let n = self.g.len() / self.d;
        self.d >= 32 && is_dense(self.rows.len(), n * self.d_sae())
    }

    fn entries(&self, f: usize) -> Range<usize> {
        self.starts[f] as usize..self.starts[f + 1] as usize
    }

    pub(super) fn is_empty(&self, f: usize) -> bool {
        self.entries(f).is_empty()
    }

    /// Adds the sum of latent `f` to `r` `[d]`.
    #[inline(always)]
    pub(super) fn add_to(&self, f: usize, r: &mut [f32]) {
        let row = |e: usize| row(self.g, self.rows[e] as usize, self.d);
        add_all(r, self.entries(f).map(|e| (self.values[e], row(e))));
    }
}
