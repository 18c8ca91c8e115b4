//! Linear CKA from batches of rows.

use burn::tensor::Tensor;

use super::cka::{Estimator, Features};
use super::hsic::hsic_scale;
use super::{Error, Kernel, Prepared};
use crate::device::block_on;

/// Fewest rows of a batch, for the unbiased HSIC to mean something.
const FEWEST: usize = 4;

/// Linear CKA from the unbiased HSICs of batches of `batch` rows, taken in order.
///
/// `x` is `[n, dx]`, `y` is `[n, dy]`; the HSICs of all batches are averaged, and then divided. A last
/// batch that is shorter counts too, unless it has fewer than 4 rows. Invariances are those of
/// [`linear_cka`](super::linear_cka). Rows that follow each other should have nothing to do with each
/// other: shuffle them first, both sides alike.
///
/// This estimates the same as [`linear_cka`](super::linear_cka) with less of the data: of all pairs of rows
/// only those within a batch are seen. It is here to compare with published values; the whole takes no more
/// memory and little more time.
///
/// # Errors
/// Different row counts; fewer than 4 rows; a batch below 4 rows ([`Error::UnknownMetric`]); a NaN or
/// infinity; a representation whose summed self-HSIC is not above rounding ([`Error::Undefined`]); the
/// device failing.
///
/// # Cost
/// For each batch that of [`linear_cka`](super::linear_cka). Memory: a centred copy of each side.
///
/// # Source
/// Nguyen, Raghu & Kornblith 2021, "Do Wide and Deep Networks Learn the Same Things?", equation 2. They
/// drop the shorter last batch; [`Kernel::MinibatchCka`] has the option.
///
/// # Example
/// ```
/// use inscape::{Device, similarity::minibatch_cka};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::from_data([[0., 1.], [1., 0.], [2., 3.], [4., 1.], [0., 5.]], cpu.tensor());
/// assert!((minibatch_cka(&x, &(x.clone() * 2.0), 64)? - 1.0).abs() < 1e-6);
/// # Ok(())
/// # }
/// ```
pub fn minibatch_cka(x: &Tensor<2>, y: &Tensor<2>, batch: usize) -> Result<f64, Error> {
    block_on(minibatch_cka_async(x, y, batch))
}

/// [`minibatch_cka`] without blocking.
///
/// # Errors
/// As [`minibatch_cka`].
pub async fn minibatch_cka_async(x: &Tensor<2>, y: &Tensor<2>, batch: usize) -> Result<f64, Error> {
    let metric = Kernel::MinibatchCka {
        batch,
        drop_last: false,
    };
    Prepared::pair(x, y, metric).await
}

/// The batches that count.
pub(super) async fn prepare(
    x: &Tensor<2>,
    batch: usize,
    drop_last: bool,
) -> Result<Vec<Features>, Error> {
    let mut batches = Features::batches(x, batch).await?;
    let fewest = if drop_last { batch } else { FEWEST };
    batches.retain(|batch| batch.n() >= fewest);
    let whole: f64 = batches.iter().map(|b| own(b, Estimator::Biased)).sum();
    let unbiased: f64 = batches.iter().map(|b| own(b, Estimator::Unbiased)).sum();
    match unbiased > batches[0].floor() * whole {
        true => Ok(batches),
        false => Err(Error::Undefined {
            why: "its unbiased HSIC with itself is not positive",
        }),
    }
}

/// The HSIC of a batch with itself, over what makes batches of different sizes one another's equal.
fn own(batch: &Features, estimator: Estimator) -> f64 {
    let [own, ..] = batch.own_moments().hsic(estimator);
    own / hsic_scale(batch.n(), Estimator::Unbiased)
}

pub(super) async fn compare(a: &[Features], b: &[Features]) -> Result<f64, Error> {
    let mut sums = [0.0; 3];
    for (a, b) in a.iter().zip(b) {
        let hsic = a.moments(b).await?.hsic(Estimator::Unbiased);
        let scale = hsic_scale(a.n(), Estimator::Unbiased);
        sums.iter_mut()
            .zip(hsic)
            .for_each(|(sum, h)| *sum += h / scale);
    }
    Ok(sums[0] / sums[1].sqrt() / sums[2].sqrt())
}
