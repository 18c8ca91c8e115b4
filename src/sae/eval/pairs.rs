use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{LabelledConcept, RemovalOptions};

/// Two concepts of which some combination is too rare.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// The two.
    pub concepts: [String; 2],
    /// Rows of the rarest combination, among the training or the test rows.
    pub rows: usize,
}

/// Two concepts on rows that hold their four combinations equally often.
pub(super) struct Pair {
    /// Rows of a combination, among the training and the test rows.
    pub(super) each: [usize; 2],
    /// Labelled on those rows alone.
    pub(super) even: [LabelledConcept; 2],
}

/// All pairs of concepts, and those left out.
pub(super) fn pairs(
    concepts: &[LabelledConcept],
    options: &RemovalOptions,
) -> (Vec<Pair>, Vec<LeftOut>) {
    let (mut pairs, mut left_out) = (Vec::new(), Vec::new());
    for (i, a) in concepts.iter().enumerate() {
        for b in &concepts[i + 1..] {
            match Pair::new([a, b], options) {
                Ok(pair) => pairs.push(pair),
                Err(without) => left_out.push(without),
            }
        }
    }
    (pairs, left_out)
}

impl Pair {
    fn new(both: [&LabelledConcept; 2], options: &RemovalOptions) -> Result<Self, LeftOut> {
        let sides = [&options.train, &options.test];
        let chosen = sides.map(|side| even_rows(both, side, options.per_cell));
        let each = chosen.each_ref().map(|rows| rows.len() / 4);
        let rows = each[0].min(each[1]);
        if rows < options.least.max(1) {
            let concepts = both.map(|c| c.name.clone());
            return Err(LeftOut { concepts, rows });
        }
        let even = both.map(|concept| {
            let mut labels = vec![None; concept.labels.len()];
            for &row in chosen.iter().flatten() {
                labels[row] = concept.labels[row];
            }
            LabelledConcept {
                name: concept.name.clone(),
                labels,
            }
        });
        Ok(Self { each, even })
    }
}

/// As many rows of each combination of two concepts, at most `most`, spread evenly over `side`.
fn even_rows(both: [&LabelledConcept; 2], side: &Range<usize>, most: usize) -> Vec<usize> {
    let mut cells: [Vec<usize>; 4] = Default::default();
    for row in side.clone() {
        if let [Some(a), Some(b)] = both.map(|c| c.labels[row]) {
            cells[2 * usize::from(a) + usize::from(b)].push(row);
        }
    }
    let rarest = cells.iter().map(Vec::len).min().unwrap_or(0);
    let n = rarest.min(most);
    let spread =
        |cell: &Vec<usize>| -> Vec<usize> { (0..n).map(|i| cell[i * cell.len() / n]).collect() };
    cells.iter().flat_map(spread).collect()
}

/// The first of a pair where both agree.
pub(super) fn agreeing([a, b]: [&LabelledConcept; 2]) -> LabelledConcept {
    let labels = a.labels.iter().zip(&b.labels);
    LabelledConcept {
        name: format!("{} with {}", a.name, b.name),
        labels: labels.map(|(a, b)| a.filter(|_| a == b)).collect(),
    }
}
