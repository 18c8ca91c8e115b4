//! Which features of one dictionary are which of another's.
//!
//! Two ways to score a pair: the cosine of the decoder rows ([`cosines`]), where both dictionaries
//! lie in one space, and the correlation of the activations on the same rows ([`Correlations`]),
//! where they do not: other layers, other models, other seeds of a model. Two ways to pair up: each
//! feature with its best ([`Scores::best`]), or one to one ([`Scores::assigned`]).
//!
//! Feature universality (Lan et al. 2024, "Sparse autoencoders reveal universal feature spaces
//! across large language models"): pair by correlation, drop dead features and many-to-one pairs
//! ([`one_to_one`]), and compare the paired decoder rows, for example by
//! [`rsa`](crate::similarity::rsa()).

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

pub use super::assignment::assignment;
use crate::device;
use crate::sae::arch::unit_rows;
use crate::sae::{Error, Latents};

/// Most values of one tile of a product: 16 MiB in f32.
const TILE: usize = 1 << 22;

/// Feature `a` of the first dictionary with feature `b` of the second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// In the first.
    pub a: usize,
    /// In the second.
    pub b: usize,
    /// Cosine or correlation.
    pub score: f64,
}

/// A score for every pair of features: `[rows, columns]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// Features of the first dictionary.
    pub rows: usize,
    /// Features of the second.
    pub columns: usize,
    /// Row-major.
    pub values: Vec<f64>,
}

impl Scores {
    /// Each feature of the first dictionary with the best of the second; of equals the first.
    /// Features without any score (NaN) are left out.
    pub fn best(&self) -> Vec<Pair> {
        let pairs = self.values.chunks(self.columns.max(1)).enumerate();
        pairs.filter_map(|(a, row)| best_of(a, row)).collect()
    }

    /// The one-to-one pairing with the largest sum of scores: as many pairs as the smaller dictionary
    /// has features, but for those without any score (NaN), in the order of `a`.
    ///
    /// Cost: `O(m² M)` for m ≤ M features, and a copy of the scores.
    ///
    /// # Errors
    /// A feature that has scores with some and none with others.
    pub fn assigned(&self) -> Result<Vec<Pair>, Error> {
        let scored = |a: usize, b: usize| !self.at(a, b).is_nan();
        let rows: Vec<usize> = (0..self.rows)
            .filter(|a| (0..self.columns).any(|b| scored(*a, b)))
            .collect();
        let columns: Vec<usize> = (0..self.columns)
            .filter(|b| (0..self.rows).any(|a| scored(a, *b)))
            .collect();
        let mut values = Vec::with_capacity(rows.len() * columns.len());
        for (a, b) in rows
            .iter()
            .flat_map(|a| columns.iter().map(move |b| (*a, *b)))
        {
            if !scored(a, b) {
                let text = format!("{a} has no score with {b}, and some with others");
                return Err(Error::Config(text));
            }
            values.push(self.at(a, b));
        }
        let pairs = assignment(&values, rows.len(), columns.len())?.into_iter();
        let pair = |(a, b): (usize, usize)| Pair {
            a: rows[a],
            b: columns[b],
            score: self.at(rows[a], columns[b]),
        };
        Ok(pairs.map(pair).collect())
    }

    fn at(&self, a: usize, b: usize) -> f64 {
        self.values[a * self.columns + b]
    }
}

/// The best of a row of scores, unless all are NaN.
fn best_of(a: usize, row: &[f64]) -> Option<Pair> {
    let mut best: Option<Pair> = None;
    for (b, &score) in row.iter().enumerate() {
        if !score.is_nan() && best.is_none_or(|p| score > p.score) {
            best = Some(Pair { a, b, score });
        }
    }
    best
}

/// How well the features of two dictionaries match.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Matched {
    /// Features of each that have a score: those that never change have no correlation.
    pub features: [usize; 2],
    /// Mean over the features of the first of their best score in the second, and the other way round.
    pub best: [f64; 2],
    /// Mean score of the one-to-one pairs.
    pub one_to_one: f64,
    /// The one-to-one pairs, by falling score.
    pub pairs: Vec<Pair>,
}

impl Scores {
    /// Both ways of pairing up, and what they come to. NaN where no feature has a score.
    ///
    /// Cost: that of [`Scores::assigned`], and the transpose of the scores.
    ///
    /// # Errors
    /// As [`Scores::assigned`].
    ///
    /// ```
    /// use inscape::sae::eval::matching::Scores;
    /// let scores = Scores { rows: 2, columns: 2, values: vec![0.9, 0.8, 0.7, 0.1] };
    /// let found = scores.matched()?;
    /// assert!((found.one_to_one - 0.75).abs() < 1e-12);
    /// assert!((found.best[0] - 0.8).abs() < 1e-12 && (found.best[1] - 0.85).abs() < 1e-12);
    /// # Ok::<(), inscape::sae::Error>(())
    /// ```
    pub fn matched(&self) -> Result<Matched, Error> {
        let across =
            (0..self.rows * self.columns).map(|at| self.at(at % self.rows, at / self.rows));
        let across = Self {
            rows: self.columns,
            columns: self.rows,
            values: across.collect(),
        };
        let sides = [self.best(), across.best()];
        let mut pairs = self.assigned()?;
        pairs.sort_by(|p, q| q.score.total_cmp(&p.score));
        Ok(Matched {
            features: [sides[0].len(), sides[1].len()],
            best: [mean(&sides[0]), mean(&sides[1])],
            one_to_one: mean(&pairs),
            pairs,
        })
    }
}

fn mean(pairs: &[Pair]) -> f64 {
    pairs.iter().map(|p| p.score).sum::<f64>() / pairs.len() as f64
}

/// Drops many-to-one pairs: of those that share a `b`, the one with the largest score stays (of
/// equals the first). In the order given.
///
/// ```
/// use inscape::sae::eval::matching::{Pair, one_to_one};
/// let pair = |(a, b, score)| Pair { a, b, score };
/// let pairs = [(0, 5, 0.7), (1, 5, 0.9), (2, 3, 0.4)].map(pair);
/// assert_eq!(one_to_one(&pairs), [(1, 5, 0.9), (2, 3, 0.4)].map(pair));
/// ```
pub fn one_to_one(pairs: &[Pair]) -> Vec<Pair> {
    let mut best = std::collections::HashMap::new();
    for (i, pair) in pairs.iter().enumerate() {
        let holder: &mut usize = best.entry(pair.b).or_insert(i);
        if pair.score > pairs[*holder].score {
            *holder = i;
        }
    }
    let kept = |(i, pair): (usize, &Pair)| (best[&pair.b] == i).then_some(*pair);
    pairs.iter().enumerate().filter_map(kept).collect()
}

/// The cosines of the rows of `a` `[F1, d]` with those of `b` `[F2, d]`. A row of zeros has the
/// cosine 0 with every other.
///
/// Cost: one product in tiles of 16 MiB; `8 F1 F2` bytes for the result. [`max_cosine`] holds none of
/// it.
///
/// # Errors
/// Widths that differ, or no rows; the device failed.
pub async fn cosines(a: Tensor<2>, b: Tensor<2>) -> Result<Scores, Error> {
    let ([rows, _], [columns, _]) = (a.dims(), b.dims());
    let mut values = Vec::with_capacity(rows * columns);
    for tile in tiles(a, b)? {
        values.extend(device::read::<f64, 2>(tile).await?);
    }
    Ok(Scores {
        rows,
        columns,
        values,
    })
}

/// For each row of `a` `[F1, d]` the row of `b` `[F2, d]` with the largest cosine.
///
/// Cost: one product, in tiles of 16 MiB; two numbers a row are read back.
///
/// # Errors
/// As [`cosines`].
pub async fn max_cosine(a: Tensor<2>, b: Tensor<2>) -> Result<Vec<Pair>, Error> {
    let mut pairs = Vec::with_capacity(a.dims()[0]);
    for tile in tiles(a, b)? {
        let (scores, indices) = tile.max_dim_with_indices(1);
        let scores: Vec<f64> = device::read(scores).await?;
        let indices = device::read_int(indices).await?;
        for (score, b) in scores.into_iter().zip(indices) {
            let a = pairs.len();
            let b = b as usize;
            pairs.push(Pair { a, b, score });
        }
    }
    Ok(pairs)
}

/// Mean max cosine similarity of the rows of `a` `[F1, d]`, the features that should be there, with
/// those of `b` `[F2, d]` (Sharkey, Braun & Millidge 2022). Not symmetric.
///
/// # Errors
/// As [`cosines`].
///
/// ```
/// use burn::tensor::Tensor;
/// use inscape::{Device, device::block_on, sae::eval::matching::mmcs};
/// let cpu = Device::cpu();
/// let axes = Tensor::<2>::from_data([[1.0, 0.0], [0.0, 1.0]], cpu.tensor());
/// let found = Tensor::<2>::from_data([[3.0, 4.0], [0.0, 2.0]], cpu.tensor());
/// let mean = block_on(mmcs(axes, found))?;
/// assert!((mean - (0.6 + 1.0) / 2.0).abs() < 1e-6);
/// # Ok::<(), inscape::sae::Error>(())
/// ```
pub async fn mmcs(a: Tensor<2>, b: Tensor<2>) -> Result<f64, Error> {
    let pairs = max_cosine(a, b).await?;
    Ok(pairs.iter().map(|p| p.score).sum::<f64>() / pairs.len() as f64)
}

/// The cosines of a few rows of `a` with all of `b`, a tile after another.
fn tiles(a: Tensor<2>, b: Tensor<2>) -> Result<impl Iterator<Item = Tensor<2>>, Error> {
    let ([rows, d], [columns, width]) = (a.dims(), b.dims());
    if d != width || rows == 0 || columns == 0 {
        return Err(Error::Config(format!(
            "dictionaries [{rows}, {d}] and [{columns}, {width}] have no cosines"
        )));
    }
    let (a, b) = (unit_rows(a), unit_rows(b).transpose());
    let step = (TILE / columns).max(1);
    Ok((0..rows).step_by(step).map(move |start| {
        let part = a.clone().narrow(0, start, step.min(rows - start));
        part.matmul(b.clone())
    }))
}

/// Gathers the correlations of the activations of two dictionaries on the same rows, batch by batch.
///
/// Sums are f64 on the host. Dense activations are taken about the first batch's means, so that a
/// large common offset costs no accuracy, and their products within a batch are summed in f32 on the
/// device. Memory: `8 F1 F2` bytes, and for a dense batch its product besides; no rows are kept.
#[derive(Clone, Debug)]
pub struct Correlations {
    features: [usize; 2],
    rows: u64,
    /// What dense activations are taken about.
    about: Option<[Tensor<2>; 2]>,
    sums: [Vec<f64>; 2],
    squares: [Vec<f64>; 2],
    products: Vec<f64>,
}

impl Correlations {
    /// For dictionaries of `a` and of `b` features.
    pub fn new(a: usize, b: usize) -> Self {
        let zeros = || [vec![0.0; a], vec![0.0; b]];
        Self {
            features: [a, b],
            rows: 0,
            about: None,
            sums: zeros(),
            squares: zeros(),
            products: vec![0.0; a * b],
        }
    }

    /// Adds the activations `a` `[n, F1]` and `b` `[n, F2]` of the same rows. Cost: a dense product.
    ///
    /// # Errors
    /// Shapes that do not fit; the device failed.
    pub async fn add(&mut self, a: Tensor<2>, b: Tensor<2>) -> Result<(), Error> {
        self.check(a.dims(), b.dims())?;
        let first = self.rows == 0;
        let start = |x: &Tensor<2>| match first {
            true => x.clone().mean_dim(0),
            false => x.clone().narrow(0, 0, 1).zeros_like(),
        };
        self.rows += a.dims()[0] as u64;
        let about = self.about.get_or_insert_with(|| [start(&a), start(&b)]);
        let (a, b) = (a - about[0].clone(), b - about[1].clone());
        for (i, x) in [&a, &b].into_iter().enumerate() {
            add_to(&mut self.sums[i], x.clone().sum_dim(0)).await?;
            add_to(&mut self.squares[i], x.clone().square().sum_dim(0)).await?;
        }
        add_to(&mut self.products, a.transpose().matmul(b)).await
    }

    /// Adds the latents of the same rows. Cost: `n k1 k2` additions on the host for the k1 and k2
    /// latents that a row has in each, unless dense activations were added before.
    ///
    /// # Errors
    /// As [`Correlations::add`].
    pub async fn add_latents(&mut self, a: &Latents, b: &Latents) -> Result<(), Error> {
        let [f1, f2] = self.features;
        if self.about.is_some() {
            return self.add(a.dense(f1), b.dense(f2)).await;
        }
        let (a, b) = (rows_of(a).await?, rows_of(b).await?);
        self.check([a.len(), f1], [b.len(), f2])?;
        self.rows += a.len() as u64;
        for (a, b) in a.iter().zip(&b) {
            for (i, row) in [a, b].into_iter().enumerate() {
                for (f, v) in row {
                    self.sums[i][*f] += v;
                    self.squares[i][*f] += v * v;
                }
            }
            for (f, v) in a {
                let products = &mut self.products[f * f2..][..f2];
                b.iter().for_each(|(g, w)| products[*g] += v * w);
            }
        }
        Ok(())
    }

    fn check(&self, a: [usize; 2], b: [usize; 2]) -> Result<(), Error> {
        if a[0] == b[0] && [a[1], b[1]] == self.features {
            return Ok(());
        }
        let [f1, f2] = self.features;
        Err(Error::Config(format!(
            "activations {a:?} and {b:?} are no [n, {f1}] and [n, {f2}]"
        )))
    }

    /// Pearson's correlations over all rows added. A feature that never changed, such as a dead one,
    /// has none: NaN, so that no pairing takes it.
    pub fn finish(self) -> Scores {
        let n = self.rows as f64;
        let [rows, columns] = self.features;
        let rounding = if self.about.is_some() { 1e-6 } else { 1e-12 };
        let spread = |i: usize| -> Vec<f64> {
            let each = self.sums[i].iter().zip(&self.squares[i]);
            each.map(|(s, q)| spread_of(*s, *q, n, rounding)).collect()
        };
        let (by_row, by_column) = (spread(0), spread(1));
        let score = |(i, product): (usize, &f64)| {
            let (a, b) = (i / columns, i % columns);
            let covariance = product - self.sums[0][a] * self.sums[1][b] / n;
            (covariance / (by_row[a] * by_column[b])).clamp(-1.0, 1.0)
        };
        let values = self.products.iter().enumerate().map(score).collect();
        Scores {
            rows,
            columns,
            values,
        }
    }
}

/// The root of the summed squares about the mean; NaN where rounding, a share of the squares, may be
/// all there is.
fn spread_of(sum: f64, squares: f64, n: f64, rounding: f64) -> f64 {
    let about = squares - sum * sum / n;
    if about > rounding * squares {
        about.sqrt()
    } else {
        f64::NAN
    }
}

async fn add_to(sums: &mut [f64], x: Tensor<2>) -> Result<(), Error> {
    let values: Vec<f32> = device::read(x).await?;
    sums.iter_mut()
        .zip(values)
        .for_each(|(s, x)| *s += f64::from(x));
    Ok(())
}

/// Latents and values above 0 of each row.
async fn rows_of(latents: &Latents) -> Result<Vec<Vec<(usize, f64)>>, Error> {
    let k = latents.values.dims()[1].max(1);
    let values: Vec<f32> = device::read(latents.values.clone()).await?;
    let indices = device::read_int(latents.indices.clone()).await?;
    let row = |(values, indices): (&[f32], &[i64])| {
        let all = values.iter().zip(indices);
        let entry = |(v, i): (&f32, &i64)| (*v > 0.0).then_some((*i as usize, f64::from(*v)));
        all.filter_map(entry).collect()
    };
    Ok(values.chunks(k).zip(indices.chunks(k)).map(row).collect())
}
