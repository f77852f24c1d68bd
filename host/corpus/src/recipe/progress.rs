//! Who watches a recipe being made, and may end it.

/// A watcher. Every method has a default that does nothing, so `&()` watches nothing.
pub trait RecipeProgress: Sync {
    /// `what` is being fetched; so many bytes are there.
    fn downloading(&self, what: &str, bytes: u64) {
        let _ = (what, bytes);
    }

    /// So many documents of the source with so many bytes are taken out.
    fn extracted(&self, source: &str, documents: u64, bytes: u64) {
        let _ = (source, documents, bytes);
    }

    /// All sources are read; what follows is splitting and writing.
    fn writing(&self) {}

    /// Whether the work is to end.
    fn is_cancelled(&self) -> bool {
        false
    }
}

impl RecipeProgress for () {}
