//! Human judgements of similarity: how well a representation foretells them, and a linear map that
//! makes it do so better.

use burn::tensor::activation::log_softmax;
use burn::tensor::{FloatDType, Int, Tensor, TensorData};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::host::{Rows, sum_range, working};
use super::{Error, Nearness};
use crate::device::{self, block_on};
use crate::ops::{Adam, Moments};

/// Of three inputs, the one a person found least like the other two. All are row numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OddOneOut {
    /// The two that were found alike.
    pub pair: [usize; 2],
    /// The odd one.
    pub odd: usize,
}

impl OddOneOut {
    fn rows(&self) -> [usize; 3] {
        [self.pair[0], self.pair[1], self.odd]
    }
}

/// Share of the judgements that a representation makes too: its nearest two of the three are the pair.
///
/// `x` is `[n, d]`; chance is 1/3. A judgement on which the pair ties with another two counts as missed.
///
/// # Errors
/// A NaN or infinity in `x`; no judgements, or one that names a row that is not there or one row twice
/// ([`Error::Undefined`]); the device failing.
///
/// # Cost
/// `3 d` multiply-adds in f64 a judgement, on the host, and a copy of `x` there.
///
/// # Source
/// Hebart et al. 2020, "Revealing the multidimensional mental representations of natural objects";
/// Muttenthaler et al. 2023, "Human alignment of neural network representations", who take cosines.
///
/// # Example
/// ```
/// use inscape::{Device, similarity::{Nearness, OddOneOut, odd_one_out_accuracy}};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let x = Tensor::<2>::from_data([[1., 0.], [2., 1.], [-1., 3.]], cpu.tensor());
/// let judged = [OddOneOut { pair: [0, 1], odd: 2 }, OddOneOut { pair: [0, 2], odd: 1 }];
/// assert_eq!(odd_one_out_accuracy(&x, &judged, Nearness::Cosine)?, 0.5);
/// # Ok(())
/// # }
/// ```
pub fn odd_one_out_accuracy(
    x: &Tensor<2>,
    judged: &[OddOneOut],
    by: Nearness,
) -> Result<f64, Error> {
    block_on(odd_one_out_accuracy_async(x, judged, by))
}

/// [`odd_one_out_accuracy`] without blocking.
///
/// # Errors
/// As [`odd_one_out_accuracy`].
pub async fn odd_one_out_accuracy_async(
    x: &Tensor<2>,
    judged: &[OddOneOut],
    by: Nearness,
) -> Result<f64, Error> {
    check(judged, x.dims()[0])?;
    let rows = read(x).await?;
    let near = |i: usize, j: usize| {
        let (a, b) = (rows.row(i), rows.row(j));
        let dot = |a: &[f64], b: &[f64]| sum_range(0..a.len(), |c| a[c] * b[c]);
        match by {
            Nearness::Inner => dot(a, b),
            Nearness::Euclidean => -sum_range(0..a.len(), |c| (a[c] - b[c]).powi(2)),
            Nearness::Cosine => match (dot(a, a) * dot(b, b)).sqrt() {
                lengths if lengths > 0.0 => dot(a, b) / lengths,
                _ => 0.0,
            },
        }
    };
    let agrees = |judged: &&OddOneOut| {
        let [a, b, odd] = judged.rows();
        near(a, b) > near(a, odd) && near(a, b) > near(b, odd)
    };
    Ok(judged.iter().filter(agrees).count() as f64 / judged.len() as f64)
}

/// The rows on the host, checked.
async fn read(x: &Tensor<2>) -> Result<Rows<f64>, Error> {
    Rows::unscaled(x).await
}

fn check(judged: &[OddOneOut], n: usize) -> Result<(), Error> {
    let wrong = |judged: &OddOneOut| {
        let [a, b, odd] = judged.rows();
        a.max(b).max(odd) >= n || a == b || a == odd || b == odd
    };
    let why = match () {
        () if judged.is_empty() => "there are no judgements",
        () if judged.iter().any(wrong) => "a judgement names a row that is not there, or one twice",
        () => return Ok(()),
    };
    Err(Error::Undefined { why })
}

/// How a map from a representation to human judgements is learned (gLocal): see
/// [`HumanAlignment::fit`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Glocal {
    /// Weight of the local term, from 0 (judgements alone) to 1 (the representation as it is).
    pub alpha: f64,
    /// Weight of the pull of `W` towards a multiple of the identity.
    pub lambda: f64,
    /// Temperature of the local term: smaller values look at nearer neighbours.
    pub tau: f64,
    /// Learning rate of Adam, for rows of mean square length 1.
    pub rate: f64,
    /// Steps of Adam.
    pub steps: usize,
    /// Judgements of a step.
    pub batch: usize,
    /// Rows of a step between which the local structure is kept; at least 3.
    pub local_batch: usize,
    /// Of the draws of both batches.
    pub seed: u64,
}

impl Default for Glocal {
    fn default() -> Self {
        Self {
            alpha: 0.1,
            lambda: 0.1,
            tau: 0.1,
            rate: 1e-3,
            steps: 2000,
            batch: 256,
            local_batch: 256,
            seed: 0,
        }
    }
}

/// A linear map of a representation, `x W + b`, learned from human judgements of similarity.
#[derive(Clone, Debug)]
pub struct HumanAlignment {
    /// `W`, `[d, d]`.
    pub weight: Tensor<2>,
    /// `b`, `[1, d]`.
    pub bias: Tensor<2>,
}

impl HumanAlignment {
    /// Learns a map by which `x` foretells the judgements, while the neighbours of the rows of `local`
    /// stay who they are.
    ///
    /// `x` is `[n, d]` and holds the inputs that were judged; `local` is `[m, d]`, other inputs in the
    /// same features (`x` again will do). The loss of a step is
    /// `(1 - α) · mean -log softmax(z_a·z_b | z_a·z_b, z_a·z_odd, z_b·z_odd) + α · mean_i cross-entropy(
    /// softmax_j(cos(u_i, u_j) / τ), softmax_j(cos(v_i, v_j) / τ)) + λ |W - mean(diag W) I|²`
    /// with `z` the mapped rows of `x`, `u` those of `local` and `v` the same mapped, `j ≠ i`. The same
    /// seed gives the same map on the same device.
    ///
    /// # Errors
    /// As [`odd_one_out_accuracy`]; widths that differ; rows of `x` that are all 0, fewer than 3 rows of
    /// `local`, options out of range, or a loss that grows without bound ([`Error::Undefined`]); the
    /// device failing.
    ///
    /// # Cost
    /// A step: `3 batch d²` multiply-adds for the judgements and `local_batch d (d + 2 local_batch)` for
    /// the local term, three times over with the gradients. Memory: copies of `x` and `local`, `10 d²`
    /// values and those of a step.
    ///
    /// # Source
    /// Muttenthaler et al. 2023, "Improving neural network representations using human similarity
    /// judgments", with the sums of their code. Deviations: the rows are brought to a mean square length
    /// of 1 and the descent starts from the identity and no bias, so that no option depends on the unit
    /// of the features (theirs: a small multiple of the identity); the learning rate is constant.
    ///
    /// # Example
    /// ```
    /// use inscape::{Device, similarity::{HumanAlignment, Glocal, OddOneOut}};
    /// use burn::tensor::Tensor;
    ///
    /// # fn main() -> Result<(), inscape::similarity::Error> {
    /// let cpu = Device::cpu();
    /// let x = Tensor::<2>::from_data([[1., 0.], [2., 1.], [-1., 3.], [0., 2.]], cpu.tensor());
    /// let judged = [OddOneOut { pair: [0, 1], odd: 2 }, OddOneOut { pair: [2, 3], odd: 1 }];
    /// let options = Glocal { steps: 20, ..Glocal::default() };
    /// let map = HumanAlignment::fit(&x, &judged, &x, &options)?;
    /// assert_eq!(map.apply(&x).dims(), [4, 2]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn fit(
        x: &Tensor<2>,
        judged: &[OddOneOut],
        local: &Tensor<2>,
        options: &Glocal,
    ) -> Result<Self, Error> {
        block_on(Self::fit_async(x, judged, local, options))
    }

    /// [`HumanAlignment::fit`] without blocking.
    ///
    /// # Errors
    /// As [`HumanAlignment::fit`].
    pub async fn fit_async(
        x: &Tensor<2>,
        judged: &[OddOneOut],
        local: &Tensor<2>,
        options: &Glocal,
    ) -> Result<Self, Error> {
        check(judged, x.dims()[0])?;
        options.check()?;
        if x.dims()[1] != local.dims()[1] {
            let (left, right) = (x.dims(), local.dims());
            return Err(Error::ColumnsDiffer { left, right });
        }
        if local.dims()[0] < 3 {
            let why = "local structure needs 3 rows";
            return Err(Error::Undefined { why });
        }
        let scale = scale(&read(x).await?)?;
        read(local).await?;
        let of = FloatDType::from(working(x).dtype());
        let scaled = |x: &Tensor<2>| x.clone().cast(of) * scale;
        let mut learner = Learner::new(scaled(x), scaled(local));
        let mut draws = ChaCha8Rng::seed_from_u64(options.seed);
        for t in 1..=options.steps {
            learner.step(t as u64, judged, options, &mut draws);
        }
        let map = Self {
            weight: learner.weight * scale,
            bias: learner.bias,
        };
        let values = device::read::<f64, 2>(map.apply(x)).await?;
        match values.iter().all(|v| v.is_finite()) {
            true => Ok(map),
            false => Err(Error::Undefined {
                why: "the loss grows without bound: lower the learning rate",
            }),
        }
    }

    /// `x W + b`, `[n, d]`, in the precision of `W`.
    pub fn apply(&self, x: &Tensor<2>) -> Tensor<2> {
        let x = x.clone().cast(FloatDType::from(self.weight.dtype()));
        x.matmul(self.weight.clone()) + self.bias.clone()
    }
}

impl Glocal {
    fn check(&self) -> Result<(), Error> {
        let positive = |v: f64| v > 0.0 && v.is_finite();
        let fits = (0.0..=1.0).contains(&self.alpha)
            && self.lambda >= 0.0
            && self.lambda.is_finite()
            && positive(self.tau)
            && positive(self.rate)
            && self.batch > 0
            && self.local_batch > 2;
        let why = "an option is out of range";
        fits.then_some(()).ok_or(Error::Undefined { why })
    }
}

/// One over the root mean square length of the rows.
fn scale(rows: &Rows<f64>) -> Result<f64, Error> {
    let largest = rows.largest()?;
    let values = &rows.values[..];
    let squares = sum_range(0..values.len(), |i| (values[i] / largest).powi(2));
    match largest > 0.0 {
        true => Ok((rows.n as f64 / squares).sqrt() / largest),
        false => Err(Error::Undefined {
            why: "all its rows are 0",
        }),
    }
}

/// The state of the descent.
struct Learner {
    x: Tensor<2>,
    local: Tensor<2>,
    weight: Tensor<2>,
    bias: Tensor<2>,
    moments: [Moments<2>; 2],
}

impl Learner {
    fn new(x: Tensor<2>, local: Tensor<2>) -> Self {
        let d = x.dims()[1];
        let weight = identity(d, &x);
        let bias = weight.clone().narrow(0, 0, 1).zeros_like();
        Self {
            moments: [Moments::zeros(&weight), Moments::zeros(&bias)],
            x,
            local,
            weight,
            bias,
        }
    }

    fn step(&mut self, t: u64, judged: &[OddOneOut], options: &Glocal, draws: &mut ChaCha8Rng) {
        let rows = drawn(judged.len(), options.batch, draws);
        let judged: Vec<[usize; 3]> = rows.into_iter().map(|i| judged[i].rows()).collect();
        let three = [0, 1, 2].map(|at| select(&self.x, judged.iter().map(|rows| rows[at])));
        let rows = drawn(self.local.dims()[0], options.local_batch, draws);
        let local = select(&self.local, rows.into_iter());

        let tracked = |p: &Tensor<2>| Tensor::from_inner(p.clone()).require_grad();
        let (weight, bias) = (tracked(&self.weight), tracked(&self.bias));
        let map = |x: Tensor<2>| Tensor::from_inner(x).matmul(weight.clone()) + bias.clone();
        let loss = judgement_loss(three.map(&map)) * (1.0 - options.alpha)
            + local_loss(Tensor::from_inner(local.clone()), map(local), options.tau)
                * options.alpha
            + pull(weight.clone()) * options.lambda;
        let grads = loss.backward();
        let [of_weight, of_bias] = &mut self.moments;
        for (p, tracked, moments) in [
            (&mut self.weight, weight, of_weight),
            (&mut self.bias, bias, of_bias),
        ] {
            let grad = tracked.grad(&grads).expect("the loss depends on it");
            *p = Adam::default().step(t, options.rate, p.clone(), grad, moments);
        }
    }
}

/// Up to `most` different numbers below `n`: all of them in order, or a draw.
fn drawn(n: usize, most: usize, draws: &mut ChaCha8Rng) -> Vec<usize> {
    match n <= most {
        true => (0..n).collect(),
        false => rand::seq::index::sample(draws, n, most).into_vec(),
    }
}

/// The identity of this size, beside `like` in its precision.
fn identity(n: usize, like: &Tensor<2>) -> Tensor<2> {
    Tensor::<2>::eye(n, &like.device()).cast(FloatDType::from(like.dtype()))
}

fn select(x: &Tensor<2>, rows: impl Iterator<Item = usize>) -> Tensor<2> {
    let rows: Vec<i32> = rows.map(|i| i as i32).collect();
    let index = TensorData::new(rows.clone(), [rows.len()]);
    x.clone()
        .select(0, Tensor::<1, Int>::from_data(index, &x.device()))
}

/// Mean of minus the log share of the pair among the three similarities; all are `[batch, d]`.
fn judgement_loss([a, b, odd]: [Tensor<2>; 3]) -> Tensor<1> {
    let dot = |a: &Tensor<2>, b: &Tensor<2>| (a.clone() * b.clone()).sum_dim(1);
    let similarities = Tensor::cat(vec![dot(&a, &b), dot(&a, &odd), dot(&b, &odd)], 1);
    -log_softmax(similarities, 1).narrow(1, 0, 1).mean()
}

/// Mean cross-entropy of the shares by cosine that the rows have in each other, `before` by `after`.
fn local_loss(before: Tensor<2>, after: Tensor<2>, tau: f64) -> Tensor<1> {
    let n = before.dims()[0];
    // Far below every cosine: a row has no share in itself.
    let own = identity(n, &before) * 1e6;
    let log_shares = |x: Tensor<2>| {
        let lengths = x.clone().square().sum_dim(1).sqrt().clamp_min(1e-12);
        let unit = x / lengths;
        let cosines = unit.clone().matmul(unit.transpose());
        log_softmax(cosines / tau - own.clone(), 1)
    };
    (log_shares(before).exp() * log_shares(after)).sum() / -(n as f64)
}

/// Squared distance of `W` from the multiple of the identity that its diagonal has on average.
fn pull(weight: Tensor<2>) -> Tensor<1> {
    let d = weight.dims()[0];
    let eye = identity(d, &weight);
    let mean = (weight.clone() * eye.clone()).sum() / d as f64;
    (weight - eye * mean.reshape([1, 1])).square().sum()
}
