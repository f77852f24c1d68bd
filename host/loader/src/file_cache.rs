//! Copies of packs' files by generation, which nobody else writes.
//!
//! A mapped file that is overwritten in place ends the process (SIGBUS), and `dlopen` of a path whose file was replaced
//! gives the old library while that is open. A copy named by the generation has neither trouble.

use std::{
    fs::{self, File, Permissions},
    io::{self, Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use manifests::Sha256;
use sha2::Digest;
use tempfile::NamedTempFile;

use crate::Generation;

/// A folder of read-only copies.
#[derive(Debug, Clone)]
pub struct FileCache {
    folder: PathBuf,
}

/// Why a copy could not be made. Nothing half-written is left.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// Reading or writing failed: no space, no permission.
    #[error("can't copy a pack's file to `{}`: {source}; is there space, and may this user write there?", path.display())]
    Io {
        /// The copy.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file changed between being verified and being copied.
    #[error("the file for `{}` changed while it was copied: expected SHA-256 {expected}, found {found}", path.display())]
    Changed {
        /// The copy.
        path: PathBuf,
        /// Of the verified file.
        expected: Sha256,
        /// Of what was copied.
        found: Sha256,
    },
}

impl FileCache {
    /// A cache in `folder`, which is made at the first copy.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the library of a generation lies, once stored.
    pub fn library_path(&self, generation: Generation) -> PathBuf {
        self.folder.join(format!("{}.so", generation.to_hex()))
    }

    /// Where the weights of a generation lie, once stored.
    pub fn weights_path(&self, generation: Generation) -> PathBuf {
        self.folder.join(format!("{}.safetensors", generation.to_hex()))
    }

    /// Where the manifest of a generation lies, once stored.
    pub fn manifest_path(&self, generation: Generation) -> PathBuf {
        self.folder.join(format!("{}.toml", generation.to_hex()))
    }

    /// Whether `path` holds the content with that hash. All of it is read.
    pub fn holds(&self, path: &Path, expected: &Sha256) -> bool {
        Sha256::of_file(path).is_ok_and(|(found, _)| found == *expected)
    }

    /// Makes sure that `path` holds the content with that hash, read from `source` if it does not; mode 0444. What is
    /// used later is therefore what was verified, whatever happens to the original.
    ///
    /// # Errors
    /// [`CacheError`]; a copy that failed leaves no file behind.
    pub fn store(&self, path: &Path, source: &mut impl Read, expected: &Sha256) -> Result<(), CacheError> {
        let io_error = |source| CacheError::Io { path: path.to_owned(), source };
        if self.holds(path, expected) {
            return Ok(());
        }
        fs::create_dir_all(&self.folder).map_err(io_error)?;
        // Written beside and renamed: a reader sees all of it or nothing. Dropped on an error, it deletes itself.
        let mut copy =
            tempfile::Builder::new().prefix(".copy-").tempfile_in(&self.folder).map_err(io_error)?;
        let found = copy_and_hash(source, &mut copy).map_err(io_error)?;
        if found != *expected {
            return Err(CacheError::Changed { path: path.to_owned(), expected: *expected, found });
        }
        copy.as_file().set_permissions(Permissions::from_mode(0o444)).map_err(io_error)?;
        // Not synced: every use verifies the hash, so a copy that a crash left torn is found and made again.
        copy.persist(path).map_err(|error| io_error(error.error))?;
        Ok(())
    }

    /// Marks the copies of a generation as used now; see [`FileCache::trim`].
    pub fn touch(&self, generation: Generation) {
        let now = SystemTime::now();
        for path in self.paths(generation) {
            // A copy that can't be marked is only trimmed earlier.
            let _ = File::open(path).and_then(|file| file.set_modified(now));
        }
    }

    fn paths(&self, generation: Generation) -> [PathBuf; 3] {
        [self.library_path(generation), self.weights_path(generation), self.manifest_path(generation)]
    }

    /// Deletes the copies of a generation. One that is still mapped stays readable until it is unmapped.
    ///
    /// # Errors
    /// A copy exists and can't be deleted.
    pub fn remove(&self, generation: Generation) -> Result<(), CacheError> {
        for path in self.paths(generation) {
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(CacheError::Io { path, source });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn copy_and_hash(source: &mut impl Read, copy: &mut NamedTempFile) -> io::Result<Sha256> {
    let mut hasher = sha2::Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok(Sha256::from_bytes(hasher.finalize().into())),
            Ok(read) => {
                hasher.update(&buffer[..read]);
                copy.write_all(&buffer[..read])?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .map(|entries| entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect())
            .unwrap_or_default();
        names.sort();
        names
    }

    #[test]
    fn copies_are_read_only_whole_and_kept() {
        let root = tempfile::tempdir().unwrap();
        let cache = FileCache::new(root.path().join("made/on/demand"));
        let original = root.path().join("original");
        fs::write(&original, b"library").unwrap();
        let hash = Sha256::of_bytes(b"library");
        let generation = Generation::new(&hash, &hash, None);
        let path = cache.library_path(generation);
        cache.store(&path, &mut File::open(&original).unwrap(), &hash).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"library");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o444);

        // Damage is noticed and repaired, and an intact copy is not written again.
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        fs::write(&path, b"damaged").unwrap();
        cache.store(&path, &mut File::open(&original).unwrap(), &hash).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"library");
        fs::remove_file(&original).unwrap();
        let mut empty = tempfile::tempfile().unwrap();
        cache.store(&path, &mut empty, &hash).unwrap();

        cache.remove(generation).unwrap();
        cache.remove(generation).unwrap();
        assert!(names(cache.folder()).is_empty());
    }

    #[test]
    fn a_failed_copy_leaves_nothing_half_written() {
        let root = tempfile::tempdir().unwrap();
        let cache = FileCache::new(root.path().join("cache"));
        let original = root.path().join("original");
        fs::write(&original, b"changed meanwhile").unwrap();
        let hash = Sha256::of_bytes(b"verified");
        let path = cache.library_path(Generation::new(&hash, &hash, None));
        let error = cache.store(&path, &mut File::open(&original).unwrap(), &hash).unwrap_err();
        assert!(matches!(error, CacheError::Changed { .. }), "{error}");
        assert!(names(cache.folder()).is_empty());

        // A read that fails half-way, and a folder that can't be made.
        let mut unreadable = File::options().write(true).open(&original).unwrap();
        let error = cache.store(&path, &mut unreadable, &hash).unwrap_err();
        assert!(matches!(error, CacheError::Io { .. }), "{error}");
        assert!(names(cache.folder()).is_empty());
        let nowhere = FileCache::new("/proc/nowhere");
        let error = nowhere.store(&path, &mut File::open(&original).unwrap(), &hash).unwrap_err();
        assert!(matches!(error, CacheError::Io { .. }), "{error}");
        assert!(!path.exists());
    }
}
