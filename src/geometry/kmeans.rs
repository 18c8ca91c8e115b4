use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::matrix::squared_distance;
use super::{Error, Matrix, at_least};

/// Points in groups about their means.
#[derive(Clone, Debug, PartialEq)]
pub struct KMeans {
    /// The group of each point, from 0.
    pub labels: Vec<usize>,
    /// Sum of the squared distances of points from their group's mean.
    pub inertia: f64,
}

const RESTARTS: usize = 10;
const STEPS: usize = 300;

/// Lloyd's k-means from k-means++ seeds (Arthur & Vassilvitskii 2007): the best of ten.
///
/// # Errors
/// [`Error::TooFew`] for `k` of 0 or fewer points than groups.
///
/// # Cost
/// `O(n k d)` a step.
///
/// ```
/// use inscape::geometry::{Matrix, kmeans};
///
/// let points = Matrix::new(vec![0.0, 0.1, 5.0, 5.2, 9.0], 1)?;
/// let labels = kmeans(&points, 3, 0)?.labels;
/// assert!(labels[0] == labels[1] && labels[2] == labels[3]);
/// assert!(labels[0] != labels[2] && labels[2] != labels[4]);
/// # Ok::<(), inscape::geometry::Error>(())
/// ```
pub fn kmeans(points: &Matrix, k: usize, seed: u64) -> Result<KMeans, Error> {
    at_least("k-means", "groups", 1, k)?;
    at_least("k-means", "points", k, points.rows())?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut best = descend(points, seeds(points, k, &mut rng));
    for _ in 1..RESTARTS {
        let found = descend(points, seeds(points, k, &mut rng));
        if found.inertia < best.inertia {
            best = found;
        }
    }
    Ok(best)
}

/// Each next seed is drawn in proportion to its squared distance from those there are.
fn seeds(points: &Matrix, k: usize, rng: &mut ChaCha8Rng) -> Vec<Vec<f64>> {
    let n = points.rows();
    let mut means = vec![points.row(rng.random_range(0..n)).to_vec()];
    let mut nearest = vec![f64::INFINITY; n];
    while means.len() < k {
        let last = &means[means.len() - 1];
        for (near, row) in nearest.iter_mut().zip(points.each_row()) {
            *near = near.min(squared_distance(row, last));
        }
        let mut left = rng.random::<f64>() * nearest.iter().sum::<f64>();
        let drawn = nearest.iter().position(|near| {
            left -= near;
            left < 0.0
        });
        means.push(points.row(drawn.unwrap_or(n - 1)).to_vec());
    }
    means
}

fn descend(points: &Matrix, mut means: Vec<Vec<f64>>) -> KMeans {
    let mut found = assign(points, &means);
    for _ in 0..STEPS {
        recentre(points, &found.labels, &mut means);
        let next = assign(points, &means);
        if next.labels == found.labels {
            return next;
        }
        found = next;
    }
    found
}

fn assign(points: &Matrix, means: &[Vec<f64>]) -> KMeans {
    let mut inertia = 0.0;
    let nearest = |row: &[f64]| {
        let distances = means.iter().map(|m| squared_distance(row, m));
        let (label, distance) = distances
            .enumerate()
            .min_by(|a, b| a.1.total_cmp(&b.1))
            .expect("there is a mean");
        inertia += distance;
        label
    };
    KMeans {
        labels: points.each_row().map(nearest).collect(),
        inertia,
    }
}

/// Moves the means; one without points goes to the point farthest from its own.
fn recentre(points: &Matrix, labels: &[usize], means: &mut [Vec<f64>]) {
    let mut counts = vec![0usize; means.len()];
    let mut sums = vec![vec![0.0; points.columns()]; means.len()];
    for (row, &label) in points.each_row().zip(labels) {
        counts[label] += 1;
        sums[label].iter_mut().zip(row).for_each(|(s, v)| *s += v);
    }
    for ((mean, sum), &count) in means.iter_mut().zip(sums).zip(&counts) {
        if count > 0 {
            *mean = sum.iter().map(|s| s / count as f64).collect();
        }
    }
    for empty in (0..counts.len()).filter(|&c| counts[c] == 0) {
        let off = |i: &usize| squared_distance(points.row(*i), &means[labels[*i]]);
        let far = (0..labels.len()).max_by(|a, b| off(a).total_cmp(&off(b)));
        means[empty] = points.row(far.unwrap_or(0)).to_vec();
    }
}
