//! Who watches long work, and may end it.

/// A watcher of long work. Every method has a default that does nothing, so `&()` watches nothing.
pub trait Progress: Sync {
    /// So many more documents with so many tokens are encoded.
    fn encoded(&self, documents: u64, tokens: u64) {
        let _ = (documents, tokens);
    }

    /// Whether the work is to end with [`crate::CorpusError::Cancelled`]. Asked every few milliseconds to seconds.
    fn is_cancelled(&self) -> bool {
        false
    }
}

impl Progress for () {}
