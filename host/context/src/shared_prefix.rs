//! A new session begins with what another one has of its text.
//!
//! Files of blocks are only added to and saved turns never written to, so a second name of a file (a hard
//! link) is a share in it. The file system counts these references, over crashes too: the bytes go with the
//! last name.

use std::fs;
use std::path::{Path, PathBuf};

use crate::saved_turn::{TurnHead, link};
use crate::session_folder::{PREFIX, SessionFolder, TURN, block_files, session_folders};
use crate::token_chain::Identity;
use crate::{ContextError, ContextOptions};

/// What a session has of a text.
struct Share {
    /// Tokens that need not be computed.
    tokens: usize,
    /// Its saved turn has all of them, with the hot window; else only its blocks do.
    whole: bool,
    folder: PathBuf,
    turn: PathBuf,
}

/// Takes over what any other session under `root` has of the longest beginning of `prefix`.
pub(crate) fn take_over(
    root: &Path,
    folder: &SessionFolder,
    base: &str,
    options: &ContextOptions,
    prefix: &[u32],
) -> Result<(), ContextError> {
    let identity = Identity::new(base, options);
    let mut best: Option<Share> = None;
    for other in session_folders(root)? {
        for name in [TURN, PREFIX] {
            let share = share(&other, other.join(name), &identity, prefix);
            let better = |share: &Share| {
                best.as_ref().is_none_or(|best| (best.tokens, best.whole) < (share.tokens, share.whole))
            };
            if let Some(share) = share.filter(better) {
                best = Some(share);
            }
        }
    }
    let Some(best) = best else { return Ok(()) };
    for blocks in block_files(&best.folder)? {
        link(&blocks, &folder.new_shared_blocks())?;
    }
    if best.whole {
        link(&best.turn, &folder.turn())?;
        // Its session may be at work and have saved another turn meanwhile.
        let taken = share(folder.path(), folder.turn(), &identity, prefix);
        if taken.is_none_or(|taken| !taken.whole) {
            fs::remove_file(folder.turn()).map_err(ContextError::write(&folder.turn()))?;
        }
    }
    Ok(())
}

/// A damaged turn, or one of a newer program, is of no use to others.
fn share(folder: &Path, turn: PathBuf, identity: &Identity, prefix: &[u32]) -> Option<Share> {
    let (head, tokens) = TurnHead::read_text(&turn).ok()??;
    if head.given_up || Identity::new(&head.base, &head.options) != *identity {
        return None;
    }
    let common = tokens.iter().zip(prefix).take_while(|(one, other)| one == other).count();
    let whole = common == tokens.len();
    let in_blocks = common - common % head.options.block_tokens;
    let tokens = if whole { common } else { in_blocks };
    (tokens > 0).then(|| Share { tokens, whole, folder: folder.into(), turn })
}
