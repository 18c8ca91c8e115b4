//! Matrices by their spelling.

use std::sync::Arc;

use half::{bf16, f16};
use safetensors::Dtype as D;

use super::*;

fn rows(source: &Source, range: std::ops::Range<usize>) -> Vec<f32> {
    let mut out = Vec::new();
    source.read_rows(range, &mut out).unwrap();
    out
}

fn spec(path: &Path, name: &str) -> String {
    format!("{}:{name}", path.display())
}

#[test]
fn a_hook_of_a_store() {
    let dir = tempfile::tempdir().unwrap();
    small_store(dir.path());
    let source = Source::open(&spec(dir.path(), "a")).unwrap();
    assert_eq!((source.rows(), source.width()), (30, 2));
    assert_eq!(rows(&source, 11..13), [11.0, 11.001, 12.0, 12.001]);
    assert_eq!(source.name(), spec(dir.path(), "a"));
    let ids = source.token_ids(10..14).unwrap().unwrap();
    assert_eq!(ids, [3 * 7 + 1, 3 * 7 + 2, 4 * 7, 4 * 7 + 1]);
    assert_eq!(source.meta(29..30).unwrap().unwrap(), [meta(9, 2)]);
    let error = Source::open(&spec(dir.path(), "nope")).unwrap_err();
    says(error, &["\"nope\"", "a, b"]);
    says(
        Source::open(&dir.path().display().to_string()).unwrap_err(),
        &["name one", "a, b"],
    );
}

#[test]
fn the_only_hook_needs_no_name() {
    let dir = tempfile::tempdir().unwrap();
    write_store(dir.path(), &settings(vec![HookSpec::new("x", [1])]), 2);
    let source = Source::open(&dir.path().display().to_string()).unwrap();
    assert_eq!(rows(&source, 0..6), [0., 1., 2., 3., 4., 5.]);
}

#[test]
fn part_of_a_source_is_a_source() {
    let dir = tempfile::tempdir().unwrap();
    small_store(dir.path());
    let tail = Source::open(&spec(dir.path(), "a"))
        .unwrap()
        .sub(10..30)
        .unwrap();
    let part = tail.sub(1..4).unwrap();
    assert_eq!(part.rows(), 3);
    assert_eq!(
        rows(&part, 0..3),
        [11.0, 11.001, 12.0, 12.001, 13.0, 13.001]
    );
    assert_eq!(part.token_ids(0..1).unwrap().unwrap(), [3 * 7 + 2]);
    let mut out = vec![7.0];
    says(
        part.read_rows(2..4, &mut out).unwrap_err(),
        &["3 rows", "2..4"],
    );
    assert_eq!(out, [7.0]);
    says(part.sub(0..4).unwrap_err(), &["3 rows"]);
}

#[test]
fn a_tensor_of_any_float_type() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.safetensors");
    let values: Vec<f32> = (0..6).map(|i| i as f32 - 2.5).collect();
    type Each = fn(f32) -> Vec<u8>;
    let bytes = |each: Each| values.iter().flat_map(|&v| each(v)).collect();
    let types: [(D, Each); 4] = [
        (D::F32, |v| v.to_le_bytes().into()),
        (D::F64, |v| f64::from(v).to_le_bytes().into()),
        (D::F16, |v| f16::from_f32(v).to_le_bytes().into()),
        (D::BF16, |v| bf16::from_f32(v).to_le_bytes().into()),
    ];
    for (dtype, each) in types {
        tensor_file(
            &path,
            &[
                ("a:b", dtype, vec![3, 2], bytes(each)),
                ("n", D::U8, vec![1], vec![0]),
            ],
        );
        for spec in [path.display().to_string(), spec(&path, "a:b")] {
            let source = Source::open(&spec).unwrap();
            assert_eq!((source.rows(), source.width()), (3, 2));
            assert_eq!(rows(&source, 1..3), values[2..], "{dtype}");
            assert_eq!(source.token_ids(0..3).unwrap(), None);
        }
    }
}

#[test]
fn what_is_no_matrix_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.safetensors");
    let zeros = |shape: &[usize]| (shape.to_vec(), vec![0; shape.iter().product::<usize>() * 4]);
    let tensor = |name, dtype, shape: &[usize]| {
        let (shape, bytes) = zeros(shape);
        (name, dtype, shape, bytes)
    };
    tensor_file(
        &path,
        &[
            tensor("one", D::F32, &[3]),
            tensor("two", D::F32, &[3, 2]),
            tensor("again", D::F32, &[2, 2]),
            tensor("three", D::F32, &[3, 2, 1]),
            tensor("ids", D::U32, &[3, 2]),
            tensor("thin", D::F32, &[3, 0]),
        ],
    );
    let plain = path.display().to_string();
    says(
        Source::open(&plain).unwrap_err(),
        &["name one", "two", "again"],
    );
    says(
        Source::open(&spec(&path, "nope")).unwrap_err(),
        &["\"nope\"", "one", "three", "ids"],
    );
    says(
        Source::open(&spec(&path, "one")).unwrap_err(),
        &["\"one\"", "[3]", "matrix"],
    );
    says(
        Source::open(&spec(&path, "three")).unwrap_err(),
        &["\"three\"", "[3, 2, 1]"],
    );
    says(
        Source::open(&spec(&path, "ids")).unwrap_err(),
        &["\"ids\"", "U32"],
    );
    says(
        Source::open(&spec(&path, "thin")).unwrap_err(),
        &["\"thin\"", "[3, 0]"],
    );
    tensor_file(&path, &[tensor("one", D::F32, &[3])]);
    says(Source::open(&plain).unwrap_err(), &["name one", "none"]);
}

#[test]
fn what_is_not_there_is_named() {
    let dir = tempfile::tempdir().unwrap();
    for name in [
        "gone.safetensors",
        "gone.safetensors:x",
        "gone:blocks.0.hook",
    ] {
        let spec = dir.path().join(name).display().to_string();
        says(
            Source::open(&spec).unwrap_err(),
            &["gone", "does not exist", "STORE_DIR:HOOK"],
        );
    }
    says(
        Source::open(&spec(dir.path(), "a")).unwrap_err(),
        &["not a store"],
    );
    let text = dir.path().join("a.txt");
    std::fs::write(&text, "no tensors here, only words").unwrap();
    says(
        Source::open(&text.display().to_string()).unwrap_err(),
        &["a.txt", "header"],
    );
    let cut = dir.path().join("cut.safetensors");
    tensor_file(&cut, &[("w", D::F32, vec![3, 2], vec![0; 24])]);
    let bytes = std::fs::read(&cut).unwrap();
    std::fs::write(&cut, &bytes[..bytes.len() - 1]).unwrap();
    says(
        Source::open(&cut.display().to_string()).unwrap_err(),
        &["cut.safetensors", "bytes"],
    );
}

#[test]
fn nan_and_infinity_are_named_with_their_place() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let dir = tempfile::tempdir().unwrap();
        let mut writer =
            Store::create(dir.path(), settings(vec![HookSpec::new("a", [2])])).unwrap();
        for batch in 0..4u64 {
            let contexts = [batch * 2, batch * 2 + 1];
            let mut values = vec![1.0; 4];
            if batch == 2 {
                values[3] = bad;
            }
            let meta = contexts.map(|c| meta(c, 0)).to_vec();
            writer
                .push(&RowBlock {
                    contexts: 2,
                    meta,
                    hooks: vec![values],
                })
                .unwrap();
        }
        let store = Arc::new(writer.finish().unwrap());
        let source = Source::hook(&store, "a").unwrap().sub(1..8).unwrap();
        let mut out = Vec::new();
        source.read_rows(0..4, &mut out).unwrap();
        let error = source.read_rows(2..7, &mut out).unwrap_err();
        says(
            error,
            &[
                ":a",
                "row 4",
                "column 1",
                &bad.to_string(),
                "row 1 of",
                "shard-000001",
            ],
        );
        assert_eq!(out.len(), 8);
    }
}

#[test]
#[should_panic(expected = "5 values are no rows of width 2")]
fn half_a_row_in_memory_panics() {
    Source::memory("m", vec![0.0; 5], 2);
}

#[test]
fn rows_made_when_they_are_read_are_those_of_a_matrix() {
    let value = |row: usize, column: usize| (row * 3 + column) as f32;
    let made = Source::generated("made", 1000, 3, move |range, out| {
        for (row, x) in range.zip(out.chunks_exact_mut(3)) {
            (0..3).for_each(|c| x[c] = value(row, c));
        }
    });
    let held = Source::memory("held", (0..3000).map(|i| i as f32).collect(), 3);
    assert_eq!((made.rows(), made.width(), made.name()), (1000, 3, "made"));
    assert_eq!(rows(&made, 17..900), rows(&held, 17..900));
    let (a, b) = (made.sub(100..700).unwrap(), held.sub(100..700).unwrap());
    assert_eq!(rows(&a, 5..9), rows(&b, 5..9));
    says(made.sub(0..1001).unwrap_err(), &["1000 rows"]);
    assert_eq!(made.token_ids(0..3).unwrap(), None);
    let served = |source| {
        let mut batches = ShuffledBatches::new(source, 5, 256, 100).unwrap();
        let mut all = Vec::new();
        for _ in 0..7 {
            let mut batch = Vec::new();
            batches.next_batch(&mut batch).unwrap();
            all.extend(batch);
        }
        all
    };
    assert_eq!(served(a), served(b));
}

#[test]
fn a_row_made_wrongly_is_named() {
    let made = Source::generated("made", 10, 2, |range, out| {
        out.fill(0.0);
        if range.contains(&7) {
            out[(7 - range.start) * 2 + 1] = f32::NAN;
        }
    });
    assert_eq!(rows(&made, 0..7), [0.0; 14]);
    let part = made.sub(3..10).unwrap();
    let mut out = vec![1.0];
    let error = part.read_rows(2..6, &mut out).unwrap_err();
    says(error, &["made", "row 4", "column 1", "NaN", "row 7"]);
    assert_eq!(out, [1.0]);
}
