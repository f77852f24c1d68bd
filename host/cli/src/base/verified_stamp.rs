//! Remembers that a file was read whole and had its SHA-256, so that later starts need not read it again.
//!
//! A stamp holds for the file's size, modification time and inode: any of them changes with whatever writes the file
//! by ordinary means. `base fetch --verify` reads it all the same.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use manifests::{BaseFile, Sha256};

/// What a file looked like when it was verified.
#[derive(Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Stamp {
    sha256: Sha256,
    size: u64,
    modified_s: i64,
    modified_ns: i64,
    inode: u64,
}

impl Stamp {
    fn of(sha256: Sha256, facts: &Metadata) -> Self {
        let (modified_s, modified_ns) = (facts.mtime(), facts.mtime_nsec());
        Self { sha256, size: facts.len(), modified_s, modified_ns, inode: facts.ino() }
    }
}

/// What a file on disk is, measured against its manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is not there.
    Missing,
    /// Size and hash are right.
    Sound,
    /// It is another file, or a part of it.
    Damaged(String),
}

/// Judges `path` by its stamp in `cache`, else by reading it whole; `again` reads it in any case. `progress` is told
/// the bytes read.
///
/// # Errors
/// The file is there and can't be read.
pub(crate) fn judge(
    path: &Path,
    expected: &BaseFile,
    cache: &Path,
    again: bool,
    progress: impl Fn(u64),
) -> std::io::Result<Verdict> {
    let facts = match std::fs::metadata(path) {
        Ok(facts) => facts,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Verdict::Missing),
        Err(error) => return Err(error),
    };
    if facts.len() != expected.size {
        return Ok(Verdict::Damaged(format!("it has {} bytes, expected {}", facts.len(), expected.size)));
    }
    let stamp_path = stamp_path(path, cache);
    let current = Stamp::of(expected.sha256, &facts);
    let remembered = std::fs::read(&stamp_path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    if !again && remembered == Some(current) {
        return Ok(Verdict::Sound);
    }
    let file = std::fs::File::open(path)?;
    let (found, _) = Sha256::of_reader(Counted { inner: file, progress })?;
    if found != expected.sha256 {
        // Without this, a stamp could outlive the content it vouched for.
        std::fs::remove_file(&stamp_path).ok();
        return Ok(Verdict::Damaged(format!("its SHA-256 is {found}, expected {}", expected.sha256)));
    }
    remember(path, expected.sha256, cache);
    Ok(Verdict::Sound)
}

/// Notes that `path` was just found to have this hash. A stamp that can't be written costs time later, nothing else.
pub(crate) fn remember(path: &Path, sha256: Sha256, cache: &Path) {
    let stamp_path = stamp_path(path, cache);
    let written = std::fs::metadata(path).and_then(|facts| {
        let text = serde_json::to_vec(&Stamp::of(sha256, &facts))?;
        std::fs::create_dir_all(stamp_path.parent().unwrap_or(cache))?;
        manifests::write_atomically(&stamp_path, &text)
    });
    if let Err(error) = written {
        tracing::debug!(stamp = %stamp_path.display(), %error, "the verification is not remembered");
    }
}

fn stamp_path(path: &Path, cache: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let key = Sha256::of_bytes(absolute.as_os_str().as_encoded_bytes());
    cache.join("verified").join(format!("{key}.json"))
}

/// A reader that tells how much was read.
struct Counted<R, P> {
    inner: R,
    progress: P,
}

impl<R: std::io::Read, P: Fn(u64)> std::io::Read for Counted<R, P> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        (self.progress)(read as u64);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn a_file_is_read_once_and_again_when_it_changed_or_when_asked() {
        let folder = tempfile::tempdir().unwrap();
        let (path, cache) = (folder.path().join("base.gguf"), folder.path().join("cache"));
        let expected =
            BaseFile { name: "base.gguf".parse().unwrap(), sha256: Sha256::of_bytes(b"good"), size: 4 };
        let read = Cell::new(0);
        let judge = |again| {
            read.set(0);
            judge(&path, &expected, &cache, again, |bytes| read.set(read.get() + bytes)).unwrap()
        };
        assert_eq!(judge(false), Verdict::Missing);
        std::fs::write(&path, "good").unwrap();
        assert_eq!((judge(false), read.get()), (Verdict::Sound, 4));
        assert_eq!((judge(false), read.get()), (Verdict::Sound, 0), "the stamp vouches for it");
        assert_eq!((judge(true), read.get()), (Verdict::Sound, 4));
        std::thread::sleep(std::time::Duration::from_millis(5));
        std::fs::write(&path, "evil").unwrap();
        assert!(matches!(judge(false), Verdict::Damaged(why) if why.contains("SHA-256")));
        std::fs::write(&path, "long text").unwrap();
        assert!(matches!(judge(false), Verdict::Damaged(why) if why == "it has 9 bytes, expected 4"));
    }
}
