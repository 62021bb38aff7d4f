//! A file that is written whole or not at all.

use std::error::Error;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// Where something will be written.
pub(super) enum Output {
    Stdout,
    /// Written beside its place, and moved there when it is whole.
    File {
        place: PathBuf,
        beside: NamedTempFile,
    },
}

impl Output {
    /// Takes a place: `-` is standard output.
    pub(super) fn open(path: &Path) -> Result<Self, Box<dyn Error>> {
        if path == Path::new("-") {
            return Ok(Output::Stdout);
        }
        let failed = |error: io::Error| format!("cannot write {}: {error}", path.display());
        if path.is_dir() {
            return Err(failed(io::ErrorKind::IsADirectory.into()).into());
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut builder = tempfile::Builder::new();
        builder.prefix(".regard-");
        #[cfg(unix)] // those of any new file: a temporary one is for its owner alone
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        // The library's error names the file beside, which says nothing to a user.
        let beside = builder.tempfile_in(folder).map_err(|error| failed(error.kind().into()))?;
        Ok(Output::File { place: path.to_owned(), beside })
    }

    /// Writes it; a text that goes to standard output ends its line.
    pub(super) fn write(self, content: &[u8]) -> Result<(), Box<dyn Error>> {
        match self {
            Output::Stdout => {
                let line_open = std::str::from_utf8(content).is_ok_and(|text| !text.ends_with('\n'));
                io::stdout().write_all(content)?;
                Ok(io::stdout().write_all(if line_open { b"\n" } else { b"" })?)
            }
            Output::File { place, mut beside } => {
                let failed = |error: io::Error| format!("cannot write {}: {error}", place.display());
                beside.write_all(content).map_err(failed)?;
                beside.persist(&place).map_err(|error| failed(error.error))?;
                Ok(())
            }
        }
    }
}
