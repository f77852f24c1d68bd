//! What all sessions together may take on disk, and how room is made for more.

use crate::{ContextError, Sessions};

#[derive(Debug)]
pub(crate) struct DiskBudget {
    limit: u64,
    /// Bytes of everything but the file that this one adds to.
    elsewhere: u64,
    /// Whose KV is given up, least recently used first, to make room.
    sessions: Option<Sessions>,
}

impl DiskBudget {
    /// Of a text that belongs to no session.
    pub(crate) fn alone(limit: u64) -> Self {
        Self { limit, elsewhere: 0, sessions: None }
    }

    pub(crate) fn among(sessions: Sessions, limit: u64, elsewhere: u64) -> Self {
        Self { limit, elsewhere, sessions: Some(sessions) }
    }

    /// Room for `more` bytes behind the `written` ones of this file.
    pub(crate) fn make_room(&mut self, written: u64, more: u64) -> Result<(), ContextError> {
        if written + more + self.elsewhere > self.limit
            && let Some(sessions) = &self.sessions
        {
            let used = sessions.collect(self.limit.saturating_sub(more))?.used_bytes;
            self.elsewhere = used.saturating_sub(written);
        }
        let used = written + self.elsewhere;
        if used + more > self.limit {
            Err(ContextError::OverBudget { used, limit: self.limit })
        } else {
            Ok(())
        }
    }
}
