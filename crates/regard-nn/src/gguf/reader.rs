//! A cursor over the bytes of a file that never leaves them.

use super::wrong;
use crate::Result;

#[derive(Clone)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes from the beginning of the file.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Bytes of the file.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn take(&mut self, count: u64, field: &str) -> Result<&'a [u8]> {
        let left = &self.bytes[self.at..];
        match usize::try_from(count).ok().and_then(|count| left.get(..count)) {
            Some(taken) => {
                self.at += taken.len();
                Ok(taken)
            }
            None => wrong(
                field,
                format!("{count} bytes long at byte {}", self.at),
                format!("within the {} bytes of the file: copy or download it again", self.bytes.len()),
            ),
        }
    }

    /// Refuses a count of things of at least `size` bytes each that the rest of the file cannot hold.
    pub(super) fn holds(&self, count: u64, size: u64, field: &str) -> Result<()> {
        let left = (self.bytes.len() - self.at) as u64;
        match count.checked_mul(size) {
            Some(bytes) if bytes <= left => Ok(()),
            _ => wrong(field, count, format!("at most {}, what the rest of the file can hold", left / size)),
        }
    }

    fn array<const N: usize>(&mut self, field: &str) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64, field)?);
        Ok(array)
    }

    pub(super) fn u32(&mut self, field: &str) -> Result<u32> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, field: &str) -> Result<u64> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// A length and that many bytes of UTF-8.
    pub(super) fn text(&mut self, field: &str) -> Result<&'a str> {
        let length = self.u64(field)?;
        let bytes = self.take(length, field)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text),
            Err(error) => wrong(field, format!("not UTF-8 from its byte {}", error.valid_up_to()), "text in UTF-8"),
        }
    }
}
