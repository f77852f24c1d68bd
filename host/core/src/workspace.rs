//! Working memory that the plans of one executor share.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

/// Buffers that are kept from call to call.
pub(crate) trait Buffers {
    /// Bytes allocated for them.
    fn bytes(&self) -> usize;
}

/// Buffers for one call at a time.
#[derive(Debug, Default)]
pub(crate) struct SharedWorkspace<B> {
    buffers: Mutex<B>,
    /// What they held when the last call ended; read without waiting for the call that runs.
    bytes: AtomicUsize,
}

impl<B: Buffers> SharedWorkspace<B> {
    /// Works in the buffers, after whoever does so now.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut B) -> T) -> T {
        // Buffers that an earlier panic left behind hold no state that matters.
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let result = work(&mut buffers);
        self.bytes.store(buffers.bytes(), Ordering::Relaxed);
        result
    }

    /// Bytes held, as of the end of the last call.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}
