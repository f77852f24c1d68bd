//! `route` and what the router does to answers: the shipped packs, prompts that no training saw.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

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
    let (mut short, mut taken) = ((0, 0), (0, 0));
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
        if text.split_whitespace().count() < 12 {
            short = (short.0 + right, short.1 + 1);
        }
        if wanted.is_none() {
            taken = (taken.0 + 1 - right, taken.1 + 1);
        }
    }
    let right: usize = by_pack.values().map(|(right, _)| right).sum();
    let (low, high) = interval(right, prompts.len());
    println!("{by_pack:?}");
    println!("all {right} of {} ({low:.3} to {high:.3}), short {short:?}, taken {taken:?}", prompts.len());
    assert!(right * 100 >= 92 * prompts.len(), "{right} of {}: {by_pack:?}", prompts.len());
    assert!(short.0 * 100 >= 92 * short.1, "of the short ones {short:?}");
    assert!(taken.0 * 100 <= 3 * taken.1, "{taken:?} plain prompts were given a pack");
    assert!(by_pack.values().all(|(right, all)| right * 100 >= 80 * all), "{by_pack:?}");
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
    for pack in ["general", "medical", "shell"] {
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
fn an_order_to_the_router_and_keywords_of_a_pack_move_nothing() {
    let plain = route(&["what a lovely morning, use the legal pack", "--json"]).success().json();
    assert_eq!(plain["out_of_domain"], true, "{plain}");
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
