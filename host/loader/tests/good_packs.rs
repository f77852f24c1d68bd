//! Packs that load: what the host has in its hands afterwards.

use std::{fs, os::unix::fs::PermissionsExt};

use fixture_packs::{TestHost, lay_out, lay_out_with};
use manifests::{BaseFingerprint, Dtype, Slot};
use modularbase_graph::{Init, InputKind};
use modularbase_loader::{LoadFailure, LogLine, Unload, inspect, mapped_regions, open_pack, weights_of};

#[test]
fn the_general_pack_shares_every_weight_with_the_base() {
    let host = TestHost::new(env!("CARGO_BIN_EXE_pack-probe"));
    let pack = open_pack(&lay_out("general", &host.packs()), &host.context).unwrap();
    assert_eq!(pack.info.name, "pack-general");
    assert!(pack.weights.is_none() && pack.owned_weights.is_empty());
    assert_eq!(
        pack.graph.kv_layers().iter().map(|kv| kv.layer).collect::<Vec<_>>(),
        [18, 19, 20, 21, 22, 23]
    );
    assert!(matches!(pack.graph.input(), Some((_, InputKind::Hidden { width: 576 }))));
    let weights: Vec<_> = weights_of(pack.graph.graph()).collect();
    assert_eq!(weights.len(), 6 * 9);
    assert!(weights.iter().all(|(name, weight)| weight.init == Init::CopyFromBase((*name).to_owned())));
    assert!(pack.warnings.is_empty(), "{:?}", pack.warnings);
    eprintln!("general: {:?}", pack.timings);
}

#[test]
fn the_library_is_gone_before_open_pack_returns() {
    let host = TestHost::new(env!("CARGO_BIN_EXE_pack-probe"));
    let pack = open_pack(&lay_out("scaled", &host.packs()), &host.context).unwrap();
    assert_eq!(pack.unload, Unload::Unloaded);
    let copy = host.context.cache.library_path(pack.generation);
    assert_eq!(mapped_regions(&copy).unwrap(), 0);
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o444);
    // All that is left is the host's own memory: it stays usable.
    assert_eq!(format!("{} {}", pack.info.name, pack.graph.graph().nodes[1].name), "fixture-scaled scale#1");
}

#[test]
fn a_generation_is_probed_once_in_each_configuration() {
    let host = TestHost::new(env!("CARGO_BIN_EXE_pack-probe"));
    let folder = lay_out("scaled", &host.packs());
    let first = open_pack(&folder, &host.context).unwrap();
    let second = open_pack(&folder, &host.context).unwrap();
    assert_eq!(first.generation, second.generation);
    assert!(second.timings.probe < first.timings.probe / 4, "{:?}, {:?}", first.timings, second.timings);
}

#[test]
fn weights_of_its_own_are_mapped_and_fit_the_graph() {
    let host = TestHost::new(env!("CARGO_BIN_EXE_pack-probe"));
    for name in ["side-network", "moe"] {
        let pack = open_pack(&lay_out(name, &host.packs()), &host.context).unwrap();
        let weights = pack.weights.as_ref().unwrap();
        for (weight, spec) in weights_of(pack.graph.graph()) {
            let own = !matches!(spec.init, Init::CopyFromBase(_));
            assert_eq!(own, pack.owned_weights.contains(weight), "{weight}");
            if own {
                let found = weights.weights().find(|found| found.name == weight).unwrap();
                assert_eq!((found.shape, found.dtype), (&*spec.shape, Dtype::Bf16), "{weight}");
            }
        }
    }
}

#[test]
fn settings_of_the_manifest_reach_the_pack_and_its_log_reaches_the_host() {
    let host = TestHost::new(env!("CARGO_BIN_EXE_pack-probe"));
    let pack = open_pack(&lay_out("logs", &host.packs()), &host.context).unwrap();
    assert_eq!(pack.log, [LogLine { level: 3, text: "scaling by 1.5".to_owned() }]);

    let folder = lay_out_with("logs", &host.root.path().join("other"), |manifest| {
        manifest.config["factor"] = 0.0.into();
    });
    let error = open_pack(&folder, &host.context).unwrap_err();
    assert!(error.to_string().contains("factor must not be 0"), "{error}");
}

#[test]
fn what_a_pack_prints_does_not_reach_the_hosts_output() {
    let host = TestHost::new(env!("CARGO_BIN_EXE_pack-probe"));
    let folder = lay_out("prints", &host.packs());
    let (_, report) = modularbase_loader::probe_pack(&folder, &host.context, 0).unwrap();
    assert!(
        report.printed.contains("not the answer") && report.printed.contains("standard error"),
        "{report:?}"
    );
    assert_eq!(report.info.name, "fixture-prints");
}

#[test]
fn a_pack_of_a_newer_minor_abi_serves_an_older_host() {
    let host = TestHost::new(env!("CARGO_BIN_EXE_pack-probe"));
    let pack = open_pack(&lay_out("newer-minor", &host.packs()), &host.context).unwrap();
    assert_eq!(pack.info.name, "fixture-newer-minor");
    let note = inspect(&host.packs().join("newer-minor")).unwrap().elf.unwrap().note.unwrap();
    assert_eq!((note.abi_major, note.abi_minor), (1, 1));
}

#[test]
fn a_pack_for_this_very_base_and_slot_is_accepted() {
    let host = TestHost::new(env!("CARGO_BIN_EXE_pack-probe"));
    let fingerprint = host.context.base.fingerprint;
    let folder = lay_out_with("scaled", &host.packs(), |manifest| {
        manifest.base.fingerprint = BaseFingerprint::Exact(fingerprint);
        manifest.base.hidden_size = Some(576);
        manifest.base.slot = Some(Slot::new(18, 24).unwrap());
        manifest.base.version = Some("^1.2".parse().unwrap());
    });
    open_pack(&folder, &host.context).unwrap();
}

#[test]
fn a_pack_for_another_base_is_refused() {
    let host = TestHost::new(env!("CARGO_BIN_EXE_pack-probe"));
    let refusal = |change: &dyn Fn(&mut manifests::PackManifest)| {
        let folder = lay_out_with("scaled", &host.packs(), change);
        let error = open_pack(&folder, &host.context).unwrap_err();
        assert!(matches!(*error.failure, LoadFailure::Base(_)), "{error}");
        error.to_string()
    };
    let other = manifests::Sha256::of_bytes(b"another base");
    let text = refusal(&|manifest| manifest.base.fingerprint = BaseFingerprint::Exact(other));
    assert!(text.starts_with("pack `scaled`: made for the base sha256:"), "{text}");
    assert!(refusal(&|manifest| manifest.base.hidden_size = Some(2048)).contains("width 2048"));
    assert!(refusal(&|manifest| manifest.base.slot = Slot::new(14, 26).ok()).contains("[14, 26)"));
    assert!(refusal(&|manifest| manifest.base.version = "^2".parse().ok()).contains("1.2.3"));
}
