//! A pack as it lies on disk: the manifest, and every file it names, of the stated size and hash.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use manifests::{FileRecord, MAX_MANIFEST_BYTES, ManifestError, PACK_MANIFEST_FILE, PackManifest, Sha256};
use rustix::fs::{Mode, OFlags};

use crate::{Generation, Stamp};

/// A folder that holds what its manifest says.
#[derive(Debug, Clone)]
pub struct PackFolder {
    /// The folder, without symbolic links.
    pub path: PathBuf,
    /// Its manifest.
    pub manifest: PackManifest,
    /// The manifest as it was read: what its generation covers and what a signature signs.
    pub manifest_bytes: Vec<u8>,
    /// Its identity.
    pub generation: Generation,
    /// What the file system said before anything was read; `None`: something had changed that very moment.
    pub(crate) stamp: Option<Stamp>,
}

/// A folder whose manifest was read, while no file that it names was looked at.
#[derive(Debug, Clone)]
pub(crate) struct StatedPack {
    /// The folder, without symbolic links.
    pub(crate) path: PathBuf,
    /// Its manifest.
    pub(crate) manifest: PackManifest,
    /// The manifest as it was read.
    pub(crate) manifest_bytes: Vec<u8>,
    /// The identity that it has if every file is what the manifest says.
    pub(crate) generation: Generation,
    /// What the file system said before the manifest was read; `None`: something had changed that very moment.
    pub(crate) stamp: Option<Stamp>,
}

/// Why a folder is no sound pack.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The folder or a file in it can't be read.
    #[error("can't read `{}`: {source}", path.display())]
    Read {
        /// What was to be read.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The manifest is invalid.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A symbolic link leads elsewhere.
    #[error("`{}` leads out of the pack's folder to `{}`: copy the file into the folder", path.display(), target.display())]
    LeavesFolder {
        /// The name in the folder.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// A directory, device, pipe or socket.
    #[error("`{}` is no regular file", .0.display())]
    NotRegular(PathBuf),
    /// The manifest is larger than any real one.
    #[error("`{}` has more than {MAX_MANIFEST_BYTES} bytes", .0.display())]
    ManifestTooLarge(PathBuf),
    /// Still being written, cut off, or another file.
    #[error("`{}`: the manifest states {expected} bytes, the file has {found}: copy it again or rebuild the pack", path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// Bytes in the manifest.
        expected: u64,
        /// Bytes in the file.
        found: u64,
    },
    /// Another content than the manifest's.
    #[error("`{}`: the manifest states SHA-256 {expected}, the file has {found}: copy it again or rebuild the pack", path.display())]
    Hash {
        /// The file.
        path: PathBuf,
        /// In the manifest.
        expected: Sha256,
        /// Of the file.
        found: Sha256,
    },
}

impl PackFolder {
    /// Reads the manifest and verifies every file it names.
    ///
    /// # Errors
    /// The first file that is not as the manifest says.
    pub fn read(path: &Path) -> Result<Self, FolderError> {
        StatedPack::read(path)?.verify()
    }

    /// Opens a file of the pack for reading.
    ///
    /// # Errors
    /// It can't be opened, or has become a link that leads elsewhere.
    pub(crate) fn open(&self, record: &FileRecord) -> Result<File, FolderError> {
        open_inside(&self.path, &record.file.in_folder(&self.path))
    }

    /// Opens the weights for reading, if the pack has any.
    ///
    /// # Errors
    /// It can't be opened, or has become a link that leads elsewhere.
    pub fn open_weights(&self) -> Result<Option<File>, FolderError> {
        let weights = self.manifest.weights.as_ref();
        weights.map(|weights| open_inside(&self.path, &weights.file.in_folder(&self.path))).transpose()
    }
}

impl StatedPack {
    /// Reads the manifest of the folder at `path`.
    ///
    /// # Errors
    /// The folder or the manifest can't be read, or the manifest is invalid.
    pub(crate) fn read(path: &Path) -> Result<Self, FolderError> {
        let path =
            path.canonicalize().map_err(|source| FolderError::Read { path: path.to_owned(), source })?;
        let stamp = Stamp::to_rely_on(&path);
        let manifest_path = path.join(PACK_MANIFEST_FILE);
        let manifest_bytes = read_manifest(&path, &manifest_path)?;
        let manifest = parse(&manifest_bytes, &manifest_path)?;
        let generation = Generation::of_manifest(&manifest, &manifest_bytes);
        Ok(Self { path, manifest, manifest_bytes, generation, stamp })
    }

    /// Reads a manifest that lies alone: the copy of one whose files are copies too.
    ///
    /// # Errors
    /// It can't be read or is invalid.
    pub(crate) fn read_copy(manifest_path: &Path) -> Result<Self, FolderError> {
        let folder = manifest_path.parent().unwrap_or(Path::new("/")).to_owned();
        let manifest_bytes = fs::read(manifest_path)
            .map_err(|source| FolderError::Read { path: manifest_path.to_owned(), source })?;
        let manifest = parse(&manifest_bytes, manifest_path)?;
        let generation = Generation::of_manifest(&manifest, &manifest_bytes);
        Ok(Self { path: folder, manifest, manifest_bytes, generation, stamp: None })
    }

    /// Hashes every file that the manifest names.
    ///
    /// # Errors
    /// The first file that is not as the manifest says.
    pub(crate) fn verify(self) -> Result<PackFolder, FolderError> {
        let Self { path, manifest, manifest_bytes, generation, stamp } = self;
        for record in manifest.files() {
            verify(&path, &record)?;
        }
        if let Some(signer) = &manifest.signer {
            open_inside(&path, &signer.signature.in_folder(&path))?;
        }
        Ok(PackFolder { path, manifest, manifest_bytes, generation, stamp })
    }
}

fn parse(bytes: &[u8], path: &Path) -> Result<PackManifest, FolderError> {
    Ok(PackManifest::parse_bytes(bytes).map_err(|error| error.in_file(path))?)
}

fn read_manifest(folder: &Path, path: &Path) -> Result<Vec<u8>, FolderError> {
    let file = open_inside(folder, path)?;
    let mut bytes = Vec::new();
    let limit = MAX_MANIFEST_BYTES;
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| FolderError::Read { path: path.to_owned(), source })?;
    if bytes.len() as u64 > limit {
        return Err(FolderError::ManifestTooLarge(path.to_owned()));
    }
    Ok(bytes)
}

fn verify(folder: &Path, record: &FileRecord) -> Result<(), FolderError> {
    let path = record.file.in_folder(folder);
    let file = open_inside(folder, &path)?;
    let read_error = |source| FolderError::Read { path: path.clone(), source };
    // The size first: it needs no reading, and a file still being copied mostly differs in it.
    let found = file.metadata().map_err(read_error)?.len();
    if found != record.size {
        return Err(FolderError::Size { path, expected: record.size, found });
    }
    let (found, length) = Sha256::of_reader(file.take(record.size + 1)).map_err(read_error)?;
    if length != record.size {
        return Err(FolderError::Size { path, expected: record.size, found: length });
    }
    if found != record.sha256 {
        return Err(FolderError::Hash { path, expected: record.sha256, found });
    }
    Ok(())
}

/// Opens a regular file of the folder; a pipe or device is refused without waiting for it.
pub(crate) fn open_inside(folder: &Path, path: &Path) -> Result<File, FolderError> {
    let read_error = |source| FolderError::Read { path: path.to_owned(), source };
    let target = path.canonicalize().map_err(read_error)?;
    if target.parent() != Some(folder) {
        return Err(FolderError::LeavesFolder { path: path.to_owned(), target });
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file: File =
        rustix::fs::open(&target, flags, Mode::empty()).map_err(|error| read_error(error.into()))?.into();
    if file.metadata().map_err(read_error)?.is_file() {
        Ok(file)
    } else {
        Err(FolderError::NotRegular(path.to_owned()))
    }
}
