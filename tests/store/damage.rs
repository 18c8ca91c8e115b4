//! Damaged, foreign and missing files: each is named.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use proptest::prelude::*;

use super::*;

fn shard(dir: &Path, index: usize) -> PathBuf {
    dir.join(format!("shard-{index:06}.safetensors"))
}

fn open_and_verify(dir: &Path) -> Result<(), Error> {
    Store::open(dir)?.verify()
}

/// The files of [`small_store`], written without waiting for the disk.
fn small_copy(dir: &Path) {
    static FILES: OnceLock<Vec<(OsString, Vec<u8>)>> = OnceLock::new();
    let files = FILES.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        small_store(dir.path());
        let entries = fs::read_dir(dir.path()).unwrap().map(Result::unwrap);
        entries
            .map(|e| (e.file_name(), fs::read(e.path()).unwrap()))
            .collect()
    });
    for (name, bytes) in files {
        fs::write(dir.join(name), bytes).unwrap();
    }
}

/// Changes a file's bytes.
fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// Replaces text in a shard's header by text of the same length.
fn edit_header(path: &Path, from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    edit(path, |bytes| {
        let at = bytes
            .windows(from.len())
            .position(|w| w == from.as_bytes())
            .unwrap();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_flipped_bit_of_a_shard_is_named(index in 0usize..3, at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let dir = tempfile::tempdir().unwrap();
        small_copy(dir.path());
        open_and_verify(dir.path()).unwrap();
        edit(&shard(dir.path(), index), |bytes| { let at = at.index(bytes.len()); bytes[at] ^= 1 << bit });
        says(open_and_verify(dir.path()).unwrap_err(), &[&format!("shard-00000{index}")]);
    }

    #[test]
    fn any_cut_of_a_shard_is_named_on_opening(index in 0usize..3, at in any::<prop::sample::Index>()) {
        let dir = tempfile::tempdir().unwrap();
        small_copy(dir.path());
        edit(&shard(dir.path(), index), |bytes| bytes.truncate(at.index(bytes.len())));
        says(Store::open(dir.path()).unwrap_err(), &[&format!("shard-00000{index}")]);
        let resumed = Store::resume(dir.path(), &small_settings()).err().unwrap();
        says(resumed, &[&format!("shard-00000{index}")]);
    }

    #[test]
    fn a_damaged_manifest_never_panics(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let dir = tempfile::tempdir().unwrap();
        small_copy(dir.path());
        edit(&dir.path().join("manifest.json"), |bytes| { let at = at.index(bytes.len()); bytes[at] = byte });
        if let Ok(store) = Store::open(dir.path()) {
            store.read_meta(0..store.rows()).unwrap();
        }
        Store::resume(dir.path(), &small_settings()).ok();
    }
}

#[test]
fn a_flipped_value_passes_opening_and_fails_verifying() {
    let dir = tempfile::tempdir().unwrap();
    small_copy(dir.path());
    edit(&shard(dir.path(), 1), |bytes| {
        *bytes.last_mut().unwrap() ^= 1
    });
    let store = Store::open(dir.path()).unwrap();
    says(
        store.verify().unwrap_err(),
        &["shard-000001", "damaged", "sha256"],
    );
}

#[test]
fn a_missing_longer_or_swapped_shard_is_named() {
    let dir = tempfile::tempdir().unwrap();
    small_copy(dir.path());
    let (first, second, aside) = (
        shard(dir.path(), 0),
        shard(dir.path(), 1),
        dir.path().join("x"),
    );
    edit(&second, |bytes| bytes.push(0));
    says(
        Store::open(dir.path()).unwrap_err(),
        &["shard-000001", "bytes"],
    );
    edit(&second, |bytes| bytes.truncate(bytes.len() - 1));
    Store::open(dir.path()).unwrap();
    fs::rename(&first, &aside).unwrap();
    says(
        Store::open(dir.path()).unwrap_err(),
        &["shard-000000", "missing"],
    );
    fs::rename(&second, &first).unwrap();
    fs::rename(&aside, &second).unwrap();
    says(
        Store::open(dir.path()).unwrap_err(),
        &["shard-000000", "is shard 1, expected shard 0"],
    );
}

#[test]
fn a_shard_that_goes_away_later_is_named() {
    let dir = tempfile::tempdir().unwrap();
    small_copy(dir.path());
    let store = Store::open(dir.path()).unwrap();
    edit(&shard(dir.path(), 2), |bytes| {
        bytes.truncate(bytes.len() - 1)
    });
    says(
        store.read_rows("b", 20..30).unwrap_err(),
        &["shard-000002", "cut short"],
    );
    fs::remove_file(shard(dir.path(), 2)).unwrap();
    says(
        store.read_rows("b", 20..30).unwrap_err(),
        &["shard-000002", "missing"],
    );
    assert_eq!(store.read_rows("a", 0..24).unwrap().len(), 48);
}

#[test]
fn foreign_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    small_copy(dir.path());
    let path = shard(dir.path(), 1);
    let size = fs::metadata(&path).unwrap().len() as usize;
    tensor_file(
        &path,
        &[(
            "w",
            safetensors::Dtype::U8,
            vec![size - 80],
            vec![0; size - 80],
        )],
    );
    says(
        Store::open(dir.path()).unwrap_err(),
        &["shard-000001", "not a shard"],
    );
    fs::write(&path, "x".repeat(size)).unwrap();
    says(
        Store::open(dir.path()).unwrap_err(),
        &["shard-000001", "header"],
    );
    fs::write(&path, "").unwrap();
    says(
        Store::open(dir.path()).unwrap_err(),
        &["shard-000001", "0 bytes"],
    );
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    says(Store::open(dir.path()).unwrap_err(), &["shard-000001"]);
}

#[test]
fn absurd_header_lengths_are_refused_without_reading_them() {
    let dir = tempfile::tempdir().unwrap();
    small_copy(dir.path());
    for length in [
        u64::MAX,
        u64::MAX - 7,
        1 << 40,
        100_000_001,
        99_000_000,
        5000,
    ] {
        edit(&shard(dir.path(), 0), |bytes| {
            bytes[..8].copy_from_slice(&length.to_le_bytes())
        });
        let error = Store::open(dir.path()).unwrap_err();
        says(error, &["shard-000000", &format!("claims {length} bytes")]);
    }
}

#[test]
fn tensors_of_the_wrong_type_shape_place_or_name_are_named() {
    let cases: [(&str, &str, &[&str]); 6] = [
        (
            "\"F32\",\"shape\":[12,4]",
            "\"I32\",\"shape\":[12,4]",
            &["\"b\"", "I32", "F32"],
        ),
        (
            "\"F32\",\"shape\":[12,4]",
            "\"F32\",\"shape\":[4,12]",
            &["\"b\"", "[4, 12]", "[12, 4]"],
        ),
        (
            "\"F32\",\"shape\":[12,4]",
            "\"F32\",\"shape\":[13,4]",
            &["\"b\"", "do not fit"],
        ),
        ("\"b\":{", "\"c\":{", &["\"c\"", "does not belong"]),
        (
            "\"data_offsets\":[0,96]",
            "\"data_offsets\":[8,96]",
            &["\"context\"", "do not fit"],
        ),
        ("\"inscape-store\"", "\"elsewhere-st.\"", &["not a shard"]),
    ];
    for (from, to, words) in cases {
        let dir = tempfile::tempdir().unwrap();
        small_copy(dir.path());
        edit_header(&shard(dir.path(), 1), from, to);
        let error = Store::open(dir.path()).unwrap_err();
        says(&error, &["shard-000001"]);
        says(&error, words);
    }
}

#[test]
fn a_shard_of_another_store_is_named() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    small_copy(dir.path());
    write_store(other.path(), &settings(vec![HookSpec::new("a", [2])]), 10);
    fs::copy(shard(other.path(), 1), shard(dir.path(), 1)).unwrap();
    says(
        Store::open(dir.path()).unwrap_err(),
        &["shard-000001", "\"b\"", "missing"],
    );
}

#[test]
fn manifests_that_lie_are_refused() {
    let cases: [(&str, &str, &[&str]); 7] = [
        ("\"inscape-store\"", "\"outscape\"", &["outscape"]),
        ("\"version\": 1", "\"version\": 2", &["version is 2"]),
        ("\"rows\": 30", "\"rows\": 31", &["totals", "31"]),
        (
            "\"shard-000001.safetensors\"",
            "\"../secret\"",
            &["../secret", "shard-000001"],
        ),
        (
            "\"rows\": 12",
            "\"rows\": 18446744073709551615",
            &["shard-000001", "impossible"],
        ),
        ("\"width\": 4", "\"width\": 5", &["\"b\"", "width"]),
        ("{", "[", &["not a manifest"]),
    ];
    for (from, to, words) in cases {
        let dir = tempfile::tempdir().unwrap();
        small_copy(dir.path());
        let path = dir.path().join("manifest.json");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from} is not in {text}");
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
        let error = Store::open(dir.path()).unwrap_err();
        says(&error, &["manifest.json"]);
        says(&error, words);
    }
}
