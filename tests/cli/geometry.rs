//! `inscape geometry`.

use burn::tensor::Tensor;
use inscape::Device;
use inscape::capture::store::Source;
use inscape::geometry::{Matrix, covariance_spectrum, graph_clusters, power_law};
use inscape::sae::format;
use serde_json::Value;

use super::*;

fn trained() -> Bench {
    let bench = Bench::with_store();
    bench.ok(&format!(
        "sae train acts:{HOOK} --k 8 --width 128 --tokens 8192 --batch 64 --out sae"
    ));
    bench
}

#[track_caller]
fn near(found: &Value, want: f64) {
    let found = found.as_f64().unwrap_or_else(|| panic!("{found}"));
    assert!(
        (found - want).abs() <= 1e-6 * (1.0 + want.abs()),
        "{found}, not {want}"
    );
}

/// Against the library, on weights and rows that the test reads itself.
#[test]
fn decoder_rows_and_activations_are_described() {
    let bench = trained();
    let line = "geometry sae acts --block 32 --lobes 3 --cutoff 0.3 --fit 2..40";
    let found = bench.json(line);
    assert_eq!(
        (&found["latents"], &found["width"]),
        (&128.into(), &128.into())
    );
    assert_eq!(found["rows"], 1500);
    let cpu = Device::cpu();
    let (sae, _) = format::load(&bench.path("sae"), cpu.tensor()).unwrap();
    let w_dec = Matrix::read(sae.w_dec.clone()).unwrap();
    let spec = format!("{}:{HOOK}", bench.path("acts").display());
    let mut x = Vec::new();
    let source = Source::open(&spec).unwrap();
    source.read_rows(0..1500, &mut x).unwrap();
    let x = Matrix::new(x.into_iter().map(f64::from).collect(), 128).unwrap();
    for (key, points) in [("decoder", &w_dec), ("activations", &x)] {
        let spectrum = covariance_spectrum(points).unwrap();
        let law = power_law(&spectrum, 2..40).unwrap();
        near(&found[key]["slope"], law.slope);
        near(&found[key]["r2"], law.r2);
        assert_eq!(found[key]["fitted"], serde_json::json!([3, 40]));
        assert!(law.slope < -0.1, "{law:?}");
    }
    let clusters = graph_clusters(&w_dec, 1, 0.3).unwrap();
    let of = &found["clusters"];
    assert_eq!(of["clusters"], clusters.len());
    assert_eq!(of["latents"], clusters.iter().map(Vec::len).sum::<usize>());
    let largest = of["largest"].as_array().unwrap();
    assert_eq!(largest.len(), clusters.len().min(10));
    let dense = dense(&sae, &x);
    for (found, latents) in largest.iter().zip(&clusters) {
        assert_eq!(found["latents"], serde_json::json!(latents));
        let fires = |row: &&[f64]| latents.iter().any(|j| row[*j] > 0.0);
        assert_eq!(found["fires"], dense.each_row().filter(fires).count());
        let planes = found["planes"].as_array();
        for plane in planes.into_iter().flatten() {
            let of = |key: &str| plane[key].as_f64().unwrap();
            assert!(of("separability") >= 0.0 && of("mixture") > 0.0, "{plane}");
            assert!(of("r2") > 0.0 && of("r2") <= 1.0 + 1e-9, "{plane}");
        }
    }
    let together = &found["cooccurrence"];
    assert_eq!(
        (&together["blocks"], &together["clusters"]),
        (&46.into(), &3.into())
    );
    let features = together["features"].as_u64().unwrap();
    assert!(features > 3 && features <= 128, "{together}");
    near(
        &together["sigmas"],
        (together["ami"].as_f64().unwrap() - together["shuffled"].as_f64().unwrap())
            / together["deviation"].as_f64().unwrap(),
    );
    assert_eq!(found, bench.json(line), "one seed, one answer");
}

fn dense(sae: &inscape::sae::Sae, x: &Matrix) -> Matrix {
    let values: Vec<f32> = x.each_row().flatten().map(|v| *v as f32).collect();
    let data = burn::tensor::TensorData::new(values, [x.rows(), x.columns()]);
    let x = Tensor::<2>::from_data(data, Device::cpu().tensor());
    Matrix::read(sae.encode_dense(x)).unwrap()
}

#[test]
fn without_rows_only_the_decoder_is_described() {
    let bench = Bench::new();
    let topk = format!("{ROOT}/tests/data/sae/sparsify/topk");
    let found = bench.json(&format!("geometry {topk} --neighbours 2 --cutoff 0"));
    assert_eq!(
        (&found["latents"], &found["width"]),
        (&24.into(), &8.into())
    );
    for key in ["rows", "activations", "cooccurrence"] {
        assert!(found[key].is_null(), "{found}");
    }
    let largest = found["clusters"]["largest"].as_array().unwrap();
    assert!(!largest.is_empty());
    assert!(
        largest
            .iter()
            .all(|c| c["fires"].is_null() && c["planes"].is_null())
    );
    let text = bench.ok(&format!("geometry {topk} --cutoff 1"));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert_eq!(lines[0], "24 latents of width 8");
    assert!(lines[1].starts_with("decoder rows: λ ∝ k^-"), "{text}");
    assert_eq!(
        lines[2],
        "0 latents in 0 clusters: nearest 1 with a cosine above 1"
    );
}

/// What has no measure says why, beside those that have one.
#[test]
fn too_few_rows_leave_a_measure_out() {
    let bench = Bench::new();
    matrix(&bench.path("x.safetensors"), 300, 8, scattered);
    let topk = format!("{ROOT}/tests/data/sae/sparsify/topk");
    let line = format!("geometry {topk} x.safetensors --rows 10..210 --max-rows 150");
    let found = bench.json(&line);
    assert_eq!(found["rows"], 150);
    assert!(found["activations"]["slope"].is_number(), "{found}");
    let why = found["cooccurrence"]["why"].as_str().unwrap();
    assert!(
        why.contains("features that come and go") && why.contains("got 0"),
        "{why}"
    );
    let text = bench.ok(&line);
    assert!(text.contains("activations, 150 rows: "), "{text}");
    assert!(text.contains("firing against direction: "), "{text}");
    let text = bench.ok(&format!("{line} --block 5 --lobes 2"));
    assert!(text.contains("in 30 blocks of 5 rows"), "{text}");
}

#[test]
fn what_cannot_be_described_is_named() {
    let bench = Bench::new();
    matrix(&bench.path("x.safetensors"), 300, 8, scattered);
    matrix(&bench.path("wide.safetensors"), 300, 16, scattered);
    let topk = format!("{ROOT}/tests/data/sae/sparsify/topk");
    bench.fails(
        &format!("geometry {topk} wide.safetensors"),
        &["width 16", "takes 8"],
    );
    bench.fails(
        &format!("geometry {topk} x.safetensors --rows 300.."),
        &["300.."],
    );
    bench.fails(&format!("geometry {topk} --fit 5"), &["--fit", "`5`"]);
    bench.fails("geometry gone", &["gone"]);
    let normal = format!("{ROOT}/tests/data/sae/openai/topk");
    bench.fails(&format!("geometry {normal}"), &["normalised"]);
    bench.usage(&format!("geometry {topk} --rows ..5"), &["SOURCE"]);
    bench.usage(&format!("geometry {topk} --lobes 1"), &["--lobes"]);
}
