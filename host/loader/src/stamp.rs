//! What the file system says of a pack without a byte of it being read: equal stamps, unchanged pack.

use std::{
    ffi::OsString,
    fs::{self, Metadata},
    io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::Path,
    time::{Duration, SystemTime},
};

use manifests::Sha256;
use serde::{Deserialize, Serialize};
use sha2::Digest;

/// How old the newest change must be before two equal stamps prove anything. The kernel's file clock advances in
/// steps of up to 10 ms, so of two writes within one step the second changes no stamp.
const CLOCK_STEP: Duration = Duration::from_millis(20);

/// Of a folder: itself and each regular file in it; of an archive: the file. Names, devices, inodes, sizes, times of the
/// last write and of the last change, folded into a digest that is the same in every process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Stamp {
    digest: Sha256,
    /// When the newest of the changes happened, by the kernel's own clock (`ctime`, which no program can set).
    pub newest: SystemTime,
    /// Sizes of the regular files, summed.
    pub bytes: u64,
}

impl Stamp {
    /// The stamp of the folder or file at `path`, behind symbolic links.
    ///
    /// # Errors
    /// It does not exist, or its folder can't be searched.
    pub fn of(path: &Path) -> io::Result<Self> {
        Ok(Stamped::of(path)?.stamp)
    }

    /// The digest alone, for comparisons that outlast the process.
    pub fn digest(&self) -> Sha256 {
        self.digest
    }

    /// Whether an equal stamp taken later will prove that nothing changed after `now`, when this one was taken. A
    /// change that lies in the future (another machine's clock) counts as settled: waiting would not help.
    pub fn is_settled(&self, now: SystemTime) -> bool {
        now.duration_since(self.newest).map_or(true, |age| age >= CLOCK_STEP)
    }
}

/// A stamp, and what is needed to take it anew without opening the folder.
#[derive(Debug, Clone)]
pub(crate) struct Stamped {
    pub(crate) stamp: Stamp,
    /// Identity and change times of the folder; `None` for a file.
    folder: Option<[i128; 4]>,
    /// Entries of the folder that are regular files, sorted.
    files: Box<[OsString]>,
}

impl Stamped {
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        if !metadata.is_dir() {
            return Ok(Self { stamp: fold(&metadata, &[]), folder: None, files: Box::default() });
        }
        let mut names = fs::read_dir(path)?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<io::Result<Vec<_>>>()?;
        names.sort();
        let found = regular_files(path, names);
        let stamp = fold(&metadata, &found);
        let files = found.into_iter().map(|(name, _)| name).collect();
        Ok(Self { stamp, folder: Some(identity(&metadata)), files })
    }

    /// The stamp of the same path now. A folder whose own times have not changed holds the same names, so it is not
    /// opened: opening is what watchers of the folder are told of.
    pub(crate) fn anew(&self, path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        if self.folder != Some(identity(&metadata)) || !self.stamp.is_settled(SystemTime::now()) {
            return Self::of(path);
        }
        let found = regular_files(path, self.files.to_vec());
        if found.len() != self.files.len() {
            return Self::of(path);
        }
        Ok(Self { stamp: fold(&metadata, &found), ..self.clone() })
    }
}

fn identity(metadata: &Metadata) -> [i128; 4] {
    let time = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    [
        metadata.dev().into(),
        metadata.ino().into(),
        time(metadata.mtime(), metadata.mtime_nsec()),
        time(metadata.ctime(), metadata.ctime_nsec()),
    ]
}

/// Those of the names that are regular files now; one that vanished meanwhile is left out.
fn regular_files(folder: &Path, names: Vec<OsString>) -> Vec<(OsString, Metadata)> {
    let files = names.into_iter().filter_map(|name| {
        let metadata = fs::metadata(folder.join(&name)).ok()?;
        metadata.is_file().then_some((name, metadata))
    });
    files.collect()
}

fn fold(own: &Metadata, files: &[(OsString, Metadata)]) -> Stamp {
    let mut hasher = sha2::Sha256::new();
    let mut newest = changed(own);
    let mut bytes = if own.is_dir() { 0 } else { own.len() };
    hasher.update(bytes.to_le_bytes());
    identity(own).iter().for_each(|value| hasher.update(value.to_le_bytes()));
    for (name, metadata) in files {
        hasher.update((name.len() as u64).to_le_bytes());
        hasher.update(name.as_bytes());
        hasher.update(metadata.len().to_le_bytes());
        identity(metadata).iter().for_each(|value| hasher.update(value.to_le_bytes()));
        newest = newest.max(changed(metadata));
        bytes += metadata.len();
    }
    Stamp { digest: Sha256::from_bytes(hasher.finalize().into()), newest, bytes }
}

fn changed(metadata: &Metadata) -> SystemTime {
    let seconds = Duration::from_secs(u64::try_from(metadata.ctime()).unwrap_or(0));
    let nanos = Duration::from_nanos(u64::try_from(metadata.ctime_nsec()).unwrap_or(0));
    SystemTime::UNIX_EPOCH + seconds + nanos
}
