//! Processes that end in the middle of their writes.

use std::env;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use modularbase_context::{BlockId, Session, Sessions};
use tempfile::tempdir;

use crate::support::{Random, check_all, read, small_options};

const CHILD: &str = "MODULARBASE_TEST_WRITES_SESSION";
/// The child writes blocks that take the disk milliseconds, so that it is killed within a write.
const LARGE: &str = "MODULARBASE_TEST_WRITES_LARGE_BLOCKS";

fn open(root: &Path) -> Session {
    Sessions::new(root).open("text", "base", &small_options(), &[]).unwrap()
}

/// What a turn's parts are, so that a turn of one time with parts of another is seen.
fn hot(tokens: &[u32]) -> Vec<u8> {
    tokens.iter().rev().take(5000).flat_map(|token| token.to_le_bytes()).collect()
}

/// Reads, cuts and saves for ever. Says the number of each turn that it saved.
fn write_until_killed(root: &Path, large: bool) -> ! {
    let session = open(root);
    let store = session.store();
    let mut random = Random(std::process::id().into());
    let mut saved = 0;
    loop {
        if random.next().is_multiple_of(5) {
            store.truncate(random.next() as usize % (store.tokens().len() + 1));
        }
        let tokens: Vec<u32> = (0..random.next() % 60).map(|_| random.next() as u32 % 3).collect();
        read(store, &tokens);
        if random.next().is_multiple_of(3) {
            let tokens = store.tokens();
            saved += 1;
            let parts = [("hot", &*hot(&tokens))];
            session.save(&saved.to_string(), &parts, random.next().is_multiple_of(2)).unwrap();
            println!("saved {saved}");
            for index in (0..tokens.len() as u32 / 4).filter(|_| large) {
                store.append_bytes(BlockId { stream: "large", layer: 0, index }, &vec![1; 8 << 20]).unwrap();
            }
        }
    }
}

/// Processes that are killed.
const ROUNDS: usize = 80;

#[test]
fn a_killed_process_leaves_the_last_saved_turn_and_all_its_blocks() {
    if let Some(root) = env::var_os(CHILD).map(PathBuf::from) {
        write_until_killed(&root, env::var_os(LARGE).is_some());
    }
    let root = tempdir().unwrap();
    let test = "killed::a_killed_process_leaves_the_last_saved_turn_and_all_its_blocks";
    let mut random = Random(11);
    // Whether a write is met is a matter of luck; records cut off at every place have a test of their own.
    let (mut turns, mut torn) = (0, 0);
    for round in 1..=ROUNDS {
        let large = round % 2 == 1;
        let mut child = Command::new(env::current_exe().unwrap());
        child.args([test, "--exact", "--nocapture"]).env(CHILD, root.path()).stdout(Stdio::piped());
        if large {
            child.env(LARGE, "");
        }
        let mut child = child.spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        let saved = |line: Result<String, _>| line.ok()?.strip_prefix("saved ")?.parse::<usize>().ok();
        let first = said.by_ref().find_map(saved).expect("the child saves");
        if round % 10 == 0 {
            let error = Sessions::new(root.path()).open("text", "base", &small_options(), &[]).unwrap_err();
            assert!(error.to_string().contains(&format!("in use by process {}", child.id())), "{error}");
        }
        std::thread::sleep(Duration::from_micros(random.next() % if large { 8_000 } else { 30_000 }));
        child.kill().unwrap();
        child.wait().unwrap();
        let told = said.filter_map(saved).last().unwrap_or(first);
        turns += told;

        let mut session = open(root.path());
        let turn = session.take_saved().unwrap();
        // One more may have been saved than it came to tell of.
        let found: usize = turn.note.parse().unwrap();
        assert!((told..=told + 1).contains(&found), "turn {found} of {told}");
        assert_eq!(turn.parts, [("hot".to_owned(), hot(&turn.tokens))]);
        assert_eq!(session.store().tokens(), turn.tokens);
        check_all(session.store());
        assert!(session.notices().iter().all(|notice| notice.contains("cut off")), "{:?}", session.notices());
        torn += session.notices().len();
        drop(session);
        assert_eq!(Sessions::new(root.path()).show("text", true).unwrap().damage, [] as [String; 0]);
    }
    println!("{ROUNDS} processes killed after {turns} saved turns; {torn} torn records were cut off");
    assert!(turns > ROUNDS, "the processes did next to nothing before they were killed");
}
