//! Adam, fused for weights with one row a latent.

use burn::backend::tensor::{BoolTensor, FloatTensor, IntTensor};
use burn::backend::{
    Backend, DType, Dispatch, Flex, Shape, TensorMetadata, backend_extension,
    get_or_init_device_settings,
};
use burn::tensor::{Device, Slice, Tensor, TensorData};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::flex::{all_f32, floats, owned, row, vector};
use super::simd::{dot, wide};
use super::sparse_matmul_t::{HostSums, SparseMatmulTOps, sizes_of};
use super::{Adam, LatentSums, Moments, cube};
use crate::wgsl;

/// One step of [`adam_rows`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamRows {
    /// The optimiser.
    pub adam: Adam,
    /// Which step this is, the first being 1.
    pub t: u64,
    /// The learning rate.
    pub lr: f64,
    /// Rows are directions: of each row's gradient only the part orthogonal to the row counts, and
    /// after the step the row is scaled back to length 1 (Bricken et al. 2023).
    pub unit: bool,
    /// Rows without an entry in this batch are left alone, moments and weight decay included, as
    /// PyTorch's `SparseAdam` leaves them. It is another optimiser, not a faster form of the same:
    /// Adam moves a row on by the moments of earlier batches.
    pub lazy: bool,
}

/// The squared length of each row of a gradient, for clipping: `[d_sae]`.
///
/// `directions` `[d_sae, d]`, if given, are unit rows; what lies along them does not count, as in
/// [`AdamRows::unit`]. Cost: as [`sparse_matmul_t`](super::sparse_matmul_t), and a pass over the
/// directions; on the CPU one row a thread is held, never the gradient.
///
/// # Panics
/// If the shapes do not fit.
pub fn grad_squares(grad: &LatentSums, directions: Option<&Tensor<2>>) -> Tensor<1> {
    grad.check("grad_squares");
    let unit = directions.is_some();
    let w = directions
        .cloned()
        .unwrap_or_else(|| Tensor::zeros([1, 1], &grad.g.device()));
    assert!(
        !unit || w.dims() == grad.dims(),
        "grad_squares: directions {:?} of a gradient {:?}",
        w.dims(),
        grad.dims()
    );
    let squares = <Dispatch as AdamRowsOps>::grad_squares(
        w.into_dispatch(),
        grad.starts.clone().into_dispatch(),
        grad.rows.clone().into_dispatch(),
        grad.values.clone().into_dispatch(),
        grad.g.clone().into_dispatch(),
        unit,
    );
    Tensor::from_dispatch(squares)
}

/// One step of Adam on a weight `[d_sae, d]` whose gradient is `scale · grad`.
///
/// In one pass over weight and moments: the gradient's row is summed up from its entries, projected
/// and scaled, the moments and the row are moved, the row is brought back to unit length. `scale`
/// `[1]` is usually [`clip_scale`](super::clip_scale)'s. Rows without an entry have gradient 0, and still move, as
/// Adam's definition has it (but see [`AdamRows::lazy`]).
///
/// Cost: e·d multiply-adds for the e entries, and three reads and three writes of the parameters;
/// weight and moments are changed in place where nothing else holds them. On the CPU it holds one
/// row a thread; on wgpu, where a workgroup takes a latent, nothing, and of rows longer than 3,072 with
/// `unit` it sums up the rest twice. The reference (other floats, runtimes without WGSL) is a dozen
/// passes over dense gradients.
///
/// # Panics
/// If the shapes do not fit.
///
/// Source: Kingma & Ba 2015, algorithm 1; Loshchilov & Hutter 2019, algorithm 2.
///
/// ```
/// use burn::tensor::Tensor;
/// use inscape::{Device, ops::{Adam, AdamRows, LatentSums, Moments, adam_rows}};
/// let cpu = Device::cpu();
/// let w = Tensor::<2>::from_data([[1.0, 0.0], [0.0, 1.0]], cpu.tensor());
/// let mut moments = Moments::zeros(&w);
/// let grad = LatentSums::of_matrix(Tensor::from_data([[5.0, -1.0], [0.0, 0.0]], cpu.tensor()));
/// let step = AdamRows { adam: Adam::default(), t: 1, lr: 0.1, unit: true, lazy: false };
/// let w = adam_rows(w, &mut moments, &grad, Tensor::ones([1], cpu.tensor()), &step);
/// let w = w.into_data().try_to_vec::<f32>().unwrap();
/// assert!((w[1] - 0.1 / 1.01f32.sqrt()).abs() < 1e-6); // (1, 0.1), scaled to length 1
/// assert_eq!(w[2..], [0.0, 1.0]);
/// ```
pub fn adam_rows(
    w: Tensor<2>,
    moments: &mut Moments<2>,
    grad: &LatentSums,
    scale: Tensor<1>,
    step: &AdamRows,
) -> Tensor<2> {
    let dims = grad.dims();
    assert!(
        w.dims() == dims && moments.m.dims() == dims && moments.v.dims() == dims,
        "adam_rows: w {:?}, moments {:?}, gradient {dims:?}",
        w.dims(),
        moments.m.dims()
    );
    grad.check("adam_rows");
    let dtype = w.dtype();
    assert!(
        matches!(dtype, DType::F32 | DType::F64) && scale.dims() == [1] && step.t > 0,
        "adam_rows: {dtype:?} weights, {:?} scales, step {}; f32 or f64, one, and at least 1 are taken",
        scale.dims(),
        step.t
    );
    let settings = step.settings(dims, (&w.device(), dtype));
    let settings = Tensor::cat(vec![settings, scale], 0);
    let (m, v) = (take(&mut moments.m), take(&mut moments.v));
    let (w, m, v) = <Dispatch as AdamRowsOps>::adam_rows(
        w.into_dispatch(),
        m.into_dispatch(),
        v.into_dispatch(),
        grad.starts.clone().into_dispatch(),
        grad.rows.clone().into_dispatch(),
        grad.values.clone().into_dispatch(),
        grad.g.clone().into_dispatch(),
        settings.into_dispatch(),
        step.unit,
        step.lazy,
    );
    (moments.m, moments.v) = (Tensor::from_dispatch(m), Tensor::from_dispatch(v));
    Tensor::from_dispatch(w)
}

/// Takes a tensor out of its place, so that what is done to it may be done in place.
pub(crate) fn take(x: &mut Tensor<2>) -> Tensor<2> {
    let empty = Tensor::zeros([0, 0], &x.device());
    std::mem::replace(x, empty)
}

/// A row is never divided by less, so that one of zeros stays one.
const SHORTEST: f32 = 1e-12;

/// Places in the settings that the backends get, `[11]`.
mod at {
    pub(super) const BETA1: usize = 0;
    pub(super) const NEW1: usize = 1;
    pub(super) const BETA2: usize = 2;
    pub(super) const NEW2: usize = 3;
    pub(super) const RATE: usize = 4;
    pub(super) const CORRECT2: usize = 5;
    pub(super) const EPS: usize = 6;
    pub(super) const KEEP: usize = 7;
    /// 8 and 9 are `d_sae` and `d`, which the kernel reads.
    pub(super) const SCALE: usize = 10;
}

impl AdamRows {
    /// All settings but the scale, which follows them. `d_sae` and `d` are below 2²⁴: exact.
    fn settings(&self, [d_sae, d]: [usize; 2], on: (&Device, DType)) -> Tensor<1> {
        let Adam {
            beta1,
            beta2,
            eps,
            weight_decay,
        } = self.adam;
        let (c1, c2) = self.adam.corrections(self.t);
        let settings: [f64; at::SCALE] = [
            beta1,
            1.0 - beta1,
            beta2,
            1.0 - beta2,
            self.lr / c1,
            1.0 / c2,
            eps,
            1.0 - self.lr * weight_decay,
            d_sae as f64,
            d as f64,
        ];
        Tensor::from_data(TensorData::from(settings), on)
    }
}

/// The backends' side of [`adam_rows`] and [`grad_squares`].
#[backend_extension(Flex, Cube)]
pub trait AdamRowsOps: SparseMatmulTOps {
    /// See [`grad_squares`]; `w` counts only if `unit`.
    fn grad_squares(
        w: FloatTensor<Self>,
        starts: IntTensor<Self>,
        rows: IntTensor<Self>,
        values: FloatTensor<Self>,
        g: FloatTensor<Self>,
        unit: bool,
    ) -> FloatTensor<Self> {
        squares_reference::<Self>(w, [starts, rows], [values, g], unit)
    }

    /// Weight and moments after the step; `settings` end with the scale.
    #[allow(
        clippy::too_many_arguments,
        reason = "the bindings of the kernel, in order"
    )]
    fn adam_rows(
        w: FloatTensor<Self>,
        m: FloatTensor<Self>,
        v: FloatTensor<Self>,
        starts: IntTensor<Self>,
        rows: IntTensor<Self>,
        values: FloatTensor<Self>,
        g: FloatTensor<Self>,
        settings: FloatTensor<Self>,
        unit: bool,
        lazy: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        rows_reference::<Self>(
            [w, m, v],
            [starts, rows],
            [values, g],
            settings,
            [unit, lazy],
        )
    }
}

type Floats<B, const N: usize> = [FloatTensor<B>; N];

fn squares_reference<B: SparseMatmulTOps>(
    w: FloatTensor<B>,
    [starts, rows]: [IntTensor<B>; 2],
    [values, g]: Floats<B, 2>,
    unit: bool,
) -> FloatTensor<B> {
    let grad = B::sparse_matmul_t(starts, rows, values, g);
    let grad = if unit { orthogonal::<B>(grad, w) } else { grad };
    let d_sae = grad.shape()[0];
    B::float_reshape(dots::<B>(grad.clone(), grad), Shape::new([d_sae]))
}

/// `Σ a b` over the columns: `[d_sae, 1]`.
fn dots<B: Backend>(a: FloatTensor<B>, b: FloatTensor<B>) -> FloatTensor<B> {
    B::float_sum_dim(B::float_mul(a, b), 1)
}

/// What of each row of `grad` is orthogonal to the unit row of `w`.
fn orthogonal<B: Backend>(grad: FloatTensor<B>, w: FloatTensor<B>) -> FloatTensor<B> {
    let along = dots::<B>(grad.clone(), w.clone());
    let along = B::float_mul(B::float_expand(along, w.shape()), w);
    B::float_sub(grad, along)
}

fn rows_reference<B: SparseMatmulTOps>(
    [w, m, v]: Floats<B, 3>,
    [starts, rows]: [IntTensor<B>; 2],
    [values, g]: Floats<B, 2>,
    settings: FloatTensor<B>,
    [unit, lazy]: [bool; 2],
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let shape = w.shape();
    let setting = |i: usize| {
        let one = B::float_slice(settings.clone(), &[Slice::from(i..i + 1)]);
        B::float_expand(B::float_reshape(one, Shape::new([1, 1])), shape.clone())
    };
    let times = |x: &FloatTensor<B>, i: usize| B::float_mul(x.clone(), setting(i));
    let grad = B::sparse_matmul_t(starts.clone(), rows, values, g);
    let grad = if unit {
        orthogonal::<B>(grad, w.clone())
    } else {
        grad
    };
    let grad = times(&grad, at::SCALE);
    let square = B::float_mul(grad.clone(), grad.clone());
    let new_m = B::float_add(times(&m, at::BETA1), times(&grad, at::NEW1));
    let new_v = B::float_add(times(&v, at::BETA2), times(&square, at::NEW2));
    let root = B::float_add(B::float_sqrt(times(&new_v, at::CORRECT2)), setting(at::EPS));
    let moved = B::float_div(times(&new_m, at::RATE), root);
    let mut new_w = B::float_sub(times(&w, at::KEEP), moved);
    if unit {
        let length = B::float_sqrt(dots::<B>(new_w.clone(), new_w.clone()));
        let length = B::float_clamp_min(length, SHORTEST.into());
        new_w = B::float_div(new_w, B::float_expand(length, shape.clone()));
    }
    if !lazy {
        return (new_w, new_m, new_v);
    }
    let empty = empty_rows::<B>(starts, &w);
    let keep = |new, old| B::float_mask_where(new, empty.clone(), old);
    (keep(new_w, w), keep(new_m, m), keep(new_v, v))
}

/// True in the rows of latents without an entry, in the shape of `like`.
fn empty_rows<B: Backend>(starts: IntTensor<B>, like: &FloatTensor<B>) -> BoolTensor<B> {
    let (shape, d_sae) = (like.shape(), like.shape()[0]);
    let from = |i: usize| B::int_slice(starts.clone(), &[Slice::from(i..i + d_sae)]);
    let bools = get_or_init_device_settings::<B>(&like.device()).bool_dtype;
    let empty = B::int_equal(from(0), from(1), bools);
    B::bool_expand(B::bool_reshape(empty, Shape::new([d_sae, 1])), shape)
}

impl AdamRowsOps for CubeBackend {
    fn grad_squares(
        w: CubeTensor,
        starts: CubeTensor,
        rows: CubeTensor,
        values: CubeTensor,
        g: CubeTensor,
        unit: bool,
    ) -> CubeTensor {
        if !cube::takes_wgsl(&[&w, &values, &g]) || !cube::takes_wgsl_ints(&[&starts, &rows]) {
            return squares_reference::<Self>(w, [starts, rows], [values, g], unit);
        }
        cube::assert_addressable("grad_squares", &[&w, &g]);
        let sizes = sizes_of(&starts, &rows, &g);
        let [d_sae, _, _, d] = sizes;
        let squares = cube::output(&g, [d_sae], DType::F32);
        let inputs = [w, starts, rows, values, g].map(|x| into_contiguous(x).handle);
        let rest = [cube::sizes(&squares, &sizes), squares.handle.clone()];
        let kernel = wgsl::GRAD_SQUARES.kernel(&[("UNIT", unit.into()), kept(unit, d)]);
        let buffers = inputs.into_iter().chain(rest).collect();
        wgsl::launch(&squares.client, kernel, d_sae as u64, buffers);
        squares
    }

    fn adam_rows(
        w: CubeTensor,
        m: CubeTensor,
        v: CubeTensor,
        starts: CubeTensor,
        rows: CubeTensor,
        values: CubeTensor,
        g: CubeTensor,
        settings: CubeTensor,
        unit: bool,
        lazy: bool,
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        let floats = [&w, &m, &v, &values, &g, &settings];
        if !cube::takes_wgsl(&floats) || !cube::takes_wgsl_ints(&[&starts, &rows]) {
            let (w, sums) = ([w, m, v], [values, g]);
            return rows_reference::<Self>(w, [starts, rows], sums, settings, [unit, lazy]);
        }
        cube::assert_addressable("adam_rows", &[&w, &g]);
        let [d_sae, d] = cube::dims(&w);
        let exact = d_sae.max(d) < 1 << 24; // the settings are f32
        assert!(exact, "adam_rows: w [{d_sae}, {d}] reaches 2^24");
        let [w, m, v] = [w, m, v].map(cube::owned);
        let inputs = [starts, rows, values, g, settings].map(|x| into_contiguous(x).handle);
        let changed = [&w, &m, &v].map(|x| x.handle.clone());
        let buffers = changed.into_iter().chain(inputs).collect();
        let constants = [("UNIT", unit.into()), ("LAZY", lazy.into()), kept(unit, d)];
        let groups = if d == 0 { 0 } else { d_sae as u64 };
        wgsl::launch(
            &w.client,
            wgsl::ADAM_ROWS.kernel(&constants),
            groups,
            buffers,
        );
        (w, m, v)
    }
}

/// Columns of a gradient's row that the shaders keep: where they take it apart, all of them, if the
/// largest choice, of 12 KiB, has room.
fn kept(unit: bool, d: usize) -> (&'static str, u32) {
    let needed = if unit { d as u32 } else { 0 };
    let row = wgsl::ROW.iter().find(|&&row| needed <= row);
    ("ROW", *row.unwrap_or(&wgsl::ROW[wgsl::ROW.len() - 1]))
}

/// Latents that one task of the CPU form handles.
const ROWS: usize = 16;

impl AdamRowsOps for Flex {
    fn grad_squares(
        w: FlexTensor,
        starts: FlexTensor,
        rows: FlexTensor,
        values: FlexTensor,
        g: FlexTensor,
        unit: bool,
    ) -> FlexTensor {
        let [starts, rows, values, g, w] = [starts, rows, values, g, w].map(|x| x.to_contiguous());
        let (Some(sums), Some(w)) = (
            HostSums::new(&starts, &rows, &values, &g),
            w.as_slice::<f32>(),
        ) else {
            return squares_reference::<Self>(w, [starts, rows], [values, g], unit);
        };
        let mut squares = vec![0f32; sums.d_sae()];
        let tasks = squares.par_chunks_mut(ROWS).enumerate();
        tasks.for_each_init(
            || vec![0f32; sums.d],
            |grad, (task, squares)| {
                wide(|| {
                    for (i, square) in squares.iter_mut().enumerate() {
                        let f = task * ROWS + i;
                        let w = unit.then(|| row(w, f, sums.d));
                        *square = gradient_row(&sums, f, w, grad);
                    }
                });
            },
        );
        vector(squares)
    }

    fn adam_rows(
        w: FlexTensor,
        m: FlexTensor,
        v: FlexTensor,
        starts: FlexTensor,
        rows: FlexTensor,
        values: FlexTensor,
        g: FlexTensor,
        settings: FlexTensor,
        unit: bool,
        lazy: bool,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let [starts, rows, values, g] = [starts, rows, values, g].map(|x| x.to_contiguous());
        let sums = HostSums::new(&starts, &rows, &values, &g);
        let (Some(sums), true) = (sums, all_f32(&[&w, &m, &v, &settings])) else {
            let (w, sums) = ([w, m, v], [values, g]);
            return rows_reference::<Self>(w, [starts, rows], sums, settings, [unit, lazy]);
        };
        let rule = Rule {
            settings: floats(&settings),
            unit,
            lazy,
        };
        let (mut w, mut m, mut v) = (owned(w), owned(m), owned(v));
        let size = ROWS * sums.d;
        let tasks = w.storage_mut::<f32>().par_chunks_mut(size).zip(
            m.storage_mut::<f32>()
                .par_chunks_mut(size)
                .zip(v.storage_mut::<f32>().par_chunks_mut(size)),
        );
        tasks.enumerate().for_each_init(
            || vec![0f32; sums.d],
            |grad, (task, (w, (m, v)))| wide(|| rule.rows(&sums, task * ROWS, [w, m, v], grad)),
        );
        (w, m, v)
    }
}

/// Puts the gradient of latent `f`, less what lies along the unit row `w`, into `grad` and returns
/// its squared length.
#[inline(always)]
fn gradient_row(sums: &HostSums, f: usize, w: Option<&[f32]>, grad: &mut [f32]) -> f32 {
    grad.fill(0.0);
    if sums.is_empty(f) {
        return 0.0;
    }
    sums.add_to(f, grad);
    if let Some(w) = w {
        let along = dot(grad, w);
        grad.iter_mut().zip(w).for_each(|(g, w)| *g -= along * w);
    }
    dot(grad, grad)
}

/// How the CPU form moves a row.
struct Rule<'a> {
    settings: &'a [f32],
    unit: bool,
    lazy: bool,
}

impl Rule<'_> {
    /// Moves the rows of the latents from `first` on.
    #[inline(always)]
    fn rows(&self, sums: &HostSums, first: usize, [w, m, v]: [&mut [f32]; 3], grad: &mut [f32]) {
        let d = sums.d;
        let each = w
            .chunks_exact_mut(d)
            .zip(m.chunks_exact_mut(d))
            .zip(v.chunks_exact_mut(d));
        for (f, ((w, m), v)) in (first..).zip(each) {
            if self.lazy && sums.is_empty(f) {
                continue;
            }
            gradient_row(sums, f, self.unit.then_some(&*w), grad);
            self.step(w, m, v, grad);
            if self.unit {
                let length = dot(w, w).sqrt().max(SHORTEST);
                w.iter_mut().for_each(|w| *w /= length);
            }
        }
    }

    #[inline(always)]
    fn step(&self, w: &mut [f32], m: &mut [f32], v: &mut [f32], grad: &[f32]) {
        let [b1, n1, b2, n2, rate, correct2, eps, keep, _, _, scale] = *self.settings else {
            unreachable!("the settings and the scale are eleven numbers")
        };
        for (((w, m), v), g) in w.iter_mut().zip(m).zip(v).zip(grad) {
            let g = scale * g;
            *m = b1 * *m + n1 * g;
            *v = b2 * *v + n2 * (g * g);
            *w = keep * *w - rate * *m / ((correct2 * *v).sqrt() + eps);
        }
    }
}
