//! `run` and `score`: what stands on stdout, and nothing else.

use std::collections::BTreeSet;
use std::io::Read;

use serde_json::Value;

use crate::program::{Ended, with_base};

const FRANCE: [&str; 8] =
    ["run", "The capital of France is", "--raw", "--greedy", "--max-tokens", "6", "--mixture", "none"];

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn run_json_is_one_object_with_every_field_and_stdout_holds_nothing_else() {
    let ended = Ended::of(with_base(FRANCE.iter().chain(&["--json"]))).success();
    assert_eq!(ended.stderr, "");
    let answer = ended.json();
    let expected = [
        "text",
        "token_ids",
        "prompt_tokens",
        "reused_tokens",
        "finish_reason",
        "mixture",
        "omitted",
        "timings",
        "memory",
    ];
    assert_eq!(keys(&answer), expected.into());
    assert!(answer["text"].as_str().unwrap().contains("Paris"), "{answer}");
    assert_eq!(answer["token_ids"].as_array().unwrap().len(), 6);
    assert_eq!(
        (answer["prompt_tokens"].as_u64(), answer["finish_reason"].as_str()),
        (Some(5), Some("length"))
    );
    assert_eq!(
        answer["mixture"],
        serde_json::json!([{ "pack": "base", "generation": "base", "weight": 1.0 }])
    );
    let timings = ["load_ms", "prefill_ms", "decode_ms", "prefill_tokens_per_s", "decode_tokens_per_s"];
    assert_eq!(keys(&answer["timings"]), timings.into());
    assert!(timings.iter().all(|key| answer["timings"][key].as_f64().unwrap() > 0.0), "{answer}");
    let memory = &answer["memory"];
    assert_eq!(
        keys(memory),
        ["budget_bytes", "base_bytes", "kv_bytes", "plan_bytes", "scratch_bytes", "packs"].into()
    );
    let bytes = |key: &str| memory[key].as_u64().unwrap();
    assert!(bytes("base_bytes") > 50_000_000 && bytes("kv_bytes") > 0, "{memory}");
    assert!(bytes("base_bytes") + bytes("kv_bytes") <= bytes("budget_bytes"), "{memory}");
    assert_eq!(memory["packs"], serde_json::json!([]));
}

#[test]
fn plain_output_is_the_text_and_a_newline_and_a_prompt_from_stdin_gives_the_same() {
    let text = Ended::of(with_base(FRANCE.iter().chain(&["--json"]))).json()["text"].clone();
    let expected = format!("{}\n", text.as_str().unwrap());
    let plain = Ended::of(with_base(FRANCE)).success();
    assert_eq!((plain.stdout, plain.stderr), (expected.clone(), String::new()));
    let mut from_stdin = FRANCE.to_vec();
    from_stdin[1] = "-";
    let piped = Ended::with_input(with_base(from_stdin), b"The capital of France is\n").success();
    assert_eq!(piped.stdout, expected);
}

#[test]
fn a_stop_text_ends_the_answer_before_it_and_a_seed_repeats_it() {
    let stopped = Ended::of(with_base(FRANCE.iter().chain(&["--stop", "aris", "--json"]))).success().json();
    assert_eq!(stopped["finish_reason"], "stop");
    assert!(!stopped["text"].as_str().unwrap().contains("aris"), "{stopped}");
    let drawn = ["run", "Once", "--raw", "--temperature", "1.5", "--max-tokens", "8", "--mixture", "none"];
    let with_seed = |seed: &str| {
        Ended::of(with_base(drawn.iter().chain(&["--json", "--seed", seed]))).success().json()["token_ids"]
            .clone()
    };
    assert_eq!(with_seed("7"), with_seed("7"));
    assert_ne!(with_seed("7"), with_seed("8"));
}

#[test]
fn a_reader_that_goes_away_ends_the_program_quietly() {
    let mut child =
        with_base(["run", "Tell a long story.", "--greedy", "--max-tokens", "400"]).spawn().unwrap();
    let mut first = [0];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let ended = Ended::from(child.wait_with_output().unwrap());
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
}

#[test]
fn score_gives_tokens_and_mean_loss_and_a_cap_is_exact() {
    let folder = tempfile::tempdir().unwrap();
    let (text, jsonl) = (folder.path().join("a.txt"), folder.path().join("a.jsonl"));
    let sentence = "Water boils at one hundred degrees. The sun rises in the east and sets in the west. ";
    std::fs::write(&text, sentence.repeat(3)).unwrap();
    std::fs::write(
        &jsonl,
        format!("{{\"text\": \"{sentence}\"}}\n\n{{\"text\": \"{sentence}\", \"id\": 1}}\n"),
    )
    .unwrap();
    let score = |arguments: &[&str]| {
        let arguments = ["score", "--mixture", "none", "--json"].iter().chain(arguments);
        let score = Ended::of(with_base(arguments)).success().json();
        (score["tokens"].as_u64().unwrap(), score["mean_nll"].as_f64().unwrap())
    };
    let (all, loss) = score(&["--text", text.to_str().unwrap()]);
    assert!(all > 40 && loss > 0.2 && loss < 4.0, "{all} {loss}");
    let (windows, longer) = score(&["--text", text.to_str().unwrap(), "--context", "8"]);
    assert!(
        windows < all && longer > loss,
        "short windows predict fewer tokens, and those worse: {windows} {longer}"
    );
    let (capped, _) = score(&["--text", text.to_str().unwrap(), "--context", "8", "--max-tokens", "20"]);
    assert_eq!(capped, 20);
    let (joined, loss) = score(&["--jsonl", jsonl.to_str().unwrap()]);
    assert!(joined > 30 && loss < 5.0, "{joined} {loss}");
}
