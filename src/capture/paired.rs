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
    let rows = sources.first().map_or(0, Source::rows);
    check_rows(sources)?;
    check_tokens(sources, rows)?;
    let runs = runs(&chosen(rows, max_rows, seed));
    sources.iter().map(|s| read_runs(s, &runs)).collect()
}

/// A source whose rows are those of `sources` side by side: the layers of a model, or of several models on
/// one text, for a crosscoder or a cross-layer transcoder.
///
/// They must pair up as in [`paired_rows`]; token ids are read once to see that.
///
/// ```
/// use inscape::capture::{beside, store::Source};
/// let a = Source::memory("a", vec![1.0, 2.0], 1);
/// let b = Source::memory("b", vec![3.0, 4.0, 5.0, 6.0], 2);
/// let mut rows = Vec::new();
/// beside(&[a, b])?.read_rows(0..2, &mut rows)?;
/// assert_eq!(rows, [1.0, 3.0, 4.0, 2.0, 5.0, 6.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::Unpaired`] names the first two sources that do not pair up and the first row.
///
/// # Panics
/// If there is no source.
pub fn beside(sources: &[Source]) -> Result<Source, Error> {
    assert!(!sources.is_empty(), "beside: no source");
    check_rows(sources)?;
    check_tokens(sources, sources[0].rows())?;
    Ok(match sources {
        [only] => only.clone(),
        _ => Source::joined(sources),
    })
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

fn unpaired(a: &Source, b: &Source, reason: String) -> Error {
    Error::Unpaired {
        a: a.name().into(),
        b: b.name().into(),
        reason,
    }
}

fn check_rows(sources: &[Source]) -> Result<(), Error> {
    let Some(other) = sources.iter().find(|s| s.rows() != sources[0].rows()) else {
        return Ok(());
    };
    let reason = format!("{} rows against {}", sources[0].rows(), other.rows());
    Err(unpaired(&sources[0], other, reason))
}

/// Every source that knows its token ids against the first that does.
fn check_tokens(sources: &[Source], rows: usize) -> Result<(), Error> {
    for start in (0..rows).step_by(1 << 16) {
        let range = start..(start + (1 << 16)).min(rows);
        let mut first: Option<(&Source, Vec<u32>)> = None;
        for source in sources {
            let Some(ids) = source.token_ids(range.clone())? else {
                continue;
            };
            let Some((other, expected)) = &first else {
                first = Some((source, ids));
                continue;
            };
            if let Some(i) = (0..ids.len()).find(|&i| ids[i] != expected[i]) {
                let (row, x, y) = (start + i, expected[i], ids[i]);
                let reason = format!("row {row} is token {x} there and token {y} here");
                return Err(unpaired(other, source, reason));
            }
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
