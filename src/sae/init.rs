use burn::tensor::{Device, Tensor, TensorData};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Sae;
use super::arch::unit_rows;

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

/// `√d / root mean square distance` of the rows to `centre`: times this, a row's expected
/// squared norm is d.
pub(super) fn input_scale(rows: &[f32], centre: &[f32]) -> f64 {
    let d = centre.len();
    let squared = |row: &[f32]| -> f64 {
        row.iter()
            .zip(centre)
            .map(|(x, c)| f64::from(x - c).powi(2))
            .sum()
    };
    let mean = rows.chunks_exact(d).map(squared).sum::<f64>() / (rows.len() / d) as f64;
    if mean > 0.0 {
        (d as f64 / mean).sqrt()
    } else {
        1.0
    }
}

/// Random unit decoder rows, the encoder their copy, no encoder bias, the given `b_dec`.
/// The draws depend on the seed alone.
pub(super) fn tied(d_sae: usize, k: usize, b_dec: Vec<f32>, seed: u64, device: &Device) -> Sae {
    let d_in = b_dec.len();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut normal = || {
        let (u, v): (f64, f64) = (rng.random(), rng.random());
        ((-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
    };
    let values: Vec<f32> = (0..d_sae * d_in).map(|_| normal()).collect();
    let w_dec = unit_rows(Tensor::from_data(
        TensorData::new(values, [d_sae, d_in]),
        device,
    ));
    let b_dec = Tensor::from_data(TensorData::new(b_dec, [d_in]), device);
    let b_enc = Tensor::zeros([d_sae], device);
    Sae::topk([w_dec.clone(), w_dec], [b_enc, b_dec], k)
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
