//! Hidden folders in which something is made ready, to appear at once or never.
//!
//! The owner holds a lock (flock) on the folder, which ends with the process however that ends. So one that is not
//! locked was left by a crash and may go, also when process ids are of another container or used again.

use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, RenameFlags};
use tempfile::TempDir;

/// A folder of its maker, removed with its content when dropped.
#[derive(Debug)]
pub(crate) struct StagingFolder {
    folder: Option<TempDir>,
    _lock: File,
}

impl StagingFolder {
    /// Makes one in `parent`, its name starting with `prefix`.
    pub(crate) fn new(parent: &Path, prefix: &str) -> io::Result<Self> {
        loop {
            let folder = tempfile::Builder::new()
                .prefix(prefix)
                .permissions(Permissions::from_mode(0o777))
                .tempdir_in(parent)?;
            // A sweep in between may have the lock already, or have removed the folder: then another one.
            let Some(lock) = lock(folder.path())? else { continue };
            match fs::symlink_metadata(folder.path()) {
                Ok(found) if found.ino() == lock.metadata()?.ino() => {
                    return Ok(Self { folder: Some(folder), _lock: lock });
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        self.folder.as_ref().map_or(Path::new(""), TempDir::path)
    }

    /// Makes it appear as `path`, where nothing may be.
    ///
    /// # Errors
    /// `AlreadyExists`, or what else the operating system says; the folder is then removed.
    pub(crate) fn appear_as(&self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::renameat_with(CWD, self.path(), CWD, path, RenameFlags::NOREPLACE)?)
    }

    /// Puts it in the place of `path`, which may be a folder, a file or a link, at one stroke; what was there is
    /// removed when this is dropped.
    ///
    /// # Errors
    /// `path` does not exist, or the file system can't exchange; nothing has changed then.
    pub(crate) fn replace(&self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::renameat_with(CWD, self.path(), CWD, path, RenameFlags::EXCHANGE)?)
    }
}

impl Drop for StagingFolder {
    fn drop(&mut self) {
        let Some(folder) = self.folder.take() else { return };
        // What can't be removed now is hidden, and the next sweep tries again.
        discard(&folder.keep()).ok();
    }
}

/// Removes what owners left that are gone; says how many.
pub(crate) fn sweep(parent: &Path, prefix: &str) -> io::Result<usize> {
    let mut removed = 0;
    for entry in entries(parent)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(prefix) {
            continue;
        }
        // The lock is held until it is gone: nobody takes it for his own in between.
        let locked = if entry.file_type()?.is_dir() { lock(&entry.path())? } else { None };
        if locked.is_some() || !entry.file_type()?.is_dir() {
            discard(&entry.path())?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// The entries of a folder; none where there is no folder.
pub(crate) fn entries(folder: &Path) -> io::Result<impl Iterator<Item = io::Result<fs::DirEntry>>> {
    match fs::read_dir(folder) {
        Ok(entries) => Ok(Some(entries).into_iter().flatten()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None.into_iter().flatten()),
        Err(error) => Err(error),
    }
}

/// Removes a folder with its content, a file, or a link and not what it leads to; gone already is as good.
pub(crate) fn discard(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Locks a folder; `None` when another one has it, or it is gone.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_takes_what_has_no_owner_and_leaves_the_rest() {
        let parent = tempfile::tempdir().unwrap();
        let owned = StagingFolder::new(parent.path(), ".staging-").unwrap();
        fs::create_dir_all(parent.path().join(".staging-left/inner")).unwrap();
        fs::write(parent.path().join(".staging-file"), b"an old archive").unwrap();
        fs::create_dir(parent.path().join("pack")).unwrap();
        std::os::unix::fs::symlink("pack", parent.path().join(".staging-link")).unwrap();
        assert_eq!(sweep(parent.path(), ".staging-").unwrap(), 3);
        assert_eq!(sweep(parent.path(), ".staging-").unwrap(), 0);
        assert!(owned.path().is_dir() && parent.path().join("pack").is_dir());
        let path = owned.path().to_owned();
        drop(owned);
        assert!(!path.exists());
        assert_eq!(sweep(&parent.path().join("absent"), ".staging-").unwrap(), 0);
    }

    #[test]
    fn a_folder_appears_only_where_nothing_is_and_replaces_what_is_there() {
        let parent = tempfile::tempdir().unwrap();
        let names = || fs::read_dir(parent.path()).unwrap().count();
        let path = parent.path().join("pack");
        fs::write(&path, b"a file").unwrap();
        let staging = StagingFolder::new(parent.path(), ".staging-").unwrap();
        fs::write(staging.path().join("new"), b"").unwrap();
        assert_eq!(staging.appear_as(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        staging.replace(&path).unwrap();
        drop(staging);
        assert!(path.join("new").exists());
        assert_eq!(names(), 1);
        let staging = StagingFolder::new(parent.path(), ".staging-").unwrap();
        staging.appear_as(&parent.path().join("other")).unwrap();
        drop(staging);
        assert_eq!(names(), 2);
        drop(StagingFolder::new(parent.path(), ".staging-").unwrap());
        assert_eq!(names(), 2);
    }
}
