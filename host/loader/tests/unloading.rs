//! What stays of a library after it is closed: nothing, or a pack that is called pinned.

use std::{
    fs::{self, File},
    thread,
    time::Duration,
};

use fixture_packs::{TestHost, build_request, lay_out, lay_out_with, library};
use manifests::Sha256;
use modularbase_loader::{
    FileCache, Generation, LibraryError, LoadFailure, Unload, build_graph, is_mapped, mapped_regions,
    open_pack,
};

#[test]
fn thread_local_destructors_end_with_the_packs_own_thread() {
    // Called from a thread that lives on, as a host's worker does.
    let worker = thread::spawn(|| {
        for _ in 0..20 {
            let built = build_graph(&build_request(&library("thread-local"))).unwrap();
            assert_eq!(built.unload, Unload::Unloaded);
            assert_eq!(mapped_regions(&library("thread-local")).unwrap(), 0);
        }
    });
    // Its end runs every destructor that is still registered; one in unmapped memory would end the process.
    worker.join().unwrap();
}

#[test]
fn a_thread_that_stays_pins_its_library_and_that_is_seen() {
    let built = build_graph(&build_request(&library("keeps-thread"))).unwrap();
    assert_eq!(built.unload, Unload::Pinned);
    assert!(is_mapped(&library("keeps-thread")));
    assert!(mapped_regions(&library("keeps-thread")).unwrap() > 0);
}

#[test]
fn another_version_of_a_pinned_pack_is_refused_and_the_same_one_serves() {
    let host = TestHost::new(env!("CARGO_BIN_EXE_pack-probe"));
    let first = open_pack(&lay_out("keeps-thread-in-host", &host.packs()), &host.context).unwrap();
    assert_eq!(first.unload, Unload::Pinned);
    let again = open_pack(&host.packs().join("keeps-thread-in-host"), &host.context).unwrap();
    assert_eq!(again.generation, first.generation);
    let other = lay_out_with("keeps-thread-in-host", &host.packs(), |manifest| {
        manifest.pack.version = manifests::Version::new(0, 2, 0);
    });
    let error = open_pack(&other, &host.context).unwrap_err();
    match *error.failure {
        LoadFailure::OtherVersionPinned { pinned, .. } => assert_eq!(pinned, first.generation),
        other => panic!("{other}"),
    }
}

#[test]
fn a_build_that_does_not_end_is_given_up_and_others_load() {
    let mut stuck = build_request(&library("loops"));
    stuck.time_limit = Duration::from_millis(200);
    assert_eq!(build_graph(&stuck).unwrap_err(), LibraryError::TimedOut(stuck.time_limit));
    assert!(is_mapped(&library("loops")));
    assert_eq!(build_graph(&build_request(&library("scaled"))).unwrap().unload, Unload::Unloaded);
}

#[test]
fn overwriting_the_original_in_place_does_not_reach_the_mapped_copy() {
    let root = tempfile::tempdir().unwrap();
    let original = root.path().join("original.so");
    fs::copy(library("keeps-thread"), &original).unwrap();
    let hash = Sha256::of_file(&original).unwrap().0;
    let cache = FileCache::new(root.path().join("cache"));
    let copy = cache.library_path(Generation::new(&hash, &hash, None));
    cache.store(&copy, &mut File::open(&original).unwrap(), &hash).unwrap();
    assert_eq!(build_graph(&build_request(&copy)).unwrap().unload, Unload::Pinned);
    // A thread of the library runs on in the copy. In a mapped original this would end the process.
    File::create(&original).unwrap();
    thread::sleep(Duration::from_millis(100));
    fs::write(&original, vec![0u8; 1 << 20]).unwrap();
    thread::sleep(Duration::from_millis(100));
    assert!(mapped_regions(&copy).unwrap() > 0);
}

#[test]
fn a_replaced_library_is_the_new_one_even_while_the_old_one_is_mapped() {
    let host = TestHost::new(env!("CARGO_BIN_EXE_pack-probe"));
    let folder = lay_out("keeps-thread-in-host", &host.packs());
    // Another id, so that this is about files and not about versions of one pack.
    let id = |manifest: &mut manifests::PackManifest, id: &str| manifest.pack.id = id.parse().unwrap();
    let folder = lay_out_with("keeps-thread-in-host", folder.parent().unwrap(), |manifest| {
        id(manifest, "org.example.before");
    });
    let old = open_pack(&folder, &host.context).unwrap();
    assert_eq!((old.unload, old.info.name.as_str()), (Unload::Pinned, "fixture-keeps-thread-in-host"));

    // The same file name in the same folder, with another library behind it.
    let new = lay_out("scaled", &host.root.path().join("new"));
    let target = folder.join("libfixture_keeps_thread_in_host.so");
    fs::rename(new.join("libfixture_scaled.so"), &target).unwrap();
    let mut manifest = old.manifest.clone();
    id(&mut manifest, "org.example.after");
    let library = manifest.library.as_mut().unwrap();
    (library.sha256, library.size) = Sha256::of_file(&target).unwrap();
    fixture_packs::write_manifest(&folder, &manifest);
    let new = open_pack(&folder, &host.context).unwrap();
    assert_ne!(new.generation, old.generation);
    assert_eq!(new.info.name, "fixture-scaled");
}

#[test]
fn the_layout_check_keeps_no_pointer_into_a_closed_library() {
    // abi_stable's own cache of checked types would: the second library's types are compared with the first's, which
    // is gone by then.
    let libraries = ["scaled", "general", "newer-minor", "moe", "side-network"].map(library);
    for _ in 0..10 {
        for library in &libraries {
            assert_eq!(build_graph(&build_request(library)).unwrap().unload, Unload::Unloaded);
        }
        assert!(matches!(
            build_graph(&build_request(&library("other-layout"))),
            Err(LibraryError::Layout(_))
        ));
        assert!(!is_mapped(&library("other-layout")), "a refused library stays mapped");
    }
}

#[test]
fn a_leak_of_one_mebibyte_a_load_is_found_by_cycles() {
    let host = TestHost::new(env!("CARGO_BIN_EXE_pack-probe"));
    let leaks = lay_out("leaks", &host.packs());
    let report = modularbase_loader::probe_pack(&leaks, &host.context, 100).unwrap().1.cycles.unwrap();
    assert!(!report.returns_every_byte() && report.resident_growth_bytes > 90 << 20, "{report:?}");
    let sound = lay_out("side-network", &host.packs());
    let report = modularbase_loader::probe_pack(&sound, &host.context, 100).unwrap().1.cycles.unwrap();
    assert!(report.returns_every_byte(), "{report:?}");
    eprintln!("side-network: {report:?}");
}
