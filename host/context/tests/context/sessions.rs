//! Sessions that end and go on.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use modularbase_context::{ContextError, ContextOptions, KvBits, SavedTurn, SessionState, Sessions};
use tempfile::tempdir;

use crate::support::{check_all, read, small_options};

#[test]
fn a_session_goes_on_where_its_last_turn_ended() {
    let root = tempdir().unwrap();
    let sessions = Sessions::new(root.path());
    let hot: Vec<u8> = (0..=255).collect();
    {
        let mut session = sessions.open("book", "base", &small_options(), &[]).unwrap();
        assert_eq!(session.take_saved(), None);
        read(session.store(), &[5; 11]);
        session.save("the first", &[("hot", &hot), ("none", &[])], false).unwrap();
        read(session.store(), &[6; 9]);
        session.save("the second", &[("hot", &hot[..100])], false).unwrap();
        // Said after the last save.
        read(session.store(), &[7; 9]);
    }
    let mut session = sessions.open("book", "base", &small_options(), &[]).unwrap();
    let tokens = [[5; 11].as_slice(), &[6; 9]].concat();
    let parts = vec![("hot".to_owned(), hot[..100].to_vec())];
    let note = "the second".to_owned();
    assert_eq!(session.take_saved(), Some(SavedTurn { tokens: tokens.clone(), note, parts }));
    assert_eq!(session.take_saved(), None);
    assert_eq!(session.store().tokens(), tokens);
    assert_eq!(session.notices(), [] as [String; 0]);
    check_all(session.store());
    // The same words again: their blocks are there already.
    session.store().extend(&[7; 9]);
    check_all(session.store());
    assert_eq!(session.store().stats().stored_bytes + 44, session.store().stats().file_bytes);
}

#[test]
fn one_process_at_a_time_has_a_session() {
    let root = tempdir().unwrap();
    let sessions = Sessions::new(root.path());
    let session = sessions.open("mine", "base", &small_options(), &[]).unwrap();
    let error = sessions.open("mine", "base", &small_options(), &[]).unwrap_err().to_string();
    assert!(error.contains(&format!("in use by process {}", std::process::id())), "{error}");
    assert!(matches!(sessions.remove("mine"), Err(ContextError::InUse { .. })));
    assert_eq!(sessions.list().unwrap()[0].state, SessionState::InUse(std::process::id().to_string()));
    sessions.open("other", "base", &small_options(), &[]).unwrap();
    drop(session);
    sessions.open("mine", "base", &small_options(), &[]).unwrap();
}

#[test]
fn a_session_of_another_base_or_of_other_options_is_refused_with_both() {
    let root = tempdir().unwrap();
    let sessions = Sessions::new(root.path());
    let session = sessions.open("mine", "one", &small_options(), &[]).unwrap();
    session.save("", &[], false).unwrap();
    drop(session);
    let error = sessions.open("mine", "two", &small_options(), &[]).unwrap_err().to_string();
    assert!(error.contains("base one") && error.contains("base two"), "{error}");
    let fewer = ContextOptions { bits: KvBits::B2, ..small_options() };
    let error = sessions.open("mine", "one", &fewer, &[]).unwrap_err().to_string();
    assert!(error.contains("in 8 bits") && error.contains("in 2 bits"), "{error}");
    // How much memory and disk it may take is another question every time.
    let larger = ContextOptions { ram_bytes: 1 << 30, disk_bytes: 1 << 40, ..small_options() };
    sessions.open("mine", "one", &larger, &[]).unwrap();
    let settings = sessions.settings("mine").unwrap().unwrap();
    assert_eq!((settings.base.as_str(), settings.options.bits), ("one", KvBits::B8));
    assert_eq!(settings.options.block_tokens, small_options().block_tokens);
    assert_eq!(sessions.settings("other").unwrap(), None);
}

#[test]
fn only_names_that_are_one_folder_are_taken() {
    let root = tempdir().unwrap();
    let sessions = Sessions::new(&root.path().join("not/there/yet"));
    assert_eq!(sessions.list().unwrap(), []);
    let long = "x".repeat(65);
    for name in ["", ".", "..", ".hidden", "a/b", "/etc", "a b", "ä", &long] {
        let opened = sessions.open(name, "base", &small_options(), &[]);
        assert!(matches!(opened, Err(ContextError::Name { .. })), "{name}");
    }
    assert!(matches!(sessions.remove("absent"), Err(ContextError::NoSession { .. })));
    assert!(matches!(sessions.show("absent", true), Err(ContextError::NoSession { .. })));
    sessions.open("a-B_9.z", "base", &small_options(), &[]).unwrap();
    for folder in ["not/there/yet", "not/there/yet/a-B_9.z"] {
        let mode = fs::metadata(root.path().join(folder)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "what people say is theirs");
    }
}

#[test]
fn a_list_and_a_look_at_one_say_what_is_kept() {
    let root = tempdir().unwrap();
    let sessions = Sessions::new(root.path());
    let session = sessions.open("book", "base", &small_options(), &[]).unwrap();
    read(session.store(), &[1; 14]);
    session
        .store()
        .append_bytes(modularbase_context::BlockId { stream: "h_s", layer: 0, index: 0 }, b"x")
        .unwrap();
    session.save("a note", &[("hot", &[1, 2, 3])], false).unwrap();
    drop(session);
    let listed = sessions.list().unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (listed[0].name.as_str(), listed[0].tokens, &listed[0].state),
        ("book", 14, &SessionState::Ready)
    );
    assert!(listed[0].saved > 1_700_000_000 && listed[0].bytes > 0 && listed[0].shared_bytes == 0);
    let shown = sessions.show("book", true).unwrap();
    assert_eq!((shown.note.as_str(), shown.hot_bytes, shown.damage.len()), ("a note", 3, 0));
    let streams: Vec<_> = shown
        .streams
        .iter()
        .map(|stream| (stream.stream.as_str(), stream.layers, stream.whole_blocks, stream.bits.clone()))
        .collect();
    let expected = [("expert:9f", 2, 3, 16), ("h_s", 1, 1, 0), ("understanding", 2, 3, 16)];
    assert_eq!(streams, expected.map(|(name, layers, blocks, bits)| (name, layers, blocks, [bits].into())));
    sessions.remove("book").unwrap();
    assert_eq!(sessions.list().unwrap(), []);
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "only the lock is left");
}
