//! Packs that are admitted once and loaded often: what a load needs, and what a restart knows.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    sync::Arc,
    thread,
    time::Duration,
};

use fixture_packs::{Fixture, TestHost, lay_out, lay_out_with, probe_limits};
use manifests::{Sha256, TrustMode};
use modularbase_loader::{
    AdmissionStage, Admitted, LoadContext, LoadError, LoadFailure, LoadStage, Outcome, ProbeError, Prober,
    Stamp, TrustPolicy, Unload, admit, load_admitted, load_and_place,
};

fn host() -> TestHost {
    TestHost::new(env!("CARGO_BIN_EXE_pack-probe"))
}

fn admitted(folder: &Path, context: &LoadContext) -> Result<Admitted, LoadError> {
    admit(folder, context, &mut |_, _| {})
}

/// The same host after a restart, in which no probe can start.
fn restarted(host: &TestHost) -> LoadContext {
    let prober = Prober::new("/nowhere/probe", probe_limits());
    LoadContext::new(host.context.cache.clone(), host.context.base.clone(), prober)
}

/// Files changed this very moment are not remembered by their stamp.
fn rest() {
    thread::sleep(Duration::from_millis(50));
}

#[test]
fn every_station_of_an_admission_is_told_in_order_and_a_refusal_ends_it() {
    use AdmissionStage::{Cached, Inspected, Probed, Verified};
    let host = host();
    let stations = |name: &str| {
        let mut passed = Vec::new();
        let result = admit(&lay_out(name, &host.packs()), &host.context, &mut |stage, took| {
            passed.push((stage, took))
        });
        (passed.iter().map(|(stage, _)| *stage).collect::<Vec<_>>(), passed, result)
    };
    let (stages, passed, result) = stations("side-network");
    assert_eq!(stages, [Verified, Inspected, Cached, Probed]);
    let admitted = result.unwrap();
    assert!(admitted.was_probed);
    assert_eq!(passed[0].1, admitted.timings.verify);
    assert_eq!(passed[3].1, admitted.timings.probe);
    assert_eq!(admitted.folder, host.packs().join("side-network").canonicalize().unwrap());
    let summary = &admitted.summary;
    assert_eq!((summary.name.as_str(), summary.default_weight), ("side-network", 1.0));
    let on_disk: u64 =
        fs::read_dir(&admitted.folder).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert_eq!(summary.file_bytes, on_disk);
    eprintln!("side-network admitted: {:?}", admitted.timings);

    assert_eq!(stations("networked").0, [Verified]);
    assert_eq!(stations("crashes").0, [Verified, Inspected, Cached]);
}

#[test]
fn a_load_needs_no_probe_and_no_original_but_the_manifest() {
    let host = host();
    for name in ["scaled", "side-network"] {
        let admitted = admitted(&lay_out(name, &host.packs()), &host.context).unwrap();
        for entry in fs::read_dir(&admitted.folder).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap() != "pack.toml" {
                fs::write(path, b"not even half of it").unwrap();
            }
        }
        let pack = load_admitted(&admitted.folder, admitted.generation, &host.context).unwrap();
        assert_eq!(pack.generation, admitted.generation);
        assert_eq!(pack.timings.probe, Duration::ZERO);
        assert_eq!(pack.weights.is_some(), name == "side-network");
        let load = || load_admitted(&admitted.folder, admitted.generation, &host.context).unwrap().timings;
        let mut loads: Vec<_> = (0..50).map(|_| load()).collect();
        loads.sort_by_key(|timings| timings.inspect + timings.cache + timings.build);
        eprintln!("{name} loaded: first {:?}, median of 50 {:?}", pack.timings, loads[25]);
    }
}

#[test]
fn a_pack_whose_folder_is_gone_loads_from_its_copies() {
    let host = host();
    let admitted = admitted(&lay_out("side-network", &host.packs()), &host.context).unwrap();
    fs::remove_dir_all(host.packs()).unwrap();
    let pack = load_admitted(&admitted.folder, admitted.generation, &host.context).unwrap();
    assert_eq!(pack.manifest.pack.name.as_str(), "side-network");

    // Without the folder, a copy that is damaged can't be made again; that is said of the copy.
    let copy = host.context.cache.weights_path(admitted.generation);
    fs::set_permissions(&copy, Permissions::from_mode(0o644)).unwrap();
    fs::write(&copy, b"damaged").unwrap();
    let error = load_admitted(&admitted.folder, admitted.generation, &host.context).unwrap_err();
    assert!(matches!(*error.failure, LoadFailure::Cache(_)), "{error}");
    assert!(error.to_string().contains(".safetensors"), "{error}");

    host.context.cache.remove(admitted.generation).unwrap();
    let error = load_admitted(&admitted.folder, admitted.generation, &host.context).unwrap_err();
    assert!(matches!(*error.failure, LoadFailure::Folder(_)), "{error}");
}

#[test]
fn copies_that_are_missing_or_damaged_are_made_again_from_the_folder() {
    let host = host();
    let admitted = admitted(&lay_out("side-network", &host.packs()), &host.context).unwrap();
    let cache = &host.context.cache;
    for path in [cache.library_path(admitted.generation), cache.weights_path(admitted.generation)] {
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, &bytes).unwrap();
        load_admitted(&admitted.folder, admitted.generation, &host.context).unwrap();
        assert_ne!(fs::read(&path).unwrap(), bytes);
        fs::remove_file(&path).unwrap();
        load_admitted(&admitted.folder, admitted.generation, &host.context).unwrap();
        assert!(path.is_file());
    }
}

#[test]
fn what_was_placed_from_a_damaged_copy_is_dropped_and_placed_again_from_a_sound_one() {
    let host = host();
    let admitted = admitted(&lay_out("side-network", &host.packs()), &host.context).unwrap();
    let path = host.context.cache.weights_path(admitted.generation);
    let sound = fs::read(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    // In the middle of a tensor, where the hash alone tells: such a pack can be placed.
    let mut damaged = sound.clone();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(&path, &damaged).unwrap();

    let alive = Arc::new(());
    let mut seen = Vec::new();
    let (pack, placed) = load_and_place(&admitted.folder, admitted.generation, &host.context, |pack| {
        // Nothing of an earlier try is held any more.
        assert_eq!(Arc::strong_count(&alive), 1);
        let weights = pack.weights.as_ref().unwrap();
        seen.push(weights.weights().flat_map(|weight| weight.bytes.to_vec()).collect::<Vec<u8>>());
        Arc::clone(&alive)
    })
    .unwrap();
    assert_eq!(pack.generation, admitted.generation);
    assert_eq!(Arc::strong_count(&placed), 2);
    assert_eq!(seen.len(), 2);
    assert_ne!(seen[0], seen[1]);
    assert_eq!(fs::read(&path).unwrap(), sound);
    assert!(sound.ends_with(&seen[1]), "placed from the copy that was made again");

    // A header that can't be read is the copy's fault too, and not the pack's.
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    fs::write(&path, b"damaged").unwrap();
    let mut times = 0;
    load_and_place(&admitted.folder, admitted.generation, &host.context, |_| times += 1).unwrap();
    assert_eq!(times, 1);
    assert_eq!(fs::read(&path).unwrap(), sound);
}

#[test]
fn a_folder_that_holds_another_generation_by_now_is_not_loaded_as_the_admitted_one() {
    let host = host();
    let first = admitted(&lay_out("scaled", &host.packs()), &host.context).unwrap();
    let folder = lay_out_with("scaled", &host.packs(), |manifest| manifest.pack.description.push('!'));
    let second = admitted(&folder, &host.context).unwrap();
    let error = load_admitted(&folder, first.generation, &host.context).unwrap_err();
    match *error.failure {
        LoadFailure::Superseded { expected, found } => {
            assert_eq!((expected, found), (first.generation, second.generation));
        }
        other => panic!("{other}"),
    }
    load_admitted(&folder, second.generation, &host.context).unwrap();
}

#[test]
fn a_restart_probes_no_pack_again_neither_a_good_nor_a_bad_one() {
    let host = host();
    let good = lay_out("side-network", &host.packs());
    let bad = lay_out("crashes", &host.packs());
    rest();
    let first = admitted(&good, &host.context).unwrap();
    let refusal = admitted(&bad, &host.context).unwrap_err();

    let context = restarted(&host);
    let again = admitted(&good, &context).unwrap();
    assert!(!again.was_probed);
    assert_eq!((again.generation, &again.summary), (first.generation, &first.summary));
    load_admitted(&good, again.generation, &context).unwrap();
    let error = admitted(&bad, &context).unwrap_err();
    assert_eq!(error.quarantine_reason(), refusal.quarantine_reason());

    // By their stamps they are known without a look into them.
    let known =
        |folder: &Path| context.index().known(&folder.canonicalize().unwrap(), &Stamp::of(folder).unwrap());
    assert_eq!(known(&good), Some(first.known()));
    let outcome = known(&bad).unwrap().outcome;
    assert_eq!(outcome, Outcome::Refused(refusal.quarantine_reason()));

    // Until an operator clears the quarantine.
    context.index().forget(known(&bad).unwrap().generation);
    assert_eq!(known(&bad), None);
    let error = admitted(&bad, &context).unwrap_err();
    assert!(matches!(*error.failure, LoadFailure::Probe(ProbeError::Start { .. })), "{error}");
}

#[test]
fn a_verdict_holds_for_its_own_base_only_and_a_fault_of_the_host_is_no_verdict() {
    let host = host();
    let folder = lay_out("scaled", &host.packs());
    rest();
    let mut base = host.context.base.clone();
    base.fingerprint = Sha256::of_bytes(b"another base");
    admitted(&folder, &host.context).unwrap();
    let prober = Prober::new("/nowhere/probe", probe_limits());
    let other = LoadContext::new(host.context.cache.clone(), base.clone(), prober);
    let error = admitted(&folder, &other).unwrap_err();
    assert!(matches!(*error.failure, LoadFailure::Probe(ProbeError::Start { .. })), "{error}");
    assert!(other.index().is_empty());

    let other = LoadContext::new(host.context.cache.clone(), base, host.context.prober.clone());
    assert!(admitted(&folder, &other).unwrap().was_probed);
    assert_eq!(other.index().len(), 1);
}

#[test]
fn trust_is_asked_before_anything_of_a_pack_is_opened_and_again_under_another_policy() {
    let host = host();
    let folder = lay_out("scaled", &host.packs());
    rest();
    let first = admitted(&folder, &host.context).unwrap();
    assert_eq!(first.summary.signer.as_deref(), Some("unsigned"));

    let strict = restarted(&host).with_trust(TrustPolicy::new(TrustMode::RequireSigned, Default::default()));
    let mut passed = Vec::new();
    let error = admit(&folder, &strict, &mut |stage, _| passed.push(stage)).unwrap_err();
    assert_eq!((error.failure.stage(), passed.len()), (LoadStage::Trust, 0), "{error}");
    let path = folder.canonicalize().unwrap();
    let known =
        |context: &LoadContext| context.index().known(&path, &Stamp::of(&path).unwrap()).unwrap().outcome;
    assert_eq!(known(&strict), Outcome::Refused(error.quarantine_reason()));
    assert_eq!(known(&restarted(&host)), Outcome::Admitted);
}

#[test]
fn what_changes_while_it_is_admitted_is_not_known_by_its_stamp() {
    let host = host();
    let folder = lay_out("scaled", &host.packs());
    rest();
    let touched = folder.join("notes.txt");
    admit(&folder, &host.context, &mut |stage, _| {
        if stage == AdmissionStage::Inspected {
            fs::write(&touched, b"written meanwhile").unwrap();
        }
    })
    .unwrap();
    assert!(host.context.index().is_empty());
    rest();
    admitted(&folder, &host.context).unwrap();
    assert_eq!(host.context.index().len(), 1);
}

#[test]
fn packs_of_one_library_and_the_same_settings_are_probed_once() {
    let host = host();
    let other_weights =
        |name: &str, seed| Fixture::of("sized").named(name).seeded(seed).lay_out(&host.packs());
    let (first, second) = (other_weights("first", 1), other_weights("second", 2));
    let third =
        Fixture::of("sized").named("third").settings(toml::toml! { blocks = 2 }).lay_out(&host.packs());
    let first = admitted(&first, &host.context).unwrap();
    let second = admitted(&second, &host.context).unwrap();
    assert_eq!((first.was_probed, second.was_probed), (true, false));
    assert_ne!(first.generation, second.generation);
    assert!(admitted(&third, &host.context).unwrap().was_probed, "its graph is another one");
    // Their copies of the library are one file under two names, and each goes on its own.
    let cache = &host.context.cache;
    let [one, two] = [&first, &second].map(|pack| cache.library_path(pack.generation));
    assert_eq!(fs::metadata(&one).unwrap().ino(), fs::metadata(&two).unwrap().ino());
    load_admitted(&first.folder, first.generation, &host.context).unwrap();
    cache.remove(first.generation).unwrap();
    assert!(!one.exists() && two.exists());
    let loaded = load_admitted(&second.folder, second.generation, &host.context).unwrap();
    assert_eq!((loaded.generation, loaded.unload), (second.generation, Unload::Unloaded));
}
