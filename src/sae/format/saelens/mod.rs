//! SAELens's directories, which are ours as well.

mod legacy;
mod read;
mod write;

pub(super) use read::read;
pub(super) use write::{save, write};

/// The architectures of SAELens's that there are here, and ours that it lacks.
const KNOWN: &str = "standard, topk, jumprelu, batchtopk, matryoshka_batchtopk, gated, and transcoder, \
    skip_transcoder alone or after one of these";

/// What SAELens's name of an architecture says.
struct Architecture<'a> {
    activation: &'a str,
    transcoder: bool,
    skip: bool,
}

impl<'a> Architecture<'a> {
    fn of(name: &'a str) -> Self {
        let Some(plain) = name.strip_suffix("transcoder") else {
            return Self {
                activation: name,
                transcoder: false,
                skip: false,
            };
        };
        let activation = plain.strip_suffix("skip_").unwrap_or(plain);
        Self {
            activation: match activation.trim_end_matches('_') {
                "" => "standard",
                other => other,
            },
            transcoder: true,
            skip: activation != plain,
        }
    }

    fn name(&self) -> String {
        let activation = match (self.activation, self.transcoder) {
            (name, false) => return name.into(),
            ("standard", true) => String::new(),
            (name, true) => format!("{name}_"),
        };
        let skip = if self.skip { "skip_" } else { "" };
        format!("{activation}{skip}transcoder")
    }
}
