//! `eval` and `routing-key`: what they print and write, and what they refuse.

use std::path::{Path, PathBuf};

use fixture_packs::lay_out;
use system_tests::{Base, Folders};

use crate::program::{Ended, modularbase};

/// A domain of a few documents from two sources.
fn domain(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(format!("{name}.jsonl"));
    let line = |index: usize| {
        let text =
            format!("The {name} of day {index} was much like the {name} of the day before. ").repeat(4);
        format!("{{\"id\": \"{index}\", \"source\": \"s{}\", \"text\": \"{text}\"}}\n", index % 2)
    };
    std::fs::write(&path, (0..6).map(line).collect::<String>()).unwrap();
    path
}

/// `eval` on the tiny checkpoint.
fn eval(folders: &Folders, arguments: &[&str]) -> Ended {
    let base = folders.options().base.display().to_string();
    let slot = folders.options().slot.unwrap();
    let slot = format!("{}..{}", slot.start, slot.end);
    let packs = folders.packs.path().display().to_string();
    let common = ["eval", "--base", &base, "--slot", &slot, "--packs-dir", &packs];
    let mut command = modularbase(common.iter().chain(arguments));
    command.env("MODULARBASE_CACHE", folders.cache.path());
    Ended::of(command)
}

#[test]
fn the_matrix_is_printed_and_written_with_every_pack_and_mixture() {
    let folders = Folders::for_base(Base::Tiny);
    folders.fixture("side-network").lay_out(folders.packs.path());
    folders.fixture("general").lay_out(folders.packs.path());
    let text = tempfile::tempdir().unwrap();
    let (weather, news) = (domain(text.path(), "weather"), domain(text.path(), "news"));
    let (weather, news) = (format!("weather={}", weather.display()), format!("news={}", news.display()));
    let out = text.path().join("out");
    let arguments = [
        "--domain",
        &weather,
        "--domain",
        &news,
        "--mix",
        "side-network=0.5,general=0.5",
        "--resamples",
        "50",
        "--sample",
        "1",
        "--sample-prompt",
        "8",
        "--sample-tokens",
        "3",
        "--out",
        out.to_str().unwrap(),
    ];
    let shown = eval(&folders, &arguments).success().stdout;
    assert!(shown.contains("weather") && shown.contains("side-network=0.5,general=0.5"), "{shown}");
    let record: serde_json::Value =
        serde_json::from_slice(&std::fs::read(out.join("evaluation.json")).unwrap()).unwrap();
    let names: Vec<&str> =
        record["columns"].as_array().unwrap().iter().map(|column| column["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["base", "general", "side-network", "side-network=0.5,general=0.5"]);
    for domain in record["domains"].as_array().unwrap() {
        assert_eq!(domain["documents"], 6);
        assert_eq!(domain["sources"].as_object().unwrap().len(), 2);
        assert_eq!(domain["columns"][1]["gain"]["value"], 0.0, "the general pack is the base");
        let loss = |column: usize| domain["columns"][column]["nats_per_token"]["value"].as_f64().unwrap();
        assert!(loss(0) > 0.0 && loss(0) == loss(1), "{domain}");
    }
    let page = std::fs::read_to_string(out.join("evaluation.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("Continuations: news"));
    let json = eval(&folders, &["--domain", &weather, "--json", "--pack", "general"]).success().json();
    assert_eq!(json["columns"].as_array().unwrap().len(), 2);
    let loss =
        |value: &serde_json::Value| value["domains"][0]["columns"][0]["nats_per_token"]["value"].clone();
    assert_eq!(loss(&json), loss(&record), "the base's loss does not depend on what stands beside it");
}

#[test]
fn what_cannot_be_evaluated_is_refused_with_the_reason() {
    let folders = Folders::for_base(Base::Tiny);
    let text = tempfile::tempdir().unwrap();
    let good = format!("good={}", domain(text.path(), "weather").display());
    let empty = text.path().join("empty.jsonl");
    std::fs::write(&empty, "").unwrap();
    let empty = format!("empty={}", empty.display());
    // A pack of the default base does not fit the tiny one.
    let other = lay_out("side-network", text.path());
    let nowhere = text.path().join("nowhere.jsonl");
    let nowhere = format!("x={}", nowhere.display());
    let refused = |arguments: &[&str], code: i32, said: &str| {
        let ended = eval(&folders, arguments);
        assert_eq!(ended.code, Some(code), "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(said), "{arguments:?}: {}", ended.stderr);
        assert!(ended.stdout.is_empty(), "{}", ended.stdout);
    };
    refused(&[], 2, "nothing to evaluate on");
    refused(&["--domain", &nowhere], 2, "can't read");
    refused(&["--domain", &empty], 2, "holds no document");
    refused(&["--domain", &good, "--domain", &good], 2, "named twice");
    refused(&["--domain", &good, "--pack", "nope"], 2, "no pack `nope`");
    refused(&["--domain", &good, "--mix", "nope=1"], 2, "no pack is named `nope`");
    refused(&["--domain", &good, "--weights", "x.safetensors"], 2, "names no pack");
    refused(&["--domain", &good, "--baseline", "x=/nowhere"], 2, "/nowhere");
    refused(&["--domain", &good, "--pack", other.to_str().unwrap()], 4, "can't be used");
}

#[test]
fn a_routing_key_is_made_checked_and_written() {
    let folders = Folders::for_base(Base::Tiny);
    let text = tempfile::tempdir().unwrap();
    let files = ["law", "sums", "law2", "sums2"].map(|name| domain(text.path(), name).display().to_string());
    let out = text.path().join("key.safetensors");
    let base = folders.options().base.display().to_string();
    let mut command = modularbase([
        "routing-key",
        "--base",
        &base,
        "--train",
        &files[0],
        "--general",
        &files[1],
        "--validation",
        &files[2],
        "--general-validation",
        &files[3],
        "--prompts",
        "20",
        "--check-prompts",
        "10",
        "--json",
        "--out",
        out.to_str().unwrap(),
    ]);
    command.env("MODULARBASE_CACHE", folders.cache.path());
    let told = Ended::of(command).success().json();
    assert_eq!(told["facts"]["prompts"], 40, "both forms: {told}");
    assert_eq!(told["facts"]["check"]["right"].as_object().unwrap().len(), 3);
    assert_eq!(told["bytes"], std::fs::metadata(&out).unwrap().len());
}
