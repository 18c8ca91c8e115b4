//! Optimal transport with entropy: plans that spread out, by scaling.

use super::Error;
use super::assignment::transposed;
use super::host::{map_chunks, sum};

/// Most rounds of scaling.
const ROUNDS: usize = 20_000;

/// How far the weights of the rows may be off, in all.
const OFF: f64 = 1e-7;

/// Sum of `scores` under the plan with the least `cost - epsilon · entropy`, both `[rows, columns]`.
///
/// Sinkhorn's scaling in the log domain (Cuturi 2013; Peyré & Cuturi 2019, §4.4), with an epsilon
/// that halves from the largest cost down. Until the weights of the rows are off by 1e-7 in all.
pub(super) fn entropic(
    costs: &[f64],
    scores: impl Fn(usize) -> f64 + Sync + Send,
    [rows, columns]: [usize; 2],
    epsilon: f64,
) -> Result<f64, Error> {
    let turned = transposed(costs, rows, columns);
    let mut scale = costs.iter().fold(epsilon, |m, c| m.max(c.abs()));
    let (mut of_row, mut of_column) = (vec![0.0; rows], vec![0.0; columns]);
    let mut rounds = 0;
    loop {
        let wanted = if scale <= epsilon { OFF } else { 1e-2 };
        let mut off = f64::INFINITY;
        while off > wanted {
            if rounds == ROUNDS {
                let why = "Sinkhorn's scaling did not converge: take a larger epsilon";
                return Err(Error::Undefined { why });
            }
            rounds += 1;
            let new = potentials(costs, &of_column, scale);
            let off_by = |i: usize| ((of_row[i] - new[i]) / scale).exp_m1().abs();
            off = sum(rows, off_by) / rows as f64;
            of_row = new;
            of_column = potentials(&turned, &of_row, scale);
        }
        if scale <= epsilon {
            break;
        }
        scale = (scale / 2.0).max(epsilon);
    }
    let mass = 1.0 / (rows * columns) as f64;
    let share = |at: usize| {
        let (i, j) = (at / columns, at % columns);
        mass * ((of_row[i] + of_column[j] - costs[at]) / epsilon).exp()
    };
    Ok(sum(costs.len(), |at| share(at) * scores(at)))
}

/// The potentials of one side that give each of its units its weight: `-epsilon` times the log of the
/// mean of `exp((other - cost) / epsilon)` over a row of `costs`.
fn potentials(costs: &[f64], others: &[f64], epsilon: f64) -> Vec<f64> {
    let m = others.len();
    let one = |i: usize| {
        let exponent = |j: usize| (others[j] - costs[i * m + j]) / epsilon;
        let most = (0..m).map(exponent).fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = (0..m).map(|j| (exponent(j) - most).exp()).sum();
        -epsilon * (most + (total / m as f64).ln())
    };
    let rows = map_chunks(costs.len() / m, 16, |r| r.map(one).collect::<Vec<_>>());
    rows.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::similarity::transport::plan;

    /// The entropic plan costs more than the exact one, and less and less so.
    #[test]
    fn sinkhorn_comes_down_to_the_exact_cost() {
        let (rows, columns) = (20, 30);
        let costs: Vec<f64> = (0..600).map(|at| 1.0 + ((at * 37) as f64).sin()).collect();
        let exact = plan(&costs, rows, columns)
            .iter()
            .map(|p| p.share * costs[p.row * columns + p.column])
            .sum::<f64>();
        let with = |e| entropic(&costs, |at| costs[at], [rows, columns], e).unwrap();
        let above: Vec<f64> = [1.0, 0.1, 0.01].map(|e| with(e) - exact).into();
        assert!(
            above[0] > above[1] && above[1] > above[2] && above[2] > -1e-6,
            "{above:?}"
        );
        assert!(above[2] < 0.01, "{above:?}");
        // Without end of entropy every pair has the same share.
        let mean = costs.iter().sum::<f64>() / 600.0;
        assert!((with(1e6) - mean).abs() < 1e-5);
    }
}
