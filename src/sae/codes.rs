//! One integer for an activation, and the attention heads that a task runs through by the integers that
//! only its examples have (O'Neill & Bui 2024, "Sparse autoencoders enable scalable and reliable circuit
//! identification in language models").
//!
//! Give a model a few examples of a task and as many in which what the task needs is missing. One
//! autoencoder is trained on what all heads write (`hook_result`), and every output becomes the index of
//! its largest latent: [`codes()`]. A head that does something on the positive examples alone has codes
//! there that it has on no negative example: [`HeadCodes`]. No ablation is run; the model is, once.
//!
//! It differs from the paper in this: an example may have a code for each position, where the paper has
//! one for the mean over positions or for the last; the autoencoder is any [`Sae`], where the paper's has
//! an L1 penalty; and [`Unique::contrast`] is ours. The paper's softmax over heads is left out: it
//! changes no order, so no AUROC ([`Scores`](super::eval::Scores) has that).

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use burn::tensor::{Int, Tensor};

use super::Sae;

/// The index of the largest latent of each row of `x` `[n, d_in]`, and `d_sae` where none is above 0:
/// `[n]`. Of equal ones the first of those that [`Sae::encode`] returns.
///
/// Cost: that of [`Sae::encode`].
///
/// # Panics
/// If `x` does not have `d_in` columns.
pub fn codes(sae: &Sae, x: Tensor<2>) -> Tensor<1, Int> {
    let n = x.dims()[0];
    let latents = sae.encode(x);
    let (largest, place) = latents.values.max_dim_with_indices(1);
    let code = latents.indices.gather(1, place);
    let silent = largest.lower_equal_elem(0.0);
    code.mask_fill(silent, sae.d_sae() as i64).reshape([n])
}

/// The index of the centroid `[k, d]` nearest to each row of `x` `[n, d]`: `[n]`. Plain vector
/// quantisation, the code that needs no autoencoder.
///
/// Holds `[n, k]`.
///
/// # Panics
/// If the widths differ.
pub fn nearest(x: Tensor<2>, centroids: &Tensor<2>) -> Tensor<1, Int> {
    let n = x.dims()[0];
    let half = centroids.clone().square().sum_dim(1).transpose() / 2.0;
    let near = x.matmul(centroids.clone().transpose()) - half;
    near.argmax(1).reshape([n])
}

/// How many different codes there are, and how many of them on examples of one label alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unique {
    /// On positive examples and on no negative one.
    pub positive: usize,
    /// On negative examples and on no positive one.
    pub negative: usize,
    /// All.
    pub all: usize,
}

impl Unique {
    /// The paper's score, which the count `positive` is too: `positive / all`. It is high for whatever
    /// has another code on every example, however the examples are labelled.
    pub fn share(self) -> f64 {
        self.positive as f64 / self.all.max(1) as f64
    }

    /// `(positive − negative) / all`. Turning every label round turns its sign, so that labels that mean
    /// nothing rank heads like chance: their AUROC is 1/2 on average, exactly over all labellings with
    /// as many of each.
    pub fn contrast(self) -> f64 {
        (self.positive as f64 - self.negative as f64) / self.all.max(1) as f64
    }

    fn count<T: Eq + Hash>(seen: impl Iterator<Item = (T, bool)>) -> Self {
        let mut labels: HashMap<T, [bool; 2]> = HashMap::new();
        for (code, positive) in seen {
            labels.entry(code).or_default()[usize::from(positive)] = true;
        }
        let of = |wanted| labels.values().filter(|l| **l == wanted).count();
        Self {
            positive: of([false, true]),
            negative: of([true, false]),
            all: labels.len(),
        }
    }
}

/// Which codes each head has on each example. Memory: the codes.
///
/// ```
/// use inscape::sae::codes::HeadCodes;
///
/// let mut seen = HeadCodes::new(2);
/// seen.add(&[5, 0, 6, 0]); // two positions, two heads
/// seen.add(&[7, 0, 8, 1]);
/// seen.add(&[7, 0, 6, 0]);
/// let heads = seen.by_head(&[true, false, false]);
/// assert_eq!((heads[0].positive, heads[0].negative, heads[0].all), (1, 2, 4)); // 5; 7 and 8
/// assert_eq!(heads[1].share(), 0.0);
/// ```
#[derive(Clone, Debug)]
pub struct HeadCodes {
    heads: usize,
    examples: Vec<Vec<BTreeSet<i64>>>,
}

impl HeadCodes {
    /// For so many heads; those of all layers, layer by layer.
    ///
    /// # Panics
    /// For no head.
    pub fn new(heads: usize) -> Self {
        assert!(heads > 0, "HeadCodes: no head");
        Self {
            heads,
            examples: Vec::new(),
        }
    }

    /// One example: `codes` `[positions, heads]`, row by row.
    ///
    /// # Panics
    /// If that is not a whole number of rows.
    pub fn add(&mut self, codes: &[i64]) {
        assert!(
            codes.len().is_multiple_of(self.heads),
            "HeadCodes: {} codes of {} heads",
            codes.len(),
            self.heads
        );
        let of = |head| codes.iter().skip(head).step_by(self.heads);
        let sets = (0..self.heads).map(|head| of(head).copied().collect());
        self.examples.push(sets.collect());
    }

    /// The heads' unique codes `[heads]`, with a label for each example in the order they were added:
    /// whether the task applies to it.
    ///
    /// # Panics
    /// If there is not one label an example.
    pub fn by_head(&self, labels: &[bool]) -> Vec<Unique> {
        let labelled = self.labelled(labels);
        let of = |head: usize| {
            let seen = labelled.iter().flat_map(|(sets, label)| {
                let codes = sets[head].iter();
                codes.map(move |code| (*code, *label))
            });
            Unique::count(seen)
        };
        (0..self.heads).map(of).collect()
    }

    /// The same for pairs of heads `[heads, heads]`: pairs of codes that they have on one example, at
    /// whatever positions. The paper's edges. A head with itself has none.
    ///
    /// Cost: the square of the different codes on an example, times that of the heads.
    ///
    /// # Panics
    /// If there is not one label an example.
    pub fn by_pair(&self, labels: &[bool]) -> Vec<Vec<Unique>> {
        let labelled = self.labelled(labels);
        let of = |a: usize, b: usize| {
            let seen = labelled.iter().flat_map(|(sets, label)| {
                let first = sets[a].iter();
                first.flat_map(move |x| sets[b].iter().map(move |y| ((*x, *y), *label)))
            });
            Unique::count(seen.filter(|_| a != b))
        };
        let row = |a| (0..self.heads).map(|b| of(a, b)).collect();
        (0..self.heads).map(row).collect()
    }

    fn labelled(&self, labels: &[bool]) -> Vec<(&[BTreeSet<i64>], bool)> {
        assert_eq!(
            self.examples.len(),
            labels.len(),
            "HeadCodes: examples and labels"
        );
        let sets = self.examples.iter().map(Vec::as_slice);
        sets.zip(labels.iter().copied()).collect()
    }
}
