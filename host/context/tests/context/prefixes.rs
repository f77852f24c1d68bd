//! A text that one session read is another one's beginning.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use modularbase_context::{ContextOptions, Session, Sessions};
use tempfile::tempdir;

use crate::support::{check_all, ids, read, small_options};

const DOCUMENT: [u32; 14] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14];

fn open(sessions: &Sessions, name: &str, prefix: &[u32]) -> Session {
    sessions.open(name, "base", &small_options(), prefix).unwrap()
}

/// A session that read the document and talked about it.
fn reader(sessions: &Sessions) -> Session {
    let session = open(sessions, "reader", &[]);
    read(session.store(), &DOCUMENT);
    session.save("read", &[("hot", &[1, 2, 3])], true).unwrap();
    read(session.store(), &[50; 10]);
    session.save("asked", &[("hot", &[9, 9])], false).unwrap();
    session
}

fn links(folder: &Path, file: &str) -> u64 {
    fs::metadata(folder.join(file)).unwrap().nlink()
}

#[test]
fn a_document_read_once_is_the_beginning_of_others() {
    let root = tempdir().unwrap();
    let sessions = Sessions::new(root.path());
    let first = reader(&sessions);
    let mut second = open(&sessions, "second", &DOCUMENT);
    let turn = second.take_saved().unwrap();
    assert_eq!((turn.tokens.as_slice(), turn.note.as_str()), (DOCUMENT.as_slice(), "read"));
    assert_eq!(turn.parts, [("hot".to_owned(), vec![1, 2, 3])]);
    assert_eq!(second.notices(), [] as [String; 0]);
    check_all(second.store());
    assert_eq!(second.store().stats().file_bytes, 44, "nothing was copied");

    // Both go on, each in its own way.
    read(second.store(), &[60; 20]);
    second.save("other", &[], false).unwrap();
    read(first.store(), &[70; 20]);
    first.save("on", &[], false).unwrap();
    check_all(first.store());
    check_all(second.store());
    drop((first, second));
    for name in ["reader", "second"] {
        let session = open(&sessions, name, &[]);
        assert_eq!(session.notices(), [] as [String; 0]);
        check_all(session.store());
    }
}

#[test]
fn shared_blocks_are_counted_once_and_go_with_the_last_session_that_has_them() {
    let root = tempdir().unwrap();
    let sessions = Sessions::new(root.path());
    drop(reader(&sessions));
    let alone = sessions.collect(u64::MAX).unwrap().used_bytes;
    drop(open(&sessions, "second", &DOCUMENT));
    let both = sessions.collect(u64::MAX).unwrap().used_bytes;
    // A lock and a file without blocks.
    assert!(both <= alone + 3 * 4096, "{both} {alone}");
    let second = root.path().join("second");
    assert_eq!(links(&second, "shared-0.mbkv"), 2);
    assert_eq!(links(&second, "turn.mbturn"), 2);
    let listed = sessions.list().unwrap();
    assert!(listed.iter().all(|session| session.shared_bytes > 0));

    sessions.remove("reader").unwrap();
    assert_eq!(links(&second, "shared-0.mbkv"), 1);
    let session = open(&sessions, "second", &[]);
    assert_eq!(session.store().tokens(), DOCUMENT);
    check_all(session.store());
    drop(session);
    sessions.remove("second").unwrap();
    assert_eq!(sessions.collect(u64::MAX).unwrap().used_bytes, 0);
}

#[test]
fn of_a_text_with_another_end_the_common_blocks_are_there() {
    let root = tempdir().unwrap();
    let sessions = Sessions::new(root.path());
    drop(reader(&sessions));
    let mut other = DOCUMENT;
    other[9] = 99;
    let mut session = open(&sessions, "other", &other);
    assert_eq!((session.take_saved(), session.store().tokens()), (None, Vec::new()));
    session.store().extend(&other);
    // Tokens 0 to 7 are the same.
    assert_eq!(session.store().whole_blocks("understanding", 2), 2);
    assert_eq!(session.store().stats().blocks, ids(8).count());
    session.store().truncate(0);
    drop(session);

    let session = open(&sessions, "unrelated", &[40; 14]);
    session.store().extend(&[40; 14]);
    assert_eq!(session.store().stats().blocks, 0);
    assert_eq!(
        fs::read_dir(root.path().join("unrelated")).unwrap().count(),
        2,
        "a lock and a file of its own"
    );
}

#[test]
fn what_another_base_or_other_options_made_is_never_taken_over() {
    let root = tempdir().unwrap();
    let sessions = Sessions::new(root.path());
    drop(reader(&sessions));
    let other = ContextOptions { retrieved_blocks: 3, ..small_options() };
    for (name, base, options) in [("one", "other base", small_options()), ("two", "base", other)] {
        let mut session = sessions.open(name, base, &options, &DOCUMENT).unwrap();
        assert_eq!(session.take_saved(), None);
        session.store().extend(&DOCUMENT);
        assert_eq!(session.store().stats().blocks, 0);
    }
}

#[test]
fn a_reader_that_lost_the_end_of_its_file_takes_nothing_from_others() {
    let root = tempdir().unwrap();
    let sessions = Sessions::new(root.path());
    drop(reader(&sessions));
    drop(open(&sessions, "second", &DOCUMENT));
    // A record that was begun when the machine stopped: behind it the reader may write, but not in the common
    // file.
    let common = root.path().join("reader/cold.mbkv");
    let mut bytes = fs::read(&common).unwrap();
    bytes.extend_from_slice(b"MBRC, and then the power failed");
    fs::write(&common, &bytes).unwrap();
    let session = open(&sessions, "reader", &[]);
    assert!(session.notices()[0].contains("cut off"), "{:?}", session.notices());
    check_all(session.store());
    read(session.store(), &[80; 8]);
    session.save("", &[], false).unwrap();
    assert_eq!(fs::read(root.path().join("reader/shared-0.mbkv")).unwrap(), bytes);
    drop(session);
    check_all(open(&sessions, "reader", &[]).store());
    check_all(open(&sessions, "second", &[]).store());
}
