//! A file as bytes in memory, read from the disk when they are first looked at.
#![allow(unsafe_code)]

use std::fs::File;
use std::ops::Deref;
use std::path::Path;

use memmap2::Mmap;

use crate::{Error, Result};

/// The bytes of a file. Files of weights are large and each byte is needed once: a mapping reads no more than is used.
///
/// The file must not be shortened while it is mapped: the system ends a program that reads what is no longer there.
#[derive(Debug)]
pub(crate) struct Mapped(Mmap);

impl Mapped {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let read = |source| Error::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(read)?;
        // SAFETY: the mapping is only read; that nobody else changes the file while a model is loaded is the caller's side, as for
        // every program that maps its weights.
        Ok(Self(unsafe { Mmap::map(&file) }.map_err(read)?))
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_its_bytes_and_an_empty_file_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weights");
        for bytes in [&b""[..], b"GGUF and more"] {
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(&*Mapped::open(&path).unwrap(), bytes);
        }
    }

    #[test]
    fn a_missing_file_and_a_directory_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        for path in [dir.path().join("missing"), dir.path().to_owned()] {
            let error = Mapped::open(&path).unwrap_err().to_string();
            assert!(error.starts_with(&format!("cannot read {}: ", path.display())), "{error}");
        }
    }
}
