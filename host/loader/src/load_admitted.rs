//! From an admitted pack to one that can be placed: the work of every load, and nothing that admission has done.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use manifests::{FileName, PackManifest, Sha256};
use modularbase_graph::{CheckedGraph, infer_shapes};

use crate::{
    Generation,
    admission::{admissible, graph_digest},
    base_fit::{copies_fit_base, declaration_holds},
    elf::{ElfInspection, Finding, inspect_library},
    error::{LoadError, LoadFailure},
    file_cache::{CacheError, FileCache},
    library::{BuildRequest, BuiltPack, LibraryError, LogLine, PackInfo, Unload, build_graph, is_mapped},
    load_context::LoadContext,
    pack_folder::{FolderError, StatedPack, open_inside},
    pack_index::ProbeOutcome,
    weights_file::{WeightsFile, all_weights_have_values},
};

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
    /// Reading and, at admission, hashing and inspecting.
    pub inspect: Duration,
    /// Verifying the copies in the cache, or making them, as far as nothing else was done beside it.
    pub cache: Duration,
    /// The child process; zero when this generation was probed before.
    pub probe: Duration,
    /// Opening, building and closing in this process.
    pub build: Duration,
}

/// Packs of which some version is mapped for ever, by id.
static PINNED: Mutex<BTreeMap<String, (Generation, PathBuf)>> = Mutex::new(BTreeMap::new());

/// Loads the pack that was admitted from `folder` as `expected`, from its copies in the cache, each verified by its
/// hash: builds its graph in this process, closes the library, checks graph and weights. Copies that are missing or
/// damaged are made again from the folder; a folder that is gone is not missed as long as the copies are there.
///
/// # Errors
/// [`LoadFailure::Superseded`] when the folder holds another generation by now; else the stage it stopped at and why.
pub fn load_admitted(
    folder: &Path,
    expected: Generation,
    context: &LoadContext,
) -> Result<LoadedPack, LoadError> {
    load_and_place(folder, expected, context, |_| ()).map(|(loaded, ())| loaded)
}

/// As [`load_admitted`], and `place` is called with the pack. It may be called before the hash of the weights is known,
/// which takes longer than everything else: where the copy turns out to be damaged, what it gave is dropped and it is
/// called once more, with weights from a copy that was made again. What is returned was placed from verified files.
///
/// # Errors
/// As [`load_admitted`].
pub fn load_and_place<T>(
    folder: &Path,
    expected: Generation,
    context: &LoadContext,
    place: impl FnMut(&LoadedPack) -> T,
) -> Result<(LoadedPack, T), LoadError> {
    let start = Instant::now();
    let source = Source::find(folder, expected, &context.cache)?;
    let inspect = start.elapsed();
    let (mut loaded, placed) = source
        .load_and_place(context, place)
        .map_err(|failure| LoadError::of_pack(&source.stated.manifest, expected, failure))?;
    loaded.timings.inspect = inspect;
    Ok((loaded, placed))
}

/// Where a pack's files come from.
struct Source {
    stated: StatedPack,
    /// The folder is there, so copies can be made again.
    has_folder: bool,
}

impl Source {
    fn find(folder: &Path, expected: Generation, cache: &FileCache) -> Result<Self, LoadError> {
        match StatedPack::read(folder) {
            Ok(stated) if stated.generation == expected => Ok(Self { stated, has_folder: true }),
            Ok(stated) => {
                let failure = LoadFailure::Superseded { expected, found: stated.generation };
                Err(LoadError::of_pack(&stated.manifest, expected, failure))
            }
            Err(FolderError::Read { path, source }) if source.kind() == io::ErrorKind::NotFound => {
                match StatedPack::read_copy(&cache.manifest_path(expected)) {
                    Ok(stated) if stated.generation == expected => Ok(Self { stated, has_folder: false }),
                    _ => Err(LoadError::of_folder(folder, FolderError::Read { path, source })),
                }
            }
            Err(error) => Err(LoadError::of_folder(folder, error)),
        }
    }

    fn load_and_place<T>(
        &self,
        context: &LoadContext,
        mut place: impl FnMut(&LoadedPack) -> T,
    ) -> Result<(LoadedPack, T), LoadFailure> {
        let (manifest, generation) = (&self.stated.manifest, self.stated.generation);
        let start = Instant::now();
        let cache = &context.cache;
        let record = manifest.library.as_ref().ok_or(LoadFailure::NoLibrary)?;
        let library = cache.library_path(generation);
        let digest = &record.sha256;
        // Nothing of a library is looked at before its hash is known.
        self.ensure_copy(cache, &library, &record.file, digest)?;
        let elf = context.inspected(digest, || read_copy(&library).map(|bytes| inspect_library(&bytes)))?;
        admissible(manifest, &elf, &context.base)?;
        cache.touch(generation);
        let mut in_cache = start.elapsed();

        let mut attempt = |in_cache: Duration| {
            let mut loaded = self.load(context, &elf)?;
            loaded.timings.cache = in_cache;
            let placed = place(&loaded);
            Ok((loaded, placed))
        };
        let Some(record) = &manifest.weights else { return attempt(in_cache) };
        let path = cache.weights_path(generation);
        if cache.is_known_to_hold(&path, &record.sha256) {
            return attempt(in_cache);
        }
        if path.exists() {
            let (attempted, waited, is_sound) = thread::scope(|scope| {
                let holds = || cache.holds(&path, &record.sha256);
                let thread = thread::Builder::new().name("pack-hash".to_owned());
                let Ok(hashing) = thread.spawn_scoped(scope, holds) else {
                    let is_sound = holds();
                    return (is_sound.then(|| attempt(in_cache)), Duration::ZERO, is_sound);
                };
                let attempted = attempt(in_cache);
                let placed = Instant::now();
                let is_sound = hashing.join().unwrap_or(false);
                (Some(attempted), placed.elapsed(), is_sound)
            });
            if let (Some(attempted), true) = (attempted, is_sound) {
                let (mut loaded, placed) = attempted?;
                loaded.timings.cache += waited;
                return Ok((loaded, placed));
            }
            in_cache = start.elapsed();
        }
        let storing = Instant::now();
        cache.store(&path, &mut self.original(&path, &record.file)?, &record.sha256)?;
        attempt(in_cache + storing.elapsed())
    }

    /// The pack with the weights that lie in the cache now.
    fn load(&self, context: &LoadContext, elf: &ElfInspection) -> Result<LoadedPack, LoadFailure> {
        let (manifest, generation) = (&self.stated.manifest, self.stated.generation);
        let library = context.cache.library_path(generation);
        let weights = manifest.weights.as_ref();
        let weights = weights
            .map(|record| WeightsFile::open(&context.cache.weights_path(generation), record))
            .transpose()?;
        let built = build_here(manifest, generation, library, context)?;
        let timings = LoadTimings { build: built.elapsed, ..LoadTimings::default() };
        let key = context.probe_key(manifest);
        if let Some(ProbeOutcome::Passed { graph, .. }) = context.index().probed(key)
            && graph != graph_digest(&built.graph)
        {
            // Which of the two graphs is the pack's own nobody knows: it is probed anew when it is looked at again.
            context.index().forget_probe(key);
            return Err(LoadFailure::NotRepeatable);
        }
        let graph = infer_shapes(built.graph)?;
        graph.suits_slot(context.base.shape.hidden_size)?;
        copies_fit_base(graph.graph(), &context.base.shape)?;

        if let Some(weights) = &weights {
            weights.fits(graph.graph())?;
        }
        let owned_weights = weights.as_ref().map(WeightsFile::names).unwrap_or_default();
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

    /// Makes sure that the copy at `path` is there and sound.
    fn ensure_copy(
        &self,
        cache: &FileCache,
        path: &Path,
        file: &FileName,
        digest: &Sha256,
    ) -> Result<(), LoadFailure> {
        if cache.holds(path, digest) {
            return Ok(());
        }
        Ok(cache.store(path, &mut self.original(path, file)?, digest)?)
    }

    /// The file in the pack's folder, to make the copy at `path` again.
    fn original(&self, path: &Path, file: &FileName) -> Result<File, LoadFailure> {
        if self.has_folder {
            return Ok(open_inside(&self.stated.path, &file.in_folder(&self.stated.path))?);
        }
        let source =
            io::Error::new(io::ErrorKind::NotFound, "the pack's folder is gone, and so is this copy");
        Err(CacheError::Io { path: path.to_owned(), source }.into())
    }
}

fn read_copy(path: &Path) -> Result<Vec<u8>, LoadFailure> {
    Ok(std::fs::read(path).map_err(|source| CacheError::Io { path: path.to_owned(), source })?)
}

fn build_here(
    manifest: &PackManifest,
    generation: Generation,
    library: PathBuf,
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
    let config = context.config_for(manifest);
    let built = build_graph(&BuildRequest { library: library.clone(), config, time_limit });
    match &built {
        Ok(BuiltPack { unload: Unload::Pinned, .. }) | Err(LibraryError::TimedOut(_)) => {
            pinned.insert(id, (generation, library));
        }
        _ => {}
    }
    Ok(built?)
}
