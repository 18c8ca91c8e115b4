use burn::tensor::{Device, Tensor, TensorData};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::arch::unit_rows;
use super::config::{Architecture, BiasStart, InputScale, Matryoshka};
use super::{Activation, Sae, TrainConfig};

/// The point with the least summed distance to the rows `[n * d]` (row-major): Weiszfeld's
/// iteration in f64 (Weiszfeld 1937, with Vardi & Zhang's 2000 guard at data points left to
/// a floor on the distance), from the mean, until it moves less than 1e-6 of the spread.
///
/// Cost: at most 100 passes over the rows.
pub fn geometric_median(rows: &[f32], d: usize) -> Vec<f32> {
    let n = rows.len() / d;
    let mut centre = vec![0f64; d];
    for row in rows.chunks_exact(d) {
        centre
            .iter_mut()
            .zip(row)
            .for_each(|(c, &x)| *c += f64::from(x) / n as f64);
    }
    for _ in 0..100 {
        let (next, mean_distance) = weiszfeld(rows, d, &centre);
        let moved = distance(&next, &centre);
        centre = next;
        if moved <= 1e-6 * mean_distance {
            break;
        }
    }
    centre.into_iter().map(|c| c as f32).collect()
}

fn weiszfeld(rows: &[f32], d: usize, centre: &[f64]) -> (Vec<f64>, f64) {
    let mut next = vec![0f64; d];
    let (mut weights, mut distances) = (0.0, 0.0);
    for row in rows.chunks_exact(d) {
        let squared: f64 = row
            .iter()
            .zip(centre)
            .map(|(&x, c)| (f64::from(x) - c).powi(2))
            .sum();
        let length = squared.sqrt().max(1e-12);
        next.iter_mut()
            .zip(row)
            .for_each(|(s, &x)| *s += f64::from(x) / length);
        weights += 1.0 / length;
        distances += length;
    }
    next.iter_mut().for_each(|s| *s /= weights);
    (next, distances / (rows.len() / d) as f64)
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).powi(2))
        .sum::<f64>()
        .sqrt()
}

/// The mean of the rows `[n * d]`.
fn mean(rows: &[f32], d: usize) -> Vec<f32> {
    let n = (rows.len() / d) as f64;
    let mut sums = vec![0f64; d];
    for row in rows.chunks_exact(d) {
        sums.iter_mut()
            .zip(row)
            .for_each(|(s, &x)| *s += f64::from(x));
    }
    sums.into_iter().map(|s| (s / n) as f32).collect()
}

/// Where `b_dec` starts, for rows as they are.
pub(super) fn bias(rows: &[f32], d: usize, start: BiasStart) -> Vec<f32> {
    match start {
        BiasStart::Zero => vec![0.0; d],
        BiasStart::Mean => mean(rows, d),
        BiasStart::GeometricMedian => geometric_median(rows, d),
    }
}

/// What the rows are multiplied by, `centre` being where `b_dec` starts.
pub(super) fn input_scale(rows: &[f32], centre: &[f32], scale: InputScale) -> f64 {
    let d = centre.len();
    let squared = |row: &[f32], centre: Option<&[f32]>| -> f64 {
        let off = |(i, x): (usize, &f32)| f64::from(x - centre.map_or(0.0, |c| c[i])).powi(2);
        row.iter().enumerate().map(off).sum()
    };
    let mean = |of: &dyn Fn(&[f32]) -> f64| {
        rows.chunks_exact(d).map(of).sum::<f64>() / (rows.len() / d) as f64
    };
    let factor = match scale {
        InputScale::None => 1.0,
        InputScale::Deviation => (d as f64 / mean(&|row| squared(row, Some(centre)))).sqrt(),
        InputScale::MeanNorm => (d as f64).sqrt() / mean(&|row| squared(row, None).sqrt()),
        InputScale::MeanSquare => mean(&|row| squared(row, None)).sqrt().recip(),
    };
    if factor.is_finite() { factor } else { 1.0 }
}

/// The start: random decoder rows of the wanted length, the encoder their copy (of a transcoder:
/// random rows of its own), no encoder bias, the given `b_dec`, no
/// skip. The draws depend on the seed alone.
pub(super) fn start(
    config: &TrainConfig,
    (d_in, transcodes): (usize, bool),
    b_dec: Vec<f32>,
    device: &Device,
) -> Sae {
    let (d_sae, d_out) = (config.d_sae, b_dec.len());
    let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
    let mut normal = || {
        let (u, v): (f64, f64) = (rng.random(), rng.random());
        ((-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
    };
    let mut rows = |d: usize| {
        let values: Vec<f32> = (0..d_sae * d).map(|_| normal()).collect();
        unit_rows(Tensor::from_data(
            TensorData::new(values, [d_sae, d]),
            device,
        ))
    };
    let conventions = &config.conventions;
    let scaled = |w: Tensor<2>| match conventions.decoder_norm == 1.0 {
        true => w,
        false => w * conventions.decoder_norm,
    };
    let w_dec = scaled(rows(d_out));
    let w_enc = match transcodes {
        true => scaled(rows(d_in)),
        false => w_dec.clone(),
    };
    let vector = |value: f64| Tensor::<1>::zeros([d_sae], device) + value;
    let activation = match &config.architecture {
        Architecture::Standard(_) => Activation::Relu,
        Architecture::TopK { k } => Activation::TopK { k: *k },
        Architecture::BatchTopK { k } | Architecture::Matryoshka(Matryoshka { k, .. }) => {
            Activation::BatchTopK {
                k: *k,
                threshold: Tensor::zeros([1], device),
            }
        }
        Architecture::JumpRelu(j) => Activation::JumpRelu {
            threshold: vector(j.threshold),
        },
        Architecture::Gated(_) => Activation::Gated {
            r_mag: vector(0.0),
            b_mag: vector(0.0),
        },
    };
    Sae {
        w_enc,
        b_enc: vector(0.0),
        w_dec,
        b_dec: Tensor::from_data(TensorData::new(b_dec, [d_out]), device),
        w_skip: config.skip.then(|| Tensor::zeros([d_out, d_in], device)),
        transcoder: transcodes,
        activation,
        subtract_b_dec: conventions.subtract_b_dec,
        sites: config.sites,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_ignores_an_outlier() {
        let rows = [0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1e6, 1e6];
        let median = geometric_median(&rows, 2);
        assert!(median.iter().all(|m| (0.0..=1.1).contains(m)), "{median:?}");
    }

    #[test]
    fn the_median_is_stationary() {
        let rows: Vec<f32> = (0..60).map(|i| ((i * 37 % 101) as f32).sin()).collect();
        let m: Vec<f64> = geometric_median(&rows, 3)
            .into_iter()
            .map(f64::from)
            .collect();
        let mut pull = [0f64; 3];
        for row in rows.chunks_exact(3) {
            let diff: Vec<f64> = row.iter().zip(&m).map(|(&x, m)| f64::from(x) - m).collect();
            let norm = diff.iter().map(|d| d * d).sum::<f64>().sqrt();
            pull.iter_mut().zip(&diff).for_each(|(p, d)| *p += d / norm);
        }
        assert!(pull.iter().all(|p| p.abs() < 1e-3), "{pull:?}");
    }
}
