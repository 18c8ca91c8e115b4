//! Units that several models have in common.

use burn::tensor::Tensor;

use super::Error;
use super::correlations::{Standard, UnitCorrelations, UnitPair, same_rows};
use crate::device::block_on;

/// One unit of each model that correlate mutually best.
#[derive(Clone, Debug, PartialEq)]
pub struct Rosetta {
    /// The unit of each model, in the order of models.
    pub units: Vec<usize>,
    /// The smallest correlation of two of them.
    pub r: f64,
}

/// Rosetta units: one unit of every model, each two of which are among each other's `k` most
/// correlated.
///
/// Each model is `[n, d]` on the same rows; widths may differ. With two models these are pairs (best
/// buddies); with more, cliques of such pairs. In the order of the units of the first model.
///
/// # Errors
/// Different row counts; a NaN or infinity; a model whose columns are all constant, fewer than two
/// models ([`Error::Undefined`]); the device failing.
///
/// # Cost
/// `n d²` multiply-adds for each pair of models; memory a standardised copy of each model and `8 d²`
/// bytes a pair. The cliques are cheap for a small `k`; their number grows as `k` to the number of
/// models.
///
/// # Source
/// Dravid, Gandelsman, Efros & Shocher 2023, "Rosetta neurons: mining the common units in a model
/// zoo", section 3. The paper scales activation maps to one size first: that is for the caller, a row
/// being one position of one input.
///
/// # Example
/// ```
/// use inscape::{Device, similarity::rosetta};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::from_data([[0., 1.], [1., 0.], [2., 3.], [4., 1.]], cpu.tensor());
/// let found = rosetta(&[x.clone(), x.clone().flip([1]), x * 3.0], 1)?;
/// assert_eq!(found[0].units, [0, 1, 0]);
/// assert_eq!(found[1].units, [1, 0, 1]);
/// # Ok(())
/// # }
/// ```
pub fn rosetta(models: &[Tensor<2>], k: usize) -> Result<Vec<Rosetta>, Error> {
    block_on(rosetta_async(models, k))
}

/// [`rosetta`] without blocking.
///
/// # Errors
/// As [`rosetta`].
pub async fn rosetta_async(models: &[Tensor<2>], k: usize) -> Result<Vec<Rosetta>, Error> {
    if models.len() < 2 {
        let why = "there is one model, and nothing to have units in common with";
        return Err(Error::Undefined { why });
    }
    let mut ready = Vec::with_capacity(models.len());
    for (m, x) in models.iter().enumerate() {
        same_rows(&models[0], x)?;
        let x = Standard::prepare(x).await;
        ready.push(x.map_err(|e| e.at(&format!("model {m}")))?);
    }
    let mut pairs = Vec::with_capacity(models.len() * (models.len() - 1) / 2);
    for (a, x) in ready.iter().enumerate() {
        for y in &ready[a + 1..] {
            pairs.push(x.correlations(y).await?);
        }
    }
    Ok(rosetta_of(models.len(), &pairs, k))
}

/// [`rosetta`] from correlations that are there, such as streamed ones: of models (0, 1), (0, 2), …,
/// (1, 2), …, in this order.
///
/// # Panics
/// If there are not `models (models - 1) / 2` of them, or their widths do not fit.
pub fn rosetta_of(models: usize, pairs: &[UnitCorrelations], k: usize) -> Vec<Rosetta> {
    assert!(
        pairs.len() == models * models.saturating_sub(1) / 2 && models > 1,
        "rosetta_of: {models} models have no {} pairs",
        pairs.len()
    );
    let graph = Graph::new(models, pairs, k);
    let mut found = Vec::new();
    for unit in 0..pairs[0].rows {
        graph.extend(&mut vec![unit], 1.0, &mut found);
    }
    found
}

/// Best buddies of every two models.
struct Graph {
    models: usize,
    /// Of models `a < b`, at the place of the pair: the buddies of each unit of `a`.
    buddies: Vec<Vec<Vec<UnitPair>>>,
}

impl Graph {
    fn new(models: usize, pairs: &[UnitCorrelations], k: usize) -> Self {
        let lists = |of: &UnitCorrelations| {
            let mut lists = vec![Vec::new(); of.rows];
            of.best_buddies(k)
                .into_iter()
                .for_each(|p| lists[p.left].push(p));
            lists
        };
        let buddies = pairs.iter().map(lists).collect();
        Self { models, buddies }
    }

    fn buddies(&self, a: usize, b: usize, unit: usize) -> &[UnitPair] {
        let before = a * (2 * self.models - a - 1) / 2;
        &self.buddies[before + b - a - 1][unit]
    }

    /// All cliques that start with `units`, of the first models, whose smallest correlation is `r`.
    fn extend(&self, units: &mut Vec<usize>, r: f64, found: &mut Vec<Rosetta>) {
        let b = units.len();
        if b == self.models {
            let units = units.clone();
            found.push(Rosetta { units, r });
            return;
        }
        for next in self.buddies(0, b, units[0]) {
            let with = |a: usize| {
                let all = self.buddies(a, b, units[a]).iter();
                all.filter(|p| p.right == next.right).map(|p| p.r).next()
            };
            let smallest = (0..b).try_fold(r, |least, a| with(a).map(|r| least.min(r)));
            if let Some(r) = smallest {
                units.push(next.right);
                self.extend(units, r, found);
                units.pop();
            }
        }
    }
}
