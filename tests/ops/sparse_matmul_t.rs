//! Sums by latent against plain f64 loops.

use burn::tensor::DType;
use inscape::ops::{ByLatent, DENSE_FROM, LatentSums, sparse_matmul_t};

use super::batch::*;
use super::*;

fn sums_on(case: &Batch, on: &Device, dtype: DType) -> LatentSums {
    let groups = ByLatent::of(&case.indices_on(on, DType::I32), case.d_sae);
    let values = case.values_on(on, dtype).flatten(0, 1);
    LatentSums::new(values, &groups, case.g_on(on, dtype))
}

fn run(case: &Batch, on: &Device, dtype: DType) -> Vec<f64> {
    let sums = sums_on(case, on, dtype);
    assert_eq!(sums.dims(), [case.d_sae, case.d], "{}", case.name);
    let r = sparse_matmul_t(&sums);
    let got = (r.dims(), r.dtype());
    assert_eq!(got, ([case.d_sae, case.d], dtype), "{}", case.name);
    floats(r)
}

fn close(case: &Batch, got: &[f64], eps: f64) -> Result<(), String> {
    let (values, g, d) = (case.values(), case.g(), case.d);
    let sums = case.sums(case.d_sae * d, |entry, f, c| {
        (f * d + c, values[entry], g[entry / case.k * d + c])
    });
    sums.close(case.name, got, eps, case.n * case.k)
}

fn suite(cases: &[Batch], on: &Device, dtype: DType, eps: f64) {
    for case in cases {
        close(case, &run(case, on, dtype), eps).unwrap();
    }
}

/// Batches without what makes the dense reference large.
fn small() -> Vec<Batch> {
    let mut cases = batches();
    cases.retain(|case| case.n * case.d_sae < 1_000_000);
    cases
}

#[test]
fn the_cpu_form_is_right() {
    suite(&batches(), &Device::cpu(), DType::F32, EPS);
}

/// Either side of the share of entries from which the CPU multiplies densely.
#[test]
fn the_dense_form_and_the_sparse_one_are_right() {
    let (dense, sparse) = (
        batch("dense", [40, 16, 64, 40]),
        batch("sparse", [40, 16, 65, 40]),
    );
    const { assert!(16.0 >= DENSE_FROM * 64.0 && 16.0 < DENSE_FROM * 65.0) };
    let cpu = Device::cpu();
    suite(&[dense, sparse], &cpu, DType::F32, EPS);
    for (d_sae, entries) in [(64, 64), (65, 40 * 16)] {
        let case = batch("condensed", [40, 16, d_sae, 40]);
        let sums = sums_on(&case, &cpu, DType::F32).condensed();
        assert_eq!(sums.values.dims(), [entries], "{d_sae}");
        close(&case, &floats(sparse_matmul_t(&sums)), EPS).unwrap();
    }
}

#[test]
fn f64_takes_the_reference() {
    suite(&small(), &Device::cpu(), DType::F64, f64::EPSILON);
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn the_shader_is_right() {
    suite(&batches(), &gpu(), DType::F32, EPS);
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn the_shader_gives_the_same_bits_every_time() {
    let (case, on) = (batch("odd", [129, 11, 257, 67]), gpu());
    assert_eq!(run(&case, &on, DType::F32), run(&case, &on, DType::F32));
}

#[test]
fn the_same_bits_on_any_number_of_threads() {
    let case = batch("larger", [300, 32, 2000, 130]);
    assert!(same_on_any_threads(|| run(
        &case,
        &Device::cpu(),
        DType::F32
    )));
}

/// NaN and infinity show in the rows of their latents and nowhere else.
fn specials_stay_in_their_rows(on: &Device) {
    let case = Batch {
        value: |i| if i == 20 { f32::NAN } else { uniform(i) },
        ..batch("one NaN", [9, 4, 60, 33])
    };
    let hit = case.indices()[20] as usize;
    let r = run(&case, on, DType::F32);
    for (f, row) in r.chunks(case.d).enumerate() {
        assert!(row.iter().all(|v| v.is_nan() == (f == hit)), "row {f}");
    }
}

#[test]
fn specials_stay_in_their_rows_on_the_cpu() {
    specials_stay_in_their_rows(&Device::cpu());
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn specials_stay_in_their_rows_on_the_gpu() {
    specials_stay_in_their_rows(&gpu());
}

fn a_matrix_is_the_sums_of_itself(on: &Device) {
    let g: Vec<f32> = (0..41 * 130).map(uniform).collect();
    let x = matrix(&g, [41, 130], View::Plain, on);
    let sums = LatentSums::of_matrix(x);
    assert_eq!(sums.dims(), [41, 130]);
    let same: Vec<f32> = block_on(read(sparse_matmul_t(&sums))).unwrap();
    assert_eq!(same, g);
}

#[test]
fn a_matrix_is_the_sums_of_itself_on_the_cpu() {
    a_matrix_is_the_sums_of_itself(&Device::cpu());
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn a_matrix_is_the_sums_of_itself_on_the_gpu() {
    a_matrix_is_the_sums_of_itself(&gpu());
}

/// One element or one index off must show.
#[test]
fn planted_faults_are_caught() {
    let (case, cpu) = (batch("odd", [129, 11, 257, 67]), Device::cpu());
    let mut off = run(&case, &cpu, DType::F32);
    let place = off.iter().rposition(|&r| r != 0.0).unwrap();
    off[place] *= 1.0 + 1e-3;
    assert!(close(&case, &off, EPS).is_err());
    let moved = Batch {
        index: |i, d_sae| (hash(i ^ 0x5555) as usize + usize::from(i == 700)) % d_sae,
        ..case
    };
    let moved = run(&moved, &cpu, DType::F32);
    assert!(close(&case, &moved, EPS).is_err());
}

#[test]
fn another_number_of_values_panics_with_both() {
    let on = Device::cpu();
    let groups = ByLatent::of(&Tensor::zeros([2, 3], on.tensor()), 5);
    let (values, g) = (
        Tensor::ones([7], on.tensor()),
        Tensor::ones([2, 4], on.tensor()),
    );
    let text = panic_of(|| LatentSums::new(values, &groups, g));
    assert!(text.contains("LatentSums: 7 values, 6 entries"), "{text}");
}
