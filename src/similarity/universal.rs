//! Correlations of units over any number of rows, and which units other models have too.

use burn::tensor::{DType, FloatDType, Tensor};
use faer::MatRef;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::Error;
use super::correlations::{UnitCorrelations, same_rows};
use super::rosetta::{Rosetta, rosetta_of};
use super::uncertainty::rotation;
use crate::device::{self, Device, block_on};
use crate::ops::{CrossMoments, CrossSums};

/// Gathers the correlation of every unit of one model with every unit of another, batch by batch.
///
/// Rows (tokens) come in batches `[b, dx]` and `[b, dy]` and are not kept. Sums stay on the device, as
/// [`CrossSums`] has them: about the mean of the first batch, so that a large common offset costs no
/// accuracy, and in pairs of f32 (f64 if the first batch is f64), so that the number of batches costs
/// none either. Memory: `8 dx dy` bytes on the device.
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
    sums: CrossSums,
    /// The right side with itself, if it is to be rotated.
    own: Option<CrossSums>,
}

impl Correlations {
    /// For models of `dx` and `dy` units, whose products are taken on `device`.
    pub fn new(dx: usize, dy: usize, device: &Device) -> Self {
        Self {
            widths: [dx, dy],
            device: device.clone(),
            sums: CrossSums::new(dx, dy),
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
            self.rows() == 0,
            "Correlations::with_rotations: rows were pushed before"
        );
        self.own = Some(CrossSums::new(self.widths[1], self.widths[1]));
        self
    }

    /// Rows pushed so far.
    pub fn rows(&self) -> usize {
        self.sums.rows()
    }

    /// Adds the units `x` `[b, dx]` and `y` `[b, dy]` of the same rows.
    ///
    /// # Errors
    /// Different row counts; a NaN or infinity, named by its row in the batch, none of which is added
    /// then; the device failing.
    ///
    /// # Panics
    /// If a width is not that of [`Correlations::new`].
    ///
    /// # Cost
    /// `b dx dy` multiply-adds on the device. Two numbers are read back.
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
        let [dx, dy] = self.widths;
        assert!(
            [x.dims()[1], y.dims()[1]] == self.widths,
            "Correlations::push: units {:?} and {:?} are no [b, {dx}] and [b, {dy}]",
            x.dims(),
            y.dims()
        );
        let x = self.checked(x).await.map_err(|e| e.at("left"))?;
        let y = self.checked(y).await.map_err(|e| e.at("right"))?;
        self.sums.push(&x, &y);
        if let Some(own) = &mut self.own {
            own.push(&y, &y);
        }
        Ok(())
    }

    /// A batch on the device of the sums, as floats of at least 32 bits, all finite.
    async fn checked(&self, x: &Tensor<2>) -> Result<Tensor<2>, Error> {
        let x = x.clone().to_device(self.device.tensor());
        let x = match x.dtype() {
            DType::F64 | DType::F32 => x,
            _ => x.cast(FloatDType::F32),
        };
        // 0 unless a value is not finite.
        let none: Vec<f32> = device::read((x.clone() * 0.0).sum()).await?;
        match none.iter().all(|v| *v == 0.0) {
            true => Ok(x),
            false => Err(not_finite(&x).await?),
        }
    }

    /// The correlations over all rows pushed. A unit that never changed has 0 with all others.
    ///
    /// # Errors
    /// A side whose units never changed, or whose squares are too large for the precision of the sums
    /// ([`Error::Undefined`]); the device failing.
    pub fn read(&self) -> Result<UnitCorrelations, Error> {
        block_on(self.read_async())
    }

    /// [`Correlations::read`] without blocking.
    ///
    /// # Errors
    /// As [`Correlations::read`].
    pub async fn read_async(&self) -> Result<UnitCorrelations, Error> {
        let moments = self.sums.read_async().await?;
        let [left, right] = lengths(&moments)?;
        Ok(self.correlations(&moments.products, [&left, &right]))
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
        block_on(self.rotated_async(seed))
    }

    /// [`Correlations::rotated`] without blocking.
    ///
    /// # Errors
    /// As [`Correlations::rotated`].
    ///
    /// # Panics
    /// As [`Correlations::rotated`].
    pub async fn rotated_async(&self, seed: u64) -> Result<UnitCorrelations, Error> {
        let own = self.own.as_ref();
        let own = own.expect("Correlations::rotated: made without with_rotations");
        let (moments, own) = (self.sums.read_async().await?, own.read_async().await?);
        let [left, _] = lengths(&moments)?;
        let [dx, dy] = self.widths;
        let rotation = rotation(dy, &mut ChaCha8Rng::seed_from_u64(seed));
        let across = MatRef::from_row_major_slice(&moments.products, dx, dy) * &rotation;
        let within = MatRef::from_row_major_slice(&own.products, dy, dy) * &rotation;
        let length = |j: usize| {
            let pairs = rotation.col(j).iter().zip(within.col(j).iter());
            pairs.map(|(r, w)| r * w).sum::<f64>().max(0.0).sqrt()
        };
        let right: Vec<f64> = (0..dy).map(length).collect();
        let products: Vec<f64> = (0..dx * dy).map(|at| across[(at / dy, at % dy)]).collect();
        Ok(self.correlations(&products, [&left, &right]))
    }

    /// From products about the means and the lengths of the units about theirs.
    fn correlations(&self, products: &[f64], [left, right]: [&[f64]; 2]) -> UnitCorrelations {
        let [rows, columns] = self.widths;
        let r = |(at, product): (usize, &f64)| match left[at / columns] * right[at % columns] {
            0.0 => 0.0,
            length => (product / length).clamp(-1.0, 1.0),
        };
        UnitCorrelations {
            rows,
            columns,
            values: products.iter().enumerate().map(r).collect(),
        }
    }
}

/// Length of each unit of either side about its mean.
fn lengths(moments: &CrossMoments) -> Result<[Vec<f64>; 2], Error> {
    for (squares, place) in moments.squares.iter().zip(["left", "right"]) {
        let why = if !squares.iter().all(|q| q.is_finite()) {
            "its squares are too large"
        } else if squares.iter().all(|q| *q == 0.0) {
            "all its rows are equal"
        } else {
            continue;
        };
        return Err(Error::Undefined { why }.at(place));
    }
    let [left, right] = &moments.squares;
    let roots = |squares: &[f64]| squares.iter().map(|q| q.sqrt()).collect();
    Ok([roots(left), roots(right)])
}

/// The first value of a batch that is not finite.
async fn not_finite(x: &Tensor<2>) -> Result<Error, device::Error> {
    let d = x.dims()[1];
    let values: Vec<f64> = device::read(x.clone()).await?;
    let at = values.iter().position(|v| !v.is_finite()).unwrap_or(0);
    Ok(Error::NotFinite {
        row: at / d,
        column: at % d,
        value: values[at],
    })
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
