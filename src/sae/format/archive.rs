//! Zip archives, which `.pt` and `.npz` files are, read from memory and strictly.
//!
//! Understood is what `torch.save` and `numpy.savez` write: entries stored or deflated, zip64
//! sizes. Encryption, further disks, entries that overlap, names that climb out of the archive and
//! archives that unpack to many times their length are refused.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Read;
use std::ops::Range;

use flate2::Crc;
use flate2::read::DeflateDecoder;

use super::bytes::{Bytes, count};

const LOCAL: &[u8] = b"PK\x03\x04";
const ENTRY: &[u8] = b"PK\x01\x02";
const END: &[u8] = b"PK\x05\x06";
const END64: &[u8] = b"PK\x06\x06";
const LOCATOR64: &[u8] = b"PK\x06\x07";

/// What an archive may unpack to: this many times its length and [`SLACK`]. Weights hardly shrink.
const RATIO: usize = 16;
const SLACK: usize = 1 << 20;

/// A zip archive in memory.
#[derive(Debug)]
pub(super) struct Archive<'a> {
    bytes: &'a [u8],
    entries: BTreeMap<&'a str, Entry>,
    /// Bytes that all entries unpack to.
    pub(super) unpacked: usize,
}

#[derive(Clone, Debug)]
struct Entry {
    deflated: bool,
    crc: u32,
    size: usize,
    /// From its local header on.
    header: usize,
    data: Range<usize>,
}

impl<'a> Archive<'a> {
    /// Reads the directory.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, String> {
        let directory = Directory::find(bytes)?;
        let mut left = Bytes(&bytes[directory.span.clone()]);
        let mut entries = BTreeMap::new();
        for _ in 0..directory.entries {
            let (name, entry) = entry(&mut left, &bytes[..directory.span.start])?;
            safe(name)?;
            if entries.insert(name, entry).is_some() {
                return Err(format!("entry `{name}` is there twice"));
            }
        }
        apart(&entries)?;
        let unpacked = unpacked(&entries, bytes.len())?;
        Ok(Self {
            bytes,
            entries,
            unpacked,
        })
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &'a str> {
        self.entries.keys().copied()
    }

    /// What an entry unpacks to, in bytes.
    pub(super) fn size(&self, name: &str) -> Option<usize> {
        self.entries.get(name).map(|entry| entry.size)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// The contents of an entry, checked against its CRC-32. Only a deflated one is copied.
    pub(super) fn read(&self, name: &str) -> Result<Cow<'a, [u8]>, String> {
        let entry = self.entries.get(name);
        let entry = entry.ok_or_else(|| format!("entry `{name}` is missing"))?;
        let packed = &self.bytes[entry.data.clone()];
        let plain = match entry.deflated {
            false => Cow::Borrowed(packed),
            true => Cow::Owned(inflate(packed, entry.size).map_err(|e| format!("{name}: {e}"))?),
        };
        match crc(&plain) == entry.crc {
            true => Ok(plain),
            false => Err(format!("entry `{name}` is damaged: its CRC-32 differs")),
        }
    }
}

fn inflate(packed: &[u8], size: usize) -> Result<Vec<u8>, String> {
    let mut plain = Vec::new();
    let one_more = (size as u64).saturating_add(1); // to see that it does not end there
    let mut stream = DeflateDecoder::new(packed).take(one_more);
    stream.read_to_end(&mut plain).map_err(|e| e.to_string())?;
    match plain.len() == size {
        true => Ok(plain),
        false => Err(format!("does not inflate to its {size} bytes")),
    }
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// Where the directory lies.
struct Directory {
    span: Range<usize>,
    entries: u64,
}

impl Directory {
    fn find(bytes: &[u8]) -> Result<Self, String> {
        let end = end_record(bytes).ok_or("no zip archive, or one that is cut off")?;
        let mut record = Bytes(&bytes[end + 4..]);
        let disks = [record.u16()?, record.u16()?].map(u32::from);
        let entries = [record.u16()?, record.u16()?].map(u64::from);
        let size = record.u32()?.into();
        let start = record.u32()?.into();
        let locator = end.checked_sub(20).map(|at| &bytes[at..end]);
        match locator.filter(|l| l.starts_with(LOCATOR64)) {
            Some(locator) => Self::find64(bytes, Bytes(&locator[4..])),
            None => Self::new(disks, entries, [start, size], end),
        }
    }

    fn find64(bytes: &[u8], mut locator: Bytes<'_>) -> Result<Self, String> {
        locator.u32()?;
        let at = count(locator.u64()?)?;
        let rest = bytes.get(at..).ok_or("a zip64 record beyond the file")?;
        let mut record = Bytes(rest);
        record.expect(END64, "zip64 record")?;
        record.take(12)?; // its length and versions
        let disks = [record.u32()?, record.u32()?];
        let entries = [record.u64()?, record.u64()?];
        let size = record.u64()?;
        let start = record.u64()?;
        Self::new(disks, entries, [start, size], at)
    }

    /// Checks that it lies before `end`.
    fn new(
        disks: [u32; 2],
        entries: [u64; 2],
        [start, size]: [u64; 2],
        end: usize,
    ) -> Result<Self, String> {
        if disks != [0, 0] || entries[0] != entries[1] {
            return Err("a zip archive over several disks".into());
        }
        match start.checked_add(size) {
            Some(stop) if stop <= end as u64 && entries[0] <= size / 46 => Ok(Self {
                span: count(start)?..count(stop)?,
                entries: entries[0],
            }),
            _ => Err("a zip directory beyond the file".into()),
        }
    }
}

/// The record that ends an archive, with a comment of at most 65,535 bytes behind it.
fn end_record(bytes: &[u8]) -> Option<usize> {
    let ends = |comment: usize| {
        let at = bytes.len().checked_sub(22 + comment)?;
        let length = (comment as u16).to_le_bytes();
        let fits = bytes[at..].starts_with(END) && bytes[at + 20..].starts_with(&length);
        fits.then_some(at)
    };
    (0..=usize::from(u16::MAX)).find_map(ends)
}

/// The next entry of the directory; its data lie in `before`.
fn entry<'a>(left: &mut Bytes<'a>, before: &'a [u8]) -> Result<(&'a str, Entry), String> {
    left.expect(ENTRY, "zip entry")?;
    left.take(4)?; // versions
    let flags = left.u16()?;
    let method = left.u16()?;
    left.take(4)?; // time
    let crc = left.u32()?;
    let sizes = [left.u32()?, left.u32()?];
    let lengths = [left.u16()?, left.u16()?, left.u16()?].map(usize::from);
    let disk = left.u16()?;
    left.take(6)?; // attributes
    let offset = left.u32()?;
    let name = left.text(lengths[0])?;
    let extra = left.take(lengths[1])?;
    left.take(lengths[2])?; // comment
    if flags & 0x2041 != 0 {
        return Err(format!("entry `{name}` is encrypted"));
    }
    if !matches!(method, 0 | 8) || disk != 0 {
        return Err(format!(
            "entry `{name}` is packed in another way ({method})"
        ));
    }
    let [size, packed, header] = wide([sizes[1], sizes[0], offset], extra)?;
    if method == 0 && size != packed {
        return Err(format!("entry `{name}` is stored, yet has two sizes"));
    }
    let entry = Entry {
        deflated: method == 8,
        crc,
        size,
        header,
        data: data(name, header, packed, before)?,
    };
    Ok((name, entry))
}

/// Size, packed size and offset; those of all ones stand in the zip64 field of `extra`.
fn wide(narrow: [u32; 3], extra: &[u8]) -> Result<[usize; 3], String> {
    let mut extra = Bytes(extra);
    let mut field = Bytes(&[]);
    while extra.0.len() >= 4 && field.0.is_empty() {
        let (id, length) = (extra.u16()?, extra.u16()?);
        let part = extra.take(length.into())?;
        if id == 1 {
            field = Bytes(part);
        }
    }
    let mut all = [0; 3];
    for (wide, narrow) in all.iter_mut().zip(narrow) {
        *wide = match narrow {
            u32::MAX => count(field.u64()?)?,
            narrow => narrow as usize,
        };
    }
    Ok(all)
}

/// Where the data behind a local header lie.
fn data(name: &str, at: usize, packed: usize, before: &[u8]) -> Result<Range<usize>, String> {
    let beyond = || format!("entry `{name}` lies beyond the file");
    let mut local = Bytes(before.get(at..).ok_or_else(beyond)?);
    local.expect(LOCAL, "local header")?;
    local.take(22)?;
    let lengths = [local.u16()?, local.u16()?].map(usize::from);
    if local.take(lengths[0])? != name.as_bytes() {
        return Err(format!("entry `{name}` has two names"));
    }
    local.take(lengths[1])?;
    let start = before.len() - local.0.len();
    local.take(packed).map_err(|_| beyond())?;
    Ok(start..start + packed)
}

/// Refuses names that would leave the archive's folder, were it unpacked.
fn safe(name: &str) -> Result<(), String> {
    let climbs = name.split('/').any(|part| part == "..");
    match climbs || name.starts_with('/') || name.contains(['\\', '\0']) {
        true => Err(format!("entry {name:?} has a name that is refused")),
        false => Ok(()),
    }
}

/// Refuses entries that share bytes.
fn apart(entries: &BTreeMap<&str, Entry>) -> Result<(), String> {
    let mut spans: Vec<(usize, usize, &str)> = entries
        .iter()
        .map(|(name, e)| (e.header, e.data.end, *name))
        .collect();
    spans.sort_unstable();
    match spans.windows(2).find(|pair| pair[0].1 > pair[1].0) {
        Some(pair) => Err(format!(
            "entries `{}` and `{}` overlap",
            pair[0].2, pair[1].2
        )),
        None => Ok(()),
    }
}

/// Bytes that all entries unpack to, if they are not absurdly many.
fn unpacked(entries: &BTreeMap<&str, Entry>, length: usize) -> Result<usize, String> {
    let most = length.saturating_mul(RATIO).saturating_add(SLACK);
    let mut sizes = entries.values().map(|e| e.size);
    let sum = sizes.try_fold(0usize, |sum, size| sum.checked_add(size));
    match sum.filter(|&sum| sum <= most) {
        Some(sum) => Ok(sum),
        None => Err(format!(
            "{length} bytes that unpack to more than {most}: refused"
        )),
    }
}

/// Writes an archive whose entries are stored as they are.
#[derive(Debug, Default)]
pub(super) struct Writer {
    out: Vec<u8>,
    directory: Vec<u8>,
    entries: u16,
}

impl Writer {
    /// Adds an entry.
    pub(super) fn add(&mut self, name: &str, data: &[u8]) -> Result<(), String> {
        let offset = narrow(self.out.len())?.to_le_bytes();
        let size = narrow(data.len())?.to_le_bytes();
        let length = (name.len() as u16).to_le_bytes();
        // Version 2.0, UTF-8 names, stored, 1980-01-01.
        let mut common = vec![20, 0, 0, 8, 0, 0, 0, 0, 0x21, 0];
        common.extend(crc(data).to_le_bytes());
        common.extend([size, size].concat());
        common.extend([length, [0, 0]].concat());
        self.out.extend([LOCAL, &common, name.as_bytes()].concat());
        self.out.extend_from_slice(data);
        let entry = [ENTRY, &[20, 0], &common, &[0; 10], &offset, name.as_bytes()];
        self.directory.extend(entry.concat());
        self.entries += 1;
        Ok(())
    }

    /// The archive's bytes.
    pub(super) fn finish(mut self) -> Result<Vec<u8>, String> {
        let start = narrow(self.out.len())?.to_le_bytes();
        let size = narrow(self.directory.len())?.to_le_bytes();
        let entries = self.entries.to_le_bytes();
        let end = [END, &[0; 4], &entries, &entries, &size, &start, &[0; 2]];
        self.out.append(&mut self.directory);
        self.out.extend(end.concat());
        Ok(self.out)
    }
}

fn narrow(n: usize) -> Result<u32, String> {
    let fits = u32::try_from(n).ok().filter(|&n| n != u32::MAX);
    fits.ok_or_else(|| "more than 4 GiB: not written in this format".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut writer = Writer::default();
        let entries: [(&str, &[u8]); 3] = [("a/one", b"1"), ("a/none", b""), ("b", &[7; 300])];
        for (name, data) in entries {
            writer.add(name, data).unwrap();
        }
        let bytes = writer.finish().unwrap();
        let archive = Archive::parse(&bytes).unwrap();
        assert_eq!(archive.names().count(), 3);
        assert_eq!(archive.unpacked, 301);
        for (name, data) in entries {
            assert_eq!(*archive.read(name).unwrap(), *data, "{name}");
        }
        assert!(archive.read("c").unwrap_err().contains("`c` is missing"));
        let commented = [&bytes[..bytes.len() - 2], &[3, 0], b"abc"].concat();
        assert_eq!(Archive::parse(&commented).unwrap().unpacked, 301);
    }

    /// Sizes of all ones stand in the zip64 field, in the order of the record, those alone.
    #[test]
    fn zip64_sizes_are_taken_from_their_field() {
        let field = |all: &[u64]| {
            let bytes: Vec<u8> = all.iter().flat_map(|n| n.to_le_bytes()).collect();
            let other = [9u8, 9, 1, 0, 5]; // a field of another kind before it
            let head = [1, 0, bytes.len() as u8, 0];
            [&other[..], &head, &bytes].concat()
        };
        assert_eq!(wide([1, 2, 3], &[]).unwrap(), [1, 2, 3]);
        let all = [5 << 32, 6 << 32, 7 << 32];
        assert_eq!(
            wide([u32::MAX; 3], &field(&all)).unwrap(),
            all.map(|n| n as usize)
        );
        assert_eq!(wide([4, 4, u32::MAX], &field(&[8])).unwrap(), [4, 4, 8]);
        assert!(wide([u32::MAX, 4, u32::MAX], &field(&[8])).is_err());
        assert!(wide([u32::MAX, 4, 4], &[]).is_err());
    }
}
