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

/// Everything that the first contact with a library depends on beside the host's configuration: its bytes and what its
/// `build` is given. Packs that differ only in their weights share one; see `LoadContext::probe_key`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProbeKey(pub Sha256);

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
    /// The probe that it was refused for, so that both are forgotten together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_by: Option<ProbeKey>,
    /// Of an archive: its own hash, which names the folder it was unpacked to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<Sha256>,
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
    // Boxed, like all that is kept of ten thousand packs: a hash table is up to twice as large as what it holds.
    packs: HashMap<PathBuf, Box<(Sha256, Known)>>,
    probes: HashMap<ProbeKey, ProbeOutcome>,
    /// `None`: kept in memory only.
    file: Option<IndexFile>,
}

impl PackIndex {
    /// Reads the index in `folder` (made when the first entry is written). One that can't be read is an empty one, with
    /// a warning in the log.
    pub fn open(folder: &Path, context: ContextKey) -> Self {
        let path = folder.join(INDEX_FILE);
        let mut state = State::default();
        let file = IndexFile::open(&path, |line| {
            if line.context == context {
                state.apply(line);
            }
        });
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
        let (digest, known) = &**state.packs.get(path)?;
        (*digest == stamp.digest()).then(|| known.clone())
    }

    /// Keeps what was found out of the folder or archive at `path`, of which `stamp` was taken before it was read.
    pub fn remember(&self, path: &Path, stamp: &Stamp, known: Known) {
        let stamp = stamp.digest();
        let mut state = self.state();
        if state.packs.get(path).is_some_and(|before| (before.0, &before.1) == (stamp, &known)) {
            return;
        }
        state.write(Line::pack(self.context, path.to_owned(), stamp, known));
    }

    /// What the first contact gave.
    pub fn probed(&self, key: ProbeKey) -> Option<ProbeOutcome> {
        self.state().probes.get(&key).cloned()
    }

    /// Keeps what the first contact gave.
    pub fn remember_probe(&self, key: ProbeKey, outcome: ProbeOutcome) {
        let mut state = self.state();
        if state.probes.get(&key) != Some(&outcome) {
            state.write(Line::probe(self.context, key, outcome));
        }
    }

    /// Forgets what the first contact gave.
    pub fn forget_probe(&self, key: ProbeKey) {
        let mut state = self.state();
        if state.probes.contains_key(&key) {
            state.write(Line::forget_probe(self.context, key));
        }
    }

    /// Forgets a generation wherever it lies, and the probe that it was refused for.
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
            self.packs.insert(path, Box::new((stamp, known)));
        }
        if let Some((key, outcome)) = line.probe {
            self.probes.insert(key, outcome);
        }
        if let Some(key) = line.forget_probe {
            self.probes.remove(&key);
        }
        if let Some(generation) = line.forget {
            self.packs.retain(|_, pack| {
                let known = &pack.1;
                if known.generation == generation
                    && let Some(key) = known.refused_by
                {
                    self.probes.remove(&key);
                }
                known.generation != generation
            });
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

#[cfg(test)]
mod tests {
    use std::{fs, io::Write};

    use super::*;
    use crate::LoadStage;

    const CONTEXT: ContextKey = ContextKey(Sha256::from_bytes([1; 32]));

    fn generation(text: &str) -> Generation {
        let hash = Sha256::of_bytes(text.as_bytes());
        Generation::new(&hash, &hash, None)
    }

    fn known(name: &str, outcome: Outcome) -> Known {
        let summary = PackSummary {
            id: format!("org.example.{name}").parse().unwrap(),
            name: name.parse().unwrap(),
            version: manifests::Version::new(1, 2, 3),
            kind: manifests::PackKind::Expert,
            dependencies: [("org.example.other".parse().unwrap(), "^1".parse().unwrap())].into(),
            base_range: Some(">=1, <3".parse().unwrap()),
            file_bytes: 6_000_000,
            default_weight: 0.5,
            warnings: ["it is new".to_owned()].into(),
            signer: Some("signed by somebody".to_owned()),
        };
        let refused_by = (outcome == refused()).then(|| probe(name));
        Known { generation: generation(name), summary: summary.into(), outcome, refused_by, archive: None }
    }

    fn probe(name: &str) -> ProbeKey {
        ProbeKey(Sha256::of_bytes(name.as_bytes()))
    }

    fn refused() -> Outcome {
        Outcome::Refused(QuarantineReason { stage: LoadStage::Probe, reason: "it crashed".to_owned() })
    }

    /// A folder to take stamps of, and one for the index.
    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn index(&self) -> PackIndex {
            PackIndex::open(self.0.path(), CONTEXT)
        }

        fn file(&self) -> PathBuf {
            self.0.path().join(INDEX_FILE)
        }

        fn lines(&self) -> usize {
            fs::read_to_string(self.file()).unwrap().lines().count()
        }

        fn stamp(&self, content: &str) -> Stamp {
            let path = self.0.path().join("stamped");
            fs::write(&path, content).unwrap();
            Stamp::of(&path).unwrap()
        }
    }

    #[test]
    fn what_is_remembered_is_known_after_a_restart_while_the_stamp_stays() {
        let place = Place::new();
        let (stamp, other) = (place.stamp("a"), place.stamp("another"));
        let (good, bad) = (known("good", Outcome::Admitted), known("bad", refused()));
        let passed = ProbeOutcome::Passed { graph: Sha256::of_bytes(b"graph"), unload: Unload::Pinned };
        let index = place.index();
        assert!(index.is_empty());
        index.remember(Path::new("/packs/good"), &stamp, good.clone());
        index.remember(Path::new("/packs/bad"), &stamp, bad.clone());
        index.remember(Path::new("/packs/bad"), &stamp, bad.clone());
        index.remember_probe(probe("good"), passed.clone());
        for index in [index, place.index()] {
            assert_eq!(index.known(Path::new("/packs/good"), &stamp), Some(good.clone()));
            assert_eq!(index.known(Path::new("/packs/bad"), &stamp), Some(bad.clone()));
            assert_eq!(index.known(Path::new("/packs/good"), &other), None);
            assert_eq!(index.probed(probe("good")), Some(passed.clone()));
            assert_eq!(index.probed(probe("bad")), None);
            assert_eq!(index.len(), 2);
        }
        assert_eq!(place.lines(), 3, "what is known already is written again");
    }

    #[test]
    fn another_base_or_policy_knows_nothing_of_it_and_takes_nothing_away() {
        let place = Place::new();
        let stamp = place.stamp("a");
        place.index().remember(Path::new("/packs/a"), &stamp, known("a", refused()));
        let other = PackIndex::open(place.0.path(), ContextKey(Sha256::from_bytes([2; 32])));
        assert_eq!(other.known(Path::new("/packs/a"), &stamp), None);
        other.remember(Path::new("/packs/a"), &stamp, known("a", Outcome::Admitted));
        assert_eq!(place.index().known(Path::new("/packs/a"), &stamp).unwrap().outcome, refused());
    }

    #[test]
    fn a_torn_line_and_lines_of_a_later_version_cost_only_themselves() {
        let place = Place::new();
        let stamp = place.stamp("a");
        place.index().remember(Path::new("/packs/a"), &stamp, known("a", Outcome::Admitted));
        let whole = fs::read(place.file()).unwrap();
        let mut file = fs::File::options().append(true).open(place.file()).unwrap();
        file.write_all(b"{\"dream\":\"of a later version\"}\n\xff\xfe\n").unwrap();
        // The host was killed in the middle of a line.
        file.write_all(&whole[..whole.len() / 2]).unwrap();
        let index = place.index();
        assert!(index.known(Path::new("/packs/a"), &stamp).is_some());
        index.remember(Path::new("/packs/b"), &stamp, known("b", Outcome::Admitted));
        let index = place.index();
        assert!(index.known(Path::new("/packs/a"), &stamp).is_some());
        assert!(index.known(Path::new("/packs/b"), &stamp).is_some());
    }

    #[test]
    fn what_is_forgotten_stays_forgotten() {
        let place = Place::new();
        let stamp = place.stamp("a");
        let index = place.index();
        for path in ["/packs/a", "/packs/copy", "/packs/b"] {
            let name = if path == "/packs/b" { "b" } else { "a" };
            index.remember(Path::new(path), &stamp, known(name, refused()));
        }
        let failed = || {
            let reason = "it crashed".to_owned();
            ProbeOutcome::Failed(QuarantineReason { stage: LoadStage::Probe, reason })
        };
        ["a", "other", "disproved"].into_iter().for_each(|name| index.remember_probe(probe(name), failed()));
        index.forget(generation("a"));
        index.forget_probe(probe("disproved"));
        index.forget_path(Path::new("/packs/b"));
        for index in [index, place.index()] {
            assert!(index.is_empty());
            assert_eq!(index.probed(probe("a")), None, "another look at `a` would be refused unprobed");
            assert_eq!(index.probed(probe("disproved")), None);
            assert_eq!(index.probed(probe("other")), Some(failed()));
        }
    }

    #[test]
    fn a_file_of_superseded_lines_is_compacted_and_keeps_what_counts() {
        let place = Place::new();
        let stamp = place.stamp("a");
        let other = PackIndex::open(place.0.path(), ContextKey(Sha256::from_bytes([2; 32])));
        other.remember(Path::new("/packs/a"), &stamp, known("a", Outcome::Admitted));
        // Opened before the compaction: what it writes afterwards must not be lost with the old file.
        let running = place.index();
        running.remember(Path::new("/packs/first"), &stamp, known("first", Outcome::Admitted));
        for round in 0..100 {
            let outcome = if round % 2 == 0 { Outcome::Admitted } else { refused() };
            running.remember(Path::new("/packs/a"), &stamp, known("a", outcome));
        }
        running.remember(Path::new("/packs/gone"), &stamp, known("gone", Outcome::Admitted));
        running.forget_path(Path::new("/packs/gone"));
        assert_eq!(place.lines(), 104);
        assert_eq!(place.index().len(), 2);
        assert_eq!(place.lines(), 3);
        running.remember(Path::new("/packs/last"), &stamp, known("last", Outcome::Admitted));
        let index = place.index();
        assert_eq!(index.len(), 3);
        assert_eq!(index.known(Path::new("/packs/a"), &stamp).unwrap().outcome, refused());
        let other = PackIndex::open(place.0.path(), ContextKey(Sha256::from_bytes([2; 32])));
        assert_eq!(other.len(), 1);
    }

    #[test]
    fn two_hosts_that_write_at_once_lose_nothing() {
        let place = Place::new();
        let stamp = place.stamp("a");
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let (place, stamp) = (&place, &stamp);
                scope.spawn(move || {
                    let index = place.index();
                    for number in 0..100 {
                        let name = format!("{writer}-{number}");
                        index.remember(Path::new(&name), stamp, known("a", Outcome::Admitted));
                    }
                });
            }
        });
        assert_eq!(place.index().len(), 400);
    }

    #[test]
    fn an_index_that_can_not_be_kept_is_no_failure() {
        let place = Place::new();
        let stamp = place.stamp("a");
        fs::create_dir(place.file()).unwrap();
        for index in [place.index(), PackIndex::open(Path::new("/proc/nowhere"), CONTEXT)] {
            index.remember(Path::new("/packs/a"), &stamp, known("a", Outcome::Admitted));
            assert!(index.known(Path::new("/packs/a"), &stamp).is_some());
        }
    }
}
