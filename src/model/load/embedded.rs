/// A model that is part of this crate.
#[derive(Debug)]
pub struct Embedded {
    /// The name [`load`](super::load) takes.
    pub name: &'static str,
    pub(super) config: &'static [u8],
    pub(super) tokenizer: &'static [u8],
    pub(super) weights: &'static [u8],
}

/// The embedded models. `examples/data/README.md` is their card.
pub const EMBEDDED: &[Embedded] = &[];
