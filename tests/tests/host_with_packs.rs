//! A host on the real base with real packs, good and bad.

use std::path::Path;

use fixture_packs::{lay_out, lay_out_with};
use manifests::{BaseFingerprint, Dtype, Sha256};
use modularbase_engine::{EngineError, Host};
use modularbase_manager::{LeaseFailure, PackEvent, PackState};
use modularbase_residency::Owner;
use system_tests::{Folders, first_logits, same_bits, wait_for_state};

fn logits(host: &Host, choice: &str) -> Vec<f32> {
    first_logits(host, choice).unwrap()
}

fn text(host: &Host, choice: &str) -> String {
    system_tests::answer(host, choice, 6).unwrap().text
}

fn refusal(host: &Host, choice: &str) -> EngineError {
    first_logits(host, choice).map(|logits| logits.len()).unwrap_err()
}

#[test]
fn the_general_pack_equals_the_base_without_packs_to_the_bit() {
    let folders = Folders::with(&["general"]);
    for dtype in [None, Some(Dtype::F32)] {
        let host = folders.host_in(dtype);
        let turn = host.turn(&"auto".parse().unwrap()).unwrap();
        let (general, _) = &turn.mixture().parts()[0];
        assert_eq!(general.name(), "general");
        assert_eq!(general.resident_bytes(), 0, "its weights are the base's own");
        let tokens = host.tokenizer().encode_prompt("The capital of France is", false).unwrap();
        let plain = host.core().plain_logits(&tokens).unwrap().to_vec().unwrap();
        assert!(same_bits(&logits(&host, "auto"), &plain));
        assert!(same_bits(&logits(&host, "none"), &plain));
        assert!(text(&host, "general").starts_with(" Paris"), "{}", text(&host, "general"));
    }
}

#[test]
fn one_request_fuses_several_weighted_packs() {
    let folders = Folders::with(&["general", "scaled", "side-network", "moe"]);
    let host = folders.host();
    let general = logits(&host, "general");
    for name in ["scaled", "side-network", "moe"] {
        let alone = logits(&host, name);
        assert!(!same_bits(&alone, &general), "`{name}` changes nothing");
        let fused = logits(&host, &format!("general=3,{name}=1"));
        assert!(!same_bits(&fused, &general) && !same_bits(&fused, &alone), "{name}");
    }
    let all = host.turn(&"general=1,scaled=1,side-network=1,moe=1".parse().unwrap()).unwrap();
    assert_eq!(all.mixture().parts().len(), 4);
    assert!(all.mixture().parts().iter().all(|(_, weight)| (weight - 0.25).abs() < 1e-6));
    let fused = logits(&host, "general=1,scaled=1,side-network=1,moe=1");
    assert!(fused.iter().all(|logit| logit.is_finite()));
    let weightless = logits(&host, "general=1,scaled=0");
    assert!(same_bits(&weightless, &general), "a pack of weight 0 leaves no trace");
}

#[test]
fn bad_pack_is_quarantined_and_others_keep_serving() {
    let bad = [
        "panics",
        "loops",
        "allocates",
        "exits",
        "other-layout",
        "other-major",
        "cyclic",
        "dangling",
        "unknown-op",
        "shape-mismatch",
        "lies-about-bytes",
        "crashes",
        "networked",
        "keeps-thread",
    ];
    let folders = Folders::with(&["general", "scaled"]);
    bad.iter().for_each(|name| drop(lay_out(name, folders.packs.path())));
    std::fs::create_dir(folders.packs.path().join("broken")).unwrap();
    std::fs::write(folders.packs.path().join("broken/pack.toml"), "schema_version = 1\n[pack").unwrap();
    let host = folders.host();
    let (general, scaled) = (logits(&host, "general"), logits(&host, "scaled"));
    for name in bad {
        let error = refusal(&host, name).to_string();
        println!("{error}");
        assert!(error.contains(name), "`{name}` is not named: {error}");
        assert!(same_bits(&logits(&host, "general"), &general), "after {name}");
    }
    assert!(same_bits(&logits(&host, "scaled"), &scaled));
    for pack in host.manager().reports() {
        if pack.name == "loops" {
            // A time limit may be the moment's fault: it is tried again by itself, perhaps at this moment.
            let may_serve =
                [PackState::Registered, PackState::Loading, PackState::Resident, PackState::Leased];
            assert!(!may_serve.contains(&pack.state), "{pack:?}");
            continue;
        }
        let quarantined = pack.state == PackState::Quarantined;
        assert_eq!(quarantined, !["general", "scaled"].contains(&pack.name.as_str()), "{}", pack.name);
        assert_eq!(quarantined, pack.reason.is_some(), "{}", pack.name);
    }
    // Asked again, the reason is the same and nothing is tried a second time.
    let of_panics = |host: &Host| {
        let events = host.manager().events_after(0, std::time::Duration::ZERO);
        let of_panics = |event: &PackEvent| event.pack == "panics" && event.state == PackState::Quarantined;
        events.into_iter().filter(of_panics).count()
    };
    let quarantines = of_panics(&host);
    let again = refusal(&host, "panics").to_string();
    assert!(again.contains("quarantined"), "{again}");
    assert_eq!(of_panics(&host), quarantines);
}

#[test]
fn pack_for_another_base_is_refused() {
    let folders = Folders::with(&["general"]);
    lay_out_with("scaled", folders.packs.path(), |manifest| {
        manifest.base.fingerprint = BaseFingerprint::Exact(Sha256::of_bytes(b"another base"));
    });
    let host = folders.host();
    let error = refusal(&host, "scaled").to_string();
    assert!(error.contains("scaled") && error.contains(&host.fingerprint().to_string()), "{error}");
    assert!(text(&host, "auto").starts_with(" Paris"));
}

#[test]
fn declared_bytes_equal_measured_bytes() {
    let folders = Folders::with(&["general", "side-network", "moe"]);
    for dtype in [None, Some(Dtype::Q8_0), Some(Dtype::F32)] {
        let host = folders.host_in(dtype);
        let turn = host.turn(&"general=1,side-network=1,moe=1".parse().unwrap()).unwrap();
        let memory = host.memory();
        for (expert, _) in turn.mixture().parts() {
            let held = host.ledger().held_by(&Owner::Pack(expert.generation().to_owned()));
            assert_eq!(held, expert.resident_bytes() as u64, "{}", expert.name());
            let reported = memory.packs.iter().find(|pack| pack.pack == expert.name()).unwrap();
            assert_eq!(reported.resident_bytes, held);
        }
        assert_eq!(memory.base_bytes, host.core().resident_bytes() as u64);
    }
    // One that declares a tenth more than it takes is quarantined when it is measured.
    let folders = Folders::with(&["general"]);
    folders.fixture("side-network").lay_out_with(folders.packs.path(), |manifest| {
        manifest.memory.resident_bytes.values_mut().for_each(|bytes| *bytes += *bytes / 10);
    });
    let error = refusal(&folders.host_in(Some(Dtype::F32)), "side-network").to_string();
    assert!(error.contains("quarantined") && error.contains("bytes"), "{error}");
}

#[test]
fn budget_is_bytes_and_is_never_exceeded() {
    let folders = Folders::with(&["general", "side-network"]);
    let fixed: u64 = folders.host().ledger().holders().iter().map(|(_, bytes)| bytes).sum();
    let with_budget = |budget: u64| {
        folders.host_with(|options| {
            options.budget = Some(budget);
            // What fits is there by then, also on a busy machine.
            options.admission_wait = std::time::Duration::from_secs(2);
        })
    };
    let refused = with_budget(1 << 20).map(|_| ()).unwrap_err().to_string();
    assert!(refused.contains("base needs") && refused.contains("--budget"), "{refused}");

    // Room for the base and a short answer, not for the pack beside it.
    let host = with_budget(fixed + (12 << 20)).unwrap();
    let held = || host.ledger().holders().iter().map(|(_, bytes)| bytes).sum::<u64>();
    assert!(text(&host, "general").starts_with(" Paris"));
    assert_eq!(host.ledger().held_by(&Owner::Kv), 0, "the answer's caches came back");
    let _general = host.turn(&"general".parse().unwrap()).unwrap();
    let _filler = host.ledger().reserve(Owner::Kv, host.ledger().free() - 20_000).unwrap();
    let turn = host.turn(&"side-network=1,general=1".parse().unwrap()).unwrap();
    assert_eq!(turn.mixture().parts().len(), 1, "answered without it");
    let [omitted] = turn.omitted() else { panic!("{:?}", turn.omitted()) };
    assert!(omitted.pack == "side-network" && omitted.reason.contains("needs"), "{omitted:?}");
    assert!(held() <= host.ledger().budget());
    // A full budget is no fault of the pack.
    wait_for_state(&host, "side-network", &[PackState::Registered]);
}

#[test]
fn an_unknown_pack_is_refused_with_the_names_there_are() {
    let folders = Folders::with(&["general"]);
    let host = folders.host();
    wait_for_state(&host, "general", &[PackState::Registered]);
    let error = refusal(&host, "medical");
    assert!(matches!(error, EngineError::Pack(LeaseFailure::Unknown { .. })), "{error}");
    let error = error.to_string();
    assert!(error.contains("medical") && error.contains("general"), "{error}");
}

#[test]
fn two_packs_of_one_name_are_told_apart_and_the_second_is_kept_out() {
    let folders = Folders::with(&["general", "scaled"]);
    let copy = folders.packs.path().join("zz-copy");
    copy_folder(&folders.packs.path().join("scaled"), &copy);
    let host = folders.host();
    wait_for_state(&host, "scaled", &[PackState::Registered]);
    wait_for_state(&host, "scaled", &[PackState::Quarantined]);
    let quarantined = |pack: &modularbase_manager::PackReport| pack.state == PackState::Quarantined;
    let packs = host.manager().reports();
    assert_eq!(packs.iter().filter(|pack| quarantined(pack)).count(), 1);
    assert!(first_logits(&host, "scaled").is_ok());
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
