//! What the tensor-op form of a thresholding op needs: masks, and sums along either side.

use burn::backend::tensor::{BoolTensor, FloatTensor};
use burn::backend::{Backend, FloatDType, Shape, TensorMetadata};

use super::topk::bools;

/// One row `[d]` under every row of `like` `[n, d]`.
pub(super) fn under_rows<B: Backend>(row: FloatTensor<B>, like: &FloatTensor<B>) -> FloatTensor<B> {
    let d = row.shape()[0];
    B::float_expand(B::float_reshape(row, Shape::new([1, d])), like.shape())
}

/// One number a row `[n]` along every row of `like` `[n, d]`.
pub(super) fn along_rows<B: Backend>(
    column: FloatTensor<B>,
    like: &FloatTensor<B>,
) -> FloatTensor<B> {
    let n = column.shape()[0];
    B::float_expand(B::float_reshape(column, Shape::new([n, 1])), like.shape())
}

pub(super) fn greater<B: Backend>(x: &FloatTensor<B>, y: &FloatTensor<B>) -> BoolTensor<B> {
    B::float_greater(x.clone(), y.clone(), bools::<B>(x))
}

pub(super) fn positive<B: Backend>(x: &FloatTensor<B>) -> BoolTensor<B> {
    B::float_greater_elem(x.clone(), 0.0.into(), bools::<B>(x))
}

pub(super) fn below<B: Backend>(x: FloatTensor<B>, bound: f64) -> BoolTensor<B> {
    let bools = bools::<B>(&x);
    B::float_lower_elem(x, bound.into(), bools)
}

/// Where either is NaN.
pub(super) fn either_nan<B: Backend>(x: &FloatTensor<B>, y: &FloatTensor<B>) -> BoolTensor<B> {
    let nan = |x: &FloatTensor<B>| B::float_is_nan(x.clone(), bools::<B>(x));
    B::bool_or(nan(x), nan(y))
}

/// `v` where `keep` holds, NaN where `nan` holds, 0 elsewhere.
pub(super) fn masked<B: Backend>(
    v: FloatTensor<B>,
    keep: BoolTensor<B>,
    nan: BoolTensor<B>,
) -> FloatTensor<B> {
    let v = B::float_mask_fill(v, B::bool_not(keep), 0.0.into());
    B::float_mask_fill(v, nan, f64::NAN.into())
}

/// How many hold in every row: `[n]`, in the float type of `like`.
pub(super) fn row_counts<B: Backend>(mask: BoolTensor<B>, like: &FloatTensor<B>) -> FloatTensor<B> {
    let n = like.shape()[0];
    let ones = B::bool_into_float(mask, FloatDType::from(like.dtype()));
    B::float_reshape(B::float_sum_dim(ones, 1), Shape::new([n]))
}

/// The sum of every column: `[d]`.
pub(super) fn column_sums<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let d = x.shape()[1];
    B::float_reshape(B::float_sum_dim(x, 0), Shape::new([d]))
}
