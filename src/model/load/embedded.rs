/// A model that is part of this crate.
#[derive(Debug)]
pub struct Embedded {
    /// The name [`load`](super::load) takes.
    pub name: &'static str,
    pub(super) config: &'static [u8],
    pub(super) tokenizer: &'static [u8],
    pub(super) weights: &'static [u8],
}

macro_rules! embedded {
    ($name:literal) => {
        Embedded {
            name: $name,
            config: include_bytes!(concat!("../../../examples/data/", $name, "/config.json")),
            tokenizer: include_bytes!(concat!("../../../examples/data/", $name, "/tokenizer.json")),
            weights: include_bytes!(concat!(
                "../../../examples/data/",
                $name,
                "/model.safetensors"
            )),
        }
    };
}

/// The embedded models: one small Llama from three seeds, about 5 MB together, and an attention-only
/// model that does induction, 0.2 MB. Their card is `examples/data/README.md`.
pub const EMBEDDED: &[Embedded] = &[
    embedded!("tiny-lm-1"),
    embedded!("tiny-lm-2"),
    embedded!("tiny-lm-3"),
    embedded!("tiny-induction"),
];

/// The text the embedded models are shown on, which they were not trained on: the last 15 %
/// of *Moby-Dick* (public domain).
pub const SAMPLE: &str = include_str!("../../../examples/data/sample.txt");
