//! From the last byte in the folder to the first answer.

use std::{fs, time::Instant};

use manifests::TrustMode;
use modularbase_loader::{PackFolder, TrustPolicy, pack_archive};
use modularbase_manager::PackState;
use system_tests::{Base, Folders, answer, first_logits, same_bits, wait_for_state};

#[test]
fn dropped_pack_serves_without_restart() {
    let folders = Folders::with(&["general"]);
    let host = folders.host();
    assert!(answer(&host, "auto", 6).unwrap().text.starts_with(" Paris"));
    // 3 million parameters: 6 MB in bf16.
    let settings = toml::toml! { width = 288
    blocks = 4 };
    let aside = tempfile::tempdir().unwrap();
    let made = folders.fixture("sized").named("law").settings(settings).lay_out(aside.path());
    let target = folders.packs.path().join("law");
    let mut bytes = 0;
    fs::create_dir(&target).unwrap();
    // The manifest first, the largest file last.
    for file in ["pack.toml", "libfixture_sized.so", "weights.safetensors"] {
        bytes += fs::copy(made.join(file), target.join(file)).unwrap();
    }
    let dropped = Instant::now();
    let answered = answer(&host, "law", 1).unwrap();
    let first_answer = dropped.elapsed();
    assert_eq!(answered.mixture[0].pack, "law");
    let events = host.manager().events_after(0, std::time::Duration::ZERO);
    let of_law = events.iter().filter(|event| event.pack == "law");
    for event in of_law {
        println!("{} {:?} {:?}", event.state, event.reason, event.took_ms);
    }
    println!("{bytes} bytes, from the last byte to the first answer: {first_answer:?}");
    let states: Vec<PackState> =
        events.iter().filter(|event| event.pack == "law").map(|event| event.state).collect();
    let stations = [
        PackState::Seen,
        PackState::Verified,
        PackState::Probed,
        PackState::Registered,
        PackState::Loading,
        PackState::Resident,
    ];
    let mut passed = states.iter();
    assert!(stations.iter().all(|station| passed.any(|state| state == station)), "{states:?}");

    // What it gives is what a host gives that had it from the start.
    let alone = Folders::with(&["general"]);
    fs::rename(&made, alone.packs.path().join("law")).unwrap();
    let expected = first_logits(&alone.host(), "law").unwrap();
    assert!(same_bits(&first_logits(&host, "law").unwrap(), &expected));
}

#[test]
fn a_pack_whose_dependency_is_missing_is_registered_and_not_routable() {
    let folders = Folders::for_base(Base::Tiny);
    folders.fixture("sized").named("law").lay_out_with(folders.packs.path(), |manifest| {
        let german = "org.modularbase.fixture.german".parse().unwrap();
        manifest.dependencies.insert(german, "^0.1".parse().unwrap());
    });
    let host = folders.host();
    let law = wait_for_state(&host, "law", &[PackState::Registered]);
    assert!(!law.routable && law.not_routable.unwrap().contains("german"));
    let refused = first_logits(&host, "law").unwrap_err().to_string();
    assert!(refused.contains("it needs `org.modularbase.fixture.german`"), "{refused}");
    folders.fixture("sized").named("german").lay_out(folders.packs.path());
    wait_for_state(&host, "german", &[PackState::Registered]);
    let turn = host.turn(&"law".parse().unwrap()).unwrap();
    assert_eq!(turn.mixture().parts().len(), 1, "a dependency is no part of the mixture");
    wait_for_state(&host, "german", &[PackState::Leased]);
    drop(turn);
    wait_for_state(&host, "german", &[PackState::Resident]);
}

#[test]
fn a_restart_remembers_what_was_admitted_and_what_was_refused() {
    let folders = Folders::for_base(Base::Tiny);
    folders.fixture("sized").named("law").lay_out(folders.packs.path());
    folders.fixture("panics").lay_out(folders.packs.path());
    // Longer than the step of the file system's clock, so that equal stamps prove something.
    std::thread::sleep(std::time::Duration::from_millis(50));
    let states = |host: &modularbase_engine::Host| {
        let events = host.manager().events_after(0, std::time::Duration::ZERO);
        events.into_iter().map(|event| (event.pack, event.state)).collect::<Vec<_>>()
    };
    let host = folders.host();
    wait_for_state(&host, "law", &[PackState::Registered]);
    wait_for_state(&host, "panics", &[PackState::Quarantined]);
    assert!(states(&host).contains(&("law".to_owned(), PackState::Probed)));
    drop(host);

    let host = folders.host();
    wait_for_state(&host, "law", &[PackState::Registered]);
    wait_for_state(&host, "panics", &[PackState::Quarantined]);
    assert!(!states(&host).iter().any(|(_, state)| *state == PackState::Probed), "nothing is probed again");
    assert!(first_logits(&host, "law").is_ok());
    // Cleared by an operator, it is tried again.
    host.manager().clear_quarantine("panics").unwrap();
    let verified = ("panics".to_owned(), PackState::Verified);
    system_tests::wait_for("another look", || states(&host).contains(&verified).then_some(()));
}

#[test]
fn an_archive_serves_as_a_folder_does_and_one_that_is_still_being_copied_is_waited_for() {
    let folders = Folders::for_base(Base::Tiny);
    let aside = tempfile::tempdir().unwrap();
    let made = folders.fixture("sized").named("law").lay_out(aside.path());
    let mut archive = Vec::new();
    pack_archive(&PackFolder::read(&made).unwrap(), &mut archive).unwrap();
    let host = folders.host();
    let path = folders.packs.path().join("law.mbpack");
    fs::write(&path, &archive[..archive.len() / 2]).unwrap();
    let arriving = wait_for_state(&host, "law", &[PackState::Seen]);
    assert!(!arriving.routable);
    fs::write(&path, &archive).unwrap();
    let logits = first_logits(&host, "law").unwrap();
    let alone = Folders::for_base(Base::Tiny);
    fs::rename(&made, alone.packs.path().join("law")).unwrap();
    assert!(same_bits(&logits, &first_logits(&alone.host(), "law").unwrap()));

    // Half of it for good: no longer waited for, and the reason says what is missing.
    fs::write(&path, &archive[..archive.len() / 2]).unwrap();
    let broken = wait_for_state(&host, "law", &[PackState::Quarantined]);
    assert!(broken.reason.unwrap().contains("ends"), "the archive ends early");
    fs::remove_file(&path).unwrap();
    host.manager().evict("law").ok();
    system_tests::wait_for("the end of it", || host.manager().reports().is_empty().then_some(()));
}

#[test]
fn a_host_that_wants_signatures_keeps_unsigned_packs_out() {
    let folders = Folders::for_base(Base::Tiny);
    folders.fixture("sized").named("law").lay_out(folders.packs.path());
    let host = folders
        .host_with(|options| options.trust = TrustPolicy::new(TrustMode::RequireSigned, Default::default()))
        .unwrap();
    let law = wait_for_state(&host, "law", &[PackState::Quarantined]);
    let reason = law.reason.unwrap();
    assert!(reason.contains("sign"), "{reason}");
    drop(host);
    // The verdict holds under that policy only.
    assert!(first_logits(&folders.host(), "law").is_ok());
}

#[test]
fn packs_that_are_kept_are_on_the_device_before_anybody_asks_and_are_not_evicted() {
    let folders = Folders::for_base(Base::Tiny);
    folders.fixture("sized").named("law").lay_out(folders.packs.path());
    folders.fixture("sized").named("poems").seeded(2).lay_out(folders.packs.path());
    let host = folders.host_with(|options| options.packs.keep = vec!["law".to_owned()]).unwrap();
    wait_for_state(&host, "law", &[PackState::Resident]);
    let refused = host.manager().evict("law").unwrap_err();
    assert!(refused.contains("unpin"), "{refused}");
    first_logits(&host, "poems").unwrap();
    // Less than both take: the other one goes.
    let held: u64 = host.ledger().holders().iter().map(|(_, bytes)| bytes).sum();
    host.set_budget(held - 1);
    wait_for_state(&host, "poems", &[PackState::Evicted]);
    wait_for_state(&host, "law", &[PackState::Resident]);
    host.manager().keep("law", false);
    assert!(host.manager().evict("law").is_ok());
}
