//! Correlations of units over any number of rows, and which units other models have too.

use burn::tensor::{DType, FloatDType, Tensor, TensorData};
use faer::Mat;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Error;
use super::correlations::{UnitCorrelations, same_rows};
use super::rosetta::{Rosetta, rosetta_of};
use crate::device::{self, Device, block_on};

/// Rows whose products are summed on the device before they are added to the sums in f64.
const ROWS: usize = 1024;

/// Rows whose values are summed on the device.
const PART: usize = 64;

/// Variance below this share of the mean square about the first rows' mean is rounding.
const CONSTANT: f64 = 1e-6;

/// Gathers the correlation of every unit of one model with every unit of another, batch by batch.
///
/// Rows (tokens) come in batches `[b, dx]` and `[b, dy]` and are not kept. Values are taken about the
/// mean of the first rows, so that a large common offset costs no accuracy; products of up to 1,024
/// rows are summed on the device, in f32 (f64 for f64 tensors), and those sums in f64 on the host.
/// Memory: `8 dx dy` bytes, a product of that shape on the device, and one of 1,024 rows.
///
/// # Source
/// Gurnee, Horsley, Guo, Kheirkhah, Sun, Hathaway, Nanda & Bertsimas 2024, "Universal neurons in GPT2
/// language models", section 4.
///
/// # Example
/// ```
/// use inscape::{Device, similarity::Correlations};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let cpu = Device::cpu();
/// let mut all = Correlations::new(2, 1, &cpu);
/// for batch in [[[0., 1.], [1., 0.]], [[2., 3.], [4., 1.]]] {
///     let x = Tensor::<2>::from_data(batch, cpu.tensor());
///     all.push(&x, &(x.clone().narrow(1, 1, 1) * -2.0 + 7.0))?;
/// }
/// assert_eq!(all.rows(), 4);
/// assert!((all.read()?.at(1, 0) + 1.0).abs() < 1e-6);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Correlations {
    widths: [usize; 2],
    device: Device,
    rows: u64,
    /// What the values of either side are taken about, f32-exact.
    about: Option<[Vec<f64>; 2]>,
    sums: [Vec<f64>; 2],
    squares: [Vec<f64>; 2],
    products: Vec<f64>,
    /// Products of the right side with itself, if it is to be rotated.
    own: Option<Vec<f64>>,
}

impl Correlations {
    /// For models of `dx` and `dy` units, whose products are taken on `device`.
    pub fn new(dx: usize, dy: usize, device: &Device) -> Self {
        let zeros = || [vec![0.0; dx], vec![0.0; dy]];
        Self {
            widths: [dx, dy],
            device: device.clone(),
            rows: 0,
            about: None,
            sums: zeros(),
            squares: zeros(),
            products: vec![0.0; dx * dy],
            own: None,
        }
    }

    /// Also gathers the products of the right units with each other, which [`Correlations::rotated`]
    /// needs: `b dy²` more multiply-adds a batch, and `8 dy²` bytes. To be called before any batch.
    ///
    /// # Panics
    /// If rows were pushed before.
    pub fn with_rotations(mut self) -> Self {
        assert!(
            self.rows == 0,
            "Correlations::with_rotations: rows were pushed before"
        );
        self.own = Some(vec![0.0; self.widths[1] * self.widths[1]]);
        self
    }

    /// Rows pushed so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Adds the units `x` `[b, dx]` and `y` `[b, dy]` of the same rows.
    ///
    /// # Errors
    /// Different row counts; a NaN or infinity, named by its row in the batch; a value whose square is
    /// no finite f32 ([`Error::Undefined`]); the device failing. After an error the sums are not to be
    /// used.
    ///
    /// # Panics
    /// If a width is not that of [`Correlations::new`].
    ///
    /// # Cost
    /// `b dx dy` multiply-adds on the device, and `dx dy` values read back for every 1,024 rows.
    pub fn push(&mut self, x: &Tensor<2>, y: &Tensor<2>) -> Result<(), Error> {
        block_on(self.push_async(x, y))
    }

    /// [`Correlations::push`] without blocking.
    ///
    /// # Errors
    /// As [`Correlations::push`].
    ///
    /// # Panics
    /// As [`Correlations::push`].
    pub async fn push_async(&mut self, x: &Tensor<2>, y: &Tensor<2>) -> Result<(), Error> {
        same_rows(x, y)?;
        let [rows, dx] = x.dims();
        assert!(
            [dx, y.dims()[1]] == self.widths,
            "Correlations::push: units {:?} and {:?} are no [b, {}] and [b, {}]",
            x.dims(),
            y.dims(),
            self.widths[0],
            self.widths[1]
        );
        let wide = x.dtype() == DType::F64 || y.dtype() == DType::F64;
        let dtype = if wide {
            FloatDType::F64
        } else {
            FloatDType::F32
        };
        for start in (0..rows).step_by(ROWS) {
            let part = |t: &Tensor<2>| {
                let part = t.clone().narrow(0, start, ROWS.min(rows - start));
                part.to_device(self.device.tensor()).cast(dtype)
            };
            self.add([part(x), part(y)], start).await?;
        }
        Ok(())
    }

    async fn add(&mut self, sides: [Tensor<2>; 2], start: usize) -> Result<(), Error> {
        let rows = sides[0].dims()[0];
        if self.about.is_none() {
            let [x, y] = &sides;
            self.about = Some([first_mean(x).await?, first_mean(y).await?]);
        }
        let about = self.about.as_ref().expect("it was set");
        let [x, y] = [0, 1].map(|s| sides[s].clone() - row_of(&about[s], &sides[s]));
        for (s, part) in [&x, &y].into_iter().enumerate() {
            add_to(&mut self.sums[s], part_sums(part.clone())).await?;
            add_to(&mut self.squares[s], part_sums(part.clone().square())).await?;
            if !self.squares[s].iter().all(|q| q.is_finite()) {
                let place = ["left", "right"][s];
                return Err(not_finite(&sides[s], start).await?.at(place));
            }
        }
        add_to(&mut self.products, x.transpose().matmul(y.clone())).await?;
        if let Some(own) = &mut self.own {
            add_to(own, y.clone().transpose().matmul(y)).await?;
        }
        self.rows += rows as u64;
        Ok(())
    }

    /// The correlations over all rows pushed. A unit that never changed has 0 with all others.
    ///
    /// # Errors
    /// [`Error::Undefined`] for a side whose units never changed.
    pub fn read(&self) -> Result<UnitCorrelations, Error> {
        let lengths = [self.lengths(0)?, self.lengths(1)?];
        let columns = self.widths[1];
        let covariance =
            |at: usize| self.products[at] - self.by_means(0, at / columns, at % columns);
        Ok(correlations(self.widths, covariance, &lengths))
    }

    /// The correlations of the left units with directions that mean nothing: those of the right units
    /// after a random rotation of their space, the same for the same `seed`. What a unit's best match
    /// reaches here it reaches by chance, given what the right units span.
    ///
    /// # Errors
    /// As [`Correlations::read`].
    ///
    /// # Panics
    /// Without [`Correlations::with_rotations`].
    ///
    /// # Cost
    /// `2 dy³ + dx dy²` multiply-adds in f64 on the host, from the sums alone, and matrices of these shapes.
    pub fn rotated(&self, seed: u64) -> Result<UnitCorrelations, Error> {
        let own = self.own.as_ref();
        let own = own.expect("Correlations::rotated: made without with_rotations");
        let (left, _) = (self.lengths(0)?, self.lengths(1)?);
        let [dx, dy] = self.widths;
        let rotation = rotation(dy, seed);
        let across = Mat::from_fn(dx, dy, |i, j| {
            self.products[i * dy + j] - self.by_means(0, i, j)
        });
        let within = Mat::from_fn(dy, dy, |i, j| own[i * dy + j] - self.by_means(1, i, j));
        let (across, half) = (across * &rotation, within * &rotation);
        let length = |j: usize| {
            let pairs = rotation.col(j).iter().zip(half.col(j).iter());
            pairs.map(|(r, h)| r * h).sum::<f64>().max(0.0).sqrt()
        };
        let lengths = [left, (0..dy).map(length).collect()];
        let covariance = |at: usize| across[(at / dy, at % dy)];
        Ok(correlations(self.widths, covariance, &lengths))
    }

    /// What the means take off a sum of products of unit `i` of a side with unit `j` of the right.
    fn by_means(&self, side: usize, i: usize, j: usize) -> f64 {
        self.sums[side][i] * self.sums[1][j] / self.rows as f64
    }

    /// Length of each unit about its mean over the rows; 0 where rounding may be all there is.
    fn lengths(&self, side: usize) -> Result<Vec<f64>, Error> {
        let length = |(sum, square): (&f64, &f64)| {
            let about = square - sum * sum / self.rows as f64;
            if about > CONSTANT * square {
                about.sqrt()
            } else {
                0.0
            }
        };
        let sums = self.sums[side].iter().zip(&self.squares[side]);
        let lengths: Vec<f64> = sums.map(length).collect();
        if lengths.iter().all(|l| *l == 0.0) {
            let why = "all its columns are constant";
            return Err(Error::Undefined { why }.at(["left", "right"][side]));
        }
        Ok(lengths)
    }
}

fn correlations(
    [rows, columns]: [usize; 2],
    covariance: impl Fn(usize) -> f64,
    lengths: &[Vec<f64>; 2],
) -> UnitCorrelations {
    let r = |at: usize| match lengths[0][at / columns] * lengths[1][at % columns] {
        0.0 => 0.0,
        length => (covariance(at) / length).clamp(-1.0, 1.0),
    };
    UnitCorrelations {
        rows,
        columns,
        values: (0..rows * columns).map(r).collect(),
    }
}

/// Mean of the rows, rounded to f32; exact for a constant column.
async fn first_mean(x: &Tensor<2>) -> Result<Vec<f64>, Error> {
    let first = x.clone().narrow(0, 0, 1);
    let mean = first.clone() + (x.clone() - first).mean_dim(0);
    let mean: Vec<f32> = device::read(mean).await?;
    Ok(mean.into_iter().map(f64::from).collect())
}

/// Values as one row beside a tensor, in its precision.
fn row_of(values: &[f64], like: &Tensor<2>) -> Tensor<2> {
    let data = TensorData::new(values.to_vec(), [1, values.len()]);
    Tensor::from_data(
        data.convert_dtype(like.dtype()),
        (&like.device(), like.dtype()),
    )
}

/// Sums of a few rows each, so that in f32 none is long.
fn part_sums(x: Tensor<2>) -> Tensor<2> {
    let rows = x.dims()[0];
    let part = |start: usize| {
        x.clone()
            .narrow(0, start, PART.min(rows - start))
            .sum_dim(0)
    };
    Tensor::cat((0..rows).step_by(PART).map(part).collect(), 0)
}

/// Adds every `sums.len()` values of a tensor.
async fn add_to(sums: &mut [f64], x: Tensor<2>) -> Result<(), device::Error> {
    let add = |sums: &mut [f64], values: &mut dyn Iterator<Item = f64>| {
        let d = sums.len();
        values.enumerate().for_each(|(at, v)| sums[at % d] += v);
    };
    match x.dtype() {
        DType::F64 => add(sums, &mut device::read::<f64, 2>(x).await?.into_iter()),
        _ => add(
            sums,
            &mut device::read::<f32, 2>(x).await?.into_iter().map(f64::from),
        ),
    }
    Ok(())
}

/// The first value of a part of a batch that is not finite.
async fn not_finite(x: &Tensor<2>, start: usize) -> Result<Error, device::Error> {
    let d = x.dims()[1];
    let values: Vec<f64> = device::read(x.clone()).await?;
    let found = values.iter().enumerate().find(|(_, v)| !v.is_finite());
    Ok(match found {
        Some((at, &value)) => Error::NotFinite {
            row: start + at / d,
            column: at % d,
            value,
        },
        None => Error::Undefined {
            why: "its squares are too large",
        },
    })
}

/// A rotation drawn evenly from all (Stewart 1980): the Q of a normal matrix, its signs set by R's
/// diagonal.
fn rotation(d: usize, seed: u64) -> Mat<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut normal = || {
        let (u, v): (f64, f64) = (rng.random(), rng.random());
        (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    };
    let draws = Mat::from_fn(d, d, |_, _| normal());
    let qr = draws.qr();
    let q = qr.compute_Q();
    Mat::from_fn(d, d, |i, j| q[(i, j)] * qr.R()[(j, j)].signum())
}

/// How much better each unit of a model matches the units of other models than it matches rotated
/// ones: the mean over the others of the difference of its largest correlations.
///
/// `found[m]` and `rotated[m]` are those of the model's units, `[d, dm]`, with the units of the m-th
/// other model ([`Correlations::read`]) and with these rotated ([`Correlations::rotated`]).
///
/// # Panics
/// If there are none, or not equally many of both and of the same units.
///
/// # Source
/// Gurnee et al. 2024, "Universal neurons in GPT2 language models", equation 2; they call units with
/// an excess above 0.5 universal.
pub fn excess_correlation(found: &[UnitCorrelations], rotated: &[UnitCorrelations]) -> Vec<f64> {
    let units = found.first().map_or(0, |f| f.rows);
    assert!(
        units > 0
            && found.len() == rotated.len()
            && found.iter().chain(rotated).all(|c| c.rows == units),
        "excess_correlation: {} and {} sets of correlations of {units} units",
        found.len(),
        rotated.len()
    );
    let mut excess = vec![0.0; units];
    for (found, rotated) in found.iter().zip(rotated) {
        let best = found.best_match().into_iter().zip(rotated.best_match());
        excess
            .iter_mut()
            .zip(best)
            .for_each(|(e, (a, b))| *e += a.r - b.r);
    }
    excess.iter_mut().for_each(|e| *e /= found.len() as f64);
    excess
}

/// Families of universal units: one unit of each model that are each other's best match, each with an
/// excess correlation above `threshold`.
///
/// `pairs` as for [`rosetta_of`]; `excess[m]` is that of the units of model `m`
/// ([`excess_correlation`]).
///
/// # Panics
/// As [`rosetta_of`].
pub fn universal_families(
    pairs: &[UnitCorrelations],
    excess: &[Vec<f64>],
    threshold: f64,
) -> Vec<Rosetta> {
    let mut found = rosetta_of(excess.len(), pairs, 1);
    found.retain(|family| {
        let mut members = family.units.iter().zip(excess);
        members.all(|(unit, excess)| excess[*unit] > threshold)
    });
    found
}
