//! What a session's folder holds, without opening the session.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use serde::Serialize;

use crate::block_file::{BlockFile, OpenedFile, Place};
use crate::saved_turn::{SavedTurn, TurnHead};
use crate::session_folder::{TURN, block_files, lock_owner, session_folders, usage};
use crate::token_chain::{Identity, TokenChain};
use crate::{ContextError, ContextOptions, Sessions};

/// A session in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SessionSummary {
    /// Its name.
    pub name: String,
    /// Whether it can be opened.
    pub state: SessionState,
    /// The fingerprint of its base; empty before the first turn is saved.
    pub base: String,
    /// How its context is kept; `None` before the first turn is saved.
    pub options: Option<ContextOptions>,
    /// Tokens of its text.
    pub tokens: usize,
    /// When its last turn was saved, seconds since 1970; 0 before.
    pub saved: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Of these, bytes in files that other sessions have too.
    pub shared_bytes: u64,
}

/// Whether a session can be opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// It goes on where it ended.
    Ready,
    /// Its KV was given up: it goes on after its text was read again.
    TextOnly,
    /// A process has it, by its number.
    InUse(String),
    /// It can't be opened, for this reason.
    Unreadable(String),
}

/// The blocks of one stream of a session's text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StreamSummary {
    /// The stream.
    pub stream: String,
    /// Its layers.
    pub layers: u32,
    /// Blocks, from the first on, that all of them have.
    pub whole_blocks: u32,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Bits of a key or value, of each level that there are blocks of; 0 for plain bytes.
    pub bits: BTreeSet<usize>,
}

/// A session in full.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SessionDetails {
    /// As in a list.
    #[serde(flatten)]
    pub summary: SessionSummary,
    /// What its owner noted.
    pub note: String,
    /// Bytes of the hot window that was saved.
    pub hot_bytes: u64,
    /// The cold blocks of its text.
    pub streams: Vec<StreamSummary>,
    /// What is wrong with its files; all checksums were looked at where that was asked for.
    pub damage: Vec<String>,
}

impl Sessions {
    /// All sessions, in the order of their names.
    ///
    /// # Errors
    /// When the folder can't be read.
    pub fn list(&self) -> Result<Vec<SessionSummary>, ContextError> {
        let _all = self.lock_all()?;
        session_folders(self.root())?.iter().map(|folder| summary(folder)).collect()
    }

    /// One session. With `verify` every byte of it is read and checked.
    ///
    /// # Errors
    /// When there is none, or its files can't be read.
    pub fn show(&self, name: &str, verify: bool) -> Result<SessionDetails, ContextError> {
        let folder = self.existing(name)?;
        let summary = {
            let _all = self.lock_all()?;
            summary(&folder)?
        };
        let mut details = SessionDetails {
            summary,
            note: String::new(),
            hot_bytes: 0,
            streams: Vec::new(),
            damage: Vec::new(),
        };
        let turn = match SavedTurn::read(&folder.join(TURN)) {
            Ok(Some((head, turn, damage))) => {
                details.damage.extend(damage);
                details.note = turn.note;
                details.hot_bytes = turn.parts.iter().map(|(_, bytes)| bytes.len() as u64).sum();
                Some((head, turn.tokens))
            }
            Ok(None) => None,
            // The state says so already.
            Err(ContextError::Format { .. }) => None,
            Err(error) => return Err(error),
        };
        if let Some((head, tokens)) = turn {
            blocks(&folder, &head, &tokens, verify, &mut details)?;
        }
        Ok(details)
    }
}

fn summary(folder: &Path) -> Result<SessionSummary, ContextError> {
    let files = usage(folder)?;
    let bytes =
        |shared: bool| files.iter().filter(|file| file.shared || !shared).map(|file| file.bytes).sum();
    let mut summary = SessionSummary {
        name: folder.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        state: SessionState::Ready,
        base: String::new(),
        options: None,
        tokens: 0,
        saved: 0,
        bytes: bytes(false),
        shared_bytes: bytes(true),
    };
    match TurnHead::read(&folder.join(TURN)) {
        Ok(Some(head)) => {
            if head.given_up {
                summary.state = SessionState::TextOnly;
            }
            (summary.tokens, summary.saved) = (head.tokens, head.saved);
            (summary.base, summary.options) = (head.base, Some(head.options));
        }
        Ok(None) => {}
        Err(error) => summary.state = SessionState::Unreadable(error.to_string()),
    }
    if let Some(process) = lock_owner(folder)? {
        summary.state = SessionState::InUse(process);
    }
    Ok(summary)
}

/// By layer and block: the bytes it takes, and its bits.
type StreamBlocks = HashMap<(u32, u32), (u64, usize)>;

/// The blocks of the text in the session's files.
fn blocks(
    folder: &Path,
    head: &TurnHead,
    tokens: &[u32],
    verify: bool,
    details: &mut SessionDetails,
) -> Result<(), ContextError> {
    let identity = Identity::new(&head.base, &head.options);
    let mut chain = TokenChain::new(identity, head.options.block_tokens);
    chain.extend(tokens);
    let mut found: BTreeMap<String, StreamBlocks> = BTreeMap::new();
    for path in block_files(folder)? {
        let file = match BlockFile::open(&path, &identity)? {
            OpenedFile::Sound(file) => file,
            OpenedFile::Useless(reason) => {
                details.damage.push(reason);
                continue;
            }
        };
        let mut places: Vec<Place> = Vec::new();
        let walked = file.walk(|head, place| {
            if chain.hash(head.index) != Some(&head.chain) {
                return;
            }
            let bits = usize::from(head.content.bits());
            found
                .entry(head.stream)
                .or_default()
                .insert((head.layer, head.index), (place.bytes.into(), bits));
            places.push(place);
        })?;
        // A session in use may be writing at the end of its file.
        if !matches!(details.summary.state, SessionState::InUse(_)) {
            details.damage.extend(walked.fault);
        }
        for place in places.into_iter().filter(|_| verify) {
            details.damage.extend(file.fault_at(place)?);
        }
    }
    for (stream, blocks) in found {
        let layers = blocks.keys().map(|(layer, _)| layer + 1).max().unwrap_or(0);
        let whole = |index: &u32| (0..layers).all(|layer| blocks.contains_key(&(layer, *index)));
        details.streams.push(StreamSummary {
            stream,
            layers,
            whole_blocks: (0..chain.blocks()).take_while(whole).count() as u32,
            bytes: blocks.values().map(|(bytes, _)| bytes).sum(),
            bits: blocks.values().map(|(_, bits)| *bits).collect(),
        });
    }
    Ok(())
}
