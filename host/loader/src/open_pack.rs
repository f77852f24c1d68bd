//! The whole way from a folder to a pack that can be placed on a device.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    io::Read,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use manifests::{PackManifest, Sha256};
use modularbase_graph::{CheckedGraph, Graph, infer_shapes};
use pack_sdk::config_json;

use crate::{
    Generation,
    base_fit::{BaseContext, copies_fit_base, declaration_holds, fits_base},
    elf::{ElfInspection, Finding, PackNote, inspect_library},
    error::{LoadError, LoadFailure},
    file_cache::{CacheError, FileCache},
    library::{BuildRequest, BuiltPack, LibraryError, LogLine, PackInfo, Unload, build_graph, is_mapped},
    pack_folder::{FolderError, PackFolder},
    probe::{ProbeReport, Prober},
    weights_file::{WeightsFile, all_weights_have_values},
};

/// What loading needs to know of the host.
#[derive(Debug)]
pub struct LoadContext {
    /// Where copies of libraries and weights are kept.
    pub cache: FileCache,
    /// The base that serves.
    pub base: BaseContext,
    /// Makes the first contact with each library.
    pub prober: Prober,
    probed: Mutex<HashSet<(Generation, Sha256)>>,
}

/// A pack whose files are sound and whose library may be opened or not; see `elf`.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// Folder, manifest, generation.
    pub folder: PackFolder,
    /// What the library's file tells.
    pub elf: ElfInspection,
}

/// A pack that is ready to be placed: nothing of its code is needed any more.
#[derive(Debug)]
pub struct LoadedPack {
    /// Its manifest.
    pub manifest: PackManifest,
    /// Its identity.
    pub generation: Generation,
    /// What its library says of itself.
    pub info: PackInfo,
    /// Its graph; every edge fits, hidden states `[tokens, hidden]` in and out.
    pub graph: CheckedGraph,
    /// Its own weights; `None`: all are the base's.
    pub weights: Option<WeightsFile>,
    /// Names of the weights it owns; every other weight of the graph is shared with the base.
    pub owned_weights: BTreeSet<String>,
    /// What became of its library, which is closed.
    pub unload: Unload,
    /// What an operator should know of it.
    pub warnings: Vec<Finding>,
    /// What it wrote to the log.
    pub log: Vec<LogLine>,
    /// Where its load spent the time.
    pub timings: LoadTimings,
}

/// Where a load spent its time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LoadTimings {
    /// Reading, hashing, inspecting.
    pub inspect: Duration,
    /// Copying to the cache, or finding it there.
    pub cache: Duration,
    /// The child process; zero when this generation was probed before.
    pub probe: Duration,
    /// Opening, building and closing in this process.
    pub build: Duration,
}

/// Packs of which some version is mapped for ever, by id.
static PINNED: Mutex<BTreeMap<String, (Generation, PathBuf)>> = Mutex::new(BTreeMap::new());

impl LoadContext {
    /// A context for `base`, with copies in `cache` and `prober` for the first contact.
    pub fn new(cache: FileCache, base: BaseContext, prober: Prober) -> Self {
        Self { cache, base, prober, probed: Mutex::default() }
    }

    /// The JSON text that a pack's `build` gets.
    pub fn config_for(&self, manifest: &PackManifest) -> String {
        config_json(&self.base.shape, self.base.slot, &manifest.config_json())
    }
}

/// Verifies a pack's files and looks into its library without loading it.
///
/// # Errors
/// The folder is unsound. A library that would be refused is no error here: see [`ElfInspection::refusals`].
pub fn inspect(dir: &Path) -> Result<Inspection, LoadError> {
    let folder = PackFolder::read(dir).map_err(|error| LoadError::of_folder(dir, error))?;
    match inspect_folder(&folder) {
        Ok(elf) => Ok(Inspection { folder, elf }),
        Err(failure) => Err(of_pack(&folder, failure)),
    }
}

/// Loads a pack: verifies its files, checks that it fits the base, inspects its library, copies it to the cache, probes it
/// in a child (once a generation and configuration), then builds its graph in this process, closes the library, and
/// checks graph and weights.
///
/// # Errors
/// The stage it stopped at and why. Nothing of the pack stays behind but its copy in the cache.
pub fn open_pack(dir: &Path, context: &LoadContext) -> Result<LoadedPack, LoadError> {
    let start = Instant::now();
    let Inspection { folder, elf } = inspect(dir)?;
    let inspect = start.elapsed();
    let mut loaded = load(&folder, elf, context).map_err(|failure| of_pack(&folder, failure))?;
    loaded.timings.inspect = inspect;
    Ok(loaded)
}

/// As [`open_pack`] up to the probe, with `cycles` further cycles in the child: for verification.
///
/// # Errors
/// As [`open_pack`].
pub fn probe_pack(
    dir: &Path,
    context: &LoadContext,
    cycles: u32,
) -> Result<(Inspection, ProbeReport), LoadError> {
    let inspection = inspect(dir)?;
    let folder = &inspection.folder;
    let report = (|| {
        admissible(folder, &inspection.elf, &context.base)?;
        let library = cached_library(folder, &context.cache)?;
        Ok(context.prober.probe(&library, &context.config_for(&folder.manifest), cycles)?)
    })();
    match report {
        Ok(report) => Ok((inspection, report)),
        Err(failure) => Err(of_pack(folder, failure)),
    }
}

fn load(folder: &PackFolder, elf: ElfInspection, context: &LoadContext) -> Result<LoadedPack, LoadFailure> {
    let (manifest, generation) = (&folder.manifest, folder.generation);
    admissible(folder, &elf, &context.base)?;
    let mut timings = LoadTimings::default();
    let start = Instant::now();
    let library = cached_library(folder, &context.cache)?;
    timings.cache = start.elapsed();

    let config = context.config_for(manifest);
    let start = Instant::now();
    let probed = first_contact(context, generation, &library, &config)?;
    timings.probe = start.elapsed();

    let built = build_here(manifest, generation, library, config, context)?;
    timings.build = built.elapsed;
    if probed.is_some_and(|graph| graph != built.graph) {
        return Err(LoadFailure::NotRepeatable);
    }
    let graph = infer_shapes(built.graph)?;
    graph.suits_slot(context.base.shape.hidden_size)?;
    copies_fit_base(graph.graph(), &context.base.shape)?;

    let weights = match (&manifest.weights, folder.open_weights()?) {
        (Some(record), Some(mut file)) => {
            let path = context.cache.weights_path(generation);
            context.cache.store(&path, &mut file, &record.sha256)?;
            let weights = WeightsFile::open(&path, record)?;
            weights.fits(graph.graph())?;
            Some(weights)
        }
        _ => None,
    };
    let owned_weights = weights.as_ref().map(WeightsFile::names).transpose()?.unwrap_or_default();
    all_weights_have_values(graph.graph(), &owned_weights)?;
    declaration_holds(manifest, graph.graph(), &owned_weights)?;
    Ok(LoadedPack {
        manifest: manifest.clone(),
        generation,
        info: built.info,
        graph,
        weights,
        owned_weights,
        unload: built.unload,
        warnings: elf.warnings().cloned().collect(),
        log: built.log,
        timings,
    })
}

fn inspect_folder(folder: &PackFolder) -> Result<ElfInspection, LoadFailure> {
    let path = folder.library_path();
    let record = &folder.manifest.library;
    let mut bytes = Vec::new();
    folder
        .open_library()?
        .take(record.size.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|source| FolderError::Read { path: path.clone(), source })?;
    let found = Sha256::of_bytes(&bytes);
    if found != record.sha256 {
        return Err(FolderError::Hash { path, expected: record.sha256, found }.into());
    }
    Ok(inspect_library(&bytes))
}

/// What can be said against a pack before anything of it runs.
fn admissible(folder: &PackFolder, elf: &ElfInspection, base: &BaseContext) -> Result<(), LoadFailure> {
    fits_base(&folder.manifest, base)?;
    let refusals: Vec<Finding> = elf.refusals().cloned().collect();
    if !refusals.is_empty() {
        return Err(LoadFailure::Inspection(refusals));
    }
    elf.note.as_ref().map_or(Ok(()), |note| agrees(&folder.manifest, note))
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

fn cached_library(folder: &PackFolder, cache: &FileCache) -> Result<PathBuf, LoadFailure> {
    let path = cache.library_path(folder.generation);
    cache.store(&path, &mut folder.open_library()?, &folder.manifest.library.sha256)?;
    // Absolute, since the child works in another folder.
    let absolute = path.canonicalize();
    Ok(absolute.map_err(|source| CacheError::Io { path, source })?)
}

/// The graph that the child saw; `None` if this was probed before.
fn first_contact(
    context: &LoadContext,
    generation: Generation,
    library: &Path,
    config: &str,
) -> Result<Option<Graph>, LoadFailure> {
    let key = (generation, Sha256::of_bytes(config.as_bytes()));
    if context.probed.lock().unwrap_or_else(PoisonError::into_inner).contains(&key) {
        return Ok(None);
    }
    let report = context.prober.probe(library, config, 0)?;
    context.probed.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
    Ok(Some(report.graph))
}

fn build_here(
    manifest: &PackManifest,
    generation: Generation,
    library: PathBuf,
    config: String,
    context: &LoadContext,
) -> Result<BuiltPack, LoadFailure> {
    let id = manifest.pack.id.to_string();
    let mut pinned = PINNED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((other, path)) = pinned.get(&id)
        && *other != generation
    {
        if is_mapped(path) {
            return Err(LoadFailure::OtherVersionPinned { id, pinned: *other });
        }
        pinned.remove(&id); // what held it has ended since
    }
    let time_limit = context.prober.limits().wall_time;
    let built = build_graph(&BuildRequest { library: library.clone(), config, time_limit });
    match &built {
        Ok(BuiltPack { unload: Unload::Pinned, .. }) | Err(LibraryError::TimedOut(_)) => {
            pinned.insert(id, (generation, library));
        }
        _ => {}
    }
    Ok(built?)
}

fn of_pack(folder: &PackFolder, failure: LoadFailure) -> LoadError {
    LoadError {
        pack: folder.manifest.pack.name.to_string(),
        generation: Some(folder.generation),
        failure: Box::new(failure),
    }
}
