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

/// The two sides of a matrix.
pub(super) fn dims(x: &FlexTensor) -> [usize; 2] {
    let shape = x.shape();
    [shape[0], shape[1]]
}
