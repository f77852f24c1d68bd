//! Copies of packs' files by generation, which nobody else writes.
//!
//! A mapped file that is overwritten in place ends the process (SIGBUS), and `dlopen` of a path whose file was replaced
//! gives the old library while that is open. A copy named by the generation has neither trouble.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsStr,
    fs::{self, File, Metadata, Permissions},
    io::{self, Read, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use manifests::Sha256;
use sha2::Digest;
use tempfile::NamedTempFile;

use crate::{Generation, Stamp};

/// How names of copies begin that are still being written.
const TEMPORARY: &str = ".copy-";
/// Age of a copy that is certainly locked if somebody still writes it: it is created first and locked then.
const LOCKED_BY_THEN: Duration = Duration::from_secs(60);

/// A folder of read-only copies.
#[derive(Debug, Clone)]
pub struct FileCache {
    folder: PathBuf,
    /// Copies that this process has hashed, with what the file system said of them and the hash.
    verified: Arc<Mutex<HashMap<PathBuf, (Stamp, Sha256)>>>,
    /// A copy of each library that this process has stored, by content: packs often differ in their weights alone.
    libraries: Arc<Mutex<HashMap<Sha256, PathBuf>>>,
}

/// What a trim did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trimmed {
    /// Bytes of the copies that were deleted.
    pub bytes: u64,
    /// Bytes of the copies that are left.
    pub left: u64,
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
        Self { folder: folder.into(), verified: Arc::default(), libraries: Arc::default() }
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

    /// Whether `path` holds the content with that hash. All of it is read, but not a second time while the file system
    /// says that nothing has changed since: a reload after an eviction would spend most of its time with it.
    pub fn holds(&self, path: &Path, expected: &Sha256) -> bool {
        let now = SystemTime::now();
        let Ok(before) = Stamp::of(path) else { return false };
        let seen = (before, *expected);
        if self.verified().get(path) == Some(&seen) {
            return true;
        }
        let holds = Sha256::of_file(path).is_ok_and(|(found, _)| found == *expected);
        if holds && before.is_settled(now) && Stamp::of(path).is_ok_and(|after| after == before) {
            self.verified().insert(path.to_owned(), seen);
        }
        holds
    }

    /// Whether this process has hashed `path` before, and the file system says that nothing has changed since. Nothing
    /// is read.
    pub(crate) fn is_known_to_hold(&self, path: &Path, expected: &Sha256) -> bool {
        Stamp::of(path).is_ok_and(|stamp| self.verified().get(path) == Some(&(stamp, *expected)))
    }

    fn verified(&self) -> MutexGuard<'_, HashMap<PathBuf, (Stamp, Sha256)>> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
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
            tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(&self.folder).map_err(io_error)?;
        // Held as long as this process works on the copy; see `sweep_temporary`.
        copy.as_file().lock().map_err(io_error)?;
        let found = copy_and_hash(source, &mut copy).map_err(io_error)?;
        if found != *expected {
            return Err(CacheError::Changed { path: path.to_owned(), expected: *expected, found });
        }
        copy.as_file().set_permissions(Permissions::from_mode(0o444)).map_err(io_error)?;
        // Not synced: every use verifies the hash, so a copy that a crash left torn is found and made again.
        copy.persist(path).map_err(|error| io_error(error.error))?;
        Ok(())
    }

    /// As [`FileCache::store`], of a generation's library. One that is there already for another generation becomes the
    /// same file under a second name; gives the copy's path.
    ///
    /// # Errors
    /// As [`FileCache::store`].
    pub fn store_library(
        &self,
        generation: Generation,
        source: &mut impl Read,
        expected: &Sha256,
    ) -> Result<PathBuf, CacheError> {
        let path = self.library_path(generation);
        let twin = self.libraries().get(expected).filter(|twin| **twin != path).cloned();
        // A name that is taken, a file with too many names already: a copy will do.
        let linked =
            twin.is_some_and(|twin| self.holds(&twin, expected) && fs::hard_link(twin, &path).is_ok());
        if !linked {
            self.store(&path, source, expected)?;
            self.libraries().insert(*expected, path.clone());
        }
        Ok(path)
    }

    fn libraries(&self) -> MutexGuard<'_, HashMap<Sha256, PathBuf>> {
        self.libraries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks a generation as used now, by the time of its manifest's copy; see [`FileCache::trim`].
    pub fn touch(&self, generation: Generation) {
        let manifest = File::open(self.manifest_path(generation));
        // A generation that can't be marked is only trimmed earlier.
        let _ = manifest.and_then(|file| file.set_modified(SystemTime::now()));
    }

    /// Deletes copies, those of the least recently used generation first, until all copies together take at most
    /// `limit` bytes. Those of generations that are to be kept stay in any case.
    ///
    /// # Errors
    /// The folder can't be read, or a copy can't be deleted.
    pub fn trim(&self, limit: u64, keep: impl Fn(&Generation) -> bool) -> Result<Trimmed, CacheError> {
        /// Bytes of a file, and under how many names it lies here.
        type File = (u64, usize);
        // Mostly there is nothing to trim, and of ten thousand packs no list is made for that.
        let left = self.bytes()?;
        if left <= limit {
            return Ok(Trimmed { bytes: 0, left });
        }
        let mut files: HashMap<u64, File> = HashMap::new();
        let mut copies: HashMap<Generation, (SystemTime, Vec<u64>)> = HashMap::new();
        for (path, metadata) in self.files()? {
            let Some(generation) = generation_of(&path) else { continue };
            files.entry(metadata.ino()).or_insert((metadata.len(), 0)).1 += 1;
            let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            let copy = copies.entry(generation).or_insert((used, Vec::new()));
            copy.0 = copy.0.max(used);
            copy.1.push(metadata.ino());
        }
        let mut trimmed = Trimmed { bytes: 0, left: files.values().map(|(bytes, _)| bytes).sum() };
        let mut by_use: Vec<_> =
            copies.into_iter().map(|(generation, (used, inodes))| (used, generation, inodes)).collect();
        by_use.sort_unstable();
        for (_, generation, inodes) in by_use {
            if trimmed.left <= limit {
                break;
            }
            if keep(&generation) {
                continue;
            }
            self.remove(generation)?;
            for inode in inodes {
                if let Some((bytes, names)) = files.get_mut(&inode) {
                    *names -= 1;
                    // A library that other generations share stays until the last of them goes.
                    let freed = if *names == 0 { *bytes } else { 0 };
                    trimmed = Trimmed { bytes: trimmed.bytes + freed, left: trimmed.left - freed };
                }
            }
        }
        Ok(trimmed)
    }

    /// Bytes of all copies; a file with several names counts once.
    fn bytes(&self) -> Result<u64, CacheError> {
        let mut shared = HashSet::new();
        let files = self.files()?.filter(|(path, metadata)| {
            generation_of(path).is_some() && (metadata.nlink() == 1 || shared.insert(metadata.ino()))
        });
        Ok(files.map(|(_, metadata)| metadata.len()).sum())
    }

    /// Deletes what processes that ended in the middle of a copy have left; gives how many files. What somebody still
    /// writes is locked and stays.
    ///
    /// # Errors
    /// The folder can't be read, or a file can't be deleted.
    pub fn sweep_temporary(&self) -> Result<usize, CacheError> {
        let mut swept = 0;
        for (path, metadata) in self.files()? {
            let name = path.file_name().unwrap_or_default();
            let age = metadata.modified().ok().and_then(|at| at.elapsed().ok()).unwrap_or_default();
            let is_left = name.as_bytes().starts_with(TEMPORARY.as_bytes())
                && age >= LOCKED_BY_THEN
                && File::open(&path).is_ok_and(|file| file.try_lock().is_ok());
            if is_left {
                delete(&path)?;
                swept += 1;
            }
        }
        Ok(swept)
    }

    /// Regular files of the folder, one after the other; none if it was not made yet. A file that vanishes meanwhile is
    /// left out.
    fn files(&self) -> Result<impl Iterator<Item = (PathBuf, Metadata)> + use<>, CacheError> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => Some(entries),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(CacheError::Io { path: self.folder.clone(), source }),
        };
        Ok(entries.into_iter().flatten().filter_map(|entry| {
            let entry = entry.ok()?;
            let metadata = entry.metadata().ok()?;
            metadata.is_file().then(|| (entry.path(), metadata))
        }))
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
            self.verified().remove(&path);
            self.libraries().retain(|_, twin| *twin != path);
            delete(&path)?;
        }
        Ok(())
    }
}

/// The generation that a copy's name tells.
fn generation_of(copy: &Path) -> Option<Generation> {
    copy.file_stem().and_then(OsStr::to_str)?.parse().ok()
}

fn delete(path: &Path) -> Result<(), CacheError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(CacheError::Io { path: path.to_owned(), source })
        }
        _ => Ok(()),
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

    fn stored(cache: &FileCache, content: &[u8]) -> Generation {
        let hash = Sha256::of_bytes(content);
        let generation = Generation::new(&hash, &hash, None);
        for path in [cache.library_path(generation), cache.manifest_path(generation)] {
            cache.store(&path, &mut &content[..], &hash).unwrap();
        }
        generation
    }

    #[test]
    fn damage_after_a_copy_was_verified_is_found_even_where_size_and_times_are_kept() {
        let root = tempfile::tempdir().unwrap();
        let cache = FileCache::new(root.path().join("cache"));
        let generation = stored(&cache, b"sound");
        let (path, hash) = (cache.library_path(generation), Sha256::of_bytes(b"sound"));
        std::thread::sleep(Duration::from_millis(50));
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        assert!(cache.holds(&path, &hash) && cache.holds(&path, &hash));
        assert_eq!(cache.verified().len(), 1);
        assert!(!cache.holds(&path, &Sha256::of_bytes(b"another")));
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        fs::write(&path, b"bound").unwrap();
        File::open(&path).unwrap().set_modified(modified).unwrap();
        assert!(!cache.holds(&path, &hash));
        cache.remove(generation).unwrap();
        assert!(cache.verified().is_empty() && !cache.holds(&path, &hash));
    }

    #[test]
    fn trimming_takes_the_least_recently_used_generations_and_never_those_in_use() {
        let root = tempfile::tempdir().unwrap();
        let cache = FileCache::new(root.path().join("cache"));
        assert_eq!(cache.trim(0, |_| false).unwrap(), Trimmed { bytes: 0, left: 0 });
        let [a, b, c, d] = [b"aaa", b"bbb", b"ccc", b"ddd"].map(|content| stored(&cache, content));
        let long_ago = SystemTime::now() - Duration::from_secs(3600);
        for (age, generation) in [c, a, d, b].into_iter().enumerate() {
            for path in cache.paths(generation).iter().filter(|path| path.exists()) {
                let at = long_ago + Duration::from_secs(age as u64);
                File::open(path).unwrap().set_modified(at).unwrap();
            }
        }
        cache.touch(c);
        fs::write(cache.folder().join("index.jsonl"), b"not a copy").unwrap();
        assert_eq!(cache.trim(24, |_| false).unwrap(), Trimmed { bytes: 0, left: 24 });
        // `a` is the oldest but in use, `d` comes next.
        assert_eq!(cache.trim(20, |kept| *kept == a).unwrap(), Trimmed { bytes: 6, left: 18 });
        let there = |generation| cache.library_path(generation).exists();
        assert_eq!([a, b, c, d].map(there), [true, true, true, false]);
        assert_eq!(cache.trim(0, |kept| *kept == a).unwrap(), Trimmed { bytes: 12, left: 6 });
        assert_eq!([a, b, c, d].map(there), [true, false, false, false]);
        assert!(cache.folder().join("index.jsonl").exists());
    }

    #[test]
    fn a_library_that_generations_share_counts_once_and_goes_with_the_last_of_them() {
        let root = tempfile::tempdir().unwrap();
        let cache = FileCache::new(root.path().join("cache"));
        let library = Sha256::of_bytes(b"library");
        let [a, b] = [b"a", b"b"].map(|manifest| {
            let hash = Sha256::of_bytes(manifest);
            let generation = Generation::new(&hash, &library, None);
            cache.store(&cache.manifest_path(generation), &mut &manifest[..], &hash).unwrap();
            cache.store_library(generation, &mut &b"library"[..], &library).unwrap();
            generation
        });
        let [inode_a, inode_b] =
            [a, b].map(|generation| fs::metadata(cache.library_path(generation)).unwrap().ino());
        assert_eq!(inode_a, inode_b);
        assert_eq!(cache.trim(9, |_| false).unwrap(), Trimmed { bytes: 0, left: 9 });
        assert_eq!(cache.trim(8, |kept| *kept == b).unwrap(), Trimmed { bytes: 1, left: 8 });
        assert_eq!(fs::read(cache.library_path(b)).unwrap(), b"library");
        assert_eq!(cache.trim(0, |_| false).unwrap(), Trimmed { bytes: 8, left: 0 });
    }

    #[test]
    fn what_a_dead_process_left_is_swept_and_what_is_being_written_stays() {
        let root = tempfile::tempdir().unwrap();
        let cache = FileCache::new(root.path().join("cache"));
        assert_eq!(cache.sweep_temporary().unwrap(), 0);
        let whole = stored(&cache, b"whole");
        let long_ago = SystemTime::now() - Duration::from_secs(3600);
        let left = |name: &str, at| {
            let path = cache.folder().join(name);
            fs::write(&path, b"half").unwrap();
            let file = File::open(&path).unwrap();
            file.set_modified(at).unwrap();
            file
        };
        left(".copy-dead", long_ago);
        let written = left(".copy-slow", long_ago);
        written.lock().unwrap();
        left(".copy-new", SystemTime::now());
        assert_eq!(cache.sweep_temporary().unwrap(), 1);
        let hex = whole.to_hex();
        assert_eq!(
            names(cache.folder()),
            [".copy-new", ".copy-slow", &format!("{hex}.so"), &format!("{hex}.toml")]
        );
    }
}
