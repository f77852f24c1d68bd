//! `--session` and `--context-file`: conversations that outlive the process, on the small base.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use system_tests::small_base;
use tempfile::TempDir;

use crate::program::{Ended, modularbase};

/// A configuration, a document, and folders for sessions and packs.
struct Desk {
    folder: TempDir,
}

impl Desk {
    fn new() -> Self {
        let desk = Self { folder: tempfile::tempdir().unwrap() };
        desk.hot_tokens(128);
        let text: String = (0..120)
            .map(|n| {
                format!(
                    "In year {n} the harbour took in {} ships, and the king was told of it. ",
                    n * 37 % 101
                )
            })
            .collect();
        std::fs::write(desk.path("book.txt"), text).unwrap();
        std::fs::create_dir(desk.path("packs")).unwrap();
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn hot_tokens(&self, tokens: u32) {
        let text = format!(
            "schema_version = 1\n[context]\nhot_tokens = {tokens}\nblock_tokens = 32\nsinks = 32\nretrieved_blocks = 2\n"
        );
        std::fs::write(self.path("config.toml"), text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = modularbase(arguments);
        command.arg("--base").arg(small_base()).arg("--config").arg(self.path("config.toml"));
        command.arg("--packs-dir").arg(self.path("packs"));
        command.env("MODULARBASE_SESSIONS_DIR", self.path("sessions"));
        command.env("MODULARBASE_CACHE", self.path("cache"));
        command.env("XDG_RUNTIME_DIR", self.folder.path());
        command
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        let fixed = ["run", "--greedy", "--max-tokens", "12", "--mixture", "none", "--json"];
        Ended::of(self.command(&[&fixed, arguments].concat()))
    }

    /// The answer and what was said beside it.
    #[track_caller]
    fn answer(&self, arguments: &[&str]) -> (Value, String) {
        let ended = self.run(arguments).success();
        (ended.json(), ended.stderr)
    }

    fn book(&self) -> String {
        self.path("book.txt").to_str().unwrap().to_owned()
    }

    fn copy_session(&self, from: &str, to: &str) {
        let status = Command::new("cp")
            .arg("-r")
            .args([self.path("sessions").join(from), self.path("sessions").join(to)])
            .status();
        assert!(status.unwrap().success());
    }
}

fn tokens(answer: &Value, what: &str) -> u64 {
    answer[what].as_u64().unwrap()
}

/// What is done to a file.
type Damage<'a> = &'a dyn Fn(&Path);

/// Flips bits of every so many bytes of a file, from its middle on.
fn flip(path: &Path, every: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..].iter_mut().step_by(every).for_each(|byte| *byte ^= 0x55);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_conversation_goes_on_in_another_process_as_in_the_same_one_without_being_read_again() {
    let desk = Desk::new();
    let chat = ["chat", "--greedy", "--max-tokens", "12", "--mixture", "none", "--json"];
    let book = desk.book();
    let said = |name: &str, input: &str| {
        let mut arguments: Vec<&str> = chat.to_vec();
        arguments.extend(["--session", name, "--context-file", &book]);
        let ended = Ended::with_input(desk.command(&arguments), input.as_bytes()).success();
        let answers: Vec<Value> =
            ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (answers, ended.stderr)
    };
    let (one, _) = said("one", "How many ships?\nAnd the king?\n");
    let (first, read) = said("two", "How many ships?\n");
    assert!(read.contains("tokens that were read before"), "{read}");
    let (second, opened) = said("two", "And the king?\n");
    assert!(opened.contains("session `two` goes on: 2 messages"), "{opened}");
    assert!(opened.contains("> How many ships?"), "{opened}");
    for (found, expected) in first.iter().chain(&second).zip(&one) {
        assert_eq!(found["token_ids"], expected["token_ids"]);
        assert_eq!(found["reused_tokens"], expected["reused_tokens"]);
    }
    let (all, known) = (tokens(&second[0], "prompt_tokens"), tokens(&second[0], "reused_tokens"));
    assert!(known > 2_000 && all - known < 30, "{known} of {all} were known");
    assert!(second[0]["context"]["cold_tokens"].as_u64().unwrap() > 1_500);

    let shown = Ended::of(desk.command(&["sessions", "show", "two"])).success().stdout;
    assert!(shown.contains("book.txt") && shown.contains("messages  4"), "{shown}");
}

#[test]
fn a_document_is_read_once_for_all_conversations() {
    let desk = Desk::new();
    let (first, read) = desk.answer(&["--context-file", &desk.book(), "Who was told?"]);
    assert!(read.contains("of them read in"), "{read}");
    let (second, read) = desk.answer(&["--context-file", &desk.book(), "Who was told?"]);
    assert!(read.contains("tokens that were read before"), "{read}");
    assert_eq!(second["token_ids"], first["token_ids"]);
    let (third, read) = desk.answer(&["--session", "own", "--context-file", &desk.book(), "Who was told?"]);
    assert!(read.contains("tokens that were read before"), "{read}");
    assert_eq!(third["token_ids"], first["token_ids"]);
    let listed = Ended::of(desk.command(&["sessions", "list", "--json"])).success().json();
    let own = listed.as_array().unwrap().iter().find(|session| session["name"] == "own").unwrap();
    let shared = |session: &Value| session["shared_bytes"].as_u64().unwrap();
    assert!(shared(own) * 10 > own["bytes"].as_u64().unwrap() * 7, "{own}");
}

#[test]
fn a_conversation_that_was_killed_in_a_turn_goes_on_from_the_last_saved_one() {
    let desk = Desk::new();
    desk.answer(&["--session", "talk", "--context-file", &desk.book(), "How many ships?"]);
    desk.copy_session("talk", "untouched");
    let mut command =
        desk.command(&["chat", "--greedy", "--mixture", "none", "--session", "talk", "--max-tokens", "4000"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(b"Go on at length\n").unwrap();
    // It is in the midst of its answer.
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 64]).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let (found, said) = desk.answer(&["--session", "talk", "And the king?"]);
    assert!(said.contains("session `talk` goes on: 2 messages"), "{said}");
    assert!(tokens(&found, "prompt_tokens") - tokens(&found, "reused_tokens") < 30, "{found}");
    // The copy does not call itself `untouched`, so its messages are given anew.
    std::fs::remove_dir_all(desk.path("sessions/talk")).unwrap();
    std::fs::rename(desk.path("sessions/untouched"), desk.path("sessions/talk")).unwrap();
    let (expected, _) = desk.answer(&["--session", "talk", "And the king?"]);
    assert_eq!(found["token_ids"], expected["token_ids"]);
}

#[test]
fn what_is_damaged_or_deleted_is_said_and_read_again() {
    let desk = Desk::new();
    desk.answer(&["--session", "talk", "--context-file", &desk.book(), "How many ships?"]);
    desk.copy_session("talk", "kept");
    let restore = || {
        std::fs::remove_dir_all(desk.path("sessions/talk")).unwrap();
        desk.copy_session("kept", "talk");
    };
    let (whole, _) = desk.answer(&["--session", "talk", "And the king?"]);
    let damages: [(&str, Damage<'_>); 4] = [
        ("cold.mbkv", &|path| flip(path, usize::MAX)),
        ("cold.mbkv", &|path| flip(path, 3000)),
        ("cold.mbkv", &|path| std::fs::remove_file(path).unwrap()),
        ("turn.mbturn", &|path| flip(path, usize::MAX)),
    ];
    for (number, (name, damage)) in damages.iter().enumerate() {
        restore();
        damage(&desk.path("sessions/talk").join(name));
        let (found, said) = desk.answer(&["--session", "talk", "And the king?"]);
        // One byte may be one that nobody asks for: then the answer is what it would have been.
        let unnoticed = number == 0 && found["token_ids"] == whole["token_ids"];
        assert!(unnoticed || said.contains("note: ") && said.contains("again"), "{number}: {said}");
        assert_eq!(found["prompt_tokens"], whole["prompt_tokens"]);
        // What was read again is kept as well as before.
        let (next, said) = desk.answer(&["--session", "talk", "Who was told?"]);
        assert!(unnoticed || !said.contains("note: "), "{number}: {said}");
        assert!(tokens(&next, "prompt_tokens") - tokens(&next, "reused_tokens") < 30, "{number}: {next}");
    }
    restore();
    // The head of the saved turn has the text itself.
    let turn = desk.path("sessions/talk/turn.mbturn");
    let mut bytes = std::fs::read(&turn).unwrap();
    bytes[40] ^= 0x55;
    std::fs::write(&turn, bytes).unwrap();
    let refused = desk.run(&["--session", "talk", "And the king?"]);
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(1), ""), "{}", refused.stderr);
    assert!(refused.stderr.contains("turn.mbturn"), "{}", refused.stderr);
}

#[test]
fn a_session_in_use_and_one_of_other_options_are_refused_with_words() {
    let desk = Desk::new();
    desk.answer(&["--session", "talk", "How many ships?"]);
    let mut command = desk.command(&["chat", "--mixture", "none", "--session", "talk"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    // Its first line of stderr comes when the session is open.
    child.stderr.as_mut().unwrap().read_exact(&mut [0; 8]).unwrap();
    let refused = desk.run(&["--session", "talk", "Hi"]);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains(&format!("in use by process {}", child.id())), "{}", refused.stderr);
    child.kill().unwrap();
    child.wait().unwrap();
    desk.answer(&["--session", "talk", "Hi"]);
    let refused = desk.run(&["--session", "talk", "--context-file", &desk.book(), "Hi"]);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("another text than --context-file"), "{}", refused.stderr);
    desk.hot_tokens(160);
    let refused = desk.run(&["--session", "talk", "Hi"]);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("was made with 128 hot tokens"), "{}", refused.stderr);
}

#[test]
fn on_a_full_disk_the_answer_still_comes_and_the_last_saved_turn_stays() {
    let desk = Desk::new();
    desk.answer(&["--session", "talk", "How many ships?"]);
    let full = desk.command(&[
        "run",
        "--greedy",
        "--max-tokens",
        "12",
        "--mixture",
        "none",
        "--json",
        "--session",
        "talk",
        "And the king?",
    ]);
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 16; exec \"$0\" \"$@\""]);
    limited.arg(full.get_program()).args(full.get_args());
    for (name, value) in full.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    let ended = Ended::of(limited).success();
    assert!(ended.stderr.contains("the conversation is not kept: can't write"), "{}", ended.stderr);
    let (_, said) = desk.answer(&["--session", "talk", "And the king?"]);
    assert!(said.contains("session `talk` goes on: 2 messages"), "{said}");
}
