//! What operators do with packs, on the folder alone: no host runs.

use std::path::Path;
use std::process::Command;

use fixture_packs::lay_out;
use modularbase_loader::{ContextKey, INDEX_FILE, PackIndex, ProbeKey, ProbeOutcome};
use serde_json::{Value, json};

use crate::place::Place;
use crate::program::{Ended, names, with_base};

/// A `packs` command on a folder of packs, where no host of this user is seen.
fn packs(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = with_base(["packs"].iter().chain(arguments));
    command.arg("--packs-dir").arg(folder).env("XDG_RUNTIME_DIR", folder.join(".run"));
    command
}

fn on(folder: &Path, arguments: &[&str]) -> Ended {
    Ended::of(packs(folder, arguments))
}

#[track_caller]
fn assert_usage(ended: &Ended, words: &str) {
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{}", ended.stderr);
    assert!(ended.stderr.contains(words), "{}", ended.stderr);
}

fn listed(folder: &Path) -> Vec<Value> {
    on(folder, &["list", "--json"]).success().json().as_array().unwrap().clone()
}

#[test]
fn what_only_a_running_host_knows_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    lay_out("scaled", folder.path());
    for arguments in [&["events"][..], &["events", "--follow", "--json"]] {
        let ended = on(folder.path(), arguments);
        assert_usage(&ended, "there is no running host on ");
        assert!(ended.stderr.contains("modularbase chat"), "{}", ended.stderr);
    }
    assert_usage(&on(folder.path(), &["events", "--offline"]), "leave out --offline");
    assert_usage(&on(folder.path(), &["list", "--host", "1"]), "no host with the process id 1 runs on");
    let mut top = with_base(["top", "--packs-dir"]);
    top.arg(folder.path()).env("XDG_RUNTIME_DIR", folder.path());
    assert_usage(&Ended::of(top), "there is no running host on ");
    let evicted = on(folder.path(), &["evict", "scaled"]).success();
    assert_eq!(evicted.stdout, "`scaled` is not on a device\n");
    assert!(evicted.stderr.contains("no running host was asked"), "{}", evicted.stderr);
    assert_eq!(
        on(folder.path(), &["evict", "scaled", "--json"]).success().json(),
        json!({"outcome": "not_resident"})
    );
}

#[test]
fn pins_and_priorities_are_written_down_beside_the_packs() {
    let folder = tempfile::tempdir().unwrap();
    lay_out("scaled", folder.path());
    let wishes = || std::fs::read_to_string(folder.path().join(".modularbase/wishes.toml")).unwrap();
    let said = on(folder.path(), &["pin", "scaled"]).success();
    assert_eq!(said.stdout, "`scaled` is kept on the device\n");
    assert!(said.stderr.contains("from the next start"), "{}", said.stderr);
    on(folder.path(), &["priority", "scaled", "-3"]).success();
    assert!(wishes().contains("keep = [\"scaled\"]") && wishes().contains("scaled = -3"), "{}", wishes());
    let packs = listed(folder.path());
    assert_eq!((&packs[0]["keep"], &packs[0]["priority"]), (&json!(true), &json!(-3)));
    assert_eq!(packs.len(), 1, "the wishes are no pack");
    assert_usage(&on(folder.path(), &["pin", "nobody"]), "there is no pack `nobody`");
    let unpinned = on(folder.path(), &["unpin", "scaled", "--json"]).success().json();
    assert_eq!(unpinned, json!({"pack": "scaled", "keep": false}));
    assert!(wishes().contains("keep = []"), "{}", wishes());

    std::fs::write(folder.path().join(".modularbase/wishes.toml"), "keep = 3\n").unwrap();
    let ended = on(folder.path(), &["pin", "scaled"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
    assert!(ended.stderr.contains("wishes.toml:1:"), "{}", ended.stderr);
    assert_eq!(wishes(), "keep = 3\n", "what a person wrote stays");
}

#[test]
fn a_pack_is_installed_replaced_and_removed_whole() {
    let source = tempfile::tempdir().unwrap();
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("packs");
    std::fs::create_dir(&folder).unwrap();
    let pack = lay_out("scaled", source.path());
    let text = pack.to_str().unwrap();
    let installed = on(&folder, &["install", text, "--json"]).success().json();
    assert_eq!((&installed["name"], &installed["replaced"]), (&json!("scaled"), &Value::Null));
    let list = listed(&folder);
    assert_eq!((list.len(), &list[0]["state"]), (1, &json!("registered")));
    assert_eq!(list[0]["generation"], installed["generation"]);
    assert_eq!(list[0]["signer"], "unsigned");
    let again = on(&folder, &["install", text]).success();
    assert!(again.stdout.starts_with("`scaled` was replaced ("), "{}", again.stdout);
    assert_eq!(names(&folder), ["scaled"], "nothing is left beside it");

    let removed = on(&folder, &["remove", "scaled"]).success();
    assert_eq!(removed.stdout, "`scaled` was removed\n");
    assert_eq!(names(&folder), [] as [&str; 0]);
    assert_usage(&on(&folder, &["remove", "scaled"]), "there is no pack `scaled`");
}

#[test]
fn a_damaged_pack_is_not_installed() {
    let source = tempfile::tempdir().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let pack = lay_out("scaled", source.path());
    std::fs::write(pack.join("libfixture_scaled.so"), "no library").unwrap();
    let ended = on(folder.path(), &["install", pack.to_str().unwrap()]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(4), ""), "{}", ended.stderr);
    assert_eq!(names(folder.path()), [] as [&str; 0]);
    let ended = on(folder.path(), &["install", "/nowhere/pack"]);
    assert_eq!(ended.code, Some(4), "{}", ended.stderr);
}

#[test]
fn the_quarantine_is_listed_with_its_reasons_and_can_be_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    lay_out("general", folder.path());
    let bad = lay_out("scaled", folder.path());
    assert!(on(folder.path(), &["quarantine", "list"]).success().stderr.contains("nothing is in quarantine"));
    let library = bad.join("libfixture_scaled.so");
    let mut bytes = std::fs::read(&library).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&library, bytes).unwrap();
    let list = on(folder.path(), &["quarantine", "list", "--json"]).success().json();
    assert_eq!(list.as_array().unwrap().len(), 1, "{list}");
    assert_eq!((&list[0]["name"], &list[0]["state"]), (&json!("scaled"), &json!("quarantined")));
    assert!(list[0]["reason"].as_str().unwrap().contains("SHA-256"), "{list}");
    let table = on(folder.path(), &["quarantine", "list"]).success().stdout;
    assert!(table.starts_with("NAME ") && table.contains("SHA-256") && !table.contains("general"), "{table}");
    let cleared = on(folder.path(), &["quarantine", "clear", "scaled"]).success();
    assert!(cleared.stdout.contains("is forgotten"), "{}", cleared.stdout);
    assert!(cleared.stderr.contains("it will be refused again: "), "{}", cleared.stderr);
    assert_usage(&on(folder.path(), &["quarantine", "clear", "nobody"]), "there is no pack `nobody`");
}

#[test]
fn a_pack_that_is_still_being_copied_is_seen_and_says_what_it_waits_for() {
    let folder = tempfile::tempdir().unwrap();
    let pack = lay_out("scaled", folder.path());
    let library = pack.join("libfixture_scaled.so");
    let whole = std::fs::read(&library).unwrap();
    std::fs::write(&library, &whole[..whole.len() / 2]).unwrap();
    let packs = listed(folder.path());
    assert_eq!(packs[0]["state"], "seen");
    assert!(
        packs[0]["reason"].as_str().unwrap().starts_with("waiting for libfixture_scaled.so: "),
        "{packs:?}"
    );
}

#[test]
fn what_is_cleared_without_a_host_is_probed_again_by_the_next_one() {
    let place = Place::with_cache();
    lay_out("panics", &place.packs());
    // Files changed this very moment are not remembered by their stamp.
    std::thread::sleep(std::time::Duration::from_millis(50));
    let refused = |verdict: &str| {
        let chat = place.chat(&["--mixture", "none"]);
        place.has_state("panics", "quarantined");
        let events = place.run(&["packs", "events", "--json"]).success().stdout;
        assert_eq!(events.contains("\"state\":\"verified\""), verdict == "looked at", "{events}");
        assert_eq!(chat.leave(), Some(0));
    };
    refused("looked at");
    refused("remembered");
    let index = place.cache().join("packs").join(INDEX_FILE);
    let lines = std::fs::read_to_string(&index).unwrap();
    let line = lines.lines().find(|line| line.contains("\"panics\"")).unwrap();
    let line: Value = serde_json::from_str(line).unwrap();
    let context = ContextKey(line["context"].as_str().unwrap().parse().unwrap());
    let probe = ProbeKey(line["pack"][2]["refused_by"].as_str().unwrap().parse().unwrap());
    let probed = || PackIndex::open(index.parent().unwrap(), context).probed(probe);
    assert!(matches!(probed(), Some(ProbeOutcome::Failed(_))));
    let cleared = place.run(&["packs", "quarantine", "clear", "panics", "--offline"]).success();
    assert!(cleared.stdout.contains("is forgotten"), "{}", cleared.stdout);
    assert_eq!(probed(), None, "the next look would be refused unprobed");
    refused("looked at");
    assert!(matches!(probed(), Some(ProbeOutcome::Failed(_))));
}
