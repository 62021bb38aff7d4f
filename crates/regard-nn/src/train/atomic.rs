//! Files that are replaced whole or not at all, whenever the process dies.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::TrainError;

/// Replaces `path` by what `write` produces: written beside it, flushed to the disk, then renamed over it.
///
/// # Errors
/// [`TrainError::Write`]; `path` then holds what it held before.
pub(crate) fn replace(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), TrainError> {
    let partial = partial(path);
    let attempt = || {
        let mut file = File::create(&partial)?;
        write(&mut file)?;
        file.sync_all()?;
        fs::rename(&partial, path)?;
        sync_directory(path)
    };
    attempt().map_err(|source| {
        let _ = fs::remove_file(&partial); // the error that matters is the first one
        TrainError::Write { path: path.into(), source }
    })
}

/// [`replace`] with the bytes at hand.
pub(crate) fn replace_with(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    replace(path, |file| file.write_all(bytes))
}

/// Where the new content lies until it is complete.
pub(crate) fn partial(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".partial");
    path.with_file_name(name)
}

/// A rename is on the disk only when its directory is; only Unix can open one.
fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if cfg!(unix) { File::open(parent)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        replace_with(&path, b"old").unwrap();
        let failure = replace(&path, |file| {
            file.write_all(b"half of the n")?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        });
        assert!(failure.unwrap_err().to_string().contains("previous version"));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no partial file is left");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_leaves_the_old_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        replace_with(&path, b"old").unwrap();
        std::os::unix::fs::symlink("/dev/full", partial(&path)).unwrap();
        let failure = replace_with(&path, b"new").unwrap_err().to_string();
        assert!(failure.contains("No space left on device"), "{failure}");
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }
}
