//! Why a pack was not loaded: which pack, at which stage, what to do.

use std::{fmt, path::Path};

use modularbase_graph::GraphError;
use serde::{Deserialize, Serialize};

use crate::{
    Generation,
    base_fit::{BaseMismatch, WrongResidentBytes},
    elf::Finding,
    file_cache::CacheError,
    library::LibraryError,
    pack_folder::FolderError,
    probe::ProbeError,
    weights_file::WeightsError,
};

/// A pack that was not loaded. Everything else goes on.
#[derive(Debug, thiserror::Error)]
#[error("pack `{pack}`: {failure}")]
pub struct LoadError {
    /// Its name in the manifest; the folder's name if the manifest could not be read.
    pub pack: String,
    /// Its identity, once that is known.
    pub generation: Option<Generation>,
    /// What went wrong.
    #[source]
    pub failure: Box<LoadFailure>,
}

/// What went wrong with a pack, in the order of the stages.
#[derive(Debug, thiserror::Error)]
pub enum LoadFailure {
    /// The folder is not what the manifest says, or the manifest is invalid.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// It belongs to another base.
    #[error(transparent)]
    Base(#[from] BaseMismatch),
    /// The library's file speaks against it.
    #[error("its library is refused: {}", list(.0))]
    Inspection(Vec<Finding>),
    /// Manifest and library contradict each other.
    #[error("the manifest states {what} {manifest}, its library {library}: rebuild the pack")]
    Contradiction {
        /// `ABI`, `opset` or `target`.
        what: &'static str,
        /// In the manifest.
        manifest: String,
        /// In the library's note.
        library: String,
    },
    /// No copy could be made.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The first contact failed.
    #[error("its library failed the probe: {0}")]
    Probe(#[from] ProbeError),
    /// Another version of it can't be unloaded.
    #[error(
        "generation {pinned} of `{id}` is still mapped and can't be unloaded: restart the host to load this one"
    )]
    OtherVersionPinned {
        /// The pack's id.
        id: String,
        /// The generation that stays.
        pinned: Generation,
    },
    /// The library gave no graph.
    #[error("its library gave no graph: {0}")]
    Library(#[from] LibraryError),
    /// Two builds gave two graphs.
    #[error("its build gives another graph each time; a pack's graph may depend on its configuration only")]
    NotRepeatable,
    /// The graph's shapes do not fit.
    #[error("its graph is refused: {0}")]
    Graph(#[from] GraphError),
    /// The weights do not fit the graph.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The manifest lies about its memory.
    #[error(transparent)]
    Memory(#[from] WrongResidentBytes),
}

/// Where on its way a pack stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LoadStage {
    /// Files and manifest.
    Folder,
    /// Fit to the base.
    Base,
    /// ELF inspection.
    Inspection,
    /// Copy to the cache.
    Cache,
    /// First contact in a child process.
    Probe,
    /// Opening in the host.
    Library,
    /// Shapes.
    Graph,
    /// Weights and their bytes.
    Weights,
}

/// Why a pack is kept out until its files change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineReason {
    /// Where it stopped.
    pub stage: LoadStage,
    /// Why, in words.
    pub reason: String,
}

impl fmt::Display for QuarantineReason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.reason)
    }
}

impl LoadFailure {
    /// Where the pack stopped.
    pub fn stage(&self) -> LoadStage {
        match self {
            Self::Folder(_) => LoadStage::Folder,
            Self::Base(_) => LoadStage::Base,
            Self::Inspection(_) | Self::Contradiction { .. } => LoadStage::Inspection,
            Self::Cache(_) => LoadStage::Cache,
            Self::Probe(_) => LoadStage::Probe,
            Self::OtherVersionPinned { .. } | Self::Library(_) | Self::NotRepeatable => LoadStage::Library,
            Self::Graph(_) => LoadStage::Graph,
            Self::Weights(_) | Self::Memory(_) => LoadStage::Weights,
        }
    }
}

impl LoadError {
    /// The reason to keep the pack out.
    pub fn quarantine_reason(&self) -> QuarantineReason {
        QuarantineReason { stage: self.failure.stage(), reason: self.failure.to_string() }
    }

    /// A failure of the pack in a folder whose manifest is not known.
    pub(crate) fn of_folder(folder: &Path, failure: impl Into<LoadFailure>) -> Self {
        let pack = folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned();
        Self { pack, generation: None, failure: Box::new(failure.into()) }
    }
}

fn list(findings: &[Finding]) -> String {
    findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
