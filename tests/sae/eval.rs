//! Measures of reconstruction against plain loops and cases worked by hand.

use inscape::sae::eval::{Accumulator, Reconstruction};
use inscape::sae::{Activation, session};

use super::*;

/// Measured in batches of uneven sizes.
fn measure(sae: &Sae, x: &[f32]) -> Reconstruction {
    let d = sae.d_in();
    let mut all = Accumulator::new(sae.d_sae());
    for part in x.chunks(37 * d) {
        block_on(all.add(sae, t2(part, d, &Device::cpu()))).unwrap();
    }
    all.finish()
}

/// FVU, cosine and mean squared error of rows `x` and their reconstructions, in f64.
fn oracle(x: &[f32], y: &[f32], d: usize) -> [f64; 3] {
    let n = (x.len() / d) as f64;
    let column = |j: usize| x.iter().skip(j).step_by(d).map(|&x| f64::from(x));
    let variance: f64 = (0..d)
        .map(|j| {
            let mean = column(j).sum::<f64>() / n;
            column(j).map(|x| (x - mean).powi(2)).sum::<f64>()
        })
        .sum();
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(&a, &b)| f64::from(a) * f64::from(b))
            .sum()
    };
    let error: f64 = x
        .iter()
        .zip(y)
        .map(|(&x, &y)| (f64::from(x) - f64::from(y)).powi(2))
        .sum();
    let cosine: f64 = x
        .chunks(d)
        .zip(y.chunks(d))
        .map(|(x, y)| dot(x, y) / (dot(x, x) * dot(y, y)).sqrt())
        .sum();
    [error / variance, cosine / n, error / n / d as f64]
}

fn close(got: f64, want: f64, tolerance: f64) {
    assert!(
        (got - want).abs() <= tolerance * want.abs(),
        "{got}, not {want}"
    );
}

fn case() -> (Sae, Vec<f32>) {
    let sae = random_sae(1, 20, 80, 6, &Device::cpu());
    (sae, f32s(&Draws::new(2).normals(500 * 20)))
}

#[test]
fn the_measures_are_those_of_a_plain_loop() {
    let (sae, x) = case();
    let cpu = Device::cpu();
    let found = measure(&sae, &x);
    let y = read32(sae.reconstruct(t2(&x, 20, &cpu)));
    let [fvu, cosine, mse] = oracle(&x, &y, 20);
    let tolerance = 4.0 * f64::from(f32::EPSILON) * 20.0;
    close(found.fvu, fvu, tolerance);
    close(found.cosine, cosine, tolerance);
    close(found.mse, mse, tolerance);
    let latents = sae.encode(t2(&x, 20, &cpu));
    let values = read32(latents.values);
    let indices = block_on(inscape::device::read_int(latents.indices)).unwrap();
    let mut fired = vec![0u64; 80];
    values
        .iter()
        .zip(indices)
        .filter(|(v, _)| **v > 0.0)
        .for_each(|(_, i)| fired[i as usize] += 1);
    assert_eq!(found.fired, fired);
    assert_eq!(found.rows, 500);
    close(found.l0, fired.iter().sum::<u64>() as f64 / 500.0, 1e-12);
}

#[test]
fn a_session_measures_a_source_the_same() {
    let (sae, x) = case();
    let source = Source::memory("x", x.clone(), 20);
    let mut seen = Vec::new();
    let found = session::evaluate(&sae, &source, &Device::cpu(), |n| seen.push(n)).unwrap();
    close(found.fvu, measure(&sae, &x).fvu, 1e-5);
    assert_eq!(seen, [500]);
}

/// From a perfect reconstruction: every row is then off by the offset alone.
#[test]
fn a_constant_offset_worsens_the_fvu() {
    let (d, n) = (20, 500);
    let (_, x) = case();
    let sae = identity(d, &Device::cpu());
    for offset in [0.01, 0.5, 2.0] {
        let mut moved = sae.clone();
        // b_enc makes up for what b_dec changes before the encoder: the latents stay.
        let kept = (moved.w_enc.clone() * offset)
            .sum_dim(1)
            .squeeze_dim::<1>(1);
        moved.b_enc = moved.b_enc + kept;
        moved.b_dec = moved.b_dec + offset;
        let found = measure(&moved, &x);
        let [one, _, _] = oracle(&x, &vec![0.0; n * d], d);
        let squares: f64 = x.iter().map(|&x| f64::from(x).powi(2)).sum();
        let variance = squares / one;
        close(found.fvu, (n * d) as f64 * offset * offset / variance, 1e-4);
    }
}

#[test]
fn a_common_offset_that_b_dec_takes_off_changes_nothing() {
    let (mut sae, x) = case();
    let before = measure(&sae, &x);
    let far: Vec<f32> = x.iter().map(|x| x + 100.0).collect();
    sae.b_dec = sae.b_dec + 100.0;
    let after = measure(&sae, &far);
    assert!(
        (before.fvu - after.fvu).abs() < 1e-4,
        "{} and {}",
        before.fvu,
        after.fvu
    );
    let [fvu, _, _] = oracle(
        &far,
        &read32(sae.reconstruct(t2(&far, 20, &Device::cpu()))),
        20,
    );
    close(after.fvu, fvu, 1e-5);
}

#[test]
fn a_perfect_autoencoder_loses_nothing() {
    let x = f32s(&Draws::new(3).normals(200 * 9));
    let found = measure(&identity(9, &Device::cpu()), &x);
    assert_eq!((found.fvu, found.mse, found.l0), (0.0, 0.0, 9.0));
    close(found.cosine, 1.0, 1e-6);
}

#[test]
fn the_mean_alone_explains_nothing() {
    let x = f32s(&Draws::new(4).normals(400 * 6));
    let mean: Vec<f32> = (0..6)
        .map(|j| x.iter().skip(j).step_by(6).sum::<f32>() / 400.0)
        .collect();
    let mut sae = identity(6, &Device::cpu());
    sae.b_enc = sae.b_enc - 1e6;
    sae.b_dec = t1(&mean, &Device::cpu());
    let found = measure(&sae, &x);
    close(found.fvu, 1.0, 1e-5);
    assert_eq!((found.l0, found.dead_share), (0.0, 1.0));
    assert_eq!(found.density_histogram(4), []);
}

/// Four rows on three axes, with latents ±x, ±y, ±z.
#[test]
fn a_tiny_case_by_hand() {
    let x = [3.0, 0.0, 0.0, 4.0, 3.0, 0.0, 0.0, -1.0, 0.0, 2.0, 0.0, 0.0];
    let mut sae = identity(3, &Device::cpu());
    sae.activation = Activation::TopK { k: 1 };
    let found = measure(&sae, &x);
    assert_eq!(found.fired, [3, 0, 0, 0, 1, 0]);
    assert_eq!(found.l0, 1.0);
    close(found.dead_share, 4.0 / 6.0, 1e-12);
    // Only the second row loses something: 3² of it; its cosine is 4/5.
    close(found.mse, 9.0 / 12.0, 1e-6);
    close(found.cosine, (3.0 + 0.8) / 4.0, 1e-6);
    // Means 9/4 and 1/2: Σx² = 29 − 4·(81/16) and Σy² = 10 − 4·(1/4).
    close(found.fvu, 9.0 / (29.0 - 81.0 / 4.0 + 10.0 - 1.0), 1e-6);
    // Densities 3/4 and 1/4: log10 −0.12 and −0.60.
    assert_eq!(found.density_histogram(2), [(-1.0, 1), (-0.5, 1)]);
    assert_eq!(found.density_histogram(1), [(-1.0, 2)]);
    assert_eq!(
        found.density_histogram(4),
        [(-0.75, 1), (-0.5, 0), (-0.25, 1)]
    );
}

#[test]
fn without_variance_there_is_no_fvu() {
    let sae = random_sae(1, 5, 10, 2, &Device::cpu());
    for value in [0.0, 0.1, 1e4] {
        let found = measure(&sae, &[value; 5 * 100]);
        assert!(
            found.fvu.is_nan() || found.fvu > 1e6,
            "{value}: {}",
            found.fvu
        );
        let text = serde_json::to_string(&found).unwrap();
        assert!(!text.contains("\"fvu\":-"), "{text}");
    }
    let none = Accumulator::new(10).finish();
    assert!(none.fvu.is_nan() && none.l0.is_nan() && none.rows == 0);
}
