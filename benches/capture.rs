//! Capturing every residual of the embedded model, to disk. Items are tokens of the text.
//! The device is `INSCAPE_DEVICE` (default `cpu`). `INSCAPE_BENCH_MODEL` names another model.

use divan::{Bencher, counter::ItemsCount};
use inscape::capture::{CaptureConfig, capture};
use inscape::{Device, model};

fn main() {
    divan::main();
}

const TOKENS: u64 = 8192;

#[divan::bench(args = ["blocks.*.hook_resid_post", "blocks.1.hook_resid_post"], max_time = 10, min_time = 2)]
fn tokens(bencher: Bencher<'_, '_>, hooks: &str) {
    let spec = std::env::var("INSCAPE_DEVICE").unwrap_or_else(|_| "cpu".into());
    let device = Device::open(&spec.parse().expect("INSCAPE_DEVICE names a device"))
        .expect("the device opens");
    let name = std::env::var("INSCAPE_BENCH_MODEL").unwrap_or_else(|_| "tiny-lm-1".into());
    let network = model::load(&name, &device).expect("the model loads");
    let text = include_str!("../examples/data/sample.txt");
    let config = CaptureConfig {
        max_tokens: Some(TOKENS),
        ..CaptureConfig::new([hooks])
    };
    bencher.counter(ItemsCount::new(TOKENS)).bench_local(|| {
        let dir = tempfile::tempdir().expect("there is room for a store");
        let out = dir.path().join("store");
        let store = capture(
            &network,
            text.as_bytes(),
            "sample",
            &out,
            &config,
            false,
            device.name(),
            |_| (),
        );
        assert_eq!(store.expect("the capture works").rows() as u64, TOKENS);
    });
}
