//! Packs into a packs directory and out of it, at one stroke each.
//!
//! A pack is made ready in a hidden folder of the same directory, written through to the disk, and then renamed or
//! exchanged. Whenever the process ends, a name stands for the old pack or the new one, each whole; what may be left is
//! a hidden folder that [`sweep_staging`] takes.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use manifests::{PACK_MANIFEST_FILE, PackManifest, PackName};

use crate::{
    ArchiveError, Candidate, CandidateKind, FileCache, FolderError, PackFolder, ScanError, archive_manifest,
    candidates, pack_folder::open_inside, staging, staging::StagingFolder, unpack,
};

/// How the hidden folders' names begin.
const STAGING: &str = ".staging-";

/// How often others may change the directory between a look and the stroke.
const ATTEMPTS: usize = 16;

/// A pack that lies in the packs directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// Its name.
    pub name: PackName,
    /// Its folder.
    pub path: PathBuf,
    /// What lay in its place: a folder, an archive or a link.
    pub replaced: Option<PathBuf>,
}

/// Why a pack was not installed or removed. The directory is as it was then.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The source is no sound pack.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The source is no sound archive.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The packs directory can't be read.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// The source changed while it was copied.
    #[error("`{}` changed while it was copied: wait until it is complete, and install it again", .0.display())]
    Changed(PathBuf),
    /// Something that is no pack has the name that the pack needs.
    #[error("`{}` exists and is no pack: move it away, or install into another packs directory", .0.display())]
    NotAPack(PathBuf),
    /// Another pack has the folder that the pack needs.
    #[error("`{}` holds the pack `{holds}`: rename that folder", path.display())]
    Occupied {
        /// The folder.
        path: PathBuf,
        /// The name in its manifest.
        holds: PackName,
    },
    /// Several packs have the name.
    #[error("both `{}` and `{}` are packs of the name `{name}`: remove one by the name of its folder or file", one.display(), other.display())]
    Ambiguous {
        /// The packs' name.
        name: String,
        /// One of them.
        one: PathBuf,
        /// Another one.
        other: PathBuf,
    },
    /// No pack has the name.
    #[error("there is no pack `{name}` in `{}`", packs_dir.display())]
    NotFound {
        /// The name.
        name: String,
        /// The packs directory.
        packs_dir: PathBuf,
    },
    /// The disk, or this user's share of it, is full.
    #[error("there is no room for `{}` ({needed} bytes in all): {source}; nothing was changed", path.display())]
    Full {
        /// What was being written.
        path: PathBuf,
        /// Bytes of the whole pack.
        needed: u64,
        /// What the operating system said.
        source: io::Error,
    },
    /// Reading, writing or renaming failed.
    #[error("can't write `{}`: {source}; may this user write there?", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

/// Installs a pack folder or an archive as `packs_dir/NAME`. A pack of that name that lies there, under whatever folder
/// name or as an archive, is replaced at one stroke.
///
/// # Errors
/// [`InstallError`]; the packs directory is as it was.
pub fn install(source: &Path, packs_dir: &Path, cache: &FileCache) -> Result<Installed, InstallError> {
    let metadata =
        fs::metadata(source).map_err(|error| FolderError::Read { path: source.to_owned(), source: error })?;
    let folder = if metadata.is_dir() { source.to_owned() } else { unpack(source, cache)?.folder };
    let pack = PackFolder::read(&folder)?;
    fs::create_dir_all(packs_dir).map_err(io_error(packs_dir))?;
    let staging = stage(&pack, packs_dir)?;
    let installed = place(&staging, &pack.manifest.pack.name, packs_dir)?;
    sync(packs_dir)?;
    // What was replaced goes with the staging folder, whose place it has taken.
    drop(staging);
    Ok(installed)
}

/// Takes the pack of that name out of the packs directory; the name of its folder or archive will do where no manifest
/// says it. Of a link the link is removed, not what it leads to. Gives what was removed.
///
/// # Errors
/// [`InstallError`]; the packs directory is as it was.
pub fn remove(packs_dir: &Path, name: &str) -> Result<PathBuf, InstallError> {
    let all = candidates(packs_dir)?;
    let found = match only(&all, name, |candidate| says(candidate).is_some_and(|said| said.as_str() == name))?
    {
        None => only(&all, name, |candidate| candidate.name() == name)?,
        found => found,
    };
    let Some(candidate) = found else {
        return Err(InstallError::NotFound { name: name.to_owned(), packs_dir: packs_dir.to_owned() });
    };
    let staging = StagingFolder::new(packs_dir, STAGING).map_err(io_error(packs_dir))?;
    fs::rename(&candidate.path, staging.path().join("removed")).map_err(io_error(&candidate.path))?;
    sync(packs_dir)?;
    drop(staging);
    Ok(candidate.path.clone())
}

/// Removes what installs and removals have left that were killed; says how many.
///
/// # Errors
/// The directory can't be read or written.
pub fn sweep_staging(packs_dir: &Path) -> io::Result<usize> {
    staging::sweep(packs_dir, STAGING)
}

/// A whole copy of the pack, written through to the disk.
fn stage(pack: &PackFolder, packs_dir: &Path) -> Result<StagingFolder, InstallError> {
    let files = pack.manifest.files();
    let needed =
        files.iter().map(|record| record.size).fold(pack.manifest_bytes.len() as u64, u64::saturating_add);
    let staging =
        StagingFolder::new(packs_dir, STAGING).map_err(|source| full_or_io(packs_dir, needed, source))?;
    let signature = pack.manifest.signer.as_ref().map(|signer| &signer.signature);
    for name in files.iter().map(|record| &record.file).chain(signature) {
        let mut from = open_inside(&pack.path, &name.in_folder(&pack.path))?;
        write(&name.in_folder(staging.path()), needed, |to| io::copy(&mut from, to).map(drop))?;
    }
    let manifest = staging.path().join(PACK_MANIFEST_FILE);
    write(&manifest, needed, |to| to.write_all(&pack.manifest_bytes))?;
    sync(staging.path())?;
    match PackFolder::read(staging.path()) {
        Ok(copy) if copy.generation == pack.generation => Ok(staging),
        Ok(_) | Err(_) => Err(InstallError::Changed(pack.path.clone())),
    }
}

fn write(
    path: &Path,
    needed: u64,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<(), InstallError> {
    let written = File::create_new(path).and_then(|mut file| {
        fill(&mut file)?;
        file.sync_all()
    });
    written.map_err(|source| full_or_io(path, needed, source))
}

/// The stroke.
fn place(staging: &StagingFolder, name: &PackName, packs_dir: &Path) -> Result<Installed, InstallError> {
    let target = packs_dir.join(name.as_str());
    for _ in 0..ATTEMPTS {
        let all = candidates(packs_dir)?;
        let Some(old) = only(&all, name.as_str(), |candidate| is_pack_of(candidate, name))? else {
            match staging.appear_as(&target) {
                Ok(()) => return Ok(Installed { name: name.clone(), path: target, replaced: None }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(io_error(&target)(error)),
            }
            match all.iter().find(|candidate| candidate.path == target) {
                // It came between the look and the stroke.
                None if is_pack_folder(&target) => continue,
                None => return Err(InstallError::NotAPack(target)),
                Some(candidate) => {
                    let holds = says(candidate).ok_or_else(|| InstallError::NotAPack(target.clone()))?;
                    return Err(InstallError::Occupied { path: target, holds });
                }
            }
        };
        match staging.replace(&old.path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(io_error(&old.path)(error)),
        }
        // The folder is whole where the archive was; it also gets a folder's name, if that is free.
        let renamed = old.kind == CandidateKind::Archive && rename_if_free(&old.path, &target);
        let path = if renamed { target } else { old.path.clone() };
        return Ok(Installed { name: name.clone(), path, replaced: Some(old.path.clone()) });
    }
    let source = io::Error::other("others keep changing it");
    Err(InstallError::Io { path: target, source })
}

fn rename_if_free(from: &Path, to: &Path) -> bool {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE).is_ok()
}

/// The one candidate that `is_it`.
fn only<'a>(
    all: &'a [Candidate],
    name: &str,
    is_it: impl Fn(&Candidate) -> bool,
) -> Result<Option<&'a Candidate>, InstallError> {
    let mut found = all.iter().filter(|candidate| is_it(candidate));
    match (found.next(), found.next()) {
        (Some(one), Some(other)) => Err(InstallError::Ambiguous {
            name: name.to_owned(),
            one: one.path.clone(),
            other: other.path.clone(),
        }),
        (found, _) => Ok(found),
    }
}

/// Whether a pack of that name is installed by replacing this one: its manifest says the name, or it is a folder of
/// that name whose manifest says nothing.
fn is_pack_of(candidate: &Candidate, name: &PackName) -> bool {
    match says(candidate) {
        Some(said) => said == *name,
        None => candidate.kind == CandidateKind::Folder && candidate.name() == name.as_str(),
    }
}

/// The name in the manifest, if that is sound.
fn says(candidate: &Candidate) -> Option<PackName> {
    let manifest = match candidate.kind {
        CandidateKind::Folder => PackManifest::read(&candidate.canonical.join(PACK_MANIFEST_FILE)).ok(),
        CandidateKind::Archive => archive_manifest(&candidate.canonical).ok(),
    };
    manifest.map(|manifest| manifest.pack.name)
}

fn is_pack_folder(path: &Path) -> bool {
    path.join(PACK_MANIFEST_FILE).is_file()
}

fn sync(folder: &Path) -> Result<(), InstallError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io_error(folder))
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> InstallError {
    move |source| InstallError::Io { path: path.to_owned(), source }
}

fn full_or_io(path: &Path, needed: u64, source: io::Error) -> InstallError {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    match source.kind() {
        StorageFull | QuotaExceeded | FileTooLarge => {
            InstallError::Full { path: path.to_owned(), needed, source }
        }
        _ => io_error(path)(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_stay_small() {
        assert!(size_of::<InstallError>() < 128, "{}", size_of::<InstallError>());
    }
}
