//! The heat trace of a graph of nearest neighbours: how much heat is left where it was put, on
//! average, after each time.

use std::array;
use std::f64::consts::PI;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::host::map_chunks;
use super::graph::KnnGraph;

/// Most rows whose trace is exact.
const EXACT: usize = 8192;

/// Random vectors by which the trace of a larger graph is estimated.
const PROBES: usize = 256;

/// Chebyshev polynomials used: what is left out of `exp(-10 L)` is less than rounding.
const TERMS: usize = 32;

/// Vectors that go through the graph side by side: as many as a byte has random bits.
const ABREAST: usize = 8;

/// For each row its value in the vectors that go side by side.
type Block = Vec<[f64; ABREAST]>;

/// Times at which the trace is taken: from 0.1 to 10, evenly in the logarithm.
fn times() -> impl Iterator<Item = f64> {
    (0..256).map(|i| 10f64.powf(f64::from(i) / 127.5 - 1.0))
}

/// `10⁶ max_t exp(-2 (t + 1 / t)) |a_t - b_t|`.
pub(super) fn distance(a: &[f64], b: &[f64]) -> f64 {
    let at = |(t, (a, b)): (f64, (&f64, &f64))| (-2.0 * (t + 1.0 / t)).exp() * (a - b).abs();
    1e6 * times().zip(a.iter().zip(b)).map(at).fold(0.0, f64::max)
}

/// Mean over the rows of the diagonal of `exp(-t L)` at each time, `L` the normalised Laplacian: exact
/// up to [`EXACT`] rows, then estimated.
pub(super) fn trace(graph: &KnnGraph) -> Vec<f64> {
    match graph.rows() <= EXACT {
        true => exact(graph),
        false => estimated(graph),
    }
}

/// Every row is tried.
fn exact(graph: &KnnGraph) -> Vec<f64> {
    let n = graph.rows();
    through(graph, n, |first| {
        let unit = |i: usize| array::from_fn(|c| f64::from(u8::from(first + c == i)));
        (0..n).map(unit).collect()
    })
}

/// By random signs, always the same (Hutchinson 1990).
fn estimated(graph: &KnnGraph) -> Vec<f64> {
    through(graph, PROBES, |first| {
        let mut rng = ChaCha8Rng::seed_from_u64(first as u64);
        let mut signs = || {
            let bits: u8 = rng.random();
            array::from_fn(|c| f64::from(bits >> c & 1) * 2.0 - 1.0)
        };
        (0..graph.rows()).map(|_| signs()).collect()
    })
}

/// The trace as `columns` vectors see it, of which `block` makes those from the given one on.
fn through(
    graph: &KnnGraph,
    columns: usize,
    block: impl Fn(usize) -> Block + Sync + Send,
) -> Vec<f64> {
    let degree = |i: usize| graph.neighbours(i).len() as f64;
    let roots: Vec<f64> = (0..graph.rows())
        .map(|i| degree(i).sqrt().recip())
        .collect();
    let parts = map_chunks(columns, ABREAST, |r| moments(graph, &roots, block(r.start)));
    let sum: [f64; TERMS] = array::from_fn(|k| parts.iter().map(|p| p[k]).sum());
    let at = |t: f64| {
        let terms = coefficients(t).into_iter().zip(&sum);
        terms.map(|(c, moment)| c * moment / sum[0]).sum()
    };
    times().map(at).collect()
}

/// Coefficients of `exp(-t (x + 1))` in the Chebyshev polynomials of `x`, by quadrature.
fn coefficients(t: f64) -> [f64; TERMS] {
    let nodes = 2 * TERMS;
    let angle = |j: usize| PI * (j as f64 + 0.5) / nodes as f64;
    array::from_fn(|k| {
        let at = |j: usize| (-t * (angle(j).cos() + 1.0)).exp() * (k as f64 * angle(j)).cos();
        let twice = if k == 0 { 1.0 } else { 2.0 };
        twice * (0..nodes).map(at).sum::<f64>() / nodes as f64
    })
}

/// `Σ x · T_k(L - 1) x` over the vectors of a block. Each pair of polynomials gives the moments of
/// twice their order, as `2 T_a T_b = T_{a + b} + T_{a - b}`.
fn moments(graph: &KnnGraph, roots: &[f64], start: Block) -> [f64; TERMS] {
    let mut found = [0.0; TERMS];
    let next = once(graph, roots, &start);
    (found[0], found[1]) = (dot(&start, &start), dot(&start, &next));
    let (mut before, mut now) = (start, next);
    for k in 1..TERMS / 2 {
        let mut next = once(graph, roots, &now);
        for (next, before) in next.iter_mut().zip(&before) {
            *next = array::from_fn(|c| 2.0 * next[c] - before[c]);
        }
        found[2 * k] = 2.0 * dot(&now, &now) - found[0];
        found[2 * k + 1] = 2.0 * dot(&now, &next) - found[1];
        (before, now) = (now, next);
    }
    found
}

/// `(L - 1) x`: less the mean over the neighbours, weighed by one over the root of both degrees.
fn once(graph: &KnnGraph, roots: &[f64], x: &Block) -> Block {
    let row = |i: usize| {
        let mut sum = [0.0; ABREAST];
        for &j in graph.neighbours(i) {
            let (root, x) = (roots[j as usize], &x[j as usize]);
            sum.iter_mut().zip(x).for_each(|(s, x)| *s += root * x);
        }
        sum.map(|s| -roots[i] * s)
    };
    (0..x.len()).map(row).collect()
}

fn dot(a: &Block, b: &Block) -> f64 {
    let mut sum = [0.0; ABREAST];
    for (a, b) in a.iter().zip(b) {
        sum.iter_mut()
            .zip(a.iter().zip(b))
            .for_each(|(s, (a, b))| *s += a * b);
    }
    sum.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::super::graph::EdgeLength;
    use super::*;
    use burn::tensor::{Tensor, TensorData};
    use faer::{Mat, Side};

    fn graph(n: usize, d: usize, seed: u64) -> KnnGraph {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let values: Vec<f32> = (0..n * d).map(|_| rng.random_range(-1.0..1.0)).collect();
        let device = crate::Device::cpu();
        let x = Tensor::<2>::from_data(TensorData::new(values, [n, d]), device.tensor());
        KnnGraph::new(&x, 5, EdgeLength::Hop).unwrap()
    }

    #[test]
    fn polynomials_give_the_trace_of_the_eigenvalues() {
        for n in [7, 60, 203] {
            let graph = graph(n, 3, n as u64);
            let root = |i: usize| (graph.neighbours(i).len() as f64).sqrt();
            let mut laplacian = Mat::<f64>::identity(n, n);
            for (i, j) in graph.edges() {
                laplacian[(i, j)] = -1.0 / (root(i) * root(j));
                laplacian[(j, i)] = laplacian[(i, j)];
            }
            let values = laplacian.self_adjoint_eigenvalues(Side::Lower).unwrap();
            for (t, got) in times().zip(exact(&graph)) {
                let want = values.iter().map(|v| (-t * v).exp()).sum::<f64>() / n as f64;
                assert!((got - want).abs() < 1e-13, "{t}: {got} is not {want}");
            }
        }
    }

    /// In units of the distance between two unlike clouds: the same signs for both sides leave little.
    #[test]
    fn the_estimate_is_near() {
        let (x, y) = (graph(3000, 3, 1), graph(3000, 8, 2));
        let (a, b) = (estimated(&x), estimated(&y));
        let want = distance(&exact(&x), &exact(&y));
        let got = distance(&a, &b);
        println!("{want} estimated as {got}");
        assert!((got - want).abs() < 0.02 * want, "{got} is not {want}");
    }
}
