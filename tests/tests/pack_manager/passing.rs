//! Packs that are gone again before the host is done with them.

use std::{fs, path::Path};

use modularbase_loader::{PackFolder, ProbeLimits, Prober, pack_archive};
use modularbase_manager::PackState;
use system_tests::{Base, Folders, first_logits, probe_program, wait_for, wait_for_state};

/// Child processes of this one, whichever thread started them.
fn children() -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let of_task = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    of_task.map(|children| children.split_whitespace().count()).sum()
}

#[test]
fn what_is_found_of_a_pack_that_went_decides_nothing_about_the_one_that_came() {
    let folders = Folders::for_base(Base::Tiny);
    let aside = tempfile::tempdir().unwrap();
    let good = folders.fixture("sized").named("law").lay_out(aside.path());
    let host = folders
        .host_with(|options| {
            let limits = ProbeLimits { cpu_seconds: 1, ..ProbeLimits::default() };
            options.prober = Prober::new(probe_program(), limits);
        })
        .unwrap();
    // Its probe takes a second.
    let bad = folders.fixture("loops").named("law").lay_out(folders.packs.path());
    wait_for_state(&host, "law", &[PackState::Verified]);
    wait_for("the probe", || (children() > 0).then_some(()));
    fs::remove_dir_all(bad).unwrap();
    wait_for("the end of it", || host.manager().reports().is_empty().then_some(()));
    fs::rename(good, folders.packs.path().join("law")).unwrap();
    wait_for_state(&host, "law", &[PackState::Registered]);
    wait_for("the end of the probe", || (children() == 0).then_some(()));
    // What came of it is noted at once.
    std::thread::sleep(std::time::Duration::from_millis(300));
    wait_for_state(&host, "law", &[PackState::Registered]);
    first_logits(&host, "law").unwrap();
    let quarantined = |event: &modularbase_manager::PackEvent| event.state == PackState::Quarantined;
    assert!(!host.manager().events_after(0, std::time::Duration::ZERO).iter().any(quarantined));
}

#[test]
fn what_an_archive_was_unpacked_to_goes_with_the_last_request_that_uses_it() {
    let folders = Folders::for_base(Base::Tiny);
    let aside = tempfile::tempdir().unwrap();
    let made = PackFolder::read(&folders.fixture("sized").named("law").lay_out(aside.path())).unwrap();
    let archive = folders.packs.path().join("law.mbpack");
    pack_archive(&made, &mut fs::File::create(&archive).unwrap()).unwrap();
    let host =
        folders.host_with(|options| options.packs.rescan = std::time::Duration::from_secs(3600)).unwrap();
    wait_for_state(&host, "law", &[PackState::Registered]);
    let turn = host.turn(&"law".parse().unwrap()).unwrap();
    let unpacked = folders.cache.path().join("packs/unpacked");
    let entries = |folder: &Path| fs::read_dir(folder).unwrap().count();
    assert_eq!(entries(&unpacked), 1);
    fs::remove_file(archive).unwrap();
    wait_for_state(&host, "law", &[PackState::Draining]);
    drop(turn);
    wait_for("the folder to go", || (entries(&unpacked) == 0).then_some(()));
}
