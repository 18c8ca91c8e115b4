//! The words that name a device.

use std::fmt;
use std::str::FromStr;

use super::Error;

pub(super) const FORMS: &str = "auto, cpu, wgpu, wgpu:discrete[:N], wgpu:integrated[:N], \
                                wgpu:virtual[:N], wgpu:other[:N], wgpu:software";

/// Which device is wanted, as written on the command line: `auto`, `cpu`, `wgpu`,
/// `wgpu:discrete[:N]`, `wgpu:integrated[:N]`, `wgpu:virtual[:N]`, `wgpu:other[:N]`, `wgpu:software`.
///
/// `N` counts from 0 among the adapters of that kind, in the order of
/// [`adapters`](super::adapters); left out, it is 0.
///
/// ```
/// use inscape::device::DeviceSpec;
/// let spec: DeviceSpec = "wgpu:discrete".parse()?;
/// assert_eq!(spec, DeviceSpec::Discrete(0));
/// assert_eq!(spec.to_string(), "wgpu:discrete:0");
/// # Ok::<(), inscape::device::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum DeviceSpec {
    /// The best real GPU if there is one, else the CPU backend.
    #[default]
    Auto,
    /// The CPU backend.
    Cpu,
    /// The best real GPU, or an error.
    Wgpu,
    /// The n-th discrete GPU.
    Discrete(usize),
    /// The n-th integrated GPU.
    Integrated(usize),
    /// The n-th GPU of a virtual machine.
    Virtual(usize),
    /// The n-th adapter whose driver does not say what it is.
    Other(usize),
    /// A software adapter (llvmpipe, WARP, SwiftShader): slow, for tests.
    Software,
}

impl FromStr for DeviceSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || Error::Spec { given: text.into() };
        let mut parts = text.split(':');
        let (head, kind, index) = (parts.next(), parts.next(), parts.next());
        if parts.next().is_some() {
            return Err(bad());
        }
        let number = || match index {
            None => Ok(0),
            Some(digits) => digits.parse().map_err(|_| bad()),
        };
        match (head, kind) {
            (Some("auto"), None) => Ok(Self::Auto),
            (Some("cpu"), None) => Ok(Self::Cpu),
            (Some("wgpu"), None) => Ok(Self::Wgpu),
            (Some("wgpu"), Some("discrete")) => Ok(Self::Discrete(number()?)),
            (Some("wgpu"), Some("integrated")) => Ok(Self::Integrated(number()?)),
            (Some("wgpu"), Some("virtual")) => Ok(Self::Virtual(number()?)),
            (Some("wgpu"), Some("other")) => Ok(Self::Other(number()?)),
            (Some("wgpu"), Some("software")) if index.is_none() => Ok(Self::Software),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Wgpu => f.write_str("wgpu"),
            Self::Discrete(n) => write!(f, "wgpu:discrete:{n}"),
            Self::Integrated(n) => write!(f, "wgpu:integrated:{n}"),
            Self::Virtual(n) => write!(f, "wgpu:virtual:{n}"),
            Self::Other(n) => write!(f, "wgpu:other:{n}"),
            Self::Software => f.write_str("wgpu:software"),
        }
    }
}

impl serde::Serialize for DeviceSpec {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_survives_a_round_trip() {
        use DeviceSpec::*;
        for spec in [
            Auto,
            Cpu,
            Wgpu,
            Discrete(1),
            Integrated(0),
            Virtual(2),
            Other(3),
            Software,
        ] {
            assert_eq!(spec.to_string().parse::<DeviceSpec>().unwrap(), spec);
        }
    }

    #[test]
    fn a_bad_form_lists_the_good_ones() {
        for text in [
            "",
            "gpu",
            "cpu:0",
            "wgpu:discrete:x",
            "wgpu:software:1",
            "wgpu:discrete:0:1",
        ] {
            let error = text.parse::<DeviceSpec>().unwrap_err().to_string();
            assert!(
                error.contains(&format!("`{text}`")) && error.contains(FORMS),
                "{error}"
            );
        }
    }
}
