//! The disk budget of all sessions.

use std::fs;

use modularbase_context::{BlockId, BlockSummary, encode_block};
use modularbase_context::{ContextError, ContextOptions, KvBits, KvShape, Session, SessionState, Sessions};
use tempfile::tempdir;

use crate::support::{block, check_all, read, small_options};

/// Larger blocks, so that budgets are about them: 98 kB each.
const LARGE: KvShape = KvShape { kv_heads: 3, head_dim: 64, block_tokens: 128 };

fn options(disk_bytes: u64) -> ContextOptions {
    ContextOptions { block_tokens: 128, disk_bytes, ..ContextOptions::default() }
}

fn append(session: &Session, index: u32) -> Result<(), ContextError> {
    let (keys, values) = block(LARGE, index.into());
    let encoded = encode_block(KvBits::B16, LARGE, &keys, &values);
    let id = BlockId { stream: "understanding", layer: 0, index };
    session.store().append(id, KvBits::B16, LARGE, &encoded, &BlockSummary::of(LARGE, &keys))
}

fn session_of(sessions: &Sessions, name: &str, token: u32, blocks: u32, disk_bytes: u64) -> Session {
    let session = sessions.open(name, "base", &options(disk_bytes), &[]).unwrap();
    session.store().extend(&vec![token; 128 * blocks as usize]);
    for index in 0..blocks {
        append(&session, index).unwrap();
    }
    session.save(name, &[("hot", &[1; 1000])], false).unwrap();
    session
}

#[test]
fn the_budget_takes_the_kv_of_the_oldest_sessions_and_never_a_text() {
    let root = tempdir().unwrap();
    let sessions = Sessions::new(root.path());
    for (token, name) in ["first", "second", "third"].into_iter().enumerate() {
        drop(session_of(&sessions, name, token as u32, 10, u64::MAX));
        // Ages are told in seconds.
        std::thread::sleep(std::time::Duration::from_millis(1100));
    }
    let open = session_of(&sessions, "open", 9, 10, u64::MAX);
    let all = sessions.collect(u64::MAX).unwrap();
    assert_eq!((all.given_up.len(), all.before_bytes), (0, all.used_bytes));
    let collected = sessions.collect(all.used_bytes - 1_000_000).unwrap();
    assert_eq!(collected.given_up, ["first", "second"].map(str::to_owned)[..collected.given_up.len()]);
    assert!(collected.used_bytes <= all.used_bytes - 1_000_000);
    // In use: only what nobody has can go.
    let collected = sessions.collect(0).unwrap();
    assert!(
        collected.given_up.contains(&"third".to_owned()) && !collected.given_up.contains(&"open".to_owned())
    );
    assert!(collected.used_bytes > 900_000);
    append(&open, 0).unwrap();
    assert_eq!(open.store().whole_blocks("understanding", 1), 10);

    let mut first = sessions.open("first", "base", &options(u64::MAX), &[]).unwrap();
    let turn = first.take_saved().unwrap();
    assert_eq!((turn.tokens, turn.note.as_str(), turn.parts), (vec![0; 1280], "first", Vec::new()));
    assert_eq!(first.store().stats().blocks, 0);
    assert!(first.notices()[0].contains("given up"), "{:?}", first.notices());
    drop(first);
    let states: Vec<_> = sessions.list().unwrap().into_iter().map(|session| session.state).collect();
    assert_eq!(states[0], SessionState::TextOnly);
}

#[test]
fn a_session_that_grows_takes_room_from_idle_ones_and_then_is_refused() {
    let root = tempdir().unwrap();
    let sessions = Sessions::new(root.path());
    drop(session_of(&sessions, "idle", 1, 10, u64::MAX));
    let session = sessions.open("busy", "base", &options(1_500_000), &[]).unwrap();
    session.store().extend(&[2; 128 * 40]);
    let kept = (0..40).take_while(|&index| match append(&session, index) {
        Ok(()) => true,
        Err(ContextError::OverBudget { limit: 1_500_000, .. }) => false,
        Err(other) => panic!("{other}"),
    });
    let kept = kept.count();
    assert!((12..16).contains(&kept), "{kept} blocks of 99 kB");
    assert_eq!(session.store().whole_blocks("understanding", 1), kept as u32);
    session.save("", &[], false).unwrap();
    assert_eq!(sessions.settings("idle").unwrap().unwrap().base, "base");
    assert_eq!(sessions.list().unwrap()[1].state, SessionState::TextOnly);
    assert!(sessions.collect(u64::MAX).unwrap().used_bytes < 1_600_000);
}

#[test]
fn blocks_that_no_text_asks_for_are_won_back() {
    let root = tempdir().unwrap();
    let sessions = Sessions::new(root.path());
    let session = session_of(&sessions, "text", 1, 20, u64::MAX);
    session.store().truncate(128 * 5);
    session.save("cut", &[], false).unwrap();
    drop(session);
    let collected = sessions.collect(u64::MAX).unwrap();
    assert_eq!((collected.compacted, collected.given_up), (vec!["text".to_owned()], Vec::new()));
    assert!(collected.used_bytes < collected.before_bytes - 14 * 99_000);
    assert_eq!(sessions.collect(u64::MAX).unwrap().compacted, [] as [String; 0]);
    let session = sessions.open("text", "base", &options(u64::MAX), &[]).unwrap();
    assert_eq!(session.notices(), [] as [String; 0]);
    for index in 0..5 {
        let (keys, _) = block(LARGE, index);
        let id = BlockId { stream: "understanding", layer: 0, index: index as u32 };
        assert_eq!(*session.store().block(id).unwrap().keys, keys);
    }
}

#[test]
fn what_was_shared_is_won_back_when_its_first_session_is_gone() {
    let root = tempdir().unwrap();
    let sessions = Sessions::new(root.path());
    let first = session_of(&sessions, "first", 1, 4, u64::MAX);
    drop(sessions.open("second", "base", &options(u64::MAX), &[1; 128 * 4]).unwrap());
    // The first one writes much more into the common file.
    first.store().extend(&[1; 128 * 30]);
    for index in 4..34 {
        append(&first, index).unwrap();
    }
    first.save("", &[], false).unwrap();
    drop(first);
    assert_eq!(sessions.collect(u64::MAX).unwrap().compacted, [] as [String; 0], "both have it");
    sessions.remove("first").unwrap();
    let collected = sessions.collect(u64::MAX).unwrap();
    assert_eq!(collected.compacted, ["second"]);
    assert!(collected.used_bytes < 600_000, "{}", collected.used_bytes);
    let second = sessions.open("second", "base", &options(u64::MAX), &[]).unwrap();
    assert_eq!(second.store().whole_blocks("understanding", 1), 4);
}

#[test]
fn what_ended_processes_left_unfinished_goes() {
    let root = tempdir().unwrap();
    let sessions = Sessions::new(root.path());
    let session = sessions.open("text", "base", &small_options(), &[]).unwrap();
    read(session.store(), &[1; 8]);
    session.save("", &[], false).unwrap();
    drop(session);
    fs::write(root.path().join("text/.new-turn"), b"half a turn").unwrap();
    fs::create_dir(root.path().join(".removed-old")).unwrap();
    fs::write(root.path().join(".removed-old/cold.mbkv"), b"x").unwrap();
    let gone = sessions.open("old", "base", &small_options(), &[]).unwrap();
    drop(gone);
    sessions.remove("old").unwrap();
    fs::create_dir(root.path().join(".removed-old")).unwrap();
    // A session that never saved a turn, in the middle of its first.
    let unsaved = sessions.open("unsaved", "base", &small_options(), &[]).unwrap();
    read(unsaved.store(), &[1; 40]);
    drop(unsaved);
    sessions.collect(u64::MAX).unwrap();
    assert!(!root.path().join("text/.new-turn").exists() && !root.path().join(".removed-old").exists());
    assert!(root.path().join("unsaved").exists());
    assert_eq!(sessions.collect(0).unwrap().given_up, ["unsaved", "text"]);
    assert!(!root.path().join("unsaved").exists());
    let session = sessions.open("text", "base", &small_options(), &[]).unwrap();
    assert_eq!(session.store().tokens(), [1; 8]);
    session.store().truncate(0);
    read(session.store(), &[1; 8]);
    check_all(session.store());
}
