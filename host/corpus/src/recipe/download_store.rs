//! What was fetched, each under its own SHA-256: it is fetched once, whatever the recipe, and never believed unread.

use std::fs::{DirEntry, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use manifests::{DataOrigin, DataSource, Sha256};

use super::client_program::bytes_in;
use super::error::SourceFault;
use super::package::Package;
use super::package_clients::{self, Hub};
use super::progress::RecipeProgress;

/// How names of what is being fetched begin; what follows is the SHA-256 that it is to have.
const UNFINISHED: &str = ".unfinished-";
/// A part that nobody went on with for so long is removed.
const FORGOTTEN: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// A folder of fetched packages, used by one process at a time while it is held.
#[derive(Debug)]
pub(crate) struct DownloadStore {
    folder: PathBuf,
    _lock: File,
}

impl DownloadStore {
    /// Opens the store, waits while another process uses it, and removes parts that nobody went on with.
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
                && is_forgotten(&entry)
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
        // On the same disk, so that what was checked only has to be renamed.
        let staging = Staging { folder: self.folder.join(format!("{UNFINISHED}{expected}")) };
        let mut has_part = staging.begin(&source.from)?;
        loop {
            let fetched = package_clients::fetch(&source.from, &staging.folder, hub, progress);
            let fetched = fetched.inspect_err(|_| staging.leave(&source.from))?;
            // The hub's client gives a link into its own cache.
            let fetched = std::fs::canonicalize(&fetched).map_err(SourceFault::disk(&fetched))?;
            match checked(Package::of(&source.from, &fetched), expected) {
                Ok(_) => {
                    std::fs::rename(&fetched, &kept).map_err(SourceFault::disk(&kept))?;
                    staging.remove();
                    return Ok(Package::of(&source.from, &kept));
                }
                Err(fault) => {
                    staging.remove();
                    if !std::mem::take(&mut has_part) {
                        return Err(fault);
                    }
                    tracing::warn!(%fault, "a download that was gone on with is damaged and begun anew");
                    staging.begin(&source.from)?;
                }
            }
        }
    }
}

/// The folder that a package is fetched into. It outlives the process, so that a client that can go on with a part of a
/// file finds it.
struct Staging {
    folder: PathBuf,
}

impl Staging {
    /// Makes it; tells whether a part is there to go on with.
    fn begin(&self, from: &DataOrigin) -> Result<bool, SourceFault> {
        if !goes_on(from) {
            self.remove();
        }
        std::fs::create_dir_all(&self.folder).map_err(SourceFault::disk(&self.folder))?;
        Ok(bytes_in(&self.folder) > 0)
    }

    /// After a failure: keeps what the client can go on with.
    fn leave(&self, from: &DataOrigin) {
        if !goes_on(from) {
            self.remove();
        }
    }

    fn remove(&self) {
        match std::fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::debug!(path = %self.folder.display(), %error, "an unfinished download stays");
            }
            _ => {}
        }
    }
}

/// Whether the client of such a source goes on with a part of a file. The clients of package registries and git begin
/// anew.
fn goes_on(from: &DataOrigin) -> bool {
    matches!(from, DataOrigin::HuggingFace { .. })
}

fn is_forgotten(entry: &DirEntry) -> bool {
    let name = entry.file_name();
    let digest = name.to_str().and_then(|name| name.strip_prefix(UNFINISHED));
    let changed = entry.metadata().and_then(|facts| facts.modified());
    let age = changed.ok().and_then(|at| at.elapsed().ok()).unwrap_or_default();
    digest.is_none_or(|digest| digest.parse::<Sha256>().is_err()) || age > FORGOTTEN
}

fn checked(package: Package, expected: Sha256) -> Result<Package, SourceFault> {
    let found = package.digest()?;
    if found == expected { Ok(package) } else { Err(SourceFault::WrongHash { expected, found }) }
}
