use std::collections::HashMap;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::information::{Contingency, adjusted};
use super::{Error, Matrix, at_least};

/// How alike two features' firing is, from the blocks in which both (`n11`), one or neither fire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Correlation of the two, those below 0 made 0: `(n11 n00 − n10 n01) / √(n1· n0· n·1 n·0)`.
    /// The one that Li et al. find to match geometry best.
    Phi,
    /// `n11 / (n11 + n10 + n01)`.
    Jaccard,
    /// `2 n11 / (2 n11 + n10 + n01)`.
    Dice,
    /// `n11 / min(n1·, n·1)`.
    Overlap,
    /// `(n11 + n00) / n`.
    SimpleMatching,
}

/// Which features fire in the same stretches of text.
///
/// # Cost
/// Holds a count a pair of features; time the square of the features that fire in a block.
///
/// ```
/// use inscape::geometry::{Cooccurrence, Measure};
///
/// let mut seen = Cooccurrence::new(3);
/// for block in [&[0, 1][..], &[0, 1], &[2], &[]] {
///     seen.add(block);
/// }
/// let phi = seen.affinity(Measure::Phi);
/// assert_eq!((phi.row(0)[1], phi.row(0)[2]), (1.0, 0.0));
/// ```
#[derive(Clone, Debug)]
pub struct Cooccurrence {
    features: usize,
    blocks: u64,
    /// `[features, features]`, the blocks of each feature on the diagonal.
    both: Vec<u32>,
}

impl Cooccurrence {
    /// Of a number of features.
    pub fn new(features: usize) -> Self {
        Self {
            features,
            blocks: 0,
            both: vec![0; features * features],
        }
    }

    /// Of the features `chosen`, which become 0, 1, … in that order, in blocks that name them among
    /// others.
    pub fn of(blocks: &[Vec<usize>], chosen: &[usize]) -> Self {
        let place: HashMap<usize, usize> =
            chosen.iter().enumerate().map(|(i, &j)| (j, i)).collect();
        let mut seen = Self::new(chosen.len());
        for block in blocks {
            let fired = block.iter().filter_map(|j| place.get(j).copied());
            seen.add(&fired.collect::<Vec<_>>());
        }
        seen
    }

    /// Adds a block: the features that fire in it, each once. Li et al. take 256 tokens.
    ///
    /// # Panics
    /// If there is no such feature.
    pub fn add(&mut self, fired: &[usize]) {
        self.blocks += 1;
        for &a in fired {
            for &b in fired {
                assert!(a < self.features, "Cooccurrence::add: feature {a}");
                self.both[a * self.features + b] += 1;
            }
        }
    }

    /// How alike features fire, `[features, features]`, 1 on the diagonal. Those that never fire are
    /// like none, by all but simple matching; so is by [`Measure::Phi`] one that always does.
    ///
    /// # Panics
    /// If there is no feature.
    pub fn affinity(&self, by: Measure) -> Matrix {
        let n = self.blocks as f64;
        let count = |i: usize, j: usize| f64::from(self.both[i * self.features + j]);
        Matrix::from_fn(self.features, self.features, |i, j| {
            if i == j {
                return 1.0;
            }
            let (both, a, b) = (count(i, j), count(i, i), count(j, j));
            let ratio = |above: f64, below: f64| if below > 0.0 { above / below } else { 0.0 };
            match by {
                Measure::Phi => {
                    let spread = (a * (n - a) * b * (n - b)).sqrt();
                    ratio(n * both - a * b, spread).max(0.0)
                }
                Measure::Jaccard => ratio(both, a + b - both),
                Measure::Dice => ratio(2.0 * both, a + b),
                Measure::Overlap => ratio(both, a.min(b)),
                Measure::SimpleMatching => ratio(n + 2.0 * both - a - b, n),
            }
        })
    }
}

/// How far two clusterings of the same features agree.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// Adjusted mutual information.
    pub ami: f64,
    /// Its mean when the labels of one are shuffled.
    pub shuffled: f64,
    /// Its standard deviation then.
    pub deviation: f64,
    /// `(ami − shuffled) / deviation`.
    pub sigmas: f64,
}

/// Whether features that fire together lie together: the adjusted mutual information of clusters by
/// co-occurrence ([`Cooccurrence::affinity`]) and by geometry
/// ([`angular_affinity`](super::angular_affinity)), against `shuffles` permutations.
///
/// Li et al. 2024 ("The geometry of concepts"), section 4.
///
/// # Errors
/// [`Error::TooFew`] for fewer than two shuffles; [`Error::Undefined`] as for
/// [`adjusted_mutual_information`](super::adjusted_mutual_information), and where every shuffle
/// gives the same.
///
/// # Panics
/// If the labels differ in length.
pub fn agreement(
    functional: &[usize],
    geometric: &[usize],
    shuffles: usize,
    seed: u64,
) -> Result<Agreement, Error> {
    at_least("agreement", "shuffles", 2, shuffles)?;
    let table = Contingency::new(functional, geometric);
    // A permutation changes neither the entropies nor what is expected.
    let (expected, entropy) = (table.expected_information(), table.mean_entropy());
    let ami = adjusted(table.information(), expected, entropy)?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut shuffled = geometric.to_vec();
    let mut null = Vec::new();
    for _ in 0..shuffles {
        shuffled.shuffle(&mut rng);
        let table = Contingency::new(functional, &shuffled);
        null.push(adjusted(table.information(), expected, entropy)?);
    }
    let n = shuffles as f64;
    let mean = null.iter().sum::<f64>() / n;
    let deviation = (null.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
    if deviation == 0.0 {
        let (measure, why) = ("agreement", "every shuffle gives the same");
        return Err(Error::Undefined { measure, why });
    }
    Ok(Agreement {
        ami,
        shuffled: mean,
        deviation,
        sigmas: (ami - mean) / deviation,
    })
}
