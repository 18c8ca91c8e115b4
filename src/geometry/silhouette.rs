use super::matrix::squared_distance;
use super::{Error, Matrix, at_least};

/// Mean silhouette of labelled points `[n, d]` (Rousseeuw 1987): `(b − a) / max(a, b)` with `a` the
/// mean Euclidean distance of a point to the others of its cluster and `b` that to the nearest other
/// cluster; 0 for a point alone in its cluster. 1 for far and tight clusters.
///
/// # Errors
/// [`Error::TooFew`] for fewer than two clusters, or no cluster of two points.
///
/// # Panics
/// If there is not one label a point.
///
/// # Cost
/// `O(n² d)`; holds a sum a cluster.
///
/// ```
/// use inscape::geometry::{Matrix, silhouette};
///
/// let points = Matrix::new(vec![0.0, 1.0, 10.0, 11.0], 1)?;
/// let want = ((1.0 - 1.0 / 10.5) + (1.0 - 1.0 / 9.5)) / 2.0;
/// assert!((silhouette(&points, &[0, 0, 1, 1])? - want).abs() < 1e-12);
/// # Ok::<(), inscape::geometry::Error>(())
/// ```
pub fn silhouette(points: &Matrix, labels: &[usize]) -> Result<f64, Error> {
    let n = points.rows();
    assert_eq!(n, labels.len(), "silhouette: a label a point");
    let mut names = labels.to_vec();
    names.sort_unstable();
    names.dedup();
    at_least("the silhouette", "clusters", 2, names.len())?;
    at_least("the silhouette", "points", names.len() + 1, n)?;
    let place = |label: &usize| names.partition_point(|name| name < label);
    let labels: Vec<usize> = labels.iter().map(place).collect();
    let mut counts = vec![0.0; names.len()];
    labels.iter().for_each(|&l| counts[l] += 1.0);
    let of_point = |i: usize| {
        let own = labels[i];
        if counts[own] == 1.0 {
            return 0.0;
        }
        let mut sums = vec![0.0; counts.len()];
        for (row, &label) in points.each_row().zip(&labels) {
            sums[label] += squared_distance(row, points.row(i)).sqrt();
        }
        let a = sums[own] / (counts[own] - 1.0);
        let others = (0..counts.len()).filter(|&l| l != own);
        let b = others
            .map(|l| sums[l] / counts[l])
            .fold(f64::INFINITY, f64::min);
        // Points that all lie in one place are 0 / 0, which is 0 by convention.
        (b - a) / a.max(b).max(f64::MIN_POSITIVE)
    };
    Ok((0..n).map(of_point).sum::<f64>() / n as f64)
}
