//! Blocks fetched ahead of need, by a thread of its own.

use std::sync::PoisonError;

use crate::BlockId;
use crate::cold_store::Shared;

/// Reads and decodes what is wanted, one block after the other, until the store is closed.
pub(crate) fn run(shared: &Shared) {
    let mut state = shared.lock();
    while !state.closing {
        let Some(key) = state.wanted.pop_front() else {
            state = shared.to_fetch.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        let stream = state.index.name(key.stream);
        state.fetching = true;
        drop(state);
        let fetching = Fetching(shared);
        // What is wrong with a block is told to whoever needs it.
        shared.block(BlockId { stream: &stream, layer: key.layer, index: key.index }, true).ok();
        drop(fetching);
        state = shared.lock();
    }
}

/// A block that is being fetched: its end is told also when fetching it panics, so that nobody waits for it for ever.
struct Fetching<'a>(&'a Shared);

impl Drop for Fetching<'_> {
    fn drop(&mut self) {
        self.0.lock().fetching = false;
        self.0.was_fetched.notify_all();
    }
}
