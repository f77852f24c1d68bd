//! A pack comes to the device and goes again, ten thousand times, alone in its process so that its memory is its own.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use modularbase_engine::Host;
use modularbase_manager::EvictOutcome;
use modularbase_residency::Owner;
use system_tests::{Base, Folders, ProcessState, resident_bytes, wait_for};

/// Until the event log, which keeps the last 4,096, is full: three events a cycle.
const WARM_UP: usize = 1_500;
const CYCLES: usize = 10_000;
/// The pack is replaced by another one of its name so often, and the other one is removed and added again.
const CYCLES_TO_A_CHANGE: usize = 1_000;
/// What fragmentation may cost: 400 bytes a cycle would fail.
const ALLOWED_GROWTH: i64 = 4 << 20;

#[test]
fn ten_thousand_load_unload_cycles_return_every_byte() {
    let folders = Folders::for_base(Base::Tiny);
    // Two versions of `law`, which take turns in the folder, and `other`, which comes and goes.
    let aside = tempfile::tempdir().unwrap();
    for (version, seed) in [("law-1", 1), ("law-2", 2)] {
        let made = folders.fixture("sized").named("law").seeded(seed).lay_out(aside.path());
        fs::rename(made, aside.path().join(version)).unwrap();
    }
    folders.fixture("sized").named("other").seeded(3).lay_out(folders.packs.path());
    fs::rename(aside.path().join("law-1"), folders.packs.path().join("law")).unwrap();
    let host = folders.host();
    let changes = Changes { host: &host, folders: &folders, aside: aside.path() };

    let (mut state, mut memory) = (None, 0);
    let mut micros = Vec::with_capacity(CYCLES);
    for cycle in 0..WARM_UP + CYCLES {
        if cycle == WARM_UP {
            state = Some(changes.state());
            memory = resident_bytes();
        }
        let name = if cycle % 2 == 0 { "law" } else { "other" };
        let choice = name.parse().unwrap();
        let start = Instant::now();
        let turn = host.turn(&choice).unwrap();
        assert_eq!(turn.mixture().parts()[0].0.name(), name);
        drop(turn);
        let evicted = host.manager().evict(name).unwrap();
        assert!(matches!(evicted, EvictOutcome::Evicted { bytes } if bytes > 0), "{cycle}: {evicted:?}");
        if cycle >= WARM_UP {
            micros.push(start.elapsed().as_micros());
        }
        // An even number of changes, so that in the end the same generations are there as before.
        if cycle % CYCLES_TO_A_CHANGE == CYCLES_TO_A_CHANGE - 1 {
            changes.replace();
            changes.remove_and_add();
        }
    }
    let before = state.unwrap();
    wait_for("the end of threads and copies", || changes.state().is(&before).then_some(()));
    let no_pack = before.held.iter().all(|(owner, _)| !matches!(owner, Owner::Pack(_)));
    assert!(before.process.pack_files.is_empty() && no_pack, "{before:?}");
    let growth = resident_bytes() - memory;
    micros.sort_unstable();
    println!(
        "{CYCLES} cycles: median {} us, p99 {} us; resident memory {growth:+} bytes",
        micros[CYCLES / 2],
        micros[CYCLES * 99 / 100]
    );
    assert!(growth < ALLOWED_GROWTH, "resident memory grew by {growth} bytes");
    let totals = host.manager().totals();
    let cycles = (WARM_UP + CYCLES) as u64;
    assert_eq!((totals.loads, totals.evictions, totals.quarantines), (cycles, cycles, 0));
}

/// What loads and evictions take and must give back.
#[derive(Debug)]
struct State {
    process: ProcessState,
    held: Vec<(Owner, u64)>,
    /// Of the host's cache.
    files: BTreeSet<PathBuf>,
}

impl State {
    fn is(&self, other: &Self) -> bool {
        self.process.holds_the_same(&other.process)
            && (&self.held, &self.files) == (&other.held, &other.files)
    }
}

fn files_below(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files_below(&entry.path())),
            _ => drop(found.insert(entry.path())),
        }
    }
    found
}

struct Changes<'a> {
    host: &'a Host,
    folders: &'a Folders,
    aside: &'a std::path::Path,
}

impl Changes<'_> {
    fn state(&self) -> State {
        State {
            process: ProcessState::now(),
            held: self.host.ledger().holders(),
            files: files_below(self.folders.cache.path()),
        }
    }

    fn generation(&self, name: &str) -> Option<String> {
        let registered = self.host.manager().registered();
        registered.into_iter().find(|pack| pack.name == name).map(|pack| pack.generation.to_hex())
    }

    /// The other version of `law` takes the place of the one that is there.
    fn replace(&self) {
        let law = self.folders.packs.path().join("law");
        let old = self.generation("law");
        let [new, kept] = ["law-1", "law-2"].map(|version| self.aside.join(version));
        let (new, kept) = if new.exists() { (new, kept) } else { (kept, new) };
        fs::rename(&law, kept).unwrap();
        fs::rename(new, &law).unwrap();
        wait_for("the other version", || self.generation("law").filter(|now| Some(now) != old.as_ref()));
    }

    fn remove_and_add(&self) {
        let (other, away) = (self.folders.packs.path().join("other"), self.aside.join("other"));
        let old = self.generation("other");
        fs::rename(&other, &away).unwrap();
        wait_for("the removal", || self.generation("other").is_none().then_some(()));
        fs::rename(away, other).unwrap();
        wait_for("the pack again", || (self.generation("other") == old).then_some(()));
    }
}
