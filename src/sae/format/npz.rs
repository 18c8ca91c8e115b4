//! Files of `numpy.savez`: a zip archive with one `.npy` an array.

use std::collections::BTreeMap;
use std::path::Path;

use super::archive::{Archive, Writer};
use super::bytes::{Bytes, count};
use super::pickle::Dtype;
use super::pt::{places, product};
use super::tensors::{HostTensor, Tensors};
use super::{Error, malformed};

const MAGIC: &[u8] = b"\x93NUMPY";
/// Bytes that a header may have.
const LONGEST: usize = 1 << 16;
/// Dimensions that an array may have.
const DIMENSIONS: usize = 8;

/// Every array of an `.npz` file as f32, whatever its number type. Arrays of Python objects, which
/// are pickles, are refused.
///
/// # Errors
/// Names the file and the array.
pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Tensors, Error> {
    let archive = Archive::parse(bytes).map_err(|e| malformed(path, e))?;
    let mut map = BTreeMap::new();
    for entry in archive.names() {
        let Some(name) = entry.strip_suffix(".npy") else {
            let reason = format!("entry `{entry}` is no .npy file");
            return Err(malformed(path, reason));
        };
        let array = archive.read(entry).and_then(|bytes| npy(&bytes));
        let array = array.map_err(|e| malformed(path, format!("array `{name}`: {e}")))?;
        map.insert(name.to_string(), array);
    }
    let path = path.into();
    Ok(Tensors { path, map })
}

/// The bytes of an `.npz` file with these f32 arrays.
///
/// # Errors
/// It would have more than 4 GiB.
pub(super) fn write(arrays: Vec<(&str, Vec<usize>, Vec<f32>)>) -> Result<Vec<u8>, String> {
    let mut archive = Writer::default();
    for (name, shape, values) in arrays {
        let mut bytes = header(&shape);
        bytes.extend(values.into_iter().flat_map(f32::to_le_bytes));
        archive.add(&format!("{name}.npy"), &bytes)?;
    }
    archive.finish()
}

/// Version 1, padded so that the numbers lie at a multiple of 64 bytes.
fn header(shape: &[usize]) -> Vec<u8> {
    let sizes: String = shape.iter().map(|n| format!("{n}, ")).collect();
    let sizes = sizes.trim_end();
    let mut text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({sizes}), }}");
    while !(MAGIC.len() + 4 + text.len() + 1).is_multiple_of(64) {
        text.push(' ');
    }
    text.push('\n');
    let length = (text.len() as u16).to_le_bytes();
    [MAGIC, &[1, 0], &length, text.as_bytes()].concat()
}

/// An `.npy` file of version 1, 2 or 3.
fn npy(bytes: &[u8]) -> Result<HostTensor, String> {
    let mut left = Bytes(bytes);
    left.expect(MAGIC, "NumPy array")?;
    let length = match left.array()? {
        [1, _] => left.u16()?.into(),
        [2 | 3, _] => count(left.u32()?.into())?,
        [version, _] => return Err(format!("version {version}; 1 to 3 are read")),
    };
    if length > LONGEST {
        return Err(format!(
            "a header of {length} bytes; at most {LONGEST} are read"
        ));
    }
    let header = Header::parse(left.text(length)?)?;
    let wanted = product(&header.shape).and_then(|n| n.checked_mul(header.dtype.bytes()));
    if wanted != Some(left.0.len()) {
        let (shape, found) = (header.shape, left.0.len());
        return Err(format!("{found} bytes for the shape {shape:?}"));
    }
    let values = header.dtype.floats(left.0);
    Ok(HostTensor {
        values: match header.fortran {
            true => across(&values, &header.shape),
            false => values,
        },
        shape: header.shape,
    })
}

/// Values with the first dimension running fastest, laid out with the last running fastest.
fn across(values: &[f32], shape: &[usize]) -> Vec<f32> {
    if values.is_empty() {
        return Vec::new();
    }
    let before = |i: usize| shape[..i].iter().product();
    let steps: Vec<usize> = (0..shape.len()).map(before).collect();
    let places = places(0, shape, &steps);
    places.into_iter().map(|place| values[place]).collect()
}

#[derive(Debug)]
struct Header {
    dtype: Dtype,
    fortran: bool,
    shape: Vec<usize>,
}

impl Header {
    /// Of `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`, in any order.
    fn parse(text: &str) -> Result<Self, String> {
        let mut text = Literal(text.trim_ascii());
        let (mut dtype, mut fortran, mut shape) = (None, None, None);
        text.take("{")?;
        while !text.try_take("}") {
            let key = text.quoted()?;
            text.take(":")?;
            match key {
                "descr" => dtype = Some(number(text.quoted()?)?),
                "fortran_order" => fortran = Some(text.flag()?),
                "shape" => shape = Some(text.sizes()?),
                _ => return Err(format!("a header with `{key}`")),
            }
            if !text.try_take(",") {
                text.take("}")?;
                break;
            }
        }
        match (dtype, fortran, shape, text.0) {
            (Some(dtype), Some(fortran), Some(shape), "") => Ok(Self {
                dtype,
                fortran,
                shape,
            }),
            _ => Err("a header that does not say type, order and shape alone".into()),
        }
    }
}

/// A number type as NumPy writes it.
fn number(descr: &str) -> Result<Dtype, String> {
    Ok(match descr {
        "<f8" => Dtype::F64,
        "<f4" => Dtype::F32,
        "<f2" => Dtype::F16,
        "<i8" => Dtype::I64,
        "<i4" => Dtype::I32,
        "<i2" => Dtype::I16,
        "|i1" => Dtype::I8,
        "|u1" => Dtype::U8,
        "|b1" => Dtype::Bool,
        _ if descr.starts_with('>') => return Err(format!("`{descr}`: byte order is not little")),
        _ => return Err(format!("`{descr}`: no number type that is read")),
    })
}

/// What is left of a Python literal.
struct Literal<'a>(&'a str);

impl<'a> Literal<'a> {
    /// Takes `token` and the blanks behind it, if it comes next.
    fn try_take(&mut self, token: &str) -> bool {
        let rest = self.0.strip_prefix(token);
        self.0 = rest.map_or(self.0, str::trim_ascii_start);
        rest.is_some()
    }

    fn take(&mut self, token: &str) -> Result<(), String> {
        match self.try_take(token) {
            true => Ok(()),
            false => Err(format!("a header without `{token}` where it should be")),
        }
    }

    /// A text in either kind of quotes. There are no escapes in a header.
    fn quoted(&mut self) -> Result<&'a str, String> {
        let quote = if self.0.starts_with('"') { "\"" } else { "'" };
        self.take(quote)?;
        let parts = self.0.split_once(quote);
        let (text, rest) = parts.ok_or("a text in a header that does not end")?;
        self.0 = rest.trim_ascii_start();
        Ok(text)
    }

    fn flag(&mut self) -> Result<bool, String> {
        if self.try_take("True") {
            return Ok(true);
        }
        self.take("False").map(|()| false)
    }

    fn sizes(&mut self) -> Result<Vec<usize>, String> {
        self.take("(")?;
        let mut sizes = Vec::new();
        while !self.try_take(")") {
            let digits = self.0.find(|c: char| !c.is_ascii_digit());
            let (number, rest) = self.0.split_at(digits.unwrap_or(self.0.len()));
            let size = number.parse().map_err(|_| "a size that is no number")?;
            if sizes.len() == DIMENSIONS {
                return Err(format!("more than {DIMENSIONS} dimensions"));
            }
            sizes.push(size);
            self.0 = rest.trim_ascii_start();
            if !self.try_take(",") {
                self.take(")")?;
                break;
            }
        }
        Ok(sizes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(header: &str, data: &[u8]) -> Result<HostTensor, String> {
        let length = (header.len() as u16).to_le_bytes();
        npy(&[MAGIC, &[1, 0], &length, header.as_bytes(), data].concat())
    }

    #[test]
    fn what_is_written_is_read_and_lies_at_a_multiple_of_64() {
        for shape in [vec![], vec![3], vec![2, 3], vec![0, 5]] {
            let values: Vec<f32> = (0..product(&shape).unwrap())
                .map(|i| i as f32 - 0.5)
                .collect();
            assert_eq!(header(&shape).len() % 64, 0);
            let bytes = write(vec![("x", shape.clone(), values.clone())]).unwrap();
            let all = parse(Path::new("x.npz"), &bytes).unwrap();
            assert_eq!(all.map["x"].shape, shape);
            assert_eq!(all.map["x"].values, values);
        }
    }

    #[test]
    fn number_types_and_orders_are_read() {
        let text = "{ \"descr\":'<i4' ,'fortran_order' : True,'shape':(2,3)}   \n";
        let bytes: Vec<u8> = (0..6i32).flat_map(i32::to_le_bytes).collect();
        let x = array(text, &bytes).unwrap();
        assert_eq!(x.values, [0., 2., 4., 1., 3., 5.]);
        for (descr, data, want) in [
            ("<f2", vec![0, 0x3e], 1.5),
            ("<f8", (-0.25f64).to_le_bytes().to_vec(), -0.25),
            ("<i8", (-9i64).to_le_bytes().to_vec(), -9.0),
            ("<i2", vec![0xfe, 0xff], -2.0),
            ("|i1", vec![0xff], -1.0),
            ("|u1", vec![0xff], 255.0),
            ("|b1", vec![2], 1.0),
        ] {
            let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (), }}");
            assert_eq!(array(&text, &data).unwrap().values, [want], "{descr}");
        }
    }
}
