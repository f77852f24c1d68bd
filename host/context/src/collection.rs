//! Disk space won back: what no text asks for, then the KV of sessions that were not used for long.
//!
//! KV can be computed again from the tokens, so it is given up when the budget asks for it; a session's text
//! never is.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::compaction::compact;
use crate::saved_turn::TurnHead;
use crate::session_folder::{REMOVED, SessionFolder, session_folders, usage};
use crate::{ContextError, Sessions};

/// What a collection did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Collected {
    /// Bytes on disk before.
    pub before_bytes: u64,
    /// Bytes on disk now.
    pub used_bytes: u64,
    /// Sessions whose files lost blocks that nobody asks for.
    pub compacted: Vec<String>,
    /// Sessions whose KV was given up; their texts are kept.
    pub given_up: Vec<String>,
}

impl Sessions {
    /// Wins back what no text asks for. Then, least recently saved first, sessions that nobody has open give
    /// up their KV until all take at most `limit` bytes on disk; bytes that sessions share are counted once,
    /// and are free when the last of them gives them up. Turns that are damaged or of another version are
    /// left alone.
    ///
    /// # Errors
    /// When files can't be read or removed.
    pub fn collect(&self, limit: u64) -> Result<Collected, ContextError> {
        let root = self.root();
        let Some(_all) = self.lock_all()? else { return Ok(Collected::default()) };
        let mut collected = Collected { before_bytes: used_bytes(root)?, ..Collected::default() };
        remove_the_removed(root)?;
        let mut idle = Vec::new();
        for path in session_folders(root)? {
            let folder = match SessionFolder::lock(path) {
                Err(ContextError::InUse { .. }) => continue,
                locked => locked?,
            };
            let Ok(head) = TurnHead::read(&folder.turn()) else { continue };
            match compact(&folder) {
                Ok(0) | Err(ContextError::Write { .. } | ContextError::Format { .. }) => {}
                Ok(_) => collected.compacted.push(folder.name()),
                Err(error) => return Err(error),
            }
            if head.as_ref().is_none_or(|head| !head.given_up) {
                idle.push((head.map_or(0, |head| head.saved), folder));
            }
        }
        idle.sort_by_key(|(saved, _)| *saved);
        collected.used_bytes = used_bytes(root)?;
        for (_, folder) in idle {
            if collected.used_bytes <= limit {
                break;
            }
            give_up_kv(&folder)?;
            collected.given_up.push(folder.name());
            collected.used_bytes = used_bytes(root)?;
        }
        Ok(collected)
    }
}

/// Bytes on disk of all sessions, those of a file with several names counted once.
pub(crate) fn used_bytes(root: &Path) -> Result<u64, ContextError> {
    let mut files = HashMap::new();
    for folder in session_folders(root)? {
        files.extend(usage(&folder)?.into_iter().map(|usage| (usage.file, usage.bytes)));
    }
    Ok(files.values().sum())
}

/// Finishes removals that a process began and did not end.
pub(crate) fn remove_the_removed(root: &Path) -> Result<(), ContextError> {
    for entry in fs::read_dir(root).map_err(ContextError::read(root))?.filter_map(Result::ok) {
        if entry.file_name().to_string_lossy().starts_with(REMOVED) {
            fs::remove_dir_all(entry.path()).map_err(ContextError::write(&entry.path()))?;
        }
    }
    Ok(())
}

/// Files go before the turn is written without KV: a full disk has no room for it before.
fn give_up_kv(folder: &SessionFolder) -> Result<(), ContextError> {
    let turn = TurnHead::read_text(&folder.turn())?;
    let prefix = folder.prefix();
    for path in folder.block_files()?.into_iter().chain(prefix.exists().then_some(prefix)) {
        fs::remove_file(&path).map_err(ContextError::write(&path))?;
    }
    match turn {
        Some((head, tokens)) => head.without_kv().write(&folder.turn(), &tokens, &[]),
        None => fs::remove_dir_all(folder.path()).map_err(ContextError::write(folder.path())),
    }
}
