//! A pack as one file, `.mbpack`: a tar in one zstd frame. The manifest comes first, then exactly the files it names.
//!
//! Who unpacks it trusts nothing in it: not a name, not a size, not that it ends. What it may cost is known from the
//! manifest before the first file is written.

mod frame;
mod unpacking;
mod writing;

use std::{io, path::PathBuf};

use manifests::{ManifestError, PACK_MANIFEST_FILE, Sha256};

pub use unpacking::{Unpacked, archive_manifest, is_unpacked, sweep_unpacked, unpack, unpacked_to};
pub use writing::pack_archive;

use crate::FolderError;

/// Why an archive was not written or not unpacked. Nothing half-written is left.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The archive can't be read.
    #[error("can't read `{}`: {source}", path.display())]
    Read {
        /// The archive.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file can't be written.
    #[error("can't write `{}`: {source}; is there space, and may this user write there?", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file is a part of an archive, or changed while it was read.
    #[error("`{}` ends early: it is still being copied, or was cut off; then copy it again", .0.display())]
    Incomplete(PathBuf),
    /// The archive is not what it should be.
    #[error("`{}` is no sound pack archive: {fault}; make it with `cargo xtask pack archive`", path.display())]
    Unsound {
        /// The archive.
        path: PathBuf,
        /// What is wrong with it.
        fault: Box<ArchiveFault>,
    },
    /// The disk has less room than the manifest's files need.
    #[error("`{}` needs {needed} bytes in `{}`, where {free} are free: make room there", path.display(), folder.display())]
    NoSpace {
        /// The archive.
        path: PathBuf,
        /// Where it would be unpacked.
        folder: PathBuf,
        /// Bytes of its files.
        needed: u64,
        /// Bytes that this user may still write there.
        free: u64,
    },
    /// The folder to be archived is not, or no longer, sound.
    #[error(transparent)]
    Folder(#[from] FolderError),
}

/// What is wrong with an archive.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveFault {
    /// Something else than a zstd frame.
    #[error("it does not begin with a zstd frame")]
    NotZstd,
    /// A directory, device or pipe.
    #[error("it is no regular file")]
    NotRegular,
    /// The frame is damaged, or asks for too much memory.
    #[error("its zstd frame is refused: {0}")]
    Frame(String),
    /// The tar in the frame is damaged.
    #[error("its tar is refused: {0}")]
    Tar(String),
    /// Bytes behind the end.
    #[error("something follows its end")]
    TrailingData,
    /// The manifest does not come first.
    #[error("its first entry must be `{PACK_MANIFEST_FILE}`, found {0}")]
    ManifestNotFirst(String),
    /// The manifest is invalid.
    #[error("{0}")]
    Manifest(ManifestError),
    /// An entry that must not be there.
    #[error("its entry {name} is refused: {reason}")]
    Entry {
        /// The entry's name, quoted.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A file that the manifest names.
    #[error("its manifest names `{0}`, which is not in it")]
    Missing(String),
    /// An entry of another size than the manifest's.
    #[error("`{name}`: the manifest states {expected} bytes, the entry has {found}")]
    Size {
        /// The file.
        name: String,
        /// Bytes in the manifest, or the most that are allowed.
        expected: u64,
        /// Bytes in the entry.
        found: u64,
    },
    /// An entry of another content than the manifest's.
    #[error("`{name}`: the manifest states SHA-256 {expected}, the entry has {found}")]
    Hash {
        /// The file.
        name: String,
        /// In the manifest.
        expected: Sha256,
        /// Of the entry.
        found: Sha256,
    },
}

impl ArchiveError {
    /// Whether the file ends before the archive does, as one does that is still being copied.
    pub fn is_incomplete(&self) -> bool {
        matches!(self, Self::Incomplete(_))
    }

    /// Whether it is the machine that fails (a full disk) and nothing is known against the archive.
    pub fn is_the_hosts(&self) -> bool {
        matches!(self, Self::Read { .. } | Self::Write { .. } | Self::NoSpace { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_stay_small() {
        assert!(size_of::<ArchiveError>() < 128, "{}", size_of::<ArchiveError>());
    }
}
