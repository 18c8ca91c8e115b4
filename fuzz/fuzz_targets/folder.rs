#![allow(dead_code, reason = "each target uses one of the bodies")]
#![no_main]

#[path = "../bodies.rs"]
mod bodies;

use std::path::PathBuf;
use std::sync::LazyLock;

static DIR: LazyLock<PathBuf> = LazyLock::new(|| {
    let dir = std::env::temp_dir().join(format!("inscape-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a scratch folder is made");
    dir
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bodies::folder(bytes, &DIR));
