use rand::SeedableRng;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{
    Agreement, Cooccurrence, Error, Matrix, Measure, agreement, angular_affinity, at_least,
    spectral_clusters,
};

/// What [`lobes`] compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LobeSettings {
    /// The most features compared; of more, so many are drawn.
    pub features: usize,
    /// Blocks in which a feature has to fire, and as many in which it must not.
    pub least: usize,
    /// Clusters made of them.
    pub clusters: usize,
    /// Permutations that the agreement is held against.
    pub shuffles: usize,
    /// Seed of all draws.
    pub seed: u64,
}

/// Whether features that fire together lie together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lobes {
    /// Stretches of rows.
    pub blocks: usize,
    /// Features compared.
    pub features: usize,
    /// Clusters made of them, by firing and by direction.
    pub clusters: usize,
    /// How far the two agree.
    #[serde(flatten)]
    pub agreement: Agreement,
}

/// Whether features that fire in the same `blocks` ([`Firing::blocks`](super::Firing::blocks)) lie
/// together: spectral clusters by co-occurrence ([`Measure::Phi`]) against those by the angles of
/// `directions` `[d_sae, d]` ([`agreement`]).
///
/// Li et al. 2024 ("The geometry of concepts"), section 4, who take all features of an autoencoder.
/// Here those that fire in fewer than `least` blocks, or stay away from fewer, are left out, since
/// their correlations are those of a block or two; and of the others so many are drawn as two
/// eigenvalue problems bear.
///
/// # Errors
/// [`Error::TooFew`] for fewer such features than clusters; else as [`spectral_clusters`] and
/// [`agreement`].
///
/// # Panics
/// If a block names a feature without a direction.
///
/// # Cost
/// `O(features³)`; holds five `[features, features]`.
pub fn lobes(
    blocks: &[Vec<usize>],
    directions: &Matrix,
    settings: &LobeSettings,
) -> Result<Lobes, Error> {
    let LobeSettings {
        clusters,
        shuffles,
        seed,
        ..
    } = *settings;
    let chosen = varied(blocks, directions.rows(), settings);
    let needed = clusters.max(2);
    at_least(
        "co-occurrence",
        "features that come and go",
        needed,
        chosen.len(),
    )?;
    let together = Cooccurrence::of(blocks, &chosen).affinity(Measure::Phi);
    let functional = spectral_clusters(&together, clusters, seed)?;
    let near = angular_affinity(&directions.select(&chosen))?;
    let geometric = spectral_clusters(&near, clusters, seed)?;
    Ok(Lobes {
        blocks: blocks.len(),
        features: chosen.len(),
        clusters,
        agreement: agreement(&functional, &geometric, shuffles, seed)?,
    })
}

/// Features that fire in some blocks and not in others, in rising order.
fn varied(blocks: &[Vec<usize>], features: usize, settings: &LobeSettings) -> Vec<usize> {
    let mut fired = vec![0; features];
    blocks.iter().flatten().for_each(|&j| fired[j] += 1);
    let least = settings.least;
    let fits = |j: &usize| fired[*j] >= least && fired[*j] + least <= blocks.len();
    let fit: Vec<usize> = (0..features).filter(fits).collect();
    if fit.len() <= settings.features {
        return fit;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
    let drawn = index::sample(&mut rng, fit.len(), settings.features);
    let mut drawn: Vec<usize> = drawn.iter().map(|at| fit[at]).collect();
    drawn.sort_unstable();
    drawn
}
