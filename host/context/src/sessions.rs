//! The folder of all sessions.

use std::fs;
use std::path::{Path, PathBuf};

use crate::collection::{remove_the_removed, used_bytes};
use crate::disk_budget::DiskBudget;
use crate::file_lock::FileLock;
use crate::saved_turn::TurnHead;
use crate::session_folder::{REMOVED, SessionFolder, TURN, make_private};
use crate::{ContextError, ContextOptions, Session, shared_prefix};

/// All sessions, in one folder. Any number of processes may work on it at once: whoever opens, removes or
/// collects holds its lock for that time, and whoever has a session the session's.
#[derive(Debug, Clone)]
pub struct Sessions {
    root: PathBuf,
}

/// What a session was made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionSettings {
    /// The fingerprint of the base.
    pub base: String,
    /// The options, with the byte limits of today's default.
    pub options: ContextOptions,
}

impl Sessions {
    /// The sessions in `root`, which need not exist.
    pub fn new(root: &Path) -> Self {
        Self { root: root.into() }
    }

    /// Opens a session, or makes it. `base` is the fingerprint of what computes the KV. A new one takes over
    /// what another session has of the longest beginning of `prefix`, without copying it: a saved turn with
    /// all its KV, or else cold blocks, which are there when the text is extended by their tokens.
    ///
    /// # Errors
    /// When name or options can't be, another process has the session, it was made by another base or with other
    /// options, its saved turn is damaged, or the disk can't be written.
    pub fn open(
        &self,
        name: &str,
        base: &str,
        options: &ContextOptions,
        prefix: &[u32],
    ) -> Result<Session, ContextError> {
        options.check()?;
        let path = self.folder(name)?;
        make_private(&self.root)?;
        let _all = self.lock_all()?;
        let folder = SessionFolder::lock(path)?;
        if !folder.turn().exists() && !folder.own_blocks().exists() {
            shared_prefix::take_over(&self.root, &folder, base, options, prefix)?;
        }
        let elsewhere = used_bytes(&self.root)?;
        let own = fs::metadata(folder.own_blocks()).map_or(0, |found| found.len());
        let budget = DiskBudget::among(self.clone(), options.disk_bytes, elsewhere.saturating_sub(own));
        Session::open(folder, base, options, budget)
    }

    /// What the session was made with; `None` when there is none that saved a turn.
    ///
    /// # Errors
    /// When the name is none, or its saved turn is damaged or can't be read.
    pub fn settings(&self, name: &str) -> Result<Option<SessionSettings>, ContextError> {
        let head = TurnHead::read(&self.folder(name)?.join(TURN))?;
        Ok(head.map(|head| SessionSettings { base: head.base, options: head.options }))
    }

    /// Removes a session with its text. What other sessions share with it stays theirs.
    ///
    /// # Errors
    /// When there is none, a process has it, or it can't be removed.
    pub fn remove(&self, name: &str) -> Result<(), ContextError> {
        let path = self.existing(name)?;
        let _all = self.lock_all()?;
        let _folder = SessionFolder::lock(path.clone())?;
        remove_the_removed(&self.root)?;
        // At one stroke: half a session must not be left where this process ends.
        let removed = self.root.join(format!("{REMOVED}{name}"));
        fs::rename(&path, &removed).map_err(ContextError::write(&path))?;
        fs::remove_dir_all(&removed).map_err(ContextError::write(&removed))
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of a session that is there.
    pub(crate) fn existing(&self, name: &str) -> Result<PathBuf, ContextError> {
        let path = self.folder(name)?;
        if path.is_dir() { Ok(path) } else { Err(ContextError::NoSession { session: name.into() }) }
    }

    /// Waits for the lock on all sessions; `None` where there are none.
    pub(crate) fn lock_all(&self) -> Result<Option<FileLock>, ContextError> {
        let path = self.root.join(".lock");
        let lock = self.root.exists().then(|| FileLock::wait(&path).map_err(ContextError::write(&path)));
        lock.transpose()
    }

    fn folder(&self, name: &str) -> Result<PathBuf, ContextError> {
        let may_be = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.bytes().all(may_be) {
            return Err(ContextError::Name { name: name.into() });
        }
        Ok(self.root.join(name))
    }
}
