//! Why a recipe could not be made: which source, what failed, what to do.

use std::path::{Path, PathBuf};

use manifests::Sha256;

use crate::error::CorpusError;

/// Why a recipe could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// A source could not be fetched or read.
    #[error("the source `{name}` ({origin}) can't be had: {fault}")]
    Source {
        /// Its name in the recipe.
        name: String,
        /// Where it is, in words.
        origin: String,
        /// What failed.
        fault: Box<SourceFault>,
    },
    /// The documents could not be written, read again or split.
    #[error(transparent)]
    Corpus(#[from] CorpusError),
    /// A folder or file of the result could not be made.
    #[error("{path}: can't be written: {source}", path = path.display())]
    Disk {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Everything was left out.
    #[error("the recipe gives no document: of {seen} none was kept")]
    Nothing {
        /// Documents that the sources hold.
        seen: u64,
    },
}

impl RecipeError {
    /// What to do about it, where there is something to say.
    pub fn help(&self) -> Option<&str> {
        match self {
            Self::Source { fault, .. } => fault.help(),
            Self::Disk { .. } => Some("free some space, or choose another folder with --out"),
            Self::Nothing { .. } => Some("look at `clean`, `only` and `files` in the recipe"),
            Self::Corpus(_) => None,
        }
    }

    /// Whether whoever watches wanted the end.
    pub fn is_cancelled(&self) -> bool {
        match self {
            Self::Source { fault, .. } => matches!(**fault, SourceFault::Cancelled),
            Self::Corpus(error) => matches!(error, CorpusError::Cancelled),
            _ => false,
        }
    }

    pub(crate) fn disk(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Disk { path, source }
    }
}

/// What failed at one source.
#[derive(Debug, thiserror::Error)]
pub enum SourceFault {
    /// The client program is not there.
    #[error("none of {programs} answers on this machine")]
    NoClient {
        /// What was tried.
        programs: String,
    },
    /// The client program failed.
    #[error("`{command}` failed ({status}):\n{said}")]
    Client {
        /// The command line.
        command: String,
        /// How it ended.
        status: String,
        /// Its last words.
        said: String,
    },
    /// The client program ended well, and what it was to bring is not there.
    #[error("`{command}` gave no file {expected}")]
    NoFile {
        /// The command line.
        command: String,
        /// What was looked for.
        expected: String,
    },
    /// What was fetched is something else.
    #[error("its SHA-256 is {found}, the recipe says {expected}")]
    WrongHash {
        /// What the recipe says.
        expected: Sha256,
        /// What was found.
        found: Sha256,
    },
    /// The hub did not give the file.
    #[error("{0}")]
    Hub(String),
    /// A package that can't be unpacked.
    #[error("the package can't be unpacked: {0}")]
    Package(String),
    /// A file in the package that can't be read as the recipe says.
    #[error("{file}: {why}")]
    File {
        /// Its path in the package.
        file: String,
        /// What is wrong.
        why: String,
    },
    /// A glob of the recipe.
    #[error("the glob `{glob}` is not sound: {why}")]
    Glob {
        /// The glob.
        glob: String,
        /// What is wrong.
        why: String,
    },
    /// No file of the package gave a document.
    #[error("no file in it gives a document: {files} files, {matching} of them match the recipe's globs")]
    NoDocument {
        /// Files in the package.
        files: u64,
        /// Files that the recipe's globs take.
        matching: u64,
    },
    /// A file on this machine.
    #[error("{path}: {source}", path = path.display())]
    Disk {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Writing or reading documents.
    #[error(transparent)]
    Corpus(#[from] CorpusError),
    /// Whoever watches wanted the end.
    #[error("interrupted")]
    Cancelled,
}

impl SourceFault {
    pub(crate) fn disk(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Disk { path, source }
    }

    fn help(&self) -> Option<&str> {
        Some(match self {
            Self::NoClient { .. } => "install one of them, or take this source out of the recipe",
            Self::Client { .. } | Self::NoFile { .. } | Self::Hub(_) => {
                "check the network and the client's own settings, and say the same command again: what was fetched stays; \
                 or take this source out of a copy of the recipe"
            }
            Self::WrongHash { .. } => {
                "the package is not the one that the recipe was written for; if you trust it, write this digest into a \
                 copy of the recipe"
            }
            Self::NoDocument { .. } | Self::Glob { .. } => "look at `files`, `exclude`, `only` and `extract`",
            Self::Disk { .. } => "check that the path is right and readable, and that the disk has room",
            _ => return None,
        })
    }
}
