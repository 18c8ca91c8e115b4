//! What a metric keeps of one representation, and tables of many against many.

use burn::tensor::Tensor;

use super::metric::{Grid, Kept};
use super::{Error, Metric};
use crate::device::block_on;

/// One representation made ready for one metric, so that comparing it with many others pays for its
/// centring, self-similarity, ranks or neighbour lists once.
///
/// Holds, for `[n, d]`: linear CKA a centred copy (and half an `n × n` matrix if `n < d`, or in a [`matrix`]
/// of many layers on the CPU, where up to 16,384 and `8 d` rows that is less work); other kernels
/// and RSA by values 4 bytes (f64: 8) for each of the `n (n - 1) / 2` pairs up to 16,384 rows, a copy of
/// the rows beyond; RSA by ranks 4 bytes a pair; canonical correlations, Procrustes and shapes at most
/// `16 (n + d)` bytes a direction; neighbours `4 n k` bytes; units a centred copy; the rest, what their
/// own documentation says.
///
/// ```
/// use inscape::{Device, similarity::{Metric, Prepared}};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::from_data([[0., 1.], [1., 0.], [2., 3.], [4., 1.], [0., 5.]], cpu.tensor());
/// let metric: Metric = "linear_cka[biased]".parse()?;
/// let (a, b) = (Prepared::new(&x, metric)?, Prepared::new(&(x * 2.0), metric)?);
/// assert!((a.compare(&b)? - 1.0).abs() < 1e-6);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Prepared {
    metric: Metric,
    shape: [usize; 2],
    kept: Kept,
}

impl Prepared {
    /// Prepares `x`, `[n, d]`, for `metric`.
    ///
    /// # Errors
    /// Too few or too many rows for the metric; a NaN or infinity; [`Error::Undefined`] where the
    /// metric has no value for this representation; the device failing.
    pub fn new(x: &Tensor<2>, metric: impl Into<Metric>) -> Result<Self, Error> {
        block_on(Self::new_async(x, metric))
    }

    /// [`Prepared::new`] without blocking.
    ///
    /// # Errors
    /// As [`Prepared::new`].
    pub async fn new_async(x: &Tensor<2>, metric: impl Into<Metric>) -> Result<Self, Error> {
        Self::prepare(x, metric.into(), None).await
    }

    async fn prepare(x: &Tensor<2>, metric: Metric, grid: Option<Grid>) -> Result<Self, Error> {
        let shape = x.dims();
        check_shape(shape, metric)?;
        let kept = metric.prepare(x, grid).await?;
        Ok(Self {
            metric,
            shape,
            kept,
        })
    }

    /// The metric of two prepared representations.
    ///
    /// # Errors
    /// Different row counts; the device failing.
    ///
    /// # Panics
    /// If the two were prepared for different metrics.
    pub fn compare(&self, other: &Self) -> Result<f64, Error> {
        block_on(self.compare_async(other))
    }

    /// [`Prepared::compare`] without blocking.
    ///
    /// # Errors
    /// As [`Prepared::compare`].
    ///
    /// # Panics
    /// As [`Prepared::compare`].
    pub async fn compare_async(&self, other: &Self) -> Result<f64, Error> {
        check_pair(self.shape, other.shape, self.metric)?;
        assert!(
            self.metric == other.metric,
            "Prepared::compare: prepared for {} and {}",
            self.metric,
            other.metric
        );
        self.metric.value(&self.kept, &other.kept).await
    }

    /// The metric it was prepared for.
    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// The same rows in another order, if that costs less than to prepare them again.
    pub(super) fn reordered(&self, order: &[usize]) -> Option<Self> {
        Some(Self {
            kept: self.kept.reordered(order)?,
            ..*self
        })
    }

    /// Both sides prepared and compared once.
    pub(super) async fn pair(
        x: &Tensor<2>,
        y: &Tensor<2>,
        metric: impl Into<Metric>,
    ) -> Result<f64, Error> {
        let [x, y] = Self::sides(x, y, metric).await?;
        x.compare_async(&y).await
    }

    /// Both sides prepared, for what is more than one value.
    pub(super) async fn sides(
        x: &Tensor<2>,
        y: &Tensor<2>,
        metric: impl Into<Metric>,
    ) -> Result<[Self; 2], Error> {
        let metric = metric.into();
        check_pair(x.dims(), y.dims(), metric)?;
        let x = Self::new_async(x, metric).await.map_err(|e| e.at("left"))?;
        let y = Self::new_async(y, metric)
            .await
            .map_err(|e| e.at("right"))?;
        Ok([x, y])
    }

    pub(super) fn kept(&self) -> &Kept {
        &self.kept
    }
}

pub(super) fn check_pair(left: [usize; 2], right: [usize; 2], metric: Metric) -> Result<(), Error> {
    if left[0] != right[0] {
        return Err(Error::RowsDiffer { left, right });
    }
    match metric.facts().equal_widths && left[1] != right[1] {
        true => Err(Error::ColumnsDiffer { left, right }),
        false => Ok(()),
    }
}

pub(super) fn check_shape([rows, columns]: [usize; 2], metric: Metric) -> Result<(), Error> {
    if !metric.is_valid() {
        return Err(Error::UnknownMetric {
            given: metric.to_string(),
        });
    }
    let facts = metric.facts();
    let needed = facts.fewest_rows;
    if rows < needed {
        return Err(Error::TooFewRows {
            metric,
            rows,
            needed,
        });
    }
    if let Some(most) = facts.most_rows.filter(|&most| rows > most) {
        return Err(Error::TooManyRows { metric, rows, most });
    }
    if columns == 0 {
        return Err(Error::Undefined {
            why: "it has no columns",
        });
    }
    Ok(())
}

/// Every representation of `left` against every one of `right`: `table[i][j]` compares `left[i]`
/// with `right[j]`.
///
/// All are `[n, d]` with the same `n`; widths may differ. `progress(done, total)` is called after
/// each preparation and each comparison.
///
/// If `left` and `right` are the same slice, each representation is prepared once and each pair
/// compared once.
///
/// # Errors
/// As the metric's own function; a failure of one representation says which ("left 3"), before the
/// table is done. Row counts are checked before any work.
///
/// # Cost
/// `K + L` preparations and `K L` comparisons (`K` and `K (K + 1) / 2` for the same slice). Memory:
/// what [`Prepared`] holds, for all of `left` and one of `right` at a time.
///
/// ```
/// use inscape::{Device, similarity::{Metric, matrix}};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::from_data([[0., 1.], [1., 0.], [2., 3.], [4., 1.], [0., 5.]], cpu.tensor());
/// let layers = [x.clone(), x.powf_scalar(2.0)];
/// let table = matrix(&layers, &layers, "linear_cka".parse()?, |_done, _total| ())?;
/// assert_eq!(table[0][1], table[1][0]);
/// # Ok(())
/// # }
/// ```
pub fn matrix(
    left: &[Tensor<2>],
    right: &[Tensor<2>],
    metric: Metric,
    progress: impl FnMut(usize, usize),
) -> Result<Vec<Vec<f64>>, Error> {
    block_on(matrix_async(left, right, metric, progress))
}

/// Which of `count` representations of a side.
pub(super) fn place(side: &str, i: usize, count: usize) -> String {
    match count {
        1 => side.to_owned(),
        _ => format!("{side} {i}"),
    }
}

/// [`matrix`] without blocking.
///
/// # Errors
/// As [`matrix`].
pub async fn matrix_async(
    left: &[Tensor<2>],
    right: &[Tensor<2>],
    metric: Metric,
    mut progress: impl FnMut(usize, usize),
) -> Result<Vec<Vec<f64>>, Error> {
    let same = std::ptr::eq(left, right);
    let symmetric = metric.facts().symmetric;
    let first = left.iter().chain(right).next().map_or([0, 0], Tensor::dims);
    left.iter()
        .chain(right)
        .try_for_each(|x| check_pair(first, x.dims(), metric))?;
    let (k, l) = (left.len(), right.len());
    let total = if same {
        k + k * (k + 1) / 2
    } else {
        k + l + k * l
    };
    let preparations = if same { k } else { k + l };
    let plan = Grid {
        comparisons: (total - preparations) as f64 / preparations.max(1) as f64,
        narrowest: left
            .iter()
            .chain(right)
            .map(|x| x.dims()[1])
            .min()
            .unwrap_or(0),
    };
    let mut done = 0;
    let mut step = || {
        done += 1;
        progress(done, total);
    };

    let mut rows = Vec::with_capacity(k);
    for (i, x) in left.iter().enumerate() {
        let row = Prepared::prepare(x, metric, Some(plan))
            .await
            .map_err(|e| e.at(&place("left", i, k)))?;
        rows.push(row);
        step();
    }
    let mut table = vec![vec![0.0; l]; k];
    for (j, y) in right.iter().enumerate() {
        if same {
            for i in 0..=j {
                table[i][j] = rows[i].compare_async(&rows[j]).await?;
                table[j][i] = match symmetric || i == j {
                    true => table[i][j],
                    false => rows[j].compare_async(&rows[i]).await?,
                };
                step();
            }
            continue;
        }
        let column = Prepared::prepare(y, metric, Some(plan))
            .await
            .map_err(|e| e.at(&place("right", j, l)))?;
        step();
        for (i, row) in rows.iter().enumerate() {
            table[i][j] = row.compare_async(&column).await?;
            step();
        }
    }
    Ok(table)
}
