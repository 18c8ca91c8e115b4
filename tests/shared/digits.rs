//! The 8 × 8 handwritten digits (`data/digits/make_digits.py`).

/// Images and what they show.
pub struct Digits {
    /// `[1797, 64]`, grey values from 0 to 1.
    pub pixels: Vec<f32>,
    /// 0 to 9.
    pub labels: Vec<u8>,
}

/// Pixels of an image.
pub const PIXELS: usize = 64;

impl Digits {
    pub fn read() -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/digits/digits.bin");
        let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{path}: {e}"));
        let records = || bytes.chunks_exact(1 + PIXELS);
        let grey = |v: &u8| f32::from(*v) / 16.0;
        Self {
            pixels: records().flat_map(|r| r[1..].iter().map(grey)).collect(),
            labels: records().map(|r| r[0]).collect(),
        }
    }
}
