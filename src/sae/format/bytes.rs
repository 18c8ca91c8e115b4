/// What is left of a file, taken from the front. Numbers are little-endian.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl<'a> Bytes<'a> {
    /// The next `n` bytes.
    pub(super) fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        let left = self.0.len();
        let parts = self.0.split_at_checked(n);
        let (head, rest) =
            parts.ok_or_else(|| format!("{n} bytes wanted where {left} are left"))?;
        self.0 = rest;
        Ok(head)
    }

    /// The next `N` bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        self.take(N).map(|b| b.try_into().expect("N were taken"))
    }

    pub(super) fn u8(&mut self) -> Result<u8, String> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, String> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_le_bytes)
    }

    /// The next `n` bytes as text.
    pub(super) fn text(&mut self, n: usize) -> Result<&'a str, String> {
        str::from_utf8(self.take(n)?).map_err(|_| "text that is not UTF-8".into())
    }

    /// Text up to a line feed, which is taken too.
    pub(super) fn line(&mut self) -> Result<&'a str, String> {
        let end = self.0.iter().position(|&b| b == b'\n');
        let line = self.text(end.ok_or("a line without an end")?)?;
        self.take(1)?;
        Ok(line)
    }

    /// Requires these bytes to come next.
    pub(super) fn expect(&mut self, wanted: &[u8], what: &str) -> Result<(), String> {
        match self.take(wanted.len())? == wanted {
            true => Ok(()),
            false => Err(format!("no {what} where one should be")),
        }
    }
}

/// A count of bytes or items that must fit this machine's memory.
pub(super) fn count(n: u64) -> Result<usize, String> {
    usize::try_from(n).map_err(|_| format!("{n} is too many for this machine"))
}
