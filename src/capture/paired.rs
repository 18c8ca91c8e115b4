use std::ops::Range;

use rand::{SeedableRng, seq::index};
use rand_chacha::ChaCha8Rng;

use super::Error;
use super::store::Source;

/// The same rows of several sources, each `[rows, width]` in row-major order: all of them, or
/// `max_rows` drawn by `seed` without replacement, in their order.
///
/// Sources pair up when they have as many rows and, where both know them, the same token ids.
/// Memory: the rows returned.
///
/// # Errors
/// [`Error::Unpaired`] names the first two sources that do not pair up and the first row.
pub fn paired_rows(sources: &[Source], max_rows: usize, seed: u64) -> Result<Vec<Vec<f32>>, Error> {
    for other in sources.iter().skip(1) {
        check_pair(&sources[0], other)?;
    }
    let rows = sources.first().map_or(0, Source::rows);
    let runs = runs(&chosen(rows, max_rows, seed));
    sources.iter().map(|s| read_runs(s, &runs)).collect()
}

fn chosen(rows: usize, max_rows: usize, seed: u64) -> Vec<usize> {
    if rows <= max_rows {
        return (0..rows).collect();
    }
    let mut picked = index::sample(&mut ChaCha8Rng::seed_from_u64(seed), rows, max_rows).into_vec();
    picked.sort_unstable();
    picked
}

/// Consecutive rows as ranges.
fn runs(rows: &[usize]) -> Vec<Range<usize>> {
    rows.chunk_by(|a, b| a + 1 == *b)
        .map(|run| run[0]..run[run.len() - 1] + 1)
        .collect()
}

fn read_runs(source: &Source, runs: &[Range<usize>]) -> Result<Vec<f32>, Error> {
    let mut all = Vec::new();
    for run in runs {
        source.read_rows(run.clone(), &mut all)?; // appends
    }
    Ok(all)
}

fn check_pair(a: &Source, b: &Source) -> Result<(), Error> {
    let unpaired = |reason| Error::Unpaired {
        a: a.name().into(),
        b: b.name().into(),
        reason,
    };
    if a.rows() != b.rows() {
        return Err(unpaired(format!("{} rows against {}", a.rows(), b.rows())));
    }
    for start in (0..a.rows()).step_by(1 << 16) {
        let range = start..(start + (1 << 16)).min(a.rows());
        let (Some(x), Some(y)) = (a.token_ids(range.clone())?, b.token_ids(range)?) else {
            return Ok(());
        };
        if let Some(i) = x.iter().zip(&y).position(|(x, y)| x != y) {
            let reason = format!(
                "row {} is token {} there and token {} here",
                start + i,
                x[i],
                y[i]
            );
            return Err(unpaired(reason));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_rows_of_both() {
        let source = |f: fn(usize) -> f32| Source::memory("m", (0..20).map(f).collect(), 2);
        let (a, b) = (source(|i| i as f32), source(|i| -(i as f32)));
        let rows = paired_rows(&[a, b], 4, 7).unwrap();
        assert_eq!(rows[0].len(), 8);
        let whole = paired_rows(&[source(|i| i as f32)], 100, 0).unwrap();
        assert_eq!(whole[0], (0..20).map(|i| i as f32).collect::<Vec<_>>());
        assert!(rows[0].iter().zip(&rows[1]).all(|(x, y)| *x == -*y));
        assert!(rows[0].is_sorted());
    }

    #[test]
    fn different_lengths_are_refused() {
        let source = |n| Source::memory(format!("{n}"), vec![0.0; n], 1);
        let error = paired_rows(&[source(3), source(4)], 10, 0)
            .unwrap_err()
            .to_string();
        assert!(error.contains("3 rows against 4"), "{error}");
    }

    #[test]
    fn runs_are_maximal() {
        assert_eq!(runs(&[0, 1, 2, 5, 7, 8]), [0..3, 5..6, 7..9]);
    }
}
