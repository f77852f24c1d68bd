//! Ten thousand packs in one folder, and a host that finds them.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use modularbase_engine::Host;
use modularbase_loader::{ProbeLimits, Prober};

use crate::{Base, Folders, host_options, resident_bytes, wait_for};

/// Lays out `count` packs of distinct manifests, `pack-0`.. , whose library and weights (0.1 MB) are one file each, by
/// hard links.
pub fn lay_out_many(folders: &Folders, count: usize) {
    let aside = tempfile::tempdir_in(folders.cache.path()).unwrap();
    let settings = toml::toml! { width = 64 };
    let one = folders.fixture("sized").named("pack-n").settings(settings).lay_out(aside.path());
    let manifest = fs::read_to_string(one.join("pack.toml")).unwrap();
    for number in 0..count {
        let folder = folders.packs.path().join(format!("pack-{number}"));
        fs::create_dir(&folder).unwrap();
        for file in ["libfixture_sized.so", "weights.safetensors"] {
            fs::hard_link(one.join(file), folder.join(file)).unwrap();
        }
        let own = manifest.replace("pack-n\"", &format!("pack-{number}\""));
        fs::write(folder.join("pack.toml"), own).unwrap();
    }
}

/// What a host on packs that it knows took for its start.
#[derive(Debug, Clone, Copy)]
pub struct Restart {
    /// Packs registered when it was open.
    pub registered: usize,
    /// From `Host::open` to all of them registered.
    pub open: Duration,
    /// The same for a host without packs: what the base takes.
    pub open_without_packs: Duration,
    /// Growth of resident memory over a host without packs, with the folder watched.
    pub resident_bytes: i64,
}

/// Opens a host on packs that an earlier process has admitted. Nothing can be probed: a pack that would have to be is
/// not registered.
pub fn measure_restart(packs: &Path, cache: &Path) -> Restart {
    let open = |packs_dir: Option<PathBuf>| {
        let mut options = host_options(Base::Tiny, packs, cache);
        options.prober = Prober::new("/nowhere/probe", ProbeLimits::default());
        options.packs.packs_dir = packs_dir;
        Host::open(options, &mut |_, _| {}).unwrap()
    };
    // Twice: the first one pays for what a process does once.
    drop((open(None), open(None)));
    let before = resident_bytes();
    let start = Instant::now();
    drop(open(None));
    let open_without_packs = start.elapsed();
    let start = Instant::now();
    let host = open(Some(packs.to_owned()));
    let registered = host.manager().registered().len();
    let open = start.elapsed();
    // The folder is watched when a change in it is noticed. A pack that goes would change all others' stamps: the files
    // are one, with a link less.
    let seen = host.manager().events_after(0, Duration::ZERO).last().map_or(0, |event| event.sequence);
    fs::write(packs.join("late.mbpack"), b"no archive").unwrap();
    wait_for("a change that is noticed", || {
        let events = host.manager().events_after(seen, Duration::from_millis(20));
        events.iter().any(|event| event.pack == "late").then_some(())
    });
    Restart { registered, open, open_without_packs, resident_bytes: resident_bytes() - before }
}
