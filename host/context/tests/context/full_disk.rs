//! A disk that takes no more.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use modularbase_context::{
    BlockId, BlockSummary, ContextError, KvBits, KvShape, Session, Sessions, encode_block,
};
use modularbase_context::{ContextOptions, DecodedBlock};
use tempfile::tempdir;

use crate::support::block;

const CHILD: &str = "MODULARBASE_TEST_LIMITED_FILES";
/// 25 kB a block.
const SHAPE: KvShape = KvShape { kv_heads: 3, head_dim: 64, block_tokens: 32 };

fn id(index: u32) -> BlockId<'static> {
    BlockId { stream: "understanding", layer: 0, index }
}

fn open(root: &Path) -> Session {
    let options = ContextOptions { block_tokens: 32, ram_bytes: 0, ..ContextOptions::default() };
    Sessions::new(root).open("text", "base", &options, &[]).unwrap()
}

fn append(session: &Session, index: u32) -> Result<(), ContextError> {
    session.store().extend(&[index; 32]);
    let (keys, values) = block(SHAPE, index.into());
    let encoded = encode_block(KvBits::B16, SHAPE, &keys, &values);
    let appended =
        session.store().append(id(index), KvBits::B16, SHAPE, &encoded, &BlockSummary::of(SHAPE, &keys));
    if appended.is_err() {
        session.store().truncate(index as usize * 32);
    }
    appended
}

fn check(session: &Session, blocks: u32) {
    assert_eq!(session.store().whole_blocks("understanding", 1), blocks);
    for index in 0..blocks {
        let (keys, values) = block(SHAPE, index.into());
        assert_eq!(*session.store().block(id(index)).unwrap(), DecodedBlock::of(&keys, &values));
    }
}

/// Saves a turn of two blocks, then appends until the disk is full; how many blocks were taken.
fn fill(session: &Session) -> u32 {
    append(session, 0).unwrap();
    append(session, 1).unwrap();
    session.save("before", &[("hot", b"hot")], false).unwrap();
    let mut taken = 2;
    let error = loop {
        // Written at once, so that it is known which block the disk did not take.
        match append(session, taken).and_then(|()| session.store().flush()) {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
        assert!(taken < 1000, "no end of the disk");
    };
    assert!(matches!(error, ContextError::Write { .. }), "{error}");
    assert!(error.to_string().contains("cold.mbkv"), "{error}");
    // The block that is not written is kept in memory as long as the session is open.
    let kept = session.store().whole_blocks("understanding", 1);
    assert_eq!(kept, taken + 1);
    check(session, kept);
    // More is refused, and a turn too, which must not tell of blocks that aren't there.
    assert!(matches!(append(session, kept), Err(ContextError::Write { .. })));
    assert!(matches!(session.save("full", &[], false), Err(ContextError::Write { .. })));
    check(session, kept);
    taken
}

fn check_reopened(root: &Path, taken: u32) {
    let mut session = open(root);
    let turn = session.take_saved().unwrap();
    assert_eq!((turn.tokens.len(), turn.note.as_str()), (64, "before"));
    check(&session, 2);
    // What was written after the turn is there when the text is.
    (2..taken).for_each(|index| session.store().extend(&[index; 32]));
    check(&session, taken);
}

#[test]
fn a_full_disk_is_said_and_the_session_goes_on_as_far_as_it_was() {
    let test = "full_disk::a_full_disk_is_said_and_the_session_goes_on_as_far_as_it_was";
    if let Some(root) = env::var_os(CHILD).map(PathBuf::from) {
        let session = open(&root);
        let taken = fill(&session);
        drop(session);
        check_reopened(&root, taken);
        return;
    }
    // For everybody: no file of this process may grow beyond 400 blocks, of 512 or 1024 bytes.
    let root = tempdir().unwrap();
    let script = format!("trap '' XFSZ; ulimit -f 400; exec \"$0\" {test} --exact --nocapture");
    let mut limited = Command::new("sh");
    limited.arg("-c").arg(script).arg(env::current_exe().unwrap()).env(CHILD, root.path());
    let output = limited.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");

    // Where file systems may be mounted: a disk that is really full, and has room again.
    let disk = tempdir().unwrap();
    let on_disk = |words: &[&str]| {
        Command::new(words[0])
            .args(&words[1..])
            .arg(disk.path())
            .output()
            .is_ok_and(|out| out.status.success())
    };
    if !on_disk(&["mount", "-t", "tmpfs", "-o", "size=1m", "none"]) {
        println!("no file system may be mounted here: tried with a limit on files only");
        return;
    }
    let result = std::panic::catch_unwind(|| {
        let filler = disk.path().join("filler");
        fs::write(&filler, vec![1; 500_000]).unwrap();
        let session = open(disk.path());
        let taken = fill(&session);
        fs::remove_file(&filler).unwrap();
        append(&session, taken + 1).unwrap();
        session.save("room again", &[], false).unwrap();
        check(&session, taken + 2);
        drop(session);
        let mut session = open(disk.path());
        assert_eq!(session.take_saved().unwrap().note, "room again");
        check(&session, taken + 2);
        drop(session);

        fs::write(&filler, vec![1; 400_000]).unwrap();
        Sessions::new(disk.path()).remove("text").unwrap();
        let session = open(disk.path());
        let taken = fill(&session);
        drop(session);
        check_reopened(disk.path(), taken);
    });
    assert!(on_disk(&["umount"]));
    result.unwrap();
}
