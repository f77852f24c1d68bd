//! Why a pack was not loaded: which pack, at which stage, what to do.

use std::{fmt, path::Path};

use manifests::PackManifest;
use modularbase_graph::GraphError;
use router::RouterError;
use serde::{Deserialize, Serialize};

use crate::{
    Generation,
    base_fit::{BaseMismatch, WrongResidentBytes},
    elf::Finding,
    file_cache::CacheError,
    library::LibraryError,
    pack_folder::FolderError,
    probe::ProbeError,
    trust::TrustError,
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
    /// Nobody whom the host's policy takes vouches for it.
    #[error(transparent)]
    Trust(#[from] TrustError),
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
    /// It failed its probe earlier, in this very configuration.
    #[error(transparent)]
    RefusedBefore(QuarantineReason),
    /// The folder holds another generation than the one to be loaded.
    #[error("generation {expected} is to be loaded, its folder holds {found} by now")]
    Superseded {
        /// The generation that was admitted.
        expected: Generation,
        /// The generation in the folder.
        found: Generation,
    },
    /// The graph's shapes do not fit.
    #[error("its graph is refused: {0}")]
    Graph(#[from] GraphError),
    /// It has no graph that could stand in the slot.
    #[error("a router pack chooses mixtures and can't be part of one: it has no library")]
    NoLibrary,
    /// The weights are no router's.
    #[error(transparent)]
    Router(#[from] RouterError),
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
    /// Signature and trust policy.
    Trust,
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

impl std::error::Error for QuarantineReason {}

impl fmt::Display for QuarantineReason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.reason)
    }
}

impl LoadFailure {
    /// Where the pack stopped.
    pub fn stage(&self) -> LoadStage {
        match self {
            Self::Folder(_) | Self::Superseded { .. } => LoadStage::Folder,
            Self::RefusedBefore(reason) => reason.stage,
            Self::Trust(_) => LoadStage::Trust,
            Self::Base(_) => LoadStage::Base,
            Self::Inspection(_) | Self::Contradiction { .. } => LoadStage::Inspection,
            Self::Cache(_) => LoadStage::Cache,
            Self::Probe(_) => LoadStage::Probe,
            Self::OtherVersionPinned { .. } | Self::Library(_) | Self::NotRepeatable | Self::NoLibrary => {
                LoadStage::Library
            }
            Self::Graph(_) => LoadStage::Graph,
            Self::Weights(_) | Self::Memory(_) | Self::Router(_) => LoadStage::Weights,
        }
    }

    /// Whether the same files fail again in the same host. `false`: the fault may have been the moment's (a full disk,
    /// a busy machine), or the files are about to change.
    pub fn is_lasting(&self) -> bool {
        !matches!(
            self,
            Self::Folder(_)
                | Self::Trust(TrustError::File(_))
                | Self::Superseded { .. }
                | Self::Cache(_)
                | Self::Probe(ProbeError::Start { .. } | ProbeError::TimedOut(_) | ProbeError::Cancelled)
                | Self::OtherVersionPinned { .. }
                | Self::Library(LibraryError::Thread(_) | LibraryError::TimedOut(_))
        )
    }

    /// Whether it is the host's machine that fails (a full disk, no more threads) and nothing is known against the pack:
    /// it may be tried again as soon as one likes. Of the failures that are not lasting, the others may be the pack's.
    pub fn is_the_hosts(&self) -> bool {
        matches!(
            self,
            Self::Trust(TrustError::File(_))
                | Self::Cache(_)
                | Self::Probe(ProbeError::Start { .. } | ProbeError::Cancelled)
                | Self::Library(LibraryError::Thread(_))
        )
    }

    /// The reason to keep the pack out.
    pub fn quarantine_reason(&self) -> QuarantineReason {
        QuarantineReason { stage: self.stage(), reason: self.to_string() }
    }
}

impl LoadError {
    /// The reason to keep the pack out.
    pub fn quarantine_reason(&self) -> QuarantineReason {
        self.failure.quarantine_reason()
    }

    /// A failure of a pack whose manifest is known.
    pub(crate) fn of_pack(manifest: &PackManifest, generation: Generation, failure: LoadFailure) -> Self {
        let pack = manifest.pack.name.to_string();
        Self { pack, generation: Some(generation), failure: Box::new(failure) }
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
