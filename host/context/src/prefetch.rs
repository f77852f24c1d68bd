//! Blocks fetched ahead of need, by a thread of its own.

use std::sync::PoisonError;

use crate::BlockId;
use crate::cold_store::Shared;

/// Reads and decodes what is wanted, one block after the other, until the store is closed.
pub(crate) fn run(shared: &Shared) {
    let mut state = shared.lock();
    while !state.closing {
        let Some((stream, layer, index)) = state.wanted.pop() else {
            state = shared.to_fetch.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        drop(state);
        // What is wrong with a block is told to whoever needs it.
        shared.block(BlockId { stream: &stream, layer, index }, true).ok();
        state = shared.lock();
    }
}
