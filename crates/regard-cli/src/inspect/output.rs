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

    pub(super) fn write(self, content: &str) -> Result<(), Box<dyn Error>> {
        match self {
            Output::Stdout => {
                let line_ended = content.ends_with('\n');
                Ok(write!(io::stdout(), "{content}{}", if line_ended { "" } else { "\n" })?)
            }
            Output::File { place, mut beside } => {
                let failed = |error: io::Error| format!("cannot write {}: {error}", place.display());
                beside.write_all(content.as_bytes()).map_err(failed)?;
                beside.persist(&place).map_err(|error| failed(error.error))?;
                Ok(())
            }
        }
    }
}
