#![allow(dead_code, reason = "each target uses one of the bodies")]
#![no_main]

#[path = "../bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bodies::pickle(bytes));
