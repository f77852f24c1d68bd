//! What was fetched, each under its own SHA-256: it is fetched once, whatever the recipe, and never believed unread.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use manifests::{DataOrigin, DataSource, Sha256};

use super::error::SourceFault;
use super::package::Package;
use super::package_clients::{self, Hub};
use super::progress::RecipeProgress;

/// How names of what is being fetched begin.
const UNFINISHED: &str = ".unfinished-";

/// A folder of fetched packages, used by one process at a time while it is held.
#[derive(Debug)]
pub(crate) struct DownloadStore {
    folder: PathBuf,
    _lock: File,
}

impl DownloadStore {
    /// Opens the store, waits while another process uses it, and removes what one that was killed has left.
    pub(crate) fn open(folder: &Path, progress: &dyn RecipeProgress) -> Result<Self, SourceFault> {
        std::fs::create_dir_all(folder).map_err(SourceFault::disk(folder))?;
        let path = folder.join(".lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(SourceFault::disk(&path))?;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(SourceFault::disk(&path)(error)),
                Err(TryLockError::WouldBlock) if progress.is_cancelled() => {
                    return Err(SourceFault::Cancelled);
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
        for entry in std::fs::read_dir(folder).map_err(SourceFault::disk(folder))?.filter_map(Result::ok) {
            if entry.file_name().as_encoded_bytes().starts_with(UNFINISHED.as_bytes())
                && let Err(error) = std::fs::remove_dir_all(entry.path())
            {
                tracing::debug!(path = %entry.path().display(), %error, "an unfinished download stays");
            }
        }
        Ok(Self { folder: folder.to_path_buf(), _lock: lock })
    }

    /// The package of a source: from the store if it is there and whole, else fetched now. `recipe_folder` is what local
    /// paths are relative to.
    pub(crate) fn package(
        &self,
        source: &DataSource,
        recipe_folder: &Path,
        hub: &dyn Hub,
        progress: &dyn RecipeProgress,
    ) -> Result<Package, SourceFault> {
        if let DataOrigin::Path(path) = &source.from {
            let package = Package::of(&source.from, &recipe_folder.join(path));
            return match source.sha256 {
                Some(expected) => checked(package, expected),
                None => Ok(package),
            };
        }
        let Some(expected) = source.sha256 else {
            return Err(SourceFault::Package("the source has no sha256".into()));
        };
        let kept = self.folder.join(expected.to_string());
        if kept.exists() {
            match checked(Package::of(&source.from, &kept), expected) {
                Ok(package) => return Ok(package),
                Err(fault) => tracing::warn!(%fault, "a fetched package is damaged and fetched again"),
            }
            std::fs::remove_file(&kept).map_err(SourceFault::disk(&kept))?;
        }
        // On the same disk, so that what was checked only has to be renamed; dropped, it deletes itself.
        let staging = tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(&self.folder);
        let staging = staging.map_err(SourceFault::disk(&self.folder))?;
        let fetched = package_clients::fetch(&source.from, staging.path(), hub, progress)?;
        // The hub's client gives a link into its own cache.
        let fetched = std::fs::canonicalize(&fetched).map_err(SourceFault::disk(&fetched))?;
        checked(Package::of(&source.from, &fetched), expected)?;
        std::fs::rename(&fetched, &kept).map_err(SourceFault::disk(&kept))?;
        Ok(Package::of(&source.from, &kept))
    }
}

fn checked(package: Package, expected: Sha256) -> Result<Package, SourceFault> {
    let found = package.digest()?;
    if found == expected { Ok(package) } else { Err(SourceFault::WrongHash { expected, found }) }
}
