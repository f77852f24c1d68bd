//! A packs directory that changes while it is watched: what is admitted, when, and what never is.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{self, File},
    io::Write,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use fixture_packs::{TestHost, lay_out, lay_out_with, write_manifest};
use manifests::{PackManifest, Sha256, Version};
use modularbase_loader::{
    Change, Examined, FolderError, Generation, LoadContext, WatchOptions, WatchedDirectory, admit_complete,
    candidate, candidates, examine,
};
use tempfile::TempDir;

/// What a host that watches saw of an entry.
#[derive(Debug)]
enum Seen {
    Waiting(String),
    Unsound(FolderError),
    Admitted(Generation),
    Gone,
}

/// The least that a host does: it admits what is complete as soon as it is told to look.
struct Watching {
    root: TempDir,
    context: Arc<LoadContext>,
    seen: mpsc::Receiver<(String, Seen, Instant)>,
    _watch: WatchedDirectory,
}

/// Patience of tests, not a promise: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(20);
/// A rescan that is not meant to be what finds a change.
const NEVER: Duration = Duration::from_secs(3600);

impl Watching {
    fn start(rescan: Duration, prepare: impl FnOnce(&Path)) -> Self {
        let TestHost { root, context } = TestHost::new(env!("CARGO_BIN_EXE_pack-probe"));
        prepare(root.path());
        let context = Arc::new(context);
        let (told, seen) = mpsc::channel();
        let packs = root.path().join("packs");
        let options = WatchOptions { rescan, ..WatchOptions::default() };
        let host = Arc::clone(&context);
        let watch = WatchedDirectory::start(&packs.clone(), options, move |change| {
            for (name, seen) in react(&packs, change, &host) {
                let _ = told.send((name, seen, Instant::now()));
            }
        })
        .unwrap();
        Self { root, context, seen, _watch: watch }
    }

    /// Watches an empty packs directory, and returns when it is watched.
    fn with_packs_directory() -> Self {
        let watching = Self::start(NEVER, |root| {
            fs::create_dir(root.join("packs")).unwrap();
            lay_out("scaled", &root.join("packs"));
            // What has just changed is told again once it rests.
            thread::sleep(Duration::from_millis(50));
        });
        watching.admitted("scaled");
        watching
    }

    fn packs(&self) -> PathBuf {
        self.root.path().join("packs")
    }

    /// A 6 MB pack beside the packs directory: library, manifest.
    fn large_pack(&self, change: impl FnOnce(&mut PackManifest)) -> (Vec<u8>, PackManifest) {
        let folder = lay_out("scaled", &self.root.path().join("elsewhere"));
        let mut library = fs::read(folder.join("libfixture_scaled.so")).unwrap();
        // What follows an ELF file's sections is nobody's, like debug information that was stripped.
        library.resize(6_000_000, 7);
        let mut manifest = PackManifest::read(&folder.join("pack.toml")).unwrap();
        let record = manifest.library.as_mut().unwrap();
        record.size = library.len() as u64;
        record.sha256 = Sha256::of_bytes(&library);
        change(&mut manifest);
        (library, manifest)
    }

    /// The next thing that is seen of `name` and that `wanted` takes; what it refuses goes by.
    fn next<T>(&self, name: &str, mut wanted: impl FnMut(Seen) -> Option<T>) -> (T, Instant) {
        let start = Instant::now();
        loop {
            let left = PATIENCE.saturating_sub(start.elapsed());
            let (entry, seen, at) =
                self.seen.recv_timeout(left).unwrap_or_else(|_| panic!("nothing of {name}"));
            if entry != name {
                continue;
            }
            if let Some(found) = wanted(seen) {
                return (found, at);
            }
        }
    }

    fn admitted(&self, name: &str) -> (Generation, Instant) {
        self.next(name, |seen| match seen {
            Seen::Admitted(generation) => Some(generation),
            _ => None,
        })
    }

    fn gone(&self, name: &str) {
        self.next(name, |seen| matches!(seen, Seen::Gone).then_some(()));
    }

    fn nothing_more(&self, during: Duration) {
        if let Ok((name, seen, _)) = self.seen.recv_timeout(during) {
            panic!("{name}: {seen:?}");
        }
    }
}

fn react(packs: &Path, change: Change, context: &LoadContext) -> Vec<(String, Seen)> {
    let named = |name: OsString| (name.clone(), candidate(packs, &name).ok().flatten());
    let entries: Vec<_> = match change {
        Change::Entries(names) => names.into_iter().map(named).collect(),
        Change::All => {
            let found = candidates(packs).unwrap_or_default();
            found.into_iter().map(|found| (found.name().to_owned(), Some(found))).collect()
        }
    };
    let mut seen = Vec::new();
    for (name, found) in entries {
        let what = match found.map(|found| examine(&found.canonical)) {
            None => Seen::Gone,
            Some(Examined::Incomplete { reason }) => Seen::Waiting(reason),
            Some(Examined::Unsound(error)) => Seen::Unsound(error),
            Some(Examined::Complete(folder)) => {
                match admit_complete(Instant::now(), &folder, context, &mut |_, _| {}) {
                    Ok(admitted) => Seen::Admitted(admitted.generation),
                    Err(error) => panic!("{error}"),
                }
            }
        };
        seen.push((name.into_string().unwrap(), what));
    }
    seen
}

/// Writes the file in pieces over half a second; gives the time of the last byte.
fn write_slowly(path: &Path, bytes: &[u8]) -> Instant {
    let mut file = File::create(path).unwrap();
    for piece in bytes.chunks(bytes.len().div_ceil(10)) {
        thread::sleep(Duration::from_millis(50));
        file.write_all(piece).unwrap();
    }
    Instant::now()
}

#[test]
fn a_slowly_copied_pack_is_admitted_soon_after_its_last_byte_and_never_before() {
    let watching = Watching::with_packs_directory();
    for (order, name) in ["manifest-first", "manifest-between", "manifest-last"].into_iter().enumerate() {
        let (library, manifest) = watching.large_pack(|manifest| manifest.pack.name = name.parse().unwrap());
        let folder = watching.packs().join(name);
        fs::create_dir(&folder).unwrap();
        let (half, rest) = library.split_at(library.len() / 2);
        if order == 0 {
            write_manifest(&folder, &manifest);
        }
        let path = folder.join("libfixture_scaled.so");
        let last = if order == 1 {
            write_slowly(&path, half);
            write_manifest(&folder, &manifest);
            let mut file = File::options().append(true).open(&path).unwrap();
            for piece in rest.chunks(rest.len().div_ceil(5)) {
                thread::sleep(Duration::from_millis(50));
                file.write_all(piece).unwrap();
            }
            Instant::now()
        } else {
            write_slowly(&path, &library)
        };
        let last = if order == 2 {
            write_manifest(&folder, &manifest);
            Instant::now()
        } else {
            last
        };
        let mut waited = Vec::new();
        let (_, at) = watching.next(name, |seen| match seen {
            Seen::Admitted(generation) => Some(generation),
            Seen::Waiting(reason) => {
                waited.push(reason);
                None
            }
            other => panic!("{other:?}"),
        });
        let took = at.checked_duration_since(last).expect("admitted before the last byte");
        eprintln!("{name}: from the last byte to admitted {took:?}; before: {waited:?}");
        assert!(
            order == 2
                || waited.iter().any(|reason| reason.starts_with("waiting for libfixture_scaled.so: "))
        );
        assert!(took < Duration::from_millis(if is_busy() { 3_000 } else { 300 }), "{took:?}");
    }
}

/// Whether so many processes wait for a processor that times say little.
fn is_busy() -> bool {
    let load = fs::read_to_string("/proc/loadavg").unwrap();
    let load: f64 = load.split(' ').next().unwrap().parse().unwrap();
    load > thread::available_parallelism().unwrap().get() as f64
}

#[test]
fn a_pack_that_is_renamed_into_place_replaced_and_removed_is_followed() {
    let watching = Watching::with_packs_directory();
    let beside = lay_out("side-network", watching.root.path());
    let place = watching.packs().join("arrived");
    fs::rename(&beside, &place).unwrap();
    let (first, _) = watching.admitted("arrived");

    // Another version of it, swapped in by two renames.
    let next = lay_out_with("side-network", watching.root.path(), |manifest| {
        manifest.pack.version = Version::new(0, 2, 0);
    });
    fs::rename(&place, watching.root.path().join("old")).unwrap();
    fs::rename(&next, &place).unwrap();
    let (second, _) = watching.admitted("arrived");
    assert_ne!(first, second);

    fs::rename(&place, watching.packs().join("elsewhere")).unwrap();
    watching.gone("arrived");
    fs::remove_dir_all(watching.packs().join("elsewhere")).unwrap();
    watching.gone("elsewhere");
    fs::remove_dir_all(watching.packs().join("scaled")).unwrap();
    watching.gone("scaled");
}

#[test]
fn a_linked_pack_is_followed_behind_its_link_and_when_the_link_leads_elsewhere() {
    let watching = Watching::with_packs_directory();
    let behind = lay_out("scaled", &watching.root.path().join("behind"));
    let link = watching.packs().join("linked");
    symlink(&behind, &link).unwrap();
    let (first, _) = watching.admitted("linked");

    // The files behind the link: no event comes from the packs directory itself.
    let mut manifest = PackManifest::read(&behind.join("pack.toml")).unwrap();
    manifest.pack.version = Version::new(0, 2, 0);
    write_manifest(&behind, &manifest);
    let (second, _) = watching.admitted("linked");
    assert_ne!(first, second);

    // The link itself, replaced as `ln -sfn` does.
    let other = lay_out_with("scaled", &watching.root.path().join("other"), |manifest| {
        manifest.pack.version = Version::new(0, 3, 0);
    });
    symlink(&other, watching.packs().join(".new")).unwrap();
    fs::rename(watching.packs().join(".new"), &link).unwrap();
    let (third, _) = watching.admitted("linked");
    assert_ne!(second, third);

    manifest.pack.version = Version::new(0, 4, 0);
    write_manifest(&other, &manifest);
    assert_ne!(watching.admitted("linked").0, third);

    // A link to another pack of the same directory, and both are told.
    symlink("linked", watching.packs().join("alias")).unwrap();
    symlink("scaled", watching.packs().join("neighbour")).unwrap();
    watching.admitted("neighbour");
    manifest.pack.version = Version::new(0, 5, 0);
    write_manifest(&watching.packs().join("scaled"), &manifest);
    watching.admitted("neighbour");
    manifest.pack.version = Version::new(0, 6, 0);
    write_manifest(&other, &manifest);
    watching.admitted("alias");

    fs::remove_file(&link).unwrap();
    watching.gone("linked");
}

#[test]
fn a_change_that_gives_no_event_is_found_by_looking_at_everything() {
    let watching = Watching::start(Duration::from_millis(200), |root| {
        fs::create_dir(root.join("packs")).unwrap();
        symlink(lay_out("scaled", &root.join("a")), root.join("current")).unwrap();
        symlink(root.join("current"), root.join("packs/linked")).unwrap();
    });
    let (first, _) = watching.admitted("linked");
    let other = lay_out_with("scaled", &watching.root.path().join("b"), |manifest| {
        manifest.pack.version = Version::new(0, 2, 0);
    });
    // A link outside of the packs directory, which is not watched.
    symlink(&other, watching.root.path().join("next")).unwrap();
    fs::rename(watching.root.path().join("next"), watching.root.path().join("current")).unwrap();
    assert_ne!(watching.admitted("linked").0, first);
    // What did not change is not told again, however often it is looked at.
    watching.nothing_more(Duration::from_secs(1));
}

#[test]
fn a_half_copied_pack_waits_and_says_for_what() {
    let watching = Watching::with_packs_directory();
    let (library, manifest) = watching.large_pack(|_| {});
    let folder = watching.packs().join("half");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("libfixture_scaled.so"), &library[..3_000_000]).unwrap();
    write_manifest(&folder, &manifest);
    let (reason, _) = watching.next("half", |seen| match seen {
        Seen::Waiting(reason) => Some(reason),
        other => panic!("{other:?}"),
    });
    assert_eq!(reason, "waiting for libfixture_scaled.so: 3000000 of 6000000 bytes");
    fs::remove_file(folder.join("libfixture_scaled.so")).unwrap();
    let (reason, _) = watching.next("half", |seen| match seen {
        Seen::Waiting(reason) => Some(reason),
        other => panic!("{other:?}"),
    });
    assert_eq!(reason, "waiting for libfixture_scaled.so");
    // The right size is not enough.
    let mut damaged = library.clone();
    damaged[4_000_000] ^= 1;
    fs::write(folder.join("libfixture_scaled.so"), &damaged).unwrap();
    watching.next("half", |seen| match seen {
        Seen::Unsound(FolderError::Hash { .. }) => Some(()),
        Seen::Admitted(_) => panic!("admitted"),
        _ => None,
    });
    fs::write(folder.join("libfixture_scaled.so"), &library).unwrap();
    watching.admitted("half");
}

#[test]
fn files_overwritten_in_place_make_another_generation() {
    let watching = Watching::with_packs_directory();
    let folder = watching.packs().join("scaled");
    let first = match examine(&folder) {
        Examined::Complete(folder) => folder.generation,
        other => panic!("{other:?}"),
    };
    let (library, mut manifest) = watching.large_pack(|_| {});
    manifest.pack.version = Version::new(0, 2, 0);
    fs::write(folder.join("libfixture_scaled.so"), &library).unwrap();
    write_manifest(&folder, &manifest);
    let (second, _) = watching.admitted("scaled");
    assert_ne!(first, second);
    // The copies of both are there: who uses the first goes on with it.
    for generation in [first, second] {
        assert!(watching.context.cache.library_path(generation).is_file());
    }
}

#[test]
fn a_storm_of_a_thousand_files_hides_no_pack() {
    let watching = Watching::with_packs_directory();
    let beside = lay_out("side-network", watching.root.path());
    for number in 0..1_000 {
        fs::write(watching.packs().join(format!("{number}.tmp")), b"noise").unwrap();
        fs::write(watching.packs().join("scaled").join(format!("{number}.tmp")), b"noise").unwrap();
        if number == 500 {
            fs::rename(&beside, watching.packs().join("side-network")).unwrap();
        }
    }
    let start = Instant::now();
    let (mut scaled, mut arrived) = (false, false);
    while !(scaled && arrived) {
        let (name, seen, _) = watching.seen.recv_timeout(PATIENCE).unwrap();
        assert!(matches!(seen, Seen::Admitted(_)), "{name}: {seen:?}");
        scaled |= name == "scaled";
        arrived |= name == "side-network";
    }
    eprintln!("after the storm: {:?}", start.elapsed());
    // Then it is quiet: reading packs is no change.
    while watching.seen.recv_timeout(Duration::from_millis(500)).is_ok() {}
    watching.nothing_more(Duration::from_secs(1));
}

#[test]
fn a_packs_directory_may_be_made_later_replaced_and_taken_away() {
    let watching = Watching::start(NEVER, |_| {});
    watching.nothing_more(Duration::from_millis(300));
    let packs = watching.packs();
    lay_out("scaled", &packs);
    let (first, _) = watching.admitted("scaled");

    lay_out_with("scaled", &watching.root.path().join("next"), |manifest| {
        manifest.pack.version = Version::new(0, 2, 0);
    });
    fs::rename(&packs, watching.root.path().join("old")).unwrap();
    fs::rename(watching.root.path().join("next"), &packs).unwrap();
    assert_ne!(watching.admitted("scaled").0, first);
    // The new one is watched like the old one was.
    lay_out("side-network", &packs);
    watching.admitted("side-network");
}

#[test]
fn hidden_names_and_what_is_no_pack_are_not_told() {
    let watching = Watching::with_packs_directory();
    lay_out("scaled", &watching.packs().join(".staging-1"));
    fs::rename(watching.packs().join(".staging-1/scaled"), watching.packs().join(".hidden")).unwrap();
    fs::write(watching.packs().join("README.md"), b"text").unwrap();
    fs::create_dir(watching.packs().join("empty")).unwrap();
    symlink("/nowhere", watching.packs().join("dangling")).unwrap();
    watching.nothing_more(Duration::from_millis(500));
    let names: BTreeSet<_> =
        candidates(&watching.packs()).unwrap().iter().map(|found| found.name().to_owned()).collect();
    assert_eq!(names, BTreeSet::from(["scaled".into()]));
}

#[test]
fn a_reader_that_saw_something_else_is_told_although_nothing_changed_since() {
    let root = tempfile::tempdir().unwrap();
    let packs = root.path().join("packs");
    let scaled = lay_out("scaled", &packs);
    thread::sleep(Duration::from_millis(50));
    let (told, changes) = mpsc::channel();
    let options = WatchOptions { rescan: NEVER, ..WatchOptions::default() };
    let watch = WatchedDirectory::start(&packs, options, move |change| drop(told.send(change))).unwrap();
    assert_eq!(changes.recv_timeout(PATIENCE), Ok(Change::All));
    let only = |name: &str| Ok(Change::Entries(BTreeSet::from([OsString::from(name)])));
    let feedback = watch.feedback();
    let now = candidate(&packs, "scaled".as_ref()).unwrap().unwrap().stamp;

    // A pack that came and went between two looks of the directory.
    feedback.saw("passing".into(), Some(now));
    assert_eq!(changes.recv_timeout(PATIENCE), only("passing"));
    // One that was gone for a moment.
    feedback.saw("scaled".into(), None);
    assert_eq!(changes.recv_timeout(PATIENCE), only("scaled"));
    // What is so is not told.
    feedback.saw("scaled".into(), Some(now));
    feedback.saw("passing".into(), None);
    assert!(changes.recv_timeout(Duration::from_millis(300)).is_err());
    // And what happens next is.
    fs::remove_dir_all(scaled).unwrap();
    assert_eq!(changes.recv_timeout(PATIENCE), only("scaled"));
}
