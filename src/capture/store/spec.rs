//! How a matrix is named on a command line.

use std::ops::RangeInclusive;
use std::path::Path;

use super::Error;
use super::header::{self, Header};

/// Splits at the last colon with an existing path before it (a tensor's name may hold colons).
pub(super) fn split(spec: &str) -> Result<(&Path, Option<&str>), Error> {
    if Path::new(spec).exists() {
        return Ok((Path::new(spec), None));
    }
    let cuts = || {
        spec.rmatch_indices(':')
            .map(|(i, _)| (Path::new(&spec[..i]), &spec[i + 1..]))
    };
    if let Some((path, name)) = cuts().find(|(path, _)| path.exists()) {
        return Ok((path, Some(name)));
    }
    Err(Error::NoSource {
        spec: spec.to_owned(),
        path: cuts()
            .next()
            .map_or(Path::new(spec), |(path, _)| path)
            .to_owned(),
    })
}

pub(super) fn pick(
    header: &Header,
    path: &Path,
    tensor: Option<&str>,
    axes: &RangeInclusive<usize>,
) -> Result<String, Error> {
    let fitting = || {
        let fits = |name: &String| {
            let info = header.info(name).expect("a name it gave");
            axes.contains(&info.shape.len()) && header::is_float(info.dtype)
        };
        header.names().into_iter().filter(fits).collect::<Vec<_>>()
    };
    let path = path.to_owned();
    match tensor {
        Some(name) if header.info(name).is_some() => Ok(name.to_owned()),
        Some(name) => {
            let (tensor, found) = (name.to_owned(), header.names());
            Err(Error::NoTensor {
                path,
                tensor,
                found,
            })
        }
        None => match <[String; 1]>::try_from(fitting()) {
            Ok([only]) => Ok(only),
            Err(found) => Err(Error::Which { path, found }),
        },
    }
}
