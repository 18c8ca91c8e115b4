//! Settings: which must match, which cannot be, and where a store may begin.

use inscape::capture::text::TextMark;

use super::*;

#[test]
fn a_resume_with_other_settings_names_the_field_and_both_values() {
    let dir = tempfile::tempdir().unwrap();
    small_store(dir.path());
    type Change = fn(&mut Settings);
    let changes: [(&str, &str, &str, Change); 15] = [
        ("model.id", "toy", "bert", |s| s.model.id = "bert".into()),
        ("model.family", "llama", "bert", |s| {
            s.model.family = "bert".into()
        }),
        ("model.sha256", "aa", "ab", |s| s.model.sha256 = "ab".into()),
        ("tokenizer_sha256", "bb", "bc", |s| {
            s.tokenizer_sha256 = "bc".into()
        }),
        ("text", "toy.txt", "other", |s| s.text = "other".into()),
        ("positions", "all", "last", |s| {
            s.positions = Positions::Last
        }),
        ("context", "3", "128", |s| s.context = 128),
        ("batch", "2", "1", |s| s.batch = 1),
        ("contexts_per_shard", "4", "8", |s| s.contexts_per_shard = 8),
        ("max_tokens", "null", "9", |s| s.max_tokens = Some(9)),
        ("device", "cpu", "wgpu", |s| s.device = "wgpu".into()),
        ("dtype", "f32", "f16", |s| s.dtype = Dtype::F16),
        ("hooks", "\"b\"", "[{", |s| drop(s.hooks.pop())),
        ("hooks[1].name", "b", "c", |s| s.hooks[1].name = "c".into()),
        ("hooks[1].shape", "[2,2]", "[4]", |s| {
            s.hooks[1].shape = vec![4]
        }),
    ];
    for (field, stored, asked, change) in changes {
        let mut settings = small_settings();
        change(&mut settings);
        let error = Store::resume(dir.path(), &settings).err().unwrap();
        assert!(matches!(error, Error::Mismatch { .. }), "{error}");
        says(error, &[&format!("{field} = "), stored, asked]);
    }
    Store::resume(dir.path(), &small_settings()).unwrap();
}

#[test]
fn settings_that_cannot_be_are_refused() {
    type Change = fn(&mut Settings);
    let changes: [(&[&str], Change); 9] = [
        (&["context"], |s| s.context = 0),
        (&["batch"], |s| s.batch = 0),
        (&["contexts_per_shard", "5", "batch = 2"], |s| {
            s.contexts_per_shard = 5
        }),
        (&["contexts_per_shard"], |s| s.contexts_per_shard = 0),
        (&["hooks", "none"], |s| s.hooks.clear()),
        (&["hooks", "\"a\"", "twice"], |s| {
            s.hooks[1].name = "a".into()
        }),
        (&["hooks", "\"token_ids\""], |s| {
            s.hooks[1].name = "token_ids".into()
        }),
        (&["hooks", "\"__metadata__\""], |s| {
            s.hooks[1].name = "__metadata__".into()
        }),
        (&["hooks", "\"b\"", "width"], |s| {
            s.hooks[1].shape = vec![usize::MAX, 2]
        }),
    ];
    for (words, change) in changes {
        let (dir, mut settings) = (tempfile::tempdir().unwrap(), small_settings());
        change(&mut settings);
        says(Store::create(dir.path(), settings).err().unwrap(), words);
    }
}

#[test]
fn a_store_begins_in_an_empty_directory_only() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("thesis.tex"), "mine").unwrap();
    for error in [
        Store::create(dir.path(), small_settings()).err().unwrap(),
        Store::resume(dir.path(), &small_settings()).err().unwrap(),
    ] {
        says(
            error,
            &["not empty", "thesis.tex", &dir.path().display().to_string()],
        );
    }
    says(
        Store::open(dir.path()).unwrap_err(),
        &["not a store", "manifest.json"],
    );
    let (deep, file) = (dir.path().join("a/b"), dir.path().join("thesis.tex"));
    small_store(&deep);
    says(
        Store::create(&deep, small_settings()).err().unwrap(),
        &["already holds a store"],
    );
    says(
        Store::create(&file, small_settings()).err().unwrap(),
        &["thesis.tex"],
    );
}

#[test]
fn positions_and_dtypes_are_spelled_as_on_the_command_line() {
    for spelling in ["all", "last", "mean", "0..4", "3..17"] {
        let positions: Positions = spelling.parse().unwrap();
        assert_eq!(positions.to_string(), spelling);
        let json = serde_json::to_string(&positions).unwrap();
        assert_eq!(json, format!("{spelling:?}"));
        assert_eq!(serde_json::from_str::<Positions>(&json).unwrap(), positions);
    }
    for wrong in ["", "first", "4..4", "5..4", "..4", "1..", "-1..2", "1...2"] {
        says(
            wrong.parse::<Positions>().unwrap_err(),
            &["positions", "I..J", wrong],
        );
    }
    assert_eq!("f16".parse::<Dtype>().unwrap().to_string(), "f16");
    says("f64".parse::<Dtype>().unwrap_err(), &["dtype", "f64"]);
    let rows = |p: &str| p.parse::<Positions>().unwrap().rows(8);
    assert_eq!(
        ["all", "last", "mean", "2..5", "6..20", "9..10"].map(rows),
        [8, 1, 1, 3, 2, 0]
    );
}

#[test]
fn a_shard_size_in_bytes_becomes_whole_batches() {
    // A batch: 2 contexts of 3 rows of 6 values of 4 bytes and 32 bytes of origin, 336 bytes.
    let size = |bytes| small_settings().with_shard_bytes(bytes).contexts_per_shard;
    assert_eq!([0, 336, 671, 672, 3360].map(size), [2, 2, 2, 4, 20]);
}

#[test]
fn the_texts_mark_is_kept_at_each_shard() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Store::create(dir.path(), small_settings()).unwrap();
    assert_eq!(writer.manifest().text, TextMark::default());
    let mark = TextMark {
        bytes: 12,
        sha256: "cc".into(),
    };
    writer.mark_text(mark.clone());
    writer.finish().unwrap();
    assert_eq!(Store::open(dir.path()).unwrap().manifest().text, mark);
}
