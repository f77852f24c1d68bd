//! A text that outlives the process: its cold blocks, and what was saved at its last turn's end.

use std::fs;
use std::sync::Arc;

use crate::block_file::{BlockFile, OpenedFile};
use crate::disk_budget::DiskBudget;
use crate::error::DifferentSettings;
use crate::found_blocks::FoundBlocks;
use crate::saved_turn::{self, TurnHead};
use crate::session_folder::SessionFolder;
use crate::token_chain::{Identity, TokenChain};
use crate::{ColdStore, ContextError, ContextOptions, SavedTurn};

/// A session that this process has; no other one can open it meanwhile.
#[derive(Debug)]
pub struct Session {
    // Before the folder: where nobody else has it any longer, everything is written before the lock goes.
    store: Arc<ColdStore>,
    saved: Option<SavedTurn>,
    notices: Vec<String>,
    base: String,
    options: ContextOptions,
    folder: SessionFolder,
}

impl Session {
    /// Recovers what the folder holds.
    pub(crate) fn open(
        folder: SessionFolder,
        base: &str,
        options: &ContextOptions,
        budget: DiskBudget,
    ) -> Result<Self, ContextError> {
        let identity = Identity::new(base, options);
        let mut notices = Vec::new();
        let mut chain = TokenChain::new(identity, options.block_tokens);
        let (mut saved, mut blocks) = (None, 0);
        if let Some((head, turn, damage)) = SavedTurn::read(&folder.turn())? {
            check_settings(&folder, &head, base, options)?;
            chain.extend(&turn.tokens);
            if head.given_up {
                notices.push("its KV was given up for the disk budget: the text is read again".into());
            }
            notices.extend(damage.map(|damage| format!("{damage}: the hot window is computed again")));
            blocks = head.blocks;
            saved = Some(turn);
        }
        let mut files = Vec::new();
        let mut found = FoundBlocks::default();
        let mut end = None;
        for path in folder.block_files()? {
            let file = match BlockFile::open(&path, &identity)? {
                OpenedFile::Sound(file) => file,
                OpenedFile::Useless(reason) => {
                    notices.push(format!("{reason}: its blocks are given up"));
                    fs::remove_file(&path).map_err(ContextError::write(&path))?;
                    continue;
                }
            };
            let walked = file.walk(|head, place| found.add(files.len(), head, place))?;
            if path != folder.own_blocks() {
                files.push(Arc::new(file));
                continue;
            }
            notices.extend(walked.fault.as_ref().map(|fault| format!("{fault}: cut off there")));
            if walked.fault.is_some() && file.links()? > 1 {
                // Others hold this file too and may find more in it; this session goes on in a new one.
                let shared = folder.new_shared_blocks();
                fs::rename(&path, &shared).map_err(ContextError::write(&shared))?;
                files.push(Arc::new(file.renamed(shared)));
                continue;
            }
            file.cut(walked.end)?;
            files.push(Arc::new(file));
            end = Some(walked.end);
        }
        let end = match end {
            Some(end) => end,
            None => {
                files.push(Arc::new(BlockFile::create(&folder.own_blocks(), &identity)?));
                BlockFile::first_offset()
            }
        };
        let store = ColdStore::start(chain, found, files, end, options, budget);
        let kept = store.stats().blocks;
        if kept < blocks {
            notices.push(format!(
                "{} of {blocks} saved blocks are missing: their text is read again",
                blocks - kept
            ));
        }
        Ok(Self {
            store: Arc::new(store),
            saved,
            notices,
            base: base.into(),
            options: options.clone(),
            folder,
        })
    }

    /// Its cold blocks and its tokens: at first those of the last saved turn. Whoever shares it lets go of it
    /// before the session: what it has still to write is written while the session is locked.
    pub fn store(&self) -> &Arc<ColdStore> {
        &self.store
    }

    /// What was saved at the last turn's end, once; `None` for a new session. Its parts are empty where they
    /// were damaged or given up: then [`notices`](Self::notices) says so, and the KV has to be computed
    /// again.
    pub fn take_saved(&mut self) -> Option<SavedTurn> {
        self.saved.take()
    }

    /// What had to be given up when the session was opened, and why.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Saves the turn: the store's tokens and blocks, a note, and named parts, all or nothing. Returns when
    /// the disk has them. With `as_prefix` other sessions may begin with this state, also when this one went
    /// on; an earlier one isn't kept for that any longer.
    ///
    /// # Errors
    /// When something can't be written, or a file of the session was deleted. What was saved before still is.
    pub fn save(&self, note: &str, parts: &[(&str, &[u8])], as_prefix: bool) -> Result<(), ContextError> {
        let blocks = self.store.settle()?;
        let head = TurnHead::new(&self.base, &self.options, note, blocks);
        head.write(&self.folder.turn(), &self.store.tokens(), parts)?;
        if as_prefix { saved_turn::link(&self.folder.turn(), &self.folder.prefix()) } else { Ok(()) }
    }
}

fn check_settings(
    folder: &SessionFolder,
    head: &TurnHead,
    base: &str,
    options: &ContextOptions,
) -> Result<(), ContextError> {
    if Identity::new(&head.base, &head.options) == Identity::new(base, options) {
        return Ok(());
    }
    let (made, asked) = if head.base == base {
        (head.options.to_string(), options.to_string())
    } else {
        (format!("base {}", head.base), format!("base {base}"))
    };
    Err(ContextError::OtherSettings(Box::new(DifferentSettings { session: folder.name(), made, asked })))
}
