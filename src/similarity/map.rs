//! A map of many networks from their distances.

use faer::{Mat, Side};

use super::Error;
use super::axes::no_convergence;

/// Points on a map whose distances are near those of a table; see [`mds`].
#[derive(Clone, Debug, PartialEq)]
pub struct Map {
    /// `[K, dims]`, centred; axes in falling order of spread, each with its largest coordinate positive.
    pub coordinates: Vec<Vec<f64>>,
    /// Share of the table's squared distances that the map shows, 0 to 1: the spread along its axes over
    /// that along all, those of negative spread counted as positive.
    pub shown: f64,
    /// Share of the spread that is negative: how far the table is from distances that any flat space can
    /// hold. 0 for Euclidean distances.
    pub negative: f64,
}

/// Classical multidimensional scaling: places on a map of `dims` axes for `K` things of which the
/// distances are known.
///
/// `distances` is `[K, K]`, symmetric, 0 on the diagonal: for example a table of
/// [`Procrustes::Angular`](super::Procrustes::Angular) from [`matrix`](super::matrix). A similarity has
/// to be turned into a distance first. An axis of no spread left has all coordinates 0.
///
/// # Errors
/// [`Error::NotFinite`]; [`Error::Undefined`] if an entry is below 0, the table is not symmetric to 1e-6
/// of its largest entry, or all distances are 0.
///
/// # Panics
/// If the table is not square.
///
/// # Cost
/// An eigendecomposition, `O(K³)`; `24 K²` bytes.
///
/// # Source
/// Torgerson 1952; Gower 1966, who calls it principal coordinates: of Euclidean distances it is the
/// PCA of the points. `shown` is the first criterion of Mardia 1978.
///
/// ```
/// use inscape::similarity::mds;
///
/// let line = [0.0f64, 1.0, 4.0];
/// let table: Vec<Vec<f64>> = line.iter().map(|a| line.iter().map(|b| (a - b).abs()).collect()).collect();
/// let map = mds(&table, 2)?;
/// assert!(map.shown > 1.0 - 1e-12 && map.negative < 1e-12);
/// assert!((map.coordinates[2][0] - map.coordinates[0][0] - 4.0).abs() < 1e-12);
/// # Ok::<(), inscape::similarity::Error>(())
/// ```
pub fn mds(distances: &[Vec<f64>], dims: usize) -> Result<Map, Error> {
    let k = distances.len();
    check(distances)?;
    let squared = |i: usize, j: usize| ((distances[i][j] + distances[j][i]) / 2.0).powi(2);
    let mean: Vec<f64> = (0..k)
        .map(|i| (0..k).map(|j| squared(i, j)).sum::<f64>() / k as f64)
        .collect();
    let total = mean.iter().sum::<f64>() / k as f64;
    let inner = Mat::from_fn(k, k, |i, j| {
        (mean[i] + mean[j] - total - squared(i, j)) / 2.0
    });
    let eigen = inner
        .self_adjoint_eigen(Side::Lower)
        .map_err(|_| no_convergence())?;
    let spread: Vec<f64> = eigen.S().column_vector().iter().rev().copied().collect();
    let all: f64 = spread.iter().map(|l| l.abs()).sum();
    let axis = |at: usize| axis(&spread, eigen.U(), at, all);
    let axes: Vec<Vec<f64>> = (0..dims).map(axis).collect();
    let shown: f64 = axes.iter().flatten().map(|c| c * c).sum();
    let below: f64 = spread.iter().filter(|l| **l < 0.0).map(|l| -l).sum();
    Ok(Map {
        coordinates: (0..k)
            .map(|i| axes.iter().map(|a| a[i]).collect())
            .collect(),
        shown: shown / all,
        negative: below / all,
    })
}

/// Coordinates along the axis that comes `at`-th in falling order of spread; 0 where no spread is left.
fn axis(spread: &[f64], vectors: faer::MatRef<'_, f64>, at: usize, all: f64) -> Vec<f64> {
    let k = spread.len();
    let length = match spread.get(at) {
        Some(&l) if l > 1e-14 * all => l.sqrt(),
        _ => return vec![0.0; k],
    };
    let vector = vectors.col(k - 1 - at);
    let larger = |best: usize, i: usize| match vector[i].abs() > vector[best].abs() + 1e-12 {
        true => i,
        false => best,
    };
    let sign = vector[(0..k).fold(0, larger)].signum();
    vector.iter().map(|v| v * sign * length).collect()
}

fn check(distances: &[Vec<f64>]) -> Result<(), Error> {
    let k = distances.len();
    assert!(
        distances.iter().all(|row| row.len() == k),
        "mds: a table of {k} rows is not square"
    );
    let undefined = |why| Err(Error::Undefined { why });
    for (row, values) in distances.iter().enumerate() {
        if let Some(column) = values.iter().position(|v| !v.is_finite()) {
            return Err(Error::NotFinite {
                row,
                column,
                value: values[column],
            });
        }
    }
    let largest = distances
        .iter()
        .flatten()
        .fold(0.0, |m: f64, v| m.max(v.abs()));
    let entry = |i: usize, j: usize| distances[i][j];
    let pairs = || (0..k).flat_map(|i| (0..=i).map(move |j| (i, j)));
    if largest == 0.0 {
        return undefined("all distances are 0");
    }
    if distances.iter().flatten().any(|v| *v < 0.0) {
        return undefined("a distance is below 0");
    }
    if pairs().any(|(i, j)| (entry(i, j) - entry(j, i)).abs() > 1e-6 * largest) {
        return undefined("the table of distances is not symmetric");
    }
    match (0..k).any(|i| entry(i, i) > 1e-6 * largest) {
        true => undefined("the distance of a thing from itself is not 0"),
        false => Ok(()),
    }
}
