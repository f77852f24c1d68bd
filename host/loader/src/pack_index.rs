//! What is known of packs from earlier, so that a restart neither hashes nor probes what it has seen before.
//!
//! A file of JSON lines beside the copies. It is a cache: every entry can be found out again, so nothing about the
//! file is ever a reason to fail, and it is written without waiting for the disk. Several host processes may share it;
//! each keeps the entries of its own configuration in memory.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use manifests::Sha256;
use serde::{Deserialize, Serialize};

use crate::{
    Generation, PackSummary, QuarantineReason, Stamp, Unload,
    index_file::{IndexFile, Line},
};

/// The file's name in the cache folder.
pub const INDEX_FILE: &str = "index.jsonl";

/// Everything about a host that a verdict on a pack depends on, as a hash; see `LoadContext::key`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ContextKey(pub Sha256);

/// What is known of a pack's folder or archive as long as its stamp stays the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Known {
    /// Its identity.
    pub generation: Generation,
    /// What its manifest says.
    #[serde(with = "shared")]
    pub summary: Arc<PackSummary>,
    /// Whether this host takes it.
    pub outcome: Outcome,
}

/// What became of a pack on its way to being registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It may be loaded.
    Admitted,
    /// It may not, for this reason.
    Refused(QuarantineReason),
}

/// What the first contact with a library gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProbeOutcome {
    /// It built a graph.
    Passed {
        /// Digest of the graph: the host's own build must give the same.
        graph: Sha256,
        /// Whether its library went away again.
        unload: Unload,
    },
    /// It failed.
    Failed(QuarantineReason),
}

/// The index of one host configuration.
#[derive(Debug)]
pub struct PackIndex {
    context: ContextKey,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    packs: HashMap<PathBuf, (Sha256, Known)>,
    probes: HashMap<Generation, ProbeOutcome>,
    /// `None`: kept in memory only.
    file: Option<IndexFile>,
}

impl PackIndex {
    /// Reads the index in `folder` (made when the first entry is written). One that can't be read is an empty one, with
    /// a warning in the log.
    pub fn open(folder: &Path, context: ContextKey) -> Self {
        let path = folder.join(INDEX_FILE);
        let mut state = State::default();
        let (file, lines) = IndexFile::open(&path);
        for line in lines {
            if line.context == context {
                state.apply(line);
            }
        }
        state.file = Some(file);
        Self { context, state: Mutex::new(state) }
    }

    /// An index that is forgotten with the process.
    pub fn in_memory(context: ContextKey) -> Self {
        Self { context, state: Mutex::default() }
    }

    /// What is known of the folder or archive at `path` (without symbolic links) while it has that stamp.
    pub fn known(&self, path: &Path, stamp: &Stamp) -> Option<Known> {
        let state = self.state();
        let (digest, known) = state.packs.get(path)?;
        (*digest == stamp.digest()).then(|| known.clone())
    }

    /// Keeps what was found out of the folder or archive at `path`, of which `stamp` was taken before it was read.
    pub fn remember(&self, path: &Path, stamp: &Stamp, known: Known) {
        let stamp = stamp.digest();
        let mut state = self.state();
        if state.packs.get(path).is_some_and(|before| *before == (stamp, known.clone())) {
            return;
        }
        state.write(Line::pack(self.context, path.to_owned(), stamp, known));
    }

    /// What the first contact with this generation gave.
    pub fn probed(&self, generation: Generation) -> Option<ProbeOutcome> {
        self.state().probes.get(&generation).cloned()
    }

    /// Keeps what the first contact gave.
    pub fn remember_probe(&self, generation: Generation, outcome: ProbeOutcome) {
        let mut state = self.state();
        if state.probes.get(&generation) != Some(&outcome) {
            state.write(Line::probe(self.context, generation, outcome));
        }
    }

    /// Forgets a generation wherever it lies, and its probe.
    pub fn forget(&self, generation: Generation) {
        self.state().write(Line::forget_generation(self.context, generation));
    }

    /// Forgets what is known of a folder or archive.
    pub fn forget_path(&self, path: &Path) {
        self.state().write(Line::forget_path(self.context, path.to_owned()));
    }

    /// How many folders and archives are known.
    pub fn len(&self) -> usize {
        self.state().packs.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn write(&mut self, line: Line) {
        if let Some(file) = &mut self.file {
            file.append(&line);
        }
        self.apply(line);
    }

    fn apply(&mut self, line: Line) {
        if let Some((path, stamp, known)) = line.pack {
            self.packs.insert(path, (stamp, known));
        }
        if let Some((generation, outcome)) = line.probe {
            self.probes.insert(generation, outcome);
        }
        if let Some(generation) = line.forget {
            self.probes.remove(&generation);
            self.packs.retain(|_, (_, known)| known.generation != generation);
        }
        if let Some(path) = line.forget_path {
            self.packs.remove(&path);
        }
    }
}

/// Serde for what is shared in memory and written out each time.
mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<T: Serialize, S: Serializer>(
        value: &Arc<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_ref().serialize(serializer)
    }

    pub(super) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<T>, D::Error> {
        T::deserialize(deserializer).map(Arc::new)
    }
}
