//! Measures of reconstruction against plain loops and cases worked by hand.

use inscape::sae::eval::{Accumulator, Reconstruction, encoder_decoder_cosine};
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

/// What there is to know of a reconstruction, in f64: a plain loop over the latents' matrix and over
/// rows `y` and what is `made` of them.
fn plain(f: &[f32], y: &[f32], made: &[f32], d: usize, d_sae: usize) -> [f64; 6] {
    let n = (y.len() / d) as f64;
    let wide = |x: &[f32]| -> Vec<f64> { x.iter().map(|x| f64::from(*x)).collect() };
    let (y, made) = (wide(y), wide(made));
    let spread = |x: &[f64]| -> f64 {
        (0..d)
            .map(|j| {
                let column = || x.iter().skip(j).step_by(d);
                let mean = column().sum::<f64>() / n;
                column().map(|x| (x - mean).powi(2)).sum::<f64>()
            })
            .sum()
    };
    let error: Vec<f64> = y.iter().zip(&made).map(|(y, m)| y - m).collect();
    let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    let rows = || y.chunks(d).zip(made.chunks(d));
    assert_eq!(f.len() / d_sae, n as usize);
    [
        f.iter().map(|f| f64::from(*f)).sum::<f64>() / n,
        dot(&error, &error) / spread(&y),
        1.0 - spread(&error) / spread(&y),
        dot(&made, &made) / dot(&y, &made),
        rows()
            .map(|(y, m)| (dot(m, m) / dot(y, y)).sqrt())
            .sum::<f64>()
            / n,
        rows()
            .map(|(y, m)| dot(y, m) / (dot(m, m) * dot(y, y)).sqrt())
            .sum::<f64>()
            / n,
    ]
}

fn compare(found: &Reconstruction, want: [f64; 6], tolerance: f64) {
    let got = [
        found.l1,
        found.fvu,
        found.explained_variance,
        found.shrinkage,
        found.norm_ratio,
        found.cosine,
    ];
    for (got, want) in got.into_iter().zip(want) {
        close(got, want, tolerance);
    }
}

/// A transcoder of every kind of activation, from 20 to 12 with a skip, and its biases.
fn transcoder(activation: Activation) -> Sae {
    let cpu = Device::cpu();
    let mut draws = Draws::new(7);
    let random = |draws: &mut Draws, n: usize, d: usize| t2(&f32s(&draws.normals(n * d)), d, &cpu);
    Sae {
        w_enc: random(&mut draws, 80, 20) * 0.3,
        b_enc: t1(&f32s(&draws.normals(80)), &cpu),
        w_dec: random(&mut draws, 80, 12) * 0.2,
        b_dec: t1(&f32s(&draws.normals(12)), &cpu),
        w_skip: Some(random(&mut draws, 12, 20) * 0.1),
        transcoder: false,
        activation,
        subtract_b_dec: false,
        sites: 1,
    }
}

#[test]
fn a_transcoder_is_measured_against_what_it_is_to_write() {
    let cpu = Device::cpu();
    let (x, y) = (
        f32s(&Draws::new(8).normals(300 * 20)),
        f32s(&Draws::new(9).normals(300 * 12)),
    );
    for (activation, offset) in [
        (Activation::TopK { k: 6 }, 0.0),
        (Activation::TopK { k: 6 }, 1e4),
        (Activation::Relu, 0.0),
        (Activation::Relu, 1e4),
    ] {
        let mut sae = transcoder(activation);
        sae.b_dec = sae.b_dec + offset;
        let y: Vec<f32> = y.iter().map(|y| y + offset as f32).collect();
        let mut all = Accumulator::new(80);
        for (x, y) in x.chunks(37 * 20).zip(y.chunks(37 * 12)) {
            block_on(all.add_pair(&sae, t2(x, 20, &cpu), t2(y, 12, &cpu))).unwrap();
        }
        let found = all.finish();
        let x = t2(&x, 20, &cpu);
        let f = read32(sae.encode_dense(x.clone()));
        let made = read32(sae.reconstruct(x));
        let tolerance = if offset == 0.0 { 3e-5 } else { 3e-4 };
        compare(&found, plain(&f, &y, &made, 12, 80), tolerance);
        let errors = y.iter().zip(&made).map(|(y, m)| f64::from(y - m).powi(2));
        close(found.mse, errors.sum::<f64>() / y.len() as f64, tolerance);
        let active = f.iter().filter(|f| **f > 0.0).count();
        close(found.l0, active as f64 / 300.0, 1e-12);
        assert!(found.encoder_decoder_cosine.is_nan());
        assert_eq!(block_on(encoder_decoder_cosine(&sae)).unwrap(), None);
    }
}

#[test]
#[should_panic(expected = "targets [3, 20] for 3 rows of an autoencoder that writes 12")]
fn a_transcoder_does_not_write_what_it_reads() {
    let sae = transcoder(Activation::Relu);
    let x = t2(&[0.0; 60], 20, &Device::cpu());
    drop(block_on(Accumulator::new(80).add(&sae, x)));
}

#[test]
fn all_measures_hold_far_from_the_origin() {
    let (sae, x) = case();
    let cpu = Device::cpu();
    for offset in [0.0, 1e4] {
        let mut sae = sae.clone();
        sae.b_dec = sae.b_dec + offset;
        let x: Vec<f32> = x.iter().map(|x| x + offset as f32).collect();
        let found = measure(&sae, &x);
        let f = read32(sae.encode_dense(t2(&x, 20, &cpu)));
        let made = read32(sae.reconstruct(t2(&x, 20, &cpu)));
        let tolerance = if offset == 0.0 { 3e-5 } else { 3e-4 };
        compare(&found, plain(&f, &x, &made, 20, 80), tolerance);
        assert!(found.explained_variance >= 1.0 - found.fvu - 1e-6);
    }
}

/// It worsens the FVU: the two measures differ in just this.
#[test]
fn a_constant_offset_does_not_touch_the_explained_variance() {
    let (d, x) = (20, case().1);
    let sae = identity(d, &Device::cpu());
    let mut moved = sae.clone();
    let kept = (moved.w_enc.clone() * 3.0).sum_dim(1).squeeze_dim::<1>(1);
    moved.b_enc = moved.b_enc + kept;
    moved.b_dec = moved.b_dec + 3.0;
    let (before, after) = (measure(&sae, &x), measure(&moved, &x));
    close(before.explained_variance, 1.0, 1e-6);
    close(after.explained_variance, 1.0, 1e-6);
    assert!(after.fvu > 5.0, "{}", after.fvu);
}

#[test]
fn halved_reconstructions_are_halved() {
    let x = f32s(&Draws::new(5).normals(200 * 9));
    let mut sae = identity(9, &Device::cpu());
    sae.w_dec = sae.w_dec * 0.5;
    let found = measure(&sae, &x);
    close(found.shrinkage, 0.5, 1e-6);
    close(found.norm_ratio, 0.5, 1e-6);
    close(found.cosine, 1.0, 1e-6);
    close(found.explained_variance, 0.75, 1e-5);
    close(found.fvu, 0.25, 1e-2); // about x̄, which is not 0
    close(found.encoder_decoder_cosine, 1.0, 1e-6);
    // A row of zeros has no ratio, and is left out of its mean.
    let with_zeros = [x, vec![0.0; 9 * 40]].concat();
    close(measure(&sae, &with_zeros).norm_ratio, 0.5, 1e-6);
}

#[test]
fn encoder_and_decoder_are_compared_latent_by_latent() {
    let (mut sae, x) = case();
    let zeroed: Vec<f32> = (0..80).map(|i| if i == 3 { 0.0 } else { 2.0 }).collect();
    let factor = t1(&zeroed, &Device::cpu()).unsqueeze_dim::<2>(1);
    sae.w_enc = sae.w_enc * factor;
    let (enc, dec) = (read64(sae.w_enc.clone()), read64(sae.w_dec.clone()));
    let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    let cosine = |i: usize| {
        let (e, d) = (&enc[i * 20..][..20], &dec[i * 20..][..20]);
        dot(e, d) / (dot(e, e) * dot(d, d)).sqrt().max(1e-12)
    };
    let found = block_on(encoder_decoder_cosine(&sae)).unwrap().unwrap();
    for (i, found) in found.iter().enumerate() {
        assert!((found - cosine(i)).abs() < 1e-6, "{i}: {found}");
    }
    assert_eq!(found[3], 0.0);
    let mean = (0..80).map(cosine).sum::<f64>() / 80.0;
    assert!((measure(&sae, &x).encoder_decoder_cosine - mean).abs() < 1e-6);
}

#[test]
fn densities_are_shares_of_rows() {
    let (sae, x) = case();
    let found = measure(&sae, &x);
    let density = found.density();
    close(density.iter().sum(), found.l0, 1e-12);
    close(density[5], found.fired[5] as f64 / 500.0, 1e-12);
}

#[test]
fn what_an_older_file_lacks_is_not_a_number() {
    let older = r#"{"rows": 4, "l0": 1.0, "fvu": 0.25, "cosine": 0.9, "mse": 0.1,
        "dead_share": 0.5, "fired": [4, 0]}"#;
    let read: Reconstruction = serde_json::from_str(older).unwrap();
    assert_eq!((read.rows, read.fvu, read.dead_share), (4, 0.25, 0.5));
    let lacking = [
        read.l1,
        read.explained_variance,
        read.shrinkage,
        read.norm_ratio,
        read.encoder_decoder_cosine,
    ];
    assert!(lacking.iter().all(|x| x.is_nan()), "{read:?}");
    // What has no variance is written as null and reads back.
    let flat = measure(&random_sae(1, 5, 10, 2, &Device::cpu()), &[0.0; 50]);
    let again: Reconstruction =
        serde_json::from_str(&serde_json::to_string(&flat).unwrap()).unwrap();
    assert!(
        !flat.fvu.is_finite() && flat.norm_ratio.is_nan(),
        "{flat:?}"
    );
    for (a, b) in [
        (flat.fvu, again.fvu),
        (flat.explained_variance, again.explained_variance),
        (flat.norm_ratio, again.norm_ratio),
        (flat.l1, again.l1),
        (flat.mse, again.mse),
    ] {
        assert_eq!(a.is_finite(), !b.is_nan());
        assert!(b.is_nan() || (a - b).abs() <= 1e-15 * a, "{a} {b}");
    }
}
