//! Files that were made to harm: refused by name, in memory of the file's order, without a panic.

#[path = "../../fuzz/bodies.rs"]
mod bodies;

use std::io::Write;

use flate2::{Compression, Crc, write::DeflateEncoder};
use inscape::sae::Error;
use inscape::sae::format::{self, Format, Loaded};

use super::*;

/// An entry of an archive, with what its headers say of it.
#[derive(Clone)]
struct Entry {
    name: String,
    data: Vec<u8>,
    flags: u16,
    method: u16,
    size: u32,
    crc: u32,
}

fn stored(name: &str, data: &[u8]) -> Entry {
    let mut crc = Crc::new();
    crc.update(data);
    Entry {
        name: name.into(),
        data: data.into(),
        flags: 0,
        method: 0,
        size: data.len() as u32,
        crc: crc.sum(),
    }
}

fn deflated(name: &str, data: &[u8]) -> Entry {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(data).unwrap();
    Entry {
        data: encoder.finish().unwrap(),
        method: 8,
        ..stored(name, data)
    }
}

/// An archive, and where the local header of each entry lies.
fn zip(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut directory = Vec::new();
    for e in entries {
        let at = out.len() as u32;
        let mut common = Vec::new();
        common.extend([20, 0]);
        common.extend(e.flags.to_le_bytes());
        common.extend(e.method.to_le_bytes());
        common.extend([0; 4]);
        common.extend(e.crc.to_le_bytes());
        common.extend((e.data.len() as u32).to_le_bytes());
        common.extend(e.size.to_le_bytes());
        common.extend((e.name.len() as u16).to_le_bytes());
        common.extend([0, 0]);
        out.extend([b"PK\x03\x04", &common[..], e.name.as_bytes(), &e.data].concat());
        directory.extend([b"PK\x01\x02\x14\0", &common[..], &[0; 10]].concat());
        directory.extend(at.to_le_bytes());
        directory.extend(e.name.as_bytes());
    }
    let (n, start) = ((entries.len() as u16).to_le_bytes(), out.len() as u32);
    let size = (directory.len() as u32).to_le_bytes();
    let end = [
        b"PK\x05\x06\0\0\0\0",
        &n[..],
        &n,
        &size,
        &start.to_le_bytes(),
        &[0, 0],
    ];
    [out, directory, end.concat()].concat()
}

/// A `.pt` file with this pickle behind its first two bytes and these storages.
fn pt(pickle: &[u8], storages: &[(&str, &[u8])]) -> Vec<u8> {
    let mut entries = vec![stored("a/data.pkl", &[b"\x80\x02", pickle].concat())];
    for (key, bytes) in storages {
        entries.push(stored(&format!("a/data/{key}"), bytes));
    }
    zip(&entries)
}

fn text(text: &str) -> Vec<u8> {
    [&[0x8c, text.len() as u8], text.as_bytes()].concat()
}

fn long(n: i64) -> Vec<u8> {
    [&[0x8a, 8], &n.to_le_bytes()[..]].concat()
}

fn tuple(items: &[i64]) -> Vec<u8> {
    let items: Vec<u8> = items.iter().flat_map(|&n| long(n)).collect();
    [b"(", &items[..], b"t"].concat()
}

/// A tensor of f32 in storage "0" of `len` numbers.
fn view(len: i64, offset: i64, size: &[i64], stride: &[i64]) -> Vec<u8> {
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec(),
        text("storage"),
        b"ctorch\nFloatStorage\n".to_vec(),
        [text("0"), text("cpu"), long(len)].concat(),
        b"tQ".to_vec(),
        long(offset),
        [tuple(size), tuple(stride)].concat(),
        b"\x89)tR".to_vec(),
    ]
    .concat()
}

/// `{"bias": tensor}`.
fn dict(tensor: &[u8]) -> Vec<u8> {
    [b"}", &text("bias")[..], tensor, b"s."].concat()
}

fn read(bytes: &[u8], format: Format) -> Result<Loaded, Error> {
    format::read_bytes(bytes, format, Device::cpu().tensor())
}

#[track_caller]
fn refused(bytes: &[u8], words: &[&str]) {
    says(read(bytes, Format::DictionaryLearning).unwrap_err(), words);
}

#[track_caller]
fn refused_npz(bytes: &[u8], words: &[&str]) {
    says(read(bytes, Format::GemmaScope).unwrap_err(), words);
}

#[test]
fn nothing_in_a_pickle_is_run() {
    for (module, name) in [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("subprocess", "Popen"),
        ("torch.hub", "load"),
        ("torch._utils", "_rebuild_device_tensor_from_numpy"),
        ("collections", "OrderedDict"), // with an argument
    ] {
        let full = format!("{module}.{name}");
        let line = format!("c{module}\n{name}\n");
        let argument = [b"(".to_vec(), text("touch /boom"), b"t".to_vec()].concat();
        let named = [text(module), text(name), vec![0x93]].concat();
        for (callee, call) in [
            (line.as_bytes(), b"R."),
            (&named, b"R."),
            (&named, b"\x81."),
        ] {
            let pickle = [callee, &argument, call].concat();
            refused(&pt(&pickle, &[]), &[&full, "refused"]);
        }
    }
    // Instructions that call without naming a global on the stack.
    refused(&pt(b"(ios\nsystem\n.", &[]), &["0x69", "refused"]);
    refused(&pt(b"(cos\nsystem\no.", &[]), &["0x6f", "refused"]);
    refused(&pt(b"\x82\x01.", &[]), &["0x82", "refused"]);
    refused(&pt(b"Pos.system\n.", &[]), &["0x50", "refused"]);
    // A global that is only named is harmless, and no dict.
    refused(&pt(b"cos\nsystem\n.", &[]), &["no dict"]);
    refused(&pt(b"cos\nsystem\n}b.", &[]), &["state"]);
}

#[test]
fn bombs_in_a_pickle_do_not_unfold() {
    // A list in itself, a dict in itself.
    refused(&pt(b"]q\0h\0a.", &[]), &["no dict"]);
    refused(&pt(b"}q\0K\x01h\0s.", &[]), &["no autoencoder"]);
    // Forty lists, each holding the one before it twice: 2^40 items, were it unfolded.
    let level = |i: u8| [b"]q", &[i + 1][..], b"h", &[i], b"ah", &[i], b"a0"].concat();
    let laughs: Vec<u8> = (0..40).flat_map(level).collect();
    let held = [b"]q\x000", &laughs[..], b"}", &text("x"), b"h\x28s."].concat();
    says(
        read(&pt(&held, &[]), Format::OpenAi).unwrap_err(),
        &["encoder.weight", "missing"],
    );
    // Depth.
    refused(
        &pt(
            &[vec![b'('; 300], vec![b't'; 300], b".".to_vec()].concat(),
            &[],
        ),
        &["256"],
    );
    let deep = [vec![b']'; 100_000], vec![b'a'; 99_999], b".".to_vec()].concat();
    refused(&pt(&deep, &[]), &["no dict"]);
    // The largest memo index.
    refused(&pt(b"}r\xff\xff\xff\xff.", &[]), &["no autoencoder"]);
    refused(&pt(b"h\x07.", &[]), &["memo"]);
}

#[test]
fn absurd_lengths_in_a_pickle_are_named() {
    refused(
        &pt(&[&[0x8a, 255][..], &[1; 255], b"."].concat(), &[]),
        &["255 bytes"],
    );
    refused(&pt(b"\x8b\xff\xff\xff\x7f1.", &[]), &["0x8b"]);
    refused(
        &pt(b"X\xff\xff\xff\xffabc.", &[]),
        &["4294967295 bytes", "left"],
    );
    refused(
        &pt(&[&[0x8d][..], &[0xff; 8], b"."].concat(), &[]),
        &["bytes", "left"],
    );
    refused(
        &pt(&vec![b'N'; (1 << 18) + 1], &[]),
        &["data.pkl", "262144"],
    );
    for broken in [
        &b"."[..],
        b"0.",
        b"t.",
        b"\x86.",
        b"NN.",
        b"N",
        b"Ns.",
        b"}Na.",
        b"(}u.",
        b"}(Nu.",
        b"Q.",
        b"NQ.",
    ] {
        assert!(
            read(&pt(broken, &[]), Format::DictionaryLearning).is_err(),
            "{broken:?}"
        );
    }
    says(
        format::read_pickle(b"\x80\x01N.").unwrap_err(),
        &["protocol 1"],
    );
    says(
        format::read_pickle(b"(lp0\n.").unwrap_err(),
        &["protocol 2"],
    );
}

#[test]
fn tensors_beyond_their_storage_are_named() {
    let numbers = [0u8; 32];
    let with = |tensor: Vec<u8>| pt(&dict(&tensor), &[("0", &numbers)]);
    for tensor in [
        view(8, 0, &[9], &[1]),
        view(8, 1, &[8], &[1]),
        view(8, 8, &[1], &[1]),
        view(8, 0, &[2, 4], &[5, 1]),
        view(8, 0, &[2], &[i64::MAX]),
        view(8, i64::MAX, &[2], &[i64::MAX]),
        view(8, 0, &[1 << 40, 1 << 40], &[0, 0]),
        view(8, 0, &[i64::MAX, 4], &[0, 0]),
        view(8, 0, &[1000], &[0]), // one number a thousand times
    ] {
        refused(&with(tensor), &["`bias`", "storage of 8 numbers"]);
    }
    refused(
        &with(view(7, 0, &[7], &[1])),
        &["`bias`", "32 bytes for 7 numbers"],
    );
    refused(&with(view(1 << 40, 0, &[8], &[1])), &["32 bytes"]);
    refused(&with(view(i64::MAX, 0, &[8], &[1])), &["32 bytes"]);
    refused(&with(view(1 << 62, 0, &[1 << 50], &[1])), &["more numbers"]);
    refused(&with(view(8, 0, &[-1], &[1])), &["-1 as a size"]);
    refused(&with(view(8, 0, &[2], &[-1])), &["-1 as a size"]);
    refused(&with(view(8, -4, &[2], &[1])), &["-4 as a size"]);
    refused(&with(view(-8, 0, &[2], &[1])), &["-8 as a size"]);
    refused(&with(view(8, 0, &[2, 2], &[1])), &["sizes than strides"]);
    refused(&with(view(8, 0, &[1; 9], &[1; 9])), &["9 dimensions"]);
    refused(
        &pt(&dict(&view(8, 0, &[8], &[1])), &[]),
        &["a/data/0", "missing"],
    );
    // Many views of one storage.
    let many: Vec<u8> = (0..200)
        .flat_map(|i| [&text(&i.to_string())[..], &view(8, 0, &[8], &[1]), b"s"].concat())
        .collect();
    let fits = pt(&[b"}", &many[..], b"."].concat(), &[("0", &numbers)]);
    refused(&fits, &["no autoencoder"]); // the pickle itself is longer than 1600 numbers
    let names = 5000; // 200 bytes of a shared tensor's name and reference each
    let shared = [&view(8, 0, &[8], &[1])[..], b"q\x010}"].concat();
    let many: Vec<u8> = (0..names)
        .flat_map(|i: u32| [&text(&i.to_string())[..], b"h\x01s"].concat())
        .collect();
    let bomb = pt(&[&shared, &many[..], b"."].concat(), &[("0", &numbers)]);
    let error = read(&bomb, Format::DictionaryLearning).unwrap_err();
    says(error, &["no autoencoder"]);
    let wide = [7u8; 4096];
    let shared = [&view(1024, 0, &[1024], &[1])[..], b"q\x010}"].concat();
    let bomb = pt(&[&shared, &many[..], b"."].concat(), &[("0", &wide)]);
    refused(&bomb, &["more numbers than the file has bytes"]);
    // Empty ones are no autoencoder.
    let empty = [
        b"}",
        &text("encoder.weight")[..],
        &view(8, 0, &[0, 1 << 60], &[1, 1]),
        b"s",
    ]
    .concat();
    let empty = [&empty[..], &text("bias"), &view(8, 0, &[8], &[1]), b"s."].concat();
    refused(
        &pt(&empty, &[("0", &numbers)]),
        &["encoder.weight", "empty"],
    );
}

#[test]
fn another_byte_order_is_named() {
    let pickle = [b"\x80\x02", &dict(&view(8, 0, &[8], &[1]))[..]].concat();
    let with = |order: &[u8]| {
        zip(&[
            stored("a/data.pkl", &pickle),
            stored("a/byteorder", order),
            stored("a/data/0", &[0; 32]),
        ])
    };
    refused(&with(b"big"), &["byte order"]);
    refused(&with(b"little"), &["encoder.weight", "missing"]);
}

#[test]
fn archives_made_to_harm_are_named() {
    let pickle = stored("a/data.pkl", b"\x80\x02}.");
    let zeros = deflated("a/data/0", &vec![0; 10 << 20]);
    assert!(zeros.data.len() < 11_000, "a thousand to one");
    refused(
        &zip(&[pickle.clone(), zeros.clone()]),
        &["unpack", "refused"],
    );
    refused_npz(&zip(std::slice::from_ref(&zeros)), &["unpack", "refused"]);
    // One that says it is small, and one that says it is larger than it is.
    let small = Entry {
        size: 1000,
        ..zeros
    };
    refused_npz(
        &zip(&[Entry {
            name: "W_enc.npy".into(),
            ..small
        }]),
        &["W_enc", "1000 bytes"],
    );
    let large = Entry {
        size: 2000,
        ..deflated("W_enc.npy", &[1; 1000])
    };
    refused_npz(&zip(&[large]), &["W_enc", "2000 bytes"]);
    let stored_twice = Entry {
        size: 3,
        ..pickle.clone()
    };
    refused(&zip(&[stored_twice]), &["a/data.pkl", "two sizes"]);
    let encrypted = Entry {
        flags: 1,
        ..pickle.clone()
    };
    refused(&zip(&[encrypted]), &["a/data.pkl", "encrypted"]);
    let odd = Entry {
        method: 12,
        ..pickle.clone()
    };
    refused(&zip(&[odd]), &["a/data.pkl", "12"]);
    let damaged = Entry {
        crc: 7,
        ..pickle.clone()
    };
    refused(&zip(&[damaged]), &["a/data.pkl", "CRC"]);
    for name in [
        "../a/data.pkl",
        "/a/data.pkl",
        "a/../../data.pkl",
        "a\\data.pkl",
    ] {
        let climbs = Entry {
            name: name.into(),
            ..pickle.clone()
        };
        refused(&zip(&[climbs]), &["data.pkl", "name that is refused"]);
    }
    refused(
        &zip(&[pickle.clone(), pickle.clone()]),
        &["a/data.pkl", "twice"],
    );
    let other = Entry {
        name: "b/data.pkl".into(),
        ..pickle.clone()
    };
    refused(&zip(&[pickle.clone(), other]), &["2 entries", "data.pkl"]);
    refused(&zip(&[]), &["0 entries"]);
    refused(&zip(&[stored("a/x", b"")]), &["0 entries"]);
    refused(
        b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.",
        &["before 1.6"],
    );
    // The second entry's header points at the first's data.
    let mut overlap = zip(&[pickle.clone(), stored("a/version", b"3")]);
    let at = overlap.len() - 22 - "a/version".len() - 4;
    let second = u32::from_le_bytes(overlap[at..at + 4].try_into().unwrap());
    overlap[at..at + 4].copy_from_slice(&(second + 1).to_le_bytes());
    refused(&overlap, &["local header"]);
    overlap[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(read(&overlap, Format::DictionaryLearning).is_err());
}

/// One entry inside another's data: both would be read, were it not for their spans.
#[test]
fn entries_that_share_bytes_are_named() {
    let inner = zip(&[stored("a/data.pkl", b"\x80\x02}.")]);
    let local = &inner[..inner.len() - 22 - 46 - "a/data.pkl".len()];
    let outer = stored("a/outer", local);
    let mut bytes = zip(&[outer, stored("a/data.pkl", b"\x80\x02}.")]);
    let at = bytes.len() - 22 - "a/data.pkl".len() - 4;
    let inside = 30 + "a/outer".len() as u32;
    bytes[at..at + 4].copy_from_slice(&inside.to_le_bytes());
    refused(&bytes, &["a/outer", "a/data.pkl", "overlap"]);
}

/// An `.npy` file with this header.
fn npy(version: u8, header: &str, data: &[u8]) -> Vec<u8> {
    let length = header.len() as u32;
    let length = match version {
        1 => (length as u16).to_le_bytes().to_vec(),
        _ => length.to_le_bytes().to_vec(),
    };
    [
        b"\x93NUMPY",
        &[version, 0][..],
        &length,
        header.as_bytes(),
        data,
    ]
    .concat()
}

#[test]
fn arrays_made_to_harm_are_named() {
    let one = |npy: Vec<u8>| zip(&[stored("W_enc.npy", &npy)]);
    let header = |descr: &str, shape: &str| {
        format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n")
    };
    for (descr, shape, words) in [
        ("'|O'", "(2,)", "|O"),
        ("'>f4'", "(2,)", "byte order"),
        ("[('x', '<f4')]", "(2,)", "`'`"),
        ("'<f4'", "(3,)", "8 bytes for the shape [3]"),
        ("'<f4'", "(1099511627776, 1099511627776)", "8 bytes"),
        ("'<f4'", "(4611686018427387905, 4)", "8 bytes"),
        ("'<f4'", "(18446744073709551616,)", "no number"),
        ("'<f4'", "(-2,)", "no number"),
        ("'<f4'", "(1,1,1,1,1,1,1,1,2)", "8 dimensions"),
        ("'<f4'", "(2,", "no number"),
        ("'<f4'", "__import__('os').system('x')", "`(`"),
    ] {
        let bytes = npy(1, &header(descr, shape), &[0; 8]);
        refused_npz(&one(bytes), &["W_enc", words]);
    }
    refused_npz(&one(npy(2, "", &[])), &["W_enc", "`{`"]);
    refused_npz(&one(npy(4, "", &[])), &["version 4"]);
    refused_npz(
        &one(b"\x93NUMPY\x02\0\xff\xff\xff\xff{}".to_vec()),
        &["4294967295 bytes"],
    );
    refused_npz(
        &one(b"\x93NUMPY\x01\0\xff\xff{}".to_vec()),
        &["65535 bytes", "left"],
    );
    refused_npz(&one(b"NUMPY".to_vec()), &["W_enc"]);
    refused_npz(&zip(&[stored("notes.txt", b"hi")]), &["notes.txt"]);
    let twice = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,)} {}";
    refused_npz(&one(npy(1, twice, &[0; 8])), &["type, order and shape"]);
    // Every version, either order of keys and quotes; empty ones hold no autoencoder.
    for version in 1..=3 {
        let text = "{\"shape\": (0, 4611686018427387904), 'descr': '<f4', 'fortran_order': True}";
        refused_npz(&one(npy(version, text, &[])), &["W_enc", "empty"]);
    }
}

fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/seeds")
        .join(target);
    let mut all: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            (
                entry.file_name().into_string().unwrap(),
                std::fs::read(entry.path()).unwrap(),
            )
        })
        .collect();
    all.sort();
    assert!(!all.is_empty(), "{target} has no seeds");
    all
}

/// Every prefix of a file is an error, and so is every changed byte, unless it is one that says
/// nothing: then what is read is the same.
#[test]
fn a_file_cut_off_or_changed_anywhere_is_an_error_or_the_same() {
    let cases = [
        ("pt", "jumpreluautoencoder.pt", Format::DictionaryLearning),
        ("pt", "crosscoder.pt", Format::Crosscoder),
        ("npz", "stored.npz", Format::GemmaScope),
        ("npz", "deflated.npz", Format::GemmaScope),
    ];
    for (target, name, format) in cases {
        let (_, file) = seeds(target).into_iter().find(|s| s.0 == name).unwrap();
        let whole = weights(&read(&file, format).unwrap());
        for end in 0..file.len() {
            assert!(read(&file[..end], format).is_err(), "{name} up to {end}");
        }
        let mut same = 0;
        for at in 0..file.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut changed = file.clone();
                changed[at] ^= flip;
                if let Ok(loaded) = read(&changed, format) {
                    assert_eq!(weights(&loaded), whole, "{name}: {flip:#x} at {at}");
                    same += 1;
                }
            }
        }
        println!("{name}: {same} of {} changes say nothing", 3 * file.len());
        assert!(same < 3 * file.len(), "{name}: nothing was noticed");
    }
}

fn weights(loaded: &Loaded) -> Vec<u32> {
    let sae = loaded.sae.clone();
    let matrices = [bits(sae.w_enc), bits(sae.w_dec)].concat();
    [matrices, bits(sae.b_enc), bits(sae.b_dec)].concat()
}

/// The seeds are what they should be: each is read.
#[test]
fn the_seeds_are_read() {
    for (name, bytes) in seeds("pickle") {
        format::read_pickle(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    for (name, bytes) in seeds("npz") {
        read(&bytes, Format::GemmaScope).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    for (name, bytes) in seeds("pt") {
        let format = match name.as_str() {
            "crosscoder.pt" => Format::Crosscoder,
            _ => Format::DictionaryLearning,
        };
        read(&bytes, format).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    let dir = tempfile::tempdir().unwrap();
    let (_, bytes) = seeds("folder").remove(0);
    bodies::folder(&bytes, dir.path());
    format::load(dir.path(), Device::cpu().tensor()).unwrap();
}

/// What `cargo fuzz` does, for a moment: seeds with bytes changed, cut, doubled and swapped.
#[test]
fn changed_seeds_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let mut draws = Draws::new(2026);
    for (target, times) in [
        ("pickle", 20_000),
        ("pt", 1_500),
        ("npz", 3_000),
        ("folder", 500),
    ] {
        let seeds = seeds(target);
        for i in 0..times {
            let seed = &seeds[i % seeds.len()].1;
            let bytes = mutated(seed, &mut draws);
            match target {
                "pickle" => bodies::pickle(&bytes),
                "pt" => bodies::pt(&bytes),
                "npz" => bodies::npz(&bytes),
                _ => bodies::folder(&bytes, dir.path()),
            }
        }
    }
}

/// Pickles changed inside a whole archive, whose sums are right: they reach what lies behind.
#[test]
fn changed_pickles_in_sound_archives_do_no_harm() {
    let mut draws = Draws::new(7);
    let numbers: Vec<u8> = (0..64u8).collect();
    let keys = ["0", "1", "2", "3", "4", "5"];
    for (_, pickle) in seeds("pickle") {
        for _ in 0..1_500 {
            let changed = mutated(&pickle[2..], &mut draws);
            let storages = keys.map(|key| (key, &numbers[..4 * (1 + draws.below(16))]));
            bodies::pt(&pt(&changed, &storages));
        }
    }
    for (_, archive) in seeds("npz") {
        let start = archive
            .windows(6)
            .position(|w| w == b"\x93NUMPY")
            .unwrap_or(0);
        for _ in 0..1_000 {
            let header = mutated(
                &archive[start..][..128.min(archive.len() - start)],
                &mut draws,
            );
            bodies::npz(&zip(&[stored("W_enc.npy", &header)]));
        }
    }
}

fn mutated(seed: &[u8], draws: &mut Draws) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..1 + draws.below(4) {
        let n = bytes.len().max(1);
        let (a, b) = (draws.below(n), draws.below(n));
        let (a, b) = (a.min(b).min(bytes.len()), a.max(b).min(bytes.len()));
        match draws.below(6) {
            0 => bytes.truncate(b),
            1 => bytes.insert(a, draws.below(256) as u8),
            2 => drop(bytes.drain(a..b.min(a + 8))),
            3 => {
                let part = bytes[a..b.min(a + 40)].to_vec();
                bytes.splice(b..b, part);
            }
            _ if bytes.is_empty() => {}
            4 => bytes[a] = [0, 1, 0x7f, 0x80, 0xff][draws.below(5)],
            _ => bytes[a] ^= 1 << draws.below(8),
        }
    }
    bytes
}
