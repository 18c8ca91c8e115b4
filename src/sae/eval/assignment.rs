use crate::sae::Error;

/// The one-to-one assignment of the `rows` of `scores` `[rows, columns]` (row-major) to its columns
/// with the largest sum: as many pairs (row, column) as the smaller side has, in the order of rows.
///
/// Shortest augmenting paths with dual potentials (Jonker & Volgenant 1987; rectangular as in Crouse
/// 2016, "On implementing 2D rectangular assignment algorithms"): those of [`crate::similarity`], where
/// units are matched too. Of several best assignments it gives one, always the same.
///
/// Cost: `O(m² M)` in time for m ≤ M, and a copy of the scores where there are more rows than
/// columns.
///
/// # Errors
/// A score that is NaN or infinite.
///
/// # Panics
/// If `scores` does not have `rows · columns` values.
///
/// ```
/// use inscape::sae::eval::matching::assignment;
/// // Taking the largest first would give 9 + 1.
/// let scores = [9.0, 8.0, 7.0, 1.0];
/// assert_eq!(assignment(&scores, 2, 2)?, [(0, 1), (1, 0)]);
/// # Ok::<(), inscape::sae::Error>(())
/// ```
pub fn assignment(
    scores: &[f64],
    rows: usize,
    columns: usize,
) -> Result<Vec<(usize, usize)>, Error> {
    assert!(
        scores.len() == rows * columns,
        "assignment: {} scores are no [{rows}, {columns}]",
        scores.len()
    );
    if let Some(at) = scores.iter().position(|s| !s.is_finite()) {
        let (row, column) = (at / columns, at % columns);
        let text = format!("the score of {row} with {column} is {}", scores[at]);
        return Err(Error::Config(text));
    }
    Ok(crate::similarity::assignment(scores, rows, columns))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The largest sum over all ways to give each row a column of its own.
    fn exhaustive(scores: &[f64], rows: usize, columns: usize) -> f64 {
        fn best(scores: &[f64], columns: usize, row: usize, rows: usize, used: u32) -> f64 {
            if row == rows {
                return 0.0;
            }
            let free = (0..columns).filter(|c| used & (1 << c) == 0);
            free.map(|c| {
                scores[row * columns + c] + best(scores, columns, row + 1, rows, used | 1 << c)
            })
            .fold(f64::NEG_INFINITY, f64::max)
        }
        if rows <= columns {
            return best(scores, columns, 0, rows, 0);
        }
        let turned: Vec<f64> = (0..columns)
            .flat_map(|c| (0..rows).map(move |r| scores[r * columns + c]))
            .collect();
        best(&turned, rows, 0, columns, 0)
    }

    fn check(scores: &[f64], rows: usize, columns: usize) {
        let pairs = assignment(scores, rows, columns).unwrap();
        assert_eq!(pairs.len(), rows.min(columns));
        let distinct = |side: Vec<usize>| {
            let set: std::collections::BTreeSet<_> = side.iter().collect();
            set.len() == side.len()
        };
        assert!(distinct(pairs.iter().map(|p| p.0).collect()));
        assert!(distinct(pairs.iter().map(|p| p.1).collect()));
        let sum: f64 = pairs.iter().map(|(r, c)| scores[r * columns + c]).sum();
        let want = exhaustive(scores, rows, columns);
        assert!((sum - want).abs() < 1e-9, "{sum}, not {want}: {pairs:?}");
    }

    proptest! {
        #[test]
        fn the_sum_is_the_largest_there_is(
            (rows, columns) in (1usize..7, 1usize..7),
            values in prop::collection::vec(-10.0f64..10.0, 36),
            whole in any::<bool>(),
        ) {
            // Rounded values tie.
            let value = |v: &f64| if whole { (v / 4.0).round() } else { *v };
            let scores: Vec<f64> = values[..rows * columns].iter().map(value).collect();
            check(&scores, rows, columns);
        }
    }

    #[test]
    fn nothing_is_assigned_to_nothing_and_nan_is_named() {
        assert_eq!(assignment(&[], 0, 3).unwrap(), []);
        assert_eq!(assignment(&[], 0, 0).unwrap(), []);
        assert_eq!(assignment(&[], 2, 0).unwrap(), []);
        let error = assignment(&[1.0, 2.0, f64::NAN, 4.0], 2, 2).unwrap_err();
        assert_eq!(error.to_string(), "the score of 1 with 0 is NaN");
    }

    /// A planted permutation among 300, far above the rest.
    #[test]
    fn a_planted_permutation_comes_back() {
        let n = 300;
        let planted = |r: usize| (r * 77 + 5) % n;
        let score = |r: usize, c: usize| {
            let noise = ((r * 31 + c * 17) as f64).sin();
            if planted(r) == c { 2.5 + noise } else { noise }
        };
        let scores: Vec<f64> = (0..n)
            .flat_map(|r| (0..n).map(move |c| score(r, c)))
            .collect();
        let pairs = assignment(&scores, n, n).unwrap();
        let want: Vec<_> = (0..n).map(|r| (r, planted(r))).collect();
        let total =
            |pairs: &[(usize, usize)]| pairs.iter().map(|(r, c)| scores[r * n + c]).sum::<f64>();
        assert!(total(&pairs) >= total(&want) - 1e-9);
        let kept = pairs.iter().filter(|p| want.contains(p)).count();
        assert!(kept > 150, "{kept}");
    }
}
