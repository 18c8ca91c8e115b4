use std::collections::BTreeMap;

use super::Error;

/// How often each label of one list meets each of another.
pub(super) struct Contingency {
    cells: BTreeMap<(usize, usize), u64>,
    of_a: Vec<u64>,
    of_b: Vec<u64>,
    n: u64,
}

impl Contingency {
    pub(super) fn new(a: &[usize], b: &[usize]) -> Self {
        assert_eq!(a.len(), b.len(), "labels must pair up");
        let mut cells = BTreeMap::new();
        let (mut of_a, mut of_b) = (BTreeMap::new(), BTreeMap::new());
        for (&a, &b) in a.iter().zip(b) {
            *cells.entry((a, b)).or_insert(0) += 1;
            *of_a.entry(a).or_insert(0) += 1;
            *of_b.entry(b).or_insert(0) += 1;
        }
        // Labels become 0, 1, … in rising order.
        let place = |of: &BTreeMap<usize, u64>, label| of.range(..label).count();
        let cells = cells
            .into_iter()
            .map(|((a, b), n)| ((place(&of_a, a), place(&of_b, b)), n))
            .collect();
        Self {
            cells,
            of_a: of_a.into_values().collect(),
            of_b: of_b.into_values().collect(),
            n: a.len() as u64,
        }
    }

    /// In nats.
    pub(super) fn information(&self) -> f64 {
        let n = self.n as f64;
        let part = |(&(a, b), &count): (&(usize, usize), &u64)| {
            let (p, apart) = (count as f64 / n, self.of_a[a] as f64 * self.of_b[b] as f64);
            p * (n * count as f64 / apart).ln()
        };
        self.cells.iter().map(part).sum()
    }

    /// The mean of the two entropies, in nats.
    pub(super) fn mean_entropy(&self) -> f64 {
        (entropy(&self.of_a, self.n) + entropy(&self.of_b, self.n)) / 2.0
    }

    /// The mutual information expected of labels drawn with the same counts (Vinh, Epps & Bailey
    /// 2010, equation 24), in nats.
    pub(super) fn expected_information(&self) -> f64 {
        let log_factorial: Vec<f64> = std::iter::once(0.0)
            .chain((1..=self.n).scan(0.0, |sum, i| {
                *sum += (i as f64).ln();
                Some(*sum)
            }))
            .collect();
        let log = |i: u64| log_factorial[i as usize];
        let n = self.n;
        let of_pair = |a: u64, b: u64| -> f64 {
            let chance = |both: u64| {
                let ways = log(a) + log(b) + log(n - a) + log(n - b) - log(n);
                let fixed = log(both) + log(a - both) + log(b - both) + log(n + both - a - b);
                (ways - fixed).exp()
            };
            let part = |both: u64| {
                let together = both as f64 / n as f64;
                let apart = a as f64 * b as f64;
                together * (n as f64 * both as f64 / apart).ln() * chance(both)
            };
            ((a + b).saturating_sub(n).max(1)..=a.min(b))
                .map(part)
                .sum()
        };
        let pairs = self
            .of_a
            .iter()
            .flat_map(|a| self.of_b.iter().map(|b| (*a, *b)));
        pairs.map(|(a, b)| of_pair(a, b)).sum()
    }
}

fn entropy(counts: &[u64], n: u64) -> f64 {
    let share = counts.iter().map(|c| *c as f64 / n as f64);
    share.filter(|p| *p > 0.0).map(|p| -p * p.ln()).sum()
}

/// Entropy of labels, in nats.
pub fn label_entropy(labels: &[usize]) -> f64 {
    let table = Contingency::new(labels, labels);
    entropy(&table.of_a, table.n)
}

/// Mutual information of two labellings of the same things, in nats.
///
/// # Panics
/// If they differ in length.
pub fn mutual_information(a: &[usize], b: &[usize]) -> f64 {
    Contingency::new(a, b).information()
}

/// Mutual information beyond chance: `(I − E[I]) / (mean(H(a), H(b)) − E[I])`, with `E[I]` that of
/// labels drawn with the same counts (Vinh, Epps & Bailey 2010). 1 for equal clusters, about 0 for
/// independent ones. scikit-learn's default, the arithmetic mean.
///
/// # Errors
/// [`Error::Undefined`] where both have one cluster only, or one thing a cluster.
///
/// # Panics
/// If they differ in length.
///
/// # Cost
/// `O(n (clusters of a + clusters of b))`.
///
/// ```
/// use inscape::geometry::adjusted_mutual_information;
///
/// let a = [0, 0, 0, 1, 1, 1];
/// assert!((adjusted_mutual_information(&a, &[7, 7, 7, 3, 3, 3])? - 1.0).abs() < 1e-12);
/// # Ok::<(), inscape::geometry::Error>(())
/// ```
pub fn adjusted_mutual_information(a: &[usize], b: &[usize]) -> Result<f64, Error> {
    let table = Contingency::new(a, b);
    adjusted(
        table.information(),
        table.expected_information(),
        table.mean_entropy(),
    )
}

pub(super) fn adjusted(information: f64, expected: f64, entropy: f64) -> Result<f64, Error> {
    let room = entropy - expected;
    if room.abs() > 1e-12 {
        return Ok((information - expected) / room);
    }
    Err(Error::Undefined {
        measure: "adjusted mutual information",
        why: "the clusters could not be other than they are: all in one, or each alone",
    })
}
