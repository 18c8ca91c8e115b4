//! What the CPU side of every op needs: tensors as slices and slices as tensors.

use burn::backend::{DType, TensorMetadata};
use burn::tensor::TensorData;
use burn_flex::FlexTensor;

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
        DType::I32 => {
            let x = x.as_slice::<i32>().into_iter().flatten();
            x.map(|&i| fits(i.into())).collect()
        }
        _ => {
            let x = x.as_slice::<i64>().into_iter().flatten();
            x.map(|&i| fits(i)).collect()
        }
    }
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

pub(super) fn floats_1d(values: Vec<f32>) -> FlexTensor {
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
