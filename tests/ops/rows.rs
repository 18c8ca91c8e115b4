//! What the cases of the thresholding ops share: inputs in every layout, and comparisons.

use super::*;
use burn::tensor::DType;

/// Shape, layout and fill of one input; see [`Case`].
pub fn matrix(
    [rows, n]: [usize; 2],
    view: View,
    fill: fn(usize) -> f32,
    on: &Device,
    dtype: DType,
) -> Tensor<2> {
    let case = Case {
        view,
        ..case("", rows, n, 0, fill)
    };
    case.tensor(on).cast(dtype)
}

/// A vector; a column of a matrix if the view is transposed, a part of a longer one if sliced.
pub fn vector(
    length: usize,
    view: View,
    fill: fn(usize) -> f32,
    on: &Device,
    dtype: DType,
) -> Tensor<1> {
    let data = |values: Vec<f32>| {
        let length = values.len();
        Tensor::<1>::from_data(TensorData::new(values, [length]), on.tensor())
    };
    let values = (0..length).map(fill);
    let x = match view {
        View::Plain => data(values.collect()),
        View::Sliced => {
            let long = values.chain([f32::INFINITY; 5]).collect();
            data(long).narrow(0, 0, length)
        }
        View::Transposed => {
            let pairs = data(values.flat_map(|v| [v, f32::INFINITY]).collect());
            let column = pairs.reshape([length, 2]).slice([0..length, 0..1]);
            column.reshape([length])
        }
    };
    x.cast(dtype)
}

pub fn numbers<const D: usize>(x: Tensor<D>) -> Vec<f64> {
    block_on(read(x)).unwrap()
}

/// A number of the oracle and how far from it a result may be.
#[derive(Clone, Copy, Debug, Default)]
pub struct About {
    pub value: f64,
    pub tolerance: f64,
}

/// The same numbers, zeros with their sign; one NaN is as good as another.
pub fn exact(what: &str, got: &[f64], want: &[f64]) -> Result<(), String> {
    assert_eq!(got.len(), want.len(), "{what}");
    let same = |(g, w): (&f64, &f64)| g.to_bits() == w.to_bits() || g.is_nan() && w.is_nan();
    match got.iter().zip(want).position(|pair| !same(pair)) {
        Some(i) => Err(format!("{what}: {} for {} at {i}", got[i], want[i])),
        None => Ok(()),
    }
}

pub fn within(what: &str, got: &[f64], want: &[About]) -> Result<(), String> {
    assert_eq!(got.len(), want.len(), "{what}");
    let near = |(g, w): (&f64, &About)| match w.value.is_finite() {
        true => (g - w.value).abs() <= w.tolerance,
        false => g.total_cmp(&w.value).is_eq() || g.is_nan() && w.value.is_nan(),
    };
    match got.iter().zip(want).position(|pair| !near(pair)) {
        Some(i) => Err(format!("{what}: {} for {:?} at {i}", got[i], want[i])),
        None => Ok(()),
    }
}

/// The rounding of a float type.
pub fn eps(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => f64::EPSILON,
        _ => f32::EPSILON.into(),
    }
}

/// Every result must be the same bits on one thread and on several.
pub fn on_any_number_of_threads<R: PartialEq + Send>(run: impl Fn() -> R + Sync) {
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap().install(&run)
    };
    let one = on(1);
    assert!([2, 3, 7].into_iter().all(|threads| on(threads) == one));
}

/// The text of the panic of `run`.
pub fn panic_of<R>(run: impl FnOnce() -> R) -> String {
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
    let panic = caught.map(|_| ()).unwrap_err();
    panic.downcast_ref::<String>().unwrap().clone()
}
