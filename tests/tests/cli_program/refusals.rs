//! Bad input: a clear error, an exit code that says what kind, nothing on stdout, no panic.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::program::{Ended, base_file, with_base};

/// The program refused: with this code, naming this, saying nothing on stdout.
#[track_caller]
fn assert_refused(ended: &Ended, code: i32, words: &str) {
    assert_eq!(ended.code, Some(code), "{}", ended.stderr);
    assert!(ended.stderr.starts_with("error: ") && ended.stderr.contains(words), "{}", ended.stderr);
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    assert_eq!(ended.stdout, "");
}

#[test]
fn wrong_words_on_the_command_line_are_usage_errors() {
    for (arguments, words) in [
        (&["run", "x", "--budget", "much"][..], "`much` is not a number of bytes"),
        (&["run", "x", "--budget", "-1"], "negative"),
        (&["run", "x", "--mixture", "a=-1"], "must be finite and not negative"),
        (&["run", "x", "--mixture", "nobody"], "no pack named `nobody` is registered"),
        (&["run", "x", "--device", "tpu"], "unknown device `tpu`"),
        (&["run", "x", "--dtype", "int3"], "unknown dtype"),
        (&["run", "x", "--threads", "0"], "0 is not in 1..=4096"),
        (&["run", "x", "--slot", "24..18"], "holds no layer"),
        (&["run", "x", "--slot", "18..99"], "slot"),
        (&["run", "x", "--top-p", "1.5"], "top_p must be above 0"),
        (&["run", "x", "--temperature", "-1"], "temperature"),
        (&["run", "x", "--max-tokens", "0"], "max_tokens must be at least 1"),
        (&["run", "x", "--stop", ""], "--stop text is empty"),
        (&["run", "x", "--greedy", "--temperature", "1"], "cannot be used with"),
        (&["run", "x", "--packs-dir", "/nowhere"], "/nowhere is no folder"),
        (&["run", "x", "--config", "/nowhere.toml"], "/nowhere.toml"),
        (&["run", "x", "--base", "nobody"], "there is no base `nobody`"),
        (&["score"], "--text"),
    ] {
        let ended = Ended::of(with_base(arguments));
        assert!(matches!(ended.code, Some(1 | 2)), "{arguments:?}: {:?} {}", ended.code, ended.stderr);
        assert_refused(&ended, ended.code.unwrap(), words);
    }
}

#[test]
fn prompts_that_are_empty_too_long_or_no_text_are_refused() {
    assert_refused(&Ended::of(with_base(["run", ""])), 2, "the prompt is empty");
    assert_refused(&Ended::with_input(with_base(["run", "-"]), b" \n"), 2, "the prompt is empty");
    assert_refused(
        &Ended::with_input(with_base(["run", "-"]), b"a\xffb"),
        2,
        "stdin is not UTF-8: invalid byte at offset 1",
    );
    let long = Ended::with_input(with_base(["run", "-", "--raw"]), "word ".repeat(9000).as_bytes());
    assert_refused(&long, 2, "do not fit the context of 8192");
    let small = Ended::of(with_base(["run", "x", "--budget", "20MiB"]));
    assert_refused(&small, 1, "of the budget of 20971520 bytes");
}

#[test]
fn files_that_are_no_text_or_no_jsonl_are_refused_with_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let score = |kind: &str, path: &str| Ended::of(with_base(["score", kind, path]));
    assert_refused(
        &score("--text", &file("a.txt", b"abc\xff")),
        2,
        "a.txt is not UTF-8: invalid byte at offset 3",
    );
    assert_refused(&score("--text", &file("b.txt", b"")), 2, "at least 2 tokens");
    assert_refused(&score("--text", "/nowhere.txt"), 2, "can't read /nowhere.txt");
    assert_refused(&score("--text", folder.path().to_str().unwrap()), 2, "can't read");
    assert_refused(
        &score("--jsonl", &file("a.jsonl", b"{\"text\": \"a\"}\n{}\n")),
        2,
        "a.jsonl:2: missing field `text`",
    );
    assert_refused(&score("--jsonl", &file("b.jsonl", b"no\n")), 2, "b.jsonl:1: ");
    assert_refused(&score("--jsonl", &file("c.jsonl.gz", b"no gzip")), 2, "c.jsonl.gz:1: can't read on");
    assert_refused(&score("--jsonl", &file("d.jsonl.zst", b"no zstd")), 2, "d.jsonl.zst:1: can't read on");
}

#[test]
fn base_files_that_are_missing_cut_off_or_something_else_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let whole = std::fs::read(base_file()).unwrap();
    let run = |path: &Path| {
        Ended::of(with_base(["run".as_ref(), "x".as_ref(), "--base".as_ref(), path.as_os_str()]))
    };
    assert_refused(&run(&folder.path().join("none.gguf")), 3, "can't open the base");
    for (name, bytes) in [
        ("empty.gguf", &whole[..0]),
        ("magic.gguf", &whole[..4]),
        ("header.gguf", &whole[..900_000]),
        ("weights.gguf", &whole[..whole.len() - 1]),
        ("other.gguf", &b"a text that is no model"[..]),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        assert_refused(&run(&path), 3, name);
    }
    assert_refused(&run(folder.path()), 3, "config.json");
}

#[test]
fn an_unreadable_folder_of_packs_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let packs = folder.path().join("packs");
    std::fs::create_dir(&packs).unwrap();
    std::fs::set_permissions(&packs, PermissionsExt::from_mode(0o000)).unwrap();
    let ended =
        Ended::of(with_base(["packs".as_ref(), "list".as_ref(), "--packs-dir".as_ref(), packs.as_os_str()]));
    let is_root = std::fs::read_dir(&packs).is_ok();
    std::fs::set_permissions(&packs, PermissionsExt::from_mode(0o755)).unwrap();
    // The superuser may read every folder.
    if is_root {
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    } else {
        assert_refused(&ended, 1, "can't read");
    }
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let ended =
        Ended::of(with_base(["packs".as_ref(), "list".as_ref(), "--packs-dir".as_ref(), file.as_os_str()]));
    assert_refused(&ended, 2, "is no folder");
}
