//! A running host and its operators: `chat` in one process, `packs` and `top` in others.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use fixture_packs::lay_out;
use serde_json::{Value, json};

use crate::place::Place;
use crate::program::{Ended, binary, signal};

#[test]
fn the_host_tells_what_it_has_and_its_socket_is_its_users_alone() {
    let place = Place::new();
    lay_out("scaled", &place.packs());
    let chat = place.chat(&["--mixture", "none"]);
    let socket = place.folder().join("modularbase").join(&place.sockets()[0]);
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    place.has_state("scaled", "registered");
    let pack = &place.list()[0];
    for field in ["name", "id", "version", "kind", "generation", "state", "reason", "path", "file_bytes"] {
        assert!(pack.get(field).is_some(), "the field of a list without a host: {field}: {pack}");
    }
    assert_eq!((&pack["leases"], &pack["resident_bytes"]), (&json!(0), &json!(0)));
    let table = place.run(&["packs", "list"]).success().stdout;
    assert!(table.starts_with("NAME ") && table.contains("LEASES"), "{table}");
    let offline = place.run(&["packs", "list", "--offline"]).success().stdout;
    assert!(offline.contains("SIZE") && !offline.contains("LEASES"), "{offline}");
    let shown = place.run(&["packs", "show", "scaled"]).success().stdout;
    for words in ["can be asked for", "signer", "unsigned", "description", "fusion weight"] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    let shown = place.run(&["packs", "show", "scaled", "--json"]).success().json();
    assert_eq!(shown["manifest"]["pack"]["name"], "scaled");
    let unknown = place.run(&["packs", "show", "nobody"]);
    assert_eq!(unknown.code, Some(2));
    assert!(unknown.stderr.contains("there are: scaled"), "{}", unknown.stderr);

    let top = place.run(&["top", "--once"]).success().stdout;
    assert!(top.starts_with("modularbase  ") && top.contains("healthy") && top.contains("scaled"), "{top}");
    assert!(top.contains("█ base "), "{top}");
    let status = place.run(&["top", "--once", "--json"]).success().json();
    assert_eq!(status["pid"], chat.child.id());
    let live = place.run(&["top"]);
    assert_eq!((live.code, live.stdout.as_str()), (Some(2), ""));
    assert!(live.stderr.contains("--once"), "{}", live.stderr);

    assert_eq!(chat.leave(), Some(0));
    assert_eq!(place.sockets(), [] as [&str; 0], "the socket goes with the host");
}

#[test]
fn a_pinned_pack_is_kept_until_it_is_unpinned_also_over_a_restart() {
    let place = Place::new();
    lay_out("side-network", &place.packs());
    let chat = place.chat(&["--mixture", "none"]);
    place.has_state("side-network", "registered");
    place.run(&["packs", "pin", "side-network"]).success();
    place.has_state("side-network", "resident");
    let kept = place.run(&["packs", "evict", "side-network"]);
    assert_eq!((kept.code, kept.stdout.as_str()), (Some(1), ""));
    assert!(kept.stderr.contains("packs unpin side-network"), "{}", kept.stderr);
    chat.leave();

    let _chat = place.chat(&["--mixture", "none"]);
    place.has_state("side-network", "resident");
    assert_eq!(place.list()[0]["keep"], true);
    place.run(&["packs", "priority", "side-network", "7"]).success();
    assert_eq!(place.list()[0]["priority"], 7);
    place.run(&["packs", "unpin", "side-network"]).success();
    let evicted = place.run(&["packs", "evict", "side-network", "--json"]).success().json();
    assert_eq!(evicted["outcome"], "evicted");
    assert!(evicted["bytes"].as_u64().unwrap() > 0, "{evicted}");
    let again = place.run(&["packs", "evict", "side-network"]).success().stdout;
    assert_eq!(again, "`side-network` is not on a device\n");
    place.has_state("side-network", "evicted");
    let unknown = place.run(&["packs", "pin", "nobody"]);
    assert_eq!(unknown.code, Some(2), "{}", unknown.stderr);
}

#[test]
fn a_pack_in_use_is_not_evicted_and_a_removed_one_goes_when_its_answer_ends() {
    let place = Place::new();
    lay_out("scaled", &place.packs());
    let mut chat = place.chat(&["--mixture", "scaled=1", "--max-tokens", "4000"]);
    place.has_state("scaled", "registered");
    chat.say("Tell a very long story.");
    chat.stdout.read_exact(&mut [0]).unwrap();
    place.has_state("scaled", "leased");
    assert_eq!(
        place.run(&["packs", "evict", "scaled"]).success().stdout,
        "`scaled` stays: 1 request uses it\n"
    );
    // The answer ends while the removal waits for it.
    let mut removing = place.command(&["packs", "remove", "scaled"]).spawn().unwrap();
    place.has_state("scaled", "draining");
    assert!(removing.try_wait().unwrap().is_none(), "the removal waits for the request");
    signal(&chat.child, "INT");
    let removed = Ended::from(removing.wait_with_output().unwrap()).success();
    assert_eq!(removed.stdout, "`scaled` was removed, and the host has let go of it\n");
    assert_eq!(place.state("scaled"), "none");
}

#[test]
fn what_is_installed_is_registered_or_refused_and_the_host_says_which() {
    let place = Place::new();
    let source = tempfile::tempdir().unwrap();
    let good = lay_out("scaled", source.path());
    let bad = lay_out("panics", source.path());
    let _chat = place.chat(&["--mixture", "none"]);
    let install = |pack: &Path, more: &[&str]| {
        let arguments = [&["packs", "install", pack.to_str().unwrap()], more].concat();
        place.run(&arguments)
    };
    let installed = install(&good, &[]).success().stdout;
    assert!(installed.starts_with("`scaled` was installed and is registered ("), "{installed}");
    let again = install(&good, &["--json"]).success().json();
    assert_eq!((&again["name"], &again["state"]), (&json!("scaled"), &json!("registered")));

    let refused = install(&bad, &[]);
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(4), ""), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("the host refuses it: ") && refused.stderr.contains("panic"),
        "{}",
        refused.stderr
    );
    let list = place.run(&["packs", "quarantine", "list"]).success().stdout;
    assert!(list.contains("panics") && !list.contains("scaled "), "{list}");
    let again = place.run(&["packs", "quarantine", "clear", "panics"]);
    assert_eq!(again.code, Some(4), "it is tried and refused again: {}", again.stderr);
    let sound = place.run(&["packs", "quarantine", "clear", "scaled"]);
    assert_eq!(sound.code, Some(2));
    assert!(sound.stderr.contains("is not in quarantine"), "{}", sound.stderr);

    for name in ["panics", "scaled"] {
        let removed = place.run(&["packs", "remove", name]).success().stdout;
        assert!(removed.contains("the host has let go of it"), "{removed}");
    }
    assert_eq!(place.list(), [] as [Value; 0]);
}

#[test]
fn events_are_followed_until_the_host_ends() {
    let place = Place::new();
    let chat = place.chat(&["--mixture", "none"]);
    let mut following = place.command(&["packs", "events", "--follow", "--json"]).spawn().unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    lay_out("scaled", &place.packs());
    let mut states = Vec::new();
    let mut last = 0;
    while states.last().is_none_or(|state| state != "registered") {
        let event: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        let sequence = event["sequence"].as_u64().unwrap();
        assert!(sequence > last, "{event}");
        last = sequence;
        if event["pack"] == "scaled" {
            states.push(event["state"].as_str().unwrap().to_owned());
        }
    }
    let kept = place.run(&["packs", "events"]).success().stdout;
    assert!(kept.lines().count() >= states.len() && kept.contains("scaled"), "{kept}");
    let none = place.run(&["packs", "events", "--after", "1000000", "--json"]).success();
    assert_eq!(none.stdout, "");
    chat.leave();
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert!(rest.iter().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{rest:?}");
    let ended = Ended::from(following.wait_with_output().unwrap());
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("has ended"), "{}", ended.stderr);
}

#[test]
fn of_two_hosts_one_must_be_chosen_and_a_killed_one_is_forgotten() {
    let place = Place::new();
    let (first, second) = (place.chat(&["--mixture", "none"]), place.chat(&["--mixture", "none"]));
    let pids = [first.child.id(), second.child.id()].map(|pid| pid.to_string());
    let unclear = place.run(&["packs", "list"]);
    assert_eq!((unclear.code, unclear.stdout.as_str()), (Some(2), ""));
    assert!(pids.iter().all(|pid| unclear.stderr.contains(pid.as_str())), "{}", unclear.stderr);
    let status = place.run(&["top", "--once", "--json", "--host", &pids[1]]).success().json();
    assert_eq!(status["pid"].to_string(), pids[1]);
    drop(first);
    assert_eq!(place.sockets().len(), 2, "one that is killed leaves its socket");
    assert_eq!(place.list(), [] as [Value; 0]);
    assert_eq!(place.sockets().len(), 1);
}

#[test]
fn a_top_that_is_terminated_gives_the_terminal_back() {
    let place = Place::new();
    let _chat = place.chat(&["--mixture", "none"]);
    let notes = tempfile::tempdir().unwrap();
    let note = |name: &str| std::fs::read_to_string(notes.path().join(name)).unwrap_or_default();
    // `script` gives it a terminal; in the background, so that the shell there tells how it ended.
    let inside = format!(
        "cd {}; tty > tty; stty rows 30 cols 100; stty -g > before; {} top --packs-dir {} < /dev/tty & \
         echo $! > pid; wait $!; echo $? > code; stty -g > after",
        notes.path().display(),
        binary().display(),
        place.packs().display()
    );
    let mut terminal = Command::new("script")
        .args(["-qec", &format!("sh -c '{inside}'"), "/dev/null"])
        .env("XDG_RUNTIME_DIR", place.folder())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut shown = Vec::new();
    let mut screen = terminal.stdout.take().unwrap();
    let mut read_until = |words: &[u8]| {
        while !shown.windows(words.len()).any(|window| window == words) {
            let mut more = [0; 4096];
            let length = screen.read(&mut more).unwrap();
            assert!(length > 0, "{}", String::from_utf8_lossy(&shown));
            shown.extend_from_slice(&more[..length]);
        }
    };
    // The alternate screen, with a picture on it.
    read_until(b"\x1b[?1049h");
    read_until(b"modularbase");
    let now = Command::new("stty").args(["-F", note("tty").trim(), "-g"]).output().unwrap();
    assert_ne!(String::from_utf8(now.stdout).unwrap(), note("before"), "it has the terminal");
    let status = Command::new("kill").args(["-s", "TERM", note("pid").trim()]).status().unwrap();
    assert!(status.success());
    read_until(b"\x1b[?1049l");
    drop(terminal.stdin.take());
    terminal.wait().unwrap();
    assert_eq!((note("code").trim(), note("after")), ("143", note("before")));
}
