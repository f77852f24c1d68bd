//! `sessions list|show|rm|gc`, on sessions that this test makes.

use std::path::Path;
use std::process::Command;

use modularbase_context::{
    BlockId, BlockSummary, ContextOptions, KvBits, KvShape, Session, Sessions, encode_block,
};

use crate::program::{Ended, modularbase};

const SHAPE: KvShape = KvShape { kv_heads: 1, head_dim: 64, block_tokens: 64 };

/// A session of a text of so many blocks, saved.
fn session(root: &Path, name: &str, blocks: u32) -> Session {
    let session = Sessions::new(root).open(name, "base", &ContextOptions::default(), &[]).unwrap();
    session.store().extend(&vec![blocks; 64 * blocks as usize]);
    let keys = vec![0x3c00; SHAPE.elements()];
    for index in 0..blocks {
        let id = BlockId { stream: "understanding", layer: 0, index };
        let encoded = encode_block(KvBits::B8, SHAPE, &keys, &keys);
        session.store().append(id, KvBits::B8, SHAPE, &encoded, &BlockSummary::of(SHAPE, &keys)).unwrap();
    }
    session.save("", &[("hot", &[7; 5000])], false).unwrap();
    session
}

fn sessions(root: &Path, arguments: &[&str]) -> Command {
    let mut command = modularbase(["sessions"].iter().chain(arguments));
    command.env("MODULARBASE_SESSIONS_DIR", root);
    command
}

#[test]
fn sessions_are_listed_shown_removed_and_collected() {
    let root = tempfile::tempdir().unwrap();
    let none = Ended::of(sessions(root.path(), &["list"])).success();
    assert!(none.stdout.is_empty() && none.stderr.contains("no sessions"), "{none:?}");
    drop(session(root.path(), "book", 12));
    let open = session(root.path(), "talk", 3);

    let listed = Ended::of(sessions(root.path(), &["list"])).success().stdout;
    let lines: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["NAME", "TOKENS", "DISK", "SHARED", "SAVED", "STATE"]);
    assert_eq!((lines[1][0], lines[1][1], *lines[1].last().unwrap()), ("book", "768", "ready"));
    assert!(listed.contains(&format!("in use by process {}", std::process::id())), "{listed}");
    let json = Ended::of(sessions(root.path(), &["list", "--json"])).success().json();
    assert_eq!((json[1]["name"].as_str(), json[1]["tokens"].as_u64()), (Some("talk"), Some(192)));
    assert_eq!(json[0]["state"], "ready");
    assert_eq!(json[1]["state"]["in_use"], std::process::id().to_string());

    let shown = Ended::of(sessions(root.path(), &["show", "book", "--verify"])).success().stdout;
    assert!(shown.contains("every byte is as it was written") && shown.contains("understanding"), "{shown}");
    let json = Ended::of(sessions(root.path(), &["show", "book", "--json"])).success().json();
    assert_eq!(
        (json["hot_bytes"].as_u64(), json["streams"][0]["whole_blocks"].as_u64()),
        (Some(5000), Some(12))
    );

    let collected = Ended::of(sessions(root.path(), &["gc", "--limit", "0", "--json"])).success().json();
    assert_eq!(collected["given_up"], serde_json::json!(["book"]));
    let listed = Ended::of(sessions(root.path(), &["list"])).success().stdout;
    assert!(listed.lines().nth(1).unwrap().contains("text only"), "{listed}");

    let refused = Ended::of(sessions(root.path(), &["rm", "talk"]));
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("in use by process"), "{}", refused.stderr);
    drop(open);
    let removed = Ended::of(sessions(root.path(), &["rm", "book", "talk"])).success();
    assert_eq!(removed.stdout.lines().count(), 2);
    let refused = Ended::of(sessions(root.path(), &["show", "book"]));
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("no session `book`"), "{}", refused.stderr);
    assert_eq!(Ended::of(sessions(root.path(), &["list", "--json"])).success().json(), serde_json::json!([]));
}

#[test]
fn a_flipped_byte_is_found_by_a_look_at_every_byte() {
    let root = tempfile::tempdir().unwrap();
    drop(session(root.path(), "book", 2));
    let path = root.path().join("book/cold.mbkv");
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let shown = Ended::of(sessions(root.path(), &["show", "book", "--verify"])).success().stdout;
    assert!(shown.contains("damage") && shown.contains("checksum"), "{shown}");
}
