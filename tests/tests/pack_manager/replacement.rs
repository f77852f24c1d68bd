//! Packs that are added, replaced and removed while sessions and leases go on.

use std::{fs, path::Path, sync::atomic::AtomicBool};

use modularbase_core::{Advance, LogitRows, SamplingOptions, Sequence};
use modularbase_engine::{AnswerLimits, Host, Session};
use modularbase_manager::PackState;
use modularbase_residency::Owner;
use system_tests::{Base, Folders, answer, first_logits, same_bits, wait_for, wait_for_state};

/// Lays a pack out elsewhere and moves it into the packs directory in one step, over one that may be there.
fn drop_in(folders: &Folders, name: &str, seed: u64) {
    let aside = tempfile::tempdir_in(folders.cache.path()).unwrap();
    let made = folders.fixture("sized").named(name).seeded(seed).lay_out(aside.path());
    let target = folders.packs.path().join(name);
    if target.exists() {
        fs::rename(&target, aside.path().join("old")).unwrap();
    }
    fs::rename(made, target).unwrap();
}

/// What a host gives that never saw any other pack.
fn logits_alone(name: &str, seed: u64) -> Vec<f32> {
    let folders = Folders::for_base(Base::Tiny);
    drop_in(&folders, name, seed);
    first_logits(&folders.host(), name).unwrap()
}

/// Waits until `name` means another generation than `old`.
fn wait_for_other_generation(host: &Host, name: &str, old: Option<&str>) -> String {
    wait_for("another generation", || {
        let reports = host.manager().reports();
        let report = reports.into_iter().find(|report| report.name == name && report.routable)?;
        report.generation.filter(|generation| Some(generation.as_str()) != old)
    })
}

#[test]
fn hot_added_pack_never_serves_another_packs_weights() {
    let folders = Folders::for_base(Base::Tiny);
    let host = folders.host();
    let mut expected = Vec::new();
    for seed in 0..8 {
        let name = format!("pack-{seed}");
        // Asked for at once: it may still be arriving.
        drop_in(&folders, &name, seed);
        wait_for_other_generation(&host, &name, None);
        expected.push((name.clone(), logits_alone(&name, seed)));
        for (name, expected) in &expected {
            assert!(same_bits(&first_logits(&host, name).unwrap(), expected), "{name} after {seed}");
        }
    }
    let distinct = expected.windows(2).all(|pair| !same_bits(&pair[0].1, &pair[1].1));
    assert!(distinct, "the packs differ, so serving another's weights would show");
}

#[test]
fn caches_are_keyed_by_pack_generation() {
    let folders = Folders::for_base(Base::Tiny);
    drop_in(&folders, "law", 1);
    let host = folders.host();
    let limits = AnswerLimits { max_tokens: 12, stop: Vec::new() };
    let prompt = host.tokenizer().encode_prompt("Once upon a time there was a law", false).unwrap();
    let go_on = |session: &mut Session<'_>| {
        let never = AtomicBool::new(false);
        session.answer(&prompt, &SamplingOptions::greedy(), &limits, &never, &mut |_| {}).unwrap()
    };
    let mut session = Session::new(&host, "law".parse().unwrap()).unwrap();
    let first = go_on(&mut session);
    // The caches of the session hold this very prompt. Under the same name comes another pack.
    drop_in(&folders, "law", 2);
    let old = first.mixture[0].generation.clone();
    let new = wait_for_other_generation(&host, "law", Some(&old));
    let second = go_on(&mut session);
    assert_eq!(second.mixture[0].generation, new);
    let fresh = go_on(&mut Session::new(&host, "law".parse().unwrap()).unwrap());
    assert_eq!(second.token_ids, fresh.token_ids, "the old pack's caches were used");
    assert_ne!(first.token_ids, fresh.token_ids, "the packs differ, so old caches would show");
    // And back again: nothing of the first time is taken for it.
    drop_in(&folders, "law", 1);
    assert_eq!(wait_for_other_generation(&host, "law", Some(&new)), old, "the same bytes, one generation");
    assert_eq!(go_on(&mut session).token_ids, first.token_ids);
}

#[test]
fn replaced_pack_of_same_name_is_a_new_generation() {
    let folders = Folders::for_base(Base::Tiny);
    drop_in(&folders, "law", 1);
    let host = folders.host();
    let old_logits = first_logits(&host, "law").unwrap();
    let old_turn = host.turn(&"law".parse().unwrap()).unwrap();
    let old = old_turn.mixture().parts()[0].0.generation().to_owned();
    let held = |generation: &str| host.ledger().held_by(&Owner::Pack(generation.to_owned()));
    let bytes = held(&old);
    assert!(bytes > 0);

    drop_in(&folders, "law", 2);
    let new = wait_for_other_generation(&host, "law", Some(&old));
    let new_logits = first_logits(&host, "law").unwrap();
    assert!(same_bits(&new_logits, &logits_alone("law", 2)), "new requests get the new one");
    assert!(!same_bits(&new_logits, &old_logits));

    // The request that began before ends on what it began with, also after the new one is there.
    let draining = wait_for_state(&host, "law", &[PackState::Draining]);
    assert_eq!((draining.generation.as_deref(), draining.leases), (Some(old.as_str()), 1));
    let tokens = host.tokenizer().encode_prompt("The capital of France is", false).unwrap();
    let mut sequence = Sequence::new(host.core(), old_turn.mixture().clone());
    let step = Advance { sequence: &mut sequence, tokens: &tokens, logits: LogitRows::All };
    let logits = host.core().advance(&mut [step]).unwrap().remove(0).unwrap().to_vec().unwrap();
    assert!(same_bits(&logits, &old_logits));
    assert_eq!((held(&old), held(&new)), (bytes, bytes), "both are on the device");
    drop((sequence, old_turn));
    wait_for("the old one's bytes", || (held(&old) == 0).then_some(()));
    let reports = host.manager().reports();
    assert!(reports.iter().all(|report| report.generation.as_deref() != Some(&old)), "{reports:?}");
}

#[test]
fn a_removed_pack_drains_and_is_gone() {
    let folders = Folders::for_base(Base::Tiny);
    drop_in(&folders, "law", 1);
    let host = folders.host();
    let turn = host.turn(&"law".parse().unwrap()).unwrap();
    fs::remove_dir_all(folders.packs.path().join("law")).unwrap();
    wait_for_state(&host, "law", &[PackState::Draining]);
    let refused = answer(&host, "law", 2).unwrap_err().to_string();
    assert!(refused.contains("no pack named `law`"), "{refused}");
    drop(turn);
    wait_for("the end of it", || host.manager().reports().is_empty().then_some(()));
    let copies = |folder: &Path| {
        fs::read_dir(folder)
            .unwrap()
            .filter(|entry| {
                let name = entry.as_ref().unwrap().file_name();
                Path::new(&name).extension().is_some_and(|ending| ending == "so" || ending == "safetensors")
            })
            .count()
    };
    wait_for("its copies to go", || (copies(&folders.cache.path().join("packs")) == 0).then_some(()));
}

#[test]
fn a_replacement_that_is_no_good_leaves_the_old_one_serving_while_it_is_on_the_device() {
    let folders = Folders::for_base(Base::Tiny);
    drop_in(&folders, "law", 1);
    let host = folders.host();
    let expected = first_logits(&host, "law").unwrap();
    fs::write(folders.packs.path().join("law/weights.safetensors"), b"damaged").unwrap();
    let bad = wait_for_state(&host, "law", &[PackState::Quarantined]);
    assert!(bad.reason.unwrap().contains("7"), "the reason gives the size that was found");
    assert!(same_bits(&first_logits(&host, "law").unwrap(), &expected));
    host.manager().evict("law").unwrap();
    let refused = answer(&host, "law", 2).unwrap_err().to_string();
    assert!(refused.contains("quarantined"), "{refused}");
    drop_in(&folders, "law", 1);
    wait_for("the repaired pack", || first_logits(&host, "law").ok().filter(|now| same_bits(now, &expected)));
}
