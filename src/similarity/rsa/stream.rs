//! Comparisons of all pairs of two representations in bounded memory.

use burn::tensor::{DType, Tensor};

use super::super::Error;
use super::super::host::{dot, working};
use super::super::pairs::{Form, Pairs};
use super::compare::{Comparator, equal};
use super::rdm::{Rdm, scale};

/// One side, whose dissimilarities are worked out tile by tile whenever they are needed.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    pairs: Pairs,
    /// What makes the dissimilarities those of the values as given.
    unit: f64,
}

/// The form of a dissimilarity; none for rates.
pub(super) fn form(rdm: Rdm) -> Option<Form> {
    match rdm {
        Rdm::Correlation => Some(Form::Correlation),
        Rdm::Cosine => Some(Form::Cosine),
        Rdm::Euclidean => Some(Form::Euclidean),
        Rdm::SquaredEuclidean => Some(Form::SquaredEuclidean),
        Rdm::Poisson => None,
    }
}

impl Stream {
    /// With `as_given`, the dissimilarities are those of the values as they are, whatever they were scaled
    /// by when they were read.
    pub(super) async fn new(
        form: Form,
        degree: i32,
        x: &Tensor<2>,
        as_given: bool,
    ) -> Result<Self, Error> {
        let scale = match (as_given && degree > 0, x.dtype()) {
            (false, _) => 1.0,
            (true, DType::F64) => scale::<f64>(x).await?,
            (true, _) => scale::<f32>(&working(x)).await?,
        };
        Ok(Self {
            pairs: Pairs::prepare(x, form).await?,
            unit: scale.powi(-degree),
        })
    }

    /// The comparators that need sums over pairs and rows alone.
    pub(super) async fn compare(&self, other: &Self, by: Comparator) -> Result<f64, Error> {
        let (a, b) = (&self.pairs, &other.pairs);
        let product = a.product(b).await?;
        let whitens = matches!(by, Comparator::WhitenedCosine | Comparator::WhitenedPearson);
        let of = |a: &Pairs, b: &Pairs, product: f64| match whitens {
            true => centred(a, b, product, by),
            false => about(a, b, product, by),
        };
        let own = |a: &Pairs| {
            let squares = a.sums.squares;
            let own = of(a, a, squares);
            match own > 64.0 * f64::EPSILON * squares {
                true => Ok(own),
                false => Err(equal()),
            }
        };
        Ok(of(a, b, product) / own(a)?.sqrt() / own(b)?.sqrt())
    }

    /// Frobenius norm of the difference of the two matrices.
    pub(super) async fn difference(&self, other: &Self) -> Result<f64, Error> {
        let (u, v) = (self.unit, other.unit);
        let square = |a: f64, b: f64| [(u * a - v * b).powi(2)];
        let [square] = self.pairs.fold(&other.pairs, square).await?;
        Ok((2.0 * square).sqrt())
    }
}

/// Mean of the pairs if the comparator takes it off.
fn mean(a: &Pairs, by: Comparator) -> f64 {
    let n = a.n() as f64;
    if by.centres() {
        a.sums.total / (n * (n - 1.0))
    } else {
        0.0
    }
}

/// Sum of products over the pairs, of values without their mean.
fn about(a: &Pairs, b: &Pairs, product: f64, by: Comparator) -> f64 {
    product - a.sums.total / 2.0 * mean(b, by)
}

/// `⟨HAH, HBH⟩` of the whole matrices.
fn centred(a: &Pairs, b: &Pairs, product: f64, by: Comparator) -> f64 {
    let n = a.n() as f64;
    let rows = |a: &Pairs| {
        let mean = mean(a, by);
        a.sums
            .rows
            .iter()
            .map(|r| r - mean * (n - 1.0))
            .collect::<Vec<f64>>()
    };
    let (ra, rb) = (rows(a), rows(b));
    let total = ra.iter().sum::<f64>() * rb.iter().sum::<f64>();
    2.0 * about(a, b, product, by) - 2.0 / n * dot(&ra, &rb) + total / (n * n)
}
