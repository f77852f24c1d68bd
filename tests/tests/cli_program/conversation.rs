//! `chat`: history, commands, and Ctrl-C that stops the answer and not the program.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::program::{Ended, binary, signal, with_base};

const CHAT: [&str; 4] = ["chat", "--greedy", "--mixture", "none"];

#[test]
fn history_is_kept_until_it_is_cleared() {
    let input = b"Hi\nHi\n/clear\nHi\n/quit\nnot read\n";
    let ended =
        Ended::with_input(with_base(CHAT.iter().chain(&["--json", "--max-tokens", "4"])), input).success();
    let answers: Vec<Value> = ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let prompt_tokens = |index: usize| answers[index]["prompt_tokens"].as_u64().unwrap();
    assert_eq!(answers.len(), 3);
    assert!(prompt_tokens(1) > prompt_tokens(0));
    assert_eq!(prompt_tokens(2), prompt_tokens(0));
    assert_eq!(answers[2]["text"], answers[0]["text"]);
}

#[test]
fn commands_answer_on_stderr_and_a_failed_turn_ends_nothing() {
    let long = "word ".repeat(9000);
    let input = format!("/help\n/stats\n/packs\n/mixture\n/mixture nobody\n/nothing\n{long}\nHi\n");
    let ended =
        Ended::with_input(with_base(CHAT.iter().chain(&["--max-tokens", "2"])), input.as_bytes()).success();
    for words in [
        "/clear",
        "memory: base",
        "mixture: base 1.00",
        "no pack named `nobody`",
        "no command /nothing",
        "do not fit the context",
    ] {
        assert!(ended.stderr.contains(words), "{words}: {}", ended.stderr);
    }
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "the table of packs, and one answer: {lines:?}");
}

#[test]
fn ctrl_c_stops_the_answer_and_not_the_program() {
    let mut child =
        with_base(CHAT.iter().chain(&["--max-tokens", "2000"])).stdin(Stdio::piped()).spawn().unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    stdin.write_all(b"Write a very long story of a dragon.\n").unwrap();
    let mut first = [0];
    stdout.read_exact(&mut first).unwrap();
    signal(&child, "INT");
    stdin.write_all(b"/stats\n/quit\n").unwrap();
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    let ended = Ended::from(child.wait_with_output().unwrap());
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(rest.ends_with('\n') && rest.len() < 4000, "{rest}");
    assert!(ended.stderr.contains("answer: ") && ended.stderr.contains("memory: "), "{}", ended.stderr);
}

#[test]
fn ctrl_c_ends_run_with_130_and_keeps_what_was_said() {
    let mut child =
        with_base(["run", "Write a very long story of a dragon.", "--greedy", "--max-tokens", "2000"])
            .spawn()
            .unwrap();
    let mut first = [0];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut first).unwrap();
    signal(&child, "INT");
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    let ended = Ended::from(child.wait_with_output().unwrap());
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(130), ""));
    assert!(rest.ends_with('\n') && rest.len() < 4000, "{rest}");
}

/// Plays keys on a pseudo terminal: Ctrl-C in an answer, Ctrl-C on a half-written line, Ctrl-D.
#[test]
fn on_a_terminal_ctrl_c_clears_a_line_and_ctrl_d_leaves() {
    // Fetched before, so that nothing is downloaded on the terminal.
    Ended::of(with_base(["base", "list"])).success();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli_program/keys_on_a_terminal.py");
    let output = Command::new("python3").arg(script).arg(binary()).args(CHAT).output().unwrap();
    let ended = Ended::from(output);
    assert_eq!((ended.code, ended.stdout.trim()), (Some(0), "exit 0"), "{}", ended.stderr);
}
