//! Files that appear whole or not at all.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Writes `bytes` beside `path` and renames: a reader sees the old file or the new one, never a part. On any error the
/// file written beside is removed and `path` is as it was. The folder must exist.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_atomically(path, |file| file.write_all(bytes))
}

/// The same for content that `fill` produces piece by piece.
pub fn replace_atomically(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    let Some(name) = path.file_name() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"));
    };
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let mut beside_name = std::ffi::OsString::from(format!(".{}-{serial}.", std::process::id()));
    beside_name.push(name);
    beside_name.push(".part");
    let beside = path.with_file_name(beside_name);
    let written = (|| {
        let mut file = File::create_new(&beside)?;
        fill(&mut file)?;
        file.sync_all()?;
        drop(file);
        std::fs::rename(&beside, path)
    })();
    if written.is_err() {
        // The first error is the one to report.
        std::fs::remove_file(&beside).ok();
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pack.toml");
        write_atomically(&path, b"old").unwrap();
        let failed = replace_atomically(&path, |file| {
            file.write_all(b"half")?;
            Err(io::Error::other("the disk is full"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "the disk is full");
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        write_atomically(&path, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
