//! From a folder to a checked pack.
//!
//! A pack comes from outside, so each stage doubts it and the next one relies on what was found.
//!
//! [`WatchedDirectory`] says which entries of the packs directory changed, [`candidates`] which of them may be packs, and
//! [`examine`] whether one is complete.
//!
//! [`admit`] finds out once a generation whether it may be loaded: [`PackFolder`] (manifest, sizes, hashes) ->
//! [`TrustPolicy`] -> [`fits_base`] -> [`inspect_library`] (the ELF file, unopened) -> [`FileCache`] (copies nobody writes
//! to) -> [`Prober`] (first contact in a child process). [`PackIndex`] keeps the verdicts, also over a restart.
//!
//! [`load_admitted`] is the work of every load: the copies, verified -> [`build_graph`] (open, compare layouts, build,
//! copy the graph, close) -> shapes -> [`WeightsFile`]; [`load_and_place`] puts them on a device while their hash is still
//! being found out. [`open_pack`] is admission and load in order. Failures name the pack and the stage.
//!
//! No code of a pack runs after `build`, and its library is closed before [`load_admitted`] returns.
//!
//! *Deliberately not here*: devices, budgets, who may use a pack, what a base looks like on disk.

mod admission;
mod archive;
mod base_fit;
mod completeness;
mod elf;
mod error;
mod file_cache;
mod file_events;
mod generation;
mod index_file;
mod install;
mod library;
mod load_admitted;
mod load_context;
mod open_pack;
mod pack_folder;
mod pack_index;
mod pack_summary;
mod packs_directory;
mod probe;
mod staging;
mod stamp;
mod text;
mod trust;
mod watched_directory;
mod weight_blocks;
mod weights_file;
mod weights_writer;

pub use admission::{
    AdmissionStage, AdmissionTimings, Admitted, admit, admit_complete, admit_unpacked, read_router,
};
pub use archive::{
    ArchiveError, ArchiveFault, Unpacked, archive_manifest, is_unpacked, pack_archive, sweep_unpacked,
    unpack, unpacked_to,
};
pub use base_fit::{
    BaseContext, BaseMismatch, WrongResidentBytes, copies_fit_base, declaration_holds, fits_base,
    resident_bytes,
};
pub use completeness::{Examined, examine};
pub use elf::{ElfInspection, Finding, PackNote, Severity, inspect_library};
pub use error::{LoadError, LoadFailure, LoadStage, QuarantineReason};
pub use file_cache::{CacheError, FileCache, Trimmed};
pub use generation::Generation;
pub use install::{InstallError, Installed, install, remove, sweep_staging};
pub use library::{
    BuildRequest, BuiltPack, LibraryError, LogLine, PackInfo, Unload, build_graph, is_mapped, mapped_regions,
};
pub use load_admitted::{LoadTimings, LoadedPack, load_admitted, load_and_place};
pub use load_context::LoadContext;
pub use open_pack::{Inspection, inspect, open_pack, probe_pack};
pub use pack_folder::{FolderError, PackFolder};
pub use pack_index::{ContextKey, INDEX_FILE, Known, Outcome, PackIndex, ProbeKey, ProbeOutcome};
pub use pack_summary::PackSummary;
pub use packs_directory::{Candidate, CandidateKind, ScanError, candidate, candidates, scan};
pub use probe::{
    CycleReport, PROBE_ARGUMENT, ProbeError, ProbeLimits, ProbeReport, Prober, probe_child_main,
};
pub use stamp::Stamp;
pub use trust::{MAX_SIGNATURE_BYTES, Signature, TrustError, TrustPolicy};
pub use watched_directory::{Change, WatchFeedback, WatchOptions, WatchedDirectory};
pub use weight_blocks::{BLOCKS_KEY, delta_dtype, delta_format};
pub use weights_file::{DeltaTo, WeightView, WeightsError, WeightsFile, all_weights_have_values, weights_of};
pub use weights_writer::{NewWeight, WriteWeightsError, write_weights};
