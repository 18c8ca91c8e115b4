//! What the CPU side of every op needs: tensors as slices and slices as tensors.

use std::ops::Range;

use burn::backend::{DType, Element, TensorMetadata};
use burn::tensor::TensorData;
use burn_flex::FlexTensor;
use rayon::prelude::*;

/// The CPU forms take f32 values and i32 or i64 indices.
pub(super) fn plain(floats: &[&FlexTensor], ints: &FlexTensor) -> bool {
    all_f32(floats) && matches!(ints.dtype(), DType::I32 | DType::I64)
}

pub(super) fn all_f32(floats: &[&FlexTensor]) -> bool {
    floats.iter().all(|x| x.dtype() == DType::F32)
}

/// The values of a contiguous f32 tensor.
pub(super) fn floats(x: &FlexTensor) -> &[f32] {
    x.as_slice::<f32>()
        .unwrap_or_else(|| unreachable!("contiguous f32 tensors are slices"))
}

/// The indices in row-major order, each checked against `d_sae`.
pub(super) fn indices(op: &str, x: &FlexTensor, d_sae: usize) -> Vec<u32> {
    let x = x.to_contiguous();
    let fits = |i: i64| {
        let fits = usize::try_from(i).is_ok_and(|i| i < d_sae);
        assert!(fits, "{op}: index {i} of {d_sae} latents");
        i as u32
    };
    match x.dtype() {
        DType::I32 => each(&x, |&i: &i32| fits(i.into())),
        DType::I64 => each(&x, |&i: &i64| fits(i)),
        other => panic!("{op}: indices are {other:?}; i32 or i64 are taken"),
    }
}

fn each<E: Element + bytemuck::Pod>(x: &FlexTensor, f: impl Fn(&E) -> u32) -> Vec<u32> {
    let x = x
        .as_slice::<E>()
        .unwrap_or_else(|| unreachable!("contiguous tensors are slices"));
    x.iter().map(f).collect()
}

pub(super) fn matrix(values: Vec<f32>, rows: usize, columns: usize) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, [rows, columns]))
}

pub(super) fn int_matrix(values: Vec<i32>, rows: usize, columns: usize) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, [rows, columns]))
}

/// The two sides of a matrix.
pub(super) fn dims(x: &FlexTensor) -> [usize; 2] {
    let shape = x.shape();
    [shape[0], shape[1]]
}

pub(super) fn vector(values: Vec<f32>) -> FlexTensor {
    let n = values.len();
    FlexTensor::from_data(TensorData::new(values, [n]))
}

pub(super) fn ints(values: Vec<i32>) -> FlexTensor {
    let n = values.len();
    FlexTensor::from_data(TensorData::new(values, [n]))
}

/// Row `i` of a row-major matrix of `d` columns.
#[inline(always)]
pub(super) fn row(x: &[f32], i: usize, d: usize) -> &[f32] {
    &x[i * d..][..d]
}

/// The tensor in a buffer of its own size that may be written: itself where nothing else holds it.
pub(super) fn owned(x: FlexTensor) -> FlexTensor {
    let whole = x.is_contiguous()
        && x.layout().start_offset() == 0
        && x.storage::<f32>().len() == x.layout().num_elements();
    match whole {
        true => x,
        false => x.to_contiguous(),
    }
}

/// Whether the CPU form of an op over a matrix can run: all f32, and something in the matrix.
pub(super) fn takes_rows(x: &FlexTensor, others: &[&FlexTensor]) -> bool {
    let [n, d] = dims(x);
    n * d > 0 && all_f32(&[x]) && all_f32(others)
}

/// `v` where `keep` holds, NaN where `nan` holds, 0 elsewhere. Made of bits: with branches the
/// compiler does not turn the loops around it into vector instructions.
pub(super) fn masked(v: f32, keep: bool, nan: bool) -> f32 {
    let mask = |holds: bool| u32::from(holds).wrapping_neg();
    f32::from_bits(v.to_bits() & mask(keep) | f32::NAN.to_bits() & mask(nan))
}

/// Rows of one task. Fixed, so that sums over rows are the same bits on any number of threads.
const ROWS: usize = 64;
/// Columns whose sums stay in the nearest cache while the rows of a task are added to them.
const COLUMNS: usize = 1024;

/// A piece of one row of a matrix.
pub(super) struct Tile {
    /// The row.
    pub row: usize,
    /// The columns of the piece.
    pub columns: Range<usize>,
    /// Where the piece lies in the matrix.
    pub place: Range<usize>,
    /// Where the piece lies in the rows of its task.
    pub own: Range<usize>,
}

/// Walks an `[n, d]` matrix and adds up `m` sums over its rows: `[m]`.
///
/// `walk` gets every tile with the rows of `out` `[n, d]` that its task owns (nothing if `out` is
/// empty) and with the task's sums `[m]`. A task takes a fixed number of rows in their order, and
/// the sums of the tasks are added in their order.
pub(super) fn sum_rows(
    [n, d]: [usize; 2],
    m: usize,
    out: &mut [f32],
    walk: impl Fn(Tile, &mut [f32], &mut [f32]) + Sync,
) -> Vec<f32> {
    let tasks = n.div_ceil(ROWS);
    let mut shares = vec![0f32; tasks * m];
    let mut outs: Vec<&mut [f32]> = out.chunks_mut(ROWS * d).collect();
    outs.resize_with(tasks, Default::default);
    let tasks = shares.par_chunks_mut(m).zip(outs).enumerate();
    tasks.for_each(|(task, (sums, out))| {
        let first = task * ROWS;
        tiles(first..n.min(first + ROWS), d).for_each(|tile| walk(tile, out, sums));
    });
    sum_in_order(&shares, m)
}

/// A block of columns down all `rows`, then the next block.
fn tiles(rows: Range<usize>, d: usize) -> impl Iterator<Item = Tile> {
    (0..d).step_by(COLUMNS).flat_map(move |start| {
        let (first, columns) = (rows.start, start..d.min(start + COLUMNS));
        rows.clone().map(move |row| Tile {
            row,
            place: row * d + columns.start..row * d + columns.end,
            own: (row - first) * d + columns.start..(row - first) * d + columns.end,
            columns: columns.clone(),
        })
    })
}

/// The sums of the columns of `shares` `[tasks, m]`.
fn sum_in_order(shares: &[f32], m: usize) -> Vec<f32> {
    let mut sums = vec![0f32; m];
    let blocks = sums.par_chunks_mut(COLUMNS).enumerate();
    blocks.for_each(|(block, sums)| {
        for share in shares.chunks(m) {
            let share = &share[block * COLUMNS..];
            sums.iter_mut().zip(share).for_each(|(sum, x)| *sum += x);
        }
    });
    sums
}
