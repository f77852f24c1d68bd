//! Files that are not what was written. Whatever is wrong, no block, token or part comes back as another one.

use std::fs;
use std::path::{Path, PathBuf};

use modularbase_context::{ContextError, Session, SessionState, Sessions};
use tempfile::{TempDir, tempdir};

use crate::support::{check_all, check_what_is_there, ids, read, small_options};

const HOT: [u8; 20] = [7; 20];

/// A session of 14 tokens, 3 whole blocks, saved and closed.
fn saved() -> (TempDir, Sessions, PathBuf) {
    let root = tempdir().unwrap();
    let sessions = Sessions::new(root.path());
    let session = sessions.open("text", "base", &small_options(), &[]).unwrap();
    read(session.store(), &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]);
    session.save("note", &[("hot", &HOT)], false).unwrap();
    drop(session);
    let folder = root.path().join("text");
    (root, sessions, folder)
}

fn open(sessions: &Sessions) -> Result<Session, ContextError> {
    sessions.open("text", "base", &small_options(), &[])
}

/// The turn is as it was saved, but for a hot window that may be refused whole.
fn check_turn(session: &mut Session) {
    let turn = session.take_saved().unwrap();
    assert_eq!(
        (turn.tokens.as_slice(), turn.note.as_str()),
        ([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14].as_slice(), "note")
    );
    match turn.parts.as_slice() {
        [] => assert!(session.notices().iter().any(|notice| notice.contains("`hot` is damaged"))),
        parts => assert_eq!(parts, [("hot".to_owned(), HOT.to_vec())]),
    }
}

fn with_each_byte_flipped(path: &Path, mut check: impl FnMut(usize)) {
    let sound = fs::read(path).unwrap();
    for at in 0..sound.len() {
        let mut damaged = sound.clone();
        damaged[at] ^= 1 << (at % 8);
        fs::write(path, &damaged).unwrap();
        check(at);
        fs::write(path, &sound).unwrap();
    }
}

#[test]
fn a_flipped_byte_anywhere_in_the_blocks_costs_that_block_and_those_after_it() {
    let (_root, sessions, folder) = saved();
    let path = folder.join("cold.mbkv");
    let of_a_block = (fs::metadata(&path).unwrap().len() as usize - 44) / 3;
    with_each_byte_flipped(&path, |at| {
        assert!(!sessions.show("text", true).unwrap().damage.is_empty());
        let mut session = open(&sessions).unwrap();
        check_turn(&mut session);
        let damaged = at.checked_sub(44).map_or(0, |at| at / of_a_block);
        assert_eq!(check_what_is_there(session.store()), damaged as u32, "a flip at {at}");
    });
}

#[test]
fn what_is_refused_can_be_read_again_after_the_text_was_cut() {
    let (_root, sessions, folder) = saved();
    let path = folder.join("cold.mbkv");
    let mut bytes = fs::read(&path).unwrap();
    let end = bytes.len();
    // The last byte of the second block's last layer.
    bytes[44 + (end - 44) * 2 / 3 - 1] ^= 4;
    fs::write(&path, &bytes).unwrap();
    let damage = sessions.show("text", true).unwrap().damage;
    assert!(damage.len() == 1 && damage[0].contains("checksum"), "{damage:?}");
    assert!(sessions.show("text", false).unwrap().damage.is_empty());
    let session = open(&sessions).unwrap();
    let text = session.store().tokens();
    let refused =
        ids(text.len()).filter(|id| id.index == 1).map(|id| session.store().block(id)).last().unwrap();
    assert!(matches!(refused, Err(ContextError::Refused { index: 1, .. })), "{refused:?}");
    assert_eq!(check_what_is_there(session.store()), 1);
    session.store().truncate(4);
    read(session.store(), &text[4..]);
    check_all(session.store());
    session.save("", &[], false).unwrap();
    drop(session);
    let session = open(&sessions).unwrap();
    assert_eq!(session.store().tokens(), text);
    check_all(session.store());
}

#[test]
fn a_flipped_byte_anywhere_in_the_saved_turn_is_refused_or_costs_the_hot_window() {
    let (_root, sessions, folder) = saved();
    let mut kept = 0;
    with_each_byte_flipped(&folder.join("turn.mbturn"), |at| match open(&sessions) {
        Ok(mut session) => {
            kept += 1;
            check_turn(&mut session);
            check_all(session.store());
        }
        Err(error) => {
            assert!(matches!(error, ContextError::Format { .. }), "{at}: {error}");
            let state = &sessions.list().unwrap()[0].state;
            let unreadable =
                matches!(state, SessionState::Unreadable(reason) if reason.contains("turn.mbturn"));
            // Damaged tokens are only found when they are read.
            assert!(unreadable || error.to_string().contains("tokens"), "{at}: {state:?}");
        }
    });
    assert_eq!(kept, HOT.len());
    // Nothing of it was thrown away: with its bytes back it is as before.
    check_all(open(&sessions).unwrap().store());
}

#[test]
fn a_file_cut_off_anywhere_keeps_its_whole_blocks() {
    let (_root, sessions, folder) = saved();
    let path = folder.join("cold.mbkv");
    let sound = fs::read(&path).unwrap();
    let of_a_block = (sound.len() - 44) / 3;
    for length in (0..sound.len()).rev().step_by(7) {
        fs::write(&path, &sound[..length]).unwrap();
        let mut session = open(&sessions).unwrap();
        assert!(!session.notices().is_empty());
        check_turn(&mut session);
        let whole = length.saturating_sub(44) / of_a_block;
        assert_eq!(check_what_is_there(session.store()), whole as u32, "{length} bytes");
        // It goes on from there, and is whole again.
        let text = session.store().tokens();
        session.store().truncate(whole * 4);
        read(session.store(), &text[whole * 4..]);
        drop(session);
        check_all(open(&sessions).unwrap().store());
    }
}

#[test]
fn a_deleted_file_costs_its_blocks_and_is_said() {
    let (_root, sessions, folder) = saved();
    fs::remove_file(folder.join("cold.mbkv")).unwrap();
    let mut session = open(&sessions).unwrap();
    assert_eq!(session.notices(), ["12 of 12 saved blocks are missing: their text is read again"]);
    check_turn(&mut session);
    assert_eq!(check_what_is_there(session.store()), 0);
    drop(session);

    // The turn deleted: nothing tells what the text was, and blocks are found when the same one comes.
    fs::remove_file(folder.join("turn.mbturn")).unwrap();
    let mut session = open(&sessions).unwrap();
    assert_eq!((session.take_saved(), session.store().tokens()), (None, Vec::new()));
}

#[test]
fn a_turn_is_not_saved_into_files_that_were_deleted_meanwhile() {
    let (_root, sessions, folder) = saved();
    let session = open(&sessions).unwrap();
    read(session.store(), &[1; 4]);
    fs::remove_file(folder.join("cold.mbkv")).unwrap();
    // What was read stays readable while the session is open.
    check_all(session.store());
    let error = session.save("lost", &[], false).unwrap_err();
    assert!(matches!(error, ContextError::Deleted { .. }), "{error}");
    fs::remove_dir_all(&folder).unwrap();
    assert!(session.save("lost", &[], false).is_err());
    drop(session);
    assert!(!folder.exists());
}

#[test]
fn a_file_of_another_version_is_refused_and_left_alone() {
    for (file, at) in [("cold.mbkv", 4), ("turn.mbturn", 4)] {
        let (_root, sessions, folder) = saved();
        let path = folder.join(file);
        let mut bytes = fs::read(&path).unwrap();
        bytes[at] = 9;
        if file == "cold.mbkv" {
            let crc = crc32c::crc32c(&bytes[..40]);
            bytes[40..44].copy_from_slice(&crc.to_le_bytes());
        }
        fs::write(&path, &bytes).unwrap();
        let error = open(&sessions).unwrap_err().to_string();
        assert!(error.contains("version 9") && error.contains("this program reads"), "{error}");
        // A turn is left alone whatever the budget; KV only as long as there is room.
        sessions.collect(if file == "turn.mbturn" { 0 } else { u64::MAX }).unwrap();
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
}
