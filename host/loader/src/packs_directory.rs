//! The packs directory: which of its entries may be packs.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use manifests::PACK_MANIFEST_FILE;

use crate::stamp::{Stamp, Stamped};

/// The ending of a pack's archive.
pub(crate) const ARCHIVE_EXTENSION: &str = "mbpack";

/// A top-level entry of the packs directory that may be a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Where it lies, inside the packs directory; a link is not resolved.
    pub path: PathBuf,
    /// The folder or file that it is, without symbolic links.
    pub canonical: PathBuf,
    /// Folder or archive.
    pub kind: CandidateKind,
    /// What the file system says of it.
    pub stamp: Stamp,
}

/// The two forms of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CandidateKind {
    /// A folder with a manifest.
    Folder,
    /// A `.mbpack` file.
    Archive,
}

/// A packs directory that can't be looked through.
#[derive(Debug, thiserror::Error)]
#[error("can't look through the packs directory `{}`: {source}", path.display())]
pub struct ScanError {
    /// The directory.
    pub path: PathBuf,
    /// What the operating system said.
    pub source: io::Error,
}

impl Candidate {
    /// Its name in the packs directory.
    pub fn name(&self) -> &OsStr {
        self.path.file_name().unwrap_or_default()
    }
}

/// The entries of `dir` that may be packs, sorted by name: folders that hold a manifest, links to such folders, and
/// archives. Hidden names are never looked at. An entry that vanishes meanwhile is left out.
///
/// # Errors
/// The directory can't be read.
pub fn candidates(dir: &Path) -> Result<Vec<Candidate>, ScanError> {
    Ok(scan(dir)?.collect())
}

/// As [`candidates`], one after the other: the next is looked at when it is asked for.
///
/// # Errors
/// As [`candidates`].
pub fn scan(dir: &Path) -> Result<impl Iterator<Item = Candidate> + use<>, ScanError> {
    let dir = dir.to_owned();
    let real = real_directory(&dir)?;
    let mut names = names_in(&real).map_err(|source| ScanError { path: dir.clone(), source })?;
    names.sort();
    let found = names.into_iter().filter_map(move |name| look(&dir, &real, &name, None));
    Ok(found.map(|(candidate, _)| candidate))
}

/// The entry of that name, if it may be a pack.
///
/// # Errors
/// The directory can't be read.
pub fn candidate(dir: &Path, name: &OsStr) -> Result<Option<Candidate>, ScanError> {
    let real = real_directory(dir)?;
    Ok(look(dir, &real, name, None).map(|(candidate, _)| candidate))
}

pub(crate) fn real_directory(dir: &Path) -> Result<PathBuf, ScanError> {
    dir.canonicalize().map_err(|source| ScanError { path: dir.to_owned(), source })
}

/// Names that are not hidden, in the order of the file system.
pub(crate) fn names_in(dir: &Path) -> io::Result<Vec<OsString>> {
    let names = fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.file_name()));
    names.filter(|name| name.as_ref().map_or(true, |name| !is_hidden(name))).collect()
}

pub(crate) fn is_hidden(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b".")
}

/// Looks at one entry; `before` is what an earlier look gave, which makes this one cheaper.
pub(crate) fn look(
    dir: &Path,
    real: &Path,
    name: &OsStr,
    before: Option<&Stamped>,
) -> Option<(Candidate, Stamped)> {
    let in_real = real.join(name);
    if is_hidden(name) || in_real.parent() != Some(real) {
        return None;
    }
    let is_link = fs::symlink_metadata(&in_real).ok()?.is_symlink();
    let canonical = if is_link { in_real.canonicalize().ok()? } else { in_real };
    let stamped = match before {
        Some(before) => before.anew(&canonical).ok()?,
        None => Stamped::of(&canonical).ok()?,
    };
    let kind = if stamped.is_folder_with(PACK_MANIFEST_FILE) {
        CandidateKind::Folder
    } else if stamped.is_file() && Path::new(name).extension() == Some(OsStr::new(ARCHIVE_EXTENSION)) {
        CandidateKind::Archive
    } else {
        return None;
    };
    let stamp = stamped.stamp;
    Some((Candidate { path: dir.join(name), canonical, kind, stamp }, stamped))
}
