use super::{Error, Matrix, at_least, kmeans};

/// Rows whose products are held at once.
const TILE: usize = 256;

/// Clusters of directions `[n, d]` by cosine: each is joined to those of its `neighbours` nearest
/// that have a cosine above `cutoff`, and the connected parts are the clusters, those of one
/// direction left out. Largest first, each in rising order.
///
/// What Engels et al. 2024 ("Not all language model features are linear", appendix on clustering)
/// do for their largest autoencoders, with one neighbour and a cutoff of 0.5; a ring of seven needs
/// two neighbours to close.
///
/// # Errors
/// [`Error::TooFew`] for no neighbour; [`Error::Undefined`] for a row of length 0.
///
/// # Cost
/// `O(n² d)`; holds 256 rows of products.
///
/// ```
/// use inscape::geometry::{Matrix, graph_clusters};
///
/// let directions = Matrix::new(vec![1.0, 0.0, 0.0, 3.0, 0.9, 0.1], 2)?;
/// assert_eq!(graph_clusters(&directions, 1, 0.5)?, [[0, 2]]);
/// # Ok::<(), inscape::geometry::Error>(())
/// ```
pub fn graph_clusters(
    directions: &Matrix,
    neighbours: usize,
    cutoff: f64,
) -> Result<Vec<Vec<usize>>, Error> {
    at_least("clustering", "neighbours", 1, neighbours)?;
    let unit = unit(directions)?;
    let n = unit.rows();
    let mut parent: Vec<usize> = (0..n).collect();
    for start in (0..n).step_by(TILE) {
        let tile: Vec<usize> = (start..n.min(start + TILE)).collect();
        let cosines = unit.select(&tile).times_transposed(&unit);
        for (&i, row) in tile.iter().zip(cosines.each_row()) {
            for j in nearest(row, i, neighbours, cutoff) {
                let (a, b) = (root(&mut parent, i), root(&mut parent, j));
                parent[a.max(b)] = a.min(b);
            }
        }
    }
    let mut parts = vec![Vec::new(); n];
    for i in 0..n {
        parts[root(&mut parent, i)].push(i);
    }
    parts.retain(|part| part.len() > 1);
    parts.sort_by_key(|part| std::cmp::Reverse(part.len()));
    Ok(parts)
}

fn unit(directions: &Matrix) -> Result<Matrix, Error> {
    match directions
        .each_row()
        .any(|row| row.iter().all(|v| *v == 0.0))
    {
        false => Ok(directions.unit_rows()),
        true => Err(Error::Undefined {
            measure: "cosine",
            why: "a row has length 0",
        }),
    }
}

fn nearest(cosines: &[f64], own: usize, count: usize, cutoff: f64) -> Vec<usize> {
    let others = (0..cosines.len()).filter(|&j| j != own && cosines[j] > cutoff);
    let mut others: Vec<usize> = others.collect();
    others.sort_by(|&a, &b| cosines[b].total_cmp(&cosines[a]).then(a.cmp(&b)));
    others.truncate(count);
    others
}

fn root(parent: &mut [usize], mut i: usize) -> usize {
    while parent[i] != i {
        parent[i] = parent[parent[i]];
        i = parent[i];
    }
    i
}

/// `1 − arccos(cos) / π` between all directions `[n, d]`: `[n, n]`, 1 for equals, ½ for right
/// angles. The affinity that Engels et al. 2024 and Li et al. 2024 cluster decoder rows by.
///
/// # Errors
/// [`Error::Undefined`] for a row of length 0.
///
/// # Cost
/// `O(n² d)`; holds `[n, n]`.
pub fn angular_affinity(directions: &Matrix) -> Result<Matrix, Error> {
    let unit = unit(directions)?;
    let cosines = unit.times_transposed(&unit);
    let angle = |i: usize, j: usize| match i == j {
        true => 0.0,
        false => cosines.row(i)[j].clamp(-1.0, 1.0).acos(),
    };
    Ok(Matrix::from_fn(unit.rows(), unit.rows(), |i, j| {
        1.0 - angle(i, j) / std::f64::consts::PI
    }))
}

/// Spectral clustering (Ng, Jordan & Weiss 2002): k-means on the rows, made unit length, of the
/// first `clusters` eigenvectors of `D^-½ A D^-½`. A label a row.
///
/// # Errors
/// [`Error::TooFew`] for no cluster or fewer rows than clusters; [`Error::Setting`] for a negative
/// affinity; [`Error::Undefined`] where a row has no affinity to any.
///
/// # Panics
/// If the affinity is not square.
///
/// # Cost
/// `O(n³)`; holds three `[n, n]`. For some thousand rows.
///
/// ```
/// use inscape::geometry::{Matrix, angular_affinity, spectral_clusters};
///
/// let x = Matrix::new(vec![1.0, 0.1, 0.1, 1.0, 1.0, 0.0, 0.0, 1.0], 2)?;
/// let labels = spectral_clusters(&angular_affinity(&x)?, 2, 0)?;
/// assert!(labels[0] == labels[2] && labels[1] == labels[3] && labels[0] != labels[1]);
/// # Ok::<(), inscape::geometry::Error>(())
/// ```
pub fn spectral_clusters(
    affinity: &Matrix,
    clusters: usize,
    seed: u64,
) -> Result<Vec<usize>, Error> {
    let n = affinity.rows();
    assert_eq!(n, affinity.columns(), "spectral_clusters: not square");
    at_least("spectral clustering", "clusters", 1, clusters)?;
    at_least("spectral clustering", "rows", clusters, n)?;
    if let Some(&value) = affinity.each_row().flatten().find(|v| **v < 0.0) {
        return Err(Error::Setting {
            name: "affinity",
            value,
            reason: "spectral clustering needs affinities of at least 0",
        });
    }
    let degree: Vec<f64> = affinity.each_row().map(|row| row.iter().sum()).collect();
    if degree.contains(&0.0) {
        return Err(Error::Undefined {
            measure: "spectral clustering",
            why: "a row has no affinity to any",
        });
    }
    let scaled = Matrix::from_fn(n, n, |i, j| {
        affinity.row(i)[j] / (degree[i] * degree[j]).sqrt()
    });
    let (_, vectors) = scaled.eigen("spectral clustering")?;
    let embedded = Matrix::from_fn(n, clusters, |i, j| vectors.row(j)[i]);
    Ok(kmeans(&embedded.unit_rows(), clusters, seed)?.labels)
}
