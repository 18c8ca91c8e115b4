//! Row-wise exact top-k.

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::{BoolTensor, FloatTensor, IntTensor};
use burn::backend::{
    Autodiff, Backend, DType, Dispatch, Flex, FloatDType, IntDType, Shape, TensorMetadata,
    backend_extension, get_or_init_device_settings,
};
use burn::tensor::{Int, Tensor, TensorData};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::cube;
use super::simd::wide;
use crate::wgsl;

/// The largest k: the chosen ones of a row are sorted in workgroup memory.
const K_MAX: usize = 1024;
/// The longest row.
const N_MAX: usize = 1 << 20;

/// The `k` largest elements of every row, in falling order, with their columns.
///
/// `x` is `[rows, n]`; the values are `[rows, k]` and the indices `[rows, k]` (`i32`). Among equal
/// values the lowest column comes first, and −0 equals +0. NaN orders above +∞, so a NaN in a row is
/// never hidden: it stands at the front of the row's values (bits unchanged), lowest column first.
/// The result is the same, bit for bit, on every device. `rows` may be 0.
///
/// On an autodiff device gradients flow to the values: the gradient of `x` is the gradient of the
/// values scattered to their columns, and zero elsewhere.
///
/// # Panics
/// Unless 1 ≤ k ≤ n, k ≤ 1024 and n ≤ 1,048,576.
///
/// Cost: on the CPU one pass over `x`, over all threads, and O(k) memory per thread; on wgpu one
/// workgroup per row, which reads its row two to six times (up to nine where ties cross the k-th
/// place). `x` is copied if it is not contiguous. Floats other than f32, and runtimes without WGSL,
/// take the reference: k passes over `x` and about eight times its memory.
///
/// Source: exact selection by radix digits (Alabi, Blanchard, Gordon and Steinbach, 2012); the order
/// among ties and of NaN is ours.
///
/// ```
/// use burn::tensor::Tensor;
/// use inscape::{Device, ops::topk};
/// let device = Device::cpu();
/// let x = Tensor::<2>::from_floats([[1.0, 5.0, 3.0, 5.0]], device.tensor());
/// let (values, indices) = topk(x, 3);
/// assert_eq!(values.into_data().try_to_vec::<f32>().unwrap(), [5.0, 5.0, 3.0]);
/// assert_eq!(indices.into_data().try_to_vec::<i32>().unwrap(), [1, 3, 2]);
/// ```
pub fn topk(x: Tensor<2>, k: usize) -> (Tensor<2>, Tensor<2, Int>) {
    checked(x, k, <Dispatch as TopkOps>::topk)
}

/// [`topk`] in plain tensor operations: slow, and the meaning that the other forms must match.
pub fn topk_reference(x: Tensor<2>, k: usize) -> (Tensor<2>, Tensor<2, Int>) {
    checked(x, k, reference::<Dispatch>)
}

type Pair<B> = (FloatTensor<B>, IntTensor<B>);

fn checked(
    x: Tensor<2>,
    k: usize,
    run: impl FnOnce(FloatTensor<Dispatch>, usize) -> Pair<Dispatch>,
) -> (Tensor<2>, Tensor<2, Int>) {
    let [rows, n] = x.dims();
    check_k("topk", k, [rows, n]);
    if rows == 0 {
        let indices = Tensor::from_data(TensorData::new(Vec::<i32>::new(), [0, k]), &x.device());
        return (x.narrow(1, 0, k), indices);
    }
    let (values, indices) = run(x.into_dispatch(), k);
    (
        Tensor::from_dispatch(values),
        Tensor::from_dispatch(indices),
    )
}

pub(super) fn check_k(op: &str, k: usize, [rows, n]: [usize; 2]) {
    assert!(
        1 <= k && k <= n && k <= K_MAX && n <= N_MAX,
        "{op}: k = {k} of x [{rows}, {n}]; needs 1 <= k <= n, k <= {K_MAX}, n <= {N_MAX}"
    );
}

/// The backends' side of [`topk`]: `x` `[rows, n]` with at least one row, and a k that fits.
#[backend_extension(Flex, Cube, Autodiff)]
pub trait TopkOps: Backend {
    /// Values `[rows, k]` and columns `[rows, k]` of the k largest of every row.
    fn topk(x: FloatTensor<Self>, k: usize) -> (FloatTensor<Self>, IntTensor<Self>) {
        reference::<Self>(x, k)
    }
}

/// Takes the largest element k times.
fn reference<B: Backend>(x: FloatTensor<B>, k: usize) -> Pair<B> {
    let columns = Rows::<B>::new(&x).columns(k);
    (B::float_gather(1, x, columns.clone()), columns)
}

/// The rows of a reference run. Order is by class first (NaN 1, others 0, taken −1), then by value.
struct Rows<B: Backend> {
    shape: Shape,
    class: FloatTensor<B>,
    value: FloatTensor<B>,
    column: IntTensor<B>,
}

impl<B: Backend> Rows<B> {
    fn new(x: &FloatTensor<B>) -> Self {
        let (shape, device) = (x.shape(), x.device());
        let n = shape[1];
        let x = B::float_detach(x.clone());
        let nan = B::float_is_nan(x.clone(), bools::<B>(&x));
        let column = B::int_arange(0..n as i64, &device, IntDType::I32);
        let column = B::int_reshape(column, Shape::new([1, n]));
        Self {
            class: B::bool_into_float(nan.clone(), FloatDType::from(x.dtype())),
            value: B::float_mask_fill(x, nan, 0.0.into()),
            column: B::int_expand(column, shape.clone()),
            shape,
        }
    }

    fn columns(mut self, k: usize) -> IntTensor<B> {
        let mut taken = Vec::with_capacity(k);
        for _ in 0..k {
            let next = self.largest();
            let wide = B::int_expand(next.clone(), self.shape.clone());
            let hit = B::int_equal(self.column.clone(), wide, bools::<B>(&self.class));
            self.class = B::float_mask_fill(self.class, hit, (-1.0).into());
            taken.push(next);
        }
        B::int_cat(taken, 1)
    }

    /// The lowest column of the largest element of every row: `[rows, 1]`.
    fn largest(&self) -> IntTensor<B> {
        let of_class = self.equals_max(&self.class);
        let outside = B::bool_not(of_class.clone());
        let value = B::float_mask_fill(self.value.clone(), outside, f64::NEG_INFINITY.into());
        let best = B::bool_and(of_class, self.equals_max(&value));
        let n = self.shape[1] as i64;
        B::int_min_dim(
            B::int_mask_fill(self.column.clone(), B::bool_not(best), n.into()),
            1,
        )
    }

    fn equals_max(&self, v: &FloatTensor<B>) -> BoolTensor<B> {
        let max = B::float_expand(B::float_max_dim(v.clone(), 1), self.shape.clone());
        B::float_equal(v.clone(), max, bools::<B>(v))
    }
}

pub(super) fn bools<B: Backend>(x: &FloatTensor<B>) -> burn::backend::BoolDType {
    get_or_init_device_settings::<B>(&x.device()).bool_dtype
}

impl TopkOps for Flex {
    fn topk(x: FloatTensor<Self>, k: usize) -> Pair<Self> {
        if x.dtype() != DType::F32 {
            return reference::<Self>(x, k);
        }
        let (rows, n) = (x.shape()[0], x.shape()[1]);
        let x = x.to_contiguous();
        let Some(x) = x.as_slice::<f32>() else {
            unreachable!("topk: a contiguous f32 tensor is a slice")
        };
        let (values, columns) = topk_rows(x, n, k);
        let values = FlexTensor::from_data(TensorData::new(values, [rows, k]));
        (
            values,
            FlexTensor::from_data(TensorData::new(columns, [rows, k])),
        )
    }
}

/// The CPU form, on a row-major slice of rows of `n`.
fn topk_rows(x: &[f32], n: usize, k: usize) -> (Vec<f32>, Vec<i32>) {
    let rows = x.len() / n;
    let (mut values, mut columns) = (vec![0.0; rows * k], vec![0; rows * k]);
    let outputs = values.par_chunks_mut(k).zip(columns.par_chunks_mut(k));
    outputs.zip(x.par_chunks(n)).for_each_init(
        || Best::new(k),
        |best, ((values, columns), row)| {
            wide(|| best.offer(row, 0));
            best.write(values, columns);
            values
                .iter_mut()
                .zip(columns)
                .for_each(|(v, c)| *v = row[*c as usize]); // the bits of NaN and −0
        },
    );
    (values, columns)
}

/// Elements compared at once before any is looked at alone.
const BLOCK: usize = 16;

/// The k largest of the elements offered so far, rising columns first to last.
///
/// Candidates are collected; when there is no more room they are cut to the k largest, and from then
/// on an element passes only if it is above the k-th. Columns rise, so an equal one comes too late.
pub(super) struct Best {
    k: usize,
    ranks: Vec<u64>,
    /// What an element must be above. Nothing is at or below NaN: all pass until the first cut.
    bar: f32,
}

impl Best {
    pub(super) fn new(k: usize) -> Self {
        let ranks = Vec::with_capacity(Self::room(k));
        Self {
            k,
            ranks,
            bar: f32::NAN,
        }
    }

    /// Candidates kept before they are cut.
    const fn room(k: usize) -> usize {
        2 * k + 2 * BLOCK
    }

    /// Offers the elements of the columns from `first` on, which lie behind all those offered before.
    #[inline(always)]
    pub(super) fn offer(&mut self, elements: &[f32], first: usize) {
        let (blocks, rest) = elements.as_chunks::<BLOCK>();
        for (block, elements) in blocks.iter().enumerate() {
            if !none_above(elements, self.bar) {
                self.collect(elements, first + block * BLOCK);
            }
        }
        self.collect(rest, first + elements.len() - rest.len());
    }

    fn collect(&mut self, elements: &[f32], first: usize) {
        if self.ranks.len() + BLOCK > Self::room(self.k) {
            self.cut();
        }
        for (i, &v) in elements.iter().enumerate() {
            let too_low = v <= self.bar; // false for NaN, which is above all
            if !too_low {
                self.ranks.push(rank(v, first + i));
            }
        }
    }

    /// Cuts the candidates to the k largest.
    fn cut(&mut self) {
        let kth = self
            .ranks
            .select_nth_unstable_by(self.k - 1, |a, b| b.cmp(a))
            .1;
        self.bar = value_of(key_in(*kth));
        self.ranks.truncate(self.k);
    }

    /// Writes the k largest, falling, and forgets all. NaN comes out as a NaN, −0 as 0.
    ///
    /// # Panics
    /// If fewer than k were offered.
    pub(super) fn write(&mut self, values: &mut [f32], columns: &mut [i32]) {
        self.cut();
        self.ranks.sort_unstable_by(|a, b| b.cmp(a));
        for ((value, column), rank) in values.iter_mut().zip(columns).zip(self.ranks.drain(..)) {
            (*value, *column) = (value_of(key_in(rank)), column_of(rank) as i32);
        }
        self.bar = f32::NAN;
    }
}

/// Written without a branch, so that it compiles to vector instructions.
#[inline(always)]
fn none_above(elements: &[f32; BLOCK], bar: f32) -> bool {
    elements.iter().fold(true, |below, &v| below & (v <= bar))
}

/// Orders as the result is ordered: value first (NaN on top, ±0 equal), then the lower column.
/// Different for every element of a row.
fn rank(v: f32, column: usize) -> u64 {
    u64::from(key_of(v)) << 32 | u64::from(!(column as u32))
}

/// The order of values as unsigned integers: NaN on top, ±0 equal.
pub(super) fn key_of(v: f32) -> u32 {
    let bits = (v + 0.0).to_bits(); // −0 + 0 = +0
    match bits >> 31 {
        _ if v.is_nan() => u32::MAX,
        0 => bits ^ 0x8000_0000,
        _ => !bits,
    }
}

/// A value that has this key: of the equal ones +0 and the plain NaN.
pub(super) fn value_of(key: u32) -> f32 {
    f32::from_bits(match key >> 31 {
        _ if key == u32::MAX => return f32::NAN,
        0 => !key,
        _ => key ^ 0x8000_0000,
    })
}

/// The upper half of a rank.
fn key_in(rank: u64) -> u32 {
    (rank >> 32) as u32
}

fn column_of(rank: u64) -> usize {
    !(rank as u32) as usize
}

impl TopkOps for CubeBackend {
    fn topk(x: FloatTensor<Self>, k: usize) -> Pair<Self> {
        match cube::takes_wgsl(&[&x]) {
            true => topk_wgsl(into_contiguous(x), k),
            false => reference::<Self>(x, k),
        }
    }
}

fn topk_wgsl(x: CubeTensor, k: usize) -> (CubeTensor, CubeTensor) {
    let [rows, n] = cube::dims(&x);
    cube::assert_addressable("topk", &[&x]);
    let values = cube::output(&x, [rows, k], DType::F32);
    let columns = cube::output(&x, [rows, k], DType::I32);
    let padded = [16, 64, 256]
        .into_iter()
        .find(|&p| k <= p as usize)
        .unwrap_or(1024);
    let kernel = wgsl::TOPK.kernel(&[("K_PAD", padded)]);
    let buffers = vec![
        x.handle.clone(),
        cube::sizes(&x, &[rows, n, k]),
        values.handle.clone(),
        columns.handle.clone(),
    ];
    wgsl::launch(&x.client, kernel, rows as u64, buffers);
    (values, columns)
}

/// Values are gathered at the chosen columns, and gathering has its gradient.
impl<B: Backend + TopkOps, C: CheckpointStrategy> TopkOps for Autodiff<B, C> {
    fn topk(x: FloatTensor<Self>, k: usize) -> Pair<Self> {
        let (_, columns) = B::topk(x.primitive().clone(), k);
        (Self::float_gather(1, x, columns.clone()), columns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_fall_as_the_order_says() {
        let falling = [
            f32::NAN,
            f32::INFINITY,
            1.0,
            f32::MIN_POSITIVE,
            0.0,
            -0.0,
            -1.0,
        ];
        let ranks: Vec<u64> = falling
            .iter()
            .enumerate()
            .map(|(i, &v)| rank(v, i))
            .collect();
        assert!(ranks.is_sorted_by(|a, b| a > b));
        assert!(rank(-f32::NAN, 0) > rank(f32::NAN, 1) && rank(0.0, 1) < rank(-0.0, 0));
        assert!((0..5).all(|c| column_of(rank(-3.5, c)) == c));
        assert!(
            falling[1..].iter().all(|&v| value_of(key_of(v)) == v)
                && value_of(key_in(ranks[0])).is_nan()
        );
    }
}
