//! `route` and what the router does to answers: the shipped packs, prompts that no training saw.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

use manifests::{PackManifest, Sha256};
use modularbase_loader::{PackFolder, read_router};
use router::{Detector, RoutingKey};
use serde_json::Value;

use crate::program::{Ended, modularbase, with_base};

/// The shipped packs as `cargo xtask` lays them out.
fn packs_folder() -> PathBuf {
    let folder = std::env::var_os("MODULARBASE_PACKS_DIR").map(PathBuf::from);
    folder.expect("MODULARBASE_PACKS_DIR names no folder of packs: run `cargo xtask test`")
}

fn route(arguments: &[&str]) -> Ended {
    let packs = packs_folder().display().to_string();
    Ended::of(with_base(["route", "--packs-dir", &packs].iter().chain(arguments)))
}

/// The prompts with the pack that each wants; `None` for those that want none.
fn prompts() -> Vec<(String, Option<String>)> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("prompts.jsonl");
    let text = std::fs::read_to_string(file).unwrap();
    let prompt = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let intent = line["intent"].as_str().unwrap().replace('_', "-");
        let wanted = Some(intent).filter(|intent| intent != "general" && intent != "oos");
        (line["text"].as_str().unwrap().to_owned(), wanted)
    };
    text.lines().map(prompt).collect()
}

/// The pack with the largest weight; `None` where it is the general one.
fn chosen(routing: &Value) -> Option<String> {
    if routing["out_of_domain"] == true {
        return None;
    }
    let scores = routing["scores"].as_array().unwrap();
    Some(scores[0]["pack"].as_str().unwrap().to_owned())
}

/// Expected calibration error (Guo et al. 2017), ten bins, of probabilities and whether they came true.
fn calibration_error(said: &[(f64, bool)]) -> f64 {
    let mut bins = [(0.0, 0.0); 10];
    for (probability, so) in said {
        let bin = &mut bins[((probability * 10.0) as usize).min(9)];
        *bin = (bin.0 + probability, bin.1 + f64::from(u8::from(*so)));
    }
    bins.iter().map(|(said, so)| (said - so).abs()).sum::<f64>() / said.len() as f64
}

/// The interval of 95 % of a share (Wilson 1927).
fn interval(right: usize, all: usize) -> (f64, f64) {
    let (n, p, z) = (all as f64, right as f64 / all as f64, 1.96);
    let middle = (p + z * z / (2.0 * n)) / (1.0 + z * z / n);
    let half = z / (1.0 + z * z / n) * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    (middle - half, middle + half)
}

#[test]
fn prompts_that_no_training_saw_get_the_right_pack_and_small_talk_gets_none() {
    let prompts = prompts();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("prompts.jsonl");
    let mut lines = std::fs::File::create(&file).unwrap();
    for (text, _) in &prompts {
        writeln!(lines, "{}", serde_json::json!({ "text": text })).unwrap();
    }
    let shown = route(&["--file", file.to_str().unwrap()]).success().stdout;
    let routings: Vec<Value> = shown.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(routings.len(), prompts.len());

    let mut by_pack: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let (mut short, mut long, mut taken) = ((0, 0), (0, 0), (0, 0));
    let (mut pairs, mut likeliest) = (Vec::new(), Vec::new());
    for ((text, wanted), routing) in prompts.iter().zip(&routings) {
        let sum: f64 = routing["mixture"]
            .as_array()
            .unwrap()
            .iter()
            .map(|share| share["weight"].as_f64().unwrap())
            .sum();
        assert!((sum - 1.0).abs() < 1e-9, "{routing}");
        let right = usize::from(chosen(routing) == *wanted);
        let of_pack = by_pack.entry(wanted.as_deref().unwrap_or("none")).or_default();
        *of_pack = (of_pack.0 + right, of_pack.1 + 1);
        let of_length = if text.split_whitespace().count() < 12 { &mut short } else { &mut long };
        *of_length = (of_length.0 + right, of_length.1 + 1);
        let said = routing["scores"].as_array().unwrap().iter().map(|score| {
            let so = wanted.as_deref().is_some_and(|wanted| score["pack"] == wanted);
            (score["probability"].as_f64().unwrap(), so)
        });
        let said: Vec<(f64, bool)> = said.collect();
        likeliest.push(said[0]);
        pairs.extend(said);
        if wanted.is_none() {
            taken = (taken.0 + 1 - right, taken.1 + 1);
        }
    }
    let right: usize = by_pack.values().map(|(right, _)| right).sum();
    let (low, high) = interval(right, prompts.len());
    println!("{by_pack:?}");
    println!("all {right} of {} ({low:.3} to {high:.3}), taken {taken:?}", prompts.len());
    for (name, (right, all)) in [("under 12 words", short), ("from 12 words", long)] {
        let (low, high) = interval(right, all);
        println!("{name} {right} of {all} ({low:.3} to {high:.3})");
    }
    let (pairs, likeliest) = (calibration_error(&pairs), calibration_error(&likeliest));
    println!("calibration error {pairs:.3} over all pairs, {likeliest:.3} over the likeliest packs");
    assert!(pairs < 0.05 && likeliest < 0.05, "{pairs} {likeliest}");
    assert!(right * 100 >= 92 * prompts.len(), "{right} of {}: {by_pack:?}", prompts.len());
    assert!(short.0 * 100 >= 92 * short.1, "of the short ones {short:?}");
    assert!(taken.0 * 100 <= 3 * taken.1, "{taken:?} plain prompts were given a pack");
    assert!(by_pack.values().all(|(right, all)| right * 100 >= 80 * all), "{by_pack:?}");
}

#[test]
fn no_prompt_to_measure_on_is_like_one_that_was_trained_on() {
    let words = |text: &str| -> BTreeSet<String> {
        let lower = text.to_lowercase();
        let words = lower.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty());
        words.map(str::to_owned).collect()
    };
    let trained_on = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packs/prompts.jsonl");
    let trained_on = std::fs::read_to_string(trained_on).unwrap();
    let text = |line: &str| serde_json::from_str::<Value>(line).unwrap()["text"].as_str().unwrap().to_owned();
    let trained_on: Vec<(String, BTreeSet<String>)> =
        trained_on.lines().map(text).map(|text| (text.clone(), words(&text))).collect();
    assert!(trained_on.len() > 2000);
    for (prompt, _) in prompts() {
        let own = words(&prompt);
        for (other, theirs) in &trained_on {
            assert_ne!(*other, prompt);
            let shared = own.intersection(theirs).count();
            let all = own.union(theirs).count();
            assert!(all == 0 || 10 * shared < 6 * all, "{prompt:?} is much like {other:?}");
        }
    }
}

#[test]
fn the_choice_is_explained_as_a_table_and_as_json() {
    let prompt = "How do I recursively change file permissions with chmod?";
    let table = route(&[prompt]).success().stdout;
    assert!(table.contains("shell") && table.contains("probability"), "{table}");
    let json = route(&[prompt, "--json"]).success().json();
    assert_eq!(json["mixture"][0]["pack"], "shell");
    assert_eq!(json["scores"].as_array().unwrap().len(), 7, "every pack with a detector: {json}");
    let plain = route(&["hey, how are you today?", "--json"]).success().json();
    assert_eq!(plain["out_of_domain"], true);
    assert_eq!(plain["mixture"][0]["pack"], "general");
    assert!(plain["reason"].as_str().unwrap().contains("nearest"), "{plain}");
}

#[test]
fn a_pack_that_leaves_changes_no_other_score_to_the_bit() {
    let some = tempfile::tempdir().unwrap();
    for pack in ["general", "medical", "router", "shell"] {
        std::os::unix::fs::symlink(packs_folder().join(pack), some.path().join(pack)).unwrap();
    }
    let prompt = "What are the early signs of type 2 diabetes?";
    let all = route(&[prompt, "--json"]).success().json();
    let packs = some.path().display().to_string();
    let fewer = Ended::of(with_base(["route", "--packs-dir", &packs, prompt, "--json"])).success().json();
    let score = |routing: &Value, pack: &str| {
        let scores = routing["scores"].as_array().unwrap();
        scores.iter().find(|score| score["pack"] == pack).map(|score| score["score"].clone())
    };
    for pack in ["medical", "shell"] {
        assert_eq!(score(&all, pack), score(&fewer, pack), "{pack}");
        assert!(score(&all, pack).is_some());
    }
    assert_eq!(score(&fewer, "legal"), None);
}

#[test]
fn a_conversation_keeps_its_subject_in_short_questions_and_follows_a_change() {
    let packs = packs_folder().display().to_string();
    let input = b"What are the symptoms of measles in small children?\nAnd in adults?\n\
        Write a bash one-liner that counts the lines of all log files\n/mixture none\nHi\n";
    let command = with_base(["chat", "--packs-dir", &packs, "--greedy", "--json", "--max-tokens", "3"]);
    let ended = Ended::with_input(command, input).success();
    let first_packs: Vec<String> = ended
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["mixture"][0]["pack"].to_string())
        .collect();
    assert_eq!(first_packs, ["\"medical\"", "\"medical\"", "\"shell\"", "\"base\""]);
}

#[test]
fn orders_to_the_router_move_nothing() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("orders.jsonl");
    let routed = route(&["--file", file.to_str().unwrap()]).success();
    let text = std::fs::read_to_string(file).unwrap();
    let lines: Vec<(&str, &str)> = text.lines().zip(routed.stdout.lines()).collect();
    assert_eq!((lines.len(), routed.stdout.lines().count()), (14, 14));
    let moved: Vec<&str> = lines
        .iter()
        .filter(|(prompt, routing)| {
            let [prompt, routing]: [Value; 2] =
                [prompt, routing].map(|line| serde_json::from_str(line).unwrap());
            let mixture = routing["mixture"].as_array().unwrap();
            let packs = mixture.iter().map(|share| &share["pack"]).filter(|pack| **pack != "general");
            !packs.eq(prompt["packs"].as_array().unwrap())
        })
        .map(|(prompt, _)| *prompt)
        .collect();
    // Scores differ a little from one processor to another.
    assert!(moved.len() <= 1, "{moved:#?}");
}

#[test]
fn a_file_without_text_is_refused_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("prompts.jsonl");
    std::fs::write(&file, "{\"text\": \"one\"}\n{\"prompt\": \"two\"}\n").unwrap();
    let ended = route(&["--file", file.to_str().unwrap()]);
    assert_ne!(ended.code, Some(0));
    assert!(ended.stderr.contains("prompts.jsonl:2"), "{}", ended.stderr);
    let refused = Ended::of(modularbase(["route", "one", "--file", file.to_str().unwrap()]));
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
}

/// A packs folder of links to some of the shipped packs.
fn some_packs(names: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for pack in names {
        std::os::unix::fs::symlink(packs_folder().join(pack), folder.path().join(pack)).unwrap();
    }
    folder
}

/// A copy of a shipped pack in another folder, to be changed.
fn copied(pack: &str, into: &Path) -> PathBuf {
    let folder = into.join(pack);
    std::fs::create_dir(&folder).unwrap();
    for entry in std::fs::read_dir(packs_folder().join(pack)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
    }
    folder
}

/// Puts another key in a pack's place, with a manifest that names it.
fn put_key(pack: &Path, change: impl FnOnce(&mut RoutingKey)) {
    let path = pack.join("routing-key.safetensors");
    let mut key = RoutingKey::from_bytes(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut key);
    let bytes = key.to_bytes().unwrap();
    std::fs::write(&path, &bytes).unwrap();
    let manifest_path = pack.join("pack.toml");
    let mut manifest = PackManifest::read(&manifest_path).unwrap();
    let record = manifest.routing_key.as_mut().unwrap();
    (record.sha256, record.size) = (Sha256::of_bytes(&bytes), bytes.len() as u64);
    std::fs::write(manifest_path, manifest.to_toml().unwrap()).unwrap();
}

fn routed_in(packs: &Path, prompt: &str) -> Value {
    let packs = packs.display().to_string();
    Ended::of(with_base(["route", "--packs-dir", &packs, prompt, "--json"])).success().json()
}

#[test]
fn without_a_router_pack_the_general_pack_answers_and_the_reason_says_what_is_missing() {
    let packs = some_packs(&["general", "medical"]);
    let prompt = "What are the early signs of type 2 diabetes?";
    let without = routed_in(packs.path(), prompt);
    assert_eq!(
        (&without["out_of_domain"], &without["mixture"][0]["pack"]),
        (&true.into(), &"general".into())
    );
    assert!(without["reason"].as_str().unwrap().contains("no router pack is registered"), "{without}");
    std::os::unix::fs::symlink(packs_folder().join("router"), packs.path().join("router")).unwrap();
    assert_eq!(routed_in(packs.path(), prompt)["mixture"][0]["pack"], "medical");
}

#[test]
fn a_router_pack_is_listed_and_verified_and_can_be_no_part_of_a_mixture() {
    let packs = packs_folder().display().to_string();
    let listed = Ended::of(modularbase(["packs", "list", "--packs-dir", &packs])).success().stdout;
    assert!(listed.contains("router"), "{listed}");
    let router = packs_folder().join("router").display().to_string();
    let verified = Ended::of(with_base(["packs", "verify", &router])).success().stdout;
    assert!(verified.contains("projection") && verified.contains("router: verified"), "{verified}");
    let refused = Ended::of(with_base(["run", "--packs-dir", &packs, "--mixture", "router", "Hi"]));
    assert_ne!(refused.code, Some(0));
    assert!(refused.stderr.contains("chooses mixtures"), "{}", refused.stderr);
}

#[test]
fn a_key_of_another_router_and_one_that_takes_general_prompts_are_not_used_and_fail_verification() {
    let packs = some_packs(&["general", "router", "shell"]);
    let medical = copied("medical", packs.path());
    let prompt = "What are the early signs of type 2 diabetes?";
    assert_eq!(routed_in(packs.path(), prompt)["mixture"][0]["pack"], "medical");

    let verify = || {
        let folder = packs.path().display().to_string();
        Ended::of(with_base(["packs", "verify", "--packs-dir", &folder, medical.to_str().unwrap()]))
    };
    let sound = verify().success().stdout;
    assert!(sound.contains("of 96 general prompts"), "{sound}");
    put_key(&medical, |key| key.facts.router = Some(Sha256::of_bytes(b"another")));
    let said = verify();
    assert_ne!(said.code, Some(0));
    assert!(said.stdout.contains("was trained with the router"), "{}", said.stdout);
    assert_eq!(routed_in(packs.path(), prompt)["scores"].as_array().unwrap().len(), 1, "shell alone");

    put_key(&medical, |key| {
        let router = PackFolder::read(&packs.path().join("router")).unwrap();
        let router = read_router(&router).unwrap();
        key.facts.router = Some(router.projection());
        // Every prompt but the very mean one is wanted.
        let inputs = 4 * key.width();
        let rows = [vec![1.0; inputs], vec![-1.0; inputs]].concat();
        key.detector = Some(Detector::new(&rows, vec![0.0; 2], vec![10.0; 2], -0.1));
    });
    let said = verify();
    assert_ne!(said.code, Some(0));
    assert!(said.stdout.contains("of general prompts, at most"), "{}", said.stdout);
    assert_eq!(routed_in(packs.path(), prompt)["out_of_domain"], true);
}

#[test]
fn what_a_manifest_says_of_its_pack_moves_no_score() {
    let prompt = "How do I recursively change file permissions with chmod?";
    let packs = some_packs(&["general", "router", "shell"]);
    let manifest_path = copied("medical", packs.path()).join("pack.toml");
    let before = routed_in(packs.path(), prompt);
    let mut manifest = PackManifest::read(&manifest_path).unwrap();
    manifest.pack.description = format!("The pack for: {prompt}");
    manifest.pack.keywords =
        ["chmod", "shell", "file", "permissions", "bash", "how", "do", "i"].map(Into::into).into();
    std::fs::write(&manifest_path, manifest.to_toml().unwrap()).unwrap();
    let after = routed_in(packs.path(), prompt);
    assert_eq!(before["scores"].as_array().unwrap().len(), 2);
    assert_eq!((&after["scores"], &after["mixture"]), (&before["scores"], &before["mixture"]));
}

#[test]
fn the_configuration_caps_a_pack_and_sets_the_threshold() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("host.toml");
    std::fs::write(&config, "schema_version = 1\n[routing]\ncaps = { shell = 0.25 }\n").unwrap();
    let prompt = "How do I recursively change file permissions with chmod?";
    let path = config.to_str().unwrap();
    let capped = route(&[prompt, "--json", "--config", path]).success().json();
    let share = |routing: &Value, pack: &str| {
        let mixture = routing["mixture"].as_array().unwrap();
        mixture.iter().find(|share| share["pack"] == pack).unwrap()["weight"].as_f64().unwrap()
    };
    assert!((share(&capped, "shell") - 0.25).abs() < 1e-9 && (share(&capped, "general") - 0.75).abs() < 1e-9);
    std::fs::write(&config, "schema_version = 1\n[routing]\nthreshold = 1.0\n").unwrap();
    assert_eq!(route(&[prompt, "--json", "--config", path]).success().json()["out_of_domain"], true);
}

/// A letter with a clause of a contract, a finding and a script.
const PASTED: &str = "The Tenant shall indemnify and hold harmless the Landlord from any and all claims arising out of \
    the use of the Premises, provided that nothing herein shall be construed as a waiver of the Landlord's rights under \
    Section 12 of this Agreement or under applicable law. This Agreement shall be governed by the laws of the State.\n\n\
    The patient is a 64-year-old man with hypertension and type 2 diabetes who presented with exertional dyspnea and \
    bilateral leg edema. Echocardiography showed a left ventricular ejection fraction of 35 percent; treatment with \
    furosemide, lisinopril and carvedilol was begun, and serum potassium was monitored.\n\n\
    ```bash\n#!/bin/bash\nset -euo pipefail\nfor file in /var/log/*.log; do\n  gzip -9 \"$file\" && rm -f -- \"$file\"\n\
    done\nfind /backup -name '*.tar.gz' -mtime +30 -print0 | xargs -0 rm -f\ngrep -rn 'ERROR' /var/log | sort | uniq -c\n```\n";

#[test]
fn a_pasted_document_of_several_domains_is_covered_by_the_packs_of_all() {
    let routing = route(&[PASTED, "--json"]).success().json();
    let weight = |pack: &str| {
        let mixture = routing["mixture"].as_array().unwrap();
        mixture
            .iter()
            .find(|share| share["pack"] == pack)
            .map_or(0.0, |share| share["weight"].as_f64().unwrap())
    };
    for pack in ["legal", "medical", "shell"] {
        assert!(weight(pack) > 0.15, "{pack}: {routing}");
    }
    let segments = routing["segments"].as_array().unwrap();
    let mut next = 0;
    for segment in segments {
        assert_eq!(segment["first"], next, "each begins where the last one ends");
        next += segment["tokens"].as_u64().unwrap();
    }
    assert!(segments.iter().any(|part| part["begins"].as_str().unwrap().starts_with("The patient is")));
    assert!(segments.iter().any(|part| part["pack"] == "shell"));
    let table = route(&[PASTED]).success().stdout;
    assert!(table.contains("begins") && table.contains("its parts want several packs"), "{table}");

    let clause = PASTED.split("\n\n").next().unwrap().repeat(3);
    let routing = route(&[&clause, "--json"]).success().json();
    assert_eq!(routing["mixture"].as_array().unwrap().len(), 1, "{routing}");
    assert_eq!(routing["mixture"][0]["pack"], "legal");
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("host.toml");
    std::fs::write(&config, "schema_version = 1\n[routing]\nsegment_tokens = 0\n").unwrap();
    let whole = route(&[PASTED, "--json", "--config", config.to_str().unwrap()]).success().json();
    assert_eq!(whole.get("segments"), None, "{whole}");
}
