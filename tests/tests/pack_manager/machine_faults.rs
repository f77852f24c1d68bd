//! What the machine can't do just now: a full disk, a cache that can't be written, files that are still missing.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use modularbase_engine::Host;
use modularbase_loader::{PackFolder, pack_archive};
use modularbase_manager::PackState;
use system_tests::{Base, Folders, first_logits, wait_for, wait_for_state};

/// A cache folder in which nothing can be read or written, until it is given back. Permissions would not do: tests may
/// run as root.
struct BlockedCache {
    cache: PathBuf,
    aside: PathBuf,
}

impl BlockedCache {
    fn of(folders: &Folders) -> Self {
        let cache = folders.cache.path().join("packs");
        let aside = folders.cache.path().join("aside");
        // A host makes it when it has something to put there.
        if cache.exists() {
            fs::rename(&cache, &aside).unwrap();
        }
        fs::write(&cache, b"no folder").unwrap();
        Self { cache, aside }
    }

    fn give_back(self) {
        fs::remove_file(&self.cache).unwrap();
        if self.aside.exists() {
            fs::rename(&self.aside, &self.cache).unwrap();
        }
    }
}

fn states_of(host: &Host, name: &str) -> Vec<PackState> {
    let events = host.manager().events_after(0, Duration::ZERO).into_iter();
    events.filter(|event| event.pack == name).map(|event| event.state).collect()
}

fn lay_out_law(folders: &Folders, into: &Path) -> PathBuf {
    folders.fixture("sized").named("law").lay_out(into)
}

/// A pack arrives that can't be copied: it is waited for, and registered when that is over.
fn is_registered_when_it_is_over(host: &Host, words: &str, end: impl FnOnce()) {
    let law = wait_for("`law`, which can't be taken", || {
        let reports = host.manager().reports();
        let law = reports.into_iter().find(|report| report.name == "law")?;
        law.reason.is_some().then_some(law)
    });
    let reason = law.reason.unwrap();
    assert!(reason.contains(words) && reason.contains("tried again"), "{reason}");
    assert_eq!((law.state, law.routable), (PackState::Seen, false));
    // Several attempts, none of which decides anything.
    wait_for("another attempt", || {
        let attempts = states_of(host, "law").into_iter().filter(|state| *state == PackState::Verified);
        (attempts.count() >= 3).then_some(())
    });
    end();
    wait_for_state(host, "law", &[PackState::Registered]);
    assert!(!states_of(host, "law").contains(&PackState::Quarantined), "{:?}", states_of(host, "law"));
    first_logits(host, "law").unwrap();
}

#[test]
fn a_pack_that_comes_while_the_cache_cant_be_written_is_registered_when_it_can() {
    let folders = Folders::for_base(Base::Tiny);
    let host = folders.host();
    let blocked = BlockedCache::of(&folders);
    lay_out_law(&folders, folders.packs.path());
    is_registered_when_it_is_over(&host, "can't copy a pack's file", || blocked.give_back());
}

#[test]
fn an_archive_that_cant_be_unpacked_now_is_registered_when_it_can() {
    let folders = Folders::for_base(Base::Tiny);
    let aside = tempfile::tempdir().unwrap();
    let made = PackFolder::read(&lay_out_law(&folders, aside.path())).unwrap();
    let host = folders.host();
    let blocked = BlockedCache::of(&folders);
    let archive = folders.packs.path().join("law.mbpack");
    pack_archive(&made, &mut fs::File::create(&archive).unwrap()).unwrap();
    let law = wait_for_state(&host, "law", &[PackState::Seen]);
    assert!(!law.routable);
    wait_for("a reason", || {
        let reports = host.manager().reports();
        reports.into_iter().find_map(|law| law.reason).filter(|reason| reason.contains("can't write"))
    });
    blocked.give_back();
    wait_for_state(&host, "law", &[PackState::Registered]);
    assert!(!states_of(&host, "law").contains(&PackState::Quarantined));
}

#[test]
fn a_pack_that_comes_while_the_disk_is_full_is_registered_when_there_is_room() {
    let folders = Folders::for_base(Base::Tiny);
    let disk = folders.cache.path();
    let on_disk = |words: &[&str]| {
        Command::new(words[0]).args(&words[1..]).arg(disk).output().is_ok_and(|out| out.status.success())
    };
    if !on_disk(&["mount", "-t", "tmpfs", "-o", "size=8m", "none"]) {
        println!("no file system may be mounted here: tried with a cache that can't be written only");
        return;
    }
    let result = std::panic::catch_unwind(|| {
        let host = folders.host();
        let filler = disk.join("filler");
        // To the last byte.
        let mut file = fs::File::create(&filler).unwrap();
        assert!(std::io::copy(&mut std::io::repeat(1), &mut file).is_err());
        // An open file keeps its room when its name goes.
        drop(file);
        lay_out_law(&folders, folders.packs.path());
        is_registered_when_it_is_over(&host, "No space left", || fs::remove_file(&filler).unwrap());
    });
    assert!(on_disk(&["umount"]));
    result.unwrap();
}

#[test]
fn a_load_that_fails_with_the_disk_is_tried_again_and_its_pack_stays_registered() {
    let folders = Folders::for_base(Base::Tiny);
    lay_out_law(&folders, folders.packs.path());
    let host = folders.host_with(|options| options.admission_wait = Duration::from_millis(100)).unwrap();
    wait_for_state(&host, "law", &[PackState::Registered]);
    let law = "law".parse().unwrap();
    let blocked = BlockedCache::of(&folders);
    for _ in 0..3 {
        let turn = host.turn(&law).unwrap();
        let omitted = &turn.omitted()[0];
        assert!(omitted.reason.contains("can't copy a pack's file"), "{}", omitted.reason);
        let report = wait_for_state(&host, "law", &[PackState::Registered]);
        assert!(report.routable && report.reason.is_some_and(|reason| reason.contains("tried again")));
    }
    blocked.give_back();
    wait_for("an answer with it", || host.turn(&law).unwrap().omitted().is_empty().then_some(()));
    let report = wait_for_state(&host, "law", &[PackState::Resident]);
    assert_eq!((report.reason, report.loads), (None, 1));
    assert!(!states_of(&host, "law").contains(&PackState::Quarantined));
}

#[test]
fn a_kept_pack_whose_load_failed_with_the_disk_comes_to_the_device_without_being_asked_for() {
    let folders = Folders::for_base(Base::Tiny);
    lay_out_law(&folders, folders.packs.path());
    let host = folders.host();
    wait_for_state(&host, "law", &[PackState::Registered]);
    let blocked = BlockedCache::of(&folders);
    host.manager().keep("law", true);
    wait_for("two attempts", || {
        let attempts = states_of(&host, "law").into_iter().filter(|state| *state == PackState::Loading);
        (attempts.count() >= 2).then_some(())
    });
    blocked.give_back();
    wait_for_state(&host, "law", &[PackState::Resident]);
    assert!(!states_of(&host, "law").contains(&PackState::Quarantined));
}

#[test]
fn while_files_are_missing_it_is_said_what_is_waited_for() {
    let folders = Folders::for_base(Base::Tiny);
    let aside = tempfile::tempdir().unwrap();
    let made = lay_out_law(&folders, aside.path());
    let host = folders.host_with(|options| options.packs.settle = Duration::from_secs(3)).unwrap();
    let law = folders.packs.path().join("law");
    let weights = fs::read(made.join("weights.safetensors")).unwrap();
    let says = |words: &str, state: PackState| {
        wait_for(words, || {
            let reports = host.manager().reports();
            let law = reports.into_iter().find(|report| report.state == state)?;
            law.reason.filter(|reason| reason.contains(words))
        })
    };
    fs::create_dir(&law).unwrap();
    fs::copy(made.join("pack.toml"), law.join("pack.toml")).unwrap();
    says("waiting for libfixture_sized.so", PackState::Seen);
    fs::copy(made.join("libfixture_sized.so"), law.join("libfixture_sized.so")).unwrap();
    says("waiting for weights.safetensors", PackState::Seen);
    let half = weights.len() / 2;
    fs::write(law.join("weights.safetensors"), &weights[..half]).unwrap();
    let waiting = format!("waiting for weights.safetensors: {half} of {} bytes", weights.len());
    says(&waiting, PackState::Seen);
    // Nothing more comes.
    let reason = says(&waiting, PackState::Quarantined);
    assert!(reason.contains("nothing more came: copy it again"), "{reason}");
    fs::write(law.join("weights.safetensors"), &weights).unwrap();
    wait_for_state(&host, "law", &[PackState::Registered]);
}

#[test]
fn an_archive_is_not_read_again_at_a_restart() {
    let folders = Folders::for_base(Base::Tiny);
    let aside = tempfile::tempdir().unwrap();
    let archive = |name: &str, fixture: &str| {
        let made = folders.fixture(fixture).named(name).lay_out(aside.path());
        let path = folders.packs.path().join(format!("{name}.mbpack"));
        pack_archive(&PackFolder::read(&made).unwrap(), &mut fs::File::create(path).unwrap()).unwrap();
    };
    archive("law", "sized");
    archive("panics", "panics");
    // Longer than the step of the file system's clock, so that equal stamps prove something.
    thread::sleep(Duration::from_millis(50));
    let open = || {
        let host = folders.host();
        wait_for_state(&host, "law", &[PackState::Registered]);
        wait_for_state(&host, "panics", &[PackState::Quarantined]);
        host
    };
    let logits = first_logits(&open(), "law").unwrap();
    let host = open();
    for name in ["law", "panics"] {
        assert!(!states_of(&host, name).contains(&PackState::Verified), "{:?}", states_of(&host, name));
    }
    assert_eq!(first_logits(&host, "law").unwrap(), logits);
    // Cleared by an operator, it is looked at again.
    host.manager().clear_quarantine("panics").unwrap();
    wait_for("another look", || states_of(&host, "panics").contains(&PackState::Verified).then_some(()));
    drop(host);

    // What it was unpacked to is gone: it is unpacked again.
    fs::remove_dir_all(folders.cache.path().join("packs/unpacked")).unwrap();
    let host = open();
    assert!(states_of(&host, "law").contains(&PackState::Verified));
    assert_eq!(first_logits(&host, "law").unwrap(), logits);
}
