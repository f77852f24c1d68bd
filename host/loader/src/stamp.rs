//! What the file system says of a pack without a byte of it being read: equal stamps, unchanged pack.

use std::{
    ffi::{CStr, CString},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    time::{Duration, SystemTime},
};

use manifests::Sha256;
use rustix::{
    fs::{self, AtFlags, Dir, FileType, Mode, OFlags, Stat},
    io::Errno,
};
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

    /// The stamp of `path` before it is read, if an equal one afterwards proves that what was read between is still
    /// there; `None`: it changed this very moment, or can't be looked at.
    pub(crate) fn to_rely_on(path: &Path) -> Option<Self> {
        let now = SystemTime::now();
        Self::of(path).ok().filter(|stamp| stamp.is_settled(now))
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
    folder: Option<[u64; 4]>,
    /// Entries of the folder that are regular files, sorted; each ends with a NUL. One piece, since there may be ten
    /// thousand folders.
    files: Box<[u8]>,
    /// False: only the stamp is known, from somebody else.
    listed: bool,
}

impl Stamped {
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let opened = match open_folder(path) {
            Err(Errno::NOTDIR) => return Ok(Self::of_file(&fs::stat(path)?)),
            opened => opened?,
        };
        let own = fs::fstat(&opened)?;
        let mut names = Vec::new();
        for entry in Dir::read_from(&opened)? {
            let entry = entry?;
            if entry.file_type() != FileType::Directory {
                names.push(entry.file_name().to_owned());
            }
        }
        names.sort();
        Ok(Self::of_folder(&own, regular_files(opened.as_fd(), names)))
    }

    /// The stamp of the same path now, if this one was settled. A folder whose own times have not changed holds the same
    /// names, so they are not listed again: opening a folder for that is what watchers of it are told of.
    pub(crate) fn anew(&self, path: &Path) -> io::Result<Self> {
        let own = fs::stat(path)?;
        if self.folder != Some(identity(&own)) {
            return Self::of(path);
        }
        let inside = fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let names: Vec<_> = self.files().map(CStr::to_owned).collect();
        let count = names.len();
        let found = regular_files(inside.as_fd(), names);
        if found.len() == count { Ok(Self::of_folder(&own, found)) } else { Self::of(path) }
    }

    /// A stamp that somebody else took. Taking it anew lists the folder.
    pub(crate) fn unlisted(stamp: Stamp) -> Self {
        Self { stamp, folder: None, files: Box::default(), listed: false }
    }

    pub(crate) fn is_listed(&self) -> bool {
        self.listed
    }

    pub(crate) fn is_folder_with(&self, file: &str) -> bool {
        self.folder.is_some() && self.files().any(|name| name.to_bytes() == file.as_bytes())
    }

    pub(crate) fn is_file(&self) -> bool {
        self.folder.is_none()
    }

    fn files(&self) -> impl Iterator<Item = &CStr> {
        self.files.split_inclusive(|byte| *byte == 0).filter_map(|name| CStr::from_bytes_with_nul(name).ok())
    }

    fn of_file(own: &Stat) -> Self {
        Self { stamp: fold(own, own.st_size as u64, &[]), folder: None, files: Box::default(), listed: true }
    }

    fn of_folder(own: &Stat, found: Vec<(CString, Stat)>) -> Self {
        let stamp = fold(own, 0, &found);
        let files = found.iter().flat_map(|(name, _)| name.as_bytes_with_nul()).copied().collect();
        Self { stamp, folder: Some(identity(own)), files, listed: true }
    }
}

fn open_folder(path: &Path) -> Result<OwnedFd, Errno> {
    fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn identity(stat: &Stat) -> [u64; 4] {
    // Nanoseconds since 1970; times before it and after 2500 wrap, and still differ from others.
    let time =
        |seconds: i64, nanos: u64| seconds.wrapping_mul(1_000_000_000).cast_unsigned().wrapping_add(nanos);
    [
        stat.st_dev,
        stat.st_ino,
        time(stat.st_mtime, stat.st_mtime_nsec),
        time(stat.st_ctime, stat.st_ctime_nsec),
    ]
}

/// Those of the names that are regular files now; one that vanished meanwhile is left out.
fn regular_files(folder: BorrowedFd<'_>, names: Vec<CString>) -> Vec<(CString, Stat)> {
    let files = names.into_iter().filter_map(|name| {
        let stat = fs::statat(folder, &name, AtFlags::empty()).ok()?;
        (FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile).then_some((name, stat))
    });
    files.collect()
}

fn fold(own: &Stat, own_bytes: u64, files: &[(CString, Stat)]) -> Stamp {
    let mut hasher = sha2::Sha256::new();
    let mut newest = changed(own);
    let mut bytes = own_bytes;
    hasher.update(bytes.to_le_bytes());
    identity(own).iter().for_each(|value| hasher.update(value.to_le_bytes()));
    for (name, stat) in files {
        hasher.update(name.as_bytes_with_nul());
        hasher.update(stat.st_size.to_le_bytes());
        identity(stat).iter().for_each(|value| hasher.update(value.to_le_bytes()));
        newest = newest.max(changed(stat));
        bytes += stat.st_size as u64;
    }
    Stamp { digest: Sha256::from_bytes(hasher.finalize().into()), newest, bytes }
}

fn changed(stat: &Stat) -> SystemTime {
    let seconds = Duration::from_secs(u64::try_from(stat.st_ctime).unwrap_or(0));
    SystemTime::UNIX_EPOCH + seconds + Duration::from_nanos(stat.st_ctime_nsec)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, thread};

    use super::*;

    fn rest() {
        thread::sleep(CLOCK_STEP * 2);
    }

    #[test]
    fn every_change_of_a_pack_changes_its_stamp_and_reading_does_not() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("pack");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("pack.toml"), "one").unwrap();
        fs::write(folder.join("weights"), "1234").unwrap();
        rest();
        let mut before = Stamped::of(&folder).unwrap();
        assert_eq!(before.stamp.bytes, 7);
        assert!(before.stamp.is_settled(SystemTime::now()));
        fs::read(folder.join("weights")).unwrap();
        assert_eq!(Stamp::of(&folder).unwrap(), before.stamp);

        let changes: [(&str, &dyn Fn()); 6] = [
            ("the same size", &|| fs::write(folder.join("weights"), "4321").unwrap()),
            ("a file more", &|| fs::write(folder.join("card"), "5").unwrap()),
            ("a rename", &|| fs::rename(folder.join("card"), folder.join("cards")).unwrap()),
            ("a file less", &|| fs::remove_file(folder.join("cards")).unwrap()),
            ("a replaced file", &|| {
                fs::write(root.path().join("new"), "9876").unwrap();
                fs::rename(root.path().join("new"), folder.join("weights")).unwrap();
            }),
            ("times set back", &|| {
                fs::write(folder.join("weights"), "1111").unwrap();
                fs::File::open(folder.join("weights")).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
            }),
        ];
        for (what, change) in changes {
            change();
            rest();
            let now = Stamped::of(&folder).unwrap();
            assert_ne!(now.stamp, before.stamp, "{what}");
            assert!(now.stamp.newest > before.stamp.newest, "{what}");
            // Taken anew from the one before, it is the same as one taken afresh.
            assert_eq!(before.anew(&folder).unwrap().stamp, now.stamp, "{what}");
            assert_eq!(now.anew(&folder).unwrap().stamp, now.stamp, "{what}");
            before = now;
        }

        let link = root.path().join("link");
        symlink(&folder, &link).unwrap();
        assert_eq!(Stamp::of(&link).unwrap(), before.stamp);
        fs::remove_dir_all(&folder).unwrap();
        assert!(before.anew(&folder).is_err() && Stamp::of(&link).is_err());
    }

    #[test]
    fn a_change_of_this_moment_is_not_settled() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("pack.mbpack");
        fs::write(&file, "one").unwrap();
        let stamp = Stamp::of(&file).unwrap();
        assert!(!stamp.is_settled(stamp.newest));
        assert!(stamp.is_settled(stamp.newest + CLOCK_STEP));
        assert!(stamp.is_settled(stamp.newest - CLOCK_STEP), "the clock was set back");
    }
}
