//! From a folder to a pack that may be loaded: everything that is found out once a generation.

use std::{
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use manifests::{FileRecord, PackManifest, Sha256};
use modularbase_graph::Graph;
use router::{MAX_ROUTER_BYTES, RouterError, RouterWeights};

use crate::{
    Generation,
    archive::Unpacked,
    base_fit::{BaseContext, BaseMismatch, fits_base},
    elf::{ElfInspection, Finding, PackNote},
    error::{LoadError, LoadFailure, LoadStage},
    file_cache::{CacheError, FileCache},
    library::Unload,
    load_context::LoadContext,
    open_pack::inspect_folder,
    pack_folder::{FolderError, PackFolder},
    pack_index::{Known, Outcome, ProbeOutcome},
    pack_summary::PackSummary,
    stamp::Stamp,
};

/// A station that a pack has passed on its way to being registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AdmissionStage {
    /// Files as the manifest says, signature as the policy asks, fits the base.
    Verified,
    /// Nothing in the library's file speaks against it.
    Inspected,
    /// Copies lie in the cache.
    Cached,
    /// A child process has opened the library and built its graph, now or earlier.
    Probed,
}

/// Where an admission spent its time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AdmissionTimings {
    /// Reading and hashing.
    pub verify: Duration,
    /// Looking into the library's file.
    pub inspect: Duration,
    /// Copying to the cache, or finding it there.
    pub cache: Duration,
    /// The child process; next to nothing when this library was probed with the same settings before.
    pub probe: Duration,
}

/// A pack that may be loaded.
#[derive(Debug, Clone, PartialEq)]
pub struct Admitted {
    /// Its identity.
    pub generation: Generation,
    /// What its manifest says, its warnings, who signed it.
    pub summary: Arc<PackSummary>,
    /// Its folder, without symbolic links.
    pub folder: PathBuf,
    /// Where the time went.
    pub timings: AdmissionTimings,
    /// Whether a child process was started for it.
    pub was_probed: bool,
}

impl Admitted {
    /// What the index keeps of it.
    pub fn known(&self) -> Known {
        Known {
            generation: self.generation,
            summary: Arc::clone(&self.summary),
            outcome: Outcome::Admitted,
            refused_by: None,
            archive: None,
        }
    }
}

/// Verifies a folder and finds out whether its pack may be loaded: hashes, signature, fit to the base, ELF inspection,
/// copies in the cache, first contact in a child process unless the index knows what that gave. `on_stage` is told of
/// each station and what it took. The verdict is kept in the index, unless another attempt may give another one.
///
/// # Errors
/// The stage it stopped at and why.
pub fn admit(
    folder: &Path,
    context: &LoadContext,
    on_stage: &mut dyn FnMut(AdmissionStage, Duration),
) -> Result<Admitted, LoadError> {
    let start = Instant::now();
    let pack = PackFolder::read(folder).map_err(|error| LoadError::of_folder(folder, error))?;
    admit_complete(start, &pack, context, on_stage)
}

/// As [`admit`], of a folder that was found complete (see `examine`); `since`: when looking into it began.
///
/// # Errors
/// As [`admit`].
pub fn admit_complete(
    since: Instant,
    pack: &PackFolder,
    context: &LoadContext,
    on_stage: &mut dyn FnMut(AdmissionStage, Duration),
) -> Result<Admitted, LoadError> {
    admit_from(since, pack, None, context, on_stage)
}

/// As [`admit_complete`], of what an archive was unpacked to: the verdict is kept for the archive, so that a restart
/// reads neither of the two.
///
/// # Errors
/// As [`admit`].
pub fn admit_unpacked(
    since: Instant,
    unpacked: &Unpacked,
    pack: &PackFolder,
    context: &LoadContext,
    on_stage: &mut dyn FnMut(AdmissionStage, Duration),
) -> Result<Admitted, LoadError> {
    admit_from(since, pack, Some(unpacked), context, on_stage)
}

fn admit_from(
    start: Instant,
    pack: &PackFolder,
    unpacked: Option<&Unpacked>,
    context: &LoadContext,
    on_stage: &mut dyn FnMut(AdmissionStage, Duration),
) -> Result<Admitted, LoadError> {
    let admission = Admission { start, context, on_stage, timings: AdmissionTimings::default() };
    let result = admission.run(pack);
    let (path, stamp) = match unpacked {
        Some(unpacked) => (&unpacked.archive, unpacked.stamp),
        None => (&pack.path, pack.stamp),
    };
    // Only a stamp that is the same before and after stands for what was read between.
    if let Some(stamp) = stamp
        && Stamp::of(path).ok() == Some(stamp)
        && let Some(known) = verdict(pack, context, &result)
    {
        let archive = unpacked.map(|unpacked| unpacked.hash);
        context.index().remember(path, &stamp, Known { archive, ..known });
    }
    result.map_err(|failure| LoadError::of_pack(&pack.manifest, pack.generation, failure))
}

fn verdict(
    pack: &PackFolder,
    context: &LoadContext,
    result: &Result<Admitted, LoadFailure>,
) -> Option<Known> {
    match result {
        Ok(admitted) => Some(admitted.known()),
        Err(failure) => failure.is_lasting().then(|| Known {
            generation: pack.generation,
            summary: PackSummary::new(&pack.manifest, pack.manifest_bytes.len(), Vec::new(), None).into(),
            outcome: Outcome::Refused(failure.quarantine_reason()),
            refused_by: (failure.stage() == LoadStage::Probe).then(|| context.probe_key(&pack.manifest)),
            archive: None,
        }),
    }
}

struct Admission<'a> {
    start: Instant,
    context: &'a LoadContext,
    on_stage: &'a mut dyn FnMut(AdmissionStage, Duration),
    timings: AdmissionTimings,
}

impl Admission<'_> {
    fn run(mut self, pack: &PackFolder) -> Result<Admitted, LoadFailure> {
        let context = self.context;
        let signer = context.trust.judge(pack)?;
        fits_base(&pack.manifest, &context.base)?;
        self.timings.verify = self.passed(AdmissionStage::Verified);

        let Some(library) = &pack.manifest.library else {
            return self.weights_alone(pack, &signer.to_string());
        };
        let elf = context.inspected(&library.sha256, || inspect_folder(pack, library))?;
        admissible(&pack.manifest, &elf, &context.base)?;
        self.timings.inspect = self.passed(AdmissionStage::Inspected);

        let library = cached_library(pack, library, &context.cache)?;
        cache_data(pack, &context.cache)?;
        self.timings.cache = self.passed(AdmissionStage::Cached);

        let contact = first_contact(context, &pack.manifest, &library)?;
        self.timings.probe = self.passed(AdmissionStage::Probed);

        let mut warnings: Vec<String> = elf.warnings().map(ToString::to_string).collect();
        if contact.unload == Unload::Pinned {
            warnings.push(
                "its library stays mapped once it was opened, so another version of it needs a restart"
                    .to_owned(),
            );
        }
        let summary =
            PackSummary::new(&pack.manifest, pack.manifest_bytes.len(), warnings, Some(signer.to_string()));
        Ok(Admitted {
            generation: pack.generation,
            summary: summary.into(),
            folder: pack.path.clone(),
            timings: self.timings,
            was_probed: contact.now,
        })
    }

    /// A router pack: there is no code to inspect and none to try.
    fn weights_alone(mut self, pack: &PackFolder, signer: &str) -> Result<Admitted, LoadFailure> {
        let base = &self.context.base;
        let weights = read_router(pack)?;
        let found = weights.facts.base;
        if found != base.fingerprint {
            return Err(BaseMismatch::Fingerprint { expected: found, found: base.fingerprint }.into());
        }
        if weights.width() != base.shape.hidden_size {
            let (expected, found) = (weights.width(), base.shape.hidden_size);
            return Err(BaseMismatch::HiddenSize { expected, found }.into());
        }
        self.timings.inspect = self.passed(AdmissionStage::Inspected);
        cache_data(pack, &self.context.cache)?;
        self.timings.cache = self.passed(AdmissionStage::Cached);
        self.timings.probe = self.passed(AdmissionStage::Probed);
        let signer = Some(signer.to_owned());
        let summary = PackSummary::new(&pack.manifest, pack.manifest_bytes.len(), Vec::new(), signer);
        Ok(Admitted {
            generation: pack.generation,
            summary: summary.into(),
            folder: pack.path.clone(),
            timings: self.timings,
            was_probed: false,
        })
    }

    fn passed(&mut self, stage: AdmissionStage) -> Duration {
        let took = self.start.elapsed();
        self.start = Instant::now();
        (self.on_stage)(stage, took);
        took
    }
}

/// What can be said against a pack before anything of it runs.
pub(crate) fn admissible(
    manifest: &PackManifest,
    elf: &ElfInspection,
    base: &BaseContext,
) -> Result<(), LoadFailure> {
    fits_base(manifest, base)?;
    let refusals: Vec<Finding> = elf.refusals().cloned().collect();
    if !refusals.is_empty() {
        return Err(LoadFailure::Inspection(refusals));
    }
    elf.note.as_ref().map_or(Ok(()), |note| agrees(manifest, note))
}

fn agrees(manifest: &PackManifest, note: &PackNote) -> Result<(), LoadFailure> {
    let pairs = [
        ("ABI", manifest.abi.version.major.to_string(), note.abi_major.to_string()),
        ("opset", manifest.abi.opset.to_string(), note.opset.to_string()),
        ("target", manifest.abi.target.to_string(), note.target.clone()),
    ];
    match pairs.into_iter().find(|(_, manifest, library)| manifest != library) {
        Some((what, manifest, library)) => Err(LoadFailure::Contradiction { what, manifest, library }),
        None => Ok(()),
    }
}

/// The weights of a router pack, checked.
///
/// # Errors
/// Weights that are no router's, or can't be read.
pub fn read_router(pack: &PackFolder) -> Result<RouterWeights, LoadFailure> {
    let record = pack.manifest.weights.as_ref();
    let (Some(record), Some(file)) = (record, pack.open_weights()?) else {
        return Err(LoadFailure::Router(RouterError::Facts("the pack names no weights".into())));
    };
    let path = record.file.in_folder(&pack.path);
    let mut bytes = Vec::new();
    file.take(MAX_ROUTER_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| FolderError::Read { path: path.clone(), source })?;
    let weights = RouterWeights::from_bytes(&bytes)?;
    // Too large a file is refused above, by name.
    let found = Sha256::of_bytes(&bytes);
    if found != record.sha256 {
        return Err(FolderError::Hash { path, expected: record.sha256, found }.into());
    }
    Ok(weights)
}

/// Copies weights and manifest to the cache.
fn cache_data(pack: &PackFolder, cache: &FileCache) -> Result<(), LoadFailure> {
    if let (Some(record), Some(mut file)) = (&pack.manifest.weights, pack.open_weights()?) {
        cache.store(&cache.weights_path(pack.generation), &mut file, &record.sha256)?;
    }
    let manifest = cache.manifest_path(pack.generation);
    let digest = Sha256::of_bytes(&pack.manifest_bytes);
    Ok(cache.store(&manifest, &mut pack.manifest_bytes.as_slice(), &digest)?)
}

/// Copies the library to the cache; gives its absolute path there, since a child works in another folder.
pub(crate) fn cached_library(
    pack: &PackFolder,
    library: &FileRecord,
    cache: &FileCache,
) -> Result<PathBuf, LoadFailure> {
    let path = cache.store_library(pack.generation, &mut pack.open(library)?, &library.sha256)?;
    let absolute = path.canonicalize();
    Ok(absolute.map_err(|source| CacheError::Io { path, source })?)
}

struct Contact {
    unload: Unload,
    /// Not known from earlier.
    now: bool,
}

fn first_contact(
    context: &LoadContext,
    manifest: &PackManifest,
    library: &Path,
) -> Result<Contact, LoadFailure> {
    let key = context.probe_key(manifest);
    match context.index().probed(key) {
        Some(ProbeOutcome::Passed { unload, .. }) => return Ok(Contact { unload, now: false }),
        Some(ProbeOutcome::Failed(reason)) => return Err(LoadFailure::RefusedBefore(reason)),
        None => {}
    }
    match context.prober.probe(library, &context.config_for(manifest), 0) {
        Ok(report) => {
            let passed = ProbeOutcome::Passed { graph: graph_digest(&report.graph), unload: report.unload };
            context.index().remember_probe(key, passed);
            Ok(Contact { unload: report.unload, now: true })
        }
        Err(error) => {
            let failure = LoadFailure::from(error);
            if failure.is_lasting() {
                let failed = ProbeOutcome::Failed(failure.quarantine_reason());
                context.index().remember_probe(key, failed);
            }
            Err(failure)
        }
    }
}

/// Equal for equal graphs, in every process.
pub(crate) fn graph_digest(graph: &Graph) -> Sha256 {
    // A graph came from a child as JSON, so it can be written as JSON.
    Sha256::of_bytes(&serde_json::to_vec(graph).unwrap_or_default())
}
